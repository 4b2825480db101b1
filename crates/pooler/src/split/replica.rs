//! What is known of one replica, shared by all workers and by the task that watches it.
//!
//! **Intuition.** A position belongs to one life of one server: after a restart, or behind a name that means several
//! servers, it says nothing. So a connection to a replica is used only once the one that watches it has been answered
//! later than that connection was opened, by the same server: had the server been restarted in between, one of the two
//! would be dead.
//!
//! **Failure.** Whatever goes wrong with a replica makes it *doubted*: nobody is sent there until it has answered again.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::lsn::Lsn;
use crate::{config::ReplicaHost, control::Target};

/// Whether reads may go there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// It could not be reached, or has not answered yet.
    Down = 0,
    /// Something went wrong on a connection to it: it has to answer first.
    Doubted = 1,
    /// It is no standby of this primary: promoted, of another cluster, or on another timeline.
    Foreign = 2,
    /// It answers.
    Up = 3,
}

impl State {
    /// All of them, for metrics.
    pub const ALL: [Self; 4] = [Self::Down, Self::Doubted, Self::Foreign, Self::Up];

    /// The metric's label, and the console's word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Doubted => "doubted",
            Self::Foreign => "foreign",
            Self::Up => "up",
        }
    }
}

/// One replica.
#[derive(Debug)]
pub struct Replica {
    /// Unique among the database's replicas, from 1 to 255.
    pub id: u32,
    /// What it is called: host and port.
    pub name: Arc<str>,
    /// Where the configuration says it is.
    pub host: ReplicaHost,
    /// Its share of the reads beside the others'.
    pub weight: AtomicU32,
    /// Where it is.
    pub target: ArcSwap<Target>,
    /// Server connections opened under an earlier number are replaced when free.
    pub epoch: AtomicU32,
    state: AtomicU8,
    replayed: AtomicU64,
    lag_us: AtomicU64,
    /// Which server answers, and since which start: never 0 while it does.
    instance: AtomicU64,
    /// Another number whenever what it has replayed may have gone back: a restart, a lost connection.
    life: AtomicU32,
    /// When the last question was asked that it answered, in microseconds of the process.
    asked_us: AtomicU64,
    /// Nobody is sent there before this moment, in milliseconds of the process.
    avoid_until_ms: AtomicU64,
    in_flight: AtomicUsize,
    answers: AtomicU64,
    losses: AtomicU64,
    poke: Notify,
}

/// One transaction at a replica, until dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Replica>);

impl Replica {
    /// One that nobody has seen yet.
    #[must_use]
    pub fn new(id: u32, name: Arc<str>, host: ReplicaHost) -> Self {
        Self {
            id,
            name,
            weight: AtomicU32::new(host.weight.max(1)),
            host,
            target: ArcSwap::from_pointee(Target::default()),
            epoch: AtomicU32::new(0),
            state: AtomicU8::new(State::Down as u8),
            replayed: AtomicU64::new(0),
            lag_us: AtomicU64::new(0),
            instance: AtomicU64::new(0),
            life: AtomicU32::new(next_life()),
            asked_us: AtomicU64::new(0),
            avoid_until_ms: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            answers: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            poke: Notify::new(),
        }
    }

