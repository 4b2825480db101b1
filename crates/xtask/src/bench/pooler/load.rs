//! The load of `bench pooler`: pgbench, and what it and the kernel say of its run.
//!
//! **Intuition.** Logins cost more than transactions and come first, so nothing may be counted before they are over.
//!
//! **Mechanism.** pgbench reports its progress every second once all clients are in. At each report the processor time
//! of the seat is read; what lies between the first report with transactions and the last one is measured. Each
//! transaction's latency comes from pgbench's log, without the first second.
//!
//! **Failure.** A failed or aborted transaction ends the run: its cost would not be comparable. So does an answer that
//! does not come.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::bench::cost::threads_cpu_seconds;

/// Clients per thread of pgbench: it asks the kernel about all of a thread's sockets at each step.
const CLIENTS_PER_THREAD: u32 = 250;
/// Before the first report, which begins what is measured.
const WARM_S: u64 = 1;
/// Beyond the time it was given, pgbench waits for answers only.
const OVERTIME_MAX: Duration = Duration::from_secs(60);

/// One run of pgbench.
#[derive(Clone, Debug)]
pub(super) struct Load<'a> {
    pub(super) program: &'a Path,
    pub(super) port: u16,
    pub(super) clients: u32,
    /// To be measured; one second more is run, and `login_s`.
    pub(super) seconds: u64,
    /// What the logins may take: pgbench's clock starts before them.
    pub(super) login_s: u64,
    pub(super) kind: Vec<OsString>,
    /// Where latencies are logged, in memory.
    pub(super) folder: &'a Path,
    /// The process whose cost is asked for; `None` for a direct run.
    pub(super) pid: Option<u32>,
}

/// What it came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    /// All transactions, the ones before the measured time included.
    pub(super) processed: u64,
    /// What was measured: nothing, where the logins took all the time.
    pub(super) measured_s: f64,
    /// `None` for a direct run.
    pub(super) cpu_us: Option<f64>,
    pub(super) tps: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// One report: `progress: 3.0 s, 8123.9 tps, lat 3.9 ms …`, and the seat's processor time when it came.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Report {
    at_s: f64,
    tps: f64,
    cpu_s: f64,
}

impl Load<'_> {
    /// Runs it to its end.
    pub(super) fn run(&self) -> Result<Outcome> {
        let prefix = self.folder.join(format!("latency-{}", self.port));
        let mut child = self.command(&prefix).spawn().context("cannot run pgbench")?;
        let mut reports = Vec::new();
        let mut complaints = String::new();
        for line in BufReader::new(child.stderr.take().context("pgbench's standard error is piped")?).lines()
        {
            let line = line.context("reading what pgbench says")?;
            match report(&line) {
                Some((at_s, tps)) => {
                    reports.push(Report { at_s, tps, cpu_s: self.pid.map_or(0.0, threads_cpu_seconds) });
                }
                None => complaints.push_str(&format!("{line}\n")),
            }
        }
        let mut summary = String::new();
        let stdout = child.stdout.take().context("pgbench's output is piped")?;
        BufReader::new(stdout).read_to_string(&mut summary).context("reading pgbench's summary")?;
        let status = child.wait().context("waiting for pgbench")?;
        let latencies = latencies(&prefix);
        ensure!(status.success(), "pgbench failed ({status}):\n{complaints}{summary}");
        let processed = processed(&summary).with_context(|| format!("{complaints}{summary}"))?;
        let Rate { measured_s, cpu_us, tps } = rate(&reports);
        let mut latencies = latencies?;
        latencies.sort_unstable();
        Ok(Outcome {
            processed,
            measured_s,
            cpu_us: self.pid.map(|_| cpu_us),
            tps,
            p50_ms: quantile_ms(&latencies, 50),
            p99_ms: quantile_ms(&latencies, 99),
        })
    }

    fn command(&self, prefix: &Path) -> Command {
        let threads = self.clients.div_ceil(CLIENTS_PER_THREAD);
        // A pooler that loses a message would otherwise keep us waiting for ever.
        let limit = Duration::from_secs(WARM_S + self.login_s + self.seconds) + OVERTIME_MAX;
        let mut command = Command::new("timeout");
        command.arg(limit.as_secs().to_string()).arg(self.program).args([
            "-n",
            "-P",
            "1",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
        ]);
        command.args([
            "-p",
            &self.port.to_string(),
            "-c",
            &self.clients.to_string(),
            "-j",
            &threads.to_string(),
        ]);
        command.args(["-T", &(self.seconds + WARM_S + self.login_s).to_string()]);
        command.arg("-l").arg("--log-prefix").arg(prefix);
        command.args(&self.kind).arg("bench");
        command.env("PGSSLMODE", "disable").env("PGGSSENCMODE", "disable");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

fn report(line: &str) -> Option<(f64, f64)> {
    let (at, rest) = line.strip_prefix("progress: ")?.split_once(" s, ")?;
    Some((at.parse().ok()?, rest.split_once(" tps")?.0.parse().ok()?))
}

/// From the first report that has transactions to the last.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rate {
    measured_s: f64,
    cpu_us: f64,
    tps: f64,
}

