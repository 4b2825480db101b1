//! Clients that listen go over without losing a notification, or hearing one twice.
//!
//! **Intuition.** PostgreSQL delivers notifications to all sessions in one order, that of the commits. If both processes
//! listen, and a notification of ours is sent, it stands at the same place in what each of them hears: whatever comes
//! before it the old process tells, whatever comes after it the new one does, less what the client was told in between.
//!
//! **Mechanism.** When a client at rest listens, the old process begins a [`Round`] for its database: its hub listens to
//! a channel that nobody else knows, the *marker*; then the successor is told the marker and the channels of those who
//! wait ([`HEAR`](super::HEAR)). The successor's hub listens to all of them and sends the notification. Where the old
//! process hears it, its workers count from there on what each such client is told; where the new one does, it begins to
//! write down what comes. A client then goes with the round's number and its count, and is given what was written down
//! for its channels since, less so many, at the moment when the new hub knows it as a listener. If the old hub was the
//! faster one, and told it more than was written down by then, it is not told the rest as that comes.
//!
//! A hub takes part through *desks*: workers of its that are not there, whose notifications come here.
//!
//! **Failure.** A round lasts [`ROUND_MS`], and what is written down twice as long and no longer than [`LOG_BYTES_MAX`]:
//! a client that comes later than that is told that its listening was lost, as when a hub's connection is lost. Whoever
//! changes its channels meanwhile waits for another round. Without a marker's arrival nobody who listens goes over.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tenfold_service::{
    handover::{Frame, Malformed, Reader, Writer},
    rng::Rng,
};

use super::{HEAR, HEARING, Handover, lock};
use crate::{
    mailbox::{Ask, ClientKey, Order},
    shared::{Database, Shared},
};

/// The worker that stands for this process's part towards its successor.
pub(crate) const DESK_OF_OLD: usize = usize::MAX - 1;
/// And towards its predecessor.
pub(crate) const DESK_OF_NEW: usize = usize::MAX;

/// How long clients go over by one round.
const ROUND_MS: u64 = 10_000;
/// A round whose marker has not come by then never will be.
const MARKER_MS: u64 = 5_000;
/// Channels of one round: the hub takes ten times as many of one listener.
const CHANNELS_MAX: usize = 1_000;
/// What a successor writes down of one database.
const LOG_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// Databases with rounds, and clients whose channels are being joined.
const ENTRIES_MAX: usize = 20_000;

/// Both sides' books.
#[derive(Default)]
pub(super) struct Channels {
    last_round: u64,
    /// Of the old process, by database.
    rounds: HashMap<Arc<str>, Round>,
    /// Of the new process, by database.
    logs: HashMap<Arc<str>, Log>,
    /// Clients that came and whose channels the hub is joining.
    joining: HashMap<(usize, ClientKey), Joining>,
}

/// One cut of a database's notifications, on the old side.
struct Round {
    number: u64,
    marker: Arc<str>,
    /// What those who wait listen to.
    channels: BTreeSet<Arc<str>>,
    began_ms: u64,
    /// What has to happen before clients go: this process's hub is past the marker, the successor's is.
    is_cut: bool,
    is_heard: bool,
}

/// What the new side has heard since its cuts.
struct Log {
    number: u64,
    marker: Arc<str>,
    /// Set once the marker has come.
    began_ms: Option<u64>,
    heard: Vec<(Arc<str>, Arc<[u8]>)>,
    bytes: usize,
}

/// A client that came.
struct Joining {
    round: u64,
    told: u64,
    channels: BTreeSet<Arc<str>>,
}

/// How a client that came stands to the hub here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CaughtUp {
    /// What it has not been told yet: channels and whole messages.
    pub(crate) missed: Vec<(Arc<str>, Arc<[u8]>)>,
    /// How many it was told by the predecessor that the hub here has yet to hear: it is told none of these again.
    pub(crate) ahead: u64,
}

