//! A TCP proxy that breaks what passes through it, on command.
//!
//! **Intuition.** Networks do not fail at convenient places: they stop after the first half of a header, deliver one
//! wrong byte, or close one direction. This proxy does each of them at a byte the test names.
//!
//! **Mechanism.** Two threads a connection, one for each direction, each counting the bytes it has passed on. The
//! fault of a direction is looked up before every write, so a change takes effect on open connections at once; a
//! thread that stalls or delays wakes when the fault changes.
//!
//! **Failure.** If the server behind refuses, so does the proxy, by closing. Dropping the proxy resets everything.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::origin::lock;
use crate::raw::set_reset_on_close;

const PIECE_BYTES: usize = 16 << 10;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// One way through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client that connected to the proxy.
    ToServer,
    /// Back.
    ToClient,
}

/// What happens to the bytes of one direction. Positions count a connection's bytes in that direction, from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Each piece is held this long.
    Delay(Duration),
    /// After this many bytes both directions close (FIN).
    CutAt(u64),
    /// After this many bytes both directions are reset (RST).
    ResetAt(u64),
    /// After this many bytes this direction closes; the other goes on.
    HalfCloseAt(u64),
    /// After this many bytes nothing passes until the fault changes.
    StallAt(u64),
    /// The byte at this position has all its bits flipped.
    CorruptAt(u64),
}

/// A listening proxy in front of one address.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    server: Mutex<SocketAddr>,
    faults: Mutex<Faults>,
    changed: Condvar,
    refusing: AtomicBool,
    /// Weak: a stream's last handle is its thread's, so that letting go of it can reset.
    open: Mutex<Vec<Weak<TcpStream>>>,
}

#[derive(Clone, Copy, Debug)]
struct Faults {
    to_server: Fault,
    to_client: Fault,
    /// How often [`Proxy::sever`] was called: a connection older than the last call ends in a reset.
    severed: u64,
}

impl Proxy {
    /// Listens on a free port of loopback and passes connections on to `server`, faultlessly at first.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server: Mutex::new(server),
            faults: Mutex::new(Faults { to_server: Fault::None, to_client: Fault::None, severed: 0 }),
            changed: Condvar::new(),
            refusing: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let acceptor = Some(accept(listener, Arc::clone(&shared))?);
        Ok(Self { addr, shared, acceptor })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sets the fault of one direction, for open and coming connections.
    pub fn set(&self, direction: Direction, fault: Fault) {
        let mut faults = lock(&self.shared.faults);
        match direction {
            Direction::ToServer => faults.to_server = fault,
            Direction::ToClient => faults.to_client = fault,
        }
        self.shared.changed.notify_all();
    }

    /// No fault in either direction.
    pub fn heal(&self) {
        self.set(Direction::ToServer, Fault::None);
        self.set(Direction::ToClient, Fault::None);
    }

    /// Passes coming connections on to another server.
    pub fn set_server(&self, server: SocketAddr) {
        *lock(&self.shared.server) = server;
    }

