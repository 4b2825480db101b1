//! What every tier shares: the threads it runs on, the sockets it is given, and the way it ends.
//!
//! **Intuition.** A tier (edge, pooler, …) is a set of plain async functions. This crate owns what surrounds them: one
//! thread and runtime per core ([`worker`]), one thread that accepts and counts sockets ([`acceptor`], [`socket`], [`limits`]), a
//! coarse timer wheel ([`timer`]) and a clock ([`clock`]), the metrics registry ([`metrics`]), signals ([`signals`]),
//! periodic jobs ([`periodic`]), the orderly end ([`drain`]) and what passes between a process and its successor ([`handover`]). It knows no protocol.
//!
//! **Mechanism.** Workers are independent: a task never leaves the thread it was born on, so tasks may hold `Rc` and
//! `Cell`. What crosses threads is an accepted socket, a relaxed atomic, or a closure sent to a worker.
//!
//! **Failure.** A panic in a task ends that task, is counted and reported, and the worker lives on. Running out of
//! descriptors pauses accepting; it never ends it. Errors name what was attempted and what to do about it.

pub mod acceptor;
pub mod clock;
pub mod drain;
mod error;
pub mod handover;
pub mod limits;
pub mod metrics;
pub mod periodic;
pub mod rng;
pub mod signals;
pub mod socket;
pub mod timer;
pub mod worker;

pub use error::Error;
