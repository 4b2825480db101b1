//! What happened, counted by each worker for itself and summed by whoever asks.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{refusal::Refusal, worker::Pin};

/// Upper bounds of the buckets of the wait histogram, in microseconds; one more bucket is above the last.
pub const WAIT_BOUNDS_US: [u64; 12] =
    [10, 50, 100, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 1_000_000, 10_000_000];

/// All workers' counters.
#[derive(Debug)]
pub struct Counters {
    workers: Box<[Cells]>,
}

/// One worker's.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cells {
    plain: [AtomicU64; Counter::ALL.len()],
    refusals: [AtomicU64; Refusal::ALL.len()],
    pins: [AtomicU64; Pin::ALL.len()],
    waits: [AtomicU64; WAIT_BOUNDS_US.len() + 1],
    wait_us: AtomicU64,
}

/// What is counted without labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Clients let in.
    Logins,
    /// Server connections opened.
    ServersOpened,
    /// Attempts to open one that failed.
    ConnectFailures,
    /// Server connections that ended by themselves.
    ServersLost,
    /// Cancel requests with a valid key.
    Cancels,
    /// Sessions that were brought to another server connection.
    Replays,
    /// Clients that waited for a row.
    HotWaits,
    /// Connections lent by one worker to another.
    Lendings,
    /// Clients taken over from this process's predecessor.
    TakenOver,
    /// Clients handed over to its successor.
    HandedOver,
}

impl Counter {
    /// All of them, with their words.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Logins, "logins"),
        (Self::ServersOpened, "servers_opened"),
        (Self::ConnectFailures, "connect_failures"),
        (Self::ServersLost, "servers_lost"),
        (Self::Cancels, "cancels"),
        (Self::Replays, "replays"),
        (Self::HotWaits, "hot_waits"),
        (Self::Lendings, "lendings"),
        (Self::TakenOver, "clients_taken_over"),
        (Self::HandedOver, "clients_handed_over"),
    ];
}

impl Counters {
    /// All zero.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { workers: (0..workers.max(1)).map(|_| Cells::default()).collect() }
    }

    /// One more.
    pub fn count(&self, worker: usize, what: Counter) {
        add(&self.workers[worker].plain[what as usize], 1);
    }

    /// A refusal.
    pub fn refused(&self, worker: usize, refusal: Refusal) {
        add(&self.workers[worker].refusals[refusal as usize], 1);
    }

    /// How many server connections of a worker stay with their clients now, by reason in the order of [`Pin::ALL`].
    pub fn set_pins(&self, worker: usize, pinned: [u64; Pin::ALL.len()]) {
        for (cell, count) in self.workers[worker].pins.iter().zip(pinned) {
            cell.store(count, Ordering::Relaxed);
        }
    }

    /// Server connections that stay with their clients for this reason, up to a tick ago.
    #[must_use]
    pub fn pinned(&self, pin: Pin) -> u64 {
        self.workers.iter().map(|cells| cells.pins[pin as usize].load(Ordering::Relaxed)).sum()
    }

    /// A client got its server connection after so long.
    pub fn waited(&self, worker: usize, waited: Duration) {
        let us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        let bucket = WAIT_BOUNDS_US.partition_point(|bound| *bound < us);
        let cells = &self.workers[worker];
        add(&cells.waits[bucket], 1);
        add(&cells.wait_us, us);
    }

    /// The sum over all workers.
    #[must_use]
    pub fn total(&self, what: Counter) -> u64 {
        self.workers.iter().map(|cells| cells.plain[what as usize].load(Ordering::Relaxed)).sum()
    }

    /// How often something was refused.
    #[must_use]
    pub fn refusals(&self, refusal: Refusal) -> u64 {
        self.workers.iter().map(|cells| cells.refusals[refusal as usize].load(Ordering::Relaxed)).sum()
    }

    /// Waits by bucket of [`WAIT_BOUNDS_US`], and their sum in microseconds.
    #[must_use]
    pub fn waits(&self) -> ([u64; WAIT_BOUNDS_US.len() + 1], u64) {
        let mut buckets = [0; WAIT_BOUNDS_US.len() + 1];
        let mut sum = 0_u64;
        for cells in &self.workers {
            for (bucket, cell) in buckets.iter_mut().zip(&cells.waits) {
                *bucket += cell.load(Ordering::Relaxed);
            }
            sum = sum.wrapping_add(cells.wait_us.load(Ordering::Relaxed));
        }
        (buckets, sum)
    }
}

/// Only its own worker writes a cell.
#[inline]
fn add(cell: &AtomicU64, more: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_summed() {
        let counters = Counters::new(2);
        counters.count(0, Counter::Logins);
        counters.count(1, Counter::Logins);
        counters.refused(1, Refusal::QueryWait);
        assert_eq!((counters.total(Counter::Logins), counters.total(Counter::Cancels)), (2, 0));
        assert_eq!(counters.refusals(Refusal::QueryWait), 1);
    }

    #[test]
    fn waits_fall_into_their_bucket() {
        let counters = Counters::new(1);
        for us in [0, 10, 11, 20_000_000] {
            counters.waited(0, Duration::from_micros(us));
        }
        let (buckets, sum) = counters.waits();
        assert_eq!((buckets[0], buckets[1], buckets[12], sum), (2, 1, 1, 20_000_021));
    }
}
