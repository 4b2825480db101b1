//! What the readers of a table need to see: everything that was committed to it.
//!
//! **Intuition.** From the moment a statement that may commit is sent until its answer is there, nobody can say whether a
//! reader should see its work, so the readers of its tables go to the primary. From then on they need the first sample
//! of the primary's position that begins later.
//!
//! **Mechanism.** Tables fall into a fixed number of slots: a collision makes a reader wait for a write it need not see,
//! and nothing ever fills up. [`Writing`] holds its slots while it lives and leaves the sample behind when it is
//! dropped, so that no path can forget to. Where a write and a read both fix the same column of a table by a value
//! ([`Keyed`]), the read needs the writes of that value and those without one; a table has one such column at a time,
//! the first that was written by, since writes by one column say nothing about rows picked by another.
//!
//! **Failure.** What may have written anything raises the floor of everything.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use tenfold_sql::{TableId, Tables};

use super::{Split, lsn::Lsn, samples::Sample, traces::Traced};

/// Slots for tables.
const TABLES: u16 = 1_024;
/// Slots for values of key columns.
const KEYS: u16 = 16_384;
/// Where the slots begin that writes raise which fix no value.
const WHOLE: u16 = TABLES;
/// Where those of values begin.
const VALUES: u16 = WHOLE + TABLES;
/// The slot that every reader needs: writes to nobody knows what.
const ALL: u16 = VALUES + KEYS;
/// The slot that every writer raises: for those who read nobody knows what.
const ANY: u16 = ALL + 1;
/// Values that one transaction changes one by one; with more, the whole table.
const KEYED_MAX: usize = 32;

/// See the module.
#[derive(Debug)]
pub struct Floors {
    slots: Box<[Slot]>,
    /// For each table's slot, the hash of the column that its writes fix; 0 for none yet.
    columns: Box<[AtomicU64]>,
}

#[derive(Debug, Default)]
struct Slot {
    pending: AtomicU32,
    last: AtomicU64,
}

/// One value of one column of one table, by equality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// The table.
    pub table: TableId,
    /// A hash of the column's name.
    pub column: u64,
    /// A hash of the value, the same for all ways to write it.
    pub value: u64,
}

/// What a read of some tables needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// A commit is under way: only the primary can tell.
    pub pending: bool,
    /// A replica must have replayed this.
    pub sample: Sample,
    /// And this, which the reader brought along.
    pub carried: Lsn,
}

/// What a transaction has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Tables of which nobody knows which rows.
    pub tables: Tables,
    /// Rows by their key.
    pub keys: Vec<Keyed>,
}

/// The tables of one transaction, from before it may commit until its answer is there.
#[derive(Debug, Default)]
pub struct Writing {
    split: Option<Arc<Split>>,
    /// Ascending, each once.
    slots: Vec<u16>,
    /// The requests that its statements name.
    pub traced: Traced,
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
        let columns = (0..TABLES).map(|_| AtomicU64::new(0)).collect();
        Self { slots, columns }
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

    /// Every read needs this from now on.
    pub fn raise_all(&self, sample: Sample) {
        self.slots[usize::from(ALL)].last.fetch_max(sample.0, Ordering::SeqCst);
    }

    /// What a read of the rows of one value needs; `None` if its table's writes fix another column.
    #[must_use]
    pub fn need_of_key(&self, read: Keyed) -> Option<Need> {
        let table = slot_of(read.table);
        let column = self.columns[usize::from(table)].load(Ordering::SeqCst);
        if column != 0 && column != read.column_of_table() {
            return None;
        }
        let mut need = self.slot(ALL);
        need.raise(self.slot(WHOLE + table));
        need.raise(self.slot(read.slot()));
        Some(need)
    }

    /// Whether a write of one value may be told by it: the first of its table's slot says by which column.
    fn takes(&self, write: Keyed) -> bool {
        let own = write.column_of_table();
        let column = &self.columns[usize::from(slot_of(write.table))];
        match column.compare_exchange(0, own, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => true,
            Err(taken) => taken == own,
        }
    }

    #[inline]
    fn slot(&self, slot: u16) -> Need {
        let slot = &self.slots[usize::from(slot)];
        // In this order: who ends a write leaves the sample first.
        let pending = slot.pending.load(Ordering::SeqCst) > 0;
        Need { pending, sample: Sample(slot.last.load(Ordering::SeqCst)), carried: Lsn(0) }
    }
}

impl Keyed {
    /// Never 0.
    fn column_of_table(self) -> u64 {
        (self.column ^ u64::from(self.table.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1)
    }

    #[expect(clippy::cast_possible_truncation, reason = "below KEYS")]
    fn slot(self) -> u16 {
        let mixed = (self.column_of_table() ^ self.value).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        VALUES + (mixed % u64::from(KEYS)) as u16
    }
}

impl Need {
    /// Takes another need in.
    pub fn raise(&mut self, other: Self) {
        self.pending |= other.pending;
        self.sample = self.sample.max(other.sample);
        self.carried = self.carried.max(other.carried);
    }
}

impl Changed {
    /// Whether nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.keys.is_empty()
    }

    /// A statement changes these tables, or of one table the rows of one value.
    pub fn add(&mut self, tables: &Tables, keyed: Option<Keyed>) {
        match keyed {
            Some(keyed) if self.keys.contains(&keyed) => {}
            Some(keyed) if self.keys.len() < KEYED_MAX => self.keys.push(keyed),
            _ => {
                self.tables.merge(tables);
            }
        }
    }
}

