//! What is stored for a request, and what would become of the next one like it: for a person who wonders.
//!
//! **Intuition.** "Why is this page old?" and "why does this never hit?" have one answer, and the cache has it: the same
//! judgement that a request gets, beside everything that is stored under its key.
//!
//! **Mechanism.** The key's object is looked at without making it hotter, and judged as [`Cache::lookup`] does, without
//! what a lookup sets off (nothing is freed, counted or refreshed). Tags are made again from the route's templates and
//! the stored fields, since an entry keeps only where its tags are recorded.
//!
//! **Failure.** Nothing fails: what isn't there is an empty list and a reason.

use std::sync::Arc;

use super::{Cache, Lookup};
use crate::fill::Class;
use crate::key::UrlParts;
use crate::policy::freshness;
use crate::policy::{RequestFacts, Timestamp, freshen};
use crate::purge::PurgeState;
use crate::{BypassReason, Entry, KeyBuf, MissReason, Part, Rule, tags};

/// What a request would find.
#[derive(Debug)]
pub struct Explained {
    /// What [`Cache::lookup`] would say of it now.
    pub found: Lookup,
    /// For how many more seconds the key is remembered as one whose answers can't be stored, 0 if it is not.
    pub uncacheable_s: u64,
    /// For how many more seconds the origin counts as failing for the key, 0 if it does not.
    pub failing_s: u64,
    /// Fetches that run for the key.
    pub fills: usize,
    /// Everything stored under the key, newest first.
    pub stored: Vec<Shown>,
}

/// One stored response, as plain values.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its status.
    pub status: u16,
    /// Where this edge had it from: `origin`, or `shared` if another edge had fetched it.
    pub source: &'static str,
    /// It is the one that answers the request.
    pub is_selected: bool,
    /// Its age, in seconds. RFC 9111 §4.2.3.
    pub age_s: u64,
    /// Freshness left in seconds, negative when stale; `None` where the route has no use for it.
    pub ttl_s: Option<i64>,
    /// How long it is fresh in all, in seconds.
    pub lifetime_s: Option<i64>,
    /// How purges have hit it: `soft` or `hard`, or `suspect` where one may have been missed.
    pub purge_standing: Option<&'static str>,
    /// What it varies by, with the values of the request it was made for.
    pub vary: Vec<(String, Option<String>)>,
    /// Names by which it can be purged.
    pub tags: Vec<String>,
    /// `ETag`, as the origin sent it.
    pub etag: Option<String>,
    /// `Last-Modified`, as the origin sent it.
    pub last_modified: Option<String>,
    /// What of the representation is stored, if not all of it.
    pub part: Option<Part>,
    /// The body's length in bytes.
    pub body_bytes: u64,
    /// What it weighs in the store, without its key.
    pub weight_bytes: u64,
    /// The codings that it was given, with the length of each body in bytes.
    pub encodings: Vec<(&'static str, u64)>,
}

impl Cache {
    /// What is stored for a request and what would become of it, without changing anything. Not for the hot path.
    #[must_use]
    pub fn explain(&self, key: &KeyBuf, facts: &RequestFacts<'_>, rule: &Rule, now: Timestamp) -> Explained {
        let bypass = if *rule == Rule::Off { Some(BypassReason::Off) } else { facts.bypass() };
        if let Some(reason) = bypass {
            let found = Lookup::Bypass(reason).unless_only_if_cached(facts);
            return Explained { found, uncacheable_s: 0, failing_s: 0, fills: 0, stored: Vec::new() };
        }
        let bytes = key.as_bytes();
        let object = self.store.peek(bytes);
        let entries = object.as_ref().map(|object| object.entries().to_vec()).unwrap_or_default();
        let found = match object {
            None => Lookup::Miss(MissReason::Uri),
            Some(object) => self.judge(bytes, object, facts, rule, now),
        };
        let selected = found.entry().map(Arc::as_ptr);
        let class = Class::of(facts, rule);
        let found = found.unless_only_if_cached(facts);
        Explained {
            found,
            uncacheable_s: self.marks.left_s(self.mark(bytes, class), now),
            failing_s: self.failing_s(bytes, class, now),
            fills: self.fills.place(bytes).fills().len(),
            stored: entries
                .iter()
                .map(|entry| {
                    let is_selected = selected == Some(Arc::as_ptr(entry));
                    Shown { is_selected, ..self.show(bytes, entry, facts, rule, now) }
                })
                .collect(),
        }
    }

