//! The end of a connection, on either side: what the other side hears, and what is cleaned up.
//!
//! **Intuition.** A client that goes in the middle of something must not take its server connection along, and a server
//! that goes must not take its client along where the client can be told what happened.
//!
//! **Mechanism.** A server connection whose client has gone is *abandoned*: what runs is cancelled, its answers are
//! dropped, then ROLLBACK, then DISCARD ALL if the session held anything, and back to the pool. A client whose server
//! has gone gets the server's own last error, or what its other connections were told at that time; its connection
//! stays, unless it was in a transaction block, which a script that ignores errors would go on with outside of any, or
//! part of a message was passed on already, or more than one answer is due, or the server was its own: then it ends, as
//! a direct connection does, after that error as FATAL.
//!
//! **Failure.** Where the state of a server connection cannot be known, it is closed.

use std::sync::Arc;

use tenfold_pgwire::{backend::TransactionStatus, write};
use tenfold_sql::Effects;

use super::{
    Worker,
    client::{Client, ClientKey, State},
    refuse,
    server::{Due, Ours, Phase, Pins, Server, Why},
    slab::Key,
    stats::Stat,
    wire::{Got, Wire},
};
use crate::{
    counters::Counter,
    image::Image,
    mailbox::{Ask, Order},
    refusal::Refusal,
    report::Pause,
    shared::Database,
};

impl Worker {
    /// A client said goodbye: as at PostgreSQL itself, what it asked for before is done.
    pub(super) fn client_leaves(&mut self, key: Key) {
        self.client_ends(key, true);
    }

    /// A client is no more, for whatever reason.
    pub(super) fn client_gone(&mut self, key: Key) {
        self.client_ends(key, false);
    }

    fn client_ends(&mut self, key: Key, is_goodbye: bool) {
        let Some(mut client) = self.clients.remove(key) else { return };
        if client.unread {
            drop_unread(&mut client.wire);
        }
        // Closing the socket, below, takes it out of the event loop as well.
        client.wire.close_notify();
        if let Some(seat) = &client.seat
            && seat.listens
        {
            self.listeners.retain(|listener| *listener != key);
            let database = Arc::clone(&seat.pool.database);
            self.shared.ask(Ask::Unlisten { worker: self.index, client: ClientKey(key), database });
        }
        self.count_load(-1);
        self.forget_waiting(key, &client);
        if let Some(permit) = client.turn.take() {
            self.leave_row(permit);
        }
        if let State::Active(server) = client.state {
            self.abandon(server, &client, is_goodbye);
        }
        self.give_spare(client.stash);
    }

    fn forget_waiting(&mut self, key: Key, client: &Client) {
        let local = match &client.state {
            State::Waiting => Some(client.queue),
            State::Login(login) => login.waiting_in(),
            _ => None,
        };
        let Some(local) = local else { return };
        if let Some(waiter) = self.pools[local].waiters.remove(key) {
            self.say_waiting(local);
            if let Some(permit) = waiter.hot {
                self.leave_row(permit);
            }
        }
    }

    /// The client of a server connection has gone.
    fn abandon(&mut self, key: Key, client: &Client, is_goodbye: bool) {
        self.leave_hot(key);
        let Some(server) = self.servers.get_mut(key) else { return };
        server.client = None;
        let is_torn = client.passing > 0 || !server.prefix.is_empty();
        if is_torn
            || server.is_opening()
            || client.seat.as_ref().is_some_and(|seat| seat.replication.is_some())
        {
            self.close_server(key);
            return;
        }
        let was_listening = matches!(server.phase, Phase::Settling(_) | Phase::Listening);
        if was_listening {
            server.effects |= Effects::UNKNOWN;
        }
        server.phase = Phase::Abandoned;
        server.may_finish = is_goodbye;
        server.since = self.now;
        let runs = server.due.iter().any(Due::is_clients);
        let mut out = Vec::new();
        if server.copying_in {
            write::copy_fail(&mut out, b"the client has gone");
            server.copying_in = false;
        }
        if server.in_series || server.skipping {
            if !server.skipping {
                // Sync would commit what the client did not.
                server.fail_series(&mut out);
            }
            write::sync(&mut out);
            server.due.push_back(Due::Sync);
            server.in_series = false;
            server.skipping = false;
        }
        self.send_server(key, &out);
        if runs && !is_goodbye {
            self.cancel_server(key, None);
        }
        if self.servers.get(key).is_some_and(|server| server.due.is_empty()) {
            self.abandoned_goes_on(key);
        }
    }

