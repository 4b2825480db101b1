//! A server connection's side of the books: whom it serves, which replies are due, what state its session is in.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use tenfold_pgwire::backend::TransactionStatus;
use tenfold_sql::{Effects, Fingerprint};

use super::{away::Away, connect::Unconfirmed, slab::Key, wire::Wire};
use crate::{
    auth::{ServerLogin, TlsNegotiation},
    hot::HotPermit,
    image::Image,
    pool::{Place, Pool},
    probe::{Reader, Wanted},
    shared::{Address, Startup},
    split::{Changed, Writing},
    statements::{ServerStatements, Statement},
};

/// One server connection.
#[derive(Debug)]
pub(crate) struct Server {
    /// Unique in the process.
    pub(crate) id: u64,
    pub(crate) wire: Wire,
    pub(crate) pool: Arc<Pool>,
    pub(crate) local: usize,
    pub(crate) phase: Phase,
    /// Whom it serves.
    pub(crate) client: Option<Key>,
    /// Replies due, in order.
    pub(crate) due: VecDeque<Due>,
    /// Its transaction status in the last ReadyForQuery.
    pub(crate) status: TransactionStatus,
    /// Bytes of a large message still to come, and whether the client gets them.
    pub(crate) passing: usize,
    pub(crate) passing_on: bool,
    /// The beginning of a message.
    pub(crate) partial: Vec<u8>,
    /// The socket may hold more than was read.
    pub(crate) unread: bool,
    /// The server drops everything up to Sync.
    pub(crate) skipping: bool,
    /// The client's series goes on until Sync.
    pub(crate) in_series: bool,
    /// COPY data is expected from the client.
    pub(crate) copying_in: bool,
    /// Its exchange ended while a message of its client was still on its way (a COPY that failed): the rest comes first.
    pub(crate) torn: bool,
    /// What this transaction may have left.
    pub(crate) effects: Effects,
    /// Settings that its statements named.
    pub(crate) names: Vec<Arc<str>>,
    /// Names given by PREPARE in this transaction.
    pub(crate) prepared_now: Vec<tenfold_sql::Name>,
    /// What is not known of its transaction yet, and what others are to know of it.
    pub(crate) doubts: Doubts,
    /// What its session holds.
    pub(crate) image: Arc<Image>,
    /// What is prepared there under names of ours.
    pub(crate) statements: ServerStatements,
    /// Id of what the unnamed statement holds; 0 for none, or something unknown.
    pub(crate) unnamed: u64,
    /// What it has under a client's own names.
    pub(super) aliases: Vec<super::aliases::Alias>,
    /// A statement that was prepared here and has other rows than its clients were told.
    pub(crate) misfit: u64,
    /// Why it stays with its client between transactions.
    pub(crate) pins: Pins,
    /// What it reports while nothing is set; empty where it is of no use to others.
    pub(crate) fresh: Arc<Vec<(String, String)>>,
    /// Settings it reported though no statement was seen to set them.
    pub(crate) reported: Vec<Arc<str>>,
    /// Goes ahead of the client's next message.
    pub(crate) prefix: Vec<u8>,
    /// What that message does, if its client had to wait with it.
    pub(super) read: Option<super::waiters::Read>,
    /// What the server reported while a startup image was tried.
    pub(crate) reports: Vec<(String, String)>,
    /// Undone by nothing but its end.
    pub(crate) tainted: bool,
    /// The client whose sequence values it remembers; 0 for nobody's.
    pub(crate) sequences_of: u64,
    /// The rows its transaction is counted at.
    pub(crate) hot: Vec<HotPermit>,
    /// Tables that its transaction has changed, of which nobody need know before it may commit.
    pub(crate) changed: Changed,
    /// Something was sent that may define what no text shows.
    pub(crate) may_define: bool,
    /// Something was sent while nobody noted what changes.
    pub(crate) has_unnoted: bool,
    /// The last change of definitions when the first of them was read.
    pub(crate) changed_under: u64,
    /// Tables that what was sent may commit to, and the requests behind it.
    pub(crate) writing: Writing,
    /// The read of its client's that it answers as a replica.
    pub(super) away: Option<Box<Away>>,
    /// Which start of which replica it leads to: [`crate::split::Facts::instance`]; 0 of the primary.
    pub(crate) instance: u64,
    /// What a connection to a replica waits for before anybody is lent it.
    pub(super) unconfirmed: Option<Box<Unconfirmed>>,
    /// Fingerprint of the first statement of the transaction.
    pub(crate) first: Fingerprint,
    /// A ReadyForQuery that the client gets once the hub listens.
    pub(crate) owes_ready: bool,
    /// The hub was asked to listen, and has not answered.
    pub(crate) owes_hub: bool,
    /// Its client said goodbye: what it asked for is not cancelled.
    pub(crate) may_finish: bool,
    /// A transaction has ended of which it is to be asked what it left, while the client's next one runs.
    pub(crate) unsettled: bool,
    /// Cancel requests under way for it.
    pub(crate) cancels: usize,
    /// The database's epoch when it was opened: of another one, it is closed once free (RECONNECT, a changed server).
    pub(crate) epoch: (u32, u32),
    /// It leads to where the database is no more.
    pub(crate) is_misplaced: bool,
    /// The startup parameters of the one client it was opened for; nobody else can have it.
    pub(crate) startup: Option<Arc<Startup>>,
    pub(crate) opened: Instant,
    pub(crate) opened_unix_ms: u64,
    /// Since when it is idle, or lent.
    pub(crate) since: Instant,
    /// When the statement that runs was sent, or the last answer came.
    pub(crate) touched: Instant,
    /// Since when its transaction, or the session it is lent for, has it.
    pub(crate) transaction_since: Option<Instant>,
    pub(crate) address: Address,
    /// The backend's, from BackendKeyData.
    pub(crate) process_id: u32,
    /// The secret that cancels its statement, from BackendKeyData.
    pub(crate) key: Box<[u8]>,
    /// The last FATAL error, for whoever is told of its end.
    pub(crate) last_words: Option<Box<[u8]>>,
    pub(crate) _place: Place,
}

