//! The old process's side: one successor after the other is let in, until one has taken over.
//!
//! **Mechanism.** One thread talks to whoever came, in the order that [`super`] describes, and reads; a second one sends,
//! from the moment the successor accepts. What concerns this process's own parts is asked of the control thread.
//!
//! **Failure.** A successor that says nonsense, or goes, ends the conversation. If it had not taken over yet, the pooler
//! gets back what was not sent, the control thread accepts again, and the next one may come.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver as Frames;
use std::time::Duration;

use tenfold_pooler::Pooler;
use tenfold_pooler::handover::{Heard, KINDS, Outbox};
use tenfold_service::clock::Clock;
use tenfold_service::handover::{Frame, PrivateSocket, Receiver, Sender, Writer, split};
use tenfold_service::limits::ConnectionLimits;
use tokio::sync::{mpsc, oneshot};

use super::door::Ask;
use super::{
    ANSWER_LIMIT, COMMITTED, FORMAT, HELLO, Hello, LEFT, LISTENED, LISTENER, READY, REFUSED, WELCOME, outbox,
    pump,
};
use crate::log::Log;

/// After a failed `accept`, so that the loop doesn't spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// How often the successor hears how many are left.
const COUNT_AGAIN: Duration = Duration::from_millis(500);

/// What the door's thread works with.
pub struct Leaving {
    /// To the control thread.
    pub asks: mpsc::Sender<Ask>,
    /// The pooler.
    pub pooler: Option<Pooler>,
    /// Counts the edge's connections.
    pub limits: Arc<ConnectionLimits>,
    /// What is worth a line.
    pub log: Log,
    /// Time.
    pub clock: Clock,
}

