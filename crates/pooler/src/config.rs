//! What the pooler is told: plain structs, filled by the binary from `tenfold.toml`, by tests by hand.
//!
//! **Mechanism.** [`Config::default`] and [`Database::new`] are a pooler that works; what a user has of its own wins over
//! its pool ([`Config::settings_of`]).
//!
//! **Failure.** [`Config::validate`] names each mistake by its configuration path; nothing here reads files.

mod reads;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

pub use self::reads::{Consistency, Reads, ReplicaHost};
use crate::tls::TlsFiles;

/// The whole tier.
#[derive(Clone, Debug)]
pub struct Config {
    /// Databases by the name clients ask for.
    pub databases: Vec<Database>,
    /// Users that may log in whatever the database, by name.
    pub users: Users,
    /// What differs for single users in every database; a database's own ([`Database::user_settings`]) win.
    pub user_settings: Vec<(Arc<str>, UserSettings)>,
    /// How clients prove who they are, where no HBA rule says otherwise.
    pub auth: AuthMethod,
    /// Rules in the form of `pg_hba.conf`, first match decides; `None`: [`Config::auth`] for everyone.
    pub hba: Option<Arc<str>>,
    /// TLS towards clients.
    pub client_tls: ClientTls,
    /// Users who may command at the console.
    pub admin_users: Vec<String>,
    /// Users who may only look at the console.
    pub stats_users: Vec<String>,
    /// Clients at most, over all databases.
    pub clients_max: usize,
    /// Logins worked on at once, at most (who the user is, a password's proof); others wait their turn in the order in
    /// which they came. One that waits for its client's next message is not worked on.
    pub logins_max: usize,
    /// From accept to the end of authentication.
    pub login_timeout: Duration,
    /// Startup parameters that are dropped unread.
    pub ignore_startup_parameters: Vec<String>,
    /// Prepared statements kept per server connection before the least used is closed there.
    pub statements_max: usize,
    /// How long a cancel request may wait for a connection to its server; zero: for ever.
    pub cancel_wait: Duration,
    /// A client that waits this long for a server connection is told so by a NOTICE; zero: never.
    pub query_wait_notify: Duration,
    /// Appends the client's address to its `application_name` at the server.
    pub application_name_add_host: bool,
    /// Logs each login and each end of a connection, not only failures.
    pub log_connections: bool,
    /// TCP towards clients and servers.
    pub tcp: Tcp,
    /// How long the result of a name look-up is used.
    pub dns_refresh: Duration,
    /// The reserved part of a SCRAM salt for secrets kept as plain passwords: makes salts steady over restarts.
    pub salt_seed: [u8; 16],
}

/// One database as clients see it.
#[derive(Clone, Debug)]
pub struct Database {
    /// The name clients ask for; `*` for all others.
    pub name: Arc<str>,
    /// Hosts, one of which is the primary.
    pub hosts: Vec<Host>,
    /// Its name at the server; `None`: the client's.
    pub dbname: Option<String>,
    /// Log in to the server as this user, whoever the client is; `None`: as the client.
    pub user: Option<String>,
    /// Password of [`Database::user`], or of any user where there is none.
    pub password: Option<Password>,
    /// Users that may log in to this database, besides [`Config::users`]; of two with one name, this one.
    pub users: Users,
    /// TLS towards the server.
    pub server_tls: ServerTls,
    /// How its connections are pooled.
    pub pool: PoolSettings,
    /// Settings of single users: they win over the pool's.
    pub user_settings: Vec<(Arc<str>, UserSettings)>,
    /// Look-up of users the list does not have.
    pub auth_query: Option<AuthQuery>,
    /// Run once on each new server connection.
    pub connect_query: Option<String>,
    /// Which reads go to replicas.
    pub reads: Reads,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name or address, and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// The folder of a Unix socket, and the port in its name.
    Unix {
        /// Folder of `.s.PGSQL.<port>`.
        folder: PathBuf,
        /// Port.
        port: u16,
    },
}

