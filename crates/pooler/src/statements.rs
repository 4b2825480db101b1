//! Protocol-level prepared statements that follow their clients from server to server.
//!
//! **Intuition.** A driver prepares `s1` once and executes it for hours; behind a pooler each execution may meet another
//! server connection. And a thousand clients of one application prepare the same fifty texts, each under names of its
//! own. So a statement is known by its content, has one name of ours on all servers, and is prepared on a server when it
//! is first needed there.
//!
//! **Mechanism.** [`Statements`] interns a statement by its text, its parameters' types and the settings it means
//! something under (its plan key). [`ClientStatements`] says which name of a client's means which statement,
//! [`ServerStatements`] which statements a server connection has, least recently used first out. A server's entry keeps
//! its statement alive, so that a client that comes back finds it prepared under the same name.
//!
//! **Failure.** A name taken is PostgreSQL's own error, 42P05. A client's statements are bounded in number and bytes,
//! [`StatementsError::TooMany`]; a server's by its capacity, the evicted one to be closed there.
//!
//! Source: PostgreSQL manual 53.2.3 (extended query); `src/backend/commands/prepare.c`.

mod client;
mod server;

pub use client::{CLIENT_STATEMENT_BYTES_MAX, CLIENT_STATEMENTS_MAX, ClientStatements, StatementsError};
pub use server::ServerStatements;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tenfold_sql::Decision;

use crate::image::Interner;

/// A prepared statement by its content. Equal ones of one [`Statements`] are one `Arc`.
#[derive(Debug)]
pub struct Statement {
    id: u64,
    text: Box<[u8]>,
    types: Box<[u8]>,
    plan_key: u64,
    decision: Arc<Decision>,
}

/// All prepared statements of the process. Clones are the same table.
#[derive(Clone)]
pub struct Statements {
    table: Arc<Table>,
}

struct Table {
    statements: Interner<Statement>,
    next_id: AtomicU64,
}

impl Statement {
    /// Unique within the process; also what it is called on servers ([`server_name`]).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its SQL text, in the encoding of the client that sent it.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The parameter types of its Parse message as they came: a 16-bit count and that many 32-bit oids.
    #[must_use]
    pub fn types(&self) -> &[u8] {
        &self.types
    }

    /// [`crate::image::Image::plan_key`] of the sessions it is for.
    #[must_use]
    pub fn plan_key(&self) -> u64 {
        self.plan_key
    }

    /// What it does.
    #[must_use]
    pub fn decision(&self) -> &Arc<Decision> {
        &self.decision
    }

    /// What one costs the client that keeps it.
    fn bytes(&self) -> usize {
        self.text.len() + self.types.len()
    }
}

impl Default for Statements {
    fn default() -> Self {
        Self::new()
    }
}

impl Statements {
    /// A table without statements.
    #[must_use]
    pub fn new() -> Self {
        Self { table: Arc::new(Table { statements: Interner::new(), next_id: AtomicU64::new(1) }) }
    }

    /// The statement of this content; `decide` reads it if nobody has it yet.
    pub fn intern(
        &self,
        text: &[u8],
        types: &[u8],
        plan_key: u64,
        decide: impl FnOnce() -> Arc<Decision>,
    ) -> Arc<Statement> {
        let same =
            |other: &Statement| other.plan_key == plan_key && *other.text == *text && *other.types == *types;
        let make = || Statement {
            id: self.table.next_id.fetch_add(1, Ordering::Relaxed),
            text: text.into(),
            types: types.into(),
            plan_key,
            decision: decide(),
        };
        self.table.statements.get_or_make(&(text, types, plan_key), same, make)
    }

    /// How many are known, those that nobody holds any more but were not swept yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.statements.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Appends the name of a statement on servers: `tenfold_` and its id in hexadecimal.
pub fn server_name(id: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"tenfold_");
    let digits = (u64::BITS - id.leading_zeros()).div_ceil(4).max(1);
    for at in (0..digits).rev() {
        let digit = (id >> (4 * at)) & 0xf;
        out.push(b"0123456789abcdef"[usize::try_from(digit).expect("four bits")]);
    }
}

/// Appends a whole Parse message that prepares `statement` on a server under its name there.
pub fn write_parse(statement: &Statement, out: &mut Vec<u8>) {
    write_message(out, b'P', |out| {
        server_name(statement.id, out);
        out.push(0);
        out.extend_from_slice(&statement.text);
        out.push(0);
        out.extend_from_slice(&statement.types);
    });
}

/// Appends a whole Close message for a statement on a server, by its id.
pub fn write_close(id: u64, out: &mut Vec<u8>) {
    write_message(out, b'C', |out| {
        out.push(b'S');
        server_name(id, out);
        out.push(0);
    });
}

fn write_message(out: &mut Vec<u8>, tag: u8, write_body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write_body(out);
    let length = u32::try_from(out.len() - start).expect("a statement came in a message below 1 GiB");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use tenfold_sql::Fingerprint;

    use super::*;

    pub(super) fn statement(statements: &Statements, text: &str) -> Arc<Statement> {
        statements.intern(text.as_bytes(), &[0, 0], 0, || Arc::new(Decision::unknown(Fingerprint::default())))
    }

    #[test]
    fn equal_content_is_one_statement() {
        let statements = Statements::new();
        let decide = || Arc::new(Decision::unknown(Fingerprint::default()));
        let first = statements.intern(b"SELECT $1", &[0, 1, 0, 0, 0, 23], 7, decide);
        let again = statements.intern(b"SELECT $1", &[0, 1, 0, 0, 0, 23], 7, || panic!("decided already"));
        assert!(Arc::ptr_eq(&first, &again));
        for (text, types, plan_key) in [
            (&b"SELECT  $1"[..], &[0, 1, 0, 0, 0, 23][..], 7),
            (b"SELECT $1", &[0, 1, 0, 0, 0, 20], 7),
            (b"SELECT $1", &[0, 1, 0, 0, 0, 23], 8),
        ] {
            let other = statements.intern(text, types, plan_key, decide);
            assert_ne!(other.id(), first.id());
        }
    }

    #[test]
    fn names_on_servers_are_short_and_distinct() {
        for (id, expected) in [
            (0, "tenfold_0"),
            (1, "tenfold_1"),
            (0xabc, "tenfold_abc"),
            (u64::MAX, "tenfold_ffffffffffffffff"),
        ] {
            let mut out = Vec::new();
            server_name(id, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn messages_are_framed() {
        let statements = Statements::new();
        let statement = statement(&statements, "SELECT 1");
        let mut out = b"before".to_vec();
        write_parse(&statement, &mut out);
        assert_eq!(out, b"beforeP\0\0\0\x19tenfold_1\0SELECT 1\0\0\0");
        out.clear();
        write_close(statement.id(), &mut out);
        assert_eq!(out, b"C\0\0\0\x0fStenfold_1\0");
    }
}
