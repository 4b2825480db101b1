//! Tables of what may be stored and served, each case with its source.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{Field, KeyPart};

/// Sun, 06 Nov 1994 08:49:37 GMT.
const NOW: Timestamp = Timestamp(784_111_777_000);
const DATE: Field<'_> = (b"Date", b"Sun, 06 Nov 1994 08:49:37 GMT");

/// Splits `Name: value` lines.
fn fields(text: &str) -> Vec<Field<'_>> {
    let split = |line: &'_ str| line.find(": ").map(|at| (at, line.len()));
    text.split('|')
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (at, end) = split(line).expect("Name: value");
            (&line.as_bytes()[..at], &line.as_bytes()[at + 2..end])
        })
        .collect()
}

fn store(rule: &Rule, request: &str, status: u16, response: &str) -> Result<StoredFacts, Uncacheable> {
    let (request, mut response) = (fields(request), fields(response));
    response.push(DATE);
    let facts = RequestFacts::read("GET", &request);
    storable(&facts, rule, &ResponseFacts::read(status, &response, NOW, NOW))
}

fn stores(rule: &Rule, request: &str, status: u16, response: &str, expected: Result<(), Uncacheable>) {
    let stored = store(rule, request, status, response).map(|_| ());
    assert_eq!(stored, expected, "{rule:?} | {request} | {status} {response}");
}

fn respects(request: &str, status: u16, response: &str, expected: Result<(), Uncacheable>) {
    stores(&Rule::Respect, request, status, response, expected);
}

/// What a stored response is good for `after_s` seconds later.
fn decides(rule: &Rule, response: &str, after_s: u64, request: &str) -> Decision {
    let stored = store(rule, "", 200, response).expect("storable");
    let request = fields(request);
    let now = Timestamp(NOW.0 + after_s * 1000);
    decide(&RequestFacts::read("GET", &request), rule, &stored, false, now)
}

fn check(response: &str, after_s: u64, request: &str, expected: Decision) {
    let decision = decides(&Rule::Respect, response, after_s, request);
    assert_eq!(decision, expected, "{response} after {after_s} s, asked with {request}");
}

/// On whole seconds.
fn standing_of(age_s: u64, ttl_s: i64) -> AgeAndTtl {
    AgeAndTtl { age_s, ttl_s, left_ms: u64::try_from(ttl_s).unwrap_or(0) * 1000 }
}

fn fresh(age_s: u64, ttl_s: i64) -> Decision {
    Decision::Fresh(standing_of(age_s, ttl_s))
}

fn stale(age_s: u64, ttl_s: i64, refresh: bool) -> Decision {
    Decision::Stale { standing: standing_of(age_s, ttl_s), refresh }
}

const FETCH: Decision = Decision::Revalidate { serve_if_error: false, requested: false };
const ASKED: Decision = Decision::Revalidate { serve_if_error: false, requested: true };
const OR_STALE: Decision = Decision::Revalidate { serve_if_error: true, requested: false };

fn ttl(seconds: u64) -> Override {
    Override { ttl: Some(Duration::from_secs(seconds)), ..Override::default() }
}

#[test]
fn explicit_freshness_is_stored() {
    respects("", 200, "Cache-Control: max-age=60", Ok(())); // §3
    respects("", 200, "Cache-Control: s-maxage=60", Ok(()));
    respects("", 200, "Expires: Sun, 06 Nov 1994 09:49:37 GMT", Ok(()));
    respects("", 200, "Cache-Control: public, max-age=60", Ok(()));
    respects("", 200, "Cache-Control: immutable, max-age=60", Ok(())); // RFC 8246
    respects("", 200, "", Err(Uncacheable::NoFreshness));
    respects("", 200, "Cache-Control: public", Err(Uncacheable::NoFreshness)); // no heuristics
    respects("", 200, "ETag: \"a\"", Err(Uncacheable::NoFreshness));
    respects("", 200, "Expires: 0", Err(Uncacheable::NoFreshness)); // §5.3
    respects("", 200, "Cache-Control: max-age=0", Err(Uncacheable::NoFreshness));
    respects("", 200, "Cache-Control: max-age=60 | Age: 60", Err(Uncacheable::NoFreshness)); // stale already
    respects("", 200, "Cache-Control: max-age=60 | Age: 99999999999999", Err(Uncacheable::NoFreshness));
    respects("", 200, "Cache-Control: max-age=60 | Age: 59", Ok(()));
}

