//! Where the first message of a transaction goes: to the primary, to a replica, or nowhere yet.
//!
//! **Intuition.** A read leaves the primary's queue only if all of it is here to be read: a whole simple query, or a
//! series up to its Sync, every statement of which may run on a replica. Then the answer is the replica's alone, nothing
//! of the client's comes after it there, and the whole can be sent to the primary instead as long as nothing was told.
//!
//! **Mechanism.** [`Worker::place`] asks the statements for their tables, the tables and the client for their floors, and
//! `split::choose` for a replica. In a transaction whose BEGIN is held, reads go to replicas one by one and the client
//! stays in its transaction, until the first statement that is no such read takes the BEGIN to the primary; one of READ ONLY
//! and REPEATABLE READ that begins with a read runs on one replica whole. A client that waits for a replica to catch up is
//! looked at again whenever positions are known ([`Worker::positions_known`]).
//!
//! **Failure.** Whatever is not known to be right goes to the primary, with a word for the reason that is counted.

use std::{hash::BuildHasher, sync::Arc, time::Duration};

use arc_swap::{ArcSwap, ArcSwapOption};
use tenfold_pgwire::{
    frame::{HEADER_BYTES, frontend as tag, frontend_header},
    frontend,
};
use tenfold_sql::{
    Begin, Decision, Destination, Dialect, HotKey, Isolation, KeyText, Tables, key_text, shown,
};

use super::{
    Worker,
    client::{Behind, Client, Needs, State},
    slab::Key,
    waiters::At,
};
use crate::{
    config::{self, Consistency},
    pool::Pool,
    shared::Database,
    split::{
        self, Begins, Carried, Choice, Identity, Keyed, Limits, Need, REPLICA, Replica, Routes, Split, Top,
        TraceId, Why, choose, isolation_of, param_value, said_in, text_value,
    },
    statements::Statement,
};

/// The setting that says who is behind a connection.
pub(super) const IDENTITY_SETTING: &str = "tenfold.identity";
/// Statements of one series that are looked at.
const SERIES_MAX: usize = 64;
/// Bytes of a statement's text that the top list shows.
const SHOWN_BYTES_MAX: usize = 200;
/// How long a client waits for its own replica alone.
const OWN_WAIT_MAX: Duration = Duration::from_millis(4);
/// How late it is noticed at most that a replica lags too far to be used.
const SEEN_LATE_MAX: Duration = Duration::from_secs(2);

/// Where a transaction begins.
#[derive(Debug)]
pub(super) enum Place {
    /// At the primary.
    Primary,
    /// At a replica, of which this is the worker's part of the pool.
    Replica(usize, At),
    /// Nowhere: its client waits for a replica to catch up.
    Wait,
}

/// A worker's view of a database's replicas.
pub(super) struct LocalSplit {
    replicas: arc_swap::Cache<ReplicasOf, Arc<Vec<Arc<Replica>>>>,
    spec: arc_swap::Cache<SpecOf, Arc<config::Database>>,
    begins: arc_swap::Cache<Arc<ArcSwapOption<Begins>>, Option<Arc<Begins>>>,
    /// Pools of the same user at replicas.
    at: Vec<Arc<Pool>>,
    critical: Critical,
    /// What went where.
    pub(super) routes: Routes,
    /// The statements that did so most often.
    pub(super) top: Top,
}

/// Tables that are read at the primary only, and what this was found by: the catalogue's version, the configuration.
#[derive(Debug, Default)]
struct Critical {
    version: u64,
    spec: Option<Arc<config::Database>>,
    tables: Tables,
}

impl Critical {
    #[inline]
    fn holds(&self, reads: &Tables) -> bool {
        match (&self.tables, reads) {
            (Tables::All, _) => true,
            (Tables::Some(own), Tables::All) => !own.is_empty(),
            (Tables::Some(own), Tables::Some(_)) => own.iter().any(|table| reads.contains(*table)),
        }
    }
}

struct ReplicasOf(Arc<Database>);
struct SpecOf(Arc<Database>);

impl std::ops::Deref for ReplicasOf {
    type Target = ArcSwap<Vec<Arc<Replica>>>;

    fn deref(&self) -> &Self::Target {
        &self.0.split.replicas
    }
}

