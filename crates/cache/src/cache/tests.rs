//! The cache as the edge uses it: lookups, joins, fills, purges, all on paused time.

mod early;
mod floors;
mod hard_cases;
mod one_request;

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::{Event, FailReason, HeadOutcome, KeyUrl, Observed, Override, ReleaseReason, Scheme, Uncacheable};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const FRESH: Field<'_> = (b"Cache-Control", b"max-age=60");
const STALE_OK: Field<'_> = (b"Cache-Control", b"max-age=60, stale-if-error=60");
const ETAG: Field<'_> = (b"ETag", b"\"a\"");

pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp(NOW.0 + seconds * 1000)
}

pub(crate) fn small() -> Config {
    Config {
        memory_bytes: 64 << 20,
        object_bytes_max: 1 << 20,
        variants_max: 3,
        files_max: 8,
        fills_max: 8,
        refills_max: None,
    }
}

/// A cache and one URL of it.
pub(crate) struct Site {
    pub(crate) cache: Arc<Cache>,
    /// Of a request without fields.
    pub(crate) key: KeyBuf,
    pub(crate) rule: Rule,
}

fn key_of(path: &[u8], request: &[Field<'_>], rule: &Rule) -> KeyBuf {
    let mut key = KeyBuf::new();
    let url = KeyUrl { scheme: Scheme::Http, authority: b"shop.example", path, query: None, chosen_by: b"" };
    key.build(&url, &RequestFacts::read("GET", request), rule);
    key
}

impl Site {
    pub(crate) fn new(config: Config, rule: Rule) -> Self {
        Self { cache: Cache::new(config, 7).expect("fits"), key: key_of(b"/a", &[], &rule), rule }
    }

    pub(crate) fn key(&self, request: &[Field<'_>]) -> KeyBuf {
        key_of(b"/a", request, &self.rule)
    }

    pub(crate) fn respect() -> Self {
        Self::new(small(), Rule::Respect)
    }

    pub(crate) fn lookup(&self, request: &[Field<'_>], now: Timestamp) -> Lookup {
        self.cache.lookup(&self.key(request), &RequestFacts::read("GET", request), &self.rule, now)
    }

    fn join_after(&self, found: Lookup, request: &[Field<'_>], now: Timestamp) -> Join {
        let revalidating = match found {
            Lookup::Revalidate { entry, .. } => Some(entry),
            _ => None,
        };
        let facts = RequestFacts::read("GET", request);
        self.cache.join(&self.key(request), &facts, &self.rule, revalidating, 0, now)
    }

    fn join(&self, request: &[Field<'_>], now: Timestamp) -> Join {
        self.join_after(self.lookup(request, now), request, now)
    }

    pub(crate) fn lead(&self, request: &[Field<'_>], now: Timestamp) -> (Fill, Follower) {
        match self.join(request, now) {
            Join::Lead(fill, follower) => (fill, follower),
            other => panic!("not led: {other:?}"),
        }
    }

    /// A fill that renews an entry.
    fn renew(&self, facts: &RequestFacts<'_>, entry: Arc<Entry>, now: Timestamp) -> Option<Fill> {
        let renewal = Renewal { entry, refills: &Arc::default() };
        self.cache.refresh(&self.key, facts, &self.rule, renewal, 0, now)
    }

    fn follow(&self, request: &[Field<'_>], now: Timestamp) -> Follower {
        match self.join(request, now) {
            Join::Follow(follower) => follower,
            other => panic!("not followed: {other:?}"),
        }
    }

    /// Fetches and stores.
    pub(crate) fn fill(
        &self,
        request: &[Field<'_>],
        response: &[Field<'_>],
        body: &'static [u8],
        now: Timestamp,
    ) -> bool {
        let (mut fill, _lead) = self.lead(request, now);
        assert_eq!(fill.on_head(200, response, None, now), HeadOutcome::Store);
        fill.push(Bytes::from_static(body));
        fill.finish(now)
    }

    fn hit(&self, request: &[Field<'_>], now: Timestamp) -> Option<Bytes> {
        match self.lookup(request, now) {
            Lookup::Hit(hit) => hit.entry.body.read().ok(),
            _ => None,
        }
    }

    pub(crate) fn purge(&self, soft: bool) {
        self.cache.purge(&Purge::Url { authority: b"shop.example", path: b"/a", query: None }, soft);
    }
}

fn next(follower: &mut Follower) -> Option<Event> {
    match follower.poll_event(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(event) => Some(event),
        Poll::Pending => None,
    }
}

/// Everything a follower can have now: the head's status, the body so far, and how it ended.
fn read(follower: &mut Follower) -> (Option<u16>, Vec<u8>, Option<Event>) {
    let (mut status, mut body) = (None, Vec::new());
    while let Some(event) = next(follower) {
        match event {
            Event::Head(head) => status = Some(head.status),
            Event::Chunk(bytes) => body.extend_from_slice(&bytes),
            end => return (status, body, Some(end)),
        }
    }
    (status, body, None)
}

fn is_writable(fill: &mut Fill) -> bool {
    fill.poll_writable(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn is_abandoned(fill: &mut Fill) -> bool {
    fill.poll_abandoned(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn a_miss_is_filled_and_then_hit_until_it_is_stale() {
    let site = Site::respect();
    assert!(matches!(site.lookup(&[], NOW), Lookup::Miss(MissReason::Uri)));
    assert!(site.fill(&[], &[FRESH, (b"Content-Type", b"text/plain")], b"hello", NOW));
    let Lookup::Hit(hit) = site.lookup(&[], at(10)) else { panic!("no hit") };
    assert_eq!((hit.age_s, hit.ttl_s, hit.entry.status), (10, 50, 200));
    assert_eq!(hit.entry.body, "hello");
    let head = std::str::from_utf8(&hit.entry.head).expect("text");
    assert!(head.starts_with("Cache-Control: max-age=60\r\nContent-Type: text/plain\r\nDate: "));
    assert!(matches!(
        site.lookup(&[], at(60)),
        Lookup::Revalidate { serve_if_error: false, requested: false, .. }
    ));
    assert_eq!(site.cache.stats().stored, 1);
}

#[test]
fn requests_the_cache_may_not_touch_bypass_it() {
    let site = Site::respect();
    let lookup = |method: &str, request: &[Field<'_>], rule: &Rule| {
        site.cache.lookup(&site.key, &RequestFacts::read(method, request), rule, NOW)
    };
    assert!(matches!(lookup("GET", &[], &Rule::Off), Lookup::Bypass(BypassReason::Off)));
    assert!(matches!(lookup("POST", &[], &site.rule), Lookup::Bypass(BypassReason::Method)));
    let only: [Field<'_>; 1] = [(b"Cache-Control", b"only-if-cached")];
    assert!(matches!(lookup("GET", &only, &site.rule), Lookup::GatewayTimeout)); // RFC 9111 §5.2.1.7
    site.fill(&[], &[FRESH], b"x", NOW);
    assert!(matches!(lookup("GET", &only, &site.rule), Lookup::Hit(_)));
    assert!(matches!(lookup("HEAD", &[], &site.rule), Lookup::Hit(_))); // §4: HEAD from a stored GET
}

#[test]
fn one_leads_and_the_others_read_along() {
    let site = Site::respect();
    let (mut fill, mut lead) = site.lead(&[], NOW);
    let mut early = site.follow(&[], NOW);
    assert!(next(&mut early).is_none());
    assert_eq!(fill.on_head(200, &[FRESH], Some(11), NOW), HeadOutcome::Store);
    fill.push(Bytes::from_static(b"hello "));
    let mut late = site.follow(&[], NOW);
    assert_eq!(read(&mut early).1, b"hello ");
    fill.push(Bytes::from_static(b"world"));
    assert!(is_writable(&mut fill));
    assert!(fill.finish(NOW));
    for follower in [&mut lead, &mut late] {
        let (status, body, end) = read(follower);
        assert_eq!((status, body.as_slice()), (Some(200), &b"hello world"[..]));
        assert!(matches!(end, Some(Event::End)));
    }
    let (status, body, end) = read(&mut early);
    assert_eq!((status, body.as_slice()), (None, &b"world"[..]));
    assert!(matches!(end, Some(Event::End)));
    assert_eq!(site.cache.stats().collapsed, 2);
    assert_eq!(site.cache.stats().fill_bytes, 0);
}

#[test]
fn who_missed_just_before_it_was_stored_gets_the_stored_one() {
    let site = Site::respect();
    let missed = site.lookup(&[], NOW);
    site.fill(&[], &[FRESH], b"x", NOW);
    let Join::Stored(hit) = site.join_after(missed, &[], NOW) else { panic!("fetched twice") };
    assert_eq!((&hit.entry.body.read().unwrap()[..], hit.ttl_s), (&b"x"[..], 60));
    assert_eq!(site.cache.stats().collapsed, 0, "nobody was followed");
    assert_eq!(site.cache.stats().fills, 0);
}

#[test]
fn an_uncacheable_answer_releases_the_others_and_is_remembered() {
    let site = Site::respect();
    let (mut fill, mut lead) = site.lead(&[], NOW);
    let mut other = site.follow(&[], NOW);
    let outcome = fill.on_head(200, &[(b"Cache-Control", b"private"), (b"Set-Cookie", b"a=b")], None, NOW);
    assert_eq!(outcome, HeadOutcome::Stream(Uncacheable::Private));
    assert!(matches!(next(&mut other), Some(Event::Released(ReleaseReason::Uncacheable))));
    assert!(matches!(next(&mut other), Some(Event::Released(_))), "it repeats");
    assert!(matches!(site.join(&[], NOW), Join::Alone(AloneReason::KnownUncacheable)));
    fill.push(Bytes::from_static(b"mine"));
    assert!(!fill.finish(NOW));
    let Some(Event::Head(head)) = next(&mut lead) else { panic!("no head") };
    assert!(std::str::from_utf8(&head.head).expect("text").contains("Set-Cookie: a=b\r\n"));
    assert_eq!(read(&mut lead).1, b"mine");
    assert!(matches!(site.lookup(&[], NOW), Lookup::Miss(MissReason::Uri)));
    // A request with other credentials is another matter, and time or a storable answer undo the memory.
    assert!(matches!(site.join(&[(b"Authorization", b"x")], NOW), Join::Lead(..)));
    assert!(matches!(site.join(&[], at(61)), Join::Lead(..)));
    let watch = site.cache.watch(&site.key, false, NOW);
    let observed = Observed { status: 200, fields: &[FRESH], content_length: None };
    let recording = site.cache.observe(&watch, &RequestFacts::read("GET", &[]), &site.rule, &observed, NOW);
    assert!(recording.is_none(), "it was only to be told");
    assert!(matches!(site.join(&[], NOW), Join::Lead(..)));
}

#[test]
fn what_the_lead_alone_gets_goes_through_a_window() {
    let site = Site::respect();
    let (mut fill, mut lead) = site.lead(&[], NOW);
    fill.on_head(200, &[(b"Cache-Control", b"no-store")], None, NOW);
    let chunk = Bytes::from(vec![1; 64 << 10]);
    let mut pushed = 0;
    while is_writable(&mut fill) {
        fill.push(chunk.clone());
        pushed += 1;
    }
    assert_eq!(pushed, 4, "256 KiB");
    assert!(matches!(next(&mut lead), Some(Event::Head(_))));
    assert!(!is_writable(&mut fill));
    assert!(matches!(next(&mut lead), Some(Event::Chunk(_))));
    assert!(is_writable(&mut fill));
    drop(lead);
    assert!(is_abandoned(&mut fill));
    assert_eq!(site.cache.stats().fill_bytes, 0);
}

#[test]
fn a_body_that_outgrows_the_cache_goes_on_at_the_slowest_follower_s_pace() {
    let site = Site::respect();
    let (mut fill, mut lead) = site.lead(&[], NOW);
    let mut slow = site.follow(&[], NOW);
    assert_eq!(fill.on_head(200, &[FRESH], None, NOW), HeadOutcome::Store);
    let chunk = Bytes::from(vec![1; 256 << 10]);
    let mut pushed = 0_usize;
    while is_writable(&mut fill) {
        fill.push(chunk.clone());
        pushed += 1;
    }
    assert_eq!(pushed, 5, "the fifth is more than 1 MiB");
    assert!(matches!(site.join(&[], NOW), Join::Alone(AloneReason::Outgrown)));
    assert_eq!(read(&mut lead).1.len(), pushed * chunk.len());
    assert!(!is_writable(&mut fill), "the slow one needs all of it");
    assert_eq!(fill.cut_slow(1000, at(0)), 0, "measured from now");
    assert_eq!(fill.cut_slow(1000, at(2)), 1);
    assert!(is_writable(&mut fill));
    assert!(matches!(next(&mut slow), Some(Event::Failed(FailReason::TooSlow))));
    fill.push(chunk.clone());
    assert!(!fill.finish(at(3)));
    let (_, body, end) = read(&mut lead);
    assert_eq!(body.len(), chunk.len());
    assert!(matches!(end, Some(Event::End)));
    assert!(matches!(site.join(&[], at(3)), Join::Alone(AloneReason::KnownUncacheable)));
    assert_eq!(site.cache.stats().fill_bytes, 0);
}

#[test]
fn an_announced_length_beyond_the_cache_is_not_kept_at_all() {
    let site = Site::respect();
    let (mut fill, _lead) = site.lead(&[], NOW);
    let outcome = fill.on_head(200, &[FRESH], Some((1 << 20) + 1), NOW);
    assert_eq!(outcome, HeadOutcome::Stream(Uncacheable::TooLarge));
}

#[test]
fn a_body_cut_short_is_neither_stored_nor_ended() {
    for lie in ["short", "long", "failed", "dropped", "no head"] {
        let site = Site::respect();
        let (mut fill, mut lead) = site.lead(&[], NOW);
        if lie != "no head" {
            fill.on_head(200, &[FRESH], Some(5), NOW);
        }
        fill.push(Bytes::from_static(if lie == "long" { b"123456" } else { b"123" }));
        let expected = match lie {
            "failed" => {
                fill.fail(FailReason::Truncated, NOW);
                FailReason::Truncated
            }
            "dropped" => {
                drop(fill);
                FailReason::Dropped
            }
            _ => {
                assert!(!fill.finish(NOW), "{lie}");
                if lie == "no head" { FailReason::Invalid } else { FailReason::Truncated }
            }
        };
        let (_, _, end) = read(&mut lead);
        assert!(matches!(end, Some(Event::Failed(reason)) if reason == expected), "{lie}: {end:?}");
        assert!(matches!(site.lookup(&[], NOW), Lookup::Miss(MissReason::Uri)), "{lie}");
        assert_eq!(site.cache.stats().fills, 0, "{lie}");
    }
}

#[test]
fn a_304_freshens_the_stored_response_and_answers_who_waits() {
    let site = Site::respect();
    site.fill(&[], &[FRESH, ETAG, (b"X", b"old")], b"body", NOW);
    let (mut fill, mut lead) = site.lead(&[(b"If-None-Match", b"\"client\"")], at(70));
    let mut other = site.follow(&[], at(70));
    assert_eq!(fill.revalidating().and_then(|entry| entry.etag()), Some(&b"\"a\""[..]));
    let outcome = fill.on_head(304, &[ETAG, FRESH, (b"X", b"new")], None, at(71));
    assert_eq!(outcome, HeadOutcome::NotModified);
    assert!(!is_abandoned(&mut fill), "its connection may still be put in order");
    assert!(!fill.finish(at(71)));
    for follower in [&mut lead, &mut other] {
        let Some(Event::Entry(entry)) = next(follower) else { panic!("no entry") };
        assert_eq!(entry.body, "body");
        assert!(std::str::from_utf8(&entry.head).expect("text").contains("X: new\r\n"));
        // The client's own conditional is still the client's: its tag does not match, so it gets the body.
        let facts = RequestFacts::read("GET", &[(b"If-None-Match", b"\"client\"")]);
        assert!(!crate::policy::not_modified(&facts, entry.status, &entry.validators()));
    }
    let Lookup::Hit(hit) = site.lookup(&[], at(80)) else { panic!("no hit") };
    assert_eq!((hit.age_s, hit.ttl_s), (10, 50), "one second of response delay");
    assert_eq!(site.cache.stats().revalidated, 1);
    assert_eq!(site.cache.stats().objects, 1);
}

#[test]
fn a_304_about_something_else_is_asked_again() {
    let site = Site::respect();
    site.fill(&[], &[FRESH, ETAG], b"body", NOW);
    let (mut fill, mut lead) = site.lead(&[], at(70));
    assert_eq!(fill.on_head(304, &[(b"ETag", b"\"b\"")], None, at(70)), HeadOutcome::Refetch);
    assert!(fill.revalidating().is_none());
    assert_eq!(fill.on_head(304, &[], None, at(70)), HeadOutcome::Invalid, "nobody asked");
    assert_eq!(fill.on_head(200, &[FRESH], None, at(70)), HeadOutcome::Store);
    fill.push(Bytes::from_static(b"new"));
    assert!(fill.finish(at(70)));
    assert_eq!(read(&mut lead).1, b"new");
    assert_eq!(site.hit(&[], at(71)), Some(Bytes::from_static(b"new")));
}

#[test]
fn a_304_that_forbids_storing_answers_the_lead_alone() {
    let site = Site::respect();
    site.fill(&[], &[FRESH, ETAG], b"body", NOW);
    let (mut fill, mut lead) = site.lead(&[], at(70));
    let mut other = site.follow(&[], at(70));
    assert_eq!(fill.on_head(304, &[(b"Cache-Control", b"no-store")], None, at(70)), HeadOutcome::NotModified);
    assert!(matches!(next(&mut lead), Some(Event::Entry(_))));
    assert!(matches!(next(&mut other), Some(Event::Released(ReleaseReason::Uncacheable))));
    assert!(matches!(site.lookup(&[], at(70)), Lookup::Miss(MissReason::Uri)));
}

#[test]
fn an_erroring_origin_is_covered_by_a_stale_copy() {
    type Failing = (&'static str, fn(Fill));
    let cases: [Failing; 6] = [
        ("500", |mut fill| assert_eq!(fill.on_head(500, &[], None, at(70)), HeadOutcome::UseStale)),
        ("503", |mut fill| assert_eq!(fill.on_head(503, &[FRESH], None, at(70)), HeadOutcome::UseStale)),
        ("no connection", |fill| fill.fail(FailReason::Connect, at(70))),
        ("timeout", |fill| fill.fail(FailReason::Timeout, at(70))),
        ("our own limit", |fill| fill.fail(FailReason::Local, at(70))),
        ("panic in the task is not an origin's failure", drop),
    ];
    for (case, fails) in cases {
        let site = Site::respect();
        site.fill(&[], &[STALE_OK], b"old", NOW);
        let (fill, mut lead) = site.lead(&[], at(70));
        let mut fussy = site.follow(&[(b"Cache-Control", b"no-cache")], at(70));
        fails(fill);
        if case.starts_with("panic") {
            assert!(matches!(next(&mut lead), Some(Event::Failed(FailReason::Dropped))));
            continue;
        }
        assert!(matches!(next(&mut lead), Some(Event::Stale(entry)) if entry.body == "old"), "{case}");
        assert!(matches!(next(&mut fussy), Some(Event::Released(ReleaseReason::StaleRefused))), "{case}");
        assert_eq!(site.cache.stats().stale_if_error, 1);
    }
}

#[test]
fn a_stale_copy_does_not_cover_what_it_may_not() {
    let check = |stored: Field<'_>, seconds: u64, status: u16, request: &[Field<'_>]| {
        let site = Site::respect();
        site.fill(&[], &[stored], b"old", NOW);
        let (mut fill, _lead) = site.lead(request, at(seconds));
        assert_ne!(
            fill.on_head(status, &[], None, at(seconds)),
            HeadOutcome::UseStale,
            "{stored:?} {seconds} {status}"
        );
    };
    check(STALE_OK, 121, 500, &[]); // beyond the window
    check(STALE_OK, 70, 404, &[]); // the origin is well and says no
    check(STALE_OK, 70, 501, &[]); // RFC 5861 §4
    check(FRESH, 70, 500, &[]);
    check(STALE_OK, 70, 500, &[(b"Cache-Control", b"no-cache")]);
    check((b"Cache-Control", b"max-age=60, stale-if-error=60, must-revalidate"), 70, 500, &[]);
    let site = Site::respect();
    site.fill(&[], &[STALE_OK], b"old", NOW);
    let (mut fill, mut lead) = site.lead(&[], at(70));
    site.purge(false);
    fill.on_head(500, &[], None, at(70));
    assert!(!matches!(next(&mut lead), Some(Event::Stale(_))), "purged meanwhile");
}

#[test]
fn stale_while_revalidate_is_refreshed_once_behind_the_answer() {
    let site = Site::respect();
    let response: [Field<'_>; 1] = [(b"Cache-Control", b"max-age=60, stale-while-revalidate=60")];
    site.fill(&[], &response, b"old", NOW);
    let facts = RequestFacts::read("GET", &[]);
    let refresh = || {
        let Lookup::Stale { hit, refresh: true } = site.lookup(&[], at(70)) else { panic!("not stale") };
        site.renew(&facts, hit.entry, at(70))
    };
    let mut fill = refresh().expect("first");
    assert!(refresh().is_none(), "one at a time");
    assert!(!is_abandoned(&mut fill), "nobody follows, and yet");
    assert_eq!(fill.on_head(200, &response, None, at(70)), HeadOutcome::Store);
    fill.push(Bytes::from_static(b"new"));
    assert!(fill.finish(at(70)));
    assert_eq!(site.hit(&[], at(71)), Some(Bytes::from_static(b"new")));
    // One that learns it cannot store has nothing to do any more.
    let Lookup::Stale { hit, .. } = site.lookup(&[], at(140)) else { panic!("not stale") };
    let mut fill = site.renew(&facts, hit.entry, at(140)).expect("none runs");
    assert!(matches!(fill.on_head(200, &[], None, at(140)), HeadOutcome::Stream(_)));
    assert!(is_abandoned(&mut fill));
}

#[test]
fn a_fill_nobody_follows_is_abandoned_and_nobody_joins_it_then() {
    let site = Site::respect();
    let (mut fill, lead) = site.lead(&[], NOW);
    let other = site.follow(&[], NOW);
    drop(lead);
    assert!(!is_abandoned(&mut fill), "one still follows");
    drop(other);
    assert!(is_abandoned(&mut fill));
    assert!(matches!(site.join(&[], NOW), Join::Lead(..)));
    drop(fill);
    assert_eq!(site.cache.stats().fills_abandoned, 1);
}

#[test]
fn variants_are_kept_apart_and_bounded() {
    let site = Site::respect();
    let response: [Field<'_>; 2] = [FRESH, (b"Vary", b"Accept-Language")];
    let languages: [&[u8]; 4] = [b"de", b"en", b"fr", b"it"];
    for (seconds, language) in (0..).zip(&languages[..3]) {
        let request: [Field<'_>; 1] = [(b"Accept-Language", language)];
        if seconds > 0 {
            assert!(matches!(site.lookup(&request, at(seconds)), Lookup::Miss(MissReason::Vary)));
        }
        let body = Box::leak(language.to_vec().into_boxed_slice());
        assert!(site.fill(&request, &response, body, at(seconds)));
    }
    let ask = |language: &[u8], now| site.hit(&[(b"Accept-Language", language)], now);
    assert_eq!(ask(b"de", at(10)), Some(Bytes::from_static(b"de")), "used last");
    assert!(site.fill(&[(b"Accept-Language", b"it")], &response, b"it", at(11)));
    let found: Vec<_> = languages.iter().map(|language| ask(language, at(12)).is_some()).collect();
    assert_eq!(found, [true, false, true, true], "en was used longest ago");
    assert_eq!((site.cache.stats().objects, site.cache.stats().variants_evicted), (1, 1));
}

#[test]
fn followers_of_another_variant_are_released_and_find_their_own_fill() {
    let site = Site::respect();
    let german: [Field<'_>; 1] = [(b"Accept-Language", b"de")];
    let english: [Field<'_>; 1] = [(b"Accept-Language", b"en")];
    let (mut fill, _lead) = site.lead(&german, NOW);
    let mut other = site.follow(&english, NOW);
    fill.on_head(200, &[FRESH, (b"Vary", b"accept-language")], None, NOW);
    let Some(Event::Released(reason)) = next(&mut other) else { panic!("not released") };
    assert!(reason == ReleaseReason::VaryMismatch && reason.may_join_again());
    let (second, _lead_of_second) = site.lead(&english, NOW);
    assert_eq!(site.cache.stats().fills, 2);
    assert!(matches!(site.join(&german, NOW), Join::Follow(_)));
    drop(fill);
    drop(second);
    // Once something stored says what the key varies by, requests are told apart before the head.
    site.fill(&german, &[FRESH, (b"Vary", b"accept-language")], b"de", NOW);
    let (_fill, _lead) = site.lead(&german, at(70));
    assert!(matches!(site.join(&english, at(70)), Join::Lead(..)));
}

#[test]
fn what_needs_validation_each_time_is_not_shared() {
    let site = Site::respect();
    let response: [Field<'_>; 2] = [(b"Cache-Control", b"no-cache"), ETAG];
    let (mut fill, mut lead) = site.lead(&[], NOW);
    let mut other = site.follow(&[], NOW);
    assert_eq!(fill.on_head(200, &response, None, NOW), HeadOutcome::Store);
    assert!(matches!(next(&mut other), Some(Event::Released(ReleaseReason::NotShareable))));
    // Who is released asks for itself, beside the others: none waits for another.
    let (_third, _lead_of_third) = site.lead(&[], NOW);
    let (_fourth, _lead_of_fourth) = site.lead(&[], NOW);
    assert!(fill.finish(NOW));
    assert!(matches!(read(&mut lead).2, Some(Event::End)));
    let (mut first, mut asked_first) = site.lead(&[], at(1));
    let (_second, _asked_second) = site.lead(&[], at(1));
    assert_eq!(first.on_head(304, &response, None, at(1)), HeadOutcome::NotModified);
    assert!(matches!(next(&mut asked_first), Some(Event::Entry(_)))); // RFC 9111 §5.2.2.4
}

#[test]
fn a_hard_purge_is_never_served_again_and_a_soft_one_is_stale() {
    let site = Site::respect();
    let response: [Field<'_>; 2] = [(b"Cache-Control", b"max-age=60, stale-while-revalidate=60"), ETAG];
    site.fill(&[], &response, b"old", NOW);
    site.purge(true);
    assert!(matches!(site.lookup(&[], NOW), Lookup::Stale { refresh: true, .. }));
    let (mut fill, _lead) = site.lead(&[(b"Cache-Control", b"no-cache")], NOW);
    assert_eq!(fill.on_head(304, &response, None, NOW), HeadOutcome::NotModified);
    assert!(site.hit(&[], NOW).is_some(), "validated since");
    site.purge(false);
    assert!(matches!(site.lookup(&[], NOW), Lookup::Miss(MissReason::Purged)));
    assert!(matches!(site.lookup(&[], NOW), Lookup::Miss(MissReason::Uri)), "and its memory is free");
    site.fill(&[], &response, b"new", NOW);
    assert!(site.hit(&[], NOW).is_some());
    site.cache.purge(&Purge::All, false);
    assert!(matches!(site.lookup(&[], NOW), Lookup::Miss(MissReason::Purged)));
}

#[test]
fn a_fetch_that_began_before_a_purge_stores_nothing_after_it() {
    let site = Site::respect();
    let (mut fill, mut lead) = site.lead(&[], NOW);
    fill.on_head(200, &[FRESH], None, NOW);
    site.purge(false);
    let Join::Lead(mut second, _second_lead) = site.join(&[], NOW) else {
        panic!("followed what was purged")
    };
    assert!(!fill.finish(NOW));
    assert!(matches!(read(&mut lead).2, Some(Event::End)), "who asked before the purge is answered");
    assert!(matches!(site.lookup(&[], NOW), Lookup::Miss(MissReason::Uri)));
    second.on_head(200, &[FRESH], None, NOW);
    assert!(second.finish(NOW));
    assert!(site.hit(&[], NOW).is_some());
}

#[test]
fn who_comes_after_a_tag_was_purged_follows_no_older_fetch() {
    let site = Site::respect();
    let tagged: [Field<'_>; 2] = [FRESH, (b"Surrogate-Key", b"product:7")];
    let purge = |tag: &[u8]| {
        site.cache.purge(&Purge::Tag(tag), false);
    };
    let (mut old, _lead) = site.lead(&[], at(0));
    assert_eq!(old.on_head(200, &tagged, None, at(0)), HeadOutcome::Store);
    purge(b"product:8");
    assert!(matches!(site.join(&[], at(0)), Join::Follow(_)), "it carries another");
    purge(b"product:7");
    let (mut unknown, _lead) = site.lead(&[], at(0));
    assert!(matches!(site.join(&[], at(0)), Join::Follow(_)));
    // Before the head comes any tag may be its own.
    purge(b"product:8");
    let (_newest, _lead) = site.lead(&[], at(0));
    assert_eq!(unknown.on_head(200, &tagged, None, at(0)), HeadOutcome::Store);
    assert!(unknown.finish(at(0)), "it was not");
}

#[test]
fn a_tag_purges_what_carries_it() {
    let tags = [crate::TagTemplate::parse("page:{id}", "/{id}").expect("a template")];
    let site = Site::new(small(), Rule::Override(Override { tags: tags.into(), ..Override::default() }));
    let purged_by = |tag: &[u8]| {
        site.fill(&[], &[FRESH, (b"Surrogate-Key", b"product-1 product-2")], b"x", NOW);
        assert!(site.hit(&[], NOW).is_some());
        site.cache.purge(&Purge::Tag(tag), false);
        site.hit(&[], NOW).is_none()
    };
    assert!(!purged_by(b"product-3"));
    site.cache.purge(&Purge::All, false);
    assert!(purged_by(b"product-2") && purged_by(b"page:a"));
}

#[test]
fn a_write_makes_its_url_out_of_date_and_only_cached_urls_cost_a_purge() {
    let site = Site::respect();
    site.fill(&[], &[FRESH], b"old", NOW);
    let write = |method: &str, path: &[u8], status: u16, response: &[Field<'_>]| {
        let facts = RequestFacts::read(method, &[]);
        site.cache.invalidate(&facts, &site.rule, b"shop.example", (path, None), status, response);
        site.hit(&[], NOW).is_some()
    };
    assert!(write("GET", b"/a", 200, &[]));
    assert!(write("POST", b"/a", 500, &[]));
    assert!(write("POST", b"/b", 201, &[(b"Location", b"https://other.example/a")]));
    assert_eq!(site.cache.stats().purges, 0);
    assert!(!write("POST", b"/b", 201, &[(b"Location", b"https://shop.example/a")])); // RFC 9111 §4.4
    site.fill(&[], &[FRESH], b"new", NOW);
    assert!(!write("POST", b"/b", 201, &[(b"Location", b"http://shop.example:80/b/../%61")]));
    site.fill(&[], &[FRESH], b"new", NOW);
    assert!(!write("DELETE", b"/a", 204, &[]));
    assert_eq!(site.cache.stats().purges, 3);
}

#[test]
fn fills_are_bounded() {
    let site = Site::respect();
    let path = |n: u8| {
        let key = key_of(&[b'/', n], &[], &site.rule);
        site.cache.join(&key, &RequestFacts::read("GET", &[]), &site.rule, None, 0, NOW)
    };
    let led: Vec<Join> = (0..8).map(path).collect();
    assert!(led.iter().all(|join| matches!(join, Join::Lead(..))));
    assert!(matches!(path(8), Join::Alone(AloneReason::FillsFull)));
    assert_eq!(site.cache.stats().fills_full, 1);
    drop(led);
    assert!(matches!(path(8), Join::Lead(..)));
}

#[test]
fn heads_and_ranges_are_not_led() {
    let site = Site::respect();
    let join = |method: &str, request: &[Field<'_>]| {
        site.cache.join(&site.key, &RequestFacts::read(method, request), &site.rule, None, 0, NOW)
    };
    assert!(matches!(join("HEAD", &[]), Join::Alone(AloneReason::Head)));
    assert!(matches!(join("GET", &[(b"Range", b"bytes=0-1")]), Join::Alone(AloneReason::Range)));
    assert!(matches!(join("POST", &[]), Join::Alone(AloneReason::Bypass)));
}

#[test]
fn an_override_stores_without_cookies_and_guards_who_carries_one() {
    let rule = Rule::Override(Override { ttl: Some(Duration::from_secs(30)), ..Override::default() });
    let site = Site::new(small(), rule);
    site.fill(&[], &[(b"Set-Cookie", b"sid=1"), (b"Cache-Control", b"no-cache")], b"x", NOW);
    let Lookup::Hit(hit) = site.lookup(&[], at(29)) else { panic!("no hit") };
    let head = std::str::from_utf8(&hit.entry.head).expect("text");
    assert!(!head.contains("Set-Cookie") && head.contains("Cache-Control: no-cache"), "{head}");
    let user: [Field<'_>; 1] = [(b"Cookie", b"sid=1")];
    assert!(matches!(site.lookup(&user, NOW), Lookup::Miss(MissReason::Uri)), "not among theirs");
    let (mut fill, mut lead) = site.lead(&user, NOW);
    assert!(matches!(fill.on_head(200, &[], None, NOW), HeadOutcome::Stream(Uncacheable::NoFreshness)));
    fill.push(Bytes::from_static(b"personal"));
    fill.finish(NOW);
    assert_eq!(read(&mut lead).1, b"personal");
    assert_eq!(site.hit(&[], NOW), Some(Bytes::from_static(b"x")), "the shared one is untouched");
    assert!(matches!(site.join(&user, NOW), Join::Alone(AloneReason::KnownUncacheable)));
}

#[test]
fn what_cannot_work_is_refused_with_its_setting() {
    let object_too_large = Config { memory_bytes: 8 << 20, object_bytes_max: 8 << 20, ..small() };
    let error = Cache::new(object_too_large, 1).expect_err("does not fit").to_string();
    assert!(error.starts_with("8388608 bytes cannot be kept"), "{error}");
    assert!(Cache::new(Config { fills_max: 0, ..small() }, 1).is_err());
    let Err(Error::ObjectTooLarge { possible_bytes_max, .. }) = Cache::new(object_too_large, 1) else {
        panic!("does not fit")
    };
    assert!(Cache::new(Config { object_bytes_max: possible_bytes_max, ..object_too_large }, 1).is_ok());
}

#[test]
fn small_chunks_are_joined_and_weigh_what_they_are() {
    let site = Site::respect();
    let (mut fill, mut lead) = site.lead(&[], NOW);
    fill.on_head(200, &[FRESH], None, NOW);
    for byte in 0..5000_u32 {
        fill.push(Bytes::from(vec![byte.to_le_bytes()[0]]));
        if byte % 777 == 0 {
            read(&mut lead);
        }
    }
    assert!(site.cache.stats().fill_bytes < 8000, "{}", site.cache.stats().fill_bytes);
    assert!(fill.finish(NOW));
    let stored = site.hit(&[], NOW).expect("stored");
    assert!(stored.iter().zip(0_u32..).all(|(byte, n)| *byte == n.to_le_bytes()[0]) && stored.len() == 5000);
    assert_eq!(read(&mut lead).1, &stored[4663..], "the rest");
}
