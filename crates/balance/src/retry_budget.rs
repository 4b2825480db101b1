//! Retry budget: retries must never become the load.
//!
//! **Intuition.** A node slows down, every caller tries again, and the node now has twice the work and half the
//! strength. So a retry has to be earned: ordinary requests pay into an account, a retry draws from it, and what is
//! not drawn within ten seconds is forfeited. At 20 %, however bad the day, a cluster sees at most 1.2 times its
//! ordinary traffic, and the floor.
//!
//! **Mechanism.** One account per cluster, shared by all workers: a worker whose requests all met the dead node may draw
//! on what the others earned, and the floor is the cluster's and not multiplied by cores. Ten one-second slots in a ring;
//! each is one atomic word holding its second and its balance in hundredths of a retry (`Credit`), so that no float ever
//! rounds an account and no credit is drawn twice. A slot whose second has fallen out of the window is opened anew by the
//! first who touches it, with the floor alone.
//!
//! **Failure.** An empty account is an answer, not an error: the caller passes the first attempt's outcome on and counts
//! the reason. When two workers draw the last credits at once, both may be refused; never are both granted. A clock that
//! steps back is treated as standing still. Nothing here allocates, and nothing grows.
//!
//! Source: Finagle's `RetryBudget`; Google SRE book, chapter 22 ("Addressing Cascading Failures").

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// How much may be retried. Built by the configuration, which has already refused percentages above 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Retries earned by a hundred ordinary requests.
    pub percent: u32,
    /// Retries granted every second whatever the traffic.
    pub floor_per_second: u32,
}

/// The account of one cluster.
#[derive(Debug)]
pub struct RetryBudget {
    config: Config,
    started: Instant,
    /// By second; `slots[second % WINDOW_SECONDS]`. Their sum is what may still be drawn.
    slots: [AtomicU64; WINDOW_SECONDS as usize],
}

/// Hundredths of a retry.
type Credit = u32;

/// A slot's word: the second it is for, counted from 1 so that zero is never, above its balance.
#[derive(Clone, Copy)]
struct Slot {
    second: u32,
    balance: Credit,
}

const RETRY: Credit = 100;
/// Long enough to ride out a deploy, short enough that yesterday's calm doesn't pay for today's storm.
const WINDOW_SECONDS: u32 = 10;
/// One slot holds at most this much, so that ten of them can be summed in a `u32`.
const SLOT_CREDIT_MAX: Credit = u32::MAX / 16;

impl Default for Config {
    fn default() -> Self {
        Self { percent: 20, floor_per_second: 10 }
    }
}

impl RetryBudget {
    /// An account opened now, holding this second's floor.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        Self { config, started: now, slots: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// What it was built with.
    #[must_use]
    pub fn config(&self) -> Config {
        self.config
    }

    /// An ordinary request, not a retry, was sent.
    pub fn on_request(&self, now: Instant) {
        let second = self.second_at(now);
        let earned = self.config.percent;
        self.change(second, |balance| Some(balance.saturating_add(earned).min(SLOT_CREDIT_MAX)));
    }

    /// Draws one retry, oldest earnings first, if there is one.
    #[must_use = "without a withdrawal there is no retry"]
    pub fn try_withdraw(&self, now: Instant) -> bool {
        let last = self.second_at(now);
        let first = last.saturating_sub(WINDOW_SECONDS - 1).max(1);
        let mut drawn: [(u32, Credit); WINDOW_SECONDS as usize] = [(0, 0); WINDOW_SECONDS as usize];
        let mut owed = RETRY;
        for (second, drawn) in (first..=last).zip(&mut drawn) {
            let paid = self.draw(second, owed);
            *drawn = (second, paid);
            owed -= paid;
            if owed == 0 {
                return true;
            }
        }
        // Not enough: what was taken goes back, unless its second has been overtaken meanwhile.
        for (second, paid) in drawn.into_iter().filter(|(_, paid)| *paid > 0) {
            self.change(second, |balance| Some(balance.saturating_add(paid).min(SLOT_CREDIT_MAX)));
        }
        false
    }

    /// Takes up to `owed` from one second's slot; says how much it was.
    fn draw(&self, second: u32, owed: Credit) -> Credit {
        let mut paid = 0;
        self.change(second, |balance| {
            paid = owed.min(balance);
            (paid > 0).then(|| balance - paid)
        });
        paid
    }

