//! Function bodies: what a function written in SQL or PL/pgSQL does, its statements made at run time included.
//!
//! **Intuition.** A body is a string of statements with control words between them. Where a statement begins is enough
//! to find SET, CREATE TEMP TABLE and their like; all other names are swept as in a query.
//!
//! **Mechanism.** The tokens are cut after `;`, and in PL/pgSQL after THEN, ELSE, LOOP, BEGIN and labels. A piece that begins with the verb
//! of a session statement is read as that statement; any other is swept. PL/pgSQL's EXECUTE is read as a template: its
//! string literals put together, with names made by `%I` and `quote_ident` standing for any name, values by `%L`.
//!
//! **Failure.** Text made at run time in any other way (`%s`, a variable) is unknown. A piece that is no statement after
//! all (a column named `load` after THEN) is swept.

use super::cursor::{Cursor, is_word};
use super::facts::Form;
use super::sweep::{ANY_NAME, holds, sweep};
use super::{LEVELS_MAX, Mode, Reader, tokens};
use crate::effects::Effects;
use crate::fingerprint::Seed;
use crate::ident::literal;
use crate::lex::Kind;

/// Bytes of one statement put together at run time.
const TEMPLATE_BYTES_MAX: usize = 64 * 1024;

/// Reads a text found inside another into the same facts.
pub(crate) fn nested(reader: &mut Reader<'_>, text: &[u8], mode: Mode) {
    within(reader, text, mode, body);
}

/// The same for an expression, or a definition as the server prints it, of which only the names matter.
pub(crate) fn swept(reader: &mut Reader<'_>, text: &[u8], mode: Mode) {
    within(reader, text, mode, |reader, cursor| sweep(cursor, reader.mode, &mut reader.facts));
}

/// The same for a trigger, whose events and tables are no verbs and relations: what is run follows FOR EACH.
pub(crate) fn trigger(reader: &mut Reader<'_>, text: &[u8], mode: Mode) {
    within(reader, text, mode, |reader, mut cursor| {
        cursor.until(|cursor| cursor.is("for") && cursor.is_at(1, "each"));
        sweep(cursor, reader.mode, &mut reader.facts);
    });
}

fn within(reader: &mut Reader<'_>, text: &[u8], mode: Mode, read: fn(&mut Reader<'_>, Cursor<'_>)) {
    if reader.level >= LEVELS_MAX {
        return reader.facts.add(Effects::UNKNOWN);
    }
    // Fingerprints of bodies are not used, so that the seed does not matter.
    let Some((reading, tokens)) = tokens(text, reader.dialect, &Seed([1; 4])) else {
        return reader.facts.add(Effects::UNKNOWN);
    };
    reader.reading.is_condensed |= reading.is_condensed;
    let outer = reader.mode;
    reader.mode = mode;
    reader.level += 1;
    read(reader, Cursor::new(text, &tokens.tokens));
    reader.level -= 1;
    reader.mode = outer;
}

/// Reads a body piece by piece.
fn body(reader: &mut Reader<'_>, mut cursor: Cursor<'_>) {
    reader.facts.is_cut |= reader.mode == Mode::Plpgsql;
    let mut is_start = true;
    let (mut opened, mut closed) = (0_usize, 0_usize);
    while !cursor.is_done() {
        let before = cursor;
        let piece = next_piece(&mut cursor, reader.mode);
        // In SQL nothing but statements stands at the start of one.
        reader.facts.is_utility |= reader.mode == Mode::Sql && is_start && !is_query(&piece);
        let last = before.tokens.len().checked_sub(cursor.tokens.len() + 1);
        is_start = last.and_then(|last| before.kind_at(last)) == Some(Kind::Semicolon);
        let is_read = is_utility(&piece) && reader.statement(piece).is_some();
        if !is_read {
            sweep(piece, reader.mode, &mut reader.facts);
        }
        executed(reader, piece);
        opened += usize::from(reader.mode == Mode::Plpgsql && piece.is("open"));
        closed += usize::from(piece.is("close"));
    }
    reader.facts.keeps_cursor |= opened > closed;
}

/// Up to where the next statement may begin.
fn next_piece<'a>(cursor: &mut Cursor<'a>, mode: Mode) -> Cursor<'a> {
    let start = *cursor;
    let mut length = 0;
    while let Some(token) = cursor.bump() {
        let word = |words: &[&str]| words.iter().any(|word| is_word(start.text, token, word));
        let is_label = token.kind == Kind::Op && token.of(start.text) == b">>";
        if token.kind == Kind::Semicolon {
            break;
        }
        length += 1;
        if mode == Mode::Plpgsql && (is_label || word(&["then", "else", "loop", "begin"])) {
            break;
        }
    }
    Cursor::new(start.text, start.tokens.get(..length).unwrap_or_default())
}

