//! `Cache-Control`, read strictly where it makes a response fresher and tolerantly where it makes it staler.
//!
//! RFC 9111 §5.2: names in any case, arguments as tokens or quoted strings, unknown directives ignored. §4.2.1: where a
//! directive occurs twice or contradicts another, the most restrictive wins; a freshness that cannot be read (`-1`,
//! `abc`, none) counts as zero, so the response is stale. §1.2.2: seconds beyond 2^31 are 2^31. A line whose quote never
//! closes may hide anything, so it forbids storing.

use super::{fields, targeted};
use crate::Field;

/// The longest time in seconds that is told apart. RFC 9111 §1.2.2.
pub const DELTA_SECONDS_MAX: u64 = 1 << 31;

/// What a response's `Cache-Control` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// Seconds; zero if unreadable. §5.2.2.1.
    pub max_age_s: Option<u64>,
    /// Seconds for shared caches, before `max-age`; zero if unreadable. §5.2.2.10.
    pub s_maxage_s: Option<u64>,
    /// RFC 5861 §3. Absent if unreadable.
    pub stale_while_revalidate_s: Option<u64>,
    /// RFC 5861 §4. Absent if unreadable.
    pub stale_if_error_s: Option<u64>,
    /// §5.2.2.5.
    pub no_store: bool,
    /// Unqualified `no-cache`: never used without validation. §5.2.2.4.
    pub no_cache: bool,
    /// Unqualified `private`. §5.2.2.7.
    pub private: bool,
    /// §5.2.2.9.
    pub public: bool,
    /// §5.2.2.2.
    pub must_revalidate: bool,
    /// §5.2.2.8.
    pub proxy_revalidate: bool,
    /// §5.2.2.3.
    pub must_understand: bool,
    /// RFC 8246: the body will not change while fresh.
    pub immutable: bool,
    /// `no-cache="…"` or `private="…"`: the named fields are not stored.
    pub has_field_names: bool,
    /// From a targeted field: `Cache-Control` and `Expires` are for others. RFC 9213.
    pub targeted: bool,
}

/// What a request's `Cache-Control` says, or `Pragma: no-cache` where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// Seconds; zero if unreadable. §5.2.1.1.
    pub max_age_s: Option<u64>,
    /// Seconds, `u64::MAX` without an argument. §5.2.1.2. Absent if unreadable.
    pub max_stale_s: Option<u64>,
    /// Seconds. §5.2.1.3. [`DELTA_SECONDS_MAX`] if unreadable.
    pub min_fresh_s: Option<u64>,
    /// §5.2.1.4.
    pub no_cache: bool,
    /// §5.2.1.5.
    pub no_store: bool,
    /// §5.2.1.7.
    pub only_if_cached: bool,
    /// §5.2.1.6.
    pub no_transform: bool,
}

