//! What one client's odd request leaves of what is stored for everybody.

use super::*;

const NO_CACHE: Field<'_> = (b"Cache-Control", b"no-cache");
const USER: Field<'_> = (b"Cookie", b"sid=1");
const TOKEN: Field<'_> = (b"Authorization", b"Bearer x");
const COOKIE: Field<'_> = (b"Set-Cookie", b"sid=1");
const WEAK: Field<'_> = (b"ETag", b"W/\"a\"");

/// What the node is asked about on a request without fields, where this is stored for another.
fn asked_about(request: Field<'_>, response: &[Field<'_>]) -> (Site, Fill, String) {
    let site = Site::respect();
    assert!(site.fill(&[request], response, b"another's", NOW));
    let (fill, _lead) = site.lead(&[], NOW);
    let mut condition = Vec::new();
    fill.write_conditional(&mut condition);
    (site, fill, String::from_utf8(condition).expect("text"))
}

#[test]
fn a_variant_answers_others_only_if_its_tag_is_strong_and_it_is_nobody_s_own() {
    let check = |request: Field<'_>, response: &[Field<'_>], expected: &str| {
        let (_, _, condition) = asked_about(request, response);
        assert_eq!(condition, expected, "{request:?} {response:?}");
    };
    let (german, gzip) = ((&b"Accept-Language"[..], &b"de"[..]), (&b"Accept-Encoding"[..], &b"gzip"[..]));
    let by_language = (&b"Vary"[..], &b"Accept-Language"[..]);
    check(german, &[FRESH, ETAG, by_language], "if-none-match: \"a\"\r\n"); // RFC 9111 §4.3.1
    check(german, &[FRESH, WEAK, by_language], ""); // RFC 9110 §8.8.1: codings may share a weak tag
    let coded: [Field<'_>; 4] = [FRESH, ETAG, (b"Vary", b"accept-encoding"), (b"Content-Encoding", b"gzip")];
    check(gzip, &coded, "");
    check(USER, &[FRESH, ETAG, (b"Vary", b"X-Kind, cookie")], "");
    let public = (&b"Cache-Control"[..], &b"public, max-age=60"[..]);
    check(TOKEN, &[public, ETAG, (b"Vary", b"Authorization")], "");
    // What the 304 names has to be named strongly, too.
    let (_site, mut fill, _) = asked_about(german, &[FRESH, ETAG, by_language]);
    assert_eq!(fill.on_head(304, &[WEAK, FRESH], None, NOW), HeadOutcome::Refetch);
}

