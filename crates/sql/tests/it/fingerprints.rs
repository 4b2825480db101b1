//! Which texts are one fingerprint, what the classifier keeps, hot values, and how much a text may cost.

use proptest::prelude::*;
use tenfold_sql::{
    Catalogue, Classifier, Dialect, Effects, Fingerprint, KeyText, Shape, fingerprint, key_text,
};

use crate::support::{SEED, classify, database};

fn of(sql: &str) -> Fingerprint {
    fingerprint(sql.as_bytes(), Dialect::default(), &SEED)
        .unwrap_or_else(|| panic!("{sql} lexes"))
        .fingerprint
}

fn same(texts: &[&str]) {
    for pair in texts.windows(2) {
        assert_eq!(of(pair[0]), of(pair[1]), "{} / {}", pair[0], pair[1]);
    }
}

fn different(texts: &[&str]) {
    for (index, one) in texts.iter().enumerate() {
        for other in &texts[index + 1..] {
            assert_ne!(of(one), of(other), "{one} / {other}");
        }
    }
}

#[test]
fn literals_case_comments_and_spaces_do_not_matter() {
    same(&[
        "SELECT abalance FROM accounts WHERE aid = 1",
        "select ABALANCE from Accounts where AID=$1",
        "SELECT abalance/* x */FROM accounts WHERE aid = 'x''y' -- z",
        "SELECT abalance FROM accounts WHERE aid = $$x$$",
        "SELECT abalance FROM accounts WHERE aid = 1.5e10",
        "\nSELECT abalance FROM\taccounts WHERE aid = E'\\''",
    ]);
}

#[test]
fn words_quotes_and_operators_matter() {
    different(&[
        "SELECT a FROM t",
        "SELECT a FROM u",
        "SELECT \"a\" FROM t",
        "SELECT \"A\" FROM t",
        "SELECT U&\"a\" FROM t",
        "SELECT a, a FROM t",
        "SELECT aa FROM t",
        "SELECT a a FROM t",
        "SELECT 'a' FROM t",
        "SELECT a FROM t;",
        "SELECT a < 1 FROM t",
        "SELECT a > 1 FROM t",
        "SELECT a >= 1 FROM t",
        "SELECT a.b FROM t",
        "SELECT abcdefgh FROM t",
        "SELECT abcdefgi FROM t",
        "SELECT abcdefghabcdefgh FROM t",
        "SELECT abcdefgh abcdefgh FROM t",
    ]);
}

#[test]
fn lists_of_any_length_are_one() {
    same(&[
        "SELECT 1 WHERE a IN (1)",
        "SELECT 1 WHERE a IN (1, 2, 3)",
        "SELECT 1 WHERE a IN ($1, NULL, 'x', true)",
    ]);
    same(&[
        "INSERT INTO t VALUES (1, 'a')",
        "INSERT INTO t VALUES (1, 'a'), (2, NULL)",
        "INSERT INTO t VALUES ($1, $2), ($3, $4), (DEFAULT, true)",
    ]);
    same(&["SELECT ARRAY[1]", "SELECT ARRAY[1,2,3]"]);
    same(&["SELECT 1 WHERE (a, b) IN ((1, 2))", "SELECT 1 WHERE (a, b) IN ((1, 2), (3, 4))"]);
    same(&[
        "SELECT 1 WHERE a IN ('x'::text) AND b = 1",
        "SELECT 1 WHERE a IN ('x'::text, 'y'::text) AND b = 1",
    ]);
    same(&[
        "SELECT * FROM (VALUES (1), (2)) v WHERE a IN (1)",
        "SELECT * FROM (VALUES (1), (2), (3)) v WHERE a IN (1, 2)",
    ]);
    different(&[
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t VALUES (1, 2)",
        "INSERT INTO t VALUES (f(1))",
        "INSERT INTO t VALUES (1), (f(1))",
        "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
        "INSERT INTO t VALUES (1), (2) RETURNING a",
    ]);
    different(&[
        "SELECT 1 WHERE a IN (1)",
        "SELECT 1 WHERE a IN (b)",
        "SELECT 1 WHERE a IN (b, c)",
        "SELECT f(1)",
        "SELECT f(1, 2)",
    ]);
}

