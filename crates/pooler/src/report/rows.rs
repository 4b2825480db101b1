//! The rows of a report: of connections, databases, pools, users, totals and memory.
//!
//! **Mechanism.** Plain structs with times as durations and moments as milliseconds since the epoch; how they are named
//! and spelled is the console's business.
//!
//! **Failure.** See [`super`].

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tenfold_service::acceptor::Address;

use crate::{
    config::{Mode, UserSettings},
    shared::Database,
    split::{Lsn, Replica, State},
};

use super::RoutesRow;

pub use crate::worker::{ClientRow, ClientState, ServerRow, ServerState};

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Clients, of all workers.
    pub clients: Vec<ClientRow>,
    /// Server connections, of all workers.
    pub servers: Vec<ServerRow>,
    /// Cancel requests under way.
    pub cancels: usize,
    /// Connections with bytes on the way: to a client that takes them slowly, or of a statement that runs.
    pub unanswered: usize,
    /// Databases, by name.
    pub databases: Vec<DatabaseRow>,
    /// Pools, by database and user.
    pub pools: Vec<PoolRow>,
    /// Replicas, by database and in the configuration's order.
    pub replicas: Vec<ReplicaRow>,
    /// Where transactions went, by database and user; only at the console.
    pub routes: Vec<RoutesRow>,
    /// Known users.
    pub users: Vec<UserRow>,
    /// Totals since the start, per database that has a pool, by name.
    pub totals: Vec<StatsRow>,
    /// Host names and what they resolved to.
    pub hosts: Vec<HostRow>,
    /// What memory holds.
    pub memory: Vec<MemoryRow>,
    /// Addresses clients are taken at.
    pub listeners: Vec<Address>,
    /// Whether the whole tier is paused.
    pub pause: Pause,
    /// Console sessions open.
    pub consoles: usize,
}

/// Whether transactions may begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pause {
    /// They may.
    #[default]
    Active,
    /// PAUSE.
    Paused,
    /// SUSPEND.
    Suspended,
}

/// One database, as clients name it.
#[derive(Clone, Debug)]
pub struct DatabaseRow {
    /// The name clients ask for.
    pub name: Arc<str>,
    /// Hosts, joined by commas.
    pub host: String,
    /// Port of the first.
    pub port: u16,
    /// Its name at the server.
    pub dbname: String,
    /// Whom it logs in as, whoever the client is.
    pub user: Option<String>,
    /// Server connections at most, per user.
    pub size: usize,
    /// Kept open even when unused.
    pub min: usize,
    /// More than `size`, for those who have waited.
    pub reserve: usize,
    /// When a server connection goes back.
    pub mode: Mode,
    /// Server connections this old are closed.
    pub lifetime: Duration,
    /// Server connections at most, over all users; 0: no limit.
    pub servers_max: usize,
    /// Server connections open.
    pub servers: usize,
    /// Clients at most; 0: no limit.
    pub clients_max: usize,
    /// Clients logged in.
    pub clients: usize,
    /// Paused at the console.
    pub is_paused: bool,
    /// Takes no clients.
    pub is_disabled: bool,
}

/// One pool: the server connections of one user to one database.
#[derive(Clone, Debug)]
pub struct PoolRow {
    /// The database.
    pub database: Arc<str>,
    /// The user it logs in as.
    pub user: Arc<str>,
    /// When a server connection goes back.
    pub mode: Mode,
    /// Whether the database has several hosts.
    pub has_hosts: bool,
}

/// One replica of one database.
#[derive(Clone, Debug)]
pub struct ReplicaRow {
    /// The database.
    pub database: Arc<str>,
    /// What it is called: host and port.
    pub name: Arc<str>,
    /// Whether reads go there.
    pub state: State,
    /// How far it is behind; `None` where nobody is sent there.
    pub lag: Option<Duration>,
    /// What it has replayed.
    pub replayed: Lsn,
    /// Transactions there now.
    pub in_flight: usize,
    /// Its share of the reads beside the others'.
    pub weight: u32,
    /// Server connections, over all users.
    pub servers: usize,
    /// Questions of the one that watches it that it has answered.
    pub answers: u64,
    /// Times it was lost after it had answered.
    pub losses: u64,
}

impl ReplicaRow {
    /// Of all replicas of a database.
    #[must_use]
    pub fn all(database: &Database) -> Vec<Self> {
        let pools: Vec<_> = database.pools().iter().flat_map(|pool| pool.at_replicas()).collect();
        let row = |replica: &Arc<Replica>| {
            let here = pools.iter().filter(|pool| pool.leads_to(replica));
            let state = replica.state();
            let is_watched = matches!(state, State::Up | State::Doubted);
            Self {
                database: Arc::clone(&database.name),
                name: Arc::clone(&replica.name),
                state,
                lag: is_watched.then(|| Duration::from_micros(replica.lag_us())),
                replayed: replica.replayed(),
                in_flight: replica.in_flight(),
                weight: replica.weight.load(Ordering::Relaxed),
                servers: here.map(|pool| pool.open()).sum(),
                answers: replica.answers(),
                losses: replica.losses(),
            }
        };
        database.split.replicas.load().iter().map(row).collect()
    }
}

