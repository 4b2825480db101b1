//! What the reader says of a statement: its shape, its effects, the names it touches.
//!
//! The pooler acts on this and nothing else: whether BEGIN may be answered without a server, what to probe after the
//! transaction, which client's connection must be pinned, which row is being fought over. A decision holds for every
//! text of one fingerprint unless `needs_text` says that names or values in the text itself matter.

use std::sync::Arc;

use crate::effects::Effects;
use crate::fingerprint::Fingerprint;
use crate::hot::HotKey;
use crate::route::{Reason, Route};

/// A name as written by the client in its encoding, folded and unquoted as PostgreSQL does, cut at 63 bytes.
pub type Name = Box<[u8]>;

/// What one query string does. Shared by all its repetitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Of the text this was read from.
    pub fingerprint: Fingerprint,
    /// What kind of statement it is.
    pub shape: Shape,
    /// What may be left in the session afterwards.
    pub effects: Effects,
    /// Settings that may have changed for the session, lower case; complete unless `SETTINGS_UNKNOWN` is set.
    pub settings: Vec<Box<str>>,
    /// The value that picks the row it changes or locks.
    pub hot: Option<HotKey>,
    /// The decision depends on names or literals, and is read afresh for each text.
    pub needs_text: bool,
    /// It may put something behind a name that others use, so that a catalogue read before it knows neither tables nor
    /// functions: a trigger, a view, a rule. Other definitions ([`Effects::DDL`]) only make and drop plain things.
    pub hides: bool,
    /// Where it may run, what it reads and writes.
    pub route: Route,
}

impl Decision {
    /// What must be assumed of a text that was not read.
    #[must_use]
    pub fn unknown(fingerprint: Fingerprint) -> Self {
        Self {
            fingerprint,
            shape: Shape::Other,
            effects: Effects::UNKNOWN,
            settings: Vec::new(),
            hot: None,
            needs_text: false,
            hides: false,
            route: Route::unread(Reason::NotUnderstood),
        }
    }
}

/// A query string as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shape {
    /// Nothing but spaces, comments and semicolons.
    Empty,
    /// Several statements; the effects are those of all.
    Multi,
    /// BEGIN or START TRANSACTION.
    Begin(Begin),
    /// COMMIT or END.
    Commit {
        /// AND CHAIN: a new transaction is open afterwards.
        chain: bool,
    },
    /// ROLLBACK or ABORT, of the whole transaction.
    Rollback {
        /// AND CHAIN: a new transaction is open afterwards.
        chain: bool,
    },
    /// SAVEPOINT.
    Savepoint(Name),
    /// ROLLBACK TO.
    RollbackTo(Name),
    /// RELEASE.
    Release(Name),
    /// PREPARE TRANSACTION.
    PrepareTransaction,
    /// COMMIT PREPARED or ROLLBACK PREPARED.
    FinishPrepared,
    /// Any SET of one setting, whatever its grammar.
    Set(Set),
    /// SET TRANSACTION.
    SetTransaction,
    /// SET SESSION CHARACTERISTICS AS TRANSACTION.
    SetSessionCharacteristics,
    /// SET CONSTRAINTS.
    SetConstraints,
    /// RESET of one setting.
    Reset(Box<str>),
    /// RESET ALL.
    ResetAll,
    /// SHOW, of a setting or ALL.
    Show(Box<str>),
    /// DISCARD.
    Discard(Discard),
    /// PREPARE: what its later EXECUTE does is inside.
    Prepare {
        /// The statement's name.
        name: Name,
        /// What it does when executed.
        body: Arc<Decision>,
    },
    /// EXECUTE. What it does is what was prepared under that name.
    Execute(Name),
    /// DEALLOCATE of one statement.
    Deallocate(Name),
    /// DEALLOCATE ALL.
    DeallocateAll,
    /// LISTEN.
    Listen(Name),
    /// UNLISTEN of one channel.
    Unlisten(Name),
    /// UNLISTEN *.
    UnlistenAll,
    /// NOTIFY.
    Notify(Name),
    /// DECLARE CURSOR.
    Declare {
        /// WITH HOLD.
        hold: bool,
    },
    /// FETCH.
    Fetch,
    /// MOVE.
    Move,
    /// CLOSE, of one cursor or all.
    CloseCursor,
    /// COPY.
    Copy {
        /// COPY FROM.
        into_table: bool,
        /// FROM STDIN or TO STDOUT: the protocol's copy mode follows.
        stdio: bool,
    },
    /// DO.
    Do,
    /// CALL.
    Call,
    /// LOCK TABLE.
    Lock,
    /// SELECT (without INTO), or TABLE.
    Select {
        /// FOR UPDATE, NO KEY UPDATE, SHARE or KEY SHARE stands somewhere in it.
        locking: bool,
    },
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// MERGE.
    Merge,
    /// VALUES.
    Values,
    /// EXPLAIN.
    Explain,
    /// CREATE, ALTER, DROP, GRANT and the like, SELECT INTO included.
    Ddl,
    /// VACUUM, ANALYZE, CLUSTER, REINDEX, CHECKPOINT, REFRESH.
    Maintenance,
    /// Anything else, what is not SQL included.
    Other,
}

/// What BEGIN asks of the transaction. `Begin::default()` is a plain BEGIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begin {
    /// ISOLATION LEVEL.
    pub isolation: Option<Isolation>,
    /// READ ONLY or READ WRITE.
    pub read_only: Option<bool>,
    /// DEFERRABLE or NOT DEFERRABLE.
    pub deferrable: Option<bool>,
    /// START TRANSACTION rather than BEGIN: the command tag of the answer.
    pub start: bool,
}

impl Begin {
    /// Whether no transaction mode is given.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.isolation.is_none() && self.read_only.is_none() && self.deferrable.is_none()
    }
}

/// Isolation levels, as PostgreSQL names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// READ UNCOMMITTED, which PostgreSQL runs as READ COMMITTED.
    ReadUncommitted,
    /// READ COMMITTED.
    ReadCommitted,
    /// REPEATABLE READ.
    RepeatableRead,
    /// SERIALIZABLE.
    Serializable,
}

/// SET of one setting. SET TIME ZONE, NAMES, ROLE, SCHEMA, XML OPTION, SESSION AUTHORIZATION carry the setting's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Lower case: `timezone`, `client_encoding`, `role`, `search_path`, …
    pub name: Box<str>,
    /// SET LOCAL: until the transaction's end.
    pub local: bool,
    /// What it is set to.
    pub value: SetValue,
}

/// The right side of SET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetValue {
    /// TO DEFAULT, NONE (role), LOCAL (time zone): a reset.
    Default,
    /// One literal, number or word; the bytes are the value, unquoted, escapes resolved.
    One(Name),
    /// Several, an interval, or a form whose value is not told here.
    Complex,
}

/// What DISCARD throws away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// Everything.
    All,
    /// Cached plans.
    Plans,
    /// Sequence values.
    Sequences,
    /// Temporary tables.
    Temp,
}
