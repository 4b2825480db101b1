//! What console sessions, signals and the binary share.
//!
//! **Intuition.** PAUSE said at one console is seen at all of them; and some wishes only the binary can grant.
//!
//! **Mechanism.** A state, the averages, a count of sessions, and a short queue of [`Wish`]es that the binary takes.
//!
//! **Failure.** With nobody to take wishes, or too many waiting, a wish is refused.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::sync::{mpsc, oneshot};

use super::api::Shutdown;
use crate::report::{Averages, Pause, StatsRow};

/// Wishes that wait at once.
const WISHES_MAX: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct Desk {
    pause: AtomicU8,
    averages: Mutex<Averages>,
    sessions: AtomicUsize,
    wishes: mpsc::Sender<Wish>,
    wished: Mutex<Option<mpsc::Receiver<Wish>>>,
}

/// What the console asks of the binary.
#[derive(Debug)]
pub enum Wish {
    /// Read the files again, and say what is wrong with them.
    Reload(oneshot::Sender<Result<(), String>>),
    /// End.
    Shutdown(Shutdown),
}

/// Counts a session while it lasts.
#[derive(Debug)]
pub(super) struct Seat<'a>(&'a Desk);

impl Desk {
    /// Nothing is paused.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let (wishes, wished) = mpsc::channel(WISHES_MAX);
        Self {
            pause: AtomicU8::new(Pause::Active as u8),
            averages: Mutex::new(Averages::new(now)),
            sessions: AtomicUsize::new(0),
            wishes,
            wished: Mutex::new(Some(wished)),
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

    /// Wishes as they come; once, for the binary.
    #[must_use]
    pub fn wishes(&self) -> Option<mpsc::Receiver<Wish>> {
        self.wished.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Leaves a wish; false if nobody takes it.
    pub(super) fn wish(&self, wish: Wish) -> bool {
        let is_taken = self.wished.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        is_taken && self.wishes.try_send(wish).is_ok()
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