impl std::ops::Deref for SpecOf {
    type Target = ArcSwap<config::Database>;

    fn deref(&self) -> &Self::Target {
        &self.0.spec
    }
}

impl LocalSplit {
    pub(super) fn new(pool: &Pool) -> Self {
        let database = &pool.database;
        Self {
            begins: arc_swap::Cache::new(Arc::clone(pool.begins_cell())),
            replicas: arc_swap::Cache::new(ReplicasOf(Arc::clone(database))),
            spec: arc_swap::Cache::new(SpecOf(Arc::clone(database))),
            at: Vec::new(),
            critical: Critical::default(),
            routes: Routes::default(),
            top: Top::default(),
        }
    }

    /// Where sessions begin; `None` until a server has said so.
    #[inline]
    pub(super) fn begins(&mut self) -> Option<&Begins> {
        self.begins.load().as_deref()
    }

    #[inline]
    pub(super) fn is_on(&mut self) -> bool {
        !self.replicas.load().is_empty()
    }
}

/// A statement's text, and what it was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub(super) sql: &'a [u8],
    /// Bind's body.
    pub(super) bind: Option<&'a [u8]>,
    /// Types that Parse declared: 32-bit oids.
    pub(super) types: &'a [u8],
    /// The statement, if it was prepared before.
    pub(super) prepared: Option<&'a Statement>,
}

impl<'a> Told<'a> {
    /// A simple query's text.
    pub(super) const fn simple(sql: &'a [u8]) -> Self {
        Self { sql, bind: None, types: &[], prepared: None }
    }

    /// A prepared statement with what its Bind gives. `bind`: its body.
    pub(super) fn prepared(statement: &'a Statement, bind: Option<&'a [u8]>) -> Self {
        Self { sql: statement.text(), bind, types: statement.types(), prepared: Some(statement) }
    }

    /// What picks the rows.
    fn key_text(&self, dialect: Dialect, key: &HotKey) -> Option<KeyText<'a>> {
        match self.prepared {
            Some(statement) => statement.key_text(dialect, key),
            None => key_text(self.sql, dialect, key),
        }
    }
}

/// What a held BEGIN means for where its reads may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    /// There is none: each statement, or series, stands alone.
    None,
    /// Reads may go to replicas one by one.
    Reads,
    /// The whole transaction may run on a replica: read-only, with one snapshot, which shows any table.
    Snapshot,
}

impl Worker {
    /// Where the first message of a transaction goes. `rest`: the message, and what is there behind it.
    pub(super) fn place(&mut self, key: Key, tag: u8, rest: &[u8], read: Option<&Arc<Decision>>) -> Place {
        let Some(client) = self.clients.get_mut(key) else { return Place::Primary };
        let Some(seat) = client.seat.as_ref() else { return Place::Primary };
        let local = seat.local;
        if !self.pools[local].split.is_on() {
            return Place::Primary;
        }
        let (place, route) = match self.choice_for(key, local, tag, rest, read) {
            Ok((choice, block, needs)) => self.chosen(key, local, choice, block, needs),
            Err(reason) => {
                self.caught_up(key, local);
                self.pools[local].split.routes.at_primary(reason);
                (Place::Primary, reason)
            }
        };
        if !matches!(place, Place::Wait) && self.pools[local].split.top.is_next() {
            self.note_top(key, local, (tag, rest), read, route);
        }
        place
    }

    /// The first statement of a transaction goes to the top list.
    fn note_top(
        &mut self,
        key: Key,
        local: usize,
        (tag, rest): (u8, &[u8]),
        read: Option<&Arc<Decision>>,
        route: &'static str,
    ) {
        let body = whole_body(rest).unwrap_or_default();
        let statement = self.statement_of(key, tag, body);
        let decision = match (read, &statement) {
            (Some(read), _) => Arc::clone(read),
            (None, Some(statement)) => self.decision_of(key, statement),
            (None, None) => return,
        };
        let dialect = self.clients.get(key).map(|client| client.dialect).unwrap_or_default();
        let text = || {
            let sql = match (tag, &statement) {
                (tag::QUERY, _) => frontend::Query::parse(body).map_or(&[][..], |query| query.sql),
                (tag::PARSE, _) => frontend::Parse::parse(body).map_or(&[][..], |parse| parse.sql),
                (_, Some(statement)) => statement.text(),
                _ => &[],
            };
            shown(sql, dialect, SHOWN_BYTES_MAX)
        };
        self.pools[local].split.top.note(decision.fingerprint, route, text);
    }

