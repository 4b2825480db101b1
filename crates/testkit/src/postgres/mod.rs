//! A real PostgreSQL for tests and the demo: a primary, and streaming replicas if asked for.
//!
//! **Intuition.** Lag, locks, transactions, restarts: only PostgreSQL behaves like PostgreSQL. A cluster of one's own
//! takes about two seconds, touches none that exists, and leaves nothing behind.
//!
//! **Mechanism.** [`Install`] finds the programs and the account to run them as; a private folder holds the data; each
//! [`Server`] is a guarded child on a port of loopback that was free. The primary counts statements through
//! `pg_stat_statements`, so "how many queries reached the database" has an exact answer.
//!
//! **Failure.** Every error is an [`Error`] that says what to install, which folder, or what PostgreSQL printed.
//! Dropping the cluster stops its servers and removes the folder; our own death does the same through the watcher.

mod control;
mod home;
mod install;
mod replay;
mod server;

pub use control::BackendSignal;
pub use install::Install;
pub use replay::Jitter;
pub use server::Server;

use std::path::PathBuf;

use crate::Error;
use crate::tls::Identity;
use home::Home;

/// The superuser of every cluster, and the database it starts with.
pub const SUPERUSER: &str = "postgres";

/// Replicas of one cluster at most: each takes two of the primary's ten WAL senders while it is made.
pub const REPLICAS_MAX: usize = 8;

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to make its folder if PostgreSQL's account can reach it; else, and for `None`, a private folder in the
    /// system's temporary folder.
    pub dir: Option<PathBuf>,
    /// Durable commits. Tests do without: several times faster.
    pub fsync: bool,
    /// Streaming replicas beside the primary, at most [`REPLICAS_MAX`].
    pub replicas: usize,
    /// How clients on loopback prove who they are.
    pub auth: Auth,
    /// `max_connections`.
    pub connections_max: u32,
    /// More settings for `postgresql.conf`, after the kit's own.
    pub settings: Vec<(String, String)>,
    /// TLS, which clients may then use.
    pub tls: Option<Tls>,
    /// `pg_hba.conf` instead of what [`Options::auth`] makes of it. Its first line should let [`SUPERUSER`] in.
    pub hba: Option<String>,
}

/// How a server shows itself, and whom it believes.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Its certificate and key.
    pub identity: Identity,
    /// The authority of clients' certificates, in PEM, for rules with `cert` or `clientcert`.
    pub client_ca: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dir: None,
            fsync: false,
            replicas: 0,
            auth: Auth::Trust,
            connections_max: 200,
            settings: Vec::new(),
            tls: None,
            hba: None,
        }
    }
}

/// How clients prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    Trust,
    /// SCRAM-SHA-256.
    Scram {
        /// The superuser's password; letters and digits, since it stands in URLs unescaped.
        password: String,
    },
}

/// A running primary, with or without replicas.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: the replicas leave before their primary, the folder after all.
    replicas: Vec<Server>,
    primary: Server,
    _home: Home,
}

impl Cluster {
    /// Starts it and waits until it accepts connections: one to three seconds.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::User`], [`Error::File`], [`Error::Failed`], [`Error::TimedOut`].
    pub fn start(options: &Options) -> Result<Self, Error> {
        let install = Install::find()?;
        let account = install.account.clone();
        let home = Home::make(options.dir.as_deref(), account.as_ref())?;
        let primary = Server::primary(install, home.server("primary", account.as_ref())?, options)?;
        primary.psql("CREATE EXTENSION pg_stat_statements")?;
        let mut replicas = Vec::new();
        for number in 1..=options.replicas.min(REPLICAS_MAX) {
            let folder = home.server(&format!("replica-{number}"), account.as_ref())?;
            replicas.push(Server::replica(&primary, folder, number)?);
        }
        Ok(Self { replicas, primary, _home: home })
    }

    /// The primary.
    #[must_use]
    pub fn primary(&self) -> &Server {
        &self.primary
    }

    /// The primary, to stop, kill or start it.
    pub fn primary_mut(&mut self) -> &mut Server {
        &mut self.primary
    }

    /// The first replica, where there is one.
    #[must_use]
    pub fn replica(&self) -> Option<&Server> {
        self.replicas.first()
    }

    /// The first replica, to stop, kill or start it.
    pub fn replica_mut(&mut self) -> Option<&mut Server> {
        self.replicas.first_mut()
    }

    /// All replicas.
    #[must_use]
    pub fn replicas(&self) -> &[Server] {
        &self.replicas
    }

    /// All replicas, to stop, kill or start them.
    pub fn replicas_mut(&mut self) -> &mut [Server] {
        &mut self.replicas
    }

    /// [`Server::url`] of the primary.
    #[must_use]
    pub fn primary_url(&self) -> String {
        self.primary.url()
    }

    /// [`Server::url`] of the first replica.
    #[must_use]
    pub fn replica_url(&self) -> Option<String> {
        self.replica().map(Server::url)
    }

    /// [`Server::psql`] on the primary.
    ///
    /// # Errors
    /// As [`Server::psql`].
    pub fn psql(&self, sql: &str) -> Result<String, Error> {
        self.primary.psql(sql)
    }

    /// Statements the primary has executed since [`Cluster::forget_queries`] or its start: all databases, `BEGIN` and
    /// `COMMIT` included, this counting excluded.
    ///
    /// # Errors
    /// As [`Server::psql`].
    pub fn query_count(&self) -> Result<u64, Error> {
        self.query_count_where("true")
    }

    /// [`Cluster::query_count`] of the statements for which this SQL condition on a row of `pg_stat_statements`
    /// holds, such as `query ILIKE '%from products%'`.
    ///
    /// # Errors
    /// As [`Server::psql`].
    pub fn query_count_where(&self, condition: &str) -> Result<u64, Error> {
        let count = self.psql(&format!(
            "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements \
             WHERE query NOT LIKE '%pg_stat_statements%' AND ({condition})"
        ))?;
        Ok(count.parse().unwrap_or(0))
    }

    /// Counts statements from zero.
    ///
    /// # Errors
    /// As [`Server::psql`].
    pub fn forget_queries(&self) -> Result<(), Error> {
        self.psql("SELECT pg_stat_statements_reset()").map(drop)
    }

    /// Processor time all servers used since they started, in seconds.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        self.primary.cpu_seconds() + self.replicas.iter().map(Server::cpu_seconds).sum::<f64>()
    }
}
