//! What a worker tells: rows for the console, counters, the log.

use std::{sync::Arc, sync::atomic::Ordering};

use tenfold_pgwire::backend::TransactionStatus;

use super::{Worker, client::State, slab::Key, stats::Stat};
use crate::{
    hot::HotPermit,
    mailbox::Order,
    refusal::Refusal,
    shared::{Database, Level},
};

impl Worker {
    /// A permit for a row goes to whoever waits for it.
    pub(super) fn leave_row(&mut self, permit: HotPermit) {
        let mut left = vec![permit];
        while let Some(permit) = left.pop() {
            let mut turn = permit.leave(self.now);
            while let Some((waiter, permit)) = turn.take() {
                // The row may have been given more connections than it has.
                turn = permit.another();
                if usize::from(waiter.worker) != self.index {
                    let order = Order::HotTurn { client: waiter.client, permit };
                    self.shared.tell(usize::from(waiter.worker), order);
                } else if let Some(back) = self.take_turn(waiter.client, permit) {
                    left.push(back);
                }
            }
        }
    }

    /// It is a parked client's turn. The permit comes back if the client does not wait any more.
    pub(super) fn take_turn(&mut self, client: u64, permit: HotPermit) -> Option<HotPermit> {
        let key = Key::from_bits(client);
        let Some(client) = self.clients.get_mut(key) else { return Some(permit) };
        if !matches!(client.state, State::Parked(_)) {
            return Some(permit);
        }
        client.state = State::Idle;
        client.turn = Some(permit);
        self.resume_soon(key);
        None
    }

    /// A notification for those who listen.
    pub(super) fn notify(&mut self, database: &Arc<Database>, channel: &str, message: &[u8]) {
        for key in self.listeners.clone() {
            let is_for = self.clients.get(key).is_some_and(|client| {
                client.seat.as_ref().is_some_and(|seat| Arc::ptr_eq(&seat.pool.database, database))
            });
            if !is_for {
                continue;
            }
            self.notify_one(key, channel, message);
        }
    }

    /// A notification for one who listens, as soon as it may be told.
    pub(super) fn notify_one(&mut self, key: Key, channel: &str, message: &[u8]) {
        let Some(client) = self.clients.get(key) else { return };
        if !client.image.channels().any(|own| **own == *channel) {
            return;
        }
        let is_between = !client.wire.is_blocked() && self.is_between_messages(client);
        if let Some(seat) = self.clients.get_mut(key).and_then(|client| client.seat.as_mut()) {
            if let Some((_, told)) = &mut seat.round {
                *told += 1;
            }
            if seat.ahead > 0 {
                seat.ahead -= 1;
                return;
            }
        }
        if is_between {
            // Others may have come in the middle of something that is over by now.
            self.tell_late(key);
            self.send_client(key, message);
        } else if let Some(client) = self.clients.get_mut(key)
            && client.notifications.len() + message.len() <= super::NOTIFICATIONS_BYTES_MAX
        {
            client.notifications.extend_from_slice(message);
        } else {
            let text = "more notifications came than are kept for a client that takes none";
            self.refuse_and_end(key, Refusal::HubLost, text);
        }
    }

    /// The hub cannot listen: the client must not believe that it does.
    pub(super) fn not_listening(&mut self, key: Key) {
        let text = "the connection that listens for notifications cannot be made";
        self.refuse_and_end(key, Refusal::HubLost, text);
    }

    /// Whether a message of its own may be put in for a client now.
    pub(super) fn is_between_messages(&self, client: &super::client::Client) -> bool {
        let server = client.server().and_then(|server| self.servers.get(server));
        match &client.state {
            State::Idle => client.held.is_none() && !client.skipping,
            State::Active(_) => {
                server.is_some_and(|server| server.status == TransactionStatus::Idle && server.due.is_empty())
            }
            _ => false,
        }
    }

    /// Notifications that came in the middle of something, now that it is over.
    pub(super) fn tell_late(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let late = std::mem::take(&mut client.notifications);
        if !late.is_empty() {
            self.send_client(key, &late);
        }
    }

    /// The hub's connection is lost: those who listened may have missed something.
    pub(super) fn hub_lost(&mut self, database: &Arc<Database>) {
        for key in self.clients.keys() {
            let seat = self.clients.get(key).and_then(|client| client.seat.as_ref());
            if seat.is_some_and(|seat| seat.listens && Arc::ptr_eq(&seat.pool.database, database)) {
                let text =
                    "the connection that listens for notifications was lost; some may have been missed";
                self.refuse_and_end(key, Refusal::HubLost, text);
            }
        }
    }

    pub(super) fn log_refusal(&self, key: Key, refusal: Refusal, text: &str) {
        let who = self.clients.get(key).map_or_else(|| "a client".to_owned(), super::client::Client::label);
        self.shared.log(Level::Info, &format!("{who}: {}: {text}", refusal.as_str()));
    }

    pub(super) fn log_login(&self, key: Key) {
        if self.shared.config.load().log_connections
            && let Some(client) = self.clients.get(key)
        {
            self.shared.log(Level::Info, &format!("{}: login", client.label()));
        }
    }

    pub(super) fn count_transaction(&mut self, key: Key) {
        if let Some(seat) = self.clients.get(key).and_then(|client| client.seat.as_ref()) {
            self.pools[seat.local].stats[Stat::Transactions] += 1;
            self.pools[seat.local].stats[Stat::Queries] += 2;
        }
    }

    pub(super) fn count_prepared(&mut self, server: Key, was_there: bool) {
        if let Some(server) = self.servers.get(server) {
            let stats = &mut self.pools[server.local].stats;
            if was_there {
                stats[Stat::PreparedHits] += 1;
            } else {
                stats[Stat::PreparedMisses] += 1;
            }
        }
    }

    pub(super) fn count_load(&self, change: isize) {
        if let Some(loads) = self.shared.loads.get() {
            loads[self.index].fetch_add(change.cast_unsigned(), Ordering::Relaxed);
        }
    }

    /// Counters for others to read.
    pub(super) fn publish(&self) {
        for part in &self.pools {
            part.pool.publish(self.index, &part.stats);
        }
        let mut pinned = [0; super::Pin::ALL.len()];
        for key in self.servers.keys() {
            let pins = self.servers.get(key).map(|server| server.pins).unwrap_or_default();
            pins.iter().for_each(|pin| pinned[pin as usize] += 1);
        }
        self.shared.counters.set_pins(self.index, pinned);
    }

    pub(super) fn reloaded(&mut self) {
        for local in 0..self.pools.len() {
            self.seek(local);
        }
        for key in self.clients.keys() {
            let Some(client) = self.clients.get_mut(key) else { continue };
            if let Some(seat) = client.seat.as_mut() {
                let spec = seat.pool.database.spec.load();
                let (settings, own) = self.shared.config.load().settings_of(&spec, &seat.user);
                seat.times = super::client::Times::of(&settings);
                seat.priority = own.priority;
            }
        }
        self.replace_idle(None);
    }

    pub(super) fn is_draining_hard(&self) -> bool {
        self.is_stopped
    }
}
