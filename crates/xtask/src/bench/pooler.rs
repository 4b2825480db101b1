//! `bench pooler`: what a transaction costs through us, through PgBouncer, through the least there could be, and direct.
//!
//! **Intuition.** Absolute figures say more about the machine than about the program, so each stands beside those of the
//! other seats, taken seconds apart with the same kinds of sockets, the same server and the same pgbench.
//!
//! **Mechanism.** One PostgreSQL, all seats running, rows of so many clients doing one kind of transaction. The seats
//! have core 0, PostgreSQL and pgbench the others. The seats take turns for several rounds, each round beginning with
//! another one; medians are printed with their range, ratios are taken within a round. On a machine that others use
//! too, `--together` loads all seats of a row at the same time instead, each by a pgbench of its own: what disturbs
//! one disturbs all, and the ratios hold where turns are too far apart.
//! Before anything is timed each seat has to give the same answers as the server itself, and after each round the
//! server's own count of the statement that marks a transaction has to be pgbench's count of transactions.
//!
//! **Failure.** A wrong answer, a failed transaction or a wrong count ends the run; a benchmark never fails a build.

mod idle;
mod load;
mod login;
mod relay;
mod report;
mod seats;
mod split;
mod work;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tenfold_testkit::postgres::{Auth, Cluster, Install, Options as ClusterOptions};
use tenfold_testkit::process::{Child, Guard};

use super::{Scratch, cost};
use crate::cores;
use load::{Load, Outcome};
use seats::{Place, Seated};
use work::Row;

pub(crate) use idle::{Options as IdleOptions, clients as idle_clients, run as run_idle};
pub(crate) use relay::run as run_relay;
pub(crate) use seats::Seat;
pub(crate) use split::{Options as SplitOptions, run as run_split};

/// Every pooler has this many server connections for all clients.
const POOL_SIZE: u32 = 20;
/// Enough for 1,000 direct clients beside all pools.
const SERVER_CONNECTIONS_MAX: u32 = 1200;
/// Files that 5,000 clients and their pooler need open.
const OPEN_FILES_MIN: u64 = 12_000;
/// Time for the logins of a row, doubled as needed.
const LOGIN_S_MIN: u64 = 1;
const LOGIN_S_MAX: u64 = 64;
/// Less of the wanted time is not enough.
const PART_MEASURED_MIN: f64 = 0.7;
const PREPARE_TIME_MAX: Duration = Duration::from_secs(120);

/// What is measured and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    /// Of one seat in one round.
    pub(crate) seconds: u64,
    /// Names of rows; empty for all.
    pub(crate) rows: Vec<String>,
    /// Empty for all.
    pub(crate) seats: Vec<Seat>,
    /// All seats of a row at the same time.
    pub(crate) is_together: bool,
}

impl Options {
    /// The figures we publish.
    pub(crate) const FULL: Self =
        Self { rounds: 5, seconds: 5, rows: Vec::new(), seats: Vec::new(), is_together: false };

    /// A first look: one row.
    pub(crate) fn short() -> Self {
        Self { rounds: 3, seconds: 4, rows: vec!["simple-500".into()], ..Self::FULL }
    }

    /// Reads a command line; the error says what it doesn't know.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = if words.contains(&"--short") { Self::short() } else { Self::FULL };
        let mut words = words.iter().filter(|word| **word != "--short");
        while let Some(&word) = words.next() {
            if word == "--together" {
                options.is_together = true;
                continue;
            }
            let value = words.next().ok_or_else(|| format!("`{word}` is unknown or lacks its value"))?;
            let number = || value.parse::<u32>().ok().filter(|&number| number > 0);
            let bad = || format!("`{word} {value}` is not understood");
            match word {
                "--rounds" => options.rounds = number().ok_or_else(bad)? as usize,
                "--seconds" => options.seconds = number().ok_or_else(bad)?.into(),
                "--rows" => options.rows = value.split(',').map(str::to_owned).collect(),
                "--seats" => {
                    options.seats =
                        value.split(',').map(Seat::from_name).collect::<Option<_>>().ok_or_else(bad)?;
                }
                _ => return Err(bad()),
            }
        }
        let known = work::rows();
        match options.rows.iter().find(|name| !known.iter().any(|row| row.name() == **name)) {
            None => Ok(options),
            Some(name) => {
                let names: Vec<String> = known.iter().map(Row::name).collect();
                Err(format!("no row `{name}`; there are {}", names.join(", ")))
            }
        }
    }

    fn rows(&self) -> Vec<(Row, Vec<Seat>)> {
        let is_wanted = |row: &Row| self.rows.is_empty() || self.rows.contains(&row.name());
        let wanted = |seat: &Seat| self.seats.is_empty() || self.seats.contains(seat);
        let rows = work::rows().into_iter().filter(is_wanted);
        let with_seats = rows.map(|row| {
            let seats: Vec<Seat> = row.seats.iter().copied().filter(wanted).collect();
            (row, seats)
        });
        with_seats.filter(|(_, seats)| !seats.is_empty()).collect()
    }
}

