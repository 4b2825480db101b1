//! One pool: the server connections of one (database, user), shared by all workers.
//!
//! **Intuition.** Workers keep their own idle connections and their own queues, so the usual transaction touches nothing
//! that another core touches. What must hold over all of them is a few counters: how many connections are open, who has
//! idle ones, who waits since when.
//!
//! **Mechanism.** A place among the open connections is a [`Place`]: taken before connecting, given back when it is
//! dropped. Limits are `size` (and `reserve`, for whoever has waited long enough) and the database's own.
//!
//! While a successor takes over ([`crate::handover`]) it is the successor that keeps the books: places are granted by it,
//! and what comes free goes back to it.
//!
//! **Failure.** There is no way to connect without a place, and none to keep one without the connection.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::{
    auth::Credential,
    config::{Mode, PoolSettings},
    shared::{Database, Reports, STARTUPS_MAX, Started, Startup, Target, UserCount},
    split::{Begins, Replica, Routes, Top, TopRow, merged},
    worker::{Report, Stat, Stats},
};

/// No one waits.
const NOBODY: u64 = u64::MAX;

/// The pool of one (database, user).
#[derive(Debug)]
pub struct Pool {
    /// Unique in this process, never reused.
    pub id: u64,
    /// Whose it is.
    pub database: Arc<Database>,
    /// The replica its connections lead to; `None`: the primary.
    pub replica: Option<Arc<Replica>>,
    /// The user it logs in as.
    pub user: Arc<str>,
    /// That user's connections, over all databases.
    count: Arc<UserCount>,
    /// What holds for it now.
    pub settings: ArcSwap<PoolSettings>,
    /// What proves [`Pool::user`] to the server: the client's, where the database has none of its own.
    pub credential: Arc<ArcSwapOption<Credential>>,
    /// Where its sessions begin.
    begins: Arc<ArcSwapOption<Begins>>,
    /// What each worker routed.
    routes: Box<[Mutex<Routed>]>,
    /// Pools of the same user at replicas.
    at_replicas: Mutex<Vec<Arc<Pool>>>,
    /// Changed under the lock of `books` alone.
    open: AtomicUsize,
    books: Mutex<Books>,
    /// Connections that go to another process of ours instead of to the next client, as they come free.
    owed: AtomicUsize,
    /// Until then, in milliseconds of the process, none is kept idle: another process of ours waits for their places.
    recalled_until_ms: AtomicU64,
    slots: Box<[Slot]>,
    /// Broken soft pins cost `currval()`: from its first use on, they are not broken.
    pub reads_sequences: AtomicBool,
    /// Clients logged in to it.
    pub clients: AtomicUsize,
    /// No new connection before this moment, in milliseconds of the process; after failures.
    pub connect_after_ms: AtomicU64,
    /// Failures in a row.
    pub connect_failures: AtomicU32,
    last_failure: Mutex<Option<Arc<str>>>,
    /// What a fresh server connection reports at login.
    pub welcome: ArcSwapOption<Reports>,
    /// What clients were told that servers report since a while ago, by name: nobody is told twice.
    reported: Mutex<HashMap<String, String>>,
    startups: Mutex<HashMap<Arc<Startup>, Arc<Started>>>,
    /// Of clients without parameters.
    plain: Arc<Started>,
}

/// What one worker routed, up to a second ago.
#[derive(Debug, Default)]
struct Routed {
    routes: Routes,
    top: Vec<TopRow>,
}

/// What one worker shows the others.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    idle: AtomicUsize,
    waiting: AtomicUsize,
    oldest_ms: AtomicU64,
    stats: [AtomicU64; Stat::COUNT],
}

/// Who says how many connections there may be.
#[derive(Debug, Default)]
struct Books {
    /// While a successor does: so many.
    granted: Option<usize>,
    /// Somebody was refused a place that the successor has not been asked for: how long they have waited.
    wanted: Option<Duration>,
    /// The successor was asked and has not answered, since this millisecond of the process.
    asked_ms: Option<u64>,
    /// Places that are another process's already, of connections that are about to close here or have.
    set_aside: usize,
}

/// What a pool whose books the successor keeps has to tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Places that are no longer needed.
    pub(crate) returned: usize,
    /// One is needed, by somebody who has waited so long.
    pub(crate) wanted: Option<Duration>,
}

