//! Body decoding: which of the bytes behind a head are payload (RFC 9112 §6.3, §7.1).
//!
//! **Intuition.** A body of known length needs a counter. A chunked one is a little language in which every liberty has
//! been someone's way to smuggle: line ends without CR, sizes that overflow, extensions without end. Each byte of it
//! is looked at once, and must fit the grammar.
//!
//! **Mechanism.** Framing bytes step a state machine, one byte at a time, so no line is ever buffered here or read
//! twice; payload is handed out as slices of what came in, however large. Extensions and trailers are checked, counted
//! against their limits, and dropped: a trailer merged into the head could overrule it.
//!
//! **Failure.** An error is final: the decoder gives the same one ever after. A close in the middle of a body is
//! [`Error::Truncated`], so that half a body can't pass for a whole one.

use crate::bytes::{self, TOKEN, VALUE};
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
    state: State,
    /// Bytes of the current chunk's line so far; at most `line_bytes_max`.
    line_bytes: usize,
    line_bytes_max: usize,
    /// Extension bytes that this body may still bring.
    extension_bytes_left: usize,
    /// Trailer bytes that this body may still bring.
    trailer_bytes_left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes to come; not 0.
    Exact(u64),
    UntilClose,
    /// Before the first digit of a chunk's size.
    SizeStart,
    Size(u64),
    /// Behind the CR of a chunk's line.
    SizeLf(u64),
    /// In the extensions of a chunk of this size.
    Extension(u64, Extension),
    /// So many bytes of the chunk to come; not 0.
    Data(u64),
    DataCr,
    DataLf,
    Trailer(Trailer),
    Done,
    Failed(Error),
}

/// `chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// In whitespace that only a `;` may follow.
    BeforeSemicolon,
    NameStart,
    Name,
    /// In whitespace behind a name: `=` or `;` may follow.
    BehindName,
    ValueStart,
    Value,
    Quoted,
    /// Behind a backslash in a quoted string.
    Escaped,
    /// Behind the closing quote.
    QuotedEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trailer {
    LineStart,
    Name,
    Value,
    Lf,
    /// Behind the CR of the empty line that ends the body.
    EndLf,
}

impl BodyDecoder {
    /// A decoder for the body that a head announced.
    #[must_use]
    pub fn new(length: BodyLength, limits: &Limits) -> Self {
        let state = match length {
            BodyLength::None | BodyLength::Exact(0) => State::Done,
            BodyLength::Exact(length) => State::Exact(length),
            BodyLength::Chunked => State::SizeStart,
            BodyLength::UntilClose => State::UntilClose,
        };
        Self {
            state,
            line_bytes: 0,
            line_bytes_max: limits.chunk_line_bytes_max,
            extension_bytes_left: limits.chunk_extension_bytes_max,
            trailer_bytes_left: limits.trailer_bytes_max,
        }
    }