/// What one seat did in one round.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    outcome: Outcome,
    /// Of the seat, after the round; `None` for a direct run.
    rss_mib: Option<f64>,
}

/// Runs it and prints a table for each row.
pub(crate) fn run(root: &Path, options: &Options) -> Result<ExitCode> {
    let rows = options.rows();
    ensure!(!rows.is_empty(), "no row is left with these seats");
    keep_to_other_cores()?;
    raise_open_files()?;
    let scratch = Scratch::new(root)?;
    let bench = Bench::start(root, &scratch)?;
    let mut seated: Vec<Seated> = Vec::new();
    for seat in Seat::ALL.into_iter().filter(|seat| rows.iter().any(|(_, seats)| seats.contains(seat))) {
        eprintln!("starting {}", seat.label());
        let one = Seated::start(seat, &bench.place(root))?;
        bench.check_answers(&one)?;
        seated.push(one);
    }
    for (row, seats) in &rows {
        let taken: Vec<&Seated> = seated.iter().filter(|one| seats.contains(&one.seat)).collect();
        let samples = bench.measure(row, &taken, options)?;
        let columns = taken.iter().zip(samples).map(|(one, samples)| report::Column::new(one, samples));
        println!("{}", report::render(row, options, &columns.collect::<Vec<_>>()));
    }
    Ok(ExitCode::SUCCESS)
}

/// PostgreSQL and what is needed to load it.
struct Bench {
    cluster: Cluster,
    install: Install,
    /// In memory: logs of latencies, scripts, configurations.
    folder: PathBuf,
}

impl Bench {
    fn start(root: &Path, scratch: &Scratch) -> Result<Self> {
        eprintln!("starting PostgreSQL");
        let settings = [("autovacuum", "off"), ("max_wal_size", "4GB")];
        let cluster = Cluster::start(&ClusterOptions {
            dir: Some(root.join("target")),
            auth: Auth::Trust,
            connections_max: SERVER_CONNECTIONS_MAX,
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            ..ClusterOptions::default()
        })?;
        let bench = Self { cluster, install: Install::find()?, folder: scratch.memory.clone() };
        bench.cluster.psql("CREATE DATABASE bench")?;
        let mut fill = Command::new(bench.pgbench());
        fill.args(["-i", "-q", "-h", "127.0.0.1", "-U", "postgres", "-s", &work::SCALE.to_string()]);
        fill.args(["-p", &bench.port().to_string(), "bench"]);
        Child::run("filling pgbench's tables", &fill, &Guard::default(), PREPARE_TIME_MAX)?;
        for statement in work::tables_sql().split(';') {
            bench.cluster.primary().psql_in("bench", statement)?;
        }
        work::write_scripts(&bench.folder)?;
        Ok(bench)
    }

    fn port(&self) -> u16 {
        self.cluster.primary().port()
    }

    fn pgbench(&self) -> PathBuf {
        self.install.bin.join("pgbench")
    }

    fn place<'a>(&'a self, root: &'a Path) -> Place<'a> {
        Place {
            root,
            folder: &self.folder,
            server: self.port(),
            auth: "trust",
            users: "\"postgres\" \"\"\n",
            size: POOL_SIZE,
            reserve: 0,
        }
    }

    /// The same question to the seat and to the server itself.
    fn check_answers(&self, seated: &Seated) -> Result<()> {
        for sql in [
            "SELECT aid, bid, abalance FROM pgbench_accounts WHERE aid BETWEEN 1 AND 2000 ORDER BY aid",
            "SELECT id, body FROM small_rows ORDER BY id",
            "SELECT id, body FROM big_rows ORDER BY id",
        ] {
            let expected = self.cluster.primary().psql_in("bench", sql)?;
            let got = self
                .ask(seated.port, sql)
                .with_context(|| format!("{}\n{}", seated.seat.label(), seated.log()))?;
            ensure!(got.trim_end() == expected, "{} answers otherwise to {sql}", seated.seat.label());
        }
        Ok(())
    }

