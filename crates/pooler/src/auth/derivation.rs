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
    sync::{Arc, Mutex, PoisonError},
};

use crate::config::Password;

/// Salted passwords kept in each generation of a [`SaltedCache`].
const GENERATION_ENTRIES_MAX: usize = 4_096;
/// Rounds a server may ask for; PostgreSQL's own default is 4,096.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// Bytes of a salt that are accepted; PostgreSQL's own salts have 16.
pub const SALT_BYTES_MAX: usize = 1_024;

/// The password in the form all SCRAM keys are made from. As good as the password itself for its salt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SaltedPassword(pub(crate) [u8; 32]);

impl std::fmt::Debug for SaltedPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SaltedPassword(…)")
    }
}

/// A salting that has to be done. Compare by value: equal ones have equal results.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Derivation {
    password: Password,
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
    /// A salting to be done. `iterations` must be within 1 and [`ITERATIONS_MAX`], the salt within
    /// [`SALT_BYTES_MAX`]: both may come from a server.
    #[must_use]
    pub fn new(password: Password, salt: &[u8], iterations: u32) -> Option<Self> {
        let bounded = (1..=ITERATIONS_MAX).contains(&iterations) && salt.len() <= SALT_BYTES_MAX;
        bounded.then(|| Self { password, salt: salt.into(), iterations })
    }

    /// Does it: some milliseconds for 4,096 rounds, on the thread that calls.
    #[must_use]
    pub fn run(&self) -> SaltedPassword {
        SaltedPassword(super::scram_standin::scram::salted_password(
            self.password.expose().as_bytes(),
            &self.salt,
            self.iterations,
        ))
    }
}

impl SaltedCache {
    /// The result, if it was derived lately.
    #[must_use]
    pub fn get(&self, derivation: &Derivation) -> Option<SaltedPassword> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(salted) = generations.young.get(derivation) {
            return Some(*salted);
        }
        let (derivation, salted) = generations.old.remove_entry(derivation)?;
        generations.keep(derivation, salted);
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
            self.put(derivation.clone(), salted);
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
