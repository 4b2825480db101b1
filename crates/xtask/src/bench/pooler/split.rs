//! `bench pooler-split`: what reads on replicas spare the primary, and what they cost the pooler.
//!
//! **Intuition.** Ten reads for each write, as applications have it, through Tenfold with two replicas and through the
//! same Tenfold without any. The primary should be left with the writes, and choosing should cost next to nothing.
//!
//! **Mechanism.** One primary, two replicas, both poolers with one worker on core 0, all else on the other cores. pgbench
//! has a set rate, so that both carry the same load; they take turns, each round beginning with the other. The primary
//! counts what it ran (`pg_stat_statements`): statements of the load, and the watching beside it. Ratios are taken within
//! a round, and their median counts.
//!
//! **Failure.** A failed transaction ends the run; a benchmark never fails a build.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tenfold_testkit::postgres::{Cluster, Install, Options as ClusterOptions, Server};
use tenfold_testkit::process::{Child, free_port};
use tenfold_testkit::try_wait_for;

use super::load::{Load, Outcome};
use super::{POOL_SIZE, Scratch, keep_to_other_cores};
use crate::bench::sides::Program;
use crate::bench::table::Spread;

const TABLES: u32 = 12;
const ROWS: u32 = 10_000;
const REPLICAS: usize = 2;
const READS_PER_WRITE: u32 = 10;
const START_TIME_MAX: Duration = Duration::from_secs(20);
/// Until reads arrive at replicas: the catalogue is read, the replicas are known.
const WARM_TIME_MAX: Duration = Duration::from_secs(30);
const LOGIN_S: u64 = 1;

/// What is measured and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    /// Of one side in one round.
    pub(crate) seconds: u64,
    /// Transactions a second.
    pub(crate) rate: u32,
    pub(crate) clients: u32,
}

impl Options {
    /// Reads a command line; the error says what it doesn't know.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self { rounds: 5, seconds: 5, rate: 2_000, clients: 32 };
        if words.contains(&"--short") {
            options.rounds = 3;
            options.seconds = 4;
        }
        let mut words = words.iter().filter(|word| **word != "--short");
        while let Some(&word) = words.next() {
            let value = words.next().ok_or_else(|| format!("`{word}` is unknown or lacks its value"))?;
            let number = value.parse::<u32>().ok().filter(|&number| number > 0);
            let number = number.ok_or_else(|| format!("`{word} {value}` is not understood"))?;
            match word {
                "--rounds" => options.rounds = number as usize,
                "--seconds" => options.seconds = number.into(),
                "--rate" => options.rate = number,
                "--clients" => options.clients = number,
                _ => return Err(format!("`{word}` is unknown")),
            }
        }
        Ok(options)
    }
}

/// What is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    name: &'static str,
    protocol: &'static str,
    tables: u32,
}

const MIXES: [Row; 3] = [
    Row { name: "12 tables, simple", protocol: "simple", tables: TABLES },
    Row { name: "12 tables, prepared", protocol: "prepared", tables: TABLES },
    Row { name: "keys of one table, prepared", protocol: "prepared", tables: 1 },
];

/// One Tenfold.
struct Side {
    name: &'static str,
    port: u16,
    child: Child,
}

/// One side in one round.
struct Sample {
    outcome: Outcome,
    /// Statements of the load that the primary ran, for each transaction.
    at_primary: f64,
    /// Others that the primary ran, a second.
    watching: f64,
}

/// Runs it and prints a table for each mix.
pub(crate) fn run(root: &Path, options: &Options) -> Result<ExitCode> {
    keep_to_other_cores()?;
    let scratch = Scratch::new(root)?;
    let bench = Bench::start(root, &scratch)?;
    let sides = [bench.side(root, "pooling alone", false)?, bench.side(root, "2 replicas", true)?];
    for row in MIXES {
        let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
        for round in 0..options.rounds {
            for turn in 0..2 {
                let index = (round + turn) % 2;
                let sample = bench.measure(&row, &sides[index], options)?;
                eprintln!(
                    "{} {}/{}: {}: {:.1} µs, {:.3} statements at the primary a transaction, {:.0} tps",
                    row.name,
                    round + 1,
                    options.rounds,
                    sides[index].name,
                    sample.outcome.cpu_us.unwrap_or(f64::NAN),
                    sample.at_primary,
                    sample.outcome.tps
                );
                samples[index].push(sample);
            }
        }
        println!("{}", render(&row, options, &samples));
    }
    Ok(ExitCode::SUCCESS)
}

