//! Where transactions went, and why: counts for metrics, and the statements that matter most.
//!
//! **Intuition.** Who adds a replica wants to know how much it took off the primary, and which statements stay there for
//! which reason: those are the ones to change.
//!
//! **Mechanism.** Each worker counts for itself and shows a copy once a second. Of statements, one transaction in
//! [`SAMPLED`] is looked at; the [`TOP_MAX`] most frequent ones by (fingerprint, reason) are kept as Metwally's
//! Space-Saving does: a new one takes the place of the rarest, and its count.
//!
//! **Failure.** Counts of the top list are estimates, too high by at most the rarest one's.

use std::{collections::HashMap, time::Duration};

use tenfold_sql::Fingerprint;

/// Upper bounds of the buckets of lag, in microseconds.
pub const LAG_BOUNDS_US: [u64; 10] =
    [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000, 10_000_000];
/// Words for reasons, at most.
const REASONS_MAX: usize = 64;
/// One transaction in so many is looked at for the top list.
const SAMPLED: u64 = 8;
/// Entries of the top list, per worker and pool.
const TOP_MAX: usize = 128;

/// What one worker, or all of them, routed for one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Transactions, and reads of transactions, that went to replicas.
    pub replica: u64,
    /// Transactions that went to the primary, by reason.
    pub primary: Vec<(&'static str, u64)>,
    /// Reads that waited for a replica to catch up.
    pub waits: u64,
    /// Microseconds they waited.
    pub wait_us: u64,
    /// Reads that a replica refused or lost, and that the primary answered.
    pub reruns: u64,
    /// Reads at replicas by how far behind the replica was, by bucket of [`LAG_BOUNDS_US`].
    pub lags: [u64; LAG_BOUNDS_US.len() + 1],
    /// The sum of these lags, in microseconds.
    pub lag_us: u64,
}

/// One line of the top list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopRow {
    /// Of the statement.
    pub fingerprint: Fingerprint,
    /// `replica`, or why it went to the primary.
    pub route: &'static str,
    /// The statement without its values.
    pub text: String,
    /// Times, about.
    pub count: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Top {
    dice: u64,
    rows: HashMap<(u128, &'static str), TopRow, foldhash::fast::RandomState>,
}

impl Routes {
    /// One more at a replica so far behind.
    pub fn at_replica(&mut self, lag_us: u64) {
        self.replica += 1;
        self.lags[LAG_BOUNDS_US.partition_point(|bound| *bound < lag_us)] += 1;
        self.lag_us = self.lag_us.saturating_add(lag_us);
    }

    /// One more at the primary, for this reason.
    pub fn at_primary(&mut self, reason: &'static str) {
        self.add(reason, 1);
    }

    fn add(&mut self, reason: &'static str, more: u64) {
        if let Some((_, count)) = self.primary.iter_mut().find(|(other, _)| *other == reason) {
            *count += more;
        } else if self.primary.len() < REASONS_MAX {
            self.primary.push((reason, more));
        }
    }

    /// A read has waited so long for a replica.
    pub fn waited(&mut self, waited: Duration) {
        self.wait_us += u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
    }

    /// Takes another's counts in.
    pub fn merge(&mut self, other: &Self) {
        self.replica += other.replica;
        self.waits += other.waits;
        self.wait_us += other.wait_us;
        self.reruns += other.reruns;
        self.lag_us = self.lag_us.saturating_add(other.lag_us);
        self.lags.iter_mut().zip(other.lags).for_each(|(sum, count)| *sum += count);
        other.primary.iter().for_each(|(reason, count)| self.add(reason, *count));
    }

    /// Transactions at the primary, whatever the reason.
    #[must_use]
    pub fn primary_total(&self) -> u64 {
        self.primary.iter().map(|(_, count)| count).sum()
    }
}

impl Top {
    /// Whether the next transaction is one that is looked at.
    pub fn is_next(&mut self) -> bool {
        // Knuth's generator: every so many would meet a client's rhythm.
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 32).is_multiple_of(SAMPLED)
    }

    /// A transaction that begins with this statement was looked at; `text` is asked for only if it is to be kept.
    pub fn note(&mut self, fingerprint: Fingerprint, route: &'static str, text: impl FnOnce() -> String) {
        if let Some(row) = self.rows.get_mut(&(fingerprint.0, route)) {
            row.count += SAMPLED;
            return;
        }
        let mut count = SAMPLED;
        if self.rows.len() >= TOP_MAX
            && let Some((rarest, least)) =
                self.rows.iter().map(|(key, row)| (*key, row.count)).min_by_key(|(_, count)| *count)
        {
            self.rows.remove(&rarest);
            count += least;
        }
        let row = TopRow { fingerprint, route, text: text(), count };
        self.rows.insert((fingerprint.0, route), row);
    }

    /// Its lines, in no order.
    #[must_use]
    pub fn rows(&self) -> Vec<TopRow> {
        self.rows.values().cloned().collect()
    }
}

/// Several workers' lists as one, the most frequent first, cut at `max` lines.
#[must_use]
pub fn merged(lists: impl IntoIterator<Item = Vec<TopRow>>, max: usize) -> Vec<TopRow> {
    let mut all: HashMap<(u128, &'static str), TopRow> = HashMap::new();
    for row in lists.into_iter().flatten() {
        let key = (row.fingerprint.0, row.route);
        match all.get_mut(&key) {
            Some(known) => known.count += row.count,
            None => {
                all.insert(key, row);
            }
        }
    }
    let mut rows: Vec<TopRow> = all.into_values().collect();
    rows.sort_by(|a, b| (b.count, a.fingerprint.0, a.route).cmp(&(a.count, b.fingerprint.0, b.route)));
    rows.truncate(max);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_over_workers() {
        let mut first = Routes::default();
        first.at_replica(0);
        first.at_replica(3_000);
        first.at_primary("writes");
        let mut second = Routes { waits: 1, ..Routes::default() };
        second.waited(Duration::from_millis(2));
        second.at_primary("locks");
        second.at_primary("writes");
        first.merge(&second);
        assert_eq!((first.replica, first.primary_total(), first.waits, first.wait_us), (2, 3, 1, 2_000));
        assert_eq!(first.primary, [("writes", 2), ("locks", 1)]);
        assert_eq!((first.lags[0], first.lags[2], first.lag_us), (1, 1, 3_000));
    }

    #[test]
    fn the_frequent_ones_stay_however_many_rare_ones_come() {
        let mut top = Top::default();
        for at in 0..100_000_u128 {
            for (fingerprint, route, text) in [(1, "writes", "often"), (1_000 + at, "replica", "once")] {
                if top.is_next() {
                    top.note(Fingerprint(fingerprint), route, || text.to_owned());
                }
            }
        }
        let rows = merged([top.rows(), top.rows()], 3);
        assert_eq!(rows.len(), 3);
        assert_eq!((rows[0].text.as_str(), rows[0].route), ("often", "writes"));
        assert!(rows[0].count > 100_000, "{}", rows[0].count);
        assert!(top.rows().len() <= TOP_MAX);
    }
}
