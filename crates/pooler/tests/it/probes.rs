//! What a probe says of a real session.

use tenfold_pooler::probe::{Found, Reader, Wanted};
use tenfold_sql::Effects;

use crate::direct::Direct;

/// Asks everything, and for these settings.
pub(crate) fn probe(direct: &mut Direct, settings: &[&str]) -> Found {
    let everything =
        Effects::SQL_PREPARE | Effects::LISTEN | Effects::TEMP | Effects::ADVISORY | Effects::HOLD;
    ask(direct, &Wanted::from_effects(everything, settings.iter().copied()).unwrap()).unwrap()
}

fn ask(direct: &mut Direct, wanted: &Wanted) -> Result<Found, String> {
    let rows = direct.query(wanted.sql())?;
    let mut reader = Reader::default();
    for row in &rows {
        let [kind, name, value] = &row[..] else { panic!("three columns, not {}", row.len()) };
        reader.row(kind.as_deref(), name.as_deref(), value.as_deref()).unwrap();
    }
    Ok(reader.finish())
}

#[test]
fn a_fresh_session_holds_nothing() {
    let found = probe(&mut Direct::connect(), &[]);
    assert_eq!(found, Found::default());
}

/// Which of temporary objects, advisory locks and held cursors a session has after these statements.
fn check(statements: &[&str], temp: bool, advisory: bool, held: bool) {
    let mut direct = Direct::connect();
    for statement in statements {
        // Some fail on purpose: a transaction that failed leaves nothing either.
        let _ = direct.query(statement);
    }
    let found = probe(&mut direct, &[]);
    assert_eq!((found.temp, found.advisory, found.held), (temp, advisory, held), "{statements:?}");
}

#[test]
fn temporary_objects_are_found_whatever_they_are() {
    for create in [
        "CREATE TEMP TABLE a (b int)",
        "CREATE TABLE pg_temp.a (b int)",
        "SELECT 1 AS b INTO TEMP a",
        "CREATE TEMP VIEW a AS SELECT 1",
        "CREATE TEMP SEQUENCE a",
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE pg_temp.e AS ENUM ('x')",
        "CREATE DOMAIN pg_temp.d AS int",
        "CREATE OPERATOR pg_temp.=== (leftarg = int, rightarg = int, function = int4eq)",
        "CREATE COLLATION pg_temp.c FROM \"C\"",
        "DO 'BEGIN CREATE TEMP TABLE a (b int) ON COMMIT DELETE ROWS; END'",
    ] {
        check(&[create], true, false, false);
    }
    check(&["CREATE TEMP TABLE a (b int)", "DROP TABLE a"], false, false, false);
    check(&["CREATE TEMP TABLE a (b int)", "DISCARD TEMP"], false, false, false);
    check(&["CREATE TEMP TABLE a (b int) ON COMMIT DROP"], false, false, false);
    check(&["BEGIN; CREATE TEMP TABLE a (b int)", "ROLLBACK"], false, false, false);
    let savepoint = "BEGIN; SAVEPOINT s; CREATE TEMP TABLE a (b int); ROLLBACK TO s; COMMIT";
    check(&[savepoint], false, false, false);
}

#[test]
fn advisory_locks_of_the_session_are_found_and_those_of_transactions_are_gone() {
    check(&["SELECT pg_advisory_lock(1)"], false, true, false);
    check(&["SELECT pg_advisory_lock_shared(1, 2)"], false, true, false);
    check(&["BEGIN; SELECT pg_advisory_lock(3)", "ROLLBACK"], false, true, false);
    check(&["SELECT pg_advisory_lock(4)", "SELECT pg_advisory_unlock(4)"], false, false, false);
    check(&["BEGIN; SELECT pg_advisory_xact_lock(5)", "COMMIT"], false, false, false);
}

#[test]
fn cursors_are_found_if_they_outlive_their_transaction() {
    check(&["DECLARE c CURSOR WITH HOLD FOR SELECT 1"], false, false, true);
    check(&["BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1", "COMMIT"], false, false, true);
    check(&["BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1", "ROLLBACK"], false, false, false);
    check(&["BEGIN; DECLARE c CURSOR FOR SELECT 1", "COMMIT"], false, false, false);
    check(&["DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE c"], false, false, false);
}

