//! How many connections one row gets while a queue stands before it: as few as keep it as busy.
//!
//! **Intuition.** Ten transactions at one row are nine that wait for its lock inside PostgreSQL, each with a process and
//! a connection. One or two would end as many per second. Where the statement's key is no single row, though (all rows
//! of one customer), ten end ten times as many. Which of the two it is, only trying tells.
//!
//! **Mechanism.** Transactions ended are counted in windows of [`WINDOW`]. While clients wait, half as many connections
//! are tried for a window: if the row was as busy ([`KEEPS`]), it stays so and half of that is tried, down to one; if not,
//! they are given back, and the next attempt waits twice as long. Now and then twice as many are tried, and kept if more
//! ends ([`GAINS`]). A row nobody waits for has no pace: its entry goes, and with it what was learned.
//!
//! **Failure.** A wrong guess, because the machine was busy with something else for a window, costs throughput until the
//! next attempt, at most [`PAUSE_MAX`] windows later; nothing is ever admitted beyond the configured limit.

use std::time::{Duration, Instant};

/// What is counted at once.
const WINDOW: Duration = Duration::from_millis(100);
/// Fewer transactions than this say nothing: the window goes on.
const ENDED_MIN: u32 = 16;
/// A row is as busy as before if it ends at least so many per mille of what it did.
const KEEPS: u64 = 850;
/// More connections are worth it if they end at least so many per mille.
const GAINS: u64 = 1_250;
/// Windows between attempts, at least and at most.
const PAUSE_MIN: u32 = 1;
const PAUSE_MAX: u32 = 64;

/// What was found out about one row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Connections it gets; `None`: as many as the limit allows.
    level: Option<usize>,
    since: Option<Instant>,
    ended: u32,
    attempt: Option<Attempt>,
    /// Windows until the next attempt, and what the pause was.
    wait: u32,
    pause: u32,
    /// The next attempt is with more: the direction that paid is kept, the other one turned from.
    more_next: bool,
}

/// Another number of connections, for one window.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    /// What it was before.
    from: usize,
    /// Transactions per second then.
    rate: u64,
}

impl Pace {
    /// How many connections the row may have, at least one.
    pub(super) fn allowed(&self, limit: usize) -> usize {
        self.level.unwrap_or(limit).clamp(1, limit.max(1))
    }

    /// A transaction at the row has ended; `is_waited_for`: others wait for it.
    pub(super) fn ended(&mut self, now: Instant, limit: usize, is_waited_for: bool) {
        if !is_waited_for {
            // What ends now says how much is asked for, not how much can be done.
            (self.since, self.ended) = (None, 0);
            return;
        }
        let Some(since) = self.since else {
            (self.since, self.ended) = (Some(now), 0);
            return;
        };
        self.ended += 1;
        let took = now.saturating_duration_since(since);
        if took < WINDOW || self.ended < ENDED_MIN {
            return;
        }
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let rate = u64::from(self.ended) * 1_000_000 / took_us;
        (self.since, self.ended) = (Some(now), 0);
        self.window(rate, limit);
    }

    /// A window is over in which so many ended per second.
    fn window(&mut self, rate: u64, limit: usize) {
        let level = self.allowed(limit);
        match self.attempt.take() {
            Some(Attempt { from, rate: before }) => {
                let is_fewer = level < from;
                let bar = if is_fewer { KEEPS } else { GAINS };
                let is_worth_it = rate.saturating_mul(1_000) >= before.saturating_mul(bar);
                self.level = Some(if is_worth_it { level } else { from });
                self.pause =
                    if is_worth_it { PAUSE_MIN } else { (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX) };
                self.wait = self.pause;
                self.more_next = is_fewer != is_worth_it;
            }
            None if self.wait > 1 => self.wait -= 1,
            None => {
                let fewer = (level / 2).max(1);
                let more = (level * 2).min(limit.max(1));
                let (first, second) = if self.more_next { (more, fewer) } else { (fewer, more) };
                let next = if first == level { second } else { first };
                if next != level {
                    self.attempt = Some(Attempt { from: level, rate });
                    self.level = Some(next);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tenfold_service::clock::Clock;

    use super::*;

    const LIMIT: usize = 10;

    /// Plays so many seconds at a row that ends `rate(connections)` per second; the connections over time, by window.
    fn play(pace: &mut Pace, start: Instant, seconds: u64, rate: impl Fn(usize) -> u64) -> Vec<usize> {
        let mut levels = Vec::new();
        let mut now = start;
        while now < start + Duration::from_secs(seconds) {
            let allowed = pace.allowed(LIMIT);
            levels.push(allowed);
            now += Duration::from_micros(1_000_000 / rate(allowed));
            pace.ended(now, LIMIT, true);
        }
        levels
    }

    fn share(levels: &[usize], is_it: impl Fn(usize) -> bool) -> f64 {
        let those = levels.iter().filter(|level| is_it(**level)).count();
        f64::from(u32::try_from(those).unwrap()) / f64::from(u32::try_from(levels.len()).unwrap())
    }

    #[test]
    fn a_row_behind_a_lock_gets_one_connection_within_two_seconds() {
        let mut pace = Pace::default();
        let start = Clock::manual().now();
        play(&mut pace, start, 2, |_| 2_000);
        let levels = play(&mut pace, start + Duration::from_secs(2), 20, |_| 2_000);
        assert!(share(&levels, |level| level <= 2) > 0.98, "{}", share(&levels, |level| level <= 2));
        assert!(share(&levels, |level| level == 1) > 0.9, "{}", share(&levels, |level| level == 1));
    }

    #[test]
    fn a_key_of_many_rows_keeps_its_connections() {
        let mut pace = Pace::default();
        let rate = |level: usize| 200 * u64::try_from(level).unwrap();
        let levels = play(&mut pace, Clock::manual().now(), 20, rate);
        assert!(share(&levels, |level| level == LIMIT) > 0.9, "{}", share(&levels, |level| level == LIMIT));
    }

    #[test]
    fn connections_come_back_when_they_are_worth_it_again() {
        let mut pace = Pace::default();
        let start = Clock::manual().now();
        play(&mut pace, start, 10, |_| 1_000);
        assert!(pace.allowed(LIMIT) <= 2);
        let rate = |level: usize| 200 * u64::try_from(level).unwrap();
        play(&mut pace, start + Duration::from_secs(10), 20, rate);
        assert!(pace.allowed(LIMIT) >= LIMIT / 2, "{}", pace.allowed(LIMIT));
    }

    #[test]
    fn nothing_is_learned_while_nobody_waits() {
        let mut pace = Pace::default();
        let mut now = Clock::manual().now();
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            pace.ended(now, LIMIT, false);
        }
        assert_eq!(pace.allowed(LIMIT), LIMIT);
        assert_eq!(pace.allowed(0), 1);
    }
}
