//! The edge over real sockets, against origins that misbehave on command.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod caching;
mod compressing;
mod ending;
mod failing_nodes;
mod foreign_codings;
mod harness;
mod hostile_caching;
mod hostile_origins;
mod large;
mod leaving;
mod malformed;
mod own_writes;
mod passing;
mod patience;
mod recording;
mod seen;
mod streaming;
mod waiting;
