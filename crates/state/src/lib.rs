//! State that several edges share, in Redis or Valkey, without ever depending on it.
//!
//! **Intuition.** A shared store is worth having while it answers at once, and worth nothing while it doesn't: whoever asks
//! here says how long it may take, and goes on without an answer after that. Nothing that users wait for waits for Redis.
//!
//! **Mechanism.** One thread ([`Redis::start`]) holds the connections and runs what is submitted to it ([`Redis::submit`]);
//! callers on any thread get their answer through a channel. A call ([`Link::call`]) has a budget; a row of calls that
//! exceed theirs opens the [`Breaker`], after which calls fail at once until a probe is answered in time. Streams are
//! read on a connection of their own ([`follow`]), whose reader knows whether it kept its place.
//!
//! **Failure.** Every failure is a [`CallError`], and costs its caller at most the budget; while the server is known to be
//! away it costs nothing. Jobs, calls in flight and what is read of a stream at once are bounded. What the server
//! says is not trusted to be of any shape ([`reply`]).

mod breaker;
mod config;
mod endpoint;
mod error;
mod follow;
mod link;
pub mod reply;
mod sentinel;
mod thread;

pub use breaker::Breaker;
pub use config::Config;
pub use endpoint::probe;
pub use error::{CallError, Error};
pub use follow::{StreamEvent, StreamId, follow};
pub use link::{Link, Stats};
pub use redis::{Cmd, Value, cmd};
pub use thread::{Redis, Thread};