#[test]
fn what_can_only_be_validated_is_stored_if_there_is_something_to_ask_with() {
    respects("", 200, "Cache-Control: no-cache | ETag: \"a\"", Ok(())); // §5.2.2.4
    respects("", 200, "Cache-Control: no-cache", Err(Uncacheable::NoFreshness));
    respects("", 200, "Cache-Control: no-cache, max-age=60", Err(Uncacheable::NoFreshness));
    respects("", 200, "Cache-Control: max-age=0 | ETag: \"a\"", Ok(()));
    respects("", 200, "Cache-Control: max-age=0 | ETag: a", Err(Uncacheable::NoFreshness)); // not a tag
    respects("", 200, "Cache-Control: max-age=0 | Last-Modified: Sun, 06 Nov 1994 08:00:00 GMT", Ok(()));
    respects("", 200, "Cache-Control: max-age=0, stale-while-revalidate=9", Ok(())); // RFC 5861 §3
    respects("", 200, "Cache-Control: max-age=0, stale-if-error=9", Ok(()));
}

#[test]
fn no_store_and_private_are_not_stored() {
    respects("", 200, "Cache-Control: no-store, max-age=60", Err(Uncacheable::NoStore)); // §5.2.2.5
    respects("", 200, "Cache-Control: max-age=60 | Cache-Control: No-Store", Err(Uncacheable::NoStore));
    respects("", 200, "Cache-Control: private, max-age=60", Err(Uncacheable::Private)); // §5.2.2.7
    respects("", 200, "Cache-Control: public, private, max-age=60", Err(Uncacheable::Private));
    respects("", 200, "Cache-Control: private=\"x-user\", max-age=60", Ok(())); // only that field is private
    respects("Cache-Control: no-store", 200, "Cache-Control: max-age=60", Err(Uncacheable::RequestNoStore)); // §5.2.1.5
}

#[test]
fn must_understand_needs_a_known_status() {
    respects("", 200, "Cache-Control: must-understand, no-store, max-age=60", Ok(())); // §5.2.2.3
    respects("", 599, "Cache-Control: must-understand, no-store, max-age=60", Err(Uncacheable::Status));
    respects("", 599, "Cache-Control: must-understand, max-age=60", Err(Uncacheable::Status));
    respects("", 599, "Cache-Control: max-age=60", Ok(()));
}

#[test]
fn any_final_status_is_stored_if_it_says_so() {
    for status in
        [200, 203, 204, 299, 300, 301, 302, 307, 308, 400, 404, 405, 410, 414, 451, 500, 501, 503, 599]
    {
        respects("", status, "Cache-Control: max-age=60", Ok(())); // §3
        respects("", status, "", Err(Uncacheable::NoFreshness));
    }
    respects("", 206, "Cache-Control: max-age=60 | Content-Range: bytes 0-1/9", Err(Uncacheable::Partial)); // §3.3
    respects("", 304, "Cache-Control: max-age=60", Err(Uncacheable::Status));
    respects("", 103, "Cache-Control: max-age=60", Err(Uncacheable::Status)); // §3: final only
}

