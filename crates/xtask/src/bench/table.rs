//! The table a benchmark prints: medians with their range, and the ratio to each peer.
//!
//! A ratio is taken within a round, where both sides saw the same machine, and the median of those is what counts; it
//! is below 1 where the first side costs less, or is faster. The table is Markdown, ready for bench/README.md.

use std::fmt::Write as _;

use super::sides::Side;
use super::{Options, Sample};

/// One side's rounds.
pub(crate) struct Row {
    label: String,
    version: String,
    samples: Vec<Sample>,
}

impl Row {
    pub(crate) fn new(side: &Side, samples: Vec<Sample>) -> Self {
        Self { label: side.label(), version: side.version.clone(), samples }
    }

    fn spread(&self, of: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples.iter().map(of))
    }
}

/// Median, least and greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// Of none it is NaN, as the others are.
    pub(crate) median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
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

    pub(crate) fn text(self, decimals: usize) -> String {
        let Self { median, min, max } = self;
        format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
    }
}

/// The whole table. The first row is the one that the others are compared with.
pub(crate) fn render(title: &str, options: &Options, rows: &[Row]) -> String {
    let mut out = format!(
        "{title}, {} connections, {} rounds of {} s, in turn; median (min–max)\n\n",
        options.connections,
        options.rounds,
        options.round.as_secs(),
    );
    out.push_str(
        "| | version | CPU µs/request | requests/s | p99 ms | RSS MiB | our CPU ÷ its | our p99 ÷ its |\n",
    );
    out.push_str("|---|---|---|---|---|---|---|---|\n");
    for (index, row) in rows.iter().enumerate() {
        let compared = |of: fn(&Sample) -> f64| match rows.first() {
            Some(first) if index > 0 => ratio(first, row, of).text(2),
            _ => String::new(),
        };
        let columns = [
            row.label.clone(),
            row.version.clone(),
            row.spread(|sample| sample.cpu_us_per_request).text(2),
            row.spread(|sample| sample.requests_per_second).text(0),
            row.spread(|sample| sample.p99_ms).text(2),
            row.spread(|sample| sample.rss_mib).text(0),
            compared(|sample| sample.cpu_us_per_request),
            compared(|sample| sample.p99_ms),
        ];
        let _ = writeln!(out, "| {} |", columns.join(" | "));
    }
    out
}

/// What one side costs beside another.
pub(super) fn cost_ratio(first: &Row, other: &Row) -> String {
    ratio(first, other, |sample| sample.cpu_us_per_request).text(2)
}

fn ratio(first: &Row, other: &Row, of: fn(&Sample) -> f64) -> Spread {
    let rounds = first.samples.iter().zip(&other.samples);
    Spread::of(rounds.map(|(first, other)| of(first) / of(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: &str, costs: &[f64]) -> Row {
        let sample =
            |&cost| Sample { cpu_us_per_request: cost, requests_per_second: 1e5, p99_ms: 1.0, rss_mib: 9.0 };
        Row { label: label.into(), version: "1.0".into(), samples: costs.iter().map(sample).collect() }
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
        let rows = [row("Tenfold", &[8.0, 24.0, 8.0]), row("nginx", &[10.0, 30.0, 10.0])];
        let table = render("cache-hit: 1KiB", &Options::FULL, &rows);
        assert!(table.contains("| nginx | 1.0 | 10.00 (10.00–30.00) | 100000 (100000–100000) |"), "{table}");
        assert!(table.contains("| 0.80 (0.80–0.80) | 1.00 (1.00–1.00) |"), "{table}");
    }
}
