//! A snapshot as OpenMetrics text.
//!
//! **Intuition.** One block per family: what it is, then a line per series.
//!
//! **Mechanism.** The order is the snapshot's, which is sorted, so two scrapes differ only in values. A counter's sample
//! carries `_total`; a histogram's are `_bucket`, `_count` and `_sum`. A family whose name ends in a unit says so.
//!
//! **Failure.** A callback that returns NaN or an infinity is written as OpenMetrics spells it; nothing here fails.

use std::fmt::Write;

use super::{FamilySnapshot, HistogramSnapshot, Kind, SeriesSnapshot, Value};

/// The content type of what [`Registry::render`](super::Registry::render) returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Units that a family's name may end in.
const UNITS: [&str; 3] = ["seconds", "bytes", "ratio"];

pub(super) fn render(families: &[FamilySnapshot]) -> String {
    let mut out = String::new();
    for family in families {
        write_family(&mut out, family).expect("writing to a String does not fail");
    }
    out.push_str("# EOF\n");
    out
}

fn write_family(out: &mut String, family: &FamilySnapshot) -> std::fmt::Result {
    let name = family.name;
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    writeln!(out, "# TYPE {name} {kind}")?;
    let unit = UNITS.iter().find(|unit| name.strip_suffix(**unit).is_some_and(|rest| rest.ends_with('_')));
    if let Some(unit) = unit {
        writeln!(out, "# UNIT {name} {unit}")?;
    }
    write!(out, "# HELP {name} ")?;
    write_escaped(out, family.help);
    out.push('\n');
    family.series.iter().try_for_each(|series| write_series(out, family, series))
}

fn write_series(out: &mut String, family: &FamilySnapshot, series: &SeriesSnapshot) -> std::fmt::Result {
    match &series.value {
        Value::Number(number) => {
            let suffix = if family.kind == Kind::Counter { "_total" } else { "" };
            write_sample(out, family.name, suffix, &series.labels, None, *number)
        }
        Value::Histogram(histogram) => write_histogram(out, family.name, &series.labels, histogram),
    }
}

fn write_histogram(
    out: &mut String,
    name: &str,
    labels: &[(&'static str, String)],
    histogram: &HistogramSnapshot,
) -> std::fmt::Result {
    for (bound_s, count) in &histogram.buckets {
        write_sample(out, name, "_bucket", labels, Some(*bound_s), *count as f64)?;
    }
    write_sample(out, name, "_count", labels, None, histogram.count() as f64)?;
    write_sample(out, name, "_sum", labels, None, histogram.sum_s)
}

fn write_sample(
    out: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(&'static str, String)],
    bound_s: Option<f64>,
    number: f64,
) -> std::fmt::Result {
    write!(out, "{name}{suffix}")?;
    let mut separator = '{';
    for (label, value) in labels {
        write!(out, "{separator}{label}=\"")?;
        write_escaped(out, value);
        out.push('"');
        separator = ',';
    }
    if let Some(bound_s) = bound_s {
        write!(out, "{separator}le=\"")?;
        // `le` is a string to its readers: always with a fraction, so that it is spelled in one way.
        match bound_s.is_infinite() {
            true => out.push_str("+Inf"),
            false => write!(out, "{bound_s:?}")?,
        }
        out.push('"');
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
    out.push(' ');
    write_number(out, number)?;
    out.push('\n');
    Ok(())
}

fn write_number(out: &mut String, number: f64) -> std::fmt::Result {
    if number.is_nan() {
        out.push_str("NaN");
        return Ok(());
    }
    if number.is_infinite() {
        out.push_str(if number > 0.0 { "+Inf" } else { "-Inf" });
        return Ok(());
    }
    write!(out, "{number}")
}

/// A label's value or a help text: backslash, line feed and quote are escaped.
fn write_escaped(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}
