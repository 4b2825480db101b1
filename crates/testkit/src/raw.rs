//! A client that sends exactly the bytes it is given.
//!
//! **Intuition.** Malformed requests, half requests, requests in one-byte pieces: no HTTP library will send them, and
//! they are what a server must be tested with. So the test writes the bytes and reads what comes back.
//!
//! **Mechanism.** A blocking socket with a limit on every read. Responses are read by the kit's own lenient reader;
//! interim ones (1xx) are set aside.
//!
//! **Failure.** Silence beyond the limit is `TimedOut`, a close in the middle `UnexpectedEof`: a test that expects
//! either can tell them apart.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::message::{self, Framing, Source};

/// Generous for a busy test machine; a passing test never waits for it.
pub const READ_LIMIT: Duration = Duration::from_secs(10);

/// One connection.
#[derive(Debug)]
pub struct Client {
    source: Source,
    addr: SocketAddr,
    limit: Duration,
}

/// A response as it came.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The reason phrase, often empty.
    pub reason: String,
    /// In order, names as written.
    pub fields: Vec<(String, String)>,
    /// The decoded body.
    pub body: Vec<u8>,
    /// The statuses of the interim responses (1xx) that came before.
    pub interim: Vec<u16>,
    /// Head and undecoded body.
    pub raw: Vec<u8>,
    /// The peer said, or HTTP/1.0 says, that it closes now.
    pub closes: bool,
}

impl Response {
    /// The first field of that name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        message::field(&self.fields, name)
    }

    /// Every field of that name, in order.
    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        message::fields(&self.fields, name)
    }

    /// The body as text, nonsense replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it isn't.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{error} in {:?}", self.text()),
        }
    }
}

impl Client {
    /// Connects, with [`READ_LIMIT`] on every response.
    ///
    /// # Errors
    /// What `connect` says.
    pub fn connect(addr: SocketAddr) -> io::Result<Self> {
        Self::connect_with_limit(addr, READ_LIMIT)
    }

    /// Connects; every read after that must finish within `limit`.
    ///
    /// # Errors
    /// What `connect` says.
    pub fn connect_with_limit(addr: SocketAddr, limit: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, limit)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self { source: Source::new(Arc::new(stream)), addr, limit })
    }

    /// Our end, as the server sees it.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.stream().local_addr()
    }

    /// Sends these bytes, all of them.
    ///
    /// # Errors
    /// What the socket says; a full buffer beyond the limit is `WouldBlock`.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.source.stream().write_all(bytes.as_ref())
    }

    /// Sends these bytes in segments of one byte each.
    ///
    /// # Errors
    /// What the socket says.
    pub fn dribble(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        bytes.as_ref().chunks(1).try_for_each(|byte| self.source.stream().write_all(byte))
    }

    /// The next whole response, to anything but HEAD.
    ///
    /// # Errors
    /// `TimedOut`, `UnexpectedEof` (also when nothing came at all), `InvalidData`.
    pub fn response(&mut self) -> io::Result<Response> {
        self.response_to("GET")
    }

    /// The next whole response to a request with this method: a HEAD has no body whatever the fields say.
    ///
    /// # Errors
    /// As [`Client::response`].
    pub fn response_to(&mut self, method: &str) -> io::Result<Response> {
        self.source.limit(Some(self.limit));
        let mut interim = Vec::new();
        loop {
            let Some(mut message) = self.source.head()? else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without a response"));
            };
            let status = status_of(&message.start_line)?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
                continue;
            }
            if method != "HEAD" && !matches!(status, 101 | 204 | 304) {
                let framing = message.framing(Framing::UntilClose)?;
                self.source.body(&mut message, framing)?;
            }
            let closes = message.closes();
            let reason = message.start_line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned();
            let (fields, body, raw) = (message.fields, message.body, message.raw);
            return Ok(Response { status, reason, fields, body, interim, raw, closes });
        }
    }

    /// The status of the next interim (1xx) or final head, its body left unread.
    ///
    /// # Errors
    /// As [`Client::response`].
    pub fn status(&mut self) -> io::Result<u16> {
        self.source.limit(Some(self.limit));
        let head = self.source.head()?;
        let head =
            head.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "closed without a response"))?;
        status_of(&head.start_line)
    }

    /// Sends a request without a body, `Host` included, and reads its response.
    ///
    /// # Errors
    /// As [`Client::response`].
    pub fn request(&mut self, method: &str, target: &str, fields: &[(&str, &str)]) -> io::Result<Response> {
        self.request_with_body(method, target, fields, b"")
    }

    /// Sends a request, `Host` included, with a `Content-Length` when there is a body, and reads its response.
    ///
    /// # Errors
    /// As [`Client::response`].
    pub fn request_with_body(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {}\r\n", self.addr));
        }
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.send([head.as_bytes(), body].concat())?;
        self.response_to(method)
    }

    /// [`Client::request`] with GET.
    ///
    /// # Errors
    /// As [`Client::response`].
    pub fn get(&mut self, target: &str) -> io::Result<Response> {
        self.request("GET", target, &[])
    }

    /// Reads until these bytes came, and returns everything up to their end.
    ///
    /// # Errors
    /// `TimedOut`, `UnexpectedEof`.
    pub fn read_through(&mut self, wanted: impl AsRef<[u8]>) -> io::Result<Vec<u8>> {
        self.source.limit(Some(self.limit));
        self.source.through(wanted.as_ref())
    }

    /// Everything up to the close, however much of HTTP it is.
    ///
    /// # Errors
    /// `TimedOut` if the peer does not close; `ConnectionReset` if it resets.
    pub fn read_to_close(&mut self) -> io::Result<Vec<u8>> {
        self.source.limit(Some(self.limit));
        self.source.rest()
    }

    /// Waits for the peer to close or reset: true if it did so within the limit without another byte.
    #[must_use]
    pub fn closed_in_silence(&mut self) -> bool {
        match self.read_to_close() {
            Ok(rest) => rest.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset && self.source.buffered().is_empty(),
        }
    }

    /// Says that nothing more will be sent; reading goes on.
    ///
    /// # Errors
    /// What the socket says.
    pub fn half_close(&self) -> io::Result<()> {
        self.source.stream().shutdown(Shutdown::Write)
    }

    /// Leaves with a reset (RST) instead of a close.
    ///
    /// # Errors
    /// What the socket says.
    pub fn reset(self) -> io::Result<()> {
        set_reset_on_close(self.source.stream())
    }
}

/// A request on a connection of its own, closed afterwards.
///
/// # Errors
/// As [`Client::response`].
pub fn get(addr: SocketAddr, target: &str) -> io::Result<Response> {
    Client::connect(addr)?.get(target)
}

/// Makes dropping the stream's last handle send RST: a linger of zero.
pub(crate) fn set_reset_on_close(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

fn status_of(start_line: &str) -> io::Result<u16> {
    let status = start_line.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("status line {start_line:?}")))
}
