//! Scripts: what a connection does, step by step, whatever HTTP says.
//!
//! **Intuition.** Some faults are only visible byte by byte: a head in two halves, an answer before the request, a
//! second response nobody asked for. A script writes them down in order.
//!
//! **Mechanism.** Steps run in order on the connection's thread; after the last one it closes.
//!
//! **Failure.** A step whose peer left ends the script. A step that waits ends when the origin stops.

use std::io::{self, Write};
use std::net::Shutdown;

use super::serve::{Connection, read_request};
use super::{Gate, Shared};
use crate::raw::set_reset_on_close;

/// One thing a scripted connection does.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Reads until these bytes have come.
    Expect(Vec<u8>),
    /// Reads one whole request and records it.
    ReadRequest,
    /// Waits until the gate opens.
    Wait(Gate),
    /// Reads nothing and sends nothing until the peer leaves or the origin stops.
    Stall,
    /// Reads and forgets until the peer has said its last.
    Drain,
    /// Closes the sending direction; reading goes on.
    HalfClose,
    /// Closes (FIN).
    Close,
    /// Resets (RST).
    Reset,
}

impl Step {
    /// [`Step::Send`] from anything that is bytes.
    pub fn send(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Send(bytes.into())
    }

    /// [`Step::Expect`] from anything that is bytes.
    pub fn expect(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Expect(bytes.into())
    }
}

/// Plays the steps; returns early when the peer leaves.
pub(super) fn play(shared: &Shared, connection: &mut Connection, steps: &[Step]) -> io::Result<()> {
    for step in steps {
        match step {
            Step::Send(bytes) => connection.source.stream().write_all(bytes)?,
            Step::Expect(bytes) => drop(connection.source.through(bytes)?),
            Step::ReadRequest => {
                let Some(request) = read_request(connection)? else { return Ok(()) };
                shared.record(&request);
            }
            Step::Wait(gate) => {
                if !connection.pass(gate) {
                    return Ok(());
                }
            }
            Step::Stall => {
                connection.pass(&Gate::new());
                return Ok(());
            }
            Step::Drain => drop(connection.source.rest()?),
            Step::HalfClose => connection.source.stream().shutdown(Shutdown::Write)?,
            Step::Close => return Ok(()),
            Step::Reset => return set_reset_on_close(connection.source.stream()),
        }
    }
    Ok(())
}
