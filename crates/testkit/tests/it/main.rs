//! The kit, tried on itself: what the other crates' tests rely on must hold first.
#![allow(clippy::unwrap_used, reason = "a test's helpers may fail as its body may")]

mod clusters;
mod faults;
mod origins;
mod processes;

use std::time::Duration;

/// Generous for a busy machine; a passing test never waits for it.
const SOON: Duration = Duration::from_secs(20);
/// How long a silence has to last to be one.
const SHORT: Duration = Duration::from_millis(50);
