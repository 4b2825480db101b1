//! We prove to a server who we are.
//!
//! **Intuition.** The other end of [`Login`](super::Login): the server chooses the method, we answer with what we have.
//!
//! **Mechanism.** [`ServerLogin::startup`] writes the startup message; [`ServerLogin::message`] takes each message up
//! to the first ReadyForQuery and gathers what the server says about itself. A password the server wants salted is
//! looked for in the [`SaltedCache`] and handed out as [`ServerStep::Derive`] if it isn't there, so of a hundred logins
//! with one password one costs milliseconds.
//!
//! **Failure.** The server's own error is kept whole, to be shown to waiting clients; where we can't go on, one of ours
//! in the same form says why. A server that claims success before it has proved that it knows our SCRAM secret is not
//! believed, and one that asks for too many rounds, or reports without end, is given up.
//!
//! Source: PostgreSQL documentation, "Start-up" in "Message Flow"; `fe-auth.c` of libpq for the order of messages.

use std::sync::Arc;

use tenfold_pgwire::{
    Error, SqlState,
    backend::{self, Authentication, BackendKeyData, ParameterStatus, SaslMechanisms},
    frame::backend as tag,
    md5::Md5Secret,
    scram::{Challenge, Client, NONCE_BYTES, Response},
    sqlstate, startup,
    write::{self, Report},
};

use super::{
    credential::ServerSecret,
    derivation::{Derivation, SaltedCache, SaltedPassword},
};

/// Settings a server may report; PostgreSQL 18 reports 16.
const PARAMS_MAX: usize = 256;
/// Bytes of all reported settings together.
const PARAMS_BYTES_MAX: usize = 64 << 10;
/// The protocol's minor version we ask for: cancel keys of four bytes, and no server has to negotiate.
const PROTOCOL_MINOR: u16 = 0;

/// One login at a server.
#[derive(Debug)]
pub struct ServerLogin {
    user: Arc<str>,
    dbname: Box<str>,
    params: Vec<(String, String)>,
    secret: ServerSecret,
    nonce: [u8; NONCE_BYTES],
    salted: Arc<SaltedCache>,
    end_point: Option<Arc<[u8]>>,
    state: State,
    ready: ServerReady,
    params_bytes: usize,
}

/// What the server has to say next.
#[derive(Debug)]
enum State {
    /// What it asks for, or that it trusts us.
    Request,
    /// Whether what we sent was right.
    Verdict,
    /// How it salted the password.
    Challenge(Client),
    /// Nothing: the password is being salted.
    Salting(Challenge, Derivation),
    /// Its own proof.
    Proof(Response),
    /// What it is like, up to ReadyForQuery.
    Reports,
    /// The login has ended.
    Over,
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
    /// Names and values of ParameterStatus, each name once. PostgreSQL keeps them to ASCII or UTF-8; other bytes are
    /// replaced.
    pub params: Vec<(String, String)>,
    /// Its process, for cancel requests; 0 if it gave none.
    pub process_id: u32,
    /// The key for cancel requests; empty if it gave none.
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

impl FailureKind {
    /// What an error with this code means.
    #[must_use]
    pub fn of(code: Option<SqlState>) -> Self {
        let Some(code) = code else { return Self::Protocol };
        match (code.class(), code) {
            (_, sqlstate::INVALID_CATALOG_NAME) => Self::NoDatabase,
            ("28", _) => Self::Authentication,
            ("53" | "57" | "58" | "08" | "XX", _) => Self::Unavailable,
            _ => Self::Refused,
        }
    }
}

impl ServerLogin {
    /// A login as `user` in `dbname`, with further startup parameters. The nonce has to be random and new.
    #[must_use]
    pub fn new(
        user: Arc<str>,
        dbname: &str,
        params: &[(String, String)],
        secret: ServerSecret,
        nonce: [u8; NONCE_BYTES],
        salted: Arc<SaltedCache>,
    ) -> Self {
        Self {
            user,
            dbname: dbname.into(),
            params: params.to_vec(),
            secret,
            nonce,
            salted,
            end_point: None,
            state: State::Request,
            ready: ServerReady::default(),
            params_bytes: 0,
        }
    }

    /// The hash of the server's certificate for `tls-server-end-point`, where the connection is encrypted and the hash
    /// is defined ([`tenfold_pgwire::scram::end_point_hash`]): SCRAM binds the login to it.
    #[must_use]
    pub fn with_end_point(mut self, end_point: Option<Arc<[u8]>>) -> Self {
        self.end_point = end_point;
        self
    }

