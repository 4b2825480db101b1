//! The edge over real sockets, against origins that misbehave on command.

mod harness;
mod passing;