#[test]
fn the_seed_matters() {
    let other = tenfold_sql::Seed([1, 2, 3, 4]);
    let one = fingerprint(b"SELECT 1", Dialect::default(), &SEED);
    assert_ne!(one, fingerprint(b"SELECT 1", Dialect::default(), &other));
    assert!(!format!("{other:?}").contains('1'), "a seed is a secret");
}

fn hot(sql: &str) -> Option<KeyText<'_>> {
    let key = classify(sql, &Catalogue::empty()).hot?;
    key_text(sql.as_bytes(), Dialect::default(), &key)
}

fn check_hot(sql: &str, literal: &str) {
    assert_eq!(hot(sql), Some(KeyText::Literal(literal.as_bytes().into())), "{sql}");
}

#[test]
fn the_value_that_picks_a_row_is_found() {
    check_hot("UPDATE t SET a = 1, b = 'x' WHERE id = 5", "5");
    check_hot("UPDATE t SET a = 1 WHERE b IN (1, 2, 3) AND id = 5", "5");
    check_hot("UPDATE t SET a = a - 1 WHERE (t.id = '5'::uuid) RETURNING a", "5");
    check_hot("UPDATE \"t\" SET \"a\" = 1 WHERE (\"t\".\"a\" = 3 AND \"t\".\"id\" = 5)", "5");
    check_hot("DELETE FROM t WHERE tenant = 1 AND order_id = 'it''s' AND b > 3", "it's");
    check_hot("SELECT * FROM t WHERE sku = 'x' FOR UPDATE", "x");
    check_hot("SELECT * FROM t WHERE status = 'x' AND n = 3 FOR NO KEY UPDATE SKIP LOCKED", "x");
    check_hot("WITH x AS (SELECT 1 WHERE id = 3) UPDATE t SET a = 1 WHERE id = 4", "4");
    assert_eq!(hot("UPDATE t SET a = $2 WHERE id = $1"), Some(KeyText::Param(1)));
    assert_eq!(hot("UPDATE t SET a = $1 WHERE id = $2"), Some(KeyText::Param(2)));
    for none in [
        "SELECT * FROM t WHERE id = 5",
        "UPDATE t SET a = 1",
        "UPDATE t SET a = 1 WHERE id = 5 OR b = 6",
        "UPDATE t SET a = 1 WHERE id = 5 + 1",
        "UPDATE t SET a = 1 WHERE id > 5",
        "UPDATE t SET a = 1 WHERE id = b",
        "UPDATE t SET a = 1 WHERE f(id) = 5",
        "UPDATE t SET a = 1 WHERE NOT id = 5",
        "UPDATE t SET a = 1 WHERE id = -5",
        "UPDATE t SET a = 1 WHERE id = 5; SELECT 1",
    ] {
        assert_eq!(hot(none), None, "{none}");
    }
}

#[test]
fn a_hot_key_holds_for_every_text_of_its_fingerprint() {
    let key =
        classify("UPDATE t SET a = 1 WHERE b IN (1) AND id = 7", &Catalogue::empty()).hot.expect("a key");
    let other = b"UPDATE t SET a = 'x' WHERE b IN ('y', 'z', $3) AND id = $4";
    assert_eq!(key_text(other, Dialect::default(), &key), Some(KeyText::Param(4)));
    assert_eq!(key_text(b"SELECT 1", Dialect::default(), &key), None);
}

