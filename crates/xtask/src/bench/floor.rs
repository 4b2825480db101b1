//! The floor of `bench cache-hit`: the least that answers a request with bytes that are ready.
//!
//! **Intuition.** Whatever a cache does well, its kernel still has to receive a request and send an answer. This server
//! does that and nothing else: no parsing, no freshness, no log, no limits. What it costs is what nobody on this machine
//! gets below with the same system calls.
//!
//! **Mechanism.** One thread, level-triggered readiness, one read for each request. Each answer lies ready in one piece,
//! head and body together, and goes out with one `write` (the copying floor) or, from a file in memory, with one
//! `sendfile`, which hands pages over instead of copying them. Where the socket takes less than all, the rest follows
//! once it takes more. For the row of many keys it holds a copy of the small answer for each key, which it finds by a
//! hash of the path: the least that a cache of so many keys does, without a lock, freshness, variants or eviction.
//!
//! **Failure.** It knows `wrk` and our own checks and no one else: a request must come in one piece and one at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write as _};
use std::ops::Range;

use anyhow::{Context as _, Result};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Poll, Registry, Token};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile;

use super::Options;
use super::event_loop::{self, Serve};
use super::hits::key_path;
use super::rows::{KEY_REQUEST, Size};

const REQUEST_BYTES_MAX: usize = 4096;
const METHOD: &[u8] = b"GET ";

/// How the bytes go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Write,
    Sendfile,
    /// As `Write`, each of a million keys from memory of its own.
    Keys,
}

impl Way {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "write" => Some(Self::Write),
            "sendfile" => Some(Self::Sendfile),
            "keys" => Some(Self::Keys),
            _ => None,
        }
    }
}

/// Serves the sizes of [`Size::ALL`] until it is stopped.
pub(crate) fn run(way: Way, port: u16) -> Result<()> {
    let answers = match way {
        Way::Keys => vec![Answer::of_keys()?],
        Way::Write | Way::Sendfile => Size::ALL.into_iter().map(Answer::new).collect::<Result<Vec<_>>>()?,
    };
    let mut floor = Floor { way, answers, connections: Vec::new(), free: Vec::new() };
    event_loop::run(Poll::new()?, port, &mut floor)
}

/// An answer in one piece, in both places.
struct Answer {
    /// How a request for it begins.
    request: Vec<u8>,
    bytes: Vec<u8>,
    file: File,
    /// How many answers stand in `bytes`, one behind the other.
    copies: usize,
    /// Where the answer to a path begins, if there are several.
    places: HashMap<Box<[u8]>, usize>,
}

impl Answer {
    /// One for each key.
    fn of_keys() -> Result<Self> {
        let copies = Options::FULL.keys as usize;
        let one = Self::new(Size::SMALL)?;
        let paths = (0..Options::FULL.keys).map(|key| key_path(key).into_bytes().into());
        let places = paths.zip((0..copies).map(|number| number * one.bytes.len())).collect();
        Ok(Self { request: KEY_REQUEST.to_vec(), bytes: one.bytes.repeat(copies), copies, places, ..one })
    }

    fn len(&self) -> usize {
        self.bytes.len() / self.copies
    }

    /// The place of the answer that is asked for, if it is one of these.
    fn place(&self, request: &[u8]) -> Option<usize> {
        if self.copies == 1 {
            return request.starts_with(&self.request).then_some(0);
        }
        let path = request.strip_prefix(METHOD)?.split(|byte| *byte == b' ').next()?;
        self.places.get(path).copied()
    }

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
        Ok(Self {
            request: format!("GET {} ", size.path()).into_bytes(),
            bytes,
            file,
            copies: 1,
            places: HashMap::new(),
        })
    }
}

struct Connection {
    stream: TcpStream,
    /// The answer under way: which, and the rest of it.
    under_way: Option<(usize, Range<usize>)>,
    /// The kernel may hold a request, and may take more bytes.
    token: usize,
}

struct Floor {
    way: Way,
    answers: Vec<Answer>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
}

impl Serve for Floor {
    fn accepted(&mut self, mut stream: TcpStream, registry: &Registry) -> Result<()> {
        stream.set_nodelay(true)?;
        let token = self.free.pop().unwrap_or(self.connections.len());
        registry.register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        let connection = Some(Connection { stream, under_way: None, token });
        match self.connections.get_mut(token) {
            Some(place) => *place = connection,
            None => self.connections.push(connection),
        }
        Ok(())
    }

    fn ready(&mut self, event: &Event) -> Result<()> {
        let token = event.token().0;
        let Some(Some(connection)) = self.connections.get_mut(token) else { return Ok(()) };
        if connection.serve(&self.answers, self.way).is_err() {
            self.free.push(connection.token);
            self.connections[token] = None;
        }
        Ok(())
    }
}

impl Connection {
    /// Goes on until the socket would block. Any error ends the connection, its orderly end too.
    fn serve(&mut self, answers: &[Answer], way: Way) -> std::io::Result<()> {
        loop {
            if let Some((which, rest)) = self.under_way.clone() {
                let Some(sent) = unless_blocked(self.send(&answers[which], rest.clone(), way))? else {
                    return Ok(());
                };
                let rest = rest.start + sent..rest.end;
                self.under_way = (!rest.is_empty()).then_some((which, rest));
                continue;
            }
            let mut request = [0; REQUEST_BYTES_MAX];
            let Some(read) = unless_blocked(self.stream.read(&mut request))? else { return Ok(()) };
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let mut asked = answers.iter().enumerate().filter_map(|(which, answer)| {
                let place = answer.place(&request[..read])?;
                Some((which, place..place + answer.len()))
            });
            self.under_way = Some(asked.next().ok_or(ErrorKind::InvalidData)?);
        }
    }

    fn send(&mut self, answer: &Answer, rest: Range<usize>, way: Way) -> std::io::Result<usize> {
        match way {
            Way::Write | Way::Keys => self.stream.write(&answer.bytes[rest]),
            Way::Sendfile => {
                let mut offset = i64::try_from(rest.start).expect("answers are small");
                Ok(sendfile(&self.stream, &answer.file, Some(&mut offset), rest.len())?)
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
