//! One connection's side of HTTP/1.1: writes a request, reads the answer, throws the body away.
//!
//! **Intuition.** As little as possible, since its CPU is taken from the target's: one write, usually one read, one
//! pass of the codec over the head, and a body that is counted past rather than kept.
//!
//! **Mechanism.** [`Wire`] owns the connection and its buffers, which live as long as the connection's task and are
//! reused for every request. [`Wire::exchange`] is one request and its answer; interim answers (1xx) are skipped.
//! Afterwards `stream` is there if and only if the connection may carry another request.
//!
//! **Failure.** Every way an answer can go wrong is a [`Failure`], with whether a byte of an answer had come; the
//! connection is gone then. Not cancel safe: whoever drops an exchange half-way must drop the stream with it.
//! Bounded by the codec's limits: a head has a maximum, 1xx answers are counted, and bodies take no memory.

use std::net::SocketAddr;

use tenfold_http1::{BodyDecoder, Limits, Method, Piece, ResponseHead, parse_response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::outcome::Failure;

/// What one read takes at most. A page and its head fit; larger bodies take more reads of the same buffer.
const READ_BYTES: usize = 16 * 1024;
/// More interim answers than this to one request are not meant well.
const INTERIM_MAX: u32 = 16;

/// A connection, or the place for one, and its buffers.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: Option<TcpStream>,
    /// The request to be sent, head and body.
    pub(crate) request: Vec<u8>,
    /// For rendering a request's body.
    pub(crate) scratch: Vec<u8>,
    received: Vec<u8>,
    limits: Limits,
}

/// An answer that was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) bytes: u64,
}

/// An exchange that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) failure: Failure,
    /// A byte of an answer had come: the request was seen by someone.
    pub(crate) was_answered: bool,
}

/// What of an answer's body is kept.
pub(crate) enum Body<'k> {
    Drop,
    /// Up to so many bytes; a longer one is malformed.
    Keep(&'k mut Vec<u8>, usize),
}

impl Wire {
    pub(crate) fn new() -> Self {
        let received = vec![0; READ_BYTES];
        Self { stream: None, request: Vec::new(), scratch: Vec::new(), received, limits: Limits::default() }
    }

