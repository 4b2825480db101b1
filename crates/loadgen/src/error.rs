//! What can keep a run from starting. Once it runs, nothing does: a failed request is a line of the report.

use std::net::SocketAddr;

/// Why a plan was refused or a run didn't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The schedule is out of bounds.
    #[error("schedule: {0}")]
    Schedule(String),
    /// The scenario can't be played.
    #[error("scenario: {0}")]
    Scenario(String),
    /// A trace file isn't one.
    #[error("trace: {0}")]
    Trace(String),
    /// The client's limits are out of bounds.
    #[error("client: {0}")]
    Client(String),
    /// A target isn't a base URL this generator can send to.
    #[error("target {url:?}: {why}")]
    Target {
        /// The target as given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A target is somewhere else, and nobody said that it may be loaded.
    #[error(
        "target {url:?} is {address}, not this machine: loading someone else's host is an attack; \
         say that it is yours (--i-own-this-host) to go on"
    )]
    NotLoopback {
        /// The target as given.
        url: String,
        /// What it resolved to.
        address: SocketAddr,
    },
    /// A set-up request (a log-in) was not answered as it should be.
    #[error("setup {name:?}: {why}")]
    Setup {
        /// The set-up request's name.
        name: String,
        /// What came instead.
        why: String,
    },
    /// The operating system refused a thread, a runtime or a socket.
    #[error("starting the generator: {0}")]
    Io(#[from] std::io::Error),
    /// The search for the capacity has no answer.
    #[error("capacity: {0}")]
    Capacity(String),
}
