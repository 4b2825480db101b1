//! The cells that events are counted in.
//!
//! **Intuition.** Two cores that add to one word pass its cache line back and forth; so each worker has a word of its
//! own, on a line of its own, and the reader adds them up.
//!
//! **Mechanism.** A cell is chosen by [`worker::current_index`](crate::worker::current_index); threads that are no
//! worker share the last one. All operations are relaxed: a scrape sees each cell at some moment of its own.
//!
//! **Failure.** None: additions wrap after 2^64 events, or after 584 years of latency summed in one cell.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::HistogramSnapshot;
use crate::worker;

/// Buckets that a histogram can have, beside the one for everything above.
pub const BUCKETS_MAX: usize = 24;

/// Only grows. Clones are the same counter.
#[derive(Clone, Debug)]
pub struct Counter {
    cells: Arc<[Padded<AtomicU64>]>,
}

/// Goes up and down. One word, not one per worker: meant for what changes per connection or more rarely.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    value: Arc<AtomicI64>,
}

/// Durations, by bucket. Clones are the same histogram.
#[derive(Clone, Debug)]
pub struct Histogram {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bounds_s: &'static [f64],
    /// The same in nanoseconds, rising.
    bounds_ns: Vec<u64>,
    cells: Box<[Padded<HistogramCell>]>,
}

#[derive(Debug, Default)]
struct HistogramCell {
    /// Observations per bucket, not accumulated; `[bounds.len()]` is the one above all bounds.
    buckets: [AtomicU64; BUCKETS_MAX + 1],
    sum_ns: AtomicU64,
}

/// Two cache lines: x86 prefetches them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl Counter {
    pub(super) fn new(cells: usize) -> Self {
        Self { cells: (0..cells).map(|_| Padded::default()).collect() }
    }

    /// Counts `events`.
    #[inline]
    pub fn add(&self, events: u64) {
        own_cell(&self.cells).fetch_add(events, Ordering::Relaxed);
    }

    /// The total.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.cells.iter().fold(0, |sum, cell| sum.wrapping_add(cell.0.load(Ordering::Relaxed)))
    }
}

impl Gauge {
    /// Adds, or with a negative number takes away.
    #[inline]
    pub fn add(&self, difference: i64) {
        self.value.fetch_add(difference, Ordering::Relaxed);
    }

    /// Sets it.
    pub fn set(&self, value: i64) {
        self.value.store(value, Ordering::Relaxed);
    }

    /// Its state.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.value.load(Ordering::Relaxed)
    }
}

impl Histogram {
    pub(super) fn new(cells: usize, bounds_s: &'static [f64]) -> Self {
        assert!(bounds_s.len() <= BUCKETS_MAX, "a histogram has at most {BUCKETS_MAX} buckets");
        assert!(bounds_s.windows(2).all(|pair| pair[0] < pair[1]), "bounds rise");
        let as_ns = |bound: &f64| {
            let bound_ns = Duration::from_secs_f64(*bound).as_nanos();
            u64::try_from(bound_ns).expect("a bound is below five centuries")
        };
        let bounds_ns = bounds_s.iter().map(as_ns).collect();
        let cells = (0..cells).map(|_| Padded::default()).collect();
        Self { shared: Arc::new(Shared { bounds_s, bounds_ns, cells }) }
    }

    /// Counts one duration.
    #[inline]
    pub fn observe(&self, duration: Duration) {
        let observed_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.shared.bounds_ns.partition_point(|bound_ns| *bound_ns < observed_ns);
        let cell = own_cell(&self.shared.cells);
        cell.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        cell.sum_ns.fetch_add(observed_ns, Ordering::Relaxed);
    }

    /// Its state, summed over all workers.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        let cells = &self.shared.cells;
        let bounds = self.shared.bounds_s.iter().copied().chain([f64::INFINITY]);
        let mut accumulated = 0;
        let buckets = bounds
            .enumerate()
            .map(|(bucket, bound_s)| {
                let in_bucket = cells.iter().map(|cell| cell.0.buckets[bucket].load(Ordering::Relaxed));
                accumulated += in_bucket.sum::<u64>();
                (bound_s, accumulated)
            })
            .collect();
        let sum_ns: f64 = cells.iter().map(|cell| cell.0.sum_ns.load(Ordering::Relaxed) as f64).sum();
        HistogramSnapshot { buckets, sum_s: sum_ns / 1e9 }
    }
}

/// This thread's cell: its worker's, or the last one.
#[inline]
fn own_cell<T>(cells: &[Padded<T>]) -> &T {
    let shared_by_others = cells.len() - 1;
    &cells[worker::current_index().min(shared_by_others)].0
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn additions_from_all_threads_are_summed() {
        let counter = Counter::new(3);
        let gauge = Gauge::default();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1_000).for_each(|_| (counter.add(2), gauge.add(-1)).1));
            }
        });
        assert_eq!((counter.value(), gauge.value()), (16_000, -8_000));
        gauge.set(5);
        assert_eq!(gauge.value(), 5);
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        fn check(observed_us: u64, accumulated: [u64; 3]) {
            let histogram = Histogram::new(1, &[0.001, 0.1]);
            histogram.observe(Duration::from_micros(observed_us));
            let snapshot = histogram.snapshot();
            let counts: Vec<_> = snapshot.buckets.iter().map(|(_, count)| *count).collect();
            assert_eq!(counts, accumulated, "{observed_us} us");
            assert!((snapshot.sum_s - observed_us as f64 / 1e6).abs() < 1e-9);
        }
        check(0, [1, 1, 1]);
        check(1_000, [1, 1, 1]);
        check(1_001, [0, 1, 1]);
        check(100_000, [0, 1, 1]);
        check(100_001, [0, 0, 1]);
        check(1_000_000_000, [0, 0, 1]);
    }

    #[test]
    fn the_longest_duration_is_counted_too() {
        let histogram = Histogram::new(1, &[1.0]);
        histogram.observe(Duration::MAX);
        assert_eq!(histogram.snapshot().count(), 1);
    }
}
