//! A report as plain text for a terminal.

use std::fmt::Write as _;

use crate::report::{Report, Second};

/// The whole report.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    line(&mut out, format_args!("{}  →  {}", report.scenario, report.targets.join(", ")));
    out
}

/// One second of a run as one line, for live progress.
#[must_use]
pub fn render_second(second: &Second) -> String {
    format!("{:>5} s", second.second)
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a String can't fail");
}
