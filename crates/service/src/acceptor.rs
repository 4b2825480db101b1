//! One thread accepts for everybody, counts, and hands each socket to the worker with the fewest.
//!
//! **Intuition.** A listening socket per worker would let the kernel hash connections onto cores, and a few long ones
//! would land unevenly; closing such a socket would drop its queue. One acceptor knows all counts, so it decides.
//!
//! **Mechanism.** The acceptor's runtime has one task per listener. It accepts until the kernel has no more, asks
//! [`ConnectionLimits`] for a [`Permit`], and sends the socket to a worker with the fewest open
//! connections, in turn among equals; or to a tier with threads of its own ([`Serving::HandOver`]), which chooses
//! itself. Listeners, over TCP or in the file system, are added and removed while it runs ([`AcceptorHandle`]), shared with
//! another process and left to it: who listens on the same socket accepts from the same queue.
//!
//! **Failure.** Over a limit, the listener's refusal is written if the socket takes it at once, and the socket is closed.
//! Without descriptors or kernel memory, accepting pauses for [`PAUSE_MS`] and goes on; a connection that died in the
//! queue is skipped. When the process drains or a listener is removed, what the kernel has already queued is still
//! accepted, then the socket is closed. All of it is counted.

use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::errno::Errno;
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::{Builder, LocalOptions},
    sync::{mpsc, oneshot, watch},
};

pub use crate::socket::{Address, BACKLOG, Listener, Peer, Stream};
use crate::{
    Error,
    drain::{Drain, DrainWatch, TaskGuard},
    limits::{ConnectionLimits, Permit, Refused},
    metrics::{Counter, Registry},
    socket::{SocketFile, Source},
    worker::{Worker, WorkerHandle, Workers},
};

/// How long accepting pauses when the process has no descriptor left.
pub const PAUSE_MS: u64 = 100;

/// Orders from [`AcceptorHandle`] that wait at once.
const ORDERS_MAX: usize = 64;

/// What a client has already sent is read up to here before a refused socket is closed, lest the kernel answer it with a
/// reset that overtakes the refusal.
const REFUSED_READ_BYTES_MAX: usize = 16 * 1_024;

/// A future that lives on one worker.
pub type LocalBoxFuture = Pin<Box<dyn Future<Output = ()> + 'static>>;

/// Serves one connection, on the worker it was handed to.
pub type Handler = Arc<dyn Fn(Rc<Worker>, Accepted) -> LocalBoxFuture + Send + Sync>;

/// The bytes to say before closing a refused connection: prebuilt, short, sent only if the socket takes them at once.
/// Empty for a protocol that has nothing to say.
pub type Refusal = Arc<dyn Fn(Refused) -> Arc<[u8]> + Send + Sync>;

/// Takes one connection, on the acceptor's thread: it returns at once and does not panic.
pub type HandOver = Arc<dyn Fn(Accepted) + Send + Sync>;

/// What is done with a listener's connections.
#[derive(Clone)]
pub struct Service {
    /// Serves each connection.
    pub serving: Serving,
    /// What refused connections are told.
    pub refusal: Refusal,
    /// Limits of this service alone; `None`: those of the acceptor, shared with the other services that have none.
    pub limits: Option<Arc<ConnectionLimits>>,
}

/// Who serves a connection.
#[derive(Clone)]
pub enum Serving {
    /// A task on the worker with the fewest connections.
    OnWorker(Handler),
    /// A tier that has threads of its own.
    HandOver(HandOver),
}

/// An accepted connection, counted and limited.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, non-blocking.
    pub stream: Stream,
    /// The client.
    pub peer: Peer,
    /// The address it connected to.
    pub local: Address,
    /// Keep it as long as the socket.
    pub permit: Permit,
}

/// What an acceptor needs from the process.
#[derive(Clone, Debug)]
pub struct AcceptorDeps {
    /// Limits for all its listeners together.
    pub limits: Arc<ConnectionLimits>,
    /// Where it counts.
    pub registry: Registry,
    /// The process's end.
    pub drain: Drain,
}

/// The accepting thread.
#[derive(Debug)]
pub struct Acceptor {
    handle: AcceptorHandle,
    thread: Option<JoinHandle<()>>,
}

