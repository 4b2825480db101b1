//! Bodies on the move: decoded on one side, framed anew on the other, through one buffer.
//!
//! **Intuition.** An upload and a download are the same thing: payload comes out of one socket under one framing and goes
//! into another under its own. [`relay`] is that one thing; passing, filling and uploading all use its two halves.
//!
//! **Mechanism.** [`next`] reads once, decodes all that came and moves the payload of several chunks together in place,
//! so that one read becomes one piece, and [`Framing::write`] sends it with its frame in one system call. The end is
//! known with the last piece where the bytes at hand prove it, so a small body costs one write.
//!
//! **Failure.** A body that breaks off is never ended on the other side: neither the last chunk nor the missing bytes of
//! a Content-Length are ever written, and the caller resets the connection. More payload than announced is not sent.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tenfold_http1::{BodyDecoder, BodyLength, CHUNK_END, LAST_CHUNK, Piece};

use crate::io::{Inbox, IoError, Reader, Writer};

/// Why a body did not come whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error(transparent)]
    Io(#[from] IoError),
    /// The framing was broken, or the peer closed before the end.
    #[error(transparent)]
    Malformed(#[from] tenfold_http1::Error),
}

/// Payload in an inbox; look at it with [`Gathered::bytes`] before the next read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathered {
    start: usize,
    len: usize,
    /// The body ended with this piece.
    pub(crate) ended: bool,
}

impl Gathered {
    pub(crate) fn bytes<'i>(&self, inbox: &'i Inbox) -> &'i [u8] {
        inbox.at(self.start, self.len)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Decodes all that the inbox holds, and moves the payload together. Never fails on bytes behind the body's end: those
/// are the next message's.
pub(crate) fn gather(inbox: &mut Inbox, decoder: &mut BodyDecoder) -> Result<Gathered, tenfold_http1::Error> {
    let (storage, mut cursor, end) = inbox.window();
    let mut gathered = Gathered { start: cursor, len: 0, ended: decoder.is_done() };
    while !gathered.ended {
        let unread = &storage[cursor..end];
        let origin = unread.as_ptr() as usize;
        let (consumed, piece) = decoder.decode(unread)?;
        let (at, len) = match piece {
            Piece::Data(payload) => (cursor + (payload.as_ptr() as usize - origin), payload.len()),
            Piece::NeedMore => {
                cursor += consumed;
                break;
            }
            Piece::End => {
                cursor += consumed;
                gathered.ended = true;
                break;
            }
        };
        cursor += consumed;
        if gathered.len == 0 {
            gathered.start = at;
        } else {
            storage.copy_within(at..at + len, gathered.start + gathered.len);
        }
        gathered.len += len;
        gathered.ended = decoder.is_done();
    }
    inbox.advance_to(cursor);
    Ok(gathered)
}

