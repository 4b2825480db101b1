//! Lending server connections: who gets one, who waits, when another is opened.
//!
//! **Intuition.** A connection that just came free is warm, so the last one in is the first one out, and the others age
//! until they are closed. Clients wait in the order they came, within their priority.
//!
//! **Mechanism.** A worker lends its own idle connections; else it asks another worker for one of theirs, else it opens
//! one if the pool has a place, else the client waits until one comes free here or is brought over: a worker that frees a
//! connection gives it to another one's first waiter if that has waited [`SLACK_MS`] longer than its own.
//!
//! **Failure.** Connections are opened a few at a time ([`CONNECTING_MAX`]) and after a failure only when the pause is
//! over (`connect`), so a server that comes back is not stormed. Those who wait too long are told by `tick`.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use tenfold_pgwire::{backend::TransactionStatus, write};
use tenfold_sql::{Catalogue, Decision, Effects};

use super::{
    Worker,
    batch::Batch,
    client::State,
    place::LocalSplit,
    server::{Phase, Server, Why},
    slab::{Key, Kind},
    stats::{Stat, Stats},
    waiters::{First, Read, Waiter, Waiters},
};
use crate::{
    config::{Mode, PoolSettings, Sequences},
    counters::Counter,
    hot::{self, Entered, HotPermit},
    image::{Needs, Replay, replay},
    mailbox::Order,
    pool::Pool,
    shared::Database,
};

/// How much longer another worker's client must have waited to be served before one's own.
const SLACK_MS: u64 = 5;
/// What may tell a client what a sequence gave to another.
const SEQUENCES_MAY_SHOW: Effects = Effects::SEQUENCE_READ.with(Effects::DOUBT).with(Effects::SQL_EXECUTE);
/// Connections of one pool that one worker opens at once.
pub(super) const CONNECTING_MAX: usize = 4;

/// A worker's part of a pool.
pub(super) struct LocalPool {
    pub(super) pool: Arc<Pool>,
    settings: arc_swap::Cache<SettingsOf, Arc<PoolSettings>>,
    catalogue: arc_swap::Cache<CatalogueOf, Arc<Catalogue>>,
    pub(super) split: LocalSplit,
    /// Last in, first out.
    pub(super) idle: Vec<Key>,
    pub(super) waiters: Waiters,
    pub(super) connecting: usize,
    /// Another worker was asked for a connection.
    pub(super) borrowing: bool,
    /// Stands in the worker's list of pools of which others are to be told who waits.
    has_changed_queue: bool,
    /// A place came free.
    pub(super) wants_seek: bool,
    pub(super) stats: Stats,
}

/// Where a pool's settings are found, for a cache of them.
struct SettingsOf(Arc<Pool>);

/// Where a pool's catalogue is found, for a cache of it.
struct CatalogueOf(Arc<Database>);

impl std::ops::Deref for SettingsOf {
    type Target = ArcSwap<PoolSettings>;

    fn deref(&self) -> &Self::Target {
        &self.0.settings
    }
}

impl std::ops::Deref for CatalogueOf {
    type Target = ArcSwap<Catalogue>;

    fn deref(&self) -> &Self::Target {
        self.0.definitions.cell()
    }
}

impl LocalPool {
    fn new(pool: &Arc<Pool>) -> Self {
        Self {
            pool: Arc::clone(pool),
            settings: arc_swap::Cache::new(SettingsOf(Arc::clone(pool))),
            catalogue: arc_swap::Cache::new(CatalogueOf(Arc::clone(&pool.database))),
            split: LocalSplit::new(pool),
            idle: Vec::new(),
            waiters: Waiters::default(),
            connecting: 0,
            borrowing: false,
            has_changed_queue: false,
            wants_seek: false,
            stats: Stats::default(),
        }
    }

    /// Whether its database was forgotten and nothing here or elsewhere is left of the pool: its place is another's.
    fn is_unused(&self) -> bool {
        let is_forgotten = self.pool.database.is_forgotten.load(Ordering::Relaxed);
        (is_forgotten || self.pool.is_of_a_former_replica())
            && self.pool.clients.load(Ordering::Relaxed) == 0
            && self.pool.open() == 0
            && self.waiters.is_empty()
            && !self.has_changed_queue
    }

    /// The pool's settings, as they are now.
    #[inline]
    pub(super) fn settings(&mut self) -> &PoolSettings {
        self.settings.load()
    }

