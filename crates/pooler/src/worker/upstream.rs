//! From a client to its server: which messages need one, what each will be answered with, what has to go ahead of it.
//!
//! **Intuition.** A message is passed on as it came, unless it names a prepared statement (names are ours at the server)
//! or begins a transaction (then the server may first have to be brought to the client's state). For each message passed
//! on, the reply that is due for it is noted, and that is all the state there is.
//!
//! **Mechanism.** [`Worker::upstream`] walks the messages of what was read. Without a server, a message is answered here
//! if it can be ([`Worker::idle_message`]) or asks for one (`lend`). With a server, see [`Worker::active_message`].
//! Messages of up to [`WHOLE_BYTES_MAX`] are handled whole; larger ones are passed on as they come, once their beginning
//! says enough.
//!
//! **Failure.** What is not the protocol ends the client with 08P01. A statement too large to be read counts as
//! unknown: it pins its server connection.

use std::sync::Arc;

use tenfold_pgwire::{
    backend::TransactionStatus,
    frame::{Header, frontend as tag, frontend_header},
    frontend, write,
};
use tenfold_sql::{Decision, Effects, Fingerprint, SetValue, Shape};

use super::{
    Worker,
    batch::Batch,
    client::{Client, State},
    lend::Lending,
    paths::may_move,
    place::{IDENTITY_SETTING, Place, Told, statement_named},
    server::{Due, Phase, Why},
    slab::Key,
    stats::Stat,
    waiters::First,
};
use crate::{
    config::Mode,
    refusal::Refusal,
    statements::{self, Basis, Statement},
};

/// Query and Parse up to this size are read; larger ones are unknown. Dumps and bulk inserts write statements of this
/// order; what is read is held until it is whole, so this also bounds what one client can make us hold.
pub(super) const READ_BYTES_MAX: usize = 1_024 * 1_024;
/// Other messages up to this size are handled whole.
const WHOLE_BYTES_MAX: usize = 16 * 1_024;

/// The name of statements and portals of ours.
const OURS: &[u8] = b"tenfold_ours";

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It was used, or the part of it that is there.
    Used,
    /// The server gets nothing of it, nor of what is still to come of it.
    Dropped,
    /// It must be seen again: more of it has to come, or a server.
    Wait,
    /// The client holds a server now: look at the message again.
    Again,
    /// The client is no more.
    Gone,
    /// The client says goodbye: what it sent before still counts.
    Goodbye,
}

/// One message, or its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Message {
    pub(super) fn is_whole(&self) -> bool {
        self.end - self.start == self.header.len
    }

    fn missing(&self) -> usize {
        self.header.len - (self.end - self.start)
    }

    pub(super) fn body<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        data.get(self.start + tenfold_pgwire::frame::HEADER_BYTES..self.end).unwrap_or_default()
    }
}

