//! Clients that go, say nothing, take nothing or say too much at the worst moment: nobody else hears of it.

use std::{
    io::{Read as _, Write as _},
    time::Duration,
};

use tenfold_pgwire::{
    frontend::{Format, Target},
    write,
};
use tenfold_pooler::config::{Host, Mode, Password};
use tenfold_testkit::wait_for;

use crate::{
    direct::{Direct, cluster},
    pooled::{Pooled, config, told},
};

const TIME_MAX: Duration = Duration::from_secs(20);

/// A pooler with one server connection.
fn narrow() -> Pooled {
    let mut config = config();
    config.databases[0].pool.size = 1;
    Pooled::start(config)
}

fn client(pooled: &Pooled) -> Direct {
    Direct::connect_to(pooled.port(), &[])
}

fn ground(sql: &str) {
    Direct::connect().query(sql).unwrap();
}

fn queries(texts: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    texts.iter().for_each(|sql| write::query(&mut out, sql.as_bytes()));
    out
}

fn text(value: &str) -> Vec<Vec<Option<Vec<u8>>>> {
    vec![vec![Some(value.into())]]
}

/// What waits for the pool's only connection is sent before its holder goes.
fn waits(pooled: &Pooled) -> bool {
    pooled.pooler.shared().databases()[0].pools().iter().any(|pool| pool.waiting() > 0)
}

#[test]
fn answers_to_one_who_went_never_reach_the_next() {
    ground("CREATE TABLE unlucky_serial (id serial)");
    let pooled = narrow();
    // The server connection remembers a sequence's value, which is dropped between the two queries below.
    client(&pooled).query("INSERT INTO unlucky_serial DEFAULT VALUES").unwrap();
    for _ in 0..5 {
        let mut goes = client(&pooled);
        let mut stays = client(&pooled);
        goes.tell(&queries(&[
            "DO $$ BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END $$",
            "SELECT CASE WHEN true THEN 'secret' ELSE lastval()::text END",
        ]));
        wait_for("the first query to run", TIME_MAX, || {
            let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO $$ BEGIN PERFORM pg_sleep(60%' AND state = 'active'";
            cluster().psql(sleeps).is_ok_and(|count| count == "1")
        });
        stays.tell(&queries(&["SELECT 'own'"]));
        wait_for("the other to wait", TIME_MAX, || waits(&pooled));
        drop(goes);
        assert_eq!(stays.send(&[]), Ok(text("own")));
        client(&pooled).query("INSERT INTO unlucky_serial DEFAULT VALUES").unwrap();
    }
}

/// A statement that ends well although it is cancelled: rows, end and ReadyForQuery come in one piece.
#[test]
fn rows_of_one_who_went_never_reach_the_next() {
    ground(
        "CREATE FUNCTION unlucky_rows() RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); \
         RETURN 'slept'; EXCEPTION WHEN query_canceled THEN RETURN 'secret'; END $$",
    );
    let pooled = narrow();
    for _ in 0..5 {
        let mut goes = client(&pooled);
        let mut stays = client(&pooled);
        goes.tell(&queries(&["SELECT unlucky_rows()"]));
        wait_for("the function to run", TIME_MAX, || {
            let runs = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT unlucky_rows()' AND state = 'active'";
            cluster().psql(runs).is_ok_and(|count| count == "1")
        });
        stays.tell(&queries(&["SELECT 'own'"]));
        wait_for("the other to wait", TIME_MAX, || waits(&pooled));
        drop(goes);
        assert_eq!(stays.send(&[]), Ok(text("own")));
    }
}

#[test]
fn one_who_goes_in_mid_query_takes_no_server_along() {
    let pooled = narrow();
    let pid = client(&pooled).value("SELECT pg_backend_pid()");
    let mut goes = client(&pooled);
    goes.tell(&queries(&["SELECT pg_sleep(60) AS left"]));
    wait_for("the query to run", TIME_MAX, || {
        let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60) AS left%' AND state = 'active'";
        cluster().psql(sleeps).is_ok_and(|count| count == "1")
    });
    drop(goes);
    assert_eq!(client(&pooled).value("SELECT pg_backend_pid()"), pid);
}

