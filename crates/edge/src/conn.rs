//! One client connection, from its first byte to its last.
//!
//! **Intuition.** Read, decide, answer, again. What is decided in one go ([`crate::dispatch`]) is written in one go; what
//! has to wait for a node is awaited here, in the connection's own task. Between requests a connection is a socket, two
//! disarmed timers and nothing else.
//!
//! **Mechanism.** Requests that arrived together are answered together: answers collect in the outbox until there is no
//! whole request left in the inbox, or the outbox is long. The head's time runs from its first byte and is not renewed
//! by dribbling. While the process drains every answer says `Connection: close`; a connection that is idle then may still
//! bring a request for [`DRAIN_GRACE`], so that a client that reuses it in that moment loses nothing.
//!
//! **Failure.** After a refusal that leaves unread bytes behind, closing at once would make the kernel reset the
//! connection and take the answer with it. So the edge ends its own side, reads what comes for a while and a limited
//! number of bytes, and only then closes ([`Connection::linger`]).

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tenfold_cache::Body;
use tenfold_http1::{Error as Malformed, parse_request};
use tenfold_service::acceptor::{Accepted, Stream};
use tokio::net::TcpStream;

use crate::config::Limits;
use crate::dispatch::{Entrance, Step};
use crate::fetch;
use crate::io::{IoError, Pace, Socket, give_outbox, take_outbox};
use crate::local::Local;
use crate::pass::{client_pace, client_reason, pass};
use crate::reason::Reason;
use crate::task::{Described, Task};

/// How long an idle connection may still bring a request once the process drains.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// How long, and for how many bytes, a connection is read after its last answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1 << 20;
/// Answers collected before they are written, in bytes.
const BATCH_BYTES_MAX: usize = 64 * 1024;
const EMPTY_LINE: &[u8] = b"\r\n";
/// Answers given without a pause before the worker's other tasks get their turn.
const TURN_ANSWERS_MAX: u32 = 64;

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The next request.
    KeepAlive,
    /// The client has been told; it gets the time to read.
    Close,
    /// Reset, so that what was cut short can't be taken for the whole.
    Abort,
}

impl After {
    /// After an answer that went out whole.
    pub(crate) fn of(close: bool) -> Self {
        if close { Self::Close } else { Self::KeepAlive }
    }
}

struct Connection {
    local: Rc<Local>,
    socket: Socket,
    peer: std::net::IpAddr,
    /// Requests begun.
    requests: u64,
    turns: Turns,
    /// Belongs to the parser.
    scanned: usize,
    /// The task is woken when the process begins to drain.
    watches_drain: bool,
    /// Of the snapshot that the last request saw.
    waits: Waits,
}

/// Answers since this task last waited. A client that pipelines without end must not have the worker for itself.
#[derive(Debug, Default)]
struct Turns(u32);

