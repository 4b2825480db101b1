//! Fairness: what a client with long queries, and a crowd that wants one row, cost everybody else.
//!
//! The same clients with short queries are measured alone and then beside the others; each has a pause between two, so
//! that what is measured is waiting and not the machine's end. Latencies are of whole exchanges.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenfold_testkit::postgres::{Cluster, Options};

use super::super::stand::{Scratch, now, pause};
use super::super::verdict::Verdicts;
use super::session::Session;
use super::stand::Pooler;

const POOL: &str = "size = 20, reserve = 0, query_wait = \"60s\"";
const SHORT_CLIENTS: usize = 500;
const OTHER_CLIENTS: usize = 100;
const CROWD: usize = 500;
const THINK: Duration = Duration::from_millis(250);

pub(crate) fn prove(scratch: &Scratch, short: bool) -> Result<Verdicts> {
    let time = Duration::from_secs(if short { 4 } else { 20 });
    let mut verdicts = Verdicts::new("pooler-fairness: 20 server connections");
    let cluster = Cluster::start(&Options::default())?;
    cluster.psql("CREATE TABLE hot (id int PRIMARY KEY, n bigint); INSERT INTO hot VALUES (1, 0)")?;
    let pooler = Pooler::start(scratch, cluster.primary().port(), POOL)?;
    let addr = pooler.addr;

    let alone = measure(addr, SHORT_CLIENTS, time, 0, "")?;
    let beside = measure(addr, SHORT_CLIENTS, time, 1, "SELECT pg_sleep(1)")?;
    compare("500 short clients beside one with long queries: p99", alone, beside, 3, &mut verdicts);

    let alone = measure(addr, OTHER_CLIENTS, time, 0, "")?;
    let beside = measure(addr, OTHER_CLIENTS, time, CROWD, "UPDATE hot SET n = n + 1 WHERE id = 1")?;
    compare("100 clients beside 500 that update one row: p99", alone, beside, 2, &mut verdicts);
    verdicts.note("updates of the one row", cluster.psql("SELECT n FROM hot")?.trim());
    Ok(verdicts)
}

fn compare(what: &str, alone: Duration, beside: Duration, times: u32, verdicts: &mut Verdicts) {
    let measured = format!("{:.1} ms, alone {:.1} ms", millis(beside), millis(alone));
    verdicts.bar(what, measured, &format!("≤ {times}× alone"), beside <= alone * times);
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The 99th percentile of what `clients` wait for a short query, beside `crowd` others that run `sql` without a pause.
fn measure(addr: SocketAddr, clients: usize, time: Duration, crowd: usize, sql: &str) -> Result<Duration> {
    let stop = AtomicBool::new(false);
    let mut latencies = std::thread::scope(|scope| -> Result<Vec<Duration>> {
        let stop = &stop;
        let crowd: Vec<_> = (0..crowd).map(|_| scope.spawn(move || repeat(addr, sql, stop))).collect();
        let timed: Vec<_> =
            (0..clients).map(|index| scope.spawn(move || short_queries(addr, index, stop))).collect();
        pause(time);
        stop.store(true, Ordering::Relaxed);
        let mut latencies = Vec::new();
        for client in timed {
            latencies.extend(client.join().ok().context("a client panicked")??);
        }
        for client in crowd {
            client.join().ok().context("a client panicked")??;
        }
        Ok(latencies)
    })?;
    latencies.sort_unstable();
    let at = latencies.len() * 99 / 100;
    latencies.get(at).copied().context("nobody was answered")
}

fn connect(addr: SocketAddr) -> Result<Session> {
    Session::connect(addr).map_err(|lost| anyhow::anyhow!("a login failed: {lost:?}"))
}

fn ask(session: &mut Session, sql: &str) -> Result<()> {
    let answer = session.query(sql).map_err(|lost| anyhow::anyhow!("{sql}: {lost:?}"))?;
    match answer.error {
        Some(error) => Err(anyhow::anyhow!("{sql}: {error:?}")),
        None => Ok(()),
    }
}

fn repeat(addr: SocketAddr, sql: &str, stop: &AtomicBool) -> Result<()> {
    let mut session = connect(addr)?;
    while !stop.load(Ordering::Relaxed) {
        ask(&mut session, sql)?;
    }
    Ok(())
}

fn short_queries(addr: SocketAddr, index: usize, stop: &AtomicBool) -> Result<Vec<Duration>> {
    let mut session = connect(addr)?;
    // The logins are over and the clients out of step before anything counts.
    pause(THINK * 2 + THINK * u32::try_from(index % 64)? / 64);
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let began = now();
        ask(&mut session, "SELECT 1")?;
        latencies.push(began.elapsed());
        pause(THINK);
    }
    Ok(latencies)
}
