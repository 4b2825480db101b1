//! Opening a server connection: connect, TLS, login, the connect query.
//!
//! **Mechanism.** The socket connects without waiting; `auth` says what to send and what the answers mean. Addresses of
//! the target are tried in their order, one per attempt; a failure moves on to the next, and after the last the pool
//! pauses for `connect_retry`, so a server that is down is asked a few times a second by everyone together.
//!
//! **Failure.** A server that cannot be reached, is starting up or has no room leaves the clients waiting, up to their
//! `query_wait`. One that refuses the login (wrong password, no such database) will not change its mind: the clients
//! that wait get its error.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use socket2::{Domain, Protocol, SockAddr, Socket as RawSocket, Type};
use tenfold_pgwire::{
    backend::{self, TransactionStatus},
    frame::{self, HEADER_BYTES},
    write,
};

use super::{
    Readiness, Worker,
    server::{Due, Opening, Phase, Server, Why},
    slab::{Key, Kind},
    wire::{Socket, Wire},
};
use crate::{
    auth::{FailureKind, ServerLogin, ServerStep, TlsNegotiation, TlsStep},
    config::Tcp,
    counters::Counter,
    image::Image,
    mailbox::Ask,
    pool::{Place, Pool},
    shared::{Address, Endpoint, Startup},
    split::{Facts, Waiting, facts_query},
    statements::ServerStatements,
};

/// A replica that refuses a login is left alone for so long.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// A login's message is no larger than this.
const MESSAGE_BYTES_MAX: usize = 64 * 1_024;

/// A connection to a replica that nobody is lent yet.
#[derive(Debug)]
pub(super) struct Unconfirmed {
    /// Which server it leads to; 0 until it has said so.
    pub(super) instance: u64,
    /// When that was, in microseconds of the process.
    pub(super) since_us: u64,
    pub(super) _waits: Waiting,
}

impl Worker {
    /// Whether the pause after a failure is over, and there is somewhere to connect to.
    pub(super) fn may_connect(&self, pool: &Pool) -> bool {
        !self.is_draining_hard()
            && !pool.target().addresses.is_empty()
            && self.shared.ms(self.now) >= pool.connect_after_ms.load(Ordering::Relaxed)
    }

    /// Begins to open a connection. False if that failed at once.
    pub(super) fn connect(&mut self, local: usize, place: Place, reserved: Option<Key>) -> bool {
        let pool = Arc::clone(&self.pools[local].pool);
        let target = pool.target();
        let failures = pool.connect_failures.load(Ordering::Relaxed) as usize;
        let Some(address) = target.addresses.get(failures % target.addresses.len().max(1)) else {
            if let Some(client) = reserved {
                self.wait_for_own(client);
            }
            return false;
        };
        let spec = pool.database.spec.load();
        let is_unix = matches!(address.at, Endpoint::Unix(_));
        let negotiation = TlsNegotiation::new(spec.server_tls.mode, is_unix);
        self.connect_to(local, place, reserved, address.clone(), negotiation)
    }

    fn connect_to(
        &mut self,
        local: usize,
        place: Place,
        reserved: Option<Key>,
        address: Address,
        negotiation: TlsNegotiation,
    ) -> bool {
        let pool = Arc::clone(&self.pools[local].pool);
        let socket = match open_socket(&address.at, &self.shared.config.load().tcp) {
            Ok(socket) => socket,
            Err(error) => {
                drop(place);
                self.connect_failed(&pool, &format!("{address}: {error}"));
                if let Some(client) = reserved {
                    self.wait_for_own(client);
                }
                return false;
            }
        };
        let settings = pool.settings.load();
        let deadline = self.now + settings.connect_timeout;
        let startup = reserved.and_then(|key| self.startup_of(key));
        let replication = reserved
            .and_then(|key| self.clients.get(key)?.seat.as_ref()?.replication.clone())
            .map(String::from);
        let login = self.server_login(&pool, startup.as_deref(), replication);
        let connect_query = pool.database.spec.load().connect_query.as_deref().map(Into::into);
        let opening = Opening { login, tls: Some(negotiation), deadline, reserved, connect_query };
        let server = Server {
            id: self.shared.next_id(),
            epoch: pool.epoch(),
            statements: ServerStatements::new(self.shared.config.load().statements_max),
            image: Image::empty(),
            startup,
            opened: self.now,
            opened_unix_ms: self.shared.clock.unix_ms_at(self.now),
            ..Server::new(pool, local, (Wire::new(socket), place, address, opening), self.now)
        };
        let key = self.servers.insert_with(|_| server);
        self.pools[local].connecting += 1;
        let registry = self.poll.registry();
        let Some(server) = self.servers.get_mut(key) else { return false };
        if server.wire.register(registry, key.token(Kind::Server), true).is_err() {
            self.opening_failed(key, "the socket could not be watched", None);
            return false;
        }
        true
    }

