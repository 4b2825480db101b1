//! What a client has to see, because it did it.
//!
//! **Intuition.** A stored response is as good for everybody until somebody has changed what it shows: then it is too old
//! for that one, who knows better, and still good for the others. So such a client's request carries a floor, and what was
//! asked for without one, or under a lower one, is passed over and fetched anew for it and for all who come after.
//!
//! **Mechanism.** A floor is a position in the log of the database behind the origin, and the moment of a write whose
//! position nobody knew. The request that fetches a response carries its floor to the origin, so that what comes back
//! shows at least that much; the response keeps the floor it was [asked for](Floor::is_met_by) under. Once a write is old
//! enough, whatever is asked for shows it, carried or not.
//!
//! **Failure.** A response of which this is not known (another edge fetched it) was asked for under no floor.

use crate::policy::Timestamp;

/// See the module. The default is no floor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// Names the line of history on which `lsn` means something: only equal ones compare.
    pub history: u64,
    /// The position; 0 for none.
    pub lsn: u64,
    /// Until when a write of unknown position needs to be asked for with care; 0 for none. What was asked for under the
    /// same or a later one shows that write.
    pub until: Timestamp,
    /// What is asked for from then on shows it in any case.
    pub settled: Timestamp,
}

impl Floor {
    /// Nothing has to be seen.
    pub const NONE: Self = Self { history: 0, lsn: 0, until: Timestamp(0), settled: Timestamp(0) };

    /// Whether it asks for anything.
    #[must_use]
    #[inline]
    pub const fn is_none(&self) -> bool {
        self.lsn == 0 && self.until.0 == 0
    }

    /// Whether a response that was asked for at this moment, under that floor, shows what this one asks for.
    #[must_use]
    #[inline]
    pub fn is_met_by(&self, asked: Timestamp, under: &Self) -> bool {
        if self.is_none() || asked >= self.settled {
            return true;
        }
        let has_position = self.lsn == 0 || under.history == self.history && under.lsn >= self.lsn;
        has_position && under.until >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lsn: u64, until: u64) -> Floor {
        Floor { history: 7, lsn, until: Timestamp(until), settled: Timestamp(1_000) }
    }

    #[test]
    fn a_response_asked_for_under_as_much_is_good_enough() {
        let check = |needed: Floor, under: Floor, expected: bool| {
            assert_eq!(needed.is_met_by(Timestamp(500), &under), expected, "{needed:?} {under:?}");
        };
        check(Floor::NONE, Floor::NONE, true);
        check(Floor::NONE, at(5, 0), true);
        check(at(5, 0), Floor::NONE, false);
        check(at(5, 0), at(4, 0), false);
        check(at(5, 0), at(5, 0), true);
        check(at(5, 0), at(6, 0), true);
        check(at(5, 0), Floor { history: 8, ..at(6, 0) }, false);
        check(at(0, 50), at(9, 0), false);
        check(at(0, 50), at(0, 49), false);
        check(at(0, 50), at(0, 50), true);
        check(at(5, 50), at(5, 0), false);
        check(at(5, 50), at(5, 60), true);
    }

    #[test]
    fn what_was_asked_for_long_after_a_write_shows_it() {
        assert!(!at(5, 50).is_met_by(Timestamp(999), &Floor::NONE));
        assert!(at(5, 50).is_met_by(Timestamp(1_000), &Floor::NONE));
    }
}
