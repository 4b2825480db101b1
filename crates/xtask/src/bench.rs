//! Side-by-side benchmarks: what a request costs us and what it costs our peers, in one run on one machine.
//!
//! Absolute figures say more about the machine than about the program, so every figure stands beside a peer's taken
//! seconds apart. Servers run on core 0, the client and the origin on core 1; every side is warmed, then the sides
//! alternate for several rounds, and the medians are printed with their range. CPU time per request (user and system
//! time of all the server's processes, divided by the requests answered) is the figure to trust on a shared machine.
//! Before anything is timed, every side must have done the same work: same status, same body, cached or fetched as the
//! benchmark says. A round with a failed request ends the run; a benchmark never fails a build.

pub(crate) mod codings;
mod cost;
mod event_loop;
mod floor;
pub(crate) mod hit_ratio;
mod hits;
pub(crate) mod pooler;
mod rows;
mod same_work;
mod server;
mod sides;
mod table;
mod wrk;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::interrupt::on_interrupt;

use rows::{Row, Size};
use server::{SERVER_CORE, Server};
use sides::Side;
use wrk::Asking;

pub(crate) use floor::{Way, run as run_floor};
pub(crate) use table::Spread;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bench {
    /// Answers from the cache: three sizes, many keys, two workers.
    CacheHit,
    /// One answer of 1 KiB, from the origin each time.
    Proxy,
}

impl Bench {
    /// How its scripts and peer configurations are called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CacheHit => "cache-hit",
            Self::Proxy => "proxy",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::CacheHit, Self::Proxy].into_iter().find(|bench| bench.name() == name)
    }
}

/// How long and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) round: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) connections: u32,
    /// How many are many, in the row of many keys.
    pub(crate) keys: u32,
    /// Empty for all.
    pub(crate) rows: Vec<Row>,
}

impl Options {
    /// The figures we publish.
    pub(crate) const FULL: Self = Self {
        rounds: 5,
        round: Duration::from_secs(5),
        warm_up: Duration::from_secs(2),
        connections: 64,
        keys: 1_000_000,
        rows: Vec::new(),
    };

    /// A first look: one round of each, of the smallest answer where no other row is asked for.
    pub(crate) fn short() -> Self {
        Self {
            rounds: 1,
            round: Duration::from_secs(2),
            warm_up: Duration::from_secs(1),
            keys: 50_000,
            rows: vec![Row::Size(Size::SMALL)],
            ..Self::FULL
        }
    }

    /// Reads a command line; the error says what it doesn't know.
    pub(crate) fn parse(bench: Bench, words: &[&str]) -> Result<Self, String> {
        let mut options = if words.contains(&"--short") { Self::short() } else { Self::FULL };
        let mut words = words.iter().filter(|word| **word != "--short");
        while let Some(&word) = words.next() {
            let value = words.next().ok_or_else(|| format!("`{word}` is unknown or lacks its value"))?;
            let number = || value.parse::<u32>().ok().filter(|&number| number > 0);
            let bad = || format!("`{word} {value}` is not understood");
            match word {
                "--rounds" => options.rounds = number().ok_or_else(bad)? as usize,
                "--seconds" => options.round = Duration::from_secs(number().ok_or_else(bad)?.into()),
                "--connections" => options.connections = number().ok_or_else(bad)?,
                "--rows" if bench == Bench::CacheHit => options.rows = Row::parse(value)?,
                _ => return Err(bad()),
            }
        }
        Ok(options)
    }

    fn rows(&self, bench: Bench) -> Vec<Row> {
        match bench {
            Bench::Proxy => vec![Row::Size(Size::SMALL)],
            Bench::CacheHit if self.rows.is_empty() => Row::all(),
            Bench::CacheHit => self.rows.clone(),
        }
    }
}

/// What one side did in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    cpu_us_per_request: f64,
    requests_per_second: f64,
    p99_ms: f64,
    /// Of all the side's processes, after the round.
    rss_mib: f64,
}

/// Runs one benchmark and prints its tables.
pub(crate) fn run(root: &Path, bench: Bench, options: &Options) -> Result<ExitCode> {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        bail!("a benchmark needs two cores: one for the server, one for the client");
    }
    let scratch = Scratch::new(root)?;
    let origin = Server::start_origin(root, &scratch, bench)?;
    let place = Place { root, scratch: &scratch, origin: origin.port() };
    let rows = options.rows(bench);
    let sizes: Vec<Size> =
        rows.iter().filter_map(|row| if let Row::Size(size) = row { Some(*size) } else { None }).collect();
    if !sizes.is_empty() {
        run_sizes(&place, bench, &sizes, options)?;
    }
    if rows.contains(&Row::Keys) {
        hits::run_keys(&place, options)?;
    }
    if rows.contains(&Row::Workers) {
        hits::run_workers(&place, options)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where servers are started.
struct Place<'a> {
    root: &'a Path,
    scratch: &'a Scratch,
    origin: u16,
}

