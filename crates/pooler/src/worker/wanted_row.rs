//! Which row a client's statement wants, and how many connections are after it.
//!
//! **Mechanism.** The value that picks the row is in the statement's text or in its Bind ([`Worker::hot_key`]); of a
//! statement that is only parsed yet, in the Bind behind it ([`Worker::parsed_row`]). The first statement of a
//! transaction has its client wait for the row before it is lent a server (`lend`); later ones are counted
//! ([`Worker::join_row`]), and what they reach is remembered of how the transaction began ([`Worker::learned_row`]).
//!
//! **Failure.** A value that cannot be found is a row that is not capped.

use tenfold_pgwire::{
    backend::TransactionStatus,
    frame::{HEADER_BYTES, frontend as tag, frontend_header},
    frontend,
};
use tenfold_sql::{Decision, Fingerprint, KeyText, hot_hash, key_text};

use super::{Worker, slab::Key};
use crate::{hot::HotRow, statements::Statement};

/// Rows of one transaction that are counted: a loop over a basket stays below, a batch job need not be known row by row.
const HOT_ROWS_PER_TRANSACTION_MAX: usize = 64;

impl Worker {
    /// Transactions that begin like this one were seen to reach a hot row: they count as one row.
    pub(super) fn learned_row(&self, key: Key, decision: &Decision) -> Option<HotRow> {
        let pool = self.clients.get(key)?.seat.as_ref()?.pool.id;
        let fingerprint = decision.fingerprint;
        let reaches = self.shared.hot.may_reach_hot(pool, fingerprint, self.now);
        reaches.then_some(HotRow { pool, fingerprint, value: 0 })
    }

    /// A statement of a transaction that holds its server already: its row is counted, and learned from, never waited for.
    pub(super) fn join_row(
        &mut self,
        key: Key,
        server_key: Key,
        tag: u8,
        body: &[u8],
        decision: &Decision,
        statement: Option<&Statement>,
    ) {
        let is_counted = self
            .servers
            .get(server_key)
            .is_some_and(|server| server.status == TransactionStatus::InTransaction);
        if !is_counted || decision.hot.is_none() {
            return;
        }
        let Some(row) = self.hot_key(key, tag, body, decision, statement) else { return };
        let Some(server) = self.servers.get_mut(server_key) else { return };
        let settings = self.pools[server.local].settings();
        if settings.hot_row_percent >= 100 || server.hot.len() >= HOT_ROWS_PER_TRANSACTION_MAX {
            return;
        }
        let (permit, is_hot) = self.shared.hot.join(row, super::lend::row_limit(settings));
        server.hot.push(permit);
        if is_hot {
            self.shared.hot.learn(row.pool, server.first, self.now);
        }
    }

    /// The row that a statement wants, where it is known to want one.
    pub(super) fn hot_key(
        &self,
        key: Key,
        tag: u8,
        body: &[u8],
        decision: &Decision,
        statement: Option<&Statement>,
    ) -> Option<HotRow> {
        let hot = decision.hot.as_ref()?;
        let dialect = self.clients.get(key)?.dialect;
        let value = match (tag, statement) {
            (tag::QUERY, _) => key_text(frontend::Query::parse(body).ok()?.sql, dialect, hot)?,
            (tag::BIND, Some(statement)) => statement.key_text(dialect, hot)?,
            _ => return None,
        };
        self.row_of(key, decision.fingerprint, value, || frontend::Bind::parse(body).ok())
    }

    /// The row that a statement wants that has only been parsed: drivers send its values in the same write, so they are
    /// in what follows. What comes later cannot be waited for, and is not capped.
    pub(super) fn parsed_row(
        &self,
        key: Key,
        body: &[u8],
        following: &[u8],
        decision: &Decision,
    ) -> Option<HotRow> {
        let hot = decision.hot.as_ref()?;
        let parse = frontend::Parse::parse(body).ok()?;
        let value = key_text(parse.sql, self.clients.get(key)?.dialect, hot)?;
        self.row_of(key, decision.fingerprint, value, || bind_of(parse.name, following))
    }

    /// The row of a statement, whose value may be a parameter: then it is in the Bind.
    fn row_of<'a>(
        &self,
        key: Key,
        fingerprint: Fingerprint,
        value: KeyText<'_>,
        bind: impl FnOnce() -> Option<frontend::Bind<'a>>,
    ) -> Option<HotRow> {
        let client = self.clients.get(key)?;
        let value = match value {
            KeyText::Literal(text) => hot_hash(&text),
            KeyText::Param(number) => hot_hash(bind()?.param(number.checked_sub(1)?)??),
        };
        let pool = client.seat.as_ref()?.pool.id;
        Some(HotRow { pool, fingerprint, value })
    }
}

/// The Bind of this statement, if it is the next message, or comes after a Describe.
fn bind_of<'a>(statement: &[u8], mut following: &'a [u8]) -> Option<frontend::Bind<'a>> {
    for _ in 0..2 {
        let header = frontend_header(following).ok()??;
        let (message, rest) = following.split_at_checked(header.len)?;
        let body = message.get(HEADER_BYTES..)?;
        match header.tag {
            tag::BIND => return frontend::Bind::parse(body).ok().filter(|bind| bind.statement == statement),
            tag::DESCRIBE => following = rest,
            _ => return None,
        }
    }
    None
}
