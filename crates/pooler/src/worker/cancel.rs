//! Cancel requests: from a client that is not who holds the connection, to the server that runs its query, and no other.
//!
//! **Intuition.** A cancel names a session, not a statement, and travels on a connection of its own, so it may arrive
//! when the session serves somebody else. PostgreSQL cannot tell; we can.
//!
//! **Mechanism.** The key given to a client names its worker and place, and holds a secret; one that a predecessor of this
//! process gave is looked up, and what nobody here has goes to the predecessor, if it still lives ([`crate::handover`]). A request is passed on only
//! while that client holds a server connection with something running, and that connection is lent to nobody else until
//! the server has closed the cancel's own connection, by which time the signal was sent.
//!
//! **Failure.** At most [`CANCELS_MAX`] at once per worker, and none that lasts longer than `cancel_wait`.

use std::time::Instant;

use subtle::ConstantTimeEq;
use tenfold_pgwire::startup;
use tenfold_service::{
    acceptor::{Accepted, Stream},
    limits::Permit,
};

use super::{
    Readiness, Worker,
    client::State,
    connect::open_socket,
    refuse,
    slab::{Key, Kind},
    wire::{Got, Socket, Wire},
};
use crate::counters::Counter;
use crate::refusal::Refusal;

/// Cancel requests of one worker under way at once.
const CANCELS_MAX: usize = 4_096;

/// A cancel request on its way to a server.
#[derive(Debug)]
pub(super) struct Cancel {
    wire: Wire,
    server: Key,
    server_id: u64,
    request: Vec<u8>,
    pub(super) deadline: Instant,
    _asker: Option<Box<Asker>>,
}

/// The connection a cancel request came by. It ends when this is dropped.
pub(crate) struct Asker {
    wire: Wire,
    _permit: Permit,
}

impl Asker {
    /// Of a request that another process of ours passes on.
    pub(crate) fn passed_on(accepted: Accepted) -> Self {
        Self { wire: Wire::new(Socket::of(accepted.stream)), _permit: accepted.permit }
    }

    /// Its socket; `None` if it speaks TLS.
    pub(crate) fn into_stream(self) -> Option<Stream> {
        self.wire.into_stream().ok()
    }
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asker")
    }
}

/// The process id that stands for a client: its worker and its place, never 0 and never negative.
pub(crate) fn process_id(worker: usize, place: u32) -> u32 {
    let worker = u32::try_from(worker).unwrap_or(0) & 0x7f;
    worker << 24 | (place + 1) & 0x00ff_ffff
}

/// The worker and the place that a process id stands for.
pub(crate) fn client_of(process_id: u32) -> Option<(usize, u32)> {
    let place = (process_id & 0x00ff_ffff).checked_sub(1)?;
    Some(((process_id >> 24 & 0x7f) as usize, place))
}

impl Worker {
    /// The connection of a cancel request, which is no client's any more.
    pub(super) fn take_asker(&mut self, key: Key) -> Option<Asker> {
        let mut client = self.clients.remove(key)?;
        let _ = client.wire.deregister(self.poll.registry());
        self.count_load(-1);
        Some(Asker { wire: client.wire, _permit: client.permit })
    }

    /// Somebody wants a client's statement cancelled.
    pub(super) fn cancel_asked(&mut self, place: u32, secret: &[u8], asker: Box<Asker>) {
        let meant = self.clients.at(place).and_then(|key| Some((key, self.clients.get(key)?)));
        let meant = meant.filter(|(_, client)| bool::from(client.secret.as_slice().ct_eq(secret)));
        let Some((key, client)) = meant else {
            // A client of this process's predecessor may have had the key.
            self.shared.handover.pass_cancel(process_id(self.index, place), secret, *asker);
            return;
        };
        if !client.is_logged_in() {
            return;
        }
        self.shared.counters.count(self.index, Counter::Cancels);
        match client.state {
            State::Active(server) => {
                let runs = self.servers.get(server).is_some_and(super::Server::owes_client);
                if runs {
                    self.cancel_server(server, Some(asker));
                }
            }
            State::Waiting | State::Parked(_) | State::Behind(_) => self.cancel_waiting(key),
            _ => {}
        }
    }

