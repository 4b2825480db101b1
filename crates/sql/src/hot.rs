//! Which row a statement fights for: the value in `WHERE id = …`, found again in each text of the same fingerprint.
//!
//! **Intuition.** A sale makes everyone update one row, and its waiters would hold every server connection. The pooler
//! caps how many connections one (fingerprint, value) may hold, and needs the value in nanoseconds.
//!
//! **Mechanism.** The reader, once per fingerprint, counts which literal or parameter of the text it is; afterwards one
//! lexing pass finds it. Of several columns compared by equality the one that looks most like a key is taken: `id`,
//! then a name that ends like one, then the first. An OR, or a condition within an expression, gives none.
//!
//! **Failure.** A text that does not have the value has none and is not capped. Two values of one hash share a cap.

use std::borrow::Cow;

use crate::decision::Shape;
use crate::fingerprint::{Seed, Sink, condense};
use crate::ident::{Ident, literal};
use crate::lex::{Dialect, Kind, Token};
use crate::read::cursor::Cursor;

/// Where the value stands: the n-th literal or parameter of the text, those inside lists not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotKey {
    /// Counted from 0.
    pub(crate) ordinal: u32,
}

/// What picks the row, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyText<'a> {
    /// A literal: a number as it stands, a string without its quotes and escapes.
    Literal(Cow<'a, [u8]>),
    /// Parameter `$n`: the value is in Bind. Counted from 1.
    Param(u16),
}

/// Finds the value of `key` in a text. `None` if the text has no such literal.
#[must_use]
pub fn key_text<'a>(sql: &'a [u8], dialect: Dialect, key: &HotKey) -> Option<KeyText<'a>> {
    let mut wanted = Wanted { ordinal: key.ordinal, token: None };
    // Lists begin and end alike under every seed.
    condense(sql, dialect, &Seed([1; 4]), &mut wanted)?;
    let token = wanted.token?;
    let raw = token.of(sql);
    match token.kind {
        Kind::Param => {
            let number = std::str::from_utf8(raw.get(1..)?).ok()?;
            number.parse().ok().map(KeyText::Param)
        }
        Kind::Number => Some(KeyText::Literal(Cow::Borrowed(raw))),
        _ => literal(sql, token).map(KeyText::Literal),
    }
}

/// The hash of a value's text, the same for a literal and a parameter in text format. FNV-1a: a client that makes its
/// values collide only waits in one queue with itself.
#[must_use]
pub fn hot_hash(value: &[u8]) -> u64 {
    value
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Keeps one value.
struct Wanted {
    ordinal: u32,
    token: Option<Token>,
}

impl Sink for Wanted {
    #[inline]
    fn push(&mut self, token: Token, ordinal: Option<u32>) {
        if ordinal == Some(self.ordinal) {
            self.token = Some(token);
        }
    }

    fn len(&self) -> usize {
        0
    }

    fn truncate(&mut self, _: usize) {}
}

/// Brackets around the whole condition that are looked through.
const BRACKETS_MAX: usize = 4;

/// The key of a statement of the text that `ordinals` (one per token of `text`) belongs to.
pub(crate) fn find(
    text: Cursor<'_>,
    ordinals: &[Option<u32>],
    statement: Cursor<'_>,
    shape: &Shape,
) -> Option<HotKey> {
    if !matches!(shape, Shape::Update | Shape::Delete | Shape::Select { locking: true }) {
        return None;
    }
    let (_, value) = key_value(statement)?;
    let ordinal = ordinal_of(text, ordinals, value)?;
    Some(HotKey { ordinal })
}

/// The column and the key of the only statement of a text, whatever it is.
pub(crate) fn named_key(text: Cursor<'_>, ordinals: &[Option<u32>]) -> Option<(Box<str>, HotKey)> {
    let (column, value) = key_value(text)?;
    let ordinal = ordinal_of(text, ordinals, value)?;
    let column = std::str::from_utf8(column.as_bytes()).ok()?.into();
    Some((column, HotKey { ordinal }))
}

/// Which value of the text a token is.
fn ordinal_of(text: Cursor<'_>, ordinals: &[Option<u32>], value: Token) -> Option<u32> {
    let index = text.tokens.binary_search_by_key(&value.start, |token| token.start).ok()?;
    *ordinals.get(index)?
}

/// The token that is compared to the column that looks most like a key.
fn key_value(statement: Cursor<'_>) -> Option<(Ident, Token)> {
    let mut cursor = statement;
    cursor.until(|cursor| cursor.is("where"));
    if !cursor.eat("where") {
        return None;
    }
    let mut condition =
        cursor.until(|cursor| is_clause_end(cursor) || cursor.kind() == Some(Kind::Semicolon));
    for _ in 0..BRACKETS_MAX {
        let mut rest = condition;
        match rest.parenthesised() {
            Some(inner) if rest.is_done() => condition = inner,
            _ => break,
        }
    }
    let mut best: Option<(u8, Ident, Token)> = None;
    while !condition.is_done() {
        let term = condition.until(|cursor| cursor.is("and") || cursor.is("or"));
        if condition.is("or") {
            return None;
        }
        condition.bump();
        let Some((column, value)) = equality(term) else { continue };
        let rank = rank(column.as_bytes());
        if best.is_none_or(|(other, ..)| rank > other) {
            best = Some((rank, column, value));
        }
    }
    best.map(|(_, column, value)| (column, value))
}

fn is_clause_end(cursor: &Cursor<'_>) -> bool {
    const CLAUSES: [&str; 12] = [
        "returning",
        "group",
        "having",
        "window",
        "union",
        "intersect",
        "except",
        "order",
        "limit",
        "offset",
        "fetch",
        "for",
    ];
    cursor.is_any(&CLAUSES)
}

/// `column = value` or `table.column = value::type`, and nothing else.
fn equality(mut term: Cursor<'_>) -> Option<(Ident, Token)> {
    let mut column = term.name()?;
    while term.eat_kind(Kind::Dot) {
        column = term.name()?;
    }
    if !term.eat_operator(b"=") {
        return None;
    }
    let value = term.bump().filter(|token| token.kind.is_value())?;
    let is_cast = term.eat_kind(Kind::Typecast) && term.tokens.iter().all(|token| token.kind != Kind::Op);
    (term.is_done() || is_cast).then_some((column, value))
}

/// How much a column's name looks like a key.
fn rank(column: &[u8]) -> u8 {
    match column.to_ascii_lowercase().as_slice() {
        b"id" => 3,
        name if name.ends_with(b"id") || name.ends_with(b"key") || name.ends_with(b"code") => 2,
        b"sku" | b"slug" | b"email" => 2,
        _ => 1,
    }
}
