//! The tier as the binary sees it: built, started, given connections, reloaded, drained.
//!
//! **Mechanism.** [`Pooler::build`] checks the configuration and makes what is shared; [`Pooler::start`] makes the worker
//! threads; [`Pooler::control`] is to be run on the control thread; [`Pooler::accept`] hands a socket to the worker with
//! the fewest clients.
//!
//! **Failure.** Mistakes in the configuration are told by path, all at once. A worker that ends by an error of the
//! operating system is reported by [`PoolerThreads::join`].

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering, mpsc::Receiver},
    thread::JoinHandle,
};

use tenfold_service::{
    acceptor::Accepted,
    clock::Clock,
    drain::Drain,
    handover::{Frame, Malformed},
    metrics::Registry,
    rng::Rng,
};
use tenfold_sql::{Classifier, Seed};
use tokio::sync::{mpsc, oneshot};

use crate::{
    auth::{Hba, Users},
    config::{Config, ConfigError},
    console::{ConsoleApi, Tier},
    control,
    counters::Counters,
    handover::{Admit, Heard, Outbox},
    mailbox::{Ask, Order},
    pool::Pool,
    positions::Positions,
    shared::{ASKS_MAX, Database, Log, Shared},
    tls::MakeTls,
    worker::Worker,
};

/// What the tier needs from the process.
#[derive(Clone)]
pub struct Deps {
    /// Time.
    pub clock: Clock,
    /// Where it counts.
    pub registry: Registry,
    /// The process's end.
    pub drain: Drain,
    /// What is worth a line.
    pub log: Log,
    /// Randomness that must not be guessed.
    pub seed: u64,
    /// Worker threads.
    pub workers: usize,
    /// To the process: what the console asks for that is not the tier's own.
    pub process: mpsc::Sender<ProcessAsk>,
    /// To the process: TLS of what the console was told.
    pub make_tls: MakeTls,
}

/// What the console asks of the process.
#[derive(Debug)]
pub enum ProcessAsk {
    /// RELOAD: read the configuration again, all of it or nothing.
    Reload {
        /// What is wrong, if it was not applied.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// SHUTDOWN: begin the end; `at_once` cuts what is open.
    Shutdown {
        /// Do not wait for anybody.
        at_once: bool,
    },
}

/// The pooler. Clones are the same one.
#[derive(Clone)]
pub struct Pooler {
    shared: Arc<Shared>,
    asks: Arc<Mutex<Option<mpsc::Receiver<Ask>>>>,
    workers: usize,
}

/// The worker threads.
#[derive(Debug)]
pub struct PoolerThreads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// How hard a database is pressed, for whoever sends it work.
#[derive(Clone, Debug)]
pub struct Pressure {
    shared: Arc<Shared>,
    database: Arc<Database>,
}

impl std::fmt::Debug for Pooler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pooler").finish_non_exhaustive()
    }
}