/// Adds and removes listeners, from any thread.
#[derive(Clone, Debug)]
pub struct AcceptorHandle {
    orders: mpsc::Sender<Order>,
    /// Nobody accepts while this is true.
    parked: Arc<watch::Sender<bool>>,
}

enum Order {
    Add(Listener, Service, oneshot::Sender<Result<(), Error>>),
    Remove(Address, oneshot::Sender<bool>),
    Share(oneshot::Sender<io::Result<Vec<(Address, OwnedFd)>>>),
    OwnFiles(bool, oneshot::Sender<()>),
    GiveUp(oneshot::Sender<()>),
}

impl Acceptor {
    /// Starts the accepting thread with the listeners bound so far.
    pub fn spawn(
        listeners: Vec<(Listener, Service)>,
        workers: &Workers,
        deps: &AcceptorDeps,
    ) -> Result<Self, Error> {
        let name = "tenfold-accept";
        let failed = |source| Error::Thread { name: name.to_owned(), source };
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let (started, is_started) = std::sync::mpsc::channel();
        let (parked, is_parked) = watch::channel(false);
        let shared = Shared::new(workers.handles(), deps, is_parked);
        // Taken here, so that a drain that begins now waits for the queues to be taken.
        let guard = deps.drain.guard();
        let run = move || {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(async {
                    let mut desk = Desk::new(shared, guard);
                    let opened = listeners
                        .into_iter()
                        .try_for_each(|(listener, service)| desk.open(listener, service));
                    let is_open = opened.is_ok();
                    drop(started.send(opened));
                    if is_open {
                        desk.run(queue).await;
                    }
                }),
                Err(error) => drop(started.send(Err(failed(error)))),
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run).map_err(failed)?;
        is_started.recv().map_err(|_| Error::AcceptorStopped)??;
        let handle = AcceptorHandle { orders, parked: Arc::new(parked) };
        Ok(Self { handle, thread: Some(thread) })
    }

    /// Adds and removes listeners.
    #[must_use]
    pub fn handle(&self) -> AcceptorHandle {
        self.handle.clone()
    }

    /// Waits until every listener is closed, which they are once the drain has begun. Blocks.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            // The thread itself does not panic; if it did, that was printed and there is nothing left to close.
            drop(thread.join());
        }
    }
}

