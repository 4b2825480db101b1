//! A small PostgreSQL client for the control side's own questions.
//!
//! **Intuition.** A monitor, a hub and a look-up each need one connection, a few queries and notifications: a driver
//! would bring a hundred crates for it, and we have both ends of the protocol anyway.
//!
//! **Mechanism.** [`Client::connect`] negotiates TLS and logs in by [`ServerLogin`]; [`Client::each_row`] and
//! [`Client::bound`] run one statement in text form; [`Client::notification`] waits between them. Reading is
//! cancellation safe: bytes go straight into a buffer that outlives the read.
//!
//! **Failure.** Every buffer has an end: a message, the rows kept, the notifications that pile up during a query. A
//! query that fails leaves the connection usable if [`Error::is_of_statement`] says so; after any other error, or when
//! a query was abandoned half-way, the connection must be dropped.

use std::{collections::VecDeque, fmt, io, sync::Arc, time::Duration};

use tenfold_pgwire::{
    backend::{DataRow, NotificationResponse},
    frame::{self, HEADER_BYTES, backend as tag},
    frontend::{Format, Target},
    scram::end_point_hash,
    write,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{
    error::Error,
    secrets::Salter,
    target::{Address, Endpoint},
};
use crate::{
    auth::{ServerLogin, ServerReady, ServerSecret, ServerStep, TlsNegotiation, TlsStep},
    config::ServerTls,
};

/// The longest message taken: a catalogue row may hold the source of a large function.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// The longest message taken before the login is done.
const LOGIN_MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Read at once.
const READ_BYTES: usize = 16 << 10;
/// Room kept between messages.
const KEPT_BYTES: usize = 64 << 10;
/// Rows that [`Client::rows`] and [`Client::bound`] keep.
const ROWS_MAX: usize = 10_000;
/// Bytes of notifications that may pile up during a query.
const PILED_BYTES_MAX: usize = 8 << 20;
/// Silence after which the kernel asks whether the server is still there.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// What the connections are called in `pg_stat_activity`.
const APPLICATION_NAME: &str = "tenfold";

/// A row in text form.
pub type Row = Vec<Option<String>>;

/// Everything needed to log in.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// Who.
    pub user: Arc<str>,
    /// The database's name at the server.
    pub dbname: String,
    /// With what.
    pub secret: ServerSecret,
    /// Encryption.
    pub tls: ServerTls,
    /// Until the login is done.
    pub limit: Duration,
}

/// A connection that awaits a query.
pub struct Client {
    io: Box<dyn Stream>,
    inbox: Inbox,
    /// Notifications that arrived during a query: whole messages.
    piled: VecDeque<Vec<u8>>,
    piled_bytes: usize,
    ready: ServerReady,
}

/// TCP, a Unix socket, or TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Bytes read and not yet used.
#[derive(Debug, Default)]
struct Inbox {
    bytes: Vec<u8>,
    used: usize,
}

impl Client {
    /// Connects and logs in, within the entrance's limit, trying with and without TLS as its mode says.
    ///
    /// # Errors
    /// All of [`Error`]'s but those of the catalogue.
    pub async fn connect(address: &Address, entrance: &Entrance, salter: &Salter) -> Result<Self, Error> {
        let attempts = async {
            let unix = matches!(address.at, Endpoint::Unix(_));
            let mut tls = TlsNegotiation::new(entrance.tls.mode, unix);
            loop {
                let error = match Self::attempt(address, entrance, salter, &mut tls).await {
                    Ok(client) => return Ok(client),
                    Err(error) => error,
                };
                // A refused TCP connection is not about encryption.
                let answered =
                    !matches!(&error, Error::Io(io) if io.kind() == io::ErrorKind::ConnectionRefused);
                if !answered || !tls.retry(matches!(error, Error::Server { .. })) {
                    return Err(error);
                }
            }
        };
        timeout(entrance.limit, attempts).await.unwrap_or(Err(Error::TimedOut("connecting")))
    }

    async fn attempt(
        address: &Address,
        entrance: &Entrance,
        salter: &Salter,
        tls: &mut TlsNegotiation,
    ) -> Result<Self, Error> {
        let (io, end_point) = match &address.at {
            Endpoint::Unix(path) => (Box::new(UnixStream::connect(path).await?) as Box<dyn Stream>, None),
            Endpoint::Tcp(at) => {
                let stream = TcpStream::connect(at).await?;
                stream.set_nodelay(true)?;
                let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
                socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                encrypted(stream, &address.name, entrance, tls).await?
            }
        };
        let params = [("application_name", APPLICATION_NAME), ("client_encoding", "UTF8")];
        let params = params.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let (user, cache) = (Arc::clone(&entrance.user), Arc::clone(salter.cache()));
        let secret = entrance.secret.clone();
        let login = ServerLogin::new(user, &entrance.dbname, &params, secret, nonce()?, cache);
        let mut client = Self {
            io,
            inbox: Inbox::default(),
            piled: VecDeque::new(),
            piled_bytes: 0,
            ready: ServerReady::default(),
        };
        client.login(login.with_end_point(end_point), salter).await?;
        Ok(client)
    }

