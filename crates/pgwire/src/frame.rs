//! Messages on the wire: a tag, a length, a body, one behind the other.
//!
//! **Intuition.** Whoever passes messages on needs to know where each ends and what kind it is, and of most not more.
//! Five bytes say both.
//!
//! **Mechanism.** [`header`] reads those five bytes; [`Frames`] walks the whole messages of a buffer without copying
//! and says what remains: nothing, a few bytes, or the beginning of a message whose header is known, so that a big one
//! can be streamed through instead of collected. [`frontend_header`] also holds a client to the tags that exist and to
//! PostgreSQL's own maximum for each.
//!
//! **Failure.** A length below four, above a gibibyte or above what its tag allows is an [`Error`]: the position in the
//! stream is lost, so the connection has to end. Nothing here allocates or indexes unchecked.
//!
//! Source: PostgreSQL documentation, "Message Flow" and "Message Formats"; `SocketBackend` in `postgres.c` and
//! `pq_getmessage` in `pqcomm.c` for the limits.

use crate::Error;

/// A tag and a length word.
pub const HEADER_BYTES: usize = 5;
/// The largest length word of any message: PostgreSQL's `PQ_LARGE_MESSAGE_LIMIT`, that is `MaxAllocSize - 1`.
pub const LENGTH_WORD_MAX: u32 = 0x3fff_fffe;
/// The largest length word of messages that are small by nature: `PQ_SMALL_MESSAGE_LIMIT`.
pub const SMALL_LENGTH_WORD_MAX: u32 = 10_000;
/// The largest length word of `p` messages: PostgreSQL's `PG_MAX_AUTH_TOKEN_LENGTH` and the length word itself.
pub const AUTH_LENGTH_WORD_MAX: u32 = 65_535 + 4;
/// The length word counts itself.
const LENGTH_WORD_MIN: u32 = 4;

/// Tags of messages that clients send.
pub mod frontend {
    /// Bind: parameters for a prepared statement, making a portal.
    pub const BIND: u8 = b'B';
    /// Close a statement or portal.
    pub const CLOSE: u8 = b'C';
    /// A piece of COPY data.
    pub const COPY_DATA: u8 = b'd';
    /// The end of COPY data.
    pub const COPY_DONE: u8 = b'c';
    /// COPY given up by the client.
    pub const COPY_FAIL: u8 = b'f';
    /// Describe a statement or portal.
    pub const DESCRIBE: u8 = b'D';
    /// Execute a portal.
    pub const EXECUTE: u8 = b'E';
    /// Send what is ready.
    pub const FLUSH: u8 = b'H';
    /// Call a function by its OID.
    pub const FUNCTION_CALL: u8 = b'F';
    /// Parse: prepare a statement.
    pub const PARSE: u8 = b'P';
    /// PasswordMessage, SASLInitialResponse, SASLResponse or GSSResponse, by context.
    pub const PASSWORD: u8 = b'p';
    /// A simple query.
    pub const QUERY: u8 = b'Q';
    /// The end of an extended-query series.
    pub const SYNC: u8 = b'S';
    /// Goodbye.
    pub const TERMINATE: u8 = b'X';
}

/// Tags of messages that servers send.
pub mod backend {
    /// A request to authenticate, or that it succeeded.
    pub const AUTHENTICATION: u8 = b'R';
    /// Process id and key for cancel requests.
    pub const BACKEND_KEY_DATA: u8 = b'K';
    /// Bind succeeded.
    pub const BIND_COMPLETE: u8 = b'2';
    /// Close succeeded.
    pub const CLOSE_COMPLETE: u8 = b'3';
    /// A command ended; holds its tag.
    pub const COMMAND_COMPLETE: u8 = b'C';
    /// A piece of COPY data.
    pub const COPY_DATA: u8 = b'd';
    /// The end of COPY data.
    pub const COPY_DONE: u8 = b'c';
    /// COPY from the client begins.
    pub const COPY_IN_RESPONSE: u8 = b'G';
    /// COPY to the client begins.
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    /// COPY both ways begins (replication).
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    /// A row.
    pub const DATA_ROW: u8 = b'D';
    /// The query string was empty.
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    /// An error.
    pub const ERROR_RESPONSE: u8 = b'E';
    /// A function's result.
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    /// The server speaks an older minor version or lacks protocol options.
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    /// The statement returns no rows.
    pub const NO_DATA: u8 = b'n';
    /// A notice.
    pub const NOTICE_RESPONSE: u8 = b'N';
    /// A NOTIFY from some session.
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    /// Types of a statement's parameters.
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    /// A setting's value.
    pub const PARAMETER_STATUS: u8 = b'S';
    /// Parse succeeded.
    pub const PARSE_COMPLETE: u8 = b'1';
    /// Execute stopped at its row limit.
    pub const PORTAL_SUSPENDED: u8 = b's';
    /// Ready for the next query, with the transaction's state.
    pub const READY_FOR_QUERY: u8 = b'Z';
    /// Columns of a result.
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// What the first five bytes of a message say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The kind of message: one of [`frontend`] or [`backend`].
    pub tag: u8,
    /// Bytes of the whole message, tag and length word included: always ≥ 5 and ≤ 1 GiB.
    pub len: usize,
}

