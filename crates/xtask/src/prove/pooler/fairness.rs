//! Fairness: what a client with long queries, and a crowd that wants one row, cost everybody else.
//!
//! The same clients with short queries are measured alone and then beside the others; each has a pause between two, so
//! that what is measured is waiting and not the machine's end. Latencies are of whole exchanges.
//!
//! Then two users ask for more connections than each of them, and both together, may have; PostgreSQL counts.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
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
const UPDATE: &str = "UPDATE hot SET n = n + 1 WHERE id = 1";
/// The row's lock is held for as long as a transaction of an application takes.
const UPDATE_SLOWLY: &str = "UPDATE hot SET n = n + 1 WHERE id = 1 RETURNING pg_sleep(0.005)";
/// Of one user, and of the database.
const USER_MAX: u64 = 4;
const DATABASE_MAX: u64 = 7;
const CLIENTS_OF_EACH: usize = 40;

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
    for (sql, how) in [(UPDATE, "update one row"), (UPDATE_SLOWLY, "hold one row's lock for 5 ms")] {
        let beside = measure(addr, OTHER_CLIENTS, time, CROWD, sql)?;
        compare(&format!("100 clients beside 500 that {how}: p99"), alone, beside, 2, &mut verdicts);
        verdicts.note("updates of the one row so far", cluster.psql("SELECT n FROM hot")?.trim());
    }
    drop(pooler);
    limits(scratch, &cluster, time, &mut verdicts)?;
    Ok(verdicts)
}

/// Two users with limits of their own, and one for the database.
fn limits(scratch: &Scratch, cluster: &Cluster, time: Duration, verdicts: &mut Verdicts) -> Result<()> {
    cluster.psql("CREATE ROLE reporting LOGIN; CREATE ROLE web LOGIN")?;
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.primary().port()));
    let users = scratch.file("userlist.txt");
    std::fs::write(&users, "\"reporting\" \"unused\"\n\"web\" \"unused\"\n")?;
    let pooler = Pooler::start_with(
        scratch,
        &format!(
            "users = {{ file = {users:?} }}\nprimary = \"postgres://{server}/postgres\"\n\
             pool = {{ size = 20, reserve = 0, database_max = {DATABASE_MAX}, query_wait = \"60s\" }}\n\
             [pooler.user.reporting]\nservers_max = {USER_MAX}\n"
        ),
    )?;
    let addr = pooler.addr;
    let stop = AtomicBool::new(false);
    let (user_max, database_max) = std::thread::scope(|scope| -> Result<(u64, u64)> {
        let stop = &stop;
        let clients: Vec<_> = (0..CLIENTS_OF_EACH)
            .flat_map(|_| ["reporting", "web"])
            .map(|user| scope.spawn(move || repeat(addr, user, "SELECT pg_sleep(0.01)", stop)))
            .collect();
        let counted = count_servers(server, time);
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().ok().context("a client panicked")??;
        }
        counted
    })?;
    let what = format!("server connections of a user with {CLIENTS_OF_EACH} clients, at most");
    verdicts.bar(&what, user_max, &format!("≤ {USER_MAX}"), (1..=USER_MAX).contains(&user_max));
    let what = "server connections of the database for both users, at most";
    let held = (USER_MAX..=DATABASE_MAX).contains(&database_max);
    verdicts.bar(what, database_max, &format!("≤ {DATABASE_MAX}, used"), held);
    Ok(())
}

/// The most connections that the user `reporting`, and both users, had at once.
fn count_servers(server: SocketAddr, time: Duration) -> Result<(u64, u64)> {
    let mut session = connect(server, "postgres")?;
    let until = now() + time;
    let (mut user_max, mut database_max) = (0, 0);
    while now() < until {
        for (users, most) in [("'reporting'", &mut user_max), ("'reporting','web'", &mut database_max)] {
            // The one that watches the database, and is no client's, never sleeps.
            let sql = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE usename IN ({users}) AND query LIKE '%pg_sleep%'"
            );
            let answer = session.query(&sql).map_err(|lost| anyhow::anyhow!("{sql}: {lost:?}"))?;
            ensure!(answer.error.is_none(), "{sql}: {:?}", answer.error);
            let count: u64 = answer.rows.first().context("a count is one row")?.parse()?;
            *most = count.max(*most);
        }
        pause(Duration::from_millis(5));
    }
    Ok((user_max, database_max))
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
        let crowd: Vec<_> =
            (0..crowd).map(|_| scope.spawn(move || repeat(addr, "postgres", sql, stop))).collect();
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

fn connect(addr: SocketAddr, user: &str) -> Result<Session> {
    Session::connect_as(addr, user).map_err(|lost| anyhow::anyhow!("a login failed: {lost:?}"))
}

fn ask(session: &mut Session, sql: &str) -> Result<()> {
    let answer = session.query(sql).map_err(|lost| anyhow::anyhow!("{sql}: {lost:?}"))?;
    match answer.error {
        Some(error) => Err(anyhow::anyhow!("{sql}: {error:?}")),
        None => Ok(()),
    }
}

fn repeat(addr: SocketAddr, user: &str, sql: &str, stop: &AtomicBool) -> Result<()> {
    let mut session = connect(addr, user)?;
    while !stop.load(Ordering::Relaxed) {
        ask(&mut session, sql)?;
    }
    Ok(())
}

fn short_queries(addr: SocketAddr, index: usize, stop: &AtomicBool) -> Result<Vec<Duration>> {
    let mut session = connect(addr, "postgres")?;
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
