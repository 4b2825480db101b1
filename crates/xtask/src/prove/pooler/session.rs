//! A client of PostgreSQL that believes nothing: every message is read, and whatever was not asked for is an end.
//!
//! Blocking, on `tenfold-pgwire`'s frames alone. What the wire brought is told as it came: rows, errors with their
//! SQLSTATE, a close with or without last words.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tenfold_pgwire::backend::{
    Authentication, BackendKeyData, CommandComplete, DataRow, NotificationResponse, Report,
};
use tenfold_pgwire::frame::Frames;
use tenfold_pgwire::frontend::Format;
use tenfold_pgwire::scram::{Client, ClientBinding, NONCE_BYTES, SaltedPassword};
use tenfold_pgwire::{startup, write};

use super::stand::PASSWORD;

/// An answer that takes longer never comes.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// What came up to one ReadyForQuery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// First columns.
    pub(super) rows: Vec<String>,
    pub(super) error: Option<Failure>,
    /// The last command's tag.
    pub(super) tag: String,
    /// Of the transaction: `I`, `T`, `E`.
    pub(super) status: u8,
}

/// An ErrorResponse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: String,
    pub(super) message: String,
}

/// Why a connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It was closed, after these last words if there were any.
    Closed(Option<Failure>),
    /// Nothing came for [`ANSWER_TIME_MAX`].
    Silent,
    /// Nobody listens.
    Refused,
}

pub(super) struct Session {
    stream: TcpStream,
    read: Vec<u8>,
    process_id: u32,
    key: Vec<u8>,
    /// What notifications said, of any channel.
    pub(super) heard: Vec<String>,
    /// While the server asks for a password.
    scram: Option<Client>,
}

impl Session {
    pub(super) fn connect(to: SocketAddr) -> Result<Self, Lost> {
        Self::connect_as(to, "postgres")
    }

