//! The table of one row of `bench pooler`: medians with their range, and our cost as a part of each other seat's.
//!
//! A ratio is taken within a round, where all seats saw the same machine, and its median counts; below 1 we cost less,
//! or answer sooner. Of throughput the ratio is ours to theirs too, so there above 1 is better.

use std::fmt::Write as _;

use super::seats::Seated;
use super::work::Row;
use super::{Options, Sample};
use crate::bench::Spread;

/// One seat's rounds.
pub(super) struct Column {
    label: &'static str,
    version: String,
    samples: Vec<Sample>,
}

impl Column {
    pub(super) fn new(seated: &Seated, samples: Vec<Sample>) -> Self {
        Self { label: seated.seat.label(), version: seated.version.clone(), samples }
    }

    fn text(&self, decimals: usize, of: impl Fn(&Sample) -> Option<f64>) -> String {
        let values: Option<Vec<f64>> = self.samples.iter().map(of).collect();
        values.map_or_else(|| "–".to_owned(), |values| Spread::of(values.into_iter()).text(decimals))
    }

    fn ratio(&self, to: &Self, of: impl Fn(&Sample) -> Option<f64>) -> String {
        let rounds = self.samples.iter().zip(&to.samples);
        let values: Option<Vec<f64>> = rounds.map(|(one, other)| Some(of(one)? / of(other)?)).collect();
        values.map_or_else(|| "–".to_owned(), |values| Spread::of(values.into_iter()).text(2))
    }
}

/// The table; the first column's seat is set against the others.
pub(super) fn render(row: &Row, options: &Options, columns: &[Column]) -> String {
    let how = if options.is_together { "all at the same time" } else { "in turn" };
    let mut out = format!(
        "### {}: {} clients, {} rounds of {} s, {how}; median (min–max)\n\n",
        row.name(),
        row.clients,
        options.rounds,
        options.seconds,
    );
    out.push_str("| | version | CPU µs/transaction | TPS | p50 ms | p99 ms | RSS MiB | CPU, first ÷ this | TPS, first ÷ this | p99, first ÷ this |\n");
    out.push_str("|---|---|---|---|---|---|---|---|---|---|\n");
    let cpu = |sample: &Sample| sample.outcome.cpu_us;
    let tps = |sample: &Sample| Some(sample.outcome.tps);
    let p99 = |sample: &Sample| Some(sample.outcome.p99_ms);
    for (index, column) in columns.iter().enumerate() {
        let first = columns.first().filter(|_| index > 0);
        let ratio = |ratio: &dyn Fn(&Column) -> String| first.map_or_else(String::new, ratio);
        let cells = [
            column.label.to_owned(),
            column.version.clone(),
            column.text(2, cpu),
            column.text(0, tps),
            column.text(2, |sample| Some(sample.outcome.p50_ms)),
            column.text(2, p99),
            column.text(1, |sample| sample.rss_mib),
            ratio(&|first| first.ratio(column, cpu)),
            ratio(&|first| first.ratio(column, tps)),
            ratio(&|first| first.ratio(column, p99)),
        ];
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::load::Outcome;
    use super::*;
    use crate::bench::pooler::work;

    fn column(label: &'static str, costs: &[Option<f64>]) -> Column {
        let sample = |&cpu_us: &Option<f64>| Sample {
            outcome: Outcome { processed: 9, measured_s: 5.0, cpu_us, tps: 1000.0, p50_ms: 1.0, p99_ms: 2.0 },
            rss_mib: cpu_us.map(|_| 7.0),
        };
        Column { label, version: "1.0".into(), samples: costs.iter().map(sample).collect() }
    }

    #[test]
    fn the_first_is_set_against_the_others() {
        // The machine was three times slower in round two, for both alike.
        let columns = [
            column("us", &[Some(8.0), Some(24.0), Some(8.0)]),
            column("them", &[Some(10.0), Some(30.0), Some(10.0)]),
            column("direct", &[None, None, None]),
        ];
        let row = work::rows().remove(0);
        let table = render(&row, &Options::FULL, &columns);
        let line = |label: &str| {
            table.lines().find(|line| line.starts_with(&format!("| {label} |"))).expect("its line")
        };
        assert!(
            line("them").contains("| 10.00 (10.00–30.00) |") && line("them").contains("| 0.80 (0.80–0.80) |")
        );
        assert!(line("direct").contains("| – | 1000 (1000–1000) |"), "{table}");
        assert!(line("us").ends_with("|  |  |  |"));
    }
}
