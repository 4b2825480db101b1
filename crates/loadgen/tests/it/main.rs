//! The generator against servers that behave, misbehave and vanish: real sockets on loopback, no sleeping.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod server;

mod client;
mod runs;
