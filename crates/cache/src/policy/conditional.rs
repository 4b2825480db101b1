//! Conditional requests, both ways: answering a client's from what we have, and asking the origin with our own.
//!
//! A client that revalidates gets a 304 from a stored or freshly fetched response if its validators match. What we ask
//! the origin with are the *stored* response's validators; the client's own conditional stays with the client and is
//! evaluated on what comes back, so that a 304 to us is not mistaken for a 304 to the client. RFC 9110 §13, RFC 9111 §4.3.

use super::date::parse_date;
use super::fields;
use super::request::RequestFacts;
use super::time::Timestamp;

/// A response's validators. RFC 9110 §8.8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validators<'a> {
    /// `ETag` as it stands, `W/` and quotes included; only if well formed.
    pub etag: Option<&'a [u8]>,
    /// `Last-Modified` as it stands; only if it is a date.
    pub last_modified: Option<&'a [u8]>,
    /// When the response was made: its `Date`, else when it was received.
    pub date: Timestamp,
}

/// Whether a well-formed entity tag. RFC 9110 §8.8.3.
#[must_use]
pub fn is_etag(value: &[u8]) -> bool {
    let opaque = value.strip_prefix(b"W/").unwrap_or(value);
    opaque.len() >= 2
        && opaque.starts_with(b"\"")
        && opaque.ends_with(b"\"")
        && opaque[1..opaque.len() - 1]
            .iter()
            .all(|&byte| byte == 0x21 || (0x23..=0x7e).contains(&byte) || byte >= 0x80)
}

/// Weak comparison: the opaque parts agree. RFC 9110 §8.8.3.2.
#[must_use]
pub fn weakly_equal(a: &[u8], b: &[u8]) -> bool {
    a.strip_prefix(b"W/").unwrap_or(a) == b.strip_prefix(b"W/").unwrap_or(b)
}

/// Strong comparison: neither is weak, and they agree.
#[must_use]
pub fn strongly_equal(a: &[u8], b: &[u8]) -> bool {
    !a.starts_with(b"W/") && a == b
}

