//! What the operator says to the process: end, read your configuration again, hold the pools or let them go.
//!
//! **Intuition.** SIGTERM and SIGINT both mean "end"; the first begins the drain, the second forces it, which is the
//! caller's decision. SIGHUP means "reload"; SIGUSR1 and SIGUSR2 mean "pause" and "resume", as PgBouncer has them.
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
    /// SIGUSR1: finish running transactions and hold new ones.
    Pause,
    /// SIGUSR2: let held transactions go on.
    Resume,
}

/// The signals of the process. Have one, on the control thread.
#[derive(Debug)]
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hangup: Stream,
    user_1: Stream,
    user_2: Stream,
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
            user_1: install(SignalKind::user_defined1())?,
            user_2: install(SignalKind::user_defined2())?,
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
            _ = self.user_1.recv() => Signal::Pause,
            _ = self.user_2.recv() => Signal::Resume,
        }
    }
}
