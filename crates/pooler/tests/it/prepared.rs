//! Prepared statements: definitions that change under them, and the list of them that SQL sees.

use std::{io::Read as _, sync::OnceLock};

use tenfold_pgwire::{
    backend::Report,
    frame::Frames,
    frontend::{Format, Target},
    write,
};
use tenfold_pooler::config::{Config, Host};
use tenfold_testkit::{
    postgres::{Cluster, Options},
    wait_for,
};

use crate::{
    direct::{Direct, Rows},
    pooled::{self, Pooled},
};

const TIME_MAX: std::time::Duration = std::time::Duration::from_secs(20);
const OUTDATED: &str = "cached plan must not change result type";

/// A server of these tests' own: what other tests define (a cast with effects) has every transaction settled first, and
/// the connection that came free last is another one then.
fn port() -> u16 {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&Options::default()).unwrap()).primary().port()
}

fn direct() -> Direct {
    Direct::connect_to(port(), &[])
}

fn config(size: usize) -> Config {
    let mut config = pooled::config();
    config.databases[0].hosts = vec![Host::Tcp { host: "127.0.0.1".into(), port: port() }];
    config.databases[0].pool.size = size;
    config
}

fn pooled(size: usize) -> Pooled {
    Pooled::start(config(size))
}

/// Prepares a statement, as drivers do that read rows by what Describe says.
fn prepare(client: &mut Direct, name: &str, sql: &str) -> Result<Rows, String> {
    let mut out = Vec::new();
    write::parse(&mut out, name.as_bytes(), sql.as_bytes(), []);
    write::describe(&mut out, Target::Statement(name.as_bytes()));
    write::sync(&mut out);
    client.send(&out)
}

fn run(client: &mut Direct, name: &str) -> Result<Rows, String> {
    let mut out = Vec::new();
    bind_and_execute(&mut out, name, &[]);
    write::sync(&mut out);
    client.send(&out)
}

fn bind_and_execute(out: &mut Vec<u8>, name: &str, params: &[&str]) {
    let params = params.iter().map(|param| Some(param.as_bytes()));
    write::bind(out, b"", name.as_bytes(), Format::Text, params, Format::Text);
    write::execute(out, b"", 0);
}

fn columns(answer: &Result<Rows, String>) -> Result<usize, String> {
    answer.as_ref().map(|rows| rows[0].len()).map_err(Clone::clone)
}

/// The SQLSTATEs, rows and ends of so many series, none of whose answers was read yet.
fn outcomes(client: &mut Direct, series: usize) -> Vec<String> {
    let (mut bytes, mut told) = (Vec::new(), Vec::new());
    while told.iter().filter(|what| *what == "ready").count() < series {
        let mut buffer = [0; 4_096];
        let count = client.stream().read(&mut buffer).unwrap();
        assert!(count > 0, "the connection was closed: {told:?}");
        bytes.extend_from_slice(&buffer[..count]);
        told = Frames::new(&bytes)
            .filter_map(|frame| {
                let frame = frame.unwrap();
                match frame.tag {
                    b'D' => Some("row".to_owned()),
                    b'E' => Report::parse(frame.body()).unwrap().sqlstate().map(|state| state.to_string()),
                    b'Z' => Some("ready".to_owned()),
                    _ => None,
                }
            })
            .collect();
    }
    told
}

/// Has a stranger take the server connection that the client had last.
fn push_elsewhere(stranger: &mut Direct) {
    stranger.query("BEGIN; SELECT 1").unwrap();
}

