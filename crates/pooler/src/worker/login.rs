//! A client comes in: TLS, startup packet, proof of identity, and the session that its startup parameters make.
//!
//! **Mechanism.** [`Login`] exists only until the client is in. Who the user is may have to be asked of the control side,
//! and a password's proof computed there; meanwhile nothing is read. What follows the proof is in `seat`.
//!
//! **Failure.** Whatever is wrong is FATAL, in PostgreSQL's words; databases and users cannot be probed, since unknown
//! ones fail only after the password exchange. Nobody may take longer than `login_timeout`.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tenfold_pgwire::{
    frame::{self, HEADER_BYTES},
    startup::{Initial, Replication, Startup as Packet, VERSION_MINOR_LATEST, options},
    write,
};
use tenfold_service::acceptor::{Accepted, Address, Peer, Stream};

use super::{
    Deriving, Worker,
    client::{Client, ClientKey, State, peer_text},
    refuse::Denied,
    slab::{Key, Kind},
    wire::{Got, Socket, Wire},
};
use crate::{
    auth::{
        self, Authenticated, ClientFacts, Derivation, LoginSeeds, Lookup, LookupKey, SaltedPassword, Step,
        TlsFacts, UnixPeer,
        hba::{HbaFacts, Verdict},
    },
    config::{ANY_DATABASE, AuthMethod, CONSOLE_DATABASES, TlsMode},
    mailbox::Ask,
    refusal::Refusal,
    shared::{Database, Shared, Startup},
};

/// What a client sends before it is in is no larger.
const LOGIN_BYTES_MAX: usize = 70_000;
/// Values of startup parameters, together.
const APPLICATION_NAME: &str = "application_name";

/// A client that is not in yet.
#[derive(Debug)]
pub(crate) struct Login {
    pub(super) phase: LoginPhase,
    pub(super) peer: Peer,
    pub(super) tls_done: bool,
    /// Also once it is being seated: refusals name whom they concern.
    pub(super) asked_for: Option<Arc<AskedFor>>,
    /// Counts it among those whose login is being worked on. One that waits for its client takes no turn, so that
    /// strangers who stall keep nobody out.
    turn: Option<LoginTurn>,
    /// Waits for a server of this pool, to try the startup parameters.
    pub(super) waiting_in: Option<usize>,
}

/// What the startup packet asks for.
#[derive(Debug)]
pub(super) struct AskedFor {
    pub(super) user: Arc<str>,
    pub(super) database: Arc<str>,
    pub(super) found: Option<Arc<Database>>,
    pub(super) startup: Startup,
    pub(super) replication: Option<Box<str>>,
    pub(super) method: AuthMethod,
    pub(super) console: bool,
}

#[derive(Debug)]
pub(super) enum LoginPhase {
    /// The startup packet, or a request before it.
    Packet,
    /// Others log in; it is this one's turn after them, to do this.
    Queued(Errand),
    /// The control side was asked who the user is.
    LookingUp,
    /// Messages of the authentication.
    Proving(Box<auth::Login>),
    /// A password's proof is being computed.
    Deriving(Box<auth::Login>),
    /// In, but for the startup parameters.
    Starting(Arc<auth::Credential>),
}

/// What a login takes a turn for: work of the control side.
#[derive(Debug)]
pub(super) enum Errand {
    /// To ask who the user is.
    LookUp,
    /// To compute a password's proof.
    Derive(Box<(auth::Login, Derivation)>),
}

/// Counts one login that is being worked on.
#[derive(Debug)]
pub(super) struct LoginTurn(Arc<Shared>);

impl LoginTurn {
    fn take(shared: &Arc<Shared>, max: usize) -> Option<Self> {
        let take = |under_way: usize| (under_way < max).then_some(under_way + 1);
        shared.logins.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Self(Arc::clone(shared)))
    }
}

impl Drop for LoginTurn {
    fn drop(&mut self) {
        self.0.logins.fetch_sub(1, Ordering::Relaxed);
    }
}

/// As long as a name of PostgreSQL's may be.
const NAME_CHARS_MAX: usize = 63;

