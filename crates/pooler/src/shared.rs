//! What all threads of the tier share: the databases, their pools, and the way to each worker.
//!
//! **Mechanism.** A [`Database`] is made once per name and lives as long as the process: a reload changes what it points
//! at. Names that only the wildcard covers are made on the fly, up to [`WILDCARD_DATABASES_MAX`].
//!
//! **Failure.** Locks here are taken at login, at the console and on reload, never for a transaction.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tenfold_service::{clock::Clock, drain::Drain, metrics::Registry};
use tokio::sync::mpsc;

use crate::{
    auth::{Hba, SaltedCache, Users},
    config::{self, ANY_DATABASE, Config},
    console::Desk,
    counters::Counters,
    definitions::Definitions,
    handover::Handover,
    hot::HotRows,
    image::Images,
    mailbox::{Ask, Mailbox, Order},
    pool::Pool,
    pooler::{Deps, ProcessAsk},
    split::{Replica, Split},
    statements::Statements,
    tls::MakeTls,
    worker::{Asker, client_of},
};

/// Databases that only `*` covers, at most.
pub const WILDCARD_DATABASES_MAX: usize = 1_000;
/// Pools of one database, at most: one per user.
pub const POOLS_MAX: usize = 10_000;
/// Distinct sets of startup parameters remembered per database.
pub const STARTUPS_MAX: usize = 1_000;
/// Questions to the control side that wait at once.
pub const ASKS_MAX: usize = 16_384;

/// Users counted at once.
pub const USERS_MAX: usize = 100_000;

/// Takes lines for the log.
pub type Log = Arc<dyn Fn(Level, &str) + Send + Sync>;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Info,
    /// Somebody should look.
    Warn,
}

/// Everything the tier's threads share.
pub struct Shared {
    /// The process's clock.
    pub clock: Clock,
    /// When the tier was built: milliseconds count from here.
    pub started: Instant,
    /// What holds now.
    pub config: ArcSwap<Config>,
    /// Parsed from [`Config::hba`].
    pub hba: ArcSwapOption<Hba>,
    /// Who is known.
    pub users: Arc<Users>,
    /// Salted passwords.
    pub salted: Arc<SaltedCache>,
    /// Session images.
    pub images: Images,
    /// Prepared statements.
    pub statements: Statements,
    /// Rows everybody wants.
    pub hot: HotRows,
    /// What console sessions share.
    pub desk: Desk,
    /// What happened.
    pub counters: Counters,
    /// Where it is told.
    pub registry: Registry,
    log: Log,
    /// The process's end.
    pub drain: Drain,
    /// Clients logged in, over all databases.
    pub clients: AtomicUsize,
    /// Clients in the middle of logging in.
    pub logins: AtomicUsize,
    /// Set by SHUTDOWN and by a drain.
    pub closing: AtomicBool,
    pub(crate) mailboxes: OnceLock<Box<[Mailbox]>>,
    pub(crate) loads: OnceLock<Box<[AtomicUsize]>>,
    /// To the control side.
    pub asks: mpsc::Sender<Ask>,
    /// To the process.
    pub process: mpsc::Sender<ProcessAsk>,
    /// Makes TLS of what the console was told.
    pub make_tls: MakeTls,
    /// What passes between this process and those before and after it.
    pub handover: Handover,
    /// Seeds what must not be guessed or must agree between workers.
    pub seed: u64,
    databases: RwLock<HashMap<Arc<str>, Arc<Database>>>,
    users_open: Mutex<HashMap<Arc<str>, Arc<UserCount>>>,
    next_id: AtomicU64,
    next_pool_id: AtomicU64,
}

