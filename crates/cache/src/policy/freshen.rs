//! Writing heads, and applying a 304 to one. RFC 9111 §3.1, §3.2, §4.3.4.
//!
//! A stored head is the bytes that will be sent. A 304 replaces the stored fields it repeats, except those that
//! describe the body that was not sent again; the merged list then goes through the same reading and writing as a
//! response from the origin.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use super::conditional::{Validators, strongly_equal, weakly_equal};
use super::directives::named_fields;
use super::fields::is_hop_by_hop;
use super::response::ResponseFacts;

use crate::{Entry, Field, Uncacheable};

/// The largest head that is stored or passed to followers; the codec's own limit is below it.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Dates beyond the year 9999 cannot be written.
const DATE_SECONDS_MAX: u64 = 253_402_300_799;

/// Writes the fields that every recipient gets: end-to-end ones, `Date` added if the origin gave none. The status line is
/// the edge's to write.
///
/// Left out: what is the edge's to write or belongs to one hop, and the fields that `no-cache="…"` and `private="…"`
/// name where `shared`; `Set-Cookie` where `without_cookies`.
pub fn write_head(
    response: &ResponseFacts<'_>,
    shared: bool,
    without_cookies: bool,
) -> Result<Bytes, Uncacheable> {
    let mut head = Vec::with_capacity(512);
    let named: Vec<&[u8]> = if shared && response.directives.has_field_names {
        named_fields(response.fields).collect()
    } else {
        Vec::new()
    };
    for &(name, value) in response.fields {
        let withheld = named.iter().any(|other| other.eq_ignore_ascii_case(name))
            || without_cookies && name.eq_ignore_ascii_case(b"set-cookie");
        // Which part it is of, a 206's receiver learns from us; on another status the field means nothing, and stays.
        let of_part = response.status == 206 && name.eq_ignore_ascii_case(b"content-range");
        if withheld
            || of_part
            || is_hop_by_hop(name)
            || is_for_the_edge(name)
            || splits(name)
            || splits(value)
        {
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

/// Writes an interim response's fields for all who wait. Cookies are nobody's before there is an answer.
#[must_use]
pub fn write_interim(fields: &[Field<'_>]) -> Option<Bytes> {
    let mut head = Vec::new();
    for &(name, value) in fields {
        let withheld =
            is_hop_by_hop(name) || is_for_the_edge(name) || name.eq_ignore_ascii_case(b"set-cookie");
        if !withheld && !splits(name) && !splits(value) {
            write_field(&mut head, name, value);
        }
    }
    (head.len() <= INTERIM_BYTES_MAX).then(|| head.into())
}

/// The largest interim head that is passed on to followers.
const INTERIM_BYTES_MAX: usize = 16 << 10;

fn write_field(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    head.extend_from_slice(name);
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// What the edge writes for each reply; and `Warning`, which says of a copy what no longer holds of this one (RFC 9111
/// §5.5 made it obsolete).
fn is_for_the_edge(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 4] = [b"age", b"content-length", b"cache-status", b"warning"];
    NAMES.iter().any(|other| name.eq_ignore_ascii_case(other))
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
        if let Some(at) = memchr::memmem::find(line, b": ") {
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

/// The stored variant that a 304 names by its tag, strongly: it is to answer another request than its own. RFC 9111 §4.3.4.
pub(crate) fn named_by(variants: &[Arc<Entry>], not_modified: &ResponseFacts<'_>) -> Option<Arc<Entry>> {
    let etag = not_modified.etag?;
    let named = |entry: &&Arc<Entry>| entry.etag().is_some_and(|old| strongly_equal(old, etag));
    variants.iter().find(named).cloned()
}

/// Merges a 304's fields into the stored ones. RFC 9111 §3.2.
pub(crate) fn merge<'a>(stored: &[Field<'a>], not_modified: &[Field<'a>]) -> Vec<Field<'a>> {
    let replaces = |name: &[u8]| !describes_the_body(name) && !is_hop_by_hop(name);
    let replaced = |name: &[u8]| {
        // Without a Date of its own the 304 was made when it arrived; the stored one would make it old.
        // Nor did it set a cookie again that it doesn't repeat: that one was somebody else's.
        name.eq_ignore_ascii_case(b"date")
            || name.eq_ignore_ascii_case(b"set-cookie")
            || not_modified.iter().any(|(new, _)| replaces(new) && new.eq_ignore_ascii_case(name))
    };
    let kept = stored.iter().filter(|(name, _)| !replaced(name));
    let new = not_modified.iter().filter(|(name, _)| replaces(name));
    kept.chain(new).copied().collect()
}

/// The head of a response whose body was joined from two: the newer one's fields before the older one's. Both as
/// [`write_head`] wrote them. RFC 9111 §3.4.
pub(crate) fn merge_heads(old: &[u8], new: &[u8]) -> Bytes {
    let (old, new) = (read_head(old), read_head(new));
    let mut head = Vec::with_capacity(512);
    for (name, value) in merge(&old, &new) {
        write_field(&mut head, name, value);
    }
    if !new.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"date")) {
        old.iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(b"date"))
            .for_each(|(n, v)| write_field(&mut head, n, v));
    }
    head.into()
}

/// What a HEAD's 200 says of a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadSays {
    /// It is still that one: a validator is on both sides, and all that the HEAD has are the stored ones.
    Same,
    /// It is another one.
    Other,
    /// Nothing: no validator that could differ. The body may have changed all the same.
    Nothing,
}

/// Whether a HEAD's 200 is of the stored response. RFC 9111 §4.3.5, which lets one without a validator freshen, too; then
/// a HEAD a minute would keep a body for ever that nobody has compared.
#[must_use]
pub fn head_says(
    stored: &Validators<'_>,
    body_bytes: u64,
    head: &ResponseFacts<'_>,
    content_length: Option<u64>,
) -> HeadSays {
    let etag = head.etag.map(|new| stored.etag.is_some_and(|old| weakly_equal(new, old)));
    let date = head.last_modified.map(|new| stored.last_modified == Some(new));
    let length = content_length.map(|length| length == body_bytes);
    if [etag, date, length].contains(&Some(false)) {
        return HeadSays::Other;
    }
    if etag.or(date).is_some() { HeadSays::Same } else { HeadSays::Nothing }
}

/// Fields that speak of a body the 304 did not carry.
fn describes_the_body(name: &[u8]) -> bool {
    [&b"content-length"[..], b"content-encoding", b"content-range", b"content-md5", b"etag"]
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Timestamp;

    const DATE: Field<'_> = (b"Date", b"Sun, 06 Nov 1994 08:49:37 GMT");
    const NOW: Timestamp = Timestamp(784_111_777_000);

    fn written(fields: &[Field<'_>], shared: bool, without_cookies: bool) -> String {
        let response = ResponseFacts::read(200, fields, NOW, NOW);
        String::from_utf8(write_head(&response, shared, without_cookies).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_head_keeps_what_is_end_to_end() {
        let fields: [Field<'_>; 10] = [
            DATE,
            (b"Content-Type", b"text/html"),
            (b"Warning", b"110 - \"Response is Stale\""), // §5.5
            (b"Connection", b"close"),                    // RFC 9111 §3.1
            (b"Keep-Alive", b"timeout=5"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Content-Length", b"3"),
            (b"Age", b"7"),
            (b"Proxy-Authenticate", b"Basic"),
            (b"X-Frame-Options", b"DENY"),
        ];
        assert_eq!(
            written(&fields, true, false),
            "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/html\r\n\
             X-Frame-Options: DENY\r\n"
        );
    }

    #[test]
    fn a_missing_date_is_the_moment_of_receipt() {
        let head = written(&[(b"X", b"y")], true, false); // RFC 9110 §6.6.1
        assert!(head.contains("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), "{head}");
        let far = ResponseFacts::read(200, &[], Timestamp(u64::MAX), Timestamp(u64::MAX));
        assert!(write_head(&far, true, false).is_ok());
    }

    #[test]
    fn cookies_and_named_fields_stay_out_of_what_is_shared() {
        let fields: [Field<'_>; 4] = [
            DATE,
            (b"Cache-Control", b"private=\"X-User\", max-age=5"),
            (b"X-User", b"7"),
            (b"Set-Cookie", b"a=b"),
        ];
        assert!(!written(&fields, true, false).contains("X-User: 7")); // RFC 9111 §5.2.2.7
        assert!(written(&fields, false, false).contains("X-User: 7"));
        assert!(written(&fields, true, false).contains("Set-Cookie"));
        assert!(!written(&fields, true, true).contains("Set-Cookie"));
    }

    #[test]
    fn a_line_break_never_gets_into_a_head() {
        let head = written(&[DATE, (b"X", b"a\r\nSet-Cookie: b"), (b"Y\n", b"c")], true, false);
        assert_eq!(head.lines().count(), 1, "{head}");
    }

    #[test]
    fn heads_are_bounded() {
        let long = vec![b'a'; HEAD_BYTES_MAX];
        let response = [(&b"X"[..], &long[..])];
        let response = ResponseFacts::read(200, &response, NOW, NOW);
        assert_eq!(write_head(&response, true, false), Err(Uncacheable::HeadTooLarge));
    }

    #[test]
    fn a_written_head_reads_back() {
        let fields: [Field<'_>; 3] = [DATE, (b"ETag", b"\"a: b\""), (b"X", b"")];
        let head = written(&fields, true, false);
        assert_eq!(read_head(head.as_bytes()), fields);
    }

    #[test]
    fn a_304_replaces_what_it_repeats_and_keeps_the_body_as_it_is() {
        let stored: [Field<'_>; 7] = [
            DATE,
            (b"X-Kept", b"1"),
            (b"Set-Cookie", b"sid=another's"),
            (b"Cache-Control", b"max-age=1"),
            (b"Content-Encoding", b"gzip"),
            (b"ETag", b"\"a\""),
            (b"X-Twice", b"old"),
        ];
        let new: [Field<'_>; 8] = [
            (b"cache-control", b"max-age=9"),
            (b"Content-Encoding", b"br"),
            (b"Content-Length", b"0"), // RFC 9111 §3.2
            (b"ETag", b"W/\"a\""),
            (b"X-New", b"2"),
            (b"x-twice", b"b"),
            (b"x-twice", b"c"),
            (b"Connection", b"close"),
        ];
        let merged = merge(&stored, &new);
        let expected: Vec<Field<'_>> = vec![
            (b"X-Kept", b"1"),
            (b"Content-Encoding", b"gzip"),
            (b"ETag", b"\"a\""),
            (b"cache-control", b"max-age=9"),
            (b"X-New", b"2"),
            (b"x-twice", b"b"),
            (b"x-twice", b"c"),
        ];
        assert_eq!(merged, expected);
    }

    #[test]
    fn a_304_has_to_be_about_what_was_asked() {
        const OLD: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";
        const NEW: &[u8] = b"Sun, 06 Nov 1994 08:49:38 GMT";
        let check = |stored: (Option<&[u8]>, Option<&[u8]>), fields: &[Field<'_>], expected: bool| {
            let stored = Validators { etag: stored.0, last_modified: stored.1, date: NOW };
            let response = ResponseFacts::read(304, fields, NOW, NOW);
            assert_eq!(is_about(&stored, &response), expected, "{stored:?} {fields:?}");
        };
        let tag: Option<&[u8]> = Some(b"\"a\"");
        check((tag, None), &[(b"ETag", b"\"a\"")], true); // RFC 9111 §4.3.4
        check((tag, None), &[(b"ETag", b"\"b\"")], false);
        check((tag, None), &[(b"ETag", b"W/\"a\"")], true);
        check((tag, None), &[(b"ETag", b"W/\"b\"")], false);
        check((Some(b"W/\"a\""), None), &[(b"ETag", b"\"a\"")], true);
        check((tag, None), &[], true); // one response was asked about
        check((None, Some(OLD)), &[(b"Last-Modified", OLD)], true);
        check((None, Some(OLD)), &[(b"Last-Modified", NEW)], false);
        check((None, Some(OLD)), &[(b"ETag", b"\"a\"")], false);
        check((None, Some(OLD)), &[], true);
    }
}
