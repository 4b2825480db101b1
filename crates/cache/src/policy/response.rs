//! A response as the cache sees it: when it was made, how long it says it is fresh, what it can be asked for by.

use super::conditional::{Validators, is_etag};
use super::date::parse_date;
use super::directives::{ResponseDirectives, delta_seconds};
use super::fields;
use super::freshness::StatusKind;
use super::time::Timestamp;
use crate::{Field, Floor};

/// What of a response matters to the cache, read in one pass.
#[derive(Clone, Copy, Debug)]
pub struct ResponseFacts<'a> {
    /// Its status.
    pub status: u16,
    /// All fields.
    pub fields: &'a [Field<'a>],
    /// `Cache-Control`.
    pub directives: ResponseDirectives,
    /// The first `Age` in seconds; `None` if there is none that can be read. RFC 9111 §5.1.
    pub age_s: Option<u64>,
    /// `Date`, if it is one.
    pub date: Option<Timestamp>,
    /// `Expires`.
    pub expires: Expires,
    /// `ETag`, if well formed.
    pub etag: Option<&'a [u8]>,
    /// `Last-Modified`, if it is a date.
    pub last_modified: Option<&'a [u8]>,
    /// It sets a cookie.
    pub has_set_cookie: bool,
    /// When the request for it was sent.
    pub requested: Timestamp,
    /// When its head arrived.
    pub received: Timestamp,
}

/// What `Expires` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expires {
    /// Nothing.
    #[default]
    Absent,
    /// What is not a date, or several that differ: already expired. RFC 9111 §5.3, §4.2.1.
    Invalid,
    /// That moment.
    At(Timestamp),
}

/// What is remembered of a stored response, to judge it later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFacts {
    /// Its `Date`, else when it was received.
    pub date: Timestamp,
    /// When it was received, or last validated.
    pub received: Timestamp,
    /// Its age at that moment, in milliseconds: `corrected_initial_age` of RFC 9111 §4.2.3.
    pub initial_age_ms: u64,
    /// Its explicit freshness lifetime in milliseconds; `None` if the origin said nothing.
    pub lifetime_ms: Option<u64>,
    /// A guessed one, where that is allowed. RFC 9111 §4.2.2.
    pub heuristic_ms: Option<u64>,
    /// What its `Cache-Control` said.
    pub directives: ResponseDirectives,
    /// RFC 9111 alone allowed storing it.
    pub fits_respect: bool,
    /// Which of an operator's lifetimes covers its status.
    pub kind: StatusKind,
    /// It answered a request with `Authorization` or `Cookie` that the key does not hold.
    pub personal: bool,
    /// It still sets a cookie, explicitly for all.
    pub sets_cookie: bool,
    /// When it was asked for, or whether it still holds.
    pub asked: Timestamp,
    /// What its request was to see at least.
    pub floor: Floor,
}

impl StoredFacts {
    /// Whether it shows what a client has to see.
    #[must_use]
    #[inline]
    pub fn shows(&self, floor: &Floor) -> bool {
        floor.is_met_by(self.asked, &self.floor)
    }

    /// Its age in milliseconds: `current_age` of RFC 9111 §4.2.3. A clock that stepped back adds nothing.
    #[must_use]
    pub fn age_ms(&self, now: Timestamp) -> u64 {
        self.initial_age_ms.saturating_add(now.since_ms(self.received))
    }
}