    /// As [`ServerLogin::with_end_point`], once the certificate is known.
    pub fn set_end_point(&mut self, end_point: Option<Arc<[u8]>>) {
        self.end_point = end_point;
    }

    /// Writes the startup message.
    pub fn startup(&self, out: &mut Vec<u8>) {
        let own = [("user", &*self.user), ("database", &*self.dbname)];
        let params = self.params.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let params = own.into_iter().chain(params.filter(|(name, _)| !matches!(*name, "user" | "database")));
        let params = params.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        startup::append_startup(out, PROTOCOL_MINOR, params);
    }

    /// Takes a message: its tag and its body, whole.
    pub fn message(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> ServerStep {
        match tag {
            tag::ERROR_RESPONSE => return self.refused_by_server(body),
            tag::NOTICE_RESPONSE => return ServerStep::Continue,
            tag::NEGOTIATE_PROTOCOL_VERSION if !matches!(self.state, State::Reports | State::Over) => {
                return ServerStep::Continue;
            }
            _ => {}
        }
        let answered = match (std::mem::replace(&mut self.state, State::Over), tag) {
            (State::Reports, _) => self.report(tag, body),
            (State::Over | State::Salting(..), _) => Err(Error::BackendTag(tag)),
            (state, tag::AUTHENTICATION) => match Authentication::parse(body) {
                Ok(request) => return self.authentication(state, request, out),
                Err(error) => Err(error),
            },
            _ => Err(Error::BackendTag(tag)),
        };
        answered.unwrap_or_else(|error| self.not_postgresql(error))
    }

    /// Goes on after [`ServerStep::Derive`], and keeps the result for other logins.
    pub fn derived(&mut self, salted: &SaltedPassword, out: &mut Vec<u8>) -> ServerStep {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Salting(challenge, derivation) => {
                self.salted.put(derivation, salted.clone());
                self.prove(challenge, &salted.keys(), out)
            }
            _ => self.failed(sqlstate::INTERNAL_ERROR, "no salting was awaited", None, FailureKind::Protocol),
        }
    }

    fn authentication(&mut self, state: State, request: Authentication<'_>, out: &mut Vec<u8>) -> ServerStep {
        match (state, request) {
            (State::Request | State::Verdict, Authentication::Ok) => {
                self.state = State::Reports;
                ServerStep::Continue
            }
            (State::Request, Authentication::CleartextPassword) => self.send_clear(out),
            (State::Request, Authentication::Md5Password { salt }) => self.send_md5(salt, out),
            (State::Request, Authentication::Sasl(offered)) => self.begin_scram(&offered, out),
            (State::Challenge(client), Authentication::SaslContinue(first)) => {
                match client.challenge(first) {
                    Ok(challenge) => self.salt(challenge, out),
                    Err(error) => self.not_postgresql(error),
                }
            }
            (State::Proof(response), Authentication::SaslFinal(last)) => match response.finish(last) {
                Ok(()) => {
                    self.state = State::Verdict;
                    ServerStep::Continue
                }
                Err(error) => self.not_postgresql(error),
            },
            (
                State::Request,
                Authentication::KerberosV5
                | Authentication::Gss
                | Authentication::GssContinue(_)
                | Authentication::Sspi,
            ) => self.cannot("a method that the pooler does not speak (GSSAPI, SSPI or Kerberos)"),
            _ => self.failed(
                sqlstate::PROTOCOL_VIOLATION,
                "the server's requests for authentication are out of order",
                None,
                FailureKind::Protocol,
            ),
        }
    }

    fn send_clear(&mut self, out: &mut Vec<u8>) -> ServerStep {
        let ServerSecret::Password(password) = &self.secret else { return self.cannot("a password") };
        write::password(out, password.expose().as_bytes());
        self.state = State::Verdict;
        ServerStep::Continue
    }

    fn send_md5(&mut self, salt: [u8; 4], out: &mut Vec<u8>) -> ServerStep {
        let response = match &self.secret {
            ServerSecret::Password(password) => {
                Md5Secret::derive(self.user.as_bytes(), password.expose().as_bytes()).response(salt)
            }
            ServerSecret::Md5(secret) => secret.response(salt),
            ServerSecret::None | ServerSecret::Scram(_) => return self.cannot("an md5 password"),
        };
        write::password(out, &response);
        self.state = State::Verdict;
        ServerStep::Continue
    }