impl Worker {
    /// Handles what a logged-in client sent; returns how much of it was used.
    pub(super) fn upstream(&mut self, key: Key, data: &[u8]) -> usize {
        let (ahead, mut decision) = self.waited_for(key);
        let mut batch = Batch::new(data, ahead);
        let mut at = 0;
        let mut served = None;
        let mut leaves = false;
        let mut is_mended = false;
        while let Some(client) = self.clients.get_mut(key) {
            served = client.server();
            if client.passing > 0 {
                let take = client.passing.min(data.len() - at);
                if take == 0 {
                    break;
                }
                client.passing -= take;
                is_mended |= client.passing == 0;
                if client.server().is_some() && !client.dropping {
                    batch.pass(at..at + take);
                }
                at += take;
                continue;
            }
            let header = match frontend_header(&data[at..]) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(error) => {
                    self.protocol_error(key, &error.to_string());
                    break;
                }
            };
            let message = Message { header, start: at, end: data.len().min(at + header.len) };
            if !message.is_whole() && must_be_whole(header) {
                break;
            }
            let step = match client.state {
                State::Idle => self.idle_message(key, message, data, &mut batch, &mut decision),
                State::Active(server) => {
                    self.active_message(key, server, message, data, &mut batch, &mut decision)
                }
                _ => Step::Wait,
            };
            match step {
                Step::Used | Step::Dropped => {
                    decision = None;
                    if let Some(server) = served {
                        self.note_sent(server, &data[message.start..message.end]);
                    }
                    at = message.end;
                    if let Some(client) = self.clients.get_mut(key) {
                        client.passing = message.missing();
                        client.dropping = step == Step::Dropped;
                    }
                }
                Step::Again => {}
                Step::Wait | Step::Gone => break,
                Step::Goodbye => {
                    leaves = true;
                    break;
                }
            }
        }
        self.send_batch(key, served, batch);
        if let (true, Some(server)) = (is_mended, served) {
            self.end_torn(key, server);
        }
        if leaves {
            self.client_leaves(key);
        }
        if self.clients.get(key).is_none() { data.len() } else { at }
    }

    /// What goes ahead of a client's message, else a spare buffer, and what the message does, if its client had to wait
    /// for a server with it.
    fn waited_for(&mut self, key: Key) -> (Vec<u8>, Option<Arc<Decision>>) {
        let server = self.clients.get(key).and_then(Client::server);
        let Some(server) = server.and_then(|server| self.servers.get_mut(server)) else {
            return (self.spare(), None);
        };
        let read = server.read.take();
        let decision = read.and_then(|read| read.under(self.pools[server.local].catalogue()));
        let ahead = std::mem::take(&mut server.prefix);
        (if ahead.is_empty() { self.spare() } else { ahead }, decision)
    }

    /// `served`: the server that the batch is for.
    fn send_batch(&mut self, key: Key, served: Option<Key>, mut batch: Batch<'_>) {
        if let (false, None, Some(server)) = (batch.is_empty(), self.clients.get(key), served) {
            self.unsent(server);
        } else if !batch.is_empty()
            && let Some(server) = self.clients.get(key).and_then(Client::server)
        {
            let bytes = batch.bytes();
            if let Some(pool) = self.pools.get_mut(self.servers.get(server).map_or(0, |server| server.local))
            {
                pool.stats[Stat::BytesReceived] += bytes.len() as u64;
            }
            self.send_server(server, bytes);
        }
        let spare = batch.into_buffer();
        self.give_spare(spare);
    }

    /// A message of a client that holds no server.
    fn idle_message(
        &mut self,
        key: Key,
        message: Message,
        data: &[u8],
        batch: &mut Batch<'_>,
        decision: &mut Option<Arc<Decision>>,
    ) -> Step {
        let body = message.body(data);
        let Some(client) = self.clients.get_mut(key) else { return Step::Gone };
        if client.skipping && !matches!(message.header.tag, tag::SYNC | tag::TERMINATE) {
            return Step::Used;
        }
        if matches!(message.header.tag, tag::PARSE | tag::BIND | tag::DESCRIBE | tag::EXECUTE)
            && let Some(step) = self.begin_prepared(key, message, data, decision)
        {
            return step;
        }
        let Some(client) = self.clients.get_mut(key) else { return Step::Gone };
        match message.header.tag {
            tag::TERMINATE => Step::Goodbye,
            // What follows a COPY that failed is dropped, as the server would.
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL | tag::FLUSH => Step::Used,
            tag::SYNC => {
                client.skipping = false;
                let is_over = client.held.is_none();
                let step = self.answer_ready(key);
                if is_over {
                    self.tell_late(key);
                }
                step
            }
            tag::PASSWORD => self.protocol_error(key, "unexpected password message"),
            tag::CLOSE => match frontend::Close::parse(body) {
                Ok(close) => self.close_idle(key, close.target),
                Err(error) => self.protocol_error(key, &error.to_string()),
            },
            tag::PARSE if message.is_whole() => self
                .parse_idle(key, body, decision)
                .unwrap_or_else(|| self.begin(key, message, data, batch, decision)),
            _ => self.begin(key, message, data, batch, decision),
        }
    }

    /// Parse of a named statement that some server has taken before: nobody has to be asked. It is prepared where it is
    /// used.
    fn parse_idle(&mut self, key: Key, body: &[u8], decision: &mut Option<Arc<Decision>>) -> Option<Step> {
        let parse = frontend::Parse::parse(body).ok()?;
        let client = self.clients.get(key)?;
        let is_session = client.seat.as_ref()?.session;
        if parse.name.is_empty()
            || client.status_without_server() == TransactionStatus::Failed
            || is_session
            || client.statements.get(parse.name).is_some()
            || client.image.prepared().iter().any(|(name, _)| name.as_bytes() == parse.name)
        {
            return None;
        }
        let read = decision.take().unwrap_or_else(|| self.classify(key, parse.sql));
        let statement = self.intern(key, None, &parse, &read);
        if !statement.is_proven() {
            *decision = Some(read);
            return None;
        }
        let client = self.clients.get_mut(key)?;
        if client.statements.insert(parse.name, statement).is_err() {
            return Some(self.refuse_statements(key));
        }
        let mut out = self.spare();
        write::parse_complete(&mut out);
        Some(self.answer(key, out))
    }

    /// ReadyForQuery, with the status the client believes in.
    fn answer_ready(&mut self, key: Key) -> Step {
        let Some(client) = self.clients.get(key) else { return Step::Gone };
        let status = client.status_without_server();
        let mut out = self.spare();
        write::ready_for_query(&mut out, status);
        self.answer(key, out)
    }

    /// Sends an answer of ours.
    pub(super) fn answer(&mut self, key: Key, out: Vec<u8>) -> Step {
        let alive = self.send_client(key, &out);
        self.give_spare(out);
        if alive { Step::Used } else { Step::Gone }
    }

    /// Close of a statement, while no server is held: nobody has to know.
    fn close_idle(&mut self, key: Key, target: frontend::Target<'_>) -> Step {
        let Some(client) = self.clients.get_mut(key) else { return Step::Gone };
        if let frontend::Target::Statement(name) = target {
            if name.is_empty() {
                client.unnamed = None;
            } else {
                client.statements.remove(name);
            }
        }
        let mut out = self.spare();
        write::close_complete(&mut out);
        self.answer(key, out)
    }

    /// The first message of a transaction: answered here, or a server is asked for.
    fn begin(
        &mut self,
        key: Key,
        message: Message,
        data: &[u8],
        batch: &mut Batch<'_>,
        decision: &mut Option<Arc<Decision>>,
    ) -> Step {
        let body = message.body(data);
        let Some(client) = self.clients.get_mut(key) else { return Step::Gone };
        let Some(seat) = client.seat.as_ref() else { return Step::Gone };
        if seat.session {
            return self.lend_session(key, batch);
        }
        let tag = message.header.tag;
        let read = match decision.take() {
            Some(read) => Some(read),
            None => match self.read_statement(key, tag, body, message.is_whole()) {
                Ok(read) => read,
                Err(text) => return self.protocol_error(key, &text),
            },
        };
        if let (tag::QUERY, Some(read)) = (tag, &read)
            && let Some(step) = self.answer_query(key, read, body)
        {
            return step;
        }
        let mut first = self.first(key, tag, body, read.as_ref());
        if self.hold(key, &first) {
            return Step::Wait;
        }
        if let (tag::PARSE, None, Some(read)) = (tag, first.hot, &read) {
            first.hot = self.parsed_row(key, body, data.get(message.end..).unwrap_or_default(), read);
        }
        let rest = data.get(message.start..).unwrap_or_default();
        let lending = match self.place(key, tag, rest, read.as_ref()) {
            Place::Primary => self.want_server(key, &first, read.as_ref()),
            Place::Replica(local, at) => {
                first = First { at: Some(at), is_begin: at.is_block, hot: None, ..first };
                self.want_server_of(key, local, &first, read.as_ref())
            }
            Place::Wait => return Step::Wait,
        };
        *decision = read;
        self.use_lent(key, lending, &first, batch)
    }

    /// With a server the message is looked at again, at once or when the server is in its client's state.
    pub(super) fn use_lent(
        &mut self,
        key: Key,
        lending: Lending,
        first: &First,
        batch: &mut Batch<'_>,
    ) -> Step {
        match lending {
            Lending::Lent(server) if self.prepare(key, server, first, batch) => Step::Again,
            Lending::Lent(_) | Lending::Waiting => Step::Wait,
            Lending::Gone => Step::Gone,
        }
    }

    /// What a Query or a Parse does; `None` for other messages.
    fn read_statement(
        &mut self,
        key: Key,
        tag: u8,
        body: &[u8],
        is_whole: bool,
    ) -> Result<Option<Arc<Decision>>, String> {
        let sql = match tag {
            tag::QUERY if is_whole => frontend::Query::parse(body).map_err(|error| error.to_string())?.sql,
            tag::PARSE if is_whole => frontend::Parse::parse(body).map_err(|error| error.to_string())?.sql,
            tag::QUERY | tag::PARSE => return Ok(Some(Arc::new(Decision::unknown(Fingerprint::default())))),
            _ => return Ok(None),
        };
        Ok(Some(self.classify(key, sql)))
    }

    /// What a prepared statement does: decided when it was prepared, and again when the catalogue has been read since.
    pub(super) fn decision_of(&mut self, key: Key, statement: &Arc<Statement>) -> Arc<Decision> {
        let Some(seat) = self.clients.get(key).and_then(|client| client.seat.as_ref()) else {
            return Arc::new(Decision::unknown(Fingerprint::default()));
        };
        let catalogue = seat.pool.database.definitions.catalogue();
        let catalogue = (catalogue.version(), catalogue.is_stale());
        let path = self.path_of(key).map_or(0, |path| path.id());
        let basis = Basis::of(catalogue, path);
        if let Some(decision) = statement.decision_under(basis) {
            return decision;
        }
        let decision = self.classify(key, statement.text());
        // A catalogue that was read meanwhile decides the next time.
        statement.decide(basis, Arc::clone(&decision));
        decision
    }

    pub(super) fn classify(&mut self, key: Key, sql: &[u8]) -> Arc<Decision> {
        let path = self.path_of(key);
        let Some((client, seat)) =
            self.clients.get(key).and_then(|client| Some((client, client.seat.as_ref()?)))
        else {
            return Arc::new(Decision::unknown(Fingerprint::default()));
        };
        let catalogue = self.pools[seat.local].catalogue();
        let decision = self.classifier.classify_in(sql, client.dialect, catalogue, path.as_deref());
        if path.is_some() && matches!(decision.shape, Shape::Multi) && may_move(decision.effects) {
            // Of several statements in one string the first may have changed where the next one looks.
            return self.classifier.classify_in(sql, client.dialect, catalogue, None);
        }
        decision
    }

    /// What the first message means for lending.
    fn first(&mut self, key: Key, tag: u8, body: &[u8], read: Option<&Arc<Decision>>) -> First {
        let held = self.clients.get(key).is_some_and(|client| client.held.is_some());
        let mut first = First { is_series: tag != tag::QUERY, is_begin: held, ..First::default() };
        let statement = self.statement_of(key, tag, body);
        let decision = match (read, &statement) {
            (Some(read), _) => Arc::clone(read),
            (None, Some(statement)) => self.decision_of(key, statement),
            (None, None) => return first,
        };
        first.effects = decision.effects;
        first.is_begin |= matches!(decision.shape, Shape::Begin(_));
        first.fingerprint = decision.fingerprint;
        first.hot = self.hot_key(key, tag, body, &decision, statement.as_deref());
        if held && first.hot.is_none() {
            first.hot = self.learned_row(key, &decision);
        }
        first
    }

    /// The statement that a Bind or Describe of this client names.
    pub(super) fn statement_of(&self, key: Key, tag: u8, body: &[u8]) -> Option<Arc<Statement>> {
        let is_named = matches!(tag, tag::BIND | tag::DESCRIBE);
        let name = is_named.then(|| statement_named(tag, body)).flatten()??;
        self.clients.get(key)?.statement(name)
    }

    /// Answers a simple query that needs no server: a BEGIN to be held, its end, the end of a prepared statement.
    fn answer_query(&mut self, key: Key, decision: &Decision, body: &[u8]) -> Option<Step> {
        let client = self.clients.get_mut(key)?;
        let local = client.seat.as_ref()?.local;
        let mut out = Vec::new();
        match &decision.shape {
            Shape::Begin(_) if self.pools[local].mode() == Mode::Statement => {
                return Some(self.refuse_transaction(key));
            }
            Shape::Begin(begin) if client.held.is_none() => {
                client.unnamed = None;
                write::command_complete(&mut out, client.hold(body.into(), *begin));
                write::ready_for_query(&mut out, TransactionStatus::InTransaction);
            }
            Shape::Commit { chain: false } | Shape::Rollback { chain: false } if client.held.is_some() => {
                client.unnamed = None;
                write::command_complete(&mut out, client.end_held(&decision.shape));
                write::ready_for_query(&mut out, TransactionStatus::Idle);
                self.count_transaction(key);
                let step = self.answer(key, out);
                self.tell_late(key);
                return Some(step);
            }
            Shape::Set(set)
                if *set.name == *IDENTITY_SETTING
                    && !set.local
                    && client.status_without_server() != TransactionStatus::Failed =>
            {
                let text = match &set.value {
                    SetValue::One(text) => Some(text),
                    SetValue::Default => None,
                    SetValue::Complex => return None,
                };
                let seat = client.seat.as_mut()?;
                let identities = &seat.pool.database.split.identities;
                client.identity = text.and_then(|text| identities.of(text));
                seat.identity_text = text.filter(|_| client.identity.is_some()).map(|text| text[..].into());
                client.unnamed = None;
                write::command_complete(&mut out, b"SET");
                write::ready_for_query(&mut out, client.status_without_server());
            }
            Shape::Reset(name)
                if **name == *IDENTITY_SETTING
                    && client.status_without_server() != TransactionStatus::Failed =>
            {
                client.identity = None;
                client.seat.as_mut()?.identity_text = None;
                client.unnamed = None;
                write::command_complete(&mut out, b"RESET");
                write::ready_for_query(&mut out, client.status_without_server());
            }
            Shape::Deallocate(name)
                if client.statements.get(name).is_some()
                    && client.status_without_server() != TransactionStatus::Failed =>
            {
                client.statements.remove(name);
                client.unnamed = None;
                write::command_complete(&mut out, b"DEALLOCATE");
                write::ready_for_query(&mut out, client.status_without_server());
            }
            _ => return None,
        }
        Some(self.answer(key, out))
    }

    /// A message of a client that holds a server.
    #[inline]
    fn active_message(
        &mut self,
        key: Key,
        server_key: Key,
        message: Message,
        data: &[u8],
        batch: &mut Batch<'_>,
        decision: &mut Option<Arc<Decision>>,
    ) -> Step {
        let Some(server) = self.servers.get_mut(server_key) else { return Step::Wait };
        if !matches!(server.phase, Phase::Lent) || server.takes_no_more() {
            return Step::Wait;
        }
        let now = self.now;
        if server.due.is_empty() {
            server.touched = now;
        }
        if message.header.tag == tag::TERMINATE {
            return Step::Goodbye;
        }
        let is_session =
            self.clients.get(key).and_then(|client| client.seat.as_ref()).is_some_and(|seat| seat.session);
        if is_session {
            return self.session_message(server_key, message, batch);
        }
        if server.skipping && message.header.tag != tag::SYNC {
            return Step::Dropped;
        }
        let body = message.body(data);
        let range = message.start..message.end;
        match message.header.tag {
            tag::QUERY => self.active_query(key, server_key, message, body, batch, decision),
            tag::PARSE => self.active_parse(key, server_key, message, body, batch, decision),
            tag::BIND => self.active_bind(key, server_key, message, body, data, batch),
            tag::DESCRIBE => self.active_describe(key, server_key, message, body, batch),
            tag::CLOSE => self.active_close(key, server_key, message, body, batch),
            tag::EXECUTE => {
                server.due.push_back(Due::Execute);
                server.in_series = true;
                batch.pass(range);
                Step::Used
            }
            tag::SYNC => {
                // In copy mode the server drops it.
                if !server.copying_in {
                    server.due.push_back(Due::Sync);
                    server.in_series = false;
                    server.statements.series += 1;
                    server.skipping = false;
                }
                batch.pass(range);
                Step::Used
            }
            tag::COPY_DONE | tag::COPY_FAIL => {
                server.end_copy();
                batch.pass(range);
                Step::Used
            }
            tag::FUNCTION_CALL => {
                server.due.push_back(Due::Query);
                self.note_unread(server_key);
                let Some(server) = self.servers.get_mut(server_key) else { return Step::Wait };
                let oid = body.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                if !is_large_object_function(oid) {
                    server.effects |= Effects::UNKNOWN;
                }
                batch.pass(range);
                Step::Used
            }
            tag::PASSWORD => self.protocol_error(key, "unexpected password message"),
            _ => {
                batch.pass(range);
                Step::Used
            }
        }
    }

    /// Session mode: everything passes; only the ends of exchanges are counted.
    fn session_message(&mut self, server_key: Key, message: Message, batch: &mut Batch<'_>) -> Step {
        self.note_unread(server_key);
        let Some(server) = self.servers.get_mut(server_key) else { return Step::Wait };
        match message.header.tag {
            tag::QUERY | tag::FUNCTION_CALL => {
                server.due.push_back(Due::Query);
                server.in_series = false;
            }
            tag::SYNC if !server.copying_in => {
                server.due.push_back(Due::Sync);
                server.in_series = false;
            }
            tag::PARSE | tag::BIND | tag::EXECUTE => server.in_series = true,
            tag::COPY_DONE | tag::COPY_FAIL => server.end_copy(),
            _ => {}
        }
        batch.pass(message.start..message.end);
        Step::Used
    }

    fn active_query(
        &mut self,
        key: Key,
        server_key: Key,
        message: Message,
        body: &[u8],
        batch: &mut Batch<'_>,
        decision: &mut Option<Arc<Decision>>,
    ) -> Step {
        let decision = match decision.take() {
            Some(decision) => decision,
            None => match self.read_statement(key, tag::QUERY, body, message.is_whole()) {
                Ok(Some(decision)) => decision,
                Ok(None) => return Step::Used,
                Err(text) => return self.protocol_error(key, &text),
            },
        };
        if let Shape::Deallocate(name) = &decision.shape
            && let Some(step) = self.deallocate_active(key, server_key, name)
        {
            return step;
        }
        if self.must_not_run(server_key, &decision) {
            return self.refuse_statement(server_key, false, batch);
        }
        let sql = frontend::Query::parse(body).map_or(&[][..], |query| query.sql);
        self.note_changes(key, server_key, &decision, Told::simple(sql));
        if self.is_noted(server_key, &decision) {
            self.ahead(key, server_key, decision.effects, batch);
            self.alias(key, server_key, &decision, sql, batch);
            self.note_unsure(server_key, &decision, sql);
            self.note_effects(server_key, &decision);
            self.join_row(key, server_key, tag::QUERY, body, &decision, None);
        }
        let Some(client) = self.clients.get_mut(key) else { return Step::Gone };
        client.unnamed = None;
        let Some(server) = self.servers.get_mut(server_key) else { return Step::Wait };
        server.unnamed = 0;
        server.in_series = false;
        server.due.push_back(Due::Query);
        batch.pass(message.start..message.end);
        Step::Used
    }

    /// DEALLOCATE of a statement that the protocol made: its name is not one the server knows.
    fn deallocate_active(&mut self, key: Key, server_key: Key, name: &[u8]) -> Option<Step> {
        let client = self.clients.get_mut(key)?;
        let server = self.servers.get_mut(server_key)?;
        if server.status == TransactionStatus::Failed
            || !server.due.is_empty()
            || client.statements.get(name).is_none()
        {
            return None;
        }
        client.statements.remove(name);
        if server.forget_alias(name) {
            return None;
        }
        client.unnamed = None;
        let status = server.status;
        let mut out = self.spare();
        write::command_complete(&mut out, b"DEALLOCATE");
        write::ready_for_query(&mut out, status);
        Some(self.answer(key, out))
    }

    /// Gathers what a statement may leave, to be looked into when its transaction ends.
    pub(super) fn note_effects(&mut self, server_key: Key, decision: &Decision) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        if server.reads_otherwise() {
            server.effects |= Effects::UNKNOWN;
        }
        let effects = decision.effects | left_by_prepared(decision);
        server.effects |= effects;
        if effects.intersects(Effects::DDL) {
            server.doubts.is_redefinition_told = false;
            server.doubts.hides |= decision.hides || !decision.effects.intersects(Effects::DDL);
        }
        if matches!(&decision.shape, Shape::Deallocate(name) if statements::is_server_name(name)) {
            // One of ours, which others believe to be there.
            server.tainted = true;
        }
        if decision.effects.intersects(Effects::SQL_EXECUTE | Effects::SQL_PREPARE) {
            let client = server.client.and_then(|client| self.clients.get(client));
            server.note_prepared(client, &decision.shape);
        }
        for name in &decision.settings {
            if !server.names.iter().any(|known| **known == **name) {
                server.names.push(name.as_ref().into());
            }
        }
    }

    /// What has to go ahead of a statement because of what it can see.
    pub(super) fn ahead(&mut self, key: Key, server_key: Key, effects: Effects, batch: &mut Batch<'_>) {
        let Some(server) = self.servers.get(server_key) else { return };
        if server.status == TransactionStatus::Failed || server.skipping {
            return;
        }
        if effects.intersects(Effects::SEQUENCE_READ | Effects::DOUBT) {
            self.discard_sequences(key, server_key, batch);
        }
        if !self.servers.get(server_key).is_some_and(|server| server.in_series) {
            self.replay_ahead(key, server_key, effects, batch);
        }
    }

    /// Drops sequence values that another client drew, before this one can see them.
    pub(super) fn discard_sequences(&mut self, key: Key, server_key: Key, batch: &mut Batch<'_>) {
        let Some(client) = self.clients.get(key) else { return };
        let Some(server) = self.servers.get_mut(server_key) else { return };
        if server.sequences_of == 0 || server.sequences_of == client.id {
            return;
        }
        const SQL: &[u8] = b"DISCARD SEQUENCES";
        let out = batch.stage();
        if server.in_series {
            let name = OURS;
            write::parse(out, name, SQL, []);
            write::bind(out, name, name, frontend::Format::Text, [], frontend::Format::Text);
            write::execute(out, name, 0);
            write::close(out, frontend::Target::Statement(name));
            server.due.push_back(Due::OurParse { id: 0 });
            server.due.push_back(Due::OurBind);
            server.due.push_back(Due::OurExecute);
            server.due.push_back(Due::OurClose);
        } else {
            write::query(out, SQL);
            server.push_ours(Why::DiscardSequences);
        }
        server.sequences_of = 0;
    }

    /// Tells a client that something it sent is not the protocol, and ends it.
    pub(super) fn protocol_error(&mut self, key: Key, text: &str) -> Step {
        self.refuse_and_end(key, Refusal::Protocol, text);
        Step::Gone
    }
}