#[test]
fn answers_to_authorization_are_shared_only_on_the_origin_s_word() {
    let auth = "Authorization: Bearer x";
    respects(auth, 200, "Cache-Control: max-age=60", Err(Uncacheable::Authorization)); // §3.5
    respects(auth, 200, "Expires: Sun, 06 Nov 1994 09:49:37 GMT", Err(Uncacheable::Authorization));
    respects(auth, 200, "Cache-Control: public, max-age=60", Ok(()));
    respects(auth, 200, "Cache-Control: s-maxage=60", Ok(()));
    respects(auth, 200, "Cache-Control: must-revalidate, max-age=60", Ok(()));
    respects(auth, 200, "Cache-Control: proxy-revalidate, max-age=60", Err(Uncacheable::Authorization));
}

#[test]
fn cookies_are_stored_only_when_explicitly_for_all() {
    respects("", 200, "Cache-Control: max-age=60 | Set-Cookie: a=b", Err(Uncacheable::SetCookie));
    respects("", 200, "Cache-Control: public, max-age=60 | Set-Cookie: a=b", Ok(()));
    respects("", 200, "Cache-Control: s-maxage=60 | Set-Cookie: a=b", Ok(()));
    // What is stored for validation only would be A's cookie in B's 304.
    for says in ["public, no-cache", "s-maxage=0", "s-maxage=oops", "s-maxage=60, no-cache"] {
        let response = format!("Cache-Control: {says} | ETag: \"a\" | Set-Cookie: a=b");
        respects("", 200, &response, Err(Uncacheable::SetCookie));
    }
    respects("Cookie: a=b", 200, "Cache-Control: max-age=60", Ok(())); // §3: a Cookie alone forbids nothing
}

#[test]
fn only_get_is_stored() {
    let facts = RequestFacts::read("HEAD", &[]);
    let response = fields("Cache-Control: max-age=60");
    let response = ResponseFacts::read(200, &response, NOW, NOW);
    assert_eq!(storable(&facts, &Rule::Respect, &response), Err(Uncacheable::Method));
    let facts = RequestFacts::read("GET", &[]);
    assert_eq!(storable(&facts, &Rule::Off, &response), Err(Uncacheable::Off));
}

#[test]
fn fresh_until_the_lifetime_is_spent() {
    check("Cache-Control: max-age=60", 0, "", fresh(0, 60)); // §4.2
    check("Cache-Control: max-age=60", 59, "", fresh(59, 1));
    check("Cache-Control: max-age=60", 60, "", FETCH); // fresh means lifetime > age
    check("Cache-Control: max-age=60", 61, "", FETCH);
    check("Cache-Control: max-age=60 | Age: 50", 9, "", fresh(59, 1)); // §4.2.3
    check("Cache-Control: max-age=60 | Age: 50", 10, "", FETCH);
    check("Cache-Control: s-maxage=10, max-age=60", 11, "", FETCH); // §5.2.2.10
    check("Expires: Sun, 06 Nov 1994 08:50:37 GMT", 59, "", fresh(59, 1)); // §5.3
    check("Expires: Sun, 06 Nov 1994 08:50:37 GMT", 60, "", FETCH);
    check("Cache-Control: no-cache | ETag: \"a\"", 0, "", FETCH); // §5.2.2.4
    check("Cache-Control: no-cache, max-age=60 | ETag: \"a\"", 1, "", FETCH);
    check("Cache-Control: max-age=2147483648", 3_000_000_000, "", FETCH);
}