/// The successor is asked again for a place after this.
const ASK_AGAIN_MS: u64 = 100;

/// The right to one open server connection.
#[derive(Debug)]
pub struct Place {
    pool: Arc<Pool>,
}

impl Pool {
    /// An empty pool, for so many workers.
    #[must_use]
    pub fn new(
        id: u64,
        database: Arc<Database>,
        count: Arc<UserCount>,
        settings: PoolSettings,
        workers: usize,
    ) -> Self {
        let slot = || Slot {
            idle: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            oldest_ms: AtomicU64::new(NOBODY),
            stats: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Self {
            id,
            database,
            replica: None,
            user: Arc::clone(&count.name),
            count,
            settings: ArcSwap::from_pointee(settings),
            credential: Arc::default(),
            begins: Arc::default(),
            routes: (0..workers).map(|_| Mutex::default()).collect(),
            at_replicas: Mutex::default(),
            open: AtomicUsize::new(0),
            books: Mutex::default(),
            owed: AtomicUsize::new(0),
            recalled_until_ms: AtomicU64::new(0),
            slots: (0..workers).map(|_| slot()).collect(),
            reads_sequences: AtomicBool::new(false),
            clients: AtomicUsize::new(0),
            connect_after_ms: AtomicU64::new(0),
            connect_failures: AtomicU32::new(0),
            last_failure: Mutex::default(),
            welcome: ArcSwapOption::empty(),
            reported: Mutex::default(),
            startups: Mutex::default(),
            plain: Started::plain(Vec::new()),
        }
    }

    /// The pool of the same user at a replica, made if there is none.
    pub(crate) fn at_replica(&self, replica: &Arc<Replica>, make_id: impl FnOnce() -> u64) -> Arc<Self> {
        let mut all = self.at_replicas.lock().unwrap_or_else(PoisonError::into_inner);
        let leads_there = |pool: &&Arc<Self>| pool.leads_to(replica);
        if let Some(pool) = all.iter().find(leads_there) {
            return Arc::clone(pool);
        }
        let replicas = self.database.split.replicas.load();
        all.retain(|pool| replicas.iter().any(|replica| pool.leads_to(replica)));
        let settings = self.settings.load().at_replica(&self.database.spec.load().reads);
        let (database, count) = (Arc::clone(&self.database), Arc::clone(&self.count));
        let pool = Self::new(make_id(), database, count, settings, self.slots.len());
        let (replica, credential) = (Some(Arc::clone(replica)), Arc::clone(&self.credential));
        let begins = Arc::clone(&self.begins);
        let pool = Arc::new(Self { replica, credential, begins, ..pool });
        all.push(Arc::clone(&pool));
        pool
    }

    /// Tells what one worker routed.
    pub(crate) fn publish_routes(&self, worker: usize, routes: &Routes, top: &Top) {
        let mut shown = self.routes[worker].lock().unwrap_or_else(PoisonError::into_inner);
        if shown.routes != *routes {
            *shown = Routed { routes: routes.clone(), top: top.rows() };
        }
    }

    /// What all workers routed, up to a second ago.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let mut all = Routes::default();
        for shown in &self.routes {
            all.merge(&shown.lock().unwrap_or_else(PoisonError::into_inner).routes);
        }
        all
    }

    /// The statements that were routed most often, with where they went; no more than `max`.
    #[must_use]
    pub fn top(&self, max: usize) -> Vec<TopRow> {
        let lists = self.routes.iter();
        merged(lists.map(|shown| shown.lock().unwrap_or_else(PoisonError::into_inner).top.clone()), max)
    }

    /// Where sessions begin that have changed nothing; `None` until a server has said so.
    #[must_use]
    pub fn begins(&self) -> Option<Arc<Begins>> {
        self.begins.load_full()
    }

    /// Where that is kept, for a cache of it.
    pub(crate) fn begins_cell(&self) -> &Arc<ArcSwapOption<Begins>> {
        &self.begins
    }

    pub(crate) fn set_begins(&self, begins: Begins) {
        match self.begins() {
            Some(before) if *before == begins => {}
            Some(before) => self.begins.store(Some(Arc::new(begins.after(&before)))),
            None => self.begins.store(Some(Arc::new(begins))),
        }
    }

