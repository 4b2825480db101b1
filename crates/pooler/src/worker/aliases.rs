//! A client's own names for prepared statements, where SQL is to find them.
//!
//! **Intuition.** To PostgreSQL, what Parse prepares and what PREPARE prepares are one list of names: `EXECUTE s` runs
//! what a driver prepared as `s`, PREPARE refuses a name that a driver took, and `pg_prepared_statements` lists both. At
//! our servers the driver's statements have names made of their content. So a statement that could tell is preceded by
//! what it looks for, under the client's own name.
//!
//! **Mechanism.** [`Worker::alias`] looks into statements that prepare, execute or see prepared statements, and into no
//! others; whatever names of the client's they mention are prepared under these names, too, in the same write. Before
//! `pg_prepared_statements` is looked at, ours and other clients' are closed as well. When the transaction ends, its
//! probe closes the aliases ahead ([`Server::close_aliases`]), so no stranger ever meets one.
//!
//! **Failure.** An alias that cannot be prepared (its table has gone) is the client's error, instead of its statement's.
//! More than [`ALIASES_MAX`] at once: the oldest goes.

use std::{ops::Range, sync::Arc};

use tenfold_pgwire::{backend::TransactionStatus, frontend, write};
use tenfold_sql::{Decision, Effects, Shape};

use super::{
    Worker,
    batch::Batch,
    downstream::Fate,
    server::{Due, Server},
    slab::Key,
};
use crate::statements::{self, ClientStatements, Statement};

/// Aliases on one server connection at once.
const ALIASES_MAX: usize = 1_024;
/// What all names by which SQL sees the list of prepared statements begin with.
const VIEW: &[u8] = b"pg_prepared_statement";

/// A statement under a client's own name.
#[derive(Debug)]
pub(crate) struct Alias {
    name: Box<[u8]>,
    /// Of its statement; 0 for one that only holds the name, or may not be there.
    id: u64,
}

impl Worker {
    /// Has the server know what a statement may look for among prepared statements. `sql` is its text.
    pub(super) fn alias(
        &mut self,
        key: Key,
        server_key: Key,
        decision: &Decision,
        sql: &[u8],
        batch: &mut Batch<'_>,
    ) {
        const LOOKS: Effects = Effects::SQL_EXECUTE.with(Effects::SQL_PREPARE);
        if !decision.effects.intersects(LOOKS) {
            return;
        }
        let Some(client) = self.clients.get(key) else { return };
        let Some(server) = self.servers.get_mut(server_key) else { return };
        if server.status == TransactionStatus::Failed || server.skipping {
            return;
        }
        let sees_all = decision.effects.intersects(Effects::SQL_EXECUTE) && holds(sql, VIEW);
        if sees_all {
            server.close_all(batch.stage());
        }
        let wanted = mentioned(&client.statements, decision, sql, sees_all);
        for (name, statement) in &wanted {
            server.add_alias(name, statement, batch.stage());
        }
        if matches!(decision.shape, Shape::Execute(_)) {
            for (_, statement) in wanted {
                let decision = self.decision_of(key, &statement);
                self.note_unsure(server_key, &decision, statement.text());
                self.note_effects(server_key, &decision);
            }
        }
    }

    /// An alias could not be prepared. Ahead of a simple query, which the server drops then, its error is the query's.
    pub(super) fn alias_failed(
        &mut self,
        key: Key,
        batch: &mut Batch<'_>,
        range: &Range<usize>,
    ) -> Option<Fate> {
        let server = self.servers.get_mut(key)?;
        if !matches!(server.due.front(), Some(Due::OurParse { .. } | Due::OurClose)) {
            return None;
        }
        server.doubt_aliases();
        if !is_ahead_of_query(server) {
            return None;
        }
        if server.in_series || server.due.iter().filter(|due| matches!(due, Due::Query)).count() > 1 {
            // Those behind it were dropped, too, and nobody will answer them.
            return Some(Fate::Broken("a name of a prepared statement could not be restored"));
        }
        while matches!(server.due.front(), Some(Due::OurParse { .. } | Due::OurClose)) {
            server.due.pop_front();
        }
        let is_clients = server.client.is_some();
        if is_clients {
            batch.pass(range.clone());
        }
        let mut out = Vec::new();
        write::sync(&mut out);
        self.send_server(key, &out);
        Some(if is_clients { Fate::Pass } else { Fate::Swallow })
    }
}

/// Whether something of ours ahead of a simple query failed.
fn is_ahead_of_query(server: &Server) -> bool {
    let mut due = server.due.iter().skip_while(|due| matches!(due, Due::OurParse { .. } | Due::OurClose));
    let is_ours = matches!(server.due.front(), Some(Due::OurParse { .. } | Due::OurClose));
    is_ours && matches!(due.next(), Some(Due::Query))
}

