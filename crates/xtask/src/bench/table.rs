//! The table a benchmark prints: medians with their range, and the ratio to each peer.
//!
//! A ratio is taken within a round, where both sides saw the same machine, and the median of those is what counts; it
//! is below 1 where we cost less. The table is Markdown, ready for bench/README.md.

use std::fmt::Write as _;

use super::sides::Side;
use super::{Bench, Options, Sample};

/// One side's rounds.
pub(crate) struct Row {
    label: String,
    version: String,
    is_ours: bool,
    samples: Vec<Sample>,
}

impl Row {
    pub(crate) fn new(side: &Side, samples: Vec<Sample>) -> Self {
        Self { label: side.label(), version: side.version.clone(), is_ours: side.is_ours(), samples }
    }

    fn spread(&self, of: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples.iter().map(of))
    }
}

/// Median, least and greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        let end = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        Self { median, min: end(values.first()), max: end(values.last()) }
    }

    pub(super) fn text(self, decimals: usize) -> String {
        let Self { median, min, max } = self;
        format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
    }
}

/// The whole table.
pub(crate) fn render(bench: Bench, options: Options, rows: &[Row]) -> String {
    let mut out = format!(
        "{}: 1 KiB, {} connections, {} rounds of {} s, servers on one core each in turn; median (min–max)\n\n",
        bench.name(),
        options.connections,
        options.rounds,
        options.round.as_secs(),
    );
    out.push_str("| | version | CPU µs/request | requests/s | p99 ms | RSS MiB | our CPU ÷ theirs |\n");
    out.push_str("|---|---|---|---|---|---|---|\n");
    let ours = rows.iter().find(|row| row.is_ours);
    for row in rows {
        let ratio = ours.filter(|_| !row.is_ours).map_or_else(String::new, |ours| ratio(ours, row).text(2));
        let columns = [
            row.label.clone(),
            row.version.clone(),
            row.spread(|sample| sample.cpu_us_per_request).text(2),
            row.spread(|sample| sample.requests_per_second).text(0),
            row.spread(|sample| sample.p99_ms).text(2),
            row.spread(|sample| sample.rss_mib).text(0),
            ratio,
        ];
        let _ = writeln!(out, "| {} |", columns.join(" | "));
    }
    out
}

fn ratio(ours: &Row, theirs: &Row) -> Spread {
    let rounds = ours.samples.iter().zip(&theirs.samples);
    Spread::of(rounds.map(|(ours, theirs)| ours.cpu_us_per_request / theirs.cpu_us_per_request))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: &str, is_ours: bool, costs: &[f64]) -> Row {
        let sample =
            |&cost| Sample { cpu_us_per_request: cost, requests_per_second: 1e5, p99_ms: 1.0, rss_mib: 9.0 };
        Row {
            label: label.into(),
            version: "1.0".into(),
            is_ours,
            samples: costs.iter().map(sample).collect(),
        }
    }

    #[test]
    fn a_spread_is_median_and_range() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 2.0]).text(0), "2 (1–3)");
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).text(1), "2.5 (1.0–4.0)");
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was three times slower in round two, for both alike.
        let rows = [row("Tenfold", true, &[8.0, 24.0, 8.0]), row("nginx", false, &[10.0, 30.0, 10.0])];
        let table = render(Bench::CacheHit, Options::FULL, &rows);
        assert!(table.contains("| nginx | 1.0 | 10.00 (10.00–30.00) | 100000 (100000–100000) |"), "{table}");
        assert!(table.contains("| 0.80 (0.80–0.80) |"), "{table}");
    }
}
