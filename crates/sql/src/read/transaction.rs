//! Statements about transactions, exactly as `TransactionStmt` in gram.y has them.
//!
//! The pooler answers BEGIN itself and sends it later: a form taken for BEGIN that the server would refuse, or the
//! other way round, would break a client. So nothing here is lenient: one word too many and it is not recognised.

use super::cursor::Cursor;
use crate::decision::{Begin, Isolation, Shape};
use crate::lex::Kind;

/// A statement that begins with `word`, after that word.
pub(crate) fn statement(word: &str, mut cursor: Cursor<'_>) -> Option<Shape> {
    let shape = match word {
        "begin" => begin(&mut cursor, false)?,
        "start" => {
            if !cursor.eat("transaction") {
                return None;
            }
            begin(&mut cursor, true)?
        }
        "commit" if cursor.eat("prepared") => finish_prepared(&mut cursor)?,
        "commit" | "end" => Shape::Commit { chain: ending(&mut cursor)? },
        "rollback" if cursor.eat("prepared") => finish_prepared(&mut cursor)?,
        "rollback" => rollback(&mut cursor)?,
        "abort" => Shape::Rollback { chain: ending(&mut cursor)? },
        "savepoint" => Shape::Savepoint(cursor.name()?.to_name()),
        "release" => {
            eat_savepoint(&mut cursor);
            Shape::Release(cursor.name()?.to_name())
        }
        _ => return None,
    };
    cursor.is_done().then_some(shape)
}

/// After PREPARE TRANSACTION.
pub(crate) fn prepare(mut cursor: Cursor<'_>) -> Option<Shape> {
    gid(&mut cursor)?;
    cursor.is_done().then_some(Shape::PrepareTransaction)
}

fn begin(cursor: &mut Cursor<'_>, start: bool) -> Option<Shape> {
    if !start {
        eat_noise(cursor);
    }
    let begin = if cursor.is_done() { Begin::default() } else { modes(cursor)? };
    Some(Shape::Begin(Begin { start, ..begin }))
}

/// WORK or TRANSACTION.
fn eat_noise(cursor: &mut Cursor<'_>) {
    let _ = cursor.eat("work") || cursor.eat("transaction");
}

/// Whether AND CHAIN.
fn ending(cursor: &mut Cursor<'_>) -> Option<bool> {
    eat_noise(cursor);
    if !cursor.eat("and") {
        return Some(false);
    }
    let no = cursor.eat("no");
    cursor.eat("chain").then_some(!no)
}

fn rollback(cursor: &mut Cursor<'_>) -> Option<Shape> {
    let mut to = *cursor;
    eat_noise(&mut to);
    if !to.eat("to") {
        return Some(Shape::Rollback { chain: ending(cursor)? });
    }
    *cursor = to;
    eat_savepoint(cursor);
    Some(Shape::RollbackTo(cursor.name()?.to_name()))
}

/// SAVEPOINT before a name; alone it is the name.
fn eat_savepoint(cursor: &mut Cursor<'_>) {
    if cursor.is("savepoint") && cursor.tokens.len() > 1 {
        cursor.bump();
    }
}

fn finish_prepared(cursor: &mut Cursor<'_>) -> Option<Shape> {
    gid(cursor)?;
    Some(Shape::FinishPrepared)
}

fn gid(cursor: &mut Cursor<'_>) -> Option<()> {
    cursor.bump().filter(|token| token.kind.is_string()).map(|_| ())
}

/// `transaction_mode_list`: at least one mode, commas optional; the last of a kind counts.
pub(crate) fn modes(cursor: &mut Cursor<'_>) -> Option<Begin> {
    let mut begin = Begin::default();
    loop {
        mode(cursor, &mut begin)?;
        let is_comma = cursor.eat_kind(Kind::Comma);
        if cursor.is_done() {
            return (!is_comma).then_some(begin);
        }
    }
}

fn mode(cursor: &mut Cursor<'_>, begin: &mut Begin) -> Option<()> {
    if cursor.eat_all(&["isolation", "level"]) {
        begin.isolation = Some(isolation(cursor)?);
    } else if cursor.eat_all(&["read", "only"]) {
        begin.read_only = Some(true);
    } else if cursor.eat_all(&["read", "write"]) {
        begin.read_only = Some(false);
    } else if cursor.eat("deferrable") {
        begin.deferrable = Some(true);
    } else if cursor.eat_all(&["not", "deferrable"]) {
        begin.deferrable = Some(false);
    } else {
        return None;
    }
    Some(())
}

fn isolation(cursor: &mut Cursor<'_>) -> Option<Isolation> {
    let levels: [(&[&str], Isolation); 4] = [
        (&["read", "uncommitted"], Isolation::ReadUncommitted),
        (&["read", "committed"], Isolation::ReadCommitted),
        (&["repeatable", "read"], Isolation::RepeatableRead),
        (&["serializable"], Isolation::Serializable),
    ];
    levels.into_iter().find_map(|(words, level)| cursor.eat_all(words).then_some(level))
}