/// A password that no log shows.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Password(Arc<str>);

/// When a server connection goes back to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// When the client leaves.
    Session,
    /// At the end of each transaction.
    Transaction,
    /// After each statement; transactions of several statements are refused.
    Statement,
}

/// Limits and times of one pool, that is one (database, user).
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// When a connection goes back.
    pub mode: Mode,
    /// Server connections at most.
    pub size: usize,
    /// More, once a client has waited [`PoolSettings::reserve_wait`].
    pub reserve: usize,
    /// See [`PoolSettings::reserve`].
    pub reserve_wait: Duration,
    /// Kept open even when unused.
    pub min: usize,
    /// Server connections of the database at most, over all its users; 0: no limit.
    pub database_max: usize,
    /// Server connections of the user at most, over all databases; 0: no limit.
    pub user_max: usize,
    /// Clients of the database at most; 0: no limit.
    pub clients_max: usize,
    /// How long a client may wait for a server connection; zero: for ever.
    pub query_wait: Duration,
    /// Server connections unused for this long are closed; zero: never.
    pub idle: Duration,
    /// Server connections this old are closed once free; zero: never.
    pub lifetime: Duration,
    /// Sessions whose server connection is to be replaced end with their transaction, rather than when they like.
    pub fast_close: bool,
    /// A statement may run this long; zero: for ever.
    pub query_timeout: Duration,
    /// A transaction may wait for its client this long; zero: for ever.
    pub idle_in_transaction: Duration,
    /// A transaction may last this long; zero: for ever.
    pub transaction_timeout: Duration,
    /// A client may say nothing for this long; zero: for ever.
    pub client_idle: Duration,
    /// A server must have taken a connection and the login after this long, and have answered what the pooler itself
    /// asks on one (checks, replays, probes, ROLLBACK, DISCARD).
    pub connect_timeout: Duration,
    /// After a failed login, this long until the next try.
    pub connect_retry: Duration,
    /// A server connection idle for longer is checked before use; zero: always.
    pub check_after: Duration,
    /// Which part of the pool the statements on one row may hold, in percent; 100: all of it.
    pub hot_row_percent: u32,
    /// What becomes of a client that drew sequence values explicitly.
    pub sequences: Sequences,
}

/// Whether `nextval()` keeps a client on its server connection, so that `currval()` works later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequences {
    /// Until others need the connection, unless the database was seen to use `currval()` or `lastval()`.
    Adaptive,
    /// Always.
    Pin,
    /// Never: `currval()` works within a transaction only.
    Free,
}

/// What differs for one user.
#[derive(Clone, Debug, Default)]
pub struct UserSettings {
    /// See [`PoolSettings::mode`].
    pub mode: Option<Mode>,
    /// See [`PoolSettings::size`].
    pub size: Option<usize>,
    /// See [`PoolSettings::reserve`].
    pub reserve: Option<usize>,
    /// Clients of this user at most: in the database, or, in [`Config::user_settings`], over all of them.
    pub clients_max: Option<usize>,
    /// Server connections of this user at most, counted as [`UserSettings::clients_max`].
    pub servers_max: Option<usize>,
    /// Served before those with a lower one; the default is 0.
    pub priority: i8,
    /// See [`PoolSettings::query_timeout`].
    pub query_timeout: Option<Duration>,
    /// See [`PoolSettings::idle_in_transaction`].
    pub idle_in_transaction: Option<Duration>,
    /// See [`PoolSettings::transaction_timeout`].
    pub transaction_timeout: Option<Duration>,
    /// See [`PoolSettings::client_idle`].
    pub client_idle: Option<Duration>,
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// Not at all, if the user is listed.
    Trust,
    /// Password in clear.
    Password,
    /// MD5; SCRAM for users whose secret is a SCRAM verifier.
    Md5,
    /// SCRAM-SHA-256, and -PLUS over TLS.
    ScramSha256,
    /// The common name of its certificate.
    Cert,
    /// The operating system's user at the other end of the Unix socket.
    Peer,
}

