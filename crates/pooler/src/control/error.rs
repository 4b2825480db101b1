//! Why a connection of the control side failed.

use std::io;

use tenfold_pgwire::{SqlState, backend, frame::HEADER_BYTES};

use crate::auth::FailureKind;

/// Why a connection of the control side failed, or a query on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The socket.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server closed the connection in mid-talk.
    #[error("the server closed the connection unexpectedly")]
    Closed,
    /// Not in the time allowed.
    #[error("timed out while {0}")]
    TimedOut(&'static str),
    /// Encryption was not agreed on, or the certificate is not believed.
    #[error("{0}")]
    Tls(String),
    /// The server answered with an error.
    #[error("{message}")]
    Server {
        /// Its text.
        message: String,
        /// Its code.
        code: Option<SqlState>,
        /// The whole ErrorResponse.
        whole: Vec<u8>,
        /// Of a login: what may help.
        kind: FailureKind,
    },
    /// What the server sends is not PostgreSQL's protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(#[from] tenfold_pgwire::Error),
    /// An answer larger than what is kept in memory at once.
    #[error("the server's answer is too large")]
    TooLarge,
    /// No address to connect to.
    #[error("no host of the database could be resolved: {0}")]
    Unresolved(String),
    /// There is nobody to log in as.
    #[error("no user is known to log in with")]
    NoLogin,
    /// The database named for look-ups is not configured, disabled or the console.
    #[error("there is no database \"{0}\" to look users up in")]
    NoSuchDatabase(String),
    /// The `auth_query` answered something else than a user.
    #[error("the auth_query is wrong: {0}")]
    AuthQuery(&'static str),
    /// Of several hosts those that answer are standbys.
    #[error("no host of the database is a primary")]
    NoPrimary,
    /// A replica that has no position yet.
    #[error("it has not replayed anything yet")]
    NothingReplayed,
    /// The catalogue's rows were not what was asked for.
    #[error("{0}")]
    Catalogue(#[from] tenfold_sql::Error),
}

impl Error {
    /// The error that this ErrorResponse is.
    pub(crate) fn of_server(whole: Vec<u8>) -> Self {
        let report = backend::Report::parse(whole.get(HEADER_BYTES..).unwrap_or_default());
        let (message, code) = match &report {
            Ok(report) => (String::from_utf8_lossy(report.message()).into_owned(), report.sqlstate()),
            Err(_) => ("an unreadable error".to_owned(), None),
        };
        Self::Server { message, code, kind: FailureKind::of(code), whole }
    }

    /// Whether the connection may go on: the server said no to one statement.
    #[must_use]
    pub fn is_of_statement(&self) -> bool {
        match self {
            Self::Server { whole, .. } => {
                backend::Report::parse(whole.get(HEADER_BYTES..).unwrap_or_default())
                    .is_ok_and(|report| !report.is_fatal())
            }
            _ => false,
        }
    }

    /// Whether the server knows us or our database not, or not with this secret: trying again at once helps nobody.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let kinds = [FailureKind::Authentication, FailureKind::NoDatabase, FailureKind::Refused];
        matches!(self, Self::Server { kind, .. } if kinds.contains(kind))
    }
}
