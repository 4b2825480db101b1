//! The origin's threads: one that accepts, one for each connection.
//!
//! **Intuition.** The plainest server there is: read a request, ask what to answer, write it, again.
//!
//! **Mechanism.** Blocking reads; a connection's thread is woken by shutting its socket down. While an answer is held
//! at a gate, the socket is looked at every few milliseconds, so that a client that leaves is noticed.
//!
//! **Failure.** Any error ends the connection, as a plain server would; an answer cut off by the client's leaving is
//! counted.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Answer, Behaviour, Gate, Open, Received, Shared, lock, script};
use crate::message::{Framing, Source};
use crate::raw::set_reset_on_close;

/// How soon a client that left a held answer is noticed.
const HELD_CHECK: Duration = Duration::from_millis(5);

pub(super) struct Connection {
    pub(super) source: Source,
    index: u64,
    is_doomed: Arc<AtomicBool>,
}

pub(super) fn accept(listener: TcpListener, shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("origin".into()).spawn(move || {
        for stream in listener.incoming() {
            if shared.is_stopping() {
                return;
            }
            let Ok(stream) = stream else { continue };
            let stream = Arc::new(stream);
            let index = shared.connections.fetch_add(1, Ordering::SeqCst);
            let is_doomed = Arc::new(AtomicBool::new(false));
            let open = Open { stream: Arc::downgrade(&stream), is_doomed: Arc::clone(&is_doomed) };
            lock(&shared.open).insert(index, open);
            let of_thread = Arc::clone(&shared);
            let connection = Connection { source: Source::new(stream), index, is_doomed };
            let spawned = thread::Builder::new().spawn(move || run(&of_thread, connection));
            if spawned.is_err() {
                lock(&shared.open).remove(&index);
            }
        }
    })
}

fn run(shared: &Shared, mut connection: Connection) {
    let index = connection.index;
    let ended = serve(shared, &mut connection);
    if connection.is_doomed() {
        // What a killed process leaves behind.
        let _ = set_reset_on_close(connection.source.stream());
    }
    drop(connection);
    lock(&shared.open).remove(&index);
    // The client sees the same end; the test asserts on what the client saw.
    drop(ended);
}

fn serve(shared: &Shared, connection: &mut Connection) -> io::Result<()> {
    connection.source.stream().set_nodelay(true)?;
    if let Behaviour::Scripts(scripts) = &shared.behaviour {
        let index =
            usize::try_from(connection.index).unwrap_or(usize::MAX).min(scripts.len().saturating_sub(1));
        return scripts.get(index).map_or(Ok(()), |steps| script::play(shared, connection, steps));
    }
    while let Some(request) = read_request(connection)? {
        if connection.is_doomed() {
            break;
        }
        let count = shared.record(&request);
        let answer = shared.answer(&request, count).to_request(&request);
        if let Err(error) = connection.answer(&request, &answer) {
            shared.abandoned.fetch_add(1, Ordering::SeqCst);
            return Err(error);
        }
        if answer.resets {
            return set_reset_on_close(connection.source.stream());
        }
        if answer.closes {
            return Ok(());
        }
    }
    Ok(())
}

/// The next request, its body included; `None` when the client has closed.
pub(super) fn read_request(connection: &mut Connection) -> io::Result<Option<Received>> {
    let Some(mut message) = connection.source.head()? else { return Ok(None) };
    if message.field("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        connection.source.stream().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let framing = message.framing(Framing::Exact(0))?;
    connection.source.body(&mut message, framing)?;
    Ok(Some(Received::new(message, connection.index)))
}

impl Connection {
    fn is_doomed(&self) -> bool {
        self.is_doomed.load(Ordering::SeqCst)
    }

    fn answer(&self, request: &Received, answer: &Answer) -> io::Result<()> {
        let mut stream = self.source.stream();
        stream.write_all(&answer.interim)?;
        self.hold(answer.before_head.as_ref())?;
        if request.method == "HEAD" {
            return stream.write_all(&answer.head());
        }
        let mut pieces = answer.pieces().into_iter();
        let first = pieces.next().unwrap_or_default();
        if answer.before_body.is_some() {
            stream.write_all(&answer.head())?;
            self.hold(answer.before_body.as_ref())?;
            stream.write_all(&first)?;
        } else {
            stream.write_all(&[answer.head(), first].concat())?;
        }
        for piece in pieces {
            self.hold(answer.between_chunks.as_ref())?;
            stream.write_all(&piece)?;
        }
        Ok(())
    }

    fn hold(&self, gate: Option<&Gate>) -> io::Result<()> {
        match gate {
            Some(gate) if !self.pass(gate) => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }

    /// Waits at the gate; false if the client left or the connection was reset meanwhile.
    pub(super) fn pass(&self, gate: &Gate) -> bool {
        gate.pass(HELD_CHECK, || self.is_doomed() || has_left(self.source.stream()))
    }
}

/// True once the peer has closed or reset. A peer that only closed its sending direction counts as gone, too.
fn has_left(stream: &TcpStream) -> bool {
    if stream.set_read_timeout(Some(Duration::from_millis(1))).is_err() {
        return true;
    }
    match stream.peek(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
    }
}
