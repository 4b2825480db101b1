//! Faults: backends killed, stopped and sent home, the server restarted, peers half open, clients that leave in the
//! middle, while a million queries each want their own answer.
//!
//! Two proxies break: one between some of the clients and the pooler, one between the pooler and the server. Every second
//! something happens; the clients ([`super::client`]) judge what they are told, and the ledger table what became of the
//! commits. Afterwards the server must hold no transaction and no more connections than the pool has.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenfold_testkit::fault::{Direction, Fault, Proxy};
use tenfold_testkit::postgres::{BackendSignal, Cluster, Options};
use tenfold_testkit::try_wait_for;

use super::super::stand::{Scratch, now, pause};
use super::super::verdict::Verdicts;
use super::client::{Client, Run, Seen};
use super::stand::Pooler;

const CLIENTS: u64 = 48;
const QUERIES: u64 = 1_000_000;
const QUERIES_SHORT: u64 = 30_000;
const POOL: &str = "size = 16, reserve = 4, query_wait = \"30s\"";
/// Size and reserve, one hub and one monitor.
const SERVERS_MAX: u64 = 22;
const BETWEEN_FAULTS: Duration = Duration::from_secs(1);
/// Each kind twice.
const FAULTS_MIN: u64 = 16;
const STANDSTILL: Duration = Duration::from_millis(300);
const RUN_TIME_MAX: Duration = Duration::from_secs(1_800);
const SETTLE_TIME_MAX: Duration = Duration::from_secs(60);
/// The pooler's own connections, by where they come from: the judge uses the server's Unix socket or none at all.
const POOLERS: &str = "backend_type = 'client backend' AND pid <> pg_backend_pid()";

pub(crate) fn prove(scratch: &Scratch, short: bool) -> Result<Verdicts> {
    let target = if short { QUERIES_SHORT } else { QUERIES };
    let mut verdicts =
        Verdicts::new(format!("pooler-faults: {CLIENTS} clients, {target} queries with a nonce each"));
    let mut cluster = Cluster::start(&Options { fsync: true, ..Options::default() })?;
    cluster.psql("CREATE TABLE ledger (nonce text PRIMARY KEY)")?;
    let port = cluster.primary().port();
    let to_server = Proxy::start(SocketAddr::from(([127, 0, 0, 1], port)))?;
    let mut pooler = Pooler::start(scratch, to_server.addr().port(), POOL)?;
    let to_pooler = Proxy::start(pooler.addr)?;
    let run = Run {
        pooler: pooler.addr,
        broken: to_pooler.addr(),
        answered: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let (seen, faults) = std::thread::scope(|scope| -> Result<(Seen, u64)> {
        let run = &run;
        let clients: Vec<_> =
            (0..CLIENTS).map(|index| scope.spawn(move || Client::new(run, index).play())).collect();
        let faults = strike(&mut cluster, &to_server, &to_pooler, run, target);
        to_server.heal();
        to_pooler.sever();
        to_pooler.heal();
        run.stop.store(true, Ordering::Relaxed);
        let mut seen = Seen::default();
        for client in clients {
            seen.add(client.join().ok().context("a client panicked")?);
        }
        Ok((seen, faults?))
    })?;
    told(&seen, faults, target, &mut verdicts);
    committed(&cluster, &seen, &mut verdicts)?;
    left_behind(&cluster, &mut verdicts);
    let ended = pooler.child.try_wait();
    verdicts.bar(
        "the pooler",
        ended.map_or("runs".into(), |status| status.to_string()),
        "runs",
        ended.is_none(),
    );
    Ok(verdicts)
}

/// Faults by turns, until enough was answered. How many there were.
fn strike(
    cluster: &mut Cluster,
    to_server: &Proxy,
    to_pooler: &Proxy,
    run: &Run,
    target: u64,
) -> Result<u64> {
    let began = now();
    let mut faults = 0;
    let is_done = |faults| faults >= FAULTS_MIN && run.answered.load(Ordering::Relaxed) >= target;
    while !is_done(faults) && began.elapsed() < RUN_TIME_MAX {
        match faults % 8 {
            0 => signal_one(cluster, BackendSignal::Kill)?,
            1 => to_pooler.sever(),
            2 => {
                signal_one(cluster, BackendSignal::Stop)?;
                pause(STANDSTILL);
                continue_all(cluster);
            }
            3 => {
                to_pooler.set(Direction::ToClient, Fault::StallAt(0));
                pause(STANDSTILL);
                to_pooler.sever();
                to_pooler.heal();
            }
            4 => to_server.sever(),
            5 => drop(cluster.psql(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {POOLERS} LIMIT 3"
            ))),
            6 => cluster.primary_mut().restart()?,
            _ => {
                to_server.set(Direction::ToServer, Fault::StallAt(0));
                pause(STANDSTILL);
                to_server.heal();
            }
        }
        faults += 1;
        pause(BETWEEN_FAULTS);
    }
    Ok(faults)
}