/// Whether a piece is empty, reads, or changes rows.
fn is_query(piece: &Cursor<'_>) -> bool {
    const VERBS: [&str; 9] =
        ["select", "with", "values", "table", "insert", "update", "delete", "merge", "truncate"];
    piece.is_done() || piece.kind() == Some(Kind::Open) || piece.is_any(&VERBS)
}

/// Whether a piece begins like a statement that sweeping would not understand.
fn is_utility(piece: &Cursor<'_>) -> bool {
    piece.is_any(&[
        "set",
        "reset",
        "discard",
        "deallocate",
        "prepare",
        "listen",
        "unlisten",
        "load",
        "do",
        "copy",
    ]) || piece
        .is_any(&["create", "alter", "drop", "truncate", "grant", "revoke", "comment", "import", "refresh"])
}

/// EXECUTE in a piece: in PL/pgSQL a statement made at run time, in SQL one that was prepared.
fn executed(reader: &mut Reader<'_>, piece: Cursor<'_>) {
    let mut cursor = piece;
    while !cursor.is_done() {
        if !cursor.eat("execute") {
            cursor.bump();
            continue;
        }
        // GRANT EXECUTE ON FUNCTION, EXECUTE FUNCTION of a trigger.
        if cursor.is_any(&["on", "function", "procedure"]) || cursor.is_done() {
            continue;
        }
        if reader.mode == Mode::Sql {
            reader.facts.add(Effects::SQL_EXECUTE);
            continue;
        }
        let text = cursor.until(|cursor| cursor.is_any(&["into", "using", "loop"]));
        match template(text) {
            Some(text) => nested_template(reader, &text),
            None => reader.facts.add(Effects::UNKNOWN),
        }
    }
}

fn nested_template(reader: &mut Reader<'_>, text: &[u8]) {
    let calls = reader.facts.calls.len();
    nested(reader, text, Mode::Sql);
    if holds(text, ANY_NAME) {
        reader.facts.any_relation = true;
        let mut made = reader.facts.calls.iter().skip(calls).filter(|call| call.form != Form::Attribute);
        if made.any(|call| holds(call.name.as_bytes(), ANY_NAME)) {
            reader.facts.add(Effects::UNKNOWN);
        }
    }
}

/// The text that an expression of literals, names and values makes. `None` if anything else is in it.
fn template(mut cursor: Cursor<'_>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        part(&mut cursor, &mut text)?;
        if text.len() > TEMPLATE_BYTES_MAX {
            return None;
        }
        if cursor.is_done() {
            return Some(text);
        }
        if !cursor.eat_operator(b"||") {
            return None;
        }
    }
}

/// One operand of `||`.
fn part(cursor: &mut Cursor<'_>, text: &mut Vec<u8>) -> Option<()> {
    let token = cursor.peek()?;
    if token.kind.is_string() {
        cursor.bump();
        text.extend_from_slice(&literal(cursor.text, token)?);
        return Some(());
    }
    let _ = cursor.is("pg_catalog") && cursor.kind_at(1) == Some(Kind::Dot) && {
        cursor.bump();
        cursor.bump().is_some()
    };
    let name = cursor.name()?;
    match name.as_bytes() {
        b"quote_ident" => {
            cursor.parenthesised()?;
            text.extend_from_slice(ANY_NAME.as_bytes());
        }
        b"tg_table_name" | b"tg_table_schema" | b"tg_relname" => text.extend_from_slice(ANY_NAME.as_bytes()),
        b"quote_literal" | b"quote_nullable" => {
            cursor.parenthesised()?;
            text.extend_from_slice(b"''");
        }
        b"format" => format(cursor.parenthesised()?, text)?,
        _ => return None,
    }
    Some(())
}

/// `format('…%I…%L…', …)`.
fn format(mut arguments: Cursor<'_>, text: &mut Vec<u8>) -> Option<()> {
    let pattern = arguments.bump()?;
    if !arguments.is_done() && arguments.kind() != Some(Kind::Comma) {
        return None;
    }
    let pattern = literal(arguments.text, pattern)?;
    let mut bytes = pattern.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            text.push(byte);
            continue;
        }
        let skipped = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'$' | b'-' | b'*');
        match bytes.find(|byte| !skipped(byte))? {
            b'%' => text.push(b'%'),
            b'I' => text.extend_from_slice(ANY_NAME.as_bytes()),
            b'L' => text.extend_from_slice(b"''"),
            _ => return None,
        }
    }
    Some(())
}
