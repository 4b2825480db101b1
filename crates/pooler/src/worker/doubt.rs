//! Statements that call what has just been redefined, until it is known what that does.
//!
//! **Intuition.** After CREATE FUNCTION the catalogue is read again, which takes milliseconds. What is called meanwhile
//! may leave anything behind; rather than give the client its server connection for good, wait until it is known.
//!
//! **Mechanism.** A transaction whose first statement is [`Effects::UNSURE`] waits once, without a server connection,
//! for a reading of the catalogue that began after it came ([`Worker::hold`]); others go on. A statement that is unsure
//! when it runs, within a transaction or because definitions change all the time, is remembered with its text, and
//! decided at the end of its transaction by a reading that began later ([`Worker::is_sure`]); the client has its answer
//! and its next message waits. So is whatever follows DDL in a transaction. A function that is not there leaves nothing
//! if the server said so, and is looked for once more if it did not.
//!
//! EXECUTE of a name is as unknown as what was prepared under it ([`Server::note_prepared`]).
//!
//! **Failure.** Where nobody can read the catalogue, nobody waits: what is unsure is unknown, which pins. So is more
//! text than [`UNSURE_BYTES_MAX`]. Who waits too long is told by `tick`, as all that wait.

use std::sync::Arc;

use tenfold_pgwire::{backend::Report, sqlstate};
use tenfold_sql::{Decision, Effects, Shape};

use super::{
    Worker,
    client::{Client, State},
    server::{Phase, Server},
    slab::Key,
    upstream::left_by_prepared,
    waiters::{First, Waiter},
};
use crate::shared::Database;

/// Names given by PREPARE that are remembered in one transaction.
const PREPARED_NOW_MAX: usize = 256;
/// Bytes of unsure statements that are remembered in one transaction.
const UNSURE_BYTES_MAX: usize = 256 * 1_024;

impl Worker {
    /// Has a client wait until definitions are known again. False if it need not.
    pub(super) fn hold(&mut self, key: Key, first: &First) -> bool {
        if !first.effects.intersects(Effects::UNSURE) {
            return false;
        }
        let Some(client) = self.clients.get_mut(key) else { return false };
        let Some(seat) = client.seat.as_ref() else { return false };
        let definitions = &seat.pool.database.definitions;
        let change = definitions.last_change();
        if client.was_held || definitions.is_settled(change) {
            return false;
        }
        client.was_held = true;
        client.state = State::Waiting;
        client.since = self.now;
        client.queue = seat.local;
        let waiter = Waiter { key, since: self.now, first: *first, read: None, hot: None };
        self.pools[seat.local].waiters.hold(change, waiter);
        true
    }

    /// Definitions have been read, or given up: those that waited for it go on.
    pub(super) fn definitions_read(&mut self, database: &Arc<Database>) {
        let is_settled = |change| database.definitions.is_settled(change);
        for local in 0..self.pools.len() {
            if !Arc::ptr_eq(&self.pools[local].pool.database, database) {
                continue;
            }
            for waiter in self.pools[local].waiters.let_on(is_settled) {
                let Some(client) = self.clients.get_mut(waiter.key) else { continue };
                client.state = State::Idle;
                client.since = self.now;
                self.look_again(waiter.key);
            }
        }
        for key in self.servers.keys() {
            let is_next = self.servers.get(key).is_some_and(|server| {
                matches!(server.phase, Phase::Unsure { change, .. } if is_settled(change))
                    && Arc::ptr_eq(&server.pool.database, database)
            });
            if is_next {
                self.settle(key);
            }
        }
    }

    /// Whether a statement matters for what its transaction leaves.
    #[inline]
    pub(super) fn is_noted(&self, server_key: Key, decision: &Decision) -> bool {
        let is_redefined = |server: &Server| server.effects.intersects(Effects::DDL);
        !decision.effects.is_empty()
            || self
                .servers
                .get(server_key)
                .is_some_and(|server| is_redefined(server) || server.reads_otherwise())
    }

    /// A transaction that redefined something has ended: whoever begins another once its client has been told judges
    /// nothing by what was read before.
    #[inline]
    pub(super) fn tell_redefined(&mut self, key: Key) {
        let Some(server) = self.servers.get_mut(key) else { return };
        if server.effects.intersects(Effects::DDL)
            && !std::mem::replace(&mut server.doubts.is_redefinition_told, true)
        {
            let hides = std::mem::take(&mut server.doubts.hides);
            self.shared.definitions_changed(&server.pool.database, hides);
        }
    }

