//! For how long the primary has been beyond a position.
//!
//! **Intuition.** A replica that has not replayed what the primary had written a second ago is a second behind. So
//! moments and positions of the primary are kept, and a replica's position is looked up among them.
//!
//! **Mechanism.** One entry for each position that was new when it was asked for. When there are [`ENTRIES_MAX`], those
//! are dropped whose neighbour is nearly as old: every lag is known to a part of itself ([`PARTS`]). Positions are
//! those the primary has flushed, since a standby is sent nothing else: what an open transaction has only begun to
//! write makes nobody late.
//!
//! **Failure.** A position from before the first entry is at least as old as that one; how old, only the standby can
//! say. A primary that comes back below what it said before takes back what is above.

use crate::split::Lsn;

/// Entries kept. Thinned, 256 are left for each time that the age grows by e: 4,700 for a year.
const ENTRIES_MAX: usize = 8_192;
/// A lag is known to one part in so many.
const PARTS: u64 = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Position, and when it was first asked for and found, in microseconds of the process: both ascend.
    entries: Vec<(Lsn, u64)>,
    /// What the primary had flushed when it was first asked.
    first: Option<Lsn>,
}

impl History {
    /// At `at_us` the primary had flushed everything before this position.
    pub(super) fn found(&mut self, flushed: Lsn, at_us: u64) {
        self.first.get_or_insert(flushed);
        if self.entries.last().is_some_and(|(last, _)| *last >= flushed) {
            return;
        }
        if self.entries.len() >= ENTRIES_MAX {
            self.thin(at_us);
        }
        self.entries.push((flushed, at_us));
    }

    /// Another server is the primary, or the same after a restart: it may have lost what it had not flushed.
    pub(super) fn restart(&mut self, flushed: Lsn, at_us: u64) {
        let keep = self.entries.partition_point(|(lsn, _)| *lsn <= flushed);
        self.entries.truncate(keep);
        self.first = self.first.map(|first| first.min(flushed));
        self.found(flushed, at_us);
    }

    /// How long a standby that has replayed this far is behind, in microseconds. `applied_us`: how long ago the last
    /// commit it has replayed was made, as it says itself; it counts only for what is older than all we know.
    pub(super) fn lag_us(&self, replayed: Lsn, applied_us: Option<u64>, now_us: u64) -> u64 {
        let above = self.entries.partition_point(|(lsn, _)| *lsn <= replayed);
        let Some((_, at_us)) = self.entries.get(above) else { return 0 };
        let known_us = now_us.saturating_sub(*at_us);
        let is_older = self.first.is_some_and(|first| replayed < first);
        // One that has replayed no commit yet and is behind: nobody knows how far.
        if is_older { known_us.max(applied_us.unwrap_or(u64::MAX)) } else { known_us }
    }

    fn thin(&mut self, now_us: u64) {
        let mut kept_us = None;
        self.entries.retain(|&(_, at_us)| {
            let gap_us = kept_us.map_or(u64::MAX, |kept_us| at_us.saturating_sub(kept_us));
            let is_kept = gap_us.saturating_mul(PARTS) >= now_us.saturating_sub(at_us);
            if is_kept {
                kept_us = Some(at_us);
            }
            is_kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(found: impl IntoIterator<Item = (u64, u64)>) -> History {
        let mut history = History::default();
        found.into_iter().for_each(|(lsn, at_us)| history.found(Lsn(lsn), at_us));
        history
    }

    #[test]
    fn lag_is_counted_from_the_first_position_above() {
        let history = history([(10, 1_000), (20, 2_000), (20, 2_500), (30, 3_000)]);
        let lag = |lsn| history.lag_us(Lsn(lsn), None, 10_000);
        assert_eq!(
            [lag(31), lag(30), lag(29), lag(20), lag(19), lag(10)],
            [0, 0, 7_000, 7_000, 8_000, 8_000]
        );
    }

    #[test]
    fn what_is_older_than_all_is_told_by_the_standby() {
        let history = history([(10, 1_000)]);
        assert_eq!(history.lag_us(Lsn(9), Some(60_000_000), 2_000), 60_000_000);
        assert_eq!(history.lag_us(Lsn(9), Some(5), 2_000), 1_000);
        assert_eq!(history.lag_us(Lsn(9), None, 2_000), u64::MAX);
        assert_eq!(history.lag_us(Lsn(10), None, 2_000), 0);
        assert_eq!(History::default().lag_us(Lsn(1), None, 2_000), 0);
    }

    #[test]
    fn hours_are_kept_in_bounded_room() {
        let history = history((1..=1_000_000).map(|at| (at, at * 1_000)));
        assert!(history.entries.len() <= ENTRIES_MAX);
        let now_us = 1_000_000_000;
        for behind in [1, 1_000, 4_000, 100_000, 900_000] {
            let lag_us = history.lag_us(Lsn(1_000_000 - behind), None, now_us);
            let true_us = (behind - 1) * 1_000;
            assert!(lag_us <= true_us && lag_us * 100 >= true_us * 99, "{behind}: {lag_us}");
        }
    }

    #[test]
    fn what_a_primary_lost_makes_nobody_late() {
        let mut history = history([(10, 1_000), (20, 2_000), (30, 3_000)]);
        history.restart(Lsn(15), 5_000);
        assert_eq!(history.lag_us(Lsn(15), None, 9_000), 0);
        assert_eq!(history.lag_us(Lsn(12), None, 9_000), 4_000);
        history.restart(Lsn(5), 6_000);
        assert_eq!(history.lag_us(Lsn(5), None, 9_000), 0);
    }
}
