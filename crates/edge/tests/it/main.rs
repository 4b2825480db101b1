//! The edge over real sockets, against origins that misbehave on command.

mod caching;
mod harness;
mod passing;
