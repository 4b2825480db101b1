//! What a run has shown: plain structs for JSON, which [`crate::table`] draws for a terminal.
//!
//! Latencies count from the **intended** start, so the wait that a slow target forced on later requests is in them.
//! Every request that ended is in its route's histogram, answered or failed, with the time until it ended; only
//! `overflow`s are not, since they never waited. So a target can't buy a good percentile with quick errors without
//! them showing in `errors`, and a timeout weighs as long as the user waited.
//!
//! Percentiles come from an HdrHistogram with three significant digits: a value is right within 0.1 %.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::scenario::Class;

/// A run's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// The targets, as given.
    pub targets: Vec<String>,
    /// The schedule's length in seconds.
    pub planned_s: f64,
    /// From the start to the last request's end, in seconds.
    pub played_s: f64,
    /// True when it was ended before its schedule.
    pub stopped: bool,
    /// Requests that were due, sent or not. Those neither `ok` nor `errors` were under way when the run was stopped.
    pub offered: u64,
    /// Answered as expected.
    pub ok: u64,
    /// All others that ended.
    pub errors: u64,
    /// `offered` per second of the schedule.
    pub offered_per_s: f64,
    /// `ok` per second played.
    pub ok_per_s: f64,
    /// Over all routes.
    pub latency: Latency,
    /// Over all routes but those exempt from the SLO.
    pub latency_slo: Latency,
    /// By route, in the scenario's order.
    pub routes: Vec<RouteReport>,
    /// By class, for the classes that occur.
    pub classes: Vec<ClassReport>,
    /// Errors by kind: `refused`, `connect`, `reset`, `closed`, `timeout`, `truncated`, `malformed`, `overflow`,
    /// `status_503`, `unexpected_302`.
    pub failures: BTreeMap<String, u64>,
    /// Answers by status, expected or not.
    pub statuses: BTreeMap<u16, u64>,
    /// For each header of `count_header`: how often each value came. Answers without the header are under `-`.
    pub headers: BTreeMap<String, BTreeMap<String, u64>>,
    /// One entry per second.
    pub series: Vec<Second>,
    /// Connections opened, or tried.
    pub connections: u64,
    /// GETs sent again because a kept connection had been closed.
    pub reconnects: u64,
    /// Bytes of heads and bodies received.
    pub received_bytes: u64,
    /// How late the generator itself was: from a request's intended start to its first byte written or queued. Above
    /// a few milliseconds the generator was short of CPU, and the latencies are its own as well.
    pub lag: Latency,
    /// CPU seconds of the generator's threads, user and system.
    pub cpu_s: f64,
    /// The same per request offered, in microseconds.
    pub cpu_us_per_request: f64,
    /// Whether it was good enough, if someone said what that is.
    pub slo: Option<Verdict>,
}

/// A distribution of durations, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// The arithmetic mean.
    pub mean_ms: f64,
    /// The median.
    pub p50_ms: f64,
    /// The 90th percentile.
    pub p90_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The 99.9th percentile.
    pub p999_ms: f64,
    /// The 99.99th percentile.
    pub p9999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// One route's share of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteReport {
    /// The route's name.
    pub name: String,
    /// Its class.
    pub class: Class,
    /// Whether its latency is exempt from the SLO.
    pub slo_exempt: bool,
    /// Requests that were due.
    pub offered: u64,
    /// Answered as expected.
    pub ok: u64,
    /// All others.
    pub errors: u64,
    /// From the intended start.
    pub latency: Latency,
}

/// One class's share of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// The class.
    pub class: Class,
    /// Requests that were due.
    pub offered: u64,
    /// Answered as expected.
    pub ok: u64,
    /// All others.
    pub errors: u64,
    /// From the intended start.
    pub latency: Latency,
}

/// One second of a run: what was due in it, and what ended in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Counted from 0.
    pub second: u32,
    /// Requests due in this second.
    pub offered: u64,
    /// Answers that ended in this second as expected.
    pub ok: u64,
    /// Requests that failed in this second.
    pub errors: u64,
    /// The median of those that ended in this second, from their intended starts.
    pub p50_ms: f64,
    /// Their 99th percentile.
    pub p99_ms: f64,
    /// Requests under way or waiting for a connection when the second ended.
    pub in_flight: u64,
}

/// What counts as good enough.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// The 99th percentile over all routes that are not exempt is at most this.
    pub p99_ms: f64,
    /// Errors over all routes, exempt or not, are at most this share of what was offered: 0.001 is 0.1 %.
    pub error_ratio: f64,
}

/// Whether an SLO was held.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What was asked.
    pub slo: Slo,
    /// The 99th percentile over all routes that are not exempt.
    pub p99_ms: f64,
    /// Errors by requests offered.
    pub error_ratio: f64,
    /// Both are within the SLO, and the run was not stopped before its end.
    pub held: bool,
}

impl Slo {
    /// Judges a report. A run without any request holds nothing.
    #[must_use]
    pub fn judge(self, report: &Report) -> Verdict {
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
        let error_ratio =
            if report.offered == 0 { 1.0 } else { report.errors as f64 / report.offered as f64 };
        let p99_ms = report.latency_slo.p99_ms;
        let held = !report.stopped && p99_ms <= self.p99_ms && error_ratio <= self.error_ratio;
        Verdict { slo: self, p99_ms, error_ratio, held }
    }
}

impl Latency {
    /// The summary of a histogram of microseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile: f64| micros_as_ms(histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            mean_ms: histogram.mean() / 1000.0,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            p9999_ms: at(0.9999),
            max_ms: micros_as_ms(histogram.max()),
        }
    }
}

/// Microseconds as milliseconds.
pub(crate) fn micros_as_ms(micros: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "durations far below 2^53 microseconds")]
    let micros = micros as f64;
    micros / 1000.0
}
