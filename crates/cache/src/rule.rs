//! What a route says about caching.
//!
//! A rule is the operator's word. `Respect` leaves everything to the origin's headers; `Override` adds to them or, with a
//! `ttl`, replaces their freshness, and comes with a guard, because the classic accident is one user's answer shown to
//! another: a lifetime that the origin did not give does not apply to a request that carries `Authorization` or `Cookie`,
//! unless the operator said `shared = true` or that header is wholly in the key. Such a request falls back to `Respect`,
//! under a key of its own, so that neither kind replaces what is stored for the other; only a reload that changes the rule
//! can leave an entry that the guard refuses. What the guard cannot see is a personal answer that depends on neither
//! header; there the origin must say `private`, which wins over an override (unless `shared`).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::{Compress, RequestFacts};
use crate::query::QueryRule;
use crate::tags::TagTemplate;

/// A route's `cache` setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// Nothing is looked up or stored.
    Off,
    /// The origin's headers decide, per RFC 9111.
    #[default]
    Respect,
    /// The operator decides, in what is set.
    Override(Override),
}

/// `cache = { ttl, negative_ttl, stale_while_revalidate, …, key, query, tags, shared }`.
///
/// `ttl` applies to 200, 203, 204, 300, 301 and 308, `negative_ttl` to 404, 405, 410, 414, 451 and 500 to 504. Without them those
/// responses, and always the others, are stored only if the origin says so. The origin's `no-store` and `private` win
/// unless `shared`; its other directives are replaced. `Set-Cookie` is dropped from what is so stored; everything else,
/// `Cache-Control` included, reaches the client as the origin sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Override {
    /// Freshness lifetime, counted from when the response was received.
    pub ttl: Option<Duration>,
    /// The same for errors to which the origin gives no lifetime of its own.
    pub negative_ttl: Option<Duration>,
    /// How long after that it may be served while a refresh runs behind. RFC 5861 §3. Without `ttl`, beside what the origin
    /// allows.
    pub stale_while_revalidate: Duration,
    /// How long after that it may stand in for an error. RFC 5861 §4. Without `ttl`, beside what the origin allows.
    pub stale_if_error: Duration,
    /// Where the origin gives no lifetime, a tenth of the time since `Last-Modified`. RFC 9111 §4.2.2.
    pub heuristic: bool,
    /// One entry for all users, even for requests with credentials.
    pub shared: bool,
    /// What sets a cookie is stored, cookie and all, where RFC 9111 allows it, without the word of the origin that it is
    /// for all.
    pub set_cookie: bool,
    /// A request's own `Cache-Control` and `Pragma` ask nothing of the origin; only `only-if-cached` and `max-stale` count.
    pub ignore_client_revalidation: bool,
    /// `Cache-Status` names the key.
    pub show_key: bool,
    /// What else belongs to the key.
    pub key: Vec<KeyPart>,
    /// What of the query counts, for the key and for the origin alike.
    pub query: Option<Arc<QueryRule>>,
    /// Tags, made for each response.
    pub tags: Arc<[TagTemplate]>,
    /// One edge fetches for all of them.
    pub shield: bool,
    /// What is asked for often is not renewed before it is stale.
    pub early_refresh_off: bool,
    /// What is stored is compressed for those who accept it.
    pub compress: Option<Compress>,
}

/// A part of the key that comes from the request's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// `header:NAME`: all its lines.
    Header(String),
    /// `cookie:NAME`: one cookie; where a request sends it more than once, all of them.
    Cookie(String),
}

/// The rule that really applies to a request, after the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effective<'r> {
    Off,
    /// The origin's headers, with what the operator adds to them for this request, if anything.
    Respect(Option<&'r Override>),
    Override(&'r Override),
}

/// Statuses that `ttl` covers: success and permanent redirects.
pub(crate) const fn is_positive(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 300 | 301 | 308)
}

/// Statuses that `negative_ttl` covers: what is not there, may not be had, or fails.
pub(crate) const fn is_negative(status: u16) -> bool {
    matches!(status, 404 | 405 | 410 | 414 | 451 | 500..=504)
}

impl Rule {
    /// Applies the guard.
    pub(crate) fn effective(&self, facts: &RequestFacts<'_>) -> Effective<'_> {
        match self {
            Self::Off => Effective::Off,
            Self::Respect => Effective::Respect(None),
            Self::Override(rule) => match (rule.covers(facts), rule.gives_lifetimes()) {
                (true, true) => Effective::Override(rule),
                (true, false) => Effective::Respect(Some(rule)),
                (false, _) => Effective::Respect(None),
            },
        }
    }

    /// What the operator set, if anything.
    pub(crate) fn options(&self) -> Option<&Override> {
        match self {
            Self::Override(rule) => Some(rule),
            Self::Off | Self::Respect => None,
        }
    }

    /// The key's extra parts.
    pub(crate) fn key_parts(&self) -> &[KeyPart] {
        self.options().map_or(&[], |rule| &rule.key)
    }

    /// What of a query counts on this route: what the node is to be asked, and part of the key.
    #[must_use]
    pub fn counted_query<'q>(&self, query: Option<&'q str>) -> Option<Cow<'q, str>> {
        match self.options().and_then(|options| options.query.as_deref()) {
            Some(rule) => rule.apply(query?),
            None => query.map(Cow::Borrowed),
        }
    }

    /// Whether one edge fetches for all.
    #[must_use]
    pub fn has_shield(&self) -> bool {
        self.options().is_some_and(|rule| rule.shield)
    }

    /// How what is stored is compressed, if it is.
    #[must_use]
    pub fn compress(&self) -> Option<&Compress> {
        self.options()?.compress.as_ref()
    }

    /// Whether what is asked for often is renewed before it is stale.
    pub(crate) fn refreshes_early(&self) -> bool {
        self.options().is_none_or(|rule| !rule.early_refresh_off)
    }

    /// Whether `Cache-Status` names the key.
    #[must_use]
    pub fn shows_key(&self) -> bool {
        self.options().is_some_and(|rule| rule.show_key)
    }

    /// Whether a request's own wish to have the origin asked counts.
    pub(crate) fn hears_clients(&self) -> bool {
        self.options().is_none_or(|rule| !rule.ignore_client_revalidation)
    }
}

impl Override {
    /// Whether sharing an answer to this request is what the operator meant.
    fn covers(&self, facts: &RequestFacts<'_>) -> bool {
        self.shared
            || (!facts.has_authorization || self.keyed_by_header("authorization"))
                && (!facts.has_cookie || self.keyed_by_header("cookie"))
    }

    /// Whether it gives responses a lifetime of the operator's.
    pub(crate) fn gives_lifetimes(&self) -> bool {
        self.ttl.is_some() || self.negative_ttl.is_some()
    }

    /// Whether all of a header is in the key. One cookie of several is not.
    pub(crate) fn keyed_by_header(&self, name: &str) -> bool {
        self.key
            .iter()
            .any(|part| matches!(part, KeyPart::Header(header) if header.eq_ignore_ascii_case(name)))
    }
}
