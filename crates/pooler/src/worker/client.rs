//! A client's side of the books: small while it is idle, since there are ten thousand of them.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use tenfold_pgwire::backend::TransactionStatus;
use tenfold_service::limits::Permit;
use tenfold_sql::{Begin, Shape};

use super::{login::Login, slab::Key, wire::Wire};
use crate::{
    handover::KnownAs,
    hot::{HotPermit, HotWait},
    image::Image,
    pool::Pool,
    shared::{Shared, Started, UserCount},
    split::{Carried, Follower, Identity, Need, Waiting},
    statements::{ClientStatements, Statement},
};

/// Names a client of one worker, for other threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(pub(crate) Key);

/// What a read waits for.
#[derive(Debug)]
pub(crate) struct Behind {
    pub(crate) since: Instant,
    pub(crate) needs: Needs,
}

/// What a read needed when it came: what was committed later it need not see, however long it waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// By its tables.
    pub(crate) tables: Need,
    /// By the rows of its key, where it has one.
    pub(crate) key: Option<Need>,
    /// The version of the catalogue that told the tables.
    pub(crate) catalogue: u64,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Unique in the process.
    pub(crate) id: u64,
    pub(crate) wire: Wire,
    pub(crate) state: State,
    /// Set once logged in.
    pub(crate) seat: Option<Box<Seat>>,
    /// What its session holds.
    pub(crate) image: Arc<Image>,
    /// How its texts are lexed.
    pub(crate) dialect: tenfold_sql::Dialect,
    pub(crate) statements: ClientStatements,
    /// What the unnamed statement holds.
    pub(crate) unnamed: Option<Arc<Statement>>,
    /// Read and not yet handled: part of a message, or what came while waiting.
    pub(crate) stash: Vec<u8>,
    /// Bytes of a large message that are still to be passed on.
    pub(crate) passing: usize,
    /// They are dropped instead.
    pub(crate) dropping: bool,
    /// The socket may hold more than was read.
    pub(crate) unread: bool,
    /// After an error of ours in an extended-query series: everything up to Sync is dropped.
    pub(crate) skipping: bool,
    /// It is queued to be looked at again.
    pub(crate) queued: bool,
    /// Its statement has waited for changed definitions once, and does not again.
    pub(crate) was_held: bool,
    /// A BEGIN that was answered and not yet sent.
    pub(crate) held: Option<Box<Held>>,
    /// A prepared BEGIN, COMMIT or ROLLBACK that was answered as bound, and is executed by the next message but one.
    pub(crate) bound: Option<Arc<Statement>>,
    /// What replicas must have replayed for it.
    pub(crate) follower: Follower,
    /// Who is behind it, until it says otherwise.
    pub(crate) identity: Option<Identity>,
    /// Who is behind its transaction.
    pub(crate) person: Option<Identity>,
    /// What its transaction's statements ask replicas to have replayed.
    pub(crate) carried: Option<Box<Carried>>,
    /// Its next message goes to the primary.
    pub(crate) to_primary: bool,
    /// While it waits for a replica to catch up.
    pub(crate) behind: Option<Box<Behind>>,
    /// The worker's part of the pool in whose queue it waits.
    pub(crate) queue: usize,
    /// Its turn on a row has come.
    pub(crate) turn: Option<HotPermit>,
    /// Notifications that came in the middle of something.
    pub(crate) notifications: Vec<u8>,
    /// Proves a cancel request.
    pub(crate) secret: [u8; 4],
    /// Waits, or is served, or is idle, since then.
    pub(crate) since: Instant,
    pub(crate) permit: Permit,
}

/// What is known of a client once it is logged in.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) pool: Arc<Pool>,
    /// Index of the worker's own part of the pool.
    pub(crate) local: usize,
    pub(crate) user: Arc<str>,
    pub(crate) startup: Arc<Started>,
    /// The startup parameters as sent.
    pub(crate) raw: Arc<crate::shared::Startup>,
    pub(crate) priority: i8,
    pub(crate) session: bool,
    /// `replication=…`: a server connection of its own.
    pub(crate) replication: Option<Box<str>>,
    pub(crate) listens: bool,
    pub(crate) times: Times,
    pub(crate) peer: tenfold_service::acceptor::Peer,
    pub(crate) connected: Instant,
    pub(crate) connected_unix_ms: u64,
    /// In a handover: since which round what it is told of its channels is counted, and how much that was.
    pub(crate) round: Option<(u64, u64)>,
    /// Notifications that it was told before it came, and that come here yet.
    pub(crate) ahead: u64,
    /// What [`Client::identity`] stands for.
    pub(crate) identity_text: Option<Box<[u8]>>,
    /// The key that cancels its statements, where it is another than its place's: it came from a predecessor.
    pub(crate) known_as: Option<KnownAs>,
    pub(crate) _counted: Counted,
}

/// What holds for this client, in the pool's terms; zero: no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) query: std::time::Duration,
    pub(crate) idle_in_transaction: std::time::Duration,
    pub(crate) transaction: std::time::Duration,
    pub(crate) client_idle: std::time::Duration,
}

/// Counts a logged-in client, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    user: Arc<UserCount>,
}