impl Place<'_> {
    fn start(&self, side: Side, cores: &str) -> Result<(Side, Server)> {
        eprintln!("starting {}", side.label());
        let server = Server::start(self.root, self.scratch, &side, self.origin, cores)?;
        Ok((side, server))
    }
}

/// All sides, one after the other, for each size.
fn run_sizes(place: &Place<'_>, bench: Bench, sizes: &[Size], options: &Options) -> Result<()> {
    let sides = Side::all(bench)?.into_iter().map(|side| place.start(side, SERVER_CORE));
    let running = sides.collect::<Result<Vec<_>>>()?;
    for size in sizes {
        for (side, server) in &running {
            same_work::check(bench, side, server.port(), *size)?;
        }
        let asking = Asking::for_path(size.path(), options.connections);
        let rows = compete(&running, options, |_| &asking)?;
        println!("{}", table::render(&format!("{}: {}", bench.name(), size.name), options, &rows));
    }
    Ok(())
}

/// Warms the sides, then loads them in turn.
fn compete<'a>(
    running: &[(Side, Server)],
    options: &Options,
    asking: impl Fn(usize) -> &'a Asking,
) -> Result<Vec<table::Row>> {
    for (index, (side, server)) in running.iter().enumerate() {
        eprintln!("warming {}", side.label());
        wrk::run(server.port(), asking(index), options.warm_up)?;
    }
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); running.len()];
    for round in 0..options.rounds {
        for turn in 0..running.len() {
            // Each round starts with another side, so that none always follows the same neighbour.
            let index = (round + turn) % running.len();
            let (side, server) = &running[index];
            let sample = measure(server, asking(index), options.round).with_context(|| side.label())?;
            let us = sample.cpu_us_per_request;
            eprintln!("round {}/{}: {} {us:.2} µs a request", round + 1, options.rounds, side.label());
            samples[index].push(sample);
        }
    }
    Ok(running.iter().zip(samples).map(|((side, _), samples)| table::Row::new(side, samples)).collect())
}

fn measure(server: &Server, asking: &Asking, length: Duration) -> Result<Sample> {
    let before = server.cpu_seconds();
    let load = wrk::run(server.port(), asking, length)?;
    let spent = server.cpu_seconds() - before;
    Ok(Sample {
        cpu_us_per_request: spent * 1e6 / load.requests,
        requests_per_second: load.requests / load.seconds,
        p99_ms: load.p99.as_secs_f64() * 1e3,
        rss_mib: cost::rss_mib(server.pid())?,
    })
}

/// Where this run keeps its files: configurations and sockets under target/, cache files in memory. Removed on drop.
struct Scratch {
    folder: PathBuf,
    memory: PathBuf,
}

impl Scratch {
    fn new(root: &Path) -> Result<Self> {
        let name = format!("tenfold-bench-{}", std::process::id());
        let folder = root.join("target/bench").join(&name);
        let memory = Path::new("/dev/shm").join(&name);
        let scratch = Self { folder, memory };
        for folder in [&scratch.folder, &scratch.memory] {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let folders = [scratch.folder.clone(), scratch.memory.clone()];
        on_interrupt(move || folders.iter().for_each(|folder| remove(folder)))?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.folder);
        remove(&self.memory);
    }
}

fn remove(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            eprintln!("left behind {}: {error}", folder.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_understood_or_refused() {
        let parse = |bench, words: &[&str]| Options::parse(bench, words);
        assert_eq!(parse(Bench::Proxy, &[]), Ok(Options::FULL));
        let chosen = parse(Bench::CacheHit, &["--short", "--rows", "1MiB,keys", "--seconds", "3"]).unwrap();
        assert_eq!((chosen.round, chosen.keys), (Duration::from_secs(3), Options::short().keys));
        assert_eq!(chosen.rows(Bench::CacheHit).len(), 2);
        assert_eq!(Options::FULL.rows(Bench::CacheHit).len(), 5);
        for words in [["--rounds", "0"], ["--rows", "keys"], ["--what", "1"]] {
            assert!(parse(Bench::Proxy, &words).is_err(), "{words:?}");
        }
        assert!(parse(Bench::CacheHit, &["--rows"]).is_err());
    }
}