    pub(crate) fn leads_to(&self, replica: &Arc<Replica>) -> bool {
        self.replica.as_ref().is_some_and(|own| Arc::ptr_eq(own, replica))
    }

    /// Pools of the same user at replicas.
    #[must_use]
    pub fn at_replicas(&self) -> Vec<Arc<Self>> {
        self.at_replicas.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether its replica is none of the database's any more.
    #[must_use]
    pub fn is_of_a_former_replica(&self) -> bool {
        let Some(replica) = &self.replica else { return false };
        !self.database.split.replicas.load().iter().any(|other| Arc::ptr_eq(other, replica))
    }

    /// Where its connections lead.
    #[must_use]
    pub fn target(&self) -> Arc<Target> {
        let target = self.replica.as_ref().map_or(&self.database.target, |replica| &replica.target);
        target.load_full()
    }

    /// Connections opened under another number are replaced once free.
    #[must_use]
    pub fn epoch(&self) -> (u32, u32) {
        let of_replica = self.replica.as_ref().map_or(0, |replica| replica.epoch.load(Ordering::Relaxed));
        (self.database.epoch.load(Ordering::Relaxed), of_replica)
    }

    /// How it pools.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.settings.load().mode
    }

    /// Server connections open or being opened.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes a place among the open connections; `waited`: how long the one it is for has waited.
    #[must_use]
    pub fn take_place(self: &Arc<Self>, waited: Duration) -> Option<Place> {
        let mut books = self.books();
        let settings = self.settings.load();
        let reserve = if waited >= settings.reserve_wait { settings.reserve } else { 0 };
        let max = books.granted.unwrap_or(settings.size + reserve);
        let is_granted = books.granted.is_some();
        if self.open() + books.set_aside >= max {
            if is_granted {
                books.wanted = Some(books.wanted.unwrap_or_default().max(waited));
            }
            return None;
        }
        if self.replica.is_some() {
            // Limits over pools are of the primary's connections.
            self.open.fetch_add(1, Ordering::Relaxed);
            return Some(Place { pool: Arc::clone(self) });
        }
        // What the successor grants it has counted there.
        let limit = |max: usize| if is_granted { 0 } else { max };
        if self.count.take_server(limit(settings.user_max)) {
            if self.database.take_server(limit(settings.database_max)) {
                self.open.fetch_add(1, Ordering::Relaxed);
                return Some(Place { pool: Arc::clone(self) });
            }
            self.count.give_server();
        }
        None
    }

