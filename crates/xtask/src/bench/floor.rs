//! The floor of `bench cache-hit`: the least that answers a request with bytes that are ready.
//!
//! **Intuition.** Whatever a cache does well, its kernel still has to receive a request and send an answer. This server
//! does that and nothing else: no parsing, no freshness, no log, no limits. What it costs is what nobody on this machine
//! gets below with the same system calls.
//!
//! **Mechanism.** One thread, level-triggered readiness, one read for each request. Each answer lies ready in one piece,
//! head and body together, and goes out with one `write` (the copying floor) or, from a file in memory, with one
//! `sendfile`, which hands pages over instead of copying them. Where the socket takes less than all, the rest follows
//! once it takes more.
//!
//! **Failure.** It knows `wrk` and our own checks and no one else: a request must come in one piece and one at a time.

use std::fs::File;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile;

use super::rows::Size;

const EVENTS_MAX: usize = 1024;
const REQUEST_BYTES_MAX: usize = 4096;
const LISTENER: Token = Token(usize::MAX);

/// How the bytes go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Write,
    Sendfile,
}

impl Way {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "write" => Some(Self::Write),
            "sendfile" => Some(Self::Sendfile),
            _ => None,
        }
    }
}

/// Serves the sizes of [`Size::ALL`] until it is stopped.
pub(crate) fn run(way: Way, port: u16) -> Result<()> {
    let mut poll = Poll::new()?;
    let answers = Size::ALL.map(Answer::new).into_iter().collect::<Result<Vec<_>>>()?;
    let mut floor = Floor { way, answers, connections: Vec::new(), free: Vec::new() };
    let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(EVENTS_MAX);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            if event.token() == LISTENER {
                floor.accept(&listener, poll.registry())?;
            } else {
                floor.ready(event.token().0);
            }
        }
    }
}

/// An answer in one piece, in both places.
struct Answer {
    /// How a request for it begins.
    request: Vec<u8>,
    bytes: Vec<u8>,
    file: File,
}

impl Answer {
    fn new(size: Size) -> Result<Self> {
        let body = size.body();
        let mut bytes = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: max-age=86400\r\nETag: \"one\"\r\n\
             X-Serial: floor\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body.as_bytes());
        let mut file = File::from(memfd_create(c"answer", MFdFlags::empty()).context("a file in memory")?);
        file.write_all(&bytes)?;
        Ok(Self { request: format!("GET {} ", size.path()).into_bytes(), bytes, file })
    }
}

struct Connection {
    stream: TcpStream,
    /// The answer under way and how much of it is out.
    under_way: Option<(usize, usize)>,
    /// The kernel may hold a request, and may take more bytes.
    token: usize,
}

struct Floor {
    way: Way,
    answers: Vec<Answer>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener, registry: &Registry) -> Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accepting"),
            };
            stream.set_nodelay(true)?;
            let token = self.free.pop().unwrap_or(self.connections.len());
            registry.register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
            let connection = Some(Connection { stream, under_way: None, token });
            match self.connections.get_mut(token) {
                Some(place) => *place = connection,
                None => self.connections.push(connection),
            }
        }
    }

    fn ready(&mut self, token: usize) {
        let Some(Some(connection)) = self.connections.get_mut(token) else { return };
        if connection.serve(&self.answers, self.way).is_err() {
            self.free.push(connection.token);
            self.connections[token] = None;
        }
    }
}

impl Connection {
    /// Goes on until the socket would block. Any error ends the connection, its orderly end too.
    fn serve(&mut self, answers: &[Answer], way: Way) -> std::io::Result<()> {
        loop {
            if let Some((which, done)) = self.under_way {
                let Some(sent) = unless_blocked(self.send(&answers[which], done, way))? else {
                    return Ok(());
                };
                let done = done + sent;
                self.under_way = (done < answers[which].bytes.len()).then_some((which, done));
                continue;
            }
            let mut request = [0; REQUEST_BYTES_MAX];
            let Some(read) = unless_blocked(self.stream.read(&mut request))? else { return Ok(()) };
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let asked = answers.iter().position(|answer| request.starts_with(&answer.request));
            self.under_way = Some((asked.ok_or(ErrorKind::InvalidData)?, 0));
        }
    }

    fn send(&mut self, answer: &Answer, done: usize, way: Way) -> std::io::Result<usize> {
        match way {
            Way::Write => self.stream.write(&answer.bytes[done..]),
            Way::Sendfile => {
                let mut offset = i64::try_from(done).expect("answers are small");
                let left = answer.bytes.len() - done;
                Ok(sendfile(&self.stream, &answer.file, Some(&mut offset), left)?)
            }
        }
    }
}

fn unless_blocked(result: std::io::Result<usize>) -> std::io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
