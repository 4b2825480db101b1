//! A client of PostgreSQL for `bench pooler-idle`: logs in by SCRAM-SHA-256, asks, waits, leaves.
//!
//! **Intuition.** Ten thousand clients of a real driver would fill this machine's memory before the pooler's, and hash
//! their password ten thousand times. These hold a socket each and share one hashed password.
//!
//! **Mechanism.** Blocking sockets and `tenfold-pgwire`. What a client sends and what it reads are separate calls, so
//! that thousands can ask before the first is answered.
//!
//! **Failure.** An ErrorResponse is an error with its message; so is a close.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tenfold_pgwire::backend::{Authentication, DataRow, Report};
use tenfold_pgwire::frame::{Frames, backend as tag};
use tenfold_pgwire::scram::{self, Keys, NONCE_BYTES, SaltedPassword};
use tenfold_pgwire::{startup, write};

/// An answer here is a few hundred bytes; one that grows beyond this is no answer to what was asked.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Longer than 10,000 queries at once take on a busy machine.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(90);

/// Who logs in, with the hashed password of every salt seen.
pub(super) struct Login {
    pub(super) user: &'static str,
    pub(super) database: &'static str,
    pub(super) password: &'static str,
    keys: HashMap<(Vec<u8>, u32), Keys>,
    random: File,
}

impl Login {
    pub(super) fn new(user: &'static str, database: &'static str, password: &'static str) -> Result<Self> {
        let random = File::open("/dev/urandom").context("opening /dev/urandom")?;
        Ok(Self { user, database, password, keys: HashMap::new(), random })
    }

    /// Connects, proves itself as it is asked to, and waits until it may ask.
    pub(super) fn connect(&mut self, port: u16) -> Result<Client> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        let mut client = Client { stream };
        let mut packet = Vec::new();
        let settings = [("user", self.user), ("database", self.database), ("application_name", "idle")];
        startup::append_startup(
            &mut packet,
            0,
            settings.map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        );
        client.send(&packet)?;
        let mut exchange = Exchange::Begin;
        loop {
            for (kind, body) in client.messages(|kind| kind == tag::AUTHENTICATION || is_last(kind))? {
                if kind == tag::READY_FOR_QUERY {
                    return Ok(client);
                }
                if kind == tag::AUTHENTICATION {
                    exchange = self.step(exchange, &body, &mut client)?;
                }
            }
        }
    }

    fn step(&mut self, exchange: Exchange, body: &[u8], client: &mut Client) -> Result<Exchange> {
        let mut out = Vec::new();
        let next = match (exchange, Authentication::parse(body)?) {
            (_, Authentication::Ok) => return Ok(Exchange::Begin),
            (Exchange::Begin, Authentication::Sasl(offered)) => {
                let mut nonce = [0; NONCE_BYTES];
                self.random.read_exact(&mut nonce)?;
                let begun = scram::Client::choose(&offered, None, &nonce)?;
                write::sasl_initial_response(&mut out, begun.mechanism(), Some(begun.message()));
                Exchange::Begun(begun)
            }
            (Exchange::Begun(begun), Authentication::SaslContinue(message)) => {
                let challenge = begun.challenge(message)?;
                let salt = (challenge.salt().to_vec(), challenge.iterations());
                let password = self.password.as_bytes();
                let keys = self.keys.entry(salt);
                let keys = keys.or_insert_with_key(|(salt, iterations)| {
                    SaltedPassword::derive(password, salt, *iterations).keys()
                });
                let response = challenge.respond(keys);
                write::sasl_response(&mut out, response.message());
                Exchange::Answered(response)
            }
            (Exchange::Answered(response), Authentication::SaslFinal(message)) => {
                response.finish(message)?;
                Exchange::Begin
            }
            (_, other) => bail!("unexpected: {other:?}"),
        };
        client.send(&out)?;
        Ok(next)
    }
}

enum Exchange {
    Begin,
    Begun(scram::Client),
    Answered(scram::Response),
}

/// A client that is logged in. Dropping it says goodbye.
pub(super) struct Client {
    stream: TcpStream,
}

impl Client {
    /// Asks; [`Client::answer`] waits.
    pub(super) fn ask(&mut self, sql: &str) -> Result<()> {
        let mut out = Vec::new();
        write::query(&mut out, sql.as_bytes());
        self.send(&out)
    }

    /// Waits for the answer: the first column of its rows.
    pub(super) fn answer(&mut self) -> Result<Vec<String>> {
        let mut rows = Vec::new();
        for (kind, body) in self.messages(is_last)? {
            if kind == tag::DATA_ROW {
                let first = DataRow::parse(&body)?.column(0).flatten().unwrap_or_default();
                rows.push(String::from_utf8_lossy(first).into_owned());
            }
        }
        Ok(rows)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("sending")
    }

    /// Whole messages up to one that ends what was waited for, which is also the last one there.
    fn messages(&mut self, is_last: impl Fn(u8) -> bool) -> Result<Vec<(u8, Vec<u8>)>> {
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let read = self.stream.read(&mut piece).context("receiving")?;
            ensure!(read > 0, "closed without a word");
            bytes.extend_from_slice(&piece[..read]);
            ensure!(bytes.len() <= ANSWER_BYTES_MAX, "an answer of more than {ANSWER_BYTES_MAX} bytes");
            let mut frames = Frames::new(&bytes);
            let mut found = Vec::new();
            for frame in frames.by_ref() {
                let frame = frame?;
                if frame.tag == tag::ERROR_RESPONSE {
                    let message =
                        String::from_utf8_lossy(Report::parse(frame.body())?.message()).into_owned();
                    bail!("{message}");
                }
                found.push((frame.tag, frame.body().to_vec()));
            }
            let is_whole = frames.remaining().is_empty();
            if is_whole && found.last().is_some_and(|(kind, _)| is_last(*kind)) {
                return Ok(found);
            }
        }
    }
}

fn is_last(kind: u8) -> bool {
    kind == tag::READY_FOR_QUERY
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut out = Vec::new();
        write::terminate(&mut out);
        // Whoever has closed already needs no goodbye.
        let _ = self.stream.write_all(&out);
    }
}
