//! `tenfold load`: an open-loop load, and what became of it.
//!
//! Without a scenario it asks for one URL; with one (`--scenario FILE.toml`) it plays a mix of requests against the base
//! URLs. The rate is constant, or takes its shape from a recorded day (`--trace FILE.csv`), squeezed into `--duration`
//! with its busiest minute at `--rate`. `--keys FILE` says what `{key}` stands for.
//!
//! The report goes to stdout, progress to stderr where that is a terminal. Exit code 1 when an SLO given here is missed,
//! or when nothing could be played. Ctrl-C ends the run early and reports what was played; an SLO then counts as missed.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tenfold_loadgen::schedule::{Joint, Spacing, TraceScale};
use tenfold_loadgen::trace::{KeyTrace, MinuteSeries};
use tenfold_loadgen::{Plan, Run, Scenario, Schedule, Slo, Stop, report::Report, table};
use tenfold_service::signals::{Signal, Signals};

use super::{complain, print};
use crate::cli::Exit;
use crate::config::values;

/// Files named on the command line are read whole; none is nearly as large.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// `tenfold load`.
#[derive(Debug, Args)]
pub struct Load {
    /// What to ask for, such as `http://127.0.0.1:8080/products`; with --scenario a base URL, several take turns
    #[arg(long = "url", value_name = "URL", required = true)]
    pub urls: Vec<String>,
    /// Requests started, such as 500/s; with --trace those of its busiest minute
    #[arg(long, value_name = "RATE", default_value = "100/s", value_parser = rate)]
    pub rate: f64,
    /// For how long
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// A mix of requests, in TOML
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// A recorded rate: CSV of minute,requests
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Recorded keys for {key}: 32-bit big-endian integers
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// The 99th percentile must not be above this
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub slo_p99: Option<Duration>,
    /// The share of failed requests must not be above this, such as 0.1%
    #[arg(long, value_name = "SHARE", value_parser = ratio)]
    pub slo_errors: Option<f64>,
    /// Connections open at a time
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub connections: usize,
    /// How long a user waits before a request counts as failed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
    /// Threads that send
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
    /// Decides every random number of the run
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Needed for targets that are not this machine
    #[arg(long)]
    pub i_own_this_host: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    values::rate_per_second(text).map_err(|expected| format!("expected {expected}"))
}

fn duration(text: &str) -> Result<Duration, String> {
    values::duration(text).map_err(|expected| format!("expected {expected}"))
}

fn ratio(text: &str) -> Result<f64, String> {
    values::ratio_ppm(text).map(|ppm| f64::from(ppm) / 1e6).map_err(|expected| format!("expected {expected}"))
}

/// Plays the load, and prints the report.
#[must_use]
pub fn load(load: &Load) -> Exit {
    let plan = match plan(load) {
        Ok(plan) => plan,
        Err(message) => {
            complain(&format!("error: {message}"));
            return Exit::Usage;
        }
    };
    let stop = Stop::default();
    stop_on_signal(&stop);
    let shown = std::io::stderr().is_terminal() && !load.json;
    let mut progress = |second: &tenfold_loadgen::Second| {
        if shown {
            complain(&table::render_second(second));
        }
    };
    match tenfold_loadgen::run(&plan, &stop, &mut progress) {
        Ok(run) => told(&run, load.json),
        Err(error @ (tenfold_loadgen::Error::Io(_) | tenfold_loadgen::Error::Setup { .. })) => {
            complain(&format!("error: {error}"));
            Exit::Failed
        }
        Err(error) => {
            complain(&format!("error: {error}"));
            Exit::Usage
        }
    }
}

fn told(run: &Run, json: bool) -> Exit {
    let printed = match serde_json::to_string_pretty(&run.report) {
        Ok(text) if json => print(&text),
        _ => print(&table::render(&run.report)),
    };
    if is_missed(&run.report) { Exit::Failed } else { printed }
}

/// A run that got no answer at all has failed, SLO or not.
fn is_missed(report: &Report) -> bool {
    report.slo.is_some_and(|verdict| !verdict.held) || (report.ok == 0 && report.offered > 0)
}

