//! What a maintainer runs: the house rules, the side-by-side benchmarks, the demo.
//!
//! One small program instead of a pile of shell: `cargo xtask tidy` reads the repository and holds the rules a program
//! can hold, `cargo xtask bench` starts us and our peers and compares them, `cargo xtask demo` plays a real flash crowd
//! at a shop twice. The shell scripts of the same names only install what is missing and build. An error ends the
//! process with 1, a wrong command line with 2; whatever was started is stopped first.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program prints")]

mod bench;
mod cores;
mod demo;
mod interrupt;
mod prove;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

use bench::{Bench, Options};

const USAGE: &str = "\
usage: cargo xtask tidy
           the house rules a program can hold, all findings at once
       cargo xtask bench cache-hit|proxy [--short] [--rounds N] [--seconds N] [--connections N] [--rows A,B]
           beside nginx, HAProxy and Varnish; needs a release build (bench/cache-hit and bench/proxy make one)
       cargo xtask bench pooler [--short] [--rounds N] [--seconds N] [--rows A,B] [--seats A,B] [--together]
       cargo xtask bench pooler-idle [--short] [--clients N] [--seats A,B]
           beside PgBouncer, the bare relay and direct; need a release build (bench/pooler and bench/pooler-idle)
       cargo xtask bench pooler-split [--short] [--rounds N] [--seconds N] [--rate N] [--clients N]
           reads on two replicas beside pooling alone: statements left at the primary, CPU a transaction
       cargo xtask bench hit-ratio [--short]
           which requests of two real traces are hits, beside nginx and simulators
       cargo xtask bench codings
           what each content coding costs and saves at each level
       cargo xtask prove failover|drain|restart|hostile|cache-refresh|cache-memory|cache-redis [--short]
       cargo xtask prove pooler-faults|pooler-operations|pooler-fairness|pooler-hostile [--short]
       cargo xtask prove split-routes|split-share|split-edge [--short]
       cargo xtask prove split [--short] [--pairs N] [--scenes paused,delayed,jittering,faults]
                               [--readers same,identity,stranger] [--ignore-floors]
           what is promised on a bad day, with a verdict for each promise (bench/failover and so on build and call it)
       cargo xtask demo [--quick] [--once]
           the shop and the flash crowd; started by ./demo, which installs and builds what it needs";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["tidy"] => tidy::run(&repository()),
        ["demo", options @ ..] => demo_command(options),
        ["prove", "split", options @ ..] => match prove::SplitOptions::parse(options) {
            Ok(options) => prove::run_split(&repository(), &options),
            Err(what) => Ok(usage_error(&what)),
        },
        ["prove", name, options @ ..] => prove_command(name, options),
        ["bench", "pooler", options @ ..] => match bench::pooler::Options::parse(options) {
            Ok(options) => bench::pooler::run(&repository(), &options),
            Err(what) => Ok(usage_error(&what)),
        },
        ["bench", "pooler-idle", options @ ..] => match bench::pooler::IdleOptions::parse(options) {
            Ok(options) => bench::pooler::run_idle(&repository(), &options),
            Err(what) => Ok(usage_error(&what)),
        },
        ["bench", "pooler-split", options @ ..] => match bench::pooler::SplitOptions::parse(options) {
            Ok(options) => bench::pooler::run_split(&repository(), &options),
            Err(what) => Ok(usage_error(&what)),
        },
        ["bench", "codings"] => bench::codings::run(&repository()),
        ["bench", "hit-ratio"] => bench::hit_ratio::run(&repository(), false),
        ["bench", "hit-ratio", "--short"] => bench::hit_ratio::run(&repository(), true),
        ["relay" | "idle-clients" | "floor", ..] => part_of_a_benchmark(&words),
        ["bench", name, options @ ..] => bench_command(name, options),
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

/// The repository: where we are called, as the scripts do; else where this program was built.
fn repository() -> PathBuf {
    if let Ok(here) = std::env::current_dir()
        && here.join("crates/xtask/Cargo.toml").is_file()
    {
        return here;
    }
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.ancestors().nth(2).expect("crates/xtask sits two below the root").to_path_buf()
}

fn bench_command(name: &str, options: &[&str]) -> Result<ExitCode> {
    let Some(bench) = Bench::from_name(name) else {
        return Ok(usage_error(&format!("no benchmark `{name}`")));
    };
    match Options::parse(bench, options) {
        Ok(options) => bench::run(&repository(), bench, &options),
        Err(what) => Ok(usage_error(&what)),
    }
}

/// Processes that a benchmark starts of itself.
fn part_of_a_benchmark(words: &[&str]) -> Result<ExitCode> {
    if let ["floor", way, port] = words
        && let (Some(way), Ok(port)) = (bench::Way::from_name(way), port.parse())
    {
        bench::run_floor(way, port)?;
    }
    let ports: Result<Vec<u16>, _> = words.iter().skip(1).map(|word| word.parse()).collect();
    match (words.first(), ports.as_deref()) {
        (Some(&"relay"), Ok(&[port, server, size])) => bench::pooler::run_relay(port, server, size.into())?,
        (Some(&"idle-clients"), Ok(&[port, orders])) => bench::pooler::idle_clients(port, orders)?,
        _ => return Ok(usage_error("started by a benchmark only")),
    }
    Ok(ExitCode::SUCCESS)
}

fn usage_error(what: &str) -> ExitCode {
    eprintln!("error: {what}\n{USAGE}");
    ExitCode::from(2)
}

fn demo_command(options: &[&str]) -> Result<ExitCode> {
    let mut chosen = demo::Options::default();
    for option in options {
        match *option {
            "--quick" => chosen.quick = true,
            "--once" => chosen.once = true,
            _ => return Ok(usage_error(&format!("unknown option `{option}`"))),
        }
    }
    demo::run(&repository(), chosen)
}

fn prove_command(name: &str, options: &[&str]) -> Result<ExitCode> {
    match (prove::Proof::from_name(name), options) {
        (Some(proof), []) => prove::run(&repository(), proof, false),
        (Some(proof), ["--short"]) => prove::run(&repository(), proof, true),
        (None, _) => Ok(usage_error(&format!("no proof `{name}`"))),
        (_, [option, ..]) => Ok(usage_error(&format!("unknown option `{option}`"))),
    }
}