impl Writing {
    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// This may be changed by what is sent from now on.
    pub fn add(&mut self, split: &Arc<Split>, changed: &Changed) {
        if changed.is_empty() {
            return;
        }
        self.split.get_or_insert_with(|| Arc::clone(split));
        match &changed.tables {
            Tables::All => self.hold(ALL),
            Tables::Some(tables) => tables.iter().for_each(|table| self.hold_whole(slot_of(*table))),
        }
        for keyed in &changed.keys {
            if split.floors.takes(*keyed) {
                self.hold(slot_of(keyed.table));
                self.hold(keyed.slot());
            } else {
                self.hold_whole(slot_of(keyed.table));
            }
        }
        self.hold(ANY);
    }

    /// Anything may be changed by what is sent from now on.
    pub fn add_all(&mut self, split: &Arc<Split>) {
        self.add(split, &Changed { tables: Tables::All, keys: Vec::new() });
    }

    fn hold_whole(&mut self, table: u16) {
        self.hold(table);
        self.hold(WHOLE + table);
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

fn slot_of(table: TableId) -> u16 {
    // Fibonacci hashing: oids of one migration follow one another.
    let spread = table.0.wrapping_mul(0x9e37_79b9) >> 16;
    (spread % u32::from(TABLES)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(table: u32) -> Tables {
        Tables::one(TableId(table))
    }

    fn changes(table: u32) -> Changed {
        Changed { tables: of(table), keys: Vec::new() }
    }

    fn keyed(column: u64, value: u64) -> Keyed {
        Keyed { table: TableId(5), column, value }
    }

    fn by_key(column: u64, value: u64) -> Changed {
        Changed { tables: Tables::NONE, keys: vec![keyed(column, value)] }
    }

    fn settled(split: &Split) -> Sample {
        let sample = split.samples.begin();
        split.samples.found(sample, Lsn(sample.0 * 100));
        sample
    }

    #[test]
    fn what_was_written_before_needs_the_first_sample() {
        let split = Split::default();
        assert_eq!(split.floors.need(&of(5)), Need { sample: Sample(1), ..Need::default() });
        assert_eq!(split.floors.need(&Tables::NONE).sample, Sample(1));
        assert_eq!(split.floors.need_of_key(keyed(1, 1)).map(|need| need.sample), Some(Sample(1)));
    }

    #[test]
    fn a_write_is_pending_and_then_needs_a_sample_that_begins_later() {
        let split = Arc::new(Split::default());
        settled(&split);
        let mut writing = Writing::default();
        writing.add(&split, &changes(5));
        writing.add(&split, &changes(5));
        assert!(split.floors.need(&of(5)).pending && split.floors.need(&Tables::All).pending);
        assert!(split.floors.need_of_key(keyed(1, 1)).is_some_and(|need| need.pending));
        assert!(!split.floors.need(&of(6)).pending);
        let running = split.samples.begin();
        writing.end();
        let need = split.floors.need(&of(5));
        assert!(!need.pending && need.sample > running);
        assert_eq!(need, split.floors.need(&Tables::All));
        assert_eq!(Some(need), split.floors.need_of_key(keyed(1, 1)));
        assert_eq!(split.floors.need(&of(6)).sample, Sample(1));
    }

    #[test]
    fn a_write_to_nobody_knows_what_concerns_all_readers() {
        let split = Arc::new(Split::default());
        let mut writing = Writing::default();
        writing.add_all(&split);
        assert!(split.floors.need(&of(5)).pending && split.floors.need(&Tables::NONE).pending);
        assert!(split.floors.need_of_key(keyed(1, 1)).is_some_and(|need| need.pending));
        drop(writing);
        assert!(!split.floors.need(&of(5)).pending);
    }

    #[test]
    fn of_two_writers_the_second_keeps_its_tables_pending() {
        let split = Arc::new(Split::default());
        let (mut first, mut second) = (Writing::default(), Writing::default());
        first.add(&split, &changes(5));
        second.add(&split, &changes(5));
        first.end();
        assert!(split.floors.need(&of(5)).pending);
        second.end();
        assert!(!split.floors.need(&of(5)).pending && second.is_empty());
    }

    #[test]
    fn a_write_of_one_value_concerns_its_readers_and_those_of_the_whole_table() {
        let split = Arc::new(Split::default());
        let mut writing = Writing::default();
        writing.add(&split, &by_key(7, 1));
        let pending = |keyed| split.floors.need_of_key(keyed).map(|need| need.pending);
        assert_eq!(pending(keyed(7, 1)), Some(true));
        assert_eq!(pending(keyed(7, 2)), Some(false));
        assert_eq!(pending(keyed(8, 1)), None, "another column says nothing of these rows");
        assert!(split.floors.need(&of(5)).pending && split.floors.need(&Tables::All).pending);
        writing.end();
        let sample = |value| split.floors.need_of_key(keyed(7, value)).map(|need| need.sample);
        settled(&split);
        writing.add(&split, &by_key(7, 1));
        writing.end();
        assert!(sample(1) > sample(2));
        // By another column: of the whole table.
        writing.add(&split, &by_key(8, 1));
        assert_eq!(pending(keyed(7, 2)), Some(true));
    }

    #[test]
    fn too_many_values_are_the_whole_table() {
        let mut changed = Changed::default();
        for value in 0..=KEYED_MAX as u64 {
            changed.add(&of(5), Some(keyed(7, value)));
            changed.add(&of(5), Some(keyed(7, 0)));
        }
        assert_eq!((changed.keys.len(), &changed.tables), (KEYED_MAX, &of(5)));
    }
}
