//! What a maintainer runs: the house rules, the side-by-side benchmarks, the demo.
//!
//! One small program instead of a pile of shell: `cargo xtask tidy` reads the repository and holds the rules a program
//! can hold, `cargo xtask bench` starts us and our peers and compares them, `cargo xtask demo` plays a real flash crowd
//! at a shop twice. The shell scripts of the same names only install what is missing and build. An error ends the
//! process with 1, a wrong command line with 2; whatever was started is stopped first.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program prints")]

mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask tidy
           the house rules a program can hold, all findings at once";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["tidy"] => tidy::run(&repository()),
        ["-h" | "--help" | "help"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository this program was built from.
fn repository() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.ancestors().nth(2).expect("crates/xtask sits two below the root").to_path_buf()
}
