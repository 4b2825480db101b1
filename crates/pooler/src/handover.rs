//! What passes between this process's pooler and those of its predecessor and its successor: an online restart.
//!
//! **Intuition.** A client at rest is a socket and what is known of its session; both can be given to another process,
//! and the client never notices. So the successor accepts, the clients follow one by one as they come to rest, and the
//! old process serves whoever cannot follow.
//!
//! **Mechanism.** A process may have a predecessor and a successor at the same time. Towards the successor a worker
//! makes a frame of each client at rest (`worker::depart`); from the predecessor frames come in, and a worker makes
//! clients of them (`worker::adopt`). The successor keeps the books of each pool: what the predecessor has open is
//! counted there as its own (`ledger`), so that both together never exceed `size` and `reserve`. Cancel requests
//! come to the successor; those it has no client for it passes back with their socket. Clients that listen go at a cut
//! that both sides see at the same place (`channels`). While both live neither asks replicas, since it cannot know
//! what the other has just written.
//!
//! **Failure.** A frame that makes no sense ends the conversation. If the successor dies, what it was given is lost; what
//! it was not comes back ([`Pooler::successor_gone`](crate::Pooler::successor_gone)), and this process keeps its own
//! books again. If the predecessor dies, its places are free.

mod channels;
mod client;
mod ledger;

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use subtle::ConstantTimeEq;
use tenfold_service::{
    acceptor::{Accepted, Peer, Stream},
    handover::{Frame, Malformed, Reader, Writer},
};
use tenfold_sql::Tables;

pub(crate) use self::channels::{CaughtUp, DESK_OF_NEW, DESK_OF_OLD};
pub(crate) use self::client::{Handed, HandedCredential, HandedStatement, PlanKey};
use self::{channels::Channels, ledger::Ledger};
use crate::{
    mailbox::Order,
    shared::{Database, Level, Shared},
    split::{Changed, Writing},
    worker::Asker,
};

/// Kinds of frames that are the pooler's, not to be used by anything else of the process.
pub const KINDS: std::ops::RangeInclusive<u8> = 32..=63;

/// A client, with its socket.
pub(crate) const CLIENT: u8 = 32;
/// All clients that were at rest are on their way; after this the predecessor may commit itself.
const SWEPT: u8 = 33;
/// The answer to [`SWEPT`]: they arrived.
const TAKEN: u8 = 34;
/// A cancel request that the successor has no client for, with its socket.
const CANCEL: u8 = 35;
/// So many connections of a pool are open here.
const HELD: u8 = 36;
/// So many of them are no longer.
const RETURNED: u8 = 37;
/// One more is wanted.
const WANTED: u8 = 38;
/// So many more may be opened.
const GRANTED: u8 = 39;
/// Clients of the successor wait for places of a pool.
const RECALLED: u8 = 40;
/// All that is open here was told: the successor may open connections.
const BOOKS: u8 = 41;
/// Clients that listen to these channels are to come, and go by a marker: a database, the round, the marker, channels.
const HEAR: u8 = 42;
/// The marker of a round has come.
const HEARING: u8 = 43;

/// Workers that were about to put a frame into an outbox have done so after this.
const PUT_DOWN: Duration = Duration::from_secs(1);

/// Frames on their way to the other process, to be sent by whoever has the other end.
pub type Outbox = SyncSender<Frame>;

/// Counts a connection that was accepted elsewhere.
pub type Admit = Arc<dyn Fn(Stream, Peer) -> Accepted + Send + Sync>;

/// See the module.
#[derive(Default)]
pub struct Handover {
    successor: ArcSwapOption<Outbox>,
    predecessor: ArcSwapOption<Outbox>,
    is_handing_over: AtomicBool,
    /// What the predecessor has open is not known yet, so nothing is opened.
    is_held_back: AtomicBool,
    /// Workers that have yet to look at all their clients once.
    sweeping: AtomicUsize,
    admit: ArcSwapOption<Admit>,
    keys: Arc<Mutex<Keys>>,
    ledger: Mutex<Ledger>,
    channels: Mutex<Channels>,
    /// While two processes live, either may commit what the other's readers must see: as long as these are held, replicas
    /// are asked nothing.
    writing: Mutex<Vec<Writing>>,
}

/// Cancel keys that predecessors gave, by process id: secret, worker, place. As many as there are such clients.
type Keys = HashMap<u32, Vec<([u8; 4], usize, u32)>>;

/// What the successor said that concerns the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// It has all clients that were at rest.
    Taken,
}

/// The cancel key of a client that came from a predecessor, as long as it is there.
pub(crate) struct KnownAs {
    /// The process id it was told.
    pub(crate) id: u32,
    at: (usize, u32),
    keys: Arc<Mutex<Keys>>,
}

impl std::fmt::Debug for KnownAs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KnownAs({})", self.id)
    }
}

impl Drop for KnownAs {
    fn drop(&mut self) {
        let mut keys = lock(&self.keys);
        let Some(alike) = keys.get_mut(&self.id) else { return };
        alike.retain(|(_, worker, place)| (*worker, *place) != self.at);
        if alike.is_empty() {
            keys.remove(&self.id);
        }
    }
}

