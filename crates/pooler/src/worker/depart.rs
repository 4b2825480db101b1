//! Clients go to a successor of this process: those at rest at once, the others when they come to rest.
//!
//! **Intuition.** Between two transactions a client is a socket and what is known of its session. Whoever holds nothing
//! here that cannot be told leaves; the rest is served here to its end.
//!
//! **Mechanism.** When the handing over begins, all clients are looked at once ([`Worker::sweep`]); later each that gives
//! its server connection back, before anything else is read from it, and everybody again once a second. A client becomes
//! a frame with its socket, which is closed here once the frame is on its way.
//!
//! **Failure.** What stays: clients with TLS, pinned ones, sessions and replication, those in the middle of a message or
//! a transaction. If the successor takes no more frames for now, the client stays until the next look.

use std::{collections::BTreeSet, sync::Arc};

use tenfold_service::handover::{BODY_BYTES_MAX, Frame};

use super::{
    Worker,
    cancel::process_id,
    client::{Client, ClientKey, State},
    slab::Key,
};
use crate::{
    counters::Counter,
    handover::{self, Handed, HandedStatement, PlanKey},
    image::{Image, Pair},
    mailbox::Ask,
    shared::Database,
    statements::{self, Statement},
};

/// How far the handing over is.
#[derive(Debug, Default)]
pub(super) struct Departures {
    is_on: bool,
    /// All clients are to be looked at.
    is_due: bool,
    /// They have been, once.
    is_swept: bool,
    /// Came to rest in this turn.
    released: Vec<Key>,
}

/// What became of the wish to hand a client over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    /// Gone, or not to go now.
    Done,
    /// The successor takes no more at once.
    Full,
}

impl Worker {
    /// A successor takes clients from here on, or no longer.
    pub(super) fn hand_clients_over(&mut self, on: bool) {
        self.departures = Departures { is_on: on, is_due: on, ..Departures::default() };
        self.sweep();
    }

    /// A client came to rest.
    #[inline]
    pub(super) fn may_depart(&mut self, key: Key) {
        if self.departures.is_on {
            self.departures.released.push(key);
        }
    }

