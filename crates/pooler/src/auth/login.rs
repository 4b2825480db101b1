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

use std::{fmt, net::SocketAddr, sync::Arc};

use subtle::ConstantTimeEq as _;
use tenfold_pgwire::{
    Error, SqlState,
    frame::frontend::PASSWORD,
    frontend::{PasswordMessage, SaslInitialResponse, SaslResponse},
    md5::Md5Secret,
    scram::{SHA_256, SHA_256_PLUS, Server, ServerBinding},
    sqlstate,
    write::{self, Report},
};

use super::{
    credential::{Credential, Secret, mock},
    derivation::{Derivation, SaltedPassword},
};
use crate::{config::AuthMethod, refusal::Refusal};

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
#[derive(Clone, Copy)]
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
    seeds: LoginSeeds,
    state: State,
}

/// What the next message has to be.
enum State {
    /// A password in clear.
    Clear,
    /// A password in clear is being salted, to be compared with a verifier.
    Salting(Box<[u8]>),
    /// The answer to this salt.
    Md5([u8; 4]),
    /// A plain secret is being salted, to make a verifier from it.
    Preparing,
    /// The choice of a mechanism, mostly with its first message.
    Choice,
    /// The first message of this mechanism, which was chosen without one.
    First(&'static str),
    /// The second message.
    Proof(Box<Server>),
    /// The login has ended.
    Over,
}

/// What comes next. What was appended to `out` must be sent in any case.
#[derive(Debug)]
#[must_use = "it says whether the client is in"]
pub enum Step {
    /// The client's next message is awaited.
    Continue,
    /// This must be salted on a thread with time for it; then [`Login::derived`]. No message may be taken meanwhile.
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
    /// [`Users::lookup`](super::Users::lookup) found; `None` for an unknown user.
    pub fn begin(
        facts: ClientFacts,
        method: AuthMethod,
        credential: Option<Arc<Credential>>,
        seeds: LoginSeeds,
        out: &mut Vec<u8>,
    ) -> (Self, Step) {
        let mut login = Self { facts, credential, seeds, state: State::Over };
        let step = match method {
            AuthMethod::Trust => login.admit_listed(out),
            AuthMethod::Cert => login.check_certificate(out),
            AuthMethod::Peer => login.check_peer(out),
            AuthMethod::Password => {
                login.state = State::Clear;
                write::authentication_cleartext_password(out);
                Step::Continue
            }
            AuthMethod::Md5 => match login.secret() {
                Some(Secret::Scram(_)) => login.ask_for_scram(out),
                _ => login.ask_for_md5(out),
            },
            AuthMethod::ScramSha256 => login.ask_for_scram(out),
        };
        (login, step)
    }

    /// Takes a message: its tag and its body, whole.
    pub fn message(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Step {
        let state = std::mem::replace(&mut self.state, State::Over);
        let expected = match state {
            State::Clear | State::Md5(_) => "password",
            State::Choice | State::First(_) | State::Proof(_) => "SASL",
            State::Preparing | State::Salting(_) | State::Over => {
                return self.violation("unexpected message during authentication", out);
            }
        };
        if tag != PASSWORD {
            return self.violation(&format!("expected {expected} response, got message type {tag}"), out);
        }
        match state {
            State::Clear => self.clear(body, out),
            State::Md5(salt) => self.md5(salt, body, out),
            State::Choice => self.choice(body, out),
            State::First(mechanism) => self.first(mechanism, SaslResponse::parse(body).message, out),
            State::Proof(server) => self.proof(*server, body, out),
            State::Preparing | State::Salting(_) | State::Over => {
                self.violation("unexpected message during authentication", out)
            }
        }
    }

    /// Goes on after [`Step::Derive`].
    pub fn derived(&mut self, salted: &SaltedPassword, out: &mut Vec<u8>) -> Step {
        match (std::mem::replace(&mut self.state, State::Over), self.credential.clone()) {
            (State::Preparing, Some(credential)) => {
                let _ = credential.set_verifier(salted, &self.seeds.salt_seed);
                self.offer_scram(out)
            }
            (State::Salting(password), Some(credential)) => match credential.secret() {
                Secret::Scram(verifier) if verifier.check(salted) => {
                    credential.learn_password(&password);
                    self.admit(credential, out)
                }
                _ => self.deny("wrong password", out),
            },
            _ => self.violation("unexpected message during authentication", out),
        }
    }

    fn secret(&self) -> Option<&Secret> {
        self.credential.as_ref().map(|credential| credential.secret())
    }

    fn binding(&self) -> ServerBinding<'_> {
        match self.facts.tls.as_ref().and_then(|tls| tls.end_point.as_deref()) {
            Some(hash) => ServerBinding::EndPoint(hash),
            None => ServerBinding::None,
        }
    }
}

/// Methods without a password.
impl Login {
    fn admit_listed(&mut self, out: &mut Vec<u8>) -> Step {
        match self.credential.take() {
            Some(credential) => self.admit(credential, out),
            None => self.deny("no such user", out),
        }
    }

