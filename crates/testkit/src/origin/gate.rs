//! A gate that holds answers back until the test opens it.
//!
//! **Intuition.** "The origin is slow" is not a number of milliseconds; it is "this answer has not come yet". A gate
//! says exactly that, and a test that opens it proves order instead of hoping for it.
//!
//! **Mechanism.** A flag and a count of those waiting, under one lock; every clone is the same gate.
//!
//! **Failure.** A gate nobody opens holds its answers until the client leaves or the origin stops.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::lock;

/// Holds back whoever waits at it while it is closed. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_open: bool,
    waiting: usize,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everyone through, now and later.
    pub fn open(&self) {
        lock(&self.0.state).is_open = true;
        self.0.changed.notify_all();
    }

    /// Holds back those who come from now on.
    pub fn close(&self) {
        lock(&self.0.state).is_open = false;
    }

    /// How many answers are held back now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.0.state).waiting
    }

    /// Waits until it is open; asks `gave_up` every `pause` and returns false when that says so.
    pub(crate) fn pass(&self, pause: Duration, mut gave_up: impl FnMut() -> bool) -> bool {
        let mut state = lock(&self.0.state);
        state.waiting += 1;
        loop {
            if state.is_open {
                state.waiting -= 1;
                return true;
            }
            drop(state);
            let left = gave_up();
            state = lock(&self.0.state);
            if left && !state.is_open {
                state.waiting -= 1;
                return false;
            }
            if !state.is_open {
                let waited = self.0.changed.wait_timeout(state, pause);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}