#[test]
fn request_directives_are_honoured() {
    let sixty = "Cache-Control: max-age=60";
    check(sixty, 10, "Cache-Control: no-cache", ASKED); // §5.2.1.4
    check(sixty, 10, "Pragma: no-cache", ASKED); // §5.4
    check(sixty, 10, "Cache-Control: max-age=0", ASKED); // §5.2.1.1
    check(sixty, 10, "Cache-Control: max-age=9", ASKED);
    check(sixty, 10, "Cache-Control: max-age=10", fresh(10, 50));
    check(sixty, 0, "Cache-Control: max-age=0", fresh(0, 60));
    check(sixty, 10, "Cache-Control: max-age=x", ASKED); // unreadable: the strictest
    check(sixty, 10, "Cache-Control: min-fresh=50", fresh(10, 50)); // §5.2.1.3
    check(sixty, 10, "Cache-Control: min-fresh=51", ASKED);
    check(sixty, 10, "Cache-Control: min-fresh=x", ASKED);
    check(sixty, 70, "Cache-Control: max-stale", stale(70, -10, false)); // §5.2.1.2
    check(sixty, 70, "Cache-Control: max-stale=10", stale(70, -10, false));
    check(sixty, 70, "Cache-Control: max-stale=9", FETCH);
    check(sixty, 70, "Cache-Control: max-stale=x", FETCH);
    check(sixty, 70, "Cache-Control: max-stale=100, max-age=65", ASKED);
    check(sixty, 70, "Cache-Control: max-stale=100, max-age=75", stale(70, -10, false));
    check(sixty, 70, "Cache-Control: no-cache, max-stale", ASKED);
}

#[test]
fn max_stale_does_not_overrule_the_origin() {
    let asked = "Cache-Control: max-stale";
    check("Cache-Control: max-age=60, must-revalidate", 70, asked, FETCH); // §5.2.2.2
    check("Cache-Control: max-age=60, proxy-revalidate", 70, asked, FETCH); // §5.2.2.8
    check("Cache-Control: s-maxage=60", 70, asked, FETCH); // §5.2.2.10
    check("Cache-Control: no-cache, max-age=60 | ETag: \"a\"", 70, asked, FETCH); // §4.2.4
}

#[test]
fn stale_while_revalidate_serves_and_refreshes_within_its_window() {
    let swr = "Cache-Control: max-age=10, stale-while-revalidate=30";
    check(swr, 9, "", fresh(9, 1));
    check(swr, 25, "", stale(25, -15, true)); // RFC 5861 §3
    check(swr, 40, "", stale(40, -30, true));
    check(swr, 41, "", FETCH);
    check(swr, 25, "Cache-Control: no-cache", ASKED);
    check(swr, 25, "Cache-Control: max-age=100", FETCH); // §5.2.1.1: not stale, unless max-stale
    check(swr, 25, "Cache-Control: min-fresh=0", FETCH);
    check("Cache-Control: s-maxage=10, stale-while-revalidate=30", 25, "", stale(25, -15, true)); // see the module
    check("Cache-Control: max-age=10, stale-while-revalidate=30, must-revalidate", 25, "", FETCH);
    check("Cache-Control: max-age=10, stale-while-revalidate=30, proxy-revalidate", 25, "", FETCH);
    check("Cache-Control: max-age=0, stale-while-revalidate=30", 0, "", stale(0, 0, true));
    check("Cache-Control: no-cache, stale-while-revalidate=30 | ETag: \"a\"", 25, "", FETCH);
}

#[test]
fn stale_if_error_allows_a_stale_answer_when_the_origin_fails() {
    let sie = "Cache-Control: max-age=10, stale-if-error=30";
    check(sie, 25, "", OR_STALE); // RFC 5861 §4
    check(sie, 40, "", OR_STALE);
    check(sie, 41, "", FETCH);
    check(sie, 25, "Cache-Control: no-cache", ASKED);
    check(sie, 25, "Cache-Control: max-age=100", FETCH);
    check("Cache-Control: max-age=10, stale-if-error=30, must-revalidate", 25, "", FETCH);
    check("Cache-Control: max-age=10, stale-if-error=30, proxy-revalidate", 25, "", FETCH);
    check("Cache-Control: s-maxage=10, stale-if-error=30", 25, "", OR_STALE);
    assert!([500, 502, 503, 504].into_iter().all(is_error));
    assert!(![200, 404, 501, 505].into_iter().any(is_error));
}

#[test]
fn a_clock_that_steps_back_leaves_a_response_at_its_initial_age() {
    let stored = store(&Rule::Respect, "", 200, "Cache-Control: max-age=60 | Age: 5").expect("storable");
    let facts = RequestFacts::read("GET", &[]);
    assert_eq!(decide(&facts, &Rule::Respect, &stored, false, Timestamp(0)), fresh(5, 55));
    let far = decide(&facts, &Rule::Respect, &stored, false, Timestamp(u64::MAX));
    assert_eq!(far, FETCH);
}

