//! How long fetching takes, so that waiting for somebody else's fetch takes no longer.
//!
//! The estimate is that of TCP's retransmission timer (RFC 6298 §2): a mean and a mean deviation, each moved a little by
//! every sample; who waits longer than the mean and four deviations would have had its own answer by then. Workers
//! write without a lock: a sample that gets lost among others is one of many.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A mean and a deviation, in microseconds; zero before the first sample.
#[derive(Debug, Default)]
pub(crate) struct FetchTime {
    mean_us: AtomicU64,
    deviation_us: AtomicU64,
}

impl Clone for FetchTime {
    fn clone(&self) -> Self {
        let copy = |value: &AtomicU64| AtomicU64::new(value.load(Ordering::Relaxed));
        Self { mean_us: copy(&self.mean_us), deviation_us: copy(&self.deviation_us) }
    }
}

impl FetchTime {
    /// A fetch took so long, body and all.
    pub(crate) fn observe(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let mean = self.mean_us.load(Ordering::Relaxed);
        if mean == 0 {
            self.mean_us.store(took, Ordering::Relaxed);
            self.deviation_us.store(took / 2, Ordering::Relaxed);
            return;
        }
        let deviation = self.deviation_us.load(Ordering::Relaxed);
        self.deviation_us.store(deviation - deviation / 4 + mean.abs_diff(took) / 4, Ordering::Relaxed);
        self.mean_us.store((mean - mean / 8).saturating_add(took / 8).max(1), Ordering::Relaxed);
    }

    /// How long a fetch takes at most, as a rule; `unknown` before the first.
    pub(crate) fn patience(&self, unknown: Duration) -> Duration {
        let mean = self.mean_us.load(Ordering::Relaxed);
        if mean == 0 {
            return unknown;
        }
        // However steady it is, the answer has to be stored and found yet.
        let margin = self.deviation_us.load(Ordering::Relaxed).saturating_mul(4).max(mean / 4);
        Duration::from_micros(mean.saturating_add(margin)).min(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(5);
    const FETCH: Duration = Duration::from_millis(200);

    #[test]
    fn patience_is_what_fetching_takes() {
        let time = FetchTime::default();
        assert_eq!(time.patience(LEASE), LEASE);
        (0..50).for_each(|_| time.observe(FETCH));
        let patience = time.patience(LEASE);
        assert!((FETCH..FETCH * 3 / 2).contains(&patience), "{patience:?}");
    }

    #[test]
    fn what_varies_is_waited_for_longer_but_never_beyond_the_lease() {
        let time = FetchTime::default();
        (0..50).for_each(|n| time.observe(FETCH * (n % 3 + 1)));
        assert!(time.patience(LEASE) > FETCH * 3);
        time.observe(Duration::MAX);
        assert_eq!(time.patience(LEASE), LEASE);
    }
}
