//! A real PostgreSQL: replication, counting, restarts, and nothing left behind.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use tenfold_testkit::postgres::{Auth, BackendSignal, Cluster, Install, Jitter, Options, Server, Tls};
use tenfold_testkit::tls::Authority;
use tenfold_testkit::{Error, wait_for};

use crate::SOON;

#[test]
fn a_row_inserted_on_the_primary_appears_on_the_replica() {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let options = Options { replicas: 1, dir: Some(target), ..Options::default() };
    let mut cluster = Cluster::start(&options).unwrap();
    cluster.psql("CREATE TABLE notes (id int); INSERT INTO notes VALUES (42)").unwrap();
    let replica = cluster.replica().unwrap();
    wait_for("the row on the replica", SOON, || {
        replica.psql("SELECT id FROM notes").is_ok_and(|id| id == "42")
    });
    assert_eq!(replica.psql("SELECT pg_is_in_recovery()").unwrap(), "t");
    assert_ne!(cluster.replica_url().unwrap(), cluster.primary_url());

    // The same ports over a crash, and the data with them.
    let url = cluster.primary_url();
    cluster.primary_mut().kill();
    assert!(cluster.psql("SELECT 1").is_err());
    cluster.primary_mut().start().unwrap();
    assert_eq!((cluster.primary_url(), cluster.psql("SELECT id FROM notes").unwrap()), (url, "42".into()));
    cluster.psql("INSERT INTO notes VALUES (43)").unwrap();
    let replica = cluster.replica().unwrap();
    wait_for("the replica to follow again", SOON, || {
        replica.psql("SELECT count(*) FROM notes").is_ok_and(|count| count == "2")
    });
}

