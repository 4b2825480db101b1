//! What the names of one database hide, as far as it is known, and since when.
//!
//! **Intuition.** A migration redefines a function, and until the catalogue has been read again nobody knows what the
//! function does. Changes are numbered, and a reading settles all changes that were made before it began: whoever needs
//! to know waits for the reading of the last change it knows of, however many follow.
//!
//! **Mechanism.** [`Definitions::change`] counts a change and makes the catalogue stale; the monitor says when it begins
//! to read ([`Definitions::reading`]) and what it read ([`Definitions::read`]). What is prepared is prepared in one
//! [`Definitions::state`], and is another statement in the next.
//!
//! **Failure.** A reading that fails settles what it could not read ([`Definitions::give_up`]): those that wait go on,
//! and what they call is unknown.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use tenfold_sql::Catalogue;

/// See the module.
#[derive(Debug)]
pub struct Definitions {
    catalogue: ArcSwap<Catalogue>,
    state: AtomicU64,
    /// Changes noticed.
    changes: AtomicU64,
    /// The last of these that may have put something behind names.
    hiding: AtomicU64,
    /// Of these, how many the reading that runs, or the last one, came after.
    reading: AtomicU64,
    /// How many have been read.
    read: AtomicU64,
    /// How many have been read or given up.
    settled: AtomicU64,
}

/// A state that nothing else was ever prepared in.
#[must_use]
pub fn unique_state() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Default for Definitions {
    fn default() -> Self {
        Self {
            catalogue: ArcSwap::new(Catalogue::empty()),
            state: AtomicU64::new(unique_state()),
            changes: AtomicU64::new(0),
            hiding: AtomicU64::new(0),
            reading: AtomicU64::new(0),
            read: AtomicU64::new(0),
            settled: AtomicU64::new(0),
        }
    }
}

impl Definitions {
    /// What is known now.
    pub fn catalogue(&self) -> arc_swap::Guard<Arc<Catalogue>> {
        self.catalogue.load()
    }

    /// Where it is kept, for a cache of it.
    #[must_use]
    pub fn cell(&self) -> &ArcSwap<Catalogue> {
        &self.catalogue
    }

    /// Another number whenever definitions may have changed, no two databases' the same: what was prepared in one is not
    /// what is prepared in another.
    #[must_use]
    #[inline]
    pub fn state(&self) -> u64 {
        self.state.load(Ordering::Relaxed)
    }

    /// The number of the last change.
    #[must_use]
    pub fn last_change(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Whether all changes up to this one have been read, or nobody could.
    #[must_use]
    pub fn is_settled(&self, change: u64) -> bool {
        self.settled.load(Ordering::SeqCst) >= change
    }

    /// Whether all changes up to this one have been read.
    #[must_use]
    pub fn is_read(&self, change: u64) -> bool {
        self.read.load(Ordering::SeqCst) >= change
    }

    /// Whether there is something to read.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.is_read(self.last_change())
    }

    /// Definitions have changed; `hides`: something may be behind names that were known.
    pub fn change(&self, hides: bool) {
        self.state.store(unique_state(), Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::SeqCst);
        if hides {
            self.hiding.fetch_max(self.last_change(), Ordering::SeqCst);
        }
        self.make_stale();
    }

    /// A reading begins.
    pub fn reading(&self) {
        self.reading.store(self.last_change(), Ordering::SeqCst);
    }

    /// It has ended with this.
    pub fn read(&self, catalogue: &Arc<Catalogue>) {
        let change = self.reading.load(Ordering::SeqCst);
        self.read.fetch_max(change, Ordering::SeqCst);
        // What changed under the reader's hands makes it stale before anybody sees it.
        self.catalogue.rcu(|_| if self.is_behind() { self.stale(catalogue) } else { Arc::clone(catalogue) });
        self.settled.fetch_max(change, Ordering::SeqCst);
    }

    /// Nobody can read them for now. Whoever names a relation would wait in vain, or keep its connection for good.
    pub fn give_up(&self) {
        self.settled.fetch_max(self.last_change(), Ordering::SeqCst);
        self.catalogue
            .rcu(|catalogue| if catalogue.hides() { catalogue.given_up() } else { Arc::clone(catalogue) });
    }

    /// Another catalogue even if this one is stale already, so that one which was being read is not put in its place
    /// unseen.
    fn make_stale(&self) {
        self.catalogue.rcu(|catalogue| self.stale(catalogue));
    }

    fn stale(&self, catalogue: &Catalogue) -> Arc<Catalogue> {
        let hides = !self.is_read(self.hiding.load(Ordering::SeqCst));
        if hides || catalogue.hides() { catalogue.hiding() } else { catalogue.stale() }
    }
}

#[cfg(test)]
mod tests {
    use tenfold_sql::CatalogueBuilder;

    use super::*;

    fn catalogue(version: u64) -> Arc<Catalogue> {
        CatalogueBuilder::new().build(version)
    }

    #[test]
    fn a_reading_settles_what_changed_before_it_began() {
        let definitions = Definitions::default();
        definitions.change(false);
        let first = definitions.last_change();
        assert!(!definitions.is_settled(first) && definitions.is_behind());
        definitions.reading();
        definitions.change(false);
        let second = definitions.last_change();
        definitions.read(&catalogue(1));
        assert!(definitions.is_settled(first) && !definitions.is_settled(second));
        assert!(definitions.catalogue().is_stale() && definitions.is_behind());
        definitions.reading();
        definitions.read(&catalogue(2));
        assert!(definitions.is_settled(second) && definitions.is_read(second) && !definitions.is_behind());
        assert!(!definitions.catalogue().is_stale());
    }

    #[test]
    fn what_may_be_behind_names_is_hidden_until_it_is_read() {
        let definitions = Definitions::default();
        let hides = || definitions.catalogue().hides();
        definitions.reading();
        definitions.read(&catalogue(1));
        definitions.change(false);
        assert!(definitions.catalogue().is_stale() && !hides());
        definitions.change(true);
        assert!(hides());
        definitions.reading();
        definitions.change(false);
        assert!(hides());
        definitions.read(&catalogue(2));
        assert!(definitions.catalogue().is_stale() && !hides(), "what may be behind names was read");
        definitions.change(true);
        definitions.give_up();
        assert!(definitions.catalogue().is_stale() && !hides(), "nobody will say what is behind them");
    }

    #[test]
    fn what_is_given_up_is_settled_and_not_read() {
        let definitions = Definitions::default();
        definitions.change(false);
        definitions.give_up();
        let change = definitions.last_change();
        assert!(definitions.is_settled(change) && !definitions.is_read(change) && definitions.is_behind());
    }

    #[test]
    fn every_change_is_another_state_and_a_reading_is_none() {
        let definitions = Definitions::default();
        let first = definitions.state();
        definitions.reading();
        definitions.read(&catalogue(1));
        assert_eq!(definitions.state(), first);
        definitions.change(false);
        assert_ne!(definitions.state(), first);
        assert_ne!(Definitions::default().state(), definitions.state());
    }
}
