//! The extended query protocol towards a server: prepared statements under names of ours.
//!
//! **Intuition.** A client's name for a statement means something to that client only. What the server is told is a name
//! for the content, the same for all clients, so that a statement is prepared once per server connection, whoever wants it.
//!
//! **Mechanism.** Parse of a statement the server has is answered by us, in its turn; Bind and Describe of one it lacks are
//! preceded by a Parse of ours. The unnamed statement stays unnamed, and is parsed again where a later Bind finds another's.
//!
//! **Failure.** Names that are taken, or that were never given, are put to the server so that it says so in its own words.

use std::sync::Arc;

use tenfold_pgwire::{backend::TransactionStatus, frame::frontend as tag, frontend, write};
use tenfold_sql::{Catalogue, Decision, Effects, Shape};

use super::{
    Worker,
    batch::Batch,
    client::Client,
    place::Told,
    refuse,
    server::{Due, Named, Server},
    slab::Key,
    stats::Stat,
    upstream::{Message, READ_BYTES_MAX, Step},
};
use crate::{
    config::Mode,
    definitions,
    refusal::Refusal,
    statements::{self, Basis, Statement, Under},
};

/// A statement made only to be deallocated.
const GONE: &[u8] = b"tenfold_gone";
const DEALLOCATE_GONE: &[u8] = b"DEALLOCATE tenfold_gone";

impl Worker {
    pub(super) fn active_parse(
        &mut self,
        key: Key,
        server_key: Key,
        message: Message,
        body: &[u8],
        batch: &mut Batch<'_>,
        decision: &mut Option<Arc<Decision>>,
    ) -> Step {
        if !message.is_whole() {
            return self.parse_unread(key, server_key, message, batch);
        }
        let parse = match frontend::Parse::parse(body) {
            Ok(parse) => parse,
            Err(error) => return self.protocol_error(key, &error.to_string()),
        };
        let read = decision.take().unwrap_or_else(|| self.classify(key, parse.sql));
        let statement = self.intern(key, Some(server_key), &parse, &read);
        if self.awaits_end(server_key, &statement) {
            return Step::Wait;
        }
        self.alias(key, server_key, &read, parse.sql, batch);
        let Some(client) = self.clients.get_mut(key) else { return Step::Gone };
        let Some(server) = self.servers.get_mut(server_key) else { return Step::Wait };
        server.in_series = true;
        if parse.name.is_empty() {
            if is_deallocation(client, &read) {
                deallocate_another(server, batch.stage());
            } else {
                batch.pass(message.start..message.end);
            }
            server.unnamed = statement.id;
            client.unnamed = Some(statement);
            server.due.push_back(Due::Parse);
            return Step::Used;
        }
        let is_sql_name = |name: &Arc<str>| name.as_bytes() == parse.name;
        if client.statements.get(parse.name).is_some()
            || client.image.prepared().iter().any(|(name, _)| is_sql_name(name))
        {
            self.parse_twice(server_key, parse.name, body, batch);
            return Step::Used;
        }
        if server.effects.intersects(Effects::SQL_PREPARE) && server.status != TransactionStatus::Failed {
            // The image does not have it yet.
            server.try_name(parse.name, batch.stage());
        }
        if client.statements.insert(parse.name, Arc::clone(&statement)).is_err() {
            return self.refuse_statements(key);
        }
        self.note_named(server_key, parse.name);
        let named = Box::new(Named { name: parse.name.into(), statement: Arc::clone(&statement) });
        self.parse_named(key, server_key, named, batch);
        Step::Used
    }

    /// A Parse too large to be read: the statement stays where it is made, and the client with it.
    fn parse_unread(&mut self, key: Key, server_key: Key, message: Message, batch: &mut Batch<'_>) -> Step {
        let Some(client) = self.clients.get_mut(key) else { return Step::Gone };
        let Some(server) = self.servers.get_mut(server_key) else { return Step::Wait };
        client.unnamed = None;
        server.unnamed = 0;
        server.effects |= Effects::UNKNOWN;
        server.in_series = true;
        server.due.push_back(Due::Parse);
        batch.pass(message.start..message.end);
        self.note_unread(server_key);
        Step::Used
    }