impl AcceptorHandle {
    /// Accepts from one more listener.
    pub async fn add(&self, listener: Listener, service: Service) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Add(listener, service, reply);
        self.orders.send(order).await.map_err(|_| Error::AcceptorStopped)?;
        answer.await.unwrap_or(Err(Error::AcceptorStopped))
    }

    /// Stops listening on `local`: takes what is queued, closes, and returns once the address is free again. False if
    /// there is no such listener, or no longer. Connections it accepted stay open.
    pub async fn remove(&self, local: impl Into<Address>) -> bool {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order::Remove(local.into(), reply)).await.is_err() {
            return false;
        }
        answer.await.unwrap_or(false)
    }

    /// Accepts nothing, or again. The listeners stay: what comes meanwhile waits in the kernel's queues, for us or for a
    /// process that shares them. A drain that begins while this is so leaves the queues to that process.
    pub fn park(&self, on: bool) {
        // Without a listener left there is nobody to tell.
        let _ = self.parked.send(on);
    }

    /// Every listening socket once more, for another process.
    ///
    /// # Errors
    /// If there is no descriptor left for one of them, or the acceptor has stopped.
    pub async fn share(&self) -> io::Result<Vec<(Address, OwnedFd)>> {
        let stopped = || io::Error::other(Error::AcceptorStopped);
        let (reply, answer) = oneshot::channel();
        self.orders.send(Order::Share(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Whether the files of Unix sockets are removed with them: not while another process listens on the same.
    pub async fn own_files(&self, on: bool) {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order::OwnFiles(on, reply)).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// Closes all listeners and leaves their queues and files to the process that shares them.
    pub async fn give_up(&self) {
        let (reply, answer) = oneshot::channel();
        self.park(true);
        if self.orders.send(Order::GiveUp(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }
}

impl Accepted {
    /// A connection that another process accepted. It counts, whatever the limits say: it was let in already.
    #[must_use]
    pub fn taken_over(
        stream: Stream,
        peer: Peer,
        local: Address,
        limits: &Arc<ConnectionLimits>,
        drain: &Drain,
    ) -> Self {
        let mut permit = limits.acquire_anyway(peer.ip());
        permit.hold_drain(drain.guard());
        Self { stream, peer, local, permit }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

/// The accepting thread's own state: which listeners run.
struct Desk {
    shared: Rc<Shared>,
    open: Vec<Open>,
    /// Keeps the drain waiting until every queue is taken.
    _guard: TaskGuard,
}

/// A listener whose task runs.
struct Open {
    local: Address,
    socket: Rc<AsyncFd<Source>>,
    /// Of a Unix socket: whether its file goes with it.
    file_is_ours: Option<Arc<AtomicBool>>,
    /// Dropped or sent: the task takes what is queued and closes.
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

/// What the listeners' tasks share.
struct Shared {
    workers: Vec<WorkerHandle>,
    /// Where the search for the worker with the fewest begins, so that equals take turns.
    turn: std::cell::Cell<usize>,
    limits: Arc<ConnectionLimits>,
    drain: Drain,
    watch: DrainWatch,
    parked: watch::Receiver<bool>,
    accepted: Counter,
    refused_total: Counter,
    refused_per_ip: Counter,
    refused_worker: Counter,
    pauses: Counter,
    errors: Counter,
}

impl Desk {
    fn new(shared: Shared, guard: TaskGuard) -> Self {
        Self { shared: Rc::new(shared), open: Vec::new(), _guard: guard }
    }

    /// Takes orders until the drain begins, then sees every listener closed.
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let shared = Rc::clone(&self.shared);
        loop {
            // Both branches are cancellation safe.
            let order = tokio::select! {
                biased;
                () = shared.watch.begun() => break,
                order = orders.recv() => order,
            };
            match order {
                // A caller who no longer waits for the answer is no matter.
                Some(Order::Add(listener, service, reply)) => drop(reply.send(self.open(listener, service))),
                Some(Order::Remove(local, reply)) => self.close(&local, reply),
                Some(Order::Share(reply)) => drop(reply.send(self.share())),
                Some(Order::OwnFiles(on, reply)) => {
                    self.own_files(on);
                    let _ = reply.send(());
                }
                Some(Order::GiveUp(reply)) => {
                    self.own_files(false);
                    self.close_all().await;
                    let _ = reply.send(());
                }
                None => break,
            }
        }
        self.close_all().await;
    }

    async fn close_all(&mut self) {
        for open in self.open.drain(..) {
            drop(open.stop);
            drop(open.socket);
            drop(open.task.await);
        }
    }

    fn share(&self) -> io::Result<Vec<(Address, OwnedFd)>> {
        let shared = |open: &Open| {
            let socket = open.socket.get_ref().as_fd().try_clone_to_owned()?;
            Ok((open.local.clone(), socket))
        };
        self.open.iter().map(shared).collect()
    }

    fn own_files(&self, on: bool) {
        for is_ours in self.open.iter().filter_map(|open| open.file_is_ours.as_ref()) {
            is_ours.store(on, Ordering::Relaxed);
        }
    }

    fn open(&mut self, listener: Listener, service: Service) -> Result<(), Error> {
        let Listener { source, local, file } = listener;
        // Accepting with our own call: the runtime's would enter each socket in its event loop, only to take it out.
        let socket = watched(source).map_err(|source| Error::Register { address: local.clone(), source })?;
        let (socket, file_is_ours) = (Rc::new(socket), file.as_ref().map(|file| Arc::clone(&file.is_ours)));
        let (stop, stopped) = oneshot::channel();
        let shared = Rc::clone(&self.shared);
        let limits = service.limits.clone().unwrap_or_else(|| Arc::clone(&shared.limits));
        let queue = Queue { local: local.clone(), service, limits, shared, _file: file };
        let task = tokio::task::spawn_local(queue.serve(Rc::clone(&socket), stopped));
        self.open.push(Open { local, socket, file_is_ours, stop, task });
        Ok(())
    }

    fn close(&mut self, local: &Address, reply: oneshot::Sender<bool>) {
        let Some(position) = self.open.iter().position(|open| open.local == *local) else {
            let _ = reply.send(false);
            return;
        };
        let open = self.open.swap_remove(position);
        drop(open.stop);
        drop(open.socket);
        // Ends when the listener's queue is taken, which is bounded by its length.
        tokio::task::spawn_local(async move {
            drop(open.task.await);
            let _ = reply.send(true);
        });
    }
}

/// One listener's task.
struct Queue {
    local: Address,
    service: Service,
    limits: Arc<ConnectionLimits>,
    shared: Rc<Shared>,
    _file: Option<SocketFile>,
}

/// Has the runtime tell when a connection queues.
#[expect(
    deprecated,
    reason = "its successor is unsafe, for sources whose descriptor changes; a listener's does not"
)]
fn watched(source: Source) -> io::Result<AsyncFd<Source>> {
    AsyncFd::with_interest(source, Interest::READABLE)
}

impl Queue {
    async fn serve(self, socket: Rc<AsyncFd<Source>>, mut stopped: oneshot::Receiver<()>) {
        let mut parked = self.shared.parked.clone();
        loop {
            let is_parked = *parked.borrow_and_update();
            let accept = async {
                match is_parked {
                    true => std::future::pending().await,
                    false => socket.async_io(Interest::READABLE, Source::accept).await,
                }
            };
            // All branches are cancellation safe: an accept that is not ready has taken nothing.
            let accepted = tokio::select! {
                biased;
                _ = &mut stopped => break,
                () = self.shared.watch.begun() => break,
                Ok(()) = parked.changed() => continue,
                accepted = accept => accepted,
            };
            self.admit_or_pause(accepted).await;
        }
        if !*parked.borrow() {
            self.take_queued(socket.get_ref()).await;
        }
    }

    /// The clients in the kernel's queue have their handshake done: closing now would reset them. As many as the queue
    /// holds are taken; more would be clients who came after the end.
    async fn take_queued(&self, source: &Source) {
        for _ in 0..BACKLOG {
            let accepted = source.accept();
            if accepted.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return;
            }
            self.admit_or_pause(accepted).await;
            if self.shared.watch.is_forced() {
                return;
            }
        }
    }

    async fn admit_or_pause(&self, accepted: io::Result<(Stream, Peer)>) {
        let error = match accepted {
            Ok((stream, peer)) => return self.admit(stream, peer),
            Err(error) => error,
        };
        match AcceptFailure::of(&error) {
            AcceptFailure::ClientLeft => {}
            AcceptFailure::Exhausted => {
                self.shared.pauses.add(1);
                self.shared.pause().await;
            }
            AcceptFailure::Other => {
                self.shared.errors.add(1);
                self.shared.pause().await;
            }
        }
    }

    fn admit(&self, stream: Stream, peer: Peer) {
        let permit = match peer.ip() {
            Some(ip) => self.limits.try_acquire(ip),
            None => self.limits.try_acquire_local(),
        };
        let permit = match permit {
            Ok(permit) => permit,
            Err(refused) => return self.refuse(&stream, refused),
        };
        let local = match &self.local {
            Address::Tcp(address) if address.ip().is_unspecified() => {
                stream.local_addr().map_or_else(|| self.local.clone(), Address::Tcp)
            }
            known => known.clone(),
        };
        self.hand_over(Accepted { stream, peer, local, permit });
    }

    fn hand_over(&self, mut accepted: Accepted) {
        accepted.permit.hold_drain(self.shared.drain.guard());
        let handler = match &self.service.serving {
            Serving::OnWorker(handler) => Arc::clone(handler),
            Serving::HandOver(take) => {
                self.shared.accepted.add(1);
                return take(accepted);
            }
        };
        let worker = self.shared.least_busy();
        accepted.permit.count_on(worker.open_counter());
        match worker.spawn(move |worker| handler(worker, accepted)) {
            Ok(()) => self.shared.accepted.add(1),
            // The socket went with the closure and is closed by now.
            Err(_) => self.shared.refused_worker.add(1),
        }
    }

    fn refuse(&self, stream: &Stream, refused: Refused) {
        self.shared.count_refused(refused);
        let bytes = (self.service.refusal)(refused);
        if !bytes.is_empty() {
            stream.say_and_close(&bytes, &mut [0; REFUSED_READ_BYTES_MAX]);
        }
    }
}

impl Shared {
    fn new(workers: Vec<WorkerHandle>, deps: &AcceptorDeps, parked: watch::Receiver<bool>) -> Self {
        let registry = &deps.registry;
        let refused = |refused: Refused| {
            registry.counter(
                "tenfold_service_connections_refused",
                "Connections closed at once, by reason.",
                &[("reason", refused.as_str())],
            )
        };
        let limits = Arc::clone(&deps.limits);
        registry.gauge_fn("tenfold_service_connections_open", "Client connections open.", &[], move || {
            limits.open() as f64
        });
        let limits = Arc::clone(&deps.limits);
        registry.gauge_fn(
            "tenfold_service_connections_max",
            "Limit on open client connections.",
            &[],
            move || limits.total_max() as f64,
        );
        Self {
            workers,
            turn: std::cell::Cell::new(0),
            limits: Arc::clone(&deps.limits),
            drain: deps.drain.clone(),
            watch: deps.drain.watch(),
            parked,
            accepted: registry.counter(
                "tenfold_service_connections_accepted",
                "Connections accepted and handed to a worker.",
                &[],
            ),
            refused_total: refused(Refused::Total),
            refused_per_ip: refused(Refused::PerIp),
            refused_worker: refused(Refused::Worker),
            pauses: registry.counter(
                "tenfold_service_accept_pauses",
                "Pauses of the acceptor for want of descriptors or memory.",
                &[],
            ),
            errors: registry.counter("tenfold_service_accept_errors", "Other errors while accepting.", &[]),
        }
    }

    fn least_busy(&self) -> &WorkerHandle {
        let count = self.workers.len();
        let first = self.turn.get();
        let nearest = (0..count).map(|step| (first + step) % count);
        let chosen = nearest.min_by_key(|index| self.workers[*index].open_connections());
        let chosen = chosen.expect("there is at least one worker");
        self.turn.set((chosen + 1) % count);
        &self.workers[chosen]
    }

    fn count_refused(&self, refused: Refused) {
        match refused {
            Refused::Total => self.refused_total.add(1),
            Refused::PerIp => self.refused_per_ip.add(1),
            Refused::Worker => self.refused_worker.add(1),
        }
    }

    /// Waits for others to give descriptors back; not when nobody waits for us any longer.
    async fn pause(&self) {
        // Both branches are cancellation safe.
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(PAUSE_MS)) => {}
            () = self.watch.forced() => {}
        }
    }
}

/// What a failed accept means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptFailure {
    /// The connection ended while queued, or its network failed: the next one may be fine.
    ClientLeft,
    /// No descriptor, buffer or memory: more of the same until something is given back.
    Exhausted,
    /// Unexpected; pausing keeps it from spinning.
    Other,
}

