//! Which fills are running, by key.
//!
//! A sharded map from key to the few fills that run for it: usually one; several where `Vary` or credentials keep
//! requests apart. A fill is in the map while it can be followed, and counted while it lives.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use super::Shared;
use crate::store::SeededHash;

/// Running fills.
#[derive(Debug)]
pub(crate) struct Fills {
    shards: Box<[Mutex<Shard>]>,
    hash: SeededHash,
    running: AtomicUsize,
    running_max: usize,
}

type Shard = HashMap<Box<[u8]>, SmallVec<[Arc<Shared>; 1]>, SeededHash>;

/// One key's place in the map, locked.
pub(crate) struct Place<'a> {
    shard: MutexGuard<'a, Shard>,
    key: &'a [u8],
}

const SHARDS: usize = 64;
/// Fills that may run for one key at once.
pub(crate) const FILLS_PER_KEY_MAX: usize = 8;

impl Fills {
    pub(crate) fn new(running_max: usize, hash: &SeededHash) -> Self {
        let shard = || Mutex::new(HashMap::with_hasher(hash.clone()));
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hash: hash.clone(),
            running: AtomicUsize::new(0),
            running_max,
        }
    }

    /// Locks a key's place.
    pub(crate) fn place<'a>(&'a self, key: &'a [u8]) -> Place<'a> {
        // Other bits than the map uses.
        let index = usize::try_from((self.hash.hash_one(key) >> 40) % SHARDS as u64).expect("below SHARDS");
        let shard = self.shards[index].lock().unwrap_or_else(PoisonError::into_inner);
        Place { shard, key }
    }

    /// Counts a fill that begins, if one more may.
    pub(crate) fn begin(&self) -> bool {
        let one_more = |running: usize| (running < self.running_max).then_some(running + 1);
        self.running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Counts a fill that is gone.
    pub(crate) fn ended(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed) as u64
    }

    /// Takes a fill out, so that nobody finds it any more.
    pub(crate) fn remove(&self, key: &[u8], fill: &Arc<Shared>) {
        let mut place = self.place(key);
        let Some(fills) = place.shard.get_mut(key) else { return };
        fills.retain(|other| !Arc::ptr_eq(other, fill));
        if fills.is_empty() {
            place.shard.remove(key);
        }
    }
}

impl Place<'_> {
    pub(crate) fn fills(&self) -> &[Arc<Shared>] {
        self.shard.get(self.key).map_or(&[], |fills| fills.as_slice())
    }

    pub(crate) fn insert(&mut self, fill: Arc<Shared>) {
        self.shard.entry(self.key.into()).or_default().push(fill);
    }
}
