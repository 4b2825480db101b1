//! A read at a replica: what is kept of it so that the primary can answer instead, and how it ends.
//!
//! **Intuition.** Until something of a replica's answer was told to the client, the read may as well have gone elsewhere.
//! So what the replica says first is kept for as long as it tells nothing that counts, and if then an error comes, or the
//! connection breaks, the client's messages are taken back and sent to the primary, whose answer is the right one
//! whatever it is: a conflict with recovery, a function that writes after all, a table that is not there yet.
//!
//! **Mechanism.** [`Away`] belongs to one read, or to one transaction that runs on a replica whole. A connection to a
//! replica is lent only once its server is known to be the one that is watched ([`Worker::confirm_servers`]).
//!
//! **Failure.** What a statement that changes something may commit to is held in `Server::writing` until its answer is
//! there ([`Worker::note_changes`]), whatever way it ends.

use std::sync::Arc;

use tenfold_pgwire::{
    backend::{self, TransactionStatus},
    frame::frontend as tag,
    sqlstate, write,
};
use tenfold_sql::{Decision, Destination, Effects, Reason, Shape, Tables};

use super::{
    Worker,
    batch::Batch,
    client::{Client, Held},
    lend::message_query,
    place::{Told, changes, person_of},
    server::{Due, Phase, Server, Why},
    slab::Key,
    upstream::Step,
    waiters::First,
};
use crate::{
    mailbox::Ask,
    split::{Changed, Follower, InFlight, Waiting},
    statements::Statement,
};

/// A statement that fails: there is no such savepoint.
const FAILS: &[u8] = b"ROLLBACK TO SAVEPOINT tenfold_failed";

/// What a client is told whose read-only transaction runs at a replica.
const REFUSED: &str = "this transaction runs on a replica, which cannot do this";
const REFUSED_HINT: &str =
    "Begin it with READ WRITE, or send a statement with the comment /*tenfold: primary*/ first.";
/// After these a name may mean another statement than the session's image says.
const PREPARES: Effects =
    Effects::SQL_PREPARE.with(Effects::DEALLOCATE_ALL).with(Effects::DISCARD_ALL).with(Effects::UNKNOWN);
/// Answers that are kept back, at most: more of them are told.
const KEPT_BYTES_MAX: usize = 64 * 1_024;

/// A client's read at a replica.
#[derive(Debug)]
pub(super) struct Away {
    _flight: InFlight,
    /// The client's messages, to be sent to the primary instead.
    sent: Vec<u8>,
    /// Statements among these.
    statements: usize,
    /// Names that these give to statements.
    named: Vec<Box<[u8]>>,
    /// What the client's unnamed statement was before.
    unnamed: Option<Arc<Statement>>,
    /// Answers that tell nothing yet.
    kept: Vec<u8>,
    /// Something was told.
    is_told: bool,
    /// All of it was sent: what the client sends next is another matter.
    is_whole: bool,
    /// A transaction that runs there from BEGIN to its end.
    is_block: bool,
    /// The client's BEGIN is held meanwhile.
    is_held: bool,
    /// The BEGIN of a transaction that runs there.
    begun: Option<Held>,
    /// A statement was put in place of one that must not run there: its error is told in words of ours.
    refuses: bool,
    /// COMMIT or ROLLBACK is on its way: with its exchange ends what belongs here.
    ends: bool,
    /// It is being ended by COMMIT AND CHAIN, or ROLLBACK AND CHAIN.
    chains: bool,
    /// An error came before anything was told: the primary is to answer.
    is_refused: bool,
    /// An error was told.
    has_failed: bool,
    /// The replica's life.
    life: u32,
}

/// A connection to a replica that nobody is lent yet.
#[derive(Debug)]
pub(super) struct Unconfirmed {
    /// Which server it leads to; 0 until it has said so.
    pub(super) instance: u64,
    /// When that was, in microseconds of the process.
    pub(super) since_us: u64,
    pub(super) _waits: Waiting,
}

