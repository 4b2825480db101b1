//! COPY from the client, of which everything may be sent before the server has said that it begins.
//!
//! **Intuition.** While a server copies it drops every Sync (`src/backend/commands/copyfromparse.c`, `CopyGetData`), so
//! whether a Sync is answered depends on whether it was sent before the end of the data or behind it. libpq sends one
//! with the statement and one with the end; other clients send all of it in one write.
//!
//! **Mechanism.** An end of data that comes before CopyInResponse is noted among the replies due ([`Due::CopyEnd`]).
//! When the server begins to copy, what was sent up to there is sorted out: Syncs before it bring no reply, and no data
//! is to come any more. An end that stands where no COPY was is forgotten when its turn comes.
//!
//! **Failure.** A COPY by a simple query that fails is over while its data is still on its way. Whole messages of it are
//! dropped by the server, or by us once it is another client's; half a message keeps the connection where it is until
//! the rest has come ([`Worker::end_torn`]).

use tenfold_pgwire::backend::TransactionStatus;

use super::{
    Worker,
    server::{Due, Server},
    slab::Key,
};

impl Worker {
    /// A message that was on its way when its exchange ended is complete: its server connection may go.
    pub(super) fn end_torn(&mut self, key: Key, server_key: Key) {
        if self.clients.get(key).is_none_or(|client| client.passing > 0) {
            return;
        }
        let Some(server) = self.servers.get_mut(server_key) else { return };
        if server.client != Some(key) || !std::mem::take(&mut server.torn) {
            return;
        }
        if server.status == TransactionStatus::Idle && !server.in_series && !server.owes_client() {
            self.transaction_ended(server_key);
        }
    }
}

impl Server {
    /// The client has sent CopyDone or CopyFail.
    pub(super) fn end_copy(&mut self) {
        if std::mem::take(&mut self.copying_in) {
            return;
        }
        // With nothing under way it stands for nothing.
        let may_begin = self.in_series || self.owes_client();
        if may_begin {
            self.due.push_back(Due::CopyEnd);
        }
    }

    /// The server has begun to copy.
    pub(super) fn begin_copy(&mut self) {
        // In session mode only the ends of exchanges are noted.
        let is_series = !matches!(self.due.front(), Some(Due::Query));
        let behind = usize::from(matches!(self.due.front(), Some(Due::Query | Due::Execute)));
        let mut is_over = false;
        while !is_over && matches!(self.due.get(behind), Some(Due::Sync | Due::CopyEnd)) {
            is_over = matches!(self.due.remove(behind), Some(Due::CopyEnd));
        }
        self.copying_in = !is_over;
        self.in_series |= is_series && !self.due.iter().any(|due| matches!(due, Due::Sync));
    }
}
