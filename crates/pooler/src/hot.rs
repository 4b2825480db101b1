//! Hot rows: one row that everyone updates must not hold every server connection.
//!
//! **Intuition.** A sale sends five hundred clients to one row. Each of them, once it has a server connection, waits
//! there for the row's lock, and soon all connections of the pool wait for one lock while the rest of the application
//! waits for a connection. So only so many connections may be after one row; the other clients wait for it before they
//! get one, where waiting costs nothing, and everybody else passes.
//!
//! **Mechanism.** [`HotRows`] counts, per pool, statement and key value, the server connections held and keeps a queue
//! of who waits. A client enters before a connection is lent to it and leaves when it gives it back; leaving hands the
//! permit to the first in the queue. While a queue stands, the row gets as few connections as keep it as busy (`pace`).
//! A statement inside a transaction is only counted ([`HotRows::join`]): stopping it would hide its locks from
//! PostgreSQL's deadlock detector. For transactions whose hot statement comes later, their first statement is
//! remembered ([`HotRows::learn`]) and caps them before they begin ([`HotRows::may_reach_hot`]).
//!
//! **Failure.** A client that goes away while it waits leaves the queue with its [`HotWait`]. A permit dropped rather
//! than left wakes nobody; those who wait may always ask again ([`HotWait::retry`]). Tables hold what is in use and no
//! more; over [`ROWS_MAX`] a row is not capped.

mod learned;
mod pace;
mod rows;

pub use learned::LEARNED_MAX;
pub use rows::{Entered, HotPermit, HotRow, HotRows, HotWait, ROWS_MAX, Waiter};
