//! From a server to its client: which reply is whose, and when an exchange has ended.
//!
//! **Intuition.** Replies come in the order of what was sent, so a queue of what is due tells for each whether the client
//! gets it, whether it is ours, and which ones we owe in its place.
//!
//! **Mechanism.** [`Worker::downstream`] walks the messages of what was read. Rows are not looked into. A message that is
//! not all there yet is passed on as far as it goes, unless it is one we must read whole. After an error in a series,
//! everything due up to Sync is dropped, ours and invented ones too, and what they had noted is undone.
//!
//! **Failure.** A reply that is not due, or a length that cannot be, closes the server connection: nothing that follows
//! on it can be trusted.

use std::sync::Arc;

use tenfold_pgwire::{
    backend::{self, TransactionStatus},
    frame::{self, HEADER_BYTES, Header, backend as tag},
    sqlstate, write,
};
use tenfold_sql::Effects;

use crate::{config::Mode, refusal::Refusal, statements};

use super::{
    Worker,
    batch::Batch,
    fitting, refuse,
    server::{Due, Named, Ours, Phase, Server, Why},
    settle::NOTHING_TO_ASK,
    slab::Key,
    stats::Stat,
};

/// Messages that must be seen whole are no larger than this; larger ones are passed on unread, or refused.
const WHOLE_BYTES_MAX: usize = 1_024 * 1_024;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The client gets it.
    Pass,
    /// It was ours.
    Swallow,
    /// The client gets it, and the exchange may be over.
    Ready,
    /// Ours has ended.
    OurReady,
    /// An exchange of a client that has gone is over.
    NobodysReady,
    /// Nothing on this connection can be trusted.
    Broken(&'static str),
}

