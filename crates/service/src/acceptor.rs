//! One thread accepts for everybody, counts, and hands each socket to the worker with the fewest.
//!
//! **Intuition.** A listening socket per worker would let the kernel hash connections onto cores, and a few long ones
//! would land unevenly; closing such a socket would drop its queue. One acceptor knows all counts, so it decides.
//!
//! **Mechanism.** The acceptor's runtime has one task per listener. It accepts until the kernel has no more, asks
//! [`ConnectionLimits`] for a [`Permit`], sets TCP_NODELAY, and sends the socket to a worker with the fewest open
//! connections, in turn among equals. Listeners are added and removed while it runs ([`AcceptorHandle`]).
//!
//! **Failure.** Over a limit, the listener's refusal is written if the socket takes it at once, and the socket is closed.
//! Without descriptors or kernel memory, accepting pauses for [`PAUSE_MS`] and goes on; a connection that died in the
//! queue is skipped. When the process drains or a listener is removed, what the kernel has already queued is still
//! accepted, then the socket is closed. All of it is counted.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, oneshot},
};

use crate::{
    Error,
    drain::{Drain, DrainWatch, TaskGuard},
    limits::{ConnectionLimits, Permit, Refused},
    metrics::{Counter, Registry},
    worker::{Worker, WorkerHandle, Workers},
};

/// Connections the kernel queues per listener until they are accepted. It lowers this to `net.core.somaxconn`.
pub const BACKLOG: i32 = 4_096;

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

/// A bound socket that nobody accepts from yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
}

/// What is done with a listener's connections.
#[derive(Clone)]
pub struct Service {
    /// Serves each connection.
    pub handler: Handler,
    /// What refused connections are told.
    pub refusal: Refusal,
}

/// An accepted connection, counted and limited.
#[derive(Debug)]
pub struct Accepted {
    /// Non-blocking, with TCP_NODELAY set.
    pub stream: TcpStream,
    /// The client.
    pub peer: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
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
}

enum Order {
    Add(Listener, Service, oneshot::Sender<Result<(), Error>>),
    Remove(SocketAddr, oneshot::Sender<bool>),
}

impl Listener {
    /// Binds and listens; connections queue from here on. Port 0 takes a free one. `[::]` accepts IPv4 too.
    pub fn bind(address: SocketAddr) -> Result<Self, Error> {
        Self::try_bind(address).map_err(|source| Error::Bind { address, advice: advice_on(&source), source })
    }

    fn try_bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restarted process must not wait for the last one's connections to leave TIME_WAIT.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from(socket);
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }

    /// The address it listens on, with the port the kernel chose.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
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
        let shared = Shared::new(workers.handles(), deps);
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
        Ok(Self { handle: AcceptorHandle { orders }, thread: Some(thread) })
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
    pub async fn remove(&self, local: SocketAddr) -> bool {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order::Remove(local, reply)).await.is_err() {
            return false;
        }
        answer.await.unwrap_or(false)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

/// What to do about an address that cannot be bound.
fn advice_on(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the address is in use; stop the process that listens there (`ss -ltnp` names it) or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; ports below 1024 need the capability CAP_NET_BIND_SERVICE, or choose a higher port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; use one of its own, or 0.0.0.0 or [::] for all of them"
        }
        _ => "the operating system refused it",
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
    local: SocketAddr,
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
                Some(Order::Remove(local, reply)) => self.close(local, reply),
                None => break,
            }
        }
        for open in self.open.drain(..) {
            drop(open.stop);
            drop(open.task.await);
        }
    }

    fn open(&mut self, listener: Listener, service: Service) -> Result<(), Error> {
        let local = listener.local;
        let socket = tokio::net::TcpListener::from_std(listener.socket)
            .map_err(|source| Error::Register { address: local, source })?;
        let (stop, stopped) = oneshot::channel();
        let queue = Queue { local, service, shared: Rc::clone(&self.shared) };
        let task = tokio::task::spawn_local(queue.serve(socket, stopped));
        self.open.push(Open { local, stop, task });
        Ok(())
    }

    fn close(&mut self, local: SocketAddr, reply: oneshot::Sender<bool>) {
        let Some(position) = self.open.iter().position(|open| open.local == local) else {
            let _ = reply.send(false);
            return;
        };
        let open = self.open.swap_remove(position);
        drop(open.stop);
        // Ends when the listener's queue is taken, which is bounded by its length.
        tokio::task::spawn_local(async move {
            drop(open.task.await);
            let _ = reply.send(true);
        });
    }
}