/// Who is known.
#[derive(Clone, Debug, Default)]
pub struct Users {
    /// Name and secret: plain, `md5…` or `SCRAM-SHA-256$…`.
    pub list: Vec<(Arc<str>, Password)>,
}

/// Asking a database for a user's secret.
#[derive(Clone, Debug)]
pub struct AuthQuery {
    /// With `$1` for the user's name; yields name and secret.
    pub query: String,
    /// Who asks.
    pub user: String,
    /// Its password at the server; `None`: as listed in [`Config::users`], or [`Database::password`] if it is the
    /// database's user.
    pub password: Option<Password>,
    /// Which database is asked; `None`: the client's.
    pub database: Option<Arc<str>>,
}

/// `sslmode` of libpq.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the other side insists.
    Allow,
    /// If the other side can.
    Prefer,
    /// Always, believing any certificate.
    Require,
    /// Always, with a certificate of a known authority.
    VerifyCa,
    /// Always, with a certificate of a known authority for this very name.
    VerifyFull,
}

/// TLS towards clients.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// What is asked of clients.
    pub mode: TlsMode,
    /// Certificates and versions; `None` with [`TlsMode::Disable`] only.
    pub config: Option<Arc<rustls::ServerConfig>>,
    /// Hash of the server certificate for `tls-server-end-point` (RFC 5929).
    pub end_point: Option<Arc<[u8]>>,
    /// What it was made of.
    pub files: TlsFiles,
}

/// TLS towards servers.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// What is asked of the server.
    pub mode: TlsMode,
    /// Roots, own certificate, versions.
    pub config: Option<Arc<rustls::ClientConfig>>,
    /// What it was made of.
    pub files: TlsFiles,
    /// Hash of all that the files held; of two with the same, connections of one are as good as the other's.
    pub digest: Option<[u8; 32]>,
}

/// How TCP connections are watched over, on both sides. Zero leaves a value to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Whether quiet connections are probed at all.
    pub keepalive: bool,
    /// Quiet this long: the first probe.
    pub keepalive_idle: Duration,
    /// Between probes.
    pub keepalive_interval: Duration,
    /// Probes without an answer that end a connection.
    pub keepalive_count: u32,
    /// Sent bytes may stay unacknowledged this long (TCP_USER_TIMEOUT).
    pub user_timeout: Duration,
}

/// A mistake in a [`Config`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// `database.shop.pool.size`.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl AuthMethod {
    /// Whether the client has to show that it knows a secret.
    #[must_use]
    pub const fn needs_secret(self) -> bool {
        matches!(self, Self::Password | Self::Md5 | Self::ScramSha256)
    }
}

impl Password {
    /// Wraps what must not be seen.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self(secret.into())
    }

    /// For the one who has to use it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// The most that any one limit on connections may be: more descriptors than a process gets.
pub const CONNECTIONS_MAX: usize = 1_000_000;

/// Databases at most, and users with settings of their own per database.
pub const DATABASES_MAX: usize = 10_000;

/// The name that stands for all databases not named.
pub const ANY_DATABASE: &str = "*";

/// Names of the console, which no database can have.
pub const CONSOLE_DATABASES: [&str; 2] = ["pgbouncer", "tenfold"];

impl Config {
    /// What holds for a user in a database: the database's pool, with what the user has of its own.
    #[must_use]
    pub fn settings_of(&self, database: &Database, user: &str) -> (PoolSettings, UserSettings) {
        let own = |list: &[(Arc<str>, UserSettings)]| {
            list.iter().find(|(name, _)| **name == *user).map(|(_, settings)| settings.clone())
        };
        let here = own(&database.user_settings).unwrap_or_default();
        let all = own(&self.user_settings);
        let settings = match all.clone() {
            // Its limits there are over all databases, and are not this database's.
            Some(all) => here.or(&UserSettings { clients_max: None, servers_max: None, ..all }),
            None => here,
        };
        let user_max = all.and_then(|all| all.servers_max).unwrap_or(0);
        (PoolSettings { user_max, ..database.pool.with(&settings) }, settings)
    }