impl Login {
    /// How the log names who is not let in yet. Names are the client's own word: cut, and nothing that could be taken
    /// for a line of ours.
    pub(super) fn who(&self) -> String {
        let peer = peer_text(&self.peer);
        let Some(asked_for) = &self.asked_for else { return peer };
        let name = |name: &str| -> String {
            name.chars().take(NAME_CHARS_MAX).flat_map(char::escape_debug).collect()
        };
        let is_known = asked_for.found.is_some() || asked_for.console;
        let unknown = if is_known { "" } else { ", no such database" };
        format!("{}@{}{unknown}, {peer}", name(&asked_for.user), name(&asked_for.database))
    }

    /// Whether it waits for something other than the client.
    pub(crate) fn is_waiting(&self) -> bool {
        !matches!(self.phase, LoginPhase::Packet | LoginPhase::Proving(_))
    }

    /// From here on it waits for a server of this pool.
    pub(crate) fn wait_in(&mut self, local: usize) {
        self.waiting_in = Some(local);
    }

    /// The pool whose server it waits for.
    pub(crate) fn waiting_in(&self) -> Option<usize> {
        self.waiting_in
    }
}

impl Worker {
    /// A client has connected.
    pub(super) fn accept(&mut self, accepted: Accepted) {
        let Accepted { stream, peer, local, permit } = accepted;
        let _: Address = local;
        let config = self.shared.config.load();
        if let Stream::Tcp(stream) = &stream {
            // Without keepalive a dead client is noticed later, by the limits of time.
            let _ = super::wire::set_keepalive(&socket2::SockRef::from(stream), &config.tcp);
        }
        let login = Login {
            phase: LoginPhase::Packet,
            peer,
            tls_done: false,
            asked_for: None,
            turn: None,
            waiting_in: None,
        };
        let deadline = self.now + config.login_timeout;
        let (wire, state) = (Wire::new(Socket::of(stream)), State::Login(Box::new(login)));
        let client = Client::new(self.shared.next_id(), wire, state, self.secret(), self.now, permit);
        let key = self.clients.insert_with(|_| client);
        self.logins.push_back((deadline, key));
        self.take_in(key);
    }

    /// Reads what a new client has sent by now, and has the event loop tell of the rest. Most have sent their first
    /// packet when they are handed over; read before the loop knows of the socket, it costs no turn of its own.
    fn take_in(&mut self, key: Key) {
        let registry = self.poll.registry();
        let Some(client) = self.clients.get_mut(key) else { return };
        let got = client.wire.read(&mut self.buffer);
        let is_watched = client.wire.register(registry, key.token(Kind::Client), false).is_ok();
        if !is_watched || matches!(got, Ok(Got::End) | Err(_)) {
            self.client_gone(key);
            return;
        }
        if self.is_draining {
            self.refuse_and_end(key, Refusal::ShuttingDown, "the pooler is shutting down");
            return;
        }
        if let Ok(Got::Bytes { len, .. }) = got {
            self.client_read(key, len);
        }
    }

    fn secret(&mut self) -> [u8; 4] {
        self.randomness.take()
    }

