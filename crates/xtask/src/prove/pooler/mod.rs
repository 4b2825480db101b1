//! Proofs of the pooler, between a PostgreSQL that is hurt and clients that check every answer.

mod client;
mod fairness;
mod faults;
mod hostile;
mod operations;
mod restart;
mod scram_noise;
mod session;
mod split;
mod stand;
mod steady;

pub(super) use fairness::prove as prove_fairness;
pub(super) use faults::prove as prove_faults;
pub(super) use hostile::prove as prove_hostile;
pub(super) use operations::prove as prove_operations;
pub(super) use restart::prove as prove_restart;
pub(crate) use split::{
    Options as SplitOptions, prove as prove_split, prove_edge, prove_routes, prove_share,
};
