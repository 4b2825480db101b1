//! Which transactions reach a hot row later than with their first statement.
//!
//! **Intuition.** A checkout reads the cart, then takes the product's row. By the time it asks for the row it holds a
//! connection and cannot be stopped; but the next checkout begins with the same statement, and can.
//!
//! **Mechanism.** Per pool and first statement, two counts that are halved every [`HALF_LIFE`]: transactions begun, and
//! those that reached a hot row. Begun ones are counted only for statements that some transaction reached a hot row
//! after, so ordinary traffic pays the load of one atomic.
//!
//! **Failure.** At most [`LEARNED_MAX`] are remembered; more are not learned until others have faded.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use tenfold_sql::Fingerprint;

/// First statements remembered at most.
pub const LEARNED_MAX: usize = 1_024;

/// Long enough to know the next wave of a sale, short enough to forget it before the next day.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// Fewer than this are an accident.
const REACHED_MIN: u32 = 4;
/// One in so many transactions must have reached a hot row.
const REACHED_SHARE: u32 = 4;

/// See the module.
#[derive(Default)]
pub(super) struct Learned {
    /// How many entries there are, readable without the lock.
    count: AtomicUsize,
    firsts: Mutex<HashMap<(u32, Fingerprint), Counts, RandomState>>,
}

#[derive(Clone, Copy)]
struct Counts {
    begun: u32,
    reached: u32,
    halved: Instant,
}

impl Learned {
    pub(super) fn reached(&self, pool: u32, first: Fingerprint, now: Instant) {
        let mut firsts = self.firsts.lock().unwrap_or_else(PoisonError::into_inner);
        if firsts.len() >= LEARNED_MAX && !firsts.contains_key(&(pool, first)) {
            firsts.retain(|_, counts| {
                counts.fade(now);
                counts.reached > 0
            });
        }
        if firsts.len() < LEARNED_MAX || firsts.contains_key(&(pool, first)) {
            // The transaction that reached it had begun before it was known.
            let counts = firsts.entry((pool, first)).or_insert(Counts { begun: 1, reached: 0, halved: now });
            counts.fade(now);
            counts.reached = counts.reached.saturating_add(1);
        }
        self.count.store(firsts.len(), Ordering::Relaxed);
    }

    pub(super) fn begun(&self, pool: u32, first: Fingerprint, now: Instant) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut firsts = self.firsts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(counts) = firsts.get_mut(&(pool, first)) else { return false };
        counts.fade(now);
        counts.begun = counts.begun.saturating_add(1);
        let reaches =
            counts.reached >= REACHED_MIN && counts.reached.saturating_mul(REACHED_SHARE) >= counts.begun;
        if counts.reached == 0 {
            firsts.remove(&(pool, first));
            self.count.store(firsts.len(), Ordering::Relaxed);
        }
        reaches
    }
}

impl Counts {
    fn fade(&mut self, now: Instant) {
        let periods = now.saturating_duration_since(self.halved).as_secs() / HALF_LIFE.as_secs();
        if periods == 0 {
            return;
        }
        let halvings = u32::try_from(periods).unwrap_or(u32::MAX);
        self.begun = self.begun.checked_shr(halvings).unwrap_or(0);
        self.reached = self.reached.checked_shr(halvings).unwrap_or(0);
        self.halved = now;
    }
}