    /// The statement that a Parse makes. After DDL in the same transaction, which nobody else sees yet, it is one that
    /// nobody else has.
    pub(super) fn intern(
        &mut self,
        key: Key,
        server_key: Option<Key>,
        parse: &frontend::Parse<'_>,
        read: &Arc<Decision>,
    ) -> Arc<Statement> {
        let server = server_key.and_then(|server| self.servers.get(server));
        let client = self.clients.get(key);
        let database = client.and_then(|client| client.seat.as_ref()).map(|seat| &seat.pool.database);
        let definitions = match database {
            Some(database) if !server.is_some_and(Server::has_changed_definitions) => {
                database.definitions.state()
            }
            _ => definitions::unique_state(),
        };
        let under = Under { plan_key: client.map_or(0, |client| client.image.plan_key()), definitions };
        let catalogue =
            database.map_or_else(Catalogue::empty, |database| Arc::clone(&database.definitions.catalogue()));
        if let Some(unnamed) = client.and_then(|client| client.unnamed.as_ref())
            && unnamed.is(parse.sql, parse.param_types_raw, under)
            && !read.needs_text
        {
            return Arc::clone(unnamed);
        }
        let decision = Arc::clone(read);
        let path = self.path_of(key).map_or(0, |path| path.id());
        let basis = Basis::new(&catalogue, path);
        self.shared.statements.intern(parse.sql, parse.param_types_raw, under, basis, decision)
    }

    /// A name that is taken: the server says so itself, in its own words, about a statement of that very name.
    fn parse_twice(&mut self, server_key: Key, name: &[u8], body: &[u8], batch: &mut Batch<'_>) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let out = batch.stage();
        if !server.image.prepared().iter().any(|(prepared, _)| prepared.as_bytes() == name) {
            server.take_name(name, out);
        }
        if frontend::rewrite_parse(body, name, out).is_ok() {
            server.due.push_back(Due::Parse);
        }
        server.unnamed = 0;
    }

    /// Has the server know a statement, or says that it does.
    fn parse_named(&mut self, key: Key, server_key: Key, named: Box<Named>, batch: &mut Batch<'_>) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let id = named.statement.id;
        if server.statements.touch(id) {
            if server.status != TransactionStatus::Failed {
                server.due.push_back(Due::ParseInvented(named));
                self.count_prepared(server_key, true);
                self.say_invented(key, server_key);
                return;
            }
            // In a failed transaction the server refuses a Parse, which it has to be asked for that.
            server.statements.remove(id);
            let mut name = statements::NameBuffer::default();
            write::close(batch.stage(), frontend::Target::Statement(statements::server_name(id, &mut name)));
            server.due.push_back(Due::OurClose);
        }
        self.make_room(server_key, &named.statement, batch);
        let Some(server) = self.servers.get_mut(server_key) else { return };
        named.statement.write_parse(batch.stage());
        server.due.push_back(Due::ParseNamed(named));
        self.count_prepared(server_key, false);
    }

    /// Notes a statement as prepared at the server; the least used goes if there are too many.
    pub(super) fn make_room(&mut self, server_key: Key, statement: &Arc<Statement>, batch: &mut Batch<'_>) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let may_be_dropped = server.is_behind_others();
        if let Some(evicted) = server.statements.insert(statement) {
            let mut name = statements::NameBuffer::default();
            let name = statements::server_name(evicted, &mut name);
            write::close(batch.stage(), frontend::Target::Statement(name));
            server.due.push_back(Due::OurClose);
        }
        if may_be_dropped {
            server.statements.doubt(statement.id, server.statements.series);
        }
    }

    /// Whether it takes the end of an earlier series to know that the server has a statement: an error there would have
    /// its Parse dropped. The client's message waits for that, a round trip at most for each time it is prepared.
    pub(super) fn awaits_end(&mut self, server_key: Key, statement: &Statement) -> bool {
        let Some(server) = self.servers.get_mut(server_key) else { return false };
        let is_doubted = server.statements.is_doubted_outside(statement.id, server.statements.series);
        let awaits = is_doubted && server.due.iter().any(|due| matches!(due, Due::Sync));
        server.statements.awaits_end |= awaits;
        awaits
    }