impl Header {
    /// Bytes of the body: the message without tag and length word.
    #[must_use]
    #[inline]
    pub fn body_len(self) -> usize {
        self.len - HEADER_BYTES
    }
}

/// Reads a header from the beginning of `buf`; `None` while it holds fewer than five bytes.
///
/// # Errors
/// [`Error::MessageLength`] for a length word below 4 or above [`LENGTH_WORD_MAX`].
#[inline]
pub fn header(buf: &[u8]) -> Result<Option<Header>, Error> {
    header_within(buf, |_| Ok(LENGTH_WORD_MAX))
}

/// [`header`] of a message from a client: the tag has to exist, and the length to be within what PostgreSQL takes for
/// that tag. A series of messages that passes here needs at most [`SMALL_LENGTH_WORD_MAX`] bytes of buffer for any
/// Describe, Execute, Close or CopyFail.
///
/// # Errors
/// [`Error::FrontendTag`], [`Error::MessageLength`].
#[inline]
pub fn frontend_header(buf: &[u8]) -> Result<Option<Header>, Error> {
    header_within(buf, frontend_length_word_max)
}

/// [`header`] of a message from a server: the tag has to exist.
///
/// # Errors
/// [`Error::BackendTag`], [`Error::MessageLength`].
#[inline]
pub fn backend_header(buf: &[u8]) -> Result<Option<Header>, Error> {
    header_within(buf, |tag| is_backend_tag(tag).then_some(LENGTH_WORD_MAX).ok_or(Error::BackendTag(tag)))
}

#[inline]
fn header_within(
    buf: &[u8],
    length_word_max: impl FnOnce(u8) -> Result<u32, Error>,
) -> Result<Option<Header>, Error> {
    let Some(&[tag, a, b, c, d]) = buf.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let word = u32::from_be_bytes([a, b, c, d]);
    if word < LENGTH_WORD_MIN || word > length_word_max(tag)? {
        return Err(Error::MessageLength { tag, length: word });
    }
    Ok(Some(Header { tag, len: word as usize + 1 }))
}

/// The largest length word PostgreSQL takes for a client's message of this tag.
///
/// # Errors
/// [`Error::FrontendTag`] for a tag that no client message has.
#[inline]
pub fn frontend_length_word_max(tag: u8) -> Result<u32, Error> {
    use frontend as f;
    match tag {
        f::QUERY | f::PARSE | f::BIND | f::COPY_DATA | f::FUNCTION_CALL => Ok(LENGTH_WORD_MAX),
        f::EXECUTE | f::SYNC | f::DESCRIBE | f::CLOSE | f::FLUSH => Ok(SMALL_LENGTH_WORD_MAX),
        f::COPY_DONE | f::COPY_FAIL | f::TERMINATE => Ok(SMALL_LENGTH_WORD_MAX),
        f::PASSWORD => Ok(AUTH_LENGTH_WORD_MAX),
        _ => Err(Error::FrontendTag(tag)),
    }
}

/// Whether servers send messages of this tag.
#[must_use]
#[inline]
pub fn is_backend_tag(tag: u8) -> bool {
    matches!(
        tag,
        b'1' | b'2'
            | b'3'
            | b'A'
            | b'C'
            | b'D'
            | b'E'
            | b'G'
            | b'H'
            | b'I'
            | b'K'
            | b'N'
            | b'R'
            | b'S'
            | b'T'
            | b'V'
            | b'W'
            | b'Z'
            | b'c'
            | b'd'
            | b'n'
            | b's'
            | b't'
            | b'v'
    )
}

/// A whole message in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The kind of message.
    pub tag: u8,
    /// All of it, tag and length word included: always ≥ 5 bytes.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// What follows the length word.
    #[must_use]
    #[inline]
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or_default()
    }
}

/// The whole messages of a buffer, in order, and what is left behind them.
///
/// After an error it yields no more; [`Frames::consumed`] then stands before the message that was refused.
///
/// ```
/// use tenfold_pgwire::frame::{Frames, Header};
///
/// let mut frames = Frames::new(b"Z\0\0\0\x05ID\0\0\x01\0par");
/// let ready = frames.next().expect("it is whole")?;
/// assert_eq!((ready.tag, ready.body()), (b'Z', &b"I"[..]));
/// assert!(frames.next().is_none());
/// assert_eq!(frames.partial(), Some(Header { tag: b'D', len: 257 }));
/// assert_eq!(frames.consumed(), 6);
/// # Ok::<(), tenfold_pgwire::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    buf: &'a [u8],
    /// Where the next message begins. Always ≤ `buf.len()`.
    at: usize,
    is_frontend: bool,
    is_broken: bool,
    partial: Option<Header>,
}

