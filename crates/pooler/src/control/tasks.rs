//! The control side's loop: takes what workers ask, and keeps a monitor and a hub for each database that needs one.
//!
//! **Mechanism.** Every question becomes a task of the control thread's runtime; what must happen in order (a hub's
//! channels) goes through that hub's queue. A monitor ends by itself when its database has not been used for minutes,
//! and is made anew by the next question.
//!
//! **Failure.** A full queue drops nothing silently: workers hear that their question was not taken and tell the client.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    Change, Error, Event, Hub, HubAsk, Lookups, Monitor, Outlet, Poke, Replicas, Resolver, Salter, Target,
    Tools, Watched,
};
use crate::{
    auth::ServerSecret,
    config, console,
    definitions::Definitions,
    handover::{DESK_OF_NEW, DESK_OF_OLD},
    mailbox::{Ask, ClientKey, Order},
    shared::{Database, Level, Shared},
    split::Split,
};

/// Beyond so many monitors and hubs, those without use are looked for and dropped.
const KEPT_MAX: usize = 1_000;
/// Questions to one hub that wait.
const HUB_ASKS_MAX: usize = 16_384;

/// Runs until every asker is gone.
pub async fn run(shared: Arc<Shared>, mut asks: mpsc::Receiver<Ask>) {
    let mut tasks = Tasks::new(Arc::clone(&shared));
    for database in shared.databases() {
        tasks.watch(&database);
    }
    while let Some(ask) = asks.recv().await {
        tasks.take(ask);
    }
}

struct Tasks {
    shared: Arc<Shared>,
    tools: Tools,
    lookups: Arc<Lookups>,
    monitors: HashMap<Arc<str>, Watch>,
    hubs: HashMap<Arc<str>, (Weak<Database>, HubAsks)>,
}

/// The way to a hub.
type HubAsks = mpsc::Sender<HubAsk<ClientKey>>;

/// A monitor at work.
struct Watch {
    /// A name that only `*` covers may be forgotten, and come again as another database.
    database: Weak<Database>,
    task: JoinHandle<()>,
    poke: Poke,
}

impl Watch {
    fn is_of(&self, database: &Arc<Database>) -> bool {
        !self.task.is_finished() && is_same(&self.database, database)
    }
}

fn is_same(known: &Weak<Database>, database: &Arc<Database>) -> bool {
    std::ptr::eq(known.as_ptr(), Arc::as_ptr(database))
}

/// A database as the control side sees it.
struct Entry {
    shared: Arc<Shared>,
    database: Arc<Database>,
}

impl Entry {
    /// Whoever waited for something goes on.
    fn wake(&self) {
        self.shared.tell_all(|| Order::Wake { database: Arc::clone(&self.database) });
    }
}

impl Tasks {
    fn new(shared: Arc<Shared>) -> Self {
        let salter = Salter::new(Arc::clone(&shared.salted));
        let resolver = Arc::new(Resolver::new(shared.clock.clone()));
        let tools = Tools { resolver, salter, versions: Arc::new(AtomicU64::new(0)) };
        let directory = Arc::clone(&shared);
        let find = move |name: &str| -> Option<Arc<dyn Watched>> {
            // The console looks nobody up, and a disabled database nobody either.
            let is_console = config::CONSOLE_DATABASES.contains(&name);
            let database = if is_console { None } else { directory.database(name) }?;
            if database.disabled.load(std::sync::atomic::Ordering::Relaxed) {
                return None;
            }
            Some(Arc::new(Entry { shared: Arc::clone(&directory), database }))
        };
        let lookups =
            Lookups::new(Arc::clone(&shared.users), shared.clock.clone(), tools.clone(), Box::new(find));
        Self { shared, tools, lookups: Arc::new(lookups), monitors: HashMap::new(), hubs: HashMap::new() }
    }

