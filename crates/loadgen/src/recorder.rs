//! Counts what happens, on one thread, for a few tens of nanoseconds a request.
//!
//! Each sending thread has a [`Recorder`] of its own; nothing is shared while the run lasts. Once a second it hands a
//! [`Window`] to whoever watches, and at the end everything it has: [`Tally`]s of the threads are merged into one,
//! and that becomes the report. Sizes are fixed by the scenario: a histogram per route, tables by status, and a
//! bounded list of values per counted header.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use tenfold_http1::{Fields, find, trim_ows};

use crate::outcome::Failure;
use crate::request_log::{LogLine, RequestLog};
use crate::scenario::{CountHeader, Scenario};

/// Longer than any timeout a plan may set: an hour, in microseconds.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Values counted per header; the rest is `(other)`.
const HEADER_VALUES_MAX: usize = 64;
/// A header value's part is cut here.
const HEADER_VALUE_BYTES_MAX: usize = 64;

/// A histogram of microseconds, right within 0.1 %.
pub(crate) fn fine_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("constant bounds that are in range")
}

/// One that takes little memory, right within 1 %.
fn coarse_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 2).expect("constant bounds that are in range")
}

/// What happened in one second on one thread.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) offered: u64,
    pub(crate) ok: u64,
    pub(crate) errors: u64,
    pub(crate) in_flight: u64,
    pub(crate) latency: Histogram<u64>,
}

impl Window {
    pub(crate) fn empty() -> Self {
        Self { offered: 0, ok: 0, errors: 0, in_flight: 0, latency: coarse_histogram() }
    }

    /// True when nothing was due and nothing ended.
    pub(crate) fn is_empty(&self) -> bool {
        self.offered + self.ok + self.errors == 0
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.offered += other.offered;
        self.ok += other.ok;
        self.errors += other.errors;
        self.in_flight += other.in_flight;
        self.latency.add(&other.latency).expect("histograms of the same bounds");
    }
}

/// One route's counts.
#[derive(Clone, Debug)]
pub(crate) struct RouteTally {
    pub(crate) offered: u64,
    pub(crate) ok: u64,
    pub(crate) errors: u64,
    pub(crate) latency: Histogram<u64>,
}

/// Everything counted on one thread, or, merged, on all.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) routes: Vec<RouteTally>,
    pub(crate) failures: BTreeMap<Failure, u64>,
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// In the order of the scenario's `count_header`.
    pub(crate) headers: Vec<Vec<(Box<[u8]>, u64)>>,
    pub(crate) lag: Histogram<u64>,
    pub(crate) connections: u64,
    pub(crate) reconnects: u64,
    pub(crate) received_bytes: u64,
    /// When the last request ended.
    pub(crate) last_end_us: u64,
    pub(crate) cpu_us: u64,
    pub(crate) log: RequestLog,
}

impl Tally {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let route = || RouteTally { offered: 0, ok: 0, errors: 0, latency: fine_histogram() };
        Self {
            routes: scenario.routes.iter().map(|_| route()).collect(),
            failures: BTreeMap::new(),
            statuses: BTreeMap::new(),
            headers: vec![Vec::new(); scenario.count_headers.len()],
            lag: fine_histogram(),
            connections: 0,
            reconnects: 0,
            received_bytes: 0,
            last_end_us: 0,
            cpu_us: 0,
            log: RequestLog::default(),
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (mine, theirs) in self.routes.iter_mut().zip(&other.routes) {
            mine.offered += theirs.offered;
            mine.ok += theirs.ok;
            mine.errors += theirs.errors;
            mine.latency.add(&theirs.latency).expect("histograms of the same bounds");
        }
        other.failures.into_iter().for_each(|(failure, n)| *self.failures.entry(failure).or_default() += n);
        other.statuses.into_iter().for_each(|(status, n)| *self.statuses.entry(status).or_default() += n);
        for (mine, theirs) in self.headers.iter_mut().zip(&other.headers) {
            theirs.iter().for_each(|(value, n)| count_value(mine, value, *n));
        }
        self.lag.add(&other.lag).expect("histograms of the same bounds");
        self.connections += other.connections;
        self.reconnects += other.reconnects;
        self.received_bytes += other.received_bytes;
        self.last_end_us = self.last_end_us.max(other.last_end_us);
        self.cpu_us += other.cpu_us;
        self.log.merge(other.log);
    }
}

/// How one request ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) route: u16,
    pub(crate) intended_us: u64,
    pub(crate) started_us: u64,
    pub(crate) ended_us: u64,
    pub(crate) target: u64,
    /// The answer's status and size, if one came whole.
    pub(crate) answer: Option<(u16, u64)>,
    pub(crate) failure: Option<Failure>,
}