#[test]
fn an_override_replaces_the_origin_s_freshness() {
    let rule = Rule::Override(ttl(30));
    stores(&rule, "", 200, "", Ok(()));
    stores(&rule, "", 200, "Cache-Control: no-cache, max-age=0, must-revalidate", Ok(()));
    stores(&rule, "", 200, "Expires: 0", Ok(()));
    stores(&rule, "", 200, "Set-Cookie: a=b", Ok(())); // dropped on store
    assert_eq!(decides(&rule, "Cache-Control: max-age=5", 29, ""), fresh(29, 1));
    assert_eq!(decides(&rule, "Cache-Control: max-age=500", 31, ""), FETCH);
    assert_eq!(decides(&rule, "Age: 100", 29, ""), fresh(129, 1)); // counted from receipt
    assert_eq!(decides(&rule, "Cache-Control: no-cache", 29, ""), fresh(29, 1));
    assert_eq!(decides(&rule, "", 29, "Cache-Control: no-cache"), ASKED);
}

#[test]
fn an_override_covers_success_and_permanent_redirects_only() {
    let rule = Rule::Override(ttl(30));
    for status in [200, 203, 204, 300, 301, 308] {
        stores(&rule, "", status, "", Ok(()));
    }
    for status in [302, 303, 307, 400, 404, 410, 429, 500, 503] {
        stores(&rule, "", status, "", Err(Uncacheable::NoFreshness));
        stores(&rule, "", status, "Cache-Control: max-age=5", Ok(())); // explicit
    }
    stores(&rule, "", 206, "", Err(Uncacheable::Partial));
}

#[test]
fn no_store_and_private_win_over_an_override_that_is_not_shared() {
    let rule = Rule::Override(ttl(30));
    stores(&rule, "", 200, "Cache-Control: no-store", Err(Uncacheable::NoStore));
    stores(&rule, "", 200, "Cache-Control: private, max-age=60", Err(Uncacheable::Private));
    let shared = Rule::Override(Override { shared: true, ..ttl(30) });
    stores(&shared, "", 200, "Cache-Control: no-store", Ok(()));
    stores(&shared, "", 200, "Cache-Control: private", Ok(()));
}

#[test]
fn an_override_does_not_apply_to_requests_with_credentials() {
    let rule = Rule::Override(ttl(30));
    for (request, refusal) in
        [("Authorization: Bearer x", Uncacheable::Authorization), ("Cookie: sid=1", Uncacheable::NoFreshness)]
    {
        stores(&rule, request, 200, "", Err(refusal));
        let asked = fields(request);
        let facts = RequestFacts::read("GET", &asked);
        // What was stored for anonymous users under the override is not for this one …
        let stored = store(&rule, "", 200, "").expect("storable");
        assert_eq!(decide(&facts, &rule, &stored, false, NOW), Decision::Guarded);
        // … unless the origin itself allowed sharing it.
        let stored = store(&rule, "", 200, "Cache-Control: max-age=9").expect("storable");
        assert_eq!(decide(&facts, &rule, &stored, false, NOW), fresh(0, 9));
    }
    stores(&rule, "Cookie: sid=1", 200, "Cache-Control: max-age=9", Ok(())); // falls back to Respect
    stores(&rule, "Authorization: x", 200, "Cache-Control: max-age=9", Err(Uncacheable::Authorization));
}

