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

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tenfold_pgwire::write;
use tenfold_sql::Decision;

use crate::image::Interner;

/// A prepared statement by its content. Equal ones of one [`Statements`] are one `Arc`.
#[derive(Debug)]
pub struct Statement {
    /// Unique within the process, from 1; also what it is called on servers ([`server_name`]).
    pub id: u64,
    /// What it does.
    pub decision: Arc<Decision>,
    text: Box<[u8]>,
    types: Box<[u8]>,
    plan_key: u64,
    /// A server has taken it.
    proven: AtomicBool,
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
    /// Whether some server has parsed it: then Parse need not ask one again.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// A server has parsed it.
    pub fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Its SQL text, in the encoding of the client that sent it.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The parameter types of its Parse message as they came: 32-bit oids without their count.
    #[must_use]
    pub fn types(&self) -> &[u8] {
        &self.types
    }

    /// [`crate::image::Image::plan_key`] of the sessions it is for.
    #[must_use]
    pub fn plan_key(&self) -> u64 {
        self.plan_key
    }

    /// Whether this is its content.
    #[must_use]
    pub fn is(&self, text: &[u8], types: &[u8], plan_key: u64) -> bool {
        self.plan_key == plan_key && *self.text == *text && *self.types == *whole_oids(types)
    }

    /// Appends a whole Parse message that prepares it on a server under its name there.
    pub fn write_parse(&self, out: &mut Vec<u8>) {
        let mut name = NameBuffer::default();
        write::parse_raw(out, server_name(self.id, &mut name), &self.text, &self.types);
    }

    /// What one costs the client that keeps it.
    fn bytes(&self) -> usize {
        self.text.len() + self.types.len()
    }
}

fn whole_oids(types: &[u8]) -> &[u8] {
    &types[..types.len() / 4 * 4]
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

    /// The statement of this content; `decide` reads it if nobody has it yet. `types` is a whole number of oids, at
    /// most 65,535, as [`tenfold_pgwire::frontend::Parse`] has them.
    pub fn intern(
        &self,
        text: &[u8],
        types: &[u8],
        plan_key: u64,
        decide: impl FnOnce() -> Arc<Decision>,
    ) -> Arc<Statement> {
        let types = whole_oids(types);
        let make = || Statement {
            id: self.table.next_id.fetch_add(1, Ordering::Relaxed),
            decision: decide(),
            text: text.into(),
            types: types.into(),
            plan_key,
            proven: AtomicBool::new(false),
        };
        self.table.statements.get_or_make(
            &(text, types, plan_key),
            |other| other.is(text, types, plan_key),
            make,
        )
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

/// What all names of ours on servers begin with.
const NAME_START: &[u8] = b"tenfold_";
/// With sixteen hexadecimal digits.
const NAME_BYTES_MAX: usize = NAME_START.len() + 16;

/// Room for one name.
#[derive(Clone, Copy, Debug, Default)]
pub struct NameBuffer([u8; NAME_BYTES_MAX]);

/// The name of a statement on servers: `tenfold_` and its id in hexadecimal.
pub fn server_name(id: u64, buffer: &mut NameBuffer) -> &[u8] {
    let digits = (u64::BITS - id.leading_zeros()).div_ceil(4).max(1);
    let (start, rest) = buffer.0.split_at_mut(NAME_START.len());
    start.copy_from_slice(NAME_START);
    for (place, at) in rest.iter_mut().zip((0..digits).rev()) {
        let digit = (id >> (4 * at)) & 0xf;
        *place = b"0123456789abcdef"[usize::try_from(digit).expect("four bits")];
    }
    &buffer.0[..NAME_START.len() + usize::try_from(digits).expect("at most sixteen")]
}

/// Whether a name may be one of ours on servers: a client's own statement of such a name must not be looked for there.
#[must_use]
pub fn is_server_name(name: &[u8]) -> bool {
    name.starts_with(NAME_START)
}

impl fmt::Debug for Statements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statements").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use tenfold_sql::Fingerprint;

    use super::*;

    pub(super) fn statement(statements: &Statements, text: &str) -> Arc<Statement> {
        statements.intern(text.as_bytes(), &[], 0, || Arc::new(Decision::unknown(Fingerprint::default())))
    }

    #[test]
    fn equal_content_is_one_statement() {
        let statements = Statements::new();
        let decide = || Arc::new(Decision::unknown(Fingerprint::default()));
        let first = statements.intern(b"SELECT $1", &[0, 0, 0, 23], 7, decide);
        let again = statements.intern(b"SELECT $1", &[0, 0, 0, 23], 7, || panic!("decided already"));
        assert!(Arc::ptr_eq(&first, &again));
        for (text, types, plan_key) in [
            (&b"SELECT  $1"[..], &[0, 0, 0, 23][..], 7),
            (b"SELECT $1", &[0, 0, 0, 20], 7),
            (b"SELECT $1", &[0, 0, 0, 23], 8),
        ] {
            let other = statements.intern(text, types, plan_key, decide);
            assert_ne!(other.id, first.id);
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
            let mut buffer = NameBuffer::default();
            let name = server_name(id, &mut buffer);
            assert_eq!(String::from_utf8_lossy(name), expected);
            assert!(is_server_name(name));
        }
        assert!(!is_server_name(b"tenfold") && !is_server_name(b"s1"));
    }

    #[test]
    fn messages_are_framed() {
        let statements = Statements::new();
        let statement = statement(&statements, "SELECT 1");
        let mut out = b"before".to_vec();
        statement.write_parse(&mut out);
        assert_eq!(out, b"beforeP\0\0\0\x19tenfold_1\0SELECT 1\0\0\0");
    }
}
