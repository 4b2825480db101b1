//! Everything one run needs, in one struct.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::report::Slo;
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::trace::KeyTrace;

/// The most connections one run may open.
pub const CONNECTIONS_MAX: usize = 100_000;
/// The most requests that may wait for a connection.
pub const QUEUE_MAX: usize = 1_000_000;
/// The most threads: beyond them one process is not the bottleneck.
pub const THREADS_MAX: usize = 64;

/// One run: where to, what, when, and by which rules.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Base URLs, `http://host:port`. Requests go to them in turn.
    pub targets: Vec<String>,
    /// The targets are the user's own: needed for anything but this machine.
    pub own_host: bool,
    /// What is asked for.
    pub scenario: Scenario,
    /// When.
    pub schedule: Schedule,
    /// What `{key}` stands for. Needed only if the scenario has it.
    pub keys: Option<Arc<KeyTrace>>,
    /// What `{token}` stands for: the answer of [`crate::log_in`], which may serve many runs. If empty and needed,
    /// [`crate::run`] logs in by itself.
    pub tokens: Arc<Vec<String>>,
    /// The client's limits.
    pub client: ClientConfig,
    /// What counts as good enough.
    pub slo: Option<Slo>,
    /// Decides which route each request takes and every random number in it.
    pub seed: u64,
    /// Keep a line per request in memory, for [`crate::ideal`].
    pub log_requests: bool,
}

impl Plan {
    /// A plan with the ordinary client, without SLO and log.
    #[must_use]
    pub fn new(targets: Vec<String>, scenario: Scenario, schedule: Schedule) -> Self {
        Self {
            targets,
            own_host: false,
            scenario,
            schedule,
            keys: None,
            tokens: Arc::default(),
            client: ClientConfig::default(),
            slo: None,
            seed: 1,
            log_requests: false,
        }
    }
}

/// How the client behaves. All of it is what real clients do, within bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// Connections open at a time, over all targets and threads.
    pub connections_max: usize,
    /// Requests that may wait for a connection, over all targets and threads. One more is an `overflow`.
    pub queue_max: usize,
    /// How long a user waits, from the intended start: then the request is a `timeout` and its connection is closed.
    pub timeout_ms: u64,
    /// Send a GET or HEAD once more, on a new connection, when a kept connection turns out to have been closed before
    /// the first byte of an answer. Browsers and phones do. Never done for another method.
    pub reconnect: bool,
    /// Threads that send. One is enough for most targets, and leaves the other cores to them.
    pub threads: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self { connections_max: 512, queue_max: 10_000, timeout_ms: 10_000, reconnect: true, threads: 1 }
    }
}

impl ClientConfig {
    /// Refuses limits of zero or out of bounds.
    ///
    /// # Errors
    /// [`Error::Client`], naming the limit.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::Client(why));
        if self.threads == 0 || self.threads > THREADS_MAX {
            return refuse(format!("threads = {}; 1 to {THREADS_MAX} are possible", self.threads));
        }
        if self.connections_max < self.threads || self.connections_max > CONNECTIONS_MAX {
            let (connections, least) = (self.connections_max, self.threads);
            return refuse(format!(
                "connections_max = {connections}; {least} to {CONNECTIONS_MAX} are possible"
            ));
        }
        if self.queue_max > QUEUE_MAX {
            return refuse(format!("queue_max = {}; up to {QUEUE_MAX} is possible", self.queue_max));
        }
        if self.timeout_ms == 0 || self.timeout_ms > 3_600_000 {
            return refuse(format!("timeout_ms = {}; 1 to 3600000 is possible", self.timeout_ms));
        }
        Ok(())
    }

    /// `timeout_ms` as a duration.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// Ends a run early, from any thread: nothing more is started, what is in flight is abandoned, and the report says
/// that it was stopped.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Ends the run within about a tenth of a second.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::stop`] was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_out_of_bounds_are_refused() {
        let good = ClientConfig::default();
        good.validate().unwrap();
        for bad in [
            ClientConfig { threads: 0, ..good.clone() },
            ClientConfig { threads: THREADS_MAX + 1, ..good.clone() },
            ClientConfig { connections_max: 0, ..good.clone() },
            ClientConfig { connections_max: CONNECTIONS_MAX + 1, ..good.clone() },
            ClientConfig { queue_max: QUEUE_MAX + 1, ..good.clone() },
            ClientConfig { timeout_ms: 0, ..good.clone() },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_stop_is_seen_by_every_clone() {
        let stop = Stop::default();
        let seen = stop.clone();
        assert!(!seen.is_stopped());
        stop.stop();
        assert!(seen.is_stopped());
    }
}