#[test]
fn shared_or_the_header_in_the_key_lifts_the_guard() {
    let both = "Authorization: Bearer x | Cookie: sid=1";
    stores(&Rule::Override(Override { shared: true, ..ttl(30) }), both, 200, "", Ok(()));
    let keyed = |parts: Vec<KeyPart>| Rule::Override(Override { key: parts, ..ttl(30) });
    let header = |name: &str| KeyPart::Header(name.into());
    stores(&keyed(vec![header("authorization"), header("Cookie")]), both, 200, "", Ok(()));
    stores(&keyed(vec![header("authorization")]), both, 200, "", Err(Uncacheable::Authorization));
    stores(&keyed(vec![header("authorization")]), "Authorization: x", 200, "", Ok(()));
    // One cookie in the key is not all cookies in the key.
    stores(
        &keyed(vec![KeyPart::Cookie("sid".into())]),
        "Cookie: sid=1",
        200,
        "",
        Err(Uncacheable::NoFreshness),
    );
}

#[test]
fn what_was_stored_for_one_user_stays_out_of_reach_when_the_rule_changes() {
    let shared = Rule::Override(Override { shared: true, ..ttl(30) });
    let stored = store(&shared, "Cookie: sid=1", 200, "").expect("storable");
    let anonymous = RequestFacts::read("GET", &[]);
    assert_eq!(decide(&anonymous, &shared, &stored, false, NOW), fresh(0, 30));
    assert_eq!(decide(&anonymous, &Rule::Override(ttl(30)), &stored, false, NOW), Decision::Guarded);
    assert_eq!(decide(&anonymous, &Rule::Respect, &stored, false, NOW), Decision::Guarded);
    assert_eq!(decide(&anonymous, &Rule::Off, &stored, false, NOW), Decision::Guarded);
    let private = store(&shared, "", 200, "Cache-Control: private").expect("storable");
    assert_eq!(decide(&anonymous, &Rule::Override(ttl(30)), &private, false, NOW), Decision::Guarded);
    // A response that still sets a cookie, stored on the origin's word, is not for an override.
    let cookie = store(&Rule::Respect, "", 200, "Cache-Control: public, max-age=9 | Set-Cookie: a=b");
    let cookie = cookie.expect("storable");
    assert_eq!(decide(&anonymous, &Rule::Override(ttl(30)), &cookie, false, NOW), Decision::Guarded);
}

#[test]
fn an_override_s_windows_replace_the_origin_s() {
    let rule = Rule::Override(Override {
        stale_while_revalidate: Duration::from_secs(10),
        stale_if_error: Duration::from_secs(60),
        ..ttl(30)
    });
    assert_eq!(decides(&rule, "Cache-Control: must-revalidate", 35, ""), stale(35, -5, true));
    assert_eq!(decides(&rule, "Cache-Control: stale-while-revalidate=500", 41, ""), OR_STALE);
    assert_eq!(decides(&rule, "", 91, ""), FETCH);
}

#[test]
fn a_softly_purged_response_is_stale_whatever_its_age() {
    let decide = |response: &str, request: &str| {
        let stored = store(&Rule::Respect, "", 200, response).expect("storable");
        let request = fields(request);
        super::decide(&RequestFacts::read("GET", &request), &Rule::Respect, &stored, true, NOW)
    };
    assert_eq!(decide("Cache-Control: max-age=60", ""), FETCH);
    assert_eq!(decide("Cache-Control: max-age=60", "Cache-Control: max-stale"), FETCH);
    assert_eq!(decide("Cache-Control: max-age=60, stale-while-revalidate=9", ""), stale(0, 0, true));
    assert_eq!(decide("Cache-Control: max-age=60, stale-if-error=9", ""), OR_STALE);
}

#[test]
fn only_what_may_be_reused_unasked_is_shared_while_it_is_fetched() {
    let shareable = |response: &str| {
        let stored = store(&Rule::Respect, "", 200, response).expect("storable");
        is_shareable(&RequestFacts::read("GET", &[]), &Rule::Respect, &stored)
    };
    assert!(shareable("Cache-Control: max-age=1"));
    assert!(shareable("Cache-Control: max-age=0, stale-while-revalidate=5"));
    assert!(!shareable("Cache-Control: no-cache | ETag: \"a\""));
    assert!(!shareable("Cache-Control: max-age=0 | ETag: \"a\""));
}

