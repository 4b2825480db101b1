//! Statements about the session itself: SET and its many grammars, RESET, SHOW, DISCARD, prepared statements, channels,
//! cursors.
//!
//! Each function reads one statement after its first word, exactly as `gram.y` has it, and gives its shape; `None` if
//! the text is none of its forms, which the server would refuse too (or which is newer than this program).

use super::cursor::Cursor;
use super::facts::{Facts, setting_name};
use super::sweep::{ANY_NAME, holds, name_temp};
use super::transaction;
use crate::decision::{Discard, Set, SetValue, Shape};
use crate::effects::Effects;
use crate::ident::literal;
use crate::lex::{Kind, Token};

/// After SET.
pub(crate) fn set(mut cursor: Cursor<'_>, facts: &mut Facts) -> Option<Shape> {
    if cursor.is("constraints") && !is_assignment(&cursor) {
        return Some(Shape::SetConstraints);
    }
    if cursor.is("transaction") && !is_assignment(&cursor) {
        cursor.bump();
        let is_valid = cursor.eat("snapshot") || transaction::modes(&mut cursor).is_some();
        return is_valid.then_some(Shape::SetTransaction);
    }
    let mut local = false;
    if cursor.is_any(&["session", "local"]) && !is_assignment(&cursor) && !cursor.is_at(1, "authorization") {
        local = cursor.is("local");
        cursor.bump();
    }
    if cursor.is("characteristics") && !is_assignment(&cursor) {
        return characteristics(cursor, facts);
    }
    let all = cursor;
    let (name, value) = assignment(&mut cursor)?;
    if !cursor.is_done() {
        return None;
    }
    facts.needs_text = true;
    if !local {
        // From here on plain CREATE TABLE may make temporary ones.
        if &*name == "search_path" && name_temp(all.text, all.tokens.iter()) {
            facts.add(Effects::UNKNOWN);
        }
        let is_known = !holds(name.as_bytes(), ANY_NAME);
        facts.setting(is_known.then(|| name.clone()));
        // SET ROLE NONE is a role, whatever role the session began with.
        if value == SetValue::Default && &*name != "role" {
            facts.add(Effects::RESETS);
        }
    }
    Some(Shape::Set(Set { name, local, value }))
}

/// Whether the word that is next is a setting's name rather than part of the grammar.
fn is_assignment(cursor: &Cursor<'_>) -> bool {
    let mut after = *cursor;
    after.bump();
    after.kind() == Some(Kind::Dot) || after.is("to") || after.eat_operator(b"=") || after.is("from")
}

/// SESSION CHARACTERISTICS AS TRANSACTION modes.
fn characteristics(mut cursor: Cursor<'_>, facts: &mut Facts) -> Option<Shape> {
    if !cursor.eat_all(&["characteristics", "as", "transaction"]) {
        return None;
    }
    transaction::modes(&mut cursor)?;
    for name in
        ["default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable"]
    {
        facts.setting(Some(name.into()));
    }
    Some(Shape::SetSessionCharacteristics)
}

/// `set_rest_more` in gram.y: which setting, and what to.
fn assignment(cursor: &mut Cursor<'_>) -> Option<(Box<str>, SetValue)> {
    let special = |name: &str, value: SetValue| Some((Box::from(name), value));
    if !is_assignment(cursor) {
        if cursor.eat_all(&["time", "zone"]) {
            return special("timezone", zone(cursor)?);
        }
        if cursor.eat("role") {
            return special("role", word_or_literal(cursor, "none")?);
        }
        if cursor.eat_all(&["session", "authorization"]) {
            return special("session_authorization", word_or_literal(cursor, "default")?);
        }
        if cursor.eat("names") {
            let is_bare = cursor.is_done();
            let value = if is_bare { SetValue::Default } else { word_or_literal(cursor, "default")? };
            return special("client_encoding", value);
        }
        if cursor.eat("schema") {
            return special("search_path", word_or_literal(cursor, "default")?);
        }
        if cursor.eat_all(&["xml", "option"]) {
            return special("xmloption", word_or_literal(cursor, "default")?);
        }
    }
    let name = variable(cursor)?;
    if cursor.eat_all(&["from", "current"]) {
        return Some((name, SetValue::Complex));
    }
    if !cursor.eat("to") && !cursor.eat_operator(b"=") {
        return None;
    }
    Some((name, values(cursor)?))
}

