//! PostgreSQL pooling: many clients on few server connections, each keeping the promises of a connection of its own.
//!
//! **Intuition.** A PostgreSQL connection is a process; ten thousand of them are ten thousand processes, though only
//! a few dozen can work at once. So clients share a few, transaction by transaction, and what a client left in its
//! session (settings, prepared statements, channels) follows it from server to server.
//!
//! **Mechanism.** Workers, one per core, each run one event loop over their clients and servers ([`Pooler`]). What
//! needs waiting for anything else (names, look-ups, notifications, the console) is done by tasks of the control
//! thread ([`control`]). Leaf crates do the reading: `pgwire` the protocol, `sql` the statements.
//!
//! **Failure.** Every refusal is a PostgreSQL error with its SQLSTATE ([`refusal`]); a server connection goes to the
//! next client only when it is known to be clean, and is closed otherwise.

pub mod auth;
pub mod config;
pub mod console;
pub mod control;
pub mod counters;
pub mod definitions;
pub mod handover;
pub mod hot;
pub mod image;
pub mod mailbox;
pub mod metrics;
pub mod pool;
mod pooler;
mod positions;
pub mod probe;
pub mod refusal;
pub mod report;
pub mod shared;
pub mod split;
mod started;
pub mod statements;
pub mod tls;
mod worker;

pub use pooler::{Deps, Pooler, PoolerThreads, Pressure, ProcessAsk};
pub use positions::Positions;
pub use worker::{ClientRow, ClientState, Pin, ServerRow, ServerState, Stat, Stats, WorkerRows};
