//! HTTP dates, read as freely as is safe.
//!
//! **Intuition.** `Expires` and `Last-Modified` are written by machines of every age. Three forms are in the standard;
//! names come in any case, and a weekday that contradicts its date changes nothing. What is not one of the forms (no
//! comma, another zone, one digit for the hour) is no date: for `Expires` that means stale, and staler is the safe side.
//!
//! **Mechanism.** Fixed positions, no allocation: `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT`,
//! `Sun Nov  6 08:49:37 1994` (RFC 9110 §5.6.7), days counted by the civil calendar.
//!
//! **Failure.** `None`, also for days that don't exist and for years before 1970. Two-digit years are of this century
//! below `PIVOT`, else of the last: with the clock moving on, some future dates are then read as past, which is stale.

use super::time::Timestamp;

/// The first two-digit year that is read as one of the last century: more than fifty years from when this was written.
const PIVOT: u64 = 77;
const MONTHS: [&[u8]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
const DAYS: [&[u8]; 7] =
    [b"monday", b"tuesday", b"wednesday", b"thursday", b"friday", b"saturday", b"sunday"];

/// Reads an HTTP-date in any of its three forms. RFC 9110 §5.6.7.
///
/// What is not a date in GMT is `None`, which for `Expires` means "already expired" (RFC 9111 §5.3).
#[must_use]
pub fn parse_date(value: &[u8]) -> Option<Timestamp> {
    let comma = value.iter().take(10).position(|&byte| byte == b',');
    match comma {
        Some(3) => imf_fixdate(value),
        Some(at) => rfc850(value, at),
        None => asctime(value),
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn imf_fixdate(value: &[u8]) -> Option<Timestamp> {
    let (name, rest) = value.split_at_checked(3)?;
    let [b',', b' ', d1, d2, b' ', m1, m2, m3, b' ', y1, y2, y3, y4, b' ', rest @ ..] = rest else {
        return None;
    };
    is_day(name, true).then_some(())?;
    let date = (number(&[*y1, *y2, *y3, *y4])?, month(&[*m1, *m2, *m3])?, number(&[*d1, *d2])?);
    moment(date, in_gmt(rest)?)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`, of which the comma is at `comma`.
fn rfc850(value: &[u8], comma: usize) -> Option<Timestamp> {
    let (name, rest) = value.split_at_checked(comma)?;
    let [b',', b' ', d1, d2, b'-', m1, m2, m3, b'-', y1, y2, b' ', rest @ ..] = rest else { return None };
    is_day(name, false).then_some(())?;
    let year = number(&[*y1, *y2])?;
    let year = if year < PIVOT { 2000 + year } else { 1900 + year };
    moment((year, month(&[*m1, *m2, *m3])?, number(&[*d1, *d2])?), in_gmt(rest)?)
}

/// `Sun Nov  6 08:49:37 1994`.
fn asctime(value: &[u8]) -> Option<Timestamp> {
    let (name, rest) = value.split_at_checked(3)?;
    let [b' ', m1, m2, m3, b' ', d1, d2, b' ', rest @ ..] = rest else { return None };
    is_day(name, true).then_some(())?;
    let day = if *d1 == b' ' { number(&[*d2])? } else { number(&[*d1, *d2])? };
    let (time, [b' ', year @ ..]) = rest.split_at_checked(8)? else { return None };
    if year.len() != 4 {
        return None;
    }
    moment((number(year)?, month(&[*m1, *m2, *m3])?, day), clock(time)?)
}

/// `08:49:37 GMT`: the seconds of the day.
fn in_gmt(value: &[u8]) -> Option<u64> {
    let (time, zone) = value.split_at_checked(8)?;
    if zone.eq_ignore_ascii_case(b" GMT") { clock(time) } else { None }
}

/// `08:49:37`. A leap second is the next one's first.
fn clock(time: &[u8]) -> Option<u64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = time else { return None };
    let (hour, minute, second) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?, number(&[*s1, *s2])?);
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

/// A date that exists, and a time of it.
fn moment((year, month, day): (u64, u64, u64), second_of_day: u64) -> Option<Timestamp> {
    if year < 1970 || day == 0 || day > days_in(year, month) {
        return None;
    }
    Some(Timestamp::from_seconds(days_since_1970(year, month, day) * 86_400 + second_of_day))
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Whole years, then whole months, then days. Years from 1970 to 9999.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let leaps_before = |year: u64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let years = (year - 1970) * 365 + leaps_before(year) - leaps_before(1970);
    let months: u64 = (1..month).map(|month| days_in(year, month)).sum();
    years + months + day - 1
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(sum * 10 + digit)
    })
}

/// 1 to 12.
fn month(name: &[u8]) -> Option<u64> {
    let at = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))?;
    Some(at as u64 + 1)
}

fn is_day(name: &[u8], short: bool) -> bool {
    DAYS.iter().any(|day| if short { &day[..3] } else { *day }.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(parse_date(text.as_bytes()), expected.map(Timestamp::from_seconds), "{text}");
    }

    #[test]
    fn the_three_forms_are_read() {
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)); // RFC 9110 §5.6.7
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777));
        check("Sun Nov  6 08:49:37 1994", Some(784_111_777));
        check("Sun Nov 16 08:49:37 1994", Some(784_975_777));
        check("Thu, 01 Jan 1970 00:00:00 GMT", Some(0));
        check("Tue, 29 Feb 2000 23:59:60 GMT", Some(951_868_800)); // a leap day, and a leap second
        check("Tue, 19 Jan 2038 03:14:08 GMT", Some(1 << 31));
        check("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799));
        check("Saturday, 01-Jan-00 00:00:00 GMT", Some(946_684_800));
    }

    #[test]
    fn names_are_read_in_any_case_and_the_weekday_decides_nothing() {
        check("SUN, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)); // "encouraged to be robust"
        check("sun, 06 nov 1994 08:49:37 gmt", Some(784_111_777));
        check("Sun, 06 NOV 1994 08:49:37 gMT", Some(784_111_777));
        check("Mon, 06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check("Monday, 06-Nov-94 08:49:37 GMT", Some(784_111_777));
        check("Mon Nov  6 08:49:37 1994", Some(784_111_777));
    }

    #[test]
    fn other_dates_are_not() {
        for text in [
            "",
            "0",
            "-1",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 ",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov  1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Tue, 29 Feb 1900 08:49:37 GMT",
            "Wed, 29 Feb 2023 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Foo, 06 Nov 1994 08:49:37 GMT",
            "Sunda, 06-Nov-94 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov  6 08:49:37 94",
            "1994-11-06T08:49:37Z",
        ] {
            check(text, None);
        }
        assert_eq!(parse_date(b"Sun, 06 Nov 1994 08:49:37 GMT\xff"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(seconds in 0_u64..253_402_300_800) {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
            prop_assert_eq!(parse_date(text.as_bytes()), Some(Timestamp::from_seconds(seconds)));
        }

        #[test]
        fn anything_else_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_date(&bytes);
        }
    }
}