    async fn login(&mut self, mut login: ServerLogin, salter: &Salter) -> Result<(), Error> {
        let mut out = Vec::new();
        login.startup(&mut out);
        self.io.write_all(&out).await?;
        loop {
            let message = self.inbox.next(&mut self.io, LOGIN_MESSAGE_BYTES_MAX).await?;
            out.clear();
            let mut step = login.message(message.tag(), message.body(), &mut out);
            if let ServerStep::Derive(derivation) = step {
                let salted = salter.salt(derivation).await;
                step = login.derived(&salted, &mut out);
            }
            match step {
                ServerStep::Continue => self.io.write_all(&out).await?,
                ServerStep::Ready(ready) => {
                    self.ready = ready;
                    return Ok(());
                }
                ServerStep::Failed { error, .. } => return Err(Error::of_server(error)),
                // `derived` hands out no second one.
                ServerStep::Derive(_) => return Err(Error::TooLarge),
            }
        }
    }

    /// What the server said about itself at login.
    #[must_use]
    pub fn ready(&self) -> &ServerReady {
        &self.ready
    }

    /// Runs one simple query and keeps its rows.
    ///
    /// # Errors
    /// As [`Client::each_row`].
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        self.each_row(sql, |columns| keep(&mut rows, columns)).await?;
        Ok(rows)
    }

    /// Runs one simple query; each row's columns go to `take`. An error of `take` is returned once the query has ended.
    /// Not cancellation safe: an abandoned query leaves its answer in the connection, which must be dropped.
    ///
    /// # Errors
    /// [`Error::Server`] if the server refuses the query, else the connection is lost.
    pub async fn each_row(
        &mut self,
        sql: &str,
        take: impl FnMut(&[Option<&str>]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut out = Vec::new();
        write::query(&mut out, sql.as_bytes());
        self.run(&out, take).await
    }

    /// Runs one statement with bound parameters in text form, and keeps its rows.
    ///
    /// # Errors
    /// As [`Client::each_row`].
    pub async fn bound(&mut self, sql: &str, params: &[&str]) -> Result<Vec<Row>, Error> {
        let mut out = Vec::new();
        write::parse(&mut out, b"", sql.as_bytes(), []);
        let values = params.iter().map(|value| Some(value.as_bytes()));
        write::bind(&mut out, b"", b"", Format::Text, values, Format::Text);
        write::describe(&mut out, Target::Portal(b""));
        write::execute(&mut out, b"", 0);
        write::sync(&mut out);
        let mut rows = Vec::new();
        self.run(&out, |columns| keep(&mut rows, columns)).await?;
        Ok(rows)
    }

    /// The next notification, as a whole NotificationResponse. Cancellation safe.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn notification(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            if let Some(piled) = self.piled.pop_front() {
                self.piled_bytes -= piled.len();
                return Ok(piled);
            }
            let message = self.inbox.next(&mut self.io, MESSAGE_BYTES_MAX).await?;
            match message.tag() {
                tag::NOTIFICATION_RESPONSE => return Ok(message.bytes.to_vec()),
                tag::ERROR_RESPONSE => return Err(Error::of_server(message.bytes.to_vec())),
                tag::NOTICE_RESPONSE | tag::PARAMETER_STATUS => {}
                other => return Err(tenfold_pgwire::Error::BackendTag(other).into()),
            }
        }
    }

    async fn run(
        &mut self,
        request: &[u8],
        mut take: impl FnMut(&[Option<&str>]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.io.write_all(request).await?;
        let mut failed = None;
        loop {
            let message = self.inbox.next(&mut self.io, MESSAGE_BYTES_MAX).await?;
            match message.tag() {
                tag::READY_FOR_QUERY => break,
                tag::DATA_ROW if failed.is_none() => failed = give(message.body(), &mut take).err(),
                tag::ERROR_RESPONSE => {
                    let error = Error::of_server(message.bytes.to_vec());
                    // After a FATAL there is no ReadyForQuery to wait for.
                    if !error.is_of_statement() {
                        return Err(error);
                    }
                    failed.get_or_insert(error);
                }
                tag::NOTIFICATION_RESPONSE => {
                    let piled = message.bytes.to_vec();
                    self.piled_bytes += piled.len();
                    if self.piled_bytes > PILED_BYTES_MAX {
                        return Err(Error::TooLarge);
                    }
                    self.piled.push_back(piled);
                }
                // Nobody feeds a COPY here.
                tag::COPY_IN_RESPONSE | tag::COPY_BOTH_RESPONSE => {
                    return Err(tenfold_pgwire::Error::BackendTag(message.tag()).into());
                }
                _ => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.ready.process_id)
    }
}

/// The name inside a whole NotificationResponse.
pub(crate) fn channel_of(message: &[u8]) -> Option<&str> {
    let body = message.get(HEADER_BYTES..)?;
    std::str::from_utf8(NotificationResponse::parse(body).ok()?.channel).ok()
}

/// Agrees on TLS; gives the stream and the hash that SCRAM binds to.
async fn encrypted(
    mut stream: TcpStream,
    name: &str,
    entrance: &Entrance,
    tls: &mut TlsNegotiation,
) -> Result<(Box<dyn Stream>, Option<Arc<[u8]>>), Error> {
    let mut out = Vec::new();
    let mut step = tls.begin(&mut out);
    stream.write_all(&out).await?;
    if step == TlsStep::AwaitAnswer {
        // One byte more than may come, so that smuggled ones show.
        let mut answer = [0; 2];
        let read = stream.read(&mut answer).await?;
        if read == 0 {
            return Err(Error::Closed);
        }
        step = tls.answer(answer.get(..read).unwrap_or_default());
    }
    match step {
        TlsStep::Plain => return Ok((Box::new(stream), None)),
        TlsStep::Handshake => {}
        TlsStep::AwaitAnswer => return Err(Error::Closed),
        TlsStep::Failed(why) => return Err(Error::Tls(why.to_owned())),
    }
    let config = entrance.tls.config.clone();
    let config = config.ok_or_else(|| Error::Tls("TLS is asked for, but not configured".to_owned()))?;
    let name = rustls::pki_types::ServerName::try_from(name.to_owned())
        .map_err(|_| Error::Tls(format!("\"{name}\" is not a name that a certificate can have")))?;
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await;
    let stream = stream.map_err(|error| Error::Tls(error.to_string()))?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let end_point = certificate.and_then(|certificate| end_point_hash(certificate)).map(Into::into);
    Ok((Box::new(stream), end_point))
}

/// Random bytes for one SCRAM exchange.
fn nonce() -> Result<[u8; 18], Error> {
    let mut nonce = [0; 18];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(nonce)
}

fn give(body: &[u8], take: &mut impl FnMut(&[Option<&str>]) -> Result<(), Error>) -> Result<(), Error> {
    let row = DataRow::parse(body)?;
    // A database of encoding SQL_ASCII may hold any bytes; nothing asked for here depends on them.
    let texts: Vec<_> = row.columns().map(|column| column.map(String::from_utf8_lossy)).collect();
    let columns: Vec<_> = texts.iter().map(|text| text.as_deref()).collect();
    take(&columns)
}

fn keep(rows: &mut Vec<Row>, columns: &[Option<&str>]) -> Result<(), Error> {
    if rows.len() >= ROWS_MAX {
        return Err(Error::TooLarge);
    }
    rows.push(columns.iter().map(|column| column.map(str::to_owned)).collect());
    Ok(())
}

/// A whole message in the inbox.
struct Message<'a> {
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    fn tag(&self) -> u8 {
        self.bytes.first().copied().unwrap_or_default()
    }

    fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or_default()
    }
}

impl Inbox {
    /// The next whole message. Cancellation safe: what was read stays.
    async fn next(&mut self, io: &mut Box<dyn Stream>, bytes_max: usize) -> Result<Message<'_>, Error> {
        let len = loop {
            let unused = self.bytes.get(self.used..).unwrap_or_default();
            match frame::header(unused)? {
                Some(header) if header.len > bytes_max => return Err(Error::TooLarge),
                Some(header) if header.len <= unused.len() => break header.len,
                _ => {}
            }
            self.bytes.drain(..self.used);
            self.used = 0;
            if self.bytes.is_empty() {
                // A large message passed; its room is not needed for the next.
                self.bytes.shrink_to(KEPT_BYTES);
            }
            self.bytes.reserve(READ_BYTES);
            if io.read_buf(&mut self.bytes).await? == 0 {
                return Err(Error::Closed);
            }
        };
        let start = self.used;
        self.used += len;
        Ok(Message { bytes: self.bytes.get(start..self.used).unwrap_or_default() })
    }
}