    pub(crate) async fn connect(&mut self, address: SocketAddr) -> Result<(), Failure> {
        let stream = TcpStream::connect(address).await.map_err(|error| Failure::of_connect(&error))?;
        // Without it the second half of a request written in two would wait for the first one's acknowledgement.
        stream.set_nodelay(true).map_err(|error| Failure::of_connect(&error))?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Sends `self.request` and reads the answer. `on_head` sees the final answer's head.
    pub(crate) async fn exchange(
        &mut self,
        method: Method,
        body: Body<'_>,
        on_head: impl FnMut(&ResponseHead<'_>),
    ) -> Result<Answer, Broken> {
        let Some(mut stream) = self.stream.take() else {
            return Err(Broken { failure: Failure::Closed, was_answered: false });
        };
        let mut reader = Reader { stream: &mut stream, received: &mut self.received, filled: 0, bytes: 0 };
        let answered = reader.answer(&self.request, method, &self.limits, body, on_head).await;
        let bytes = reader.bytes;
        let (status, keep_alive) = answered.map_err(|failure| Broken { failure, was_answered: bytes > 0 })?;
        if keep_alive {
            self.stream = Some(stream);
        }
        Ok(Answer { status, bytes })
    }
}

struct Reader<'w> {
    stream: &'w mut TcpStream,
    received: &'w mut Vec<u8>,
    /// `received[..filled]` holds what was read and not yet consumed.
    filled: usize,
    /// Everything read for this answer.
    bytes: u64,
}

/// What a head leaves to do.
struct Begun {
    status: u16,
    keep_alive: bool,
    decoder: BodyDecoder,
}

/// What the front of a buffer is, with the bytes it takes.
enum Parsed {
    NeedMore,
    Interim(usize),
    Final(Begun, usize),
}

fn parse(
    buffered: &[u8],
    scanned: &mut usize,
    method: Method,
    limits: &Limits,
    on_head: &mut impl FnMut(&ResponseHead<'_>),
) -> Result<Parsed, Failure> {
    let parsed = parse_response(buffered, scanned, &method, limits).map_err(|_| Failure::Malformed)?;
    let Some((head, consumed)) = parsed else { return Ok(Parsed::NeedMore) };
    if head.is_interim() {
        return Ok(Parsed::Interim(consumed));
    }
    on_head(&head);
    let keep_alive = head.keep_alive && !head.tunnel;
    let begun = Begun { status: head.status, keep_alive, decoder: BodyDecoder::new(head.body, limits) };
    Ok(Parsed::Final(begun, consumed))
}

impl Reader<'_> {
    async fn answer(
        &mut self,
        request: &[u8],
        method: Method,
        limits: &Limits,
        body: Body<'_>,
        on_head: impl FnMut(&ResponseHead<'_>),
    ) -> Result<(u16, bool), Failure> {
        self.stream.write_all(request).await.map_err(|error| Failure::of_io(&error))?;
        let mut begun = self.head(method, limits, on_head).await?;
        let has_rest = self.body(&mut begun.decoder, body).await?;
        Ok((begun.status, begun.keep_alive && !has_rest))
    }

    /// Reads up to the end of the final head, and drops it from the buffer.
    async fn head(
        &mut self,
        method: Method,
        limits: &Limits,
        mut on_head: impl FnMut(&ResponseHead<'_>),
    ) -> Result<Begun, Failure> {
        let mut scanned = 0;
        let mut interim = 0;
        loop {
            match parse(&self.received[..self.filled], &mut scanned, method, limits, &mut on_head)? {
                Parsed::NeedMore => {
                    self.make_room(limits)?;
                    self.read().await?;
                }
                Parsed::Interim(_) if interim == INTERIM_MAX => return Err(Failure::Malformed),
                Parsed::Interim(consumed) => {
                    self.consume(consumed);
                    (scanned, interim) = (0, interim + 1);
                }
                Parsed::Final(begun, consumed) => {
                    self.consume(consumed);
                    return Ok(begun);
                }
            }
        }
    }

    /// Reads to the end of the body. True when bytes came behind it, which nobody asked for.
    async fn body(&mut self, decoder: &mut BodyDecoder, mut body: Body<'_>) -> Result<bool, Failure> {
        let mut at = 0;
        while !decoder.is_done() {
            let (taken, piece) =
                decoder.decode(&self.received[at..self.filled]).map_err(|_| Failure::Malformed)?;
            at += taken;
            match piece {
                Piece::Data(bytes) => body.push(bytes)?,
                Piece::End => break,
                Piece::NeedMore => {
                    (self.filled, at) = (0, 0);
                    if self.read_some().await? == 0 {
                        decoder.on_eof().map_err(|_| Failure::Truncated)?;
                        // The end of the connection was the end of the body; it can't be used again.
                        return Ok(true);
                    }
                }
            }
        }
        Ok(at < self.filled)
    }

    fn consume(&mut self, bytes: usize) {
        self.received.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }

    /// Grows the buffer for a head that doesn't fit, up to what the codec accepts of one.
    fn make_room(&mut self, limits: &Limits) -> Result<(), Failure> {
        if self.filled < self.received.len() {
            return Ok(());
        }
        if self.filled > limits.head_bytes_max {
            return Err(Failure::Malformed);
        }
        self.received.resize(self.filled * 2, 0);
        Ok(())
    }

    /// Reads within a head: an end here is a failure.
    async fn read(&mut self) -> Result<(), Failure> {
        match self.read_some().await? {
            0 if self.bytes == 0 => Err(Failure::Closed),
            0 => Err(Failure::Truncated),
            _ => Ok(()),
        }
    }

    async fn read_some(&mut self) -> Result<usize, Failure> {
        let count = self.stream.read(&mut self.received[self.filled..]).await;
        let count = count.map_err(|error| Failure::of_io(&error))?;
        self.filled += count;
        self.bytes += u64::try_from(count).expect("usize fits u64");
        Ok(count)
    }
}

impl Body<'_> {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Drop => Ok(()),
            Self::Keep(kept, bytes_max) if kept.len() + bytes.len() <= *bytes_max => {
                kept.extend_from_slice(bytes);
                Ok(())
            }
            Self::Keep(..) => Err(Failure::Malformed),
        }
    }
}
