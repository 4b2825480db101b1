//! Texts that nobody means well with: no panic, bounded work, and the primary.
//!
//! Work is counted, not timed: bytes lexed are bounded by the lexer's own measure (`WORK_MAX`), what comes after by
//! tokens looked at and names looked up (`Route::work`). `examples/classify_speed.rs` prints the time.

use proptest::prelude::*;
use tenfold_sql::{Classifier, Destination, Dialect, Reason, Tables};

use crate::routes::{decide, shop};
use crate::support::SEED;

/// At tens of nanoseconds each, half a millisecond.
const WORK_MAX: u32 = 30_000;

fn long(head: &str, unit: &str, bytes: usize) -> String {
    format!("{head}{}", unit.repeat(bytes / unit.len()))
}

/// What is repeated until a text is long or deep: how it begins, the unit, how it ends.
const SHAPES: [(&str, &str, &str); 70] = [
    ("SELECT 1 WHERE a IN (1", ", 12345", ")"),
    ("SELECT 1 WHERE a IN (f(1)", ", f(12345)", ")"),
    ("INSERT INTO users VALUES (1, 'x')", ", (12345, 'some text')", ""),
    ("SELECT '", "x", "'"),
    ("SELECT '", "''", "'"),
    ("SELECT E'", "\\'", "'"),
    ("SELECT $$", "$", "$$"),
    ("SELECT ", "+", " 1"),
    ("SELECT ", "(", "1"),
    ("SELECT ", "((1)", ""),
    ("SELECT ", "[", ""),
    ("SELECT ", " ", "1"),
    ("SELECT /*", "x", "*/ 1"),
    ("SELECT ", "/*", ""),
    ("SELECT ", "/*tenfold: replica*/", "1"),
    ("SELECT 1 ", "-- x\n", ""),
    ("SELECT ", "word, ", "1"),
    ("SELECT ", "f(a), ", "1"),
    ("SELECT ", "a.b.c.d.", "e"),
    ("SELECT ", "set_config(", ""),
    ("SELECT ", "current_setting('a'), ", "1"),
    ("WITH ", "a(b) AS (SELECT 1), ", "c AS (SELECT 1) SELECT 1"),
    ("WITH x AS (SELECT 1), ", "a(((b, ", ""),
    ("SELECT 1 FROM ", "users, ", "users"),
    ("SELECT 1 FROM ", "users JOIN ", "users"),
    ("SELECT 1 ", "UNION SELECT 1 ", ""),
    ("SELECT ", "CASE WHEN 1 = 1 THEN ", ""),
    ("SELECT ", "(SELECT ", ""),
    ("SELECT 1", "; SELECT 1", ""),
    ("", ";", ""),
    ("", "EXPLAIN ", "SELECT 1"),
    ("UPDATE users SET id = 1 WHERE ", "id = 1 AND ", "true"),
    ("DELETE FROM ", "DELETE FROM ", ""),
    ("TRUNCATE users", ", users", ""),
    ("DO $$ BEGIN ", "EXECUTE 'SELECT ' || 'x'; ", "END $$"),
    ("PREPARE a AS ", "PREPARE a AS ", "SELECT 1"),
    ("SELECT \"", "\"\"", "\""),
    ("SELECT U&\"", "\\0041", "\""),
    ("SELECT ", "\u{e9}", ""),
    ("SELECT ", "1.", ""),
    ("SELECT ", "$", ""),
    ("SELECT ", "CASE ", ""),
    ("SELECT ", "ARRAY[", ""),
    ("SELECT ", "1 IN (", ""),
    ("SELECT ", "a BETWEEN ", ""),
    ("SELECT $1", ", $65535", ""),
    ("SELECT ", "$a$ $b$ $a$, ", "1"),
    ("SELECT ", "$a$ $b$ ", ""),
    ("WITH ", "x AS (WITH ", ""),
    ("WITH x AS (SELECT 1)", ", x AS (SELECT 1)", " SELECT 1"),
    ("SET search_path = 'a'", ", 'somewhere else'", ""),
    ("SET search_path = '", "x", "'"),
    ("SET search_path = 'a'", ", 'pg_tem pg_tem pg_tem'", ""),
    ("SELECT set_config('search_path', '", "x", "', false)"),
    ("CREATE TABLE \"", "x", "\" (a int)"),
    ("CREATE TABLE a (", "\"pg_tem\" int, ", "b int)"),
    ("SELECT 1", "::a", ""),
    ("SELECT NULL::a", ", NULL::a.b", ""),
    ("SELECT 1 FROM t WHERE ", "a b ", ""),
    ("SELECT 1 FROM ", "a.b.c.d, ", "e"),
    ("SELECT 'a'", "\n'b'", ""),
    ("EXECUTE p(", "1, ", "1)"),
    ("EXPLAIN ANALYZE EXECUTE p(", "f(", ""),
    ("EXPLAIN (ANALYZE", ", ANALYZE", ") SELECT 1"),
    ("COPY (", "COPY (", ""),
    ("DO $$ ", "BEGIN ", "$$"),
    ("PREPARE a (", "int, ", "int) AS SELECT 1"),
    ("SELECT ", "nested /* ", ""),
    ("SELECT 1 ", "ORDER BY 1 ", ""),
    ("SELECT ", "\0", ""),
];

