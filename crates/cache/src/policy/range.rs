//! Ranges out of a complete body: which bytes a 206 carries, if any. RFC 9110 §14.

use super::conditional::{Validators, strongly_equal};
use super::request::RequestFacts;
use super::time::parse_date;

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
            let end = if open { length } else { number(last)?.checked_add(1).unwrap_or(u64::MAX) };
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
