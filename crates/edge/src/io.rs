//! Sockets as the edge sees them: a stream, what was read and not yet used, what is to be written, and two timers.
//!
//! **Intuition.** A client and a node are the same thing with the roles exchanged, so both are a [`Socket`]. It splits
//! into a [`Reader`] and a [`Writer`] that work at the same time in one task, which is what a body streamed both ways
//! needs. Nothing is read before there is room and nothing is kept that could be written, so back-pressure is simply
//! the absence of reading.
//!
//! **Mechanism.** Read buffers and outgoing heads come from a small pool of the thread and go back to it as soon as they
//! are empty: an idle connection holds none. Every read and write is first tried on the socket; only one that would
//! block arms a timer, and arming is a store.
//!
//! **Failure.** [`IoError`] says which of the few ways it went wrong: the peer left, stood still, or was too slow. After
//! any of them the stream's position is unknown and the socket is closed. Buffers are bounded by [`BUFFER_BYTES`], or by
//! the head's limit where a head needs more.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::libc::{MSG_MORE, MSG_NOSIGNAL};
use nix::sys::sendfile::sendfile;
use socket2::SockRef;
use tenfold_cache::{Body, FileRange};
use tenfold_service::timer::Timer;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// What one read may bring. Four ordinary heads, and large enough that a body costs a system call per 16 KiB.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;
/// What stands behind a head is copied to it up to this size, so that both go in one plain write: copying 4 KiB costs
/// less than the kernel's handling of a second `iovec`.
pub(crate) const COPIED_BYTES_MAX: usize = 4096;
/// Free read buffers kept by a thread: 2 MiB.
const FREE_BUFFERS_MAX: usize = 128;
/// Free outgoing buffers kept by a thread; those that grew beyond [`BUFFER_BYTES`] are not.
const FREE_OUTBOXES_MAX: usize = 128;

thread_local! {
    static FREE_BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static FREE_OUTBOXES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Why a read or a write did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IoError {
    /// The peer closed its side in an orderly way.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer reset the connection, or the network did.
    #[error("connection lost: {0}")]
    Lost(io::Error),
    /// Nothing moved for as long as was allowed.
    #[error("nothing moved for too long")]
    Idle,
    /// The peer takes or sends bytes, but slower than the minimum rate.
    #[error("the peer is too slow")]
    TooSlow,
}

impl IoError {
    /// Was it time that ran out, rather than the connection that ended?
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Self::Idle | Self::TooSlow)
    }
}

/// An outgoing buffer of the thread's pool, empty.
pub(crate) fn take_outbox() -> Vec<u8> {
    FREE_OUTBOXES.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives an outgoing buffer back.
pub(crate) fn give_outbox(mut outbox: Vec<u8>) {
    let capacity = outbox.capacity();
    if capacity == 0 || capacity > BUFFER_BYTES {
        return;
    }
    outbox.clear();
    // At thread exit the pool may be gone before the last connection.
    let _ = FREE_OUTBOXES.try_with(|free| {
        let mut free = free.borrow_mut();
        if free.len() < FREE_OUTBOXES_MAX {
            free.push(outbox);
        }
    });
}

/// Bytes read and not yet used: `storage[start..end]`. Holds storage only while there are any, or a read is under way.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    storage: Vec<u8>,
    start: usize,
    /// Always ≥ `start` and ≤ `storage.len()`.
    end: usize,
}

impl Inbox {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Marks the first `count` bytes as used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Gives the storage back to the pool if it holds nothing.
    pub(crate) fn release(&mut self) {
        if self.is_empty() && !self.storage.is_empty() {
            let storage = std::mem::take(&mut self.storage);
            self.start = 0;
            self.end = 0;
            give_buffer(storage);
        }
    }

    /// Is there room for more without growing?
    pub(crate) fn has_room(&self) -> bool {
        self.len() < self.storage.len().max(BUFFER_BYTES)
    }

    /// Makes room for more up to `bytes_max` in all; false if that much is already waiting.
    pub(crate) fn make_room(&mut self, bytes_max: usize) -> bool {
        if self.storage.is_empty() {
            self.storage = take_buffer();
        }
        if self.is_empty() {
            self.start = 0;
            self.end = 0;
        }
        if self.end < self.storage.len() {
            return true;
        }
        if self.start > 0 {
            self.storage.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            return true;
        }
        let grown = bytes_max.min(self.storage.len() * 2);
        if grown <= self.storage.len() {
            return false;
        }
        self.storage.resize(grown, 0);
        true
    }

    /// The unread bytes and the cursor for a decoder that moves payload together in place; see `body::gather`.
    pub(crate) fn window(&mut self) -> (&mut [u8], usize, usize) {
        (&mut self.storage, self.start, self.end)
    }