/// A script that ignores errors must not go on outside of the transaction it began.
#[test]
fn a_lost_transaction_takes_its_client_along() {
    let pooled = narrow();
    let ends = |client: &mut Direct, with: &str| {
        let error = client.send(&[]).unwrap_err();
        assert!(error.starts_with("the connection was closed") && error.contains(with), "{error}");
    };
    // Between two statements of a block.
    let mut begun = client(&pooled);
    begun.query("BEGIN").unwrap();
    let pid = begun.value("SELECT pg_backend_pid()").unwrap();
    ground(&format!("SELECT pg_terminate_backend({pid})"));
    ends(&mut begun, "terminating connection due to administrator command");
    // A BEGIN that was answered waits for a connection in vain.
    let mut config = config();
    config.databases[0].pool.size = 1;
    config.databases[0].pool.query_wait = Duration::from_secs(3);
    let pooled = Pooled::start(config);
    let mut holds = client(&pooled);
    holds.query("BEGIN").unwrap();
    holds.query("SELECT 1").unwrap();
    let mut waits = client(&pooled);
    waits.query("BEGIN").unwrap();
    waits.tell(&queries(&["SELECT 1", "SELECT 2"]));
    // A single statement that waits in vain is an error, and its client stays.
    let mut stays = client(&pooled);
    stays.tell(&queries(&["SELECT 1"]));
    ends(&mut waits, "(query_wait)");
    assert!(stays.send(&[]).unwrap_err().contains("(query_wait)"));
    holds.query("COMMIT").unwrap();
    assert_eq!(stays.query("SELECT '1'"), Ok(text("1")));
}

#[test]
fn what_is_sent_with_a_goodbye_is_done() {
    ground("CREATE TABLE unlucky_goodbye (id int)");
    let pooled = narrow();
    let mut goodbye = queries(&["INSERT INTO unlucky_goodbye SELECT 1 FROM pg_sleep(0.2)"]);
    write::terminate(&mut goodbye);
    client(&pooled).tell(&goodbye);
    assert_eq!(client(&pooled).query("SELECT 'own'"), Ok(text("own")));
    wait_for("the row", TIME_MAX, || {
        cluster().psql("SELECT count(*) FROM unlucky_goodbye").is_ok_and(|count| count == "1")
    });
}

#[test]
fn what_is_no_protocol_behind_a_query_holds_no_server() {
    let pooled = narrow();
    let mut garbage = queries(&["SELECT 1"]);
    garbage.extend_from_slice(b"!\0\0\0\x04");
    let mut hostile = client(&pooled);
    assert!(hostile.send(&garbage).is_err());
    assert_eq!(client(&pooled).query("SELECT 'own'"), Ok(text("own")));
}

#[test]
fn a_series_without_its_end_is_not_committed() {
    ground("CREATE TABLE unlucky_series (id int)");
    let pooled = narrow();
    let mut goes = client(&pooled);
    let mut out = Vec::new();
    write::parse(&mut out, b"", b"INSERT INTO unlucky_series VALUES (1)", []);
    write::bind(&mut out, b"", b"", Format::Text, std::iter::empty::<Option<&[u8]>>(), Format::Text);
    write::execute(&mut out, b"", 0);
    write::flush(&mut out);
    goes.tell(&out);
    // ParseComplete, BindComplete, CommandComplete.
    let mut answers = [0; 5 + 5 + 16];
    goes.stream().read_exact(&mut answers).unwrap();
    drop(goes);
    let mut stays = client(&pooled);
    assert_eq!(stays.query("SELECT count(*)::text FROM unlucky_series"), Ok(text("0")));
}

#[test]
fn who_takes_no_answers_is_asked_no_more() {
    const WHOLE_BYTES: usize = 64 * 1_024 * 1_024;
    let pooled = narrow();
    let mut silent = client(&pooled);
    let stream = silent.stream();
    stream.set_write_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut message = Vec::new();
    // Answered without a server.
    write::close(&mut message, Target::Statement(b"s"));
    let many = message.repeat(64 * 1_024);
    let mut sent = 0;
    let stopped = loop {
        match stream.write(&many[sent % message.len()..]) {
            Ok(count) => sent += count,
            Err(_) => break true,
        }
        if sent > WHOLE_BYTES {
            break false;
        }
    };
    assert!(stopped, "{sent} bytes were taken though no answer was");
    // Whoever takes them is heard again.
    let mut left = sent / message.len() * 5;
    let mut buffer = vec![0; 1024 * 1_024];
    while left > 0 {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0);
        left -= count;
    }
    stream.write_all(&message[sent % message.len()..]).unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(silent.query("SELECT 'own'"), Ok(text("own")));
}

#[test]
fn statements_of_others_cannot_be_taken_away_by_their_names_at_the_server() {
    let pooled = narrow();
    let mut owner = client(&pooled);
    let mut out = Vec::new();
    write::parse(&mut out, b"s", b"SELECT 'own'", []);
    write::sync(&mut out);
    owner.send(&out).unwrap();
    let mut run = Vec::new();
    write::bind(&mut run, b"", b"s", Format::Text, std::iter::empty::<Option<&[u8]>>(), Format::Text);
    write::execute(&mut run, b"", 0);
    write::sync(&mut run);
    assert_eq!(owner.send(&run), Ok(text("own")));
    let mut hostile = client(&pooled);
    hostile.query("BEGIN").unwrap();
    let takes = |id: &u64| {
        hostile.query("SAVEPOINT before").unwrap();
        let taken = hostile.query(format!("DEALLOCATE tenfold_{id:x}"));
        hostile.query("ROLLBACK TO before").unwrap();
        taken.is_ok()
    };
    let taken = (0..64).filter(takes).count();
    hostile.query("COMMIT").unwrap();
    assert_eq!(taken, 1, "the name was found");
    assert_eq!(owner.send(&run), Ok(text("own")));
}

