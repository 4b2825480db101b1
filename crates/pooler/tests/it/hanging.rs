//! A server that says nothing while the pooler itself asks it something: the connection is given up in time, and
//! whoever can go on elsewhere does.

use std::time::Duration;

use tenfold_pgwire::write;
use tenfold_pooler::config::Host;
use tenfold_service::clock::Clock;
use tenfold_testkit::{
    postgres::{BackendSignal, Cluster, Options, Server},
    wait_for,
};

use crate::{
    direct::Direct,
    pooled::{Pooled, config},
};

const TIME_MAX: Duration = Duration::from_secs(20);
/// What the pooler asks is answered within this, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// A pooler with one connection to a server of the test's own; `check_after` as given.
fn narrow(server: &Server, check_after: Duration) -> Pooled {
    let mut config = config();
    let database = &mut config.databases[0];
    database.hosts = vec![Host::Tcp { host: "127.0.0.1".into(), port: server.port() }];
    database.pool.size = 1;
    database.pool.connect_timeout = PATIENCE;
    database.pool.check_after = check_after;
    Pooled::start(config)
}

/// A server process that stands still, and goes on when this is dropped.
struct Still<'a> {
    server: &'a Server,
    pid: i32,
}

impl<'a> Still<'a> {
    fn stand(server: &'a Server, pid: &str) -> Self {
        let pid = pid.parse().unwrap();
        server.signal_backend(pid, BackendSignal::Stop).unwrap();
        Self { server, pid }
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = self.server.signal_backend(self.pid, BackendSignal::Continue);
    }
}

fn client(pooled: &Pooled) -> Direct {
    Direct::connect_to(pooled.port(), &[])
}

fn pid(client: &mut Direct) -> String {
    client.value("SELECT pg_backend_pid()").unwrap()
}

fn tell(client: &mut Direct, sql: &str) {
    let mut out = Vec::new();
    write::query(&mut out, sql.as_bytes());
    client.tell(&out);
}

#[test]
fn a_check_that_is_not_answered_costs_its_client_nothing() {
    let cluster = Cluster::start(&Options::default()).unwrap();
    let pooled = narrow(cluster.primary(), Duration::ZERO);
    let mut patient = client(&pooled);
    let before = pid(&mut patient);
    let _still = Still::stand(cluster.primary(), &before);
    assert_ne!(pid(&mut patient), before);
}

#[test]
fn a_state_that_cannot_be_restored_in_time_is_restored_elsewhere() {
    let cluster = Cluster::start(&Options::default()).unwrap();
    let pooled = narrow(cluster.primary(), TIME_MAX);
    let mut patient = client(&pooled);
    // Restored ahead of any statement, and confirmed: it decides what may be read.
    cluster.psql("CREATE ROLE hanging").unwrap();
    patient.query("SET ROLE hanging").unwrap();
    let before = pid(&mut client(&pooled));
    let still = Still::stand(cluster.primary(), &before);
    assert_eq!(patient.value("SELECT current_user").as_deref(), Some("hanging"));
    drop(still);
    // A login whose parameters are tried.
    let before = pid(&mut client(&pooled));
    let _still = Still::stand(cluster.primary(), &before);
    let mut late = Direct::connect_to(pooled.port(), &[("work_mem", "7MB")]);
    assert_eq!(late.value("SHOW work_mem").as_deref(), Some("7MB"));
}

#[test]
fn a_statement_behind_a_state_that_is_not_restored_fails_and_its_client_stays() {
    let cluster = Cluster::start(&Options::default()).unwrap();
    let pooled = narrow(cluster.primary(), TIME_MAX);
    let mut owner = client(&pooled);
    owner.query("SET work_mem = '7MB'").unwrap();
    let before = pid(&mut client(&pooled));
    let _still = Still::stand(cluster.primary(), &before);
    let error = owner.query("SELECT 1").unwrap_err();
    assert!(error.contains("did not answer in time"), "{error}");
    assert_eq!(owner.value("SHOW work_mem").as_deref(), Some("7MB"));
}