impl<'a> Frames<'a> {
    /// Messages of either direction, whatever their tags.
    #[must_use]
    #[inline]
    pub fn new(buf: &'a [u8]) -> Self {
        Self { buf, at: 0, is_frontend: false, is_broken: false, partial: None }
    }

    /// Messages from a client, each held to [`frontend_header`].
    #[must_use]
    #[inline]
    pub fn of_frontend(buf: &'a [u8]) -> Self {
        Self { is_frontend: true, ..Self::new(buf) }
    }

    /// Bytes of the messages yielded so far.
    #[must_use]
    #[inline]
    pub fn consumed(&self) -> usize {
        self.at
    }

    /// The bytes behind the messages yielded so far.
    #[must_use]
    #[inline]
    pub fn remaining(&self) -> &'a [u8] {
        self.buf.get(self.at..).unwrap_or_default()
    }

    /// The header of the message that is only partly there; known once iteration has ended with five bytes of it or
    /// more.
    #[must_use]
    #[inline]
    pub fn partial(&self) -> Option<Header> {
        self.partial
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.remaining();
        if self.is_broken {
            return None;
        }
        let header = if self.is_frontend { frontend_header(rest) } else { header(rest) };
        match header {
            Ok(Some(header)) => match rest.get(..header.len) {
                Some(bytes) => {
                    self.at += header.len;
                    Some(Ok(Frame { tag: header.tag, bytes }))
                }
                None => {
                    self.partial = Some(header);
                    None
                }
            },
            Ok(None) => None,
            Err(error) => {
                self.is_broken = true;
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Result<Option<(u8, usize)>, Error>) {
        assert_eq!(
            header(bytes).map(|found| found.map(|header| (header.tag, header.len))),
            expected,
            "{bytes:?}"
        );
    }

    #[test]
    fn five_bytes_make_a_header() {
        check(b"", Ok(None));
        check(b"Z\0\0\0", Ok(None));
        check(b"Z\0\0\0\x05", Ok(Some((b'Z', 6))));
        check(b"S\0\0\0\x04", Ok(Some((b'S', 5))));
        check(b"d\x3f\xff\xff\xfe", Ok(Some((b'd', 0x3fff_ffff))));
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for length in [0, 1, 3, 0x3fff_ffff, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            let mut bytes = vec![b'D'];
            bytes.extend_from_slice(&length.to_be_bytes());
            check(&bytes, Err(Error::MessageLength { tag: b'D', length }));
        }
    }

    #[test]
    fn a_client_is_held_to_known_tags_and_their_sizes() {
        assert_eq!(frontend_header(b"G\0\0\0\x04"), Err(Error::FrontendTag(b'G')));
        assert_eq!(frontend_header(b"\0\0\0\0\x04"), Err(Error::FrontendTag(0)));
        assert_eq!(
            frontend_header(b"D\0\0\x27\x11"),
            Err(Error::MessageLength { tag: b'D', length: SMALL_LENGTH_WORD_MAX + 1 })
        );
        assert_eq!(frontend_header(b"D\0\0\x27\x10"), Ok(Some(Header { tag: b'D', len: 10_001 })));
        assert_eq!(frontend_header(b"p\0\x01\x00\x03"), Ok(Some(Header { tag: b'p', len: 65_540 })));
        assert!(frontend_header(b"p\0\x01\x00\x04").is_err());
        for tag in 0..=u8::MAX {
            let known = b"BCdcfDEHFPpQSX".contains(&tag);
            assert_eq!(frontend_header(&[tag, 0, 0, 0, 4]).is_ok(), known, "{tag}");
        }
    }

    #[test]
    fn a_server_is_held_to_known_tags() {
        let known = (0..=u8::MAX).filter(|&tag| backend_header(&[tag, 0, 0, 0, 4]).is_ok()).count();
        assert_eq!(known, 24);
        assert_eq!(backend_header(b"Q\0\0\0\x04"), Err(Error::BackendTag(b'Q')));
    }

    #[test]
    fn messages_come_out_whole_and_the_rest_is_told() {
        let mut frames = Frames::new(b"2\0\0\0\x04Z\0\0\0\x05TD\0\0");
        assert_eq!(frames.next(), Some(Ok(Frame { tag: b'2', bytes: b"2\0\0\0\x04" })));
        assert_eq!(frames.next().map(|frame| frame.map(|frame| frame.body())), Some(Ok(&b"T"[..])));
        assert_eq!(frames.next(), None);
        assert_eq!((frames.consumed(), frames.remaining(), frames.partial()), (11, &b"D\0\0"[..], None));
    }

    #[test]
    fn after_an_error_nothing_more_comes() {
        let mut frames = Frames::of_frontend(b"S\0\0\0\x04!\0\0\0\x04S\0\0\0\x04");
        assert!(frames.next().is_some_and(|frame| frame.is_ok()));
        assert_eq!(frames.next(), Some(Err(Error::FrontendTag(b'!'))));
        assert_eq!(frames.next(), None);
        assert_eq!(frames.consumed(), 5);
    }
}
