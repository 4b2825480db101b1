//! The Connection field: what lives for one hop only (RFC 9110 §7.6.1).
//!
//! **Intuition.** A proxy drops the fields that Connection names. Taken at its word, a client could have the proxy drop
//! the credentials, the cookie or the address it put there itself. So names that are meant for the other end are
//! never dropped on Connection's word.
//!
//! **Failure.** A Connection value that is not a list of tokens, or an absurdly long one, is refused with the head.

use crate::bytes;
use crate::{Error, Field, trim_ows};

/// The tokens of one Connection value, trimmed; empty elements are skipped.
pub fn connection_tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim_ows).filter(|token| !token.is_empty())
}

/// Is this field always for one hop only, named by Connection or not? A proxy never passes these on as they are.
#[inline]
#[must_use]
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    const TE: &[&[u8]] = &[b"te"];
    const SEVEN: &[&[u8]] = &[b"upgrade", b"trailer"];
    const TEN: &[&[u8]] = &[b"connection", b"keep-alive"];
    let candidates: &[&[u8]] = match name.len() {
        2 => TE,
        7 => SEVEN,
        10 => TEN,
        14 => &[b"http2-settings"],
        16 => &[b"proxy-connection"],
        17 => &[b"transfer-encoding"],
        18 => &[b"proxy-authenticate"],
        19 => &[b"proxy-authorization"],
        _ => return false,
    };
    candidates.iter().any(|candidate| name.eq_ignore_ascii_case(candidate))
}

/// Fields that Connection can't make a proxy drop: meant for the other end, or set by proxies for the next one.
const END_TO_END: [&[u8]; 54] = [
    b"accept",
    b"accept-charset",
    b"accept-encoding",
    b"accept-language",
    b"accept-ranges",
    b"age",
    b"allow",
    b"authorization",
    b"cache-control",
    b"cache-status",
    b"cdn-cache-control",
    b"content-disposition",
    b"content-encoding",
    b"content-language",
    b"content-length",
    b"content-location",
    b"content-range",
    b"content-type",
    b"cookie",
    b"date",
    b"etag",
    b"expect",
    b"expires",
    b"forwarded",
    b"host",
    b"idempotency-key",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"last-modified",
    b"link",
    b"location",
    b"origin",
    b"pragma",
    b"priority",
    b"range",
    b"referer",
    b"retry-after",
    b"set-cookie",
    b"traceparent",
    b"tracestate",
    b"user-agent",
    b"vary",
    b"via",
    b"www-authenticate",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
    b"x-http-method-override",
    b"x-real-ip",
    b"x-request-id",
];

/// Tokens in all Connection lines of one head together. Real ones hold up to four; each costs a look through the list
/// above, and later one through the fields.
const CONNECTION_TOKENS_MAX: u32 = 32;

/// What Connection says in one head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ConnectionOptions {
    /// At most `CONNECTION_TOKENS_MAX`.
    tokens: u32,
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// Some token names a field that is not dropped anyway, and may be.
    pub(crate) names_hop_by_hop: bool,
}

impl ConnectionOptions {
    #[inline]
    pub(crate) fn note(&mut self, value: &[u8]) -> Result<(), Error> {
        // What nearly every message says, and nothing else.
        if value.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
            return Ok(());
        }
        self.note_list(value)
    }

    fn note_list(&mut self, value: &[u8]) -> Result<(), Error> {
        for token in connection_tokens(value) {
            self.tokens += 1;
            if self.tokens > CONNECTION_TOKENS_MAX || !bytes::all(token, bytes::TOKEN) {
                return Err(Error::InvalidConnection);
            }
            self.close |= token.eq_ignore_ascii_case(b"close");
            self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= token.eq_ignore_ascii_case(b"upgrade");
            self.names_hop_by_hop |= is_named_field(token);
        }
        Ok(())
    }
}

/// Does this connection option name a field to drop that isn't dropped anyway?
fn is_named_field(token: &[u8]) -> bool {
    !token.eq_ignore_ascii_case(b"close") && !is_hop_by_hop(token) && !is_end_to_end(token)
}

fn is_end_to_end(name: &[u8]) -> bool {
    END_TO_END.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The field names that Connection declares for one hop only: drop them besides those of [`is_hop_by_hop`]. Names that
/// it may never name (Host, Authorization, Content-Length, Cookie, Cache-Control and their like) are left out.
///
/// Drop them before the request's fields decide anything: a field that selects a cached answer but never reaches the
/// origin would let a client mislabel what is stored. The heads' `names_hop_by_hop` says whether there are any.
#[must_use]
pub fn hop_by_hop_named<'f, 'b>(fields: &'f [Field<'b>]) -> HopByHopNamed<'f, 'b> {
    HopByHopNamed { fields, rest: b"" }
}

/// See [`hop_by_hop_named`].
#[derive(Clone, Debug)]
pub struct HopByHopNamed<'f, 'b> {
    /// Fields not yet looked at.
    fields: &'f [Field<'b>],
    /// What is left of the current Connection value.
    rest: &'b [u8],
}

impl<'b> HopByHopNamed<'_, 'b> {
    fn next_token(&mut self) -> Option<&'b [u8]> {
        while self.rest.is_empty() {
            let ((name, value), fields) = self.fields.split_first()?;
            self.fields = fields;
            if name.eq_ignore_ascii_case(b"connection") {
                self.rest = value;
            }
        }
        let end = memchr::memchr(b',', self.rest).unwrap_or(self.rest.len());
        let token = trim_ows(&self.rest[..end]);
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        Some(token)
    }
}

impl<'b> Iterator for HopByHopNamed<'_, 'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        loop {
            let token = self.next_token()?;
            if !token.is_empty() && is_named_field(token) {
                return Some(token);
            }
        }
    }
}
