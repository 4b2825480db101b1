//! What a worker holds, row by row, for the console and for status.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tenfold_service::acceptor::Peer;

use super::{
    Worker,
    client::State,
    server::{Phase, Pin, Server},
    slab::Key,
};

/// Everything one worker holds.
#[derive(Clone, Debug, Default)]
pub struct WorkerRows {
    /// Its clients.
    pub clients: Vec<ClientRow>,
    /// Its server connections.
    pub servers: Vec<ServerRow>,
    /// Cancel requests under way.
    pub cancels: usize,
    /// Connections with bytes on the way.
    pub unanswered: usize,
}

/// What a client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// Logging in.
    Login,
    /// Between transactions.
    Idle,
    /// Holds a server connection.
    Active,
    /// Waits for a server connection.
    Waiting,
    /// Waits for a row.
    Parked,
}

/// What a server connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Being opened.
    Login,
    /// Nobody's.
    Idle,
    /// A client's.
    Active,
    /// Being checked, or brought to its client's state.
    Tested,
    /// Its client has gone, and it is being cleaned.
    Cleaned,
    /// Waits until a cancel request has arrived.
    BeingCanceled,
}

/// One client.
#[derive(Clone, Debug)]
pub struct ClientRow {
    /// Unique in the process.
    pub id: u64,
    /// The database it asked for; empty before that.
    pub database: Arc<str>,
    /// Who it is.
    pub user: Arc<str>,
    /// The user of its pool.
    pub pool_user: Arc<str>,
    /// What it is doing.
    pub state: ClientState,
    /// Where it comes from.
    pub peer: Option<Peer>,
    /// Our end of its connection, unless that is a Unix socket.
    pub local: Option<SocketAddr>,
    /// Its own name for itself.
    pub application_name: String,
    /// The server connection it holds.
    pub server: Option<u64>,
    /// When it came in: milliseconds since the epoch.
    pub connected_unix_ms: u64,
    /// How long ago that was.
    pub connected_for: Duration,
    /// How long it has been in this state.
    pub since: Duration,
    /// Prepared statements it has.
    pub prepared: usize,
    /// What keeps it on its server connection.
    pub pins: Vec<Pin>,
    /// Version and cipher, if its connection is encrypted.
    pub tls: Option<String>,
    /// Whether it listens to notifications.
    pub listens: bool,
    /// The worker.
    pub worker: usize,
    /// The process id it was told.
    pub process_id: u32,
}

/// One server connection.
#[derive(Clone, Debug)]
pub struct ServerRow {
    /// Unique in the process.
    pub id: u64,
    /// Whose it is.
    pub database: Arc<str>,
    /// The user it logged in as.
    pub user: Arc<str>,
    /// What it is doing.
    pub state: ServerState,
    /// Name of the host.
    pub host: Arc<str>,
    /// Port, or 0 of a Unix socket.
    pub port: u16,
    /// Our end of the connection, unless that is a Unix socket.
    pub local: Option<SocketAddr>,
    /// The client it serves.
    pub client: Option<u64>,
    /// When it was opened: milliseconds since the epoch.
    pub opened_unix_ms: u64,
    /// How long ago that was.
    pub opened_for: Duration,
    /// How long it has been in this state.
    pub since: Duration,
    /// The server's process.
    pub process_id: u32,
    /// Whether it is to be closed when free.
    pub close_needed: bool,
    /// Prepared statements it has.
    pub prepared: usize,
    /// What keeps it with its client.
    pub pins: Vec<Pin>,
    /// Version and cipher, if its connection is encrypted.
    pub tls: Option<String>,
    /// The worker.
    pub worker: usize,
}

impl Worker {
    /// All rows.
    pub(super) fn rows(&mut self) -> WorkerRows {
        WorkerRows {
            clients: self.clients.keys().into_iter().filter_map(|key| self.client_row(key)).collect(),
            servers: self.servers.keys().into_iter().filter_map(|key| self.server_row(key)).collect(),
            cancels: self.cancels.len(),
            unanswered: self.unanswered(),
        }
    }