/// One user.
#[derive(Clone, Debug)]
pub struct UserRow {
    /// The name.
    pub name: Arc<str>,
    /// What differs for it.
    pub settings: UserSettings,
    /// Server connections logged in as it.
    pub servers: usize,
    /// Its clients.
    pub clients: usize,
}

/// What happened in one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsRow {
    /// The database.
    pub database: Arc<str>,
    /// Transactions ended.
    pub transactions: u64,
    /// Statements ended.
    pub queries: u64,
    /// Times a client got a server connection.
    pub assignments: u64,
    /// Bytes from clients.
    pub bytes_received: u64,
    /// Bytes to clients.
    pub bytes_sent: u64,
    /// Microseconds in transactions.
    pub transaction_us: u64,
    /// Microseconds in statements.
    pub query_us: u64,
    /// Microseconds clients waited for a server connection.
    pub wait_us: u64,
    /// Statements that clients prepared by name.
    pub client_parses: u64,
    /// Statements that were prepared at servers for them.
    pub server_parses: u64,
    /// Bind messages passed on.
    pub binds: u64,
}

/// A host name.
#[derive(Clone, Debug)]
pub struct HostRow {
    /// The name.
    pub name: String,
    /// For how long its addresses are used.
    pub fresh_for: Duration,
    /// Its addresses.
    pub addresses: Vec<std::net::IpAddr>,
}

/// A kind of thing kept in memory.
#[derive(Clone, Debug)]
pub struct MemoryRow {
    /// What.
    pub name: &'static str,
    /// Bytes of one, without what it points to.
    pub size: usize,
    /// How many.
    pub used: usize,
    /// Places kept free.
    pub free: usize,
}

/// The counts that dashboards show per pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolTally {
    /// Clients that hold a server connection or are between transactions.
    pub clients_active: usize,
    /// Clients that wait, for a server connection or for a row.
    pub clients_waiting: usize,
    /// Server connections lent.
    pub servers_active: usize,
    /// Server connections that wait for a cancel request to be over.
    pub servers_being_canceled: usize,
    /// Server connections free.
    pub servers_idle: usize,
    /// Server connections being checked or cleaned.
    pub servers_tested: usize,
    /// Server connections being opened.
    pub servers_login: usize,
    /// How long the client that waits longest has waited.
    pub wait_max: Duration,
}

impl Report {
    /// The counts of every pool that has clients or server connections, by database and user.
    #[must_use]
    pub fn tallies(&self) -> HashMap<(&str, &str), PoolTally> {
        let mut tallies: HashMap<(&str, &str), PoolTally> = HashMap::new();
        for client in &self.clients {
            tallies.entry((&client.database, &client.pool_user)).or_default().count_client(client);
        }
        for server in &self.servers {
            tallies.entry((&server.database, &server.user)).or_default().count_server(server);
        }
        tallies
    }
}

impl PoolTally {
    fn count_client(&mut self, client: &ClientRow) {
        match client.state {
            ClientState::Login => {}
            ClientState::Idle | ClientState::Active => self.clients_active += 1,
            ClientState::Waiting | ClientState::Parked => {
                self.clients_waiting += 1;
                self.wait_max = self.wait_max.max(client.since);
            }
        }
    }

    fn count_server(&mut self, server: &ServerRow) {
        let count = match server.state {
            ServerState::Login => &mut self.servers_login,
            ServerState::Idle => &mut self.servers_idle,
            ServerState::Active => &mut self.servers_active,
            ServerState::Tested | ServerState::Cleaned => &mut self.servers_tested,
            ServerState::BeingCanceled => &mut self.servers_being_canceled,
        };
        *count += 1;
    }
}

impl StatsRow {
    /// Adds another database's, or another part's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.values_mut().into_iter().zip(other.values()) {
            *mine = mine.wrapping_add(theirs);
        }
    }

    /// The numbers in the order of their columns.
    #[must_use]
    pub fn values(&self) -> [u64; 11] {
        [
            self.transactions,
            self.queries,
            self.assignments,
            self.bytes_received,
            self.bytes_sent,
            self.transaction_us,
            self.query_us,
            self.wait_us,
            self.client_parses,
            self.server_parses,
            self.binds,
        ]
    }

    fn values_mut(&mut self) -> [&mut u64; 11] {
        [
            &mut self.transactions,
            &mut self.queries,
            &mut self.assignments,
            &mut self.bytes_received,
            &mut self.bytes_sent,
            &mut self.transaction_us,
            &mut self.query_us,
            &mut self.wait_us,
            &mut self.client_parses,
            &mut self.server_parses,
            &mut self.binds,
        ]
    }
}