#[test]
fn decisions_are_kept_until_the_catalogue_changes() {
    let mut classifier = Classifier::new(SEED);
    let mut ask =
        |sql: &str, catalogue: &Catalogue| classifier.classify(sql.as_bytes(), Dialect::default(), catalogue);
    let before = database(&[("f", "sql", "SELECT 1")], &[]);
    let one = ask("SELECT f(1)", &before);
    assert!(std::sync::Arc::ptr_eq(&one, &ask("SELECT f(2)", &before)), "kept");
    assert_eq!(one.effects, Effects::NONE);
    assert_eq!(ask("SELECT f(1)", &before.stale()).effects, Effects::UNSURE);
    assert_eq!(ask("SELECT f(1)", &before.stale().as_read()).effects, Effects::NONE);
    assert_eq!(ask("SELECT lower('A')", &before.stale()).effects, Effects::NONE);
    assert_eq!(
        ask("INSERT INTO t VALUES (1)", &before.stale()).effects,
        Effects::WRITES | Effects::SEQUENCE_MAYBE
    );
    assert_eq!(ask("SELECT f(1)", &before).effects, Effects::NONE);
    assert_eq!(ask("SELECT f(1)", &Catalogue::empty()).effects, Effects::UNKNOWN);
}

#[test]
fn what_depends_on_the_text_is_read_afresh() {
    let mut classifier = Classifier::new(SEED);
    let catalogue = database(&[], &[]);
    let mut ask = |sql: &str| classifier.classify(sql.as_bytes(), Dialect::default(), &catalogue);
    assert_eq!(ask("SELECT set_config('a', '1', false)").settings, vec!["a".into()]);
    assert_eq!(ask("SELECT set_config('b', '1', false)").settings, vec!["b".into()]);
    assert_eq!(ask("DO $$ BEGIN END $$").effects, Effects::NONE);
    assert_eq!(ask("DO $$ BEGIN SET a = 1; END $$").effects, Effects::SETTINGS);
    assert_eq!(classifier.len(), 0);
}

#[test]
fn the_memory_is_bounded_and_keeps_what_is_used() {
    let mut classifier = Classifier::new(SEED);
    let catalogue = database(&[], &[]);
    let often = classifier.classify(b"SELECT often", Dialect::default(), &catalogue);
    for number in 0..20_000 {
        let sql = format!("SELECT column_{number} FROM t");
        classifier.classify(sql.as_bytes(), Dialect::default(), &catalogue);
        let again = classifier.classify(b"SELECT often", Dialect::default(), &catalogue);
        assert!(std::sync::Arc::ptr_eq(&often, &again), "forgotten after {number}");
    }
    assert!(classifier.len() <= 2 * 4_096, "{} kept", classifier.len());
}

/// Texts that look for the square of something.
fn hostile(size: usize) -> Vec<String> {
    let repeat = |head: &str, unit: &str| format!("{head}{}", unit.repeat(size / unit.len()));
    vec![
        repeat("SELECT ", "+"),
        repeat("SELECT 1 ", "<+"),
        repeat("SELECT ", "("),
        repeat("SELECT ", "/*"),
        repeat("SELECT ", "$"),
        repeat("SELECT ", "$a"),
        repeat("SELECT ", "'a'\n"),
        repeat("SELECT ", "'a' "),
        repeat("SELECT ", "set_config("),
        repeat("", "WITH x AS ("),
        repeat("SELECT ", "a."),
        repeat("SELECT ", "a("),
        repeat("SELECT ARRAY", "[ARRAY"),
        repeat("SELECT 1 WHERE a ", "IN (a,"),
        repeat("INSERT INTO t VALUES (1)", ",(1, 'abc', NULL)"),
        repeat("SELECT ", "\"a\""),
        repeat("UPDATE t SET a = 1 WHERE ", "id = 1 AND "),
        repeat("", "EXPLAIN "),
        repeat("", "PREPARE a AS "),
        repeat("", "COPY ("),
        repeat("", ";"),
        repeat("SELECT '", "a"),
        repeat("SELECT 1, ", "-"),
        repeat("CREATE FUNCTION f() BEGIN ATOMIC ", "case "),
        repeat("DO $$ ", "EXECUTE 'a' || "),
        repeat("SET x = ", "1,"),
        repeat("BEGIN ", "READ ONLY, "),
    ]
}

