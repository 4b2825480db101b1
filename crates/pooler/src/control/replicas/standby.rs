//! Watching one replica: is it there, whose is it, how far is it.
//!
//! **Intuition.** Workers send a read to a replica because of what is said here, so nothing is said that was not seen:
//! a server counts only while it answers on one connection, in recovery, on the primary's own line of history.
//!
//! **Mechanism.** [`Watcher::run`] resolves the replica's host, connects to the first address that lets it in, and tells
//! the workers that address and no other. It asks where the server is ten times a second, at once when somebody wants to
//! know, and every second who it is.
//!
//! **Failure.** Whatever ends a connection ends the replica's life ([`Replica::lost`]) before another is made. A server
//! that answers late is down; one that is no standby of this primary is foreign. Both are said once and looked at
//! again, ever more rarely.

use std::{mem::discriminant, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    ANSWER_LIMIT, Known, entrance,
    facts::{self, Foreign, Line, Position},
    rest, share,
};
use crate::{
    control::{
        Address, Client, Error, Event, Target, Tools, Watched,
        monitor::{REFUSED_RETRY, RETRY},
    },
    split::{Replica, State},
};

/// Who a replica is, is asked this often.
const FACTS_EVERY: Duration = Duration::from_secs(1);
/// From one attempt to reach a replica that is down to the next, at most.
const DOWN_RETRY_MAX: Duration = Duration::from_secs(1);

/// The one that watches a replica.
pub(super) struct Watcher {
    watched: Arc<dyn Watched>,
    tools: Tools,
    known: Arc<Known>,
    replica: Arc<Replica>,
    /// What was said last, so that a replica that is down fills no log.
    last_said: Option<Event>,
    pause: Duration,
}

/// Why a connection is given up.
enum Gone {
    Lost(Error),
    Foreign(Foreign),
    /// Its host's name means other addresses now.
    Moved,
}

impl From<Error> for Gone {
    fn from(error: Error) -> Self {
        Self::Lost(error)
    }
}

/// What was seen of the server at the other end of a connection.
struct Seen {
    instance: u64,
    /// The line it was seen to be on, which was the primary's.
    line: Line,
    checked_us: u64,
}

impl Watcher {
    pub(super) fn new(
        watched: Arc<dyn Watched>,
        tools: Tools,
        known: Arc<Known>,
        replica: Arc<Replica>,
    ) -> Self {
        Self { watched, tools, known, replica, last_said: None, pause: RETRY }
    }

    /// Watches until dropped.
    pub(super) async fn run(mut self) {
        loop {
            let Err(gone) = self.connected().await;
            self.gone(&gone);
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(match &gone {
                Gone::Lost(error) if !error.is_refusal() && self.watched.is_used() => DOWN_RETRY_MAX,
                Gone::Moved => RETRY,
                Gone::Lost(_) | Gone::Foreign(_) => REFUSED_RETRY,
            });
        }
    }

    fn gone(&mut self, gone: &Gone) {
        let was = self.replica.state();
        let replica = Arc::clone(&self.replica.name);
        let now = match gone {
            Gone::Foreign(why) => {
                self.say(Event::ReplicaForeign { replica, why: why.clone() });
                State::Foreign
            }
            // The monitor says that there is nobody to log in as.
            Gone::Lost(Error::NoLogin) | Gone::Moved => State::Down,
            Gone::Lost(error) => {
                self.say(Event::ReplicaLost { replica, error: error.to_string() });
                State::Down
            }
        };
        self.replica.lost(now);
        if was != now {
            self.watched.positions_known();
        }
    }