/// What a transaction may have done to names, or found behind them.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    /// Calls of this transaction that failed because there is no such function, or because an error came before.
    pub(crate) calls_refused: usize,
    /// Texts of its statements that are [`Effects::UNSURE`].
    pub(crate) unsure: Vec<Box<[u8]>>,
    /// What it defined may be behind names that others use.
    pub(crate) hides: bool,
    /// Others know that it redefined something.
    pub(crate) is_redefinition_told: bool,
}

/// Where a server connection is in its life.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The socket is connecting.
    Connecting(Box<Opening>),
    /// SSLRequest was sent.
    Negotiating(Box<Opening>),
    /// The TLS handshake, or the login, is under way.
    LoggingIn(Box<Opening>),
    /// Nobody's.
    Idle,
    /// Serves its client.
    Lent,
    /// Is brought to the client's state; the client's messages wait.
    Preparing,
    /// Is asked whether a statement still has the rows its client was told; the client's messages wait.
    Describing,
    /// Is asked what the client's transaction left; the client's next messages wait.
    Settling(Box<Probing>),
    /// What its transaction called is being read: that of this number was the last change of definitions.
    Unsure {
        change: u64,
        /// It is read after the transaction's end: what is not known then never will be.
        is_last: bool,
    },
    /// The hub is asked to listen; the client waits.
    Listening,
    /// Its client has gone: what runs is finished or cancelled, and cleaned.
    Abandoned,
}

/// While a connection is opened.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) login: ServerLogin,
    pub(crate) tls: Option<TlsNegotiation>,
    pub(crate) deadline: Instant,
    /// For a client that wants a connection of its own.
    pub(crate) reserved: Option<Key>,
    /// Steps of ours after the login: the connect query.
    pub(crate) connect_query: Option<Box<str>>,
}

/// While a probe runs.
#[derive(Debug)]
pub(crate) struct Probing {
    pub(crate) wanted: Wanted,
    pub(crate) reader: Reader,
}

