//! Side-by-side benchmarks: what a request costs us and what it costs our peers, in one run on one machine.
//!
//! Absolute figures say more about the machine than about the program, so every figure stands beside a peer's taken
//! seconds apart. Servers run on core 0, the client and the origin on core 1; every side is warmed, then the sides
//! alternate for several rounds, and the medians are printed with their range. CPU time per request (user and system
//! time of all the server's processes, divided by the requests answered) is the figure to trust on a shared machine.
//! Before anything is timed, every side must have done the same work: same status, same body, cached or fetched as the
//! benchmark says. A round with a failed request ends the run; a benchmark never fails a build.

mod cost;
pub(crate) mod hit_ratio;
pub(crate) mod pooler;
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

use server::Server;
use sides::Side;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bench {
    /// One answer of 1 KiB, from the cache.
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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) round: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) connections: u32,
}

impl Options {
    /// The figures we publish.
    pub(crate) const FULL: Self =
        Self { rounds: 5, round: Duration::from_secs(5), warm_up: Duration::from_secs(2), connections: 64 };
    /// A first look: one round of each.
    pub(crate) const SHORT: Self =
        Self { rounds: 1, round: Duration::from_secs(2), warm_up: Duration::from_secs(1), connections: 64 };
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

/// Runs one benchmark and prints its table.
pub(crate) fn run(root: &Path, bench: Bench, options: Options) -> Result<ExitCode> {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        bail!("a benchmark needs two cores: one for the server, one for the client");
    }
    let scratch = Scratch::new(root)?;
    let origin = Server::start_origin(root, &scratch, bench)?;
    let mut running = Vec::new();
    for side in Side::all(bench)? {
        eprintln!("starting {}", side.label());
        let server = Server::start(root, &scratch, &side, origin.port())?;
        same_work::check(bench, &side, server.port())?;
        running.push((side, server));
    }
    for (side, server) in &running {
        eprintln!("warming {}", side.label());
        wrk::run(server.port(), options.connections, options.warm_up)?;
    }
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); running.len()];
    for round in 0..options.rounds {
        for turn in 0..running.len() {
            // Each round starts with another side, so that none always follows the same neighbour.
            let index = (round + turn) % running.len();
            let (side, server) = &running[index];
            let sample = measure(server, options).with_context(|| side.label())?;
            let us = sample.cpu_us_per_request;
            eprintln!("round {}/{}: {} {us:.2} µs a request", round + 1, options.rounds, side.label());
            samples[index].push(sample);
        }
    }
    let rows = running.iter().zip(samples).map(|((side, _), samples)| table::Row::new(side, samples));
    println!("{}", table::render(bench, options, &rows.collect::<Vec<_>>()));
    Ok(ExitCode::SUCCESS)
}

fn measure(server: &Server, options: Options) -> Result<Sample> {
    let before = server.cpu_seconds();
    let load = wrk::run(server.port(), options.connections, options.round)?;
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
