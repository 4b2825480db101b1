//! The floor of `bench pooler`: the least that lends a few server connections to many clients.
//!
//! **Intuition.** Whatever a pooler does well, its kernel still has to receive and send each message twice. This relay
//! does that and nothing else, so what it costs is what nobody on this machine gets below with the same sockets.
//!
//! **Mechanism.** One thread, edge-triggered readiness, one buffer. Clients are let in without proof, with the greeting
//! that PostgreSQL gave to us. A client's bytes go to a server connection that is idle, or stay in the kernel until one
//! is; a server's bytes go to its client, and of these only message headers are looked at: at the ReadyForQuery that
//! says "no transaction" the connection goes to whoever waits longest. Bytes that a socket doesn't take are kept, and
//! no more are read from the other end until they are gone.
//!
//! **Failure.** It knows pgbench and no one else: a client that leaves in a transaction, or a server that leaves, ends it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write as _};
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail, ensure};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Poll, Registry, Token};
use tenfold_pgwire::startup;

use crate::bench::event_loop::{self, Serve};

/// Larger than any answer of the small kinds, so that one read gets all of it.
const BUFFER_BYTES: usize = 64 << 10;
/// `Terminate`: a client's last word.
const TERMINATE: u8 = b'X';

/// Serves until it is stopped.
pub(crate) fn run(port: u16, server: u16, size: usize) -> Result<()> {
    let poll = Poll::new()?;
    let mut relay = Relay {
        connections: Vec::new(),
        free: Vec::new(),
        idle: Vec::new(),
        waiting: VecDeque::new(),
        greeting: Vec::new(),
        buffer: vec![0; BUFFER_BYTES],
    };
    for _ in 0..size {
        let (stream, greeting) = log_in(server).context("logging in to PostgreSQL")?;
        relay.greeting = greeting;
        let token = relay.add(poll.registry(), TcpStream::from_std(stream), Side::Server)?;
        relay.idle.push(token);
    }
    event_loop::run(poll, port, &mut relay)
}

/// A server connection, and everything PostgreSQL said until it was ready.
fn log_in(server: u16) -> Result<(std::net::TcpStream, Vec<u8>)> {
    let mut stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, server))?;
    let mut packet = Vec::new();
    let settings = [(&b"user"[..], &b"postgres"[..]), (b"database", b"bench")];
    startup::append_startup(&mut packet, 0, settings);
    stream.write_all(&packet)?;
    let (mut said, mut piece) = (Vec::new(), [0; 4096]);
    while !said.ends_with(b"Z\0\0\0\x05I") {
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "it closed: {}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&piece[..read]);
    }
    stream.set_nonblocking(true)?;
    Ok((stream, said))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Its startup packet has not come.
    Stranger,
    Client,
    Server,
}

struct Connection {
    stream: TcpStream,
    side: Side,
    /// Whose bytes go where: set on both ends while lent.
    peer: Option<usize>,
    is_waiting: bool,
    /// A server that has got something since it was lent.
    is_asked: bool,
    /// The kernel may hold bytes that its edge was told for.
    is_readable: bool,
    /// What its socket did not take; while there is some, its peer is not read.
    unsent: Vec<u8>,
    scan: Scan,
}

struct Relay {
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    idle: Vec<usize>,
    waiting: VecDeque<usize>,
    greeting: Vec<u8>,
    buffer: Vec<u8>,
}

impl Serve for Relay {
    fn accepted(&mut self, stream: TcpStream, registry: &Registry) -> Result<()> {
        self.add(registry, stream, Side::Stranger).map(drop)
    }

    fn ready(&mut self, event: &Event) -> Result<()> {
        self.go_on(event.token().0, event.is_readable(), event.is_writable())
    }
}

impl Relay {
    fn add(&mut self, registry: &Registry, mut stream: TcpStream, side: Side) -> Result<usize> {
        stream.set_nodelay(true)?;
        let token = self.free.pop().unwrap_or(self.connections.len());
        registry.register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        let connection = Connection {
            stream,
            side,
            peer: None,
            is_waiting: false,
            is_asked: false,
            is_readable: false,
            unsent: Vec::new(),
            scan: Scan::default(),
        };
        if token == self.connections.len() {
            self.connections.push(Some(connection));
        } else {
            self.connections[token] = Some(connection);
        }
        Ok(token)
    }