    /// Clients of a user at most, over all databases.
    #[must_use]
    pub fn user_limit(&self, user: &str) -> Option<usize> {
        self.user_settings.iter().find(|(name, _)| **name == *user)?.1.clients_max
    }

    /// All that is wrong with it.
    ///
    /// # Errors
    /// Every mistake, by its path.
    pub fn validate(&self) -> Result<(), Vec<ConfigError>> {
        let mut errors = Vec::new();
        if self.databases.len() > DATABASES_MAX {
            errors.push(ConfigError::new("database", format!("at most {DATABASES_MAX} databases")));
        }
        for (index, database) in self.databases.iter().enumerate() {
            let path = format!("database.{}", database.name);
            if self.databases[..index].iter().any(|other| other.name == database.name) {
                errors.push(ConfigError::new(&path, "there are two of this name"));
            }
            database.validate(&path, &mut errors);
        }
        if self.client_tls.mode != TlsMode::Disable && self.client_tls.config.is_none() {
            errors.push(ConfigError::new("pooler.tls", "TLS towards clients needs a certificate and a key"));
        }
        if self.auth == AuthMethod::Cert && self.client_tls.mode < TlsMode::VerifyCa {
            let message = "auth = \"cert\" needs tls.mode = \"verify-ca\" or \"verify-full\"";
            errors.push(ConfigError::new("pooler.auth", message));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

impl Database {
    /// A database with everything else as by default.
    #[must_use]
    pub fn new(name: &str, hosts: Vec<Host>) -> Self {
        Self {
            name: name.into(),
            hosts,
            dbname: None,
            user: None,
            password: None,
            users: Users::default(),
            server_tls: ServerTls::none(),
            pool: PoolSettings::default(),
            user_settings: Vec::new(),
            auth_query: None,
            connect_query: None,
            reads: Reads::default(),
        }
    }

    fn validate(&self, path: &str, errors: &mut Vec<ConfigError>) {
        let mut wrong = |key: &str, message: String| {
            errors.push(ConfigError { path: format!("{path}{key}"), message });
        };
        if CONSOLE_DATABASES.contains(&&*self.name) {
            wrong("", format!("\"{}\" is the console's name; choose another", self.name));
        }
        if self.hosts.is_empty() {
            wrong(".primary", "there is no host".to_owned());
        }
        if self.server_tls.mode != TlsMode::Disable && self.server_tls.config.is_none() {
            wrong(".sslmode", "TLS towards the server has no configuration".to_owned());
        }
        if self.pool.size == 0 {
            wrong(".pool.size", "a pool needs at least one connection".to_owned());
        }
        if self.pool.min > self.pool.size {
            wrong(".pool.min", format!("is above pool.size = {}", self.pool.size));
        }
        if self.pool.size.saturating_add(self.pool.reserve) > CONNECTIONS_MAX {
            wrong(".pool.size", format!("size and reserve are above {CONNECTIONS_MAX}"));
        }
        if !(1..=100).contains(&self.pool.hot_row_percent) {
            wrong(".pool.hot_rows", "expected 1 to 100 percent".to_owned());
        }
        for (key, message) in self.reads.mistakes() {
            wrong(key, message);
        }
        for (user, settings) in &self.user_settings {
            if settings.size == Some(0) {
                wrong(&format!(".user.{user}.size"), "a pool needs at least one connection".to_owned());
            }
        }
    }
}

impl PoolSettings {
    /// These, with what a user has of its own.
    #[must_use]
    pub fn with(&self, user: &UserSettings) -> Self {
        let max = user.servers_max.unwrap_or(usize::MAX);
        let size = user.size.unwrap_or(self.size).min(max);
        Self {
            mode: user.mode.unwrap_or(self.mode),
            size,
            reserve: user.reserve.unwrap_or(self.reserve).min(max - size),
            query_timeout: user.query_timeout.unwrap_or(self.query_timeout),
            idle_in_transaction: user.idle_in_transaction.unwrap_or(self.idle_in_transaction),
            transaction_timeout: user.transaction_timeout.unwrap_or(self.transaction_timeout),
            client_idle: user.client_idle.unwrap_or(self.client_idle),
            ..self.clone()
        }
    }
}

impl UserSettings {
    /// These, and where they say nothing, those of `other`.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            mode: self.mode.or(other.mode),
            size: self.size.or(other.size),
            reserve: self.reserve.or(other.reserve),
            clients_max: self.clients_max.or(other.clients_max),
            servers_max: self.servers_max.or(other.servers_max),
            priority: if self.priority == 0 { other.priority } else { self.priority },
            query_timeout: self.query_timeout.or(other.query_timeout),
            idle_in_transaction: self.idle_in_transaction.or(other.idle_in_transaction),
            transaction_timeout: self.transaction_timeout.or(other.transaction_timeout),
            client_idle: self.client_idle.or(other.client_idle),
        }
    }
}

impl ConfigError {
    fn new(path: &str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), message: message.into() }
    }
}

