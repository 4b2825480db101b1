//! Calls with a budget, over one connection that is made again when it breaks.
//!
//! **Mechanism.** Calls are pipelined on one connection. [`Link::keep`] makes it: connect, one `PING` that has to be
//! answered within [`Config::probe`], and the link is up until the breaker opens or the connection breaks. So a server that
//! accepts connections and answers nothing (stopped, swapping, on the far side of a cut) never comes up.
//!
//! **Failure.** A call that is given up leaves its answer to be thrown away by the connection; the breaker sees to it that
//! few of them gather before the connection goes. A server that has become a replica or is still loading counts as away.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::breaker::Breaker;
use crate::endpoint::Endpoint;
use crate::{CallError, Config};

/// Reads the time.
pub(crate) type Now = Arc<dyn Fn() -> Instant + Send + Sync>;

/// The connection, on its own thread.
pub struct Link {
    pub(crate) config: Config,
    pub(crate) endpoint: Endpoint,
    connection: RefCell<Option<MultiplexedConnection>>,
    breaker: RefCell<Breaker>,
    /// Which connection it is: what befalls calls on an earlier one says nothing about this one.
    generation: Cell<u64>,
    in_flight: Cell<usize>,
    /// Told when the connection has been given up.
    down: Notify,
    now: Now,
    pub(crate) counters: Arc<Counters>,
}

/// What happened, as a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connected, and answering in time.
    pub up: bool,
    /// Calls made.
    pub calls: u64,
    /// Calls that took longer than they may.
    pub timed_out: u64,
    /// Calls that the server refused.
    pub refused: u64,
    /// Calls not made, since the server was away.
    pub down: u64,
    /// Calls and jobs not made, since too many were under way.
    pub busy: u64,
    /// Connections that were made and answered a probe.
    pub connects: u64,
}

/// The counters behind it.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) up: AtomicBool,
    pub(crate) calls: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) down: AtomicU64,
    pub(crate) busy: AtomicU64,
    pub(crate) connects: AtomicU64,
}

/// Between two probes of a connection that is held.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// One may be late for reasons of our own.
const PROBES_MISSED_MAX: u32 = 2;

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            up: self.up.load(Ordering::Relaxed),
            calls: read(&self.calls),
            timed_out: read(&self.timed_out),
            refused: read(&self.refused),
            down: read(&self.down),
            busy: read(&self.busy),
            connects: read(&self.connects),
        }
    }
}

/// Counts a call for as long as it is under way.
struct InFlight<'l>(&'l Cell<usize>);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Link {
    pub(crate) fn new(config: Config, endpoint: Endpoint, now: Now, counters: Arc<Counters>) -> Self {
        Self {
            config,
            endpoint,
            connection: RefCell::new(None),
            breaker: RefCell::new(Breaker::new()),
            generation: Cell::new(0),
            in_flight: Cell::new(0),
            down: Notify::new(),
            now,
            counters,
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        (self.now)()
    }

    /// Whether calls are worth making.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.connection.borrow().is_some()
    }

    /// Makes one call, for which the caller waits at most `budget`.
    ///
    /// # Errors
    /// [`CallError`]. Given up or broken, it may have been carried out all the same.
    pub async fn call(&self, command: &Cmd, budget: Duration) -> Result<Value, CallError> {
        let Some(mut connection) = self.connection.borrow().clone() else {
            count(&self.counters.down);
            return Err(CallError::Down);
        };
        if self.in_flight.get() >= self.config.in_flight_max {
            count(&self.counters.busy);
            return Err(CallError::Busy);
        }
        self.in_flight.set(self.in_flight.get() + 1);
        let _in_flight = InFlight(&self.in_flight);
        count(&self.counters.calls);
        let generation = self.generation.get();
        match timeout(budget, connection.send_packed_command(command)).await {
            Ok(Ok(Value::ServerError(error))) => Err(self.on_error(&error.into(), generation)),
            Ok(Ok(value)) => {
                self.breaker.borrow_mut().on_success();
                Ok(value)
            }
            Ok(Err(error)) => Err(self.on_error(&error, generation)),
            Err(_) => {
                count(&self.counters.timed_out);
                let is_this_one = generation == self.generation.get();
                if is_this_one && self.breaker.borrow_mut().on_failure(self.now()) {
                    self.give_up();
                }
                Err(CallError::TimedOut)
            }
        }
    }

    fn on_error(&self, error: &RedisError, generation: u64) -> CallError {
        let text = error.to_string();
        let away = matches!(
            error.kind(),
            ErrorKind::Server(
                ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown
            )
        );
        if away || !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
            if generation == self.generation.get() {
                self.breaker.borrow_mut().open(self.now());
                self.give_up();
            }
            return CallError::Broken(text);
        }
        // It answered in time, whatever it thinks of the question.
        self.breaker.borrow_mut().on_success();
        count(&self.counters.refused);
        CallError::Refused(text)
    }

    fn give_up(&self) {
        self.generation.set(self.generation.get() + 1);
        self.connection.replace(None);
        self.counters.up.store(false, Ordering::Relaxed);
        self.down.notify_one();
    }

    /// Keeps a connection for as long as the thread runs.
    pub(crate) async fn keep(&self) {
        loop {
            if let Some(connection) = self.connect().await {
                self.breaker.borrow_mut().close(self.now());
                self.connection.replace(Some(connection));
                count(&self.counters.connects);
                self.counters.up.store(true, Ordering::Relaxed);
                self.hold().await;
            }
            let pause = self.breaker.borrow_mut().next_pause();
            sleep(pause).await;
        }
    }

    /// Until the connection is given up. While nobody calls, or whatever they find, a probe goes out now and then, so that
    /// a server that went away is known before somebody pays for it.
    async fn hold(&self) {
        let mut missed = 0;
        while self.is_up() {
            // Elapsed or told, there is to look.
            let _ = timeout(PROBE_EVERY, self.down.notified()).await;
            match self.call(&redis::cmd("PING"), self.config.probe).await {
                Err(CallError::TimedOut) => missed += 1,
                _ => missed = 0,
            }
            if missed >= PROBES_MISSED_MAX && self.is_up() {
                self.breaker.borrow_mut().open(self.now());
                self.give_up();
            }
        }
    }

    /// A connection that has answered a probe in time.
    async fn connect(&self) -> Option<MultiplexedConnection> {
        let mut connection = self.endpoint.connect(&self.config).await.ok()?;
        let ping = redis::cmd("PING");
        let answered = timeout(self.config.probe, connection.send_packed_command(&ping)).await;
        matches!(answered, Ok(Ok(value)) if !matches!(value, Value::ServerError(_))).then_some(connection)
    }
}