    fn entry(&self, database: &Arc<Database>) -> Arc<dyn Watched> {
        Arc::new(Entry { shared: Arc::clone(&self.shared), database: Arc::clone(database) })
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Lookup { worker, client, key } => self.look_up(key, Some((worker, client))),
            Ask::Refresh { key } => self.look_up(key, None),
            Ask::Derive { worker, of, derivation } => {
                let (salter, shared) = (self.tools.salter.clone(), Arc::clone(&self.shared));
                tokio::task::spawn_local(async move {
                    let salted = salter.salt(derivation).await;
                    shared.tell(worker, Order::Derived { of, salted });
                });
            }
            Ask::Listen { worker, client, database, channels } => {
                let taken = self.hub(&database).try_send(HubAsk::Listen { worker, client, channels });
                if taken.is_err() {
                    self.shared.tell(worker, Order::NotListening { client });
                }
            }
            Ask::Unlisten { worker, client, database } => {
                // A hub that is too busy to hear of it finds the client gone when it notifies it.
                let _ = self.hub(&database).try_send(HubAsk::Unlisten { worker, client });
            }
            Ask::Notify { database, channel } => {
                // Whoever waits for it does so for a while only.
                let _ = self.hub(&database).try_send(HubAsk::Notify { channel });
            }
            Ask::Console { stream, permit, user, admin, id } => {
                let shared = Arc::clone(&self.shared);
                tokio::task::spawn_local(async move {
                    console::session(shared, stream, user, admin, id).await;
                    drop(permit);
                });
            }
            Ask::CatalogueStale { database } => self.watch(&database).stale(),
            Ask::TargetFailed { database } => self.watch(&database).failed(),
            // Its monitor may have found nobody to log in as until now.
            Ask::Watch { database } => self.watch(&database).failed(),
        }
    }

    fn look_up(&self, key: crate::auth::LookupKey, waits: Option<(usize, ClientKey)>) {
        let (lookups, shared) = (Arc::clone(&self.lookups), Arc::clone(&self.shared));
        let database = shared.database(&key.database).map(|database| self.entry(&database));
        tokio::task::spawn_local(async move {
            if let Some(database) = database {
                lookups.ask(&database, &key).await;
            }
            if let Some((worker, client)) = waits {
                shared.tell(worker, Order::Found { client });
            }
        });
    }

    /// The monitor of a database, made if there is none.
    fn watch(&mut self, database: &Arc<Database>) -> &Poke {
        let is_watched = self.monitors.get(&database.name).is_some_and(|watch| watch.is_of(database));
        if !is_watched {
            if self.monitors.len() >= KEPT_MAX {
                self.monitors.retain(|_, watch| !watch.task.is_finished());
            }
            let poke = Poke::default();
            let monitor = Monitor::new(self.entry(database), self.tools.clone(), poke.clone());
            let replicas = Replicas::new(self.entry(database), self.tools.clone());
            // The replicas are watched as long as the primary is.
            let task = tokio::task::spawn_local(async move {
                tokio::select! {
                    () = monitor.run() => {}
                    () = replicas.run() => {}
                }
            });
            let watch = Watch { database: Arc::downgrade(database), task, poke };
            if let Some(old) = self.monitors.insert(Arc::clone(&database.name), watch) {
                old.task.abort();
            }
        }
        &self.monitors[&database.name].poke
    }

    fn hub(&mut self, database: &Arc<Database>) -> &HubAsks {
        let is_there = self.hubs.get(&database.name).is_some_and(|(known, _)| is_same(known, database));
        if !is_there {
            if self.hubs.len() >= KEPT_MAX {
                // Of databases that nobody uses. Without anyone to ask it, a hub ends.
                self.hubs.retain(|_, (known, _)| {
                    known.upgrade().is_some_and(|known| known.clients.load(Ordering::Relaxed) > 0)
                });
            }
            let (asks, asked) = mpsc::channel(HUB_ASKS_MAX);
            let outlet = Entry { shared: Arc::clone(&self.shared), database: Arc::clone(database) };
            let hub = Hub::new(self.entry(database), self.tools.salter.clone(), Arc::new(outlet));
            tokio::task::spawn_local(hub.run(asked));
            self.hubs.insert(Arc::clone(&database.name), (Arc::downgrade(database), asks));
        }
        &self.hubs[&database.name].1
    }
}

/// What listens for another process is no worker.
fn is_desk(worker: usize) -> bool {
    worker == DESK_OF_OLD || worker == DESK_OF_NEW
}

impl Watched for Entry {
    fn name(&self) -> &Arc<str> {
        &self.database.name
    }

    fn spec(&self) -> Arc<config::Database> {
        self.database.spec.load_full()
    }

