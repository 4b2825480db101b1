//! `bench pooler-idle`: what a client costs that does nothing, and what it costs to let one in.
//!
//! **Intuition.** Applications hold ten times the connections they use. What each of them costs while idle, and at
//! every reconnect, is what a pooler is for.
//!
//! **Mechanism.** The clients live in another process, which takes orders over a socket: log in so many by SCRAM, one
//! query each, all at once, leave. Memory is the pooler's resident set with the clients, each of which has run a query,
//! less that without. Processor time is read around the logins. While all ask at the same time, PostgreSQL is asked how
//! many connections it has. A second round of logins, after all have left and the seat is at rest, is what repeat logins
//! cost.
//!
//! **Failure.** A refused login, a lost answer or a server connection too many ends the run.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tenfold_pgwire::scram::Verifier;
use tenfold_testkit::postgres::{Auth, Cluster, Options as ClusterOptions};
use tenfold_testkit::process::Child;
use tenfold_testkit::try_wait_for;

use super::login::{Client, Login};
use super::seats::{Place, Seat, Seated};
use super::{Scratch, cost, keep_to_other_cores, raise_open_files};

const USER: &str = "postgres";
const DATABASE: &str = "bench";
const PASSWORD: &str = "correct horse";
/// What PostgreSQL stores by default.
const ITERATIONS: u32 = 4096;
const SIZE: u32 = 20;
const RESERVE: u32 = 5;
/// Connections for ourselves: one that listens and one that watches, per database.
const OWN: usize = 2;
/// Long enough that the last of 10,000 waits longer than the reserve does.
const AT_ONCE_SQL: &str = "SELECT pg_sleep(0.02)";
const COUNT_SQL: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
/// The rest, which listens and watches, never sleeps.
const COUNT_POOL_SQL: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND query LIKE '%pg_sleep%'";
/// How often connections are counted while all clients ask at once.
const COUNT_EVERY: Duration = Duration::from_millis(20);
/// A process is at rest if it takes less than this from one look to the next, so many times.
const REST_CPU_SECONDS: f64 = 0.000_5;
const REST_LOOKS: u32 = 20;
const REST_TIME_MAX: Duration = Duration::from_secs(10);
/// The longest any order to the clients may take.
const ORDER_TIME_MAX: Duration = Duration::from_secs(300);

/// How many clients, through whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    clients: usize,
    seats: Vec<Seat>,
}

impl Options {
    /// Reads a command line; the error says what it doesn't know.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self { clients: 10_000, seats: vec![Seat::Tenfold, Seat::Pgbouncer] };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            if word == "--short" {
                options.clients = 2_000;
                continue;
            }
            let value = words.next().ok_or_else(|| format!("`{word}` is unknown or lacks its value"))?;
            let bad = || format!("`{word} {value}` is not understood");
            match word {
                "--clients" => {
                    options.clients = value.parse().ok().filter(|&count| count > 0).ok_or_else(bad)?;
                }
                "--seats" => {
                    let seats: Option<_> = value.split(',').map(Seat::from_name).collect();
                    options.seats = seats.ok_or_else(bad)?;
                }
                _ => return Err(bad()),
            }
        }
        Ok(options)
    }
}

/// Runs it and prints the table.
pub(crate) fn run(root: &Path, options: &Options) -> Result<ExitCode> {
    keep_to_other_cores()?;
    raise_open_files()?;
    let scratch = Scratch::new(root)?;
    eprintln!("starting PostgreSQL");
    let cluster = Cluster::start(&ClusterOptions {
        dir: Some(root.join("target")),
        auth: Auth::Trust,
        ..ClusterOptions::default()
    })?;
    cluster.psql("CREATE DATABASE bench")?;
    let salt = *b"sixteen bytes of";
    let users = format!("\"{USER}\" \"{}\"\n", Verifier::derive(PASSWORD.as_bytes(), &salt, ITERATIONS));
    let place = Place {
        root,
        folder: &scratch.memory,
        server: cluster.primary().port(),
        auth: "scram-sha-256",
        users: &users,
        size: SIZE,
        reserve: RESERVE,
    };
    println!(
        "{} clients, each logged in by SCRAM-SHA-256 over TCP; size {SIZE}, reserve {RESERVE}\n",
        options.clients
    );
    println!(
        "| | version | RSS KiB/client | RSS MiB without | CPU µs/login | CPU µs/repeat login | CPU µs/query, one by one | server connections, all at once | of these the pool's |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for &seat in &options.seats {
        let seated = Seated::start(seat, &place)?;
        let found = measure(&seated, &cluster, options.clients);
        let found = found.with_context(|| format!("{}\n{}", seat.label(), seated.log()))?;
        println!("{}", found.line(&seated));
    }
    Ok(ExitCode::SUCCESS)
}

