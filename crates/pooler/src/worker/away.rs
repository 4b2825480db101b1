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
//! **Failure.** Once something was told, or in a transaction that runs there whole, the replica's error is the client's.
//! What the client has seen is remembered whatever way it ends ([`Worker::note_seen`], [`Worker::lost_sight`]).

use std::sync::Arc;

use tenfold_pgwire::{
    backend::{self, TransactionStatus},
    frame::frontend as tag,
    sqlstate, write,
};
use tenfold_sql::{Decision, Destination, Reason, Shape};

use super::{
    Worker,
    batch::Batch,
    client::{Client, Held},
    lend::message_query,
    place::person_of,
    server::{Due, Server, Why},
    slab::Key,
    upstream::Step,
    waiters::First,
};
use crate::{
    mailbox::Ask,
    split::{Follower, InFlight, Split},
    statements::Statement,
};

/// A statement that fails: there is no such savepoint.
const FAILS: &[u8] = b"ROLLBACK TO SAVEPOINT tenfold_failed";

/// What a client is told whose read-only transaction runs at a replica.
const REFUSED: &str = "this transaction runs on a replica, which cannot do this";
const REFUSED_HINT: &str =
    "Begin it with READ WRITE, or send a statement with the comment /*tenfold: primary*/ first.";
/// Answers that are kept back, at most: more of them are told.
const KEPT_BYTES_MAX: usize = 64 * 1_024;

/// What a client has at a replica.
#[derive(Debug)]
pub(super) struct Away {
    _flight: InFlight,
    /// The replica's life.
    life: u32,
    /// An error was told.
    has_failed: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Read(Read),
    Transaction(Transaction),
}

/// One read, which the primary may answer instead.
#[derive(Debug, Default)]
struct Read {
    /// The client's messages, to be sent to the primary instead.
    sent: Vec<u8>,
    /// Statements among these.
    statements: usize,
    /// Names that these give to statements.
    named: Vec<Box<[u8]>>,
    /// What the client's unnamed statement was before.
    unnamed: Option<Arc<Statement>>,
    /// The client's BEGIN is held meanwhile.
    is_held: bool,
    /// All of it was sent: what the client sends next is another matter.
    is_whole: bool,
    answer: Answer,
}

/// What has become of a read's answer.
#[derive(Debug)]
enum Answer {
    /// It tells nothing yet.
    Kept(Vec<u8>),
    /// An error came before anything was told: the primary is to answer.
    Refused,
    /// Something was told.
    Told,
}

/// A transaction that runs there from BEGIN to its end.
#[derive(Debug, Default)]
struct Transaction {
    begun: Option<Held>,
    end: Option<End>,
    /// A statement was put in place of one that must not run there: its error is told in words of ours.
    is_refused: bool,
    /// Its end was sent whole: what the client sends next is another matter.
    is_over: bool,
}

/// COMMIT or ROLLBACK is on its way: with its exchange ends what belongs here.
#[derive(Clone, Copy, Debug)]
struct End {
    /// AND CHAIN.
    chains: bool,
}

impl Default for Answer {
    fn default() -> Self {
        Self::Kept(Vec::new())
    }
}

impl Away {
    fn read(&mut self) -> Option<&mut Read> {
        match &mut self.kind {
            Kind::Read(read) => Some(read),
            Kind::Transaction(_) => None,
        }
    }

    fn transaction(&mut self) -> Option<&mut Transaction> {
        match &mut self.kind {
            Kind::Read(_) => None,
            Kind::Transaction(transaction) => Some(transaction),
        }
    }

    /// Whether the primary is to answer instead.
    fn is_refused(&self) -> bool {
        matches!(&self.kind, Kind::Read(Read { answer: Answer::Refused, .. }))
    }

    /// Whether the primary may still answer instead.
    fn may_rerun(&self) -> bool {
        matches!(&self.kind, Kind::Read(read) if !matches!(read.answer, Answer::Told))
    }
}

