//! The house rules that a program can hold, read off the repository itself.
//!
//! A rule that nobody checks is a wish. So each rule here is a plain function from text to findings, tested on a planted
//! bad example, and the whole runs with `cargo test`: `rust` reads source files (length, headers, `unsafe`, …), `crates`
//! the manifests and the dependency tree, `pages` the prose. Every finding is printed with its file and line, all at
//! once. A file that can't be read is an error of the run, not a finding.

mod crates;
mod pages;
mod rust;
mod strip;
mod walk;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

/// One broken rule at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Relative to the repository's root, with `/`.
    pub(crate) path: String,
    /// From 1; 1 as well where the whole file is meant.
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Checks the repository at `root` and prints what it finds; the exit code says whether it found anything.
pub(crate) fn run(root: &Path) -> Result<ExitCode> {
    let findings = check(root)?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("tidy: {} findings", findings.len());
    Ok(ExitCode::FAILURE)
}

fn check(root: &Path) -> Result<Vec<Finding>> {
    let files = walk::text_files(root)?;
    let architecture = files.iter().find(|file| file.path == "ARCHITECTURE.md").map_or("", |file| &file.text);
    let mut findings = Vec::new();
    for file in &files {
        if file.path.ends_with(".rs") {
            findings.extend(rust::check(&file.path, &file.text, architecture));
        }
        findings.extend(pages::check_any(&file.path, &file.text));
    }
    findings.extend(pages::check_set(&files));
    findings.extend(crates::check(&files, architecture)?);
    findings.extend(crates::check_tree(root)?);
    findings.sort();
    Ok(findings)
}
