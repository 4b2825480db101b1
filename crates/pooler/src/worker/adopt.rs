//! Clients that come from this process's predecessor: they are in already, and hold a session.
//!
//! **Intuition.** What a login brings about step by step is there at once. No limit turns such a client away: it was let
//! in before.
//!
//! **Mechanism.** From what the predecessor told, the client is made as it would be between two transactions, its seat in
//! the pool of its user, its image and statements interned here. What this process does not know yet of the pool
//! (how its servers greet, what its users proved) it learns from the first client.
//!
//! **Failure.** A client of a database that is no longer configured is told so and ended, as is one whose session this
//! version cannot hold.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tenfold_service::acceptor::Accepted;
use tenfold_sql::Shape;

use super::{
    Worker,
    client::{Client, ClientKey, Counted, Held, Seat, State, Times},
    depart::image_of,
    slab::{Key, Kind},
    wire::{Socket, Wire},
};
use crate::{
    auth::{Credential, Lookup, LookupKey},
    config::{AuthMethod, Database as Spec, Mode, Password},
    counters::Counter,
    handover::{CaughtUp, Handed, HandedCredential, HandedStatement, PlanKey},
    image::Image,
    mailbox::Ask,
    pool::Pool,
    refusal::Refusal,
    shared::{Database, Started},
    statements::{self, Basis, Statement, Under},
};

/// States of definitions that another process numbered begin here.
const STATES_ELSEWHERE: u64 = 1 << 63;

impl Worker {
    /// A client of the predecessor.
    pub(super) fn adopt(&mut self, handed: &Handed, accepted: Accepted) {
        let wire = Wire::new(Socket::of(accepted.stream));
        let client =
            Client::new(self.shared.next_id(), wire, State::Idle, handed.secret, self.now, accepted.permit);
        let key = self.clients.insert_with(|_| client);
        let registry = self.poll.registry();
        let registered = self
            .clients
            .get_mut(key)
            .is_some_and(|client| client.wire.register(registry, key.token(Kind::Client), false).is_ok());
        if !registered {
            self.client_gone(key);
            return;
        }
        let name = handed.database.as_str();
        let Some(database) = self.shared.database(name) else {
            self.refuse_and_end(
                key,
                Refusal::UnknownDatabase,
                &format!("database \"{name}\" does not exist"),
            );
            return;
        };
        if self.seat_adopted(key, handed, &database).is_none() {
            let who = format!("{}@{name}", handed.user);
            self.shared.log_lost_client(&who, "its session cannot be held here");
            self.refuse_and_end(
                key,
                Refusal::ShuttingDown,
                "the session could not be carried over a restart",
            );
            return;
        }
        self.adopt_statements(key, handed, &database);
        self.shared.counters.count(self.index, Counter::TakenOver);
        self.look_again(key);
    }

    /// Gives it its seat and its image. `None` if that cannot be done.
    fn seat_adopted(&mut self, key: Key, handed: &Handed, database: &Arc<Database>) -> Option<()> {
        let user: Arc<str> = handed.user.as_str().into();
        let pool = self.shared.pool(database, &user)?;
        let spec = database.spec.load_full();
        let (settings, own) = self.shared.config.load().settings_of(&spec, &user);
        if let Some(credential) = &handed.credential {
            self.adopt_credential(&pool, &spec, &user, credential);
        }
        if let Some(welcome) = &handed.welcome
            && pool.welcome.load().is_none()
        {
            pool.welcomes(welcome.clone());
        }
        if !database.watched.swap(true, Ordering::AcqRel) {
            self.shared.ask(Ask::Watch { database: Arc::clone(database) });
        }
        let image = image_of(handed, &self.shared.images)?;
        let startup = self.started_elsewhere(&pool, handed)?;
        let welcome = pool.welcome.load_full();
        let fresh = welcome.as_deref().map(Vec::as_slice).unwrap_or_default();
        let unix_ms = self.shared.clock.unix_ms_at(self.now);
        let age = Duration::from_millis(unix_ms.saturating_sub(handed.connected_unix_ms));
        let seat = Seat {
            local: self.local(&pool),
            startup: Arc::clone(&startup),
            raw: Arc::clone(&startup.raw),
            priority: own.priority,
            session: settings.mode == Mode::Session,
            replication: None,
            listens: !handed.channels.is_empty(),
            times: Times::of(&settings),
            peer: handed.peer,
            connected: self.now.checked_sub(age).unwrap_or(self.now),
            connected_unix_ms: handed.connected_unix_ms,
            round: None,
            ahead: 0,
            identity_text: handed.identity.as_deref().map(Into::into),
            known_as: Some(self.shared.handover.keep_key(
                handed.process_id,
                handed.secret,
                (self.index, key.place),
            )),
            _counted: Counted::enter(&self.shared, &pool, &self.shared.user_count(&user)),
            user,
            pool,
        };
        let client = self.clients.get_mut(key)?;
        client.dialect = crate::started::dialect_of(&image, fresh);
        client.image = image;
        client.identity = handed.identity.as_deref().and_then(|text| database.split.identities.of(text));
        client.seat = Some(Box::new(seat));
        self.hold_again(key, handed)?;
        self.listen_for_adopted(key, handed, database);
        Some(())
    }

