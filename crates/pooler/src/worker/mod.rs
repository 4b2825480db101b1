//! One worker: an event loop over its clients and servers.
//!
//! **Intuition.** A transaction is two reads and two writes; what a pooler adds must be next to nothing. So there are no
//! tasks and no wakers here: epoll says which sockets have something, their bytes are read into the worker's one buffer,
//! looked through, and written on from that buffer.
//!
//! **Mechanism.** Every connection is a place in a slab and a token in epoll, edge-triggered: it is read until it is
//! empty or somebody further on is full, in which case it is marked unread and looked at again when that has changed.
//! Orders from other threads come through the mailbox; what is to be looked at once more stands in `again`. Time is read
//! once per turn, and limits are enforced in ticks of [`TICK`].
//!
//! **Failure.** A panic in one worker ends the process in tests and is caught by nobody: the parsers are fuzzed, and a
//! worker that went on with half a state would be worse. Errors of a socket end that connection only.

mod adopt;
mod aliases;
mod away;
mod batch;
mod begin;
mod cancel;
mod certificate;
mod client;
mod connect;
mod console;
mod copying;
mod depart;
mod doubt;
mod downstream;
mod fitting;
mod leave;
mod lend;
mod login;
mod paths;
mod pause;
mod place;
mod randomness;
mod refuse;
mod replacing;
mod reporting;
mod reports;
mod rows;
mod seat;
mod series;
mod server;
mod session;
mod settle;
mod slab;
mod stats;
mod tick;
mod upstream;
mod waiters;
mod wanted_row;
mod wire;
mod writes;

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token, event::Event};
use tenfold_sql::Classifier;

pub(crate) use self::cancel::{Asker, client_of};
pub use self::client::ClientKey;
pub(crate) use self::reports::Report;
pub use self::rows::{ClientRow, ClientState, ServerRow, ServerState, WorkerRows};
pub use self::server::Pin;
pub(crate) use self::server::Server;
pub use self::stats::{Stat, Stats};
use self::{
    cancel::Cancel,
    client::Client,
    console::Console,
    depart::Departures,
    lend::LocalPool,
    pause::Pauses,
    randomness::Randomness,
    slab::{Key, Kind, Slab},
};
use crate::{
    mailbox::{Mailbox, Order},
    shared::Shared,
};

/// Bytes read at once.
pub(crate) const BUFFER_BYTES: usize = 64 * 1_024;
/// Reads of one connection before others get their turn.
const READS_PER_TURN_MAX: usize = 4;
/// Sockets told of per turn.
const EVENTS_PER_TURN: usize = 1_024;
/// Granularity of all limits of time.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// Spare buffers kept.
const SPARES_MAX: usize = 64;
/// Spare buffers larger than this are given back to the allocator.
const SPARE_BYTES_MAX: usize = 128 * 1_024;

/// Notifications kept for a client that is in the middle of something.
const NOTIFICATIONS_BYTES_MAX: usize = 1_024 * 1_024;

const WAKE: Token = Token(0);

/// One worker's state.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    poll: Poll,
    mailbox: Mailbox,
    clients: Slab<Client>,
    servers: Slab<Server>,
    cancels: Slab<Cancel>,
    consoles: Slab<Console>,
    /// Of those, the ones that have more to carry.
    consoles_again: VecDeque<Key>,
    pools: Vec<LocalPool>,
    /// Pools of which others are to be told who waits.
    changed_queues: Vec<usize>,
    /// Clients that wait for a replica to catch up.
    behind: Vec<Key>,
    /// Databases of which positions were told in this turn.
    told: Vec<Arc<crate::shared::Database>>,
    /// Connections to replicas that wait to be confirmed.
    unconfirmed: Vec<Key>,
    /// Clients that listen to notifications.
    listeners: Vec<Key>,
    /// Clients that have yet to hear of a reload of the server.
    untold: reports::Untold,
    /// At most so many connections are kept only for what `currval()` might say; 0 is exact.
    soft_pins: usize,
    pool_index: HashMap<u64, usize, foldhash::fast::RandomState>,
    classifier: Classifier,
    paths: paths::Paths,
    /// Clients to be looked at again.
    again: VecDeque<Key>,
    /// Servers to be read again.
    servers_again: VecDeque<Key>,
    /// Clients logging in, in the order they came, with their deadlines.
    logins: VecDeque<(Instant, Key)>,
    /// Clients that wait for their turn to log in.
    login_queue: VecDeque<Key>,
    is_seating: bool,
    randomness: Randomness,
    buffer: Box<[u8]>,
    spares: Vec<Vec<u8>>,
    now: Instant,
    next_tick: Instant,
    next_second: Instant,
    idle_scan: usize,
    is_draining: bool,
    departures: Departures,
    /// No client is read.
    is_suspended: bool,
    is_stopped: bool,
}

