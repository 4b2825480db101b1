//! Reads on replicas: which one may answer, and when only the primary may.
//!
//! **Intuition.** A replica's answer is right if the replica has replayed everything that its reader could know of. So
//! for every table, and for every client, there is a *floor*: a position in the primary's write-ahead log. A read goes
//! to any replica at or above the floors of what it reads and of who reads, waits a moment for one to get there, and
//! else goes to the primary.
//!
//! **Mechanism.** Nothing is added to anyone's transaction to learn the position of its commit. Instead the primary's
//! insert position is sampled on a connection of its own ([`Samples`]), and an event (a commit's answer, an answer of
//! the primary) is remembered by the number of the first sample that begins after it: that sample's position is at or
//! above everything the event could show. Until that sample is there, the event is *unsettled*. [`Floors`] keeps the
//! last such number per table, [`Follower`] per client; [`Replica`] is what is known of one replica, and [`choose`]
//! puts them together. What was seen elsewhere, through other poolers or before a restart, comes along with the statement
//! ([`Carried`]); what is to be seen elsewhere is told by request ([`Traces`], [`Split::after`]).
//!
//! **Failure.** What is not known goes to the primary: a table while a commit on it is under way, everything before the
//! first sample, a replica that was not seen to be one of this primary's. A lost sample leaves what waits for it
//! unsettled until the next.

mod carried;
mod choose;
mod comment;
mod facts;
mod floors;
mod identity;
mod key;
mod lsn;
mod replica;
mod routes;
mod samples;
mod traces;

use std::{
    collections::HashSet,
    hash::RandomState,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tenfold_sql::Fingerprint;
use tokio::sync::Notify;

use crate::config::ReplicaHost;

pub use self::{
    carried::{Carried, History, Position},
    choose::{Choice, Follower, Limits, Why, choose},
    comment::{Said, said_in},
    facts::{Begins, Facts, facts_query, instance_of, isolation_of},
    floors::{Changed, Floors, Keyed, Need, Writing},
    identity::{Identities, Identity},
    key::{param_value, text_value},
    lsn::Lsn,
    replica::{InFlight, Replica, State},
    routes::{LAG_BOUNDS_US, PRIMARY, READ, REPLICA, Routes, Top, TopRow, merged},
    samples::{Sample, Samples},
    traces::{Done, TraceId, Traced, Traces},
};

pub(crate) use self::routes::TOP_MAX;

/// Replicas of one database at most.
pub const REPLICAS_MAX: usize = 64;
/// Numbers for them: [`Replica::id`].
const IDS: u32 = 255;

/// Statements that replicas refused, remembered at most.
const REFUSED_MAX: usize = 10_000;

/// Where the primary's log was after what a request did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Nobody has heard of such a request: it said no word to the database, or its statements don't name it.
    Unseen,
    /// The primary did nothing for it.
    Nothing,
    /// A server that has replayed up to here shows all that the primary did for it.
    At(Position),
    /// It could not be found out in time.
    Unknown,
}

