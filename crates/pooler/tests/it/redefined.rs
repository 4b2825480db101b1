//! Functions that are redefined while clients call them.
//!
//! **Mechanism.** A database of its own, so that nothing but these functions hides anything. Whether a server connection
//! is still kept for somebody shows when as many strangers as there are connections want one at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tenfold_pgwire::{frontend::Format, write};
use tenfold_pooler::config::Config;
use tenfold_testkit::wait_for;

use crate::{
    direct::{Direct, cluster},
    pooled::{Pooled, config},
};

const LONG: std::time::Duration = std::time::Duration::from_secs(30);

const QUIET: &str = "CREATE OR REPLACE FUNCTION {} RETURNS int LANGUAGE plpgsql AS $$BEGIN RETURN 1; END$$";
const SETS: &str = "CREATE OR REPLACE FUNCTION {} RETURNS int LANGUAGE plpgsql AS \
                    $$BEGIN PERFORM set_config('work_mem', '5MB', false); RETURN 1; END$$";

/// A database with these functions, and a pooler's configuration for it.
fn ground(name: &str, functions: &[&str]) -> Config {
    let server = cluster().primary();
    Direct::connect().query(format!("CREATE DATABASE {name}")).unwrap();
    for function in functions {
        server.psql_in(name, function).unwrap();
    }
    let mut config = config();
    config.databases[0].dbname = Some(name.to_owned());
    config
}

fn function(template: &str, call: &str) -> String {
    template.replace("{}", call)
}

/// Whether as many can be served at once as there are server connections.
fn assert_nothing_is_kept(pooled: &Pooled, size: usize) {
    let mut strangers: Vec<_> = (0..size).map(|_| Direct::connect_to(pooled.port(), &[])).collect();
    for stranger in &mut strangers {
        stranger.query("BEGIN; SELECT 1").expect("a server connection for each");
    }
    for stranger in &mut strangers {
        assert_eq!(stranger.value("SHOW work_mem").as_deref(), Some("4MB"));
    }
}

/// Calls functions until told to stop; gives back its connection.
fn call(port: u16, at: usize, stop: &AtomicBool) -> Direct {
    let mut client = Direct::connect_to(port, &[]);
    let sets = at.is_multiple_of(5);
    let own = if sets { "5MB" } else { "4MB" };
    if sets {
        client.query("SELECT app_sets()").unwrap();
    }
    while !stop.load(Ordering::Relaxed) {
        let churned = match at % 3 {
            0 => client.query("SELECT app_quiet()"),
            1 => client.execute("SELECT app_quiet() + $1::int", &["1"]),
            _ => {
                client.query("BEGIN").unwrap();
                client.query("SELECT app_quiet()").unwrap();
                client.query("SELECT app_quiet(), app_quiet()").unwrap();
                client.query("COMMIT")
            }
        };
        churned.unwrap();
        // PostgreSQL's second word is for a function that goes between planning and the call.
        if let Err(error) = client.query("SELECT app_churned()") {
            let words = ["app_churned() does not exist", "cache lookup failed for function"];
            assert!(words.iter().any(|word| error.contains(word)), "{error}");
        }
        assert_eq!(client.value("SHOW work_mem").as_deref(), Some(own), "client {at}");
    }
    client
}

#[test]
fn calls_while_functions_come_and_go_keep_no_connection() {
    const CLIENTS: usize = 50;
    let mut config = ground(
        "redefined_churn",
        &[&function(QUIET, "app_quiet()"), &function(SETS, "app_sets()"), &function(QUIET, "app_churned()")],
    );
    config.databases[0].pool.size = 8;
    let pooled = Pooled::start(config);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|at| {
            let (port, stop) = (pooled.port(), Arc::clone(&stop));
            std::thread::spawn(move || call(port, at, &stop))
        })
        .collect();
    let mut migrating = Direct::connect_to(pooled.port(), &[]);
    for _ in 0..40 {
        migrating.query("DROP FUNCTION app_churned()").unwrap();
        migrating.query(function(QUIET, "app_churned()")).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let clients: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert_nothing_is_kept(&pooled, 8);
    drop(clients);
}