    /// Whether reads may go there.
    #[must_use]
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            3 => State::Up,
            2 => State::Foreign,
            1 => State::Doubted,
            _ => State::Down,
        }
    }

    /// It answered a question asked at `asked_us`: the server of this `instance` has replayed up to `replayed` and is
    /// `lag_us` behind. `instance` is another number for each start of each server, and not 0.
    pub fn answered(&self, instance: u64, replayed: Lsn, lag_us: u64, asked_us: u64) {
        if self.instance.load(Ordering::Acquire) == instance {
            self.replayed.fetch_max(replayed.0, Ordering::AcqRel);
        } else {
            // Its position first: whoever is lent a connection of this life must not go by the last one's.
            self.lost(State::Down);
            self.replayed.store(replayed.0, Ordering::Release);
            self.instance.store(instance, Ordering::Release);
        }
        self.lag_us.store(lag_us, Ordering::Relaxed);
        self.asked_us.store(asked_us, Ordering::Release);
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.state.store(State::Up as u8, Ordering::Release);
    }

    /// It cannot be used: it is down, or none of this primary's.
    pub fn lost(&self, state: State) {
        let was = self.state.swap(state as u8, Ordering::AcqRel);
        if was == State::Up as u8 || was == State::Doubted as u8 {
            self.losses.fetch_add(1, Ordering::Relaxed);
        }
        self.life.store(next_life(), Ordering::Release);
        self.instance.store(0, Ordering::Release);
    }

    /// As long as this is the same, what it has replayed only grows. Never 0, and never another replica's.
    #[must_use]
    #[inline]
    pub fn life(&self) -> u32 {
        self.life.load(Ordering::Acquire)
    }

    /// Something went wrong on a connection to it: nobody is sent there until it has answered again.
    pub fn doubt(&self) {
        let (up, doubted) = (State::Up as u8, State::Doubted as u8);
        let _ = self.state.compare_exchange(up, doubted, Ordering::AcqRel, Ordering::Acquire);
        self.poke.notify_one();
    }

    /// Nobody is sent there before this moment, in milliseconds of the process.
    pub fn avoid_until(&self, ms: u64) {
        self.avoid_until_ms.fetch_max(ms, Ordering::Relaxed);
    }

    /// Whether it is to be left alone for now.
    #[must_use]
    pub fn is_avoided(&self, now_ms: u64) -> bool {
        now_ms < self.avoid_until_ms.load(Ordering::Relaxed)
    }

    /// What it has replayed at least.
    #[must_use]
    #[inline]
    pub fn replayed(&self) -> Lsn {
        Lsn(self.replayed.load(Ordering::Acquire))
    }

    /// How long it was behind when it answered last, in microseconds.
    #[must_use]
    pub fn lag_us(&self) -> u64 {
        self.lag_us.load(Ordering::Relaxed)
    }

    /// Questions it has answered.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Times it was lost after it had answered.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Whether a connection to the server of this instance, logged in at `since_us`, leads to what is watched. `None`:
    /// it is not known yet.
    #[must_use]
    pub fn confirms(&self, instance: u64, since_us: u64) -> Option<bool> {
        let watched = self.instance.load(Ordering::Acquire);
        if watched == 0 || self.asked_us.load(Ordering::Acquire) <= since_us {
            return None;
        }
        Some(watched == instance)
    }

    /// Which start of which server answers; 0 while none does.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.instance.load(Ordering::Acquire)
    }

    /// Transactions there now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one more.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Has it looked at now.
    pub fn poke(&self) {
        self.poke.notify_one();
    }

    /// Until somebody wants it looked at.
    pub async fn poked(&self) {
        self.poke.notified().await;
    }
}

/// Never 0, and another one each time: lives are at least as long as a connection takes to be made.
fn next_life() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).max(1)
}

impl InFlight {
    /// Where.
    #[must_use]
    pub fn replica(&self) -> &Arc<Replica> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Host;

    fn replica() -> Replica {
        let host = Host::Tcp { host: "r".into(), port: 5432 };
        Replica::new(1, "r:5432".into(), ReplicaHost { host, weight: 1 })
    }

    #[test]
    fn a_connection_is_confirmed_by_a_later_answer_of_the_same_server() {
        let replica = replica();
        assert_eq!(replica.confirms(7, 100), None);
        replica.answered(7, Lsn(5), 0, 100);
        assert_eq!(replica.confirms(7, 100), None);
        replica.answered(7, Lsn(5), 0, 101);
        assert_eq!((replica.confirms(7, 100), replica.confirms(8, 100)), (Some(true), Some(false)));
        replica.lost(State::Down);
        assert_eq!(replica.confirms(7, 100), None);
        replica.lost(State::Foreign);
        assert_eq!((replica.answers(), replica.losses()), (2, 1), "what is lost already is not lost again");
    }

    #[test]
    fn another_life_begins_where_it_is_and_the_same_one_never_goes_back() {
        let replica = replica();
        replica.answered(7, Lsn(50), 0, 1);
        replica.answered(7, Lsn(40), 0, 2);
        assert_eq!(replica.replayed(), Lsn(50));
        let life = replica.life();
        replica.answered(8, Lsn(30), 0, 3);
        assert_eq!(replica.replayed(), Lsn(30));
        assert_ne!(replica.life(), life);
    }

    #[test]
    fn who_is_doubted_has_to_answer_first() {
        let replica = replica();
        replica.doubt();
        assert_eq!(replica.state(), State::Down);
        replica.answered(7, Lsn(1), 0, 1);
        replica.doubt();
        assert_eq!(replica.state(), State::Doubted);
        replica.answered(7, Lsn(1), 0, 2);
        assert_eq!(replica.state(), State::Up);
    }

    #[test]
    fn transactions_are_counted_while_they_last() {
        let replica = Arc::new(replica());
        let first = replica.enter();
        let second = replica.enter();
        assert_eq!(replica.in_flight(), 2);
        drop((first, second));
        assert_eq!(replica.in_flight(), 0);
    }
}