/// Whether two responses are of one representation, byte for byte: the same strong tag, or without tags the same strong
/// date. RFC 9110 §8.8.2.2, §8.8.3.2.
#[must_use]
pub fn strong_validator_agrees(a: &Validators<'_>, b: &Validators<'_>) -> bool {
    match (a.etag, b.etag) {
        (Some(a), Some(b)) => strongly_equal(a, b),
        (None, None) => a.strong_date().is_some() && a.strong_date() == b.strong_date(),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

impl Validators<'_> {
    /// `Last-Modified`, if the response was made long enough after it that nothing can have changed in that second.
    #[must_use]
    pub fn strong_date(&self) -> Option<Timestamp> {
        let modified = self.last_modified.and_then(parse_date)?;
        (self.date.seconds() > modified.seconds()).then_some(modified)
    }
}

/// Whether the client already has this response, so that a 304 without body is its answer.
///
/// Only for 200s: for another status the client's conditional is ignored (RFC 9110 §13.2.1).
/// `If-Modified-Since` is ignored when `If-None-Match` is present (§13.1.3).
#[must_use]
pub fn not_modified(facts: &RequestFacts<'_>, status: u16, validators: &Validators<'_>) -> bool {
    if status != 200 {
        return false;
    }
    if facts.has_if_none_match {
        return none_match_names(facts, validators.etag);
    }
    let Some(since) = facts.if_modified_since.and_then(parse_date) else { return false };
    // Without Last-Modified, the response's date bounds when it can have changed. RFC 9111 §4.3.2.
    let modified = validators.last_modified.and_then(parse_date).unwrap_or(validators.date);
    modified.seconds() <= since.seconds()
}

/// Whether `If-None-Match` lists the tag, or is `*`.
fn none_match_names(facts: &RequestFacts<'_>, etag: Option<&[u8]>) -> bool {
    fields::lines(facts.fields, b"if-none-match").flat_map(fields::members).any(|member| {
        member == b"*" || is_etag(member) && etag.is_some_and(|etag| weakly_equal(member, etag))
    })
}

/// Appends the fields that ask the origin whether a stored response still holds: `if-none-match`, `if-modified-since`.
///
/// Says whether there were any; without, the request is an ordinary one.
pub fn write_conditional(validators: &Validators<'_>, out: &mut Vec<u8>) -> bool {
    for (name, value) in
        [(&b"if-none-match: "[..], validators.etag), (b"if-modified-since: ", validators.last_modified)]
    {
        let Some(value) = value else { continue };
        out.extend_from_slice(name);
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    validators.etag.is_some() || validators.last_modified.is_some()
}

/// Appends an `if-none-match` of these tags, if there are any.
pub fn write_none_match<'t>(etags: impl Iterator<Item = &'t [u8]>, out: &mut Vec<u8>) {
    let before = out.len();
    for etag in etags {
        out.extend_from_slice(if out.len() == before { b"if-none-match: " } else { b", " });
        out.extend_from_slice(etag);
    }
    if out.len() > before {
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Field;

    const MODIFIED: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &[u8] = b"Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &[u8] = b"Sun, 06 Nov 1994 08:49:38 GMT";

    fn asked(fields: &[Field<'_>], status: u16, etag: Option<&[u8]>, last_modified: Option<&[u8]>) -> bool {
        let date = Timestamp::from_seconds(784_111_777);
        not_modified(&RequestFacts::read("GET", fields), status, &Validators { etag, last_modified, date })
    }

    #[test]
    fn if_none_match_compares_weakly_against_a_list() {
        let check = |line: &str, etag: &str, expected: bool| {
            let fields: [Field<'_>; 1] = [(b"If-None-Match", line.as_bytes())];
            assert_eq!(asked(&fields, 200, Some(etag.as_bytes()), None), expected, "{line} {etag}");
        };
        check("\"a\"", "\"a\"", true); // RFC 9110 §13.1.2
        check("W/\"a\"", "\"a\"", true); // §8.8.3.2
        check("\"a\"", "W/\"a\"", true);
        check("\"b\", \"a\"", "\"a\"", true);
        check("\"b\",W/\"a\" ,", "\"a\"", true);
        check("\"a,b\"", "\"a,b\"", true); // a comma within the tag
        check("\"b\"", "\"a\"", false);
        check("\"A\"", "\"a\"", false);
        check("a", "\"a\"", false);
        check("*", "\"a\"", true);
        check("\"*\"", "\"a\"", false);
        check("", "\"a\"", false);
        let both: [Field<'_>; 2] = [(b"If-None-Match", b"\"b\""), (b"if-none-match", b"\"a\"")];
        assert!(asked(&both, 200, Some(b"\"a\""), None));
        assert!(asked(&[(b"If-None-Match", b"*")], 200, None, None));
        assert!(!asked(&[(b"If-None-Match", b"\"a\"")], 200, None, None));
    }

    #[test]
    fn if_modified_since_compares_seconds() {
        let since = |date: &[u8], modified| asked(&[(b"If-Modified-Since", date)], 200, None, modified);
        assert!(since(MODIFIED, Some(MODIFIED))); // RFC 9110 §13.1.3
        assert!(since(AFTER, Some(MODIFIED)));
        assert!(!since(BEFORE, Some(MODIFIED)));
        assert!(!since(b"yesterday", Some(MODIFIED)));
        assert!(since(MODIFIED, None), "without Last-Modified, Date stands in"); // RFC 9111 §4.3.2
        assert!(!since(BEFORE, None));
    }

    #[test]
    fn if_modified_since_is_ignored_beside_if_none_match() {
        let fields: [Field<'_>; 2] = [(b"If-None-Match", b"\"b\""), (b"If-Modified-Since", AFTER)];
        assert!(!asked(&fields, 200, Some(b"\"a\""), Some(MODIFIED))); // RFC 9110 §13.1.3
        assert!(!asked(&fields, 200, None, Some(MODIFIED)));
    }

    #[test]
    fn other_statuses_are_sent_whole() {
        assert!(!asked(&[(b"If-None-Match", b"\"a\"")], 404, Some(b"\"a\""), None)); // §13.2.1
        assert!(!asked(&[], 200, Some(b"\"a\""), Some(MODIFIED)));
    }

    #[test]
    fn our_own_condition_carries_what_the_origin_gave() {
        let written = |etag, last_modified| {
            let mut out = Vec::new();
            let any = write_conditional(&Validators { etag, last_modified, date: Timestamp(0) }, &mut out);
            (any, String::from_utf8(out).unwrap())
        };
        assert_eq!(written(None, None), (false, String::new()));
        assert_eq!(written(Some(b"W/\"a\""), None), (true, "if-none-match: W/\"a\"\r\n".into()));
        assert_eq!(
            written(Some(b"\"a\""), Some(MODIFIED)),
            (true, "if-none-match: \"a\"\r\nif-modified-since: Sun, 06 Nov 1994 08:49:37 GMT\r\n".into())
        );
    }
}
