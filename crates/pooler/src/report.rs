//! What the tier looks like at one moment: plain rows, for the console and for status.
//!
//! **Intuition.** Whoever asks "what is going on" wants rows, whichever worker holds what they tell of.
//!
//! **Mechanism.** Each worker tells of its clients and servers; [`Report`] puts these beside what is known of databases,
//! pools and users. Sums that dashboards read ([`PoolTally`]) are taken over the rows, so that they agree with them.
//! [`Averages`] keeps two moments of the totals, to say what happened per second between them and now.
//!
//! **Failure.** None. Rows of two workers are of two moments, milliseconds apart: a connection lent between them may be
//! seen twice or not at all.

mod averages;
mod routes;
mod rows;

pub use averages::{Averages, STATS_PERIOD};
pub use routes::{RoutesRow, TOP_SHOWN_MAX};
pub use rows::{
    ClientRow, ClientState, DatabaseRow, HostRow, MemoryRow, Pause, PoolRow, PoolTally, ReplicaRow, Report,
    ServerRow, ServerState, StatsRow, UserRow,
};
