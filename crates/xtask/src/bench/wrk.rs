//! The load of the benchmarks: `wrk` on the client's core, as many requests as its connections get answered.
//!
//! wrk is a closed loop, which is right here and wrong for latency under load: here the question is what a request
//! costs a busy server. A run with a failed or refused request is an error, because its cost would not be comparable.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::server::CLIENT_CORE;

/// What is asked for, by how many, from where.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    pub(crate) connections: u32,
    pub(crate) threads: u32,
    pub(crate) path: String,
    /// A wrk script that asks for something else than `path`.
    pub(crate) script: Option<PathBuf>,
    /// As `taskset` names them.
    pub(crate) cores: &'static str,
}

impl Asking {
    /// For one path, from the client's core.
    pub(crate) fn for_path(path: String, connections: u32) -> Self {
        Self { connections, threads: 1, path, script: None, cores: CLIENT_CORE }
    }
}

/// What wrk says it did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    pub(crate) requests: f64,
    pub(crate) seconds: f64,
    pub(crate) p99: Duration,
}

/// Loads the server on this port for about `length`.
pub(crate) fn run(port: u16, asking: &Asking, length: Duration) -> Result<Load> {
    let mut command = Command::new("taskset");
    let connections = asking.connections.to_string();
    command.args(["-c", asking.cores, "wrk", "--latency", "-t", &asking.threads.to_string()]);
    command.args(["-c", &connections]);
    command.args(["-d", &format!("{}s", length.as_secs().max(1))]);
    if let Some(script) = &asking.script {
        command.arg("-s").arg(script);
    }
    let url = format!("http://127.0.0.1:{port}{}", asking.path);
    let output = command.arg(url).output().context("cannot run wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("wrk failed: {}{text}", String::from_utf8_lossy(&output.stderr));
    }
    parse(&text)
}

fn parse(text: &str) -> Result<Load> {
    if let Some(line) = text.lines().find(|line| line.contains("Socket errors") || line.contains("Non-2xx")) {
        bail!("wrk saw failures: {}", line.trim());
    }
    let missing = || format!("cannot read what wrk printed:\n{text}");
    let total = text.lines().find_map(|line| line.trim().split_once(" requests in "));
    let (requests, rest) = total.with_context(missing)?;
    let seconds = duration(rest.split(',').next().unwrap_or_default()).with_context(missing)?;
    let p99 =
        text.lines().find_map(|line| line.trim().strip_prefix("99%")).and_then(|rest| duration(rest.trim()));
    Ok(Load {
        requests: requests.parse().with_context(missing)?,
        seconds: seconds.as_secs_f64(),
        p99: p99.with_context(missing)?,
    })
}

/// `1.50ms`, `900.00us`, `5.00s`, `1.00m`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| c.is_alphabetic())?;
    let (number, unit) = text.split_at(digits);
    let unit_s = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Some(Duration::from_secs_f64(number.parse::<f64>().ok()? * unit_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
Running 5s test @ http://127.0.0.1:1/item
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   606.12us  130.64us   7.22ms   87.52%
  Latency Distribution
     50%  579.00us
     99%    1.06ms
  530062 requests in 5.10s, 660.21MB read
Requests/sec: 103933.36
";

    #[test]
    fn the_totals_are_read() {
        let load = parse(OUTPUT).expect("what wrk prints");
        let expected = Load { requests: 530_062.0, seconds: 5.1, p99: Duration::from_micros(1060) };
        assert_eq!(load, expected);
    }

    #[test]
    fn failures_are_errors() {
        assert!(parse(&format!("{OUTPUT}  Non-2xx or 3xx responses: 3\n")).is_err());
        assert!(parse(&format!("{OUTPUT}  Socket errors: connect 0, read 7, write 0, timeout 0\n")).is_err());
        assert!(parse("").is_err());
    }
}
