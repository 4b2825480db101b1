//! Coming in through the pooler with psql: each method, each kind of secret, and what reaches the server.

use std::{
    io::Write as _,
    net::TcpStream,
    process::{Command, Stdio},
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use tenfold_pgwire::{startup::append_startup, write};
use tenfold_pooler::config::{AuthMethod, AuthQuery, Config, Database, Host, Password, Users};
use tenfold_pooler::shared::WILDCARD_DATABASES_MAX;
use tenfold_testkit::{
    postgres::{Cluster, Options},
    wait_for,
};

use crate::pooled::{Pooled, told};

const HBA: &str = "\
host all postgres 127.0.0.1/32 trust
host all hashed all md5
host all all all scram-sha-256
";
const QUERY: &str = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1";

/// A server that asks everybody but its superuser for a password.
fn guarded() -> &'static Cluster {
    static GUARDED: OnceLock<Cluster> = OnceLock::new();
    GUARDED.get_or_init(|| {
        let cluster = Cluster::start(&Options { hba: Some(HBA.into()), ..Options::default() }).unwrap();
        cluster
            .psql(
                "SET password_encryption = 'md5'; CREATE ROLE hashed LOGIN PASSWORD 'pencil'; \
                 SET password_encryption = 'scram-sha-256'; CREATE ROLE app LOGIN PASSWORD 'pencil'; \
                 CREATE ROLE other LOGIN PASSWORD 'pencil'; CREATE ROLE changing LOGIN PASSWORD 'pencil'",
            )
            .unwrap();
        cluster
    })
}

