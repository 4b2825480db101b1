//! A reload of the server's configuration reaches the clients of a pool, as it reaches those of PostgreSQL.

use std::time::Duration;

use tenfold_pooler::config::{Host, Mode};
use tenfold_testkit::{
    postgres::{Cluster, Options, Server},
    wait_for,
};

use crate::{
    direct::Direct,
    pooled::{Pooled, config},
};

const TIME_MAX: Duration = Duration::from_secs(20);
const NAME: &str = "IntervalStyle";

/// What a client was told last, and what a server says to it.
fn told_and_true(client: &mut Direct) -> (String, String) {
    let value = client.value("SHOW IntervalStyle").unwrap();
    (client.reports.get(NAME).cloned().unwrap_or_default(), value)
}

fn both(value: &str) -> (String, String) {
    (value.into(), value.into())
}

/// A pooler in front of a server of this test's own, with so many connections to it.
fn narrow(server: &Server, mode: Mode, size: usize) -> Pooled {
    let mut config = config();
    config.databases[0].hosts = vec![Host::Tcp { host: "127.0.0.1".into(), port: server.port() }];
    config.databases[0].pool.size = size;
    config.databases[0].pool.mode = mode;
    Pooled::start_with(config, 2)
}

#[test]
fn a_session_begins_with_what_its_server_reported_to_others() {
    let cluster = Cluster::start(&Options::default()).unwrap();
    let server = cluster.primary();
    // With two, a client that comes before the first is back is served by the other, and so are all after it.
    let pooled = narrow(server, Mode::Session, 1);
    let mut client = Direct::connect_to(pooled.port(), &[]);
    let pid = client.value("SELECT pg_backend_pid()");
    server.set(NAME, "sql_standard").unwrap();
    wait_for("the client to be told", TIME_MAX, || told_and_true(&mut client) == both("sql_standard"));
    client.query("SET IntervalStyle = 'iso_8601'; SET DateStyle = 'German'").unwrap();
    client.terminate();
    wait_for("a later client on the same connection to be told", TIME_MAX, || {
        let mut late = Direct::connect_to(pooled.port(), &[]);
        let told = late.reports.get(NAME).cloned();
        late.value("SELECT pg_backend_pid()") == pid && told.as_deref() == Some("sql_standard")
    });
}

#[test]
fn every_client_hears_of_a_reload_but_those_that_set_it_themselves() {
    let cluster = Cluster::start(&Options::default()).unwrap();
    let server = cluster.primary();
    let pooled = narrow(server, Mode::Transaction, 2);
    let mut clients: Vec<_> = (0..4).map(|_| Direct::connect_to(pooled.port(), &[])).collect();
    let mut setting = Direct::connect_to(pooled.port(), &[]);
    setting.query("SET IntervalStyle = 'iso_8601'").unwrap();
    let mut beginning = Direct::connect_to(pooled.port(), &[(NAME, "postgres_verbose")]);
    // The server's own, then another, and back.
    for value in ["sql_standard", "postgres_verbose", "postgres"] {
        server.set(NAME, value).unwrap();
        // Those that set it come first, so that servers report while they are brought to another's state.
        assert_eq!(told_and_true(&mut setting), both("iso_8601"));
        assert_eq!(told_and_true(&mut beginning), both("postgres_verbose"));
        for client in &mut clients {
            wait_for("the client to be told", TIME_MAX, || told_and_true(client) == both(value));
        }
        let mut late = Direct::connect_to(pooled.port(), &[]);
        wait_for("a later client to be told", TIME_MAX, || told_and_true(&mut late) == both(value));
    }
    setting.query("RESET IntervalStyle").unwrap();
    assert_eq!(told_and_true(&mut setting), both("postgres"));
}
