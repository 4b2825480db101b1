//! Sessions whose server connection is to be replaced: `fast_close`.

use std::time::Duration;

use tenfold_pooler::config::{Host, Mode};
use tenfold_testkit::{
    postgres::{Cluster, Options},
    wait_for,
};

use crate::{
    direct::{Direct, cluster},
    pooled::{Pooled, config},
};

const LONG: Duration = Duration::from_secs(20);
const TOLD: &str = "terminating connection due to administrator command";

fn start(mode: Mode, fast_close: bool) -> Pooled {
    let mut config = config();
    config.databases[0].pool.mode = mode;
    config.databases[0].pool.fast_close = fast_close;
    Pooled::start_with(config, 2)
}

fn reconnect(pooled: &Pooled) {
    pooled.pooler.shared().database("postgres").unwrap().reconnect();
}

/// What a client that does nothing is told within this time.
fn ended(client: &mut Direct) -> String {
    // An empty message list: only reads.
    client.send(&[]).unwrap_err()
}

fn pid(client: &mut Direct) -> Option<String> {
    client.value("SELECT pg_backend_pid()")
}

#[test]
fn an_idle_session_ends_at_once_and_one_in_a_transaction_with_it() {
    let pooled = start(Mode::Session, true);
    cluster().psql("CREATE TABLE fast_closed (n int)").unwrap();
    let mut idle = Direct::connect_to(pooled.port(), &[]);
    let mut busy = Direct::connect_to(pooled.port(), &[("search_path", "pg_catalog")]);
    let (idle_pid, busy_pid) = (pid(&mut idle), pid(&mut busy));
    busy.query("BEGIN; INSERT INTO public.fast_closed VALUES (1)").unwrap();
    reconnect(&pooled);
    let told = ended(&mut idle);
    assert!(told.contains(TOLD), "{told}");
    assert_eq!(pid(&mut busy), busy_pid, "what runs is not cut");
    // What it is told may come with the answer.
    let told = busy.query("COMMIT").map_or_else(|told| told, |_| ended(&mut busy));
    assert!(told.contains(TOLD), "{told}");
    let gone = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid IN ({}, {})",
        idle_pid.unwrap(),
        busy_pid.unwrap()
    );
    let mut next = Direct::connect_to(pooled.port(), &[]);
    wait_for("the old connections to be closed", LONG, || next.value(&gone).as_deref() == Some("0"));
    assert_eq!(
        next.value("SELECT count(*) FROM fast_closed").as_deref(),
        Some("1"),
        "what ran was committed"
    );
    // Those that came after it are not meant.
    let own = pid(&mut next);
    assert_eq!(pid(&mut next), own);
}

#[test]
fn a_client_that_never_rests_is_told_between_two_transactions() {
    let pooled = start(Mode::Session, true);
    let mut client = Direct::connect_to(pooled.port(), &[]);
    client.query("CREATE TEMP TABLE kept (n int)").unwrap();
    reconnect(&pooled);
    let mut answered = 0;
    let told = loop {
        match client.query("INSERT INTO kept VALUES (1)") {
            Ok(_) => answered += 1,
            Err(told) => break told,
        }
        assert!(answered < 100_000, "it goes on for ever");
    };
    assert!(told.contains(TOLD), "{told}");
}

#[test]
fn what_is_pinned_in_transaction_mode_ends_as_well() {
    let pooled = start(Mode::Transaction, true);
    let mut pinned = Direct::connect_to(pooled.port(), &[]);
    pinned.query("CREATE TEMP TABLE kept (n int)").unwrap();
    let mut free = Direct::connect_to(pooled.port(), &[]);
    let before = pid(&mut free);
    reconnect(&pooled);
    let told = ended(&mut pinned);
    assert!(told.contains(TOLD), "{told}");
    // Who keeps nothing notices nothing.
    wait_for("its connection to be replaced", LONG, || pid(&mut free) != before);
}

#[test]
fn without_it_and_after_a_pause_sessions_last() {
    for fast_close in [false, true] {
        let pooled = start(Mode::Session, fast_close);
        let mut client = Direct::connect_to(pooled.port(), &[]);
        let own = pid(&mut client);
        if fast_close {
            pooled.pooler.pause();
            pooled.pooler.resume();
        } else {
            reconnect(&pooled);
        }
        // Another connection is replaced meanwhile, and so several ticks have passed.
        wait_for("a turn of the worker's clock", LONG, || {
            let lines = pooled.psql("SELECT pg_sleep(0.06)").is_ok();
            lines && pid(&mut client) == own
        });
        assert_eq!(pid(&mut client), own, "fast_close = {fast_close}");
    }
}

#[test]
fn a_database_that_moves_takes_its_sessions_along() {
    let other = Cluster::start(&Options::default()).unwrap();
    let pooled = start(Mode::Session, true);
    let mut client = Direct::connect_to(pooled.port(), &[]);
    let port = client.value("SHOW port");
    let mut moved = pooled.pooler.shared().config.load_full().as_ref().clone();
    // A change that is no move ends nobody's session.
    moved.databases[0].pool.size = 3;
    pooled.pooler.reload(moved.clone()).unwrap();
    assert_eq!(client.value("SHOW port"), port);
    moved.databases[0].hosts = vec![Host::Tcp { host: "127.0.0.1".into(), port: other.primary().port() }];
    pooled.pooler.reload(moved).unwrap();
    let told = ended(&mut client);
    assert!(told.contains(TOLD), "{told}");
    wait_for("a client to be served by the other server", LONG, || {
        let mut next = Direct::connect_to(pooled.port(), &[]);
        // Another worker may hear of the move a moment later, and end this session as well.
        let port = next.query("SHOW port").ok().and_then(|rows| rows[0][0].clone());
        port == Some(other.primary().port().to_string().into_bytes())
    });
}