    /// Which replica could answer, or why none may.
    fn choice_for(
        &mut self,
        key: Key,
        local: usize,
        tag: u8,
        rest: &[u8],
        read: Option<&Arc<Decision>>,
    ) -> Result<(Choice, Block, Needs), &'static str> {
        let client = self.clients.get_mut(key).ok_or("unknown")?;
        if std::mem::take(&mut client.to_primary) {
            return Err("rerun");
        }
        self.know_critical(local);
        let block = self.block_of(key)?;
        let tables = self.need(key, tag, rest, read, block)?;
        let catalogue = self.pools[local].catalogue().version();
        let before = self.needs_when_it_came(key, local, catalogue);
        let mut needs = before.unwrap_or(Needs { tables, key: None, catalogue });
        let mut choice = self.choice(key, local, needs.tables);
        if matches!(choice, Choice::Replica { .. } | Choice::Primary(Why::NoReplica))
            || block == Block::Snapshot
        {
            return Ok((choice, block, needs));
        }
        if before.is_none() {
            needs.key = self.need_of_key(key, tag, rest, read);
        }
        if let Some(need) = needs.key {
            choice = self.choice(key, local, need);
        }
        Ok((choice, block, needs))
    }

    /// What a read that waits needed when it came, and what may have changed anything since. `None` if it has not waited,
    /// or definitions have changed meanwhile, and with them perhaps its tables.
    fn needs_when_it_came(&self, key: Key, local: usize, catalogue: u64) -> Option<Needs> {
        let behind = self.clients.get(key)?.behind.as_deref()?;
        let mut needs = Some(behind.needs).filter(|needs| needs.catalogue == catalogue)?;
        let anything = self.pools[local].pool.database.split.floors.need(&Tables::NONE);
        needs.tables.raise(anything);
        if let Some(need) = &mut needs.key {
            need.raise(anything);
        }
        Some(needs)
    }

    /// Which tables `primary_tables` means, by the catalogue as it is now.
    fn know_critical(&mut self, local: usize) {
        let part = &mut self.pools[local];
        let spec = Arc::clone(part.split.spec.load());
        let names = &spec.reads.primary_tables;
        if names.is_empty() {
            part.split.critical = Critical::default();
            return;
        }
        let version = part.catalogue().version();
        let is_same = |known: &Arc<config::Database>| Arc::ptr_eq(known, &spec);
        let critical = &part.split.critical;
        if critical.version == version && critical.spec.as_ref().is_some_and(is_same) {
            return;
        }
        let mut tables = Tables::NONE;
        for name in names {
            let (schema, table) = match name.split_once('.') {
                Some((schema, table)) => (Some(schema), table),
                None => (None, name.as_str()),
            };
            if let Some((reads, _)) = part.catalogue().tables(schema, table) {
                tables.merge(&reads.clone());
            }
        }
        part.split.critical = Critical { version, spec: Some(spec), tables };
    }

    /// What the client's BEGIN, or none, means.
    fn block_of(&mut self, key: Key) -> Result<Block, &'static str> {
        let (client, seat) = self
            .clients
            .get(key)
            .and_then(|client| Some((client, client.seat.as_ref()?)))
            .ok_or("unknown")?;
        let defaults = self.pools[seat.local].split.begins().ok_or("defaults_unknown")?;
        let own = |name| client.image.setting(name);
        let isolation = own("default_transaction_isolation")
            .map_or(Some(defaults.isolation), isolation_of)
            .ok_or("defaults_unknown")?;
        let is_read_only = own("default_transaction_read_only")
            .map_or(Some(defaults.is_read_only), switch)
            .ok_or("defaults_unknown")?;
        let Some(held) = &client.held else {
            // A statement alone is a transaction of the default level, which a standby may not have.
            let is_had = isolation != Isolation::Serializable;
            return if is_had { Ok(Block::None) } else { Err("serializable") };
        };
        let Begin { isolation: asked, read_only, .. } = held.begin;
        if held.failed {
            return Err("transaction_failed");
        }
        match (asked.unwrap_or(isolation), read_only.unwrap_or(is_read_only)) {
            (Isolation::Serializable, _) => Err("serializable"),
            (Isolation::RepeatableRead, true) => Ok(Block::Snapshot),
            (Isolation::RepeatableRead, false) => Err("repeatable_read"),
            // Each statement sees what was committed before it: each has a floor of its own.
            (Isolation::ReadCommitted | Isolation::ReadUncommitted, _) => Ok(Block::Reads),
        }
    }

    /// The value that picks the rows of a statement about one table, where it has one.
    pub(super) fn keyed(
        &self,
        key: Key,
        tables: &Tables,
        decision: &Decision,
        told: Told<'_>,
    ) -> Option<Keyed> {
        let (Some(own), Tables::Some(tables)) = (&decision.route.key, tables) else { return None };
        let [table] = tables[..] else { return None };
        let client = self.clients.get(key)?;
        let hasher = &client.seat.as_ref()?.pool.database.split.hasher;
        let value = match told.key_text(client.dialect, &own.value)? {
            KeyText::Literal(text) => text_value(hasher, &text)?,
            KeyText::Param(number) => {
                let index = number.checked_sub(1)?;
                let bind = frontend::Bind::parse(told.bind?).ok()?;
                let types = told.types.get(usize::from(index) * 4..);
                let declared = types.and_then(|types| types.first_chunk::<4>());
                let oid = declared.map_or(0, |oid| u32::from_be_bytes(*oid));
                param_value(hasher, bind.param(index)??, bind.param_format(index), oid)?
            }
        };
        Some(Keyed { table, column: hasher.hash_one(&*own.column), value })
    }

    /// What a replica needs to answer the message and what belongs to it; else why none may.
    fn need(
        &mut self,
        key: Key,
        tag: u8,
        rest: &[u8],
        read: Option<&Arc<Decision>>,
        block: Block,
    ) -> Result<Need, &'static str> {
        match (tag, read) {
            (tag::QUERY, Some(read)) => {
                let body = whole_body(rest);
                let query = body.and_then(|body| frontend::Query::parse(body).ok());
                self.note_person(key, query.map_or(&[][..], |query| query.sql));
                self.need_of(key, read, block)
            }
            (tag::PARSE | tag::BIND | tag::DESCRIBE, _) if block != Block::Snapshot => {
                self.need_of_series(key, rest, read, block)
            }
            // All of the transaction runs there, so that its first statement tells enough.
            (tag::PARSE, Some(read)) => self.need_of(key, read, block),
            (tag::BIND | tag::DESCRIBE, _) => self.need_of_series(key, rest, read, block),
            _ => Err("protocol"),
        }
    }

    /// A statement's text may say who is behind it, of which request it is, and what it must see.
    pub(super) fn note_person(&mut self, key: Key, sql: &[u8]) -> Option<TraceId> {
        let said = said_in(sql);
        if said.is_nothing() {
            return None;
        }
        let client = self.clients.get_mut(key)?;
        let seat = client.seat.as_ref()?;
        let split = &seat.pool.database.split;
        let person = said.identity.and_then(|text| split.identities.of(text));
        client.person = person.or(client.person);
        if let Some(trace) = said.trace {
            split.traces.seen(trace, split.samples.next());
        }
        if let Some(token) = said.position {
            let carried = Carried::read(token);
            let all = client.carried.take().map_or(carried, |other| other.and(carried));
            client.carried = Some(Box::new(all));
        }
        said.trace
    }

    fn need_of(&self, key: Key, read: &Decision, block: Block) -> Result<Need, &'static str> {
        let seat = self.clients.get(key).and_then(|client| client.seat.as_ref()).ok_or("unknown")?;
        let split = &seat.pool.database.split;
        match read.route.destination {
            Destination::Primary(reason) => return Err(reason.label()),
            Destination::Follows => return Err("in_transaction"),
            Destination::Replica if read.route.binds && block == Block::Reads => {
                return Err("in_transaction");
            }
            Destination::Replica => {}
        }
        if split.is_refused(read.fingerprint) {
            return Err("refused_before");
        }
        let reads = if block == Block::Snapshot { &Tables::All } else { &read.route.reads };
        if self.pools[seat.local].split.critical.holds(reads) {
            return Err("primary_table");
        }
        Ok(split.floors.need(reads))
    }

    /// The needs of all statements up to Sync, which has to be there.
    /// `first`: what its first message does, if that is a Parse.
    fn need_of_series(
        &mut self,
        key: Key,
        mut rest: &[u8],
        mut first: Option<&Arc<Decision>>,
        block: Block,
    ) -> Result<Need, &'static str> {
        let mut need = Need::default();
        let mut parsed: Vec<(&[u8], Arc<Decision>)> = Vec::new();
        let mut is_open = false;
        for _ in 0..SERIES_MAX {
            let header = frontend_header(rest).ok().flatten().ok_or("unfinished_series")?;
            let (message, behind) = rest.split_at_checked(header.len).ok_or("unfinished_series")?;
            let body = message.get(HEADER_BYTES..).ok_or("protocol")?;
            rest = behind;
            match header.tag {
                tag::PARSE => {
                    let parse = frontend::Parse::parse(body).map_err(|_| "protocol")?;
                    let read = first.take().map_or_else(|| self.classify(key, parse.sql), Arc::clone);
                    self.note_person(key, parse.sql);
                    need.raise(self.need_of(key, &read, block)?);
                    parsed.push((parse.name, read));
                }
                tag::BIND | tag::DESCRIBE => {
                    if block == Block::Reads && header.tag == tag::BIND {
                        // A portal that outlives its Sync is the transaction's.
                        let names = frontend::BindNames::peek(body).ok_or("protocol")?;
                        if is_open || !names.portal.is_empty() {
                            return Err("in_transaction");
                        }
                        is_open = true;
                    }
                    let Some(name) = statement_named(header.tag, body).ok_or("protocol")? else { continue };
                    if parsed.iter().any(|(other, _)| *other == name) {
                        continue;
                    }
                    let client = self.clients.get(key).ok_or("unknown")?;
                    let statement = client.statement(name).ok_or("unknown_statement")?;
                    let read = self.decision_of(key, &statement);
                    self.note_person(key, statement.text());
                    need.raise(self.need_of(key, &read, block)?);
                }
                tag::EXECUTE => {
                    let execute = frontend::Execute::parse(body).map_err(|_| "protocol")?;
                    if block == Block::Reads && execute.rows_max != 0 {
                        return Err("in_transaction");
                    }
                    is_open = false;
                }
                tag::FLUSH => {}
                tag::CLOSE => {
                    let close = frontend::Close::parse(body).map_err(|_| "protocol")?;
                    if matches!(close.target, frontend::Target::Statement(_)) {
                        return Err("closes_statement");
                    }
                }
                tag::SYNC if is_open => return Err("in_transaction"),
                tag::SYNC => return Ok(need),
                _ => return Err("protocol"),
            }
        }
        Err("long_series")
    }

    /// What the message needs if only the rows of its key count: of a statement alone, about one table.
    fn need_of_key(
        &mut self,
        key: Key,
        tag: u8,
        mut rest: &[u8],
        read: Option<&Arc<Decision>>,
    ) -> Option<Need> {
        let mut parsed: Option<(frontend::Parse<'_>, Arc<Decision>)> = None;
        let mut found: Option<Keyed> = None;
        for _ in 0..SERIES_MAX {
            let header = frontend_header(rest).ok()??;
            let (message, behind) = rest.split_at_checked(header.len)?;
            let body = message.get(HEADER_BYTES..)?;
            rest = behind;
            match header.tag {
                tag::QUERY if tag == tag::QUERY => {
                    let sql = frontend::Query::parse(body).ok()?.sql;
                    let (read, told) = (read?, Told::simple(sql));
                    found = self.keyed(key, &read.route.reads, read, told);
                    break;
                }
                tag::PARSE if parsed.is_none() => {
                    let parse = frontend::Parse::parse(body).ok()?;
                    let read = read.map_or_else(|| self.classify(key, parse.sql), Arc::clone);
                    parsed = Some((parse, read));
                }
                tag::BIND if found.is_none() => {
                    found = Some(self.key_of_bind(key, body, parsed.as_ref())?);
                }
                tag::DESCRIBE | tag::EXECUTE | tag::FLUSH => {}
                tag::SYNC => break,
                _ => return None,
            }
        }
        let seat = self.clients.get(key)?.seat.as_ref()?;
        seat.pool.database.split.floors.need_of_key(found?)
    }

    /// The value that a Bind gives to the key of its statement, which may have been parsed just before.
    fn key_of_bind(
        &mut self,
        key: Key,
        body: &[u8],
        parsed: Option<&(frontend::Parse<'_>, Arc<Decision>)>,
    ) -> Option<Keyed> {
        let name = frontend::BindNames::peek(body)?.statement;
        let bind = Some(body);
        if let Some((parse, read)) = parsed.filter(|(parse, _)| parse.name == name) {
            let told = Told { sql: parse.sql, bind, types: parse.param_types_raw, prepared: None };
            return self.keyed(key, &read.route.reads, read, told);
        }
        let known = self.clients.get(key)?.statement(name)?;
        let read = self.decision_of(key, &known);
        self.keyed(key, &read.route.reads, &read, Told::prepared(&known, bind))
    }

    /// What the replicas are like for this client and this need.
    fn choice(&mut self, key: Key, local: usize, mut need: Need) -> Choice {
        let now_ms = self.shared.ms(self.now);
        let part = &mut self.pools[local];
        let Some(client) = self.clients.get(key) else { return Choice::Primary(Why::NoReplica) };
        let reads = &part.split.spec.load().reads;
        let follows = reads.consistency == Consistency::OwnWrites;
        let limits = Limits { lag_max: reads.lag_max, follows };
        if let Some(carried) = client.carried.as_deref().filter(|_| follows) {
            let settled_ms = limits.lag_max.saturating_add(SEEN_LATE_MAX).as_millis();
            let settled_ms = u64::try_from(settled_ms).unwrap_or(u64::MAX);
            let now_unix_ms = self.shared.clock.unix_ms_at(self.now);
            let history = part.pool.database.split.history();
            let Some(floor) = carried.floor(history, now_unix_ms, settled_ms) else {
                return Choice::Primary(Why::Carried);
            };
            need.carried = floor;
        }
        let replicas = part.split.replicas.load();
        let spread = client.id;
        let split = &part.pool.database.split;
        let person = person_of(client, split).map(|person| split.identities.get(person));
        let follower = person.map_or(client.follower, |person| client.follower.and(person));
        choose(need, &follower, replicas, &split.samples, limits, now_ms, spread)
    }

    /// What comes of a choice: whoever waits, waits until `catch_up` is over.
    fn chosen(
        &mut self,
        key: Key,
        local: usize,
        choice: Choice,
        block: Block,
        needs: Needs,
    ) -> (Place, &'static str) {
        let now = self.now;
        let part = &mut self.pools[local];
        let catch_up = part.split.spec.load().reads.catch_up;
        let database = Arc::clone(&part.pool.database);
        let Some(client) = self.clients.get_mut(key) else { return (Place::Primary, "unknown") };
        let waited = client.behind.as_ref().map(|behind| now.saturating_duration_since(behind.since));
        let choice = match choice {
            Choice::Wait(why) if waited.unwrap_or(Duration::ZERO) >= catch_up => Choice::Primary(why),
            choice => choice,
        };
        match choice {
            Choice::Wait(_) => {
                match &mut client.behind {
                    Some(behind) => behind.needs = needs,
                    None => {
                        client.behind = Some(Box::new(Behind { since: now, needs }));
                        client.since = now;
                        part.split.routes.waits += 1;
                    }
                }
                // Most often its own replica has what it needs in a moment; if not, any that has.
                let waiting = match waited {
                    Some(waited) if waited > OWN_WAIT_MAX => database.split.wait(),
                    _ => database.split.wait_for(client.follower.own),
                };
                client.state = State::Behind(waiting);
                self.behind.push(key);
                (Place::Wait, REPLICA)
            }
            Choice::Primary(why) => {
                self.caught_up(key, local);
                self.pools[local].split.routes.at_primary(why.label());
                (Place::Primary, why.label())
            }
            Choice::Replica { replica, life, floor } => {
                self.caught_up(key, local);
                self.pools[local].split.routes.at_replica(replica.lag_us());
                let at = self.local_at(local, &replica);
                (Place::Replica(at, At { life, floor, is_block: block == Block::Snapshot }), REPLICA)
            }
        }
    }

    /// The client waits no longer, whatever came of it.
    fn caught_up(&mut self, key: Key, local: usize) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if let Some(behind) = client.behind.take() {
            let waited = self.now.saturating_duration_since(behind.since);
            self.pools[local].split.routes.waited(waited);
        }
    }

    /// This worker's part of the pool of the same user at a replica.
    fn local_at(&mut self, local: usize, replica: &Arc<Replica>) -> usize {
        let part = &mut self.pools[local];
        let at = &mut part.split.at;
        if let Some(pool) = at.iter().find(|pool| pool.leads_to(replica)).cloned() {
            return self.local(&pool);
        }
        let pool = self.shared.pool_at(&part.pool, replica);
        at.retain(|pool| !pool.is_of_a_former_replica());
        at.push(Arc::clone(&pool));
        self.local(&pool)
    }

    /// Where a database's servers are was learned: it is looked at once, however often it was told.
    pub(super) fn note_positions(&mut self, database: Arc<Database>) {
        if !self.told.iter().any(|other| Arc::ptr_eq(other, &database)) {
            self.told.push(database);
        }
    }

    /// All that was told in this turn.
    pub(super) fn positions_told(&mut self) {
        while let Some(database) = self.told.pop() {
            self.positions_known(&database);
        }
    }

    /// Where a database's servers are was learned: what waits for it is looked at again.
    fn positions_known(&mut self, database: &Arc<Database>) {
        self.confirm_servers();
        for key in std::mem::take(&mut self.behind) {
            let Some(client) = self.clients.get_mut(key) else { continue };
            if !matches!(client.state, State::Behind(_)) {
                continue;
            }
            if client.seat.as_ref().is_some_and(|seat| Arc::ptr_eq(&seat.pool.database, database)) {
                self.place_again(key);
            } else {
                self.behind.push(key);
            }
        }
        for local in 0..self.pools.len() {
            let pool = &self.pools[local].pool;
            let replica = pool.replica.as_ref().filter(|_| Arc::ptr_eq(&pool.database, database));
            let Some(state) = replica.map(|replica| replica.state()) else { continue };
            if state != split::State::Up {
                self.leave_replica(local);
            }
            if matches!(state, split::State::Down | split::State::Foreign) {
                self.leave_silent(local);
            }
        }
    }

    /// Those that wait for a connection to a replica look for another server.
    pub(super) fn leave_replica(&mut self, local: usize) {
        while let Some(waiter) = self.pools[local].waiters.pop() {
            self.place_again(waiter.key);
        }
        self.say_waiting(local);
    }

    /// A client that waits for a replica has its message looked at again.
    pub(super) fn place_again(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if matches!(client.state, State::Behind(_) | State::Waiting) {
            client.state = State::Idle;
            self.look_again(key);
        }
    }

    /// Those that have waited long enough for a replica, if nobody says where it is.
    pub(super) fn tick_behind(&mut self) {
        self.confirm_servers();
        for key in std::mem::take(&mut self.behind) {
            self.place_again(key);
        }
    }
}

/// The body of the first message, if all of it is there.
fn whole_body(messages: &[u8]) -> Option<&[u8]> {
    let header = frontend_header(messages).ok()??;
    messages.get(HEADER_BYTES..header.len)
}

/// The statement that a Bind or Describe names; within, `None` for a portal.
pub(super) fn statement_named(tag: u8, body: &[u8]) -> Option<Option<&[u8]>> {
    if tag == tag::BIND {
        return Some(Some(frontend::BindNames::peek(body)?.statement));
    }
    Some(match frontend::Describe::parse(body).ok()?.target {
        frontend::Target::Statement(name) => Some(name),
        frontend::Target::Portal(_) => None,
    })
}

/// A switch as the server tells it.
pub(super) fn switch(value: &str) -> Option<bool> {
    match value {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// Who is behind a client's transaction.
pub(super) fn person_of(client: &Client, split: &Split) -> Option<Identity> {
    let of_session = || split.identities.of(client.image.setting(IDENTITY_SETTING)?.as_bytes());
    client.person.or(client.identity).or_else(of_session)
}
