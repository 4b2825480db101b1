//! From the checked tree to the pooler's settings, and what only the whole file can tell about them.
//!
//! **Mechanism.** [`PoolerSettings`] is the pooler's own configuration with everything that files hold left out, beside
//! the paths of these files; `crate::pooler_files` reads them and puts the two together. A database that says nothing
//! of a pool's setting has that of `[pooler.pool]`.

use std::sync::Arc;
use std::time::Duration;

use tenfold_pooler::config as pooler;
use tenfold_pooler::config::{
    AuthMethod, Consistency, Listen, Mode, PoolSettings, Sequences, TlsMode, UserSettings,
};
use tenfold_pooler::tls::{self, TlsFiles, TlsVersion};

use super::pgurl::{self, PgUrl};
use super::tree::{Node, Table};

/// What the pooler is to do, as far as the file itself says it.
#[derive(Clone, Debug)]
pub struct PoolerSettings {
    /// Where clients connect.
    pub listen: Vec<Listen>,
    /// Everything that needs no other file. Its databases are those of [`PoolerSettings::databases`], in order.
    pub config: pooler::Config,
    /// TLS towards clients: what is asked of them, and what it is made of.
    pub tls: Option<(TlsMode, TlsFiles)>,
    /// A file of rules.
    pub hba: Option<String>,
    /// Users of all databases.
    pub users: UserSources,
    /// Users with settings of their own, and their secrets.
    pub listed: Vec<(Arc<str>, Secret)>,
    /// Files and secrets of each database.
    pub databases: Vec<DatabaseFiles>,
}

/// What a database's part of the file says of files.
#[derive(Clone, Debug)]
pub struct DatabaseFiles {
    /// Of the server's user.
    pub password: Secret,
    /// Of TLS towards the server.
    pub tls: TlsFiles,
    /// Who may log in.
    pub users: UserSources,
}

/// Where users come from.
#[derive(Clone, Debug, Default)]
pub struct UserSources {
    /// A list.
    pub file: Option<String>,
    /// A look-up, and the secret of who asks.
    pub query: Option<(pooler::AuthQuery, Secret)>,
}

/// A secret, or where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// None.
    None,
    /// This.
    Text(pooler::Password),
    /// In a file.
    File(String),
}

impl PoolerSettings {
    /// Reads a tree in which the walk and the rules found no mistake; `None` without a database.
    #[must_use]
    pub fn from_tree(root: &Table) -> Option<Self> {
        let table = root.table("pooler")?;
        let all = pool(table.table("pool")?, &PoolSettings::default());
        let named = root.table("database");
        let found = named.into_iter().flat_map(|named| &named.entries);
        let read = found.filter_map(|(name, node)| Some(database(name, node.as_table()?, &all)));
        let (configs, databases): (Vec<_>, Vec<_>) = read.unzip();
        let user_tables = || entries(table, "user");
        let settings = Self {
            listen: table.list("listen").iter().map(|node| listen(text(node))).collect(),
            config: pooler::Config {
                databases: configs,
                user_settings: user_tables().map(|(name, table)| (name.into(), user(table))).collect(),
                ..of_all(table)
            },
            tls: table.table("tls").map(|tls| (tls_mode(tls.text("mode")), tls_files(tls))),
            hba: owned(table, "hba"),
            users: table.table("users").map(|users| user_sources(users, None)).unwrap_or_default(),
            listed: user_tables().map(|(name, table)| (name.into(), secret(table))).collect(),
            databases,
        };
        (!settings.databases.is_empty()).then_some(settings)
    }
}

fn of_all(table: &Table) -> pooler::Config {
    let texts = |key: &str| table.list(key).iter().map(|node| text(node).to_owned()).collect();
    pooler::Config {
        auth: match table.text("auth") {
            "scram-sha-256" => AuthMethod::ScramSha256,
            "md5" => AuthMethod::Md5,
            "password" => AuthMethod::Password,
            "trust" => AuthMethod::Trust,
            "cert" => AuthMethod::Cert,
            "peer" => AuthMethod::Peer,
            other => unknown(other),
        },
        admin_users: texts("admin_users"),
        stats_users: texts("stats_users"),
        clients_max: count(table, "clients_max"),
        logins_max: count(table, "logins_max"),
        login_timeout: table.duration("login_timeout"),
        cancel_wait: table.duration("cancel_wait"),
        query_wait_notify: table.duration("query_wait_notify"),
        ignore_startup_parameters: texts("ignore_startup_parameters"),
        application_name_add_host: table.boolean("application_name_add_host"),
        log_connections: table.boolean("log_connections"),
        statements_max: count(table, "statements_max"),
        dns_refresh: table.duration("dns_refresh"),
        tcp: tcp(table.table("tcp").expect("a section with defaults is always there")),
        ..pooler::Config::default()
    }
}