    /// Changes the balance of one second, opening its slot if it is not open yet; nothing happens if a later second has
    /// taken the slot, or if `change` returns none.
    fn change(&self, second: u32, mut change: impl FnMut(Credit) -> Option<Credit>) {
        let slot = &self.slots[(second % WINDOW_SECONDS) as usize];
        let floor = self.config.floor_per_second.saturating_mul(RETRY).min(SLOT_CREDIT_MAX);
        let update = |word| {
            let slot = Slot::unpack(word);
            let balance = match slot.second.cmp(&second) {
                std::cmp::Ordering::Less => floor,
                std::cmp::Ordering::Equal => slot.balance,
                std::cmp::Ordering::Greater => return None,
            };
            Some(Slot { second, balance: change(balance)? }.pack())
        };
        // An error says that there was nothing to change, which is fine.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }

    /// The second that `now` is in, counted from 1.
    fn second_at(&self, now: Instant) -> u32 {
        let elapsed_s = now.saturating_duration_since(self.started).as_secs();
        u32::try_from(elapsed_s + 1).unwrap_or(u32::MAX)
    }
}

impl Slot {
    fn unpack(word: u64) -> Self {
        let second = u32::try_from(word >> 32).expect("32 bits remain");
        let balance = u32::try_from(word & u64::from(u32::MAX)).expect("32 bits remain");
        Self { second, balance }
    }

    fn pack(self) -> u64 {
        u64::from(self.second) << 32 | u64::from(self.balance)
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;
    use proptest::prelude::*;

    /// Plays `requests` and asks for `asked` retries at each second of a list; says how many were granted.
    #[expect(clippy::disallowed_methods, reason = "any instant does as the first one")]
    fn play(config: Config, seconds: &[(u64, u32, u32)]) -> u32 {
        let start = Instant::now();
        let budget = RetryBudget::new(config, start);
        let mut granted = 0;
        for &(second, requests, asked) in seconds {
            let now = start + Duration::from_secs(second);
            (0..requests).for_each(|_| budget.on_request(now));
            granted += (0..asked).map(|_| u32::from(budget.try_withdraw(now))).sum::<u32>();
        }
        granted
    }

    fn check(percent: u32, floor_per_second: u32, seconds: &[(u64, u32, u32)], granted: u32) {
        assert_eq!(play(Config { percent, floor_per_second }, seconds), granted, "{seconds:?}");
    }

    #[test]
    fn retries_are_a_share_of_requests() {
        check(20, 0, &[(0, 100, 100)], 20);
        check(20, 0, &[(0, 4, 1)], 0);
        check(20, 0, &[(0, 5, 2)], 1);
        check(20, 0, &[(0, 3, 0), (4, 2, 2)], 1);
    }

    #[test]
    fn a_quiet_cluster_may_still_retry() {
        check(0, 2, &[(0, 0, 5)], 2);
        check(0, 2, &[(0, 0, 5), (1, 0, 5)], 4);
        check(0, 2, &[(9, 0, 50)], 20);
        check(0, 2, &[(1_000, 0, 50)], 20);
    }

    #[test]
    fn earnings_are_forfeited_after_the_window() {
        check(20, 0, &[(0, 100, 0), (9, 0, 100)], 20);
        check(20, 0, &[(0, 100, 0), (10, 0, 100)], 0);
        check(20, 0, &[(0, 100, 0), (1_000_000, 0, 100)], 0);
    }

    #[test]
    fn a_refusal_costs_nothing() {
        check(20, 0, &[(0, 4, 50), (1, 1, 2)], 1);
    }

    #[test]
    fn a_clock_that_steps_back_earns_nothing_anew() {
        check(20, 0, &[(50, 100, 0), (3, 0, 100)], 0);
        check(0, 2, &[(50, 0, 100), (44, 0, 100), (50, 0, 100)], 20);
        // Nor does it destroy what a later second has earned in the same slot.
        check(20, 0, &[(50, 100, 0), (40, 1, 0), (50, 0, 100)], 20);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant does as the first one")]
    fn workers_never_draw_a_credit_twice() {
        let now = Instant::now();
        let budget = RetryBudget::new(Config { percent: 20, floor_per_second: 0 }, now);
        (0..10_000).for_each(|_| budget.on_request(now));
        let granted: usize = thread::scope(|scope| {
            let draw = || (0..1_500).filter(|_| budget.try_withdraw(now)).count();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        let rest = (0..3_000).filter(|_| budget.try_withdraw(now)).count();
        assert_eq!(granted + rest, 2_000);
    }

    proptest! {
        #[test]
        fn amplification_is_bounded(percent in 0..=100_u32, load in prop::collection::vec((0..200_u32, 0..400_u32), 1..40)) {
            let seconds: Vec<_> = load.iter().zip(0..).map(|(&(requests, asked), second)| (second, requests, asked)).collect();
            let requests: u32 = load.iter().map(|&(requests, _)| requests).sum();
            let granted = play(Config { percent, floor_per_second: 0 }, &seconds);
            prop_assert!(granted * 100 <= requests * percent);
        }
    }
}
