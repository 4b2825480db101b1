//! `[pooler]` and `[database.NAME]`: what is built from them, and what is said about mistakes.

use std::time::Duration;

use rustls::CipherSuite;
use tenfold_pooler::config::{
    self as pooler, AuthMethod, Consistency, Host, Mode, PoolSettings, Reads, ReplicaHost, Sequences, TlsMode,
};
use tenfold_pooler::tls::TlsVersion;

use super::super::pooler::{PoolerSettings, Secret};
use super::{EVERYTHING, good, read, refused};

const SHOP: &str = "[database.shop]\nprimary = \"postgres://app@127.0.0.1:5432/shop\"\n";

fn built(source: &str) -> PoolerSettings {
    good(source).settings.pooler.expect("there is a database")
}

fn tcp(host: &str) -> Host {
    Host::Tcp { host: host.into(), port: 5432 }
}

#[test]
fn a_file_with_everything_is_built_as_written() {
    let PoolerSettings { listen, config, tls, hba, users, listed, databases } = built(EVERYTHING);
    let listen: Vec<_> = listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:6432", "unix:/run/tenfold:5432"]);
    assert_eq!((config.auth, config.clients_max, config.statements_max), (AuthMethod::Md5, 5_000, 50));
    assert_eq!((config.cancel_wait, config.query_wait_notify), (Duration::from_secs(4), Duration::ZERO));
    assert_eq!((config.tcp.keepalive, config.tcp.keepalive_count), (false, 3));
    let (mode, tls) = tls.expect("written");
    assert_eq!((mode, tls.ca.as_deref()), (TlsMode::VerifyFull, Some("clients.crt")));
    assert_eq!((tls.ciphers.len(), tls.tls13_ciphers.len(), tls.version_min), (2, 1, TlsVersion::Tls12));
    let suite = CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
    assert_eq!(tls.ciphers.first(), Some(&suite), "in their order");
    assert_eq!(hba.as_deref(), Some("pg_hba.conf"));
    let (query, secret) = users.query.expect("written");
    assert_eq!(
        (users.file.as_deref(), &*query.user, query.database.as_deref()),
        (Some("userlist.txt"), "asker", Some("shop"))
    );
    assert_eq!(secret, Secret::Text(pooler::Password::new("battery-staple")));
    assert_eq!(listed, [("reporting".into(), Secret::File("/run/secrets/reporting".into()))]);
    let (name, reporting) = &config.user_settings[0];
    assert_eq!((&**name, reporting.mode, reporting.priority), ("reporting", Some(Mode::Session), -1));

    let [any, shop] = &config.databases[..] else { panic!("two were written") };
    assert_eq!((&*any.name, any.pool.mode, any.pool.size, any.pool.min), ("*", Mode::Statement, 9, 0));
    assert_eq!((any.user.as_deref(), any.dbname.as_deref()), (None, None));
    assert_eq!(any.hosts, [Host::Unix { folder: "/run/postgresql".into(), port: 5432 }]);
    assert_eq!((&*shop.name, &shop.hosts[..]), ("shop", &[tcp("10.0.0.1"), tcp("10.0.0.2")][..]));
    assert_eq!((shop.user.as_deref(), shop.dbname.as_deref()), (Some("app"), Some("shop")));
    assert_eq!((shop.pool.mode, shop.pool.size, shop.pool.reserve), (Mode::Transaction, 20, 1));
    assert_eq!((shop.pool.hot_row_percent, shop.pool.sequences), (25, Sequences::Pin));
    assert_eq!((shop.user_settings[0].1.size, shop.user_settings[0].1.priority), (Some(12), 1));
    let replica =
        |host: &str, port, weight| ReplicaHost { host: Host::Tcp { host: host.into(), port }, weight };
    assert_eq!(
        shop.reads,
        Reads {
            replicas: vec![
                replica("10.0.0.3", 5433, 1),
                replica("10.0.0.4", 5432, 1),
                replica("replica", 5432, 3)
            ],
            consistency: Consistency::Eventual,
            catch_up: Duration::ZERO,
            lag_max: Duration::from_secs(2),
            size: Some(7),
            primary_tables: vec!["accounts".into()],
        }
    );
    let files = &databases[1];
    let tls = &files.tls;
    assert_eq!((tls.ca.as_deref(), tls.identity()), (Some("system"), Ok(Some(("client.crt", "client.key")))));
    assert_eq!((tls.ciphers.len(), tls.tls13_ciphers.len(), tls.version_min), (1, 1, TlsVersion::Tls13));
    assert!(any.pool.fast_close && shop.pool.fast_close);
    // Who asks is, unless said otherwise, the server's user.
    assert_eq!(files.users.query.as_ref().map(|(query, _)| &*query.user), Some("app"));
}

