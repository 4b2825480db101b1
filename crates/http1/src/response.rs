//! Response heads: status line, fields, and what they say about body and connection (RFC 9112 §4, §6.3).
//!
//! **Intuition.** An origin may be buggy, old or taken over, and its answer may be stored for thousands: it is read as
//! strictly as a request. What has no status line is no response.
//!
//! **Mechanism.** One pass, as for requests. Where RFC 9112 §6.3 would let a client go on with a faulty length, the head
//! is refused; the caller answers 502.
//!
//! **Leniency.** A status line may end right behind the status (`HTTP/1.1 200`): the space that belongs there carries
//! nothing, and old servers leave it out. A 204 with a length is taken, but not its connection: bytes that may follow
//! would be read as the next response.

use crate::fields::{no_line_end, read_fields};
use crate::framing::Framing;
use crate::request::{VERSION_BYTES, read_version};
use crate::scan::{self, Stop};
use crate::{BodyLength, Error, Fields, Limits, Method, Version, bytes, connection_tokens};

/// A response head, borrowed from the receive buffer. Accepted means: framing is unambiguous.
#[derive(Clone, Debug, PartialEq)]
pub struct ResponseHead<'b> {
    /// 100..=599
    pub status: u16,
    /// The version; anything above 1.1 within major 1 is 1.1.
    pub version: Version,
    /// The reason phrase, possibly empty.
    pub reason: &'b [u8],
    /// All fields in order, framing fields included.
    pub fields: Fields<'b>,
    /// How long the body is, with the request's method taken into account.
    pub body: BodyLength,
    /// What Content-Length says, even where there is no body (HEAD, 304).
    pub content_length: Option<u64>,
    /// The connection may carry another request once this body has ended.
    pub keep_alive: bool,
    /// `Keep-Alive: timeout=N`: the server closes the idle connection after so many seconds.
    pub keep_alive_timeout_s: Option<u32>,
    /// Bytes behind this head are another protocol's: 101, or 2xx to CONNECT.
    pub tunnel: bool,
    /// Connection names fields to drop beyond the usual: see [`crate::hop_by_hop_named`]. False lets a proxy skip it.
    pub names_hop_by_hop: bool,
}

impl ResponseHead<'_> {
    /// A 1xx that another response to the same request will follow: all but 101.
    #[inline]
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// Reads one response head from the front of `buf`: final or interim (1xx, whose body is [`BodyLength::None`]).
///
/// Results and `scanned` as for [`crate::parse_request`]. `request_method` is that of the request this answers: HEAD
/// has no body, and CONNECT makes a tunnel.
///
/// # Errors
/// The first reason to refuse what is there, as soon as the bytes at hand prove it.
pub fn parse_response<'b>(
    buf: &'b [u8],
    scanned: &mut usize,
    request_method: &Method,
    limits: &Limits,
) -> Result<Option<(ResponseHead<'b>, usize)>, Error> {
    let Some(view) = scan::to_read(buf, scanned, limits) else { return Ok(None) };
    let mut fields = Fields::new();
    match read_response(view, limits, &mut fields) {
        Ok((line, noted, end)) => {
            *scanned = 0;
            finish(&line, *request_method, fields, &noted).map(|head| Some((head, end)))
        }
        Err(stop) => scan::stopped(stop, view, scanned, limits).map(|()| None),
    }
}

/// What the fields of a response say that matters here.
#[derive(Debug, Default)]
struct Noted {
    framing: Framing,
    keep_alive_timeout_s: Option<u32>,
}

impl Noted {
    #[inline(always)]
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        match name.len() {
            10 if name.eq_ignore_ascii_case(b"connection") => self.framing.connection.note(value),
            10 if name.eq_ignore_ascii_case(b"keep-alive") => {
                self.keep_alive_timeout_s = read_timeout(value);
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.framing.note_content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.framing.note_transfer_encoding(value)
            }
            _ => Ok(()),
        }
    }
}

/// `timeout=N` among the parameters of Keep-Alive (RFC 2068 §19.7.1.1, as servers send it). A hint: nonsense is none.
fn read_timeout(value: &[u8]) -> Option<u32> {
    let timeout = connection_tokens(value).find_map(|parameter| {
        let (name, seconds) = parameter.split_at_checked(b"timeout=".len())?;
        name.eq_ignore_ascii_case(b"timeout=").then_some(seconds)
    })?;
    u32::try_from(bytes::decimal(timeout)?).ok()
}