    fn go_on(&mut self, token: usize, readable: bool, writable: bool) -> Result<()> {
        let Some(Some(connection)) = self.connections.get_mut(token) else { return Ok(()) };
        connection.is_readable |= readable;
        if writable && !connection.unsent.is_empty() {
            self.flush(token)?;
        }
        self.read(token)?;
        self.serve_waiting()
    }

    /// Lends what came free to those who wait longest. Not where it comes free: that would go one call deeper for each
    /// client that only says goodbye.
    fn serve_waiting(&mut self) -> Result<()> {
        while !self.idle.is_empty() {
            let Some(client) = self.waiting.pop_front() else { return Ok(()) };
            if let Some(connection) = &mut self.connections[client] {
                connection.is_waiting = false;
            }
            self.read(client)?;
        }
        Ok(())
    }

    fn read(&mut self, token: usize) -> Result<()> {
        while let Some(connection) = &self.connections[token] {
            if !connection.is_readable || connection.is_waiting || self.is_held_up(connection) {
                return Ok(());
            }
            if connection.side == Side::Client && connection.peer.is_none() && !self.lend(token) {
                return Ok(());
            }
            let Some(read) = self.receive(token)? else {
                self.take_back(token);
                return Ok(());
            };
            match self.side(token) {
                Side::Stranger => self.greet(token, read)?,
                Side::Client => self.client_said(token, read)?,
                Side::Server => self.server_said(token, read)?,
            }
        }
        Ok(())
    }

    /// A client that was lent a connection and then had nothing to say.
    fn take_back(&mut self, client: usize) {
        let is_between = self.connections[client].as_ref().is_some_and(|connection| {
            let server = connection.peer.and_then(|server| self.connections[server].as_ref());
            connection.side == Side::Client && server.is_some_and(|server| !server.is_asked)
        });
        if is_between && let Some(server) = self.unlink(client) {
            self.idle.push(server);
        }
    }

    fn side(&self, token: usize) -> Side {
        self.connections[token].as_ref().map_or(Side::Stranger, |connection| connection.side)
    }

    /// Whether the other end is still busy with what it was given.
    fn is_held_up(&self, connection: &Connection) -> bool {
        let peer = connection.peer.and_then(|peer| self.connections[peer].as_ref());
        peer.is_some_and(|peer| !peer.unsent.is_empty())
    }

    /// Reads once; `None` if there was nothing. A short read has emptied the socket: an edge tells of what comes next.
    fn receive(&mut self, token: usize) -> Result<Option<usize>> {
        let Some(connection) = &mut self.connections[token] else { return Ok(None) };
        match connection.stream.read(&mut self.buffer) {
            Ok(read) => {
                connection.is_readable = read == self.buffer.len();
                Ok(Some(read))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                connection.is_readable = false;
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Some(0)),
            Err(error) => Err(error).context("receiving"),
        }
    }

    /// Takes an idle server for this client, or puts it in line.
    fn lend(&mut self, client: usize) -> bool {
        match self.idle.pop() {
            Some(server) => self.link(client, server),
            None => {
                self.waiting.push_back(client);
                if let Some(connection) = &mut self.connections[client] {
                    connection.is_waiting = true;
                }
                return false;
            }
        }
        true
    }

    fn link(&mut self, client: usize, server: usize) {
        for (one, other) in [(client, server), (server, client)] {
            if let Some(connection) = &mut self.connections[one] {
                connection.peer = Some(other);
            }
        }
    }

    fn unlink(&mut self, token: usize) -> Option<usize> {
        let peer = self.connections[token].as_mut()?.peer.take()?;
        self.connections[peer].as_mut()?.peer = None;
        Some(peer)
    }

    fn greet(&mut self, token: usize, read: usize) -> Result<()> {
        if read == 0 {
            self.close(token);
            return Ok(());
        }
        if let Some(connection) = &mut self.connections[token] {
            connection.side = Side::Client;
        }
        let greeting = std::mem::take(&mut self.greeting);
        let sent = self.send(token, &greeting);
        self.greeting = greeting;
        sent
    }