#[test]
fn a_database_is_a_whole_file_and_has_the_poolers_own_defaults() {
    let loaded = good(SHOP);
    assert!(loaded.settings.edge.listen.is_empty() && loaded.warnings.is_empty());
    let settings = built(SHOP);
    let own = pooler::Config::default();
    assert_eq!(settings.listen, [pooler::Listen::Tcp("127.0.0.1:6432".parse().expect("an address"))]);
    let [shop] = &settings.config.databases[..] else { panic!("one was written") };
    assert_eq!(format!("{:?}", shop.pool), format!("{:?}", PoolSettings::default()));
    assert_eq!(shop.server_tls.mode, TlsMode::Prefer);
    assert_eq!(shop.reads, Reads::default());
    assert_eq!(built(&format!("{SHOP}reads = {{}}")).config.databases[0].reads, Reads::default());
    let without_databases = pooler::Config { databases: Vec::new(), ..settings.config };
    assert_eq!(format!("{without_databases:?}"), format!("{own:?}"));
}

#[test]
fn neither_tier_needs_the_other() {
    assert!(good(super::BASE).settings.pooler.is_none());
    let both = good(&format!("{}{SHOP}", super::BASE)).settings;
    assert!(both.pooler.is_some() && !both.edge.listen.is_empty());
}

#[test]
fn the_url_says_how_to_use_tls_unless_a_key_does() {
    let mode = |text: &str| built(text).config.databases[0].server_tls.mode;
    let url = "[database.d]\nprimary = \"postgres://u@h/d?sslmode=require\"\n";
    assert_eq!(mode(url), TlsMode::Require);
    assert_eq!(mode(&format!("{url}sslmode = \"disable\"")), TlsMode::Disable);
}

#[test]
fn a_password_in_a_url_is_refused_and_not_shown() {
    refused(
        "[database.shop]\nprimary = \"postgres://app:hunter2@127.0.0.1/shop\"\n",
        r#"
error: bad primary
 --> tenfold.toml:2:11
  |
2 | primary =****************************************
  |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ a password does not belong in the URL; use the key `password` or `password_file`
"#,
    );
}

#[test]
fn a_password_in_a_replicas_url_is_not_shown_either() {
    let source = format!("{SHOP}replicas = [\"postgres://app:hunter2@127.0.0.1/shop\"]\n");
    let report = read(&source).expect_err("a password").render(false);
    assert!(report.contains("a password does not belong in the URL"), "{report}");
    assert!(!report.contains("hunter2"), "{report}");
}

