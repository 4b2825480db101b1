//! A client that has proved itself takes its seat: limits, pool, and the session that its startup parameters make.
//!
//! **Mechanism.** Startup parameters are tried on a server once per distinct set and database ([`Worker::try_startup`]);
//! the image and the reports they lead to are remembered, so later clients with the same set need no server.
//!
//! **Failure.** A parameter that the server refuses is the client's FATAL error, as it would be without a pooler.

use std::sync::{Arc, atomic::Ordering};

use tenfold_pgwire::{backend::TransactionStatus, write};

use super::{
    Worker,
    cancel::process_id,
    client::{Counted, Seat, State, Times},
    login::{AskedFor, LoginPhase},
    server::{Phase, Probing, Why},
    slab::Key,
    waiters::{First, Waiter},
};
use crate::{
    config::Mode,
    counters::Counter,
    image::{Image, Needs, replay},
    mailbox::Ask,
    probe::{Found, Reader, Wanted},
    refusal::Refusal,
    shared::{Database, Started},
};

/// BackendKeyData and ReadyForQuery.
const GREETING_REST_BYTES: usize = 32;

impl Worker {
    /// Counts the client in, if there is room.
    pub(super) fn take_seat(
        &mut self,
        key: Key,
        asked_for: &AskedFor,
        database: &Arc<Database>,
    ) -> Result<(), (Refusal, String)> {
        let too_many = |refusal, what: &str| (refusal, format!("too many clients of {what} already"));
        let pool = self
            .shared
            .pool(database, &asked_for.user)
            .ok_or_else(|| too_many(Refusal::DatabaseClientsMax, "different users"))?;
        let spec = database.spec.load();
        let (settings, own) = self.shared.config.load().settings_of(&spec, &asked_for.user);
        let user = self.shared.user_count(&asked_for.user);
        let counted = Counted::enter(&self.shared, &pool, &user);
        if self.shared.clients.load(Ordering::Relaxed) > self.shared.config.load().clients_max {
            return Err((Refusal::ClientsMax, "sorry, too many clients already".to_owned()));
        }
        if settings.clients_max > 0 && database.clients.load(Ordering::Relaxed) > settings.clients_max {
            return Err(too_many(Refusal::DatabaseClientsMax, &format!("database \"{}\"", database.name)));
        }
        let all = self.shared.config.load().user_limit(&asked_for.user);
        let in_database = own.clients_max.is_some_and(|max| pool.clients.load(Ordering::Relaxed) > max);
        if in_database || all.is_some_and(|max| user.clients.load(Ordering::Relaxed) > max) {
            return Err(too_many(Refusal::UserClientsMax, &format!("user \"{}\"", asked_for.user)));
        }
        let local = self.local(&pool);
        let session = settings.mode == Mode::Session || asked_for.replication.is_some();
        let Some(client) = self.clients.get_mut(key) else { return Ok(()) };
        let State::Login(login) = &client.state else { return Ok(()) };
        let LoginPhase::Starting(credential) = &login.phase else { return Ok(()) };
        if spec.user.is_none() && credential.has_secret() {
            pool.credential.store(Some(Arc::clone(credential)));
        }
        if !database.watched.swap(true, Ordering::AcqRel) {
            self.shared.ask(Ask::Watch { database: Arc::clone(database) });
        }
        client.seat = None;
        let seat = Seat {
            pool,
            local,
            user: Arc::clone(&asked_for.user),
            startup: Started::plain(Vec::new()),
            raw: Arc::new(asked_for.startup.clone()),
            priority: own.priority,
            session,
            replication: asked_for.replication.clone(),
            listens: false,
            times: Times::of(&settings),
            peer: login.peer,
            connected: self.now,
            connected_unix_ms: self.shared.clock.unix_ms_at(self.now),
            round: None,
            ahead: 0,
            identity_text: None,
            known_as: None,
            _counted: counted,
        };
        client.seat = Some(Box::new(seat));
        Ok(())
    }

