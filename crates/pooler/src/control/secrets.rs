//! Salting of passwords, away from the threads that have clients waiting.
//!
//! **Intuition.** Ten thousand clients that start at once with one password need one salting, not ten thousand; and a
//! thousand with different passwords need a core for two seconds, but not the core that serves everybody else.
//!
//! **Mechanism.** [`Salter::salt`] looks in the cache, waits for its turn, looks again, and only then computes, on a
//! thread for blocking work. Half of the cores may be at it.
//!
//! **Failure.** A caller that is dropped leaves the queue; what runs goes on and is kept.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::auth::{Derivation, SaltedCache, SaltedPassword};

/// Of this many cores one may be salting, so that a storm of wrong passwords leaves the others.
const CORES_PER_SALTING: usize = 2;

/// Does [`Derivation`]s. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Salter {
    cache: Arc<SaltedCache>,
    turn: Arc<Semaphore>,
}

impl Salter {
    /// One for this machine, that keeps its results in this cache, which logins look into first.
    #[must_use]
    pub fn new(cache: Arc<SaltedCache>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let at_once = (cores / CORES_PER_SALTING).max(1);
        Self { cache, turn: Arc::new(Semaphore::new(at_once)) }
    }

    /// Where the results are kept.
    #[must_use]
    pub fn cache(&self) -> &Arc<SaltedCache> {
        &self.cache
    }

    /// The result, soon. Needs a tokio runtime. Cancellation safe.
    pub async fn salt(&self, derivation: Derivation) -> SaltedPassword {
        if let Some(salted) = self.cache.get(&derivation) {
            return salted;
        }
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        let cache = Arc::clone(&self.cache);
        let again = derivation.clone();
        let running = tokio::task::spawn_blocking(move || {
            // Held until the result is kept, also if the caller is gone.
            let _turn = turn;
            cache.get_or_run(&derivation)
        });
        match running.await {
            Ok(salted) => salted,
            // The runtime is ending; nobody will miss the milliseconds.
            Err(_) => self.cache.get_or_run(&again),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_storm_of_one_password_is_salted_once() {
        let salter = Salter::new(Arc::default());
        let derivation = Derivation::new(b"pencil", b"salt", 4_096).unwrap();
        let mut storm = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let (salter, derivation) = (salter.clone(), derivation.clone());
            storm.spawn(async move { salter.salt(derivation).await });
        }
        let mut results = storm.join_all().await;
        let first = results.pop().unwrap();
        assert_eq!(first.keys(), derivation.run().keys());
        assert!(results.iter().all(|salted| salted.keys() == first.keys()));
        assert!(salter.cache().get(&derivation).is_some());
    }
}
