//! `tenfold init`: a commented file to start from.
//!
//! What is written is read back before it is kept, so that the first thing a newcomer sees cannot be a mistake of ours.
//! An existing file is left alone.

use std::io::Write as _;

use super::{complain, print};
use crate::cli::{Exit, Init};
use crate::config;

const TEMPLATE: &str = include_str!("init.toml");

/// Writes the file.
#[must_use]
pub fn init(init: &Init) -> Exit {
    let text = file(&init.node);
    if let Err(report) = config::parse("--node", &text, &|_| None) {
        let first =
            report.diagnostics.first().map(|d| format!("{}: {}", d.message, d.label)).unwrap_or_default();
        complain(&format!("error: {first}"));
        return Exit::Usage;
    }
    let shown = init.path.display();
    let created = std::fs::OpenOptions::new().write(true).create_new(true).open(&init.path);
    match created.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => print(&format!("wrote {shown}; next: tenfold check -c {shown}, tenfold run -c {shown}")),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            complain(&format!("error: {shown} is there already, and was left alone"));
            Exit::Failed
        }
        Err(error) => {
            complain(&format!("error: cannot write {shown}: {error}"));
            Exit::Failed
        }
    }
}

/// The node goes in as a string with its quotes; what JSON escapes, TOML escapes alike.
fn file(node: &str) -> String {
    TEMPLATE.replace("\"127.0.0.1:3000\"", &serde_json::Value::from(node).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_writes_is_a_whole_file() {
        let loaded = config::parse("tenfold.toml", &file("api.internal:3000"), &|_| None);
        let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render(false)));
        assert_eq!(loaded.settings.edge.clusters[0].nodes[0].address, "api.internal:3000");
        assert!(loaded.warnings.is_empty());
    }

    #[test]
    fn what_init_writes_is_also_right_with_its_comments_taken_away() {
        let uncommented = TEMPLATE.replace("\n# > ", "\n");
        let loaded = config::parse("tenfold.toml", &uncommented, &|_| Some("correct-horse-battery".into()));
        loaded.unwrap_or_else(|report| panic!("{}", report.render(false)));
    }

    #[test]
    fn a_node_that_is_none_is_not_written() {
        for node in ["api", "\"\n[evil]", "https://x"] {
            assert!(config::parse("f", &file(node), &|_| None).is_err(), "{node}");
        }
    }
}