    fn startup_of(&self, key: Key) -> Option<Arc<Startup>> {
        self.clients.get(key)?.seat.as_ref().map(|seat| Arc::clone(&seat.raw))
    }

    fn server_login(
        &mut self,
        pool: &Arc<Pool>,
        startup: Option<&Startup>,
        replication: Option<String>,
    ) -> ServerLogin {
        let database = &pool.database;
        let spec = database.spec.load();
        let dbname = spec.dbname.as_deref().unwrap_or(&database.name);
        let credential = pool.credential.load();
        let (user, secret) = match credential.as_deref() {
            Some(credential) if spec.user.is_none() => self.shared.users.server_login(&spec, credential),
            _ => self.shared.users.own_login(&spec, &pool.user),
        };
        let mut params: Vec<(String, String)> = Vec::new();
        for (name, value) in startup.map(Vec::as_slice).unwrap_or_default() {
            params.push((name.clone(), value.clone()));
        }
        params.extend(replication.map(|kind| ("replication".to_owned(), kind)));
        let salted = Arc::clone(&self.shared.salted);
        ServerLogin::new(user, dbname, &params, secret, self.nonce(), salted)
    }

    pub(super) fn nonce(&mut self) -> [u8; 18] {
        self.randomness.take()
    }

    /// Something happened on a socket that is being opened.
    pub(super) fn opening_ready(&mut self, key: Key, ready: Readiness) {
        let Some(server) = self.servers.get_mut(key) else { return };
        if matches!(server.phase, Phase::Connecting(_)) {
            let error = server.wire.socket().take_error().ok().flatten();
            if let Some(error) = error {
                self.opening_failed(key, &error.to_string(), None);
                return;
            }
            if !server.wire.socket().is_connected() {
                return;
            }
            self.connected(key);
        }
        if ready.writable {
            self.flush_server(key);
        }
        let is_still_opening = self.servers.get(key).is_some_and(Server::is_opening);
        if is_still_opening && (ready.readable || ready.hangup) {
            self.read_server(key, ready.hangup);
        }
    }