impl Worker {
    /// Handles what a server sent; returns how much of it was used.
    pub(super) fn downstream(&mut self, key: Key, data: &[u8]) -> usize {
        let mut batch = Batch::new(data, self.spare());
        let mut at = 0;
        while let Some(server) = self.servers.get_mut(key) {
            if server.passing > 0 {
                let take = server.passing.min(data.len() - at);
                if take == 0 {
                    break;
                }
                server.passing -= take;
                if server.passing_on {
                    batch.pass(at..at + take);
                }
                at += take;
                continue;
            }
            let header = match frame::header(&data[at..]) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(_) => {
                    self.deliver(key, &mut batch);
                    self.server_broken(key, "a message of impossible length");
                    break;
                }
            };
            let end = data.len().min(at + header.len);
            let is_whole = end - at == header.len;
            let is_probed = header.tag == tag::DATA_ROW
                && header.len <= WHOLE_BYTES_MAX
                && matches!(server.due.front(), Some(Due::Ours(_)));
            if !is_whole && (is_probed || must_be_whole(header)) {
                break;
            }
            let body = &data[(at + HEADER_BYTES).min(end)..end];
            let fate = self.reply(key, header, body, &mut batch, at..end);
            match fate {
                Fate::Pass | Fate::Swallow => {
                    let Some(server) = self.servers.get_mut(key) else { break };
                    server.passing = header.len - (end - at);
                    server.passing_on = fate == Fate::Pass;
                    at = end;
                }
                Fate::Ready => {
                    at = end;
                    self.exchange_ended(key, &mut batch);
                }
                Fate::OurReady => {
                    at = end;
                    self.deliver(key, &mut batch);
                    self.ours_ended(key);
                    // What stood behind a statement of ours is due now.
                    self.stage_invented(key, &mut batch);
                }
                Fate::NobodysReady => {
                    at = end;
                    // To nobody: the next step may be to serve the next client.
                    batch.clear();
                    self.abandoned_goes_on(key);
                }
                Fate::Broken(why) => {
                    self.deliver(key, &mut batch);
                    self.server_broken(key, why);
                    break;
                }
            }
        }
        self.deliver(key, &mut batch);
        let spare = batch.into_buffer();
        self.give_spare(spare);
        if self.servers.get(key).is_none() { data.len() } else { at }
    }

    /// Sends to the client what has gathered for it.
    pub(super) fn deliver(&mut self, key: Key, batch: &mut Batch<'_>) {
        if batch.is_empty() {
            return;
        }
        if self.servers.get(key).is_some_and(Server::keeps_too_much) {
            self.tell_kept(key);
        }
        if let Some(server) = self.servers.get_mut(key)
            && let Some(client) = server.client
        {
            if server.keep(batch) {
                return;
            }
            let local = server.local;
            let bytes = batch.bytes();
            self.pools[local].stats[Stat::BytesSent] += bytes.len() as u64;
            self.send_client(client, bytes);
        }
        batch.clear();
    }

    /// One message. What the client gets is put into the batch here.
    #[inline]
    fn reply(
        &mut self,
        key: Key,
        header: Header,
        body: &[u8],
        batch: &mut Batch<'_>,
        range: std::ops::Range<usize>,
    ) -> Fate {
        let Some(server) = self.servers.get_mut(key) else { return Fate::Broken("gone") };
        let fate = match header.tag {
            tag::DATA_ROW | tag::COPY_DATA | tag::COPY_DONE | tag::FUNCTION_CALL_RESPONSE => {
                if matches!(server.due.front(), Some(Due::Ours(_) | Due::OurExecute)) {
                    if header.tag == tag::DATA_ROW && server.is_asked_for_facts() {
                        self.facts_row(key, body);
                    } else if header.tag == tag::DATA_ROW {
                        probe_row(server, body);
                    }
                    Fate::Swallow
                } else {
                    Fate::Pass
                }
            }
            tag::READY_FOR_QUERY => ready(server, body),
            tag::COMMAND_COMPLETE => self.complete(key, body),
            tag::ROW_DESCRIPTION | tag::NO_DATA => self.described(key, body),
            tag::ERROR_RESPONSE => return self.error(key, body, batch, range),
            tag::PARAMETER_STATUS => self.parameter(key, body),
            tag::NOTIFICATION_RESPONSE => notification(server),
            tag::NOTICE_RESPONSE => notice(server),
            tag::COPY_IN_RESPONSE | tag::COPY_BOTH_RESPONSE => copy_in(server),
            tag::COPY_OUT_RESPONSE => Fate::Pass,
            tag::EMPTY_QUERY_RESPONSE | tag::PORTAL_SUSPENDED => executed(server),
            tag::PARSE_COMPLETE => parsed(server),
            tag::BIND_COMPLETE => popped(server, |due| matches!(due, Due::Bind(_) | Due::OurBind)),
            tag::CLOSE_COMPLETE => popped(server, |due| matches!(due, Due::Close | Due::OurClose)),
            tag::PARAMETER_DESCRIPTION => parameters_described(server),
            _ => Fate::Broken("a message that has no place here"),
        };
        if matches!(fate, Fate::Pass) && tells(header.tag) {
            self.tell_kept(key);
        }
        let Some(server) = self.servers.get(key) else { return fate };
        if matches!(fate, Fate::Pass | Fate::Ready) && server.client.is_some() {
            match server.told_status() {
                Some(status) if fate == Fate::Ready => write::ready_for_query(batch.stage(), status),
                _ => batch.pass(range),
            }
        }
        if matches!(server.due.front(), Some(Due::ParseInvented(_) | Due::CloseInvented(_) | Due::CopyEnd)) {
            self.stage_invented(key, batch);
        }
        fate
    }

    /// CommandComplete.
    fn complete(&mut self, key: Key, body: &[u8]) -> Fate {
        let Some(server) = self.servers.get_mut(key) else { return Fate::Pass };
        if server.effects.intersects(Effects::DEALLOCATE_ALL.with(Effects::DISCARD_ALL))
            && matches!(body, b"DEALLOCATE ALL\0" | b"DISCARD ALL\0")
        {
            server.statements.clear();
            server.unnamed = 0;
            if let Some(client) = server.client.and_then(|client| self.clients.get_mut(client)) {
                client.statements.clear();
                if server.effects.intersects(Effects::DISCARD_ALL) {
                    client.identity = None;
                }
            }
        }
        let Some(server) = self.servers.get_mut(key) else { return Fate::Pass };
        if let Some(Due::Query | Due::Execute) = server.due.front() {
            self.pools[server.local].stats[Stat::Queries] += 1;
        }
        executed(server)
    }

    /// ErrorResponse.
    fn error(&mut self, key: Key, body: &[u8], batch: &mut Batch<'_>, range: std::ops::Range<usize>) -> Fate {
        let Ok(report) = backend::Report::parse(body) else { return Fate::Broken("a malformed error") };
        let is_fatal = report.is_fatal();
        let Some(server) = self.servers.get_mut(key) else { return Fate::Swallow };
        if is_fatal {
            // Told when the connection's end is seen, in a form that fits what the client is doing.
            server.last_words = Some(body.into());
            if matches!(report.sqlstate(), Some(sqlstate::ADMIN_SHUTDOWN | sqlstate::CRASH_SHUTDOWN)) {
                server.pool.database.said_farewell(body, self.now);
            }
            return Fate::Swallow;
        }
        if let Some(Due::Ours(ours)) = server.due.front_mut() {
            ours.failed = true;
            server.last_words = Some(body.into());
            return Fate::Swallow;
        }
        if let Some(fate) = self.alias_failed(key, batch, &range) {
            return fate;
        }
        if self.is_refusal(key, &report) {
            if self.servers.get(key).is_some_and(|server| matches!(server.phase, Phase::Describing)) {
                self.described_all(key);
            }
            self.fail_exchange(key);
            return Fate::Swallow;
        }
        self.tell_kept(key);
        let Some(server) = self.servers.get_mut(key) else { return Fate::Swallow };
        server.note_refused(&report);
        if server.client.is_none() {
            if !matches!(server.due.front(), Some(Due::Query | Due::Sync) | None) {
                self.skip_series(key);
            }
            return Fate::Swallow;
        }
        if server.is_session() {
            server.copying_in = false;
            batch.pass(range);
            return Fate::Pass;
        }
        let named = match server.due.front() {
            Some(Due::Bind(id) | Due::DescribeStatement(id)) => *id,
            _ => 0,
        };
        let stands_for_misfit = matches!(server.due.front(), Some(Due::Misfit));
        if named != 0 && fitting::is_misfit(&report) {
            server.note_outdated(named, &self.shared);
        }
        if named != 0 && report.sqlstate() == Some(sqlstate::INVALID_SQL_STATEMENT_NAME) {
            // Whoever took it away, the next one has it prepared again.
            server.statements.remove(named);
        }
        server.copying_in = false;
        if matches!(server.phase, Phase::Describing) {
            self.described_all(key);
        }
        let own = if let Some(refusal) = self.refusal_in_words(key) {
            Some(refusal)
        } else if stands_for_misfit {
            Some(fitting::misfit())
        } else {
            self.in_clients_words(key, named, &report)
        };
        match own {
            Some(error) => batch.stage().extend_from_slice(&error),
            None => batch.pass(range),
        }
        self.fail_exchange(key);
        Fate::Pass
    }

    fn facts_row(&mut self, key: Key, body: &[u8]) {
        let is_usable = backend::DataRow::parse(body).is_ok_and(|row| self.note_facts(key, &row));
        let due = self.servers.get_mut(key).and_then(|server| server.due.front_mut());
        if let (false, Some(Due::Ours(ours))) = (is_usable, due) {
            ours.failed = true;
        }
    }

    /// What an error ends is not answered any more.
    fn fail_exchange(&mut self, key: Key) {
        let Some(server) = self.servers.get_mut(key) else { return };
        match server.due.front() {
            Some(Due::Query | Due::Sync) | None => {}
            Some(_) => self.skip_series(key),
        }
    }

    /// An error that tells a statement by our name, with the client's own instead.
    fn in_clients_words(&self, key: Key, id: u64, report: &backend::Report<'_>) -> Option<Vec<u8>> {
        if id == 0 {
            return None;
        }
        let mut buffer = statements::NameBuffer::default();
        let ours = std::str::from_utf8(statements::server_name(id, &mut buffer)).ok()?;
        let message = std::str::from_utf8(report.message()).ok()?;
        let quoted = format!("\"{ours}\"");
        if !message.contains(&quoted) {
            return None;
        }
        let client = self.clients.get(self.servers.get(key)?.client?)?;
        let name = String::from_utf8_lossy(client.statements.name_of(id)?);
        let message = message.replace(&quoted, &format!("\"{name}\""));
        let mut out = Vec::new();
        write::message::build(&mut out, tag::ERROR_RESPONSE, |out| {
            for (kind, value) in report.fields() {
                out.push(kind);
                out.extend_from_slice(if kind == b'M' { message.as_bytes() } else { value });
                out.push(0);
            }
            out.push(0);
        });
        Some(out)
    }

    /// After an error in a series: nothing more of it is answered, up to Sync.
    fn skip_series(&mut self, key: Key) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let mut undone = Vec::new();
        let mut is_first = true;
        loop {
            match server.due.front() {
                None => {
                    server.skipping = true;
                    break;
                }
                Some(Due::Sync) => break,
                Some(_) => {}
            }
            let Some(due) = server.due.pop_front() else { break };
            match due {
                Due::OurParse { id } => {
                    server.statements.remove(id);
                    server.unnamed = 0;
                    server.doubt_aliases();
                }
                Due::Parse => {
                    server.unnamed = 0;
                    if is_first {
                        undone.push(Undo::Unnamed);
                    }
                }
                Due::ParseNamed(named) => {
                    server.statements.remove(named.statement.id);
                    undone.push(Undo::Parsed(named));
                }
                Due::ParseInvented(named) => undone.push(Undo::Parsed(named)),
                Due::CloseInvented(Some(named)) => undone.push(Undo::Closed(named)),
                // What was to be closed is still there, under a name that is taken for free.
                Due::OurClose => server.tainted = true,
                _ => {}
            }
            is_first = false;
        }
        let Some(client) = server.client.and_then(|client| self.clients.get_mut(client)) else { return };
        for undo in undone.into_iter().rev() {
            match undo {
                Undo::Unnamed => client.unnamed = None,
                Undo::Parsed(named) => {
                    client.statements.remove(&named.name);
                }
                Undo::Closed(named) => {
                    // It was there a moment ago, so there is room.
                    let _ = client.statements.insert(&named.name, named.statement);
                }
            }
        }
    }

    /// Says what we owe, if it is the client's turn to hear it.
    pub(super) fn say_invented(&mut self, key: Key, server_key: Key) {
        let mut batch = Batch::new(&[], self.spare());
        self.stage_invented(server_key, &mut batch);
        let is_kept = self.servers.get_mut(server_key).is_some_and(|server| server.keep(&mut batch));
        if !is_kept && !batch.is_empty() {
            let bytes = batch.bytes();
            self.send_client(key, bytes);
        }
        let spare = batch.into_buffer();
        self.give_spare(spare);
    }

    fn stage_invented(&mut self, key: Key, batch: &mut Batch<'_>) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let is_heard = server.client.is_some();
        loop {
            match server.due.front() {
                Some(Due::ParseInvented(_)) if is_heard => write::parse_complete(batch.stage()),
                Some(Due::CloseInvented(_)) if is_heard => write::close_complete(batch.stage()),
                Some(Due::ParseInvented(_) | Due::CloseInvented(_)) => {}
                // What it stands behind was no COPY. In session mode that is not known of all that it stands behind.
                Some(Due::CopyEnd) if !is_heard || !server.is_session() => {}
                _ => return,
            }
            server.due.pop_front();
        }
    }

    /// A ReadyForQuery of the client's.
    fn exchange_ended(&mut self, key: Key, batch: &mut Batch<'_>) {
        self.end_awaited(key);
        if self.rerun_refused(key) {
            batch.clear();
            return;
        }
        self.tell_kept(key);
        let Some(server) = self.servers.get_mut(key) else { return };
        let now = self.now;
        server.touched = now;
        if server.status != TransactionStatus::Idle {
            self.see(key);
            if self.is_chained(key) {
                self.deliver(key, batch);
                self.unchain(key);
                return;
            }
            self.goes_on(key);
            let Some(server) = self.servers.get_mut(key) else { return };
            let client = server.client;
            if !server.is_session() && self.pools[server.local].mode() == Mode::Statement {
                // A BEGIN among several statements: as of one alone, but what was said of the others stands.
                batch.unpass(HEADER_BYTES + 1);
                self.deliver(key, batch);
                if let Some(client) = client {
                    self.refuse_and_end(client, Refusal::StatementMode, refuse::NO_TRANSACTIONS);
                }
            }
            return;
        }
        if server.effects.intersects(Effects::DDL) {
            self.tell_redefined(key);
        }
        let Some(server) = self.servers.get_mut(key) else { return };
        if server.in_series || server.due.iter().any(Due::is_clients) {
            server.unsettled |= !server.effects.without(NOTHING_TO_ASK).is_empty();
            self.see(key);
            return;
        }
        // Before the client hears of it: from then on others may come for what it did.
        self.note_seen(key);
        let Some(server) = self.servers.get_mut(key) else { return };
        if server.is_session() {
            self.deliver(key, batch);
            self.session_idle(key);
            return;
        }
        let client = server.client.and_then(|client| self.clients.get(client));
        if client.is_some_and(|client| client.passing > 0 && !client.dropping) {
            // What is left of its message would be taken for the next client's.
            server.torn = true;
            return;
        }
        if server.effects.intersects(Effects::LISTEN) {
            // The client hears that it listens only when the hub does.
            server.owes_ready = true;
            batch.unpass(HEADER_BYTES + 1);
        }
        let client = server.client;
        self.deliver(key, batch);
        // A client that went at this very moment has left its server to the next one already.
        if self.servers.get(key).is_some_and(|server| server.client == client) {
            self.transaction_ended(key);
        }
    }
}

