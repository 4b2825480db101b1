//! The new process's side: it knocks, gets the sockets, and later the clients.
//!
//! **Mechanism.** [`knock`] asks the running process for its listening sockets before anything is bound; what the new
//! configuration does not name is closed again, which leaves the old process's own descriptor open. Everything is built
//! and started, and then [`Taking::ready`] says so; from then on one thread reads and one sends.
//!
//! **Failure.** An error before that leaves the old process as it is. One that ends later leaves this one as it is: what
//! the old one's clients held of the pools is free.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::Receiver as Frames;
use std::time::Duration;

use tenfold_pooler::Pooler;
use tenfold_pooler::handover::{KINDS, Outbox};
use tenfold_service::acceptor::Address;
use tenfold_service::handover::{Frame, Reader, Receiver, Sender, Writer, connect, split};
use tenfold_service::metrics::Registry;
use tokio::sync::oneshot;

use super::{
    ANSWER_LIMIT, COMMITTED, HELLO, Hello, LEFT, LISTENED, LISTENER, READY, REFUSED, Role, Spot, WELCOME,
    outbox, pump,
};
use crate::log::Log;

/// How often a process that is handing its door over is asked, and with what pause.
const KNOCKS_MAX: usize = 100;
const KNOCK_AGAIN: Duration = Duration::from_millis(100);
/// Listening sockets of one process.
const SOCKETS_MAX: usize = 1_024;

/// A running process that is being taken over.
pub struct Taking {
    sender: Sender,
    receiver: Receiver,
    sockets: Vec<(Spot, OwnedFd)>,
    outbox: Outbox,
    frames: Frames<Frame>,
    /// What the running process said of itself.
    pub hello: Hello,
}

/// What is left there, for the metrics.
#[derive(Debug, Default)]
struct LeftBehind {
    clients: AtomicU32,
    connections: AtomicU32,
}

/// Why there is nothing to take.
enum Shut {
    /// Nobody is there.
    Nobody,
    /// Somebody was, and hung up: a restart that is just ending.
    HungUp,
    /// What to tell the person who asked.
    For(String),
}

/// Asks the process behind this socket for what it has. `None` if there is none. A process that is about to hand its own
/// door over is given time to do so.
///
/// # Errors
/// Why it does not give it, for the person who asked.
pub async fn knock(path: &Path, has_pooler: bool) -> Result<Option<Taking>, String> {
    let mut has_hung_up = false;
    for _ in 0..KNOCKS_MAX {
        match try_knock(path, has_pooler) {
            Ok(taking) => return Ok(Some(taking)),
            Err(Shut::Nobody) if !has_hung_up => return Ok(None),
            Err(Shut::Nobody | Shut::HungUp) => has_hung_up = true,
            Err(Shut::For(why)) => return Err(why),
        }
        tokio::time::sleep(KNOCK_AGAIN).await;
    }
    Err("cannot take over: the running process hung up".into())
}

fn try_knock(path: &Path, has_pooler: bool) -> Result<Taking, Shut> {
    let stream = match connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(Shut::Nobody);
        }
        Err(error) => return Err(Shut::For(format!("cannot take over by {}: {error}", path.display()))),
    };
    let told = split(stream).and_then(|(sender, receiver)| {
        receiver.set_limit(Some(ANSWER_LIMIT))?;
        Ok((sender, receiver))
    });
    let (sender, receiver) = told.map_err(|error| Shut::For(format!("cannot take over: {error}")))?;
    let (outbox, frames) = outbox();
    let mut taking =
        Taking { sender, receiver, sockets: Vec::new(), outbox, frames, hello: Hello::own(has_pooler) };
    taking.greet()?;
    Ok(taking)
}