    fn connected(&mut self, key: Key) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let mut out = Vec::new();
        let Phase::Connecting(opening) = std::mem::replace(&mut server.phase, Phase::Idle) else { return };
        let step = opening.tls.as_ref().map_or(TlsStep::Plain, |tls| tls.begin(&mut out));
        match step {
            TlsStep::AwaitAnswer => server.phase = Phase::Negotiating(opening),
            _ => {
                opening.login.startup(&mut out);
                server.phase = Phase::LoggingIn(opening);
            }
        }
        self.send_server(key, &out);
    }

    /// What a server said that is being opened.
    pub(super) fn opening_bytes(&mut self, key: Key, data: &[u8]) -> usize {
        let Some(server) = self.servers.get_mut(key) else { return data.len() };
        if let Phase::Negotiating(opening) = &mut server.phase {
            let step = opening.tls.as_mut().map_or(TlsStep::Plain, |tls| tls.answer(data));
            self.negotiated(key, step);
            return data.len();
        }
        let mut at = 0;
        while self.servers.get(key).is_some_and(|server| matches!(server.phase, Phase::LoggingIn(_))) {
            if self.servers.get(key).is_some_and(|server| !server.due.is_empty()) {
                return at + self.downstream(key, &data[at..]);
            }
            let header = match frame::header(&data[at..]) {
                Ok(Some(header)) if header.len <= MESSAGE_BYTES_MAX => header,
                Ok(None) => break,
                _ => {
                    self.opening_failed(key, "the server does not speak PostgreSQL's protocol", None);
                    return data.len();
                }
            };
            if data.len() - at < header.len {
                break;
            }
            let body = &data[at + HEADER_BYTES..at + header.len];
            at += header.len;
            self.login_message(key, header.tag, body);
        }
        if self.servers.get(key).is_none() { data.len() } else { at }
    }

    fn negotiated(&mut self, key: Key, step: TlsStep) {
        let Some(server) = self.servers.get_mut(key) else { return };
        match step {
            TlsStep::AwaitAnswer => {}
            TlsStep::Handshake => self.start_tls(key),
            TlsStep::Plain => {
                let Phase::Negotiating(opening) = std::mem::replace(&mut server.phase, Phase::Idle) else {
                    return;
                };
                let mut out = Vec::new();
                opening.login.startup(&mut out);
                server.phase = Phase::LoggingIn(opening);
                self.send_server(key, &out);
            }
            TlsStep::Failed(why) => self.opening_failed(key, why, None),
        }
    }

    fn start_tls(&mut self, key: Key) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let spec = server.pool.database.spec.load();
        let session = spec.server_tls.config.as_ref().and_then(|config| {
            let name = rustls::pki_types::ServerName::try_from(server.address.name.to_string()).ok()?;
            rustls::ClientConnection::new(Arc::clone(config), name).ok()
        });
        let Some(session) = session else {
            let why = "TLS towards the server has no usable configuration or host name";
            self.opening_failed(key, why, None);
            return;
        };
        server.wire.start_tls(session.into());
        let Phase::Negotiating(opening) = std::mem::replace(&mut server.phase, Phase::Idle) else { return };
        let mut out = Vec::new();
        // rustls keeps it until the handshake is done. Channel binding needs the certificate, which is not there yet.
        opening.login.startup(&mut out);
        server.phase = Phase::LoggingIn(opening);
        self.send_server(key, &out);
    }

    fn login_message(&mut self, key: Key, tag: u8, body: &[u8]) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let end_point = server.wire.end_point();
        let Phase::LoggingIn(opening) = &mut server.phase else { return };
        let mut out = Vec::new();
        opening.login.set_end_point(end_point);
        let step = opening.login.message(tag, body, &mut out);
        if !out.is_empty() {
            self.send_server(key, &out);
        }
        self.login_step(key, step);
    }

    pub(super) fn login_step(&mut self, key: Key, step: ServerStep) {
        match step {
            ServerStep::Continue => {}
            ServerStep::Derive(derivation) => {
                let ask = Ask::Derive {
                    worker: self.index,
                    of: super::Deriving::Server(super::ServerKey(key)),
                    derivation,
                };
                if !self.shared.ask(ask) {
                    self.opening_failed(key, "too much to do to compute a password's proof", None);
                }
            }
            ServerStep::Ready(ready) => {
                let Some(server) = self.servers.get_mut(key) else { return };
                server.process_id = ready.process_id;
                server.key = ready.key;
                server.status = TransactionStatus::Idle;
                self.logged_in(key, ready.params);
            }
            ServerStep::Failed { error, kind } => self.login_refused(key, &error, kind),
        }
    }

    /// The salted password that a server's login waited for.
    pub(super) fn server_derived(&mut self, key: Key, salted: &crate::auth::SaltedPassword) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let Phase::LoggingIn(opening) = &mut server.phase else { return };
        let mut out = Vec::new();
        let step = opening.login.derived(salted, &mut out);
        self.send_server(key, &out);
        self.login_step(key, step);
    }

    fn logged_in(&mut self, key: Key, params: Vec<(String, String)>) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let is_standby = params.iter().any(|(name, value)| name == "in_hot_standby" && value == "on");
        let database = Arc::clone(&server.pool.database);
        if server.pool.replica.is_none() && is_standby && database.target.load().addresses.len() > 1 {
            self.opening_failed(key, "the server is a standby", None);
            return;
        }
        let Some(server) = self.servers.get_mut(key) else { return };
        if server.startup.is_none() {
            server.fresh = server.pool.welcomes(params);
        } else {
            server.reports = params;
        }
        let Phase::LoggingIn(opening) = &mut server.phase else { return };
        if let Some(sql) = opening.connect_query.take() {
            let mut out = Vec::new();
            write::query(&mut out, sql.as_bytes());
            server.push_ours(Why::Connect);
            self.send_server(key, &out);
            return;
        }
        self.ask_facts(key);
    }

    pub(super) fn connect_query_ended(&mut self, key: Key, failed: bool) {
        if failed {
            let error = self.servers.get_mut(key).and_then(|server| server.last_words.take());
            self.opening_failed(key, "the connect query failed", error.as_deref());
            return;
        }
        self.ask_facts(key);
    }

    /// Where reads are split, a connection says which server it leads to before it is used.
    fn ask_facts(&mut self, key: Key) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let reserved = match &server.phase {
            Phase::LoggingIn(opening) => opening.reserved,
            _ => None,
        };
        let seat = reserved.and_then(|key| self.clients.get(key)?.seat.as_ref());
        // A walsender takes no such question.
        let is_walsender = seat.is_some_and(|seat| seat.replication.is_some());
        if is_walsender || server.pool.replica.is_none() && !server.pool.database.split.is_on() {
            self.opened(key);
            return;
        }
        let mut out = Vec::new();
        write::query(&mut out, facts_query().as_bytes());
        server.push_ours(Why::Facts);
        self.send_server(key, &out);
    }

    /// It has said so.
    pub(super) fn facts_told(&mut self, key: Key, failed: bool) {
        if failed {
            let error = self.servers.get_mut(key).and_then(|server| server.last_words.take());
            self.opening_failed(key, "the server does not say which one it is", error.as_deref());
            return;
        }
        if self.servers.get(key).is_some_and(|server| server.unconfirmed.is_none()) {
            self.opened(key);
            return;
        }
        self.unconfirmed.push(key);
        self.confirm_servers();
    }

    /// What a connection says of its server.
    pub(super) fn note_facts(&mut self, key: Key, row: &backend::DataRow<'_>) -> bool {
        let since_us = self.shared.us(self.shared.clock.now());
        let Some(server) = self.servers.get_mut(key) else { return false };
        let name = server.pool.replica.as_ref().map_or("", |replica| &*replica.name);
        let text = |column| std::str::from_utf8(row.column(column).flatten()?).ok();
        let Some(facts) = Facts::read(name, [0, 1, 2, 3, 4, 5, 6].map(text)) else { return false };
        if server.pool.replica.is_none() {
            server.pool.set_begins(facts.begins);
            return true;
        }
        let home = server.pool.begins();
        if let Some((setting, own, others)) = home.as_ref().and_then(|home| facts.begins.differs(home)) {
            let why = format!(
                "its sessions begin with {setting} = \"{own}\", the primary's with \"{others}\": no reads until they agree"
            );
            if let Some(replica) = &server.pool.replica {
                replica.avoid_until(self.shared.ms(self.now + REFUSED_PAUSE));
            }
            self.opening_failed(key, &why, None);
            return true;
        }
        let life = server.pool.replica.as_ref().map_or(0, |replica| replica.life());
        let waits = server.pool.database.split.wait_for(life);
        server.unconfirmed =
            Some(Box::new(Unconfirmed { instance: facts.instance, since_us, _waits: waits }));
        facts.is_standby
    }

    /// Connections to replicas whose server is known by now are lent, or closed.
    pub(super) fn confirm_servers(&mut self) {
        for key in std::mem::take(&mut self.unconfirmed) {
            let Some(server) = self.servers.get(key) else { continue };
            let (Some(waits), Some(replica)) = (&server.unconfirmed, &server.pool.replica) else { continue };
            match replica.confirms(waits.instance, waits.since_us) {
                None => self.unconfirmed.push(key),
                Some(true) => self.confirmed(key),
                Some(false) => {
                    let why = "it is another server than the one that is watched under this name; list each by itself";
                    self.opening_failed(key, why, None);
                }
            }
        }
    }

    /// The server behind a connection to a replica is the one that is watched.
    pub(super) fn confirmed(&mut self, key: Key) {
        if let Some(server) = self.servers.get_mut(key)
            && let Some(confirmed) = server.unconfirmed.take()
        {
            server.instance = confirmed.instance;
        }
        self.opened(key);
    }

    fn opened(&mut self, key: Key) {
        self.find_misplaced(key, None);
        let Some(server) = self.servers.get_mut(key) else { return };
        let Phase::LoggingIn(opening) = std::mem::replace(&mut server.phase, Phase::Idle) else { return };
        let (pool, local) = (Arc::clone(&server.pool), server.local);
        server.since = self.now;
        self.pools[local].connecting = self.pools[local].connecting.saturating_sub(1);
        pool.connect_failures.store(0, Ordering::Relaxed);
        pool.connect_after_ms.store(0, Ordering::Relaxed);
        self.shared.counters.count(self.index, Counter::ServersOpened);
        if let Some(client) = opening.reserved {
            self.own_server_opened(client, key);
            return;
        }
        self.give(key);
        self.welcome_known(local);
        self.seek(local);
    }

    /// A connection could not be opened; those who wait go on waiting.
    pub(super) fn opening_failed(&mut self, key: Key, why: &str, error: Option<&[u8]>) {
        let Some(mut server) = self.servers.remove(key) else { return };
        let _ = server.wire.deregister(self.poll.registry());
        let (pool, local) = (Arc::clone(&server.pool), server.local);
        self.pools[local].connecting = self.pools[local].connecting.saturating_sub(1);
        let opening = match server.phase {
            Phase::Connecting(opening) | Phase::Negotiating(opening) | Phase::LoggingIn(opening) => opening,
            _ => return,
        };
        let Opening { tls, reserved, .. } = *opening;
        if let Some(mut tls) = tls
            && tls.retry(error.is_some())
        {
            self.connect_to(local, server._place, reserved, server.address, tls);
            return;
        }
        let address = server.address;
        drop(server._place);
        self.connect_failed(&pool, &format!("{address}: {why}"));
        if pool.replica.is_some() {
            self.leave_replica(local);
        }
        if let Some(client) = reserved {
            self.own_server_failed(client, error);
        }
    }

    /// After a failure: a pause, and a look at the target.
    fn connect_failed(&mut self, pool: &Arc<Pool>, why: &str) {
        let retry = pool.settings.load().connect_retry;
        let failures = pool.connect_failures.fetch_add(1, Ordering::Relaxed) + 1;
        let addresses = pool.target().addresses.len().max(1);
        let pause = if (failures as usize).is_multiple_of(addresses) { retry } else { Duration::ZERO };
        let until = self.shared.ms(self.now + pause);
        pool.connect_after_ms.store(until, Ordering::Relaxed);
        self.shared.counters.count(self.index, Counter::ConnectFailures);
        self.shared.log_connect_failure(pool, failures, why);
        if let Some(replica) = &pool.replica {
            replica.doubt();
            replica.avoid_until(until);
            return;
        }
        self.shared.ask(Ask::TargetFailed { database: Arc::clone(&pool.database) });
    }

    /// The server refused the login: whether that may pass decides who hears of it.
    fn login_refused(&mut self, key: Key, error: &[u8], kind: FailureKind) {
        let Some(server) = self.servers.get(key) else { return };
        let local = server.local;
        let text = super::refuse::message_of(error);
        self.opening_failed(key, &text, Some(error));
        if let Some(replica) = &self.pools[local].pool.replica {
            if kind != FailureKind::Unavailable {
                replica.avoid_until(self.shared.ms(self.now + REFUSED_PAUSE));
            }
            return;
        }
        if kind != FailureKind::Unavailable {
            self.refuse_waiters(local, error);
        }
    }
}