impl std::fmt::Debug for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handover").finish_non_exhaustive()
    }
}

impl Handover {
    /// Another process may change anything in this database.
    pub(crate) fn hold_reads(&self, database: &Database) {
        let mut writing = Writing::default();
        let everything = Changed { tables: Tables::All, ..Changed::default() };
        writing.add(&database.split, &everything);
        lock(&self.writing).push(writing);
    }

    /// Nobody else changes anything any more, if there was one such process.
    fn release_reads(&self) {
        if self.successor.load().is_none() && self.predecessor.load().is_none() {
            // Who reads from here on sees what was there to be seen by now.
            lock(&self.writing).clear();
        }
    }

    /// Whether another process serves clients of the same databases.
    pub(crate) fn is_shared(&self) -> bool {
        self.successor.load().is_some() || self.predecessor.load().is_some()
    }

    /// Whether pools that are made now have no places of their own yet.
    pub(crate) fn keeps_no_books(&self) -> bool {
        self.is_handing_over.load(Ordering::SeqCst) || self.is_held_back.load(Ordering::SeqCst)
    }

    /// Sends to the successor if it takes a frame at once. False if it does not.
    pub(crate) fn offer(&self, frame: Frame) -> bool {
        self.successor.load().as_ref().is_some_and(|outbox| outbox.try_send(frame).is_ok())
    }

    /// Sends to the predecessor if it takes a frame at once.
    fn answer(&self, frame: Frame) {
        if let Some(outbox) = self.predecessor.load_full() {
            let _ = outbox.try_send(frame);
        }
    }

    /// A worker has looked at all its clients; the last one says so. False if that has to be tried again.
    pub(crate) fn swept(&self) -> bool {
        if self.sweeping.fetch_sub(1, Ordering::AcqRel) != 1 || self.offer(Frame::new(SWEPT, Writer::new())) {
            return true;
        }
        self.sweeping.fetch_add(1, Ordering::AcqRel);
        false
    }

    /// A client that came from a predecessor keeps its key.
    pub(crate) fn keep_key(&self, id: u32, secret: [u8; 4], at: (usize, u32)) -> KnownAs {
        lock(&self.keys).entry(id).or_default().push((secret, at.0, at.1));
        KnownAs { id, at, keys: Arc::clone(&self.keys) }
    }

    /// The worker and the place of the client that came with this key.
    pub(crate) fn whose(&self, id: u32, secret: &[u8]) -> Option<(usize, u32)> {
        let keys = lock(&self.keys);
        let alike = keys.get(&id)?;
        let found = alike.iter().find(|(own, ..)| bool::from(own.as_slice().ct_eq(secret)));
        found.map(|(_, worker, place)| (*worker, *place))
    }

    /// Nobody here has the key of a cancel request: perhaps the predecessor has.
    pub(crate) fn pass_cancel(&self, id: u32, secret: &[u8], asker: Asker) {
        let mut body = Writer::new();
        body.u32(id).bytes(secret);
        let descriptor = asker.into_stream().map(descriptor_of);
        // One more than can be sent is lost, as PostgreSQL itself may lose one.
        self.answer(Frame { kind: CANCEL, body: body.into_bytes(), descriptor });
    }

    /// A connection that another process accepted; `None` before anybody said how such are counted.
    fn admit(&self, descriptor: OwnedFd, peer: Peer) -> Option<Accepted> {
        let admit = self.admit.load_full()?;
        Some(admit(stream_of(descriptor, &peer), peer))
    }
}

impl Shared {
    /// From here on clients go to a successor. Gives what it is to be sent before anything that is in its outbox.
    pub(crate) fn hand_over(&self, outbox: Outbox, admit: Admit) -> Vec<Frame> {
        let handover = &self.handover;
        handover.admit.store(Some(Arc::new(admit)));
        handover.sweeping.store(self.mailboxes.get().map_or(0, |boxes| boxes.len()), Ordering::Release);
        handover.successor.store(Some(Arc::new(outbox)));
        handover.is_handing_over.store(true, Ordering::SeqCst);
        self.databases().iter().for_each(|database| handover.hold_reads(database));
        let mut frames = self.books_for_successor();
        frames.push(Frame::new(BOOKS, Writer::new()));
        self.tell_all(|| Order::HandOver { on: true });
        frames
    }

    /// The successor is gone: what it was not sent comes back.
    pub(crate) fn successor_gone(self: &Arc<Self>, unsent: Option<Frame>, frames: &Receiver<Frame>) {
        let handover = &self.handover;
        handover.is_handing_over.store(false, Ordering::SeqCst);
        handover.successor.store(None);
        self.keep_own_books();
        self.tell_all(|| Order::HandOver { on: false });
        self.close_desks(DESK_OF_OLD);
        let rest = std::iter::from_fn(|| frames.recv_timeout(PUT_DOWN).ok());
        for frame in unsent.into_iter().chain(rest).filter(|frame| frame.kind == CLIENT) {
            // It is of our own making.
            let _ = self.client_arrives(frame);
        }
        handover.release_reads();
        for database in self.databases() {
            self.tell_all(|| Order::Wake { database: Arc::clone(&database) });
        }
    }

