//! People behind connections: what each must see, on whichever connection it comes.
//!
//! **Intuition.** A phone's requests come over any of the API's connections. If the API says who is asking, what one
//! request wrote the next one sees, though another connection carries it.
//!
//! **Mechanism.** An identity is a text of the application's own (a user's number), given by `SET tenfold.identity = '…'`
//! for a connection, or for a statement in a comment as sqlcommenter writes them: `/*tenfold='…'*/`
//! ([`said_in`](super::said_in)). Each has a [`Follower`] in a bounded map of two generations.
//!
//! **Failure.** Whoever is forgotten needs what the last ones needed that were forgotten.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    num::NonZeroU64,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{choose::Follower, samples::Sample};

/// Identities remembered, at least; at most twice as many.
const IDENTITIES_MAX: usize = 128 * 1_024;
const SHARDS: usize = 16;
/// A longer text is no identity.
const IDENTITY_BYTES_MAX: usize = 1_024;

/// Somebody: a keyed hash of the text, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(NonZeroU64);

/// See the module.
#[derive(Debug)]
pub struct Identities {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    forgotten: AtomicU64,
    per_shard_max: usize,
}

#[derive(Debug, Default)]
struct Shard {
    young: HashMap<u64, Follower>,
    old: HashMap<u64, Follower>,
}

impl Default for Identities {
    fn default() -> Self {
        Self::new(IDENTITIES_MAX)
    }
}

impl Identities {
    /// Nobody is known yet.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            forgotten: AtomicU64::new(0),
            per_shard_max: (max / SHARDS).max(1),
        }
    }

    /// Whom a text means; `None` for an empty or overlong one.
    #[must_use]
    pub fn of(&self, text: &[u8]) -> Option<Identity> {
        let is_fit = !text.is_empty() && text.len() <= IDENTITY_BYTES_MAX;
        let hash = NonZeroU64::new(self.hasher.hash_one(text)).unwrap_or(NonZeroU64::MIN);
        is_fit.then_some(Identity(hash))
    }

    /// What somebody must see.
    #[must_use]
    pub fn get(&self, identity: Identity) -> Follower {
        let shard = self.shard(identity);
        if let Some(known) =
            shard.young.get(&identity.0.get()).or_else(|| shard.old.get(&identity.0.get())).copied()
        {
            return known;
        }
        drop(shard);
        Follower { primary: Sample(self.forgotten.load(Ordering::Acquire)), ..Follower::default() }
    }

    /// Somebody has seen something.
    pub fn update(&self, identity: Identity, update: impl FnOnce(&mut Follower)) {
        let mut follower = self.get(identity);
        let mut shard = self.shard(identity);
        if let Some(known) = shard.old.remove(&identity.0.get()) {
            shard.young.insert(identity.0.get(), known);
        }
        if let Some(known) = shard.young.get_mut(&identity.0.get()) {
            update(known);
            return;
        }
        update(&mut follower);
        if shard.young.len() >= self.per_shard_max {
            let young = std::mem::take(&mut shard.young);
            let forgotten = std::mem::replace(&mut shard.old, young);
            let highest = forgotten.values().map(|known| known.primary.max(known.replica)).max();
            self.forgotten.fetch_max(highest.unwrap_or_default().0, Ordering::AcqRel);
        }
        shard.young.insert(identity.0.get(), follower);
    }

    fn shard(&self, identity: Identity) -> std::sync::MutexGuard<'_, Shard> {
        let at = usize::try_from(identity.0.get() >> 32).unwrap_or(0) % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_forgotten_needs_what_the_last_ones_did() {
        let identities = Identities::new(SHARDS);
        let of = |at: u64| identities.of(at.to_string().as_bytes()).expect("short");
        for at in 1..=1_000 {
            identities.update(of(at), |follower| follower.primary = Sample(at));
        }
        assert_eq!(identities.get(of(1_000)).primary, Sample(1_000));
        let forgotten = identities.get(of(1)).primary;
        assert!(forgotten >= Sample(1) && forgotten <= Sample(1_000), "{forgotten:?}");
        assert!(identities.get(of(2_000)).primary >= forgotten);
        let known: usize = identities
            .shards
            .iter()
            .map(|shard| shard.lock().expect("no panic"))
            .map(|shard| shard.young.len() + shard.old.len())
            .sum();
        assert!(known <= 2 * SHARDS);
    }

    #[test]
    fn updates_add_up() {
        let identities = Identities::default();
        let ann = identities.of(b"ann").expect("short");
        identities.update(ann, |follower| follower.primary = Sample(3));
        identities.update(ann, |follower| follower.own = 7);
        assert_eq!(identities.get(ann), Follower { primary: Sample(3), own: 7, ..Follower::default() });
        assert_eq!(identities.of(b""), None);
        assert_eq!(identities.of(&[b'x'; 2_000]), None);
    }
}