/// A socket that is connecting.
pub(super) fn open_socket(at: &Endpoint, tcp: &Tcp) -> std::io::Result<Socket> {
    let (domain, address, protocol) = match at {
        Endpoint::Tcp(address) => {
            (Domain::for_address(*address), SockAddr::from(*address), Some(Protocol::TCP))
        }
        Endpoint::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?, None),
    };
    let socket = RawSocket::new(domain, Type::STREAM, protocol)?;
    socket.set_nonblocking(true)?;
    if protocol.is_some() {
        socket.set_tcp_nodelay(true)?;
        super::wire::set_keepalive(&socket, tcp)?;
    }
    match socket.connect(&address) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
        Err(error) => return Err(error),
    }
    Ok(match at {
        Endpoint::Tcp(_) => Socket::Tcp(mio::net::TcpStream::from_std(socket.into())),
        Endpoint::Unix(_) => Socket::Unix(mio::net::UnixStream::from_std(socket.into())),
    })
}

impl Server {
    /// Whether it answers the question which server it is ([`facts_query`]).
    pub(super) fn is_asked_for_facts(&self) -> bool {
        matches!(self.phase, Phase::LoggingIn(_))
            && matches!(self.due.front(), Some(Due::Ours(ours)) if matches!(ours.why, Why::Facts))
    }
}
