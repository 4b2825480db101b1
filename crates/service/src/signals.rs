//! What the operator says to the process: end, or read your configuration again.
//!
//! **Intuition.** SIGTERM and SIGINT both mean "end"; the first begins the drain, the second forces it, which is the
//! caller's decision. SIGHUP means "reload".
//!
//! **Mechanism.** tokio's signal streams, one per kind, read in one place. SIGPIPE gets a handler that nobody reads, so
//! that writing to a closed socket is an error and not the end of the process.
//!
//! **Failure.** Installing a handler fails only where the kernel refuses it; that is an [`Error::Signals`]. Signals of
//! one kind that arrive together count as one, as in the kernel.

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::Error;

/// What was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: begin the drain; the second time, end now.
    Terminate,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals of the process. Have one, on the control thread.
#[derive(Debug)]
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hangup: Stream,
    _pipe: Stream,
}

impl Signals {
    /// Installs the handlers; from here on none of these signals ends the process by itself. Needs a tokio runtime.
    pub fn install() -> Result<Self, Error> {
        let install = |kind| signal(kind).map_err(Error::Signals);
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            hangup: install(SignalKind::hangup())?,
            _pipe: install(SignalKind::pipe())?,
        })
    }

    /// The next signal. Cancellation safe.
    pub async fn next(&mut self) -> Signal {
        // All branches are cancellation safe: a stream keeps what it was not asked for. Ending goes before reloading.
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Terminate,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}
