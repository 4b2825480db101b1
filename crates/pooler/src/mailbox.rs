//! What threads tell each other: orders to workers, questions to the control side.
//!
//! **Mechanism.** A worker's mailbox is a queue and the waker of its event loop; posting wakes it at most once until it
//! has looked. Orders come from bounded causes (a connection, a lending, a look-up each), so the queue needs no limit
//! of its own.
//!
//! **Failure.** Posting to a worker that has ended drops the order, and with it the connection it carried.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tenfold_service::{
    acceptor::{Accepted, Stream},
    limits::Permit,
};
use tokio::sync::oneshot;

use crate::{
    auth::{Derivation, LookupKey, SaltedPassword},
    handover::{CaughtUp, Handed},
    hot::HotPermit,
    pool::Pool,
    shared::Database,
    worker::{Asker, Report, Server, WorkerRows},
};

pub use crate::worker::{ClientKey, Deriving};

/// To a worker.
pub(crate) enum Order {
    /// A client has connected.
    Client(Box<Accepted>),
    /// A server connection, lent by another worker.
    Lent(Box<Server>),
    /// Another worker asks for an idle connection.
    Lend { pool: Arc<Pool>, to: usize },
    /// Another worker has no room for a connection of another pool while one of this is idle.
    MakeRoom { pool: Arc<Pool> },
    /// The worker that was asked has none.
    NothingToLend { pool: Arc<Pool> },
    /// Connections to where a database is no more are to be replaced.
    Moved { database: Arc<Database> },
    /// Somebody may go on: places came free, a pause ended, a target changed.
    Wake { database: Arc<Database> },
    /// Where the primary or a replica is was learned, or that a replica is gone: reads that wait for it go on.
    Positions { database: Arc<Database> },
    /// A cancel request for a client of this worker.
    /// Whoever asked waits for the end of its connection, which comes with the cancel's.
    Cancel { place: u32, secret: Vec<u8>, asker: Box<Asker> },
    /// What [`Ask::Lookup`] asked for is where look-ups find it.
    Found { client: ClientKey },
    /// The answer to [`Ask::Derive`].
    Derived { of: Deriving, salted: SaltedPassword },
    /// It is a parked client's turn on a row.
    HotTurn { client: u64, permit: HotPermit },
    /// The hub listens to all of these now.
    Listening { client: ClientKey },
    /// The hub cannot listen for a client.
    NotListening { client: ClientKey },
    /// A whole NotificationResponse, for those who listen to its channel.
    Notify { database: Arc<Database>, channel: Arc<str>, message: Arc<[u8]> },
    /// The hub's connection is lost: its listeners are closed.
    HubLost { database: Arc<Database> },
    /// Rows for the console.
    Report { reply: oneshot::Sender<WorkerRows> },
    /// Servers of a pool report another value than before.
    Reported { report: Arc<Report> },
    /// Close a database's clients and servers at once; all of them for `None`.
    Kill { database: Option<Arc<Database>> },
    /// Close one client.
    KillClient { id: u64 },
    /// Server connections opened before now are replaced when free.
    Reconnect { database: Option<Arc<Database>> },
    /// Read no client until told to again: what is on the way to them arrives.
    Suspend { on: bool },
    /// The configuration changed.
    Reloaded,
    /// A client of this process's predecessor.
    Adopt { client: Box<Handed>, accepted: Box<Accepted> },
    /// What a client of the predecessor missed of its channels; from here on it is a listener of this process.
    CatchUp { client: ClientKey, caught_up: CaughtUp },
    /// From here on it is counted what clients are told that listen to these channels alone.
    Cut { database: Arc<Database>, round: u64, channels: Arc<BTreeSet<Arc<str>>> },
    /// Look for clients that can go to the successor now.
    Depart,
    /// Hand clients over to the successor, or no longer.
    HandOver { on: bool },
    /// Keep no connection of a pool idle.
    CloseIdle { pool: Arc<Pool> },
    /// Finish what runs, take nothing new.
    Drain,
    /// End now.
    Stop,
}

/// To the control side.
pub enum Ask {
    /// Who is this user? The answer goes to the [`Users`](crate::auth::Users).
    Lookup {
        /// Who waits for it.
        worker: usize,
        /// Whom it concerns.
        client: ClientKey,
        /// The user and the database it asks for.
        key: LookupKey,
    },
    /// As [`Ask::Lookup`], but nobody waits.
    Refresh {
        /// The user and the database it asks for.
        key: LookupKey,
    },
    /// A password is to be salted.
    Derive {
        /// Who waits for it.
        worker: usize,
        /// For which login.
        of: Deriving,
        /// What is to be computed.
        derivation: Derivation,
    },
    /// Listen to these channels for a client.
    Listen {
        /// Where the answer goes.
        worker: usize,
        /// Whom it concerns.
        client: ClientKey,
        /// In which database.
        database: Arc<Database>,
        /// Channels, as the server names them: all of the client's.
        channels: Vec<Arc<str>>,
    },
    /// A client of this worker no longer listens to these.
    Unlisten {
        /// Which worker.
        worker: usize,
        /// Which client.
        client: ClientKey,
        /// In which database.
        database: Arc<Database>,
    },
    /// Send an empty notification, through the hub.
    Notify {
        /// In which database.
        database: Arc<Database>,
        /// To whom.
        channel: Arc<str>,
    },
    /// A client of the console, logged in; it has yet to be sent its parameters and ReadyForQuery.
    Console {
        /// Its socket, non-blocking, and what keeps it counted.
        stream: Stream,
        /// Keep it as long as the socket; `None` if the worker does, whose client it still is.
        permit: Option<Permit>,
        /// Who.
        user: Arc<str>,
        /// May command, not only look.
        admin: bool,
        /// The client's id.
        id: u64,
    },
    /// DDL passed: read the catalogue again.
    CatalogueStale {
        /// Whose.
        database: Arc<Database>,
    },
    /// The target did not answer: look at once.
    TargetFailed {
        /// Whose.
        database: Arc<Database>,
    },
    /// First use of a database: monitor it.
    Watch {
        /// Which.
        database: Arc<Database>,
    },
}

/// One worker's.
#[derive(Clone)]
pub(crate) struct Mailbox {
    shared: Arc<Inner>,
}

struct Inner {
    orders: Mutex<Vec<Order>>,
    waker: mio::Waker,
    woken: AtomicBool,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ask")
    }
}

impl Mailbox {
    pub(crate) fn new(waker: mio::Waker) -> Self {
        let inner = Inner { orders: Mutex::default(), waker, woken: AtomicBool::new(false) };
        Self { shared: Arc::new(inner) }
    }

    /// Leaves an order.
    pub(crate) fn post(&self, order: Order) {
        self.shared.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        if !self.shared.woken.swap(true, Ordering::AcqRel) {
            // Fails only if the event loop is gone, and with it whoever would read the order.
            let _ = self.shared.waker.wake();
        }
    }

    /// All orders left so far, oldest first.
    pub(crate) fn take(&self) -> Vec<Order> {
        self.shared.woken.store(false, Ordering::Release);
        std::mem::take(&mut *self.shared.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
