//! The decision for each text, remembered by fingerprint: one per worker.
//!
//! **Mechanism.** Two generations of a bounded map. A decision found in the old one moves to the young one; when the
//! young one is full it becomes the old one, and what was not asked for meanwhile is forgotten. So what is in use
//! stays, at the price of one look-up, and a client that makes up statements can push nothing out that is asked for
//! at least once per generation.
//!
//! **Failure.** Decisions that depend on the text itself (`needs_text`) are made afresh and never kept. A new version
//! of the catalogue forgets all.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::catalogue::Catalogue;
use crate::decision::Decision;
use crate::fingerprint::{Fingerprint, Seed, fingerprint};
use crate::lex::Dialect;
use crate::read::{read, unreadable};

/// Decisions kept in one generation; a worker keeps at most twice as many, about 300 bytes each.
pub const DECISIONS_MAX: usize = 4_096;

type Generation = HashMap<Fingerprint, Arc<Decision>, BuildHasherDefault<Identity>>;

/// A worker's memory of decisions.
#[derive(Debug)]
pub struct Classifier {
    seed: Seed,
    young: Generation,
    old: Generation,
    /// Of the catalogue that all of them were made with.
    catalogue: (u64, bool),
    unreadable: Arc<Decision>,
}

impl Classifier {
    /// An empty memory. All classifiers of a process share one random `seed`, so that fingerprints mean the same on all.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        let unreadable = Arc::new(unreadable());
        Self {
            seed,
            young: Generation::default(),
            old: Generation::default(),
            catalogue: (0, true),
            unreadable,
        }
    }

    /// What `sql`, a whole query string of one Query or Parse message, does.
    pub fn classify(&mut self, sql: &[u8], dialect: Dialect, catalogue: &Catalogue) -> Arc<Decision> {
        let version = (catalogue.version(), catalogue.is_stale());
        if self.catalogue != version {
            self.catalogue = version;
            self.young.clear();
            self.old.clear();
        }
        if !dialect.ascii_safe {
            return Arc::clone(&self.unreadable);
        }
        let Some(reading) = fingerprint(sql, dialect, &self.seed) else {
            return Arc::clone(&self.unreadable);
        };
        if let Some(decision) = self.young.get(&reading.fingerprint) {
            return Arc::clone(decision);
        }
        if let Some(decision) = self.old.remove(&reading.fingerprint) {
            self.keep(Arc::clone(&decision));
            return decision;
        }
        let Some(decision) = read(sql, dialect, &self.seed, catalogue) else {
            let unread = Arc::new(Decision::unknown(reading.fingerprint));
            self.keep(Arc::clone(&unread));
            return unread;
        };
        let decision = Arc::new(decision);
        if !decision.needs_text {
            self.keep(Arc::clone(&decision));
        }
        decision
    }

    fn keep(&mut self, decision: Arc<Decision>) {
        if self.young.len() >= DECISIONS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(decision.fingerprint, decision);
    }

    /// How many decisions are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A fingerprint is a keyed hash already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut word = [0; 8];
        word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        self.0 ^= u64::from_le_bytes(word);
    }

    #[allow(clippy::cast_possible_truncation)] // the halves are equally good
    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }
}
