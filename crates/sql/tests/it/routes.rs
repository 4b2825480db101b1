//! The table of routes, and a real primary with its replica as oracle for it.
//!
//! Every line of `tests/routes/table.txt` is a statement with where it goes. The table is checked twice: against the
//! classifier, and, for what both call safe, against PostgreSQL. A safe statement runs in a read-only transaction
//! without taking a transaction id or a lock, runs on the standby, and answers the same there.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use tenfold_sql::{
    Catalogue, Classifier, Decision, Destination, Dialect, Reason, SearchPath, TableId, Tables,
};

use crate::server::Database;
use crate::support::SEED;

pub(crate) struct Shop {
    pub(crate) database: Database,
    pub(crate) catalogue: Arc<Catalogue>,
}

pub(crate) fn shop() -> &'static Shop {
    static SHOP: OnceLock<Shop> = OnceLock::new();
    SHOP.get_or_init(|| {
        let database = Database::create("routes", include_str!("../routes/database.sql"));
        let catalogue = database.catalogue();
        Shop { database, catalogue }
    })
}

pub(crate) fn decide_in(sql: &str, path: Option<&str>) -> Arc<Decision> {
    let path = path.map(|path| SearchPath::parse(path, "postgres", &SEED).expect("a path"));
    Classifier::new(SEED).classify_in(sql.as_bytes(), Dialect::default(), &shop().catalogue, path.as_ref())
}

pub(crate) fn decide(sql: &str) -> Arc<Decision> {
    decide_in(sql, Some("\"$user\", public"))
}

/// One line of the table.
struct Line {
    /// Could run on a replica, and does not.
    is_needless: bool,
    place: String,
    reads: Option<BTreeSet<String>>,
    writes: Option<BTreeSet<String>>,
    sql: &'static str,
}

fn lines() -> Vec<Line> {
    let table = include_str!("../routes/table.txt");
    let lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| parse(line).unwrap_or_else(|| panic!("not a line of the table: {line}"))).collect()
}

fn parse(line: &'static str) -> Option<Line> {
    let (head, sql) = line.split_once(" | ")?;
    let (head, writes) = match head.split_once('>') {
        Some((head, writes)) => (head.trim(), Some(names(writes))),
        None => (head, None),
    };
    let (place, reads) = head.split_once(' ').unwrap_or((head, ""));
    let is_needless = place.starts_with('~');
    let place = place.trim_start_matches('~').to_owned();
    let reads = (place == "replica").then(|| names(reads));
    Some(Line { is_needless, place, reads, writes, sql })
}

/// Names parted by spaces, quoted where they have spaces themselves.
fn names(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (index, part) in text.split('"').enumerate() {
        match index % 2 {
            0 => names.extend(part.split_whitespace().map(str::to_owned)),
            _ => drop(names.insert(part.to_owned())),
        }
    }
    names
}

fn place_of(decision: &Decision) -> String {
    match decision.route.destination {
        Destination::Primary(reason) => reason.label().to_owned(),
        other => other.to_string(),
    }
}

/// Tables by name, those of `public` without it.
pub(crate) fn told(tables: &Tables) -> BTreeSet<String> {
    let name = |table: &TableId| {
        let name = shop().catalogue.table_name(*table).unwrap_or("?").to_owned();
        name.strip_prefix("public.").map(str::to_owned).unwrap_or(name)
    };
    match tables {
        Tables::Some(tables) => tables.iter().map(name).collect(),
        Tables::All => BTreeSet::from(["*".to_owned()]),
    }
}

