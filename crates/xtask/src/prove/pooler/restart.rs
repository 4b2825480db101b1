//! Online restarts: one new process after the other takes over, under load of every kind, and nobody notices.
//!
//! The judges: `pgbench` by simple queries and by prepared statements, which gives up at the first lost connection;
//! clients that set something once and check it in each transaction; one that listens, to numbers sent to it; HTTP clients
//! on kept connections; and a look at the server's own list of connections, which must never be longer than the pool.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::scope;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use tenfold_testkit::postgres::{Cluster, Install, Options};
use tenfold_testkit::process::find_program;
use tenfold_testkit::{Answer as HttpAnswer, Origin};

use super::super::stand::{Scratch, Tenfold, free_address, now, pause};
use super::super::steady::Steady;
use super::super::verdict::Verdicts;
use super::session::{Answer, Lost, Session};

const RESTARTS: usize = 5;
const POOL: usize = 10;
/// Notifications that were not heard once, shown at most.
const SHOWN_MAX: usize = 10;
const STATEFUL: usize = 16;
const HTTP: usize = 16;
const LIMIT: Duration = Duration::from_secs(60);

/// What everybody plays on.
struct Stage {
    pooler: SocketAddr,
    server: SocketAddr,
    stop: AtomicBool,
    /// Somebody listens for notifications.
    listens: AtomicBool,
    /// Server connections that worked for somebody, at most.
    connections: AtomicUsize,
}

pub(crate) fn prove(scratch: &Scratch, short: bool) -> Result<Verdicts> {
    let between = Duration::from_millis(if short { 500 } else { 3_000 });
    let mut verdicts = Verdicts::new(format!("restart: {RESTARTS} online restarts in a row, under load"));
    let cluster = Cluster::start(&Options::default())?;
    let node = Origin::serve(|_| HttpAnswer::ok(vec![b'x'; 2_000]).cache_control("no-store"))?;
    let stage = Stage {
        pooler: free_address()?,
        server: SocketAddr::from(([127, 0, 0, 1], cluster.primary().port())),
        stop: AtomicBool::new(false),
        listens: AtomicBool::new(false),
        connections: AtomicUsize::new(0),
    };
    pgbench(stage.server, &["-i", "-q"])?;
    let mut tenfold = Tenfold::start(scratch, &file(scratch, &stage, &node))?;
    let http = Steady::start(tenfold.edge, HTTP);
    let seconds = (between.as_secs() + 2) * RESTARTS as u64 + 5;
    let (seconds, stage) = (seconds.to_string(), &stage);
    scope(|threads| -> Result<()> {
        let simple = threads.spawn(|| pgbench(stage.pooler, &["-n", "-S", "-c", "8", "-T", &seconds]));
        let prepared =
            threads.spawn(|| pgbench(stage.pooler, &["-n", "-M", "prepared", "-c", "8", "-T", &seconds]));
        let stateful: Vec<_> =
            (0..STATEFUL).map(|index| threads.spawn(move || remember(stage, index))).collect();
        let listener = threads.spawn(|| listen(stage));
        let notifier = threads.spawn(|| notify(stage));
        let watcher = threads.spawn(|| watch(stage));
        let restarted = restart(&mut tenfold, between, &mut verdicts);
        let runs = [("simple queries", simple), ("prepared statements", prepared)];
        for (what, run) in runs {
            let (failed, held) = match run.join().map_err(|_| anyhow!("a thread panicked"))? {
                Ok(report) => (report, true),
                Err(error) => (error.to_string(), false),
            };
            verdicts.bar(
                &format!("pgbench, {what}"),
                failed,
                "no failed transaction, no lost connection",
                held,
            );
        }
        stage.stop.store(true, Ordering::Relaxed);
        let remembered =
            stateful.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("panicked".into())));
        told(&remembered.collect::<Vec<_>>(), &mut verdicts);
        let sent =
            notifier.join().map_err(|_| anyhow!("a thread panicked"))?.map_err(|error| anyhow!(error))?;
        let heard = listener.join().map_err(|_| anyhow!("a thread panicked"))?;
        let is_all = heard.as_ref().is_ok_and(|heard| heard.iter().copied().eq(0..sent));
        let heard = heard.map_or_else(|error| error, |heard| in_words(&heard, sent));
        verdicts.bar("notifications heard by a client that listens", heard, "each once, in order", is_all);
        watcher.join().map_err(|_| anyhow!("a thread panicked"))?.map_err(|error| anyhow!(error))?;
        restarted
    })?;
    let most = stage.connections.load(Ordering::Relaxed);
    verdicts.bar("server connections at work, at most", most, &format!("{POOL}"), most <= POOL && most > 0);
    let seen = http.finish()?;
    let failed = seen.failed + seen.lost_in_queue + seen.refused;
    let shown = format!("{failed} of {} {}", failed + seen.answered, seen.examples.join("; "));
    verdicts.bar("HTTP requests that failed", shown, "0", failed == 0);
    Ok(verdicts)
}