fn plan(load: &Load) -> Result<Plan, String> {
    let (targets, scenario) = match &load.scenario {
        Some(path) => (load.urls.clone(), read_scenario(path)?),
        None => one_url(&load.urls)?,
    };
    let mut plan = Plan::new(targets, scenario, schedule(load)?);
    plan.own_host = load.i_own_this_host;
    plan.seed = load.seed;
    plan.client.connections_max = load.connections;
    plan.client.threads = load.threads;
    plan.client.timeout_ms = u64::try_from(load.timeout.as_millis()).unwrap_or(u64::MAX);
    plan.slo = slo(load);
    if let Some(path) = &load.keys {
        let keys = KeyTrace::parse(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))?;
        plan.keys = Some(Arc::new(keys));
    }
    Ok(plan)
}

/// One given half of an SLO leaves the other open.
fn slo(load: &Load) -> Option<Slo> {
    if load.slo_p99.is_none() && load.slo_errors.is_none() {
        return None;
    }
    let p99_ms = load.slo_p99.map_or(f64::MAX, |duration| duration.as_secs_f64() * 1000.0);
    Some(Slo { p99_ms, error_ratio: load.slo_errors.unwrap_or(1.0) })
}

fn schedule(load: &Load) -> Result<Schedule, String> {
    let Some(path) = &load.trace else {
        return Schedule::constant(load.rate, load.duration, Spacing::Poisson, load.seed)
            .map_err(|e| e.to_string());
    };
    let named = |error: tenfold_loadgen::Error| format!("{}: {error}", path.display());
    let csv = String::from_utf8(read(path)?).map_err(|_| format!("{}: not text", path.display()))?;
    let series = MinuteSeries::parse(&csv, None).map_err(named)?;
    let minutes =
        u32::try_from(series.counts().len()).map_err(|_| format!("{}: too long", path.display()))?;
    let scale =
        TraceScale { peak_rate: load.rate, minute: load.duration / minutes.max(1), joint: Joint::Linear };
    Schedule::trace(&series, scale, Spacing::Poisson, load.seed).map_err(named)
}

/// Asks for one URL: its path becomes the only route.
fn one_url(urls: &[String]) -> Result<(Vec<String>, Scenario), String> {
    let [url] = urls else {
        return Err("several --url need a --scenario that says what to ask of them".into());
    };
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url:?} does not start with http://"))?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    // Braces would be read as a template.
    let path = path.replace('{', "%7B").replace('}', "%7D");
    let scenario = serde_json::json!({ "name": url, "route": [{ "name": path, "weight": 1, "path": path }] });
    let scenario = serde_json::from_value(scenario).map_err(|error| error.to_string())?;
    Ok((vec![format!("http://{authority}")], scenario))
}

fn read_scenario(path: &Path) -> Result<Scenario, String> {
    let text = String::from_utf8(read(path)?).map_err(|_| format!("{}: not text", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}:\n{error}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(format!("{} is larger than {}", path.display(), values::size_text(FILE_BYTES_MAX)));
    }
    std::fs::read(path).map_err(failed)
}

/// Watches for Ctrl-C on a thread that ends with the process. Without it Ctrl-C still ends the process, with no report.
fn stop_on_signal(stop: &Stop) {
    let stop = stop.clone();
    let watch = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let Ok(mut signals) = Signals::install() else { return };
            while signals.next().await != Signal::Terminate {}
            stop.stop();
        });
    };
    drop(std::thread::Builder::new().name("tenfold-signals".into()).spawn(watch));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_url_is_one_route() {
        let (targets, scenario) = one_url(&["http://127.0.0.1:8080/a?b={c}".into()]).expect("a plan");
        assert_eq!(targets, ["http://127.0.0.1:8080"]);
        assert_eq!(scenario.routes[0].path, "/a?b=%7Bc%7D");
        assert_eq!(one_url(&["http://h".into()]).expect("a plan").1.routes[0].path, "/");
        assert!(one_url(&["https://h/".into()]).is_err());
        assert!(one_url(&["http://a/".into(), "http://b/".into()]).is_err());
    }
}