#[test]
fn what_is_prepared_after_ddl_meets_no_plan_made_before() {
    let pooled = pooled(2);
    let (mut client, mut stranger) = two(&pooled);
    client.query("DROP TABLE IF EXISTS outdated; CREATE TABLE outdated (a int)").unwrap();
    client.query("INSERT INTO outdated VALUES (1)").unwrap();
    prepare(&mut client, "s", "TABLE outdated").unwrap();
    run(&mut client, "s").unwrap();
    push_elsewhere(&mut stranger);
    run(&mut client, "s").unwrap();
    stranger.query("COMMIT").unwrap();
    // By somebody the pooler knows nothing of, so that only the error tells.
    direct().query("ALTER TABLE outdated ADD COLUMN b int").unwrap();
    assert_eq!(columns(&run(&mut client, "s")), Err(OUTDATED.into()));
    for name in ["t", "u"] {
        prepare(&mut client, name, "TABLE outdated").unwrap();
        assert_eq!(columns(&run(&mut client, name)), Ok(2), "{name}");
        push_elsewhere(&mut stranger);
        assert_eq!(columns(&run(&mut client, name)), Ok(2), "{name}");
        assert_eq!(columns(&run(&mut client, "s")), Err(OUTDATED.into()), "the old one stays what it was");
        stranger.query("COMMIT").unwrap();
    }
}

#[test]
fn what_should_have_made_room_in_a_series_that_failed_can_be_used_again() {
    let pooled = Pooled::start(Config { statements_max: 1, ..config(1) });
    let mut client = Direct::connect_to(pooled.port(), &[]);
    prepare(&mut client, "a", "SELECT 1").unwrap();
    prepare(&mut client, "b", "SELECT 2").unwrap();
    // Behind an error the server takes nothing up to Sync: neither what is prepared for `a` nor what goes for it.
    let mut out = Vec::new();
    write::parse(&mut out, b"", b"SELECT 1 / $1", []);
    bind_and_execute(&mut out, "", &["0"]);
    bind_and_execute(&mut out, "a", &[]);
    write::sync(&mut out);
    let refused = client.send(&out).unwrap_err();
    assert!(refused.contains("division by zero"), "{refused}");
    for name in ["b", "a", "b"] {
        assert_eq!(columns(&run(&mut client, name)), Ok(1), "{name}");
    }
}

#[test]
fn what_an_error_keeps_from_being_prepared_is_there_for_the_series_behind_it() {
    let pooled = pooled(2);
    let (mut client, mut stranger) = two(&pooled);
    prepare(&mut client, "s", "SELECT 'kept'").unwrap();
    // On another server connection, three series at once: the first has `s` prepared there behind an error.
    push_elsewhere(&mut stranger);
    let mut out = Vec::new();
    write::parse(&mut out, b"", b"SELECT nope", []);
    bind_and_execute(&mut out, "s", &[]);
    write::parse(&mut out, b"dropped", b"SELECT 'dropped'", []);
    write::sync(&mut out);
    for name in ["s", "dropped"] {
        bind_and_execute(&mut out, name, &[]);
        write::sync(&mut out);
    }
    client.tell(&out);
    let expected = ["42703", "ready", "row", "ready", "26000", "ready"];
    assert_eq!(outcomes(&mut client, 3), expected);
    stranger.query("COMMIT").unwrap();
}