/// What was found out about one seat.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Found {
    rss_kib_per_client: f64,
    rss_mib_without: f64,
    login_us: f64,
    repeat_login_us: f64,
    query_us: f64,
    connections_max: usize,
    pool_connections_max: usize,
}

impl Found {
    fn line(&self, seated: &Seated) -> String {
        format!(
            "| {} | {} | {:.2} | {:.1} | {:.0} | {:.0} | {:.0} | {} | {} |",
            seated.seat.label(),
            seated.version,
            self.rss_kib_per_client,
            self.rss_mib_without,
            self.login_us,
            self.repeat_login_us,
            self.query_us,
            self.connections_max,
            self.pool_connections_max,
        )
    }
}

fn measure(seated: &Seated, cluster: &Cluster, clients: usize) -> Result<Found> {
    let pid = seated.pid().context("somebody has to sit there")?;
    let mut crowd = Crowd::start(seated.port)?;
    let many = f64::from(u32::try_from(clients)?);
    // The first client's login opens the first server connection and hashes the password; it is not one of many.
    crowd.order("login 1")?;
    crowd.order("query")?;
    crowd.order("leave")?;
    let rss_mib_without = cost::rss_mib(pid)?;
    let timed = |crowd: &mut Crowd, order: &str| {
        eprintln!("{}: {order}", seated.seat.name());
        rest(pid)?;
        let before = cost::threads_cpu_seconds(pid);
        crowd.order(order).map(|()| (cost::threads_cpu_seconds(pid) - before) * 1e6 / many)
    };
    let log_in = format!("login {clients}");
    let login_us = timed(&mut crowd, &log_in)?;
    let query_us = timed(&mut crowd, "query")?;
    let rss_kib_per_client = (cost::rss_mib(pid)? - rss_mib_without) * 1024.0 / many;
    let (connections_max, pool_connections_max) = crowd.at_once(cluster.primary().port())?;
    crowd.order("leave")?;
    let repeat_login_us = timed(&mut crowd, &log_in)?;
    crowd.order("leave")?;
    let allowed = (SIZE + RESERVE) as usize;
    ensure!(
        pool_connections_max <= allowed,
        "{pool_connections_max} server connections instead of {allowed}"
    );
    let own = if seated.seat == Seat::Pgbouncer { 0 } else { OWN };
    ensure!(
        connections_max <= allowed + own,
        "{connections_max} server connections, {own} of them for ourselves"
    );
    Ok(Found {
        rss_kib_per_client,
        rss_mib_without,
        login_us,
        repeat_login_us,
        query_us,
        connections_max,
        pool_connections_max,
    })
}

/// Waits until a process has nothing left to do, such as closing the connections of those who left.
fn rest(pid: u32) -> Result<()> {
    let (mut before, mut calm) = (cost::threads_cpu_seconds(pid), 0);
    try_wait_for("the seat to rest", REST_TIME_MAX, || {
        let now = cost::threads_cpu_seconds(pid);
        calm = if now - before < REST_CPU_SECONDS { calm + 1 } else { 0 };
        before = now;
        calm >= REST_LOOKS
    })?;
    Ok(())
}

/// The clients' process, as seen from here.
struct Crowd {
    child: Child,
    orders: BufReader<TcpStream>,
}