/// Header values that mix what means something with what doesn't.
fn cache_control() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("max-age"),
        Just("s-maxage"),
        Just("no-store"),
        Just("no-cache"),
        Just("private"),
        Just("public"),
        Just("must-revalidate"),
        Just("stale-while-revalidate"),
        Just("stale-if-error"),
        Just("max-stale"),
        Just("min-fresh"),
        Just("x"),
    ];
    let argument = prop_oneof![
        Just(String::new()),
        "=[0-9]{1,30}",
        "=\"[0-9a-z, ]{0,9}\"",
        "=-?[0-9.]{0,4}",
        "[ -~]{0,6}",
    ];
    prop::collection::vec((word, argument), 0..6)
        .prop_map(|parts| parts.iter().map(|(w, a)| format!("{w}{a}")).collect::<Vec<_>>().join(","))
}

proptest! {
    #[test]
    fn random_headers_never_panic_and_age_never_shrinks(
        cc in cache_control(), asked in cache_control(), age in "[ -~]{0,24}", date in "[ -~]{0,40}",
        received in any::<u64>(), sent in any::<u64>(), now in any::<u64>(), status in 100_u16..1000,
    ) {
        let response: Vec<Field<'_>> = vec![
            (b"Cache-Control", cc.as_bytes()), (b"Age", age.as_bytes()), (b"Date", date.as_bytes()),
            (b"Expires", date.as_bytes()), (b"ETag", b"\"a\""),
        ];
        let request: Vec<Field<'_>> = vec![(b"Cache-Control", asked.as_bytes())];
        let facts = RequestFacts::read("GET", &request);
        let response = ResponseFacts::read(status, &response, Timestamp(sent), Timestamp(received));
        for rule in [Rule::Respect, Rule::Override(ttl(u64::MAX)), Rule::Override(Override { shared: true, ..ttl(1) })] {
            let Ok(stored) = storable(&facts, &rule, &response) else { continue };
            for softened in [false, true] {
                let decision = decide(&facts, &rule, &stored, softened, Timestamp(now));
                if let Decision::Fresh(standing) | Decision::Stale { standing, .. } = decision {
                    prop_assert!(standing.age_s >= stored.initial_age_ms / 1000);
                }
                if let Decision::Fresh(standing) = decision {
                    prop_assert!(standing.ttl_s >= 0);
                }
            }
        }
    }

    #[test]
    fn no_store_is_never_stored(before in cache_control(), after in cache_control()) {
        // A quote that never closes swallows what follows, so the directive gets a line of its own.
        let response = [
            (&b"Cache-Control"[..], before.as_bytes()), (b"cache-control", b"no-store"),
            (b"Cache-Control", after.as_bytes()), (b"ETag", b"\"a\""),
        ];
        let response = ResponseFacts::read(200, &response, NOW, NOW);
        for rule in [Rule::Respect, Rule::Override(ttl(30))] {
            let facts = RequestFacts::read("GET", &[]);
            prop_assert!(storable(&facts, &rule, &response).is_err());
        }
    }

    #[test]
    fn a_stale_response_never_becomes_fresh_again(cc in cache_control(), first in 0_u64..9_000_000, more in 0_u64..9_000_000) {
        let response = [(&b"Cache-Control"[..], cc.as_bytes()), (b"ETag", b"\"a\""), DATE];
        let response = ResponseFacts::read(200, &response, NOW, NOW);
        let facts = RequestFacts::read("GET", &[]);
        let Ok(stored) = storable(&facts, &Rule::Respect, &response) else { return Ok(()) };
        let at = |ms: u64| decide(&facts, &Rule::Respect, &stored, false, Timestamp(NOW.0 + ms));
        if !matches!(at(first), Decision::Fresh(_)) {
            prop_assert!(!matches!(at(first + more), Decision::Fresh(_)));
        }
    }
}