#[test]
fn settings_are_told_by_their_value_now() {
    let mut direct = Direct::connect();
    direct.query("BEGIN; SET work_mem = '1GB'; SET app.a = 'x'; ROLLBACK").unwrap();
    direct.query("SET TimeZone = 'UTC'; BEGIN; SET LOCAL lock_timeout = 5; COMMIT").unwrap();
    let found = probe(&mut direct, &["work_mem", "TimeZone", "lock_timeout", "app.a", "app.never"]);
    let values: Vec<_> = found.settings.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
    let expected = [
        ("work_mem", Some("4MB")),
        ("timezone", Some("UTC")),
        ("lock_timeout", Some("0")),
        ("app.a", Some("")),
        ("app.never", None),
    ];
    assert_eq!(values, expected);
}

#[test]
fn who_logged_in_is_not_told_as_somebody_assumed() {
    let mut direct = Direct::connect();
    direct.query("DROP ROLE IF EXISTS assumed; CREATE ROLE assumed").unwrap();
    let mut told = |statement: &str| {
        direct.query(statement).unwrap();
        let found = probe(&mut direct, &["session_authorization"]);
        let names: Vec<_> = found.settings.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["session_authorization", "role"]);
        found.settings.into_iter().map(|(_, value)| value).collect::<Vec<_>>()
    };
    let none = || Some("none".to_owned());
    assert_eq!(told("SELECT 1"), [None, none()]);
    assert_eq!(told("SET ROLE assumed"), [None, Some("assumed".to_owned())]);
    assert_eq!(told("SET SESSION AUTHORIZATION assumed"), [Some("assumed".to_owned()), none()]);
    assert_eq!(told("RESET SESSION AUTHORIZATION"), [None, none()]);
}

#[test]
fn statements_and_channels_are_told_whatever_their_names_and_the_encoding() {
    let mut direct = Direct::connect();
    direct.execute("PREPARE \"Ä \"\"b\\\" AS SELECT 1", &[]).unwrap();
    direct.query("PREPARE plain (int) AS SELECT $1 /* ; */; LISTEN \"ü;'\"; LISTEN jobs").unwrap();
    direct.query("SET client_encoding = 'LATIN1'").unwrap();
    let mut found = probe(&mut direct, &["client_encoding"]);
    found.prepared.sort();
    found.channels.sort();
    let names: Vec<_> = found.prepared.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["plain", "Ä \"b\\"]);
    assert!(found.prepared[0].1.starts_with("PREPARE plain"));
    assert_eq!(found.channels, ["jobs", "ü;'"]);
    assert_eq!(found.settings, [("client_encoding".into(), Some("LATIN1".to_owned()))]);
}

#[test]
fn a_session_cannot_make_its_probe_lie() {
    let mut direct = Direct::connect();
    direct
        .query(
            "DROP SCHEMA IF EXISTS evil CASCADE; CREATE SCHEMA evil; \
             CREATE FUNCTION evil.never(oid, oid) RETURNS bool LANGUAGE sql AS 'SELECT false'; \
             CREATE FUNCTION evil.never(text, text) RETURNS bool LANGUAGE sql AS 'SELECT false'; \
             CREATE OPERATOR evil.= (leftarg = oid, rightarg = oid, function = evil.never); \
             CREATE OPERATOR evil.= (leftarg = text, rightarg = text, function = evil.never); \
             CREATE FUNCTION evil.pg_backend_pid() RETURNS int LANGUAGE sql AS 'SELECT 0'; \
             CREATE TABLE evil.pg_depend (refclassid oid, refobjid oid); \
             SET search_path = evil, pg_catalog; \
             SELECT pg_catalog.pg_advisory_lock(77); CREATE TEMP TABLE a (b int)",
        )
        .unwrap();
    let found = probe(&mut direct, &[]);
    assert!(found.temp && found.advisory);
}
