//! One mistake in a file, and how it is shown.
//!
//! **Intuition.** Someone reads this at three in the morning: what is wrong, where, and what was probably meant, in the
//! shape compilers have taught everyone to read.
//!
//! **Mechanism.** A [`Diagnostic`] holds a span of the source; [`Report`] sorts them by place and draws the line with a
//! caret below. Columns count characters, as editors do.
//!
//! **Failure.** The line drawn may hold a secret, so whatever stands in a secret's place is starred out first. After a
//! syntax error the places of secrets are not known; there, whatever follows a secret-sounding name is starred out.

use std::fmt::Write as _;
use std::ops::Range;

/// A mistake, or something to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether it stops the file from being used.
    pub severity: Severity,
    /// Bytes of the source; `None` where it concerns no particular line.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// What was expected or meant; drawn beside the caret.
    pub label: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// It can, but this is worth reading.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(span: Range<usize>, message: impl Into<String>, label: impl Into<String>) -> Self {
        Self { severity: Severity::Error, span: Some(span), message: message.into(), label: label.into() }
    }

    /// An error of the whole file.
    pub fn unplaced(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, span: None, message: message.into(), label: String::new() }
    }

    /// Something worth reading, at a place.
    pub fn warning(span: Range<usize>, message: impl Into<String>, label: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message, label) }
    }
}

/// Diagnostics beside the source they speak of.
#[derive(Clone, Debug)]
pub struct Report {
    /// How the file is called in messages.
    pub file: String,
    /// Its text.
    pub source: String,
    /// Places of the source that are never shown.
    pub secrets: Vec<Range<usize>>,
    /// In the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Names after which, on a line that could not be parsed, nothing is shown.
const SECRET_WORDS: [&str; 6] = ["token", "password", "secret", "signing", "primary", "replicas"];
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const BLUE: &str = "\x1b[1;34m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

impl Report {
    /// Sorts by place, errors before warnings where they share one.
    #[must_use]
    pub fn new(
        file: &str,
        source: &str,
        secrets: Vec<Range<usize>>,
        mut diagnostics: Vec<Diagnostic>,
    ) -> Self {
        diagnostics.sort_by_key(|d| d.span.as_ref().map_or(usize::MAX, |span| span.start));
        Self { file: file.to_owned(), source: source.to_owned(), secrets, diagnostics }
    }

    /// How many of them stop the file from being used.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count()
    }

    /// For a terminal or a log.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let mut out = String::new();
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            self.render_one(&mut out, diagnostic, color);
        }
        out
    }

    /// For a machine: an array of objects.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let one = |d: &Diagnostic| {
            let place = d.span.as_ref().map(|span| Place::of(&self.source, span));
            serde_json::json!({
                "severity": d.severity.as_str(),
                "message": d.message,
                "label": d.label,
                "file": self.file,
                "line": place.as_ref().map(|p| p.line),
                "column": place.as_ref().map(|p| p.column),
            })
        };
        self.diagnostics.iter().map(one).collect()
    }

    fn render_one(&self, out: &mut String, diagnostic: &Diagnostic, color: bool) {
        let paint = |style: &'static str| if color { style } else { "" };
        let tone = paint(if diagnostic.severity == Severity::Error { RED } else { YELLOW });
        let (blue, bold, plain) = (paint(BLUE), paint(BOLD), paint(PLAIN));
        let severity = diagnostic.severity.as_str();
        let message = &diagnostic.message;
        let _ = writeln!(out, "{tone}{severity}{plain}{bold}: {message}{plain}");
        let Some(span) = &diagnostic.span else {
            let _ = writeln!(out, "  {blue}-->{plain} {}", self.file);
            return;
        };
        let place = Place::of(&self.source, span);
        let number = place.line.to_string();
        let pad = " ".repeat(number.len());
        let _ = writeln!(out, "{pad}{blue}-->{plain} {}:{}:{}", self.file, place.line, place.column);
        let _ = writeln!(out, "{pad} {blue}|{plain}");
        let _ = writeln!(out, "{blue}{number} |{plain} {}", self.shown_line(&place).trim_end());
        let indent = " ".repeat(place.column - 1);
        let caret = "^".repeat(place.width);
        let line = format!("{pad} {blue}|{plain} {indent}{tone}{caret} {}{plain}", diagnostic.label);
        let _ = writeln!(out, "{}", line.trim_end());
    }

    /// The line with its tabs as spaces (so that the caret stands below) and its secrets starred out.
    fn shown_line(&self, place: &Place) -> String {
        let line = &self.source[place.bytes.clone()];
        let mut hidden = self.secrets.clone();
        if let Some(after) = secret_word(line) {
            hidden.push(place.bytes.start + after..place.bytes.end);
        }
        let shown = |(at, c): (usize, char)| {
            let at = place.bytes.start + at;
            match c {
                _ if hidden.iter().any(|range| range.contains(&at)) => '*',
                c if c.is_control() => ' ',
                c => c,
            }
        };
        line.char_indices().map(shown).collect()
    }
}

