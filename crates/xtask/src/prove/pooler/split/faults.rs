//! Replicas die, come back, stand still and are promoted by mistake, while the clients go on.
//!
//! Nothing older than what was acknowledged or seen may be answered then either: not by a replica that came back with an
//! older position, not by one that has left its primary's history. What is asked of a server in the moment of its death
//! may fail; what is asked afterwards may not.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tenfold_testkit::postgres::{Cluster, Server};

use super::super::super::stand::pause;
use super::super::super::verdict::Verdicts;
use super::{Board, CLIENTS, Options, Reader, Stage, judge};

/// Of both replicas, and kept over their restarts.
const DELAY: Duration = Duration::from_millis(200);
const STANDSTILL: Duration = Duration::from_secs(3);
const BETWEEN: Duration = Duration::from_secs(1);
const ROUNDS: usize = 3;
const PAIRS_MIN: u64 = 1_000;
/// One answer in so many may fail: what was asked of a server in the moment of its death, by every client at once.
const FAILED_ONCE_IN: u64 = 20;

pub(super) fn play(
    cluster: &mut Cluster,
    stage: &mut Stage,
    options: &Options,
    verdicts: &mut Verdicts,
) -> Result<()> {
    let readers = if options.is_short { &[Reader::Stranger][..] } else { &options.readers };
    for (index, &reader) in readers.iter().enumerate() {
        for replica in cluster.replicas() {
            replica.delay_replay(DELAY)?;
        }
        let board = Board::new(stage.at, stage.at, reader, CLIENTS);
        let (is_last, rounds) = (index + 1 == readers.len(), if options.is_short { 1 } else { ROUNDS });
        let seen = stage.play(&board, PAIRS_MIN, || strike(cluster, rounds, is_last))?;
        let scene = format!("faults, {}", reader.name());
        let enough = seen.pairs >= PAIRS_MIN;
        verdicts.bar(&format!("{scene}: pairs"), seen.pairs, &format!("≥ {PAIRS_MIN}"), enough);
        judge(&scene, &seen, options, verdicts);
        let failed = format!("{} {}", seen.failed, seen.failures.join("; "));
        let few = seen.failed * FAILED_ONCE_IN <= seen.pairs + seen.reads_of_others;
        verdicts.bar(&format!("{scene}: failed statements"), failed, "≤ 1 in 20", few);
    }
    Ok(())
}

/// Everything that can happen to two replicas; the last of it can't be undone.
fn strike(cluster: &mut Cluster, rounds: usize, promotes: bool) -> Result<()> {
    for _ in 0..rounds {
        for which in [0, 1] {
            let replica = |cluster: &mut Cluster| cluster.replicas_mut().get_mut(which).map(Server::kill);
            pause(BETWEEN);
            replica(cluster).context("there are two")?;
            pause(BETWEEN);
            cluster.replicas_mut()[which].start()?;
            pause(BETWEEN);
            cluster.replicas_mut()[which].restart()?;
            pause(BETWEEN);
            cluster.replicas_mut()[which].freeze();
            pause(STANDSTILL);
            cluster.replicas_mut()[which].thaw();
        }
        pause(BETWEEN);
        cluster.primary_mut().restart()?;
    }
    pause(BETWEEN);
    if promotes {
        cluster.replicas()[1].promote()?;
        pause(STANDSTILL);
        cluster.replicas_mut()[1].restart()?;
        pause(STANDSTILL);
    }
    Ok(())
}