impl ResponseDirectives {
    /// Reads all `Cache-Control` lines of a response, or the targeted field that replaces them.
    #[must_use]
    pub fn read(response_fields: &[Field<'_>]) -> Self {
        if let Some(targeted) = targeted::read(response_fields) {
            return targeted;
        }
        let mut directives = Self::default();
        fields::lines(response_fields, b"cache-control").for_each(|line| directives.read_line(line));
        directives
    }

    fn read_line(&mut self, line: &[u8]) {
        if !fields::is_closed(line) {
            // Both: beside `must-understand`, `no-store` alone would be ignored.
            (self.no_store, self.private) = (true, true);
        }
        for (name, argument) in directives(line) {
            let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
            match name.len() {
                6 if is(b"public") => self.public = true,
                7 if is(b"max-age") => restrict(&mut self.max_age_s, argument),
                7 if is(b"private") => self.read_qualified(argument, |all| all.private = true),
                8 if is(b"no-store") => self.no_store = true,
                8 if is(b"no-cache") => self.read_qualified(argument, |all| all.no_cache = true),
                8 if is(b"s-maxage") => restrict(&mut self.s_maxage_s, argument),
                9 if is(b"immutable") => self.immutable = true,
                14 if is(b"stale-if-error") => restrict_if_read(&mut self.stale_if_error_s, argument),
                15 if is(b"must-revalidate") => self.must_revalidate = true,
                15 if is(b"must-understand") => self.must_understand = true,
                16 if is(b"proxy-revalidate") => self.proxy_revalidate = true,
                22 if is(b"stale-while-revalidate") => {
                    restrict_if_read(&mut self.stale_while_revalidate_s, argument);
                }
                _ => {}
            }
        }
    }

    /// A `no-cache` or `private` that names fields is about those fields; without names it is about the response.
    fn read_qualified(&mut self, argument: Option<&[u8]>, unqualified: impl FnOnce(&mut Self)) {
        match argument.map(unquote) {
            Some(names) if fields::members(names).next().is_some() => self.has_field_names = true,
            _ => unqualified(self),
        }
    }
}

impl RequestDirectives {
    /// Reads one `Cache-Control` line of a request.
    pub(crate) fn read_line(&mut self, line: &[u8]) {
        self.no_store |= !fields::is_closed(line);
        for (name, argument) in directives(line) {
            let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
            match name.len() {
                7 if is(b"max-age") => restrict(&mut self.max_age_s, argument),
                8 if is(b"no-cache") => self.no_cache = true,
                8 if is(b"no-store") => self.no_store = true,
                9 if is(b"min-fresh") => {
                    let seconds = argument.and_then(delta_seconds).unwrap_or(DELTA_SECONDS_MAX);
                    self.min_fresh_s = Some(self.min_fresh_s.map_or(seconds, |other| other.max(seconds)));
                }
                9 if is(b"max-stale") => match argument {
                    None => self.max_stale_s = Some(self.max_stale_s.unwrap_or(u64::MAX)),
                    Some(_) => restrict_if_read(&mut self.max_stale_s, argument),
                },
                12 if is(b"no-transform") => self.no_transform = true,
                14 if is(b"only-if-cached") => self.only_if_cached = true,
                _ => {}
            }
        }
    }
}

/// The field names that `no-cache="…"` and `private="…"` list.
pub fn named_fields<'a>(response_fields: &'a [Field<'a>]) -> impl Iterator<Item = &'a [u8]> {
    fields::lines(response_fields, b"cache-control")
        .flat_map(directives)
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"no-cache") || name.eq_ignore_ascii_case(b"private"))
        .filter_map(|(_, argument)| argument)
        .flat_map(|argument| fields::members(unquote(argument)))
}

/// Splits a line into directives: the name, and the argument as it stands (quotes included) if there is a `=`. Blanks
/// around the `=`, which the grammar doesn't have, stay with the argument, so that no number is read from it.
fn directives(line: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    fields::members(line).map(|member| match memchr::memchr(b'=', member) {
        Some(at) => {
            let name = member[..at].trim_ascii_end();
            let from = if name.len() == at { at + 1 } else { name.len() };
            (name, member.get(from..))
        }
        None => (member, None),
    })
}

/// Takes the shorter of two freshness lifetimes; unreadable is zero.
fn restrict(lifetime_s: &mut Option<u64>, argument: Option<&[u8]>) {
    let seconds = argument.and_then(delta_seconds).unwrap_or(0);
    *lifetime_s = Some(lifetime_s.map_or(seconds, |other| other.min(seconds)));
}

/// Takes the shorter of two permissions; an unreadable one permits nothing more and takes nothing away.
fn restrict_if_read(permitted_s: &mut Option<u64>, argument: Option<&[u8]>) {
    if argument.and_then(delta_seconds).is_some() {
        restrict(permitted_s, argument);
    }
}

/// Digits, perhaps quoted, at most [`DELTA_SECONDS_MAX`].
#[must_use]
pub fn delta_seconds(argument: &[u8]) -> Option<u64> {
    let digits = unquote(argument);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |seconds: u64, digit: &u8| {
        seconds.saturating_mul(10).saturating_add(u64::from(digit - b'0')).min(DELTA_SECONDS_MAX)
    };
    Some(digits.iter().fold(0, add))
}