    /// A series has ended: whoever waited for it goes on.
    pub(super) fn end_awaited(&mut self, server_key: Key) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        if std::mem::take(&mut server.statements.awaits_end)
            && let Some(client) = server.client
        {
            self.resume_soon(client);
        }
    }

    /// Prepares a statement that the client knows and this server does not.
    pub(super) fn ensure(&mut self, server_key: Key, statement: &Arc<Statement>, batch: &mut Batch<'_>) {
        let Some(server) = self.servers.get_mut(server_key) else { return };
        if server.statements.touch(statement.id) {
            self.count_prepared(server_key, true);
            return;
        }
        self.make_room(server_key, statement, batch);
        let Some(server) = self.servers.get_mut(server_key) else { return };
        statement.write_parse(batch.stage());
        server.due.push_back(Due::OurParse { id: statement.id });
        self.count_prepared(server_key, false);
    }

    /// Has the server's unnamed statement be the client's.
    fn ensure_unnamed(&mut self, key: Key, server_key: Key, batch: &mut Batch<'_>) {
        let Some(client) = self.clients.get(key) else { return };
        let Some(server) = self.servers.get_mut(server_key) else { return };
        match &client.unnamed {
            Some(unnamed) if unnamed.id == server.unnamed => {}
            Some(unnamed) => {
                write::parse_raw(batch.stage(), b"", unnamed.text(), unnamed.types());
                server.unnamed = unnamed.id;
                server.due.push_back(Due::OurParse { id: 0 });
            }
            None if server.unnamed != 0 => {
                write::close(batch.stage(), frontend::Target::Statement(b""));
                server.unnamed = 0;
                server.due.push_back(Due::OurClose);
            }
            None => {}
        }
    }

    pub(super) fn active_bind(
        &mut self,
        key: Key,
        server_key: Key,
        message: Message,
        body: &[u8],
        data: &[u8],
        batch: &mut Batch<'_>,
    ) -> Step {
        let Some(names) = frontend::BindNames::peek(body) else {
            return if message.is_whole() || body.len() >= READ_BYTES_MAX {
                self.protocol_error(key, "invalid message format")
            } else {
                Step::Wait
            };
        };
        let Some(client) = self.clients.get(key) else { return Step::Gone };
        let statement = client.statement(names.statement);
        if let Some(statement) = &statement {
            if !names.statement.is_empty() && !self.fits(server_key, statement, batch) {
                return Step::Wait;
            }
            let decision = self.decision_of(key, statement);
            if matches!(decision.shape, Shape::Begin(_)) && self.is_statement_mode(key) {
                self.refuse_and_end(key, Refusal::StatementMode, refuse::NO_TRANSACTIONS);
                return Step::Gone;
            }
            if self.must_not_run(server_key, &decision) {
                return self.refuse_statement(server_key, true, batch);
            }
            self.note_changes(key, server_key, &decision, Told::prepared(statement, Some(body)));
            if self.is_noted(server_key, &decision) {
                self.ahead(key, server_key, decision.effects, batch);
                self.alias(key, server_key, &decision, statement.text(), batch);
                self.note_unsure(server_key, &decision, statement.text());
                self.note_effects(server_key, &decision);
                self.note_deallocation(key, &decision);
                self.join_row(key, server_key, tag::BIND, body, &decision, Some(statement));
            }
        }
        let mut id = 0;
        if names.statement.is_empty() {
            if statement.is_none() {
                self.note_unread(server_key);
            }
            self.ensure_unnamed(key, server_key, batch);
            batch.pass(message.start..message.end);
        } else if let Some(statement) = &statement {
            id = statement.id;
            if self.has_other_rows(server_key, id) {
                return self.refuse_rows(server_key, batch);
            }
            self.ensure(server_key, statement, batch);
            let mut name = statements::NameBuffer::default();
            let name = statements::server_name(statement.id, &mut name);
            let rest = message.start + tenfold_pgwire::frame::HEADER_BYTES + names.len_in_body();
            let rest_len = message.header.len - (rest - message.start);
            frontend::bind_beginning(names.portal, name, rest_len, batch.stage());
            batch.pass(rest..message.end);
        } else {
            self.note_unread(server_key);
            self.pass_unknown(message, data, names.statement, batch);
        }
        let Some(server) = self.servers.get_mut(server_key) else { return Step::Wait };
        self.pools[server.local].stats[Stat::Binds] += 1;
        server.in_series = true;
        server.due.push_back(Due::Bind(id));
        Step::Used
    }

    fn is_statement_mode(&self, key: Key) -> bool {
        let seat = self.clients.get(key).and_then(|client| client.seat.as_ref());
        seat.is_some_and(|seat| seat.pool.mode() == Mode::Statement)
    }

    /// A name the client never prepared: the server says so in its own words, unless the name is one of ours.
    fn pass_unknown(&mut self, message: Message, data: &[u8], name: &[u8], batch: &mut Batch<'_>) {
        if !statements::is_server_name(name) {
            batch.pass(message.start..message.end);
            return;
        }
        let body = message.body(data);
        let other = nobodys_name(name);
        let out = batch.stage();
        let rewritten = match message.header.tag {
            tag::BIND => frontend::rewrite_bind(body, &other, out),
            _ => frontend::rewrite_describe(body, &other, out),
        };
        if rewritten.is_err() {
            batch.pass(message.start..message.end);
        }
    }

    pub(super) fn active_describe(
        &mut self,
        key: Key,
        server_key: Key,
        message: Message,
        body: &[u8],
        batch: &mut Batch<'_>,
    ) -> Step {
        let describe = match frontend::Describe::parse(body) {
            Ok(describe) => describe,
            Err(error) => return self.protocol_error(key, &error.to_string()),
        };
        let due = match describe.target {
            frontend::Target::Portal(_) => {
                batch.pass(message.start..message.end);
                Due::Describe
            }
            frontend::Target::Statement(b"") => {
                self.ensure_unnamed(key, server_key, batch);
                batch.pass(message.start..message.end);
                Due::DescribeStatement(0)
            }
            frontend::Target::Statement(name) => {
                let mut id = 0;
                let known = self.clients.get(key).and_then(|client| client.statements.get(name).cloned());
                if let Some(statement) = known {
                    id = statement.id;
                    if self.awaits_end(server_key, &statement) {
                        return Step::Wait;
                    }
                    self.ensure(server_key, &statement, batch);
                    let mut buffer = statements::NameBuffer::default();
                    let name = statements::server_name(statement.id, &mut buffer);
                    write::describe(batch.stage(), frontend::Target::Statement(name));
                } else if statements::is_server_name(name) {
                    write::describe(batch.stage(), frontend::Target::Statement(&nobodys_name(name)));
                } else {
                    batch.pass(message.start..message.end);
                }
                Due::DescribeStatement(id)
            }
        };
        let Some(server) = self.servers.get_mut(server_key) else { return Step::Wait };
        server.in_series = true;
        server.due.push_back(due);
        Step::Used
    }

    pub(super) fn active_close(
        &mut self,
        key: Key,
        server_key: Key,
        message: Message,
        body: &[u8],
        batch: &mut Batch<'_>,
    ) -> Step {
        let close = match frontend::Close::parse(body) {
            Ok(close) => close,
            Err(error) => return self.protocol_error(key, &error.to_string()),
        };
        let Some(client) = self.clients.get_mut(key) else { return Step::Gone };
        let Some(server) = self.servers.get_mut(server_key) else { return Step::Wait };
        server.in_series = true;
        match close.target {
            frontend::Target::Statement(name) if !name.is_empty() => {
                let removed = client.statements.remove(name);
                if server.forget_alias(name) {
                    write::close(batch.stage(), frontend::Target::Statement(name));
                    server.due.push_back(Due::OurClose);
                }
                let named = removed.map(|statement| Box::new(Named { name: name.into(), statement }));
                server.due.push_back(Due::CloseInvented(named));
                self.say_invented(key, server_key);
            }
            target => {
                if matches!(target, frontend::Target::Statement(_)) {
                    client.unnamed = None;
                    server.unnamed = 0;
                }
                batch.pass(message.start..message.end);
                server.due.push_back(Due::Close);
            }
        }
        Step::Used
    }

    /// DEALLOCATE in the extended protocol of a statement that the protocol made: the name goes.
    fn note_deallocation(&mut self, key: Key, decision: &Decision) {
        if let Shape::Deallocate(name) = &decision.shape
            && let Some(client) = self.clients.get_mut(key)
        {
            client.statements.remove(name);
        }
    }
}

impl Server {
    /// Whether what is sent now stands behind something else in its series that may fail.
    fn is_behind_others(&self) -> bool {
        let last = self.due.iter().rev().find(|due| !matches!(due, Due::OurClose));
        last.is_some_and(|due| !matches!(due, Due::Sync | Due::Query | Due::Ours(_)))
    }
}

/// In place of a client's name that looks like one of ours, one that no server has.
fn nobodys_name(name: &[u8]) -> Vec<u8> {
    [name, b"?"].concat()
}

/// Whether a statement is the DEALLOCATE of one that the protocol made, which has another name at the server.
fn is_deallocation(client: &Client, read: &Decision) -> bool {
    matches!(&read.shape, Shape::Deallocate(name) if client.statements.get(name).is_some())
}

/// Parses a DEALLOCATE that has something to deallocate, so that the server answers as the client expects.
fn deallocate_another(server: &mut Server, out: &mut Vec<u8>) {
    write::close(out, frontend::Target::Statement(GONE));
    write::parse(out, GONE, b"", []);
    write::parse(out, b"", DEALLOCATE_GONE, []);
    server.due.push_back(Due::OurClose);
    server.due.push_back(Due::OurParse { id: 0 });
}