    /// One connection, from its login until it is given up.
    async fn connected(&mut self) -> Result<std::convert::Infallible, Gone> {
        let (mut client, address) = self.connect().await?;
        let mut seen: Option<Seen> = None;
        loop {
            let Some(line) = self.known.line() else {
                // Until the primary was seen, nobody can tell whose this replica is.
                sleep(RETRY).await;
                continue;
            };
            let due_us = self.watched.now_us().saturating_sub(micros(FACTS_EVERY));
            let known = match seen.take().filter(|seen| seen.line == line && seen.checked_us > due_us) {
                Some(known) => known,
                None => self.check(&mut client, &address, line).await?,
            };
            let asked_us = self.watched.now_us();
            let position = facts::position(&mut client, ANSWER_LIMIT).await?;
            self.answered(&known, position, asked_us, &address)?;
            seen = Some(known);
            let (watched, replica) = (&*self.watched, &*self.replica);
            let is_wanted = || watched.split().is_waited_for() || replica.state() != State::Up;
            rest(watched, || replica.poked(), is_wanted).await;
        }
    }

    /// Connects to the first of the host's addresses that lets us in.
    async fn connect(&self) -> Result<(Client, Address), Error> {
        let entrance = entrance(&*self.watched).ok_or(Error::NoLogin)?;
        let mut failure = None;
        for address in self.addresses().await? {
            match Client::connect(&address, &entrance, &self.tools.salter).await {
                Ok(client) => return Ok((client, address)),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or(Error::Closed))
    }

    async fn addresses(&self) -> Result<Vec<Address>, Error> {
        let hosts = std::slice::from_ref(&self.replica.host.host);
        let (addresses, failures) = self.tools.resolver.addresses(hosts, self.watched.dns_refresh()).await;
        if addresses.is_empty() { Err(Error::Unresolved(failures.join("; "))) } else { Ok(addresses) }
    }

    /// Asks the server who it is; it must be a standby on the primary's line.
    async fn check(&self, client: &mut Client, address: &Address, line: Line) -> Result<Seen, Gone> {
        if !self.addresses().await?.contains(address) {
            return Err(Gone::Moved);
        }
        let checked_us = self.watched.now_us();
        let standby = facts::standby(client, &self.replica.name, ANSWER_LIMIT).await?;
        standby.check(&line).map_err(Gone::Foreign)?;
        Ok(Seen { instance: standby.instance, line, checked_us })
    }

    fn answered(
        &mut self,
        seen: &Seen,
        position: Position,
        asked_us: u64,
        address: &Address,
    ) -> Result<(), Gone> {
        if !position.is_in_recovery {
            return Err(Gone::Foreign(Foreign::Promoted));
        }
        let replayed = position.replayed.ok_or(Gone::Lost(Error::NothingReplayed))?;
        let was = self.replica.state();
        // Before the answer: who is sent there connects to where the answer came from.
        self.publish(address);
        let now_us = self.watched.now_us();
        self.known.if_still(&seen.line, |history| {
            let lag_us = history.lag_us(replayed, position.applied_us, now_us);
            self.replica.answered(seen.instance, replayed, lag_us, asked_us);
        });
        if self.replica.state() == State::Up && was != State::Up {
            self.pause = RETRY;
            let replica = Arc::clone(&self.replica.name);
            self.say(Event::ReplicaUp { replica });
            self.watched.positions_known();
        } else {
            share(&*self.watched);
        }
        Ok(())
    }

    fn publish(&self, address: &Address) {
        let before = self.replica.target.load();
        if before.addresses.first() == Some(address) {
            return;
        }
        let target = Target { generation: before.generation + 1, addresses: vec![address.clone()] };
        let was_elsewhere = before.generation > 0;
        self.replica.target.store(Arc::new(target));
        if was_elsewhere {
            self.replica.epoch.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Says what is new: a replica that is down for one reason and then for another is still down.
    fn say(&mut self, event: Event) {
        let is_known = self.last_said.as_ref().is_some_and(|last| match &event {
            Event::ReplicaForeign { .. } => *last == event,
            _ => discriminant(last) == discriminant(&event),
        });
        if !is_known {
            self.watched.told(event.clone());
            self.last_said = Some(event);
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