fn file(scratch: &Scratch, stage: &Stage, node: &Origin) -> String {
    format!(
        "admin.handover = \"{}\"\npooler = {{ listen = \"{}\", auth = \"trust\" }}\n\
         [database.postgres]\nprimary = \"postgres://postgres@{}/postgres\"\npassword = \"unused\"\n\
         pool = {{ size = {POOL}, reserve = 0, query_wait = \"60s\" }}\n\
         [cluster.api]\nnodes = [\"{}\"]\n[[route]]\nname = \"all\"\npath = \"/{{*rest}}\"\nto = \"api\"\n",
        scratch.file("door.sock").display(),
        stage.pooler,
        stage.server,
        node.addr(),
    )
}

/// Runs `pgbench` to its end; what it says of failures. An error if there was one.
fn pgbench(to: SocketAddr, arguments: &[&str]) -> Result<String> {
    let own = Install::find()?.bin.join("pgbench");
    let program =
        if own.is_file() { own } else { find_program("pgbench").context("no `pgbench` in PATH")? };
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    let mut command = Command::new(program);
    command.args(["-h", &host, "-p", &port, "-U", "postgres"]).args(arguments).arg("postgres");
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{}", text.trim());
    }
    let wanted = |line: &&str| line.contains("actually processed") || line.contains("failed transactions");
    let lines: Vec<_> = text.lines().filter(wanted).map(str::trim).collect();
    let report = lines.join("; ").replace("number of ", "");
    if report.contains("failed transactions") && !report.contains("failed transactions: 0 ") {
        bail!("{report}");
    }
    Ok(report)
}

fn restart(tenfold: &mut Tenfold, between: Duration, verdicts: &mut Verdicts) -> Result<()> {
    let (mut taken_over, mut slowest) = (0, Duration::ZERO);
    for _ in 0..RESTARTS {
        pause(between);
        let began = now();
        let mut old = tenfold.take_over()?;
        let status = old.wait(LIMIT)?;
        slowest = slowest.max(began.elapsed());
        let taken = tenfold.metric("tenfold_pooler_clients_taken_over_total")?;
        taken_over += usize::from(status.success() && taken > 0.0);
    }
    let all = RESTARTS.to_string();
    verdicts.bar("restarts that took clients over", taken_over, &all, taken_over == RESTARTS);
    verdicts
        .note("slowest, start of the new to the end of the old", format!("{:.2} s", slowest.as_secs_f64()));
    Ok(())
}

fn told(clients: &[Result<(u64, Duration), String>], verdicts: &mut Verdicts) {
    let failed: Vec<_> = clients.iter().filter_map(|client| client.as_ref().err().cloned()).collect();
    let played = clients.iter().flatten();
    let (done, slowest) =
        played.fold((0, Duration::ZERO), |(sum, most), (done, slowest)| (sum + done, most.max(*slowest)));
    let shown = format!("{} of {STATEFUL} clients, {done} rounds {}", failed.len(), failed.join("; "));
    verdicts.bar(
        "sessions that lost a setting, a statement or their connection",
        shown,
        "0",
        failed.is_empty() && done > 0,
    );
    verdicts.note("their slowest round of five statements", format!("{} ms", slowest.as_millis()));
}

fn ask(session: &mut Session, sql: &str) -> Result<Answer, String> {
    let answer = session.query(sql).map_err(|lost: Lost| format!("{sql}: {lost:?}"))?;
    match &answer.error {
        None => Ok(answer),
        Some(error) => Err(format!("{sql}: {error:?}")),
    }
}

fn connect(to: SocketAddr) -> Result<Session, String> {
    let mut session = Session::connect(to).map_err(|lost| format!("connect: {lost:?}"))?;
    ask(&mut session, "SET application_name = 'prove'")?;
    Ok(session)
}

