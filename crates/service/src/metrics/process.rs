//! What the operating system knows of this process: memory, descriptors, CPU time.
//!
//! **Intuition.** These carry the names every Prometheus client uses, so that existing dashboards find them.
//!
//! **Mechanism.** Read from `/proc/self` and `getrusage` at each scrape, on the scraping thread.
//!
//! **Failure.** Where `/proc` cannot be read, the value is NaN, which says "unknown" to whoever draws it.

use std::{fs, time::Duration};

use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage},
    time::TimeValLike,
};

use super::Registry;
use crate::clock::Clock;

/// Registers the process's own metrics. Call it once, at start: the moment becomes `process_start_time_seconds`.
pub fn register(registry: &Registry, clock: &Clock) {
    let started_s = Duration::from_millis(clock.unix_ms()).as_secs_f64();
    registry.gauge_fn(
        "process_start_time_seconds",
        "When this process started, since 1970.",
        &[],
        move || started_s,
    );
    registry.gauge_fn("process_resident_memory_bytes", "Resident memory.", &[], || {
        resident_bytes().map_or(f64::NAN, |bytes| bytes as f64)
    });
    registry.gauge_fn("process_open_fds", "Open file descriptors.", &[], || {
        open_descriptors().map_or(f64::NAN, |open| open as f64)
    });
    registry.gauge_fn("process_max_fds", "Limit on open file descriptors.", &[], || {
        getrlimit(Resource::RLIMIT_NOFILE).map_or(f64::NAN, |(soft, _)| soft as f64)
    });
    registry.counter_fn("process_cpu_seconds", "CPU time of all threads, user and system.", &[], || {
        cpu_time().map_or(f64::NAN, |time| time.as_secs_f64())
    });
}

/// Resident memory of this process in bytes.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1_024)
}

/// Open descriptors of this process.
#[must_use]
pub fn open_descriptors() -> Option<usize> {
    // Reading the directory holds one more open, which is taken off.
    fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1))
}

/// CPU time of all threads of this process.
#[must_use]
pub fn cpu_time() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let spent_us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    u64::try_from(spent_us).ok().map(Duration::from_micros)
}