/// Counts work rather than time: a text of any size is given up after the same number of tokens.
#[test]
fn hostile_texts_end() {
    for size in [1_000, 20_000, 2_000_000] {
        for sql in hostile(size) {
            let decision = classify(&sql, &Catalogue::empty());
            let is_read = decision.shape != Shape::Other || decision.effects.contains(Effects::UNKNOWN);
            assert!(is_read, "{}", &sql[..40]);
        }
    }
}

#[test]
fn a_big_insert_is_read_and_a_huge_one_is_not() {
    let insert =
        |rows: usize| format!("INSERT INTO t VALUES (0, 'x'){}", ", (1, 'some text of a row')".repeat(rows));
    let catalogue = database(&[], &[]);
    assert_eq!(classify(&insert(2_000), &catalogue).effects, Effects::WRITES);
    assert_eq!(classify(&insert(400_000), &catalogue).effects, Effects::UNKNOWN);
    let blob = format!("INSERT INTO t VALUES ('{}')", "x".repeat(5_000_000));
    assert_eq!(classify(&blob, &catalogue).effects, Effects::WRITES);
}

proptest! {
    #[test]
    fn any_bytes_are_classified(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut classifier = Classifier::new(SEED);
        for standard_conforming_strings in [true, false] {
            let dialect = Dialect { standard_conforming_strings, ascii_safe: true };
            let one = classifier.classify(&bytes, dialect, &Catalogue::empty());
            let two = Classifier::new(SEED).classify(&bytes, dialect, &Catalogue::empty());
            prop_assert_eq!(one, two);
        }
    }

    #[test]
    fn pieces_of_sql_are_classified_alike_by_memory_and_reading(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 1..14),
        values in prop::collection::vec(prop::sample::select(VALUES), 14),
        others in prop::collection::vec(prop::sample::select(VALUES), 14),
    ) {
        let fill = |values: &[&str]| {
            let words = pieces.iter().zip(values).map(|(piece, value)| piece.replace('?', value));
            words.collect::<Vec<_>>().join(" ")
        };
        let (one, two) = (fill(&values), fill(&others));
        let catalogue = database(&[("risky", "plpgsql", "BEGIN SET a = 1; END")], &[("t", "i", None)]);
        let mut classifier = Classifier::new(SEED);
        classifier.classify(one.as_bytes(), Dialect::default(), &catalogue);
        let remembered = classifier.classify(two.as_bytes(), Dialect::default(), &catalogue);
        let read = classify(&two, &catalogue);
        prop_assert_eq!(&remembered.shape, &read.shape);
        prop_assert_eq!(remembered.effects, read.effects);
        prop_assert_eq!(&remembered.settings, &read.settings);
        let value = |key| key_text(two.as_bytes(), Dialect::default(), &key);
        prop_assert_eq!(remembered.hot.and_then(value), read.hot.and_then(value));
    }
}

const PIECES: &[&str] = &[
    "SELECT ?",
    "SELECT risky(?)",
    "FROM t",
    "WHERE id = ?",
    "AND a IN (?, ?, risky(?))",
    "VALUES (?), (?, ?)",
    ",",
    "(",
    ")",
    "UPDATE t SET a = ?",
    "SELECT set_config(?, ?, ?)",
    "INSERT INTO t",
    "FOR UPDATE",
    ";",
    "ARRAY[?, ?]",
    "WITH x AS (",
    "PREPARE p AS",
    "EXPLAIN",
    "DO ?",
    "SET a = ?",
    "LISTEN a",
    "BEGIN",
    "COPY t FROM STDIN",
    "DELETE FROM t",
];

const VALUES: &[&str] =
    &["1", "'a'", "$1", "$$x$$", "'work_mem'", "1, 2", "3.5", "'BEGIN SET a = 1; END'", "E'\\''", "$2"];
