//! Request heads: start line, fields, and what they say about body and connection (RFC 9112 §3).
//!
//! **Mechanism.** One pass over the bytes, in order; the first mistake decides. Fields that matter for framing or
//! routing are noted while they go by; what takes the whole head (is Host there, do lengths contradict) comes last. So
//! a refusal never changes when more bytes come, which is what lets a head be refused before its end.

use crate::fields::{no_line_end, read_fields};
use crate::framing::Framing;
use crate::method::METHOD_BYTES_MAX;
use crate::scan::{self, Stop};
use crate::target::{read_form, read_host, split_path};
use crate::{BodyLength, Error, Fields, Limits, Method, TargetForm, Version, bytes, connection_tokens};

/// A request head, borrowed from the receive buffer. Accepted means: framing is unambiguous, Host is one valid host.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestHead<'b> {
    /// The method.
    pub method: Method,
    /// The method as sent: a token, at most [`crate::METHOD_BYTES_MAX`] bytes.
    pub method_text: &'b str,
    /// The target as sent: printable ASCII without space and `#`, at most `target_bytes_max` bytes.
    pub target: &'b [u8],
    /// Which form the target has.
    pub form: TargetForm<'b>,
    /// The path without its query: begins with `/`; `*` for the asterisk form and for OPTIONS on an absolute target
    /// without a path; empty for the authority form. Not normalised.
    pub path: &'b [u8],
    /// What follows the first `?`, without it. `Some(b"")` for a target that ends in `?`.
    pub query: Option<&'b [u8]>,
    /// The version; anything above 1.1 within major 1 is 1.1.
    pub version: Version,
    /// `host [":" port]` of the target where it has one, else of Host. As on the wire: any case, port kept. Empty only
    /// in HTTP/1.0 without Host.
    pub host: &'b [u8],
    /// All fields in order, Host and framing fields included.
    pub fields: Fields<'b>,
    /// How long the body is. Never [`BodyLength::UntilClose`].
    pub body: BodyLength,
    /// The client can take another response on this connection.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends a body of at least one byte. Never in HTTP/1.0.
    pub expect_continue: bool,
    /// The client offers to switch protocols: Upgrade, named by Connection. Never in HTTP/1.0.
    pub upgrade: bool,
    /// Connection names fields to drop beyond the usual: see [`crate::hop_by_hop_named`]. False lets a proxy skip it.
    pub names_hop_by_hop: bool,
}

/// Reads one request head from the front of `buf`. One empty line before it is skipped (RFC 9112 §2.2).
///
/// `Ok(None)`: more bytes are needed; call again with the same bytes and more behind them. `Ok(Some((head, consumed)))`:
/// the body, if any, begins at `consumed`. `scanned` belongs to the parser: 0 for a new head, then the same variable
/// until the head is whole (when it is 0 again), so that dribbled bytes are each looked at a bounded number of times.
///
/// # Errors
/// The first reason to refuse what is there, as soon as the bytes at hand prove it. `head_bytes_max` bounds what needs
/// to be buffered.
pub fn parse_request<'b>(
    buf: &'b [u8],
    scanned: &mut usize,
    limits: &Limits,
) -> Result<Option<(RequestHead<'b>, usize)>, Error> {
    let Some(view) = scan::to_read(buf, scanned, limits) else { return Ok(None) };
    // Filled in place and moved once: the list is what makes a head large.
    let mut fields = Fields::new();
    match read_request(view, limits, &mut fields) {
        Ok((line, noted, end)) => {
            *scanned = 0;
            finish(&line, fields, &noted).map(|head| Some((head, end)))
        }
        Err(stop) => scan::stopped(stop, view, scanned, limits).map(|()| None),
    }
}

/// What the fields of a request say that matters here.
#[derive(Debug, Default)]
struct Noted<'b> {
    framing: Framing,
    host: Option<&'b [u8]>,
    /// Upgrade was given.
    upgrade: bool,
    expect_continue: bool,
    /// Expect asks for something else.
    expect_other: bool,
}

impl<'b> Noted<'b> {
    #[inline(always)]
    fn note(&mut self, name: &'b [u8], value: &'b [u8]) -> Result<(), Error> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => match self.host.replace(value) {
                None => Ok(()),
                Some(_) => Err(Error::DuplicateHost),
            },
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.note_expect(value);
                Ok(())
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => self.framing.connection.note(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.framing.note_content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.framing.note_transfer_encoding(value)
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn note_expect(&mut self, value: &[u8]) {
        for expectation in connection_tokens(value) {
            let is_continue = expectation.eq_ignore_ascii_case(b"100-continue");
            self.expect_continue |= is_continue;
            self.expect_other |= !is_continue;
        }
    }
}

/// One pass over what is there. See [`scan::to_read`] for what it must promise.
#[inline(always)]
fn read_request<'b>(
    view: &'b [u8],
    limits: &Limits,
    fields: &mut Fields<'b>,
) -> Result<(RequestLine<'b>, Noted<'b>, usize), Stop> {
    let start = match view {
        [b'\r', b'\n', ..] => 2,
        [b'\r'] => return Err(Stop::Partial),
        _ => 0,
    };
    let line = read_request_line(&view[start..], limits)?;
    let mut noted = Noted::default();
    let end = read_fields(view, start + line.len, limits, fields, |name, value| noted.note(name, value))?;
    Ok((line, noted, end))
}