    /// Remembers the text of a statement that is to be decided later: now, or because its transaction has redefined
    /// something. Comes before the statement's effects are noted.
    pub(super) fn note_unsure(&mut self, server_key: Key, decision: &Decision, text: &[u8]) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let effects = decision.effects | left_by_prepared(decision);
        let redefines_first = matches!(decision.shape, Shape::Multi) && effects.intersects(Effects::DDL);
        if !effects.intersects(Effects::UNSURE)
            && !redefines_first
            && !server.effects.intersects(Effects::DDL)
        {
            return;
        }
        let bytes: usize = server.doubts.unsure.iter().map(|text| text.len()).sum();
        if bytes + text.len() > UNSURE_BYTES_MAX {
            server.effects |= Effects::UNKNOWN;
            return;
        }
        server.effects |= Effects::UNSURE;
        server.doubts.unsure.push(text.into());
    }

    /// Whether it is known what a transaction that has ended may have left; if not, it is settled later.
    pub(super) fn is_sure(&mut self, key: Key) -> bool {
        let Some(server) = self.servers.get_mut(key) else { return false };
        if !server.effects.intersects(Effects::UNSURE) {
            return true;
        }
        let database = Arc::clone(&server.pool.database);
        let (change, is_last) = match server.phase {
            Phase::Unsure { change, is_last } => (change, is_last),
            _ => (database.definitions.last_change(), false),
        };
        if !database.definitions.is_settled(change) {
            server.phase = Phase::Unsure { change, is_last: true };
            return false;
        }
        let decisions = if database.definitions.is_read(change) { self.decide_again(key) } else { None };
        let Some(server) = self.servers.get_mut(key) else { return false };
        let is_explained = decisions.as_ref().is_some_and(|decisions| server.can_explain(decisions));
        if decisions.is_some() && !is_explained && !is_last {
            // Made since the last reading, by somebody else.
            self.shared.definitions_changed(&database, false);
            server.phase = Phase::Unsure { change: database.definitions.last_change(), is_last: true };
            return false;
        }
        server.phase = Phase::Lent;
        server.doubts.unsure.clear();
        for decision in decisions.iter().flatten() {
            self.note_effects(key, decision);
        }
        let Some(server) = self.servers.get_mut(key) else { return false };
        server.effects = server.effects.without(Effects::UNSURE);
        if !is_explained {
            server.effects |= Effects::UNKNOWN;
        }
        true
    }

    /// What the remembered statements do by what was read since.
    fn decide_again(&mut self, key: Key) -> Option<Vec<Arc<Decision>>> {
        let server = self.servers.get(key)?;
        let dialect = self.clients.get(server.client?)?.dialect;
        let catalogue = server.pool.database.definitions.catalogue().as_read();
        let classifier = &mut self.classifier;
        Some(server.doubts.unsure.iter().map(|text| classifier.classify(text, dialect, &catalogue)).collect())
    }
}

impl Server {
    /// Whether its transaction may have changed how texts are cut into tokens: what comes after cannot be read.
    pub(super) fn reads_otherwise(&self) -> bool {
        self.names.iter().any(|name| matches!(&**name, "standard_conforming_strings" | "client_encoding"))
    }

    /// An error that says that nothing was called: its statement has no such function, or follows an error.
    pub(super) fn note_refused(&mut self, report: &Report<'_>) {
        let is_of_a_function = report.fields().any(|(kind, _)| kind == b'W');
        let says_so = matches!(
            report.sqlstate(),
            Some(sqlstate::UNDEFINED_FUNCTION | sqlstate::IN_FAILED_SQL_TRANSACTION)
        );
        if says_so && !is_of_a_function {
            self.doubts.calls_refused += 1;
        }
    }

    /// Whether what these statements call is known, or was not there when they were executed.
    fn can_explain(&self, decisions: &[Arc<Decision>]) -> bool {
        let is_unsure = |decision: &&Arc<Decision>| {
            (decision.effects | left_by_prepared(decision)).intersects(Effects::UNSURE)
        };
        let unsure: Vec<_> = decisions.iter().filter(is_unsure).collect();
        // Of several statements in one string the first may have called something.
        let is_plain = unsure.iter().all(|decision| !matches!(decision.shape, Shape::Multi));
        !decisions.is_empty() && (unsure.is_empty() || is_plain && unsure.len() <= self.doubts.calls_refused)
    }

    /// EXECUTE of a statement that nobody was seen to PREPARE does nobody knows what: a function may have made it.
    pub(super) fn note_prepared(&mut self, client: Option<&Client>, shape: &Shape) {
        match shape {
            Shape::Prepare { name, .. } if self.prepared_now.len() < PREPARED_NOW_MAX => {
                self.prepared_now.push(name.clone());
            }
            Shape::Execute(name) => {
                let before = client.into_iter().flat_map(|client| client.image.prepared());
                let is_known = self.prepared_now.contains(name)
                    || self.has_alias(name)
                    || before.into_iter().any(|(known, _)| known.as_bytes() == &**name);
                if !is_known {
                    self.effects |= Effects::UNKNOWN;
                }
            }
            _ => {}
        }
    }
}