#[test]
fn what_a_transaction_left_is_not_waited_for_without_end() {
    let cluster = Cluster::start(&Options::default()).unwrap();
    let pooled = narrow(cluster.primary(), TIME_MAX);
    let mut owner = client(&pooled);
    owner.query("BEGIN").unwrap();
    owner.query("CREATE TEMP TABLE hanging (n int)").unwrap();
    let before = pid(&mut owner);
    // What is asked at the end of the transaction reads this.
    let mut holder = Direct::connect_to(cluster.primary().port(), &[]);
    holder.query("BEGIN; LOCK TABLE pg_catalog.pg_depend IN ACCESS EXCLUSIVE MODE").unwrap();
    owner.query("COMMIT").unwrap();
    let error = owner.query("SELECT 1").unwrap_err();
    assert!(
        error.contains("the connection was closed") && error.contains("did not answer in time"),
        "{error}"
    );
    assert_ne!(pid(&mut client(&pooled)), before);
}

#[test]
fn who_is_given_up_waits_for_no_lock_either() {
    let cluster = Cluster::start(&Options::default()).unwrap();
    let pooled = narrow(cluster.primary(), TIME_MAX);
    cluster.psql("CREATE TABLE hanging (n int)").unwrap();
    let mut owner = client(&pooled);
    owner.query("PREPARE hanging AS SELECT count(*) FROM hanging").unwrap();
    // It is prepared again for its owner, which asks for the table.
    let mut other = client(&pooled);
    other.query("PREPARE another AS SELECT 1").unwrap();
    let before = pid(&mut other);
    let mut holder = Direct::connect_to(cluster.primary().port(), &[]);
    holder.query("BEGIN; LOCK TABLE hanging").unwrap();
    tell(&mut owner, "EXECUTE hanging");
    wait_for("the server process to be gone", TIME_MAX, || {
        let there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {before}");
        cluster.psql(&there).is_ok_and(|count| count == "0")
    });
    holder.query("COMMIT").unwrap();
    assert_eq!(owner.send(&[]), Ok(vec![vec![Some(b"0".to_vec())]]));
}

#[test]
fn a_connection_that_is_not_cleaned_in_time_is_closed() {
    let cluster = Cluster::start(&Options::default()).unwrap();
    let pooled = narrow(cluster.primary(), TIME_MAX);
    let began = |client: &mut Direct| {
        client.query("BEGIN").unwrap();
        pid(client)
    };
    let pinned = |client: &mut Direct| {
        client.query("CREATE TEMP TABLE hanging (n int)").unwrap();
        pid(client)
    };
    let leaves: [&dyn Fn(&mut Direct) -> String; 2] = [&began, &pinned];
    for leave in leaves {
        let mut goes = client(&pooled);
        let before = leave(&mut goes);
        let _still = Still::stand(cluster.primary(), &before);
        drop(goes);
        let mut next = client(&pooled);
        let began = Clock::system().now();
        assert_ne!(pid(&mut next), before);
        assert!(began.elapsed() < 5 * PATIENCE, "{:?}", began.elapsed());
    }
}

/// What waits for a lock is no hanging server where the client itself asked for it.
#[test]
fn a_clients_own_statement_has_all_its_time() {
    let cluster = Cluster::start(&Options::default()).unwrap();
    let pooled = narrow(cluster.primary(), TIME_MAX);
    let mut owner = client(&pooled);
    cluster.psql("CREATE TABLE hanging (n int)").unwrap();
    owner.query("SET work_mem = '7MB'").unwrap();
    assert_eq!(client(&pooled).value("SELECT 1").as_deref(), Some("1"));
    let mut holder = Direct::connect_to(cluster.primary().port(), &[]);
    holder.query("BEGIN; LOCK TABLE hanging").unwrap();
    tell(&mut owner, "SELECT count(*) FROM hanging");
    let began = Clock::system().now();
    let mut other = client(&pooled);
    wait_for("more time than the pooler itself would take", TIME_MAX, || began.elapsed() > 2 * PATIENCE);
    holder.query("COMMIT").unwrap();
    assert_eq!(owner.send(&[]), Ok(vec![vec![Some(b"0".to_vec())]]));
    assert_eq!(other.value("SELECT 1").as_deref(), Some("1"));
}