/// Whether a message to a client tells something that cannot be taken back.
fn tells(tag: u8) -> bool {
    !matches!(
        tag,
        tag::PARSE_COMPLETE
            | tag::BIND_COMPLETE
            | tag::CLOSE_COMPLETE
            | tag::PARAMETER_DESCRIPTION
            | tag::ROW_DESCRIPTION
            | tag::NO_DATA
            | tag::NOTICE_RESPONSE
    )
}

enum Undo {
    Unnamed,
    Parsed(Box<Named>),
    Closed(Box<Named>),
}

/// Whether a message is handled only once all of it is there.
fn must_be_whole(header: Header) -> bool {
    match header.tag {
        tag::DATA_ROW | tag::COPY_DATA | tag::FUNCTION_CALL_RESPONSE => false,
        _ => header.len <= WHOLE_BYTES_MAX,
    }
}

fn ready(server: &mut Server, body: &[u8]) -> Fate {
    let Ok(ready) = backend::ReadyForQuery::parse(body) else {
        return Fate::Broken("a malformed ReadyForQuery");
    };
    server.status = ready.status;
    while matches!(server.due.front(), Some(Due::CopyEnd)) {
        server.due.pop_front();
    }
    match server.due.front() {
        Some(Due::Ours(_)) => Fate::OurReady,
        Some(Due::Query | Due::Sync) => {
            server.due.pop_front();
            server.copying_in = false;
            server.torn = false;
            if server.client.is_none() { Fate::NobodysReady } else { Fate::Ready }
        }
        _ => Fate::Broken("a ReadyForQuery that nobody asked for"),
    }
}