/// A setting's name, with dots.
fn variable(cursor: &mut Cursor<'_>) -> Option<Box<str>> {
    let mut name = cursor.name()?.as_bytes().to_vec();
    while cursor.eat_kind(Kind::Dot) {
        name.push(b'.');
        name.extend_from_slice(cursor.name()?.as_bytes());
    }
    setting_name(&name)
}

fn values(cursor: &mut Cursor<'_>) -> Option<SetValue> {
    if cursor.eat("default") {
        return Some(SetValue::Default);
    }
    let first = value(cursor)?;
    if cursor.is_done() {
        return Some(first);
    }
    while cursor.eat_kind(Kind::Comma) {
        value(cursor)?;
    }
    Some(SetValue::Complex)
}

/// One word, literal or number with a sign.
fn value(cursor: &mut Cursor<'_>) -> Option<SetValue> {
    let is_negative = cursor.eat_operator(b"-");
    let is_signed = is_negative || cursor.eat_operator(b"+");
    let token = cursor.peek()?;
    if token.kind == Kind::Number {
        cursor.bump();
        let sign: &[u8] = if is_negative { b"-" } else { b"" };
        return Some(SetValue::One([sign, token.of(cursor.text)].concat().into()));
    }
    if is_signed {
        return None;
    }
    plain_value(cursor)
}

/// `NonReservedWord_or_Sconst`; `reset` is the word that means the default.
fn word_or_literal(cursor: &mut Cursor<'_>, reset: &str) -> Option<SetValue> {
    if cursor.eat(reset) {
        return Some(SetValue::Default);
    }
    plain_value(cursor)
}

fn plain_value(cursor: &mut Cursor<'_>) -> Option<SetValue> {
    let token = cursor.peek()?;
    if let Some(name) = cursor.name() {
        return Some(SetValue::One(name.to_name()));
    }
    if !token.kind.is_string() {
        return None;
    }
    cursor.bump();
    Some(literal(cursor.text, token).map_or(SetValue::Complex, |value| SetValue::One(value.into())))
}

/// What follows TIME ZONE.
fn zone(cursor: &mut Cursor<'_>) -> Option<SetValue> {
    if cursor.eat("default") || cursor.eat("local") {
        return Some(SetValue::Default);
    }
    if cursor.is("interval") {
        cursor.tokens = &[];
        return Some(SetValue::Complex);
    }
    match value(cursor)? {
        // A number means hours east of UTC here, which is not how the setting takes it.
        SetValue::One(value) if value.first().is_some_and(|byte| !byte.is_ascii_alphabetic()) => {
            Some(SetValue::Complex)
        }
        value => Some(value),
    }
}

/// The setting that RESET or SHOW names, in all forms.
fn named(cursor: &mut Cursor<'_>) -> Option<Box<str>> {
    let forms: [(&[&str], &str); 3] = [
        (&["time", "zone"], "timezone"),
        (&["transaction", "isolation", "level"], "transaction_isolation"),
        (&["session", "authorization"], "session_authorization"),
    ];
    for (words, name) in forms {
        if cursor.eat_all(words) {
            return Some(name.into());
        }
    }
    variable(cursor)
}

/// After RESET.
pub(crate) fn reset(mut cursor: Cursor<'_>, facts: &mut Facts) -> Option<Shape> {
    if cursor.eat("all") {
        facts.add(Effects::RESETS | Effects::RESETS_ALL);
        return cursor.is_done().then_some(Shape::ResetAll);
    }
    let name = named(&mut cursor)?;
    facts.needs_text = true;
    facts.add(Effects::RESETS);
    match holds(name.as_bytes(), ANY_NAME) {
        true => facts.setting(None),
        false => facts.note(name.clone()),
    }
    if &*name == "session_authorization" {
        facts.note("role".into());
    }
    cursor.is_done().then_some(Shape::Reset(name))
}

/// After SHOW.
pub(crate) fn show(mut cursor: Cursor<'_>) -> Option<Shape> {
    let name = if cursor.eat("all") { "all".into() } else { named(&mut cursor)? };
    cursor.is_done().then_some(Shape::Show(name))
}

