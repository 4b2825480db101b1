//! What must hold of the cache's policy for any bytes whatever.
//!
//! **Intuition.** Few header values have an expected answer, but all have laws: nothing panics; what is said twice means
//! what it means once; more restriction never makes a response fresher; a response grows old and not young again; a range
//! lies within its body; and a request gets what was stored for it, whatever it sent.
//!
//! **Mechanism.** Each function checks the laws of one part on one input. The fuzz targets call them with made-up bytes,
//! the tests of the crate with the corpora. An input is lines; what a line is for is said at each function.

#![allow(dead_code, reason = "each fuzz target uses one of these")]

use tenfold_cache::policy::directives::{DELTA_SECONDS_MAX, ResponseDirectives};
use tenfold_cache::policy::encoding::{Accepted, Transform};
use tenfold_cache::policy::freshness::{Decision, decide, standing};
use tenfold_cache::policy::vary::Vary;
use tenfold_cache::policy::{
    RangePlan, RequestFacts, ResponseFacts, Validators, accept, date, invalidation, not_modified, plan_range,
    storable,
};
use tenfold_cache::tier::value::{self, Content, Value};
use tenfold_cache::{
    Coding, Compress, Field, KeyBuf, KeyUrl, Override, Pattern, QueryRule, Rule, Scheme, TagTemplate,
    Timestamp,
};

/// A corpus entry beyond this tells nothing that a shorter one doesn't.
const INPUT_BYTES_MAX: usize = 16 * 1024;
/// Fields taken of one input; the codec takes a hundred of a message.
const FIELDS_MAX: usize = 100;
/// Sun, 06 Nov 1994 08:49:37 GMT.
const NOW: Timestamp = Timestamp(784_111_777_000);

fn lines(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    input[..input.len().min(INPUT_BYTES_MAX)].split(|&byte| byte == b'\n').map(|line| line.trim_ascii())
}

/// `name: value`; what has no colon is no field.
fn field(line: &[u8]) -> Option<Field<'_>> {
    let at = line.iter().position(|&byte| byte == b':')?;
    Some((&line[..at], line[at + 1..].trim_ascii()))
}