    /// A place for a connection that another process has open, whatever the limits.
    pub(crate) fn take_place_anyway(self: &Arc<Self>) -> Place {
        let _books = self.books();
        self.count.take_server(0);
        self.database.take_server(0);
        self.open.fetch_add(1, Ordering::Relaxed);
        Place { pool: Arc::clone(self) }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on a successor keeps the books. Gives what it has to grant from the start: what is open.
    pub(crate) fn open_under_successor(&self) -> usize {
        let mut books = self.books();
        let open = self.open();
        *books = Books { granted: Some(open), ..Books::default() };
        open
    }

    /// The successor is gone: this process keeps its own books again.
    pub(crate) fn keep_own_books(&self) {
        *self.books() = Books::default();
        self.owed.store(0, Ordering::Relaxed);
        self.recalled_until_ms.store(0, Ordering::Relaxed);
    }

    /// Whether a successor keeps the books.
    pub(crate) fn is_under_successor(&self) -> bool {
        self.books().granted.is_some()
    }

    /// The successor grants so many places more.
    pub(crate) fn grant(&self, places: usize) {
        let mut books = self.books();
        if let Some(granted) = &mut books.granted {
            *granted = granted.saturating_add(places);
        }
        books.asked_ms = None;
    }

    /// Gives places that nobody needs back, and asks for one if somebody needs it.
    pub(crate) fn settle(&self, now_ms: u64) -> Settled {
        let is_waited_for = self.waiting() > 0;
        let mut books = self.books();
        let Some(granted) = books.granted else { return Settled::default() };
        let open = self.open();
        let wanted = books.wanted.take().filter(|_| is_waited_for && open >= granted);
        let was_asked = books.asked_ms.is_some_and(|asked_ms| now_ms.saturating_sub(asked_ms) < ASK_AGAIN_MS);
        let wanted = wanted.filter(|_| !was_asked);
        if wanted.is_some() {
            books.asked_ms = Some(now_ms);
        }
        let spare = granted.saturating_sub(open);
        let returned = if is_waited_for { spare.min(books.set_aside) } else { spare };
        books.granted = Some(granted - returned);
        books.set_aside = books.set_aside.saturating_sub(returned);
        Settled { returned, wanted }
    }

    /// Another process of ours, one of whose clients has waited so long, is to have the place of a connection: at once
    /// if one is idle, else of the next that comes free, unless a client here has waited longer.
    pub(crate) fn owe(&self, waited: Duration, now_ms: u64) {
        let own = self
            .oldest_ms()
            .map_or(Duration::ZERO, |since| Duration::from_millis(now_ms.saturating_sub(since)));
        if waited >= own {
            self.owed.store(1, Ordering::Relaxed);
        }
    }

    /// Whether a connection that came free is owed to another process of ours. Then its place is set aside, and whoever
    /// asked closes it.
    #[inline]
    pub(crate) fn pays(&self) -> bool {
        if self.owed.load(Ordering::Relaxed) == 0 || self.owed.swap(0, Ordering::Relaxed) == 0 {
            return false;
        }
        self.books().set_aside += 1;
        true
    }

    /// A place for another process: one that was set aside, else one that is free.
    pub(crate) fn take_place_aside(self: &Arc<Self>, waited: Duration) -> Option<Place> {
        let settings = self.settings.load();
        let mut books = self.books();
        if books.set_aside == 0 {
            drop(books);
            return self.take_place(waited);
        }
        if self.open() >= books.granted.unwrap_or(settings.size + settings.reserve) {
            // Its connection is closing still.
            return None;
        }
        books.set_aside -= 1;
        drop(books);
        Some(self.take_place_anyway())
    }

    /// Nobody waits for what was set aside.
    pub(crate) fn keep_aside_nothing(&self) {
        self.owed.store(0, Ordering::Relaxed);
        self.books().set_aside = 0;
    }

    /// Keeps nothing idle for a while.
    pub(crate) fn recall(&self, until_ms: u64) {
        self.recalled_until_ms.store(until_ms, Ordering::Relaxed);
    }

    /// Whether idle connections are to be closed.
    pub(crate) fn is_recalled(&self, now_ms: impl FnOnce() -> u64) -> bool {
        let until_ms = self.recalled_until_ms.load(Ordering::Relaxed);
        until_ms > 0 && now_ms() < until_ms
    }

    /// Whether the database's own limit is what keeps this pool from opening a connection.
    #[must_use]
    pub fn is_held_by_database(&self) -> bool {
        let settings = self.settings.load();
        self.open() < settings.size
            && settings.database_max > 0
            && self.database.servers() >= settings.database_max
    }

    /// Whether its user's own limit is.
    #[must_use]
    pub fn is_held_by_user(&self) -> bool {
        let settings = self.settings.load();
        let open = self.count.servers.load(Ordering::Relaxed);
        self.open() < settings.size && settings.user_max > 0 && open >= settings.user_max
    }

    /// Whether a connection of this pool counts against what holds another back.
    #[must_use]
    pub fn holds_back(&self, other: &Self) -> bool {
        self.id != other.id
            && (other.is_held_by_database() && Arc::ptr_eq(&self.database, &other.database)
                || other.is_held_by_user() && Arc::ptr_eq(&self.count, &other.count))
    }

    /// Says how many idle connections a worker has.
    pub fn set_idle(&self, worker: usize, idle: usize) {
        self.slots[worker].idle.store(idle, Ordering::Relaxed);
    }

    /// Says how many wait at a worker, and since when the first of them.
    pub fn set_waiting(&self, worker: usize, waiting: usize, oldest_ms: Option<u64>) {
        let slot = &self.slots[worker];
        slot.waiting.store(waiting, Ordering::Relaxed);
        slot.oldest_ms.store(oldest_ms.unwrap_or(NOBODY), Ordering::Relaxed);
    }

    /// Another worker with an idle connection and nobody waiting for it.
    #[must_use]
    pub fn lender(&self, borrower: usize) -> Option<usize> {
        (0..self.slots.len()).find(|&worker| {
            let slot = &self.slots[worker];
            worker != borrower
                && slot.idle.load(Ordering::Relaxed) > 0
                && slot.waiting.load(Ordering::Relaxed) == 0
        })
    }

    /// The other worker whose first waiter has waited longest, if it waits since before `than_ms`.
    #[must_use]
    pub fn waiting_longer(&self, worker: usize, than_ms: u64) -> Option<usize> {
        if self.slots.len() == 1 {
            return None;
        }
        let others = self.slots.iter().enumerate().filter(|&(other, _)| other != worker);
        let (other, oldest_ms) = others
            .map(|(other, slot)| (other, slot.oldest_ms.load(Ordering::Relaxed)))
            .min_by_key(|&(_, oldest_ms)| oldest_ms)?;
        (oldest_ms < than_ms).then_some(other)
    }

    /// Tells what happened in one worker's part.
    pub(crate) fn publish(&self, worker: usize, stats: &Stats) {
        for (cell, value) in self.slots[worker].stats.iter().zip(stats.0) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// What happened in all parts, at replicas too, up to a tick ago.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut sums = Stats::default();
        let at_replicas = self.at_replicas();
        for slot in at_replicas.iter().flat_map(|pool| &pool.slots).chain(&self.slots) {
            for (sum, cell) in sums.0.iter_mut().zip(&slot.stats) {
                *sum = sum.wrapping_add(cell.load(Ordering::Relaxed));
            }
        }
        sums
    }

    /// Why the last connection could not be opened, while none can.
    #[must_use]
    pub fn last_failure(&self) -> Option<Arc<str>> {
        if self.connect_failures.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_last_failure(&self, why: &str) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.into());
    }

