//! PostgreSQL's wire protocol as bytes in and facts out: both sides, without I/O.
//!
//! **Intuition.** A pooler stands between two peers that trust PostgreSQL, not each other. Most messages it passes on
//! after a glance at five bytes; a few it reads, and some it writes itself. Whatever a peer sends, reading it must cost
//! little and never fail in any other way than an error in PostgreSQL's own words.
//!
//! **Mechanism.** [`frame`] finds where messages end; [`frontend`] and [`backend`] read them in place; [`write`](mod@write)
//! appends them to a buffer; [`startup`] reads what comes before the first message; [`scram`], [`md5`] and [`secret`]
//! are the ways to prove a password. The caller owns sockets, buffers, time and randomness. Reading does not allocate.
//!
//! **Failure.** One [`Error`], with the text, SQLSTATE and detail for the answer.
//!
//! ```
//! use tenfold_pgwire::{frame::Frames, frontend::Query, write};
//!
//! let mut out = Vec::new();
//! write::query(&mut out, b"SELECT 1");
//! let message = Frames::of_frontend(&out).next().expect("it is whole")?;
//! assert_eq!(Query::parse(message.body())?.sql, b"SELECT 1");
//! # Ok::<(), tenfold_pgwire::Error>(())
//! ```
//!
//! Sources: PostgreSQL documentation, "Frontend/Backend Protocol"; RFC 5802, 7677 (SCRAM), 5929 (channel binding).

pub mod backend;
mod error;
mod fields;
pub mod frame;
pub mod frontend;
pub mod md5;
pub mod scram;
pub mod secret;
pub mod sqlstate;
pub mod startup;
pub mod write;

pub use error::Error;
pub use sqlstate::SqlState;