    fn check_certificate(&mut self, out: &mut Vec<u8>) -> Step {
        let name = self.facts.tls.as_ref().map(|tls| (tls.peer_verified, tls.peer_common_name.as_ref()));
        let detail = match name {
            Some((true, Some(name))) if *name == self.facts.user => match self.credential.take() {
                Some(credential) => return self.admit(credential, out),
                None => "no such user".to_owned(),
            },
            Some((true, Some(name))) => format!("the certificate is for \"{name}\""),
            Some((true, None)) => "the certificate has no common name".to_owned(),
            Some((false, _)) => "no certificate of a known authority".to_owned(),
            None => "the connection is not encrypted".to_owned(),
        };
        self.deny_as("certificate", &detail, out)
    }

    fn check_peer(&mut self, out: &mut Vec<u8>) -> Step {
        let detail = match &self.facts.unix_peer {
            Some(UnixPeer { name: Some(name), .. }) if *name == self.facts.user => {
                match self.credential.take() {
                    Some(credential) => return self.admit(credential, out),
                    None => "no such user".to_owned(),
                }
            }
            Some(UnixPeer { name: Some(name), .. }) => format!("the process belongs to \"{name}\""),
            Some(UnixPeer { name: None, uid }) => format!("the process belongs to {uid}, who has no name"),
            None => "not a Unix socket".to_owned(),
        };
        self.deny_as("Peer", &detail, out)
    }
}

/// Passwords in clear, and MD5.
impl Login {
    fn clear(&mut self, body: &[u8], out: &mut Vec<u8>) -> Step {
        let given = match PasswordMessage::parse(body) {
            Ok(message) => message.password,
            Err(error) => return self.malformed(error, out),
        };
        if given.is_empty() {
            return self.violation_as(sqlstate::INVALID_PASSWORD, "empty password returned by client", out);
        }
        let Some(credential) = self.credential.clone() else { return self.deny("no such user", out) };
        let right = match credential.secret() {
            Secret::None => return self.deny("the user has no password", out),
            Secret::Damaged => return self.deny("the stored secret is damaged", out),
            Secret::Plain(password) => bool::from(password.expose().as_bytes().ct_eq(given)),
            Secret::Md5(stored) => stored.matches(&Md5Secret::derive(self.facts.user.as_bytes(), given)),
            Secret::Scram(verifier) => {
                let learned = credential.learned();
                if learned.is_some_and(|learned| learned.expose().as_bytes().ct_eq(given).into()) {
                    return self.admit(credential, out);
                }
                return match Derivation::new(given, verifier.salt(), verifier.iterations()) {
                    Some(derivation) => {
                        self.state = State::Salting(given.into());
                        Step::Derive(derivation)
                    }
                    None => self.deny("checking the password would cost too much", out),
                };
            }
        };
        if !right {
            return self.deny("wrong password", out);
        }
        credential.learn_password(given);
        self.admit(credential, out)
    }

    fn ask_for_md5(&mut self, out: &mut Vec<u8>) -> Step {
        let [a, b, c, d, ..] = self.seeds.nonce;
        let salt = [a, b, c, d];
        self.state = State::Md5(salt);
        write::authentication_md5_password(out, salt);
        Step::Continue
    }

    fn md5(&mut self, salt: [u8; 4], body: &[u8], out: &mut Vec<u8>) -> Step {
        let given = match PasswordMessage::parse(body) {
            Ok(message) => message.password,
            Err(error) => return self.malformed(error, out),
        };
        let Some(credential) = self.credential.take() else { return self.deny("no such user", out) };
        let right = match credential.secret() {
            Secret::Plain(password) => {
                let user = self.facts.user.as_bytes();
                Md5Secret::derive(user, password.expose().as_bytes()).check(salt, given)
            }
            Secret::Md5(secret) => secret.check(salt, given),
            Secret::None => return self.deny("the user has no password", out),
            Secret::Damaged => return self.deny("the stored secret is damaged", out),
            Secret::Scram(_) => return self.deny("a SCRAM secret can't be used with md5", out),
        };
        if right { self.admit(credential, out) } else { self.deny("wrong password", out) }
    }
}

/// SCRAM.
impl Login {
    fn ask_for_scram(&mut self, out: &mut Vec<u8>) -> Step {
        let credential = self.credential.as_ref().filter(|credential| credential.verifier().is_none());
        match credential.and_then(|credential| credential.derivation(&self.seeds.salt_seed)) {
            Some(derivation) => {
                self.state = State::Preparing;
                Step::Derive(derivation)
            }
            None => self.offer_scram(out),
        }
    }

    fn offer_scram(&mut self, out: &mut Vec<u8>) -> Step {
        write::authentication_sasl(out, self.binding().mechanisms());
        self.state = State::Choice;
        Step::Continue
    }

