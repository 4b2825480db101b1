//! Request heads: start line, fields, and what they say about body and connection.

use crate::{BodyLength, Error, Fields, Limits, Method, TargetForm, Version};

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

/// Reads one request head from the front of `buf`.
///
/// `Ok(None)`: more bytes are needed; call again with the same bytes and more behind them. `Ok(Some((head, consumed)))`:
/// the body, if any, begins at `consumed`. `scanned` belongs to the parser: 0 for a new head, then the same variable
/// until the head is whole (when it is 0 again), so that dribbled bytes are each looked at a bounded number of times.
///
/// # Errors
/// The first reason to refuse what is there, as soon as the bytes at hand prove it.
pub fn parse_request<'b>(
    buf: &'b [u8],
    scanned: &mut usize,
    limits: &Limits,
) -> Result<Option<(RequestHead<'b>, usize)>, Error> {
    let _ = (buf, scanned, limits);
    Ok(None)
}