/// Sets something once, and checks it in each round; how many, and the slowest.
fn remember(stage: &Stage, index: usize) -> Result<(u64, Duration), String> {
    let mut session = connect(stage.pooler)?;
    ask(&mut session, &format!("SET app.mine = '{index}'"))?;
    ask(&mut session, &format!("PREPARE mine AS SELECT {index}"))?;
    let (mut done, mut slowest) = (0, Duration::ZERO);
    while !stage.stop.load(Ordering::Relaxed) {
        let began = now();
        for sql in ["SELECT current_setting('app.mine')", "EXECUTE mine"] {
            let rows = ask(&mut session, sql)?.rows;
            if rows != [index.to_string()] {
                return Err(format!("client {index}: {sql}: {rows:?}"));
            }
        }
        for sql in ["BEGIN", "SET LOCAL app.mine = 'another'", "COMMIT"] {
            ask(&mut session, sql)?;
        }
        slowest = slowest.max(began.elapsed());
        done += 1;
        pause(Duration::from_millis(u64::try_from(index).unwrap_or(0)));
    }
    Ok((done, slowest))
}

fn listen(stage: &Stage) -> Result<Vec<u64>, String> {
    let mut session = connect(stage.pooler)?;
    ask(&mut session, "LISTEN prove")?;
    stage.listens.store(true, Ordering::Relaxed);
    // The last ones may be on their way when nobody sends any more.
    let mut rounds_after = 50;
    while rounds_after > 0 {
        ask(&mut session, "SELECT 1")?;
        pause(Duration::from_millis(20));
        rounds_after -= u32::from(stage.stop.load(Ordering::Relaxed));
    }
    session.heard.iter().map(|text| text.parse().map_err(|_| format!("heard {text:?}"))).collect()
}

/// Which of the numbers below `sent` were not heard once.
fn in_words(heard: &[u64], sent: u64) -> String {
    let mut times = vec![0_u32; usize::try_from(sent).unwrap_or(0)];
    for number in heard.iter().filter_map(|&number| usize::try_from(number).ok()) {
        if let Some(times) = times.get_mut(number) {
            *times += 1;
        }
    }
    let of = |is: fn(u32) -> bool| {
        let all: Vec<_> = (0..times.len()).filter(|&number| is(times[number])).collect();
        format!("{} {:?}", all.len(), &all[..all.len().min(SHOWN_MAX)])
    };
    let unordered = heard.windows(2).filter(|pair| pair[1] < pair[0]).count();
    let (never, often) = (of(|times| times == 0), of(|times| times > 1));
    format!("{} of {sent}; never {never}, more than once {often}, out of order {unordered}", heard.len())
}

/// Sends numbers from the moment when somebody listens; how many.
fn notify(stage: &Stage) -> Result<u64, String> {
    // Without the name by which the pooler's connections are known.
    let mut session = Session::connect(stage.server).map_err(|lost| format!("connect: {lost:?}"))?;
    while !stage.listens.load(Ordering::Relaxed) {
        pause(Duration::from_millis(5));
    }
    let mut sent = 0;
    while !stage.stop.load(Ordering::Relaxed) {
        ask(&mut session, &format!("NOTIFY prove, '{sent}'"))?;
        sent += 1;
        pause(Duration::from_millis(2));
    }
    Ok(sent)
}

/// Looks how many connections to the server have worked for a client of the pooler, and are open at our end: the server
/// lists one a moment longer.
fn watch(stage: &Stage) -> Result<(), String> {
    const SQL: &str =
        "SELECT client_port FROM pg_stat_activity WHERE application_name IN ('pgbench', 'prove')";
    let mut session = Session::connect(stage.server).map_err(|lost| format!("connect: {lost:?}"))?;
    while !stage.stop.load(Ordering::Relaxed) {
        let listed = ask(&mut session, SQL)?.rows;
        let open = open_to(stage.server.port()).map_err(|error| format!("/proc/net/tcp: {error}"))?;
        let both = listed.iter().filter_map(|port| port.parse().ok()).filter(|port| open.contains(port));
        stage.connections.fetch_max(both.count(), Ordering::Relaxed);
        pause(Duration::from_millis(5));
    }
    Ok(())
}

/// Our ends of the established connections to a port of loopback.
fn open_to(port: u16) -> std::io::Result<BTreeSet<u16>> {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let port_of = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let ours = |line: &str| {
        let mut columns = line.split_whitespace().skip(1);
        let (own, other, state) = (columns.next()?, columns.next()?, columns.next()?);
        port_of(own).filter(|_| state == ESTABLISHED && port_of(other) == Some(port))
    };
    Ok(table.lines().filter_map(ours).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_heard_once_is_named() {
        let words = in_words(&[0, 3, 1, 3], 5);
        assert_eq!(words, "4 of 5; never 2 [2, 4], more than once 1 [3], out of order 1");
    }
}
