//! `tenfold config schema` and `tenfold config explain PATH`.

use super::{complain, print, print_json};
use crate::cli::{ConfigCommand, Exit};
use crate::config::{explain, schema};

/// Prints what the table of keys says.
#[must_use]
pub fn config(command: &ConfigCommand) -> Exit {
    match command {
        ConfigCommand::Schema => print_json(&schema::schema()),
        ConfigCommand::Explain { path } => match explain::explain(path) {
            Ok(text) => print(&text),
            Err(message) => {
                complain(&format!("error: {message}"));
                Exit::Usage
            }
        },
    }
}