/// Whatever may be long or deep, at a size and at ten times that.
fn hostile() -> Vec<String> {
    let sizes = [16_000, 40_000, 400_000, 10_000_000];
    let shape = |bytes: usize| SHAPES.iter().map(move |(head, unit, end)| long(head, unit, bytes) + end);
    sizes.into_iter().flat_map(shape).collect()
}

#[test]
fn deciding_a_hostile_text_takes_bounded_work() {
    for sql in hostile() {
        let decision = decide(&sql);
        let shown = format!("{:.60}… ({} bytes)", sql, sql.len());
        assert!(decision.route.work <= WORK_MAX, "{shown} takes {} steps", decision.route.work);
        if sql.len() > 16 * 1024 && decision.route.destination != Destination::Follows {
            assert!(matches!(decision.route.destination, Destination::Primary(_)), "{shown}");
        }
    }
}

#[test]
fn ordinary_statements_take_little() {
    for sql in [
        "SELECT id FROM users WHERE id = 5",
        "SELECT u.id, o.total FROM users u JOIN orders o ON o.user_id = u.id",
    ] {
        let work = decide(sql).route.work;
        assert!((10..120).contains(&work), "{sql} takes {work} steps");
    }
}

#[test]
fn what_is_not_read_goes_to_the_primary_and_touches_everything() {
    let mut classifier = Classifier::new(SEED);
    let mut ask = |sql: &[u8], dialect| {
        let decision = classifier.classify(sql, dialect, &shop().catalogue);
        (decision.route.destination, decision.route.writes.clone())
    };
    let unread = (Destination::Primary(Reason::Unreadable), Tables::All);
    let odd = Dialect { standard_conforming_strings: true, ascii_safe: false };
    assert_eq!(ask(b"SELECT 1", odd), unread, "an encoding whose bytes may be halves of characters");
    for sql in [
        &b"SELECT '\xff"[..],
        b"SELECT \x00",
        b"SELECT 1 \x01",
        b"SELECT 'a",
        b"SELECT \"a",
        b"SELECT $a$ $b$",
        b"SELECT E'\\'",
        b"/* /* */",
    ] {
        assert_eq!(ask(sql, Dialect::default()), unread, "{sql:?}");
    }
    // With backslashes in strings the same bytes are another statement.
    let old = Dialect { standard_conforming_strings: false, ascii_safe: true };
    let hidden = br"SELECT 'a\'; DELETE FROM users; --'";
    assert_eq!(
        ask(hidden, old),
        (Destination::Primary(Reason::Unreadable), Tables::NONE),
        "all of it is a string"
    );
    assert!(
        matches!(ask(hidden, Dialect::default()).0, Destination::Primary(_)),
        "it ends before the semicolon"
    );
}

/// Pieces that, put together, come near to being statements.
const PIECES: [&str; 48] = [
    "SELECT",
    "FROM",
    "users",
    "orders",
    "WHERE",
    "id",
    "=",
    "1",
    "(",
    ")",
    ",",
    "'x'",
    "INSERT INTO",
    "VALUES",
    "UPDATE",
    "SET",
    "DELETE",
    "nextval",
    "('tickets')",
    "WITH",
    "x",
    "AS",
    "UNION",
    "ALL",
    "ORDER BY",
    "LIMIT",
    "FOR UPDATE",
    ";",
    "lower",
    "volatile_block",
    "$1",
    "::",
    "int",
    "EXPLAIN",
    "ANALYZE",
    "INTO",
    "JOIN",
    "ON",
    "GROUP BY",
    "HAVING",
    "CASE",
    "WHEN",
    "END",
    "drawing",
    "*",
    ".",
    "public",
    "RETURNING",
];

proptest! {
    /// Whatever the server would make of it: these words are never on a replica.
    #[test]
    fn writes_sequences_and_locks_never_hide(pieces in prop::collection::vec(0..PIECES.len(), 1..24)) {
        let words: Vec<&str> = pieces.iter().map(|piece| PIECES[*piece]).collect();
        let sql = words.join(" ");
        let decision = decide(&sql);
        let risky = ["INSERT INTO", "DELETE", "drawing", "FOR UPDATE"];
        let calls = words.windows(2).any(|pair| pair == ["nextval", "('tickets')"]);
        if decision.route.destination == Destination::Replica {
            prop_assert!(!calls, "{sql}");
            prop_assert!(!words.iter().any(|word| risky.contains(word)), "{sql}");
            prop_assert!(decision.effects.is_empty(), "{sql} leaves {}", decision.effects);
        }
    }
}
