//! `tenfold.toml`: from bytes to settings, or to every mistake at once.
//!
//! **Intuition.** Someone fixes a file once, not ten times. So reading goes on after a mistake, and what comes out is
//! either settings nothing downstream can find fault with, or a [`Report`].
//!
//! **Mechanism.** TOML with places and recovery (`toml`), then the walk against the table of keys ([`walk`]), then what
//! only the whole can tell ([`rules`]), then plain structs for the tiers ([`settings`]). Nothing is looked up, opened or
//! connected to; `tenfold check` does that on top.
//!
//! **Failure.** A [`Report`] with lines and carets. Secrets are never in it (see [`diagnostic`]).

pub mod diagnostic;
pub mod env;
pub mod explain;
pub mod forms;
pub mod keys;
pub mod pgurl;
pub mod pooler;
pub mod rules;
pub mod schema;
pub mod settings;
pub mod suggest;
pub mod tree;
pub mod values;
pub mod walk;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::Path;

use tenfold_edge::config::BuildError;
use tenfold_pooler::config::ConfigError;
use toml::de::{DeTable, DeValue};

use diagnostic::{Diagnostic, Report};
use settings::Settings;

/// A configuration file is written by hand; this is more than anyone does.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file that is fine.
#[derive(Debug)]
pub struct Loaded {
    /// What the process is to do.
    pub settings: Settings,
    /// The values with their places, for errors found later and for showing them.
    pub tree: tree::Table,
    file: String,
    source: String,
    secrets: Vec<Range<usize>>,
    /// Worth reading, but in nobody's way.
    pub warnings: Vec<Diagnostic>,
}

impl Loaded {
    /// Diagnostics beside this file's text.
    #[must_use]
    pub fn report(&self, diagnostics: Vec<Diagnostic>) -> Report {
        Report::new(&self.file, &self.source, self.secrets.clone(), diagnostics)
    }

    /// What the edge found wrong, at its place in the file.
    #[must_use]
    pub fn place(&self, errors: &[BuildError]) -> Report {
        self.report(errors.iter().map(|error| self.placed(&error.path, &error.message)).collect())
    }

    /// What the pooler found wrong, at its place in the file.
    #[must_use]
    pub fn place_pooler(&self, errors: &[ConfigError]) -> Report {
        self.report(errors.iter().map(|error| self.placed(&error.path, &error.message)).collect())
    }

    fn placed(&self, path: &str, message: &str) -> Diagnostic {
        match self.tree.span_of(path) {
            Some(span) if !span.is_empty() => Diagnostic::error(span, message, ""),
            _ => Diagnostic::unplaced(format!("{path}: {message}")),
        }
    }
}

/// Reads a file, with variables from the process's environment.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    let file = path.display().to_string();
    let unreadable = |why: String| {
        let message = format!("cannot read {file}: {why}");
        Report::new(&file, "", Vec::new(), vec![Diagnostic::unplaced(message)])
    };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(format!("it is larger than {}", values::size_text(FILE_BYTES_MAX))));
    }
    let source = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    parse(&file, &source, &|name| std::env::var(name).ok())
}

/// Reads a text called `file` in messages.
pub fn parse(file: &str, source: &str, env: env::Lookup<'_>) -> Result<Loaded, Report> {
    let (table, syntax) = DeTable::parse_recoverable(source);
    let mut secrets = Vec::new();
    collect_secrets(table.get_ref(), &mut secrets);
    let mut walk = walk::Walk::new(env);
    let tree = walk.table(keys::ROOT, "", table.get_ref(), &(0..0));
    let mut diagnostics = walk.diagnostics;
    rules::check(&tree, &mut diagnostics);
    let syntax: Vec<_> = syntax.iter().map(|error| syntax_diagnostic(source, error)).collect();
    drop_echoes(source, &syntax, &mut diagnostics);
    diagnostics.extend(syntax);
    let report = Report::new(file, source, secrets, diagnostics);
    if report.errors() > 0 {
        return Err(report);
    }
    Ok(Loaded {
        settings: Settings::from_tree(&tree),
        tree,
        file: report.file,
        source: report.source,
        secrets: report.secrets,
        warnings: report.diagnostics,
    })
}

