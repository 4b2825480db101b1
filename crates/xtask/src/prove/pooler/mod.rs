//! Proofs of the pooler, between a PostgreSQL that is hurt and clients that check every answer.

mod client;
mod faults;
mod operations;
mod session;
mod stand;
mod steady;

pub(super) use faults::prove as prove_faults;
pub(super) use operations::prove as prove_operations;
