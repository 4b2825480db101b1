//! Protocol-level prepared statements that follow their clients from server to server.
//!
//! **Intuition.** A driver prepares `s1` once and executes it for hours; behind a pooler each execution may meet another
//! server connection. And a thousand clients of one application prepare the same fifty texts, each under names of its
//! own. So a statement is known by its content, has one name of ours on all servers, and is prepared on a server when it
//! is first needed there.
//!
//! **Mechanism.** [`Statements`] interns a statement by its text, its parameters' types, the settings it means something
//! under (its plan key) and the state of the database's definitions when it was prepared: what is prepared after DDL is
//! another statement, so that it meets no plan made before. What it does is decided again when the catalogue was read
//! anew ([`Statement::decision_under`]). [`ClientStatements`] says which name of a client's means which statement,
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
    hash::{BuildHasher, Hash, Hasher},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tenfold_pgwire::{backend::RowDescription, write};
use tenfold_sql::{Catalogue, Decision, Dialect, HotKey, KeyText};

use crate::image::Interner;

/// A prepared statement by its content. Equal ones of one [`Statements`] are one `Arc`.
#[derive(Debug)]
pub struct Statement {
    /// Unique within the process, from 1; also what it is called on servers ([`server_name`]).
    pub id: u64,
    content: Content,
    decided: ArcSwap<Decided>,
    /// A server has taken it.
    proven: AtomicBool,
    /// A hash of the rows that a client was told it has; 0 while nobody was told.
    rows: AtomicU64,
    /// Which parameter stands where rows were last picked by; `None`: a literal, or nothing.
    key_param: OnceLock<(HotKey, Option<u16>)>,
}

/// What makes a statement the same as another.
#[derive(Debug)]
struct Content {
    text: Box<[u8]>,
    types: Box<[u8]>,
    plan_key: u64,
    definitions: u64,
}

/// What a decision depends on besides the text: the catalogue, and the schemas that names are looked for in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    catalogue: (u64, bool),
    path: u64,
}

impl Basis {
    /// `path`: [`tenfold_sql::SearchPath::id`], or 0 for all schemas.
    #[must_use]
    pub fn new(catalogue: &Catalogue, path: u64) -> Self {
        Self::of((catalogue.version(), catalogue.is_stale()), path)
    }

    /// The same of a catalogue's version and whether it was stale.
    pub(crate) const fn of(catalogue: (u64, bool), path: u64) -> Self {
        Self { catalogue, path }
    }
}

/// What a statement does, and what says so.
#[derive(Debug)]
struct Decided {
    basis: Basis,
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
    /// Whether some server has parsed it: then Parse need not ask one again.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// A server has parsed it.
    pub fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// What it does, as far as this is what it was decided on.
    #[must_use]
    pub fn decision_under(&self, basis: Basis) -> Option<Arc<Decision>> {
        let decided = self.decided.load();
        (decided.basis == basis).then(|| Arc::clone(&decided.decision))
    }

    /// What it does on this basis.
    pub fn decide(&self, basis: Basis, decision: Arc<Decision>) {
        self.decided.store(Arc::new(Decided { basis, decision }));
    }

    /// A client was told its rows, as RowDescription has them, or NoData's empty body. The first to be told counts.
    pub fn tell_rows(&self, description: &[u8]) {
        if self.rows.load(Ordering::Relaxed) == 0 {
            self.rows.store(hash_of_rows(description), Ordering::Relaxed);
        }
    }

    /// Whether a client was told other rows than these. `None`: nobody was told any.
    #[must_use]
    pub fn has_other_rows(&self, description: &[u8]) -> Option<bool> {
        let told = self.rows.load(Ordering::Relaxed);
        (told != 0).then(|| told != hash_of_rows(description))
    }

    /// Whether a client was told its rows.
    #[must_use]
    pub fn has_told_rows(&self) -> bool {
        self.rows.load(Ordering::Relaxed) != 0
    }

    /// The state of the database's definitions it was prepared in.
    #[must_use]
    pub fn definitions(&self) -> u64 {
        self.content.definitions
    }

    /// The settings it means something under; see [`Under::plan_key`].
    #[must_use]
    pub fn plan_key(&self) -> u64 {
        self.content.plan_key
    }

    /// A hash of the rows that a client was told it has, for as long as both hash alike; 0 while nobody was told.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// A client was told the rows of this hash by another process. The first to be told counts.
    pub fn told_elsewhere(&self, rows: u64) {
        let _ = self.rows.compare_exchange(0, rows, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// What picks its rows, as [`tenfold_sql::key_text`] finds it in its text. The dialect is one of its content: settings
    /// that change it are of the plan key.
    #[must_use]
    pub fn key_text(&self, dialect: Dialect, key: &HotKey) -> Option<KeyText<'_>> {
        let find = || tenfold_sql::key_text(self.text(), dialect, key);
        let (known, param) = self.key_param.get_or_init(|| match find() {
            Some(KeyText::Param(number)) => (*key, Some(number)),
            _ => (*key, None),
        });
        match param {
            Some(number) if known == key => Some(KeyText::Param(*number)),
            _ => find(),
        }
    }

    /// Its SQL text, in the encoding of the client that sent it.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.content.text
    }

    /// The parameter types of its Parse message as they came: 32-bit oids without their count.
    #[must_use]
    pub fn types(&self) -> &[u8] {
        &self.content.types
    }

    /// Whether this is its content.
    #[must_use]
    pub fn is(&self, text: &[u8], types: &[u8], under: Under) -> bool {
        let Content { text: own, types: own_types, plan_key, definitions } = &self.content;
        (*plan_key, *definitions) == (under.plan_key, under.definitions)
            && **own == *text
            && **own_types == *whole_oids(types)
    }