/// One listener's task.
struct Queue {
    local: SocketAddr,
    service: Service,
    shared: Rc<Shared>,
}

impl Queue {
    async fn serve(self, socket: tokio::net::TcpListener, mut stopped: oneshot::Receiver<()>) {
        loop {
            // All branches are cancellation safe: an accept that is not ready has taken nothing.
            let accepted = tokio::select! {
                biased;
                _ = &mut stopped => break,
                () = self.shared.watch.begun() => break,
                accepted = socket.accept() => accepted,
            };
            let accepted = accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer)));
            self.admit_or_pause(accepted).await;
        }
        // Only where the runtime refuses to give the socket back is there nothing to take.
        if let Ok(socket) = socket.into_std() {
            self.take_queued(&socket).await;
        }
    }

    /// The clients in the kernel's queue have their handshake done: closing now would reset them. As many as the queue
    /// holds are taken; more would be clients who came after the end.
    async fn take_queued(&self, socket: &TcpListener) {
        for _ in 0..BACKLOG {
            let accepted = socket.accept().and_then(|(stream, peer)| {
                stream.set_nonblocking(true)?;
                Ok((stream, peer))
            });
            if accepted.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return;
            }
            self.admit_or_pause(accepted).await;
            if self.shared.watch.is_forced() {
                return;
            }
        }
    }

    async fn admit_or_pause(&self, accepted: io::Result<(TcpStream, SocketAddr)>) {
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

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        // A client that is gone already makes this fail; then there is nobody to serve.
        if stream.set_nodelay(true).is_err() {
            self.shared.errors.add(1);
            return;
        }
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let permit = match self.shared.limits.try_acquire(peer.ip()) {
            Ok(permit) => permit,
            Err(refused) => return self.refuse(&stream, refused),
        };
        let local = if self.local.ip().is_unspecified() {
            stream.local_addr().unwrap_or(self.local)
        } else {
            self.local
        };
        self.hand_over(Accepted { stream, peer, local, permit });
    }

    fn hand_over(&self, mut accepted: Accepted) {
        let worker = self.shared.least_busy();
        accepted.permit.hand_over(worker.open_counter(), self.shared.drain.guard());
        let handler = Arc::clone(&self.service.handler);
        match worker.spawn(move |worker| handler(worker, accepted)) {
            Ok(()) => self.shared.accepted.add(1),
            // The socket went with the closure and is closed by now.
            Err(_) => self.shared.refused_worker.add(1),
        }
    }

    fn refuse(&self, stream: &TcpStream, refused: Refused) {
        self.shared.count_refused(refused);
        let bytes = (self.service.refusal)(refused);
        if !bytes.is_empty() {
            say_and_close(stream, &bytes);
        }
    }
}

impl Shared {
    fn new(workers: Vec<WorkerHandle>, deps: &AcceptorDeps) -> Self {
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

/// Best effort, never waiting: the refusal, then an orderly close. What the client has sent is read first, because a
/// socket closed with unread bytes resets the connection, and a reset can overtake the refusal.
fn say_and_close(mut stream: &TcpStream, bytes: &[u8]) {
    if stream.write(bytes).is_err() || stream.shutdown(std::net::Shutdown::Write).is_err() {
        return;
    }
    let mut scratch = [0; REFUSED_READ_BYTES_MAX];
    // Nothing to read yet, or the end: either way the socket is closed now.
    let _ = stream.read(&mut scratch);
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

    #[test]
    fn advice_fits_the_error() {
        fn check(errno: Errno, advice: &str) {
            assert!(advice_on(&io::Error::from(errno)).contains(advice), "{errno}");
        }
        check(Errno::EADDRINUSE, "another port");
        check(Errno::EACCES, "CAP_NET_BIND_SERVICE");
        check(Errno::EADDRNOTAVAIL, "0.0.0.0 or [::]");
        check(Errno::EAFNOSUPPORT, "refused");
    }
}
