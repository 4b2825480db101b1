//! What the readers of a table need to see: everything that was committed to it.
//!
//! **Intuition.** From the moment a statement that may commit is sent until its answer is there, nobody can say whether a
//! reader should see its work, so the readers of its tables go to the primary. From then on they need the first sample
//! of the primary's position that begins later.
//!
//! **Mechanism.** Tables fall into a fixed number of slots: a collision makes a reader wait for a write it need not see,
//! and nothing ever fills up. [`Writing`] holds its slots while it lives and leaves the sample behind when it is
//! dropped, so that no path can forget to.
//!
//! **Failure.** What may have written anything raises the floor of everything.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use tenfold_sql::{TableId, Tables};

use super::{Split, samples::Sample};

/// Slots for tables.
const SLOTS: usize = 1_024;
/// The slot that every reader needs: writes to nobody knows what.
const ALL: u16 = 1_024;
/// The slot that every writer raises: for those who read nobody knows what.
const ANY: u16 = 1_025;

/// See the module.
#[derive(Debug)]
pub struct Floors {
    slots: Box<[Slot]>,
}

#[derive(Debug, Default)]
struct Slot {
    pending: AtomicU32,
    last: AtomicU64,
}

/// What a read of some tables needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// A commit is under way: only the primary can tell.
    pub pending: bool,
    /// A replica must have replayed this.
    pub sample: Sample,
}

/// The tables of one transaction, from before it may commit until its answer is there.
#[derive(Debug, Default)]
pub struct Writing {
    split: Option<Arc<Split>>,
    /// Ascending, each once.
    slots: Vec<u16>,
}

impl Default for Floors {
    fn default() -> Self {
        Self::new()
    }
}

impl Floors {
    /// Floors under which nothing is known: what was written before needs the first sample.
    #[must_use]
    pub fn new() -> Self {
        let slots: Box<[Slot]> = (0..=ANY).map(|_| Slot::default()).collect();
        slots[usize::from(ALL)].last.store(1, Ordering::Relaxed);
        Self { slots }
    }

    /// What a read of these tables needs.
    #[must_use]
    #[inline]
    pub fn need(&self, reads: &Tables) -> Need {
        let mut need = self.slot(ALL);
        match reads {
            Tables::All => need.raise(self.slot(ANY)),
            Tables::Some(tables) => tables.iter().for_each(|table| need.raise(self.slot(slot_of(*table)))),
        }
        need
    }

    #[inline]
    fn slot(&self, slot: u16) -> Need {
        let slot = &self.slots[usize::from(slot)];
        // In this order: who ends a write leaves the sample first.
        let pending = slot.pending.load(Ordering::SeqCst) > 0;
        Need { pending, sample: Sample(slot.last.load(Ordering::SeqCst)) }
    }
}

impl Need {
    /// Takes another need in.
    pub fn raise(&mut self, other: Self) {
        self.pending |= other.pending;
        self.sample = self.sample.max(other.sample);
    }
}

impl Writing {
    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// These tables may be changed by what is sent from now on.
    pub fn add(&mut self, split: &Arc<Split>, tables: &Tables) {
        if tables.is_empty() {
            return;
        }
        self.split.get_or_insert_with(|| Arc::clone(split));
        match tables {
            Tables::All => self.hold(ALL),
            Tables::Some(tables) => tables.iter().for_each(|table| self.hold(slot_of(*table))),
        }
        self.hold(ANY);
    }

    fn hold(&mut self, slot: u16) {
        let Some(split) = &self.split else { return };
        if let Err(at) = self.slots.binary_search(&slot) {
            split.floors.slots[usize::from(slot)].pending.fetch_add(1, Ordering::SeqCst);
            self.slots.insert(at, slot);
        }
    }

    /// The answer is there, or never comes.
    pub fn end(&mut self) {
        let Some(split) = self.split.take() else { return };
        let sample = split.samples.next();
        for slot in self.slots.drain(..) {
            let slot = &split.floors.slots[usize::from(slot)];
            slot.last.fetch_max(sample.0, Ordering::SeqCst);
            slot.pending.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.end();
    }
}

#[expect(clippy::cast_possible_truncation, reason = "below SLOTS")]
fn slot_of(table: TableId) -> u16 {
    // Fibonacci hashing: oids of one migration follow one another.
    let spread = table.0.wrapping_mul(0x9e37_79b9) >> 16;
    (spread as usize % SLOTS) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::Lsn;

    fn of(table: u32) -> Tables {
        Tables::one(TableId(table))
    }

    fn settled(split: &Split) -> Sample {
        let sample = split.samples.begin();
        split.samples.found(sample, Lsn(sample.0 * 100), 0);
        sample
    }

    #[test]
    fn what_was_written_before_needs_the_first_sample() {
        let split = Split::default();
        assert_eq!(split.floors.need(&of(5)), Need { pending: false, sample: Sample(1) });
        assert_eq!(split.floors.need(&Tables::NONE).sample, Sample(1));
    }

    #[test]
    fn a_write_is_pending_and_then_needs_a_sample_that_begins_later() {
        let split = Arc::new(Split::default());
        settled(&split);
        let mut writing = Writing::default();
        writing.add(&split, &of(5));
        writing.add(&split, &of(5));
        assert!(split.floors.need(&of(5)).pending && split.floors.need(&Tables::All).pending);
        assert!(!split.floors.need(&of(6)).pending);
        let running = split.samples.begin();
        writing.end();
        let need = split.floors.need(&of(5));
        assert!(!need.pending && need.sample > running);
        assert_eq!(need, split.floors.need(&Tables::All));
        assert_eq!(split.floors.need(&of(6)).sample, Sample(1));
    }

    #[test]
    fn a_write_to_nobody_knows_what_concerns_all_readers() {
        let split = Arc::new(Split::default());
        let mut writing = Writing::default();
        writing.add(&split, &Tables::All);
        assert!(split.floors.need(&of(5)).pending && split.floors.need(&Tables::NONE).pending);
        drop(writing);
        assert!(!split.floors.need(&of(5)).pending);
    }

    #[test]
    fn of_two_writers_the_second_keeps_its_tables_pending() {
        let split = Arc::new(Split::default());
        let (mut first, mut second) = (Writing::default(), Writing::default());
        first.add(&split, &of(5));
        second.add(&split, &of(5));
        first.end();
        assert!(split.floors.need(&of(5)).pending);
        second.end();
        assert!(!split.floors.need(&of(5)).pending && second.is_empty());
    }
}