impl Worker {
    /// A connection to a replica was lent for a read.
    pub(super) fn go_away(&mut self, server_key: Key, first: &First) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let (Some(replica), Some(at)) = (&server.pool.replica, first.at) else { return };
        let client = server.client.and_then(|client| self.clients.get(client));
        server.away = Some(Box::new(Away {
            _flight: replica.enter(),
            sent: Vec::new(),
            statements: 0,
            named: Vec::new(),
            unnamed: client.and_then(|client| client.unnamed.clone()),
            kept: Vec::new(),
            is_told: false,
            is_whole: false,
            is_block: at.is_block,
            is_held: !at.is_block && client.is_some_and(|client| client.held.is_some()),
            begun: None,
            ends: false,
            refuses: false,
            chains: false,
            is_refused: false,
            has_failed: false,
            life: at.life,
        }));
    }

    /// Whether a waiter may still be served by this pool's connections.
    pub(super) fn may_serve(&self, local: usize, first: &First) -> bool {
        let (Some(replica), Some(at)) = (&self.pools[local].pool.replica, first.at) else { return true };
        replica.life() == at.life && replica.replayed() >= at.floor
    }

    /// Whether a connection to a replica leads to another server than the one that is watched now.
    pub(super) fn is_astray(&self, server_key: Key) -> bool {
        let Some(server) = self.servers.get(server_key) else { return false };
        server.pool.replica.as_ref().is_some_and(|replica| replica.instance() != server.instance)
    }

    /// A message of a read was used: it is kept in case that it has to be sent elsewhere.
    pub(super) fn note_sent(&mut self, server_key: Key, message: &[u8]) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let Some(away) = &mut server.away else { return };
        let is_end = matches!(message.first(), Some(&(tag::QUERY | tag::SYNC)));
        if away.is_block {
            away.is_whole |= away.ends && is_end;
        } else if !away.is_whole {
            away.sent.extend_from_slice(message);
            away.is_whole = is_end;
            away.statements += usize::from(matches!(message.first(), Some(&(tag::QUERY | tag::BIND))));
        }
    }

    /// A read's message gives a statement a name: it is given again if the read has to go elsewhere.
    pub(super) fn note_named(&mut self, server_key: Key, name: &[u8]) {
        let away = self.servers.get_mut(server_key).and_then(|server| server.away.as_mut());
        if let Some(away) = away.filter(|away| !away.is_block) {
            away.named.push(name.into());
        }
    }

    /// An answer that is to be passed on tells something: what was kept goes first.
    pub(super) fn tell_kept(&mut self, server_key: Key) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let Some(away) = &mut server.away else { return };
        if away.is_told {
            return;
        }
        away.is_told = true;
        let kept = std::mem::take(&mut away.kept);
        if let (Some(client), false) = (server.client, kept.is_empty()) {
            self.send_client(client, &kept);
        }
    }

    /// An error of a replica: true if the primary is to answer instead.
    pub(super) fn is_refusal(&mut self, server_key: Key, report: &backend::Report<'_>) -> bool {
        let Some(server) = self.servers.get_mut(server_key) else { return false };
        let Some(away) = &mut server.away else { return false };
        let is_cancelled = report.sqlstate() == Some(sqlstate::QUERY_CANCELED);
        if away.is_block || away.is_told || is_cancelled {
            away.has_failed = true;
            return false;
        }
        away.is_refused = true;
        if report.sqlstate() == Some(sqlstate::READ_ONLY_SQL_TRANSACTION) && away.statements == 1 {
            server.pool.database.split.refuse(server.first);
        }
        true
    }

    /// Whether a statement must not run in a transaction that runs at a replica: the primary would do it there, or might,
    /// and the replica cannot, or leaves something in a session that nobody comes back to. What a read-only transaction
    /// cannot do anyway the server says itself.
    pub(super) fn must_not_run(&self, server_key: Key, decision: &Decision) -> bool {
        let Some(server) = self.servers.get(server_key) else { return false };
        let Some(away) = server.away.as_ref().filter(|away| away.is_block) else { return false };
        if away.ends {
            // What stands behind the end of the transaction is none of it.
            return true;
        }
        let Destination::Primary(reason) = decision.route.destination else { return false };
        if matches!(decision.shape, Shape::Multi) {
            return true;
        }
        if decision.effects.is_empty() {
            return false;
        }
        let is_refused_anyway = matches!(
            reason,
            Reason::Writes | Reason::Locks | Reason::Defines | Reason::Sequence | Reason::Maintenance
        );
        !is_refused_anyway && !matches!(decision.shape, Shape::Set(_) | Shape::Reset(_))
    }

    /// Has the server fail in place of such a statement.
    pub(super) fn refuse_statement(
        &mut self,
        server_key: Key,
        is_series: bool,
        batch: &mut Batch<'_>,
    ) -> Step {
        let Some(server) = self.servers.get_mut(server_key) else { return Step::Wait };
        if let Some(away) = &mut server.away {
            away.refuses = true;
        }
        if is_series {
            server.fail_series(batch.stage());
            server.in_series = true;
        } else {
            write::query(batch.stage(), FAILS);
            server.unnamed = 0;
            server.due.push_back(Due::Query);
        }
        Step::Dropped
    }

    /// The words for it.
    pub(super) fn refusal_in_words(&mut self, server_key: Key) -> Option<Vec<u8>> {
        let away = self.servers.get_mut(server_key)?.away.as_mut()?;
        if !std::mem::take(&mut away.refuses) {
            return None;
        }
        let mut out = Vec::new();
        let report = write::Report::error(sqlstate::FEATURE_NOT_SUPPORTED, REFUSED);
        write::Report { hint: Some(REFUSED_HINT), ..report }.append_error(&mut out);
        Some(out)
    }

    /// An exchange of a transaction at a replica has not ended it: what comes next belongs there again.
    pub(super) fn goes_on(&mut self, server_key: Key) {
        let away = self.servers.get_mut(server_key).and_then(|server| server.away.as_mut());
        if let Some(away) = away.filter(|away| away.is_block && away.ends) {
            (away.ends, away.is_whole) = (false, false);
        }
    }

    /// Whether a transaction at a replica was ended by its client, and another begun.
    pub(super) fn is_chained(&mut self, server_key: Key) -> bool {
        let Some(server) = self.servers.get_mut(server_key) else { return false };
        let Some(away) = server.away.as_mut().filter(|away| away.chains) else { return false };
        away.chains = false;
        server.status == TransactionStatus::InTransaction && !server.in_series && server.due.is_empty()
    }

    /// The transaction that was begun begins anew, wherever its first statement may run by then.
    pub(super) fn unchain(&mut self, server_key: Key) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let Some(away) = server.away.as_mut().filter(|_| server.client.is_some()) else { return };
        (away.is_whole, away.has_failed) = (true, false);
        server.touched = self.now;
        server.push_ours(Why::Unchain);
        let mut out = Vec::new();
        write::query(&mut out, b"ROLLBACK");
        self.send_server(server_key, &out);
    }

    /// Nothing is begun at the replica any more: the client's transaction is held again.
    pub(super) fn unchained(&mut self, server_key: Key) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let begun = server.away.as_mut().and_then(|away| away.begun.take());
        if let Some(client) = server.client.and_then(|client| self.clients.get_mut(client)) {
            client.held = begun.map(Box::new);
        }
        self.note_seen(server_key);
        self.transaction_ended(server_key);
    }

    /// A read that a replica refused is over there: the primary answers it. False if it was none.
    pub(super) fn rerun_refused(&mut self, server_key: Key) -> bool {
        let Some(server) = self.servers.get_mut(server_key) else { return false };
        if !server.away.as_ref().is_some_and(|away| away.is_refused) {
            return false;
        }
        let (Some(client), Some(away)) = (server.client, server.away.take()) else { return false };
        server.forget_effects();
        self.take_back(client, &away);
        self.release(server_key);
        true
    }

    /// A replica's connection is lost before it told anything: the primary answers. False if it is too late for that.
    pub(super) fn rerun_lost(&mut self, key: Key, server: &mut Server) -> bool {
        let Some(away) = server.away.take_if(|away| !away.is_block && !away.is_told) else { return false };
        self.take_back(key, &away);
        let Some(client) = self.clients.get_mut(key) else { return true };
        client.state = super::client::State::Idle;
        client.since = self.now;
        client.unread = true;
        self.resume_soon(key);
        true
    }

    /// A replica stands still: what it has not begun to answer goes elsewhere.
    pub(super) fn leave_silent(&mut self, local: usize) {
        for key in self.servers.keys() {
            let is_silent = self.servers.get(key).is_some_and(|server| {
                server.local == local
                    && server.away.as_ref().is_some_and(|away| !away.is_told && !away.is_block)
            });
            if is_silent {
                self.lose(key, None);
            }
        }
    }

    /// The messages of a read are the client's again, and go to the primary.
    fn take_back(&mut self, key: Key, away: &Away) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let local = client.seat.as_ref().map(|seat| seat.local);
        client.to_primary = true;
        for name in &away.named {
            // They will be given again.
            client.statements.remove(name);
        }
        if !away.sent.is_empty() {
            client.unnamed.clone_from(&away.unnamed);
        }
        client.stash.splice(0..0, away.sent.iter().copied());
        if let Some(local) = local {
            self.pools[local].split.routes.reruns += 1;
        }
    }

    /// A transaction of a client has ended at this server: what others must see of it, and the client from now on.
    pub(super) fn note_seen(&mut self, server_key: Key) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        server.end_writing();
        self.see(server_key);
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let has_failed = server.away.as_ref().is_some_and(|away| away.has_failed);
        let may_define = std::mem::take(&mut server.may_define);
        if may_define {
            // Its monitor looks at once whether definitions have changed.
            self.shared.ask(Ask::Watch { database: Arc::clone(&server.pool.database) });
        }
        let Some(client) = server.client.and_then(|client| self.clients.get_mut(client)) else { return };
        client.person = None;
        client.carried = None;
        if let Some(held) = &mut client.held {
            held.failed |= has_failed;
        }
    }

    /// A server has answered a client: what the client must see from now on.
    pub(super) fn see(&mut self, server_key: Key) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        if !self.pools[server.local].split.is_on() {
            return;
        }
        let split = &server.pool.database.split;
        let Some(client) = server.client.and_then(|client| self.clients.get_mut(client)) else { return };
        let (sample, life) = (split.samples.next(), server.away.as_ref().map(|away| away.life));
        let see = |follower: &mut Follower| match life {
            Some(life) => follower.saw_replica(sample, life),
            None => follower.saw_primary(sample),
        };
        see(&mut client.follower);
        if let Some(person) = person_of(client, split) {
            split.identities.update(person, see);
        }
    }

    /// As [`Self::note_seen`], of a server that was lost: nobody knows what it did last.
    pub(super) fn lost_sight(&mut self, key: Key, server: &Server) {
        let split = &server.pool.database.split;
        if let (true, Some(client)) = (split.is_on(), self.clients.get_mut(key)) {
            let sample = split.samples.next();
            client.follower.saw_primary(sample);
            if let Some(person) = person_of(client, split) {
                split.identities.update(person, |follower| follower.saw_primary(sample));
            }
        }
    }

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
            if let (Some(away), Shape::Commit { chain } | Shape::Rollback { chain }) =
                (&mut server.away, &decision.shape)
            {
                away.chains = *chain;
                away.ends = true;
            }
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
        let tables = if may_change_anything { &Tables::All } else { changes(decision) };
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
        let split = Arc::clone(&server.pool.database.split);
        if split.is_on() {
            server.writing.add_all(&split);
            server.writing.traced.hold_unread(&split);
        } else {
            server.has_unnoted = true;
        }
    }

    /// Connections to replicas whose server is known by now are lent, or closed.
    pub(super) fn confirm_servers(&mut self) {
        for key in std::mem::take(&mut self.unconfirmed) {
            let Some(server) = self.servers.get(key) else { continue };
            let (Some(waits), Some(replica)) = (&server.unconfirmed, &server.pool.replica) else { continue };
            match replica.confirms(waits.instance, waits.since_us) {
                None => self.unconfirmed.push(key),
                Some(true) => self.confirmed(key),
                Some(false) => {
                    let why = "it is another server than the one that is watched under this name; list each by itself";
                    self.opening_failed(key, why, None);
                }
            }
        }
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

impl Server {
    /// Whether what comes next is within a transaction block, for certain: begun, or a BEGIN of ours goes ahead.
    fn is_in_block(&self) -> bool {
        match self.due.back() {
            None => self.status == TransactionStatus::InTransaction,
            Some(last) => matches!(last, Due::Ours(ours) if matches!(ours.why, Why::Begin)),
        }
    }

    /// Whether a transaction runs there from BEGIN to its end.
    pub(super) fn runs_block(&self) -> bool {
        self.away.as_ref().is_some_and(|away| away.is_block)
    }

    /// Whether its client's next message is another matter.
    #[inline]
    pub(super) fn takes_no_more(&self) -> bool {
        self.away.as_ref().is_some_and(|away| away.is_whole)
    }

    /// What the client believes of its transaction while a replica answers one of its reads.
    pub(super) fn told_status(&self) -> Option<TransactionStatus> {
        let away = self.away.as_ref().filter(|away| away.is_held)?;
        Some(if away.has_failed { TransactionStatus::Failed } else { TransactionStatus::InTransaction })
    }

    /// Whether so much is kept that it has to be told.
    pub(super) fn keeps_too_much(&self) -> bool {
        self.away.as_ref().is_some_and(|away| away.kept.len() > KEPT_BYTES_MAX)
    }

    /// Whether an answer is to be kept until it is known that it stands.
    pub(super) fn keep(&mut self, batch: &mut Batch<'_>) -> bool {
        let Some(away) = self.away.as_mut().filter(|away| !away.is_told && !away.is_block) else {
            return false;
        };
        away.kept.extend_from_slice(batch.bytes());
        batch.clear();
        true
    }

    /// The client's held BEGIN goes ahead of its message, unless a replica answers that outside of it.
    pub(super) fn begin_held(&mut self, client: &mut Client, out: &mut Vec<u8>) {
        if self.away.as_ref().is_some_and(|away| away.is_held) {
            return;
        }
        let Some(held) = client.held.take() else { return };
        if let Some(away) = &mut self.away {
            away.begun = Some(Held { body: held.body.clone(), ..*held });
        }
        message_query(out, &held.body);
        self.push_ours(Why::Begin);
        if held.failed {
            write::query(out, FAILS);
            self.push_ours(Why::Fail);
        }
    }

    /// Nothing that was sent can commit any more without its answer being here.
    pub(super) fn end_writing(&mut self) {
        let database = &self.pool.database;
        // However it was ended: by a portal that was bound before, for one.
        self.writing.add(&database.split, &self.changed);
        if std::mem::take(&mut self.has_unnoted) && database.split.is_on() {
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

    /// Whether a read that a replica has answered in part was within a held BEGIN.
    pub(super) fn is_away_in_held(&self) -> bool {
        self.away.as_ref().is_some_and(|away| away.is_held)
    }

    pub(super) fn is_asked_for_facts(&self) -> bool {
        matches!(self.phase, Phase::LoggingIn(_))
            && matches!(self.due.front(), Some(Due::Ours(ours)) if matches!(ours.why, Why::Facts))
    }
}