    /// A client went before its last messages were sent, of which the replies are noted already.
    pub(super) fn unsent(&mut self, key: Key) {
        if self.servers.get(key).is_some_and(|server| matches!(server.phase, Phase::Abandoned)) {
            self.close_server(key);
        }
    }

    /// A query of ours has ended on an abandoned server connection.
    pub(super) fn abandoned_answered(&mut self, key: Key, ours: &Ours) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let mut cleaned = false;
        match ours.why {
            Why::Replay(ref image) | Why::ReplayAhead(ref image) if !ours.failed => {
                server.image = Arc::clone(image);
            }
            Why::Rollback | Why::Clean if ours.failed => {
                self.close_server(key);
                return;
            }
            Why::Clean => {
                is_clean(server);
                cleaned = true;
                self.session_cleaned(key);
            }
            _ => {}
        }
        self.clean(key, cleaned);
    }

    /// An abandoned server connection has answered: the next step of cleaning it.
    pub(super) fn abandoned_goes_on(&mut self, key: Key) {
        if let Some(server) = self.servers.get_mut(key) {
            server.touched = self.now;
        }
        self.clean(key, false);
    }

    fn clean(&mut self, key: Key, cleaned: bool) {
        let Some(server) = self.servers.get_mut(key) else { return };
        if !server.due.is_empty() {
            return;
        }
        if server.status != TransactionStatus::Idle {
            self.ask_server(key, b"ROLLBACK", Why::Rollback);
            return;
        }
        if server.tainted || server.startup.is_some() {
            self.close_server(key);
            return;
        }
        let harmless =
            Effects::WRITES.with(Effects::SEQUENCE_MAYBE).with(Effects::DDL).with(Effects::SEQUENCE_READ);
        let holds = !server.pins.is_empty() || !server.effects.without(harmless).is_empty();
        if holds && !cleaned {
            self.ask_server(key, b"DISCARD ALL", Why::Clean);
            return;
        }
        if !cleaned && !server.effects.is_empty() {
            server.sequences_of = u64::MAX;
        }
        self.tell_redefined(key);
        let Some(server) = self.servers.get_mut(key) else { return };
        server.forget_effects();
        server.owes_ready = false;
        server.owes_hub = false;
        if server.image.channels().len() > 0 {
            server.pins.set(super::Pin::Unknown, true);
            self.ask_server(key, b"DISCARD ALL", Why::Clean);
            return;
        }
        self.give(key);
    }

    fn ask_server(&mut self, key: Key, sql: &[u8], why: Why) {
        let Some(server) = self.servers.get_mut(key) else { return };
        server.push_ours(why);
        server.touched = self.now;
        let mut out = Vec::new();
        write::query(&mut out, sql);
        self.send_server(key, &out);
    }

    /// A server connection ended by itself.
    pub(super) fn server_gone(&mut self, key: Key) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let last_words = server.last_words.take();
        if server.is_opening() {
            let text = last_words
                .as_deref()
                .map_or_else(|| "the server closed the connection".to_owned(), refuse::message_of);
            self.opening_failed(key, &text, None);
            return;
        }
        let was_idle = matches!(server.phase, Phase::Idle);
        // A server that goes down may reset a connection before its words were read; its others heard them.
        let farewell = server.pool.database.farewell(self.now);
        self.lose(key, last_words.as_deref().or(farewell.as_deref()));
        if was_idle {
            // Where one goes others may; those that wait find out at once.
            self.shared.counters.count(self.index, Counter::ServersLost);
        }
    }

    /// Nothing on this connection can be trusted any more.
    pub(super) fn server_broken(&mut self, key: Key, why: &str) {
        if let Some(server) = self.servers.get(key) {
            self.shared.log_server_broken(&server.pool, why);
            if server.is_opening() {
                self.opening_failed(key, why, None);
                return;
            }
        }
        let last_words = self.servers.get_mut(key).and_then(|server| server.last_words.take());
        self.lose(key, last_words.as_deref());
    }

    /// A server does not answer what we ask of it.
    pub(super) fn server_hangs(&mut self, key: Key) {
        let Some(server) = self.servers.get(key) else { return };
        self.shared.log_server_broken(&server.pool, refuse::SERVER_HANGS);
        // If it waits for a lock it would go on doing so, though nobody is there any more.
        self.cancel_server(key, None);
        self.lose(key, Some(&refuse::error_body(Refusal::ServerLost, refuse::SERVER_HANGS)));
    }

    pub(super) fn lose(&mut self, key: Key, last_words: Option<&[u8]>) {
        self.leave_hot(key);
        let Some(mut server) = self.servers.remove(key) else { return };
        let _ = server.wire.deregister(self.poll.registry());
        let local = server.local;
        self.pools[local].idle.retain(|idle| *idle != key);
        self.say_idle(local);
        let pool = Arc::clone(&server.pool);
        if pool.replica.is_none() && server.effects.intersects(Effects::DDL) {
            // Nobody knows whether it was committed.
            self.shared.definitions_changed(&pool.database, true);
        }
        if let Some(replica) = &pool.replica {
            replica.doubt();
            self.shared.tell_all(|| Order::Positions { database: Arc::clone(&pool.database) });
        }
        if let Some(client) = server.client
            && !self.rerun_lost(client, &mut server)
        {
            self.lost_sight(client, &server);
            self.tell_lost(client, &server, last_words);
        }
        drop(server);
        if pool.replica.is_some() {
            self.leave_replica(local);
            return;
        }
        self.shared.ask(Ask::TargetFailed { database: Arc::clone(&pool.database) });
        self.seek(local);
    }

    /// Tells a client that its server has gone.
    fn tell_lost(&mut self, key: Key, server: &Server, last_words: Option<&[u8]>) {
        let own = refuse::error_body(Refusal::ServerLost, refuse::SERVER_LOST);
        let error = last_words.unwrap_or(&own);
        let Some(client) = self.clients.get_mut(key) else { return };
        let is_torn = server.passing > 0 && server.passing_on;
        if is_torn {
            self.client_gone_from(key);
            return;
        }
        if matches!(client.state, State::Login(_)) {
            // Its startup parameters are tried on another one, as long as its login may take.
            self.wait_to_start(key);
            return;
        }
        let ends = server.due.iter().filter(|due| matches!(due, Due::Query | Due::Sync)).count();
        // What was set is told nobody: the client would go on without it.
        let is_unsettled =
            server.unsettled || matches!(server.phase, Phase::Settling(_) | Phase::Unsure { .. });
        // A BEGIN that is still held goes with its first statement, to another server.
        let is_unbegun = matches!(server.phase, Phase::Preparing) && ends == 0 && !server.owes_ready;
        let is_session = client.seat.as_ref().is_none_or(|seat| seat.session);
        let is_read_of_held = server.is_away_in_held();
        let is_own = is_unsettled || server.pins.holds_anything() || is_session && !is_unbegun;
        // A client that believes in its transaction would go on outside of any.
        let has_begun = server.status != TransactionStatus::Idle
            || server.due.iter().any(|due| matches!(due, Due::Ours(ours) if matches!(ours.why, Why::Begin)));
        if is_own || has_begun || ends > 1 {
            let mut out = Vec::new();
            refuse::write_error(&mut out, error, true);
            self.send_client(key, &out);
            self.client_gone_from(key);
            return;
        }
        client.state = State::Idle;
        client.since = self.now;
        if is_read_of_held {
            if let (Some(held), false) = (&mut client.held, is_unbegun) {
                held.failed = true;
            }
        } else if !is_unbegun {
            client.held = None;
        }
        let status = client.status_without_server();
        let mut out = Vec::new();
        let owes = server.owes_client() || server.owes_ready || matches!(server.phase, Phase::Preparing);
        if ends == 1 || server.owes_ready {
            refuse::write_error(&mut out, error, false);
            write::ready_for_query(&mut out, status);
            if server.in_series {
                // The next series has begun, which fails, too.
                refuse::write_error(&mut out, error, false);
                client.skipping = true;
            }
        } else if matches!(server.phase, Phase::Preparing) {
            // The message that began it all is still in the stash: it waits for another server.
        } else if owes || server.in_series {
            refuse::write_error(&mut out, error, false);
            client.skipping = true;
        }
        if self.send_client(key, &out) {
            if let Some(client) = self.clients.get_mut(key) {
                client.unread = true;
            }
            self.resume_soon(key);
        }
    }

    /// Ends a client whose server connection is gone already.
    fn client_gone_from(&mut self, key: Key) {
        if let Some(client) = self.clients.get_mut(key) {
            client.state = State::Idle;
        }
        self.client_gone(key);
    }

    /// Closes a server connection that serves nobody.
    pub(super) fn close_server(&mut self, key: Key) {
        self.leave_hot(key);
        let Some(mut server) = self.servers.remove(key) else { return };
        let mut out = Vec::new();
        write::terminate(&mut out);
        let _ = server.wire.send(self.poll.registry(), key.token(super::Kind::Server), &out);
        server.wire.close_notify();
        let _ = server.wire.deregister(self.poll.registry());
        let local = server.local;
        if server.is_opening() {
            self.pools[local].connecting = self.pools[local].connecting.saturating_sub(1);
        }
        self.pools[local].idle.retain(|idle| *idle != key);
        self.say_idle(local);
        drop(server);
        if !self.pools[local].waiters.is_empty() {
            self.pools[local].wants_seek = true;
        }
    }

    /// In session mode the client has nothing running: it may be told of a shutdown, but keeps its server.
    pub(super) fn session_idle(&mut self, key: Key) {
        self.note_seen(key);
        let Some(server) = self.servers.get_mut(key) else { return };
        server.transaction_since = None;
        let local = server.local;
        self.pools[local].stats[Stat::Transactions] += 1;
        self.close_fast(key);
    }

    /// Closes a database's clients and servers at once.
    pub(super) fn kill(&mut self, database: Option<&Arc<Database>>) {
        let is_meant = |other: &Arc<Database>| database.is_none_or(|database| Arc::ptr_eq(database, other));
        for key in self.clients.keys() {
            let seat = self.clients.get(key).and_then(|client| client.seat.as_ref());
            if seat.is_some_and(|seat| is_meant(&seat.pool.database)) {
                self.refuse_and_end(key, Refusal::Killed, "terminated at the console");
            }
        }
        for key in self.servers.keys() {
            if self.servers.get(key).is_some_and(|server| is_meant(&server.pool.database)) {
                self.close_server(key);
            }
        }
    }

    pub(super) fn kill_client(&mut self, id: u64) {
        let key =
            self.clients.keys().into_iter().find(|key| self.clients.get(*key).is_some_and(|c| c.id == id));
        if let Some(key) = key {
            self.refuse_and_end(key, Refusal::Killed, "terminated at the console");
        }
    }

    /// Closes idle connections that were opened before a change.
    pub(super) fn replace_idle(&mut self, database: Option<&Arc<Database>>) {
        for local in 0..self.pools.len() {
            let pool = &self.pools[local].pool;
            if database.is_some_and(|database| !Arc::ptr_eq(database, &pool.database)) {
                continue;
            }
            for key in self.pools[local].idle.clone() {
                if self.must_close(key) {
                    self.close_server(key);
                }
            }
            self.seek(local);
        }
    }

    /// Nothing new is taken; who is idle is sent home, who is in a transaction may finish it.
    pub(super) fn drain(&mut self) {
        self.is_draining = true;
        for key in self.clients.keys() {
            let is_idle = self.clients.get(key).is_some_and(|client| match client.state {
                State::Idle => client.held.is_none() && client.stash.is_empty(),
                State::Active(server) => self.servers.get(server).is_some_and(|server| {
                    server.status == TransactionStatus::Idle && server.due.is_empty() && !server.in_series
                }),
                State::Login(_) => true,
                // It waits for what will not come.
                State::Waiting | State::Parked(_) | State::Behind(_) => {
                    self.shared.desk.pause() != Pause::Active
                }
            });
            if is_idle {
                self.refuse_and_end(key, Refusal::ShuttingDown, "the pooler is shutting down");
            }
        }
    }
}

/// Reads what a client sent and nobody will look at: a socket that is closed with something unread is reset, and its
/// last words with it.
pub(super) fn drop_unread(wire: &mut Wire) {
    const READS_MAX: usize = 64;
    let mut unread = [0; 4_096];
    for _ in 0..READS_MAX {
        if !matches!(wire.read(&mut unread), Ok(Got::Bytes { .. })) {
            return;
        }
    }
}

/// A session of which nothing is left.
fn is_clean(server: &mut Server) {
    server.image = Image::empty();
    server.statements.clear();
    server.aliases.clear();
    server.unnamed = 0;
    server.pins = Pins::default();
    server.sequences_of = 0;
}