/// A reply that is due.
#[derive(Debug)]
pub(crate) enum Due {
    /// To a simple query or a function call of the client: ends with ReadyForQuery.
    Query,
    /// To Sync.
    Sync,
    /// ParseComplete of a Parse of the unnamed statement.
    Parse,
    /// ParseComplete of a Parse of a named one.
    ParseNamed(Box<Named>),
    /// ParseComplete that we say ourselves: the server has the statement.
    ParseInvented(Box<Named>),
    /// BindComplete of a statement of this id; 0 for the unnamed, and for names that nobody knows.
    Bind(u64),
    /// ParameterDescription, and then what [`Due::Rows`] is; of a statement as in [`Due::Bind`].
    DescribeStatement(u64),
    /// RowDescription or NoData, of a statement as in [`Due::Bind`].
    Rows(u64),
    /// RowDescription or NoData of a portal.
    Describe,
    /// CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// CloseComplete.
    Close,
    /// CloseComplete that we say ourselves.
    CloseInvented(Option<Box<Named>>),
    /// No reply: here the client ended a COPY that the server had not begun yet.
    CopyEnd,
    /// A Parse of ours: the client never sees its answer.
    OurParse {
        id: u64,
    },
    /// A Close of ours.
    OurClose,
    /// ParameterDescription, and then RowDescription or NoData, that we asked for.
    OurDescribe(Arc<Statement>),
    /// An error that we asked for, to stand for "cached plan must not change result type".
    Misfit,
    /// A BindComplete and CommandComplete of ours, within the client's series.
    OurBind,
    OurExecute,
    /// A simple query of ours.
    Ours(Ours),
}

/// A statement and the client's name for it.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) name: Box<[u8]>,
    pub(crate) statement: Arc<Statement>,
}

/// Why we asked something ourselves.
#[derive(Debug)]
pub(crate) struct Ours {
    pub(crate) why: Why,
    /// It failed.
    pub(crate) failed: bool,
}

/// See [`Ours`].
#[derive(Debug)]
pub(crate) enum Why {
    /// The client's state is replayed, and its messages wait for it.
    Replay(Arc<Image>),
    /// The client's state is replayed ahead of its message.
    ReplayAhead(Arc<Image>),
    /// A part of a replay that has more.
    ReplayPart { confirm: bool },
    /// Is it alive?
    Check,
    /// The client's held BEGIN.
    Begin,
    /// A statement that fails, as the transaction has that the held BEGIN begins.
    Fail,
    /// The transaction that a COMMIT AND CHAIN began at a replica.
    Unchain,
    /// Which server is it, and where do its transactions begin?
    Facts,
    /// Sequence values of others are dropped.
    DiscardSequences,
    /// What is in the session?
    Probe,
    /// The hub listens instead.
    Unlisten,
    /// The transaction of a client that has gone.
    Rollback,
    /// Everything a client left.
    Clean,
    /// The connect query.
    Connect,
    /// A client's startup parameters are tried.
    Startup,
}

/// Why a server connection stays with its client between transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pin {
    /// Session mode, or replication.
    Session,
    /// Temporary objects.
    Temporary,
    /// Session-level advisory locks.
    AdvisoryLock,
    /// Cursors that outlive their transaction.
    HeldCursor,
    /// Something that could not be read, or not be moved.
    Unknown,
    /// `setseed()`.
    Seed,
    /// LOAD and the like.
    Load,
    /// `nextval()`: `currval()` may follow. Given up where others wait.
    Sequence,
}

/// A set of reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pins(u16);

impl Pins {
    pub(crate) fn has(self, pin: Pin) -> bool {
        self.0 & 1 << pin as u16 != 0
    }

    pub(crate) fn set(&mut self, pin: Pin, on: bool) {
        let bit = 1 << pin as u16;
        self.0 = if on { self.0 | bit } else { self.0 & !bit };
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Reasons that go by what was done on the connection, rather than by how its client is served.
    pub(crate) fn holds_anything(self) -> bool {
        self.0 & !(1 << Pin::Session as u16) != 0
    }

    /// Only reasons that may be given up when others wait.
    pub(crate) fn is_soft(self) -> bool {
        self.0 == 1 << Pin::Sequence as u16
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Pin> {
        Pin::ALL.into_iter().filter(move |pin| self.has(*pin))
    }
}

impl Pin {
    /// All of them, for metrics.
    pub const ALL: [Self; 8] = [
        Self::Session,
        Self::Temporary,
        Self::AdvisoryLock,
        Self::HeldCursor,
        Self::Unknown,
        Self::Seed,
        Self::Load,
        Self::Sequence,
    ];

    /// The word for metrics and the console.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Temporary => "temporary",
            Self::AdvisoryLock => "advisory_lock",
            Self::HeldCursor => "held_cursor",
            Self::Unknown => "unknown",
            Self::Seed => "seed",
            Self::Load => "load",
            Self::Sequence => "sequence",
        }
    }
}

