//! The slow part of SCRAM: salting a password, which takes milliseconds of CPU by design.
//!
//! **Intuition.** PBKDF2 with 4,096 rounds is what protects a stolen secret, and what would stall a worker's other ten
//! thousand clients. So logins never run it: they hand out a [`Derivation`], go on when it is done, and its result is
//! kept for the next login with the same password and salt.
//!
//! **Mechanism.** [`SaltedCache`] maps (password, salt, rounds) to the result, in two generations: when the young one
//! is full, it becomes the old one, and what the old one held and nobody asked for since is forgotten.
//!
//! **Failure.** A full cache costs time, nothing else. Rounds are bounded before anyone computes them
//! ([`ITERATIONS_MAX`]), so that a hostile server can't burn the helper thread.
//!
//! Source: RFC 5802 §3 (`SaltedPassword := Hi(Normalize(password), salt, i)`).

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tenfold_pgwire::scram::ITERATIONS_MAX;
pub use tenfold_pgwire::scram::SaltedPassword;

/// Salted passwords kept in each generation of a [`SaltedCache`].
const GENERATION_ENTRIES_MAX: usize = 4_096;
/// Bytes of a salt that are accepted; PostgreSQL's own salts have 16.
pub const SALT_BYTES_MAX: usize = 1_024;
/// Bytes of a password that are salted: PostgreSQL's `MAX_SASLPREP` and more would only be someone's attack.
pub const PASSWORD_BYTES_MAX: usize = 4_096;

/// A salting that has to be done. Compare by value: equal ones have equal results.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Derivation {
    password: Arc<[u8]>,
    salt: Arc<[u8]>,
    iterations: u32,
}

/// What was derived lately, for the whole process.
#[derive(Debug, Default)]
pub struct SaltedCache {
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Derivation, SaltedPassword, foldhash::fast::RandomState>,
    old: HashMap<Derivation, SaltedPassword, foldhash::fast::RandomState>,
}

impl Derivation {
    /// A salting to be done; `None` if it would cost too much: rounds outside 1 and [`ITERATIONS_MAX`], a salt or a
    /// password beyond their limits. All of them may come from the other side.
    #[must_use]
    pub fn new(password: &[u8], salt: &[u8], iterations: u32) -> Option<Self> {
        let bounded = (1..=ITERATIONS_MAX).contains(&iterations)
            && salt.len() <= SALT_BYTES_MAX
            && password.len() <= PASSWORD_BYTES_MAX;
        bounded.then(|| Self { password: password.into(), salt: salt.into(), iterations })
    }

    /// Does it: about two milliseconds for 4,096 rounds, on the thread that calls.
    #[must_use]
    pub fn run(&self) -> SaltedPassword {
        SaltedPassword::derive(&self.password, &self.salt, self.iterations)
    }
}

impl fmt::Debug for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Derivation({} iterations)", self.iterations)
    }
}

impl SaltedCache {
    /// The result, if it was derived lately.
    #[must_use]
    pub fn get(&self, derivation: &Derivation) -> Option<SaltedPassword> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(salted) = generations.young.get(derivation) {
            return Some(salted.clone());
        }
        let (derivation, salted) = generations.old.remove_entry(derivation)?;
        generations.keep(derivation, salted.clone());
        Some(salted)
    }

    /// Keeps a result.
    pub fn put(&self, derivation: Derivation, salted: SaltedPassword) {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).keep(derivation, salted);
    }

    /// [`SaltedCache::get`], or does it on this thread and keeps it.
    #[must_use]
    pub fn get_or_run(&self, derivation: &Derivation) -> SaltedPassword {
        self.get(derivation).unwrap_or_else(|| {
            let salted = derivation.run();
            self.put(derivation.clone(), salted.clone());
            salted
        })
    }
}

impl Generations {
    fn keep(&mut self, derivation: Derivation, salted: SaltedPassword) {
        if self.young.len() >= GENERATION_ENTRIES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(derivation, salted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derivation(n: usize) -> Derivation {
        Derivation::new(b"open sesame", &n.to_be_bytes(), 1).unwrap()
    }

    #[test]
    fn what_was_derived_is_kept_within_bounds() {
        let cache = SaltedCache::default();
        assert!(cache.get(&derivation(0)).is_none());
        let first = cache.get_or_run(&derivation(0));
        for n in 1..GENERATION_ENTRIES_MAX * 3 {
            cache.put(derivation(n), derivation(n).run());
            // What is asked for stays.
            assert_eq!(cache.get(&derivation(0)).unwrap().keys(), first.keys());
        }
        let generations = cache.generations.lock().unwrap();
        assert!(generations.young.len() <= GENERATION_ENTRIES_MAX);
        assert!(generations.old.len() <= GENERATION_ENTRIES_MAX);
        assert!(
            !generations.young.contains_key(&derivation(1)) && !generations.old.contains_key(&derivation(1))
        );
    }

    #[test]
    fn what_would_cost_too_much_is_refused() {
        let check = |password: usize, salt: usize, iterations: u32, ok: bool| {
            let derivation = Derivation::new(&vec![b'p'; password], &vec![1; salt], iterations);
            assert_eq!(derivation.is_some(), ok, "{password} {salt} {iterations}");
        };
        check(8, 16, 4_096, true);
        check(PASSWORD_BYTES_MAX, SALT_BYTES_MAX, ITERATIONS_MAX, true);
        check(8, 16, 0, false);
        check(8, 16, ITERATIONS_MAX + 1, false);
        check(8, SALT_BYTES_MAX + 1, 1, false);
        check(PASSWORD_BYTES_MAX + 1, 16, 1, false);
    }
}