/// Which of a client's statements a text may mean.
fn mentioned(
    own: &ClientStatements,
    decision: &Decision,
    sql: &[u8],
    sees_all: bool,
) -> Vec<(Box<[u8]>, Arc<Statement>)> {
    let is_meant = |name: &[u8]| match &decision.shape {
        Shape::Execute(other) | Shape::Prepare { name: other, .. } => **other == *name,
        // These are answered elsewhere.
        Shape::Deallocate(_) | Shape::DeallocateAll | Shape::Discard(_) => false,
        _ => sees_all || holds(sql, name),
    };
    own.iter()
        .filter(|(name, _)| is_meant(name))
        .map(|(name, statement)| (name.into(), Arc::clone(statement)))
        .take(ALIASES_MAX)
        .collect()
}

/// Whether a word stands somewhere in a text, in whatever case.
fn holds(sql: &[u8], word: &[u8]) -> bool {
    !word.is_empty() && sql.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

impl Server {
    /// Prepares a statement under a client's own name, if it is not.
    fn add_alias(&mut self, name: &[u8], statement: &Statement, out: &mut Vec<u8>) {
        if let Some(at) = self.aliases.iter().position(|alias| *alias.name == *name) {
            if self.aliases[at].id == statement.id {
                return;
            }
            self.aliases.remove(at);
            self.close_name(name, out);
        } else if self.aliases.len() >= ALIASES_MAX {
            let oldest = self.aliases.remove(0);
            self.close_name(&oldest.name, out);
        }
        self.tainted |= statements::is_server_name(name);
        write::parse_raw(out, name, statement.text(), statement.types());
        self.due.push_back(Due::OurParse { id: 0 });
        self.aliases.push(Alias { name: name.into(), id: statement.id });
        // The probe at the transaction's end closes it.
        self.effects |= Effects::SQL_EXECUTE;
    }

    /// A name is to be taken at the server, until the transaction ends.
    pub(super) fn take_name(&mut self, name: &[u8], out: &mut Vec<u8>) {
        if self.aliases.iter().any(|alias| *alias.name == *name) {
            return;
        }
        // It may be one of ours, and closing it at the end would close that.
        self.tainted |= statements::is_server_name(name);
        write::parse(out, name, b"", []);
        self.due.push_back(Due::OurParse { id: 0 });
        self.aliases.push(Alias { name: name.into(), id: 0 });
        self.effects |= Effects::SQL_EXECUTE;
    }

    /// Whether a name is free is asked of the server: an error says that it is not.
    pub(super) fn try_name(&mut self, name: &[u8], out: &mut Vec<u8>) {
        write::parse(out, name, b"", []);
        self.due.push_back(Due::OurParse { id: 0 });
        self.close_name(name, out);
    }

    fn close_name(&mut self, name: &[u8], out: &mut Vec<u8>) {
        write::close(out, frontend::Target::Statement(name));
        self.due.push_back(Due::OurClose);
    }

    /// Whether a client's own name is known here.
    pub(super) fn has_alias(&self, name: &[u8]) -> bool {
        self.aliases.iter().any(|alias| *alias.name == *name)
    }

    /// What was to be prepared may not be there.
    pub(super) fn doubt_aliases(&mut self) {
        self.aliases.iter_mut().for_each(|alias| alias.id = 0);
    }

    /// A name is the client's no longer. Whether the server has it.
    pub(super) fn forget_alias(&mut self, name: &[u8]) -> bool {
        let known = self.aliases.len();
        self.aliases.retain(|alias| *alias.name != *name);
        self.aliases.len() < known
    }

    /// Closes all aliases.
    pub(super) fn close_aliases(&mut self, out: &mut Vec<u8>) {
        for alias in std::mem::take(&mut self.aliases) {
            self.close_name(&alias.name, out);
        }
    }

    /// Closes everything that Parse prepared here.
    fn close_all(&mut self, out: &mut Vec<u8>) {
        self.close_aliases(out);
        for id in self.statements.ids().collect::<Vec<_>>() {
            let mut name = statements::NameBuffer::default();
            self.close_name(statements::server_name(id, &mut name), out);
        }
        self.statements.clear();
        self.unnamed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_any_case() {
        for (sql, word, found) in [
            ("EXPLAIN EXECUTE S1", "s1", true),
            ("SELECT * FROM PG_Prepared_Statements", "pg_prepared_statement", true),
            ("EXECUTE s", "s1", false),
            ("", "s", false),
            ("EXECUTE s", "", false),
        ] {
            assert_eq!(holds(sql.as_bytes(), word.as_bytes()), found, "{sql} {word}");
        }
    }
}