    /// Decodes the next piece from the front of `buf`: how many bytes it took (framing before it included), and what
    /// they were. Bytes consumed must not be given again. Call until `NeedMore` or `End`.
    ///
    /// # Errors
    /// A chunked body outside its grammar or limits; the same error ever after.
    #[inline]
    pub fn decode<'b>(&mut self, buf: &'b [u8]) -> Result<(usize, Piece<'b>), Error> {
        let mut at = 0;
        loop {
            let rest = &buf[at..];
            match self.state {
                State::Done => return Ok((at, Piece::End)),
                State::Failed(error) => return Err(error),
                _ if rest.is_empty() => return Ok((at, Piece::NeedMore)),
                State::Exact(left) => {
                    let data = self.take(rest, left, State::Exact, State::Done);
                    return Ok((at + data.len(), Piece::Data(data)));
                }
                State::Data(left) => {
                    let data = self.take(rest, left, State::Data, State::DataCr);
                    return Ok((at + data.len(), Piece::Data(data)));
                }
                State::UntilClose => return Ok((buf.len(), Piece::Data(rest))),
                _ => at += self.read_framing(rest)?,
            }
        }
    }

    /// The peer closed its side: fine if the body had ended, or was to end so.
    ///
    /// # Errors
    /// [`Error::Truncated`] in the middle of a body.
    pub fn on_eof(&mut self) -> Result<(), Error> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Failed(error) => Err(error),
            _ => {
                self.state = State::Failed(Error::Truncated);
                Err(Error::Truncated)
            }
        }
    }

    /// Has the body ended?
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Payload bytes still to come, where that is known: a body of declared length, or one that has ended.
    #[inline]
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Exact(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// The payload at the front of `rest`, of which `left` bytes are to come.
    #[inline]
    fn take<'b>(&mut self, rest: &'b [u8], left: u64, more: fn(u64) -> State, end: State) -> &'b [u8] {
        let available = rest.len() as u64;
        self.state = if available < left { more(left - available) } else { end };
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        &rest[..taken]
    }

    /// Steps over framing until payload, the end of the body or of `rest`; says how many bytes that took.
    fn read_framing(&mut self, rest: &[u8]) -> Result<usize, Error> {
        for (index, &byte) in rest.iter().enumerate() {
            match self.step(byte) {
                Ok(state @ (State::Data(_) | State::Done)) => {
                    self.state = state;
                    return Ok(index + 1);
                }
                Ok(state) => self.state = state,
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            }
        }
        Ok(rest.len())
    }

    #[inline]
    fn step(&mut self, byte: u8) -> Result<State, Error> {
        match self.state {
            State::SizeStart => {
                self.line_bytes = 0;
                self.count_line_byte()?;
                Ok(State::Size(hex(byte).ok_or(Error::InvalidChunkSize)?))
            }
            State::Size(size) => self.in_size(size, byte),
            State::SizeLf(size) => match (byte, size) {
                (b'\n', 0) => Ok(State::Trailer(Trailer::LineStart)),
                (b'\n', _) => Ok(State::Data(size)),
                _ => Err(Error::BareLineEnd),
            },
            State::Extension(size, place) => self.in_extension(size, place, byte),
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => Ok(State::SizeStart),
            State::DataCr | State::DataLf => Err(Error::InvalidChunkEnd),
            State::Trailer(place) => self.in_trailer(place, byte),
            // The caller takes payload and the end itself.
            state @ (State::Exact(_) | State::UntilClose | State::Data(_) | State::Done) => Ok(state),
            State::Failed(error) => Err(error),
        }
    }

    #[inline]
    fn in_size(&mut self, size: u64, byte: u8) -> Result<State, Error> {
        if let Some(digit) = hex(byte) {
            self.count_line_byte()?;
            return if size >> 60 == 0 {
                Ok(State::Size((size << 4) | digit))
            } else {
                Err(Error::ChunkSizeOverflow)
            };
        }
        match byte {
            b'\r' => Ok(State::SizeLf(size)),
            b';' | b' ' | b'\t' => self.in_extension(size, Extension::BeforeSemicolon, byte),
            b'\n' => Err(Error::BareLineEnd),
            _ => Err(Error::InvalidChunkSize),
        }
    }

    fn in_extension(&mut self, size: u64, place: Extension, byte: u8) -> Result<State, Error> {
        let may_end = matches!(place, Extension::Name | Extension::Value | Extension::QuotedEnd);
        match byte {
            b'\r' if may_end => return Ok(State::SizeLf(size)),
            b'\n' => return Err(Error::BareLineEnd),
            _ => {}
        }
        self.count_line_byte()?;
        self.extension_bytes_left =
            self.extension_bytes_left.checked_sub(1).ok_or(Error::ChunkExtensionTooLong)?;
        let next = place.next(byte).ok_or(Error::InvalidChunkExtension)?;
        Ok(State::Extension(size, next))
    }

    fn in_trailer(&mut self, place: Trailer, byte: u8) -> Result<State, Error> {
        match (place, byte) {
            (Trailer::LineStart, b'\r') => return Ok(State::Trailer(Trailer::EndLf)),
            (Trailer::EndLf, b'\n') => return Ok(State::Done),
            _ => {}
        }
        self.trailer_bytes_left = self.trailer_bytes_left.checked_sub(1).ok_or(Error::TrailersTooLong)?;
        let next = match (place, byte) {
            (Trailer::LineStart | Trailer::Name, _) if bytes::is(byte, TOKEN) => Trailer::Name,
            (Trailer::Name, b':') => Trailer::Value,
            (Trailer::Value, b'\r') => Trailer::Lf,
            (Trailer::Value, _) if bytes::is(byte, VALUE) => Trailer::Value,
            (Trailer::Lf, b'\n') => Trailer::LineStart,
            (Trailer::Lf | Trailer::EndLf, _) | (_, b'\n') => return Err(Error::BareLineEnd),
            _ => return Err(Error::InvalidTrailer),
        };
        Ok(State::Trailer(next))
    }

    #[inline]
    fn count_line_byte(&mut self) -> Result<(), Error> {
        self.line_bytes += 1;
        if self.line_bytes > self.line_bytes_max { Err(Error::ChunkExtensionTooLong) } else { Ok(()) }
    }
}

impl Extension {
    /// Where the byte leads; `None` where it may not stand.
    fn next(self, byte: u8) -> Option<Self> {
        let is_space = matches!(byte, b' ' | b'\t');
        match (self, byte) {
            (Self::NameStart | Self::Name, _) if bytes::is(byte, TOKEN) => Some(Self::Name),
            (Self::ValueStart | Self::Value, _) if bytes::is(byte, TOKEN) => Some(Self::Value),
            (Self::BeforeSemicolon | Self::Name | Self::BehindName | Self::Value | Self::QuotedEnd, b';') => {
                Some(Self::NameStart)
            }
            (Self::Name | Self::BehindName, b'=') => Some(Self::ValueStart),
            (Self::Name | Self::BehindName, _) if is_space => Some(Self::BehindName),
            (Self::BeforeSemicolon | Self::Value | Self::QuotedEnd, _) if is_space => {
                Some(Self::BeforeSemicolon)
            }
            (Self::NameStart | Self::ValueStart, _) if is_space => Some(self),
            (Self::ValueStart, b'"') => Some(Self::Quoted),
            (Self::Quoted, b'"') => Some(Self::QuotedEnd),
            (Self::Quoted, b'\\') => Some(Self::Escaped),
            (Self::Quoted | Self::Escaped, _) if bytes::is(byte, VALUE) => Some(Self::Quoted),
            _ => None,
        }
    }
}

#[inline]
fn hex(byte: u8) -> Option<u64> {
    match byte {
        b'0'..=b'9' => Some(u64::from(byte - b'0')),
        b'a'..=b'f' => Some(u64::from(byte - b'a' + 10)),
        b'A'..=b'F' => Some(u64::from(byte - b'A' + 10)),
        _ => None,
    }
}