    /// How it pools.
    #[inline]
    pub(super) fn mode(&mut self) -> Mode {
        self.settings().mode
    }

    /// The catalogue of its database, as it is now.
    #[inline]
    pub(super) fn catalogue(&mut self) -> &Catalogue {
        self.catalogue.load()
    }
}

/// What became of the wish for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lending {
    Lent(Key),
    Waiting,
    Gone,
}

impl Worker {
    /// This worker's part of a pool.
    pub(super) fn local(&mut self, pool: &Arc<Pool>) -> usize {
        if let Some(&local) = self.pool_index.get(&pool.id) {
            return local;
        }
        let part = LocalPool::new(pool);
        let unused = self.pools.iter().position(LocalPool::is_unused);
        let local = unused.unwrap_or(self.pools.len());
        match self.pools.get_mut(local) {
            Some(place) => {
                self.pool_index.remove(&place.pool.id);
                *place = part;
            }
            None => self.pools.push(part),
        }
        self.pool_index.insert(pool.id, local);
        local
    }

    /// A server for a client: at once, or it waits. `read`: what its first statement does.
    pub(super) fn want_server(&mut self, key: Key, first: &First, read: Option<&Arc<Decision>>) -> Lending {
        let seat = self.clients.get(key).and_then(|client| client.seat.as_ref());
        let Some(local) = seat.map(|seat| seat.local) else { return Lending::Gone };
        self.want_server_of(key, local, first, read)
    }

    /// As [`Self::want_server`], of a certain pool.
    pub(super) fn want_server_of(
        &mut self,
        key: Key,
        local: usize,
        first: &First,
        read: Option<&Arc<Decision>>,
    ) -> Lending {
        let Some(client) = self.clients.get(key) else { return Lending::Gone };
        let Some(seat) = client.seat.as_ref() else { return Lending::Gone };
        let priority = seat.priority;
        let hot = match self.enter_hot(key, local, first) {
            Ok(hot) => hot,
            Err(Parked) => return Lending::Waiting,
        };
        let pool = &mut self.pools[local];
        if pool.waiters.is_empty() && !is_held_back(&pool.pool.database, &self.shared) {
            while let Some(server) = self.pools[local].idle.pop() {
                self.say_idle(local);
                if self.is_astray(server) {
                    self.close_server(server);
                } else if self.servers.get(server).is_some() {
                    self.attach(key, server, hot, Duration::ZERO);
                    self.go_away(server, first);
                    return Lending::Lent(server);
                }
            }
        }
        let read = read.map(|decision| Read::new(decision, self.pools[local].catalogue()));
        let waiter = Waiter { key, since: self.now, first: *first, read, hot };
        self.wait(local, priority, waiter);
        Lending::Waiting
    }

    fn wait(&mut self, local: usize, priority: i8, waiter: Waiter) {
        let Some(client) = self.clients.get_mut(waiter.key) else { return };
        client.state = State::Waiting;
        client.since = waiter.since;
        client.queue = local;
        let key = waiter.key;
        self.pools[local].waiters.push(priority, waiter);
        self.say_waiting(local);
        self.seek(local);
        if self.clients.get(key).is_some_and(|client| !matches!(client.state, State::Waiting)) {
            // Served at once, while its message is still being looked at.
            self.look_again(key);
        }
    }

    /// Waits outside the queue for servers until a row is free.
    fn enter_hot(&mut self, key: Key, local: usize, first: &First) -> Result<Option<HotPermit>, Parked> {
        let Some(client) = self.clients.get_mut(key) else { return Ok(None) };
        if let Some(turn) = client.turn.take() {
            return Ok(Some(turn));
        }
        let Some(row) = first.hot else { return Ok(None) };
        let settings = self.pools[local].settings();
        if settings.hot_row_percent >= 100 {
            return Ok(None);
        }
        let limit = row_limit(settings);
        let waiter =
            hot::Waiter { worker: u16::try_from(self.index).unwrap_or(u16::MAX), client: key.to_bits() };
        match self.shared.hot.enter(row, limit, waiter) {
            Entered::Permit(permit) => Ok(Some(permit)),
            Entered::Wait(wait) => {
                client.state = State::Parked(wait);
                client.since = self.now;
                self.shared.counters.count(self.index, Counter::HotWaits);
                Err(Parked)
            }
        }
    }