/// The next payload, waiting at most `idle` for each read. Empty only at the end. Cancellation safe as long as the
/// caller has used what it got before.
pub(crate) async fn next(
    from: &mut Reader<'_>,
    decoder: &mut BodyDecoder,
    idle: Duration,
) -> Result<Gathered, BodyError> {
    loop {
        let gathered = gather(from.inbox, decoder)?;
        if gathered.ended || !gathered.is_empty() {
            return Ok(gathered);
        }
        match from.fill(idle).await {
            Ok(_) => {}
            Err(IoError::Closed) => {
                decoder.on_eof()?;
                return Ok(Gathered { start: 0, len: 0, ended: true });
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Does nothing follow the head?
pub(crate) fn is_empty(length: BodyLength) -> bool {
    matches!(length, BodyLength::None | BodyLength::Exact(0))
}

/// How payload is framed on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body, whatever comes.
    None,
    /// Content-Length: so many bytes are still to come.
    Exact(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
    /// Ends with the connection: HTTP/1.0 clients only.
    UntilClose,
}

impl Framing {
    /// The framing that a body of this length goes on with to an HTTP/1.1 peer.
    pub(crate) fn of(length: BodyLength) -> Self {
        match length {
            BodyLength::None => Self::None,
            BodyLength::Exact(length) => Self::Exact(length),
            BodyLength::Chunked | BodyLength::UntilClose => Self::Chunked,
        }
    }

    /// Sends one piece, with what waits in the outbox before it. `ended` ends the body with it.
    ///
    /// # Errors
    /// Those of the socket; [`tenfold_http1::Error::Truncated`] for payload that contradicts the announced length.
    pub(crate) async fn write(
        &mut self,
        to: &mut Writer<'_>,
        payload: &[u8],
        ended: bool,
    ) -> Result<(), BodyError> {
        match self {
            Self::None => to.flush().await?,
            Self::UntilClose => to.write([payload, &[], &[]]).await?,
            Self::Exact(left) => {
                let len = payload.len() as u64;
                if len > *left || (ended && len < *left) {
                    return Err(tenfold_http1::Error::Truncated.into());
                }
                *left -= len;
                to.write([payload, &[], &[]]).await?;
            }
            Self::Chunked => write_chunk(to, payload, ended).await?,
        }
        Ok(())
    }
}

async fn write_chunk(to: &mut Writer<'_>, payload: &[u8], ended: bool) -> Result<(), IoError> {
    if payload.is_empty() {
        return to.write([if ended { LAST_CHUNK } else { &[] }, &[], &[]]).await;
    }
    // The outbox carries the chunk's header behind whatever head waits there.
    let written = tenfold_http1::write_chunk_header(to.outbox, payload.len() as u64);
    debug_assert!(written.is_ok(), "the payload is not empty");
    to.write([payload, CHUNK_END, if ended { LAST_CHUNK } else { &[] }]).await
}

/// Which side of a relay failed.
#[derive(Debug)]
pub(crate) enum RelayError {
    Source(BodyError),
    Sink(BodyError),
}

/// Moves one body from one socket to another. `limit` bounds the payload; more is [`RelayEnd::TooLarge`]. `seen` is shown
/// each piece before the other side is, and whether the body ends with it: who has the whole may count on what `seen` does.
pub(crate) async fn relay(
    from: &mut Reader<'_>,
    (decoder, idle): (&mut BodyDecoder, Duration),
    to: &mut Writer<'_>,
    framing: &mut Framing,
    limit: u64,
    mut seen: impl FnMut(&[u8], bool),
) -> Result<RelayEnd, RelayError> {
    let mut moved = 0_u64;
    loop {
        let piece = next_or_flush(from, decoder, idle, to).await?;
        let payload = piece.bytes(from.inbox);
        moved = moved.saturating_add(payload.len() as u64);
        if moved > limit {
            return Ok(RelayEnd::TooLarge);
        }
        seen(payload, piece.ended);
        framing.write(to, payload, piece.ended).await.map_err(RelayError::Sink)?;
        if piece.ended {
            return Ok(RelayEnd::Whole);
        }
        if std::mem::take(&mut to.waited) {
            from.pause();
        }
    }
}

/// The next payload. A head that waits for company in the outbox goes alone rather than wait for it.
async fn next_or_flush(
    from: &mut Reader<'_>,
    decoder: &mut BodyDecoder,
    idle: Duration,
    to: &mut Writer<'_>,
) -> Result<Gathered, RelayError> {
    let mut piece = pin!(next(from, decoder, idle));
    if !to.outbox.is_empty() {
        let first = poll_fn(|cx| Poll::Ready(piece.as_mut().poll(cx))).await;
        if let Poll::Ready(piece) = first {
            return piece.map_err(RelayError::Source);
        }
        to.flush().await.map_err(|error| RelayError::Sink(error.into()))?;
    }
    piece.await.map_err(RelayError::Source)
}

/// How a relay ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayEnd {
    /// The body went over whole.
    Whole,
    /// It was cut at the limit; the other side must be aborted.
    TooLarge,
}

/// Reads a body to its end and drops it, at most `limit` bytes of it and for at most `time` in all. True if it ended.
pub(crate) async fn discard(
    from: &mut Reader<'_>,
    decoder: &mut BodyDecoder,
    time: Duration,
    limit: u64,
) -> bool {
    let mut dropped = 0_u64;
    from.timer.arm(time);
    while dropped <= limit {
        match gather(from.inbox, decoder) {
            Ok(piece) if piece.ended => return true,
            Ok(piece) => dropped += piece.bytes(from.inbox).len() as u64,
            Err(_) => return false,
        }
        match from.fill_armed().await {
            Ok(_) => {}
            Err(IoError::Closed) => return decoder.on_eof().is_ok(),
            Err(_) => return false,
        }
    }
    false
}
