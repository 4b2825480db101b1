//! Limits of time, looked at twenty times a second: logins, waits, statements, transactions, idleness.
//!
//! **Mechanism.** Whoever waits stands in a queue in the order of its deadline, so only the first is looked at; those
//! that hold a server are few, so all are; idle clients are looked at a slice per tick. What the pooler itself asks of a
//! server (checks, replays, probes, ROLLBACK, DISCARD) has to be answered within `connect_timeout`, as its login has.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use tenfold_pgwire::backend::TransactionStatus;

use super::{
    Worker,
    client::State,
    login::is_overdue,
    refuse,
    server::{Due, Phase, Server},
    slab::Key,
};
use crate::refusal::Refusal;

/// Idle clients looked at per tick.
const IDLE_PER_TICK: usize = 2_048;

impl Worker {
    /// Twenty times a second.
    pub(super) fn tick(&mut self) {
        self.tick_logins();
        self.tick_behind();
        self.next_logins();
        for local in 0..self.pools.len() {
            self.tick_waiters(local);
            if std::mem::take(&mut self.pools[local].wants_seek) || !self.pools[local].waiters.is_empty() {
                self.seek(local);
            }
        }
        self.tick_servers();
        self.tick_cancels();
        self.tick_idle_clients();
        self.tick_untold();
        if self.now >= self.next_second {
            self.next_second = self.now + Duration::from_secs(1);
            self.each_second();
            self.depart_again();
        }
        self.sweep();
        if self.is_draining {
            self.drain();
        }
        self.publish();
    }

    fn tick_logins(&mut self) {
        while let Some(&(deadline, key)) = self.logins.front() {
            let client = self.clients.get(key);
            if client.is_some_and(|client| matches!(client.state, State::Login(_))) {
                if !client.is_some_and(|client| is_overdue(client, deadline, self.now)) {
                    return;
                }
                self.refuse_and_end(key, Refusal::LoginTimeout, "the login took too long");
            }
            self.logins.pop_front();
        }
    }

    fn tick_waiters(&mut self, local: usize) {
        let limit = self.pools[local].pool.settings.load().query_wait;
        if limit.is_zero() {
            return;
        }
        let notify = self.shared.config.load().query_wait_notify;
        let now = self.now;
        let overdue: Vec<Key> = self.pools[local]
            .waiters
            .iter()
            .filter(|waiter| now.saturating_duration_since(waiter.since) >= limit)
            .map(|waiter| waiter.key)
            .collect();
        for key in overdue {
            self.waited_too_long(key, local);
        }
        if !notify.is_zero() {
            self.notify_waiters(local, notify);
        }
    }

    fn waited_too_long(&mut self, key: Key, local: usize) {
        if let Some(waiter) = self.pools[local].waiters.remove(key)
            && let Some(permit) = waiter.hot
        {
            self.leave_row(permit);
        }
        self.say_waiting(local);
        let text = "no server connection came free in time (query_wait)";
        let failure = self.pools[local].pool.last_failure();
        let text = failure.map_or_else(|| text.to_owned(), |failure| format!("{text}; {failure}"));
        if self.clients.get(key).is_some_and(|client| !client.is_logged_in()) {
            self.refuse_and_end(key, Refusal::QueryWait, &text);
            return;
        }
        self.shared.counters.refused(self.index, Refusal::QueryWait);
        self.log_refusal(key, Refusal::QueryWait, &text);
        self.refuse_exchange(key, &refuse::error_body(Refusal::QueryWait, &text));
    }

    /// Tells those who begin to wait long that they do.
    fn notify_waiters(&mut self, local: usize, after: Duration) {
        let now = self.now;
        let until = after + super::TICK;
        let told: Vec<Key> = self.pools[local]
            .waiters
            .iter()
            .filter(|waiter| {
                let waited = now.saturating_duration_since(waiter.since);
                waited >= after && waited < until
            })
            .map(|waiter| waiter.key)
            .collect();
        for key in told {
            let mut out = Vec::new();
            let text = "No server connection available in postgres backend, client being queued";
            refuse::write_notice(&mut out, text);
            self.send_client(key, &out);
        }
    }

    fn tick_servers(&mut self) {
        for key in self.servers.keys() {
            let Some(server) = self.servers.get(key) else { continue };
            match &server.phase {
                Phase::Connecting(opening) | Phase::Negotiating(opening) | Phase::LoggingIn(opening) => {
                    if self.now >= opening.deadline {
                        self.opening_failed(key, "the server did not answer in time (connect_timeout)", None);
                    }
                }
                Phase::Idle => {}
                _ if self.is_silent(server) => self.server_hangs(key),
                Phase::Abandoned => self.tick_abandoned(key),
                _ => self.tick_lent(key),
            }
        }
    }

    /// Whether it has not answered in time what we ask of it ourselves. A client's own statement has all its time.
    fn is_silent(&self, server: &Server) -> bool {
        let is_asked = matches!(server.due.front(), Some(Due::Ours(_)));
        let limit = || server.pool.settings.load().connect_timeout;
        is_asked && self.now.saturating_duration_since(server.touched) >= limit()
    }

