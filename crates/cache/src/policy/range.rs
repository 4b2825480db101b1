//! Ranges out of a complete body: which bytes a 206 carries, if any. RFC 9110 §14.

use smallvec::SmallVec;

use super::conditional::{Validators, strongly_equal};
use super::date::parse_date;
use super::request::RequestFacts;

/// What a `Range` gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangePlan {
    /// The whole response, status as it is: no range, one that cannot be understood, or a failed `If-Range`.
    Full,
    /// 206 with these bytes: from `start`, to `end` exclusive.
    Single {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// 206 with these ranges in this order, each as in `Single`; they don't overlap. §15.3.7.2.
    Several(SmallVec<[(u64, u64); 4]>),
    /// 416 with `Content-Range: bytes */length`.
    NotSatisfiable,
}

/// Ranges answered of one request; with more, the whole is the better answer (§14.2).
pub const RANGES_MAX: usize = 16;
/// Several ranges are answered by a copy of their bytes, which each slow client holds for itself; beyond this the whole,
/// which all share, is the better answer.
const SEVERAL_BYTES_MAX: u64 = 64 << 10;
/// What a part of several costs beside its bytes, about: its boundary and two fields.
const PART_OVERHEAD_BYTES: u64 = 128;

/// Plans the answer to a GET with `Range` from a complete 200 of `length` bytes.
///
/// Ranges that overlap, or that together are no shorter than the whole or above 64 KiB, get the whole response, as §14.2
/// allows.
#[must_use]
pub fn plan_range(
    facts: &RequestFacts<'_>,
    status: u16,
    validators: &Validators<'_>,
    length: u64,
) -> RangePlan {
    let Some(range) = facts.range.filter(|_| status == 200) else { return RangePlan::Full };
    if facts.if_range.is_some_and(|condition| !if_range_holds(condition, validators)) {
        return RangePlan::Full;
    }
    parse(range, length).unwrap_or(RangePlan::Full)
}

/// `If-Range`: the strong tag agrees, or the date is exactly `Last-Modified` and that is strong. §13.1.5, §8.8.2.2.
fn if_range_holds(condition: &[u8], validators: &Validators<'_>) -> bool {
    if let Some(etag) = validators.etag.filter(|_| condition.ends_with(b"\"")) {
        return strongly_equal(condition, etag);
    }
    // A date is strong if the response was made at least a second after the modification.
    parse_date(condition).is_some_and(|condition| validators.strong_date() == Some(condition))
}

/// Byte ranges; `None` for what is not `bytes=` and valid ranges, or not worth splitting.
fn parse(range: &[u8], length: u64) -> Option<RangePlan> {
    let (unit, ranges) = split_once(range, b'=')?;
    if !unit.trim_ascii().eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut found: SmallVec<[(u64, u64); 4]> = SmallVec::new();
    let mut asked = 0;
    for one in ranges.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|one| !one.is_empty()) {
        asked += 1;
        if asked > RANGES_MAX {
            return None;
        }
        found.extend(parse_one(one, length)?);
    }
    match *found {
        [] if asked == 0 => None,
        [] => Some(RangePlan::NotSatisfiable),
        [(start, end)] => Some(RangePlan::Single { start, end }),
        _ => is_worth_splitting(&found, length).then_some(RangePlan::Several(found)),
    }
}

fn is_worth_splitting(ranges: &[(u64, u64)], length: u64) -> bool {
    let overlap = |a: &(u64, u64), b: &(u64, u64)| a.0 < b.1 && b.0 < a.1;
    let apart =
        ranges.iter().enumerate().all(|(at, one)| !ranges[..at].iter().any(|other| overlap(one, other)));
    let cost: u64 = ranges.iter().map(|(start, end)| end - start + PART_OVERHEAD_BYTES).sum();
    apart && cost < length.min(SEVERAL_BYTES_MAX)
}

/// `0-9`, `9-` or `-5`: what of the body that is, if any is there; `None` if it is no range.
fn parse_one(range: &[u8], length: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = split_once(range, b'-')?;
    if first.is_empty() {
        let suffix = number(last)?.min(length);
        return Some((suffix > 0).then_some((length - suffix, length)));
    }
    let first = number(first)?;
    let end = if last.is_empty() { u64::MAX } else { number(last)?.saturating_add(1) };
    if end <= first && !last.is_empty() {
        return None;
    }
    Some((first < length).then_some((first, end.min(length))))
}

pub(crate) fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = memchr::memchr(at, bytes)?;
    Some((&bytes[..index], &bytes[index + 1..]))
}

