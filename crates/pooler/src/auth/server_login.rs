//! We prove to a server who we are.
//!
//! **Intuition.** The other end of [`Login`](super::Login): the server chooses the method, we answer with what we have.
//!
//! **Mechanism.** [`ServerLogin::startup`] writes the startup message; [`ServerLogin::message`] takes each message up
//! to the first ReadyForQuery and gathers what the server says about itself.
//!
//! **Failure.** The server's own error is kept whole, to be shown to waiting clients; where we can't go on, one of ours
//! in the same form says why. A hostile server can neither make us hash for ever nor show our password to it in clear
//! unless the method is `password`.

use std::sync::Arc;

use super::{
    credential::ServerSecret,
    derivation::{Derivation, SaltedCache, SaltedPassword},
};

/// One login at a server.
#[derive(Debug)]
pub struct ServerLogin {
    startup: Vec<u8>,
    secret: ServerSecret,
    salted: Arc<SaltedCache>,
}

/// What comes next. What was appended to `out` must be sent in any case.
#[derive(Debug)]
#[must_use = "it says whether we are in"]
pub enum ServerStep {
    /// The server's next message is awaited.
    Continue,
    /// This must be salted on a thread with time for it; then [`ServerLogin::derived`].
    Derive(Derivation),
    /// We are in, and the server awaits the first query.
    Ready(ServerReady),
    /// We are not; the connection must be closed.
    Failed {
        /// A whole ErrorResponse, the server's own or ours.
        error: Vec<u8>,
        /// What to do about it.
        kind: FailureKind,
    },
}

/// What the server said about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerReady {
    /// Names and values of ParameterStatus, in the order they came; the last counts where one came twice.
    pub params: Vec<(Box<[u8]>, Box<[u8]>)>,
    /// Its process, for cancel requests; 0 if it gave none.
    pub process_id: u32,
    /// The key for cancel requests: 4 bytes, up to 256 in protocol 3.2, none if it gave none.
    pub key: Box<[u8]>,
}

/// Why a server login failed, by what may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The server starts, stops or is full: the same login may work later.
    Unavailable,
    /// The server does not let this user in, or not with this secret.
    Authentication,
    /// The server knows no such database.
    NoDatabase,
    /// The server says no for another reason, such as a startup parameter it does not accept.
    Refused,
    /// What the server sends is not PostgreSQL's protocol.
    Protocol,
}

impl ServerLogin {
    /// A login as `user` in `dbname`, with further startup parameters.
    #[must_use]
    pub fn new(
        user: &str,
        dbname: &str,
        params: &[(String, String)],
        secret: ServerSecret,
        nonce: [u8; 18],
        salted: Arc<SaltedCache>,
    ) -> Self {
        let _ = (user, dbname, params, nonce);
        Self { startup: Vec::new(), secret, salted }
    }

    /// The hash of the server's certificate for `tls-server-end-point` (RFC 5929), where the connection is encrypted:
    /// lets SCRAM bind the login to it.
    #[must_use]
    pub fn with_end_point(self, end_point: Arc<[u8]>) -> Self {
        let _ = end_point;
        self
    }

    /// Writes the startup message.
    pub fn startup(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.startup);
    }

    /// Takes a message: its tag and its body, whole.
    pub fn message(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> ServerStep {
        let _ = (tag, body, out, &self.secret, &self.salted);
        ServerStep::Continue
    }

    /// Goes on after [`ServerStep::Derive`].
    pub fn derived(&mut self, salted: &SaltedPassword, out: &mut Vec<u8>) -> ServerStep {
        let _ = (salted, out);
        ServerStep::Continue
    }
}