    fn client_said(&mut self, client: usize, read: usize) -> Result<()> {
        if read == 0 || self.buffer[0] == TERMINATE {
            if let Some(server) = self.unlink(client) {
                let asked = self.connections[server].as_ref().is_some_and(|connection| connection.is_asked);
                ensure!(!asked, "a client left in a transaction");
                self.idle.push(server);
            }
            self.close(client);
            return Ok(());
        }
        let peer = self.connections[client].as_ref().and_then(|connection| connection.peer);
        let server = peer.context("a client is read only while it has a server")?;
        if let Some(connection) = &mut self.connections[server] {
            connection.is_asked = true;
        }
        self.forward(server, read)
    }

    fn server_said(&mut self, server: usize, read: usize) -> Result<()> {
        ensure!(read > 0, "PostgreSQL closed a connection");
        let Some(connection) = &mut self.connections[server] else { return Ok(()) };
        let is_done = connection.scan.feed(&self.buffer[..read]);
        let Some(client) = connection.peer else { bail!("PostgreSQL spoke to nobody") };
        self.forward(client, read)?;
        if is_done {
            self.unlink(server);
            self.idle.push(server);
            if let Some(connection) = &mut self.connections[server] {
                connection.is_asked = false;
            }
        }
        Ok(())
    }

    /// Sends the first bytes of the buffer.
    fn forward(&mut self, to: usize, length: usize) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let sent = self.send(to, &buffer[..length]);
        self.buffer = buffer;
        sent
    }

    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<()> {
        let Some(connection) = &mut self.connections[to] else { return Ok(()) };
        if !connection.unsent.is_empty() {
            connection.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match connection.stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.unsent.extend_from_slice(rest);
                    return Ok(());
                }
                Err(error) => return Err(error).context("sending"),
            }
        }
        Ok(())
    }

    /// Sends what was kept, then reads the other end again.
    fn flush(&mut self, token: usize) -> Result<()> {
        let Some(connection) = &mut self.connections[token] else { return Ok(()) };
        let unsent = std::mem::take(&mut connection.unsent);
        let peer = connection.peer;
        self.send(token, &unsent)?;
        match peer {
            Some(peer) => self.read(peer),
            None => Ok(()),
        }
    }

    fn close(&mut self, token: usize) {
        if self.connections[token].take().is_some() {
            self.free.push(token);
        }
    }
}

/// Where in the stream of a server's messages we are.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    header: [u8; 5],
    header_len: usize,
    /// Bytes of the body to come.
    body_left: usize,
    is_ready: bool,
}

impl Scan {
    /// Whether these bytes end with a ReadyForQuery that says no transaction is open.
    fn feed(&mut self, mut bytes: &[u8]) -> bool {
        let mut ends_idle = false;
        while let Some(&byte) = bytes.first() {
            ends_idle = false;
            if self.body_left > 0 {
                let taken = self.body_left.min(bytes.len());
                self.body_left -= taken;
                ends_idle = self.body_left == 0 && self.is_ready && bytes[taken - 1] == b'I';
                bytes = &bytes[taken..];
                continue;
            }
            self.header[self.header_len] = byte;
            self.header_len += 1;
            bytes = &bytes[1..];
            if self.header_len == self.header.len() {
                let [tag, a, b, c, d] = self.header;
                self.header_len = 0;
                self.is_ready = tag == b'Z';
                self.body_left = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_sub(4);
            }
        }
        ends_idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"D\0\0\0\x0aZ\0\0\0\x05IC\0\0\0\x07abcZ\0\0\0\x05I";

    #[test]
    fn only_the_real_end_counts_however_it_is_cut() {
        // The row's body looks like a ReadyForQuery.
        for cut in 1..ANSWER.len() {
            let mut scan = Scan::default();
            assert!(!scan.feed(&ANSWER[..cut]), "{cut}");
            assert!(scan.feed(&ANSWER[cut..]), "{cut}");
        }
        assert!(!Scan::default().feed(b"Z\0\0\0\x05T"));
    }
}