impl Worker {
    /// A connection to a replica was lent for a read.
    pub(super) fn go_away(&mut self, server_key: Key, first: &First) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let (Some(replica), Some(at)) = (&server.pool.replica, first.at) else { return };
        let client = server.client.and_then(|client| self.clients.get(client));
        let kind = if at.is_block {
            Kind::Transaction(Transaction::default())
        } else {
            Kind::Read(Read {
                unnamed: client.and_then(|client| client.unnamed.clone()),
                is_held: client.is_some_and(|client| client.held.is_some()),
                ..Read::default()
            })
        };
        server.away =
            Some(Box::new(Away { _flight: replica.enter(), life: at.life, has_failed: false, kind }));
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
        match &mut away.kind {
            Kind::Transaction(transaction) => transaction.is_over |= transaction.end.is_some() && is_end,
            Kind::Read(read) if !read.is_whole => {
                read.sent.extend_from_slice(message);
                read.is_whole = is_end;
                read.statements += usize::from(matches!(message.first(), Some(&(tag::QUERY | tag::BIND))));
            }
            Kind::Read(_) => {}
        }
    }

    /// A read's message gives a statement a name: it is given again if the read has to go elsewhere.
    pub(super) fn note_named(&mut self, server_key: Key, name: &[u8]) {
        let away = self.servers.get_mut(server_key).and_then(|server| server.away.as_mut());
        if let Some(read) = away.and_then(|away| away.read()) {
            read.named.push(name.into());
        }
    }

    /// An answer that is to be passed on tells something: what was kept goes first.
    pub(super) fn tell_kept(&mut self, server_key: Key) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let Some(read) = server.away.as_mut().and_then(|away| away.read()) else { return };
        let Answer::Kept(kept) = &mut read.answer else { return };
        let kept = std::mem::take(kept);
        read.answer = Answer::Told;
        if let (Some(client), false) = (server.client, kept.is_empty()) {
            self.send_client(client, &kept);
        }
    }

    /// An error of a replica: true if the primary is to answer instead.
    pub(super) fn is_refusal(&mut self, server_key: Key, report: &backend::Report<'_>) -> bool {
        let Some(server) = self.servers.get_mut(server_key) else { return false };
        let Some(away) = &mut server.away else { return false };
        let is_cancelled = report.sqlstate() == Some(sqlstate::QUERY_CANCELED);
        let may_rerun = away.may_rerun() && !is_cancelled;
        away.has_failed |= !may_rerun;
        let Some(read) = away.read().filter(|_| may_rerun) else { return false };
        read.answer = Answer::Refused;
        if report.sqlstate() == Some(sqlstate::READ_ONLY_SQL_TRANSACTION) && read.statements == 1 {
            server.pool.database.split.refuse(server.first);
        }
        true
    }

    /// Whether a statement must not run in a transaction that runs at a replica: the primary would do it there, or might,
    /// and the replica cannot, or leaves something in a session that nobody comes back to. What a read-only transaction
    /// cannot do anyway the server says itself.
    pub(super) fn must_not_run(&self, server_key: Key, decision: &Decision) -> bool {
        let Some(server) = self.servers.get(server_key) else { return false };
        let Some(Kind::Transaction(transaction)) = server.away.as_ref().map(|away| &away.kind) else {
            return false;
        };
        if transaction.end.is_some() {
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
        if let Some(transaction) = server.away.as_mut().and_then(|away| away.transaction()) {
            transaction.is_refused = true;
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
        let transaction = self.servers.get_mut(server_key)?.away.as_mut()?.transaction()?;
        if !std::mem::take(&mut transaction.is_refused) {
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
        if let Some(transaction) = away.and_then(|away| away.transaction()) {
            (transaction.end, transaction.is_over) = (None, false);
        }
    }

    /// Whether a transaction at a replica was ended by its client, and another begun.
    pub(super) fn is_chained(&mut self, server_key: Key) -> bool {
        let Some(server) = self.servers.get_mut(server_key) else { return false };
        let Some(transaction) = server.away.as_mut().and_then(|away| away.transaction()) else {
            return false;
        };
        let Some(end) = transaction.end.as_mut().filter(|end| end.chains) else { return false };
        end.chains = false;
        server.status == TransactionStatus::InTransaction && !server.in_series && server.due.is_empty()
    }

    /// The transaction that was begun begins anew, wherever its first statement may run by then.
    pub(super) fn unchain(&mut self, server_key: Key) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let Some(away) = server.away.as_mut().filter(|_| server.client.is_some()) else { return };
        away.has_failed = false;
        let Some(transaction) = away.transaction() else { return };
        transaction.is_over = true;
        server.touched = self.now;
        server.push_ours(Why::Unchain);
        let mut out = Vec::new();
        write::query(&mut out, b"ROLLBACK");
        self.send_server(server_key, &out);
    }

    /// Nothing is begun at the replica any more: the client's transaction is held again.
    pub(super) fn unchained(&mut self, server_key: Key) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let transaction = server.away.as_mut().and_then(|away| away.transaction());
        let begun = transaction.and_then(|transaction| transaction.begun.take());
        if let Some(client) = server.client.and_then(|client| self.clients.get_mut(client)) {
            client.held = begun.map(Box::new);
        }
        self.note_seen(server_key);
        self.transaction_ended(server_key);
    }

    /// A read that a replica refused is over there: the primary answers it. False if it was none.
    pub(super) fn rerun_refused(&mut self, server_key: Key) -> bool {
        let Some(server) = self.servers.get_mut(server_key) else { return false };
        if !server.away.as_ref().is_some_and(|away| away.is_refused()) {
            return false;
        }
        let (Some(client), Some(away)) = (server.client, server.away.take()) else { return false };
        server.forget_effects();
        self.take_back(client, *away);
        self.release(server_key);
        true
    }

    /// A replica's connection is lost before it told anything: the primary answers. False if it is too late for that.
    pub(super) fn rerun_lost(&mut self, key: Key, server: &mut Server) -> bool {
        let Some(away) = server.away.take_if(|away| away.may_rerun()) else { return false };
        self.take_back(key, *away);
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
                server.local == local && server.away.as_ref().is_some_and(|away| away.may_rerun())
            });
            if is_silent {
                self.lose(key, None);
            }
        }
    }

    /// The messages of a read are the client's again, and go to the primary.
    fn take_back(&mut self, key: Key, away: Away) {
        let (Kind::Read(read), Some(client)) = (away.kind, self.clients.get_mut(key)) else { return };
        client.to_primary = true;
        for name in &read.named {
            // They will be given again.
            client.statements.remove(name);
        }
        if !read.sent.is_empty() {
            client.unnamed = read.unnamed;
        }
        client.stash.splice(0..0, read.sent);
        if let Some(seat) = &client.seat {
            self.pools[seat.local].split.routes.reruns += 1;
        }
    }

    /// A transaction of a client has ended at this server: what others must see of it, and the client from now on.
    pub(super) fn note_seen(&mut self, server_key: Key) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        server.end_writing(self.pools[server.local].split.is_on());
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
        if let Some(client) = server.client.and_then(|client| self.clients.get_mut(client)) {
            client.saw(&server.pool.database.split, server.away.as_ref().map(|away| away.life));
        }
    }

    /// As [`Self::note_seen`], of a server that was lost: nobody knows what it did last.
    pub(super) fn lost_sight(&mut self, key: Key, server: &Server) {
        let split = &server.pool.database.split;
        if let (true, Some(client)) = (split.is_on(), self.clients.get_mut(key)) {
            client.saw(split, None);
        }
    }
}

