//! Equal things are one thing: a table of what is alive, so that comparing two of them is comparing two pointers.
//!
//! **Intuition.** Ten thousand clients of one application hold the same settings and the same fifty statements. Each is
//! kept once, and whether two clients hold the same is asked once, when it changes, not at every lending.
//!
//! **Mechanism.** Shards of mutexes over maps from hash to weak references. What nobody holds any more is swept out
//! when a shard has doubled since its last sweep, so sweeping costs a constant per entry made.
//!
//! **Failure.** None. The table holds at most twice what is alive, plus [`SWEEP_MIN`] a shard; what is alive is bounded
//! by those who hold it. The hash is keyed per process, so that texts cannot be chosen to collide.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use foldhash::quality::RandomState;

/// Enough that two workers seldom meet at one.
const SHARDS: usize = 16;
/// Below this a shard is not swept: the dead of a small table do no harm.
const SWEEP_MIN: usize = 64;

/// See the module.
pub(crate) struct Interner<T> {
    shards: Box<[Mutex<Shard<T>>]>,
    hasher: RandomState,
}

struct Shard<T> {
    /// All entries of one hash, dead or alive; nearly always one.
    entries: HashMap<u64, Vec<Weak<T>>, RandomState>,
    /// Entries, the dead included.
    len: usize,
    sweep_at: usize,
}

impl<T> Interner<T> {
    pub(crate) fn new() -> Self {
        let shard = || Mutex::new(Shard { entries: HashMap::default(), len: 0, sweep_at: SWEEP_MIN });
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), hasher: RandomState::default() }
    }

    /// The one thing for which `same` holds among those of this key's hash, else what `make` makes, which must be it.
    pub(crate) fn get_or_make<K: Hash>(
        &self,
        key: &K,
        same: impl Fn(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let hash = self.hasher.hash_one(key);
        let shard = usize::try_from(hash % SHARDS as u64).expect("below sixteen");
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(alive) = shard.find(hash, same) {
            return alive;
        }
        let made = Arc::new(make());
        shard.insert(hash, Arc::downgrade(&made));
        made
    }

    /// Entries, the dead that were not swept yet included.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len).sum()
    }
}

impl<T> Shard<T> {
    fn find(&self, hash: u64, same: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let alike = self.entries.get(&hash)?;
        alike.iter().filter_map(Weak::upgrade).find(|alive| same(alive))
    }

    fn insert(&mut self, hash: u64, made: Weak<T>) {
        if self.len >= self.sweep_at {
            self.sweep();
        }
        self.entries.entry(hash).or_default().push(made);
        self.len += 1;
    }

    fn sweep(&mut self) {
        self.entries.retain(|_, alike| {
            alike.retain(|entry| entry.strong_count() > 0);
            !alike.is_empty()
        });
        self.len = self.entries.values().map(Vec::len).sum();
        self.sweep_at = (self.len * 2).max(SWEEP_MIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intern(interner: &Interner<String>, text: &str) -> Arc<String> {
        interner.get_or_make(&text, |other| other == text, || text.to_owned())
    }

    #[test]
    fn equal_things_are_one_thing_while_somebody_holds_it() {
        let interner = Interner::new();
        let first = intern(&interner, "a");
        assert!(Arc::ptr_eq(&first, &intern(&interner, "a")));
        assert!(!Arc::ptr_eq(&first, &intern(&interner, "b")));
        let forgotten = Arc::downgrade(&first);
        drop(first);
        assert!(forgotten.upgrade().is_none(), "the table keeps nothing alive");
        assert_eq!(*intern(&interner, "a"), "a");
    }

    #[test]
    fn the_dead_are_swept_out() {
        let interner = Interner::new();
        let kept: Vec<_> = (0..100).map(|at| intern(&interner, &format!("kept {at}"))).collect();
        for at in 0..100_000 {
            intern(&interner, &at.to_string());
        }
        assert!(interner.len() <= 2 * kept.len() + 2 * SHARDS * SWEEP_MIN, "{} entries", interner.len());
        assert!(kept.iter().all(|text| Arc::ptr_eq(text, &intern(&interner, text))));
    }

    #[test]
    fn things_of_one_hash_stay_apart() {
        let interner = Interner::new();
        let one = interner.get_or_make(&0, |other| *other == 1, || 1);
        let two = interner.get_or_make(&0, |other| *other == 2, || 2);
        assert_eq!((*one, *two), (1, 2));
        assert!(Arc::ptr_eq(&one, &interner.get_or_make(&0, |other| *other == 1, || 1)));
    }
}
