//! Which server answers a read.
//!
//! **Intuition.** A client stays with one replica, whose time only runs forward. It may change to another that has
//! replayed everything the client can have seen; and what the client wrote, or read at the primary, every replica must
//! have.
//!
//! **Mechanism.** [`choose`] takes what the tables need, what the client needs, and the replicas as they are now. Of
//! several that will do, the client's own wins, else the one with the fewest transactions for its weight.
//!
//! **Failure.** Every doubt is a reason for the primary, with a word for it ([`Why`]).

use std::{sync::Arc, time::Duration};

use super::{
    floors::Need,
    lsn::Lsn,
    replica::{Replica, State},
    samples::{Sample, Samples},
};

/// What a client has seen and done, as far as replicas must follow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Follower {
    /// What every replica must have replayed: its own commits, and what the primary answered.
    pub primary: Sample,
    /// What a replica other than its own must have replayed: what its own one answered.
    pub replica: Sample,
    /// Its own replica: [`Replica::life`], or 0.
    pub own: u32,
}

impl Follower {
    /// What is needed by somebody who is both: who comes on this connection, and has been on others.
    #[must_use]
    pub fn and(self, person: Self) -> Self {
        if person.own == self.own || person.own == 0 {
            return Self {
                primary: self.primary.max(person.primary),
                replica: self.replica.max(person.replica),
                own: self.own,
            };
        }
        // The connection's replica is another's: what it told, all must have.
        let primary = self.primary.max(person.primary).max(self.replica);
        Self { primary, ..person }
    }

    /// The primary has answered.
    pub fn saw_primary(&mut self, sample: Sample) {
        self.primary = self.primary.max(sample);
    }

    /// A replica has answered, in this life of its.
    pub fn saw_replica(&mut self, sample: Sample, life: u32) {
        if self.own != life {
            // What its own replica told before is not this one's to know.
            self.primary = self.primary.max(self.replica);
            self.own = life;
        }
        self.replica = self.replica.max(sample);
    }
}

/// What holds for reads on replicas.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A replica further behind than this is left alone.
    pub lag_max: Duration,
    /// Whether floors count. If not, a client still stays with its replica where it can.
    pub follows: bool,
}

/// Where a read goes.
#[derive(Clone, Debug)]
pub enum Choice {
    /// To this replica, as long as it lives this life and has replayed up to this position.
    Replica {
        /// Which.
        replica: Arc<Replica>,
        /// [`Replica::life`].
        life: u32,
        /// What it must have replayed.
        floor: Lsn,
    },
    /// Nowhere yet: a replica will have replayed enough in a moment.
    Wait(Why),
    /// To the primary.
    Primary(Why),
}

/// Why a read that a replica may answer goes to the primary, or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No replica can be used: down, too far behind, not this primary's.
    NoReplica,
    /// A commit on one of its tables is under way.
    Pending,
    /// Where the primary was at that time is not known yet.
    Unsettled,
    /// No replica has replayed enough.
    Behind,
    /// What the reader brought along wants the primary.
    Carried,
}

impl Why {
    /// All of them, for metrics.
    pub const ALL: [Self; 5] = [Self::NoReplica, Self::Pending, Self::Unsettled, Self::Behind, Self::Carried];

    /// The metric's label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoReplica => "no_replica",
            Self::Pending => "commit_pending",
            Self::Unsettled => "position_unknown",
            Self::Behind => "replica_behind",
            Self::Carried => "carried_position",
        }
    }
}