struct Bench {
    cluster: Cluster,
    install: Install,
    folder: PathBuf,
}

impl Bench {
    fn start(root: &Path, scratch: &Scratch) -> Result<Self> {
        eprintln!("starting PostgreSQL with {REPLICAS} replicas");
        let settings = [("autovacuum", "off"), ("max_wal_size", "4GB"), ("synchronous_commit", "on")];
        let cluster = Cluster::start(&ClusterOptions {
            dir: Some(root.join("target")),
            replicas: REPLICAS,
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            ..ClusterOptions::default()
        })?;
        cluster.psql("CREATE DATABASE bench")?;
        let bench = Self { cluster, install: Install::find()?, folder: scratch.memory.clone() };
        for table in 0..TABLES {
            bench.cluster.primary().psql_in("bench", &format!(
                "CREATE TABLE stock_{table} (id int PRIMARY KEY, version bigint NOT NULL) WITH (fillfactor = 50); \
                 INSERT INTO stock_{table} SELECT id, 0 FROM generate_series(1, {ROWS}) AS id"
            ))?;
            for (kind, sql) in [
                ("read", format!("SELECT version FROM stock_{table} WHERE id = :id;")),
                ("write", format!("UPDATE stock_{table} SET version = version + 1 WHERE id = :id;")),
            ] {
                let path = bench.script(kind, table);
                let script = format!("\\set id random(1, {ROWS})\n{sql}\n");
                std::fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        for replica in bench.cluster.replicas() {
            Server::catch_up(replica, bench.cluster.primary())?;
        }
        Ok(bench)
    }

    fn script(&self, kind: &str, table: u32) -> PathBuf {
        self.folder.join(format!("{kind}_{table}.sql"))
    }

    /// Starts a Tenfold on core 0 and waits until it serves, with replicas if it has any.
    fn side(&self, root: &Path, name: &'static str, splits: bool) -> Result<Side> {
        let template = root.join("bench/peers/pooler.tenfold.toml");
        let text = std::fs::read_to_string(&template)
            .with_context(|| format!("cannot read {}", template.display()))?;
        let port = free_port()?;
        let words = [
            ("PORT", port.to_string()),
            ("ADMIN", free_port()?.to_string()),
            ("WORKERS", "1".to_owned()),
            ("AUTH", "trust".to_owned()),
            ("SERVER", self.cluster.primary().port().to_string()),
            ("SIZE", POOL_SIZE.to_string()),
            ("RESERVE", "0".to_owned()),
        ];
        let mut text =
            words.iter().fold(text, |text, (word, value)| text.replace(&format!("@{word}@"), value));
        if splits {
            let replicas = self.cluster.replicas().iter();
            let hosts: Vec<String> =
                replicas.map(|replica| format!("\"127.0.0.1:{}\"", replica.port())).collect();
            text.push_str(&format!("replicas = [{}]\n", hosts.join(", ")));
        }
        let folder = self.folder.join(if splits { "split" } else { "pool" });
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let config = folder.join("tenfold.toml");
        for (file, text) in [(&config, text.as_str()), (&folder.join("users.txt"), "\"postgres\" \"\"\n")] {
            std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(Program::Tenfold.path()?).args(["run", "-c"]).arg(config);
        let mut child = Child::spawn(&command)?;
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        try_wait_for("Tenfold to listen", START_TIME_MAX, || {
            TcpStream::connect(at).is_ok() || child.try_wait().is_some()
        })?;
        if let Some(status) = child.try_wait() {
            bail!("Tenfold ended at its start ({status}):\n{}", child.log());
        }
        let side = Side { name, port, child };
        if splits {
            self.warm(&side)?;
        }
        Ok(side)
    }

    /// Until a read arrives at a replica.
    fn warm(&self, side: &Side) -> Result<()> {
        let psql = self.install.bin.join("psql");
        let counted = "SELECT count(*) FROM pg_stat_statements WHERE query LIKE 'SELECT version FROM stock%'";
        try_wait_for("reads on a replica", WARM_TIME_MAX, || {
            let mut ask = Command::new(&psql);
            ask.args(["-X", "-q", "-h", "127.0.0.1", "-U", "postgres", "-d", "bench", "-c"]);
            ask.arg("SELECT version FROM stock_1 WHERE id = 1").args(["-p", &side.port.to_string()]);
            let asked = ask.output().is_ok_and(|output| output.status.success());
            let arrived = |replica: &Server| replica.psql(counted).is_ok_and(|count| count != "0");
            (asked && self.cluster.replicas().iter().any(arrived)).then_some(())
        })
        .with_context(|| side.child.log())
    }

    fn measure(&self, row: &Row, side: &Side, options: &Options) -> Result<Sample> {
        let program = self.install.bin.join("pgbench");
        let mut kind: Vec<std::ffi::OsString> = Vec::new();
        for table in 0..row.tables {
            for (script, weight) in [("read", READS_PER_WRITE), ("write", 1)] {
                kind.push("-f".into());
                kind.push(format!("{}@{weight}", self.script(script, table).display()).into());
            }
        }
        kind.extend(["-M", row.protocol, "-R"].map(Into::into));
        kind.push(options.rate.to_string().into());
        let load = Load {
            program: &program,
            port: side.port,
            clients: options.clients,
            seconds: options.seconds,
            login_s: LOGIN_S,
            kind,
            folder: &self.folder,
            pid: Some(side.child.pid()),
        };
        self.cluster.forget_queries()?;
        let outcome = load.run().with_context(|| format!("{}\n{}", side.name, side.child.log()))?;
        let of_load = self.cluster.query_count_where("query LIKE '% stock_%'")?;
        let others = self.cluster.query_count()?.saturating_sub(of_load);
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let (of_load, others, processed) = (of_load as f64, others as f64, outcome.processed as f64);
        let seconds = (options.seconds + LOGIN_S + 1) as f64;
        Ok(Sample { outcome, at_primary: of_load / processed, watching: others / seconds })
    }
}

fn render(row: &Row, options: &Options, samples: &[Vec<Sample>; 2]) -> String {
    let spread = |index: usize, of: fn(&Sample) -> f64| Spread::of(samples[index].iter().map(of));
    let ratio = |of: fn(&Sample) -> f64| {
        Spread::of(samples[1].iter().zip(&samples[0]).map(|(split, alone)| of(split) / of(alone)))
    };
    let cpu = |sample: &Sample| sample.outcome.cpu_us.unwrap_or(f64::NAN);
    let line = |what: &str, of: fn(&Sample) -> f64, decimals: usize| {
        let texts = [spread(0, of).text(decimals), spread(1, of).text(decimals), ratio(of).text(2)];
        format!("| {what} | {} |\n", texts.join(" | "))
    };
    let spared = (1.0 - ratio(|sample| sample.at_primary).median) * 100.0;
    let cost = ratio(cpu).median;
    format!(
        "### {}: {} clients, {} transactions a second, {READS_PER_WRITE} reads for each write, {} rounds of {} s\n\n\
         | | pooling alone | {REPLICAS} replicas | ratio |\n|---|---|---|---|\n{}{}{}{}{}\n\
         The primary runs {spared:.0} % fewer statements (wanted: 85 % or more); \
         a transaction costs the pooler {cost:.2}× (wanted: ≤ 1.15).\n",
        row.name,
        options.clients,
        options.rate,
        options.rounds,
        options.seconds,
        line("statements at the primary a transaction", |sample| sample.at_primary, 3),
        line("watching, statements a second", |sample| sample.watching, 0),
        line("CPU µs a transaction", cpu, 2),
        line("p50 ms", |sample| sample.outcome.p50_ms, 2),
        line("p99 ms", |sample| sample.outcome.p99_ms, 2),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_sets_the_measure() {
        let short = Options::parse(&["--short", "--rate", "900"]).expect("it is right");
        assert_eq!((short.rounds, short.rate), (3, 900));
        assert!(Options::parse(&["--rate", "0"]).is_err() && Options::parse(&["--rows"]).is_err());
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let sample = |cpu_us: f64, at_primary: f64| Sample {
            outcome: Outcome {
                processed: 9,
                measured_s: 5.0,
                cpu_us: Some(cpu_us),
                tps: 1.0,
                p50_ms: 1.0,
                p99_ms: 2.0,
            },
            at_primary,
            watching: 3.0,
        };
        // The machine was three times slower in the second round, for both alike.
        let samples =
            [vec![sample(10.0, 1.0), sample(30.0, 1.0)], vec![sample(11.0, 0.1), sample(33.0, 0.1)]];
        let options = Options::parse(&[]).expect("nothing is needed");
        let table = render(&MIXES[0], &options, &samples);
        assert!(table.contains("90 % fewer") && table.contains("costs the pooler 1.10×"), "{table}");
    }
}