    /// A BEGIN that was answered is held here, too. `None` if this version takes it for something else.
    fn hold_again(&mut self, key: Key, handed: &Handed) -> Option<()> {
        let Some(body) = &handed.held else { return Some(()) };
        let sql = body.strip_suffix(b"\0")?;
        let decision = self.classify(key, sql);
        let Shape::Begin(begin) = decision.shape else { return None };
        let client = self.clients.get_mut(key)?;
        client.held = Some(Box::new(Held { body: body.as_slice().into(), begin, failed: false }));
        Some(())
    }

    fn listen_for_adopted(&mut self, key: Key, handed: &Handed, database: &Arc<Database>) {
        if handed.channels.is_empty() {
            return;
        }
        // It hears nothing before it has heard what it missed.
        let channels = || handed.channels.iter().map(|channel| Arc::<str>::from(channel.as_str()));
        self.shared.handover.join(self.index, ClientKey(key), channels(), handed.heard);
        let ask = Ask::Listen {
            worker: self.index,
            client: ClientKey(key),
            database: Arc::clone(database),
            channels: channels().collect(),
        };
        if !self.shared.ask(ask) {
            self.not_listening(key);
        }
    }

    /// The hub knows a client that came, and what it has missed.
    pub(super) fn catch_up(&mut self, key: Key, caught_up: &CaughtUp) {
        let seat = self.clients.get_mut(key).and_then(|client| client.seat.as_mut());
        let Some(seat) = seat.filter(|seat| seat.listens) else { return };
        seat.ahead = caught_up.ahead;
        if !self.listeners.contains(&key) {
            self.listeners.push(key);
        }
        for (channel, message) in &caught_up.missed {
            self.notify_one(key, channel, message);
        }
    }

    /// How its session began, as the predecessor found out.
    fn started_elsewhere(&self, pool: &Pool, handed: &Handed) -> Option<Arc<Started>> {
        if let Some(started) = pool.started(&handed.startup) {
            return Some(started);
        }
        let began: Vec<_> =
            handed.began.iter().map(|(name, value)| (name.as_str().into(), Some(value.clone()))).collect();
        let image = self.shared.images.with_settings(&Image::empty(), &began).ok()?;
        let started = Started::new(image, handed.reports.clone(), Arc::new(handed.startup.clone()));
        pool.remember(Arc::clone(&started));
        Some(started)
    }

    /// What proves the client's user to the server, if nobody here has shown it yet.
    fn adopt_credential(&self, pool: &Pool, spec: &Spec, user: &Arc<str>, handed: &HandedCredential) {
        if spec.user.is_some() || pool.credential.load().is_some() {
            return;
        }
        let key = LookupKey { database: Arc::clone(&pool.database.name), user: Arc::clone(user) };
        let stored = handed.stored.as_deref().map(Password::new);
        let users = &self.shared.users;
        let look_up = || users.lookup(Some(spec), &key, AuthMethod::ScramSha256, self.now);
        let mut found = look_up();
        if let (Lookup::Ask(_), Some(stored)) = (&found, &stored) {
            // The predecessor's answer is as good as one of our own of just now.
            users.answered(key.clone(), Some(stored.clone()), self.now);
            found = look_up();
        }
        let credential = match found {
            Lookup::Found { credential, .. } if credential.is_of(stored.as_ref()) => credential,
            _ => Arc::new(Credential::new(Arc::clone(user), stored)),
        };
        credential.take_over(handed);
        pool.credential.store(Some(credential));
    }

    fn adopt_statements(&mut self, key: Key, handed: &Handed, database: &Arc<Database>) {
        let is_hashed_alike = handed.rows_hashed_as == statements::rows_hashed_as();
        for (name, statement) in &handed.statements {
            let statement = self.adopt_statement(key, statement, database, is_hashed_alike);
            if let Some(client) = self.clients.get_mut(key) {
                // It had no more before, and each name once.
                let _ = client.statements.insert(name, statement);
            }
        }
        if let Some(unnamed) = &handed.unnamed {
            let statement = self.adopt_statement(key, unnamed, database, is_hashed_alike);
            if let Some(client) = self.clients.get_mut(key) {
                client.unnamed = Some(statement);
            }
        }
    }

    fn adopt_statement(
        &mut self,
        key: Key,
        handed: &HandedStatement,
        database: &Arc<Database>,
        is_hashed_alike: bool,
    ) -> Arc<Statement> {
        let own = self.clients.get(key).map_or(0, |client| client.image.plan_key());
        let plan_key = match handed.plan_key {
            PlanKey::Fresh => 0,
            PlanKey::Own => own,
            PlanKey::Other(other) => other,
        };
        let definitions = match handed.definitions {
            Some(state) => state | STATES_ELSEWHERE,
            None => database.definitions.state(),
        };
        let decision = self.classify(key, &handed.text);
        let catalogue = Arc::clone(&database.definitions.catalogue());
        let path = self.path_of(key).map_or(0, |path| path.id());
        let (under, basis) = (Under { plan_key, definitions }, Basis::new(&catalogue, path));
        let statement = self.shared.statements.intern(&handed.text, &handed.types, under, basis, decision);
        if handed.is_proven {
            statement.prove();
        }
        if is_hashed_alike && handed.rows != 0 {
            statement.told_elsewhere(handed.rows);
        }
        statement
    }
}