/// Chooses for a read that may go to a replica.
///
/// `now_ms`: milliseconds of the process. `spread`: another number for each client, so that those who come at once
/// spread over equal replicas.
#[must_use]
pub fn choose(
    need: Need,
    follower: &Follower,
    replicas: &[Arc<Replica>],
    samples: &Samples,
    limits: Limits,
    now_ms: u64,
    spread: u64,
) -> Choice {
    let lag_max_us = u64::try_from(limits.lag_max.as_micros()).unwrap_or(u64::MAX);
    let is_fit = |replica: &&Arc<Replica>| {
        replica.state() == State::Up && replica.lag_us() <= lag_max_us && !replica.is_avoided(now_ms)
    };
    let mut fit = replicas.iter().filter(is_fit).peekable();
    if fit.peek().is_none() {
        return Choice::Primary(Why::NoReplica);
    }
    if limits.follows && need.pending {
        return Choice::Primary(Why::Pending);
    }
    let all = if limits.follows { need.sample.max(follower.primary) } else { Sample::NONE };
    let Some(floor) = samples.lsn(all) else { return Choice::Wait(Why::Unsettled) };
    let floor = if limits.follows { floor.max(need.carried) } else { floor };
    let seen = if limits.follows { follower.replica } else { Sample::NONE };
    let of_others = samples.lsn(seen).map(|seen| seen.max(floor));
    let mut best: Option<(u64, u64, Choice)> = None;
    for replica in fit {
        // Its life before its position, so that the position is of this life or a later one.
        let life = replica.life();
        if life == follower.own && replica.replayed() >= floor {
            return Choice::Replica { replica: Arc::clone(replica), life, floor };
        }
        let is_own = life == follower.own || follower.own == 0;
        let Some(enough) = (if is_own { Some(floor) } else { of_others }) else { continue };
        if replica.replayed() < enough {
            continue;
        }
        let weight = u64::from(replica.weight.load(std::sync::atomic::Ordering::Relaxed)).max(1);
        let load = (replica.in_flight() as u64 + 1) * 1_000 / weight;
        let turn = (spread ^ u64::from(replica.id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if best.as_ref().is_none_or(|(other, other_turn, _)| (load, turn) < (*other, *other_turn)) {
            best = Some((load, turn, Choice::Replica { replica: Arc::clone(replica), life, floor: enough }));
        }
    }
    best.map_or(Choice::Wait(Why::Behind), |(_, _, choice)| choice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Host, ReplicaHost};

    struct Scene {
        samples: Samples,
        replicas: Vec<Arc<Replica>>,
    }

    const LIMITS: Limits = Limits { lag_max: Duration::from_secs(1), follows: true };

    impl Scene {
        /// Replicas that have replayed so far, and samples that found these positions.
        fn new(replayed: &[u64], sampled: &[u64]) -> Self {
            let samples = Samples::new();
            for &lsn in sampled {
                let sample = samples.begin();
                samples.found(sample, Lsn(lsn));
            }
            let make = |(at, &lsn): (usize, &u64)| {
                let host = ReplicaHost { host: Host::Tcp { host: "r".into(), port: 5432 }, weight: 1 };
                let replica = Replica::new(u32::try_from(at).expect("few") + 1, "r".into(), host);
                replica.answered(1, Lsn(lsn), 0, 1);
                Arc::new(replica)
            };
            Self { samples, replicas: replayed.iter().enumerate().map(make).collect() }
        }

        fn choose(&self, need: Need, follower: Follower) -> Result<u32, Why> {
            match choose(need, &follower, &self.replicas, &self.samples, LIMITS, 0, 1) {
                Choice::Replica { replica, life, floor } => {
                    assert!(replica.replayed() >= floor && replica.life() == life);
                    Ok(replica.id)
                }
                Choice::Wait(why) | Choice::Primary(why) => Err(why),
            }
        }
    }

    fn needs(sample: u64) -> Need {
        Need { sample: Sample(sample), ..Need::default() }
    }

    #[test]
    fn only_a_replica_at_or_above_the_floor_answers() {
        let scene = Scene::new(&[150, 99], &[100, 200]);
        assert_eq!(scene.choose(needs(1), Follower::default()), Ok(1));
        assert_eq!(scene.choose(needs(2), Follower::default()), Err(Why::Behind));
        assert_eq!(scene.choose(needs(3), Follower::default()), Err(Why::Unsettled));
        let pending = Need { pending: true, ..Need::default() };
        assert_eq!(scene.choose(pending, Follower::default()), Err(Why::Pending));
        let wrote = Follower { primary: Sample(2), ..Follower::default() };
        assert_eq!(scene.choose(needs(1), wrote), Err(Why::Behind));
        let carries = |lsn| Need { carried: Lsn(lsn), ..needs(1) };
        assert_eq!(scene.choose(carries(150), Follower::default()), Ok(1));
        assert_eq!(scene.choose(carries(151), Follower::default()), Err(Why::Behind));
    }

    #[test]
    fn a_client_changes_its_replica_only_for_one_that_has_what_it_saw() {
        let scene = Scene::new(&[100, 150], &[100, 140, 200]);
        let first = scene.replicas[0].life();
        let own = |replica| Follower { own: first, replica, ..Follower::default() };
        assert_eq!(scene.choose(needs(1), own(Sample(3))), Ok(1));
        scene.replicas[0].lost(State::Down);
        assert_eq!(scene.choose(needs(1), own(Sample(3))), Err(Why::Behind));
        assert_eq!(scene.choose(needs(1), own(Sample(4))), Err(Why::Behind));
        assert_eq!(scene.choose(needs(1), own(Sample(2))), Ok(2));
        // It is back, and may have forgotten what the client saw there.
        scene.replicas[0].answered(1, Lsn(130), 0, 2);
        let before = scene.replicas[1].enter();
        assert_eq!(scene.choose(needs(1), own(Sample(2))), Ok(2));
        assert_eq!(scene.choose(needs(1), own(Sample(1))), Ok(1));
        drop(before);
    }

    #[test]
    fn who_comes_on_several_connections_needs_what_all_of_them_told() {
        let scene = Scene::new(&[100, 150], &[100, 140, 200]);
        let (first, second) = (scene.replicas[0].life(), scene.replicas[1].life());
        let connection = Follower { own: first, replica: Sample(2), ..Follower::default() };
        let person = |replica| Follower { own: second, replica, ..Follower::default() };
        // The connection's replica told what is at 140 at most: the person's own has it.
        assert_eq!(scene.choose(needs(1), connection.and(person(Sample(3)))), Ok(2));
        assert_eq!(scene.choose(needs(1), connection.and(Follower::default())), Ok(1));
        let mut moved = Follower::default();
        moved.saw_replica(Sample(3), first);
        moved.saw_replica(Sample(3), second);
        assert_eq!(scene.choose(needs(1), moved), Err(Why::Behind));
    }

    #[test]
    fn the_least_loaded_for_its_weight_is_taken() {
        let scene = Scene::new(&[100, 100], &[100]);
        scene.replicas[0].weight.store(3, std::sync::atomic::Ordering::Relaxed);
        let guards: Vec<_> = (0..2).map(|_| scene.replicas[0].enter()).collect();
        assert_eq!(scene.choose(needs(1), Follower::default()).map(|id| id <= 2), Ok(true));
        let more = scene.replicas[0].enter();
        assert_eq!(scene.choose(needs(1), Follower::default()), Ok(2));
        drop((guards, more));
        assert_eq!(scene.choose(needs(1), Follower::default()), Ok(1));
    }

    #[test]
    fn who_lags_too_far_or_is_avoided_is_left_alone() {
        let scene = Scene::new(&[100], &[100]);
        scene.replicas[0].answered(1, Lsn(100), 2_000_000, 2);
        assert_eq!(scene.choose(needs(1), Follower::default()), Err(Why::NoReplica));
        scene.replicas[0].answered(1, Lsn(100), 0, 3);
        assert_eq!(scene.choose(needs(1), Follower::default()), Ok(1));
        scene.replicas[0].avoid_until(5);
        assert_eq!(scene.choose(needs(1), Follower::default()), Err(Why::NoReplica));
    }
}