    fn tick_abandoned(&mut self, key: Key) {
        /// What was cancelled has this long to end.
        const GRACE: Duration = Duration::from_secs(30);
        let Some(server) = self.servers.get(key) else { return };
        if self.now.saturating_duration_since(server.since) >= GRACE {
            self.close_server(key);
            return;
        }
        // A cancel that came between two queries of a series has hit neither.
        if server.cancels == 0 && !server.may_finish && server.due.iter().any(Due::is_clients) {
            self.cancel_server(key, None);
        }
    }

    fn tick_lent(&mut self, key: Key) {
        if self.close_fast(key) {
            return;
        }
        let Some((refusal, text)) = self.overdue(key) else { return };
        let Some(client) = self.servers.get(key).and_then(|server| server.client) else { return };
        self.refuse_and_end(client, refusal, text);
    }

    fn overdue(&self, key: Key) -> Option<(Refusal, &'static str)> {
        let server = self.servers.get(key)?;
        let client = self.clients.get(server.client?)?;
        let times = client.seat.as_ref()?.times;
        let since = |at| self.now.saturating_duration_since(at);
        let is_over = |limit: Duration, at| !limit.is_zero() && since(at) >= limit;
        let runs = server.owes_client() || matches!(server.phase, Phase::Describing);
        if runs && is_over(times.query, server.touched) {
            return Some((Refusal::QueryTimeout, "query timeout"));
        }
        let is_in_transaction = server.status != TransactionStatus::Idle || server.in_series || server.torn;
        if !runs && is_in_transaction && is_over(times.idle_in_transaction, server.touched) {
            return Some((Refusal::IdleInTransaction, "idle transaction timeout"));
        }
        if server
            .transaction_since
            .is_some_and(|at| (runs || is_in_transaction) && is_over(times.transaction, at))
        {
            return Some((Refusal::TransactionTimeout, "transaction timeout"));
        }
        if !runs && !is_in_transaction && is_over(times.client_idle, server.touched) {
            return Some((Refusal::ClientIdle, "client idle timeout"));
        }
        None
    }

    fn tick_idle_clients(&mut self) {
        let keys = self.clients.keys_from(self.idle_scan, IDLE_PER_TICK);
        self.idle_scan += IDLE_PER_TICK;
        if self.idle_scan >= self.clients.places() {
            self.idle_scan = 0;
        }
        for key in keys {
            let Some(client) = self.clients.get(key) else { continue };
            let Some(seat) = client.seat.as_ref() else { continue };
            let idle = self.now.saturating_duration_since(client.since);
            let waited_for_row = matches!(client.state, State::Parked(_));
            let (limit, is_idle) = (seat.times.client_idle, matches!(client.state, State::Idle));
            let held_limit = seat.times.idle_in_transaction;
            if waited_for_row {
                let limit = seat.pool.settings.load().query_wait;
                if !limit.is_zero() && idle >= limit {
                    let text = "the row that the statement wants is held by others (query_wait)";
                    self.shared.counters.refused(self.index, Refusal::QueryWait);
                    self.refuse_exchange(key, &refuse::error_body(Refusal::QueryWait, text));
                }
            } else if is_idle && client.held.is_some() && !held_limit.is_zero() && idle >= held_limit {
                self.refuse_and_end(key, Refusal::IdleInTransaction, "idle transaction timeout");
            } else if is_idle && !limit.is_zero() && idle >= limit {
                self.refuse_and_end(key, Refusal::ClientIdle, "client idle timeout");
            }
        }
    }

    /// Idle connections that are too old or too many go; those that are too few come.
    fn each_second(&mut self) {
        for local in 0..self.pools.len() {
            let pool = Arc::clone(&self.pools[local].pool);
            let settings = pool.settings.load();
            let split = &self.pools[local].split;
            pool.publish_routes(self.index, &split.routes, &split.top);
            for key in self.pools[local].idle.clone() {
                let Some(server) = self.servers.get(key) else { continue };
                let idle = self.now.saturating_duration_since(server.since);
                let is_unused =
                    !settings.idle.is_zero() && idle >= settings.idle && pool.open() > settings.min;
                if is_unused || self.must_close(key) {
                    self.close_server(key);
                }
            }
            let is_mine = self.index == usize::try_from(pool.id).unwrap_or(0) % self.workers();
            let is_wanted = is_mine
                && pool.open() < settings.min
                && !pool.database.disabled.load(Ordering::Relaxed)
                && !pool.is_under_successor();
            if is_wanted
                && self.may_connect(&pool)
                && let Some(place) = pool.take_place(Duration::ZERO)
            {
                self.connect(local, place, None);
            }
        }
    }

    fn workers(&self) -> usize {
        self.shared.mailboxes.get().map_or(1, |mailboxes| mailboxes.len().max(1))
    }
}
