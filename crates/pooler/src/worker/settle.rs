//! The end of a transaction: what it left in the session, and whether the connection may go.
//!
//! **Intuition.** Nearly all transactions leave nothing, and are let go at once. For the others the server is asked what
//! is true now, in one query of ours: no bookkeeping of rollbacks, savepoints or functions could know better.
//!
//! **Mechanism.** [`Worker::transaction_ended`] → (probe) → [`Worker::settled`] → the client's new image, the channels to
//! the hub, the reasons to stay → released, or not. While it is settled the client's next messages wait.
//!
//! **Failure.** A probe that fails leaves the connection with its client: nothing is known, so nothing is shared.

use std::{sync::Arc, sync::atomic::Ordering};

use tenfold_pgwire::{backend::TransactionStatus, write};
use tenfold_sql::Effects;

use super::{
    Worker,
    client::{Client, ClientKey, State},
    downstream::image_after,
    place::IDENTITY_SETTING,
    server::{Due, Ours, Phase, Pin, Probing, Server, Why},
    slab::Key,
    stats::Stat,
};
use crate::{
    config::Sequences,
    image::{Image, Images, Needs, Replay, replay},
    mailbox::Ask,
    probe::{Found, Origin, Reader, Wanted},
    shared::Started,
};

/// Effects that a probe can tell about, and those that need none.
pub(super) const NOTHING_TO_ASK: Effects =
    Effects::WRITES.with(Effects::DDL).with(Effects::SEQUENCE_MAYBE).with(Effects::SEQUENCE_READ);

const SEQUENCES_MAY_BE_DRAWN: Effects =
    Effects::SEQUENCE_SET.with(Effects::SEQUENCE_MAYBE).with(Effects::UNKNOWN).with(Effects::SQL_EXECUTE);

impl Worker {
    /// The client's transaction is over, and it has been told (but for LISTEN).
    #[inline]
    pub(super) fn transaction_ended(&mut self, key: Key) {
        self.leave_hot(key);
        let now = self.now;
        let Some(server) = self.servers.get_mut(key) else { return };
        let stats = &mut self.pools[server.local].stats;
        stats[Stat::Transactions] += 1;
        if let Some(since) = server.transaction_since {
            let us = u64::try_from(now.saturating_duration_since(since).as_micros()).unwrap_or(u64::MAX);
            stats[Stat::TransactionUs] += us;
            stats[Stat::QueryUs] += us;
        }
        server.in_series = false;
        if server.effects.is_empty() && server.pins.is_empty() {
            self.release(key);
            return;
        }
        self.settle(key);
    }

    pub(super) fn settle(&mut self, key: Key) {
        self.tell_redefined(key);
        if !self.is_sure(key) {
            return;
        }
        let Some(server) = self.servers.get_mut(key) else { return };
        let effects = server.effects;
        if effects.without(NOTHING_TO_ASK).is_empty() && server.pins.is_empty() {
            self.note_lasting(key, effects);
            self.let_go(key);
            return;
        }
        let client = server.client.and_then(|client| self.clients.get(client));
        let wanted = client.and_then(|client| wanted(server, client));
        self.note_lasting(key, effects);
        let Some(server) = self.servers.get_mut(key) else { return };
        let is_unknown = wanted.is_none() || effects.intersects(Effects::UNKNOWN);
        server.pins.set(Pin::Unknown, (server.pins.has(Pin::Unknown) || is_unknown) && !is_cleaning(effects));
        match wanted.filter(|wanted| !wanted.is_empty()) {
            Some(wanted) => self.probe(key, wanted),
            None => self.settled(key, None),
        }
    }

