//! A client of the console that came by TLS: its session stays here, and its words go to the console and back.
//!
//! **Intuition.** Console sessions are tasks of the control thread, and a socket is easily given to them; a TLS session
//! in the middle of its life is not. So the worker keeps both, and carries the plain bytes through a pair of sockets, at
//! whose other end the console cannot tell the difference.
//!
//! **Mechanism.** Each way, what one side says is read only while the other takes it, so no more than one read waits.
//! Both ends are edge-triggered, and whatever is told of either, both ways are tried; who has more than its share to say
//! is looked at again in the next turn.
//!
//! **Failure.** The end of the client ends the console's session, and what it was waiting for with it. What the console
//! says at its own end is still sent on.

use std::{io, os::unix::net::UnixStream};

use mio::Registry;
use tenfold_service::{acceptor::Stream, limits::Permit};

use super::{
    READS_PER_TURN_MAX, Worker,
    leave::drop_unread,
    slab::{Key, Kind},
    wire::{Got, Socket, Wire},
};

/// A client and its console.
#[derive(Debug)]
pub(super) struct Console {
    client: Wire,
    desk: Wire,
    /// The console has nothing more to say: what waits is sent, and that is all.
    is_ending: bool,
    _permit: Permit,
}

/// What is left to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carried {
    /// Nothing, until one of the two is heard of.
    All,
    /// There may be more.
    Some,
    /// One of them has ended.
    End,
}

impl Worker {
    /// Keeps a client's TLS session; returns what the console is to talk to. `read` was read of the client already.
    pub(super) fn open_pump(&mut self, client: Wire, permit: Permit, read: &[u8]) -> Option<Stream> {
        let (ours, theirs) = UnixStream::pair().ok()?;
        ours.set_nonblocking(true).ok()?;
        theirs.set_nonblocking(true).ok()?;
        let desk = Wire::new(Socket::Unix(mio::net::UnixStream::from_std(ours)));
        let key = self.consoles.insert_with(|_| Console { client, desk, is_ending: false, _permit: permit });
        let begun = self.consoles.get_mut(key).map(|console| console.begin(self.poll.registry(), key, read));
        if !matches!(begun, Some(Ok(()))) {
            self.consoles.remove(key);
            return None;
        }
        // The session may hold what the socket no longer tells of.
        self.consoles_again.push_back(key);
        Some(Stream::Unix(theirs))
    }

    /// Carries what there is, both ways.
    pub(super) fn pump(&mut self, key: Key) {
        let Some(console) = self.consoles.get_mut(key) else { return };
        match console.carry(&mut self.buffer, self.poll.registry(), key) {
            Ok(Carried::All) => {}
            Ok(Carried::Some) => {
                if !self.consoles_again.contains(&key) {
                    self.consoles_again.push_back(key);
                }
            }
            Ok(Carried::End) | Err(_) => {
                let Some(mut console) = self.consoles.remove(key) else { return };
                drop_unread(&mut console.client);
                console.client.close_notify();
            }
        }
    }
}

impl Console {
    fn begin(&mut self, registry: &Registry, key: Key, read: &[u8]) -> io::Result<()> {
        self.client.register(registry, key.token(Kind::Console), false)?;
        self.desk.register(registry, key.token(Kind::Desk), false)?;
        self.desk.send(registry, key.token(Kind::Desk), read).map(drop)
    }

    fn carry(&mut self, buffer: &mut [u8], registry: &Registry, key: Key) -> io::Result<Carried> {
        let (to_client, to_desk) = (key.token(Kind::Console), key.token(Kind::Desk));
        self.client.flush(registry, to_client)?;
        let mut answers = self.answers(buffer, registry, key)?;
        if !self.is_ending {
            // What fails here is the console's end, which may have had a last word.
            let asked = self.desk.flush(registry, to_desk);
            let asked =
                asked.and_then(|_| carry(&mut self.client, &mut self.desk, buffer, registry, to_desk));
            match asked {
                Ok(Carried::End) => return Ok(Carried::End),
                Ok(asked) if answers == Carried::All => answers = asked,
                Ok(_) => {}
                Err(_) => {
                    answers = self.answers(buffer, registry, key)?;
                    self.is_ending = true;
                }
            }
        }
        if !self.is_ending {
            return Ok(answers);
        }
        Ok(if self.client.is_blocked() { Carried::All } else { Carried::End })
    }

    /// What the console says goes to the client.
    fn answers(&mut self, buffer: &mut [u8], registry: &Registry, key: Key) -> io::Result<Carried> {
        if self.is_ending {
            return Ok(Carried::All);
        }
        let to_client = key.token(Kind::Console);
        let answers = carry(&mut self.desk, &mut self.client, buffer, registry, to_client)?;
        self.is_ending = answers == Carried::End;
        Ok(answers)
    }
}

/// One way, a turn's share.
fn carry(
    from: &mut Wire,
    to: &mut Wire,
    buffer: &mut [u8],
    registry: &Registry,
    token: mio::Token,
) -> io::Result<Carried> {
    for _ in 0..READS_PER_TURN_MAX {
        if to.is_blocked() {
            // It tells when it takes more.
            return Ok(Carried::All);
        }
        match from.read(buffer)? {
            Got::Bytes { len, .. } => {
                to.send(registry, token, &buffer[..len])?;
            }
            Got::Nothing => return Ok(Carried::All),
            Got::End => return Ok(Carried::End),
        }
    }
    Ok(Carried::Some)
}