    /// Appends a whole Parse message that prepares it on a server under its name there.
    pub fn write_parse(&self, out: &mut Vec<u8>) {
        let mut name = NameBuffer::default();
        write::parse_raw(out, server_name(self.id, &mut name), self.text(), self.types());
    }

    /// What one costs the client that keeps it.
    fn bytes(&self) -> usize {
        self.text().len() + self.types().len()
    }
}

/// What a text means something under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Under {
    /// [`crate::image::Image::plan_key`] of the session.
    pub plan_key: u64,
    /// The state of the database's definitions; unique in the process, so that no two databases share one.
    pub definitions: u64,
}

/// Names, types and their modifiers, as PostgreSQL compares them (`equalRowTypes`); never 0. What cannot be read is like
/// nothing else.
fn hash_of_rows(description: &[u8]) -> u64 {
    // Fixed, so that all workers agree; nobody gains by a collision but wrong rows of their own.
    let mut hasher = foldhash::quality::FixedState::with_seed(0).build_hasher();
    match RowDescription::parse(description) {
        _ if description.is_empty() => hasher.write_u8(0),
        Ok(rows) => {
            for column in rows.columns() {
                (column.name, column.type_oid, column.type_modifier).hash(&mut hasher);
            }
        }
        Err(_) => description.hash(&mut hasher),
    }
    hasher.finish().max(1)
}

/// Tells whether another process, perhaps of another version, hashes rows as this one does.
pub(crate) fn rows_hashed_as() -> u64 {
    // One column `a` of type int4.
    hash_of_rows(b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0")
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

    /// The statement of this content; it does what `decision` says on this basis if nobody has it yet. `types` is a whole
    /// number of oids, at most 65,535, as [`tenfold_pgwire::frontend::Parse`] has them.
    pub fn intern(
        &self,
        text: &[u8],
        types: &[u8],
        under: Under,
        basis: Basis,
        decision: Arc<Decision>,
    ) -> Arc<Statement> {
        let types = whole_oids(types);
        let Under { plan_key, definitions } = under;
        let make = || Statement {
            id: self.table.next_id.fetch_add(1, Ordering::Relaxed),
            content: Content { text: text.into(), types: types.into(), plan_key, definitions },
            decided: ArcSwap::from_pointee(Decided { basis, decision }),
            proven: AtomicBool::new(false),
            rows: AtomicU64::new(0),
            key_param: OnceLock::new(),
        };
        self.table.statements.get_or_make(&(text, types, under), |other| other.is(text, types, under), make)
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
        intern(statements, text.as_bytes(), &[], Under::default())
    }

    fn intern(statements: &Statements, text: &[u8], types: &[u8], under: Under) -> Arc<Statement> {
        let decision = Arc::new(Decision::unknown(Fingerprint::default()));
        statements.intern(text, types, under, Basis::new(&Catalogue::empty(), 0), decision)
    }

    #[test]
    fn equal_content_is_one_statement() {
        let statements = Statements::new();
        let under = Under { plan_key: 7, definitions: 3 };
        let first = intern(&statements, b"SELECT $1", &[0, 0, 0, 23], under);
        let again = intern(&statements, b"SELECT $1", &[0, 0, 0, 23], under);
        assert!(Arc::ptr_eq(&first, &again));
        for (text, types, plan_key, definitions) in [
            (&b"SELECT  $1"[..], &[0, 0, 0, 23][..], 7, 3),
            (b"SELECT $1", &[0, 0, 0, 20], 7, 3),
            (b"SELECT $1", &[0, 0, 0, 23], 8, 3),
            (b"SELECT $1", &[0, 0, 0, 23], 7, 4),
        ] {
            let other = intern(&statements, text, types, Under { plan_key, definitions });
            assert_ne!(other.id, first.id);
        }
    }

    #[test]
    fn a_decision_holds_under_its_catalogue_only() {
        let statements = Statements::new();
        let made = statement(&statements, "SELECT f()");
        let (empty, other) = (Catalogue::empty(), tenfold_sql::CatalogueBuilder::new().build(7));
        let basis = |catalogue: &Catalogue| Basis::new(catalogue, 0);
        assert!(made.decision_under(basis(&empty)).is_some());
        assert!(made.decision_under(basis(&other)).is_none());
        made.decide(basis(&other), Arc::new(Decision::unknown(Fingerprint::default())));
        assert!(made.decision_under(basis(&other)).is_some());
        assert!(made.decision_under(basis(&other.stale())).is_none());
        assert!(made.decision_under(Basis::new(&other, 1)).is_none());
    }

    #[test]
    fn rows_are_told_once_and_compared_without_their_formats() {
        fn described(name: &str, type_oid: u8, format: u8) -> Vec<u8> {
            let mut body = vec![0, 1];
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(&[
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, type_oid, 0, 4, 255, 255, 255, 255, 0, format,
            ]);
            body
        }
        let statements = Statements::new();
        let made = statement(&statements, "SELECT 1 AS a");
        assert_eq!(made.has_other_rows(&described("a", 23, 0)), None);
        made.tell_rows(&described("a", 23, 0));
        made.tell_rows(&described("b", 23, 0));
        for (name, type_oid, format, other) in
            [("a", 23, 0, false), ("a", 23, 1, false), ("b", 23, 0, true), ("a", 20, 0, true)]
        {
            let has_other = made.has_other_rows(&described(name, type_oid, format));
            assert_eq!(has_other, Some(other), "{name} {type_oid} {format}");
        }
        assert_eq!(made.has_other_rows(b""), Some(true));
        assert_eq!(made.has_other_rows(b"no such thing"), Some(true));
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