    fn unanswered(&self) -> usize {
        let clients = self.clients.keys().into_iter().filter_map(|key| self.clients.get(key));
        let servers = self.servers.keys().into_iter().filter_map(|key| self.servers.get(key));
        clients.filter(|client| client.wire.is_blocked()).count()
            + servers.filter(|server| server.wire.is_blocked() || !server.due.is_empty()).count()
    }

    fn client_row(&self, key: Key) -> Option<ClientRow> {
        let client = self.clients.get(key)?;
        let seat = client.seat.as_ref();
        let server = client.server().and_then(|server| self.servers.get(server));
        let empty = || Arc::<str>::from("");
        Some(ClientRow {
            id: client.id,
            database: seat.map_or_else(empty, |seat| Arc::clone(&seat.pool.database.name)),
            user: seat.map_or_else(empty, |seat| Arc::clone(&seat.user)),
            pool_user: seat.map_or_else(empty, |seat| Arc::clone(&seat.pool.user)),
            state: match client.state {
                State::Login(_) => ClientState::Login,
                State::Idle => ClientState::Idle,
                State::Waiting | State::Behind(_) => ClientState::Waiting,
                State::Parked(_) => ClientState::Parked,
                State::Active(_) => ClientState::Active,
            },
            peer: seat.map(|seat| seat.peer),
            local: client.wire.local(),
            application_name: client.image.setting("application_name").unwrap_or_default().to_owned(),
            server: server.map(|server| server.id),
            connected_unix_ms: seat.map_or(0, |seat| seat.connected_unix_ms),
            connected_for: seat
                .map_or(Duration::ZERO, |seat| self.now.saturating_duration_since(seat.connected)),
            since: self.now.saturating_duration_since(client.since),
            prepared: client.statements.len(),
            pins: server.map(|server| server.pins.iter().collect()).unwrap_or_default(),
            tls: client.wire.tls_text(),
            listens: seat.is_some_and(|seat| seat.listens),
            worker: self.index,
            process_id: super::cancel::process_id(self.index, key.place),
        })
    }

    fn server_row(&mut self, key: Key) -> Option<ServerRow> {
        let close_needed = self.must_close(key);
        let server = self.servers.get(key)?;
        let port = match &server.address.at {
            crate::shared::Endpoint::Tcp(address) => address.port(),
            crate::shared::Endpoint::Unix(_) => 0,
        };
        Some(ServerRow {
            id: server.id,
            database: Arc::clone(&server.pool.database.name),
            user: Arc::clone(&server.pool.user),
            state: state_of(server),
            host: Arc::clone(&server.address.name),
            port,
            local: server.wire.local(),
            client: server.client.and_then(|client| self.clients.get(client)).map(|client| client.id),
            opened_unix_ms: server.opened_unix_ms,
            opened_for: self.now.saturating_duration_since(server.opened),
            since: self.now.saturating_duration_since(server.since),
            process_id: server.process_id,
            close_needed,
            prepared: server.statements.len(),
            pins: server.pins.iter().collect(),
            tls: server.wire.tls_text(),
            worker: self.index,
        })
    }
}

fn state_of(server: &Server) -> ServerState {
    match server.phase {
        Phase::Connecting(_) | Phase::Negotiating(_) | Phase::LoggingIn(_) => ServerState::Login,
        Phase::Idle if server.cancels > 0 => ServerState::BeingCanceled,
        Phase::Idle => ServerState::Idle,
        Phase::Lent | Phase::Listening => ServerState::Active,
        Phase::Preparing | Phase::Describing | Phase::Settling(_) | Phase::Unsure { .. } => {
            ServerState::Tested
        }
        Phase::Abandoned => ServerState::Cleaned,
    }
}
