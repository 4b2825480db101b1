//! What a server has taken: resident memory, processor time, from /proc.
//!
//! A server may be several processes (nginx's master and worker), so the descendants count too; pages they share count
//! for each. A process that ends between listing and reading is skipped. Processor time here is of one process and in
//! nanoseconds, for short rounds; that of a whole family is read by `testkit::process`.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// Resident memory of the process and all its descendants, in MiB.
pub(crate) fn rss_mib(pid: u32) -> Result<f64> {
    let mut processes = Vec::new();
    for entry in std::fs::read_dir("/proc").context("cannot list /proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        processes.extend(status.ok().map(|status| Process::parse(pid, &status)));
    }
    let kib: u32 = family(pid, processes).iter().map(|process| process.rss_kib).sum();
    Ok(f64::from(kib) / 1024.0)
}

/// Processor time of the process's living threads, in seconds; zero if it is gone. The kernel's scheduler counts
/// nanoseconds where `/proc/PID/stat` counts hundredths of a second.
pub(crate) fn threads_cpu_seconds(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let ns = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(ns.sum()).as_secs_f64()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    parent: u32,
    rss_kib: u32,
}

impl Process {
    /// From `/proc/PID/status`; a kernel thread has no `VmRSS`.
    fn parse(pid: u32, status: &str) -> Self {
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Self { pid, parent: number("PPid:"), rss_kib: number("VmRSS:") }
    }
}

fn family(pid: u32, mut others: Vec<Process>) -> Vec<Process> {
    let mut family: Vec<Process> = others.extract_if(.., |process| process.pid == pid).collect();
    let mut next = 0;
    while next < family.len() {
        let parent = family[next].pid;
        family.extend(others.extract_if(.., |process| process.parent == parent));
        next += 1;
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_file_is_read() {
        let status = "Name:\ta b\nPPid:\t7\nVmHWM:\t  9000 kB\nVmRSS:\t    4321 kB\n";
        assert_eq!(Process::parse(42, status), Process { pid: 42, parent: 7, rss_kib: 4321 });
        assert_eq!(Process::parse(2, "Name:\tkthreadd\nPPid:\t0\n").rss_kib, 0);
    }

    #[test]
    fn a_family_is_all_generations_and_nobody_else() {
        let process = |pid, parent| Process { pid, parent, rss_kib: 1 };
        let all = vec![process(4, 3), process(3, 2), process(2, 1), process(9, 1)];
        let pids: Vec<u32> = family(2, all).iter().map(|process| process.pid).collect();
        assert_eq!(pids, [2, 3, 4]);
    }

    #[test]
    fn work_takes_processor_time() {
        let own = std::process::id();
        let before = threads_cpu_seconds(own);
        tenfold_testkit::wait_for("work to be counted", Duration::from_secs(10), || {
            threads_cpu_seconds(own) > before
        });
        assert!(threads_cpu_seconds(0) == 0.0);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(rss_mib(std::process::id()).expect("own process") > 0.5);
    }
}