    fn choice(&mut self, body: &[u8], out: &mut Vec<u8>) -> Step {
        let response = match SaslInitialResponse::parse(body) {
            Ok(response) => response,
            Err(error) => return self.malformed(error, out),
        };
        let known = [SHA_256, SHA_256_PLUS].into_iter().find(|name| name.as_bytes() == response.mechanism);
        let Some(mechanism) = known else { return self.malformed(Error::SaslMechanism, out) };
        match response.initial {
            Some(first) => self.first(mechanism, first, out),
            None => {
                write::authentication_sasl_continue(out, b"");
                self.state = State::First(mechanism);
                Step::Continue
            }
        }
    }

    fn first(&mut self, mechanism: &str, message: &[u8], out: &mut Vec<u8>) -> Step {
        let made_up;
        let verifier = match self.credential.as_ref().and_then(|credential| credential.verifier()) {
            Some(verifier) => verifier,
            None => {
                made_up = mock(&self.facts.user, &self.seeds.salt_seed);
                &made_up
            }
        };
        let nonce = &self.seeds.nonce;
        match Server::start(verifier, self.binding(), mechanism.as_bytes(), message, nonce) {
            Ok(server) => {
                write::authentication_sasl_continue(out, server.challenge());
                self.state = State::Proof(Box::new(server));
                Step::Continue
            }
            Err(error) => self.malformed(error, out),
        }
    }

    fn proof(&mut self, server: Server, body: &[u8], out: &mut Vec<u8>) -> Step {
        match (server.finish(SaslResponse::parse(body).message), self.credential.take()) {
            (Ok(accepted), Some(credential)) => {
                credential.learn_keys(accepted.keys);
                write::authentication_sasl_final(out, &accepted.message);
                self.admit(credential, out)
            }
            (Ok(_), None) => self.deny("no such user", out),
            (Err(Error::ScramProof), credential) => {
                let detail = match credential.as_ref().map(|credential| credential.secret()) {
                    None => "no such user",
                    Some(Secret::None) => "the user has no password",
                    Some(Secret::Md5(_)) => "an md5 secret can't be used with SCRAM",
                    Some(Secret::Damaged) => "the stored secret is damaged",
                    Some(Secret::Plain(_) | Secret::Scram(_)) => "wrong password",
                };
                self.deny(detail, out)
            }
            (Err(error), _) => self.malformed(error, out),
        }
    }
}

/// Endings.
impl Login {
    fn admit(&mut self, credential: Arc<Credential>, out: &mut Vec<u8>) -> Step {
        self.state = State::Over;
        write::authentication_ok(out);
        Step::Done(Authenticated { credential })
    }

    /// The refusal that never says why.
    fn deny(&self, detail: &str, out: &mut Vec<u8>) -> Step {
        let message = format!("password authentication failed for user \"{}\"", self.facts.user);
        Report::fatal(sqlstate::INVALID_PASSWORD, &message).append_error(out);
        self.refused(Refusal::Authentication, detail)
    }

    /// The refusal of a method without a password.
    fn deny_as(&self, method: &str, detail: &str, out: &mut Vec<u8>) -> Step {
        let message = format!("{method} authentication failed for user \"{}\"", self.facts.user);
        Report::fatal(sqlstate::INVALID_AUTHORIZATION_SPECIFICATION, &message).append_error(out);
        self.refused(Refusal::Authentication, detail)
    }

    fn malformed(&self, error: Error, out: &mut Vec<u8>) -> Step {
        let message = error.to_string();
        let mut report = Report::fatal(error.sqlstate(), &message);
        (report.detail, report.hint) = (error.detail(), error.hint());
        report.append_error(out);
        let detail = error.detail().unwrap_or_default();
        self.refused(Refusal::Protocol, &format!("{message} {detail}"))
    }

    fn violation(&self, message: &str, out: &mut Vec<u8>) -> Step {
        self.violation_as(sqlstate::PROTOCOL_VIOLATION, message, out)
    }

    fn violation_as(&self, code: SqlState, message: &str, out: &mut Vec<u8>) -> Step {
        Report::fatal(code, message).append_error(out);
        let refusal =
            if code == sqlstate::INVALID_PASSWORD { Refusal::Authentication } else { Refusal::Protocol };
        self.refused(refusal, message)
    }

    fn refused(&self, refusal: Refusal, detail: &str) -> Step {
        Step::Refused(Denial { refusal, detail: detail.trim_end().to_owned() })
    }
}

impl fmt::Debug for LoginSeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginSeeds(…)")
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clear => "Clear",
            Self::Salting(_) => "Salting",
            Self::Md5(_) => "Md5",
            Self::Preparing => "Preparing",
            Self::Choice => "Choice",
            Self::First(_) => "First",
            Self::Proof(_) => "Proof",
            Self::Over => "Over",
        })
    }
}

#[cfg(test)]
mod tests;