/// Why a conversation ended.
#[derive(Debug)]
enum Over {
    Io(io::Error),
    /// The other side said what it should not.
    Nonsense,
    /// The control thread is gone: the process ends.
    Ending,
    Refused(String),
}

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Nonsense => f.write_str("it does not speak as a tenfold does"),
            Self::Ending => f.write_str("this process ends"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl Leaving {
    /// Until a successor has taken over.
    pub fn run(&self, socket: &PrivateSocket) {
        loop {
            let stream = match socket.accept() {
                Ok(stream) => stream,
                Err(_) => {
                    std::thread::park_timeout(ACCEPT_PAUSE);
                    continue;
                }
            };
            match self.converse(stream) {
                Ok(true) | Err(Over::Ending) => return,
                Ok(false) => {}
                Err(over) => self.log.warn(&format!("nobody took over: {over}")),
            }
        }
    }

    /// One successor. True if it has taken over.
    fn converse(&self, stream: UnixStream) -> Result<bool, Over> {
        let (mut sender, mut receiver) = split(stream)?;
        receiver.set_limit(Some(ANSWER_LIMIT))?;
        let Some(frame) = receiver.receive()? else { return Ok(false) };
        let hello = Hello::read(&frame.body).ok().filter(|_| frame.kind == HELLO).ok_or(Over::Nonsense)?;
        if let Err(over) = self.let_in(&hello, &mut sender) {
            if let Over::Refused(why) = &over {
                let mut body = Writer::new();
                body.text(why);
                sender.send(&Frame::new(REFUSED, body))?;
            }
            return Err(over);
        }
        receiver.set_limit(None)?;
        match receiver.receive()? {
            Some(frame) if frame.kind == READY => self.hand_over(&hello, sender, &mut receiver),
            Some(_) => Err(Over::Nonsense),
            None => Err(Over::Refused(format!("process {} gave up before it was ready", hello.pid))),
        }
    }

    /// Shows a successor what there is.
    fn let_in(&self, hello: &Hello, sender: &mut Sender) -> Result<(), Over> {
        if hello.format != FORMAT {
            let (own, other, version) = (FORMAT, hello.format, &hello.version);
            let why = format!(
                "the running tenfold {} hands over in format {own}, and tenfold {version} expects format {other}; stop it and start the new one",
                env!("CARGO_PKG_VERSION"),
            );
            return Err(Over::Refused(why));
        }
        let spots = self.ask(|reply| Ask::Begin { reply })?.map_err(Over::Refused)?;
        sender.send(&Hello::own(self.pooler.is_some()).frame(WELCOME))?;
        for (spot, socket) in spots {
            let frame = Frame { descriptor: Some(socket), ..Frame::new(LISTENER, spot.write()) };
            sender.send(&frame)?;
        }
        Ok(sender.send(&Frame::new(LISTENED, Writer::new()))?)
    }

    fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Over> {
        let (reply, answer) = oneshot::channel();
        self.asks.blocking_send(ask(reply)).map_err(|_| Over::Ending)?;
        answer.blocking_recv().map_err(|_| Over::Ending)
    }

    /// The successor accepts: everybody who can goes there.
    fn hand_over(&self, hello: &Hello, sender: Sender, receiver: &mut Receiver) -> Result<bool, Over> {
        let pooler = self.pooler.as_ref().filter(|_| hello.has_pooler);
        let (own, frames) = outbox();
        let first = self
            .ask(|reply| Ask::Ready { outbox: pooler.map(|_| own.clone()), reply })?
            .map_err(Over::Refused)?;
        self.log.info(&format!("process {} (tenfold {}) takes over", hello.pid, hello.version));
        let is_over = AtomicBool::new(false);
        let closer = sender.try_clone()?;
        let (taken, frames, unsent) = std::thread::scope(|scope| {
            let sending = scope.spawn(|| self.send(sender, first, frames, pooler, &is_over));
            let taken = self.listen(receiver, pooler, &own);
            // What is in it comes back once nobody has it.
            drop(own);
            // Whoever sends may be waiting for a process that reads nothing any more.
            closer.close();
            is_over.store(true, Ordering::Release);
            let (frames, unsent) = sending.join().unwrap_or_else(|_| (outbox().1, None));
            (taken, frames, unsent)
        });
        if let Some(pooler) = pooler {
            pooler.successor_gone(unsent, &frames);
        }
        let taken = taken?;
        if taken {
            self.log
                .warn("the process that took over is gone; this one serves those who stayed to their end");
        } else {
            self.asks.blocking_send(Ask::Gone).map_err(|_| Over::Ending)?;
        }
        Ok(taken)
    }

    fn send(
        &self,
        mut sender: Sender,
        first: Vec<Frame>,
        frames: Frames<Frame>,
        pooler: Option<&Pooler>,
        is_over: &AtomicBool,
    ) -> (Frames<Frame>, Option<Frame>) {
        for frame in first {
            if sender.send(&frame).is_err() {
                sender.close();
                return (frames, None);
            }
        }
        let mut counted = self.clock.now();
        let unsent = pump(&mut sender, &frames, is_over, || {
            let mut due = pooler.map(Pooler::for_successor).unwrap_or_default();
            let now = self.clock.now();
            if now.saturating_duration_since(counted) >= COUNT_AGAIN {
                counted = now;
                due.push(self.left());
            }
            due
        });
        // Whoever reads finds the end.
        sender.close();
        (frames, unsent)
    }

    fn left(&self) -> Frame {
        let clients = self.pooler.as_ref().map_or(0, Pooler::open_clients);
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mut body = Writer::new();
        body.u32(small(clients)).u32(small(self.limits.open()));
        Frame::new(LEFT, body)
    }

    /// Until the successor is gone. True if it has taken over by then.
    fn listen(&self, receiver: &mut Receiver, pooler: Option<&Pooler>, own: &Outbox) -> Result<bool, Over> {
        let mut is_taken = false;
        if pooler.is_none() {
            self.commit(own)?;
            is_taken = true;
        }
        while let Ok(Some(frame)) = receiver.receive() {
            let heard = match pooler {
                Some(pooler) if KINDS.contains(&frame.kind) => pooler.successor_says(frame).ok(),
                _ => None,
            };
            match heard {
                Some(Heard::Nothing) => {}
                Some(Heard::Taken) if is_taken => {}
                Some(Heard::Taken) => {
                    self.commit(own)?;
                    is_taken = true;
                }
                None => {
                    self.log.warn("the process that took over does not speak as a tenfold does");
                    break;
                }
            }
        }
        Ok(is_taken)
    }

    fn commit(&self, own: &Outbox) -> Result<(), Over> {
        self.ask(|reply| Ask::Taken { reply })?;
        // The thread that sends never waits for this one.
        let _ = own.send(Frame::new(COMMITTED, Writer::new()));
        Ok(())
    }
}