impl Pooler {
    /// Checks everything, opens nothing.
    ///
    /// # Errors
    /// Every mistake in the configuration.
    pub fn build(config: Config, deps: Deps) -> Result<Self, Vec<ConfigError>> {
        config.validate()?;
        let hba = parse_hba(&config)?;
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let users = Users::new(&config);
        let counters = Counters::new(deps.workers);
        let workers = deps.workers.max(1);
        let shared = Arc::new(Shared::new(config, hba, deps, counters, users, asks));
        crate::metrics::register(&shared);
        Ok(Self { shared, asks: Arc::new(Mutex::new(Some(asked))), workers })
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// If the operating system gives no thread or no epoll.
    pub fn start(&self) -> io::Result<PoolerThreads> {
        let mut parts = Vec::new();
        for _ in 0..self.workers {
            parts.push(Worker::parts()?);
        }
        let mailboxes: Box<[_]> = parts.iter().map(|(_, mailbox)| mailbox.clone()).collect();
        let loads = (0..self.workers).map(|_| std::sync::atomic::AtomicUsize::new(0)).collect();
        if self.shared.mailboxes.set(mailboxes).is_err() || self.shared.loads.set(loads).is_err() {
            return Err(io::Error::other("the pooler was started already"));
        }
        self.shared.make_databases();
        let mut rng = Rng::new(self.shared.seed);
        let seed = Seed(std::array::from_fn(|_| rng.next_u64()));
        let mut threads = Vec::new();
        for (index, (poll, mailbox)) in parts.into_iter().enumerate() {
            let classifier = Classifier::new(seed);
            let worker = Worker::new(index, Arc::clone(&self.shared), poll, mailbox, classifier);
            let thread = std::thread::Builder::new().name(format!("pooler-{index}"));
            threads.push(thread.spawn(move || worker.run())?);
        }
        Ok(PoolerThreads { shared: Arc::clone(&self.shared), threads })
    }

    /// Hands over a client that has connected.
    pub fn accept(&self, accepted: Accepted) {
        let worker = self.shared.least_busy();
        self.shared.tell(worker, Order::Client(Box::new(accepted)));
    }

    /// An online restart begins: clients go to a successor as they come to rest. Gives what the successor is to be sent
    /// before anything that is in its outbox.
    #[must_use]
    pub fn hand_over(&self, outbox: Outbox, admit: Admit) -> Vec<Frame> {
        self.shared.hand_over(outbox, admit)
    }

    /// What the successor is to be sent now, to be asked for a hundred times a second.
    #[must_use]
    pub fn for_successor(&self) -> Vec<Frame> {
        self.shared.for_successor()
    }

    /// What the successor says, of [`handover::KINDS`](crate::handover::KINDS).
    ///
    /// # Errors
    /// If it makes no sense.
    pub fn successor_says(&self, frame: Frame) -> Result<Heard, Malformed> {
        self.shared.successor_says(frame)
    }

    /// The successor is gone. `unsent`, a frame it did not take whole, and what is in its outbox, `frames`, come back;
    /// the other clients stay. Nobody else has the outbox any more.
    pub fn successor_gone(&self, unsent: Option<Frame>, frames: &Receiver<Frame>) {
        self.shared.successor_gone(unsent, frames);
    }

    /// Whether PAUSE holds anybody back.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.shared.databases().iter().any(|database| self.shared.is_paused(database))
    }

    /// This process is a successor: clients come from a predecessor, which has server connections, too. To be called
    /// before [`Pooler::start`]; nothing connects until the predecessor has said what it has open.
    pub fn take_over(&self, outbox: Outbox, admit: Admit) {
        self.shared.take_over(outbox, admit);
    }

    /// What the predecessor is to be sent now, to be asked for a hundred times a second.
    #[must_use]
    pub fn for_predecessor(&self) -> Vec<Frame> {
        self.shared.for_predecessor()
    }

    /// What the predecessor says, of [`handover::KINDS`](crate::handover::KINDS).
    ///
    /// # Errors
    /// If it makes no sense.
    pub fn predecessor_says(&self, frame: Frame) -> Result<(), Malformed> {
        self.shared.predecessor_says(frame)
    }

    /// The predecessor has ended.
    pub fn predecessor_gone(&self) {
        self.shared.predecessor_gone();
    }

    /// Whether the catalogue of every database was read, or cannot be: until then its clients wait.
    #[must_use]
    pub fn is_known(&self) -> bool {
        let is_known = |database: &Arc<Database>| {
            database.is_known.load(Ordering::Relaxed) || database.disabled.load(Ordering::Relaxed)
        };
        self.shared.databases().iter().all(is_known)
    }