impl Turns {
    /// One more; lets the others go first when it is their turn.
    async fn take(&mut self) {
        self.0 += 1;
        if self.0 >= TURN_ANSWERS_MAX {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// How long a connection waits for its client.
#[derive(Clone, Copy, Debug)]
struct Waits {
    head_read: Duration,
    keep_alive: Duration,
    pace: Pace,
}

impl Waits {
    fn of(limits: &Limits) -> Self {
        Self { head_read: limits.head_read, keep_alive: limits.keep_alive, pace: client_pace(limits) }
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(local: Rc<Local>, accepted: Accepted) {
    let Accepted { stream, peer, permit, .. } = accepted;
    // The edge listens on TCP alone; a client has an address.
    let (Stream::Tcp(stream), Some(peer)) = (stream, peer.ip()) else { return };
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let timers = &local.worker.timers;
    let socket = Socket::new(stream, timers.timer(), timers.timer());
    let worker = Rc::clone(&local.worker);
    let waits = Waits::of(&local.shared.snapshot.load().config.limits);
    let mut connection = Connection {
        local,
        socket,
        peer,
        requests: 0,
        turns: Turns::default(),
        scanned: 0,
        watches_drain: false,
        waits,
    };
    let drain = pin!(worker.drain.begun());
    connection.run(drain).await;
    drop(connection);
    drop(permit);
}

impl Connection {
    async fn run(&mut self, mut drain: Pin<&mut impl Future<Output = ()>>) {
        loop {
            let Some(step) = self.next(drain.as_mut()).await else { return };
            let after = match step {
                Step::Answered { body, close } => self.answer(body, close).await,
                Step::Pass(task) => Box::pin(self.wait(task, None)).await,
                Step::Follow(task, follower) => Box::pin(self.wait(task, Some(follower))).await,
            };
            match after {
                After::KeepAlive => self.turns.take().await,
                After::Close => return Box::pin(self.linger()).await,
                After::Abort => return self.socket.abort(),
            }
        }
    }

    /// The next request, decided. `None` ends the connection.
    async fn next(&mut self, mut drain: Pin<&mut impl Future<Output = ()>>) -> Option<Step> {
        let mut head_begun = false;
        let mut line_skipped = false;
        loop {
            // Some clients send an empty line behind a body (RFC 9112 §2.2). Alone it begins no request.
            if !head_begun && !line_skipped && self.socket.inbox.bytes() == EMPTY_LINE {
                line_skipped = true;
                self.socket.inbox.consume(EMPTY_LINE.len());
            }
            if !self.socket.inbox.is_empty() {
                if let Some(step) = self.decide() {
                    return Some(step);
                }
                if !head_begun {
                    head_begun = true;
                    self.socket.read_timer.arm(self.waits.head_read);
                }
            }
            if !self.socket.outbox.is_empty() && self.write(None).await != After::KeepAlive {
                self.socket.abort();
                return None;
            }
            let read = if self.socket.inbox.is_empty() {
                self.wait_idle(drain.as_mut()).await
            } else {
                self.socket.reader().fill_armed().await
            };
            match read {
                Ok(count) => self.local.shared.metrics.client_bytes_read.add(count as u64),
                Err(IoError::Idle) if head_begun && !EMPTY_LINE.starts_with(self.socket.inbox.bytes()) => {
                    return Some(self.refuse(Reason::HeadTimeout));
                }
                // Between requests anybody may leave; within a head there is nobody left to tell.
                Err(_) => return None,
            }
        }
    }

    /// Parses and decides. `None`: more bytes are needed, and there is room for them.
    fn decide(&mut self) -> Option<Step> {
        let snapshot = self.local.shared.snapshot.load();
        let entrance = Entrance {
            local: &self.local,
            snapshot: &snapshot,
            peer: self.peer,
            last: self.requests + 1 >= snapshot.config.limits.requests_per_connection_max,
            now: self.local.worker.clock.now(),
        };
        self.waits = Waits::of(&snapshot.config.limits);
        let Socket { inbox, outbox, read_timer, .. } = &mut self.socket;
        if outbox.capacity() == 0 {
            *outbox = take_outbox();
        }
        let parsed = match parse_request(inbox.bytes(), &mut self.scanned, &snapshot.codec) {
            Ok(Some((head, consumed))) => {
                read_timer.disarm();
                Ok(Some((entrance.dispatch(&head, outbox), consumed)))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let refused = match parsed {
            Ok(Some((step, consumed))) => {
                inbox.consume(consumed);
                self.requests += 1;
                self.local.requests.add(1);
                return Some(step);
            }
            Ok(None) if inbox.make_room(snapshot.codec.head_bytes_max) => return None,
            Ok(None) => Malformed::HeadTooLong,
            Err(error) => error,
        };
        Some(entrance.refuse_bytes(refused.into(), outbox))
    }

    fn refuse(&mut self, reason: Reason) -> Step {
        let snapshot = self.local.shared.snapshot.load();
        let now = self.local.worker.clock.now();
        let entrance = Entrance { local: &self.local, snapshot: &snapshot, peer: self.peer, last: true, now };
        entrance.refuse_bytes(reason, &mut self.socket.outbox)
    }

    /// Waits for a request's first bytes, holding no buffer meanwhile.
    async fn wait_idle(&mut self, mut drain: Pin<&mut impl Future<Output = ()>>) -> Result<usize, IoError> {
        self.socket.inbox.release();
        give_outbox(std::mem::take(&mut self.socket.outbox));
        let drain_watch = &self.local.worker.drain;
        let mut grace_begun = drain_watch.is_draining();
        self.socket.read_timer.arm(if grace_begun { DRAIN_GRACE } else { self.waits.keep_alive });
        let watches_drain = &mut self.watches_drain;
        let turns = &mut self.turns;
        let mut reader = self.socket.reader();
        poll_fn(|cx| {
            if let Poll::Ready(result) = reader.poll_fill(cx) {
                return Poll::Ready(match result {
                    Ok(0) => Err(IoError::Closed),
                    Ok(count) => Ok(count),
                    Err(error) => Err(IoError::Lost(error)),
                });
            }
            *turns = Turns::default();
            // Once is enough: a task's waker stays the same.
            if !std::mem::replace(watches_drain, true) {
                let _ = drain.as_mut().poll(cx);
            }
            if !grace_begun && drain_watch.is_draining() {
                grace_begun = true;
                reader.timer.arm(DRAIN_GRACE);
            }
            reader.timer.poll_expired(cx).map(|()| Err(IoError::Idle))
        })
        .await
    }

    /// Sends an answer that is ready, unless more requests are waiting to be answered with it.
    async fn answer(&mut self, body: Option<Body>, close: bool) -> After {
        let batched = body.is_none()
            && !close
            && !self.socket.inbox.is_empty()
            && self.socket.outbox.len() < BATCH_BYTES_MAX;
        if batched {
            return After::KeepAlive;
        }
        match self.write(body.as_ref()).await {
            After::KeepAlive => After::of(close),
            after => after,
        }
    }

    /// Sends the outbox and what stands behind it.
    async fn write(&mut self, body: Option<&Body>) -> After {
        let mut writer = self.socket.writer(self.waits.pace);
        let result = match body {
            Some(body) => writer.write_body(body).await,
            None => writer.flush().await,
        };
        self.local.shared.metrics.client_bytes_written.add(writer.written);
        match result {
            Ok(()) => After::KeepAlive,
            Err(error) => self.cut(&error),
        }
    }

    /// The client didn't take its answer.
    fn cut(&self, error: &IoError) -> After {
        self.local.shared.metrics.on_refusal(client_reason(error));
        After::Abort
    }

    /// Answers a request that has to wait for a node or for a fill, and accounts for it.
    async fn wait(&mut self, mut task: Box<Task>, follower: Option<tenfold_cache::Follower>) -> After {
        if !self.socket.outbox.is_empty() && self.write(None).await != After::KeepAlive {
            return After::Abort;
        }
        let after = match follower {
            Some(follower) => {
                Box::pin(fetch::follow(&self.local, &mut self.socket, &mut task, follower)).await
            }
            None => pass(&self.local, &mut self.socket, &mut task).await,
        };
        self.local.shared.metrics.client_bytes_written.add(task.account.body_bytes);
        let (method, target, host) = task.request.described();
        task.account.close(&self.local, &task.snapshot, Some(task.route), || Described {
            client: task.client.ip,
            request_id: &task.request_id,
            method,
            host,
            target,
        });
        after
    }

    /// Ends our side and reads on for a while, so that the last answer is not overtaken by a reset.
    async fn linger(&mut self) {
        let stream = socket2::SockRef::from(&self.socket.stream);
        if stream.shutdown(std::net::Shutdown::Write).is_err() {
            return;
        }
        let mut dropped = 0;
        self.socket.read_timer.arm(LINGER);
        let mut reader = self.socket.reader();
        while dropped < LINGER_BYTES_MAX {
            reader.inbox.consume(usize::MAX);
            match reader.fill_armed().await {
                Ok(count) => dropped += count,
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_answers_without_a_pause_lets_others_go_first() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let other = tokio::task::spawn_local(async {});
            let mut turns = Turns::default();
            for _ in 1..TURN_ANSWERS_MAX {
                turns.take().await;
            }
            assert!(!other.is_finished(), "a few answers are no reason to pause");
            turns.take().await;
            assert!(other.is_finished());
        });
    }
}
