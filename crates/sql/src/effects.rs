//! What a statement may leave behind in its session: a small set of bits.
//!
//! A pooled server connection may go to another client only if nothing of the last one is left on it. Each bit names
//! one kind of thing that outlives the transaction, so that the pooler knows what to ask the server about, what to
//! carry over for the client, and when the connection must stay with it. Bits are claims of possibility: a bit too
//! many costs a question to the server, a bit too few would leak state, so every doubt sets one.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A set of effects. [`Effects::NONE`] is a statement that leaves the session as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Effects(u32);

macro_rules! effects {
    ($($(#[$doc:meta])* $name:ident = $bit:expr;)*) => {
        impl Effects {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            /// Every bit with its name, for logs and metrics.
            pub const ALL: &[(Self, &str)] = &[$((Self::$name, stringify!($name))),*];
        }
    };
}

effects! {
    /// A session setting may have changed, and `Decision::settings` names all that may have.
    SETTINGS = 0;
    /// Settings may have changed that the text does not name.
    SETTINGS_UNKNOWN = 1;
    /// Settings may have gone back to what the session began with (RESET, SET … TO DEFAULT): those that
    /// `Decision::settings` names.
    RESETS = 2;
    /// The set of SQL-level prepared statements changes (PREPARE, DEALLOCATE).
    SQL_PREPARE = 3;
    /// Uses or sees SQL-level prepared statements (EXECUTE, EXPLAIN EXECUTE, `pg_prepared_statements`).
    SQL_EXECUTE = 4;
    /// LISTEN or UNLISTEN.
    LISTEN = 5;
    /// Sees the channels listened on (`pg_listening_channels()`).
    LISTEN_READ = 6;
    /// Temporary objects may be made.
    TEMP = 7;
    /// Temporary objects may be dropped.
    TEMP_DROP = 8;
    /// Session-level advisory locks may be taken.
    ADVISORY = 9;
    /// Session-level advisory locks may be released.
    ADVISORY_UNLOCK = 10;
    /// A cursor WITH HOLD may be made.
    HOLD = 11;
    /// Cursors may be closed.
    CURSOR_CLOSE = 12;
    /// `nextval` or `setval` in the client's own words (or in a function it calls): it may ask for `currval` later.
    SEQUENCE_SET = 13;
    /// `currval` or `lastval`: sees what the session drew.
    SEQUENCE_READ = 14;
    /// A column default, an identity column or a trigger may draw from a sequence.
    SEQUENCE_MAYBE = 15;
    /// `setseed`.
    SEED = 16;
    /// Something that nothing but the connection's end undoes: LOAD, dblink connections, temporary slots.
    LOAD = 17;
    /// Definitions changed: the catalogue must be read again.
    DDL = 18;
    /// DISCARD ALL.
    DISCARD_ALL = 19;
    /// DEALLOCATE ALL: protocol-level prepared statements go too.
    DEALLOCATE_ALL = 20;
    /// Rows are changed or locked.
    WRITES = 21;
    /// Not fully recognised where it matters: anything above may have happened.
    UNKNOWN = 22;
    /// RESET ALL or DISCARD ALL: whatever was set may have gone back to what the session began with.
    RESETS_ALL = 23;
    /// Calls functions that were not there when definitions were last read, or may have changed since:
    /// [`Effects::UNKNOWN`] until they are read again.
    UNSURE = 24;
}

impl Effects {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// Anything may have happened, for all that is known now.
    pub const DOUBT: Self = Self::UNKNOWN.with(Self::UNSURE);

    /// Whether any bit of `other` is set.
    #[must_use]
    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether no bit is set.
    #[must_use]
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// These bits but those of `other`.
    #[must_use]
    #[inline]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Both sets, where a constant is wanted.
    #[must_use]
    #[inline]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits as a number; they do not change within a version of the program.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl BitOr for Effects {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Effects {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Names joined by `|`, or `NONE`.
impl fmt::Display for Effects {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return out.write_str("NONE");
        }
        let names = Self::ALL.iter().filter(|(bit, _)| self.intersects(*bit)).map(|(_, name)| *name);
        for (index, name) in names.enumerate() {
            if index > 0 {
                out.write_str("|")?;
            }
            out.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_distinct_and_named() {
        let all = Effects::ALL.iter().fold(Effects::NONE, |all, (bit, _)| {
            assert!(!all.intersects(*bit), "{bit} shares a bit");
            all | *bit
        });
        assert_eq!(all.bits().count_ones() as usize, Effects::ALL.len());
        assert_eq!((Effects::SETTINGS | Effects::UNKNOWN).to_string(), "SETTINGS|UNKNOWN");
        assert_eq!(Effects::NONE.to_string(), "NONE");
    }

    #[test]
    fn sets_behave_as_sets() {
        let both = Effects::TEMP.with(Effects::DDL);
        assert!(both.contains(Effects::TEMP) && !both.contains(Effects::TEMP | Effects::LOAD));
        assert!(both.intersects(Effects::TEMP | Effects::LOAD));
        assert_eq!(both.without(Effects::TEMP), Effects::DDL);
    }
}
