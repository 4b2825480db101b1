//! The crate seen from outside: every policy against one suite, probes and failures against tables, and whole outages
//! played in virtual time.

#![expect(
    clippy::disallowed_methods,
    reason = "any instant does as the first one; all others are added to it"
)]
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic like the test")]

mod conformance;
mod health;
mod outage;
mod properties;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tenfold_balance::{Cluster, ClusterConfig, HealthConfig, NodeState, Policy};

const POLICIES: [Policy; 2] = [Policy::LeastConnections, Policy::RoundRobin];

/// A cluster and the time, which moves only when told.
struct Bench {
    cluster: Arc<Cluster>,
    now: Instant,
}

impl Bench {
    fn new(config: ClusterConfig) -> Self {
        let now = Instant::now();
        Self { cluster: Cluster::new(config, None, now).unwrap(), now }
    }

    fn of(policy: Policy, weights: &[u32]) -> Self {
        Self::new(config(policy, weights))
    }

    fn wait(&mut self, duration: Duration) {
        self.now += duration;
    }

    fn states(&self) -> Vec<NodeState> {
        self.cluster.nodes(self.now).map(|node| node.state).collect()
    }

    fn in_flight(&self) -> u32 {
        self.cluster.nodes(self.now).map(|node| node.in_flight).sum()
    }

    fn reload(&mut self, change: impl FnOnce(&mut ClusterConfig)) {
        let mut config = self.cluster.config().clone();
        change(&mut config);
        self.cluster = Cluster::new(config, Some(&self.cluster), self.now).unwrap();
    }
}

/// Nodes `a:1`, `b:1`, … with these weights.
fn config(policy: Policy, weights: &[u32]) -> ClusterConfig {
    let names: Vec<_> = ('a'..='z').take(weights.len()).map(|letter| format!("{letter}:1")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut config = ClusterConfig { policy, ..ClusterConfig::of("shop", &names) };
    for (node, weight) in config.nodes.iter_mut().zip(weights) {
        node.weight = *weight;
    }
    config
}

/// The same with active checks: down after three failures, up after two passes, every two seconds.
fn checked_config(policy: Policy, weights: &[u32]) -> ClusterConfig {
    ClusterConfig { health: Some(HealthConfig::default()), ..config(policy, weights) }
}
