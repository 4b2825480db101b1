//! The primary's positions, numbered: an event is remembered by the first sample that begins after it.
//!
//! **Intuition.** A commit's own position is known to nobody but the server. But any position asked for after the commit
//! was acknowledged is at or above it, so the next question answers for every commit before it.
//!
//! **Mechanism.** [`Samples::next`] is the number of the first sample that has not begun. One asker begins samples
//! ([`Samples::begin`]) and says what they found ([`Samples::found`]); a sample that was lost is answered for by the next
//! one. The last [`KEPT`] are kept; an older one counts as the oldest kept, which is above it.
//!
//! **Failure.** A server that was restarted may begin below what it said before: [`Samples::restart`] has the first
//! sample after that answer for all before it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::lsn::Lsn;

/// Samples kept: at one a millisecond, four seconds.
const KEPT: u64 = 4_096;

/// The number of a sample; 0 is one that everything is above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample(pub u64);

impl Sample {
    /// Nothing has happened.
    pub const NONE: Self = Self(0);
}

/// See the module.
#[derive(Debug)]
pub struct Samples {
    begun: AtomicU64,
    done: AtomicU64,
    kept: Box<[AtomicU64]>,
}

impl Default for Samples {
    fn default() -> Self {
        Self::new()
    }
}

impl Samples {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            kept: (0..KEPT).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The first sample that begins after now: at or above everything that has been answered until now.
    #[must_use]
    #[inline]
    pub fn next(&self) -> Sample {
        Sample(self.begun.load(Ordering::SeqCst) + 1)
    }

    /// The last sample that has been answered.
    #[must_use]
    pub fn last(&self) -> Sample {
        Sample(self.done.load(Ordering::Acquire))
    }

    /// A sample begins: call before asking. One asker at a time.
    #[must_use]
    pub fn begin(&self) -> Sample {
        Sample(self.begun.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// What a sample found: kept as the position at which a replica has replayed it ([`Lsn::replayed`]).
    pub fn found(&self, sample: Sample, lsn: Lsn) {
        let last = self.done.load(Ordering::Relaxed);
        let lsn = lsn.replayed();
        for number in (last + 1).max(sample.0.saturating_sub(KEPT - 1))..=sample.0 {
            self.kept(number).store(lsn.0, Ordering::Release);
        }
        self.done.fetch_max(sample.0, Ordering::Release);
    }

    /// The first sample of a server that may have lost what it had not written: all events before it are at or below it,
    /// or are gone.
    pub fn restart(&self, sample: Sample, lsn: Lsn) {
        for kept in &self.kept {
            kept.store(lsn.replayed().0, Ordering::Release);
        }
        self.done.fetch_max(sample.0, Ordering::Release);
    }

    /// The position that answers for a sample; `None` while it is not known.
    #[must_use]
    #[inline]
    pub fn lsn(&self, sample: Sample) -> Option<Lsn> {
        if sample == Sample::NONE {
            return Some(Lsn(0));
        }
        let done = self.done.load(Ordering::Acquire);
        if sample.0 > done {
            return None;
        }
        // One that is overwritten meanwhile reads as a later one, which is above it.
        let number = sample.0.max((done + 1).saturating_sub(KEPT));
        Some(Lsn(self.kept(number).load(Ordering::Acquire)))
    }

    fn kept(&self, number: u64) -> &AtomicU64 {
        let at = (number % KEPT) as usize;
        &self.kept[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_settled_by_the_first_sample_that_begins_after_it() {
        let samples = Samples::new();
        let running = samples.begin();
        let event = samples.next();
        assert!(event > running);
        samples.found(running, Lsn(100));
        assert_eq!((samples.lsn(running), samples.lsn(event)), (Some(Lsn(100)), None));
        let next = samples.begin();
        assert_eq!(next, event);
        samples.found(next, Lsn(120));
        assert_eq!(samples.lsn(event), Some(Lsn(120)));
        assert_eq!(samples.lsn(Sample::NONE), Some(Lsn(0)));
    }

    #[test]
    fn a_lost_sample_is_answered_for_by_the_next() {
        let samples = Samples::new();
        let lost = samples.begin();
        let next = samples.begin();
        samples.found(next, Lsn(7));
        assert_eq!(samples.lsn(lost), Some(Lsn(7)));
    }

    #[test]
    fn what_is_too_old_counts_as_the_oldest_kept() {
        let samples = Samples::new();
        let early = samples.next();
        for at in 1..=KEPT + 10 {
            let sample = samples.begin();
            samples.found(sample, Lsn(at));
        }
        assert_eq!(samples.lsn(early), Some(Lsn(11)));
        assert_eq!(samples.lsn(samples.last()), Some(Lsn(KEPT + 10)));
    }

    #[test]
    fn after_a_restart_one_sample_answers_for_all() {
        let samples = Samples::new();
        let before = samples.begin();
        samples.found(before, Lsn(900));
        let after = samples.begin();
        samples.restart(after, Lsn(500));
        assert_eq!((samples.lsn(before), samples.lsn(after)), (Some(Lsn(500)), Some(Lsn(500))));
    }
}
