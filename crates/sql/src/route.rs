//! Where a statement may run, and which tables it reads and writes.
//!
//! **Intuition.** A replica may answer what only reads, and only if the answer would be the primary's. So a statement
//! goes to a replica for one reason, that everything in it was recognised and is known to be harmless, and to the
//! primary for one of many, each of which has a name here.
//!
//! **Mechanism.** The reader gathers names (`read`), the catalogue says what is behind them (`catalogue`), and `decide`
//! puts the two together. Tables are [`TableId`]s, so that sets of them are small and merge fast.
//!
//! **Failure.** A doubt is a reason for the primary; a set of tables that can't be told, or is too large to keep, is
//! [`Tables::All`].

use std::fmt;

use crate::hot::HotKey;

/// A table, or the tree of partitions or of inheritance that it belongs to: the smallest oid of the tree. What is
/// written to one member may be read through another, so they are never told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u32);

impl TableId {
    /// PostgreSQL's own catalogue as a whole, large objects included.
    pub const CATALOGUE: Self = Self(0);
}

/// A set of tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tables {
    /// These, in ascending order, each once, at most [`TABLES_MAX`].
    Some(Vec<TableId>),
    /// Any table of the database.
    All,
}

/// More tables in one set are taken for all.
pub const TABLES_MAX: usize = 64;

impl Default for Tables {
    fn default() -> Self {
        Self::NONE
    }
}

impl Tables {
    /// No table.
    pub const NONE: Self = Self::Some(Vec::new());

    /// One table.
    #[must_use]
    pub fn one(table: TableId) -> Self {
        Self::Some(vec![table])
    }

    /// Whether there is no table in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Some(tables) if tables.is_empty())
    }

    /// Whether a table is in it.
    #[must_use]
    pub fn contains(&self, table: TableId) -> bool {
        match self {
            Self::Some(tables) => tables.binary_search(&table).is_ok(),
            Self::All => true,
        }
    }

    /// Takes another set in; says whether that changed anything.
    pub fn merge(&mut self, other: &Self) -> bool {
        let (Self::Some(mine), Self::Some(more)) = (&mut *self, other) else {
            let changes = *self != Self::All && *other == Self::All;
            if changes {
                *self = Self::All;
            }
            return changes;
        };
        let before = mine.len();
        for table in more {
            if let Err(at) = mine.binary_search(table) {
                mine.insert(at, *table);
            }
        }
        let changes = mine.len() > before;
        if mine.len() > TABLES_MAX {
            *self = Self::All;
        }
        changes
    }
}

/// Where a statement may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// On any replica that has replayed what the tables of [`Route::reads`] need.
    Replica,
    /// Wherever its transaction runs; on the primary if it stands alone. Transaction control, `SET LOCAL`, FETCH, SHOW.
    Follows,
    /// On the primary.
    Primary(Reason),
}

/// What routing needs to know of a query string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it may run.
    pub destination: Destination,
    /// The name that decided, as far as one did: the function, table, setting.
    pub culprit: Option<Box<str>>,
    /// Tables whose rows it may see, through views, functions and row policies too.
    pub reads: Tables,
    /// Tables that it may change, through triggers, rules, cascades and functions too; for whatever it calls as well.
    pub writes: Tables,
    /// Its answer belongs to one transaction (`now()`, a cursor): within a block it opens the transaction on the
    /// primary, unless the whole block is read-only.
    pub binds: bool,
    /// The value that picks the rows, where nothing but one table is read or changed (by no trigger, function or view)
    /// and a column of it that stays as it is equals a value.
    pub key: Option<Key>,
    /// What deciding cost: tokens looked at after lexing, and names looked up. Tens of nanoseconds each.
    pub work: u32,
}

/// `column = value` in the WHERE clause of a statement about one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The column's name, folded.
    pub column: Box<str>,
    /// Where the value stands.
    pub value: HotKey,
}

impl Route {
    /// What must be assumed of a text that was not read.
    #[must_use]
    pub fn unread(reason: Reason) -> Self {
        Self {
            destination: Destination::Primary(reason),
            culprit: None,
            reads: Tables::All,
            writes: Tables::All,
            binds: false,
            key: None,
            work: 0,
        }
    }
}

/// Why a statement goes to the primary.
///
/// The order is that of telling: of several reasons the first one is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The text asks for it: `/*tenfold: primary*/`.
    Hint,
    /// Longer than 16 KiB.
    TooLong,
    /// An encoding or a dialect in which texts are not read, or a text that does not lex.
    Unreadable,
    /// It inserts, updates, deletes, merges or truncates, itself or through what it calls.
    Writes,
    /// It locks rows or tables.
    Locks,
    /// It makes, changes or drops definitions, SELECT INTO included.
    Defines,
    /// VACUUM, ANALYZE, REFRESH and the like.
    Maintenance,
    /// DO or CALL.
    Procedure,
    /// It changes, or asks for, what belongs to the session: settings, prepared statements, channels, cursors WITH HOLD.
    Session,
    /// It draws from a sequence, or asks for what was drawn.
    Sequence,
    /// Advisory locks, which replicas do not share.
    AdvisoryLock,
    /// Temporary tables.
    Temporary,
    /// NOTIFY and LISTEN.
    Channel,
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    TwoPhase,
    /// COPY to or from a file or program of the server.
    ServerFile,
    /// Several statements of which not all are reads.
    Multi,
    /// Not recognised to its end.
    NotUnderstood,
    /// An unlogged table, which replicas do not have.
    UnloggedTable,
    /// The catalogue was never read.
    CatalogueUnknown,
    /// The catalogue has changed and is not read again yet.
    CatalogueStale,
    /// A function declared VOLATILE that is not known to be harmless.
    VolatileFunction,
    /// A function in a language that is not read, or that runs texts made at run time.
    UnreadableFunction,
    /// A function that is nowhere in the catalogue.
    UnknownFunction,
    /// Its answer depends on the server asked: activity, locks, settings, replication, transaction ids.
    ServerState,
    /// A foreign table.
    ForeignTable,
    /// A table that is nowhere in the catalogue.
    UnknownTable,
}

