//! Where a message's body ends, and whether another message may follow (RFC 9112 §6, §9).
//!
//! **Intuition.** Request smuggling is two parties disagreeing about a body's end. RFC 9112 §6.3 has rules for picking
//! one of several contradicting lengths; we don't pick: a head that could be read in two ways is refused, in responses
//! as well as in requests.
//!
//! **Mechanism.** [`Framing`] collects what the framing fields say while the head is read. At most one
//! Content-Length line of plain digits; at most one Transfer-Encoding line, exactly `chunked`; never both.

use crate::bytes;
use crate::connection::ConnectionOptions;
use crate::{Error, Version, trim_ows};

/// The length of a body as its head declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none, whatever the fields say.
    None,
    /// So many bytes; zero when the head says so.
    Exact(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the peer closes; responses only.
    UntilClose,
}

/// What the framing and connection fields of one head say.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    pub(crate) content_length: Option<u64>,
    /// Transfer-Encoding was given, and was `chunked`.
    pub(crate) is_chunked: bool,
    pub(crate) connection: ConnectionOptions,
}

impl Framing {
    #[inline]
    pub(crate) fn note_content_length(&mut self, value: &[u8]) -> Result<(), Error> {
        let length = bytes::decimal(value).ok_or(Error::InvalidContentLength)?;
        match self.content_length.replace(length) {
            None => Ok(()),
            Some(_) => Err(Error::DuplicateContentLength),
        }
    }

    #[inline]
    pub(crate) fn note_transfer_encoding(&mut self, value: &[u8]) -> Result<(), Error> {
        if self.is_chunked {
            return Err(Error::DuplicateTransferEncoding);
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(refused_coding(value));
        }
        self.is_chunked = true;
        Ok(())
    }

    /// The length that the fields declare, if any; refuses what could be read in two ways.
    #[inline]
    pub(crate) fn declared(&self, version: Version) -> Result<Option<BodyLength>, Error> {
        if !self.is_chunked {
            return Ok(self.content_length.map(BodyLength::Exact));
        }
        if self.content_length.is_some() {
            return Err(Error::ConflictingLength);
        }
        if version == Version::Http10 {
            return Err(Error::TransferEncodingInHttp10);
        }
        Ok(Some(BodyLength::Chunked))
    }

    /// May another message follow, as far as the Connection field goes? RFC 9112 §9.3.
    #[inline]
    pub(crate) fn is_persistent(&self, version: Version) -> bool {
        !self.connection.close && (version == Version::Http11 || self.connection.keep_alive)
    }
}

/// Tells a coding we don't have (501) from a list that leaves the body without an end (400); RFC 9112 §6.1, §6.3.
#[cold]
fn refused_coding(value: &[u8]) -> Error {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let mut codings = value.rsplit(|&byte| byte == b',').map(trim_ows);
    let ends_chunked = codings.next().is_some_and(is_chunked);
    let others_are_tokens = codings.all(|coding| bytes::all(coding, bytes::TOKEN) && !is_chunked(coding));
    if ends_chunked && others_are_tokens {
        Error::UnsupportedTransferCoding
    } else {
        Error::InvalidTransferEncoding
    }
}
