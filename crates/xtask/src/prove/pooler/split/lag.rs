//! How the replicas lag while the clients write and read.

use std::time::Duration;

use anyhow::Result;
use tenfold_testkit::postgres::{Cluster, Jitter, Server};

/// A kind of lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// One replica stands still; the other, too, but for moments.
    Paused,
    /// Commits show a second late.
    Delayed,
    /// Both stop and go on at random, some milliseconds each.
    Jittering,
}

const DELAY: Duration = Duration::from_secs(1);
const STANDSTILL_MAX: Duration = Duration::from_secs(4);
const MOMENT_MAX: Duration = Duration::from_millis(400);
const JITTER_MAX: Duration = Duration::from_millis(30);

impl Replay {
    pub(crate) const ALL: [Self; 3] = [Self::Paused, Self::Delayed, Self::Jittering];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Delayed => "delayed",
            Self::Jittering => "jittering",
        }
    }
}

/// Lag while it lives.
pub(super) struct Lag {
    jitters: Vec<Jitter>,
}

impl Lag {
    pub(super) fn impose(cluster: &Cluster, replay: Replay) -> Result<Self> {
        let replicas = cluster.replicas();
        let mut jitters = Vec::new();
        match replay {
            Replay::Paused => {
                for (index, replica) in replicas.iter().enumerate() {
                    if index == 0 {
                        replica.pause_replay()?;
                    } else {
                        jitters.push(Jitter::start(replica, STANDSTILL_MAX, MOMENT_MAX, 77)?);
                    }
                }
            }
            Replay::Delayed => {
                for replica in replicas {
                    replica.delay_replay(DELAY)?;
                }
            }
            Replay::Jittering => {
                for (index, replica) in (1..).zip(replicas) {
                    jitters.push(Jitter::start(replica, JITTER_MAX, JITTER_MAX, index * 0x9e37_79b9)?);
                }
            }
        }
        Ok(Self { jitters })
    }

    /// Ends it, and waits until the replicas have what the primary has.
    pub(super) fn lift(self, cluster: &Cluster) -> Result<()> {
        drop(self.jitters);
        for replica in cluster.replicas() {
            replica.delay_replay(Duration::ZERO)?;
            replica.resume_replay()?;
            Server::catch_up(replica, cluster.primary())?;
        }
        Ok(())
    }
}
