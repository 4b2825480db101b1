//! What console sessions and signals share.
//!
//! **Intuition.** PAUSE said at one console is seen at all of them, and averages are the same for whoever asks.
//!
//! **Mechanism.** A state, the averages, a count of sessions.
//!
//! **Failure.** None.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::Instant,
};

use crate::report::{Averages, Pause, StatsRow};

/// See the module.
#[derive(Debug)]
pub struct Desk {
    pause: AtomicU8,
    averages: Mutex<Averages>,
    sessions: AtomicUsize,
}

/// Counts a session while it lasts.
#[derive(Debug)]
pub(super) struct Seat<'a>(&'a Desk);

impl Desk {
    /// Nothing is paused.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            pause: AtomicU8::new(Pause::Active as u8),
            averages: Mutex::new(Averages::new(now)),
            sessions: AtomicUsize::new(0),
        }
    }

    /// Whether transactions may begin, as far as all databases are concerned.
    #[must_use]
    pub fn pause(&self) -> Pause {
        match self.pause.load(Ordering::Relaxed) {
            value if value == Pause::Paused as u8 => Pause::Paused,
            value if value == Pause::Suspended as u8 => Pause::Suspended,
            _ => Pause::Active,
        }
    }

    /// Changes that; true if it was `from`.
    pub(super) fn change(&self, from: Pause, to: Pause) -> bool {
        let (from, to) = (from as u8, to as u8);
        self.pause.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Console sessions open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    pub(super) fn sit_down(&self) -> Seat<'_> {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Seat(self)
    }

    /// Takes note of the totals, for averages.
    pub(crate) fn observe(&self, now: Instant, totals: &[StatsRow]) {
        self.averages.lock().unwrap_or_else(PoisonError::into_inner).observe(now, totals);
    }

    /// Averages for these totals.
    #[must_use]
    pub fn averages(&self, now: Instant, totals: &[StatsRow]) -> Vec<StatsRow> {
        self.averages.lock().unwrap_or_else(PoisonError::into_inner).averages(now, totals)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}