impl<'a> ResponseFacts<'a> {
    /// Reads a response's fields. Does not allocate.
    #[must_use]
    pub fn read(status: u16, fields: &'a [Field<'a>], requested: Timestamp, received: Timestamp) -> Self {
        let mut facts = Self {
            status,
            fields,
            directives: ResponseDirectives::read(fields),
            age_s: None,
            date: None,
            expires: Expires::Absent,
            etag: None,
            last_modified: None,
            has_set_cookie: false,
            requested,
            received,
        };
        let mut age_seen = false;
        for &(name, value) in fields {
            let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
            match name.len() {
                3 if is(b"age") && !std::mem::replace(&mut age_seen, true) => facts.age_s = first_age(value),
                4 if is(b"date") => facts.date = facts.date.or_else(|| parse_date(value)),
                4 if is(b"etag") => facts.etag = facts.etag.or(Some(value)).filter(|etag| is_etag(etag)),
                7 if is(b"expires") => facts.expires = facts.expires.and(value),
                10 if is(b"set-cookie") => facts.has_set_cookie = true,
                13 if is(b"last-modified") && parse_date(value).is_some() => {
                    facts.last_modified = facts.last_modified.or(Some(value));
                }
                _ => {}
            }
        }
        facts
    }

    /// When it was made: `Date`, else when it arrived (RFC 9110 §6.6.1).
    #[must_use]
    pub fn date_or_received(&self) -> Timestamp {
        self.date.unwrap_or(self.received)
    }

    /// What it can be asked for by.
    #[must_use]
    pub fn validators(&self) -> Validators<'a> {
        Validators { etag: self.etag, last_modified: self.last_modified, date: self.date_or_received() }
    }

    /// The explicit freshness lifetime for a shared cache, in milliseconds. RFC 9111 §4.2.1.
    ///
    /// A heuristic lifetime (§4.2.2) may be chosen where this is `None`.
    #[must_use]
    pub fn lifetime_ms(&self) -> Option<u64> {
        if let Some(seconds) = self.directives.s_maxage_s.or(self.directives.max_age_s) {
            return Some(seconds.saturating_mul(1000));
        }
        match self.expires {
            _ if self.directives.targeted => None,
            Expires::Absent => None,
            Expires::Invalid => Some(0),
            Expires::At(expires) => Some(expires.since_ms(self.date_or_received())),
        }
    }

    /// Its age when it arrived, in milliseconds: `corrected_initial_age`. RFC 9111 §4.2.3.
    #[must_use]
    pub fn initial_age_ms(&self) -> u64 {
        let apparent = self.received.since_ms(self.date_or_received());
        let delay = self.received.since_ms(self.requested);
        let corrected = self.age_s.unwrap_or(0).saturating_mul(1000).saturating_add(delay);
        apparent_whole_seconds(apparent).max(corrected)
    }
}

/// `Date` has whole seconds, so a difference below one says nothing about age.
const fn apparent_whole_seconds(milliseconds: u64) -> u64 {
    if milliseconds < 1000 { 0 } else { milliseconds }
}

/// The first member of an `Age`. RFC 9111 §5.1: the first of several, and none if it is invalid.
fn first_age(value: &[u8]) -> Option<u64> {
    let first = fields::members(value).next()?;
    if first.starts_with(b"\"") { None } else { delta_seconds(first) }
}

