//! Origins that do what a test says: echo, answer by path, or play a script byte by byte.
//!
//! **Intuition.** An edge is only as good as what it does with bad origins. These answer late, short, twice or not at
//! all, on command and without sleeping: a [`Gate`] holds an answer back until the test opens it.
//!
//! **Mechanism.** One accepting thread, one thread a connection, blocking sockets, an own lenient reader. What arrived
//! is counted by method and target and kept, so a test asks "how often did this reach the origin" and reads the very
//! bytes.
//!
//! **Failure.** Dropping an origin closes its connections with a reset and frees the port; [`Origin::stop`] does so on
//! purpose, and [`Origin::restart`] comes back on the same port. Records beyond [`RECEIVED_MAX`] push the oldest out.

mod answer;
mod gate;
mod script;
mod serve;

pub use answer::Answer;
pub use gate::Gate;
pub use script::Step;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::message::{self, Message};
use crate::try_wait_for;

/// Requests kept for [`Origin::received`].
pub const RECEIVED_MAX: usize = 20_000;
/// Different methods and targets counted one by one; more share no counter.
pub const COUNTED_TARGETS_MAX: usize = 200_000;

/// How long a stop waits for the connections' threads.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// A request as it reached the origin.
#[derive(Clone, Debug)]
pub struct Received {
    /// As sent.
    pub method: String,
    /// As sent, query included.
    pub target: String,
    /// In order, names as written.
    pub fields: Vec<(String, String)>,
    /// Decoded.
    pub body: Vec<u8>,
    /// Head and undecoded body, the very bytes.
    pub raw: Vec<u8>,
    /// Which connection brought it, counted from zero.
    pub connection: u64,
}

impl Received {
    fn new(message: Message, connection: u64) -> Self {
        let mut words = message.start_line.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (method, target) = (word(), word());
        Self { method, target, fields: message.fields, body: message.body, raw: message.raw, connection }
    }

    /// The target without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The first field of that name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        message::field(&self.fields, name)
    }
}

/// A listening origin. Dropping it frees the port.
#[derive(Debug)]
pub struct Origin {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Origin {
    /// Answers every request with a JSON account of it: `method`, `target`, `fields` (pairs, in order), `body`,
    /// `connection`, `count` (how often this method and target came, this one included). [`Origin::set`] overrides a
    /// path.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn echo() -> io::Result<Self> {
        Self::start(Behaviour::Table(answer::echo))
    }