impl Taking {
    fn greet(&mut self) -> Result<(), Shut> {
        let broken = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => Shut::For(
                "the running process does not answer; perhaps another one is taking over".to_owned(),
            ),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Shut::HungUp,
            _ => Shut::For(format!("cannot take over: {error}")),
        };
        let nonsense =
            || Shut::For("cannot take over: the running process does not speak as a tenfold does".to_owned());
        self.sender.send(&self.hello.frame(HELLO)).map_err(broken)?;
        loop {
            let frame = self.receiver.receive().map_err(broken)?.ok_or(Shut::HungUp)?;
            match (frame.kind, frame.descriptor) {
                (WELCOME, None) => self.hello = Hello::read(&frame.body).map_err(|_| nonsense())?,
                (LISTENER, Some(socket)) if self.sockets.len() < SOCKETS_MAX => {
                    self.sockets.push((Spot::read(&frame.body).map_err(|_| nonsense())?, socket));
                }
                (LISTENED, None) => return Ok(()),
                (REFUSED, None) => {
                    let why = Reader::new(&frame.body).text().map_err(|_| nonsense())?;
                    return Err(Shut::For(format!("the running process is not taken over: {why}")));
                }
                _ => return Err(nonsense()),
            }
        }
    }

    /// The socket that listens at a configured place, if the running process has it: once.
    pub fn take(&mut self, role: Role, at: &Address) -> Option<OwnedFd> {
        let position = self.sockets.iter().position(|(spot, _)| spot.role == role && spot.at == *at)?;
        Some(self.sockets.swap_remove(position).1)
    }

    /// As [`Taking::take`], for a TCP socket of the admin server.
    pub fn take_admin(&mut self, role: Role, at: std::net::SocketAddr) -> Option<TcpListener> {
        let socket = TcpListener::from(self.take(role, &Address::Tcp(at))?);
        socket.set_nonblocking(true).ok()?;
        Some(socket)
    }

    /// Closes what nobody here wants. The running process listens there still.
    pub fn close_rest(&mut self) {
        self.sockets.clear();
    }

    /// Where the pooler puts what is for the running process.
    #[must_use]
    pub fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    /// Says that this process accepts. The answer comes when the running one never will again, or has gone.
    ///
    /// # Errors
    /// If it cannot be told, or there is no thread to be had.
    pub fn ready(
        self,
        pooler: Option<Pooler>,
        registry: &Registry,
        log: Log,
    ) -> io::Result<oneshot::Receiver<()>> {
        let Self { mut sender, mut receiver, frames, outbox, .. } = self;
        receiver.set_limit(None)?;
        sender.send(&Frame::new(READY, Writer::new()))?;
        let left = Arc::new(LeftBehind::default());
        left.register(registry);
        let (committed, is_committed) = oneshot::channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, sending) = (Arc::clone(&is_over), pooler.clone());
        std::thread::Builder::new().name("tenfold-predecessor-out".into()).spawn(move || {
            let due = || sending.as_ref().map(Pooler::for_predecessor).unwrap_or_default();
            pump(&mut sender, &frames, &over, due);
            sender.close();
        })?;
        std::thread::Builder::new().name("tenfold-predecessor".into()).spawn(move || {
            listen(&mut receiver, pooler.as_ref(), &left, committed, &log);
            is_over.store(true, Ordering::Release);
            drop(outbox);
            left.clients.store(0, Ordering::Relaxed);
            left.connections.store(0, Ordering::Relaxed);
            if let Some(pooler) = pooler {
                pooler.predecessor_gone();
            }
        })?;
        Ok(is_committed)
    }
}

/// Until the running process has ended.
fn listen(
    receiver: &mut Receiver,
    pooler: Option<&Pooler>,
    left: &LeftBehind,
    committed: oneshot::Sender<()>,
    log: &Log,
) {
    let mut committed = Some(committed);
    while let Ok(Some(frame)) = receiver.receive() {
        let understood = match (frame.kind, pooler) {
            (COMMITTED, _) => {
                if let Some(committed) = committed.take() {
                    // The process may be about to end.
                    let _ = committed.send(());
                }
                true
            }
            (LEFT, _) => left.read(&frame.body),
            (kind, Some(pooler)) if KINDS.contains(&kind) => pooler.predecessor_says(frame).is_ok(),
            _ => false,
        };
        if !understood {
            log.warn("the process before this one does not speak as a tenfold does");
            return;
        }
    }
    log.info("the process before this one has ended");
}

impl LeftBehind {
    fn register(self: &Arc<Self>, registry: &Registry) {
        let left = Arc::clone(self);
        let help = "PostgreSQL clients that the process before this one still serves.";
        registry.gauge_fn("tenfold_predecessor_clients", help, &[], move || {
            left.clients.load(Ordering::Relaxed).into()
        });
        let left = Arc::clone(self);
        let help = "HTTP connections that the process before this one still serves.";
        registry.gauge_fn("tenfold_predecessor_connections", help, &[], move || {
            left.connections.load(Ordering::Relaxed).into()
        });
    }

    fn read(&self, body: &[u8]) -> bool {
        let mut body = Reader::new(body);
        let (Ok(clients), Ok(connections)) = (body.u32(), body.u32()) else { return false };
        self.clients.store(clients, Ordering::Relaxed);
        self.connections.store(connections, Ordering::Relaxed);
        body.end().is_ok()
    }
}