#[test]
fn a_statement_whose_rows_changed_is_refused_where_it_was_never_prepared() {
    let pooled = pooled(2);
    let (mut client, mut stranger) = two(&pooled);
    client.query("DROP TABLE IF EXISTS misfit; CREATE TABLE misfit (a int)").unwrap();
    client.query("INSERT INTO misfit VALUES (1)").unwrap();
    prepare(&mut client, "rows", "TABLE misfit").unwrap();
    prepare(&mut client, "none", "INSERT INTO misfit VALUES (2)").unwrap();
    let first = client.value("SELECT pg_backend_pid()");
    // Within the transaction that changes it, on another server connection than the one it was prepared on.
    push_elsewhere(&mut stranger);
    client.query("BEGIN").unwrap();
    client.query("ALTER TABLE misfit ADD COLUMN b int").unwrap();
    assert_ne!(client.value("SELECT pg_backend_pid()"), first);
    assert_eq!(run(&mut client, "none"), Ok(vec![]));
    assert_eq!(columns(&run(&mut client, "rows")), Err(OUTDATED.into()));
    let refused = client.query("SELECT 1").unwrap_err();
    assert!(refused.contains("current transaction is aborted"), "{refused}");
    client.query("ROLLBACK").unwrap();
    assert_eq!(columns(&run(&mut client, "rows")), Ok(1), "as before");
    // What is prepared after the change, in its transaction, is what it is there.
    client.query("BEGIN").unwrap();
    client.query("ALTER TABLE misfit ADD COLUMN b int").unwrap();
    prepare(&mut client, "anew", "TABLE misfit").unwrap();
    assert_eq!(columns(&run(&mut client, "anew")), Ok(2));
    client.query("COMMIT").unwrap();
    stranger.query("COMMIT").unwrap();
    for _ in 0..3 {
        assert_eq!(columns(&run(&mut client, "anew")), Ok(2));
        assert_eq!(columns(&run(&mut client, "rows")), Err(OUTDATED.into()));
    }
}

#[test]
fn a_trigger_made_after_a_statement_was_prepared_leaves_nothing_to_strangers() {
    let pooled = pooled(1);
    let mut client = Direct::connect_to(pooled.port(), &[]);
    client.query("DROP TABLE IF EXISTS decided; CREATE TABLE decided (a int)").unwrap();
    prepare(&mut client, "s", "INSERT INTO decided VALUES (1)").unwrap();
    run(&mut client, "s").unwrap();
    direct()
        .query(
            "CREATE OR REPLACE FUNCTION decided() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN SET work_mem = '5MB'; RETURN NEW; END$$;
             CREATE TRIGGER decided BEFORE INSERT ON decided FOR EACH ROW EXECUTE FUNCTION decided()",
        )
        .unwrap();
    let database = pooled.pooler.shared().database("postgres").unwrap();
    wait_for("the trigger to be noticed", TIME_MAX, || {
        let (_, write) = database.definitions.catalogue().relation_effects("decided");
        !write.is_empty()
    });
    run(&mut client, "s").unwrap();
    assert_eq!(client.value("SHOW work_mem").as_deref(), Some("5MB"));
    let mut stranger = Direct::connect_to(pooled.port(), &[]);
    assert_eq!(stranger.value("SHOW work_mem").as_deref(), Some("4MB"));
    direct().query("DROP TABLE decided").unwrap();
}

#[test]
fn one_text_in_two_databases_is_two_statements() {
    let mut here = direct();
    here.query("CREATE DATABASE other_decision").unwrap();
    let make = |sets: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION homonym() RETURNS int LANGUAGE plpgsql AS $$BEGIN {sets} RETURN 1; END$$"
        )
    };
    let elsewhere = [("database", "other_decision")];
    here.query(make("")).unwrap();
    Direct::connect_to(port(), &elsewhere).query(make("SET work_mem = '5MB';")).unwrap();
    let mut config = config(1);
    let mut other = config.databases[0].clone();
    other.name = "other_decision".into();
    other.dbname = None;
    config.databases.push(other);
    let pooled = Pooled::start(config);
    let mut here = Direct::connect_to(pooled.port(), &[]);
    prepare(&mut here, "s", "SELECT homonym()").unwrap();
    run(&mut here, "s").unwrap();
    let mut there = Direct::connect_to(pooled.port(), &elsewhere);
    prepare(&mut there, "s", "SELECT homonym()").unwrap();
    run(&mut there, "s").unwrap();
    assert_eq!(there.value("SHOW work_mem").as_deref(), Some("5MB"));
    let mut stranger = Direct::connect_to(pooled.port(), &elsewhere);
    assert_eq!(stranger.value("SHOW work_mem").as_deref(), Some("4MB"));
}

