//! What the console needs from the tier.
//!
//! **Failure.** [`Refused`] is what the commander reads.

use std::sync::Arc;

use crate::{
    config::Config,
    report::{Report, StatsRow},
};

/// Why a command was not done: the error its client reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// No database of this name. SQLSTATE 3D000.
    #[error("no such database: {0}")]
    NoDatabase(String),
    /// Not in this state of things: RESUME of what is not paused. SQLSTATE 55000.
    #[error("{0}")]
    State(String),
    /// Not for this user. SQLSTATE 42501.
    #[error("admin access needed")]
    Rights,
    /// Not a command. SQLSTATE 42601.
    #[error("invalid command '{0}', use SHOW HELP;")]
    Syntax(String),
    /// A value that cannot be, or something that does not exist. SQLSTATE 22023.
    #[error("{0}")]
    Value(String),
    /// The configuration that was to be read has mistakes. SQLSTATE F0000.
    #[error("RELOAD failed: {0}")]
    Config(String),
}

/// How to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// At once.
    Now,
    /// When all server connections are free; no client is taken and no transaction begins.
    WaitForServers,
    /// When all clients have left; no client is taken.
    WaitForClients,
}

/// The tier, as the console commands it. Databases are named as clients name them; `None` is all of them.
///
/// Futures may be dropped at any await: what was begun goes on.
pub trait ConsoleApi: Sync {
    /// What there is now.
    fn report(&self) -> impl Future<Output = Report> + Send;

    /// Averages for these totals.
    fn averages(&self, totals: &[StatsRow]) -> Vec<StatsRow>;

    /// The configuration in force.
    fn config(&self) -> Arc<Config>;

    /// Puts a configuration in force that [`settings::set`](super::settings::set) changed. What of it has to wait for
    /// another SET, as a certificate does for its key, is told.
    ///
    /// # Errors
    /// What is wrong with it; nothing is changed then.
    fn apply(&self, config: Config) -> Result<Option<String>, Refused>;

    /// Reads the configuration's files again.
    ///
    /// # Errors
    /// What is wrong with them; the old configuration stays.
    fn reload(&self) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Lets no transaction begin, and returns when none is open and, in transaction mode, no server connection is lent.
    ///
    /// # Errors
    /// Unknown database; paused already.
    fn pause(&self, database: Option<&str>) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Reads no client any more, and returns when all that was asked before has been answered, and the answers taken.
    ///
    /// # Errors
    /// Paused already.
    fn suspend(&self) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Lets transactions begin again.
    ///
    /// # Errors
    /// Unknown database; not paused; shutting down.
    fn resume(&self, database: Option<&str>) -> Result<(), Refused>;

    /// Has each server connection replaced once it is free.
    ///
    /// # Errors
    /// Unknown database.
    fn reconnect(&self, database: Option<&str>) -> Result<(), Refused>;

    /// Returns when all server connections that are to be replaced have been.
    ///
    /// # Errors
    /// Unknown database.
    fn wait_close(&self, database: Option<&str>) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Takes new clients of a database, or refuses them.
    ///
    /// # Errors
    /// Unknown database.
    fn enable(&self, database: &str, enabled: bool) -> Result<(), Refused>;

    /// Pauses, and closes clients and servers at once.
    ///
    /// # Errors
    /// Unknown database.
    fn kill(&self, database: Option<&str>) -> Result<(), Refused>;

    /// Closes one client.
    ///
    /// # Errors
    /// No client of this id.
    fn kill_client(&self, id: u64) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Begins the end of the process.
    ///
    /// # Errors
    /// It has begun already.
    fn shutdown(&self, how: Shutdown) -> Result<(), Refused>;
}

impl Refused {
    /// Its SQLSTATE.
    #[must_use]
    pub const fn sqlstate(&self) -> &'static str {
        match self {
            Self::NoDatabase(_) => "3D000",
            Self::State(_) => "55000",
            Self::Rights => "42501",
            Self::Syntax(_) => "42601",
            Self::Value(_) => "22023",
            Self::Config(_) => "F0000",
        }
    }
}
