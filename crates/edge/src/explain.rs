//! What the next request like this one would meet in the cache, for whoever wonders.
//!
//! **Intuition.** A question about a URL is only as good as its key, and the key comes from the same steps that a request
//! takes: strict reading, normal form, route, fields that count. So the question is put as a request and goes that way.
//!
//! **Mechanism.** The head is read by the codec, brought to normal form and routed; then [`tenfold_cache::Cache::explain`]
//! says what is stored and how a lookup would judge it. Nothing is fetched, freed or counted.
//!
//! **Failure.** What would be refused as a request is refused here, with the same reason.

use tenfold_cache::{Explained, KeyBuf, Lookup, MissReason, RequestFacts, Timestamp};
use tenfold_http1::{Field, parse_request};

use crate::Edge;
use crate::forward::{overrides_method, passed_on, told_scheme};
use crate::normalise::{Target, normalise, normalise_host};
use crate::reason::Reason;

/// What the cache has for a request, and what comes next.
#[derive(Debug)]
pub struct Explanation {
    /// The route that takes it.
    pub route: String,
    /// In normal form: what the key says of the URL.
    pub host: String,
    /// In normal form, with what of the query counts.
    pub target: String,
    /// What the cache would do, in one word: `hit`, `stale`, `revalidate`, `miss`, `bypass` or `refuse`.
    pub outcome: &'static str,
    /// Why, as a label.
    pub reason: &'static str,
    /// Why, for a person.
    pub why: String,
    /// What is stored.
    pub cache: Explained,
}

impl Edge {
    /// Explains a request, given as the bytes of its head. Its fields are believed as a trusted proxy's would be, so that
    /// `X-Forwarded-Proto: https` asks for what clients of the `https` site get.
    ///
    /// # Errors
    /// Why such a request is refused.
    pub fn explain(&self, request: &[u8], now: Timestamp) -> Result<Explanation, Reason> {
        let snapshot = self.snapshot();
        let (head, _) =
            parse_request(request, &mut 0, &snapshot.codec)?.ok_or(tenfold_http1::Error::Truncated)?;
        let fields = passed_on(&head.fields, head.names_hop_by_hop, true);
        let (mut path, mut host) = (Vec::new(), Vec::new());
        let host = normalise_host(head.host, &mut host)?;
        let target = normalise(head.path, head.query, &mut path)?;
        let index =
            snapshot.router.find(host, target.path, head.method_text, &fields).ok_or(Reason::NoRoute)?;
        let route = &snapshot.routes[index.0];
        let counts = route.rule.counted_query(target.query);
        let target = Target { query: counts.as_deref(), ..target };
        let facts = RequestFacts::read(head.method_text, &fields).under(&route.rule);
        let mut key = KeyBuf::new();
        let asked = (target.path.as_bytes(), target.query.map(str::as_bytes));
        route.key(&mut key, told_scheme(&fields), host.as_bytes(), asked, &facts);
        let cache = self.shared.cache.explain(&key, &facts, &route.rule, now);
        let (outcome, reason, why) = explain(&cache, &fields);
        Ok(Explanation {
            route: route.name.to_string(),
            host: host.to_owned(),
            target: target
                .query
                .map_or_else(|| target.path.to_owned(), |query| format!("{}?{query}", target.path)),
            outcome,
            reason,
            why,
            cache,
        })
    }
}

/// The word, the label and the sentence.
fn explain(cache: &Explained, request_fields: &[Field<'_>]) -> (&'static str, &'static str, String) {
    match &cache.found {
        Lookup::Hit(hit) => ("hit", "fresh", format!("it is stored and fresh for {} s more", hit.ttl_s)),
        Lookup::Stale { hit, .. } if hit.instead_of_error => (
            "stale",
            "stale_if_error",
            format!("the origin failed lately, and a copy that is stale for {} s stands in", -hit.ttl_s),
        ),
        Lookup::Stale { hit, .. } if hit.suspect => (
            "hit",
            "suspect",
            format!(
                "it is fresh for {} s more as far as is known; a purge may have been missed, so it is renewed behind the answer",
                hit.ttl_s
            ),
        ),
        Lookup::Stale { hit, refresh: true } => (
            "stale",
            "stale_while_revalidate",
            format!("it is stale for {} s, is served all the same and renewed behind the answer", -hit.ttl_s),
        ),
        Lookup::Stale { hit, refresh: false } => {
            ("stale", "max_stale", format!("it is stale for {} s, which the request accepts", -hit.ttl_s))
        }
        Lookup::Revalidate { requested: true, .. } => {
            ("revalidate", "request", "the request's own Cache-Control wants the origin asked".into())
        }
        Lookup::Revalidate { serve_if_error, .. } => {
            let rest = if *serve_if_error { "; if the origin fails, the copy stands in" } else { "" };
            ("revalidate", "stale", format!("it is stale, or says no-cache, so the origin is asked{rest}"))
        }
        Lookup::Miss(reason) => ("miss", reason.as_str(), why_missed(*reason, cache, request_fields)),
        Lookup::Bypass(reason) => ("bypass", reason.as_str(), why_bypassed(reason.as_str())),
        Lookup::GatewayTimeout => {
            ("refuse", "only_if_cached", "the request says only-if-cached, and nothing usable is: 504".into())
        }
    }
}

fn why_missed(reason: MissReason, cache: &Explained, request_fields: &[Field<'_>]) -> String {
    let text = match reason {
        MissReason::Uri => "nothing is stored for this URL",
        MissReason::Vary => "what is stored is for other values of the headers in Vary",
        MissReason::Partial => "a part is stored, but not the one asked for",
        MissReason::Purged => "what was stored has been purged",
        MissReason::Guarded => {
            "what is stored was given its lifetime by the route, which does not apply to a request with Authorization or Cookie"
        }
        MissReason::OwnWrite => "what is stored may be older than what this client wrote",
        _ => reason.as_str(),
    };
    let alone = if cache.uncacheable_s > 0 {
        "; its last answer could not be stored, so each request goes to the origin by itself for now"
    } else if overrides_method(request_fields) {
        "; it says that it is of another method, so its answer is not stored"
    } else if cache.fills > 0 {
        "; it is being fetched just now"
    } else {
        ""
    };
    format!("{text}{alone}")
}

fn why_bypassed(label: &str) -> String {
    let text = match label {
        "off" => "the route has cache = \"off\"",
        "method" => "only GET and HEAD are answered from the cache",
        "request_no_store" => "the request says no-store",
        "request_body" => "a GET with a body is the origin's to answer",
        "precondition" => "If-Match and If-Unmodified-Since are the origin's to evaluate",
        other => other,
    };
    text.into()
}
