//! Proofs: what Tenfold promises on a bad day, played in earnest, with a verdict for each bar.
//!
//! **Intuition.** "It survives the death of a node" is a sentence until somebody kills one under load and counts. Each
//! proof here does one such thing to the real binary, prints what it measured beside what was promised, and exits with 1
//! if a promise was not kept.
//!
//! **Mechanism.** `failover` kills nodes with SIGKILL, `drain` ends and reloads the process under load, `hostile` sends
//! it what no client and no origin should, `cache-refresh` and `cache-memory` rush and flood the cache, `cache-redis` plays
//! three edges and the Redis they share, `pooler-faults` breaks what a pooler stands between,
//! `pooler-operations` plays an administrator, `restart` replaces the process
//! under load, `split` lets replicas lag under reads of what was just written, `split-edge`
//! does so behind two edges. Everything runs on loopback, on ports nobody had, as guarded children.
//!
//! **Failure.** What cannot be set up is an error with its reason; a promise broken is a row of the table. Shorter forms
//! of the same run with the tests of crate `tenfold`.

mod cache;
mod drain;
mod failover;
mod garbage;
mod hostile;
mod pooler;
mod sharing;
mod stand;
mod steady;
mod verdict;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use stand::Scratch;
use verdict::Verdicts;

pub(crate) use pooler::SplitOptions;

/// What is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nodes die and come back.
    Failover,
    /// The process ends, or takes another configuration, under load.
    Drain,
    /// Clients and origins send what they should not.
    Hostile,
    /// A key that many ask for is renewed before it is stale.
    CacheRefresh,
    /// The cache keeps to its memory.
    CacheMemory,
    /// Edges share a Redis, which is stopped, killed, restarted and failed over.
    CacheRedis,
    /// The pooler's server, clients and connections break under load.
    PoolerFaults,
    /// The pooler is paused, reloaded, and its server restarted, under load.
    PoolerOperations,
    /// New processes take over from the running one.
    Restart,
    /// Some of the pooler's clients want more than their share.
    PoolerFairness,
    /// Bytes reach the pooler that no client sends.
    PoolerHostile,
    /// Where the statements of the table of routes really run.
    SplitRoutes,
    /// How many reads go to replicas while writes never stop.
    SplitShare,
    /// What is written through one edge is read through another.
    SplitEdge,
}

impl Proof {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "failover" => Some(Self::Failover),
            "drain" => Some(Self::Drain),
            "hostile" => Some(Self::Hostile),
            "cache-refresh" => Some(Self::CacheRefresh),
            "cache-memory" => Some(Self::CacheMemory),
            "cache-redis" => Some(Self::CacheRedis),
            "pooler-faults" => Some(Self::PoolerFaults),
            "pooler-operations" => Some(Self::PoolerOperations),
            "restart" => Some(Self::Restart),
            "pooler-fairness" => Some(Self::PoolerFairness),
            "pooler-hostile" => Some(Self::PoolerHostile),
            "split-routes" => Some(Self::SplitRoutes),
            "split-share" => Some(Self::SplitShare),
            "split-edge" => Some(Self::SplitEdge),
            _ => None,
        }
    }
}

/// Plays the proof of reads on replicas and prints its table.
pub(crate) fn run_split(root: &Path, options: &SplitOptions) -> Result<ExitCode> {
    let scratch = Scratch::new(root)?;
    Ok(told(&pooler::prove_split(&scratch, options)?))
}

/// Plays a proof and prints its table.
pub(crate) fn run(root: &Path, proof: Proof, short: bool) -> Result<ExitCode> {
    let scratch = Scratch::new(root)?;
    let verdicts = match proof {
        Proof::Failover => failover::prove(&scratch, short)?,
        Proof::Drain => drain::prove(&scratch, short)?,
        Proof::Hostile => hostile::prove(&scratch, short)?,
        Proof::CacheRefresh => cache::prove_refresh(&scratch, short)?,
        Proof::CacheMemory => cache::prove_memory(&scratch, short)?,
        Proof::CacheRedis => sharing::prove(&scratch, short)?,
        Proof::Restart => pooler::prove_restart(&scratch, short)?,
        Proof::PoolerFairness => pooler::prove_fairness(&scratch, short)?,
        Proof::PoolerHostile => pooler::prove_hostile(&scratch, short)?,
        Proof::PoolerOperations => pooler::prove_operations(&scratch, short)?,
        Proof::SplitShare => pooler::prove_share(&scratch, short)?,
        Proof::SplitEdge => pooler::prove_edge(&scratch, short)?,
        Proof::SplitRoutes => pooler::prove_routes(&scratch, root)?,
        Proof::PoolerFaults => pooler::prove_faults(&scratch, short)?,
    };
    Ok(told(&verdicts))
}

fn told(verdicts: &Verdicts) -> ExitCode {
    verdicts.print();
    if verdicts.all_held() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