    /// A server connection becomes a client's.
    pub(super) fn attach(&mut self, key: Key, server_key: Key, hot: Option<HotPermit>, waited: Duration) {
        let now = self.now;
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let Some(client) = self.clients.get_mut(key) else { return };
        client.state = State::Active(server_key);
        client.since = now;
        client.was_held = false;
        // What its next read needs is what is there when that one comes.
        client.behind = None;
        server.client = Some(key);
        server.phase = Phase::Lent;
        server.read = None;
        server.doubts.calls_refused = 0;
        server.hot.extend(hot);
        if client.seat.as_ref().is_some_and(|seat| seat.session) {
            server.pins.set(super::Pin::Session, true);
        }
        server.touched = now;
        server.transaction_since = Some(now);
        let stats = &mut self.pools[server.local].stats;
        stats[Stat::Assignments] += 1;
        stats[Stat::WaitUs] += u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.shared.counters.waited(self.index, waited);
    }

    /// Brings a server to its client's state. True if the client's messages may follow at once; what goes ahead of them
    /// is in `batch`. False if they have to wait for an answer.
    pub(super) fn prepare(
        &mut self,
        key: Key,
        server_key: Key,
        first: &First,
        batch: &mut Batch<'_>,
    ) -> bool {
        let now = self.now;
        if first.is_begin || first.effects.intersects(SEQUENCES_MAY_SHOW) {
            self.discard_sequences(key, server_key, batch);
        }
        let Some(client) = self.clients.get_mut(key) else { return false };
        let Some(server) = self.servers.get_mut(server_key) else { return false };
        server.first = first.fingerprint;
        let check_after = self.pools[server.local].settings().check_after;
        let mut is_confirmed = false;
        if now.saturating_duration_since(server.since) >= check_after {
            write::query(batch.stage(), b"");
            server.push_ours(Why::Check);
            is_confirmed = true;
        }
        let mut needs = Needs::from_effects(first.effects);
        if first.is_series || first.is_begin {
            needs = Needs { prepared: true, channels: needs.channels };
        }
        if let Some(replay) = replay(&server.image, &client.image, needs, &self.shared.images) {
            batch.stage().extend_from_slice(&replay.messages);
            is_confirmed |= replay.confirm;
            server.push_replay(&replay);
            self.shared.counters.count(self.index, Counter::Replays);
        }
        if is_confirmed {
            server.phase = Phase::Preparing;
            let bytes = std::mem::take(batch.stage());
            self.send_server(server_key, &bytes);
            return false;
        }
        server.begin_held(client, batch.stage());
        true
    }

    /// What a later statement of a transaction can see beyond what was replayed.
    pub(super) fn replay_ahead(
        &mut self,
        key: Key,
        server_key: Key,
        effects: Effects,
        batch: &mut Batch<'_>,
    ) {
        let needs = Needs::from_effects(effects);
        if needs == Needs::default() {
            return;
        }
        let Some(client) = self.clients.get(key) else { return };
        let Some(server) = self.servers.get_mut(server_key) else { return };
        if !server.due.is_empty() || server.in_series {
            return;
        }
        if let Some(replay) = replay(&server.image, &client.image, needs, &self.shared.images) {
            batch.stage().extend_from_slice(&replay.messages);
            server.push_replay(&Replay { confirm: false, ..replay });
        }
    }

