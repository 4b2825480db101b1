//! `tenfold import pgbouncer.ini`: the equivalent `tenfold.toml`, and what could not be carried.
//!
//! **Intuition.** Someone who runs PgBouncer should see in a minute what would change. So the printed file is whole, is
//! accepted by `tenfold check`, and says of each setting that has no equivalent why, and what to do.
//!
//! **Mechanism.** [`ini`] reads the file with what it includes, [`pgbouncer`] knows every setting by name, [`targets`]
//! puts together what takes several, [`document`] prints. The TOML goes to stdout with the gaps as comments; the gaps
//! also go to stderr.
//!
//! **Failure.** A file that PgBouncer would not read either is an error. What is printed is read back before it is
//! printed; a mistake in it is said on stderr, with exit code 1.

mod document;
mod ini;
mod pgbouncer;
mod targets;

use std::path::Path;

use super::{complain, print};
use crate::cli::{Exit, Import};
use crate::config;

/// Prints the file.
#[must_use]
pub fn import(import: &Import) -> Exit {
    let translated = match translate(&import.path) {
        Ok(translated) => translated,
        Err(message) => {
            complain(&format!("error: {message}"));
            return Exit::Usage;
        }
    };
    let (document, toml) = translated;
    for gap in &document.gaps {
        complain(&format!("not carried: {gap}"));
    }
    let printed = print(&toml);
    match config::parse("the printed file", &toml, &|_| None) {
        Ok(_) => printed,
        Err(report) => {
            complain(&report.render(false));
            Exit::Failed
        }
    }
}

/// Reads a file and makes its equivalent.
fn translate(path: &Path) -> Result<(document::Document, String), String> {
    let entries = ini::read(path)?;
    let document = pgbouncer::translate(&entries);
    let toml = document.render(&path.display().to_string());
    Ok((document, toml))
}
