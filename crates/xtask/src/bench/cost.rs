//! What a server has cost so far: CPU time and memory of a process and its descendants, from /proc.
//!
//! User and system time in `/proc/PID/stat` cover all threads of a process, also those that have ended. The kernel
//! counts them in ticks of 10 ms, so a figure is good to a fifth of a percent over five busy seconds. A process that
//! ends between listing and reading is skipped.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// `USER_HZ`: what /proc counts in, 100 on every Linux we build for.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of the process and all its descendants.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let ticks: u64 = family(pid)?.iter().map(|process| process.ticks).sum();
    Ok(TICK * u32::try_from(ticks).context("the process has run for more than a year")?)
}

/// Resident memory of the process and all its descendants. Pages they share count for each.
pub(crate) fn rss_mib(pid: u32) -> Result<f64> {
    let mut kib = 0;
    for process in family(pid)? {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        kib += line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u32>().ok()).unwrap_or(0);
    }
    Ok(f64::from(kib) / 1024.0)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    parent: u32,
    ticks: u64,
}

fn family(pid: u32) -> Result<Vec<Process>> {
    let mut others = Vec::new();
    for entry in std::fs::read_dir("/proc").context("cannot list /proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        others.extend(stat.ok().and_then(|stat| parse_stat(&stat)));
    }
    Ok(descendants(pid, others))
}

fn descendants(pid: u32, mut others: Vec<Process>) -> Vec<Process> {
    let mut family: Vec<Process> = others.extract_if(.., |process| process.pid == pid).collect();
    let mut next = 0;
    while next < family.len() {
        let parent = family[next].pid;
        family.extend(others.extract_if(.., |process| process.parent == parent));
        next += 1;
    }
    family
}

/// `PID (name) state parent … utime stime …`; the name may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(' ')?;
    let (_, rest) = rest.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Process {
        pid: pid.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        ticks: ticks(11)? + ticks(12)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "42 (a) R (b) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 1 0 1 1 1";
        assert_eq!(parse_stat(stat), Some(Process { pid: 42, parent: 7, ticks: 200 }));
        assert_eq!(parse_stat("42 (a) S 7"), None);
    }

    #[test]
    fn a_family_is_all_generations_and_nobody_else() {
        let process = |pid, parent| Process { pid, parent, ticks: 1 };
        let all = vec![process(4, 3), process(3, 2), process(2, 1), process(9, 1)];
        let pids: Vec<u32> = descendants(2, all).iter().map(|process| process.pid).collect();
        assert_eq!(pids, [2, 3, 4]);
    }

    #[test]
    fn work_costs_time() {
        let pid = std::process::id();
        let before = cpu_time(pid).expect("own process");
        let mut sum = 0_u64;
        while cpu_time(pid).expect("own process") < before + 2 * TICK {
            sum = (0..100_000).fold(sum, u64::wrapping_add);
        }
        assert!(rss_mib(pid).expect("own process") > 0.5);
    }
}
