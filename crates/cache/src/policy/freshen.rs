//! Writing heads, and applying a 304 to one. RFC 9111 §3.1, §3.2, §4.3.4.
//!
//! A stored head is the bytes that will be sent. A 304 replaces the stored fields it repeats, except those that
//! describe the body that was not sent again; the merged list then goes through the same reading and writing as a
//! response from the origin.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use super::conditional::{Validators, strongly_equal, weakly_equal};
use super::directives::named_fields;
use super::fields::is_hop_by_hop;
use super::response::ResponseFacts;

use crate::{Field, Uncacheable};

/// The largest head that is stored or passed to followers; the codec's own limit is below it.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Dates beyond the year 9999 cannot be written.
const DATE_SECONDS_MAX: u64 = 253_402_300_799;

/// Writes the head that every recipient gets: end-to-end fields, `Date` added if the origin gave none.
///
/// Left out: what is the edge's to write or belongs to one hop, and the fields that `no-cache="…"` and `private="…"`
/// name where `shared`; `Set-Cookie` where `without_cookies`.
pub fn write_head(
    response: &ResponseFacts<'_>,
    shared: bool,
    without_cookies: bool,
) -> Result<Bytes, Uncacheable> {
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(itoa::Buffer::new().format(response.status).as_bytes());
    head.push(b' ');
    head.extend_from_slice(reason(response.status).as_bytes());
    head.extend_from_slice(b"\r\n");
    let named: Vec<&[u8]> = if shared && response.directives.has_field_names {
        named_fields(response.fields).collect()
    } else {
        Vec::new()
    };
    for &(name, value) in response.fields {
        let withheld = named.iter().any(|other| other.eq_ignore_ascii_case(name))
            || without_cookies && name.eq_ignore_ascii_case(b"set-cookie");
        if withheld || is_hop_by_hop(name) || is_for_the_edge(name) || splits(name) || splits(value) {
            continue;
        }
        write_field(&mut head, name, value);
    }
    if response.date.is_none() {
        let seconds = response.received.seconds().min(DATE_SECONDS_MAX);
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
        write_field(&mut head, b"Date", date.as_bytes());
    }
    if head.len() > HEAD_BYTES_MAX {
        return Err(Uncacheable::HeadTooLarge);
    }
    Ok(Bytes::from(head.into_boxed_slice()))
}

fn write_field(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    head.extend_from_slice(name);
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// What the edge writes for each reply.
fn is_for_the_edge(name: &[u8]) -> bool {
    [&b"age"[..], b"content-length", b"cache-status"].iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// Bytes that would end the line. The codec refuses them; a head that is sent a million times is worth a second look.
fn splits(bytes: &[u8]) -> bool {
    memchr::memchr3(b'\r', b'\n', 0, bytes).is_some()
}

/// The fields of a head written by [`write_head`].
pub(crate) fn read_head(head: &[u8]) -> Vec<Field<'_>> {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
        let line = &rest[..end];
        rest = &rest[end + 2..];
        // The status line has a space before any colon, so it is not taken for a field.
        if let Some(at) = memchr::memmem::find(line, b": ").filter(|&at| !line[..at].contains(&b' ')) {
            lines.push((&line[..at], &line[at + 2..]));
        }
    }
    lines
}

/// Whether a 304 speaks of the response that was asked about. RFC 9111 §4.3.4.
#[must_use]
pub fn is_about(stored: &Validators<'_>, not_modified: &ResponseFacts<'_>) -> bool {
    match (not_modified.etag, stored.etag) {
        (Some(new), Some(old)) if new.starts_with(b"W/") => weakly_equal(new, old),
        (Some(new), Some(old)) => {
            strongly_equal(new, old) || weakly_equal(new, old) && old.starts_with(b"W/")
        }
        (Some(_), None) => false,
        (None, _) => match (not_modified.last_modified, stored.last_modified) {
            (Some(new), Some(old)) => new == old,
            (Some(_), None) | (None, _) => true,
        },
    }
}

/// Merges a 304's fields into the stored ones. RFC 9111 §3.2.
pub(crate) fn merge<'a>(stored: &[Field<'a>], not_modified: &[Field<'a>]) -> Vec<Field<'a>> {
    let replaces = |name: &[u8]| !describes_the_body(name) && !is_hop_by_hop(name);
    let replaced = |name: &[u8]| {
        // Without a Date of its own the 304 was made when it arrived; the stored one would make it old.
        name.eq_ignore_ascii_case(b"date")
            || not_modified.iter().any(|(new, _)| replaces(new) && new.eq_ignore_ascii_case(name))
    };
    let kept = stored.iter().filter(|(name, _)| !replaced(name));
    let new = not_modified.iter().filter(|(name, _)| replaces(name));
    kept.chain(new).copied().collect()
}

/// Fields that speak of a body the 304 did not carry.
fn describes_the_body(name: &[u8]) -> bool {
    [&b"content-length"[..], b"content-encoding", b"content-range", b"content-md5", b"etag"]
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other))
}

/// The status line's phrase; empty for a status without one. RFC 9110 §15.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}
