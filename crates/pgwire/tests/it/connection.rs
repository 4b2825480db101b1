//! A client made of nothing but this crate and a blocking socket, to speak with a real PostgreSQL.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::Duration;

use tenfold_pgwire::backend::{Authentication, BackendKeyData, DataRow, Report};
use tenfold_pgwire::frame::{self, backend as tag};
use tenfold_pgwire::md5::Md5Secret;
use tenfold_pgwire::scram::{Client, Keys, NONCE_BYTES, SaltedPassword};
use tenfold_pgwire::{startup, write};
use tenfold_testkit::postgres::{Cluster, Options};

const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The cluster that believes everybody; one for all tests, stopped when this process ends.
pub(crate) fn trusting() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&Options::default()).expect("PostgreSQL starts"))
}

/// How to prove who we are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proof<'a> {
    Password(&'a str),
    Keys(&'a Keys),
}

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) tag: u8,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// SQLSTATE of an error or notice.
    pub(crate) fn code(&self) -> String {
        let report = Report::parse(&self.body).expect("a good report");
        report.sqlstate().expect("a code").to_string()
    }

    /// The first column of a row, as text.
    pub(crate) fn first_column(&self) -> String {
        let row = DataRow::parse(&self.body).expect("a good row");
        String::from_utf8_lossy(row.column(0).flatten().unwrap_or_default()).into_owned()
    }
}

pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    pub(crate) process_id: u32,
    pub(crate) key: Vec<u8>,
    /// What the login brought: settings and the negotiation, if there was one.
    pub(crate) greetings: Vec<Message>,
    /// Kinds of authentication the server asked for.
    pub(crate) asked: Vec<&'static str>,
}

impl Connection {
    pub(crate) fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_read_timeout(Some(ANSWER_LIMIT)).expect("a timeout");
        let (greetings, asked) = (Vec::new(), Vec::new());
        Self { stream, received: Vec::new(), process_id: 0, key: Vec::new(), greetings, asked }
    }

    /// Logs in; the server's error if it refuses.
    pub(crate) fn login(
        port: u16,
        minor: u16,
        params: &[(&[u8], &[u8])],
        proof: Proof<'_>,
    ) -> Result<Self, Message> {
        let mut connection = Self::open(port);
        let mut out = Vec::new();
        startup::append_startup(&mut out, minor, params.iter().copied());
        connection.send(&out);
        connection.authenticate(params[0].1, proof)?;
        loop {
            let message = connection.receive();
            match message.tag {
                tag::ERROR_RESPONSE => return Err(message),
                tag::READY_FOR_QUERY => return Ok(connection),
                tag::BACKEND_KEY_DATA => {
                    let key = BackendKeyData::parse(&message.body).expect("a good key");
                    (connection.process_id, connection.key) = (key.process_id, key.key.to_vec());
                }
                _ => connection.greetings.push(message),
            }
        }
    }

    fn authenticate(&mut self, user: &[u8], proof: Proof<'_>) -> Result<(), Message> {
        loop {
            let message = self.receive();
            if message.tag == tag::ERROR_RESPONSE {
                return Err(message);
            }
            if message.tag == tag::NEGOTIATE_PROTOCOL_VERSION {
                self.greetings.push(message);
                continue;
            }
            assert_eq!(message.tag, tag::AUTHENTICATION);
            let mut out = Vec::new();
            match (Authentication::parse(&message.body).expect("a good request"), proof) {
                (Authentication::Ok, _) => return Ok(()),
                (Authentication::CleartextPassword, Proof::Password(password)) => {
                    self.asked.push("password");
                    write::password(&mut out, password.as_bytes());
                }
                (Authentication::Md5Password { salt }, Proof::Password(password)) => {
                    self.asked.push("md5");
                    let response = Md5Secret::derive(user, password.as_bytes()).response(salt);
                    write::password(&mut out, &response);
                }
                (Authentication::Sasl(offered), proof) => {
                    self.asked.push("scram");
                    let client = Client::choose(&offered, None, &[42; NONCE_BYTES]).expect("SCRAM-SHA-256");
                    return self.scram(client, proof);
                }
                (other, _) => panic!("{other:?}"),
            }
            self.send(&out);
        }
    }

    fn scram(&mut self, client: Client, proof: Proof<'_>) -> Result<(), Message> {
        let mut out = Vec::new();
        write::sasl_initial_response(&mut out, client.mechanism(), Some(client.message()));
        let message = self.ask(&out)?;
        let Ok(Authentication::SaslContinue(challenge)) = Authentication::parse(&message.body) else {
            panic!("{message:?}")
        };
        let challenge = client.challenge(challenge).expect("a good challenge");
        let keys = match proof {
            Proof::Keys(keys) => keys.clone(),
            Proof::Password(password) => {
                SaltedPassword::derive(password.as_bytes(), challenge.salt(), challenge.iterations()).keys()
            }
        };
        let response = challenge.respond(&keys);
        out.clear();
        write::sasl_response(&mut out, response.message());
        let message = self.ask(&out)?;
        let Ok(Authentication::SaslFinal(last)) = Authentication::parse(&message.body) else {
            panic!("{message:?}")
        };
        response.finish(last).expect("the server knows the password");
        let message = self.receive();
        assert_eq!(Authentication::parse(&message.body), Ok(Authentication::Ok));
        Ok(())
    }

    fn ask(&mut self, out: &[u8]) -> Result<Message, Message> {
        self.send(out);
        let message = self.receive();
        if message.tag == tag::ERROR_RESPONSE { Err(message) } else { Ok(message) }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it takes what we send");
    }

    /// The next message, held to the tags that exist.
    pub(crate) fn receive(&mut self) -> Message {
        loop {
            if let Some(header) = frame::backend_header(&self.received).expect("a good header")
                && self.received.len() >= header.len
            {
                let bytes: Vec<u8> = self.received.drain(..header.len).collect();
                return Message { tag: header.tag, body: bytes[frame::HEADER_BYTES..].to_vec() };
            }
            assert!(self.fill(), "the server closed");
        }
    }

    fn fill(&mut self) -> bool {
        let mut piece = [0; 4096];
        let len = self.stream.read(&mut piece).expect("an answer in time");
        self.received.extend_from_slice(&piece[..len]);
        len > 0
    }

    /// Reads what is left until the server closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.received)
    }

    /// All messages up to the next ReadyForQuery, with it.
    pub(crate) fn until_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while messages.last().is_none_or(|last: &Message| last.tag != tag::READY_FOR_QUERY) {
            messages.push(self.receive());
        }
        messages
    }

    pub(crate) fn query(&mut self, sql: &str) -> Vec<Message> {
        let mut out = Vec::new();
        write::query(&mut out, sql.as_bytes());
        self.send(&out);
        self.until_ready()
    }
}

/// The tags of messages, as text.
pub(crate) fn tags(messages: &[Message]) -> String {
    messages.iter().map(|message| char::from(message.tag)).collect()
}