    pub(super) fn connect_as(to: SocketAddr, user: &str) -> Result<Self, Lost> {
        let stream = TcpStream::connect(to).map_err(|_| Lost::Refused)?;
        let ready = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(ANSWER_TIME_MAX)));
        ready.map_err(|_| Lost::Refused)?;
        let mut session =
            Self { stream, read: Vec::new(), process_id: 0, key: Vec::new(), heard: Vec::new(), scram: None };
        let mut out = Vec::new();
        let params = [(&b"user"[..], user.as_bytes()), (b"database", b"postgres")];
        startup::append_startup(&mut out, 0, params);
        session.send(&out)?;
        let answer = session.answer()?;
        match answer.error {
            Some(error) => Err(Lost::Closed(Some(error))),
            None => Ok(session),
        }
    }

    pub(super) fn send(&mut self, out: &[u8]) -> Result<(), Lost> {
        // What the other side said before it closed is still to be read.
        let _ = self.stream.write_all(out);
        Ok(())
    }

    pub(super) fn query(&mut self, sql: &str) -> Result<Answer, Lost> {
        let mut out = Vec::new();
        write::query(&mut out, sql.as_bytes());
        self.send(&out)?;
        self.answer()
    }

    /// Reads up to ReadyForQuery.
    pub(super) fn answer(&mut self) -> Result<Answer, Lost> {
        let mut answer = Answer::default();
        loop {
            let mut frames = Frames::new(&self.read);
            let mut is_ready = false;
            let mut asked = None;
            for frame in &mut frames {
                let Ok(frame) = frame else { return Err(Lost::Closed(answer.error)) };
                let body = frame.body();
                match frame.tag {
                    b'D' => answer.rows.push(first_column(body)),
                    b'E' => answer.error = Some(failure(body)),
                    b'A' => self.heard.extend(payload(body)),
                    b'R' => {
                        asked = Some(body.to_vec());
                        break;
                    }
                    b'C' => {
                        let tag = CommandComplete::parse(body).map(|complete| complete.tag.to_vec());
                        answer.tag = String::from_utf8_lossy(&tag.unwrap_or_default()).into_owned();
                    }
                    b'K' => {
                        if let Ok(key) = BackendKeyData::parse(body) {
                            (self.process_id, self.key) = (key.process_id, key.key.to_vec());
                        }
                    }
                    b'Z' => {
                        answer.status = body.first().copied().unwrap_or_default();
                        is_ready = true;
                        break;
                    }
                    _ => {}
                }
            }
            let consumed = frames.consumed();
            self.read.drain(..consumed);
            if is_ready {
                return Ok(answer);
            }
            match asked {
                Some(asked) => self.prove(&asked)?,
                None => self.fill(&answer)?,
            }
        }
    }

    /// Answers what the server asks of a client that logs in.
    fn prove(&mut self, asked: &[u8]) -> Result<(), Lost> {
        let mut out = Vec::new();
        match Authentication::parse(asked) {
            Ok(Authentication::Sasl(_)) => {
                // A nonce has to be new where somebody listens, and nobody does.
                let client = Client::start(ClientBinding::Unsupported, &[7; NONCE_BYTES]);
                write::sasl_initial_response(&mut out, client.mechanism(), Some(client.message()));
                self.scram = Some(client);
            }
            Ok(Authentication::SaslContinue(first)) => {
                let challenge = self.scram.take().and_then(|client| client.challenge(first).ok());
                let Some(challenge) = challenge else { return Err(Lost::Closed(None)) };
                let (salt, iterations) = (challenge.salt(), challenge.iterations());
                let keys = SaltedPassword::derive(PASSWORD.as_bytes(), salt, iterations).keys();
                write::sasl_response(&mut out, challenge.respond(&keys).message());
            }
            _ => {}
        }
        self.send(&out)
    }

    fn fill(&mut self, answer: &Answer) -> Result<(), Lost> {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => Err(Lost::Closed(answer.error.clone())),
            Ok(count) => {
                self.read.extend_from_slice(&piece[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => Err(Lost::Silent),
            Err(_) => Err(Lost::Closed(answer.error.clone())),
        }
    }

    /// Waits for the first bytes of an answer, and reads no further.
    pub(super) fn glimpse(&mut self) {
        let _ = self.fill(&Answer::default());
    }

    /// Asks for what runs to be cancelled, on a connection of its own, and waits until that was passed on.
    pub(super) fn cancel(&self, to: SocketAddr) {
        let Ok(mut stream) = TcpStream::connect(to) else { return };
        let mut out = Vec::new();
        startup::append_cancel(&mut out, self.process_id, &self.key);
        let _ = stream.set_read_timeout(Some(ANSWER_TIME_MAX));
        if stream.write_all(&out).is_ok() {
            let _ = stream.read(&mut [0; 1]);
        }
    }
}

/// A statement with one parameter, by the extended protocol.
pub(super) fn append_execute(out: &mut Vec<u8>, sql: &str, param: &str) {
    write::parse(out, b"", sql.as_bytes(), []);
    write::bind(out, b"", b"", Format::Text, [Some(param.as_bytes())], Format::Text);
    write::execute(out, b"", 0);
    write::sync(out);
}

/// What a NotificationResponse says.
fn payload(body: &[u8]) -> Option<String> {
    let notification = NotificationResponse::parse(body).ok()?;
    Some(String::from_utf8_lossy(notification.payload).into_owned())
}

fn first_column(body: &[u8]) -> String {
    let column = DataRow::parse(body).ok().and_then(|row| row.columns().next().flatten().map(<[u8]>::to_vec));
    String::from_utf8_lossy(&column.unwrap_or_default()).into_owned()
}

fn failure(body: &[u8]) -> Failure {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    match Report::parse(body) {
        Ok(report) => Failure { code: text(report.field(b'C')), message: text(Some(report.message())) },
        Err(_) => Failure { code: String::new(), message: "an ErrorResponse that is none".into() },
    }
}
