//! The control side against real servers: logins, watching, listening, look-ups.

mod hub;
mod logins;
mod lookups;
mod monitor;
mod replicas;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tenfold_pooler::{
    auth::ServerSecret,
    config::{Database, Host, Password},
    control::{Change, Event, Salter, Target, Watched},
    definitions::Definitions,
    split::Split,
};
use tenfold_service::clock::Clock;
use tenfold_testkit::postgres::Server;

/// Longer than anything here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A database that writes down what it is told.
pub(crate) struct Board {
    name: Arc<str>,
    spec: Mutex<Arc<Database>>,
    login: Option<(Arc<str>, ServerSecret)>,
    used: AtomicBool,
    target: Mutex<Arc<Target>>,
    pub(crate) changes: Mutex<Vec<Change>>,
    pub(crate) definitions: Definitions,
    pub(crate) events: Mutex<Vec<Event>>,
    split: Arc<Split>,
    /// How often those who wait for positions were told to go on.
    pub(crate) told_positions: AtomicUsize,
    clock: Clock,
    started: Instant,
}

impl Board {
    pub(crate) fn new(spec: Database, login: Option<(&str, ServerSecret)>) -> Arc<Self> {
        let clock = Clock::system();
        let split = Arc::new(Split::default());
        split.set_replicas(&spec.reads.replicas);
        Arc::new(Self {
            split,
            told_positions: AtomicUsize::new(0),
            started: clock.now(),
            clock,
            name: Arc::clone(&spec.name),
            spec: Mutex::new(Arc::new(spec)),
            login: login.map(|(user, secret)| (user.into(), secret)),
            used: AtomicBool::new(true),
            target: Mutex::default(),
            changes: Mutex::default(),
            definitions: Definitions::default(),
            events: Mutex::default(),
        })
    }

    pub(crate) fn set_spec(&self, spec: Database) {
        *self.spec.lock().unwrap() = Arc::new(spec);
    }

    /// The port of the first address of the target.
    pub(crate) fn port(&self) -> Option<u16> {
        let target = self.target();
        let first = target.addresses.first()?;
        match first.at {
            tenfold_pooler::control::Endpoint::Tcp(at) => Some(at.port()),
            tenfold_pooler::control::Endpoint::Unix(_) => None,
        }
    }

    /// The version of the catalogue, unless it is stale.
    pub(crate) fn version(&self) -> Option<u64> {
        let catalogue = self.definitions.catalogue();
        (!catalogue.is_stale()).then(|| catalogue.version())
    }

    pub(crate) fn has(&self, expected: impl Fn(&Event) -> bool) -> bool {
        self.events.lock().unwrap().iter().any(expected)
    }
}

impl Watched for Board {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn spec(&self) -> Arc<Database> {
        Arc::clone(&self.spec.lock().unwrap())
    }

    fn dns_refresh(&self) -> Duration {
        Duration::ZERO
    }

    fn login(&self) -> Option<(Arc<str>, ServerSecret)> {
        self.login.clone()
    }

    fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    fn target(&self) -> Arc<Target> {
        Arc::clone(&self.target.lock().unwrap())
    }

    fn set_target(&self, target: Target, change: Change) {
        *self.target.lock().unwrap() = Arc::new(target);
        self.changes.lock().unwrap().push(change);
    }

    fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    fn definitions_settled(&self) {}

    fn split(&self) -> &Arc<Split> {
        &self.split
    }

    fn now_us(&self) -> u64 {
        u64::try_from((self.clock.now() - self.started).as_micros()).unwrap()
    }

    fn positions_known(&self) {
        self.told_positions.fetch_add(1, Ordering::Relaxed);
    }

    fn left(&self) {}

    fn told(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

/// The database `postgres` of a server on loopback, by the name `shop`.
pub(crate) fn spec(servers: &[&Server]) -> Database {
    let host = |server: &&Server| Host::Tcp { host: "127.0.0.1".into(), port: server.port() };
    let hosts = servers.iter().map(host).collect();
    Database { dbname: Some("postgres".into()), ..Database::new("shop", hosts) }
}

pub(crate) fn superuser() -> Option<(&'static str, ServerSecret)> {
    Some(("postgres", ServerSecret::None))
}

pub(crate) fn password(password: &str) -> ServerSecret {
    ServerSecret::Password(Password::new(password))
}

pub(crate) fn salter() -> Salter {
    Salter::new(Arc::default())
}

/// Runs a future to its end on a runtime of its own.
pub(crate) fn block<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A thread that runs a future until this is dropped.
pub(crate) struct Running {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start<F: Future<Output = ()>>(future: impl FnOnce() -> F + Send + 'static) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = thread::spawn(move || {
            block(async {
                tokio::select! {
                    () = future() => {}
                    _ = stopped => {}
                }
            });
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
