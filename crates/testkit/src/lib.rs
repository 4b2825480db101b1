//! What the tests and the demo stand on: real servers, and ways to hurt them.
//!
//! **Intuition.** A test that talks to a mock proves that the mock agrees with its author. So tests here talk to a
//! real PostgreSQL with a replica, a real Redis, to origins that send exactly the bytes the test wrote, through a proxy that cuts
//! and stalls on command, and they wait for conditions instead of sleeping.
//!
//! **Mechanism.** Everything runs on plain threads and blocking sockets, so it works under any runtime, and its
//! small lenient HTTP reader is independent of the product's own codec: a bug in one does not hide in the other.
//! Every server listens on a port the system chose.
//!
//! **Failure.** Whatever was started stops when its handle is dropped; child processes also stop when this process
//! is killed outright (see [`process`]). Errors name what is missing and how to install it.

pub mod corpus;
pub mod fault;
pub mod hostile;
mod message;
pub mod origin;
pub mod postgres;
pub mod process;
pub mod raw;
pub mod redis;
pub mod tls;
pub mod wait;

pub use origin::{Answer, Gate, Origin};
pub use wait::{eventually, try_wait_for, wait_for};

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why something a test asked for could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A condition did not come true in time.
    #[error("waited {} ms for {what}", limit.as_millis())]
    TimedOut {
        /// The condition, in words.
        what: String,
        /// How long it had.
        limit: Duration,
    },
    /// A program is not installed. The hint says which package brings it.
    #[error("{program} is not installed: {hint}")]
    NotInstalled {
        /// The program looked for.
        program: String,
        /// What to install, as a sentence.
        hint: String,
    },
    /// A program ran and failed.
    #[error("{what} failed ({status}):\n{}", last_lines(log))]
    Failed {
        /// What was being done, in words.
        what: String,
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        log: String,
    },
    /// A file or folder could not be made, read or written. A full disk shows here.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server cannot run as this user, and there is no other to run it as.
    #[error("{0}")]
    User(String),
    /// A socket or a process could not be made.
    #[error("{what}: {source}")]
    System {
        /// What was being done, in words.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

/// As much of a log as fits on a screen: its end.
fn last_lines(log: &str) -> &str {
    let log = log.trim_end();
    log.rmatch_indices('\n').nth(19).map_or(log, |(at, _)| &log[at + 1..])
}

impl Error {
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }

    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
