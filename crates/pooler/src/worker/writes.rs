//! What statements at the primary leave behind for those who read on replicas.
//!
//! **Intuition.** From before a statement that may commit is sent until its answer is there, only the primary can tell what
//! its tables hold; from then on replicas must have replayed it. So each statement is noted before it leaves, by its
//! tables, or by its row where one value picks it.
//!
//! **Mechanism.** Within a block what was changed is gathered in `Server::changed`, and put into `Server::writing`
//! ([`Writing`](crate::split::Writing)) by whatever may commit; a statement alone goes there at once. Requests that a
//! comment names are held beside.
//!
//! **Failure.** What was not read may have changed anything. However a transaction ends, [`Server::end_writing`] lets go
//! of what it held, and where definitions changed meanwhile, as of something that changed everything.

use std::sync::Arc;

use tenfold_pgwire::backend::TransactionStatus;
use tenfold_sql::{Decision, Effects, Shape, Tables};

use super::{
    Worker,
    place::Told,
    server::{Due, Server, Why},
    slab::Key,
};
use crate::split::Changed;

/// After these a name may mean another statement than the session's image says.
const PREPARES: Effects =
    Effects::SQL_PREPARE.with(Effects::DEALLOCATE_ALL).with(Effects::DISCARD_ALL).with(Effects::UNKNOWN);

impl Worker {
    /// A statement goes to the primary: until its answer is there, only the primary can tell what its tables hold.
    pub(super) fn note_changes(
        &mut self,
        key: Key,
        server_key: Key,
        decision: &Decision,
        statement: Told<'_>,
    ) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        if server.pool.replica.is_some() {
            server.note_end(&decision.shape);
            return;
        }
        if !self.pools[server.local].split.is_on() {
            server.has_unnoted = true;
            return;
        }
        if server.has_unnoted {
            self.note_unread(server_key);
        }
        let trace = self.note_person(key, statement.sql);
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let is_unread = decision.effects.intersects(Effects::UNKNOWN);
        let split = &server.pool.database.split;
        match trace {
            Some(trace) => server.writing.traced.hold(split, trace),
            None if is_unread => server.writing.traced.hold_unread(split),
            None => {}
        }
        let is_in_block = server.is_in_block();
        server.may_define |= matches!(decision.shape, Shape::Do | Shape::Call);
        let is_prepared_anew = server.unsettled || server.effects.intersects(PREPARES);
        let body = match &decision.shape {
            Shape::Execute(name) if !is_prepared_anew => self.prepared_body(key, name),
            _ => None,
        };
        let decision = body.as_deref().unwrap_or(decision);
        let may_change_anything = decision
            .effects
            .intersects(Effects::DDL | Effects::UNKNOWN | Effects::SQL_EXECUTE | Effects::UNSURE);
        let tables = if may_change_anything { &Tables::All } else { &decision.route.writes };
        // What EXECUTE is given stands elsewhere.
        let keyed = if may_change_anything || body.is_some() {
            None
        } else {
            self.keyed(key, tables, decision, statement)
        };
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let database = &server.pool.database;
        if server.changed.is_empty() && server.writing.is_empty() {
            server.changed_under = database.definitions.last_change();
        }
        if is_in_block && !may_commit(decision) {
            server.changed.add(tables, keyed);
            return;
        }
        let mut changed = std::mem::take(&mut server.changed);
        changed.add(tables, keyed);
        server.writing.add(&database.split, &changed);
    }

    /// What EXECUTE of a name does, if it is known what was prepared under it.
    fn prepared_body(&mut self, key: Key, name: &[u8]) -> Option<Arc<Decision>> {
        let client = self.clients.get(key)?;
        let prepared = client.image.prepared();
        let (_, text) = prepared.iter().find(|(known, _)| known.as_bytes() == name)?;
        let text = Arc::clone(text);
        match &self.classify(key, text.as_bytes()).shape {
            Shape::Prepare { body, .. } => Some(Arc::clone(body)),
            _ => None,
        }
    }

    /// Something that was not read goes to the primary.
    pub(super) fn note_unread(&mut self, server_key: Key) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        if server.pool.replica.is_some() {
            return;
        }
        if self.pools[server.local].split.is_on() {
            let split = &server.pool.database.split;
            server.writing.add_all(split);
            server.writing.traced.hold_unread(split);
        } else {
            server.has_unnoted = true;
        }
    }
}

impl Server {
    /// Whether what comes next is within a transaction block, for certain: begun, or a BEGIN of ours goes ahead.
    fn is_in_block(&self) -> bool {
        match self.due.back() {
            None => self.status == TransactionStatus::InTransaction,
            Some(last) => matches!(last, Due::Ours(ours) if matches!(ours.why, Why::Begin)),
        }
    }

    /// Nothing that was sent can commit any more without its answer being here. `is_split`: there are replicas.
    pub(super) fn end_writing(&mut self, is_split: bool) {
        let database = &self.pool.database;
        // However it was ended: by a portal that was bound before, for one.
        self.writing.add(&database.split, &self.changed);
        if std::mem::take(&mut self.has_unnoted) && is_split {
            // Replicas came meanwhile.
            self.writing.add_all(&database.split);
        }
        if !self.writing.is_empty() && database.definitions.last_change() != self.changed_under {
            // It may have waited for what was redefined meanwhile, and have done what no text of its shows.
            self.writing.add_all(&database.split);
        }
        self.writing.end();
        self.writing.traced.end();
        self.changed = Changed::default();
    }
}

/// Whether a statement within a transaction block may end it.
fn may_commit(decision: &Decision) -> bool {
    !matches!(
        decision.shape,
        Shape::Select { .. }
            | Shape::Insert
            | Shape::Update
            | Shape::Delete
            | Shape::Merge
            | Shape::Values
            | Shape::Copy { .. }
            | Shape::Savepoint(_)
            | Shape::RollbackTo(_)
            | Shape::Release(_)
            | Shape::Set(_)
            | Shape::Show(_)
            | Shape::Reset(_)
            | Shape::Explain
            | Shape::Lock
            | Shape::Fetch
            | Shape::Move
            | Shape::CloseCursor
            | Shape::Declare { .. }
            | Shape::SetConstraints
            | Shape::SetTransaction
            | Shape::Ddl
            | Shape::Prepare { .. }
            | Shape::Execute(_)
            | Shape::Deallocate(_)
            | Shape::Notify(_)
            | Shape::Do
            | Shape::Call
            | Shape::Listen(_)
            | Shape::Empty
    )
}