impl AcceptFailure {
    /// After accept(2): errors pending on the new socket are reported by the call and are to be treated as "try again".
    fn of(error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ECONNABORTED | Errno::EINTR | Errno::EPROTO | Errno::ENOPROTOOPT) => Self::ClientLeft,
            Some(Errno::ENETDOWN | Errno::ENETUNREACH | Errno::EHOSTDOWN | Errno::EHOSTUNREACH) => {
                Self::ClientLeft
            }
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => Self::Exhausted,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_accept_is_skipped_or_waited_out() {
        fn check(errno: Errno, expected: AcceptFailure) {
            assert_eq!(AcceptFailure::of(&io::Error::from(errno)), expected, "{errno}");
        }
        check(Errno::ECONNABORTED, AcceptFailure::ClientLeft);
        check(Errno::EPROTO, AcceptFailure::ClientLeft);
        check(Errno::EHOSTUNREACH, AcceptFailure::ClientLeft);
        check(Errno::EMFILE, AcceptFailure::Exhausted);
        check(Errno::ENFILE, AcceptFailure::Exhausted);
        check(Errno::ENOBUFS, AcceptFailure::Exhausted);
        check(Errno::ENOMEM, AcceptFailure::Exhausted);
        check(Errno::EINVAL, AcceptFailure::Other);
        assert_eq!(AcceptFailure::of(&io::Error::other("no number")), AcceptFailure::Other);
    }
}
