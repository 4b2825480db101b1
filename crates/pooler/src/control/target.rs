//! Where a database's servers are, as sockets.
//!
//! **Intuition.** The configuration names hosts; a worker needs addresses, and wants to know when they are no longer the
//! ones it connected to.
//!
//! **Mechanism.** A [`Target`] is a snapshot that the control side makes and workers read; its generation changes
//! whenever anything else in it does.
//!
//! **Failure.** A name that does not resolve leaves the list empty; workers then wait, and their clients with them.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc};

/// Where to connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Changes whenever anything else here does; 0 before the first.
    pub generation: u64,
    /// Tried in this order; empty while no name was resolved yet.
    pub addresses: Vec<Address>,
}

/// One way to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index among the configured hosts.
    pub host: usize,
    /// Name for TLS, and for people.
    pub name: Arc<str>,
    /// Where.
    pub at: Endpoint,
}

/// A socket to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Endpoint::Tcp(addr) if *self.name == addr.ip().to_string() => write!(f, "{addr}"),
            Endpoint::Tcp(addr) => write!(f, "{} ({addr})", self.name),
            Endpoint::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}
