//! A second table of statements, written without sight of the first: where each goes, and a real primary and standby
//! as judges of what is called safe.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use tenfold_sql::{
    Catalogue, CatalogueBuilder, Classifier, Decision, Destination, Dialect, Reason, SearchPath,
};

use crate::routes::array;
use crate::server::Database;
use crate::support::SEED;

struct Malice {
    database: Database,
    catalogue: Arc<Catalogue>,
}

fn malice() -> &'static Malice {
    static MALICE: OnceLock<Malice> = OnceLock::new();
    MALICE.get_or_init(|| {
        let oracle = include_str!("../routes/database.sql").split("CREATE SCHEMA oracle;").nth(1);
        let sql = format!(
            "{}CREATE SCHEMA oracle;{}",
            include_str!("../routes/malice.sql"),
            oracle.expect("a part")
        );
        let database = Database::create("malice", &sql);
        let catalogue = database.catalogue();
        Malice { database, catalogue }
    })
}

fn decide(sql: &str) -> Arc<Decision> {
    let path = SearchPath::parse("\"$user\", public", "postgres", &SEED).expect("a path");
    Classifier::new(SEED).classify_in(sql.as_bytes(), Dialect::default(), &malice().catalogue, Some(&path))
}

/// Places and statements.
fn lines() -> Vec<(&'static str, &'static str)> {
    let table = include_str!("../routes/malice.txt");
    let lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(" | ").unwrap_or_else(|| panic!("not a line: {line}"))).collect()
}

#[test]
fn nothing_hides_and_reads_are_on_replicas() {
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, sql) in lines() {
        *counts.entry(place).or_default() += 1;
        let decision = decide(sql);
        let is = match decision.route.destination {
            Destination::Replica => "replica",
            Destination::Follows => "follows",
            Destination::Primary(_) => "primary",
        };
        if is != place.trim_start_matches('~') {
            let culprit = decision.route.culprit.as_deref().unwrap_or("");
            wrong.push(format!("{place} | {sql}\n    is {} {culprit}", decision.route.destination));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let count = |place| counts.get(place).copied().unwrap_or(0);
    let (safe, needless) = (count("replica"), count("~primary"));
    assert!(safe * 100 >= (safe + needless) * 98, "{needless} needlessly on the primary, {safe} on replicas");
}

/// Statements called safe that a function can run: without parameters, and one at a time.
fn safe() -> Vec<&'static str> {
    let runs = |sql: &&str| {
        let start = sql.trim_start_matches(';').to_ascii_lowercase();
        !start.starts_with("copy") && !sql.contains("$1") && !sql.contains("; SELECT")
    };
    let all = lines().into_iter().filter(|(place, _)| *place == "replica").map(|(_, sql)| sql);
    all.filter(runs).map(|sql| sql.trim_matches(';')).collect()
}

#[test]
fn what_is_called_safe_runs_on_a_real_primary_and_its_standby() {
    let all = array(safe().into_iter());
    let check = format!(
        "SELECT DISTINCT s || ' -> ' || oracle.runs(s) FROM unnest({all}) AS s WHERE oracle.runs(s) <> 'ok'"
    );
    let database = &malice().database;
    let read_only = format!("SET default_transaction_read_only = on; {check}");
    assert_eq!(database.run(&read_only), "", "in read-only transactions on the primary");
    assert_eq!(database.try_run_on_replica(&check).expect("it runs"), "", "on the standby");
}

#[test]
fn a_standby_answers_the_same() {
    let changing = ["random()", "clock_timestamp", "now()", "current_time", "EXPLAIN", "to_char(placed_at"];
    let statements = safe().into_iter().filter(|sql| !changing.iter().any(|word| sql.contains(word)));
    let statements: Vec<&str> = statements.collect();
    let answers = format!(
        "SELECT string_agg(coalesce(oracle.answer(s), '-'), chr(10) ORDER BY n) FROM unnest({}) WITH ORDINALITY AS x (s, n)",
        array(statements.iter().copied())
    );
    let database = &malice().database;
    let (here, there) = (database.run(&answers), database.try_run_on_replica(&answers).expect("it runs"));
    for ((sql, here), there) in statements.iter().zip(here.lines()).zip(there.lines()) {
        assert_eq!(here, there, "{sql}");
    }
    assert!(here.lines().filter(|answer| answer.len() == 32).count() > 90, "answers:\n{here}");
}

/// `IN`, `LIKE` and their like call an operator that no sign shows; one of the user's own may do anything.
#[test]
fn operators_are_found_behind_words() {
    for (operator, sql) in [
        ("=", "SELECT 1 = 2"),
        ("=", "SELECT 1 IN (1, 2)"),
        ("=", "SELECT 1 IN (SELECT 2)"),
        ("<>", "SELECT 1 NOT IN (1, 2)"),
        ("<>", "SELECT 1 != 2"),
        ("=", "SELECT NULLIF(1, 2)"),
        ("=", "SELECT CASE 1 WHEN 2 THEN 3 END"),
        ("=", "SELECT 1 IS DISTINCT FROM 2"),
        ("=", "SELECT * FROM (SELECT 1 AS a) x JOIN (SELECT 1 AS a) y USING (a)"),
        ("=", "SELECT * FROM (SELECT 1 AS a) x NATURAL JOIN (SELECT 1 AS a) y"),
        (">=", "SELECT 1 BETWEEN 1 AND 2"),
        ("<=", "SELECT 1 BETWEEN SYMMETRIC 1 AND 2"),
        ("<", "SELECT 1 NOT BETWEEN 1 AND 2"),
        ("~~", "SELECT 'a' LIKE 'b'"),
        ("!~~", "SELECT 'a' NOT LIKE 'b'"),
        ("~~*", "SELECT 'a' ILIKE 'b'"),
        ("!~~*", "SELECT 'a' NOT ILIKE 'b'"),
        ("~", "SELECT 'a' SIMILAR TO 'b'"),
        ("<<<", "SELECT 1 FROM (SELECT 1 AS a) x ORDER BY a USING <<<"),
    ] {
        let mut builder = CatalogueBuilder::new();
        let mut row = |query, columns: &[Option<&str>]| builder.row(query, columns).expect("a row");
        row(0, &[Some("now"), Some("random"), Some("pg_class")]);
        row(1, &[Some("risky"), Some("plpgsql"), Some("v"), None, Some("BEGIN END"), None, None, None, None]);
        row(3, &[Some(operator), Some("risky")]);
        let place = |catalogue: &Catalogue| {
            Classifier::new(SEED).classify(sql.as_bytes(), Dialect::default(), catalogue).route.destination
        };
        let volatile = Destination::Primary(Reason::VolatileFunction);
        assert_eq!(place(&builder.build(1)), volatile, "{sql} with {operator} of one's own");
        let mut builder = CatalogueBuilder::new();
        builder.row(0, &[Some("now"), Some("random"), Some("pg_class")]).expect("a row");
        assert_eq!(place(&builder.build(1)), Destination::Replica, "{sql}");
    }
}