#[test]
fn a_call_within_a_transaction_is_decided_by_what_was_redefined_meanwhile() {
    let mut config = ground(
        "redefined_within",
        &[&function(QUIET, "app_turns()"), "CREATE TABLE app_rows AS SELECT 1 AS n"],
    );
    config.databases[0].pool.size = 2;
    let pooled = Pooled::start(config);
    let mut owner = Direct::connect_to(pooled.port(), &[]);
    owner.query("BEGIN").unwrap();
    owner.query("SELECT app_turns()").unwrap();
    let mut migrating = Direct::connect_to(pooled.port(), &[]);
    migrating.query(function(SETS, "app_turns()")).unwrap();
    // Locking a table is when a backend hears of what others changed.
    owner.query("SELECT app_turns() FROM app_rows").unwrap();
    owner.query("COMMIT").unwrap();
    assert_eq!(owner.value("SHOW work_mem").as_deref(), Some("5MB"));
    assert_nothing_is_kept(&pooled, 2);
    assert_eq!(owner.value("SHOW work_mem").as_deref(), Some("5MB"), "on another connection, too");
}

#[test]
fn a_call_after_a_redefinition_in_one_transaction_or_string_is_decided_by_it() {
    let config = ground("redefined_own", &[&function(QUIET, "app_turns()")]);
    let pooled = Pooled::start(config);
    let (sets, quiet) = (function(SETS, "app_turns()"), function(QUIET, "app_turns()"));
    for is_string in [false, true] {
        let mut owner = Direct::connect_to(pooled.port(), &[]);
        owner.query("SELECT app_turns()").unwrap();
        let texts = [sets.as_str(), "SELECT app_turns()"];
        if is_string {
            owner.query(texts.join("; ")).unwrap();
        } else {
            owner.query("BEGIN").unwrap();
            texts.iter().for_each(|text| drop(owner.query(text).unwrap()));
            owner.query("COMMIT").unwrap();
        }
        assert_eq!(owner.value("SHOW work_mem").as_deref(), Some("5MB"));
        let mut stranger = Direct::connect_to(pooled.port(), &[]);
        assert_eq!(stranger.value("SHOW work_mem").as_deref(), Some("4MB"));
        stranger.query(&quiet).unwrap();
    }
}

#[test]
fn what_others_made_since_is_looked_for_and_what_is_not_there_keeps_nothing() {
    let mut config = ground("redefined_others", &[]);
    config.databases[0].pool.size = 2;
    let pooled = Pooled::start(config);
    let mut owner = Direct::connect_to(pooled.port(), &[]);
    assert_eq!(owner.query("SELECT app_new()").unwrap_err(), "function app_new() does not exist");
    assert_nothing_is_kept(&pooled, 2);
    // Not through the pooler.
    cluster().primary().psql_in("redefined_others", &function(SETS, "app_new()")).unwrap();
    owner.query("SELECT app_new()").unwrap();
    assert_nothing_is_kept(&pooled, 2);
    assert_eq!(owner.value("SHOW work_mem").as_deref(), Some("5MB"));
}

/// Binds and executes a prepared statement.
fn run(client: &mut Direct, name: &[u8]) {
    let mut out = Vec::new();
    write::bind(&mut out, b"", name, Format::Text, [], Format::Text);
    write::execute(&mut out, b"", 0);
    write::sync(&mut out);
    client.send(&out).unwrap();
}

fn prepare(client: &mut Direct, name: &[u8], sql: &[u8]) {
    let mut out = Vec::new();
    write::parse(&mut out, name, sql, []);
    write::sync(&mut out);
    client.send(&out).unwrap();
}

#[test]
fn a_prepared_call_is_decided_anew_once_its_function_is_redefined() {
    let mut config = ground("redefined_prepared", &[&function(QUIET, "app_turns()")]);
    config.databases[0].pool.size = 2;
    let pooled = Pooled::start(config);
    let mut owner = Direct::connect_to(pooled.port(), &[]);
    prepare(&mut owner, b"turns", b"SELECT app_turns()");
    run(&mut owner, b"turns");
    Direct::connect_to(pooled.port(), &[]).query(function(SETS, "app_turns()")).unwrap();
    run(&mut owner, b"turns");
    assert_nothing_is_kept(&pooled, 2);
    assert_eq!(owner.value("SHOW work_mem").as_deref(), Some("5MB"));
}

#[test]
fn one_text_means_what_it_means_in_each_database() {
    let mut config = ground("redefined_one", &[&function(QUIET, "app_differs()")]);
    let other = ground("redefined_two", &[&function(SETS, "app_differs()")]);
    config.databases.extend(other.databases);
    config.databases[1].name = "two".into();
    config.databases.iter_mut().for_each(|database| database.pool.size = 1);
    let pooled = Pooled::start(config);
    let mut one = Direct::connect_to(pooled.port(), &[]);
    prepare(&mut one, b"differs", b"SELECT app_differs()");
    run(&mut one, b"differs");
    let mut owner = Direct::connect_to_database(pooled.port(), "two");
    prepare(&mut owner, b"differs", b"SELECT app_differs()");
    run(&mut owner, b"differs");
    let mut stranger = Direct::connect_to_database(pooled.port(), "two");
    assert_eq!(stranger.value("SHOW work_mem").as_deref(), Some("4MB"));
    assert_eq!(owner.value("SHOW work_mem").as_deref(), Some("5MB"));
}