    /// The session's beginning: known from an earlier client, or tried on a server.
    pub(super) fn start(&mut self, key: Key, asked_for: &AskedFor) {
        let seat = self.clients.get(key).and_then(|client| client.seat.as_ref());
        let Some(pool) = seat.map(|seat| Arc::clone(&seat.pool)) else { return };
        if asked_for.replication.is_some() {
            self.want_own_server(key);
            return;
        }
        let known = pool.started(&asked_for.startup);
        if let (Some(started), Some(_)) = (known, pool.welcome.load().as_ref()) {
            self.welcome(key, started);
            return;
        }
        self.wait_to_start(key);
    }

    /// Puts a client in the queue of those whose startup parameters are to be tried.
    pub(super) fn wait_to_start(&mut self, key: Key) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(seat) = &client.seat else { return };
        let (local, priority) = (seat.local, seat.priority);
        if let State::Login(login) = &mut client.state {
            login.waiting_in = Some(local);
        }
        let first = First { is_startup: true, ..First::default() };
        self.pools[local].waiters.push(priority, Waiter { key, since: now, first, read: None, hot: None });
        self.say_waiting(local);
        self.seek(local);
    }

    /// A server is there to try a client's startup parameters on. False if it was not needed.
    pub(super) fn try_startup(&mut self, key: Key, server_key: Key) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return false };
        if let State::Login(login) = &mut client.state {
            login.waiting_in = None;
        }
        let Some(seat) = client.seat.as_ref() else { return false };
        let pool = Arc::clone(&seat.pool);
        let raw = Arc::clone(&seat.raw);
        if let Some(started) = pool.started(&raw) {
            // Another client of the same kind was first.
            self.welcome(key, started);
            return false;
        }
        let settings: Vec<(Arc<str>, Option<String>)> =
            raw.iter().map(|(name, value)| (name.as_str().into(), Some(value.clone()))).collect();
        let Ok(image) = self.shared.images.with_settings(&Image::empty(), &settings) else {
            self.refuse_and_end(
                key,
                Refusal::StartupParameter,
                "the startup parameters are too many, or too long",
            );
            return false;
        };
        let Some(server) = self.servers.get_mut(server_key) else { return false };
        server.client = Some(key);
        server.phase = Phase::Preparing;
        server.touched = self.now;
        server.reports.clear();
        if let Some(replay) = replay(&server.image, &image, Needs::default(), &self.shared.images) {
            server.image = replay.after;
            for _ in 0..replay.queries {
                server.push_ours(Why::Startup);
            }
            self.send_server(server_key, &replay.messages);
        } else {
            self.startup_tried(server_key, false);
        }
        true
    }

    /// The server took the parameters, or did not.
    pub(super) fn startup_tried(&mut self, server_key: Key, failed: bool) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let Some(key) = server.client else { return };
        if !failed && !server.due.is_empty() {
            return;
        }
        if failed {
            let error = server.last_words.take().unwrap_or_default();
            server.client = None;
            self.close_server(server_key);
            self.end_with(key, &error);
            return;
        }
        let raw =
            self.clients.get(key).and_then(|client| client.seat.as_ref()).map(|seat| Arc::clone(&seat.raw));
        let mut wanted = Wanted::default();
        for (name, _) in raw.iter().flat_map(|raw| raw.iter()) {
            // More than can be asked for was refused above.
            let _ = wanted.add_setting(name);
        }
        let mut out = Vec::new();
        write::query(&mut out, &wanted.sql());
        let Some(server) = self.servers.get_mut(server_key) else { return };
        server.phase = Phase::Settling(Box::new(Probing { wanted, reader: Reader::default() }));
        server.push_ours(Why::Probe);
        self.send_server(server_key, &out);
    }

    /// What the parameters led to.
    pub(super) fn startup_probed(&mut self, server_key: Key, found: Option<Found>) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let Some(key) = server.client.take() else { return };
        let reports = std::mem::take(&mut server.reports);
        let image =
            found.and_then(|found| self.shared.images.with_settings(&Image::empty(), &found.settings).ok());
        let Some(image) = image else {
            self.close_server(server_key);
            self.refuse_and_end(
                key,
                Refusal::StartupParameter,
                "the startup parameters could not be read back",
            );
            return;
        };
        server.image = Arc::clone(&image);
        let raw =
            self.clients.get(key).and_then(|client| client.seat.as_ref()).map(|seat| Arc::clone(&seat.raw));
        let started = Started::new(image, reports, raw.unwrap_or_default());
        if let Some(seat) = self.clients.get(key).and_then(|client| client.seat.as_ref()) {
            seat.pool.remember(Arc::clone(&started));
        }
        self.give(server_key);
        self.welcome(key, started);
    }

    /// Somebody's login made the reports of a fresh connection known: those who need nothing else come in.
    pub(super) fn welcome_known(&mut self, local: usize) {
        let ready: Vec<Key> = self.pools[local]
            .waiters
            .iter()
            .filter(|waiter| waiter.first.is_startup)
            .map(|waiter| waiter.key)
            .collect();
        for key in ready {
            let Some(seat) = self.clients.get(key).and_then(|client| client.seat.as_ref()) else { continue };
            if let Some(started) = seat.pool.started(&seat.raw) {
                self.pools[local].waiters.remove(key);
                self.say_waiting(local);
                self.welcome(key, started);
            }
        }
    }

    /// The client is in: its parameters, its key, ready.
    pub(super) fn welcome(&mut self, key: Key, started: Arc<Started>) {
        let worker = self.index;
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(seat) = client.seat.as_mut() else { return };
        let fresh = seat.pool.welcome.load_full();
        let user = seat.pool.database.spec.load().user.is_none().then(|| Arc::clone(&seat.user));
        let greeting = started.greeting(fresh, user);
        let mut out = Vec::with_capacity(greeting.parameters.len() + GREETING_REST_BYTES);
        out.extend_from_slice(&greeting.parameters);
        write::backend_key_data(&mut out, process_id(worker, key.place), &client.secret);
        write::ready_for_query(&mut out, TransactionStatus::Idle);
        client.image = Arc::clone(&started.image);
        client.dialect = greeting.dialect;
        if seat.raw == started.raw {
            // One copy for all clients of the same kind.
            seat.raw = Arc::clone(&started.raw);
        }
        seat.startup = started;
        client.state = State::Idle;
        client.since = self.now;
        let client_is_tls = client.wire.tls().is_some();
        self.shared.counters.count(self.index, Counter::Logins);
        self.log_login(key);
        if client_is_tls {
            // The session may hold what the socket no longer tells of.
            self.look_again(key);
        }
        if self.send_client(key, &out) {
            self.resume_soon(key);
        }
        if !self.login_queue.is_empty() {
            self.next_logins();
        }
    }

    /// The console: its answers come through a socket of this process, as if it were a server.
    pub(super) fn open_console(&mut self, key: Key, asked_for: &AskedFor) {
        let config = self.shared.config.load();
        let is_admin = config.admin_users.iter().any(|name| **name == *asked_for.user);
        let is_viewer = config.stats_users.iter().any(|name| **name == *asked_for.user);
        if !is_admin && !is_viewer {
            let text = "only users of admin_users and stats_users may use the console";
            self.refuse_and_end(key, Refusal::Authentication, text);
            return;
        }
        let Some(mut client) = self.clients.remove(key) else { return };
        let _ = client.wire.deregister(self.poll.registry());
        self.count_load(-1);
        let (id, user) = (client.id, Arc::clone(&asked_for.user));
        let ask = |stream, permit| Ask::Console { stream, permit, user, admin: is_admin, id };
        // A console that cannot be reached drops the socket, which ends the client.
        match client.wire.into_stream() {
            Ok(stream) => {
                self.shared.ask(ask(stream, Some(client.permit)));
            }
            Err(wire) => {
                if let Some(stream) = self.open_pump(wire, client.permit, &client.stash) {
                    self.shared.ask(ask(stream, None));
                }
            }
        }
    }
}

impl Times {
    pub(super) fn of(settings: &crate::config::PoolSettings) -> Self {
        Self {
            query: settings.query_timeout,
            idle_in_transaction: settings.idle_in_transaction,
            transaction: settings.transaction_timeout,
            client_idle: settings.client_idle,
        }
    }
}