    /// What a client sent that is not in yet.
    pub(super) fn login_bytes(&mut self, key: Key, data: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let Some(client) = self.clients.get(key) else { return data.len() };
            let State::Login(login) = &client.state else {
                if at < data.len() {
                    // What came with the last message of the login is looked at once it is kept.
                    self.look_again(key);
                }
                return at;
            };
            let rest = &data[at..];
            let used = match &login.phase {
                LoginPhase::Packet => self.packet(key, rest),
                LoginPhase::Proving(_) => self.proof(key, rest),
                _ if rest.len() > LOGIN_BYTES_MAX => {
                    self.refuse_and_end(
                        key,
                        Refusal::Protocol,
                        "too much was sent before the login was done",
                    );
                    return data.len();
                }
                _ => None,
            };
            match used {
                Some(used) => at += used,
                None => return at,
            }
        }
    }

    /// The first packet, or what comes before it. `None`: more is needed.
    fn packet(&mut self, key: Key, data: &[u8]) -> Option<usize> {
        let initial = match Initial::parse(data) {
            Ok(initial) => initial,
            Err(error) => {
                self.refuse_wire(key, &error);
                return None;
            }
        };
        let (initial, len) = initial?;
        match initial {
            Initial::TlsHello => self.direct_tls(key, data),
            Initial::SslRequest => {
                self.ssl_request(key, data.len() > len);
                Some(len)
            }
            Initial::GssEncRequest => {
                if self.send_client(key, b"N") {
                    Some(len)
                } else {
                    None
                }
            }
            Initial::Cancel(cancel) => {
                let (id, secret) = (cancel.process_id, cancel.key.to_vec());
                if let Some(asker) = self.take_asker(key) {
                    self.shared.cancel(id, secret, asker);
                }
                None
            }
            Initial::Startup(packet) => {
                self.startup_packet(key, &packet);
                Some(len)
            }
        }
    }

    fn refuse_wire(&mut self, key: Key, error: &tenfold_pgwire::Error) {
        self.shared.counters.refused(self.index, Refusal::Protocol);
        let mut out = Vec::new();
        let text = error.to_string();
        write::Report::fatal(error.sqlstate(), &text).append_error(&mut out);
        if self.send_client(key, &out) {
            self.client_gone(key);
        }
    }

    fn ssl_request(&mut self, key: Key, has_more: bool) {
        let config = self.shared.config.load();
        let Some(client) = self.clients.get_mut(key) else { return };
        let State::Login(login) = &mut client.state else { return };
        let is_offered =
            config.client_tls.mode != TlsMode::Disable && !client.wire.is_unix() && !login.tls_done;
        let Some(tls) = config.client_tls.config.as_ref().filter(|_| is_offered) else {
            self.send_client(key, b"N");
            return;
        };
        if has_more {
            // CVE-2021-23214: what was sent in clear must not count as sent under TLS.
            let text = "received unencrypted data after SSL request";
            self.refuse_and_end(key, Refusal::Protocol, text);
            return;
        }
        let Ok(session) = rustls::ServerConnection::new(Arc::clone(tls)) else {
            self.client_gone(key);
            return;
        };
        login.tls_done = true;
        if self.send_client(key, b"S")
            && let Some(client) = self.clients.get_mut(key)
        {
            client.wire.start_tls(session.into());
        }
    }

    /// TLS without asking (PostgreSQL 17): what was read belongs to the handshake.
    fn direct_tls(&mut self, key: Key, data: &[u8]) -> Option<usize> {
        let config = self.shared.config.load();
        let client = self.clients.get_mut(key)?;
        let State::Login(login) = &mut client.state else { return None };
        let session = config
            .client_tls
            .config
            .as_ref()
            .filter(|_| config.client_tls.mode != TlsMode::Disable && !login.tls_done)
            .and_then(|tls| rustls::ServerConnection::new(Arc::clone(tls)).ok());
        let Some(session) = session else {
            self.client_gone(key);
            return None;
        };
        login.tls_done = true;
        client.wire.start_tls(session.into());
        if client.wire.feed_tls(data).is_err() {
            self.client_gone(key);
            return None;
        }
        client.unread = true;
        self.look_again(key);
        Some(data.len())
    }

    fn startup_packet(&mut self, key: Key, packet: &Packet<'_>) {
        let asked_for = match self.asked_for(key, packet) {
            Ok(asked_for) => asked_for,
            Err(denied) => {
                self.deny(key, &denied);
                return;
            }
        };
        if let Some(minor) = packet.negotiation(VERSION_MINOR_LATEST) {
            let mut out = Vec::new();
            write::negotiate_protocol_version(&mut out, minor, packet.protocol_options());
            if !self.send_client(key, &out) {
                return;
            }
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        let State::Login(login) = &mut client.state else { return };
        login.asked_for = Some(Arc::new(asked_for));
        login.phase = LoginPhase::Queued(Errand::LookUp);
        self.login_queue.push_back(key);
        self.next_logins();
    }

    /// Lets those log in that stand first in the queue, as many as may at once.
    pub(super) fn next_logins(&mut self) {
        // A login may end at once, and lead here again: the loop goes on by itself.
        if std::mem::replace(&mut self.is_seating, true) {
            return;
        }
        self.seat_queued();
        self.is_seating = false;
    }

    fn seat_queued(&mut self) {
        let max = self.shared.config.load().logins_max;
        while let Some(&key) = self.login_queue.front() {
            let is_there = self.clients.get(key).is_some_and(
                |client| matches!(&client.state, State::Login(login) if matches!(login.phase, LoginPhase::Queued(_))),
            );
            if is_there {
                let Some(turn) = LoginTurn::take(&self.shared, max) else { return };
                self.login_queue.pop_front();
                self.has_turn(key, turn);
            } else {
                self.login_queue.pop_front();
            }
        }
    }

    /// It is a login's turn: it does what it waited for.
    fn has_turn(&mut self, key: Key, turn: LoginTurn) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let State::Login(login) = &mut client.state else { return };
        login.turn = Some(turn);
        match std::mem::replace(&mut login.phase, LoginPhase::LookingUp) {
            LoginPhase::Queued(Errand::Derive(derive)) => {
                let (proving, derivation) = *derive;
                login.phase = LoginPhase::Deriving(Box::new(proving));
                self.derive(key, derivation);
            }
            _ => self.look_up(key),
        }
    }

    /// Has a password's proof computed.
    fn derive(&mut self, key: Key, derivation: Derivation) {
        let of = Deriving::Client(ClientKey(key));
        if !self.shared.ask(Ask::Derive { worker: self.index, of, derivation }) {
            self.refuse_and_end(key, Refusal::LoginTimeout, "too many logins at once; try again");
        }
    }

    /// The next step is the client's, or a server's: others have their turn.
    fn leave_turn(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let State::Login(login) = &mut client.state else { return };
        if login.turn.take().is_some() && !self.login_queue.is_empty() {
            self.next_logins();
        }
    }

    /// Reads the packet, and decides by rules how the client is to prove itself.
    fn asked_for(&self, key: Key, packet: &Packet<'_>) -> Result<AskedFor, Denied> {
        let config = self.shared.config.load();
        let text = |bytes: &[u8], what: &str| {
            String::from_utf8(bytes.to_vec())
                .map_err(|_| (Refusal::StartupParameter, format!("the {what} is not UTF-8")))
        };
        let user: Arc<str> = text(packet.user, "user name")?.into();
        let database: Arc<str> = text(packet.database, "database name")?.into();
        let startup = self.startup_parameters(key, packet)?;
        let console = CONSOLE_DATABASES.contains(&&*database);
        let replication = match packet.replication {
            Replication::Off => None,
            Replication::Physical => Some("true".into()),
            Replication::Logical => Some("database".into()),
        };
        // A physical replication connection names no database; it goes to the one of its user's name, or the first.
        let database = if database.is_empty() { self.some_database(&user) } else { database };
        let found = if console { None } else { self.shared.database(&database) };
        let client = self.clients.get(key);
        let is_tls = client.is_some_and(|client| client.wire.tls().is_some());
        let is_unix = client.is_some_and(|client| client.wire.is_unix());
        if config.client_tls.mode >= TlsMode::Require && !is_tls && !is_unix {
            return Err((Refusal::TlsRequired, "SSL required".to_owned()).into());
        }
        let method = self.method(key, &user, &database, packet.replication == Replication::Physical)?;
        Ok(AskedFor { user, database, found, startup, replication, method, console })
    }

    fn some_database(&self, user: &Arc<str>) -> Arc<str> {
        let config = self.shared.config.load();
        let names = || config.databases.iter().map(|database| &database.name);
        let named_alike = names().find(|name| **name == *user);
        named_alike.or_else(|| names().find(|name| &***name != ANY_DATABASE)).unwrap_or(user).clone()
    }

    fn method(
        &self,
        key: Key,
        user: &Arc<str>,
        database: &Arc<str>,
        replication: bool,
    ) -> Result<AuthMethod, (Refusal, String)> {
        let hba = self.shared.hba.load();
        let Some(hba) = hba.as_ref() else { return Ok(self.shared.config.load().auth) };
        let client = self.clients.get(key);
        let address = client.and_then(|client| match &client.state {
            State::Login(login) => match login.peer {
                Peer::Tcp(address) => Some(address.ip()),
                Peer::Unix { .. } => None,
            },
            _ => None,
        });
        let tls = client.is_some_and(|client| client.wire.tls().is_some());
        match hba.decide(&HbaFacts { database, user, address, tls, replication }) {
            Verdict::Method { method, .. } => Ok(method),
            Verdict::Reject { line } => {
                let text = format!("pg_hba.conf rejects connection for user \"{user}\" (line {line})");
                Err((Refusal::HbaReject, text))
            }
            Verdict::NoRule => {
                let text = format!("no pg_hba.conf entry for user \"{user}\", database \"{database}\"");
                Err((Refusal::HbaReject, text))
            }
        }
    }

    /// The parameters that make the session, as the server is to be told them.
    fn startup_parameters(&self, key: Key, packet: &Packet<'_>) -> Result<Startup, Denied> {
        let config = self.shared.config.load();
        let is_ignored = |name: &str| {
            config.ignore_startup_parameters.iter().any(|ignored| ignored.eq_ignore_ascii_case(name))
        };
        let refused = |text: String| Denied::from((Refusal::StartupParameter, text));
        let mut startup = Startup::new();
        let mut add = |name: &[u8], value: &[u8]| {
            let name = String::from_utf8(name.to_vec()).map(|name| name.to_ascii_lowercase());
            let value = String::from_utf8(value.to_vec());
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(refused("a startup parameter is not UTF-8".into()));
            };
            if !is_ignored(&name) {
                startup.retain(|(other, _)| *other != name);
                startup.push((name, value));
            }
            Ok(())
        };
        if !is_ignored("options") {
            let settings = options::settings(packet.options).map_err(|refused| Denied {
                refusal: Refusal::StartupOption,
                text: refused.to_string(),
                hint: refused.error.hint(),
            })?;
            for (name, value) in settings {
                add(&name, &value)?;
            }
        }
        for (name, value) in packet.settings() {
            add(name, value)?;
        }
        if config.application_name_add_host {
            self.add_host(key, &mut startup);
        }
        startup.sort();
        Ok(startup)
    }

    fn add_host(&self, key: Key, startup: &mut Startup) {
        let Some(State::Login(login)) = self.clients.get(key).map(|client| &client.state) else { return };
        let host = match login.peer {
            Peer::Tcp(address) => address.to_string(),
            Peer::Unix { .. } => "unix".to_owned(),
        };
        match startup.iter_mut().find(|(name, _)| name == APPLICATION_NAME) {
            Some((_, value)) => *value = format!("{value} - {host}"),
            None => startup.push((APPLICATION_NAME.into(), format!("app - {host}"))),
        }
    }

    fn facts(
        &self,
        key: Key,
        user: &Arc<str>,
        database: &Arc<str>,
        replication: bool,
    ) -> Option<ClientFacts> {
        let client = self.clients.get(key)?;
        let State::Login(login) = &client.state else { return None };
        let config = self.shared.config.load();
        let tls = client.wire.tls().map(|tls| TlsFacts {
            peer_common_name: tls
                .peer_certificates()
                .and_then(|chain| super::certificate::common_name(chain.first()?))
                .map(Into::into),
            peer_verified: tls.peer_certificates().is_some(),
            end_point: config.client_tls.end_point.clone(),
        });
        let (addr, unix_peer) = match login.peer {
            Peer::Tcp(addr) => (Some(addr), None),
            Peer::Unix { uid, .. } => (None, Some(UnixPeer { uid, name: user_name(uid) })),
        };
        let (user, database) = (Arc::clone(user), Arc::clone(database));
        Some(ClientFacts { user, database, addr, unix_peer, tls, replication })
    }

    /// Who is the user?
    fn look_up(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let State::Login(login) = &mut client.state else { return };
        let Some(asked_for) = &login.asked_for else { return };
        let lookup_key =
            LookupKey { database: Arc::clone(&asked_for.database), user: Arc::clone(&asked_for.user) };
        let spec = asked_for.found.as_ref().map(|database| database.spec.load_full());
        let method = asked_for.method;
        match self.shared.users.lookup(spec.as_deref(), &lookup_key, method, self.now) {
            Lookup::Ask(lookup_key) => {
                login.phase = LoginPhase::LookingUp;
                let ask = Ask::Lookup { worker: self.index, client: ClientKey(key), key: lookup_key };
                if !self.shared.ask(ask) {
                    self.prove(key, None);
                }
            }
            Lookup::Found { credential, refresh } => {
                if let Some(lookup_key) = refresh {
                    self.shared.ask(Ask::Refresh { key: lookup_key });
                }
                self.prove(key, Some(credential));
            }
            Lookup::Unknown => self.prove(key, None),
        }
    }

    /// The control side has asked; the answer is where look-ups find it.
    pub(super) fn login_found(&mut self, key: Key) {
        let Some(client) = self.clients.get(key) else { return };
        let State::Login(login) = &client.state else { return };
        let (LoginPhase::LookingUp, Some(asked_for)) = (&login.phase, &login.asked_for) else { return };
        let lookup_key =
            LookupKey { database: Arc::clone(&asked_for.database), user: Arc::clone(&asked_for.user) };
        let spec = asked_for.found.as_ref().map(|database| database.spec.load_full());
        let found = match self.shared.users.lookup(spec.as_deref(), &lookup_key, asked_for.method, self.now) {
            Lookup::Found { credential, .. } => Some(credential),
            _ => None,
        };
        self.prove(key, found);
    }

    fn prove(&mut self, key: Key, credential: Option<Arc<auth::Credential>>) {
        let nonce = self.nonce();
        let Some(client) = self.clients.get(key) else { return };
        let State::Login(login) = &client.state else { return };
        let Some(asked_for) = &login.asked_for else { return };
        let (user, database) = (Arc::clone(&asked_for.user), Arc::clone(&asked_for.database));
        let (method, replication) = (asked_for.method, asked_for.replication.is_some());
        let Some(facts) = self.facts(key, &user, &database, replication) else { return };
        let seeds = LoginSeeds { nonce, salt_seed: self.shared.config.load().salt_seed };
        let mut out = Vec::new();
        let (proving, step) = auth::Login::begin(facts, method, credential, seeds, &mut out);
        let Some(client) = self.clients.get_mut(key) else { return };
        if let State::Login(login) = &mut client.state {
            login.phase = LoginPhase::Proving(Box::new(proving));
        }
        self.step(key, step, &out);
    }

    /// A message of the proof. `None`: more is needed, or it is over.
    fn proof(&mut self, key: Key, data: &[u8]) -> Option<usize> {
        let header = match frame::header(data) {
            Ok(header) => header?,
            Err(error) => {
                self.refuse_wire(key, &error);
                return None;
            }
        };
        if header.tag != b'p' || header.len > LOGIN_BYTES_MAX {
            let text = "expected a password response";
            self.refuse_and_end(key, Refusal::Protocol, text);
            return None;
        }
        let body = data.get(HEADER_BYTES..header.len)?;
        let client = self.clients.get_mut(key)?;
        let State::Login(login) = &mut client.state else { return None };
        let LoginPhase::Proving(proving) = &mut login.phase else { return None };
        let mut out = Vec::new();
        let step = proving.message(header.tag, body, &mut out);
        self.step(key, step, &out);
        self.clients.get(key).is_some().then_some(header.len)
    }

    fn step(&mut self, key: Key, step: Step, out: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        // That the proof was right is said with what comes of it: one write, and one waking of the client.
        if client.wire.keep_back(out).is_err() {
            self.client_gone(key);
            return;
        }
        self.after_step(key, step);
        self.send_kept(key);
    }

    /// Sends what was kept back, if nothing else was sent since.
    fn send_kept(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.wire.is_blocked()
            && client.wire.flush(self.poll.registry(), key.token(Kind::Client)).is_err()
        {
            self.client_gone(key);
        }
    }

    fn after_step(&mut self, key: Key, step: Step) {
        match step {
            Step::Continue => self.leave_turn(key),
            Step::Derive(derivation) => {
                let Some(client) = self.clients.get_mut(key) else { return };
                let State::Login(login) = &mut client.state else { return };
                let phase = std::mem::replace(&mut login.phase, LoginPhase::LookingUp);
                let LoginPhase::Proving(proving) = phase else { return };
                if login.turn.is_some() {
                    login.phase = LoginPhase::Deriving(proving);
                    self.derive(key, derivation);
                    return;
                }
                login.phase = LoginPhase::Queued(Errand::Derive(Box::new((*proving, derivation))));
                self.login_queue.push_back(key);
                self.next_logins();
            }
            Step::Done(Authenticated { credential }) => {
                self.leave_turn(key);
                self.proven(key, credential);
            }
            Step::Refused(denial) => {
                if denial.refusal == Refusal::Authentication {
                    self.spoil(key);
                }
                self.shared.counters.refused(self.index, denial.refusal);
                self.log_refusal(key, denial.refusal, &denial.detail);
                self.send_kept(key);
                self.client_gone(key);
            }
        }
    }

    /// A kept secret did not serve: it may have changed.
    fn spoil(&self, key: Key) {
        let Some(State::Login(login)) = self.clients.get(key).map(|client| &client.state) else { return };
        let Some(asked_for) = &login.asked_for else { return };
        let (database, user) = (Arc::clone(&asked_for.database), Arc::clone(&asked_for.user));
        self.shared.users.failed(&LookupKey { database, user }, self.now);
    }

    /// The salted password a login waited for.
    pub(super) fn client_derived(&mut self, key: Key, salted: &SaltedPassword) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let State::Login(login) = &mut client.state else { return };
        let phase = std::mem::replace(&mut login.phase, LoginPhase::LookingUp);
        let LoginPhase::Deriving(mut proving) = phase else { return };
        let mut out = Vec::new();
        let step = proving.derived(salted, &mut out);
        login.phase = LoginPhase::Proving(proving);
        client.unread = true;
        self.step(key, step, &out);
        self.resume_soon(key);
    }

    /// The client is who it claims to be: may it come in, and what does its session hold?
    fn proven(&mut self, key: Key, credential: Arc<auth::Credential>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let State::Login(login) = &mut client.state else { return };
        let Some(asked_for) = login.asked_for.clone() else { return };
        login.phase = LoginPhase::Starting(credential);
        if asked_for.console {
            self.send_kept(key);
            self.open_console(key, &asked_for);
            return;
        }
        let Some(database) = asked_for.found.clone() else {
            let text = format!("database \"{}\" does not exist", asked_for.database);
            self.refuse_and_end(key, Refusal::UnknownDatabase, &text);
            return;
        };
        if self.shared.closing.load(Ordering::Relaxed) {
            self.refuse_and_end(key, Refusal::ShuttingDown, "the pooler is shutting down");
            return;
        }
        if database.disabled.load(Ordering::Relaxed) {
            let text = format!("database \"{}\" is disabled", asked_for.database);
            self.refuse_and_end(key, Refusal::DatabaseDisabled, &text);
            return;
        }
        match self.take_seat(key, &asked_for, &database) {
            Ok(()) => self.start(key, &asked_for),
            Err((refusal, text)) => self.refuse_and_end(key, refusal, &text),
        }
    }
}

/// How long a login may still take.
pub(super) fn is_overdue(client: &Client, deadline: Instant, now: Instant) -> bool {
    matches!(client.state, State::Login(_)) && now >= deadline
}

/// The operating system's name for a user.
fn user_name(uid: u32) -> Option<Arc<str>> {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok()??;
    Some(user.name.as_str().into())
}