    fn probe(&mut self, key: Key, wanted: Wanted) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let mut out = Vec::new();
        server.close_aliases(&mut out);
        write::query(&mut out, &wanted.sql());
        server.phase = Phase::Settling(Box::new(Probing { wanted, reader: Reader::default() }));
        server.touched = self.now;
        server.push_ours(Why::Probe);
        self.send_server(key, &out);
    }

    /// What no probe has to be asked for.
    fn note_lasting(&mut self, key: Key, effects: Effects) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let client = server.client.and_then(|client| self.clients.get(client));
        if effects.intersects(SEQUENCES_MAY_BE_DRAWN) {
            server.sequences_of = client.map_or(u64::MAX, |client| client.id);
        }
        if effects.intersects(Effects::SEQUENCE_READ) {
            server.pool.reads_sequences.store(true, Ordering::Relaxed);
        }
        if effects.intersects(Effects::SEED | Effects::LOAD) {
            server.tainted = true;
            server.pins.set(Pin::Seed, server.pins.has(Pin::Seed) || effects.intersects(Effects::SEED));
            server.pins.set(Pin::Load, server.pins.has(Pin::Load) || effects.intersects(Effects::LOAD));
        }
        let keeps = server.pool.settings.load().sequences != Sequences::Free;
        if effects.intersects(Effects::SEQUENCE_SET) && keeps {
            server.pins.set(Pin::Sequence, true);
            self.soft_pins += 1;
        }
        if is_cleaning(effects) {
            server.sequences_of = 0;
            server.pins.set(Pin::Sequence, false);
        }
    }

    /// A query of ours has ended.
    pub(super) fn ours_ended(&mut self, key: Key) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let Some(Due::Ours(_)) = server.due.front() else { return };
        let Some(Due::Ours(ours)) = server.due.pop_front() else { return };
        server.touched = self.now;
        if server.client.is_none() && matches!(server.phase, Phase::Abandoned) {
            self.abandoned_answered(key, &ours);
        } else {
            self.our_answer(key, &ours);
        }
    }

    fn our_answer(&mut self, key: Key, ours: &Ours) {
        if let Some(image) = image_after(ours)
            && !ours.failed
            && let Some(server) = self.servers.get_mut(key)
        {
            server.image = Arc::clone(image);
        }
        match ours.why {
            Why::Check if ours.failed => self.preparing_failed(key, true),
            Why::Replay(_) | Why::ReplayPart { confirm: true } if ours.failed => {
                self.preparing_failed(key, false);
            }
            Why::ReplayAhead(_) | Why::ReplayPart { .. } | Why::Begin if ours.failed => {
                self.server_broken(key, "what goes ahead of a client's message failed");
            }
            Why::DiscardSequences if ours.failed => {
                if let Some(server) = self.servers.get_mut(key) {
                    server.sequences_of = u64::MAX;
                }
                self.went_ahead(key);
            }
            Why::Check
            | Why::Replay(_)
            | Why::ReplayPart { .. }
            | Why::ReplayAhead(_)
            | Why::DiscardSequences
            | Why::Begin => self.went_ahead(key),
            Why::Fail if ours.failed => self.went_ahead(key),
            Why::Fail => self.server_broken(key, "what was to fail a transaction did not"),
            Why::Facts => self.facts_told(key, ours.failed),
            Why::Unchain if ours.failed => self.server_broken(key, "a transaction could not be ended"),
            Why::Unchain => self.unchained(key),
            Why::Probe => self.probed(key, ours.failed),
            Why::Unlisten => self.unlistened(key, ours.failed),
            Why::Rollback | Why::Clean => {}
            Why::Connect => self.connect_query_ended(key, ours.failed),
            Why::Startup => self.startup_tried(key, ours.failed),
        }
    }

    /// One of what goes ahead of a client's message is done: was it the last that had to be waited for?
    fn went_ahead(&mut self, key: Key) {
        let Some(server) = self.servers.get(key) else { return };
        if matches!(server.phase, Phase::Preparing) && server.due.is_empty() {
            self.prepared(key);
        }
    }

    fn probed(&mut self, key: Key, failed: bool) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let phase = std::mem::replace(&mut server.phase, Phase::Lent);
        let Phase::Settling(probing) = phase else { return };
        if server.client.is_some_and(|client| self.clients.get(client).is_some_and(|c| !c.is_logged_in())) {
            self.startup_probed(key, (!failed).then(|| probing.reader.finish()));
            return;
        }
        if failed {
            server.pins.set(Pin::Unknown, true);
            self.settled(key, None);
            return;
        }
        let Probing { wanted, reader } = *probing;
        let found = reader.finish();
        self.fresh_values(key, &found);
        self.settled(key, Some((wanted, found)));
    }

    /// What the session holds is known, as far as it can be.
    fn settled(&mut self, key: Key, found: Option<(Wanted, Found)>) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let Some(client_key) = server.client else { return };
        let Some(client) = self.clients.get_mut(client_key) else { return };
        let Some(startup) = client.seat.as_ref().map(|seat| Arc::clone(&seat.startup)) else { return };
        let mut relisten = None;
        let mut back = Vec::new();
        if let Some((wanted, found)) = found {
            if wanted.temp {
                server.pins.set(Pin::Temporary, found.temp);
            }
            if wanted.advisory {
                server.pins.set(Pin::AdvisoryLock, found.advisory);
            }
            if wanted.held {
                server.pins.set(Pin::HeldCursor, found.held);
            }
            // With the temporary schema searched first, what is created unqualified is temporary, and no text shows it.
            let names_temporary = found.settings.iter().any(|(name, value)| {
                **name == *"search_path" && value.as_deref().is_some_and(|path| path.contains("pg_temp"))
            });
            if names_temporary {
                server.pins.set(Pin::Unknown, true);
            }
            let images = &self.shared.images;
            match new_images(server, &client.image, &startup.image, &wanted, &found, images) {
                Some((on_server, of_client)) => {
                    let welcome = server.pool.welcome.load();
                    let fresh = welcome.as_deref().map(Vec::as_slice).unwrap_or_default();
                    client.dialect = crate::started::dialect_of(&of_client, fresh);
                    if of_client.setting(IDENTITY_SETTING) != client.image.setting(IDENTITY_SETTING)
                        || server.effects.intersects(Effects::RESETS_ALL)
                    {
                        // By other means than the one that is answered here.
                        client.identity = None;
                    }
                    (server.image, client.image) = (on_server, of_client);
                    back = reports_of_start(&startup, &server.image, &found);
                }
                None => server.pins.set(Pin::Unknown, true),
            }
            let listens = client.seat.as_ref().is_some_and(|seat| seat.listens);
            if wanted.channels && (listens || !found.channels.is_empty()) {
                relisten = Some(found.channels);
            }
        }
        server.forget_effects();
        if !back.is_empty() && !self.send_client(client_key, &back) {
            return;
        }
        match relisten {
            Some(channels) if channels.is_empty() => {
                self.listen_to_nothing(client_key);
                self.let_go(key);
            }
            Some(channels) => self.listen(key, client_key, &channels),
            None => self.let_go(key),
        }
    }

    /// The client gave its last channel up.
    fn listen_to_nothing(&mut self, client_key: Key) {
        self.listeners.retain(|listener| *listener != client_key);
        let Some(client) = self.clients.get_mut(client_key) else { return };
        let Some(seat) = client.seat.as_mut() else { return };
        seat.listens = false;
        (seat.round, seat.ahead) = (None, 0);
        let database = Arc::clone(&seat.pool.database);
        self.shared.ask(Ask::Unlisten { worker: self.index, client: ClientKey(client_key), database });
    }

    /// The client's channels go to the hub; the server connection listens to none.
    fn listen(&mut self, key: Key, client_key: Key, channels: &[String]) {
        let Some(client) = self.clients.get_mut(client_key) else { return };
        let Some(server) = self.servers.get_mut(key) else { return };
        if let Some(seat) = client.seat.as_mut() {
            seat.listens = !channels.is_empty();
            (seat.round, seat.ahead) = (None, 0);
        }
        self.listeners.retain(|listener| *listener != client_key);
        if !channels.is_empty() {
            self.listeners.push(client_key);
        }
        server.phase = Phase::Listening;
        server.owes_hub = true;
        let ask = Ask::Listen {
            worker: self.index,
            client: ClientKey(client_key),
            database: Arc::clone(&server.pool.database),
            channels: channels.iter().map(|channel| channel.as_str().into()).collect(),
        };
        if !self.shared.ask(ask) {
            self.listening(client_key);
        }
        self.unlisten(key);
    }

    fn unlisten(&mut self, key: Key) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let mut out = Vec::new();
        write::query(&mut out, b"UNLISTEN *");
        server.touched = self.now;
        server.push_ours(Why::Unlisten);
        self.send_server(key, &out);
    }

    fn unlistened(&mut self, key: Key, failed: bool) {
        let Some(server) = self.servers.get_mut(key) else { return };
        match self.shared.images.with_channels(&server.image, &[]) {
            Ok(image) if !failed => server.image = image,
            _ => server.tainted = true,
        }
        if !server.owes_hub {
            self.let_go(key);
        }
    }

    /// The hub listens: the client hears that its LISTEN is done.
    pub(super) fn listening(&mut self, client_key: Key) {
        let Some(client) = self.clients.get(client_key) else { return };
        let Some(key) = client.server() else { return };
        let Some(server) = self.servers.get_mut(key) else { return };
        server.owes_hub = false;
        let is_unlistened = server.due.is_empty();
        if matches!(server.phase, Phase::Listening) && is_unlistened {
            self.let_go(key);
        }
    }

    /// Releases a settled connection, or leaves it with its client if there is a reason.
    fn let_go(&mut self, key: Key) {
        let Some(server) = self.servers.get_mut(key) else { return };
        if std::mem::take(&mut server.owes_ready) {
            let client = server.client;
            let mut out = Vec::new();
            write::ready_for_query(&mut out, TransactionStatus::Idle);
            if let Some(client) = client
                && !self.send_client(client, &out)
            {
                return;
            }
        }
        let Some(server) = self.servers.get_mut(key) else { return };
        server.effects = Effects::NONE;
        if server.image.channels().len() > 0 && !matches!(server.phase, Phase::Listening) {
            server.phase = Phase::Listening;
            self.unlisten(key);
            return;
        }
        let local = server.local;
        let must_yield =
            server.pins.is_soft() && self.pools[local].waiters.len() > self.pools[local].connecting;
        let Some(server) = self.servers.get_mut(key) else { return };
        if must_yield
            && server.pool.settings.load().sequences == Sequences::Adaptive
            && !server.pool.reads_sequences.load(Ordering::Relaxed)
        {
            server.pins.set(Pin::Sequence, false);
        }
        if server.pins.is_empty() {
            self.release(key);
            return;
        }
        server.phase = Phase::Lent;
        server.since = self.now;
        server.transaction_since = None;
        if self.close_fast(key) {
            return;
        }
        let Some(server) = self.servers.get_mut(key) else { return };
        if let Some(client) = server.client {
            self.tell_untold(client);
            self.tell_late(client);
            if !self.bring_back(key) {
                self.resume_soon(client);
            }
        }
    }

    /// A connection that stays with its client goes back to the startup parameters that were reset on it. False if it
    /// has nothing to go back to.
    fn bring_back(&mut self, key: Key) -> bool {
        let Some(server) = self.servers.get_mut(key) else { return false };
        let Some(client) = server.client.and_then(|client| self.clients.get(client)) else { return false };
        let images = &self.shared.images;
        let Some(replay) = replay(&server.image, &client.image, Needs::default(), images) else {
            return false;
        };
        server.phase = Phase::Preparing;
        server.touched = self.now;
        // Nobody waits for it, so that a failure is the connection's end rather than anybody's error.
        server.push_replay(&Replay { confirm: false, ..replay.clone() });
        self.send_server(key, &replay.messages);
        true
    }

    /// The connection leaves its client and goes to the next.
    #[inline]
    pub(super) fn release(&mut self, key: Key) {
        let now = self.now;
        let Some(server) = self.servers.get_mut(key) else { return };
        let client = server.client.take();
        server.effects = Effects::NONE;
        server.in_series = false;
        server.skipping = false;
        server.copying_in = false;
        server.torn = false;
        if let Some(client) = client
            && let Some(client_entry) = self.clients.get_mut(client)
        {
            client_entry.state = State::Idle;
            client_entry.since = now;
            if !client_entry.notifications.is_empty() && client_entry.held.is_none() {
                self.tell_late(client);
            }
            if !self.untold.is_empty() {
                self.tell_untold(client);
            }
            self.resume_soon(client);
            self.may_depart(client);
        }
        self.give(key);
    }

    /// The permits for rows go to whoever waits for them.
    pub(super) fn leave_hot(&mut self, key: Key) {
        let Some(server) = self.servers.get_mut(key) else { return };
        if server.hot.is_empty() {
            return;
        }
        for permit in std::mem::take(&mut server.hot) {
            self.leave_row(permit);
        }
    }
}