    /// What a fresh connection reports, as one copy for all connections that report the same.
    pub(crate) fn welcomes(&self, reports: Reports) -> Arc<Reports> {
        if let Some(welcome) = self.welcome.load_full().filter(|welcome| **welcome == reports) {
            return welcome;
        }
        let reports = Arc::new(reports);
        self.welcome.store(Some(Arc::clone(&reports)));
        reports
    }

    /// Sessions on one of its servers begin with another value of a setting since a while ago. What clients are to be
    /// told; `None` if they were.
    pub(crate) fn reported(self: &Arc<Self>, name: &str, value: &str) -> Option<Report> {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.get(name).is_some_and(|told| told == value) {
            return None;
        }
        reported.insert(name.to_owned(), value.to_owned());
        let mut welcome = self.welcome.load_full()?.to_vec();
        let (_, fresh) = welcome.iter_mut().find(|(other, _)| other == name)?;
        value.clone_into(fresh);
        self.welcome.store(Some(Arc::new(welcome)));
        Some(Report { pool: Arc::clone(self), name: name.to_owned(), value: value.to_owned() })
    }

    /// What these startup parameters mean: nothing if there are none, else what they were found to.
    #[must_use]
    pub fn started(&self, startup: &Startup) -> Option<Arc<Started>> {
        if startup.is_empty() {
            return Some(Arc::clone(&self.plain));
        }
        self.startups.lock().unwrap_or_else(PoisonError::into_inner).get(startup).cloned()
    }

    /// Remembers it.
    pub fn remember(&self, started: Arc<Started>) {
        let mut startups = self.startups.lock().unwrap_or_else(PoisonError::into_inner);
        if startups.len() >= STARTUPS_MAX {
            startups.clear();
        }
        startups.insert(Arc::clone(&started.raw), started);
    }

    /// They may mean something else now.
    pub(crate) fn forget_startups(&self) {
        self.startups.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Clients waiting, over all workers.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.slots.iter().map(|slot| slot.waiting.load(Ordering::Relaxed)).sum()
    }

    /// Idle connections, over all workers.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.slots.iter().map(|slot| slot.idle.load(Ordering::Relaxed)).sum()
    }

    /// Since when the longest waiter waits.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        let oldest = self.slots.iter().map(|slot| slot.oldest_ms.load(Ordering::Relaxed)).min()?;
        (oldest != NOBODY).then_some(oldest)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _books = self.pool.books();
        self.pool.open.fetch_sub(1, Ordering::Relaxed);
        if self.pool.replica.is_none() {
            self.pool.database.give_server();
            self.pool.count.give_server();
        }
    }
}
