//! Clients with a server connection of their own: session mode, and replication.
//!
//! **Intuition.** In session mode nothing is looked into: the client talks to PostgreSQL, and only goodbyes and the ends
//! of exchanges are noticed. For that to be as direct, its server connection is opened with the client's own startup
//! parameters, which then are what RESET goes back to.
//!
//! **Mechanism.** A client without startup parameters takes any idle connection; one with some has one opened for it,
//! and closed after it. A replication connection is opened at login, since its protocol begins there.

use std::sync::Arc;

use super::{
    Worker,
    batch::Batch,
    client::State,
    refuse,
    server::{Phase, Pin},
    slab::Key,
    upstream::Step,
    waiters::{First, Waiter},
};
use crate::{refusal::Refusal, shared::Started};

impl Worker {
    /// The first message of a session: it gets its server connection for good.
    pub(super) fn lend_session(&mut self, key: Key, batch: &mut Batch<'_>) -> Step {
        let Some(client) = self.clients.get(key) else { return Step::Gone };
        let Some(seat) = client.seat.as_ref() else { return Step::Gone };
        if !seat.raw.is_empty() {
            self.want_own_server(key);
            return if self.clients.get(key).is_some() { Step::Wait } else { Step::Gone };
        }
        let first = First::default();
        let lending = self.want_server(key, &first, None);
        self.use_lent(key, lending, &first, batch)
    }

    /// Has a connection opened for one client, or waits for a place.
    pub(super) fn want_own_server(&mut self, key: Key) {
        if let Some(local) = self.wait_for_own(key) {
            self.seek(local);
        }
    }

    /// Puts a client in the queue of those who want a connection of their own; it waits since it first did.
    pub(super) fn wait_for_own(&mut self, key: Key) -> Option<usize> {
        let client = self.clients.get_mut(key)?;
        let seat = client.seat.as_ref()?;
        let (local, priority) = (seat.local, seat.priority);
        let waits_already = match &client.state {
            State::Login(login) => login.waiting_in().is_some(),
            state => matches!(state, State::Waiting),
        };
        if !waits_already {
            client.since = self.now;
        }
        client.queue = local;
        match &mut client.state {
            State::Login(login) => login.wait_in(local),
            state => *state = State::Waiting,
        }
        let since = client.since;
        let first = First { is_own: true, ..First::default() };
        let waiter = Waiter { key, since, first, read: None, hot: None };
        self.pools[local].waiters.push(priority, waiter);
        self.say_waiting(local);
        Some(local)
    }

    /// A free connection came to one who wants its own: it makes room for it.
    pub(super) fn swap_for_own(&mut self, key: Key, server_key: Key) {
        let local = self.servers.get(server_key).map(|server| server.local);
        self.close_server(server_key);
        let Some(local) = local else { return };
        let pool = Arc::clone(&self.pools[local].pool);
        match pool.take_place(std::time::Duration::ZERO) {
            Some(place) => {
                // If that fails at once, it waits again.
                let _ = self.connect(local, place, Some(key));
            }
            None => {
                self.wait_for_own(key);
            }
        }
    }

    /// The connection that was opened for a client.
    pub(super) fn own_server_opened(&mut self, key: Key, server_key: Key) {
        let Some(client) = self.clients.get(key) else {
            self.close_server(server_key);
            return;
        };
        let is_login = matches!(client.state, State::Login(_));
        if !is_login && !matches!(client.state, State::Waiting) {
            self.close_server(server_key);
            return;
        }
        let reports = self.servers.get_mut(server_key).map(|server| std::mem::take(&mut server.reports));
        if is_login {
            let reports = reports.unwrap_or_default();
            self.welcome(key, Started::plain(reports));
        }
        self.attach(key, server_key, None, std::time::Duration::ZERO);
        if let Some(server) = self.servers.get_mut(server_key) {
            server.pins.set(Pin::Session, true);
            server.phase = Phase::Lent;
        }
        if let Some(client) = self.clients.get_mut(key) {
            client.unread = true;
        }
        self.resume_soon(key);
    }

    /// It could not be opened.
    pub(super) fn own_server_failed(&mut self, key: Key, error: Option<&[u8]>) {
        match error {
            Some(error) => {
                let body = error.get(tenfold_pgwire::frame::HEADER_BYTES..).unwrap_or_default().to_vec();
                self.end_with(key, &body);
            }
            None => self.want_own_server(key),
        }
    }

    /// A check or a replay failed ahead of a client's first message.
    pub(super) fn preparing_failed(&mut self, server_key: Key, was_check: bool) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let Some(key) = server.client.take() else { return };
        let error = server.last_words.take();
        // A replica may not know what the primary does: a library's setting, for one.
        let is_at_replica = server.pool.replica.is_some();
        self.close_server(server_key);
        let Some(client) = self.clients.get_mut(key) else { return };
        client.state = State::Idle;
        client.to_primary |= is_at_replica;
        if was_check || is_at_replica {
            client.unread = true;
            self.resume_soon(key);
            return;
        }
        let own = refuse::error_body(Refusal::ServerLost, "the session's settings could not be restored");
        self.refuse_exchange(key, error.as_deref().unwrap_or(&own));
    }
}