#[test]
fn queries_and_processor_time_are_counted_and_nothing_is_left() {
    let cluster = Cluster::start(&Options::default()).unwrap();
    cluster.psql("CREATE TABLE things (id int)").unwrap();
    cluster.forget_queries().unwrap();
    for _ in 0..3 {
        cluster.psql("SELECT count(*) FROM things").unwrap();
    }
    cluster.psql("INSERT INTO things VALUES (1)").unwrap();
    assert_eq!(cluster.query_count().unwrap(), 4);
    assert_eq!(cluster.query_count_where("query ILIKE 'select%'").unwrap(), 3);
    assert!(cluster.cpu_seconds() > 0.0);

    let data = PathBuf::from(cluster.psql("SHOW data_directory").unwrap());
    let port = cluster.primary().port();
    drop(cluster);
    assert!(!data.parent().unwrap().parent().unwrap().exists());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn passwords_unreachable_folders_and_failing_statements() {
    let password = "correcthorse".to_owned();
    // Nobody but us can enter this folder: when we are root, PostgreSQL's account is somebody else.
    let only_us = std::fs::Permissions::from_mode(0o700);
    let private = tempfile::Builder::new().permissions(only_us).tempdir().unwrap();
    let dir = Some(private.path().join("target"));
    let options = Options { auth: Auth::Scram { password }, dir, ..Options::default() };
    let cluster = Cluster::start(&options).unwrap();
    let data = PathBuf::from(cluster.psql("SHOW data_directory").unwrap());
    assert_eq!(data.starts_with(private.path()), !nix::unistd::geteuid().is_root(), "{}", data.display());

    let error = cluster.psql("SELECT * FROM nowhere").unwrap_err();
    assert!(error.to_string().contains("relation \"nowhere\" does not exist"), "{error}");
    assert!(cluster.primary_url().contains("postgres:correcthorse@127.0.0.1"));

    // The password is asked for.
    let wrong = cluster.primary_url().replace("correcthorse", "wrong");
    let psql = Install::find().unwrap().bin.join("psql");
    let output = std::process::Command::new(psql).args([&wrong, "-c", "SELECT 1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("password authentication failed"));
}

#[test]
fn a_setting_that_postgresql_refuses_is_explained_by_its_log() {
    let settings = vec![("shared_buffers".to_owned(), "a lot".to_owned())];
    let error = Cluster::start(&Options { settings, ..Options::default() }).unwrap_err();
    assert!(matches!(&error, Error::Failed { log, .. } if log.contains("shared_buffers")), "{error}");
}

/// What `psql` says to a connection string and a statement, both of its outputs.
fn psql(url: &str, sql: &str) -> String {
    let psql = Install::find().unwrap().bin.join("psql");
    let output = std::process::Command::new(psql).args(["-X", "-A", "-t", url, "-c", sql]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

#[test]
fn tls_rules_and_settings_are_those_asked_for_and_change_while_it_runs() {
    let authority = Authority::new("test authority");
    let tls =
        Tls { identity: authority.server(&["127.0.0.1"]), client_ca: Some(authority.certificate().into()) };
    let rules = "host all postgres 127.0.0.1/32 trust\nhostssl all app 127.0.0.1/32 trust\n";
    let hba = Some(rules.to_owned());
    let cluster = Cluster::start(&Options { tls: Some(tls), hba, ..Options::default() }).unwrap();
    cluster.psql("CREATE ROLE app LOGIN").unwrap();
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), authority.certificate()).unwrap();
    let url = cluster.primary_url().replace("postgres@", "app@");
    let verified = format!("{url}?sslmode=verify-full&sslrootcert={}", ca.path().display());
    let is_encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(psql(&verified, is_encrypted), "t");
    assert!(psql(&format!("{url}?sslmode=disable"), "SELECT 1").contains("no pg_hba.conf entry"));

    cluster.primary().set_hba("host all postgres 127.0.0.1/32 trust\nhost all app all reject\n").unwrap();
    wait_for("the new rules", SOON, || psql(&verified, "SELECT 1").contains("rejects"));
    assert!(cluster.primary().set_hba("host all postgres 127.0.0.1/32 trust\nhost all\n").is_err());
    cluster.primary().set("work_mem", "7MB").unwrap();
    wait_for("the new setting", SOON, || cluster.psql("SHOW work_mem").is_ok_and(|value| value == "7MB"));
}

#[test]
fn a_server_is_hurt_in_every_way_and_comes_back() {
    let mut cluster = Cluster::start(&Options { replicas: 1, ..Options::default() }).unwrap();
    let url = cluster.primary_url();
    let sleeping = std::thread::spawn({
        let url = url.clone();
        move || psql(&url, "SELECT pg_sleep(600)")
    });
    let mut pid = String::new();
    wait_for("the sleeper", SOON, || {
        let asked = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
        pid = cluster.psql(asked).unwrap_or_default();
        !pid.is_empty()
    });
    let pid = pid.parse().unwrap();
    cluster.primary().signal_backend(pid, BackendSignal::Stop).unwrap();
    cluster.primary().signal_backend(pid, BackendSignal::Continue).unwrap();
    cluster.primary().signal_backend(pid, BackendSignal::Kill).unwrap();
    assert!(sleeping.join().unwrap().contains("server closed the connection unexpectedly"));
    let own = i32::try_from(std::process::id()).unwrap();
    assert!(cluster.primary().signal_backend(own, BackendSignal::Kill).is_err());
    wait_for("the server to recover", SOON, || cluster.psql("SELECT 1").is_ok());

    cluster.primary_mut().stop_immediately();
    assert!(cluster.psql("SELECT 1").is_err());
    cluster.primary_mut().start().unwrap();
    cluster.primary_mut().restart().unwrap();
    assert_eq!((cluster.primary_url(), cluster.psql("SELECT 1").unwrap()), (url, "1".into()));

    cluster.primary_mut().stop();
    let replica = cluster.replica().unwrap();
    replica.promote().unwrap();
    replica.psql("CREATE TABLE promoted (id int)").unwrap();
}

#[test]
fn replicas_lag_as_they_are_told_and_stand_still() {
    let mut cluster = Cluster::start(&Options { replicas: 2, ..Options::default() }).unwrap();
    cluster.psql("CREATE TABLE notes (id int)").unwrap();
    let count = |replica: &Server| replica.psql("SELECT count(*) FROM notes").unwrap_or_default();
    let [first, second] = cluster.replicas() else { panic!("two replicas were asked for") };
    for replica in [first, second] {
        replica.catch_up(cluster.primary()).unwrap();
    }
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE active";
    assert_eq!(cluster.psql(slots).unwrap(), "2");

    first.pause_replay().unwrap();
    cluster.psql("INSERT INTO notes VALUES (1)").unwrap();
    second.catch_up(cluster.primary()).unwrap();
    assert_eq!((count(first), count(second)), ("0".into(), "1".into()));
    first.resume_replay().unwrap();
    first.catch_up(cluster.primary()).unwrap();
    assert_eq!(count(first), "1");

    second.delay_replay(Duration::from_secs(3_600)).unwrap();
    wait_for("the delay", SOON, || second.psql("SHOW recovery_min_apply_delay").is_ok_and(|d| d == "1h"));
    cluster.psql("INSERT INTO notes VALUES (2)").unwrap();
    first.catch_up(cluster.primary()).unwrap();
    assert_eq!((count(first), count(second)), ("2".into(), "1".into()));
    second.delay_replay(Duration::ZERO).unwrap();
    second.catch_up(cluster.primary()).unwrap();

    // What it does is random; that it does something and leaves nothing is not.
    let jitter = Jitter::start(first, Duration::from_millis(5), Duration::from_millis(5), 7).unwrap();
    let state = || first.psql("SELECT pg_get_wal_replay_pause_state()").unwrap_or_default();
    wait_for("a pause", SOON, || state() != "not paused");
    wait_for("an end of it", SOON, || state() == "not paused");
    drop(jitter);
    assert_eq!(state(), "not paused");

    let url = cluster.replicas()[1].url();
    let asks = "SELECT count(*) FROM notes";
    cluster.replicas_mut()[1].freeze();
    let asking = std::thread::spawn(move || psql(&url, asks));
    cluster.replicas()[0].catch_up(cluster.primary()).unwrap();
    assert!(!asking.is_finished(), "a server that stands still answered");
    cluster.replicas_mut()[1].thaw();
    assert_eq!(asking.join().unwrap(), "2");
    // One that stands still can be ended in any way, and its clients notice.
    cluster.replicas_mut()[1].freeze();
    cluster.replicas_mut()[1].kill();
    cluster.replicas_mut()[1].start().unwrap();
    cluster.replicas_mut()[1].freeze();
    cluster.replicas_mut()[1].stop();
}