impl Default for Config {
    /// No database and no user yet.
    fn default() -> Self {
        Self {
            databases: Vec::new(),
            users: Users::default(),
            user_settings: Vec::new(),
            auth: AuthMethod::ScramSha256,
            hba: None,
            client_tls: ClientTls::none(),
            admin_users: Vec::new(),
            stats_users: Vec::new(),
            clients_max: 16_384,
            logins_max: 256,
            login_timeout: Duration::from_secs(60),
            ignore_startup_parameters: Vec::new(),
            statements_max: 200,
            cancel_wait: Duration::from_secs(10),
            query_wait_notify: Duration::from_secs(5),
            application_name_add_host: false,
            log_connections: false,
            tcp: Tcp::default(),
            dns_refresh: Duration::from_secs(15),
            salt_seed: [0; 16],
        }
    }
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            keepalive: true,
            keepalive_idle: Duration::ZERO,
            keepalive_interval: Duration::ZERO,
            keepalive_count: 0,
            user_timeout: Duration::ZERO,
        }
    }
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            mode: Mode::Transaction,
            size: 20,
            reserve: 5,
            reserve_wait: Duration::from_secs(3),
            min: 0,
            database_max: 0,
            user_max: 0,
            clients_max: 0,
            query_wait: Duration::from_secs(30),
            idle: Duration::from_secs(600),
            lifetime: Duration::from_secs(3_600),
            fast_close: false,
            query_timeout: Duration::ZERO,
            idle_in_transaction: Duration::ZERO,
            transaction_timeout: Duration::ZERO,
            client_idle: Duration::ZERO,
            connect_timeout: Duration::from_secs(5),
            connect_retry: Duration::from_millis(250),
            check_after: Duration::from_secs(30),
            hot_row_percent: 50,
            sequences: Sequences::Adaptive,
        }
    }
}

/// An address clients reach us at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket: the folder, in which `.s.PGSQL.<port>` is made.
    Unix {
        /// Folder.
        folder: PathBuf,
        /// Port in the socket's name.
        port: u16,
    },
}

impl Listen {
    /// The path of a Unix socket.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix { folder, port } => Some(folder.join(format!(".s.PGSQL.{port}"))),
        }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { folder, port } => write!(f, "unix:{}:{port}", folder.display()),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { folder, port } => write!(f, "{}/.s.PGSQL.{port}", folder.display()),
        }
    }
}

impl ClientTls {
    /// None is offered.
    #[must_use]
    pub fn none() -> Self {
        Self { mode: TlsMode::Disable, config: None, end_point: None, files: TlsFiles::default() }
    }
}