/// Whether a message is handled only once all of it is there.
fn must_be_whole(header: Header) -> bool {
    match header.tag {
        tag::QUERY | tag::PARSE => header.len <= READ_BYTES_MAX,
        tag::COPY_DATA => false,
        _ => header.len <= WHOLE_BYTES_MAX,
    }
}

/// Functions of the large object interface, which libpq calls by OID (`pg_proc.dat`).
fn is_large_object_function(oid: u32) -> bool {
    matches!(oid, 715 | 764 | 765 | 767 | 952..=958 | 964 | 1_004 | 3_170..=3_172)
}

/// EXECUTE names a statement and does not say what it does: if that leaves more than writes behind, whoever prepares it
/// keeps the server connection.
pub(super) fn left_by_prepared(decision: &Decision) -> Effects {
    const SEEN_AT_EXECUTE: Effects =
        Effects::WRITES.with(Effects::SEQUENCE_MAYBE).with(Effects::SEQUENCE_READ);
    let left = match &decision.shape {
        Shape::Prepare { body, .. } => body.effects.without(SEEN_AT_EXECUTE),
        Shape::Deallocate(_) | Shape::DeallocateAll | Shape::Discard(_) => Effects::NONE,
        _ if decision.effects.intersects(Effects::SQL_PREPARE) => Effects::UNKNOWN,
        _ => Effects::NONE,
    };
    if left.without(Effects::UNSURE).is_empty() { left } else { Effects::UNKNOWN }
}
