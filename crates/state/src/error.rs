//! What can go wrong, for who configures it and for who calls.

use thiserror::Error;

/// Why Redis can't be used at all.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL says nothing that can be connected to. It is not shown: it may hold a password.
    #[error("not a Redis URL such as redis://127.0.0.1:6379: {0}")]
    Url(String),
    /// The server was not reached, or did not let us in.
    #[error("{0}")]
    Connect(String),
    /// No answer within the time allowed.
    #[error("no answer within {0:?}")]
    TimedOut(std::time::Duration),
    /// The thread could not be started.
    #[error("cannot start the thread that talks to Redis: {0}")]
    Thread(#[from] std::io::Error),
}

/// Why a call has no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// There is no connection: the server is away, or too slow to be asked.
    #[error("Redis is not connected")]
    Down,
    /// As many calls as may be are under way.
    #[error("too many calls in flight")]
    Busy,
    /// It took longer than it may.
    #[error("no answer within the budget")]
    TimedOut,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The server said no.
    #[error("Redis refused: {0}")]
    Refused(String),
}