impl Crowd {
    fn start(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["idle-clients", &port.to_string(), &listener.local_addr()?.port().to_string()]);
        let child = Child::spawn(&command)?;
        let (stream, _) = listener.accept().context("the clients' process")?;
        stream.set_read_timeout(Some(ORDER_TIME_MAX))?;
        Ok(Self { child, orders: BufReader::new(stream) })
    }

    fn send(&mut self, order: &str) -> Result<()> {
        writeln!(self.orders.get_mut(), "{order}").context("giving an order to the clients")
    }

    fn done(&mut self) -> Result<()> {
        let mut answer = String::new();
        let read = self.orders.read_line(&mut answer);
        let log = || self.child.log();
        ensure!(read.with_context(log)? > 0, "the clients' process ended:\n{}", log());
        ensure!(answer.trim() == "done", "{}", answer.trim());
        Ok(())
    }

    fn order(&mut self, order: &str) -> Result<()> {
        self.send(order)?;
        self.done()
    }

    /// All ask at the same time; the most connections that PostgreSQL had meanwhile: all, and the pool's.
    fn at_once(&mut self, server: u16) -> Result<(usize, usize)> {
        let mut watcher = Login::new(USER, DATABASE, PASSWORD)?.connect(server)?;
        let mut count = |sql: &str| -> Result<usize> {
            watcher.ask(sql)?;
            let rows = watcher.answer()?;
            Ok(rows.first().context("a count has a row")?.parse()?)
        };
        self.send("at once")?;
        let (mut all, mut pool) = (0, 0);
        self.orders.get_mut().set_read_timeout(Some(COUNT_EVERY))?;
        loop {
            all = all.max(count(COUNT_SQL)?);
            pool = pool.max(count(COUNT_POOL_SQL)?);
            match self.orders.fill_buf() {
                Ok(_) => break,
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(error) => return Err(error).context("waiting for the clients"),
            }
        }
        self.orders.get_mut().set_read_timeout(Some(ORDER_TIME_MAX))?;
        self.done()?;
        Ok((all, pool))
    }
}

/// The clients' process: does what it is ordered to until the orders end.
pub(crate) fn clients(port: u16, orders: u16) -> Result<()> {
    let mut login = Login::new(USER, DATABASE, PASSWORD)?;
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, orders)).context("asking for orders")?;
    let mut answers = stream.try_clone()?;
    let mut clients: Vec<Client> = Vec::new();
    for order in BufReader::new(stream).lines() {
        let outcome = obey(&order.context("reading an order")?, &mut clients, &mut login, port);
        let answer =
            outcome.map_or_else(|error| format!("{error:#}").replace('\n', " "), |()| "done".to_owned());
        writeln!(answers, "{answer}")?;
    }
    Ok(())
}

fn obey(order: &str, clients: &mut Vec<Client>, login: &mut Login, port: u16) -> Result<()> {
    match order.split_once(' ').unwrap_or((order, "")) {
        ("login", count) => {
            for number in 0..count.parse()? {
                let client = login.connect(port);
                clients.push(client.with_context(|| format!("client {number}"))?);
            }
        }
        ("query", _) => {
            for client in clients.iter_mut() {
                client.ask("SELECT 1")?;
                ensure!(client.answer()? == ["1"], "a wrong answer");
            }
        }
        ("at", "once") => {
            for client in clients.iter_mut() {
                client.ask(AT_ONCE_SQL)?;
            }
            for (number, client) in clients.iter_mut().enumerate() {
                let rows = client.answer().with_context(|| format!("client {number} of all at once"))?;
                ensure!(rows.len() == 1, "a lost answer");
            }
        }
        ("leave", _) => clients.clear(),
        _ => bail!("an unknown order: {order}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_chooses_clients_and_seats() {
        let options = Options::parse(&["--clients", "12", "--seats", "pgbouncer"]).expect("it is right");
        assert_eq!(options, Options { clients: 12, seats: vec![Seat::Pgbouncer] });
        assert_eq!(Options::parse(&["--short"]).expect("it is right").clients, 2_000);
        assert!(Options::parse(&["--clients", "none"]).is_err() && Options::parse(&["--what"]).is_err());
    }
}