fn backends(cluster: &Cluster) -> Vec<i32> {
    let pids = cluster.psql(&format!("SELECT pid FROM pg_stat_activity WHERE {POOLERS} ORDER BY random()"));
    pids.unwrap_or_default().lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// Signals one backend, if there is one: it may have ended meanwhile.
fn signal_one(cluster: &Cluster, signal: BackendSignal) -> Result<()> {
    if let Some(&pid) = backends(cluster).first() {
        let _ = cluster.primary().signal_backend(pid, signal);
    }
    if signal == BackendSignal::Kill {
        // The server ends all its backends and recovers.
        try_wait_for("the server to recover", SETTLE_TIME_MAX, || cluster.psql("SELECT 1").ok())?;
    }
    Ok(())
}

fn continue_all(cluster: &Cluster) {
    for pid in backends(cluster) {
        let _ = cluster.primary().signal_backend(pid, BackendSignal::Continue);
    }
}

fn told(seen: &Seen, faults: u64, target: u64, verdicts: &mut Verdicts) {
    verdicts.bar("right answers", seen.right, &format!("≥ {target}"), seen.right >= target);
    verdicts.note("faults", faults);
    verdicts.note("clients that left in the middle", seen.aborted);
    verdicts.note("queries cancelled by their own client", seen.cancelled);
    verdicts.note("queries answered by an error", seen.failed);
    let examples = seen.examples.join("; ");
    verdicts.bar("wrong answers", format!("{} {examples}", seen.wrong), "0", seen.wrong == 0);
    verdicts.none("queries cancelled by a stranger's cancel", seen.strangers_cancelled);
    verdicts.none("connections closed without a word", seen.bare_closes);
    verdicts.none("queries never answered", seen.silent);
}

/// The ledger against what the clients were told.
fn committed(cluster: &Cluster, seen: &Seen, verdicts: &mut Verdicts) -> Result<()> {
    let text = cluster.psql("SELECT nonce FROM ledger")?;
    let ledger: HashSet<&str> = text.lines().collect();
    let count = |nonces: &[String], is_in: bool| {
        nonces.iter().filter(|nonce| ledger.contains(nonce.as_str()) == is_in).count() as u64
    };
    verdicts.note("commits acknowledged", seen.acknowledged.len());
    verdicts.note("commits lost between COMMIT and its answer", seen.unknown);
    verdicts.none("acknowledged commits missing", count(&seen.acknowledged, false));
    verdicts.none("commits of transactions told to have failed", count(&seen.never_committed, true));
    let told: HashSet<&str> = seen.acknowledged.iter().map(String::as_str).collect();
    verdicts.none("commits acknowledged twice", (seen.acknowledged.len() - told.len()) as u64);
    verdicts.none("rows of clients that left in the middle", u64::from(ledger.contains("never")));
    Ok(())
}

/// What the server holds once all clients are gone.
fn left_behind(cluster: &Cluster, verdicts: &mut Verdicts) {
    let number = |sql: &str| cluster.psql(sql).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let open = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE {POOLERS} AND (xact_start IS NOT NULL OR state <> 'idle')"
    );
    let ended = try_wait_for("transactions to end", SETTLE_TIME_MAX, || number(&open) == Some(0));
    verdicts.bar("transactions left open", number(&open).unwrap_or(u64::MAX), "0", ended.is_ok());
    let all = number(&format!("SELECT count(*) FROM pg_stat_activity WHERE {POOLERS}")).unwrap_or(u64::MAX);
    verdicts.bar("server connections left", all, &format!("≤ {SERVERS_MAX}"), all <= SERVERS_MAX);
}