/// Names a server connection of one worker, for other threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerKey(pub(crate) Key);

/// Whose login waits for a password's proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deriving {
    /// A client's.
    Client(ClientKey),
    /// Ours at a server.
    Server(ServerKey),
}

/// What a connection is told of.
#[derive(Clone, Copy, Debug)]
struct Readiness {
    readable: bool,
    writable: bool,
    hangup: bool,
}

impl Worker {
    pub(crate) fn new(
        index: usize,
        shared: Arc<Shared>,
        poll: Poll,
        mailbox: Mailbox,
        classifier: Classifier,
    ) -> Self {
        let now = shared.clock.now();
        Self {
            index,
            shared,
            poll,
            mailbox,
            clients: Slab::new(),
            servers: Slab::new(),
            cancels: Slab::new(),
            consoles: Slab::new(),
            consoles_again: VecDeque::new(),
            pools: Vec::new(),
            changed_queues: Vec::new(),
            behind: Vec::new(),
            told: Vec::new(),
            unconfirmed: Vec::new(),
            listeners: Vec::new(),
            untold: reports::Untold::default(),
            soft_pins: 0,
            pool_index: HashMap::default(),
            classifier,
            paths: paths::Paths::default(),
            again: VecDeque::new(),
            servers_again: VecDeque::new(),
            logins: VecDeque::new(),
            login_queue: VecDeque::new(),
            is_seating: false,
            randomness: Randomness::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            spares: Vec::new(),
            now,
            next_tick: now + TICK,
            next_second: now + Duration::from_secs(1),
            idle_scan: 0,
            is_draining: false,
            departures: Departures::default(),
            is_suspended: false,
            is_stopped: false,
        }
    }

