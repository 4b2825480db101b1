//! Clients that wait for a server connection: first come, first served, within their priority.

use std::{collections::VecDeque, sync::Arc};

use tenfold_sql::{Catalogue, Decision, Effects, Fingerprint};

use super::slab::Key;
use crate::{
    hot::{HotPermit, HotRow},
    split::Lsn,
};

/// Clients that wait, the first of the highest priority first.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    queues: Vec<(i8, VecDeque<Waiter>)>,
    len: usize,
    /// Those that want no server yet: each waits until the change of definitions it knows of is read.
    held: Vec<(u64, Waiter)>,
}

/// One that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) key: Key,
    pub(super) since: std::time::Instant,
    pub(super) first: First,
    /// What its first statement does.
    pub(super) read: Option<Read>,
    pub(super) hot: Option<HotPermit>,
}

/// What a statement does, and what this was read in.
#[derive(Clone, Debug)]
pub(super) struct Read {
    decision: Arc<Decision>,
    catalogue: (u64, bool),
}

impl Read {
    /// Keeps what a statement does for when its client need not wait any more.
    pub(super) fn new(decision: &Arc<Decision>, catalogue: &Catalogue) -> Self {
        Self { decision: Arc::clone(decision), catalogue: version(catalogue) }
    }

    /// What was kept, if the catalogue is still the one it was read in.
    pub(super) fn under(self, catalogue: &Catalogue) -> Option<Arc<Decision>> {
        (self.catalogue == version(catalogue)).then_some(self.decision)
    }
}

fn version(catalogue: &Catalogue) -> (u64, bool) {
    (catalogue.version(), catalogue.is_stale())
}

/// What the first message of a transaction says about it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct First {
    pub(super) effects: Effects,
    /// It begins a transaction block, of which nothing is known yet.
    pub(super) is_begin: bool,
    /// Extended protocol: others may follow before the server can be asked anything.
    pub(super) is_series: bool,
    /// What its first statement is.
    pub(super) fingerprint: Fingerprint,
    /// The row it wants.
    pub(super) hot: Option<HotRow>,
    /// What the replica must be that it waits for; `None`: the primary.
    pub(super) at: Option<At>,
    /// It wants a connection opened for it alone.
    pub(super) is_own: bool,
    /// The client logs in, and its startup parameters are to be tried.
    pub(super) is_startup: bool,
}

/// A read that goes to a replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    /// [`crate::split::Replica::life`].
    pub(super) life: u32,
    /// What it must have replayed.
    pub(super) floor: Lsn,
    /// Its transaction runs there from BEGIN to its end.
    pub(super) is_block: bool,
}

impl Waiters {
    pub(super) fn push(&mut self, priority: i8, waiter: Waiter) {
        let at = self.queues.partition_point(|(other, _)| *other > priority);
        if self.queues.get(at).is_none_or(|(other, _)| *other != priority) {
            self.queues.insert(at, (priority, VecDeque::new()));
        }
        self.queues[at].1.push_back(waiter);
        self.len += 1;
    }

    pub(super) fn pop(&mut self) -> Option<Waiter> {
        let waiter = self.queues.iter_mut().find_map(|(_, queue)| queue.pop_front())?;
        self.len -= 1;
        Some(waiter)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Waiter> {
        for (_, queue) in &mut self.queues {
            if let Some(at) = queue.iter().position(|waiter| waiter.key == key) {
                self.len -= 1;
                return queue.remove(at);
            }
        }
        let at = self.held.iter().position(|(_, waiter)| waiter.key == key)?;
        Some(self.held.remove(at).1)
    }

    /// Waits until a change of definitions is read.
    pub(super) fn hold(&mut self, change: u64, waiter: Waiter) {
        self.held.push((change, waiter));
    }

    /// Those whose change is read, in the order in which they came.
    pub(super) fn let_on(&mut self, is_read: impl Fn(u64) -> bool) -> Vec<Waiter> {
        self.held.extract_if(.., |(change, _)| is_read(*change)).map(|(_, waiter)| waiter).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Since when the longest waiter waits.
    pub(super) fn oldest(&self) -> Option<std::time::Instant> {
        self.queues.iter().filter_map(|(_, queue)| queue.front()).map(|waiter| waiter.since).min()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        let held = self.held.iter().map(|(_, waiter)| waiter);
        self.queues.iter().flat_map(|(_, queue)| queue.iter()).chain(held)
    }
}