/// Laws of `Cache-Control`: each line is one field line.
pub(crate) fn cache_control(input: &[u8]) {
    let values: Vec<&[u8]> = lines(input).take(FIELDS_MAX).collect();
    let of = |values: &[&[u8]]| {
        let fields: Vec<Field<'_>> = values.iter().map(|value| (&b"Cache-Control"[..], *value)).collect();
        ResponseDirectives::read(&fields)
    };
    let once = of(&values);
    assert_eq!(of(&[values.clone(), values.clone()].concat()), once, "said twice");
    let backwards: Vec<&[u8]> = values.iter().rev().copied().collect();
    assert_eq!(of(&backwards), once, "in another order");
    let upper: Vec<Vec<u8>> = values.iter().map(|value| value.to_ascii_uppercase()).collect();
    assert_eq!(of(&upper.iter().map(Vec::as_slice).collect::<Vec<_>>()), once, "in capitals");
    for seconds in [once.max_age_s, once.s_maxage_s, once.stale_while_revalidate_s, once.stale_if_error_s] {
        assert!(seconds.is_none_or(|seconds| seconds <= DELTA_SECONDS_MAX));
    }
    let restricted = of(&[&values[..], &[b"no-store, private, no-cache, max-age=0"]].concat());
    assert!(restricted.no_store && restricted.private && restricted.no_cache);
    assert_eq!(restricted.max_age_s, Some(0));
    for value in &values {
        let targeted: [Field<'_>; 1] = [(b"CDN-Cache-Control", value)];
        let ours: [Field<'_>; 2] = [(b"tenfold-cache-control", value), (b"cdn-cache-control", b"max-age=7")];
        match ResponseDirectives::read(&targeted) {
            directives if directives.targeted => assert_eq!(ResponseDirectives::read(&ours), directives),
            _ => assert_eq!(ResponseDirectives::read(&ours).max_age_s, Some(7)),
        }
        let request: [Field<'_>; 1] = [(b"cache-control", value)];
        let facts = RequestFacts::read("GET", &request);
        let _ = (facts.bypass(), facts.directives);
    }
}

/// Rules that treat a response differently.
fn rules() -> [Rule; 4] {
    let half_a_minute = std::time::Duration::from_secs(30);
    let ttl = Some(half_a_minute);
    let guess = Override { heuristic: true, ..Override::default() };
    let forced = Override { ttl, negative_ttl: ttl, stale_if_error: half_a_minute, ..Override::default() };
    let shared = Override { shared: true, ignore_client_revalidation: true, ..forced.clone() };
    [Rule::Respect, Rule::Override(guess), Rule::Override(forced), Rule::Override(shared)]
}

/// Laws of whole messages: the first byte says the status; then the response's fields, an empty line, the request's.
pub(crate) fn headers(input: &[u8]) {
    const STATUSES: [u16; 12] = [200, 203, 204, 206, 301, 304, 404, 410, 500, 503, 103, 599];
    let Some((first, input)) = input.split_first() else { return };
    let status = STATUSES[usize::from(*first) % STATUSES.len()];
    let mut lines = lines(input);
    let response: Vec<Field<'_>> =
        lines.by_ref().take_while(|line| !line.is_empty()).take(FIELDS_MAX).filter_map(field).collect();
    let request: Vec<Field<'_>> = lines.take(FIELDS_MAX).filter_map(field).collect();
    let facts = ResponseFacts::read(status, &response, NOW, NOW);
    let asked = RequestFacts::read("GET", &request);
    let _ = not_modified(&asked, status, &facts.validators());
    for (path, _) in invalidation::named_targets(&response, b"shop.example", b"/a/b") {
        assert!(path.starts_with(b"/"), "{path:?}");
    }
    for rule in rules() {
        grows_old(&asked.under(&rule), &rule, &facts);
    }
    let template = TagTemplate::parse("{id}{header.x}", "/{id}").expect("a template");
    drop(template);
    if let Some(value) = facts.last_modified {
        assert!(date::parse_date(value).is_some(), "only dates are validators");
    }
}

/// What is stored is fresh at first and stale later, never the other way round, and its age only grows.
fn grows_old(asked: &RequestFacts<'_>, rule: &Rule, facts: &ResponseFacts<'_>) {
    let Ok(stored) = storable(asked, rule, facts) else { return };
    let forbidden =
        facts.directives.no_store && !facts.directives.must_understand || facts.directives.private;
    let shared = matches!(rule, Rule::Override(rule) if rule.shared);
    assert!(!forbidden || shared, "stored what may not be");
    let (mut was_fresh, mut age_s) = (true, 0);
    for later_s in [0, 1, 29, 31, 3600, 86_401, u64::from(u32::MAX)] {
        let now = Timestamp(NOW.0 + later_s * 1000);
        let plain: [Field<'_>; 0] = [];
        let anyone = RequestFacts::read("GET", &plain);
        let is_fresh = matches!(decide(&anyone, rule, &stored, false, now), Decision::Fresh(_));
        assert!(was_fresh || !is_fresh, "young again after {later_s} s");
        was_fresh = is_fresh;
        let softened = decide(&anyone, rule, &stored, true, now);
        assert!(!matches!(softened, Decision::Fresh(_)), "a soft purge takes freshness");
        if let Some(standing) = standing(&anyone, rule, &stored, false, now) {
            assert!(standing.age_s >= age_s);
            age_s = standing.age_s;
        }
        let _ = decide(asked, rule, &stored, false, now);
    }
    assert!(
        !was_fresh
            || facts.directives.max_age_s.is_some()
            || facts.directives.s_maxage_s.is_some()
            || facts.lifetime_ms().is_some()
    );
}

/// Laws of ranges: the body's length in two bytes, then `Range`, `If-Range`, `ETag`, `Last-Modified`, one a line.
pub(crate) fn ranges(input: &[u8]) {
    let Some((length, input)) = input.split_first_chunk::<2>() else { return };
    let length = u64::from(u16::from_le_bytes(*length));
    let mut lines = lines(input);
    let mut next = || lines.next().unwrap_or_default();
    let (range, if_range, etag, modified) = (next(), next(), next(), next());
    let response: [Field<'_>; 2] = [(b"ETag", etag), (b"Last-Modified", modified)];
    let facts = ResponseFacts::read(200, &response, NOW, NOW);
    let validators = facts.validators();
    let plan = |fields: &[Field<'_>], validators: &Validators<'_>| {
        let plan = plan_range(&RequestFacts::read("GET", fields), 200, validators, length);
        within(&plan, length);
        plan
    };
    let whole = plan(&[(b"Range", range)], &validators);
    let conditional = plan(&[(b"Range", range), (b"If-Range", if_range)], &validators);
    assert!(conditional == whole || conditional == RangePlan::Full, "a condition only takes away");
    if facts.etag.is_none() && facts.last_modified.is_none() {
        assert_eq!(conditional, RangePlan::Full, "nothing to compare with");
    }
}

fn within(plan: &RangePlan, length: u64) {
    match plan {
        RangePlan::Full | RangePlan::NotSatisfiable => {}
        RangePlan::Single { start, end } => assert!(start < end && *end <= length),
        RangePlan::Several(ranges) => {
            let mut sorted = ranges.to_vec();
            sorted.sort_unstable();
            assert!(sorted.len() > 1 && sorted.iter().all(|(start, end)| start < end && *end <= length));
            assert!(sorted.windows(2).all(|pair| pair[0].1 <= pair[1].0), "no byte twice");
            assert!(sorted.iter().map(|(start, end)| end - start).sum::<u64>() < length);
        }
    }
}

/// Laws of keys: `Vary`, then the query, then the request's fields, one a line.
pub(crate) fn vary(input: &[u8]) {
    let mut lines = lines(input);
    let (vary, language, query) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    let request: Vec<Field<'_>> = lines.take(FIELDS_MAX).filter_map(field).collect();
    let response: [Field<'_>; 2] = [(b"Vary", vary), (b"Content-Language", language)];
    if let Ok(Some(selected)) = Vary::select(&response, &request) {
        assert!(selected.matches(&request), "a request gets what was stored for it");
        assert!(selected.reselect(&request).selects_as(&selected));
        let without: Vec<Field<'_>> =
            request.iter().filter(|(name, _)| name.len() % 2 == 0).copied().collect();
        let other = selected.reselect(&without);
        assert!(other.matches(&without));
    }
    for (name, value) in &request {
        let name = name.to_ascii_lowercase();
        let once = accept::normal(&name, value).into_owned();
        assert_eq!(accept::normal(&name, &once), once, "a normal form is its own");
    }
    let Ok(query) = std::str::from_utf8(query) else { return };
    let rule = QueryRule { sort: true, keep: Vec::new(), drop: vec![Pattern::new("u*"), Pattern::new("b")] };
    let once = rule.apply(query).map(std::borrow::Cow::into_owned);
    assert_eq!(
        once.as_deref().map(|once| rule.apply(once).map(std::borrow::Cow::into_owned)),
        once.clone().map(Some)
    );
    let key = |query: Option<&str>, fields: &[Field<'_>]| {
        let mut key = KeyBuf::new();
        let query = query.map(str::as_bytes);
        let url = KeyUrl { scheme: Scheme::Http, authority: b"a", path: b"/", query, chosen_by: b"" };
        key.build(&url, &RequestFacts::read("GET", fields), &Rule::Respect);
        key.as_bytes().to_vec()
    };
    assert_eq!(
        key(Some(query), &request),
        key(Some(query), &[]),
        "fields are not in the key unless the route says so"
    );
    assert_ne!(key(Some(query), &[]), key(None, &[]));
    assert_eq!(key(Some(query), &[]) == key(once.as_deref(), &[]), once.as_deref() == Some(query));
}

/// Laws of content codings: a byte says which codings are there, then lines of `Accept-Encoding`, an empty line, the fields
/// of the response that may be given one.
pub(crate) fn encoding(input: &[u8]) {
    let Some((offered, input)) = input.split_first() else { return };
    let mut lines = lines(input);
    let accept: Vec<&[u8]> = lines.by_ref().take_while(|line| !line.is_empty()).take(FIELDS_MAX).collect();
    let of = |values: &[&[u8]]| {
        let fields: Vec<Field<'_>> = values.iter().map(|value| (&b"Accept-Encoding"[..], *value)).collect();
        Accepted::read(&fields)
    };
    let accepted = of(&accept);
    same_in_other_words(&accept, accepted, of);
    let bit = |coding: Coding| Coding::ALL.iter().position(|other| *other == coding).unwrap_or(0);
    let offered: Vec<Coding> =
        Coding::ALL.into_iter().filter(|coding| offered >> bit(*coding) & 1 == 1).collect();
    if let Some(accepted) = accepted {
        chooses_what_is_offered_and_accepted(&accepted, &accept, &offered);
    }
    let response: Vec<Field<'_>> = lines.take(FIELDS_MAX).filter_map(field).collect();
    let allowed = |more: &[Field<'_>]| Transform::of(200, &[&response[..], more].concat()).is_allowed;
    let is_allowed = allowed(&[]);
    assert!(!allowed(&[(b"cache-control", b"no-transform")]) && !allowed(&[(b"Content-Encoding", b"br")]));
    assert!(!allowed(&[(b"content-range", b"bytes 0-1/2")]) && !Transform::of(206, &response).is_allowed);
    assert!(is_allowed || !allowed(&[(b"ETag", b"\"a\"")]), "a tag allows nothing");
    let (transform, rule) = (Transform::of(200, &response), Compress::default());
    let with_cookie = Transform { sets_cookie: true, ..transform };
    assert!(!rule.covers(with_cookie, None) && (is_allowed || !rule.covers(transform, Some(u64::MAX))));
    assert!(!rule.covers(transform, Some(rule.size_min - 1)));
}

/// Said twice, backwards, in capitals or as the key of a variant spells it, `Accept-Encoding` means the same.
fn same_in_other_words(
    values: &[&[u8]],
    accepted: Option<Accepted>,
    of: impl Fn(&[&[u8]]) -> Option<Accepted>,
) {
    assert_eq!(of(&[values, values].concat()), accepted, "said twice");
    assert_eq!(of(&values.iter().rev().copied().collect::<Vec<_>>()), accepted, "in another order");
    let upper: Vec<Vec<u8>> = values.iter().map(|value| value.to_ascii_uppercase()).collect();
    assert_eq!(of(&upper.iter().map(Vec::as_slice).collect::<Vec<_>>()), accepted, "in capitals");
    let normal: Vec<Vec<u8>> =
        values.iter().map(|value| accept::normal(b"accept-encoding", value).into_owned()).collect();
    assert_eq!(of(&normal.iter().map(Vec::as_slice).collect::<Vec<_>>()), accepted, "in its normal form");
}

/// What is chosen is there and not refused; were less there, it would be chosen still; and of nothing, nothing is.
fn chooses_what_is_offered_and_accepted(accepted: &Accepted, values: &[&[u8]], offered: &[Coding]) {
    assert_eq!(accepted.best([]), None);
    let Some(best) = accepted.best(offered.iter().copied()) else {
        assert!(offered.iter().all(|coding| accepted.best([*coding]).is_none()), "one alone would have done");
        return;
    };
    assert!(offered.contains(&best) && accepted.best([best]) == Some(best));
    for other in offered {
        assert_eq!(
            accepted.best(offered.iter().copied().filter(|one| one == other || *one == best)),
            Some(best)
        );
    }
    let refusal = format!("{};q=0", best.as_str());
    let fields: Vec<Field<'_>> = values
        .iter()
        .copied()
        .chain([refusal.as_bytes()])
        .map(|value| (&b"accept-encoding"[..], value))
        .collect();
    let refused = Accepted::read(&fields).expect("it says something");
    assert_ne!(refused.best(offered.iter().copied()), Some(best), "refused");
}

/// Laws of values of the shared tier: nothing panics, what is read is no larger than allowed and means the same when it is
/// written again, and its head has lines and nothing else. The checksum is put right, or nothing but it would be tested.
pub(crate) fn shared_value(input: &[u8]) {
    const CONTENT_BYTES_MAX: usize = 64 * 1024;
    let input = &input[..input.len().min(INPUT_BYTES_MAX)];
    let _ = Value::read(input, CONTENT_BYTES_MAX);
    let mut value = input.to_vec();
    value::seal(&mut value);
    let Some(read) = Value::read(&value, CONTENT_BYTES_MAX) else { return };
    if let Content::Response(response) = &read.content {
        assert!(response.head.len() + response.body.len() <= CONTENT_BYTES_MAX);
        assert!(!response.head.windows(4).any(|four| four == b"\r\n\r\n"), "the head would end early");
    }
    assert_eq!(Value::read(&read.write(), CONTENT_BYTES_MAX), Some(read));
}