fn executed(server: &mut Server) -> Fate {
    match server.due.front() {
        Some(Due::Execute) => {
            server.due.pop_front();
            Fate::Pass
        }
        Some(Due::OurExecute) => {
            server.due.pop_front();
            Fate::Swallow
        }
        Some(Due::Ours(_)) => Fate::Swallow,
        _ => Fate::Pass,
    }
}

fn parameters_described(server: &mut Server) -> Fate {
    let is_session = server.is_session();
    match server.due.front_mut() {
        Some(Due::DescribeStatement(id)) => {
            let id = *id;
            server.due.pop_front();
            server.due.push_front(Due::Rows(id));
            Fate::Pass
        }
        Some(Due::OurDescribe(_)) => Fate::Swallow,
        _ if is_session => Fate::Pass,
        _ => Fate::Broken("a ParameterDescription that nobody asked for"),
    }
}

fn parsed(server: &mut Server) -> Fate {
    match server.due.front() {
        Some(Due::Parse) => {
            server.due.pop_front();
            Fate::Pass
        }
        Some(Due::ParseNamed(named)) => {
            named.statement.prove();
            server.statements.confirm(named.statement.id);
            server.due.pop_front();
            Fate::Pass
        }
        Some(Due::OurParse { id }) => {
            server.statements.confirm(*id);
            server.due.pop_front();
            Fate::Swallow
        }
        _ if server.is_session() => Fate::Pass,
        _ => Fate::Broken("a ParseComplete that nobody asked for"),
    }
}