    /// The server is in its client's state now: its held BEGIN follows, and its messages.
    pub(super) fn prepared(&mut self, server_key: Key) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let Some(key) = server.client else { return };
        server.phase = Phase::Lent;
        let Some(client) = self.clients.get_mut(key) else { return };
        let mut prefix = std::mem::take(&mut server.prefix);
        server.begin_held(client, &mut prefix);
        server.prefix = prefix;
        self.resume_soon(key);
    }

    /// A connection without a client: to the first who waits, here or at another worker, or to the idle ones.
    pub(super) fn give(&mut self, server_key: Key) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        server.phase = Phase::Idle;
        server.client = None;
        server.since = self.now;
        server.transaction_since = None;
        server.end_writing(self.pools[server.local].split.is_on());
        server.away = None;
        let local = server.local;
        if self.must_close(server_key) {
            self.close_server(server_key);
            self.seek(local);
            return;
        }
        let Some(server) = self.servers.get(server_key) else { return };
        if server.cancels > 0 {
            // Whoever comes next must not get the cancel that was meant for the last one.
            return;
        }
        let part = &self.pools[local];
        if is_held_back(&part.pool.database, &self.shared) {
            self.rest(server_key, local);
            return;
        }
        let own_ms = part.waiters.oldest().map_or(u64::MAX, |since| self.shared.ms(since));
        if let Some(other) = part.pool.waiting_longer(self.index, own_ms.saturating_sub(SLACK_MS)) {
            self.hand_over(server_key, other);
            return;
        }
        if !self.serve_next(server_key, local) {
            self.rest(server_key, local);
        }
    }

    /// Gives a connection to the next who waits here.
    fn serve_next(&mut self, server_key: Key, local: usize) -> bool {
        while let Some(waiter) = self.pools[local].waiters.pop() {
            self.say_waiting(local);
            let is_waiting = self
                .clients
                .get(waiter.key)
                .is_some_and(|client| matches!(client.state, State::Waiting | State::Login(_)));
            if !is_waiting {
                if let Some(permit) = waiter.hot {
                    self.leave_row(permit);
                }
                continue;
            }
            let waited = self.now.saturating_duration_since(waiter.since);
            if waiter.first.is_own {
                self.swap_for_own(waiter.key, server_key);
                return true;
            }
            if waiter.first.is_startup {
                if self.try_startup(waiter.key, server_key) {
                    return true;
                }
                continue;
            }
            if !self.may_serve(local, &waiter.first) {
                self.place_again(waiter.key);
                continue;
            }
            self.attach(waiter.key, server_key, waiter.hot, waited);
            self.go_away(server_key, &waiter.first);
            let spare = self.spare();
            let mut batch = Batch::new(&[], spare);
            let at_once = self.prepare(waiter.key, server_key, &waiter.first, &mut batch);
            if at_once {
                if let Some(server) = self.servers.get_mut(server_key) {
                    server.prefix.append(batch.stage());
                    server.read = waiter.read;
                }
                // Its message was kept; if more came meanwhile, it is marked as unread.
                self.resume_soon(waiter.key);
            }
            let spare = batch.into_buffer();
            self.give_spare(spare);
            return true;
        }
        false
    }

    fn rest(&mut self, server_key: Key, local: usize) {
        let pool = &self.pools[local].pool;
        if pool.is_recalled(|| self.shared.ms(self.now)) {
            self.close_server(server_key);
            return;
        }
        self.pools[local].idle.push(server_key);
        self.say_idle(local);
    }

    /// Sees to it that those who wait will get something.
    pub(super) fn seek(&mut self, local: usize) {
        if self.pools[local].waiters.is_empty()
            || is_held_back(&self.pools[local].pool.database, &self.shared)
        {
            return;
        }
        let pool = Arc::clone(&self.pools[local].pool);
        while !self.pools[local].waiters.is_empty() {
            let Some(server) = self.pools[local].idle.pop() else { break };
            self.say_idle(local);
            if self.servers.get(server).is_none() || self.must_close(server) {
                self.close_server(server);
            } else if !self.serve_next(server, local) {
                self.rest(server, local);
                break;
            }
        }
        let Some(oldest) = self.pools[local].waiters.oldest() else { return };
        if !self.pools[local].borrowing
            && let Some(lender) = pool.lender(self.index)
        {
            self.pools[local].borrowing = true;
            self.shared.tell(lender, Order::Lend { pool, to: self.index });
            return;
        }
        let waited = self.now.saturating_duration_since(oldest);
        let settings = self.pools[local].settings();
        let reserve = if waited >= settings.reserve_wait { settings.reserve } else { 0 };
        if pool.open() >= settings.size + reserve {
            let part = &self.pools[local];
            // Whom a connection is being opened for need not take another's.
            if part.connecting < part.waiters.len() {
                self.break_soft_pin(local);
            }
            return;
        }
        loop {
            let part = &self.pools[local];
            if part.connecting >= CONNECTING_MAX.min(part.waiters.len()) || !self.may_connect(&pool) {
                return;
            }
            let Some(place) = pool.take_place(waited) else { break };
            let own = self.next_own(local);
            if !self.connect(local, place, own) {
                return;
            }
        }
        if pool.is_held_by_database() || pool.is_held_by_user() {
            self.evict_of_another_pool(local);
        }
        self.break_soft_pin(local);
    }

    /// The first waiter, if it wants a connection of its own: it stops waiting for any other.
    fn next_own(&mut self, local: usize) -> Option<Key> {
        let key = self.pools[local].waiters.iter().next().filter(|waiter| waiter.first.is_own)?.key;
        self.pools[local].waiters.remove(key);
        self.say_waiting(local);
        Some(key)
    }

    /// Closes an idle connection of another pool of the same database or user, so that there is room for one of this.
    fn evict_of_another_pool(&mut self, local: usize) {
        let held_back = Arc::clone(&self.pools[local].pool);
        let other = (0..self.pools.len()).find(|&other| {
            !self.pools[other].idle.is_empty() && self.pools[other].pool.holds_back(&held_back)
        });
        let Some(other) = other else {
            self.ask_for_room(&held_back);
            return;
        };
        if !self.pools[other].idle.is_empty() {
            let server = self.pools[other].idle.remove(0);
            self.say_idle(other);
            self.close_server(server);
            if let Some(place) = held_back.take_place(Duration::ZERO) {
                self.connect(local, place, None);
            }
        }
    }

    /// Asks another worker to close such a connection; once it has, the next tick finds the room.
    fn ask_for_room(&self, held_back: &Pool) {
        let databases = self.shared.databases();
        let pools = databases.iter().flat_map(|database| database.pools());
        let mut idle = pools.filter(|pool| pool.holds_back(held_back));
        if let Some((worker, pool)) = idle.find_map(|pool| Some((pool.lender(self.index)?, pool))) {
            self.shared.tell(worker, Order::MakeRoom { pool });
        }
    }

    /// Closes an idle connection, so that another worker has room for one of another pool.
    pub(super) fn make_room_for_others(&mut self, pool: &Arc<Pool>) {
        let local = self.local(pool);
        if self.pools[local].waiters.is_empty() && !self.pools[local].idle.is_empty() {
            let server = self.pools[local].idle.remove(0);
            self.say_idle(local);
            self.close_server(server);
        }
    }

    /// Closes what is idle of a pool: another process of ours waits for the places.
    pub(super) fn close_idle_servers(&mut self, pool: &Arc<Pool>) {
        let local = self.local(pool);
        for key in std::mem::take(&mut self.pools[local].idle) {
            self.close_server(key);
        }
        self.say_idle(local);
    }

    /// Takes a connection from a client that only might ask for `currval()`.
    fn break_soft_pin(&mut self, local: usize) {
        let pool = &self.pools[local].pool;
        let may_break = pool.settings.load().sequences == Sequences::Adaptive
            && !pool.reads_sequences.load(std::sync::atomic::Ordering::Relaxed);
        if self.soft_pins == 0 || !may_break || self.pools[local].waiters.is_empty() {
            return;
        }
        let soft = self
            .servers
            .keys()
            .into_iter()
            .filter_map(|key| self.servers.get(key).map(|server| (key, server)))
            .filter(|(_, server)| server.local == local && server.is_softly_pinned())
            .min_by_key(|(_, server)| server.since)
            .map(|(key, _)| key);
        let Some(key) = soft else {
            // Those that were counted have gone, or hold more than this.
            self.soft_pins = 0;
            return;
        };
        self.soft_pins = self.soft_pins.saturating_sub(1);
        if let Some(server) = self.servers.get_mut(key) {
            server.pins.set(super::Pin::Sequence, false);
        }
        self.release(key);
    }

    /// Another worker asks for an idle connection.
    pub(super) fn lend_to(&mut self, pool: &Arc<Pool>, to: usize) {
        let local = self.local(pool);
        if self.pools[local].waiters.is_empty()
            && let Some(server) = self.pools[local].idle.pop()
        {
            self.say_idle(local);
            self.hand_over(server, to);
            return;
        }
        self.shared.tell(to, Order::NothingToLend { pool: Arc::clone(pool) });
    }

    pub(super) fn nothing_lent(&mut self, pool: &Arc<Pool>) {
        let local = self.local(pool);
        self.pools[local].borrowing = false;
        // What the other worker said about its idle connections was out of date; it no longer says so.
        self.seek(local);
    }

    fn hand_over(&mut self, server_key: Key, to: usize) {
        let Some(mut server) = self.servers.remove(server_key) else { return };
        if server.wire.deregister(self.poll.registry()).is_err() {
            // It is closed, and its place is free; whoever asked for it is not to wait for it.
            let pool = Arc::clone(&server.pool);
            drop(server);
            self.shared.tell(to, Order::NothingToLend { pool });
            return;
        }
        server.phase = Phase::Idle;
        self.shared.tell(to, Order::Lent(Box::new(server)));
    }

    /// A connection from another worker.
    pub(super) fn take_lent(&mut self, mut server: Server) {
        let pool = Arc::clone(&server.pool);
        let local = self.local(&pool);
        self.pools[local].borrowing = false;
        server.local = local;
        let key = self.servers.insert_with(|_| server);
        let registry = self.poll.registry();
        let Some(server) = self.servers.get_mut(key) else { return };
        if server.wire.register(registry, key.token(Kind::Server), false).is_err() {
            self.servers.remove(key);
            self.seek(local);
            return;
        }
        self.find_misplaced(key, None);
        // Whatever came while it was on its way is found by reading.
        self.give_unchecked(key);
        self.servers_again.push_back(key);
    }

    /// As [`Self::give`], but it stays here.
    fn give_unchecked(&mut self, server_key: Key) {
        let Some(server) = self.servers.get(server_key) else { return };
        let local = server.local;
        if self.must_close(server_key) {
            self.close_server(server_key);
            self.seek(local);
        } else if is_held_back(&self.pools[local].pool.database, &self.shared)
            || !self.serve_next(server_key, local)
        {
            self.rest(server_key, local);
        }
    }

    /// Something changed for a database: those who wait may go on.
    pub(super) fn wake_database(&mut self, database: &Arc<Database>) {
        self.definitions_read(database);
        for local in 0..self.pools.len() {
            if Arc::ptr_eq(&self.pools[local].pool.database, database) {
                self.seek(local);
            }
        }
    }

    /// Whether a free connection is to be closed instead of lent.
    pub(super) fn must_close(&mut self, key: Key) -> bool {
        if self.is_astray(key) {
            return true;
        }
        let Some(server) = self.servers.get(key) else { return false };
        let settings = self.pools[server.local].settings();
        let lifetime = settings.lifetime;
        let is_old = !lifetime.is_zero() && self.now.saturating_duration_since(server.opened) >= lifetime;
        server.tainted
            || server.is_misplaced
            || server.epoch != server.pool.epoch()
            || is_old
            || server.startup.is_some()
            || server.pool.pays()
            || server.pool.open() > settings.size + settings.reserve
    }

    /// Tells the other workers how many idle connections there are here.
    pub(super) fn say_idle(&self, local: usize) {
        let part = &self.pools[local];
        part.pool.set_idle(self.index, part.idle.len());
    }

    /// The other workers are told how many wait here, before this one sleeps.
    pub(super) fn say_waiting(&mut self, local: usize) {
        let part = &mut self.pools[local];
        if !std::mem::replace(&mut part.has_changed_queue, true) {
            self.changed_queues.push(local);
        }
    }

    /// Says what changed in this turn about those who wait.
    pub(super) fn tell_waiting(&mut self) {
        while let Some(local) = self.changed_queues.pop() {
            let part = &mut self.pools[local];
            part.has_changed_queue = false;
            let oldest = part.waiters.oldest().map(|since| self.shared.ms(since));
            part.pool.set_waiting(self.index, part.waiters.len(), oldest);
        }
    }
}