impl Client {
    /// A replica in this life of its, or the primary, has answered it.
    fn saw(&mut self, split: &Split, life: Option<u32>) {
        let sample = split.samples.next();
        let see = |follower: &mut Follower| match life {
            Some(life) => follower.saw_replica(sample, life),
            None => follower.saw_primary(sample),
        };
        see(&mut self.follower);
        if let Some(person) = person_of(self, split) {
            split.identities.update(person, see);
        }
    }
}

impl Server {
    /// Whether a transaction runs there from BEGIN to its end.
    pub(super) fn runs_block(&self) -> bool {
        self.away.as_ref().is_some_and(|away| matches!(away.kind, Kind::Transaction(_)))
    }

    /// A statement of a transaction that runs at a replica ends it.
    pub(super) fn note_end(&mut self, shape: &Shape) {
        let transaction = self.away.as_mut().and_then(|away| away.transaction());
        if let (Some(transaction), Shape::Commit { chain } | Shape::Rollback { chain }) = (transaction, shape)
        {
            transaction.end = Some(End { chains: *chain });
        }
    }

    /// Whether its client's next message is another matter.
    #[inline]
    pub(super) fn takes_no_more(&self) -> bool {
        self.away.as_ref().is_some_and(|away| match &away.kind {
            Kind::Read(read) => read.is_whole,
            Kind::Transaction(transaction) => transaction.is_over,
        })
    }

    /// What the client believes of its transaction while a replica answers one of its reads.
    pub(super) fn told_status(&self) -> Option<TransactionStatus> {
        let away = self.away.as_ref().filter(|_| self.is_away_in_held())?;
        Some(if away.has_failed { TransactionStatus::Failed } else { TransactionStatus::InTransaction })
    }

    /// Whether so much is kept that it has to be told.
    pub(super) fn keeps_too_much(&self) -> bool {
        let Some(Kind::Read(read)) = self.away.as_ref().map(|away| &away.kind) else { return false };
        matches!(&read.answer, Answer::Kept(kept) if kept.len() > KEPT_BYTES_MAX)
    }

    /// Whether an answer is to be kept until it is known that it stands.
    pub(super) fn keep(&mut self, batch: &mut Batch<'_>) -> bool {
        let Some(read) = self.away.as_mut().and_then(|away| away.read()) else { return false };
        match &mut read.answer {
            Answer::Told => return false,
            Answer::Kept(kept) => kept.extend_from_slice(batch.bytes()),
            Answer::Refused => {}
        }
        batch.clear();
        true
    }

    /// The client's held BEGIN goes ahead of its message, unless a replica answers that outside of it.
    pub(super) fn begin_held(&mut self, client: &mut Client, out: &mut Vec<u8>) {
        if self.is_away_in_held() {
            return;
        }
        let Some(held) = client.held.take() else { return };
        if let Some(transaction) = self.away.as_mut().and_then(|away| away.transaction()) {
            transaction.begun = Some(Held { body: held.body.clone(), ..*held });
        }
        message_query(out, &held.body);
        self.push_ours(Why::Begin);
        if held.failed {
            write::query(out, FAILS);
            self.push_ours(Why::Fail);
        }
    }

    /// Whether a read that a replica has answered in part was within a held BEGIN.
    pub(super) fn is_away_in_held(&self) -> bool {
        matches!(self.away.as_ref().map(|away| &away.kind), Some(Kind::Read(read)) if read.is_held)
    }
}