    /// What runs on the control thread, to be spawned there once.
    pub fn control(&self) -> impl Future<Output = ()> + 'static {
        let asked = self.asks.lock().unwrap_or_else(PoisonError::into_inner).take();
        let shared = Arc::clone(&self.shared);
        async move {
            if let Some(asked) = asked {
                control::run(shared, asked).await;
            }
        }
    }

    /// Puts another configuration in force.
    ///
    /// # Errors
    /// Every mistake in it; nothing is changed then.
    pub fn reload(&self, config: Config) -> Result<(), Vec<ConfigError>> {
        reload(&self.shared, config)
    }

    /// Takes nothing new, lets transactions finish.
    pub fn drain(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.tell_all(|| Order::Drain);
    }

    /// PAUSE: lets running transactions finish and holds new ones, until [`Pooler::resume`].
    pub fn pause(&self) {
        // Paused already is what was wanted.
        let _ = Tier::new(Arc::clone(&self.shared)).begin_pause(None);
    }

    /// RESUME: lets held transactions go on.
    pub fn resume(&self) {
        // So is not being paused.
        let _ = Tier::new(Arc::clone(&self.shared)).resume(None);
    }

    /// Where the primaries are after what requests did.
    #[must_use]
    pub fn positions(&self) -> Positions {
        Positions::new(Arc::clone(&self.shared))
    }

    /// Clients connected.
    #[must_use]
    pub fn open_clients(&self) -> usize {
        let loads = self.shared.loads.get();
        loads.map_or(0, |loads| loads.iter().map(|load| load.load(Ordering::Relaxed)).sum())
    }

    /// Everything shared, for the console and for status.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How hard a database is pressed; `None` if there is none of this name.
    #[must_use]
    pub fn pressure(&self, database: &str) -> Option<Pressure> {
        let database = self.shared.database(database)?;
        Some(Pressure { shared: Arc::clone(&self.shared), database })
    }
}

impl Pressure {
    /// How long the client that waits longest has waited; zero if nobody does.
    #[must_use]
    pub fn oldest_wait(&self) -> std::time::Duration {
        let now = self.shared.ms(self.shared.clock.now());
        let oldest = self.database.pools().iter().filter_map(|pool| pool.oldest_ms()).min();
        std::time::Duration::from_millis(oldest.map_or(0, |since| now.saturating_sub(since)))
    }

    /// Which part of the server connections is in use, from 0 to 1, of the pool that is fullest.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "connections far below 2^53")]
    pub fn saturation(&self) -> f64 {
        let part = |pool: &Arc<Pool>| {
            let settings = pool.settings.load();
            let used = pool.open().saturating_sub(pool.idle());
            used as f64 / settings.size.max(1) as f64
        };
        self.database.pools().iter().map(part).fold(0.0, f64::max).min(1.0)
    }
}

impl PoolerThreads {
    /// Ends the workers and waits for them.
    ///
    /// # Errors
    /// Why a worker ended by itself.
    pub fn stop(self) -> io::Result<()> {
        self.shared.tell_all(|| Order::Stop);
        self.join()
    }

    /// Waits for the workers.
    ///
    /// # Errors
    /// Why a worker ended by itself.
    pub fn join(self) -> io::Result<()> {
        for thread in self.threads {
            thread.join().map_err(|_| io::Error::other("a pooler worker panicked"))??;
        }
        Ok(())
    }
}

/// Puts another configuration in force.
///
/// # Errors
/// Every mistake in it; nothing is changed then.
pub(crate) fn reload(shared: &Shared, config: Config) -> Result<(), Vec<ConfigError>> {
    config.validate()?;
    let hba = parse_hba(&config)?;
    shared.reload(config, hba);
    Ok(())
}

fn parse_hba(config: &Config) -> Result<Option<Hba>, Vec<ConfigError>> {
    let Some(text) = &config.hba else { return Ok(None) };
    Hba::parse(text).map(Some).map_err(|errors| {
        errors
            .into_iter()
            .map(|error| ConfigError { path: "pooler.hba".into(), message: error.to_string() })
            .collect()
    })
}
