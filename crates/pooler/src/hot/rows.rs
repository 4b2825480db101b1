//! Who holds a server connection for which row, and who waits for one.
//!
//! **Mechanism.** Shards of mutexes over maps that have an entry only while somebody holds or waits. The lock is held
//! for a few stores; searching the queue happens only when a waiter gives up.
//!
//! **Failure.** See [`super`].

use std::{
    collections::{HashMap, VecDeque, hash_map},
    fmt,
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use foldhash::fast::RandomState;
use tenfold_sql::Fingerprint;

use super::{learned::Learned, pace::Pace};

/// Rows held or waited for at once at most: more than there are server connections.
pub const ROWS_MAX: usize = 65_536;

const SHARDS: usize = 16;

/// A statement on one row: what connections are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HotRow {
    /// Which pool: rows of two databases are not the same.
    pub pool: u64,
    /// Which statement.
    pub fingerprint: Fingerprint,
    /// Hash of the value that picks the row; 0 for a whole statement, as for what was [`HotRows::learn`]ed.
    pub value: u64,
}

/// A client that waits: where to find it when its turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Its worker.
    pub worker: u16,
    /// What it is to that worker.
    pub client: u64,
}

/// All hot rows of the process. Clones are the same table.
#[derive(Clone)]
pub struct HotRows {
    table: Arc<Table>,
}

struct Table {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    waiting: AtomicUsize,
    /// Unique in the process: a wait that ended must not be taken for one of a later entry for the same row.
    next_ticket: AtomicU64,
    learned: Learned,
}

type Shard = HashMap<HotRow, Entry, RandomState>;

#[derive(Default)]
struct Entry {
    held: usize,
    /// As the last who entered said.
    limit: usize,
    pace: Pace,
    /// First come, first served. Tickets rise, being drawn under the shard's lock.
    queue: VecDeque<(u64, Waiter)>,
}

/// The right to hold a server connection for a row. To be given back by [`HotPermit::leave`].
#[must_use = "a permit dropped at once caps nothing"]
pub struct HotPermit {
    rows: HotRows,
    row: HotRow,
    /// Not counted: the table was full.
    counted: bool,
}

/// A place in the queue for a row; dropping it gives it up.
#[must_use = "dropping it leaves the queue"]
pub struct HotWait {
    rows: HotRows,
    row: HotRow,
    ticket: u64,
}

/// What [`HotRows::enter`] says.
#[derive(Debug)]
pub enum Entered {
    /// Go on.
    Permit(HotPermit),
    /// Wait: the permit comes from whoever leaves, or from [`HotWait::retry`].
    Wait(HotWait),
}

impl Default for HotRows {
    fn default() -> Self {
        Self::new()
    }
}

impl HotRows {
    /// A table in which nothing is held.
    #[must_use]
    pub fn new() -> Self {
        let table = Table {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::default(),
            waiting: AtomicUsize::new(0),
            next_ticket: AtomicU64::new(0),
            learned: Learned::default(),
        };
        Self { table: Arc::new(table) }
    }

    /// Asks for a permit before a server connection is lent. At most `limit`, at least one, are out for a row, and fewer
    /// while fewer keep it as busy; nobody passes those who wait already.
    pub fn enter(&self, row: HotRow, limit: usize, waiter: Waiter) -> Entered {
        let mut shard = self.shard(&row);
        let Some(entry) = entry(&mut shard, row, limit) else {
            return Entered::Permit(HotPermit { rows: self.clone(), row, counted: false });
        };
        if entry.queue.is_empty() && entry.held < entry.allowed(&row) {
            entry.held += 1;
            return Entered::Permit(HotPermit { rows: self.clone(), row, counted: true });
        }
        let ticket = self.table.next_ticket.fetch_add(1, Ordering::Relaxed);
        entry.queue.push_back((ticket, waiter));
        self.table.waiting.fetch_add(1, Ordering::Relaxed);
        Entered::Wait(HotWait { rows: self.clone(), row, ticket })
    }

