//! Body decoding: which of the bytes behind a head are payload (RFC 9112 §6.3, §7.1).

use crate::{BodyLength, Error, Limits};

/// What [`BodyDecoder::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'b> {
    /// Payload, never empty; a part of the slice given.
    Data(&'b [u8]),
    /// Everything given was consumed; the body goes on.
    NeedMore,
    /// The body has ended. What was not consumed belongs to the next message.
    End,
}

/// Decodes one body, in pieces as they come.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    length: BodyLength,
}

impl BodyDecoder {
    /// A decoder for the body that a head announced.
    #[must_use]
    pub fn new(length: BodyLength, limits: &Limits) -> Self {
        let _ = limits;
        Self { length }
    }

    /// Decodes the next piece from the front of `buf`: how many bytes it took, and what they were. Bytes consumed must
    /// not be given again. Call until `NeedMore` or `End`.
    ///
    /// # Errors
    /// A chunked body outside its grammar or limits; the same error ever after.
    pub fn decode<'b>(&mut self, buf: &'b [u8]) -> Result<(usize, Piece<'b>), Error> {
        let _ = (buf, self.length);
        Ok((0, Piece::NeedMore))
    }

    /// The peer closed its side: fine if the body had ended, or was to end so.
    ///
    /// # Errors
    /// [`Error::Truncated`] in the middle of a body.
    pub fn on_eof(&mut self) -> Result<(), Error> {
        Err(Error::Truncated)
    }

    /// Has the body ended?
    #[must_use]
    pub fn is_done(&self) -> bool {
        false
    }

    /// Payload bytes still to come, where the head said so.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        None
    }
}