    /// Bytes by position in the storage, as `body::gather` left them.
    pub(crate) fn at(&self, start: usize, len: usize) -> &[u8] {
        &self.storage[start..start + len]
    }

    /// Everything before `position` in the storage is used; the bytes stay where they are until the next read.
    pub(crate) fn advance_to(&mut self, position: usize) {
        self.start = position.min(self.end);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if !self.storage.is_empty() {
            give_buffer(std::mem::take(&mut self.storage));
        }
    }
}

fn take_buffer() -> Vec<u8> {
    FREE_BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER_BYTES])
}

fn give_buffer(buffer: Vec<u8>) {
    if buffer.len() != BUFFER_BYTES {
        return;
    }
    let _ = FREE_BUFFERS.try_with(|free| {
        let mut free = free.borrow_mut();
        if free.len() < FREE_BUFFERS_MAX {
            free.push(buffer);
        }
    });
}

/// One TCP connection with its buffers and timers.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
    pub(crate) inbox: Inbox,
    /// Heads and small bodies not yet written.
    pub(crate) outbox: Vec<u8>,
    pub(crate) read_timer: Timer,
    pub(crate) write_timer: Timer,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, read_timer: Timer, write_timer: Timer) -> Self {
        Self { stream, inbox: Inbox::default(), outbox: Vec::new(), read_timer, write_timer }
    }

    /// Both directions, for use at the same time.
    pub(crate) fn split(&mut self, pace: Pace) -> (Reader<'_>, Writer<'_>) {
        let (read, write) = self.stream.split();
        let reader = Reader::new(read, &mut self.inbox, &self.read_timer);
        (reader, Writer::new(write, &mut self.outbox, &self.write_timer, pace))
    }

    pub(crate) fn reader(&mut self) -> Reader<'_> {
        let (read, _) = self.stream.split();
        Reader::new(read, &mut self.inbox, &self.read_timer)
    }

    pub(crate) fn writer(&mut self, pace: Pace) -> Writer<'_> {
        let (_, write) = self.stream.split();
        Writer::new(write, &mut self.outbox, &self.write_timer, pace)
    }

    /// Closes with a reset, so that the peer cannot take what it got for the whole.
    pub(crate) fn abort(&self) {
        // Fails only on a socket that is closed already.
        let _ = self.stream.set_zero_linger();
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        give_outbox(std::mem::take(&mut self.outbox));
    }
}

/// The reading side of a [`Socket`].
#[derive(Debug)]
pub(crate) struct Reader<'s> {
    half: ReadHalf<'s>,
    pub(crate) inbox: &'s mut Inbox,
    pub(crate) timer: &'s Timer,
    /// Bytes a second that the peer must send, measured over the limit of [`fill`](Self::fill); zero for none. May change
    /// while it is waited for.
    rate_min: Option<&'s Cell<u64>>,
    /// Bytes that came since the timer was armed, where there is such a rate.
    window: u64,
}

impl<'s> Reader<'s> {
    fn new(half: ReadHalf<'s>, inbox: &'s mut Inbox, timer: &'s Timer) -> Self {
        Self { half, inbox, timer, rate_min: None, window: 0 }
    }

    /// From now on the peer must send at least so many bytes a second, while it is waited for.
    pub(crate) fn demand(&mut self, rate_min: &'s Cell<u64>) {
        self.rate_min = Some(rate_min);
        self.pause();
    }

    /// What comes next is not the peer's doing: its rate is measured anew from the next wait on.
    pub(crate) fn pause(&mut self) {
        self.timer.disarm();
    }

    /// Ready once the peer has closed its side or the connection is lost, read or not. Cancellation safe.
    pub(crate) async fn gone(&self) {
        let stream: &TcpStream = self.half.as_ref();
        // Readable would be ready at once, as there are bytes that nobody reads; this one stands for the end alone.
        drop(stream.ready(Interest::PRIORITY | Interest::ERROR).await);
    }

