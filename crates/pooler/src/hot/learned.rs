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
    firsts: Mutex<HashMap<(u64, Fingerprint), Counts, RandomState>>,
}

#[derive(Clone, Copy)]
struct Counts {
    begun: u32,
    reached: u32,
    halved: Instant,
}

impl Learned {
    pub(super) fn reached(&self, pool: u64, first: Fingerprint, now: Instant) {
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

    pub(super) fn begun(&self, pool: u64, first: Fingerprint, now: Instant) -> bool {
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

#[cfg(test)]
mod tests {
    use tenfold_service::clock::Clock;

    use super::*;

    const FIRST: Fingerprint = Fingerprint(1);

    /// Plays so many transactions, each of which reached a hot row or not, and says what is thought of the next.
    fn play(transactions: &[(u32, bool)], later: Duration) -> bool {
        let now = Clock::manual().now();
        let learned = Learned::default();
        for (count, reached) in transactions {
            for _ in 0..*count {
                let _ = learned.begun(1, FIRST, now);
                if *reached {
                    learned.reached(1, FIRST, now);
                }
            }
        }
        assert!(!learned.begun(2, FIRST, now), "another pool");
        assert!(!learned.begun(1, Fingerprint(2), now), "another statement");
        learned.begun(1, FIRST, now + later)
    }

    #[test]
    fn what_reaches_a_hot_row_often_is_expected_to_again() {
        assert!(!play(&[], Duration::ZERO));
        assert!(!play(&[(3, true)], Duration::ZERO), "an accident");
        assert!(play(&[(4, true)], Duration::ZERO));
        assert!(play(&[(10, true), (20, false)], Duration::ZERO));
        assert!(!play(&[(10, true), (40, false)], Duration::ZERO), "one in five");
    }

    #[test]
    fn it_is_forgotten_in_time() {
        assert!(play(&[(8, true)], Duration::from_secs(10)));
        assert!(!play(&[(8, true)], Duration::from_secs(20)));
        assert!(!play(&[(1_000, true)], Duration::from_secs(3_600)));
    }

    #[test]
    fn memory_is_bounded_and_the_faded_make_room() {
        let now = Clock::manual().now();
        let learned = Learned::default();
        let first = |at: usize| Fingerprint(at as u128);
        for at in 0..2 * LEARNED_MAX {
            learned.reached(1, first(at), now);
        }
        assert_eq!(learned.count.load(Ordering::Relaxed), LEARNED_MAX);
        let later = now + Duration::from_secs(60);
        for _ in 0..REACHED_MIN {
            learned.reached(1, first(5_000), later);
        }
        assert!(learned.begun(1, first(5_000), later));
        assert_eq!(learned.count.load(Ordering::Relaxed), 1);
    }
}