impl Handover {
    /// A client at rest listens, and can only go by a round.
    pub(crate) fn want_round<'a>(
        &self,
        database: &Arc<Database>,
        channels: impl Iterator<Item = &'a Arc<str>>,
        shared: &Shared,
    ) {
        let now_ms = shared.ms(shared.clock.now());
        let mut books = lock(&self.channels);
        let books = &mut *books;
        if let Some(round) = books.rounds.get(&database.name) {
            // Those who went by the last one have arrived before another begins.
            let lasts = if round.is_cut && round.is_heard { ROUND_MS + MARKER_MS } else { MARKER_MS };
            if now_ms.saturating_sub(round.began_ms) < lasts {
                return;
            }
        }
        if books.rounds.len() >= ENTRIES_MAX {
            return;
        }
        books.last_round += 1;
        let number = books.last_round;
        // Nobody who may notify can guess it.
        let marker: Arc<str> = format!("tenfold_{:016x}_{number}", Rng::from_os().next_u64()).into();
        let round = Round {
            number,
            marker: Arc::clone(&marker),
            channels: channels.take(CHANNELS_MAX).cloned().collect(),
            began_ms: now_ms,
            is_cut: false,
            is_heard: false,
        };
        books.rounds.insert(Arc::clone(&database.name), round);
        shared.ask(Ask::Listen {
            worker: DESK_OF_OLD,
            client: ClientKey::of_desk(),
            database: Arc::clone(database),
            channels: vec![marker],
        });
    }

    /// Whether clients of this round can go now.
    pub(crate) fn is_in_round(&self, database: &Database, number: u64, now_ms: u64) -> bool {
        lock(&self.channels).rounds.get(&database.name).is_some_and(|round| {
            round.number == number
                && round.is_cut
                && round.is_heard
                && now_ms.saturating_sub(round.began_ms) < ROUND_MS
        })
    }

    /// A client came that listens: from the moment when the hub knows it, it is told what it has missed.
    pub(crate) fn join(
        &self,
        worker: usize,
        client: ClientKey,
        channels: impl Iterator<Item = Arc<str>>,
        heard: Option<(u64, u64)>,
    ) {
        let (round, told) = heard.unwrap_or((0, 0));
        let mut books = lock(&self.channels);
        if books.joining.len() < ENTRIES_MAX {
            let channels = channels.collect();
            books.joining.insert((worker, client), Joining { round, told, channels });
        }
    }

    /// The hub knows a client. If it came from a predecessor: what it has missed, or `Err` if nobody knows.
    pub(crate) fn joined(
        &self,
        database: &Database,
        worker: usize,
        client: ClientKey,
    ) -> Option<Result<CaughtUp, ()>> {
        let mut books = lock(&self.channels);
        let joining = books.joining.remove(&(worker, client))?;
        let log = books.logs.get(&database.name);
        let Some(log) = log.filter(|log| log.number == joining.round && log.began_ms.is_some()) else {
            return Some(Err(()));
        };
        Some(Ok(log.caught_up(&joining)))
    }

    /// A client that was to be joined cannot be.
    pub(crate) fn not_joined(&self, worker: usize, client: ClientKey) {
        lock(&self.channels).joining.remove(&(worker, client));
    }
}

impl Log {
    /// How somebody stands to it who was told so many of its channels' notifications since the marker.
    fn caught_up(&self, joining: &Joining) -> CaughtUp {
        let is_its = |(channel, _): &&(Arc<str>, Arc<[u8]>)| joining.channels.contains(channel);
        let its = self.heard.iter().filter(is_its);
        let heard = u64::try_from(its.clone().count()).unwrap_or(u64::MAX);
        let told = usize::try_from(joining.told).unwrap_or(usize::MAX);
        CaughtUp { missed: its.skip(told).cloned().collect(), ahead: joining.told.saturating_sub(heard) }
    }
}

impl Shared {
    /// A desk's channels are listened to.
    pub(crate) fn desk_listens(&self, desk: usize, database: &Arc<Database>) {
        let books = lock(&self.handover.channels);
        if desk == DESK_OF_NEW {
            let Some(log) = books.logs.get(&database.name).filter(|log| log.began_ms.is_none()) else {
                return;
            };
            self.ask(Ask::Notify { database: Arc::clone(database), channel: Arc::clone(&log.marker) });
            return;
        }
        let Some(round) = books.rounds.get(&database.name).filter(|round| !round.is_cut) else { return };
        let mut body = Writer::new();
        body.text(&database.name).u64(round.number).text(&round.marker).count(round.channels.len());
        for channel in &round.channels {
            body.text(channel);
        }
        // If it is not taken, the round passes without anybody going.
        self.handover.offer(Frame::new(HEAR, body));
    }