/// One pass over what is there. See [`scan::to_read`] for what it must promise.
#[inline(always)]
fn read_response<'b>(
    view: &'b [u8],
    limits: &Limits,
    fields: &mut Fields<'b>,
) -> Result<(StatusLine<'b>, Noted, usize), Stop> {
    let line = read_status_line(view, limits)?;
    let mut noted = Noted::default();
    let end = read_fields(view, line.len, limits, fields, |name, value| noted.note(name, value))?;
    Ok((line, noted, end))
}

/// Judges what takes the whole head.
#[inline(always)]
fn finish<'b>(
    line: &StatusLine<'b>,
    request_method: Method,
    fields: Fields<'b>,
    noted: &Noted,
) -> Result<ResponseHead<'b>, Error> {
    let StatusLine { version, status, reason, .. } = *line;
    let declared = noted.framing.declared(version)?;
    if status < 200 && declared.is_some() {
        return Err(Error::UnexpectedBody);
    }
    let tunnel = status == 101 || (request_method == Method::Connect && (200..300).contains(&status));
    let has_no_body =
        request_method == Method::Head || status < 200 || status == 204 || status == 304 || tunnel;
    let body = if has_no_body { BodyLength::None } else { declared.unwrap_or(BodyLength::UntilClose) };
    let is_faulty = status == 204 && !matches!(declared, None | Some(BodyLength::Exact(0)));
    let ends_by_itself = body != BodyLength::UntilClose && !tunnel && !is_faulty;
    Ok(ResponseHead {
        status,
        version,
        reason,
        fields,
        body,
        content_length: noted.framing.content_length,
        keep_alive: ends_by_itself && noted.framing.is_persistent(version),
        keep_alive_timeout_s: noted.keep_alive_timeout_s,
        tunnel,
        names_hop_by_hop: noted.framing.connection.names_hop_by_hop,
    })
}

struct StatusLine<'b> {
    version: Version,
    status: u16,
    reason: &'b [u8],
    /// With its CRLF.
    len: usize,
}

/// `HTTP-version SP status-code [SP reason-phrase] CRLF`
#[inline(always)]
fn read_status_line<'b>(text: &'b [u8], limits: &Limits) -> Result<StatusLine<'b>, Stop> {
    let version = match text {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', ..] => Version::Http11,
        _ => read_version(text, Error::InvalidStatusLine)?,
    };
    let (status, behind) = match &text[VERSION_BYTES..] {
        [b' ', digits @ ..] => (read_status(digits)?, &digits[STATUS_BYTES..]),
        [] => return Err(Stop::Partial),
        _ => return Err(Error::InvalidStatusLine.into()),
    };
    let reason_len = match behind {
        [b' ', reason @ ..] => 1 + bytes::value_len(reason),
        [] => return Err(Stop::Partial),
        [b'\r' | b'\n', ..] => 0,
        _ => return Err(Error::InvalidStatus.into()),
    };
    if reason_len > limits.target_bytes_max {
        return Err(Error::FieldTooLong.into());
    }
    let [b'\r', b'\n', ..] = behind[reason_len..] else {
        return Err(no_line_end(&behind[reason_len..], Error::InvalidStatusLine));
    };
    let reason = behind.get(1..reason_len).unwrap_or_default();
    Ok(StatusLine { version, status, reason, len: VERSION_BYTES + 1 + STATUS_BYTES + reason_len + 2 })
}

const STATUS_BYTES: usize = 3;

/// Three digits, 100..=599.
#[inline(always)]
fn read_status(text: &[u8]) -> Result<u16, Stop> {
    let [hundreds @ b'1'..=b'5', tens @ b'0'..=b'9', ones @ b'0'..=b'9', ..] = text else {
        return Err(no_status(text));
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    Ok(digit(hundreds) * 100 + digit(tens) * 10 + digit(ones))
}

#[cold]
fn no_status(text: &[u8]) -> Stop {
    match text {
        [] | [b'1'..=b'5'] | [b'1'..=b'5', b'0'..=b'9'] => Stop::Partial,
        _ => Error::InvalidStatus.into(),
    }
}