/// Where the admin server of a file listens, and its token: as much as can be read, whatever else is wrong with it.
#[must_use]
pub fn admin_of(path: &Path) -> (std::net::SocketAddr, Option<String>) {
    let source = std::fs::read_to_string(path).unwrap_or_default();
    let (table, _) = DeTable::parse_recoverable(&source);
    let env = |name: &str| std::env::var(name).ok();
    let mut walk = walk::Walk::new(&env);
    let tree = walk.table(keys::ROOT, "", table.get_ref(), &(0..0));
    let admin = tree.table("admin");
    let text = |key| admin.and_then(|admin| admin.optional_text(key));
    let listen = text("listen").and_then(|listen| listen.parse().ok());
    (listen.unwrap_or(ADMIN_DEFAULT), text("token").map(str::to_owned))
}

/// As in the table of keys; a test holds them together.
const ADMIN_DEFAULT: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9900);

fn syntax_diagnostic(source: &str, error: &toml::de::Error) -> Diagnostic {
    /// What the parser says of a bare word, and of nothing at all, after an equals sign.
    const BARE_WORD: &str = "string values must be quoted";
    let message = error.message().lines().next().unwrap_or("not TOML").to_owned();
    let (message, label) = match message.split_once(", expected ") {
        Some((message, expected)) => (message.to_owned(), format!("expected {expected}")),
        None => (message, String::new()),
    };
    let label = match error.span().map(|span| source.get(span).unwrap_or_default()) {
        Some("") if message == BARE_WORD => "expected a value".to_owned(),
        Some(word) if message == BARE_WORD => format!("did you mean \"{word}\"?"),
        _ => label,
    };
    match error.span() {
        Some(span) => Diagnostic::error(span, message, label),
        None => Diagnostic::unplaced(message),
    }
}

/// A line that is not TOML leaves a hole, and a hole looks like a second mistake: what is said about the same lines, and
/// about keys missing from a table that has such a line, is left out.
fn drop_echoes(source: &str, syntax: &[Diagnostic], diagnostics: &mut Vec<Diagnostic>) {
    let line_of = |d: &Diagnostic| d.span.as_ref().map(|span| line_number(source, span.start));
    let broken: Vec<_> = syntax.iter().filter_map(line_of).collect();
    if broken.is_empty() {
        return;
    }
    let echo = |d: &Diagnostic| match line_of(d) {
        Some(line) => {
            let missing = d.message.starts_with("missing key");
            broken.contains(&line)
                || (missing && broken.iter().any(|&at| section_of(source, at) == section_of(source, line)))
        }
        None => true,
    };
    diagnostics.retain(|d| !echo(d));
}

fn line_number(source: &str, at: usize) -> usize {
    source.as_bytes()[..at.min(source.len())].iter().filter(|&&b| b == b'\n').count()
}

/// The line of the `[header]` a line stands below.
fn section_of(source: &str, line: usize) -> Option<usize> {
    let headers =
        source.lines().enumerate().take(line + 1).filter(|(_, text)| text.trim_start().starts_with('['));
    headers.last().map(|(number, _)| number)
}

/// Names of keys whose strings are secrets, wherever they stand, in this release or a later one.
const SECRET_KEYS: [&str; 8] =
    ["token", "password", "secret", "signing", "url", "primary", "replicas", "secrets"];

fn collect_secrets(table: &DeTable<'_>, out: &mut Vec<Range<usize>>) {
    for (name, value) in table {
        if SECRET_KEYS.contains(&name.get_ref().as_ref()) && !matches!(value.get_ref(), DeValue::Table(_)) {
            out.push(value.span());
            continue;
        }
        collect_secrets_of(value.get_ref(), out);
    }
}

fn collect_secrets_of(value: &DeValue<'_>, out: &mut Vec<Range<usize>>) {
    match value {
        DeValue::Table(table) => collect_secrets(table, out),
        DeValue::Array(array) => array.iter().for_each(|value| collect_secrets_of(value.get_ref(), out)),
        _ => {}
    }
}