    /// A notification for a desk.
    pub(crate) fn desk_hears(
        &self,
        desk: usize,
        database: &Arc<Database>,
        channel: &Arc<str>,
        message: &Arc<[u8]>,
    ) {
        let mut books = lock(&self.handover.channels);
        if desk == DESK_OF_OLD {
            let round = books.rounds.get_mut(&database.name);
            let Some(round) = round.filter(|round| round.marker == *channel && !round.is_cut) else { return };
            round.is_cut = true;
            let (number, channels) = (round.number, Arc::new(round.channels.clone()));
            drop(books);
            // Posted behind every notification that came before the marker, and before any that comes after it.
            self.tell_all(|| Order::Cut {
                database: Arc::clone(database),
                round: number,
                channels: Arc::clone(&channels),
            });
            return;
        }
        let Some(log) = books.logs.get_mut(&database.name) else { return };
        let now_ms = self.ms(self.clock.now());
        if log.marker == *channel {
            log.began_ms.get_or_insert(now_ms);
            let mut body = Writer::new();
            body.text(&database.name).u64(log.number);
            drop(books);
            self.handover.answer(Frame::new(HEARING, body));
            return;
        }
        let Some(began_ms) = log.began_ms else { return };
        log.bytes += message.len();
        log.heard.push((Arc::clone(channel), Arc::clone(message)));
        if log.bytes > LOG_BYTES_MAX || now_ms.saturating_sub(began_ms) > 2 * ROUND_MS {
            books.logs.remove(&database.name);
            drop(books);
            self.leave_desk(DESK_OF_NEW, database);
        }
    }

    /// A desk's hub is not there any more.
    pub(crate) fn desk_lost(&self, desk: usize, database: &Database) {
        let mut books = lock(&self.handover.channels);
        if desk == DESK_OF_NEW {
            books.logs.remove(&database.name);
        } else {
            books.rounds.remove(&database.name);
        }
    }

    fn leave_desk(&self, desk: usize, database: &Arc<Database>) {
        let (client, database) = (ClientKey::of_desk(), Arc::clone(database));
        self.ask(Ask::Unlisten { worker: desk, client, database });
    }

    /// The predecessor is about to send clients that listen to these.
    pub(super) fn hear(&self, mut body: Reader<'_>) -> Result<(), Malformed> {
        let (database, number) = (body.text()?, body.u64()?);
        let marker: Arc<str> = body.text()?.into();
        let count = body.count()?;
        if count > CHANNELS_MAX {
            return Err(Malformed);
        }
        let mut channels = vec![Arc::clone(&marker)];
        for _ in 0..count {
            channels.push(body.text()?.into());
        }
        body.end()?;
        let Some(database) = self.database(database) else { return Ok(()) };
        let mut books = lock(&self.handover.channels);
        if books.logs.len() < ENTRIES_MAX {
            let log = Log { number, marker, began_ms: None, heard: Vec::new(), bytes: 0 };
            books.logs.insert(Arc::clone(&database.name), log);
        }
        drop(books);
        self.ask(Ask::Listen { worker: DESK_OF_NEW, client: ClientKey::of_desk(), database, channels });
        Ok(())
    }

    /// The successor has heard a round's marker.
    pub(super) fn heard(&self, mut body: Reader<'_>) -> Result<(), Malformed> {
        let (database, number) = (body.text()?, body.u64()?);
        body.end()?;
        let mut books = lock(&self.handover.channels);
        if let Some(round) = books.rounds.get_mut(database).filter(|round| round.number == number) {
            round.is_heard = true;
            drop(books);
            self.tell_all(|| Order::Depart);
        }
        Ok(())
    }

    /// Nobody listens for another process any longer.
    pub(super) fn close_desks(&self, desk: usize) {
        let mut books = lock(&self.handover.channels);
        let names: Vec<_> = match desk {
            DESK_OF_NEW => std::mem::take(&mut books.logs).into_keys().collect(),
            _ => std::mem::take(&mut books.rounds).into_keys().collect(),
        };
        drop(books);
        for database in names.iter().filter_map(|name| self.database(name)) {
            self.leave_desk(desk, &database);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_told_more_than_was_heard_here_is_ahead() {
        let heard = |names: &str| {
            let one = |name: char| (Arc::from(name.to_string()), Arc::from(name.to_string().into_bytes()));
            names.chars().map(one).collect::<Vec<_>>()
        };
        let log = Log { number: 1, marker: "m".into(), began_ms: Some(0), heard: heard("abba"), bytes: 4 };
        let joining = |told| Joining { round: 1, told, channels: BTreeSet::from(["a".into()]) };
        for (told, missed, ahead) in
            [(0, "aa", 0), (1, "a", 0), (2, "", 0), (3, "", 1), (u64::MAX, "", u64::MAX - 2)]
        {
            assert_eq!(log.caught_up(&joining(told)), CaughtUp { missed: heard(missed), ahead }, "{told}");
        }
    }
}