/// After DISCARD.
pub(crate) fn discard(mut cursor: Cursor<'_>, facts: &mut Facts) -> Option<Shape> {
    const ALL: Effects = Effects::DISCARD_ALL
        .with(Effects::RESETS)
        .with(Effects::RESETS_ALL)
        .with(Effects::DEALLOCATE_ALL)
        .with(Effects::SQL_PREPARE)
        .with(Effects::LISTEN)
        .with(Effects::ADVISORY_UNLOCK)
        .with(Effects::TEMP_DROP)
        .with(Effects::CURSOR_CLOSE);
    let (what, effects) = match () {
        () if cursor.eat("all") => (Discard::All, ALL),
        () if cursor.eat("plans") => (Discard::Plans, Effects::NONE),
        () if cursor.eat("sequences") => (Discard::Sequences, Effects::NONE),
        () if cursor.eat("temp") || cursor.eat("temporary") => (Discard::Temp, Effects::TEMP_DROP),
        () => return None,
    };
    facts.add(effects);
    cursor.is_done().then_some(Shape::Discard(what))
}

/// After DEALLOCATE.
pub(crate) fn deallocate(mut cursor: Cursor<'_>, facts: &mut Facts) -> Option<Shape> {
    if cursor.is("prepare") && cursor.tokens.len() > 1 {
        cursor.bump();
    }
    facts.needs_text = true;
    facts.add(Effects::SQL_PREPARE);
    if cursor.eat("all") {
        facts.add(Effects::DEALLOCATE_ALL);
        return cursor.is_done().then_some(Shape::DeallocateAll);
    }
    let name = cursor.name()?;
    cursor.is_done().then_some(Shape::Deallocate(name.to_name()))
}

/// After LISTEN.
pub(crate) fn listen(mut cursor: Cursor<'_>, facts: &mut Facts) -> Option<Shape> {
    let name = cursor.name()?;
    facts.needs_text = true;
    facts.add(Effects::LISTEN);
    cursor.is_done().then_some(Shape::Listen(name.to_name()))
}

/// After UNLISTEN.
pub(crate) fn unlisten(mut cursor: Cursor<'_>, facts: &mut Facts) -> Option<Shape> {
    facts.needs_text = true;
    facts.add(Effects::LISTEN);
    if cursor.eat_operator(b"*") {
        return cursor.is_done().then_some(Shape::UnlistenAll);
    }
    let name = cursor.name()?;
    cursor.is_done().then_some(Shape::Unlisten(name.to_name()))
}

/// After NOTIFY.
pub(crate) fn notify(mut cursor: Cursor<'_>) -> Option<Shape> {
    let name = cursor.name()?;
    if cursor.eat_kind(Kind::Comma) {
        cursor.bump().filter(|token| token.kind.is_string())?;
    }
    cursor.is_done().then_some(Shape::Notify(name.to_name()))
}

/// After CLOSE.
pub(crate) fn close(mut cursor: Cursor<'_>, facts: &mut Facts) -> Option<Shape> {
    facts.add(Effects::CURSOR_CLOSE);
    if !cursor.eat("all") {
        cursor.name()?;
    }
    cursor.is_done().then_some(Shape::CloseCursor)
}

/// After DECLARE: the cursor's query follows FOR.
pub(crate) fn declare<'a>(mut cursor: Cursor<'a>, facts: &mut Facts) -> Option<(bool, Cursor<'a>)> {
    cursor.name()?;
    while cursor.is_any(&["binary", "asensitive", "insensitive", "no", "scroll"]) {
        cursor.bump();
    }
    if !cursor.eat("cursor") {
        return None;
    }
    let hold = cursor.eat_all(&["with", "hold"]);
    let _ = cursor.eat_all(&["without", "hold"]);
    if hold {
        facts.add(Effects::HOLD);
    }
    cursor.eat("for").then_some((hold, cursor))
}

/// The first string literal of a statement: the body of DO, the library of LOAD.
pub(crate) fn first_literal(cursor: &Cursor<'_>) -> Option<Token> {
    cursor.tokens.iter().copied().find(|token| token.kind.is_string())
}
