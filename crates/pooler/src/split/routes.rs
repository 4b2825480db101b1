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

use tenfold_sql::{Fingerprint, Reason};

/// Upper bounds of the buckets of lag, in microseconds.
pub const LAG_BOUNDS_US: [u64; 10] =
    [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000, 10_000_000];
/// Where a transaction or a read of one went: to a replica.
pub const REPLICA: &str = "replica";
/// To the primary.
pub const PRIMARY: &str = "primary";
/// Why something went to a replica: there is one reason.
pub const READ: &str = "read";
/// Why a statement is no read: what it does is the primary's, whatever the replicas are like.
const NO_READS: [Reason; 12] = [
    Reason::Writes,
    Reason::Locks,
    Reason::Defines,
    Reason::Maintenance,
    Reason::Procedure,
    Reason::Session,
    Reason::Sequence,
    Reason::AdvisoryLock,
    Reason::Temporary,
    Reason::Channel,
    Reason::TwoPhase,
    Reason::ServerFile,
];
/// Words for reasons, at most.
const REASONS_MAX: usize = 64;
/// One transaction in so many is looked at for the top list.
const SAMPLED: u64 = 8;
/// Entries of the top list, per worker and pool.
pub(crate) const TOP_MAX: usize = 128;

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

    /// Reads that replicas answered: those that the primary answered in the end are not.
    #[must_use]
    pub const fn answered(&self) -> u64 {
        self.replica.saturating_sub(self.reruns)
    }

    /// Reads, wherever they were answered: what went to replicas, and what went to the primary for any other reason than
    /// what its statement does. Statements that were not understood count as reads, so that the share of the replicas
    /// is never told too high.
    #[must_use]
    pub fn reads(&self) -> u64 {
        let is_read = |reason: &str| NO_READS.iter().all(|other| other.label() != reason);
        let at_primary = self.primary.iter().filter(|(reason, _)| is_read(reason));
        self.answered() + at_primary.map(|(_, count)| count).sum::<u64>()
    }

    /// How many took which route for which reason: replicas first, then the primary, its most frequent reason first.
    #[must_use]
    pub fn by_reason(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut primary: Vec<_> =
            self.primary.iter().map(|(reason, count)| (PRIMARY, *reason, *count)).collect();
        primary.sort_by(|a, b| (b.2, a.1).cmp(&(a.2, b.1)));
        primary.insert(0, (REPLICA, READ, self.replica));
        primary
    }
}

impl TopRow {
    /// Where it went and why, in the words of [`Routes::by_reason`].
    #[must_use]
    pub fn route_and_reason(&self) -> (&'static str, &'static str) {
        if self.route == REPLICA { (REPLICA, READ) } else { (PRIMARY, self.route) }
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
    fn what_is_no_read_is_nobodys_share() {
        let mut routes = Routes { reruns: 1, ..Routes::default() };
        (0..8).for_each(|_| routes.at_replica(0));
        for (reason, count) in [("rerun", 1), ("writes", 90), ("replica_behind", 2), ("not_understood", 1)] {
            routes.add(reason, count);
        }
        assert_eq!((routes.answered(), routes.reads()), (7, 11));
        assert_eq!(
            routes.by_reason()[..3],
            [("replica", "read", 8), ("primary", "writes", 90), ("primary", "replica_behind", 2)]
        );
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