    /// Answers 404 until [`Origin::set`] says otherwise.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn kv() -> io::Result<Self> {
        Self::start(Behaviour::Table(|_, _| Answer::new(404).body("nothing is set for this path\n")))
    }

    /// Answers what `handler` says; it runs on the connection's thread.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn serve(handler: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> io::Result<Self> {
        Self::start(Behaviour::Handler(Box::new(handler)))
    }

    /// [`Origin::serve`] on an address of the caller's choice.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn serve_at(
        addr: SocketAddr,
        handler: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::start_at(addr, Behaviour::Handler(Box::new(handler)))
    }

    /// Plays `steps` on every connection, then closes it.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn scripted(steps: Vec<Step>) -> io::Result<Self> {
        Self::scripted_each(vec![steps])
    }

    /// Plays the first script on the first connection, the second on the second; the last on all that follow.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn scripted_each(scripts: Vec<Vec<Step>>) -> io::Result<Self> {
        Self::start(Behaviour::Scripts(scripts))
    }

    fn start(behaviour: Behaviour) -> io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), behaviour)
    }

    fn start_at(addr: SocketAddr, behaviour: Behaviour) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::new(behaviour));
        let acceptor = Some(serve::accept(listener, Arc::clone(&shared))?);
        Ok(Self { addr, shared, acceptor })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:port` and the path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// What to answer for this path, whatever the method and query, from now on.
    pub fn set(&self, path: &str, answer: Answer) {
        lock(&self.shared.answers).insert(path.to_owned(), answer);
    }

    /// What to answer for the paths that nothing is set for, from now on; instead of the echo or the 404.
    pub fn set_default(&self, answer: Answer) {
        *lock(&self.shared.default_answer) = Some(answer);
    }

    /// All requests whose head and body were read.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Requests with this method and exactly this target.
    #[must_use]
    pub fn count(&self, method: &str, target: &str) -> u64 {
        lock(&self.shared.counts).get(&count_key(method, target)).copied().unwrap_or(0)
    }

    /// The requests so far, oldest first, at most [`RECEIVED_MAX`].
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).iter().cloned().collect()
    }

    /// The latest request.
    #[must_use]
    pub fn last(&self) -> Option<Received> {
        lock(&self.shared.received).back().cloned()
    }

    /// Connections open now.
    #[must_use]
    pub fn connections_open(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// Connections ever accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Answers that could not be completed because the client had left.
    #[must_use]
    pub fn abandoned(&self) -> u64 {
        self.shared.abandoned.load(Ordering::SeqCst)
    }

    /// Forgets counts and records; open connections stay.
    pub fn forget(&self) {
        lock(&self.shared.counts).clear();
        lock(&self.shared.received).clear();
        self.shared.requests.store(0, Ordering::SeqCst);
        self.shared.abandoned.store(0, Ordering::SeqCst);
    }

    /// Closes every connection, idle or not, as an origin's keep-alive timeout does (FIN).
    pub fn close_connections(&self) {
        for stream in lock(&self.shared.open).values().filter_map(|open| open.stream.upgrade()) {
            // A connection that ended on its own in this moment is what was wanted.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Resets every connection (RST), as a killed process does.
    pub fn reset_connections(&self) {
        for open in lock(&self.shared.open).values() {
            open.is_doomed.store(true, Ordering::SeqCst);
            // Wakes the connection's thread without sending a FIN; the reset goes out when it lets go.
            let _ = open.stream.upgrade().map(|stream| stream.shutdown(Shutdown::Read));
        }
    }

    /// Stops listening and resets every connection: connects are refused from now on. Counts and records stay.
    pub fn stop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor; if even that fails, it wakes at the next connection.
        let _ = TcpStream::connect(self.addr);
        let _ = acceptor.join();
        self.reset_connections();
        // A handler that is busy may take longer; what it answers is reset all the same.
        let _ = try_wait_for("the connections to end", STOP_LIMIT, || self.connections_open() == 0);
    }

    /// Listens on the same port again.
    ///
    /// # Errors
    /// If somebody else took the port.
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop();
        let listener = TcpListener::bind(self.addr)?;
        self.shared.stopping.store(false, Ordering::SeqCst);
        self.acceptor = Some(serve::accept(listener, Arc::clone(&self.shared))?);
        Ok(())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
    }
}

type Handler = dyn Fn(&Received) -> Answer + Send + Sync;

enum Behaviour {
    /// What is set for the path, or what the function says.
    Table(fn(&Received, u64) -> Answer),
    Handler(Box<Handler>),
    Scripts(Vec<Vec<Step>>),
}

/// What the connections' threads and the test both see.
struct Shared {
    behaviour: Behaviour,
    answers: Mutex<HashMap<String, Answer>>,
    default_answer: Mutex<Option<Answer>>,
    counts: Mutex<HashMap<String, u64>>,
    received: Mutex<VecDeque<Received>>,
    requests: AtomicU64,
    connections: AtomicU64,
    abandoned: AtomicU64,
    open: Mutex<HashMap<u64, Open>>,
    stopping: AtomicBool,
}

/// A connection as the test's side sees it.
struct Open {
    /// Weak, so that its thread holds the last handle, and letting go of that can reset.
    stream: Weak<TcpStream>,
    /// It ends in a reset, whatever its thread was about to say.
    is_doomed: Arc<AtomicBool>,
}

impl Shared {
    fn new(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            answers: Mutex::default(),
            default_answer: Mutex::default(),
            counts: Mutex::default(),
            received: Mutex::default(),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            open: Mutex::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Records a request; says how often its method and target have come, this one included.
    fn record(&self, request: &Received) -> u64 {
        let count = {
            let mut counts = lock(&self.counts);
            let key = count_key(&request.method, &request.target);
            if counts.len() < COUNTED_TARGETS_MAX || counts.contains_key(&key) {
                let count = counts.entry(key).or_insert(0);
                *count += 1;
                *count
            } else {
                0
            }
        };
        let mut received = lock(&self.received);
        if received.len() == RECEIVED_MAX {
            received.pop_front();
        }
        received.push_back(request.clone());
        drop(received);
        self.requests.fetch_add(1, Ordering::SeqCst);
        count
    }

    fn answer(&self, request: &Received, count: u64) -> Answer {
        let otherwise = match &self.behaviour {
            Behaviour::Table(otherwise) => otherwise,
            Behaviour::Handler(handler) => return handler(request),
            Behaviour::Scripts(_) => unreachable!("scripts do not answer requests"),
        };
        if let Some(answer) = lock(&self.answers).get(request.path()) {
            return answer.clone();
        }
        let default = lock(&self.default_answer).clone();
        default.unwrap_or_else(|| otherwise(request, count))
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("requests", &self.requests).finish_non_exhaustive()
    }
}

fn count_key(method: &str, target: &str) -> String {
    format!("{method} {target}")
}

/// A panic in one connection's thread must not hide what the others recorded.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
