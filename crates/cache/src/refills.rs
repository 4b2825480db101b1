//! How many fetches at once renew what has become suspect.
//!
//! **Intuition.** When a Redis is restarted, purges may have been missed, so everything that an edge keeps becomes suspect in
//! one moment, and each request for it would have it renewed. Were all of that sent to the nodes, the restart of a cache
//! would be an outage of the site. So few renewals run at once: a tenth of what the nodes can bear.
//!
//! **Mechanism.** What nodes can bear is known where somebody has said it; else it is read off what they have borne lately:
//! the most requests that were in flight to the cluster at once, as seen whenever a fetch began, in this hour of the clock
//! and the one before. A tenth of that, at least one and at most [`DERIVED_MAX`], is the limit. Each renewal holds a permit
//! to its end. Both hours' peaks and which hour it is are one word, so that they change together.
//!
//! **Failure.** Beyond the limit nothing is renewed, and the suspect copy answers, as it does while it is fresh. A cluster
//! that has stood still so far gets one at a time. What was in flight while nodes hung says more than they can bear, which
//! is why the limit that is derived has an end, and why it is forgotten. A clock that steps back keeps the peaks it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::permit::{Permit, Permits};
use crate::policy::Timestamp;

/// The share of a cluster that renewals may take.
const SHARE_DIVISOR: u64 = 10;
/// The most that is derived, however busy a cluster has been.
pub const DERIVED_MAX: usize = 32;
/// For how long a peak counts at least; it is forgotten after twice as long.
const WINDOW_MS: u64 = 3_600_000;
/// A peak's bits in the word; it is ten times what makes a difference, many times over.
const PEAK_BITS: u32 = 20;
const PEAK_MAX: u64 = (1 << PEAK_BITS) - 1;
/// The window's bits, which are enough for a thousand years of hours.
const WINDOW_MASK: u64 = (1 << (64 - 2 * PEAK_BITS)) - 1;

/// Renewals of one cluster, shared by all workers.
#[derive(Debug, Default)]
pub struct Refills {
    running: Arc<Permits>,
    /// A packed [`Peaks`].
    peaks: AtomicU64,
}

/// The most requests that were in flight to the cluster at once, lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Peaks {
    /// The number of the window that `current` is of.
    window: u64,
    current: u64,
    /// Of the window before it.
    previous: u64,
}

/// An entry to be renewed, and what may be renewed beside it.
#[derive(Debug)]
pub struct Renewal<'r> {
    /// As it was looked up.
    pub entry: Arc<crate::Entry>,
    /// Those of the cluster that is asked.
    pub refills: &'r Arc<Refills>,
}

impl Peaks {
    fn read(word: u64) -> Self {
        let (previous, current) = (word & PEAK_MAX, (word >> PEAK_BITS) & PEAK_MAX);
        Self { window: word >> (2 * PEAK_BITS), current, previous }
    }

    fn word(self) -> u64 {
        (self.window << (2 * PEAK_BITS)) | (self.current << PEAK_BITS) | self.previous
    }

    /// As they stand at a moment.
    fn at(self, now: Timestamp) -> Self {
        let window = (now.0 / WINDOW_MS) & WINDOW_MASK;
        match window.checked_sub(self.window) {
            None | Some(0) => self,
            Some(1) => Self { window, current: 0, previous: self.current },
            Some(_) => Self { window, current: 0, previous: 0 },
        }
    }
}

impl Refills {
    /// So many requests are in flight to the cluster.
    pub fn observe(&self, in_flight: usize, now: Timestamp) {
        let in_flight = (in_flight as u64).min(PEAK_MAX);
        let observed = |word| {
            let peaks = Peaks::read(word).at(now);
            let observed = Peaks { current: peaks.current.max(in_flight), ..peaks }.word();
            (observed != word).then_some(observed)
        };
        // Most are below the peak and change nothing.
        let _ = self.peaks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, observed);
    }

    /// How many may run at once: what was configured, else what the cluster has been seen to bear lets expect.
    #[must_use]
    pub fn limit(&self, configured: Option<usize>, now: Timestamp) -> usize {
        let peaks = Peaks::read(self.peaks.load(Ordering::Relaxed)).at(now);
        let share = peaks.current.max(peaks.previous) / SHARE_DIVISOR;
        configured.unwrap_or_else(|| usize::try_from(share).unwrap_or(DERIVED_MAX).clamp(1, DERIVED_MAX))
    }

    /// Begins one more, if there may be.
    #[must_use]
    pub(crate) fn begin(&self, configured: Option<usize>, now: Timestamp) -> Option<Permit> {
        self.running.take(self.limit(configured, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000 / WINDOW_MS * WINDOW_MS);

    fn later(windows: u64) -> Timestamp {
        Timestamp(NOW.0 + windows * WINDOW_MS)
    }

    /// How many begin of a hundred, after so many requests were seen in flight.
    fn begun(seen: usize, configured: Option<usize>) -> usize {
        let refills = Refills::default();
        refills.observe(seen, NOW);
        refills.observe(0, NOW);
        let running: Vec<_> = (0..100).filter_map(|_| refills.begin(configured, NOW)).collect();
        running.len()
    }

    #[test]
    fn a_tenth_of_what_the_cluster_has_borne_may_run_at_once() {
        assert_eq!(begun(0, None), 1, "a cluster nobody has used yet");
        assert_eq!(begun(19, None), 1);
        assert_eq!(begun(80, None), 8);
        assert_eq!(begun(usize::MAX, None), DERIVED_MAX);
        assert_eq!(begun(0, Some(40)), 40, "as somebody said");
        assert_eq!(begun(100_000, Some(2)), 2);
    }

    #[test]
    fn a_peak_counts_for_an_hour_and_is_forgotten_after_two() {
        let refills = Refills::default();
        refills.observe(200, NOW);
        refills.observe(50, later(1));
        assert_eq!(refills.limit(None, later(1)), 20, "the hour before counts");
        assert_eq!(refills.limit(None, later(2)), 5);
        assert_eq!(refills.limit(None, later(3)), 1);
        refills.observe(70, later(3));
        assert_eq!(refills.limit(None, later(3)), 7);
    }

    #[test]
    fn a_clock_that_steps_back_keeps_what_was_seen() {
        let refills = Refills::default();
        refills.observe(90, later(5));
        assert_eq!(refills.limit(None, NOW), 9);
        refills.observe(200, NOW);
        assert_eq!(refills.limit(None, later(5)), 20);
    }
}