fn tcp(table: &Table) -> pooler::Tcp {
    pooler::Tcp {
        keepalive: table.boolean("keepalive"),
        keepalive_idle: table.duration("keepalive_idle"),
        keepalive_interval: table.duration("keepalive_interval"),
        keepalive_count: u32::try_from(table.integer("keepalive_count")).unwrap_or(u32::MAX),
        user_timeout: table.duration("user_timeout"),
    }
}

fn tls_files(table: &Table) -> TlsFiles {
    let suites = |key: &str, suite: fn(&str) -> Option<rustls::CipherSuite>| {
        table.list(key).iter().map(|node| suite(text(node)).unwrap_or_else(|| unknown(text(node)))).collect()
    };
    TlsFiles {
        certificate: owned(table, "certificate"),
        key: owned(table, "key"),
        ca: owned(table, "ca"),
        ciphers: suites("ciphers", tls::tls12_suite),
        tls13_ciphers: suites("tls13_ciphers", tls::tls13_suite),
        version_min: match table.text("version_min") {
            "1.2" => TlsVersion::Tls12,
            "1.3" => TlsVersion::Tls13,
            other => unknown(other),
        },
    }
}

fn database(name: &str, table: &Table, all: &PoolSettings) -> (pooler::Database, DatabaseFiles) {
    let urls: Vec<_> = urls(table).into_iter().map(|(_, url)| url).collect();
    let first = urls.first().cloned().expect("the rules want at least one server");
    let mode = table.optional_text("sslmode").map(str::to_owned).or(first.sslmode);
    let users = table.table("users").map(|users| user_sources(users, first.user.as_deref()));
    let config = pooler::Database {
        dbname: first.dbname,
        user: first.user,
        server_tls: pooler::ServerTls {
            mode: tls_mode(mode.as_deref().unwrap_or("prefer")),
            ..pooler::ServerTls::none()
        },
        pool: pool(table.table("pool").expect("a section with defaults is always there"), all),
        user_settings: entries(table, "user").map(|(name, table)| (name.into(), user(table))).collect(),
        connect_query: owned(table, "connect_query"),
        reads: reads(table),
        ..pooler::Database::new(name, urls.into_iter().flat_map(|url| url.hosts).collect())
    };
    let files = DatabaseFiles {
        password: secret(table),
        tls: table.table("tls").map(tls_files).unwrap_or_default(),
        users: users.unwrap_or_default(),
    };
    (config, files)
}

/// The servers of a database that can be read, with their places.
pub(super) fn urls(database: &Table) -> Vec<(&Node, PgUrl)> {
    let read = |node| Some((node, pgurl::parse(Node::as_text(node)?).ok()?));
    database.list("primary").iter().filter_map(read).collect()
}

/// The replicas that can be read, each with its place in the file.
pub(super) fn replicas(database: &Table) -> Vec<(&Node, PgUrl, u32)> {
    let read = |node| {
        let table = Node::as_table(node);
        let place = table.map_or(Some(node), |table| table.get("host"))?;
        let weight = table.and_then(|table| table.optional_integer("weight")).unwrap_or(1);
        let url = pgurl::replica(place.as_text()?).ok()?;
        Some((place, url, u32::try_from(weight).unwrap_or(u32::MAX)))
    };
    database.list("replicas").iter().filter_map(read).collect()
}

/// These as the pooler takes them.
pub(super) fn replica_hosts(database: &Table) -> Vec<pooler::ReplicaHost> {
    let one = |(_, url, weight): (_, PgUrl, u32)| {
        url.hosts.into_iter().map(move |host| pooler::ReplicaHost { host, weight })
    };
    replicas(database).into_iter().flat_map(one).collect()
}

fn reads(database: &Table) -> pooler::Reads {
    let replicas = replica_hosts(database);
    let Some(table) = database.table("reads") else {
        return pooler::Reads { replicas, ..pooler::Reads::default() };
    };
    pooler::Reads {
        replicas,
        consistency: match table.text("consistency") {
            "own_writes" => Consistency::OwnWrites,
            "eventual" => Consistency::Eventual,
            "primary" => Consistency::Primary,
            other => unknown(other),
        },
        catch_up: table.duration("catch_up"),
        lag_max: table.duration("lag_max"),
        size: optional_count(table, "size"),
        primary_tables: table.list("primary_tables").iter().map(|node| text(node).to_owned()).collect(),
    }
}

