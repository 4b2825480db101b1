//! Sessions that end early, so that their server connections can be replaced (`fast_close`).
//!
//! **Intuition.** After RECONNECT, or once a database has moved, connections to the old place are closed when free. In
//! session mode that is when their clients leave, which may be never. Where it is asked for, such a session ends with its
//! transaction instead, and its client comes back to the new place.
//!
//! **Mechanism.** Whoever holds a connection between transactions is looked at when a transaction ends, and in each
//! tick. Connections that are only old (`lifetime`) end no session, nor does PAUSE, as in PgBouncer: both wait.
//!
//! **Failure.** What runs is never cut. The client hears what PostgreSQL says to those whose connections an
//! administrator ends (57P01), so that drivers do what they do then: connect again.
//!
//! Source: PgBouncer's manual, `server_fast_close`; `src/janitor.c`.

use std::sync::Arc;

use tenfold_pgwire::backend::TransactionStatus;

use super::{
    Worker,
    client::State,
    refuse::Denied,
    server::{Phase, Server},
    slab::Key,
};
use crate::{refusal::Refusal, shared::Database};

impl Worker {
    /// Another place is the database's: connections to those it has left go once they are free.
    pub(super) fn moved(&mut self, database: &Arc<Database>) {
        for key in self.servers.keys() {
            self.find_misplaced(key, Some(database));
        }
        self.replace_idle(Some(database));
    }

    /// Looks whether a connection leads to where its database still is. It may have been on its way, to there or from
    /// another worker, when that changed.
    pub(super) fn find_misplaced(&mut self, key: Key, of: Option<&Arc<Database>>) {
        let Some(server) = self.servers.get_mut(key) else { return };
        if of.is_none_or(|of| Arc::ptr_eq(of, &server.pool.database)) {
            server.is_misplaced = !server.pool.target().addresses.contains(&server.address);
        }
    }

    /// Ends the client of a connection that is to be replaced, if nothing runs there. True if it did.
    pub(super) fn close_fast(&mut self, key: Key) -> bool {
        let Some(server) = self.servers.get(key) else { return false };
        if !server.is_superseded() || !server.is_between_transactions() {
            return false;
        }
        let Some(client_key) = server.client else { return false };
        let Some(client) = self.clients.get_mut(client_key) else { return false };
        if client.passing > 0 || !self.pools[server.local].settings().fast_close {
            return false;
        }
        client.state = State::Idle;
        let denied = Denied {
            refusal: Refusal::ServerReplaced,
            text: "terminating connection due to administrator command".into(),
            hint: Some(
                "The server connection of this session is being replaced (fast_close); connect again.",
            ),
        };
        self.close_server(key);
        self.deny(client_key, &denied);
        true
    }
}

impl Server {
    /// Whether it leads to where the database was, or was told to be replaced.
    fn is_superseded(&self) -> bool {
        self.is_misplaced || self.pool.database.has_superseded(self.epoch.0)
    }

    /// Whether it is its client's, and has nothing to do. One that is kept for `currval()` alone is given up anyway.
    fn is_between_transactions(&self) -> bool {
        matches!(self.phase, Phase::Lent)
            && self.status == TransactionStatus::Idle
            && self.due.is_empty()
            && self.prefix.is_empty()
            && !self.in_series
            && !self.torn
            && !self.pins.is_empty()
    }
}