/// What a client is doing.
#[derive(Debug)]
pub(crate) enum State {
    /// Logging in.
    Login(Box<Login>),
    /// Between transactions: holds no server.
    Idle,
    /// Wants a server.
    Waiting,
    /// Wants its turn on a hot row.
    Parked(#[expect(dead_code, reason = "dropping it leaves the queue")] HotWait),
    /// Wants a replica to catch up.
    Behind(#[expect(dead_code, reason = "while it is there, positions are asked for")] Waiting),
    /// Holds a server.
    Active(Key),
}

/// A BEGIN that was answered and not yet sent.
#[derive(Debug)]
pub(crate) struct Held {
    /// The Query's body.
    pub(crate) body: Box<[u8]>,
    /// What it asks of the transaction.
    pub(crate) begin: Begin,
    /// A read of the transaction failed on a replica: so has the transaction.
    pub(crate) failed: bool,
}

impl ClientKey {
    /// Of what listens on behalf of another process.
    pub(crate) fn of_desk() -> Self {
        Self(Key::nobody())
    }
}

impl Client {
    /// One that has just come, or been handed over.
    pub(super) fn new(
        id: u64,
        wire: Wire,
        state: State,
        secret: [u8; 4],
        now: Instant,
        permit: Permit,
    ) -> Self {
        Self {
            id,
            wire,
            state,
            seat: None,
            image: Image::empty(),
            statements: ClientStatements::default(),
            unnamed: None,
            stash: Vec::new(),
            passing: 0,
            dropping: false,
            unread: false,
            skipping: false,
            queued: false,
            was_held: false,
            held: None,
            follower: Follower::default(),
            identity: None,
            person: None,
            carried: None,
            to_primary: false,
            bound: None,
            behind: None,
            queue: 0,
            turn: None,
            notifications: Vec::new(),
            dialect: tenfold_sql::Dialect::default(),
            secret,
            since: now,
            permit,
        }
    }

    /// Logged in and told so.
    pub(crate) fn is_logged_in(&self) -> bool {
        self.seat.is_some() && !matches!(self.state, State::Login(_))
    }

    /// Its BEGIN was answered, and is held; the tag of the answer. `body`: as a Query's.
    pub(crate) fn hold(&mut self, body: Box<[u8]>, begin: Begin) -> &'static [u8] {
        self.held = Some(Box::new(Held { body, begin, failed: false }));
        if begin.start { b"START TRANSACTION" } else { b"BEGIN" }
    }

    /// Its held BEGIN is ended by this COMMIT or ROLLBACK; the tag of the answer.
    pub(crate) fn end_held(&mut self, shape: &Shape) -> &'static [u8] {
        let has_failed = self.held.take().is_some_and(|held| held.failed);
        if matches!(shape, Shape::Commit { .. }) && !has_failed { b"COMMIT" } else { b"ROLLBACK" }
    }

    /// The statement that it calls so; the unnamed one has an empty name.
    pub(crate) fn statement(&self, name: &[u8]) -> Option<Arc<Statement>> {
        if name.is_empty() { self.unnamed.clone() } else { self.statements.get(name).cloned() }
    }

    /// The server connection it holds.
    pub(crate) fn server(&self) -> Option<Key> {
        match self.state {
            State::Active(server) => Some(server),
            _ => None,
        }
    }

    /// How the log names it: also before it is in, since the log alone says whose login failed.
    pub(crate) fn label(&self) -> String {
        match &self.seat {
            Some(seat) => {
                format!(
                    "client {} ({}@{}, {})",
                    self.id,
                    seat.user,
                    seat.pool.database.name,
                    peer_text(&seat.peer)
                )
            }
            None => match &self.state {
                State::Login(login) => format!("client {} ({})", self.id, login.who()),
                _ => format!("client {}", self.id),
            },
        }
    }

    /// What a client that holds no server believes of its transaction: a held BEGIN was answered.
    pub(crate) fn status_without_server(&self) -> TransactionStatus {
        match &self.held {
            Some(held) if held.failed => TransactionStatus::Failed,
            Some(_) => TransactionStatus::InTransaction,
            None => TransactionStatus::Idle,
        }
    }
}

/// An address as people read it.
pub(crate) fn peer_text(peer: &tenfold_service::acceptor::Peer) -> String {
    match peer {
        tenfold_service::acceptor::Peer::Tcp(address) => address.to_string(),
        tenfold_service::acceptor::Peer::Unix { .. } => "unix".to_owned(),
    }
}

impl Counted {
    /// Counts a client in.
    pub(crate) fn enter(shared: &Arc<Shared>, pool: &Arc<Pool>, user: &Arc<UserCount>) -> Self {
        shared.clients.fetch_add(1, Relaxed);
        pool.clients.fetch_add(1, Relaxed);
        pool.database.clients.fetch_add(1, Relaxed);
        user.clients.fetch_add(1, Relaxed);
        Self { shared: Arc::clone(shared), pool: Arc::clone(pool), user: Arc::clone(user) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.clients.fetch_sub(1, Relaxed);
        self.pool.clients.fetch_sub(1, Relaxed);
        self.pool.database.clients.fetch_sub(1, Relaxed);
        self.user.clients.fetch_sub(1, Relaxed);
    }
}