impl Expires {
    /// Reads one more line.
    fn and(self, value: &[u8]) -> Self {
        let read = parse_date(value).map_or(Self::Invalid, Self::At);
        if self == Self::Absent || self == read { read } else { Self::Invalid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT
    const DATE: Field<'_> = (b"Date", b"Sun, 06 Nov 1994 08:49:37 GMT");

    fn read<'a>(fields: &'a [Field<'a>]) -> ResponseFacts<'a> {
        ResponseFacts::read(200, fields, Timestamp::from_seconds(NOW_S), Timestamp::from_seconds(NOW_S))
    }

    #[test]
    fn lifetime_prefers_s_maxage_then_max_age_then_expires() {
        let check = |cc: &str, expires: &str, seconds: Option<u64>| {
            let fields: [Field<'_>; 3] =
                [DATE, (b"Cache-Control", cc.as_bytes()), (b"Expires", expires.as_bytes())];
            let fields = if expires.is_empty() { &fields[..2] } else { &fields[..] };
            assert_eq!(read(fields).lifetime_ms(), seconds.map(|s| s * 1000), "{cc} | {expires}");
        };
        let later = "Sun, 06 Nov 1994 08:50:37 GMT";
        check("s-maxage=5, max-age=10", later, Some(5)); // §4.2.1
        check("max-age=10", later, Some(10));
        check("max-age=x", later, Some(0)); // unreadable max-age is stale, Expires does not help
        check("", later, Some(60));
        check("public", later, Some(60));
        check("", "Sun, 06 Nov 1994 08:48:37 GMT", Some(0)); // §5.3
        check("", "0", Some(0));
        check("", "-1", Some(0));
        check("", "tomorrow", Some(0));
        check("", "", None);
    }

    #[test]
    fn expires_counts_from_date_not_from_our_clock() {
        let fields: [Field<'_>; 2] =
            [(b"Date", b"Sun, 06 Nov 1994 07:49:37 GMT"), (b"Expires", b"Sun, 06 Nov 1994 08:50:37 GMT")];
        assert_eq!(read(&fields).lifetime_ms(), Some(3_660_000));
        assert_eq!(read(&fields).initial_age_ms(), 3_600_000);
        assert_eq!(read(&fields[1..]).lifetime_ms(), Some(60_000)); // no Date: when received
    }

    #[test]
    fn several_expires_that_differ_are_stale() {
        let fields: [Field<'_>; 3] = [
            DATE,
            (b"Expires", b"Sun, 06 Nov 1994 08:50:37 GMT"),
            (b"Expires", b"Sun, 06 Nov 1994 08:51:37 GMT"),
        ];
        assert_eq!(read(&fields).lifetime_ms(), Some(0));
        assert_eq!(read(&[fields[0], fields[1], fields[1]]).lifetime_ms(), Some(60_000));
    }

    #[test]
    fn age_is_read_as_the_rfc_says() {
        let check = |age: &str, expected: Option<u64>| {
            assert_eq!(read(&[(b"Age", age.as_bytes())]).age_s, expected, "{age}");
        };
        check("60", Some(60));
        check("0", Some(0));
        check("60, 90", Some(60)); // §5.1: the first
        check("99999999999999", Some(1 << 31)); // §1.2.2
        check("-1", None);
        check("abc", None);
        check("1.5", None);
        check("", None);
        check("\"60\"", None);
        assert_eq!(read(&[(b"Age", b"7"), (b"Age", b"9")]).age_s, Some(7));
        assert_eq!(read(&[(b"Age", b"x"), (b"Age", b"9")]).age_s, None);
    }

    #[test]
    fn initial_age_is_the_larger_of_apparent_and_corrected() {
        let check = |date_s: u64, age: &str, delay_s: u64, expected_s: u64| {
            let date =
                httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(date_s));
            let fields: [Field<'_>; 2] = [(b"Date", date.as_bytes()), (b"Age", age.as_bytes())];
            let facts = ResponseFacts::read(
                200,
                &fields,
                Timestamp::from_seconds(NOW_S - delay_s),
                Timestamp::from_seconds(NOW_S),
            );
            assert_eq!(facts.initial_age_ms(), expected_s * 1000, "{date_s} {age} {delay_s}");
        };
        check(NOW_S, "0", 0, 0);
        check(NOW_S - 30, "0", 0, 30); // apparent age
        check(NOW_S - 30, "40", 0, 40); // Age beats it
        check(NOW_S, "40", 5, 45); // §4.2.3: plus response delay
        check(NOW_S + 3600, "0", 0, 0); // origin's clock ahead: never negative
        check(NOW_S, "99999999999999", 0, 1 << 31);
    }

    #[test]
    fn validators_are_taken_only_if_well_formed() {
        let etag = |value: &[u8]| read(&[(b"ETag", value)]).etag.is_some();
        assert!(etag(b"\"a\"") && etag(b"W/\"a\"") && etag(b"\"\""));
        assert!(!etag(b"a") && !etag(b"\"a") && !etag(b"w/\"a\"") && !etag(b"\"a\"b\"") && !etag(b""));
        assert!(read(&[(b"Last-Modified", b"yesterday")]).last_modified.is_none());
    }
}
