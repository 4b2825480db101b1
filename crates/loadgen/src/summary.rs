//! From counts to a report.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::plan::Plan;
use crate::recorder::{RouteTally, Tally, Window, fine_histogram};
use crate::report::{ClassReport, Latency, Report, RouteReport, Second, micros_as_ms};
use crate::run::{Played, Run};
use crate::scenario::{Class, Route};

/// One second's entry of the series.
pub(crate) fn second(index: usize, window: &Window) -> Second {
    let at = |quantile: f64| micros_as_ms(window.latency.value_at_quantile(quantile));
    Second {
        second: u32::try_from(index).unwrap_or(u32::MAX),
        offered: window.offered,
        ok: window.ok,
        errors: window.errors,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        in_flight: window.in_flight,
    }
}

/// The report of a run, and its log.
pub(crate) fn summarise(plan: &Plan, played: Played, stopped: bool) -> Run {
    let Played { mut tally, series } = played;
    let log = std::mem::take(&mut tally.log);
    let routes = || plan.scenario.routes.iter().zip(&tally.routes);
    let everything = Sum::of(routes().map(|(_, counted)| counted));
    let held_to_slo = Sum::of(routes().filter(|(route, _)| !route.slo_exempt).map(|(_, counted)| counted));
    let planned_s = plan.schedule.duration().as_secs_f64();
    let played_s = micros_as_ms(tally.last_end_us) / 1000.0;
    let cpu_s = micros_as_ms(tally.cpu_us) / 1000.0;
    let mut report = Report {
        scenario: plan.scenario.name.clone(),
        targets: plan.targets.clone(),
        planned_s,
        played_s,
        stopped,
        offered: everything.offered,
        ok: everything.ok,
        errors: everything.errors,
        offered_per_s: per(everything.offered, planned_s),
        ok_per_s: per(everything.ok, played_s),
        latency: Latency::of(&everything.latency),
        latency_slo: Latency::of(&held_to_slo.latency),
        routes: routes().map(|(route, counted)| route_report(route, counted)).collect(),
        classes: Class::ALL.into_iter().filter_map(|class| class_report(class, routes())).collect(),
        failures: tally.failures.iter().map(|(failure, n)| (failure.label(), *n)).collect(),
        statuses: tally.statuses.clone(),
        headers: headers(plan, &tally),
        series,
        connections: tally.connections,
        reconnects: tally.reconnects,
        received_bytes: tally.received_bytes,
        lag: Latency::of(&tally.lag),
        cpu_s,
        cpu_us_per_request: if everything.offered == 0 {
            0.0
        } else {
            cpu_s * 1e6 / count(everything.offered)
        },
        slo: None,
    };
    report.slo = plan.slo.map(|slo| slo.judge(&report));
    Run { report, log }
}

/// Counts of several routes together.
struct Sum {
    offered: u64,
    ok: u64,
    errors: u64,
    latency: Histogram<u64>,
}

impl Sum {
    fn of<'t>(tallies: impl Iterator<Item = &'t RouteTally>) -> Self {
        let mut sum = Self { offered: 0, ok: 0, errors: 0, latency: fine_histogram() };
        for tally in tallies {
            sum.offered += tally.offered;
            sum.ok += tally.ok;
            sum.errors += tally.errors;
            sum.latency.add(&tally.latency).expect("histograms of the same bounds");
        }
        sum
    }
}

fn route_report(route: &Route, counted: &RouteTally) -> RouteReport {
    RouteReport {
        name: route.name.clone(),
        class: route.class,
        slo_exempt: route.slo_exempt,
        offered: counted.offered,
        ok: counted.ok,
        errors: counted.errors,
        latency: Latency::of(&counted.latency),
    }
}

fn class_report<'t>(
    class: Class,
    routes: impl Iterator<Item = (&'t Route, &'t RouteTally)>,
) -> Option<ClassReport> {
    let mut members = routes.filter(|(route, _)| route.class == class).map(|(_, counted)| counted).peekable();
    members.peek()?;
    let Sum { offered, ok, errors, latency } = Sum::of(members);
    Some(ClassReport { class, offered, ok, errors, latency: Latency::of(&latency) })
}

fn headers(plan: &Plan, tally: &Tally) -> BTreeMap<String, BTreeMap<String, u64>> {
    let values = |counted: &[(Box<[u8]>, u64)]| {
        counted.iter().map(|(value, n)| (String::from_utf8_lossy(value).into_owned(), *n)).collect()
    };
    let wanted = plan.scenario.count_headers.iter().zip(&tally.headers);
    wanted.map(|(header, counted)| (header.name.clone(), values(counted))).collect()
}

fn per(n: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count(n) / seconds } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn count(n: u64) -> f64 {
    n as f64
}