#[test]
fn every_statement_goes_where_the_table_says() {
    let mut wrong = Vec::new();
    let lines = lines();
    for line in &lines {
        let decision = decide(line.sql);
        let place = place_of(&decision);
        let (reads, writes) = (told(&decision.route.reads), told(&decision.route.writes));
        let is_right = place == line.place
            && line.reads.as_ref().is_none_or(|expected| *expected == reads)
            && line.writes.as_ref().is_none_or(|expected| *expected == writes);
        if !is_right {
            let culprit = decision.route.culprit.as_deref().unwrap_or("");
            wrong.push(format!(
                "{} | {}\n    is {place} {culprit} {reads:?} > {writes:?}",
                line.place, line.sql
            ));
        }
        let is_replica = decision.route.destination == Destination::Replica;
        assert!(!is_replica || decision.effects.is_empty(), "{} leaves {}", line.sql, decision.effects);
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
    assert!(lines.len() >= 300, "{} statements", lines.len());
    let safe = lines.iter().filter(|line| line.place == "replica").count();
    let needless = lines.iter().filter(|line| line.is_needless).count();
    assert!(
        safe * 100 >= (safe + needless) * 98,
        "{needless} of {} safe reads on the primary",
        safe + needless
    );
}

#[test]
fn every_reason_has_a_statement() {
    let places: BTreeSet<String> = lines().into_iter().map(|line| line.place).collect();
    let reasons = [
        Reason::Hint,
        Reason::Unreadable,
        Reason::Writes,
        Reason::Locks,
        Reason::Defines,
        Reason::Maintenance,
        Reason::Procedure,
        Reason::Session,
        Reason::Sequence,
        Reason::AdvisoryLock,
        Reason::Temporary,
        Reason::Channel,
        Reason::TwoPhase,
        Reason::ServerFile,
        Reason::Multi,
        Reason::NotUnderstood,
        Reason::VolatileFunction,
        Reason::UnreadableFunction,
        Reason::UnknownFunction,
        Reason::ServerState,
        Reason::ForeignTable,
        Reason::UnloggedTable,
        Reason::UnknownTable,
    ];
    let missing: Vec<&str> =
        reasons.iter().map(|reason| reason.label()).filter(|label| !places.contains(*label)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// An SQL array of these texts.
pub(crate) fn array<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut out = Vec::new();
    out.extend_from_slice(b"ARRAY[");
    for (index, text) in texts.enumerate() {
        out.extend_from_slice(if index > 0 { b",\n" } else { b"" });
        tenfold_sql::quote::quote_literal(text.as_bytes(), &mut out);
    }
    out.extend_from_slice(b"]::text[]");
    String::from_utf8(out).expect("it was text")
}

/// Statements of the table that go to a replica and that a function can run.
fn safe() -> Vec<&'static str> {
    let runs = |line: &&Line| {
        let start = line.sql.trim_start().to_ascii_lowercase();
        line.place == "replica" && !["copy", "declare"].iter().any(|word| start.starts_with(word))
    };
    let is_single = |sql: &&str| !sql.trim_end_matches(';').trim_start_matches(';').contains("; SELECT");
    lines().iter().filter(runs).map(|line| line.sql).filter(is_single).collect()
}

/// Parameters and trailing semicolons cannot be in what a function executes.
fn runnable(sql: &str) -> String {
    sql.trim_matches(';').replace("$1", "1")
}

#[test]
fn what_is_called_safe_is_safe_on_a_real_primary_and_its_standby() {
    let shop = shop();
    let statements: Vec<String> = safe().iter().map(|sql| runnable(sql)).collect();
    assert!(statements.len() > 150);
    // What asks for it, runs; only two lines have a hint against a volatile function that writes nothing.
    let all = array(statements.iter().map(String::as_str));
    let check = format!(
        "SELECT DISTINCT s || ' -> ' || oracle.runs(s) FROM unnest({all}) AS s WHERE oracle.runs(s) <> 'ok'"
    );
    let read_only = format!("SET default_transaction_read_only = on; {check}");
    assert_eq!(shop.database.run(&read_only), "", "in read-only transactions on the primary");
    assert_eq!(shop.database.run(&check), "", "in ordinary transactions on the primary");
    assert_eq!(shop.database.try_run_on_replica(&check).expect("it runs"), "", "on the standby");
}

#[test]
fn a_standby_answers_as_the_primary_does() {
    let changing =
        ["random()", "clock_timestamp", "now()", "CURRENT_TIMESTAMP", "uuid", "timed", "now_of", "EXPLAIN"];
    let shop = shop();
    let statements: Vec<String> = safe()
        .iter()
        .filter(|sql| !changing.iter().any(|word| sql.contains(word)))
        .filter(|sql| !sql.contains("TABLESAMPLE"))
        .map(|sql| runnable(sql))
        .collect();
    let all = array(statements.iter().map(String::as_str));
    let answers = format!(
        "SELECT string_agg(coalesce(oracle.answer(s), '-'), chr(10) ORDER BY n) FROM unnest({all}) WITH ORDINALITY AS x (s, n)"
    );
    let (here, there) =
        (shop.database.run(&answers), shop.database.try_run_on_replica(&answers).expect("it runs"));
    let mut answered = 0;
    for ((sql, here), there) in statements.iter().zip(here.lines()).zip(there.lines()) {
        assert_eq!(here, there, "{sql}");
        answered += usize::from(here.len() == 32);
    }
    assert!(answered > 120, "only {answered} statements had an answer");
}

/// Whatever takes a transaction id must have been called something for the primary.
#[test]
fn what_really_writes_goes_to_the_primary() {
    let shop = shop();
    let lines = lines();
    let kinds = [
        "insert", "update", "delete", "merge", "with", "select", "values", "explain", "truncate", "create",
        "refresh",
    ];
    let runs = |sql: &&str| {
        let start = sql.trim_start_matches(['/', '*', ' ', ';']).to_ascii_lowercase();
        kinds.iter().any(|kind| start.starts_with(kind)) && !sql.contains("CONCURRENTLY")
    };
    let statements: Vec<String> =
        lines.iter().map(|line| line.sql).filter(|sql| runs(sql)).map(runnable).collect();
    let all = array(statements.iter().map(String::as_str));
    // Each in a transaction that is undone; what was found outlives it in the procedure's variable.
    shop.database.run(
        "CREATE TABLE oracle.wrote (statement text);
         CREATE PROCEDURE oracle.undo_each(statements text[]) LANGUAGE plpgsql AS $f$
         DECLARE s text; wrote text[]; BEGIN
             FOREACH s IN ARRAY statements LOOP
                 BEGIN EXECUTE s; EXCEPTION WHEN OTHERS THEN END;
                 IF pg_current_xact_id_if_assigned() IS NOT NULL THEN wrote := wrote || s; END IF;
                 ROLLBACK;
             END LOOP;
             INSERT INTO oracle.wrote SELECT unnest(wrote);
         END $f$",
    );
    shop.database.run(&format!("CALL oracle.undo_each({all})"));
    let found = shop.database.run("SELECT statement FROM oracle.wrote");
    let writers: Vec<&str> = found.lines().collect();
    assert!(writers.len() > 45, "only {} of {} wrote", writers.len(), statements.len());
    for sql in writers {
        let decision = decide(sql);
        assert!(matches!(decision.route.destination, Destination::Primary(_)), "{sql} wrote");
    }
}

#[test]
fn names_are_found_along_the_search_path() {
    let place = |sql, path| place_of(&decide_in(sql, path));
    let reads = |sql, path| told(&decide_in(sql, path).route.reads).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(place("SELECT lower('A')", Some("public")), "replica");
    assert_eq!(place("SELECT lower('A')", Some("public, app")), "volatile_function");
    assert_eq!(place("SELECT lower('A')", Some("app")), "volatile_function");
    assert_eq!(place("SELECT lower('A')", None), "volatile_function");
    assert_eq!(place("SELECT only_here(1)", Some("app, public")), "replica");
    assert_eq!(place("SELECT only_here(1)", Some("public")), "unknown_function");
    assert_eq!(reads("SELECT * FROM orders", Some("public")), "orders");
    assert_eq!(reads("SELECT * FROM orders", Some("app")), "app.orders");
    assert_eq!(reads("SELECT * FROM orders", Some("app, public")), "app.orders orders");
    assert_eq!(reads("SELECT * FROM orders", None), "app.orders orders");
    assert_eq!(reads("SELECT * FROM public.orders", Some("app")), "orders");
    assert_eq!(reads("SELECT users.id FROM public.users", None), "users");
    assert_eq!(place("SELECT * FROM users", Some("app")), "unknown_table");
    assert_eq!(told(&decide_in("DELETE FROM orders", None).route.writes).len(), 3);
}

#[test]
fn changed_definitions_go_to_the_primary_until_they_are_read() {
    let stale = shop().catalogue.stale();
    let place = |sql: &str, catalogue: &Catalogue| {
        place_of(&Classifier::new(SEED).classify(sql.as_bytes(), Dialect::default(), catalogue))
    };
    assert_eq!(place("SELECT 1", &stale), "replica");
    assert_eq!(place("SELECT length('x')", &stale), "replica");
    assert_eq!(place("SELECT * FROM users", &stale), "catalogue_stale");
    assert_eq!(place("SELECT pure(1)", &stale), "catalogue_stale");
    let empty = Catalogue::empty();
    assert_eq!(place("SELECT 1", &empty), "replica");
    assert_eq!(place("SELECT * FROM users", &empty), "catalogue_unknown");
    assert_eq!(place("SELECT length('x')", &empty), "catalogue_unknown");
    assert_eq!(place("INSERT INTO users VALUES (1)", &empty), "writes");
}

#[test]
fn keys_are_told_where_nothing_else_is_touched() {
    let key = |sql| {
        let key = decide(sql).route.key.clone();
        key.map(|key| key.column.into_string())
    };
    for sql in [
        "SELECT * FROM orders WHERE id = 5",
        "SELECT * FROM orders o WHERE o.id = $1 AND state = 'x' ORDER BY total LIMIT 3",
        "UPDATE items SET quantity = 2 WHERE order_id = 1",
        "DELETE FROM items WHERE order_id = $2 AND sku <> 'x'",
        "SELECT count(*), upper(state) FROM orders WHERE id = 7 GROUP BY state",
        "SELECT * FROM ONLY public.orders AS o WHERE id = 7;",
        "UPDATE items i SET quantity = 2 WHERE i.order_id = 1",
    ] {
        assert!(key(sql).is_some_and(|column| column == "id" || column == "order_id"), "{sql}");
    }
    for sql in [
        "SELECT * FROM orders",
        "SELECT * FROM orders WHERE id > 5",
        "SELECT * FROM orders WHERE id = 5 OR true",
        "SELECT * FROM orders WHERE id = 5 UNION SELECT * FROM orders",
        "SELECT * FROM orders o JOIN orders p ON o.id = p.user_id WHERE o.id = 5",
        "SELECT * FROM simple_orders WHERE id = 5",
        "SELECT order_count(1) FROM orders WHERE id = 5",
        "SELECT * FROM orders WHERE id = user_id",
        "UPDATE items SET order_id = 2 WHERE order_id = 1",
        "UPDATE items SET quantity = 2 WHERE id = 1",
        "UPDATE accounts SET balance = 2 WHERE id = 1",
        "DELETE FROM orders WHERE id = 1",
        "SELECT * FROM users WHERE id = 1; SELECT * FROM users WHERE id = 2",
        // The condition is not about the table's own rows.
        "SELECT r FROM (SELECT id, rank() OVER (ORDER BY total) r FROM orders) x WHERE id = 5",
        "SELECT id FROM (SELECT user_id AS id FROM orders) x WHERE id = 5",
        "SELECT * FROM orders o, (SELECT 5 AS id) x WHERE x.id = 5",
        "SELECT * FROM orders o, unnest(ARRAY[5]) AS id WHERE id.id = 5",
        "SELECT * FROM orders CROSS JOIN LATERAL (SELECT 5 AS id) x WHERE x.id = 5",
        "SELECT * FROM orders WHERE CASE WHEN true THEN true ELSE false AND id = 5 AND true END",
        "SELECT * FROM orders WHERE 1 BETWEEN 0 AND id = '1'",
        "UPDATE items SET quantity = 2 FROM orders WHERE items.order_id = 1",
        "SELECT * FROM orders WHERE state = '7'",
    ] {
        assert_eq!(key(sql), None, "{sql}");
    }
}

#[test]
fn what_belongs_to_a_transaction_is_told() {
    for (sql, binds) in [
        ("SELECT now()", true),
        ("SELECT CURRENT_DATE", true),
        ("SELECT * FROM timed", true),
        ("SELECT now_of()", true),
        ("SELECT age(timestamp '2026-01-01')", true),
        ("DECLARE c CURSOR FOR SELECT 1", true),
        ("SELECT 1", false),
        ("SELECT clock_timestamp(), statement_timestamp()", false),
        ("SELECT created_at FROM users", false),
    ] {
        assert_eq!(decide(sql).route.binds, binds, "{sql}");
    }
}

#[test]
fn settings_that_sessions_begin_with_are_read() {
    let database = Database::create(
        "begun_with",
        "CREATE ROLE reader; ALTER ROLE reader SET default_transaction_read_only = on;
         ALTER DATABASE begun_with SET search_path = app, public;
         ALTER ROLE reader IN DATABASE begun_with SET \"app.Note\" = 'a=b'",
    );
    let catalogue = database.catalogue();
    let mut found: Vec<String> = catalogue
        .role_settings()
        .iter()
        .map(|setting| format!("{:?} {}={}", setting.role.as_deref(), setting.name, setting.value))
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "None search_path=app, public",
            "Some(\"reader\") app.note=a=b",
            "Some(\"reader\") default_transaction_read_only=on",
        ]
    );
}
