//! How many fetches at once renew what has become suspect.
//!
//! **Intuition.** When a Redis is restarted, purges may have been missed, so everything that an edge keeps becomes suspect in
//! one moment, and each request for it would have it renewed. Were all of that sent to the nodes, the restart of a cache
//! would be an outage of the site. So few renewals run at once: a tenth of what the nodes can bear.
//!
//! **Mechanism.** What nodes can bear is known where somebody has said it; else it is read off what they have borne: the
//! most requests that were in flight to the cluster at once, as seen whenever a fetch began. A tenth of that, at least one
//! and at most [`DERIVED_MAX`], is the limit. Each renewal holds a [`Refilling`] to its end.
//!
//! **Failure.** Beyond the limit nothing is renewed, and the suspect copy answers, as it does while it is fresh. A cluster
//! that has stood still so far gets one at a time. What was in flight while nodes hung says more than they can bear, which
//! is why the limit that is derived has an end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The share of a cluster that renewals may take.
const SHARE_DIVISOR: usize = 10;
/// The most that is derived, however busy a cluster has been.
pub const DERIVED_MAX: usize = 32;

/// Renewals of one cluster, shared by all workers.
#[derive(Debug, Default)]
pub struct Refills {
    running: AtomicUsize,
    /// The most requests that were in flight to the cluster at once.
    in_flight_peak: AtomicUsize,
}

/// One renewal, until it is dropped.
#[derive(Debug)]
pub struct Refilling(Arc<Refills>);

/// An entry to be renewed, and what may be renewed beside it.
#[derive(Debug)]
pub struct Renewal<'r> {
    /// As it was looked up.
    pub entry: Arc<crate::Entry>,
    /// Those of the cluster that is asked.
    pub refills: &'r Arc<Refills>,
}

impl Refills {
    /// So many requests are in flight to the cluster.
    pub fn observe(&self, in_flight: usize) {
        if in_flight > self.in_flight_peak.load(Ordering::Relaxed) {
            self.in_flight_peak.fetch_max(in_flight, Ordering::Relaxed);
        }
    }

    /// How many may run at once: what was configured, else what the cluster has been seen to bear lets expect.
    #[must_use]
    pub fn limit(&self, configured: Option<usize>) -> usize {
        let seen = self.in_flight_peak.load(Ordering::Relaxed);
        configured.unwrap_or((seen / SHARE_DIVISOR).clamp(1, DERIVED_MAX))
    }

    /// Begins one more, if there may be.
    #[must_use]
    pub(crate) fn begin(self: &Arc<Self>, configured: Option<usize>) -> Option<Refilling> {
        let limit = self.limit(configured);
        let one_more = |running: usize| (running < limit).then_some(running + 1);
        self.running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Refilling(Arc::clone(self)))
    }
}

impl Drop for Refilling {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many begin of a hundred, after so many requests were seen in flight.
    fn begun(seen: usize, configured: Option<usize>) -> usize {
        let refills = Arc::new(Refills::default());
        refills.observe(seen);
        refills.observe(0);
        let running: Vec<_> = (0..100).filter_map(|_| refills.begin(configured)).collect();
        running.len()
    }

    #[test]
    fn a_tenth_of_what_the_cluster_has_borne_may_run_at_once() {
        assert_eq!(begun(0, None), 1, "a cluster nobody has used yet");
        assert_eq!(begun(19, None), 1);
        assert_eq!(begun(80, None), 8);
        assert_eq!(begun(100_000, None), DERIVED_MAX);
        assert_eq!(begun(0, Some(40)), 40, "as somebody said");
        assert_eq!(begun(100_000, Some(2)), 2);
    }

    #[test]
    fn one_that_ends_makes_room_for_another() {
        let refills = Arc::new(Refills::default());
        let first = refills.begin(None).expect("the only one");
        assert!(refills.begin(None).is_none());
        drop(first);
        assert!(refills.begin(None).is_some());
    }
}