/// Clients of one user, over all databases.
#[derive(Debug)]
pub struct UserCount {
    /// The user.
    pub name: Arc<str>,
    /// How many are logged in.
    pub clients: AtomicUsize,
    /// Server connections open as this user.
    pub servers: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// One database, as clients name it.
#[derive(Debug)]
pub struct Database {
    /// The name clients ask for.
    pub name: Arc<str>,
    /// What was configured for it, or for `*`.
    pub spec: ArcSwap<config::Database>,
    /// Where its primary is now.
    pub target: ArcSwap<Target>,
    /// Which reads its replicas may answer.
    pub split: Arc<Split>,
    /// What its functions and tables hide.
    pub definitions: Definitions,
    /// The catalogue was read, or cannot be: until then nobody is lent a server, since what a trigger or a view leaves
    /// behind would go unseen.
    pub is_known: AtomicBool,
    /// Paused at the console.
    pub paused: AtomicBool,
    /// Closed to new clients at the console, or no longer configured.
    pub disabled: AtomicBool,
    /// Made on the fly, and dropped since nobody used it: one of this name is made anew.
    pub(crate) is_forgotten: AtomicBool,
    /// Server connections opened under an earlier number are replaced when free.
    pub epoch: AtomicU32,
    /// Those of an earlier number than this end their sessions for it, where `fast_close` says so.
    superseding: AtomicU32,
    /// Clients logged in.
    pub clients: AtomicUsize,
    /// Whether the control side watches it already.
    pub watched: AtomicBool,
    /// The last words of the last server connection that was told why it ends, and when that was.
    farewell: Mutex<Option<(Instant, Arc<[u8]>)>>,
    servers: AtomicUsize,
    pools: RwLock<HashMap<Arc<str>, Arc<Pool>>>,
}

/// So long a farewell explains the connections that are lost without one.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(1);

/// A client's startup parameters, as sent, sorted.
pub type Startup = Vec<(String, String)>;

pub use crate::control::{Address, Endpoint, Target};
pub use crate::started::{Reports, Started};

impl Shared {
    /// The next unique id.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Milliseconds since the tier was built.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "half a billion years")]
    pub fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }

    /// Microseconds since the tier was built.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "half a million years")]
    pub fn us(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_micros() as u64
    }

    pub(crate) fn new(
        config: Config,
        hba: Option<Hba>,
        deps: Deps,
        counters: Counters,
        users: Users,
        asks: mpsc::Sender<Ask>,
    ) -> Self {
        Self {
            started: deps.clock.now(),
            desk: Desk::new(deps.clock.now()),
            clock: deps.clock,
            config: ArcSwap::from_pointee(config),
            hba: ArcSwapOption::from_pointee(hba),
            users: Arc::new(users),
            salted: Arc::new(SaltedCache::default()),
            images: Images::new(),
            statements: Statements::new(),
            hot: HotRows::new(),
            counters,
            registry: deps.registry,
            log: deps.log,
            drain: deps.drain,
            clients: AtomicUsize::new(0),
            logins: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            mailboxes: OnceLock::new(),
            loads: OnceLock::new(),
            asks,
            process: deps.process,
            make_tls: deps.make_tls,
            handover: Handover::default(),
            seed: deps.seed,
            databases: RwLock::default(),
            users_open: Mutex::default(),
            next_id: AtomicU64::new(0),
            next_pool_id: AtomicU64::new(0),
        }
    }

    /// Makes the databases that are named.
    pub(crate) fn make_databases(&self) {
        for spec in &self.config.load().databases {
            if &*spec.name != ANY_DATABASE {
                self.add(Arc::clone(&spec.name), spec);
            }
        }
    }

    /// Writes a line, one whatever is in it: names are a stranger's.
    pub fn log(&self, level: Level, line: &str) {
        (self.log)(level, &one_line(line));
    }

    /// The count of a user's clients.
    #[must_use]
    pub fn user_count(&self, user: &Arc<str>) -> Arc<UserCount> {
        let mut users = self.users_open.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= USERS_MAX {
            users.retain(|_, count| Arc::strong_count(count) > 1);
        }
        let make = || {
            Arc::new(UserCount {
                name: Arc::clone(user),
                clients: AtomicUsize::new(0),
                servers: AtomicUsize::new(0),
            })
        };
        Arc::clone(users.entry(Arc::clone(user)).or_insert_with(make))
    }

    pub(crate) fn log_connect_failure(&self, pool: &Pool, failures: u32, why: &str) {
        let line = format!("{}/{}: cannot connect: {why}", pool.database.name, pool.user);
        pool.set_last_failure(why);
        // The first ones are news, later ones only now and then.
        if failures <= 3 || failures.is_power_of_two() {
            self.log(Level::Warn, &line);
        }
    }

