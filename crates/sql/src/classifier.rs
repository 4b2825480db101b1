//! The decision for each text, remembered by fingerprint: one per worker.
//!
//! **Mechanism.** A text that differs from a recent one in its values only is recognised as it is (`template`); others
//! are lexed. Then two generations of a bounded map: a decision found in the old one moves to the young one; when the
//! young one is full it becomes the old one, and what was not asked for meanwhile is forgotten. So what is in use
//! stays, at the price of one look-up, and a client that makes up statements can push nothing out that is asked for
//! at least once per generation. Decisions are kept under the fingerprint and the catalogue they were made with, so
//! databases do not push out each other's.
//!
//! **Failure.** Decisions that depend on the text itself (`needs_text`) are made afresh and never kept. What was decided
//! with an older catalogue is not found any more, and ages away.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::catalogue::Catalogue;
use crate::decision::Decision;
use crate::fingerprint::{Fingerprint, Seed, fingerprint};
use crate::lex::Dialect;
use crate::path::SearchPath;
use crate::read::{Scope, read, unreadable};
use crate::template::{Templates, Under};

/// Decisions kept in one generation; a worker keeps at most twice as many, about 300 bytes each.
pub const DECISIONS_MAX: usize = 4_096;

/// One in so many texts that no template fits becomes one: making it costs as much as lexing.
const LEXED_PER_TEMPLATE: u32 = 4;

type Generation = HashMap<u128, Arc<Decision>, BuildHasherDefault<Identity>>;

/// A worker's memory of decisions.
#[derive(Debug)]
pub struct Classifier {
    seed: Seed,
    young: Generation,
    old: Generation,
    templates: Templates,
    /// Texts lexed since the last one that became a template.
    lexed: u32,
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
            templates: Templates::new(seed),
            lexed: 0,
            unreadable,
        }
    }

    /// A search path for [`Self::classify_in`]: [`SearchPath::parse`].
    #[must_use]
    pub fn path(&self, value: &str, role: &str) -> Option<SearchPath> {
        SearchPath::parse(value, role, &self.seed)
    }

    /// What `sql`, a whole query string of one Query or Parse message, does.
    pub fn classify(&mut self, sql: &[u8], dialect: Dialect, catalogue: &Catalogue) -> Arc<Decision> {
        self.classify_in(sql, dialect, catalogue, None)
    }

    /// The same for a session whose search path is known, so that names without schema are of its schemas only. The
    /// path must be the one that the statement runs with: within a transaction that may have changed it, give none.
    pub fn classify_in(
        &mut self,
        sql: &[u8],
        dialect: Dialect,
        catalogue: &Catalogue,
        path: Option<&SearchPath>,
    ) -> Arc<Decision> {
        if !dialect.ascii_safe {
            return Arc::clone(&self.unreadable);
        }
        let under = Under { dialect, catalogue: catalogue.mark(), path: path.map_or(0, SearchPath::id) };
        if let Some(decision) = self.templates.find(sql, under) {
            return Arc::clone(decision);
        }
        let Some(reading) = fingerprint(sql, dialect, &self.seed) else {
            return Arc::clone(&self.unreadable);
        };
        let key = key(reading.fingerprint, under);
        if let Some(decision) = self.remembered(key) {
            self.lexed += 1;
            if self.lexed >= LEXED_PER_TEMPLATE {
                self.lexed = 0;
                self.templates.learn(sql, under, &decision);
            }
            return decision;
        }
        let Some(decision) = read(sql, &self.seed, Scope { dialect, catalogue, path }) else {
            let unread = Arc::new(Decision::unknown(reading.fingerprint));
            self.keep(key, Arc::clone(&unread));
            return unread;
        };
        let decision = Arc::new(decision);
        if !decision.needs_text {
            self.keep(key, Arc::clone(&decision));
        }
        decision
    }

    fn remembered(&mut self, key: u128) -> Option<Arc<Decision>> {
        if let Some(decision) = self.young.get(&key) {
            return Some(Arc::clone(decision));
        }
        let decision = self.old.remove(&key)?;
        self.keep(key, Arc::clone(&decision));
        Some(decision)
    }

    fn keep(&mut self, key: u128, decision: Arc<Decision>) {
        if self.young.len() >= DECISIONS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, decision);
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

/// What a decision is kept under: a fingerprint, the catalogue's mark, and the search path.
fn key(fingerprint: Fingerprint, under: Under) -> u128 {
    let (version, is_stale) = under.catalogue;
    fingerprint.0 ^ (u128::from(version) << 1 | u128::from(is_stale)) << 63 ^ u128::from(under.path)
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