#[test]
fn mistakes_are_named_with_what_to_do() {
    let check = |rest: &str, message: &str, label: &str| {
        let report = read(&format!("{SHOP}{rest}")).expect_err(message);
        let found = report.diagnostics.iter().any(|d| d.message == message && d.label.contains(label));
        assert!(found, "{}", report.render(false));
    };
    check(
        "sslmode = \"verify-full\"",
        "sslmode verify-full has nothing to verify certificates against",
        "ca = \"system\"",
    );
    check("tls = { certificate = \"c\" }", "certificate without key", "add key");
    check("password = \"x\"\npassword_file = \"y\"", "password and password_file are both there", "keep one");
    check("users = {}", "users without a file and without a query", "add one");
    check("users = { file = \"f\", user = \"u\" }", "user without a query", "the query's");
    check("users = { query = \"SELECT 1\" }", "the query asks for no user", "$1");
    check(
        "users = { query = \"SELECT $1\", database = \"shoop\" }",
        "there is no database \"shoop\"",
        "did you mean \"shop\"?",
    );
    check("pool.hot_rows = \"12.5%\"", "hot_rows is not a whole percentage", "1% to 100%");
    check("pool = { size = 2, min = 3 }", "pool.min is above pool.size", "beyond its size");
    check("pool.mode = \"transactions\"", "unknown mode \"transactions\"", "did you mean \"transaction\"?");
    check("replicas = [\"h:0\"]", "bad replicas", "port");
    check("replicas = [\"postgres://a,b\"]", "bad replicas", "each replica by itself");
    check(
        "replicas = \"postgres://other@h\"",
        "a replica of database \"shop\" differs from its primary in its user",
        "host and port",
    );
    check(
        "replicas = [\"127.0.0.1:5432\"]",
        "a replica of database \"shop\" is one of its primaries, too",
        "anyway",
    );
    check(
        "replicas = [\"h:1\", { host = \"h:1\", weight = 2 }]",
        "bad replicas of database \"shop\"",
        "h:1 is there twice",
    );
    check("replicas = [{ weight = 2 }]", "missing key \"host\" in [database.shop.replicas]", "10.0.0.3:5432");
    check("reads.consistency = \"own_write\"", "unknown consistency \"own_write\"", "own_writes");
    check("[pooler]\nusers = { query = \"SELECT $1\" }", "nobody to ask the query", "add user");
    check("[pooler]\nauth = \"cert\"", "auth = \"cert\" without verified certificates", "verify-full");
    check(
        "[pooler]\ntls = { certificate = \"c\", key = \"k\", mode = \"verify-ca\" }",
        "nothing to verify certificates against",
        "add ca",
    );
    check(
        "[pooler]\nlisten = \"127.0.0.1:9900\"",
        "127.0.0.1:9900 is used twice",
        "pooler.listen and admin.listen",
    );
    check("[pooler]\nlisten = \"unix:tenfold\"", "bad listen \"unix:tenfold\"", "an absolute folder");
    check(
        "[database.pgbouncer]\nprimary = \"postgres://u@h\"",
        "\"pgbouncer\" is the console's name",
        "another name",
    );
    check("[database.b]\nprimary = []", "database \"b\" has no server", "at least one");
    check("[database.b]\nprimary = \"postgres://h/b\"", "nobody can log in to database \"b\"", "users = {");
    check(
        "[database.b]\nprimary = [\"postgres://u@h/b\", \"postgres://u@h2/c\"]",
        "the servers of database \"b\" differ in their database",
        "one database on several hosts",
    );
}

#[test]
fn what_may_be_meant_so_is_a_warning() {
    let check = |source: &str, message: &str| {
        let warnings = good(source).warnings;
        assert!(warnings.iter().any(|d| d.message == message), "{source}: {warnings:?}");
    };
    check(
        &format!("{SHOP}[pooler]\nauth = \"trust\"\nlisten = \"0.0.0.0:6432\""),
        "auth = \"trust\" off loopback: whoever reaches the port may log in",
    );
    check(&format!("{SHOP}reads.lag_max = \"1s\""), "database \"shop\" has reads, but no replicas");
    check(
        &format!("{}[pooler]\nauth = \"md5\"", super::BASE),
        "[pooler] without a [database.NAME] does nothing",
    );
    check(
        "[database.\"*\"]\nprimary = \"postgres://u@h/d\"",
        "every name not given leads to one and the same database",
    );
}