    /// Counts a statement of a transaction that holds its server connection already. True if the row is hot: others
    /// wait for it, or the limit was reached.
    pub fn join(&self, row: HotRow, limit: usize) -> (HotPermit, bool) {
        let mut shard = self.shard(&row);
        let Some(entry) = entry(&mut shard, row, limit) else {
            return (HotPermit { rows: self.clone(), row, counted: false }, false);
        };
        let hot = !entry.queue.is_empty() || entry.held >= entry.limit;
        entry.held += 1;
        (HotPermit { rows: self.clone(), row, counted: true }, hot)
    }

    /// A transaction that began with the statement `first` has reached a hot row.
    pub fn learn(&self, pool: u64, first: Fingerprint, now: Instant) {
        self.table.learned.reached(pool, first, now);
    }

    /// A transaction begins with the statement `first`: whether such transactions mostly reach a hot row, so that it
    /// should [`HotRows::enter`] the row of `first` with the value 0. A load of one atomic while nothing was learned.
    #[must_use]
    pub fn may_reach_hot(&self, pool: u64, first: Fingerprint, now: Instant) -> bool {
        self.table.learned.begun(pool, first, now)
    }

    /// Clients that wait for a row.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.table.waiting.load(Ordering::Relaxed)
    }

    /// Rows held or waited for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether no row is held or waited for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, row: &HotRow) -> MutexGuard<'_, Shard> {
        let hash = self.table.hasher.hash_one(row) >> 32;
        lock(&self.table.shards[usize::try_from(hash % SHARDS as u64).expect("below sixteen")])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn entry(shard: &mut Shard, row: HotRow, limit: usize) -> Option<&mut Entry> {
    let full = shard.len() >= ROWS_MAX / SHARDS;
    let entry = match shard.entry(row) {
        hash_map::Entry::Occupied(entry) => entry.into_mut(),
        hash_map::Entry::Vacant(_) if full => return None,
        hash_map::Entry::Vacant(entry) => entry.insert(Entry::default()),
    };
    entry.limit = limit.max(1);
    Some(entry)
}

impl HotPermit {
    /// For which row it is.
    #[must_use]
    pub fn row(&self) -> HotRow {
        self.row
    }

    /// The server connection is given back. Returns whose turn it is, and its permit: pass it on. If that client is
    /// gone by then, leaving again finds the next.
    #[must_use = "somebody may be waiting for it"]
    pub fn leave(mut self, now: Instant) -> Option<(Waiter, HotPermit)> {
        let next = self.release(Some(now))?;
        Some((next, HotPermit { rows: self.rows.clone(), row: self.row, counted: true }))
    }

    /// Whoever else may go on, and its permit: a row that was given more connections than it has takes more than one at
    /// a time.
    #[must_use = "somebody may be waiting for it"]
    pub fn another(&self) -> Option<(Waiter, HotPermit)> {
        let mut shard = self.rows.shard(&self.row);
        let next = shard.get_mut(&self.row)?.admit_first(&self.row)?;
        self.rows.table.waiting.fetch_sub(1, Ordering::Relaxed);
        Some((next, HotPermit { rows: self.rows.clone(), row: self.row, counted: true }))
    }

