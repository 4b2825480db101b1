//! What happened per second, lately.
//!
//! **Intuition.** Totals since the start say nothing of the last minute. So the totals of one period ago and of two are
//! kept; an average is over the time since the older of them, between one period and two.
//!
//! **Mechanism.** [`Averages::observe`] is given the totals now and then and moves on when a period has passed. Counts
//! and bytes become rates; times become times per transaction, statement or assignment.
//!
//! **Failure.** A database that is new has its averages since the older moment as if it had been idle before; one whose
//! totals fell (it was forgotten and made again) shows zero.
//!
//! Source: PgBouncer's manual, `stats_period` and SHOW STATS.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::StatsRow;

/// How far apart the moments are: PgBouncer's default of `stats_period`.
pub const STATS_PERIOD: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone, Debug)]
pub struct Averages {
    older: Moment,
    newer: Moment,
}

#[derive(Clone, Debug)]
struct Moment {
    at: Instant,
    totals: Vec<StatsRow>,
}

impl Averages {
    /// Nothing has happened before `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let moment = Moment { at: now, totals: Vec::new() };
        Self { older: moment.clone(), newer: moment }
    }

    /// Takes note of the totals if a period has passed. Cheap otherwise; to be called at least once a period.
    pub fn observe(&mut self, now: Instant, totals: &[StatsRow]) {
        if now.saturating_duration_since(self.newer.at) >= STATS_PERIOD {
            let moment = Moment { at: now, totals: totals.to_vec() };
            self.older = std::mem::replace(&mut self.newer, moment);
        }
    }

    /// Averages up to now, one row per row of `totals`: counts and bytes per second, times per one.
    #[must_use]
    pub fn averages(&self, now: Instant, totals: &[StatsRow]) -> Vec<StatsRow> {
        let elapsed = now.saturating_duration_since(self.older.at);
        totals.iter().map(|total| self.average(elapsed, total)).collect()
    }

    fn average(&self, elapsed: Duration, total: &StatsRow) -> StatsRow {
        let before = self.older.totals.iter().find(|before| before.database == total.database);
        let before = before.cloned().unwrap_or_default();
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let per_second = |of: fn(&StatsRow) -> u64| {
            let happened = of(total).saturating_sub(of(&before));
            ratio(happened, 1_000_000, elapsed_us)
        };
        let per_one = |of: fn(&StatsRow) -> u64, one: fn(&StatsRow) -> u64| {
            ratio(of(total).saturating_sub(of(&before)), 1, one(total).saturating_sub(one(&before)))
        };
        StatsRow {
            database: Arc::clone(&total.database),
            transactions: per_second(|row| row.transactions),
            queries: per_second(|row| row.queries),
            assignments: per_second(|row| row.assignments),
            bytes_received: per_second(|row| row.bytes_received),
            bytes_sent: per_second(|row| row.bytes_sent),
            transaction_us: per_one(|row| row.transaction_us, |row| row.transactions),
            query_us: per_one(|row| row.query_us, |row| row.queries),
            wait_us: per_one(|row| row.wait_us, |row| row.assignments),
            client_parses: per_second(|row| row.client_parses),
            server_parses: per_second(|row| row.server_parses),
            binds: per_second(|row| row.binds),
        }
    }
}

/// `value * factor / divisor`, and 0 for a divisor of 0.
fn ratio(value: u64, factor: u64, divisor: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(factor);
    u64::try_from(scaled.checked_div(u128::from(divisor)).unwrap_or(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tenfold_service::clock::Clock;

    use super::*;

    fn totals(transactions: u64) -> Vec<StatsRow> {
        let row = StatsRow {
            database: "shop".into(),
            transactions,
            queries: 2 * transactions,
            bytes_sent: 1_000 * transactions,
            transaction_us: 500 * transactions,
            query_us: 100 * transactions,
            ..StatsRow::default()
        };
        vec![row]
    }

    #[test]
    fn rates_are_per_second_and_times_per_one() {
        let clock = Clock::manual();
        let averages = Averages::new(clock.now());
        clock.advance(Duration::from_secs(10));
        let row = &averages.averages(clock.now(), &totals(1_000))[0];
        assert_eq!((row.transactions, row.queries, row.bytes_sent), (100, 200, 100_000));
        assert_eq!((row.transaction_us, row.query_us, row.wait_us), (500, 50, 0));
    }

    #[test]
    fn what_was_two_periods_ago_is_forgotten() {
        let clock = Clock::manual();
        let mut averages = Averages::new(clock.now());
        let mut done = 0;
        // A busy minute, then two quiet ones.
        for (per_minute, expected) in [(6_000, 100), (0, 50), (0, 0), (0, 0)] {
            done += per_minute;
            clock.advance(STATS_PERIOD);
            let now = clock.now();
            assert_eq!(averages.averages(now, &totals(done))[0].transactions, expected);
            averages.observe(now, &totals(done));
            averages.observe(now, &totals(done + 1_000_000));
        }
    }

    #[test]
    fn no_time_and_falling_totals_are_no_trouble() {
        let clock = Clock::manual();
        let mut averages = Averages::new(clock.now());
        assert_eq!(averages.averages(clock.now(), &totals(5))[0].transactions, 0);
        for _ in 0..2 {
            clock.advance(STATS_PERIOD);
            averages.observe(clock.now(), &totals(100));
        }
        clock.advance(STATS_PERIOD);
        assert_eq!(
            averages.averages(clock.now(), &totals(1))[0],
            StatsRow { database: "shop".into(), ..StatsRow::default() }
        );
    }
}