#[test]
fn what_follows_an_error_is_dropped_however_large_it_is() {
    let pooled = pooled(1);
    let mut client = Direct::connect_to(pooled.port(), &[]);
    prepare(&mut client, "s", "SELECT length($1)").unwrap();
    let mut out = Vec::new();
    bind_and_execute(&mut out, "s", &[]);
    write::flush(&mut out);
    client.tell(&out);
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("bind message supplies 0 parameters") {
        let mut piece = [0; 4_096];
        let count = client.stream().read(&mut piece).unwrap();
        assert!(count > 0, "closed instead of an error");
        read.extend_from_slice(&piece[..count]);
    }
    out.clear();
    bind_and_execute(&mut out, "s", &[&"x".repeat(300_000)]);
    write::sync(&mut out);
    assert_eq!(client.send(&out), Ok(vec![]));
    assert_eq!(client.value("SELECT 'alive'").as_deref(), Some("alive"));
}

fn two(pooled: &Pooled) -> (Direct, Direct) {
    (Direct::connect_to(pooled.port(), &[]), Direct::connect_to(pooled.port(), &[]))
}

fn text(answer: Result<Rows, String>) -> Result<String, String> {
    let shown = |value: Vec<Option<Vec<u8>>>| String::from_utf8(value[0].clone().unwrap()).unwrap();
    answer.map(|rows| rows.into_iter().map(shown).collect::<Vec<_>>().join(" "))
}

#[test]
fn sql_finds_what_the_protocol_prepared() {
    let pooled = pooled(2);
    let (mut client, mut stranger) = two(&pooled);
    prepare(&mut client, "own", "SELECT 'protocol'").unwrap();
    prepare(&mut stranger, "own", "SELECT 'a stranger''s'").unwrap();
    for _ in 0..3 {
        assert_eq!(text(client.query("EXECUTE own")), Ok("protocol".into()));
        assert_eq!(text(client.execute("EXECUTE Own", &[])), Ok("protocol".into()));
        assert_eq!(text(client.query("SELECT 'a'; EXECUTE own")), Ok("a protocol".into()));
        assert_eq!(client.query("EXPLAIN (COSTS off) EXECUTE own").map(|rows| rows.len()), Ok(1));
        assert_eq!(text(run(&mut client, "own")), Ok("protocol".into()));
        stranger.query("BEGIN").unwrap();
        assert_eq!(text(stranger.query("EXECUTE own")), Ok("a stranger's".into()));
        assert!(client.query("PREPARE own AS SELECT 1").unwrap_err().contains("\"own\" already exists"));
        assert_eq!(text(client.query("EXECUTE own")), Ok("protocol".into()));
        stranger.query("COMMIT").unwrap();
    }
    client.query("BEGIN").unwrap();
    assert_eq!(text(client.query("EXECUTE own")), Ok("protocol".into()));
    client.query("DEALLOCATE own").unwrap();
    for gone in ["EXECUTE own", "ROLLBACK; EXECUTE own", "EXECUTE own"] {
        assert!(client.query(gone).unwrap_err().contains("does not exist"), "{gone}");
        client.query("ROLLBACK").unwrap();
    }
    assert!(run(&mut client, "own").unwrap_err().contains("\"own\" does not exist"));
    assert_eq!(text(stranger.query("EXECUTE own")), Ok("a stranger's".into()));
}