/// Whether all of a session goes.
fn is_cleaning(effects: Effects) -> bool {
    effects.intersects(Effects::DISCARD_ALL)
}

/// What to ask after a client's transaction. `None`: more than can be asked, or what nobody can name.
fn wanted(server: &Server, client: &Client) -> Option<Wanted> {
    let effects = server.effects;
    let mut wanted = Wanted::from_effects(effects, server.names.iter().map(|name| &**name))?;
    if effects.intersects(Effects::UNKNOWN | Effects::DISCARD_ALL) {
        (wanted.prepared, wanted.channels) = (true, true);
        (wanted.temp, wanted.advisory, wanted.held) = (true, true, true);
    }
    // With the aliases closed, something has to be asked.
    wanted.prepared |= !server.aliases.is_empty();
    if effects.intersects(Effects::RESETS_ALL) {
        let mut held = server.image.settings().iter().chain(client.image.settings());
        held.all(|(name, _)| wanted.add_setting(name)).then_some(())?;
    }
    // A function may give a setting up, too (`set_config` with NULL), and only a startup parameter makes it matter.
    let startup = client.seat.as_ref().map(|seat| &seat.startup.image);
    let began_with = |name: &Arc<str>| startup.is_some_and(|startup| startup.setting(name).is_some());
    wanted.origins |= wanted.settings().iter().any(began_with) || !server.reported.is_empty();
    Some(wanted)
}

