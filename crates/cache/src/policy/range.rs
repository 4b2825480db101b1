//! Ranges out of a complete body: which bytes a 206 carries, if any. RFC 9110 §14.

use super::conditional::{Validators, strongly_equal};
use super::date::parse_date;
use super::request::RequestFacts;

/// What a `Range` gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// 416 with `Content-Range: bytes */length`.
    NotSatisfiable,
}

/// Plans the answer to a GET with `Range` from a complete 200 of `length` bytes.
///
/// Several ranges get the whole response, as §14.2 allows.
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
    parse_single(range, length).unwrap_or(RangePlan::Full)
}

/// `If-Range`: the strong tag agrees, or the date is exactly `Last-Modified` and that is strong. §13.1.5, §8.8.2.2.
fn if_range_holds(condition: &[u8], validators: &Validators<'_>) -> bool {
    if let Some(etag) = validators.etag.filter(|_| condition.ends_with(b"\"")) {
        return strongly_equal(condition, etag);
    }
    let (Some(condition), Some(modified)) =
        (parse_date(condition), validators.last_modified.and_then(parse_date))
    else {
        return false;
    };
    // A date is strong if the response was made at least a second after the modification.
    condition == modified && validators.date.seconds() > modified.seconds()
}

/// One byte range; `None` for what is not `bytes=` with exactly one valid range.
fn parse_single(range: &[u8], length: u64) -> Option<RangePlan> {
    let (unit, ranges) = split_once(range, b'=')?;
    if !unit.trim_ascii().eq_ignore_ascii_case(b"bytes") || ranges.contains(&b',') {
        return None;
    }
    let (first, last) = split_once(ranges.trim_ascii(), b'-')?;
    match (first.is_empty(), last.is_empty()) {
        (true, true) => None,
        (true, false) => {
            let suffix = number(last)?.min(length);
            Some(if suffix == 0 { RangePlan::NotSatisfiable } else { single(length - suffix, length) })
        }
        (false, open) => {
            let first = number(first)?;
            let end = if open { length } else { number(last)?.saturating_add(1) };
            if !open && end <= first {
                return None;
            }
            Some(if first >= length { RangePlan::NotSatisfiable } else { single(first, end.min(length)) })
        }
    }
}

fn single(start: u64, end: u64) -> RangePlan {
    RangePlan::Single { start, end }
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = memchr::memchr(at, bytes)?;
    Some((&bytes[..index], &bytes[index + 1..]))
}

/// Digits, saturating: a position beyond 2^64 is beyond any body.
fn number(digits: &[u8]) -> Option<u64> {
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
            "bytes=0-1,5-6",
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
            if let RangePlan::Single { start, end } = plan(&[(b"Range", range.as_bytes())], length) {
                prop_assert!(start < end && end <= length);
            }
        }
    }
}