    /// What the successor says.
    pub(crate) fn successor_says(&self, frame: Frame) -> Result<Heard, Malformed> {
        let mut body = Reader::new(&frame.body);
        match frame.kind {
            TAKEN => {
                body.end()?;
                return Ok(Heard::Taken);
            }
            CANCEL => {
                let (id, secret) = (body.u32()?, body.bytes()?.to_vec());
                body.end()?;
                let peer = Peer::Unix { uid: 0, gid: 0, pid: None };
                let asker = frame.descriptor.and_then(|socket| self.handover.admit(socket, peer));
                if let Some(accepted) = asker {
                    self.cancel(id, secret, Asker::passed_on(accepted));
                }
            }
            HEARING => self.heard(body)?,
            GRANTED | RECALLED => self.books_changed(frame.kind, body)?,
            _ => return Err(Malformed),
        }
        Ok(Heard::Nothing)
    }

    /// A process before this one still has clients, and server connections.
    pub(crate) fn take_over(&self, outbox: Outbox, admit: Admit) {
        self.handover.admit.store(Some(Arc::new(admit)));
        self.handover.predecessor.store(Some(Arc::new(outbox)));
        self.handover.is_held_back.store(true, Ordering::SeqCst);
    }

    /// The predecessor is gone, and with it its server connections.
    pub(crate) fn predecessor_gone(&self) {
        self.handover.predecessor.store(None);
        self.close_ledger();
        self.may_connect();
        self.close_desks(DESK_OF_NEW);
        self.handover.release_reads();
    }

    /// What the predecessor says.
    pub(crate) fn predecessor_says(self: &Arc<Self>, frame: Frame) -> Result<(), Malformed> {
        match frame.kind {
            CLIENT => self.client_arrives(frame),
            SWEPT => {
                Reader::new(&frame.body).end()?;
                if let Some(outbox) = self.handover.predecessor.load_full() {
                    // Sent by the thread that reads, which may wait: the one that writes never waits for it.
                    let _ = outbox.send(Frame::new(TAKEN, Writer::new()));
                }
                Ok(())
            }
            BOOKS => {
                Reader::new(&frame.body).end()?;
                self.may_connect();
                Ok(())
            }
            HEAR => self.hear(Reader::new(&frame.body)),
            HELD | RETURNED | WANTED => self.ledger_changed(frame.kind, Reader::new(&frame.body)),
            _ => Err(Malformed),
        }
    }

    fn client_arrives(self: &Arc<Self>, frame: Frame) -> Result<(), Malformed> {
        let client = Handed::decode(&frame.body)?;
        let socket = frame.descriptor.ok_or(Malformed)?;
        let Some(accepted) = self.handover.admit(socket, client.peer) else { return Ok(()) };
        let worker = self.least_busy();
        let order = Order::Adopt { client: Box::new(client), accepted: Box::new(accepted) };
        self.tell(worker, order);
        Ok(())
    }

    /// The worker with the fewest clients; from here on with one more.
    pub(crate) fn least_busy(&self) -> usize {
        let Some(loads) = self.loads.get() else { return 0 };
        let least = (0..loads.len()).min_by_key(|&worker| loads[worker].load(Ordering::Relaxed)).unwrap_or(0);
        if let Some(load) = loads.get(least) {
            load.fetch_add(1, Ordering::Relaxed);
        }
        least
    }

    /// All pools of all databases.
    fn pools(&self) -> Vec<Arc<crate::pool::Pool>> {
        self.databases().iter().flat_map(|database| database.pools()).collect()
    }

    /// A client that cannot go on where it came to.
    pub(crate) fn log_lost_client(&self, who: &str, why: &str) {
        self.log(Level::Warn, &format!("{who}: taken over, and ended: {why}"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn descriptor_of(stream: Stream) -> OwnedFd {
    match stream {
        Stream::Tcp(stream) => stream.into(),
        Stream::Unix(stream) => stream.into(),
    }
}

/// What the family is makes no difference to reading and writing, only to what is asked of the socket.
fn stream_of(descriptor: OwnedFd, peer: &Peer) -> Stream {
    match peer {
        Peer::Tcp(_) => Stream::Tcp(descriptor.into()),
        Peer::Unix { .. } => Stream::Unix(descriptor.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_as_long_as_its_client_is_there() {
        let handover = Handover::default();
        let first = handover.keep_key(7, *b"abcd", (0, 3));
        let second = handover.keep_key(7, *b"efgh", (1, 3));
        assert_eq!(handover.whose(7, b"abcd"), Some((0, 3)));
        assert_eq!(handover.whose(7, b"efgh"), Some((1, 3)));
        assert_eq!(handover.whose(7, b"efg"), None);
        assert_eq!(handover.whose(8, b"abcd"), None);
        drop(first);
        assert_eq!(handover.whose(7, b"abcd"), None);
        assert_eq!(handover.whose(7, b"efgh"), Some((1, 3)));
        drop(second);
        assert!(lock(&handover.keys).is_empty());
    }
}