    /// Reads once into the inbox, as far as its room goes; the caller has seen to it that there is some. `Ok(0)` is the
    /// end of the stream. Takes a buffer only once there is something to read. Looks at no timer.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.inbox.storage.is_empty() {
            let stream: &TcpStream = self.half.as_ref();
            ready!(stream.poll_read_ready(cx))?;
        }
        if !self.inbox.make_room(0) {
            return Poll::Pending;
        }
        let mut buffer = ReadBuf::new(&mut self.inbox.storage[self.inbox.end..]);
        match Pin::new(&mut self.half).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                let count = buffer.filled().len();
                self.inbox.end += count;
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.inbox.release();
                Poll::Pending
            }
        }
    }

    /// Waits for more bytes, at most until the timer that the caller armed expires. Cancellation safe.
    pub(crate) async fn fill_armed(&mut self) -> Result<usize, IoError> {
        poll_fn(|cx| {
            if let Poll::Ready(result) = self.poll_fill(cx) {
                return Poll::Ready(finish_read(result));
            }
            ready!(self.timer.poll_expired(cx));
            Poll::Ready(Err(IoError::Idle))
        })
        .await
    }

    /// Writes a few bytes to the peer past its writer, which must be between messages. False if they did not go out
    /// whole: the peer isn't reading, and nothing may be written behind them.
    #[must_use]
    pub(crate) fn interject(&self, bytes: &[u8]) -> bool {
        let stream: &TcpStream = self.half.as_ref();
        matches!(stream.try_write(bytes), Ok(count) if count == bytes.len())
    }

    /// Waits for more bytes, at most for `limit`; of a peer with a minimum rate, for as long as it keeps to it over each
    /// `limit`. Cancellation safe.
    pub(crate) async fn fill(&mut self, limit: Duration) -> Result<usize, IoError> {
        if self.rate_min().is_some() {
            return self.fill_paced(limit).await;
        }
        self.timer.arm(limit);
        let result = self.fill_armed().await;
        self.timer.disarm();
        result
    }
}

