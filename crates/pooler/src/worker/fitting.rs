//! Prepared statements whose rows changed under their clients.
//!
//! **Intuition.** A driver that was told a statement's columns reads its rows by them for as long as it keeps the
//! statement. PostgreSQL refuses to run it once DDL made them others: "cached plan must not change result type". A
//! server connection that prepares the statement only now, for a client that prepared it elsewhere, has nothing to
//! compare with; so we compare.
//!
//! **Mechanism.** What a client was told is a hash in the [`Statement`]. Where one prepared before DDL is prepared on
//! another server connection, the server describes it first ([`Phase::Describing`]); the client's Bind waits for that,
//! one round trip, and if the rows differ it is made to fail with PostgreSQL's error. Statements prepared after the last
//! DDL, all but a few, go without.
//!
//! **Failure.** The server's error to our Parse is the client's, as if its Bind had brought it. DDL that neither passed
//! here nor was noticed yet (a second) is not waited for.

use std::sync::Arc;

use tenfold_pgwire::{
    backend::{self, TransactionStatus},
    frontend, sqlstate,
    write::{self, Report},
};

use super::{
    Worker,
    batch::Batch,
    downstream::Fate,
    server::{Due, Phase, Server},
    slab::Key,
    upstream::Step,
};
use crate::statements::{self, Statement};

/// A statement that no server has: binding it fails, and with it the transaction.
const NOBODYS: &[u8] = b"tenfold_misfit";

/// Where PostgreSQL raises it (`src/backend/utils/cache/plancache.c`), and what tells it from others whatever the
/// language: asyncpg, for one, prepares anew when it reads this.
const ROUTINE: &str = "RevalidateCachedQuery";

/// PostgreSQL's error, whole.
pub(super) fn misfit() -> Vec<u8> {
    let mut out = Vec::new();
    let text = "cached plan must not change result type";
    let report = Report::error(sqlstate::FEATURE_NOT_SUPPORTED, text);
    Report { others: &[(b'R', ROUTINE)], ..report }.append_error(&mut out);
    out
}

/// Whether this is that error.
pub(super) fn is_misfit(report: &backend::Report<'_>) -> bool {
    report.sqlstate() == Some(sqlstate::FEATURE_NOT_SUPPORTED)
        && report.fields().any(|(kind, value)| kind == b'R' && value == ROUTINE.as_bytes())
}

impl Worker {
    /// Whether a statement may be bound here at once. If not, the server is asked for its rows, or a series before this
    /// one has to end first.
    pub(super) fn fits(
        &mut self,
        server_key: Key,
        statement: &Arc<Statement>,
        batch: &mut Batch<'_>,
    ) -> bool {
        if self.awaits_end(server_key, statement) {
            return false;
        }
        let Some(server) = self.servers.get_mut(server_key) else { return true };
        let definitions = server.pool.database.definitions.state();
        let may_have_changed = statement.definitions() != definitions || server.has_changed_definitions();
        let is_asked_for = may_have_changed
            && statement.has_told_rows()
            && server.status != TransactionStatus::Failed
            && server.misfit != statement.id
            && !server.statements.contains(statement.id);
        if !is_asked_for {
            return true;
        }
        self.ensure(server_key, statement, batch);
        let mut name = statements::NameBuffer::default();
        let name = statements::server_name(statement.id, &mut name);
        write::describe(batch.stage(), frontend::Target::Statement(name));
        write::flush(batch.stage());
        let Some(server) = self.servers.get_mut(server_key) else { return true };
        server.in_series = true;
        server.due.push_back(Due::OurDescribe(Arc::clone(statement)));
        server.phase = Phase::Describing;
        false
    }

    /// RowDescription or NoData.
    pub(super) fn described(&mut self, key: Key, body: &[u8]) -> Fate {
        let Some(server) = self.servers.get_mut(key) else { return Fate::Swallow };
        match server.due.front() {
            Some(Due::Rows(id)) => {
                if let Some(statement) = server.statements.get(*id) {
                    statement.tell_rows(body);
                }
                server.due.pop_front();
                Fate::Pass
            }
            Some(Due::Describe) => {
                server.due.pop_front();
                Fate::Pass
            }
            Some(Due::OurDescribe(statement)) => {
                if statement.has_other_rows(body) == Some(true) {
                    server.misfit = statement.id;
                }
                server.due.pop_front();
                self.described_all(key);
                Fate::Swallow
            }
            Some(Due::Ours(_)) => Fate::Swallow,
            _ => Fate::Pass,
        }
    }

    /// What was asked is answered, or refused: the client's messages go on.
    pub(super) fn described_all(&mut self, key: Key) {
        let Some(server) = self.servers.get_mut(key) else { return };
        if !matches!(server.phase, Phase::Describing) {
            return;
        }
        server.phase = Phase::Lent;
        if let Some(client) = server.client {
            self.resume_soon(client);
        }
    }

    /// Whether a statement was found to have other rows here than its clients were told.
    pub(super) fn has_other_rows(&self, server_key: Key, id: u64) -> bool {
        self.servers.get(server_key).is_some_and(|server| server.misfit == id)
    }

    /// The Bind of such a statement: the server fails at something else, and the statement goes.
    pub(super) fn refuse_rows(&mut self, server_key: Key, batch: &mut Batch<'_>) -> Step {
        let Some(server) = self.servers.get_mut(server_key) else { return Step::Wait };
        let id = std::mem::take(&mut server.misfit);
        let mut name = statements::NameBuffer::default();
        write::close(batch.stage(), frontend::Target::Statement(statements::server_name(id, &mut name)));
        server.statements.remove(id);
        server.due.push_back(Due::OurClose);
        server.fail_series(batch.stage());
        server.in_series = true;
        Step::Dropped
    }
}

impl Server {
    /// Has a series fail.
    pub(super) fn fail_series(&mut self, out: &mut Vec<u8>) {
        let no_values = std::iter::empty::<Option<&[u8]>>();
        write::bind(out, b"", NOBODYS, frontend::Format::Text, no_values, frontend::Format::Text);
        self.due.push_back(Due::Misfit);
    }
}
