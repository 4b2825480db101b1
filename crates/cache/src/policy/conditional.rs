//! Conditional requests, both ways: answering a client's from what we have, and asking the origin with our own.
//!
//! A client that revalidates gets a 304 from a stored or freshly fetched response if its validators match. What we ask
//! the origin with are the *stored* response's validators; the client's own conditional stays with the client and is
//! evaluated on what comes back, so that a 304 to us is not mistaken for a 304 to the client. RFC 9110 §13, RFC 9111 §4.3.

use super::fields;
use super::request::RequestFacts;
use super::time::{Timestamp, parse_date};

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
