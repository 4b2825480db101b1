//! Response heads: status line, fields, and what they say about body and connection.

use crate::{BodyLength, Error, Fields, Limits, Method, Version};

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
    let _ = (buf, scanned, request_method, limits);
    Ok(None)
}
