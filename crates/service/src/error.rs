//! The errors of this crate, each with what was attempted and what to do about it.
//!
//! They are read by the person who starts or reloads the process; none of them comes from a client's bytes.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::socket::Address;

/// Why something this crate owns could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A listening address could not be bound.
    #[error("cannot listen on {address}: {advice}")]
    Bind {
        /// The address as asked for.
        address: SocketAddr,
        /// What to do about it, in one sentence.
        advice: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The path of a Unix socket could not be bound.
    #[error("cannot listen on {}: {advice}", path.display())]
    BindPath {
        /// The path as asked for.
        path: PathBuf,
        /// What to do about it, in one sentence.
        advice: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A thread or its runtime could not be started.
    #[error("cannot start thread {name}: {source}")]
    Thread {
        /// Name of the thread.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A listening socket could not be registered with the acceptor's runtime.
    #[error("cannot accept on {address}: {source}")]
    Register {
        /// The listener's local address.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
    /// A signal handler could not be installed.
    #[error("cannot handle signals: {0}")]
    Signals(#[source] io::Error),
    /// The limit on open descriptors could not be read or raised.
    #[error("cannot raise the limit on open files: {0}")]
    OpenFiles(#[source] io::Error),
    /// The acceptor has ended (it drained), so it takes no more listeners.
    #[error("the acceptor has stopped")]
    AcceptorStopped,
    /// The worker has ended, so it takes no more tasks.
    #[error("the worker has stopped")]
    WorkerStopped,
    /// More than [`worker::SPAWN_QUEUE_MAX`](crate::worker::SPAWN_QUEUE_MAX) tasks wait to start on the worker.
    #[error("the worker's queue of new tasks is full")]
    SpawnQueueFull,
}