#[test]
fn a_text_that_is_cut_into_other_tokens_leaves_nothing_to_strangers() {
    let pooled = narrow();
    let mut hostile = client(&pooled);
    hostile.query("BEGIN").unwrap();
    hostile.query("SET standard_conforming_strings = off").unwrap();
    // Two strings, or one and a statement.
    hostile.query(r"SELECT '\', '; SET search_path = evil; --'").unwrap();
    hostile.query("COMMIT").unwrap();
    // What it left has been looked into now.
    hostile.query("SELECT 1").unwrap();
    drop(hostile);
    assert_eq!(client(&pooled).value("SHOW search_path").unwrap(), "\"$user\", public");
}

#[test]
fn an_unnamed_statement_outlives_what_the_pooler_asks() {
    let pooled = narrow();
    let mut owner = client(&pooled);
    let mut run = Vec::new();
    write::bind(&mut run, b"", b"", Format::Text, std::iter::empty::<Option<&[u8]>>(), Format::Text);
    write::execute(&mut run, b"", 0);
    write::sync(&mut run);
    let mut first = Vec::new();
    // What it leaves is asked for at the end, by a simple query.
    write::parse(&mut first, b"", b"SELECT set_config('work_mem', '1MB', false)", []);
    first.extend_from_slice(&run);
    assert_eq!(owner.send(&first), Ok(text("1MB")));
    assert_eq!(owner.send(&run), Ok(text("1MB")));
}

#[test]
fn a_setting_that_is_lost_with_its_server_ends_its_client() {
    let pooled = narrow();
    let mut owner = client(&pooled);
    let both = queries(&["SET search_path = pg_catalog", "SELECT pg_sleep(60) AS lost"]);
    assert_eq!(owner.send(&both), Ok(vec![]), "to the first");
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE query LIKE 'SELECT pg_sleep(60) AS lost%' AND state = 'active'";
    wait_for("the second query to run", TIME_MAX, || cluster().psql(kill).is_ok_and(|count| count == "1"));
    let lost = owner.send(&[]).unwrap_err();
    assert!(lost.contains("the connection was closed"), "{lost}");
}

#[test]
fn what_follows_an_answer_in_the_same_write_comes_after_it() {
    let pooled = narrow();
    let mut owner = client(&pooled);
    let parse = |out: &mut Vec<u8>, name: &str| write::parse(out, name.as_bytes(), b"SELECT 'own'", []);
    let mut out = Vec::new();
    parse(&mut out, "s");
    write::sync(&mut out);
    owner.send(&out).unwrap();
    let mut out = queries(&["LISTEN unlucky"]);
    parse(&mut out, "t");
    assert_eq!(owner.send(&out), Ok(vec![]));
    let mut run = Vec::new();
    write::bind(&mut run, b"", b"t", Format::Text, std::iter::empty::<Option<&[u8]>>(), Format::Text);
    write::execute(&mut run, b"", 0);
    write::sync(&mut run);
    assert_eq!(owner.send(&run), Ok(text("own")));
}

#[test]
fn room_is_made_by_another_worker() {
    ground("CREATE ROLE unlucky_other LOGIN");
    let mut config = config();
    let database = &mut config.databases[0];
    (database.user, database.password) = (None, None);
    database.pool.database_max = 1;
    database.pool.query_wait = Duration::from_secs(5);
    let names = ["postgres", "unlucky_other"];
    config.users.list = names.iter().map(|name| ((*name).into(), Password::new("unused"))).collect();
    let pooled = Pooled::start_with(config, 2);
    let mut first = client(&pooled);
    for round in 0..4 {
        assert_eq!(first.query("SELECT 'own'"), Ok(text("own")));
        // Goes to the other worker, which has fewer clients.
        let mut other = pooled.psql_command();
        let told = told(other.args(["-U", "unlucky_other", "-c", "SELECT current_user"]).output().unwrap());
        assert_eq!(told.as_deref(), Ok("unlucky_other"), "{round}");
    }
}

#[test]
fn a_session_whose_server_is_not_there_is_told_in_time() {
    let mut config = config();
    config.databases[0].hosts =
        vec![Host::Unix { folder: std::env::temp_dir().join("no such folder"), port: 5_432 }];
    config.databases[0].pool.mode = Mode::Session;
    config.databases[0].pool.query_wait = Duration::from_secs(1);
    config.login_timeout = TIME_MAX;
    let pooled = Pooled::start(config);
    let told = pooled.psql("SELECT 1").unwrap_err();
    assert!(told.contains("no server connection came free in time"), "{told}");
}
