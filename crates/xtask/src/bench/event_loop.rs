//! What the floors have in common: a listener, readiness, and whoever is ready.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

const EVENTS_MAX: usize = 1024;
const LISTENER: Token = Token(usize::MAX);

/// A server of one thread.
pub(super) trait Serve {
    /// Somebody has connected.
    fn accepted(&mut self, stream: TcpStream, registry: &Registry) -> Result<()>;
    /// A socket of its own is ready.
    fn ready(&mut self, event: &Event) -> Result<()>;
}

/// Listens on loopback and serves until the process is stopped.
pub(super) fn run(mut poll: Poll, port: u16, server: &mut impl Serve) -> Result<()> {
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
                accept(&listener, poll.registry(), server)?;
            } else {
                server.ready(event)?;
            }
        }
    }
}

fn accept(listener: &TcpListener, registry: &Registry, server: &mut impl Serve) -> Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => server.accepted(stream, registry)?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("accepting"),
        }
    }
}
