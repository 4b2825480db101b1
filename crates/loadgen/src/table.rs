//! A report as plain text for a terminal: aligned columns, no colours, 100 columns at most with names of ordinary
//! length. Text from outside (route names, header values, statuses) is shown with control characters replaced, since a
//! server's header must not move the reader's cursor.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::report::{Latency, Report, Second, Verdict};

/// The whole report.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    head(&mut out, report);
    let mut rows = vec![columns()];
    rows.push(row("all", report.offered, report.ok, report.errors, &report.latency));
    for class in &report.classes {
        let name = format!("· {}", class.class.as_str());
        rows.push(row(&name, class.offered, class.ok, class.errors, &class.latency));
    }
    for route in &report.routes {
        let name = format!("{}{}", clean(&route.name), if route.slo_exempt { " (exempt)" } else { "" });
        rows.push(row(&name, route.offered, route.ok, route.errors, &route.latency));
    }
    out.push_str(&align(&rows));
    foot(&mut out, report);
    out
}

/// One second of a run as one line, for live progress.
#[must_use]
pub fn render_second(second: &Second) -> String {
    let Second { second, offered, ok, errors, p50_ms, p99_ms, in_flight } = *second;
    format!(
        "{second:>5} s  offered {offered:>6}  ok {ok:>6}  errors {errors:>5}  p50 {:>8}  p99 {:>8}  in flight {in_flight:>5}",
        milliseconds(p50_ms),
        milliseconds(p99_ms),
    )
}

/// A duration with three significant digits and its unit: `0.85 ms`, `12.3 ms`, `1.85 s`.
#[must_use]
pub fn milliseconds(ms: f64) -> String {
    match ms {
        _ if ms < 9.995 => format!("{ms:.2} ms"),
        _ if ms < 99.95 => format!("{ms:.1} ms"),
        _ if ms < 999.5 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1000.0),
    }
}

fn head(out: &mut String, report: &Report) {
    let targets: Vec<_> = report.targets.iter().map(|target| clean(target)).collect();
    let name = if report.scenario.is_empty() { "load".into() } else { clean(&report.scenario) };
    line(out, format_args!("{name} → {}", targets.join(", ")));
    let stopped = if report.stopped { ", stopped before its end" } else { "" };
    line(
        out,
        format_args!(
            "{:.1} s{stopped}: {} requests offered ({:.1}/s), {} ok ({:.1}/s), {} errors\n",
            report.played_s, report.offered, report.offered_per_s, report.ok, report.ok_per_s, report.errors
        ),
    );
}

fn foot(out: &mut String, report: &Report) {
    out.push('\n');
    if !report.failures.is_empty() {
        line(out, format_args!("errors       {}", counts(&report.failures)));
    }
    line(out, format_args!("statuses     {}", counts(&report.statuses)));
    for (name, values) in &report.headers {
        line(out, format_args!("{:<12} {}", clean(name), counts(values)));
    }
    line(
        out,
        format_args!(
            "connections  {} opened, {} reopened for a closed one; {:.1} MB received",
            report.connections,
            report.reconnects,
            micro(report.received_bytes)
        ),
    );
    line(
        out,
        format_args!(
            "generator    {:.1} µs CPU per request, {:.2} s in all; started late by {} (p99)",
            report.cpu_us_per_request,
            report.cpu_s,
            milliseconds(report.lag.p99_ms)
        ),
    );
    if let Some(verdict) = &report.slo {
        line(out, format_args!("SLO          {}", render_verdict(verdict)));
    }
}

/// An SLO's verdict in one line.
#[must_use]
pub fn render_verdict(verdict: &Verdict) -> String {
    let Verdict { slo, p99_ms, error_ratio, held } = *verdict;
    format!(
        "{}: p99 {} (at most {}), errors {:.3} % (at most {:.3} %)",
        if held { "held" } else { "missed" },
        milliseconds(p99_ms),
        milliseconds(slo.p99_ms),
        error_ratio * 100.0,
        slo.error_ratio * 100.0
    )
}

/// Megabytes of bytes.
#[expect(clippy::cast_precision_loss, reason = "for reading")]
fn micro(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn counts<K: ToString>(counted: &BTreeMap<K, u64>) -> String {
    let mut ranked: Vec<_> = counted.iter().collect();
    ranked.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let texts: Vec<_> = ranked.iter().map(|(key, n)| format!("{} {n}", clean(&key.to_string()))).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

fn columns() -> Vec<String> {
    ["", "offered", "ok", "errors", "p50", "p90", "p99", "p99.9", "p99.99", "max"].map(str::to_owned).to_vec()
}

fn row(name: &str, offered: u64, ok: u64, errors: u64, latency: &Latency) -> Vec<String> {
    let Latency { p50_ms, p90_ms, p99_ms, p999_ms, p9999_ms, max_ms, .. } = *latency;
    let mut cells = vec![name.to_owned(), offered.to_string(), ok.to_string(), errors.to_string()];
    cells.extend([p50_ms, p90_ms, p99_ms, p999_ms, p9999_ms, max_ms].map(milliseconds));
    cells
}

/// Columns as wide as their widest cell: the first to the left, numbers to the right.
fn align(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut text = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            match column {
                0 => write!(text, "{cell}{pad}"),
                _ => write!(text, "  {pad}{cell}"),
            }
            .expect("writing to a String can't fail");
        }
        line(&mut out, format_args!("{}", text.trim_end()));
    }
    out
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a String can't fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_three_digits() {
        for (ms, text) in
            [(0.0, "0.00 ms"), (0.854, "0.85 ms"), (9.999, "10.0 ms"), (123.4, "123 ms"), (1849.9, "1.85 s")]
        {
            assert_eq!(milliseconds(ms), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let rows = [["", "n"], ["a long name", "7"], ["é", "123"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(align(&rows), "               n\na long name    7\né            123\n");
    }

    #[test]
    fn text_from_outside_moves_no_cursor() {
        let counted = BTreeMap::from([("hit\x1b[2J", 3_u64), ("miss", 5)]);
        assert_eq!(counts(&counted), "miss 5, hit\u{fffd}[2J 3");
    }
}