#[test]
fn what_is_revalidated_for_its_own_requests_may_have_a_weak_tag_and_a_coding() {
    let site = Site::respect();
    let gzip: [Field<'_>; 1] = [(b"Accept-Encoding", b"gzip")];
    let stored: [Field<'_>; 4] = [FRESH, WEAK, (b"Vary", b"Accept-Encoding"), (b"Content-Encoding", b"gzip")];
    assert!(site.fill(&gzip, &stored, b"zipped", NOW));
    let (mut fill, _lead) = site.lead(&gzip, at(70));
    let mut condition = Vec::new();
    fill.write_conditional(&mut condition);
    assert_eq!(condition, b"if-none-match: W/\"a\"\r\n");
    assert_eq!(fill.on_head(304, &[ETAG, FRESH], None, at(70)), HeadOutcome::NotModified);
    assert_eq!(site.hit(&gzip, at(80)), Some(Bytes::from_static(b"zipped")));
}

#[test]
fn what_a_client_s_range_met_is_nobody_else_s() {
    let site = Site::respect();
    let (mut fill, _lead) = site.lead(&[], NOW);
    assert!(matches!(fill.on_head(200, &[], None, NOW), HeadOutcome::Stream(_)));
    drop(fill);
    let range: [Field<'_>; 1] = [(b"Range", b"bytes=999999999-")];
    let records = |status: u16| {
        let watch = site.cache.watch(&site.key, true, NOW);
        let observed = Observed { status, fields: &[FRESH], content_length: Some(0) };
        let facts = RequestFacts::read("GET", &range);
        site.cache.observe(&watch, &facts, &site.rule, &observed, NOW).is_some()
    };
    assert!(!records(416) && !records(404) && !records(500));
    assert!(matches!(site.join(&[], NOW), Join::Alone(AloneReason::KnownUncacheable)));
    assert!(records(200), "RFC 9110 §14.2: the range was ignored");
    assert!(matches!(site.join(&[], NOW), Join::Lead(..)));
}

impl Site {
    /// A fresh copy, asked about again by a client that insists.
    fn insists(&self, request: &[Field<'_>], status: u16, response: &[Field<'_>]) -> HeadOutcome {
        let (mut fill, _lead) = self.lead(request, NOW);
        assert!(fill.revalidating().is_some());
        fill.on_head(status, response, None, NOW)
    }

    fn is_marked(&self) -> bool {
        self.purge(false);
        matches!(self.join(&[], NOW), Join::Alone(AloneReason::KnownUncacheable))
    }
}

#[test]
fn an_error_that_one_request_made_takes_nobody_s_copy() {
    for status in [400, 401, 403, 406, 413, 431, 500, 501] {
        let site = Site::respect();
        site.fill(&[], &[FRESH], b"everybody's", NOW);
        let outcome = site.insists(&[NO_CACHE, (b"Accept", b"x/y")], status, &[]);
        assert!(matches!(outcome, HeadOutcome::Stream(_)), "{status}");
        assert!(site.hit(&[], NOW).is_some(), "{status}");
        assert!(!site.is_marked(), "{status}: the others go on sharing one fetch");
    }
    // One that speaks of the resource does.
    for status in [404, 410] {
        let site = Site::respect();
        site.fill(&[], &[FRESH], b"everybody's", NOW);
        site.insists(&[NO_CACHE], status, &[]);
        assert!(site.hit(&[], NOW).is_none(), "{status}");
    }
}

#[test]
fn an_error_behind_an_answer_leaves_the_stale_copy_too() {
    let site = Site::respect();
    let swr: [Field<'_>; 1] = [(b"Cache-Control", b"max-age=60, stale-while-revalidate=60")];
    site.fill(&[], &swr, b"everybody's", NOW);
    let Lookup::Stale { hit, refresh: true } = site.lookup(&[], at(70)) else { panic!("not stale") };
    let facts = RequestFacts::read("GET", &[]);
    let mut refresh = site.renew(&facts, hit.entry, at(70)).expect("none runs");
    assert!(matches!(refresh.on_head(431, &[], None, at(70)), HeadOutcome::Stream(_)));
    drop(refresh);
    assert!(matches!(site.lookup(&[], at(70)), Lookup::Stale { .. }));
}

#[test]
fn an_answer_for_one_client_alone_takes_nobody_s_copy() {
    let private = (&b"Cache-Control"[..], &b"private"[..]);
    let cases: [(&[Field<'_>], Field<'_>, Uncacheable); 4] = [
        (&[NO_CACHE, TOKEN], FRESH, Uncacheable::Authorization),
        (&[NO_CACHE], COOKIE, Uncacheable::SetCookie),
        (&[NO_CACHE, USER], private, Uncacheable::Private),
        (&[NO_CACHE, USER], (b"Cache-Control", b"no-store"), Uncacheable::NoStore),
    ];
    for (request, says, reason) in cases {
        let site = Site::respect();
        site.fill(&[], &[FRESH, ETAG], b"everybody's", NOW);
        assert_eq!(site.insists(request, 200, &[says]), HeadOutcome::Stream(reason));
        assert!(site.hit(&[], NOW).is_some(), "200: {reason:?}");
        // RFC 9111 §4.3.4: it has just said that the copy holds.
        assert_eq!(site.insists(request, 304, &[says, ETAG]), HeadOutcome::NotModified);
        assert!(site.hit(&[], NOW).is_some(), "304: {reason:?}");
        assert!(!site.is_marked(), "{reason:?}");
    }
    // Where nobody in particular asked, it is the resource that is private now.
    let site = Site::respect();
    site.fill(&[], &[FRESH, ETAG], b"everybody's", NOW);
    assert_eq!(site.insists(&[NO_CACHE], 200, &[private]), HeadOutcome::Stream(Uncacheable::Private));
    assert!(site.hit(&[], NOW).is_none());
}

#[test]
fn a_stale_copy_that_is_of_no_more_use_goes_so_that_nobody_waits_for_what_cannot_be_shared() {
    let site = Site::respect();
    site.fill(&[], &[FRESH], b"everybody's", NOW);
    let (mut fill, _lead) = site.lead(&[], at(70));
    assert_eq!(
        fill.on_head(200, &[FRESH, COOKIE], None, at(70)),
        HeadOutcome::Stream(Uncacheable::SetCookie)
    );
    assert!(matches!(site.join(&[], at(70)), Join::Alone(AloneReason::KnownUncacheable)));
}

/// What a HEAD's 200 leaves of a copy that a soft purge took the freshness of.
fn after_head(
    stored: &[Field<'_>],
    head: &[Field<'_>],
    request: &[Field<'_>],
    length: Option<u64>,
) -> Lookup {
    let site = Site::respect();
    site.fill(&[], stored, b"body", NOW);
    site.purge(true);
    let watch = site.cache.watch(&site.key, false, NOW);
    let observed = Observed { status: 200, fields: head, content_length: length };
    let facts = RequestFacts::read("HEAD", request);
    assert!(site.cache.observe(&watch, &facts, &site.rule, &observed, NOW).is_none());
    site.lookup(&[], NOW)
}

#[test]
fn a_head_freshens_only_what_it_names_by_a_validator() {
    let left = |found: &Lookup| matches!(found, Lookup::Revalidate { .. });
    assert!(matches!(after_head(&[FRESH, ETAG], &[FRESH, ETAG], &[], None), Lookup::Hit(_))); // RFC 9111 §4.3.5
    let modified: Field<'_> = (b"Last-Modified", b"Sun, 06 Nov 1994 08:49:37 GMT");
    assert!(matches!(after_head(&[FRESH, modified], &[FRESH, modified], &[], None), Lookup::Hit(_)));
    // Nothing on either side says that the body is still that one.
    assert!(left(&after_head(&[FRESH], &[FRESH], &[], None)));
    assert!(left(&after_head(&[FRESH], &[FRESH], &[], Some(4))));
    assert!(left(&after_head(&[FRESH, ETAG], &[FRESH], &[], Some(4))));
    // Something says that it isn't.
    assert!(matches!(after_head(&[FRESH], &[FRESH, ETAG], &[], None), Lookup::Miss(_)));
    assert!(matches!(after_head(&[FRESH, ETAG], &[FRESH, ETAG], &[], Some(5)), Lookup::Miss(_)));
    assert!(matches!(after_head(&[FRESH], &[FRESH], &[], Some(5)), Lookup::Miss(_)));
    // Who asked with credentials is told of nobody's copy but its own.
    assert!(left(&after_head(&[FRESH, ETAG], &[FRESH, ETAG], &[TOKEN], None)));
}

#[test]
fn a_304_about_something_else_leaves_the_stale_copy_to_stand_in() {
    type Failing = (&'static str, fn(Fill));
    let cases: [Failing; 3] = [
        ("500", |mut fill| assert_eq!(fill.on_head(500, &[], None, at(70)), HeadOutcome::UseStale)),
        ("timeout", |fill| fill.fail(FailReason::Timeout, at(70))),
        ("304 again", |mut fill| {
            assert_eq!(fill.on_head(304, &[ETAG], None, at(70)), HeadOutcome::Invalid, "nobody asked");
            fill.fail(FailReason::Invalid, at(70));
        }),
    ];
    for (case, fails) in cases {
        let site = Site::respect();
        site.fill(&[], &[STALE_OK, ETAG], b"old", NOW);
        let (mut fill, mut lead) = site.lead(&[], at(70));
        assert_eq!(fill.on_head(304, &[(b"ETag", b"\"b\"")], None, at(70)), HeadOutcome::Refetch);
        let mut condition = Vec::new();
        fill.write_conditional(&mut condition);
        assert!(condition.is_empty(), "asked again without one");
        fails(fill);
        assert!(matches!(next(&mut lead), Some(Event::Stale(entry)) if entry.body == "old"), "{case}"); // RFC 5861 §4
    }
}

#[test]
fn who_wants_only_what_is_stored_is_never_passed_on() {
    let site = Site::respect();
    let lookup = |method: &str, request: &[Field<'_>], rule: &Rule| {
        site.cache.lookup(&site.key, &RequestFacts::read(method, request), rule, NOW)
    };
    let only = (&b"Cache-Control"[..], &b"only-if-cached"[..]);
    let no_store = (&b"Cache-Control"[..], &b"only-if-cached, no-store"[..]);
    let requests: [&[Field<'_>]; 3] =
        [&[no_store], &[only, (b"If-Match", b"\"a\"")], &[only, (b"Content-Length", b"1")]];
    for request in requests {
        for method in ["GET", "HEAD"] {
            assert!(matches!(lookup(method, request, &site.rule), Lookup::GatewayTimeout), "{request:?}"); // RFC 9111 §5.2.1.7
        }
        assert!(matches!(lookup("POST", request, &site.rule), Lookup::Bypass(BypassReason::Method)));
        assert!(
            matches!(lookup("GET", request, &Rule::Off), Lookup::Bypass(BypassReason::Off)),
            "no cache here"
        );
    }
}

#[test]
fn a_field_spelled_as_another_shapes_nobody_else_s_answer() {
    let site = Site::respect();
    let by_country: [Field<'_>; 2] = [FRESH, (b"Vary", b"X-Country")];
    let odd: [Field<'_>; 1] = [(b"X_Country", b"evil")];
    let (mut fill, _lead) = site.lead(&odd, NOW);
    assert_eq!(fill.on_head(200, &by_country, None, NOW), HeadOutcome::Stream(Uncacheable::FieldAlias));
    drop(fill);
    assert!(site.fill(&[], &by_country, b"everybody's", NOW), "led: the key isn't marked for it");
    assert_eq!(
        site.insists(&[NO_CACHE, odd[0]], 200, &by_country),
        HeadOutcome::Stream(Uncacheable::FieldAlias)
    );
    // A 304 to it is its own answer, and as good as any.
    let site = Site::respect();
    let tagged: [Field<'_>; 3] = [by_country[0], by_country[1], ETAG];
    site.fill(&[], &tagged, b"everybody's", NOW);
    let (mut fill, mut lead) = site.lead(&odd, at(70));
    assert_eq!(fill.on_head(304, &tagged, None, at(70)), HeadOutcome::NotModified);
    assert!(matches!(next(&mut lead), Some(Event::Entry(entry)) if entry.body == "everybody's"));
    assert!(matches!(site.lookup(&[], at(70)), Lookup::Revalidate { .. }), "as it was");
}
