//! What a proof found: a table of measurements, each beside its bar, and whether all were held.

use std::fmt::Write as _;
use std::time::Instant;

use super::stand::now;

/// The rows of one proof, in the order they were measured.
#[derive(Debug)]
pub(crate) struct Verdicts {
    title: String,
    rows: Vec<Row>,
    began: Instant,
}

#[derive(Debug)]
struct Row {
    what: String,
    measured: String,
    /// What was promised and whether it was kept; `None` for a figure that is only shown.
    bar: Option<(String, bool)>,
}

impl Verdicts {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new(), began: now() }
    }

    /// A figure with a promise.
    #[expect(clippy::needless_pass_by_value, reason = "most figures are texts made for the call")]
    pub(crate) fn bar(&mut self, what: &str, measured: impl ToString, bar: &str, held: bool) {
        let measured = measured.to_string();
        let verdict = if held { "held" } else { "MISSED" };
        eprintln!("{:5.1} s  {verdict:6}  {what}: {measured} ({bar})", self.began.elapsed().as_secs_f64());
        self.rows.push(Row { what: what.to_owned(), measured, bar: Some((bar.to_owned(), held)) });
    }

    /// A count that must be zero.
    pub(crate) fn none(&mut self, what: &str, count: u64) {
        self.bar(what, count, "0", count == 0);
    }

    /// A figure that stands for itself.
    #[expect(clippy::needless_pass_by_value, reason = "most figures are texts made for the call")]
    pub(crate) fn note(&mut self, what: &str, measured: impl ToString) {
        let measured = measured.to_string();
        eprintln!("{:5.1} s          {what}: {measured}", self.began.elapsed().as_secs_f64());
        self.rows.push(Row { what: what.to_owned(), measured, bar: None });
    }

    pub(crate) fn all_held(&self) -> bool {
        self.rows.iter().all(|row| row.bar.as_ref().is_none_or(|(_, held)| *held))
    }

    pub(crate) fn print(&self) {
        println!("{}", self.render());
    }

    fn render(&self) -> String {
        let mut out = format!("\n{}\n\n| | measured | bar | |\n|---|---|---|---|\n", self.title);
        for row in &self.rows {
            let (bar, verdict) = match &row.bar {
                None => ("", ""),
                Some((bar, true)) => (bar.as_str(), "held"),
                Some((bar, false)) => (bar.as_str(), "**missed**"),
            };
            let _ = writeln!(out, "| {} | {} | {bar} | {verdict} |", row.what, row.measured);
        }
        let _ = write!(out, "\n{}", if self.all_held() { "every bar held" } else { "NOT every bar held" });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missed_bar_fails_the_proof() {
        let mut verdicts = Verdicts::new("x");
        verdicts.note("shown", 3);
        verdicts.none("a", 0);
        assert!(verdicts.all_held() && verdicts.render().contains("every bar held"));
        verdicts.bar("b", "51 ms", "≤ 50 ms", false);
        assert!(!verdicts.all_held());
        assert!(verdicts.render().contains("| b | 51 ms | ≤ 50 ms | **missed** |"), "{}", verdicts.render());
    }
}