    fn begin_scram(&mut self, offered: &SaslMechanisms<'_>, out: &mut Vec<u8>) -> ServerStep {
        if matches!(self.secret, ServerSecret::None | ServerSecret::Md5(_)) {
            return self.cannot("a SCRAM password");
        }
        match Client::choose(offered, self.end_point.as_deref(), &self.nonce) {
            Ok(client) => {
                write::sasl_initial_response(out, client.mechanism(), Some(client.message()));
                self.state = State::Challenge(client);
                ServerStep::Continue
            }
            Err(error) => self.not_postgresql(error),
        }
    }

    fn salt(&mut self, challenge: Challenge, out: &mut Vec<u8>) -> ServerStep {
        let password = match &self.secret {
            ServerSecret::Scram(keys) => {
                let keys = Arc::clone(keys);
                return self.prove(challenge, &keys, out);
            }
            ServerSecret::Password(password) => password.expose().as_bytes(),
            ServerSecret::None | ServerSecret::Md5(_) => return self.cannot("a SCRAM password"),
        };
        let Some(derivation) = Derivation::new(password, challenge.salt(), challenge.iterations()) else {
            return self.not_postgresql(Error::ScramIterations(challenge.iterations()));
        };
        if let Some(salted) = self.salted.get(&derivation) {
            return self.prove(challenge, &salted.keys(), out);
        }
        self.state = State::Salting(challenge, derivation.clone());
        ServerStep::Derive(derivation)
    }

    fn prove(
        &mut self,
        challenge: Challenge,
        keys: &tenfold_pgwire::scram::Keys,
        out: &mut Vec<u8>,
    ) -> ServerStep {
        let response = challenge.respond(keys);
        write::sasl_response(out, response.message());
        self.state = State::Proof(response);
        ServerStep::Continue
    }

    /// What comes between AuthenticationOk and ReadyForQuery.
    fn report(&mut self, tag: u8, body: &[u8]) -> Result<ServerStep, Error> {
        match tag {
            tag::READY_FOR_QUERY => {
                backend::ReadyForQuery::parse(body)?;
                return Ok(ServerStep::Ready(std::mem::take(&mut self.ready)));
            }
            tag::PARAMETER_STATUS => {
                let status = ParameterStatus::parse(body)?;
                self.keep(status.name, status.value)?;
            }
            tag::BACKEND_KEY_DATA => {
                let key = BackendKeyData::parse(body)?;
                (self.ready.process_id, self.ready.key) = (key.process_id, key.key.into());
            }
            other => return Err(Error::BackendTag(other)),
        }
        self.state = State::Reports;
        Ok(ServerStep::Continue)
    }

    fn keep(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        let params = &mut self.ready.params;
        self.params_bytes += name.len() + value.len();
        if params.len() >= PARAMS_MAX || self.params_bytes > PARAMS_BYTES_MAX {
            return Err(Error::MessageFormat);
        }
        let [name, value] = [name, value].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        match params.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => params.push((name, value)),
        }
        Ok(())
    }

    fn refused_by_server(&mut self, body: &[u8]) -> ServerStep {
        self.state = State::Over;
        let Ok(report) = backend::Report::parse(body) else {
            return self.not_postgresql(Error::MessageFormat);
        };
        let kind = FailureKind::of(report.sqlstate());
        let mut error = Vec::with_capacity(body.len() + 5);
        write::message::header(&mut error, tag::ERROR_RESPONSE, body.len());
        error.extend_from_slice(body);
        ServerStep::Failed { error, kind }
    }

    /// The server asks for what we don't have.
    fn cannot(&self, what: &str) -> ServerStep {
        let message =
            format!("the server asks for {what}, but the pooler knows none for user \"{}\"", self.user);
        let hint = "A stored SCRAM secret serves a server with the same secret only after its user has logged in by \
                    SCRAM; otherwise give the password with the database or in the list of users.";
        self.failed(
            sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
            &message,
            Some(hint),
            FailureKind::Authentication,
        )
    }

    fn not_postgresql(&self, error: Error) -> ServerStep {
        let kind = match error {
            Error::ScramSignature | Error::ScramRefused => FailureKind::Authentication,
            _ => FailureKind::Protocol,
        };
        let message = format!("login at the server failed: {error}");
        self.failed(sqlstate::CONNECTION_FAILURE, &message, None, kind)
    }

    fn failed(&self, code: SqlState, message: &str, hint: Option<&str>, kind: FailureKind) -> ServerStep {
        let mut error = Vec::new();
        let mut report = Report::fatal(code, message);
        report.hint = hint;
        report.append_error(&mut error);
        ServerStep::Failed { error, kind }
    }
}

#[cfg(test)]
mod tests;
