//! A real PostgreSQL: replication, counting, restarts, and nothing left behind.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tenfold_testkit::postgres::{Auth, Cluster, Install, Options};
use tenfold_testkit::{Error, wait_for};

use crate::SOON;

#[test]
fn a_row_inserted_on_the_primary_appears_on_the_replica() {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let options = Options { replica: true, dir: Some(target), ..Options::default() };
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