impl Due {
    /// Whether the client waits for it.
    pub(crate) fn is_clients(&self) -> bool {
        !matches!(
            self,
            Self::CopyEnd
                | Self::OurParse { .. }
                | Self::OurClose
                | Self::OurBind
                | Self::OurDescribe(_)
                | Self::OurExecute
                | Self::Ours(_)
        )
    }
}

impl Server {
    /// A connection that is being opened.
    pub(crate) fn new(
        pool: Arc<Pool>,
        local: usize,
        (wire, place, address, opening): (Wire, Place, Address, Opening),
        now: Instant,
    ) -> Self {
        Self {
            id: 0,
            wire,
            pool,
            local,
            phase: Phase::Connecting(Box::new(opening)),
            client: None,
            due: VecDeque::new(),
            status: TransactionStatus::Idle,
            passing: 0,
            passing_on: false,
            partial: Vec::new(),
            unread: false,
            skipping: false,
            in_series: false,
            copying_in: false,
            torn: false,
            effects: Effects::NONE,
            names: Vec::new(),
            prepared_now: Vec::new(),
            doubts: Doubts::default(),
            image: Image::empty(),
            statements: ServerStatements::new(1),
            unnamed: 0,
            aliases: Vec::new(),
            misfit: 0,
            pins: Pins::default(),
            fresh: Arc::default(),
            reported: Vec::new(),
            prefix: Vec::new(),
            read: None,
            reports: Vec::new(),
            tainted: false,
            sequences_of: 0,
            hot: Vec::new(),
            changed: Changed::default(),
            may_define: false,
            has_unnoted: false,
            changed_under: 0,
            writing: Writing::default(),
            away: None,
            instance: 0,
            unconfirmed: None,
            first: Fingerprint::default(),
            owes_ready: false,
            owes_hub: false,
            may_finish: false,
            unsettled: false,
            cancels: 0,
            epoch: (0, 0),
            is_misplaced: false,
            startup: None,
            opened: now,
            opened_unix_ms: 0,
            since: now,
            touched: now,
            transaction_since: None,
            address,
            process_id: 0,
            key: Box::default(),
            last_words: None,
            _place: place,
        }
    }

    /// Definitions changed under a statement: whoever prepares it anew means what it is now. Where that is known,
    /// because they changed after the statement was prepared, nothing is to be done.
    pub(crate) fn note_outdated(&self, id: u64, shared: &crate::shared::Shared) {
        let database = &self.pool.database;
        let known = database.definitions.state();
        if self.statements.get(id).is_some_and(|statement| statement.definitions() == known) {
            shared.definitions_changed(database, false);
        }
    }

    /// Whether this transaction may have changed definitions: to others they are what they were.
    pub(crate) fn has_changed_definitions(&self) -> bool {
        self.effects.intersects(Effects::DDL | Effects::UNKNOWN)
    }

    /// Whether the client still waits for an answer.
    pub(crate) fn owes_client(&self) -> bool {
        self.due.iter().any(Due::is_clients)
    }

    /// Whether it is its client's alone, messages and all.
    pub(crate) fn is_session(&self) -> bool {
        self.pins.has(Pin::Session)
    }

    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Connecting(_) | Phase::Negotiating(_) | Phase::LoggingIn(_))
    }

    /// What its transaction may have left is known: nothing more is to be asked.
    pub(crate) fn forget_effects(&mut self) {
        self.effects = Effects::NONE;
        self.unsettled = false;
        self.names.clear();
        self.prepared_now.clear();
        self.doubts = Doubts::default();
        self.reported.clear();
    }

    pub(crate) fn push_ours(&mut self, why: Why) {
        // A simple query, which ends the unnamed statement.
        self.unnamed = 0;
        self.due.push_back(Due::Ours(Ours { why, failed: false }));
    }
}