    /// Those who came to rest in this turn go.
    #[inline]
    pub(super) fn depart_released(&mut self) {
        if self.departures.released.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.departures.released) {
            if self.depart(key) == Departure::Full {
                self.departures.is_due = true;
                return;
            }
        }
    }

    /// Has everybody looked at again.
    pub(super) fn depart_again(&mut self) {
        self.departures.is_due = self.departures.is_on;
    }

    /// Looks at everybody, if that is due.
    pub(super) fn sweep(&mut self) {
        if !std::mem::take(&mut self.departures.is_due) {
            return;
        }
        for key in self.clients.keys() {
            if self.depart(key) == Departure::Full {
                self.departures.is_due = true;
                return;
            }
        }
        if !self.departures.is_swept {
            self.departures.is_swept = self.shared.handover.swept();
            self.departures.is_due = !self.departures.is_swept;
        }
    }

    fn depart(&mut self, key: Key) -> Departure {
        if !self.is_at_rest(key) {
            return Departure::Done;
        }
        // What it should have heard meanwhile it hears from us; one that does not take it stays.
        self.tell_untold(key);
        if !self.is_at_rest(key) || !self.may_stop_listening(key) {
            return Departure::Done;
        }
        let Some(client) = self.clients.get(key) else { return Departure::Done };
        let (Some(handed), Some(socket)) = (self.handed(key, client), client.wire.share()) else {
            return Departure::Done;
        };
        let body = handed.encode().into_bytes();
        if body.len() > BODY_BYTES_MAX {
            return Departure::Done;
        }
        let frame = Frame { kind: handover::CLIENT, body, descriptor: Some(socket) };
        if !self.shared.handover.offer(frame) {
            return Departure::Full;
        }
        self.departed(key);
        Departure::Done
    }

    /// Whether a client holds nothing but its session.
    fn is_at_rest(&self, key: Key) -> bool {
        let Some(client) = self.clients.get(key) else { return false };
        let Some(seat) = client.seat.as_deref() else { return false };
        matches!(client.state, State::Idle)
            && seat.replication.is_none()
            && client.wire.tls().is_none()
            && !client.wire.is_blocked()
            && client.stash.is_empty()
            && client.passing == 0
            && !client.dropping
            && !client.skipping
            && client.turn.is_none()
            && !client.to_primary
            && client.bound.is_none()
            && client.behind.is_none()
            && client.held.as_ref().is_none_or(|held| !held.failed && client.person.is_none())
            && client.notifications.is_empty()
    }

    /// Whether a client listens to nothing, or can tell its successor from where on to listen. If not, that is begun.
    fn may_stop_listening(&mut self, key: Key) -> bool {
        let Some(client) = self.clients.get(key) else { return false };
        let Some(seat) = client.seat.as_deref() else { return false };
        if !seat.listens {
            return true;
        }
        let database = &seat.pool.database;
        let handover = &self.shared.handover;
        let now_ms = self.shared.ms(self.now);
        if seat.round.is_some_and(|(round, _)| handover.is_in_round(database, round, now_ms)) {
            return true;
        }
        // Whoever waits like it goes by the same round.
        let mut channels = BTreeSet::new();
        for other in self.listeners.iter().filter_map(|key| self.clients.get(*key)) {
            let is_alike = other
                .seat
                .as_ref()
                .is_some_and(|seat| Arc::ptr_eq(&seat.pool.database, database) && other.wire.tls().is_none());
            if is_alike {
                channels.extend(other.image.channels().cloned());
            }
        }
        handover.want_round(database, channels.iter(), &self.shared);
        false
    }

    /// What clients are told of these channels is counted from here on.
    pub(super) fn cut(&mut self, database: &Arc<Database>, round: u64, channels: &BTreeSet<Arc<str>>) {
        for key in &self.listeners {
            let Some(client) = self.clients.get_mut(*key) else { continue };
            let is_covered = client.image.channels().all(|channel| channels.contains(channel));
            let Some(seat) = client.seat.as_mut() else { continue };
            if is_covered && Arc::ptr_eq(&seat.pool.database, database) {
                seat.round = Some((round, 0));
            }
        }
        self.depart_again();
    }

    fn handed(&self, key: Key, client: &Client) -> Option<Handed> {
        let seat = client.seat.as_deref()?;
        let (pool, database) = (&seat.pool, &seat.pool.database);
        let plan_key = client.image.plan_key();
        let state = database.definitions.state();
        let statement = |statement: &Arc<Statement>| handed_statement(statement, plan_key, state);
        let known_as = seat.known_as.as_ref().map(|known| known.id);
        let is_passed_through = database.spec.load().user.is_none();
        let credential = pool.credential.load_full().filter(|_| is_passed_through);
        Some(Handed {
            peer: seat.peer,
            database: database.name.to_string(),
            user: seat.user.to_string(),
            startup: Vec::clone(&seat.raw),
            began: pairs(seat.startup.image.settings()),
            reports: seat.startup.reports.clone(),
            welcome: pool.welcome.load_full().map(|welcome| Vec::clone(&welcome)),
            credential: credential.map(|credential| credential.handed()),
            settings: pairs(client.image.settings()),
            prepared: pairs(client.image.prepared()),
            channels: client.image.channels().map(|channel| channel.to_string()).collect(),
            statements: client.statements.iter().map(|(name, of)| (name.to_vec(), statement(of))).collect(),
            unnamed: client.unnamed.as_ref().map(statement),
            rows_hashed_as: statements::rows_hashed_as(),
            held: client.held.as_ref().map(|held| held.body.to_vec()),
            identity: seat.identity_text.as_deref().map(<[u8]>::to_vec),
            process_id: known_as.unwrap_or_else(|| process_id(self.index, key.place)),
            secret: client.secret,
            connected_unix_ms: seat.connected_unix_ms,
            heard: seat.round,
        })
    }

    /// It is on its way: here it is no more, and its connection lives on.
    fn departed(&mut self, key: Key) {
        let Some(mut client) = self.clients.remove(key) else { return };
        let _ = client.wire.deregister(self.poll.registry());
        if let Some(seat) = client.seat.as_ref().filter(|seat| seat.listens) {
            self.listeners.retain(|listener| *listener != key);
            let database = Arc::clone(&seat.pool.database);
            self.shared.ask(Ask::Unlisten { worker: self.index, client: ClientKey(key), database });
        }
        self.untold.remove(&key);
        self.count_load(-1);
        self.shared.counters.count(self.index, Counter::HandedOver);
        self.give_spare(client.stash);
    }
}

fn pairs(of: &[Pair]) -> Vec<(String, String)> {
    of.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn handed_statement(statement: &Statement, plan_key: u64, state: u64) -> HandedStatement {
    let plan_key = match statement.plan_key() {
        0 => PlanKey::Fresh,
        own if own == plan_key => PlanKey::Own,
        other => PlanKey::Other(other),
    };
    HandedStatement {
        text: statement.text().to_vec(),
        types: statement.types().to_vec(),
        plan_key,
        definitions: Some(statement.definitions()).filter(|definitions| *definitions != state),
        is_proven: statement.is_proven(),
        rows: statement.rows(),
    }
}

/// The image that these parts make.
pub(super) fn image_of(handed: &Handed, images: &crate::image::Images) -> Option<Arc<Image>> {
    let settings: Vec<_> =
        handed.settings.iter().map(|(name, value)| (name.as_str().into(), value.clone())).collect();
    images.intern(&settings, &handed.prepared, &handed.channels).ok()
}