    /// `now` if it is handed on.
    fn release(&mut self, now: Option<Instant>) -> Option<Waiter> {
        if !std::mem::take(&mut self.counted) {
            return None;
        }
        let mut shard = self.rows.shard(&self.row);
        let entry = shard.get_mut(&self.row)?;
        entry.held -= 1;
        let next = now.and_then(|now| {
            entry.pace.ended(now, entry.limit, !entry.queue.is_empty());
            entry.admit_first(&self.row)
        });
        if next.is_some() {
            self.rows.table.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        if entry.is_unused() {
            shard.remove(&self.row);
        }
        next
    }
}

impl Drop for HotPermit {
    fn drop(&mut self) {
        self.release(None);
    }
}

impl HotWait {
    /// Takes the permit if it is there for the taking: this waiter is the first, and fewer than the limit are out.
    ///
    /// # Errors
    /// The same wait, to go on.
    pub fn retry(self) -> Result<HotPermit, HotWait> {
        let admitted = {
            let mut shard = self.rows.shard(&self.row);
            shard.get_mut(&self.row).is_some_and(|entry| {
                let is_first = entry.queue.front().is_some_and(|(ticket, _)| *ticket == self.ticket);
                is_first && entry.admit_first(&self.row).is_some()
            })
        };
        if !admitted {
            return Err(self);
        }
        self.rows.table.waiting.fetch_sub(1, Ordering::Relaxed);
        Ok(HotPermit { rows: self.rows.clone(), row: self.row, counted: true })
    }
}

impl Drop for HotWait {
    fn drop(&mut self) {
        let mut shard = self.rows.shard(&self.row);
        let Some(entry) = shard.get_mut(&self.row) else { return };
        // Tickets rise along the queue; one that was admitted is no longer in it.
        let Ok(at) = entry.queue.binary_search_by_key(&self.ticket, |(ticket, _)| *ticket) else { return };
        entry.queue.remove(at);
        self.rows.table.waiting.fetch_sub(1, Ordering::Relaxed);
        if entry.is_unused() {
            shard.remove(&self.row);
        }
    }
}

impl Entry {
    /// How many may be out.
    fn allowed(&self, row: &HotRow) -> usize {
        // A whole statement is many rows: only the limit holds for it.
        if row.value == 0 { self.limit } else { self.pace.allowed(self.limit) }
    }

    fn admit_first(&mut self, row: &HotRow) -> Option<Waiter> {
        if self.held >= self.allowed(row) {
            return None;
        }
        let (_, waiter) = self.queue.pop_front()?;
        self.held += 1;
        Some(waiter)
    }

    fn is_unused(&self) -> bool {
        self.held == 0 && self.queue.is_empty()
    }
}

impl fmt::Debug for HotRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HotRows").field("len", &self.len()).field("waiting", &self.waiting()).finish()
    }
}

impl fmt::Debug for HotPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HotPermit").field("row", &self.row).finish_non_exhaustive()
    }
}