    fn dns_refresh(&self) -> Duration {
        self.shared.config.load().dns_refresh
    }

    fn login(&self) -> Option<(Arc<str>, ServerSecret)> {
        let spec = self.database.spec.load();
        self.shared.users.monitor_login(&spec).or_else(|| {
            // Whoever came in through here can also look.
            self.database.pools().iter().find_map(|pool| {
                let credential = pool.credential.load_full()?;
                Some((Arc::clone(&pool.user), credential.server_secret()))
            })
        })
    }

    fn is_used(&self) -> bool {
        self.database.clients.load(Ordering::Relaxed) > 0 || self.database.servers() > 0
    }

    fn target(&self) -> Arc<Target> {
        self.database.target.load_full()
    }

    fn set_target(&self, target: Target, change: Change) {
        let new = Arc::new(target);
        let old = self.database.target.swap(Arc::clone(&new));
        if change == Change::Primary && old.generation > 0 {
            self.database.reconnect();
        }
        if old.addresses.iter().any(|address| !new.addresses.contains(address)) {
            // Names mean other addresses now, or a reload named others.
            self.shared.tell_all(|| Order::Moved { database: Arc::clone(&self.database) });
        }
        for pool in self.database.pools() {
            pool.connect_after_ms.store(0, std::sync::atomic::Ordering::Relaxed);
        }
        self.wake();
    }

    fn definitions(&self) -> &Definitions {
        &self.database.definitions
    }

    fn definitions_settled(&self) {
        self.database.is_known.store(true, std::sync::atomic::Ordering::Release);
        self.wake();
    }

    fn split(&self) -> &Arc<Split> {
        &self.database.split
    }

    fn now_us(&self) -> u64 {
        self.shared.us(self.shared.clock.now())
    }

    fn positions_known(&self) {
        self.shared.tell_all(|| Order::Positions { database: Arc::clone(&self.database) });
    }

    fn left(&self) {
        self.database.is_known.store(false, std::sync::atomic::Ordering::Relaxed);
        self.database.watched.store(false, std::sync::atomic::Ordering::Release);
    }

    fn told(&self, event: Event) {
        let level = match event {
            Event::Lost { .. }
            | Event::NoLogin
            | Event::Unresolved { .. }
            | Event::CatalogueFailed { .. }
            | Event::LookupFailed { .. }
            | Event::HubLost { .. }
            | Event::ReplicaLost { .. }
            | Event::ReplicaForeign { .. }
            | Event::PositionUnknown { .. } => Level::Warn,
            _ => Level::Info,
        };
        self.shared.log(level, &format!("database {}: {event}", self.database.name));
    }
}

impl Outlet<ClientKey> for Entry {
    fn listening(&self, worker: usize, client: ClientKey) {
        if is_desk(worker) {
            return self.shared.desk_listens(worker, &self.database);
        }
        match self.shared.handover.joined(&self.database, worker, client) {
            Some(Ok(caught_up)) => self.shared.tell(worker, Order::CatchUp { client, caught_up }),
            Some(Err(())) => return self.shared.tell(worker, Order::NotListening { client }),
            None => {}
        }
        self.shared.tell(worker, Order::Listening { client });
    }

    fn refused(&self, worker: usize, client: ClientKey, error: &Error) {
        self.shared.log(Level::Warn, &format!("database {}: cannot listen: {error}", self.database.name));
        if is_desk(worker) {
            return self.shared.desk_lost(worker, &self.database);
        }
        self.shared.handover.not_joined(worker, client);
        self.shared.tell(worker, Order::NotListening { client });
    }

    fn notify(&self, worker: usize, channel: &Arc<str>, message: &Arc<[u8]>) {
        if is_desk(worker) {
            return self.shared.desk_hears(worker, &self.database, channel, message);
        }
        let database = Arc::clone(&self.database);
        let (channel, message) = (Arc::clone(channel), Arc::clone(message));
        self.shared.tell(worker, Order::Notify { database, channel, message });
    }

    fn lost(&self, worker: usize) {
        if is_desk(worker) {
            return self.shared.desk_lost(worker, &self.database);
        }
        self.shared.tell(worker, Order::HubLost { database: Arc::clone(&self.database) });
    }
}