/// One thread's counters.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) tally: Tally,
    window: Window,
    keeps_log: bool,
    /// Requests offered and not ended.
    in_flight: u64,
}

impl Recorder {
    pub(crate) fn new(scenario: &Scenario, keeps_log: bool) -> Self {
        Self { tally: Tally::new(scenario), window: Window::empty(), keeps_log, in_flight: 0 }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// A request is due, and the generator got to it `lag_us` later.
    pub(crate) fn offered(&mut self, route: u16, lag_us: u64) {
        self.tally.routes[usize::from(route)].offered += 1;
        self.tally.lag.saturating_record(lag_us);
        self.window.offered += 1;
        self.in_flight += 1;
    }

    pub(crate) fn ended(&mut self, ended: &Ended) {
        self.in_flight -= 1;
        let tally = &mut self.tally;
        let route = &mut tally.routes[usize::from(ended.route)];
        if let Some((status, bytes)) = ended.answer {
            *tally.statuses.entry(status).or_default() += 1;
            tally.received_bytes += bytes;
        }
        if let Some(failure) = ended.failure {
            *tally.failures.entry(failure).or_default() += 1;
            route.errors += 1;
            self.window.errors += 1;
        } else {
            route.ok += 1;
            self.window.ok += 1;
        }
        if ended.failure != Some(Failure::Overflow) {
            let latency_us = ended.ended_us.saturating_sub(ended.intended_us);
            route.latency.saturating_record(latency_us);
            self.window.latency.saturating_record(latency_us);
        }
        tally.last_end_us = tally.last_end_us.max(ended.ended_us);
        if self.keeps_log {
            let &Ended { route, intended_us, started_us, ended_us, target, failure, .. } = ended;
            let ok = failure.is_none();
            tally.log.push(LogLine { intended_us, started_us, ended_us, target, route, ok });
        }
    }

    /// Counts the headers asked for.
    pub(crate) fn head(&mut self, wanted: &[CountHeader], fields: &Fields<'_>) {
        for (header, values) in wanted.iter().zip(&mut self.tally.headers) {
            let value = find(fields, &header.name);
            let part = value.and_then(|value| value.split(|&b| b == b';').nth(header.part)).map(trim_ows);
            let part = part.unwrap_or(b"-");
            count_value(values, &part[..part.len().min(HEADER_VALUE_BYTES_MAX)], 1);
        }
    }

    /// Ends a second: what happened in it, and a fresh one.
    pub(crate) fn take_window(&mut self) -> Window {
        let mut window = std::mem::replace(&mut self.window, Window::empty());
        window.in_flight = self.in_flight;
        window
    }
}

/// Adds to a value's count. The list is short, and the common values are at its front.
fn count_value(values: &mut Vec<(Box<[u8]>, u64)>, value: &[u8], count: u64) {
    let length = values.len();
    if let Some((_, n)) = values.iter_mut().find(|(known, _)| **known == *value) {
        *n += count;
        return;
    }
    match values.last_mut() {
        Some((_, others)) if length == HEADER_VALUES_MAX => *others += count,
        _ if length + 1 == HEADER_VALUES_MAX => values.push((b"(other)".as_slice().into(), count)),
        _ => values.push((value.into(), count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_bound_are_counted_together() {
        let mut values = Vec::new();
        for n in 0..200_u32 {
            count_value(&mut values, n.to_string().as_bytes(), 1);
        }
        count_value(&mut values, b"0", 5);
        assert_eq!(values.len(), HEADER_VALUES_MAX);
        assert_eq!(values[0], (b"0".as_slice().into(), 6));
        let (name, others) = &values[HEADER_VALUES_MAX - 1];
        assert_eq!((&**name, *others), (b"(other)".as_slice(), 200 - 63));
    }

    #[test]
    fn a_headers_part_is_found() {
        let scenario = Scenario {
            count_headers: vec![CountHeader::of("Cache-Status"), CountHeader::of("X-A")],
            ..Scenario::default()
        };
        let mut recorder = Recorder::new(&scenario, false);
        for (name, value) in
            [("cache-status", "tenfold; hit; ttl=3"), ("CACHE-STATUS", "tenfold;fwd=miss"), ("x-a", "1")]
        {
            let fields: Fields<'_> = [(name.as_bytes(), value.as_bytes())].into_iter().collect();
            recorder.head(&scenario.count_headers, &fields);
        }
        let counted = |index: usize| -> Vec<(&[u8], u64)> {
            recorder.tally.headers[index].iter().map(|(value, n)| (&**value, *n)).collect()
        };
        assert_eq!(counted(0), [(&b"hit"[..], 1), (b"fwd=miss", 1), (b"-", 1)]);
        assert_eq!(counted(1), [(&b"-"[..], 2), (b"1", 1)]);
    }
}