/// The client was parked.
struct Parked;

/// How many connections one row may hold.
pub(super) fn row_limit(settings: &crate::config::PoolSettings) -> usize {
    (settings.size * settings.hot_row_percent as usize / 100).max(1)
}

/// Whether nobody gets a connection for now.
fn is_held_back(database: &Database, shared: &crate::shared::Shared) -> bool {
    shared.is_paused(database) || !database.is_known.load(std::sync::atomic::Ordering::Relaxed)
}

pub(super) fn message_query(out: &mut Vec<u8>, body: &[u8]) {
    write::message::header(out, b'Q', body.len());
    out.extend_from_slice(body);
}

impl Server {
    /// Notes the answers to a replay.
    pub(super) fn push_replay(&mut self, replay: &Replay) {
        for _ in 1..replay.queries {
            self.push_ours(Why::ReplayPart { confirm: replay.confirm });
        }
        let after = Arc::clone(&replay.after);
        self.push_ours(if replay.confirm { Why::Replay(after) } else { Why::ReplayAhead(after) });
    }

    /// Whether it stays with its client only for what `currval()` might say.
    fn is_softly_pinned(&self) -> bool {
        self.pins.is_soft()
            && self.due.is_empty()
            && self.status == TransactionStatus::Idle
            && !self.in_series
            && !self.torn
            && matches!(self.phase, Phase::Lent)
    }
}