    fn ask(&self, port: u16, sql: &str) -> Result<String> {
        let mut psql = Command::new(self.install.bin.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-U", "postgres", "-d", "bench", "-c", sql]);
        psql.args(["-p", &port.to_string()]).env("PGSSLMODE", "disable").env("PGGSSENCMODE", "disable");
        let output = psql.output().context("cannot run psql")?;
        ensure!(output.status.success(), "psql failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn measure(&self, row: &Row, seats: &[&Seated], options: &Options) -> Result<Vec<Vec<Sample>>> {
        let mut samples = vec![Vec::new(); seats.len()];
        let mut login_s = LOGIN_S_MIN;
        for round in 0..options.rounds {
            // Each round starts with another seat, so that none always follows the same neighbour.
            let order = (0..seats.len()).map(|turn| (round + turn) % seats.len()).collect::<Vec<_>>();
            let turns: Vec<&[usize]> =
                if options.is_together { vec![&order] } else { order.chunks(1).collect() };
            for turn in turns {
                let taken: Vec<&Seated> = turn.iter().map(|&index| seats[index]).collect();
                let counted = self.patient(row, &taken, options, &mut login_s)?;
                for (&index, sample) in turn.iter().zip(counted) {
                    let Outcome { cpu_us, tps, p99_ms, .. } = sample.outcome;
                    let cost = cpu_us.map_or_else(String::new, |us| format!("{us:.1} µs, "));
                    let seat = format!(
                        "{} {}/{}: {}",
                        row.name(),
                        round + 1,
                        options.rounds,
                        seats[index].seat.name()
                    );
                    eprintln!("{seat} {cost}{tps:.0}/s, p99 {p99_ms:.1} ms");
                    samples[index].push(sample);
                }
            }
        }
        Ok(samples)
    }

    /// Loads these seats at once; again with more time where the logins left too little of it.
    fn patient(
        &self,
        row: &Row,
        seats: &[&Seated],
        options: &Options,
        login_s: &mut u64,
    ) -> Result<Vec<Sample>> {
        loop {
            let samples = self.counted(row, seats, options, *login_s)?;
            let enough_s = Duration::from_secs(options.seconds).as_secs_f64() * PART_MEASURED_MIN;
            if samples.iter().all(|sample| sample.outcome.measured_s >= enough_s) {
                return Ok(samples);
            }
            *login_s *= 2;
            ensure!(
                *login_s <= LOGIN_S_MAX,
                "{} clients take longer than {LOGIN_S_MAX} s to log in",
                row.clients
            );
            eprintln!("the logins took too long; again with {login_s} s for them");
        }
    }

    /// Loads these seats at once, and holds the server's count against pgbench's.
    fn counted(&self, row: &Row, seats: &[&Seated], options: &Options, login_s: u64) -> Result<Vec<Sample>> {
        let witnessed = format!("query ILIKE '{}'", row.kind.witness());
        let before = self.cluster.query_count_where(&witnessed)?;
        let samples = std::thread::scope(|scope| {
            let runs = seats
                .iter()
                .map(|seated| scope.spawn(move || self.load(row, seated, options.seconds, login_s)));
            let runs: Vec<_> = runs.collect();
            let outcomes = runs.into_iter().map(|run| run.join().expect("a load returns its errors"));
            outcomes.collect::<Result<Vec<Sample>>>()
        })?;
        let seen = self.cluster.query_count_where(&witnessed)? - before;
        let reported: u64 = samples.iter().map(|sample| sample.outcome.processed).sum();
        if seen != reported {
            bail!("pgbench reports {reported} transactions, and PostgreSQL ran {seen}");
        }
        Ok(samples)
    }

    fn load(&self, row: &Row, seated: &Seated, seconds: u64, login_s: u64) -> Result<Sample> {
        let program = self.pgbench();
        let load = Load {
            program: &program,
            port: seated.port,
            clients: row.clients,
            seconds,
            login_s,
            kind: row.kind.arguments(&self.folder),
            folder: &self.folder,
            pid: seated.pid(),
        };
        let outcome = load.run().with_context(|| format!("{}\n{}", seated.seat.label(), seated.log()))?;
        let rss_mib = seated.pid().map(cost::rss_mib).transpose()?;
        Ok(Sample { outcome, rss_mib })
    }
}

/// Core 0 is the seats': this process and all it starts, unless told otherwise, keep off it.
fn keep_to_other_cores() -> Result<()> {
    let is_any_left = cores::keep_off_the_servers()?;
    ensure!(
        is_any_left,
        "a benchmark needs two cores: one for the pooler, one for the clients and PostgreSQL"
    );
    Ok(())
}

/// PgBouncer stops accepting in silence where the limit is the usual 1,024, so it inherits ours.
fn raise_open_files() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("asking for the limit of open files")?;
    ensure!(hard >= OPEN_FILES_MIN, "needs `ulimit -Hn` of {OPEN_FILES_MIN}; it is {hard}");
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising the limit of open files")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::work::Kind;
    use super::*;

    #[test]
    fn a_command_line_chooses_rows_and_seats() {
        let options =
            Options::parse(&["--rows", "simple-32,tpcb-32", "--seats", "tenfold,pgbouncer", "--together"]);
        let options = options.expect("it is right");
        let rows = options.rows();
        assert!(options.is_together && rows.len() == 2);
        assert!(rows.iter().all(|(_, seats)| *seats == [Seat::Tenfold, Seat::Pgbouncer]));
        assert_eq!(Options::parse(&["--short"]).expect("it is right").rows().len(), 1);
        for wrong in
            [&["--rows", "simple-33"][..], &["--seats", "odyssey"], &["--rounds", "0"], &["--rounds"]]
        {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_kind_has_a_row() {
        let kinds = [Kind::Simple, Kind::Extended, Kind::Prepared, Kind::TpcB, Kind::Row1KiB, Kind::Row1MiB];
        assert!(kinds.iter().all(|kind| work::rows().iter().any(|row| row.kind == *kind)));
    }
}