/// What the server holds now, and what the client does: the same but for startup parameters, which are what a client's
/// settings go back to, and of which the server knows nothing.
fn new_images(
    server: &Server,
    client: &Arc<Image>,
    startup: &Image,
    wanted: &Wanted,
    found: &Found,
    images: &Images,
) -> Option<(Arc<Image>, Arc<Image>)> {
    let mut on_server = Vec::with_capacity(found.settings.len());
    let mut of_client = Vec::with_capacity(found.settings.len());
    for (name, value) in &found.settings {
        let is_back = wanted.origins && is_back(server, found, name, value.as_deref());
        let kept = value.clone().filter(|_| !is_back);
        let began = || startup.setting(name).map(str::to_owned);
        of_client.push((Arc::clone(name), if is_back { began() } else { kept.clone() }));
        on_server.push((Arc::clone(name), kept));
    }
    let mut on_server = images.with_settings(&server.image, &on_server).ok()?;
    let mut of_client = images.with_settings(client, &of_client).ok()?;
    if wanted.prepared {
        on_server = images.with_prepared(&on_server, &found.prepared).ok()?;
        of_client = images.with_prepared(&of_client, &found.prepared).ok()?;
    }
    if wanted.channels {
        on_server = images.with_channels(&on_server, &found.channels).ok()?;
        of_client = images.with_channels(&of_client, &found.channels).ok()?;
    }
    Some((on_server, of_client))
}

