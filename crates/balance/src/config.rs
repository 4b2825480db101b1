//! What a cluster is made of, as the configuration gives it.
//!
//! Built and defaulted by the configuration, checked once by [`Cluster::new`](crate::Cluster::new); an error names the
//! cluster and the node.

use std::{collections::HashSet, time::Duration};

use crate::retry_budget;

/// Nodes that one cluster can have.
pub const NODES_MAX: usize = 256;

/// The highest weight. Weights are shares, and finer ones than this cannot be told apart.
pub const WEIGHT_MAX: u32 = 256;

/// A set of interchangeable nodes and how to treat them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Its name: metrics' label, never from input.
    pub name: String,
    /// Its nodes; at least one, at most [`NODES_MAX`], names differing.
    pub nodes: Vec<NodeConfig>,
    /// How one is chosen.
    pub policy: Policy,
    /// Active checks, if any. The edge runs them; the thresholds are applied here.
    pub health: Option<HealthConfig>,
    /// What is learnt from ordinary requests.
    pub passive: PassiveConfig,
    /// What may be tried again.
    pub retry: RetryConfig,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// `host:port`. State survives a reload under this name.
    pub name: String,
    /// Its share of the requests relative to others: `1..=WEIGHT_MAX`.
    pub weight: u32,
}

/// How a node is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The node with the fewest requests in flight for its weight; equals take turns by weight.
    #[default]
    LeastConnections,
    /// Smooth weighted round robin.
    RoundRobin,
}

/// Active checks: one request to each node now and then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// What is asked for.
    pub path: String,
    /// From one check of a node to its next.
    pub every: Duration,
    /// After which a check has failed.
    pub timeout: Duration,
    /// Failed checks in a row after which a node is down.
    pub fail_after: u32,
    /// Passed checks in a row after which it is up again.
    pub pass_after: u32,
}

/// When a node that fails ordinary requests is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassiveConfig {
    /// Failures in a row that eject a node. A gateway error (502, 503, 504) counts half.
    pub consecutive_failures: u32,
    /// The first ejection; each one that follows soon doubles it.
    pub eject_for: Duration,
    /// No ejection is longer.
    pub eject_for_max: Duration,
    /// Percent of the nodes that may be ejected or down before no more are ejected: at most 50.
    pub ejected_percent_max: u32,
}

/// What may be tried again, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// Retries that one request gets at most.
    pub per_request: u32,
    /// What all requests of the cluster get together.
    pub budget: retry_budget::Config,
}

/// Why a cluster cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It has no node.
    #[error("cluster {cluster} has no node")]
    NoNode {
        /// The cluster.
        cluster: String,
    },
    /// It has more than [`NODES_MAX`] nodes.
    #[error("cluster {cluster} has {count} nodes; at most {NODES_MAX} are possible")]
    TooManyNodes {
        /// The cluster.
        cluster: String,
        /// How many it has.
        count: usize,
    },
    /// Two of its nodes have one name.
    #[error("cluster {cluster} has node {node} twice")]
    DuplicateNode {
        /// The cluster.
        cluster: String,
        /// The node.
        node: String,
    },
    /// A weight is zero or above [`WEIGHT_MAX`].
    #[error("cluster {cluster}: node {node} has weight {weight}; possible are 1 to {WEIGHT_MAX}")]
    Weight {
        /// The cluster.
        cluster: String,
        /// The node.
        node: String,
        /// Its weight.
        weight: u32,
    },
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            every: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            fail_after: 3,
            pass_after: 2,
        }
    }
}

impl Default for PassiveConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            eject_for: Duration::from_secs(5),
            eject_for_max: Duration::from_secs(60),
            ejected_percent_max: 50,
        }
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { per_request: 1, budget: retry_budget::Config::default() }
    }
}

impl ClusterConfig {
    /// A cluster of these nodes, all of weight 1, with every default.
    #[must_use]
    pub fn of(name: &str, nodes: &[&str]) -> Self {
        let node = |node: &&str| NodeConfig { name: (*node).to_owned(), weight: 1 };
        Self {
            name: name.to_owned(),
            nodes: nodes.iter().map(node).collect(),
            policy: Policy::default(),
            health: None,
            passive: PassiveConfig::default(),
            retry: RetryConfig::default(),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let cluster = || self.name.clone();
        if self.nodes.is_empty() {
            return Err(Error::NoNode { cluster: cluster() });
        }
        if self.nodes.len() > NODES_MAX {
            return Err(Error::TooManyNodes { cluster: cluster(), count: self.nodes.len() });
        }
        let mut names = HashSet::new();
        for node in &self.nodes {
            let name = || node.name.clone();
            if !names.insert(&node.name) {
                return Err(Error::DuplicateNode { cluster: cluster(), node: name() });
            }
            if !(1..=WEIGHT_MAX).contains(&node.weight) {
                return Err(Error::Weight { cluster: cluster(), node: name(), weight: node.weight });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut ClusterConfig), message: &str) {
        let mut config = ClusterConfig::of("shop", &["a:1", "b:1"]);
        assert_eq!(config.validate(), Ok(()));
        change(&mut config);
        assert_eq!(config.validate().unwrap_err().to_string(), message);
    }

    #[test]
    fn a_cluster_that_cannot_work_is_refused_by_name() {
        check(|config| config.nodes.clear(), "cluster shop has no node");
        check(|config| config.nodes[1].name = "a:1".into(), "cluster shop has node a:1 twice");
        check(
            |config| config.nodes[1].weight = 0,
            "cluster shop: node b:1 has weight 0; possible are 1 to 256",
        );
        check(
            |config| config.nodes[1].weight = 257,
            "cluster shop: node b:1 has weight 257; possible are 1 to 256",
        );
        let many = |index| NodeConfig { name: format!("n{index}:1"), weight: 1 };
        check(
            |config| config.nodes = (0..257).map(many).collect(),
            "cluster shop has 257 nodes; at most 256 are possible",
        );
    }
}