    pub(crate) fn log_server_broken(&self, pool: &Pool, why: &str) {
        self.log(
            Level::Warn,
            &format!("{}/{}: server connection closed: {why}", pool.database.name, pool.user),
        );
    }

    fn add(&self, name: Arc<str>, spec: &config::Database) -> Arc<Database> {
        let database = Arc::new(Database::new(Arc::clone(&name), spec.clone()));
        if self.handover.is_shared() {
            self.handover.hold_reads(&database);
        }
        let mut databases = self.databases.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(databases.entry(name).or_insert(database))
    }

    /// The database of this name; made on the fly where only `*` covers it.
    #[must_use]
    pub fn database(&self, name: &str) -> Option<Arc<Database>> {
        if let Some(found) = self.databases.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Some(Arc::clone(found));
        }
        let config = self.config.load();
        let wildcard = config.databases.iter().find(|spec| &*spec.name == ANY_DATABASE)?;
        let full = {
            let databases = self.databases.read().unwrap_or_else(PoisonError::into_inner);
            databases.len() >= config.databases.len() + WILDCARD_DATABASES_MAX
        };
        if full {
            self.forget_unused();
        }
        let room = self.databases.read().unwrap_or_else(PoisonError::into_inner).len()
            < config.databases.len() + WILDCARD_DATABASES_MAX;
        room.then(|| self.add(name.into(), wildcard))
    }

    /// Drops databases made on the fly that no client and no server uses.
    fn forget_unused(&self) {
        let config = self.config.load();
        let mut databases = self.databases.write().unwrap_or_else(PoisonError::into_inner);
        databases.retain(|name, database| {
            let is_kept = config.databases.iter().any(|spec| spec.name == *name)
                || database.clients.load(Ordering::Relaxed) > 0
                || database.servers() > 0;
            if !is_kept {
                database.forget();
            }
            is_kept
        });
    }

    /// Whether a database is held back at the console, by itself or with all others.
    #[must_use]
    pub fn is_paused(&self, database: &Database) -> bool {
        database.paused.load(Ordering::Relaxed) || self.desk.pause() != crate::report::Pause::Active
    }

    /// The databases whose reads are split.
    #[must_use]
    pub fn split_databases(&self) -> Vec<Arc<Database>> {
        let databases = self.databases.read().unwrap_or_else(PoisonError::into_inner);
        databases.values().filter(|database| database.split.is_on()).cloned().collect()
    }

    /// All databases, by name.
    #[must_use]
    pub fn databases(&self) -> Vec<Arc<Database>> {
        let databases = self.databases.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = databases.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The pool of a database for a client's user; the server's user is the database's own where it has one.
    #[must_use]
    pub fn pool(&self, database: &Arc<Database>, user: &Arc<str>) -> Option<Arc<Pool>> {
        let spec = database.spec.load();
        let server_user: Arc<str> = spec.user.as_deref().map_or_else(|| Arc::clone(user), Into::into);
        if let Some(pool) = database.pools.read().unwrap_or_else(PoisonError::into_inner).get(&server_user) {
            return Some(Arc::clone(pool));
        }
        let mut pools = database.pools.write().unwrap_or_else(PoisonError::into_inner);
        if pools.len() >= POOLS_MAX {
            return None;
        }
        let workers = self.mailboxes.get().map_or(1, |mailboxes| mailboxes.len());
        let (settings, _) = self.config.load().settings_of(&spec, &server_user);
        let make = || {
            let id = self.next_pool_id.fetch_add(1, Ordering::Relaxed) + 1;
            let count = self.user_count(&server_user);
            let pool = Pool::new(id, Arc::clone(database), count, settings, workers);
            if self.handover.keeps_no_books() {
                pool.open_under_successor();
            }
            Arc::new(pool)
        };
        Some(Arc::clone(pools.entry(Arc::clone(&server_user)).or_insert_with(make)))
    }

    /// The pool of the same user at a replica.
    pub(crate) fn pool_at(&self, pool: &Pool, replica: &Arc<Replica>) -> Arc<Pool> {
        pool.at_replica(replica, || self.next_pool_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Puts another configuration in force: databases are added, changed, or closed to new clients.
    pub(crate) fn reload(&self, config: Config, hba: Option<Hba>) {
        let config = Arc::new(config);
        self.config.store(Arc::clone(&config));
        self.hba.store(hba.map(Arc::new));
        self.users.reload(&config);
        let wildcard = config.databases.iter().find(|spec| &*spec.name == ANY_DATABASE);
        for database in self.databases() {
            let spec = config.databases.iter().find(|spec| spec.name == database.name).or(wildcard);
            match spec {
                Some(spec) => {
                    if database.set_spec(&config, spec) {
                        // Whoever watches it looks at once where it is now.
                        self.ask(Ask::TargetFailed { database: Arc::clone(&database) });
                    }
                }
                None => database.disabled.store(true, Ordering::Relaxed),
            }
        }
        for spec in config.databases.iter().filter(|spec| &*spec.name != ANY_DATABASE) {
            if self.database(&spec.name).is_none() {
                self.add(Arc::clone(&spec.name), spec);
            }
        }
        self.tell_all(|| Order::Reloaded);
        for database in self.databases() {
            // Whoever waits for a replica that is none any more looks for another server.
            self.tell_all(|| Order::Positions { database: Arc::clone(&database) });
        }
    }

    /// DDL passed: what a database's names hide is to be read again.
    pub(crate) fn definitions_changed(&self, database: &Arc<Database>, hides: bool) {
        database.definitions.change(hides);
        database.split.forget_refused();
        self.ask(Ask::CatalogueStale { database: Arc::clone(database) });
    }

    pub(crate) fn mailbox(&self, worker: usize) -> Option<&Mailbox> {
        self.mailboxes.get()?.get(worker)
    }

    pub(crate) fn tell(&self, worker: usize, order: Order) {
        if let Some(mailbox) = self.mailbox(worker) {
            mailbox.post(order);
        }
    }

    pub(crate) fn tell_all(&self, order: impl Fn() -> Order) {
        for mailbox in self.mailboxes.get().map(|boxes| &**boxes).unwrap_or_default() {
            mailbox.post(order());
        }
    }

    /// A cancel request: to whoever has the client of this key.
    pub(crate) fn cancel(&self, id: u32, secret: Vec<u8>, asker: Asker) {
        let known = self.handover.whose(id, &secret).or_else(|| client_of(id));
        match known.filter(|(worker, _)| self.mailbox(*worker).is_some()) {
            Some((worker, place)) => {
                self.tell(worker, Order::Cancel { place, secret, asker: Box::new(asker) });
            }
            None => self.handover.pass_cancel(id, &secret, asker),
        }
    }

    /// Asks the control side; false if it has more to do than it will remember.
    pub(crate) fn ask(&self, ask: Ask) -> bool {
        self.asks.try_send(ask).is_ok()
    }
}

/// Control characters are told by their escapes: none begins another line, or moves the cursor of who reads.
fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    Cow::Owned(line)
}

impl UserCount {
    /// Counts one more server connection, up to a limit; 0 is none.
    pub(crate) fn take_server(&self, max: usize) -> bool {
        let take = |open: usize| (max == 0 || open < max).then_some(open + 1);
        self.servers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    pub(crate) fn give_server(&self) {
        self.servers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Database {
    fn new(name: Arc<str>, spec: config::Database) -> Self {
        let split = Arc::new(Split::default());
        if spec.reads.are_split() {
            split.set_replicas(&spec.reads.replicas);
        }
        Self {
            name,
            spec: ArcSwap::from_pointee(spec),
            target: ArcSwap::from_pointee(Target::default()),
            split,
            definitions: Definitions::default(),
            is_known: AtomicBool::new(false),
            farewell: Mutex::default(),
            paused: AtomicBool::new(false),
            disabled: AtomicBool::new(false),
            is_forgotten: AtomicBool::new(false),
            epoch: AtomicU32::new(0),
            superseding: AtomicU32::new(0),
            clients: AtomicUsize::new(0),
            watched: AtomicBool::new(false),
            servers: AtomicUsize::new(0),
            pools: RwLock::default(),
        }
    }

    /// A server connection was told by an ErrorResponse of this body why it ends.
    pub(crate) fn said_farewell(&self, body: &[u8], now: Instant) {
        *self.farewell.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, body.into()));
    }

    /// Why a server connection ended that was told nothing, if others were told at this time.
    pub(crate) fn farewell(&self, now: Instant) -> Option<Arc<[u8]>> {
        let farewell = self.farewell.lock().unwrap_or_else(PoisonError::into_inner);
        let (then, body) = farewell.as_ref()?;
        (now.saturating_duration_since(*then) <= FAREWELL_TIME_MAX).then(|| Arc::clone(body))
    }

    /// Nobody asks for it any more: its pools go, once no worker holds them either.
    fn forget(&self) {
        self.is_forgotten.store(true, Ordering::Relaxed);
        self.pools.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Server connections open, over all its pools.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.servers.load(Ordering::Relaxed)
    }

    pub(crate) fn take_server(&self, max: usize) -> bool {
        let take = |open: usize| (max == 0 || open < max).then_some(open + 1);
        self.servers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    pub(crate) fn give_server(&self) {
        self.servers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Its pools, by user.
    #[must_use]
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = pools.values().cloned().collect();
        all.sort_by(|a, b| a.user.cmp(&b.user));
        all
    }

    /// Has every server connection replaced once it is free, however long its session lasts.
    pub fn close_when_free(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Has every server connection replaced: what it leads to is not what it should.
    pub fn reconnect(&self) {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.superseding.store(epoch, Ordering::Relaxed);
    }

    /// Whether a server connection of this epoch was opened before the last [`Database::reconnect`].
    pub(crate) fn has_superseded(&self, epoch: u32) -> bool {
        // Epochs go round after four billion changes; no connection lives through half of them.
        let ahead = self.superseding.load(Ordering::Relaxed).wrapping_sub(epoch);
        ahead != 0 && ahead <= u32::MAX / 2
    }

    /// True if server connections are to lead elsewhere, or otherwise.
    fn set_spec(&self, config: &Config, spec: &config::Database) -> bool {
        let old = self.spec.load_full();
        let moved = old.hosts != spec.hosts
            || old.dbname != spec.dbname
            || old.user != spec.user
            || old.password != spec.password
            || old.connect_query != spec.connect_query
            || !old.server_tls.is_same(&spec.server_tls);
        let replicas = if spec.reads.are_split() { &spec.reads.replicas[..] } else { &[] };
        if !self.split.is_on() && !replicas.is_empty() {
            // Connections from before have not said where their sessions begin.
            self.reconnect();
        }
        self.split.set_replicas(replicas);
        self.spec.store(Arc::new(spec.clone()));
        self.disabled.store(false, Ordering::Relaxed);
        for pool in self.pools() {
            let settings = config.settings_of(spec, &pool.user).0;
            for at_replica in pool.at_replicas() {
                at_replica.settings.store(Arc::new(settings.at_replica(&spec.reads)));
            }
            pool.settings.store(Arc::new(settings));
        }
        if moved {
            for pool in self.pools() {
                pool.forget_startups();
            }
            self.reconnect();
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_one_line() {
        for (text, line) in [("a b é", "a b é"), ("a\nerror: b\r\u{1b}[2J", "a\\nerror: b\\r\\u{1b}[2J")] {
            assert_eq!(one_line(text), line);
        }
    }

    #[test]
    fn what_was_opened_before_it_is_superseded_and_nothing_later() {
        let database = Database::new("shop".into(), config::Database::new("shop", Vec::new()));
        let told = || [0, 1, 2].map(|epoch| database.has_superseded(epoch));
        database.close_when_free();
        assert_eq!(told(), [false; 3]);
        database.reconnect();
        assert_eq!(told(), [true, true, false]);
        database.close_when_free();
        assert_eq!(told(), [true, true, false]);
    }

    #[test]
    fn a_farewell_explains_what_ends_at_that_time_and_nothing_later() {
        let database = Database::new("shop".into(), config::Database::new("shop", Vec::new()));
        let now = Clock::manual().now();
        assert_eq!(database.farewell(now), None);
        database.said_farewell(b"down", now);
        assert_eq!(database.farewell(now + FAREWELL_TIME_MAX).as_deref(), Some(&b"down"[..]));
        assert_eq!(database.farewell(now + FAREWELL_TIME_MAX * 2), None);
    }
}
