//! Which fills are running, by key.
//!
//! A sharded map from key to the few fills that run for it: usually one; several where `Vary` or credentials keep
//! requests apart. A fill is in the map while it can be followed, and counted while it lives.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use super::Shared;
use crate::permit::{Permit, Permits};
use crate::store::SeededHash;

/// Running fills.
#[derive(Debug)]
pub(crate) struct Fills {
    shards: Box<[Mutex<Shard>]>,
    hash: SeededHash,
    running: Arc<Permits>,
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
            running: Arc::default(),
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

    /// What a fill holds while it lives, if one more may.
    pub(crate) fn begin(&self) -> Option<Permit> {
        self.running.take(self.running_max)
    }

    pub(crate) fn running(&self) -> u64 {
        self.running.out() as u64
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