    /// A client that only waits is told so itself.
    fn cancel_waiting(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if let State::Parked(_) = client.state {
            client.state = State::Idle;
        } else {
            let local = client.queue;
            if let Some(waiter) = self.pools[local].waiters.remove(key)
                && let Some(permit) = waiter.hot
            {
                self.leave_row(permit);
            }
            self.say_waiting(local);
        }
        let error = refuse::error_body(Refusal::QueryWait, "canceling statement due to user request");
        self.refuse_exchange(key, &error);
    }

    /// Sends a cancel request to the server behind a connection.
    pub(super) fn cancel_server(&mut self, server_key: Key, asker: Option<Box<Asker>>) {
        let tcp = self.shared.config.load().tcp;
        let cancel_wait = self.shared.config.load().cancel_wait;
        let Some(server) = self.servers.get_mut(server_key) else { return };
        if self.cancels.len() >= CANCELS_MAX || server.process_id == 0 {
            return;
        }
        let Ok(socket) = open_socket(&server.address.at, &tcp) else { return };
        let mut request = Vec::new();
        startup::append_cancel(&mut request, server.process_id, &server.key);
        server.cancels += 1;
        let server_id = server.id;
        let deadline = self.now + cancel_wait;
        let cancel = Cancel {
            wire: Wire::new(socket),
            server: server_key,
            server_id,
            request,
            deadline,
            _asker: asker,
        };
        let key = self.cancels.insert_with(|_| cancel);
        let registry = self.poll.registry();
        let registered = self
            .cancels
            .get_mut(key)
            .is_some_and(|cancel| cancel.wire.register(registry, key.token(Kind::Cancel), true).is_ok());
        if !registered {
            self.cancel_ended(key);
        }
    }

    pub(super) fn cancel_ready(&mut self, key: Key, ready: Readiness) {
        let Some(cancel) = self.cancels.get_mut(key) else { return };
        if !cancel.request.is_empty() {
            if !cancel.wire.socket().is_connected() {
                if ready.hangup {
                    self.cancel_ended(key);
                }
                return;
            }
            let request = std::mem::take(&mut cancel.request);
            if cancel.wire.send(self.poll.registry(), key.token(Kind::Cancel), &request).is_err() {
                self.cancel_ended(key);
                return;
            }
        }
        let Some(cancel) = self.cancels.get_mut(key) else { return };
        if ready.readable || ready.hangup {
            let mut byte = [0; 16];
            match cancel.wire.read(&mut byte) {
                Ok(Got::Nothing) => {}
                // The server closes when the signal was sent, and says nothing.
                _ => self.cancel_ended(key),
            }
        }
    }

    /// The request arrived, or never will.
    pub(super) fn cancel_ended(&mut self, key: Key) {
        let Some(mut cancel) = self.cancels.remove(key) else { return };
        let _ = cancel.wire.deregister(self.poll.registry());
        let Some(server) = self.servers.get_mut(cancel.server) else { return };
        if server.id != cancel.server_id {
            return;
        }
        server.cancels = server.cancels.saturating_sub(1);
        if server.cancels == 0
            && matches!(server.phase, super::server::Phase::Idle)
            && server.client.is_none()
        {
            self.give(cancel.server);
        }
    }

    /// Gives up requests that take too long.
    pub(super) fn tick_cancels(&mut self) {
        for key in self.cancels.keys() {
            if self.cancels.get(key).is_some_and(|cancel| self.now >= cancel.deadline) {
                let server = self.cancels.get(key).map(|cancel| cancel.server);
                // A late signal must not reach the next client's query.
                if let Some(server) = server
                    && let Some(entry) = self.servers.get_mut(server)
                {
                    entry.tainted = true;
                    if entry.client.is_none() {
                        self.close_server(server);
                    }
                }
                self.cancel_ended(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_ids_name_worker_and_place() {
        for worker in [0, 1, 63, 127] {
            for place in [0, 1, 65_535, 0x00ff_fffe] {
                let id = process_id(worker, place);
                assert!(id != 0 && i32::try_from(id).is_ok());
                assert_eq!(client_of(id), Some((worker, place)));
            }
        }
        assert_eq!(client_of(0), None);
    }
}
