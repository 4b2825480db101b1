//! Picking a node, knowing which are well, and deciding what may be tried again. No sockets, no clock, no threads.
//!
//! **Intuition.** A [`Cluster`] is a set of interchangeable nodes. For each attempt the edge asks it for one
//! ([`Cluster::pick`]), holds the [`Picked`] as long as the attempt runs, and reports how it went. A health checker tells
//! it what its probes saw ([`Cluster::on_probe`]). Whether a failed attempt may be repeated is a question for
//! [`retry_rule`], and whether there is money for it one for [`retry_budget`].
//!
//! **Mechanism.** One cluster is shared by all workers: in-flight counts and states are atomics, read without a lock on
//! every pick; a lock is taken only when a node changes state. Time is an argument.
//!
//! **Failure.** A cluster without a node worth trying says so at once ([`Unavailable`]), so that the answer can be a
//! stale copy or a 503 within milliseconds.

mod cluster;
mod config;
mod node;
mod node_set;
mod policy;
pub mod retry_budget;
pub mod retry_rule;

pub use cluster::{Cluster, NodeView, Picked, Transition, Unavailable};
pub use config::{
    ClusterConfig, Error, HealthConfig, NODES_MAX, NodeConfig, PassiveConfig, Policy, RetryConfig, WEIGHT_MAX,
};
pub use node::{NodeState, Outcome};
pub use node_set::Tried;