fn rate(reports: &[Report]) -> Rate {
    let busy = reports.iter().position(|report| report.tps > 0.0).unwrap_or(reports.len());
    let counted = &reports[busy..];
    let (Some(first), Some(last)) = (counted.first(), counted.last()) else {
        return Rate { measured_s: 0.0, cpu_us: f64::NAN, tps: f64::NAN };
    };
    let transactions: f64 = counted.windows(2).map(|two| (two[1].at_s - two[0].at_s) * two[1].tps).sum();
    let measured_s = last.at_s - first.at_s;
    Rate {
        measured_s,
        cpu_us: (last.cpu_s - first.cpu_s) * 1e6 / transactions,
        tps: transactions / measured_s,
    }
}

fn processed(summary: &str) -> Result<u64> {
    let number = |name: &str| {
        let rest = summary.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    let processed =
        number("number of transactions actually processed: ").context("no count of transactions")?;
    // Before version 15 pgbench has no such line, and counts a failed transaction nowhere: it ends.
    let failed = number("number of failed transactions: ").unwrap_or(0);
    ensure!(failed == 0, "{failed} transactions failed");
    Ok(processed)
}

/// Reads and removes the logs of one run: a file per thread. Latencies in µs, without the first second.
fn latencies(prefix: &Path) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for file in logs(prefix)? {
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        all.extend(text.lines().filter_map(logged));
    }
    let first = all.iter().map(|&(at_us, _)| at_us).min().unwrap_or(0);
    let counts = |&&(at_us, _): &&(u64, u32)| at_us >= first + 1_000_000;
    Ok(all.iter().filter(counts).map(|&(_, latency_us)| latency_us).collect())
}

fn logs(prefix: &Path) -> Result<Vec<PathBuf>> {
    let folder = prefix.parent().context("a log has a folder")?;
    let name = prefix.file_name().and_then(|name| name.to_str()).context("a log has a name")?;
    let start = format!("{name}.");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&start) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// `client transaction latency_us script epoch_s epoch_us`: when it ended, in µs, and how long it took.
fn logged(line: &str) -> Option<(u64, u32)> {
    let mut fields = line.split(' ').skip(2);
    let latency_us = fields.next()?.parse().ok()?;
    let (seconds, us): (u64, u64) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((seconds * 1_000_000 + us, latency_us))
}

/// Of sorted latencies in µs.
fn quantile_ms(sorted: &[u32], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(f64::NAN, |&us| f64::from(us) / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_says_is_read() {
        let line = "progress: 2.0 s, 3092.3 tps, lat 1144.634 ms stddev 269.979, 0 failed";
        assert_eq!(report(line), Some((2.0, 3092.3)));
        assert_eq!(report("pgbench: error: connection refused"), None);
        let summary =
            "number of transactions actually processed: 12755\nnumber of failed transactions: 0 (0.000%)\n";
        assert_eq!(processed(summary).expect("it is there"), 12755);
        assert!(processed(&summary.replace(": 0 (", ": 3 (")).is_err());
        assert_eq!(logged("7 12 1500 0 1700000000 250000"), Some((1_700_000_000_250_000, 1500)));
    }

    #[test]
    fn seconds_before_the_first_transaction_do_not_count() {
        let report = |at_s, tps, cpu_s| Report { at_s, tps, cpu_s };
        let reports = [
            report(1.0, 0.0, 5.0),
            report(2.0, 100.0, 6.0),
            report(3.0, 1000.0, 6.5),
            report(4.0, 1000.0, 7.0),
        ];
        assert_eq!(rate(&reports), Rate { measured_s: 2.0, cpu_us: 500.0, tps: 1000.0 });
        assert!(rate(&reports[..1]).measured_s == 0.0 && rate(&reports[..2]).measured_s == 0.0);
    }

    #[test]
    fn quantiles_are_of_what_there_is() {
        let sorted: Vec<u32> = (1..=100).map(|ms| ms * 1000).collect();
        assert!(
            (quantile_ms(&sorted, 50) - 51.0).abs() < 1e-9 && (quantile_ms(&sorted, 99) - 100.0).abs() < 1e-9
        );
        assert!(quantile_ms(&[], 50).is_nan());
    }
}