/// The inside of a quoted string. Escapes are left: no argument read here can contain one and be valid.
fn unquote(argument: &[u8]) -> &[u8] {
    argument.strip_prefix(b"\"").map_or(argument, |inner| inner.strip_suffix(b"\"").unwrap_or(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(line: &str) -> ResponseDirectives {
        ResponseDirectives::read(&[(b"Cache-Control", line.as_bytes())])
    }

    fn request(line: &str) -> RequestDirectives {
        let mut directives = RequestDirectives::default();
        directives.read_line(line.as_bytes());
        directives
    }

    #[test]
    fn max_age_is_read_as_the_rfc_says() {
        let check = |line: &str, expected| assert_eq!(response(line).max_age_s, expected, "{line}");
        check("max-age=60", Some(60)); // §5.2.2.1
        check("Max-Age=60", Some(60)); // §5.2: case-insensitive
        check("max-age=\"60\"", Some(60)); // §5.2: quoted form is to be accepted
        check("max-age=60, public", Some(60));
        check("foo=\"max-age=10\", max-age=60", Some(60));
        check("max-age=0060", Some(60));
        check("max-age=60, max-age=30", Some(30)); // §4.2.1: the most restrictive
        check("max-age=30, max-age=60", Some(30));
        check("max-age=2147483648", Some(DELTA_SECONDS_MAX)); // §1.2.2
        check("max-age=99999999999999999999999", Some(DELTA_SECONDS_MAX));
        check("max-age=-1", Some(0)); // §4.2.1: invalid is stale
        check("max-age=abc", Some(0));
        check("max-age=1.5", Some(0));
        check("max-age=60s", Some(0));
        check("max-age=", Some(0));
        check("max-age", Some(0));
        check("max-age='60'", Some(0));
        check("max-age =60", Some(0)); // §5.2: no blanks in the grammar
        check("max-age= 60", Some(0));
        check("max-age=60, max-age=x", Some(0));
        check("xmax-age=60", None);
        check("max-agee=60", None);
        check("", None);
        check(", ,", None);
    }

    #[test]
    fn flags_are_read_in_any_case_and_company() {
        assert!(response("NO-STORE").no_store);
        assert!(response("a=b,no-store ,x").no_store);
        assert!(response("no-store=1").no_store, "an argument does not undo it");
        assert!(response("no-store = 1").no_store && response("private = x").has_field_names);
        assert!(!response("x=\"no-store\"").no_store);
        assert!(response("private").private);
        assert!(response("no-cache").no_cache);
        assert!(response("must-revalidate, proxy-revalidate").must_revalidate);
        assert!(response("must-revalidate, proxy-revalidate").proxy_revalidate);
        assert!(response("must-understand, no-store").must_understand);
        assert!(response("immutable").immutable);
        assert!(response("public").public);
    }

    #[test]
    fn named_fields_make_no_cache_and_private_about_those_fields() {
        let qualified = response("no-cache=\"Set-Cookie\", private=\"x-user, x-cart\"");
        assert!(!qualified.no_cache && !qualified.private && qualified.has_field_names);
        let fields: [Field<'_>; 1] =
            [(b"cache-control", b"no-cache=\"Set-Cookie\", private=\"x-user, x-cart\"")];
        assert_eq!(named_fields(&fields).collect::<Vec<_>>(), [&b"Set-Cookie"[..], b"x-user", b"x-cart"]);
        assert!(response("private=\"\"").private, "no name in it");
        assert!(response("no-cache=").no_cache);
        assert!(response("no-cache=\"x\", no-cache").no_cache, "the most restrictive");
    }

    #[test]
    fn stale_permissions_need_a_number() {
        assert_eq!(response("stale-while-revalidate=30").stale_while_revalidate_s, Some(30));
        assert_eq!(response("stale-while-revalidate").stale_while_revalidate_s, None);
        assert_eq!(response("stale-if-error=x").stale_if_error_s, None);
        assert_eq!(response("stale-if-error=9, stale-if-error=3").stale_if_error_s, Some(3));
    }

    #[test]
    fn a_quote_that_never_closes_forbids_storing() {
        for line in [r#"max-age=60, x="a, private"#, r#"x="a, no-store"#, r#"x="a\", private"#, "\""] {
            assert!(response(line).no_store && response(line).private, "{line}");
            assert!(request(line).no_store, "{line}");
        }
        for line in [r#"x="a, private""#, r#"x="a\", private""#, r#"x="a\\", max-age=60"#] {
            assert!(!response(line).no_store && !response(line).private, "{line}");
            assert!(!request(line).no_store, "{line}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        let fields: [Field<'_>; 2] =
            [(b"Cache-Control", b"max-age=60"), (b"cache-control", b"s-maxage=10, no-cache")];
        let directives = ResponseDirectives::read(&fields);
        assert_eq!((directives.max_age_s, directives.s_maxage_s), (Some(60), Some(10)));
        assert!(directives.no_cache);
    }

    #[test]
    fn request_directives_are_read() {
        assert_eq!(request("max-age=0").max_age_s, Some(0));
        assert_eq!(request("max-stale").max_stale_s, Some(u64::MAX));
        assert_eq!(request("max-stale=5").max_stale_s, Some(5));
        assert_eq!(request("max-stale=x").max_stale_s, None);
        assert_eq!(request("max-stale, max-stale=5").max_stale_s, Some(5));
        assert_eq!(request("min-fresh=5").min_fresh_s, Some(5));
        assert_eq!(request("min-fresh=x").min_fresh_s, Some(DELTA_SECONDS_MAX));
        assert!(request("no-cache").no_cache);
        assert!(request("no-store").no_store);
        assert!(request("only-if-cached, max-stale").only_if_cached);
        assert_eq!(request("foo, bar=1"), RequestDirectives::default());
    }
}