/// Judges what takes the whole head.
#[inline(always)]
fn finish<'b>(
    line: &RequestLine<'b>,
    fields: Fields<'b>,
    noted: &Noted<'b>,
) -> Result<RequestHead<'b>, Error> {
    let RequestLine { method, target, form, version, .. } = *line;
    if version == Version::Http11 && noted.host.is_none() {
        return Err(Error::MissingHost);
    }
    let host = read_host(target, &form, noted.host)?;
    let declared = noted.framing.declared(version)?;
    if method == Method::Connect && declared.is_some() {
        return Err(Error::UnexpectedBody);
    }
    let is_http11 = version == Version::Http11;
    // An HTTP/1.0 client's expectations are to be ignored (RFC 9110 §10.1.1).
    if noted.expect_other && is_http11 {
        return Err(Error::UnsupportedExpectation);
    }
    let body = declared.unwrap_or(BodyLength::None);
    let has_body = !matches!(body, BodyLength::None | BodyLength::Exact(0));
    let (path, query) = split_path(target, &form, method);
    Ok(RequestHead {
        method,
        method_text: line.method_text,
        target,
        form,
        path,
        query,
        version,
        host,
        fields,
        body,
        keep_alive: noted.framing.is_persistent(version),
        expect_continue: noted.expect_continue && is_http11 && has_body,
        upgrade: noted.upgrade && noted.framing.connection.upgrade && is_http11,
        names_hop_by_hop: noted.framing.connection.names_hop_by_hop,
    })
}

struct RequestLine<'b> {
    method: Method,
    method_text: &'b str,
    target: &'b [u8],
    form: TargetForm<'b>,
    version: Version,
    /// With its CRLF.
    len: usize,
}

/// `method SP request-target SP HTTP-version CRLF`, single spaces, nothing else.
#[inline(always)]
fn read_request_line<'b>(text: &'b [u8], limits: &Limits) -> Result<RequestLine<'b>, Stop> {
    let (method, method_text) = read_method(text)?;
    let rest = &text[method_text.len() + 1..];
    let target_len = bytes::target_len(rest);
    if target_len > limits.target_bytes_max {
        return Err(Error::TargetTooLong.into());
    }
    match rest.get(target_len) {
        None => return Err(Stop::Partial),
        Some(b' ') if target_len > 0 => {}
        // HTTP/0.9, or a version left out.
        Some(b'\r' | b'\n') if target_len > 0 => return Err(Error::InvalidVersion.into()),
        Some(_) => return Err(Error::InvalidTarget.into()),
    }
    let (target, rest) = (&rest[..target_len], &rest[target_len + 1..]);
    let version =
        if rest.starts_with(b"HTTP/1.1\r\n") { Version::Http11 } else { read_request_version(rest)? };
    let form = read_form(target, method)?;
    let len = method_text.len() + 1 + target_len + 1 + VERSION_BYTES + 2;
    Ok(RequestLine { method, method_text, target, form, version, len })
}

/// `HTTP/1.1`
pub(crate) const VERSION_BYTES: usize = 8;

#[inline(always)]
fn read_method(text: &[u8]) -> Result<(Method, &str), Stop> {
    if text.starts_with(b"GET ") {
        return Ok((Method::Get, "GET"));
    }
    let len = bytes::token_len(&text[..text.len().min(METHOD_BYTES_MAX + 1)]);
    match text.get(len) {
        None if len <= METHOD_BYTES_MAX => return Err(Stop::Partial),
        Some(b' ') if (1..=METHOD_BYTES_MAX).contains(&len) => {}
        _ => return Err(Error::InvalidMethod.into()),
    }
    let method_text = std::str::from_utf8(&text[..len]).map_err(|_| Error::InvalidMethod)?;
    Ok((Method::from_bytes(&text[..len]), method_text))
}

#[cold]
fn read_request_version(rest: &[u8]) -> Result<Version, Stop> {
    let version = read_version(rest, Error::InvalidVersion)?;
    match &rest[VERSION_BYTES..] {
        [b'\r', b'\n', ..] => Ok(version),
        behind => Err(no_line_end(behind, Error::InvalidVersion)),
    }
}

/// `HTTP/` digit `.` digit, case-sensitive, of major 1. `otherwise` is what it is if it isn't a version.
pub(crate) fn read_version(text: &[u8], otherwise: Error) -> Result<Version, Stop> {
    let fits = |(index, &byte): (usize, &u8)| match index {
        5 | 7 => byte.is_ascii_digit(),
        _ => byte == b"HTTP/1.1"[index],
    };
    let text = &text[..text.len().min(VERSION_BYTES)];
    if !text.iter().enumerate().all(fits) {
        return Err(otherwise.into());
    }
    match text {
        [.., b'1', _, b'0'] if text.len() == VERSION_BYTES => Ok(Version::Http10),
        [.., b'1', _, _] if text.len() == VERSION_BYTES => Ok(Version::Http11),
        _ if text.len() == VERSION_BYTES => Err(Error::UnsupportedVersion.into()),
        _ => Err(Stop::Partial),
    }
}
