//! Counting what runs, up to a limit.
//!
//! Whoever begins takes a [`Permit`] and holds it to its end; however it ends, the permit is given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Permits that are out.
#[derive(Debug, Default)]
pub(crate) struct Permits(AtomicUsize);

/// One that runs, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Permits>);

impl Permits {
    /// One more, if fewer than `max` are out.
    #[must_use]
    pub(crate) fn take(self: &Arc<Self>, max: usize) -> Option<Permit> {
        let one_more = |out: usize| (out < max).then_some(out + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Permit(Arc::clone(self)))
    }

    /// How many are out.
    pub(crate) fn out(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_ends_makes_room_for_another() {
        let permits = Arc::new(Permits::default());
        let first = permits.take(1).expect("the only one");
        assert!(permits.take(1).is_none());
        assert_eq!(permits.out(), 1);
        drop(first);
        assert!(permits.take(1).is_some());
        assert!(permits.take(0).is_none());
    }
}
