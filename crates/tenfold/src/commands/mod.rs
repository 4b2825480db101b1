//! One module for each command that is not `run`.

pub mod check;
pub mod config;
pub mod explain;
pub mod import;
pub mod init;
pub mod load;
pub mod purge;
pub mod reload;
pub mod sql;
pub mod status;

use crate::cli::Exit;

/// The one way the commands print what was asked for. A closed pipe (`tenfold status | head`) is not an error.
#[must_use]
pub fn print(text: &str) -> Exit {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(newline.as_bytes()))
        .and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Failed,
        _ => Exit::Fine,
    }
}

/// The one way the commands say what went wrong.
pub fn complain(text: &str) {
    use std::io::Write as _;
    // If stderr is gone there is nobody left to tell.
    let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end());
}

/// JSON for a person or a program.
#[must_use]
pub fn print_json(value: &serde_json::Value) -> Exit {
    print(&serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()))
}