/// A client heard of the server's value of what it reset; what it gets is its startup parameter's.
fn reports_of_start(startup: &Started, on_server: &Image, found: &Found) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in &startup.reports {
        let lower = name.to_ascii_lowercase();
        let was_asked = found.settings.iter().any(|(found, _)| **found == *lower);
        if was_asked && startup.image.setting(&lower).is_some() && on_server.setting(&lower).is_none() {
            write::parameter_status(&mut out, name.as_bytes(), value.as_bytes());
        }
    }
    out
}

/// Whether a setting went back to what the session began with. Where the server does not say it, of roles and custom
/// settings, the value does: what has been reset is empty, or nobody.
fn is_back(server: &Server, found: &Found, name: &Arc<str>, value: Option<&str>) -> bool {
    if let Some(origin) = found.origin(name) {
        return origin == Origin::Start;
    }
    let effects = server.effects;
    if !matches!(&**name, "role" | "session_authorization") {
        return effects.intersects(Effects::RESETS) && value.is_none_or(str::is_empty);
    }
    // RESET ALL spares both.
    let may_be_reset = effects.intersects(Effects::RESETS) && server.names.contains(name);
    (may_be_reset || effects.intersects(Effects::DISCARD_ALL)) && value.is_none_or(|role| role == "none")
}