    /// A poll and the mailbox that wakes it.
    pub(crate) fn parts() -> io::Result<(Poll, Mailbox)> {
        let poll = Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKE)?;
        Ok((poll, Mailbox::new(waker)))
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// If the operating system refuses to say which sockets are ready.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        // Without this a short sleep takes 50 µs more. If it is refused, that is what it takes.
        let _ = nix::sys::prctl::set_timerslack(1);
        let mut pauses = Pauses::new(self.now);
        let mut heard = EVENTS_PER_TURN;
        while !self.is_stopped {
            let ended = self.shared.clock.now();
            pauses.turn(self.now, ended);
            if pauses.pays(heard, || self.servers_waited_for()) {
                Pauses::pause();
            }
            let timeout = self.timeout(ended);
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.now = self.shared.clock.now();
            heard = 0;
            for event in &events {
                heard += 1;
                self.event(event);
            }
            self.once_more();
            self.depart_released();
            if self.now >= self.next_tick {
                self.next_tick = self.now + TICK;
                self.tick();
            }
            self.tell_waiting();
        }
        self.end();
        Ok(())
    }

    /// Server connections of the largest pool that clients wait for, at all workers.
    fn servers_waited_for(&self) -> usize {
        let waited_for = self.pools.iter().filter(|pool| !pool.waiters.is_empty());
        waited_for.map(|pool| pool.pool.open()).max().unwrap_or(0)
    }

    fn timeout(&self, now: Instant) -> Duration {
        if !self.again.is_empty() || !self.servers_again.is_empty() || !self.consoles_again.is_empty() {
            return Duration::ZERO;
        }
        self.next_tick.saturating_duration_since(now)
    }

    #[inline]
    fn event(&mut self, event: &Event) {
        if event.token() == WAKE {
            for order in self.mailbox.take() {
                self.order(order);
            }
            self.positions_told();
            return;
        }
        let Some((kind, key)) = Key::from_token(event.token()) else { return };
        let readiness = Readiness {
            readable: event.is_readable(),
            writable: event.is_writable(),
            hangup: event.is_read_closed() || event.is_error(),
        };
        match kind {
            Kind::Client => self.client_ready(key, readiness),
            Kind::Server => self.server_ready(key, readiness),
            Kind::Cancel => self.cancel_ready(key, readiness),
            Kind::Console | Kind::Desk => self.pump(key),
        }
    }

    /// Looks at those that were put off, once each.
    fn once_more(&mut self) {
        for _ in 0..self.servers_again.len() {
            let Some(key) = self.servers_again.pop_front() else { break };
            self.read_server(key, false);
        }
        for _ in 0..self.consoles_again.len() {
            let Some(key) = self.consoles_again.pop_front() else { break };
            self.pump(key);
        }
        // Those that are queued on the way wait for the next turn only if they were looked at in this one.
        for _ in 0..self.again.len().max(EVENTS_PER_TURN) {
            let Some(key) = self.again.pop_front() else { break };
            self.resume_client(key);
        }
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Client(accepted) => self.accept(*accepted),
            Order::Lent(server) => self.take_lent(*server),
            Order::Lend { pool, to } => self.lend_to(&pool, to),
            Order::MakeRoom { pool } => self.make_room_for_others(&pool),
            Order::NothingToLend { pool } => self.nothing_lent(&pool),
            Order::Moved { database } => self.moved(&database),
            Order::Wake { database } => self.wake_database(&database),
            Order::Positions { database } => self.note_positions(database),
            Order::Cancel { place, secret, asker } => self.cancel_asked(place, &secret, asker),
            Order::Found { client } => self.login_found(client.0),
            Order::Derived { of: Deriving::Client(client), salted } => self.client_derived(client.0, &salted),
            Order::Derived { of: Deriving::Server(server), salted } => self.server_derived(server.0, &salted),
            Order::HotTurn { client, permit } => {
                if let Some(back) = self.take_turn(client, permit) {
                    self.leave_row(back);
                }
            }
            Order::Listening { client } => self.listening(client.0),
            Order::NotListening { client } => self.not_listening(client.0),
            Order::Notify { database, channel, message } => self.notify(&database, &channel, &message),
            Order::HubLost { database } => self.hub_lost(&database),
            Order::Reported { report } => self.reported(&report),
            Order::Report { reply } => {
                let _ = reply.send(self.rows());
            }
            Order::Kill { database } => self.kill(database.as_ref()),
            Order::KillClient { id } => self.kill_client(id),
            Order::Reconnect { database } => self.replace_idle(database.as_ref()),
            Order::Suspend { on } => self.suspend(on),
            Order::Reloaded => self.reloaded(),
            Order::Adopt { client, accepted } => self.adopt(&client, *accepted),
            Order::CatchUp { client, caught_up } => self.catch_up(client.0, &caught_up),
            Order::Cut { database, round, channels } => self.cut(&database, round, &channels),
            Order::Depart => self.depart_again(),
            Order::HandOver { on } => self.hand_clients_over(on),
            Order::CloseIdle { pool } => self.close_idle_servers(&pool),
            Order::Drain => self.drain(),
            Order::Stop => self.is_stopped = true,
        }
    }

    fn client_ready(&mut self, key: Key, ready: Readiness) {
        if ready.writable {
            self.flush_client(key);
        }
        if ready.readable || ready.hangup {
            self.read_client(key, ready.hangup);
        }
    }

    /// Sends on what waits for a client; then its server may be read again.
    fn flush_client(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match client.wire.flush(self.poll.registry(), key.token(Kind::Client)) {
            Ok(true) => {
                let server = client.server();
                let has_late = !client.notifications.is_empty();
                if has_late && self.clients.get(key).is_some_and(|client| self.is_between_messages(client)) {
                    self.tell_late(key);
                }
                self.resume_soon(key);
                if let Some(server) = server {
                    self.read_server_if_unread(server);
                }
            }
            Ok(false) => {}
            Err(_) => self.client_gone(key),
        }
    }

    /// Reads a client until it is empty, or until somebody has to take something first.
    fn read_client(&mut self, key: Key, hangup: bool) {
        for _ in 0..READS_PER_TURN_MAX {
            if !self.may_read_client(key, hangup) {
                return;
            }
            let Some(client) = self.clients.get_mut(key) else { return };
            let got = client.wire.read(&mut self.buffer);
            match got {
                Ok(wire::Got::Bytes { len, more }) => {
                    self.client_read(key, len);
                    if !more && !hangup {
                        return;
                    }
                }
                Ok(wire::Got::Nothing) => return,
                Ok(wire::Got::End) | Err(_) => {
                    self.client_gone(key);
                    return;
                }
            }
        }
        self.look_again(key);
    }

    /// Whether a client may be read now; if not, it is marked.
    fn may_read_client(&mut self, key: Key, hangup: bool) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return false };
        // Who logs in may be the one that ends it.
        if self.is_suspended && client.is_logged_in() {
            client.unread = true;
            return false;
        }
        if client.wire.is_blocked() {
            // Answers of ours would gather without end for one who takes none.
            self.flush_client(key);
        }
        let Some(client) = self.clients.get_mut(key) else { return false };
        let full = client.wire.is_blocked()
            || match client.state {
                client::State::Waiting | client::State::Parked(_) | client::State::Behind(_) => true,
                client::State::Active(server) => self.servers.get(server).is_some_and(|server| {
                    server.wire.is_blocked()
                        || !matches!(server.phase, server::Phase::Lent)
                        || server.takes_no_more()
                }),
                client::State::Login(ref login) => login.is_waiting(),
                client::State::Idle => false,
            };
        if !full {
            return true;
        }
        client.unread = true;
        if hangup {
            // It cannot be served any more, so what it waits for is not fetched.
            self.client_gone(key);
        }
        false
    }

    /// Handles what stands in the buffer.
    #[inline]
    fn client_read(&mut self, key: Key, len: usize) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if !client.stash.is_empty() {
            client.stash.extend_from_slice(&self.buffer[..len]);
            self.handle_stash(key);
            return;
        }
        let buffer = std::mem::take(&mut self.buffer);
        let used = self.client_bytes(key, &buffer[..len]);
        if used < len {
            let spare = self.spare();
            if let Some(client) = self.clients.get_mut(key) {
                client.stash = spare;
                client.stash.extend_from_slice(&buffer[used..len]);
            }
        }
        self.buffer = buffer;
    }

    /// Handles what was stashed.
    fn handle_stash(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let mut stash = std::mem::take(&mut client.stash);
        let used = self.client_bytes(key, &stash);
        match self.clients.get_mut(key) {
            Some(client) if used < stash.len() => {
                stash.drain(..used);
                client.stash = stash;
            }
            _ => self.give_spare(stash),
        }
    }

    /// Goes on with a client whose way is free again.
    fn resume_client(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.queued = false;
        if self.is_suspended && client.is_logged_in() {
            return;
        }
        if !client.stash.is_empty() {
            self.handle_stash(key);
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        if std::mem::take(&mut client.unread) {
            self.read_client(key, false);
        }
    }

    /// Clients are read no more, or again.
    fn suspend(&mut self, on: bool) {
        if std::mem::replace(&mut self.is_suspended, on) && !on {
            for key in self.clients.keys() {
                self.look_again(key);
            }
        }
    }

    /// Has a client looked at again before the worker sleeps.
    fn look_again(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.unread = true;
        if !std::mem::replace(&mut client.queued, true) {
            self.again.push_back(key);
        }
    }

    /// As [`Self::look_again`], if there is anything to look at.
    fn resume_soon(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if (client.unread || !client.stash.is_empty()) && !std::mem::replace(&mut client.queued, true) {
            self.again.push_back(key);
        }
    }

    /// What a client sent, by what it is doing; returns how much of it was used.
    #[inline]
    fn client_bytes(&mut self, key: Key, data: &[u8]) -> usize {
        let Some(client) = self.clients.get(key) else { return data.len() };
        match client.state {
            client::State::Login(_) => self.login_bytes(key, data),
            client::State::Waiting | client::State::Parked(_) | client::State::Behind(_) => 0,
            client::State::Idle | client::State::Active(_) => self.upstream(key, data),
        }
    }

    fn server_ready(&mut self, key: Key, ready: Readiness) {
        if self.servers.get(key).is_some_and(|server| server.is_opening()) {
            self.opening_ready(key, ready);
            return;
        }
        if ready.writable {
            self.flush_server(key);
        }
        if ready.readable || ready.hangup {
            self.read_server(key, ready.hangup);
        }
    }

    /// Sends on what waits for a server; then its client may be read again.
    fn flush_server(&mut self, key: Key) {
        let Some(server) = self.servers.get_mut(key) else { return };
        match server.wire.flush(self.poll.registry(), key.token(Kind::Server)) {
            Ok(true) => {
                if let Some(client) = server.client {
                    self.resume_soon(client);
                }
            }
            Ok(false) => {}
            // What it said last may still be there to be read.
            Err(_) => self.read_server(key, true),
        }
    }

    fn read_server_if_unread(&mut self, key: Key) {
        let Some(server) = self.servers.get_mut(key) else { return };
        if std::mem::take(&mut server.unread) {
            self.read_server(key, false);
        }
    }

    /// Reads a server until it is empty, or until its client has to take something first.
    fn read_server(&mut self, key: Key, hangup: bool) {
        for _ in 0..READS_PER_TURN_MAX {
            let Some(server) = self.servers.get_mut(key) else { return };
            let blocked = server
                .client
                .and_then(|client| self.clients.get(client))
                .is_some_and(|client| client.wire.is_blocked());
            if blocked {
                server.unread = true;
                return;
            }
            match server.wire.read(&mut self.buffer) {
                Ok(wire::Got::Bytes { len, more }) => {
                    self.server_read(key, len);
                    if !more && !hangup {
                        return;
                    }
                }
                Ok(wire::Got::Nothing) => return,
                Ok(wire::Got::End) | Err(_) => {
                    self.server_gone(key);
                    return;
                }
            }
        }
        if let Some(server) = self.servers.get_mut(key) {
            server.unread = false;
            self.servers_again.push_back(key);
        }
    }

    #[inline]
    fn server_read(&mut self, key: Key, len: usize) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let mut whole = std::mem::take(&mut server.partial);
        let buffer = std::mem::take(&mut self.buffer);
        if whole.is_empty() {
            let used = self.server_bytes(key, &buffer[..len]);
            whole.extend_from_slice(&buffer[used..len]);
        } else {
            whole.extend_from_slice(&buffer[..len]);
            let used = self.server_bytes(key, &whole);
            whole.drain(..used);
        }
        self.buffer = buffer;
        if let Some(server) = self.servers.get_mut(key) {
            server.partial = whole;
        }
    }

    /// What a server sent, by what it is doing; returns how much of it was used.
    #[inline]
    fn server_bytes(&mut self, key: Key, data: &[u8]) -> usize {
        let Some(server) = self.servers.get(key) else { return data.len() };
        if server.is_opening() { self.opening_bytes(key, data) } else { self.downstream(key, data) }
    }

    pub(super) fn spare(&mut self) -> Vec<u8> {
        self.spares.pop().unwrap_or_default()
    }

    pub(super) fn give_spare(&mut self, mut spare: Vec<u8>) {
        if self.spares.len() < SPARES_MAX && spare.capacity() > 0 && spare.capacity() <= SPARE_BYTES_MAX {
            spare.clear();
            self.spares.push(spare);
        }
    }

    /// Sends to a client; false if that ended it.
    pub(super) fn send_client(&mut self, key: Key, bytes: &[u8]) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return false };
        if client.wire.send(self.poll.registry(), key.token(Kind::Client), bytes).is_ok() {
            return true;
        }
        self.client_gone(key);
        false
    }

    /// Sends to a server. An error is found again, with the server's last words, when it is read.
    pub(super) fn send_server(&mut self, key: Key, bytes: &[u8]) {
        let Some(server) = self.servers.get_mut(key) else { return };
        if server.wire.send(self.poll.registry(), key.token(Kind::Server), bytes).is_err() {
            self.servers_again.push_back(key);
        }
    }

    fn end(&mut self) {
        for key in self.clients.keys() {
            self.clients.remove(key);
        }
        for key in self.servers.keys() {
            self.servers.remove(key);
        }
        if let Some(loads) = self.shared.loads.get() {
            loads[self.index].store(0, Ordering::Relaxed);
        }
    }
}