fn secret_of(role: &str) -> String {
    guarded().psql(&format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'")).unwrap()
}

fn database(name: &str) -> Database {
    let host = Host::Tcp { host: "127.0.0.1".into(), port: guarded().primary().port() };
    Database::new(name, vec![host])
}

fn config(auth: AuthMethod, users: &[(&str, &str)], database: Database) -> Config {
    let list = users.iter().map(|&(name, secret)| (name.into(), Password::new(secret))).collect();
    Config { auth, users: Users { list }, databases: vec![database], ..Config::default() }
}

fn asking(database: Database) -> Database {
    let (query, user) = (QUERY.to_owned(), "postgres".to_owned());
    Database { auth_query: Some(AuthQuery { query, user, password: None, database: None }), ..database }
}

/// Who the server thinks we are, or what psql says instead.
fn enter(pooled: &Pooled, user: &str, password: &str, database: &str) -> Result<String, String> {
    // A client that is never answered must fail its test, not hold up the run.
    let mut psql = Command::new("timeout");
    psql.args(["30", "psql", "-X", "-q", "-A", "-t", "-w", "-h", "127.0.0.1", "-U", user, "-d", database]);
    psql.args(["-p", &pooled.port().to_string(), "-c", "SELECT current_user"]);
    told(psql.env("PGPASSWORD", password).env("PGCONNECT_TIMEOUT", "10").output().unwrap())
}

fn check_refused(result: &Result<String, String>, text: &str) {
    assert!(result.as_ref().is_err_and(|error| error.contains(text)), "{result:?}");
}

#[test]
fn a_client_passes_its_own_secret_on() {
    let (scram, md5) = (secret_of("app"), secret_of("hashed"));
    for (auth, user, secret) in [
        (AuthMethod::ScramSha256, "app", "pencil"),
        (AuthMethod::ScramSha256, "app", &scram),
        (AuthMethod::Md5, "app", &scram),
        (AuthMethod::Md5, "hashed", &md5),
        (AuthMethod::Md5, "hashed", "pencil"),
        (AuthMethod::Password, "app", &scram),
        (AuthMethod::Password, "hashed", &md5),
        (AuthMethod::Password, "app", "pencil"),
    ] {
        let pooled = Pooled::start(config(auth, &[(user, secret)], database("postgres")));
        for _ in 0..2 {
            assert_eq!(enter(&pooled, user, "pencil", "postgres").as_deref(), Ok(user), "{auth:?} {secret}");
        }
        let refused = format!("password authentication failed for user \"{user}\"");
        check_refused(&enter(&pooled, user, "wrong", "postgres"), &refused);
        check_refused(
            &enter(&pooled, "nobody", "pencil", "postgres"),
            "password authentication failed for user \"nobody\"",
        );
    }
}

#[test]
fn keys_outlive_server_connections() {
    let scram = secret_of("other");
    let pooled = Pooled::start(config(AuthMethod::ScramSha256, &[("other", &scram)], database("postgres")));
    assert_eq!(enter(&pooled, "other", "pencil", "postgres").as_deref(), Ok("other"));
    let gone = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'other'";
    assert_ne!(guarded().psql(gone).unwrap(), "0");
    wait_for("the keys to serve again", Duration::from_secs(10), || {
        enter(&pooled, "other", "pencil", "postgres").as_deref() == Ok("other")
    });
}

#[test]
fn users_are_looked_up_where_the_list_has_none() {
    for name in ["postgres", "*"] {
        let pooled = Pooled::start(config(AuthMethod::ScramSha256, &[], asking(database(name))));
        assert_eq!(enter(&pooled, "app", "pencil", "postgres").as_deref(), Ok("app"), "{name}");
        let (wrong, unknown) = (("app", "wrong"), ("nobody", "pencil"));
        for (user, password) in [wrong, unknown] {
            let refused = format!("password authentication failed for user \"{user}\"");
            check_refused(&enter(&pooled, user, password, "postgres"), &refused);
        }
    }
}

#[test]
fn a_failed_look_up_is_logged_and_reads_like_a_wrong_password() {
    let mut database = asking(database("postgres"));
    database.auth_query.as_mut().unwrap().query = "SELECT broken FROM nowhere WHERE a = $1".into();
    let pooled = Pooled::start(config(AuthMethod::ScramSha256, &[], database));
    let refused = enter(&pooled, "app", "pencil", "postgres");
    check_refused(&refused, "password authentication failed for user \"app\"");
    let log = pooled.log.lock().unwrap();
    assert!(log.iter().any(|line| line.contains("relation \"nowhere\" does not exist")), "{log:?}");
}

#[test]
fn strangers_who_stall_in_their_proof_keep_nobody_out() {
    const LOGINS_MAX: usize = 2;
    let mut config = config(AuthMethod::ScramSha256, &[("app", "pencil")], database("postgres"));
    config.logins_max = LOGINS_MAX;
    let pooled = Pooled::start(config);
    let mut startup = Vec::new();
    append_startup(&mut startup, 0, [(&b"user"[..], &b"app"[..]), (b"database", b"postgres")]);
    let mut begun = startup.clone();
    write::sasl_initial_response(&mut begun, "SCRAM-SHA-256", Some(b"n,,n=,r=stranger"));
    let strangers: Vec<_> = (0..10 * LOGINS_MAX)
        .map(|index| {
            let mut stranger = TcpStream::connect(("127.0.0.1", pooled.port())).unwrap();
            stranger.write_all(if index % 2 == 0 { &startup } else { &begun }).unwrap();
            stranger
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(enter(&pooled, "app", "pencil", "postgres").as_deref(), Ok("app"));
    }
    drop(strangers);
}

#[test]
fn a_changed_password_is_taken_without_a_restart() {
    let pooled = Pooled::start(config(AuthMethod::ScramSha256, &[], asking(database("postgres"))));
    assert_eq!(enter(&pooled, "changing", "pencil", "postgres").as_deref(), Ok("changing"));
    guarded().psql("ALTER ROLE changing PASSWORD 'chalk'").unwrap();
    wait_for("the new password", Duration::from_secs(10), || {
        enter(&pooled, "changing", "chalk", "postgres").as_deref() == Ok("changing")
    });
    check_refused(&enter(&pooled, "changing", "pencil", "postgres"), "password authentication failed");
}

#[test]
fn the_log_names_who_was_refused_and_says_when_the_database_is_unknown() {
    let pooled = Pooled::start(config(AuthMethod::ScramSha256, &[], asking(database("postgres"))));
    for (user, database) in [("app", "postgres"), ("nobody", "no\nwhere")] {
        check_refused(&enter(&pooled, user, "wrong", database), "password authentication failed");
    }
    let log = pooled.log.lock().unwrap();
    let has = |text: &str| log.iter().any(|line| line.contains(text));
    assert!(has(" (app@postgres, 127.0.0.1:"), "{log:?}");
    assert!(has(" (nobody@no\\nwhere, no such database, 127.0.0.1:"), "{log:?}");
}

#[test]
fn a_forced_user_logs_in_for_everyone() {
    let forced = Database { user: Some("postgres".into()), ..database("postgres") };
    let pooled = Pooled::start(config(AuthMethod::ScramSha256, &[("ann", "her own")], forced));
    assert_eq!(enter(&pooled, "ann", "her own", "postgres").as_deref(), Ok("postgres"));
    check_refused(&enter(&pooled, "ann", "pencil", "postgres"), "password authentication failed");
}

#[test]
fn databases_can_not_be_probed_without_a_password() {
    for auth in [AuthMethod::ScramSha256, AuthMethod::Md5, AuthMethod::Password] {
        let pooled = Pooled::start(config(auth, &[("app", "pencil")], database("postgres")));
        let unknown = "database \"nowhere\" does not exist";
        check_refused(&enter(&pooled, "app", "pencil", "nowhere"), unknown);
        check_refused(&enter(&pooled, "app", "wrong", "nowhere"), "password authentication failed");
        check_refused(&enter(&pooled, "nobody", "pencil", "nowhere"), "password authentication failed");
        assert_eq!(enter(&pooled, "app", "pencil", "postgres").as_deref(), Ok("app"));
    }
}

#[test]
fn the_servers_refusal_reaches_the_client() {
    let pooled = Pooled::start(config(AuthMethod::ScramSha256, &[("app", "stale")], database("postgres")));
    let refused = enter(&pooled, "app", "stale", "postgres");
    check_refused(&refused, "password authentication failed for user \"app\"");
    let pooled = Pooled::start(config(AuthMethod::ScramSha256, &[("app", "pencil")], database("*")));
    check_refused(&enter(&pooled, "app", "pencil", "nowhere"), "database \"nowhere\" does not exist");
}

#[test]
fn clients_beyond_the_limit_are_told_so_and_come_in_once_others_left() {
    let pooled = Pooled::start(Config { clients_max: 1, ..crate::pooled::config() });
    let logged_in = || pooled.pooler.shared().clients.load(Ordering::Relaxed);
    let mut first = pooled.psql_command().stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the first to be in", Duration::from_secs(20), || logged_in() == 1);
    check_refused(&pooled.psql("SELECT 1"), "sorry, too many clients already");
    // Without input psql ends.
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
    wait_for("the first to be gone", Duration::from_secs(20), || logged_in() == 0);
    assert_eq!(pooled.psql("SELECT 1").as_deref(), Ok("1"));
    let log = pooled.log.lock().unwrap();
    let refused = log.iter().find(|line| line.contains("clients_max"));
    // Who it was is in the log, too, though it never got in.
    assert!(refused.is_some_and(|line| line.contains("postgres@postgres, 127.0.0.1")), "{log:?}");
}

#[test]
fn rules_decide_before_anything_is_asked() {
    let rules =
        "host postgres guest 127.0.0.0/8 trust\nhost all intruder all reject\nhost postgres app all md5\n";
    let mut config = config(AuthMethod::Trust, &[("guest", ""), ("app", "pencil")], database("postgres"));
    config.databases[0].user = Some("postgres".into());
    config.hba = Some(rules.into());
    let pooled = Pooled::start(config);
    assert_eq!(enter(&pooled, "guest", "whatever", "postgres").as_deref(), Ok("postgres"));
    assert_eq!(enter(&pooled, "app", "pencil", "postgres").as_deref(), Ok("postgres"));
    check_refused(&enter(&pooled, "app", "wrong", "postgres"), "password authentication failed");
    check_refused(&enter(&pooled, "intruder", "x", "postgres"), "rejects connection");
    check_refused(&enter(&pooled, "stranger", "x", "postgres"), "no pg_hba.conf entry");
}

/// Whoever may log in anywhere may make up names of databases; what they leave goes, pools and all.
#[test]
fn databases_nobody_uses_are_forgotten_whole() {
    let pooled = Pooled::start(config(AuthMethod::Trust, &[("made_up", "")], database("*")));
    let shared = pooled.pooler.shared();
    let user: Arc<str> = "made_up".into();
    let pool = {
        let first = shared.database("made_up_first").unwrap();
        Arc::downgrade(&shared.pool(&first, &user).unwrap())
    };
    for name in 0..WILDCARD_DATABASES_MAX + 1 {
        let database = shared.database(&format!("made_up_{name}")).expect("there is room again");
        shared.pool(&database, &user).unwrap();
    }
    assert!(shared.databases().len() <= WILDCARD_DATABASES_MAX + 1);
    assert_eq!(pool.strong_count(), 0);
}