    fn show(
        &self,
        key: &[u8],
        entry: &Entry,
        facts: &RequestFacts<'_>,
        rule: &Rule,
        now: Timestamp,
    ) -> Shown {
        let purge_state = self.purge_state(entry);
        let softened = purge_state == PurgeState::Soft;
        let at = |now| freshness::standing(facts, rule, &entry.facts, softened, now);
        // What is left at a moment when it had no age.
        let lifetime_s = freshness::standing(facts, rule, &entry.facts, false, entry.facts.received)
            .map(|then| then.ttl_s.saturating_add_unsigned(then.age_s));
        let templates = rule.options().map_or(&[][..], |options| &options.tags);
        let stored_fields = freshen::read_head(&entry.head);
        let tags = tags::of_response(templates, &UrlParts::of(key), &stored_fields).unwrap_or_default();
        let vary = entry.vary.iter().flat_map(|vary| vary.selecting());
        Shown {
            status: entry.status,
            source: if entry.is_from_tier() { "shared" } else { "origin" },
            is_selected: false,
            age_s: entry.age_s(now),
            ttl_s: at(now).map(|standing| standing.ttl_s),
            lifetime_s,
            purge_standing: match purge_state {
                PurgeState::Untouched => None,
                PurgeState::Suspect => Some("suspect"),
                PurgeState::Soft => Some("soft"),
                PurgeState::Hard => Some("hard"),
            },
            vary: vary.map(|(name, value)| (text(name), value.map(text))).collect(),
            tags: tags.iter().map(|tag| text(tag)).collect(),
            etag: entry.etag().map(text),
            last_modified: entry.last_modified().map(text),
            part: entry.part,
            body_bytes: entry.body.len() as u64,
            weight_bytes: entry.weight(),
            encodings: entry.encodings().map(|(coding, bytes)| (coding.as_str(), bytes)).collect(),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::{Site, at};
    use crate::{Override, Purge, TagTemplate};
    use std::sync::Arc;

    const NONE: &[crate::Field<'_>] = &[];

    fn explain(site: &Site, request: &[crate::Field<'_>], now: Timestamp) -> Explained {
        site.cache.explain(&site.key(request), &RequestFacts::read("GET", request), &site.rule, now)
    }

    #[test]
    fn a_stored_response_is_shown_with_its_age_and_what_is_left() {
        let site = Site::respect();
        assert!(matches!(explain(&site, NONE, at(0)).found, Lookup::Miss(MissReason::Uri)));
        let response: [crate::Field<'_>; 3] =
            [(b"Cache-Control", b"max-age=60"), (b"ETag", b"\"a\""), (b"Surrogate-Key", b"product:7 list")];
        assert!(site.fill(NONE, &response, b"body", at(0)));
        let explained = explain(&site, NONE, at(20));
        assert!(matches!(explained.found, Lookup::Hit(_)), "{explained:?}");
        let [shown] = &explained.stored[..] else { panic!("{explained:?}") };
        assert_eq!((shown.age_s, shown.ttl_s, shown.lifetime_s), (20, Some(40), Some(60)));
        assert_eq!(shown.tags, ["product:7", "list"]);
        assert_eq!((shown.etag.as_deref(), shown.body_bytes), (Some("\"a\""), 4));
        assert!(shown.is_selected && shown.purge_standing.is_none());
        let stale = explain(&site, NONE, at(70));
        assert!(matches!(stale.found, Lookup::Revalidate { requested: false, .. }));
        assert_eq!(stale.stored[0].ttl_s, Some(-10));
    }

    #[test]
    fn the_route_s_tags_are_shown_too() {
        let tags: Arc<[TagTemplate]> = [TagTemplate::parse("page:{id}", "/{id}").unwrap()].into();
        let site =
            Site::new(crate::cache::tests::small(), Rule::Override(Override { tags, ..Override::default() }));
        assert!(site.fill(NONE, &[(b"Cache-Control", b"max-age=60")], b"body", at(0)));
        assert_eq!(explain(&site, NONE, at(0)).stored[0].tags, ["page:a"]);
    }

    #[test]
    fn other_variants_are_shown_beside_the_reason_for_missing() {
        let site = Site::respect();
        let response: [crate::Field<'_>; 2] =
            [(b"Cache-Control", b"max-age=60"), (b"Vary", b"Accept-Language")];
        let german: [crate::Field<'_>; 1] = [(b"Accept-Language", b"de")];
        assert!(site.fill(&german, &response, b"body", at(0)));
        let explained = explain(&site, &[(b"Accept-Language", b"fr")], at(0));
        assert!(matches!(explained.found, Lookup::Miss(MissReason::Vary)));
        assert_eq!(explained.stored[0].vary, [("accept-language".into(), Some("de".into()))]);
        assert!(!explained.stored[0].is_selected);
    }

    #[test]
    fn asking_frees_nothing() {
        let site = Site::respect();
        assert!(site.fill(NONE, &[(b"Cache-Control", b"max-age=60")], b"body", at(0)));
        site.cache.purge(&Purge::All, false);
        for _ in 0..2 {
            let explained = explain(&site, NONE, at(1));
            assert!(matches!(explained.found, Lookup::Miss(MissReason::Purged)));
            assert_eq!(explained.stored[0].purge_standing, Some("hard"));
        }
        assert!(matches!(site.lookup(NONE, at(1)), Lookup::Miss(MissReason::Purged)));
        assert!(explain(&site, NONE, at(1)).stored.is_empty(), "a request frees it");
    }

    #[test]
    fn what_the_cache_keeps_out_of_is_said() {
        let site = Site::respect();
        let asked = |request: &[crate::Field<'_>]| explain(&site, request, at(0)).found;
        assert!(matches!(asked(&[(b"If-Match", b"\"a\"")]), Lookup::Bypass(BypassReason::Precondition)));
        assert!(matches!(asked(&[(b"Cache-Control", b"only-if-cached")]), Lookup::GatewayTimeout));
        let (mut fill, _lead) = site.lead(NONE, at(0));
        let _ = fill.on_head(200, &[(b"Cache-Control", b"private")], Some(0), at(0));
        assert!(!fill.finish(at(0)), "nothing is stored");
        assert!(explain(&site, NONE, at(0)).uncacheable_s > 0);
    }
}