fn user_sources(table: &Table, own: Option<&str>) -> UserSources {
    let asks = owned(table, "user").or(own.map(str::to_owned));
    let (password, database) = (secret(table), table.optional_text("database").map(Arc::from));
    let query = owned(table, "query").map(|query| {
        let user = asks.unwrap_or_default();
        (pooler::AuthQuery { query, user, password: None, database }, password)
    });
    UserSources { file: owned(table, "file"), query }
}

fn secret(table: &Table) -> Secret {
    match (table.optional_text("password"), table.optional_text("password_file")) {
        (Some(text), _) => Secret::Text(pooler::Password::new(text)),
        (None, Some(file)) => Secret::File(file.to_owned()),
        (None, None) => Secret::None,
    }
}

fn pool(table: &Table, all: &PoolSettings) -> PoolSettings {
    let many = |key: &str, all: usize| optional_count(table, key).unwrap_or(all);
    let long = |key: &str, all: Duration| table.optional_duration(key).unwrap_or(all);
    let sequences = |word| match word {
        "adaptive" => Sequences::Adaptive,
        "pin" => Sequences::Pin,
        "free" => Sequences::Free,
        other => unknown(other),
    };
    PoolSettings {
        mode: table.optional_text("mode").map_or(all.mode, mode),
        size: many("size", all.size),
        reserve: many("reserve", all.reserve),
        reserve_wait: long("reserve_wait", all.reserve_wait),
        min: many("min", all.min),
        database_max: many("database_max", all.database_max),
        user_max: all.user_max,
        clients_max: many("clients_max", all.clients_max),
        query_wait: long("query_wait", all.query_wait),
        idle: long("idle", all.idle),
        lifetime: long("lifetime", all.lifetime),
        fast_close: table.optional_boolean("fast_close").unwrap_or(all.fast_close),
        query_timeout: long("query_timeout", all.query_timeout),
        idle_in_transaction: long("idle_in_transaction", all.idle_in_transaction),
        transaction_timeout: long("transaction_timeout", all.transaction_timeout),
        client_idle: long("client_idle", all.client_idle),
        connect_timeout: long("connect_timeout", all.connect_timeout),
        connect_retry: long("connect_retry", all.connect_retry),
        check_after: long("check_after", all.check_after),
        hot_row_percent: table.optional_ratio_ppm("hot_rows").map_or(all.hot_row_percent, |ppm| ppm / 10_000),
        sequences: table.optional_text("sequences").map_or(all.sequences, sequences),
    }
}

fn user(table: &Table) -> UserSettings {
    UserSettings {
        mode: table.optional_text("mode").map(mode),
        size: optional_count(table, "size"),
        reserve: optional_count(table, "reserve"),
        clients_max: optional_count(table, "clients_max"),
        servers_max: optional_count(table, "servers_max"),
        priority: match table.text("priority") {
            "critical" => 1,
            "normal" => 0,
            "background" => -1,
            other => unknown(other),
        },
        query_timeout: table.optional_duration("query_timeout"),
        idle_in_transaction: table.optional_duration("idle_in_transaction"),
        transaction_timeout: table.optional_duration("transaction_timeout"),
        client_idle: table.optional_duration("client_idle"),
    }
}

fn mode(word: &str) -> Mode {
    match word {
        "transaction" => Mode::Transaction,
        "session" => Mode::Session,
        "statement" => Mode::Statement,
        other => unknown(other),
    }
}

fn tls_mode(word: &str) -> TlsMode {
    match word {
        "disable" => TlsMode::Disable,
        "allow" => TlsMode::Allow,
        "prefer" => TlsMode::Prefer,
        "require" => TlsMode::Require,
        "verify-ca" => TlsMode::VerifyCa,
        "verify-full" => TlsMode::VerifyFull,
        other => unknown(other),
    }
}

/// The tables of a table of tables.
pub(super) fn entries<'t>(table: &'t Table, key: &str) -> impl Iterator<Item = (&'t str, &'t Table)> {
    let named = table.table(key).into_iter().flat_map(|named| &named.entries);
    named.filter_map(|(name, node)| Some((name.as_str(), node.as_table()?)))
}

fn listen(text: &str) -> Listen {
    pgurl::listen(text).expect("the walker checked where it listens")
}

fn text(node: &Node) -> &str {
    node.as_text().expect("the walker checked the text")
}

fn owned(table: &Table, key: &str) -> Option<String> {
    table.optional_text(key).map(str::to_owned)
}

fn count(table: &Table, key: &str) -> usize {
    usize::try_from(table.integer(key)).unwrap_or(usize::MAX)
}

fn optional_count(table: &Table, key: &str) -> Option<usize> {
    table.optional_integer(key).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// The table of keys knows a word that this module doesn't; a test builds from every word there is.
fn unknown(word: &str) -> ! {
    panic!("a word that nothing is built from: {word:?}")
}