/// Where in a line that names a secret its value starts.
fn secret_word(line: &str) -> Option<usize> {
    let equals = line.find('=')?;
    let named = line[..equals].to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| named.contains(word)).then_some(equals + 1)
}

/// A span as a person counts: from 1, in characters; of several lines only the first.
struct Place {
    line: usize,
    column: usize,
    width: usize,
    /// The line's bytes, without its end.
    bytes: Range<usize>,
}

impl Place {
    fn of(source: &str, span: &Range<usize>) -> Self {
        let start = floor_boundary(source, span.start);
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[start..].find('\n').map_or(source.len(), |at| start + at);
        let end = floor_boundary(source, span.end).clamp(start, line_end);
        Self {
            line: source[..start].matches('\n').count() + 1,
            column: source[line_start..start].chars().count() + 1,
            width: source[start..end].chars().count().max(1),
            bytes: line_start..line_end,
        }
    }
}

fn floor_boundary(source: &str, at: usize) -> usize {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "[cluster.api]\nnodes = []\nbalance = \"least_connection\"\nadmin = { token = \"hunter2\", listen = 1 }\n";

    fn report(span: Range<usize>, secrets: Vec<Range<usize>>) -> String {
        let diagnostic = Diagnostic::error(
            span,
            "unknown balance \"least_connection\"",
            "did you mean \"least_connections\"?",
        );
        Report::new("tenfold.toml", SOURCE, secrets, vec![diagnostic]).render(false)
    }

    #[test]
    fn a_mistake_is_drawn_below_its_line() {
        let expected = r#"error: unknown balance "least_connection"
 --> tenfold.toml:3:11
  |
3 | balance = "least_connection"
  |           ^^^^^^^^^^^^^^^^^^ did you mean "least_connections"?
"#;
        assert_eq!(report(35..53, Vec::new()), expected);
    }

    #[test]
    fn a_secret_on_the_same_line_is_starred_out() {
        let secret = SOURCE.find("\"hunter2\"").expect("planted");
        let listen = SOURCE.find("= 1").expect("planted") + 2;
        let shown = report(listen..listen + 1, std::iter::once(secret..secret + 9).collect());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("token = *********, listen = 1"), "{shown}");
    }

    #[test]
    fn a_line_that_does_not_parse_shows_nothing_after_a_secrets_name() {
        let source = "token = \"hunter2\n";
        let shown =
            Report::new("f", source, Vec::new(), vec![Diagnostic::error(8..9, "m", "l")]).render(false);
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_span_beyond_the_end_or_inside_a_character_is_still_drawn() {
        for span in [0..1, 1..2, 2..3, 0..900, 800..900] {
            let report = Report::new("f", "é\n", Vec::new(), vec![Diagnostic::error(span, "m", "l")]);
            assert!(report.render(true).contains("error"));
        }
    }
}