fn popped(server: &mut Server, is_it: impl Fn(&Due) -> bool) -> Fate {
    if server.is_session() && !matches!(server.due.front(), Some(Due::Ours(_))) {
        return Fate::Pass;
    }
    match server.due.front() {
        Some(due) if is_it(due) => {
            let is_clients = due.is_clients();
            server.due.pop_front();
            if is_clients { Fate::Pass } else { Fate::Swallow }
        }
        _ => Fate::Broken("a reply that nobody asked for"),
    }
}

fn notification(server: &Server) -> Fate {
    // Elsewhere the hub tells those who listen.
    if server.is_session() { Fate::Pass } else { Fate::Swallow }
}

fn notice(server: &Server) -> Fate {
    let is_ours = matches!(server.due.front(), Some(due) if !due.is_clients());
    if server.client.is_none() || is_ours { Fate::Swallow } else { Fate::Pass }
}

fn copy_in(server: &mut Server) -> Fate {
    if matches!(server.due.front(), Some(Due::Ours(_))) {
        return Fate::Broken("copy mode that nobody asked for");
    }
    server.begin_copy();
    Fate::Pass
}

fn probe_row(server: &mut Server, body: &[u8]) {
    let is_probe = matches!(server.due.front(), Some(Due::Ours(Ours { why: Why::Probe, .. })));
    if !is_probe {
        return;
    }
    let row = backend::DataRow::parse(body);
    let read = match (&mut server.phase, row) {
        (Phase::Settling(probing), Ok(row)) if row.columns_count() == 3 => {
            let column = |index| row.column(index).flatten();
            probing.reader.row(column(0), column(1), column(2)).is_ok()
        }
        _ => false,
    };
    if !read && let Some(Due::Ours(ours)) = server.due.front_mut() {
        ours.failed = true;
    }
}

/// The image a replay leads to.
pub(super) fn image_after(ours: &Ours) -> Option<&Arc<crate::image::Image>> {
    match &ours.why {
        Why::Replay(image) | Why::ReplayAhead(image) => Some(image),
        _ => None,
    }
}
