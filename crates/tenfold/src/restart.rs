//! Online restart: a new process takes over what this one listens on and whom it serves.
//!
//! **Intuition.** The new process is started beside the old one, from the same file, and asks it for its sockets. From
//! then on whoever comes arrives at the new one; whoever is there goes over, or is served to the end where it is.
//!
//! **Mechanism.** A running process has a [`Door`]: a Unix socket that only its own user reaches. Who comes in through it
//! ([`taking`]) says which version of this conversation it speaks, gets a descriptor of every listening socket, starts,
//! and says that it accepts. Then the old process ([`leaving`]) stops accepting and hands its PostgreSQL clients over;
//! once those at rest have arrived, it closes its listeners, has its HTTP connections end as at SIGTERM, and lives on
//! until nobody is left, or for `drain.handover`.
//!
//! **Failure.** Up to the moment the new process says that it accepts, its failure changes nothing. Up to the moment its
//! clients have arrived, the old one goes back to accepting with those it still has. Later it only serves to their end
//! those who stayed. A process that speaks another version is told so.

pub mod door;
pub mod leaving;
pub mod notify;
pub mod taking;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use tenfold_pooler::handover::Outbox;
use tenfold_service::acceptor::Address;
use tenfold_service::handover::{Frame, Malformed, Reader, Sender, Writer};

pub use door::Door;

/// The version of this conversation, and of everything in it.
pub const FORMAT: u32 = 1;

/// From the new process: its [`Hello`].
pub const HELLO: u8 = 1;
/// The answer: the old one's [`Hello`].
pub const WELCOME: u8 = 2;
/// The other answer: why not.
pub const REFUSED: u8 = 3;
/// A listening socket: whose it is, its configured address, and the socket.
pub const LISTENER: u8 = 4;
/// That was all of them.
pub const LISTENED: u8 = 5;
/// From the new process: it accepts.
pub const READY: u8 = 6;
/// From the old one: it never will again.
pub const COMMITTED: u8 = 7;
/// How many it still serves: PostgreSQL clients, and all connections.
pub const LEFT: u8 = 8;

/// Frames that wait to be sent: clients mostly, of about a kilobyte each.
pub const OUTBOX_MAX: usize = 4_096;
/// How often the pools' books are looked at while two processes have server connections.
const TICK: Duration = Duration::from_millis(10);
/// Whoever connects says something within this time, and is answered.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Whose clients a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// HTTP clients.
    Edge,
    /// PostgreSQL clients.
    Pooler,
    /// The admin server's callers.
    Admin,
    /// Those of its probes.
    Probe,
}

/// What each process says of itself first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// [`FORMAT`].
    pub format: u32,
    /// The program's version.
    pub version: String,
    /// Its number.
    pub pid: u32,
    /// It has a pooler.
    pub has_pooler: bool,
}

/// A listening socket's place in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Whose.
    pub role: Role,
    /// As configured: port 0 stands for a free one.
    pub at: Address,
}

impl Hello {
    /// This process's.
    #[must_use]
    pub fn own(has_pooler: bool) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, version, pid: std::process::id(), has_pooler }
    }

    /// As a frame of this kind.
    #[must_use]
    pub fn frame(&self, kind: u8) -> Frame {
        let mut body = Writer::new();
        body.u32(self.format).text(&self.version).u32(self.pid).flag(self.has_pooler);
        Frame::new(kind, body)
    }

    /// From a frame's body. What other formats add at the end is not looked at: its number says enough.
    ///
    /// # Errors
    /// If it is none.
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        let mut body = Reader::new(body);
        let format = body.u32()?;
        let hello =
            Self { format, version: body.text()?.to_owned(), pid: body.u32()?, has_pooler: body.flag()? };
        if format == FORMAT {
            body.end()?;
        }
        Ok(hello)
    }
}

impl Spot {
    /// As a frame's body.
    #[must_use]
    pub fn write(&self) -> Writer {
        let mut body = Writer::new();
        body.u8(match self.role {
            Role::Edge => 0,
            Role::Pooler => 1,
            Role::Admin => 2,
            Role::Probe => 3,
        });
        match &self.at {
            Address::Tcp(at) => body.u8(0).text(&at.to_string()),
            Address::Unix(path) => body.u8(1).bytes(path.as_os_str().as_encoded_bytes()),
        };
        body
    }

    /// From a frame's body.
    ///
    /// # Errors
    /// If it is none.
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        use std::os::unix::ffi::OsStrExt as _;
        let mut body = Reader::new(body);
        let role = match body.u8()? {
            0 => Role::Edge,
            1 => Role::Pooler,
            2 => Role::Admin,
            3 => Role::Probe,
            _ => return Err(Malformed),
        };
        let at = match body.u8()? {
            0 => Address::Tcp(body.text()?.parse::<SocketAddr>().map_err(|_| Malformed)?),
            1 => Address::Unix(PathBuf::from(std::ffi::OsStr::from_bytes(body.bytes()?))),
            _ => return Err(Malformed),
        };
        body.end()?;
        Ok(Self { role, at })
    }
}

/// Sends what comes, and what `due` gives every [`TICK`], until the other process is gone or `is_over`. Gives the frame
/// that was not taken whole. Blocks.
pub fn pump(
    sender: &mut Sender,
    outbox: &Receiver<Frame>,
    is_over: &AtomicBool,
    mut due: impl FnMut() -> Vec<Frame>,
) -> Option<Frame> {
    while !is_over.load(Ordering::Acquire) {
        let first = match outbox.recv_timeout(TICK) {
            Ok(frame) => Some(frame),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return None,
        };
        // A batch, so that a long queue does not keep the books waiting.
        let queued = outbox.try_iter().take(OUTBOX_MAX);
        for frame in first.into_iter().chain(queued) {
            if sender.send(&frame).is_err() {
                return Some(frame);
            }
        }
        for frame in due() {
            if sender.send(&frame).is_err() {
                return None;
            }
        }
    }
    None
}

/// An outbox and its other end.
#[must_use]
pub fn outbox() -> (Outbox, Receiver<Frame>) {
    let (outbox, frames): (SyncSender<Frame>, _) = std::sync::mpsc::sync_channel(OUTBOX_MAX);
    (outbox, frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellos_and_spots_arrive_as_they_left() {
        let hello = Hello::own(true);
        assert_eq!(Hello::read(&hello.frame(HELLO).body), Ok(hello));
        for spot in [
            Spot { role: Role::Edge, at: Address::Tcp("[::1]:0".parse().unwrap()) },
            Spot { role: Role::Pooler, at: Address::Unix("/run/é/.s.PGSQL.6432".into()) },
        ] {
            assert_eq!(Spot::read(&spot.write().into_bytes()), Ok(spot));
        }
    }

    #[test]
    fn a_hello_of_another_format_is_still_read_so_that_it_can_be_named() {
        let later = Hello { format: FORMAT + 1, version: "9.0".into(), pid: 7, has_pooler: false };
        let mut body = later.frame(HELLO).body;
        body.extend_from_slice(b"what later versions add");
        assert_eq!(Hello::read(&body), Ok(later));
        let own = [&Hello::own(false).frame(HELLO).body[..], b"x"].concat();
        assert_eq!(Hello::read(&own), Err(Malformed));
        assert_eq!(Hello::read(b""), Err(Malformed));
        assert_eq!(Spot::read(&[9, 0]), Err(Malformed));
    }
}
