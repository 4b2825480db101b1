//! What the control side needs of a database, and what it tells about it.
//!
//! **Mechanism.** [`Watched`] is implemented by the tier's directory entry of a database, and by tests.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    replicas::Foreign,
    target::{Address, Target},
};
use crate::{auth::ServerSecret, config::Database, definitions::Definitions, split::Split};

/// One database.
pub trait Watched: Send + Sync + 'static {
    /// The name clients ask for.
    fn name(&self) -> &Arc<str>;
    /// What is configured for it now.
    fn spec(&self) -> Arc<Database>;
    /// How long the result of a name look-up is used.
    fn dns_refresh(&self) -> Duration;
    /// As whom to log in; `None`: nobody is known who could.
    fn login(&self) -> Option<(Arc<str>, ServerSecret)>;
    /// Whether it has clients or server connections.
    fn is_used(&self) -> bool;
    /// Where its server was found last.
    fn target(&self) -> Arc<Target>;
    /// Its server is there now. Those who wait for a server connection should try again.
    fn set_target(&self, target: Target, change: Change);
    /// What its definitions hide, as far as it is known.
    fn definitions(&self) -> &Definitions;
    /// Definitions were read, or cannot be for now: whoever waited for them goes on.
    fn definitions_settled(&self);
    /// Its replicas, and what is known of their positions.
    fn split(&self) -> &Arc<Split>;
    /// Microseconds of the process.
    fn now_us(&self) -> u64;
    /// Positions or replicas are other than before: reads that wait for them go on.
    fn positions_known(&self);
    /// Nobody has used it for minutes, and its monitor leaves; the next client needs another.
    fn left(&self);
    /// What was noticed, for the log.
    fn told(&self, event: Event);
}

/// Why a target was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The first, or other addresses for the same names.
    Addresses,
    /// Another host is the primary: server connections to the old one must go.
    Primary,
    /// The server is back after it was away, in the same place.
    Back,
}

/// What was noticed about a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A monitor connection stands.
    Connected {
        /// Where.
        address: Address,
        /// Whether this server is a standby.
        is_standby: bool,
    },
    /// The monitor connection, or the attempt to make one, failed.
    Lost {
        /// Why.
        error: String,
    },
    /// No server connection of our own is possible: only its clients can log in. Neither the primary among several
    /// hosts nor the catalogue is known.
    NoLogin,
    /// A host's name does not resolve.
    Unresolved {
        /// Which, and why.
        failure: String,
    },
    /// The server was restarted since we saw it last.
    Restarted,
    /// The catalogue was read.
    Catalogue {
        /// Its version.
        version: u64,
    },
    /// The catalogue could not be read; every function counts as unknown.
    CatalogueFailed {
        /// Why.
        error: String,
    },
    /// An `auth_query` failed; its client was told of a wrong password.
    LookupFailed {
        /// Who wanted in.
        user: Arc<str>,
        /// The server's words, or ours.
        error: String,
    },
    /// The hub's connection was lost or could not be made.
    HubLost {
        /// Why.
        error: String,
    },
    /// A replica answers: reads may go there.
    ReplicaUp {
        /// Which.
        replica: Arc<str>,
    },
    /// A replica was lost, or never reached.
    ReplicaLost {
        /// Which.
        replica: Arc<str>,
        /// Why.
        error: String,
    },
    /// What is configured as a replica is none of this primary's.
    ReplicaForeign {
        /// Which.
        replica: Arc<str>,
        /// What it is instead.
        why: Foreign,
    },
    /// The primary could not be asked where it is for a while.
    PositionUnknown {
        /// Why.
        error: String,
    },
    /// It can be again.
    PositionKnown,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { address, is_standby: false } => write!(f, "watching the server at {address}"),
            Self::Connected { address, is_standby: true } => write!(f, "watching the standby at {address}"),
            Self::Lost { error } => write!(f, "the server can't be watched: {error}"),
            Self::NoLogin => f.write_str(
                "no user is known to watch the server with: all functions count as unknown and pin connections; \
                 give the database a user and a password",
            ),
            Self::Unresolved { failure } => write!(f, "a host's name does not resolve: {failure}"),
            Self::Restarted => f.write_str("the server was restarted"),
            Self::Catalogue { version } => write!(f, "read the catalogue, version {version}"),
            Self::CatalogueFailed { error } => write!(f, "the catalogue can't be read: {error}"),
            Self::LookupFailed { user, error } => write!(f, "looking up user \"{user}\" failed: {error}"),
            Self::HubLost { error } => write!(f, "the connection that listens for notifications is lost: {error}"),
            Self::ReplicaUp { replica } => write!(f, "the replica {replica} answers and gets reads"),
            Self::ReplicaLost { replica, error } => {
                write!(f, "the replica {replica} can't be used, its reads go elsewhere: {error}")
            }
            Self::ReplicaForeign { replica, why } => {
                write!(f, "{replica} is no replica of this database's primary and gets no reads: {why}")
            }
            Self::PositionUnknown { error } => write!(
                f,
                "the primary can't be asked for its position, so tables written since are read there only: {error}"
            ),
            Self::PositionKnown => f.write_str("the primary's position is known again"),
        }
    }
}
