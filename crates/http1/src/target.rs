//! The request target's four forms (RFC 9112 §3.2) and the authority within (RFC 3986 §3.2).
//!
//! **Intuition.** The host a request is for may be written twice, in the target and in Host. If the two differ, one
//! party routes by the one and another by the other; so they must agree, up to case and the default port.
//!
//! **Mechanism.** A host is an IPv6 literal in brackets or a registered name (which includes IPv4), never empty: an
//! `http` URI with an empty host must be rejected (RFC 9110 §4.2.1), so an empty Host is refused although its grammar
//! would allow it. IPvFuture literals and zone ids are refused: nothing resolves them. Userinfo is refused
//! everywhere. A port is at most 65535; an empty one means the default.

use std::net::Ipv6Addr;

use crate::bytes;
use crate::{Error, Method};

/// How a request names its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetForm<'b> {
    /// `/path?query`: what clients send to servers.
    Origin,
    /// `http://authority/path?query`: what clients send to proxies.
    Absolute {
        /// The scheme, in any case on the wire.
        scheme: Scheme,
        /// `host [":" port]`, as on the wire.
        authority: &'b [u8],
        /// What follows the authority, as on the wire: may be empty or begin with `?`. `RequestHead::path` and `query`
        /// are the same split and completed.
        path: &'b [u8],
    },
    /// `host:port`, CONNECT only.
    Authority,
    /// `*`, OPTIONS only.
    Asterisk,
}

/// The schemes an absolute target may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// http, default port 80
    Http,
    /// https, default port 443
    Https,
}

impl Scheme {
    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Reads the form of a target whose bytes are known to be fit for one.
#[inline]
pub(crate) fn read_form(target: &[u8], method: Method) -> Result<TargetForm<'_>, Error> {
    if method == Method::Connect {
        return read_connect(target);
    }
    match target {
        [b'/', ..] => Ok(TargetForm::Origin),
        b"*" if method == Method::Options => Ok(TargetForm::Asterisk),
        b"*" => Err(Error::TargetFormMismatch),
        _ => read_absolute(target),
    }
}

fn read_connect(target: &[u8]) -> Result<TargetForm<'_>, Error> {
    if matches!(target, [b'/', ..] | b"*") || memchr::memmem::find(target, b"://").is_some() {
        return Err(Error::TargetFormMismatch);
    }
    match Authority::parse(target) {
        Some(Authority { port: Some(_), .. }) => Ok(TargetForm::Authority),
        _ => Err(Error::InvalidAuthority),
    }
}

fn read_absolute(target: &[u8]) -> Result<TargetForm<'_>, Error> {
    let Some(colon) = memchr::memmem::find(target, b"://") else {
        let is_authority = Authority::parse(target).is_some_and(|authority| authority.port.is_some());
        return Err(if is_authority { Error::TargetFormMismatch } else { Error::InvalidTarget });
    };
    let scheme = match &target[..colon] {
        http if http.eq_ignore_ascii_case(b"http") => Scheme::Http,
        https if https.eq_ignore_ascii_case(b"https") => Scheme::Https,
        _ => return Err(Error::UnsupportedScheme),
    };
    let rest = &target[colon + 3..];
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if Authority::parse(authority).is_none() {
        return Err(Error::InvalidAuthority);
    }
    Ok(TargetForm::Absolute { scheme, authority, path })
}

/// Splits a target into path and query; gives the path that an absolute target leaves out (RFC 9112 §3.2.1, §3.2.4).
#[inline]
pub(crate) fn split_path<'b>(
    target: &'b [u8],
    form: &TargetForm<'b>,
    method: Method,
) -> (&'b [u8], Option<&'b [u8]>) {
    let whole = match form {
        TargetForm::Origin | TargetForm::Asterisk => target,
        TargetForm::Authority => return (b"", None),
        TargetForm::Absolute { path: b"", .. } if method == Method::Options => return (b"*", None),
        TargetForm::Absolute { path, .. } => path,
    };
    let (path, query) = match memchr::memchr(b'?', whole) {
        Some(at) => (&whole[..at], Some(&whole[at + 1..])),
        None => (whole, None),
    };
    (if path.is_empty() { b"/" } else { path }, query)
}

/// `host [":" port]`, valid. An empty port reads as none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Authority<'b> {
    /// With its brackets, if an IPv6 literal.
    host: &'b [u8],
    port: Option<u16>,
}

impl<'b> Authority<'b> {
    #[inline]
    pub(crate) fn parse(text: &'b [u8]) -> Option<Self> {
        let host_len = match text {
            [b'[', rest @ ..] => ipv6_len(rest)?,
            _ => reg_name_len(text)?,
        };
        let (host, rest) = text.split_at(host_len);
        let port = match rest {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(u16::try_from(bytes::decimal(digits)?).ok()?),
            _ => return None,
        };
        Some(Self { host, port })
    }

    /// Do both name the same host and port, where one that is not given is `default_port`?
    pub(crate) fn agrees_with(&self, other: &Self, default_port: Option<u16>) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.or(default_port) == other.port.or(default_port)
    }
}

/// Length of the bracketed literal whose text begins `rest`, brackets included.
fn ipv6_len(rest: &[u8]) -> Option<usize> {
    let end = memchr::memchr(b']', rest)?;
    let text = std::str::from_utf8(&rest[..end]).ok()?;
    text.parse::<Ipv6Addr>().ok()?;
    Some(end + 2)
}

/// Length of the registered name that begins `text`: not empty, escapes whole.
#[inline]
fn reg_name_len(text: &[u8]) -> Option<usize> {
    let mut len = 0;
    loop {
        len += text[len..].iter().take_while(|&&byte| bytes::is(byte, bytes::REG_NAME)).count();
        match &text[len..] {
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => len += 3,
            _ => break,
        }
    }
    (len > 0).then_some(len)
}

/// Host against the target: refuses an invalid Host and one that disagrees; says which text names the host.
#[inline]
pub(crate) fn read_host<'b>(
    target: &'b [u8],
    form: &TargetForm<'b>,
    host: Option<&'b [u8]>,
) -> Result<&'b [u8], Error> {
    let field = match host {
        Some(text) => Some(Authority::parse(text).ok_or(Error::InvalidHost)?),
        None => None,
    };
    let (text, default_port) = match form {
        TargetForm::Origin | TargetForm::Asterisk => return Ok(host.unwrap_or_default()),
        TargetForm::Absolute { scheme, authority, .. } => (*authority, Some(scheme.default_port())),
        TargetForm::Authority => (target, None),
    };
    let named = Authority::parse(text).ok_or(Error::InvalidAuthority)?;
    match field {
        Some(field) if !field.agrees_with(&named, default_port) => Err(Error::HostMismatch),
        _ => Ok(text),
    }
}
