//! What the pooler is told: plain structs, filled by the binary from `tenfold.toml`, by tests by hand.
//!
//! **Failure.** [`Config::validate`] names each mistake by its configuration path; nothing here reads files.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// The whole tier.
#[derive(Clone, Debug)]
pub struct Config {
    /// Databases by the name clients ask for.
    pub databases: Vec<Database>,
    /// Users that may log in whatever the database, by name.
    pub users: Users,
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
    /// Clients logging in at once, at most; others wait their turn in the accept order.
    pub logins_max: usize,
    /// From accept to the end of authentication.
    pub login_timeout: Duration,
    /// Startup parameters that are dropped unread.
    pub ignore_startup_parameters: Vec<String>,
    /// Prepared statements kept per server connection before the least used is closed there.
    pub statements_max: usize,
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
    /// Log in to the server as this user, whoever the client is.
    pub user: Option<String>,
    /// Password of [`Database::user`], or of any user where there is none.
    pub password: Option<Password>,
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
#[derive(Clone, PartialEq, Eq)]
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
    /// Clients of the database at most; 0: no limit.
    pub clients_max: usize,
    /// How long a client may wait for a server connection; zero: for ever.
    pub query_wait: Duration,
    /// Server connections unused for this long are closed; zero: never.
    pub idle: Duration,
    /// Server connections this old are closed once free; zero: never.
    pub lifetime: Duration,
    /// A statement may run this long; zero: for ever.
    pub query_timeout: Duration,
    /// A transaction may wait for its client this long; zero: for ever.
    pub idle_in_transaction: Duration,
    /// A transaction may last this long; zero: for ever.
    pub transaction_timeout: Duration,
    /// A client may say nothing for this long; zero: for ever.
    pub client_idle: Duration,
    /// A server must have taken a connection and the login after this long.
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
    /// Clients of this user at most.
    pub clients_max: Option<usize>,
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
}

/// TLS towards servers.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// What is asked of the server.
    pub mode: TlsMode,
    /// Roots, own certificate, versions.
    pub config: Option<Arc<rustls::ClientConfig>>,
}

/// A mistake in a [`Config`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// `database.shop.pool.size`.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
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

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            mode: Mode::Transaction,
            size: 20,
            reserve: 5,
            reserve_wait: Duration::from_secs(3),
            min: 0,
            database_max: 0,
            clients_max: 0,
            query_wait: Duration::from_secs(30),
            idle: Duration::from_secs(600),
            lifetime: Duration::from_secs(3_600),
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