impl fmt::Debug for HotWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HotWait").field("row", &self.row).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;
    use tenfold_service::clock::Clock;

    use super::*;

    fn row(value: u64) -> HotRow {
        HotRow { pool: 1, fingerprint: Fingerprint(7), value }
    }

    fn now() -> Instant {
        Clock::manual().now()
    }

    fn waiter(client: u64) -> Waiter {
        Waiter { worker: 0, client }
    }

    fn permit(entered: Entered) -> HotPermit {
        let Entered::Permit(permit) = entered else { panic!("it has to wait") };
        permit
    }

    fn wait(entered: Entered) -> HotWait {
        let Entered::Wait(wait) = entered else { panic!("it may go on") };
        wait
    }

    #[test]
    fn one_row_is_capped_and_others_pass() {
        let rows = HotRows::new();
        let first = permit(rows.enter(row(1), 2, waiter(1)));
        let second = permit(rows.enter(row(1), 2, waiter(2)));
        let waiting = wait(rows.enter(row(1), 2, waiter(9)));
        let other = permit(rows.enter(row(2), 2, waiter(10)));
        assert_eq!((rows.len(), rows.waiting()), (2, 1));
        let (next, passed_on) = first.leave(now()).unwrap();
        assert_eq!(next, waiter(9));
        drop(waiting);
        assert!([passed_on, other, second].into_iter().all(|permit| permit.leave(now()).is_none()));
        assert_eq!((rows.len(), rows.waiting()), (0, 0));
    }

    #[test]
    fn who_goes_away_leaves_the_queue_also_with_its_turn_under_way() {
        let rows = HotRows::new();
        let held = permit(rows.enter(row(1), 1, waiter(0)));
        let mut waits: Vec<_> = (1..4).map(|client| wait(rows.enter(row(1), 1, waiter(client)))).collect();
        drop(waits.remove(1));
        let (next, on_its_way) = held.leave(now()).unwrap();
        assert_eq!(next, waiter(1));
        // Its client has gone meanwhile: the permit goes on to the next.
        drop(waits.remove(0));
        let (next, last) = on_its_way.leave(now()).unwrap();
        assert_eq!(next, waiter(3));
        assert!(last.leave(now()).is_none());
        drop(waits);
        assert!(rows.is_empty());
    }

    #[test]
    fn nobody_passes_those_who_wait_and_a_lost_wake_up_is_made_good() {
        let rows = HotRows::new();
        let held = permit(rows.enter(row(1), 1, waiter(0)));
        let first = wait(rows.enter(row(1), 1, waiter(1)));
        drop(held);
        // The permit was dropped rather than left, so nobody was told; a newcomer has to queue all the same.
        let second = wait(rows.enter(row(1), 1, waiter(2)));
        let second = second.retry().unwrap_err();
        let granted = first.retry().unwrap();
        let second = second.retry().unwrap_err();
        assert_eq!(granted.leave(now()).unwrap().0, waiter(2));
        drop(second);
    }

    #[test]
    fn a_statement_inside_a_transaction_is_counted_and_never_stopped() {
        let rows = HotRows::new();
        let (first, hot) = rows.join(row(1), 1);
        assert!(!hot);
        let (second, hot) = rows.join(row(1), 1);
        assert!(hot);
        let waiting = wait(rows.enter(row(1), 1, waiter(1)));
        assert!(first.leave(now()).is_none(), "still at the limit");
        assert_eq!(second.leave(now()).unwrap().0, waiter(1));
        drop(waiting);
        assert!(rows.is_empty());
    }

    #[test]
    fn a_row_that_may_have_more_connections_again_gets_them() {
        let rows = HotRows::new();
        let held: Vec<_> = (0..2).map(|client| permit(rows.enter(row(1), 2, waiter(client)))).collect();
        let waits: Vec<_> = (2..9).map(|client| wait(rows.enter(row(1), 2, waiter(client)))).collect();
        // From here on, more may be out than are.
        let last = wait(rows.enter(row(1), 4, waiter(9)));
        let mut out = held;
        let (next, passed_on) = out.remove(0).leave(now()).unwrap();
        assert_eq!(next, waiter(2));
        out.push(passed_on);
        while let Some((_, another)) = out[0].another() {
            out.push(another);
        }
        assert_eq!((out.len(), rows.waiting()), (4, 5));
        drop((waits, last));
        assert!(out.into_iter().all(|permit| permit.leave(now()).is_none()));
        assert!(rows.is_empty());
    }

    #[test]
    fn a_raised_limit_lets_more_in() {
        let rows = HotRows::new();
        let _held = permit(rows.enter(row(1), 1, waiter(0)));
        let waiting = wait(rows.enter(row(1), 1, waiter(1)));
        let later = wait(rows.enter(row(1), 3, waiter(2)));
        let _one = waiting.retry().unwrap();
        let _two = later.retry().unwrap();
    }

    proptest! {
        /// Against a count and a queue; the numbers are clients.
        #[test]
        fn it_is_a_counter_with_a_queue(
            limit in 1..4_usize,
            steps in prop::collection::vec((0..3_u8, 0..8_usize), 0..100),
        ) {
            let rows = HotRows::new();
            let mut held: Vec<HotPermit> = Vec::new();
            let mut waits: VecDeque<(u64, HotWait)> = VecDeque::new();
            for (client, (step, which)) in (0..).zip(steps) {
                match step {
                    0 => match rows.enter(row(1), limit, waiter(client)) {
                        Entered::Permit(permit) => {
                            prop_assert!(held.len() < limit && waits.is_empty());
                            held.push(permit);
                        }
                        Entered::Wait(wait) => {
                            prop_assert!(held.len() == limit);
                            waits.push_back((client, wait));
                        }
                    },
                    1 if !held.is_empty() => {
                        let next = held.remove(which % held.len()).leave(now());
                        let expected = waits.pop_front().map(|(client, _)| client);
                        prop_assert_eq!(next.as_ref().map(|(next, _)| next.client), expected);
                        held.extend(next.map(|(_, permit)| permit));
                    }
                    2 if !waits.is_empty() => drop(waits.remove(which % waits.len())),
                    _ => {}
                }
                prop_assert_eq!(rows.waiting(), waits.len());
                prop_assert_eq!(rows.is_empty(), held.is_empty() && waits.is_empty());
            }
        }
    }
}