#[test]
fn the_protocol_finds_names_that_sql_took() {
    let pooled = pooled(2);
    let (mut client, mut stranger) = two(&pooled);
    client.query("PREPARE taken AS SELECT 'sql'").unwrap();
    let refused = |client: &mut Direct, name: &str| {
        // Known already to the pooler, and not.
        for sql in ["SELECT 'known'", "SELECT 'known'", &format!("SELECT '{name}'")] {
            let error = prepare(client, name, sql).unwrap_err();
            assert!(error.contains(&format!("\"{name}\" already exists")), "{sql}: {error}");
        }
    };
    prepare(&mut stranger, "taken", "SELECT 'known'").unwrap();
    for _ in 0..3 {
        refused(&mut client, "taken");
        assert_eq!(text(run(&mut client, "taken")), Ok("sql".into()));
        push_elsewhere(&mut stranger);
        refused(&mut client, "taken");
        assert_eq!(text(client.query("EXECUTE taken")), Ok("sql".into()));
        stranger.query("COMMIT").unwrap();
        assert_eq!(text(run(&mut stranger, "taken")), Ok("known".into()));
    }
    client.query("BEGIN; PREPARE within AS SELECT 'within'").unwrap();
    prepare(&mut client, "free", "SELECT 'free'").unwrap();
    assert_eq!(text(run(&mut client, "free")), Ok("free".into()));
    assert!(prepare(&mut client, "within", "SELECT 1").unwrap_err().contains("already exists"));
    client.query("ROLLBACK").unwrap();
    assert_eq!(text(run(&mut client, "free")), Ok("free".into()));
    assert_eq!(text(run(&mut client, "within")), Ok("within".into()), "which a ROLLBACK leaves");
    assert!(run(&mut stranger, "within").unwrap_err().contains("does not exist"));
}

#[test]
fn the_view_lists_a_clients_own_names_and_no_others() {
    const NAMES: &str = "SELECT name || ' ' || from_sql FROM pg_prepared_statements ORDER BY 1";
    let pooled = pooled(1);
    let (mut client, mut stranger) = two(&pooled);
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        prepare(&mut stranger, name, &format!("SELECT {at}")).unwrap();
    }
    prepare(&mut client, "B", "SELECT 1").unwrap();
    client.query("PREPARE by_sql AS SELECT 2").unwrap();
    let mut looking = Direct::connect_to(pooled.port(), &[]);
    for _ in 0..2 {
        assert_eq!(text(client.query(NAMES)), Ok("B false by_sql true".into()));
        assert_eq!(text(client.execute(NAMES, &[])), Ok("B false by_sql true".into()));
        assert_eq!(text(stranger.execute(NAMES, &[])), Ok("a false b false c false".into()));
        assert_eq!(looking.query(NAMES), Ok(vec![]));
        assert_eq!(text(run(&mut client, "B")), Ok("1".into()));
        assert_eq!(text(run(&mut stranger, "c")), Ok("2".into()));
    }
    prepare(&mut client, "gone", "TABLE gone_soon").unwrap_err();
    client.query("CREATE TABLE gone_soon (a int)").unwrap();
    prepare(&mut client, "gone", "TABLE gone_soon").unwrap();
    client.query("DROP TABLE gone_soon").unwrap();
    for sql in ["EXECUTE gone", "EXECUTE gone"] {
        assert!(client.query(sql).unwrap_err().contains("\"gone_soon\" does not exist"));
        assert_eq!(text(client.query("SELECT 'on'")), Ok("on".into()));
        assert!(client.execute(sql, &[]).unwrap_err().contains("\"gone_soon\" does not exist"));
    }
}

#[test]
fn what_another_client_prepared_meanwhile_is_found_behind_a_held_begin() {
    let pooled = pooled(1);
    let (mut first, mut second) = two(&pooled);
    first.query("BEGIN; SELECT 1").unwrap();
    second.query("BEGIN").unwrap();
    let mut out = Vec::new();
    write::parse(&mut out, b"s", b"SELECT 'meanwhile'", []);
    write::describe(&mut out, Target::Statement(b"s"));
    bind_and_execute(&mut out, "s", &[]);
    write::sync(&mut out);
    second.tell(&out);
    let database = pooled.pooler.shared().database("postgres").unwrap();
    let is_waiting = || database.pools().iter().any(|pool| pool.waiting() == 1);
    wait_for("the second to wait for a server", TIME_MAX, is_waiting);
    prepare(&mut first, "s", "SELECT 'meanwhile'").unwrap();
    first.query("COMMIT").unwrap();
    assert_eq!(text(second.send(b"")), Ok("meanwhile".into()));
}