impl Reason {
    /// Whether the hint `/*tenfold: replica*/` takes precedence: what a statement's own words say stays, and so does
    /// what cannot be read and may leave anything in the session.
    #[must_use]
    pub const fn yields_to_hint(self) -> bool {
        matches!(self, Self::VolatileFunction | Self::ServerState | Self::ForeignTable | Self::UnknownTable)
    }

    /// The metric's label and the log's word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hint => "hint",
            Self::TooLong => "too_long",
            Self::Unreadable => "unreadable",
            Self::Writes => "writes",
            Self::Locks => "locks",
            Self::Defines => "defines",
            Self::Maintenance => "maintenance",
            Self::Procedure => "procedure",
            Self::Session => "session",
            Self::Sequence => "sequence",
            Self::AdvisoryLock => "advisory_lock",
            Self::Temporary => "temporary",
            Self::Channel => "channel",
            Self::TwoPhase => "two_phase",
            Self::ServerFile => "server_file",
            Self::Multi => "multi",
            Self::NotUnderstood => "not_understood",
            Self::VolatileFunction => "volatile_function",
            Self::UnreadableFunction => "unreadable_function",
            Self::UnknownFunction => "unknown_function",
            Self::ServerState => "server_state",
            Self::ForeignTable => "foreign_table",
            Self::UnloggedTable => "unlogged_table",
            Self::UnknownTable => "unknown_table",
            Self::CatalogueUnknown => "catalogue_unknown",
            Self::CatalogueStale => "catalogue_stale",
        }
    }

    /// The reason as a clause that follows "because".
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Hint => "the text asks for the primary",
            Self::TooLong => "it is longer than 16 KiB",
            Self::Unreadable => "it cannot be read",
            Self::Writes => "it changes rows",
            Self::Locks => "it locks rows or tables",
            Self::Defines => "it changes definitions",
            Self::Maintenance => "it maintains the database",
            Self::Procedure => "it runs a procedure or a block of code",
            Self::Session => "it is about the session",
            Self::Sequence => "it uses a sequence",
            Self::AdvisoryLock => "it uses advisory locks",
            Self::Temporary => "it uses temporary tables",
            Self::Channel => "it uses channels of notifications",
            Self::TwoPhase => "it is about a prepared transaction",
            Self::ServerFile => "it uses a file or program of the server",
            Self::Multi => "it is several statements of which not all are reads",
            Self::NotUnderstood => "it is not understood to its end",
            Self::VolatileFunction => "it calls a function declared VOLATILE",
            Self::UnreadableFunction => "it calls a function whose source cannot be read",
            Self::UnknownFunction => "it calls a function that the catalogue does not know",
            Self::ServerState => "its answer depends on the server",
            Self::ForeignTable => "it reads a foreign table",
            Self::UnloggedTable => "it reads an unlogged table",
            Self::UnknownTable => "it reads a table that the catalogue does not know",
            Self::CatalogueUnknown => "the catalogue was never read",
            Self::CatalogueStale => "the catalogue has changed and is being read",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.label())
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica => out.write_str("replica"),
            Self::Follows => out.write_str("follows"),
            Self::Primary(reason) => write!(out, "primary: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u32]) -> Tables {
        Tables::Some(ids.iter().copied().map(TableId).collect())
    }

    #[test]
    fn sets_stay_sorted_and_say_what_changed() {
        let mut tables = set(&[2, 5]);
        assert!(tables.merge(&set(&[1, 5, 9])));
        assert_eq!(tables, set(&[1, 2, 5, 9]));
        assert!(!tables.merge(&set(&[2])));
        assert!(tables.contains(TableId(9)) && !tables.contains(TableId(3)));
        assert!(tables.merge(&Tables::All) && !tables.merge(&set(&[3])) && !tables.merge(&Tables::All));
        assert!(tables.contains(TableId(3)));
    }

    #[test]
    fn a_set_too_large_is_all() {
        let mut tables = Tables::NONE;
        for id in 1..=u32::try_from(TABLES_MAX).expect("small") {
            tables.merge(&Tables::one(TableId(id)));
        }
        assert_ne!(tables, Tables::All);
        assert!(tables.merge(&Tables::one(TableId(0))));
        assert_eq!(tables, Tables::All);
    }
}