#[test]
fn others_go_on_while_a_call_waits_for_what_it_does() {
    let config = ground("redefined_waiting", &[&function(QUIET, "app_turns()")]);
    let pooled = Pooled::start(config);
    let mut client = Direct::connect_to(pooled.port(), &[]);
    client.query("SELECT app_turns()").unwrap();
    // Holds up whoever reads the catalogue.
    let mut locker = Direct::connect_to_database(cluster().primary().port(), "redefined_waiting");
    locker.query("BEGIN; LOCK TABLE pg_catalog.pg_trigger IN ACCESS EXCLUSIVE MODE").unwrap();
    client.query(function(SETS, "app_turns()")).unwrap();
    let port = pooled.port();
    let caller = std::thread::spawn(move || {
        let mut caller = Direct::connect_to(port, &[]);
        caller.query("SELECT app_turns()").map(|_| caller)
    });
    let mut judge = Direct::connect_to(cluster().primary().port(), &[]);
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pg_trigger'::regclass";
    wait_for("the reading to be held up", LONG, || judge.value(waiting).as_deref() != Some("0"));
    assert_nothing_is_kept(&pooled, 4);
    assert!(!caller.is_finished(), "what it calls is not known yet");
    locker.query("COMMIT").unwrap();
    let mut caller = caller.join().unwrap().unwrap();
    assert_eq!(caller.value("SHOW work_mem").as_deref(), Some("5MB"));
    assert_nothing_is_kept(&pooled, 4);
}

#[test]
fn what_is_put_behind_a_table_or_a_view_is_known_to_every_later_statement() {
    const ROUNDS: usize = 25;
    let config = ground("behind", &[&function(SETS, "behind_sets()")]);
    let server = cluster().primary();
    let fires = "CREATE FUNCTION behind_fires() RETURNS trigger LANGUAGE plpgsql AS \
                 $$BEGIN PERFORM behind_sets(); RETURN NEW; END$$";
    server.psql_in("behind", fires).unwrap();
    for round in 0..ROUNDS {
        let made = format!("CREATE TABLE behind_{round} (a int); CREATE VIEW seen_{round} AS SELECT 1 AS a");
        server.psql_in("behind", &made).unwrap();
    }
    let pooled = Pooled::start_with(config, 2);
    let mut definer = Direct::connect_to(pooled.port(), &[]);
    // Its first statement waits until all of these are known.
    definer.query("SELECT 1").unwrap();
    for round in 0..ROUNDS {
        let mut client = Direct::connect_to(pooled.port(), &[]);
        let (define, used) = match round % 2 {
            0 => (
                format!(
                    "CREATE TRIGGER fires BEFORE INSERT ON behind_{round} FOR EACH ROW EXECUTE FUNCTION behind_fires()"
                ),
                format!("INSERT INTO behind_{round} VALUES (1)"),
            ),
            _ => (
                format!("CREATE OR REPLACE VIEW seen_{round} AS SELECT behind_sets() AS a"),
                format!("SELECT a FROM seen_{round}"),
            ),
        };
        definer.query(define).unwrap();
        client.query(used).unwrap();
        assert_eq!(client.value("SHOW work_mem").as_deref(), Some("5MB"), "round {round}");
        assert_nothing_is_kept(&pooled, 4);
    }
}

#[test]
fn a_temporary_table_that_is_dropped_changes_no_definition() {
    let pooled = Pooled::start(ground("dropped", &[]));
    let mut client = Direct::connect_to(pooled.port(), &[]);
    client.query("SELECT 1").unwrap();
    let database = pooled.pooler.shared().database("postgres").unwrap();
    let changes = database.definitions.last_change();
    for _ in 0..3 {
        client.query("CREATE TEMP TABLE kept (a int)").unwrap();
        client.query("BEGIN; INSERT INTO kept VALUES (1); COMMIT").unwrap();
        client.query("DROP TABLE kept").unwrap();
    }
    assert_eq!(database.definitions.last_change(), changes);
    // Nor does it keep its connection.
    assert_nothing_is_kept(&pooled, 4);
    client.query("CREATE TABLE kept (a int)").unwrap();
    wait_for("the table to be known", LONG, || !database.definitions.is_behind());
    let changes = database.definitions.last_change();
    client.query("DROP TABLE kept").unwrap();
    assert_eq!(database.definitions.last_change(), changes + 1, "told before the answer");
}