impl ServerTls {
    /// None is used.
    #[must_use]
    pub fn none() -> Self {
        Self { mode: TlsMode::Disable, config: None, files: TlsFiles::default(), digest: None }
    }

    /// Whether nothing changed that a connection would notice.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let same_config = match (&self.config, &other.config) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || self.digest.is_some() && self.digest == other.digest,
            (None, None) => true,
            _ => false,
        };
        self.mode == other.mode && same_config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Database {
        Database::new("shop", vec![Host::Tcp { host: "127.0.0.1".into(), port: 5432 }])
    }

    fn paths(config: &Config) -> Vec<String> {
        config.validate().err().unwrap_or_default().into_iter().map(|error| error.path).collect()
    }

    #[test]
    fn defaults_with_a_database_are_a_whole_configuration() {
        assert!(paths(&Config { databases: vec![database()], ..Config::default() }).is_empty());
    }

    #[test]
    fn every_mistake_is_named_by_its_path() {
        let mut wrong = database();
        wrong.hosts.clear();
        wrong.pool = PoolSettings { size: 0, min: 1, hot_row_percent: 0, ..PoolSettings::default() };
        wrong.server_tls.mode = TlsMode::Require;
        wrong.user_settings = vec![("ann".into(), UserSettings { size: Some(0), ..UserSettings::default() })];
        let console = Database::new("pgbouncer", vec![Host::Unix { folder: "/run".into(), port: 5432 }]);
        let mut config = Config { databases: vec![database(), wrong, console], ..Config::default() };
        config.auth = AuthMethod::Cert;
        let expected = [
            "database.shop",
            "database.shop.primary",
            "database.shop.sslmode",
            "database.shop.pool.size",
            "database.shop.pool.min",
            "database.shop.pool.hot_rows",
            "database.shop.user.ann.size",
            "database.pgbouncer",
            "pooler.auth",
        ];
        assert_eq!(paths(&config), expected);
    }

    #[test]
    fn a_user_wins_over_its_pool_and_a_database_over_all_of_them() {
        let size = |size| UserSettings { size: Some(size), ..UserSettings::default() };
        let everywhere = UserSettings {
            query_timeout: Some(Duration::from_secs(7)),
            clients_max: Some(9),
            priority: 3,
            ..size(2)
        };
        let mut shop = database();
        shop.user_settings = vec![("ann".into(), size(4))];
        let config = Config { user_settings: vec![("ann".into(), everywhere)], ..Config::default() };
        let (pool, user) = config.settings_of(&shop, "ann");
        assert_eq!((pool.size, pool.query_timeout, user.priority), (4, Duration::from_secs(7), 3));
        // Nine clients over all databases are not nine in each.
        assert_eq!(user.clients_max, None);
        assert_eq!(config.settings_of(&shop, "bob").0.size, PoolSettings::default().size);
        // A limit on servers is the pool's where it is the database's, and one over pools where it is everyone's.
        let limited = UserSettings { servers_max: Some(22), ..UserSettings::default() };
        shop.user_settings = vec![("ann".into(), limited.clone())];
        let config = Config { user_settings: vec![("bob".into(), limited)], ..Config::default() };
        let here = config.settings_of(&shop, "ann").0;
        assert_eq!((here.size, here.reserve, here.user_max), (20, 2, 0));
        let everywhere = config.settings_of(&shop, "bob").0;
        assert_eq!((everywhere.size, everywhere.reserve, everywhere.user_max), (20, 5, 22));
    }

    #[test]
    fn addresses_are_told_as_they_are_written() {
        let unix = Listen::Unix { folder: "/run/tenfold".into(), port: 6432 };
        assert_eq!(unix.to_string(), "unix:/run/tenfold:6432");
        assert_eq!(unix.path(), Some("/run/tenfold/.s.PGSQL.6432".into()));
        assert_eq!(Host::Tcp { host: "::1".into(), port: 1 }.to_string(), "[::1]:1");
        assert!(!format!("{:?}", Password::new("hunter2")).contains("hunter2"));
    }
}