impl Reader<'_> {
    fn rate_min(&self) -> Option<u64> {
        self.rate_min.map(Cell::get).filter(|&rate_min| rate_min > 0)
    }

    /// The timer strikes once a window, however many reads fall into it, so that a dribbling peer can't push it away.
    async fn fill_paced(&mut self, idle: Duration) -> Result<usize, IoError> {
        loop {
            if !self.timer.is_armed() {
                self.timer.arm(idle);
                self.window = 0;
            }
            match self.fill_armed().await {
                Ok(count) => {
                    self.window += count as u64;
                    return Ok(count);
                }
                Err(IoError::Idle) => {
                    let rate_min = self.rate_min().unwrap_or(0);
                    Pace { idle, rate_min }.suffices(self.window)?;
                    self.timer.disarm();
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn finish_read(result: io::Result<usize>) -> Result<usize, IoError> {
    match result {
        Ok(0) => Err(IoError::Closed),
        Ok(count) => Ok(count),
        Err(error) => Err(IoError::Lost(error)),
    }
}

/// How slow a peer may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How long not a single byte may move.
    pub(crate) idle: Duration,
    /// Bytes a second, measured over `idle`; zero for none.
    pub(crate) rate_min: u64,
}

impl Pace {
    /// May a peer that moved so many bytes in one `idle` go on?
    fn suffices(self, moved: u64) -> Result<(), IoError> {
        if moved == 0 {
            return Err(IoError::Idle);
        }
        let wanted = u128::from(self.rate_min) * self.idle.as_millis() / 1000;
        if u128::from(moved) < wanted { Err(IoError::TooSlow) } else { Ok(()) }
    }
}

/// The writing side of a [`Socket`].
#[derive(Debug)]
pub(crate) struct Writer<'s> {
    half: WriteHalf<'s>,
    /// Goes out before anything else.
    pub(crate) outbox: &'s mut Vec<u8>,
    timer: &'s Timer,
    pace: Pace,
    /// Bytes that have left since this writer was made.
    pub(crate) written: u64,
    /// Some write had to wait for the peer.
    pub(crate) waited: bool,
    /// Part of a message may be out: whatever came behind it would be taken for its rest.
    broken: bool,
}

impl<'s> Writer<'s> {
    fn new(half: WriteHalf<'s>, outbox: &'s mut Vec<u8>, timer: &'s Timer, pace: Pace) -> Self {
        Self { half, outbox, timer, pace, written: 0, waited: false, broken: false }
    }

    /// Writes the outbox and then the three parts, whole; never again after it has failed. Not cancellation safe: a
    /// cancelled write leaves the stream in the middle of a message, so whoever cancels must close.
    pub(crate) async fn write(&mut self, parts: [&[u8]; 3]) -> Result<(), IoError> {
        if self.broken {
            return Err(IoError::Closed);
        }
        let behind = parts.iter().map(|part| part.len()).sum::<usize>();
        let total = self.outbox.len() + behind;
        let mut done = 0;
        let mut parts = parts;
        let several = !self.outbox.is_empty() || !parts[1].is_empty();
        if several && behind <= COPIED_BYTES_MAX {
            for part in &mut parts {
                self.outbox.extend_from_slice(std::mem::take(part));
            }
        }
        if total > 0 {
            done = self.try_write(parts, 0)?;
        }
        if done < total {
            self.waited = true;
            self.broken = true;
            // Boxed, as it is seldom: otherwise every future that writes would hold room for it.
            Box::pin(self.write_rest(Source::Parts(parts), done, total)).await?;
            self.broken = false;
        }
        self.outbox.clear();
        self.written += total as u64;
        Ok(())
    }

    /// Writes the outbox and then a stored body: its bytes, or from its file without copying them. As [`Writer::write`].
    pub(crate) async fn write_body(&mut self, body: &Body) -> Result<(), IoError> {
        let range = match body {
            Body::Memory(bytes) => return self.write([bytes, &[], &[]]).await,
            Body::File(range) => range,
        };
        if self.broken {
            return Err(IoError::Closed);
        }
        let total = self.outbox.len() + range.len();
        let mut done = self.try_send(range, 0)?;
        if done == self.outbox.len() {
            done += self.try_send(range, done)?;
        }
        if done < total {
            self.waited = true;
            self.broken = true;
            Box::pin(self.write_rest(Source::File(range), done, total)).await?;
            self.broken = false;
        }
        self.outbox.clear();
        self.written += total as u64;
        Ok(())
    }

    /// Writes the outbox alone.
    pub(crate) async fn flush(&mut self) -> Result<(), IoError> {
        self.write([&[], &[], &[]]).await
    }

    #[cold]
    #[inline(never)]
    async fn write_rest(&mut self, source: Source<'_>, mut done: usize, total: usize) -> Result<(), IoError> {
        let mut window_start = done;
        self.timer.arm(self.pace.idle);
        while done < total {
            let expired = poll_fn(|cx| {
                let stream: &TcpStream = self.half.as_ref();
                if let Poll::Ready(result) = stream.poll_write_ready(cx) {
                    return Poll::Ready(result.map(|()| false));
                }
                self.timer.poll_expired(cx).map(|()| Ok(true))
            })
            .await
            .map_err(IoError::Lost)?;
            if expired {
                self.pace.suffices((done - window_start) as u64)?;
                window_start = done;
                self.timer.arm(self.pace.idle);
                continue;
            }
            done += match source {
                Source::Parts(parts) => self.try_write(parts, done)?,
                Source::File(range) => self.try_send(range, done)?,
            };
        }
        self.timer.disarm();
        Ok(())
    }

    /// One attempt at what lies behind the first `done` bytes. Zero if the socket takes none now.
    fn try_write(&self, parts: [&[u8]; 3], done: usize) -> Result<usize, IoError> {
        let mut skip = done;
        let mut slices = [IoSlice::new(&[]); 4];
        let mut used = 0;
        for part in [self.outbox.as_slice(), parts[0], parts[1], parts[2]] {
            let skipped = skip.min(part.len());
            skip -= skipped;
            if skipped < part.len() {
                slices[used] = IoSlice::new(&part[skipped..]);
                used += 1;
            }
        }
        let stream: &TcpStream = self.half.as_ref();
        let result = match &slices[..used] {
            [one] => stream.try_write(one),
            many => stream.try_write_vectored(many),
        };
        unless_blocked(result)
    }

    /// One attempt at what lies behind the first `done` bytes: of the outbox, which waits for the file's first bytes to go
    /// out with it, or of the file. Zero if the socket takes none now.
    fn try_send(&self, range: &FileRange, done: usize) -> Result<usize, IoError> {
        let stream: &TcpStream = self.half.as_ref();
        let result = stream.try_io(Interest::WRITABLE, || match done.checked_sub(self.outbox.len()) {
            None => SockRef::from(stream).send_with_flags(&self.outbox[done..], MSG_MORE | MSG_NOSIGNAL),
            Some(sent) => {
                let mut offset = i64::try_from(range.start() + sent).map_err(io::Error::other)?;
                match sendfile(stream, range, Some(&mut offset), range.len() - sent)? {
                    0 if sent < range.len() => Err(io::ErrorKind::UnexpectedEof.into()),
                    count => Ok(count),
                }
            }
        });
        unless_blocked(result)
    }
}

/// What is written behind the outbox.
#[derive(Clone, Copy)]
enum Source<'s> {
    Parts([&'s [u8]; 3]),
    File(&'s FileRange),
}

fn unless_blocked(result: io::Result<usize>) -> Result<usize, IoError> {
    match result {
        Ok(count) => Ok(count),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(IoError::Lost(error)),
    }
}

#[cfg(test)]
mod tests {
    use tenfold_service::clock::Clock;
    use tenfold_service::timer::Timers;

    use super::*;

    #[test]
    fn nothing_is_written_behind_a_write_that_was_cut() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let timers = Timers::new(Clock::system());
            let mut socket = Socket::new(stream, timers.timer(), timers.timer());
            let mut writer = socket.writer(Pace { idle: Duration::from_secs(1), rate_min: 0 });
            // More than the kernel takes of a peer that reads nothing.
            let body = vec![b'x'; 64 << 20];
            {
                let mut writing = std::pin::pin!(writer.write([&body, &[], &[]]));
                let first = poll_fn(|cx| Poll::Ready(writing.as_mut().poll(cx))).await;
                assert!(first.is_pending());
            }
            assert!(matches!(writer.write([b"next", &[], &[]]).await, Err(IoError::Closed)));
        });
    }
}