    /// Resets every open connection; new ones are welcome.
    pub fn sever(&self) {
        lock(&self.shared.faults).severed += 1;
        self.shared.changed.notify_all();
        for stream in lock(&self.shared.open).drain(..).filter_map(|stream| stream.upgrade()) {
            let _ = set_reset_on_close(&stream);
            // Wakes its thread without a FIN; the reset goes out when the thread lets go.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    /// Refuses connections from now on: nobody listens. Open ones stay.
    pub fn refuse(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.shared.refusing.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        let _ = acceptor.join();
    }

    /// Listens again, on the same port.
    ///
    /// # Errors
    /// If somebody else took the port.
    pub fn accept(&mut self) -> io::Result<()> {
        if self.acceptor.is_none() {
            let listener = TcpListener::bind(self.addr)?;
            self.shared.refusing.store(false, Ordering::SeqCst);
            self.acceptor = Some(accept(listener, Arc::clone(&self.shared))?);
        }
        Ok(())
    }

    /// Connections open now.
    #[must_use]
    pub fn connections_open(&self) -> usize {
        let mut open = lock(&self.shared.open);
        open.retain(|stream| stream.strong_count() > 0);
        open.len() / 2
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse();
        self.sever();
    }
}

fn accept(listener: TcpListener, shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("fault-proxy".into()).spawn(move || {
        for client in listener.incoming() {
            if shared.refusing.load(Ordering::SeqCst) {
                return;
            }
            let Ok(client) = client else { continue };
            // A server that refuses, or a lack of threads, shows as a connection that closes at once.
            let _ = join(&shared, client);
        }
    })
}

fn join(shared: &Arc<Shared>, client: TcpStream) -> io::Result<()> {
    let server = {
        let server = *lock(&shared.server);
        TcpStream::connect_timeout(&server, CONNECT_LIMIT)?
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client, server) = (Arc::new(client), Arc::new(server));
    {
        let mut open = lock(&shared.open);
        open.retain(|stream| stream.strong_count() > 0);
        open.extend([Arc::downgrade(&client), Arc::downgrade(&server)]);
    }
    let severed = lock(&shared.faults).severed;
    for direction in [Direction::ToServer, Direction::ToClient] {
        let (client, server, shared) = (Arc::clone(&client), Arc::clone(&server), Arc::clone(shared));
        let (from, to) = match direction {
            Direction::ToServer => (client, server),
            Direction::ToClient => (server, client),
        };
        let mut lane = Lane { shared, direction, from, to, passed: 0, severed };
        thread::Builder::new().spawn(move || lane.run())?;
    }
    Ok(())
}

/// One direction of one connection.
struct Lane {
    shared: Arc<Shared>,
    direction: Direction,
    from: Arc<TcpStream>,
    to: Arc<TcpStream>,
    passed: u64,
    severed: u64,
}

/// What a lane does after a piece.
enum Next {
    GoOn,
    End,
}

impl Lane {
    fn run(&mut self) {
        let mut piece = [0; PIECE_BYTES];
        loop {
            let Ok(read) = (&*self.from).read(&mut piece) else { return self.close(true) };
            if read == 0 && self.is_severed() {
                return self.close(true);
            }
            if read == 0 {
                // The other direction may go on: a half-close is passed on as one.
                let _ = self.to.shutdown(Shutdown::Write);
                return;
            }
            match self.pass(&mut piece[..read]) {
                Ok(Next::GoOn) => {}
                Ok(Next::End) => return,
                Err(_) => return self.close(true),
            }
        }
    }

    fn pass(&mut self, mut piece: &mut [u8]) -> io::Result<Next> {
        while !piece.is_empty() {
            let fault = self.fault();
            let limit = match fault {
                Fault::CutAt(at) | Fault::ResetAt(at) | Fault::HalfCloseAt(at) | Fault::StallAt(at) => {
                    usize::try_from(at.saturating_sub(self.passed)).unwrap_or(usize::MAX)
                }
                Fault::None | Fault::Delay(_) | Fault::CorruptAt(_) => usize::MAX,
            };
            if limit == 0 {
                match self.strike(fault) {
                    Next::End => return Ok(Next::End),
                    Next::GoOn => continue,
                }
            }
            if let Fault::Delay(delay) = fault {
                self.wait_for_change(fault, Some(delay));
            }
            let now = piece.len().min(limit);
            let (head, rest) = piece.split_at_mut(now);
            if let Fault::CorruptAt(at) = fault
                && let Some(offset) = at.checked_sub(self.passed)
                && let Some(byte) = usize::try_from(offset).ok().and_then(|offset| head.get_mut(offset))
            {
                *byte = !*byte;
            }
            (&*self.to).write_all(head)?;
            self.passed += now as u64;
            piece = rest;
        }
        // A fault right behind these bytes strikes now, not when more come.
        match self.fault() {
            fault @ (Fault::CutAt(at) | Fault::ResetAt(at) | Fault::HalfCloseAt(at)) if at <= self.passed => {
                Ok(self.strike(fault))
            }
            _ => Ok(Next::GoOn),
        }
    }

    fn strike(&self, fault: Fault) -> Next {
        match fault {
            Fault::CutAt(_) => self.close(false),
            Fault::ResetAt(_) => self.close(true),
            Fault::HalfCloseAt(_) => drop(self.to.shutdown(Shutdown::Write)),
            Fault::StallAt(_) => return self.wait_for_change(fault, None),
            Fault::None | Fault::Delay(_) | Fault::CorruptAt(_) => return Next::GoOn,
        }
        Next::End
    }

    /// Ends both directions.
    fn close(&self, reset: bool) {
        for stream in [&self.from, &self.to] {
            if reset {
                let _ = set_reset_on_close(stream);
                let _ = stream.shutdown(Shutdown::Read);
            } else {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    fn is_severed(&self) -> bool {
        lock(&self.shared.faults).severed != self.severed
    }

    fn fault(&self) -> Fault {
        self.fault_of(&lock(&self.shared.faults))
    }

    fn fault_of(&self, faults: &Faults) -> Fault {
        match self.direction {
            Direction::ToServer => faults.to_server,
            Direction::ToClient => faults.to_client,
        }
    }

    /// Waits until the fault is another one, the connection is severed, or the time is up.
    fn wait_for_change(&self, fault: Fault, limit: Option<Duration>) -> Next {
        let unchanged =
            |faults: &mut Faults| self.fault_of(faults) == fault && faults.severed == self.severed;
        let faults = lock(&self.shared.faults);
        let faults = match limit {
            None => self.shared.changed.wait_while(faults, unchanged).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                let waited = self.shared.changed.wait_timeout_while(faults, limit, unchanged);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if faults.severed == self.severed { Next::GoOn } else { Next::End }
    }
}