/// Somebody waits for positions, until dropped.
#[derive(Debug)]
pub struct Waiting(Arc<Split>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What all workers share of one database's replicas.
#[derive(Debug)]
pub struct Split {
    /// The primary's positions.
    pub samples: Samples,
    /// What tables need.
    pub floors: Floors,
    /// Hashes names and values of key columns.
    pub hasher: RandomState,
    /// What people need.
    pub identities: Identities,
    /// What requests did.
    pub traces: Traces,
    /// The line of history that the primary writes, once it was asked.
    history: ArcSwapOption<History>,
    /// The replicas, in the configuration's order; none: nothing is split.
    pub replicas: ArcSwap<Vec<Arc<Replica>>>,
    /// The number that was given to a replica last: one that comes back is another.
    last_id: AtomicU32,
    /// Clients and connections that wait for positions.
    waiting: AtomicUsize,
    /// Fingerprints of statements that a replica refused.
    refused: Mutex<HashSet<u128>>,
    has_refused: AtomicBool,
    /// Wakes whoever samples the primary.
    poke: Notify,
    /// Wakes whoever waits for a position.
    known: Notify,
    /// Wakes whoever keeps the replicas watched.
    changed: Notify,
}

impl Default for Split {
    fn default() -> Self {
        Self {
            samples: Samples::new(),
            floors: Floors::new(),
            hasher: RandomState::new(),
            identities: Identities::default(),
            traces: Traces::default(),
            history: ArcSwapOption::empty(),
            replicas: ArcSwap::from_pointee(Vec::new()),
            last_id: AtomicU32::new(0),
            waiting: AtomicUsize::new(0),
            refused: Mutex::default(),
            has_refused: AtomicBool::new(false),
            poke: Notify::new(),
            known: Notify::new(),
            changed: Notify::new(),
        }
    }
}

impl Split {
    /// Whether there is a replica at all.
    #[must_use]
    #[inline]
    pub fn is_on(&self) -> bool {
        !self.replicas.load().is_empty()
    }

    /// Makes these the replicas: those that are there already stay what they are.
    pub fn set_replicas(&self, hosts: &[ReplicaHost]) {
        let old = self.replicas.load_full();
        let mut all: Vec<Arc<Replica>> = Vec::new();
        for host in hosts.iter().take(REPLICAS_MAX) {
            let name = host.host.to_string();
            let replica = old.iter().find(|replica| *replica.name == *name).cloned().unwrap_or_else(|| {
                let is_free = |id: &u32| !old.iter().chain(&all).any(|other| other.id == *id);
                let last = self.last_id.load(Ordering::Relaxed);
                // Never more than twice REPLICAS_MAX at once.
                let id = (last..last + IDS).map(|id| id % IDS + 1).find(is_free).unwrap_or(IDS);
                self.last_id.store(id, Ordering::Relaxed);
                Arc::new(Replica::new(id, name.into(), host.clone()))
            });
            replica.weight.store(host.weight.max(1), Ordering::Relaxed);
            all.push(replica);
        }
        for gone in old.iter().filter(|replica| !all.iter().any(|kept| Arc::ptr_eq(kept, replica))) {
            gone.lost(State::Down);
            gone.epoch.fetch_add(1, Ordering::Relaxed);
        }
        self.replicas.store(Arc::new(all));
        // What was written while nobody noted it.
        self.floors.raise_all(self.samples.next());
        self.changed.notify_one();
        self.poke();
    }

    /// Until replicas came or went. For one at a time.
    pub async fn replicas_changed(&self) {
        self.changed.notified().await;
    }

    /// Somebody waits for positions, until this is dropped.
    #[must_use]
    pub fn wait(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.poke();
        Waiting(Arc::clone(self))
    }

    /// As [`Self::wait`], of somebody to whom this replica's life matters, if it is one: the others are not asked for it.
    #[must_use]
    pub fn wait_for(self: &Arc<Self>, life: u32) -> Waiting {
        let is_own = |replica: &&Arc<Replica>| replica.life() == life && replica.state() == State::Up;
        let replicas = self.replicas.load();
        let Some(own) = replicas.iter().find(is_own) else { return self.wait() };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.poke.notify_one();
        own.poke();
        Waiting(Arc::clone(self))
    }

    /// The line of history that the primary writes; `None` until it was asked.
    #[must_use]
    pub fn history(&self) -> Option<History> {
        self.history.load().as_deref().copied()
    }

    /// The primary writes this line: to be said before a position of it settles anything.
    pub fn set_history(&self, history: History) {
        if self.history() != Some(history) {
            self.history.store(Some(Arc::new(history)));
        }
    }

    /// A sample was answered.
    pub fn sampled(&self) {
        self.known.notify_waiters();
    }

    /// Whether a statement has named this request.
    #[must_use]
    pub fn has_seen(&self, trace: TraceId) -> bool {
        self.traces.done(trace) != Done::Unseen
    }

    /// Up to where a replica must have replayed for what a request did at the primary: once that is known. Cancellation
    /// safe.
    pub async fn after(self: &Arc<Self>, trace: TraceId) -> After {
        let mut waits = None;
        loop {
            // In this order: an answer that comes between is not missed.
            let mut sampled = std::pin::pin!(self.known.notified());
            sampled.as_mut().enable();
            let history = self.history();
            let settled = match self.traces.done(trace) {
                Done::Unseen => return After::Unseen,
                Done::Nothing => return After::Nothing,
                Done::Pending => None,
                Done::By(sample) => self.samples.lsn(sample),
            };
            // A position and the line it is on are told one after the other.
            if let (Some(lsn), Some(history)) = (settled, history)
                && self.history() == Some(history)
            {
                return After::At(Position { history, lsn });
            }
            waits.get_or_insert_with(|| self.wait());
            sampled.await;
        }
    }

    /// A replica refused statements of this fingerprint: they go to the primary from now on.
    pub fn refuse(&self, fingerprint: Fingerprint) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() < REFUSED_MAX {
            refused.insert(fingerprint.0);
            self.has_refused.store(true, Ordering::Release);
        }
    }

    /// Whether a replica has refused such a statement.
    #[must_use]
    pub fn is_refused(&self, fingerprint: Fingerprint) -> bool {
        self.has_refused.load(Ordering::Acquire)
            && self.refused.lock().unwrap_or_else(PoisonError::into_inner).contains(&fingerprint.0)
    }

    /// Definitions have changed: what was refused may be another thing now.
    pub fn forget_refused(&self) {
        self.has_refused.store(false, Ordering::Release);
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether somebody waits for positions: sample as often as may be, and wake the workers after each.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Has the primary and all replicas looked at now.
    pub fn poke(&self) {
        self.poke.notify_one();
        for replica in self.replicas.load().iter() {
            replica.poke();
        }
    }

    /// Until somebody wants a sample of the primary.
    pub async fn poked(&self) {
        self.poke.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Host;

    fn hosts(ports: &[u16]) -> Vec<ReplicaHost> {
        let host = |port: &u16| Host::Tcp { host: "r".into(), port: *port };
        ports.iter().map(|port| ReplicaHost { host: host(port), weight: 1 }).collect()
    }

    #[test]
    fn a_reload_keeps_the_replicas_that_stay() {
        let split = Split::default();
        assert!(!split.is_on());
        split.set_replicas(&hosts(&[1, 2]));
        let before = split.replicas.load_full();
        before[1].answered(9, Lsn(5), 0, 1);
        split.set_replicas(&hosts(&[2, 3]));
        let after = split.replicas.load_full();
        assert!(Arc::ptr_eq(&before[1], &after[0]) && after[0].state() == State::Up);
        assert!(after[1].id != after[0].id && before[0].state() == State::Down);
        split.set_replicas(&hosts(&[]));
        split.set_replicas(&hosts(&[2]));
        assert_ne!(split.replicas.load()[0].id, after[0].id, "nobody takes it for the one that was there");
        for port in 1..300 {
            split.set_replicas(&hosts(&[port]));
            assert!((1..=IDS).contains(&split.replicas.load()[0].id));
        }
    }
}