/// Digits, saturating: a position beyond 2^64 is beyond any body.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits
            .iter()
            .fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Field;
    use crate::policy::Timestamp;
    use proptest::prelude::*;

    const MODIFIED: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    fn plan(fields: &[Field<'_>], length: u64) -> RangePlan {
        let validators = Validators {
            etag: Some(b"\"a\""),
            last_modified: Some(MODIFIED),
            date: Timestamp::from_seconds(784_111_777 + 60),
        };
        plan_range(&RequestFacts::read("GET", fields), 200, &validators, length)
    }

    fn single(start: u64, end: u64) -> RangePlan {
        RangePlan::Single { start, end }
    }

    #[expect(clippy::needless_pass_by_value, reason = "tables read better without references")]
    fn check(range: &str, length: u64, expected: RangePlan) {
        assert_eq!(plan(&[(b"Range", range.as_bytes())], length), expected, "{range} of {length}");
    }

    #[test]
    fn single_ranges_are_cut_to_the_body() {
        check("bytes=0-9", 100, single(0, 10)); // RFC 9110 §14.1.2
        check("bytes=90-200", 100, single(90, 100));
        check("bytes=90-", 100, single(90, 100));
        check("bytes=-10", 100, single(90, 100));
        check("bytes=-200", 100, single(0, 100));
        check("bytes=0-0", 100, single(0, 1));
        check("bytes=99-99", 100, single(99, 100));
        check("Bytes=0-9", 100, single(0, 10));
        check("bytes=0-99999999999999999999999", 100, single(0, 100));
    }

    #[test]
    fn several_ranges_are_several_parts_where_that_is_shorter() {
        let several = |ranges: &[(u64, u64)]| RangePlan::Several(ranges.iter().copied().collect());
        check("bytes=0-9,20-29", 10_000, several(&[(0, 10), (20, 30)])); // RFC 9110 §14.1.2
        check("bytes=20-29 , 0-9,-5", 10_000, several(&[(20, 30), (0, 10), (9995, 10_000)]));
        check("bytes=0-9,20000-", 10_000, single(0, 10)); // §14.2: what can't be had is left out
        check("bytes=20000-,30000-", 10_000, RangePlan::NotSatisfiable);
        check("bytes=0-9,5-14", 10_000, RangePlan::Full); // §14.2: overlapping
        check("bytes=0-4999,5000-9999", 10_000, RangePlan::Full); // no shorter
        check("bytes=0-1,5-6", 100, RangePlan::Full);
        let many = (0..17).map(|n| format!("{}-{0}", n * 10)).collect::<Vec<_>>().join(",");
        check(&format!("bytes={many}"), 1 << 20, RangePlan::Full);
    }

    #[test]
    fn several_ranges_are_parts_only_where_few_bytes_are_copied() {
        let length = 4 << 20;
        let most = SEVERAL_BYTES_MAX - 2 * PART_OVERHEAD_BYTES;
        let plan = |bytes: u64| plan(&[(b"Range", format!("bytes=0-{},-1", bytes - 2).as_bytes())], length);
        assert!(matches!(plan(most - 1), RangePlan::Several(_)));
        assert_eq!(plan(most), RangePlan::Full); // RFC 9110 §14.2
        check("bytes=0-2000000,2000200-4194303", length, RangePlan::Full);
    }

    #[test]
    fn ranges_beyond_the_body_are_not_satisfiable() {
        check("bytes=100-", 100, RangePlan::NotSatisfiable);
        check("bytes=100-200", 100, RangePlan::NotSatisfiable);
        check("bytes=-0", 100, RangePlan::NotSatisfiable);
        check("bytes=0-", 0, RangePlan::NotSatisfiable);
        check("bytes=99999999999999999999999-", 100, RangePlan::NotSatisfiable);
    }

    #[test]
    fn what_is_not_one_valid_byte_range_gets_everything() {
        for range in [
            "bytes=5-2",
            "bytes=-",
            "bytes=",
            "bytes=a-b",
            "bytes=1",
            "items=0-1",
            "0-1",
            "bytes=0-1,5-2",
            "bytes=0-1,x",
            "bytes=,",
            "bytes=-1-2",
            "bytes=+1-2",
            "",
        ] {
            check(range, 100, RangePlan::Full);
        }
        assert_eq!(plan(&[], 100), RangePlan::Full);
    }

    #[test]
    fn if_range_has_to_hold_strongly() {
        let with = |condition: &[u8]| plan(&[(b"Range", b"bytes=0-1"), (b"If-Range", condition)], 100);
        assert_eq!(with(b"\"a\""), single(0, 2)); // RFC 9110 §13.1.5
        assert_eq!(with(b"\"b\""), RangePlan::Full);
        assert_eq!(with(b"W/\"a\""), RangePlan::Full);
        assert_eq!(with(MODIFIED), single(0, 2));
        assert_eq!(with(b"Sun, 06 Nov 1994 08:49:38 GMT"), RangePlan::Full);
        assert_eq!(with(b"junk"), RangePlan::Full);
    }

    #[test]
    fn a_date_is_weak_in_the_second_it_was_made() {
        let validators = Validators {
            etag: None,
            last_modified: Some(MODIFIED),
            date: Timestamp::from_seconds(784_111_777),
        };
        let fields: [Field<'_>; 2] = [(b"Range", b"bytes=0-1"), (b"If-Range", MODIFIED)];
        assert_eq!(plan_range(&RequestFacts::read("GET", &fields), 200, &validators, 9), RangePlan::Full); // §8.8.2.2
    }

    #[test]
    fn only_a_200_has_ranges() {
        let fields: [Field<'_>; 1] = [(b"Range", b"bytes=0-1")];
        let facts = RequestFacts::read("GET", &fields);
        assert_eq!(plan_range(&facts, 404, &Validators::default(), 9), RangePlan::Full);
    }

    proptest! {
        #[test]
        fn a_plan_never_leaves_the_body(range in "(bytes=)?[0-9,=-]{0,24}", length in 0_u64..1000) {
            let ranges = match plan(&[(b"Range", range.as_bytes())], length) {
                RangePlan::Single { start, end } => vec![(start, end)],
                RangePlan::Several(ranges) => ranges.to_vec(),
                RangePlan::Full | RangePlan::NotSatisfiable => Vec::new(),
            };
            prop_assert!(ranges.iter().all(|&(start, end)| start < end && end <= length));
        }
    }
}
