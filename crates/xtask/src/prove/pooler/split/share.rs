//! How much of the reading the replicas really take over, where they lag by 5 ms and writes never stop.
//!
//! **Intuition.** Sending everything to the primary would never be stale. What makes a split worth its name is the share
//! of reads that it dares to send away under ordinary conditions.
//!
//! **Mechanism.** Replicas apply every commit 5 ms late. Writers make 200 changes a second, readers ask 5,000 questions a
//! second at set times: of ten tables by key, of ten tables by statements that name no key at all, of keys of one table,
//! and of one hot table without keys, which is shown without a bar. Servers count what they ran (`pg_stat_statements`),
//! and the pooler says why the other reads stayed.
//!
//! **Failure.** A rate that was not reached misses its bar: the share would be of something else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenfold_pgwire::frontend::Format;
use tenfold_pgwire::write as wire;
use tenfold_testkit::postgres::{Cluster, Options as ClusterOptions, Server};
use tenfold_testkit::raw;

use super::super::super::stand::{Scratch, now, pause};
use super::super::super::verdict::Verdicts;
use super::super::session::{Lost, Session};
use super::super::stand::Pooler;

const LAG: Duration = Duration::from_millis(5);
const TABLES: u64 = 10;
const ROWS: u64 = 1_000;
/// Of the tables that are read whole: little to do for PostgreSQL, whose work is not what is measured.
const ROWS_SMALL: u64 = 20;
const WRITERS: u64 = 8;
const READERS: u64 = 50;
const WRITES_PER_SECOND: u64 = 200;
const READS_PER_SECOND: u64 = 5_000;
const SECONDS: u64 = 15;
const SECONDS_SHORT: u64 = 4;
const SHARE_PERCENT_MIN: f64 = 80.0;
/// Of the rates wanted; a machine that others use too is late now and then.
const RATE_PART_MIN: f64 = 0.9;

/// What is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// The reads pick a row by its key; the writes hide it.
    Tables,
    /// Neither names a key: counts and sums of whole tables.
    Whole,
    Keys,
    Hot,
}

impl Scene {
    const ALL: [Self; 4] = [Self::Tables, Self::Whole, Self::Keys, Self::Hot];

    fn name(self) -> &'static str {
        match self {
            Self::Tables => "10 tables",
            Self::Whole => "10 tables, no keys in the statements",
            Self::Keys => "keys of one table",
            Self::Hot => "one hot table without keys",
        }
    }

    fn write(self, random: u64) -> String {
        let (table, id) = (random % TABLES, (random >> 8) % ROWS);
        match self {
            // No key shows: what is written concerns all readers of the table.
            Self::Tables => {
                format!("UPDATE stock_{table} SET version = version + 1 WHERE id BETWEEN {id} AND {id}")
            }
            Self::Whole => {
                let id = id % ROWS_SMALL;
                format!("UPDATE stock_small_{table} SET version = version + 1 WHERE id BETWEEN {id} AND {id}")
            }
            Self::Keys => format!("UPDATE stock_0 SET version = version + 1 WHERE id = {id}"),
            Self::Hot => format!("UPDATE stock_0 SET version = version + 1 WHERE id BETWEEN {id} AND {id}"),
        }
    }

    /// With `$1` for the key, if one is named.
    fn read(self, random: u64) -> String {
        let table = random % TABLES;
        match self {
            Self::Tables => format!("SELECT version FROM stock_{table} WHERE id = $1"),
            Self::Whole if (random >> 4).is_multiple_of(2) => {
                format!("SELECT count(*) FROM stock_small_{table}")
            }
            Self::Whole => format!("SELECT sum(version) FROM stock_small_{table}"),
            Self::Keys => "SELECT version FROM stock_0 WHERE id = $1".to_owned(),
            Self::Hot => "SELECT max(version) FROM stock_0 WHERE id BETWEEN $1 AND 5 + $1".to_owned(),
        }
    }
}

pub(crate) fn prove(scratch: &Scratch, short: bool) -> Result<Verdicts> {
    let mut verdicts = Verdicts::new(format!(
        "split-share: {WRITES_PER_SECOND} writes and {READS_PER_SECOND} reads a second, replicas {} ms late",
        LAG.as_millis()
    ));
    let cluster = start()?;
    let mut pooler = Pooler::start_with(scratch, &super::database(&cluster, "own_writes"))?;
    for scene in Scene::ALL {
        let seconds = if short { SECONDS_SHORT } else { SECONDS };
        // The first second is for logins, catalogue and plans.
        play(&cluster, pooler.addr, scene, 1)?;
        let before = stayed(pooler.admin)?;
        let played = play(&cluster, pooler.addr, scene, seconds)?;
        played.tell(scene, seconds, &mut verdicts);
        let reasons = since(&stayed(pooler.admin)?, &before);
        verdicts.note(&format!("{}: what stayed at the primary", scene.name()), reasons);
    }
    let ended = pooler.child.try_wait();
    verdicts.bar("the pooler", ended.map_or("runs".into(), |s| s.to_string()), "runs", ended.is_none());
    Ok(verdicts)
}

fn start() -> Result<Cluster> {
    let settings = [("synchronous_commit", "on"), ("autovacuum", "off"), ("max_wal_size", "2GB")];
    let cluster = Cluster::start(&ClusterOptions {
        replicas: super::REPLICAS,
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        ..ClusterOptions::default()
    })?;
    for table in 0..TABLES {
        cluster.psql(&format!(
            "CREATE TABLE stock_{table} (id int PRIMARY KEY, version bigint NOT NULL) WITH (fillfactor = 50); \
             INSERT INTO stock_{table} SELECT id, 0 FROM generate_series(0, {ROWS}) AS id; \
             CREATE TABLE stock_small_{table} (id int PRIMARY KEY, version bigint NOT NULL); \
             INSERT INTO stock_small_{table} SELECT id, 0 FROM generate_series(1, {ROWS_SMALL}) AS id"
        ))?;
    }
    for replica in cluster.replicas() {
        Server::catch_up(replica, cluster.primary())?;
        replica.delay_replay(LAG)?;
    }
    Ok(cluster)
}

/// What ran at the primary so far, writes included: how often for which reason.
fn stayed(admin: SocketAddr) -> Result<BTreeMap<String, u64>> {
    let text = raw::get(admin, "/metrics").context("the admin server does not answer")?.text();
    let of_primary = text.lines().filter(|line| {
        line.starts_with("tenfold_pooler_routes_total{") && line.contains("route=\"primary\"")
    });
    let counts = of_primary.filter_map(|line| {
        let reason = line.split_once("reason=\"")?.1.split_once('"')?.0;
        Some((reason.to_owned(), line.rsplit_once(' ')?.1.parse().ok()?))
    });
    Ok(counts.collect())
}

fn since(after: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> String {
    let grown = after.iter().filter_map(|(reason, count)| {
        let grown = count.saturating_sub(before.get(reason).copied().unwrap_or_default());
        (grown > 0).then(|| format!("{grown} {reason}"))
    });
    grown.collect::<Vec<_>>().join(", ")
}

struct Played {
    reads: u64,
    writes: u64,
    failed: u64,
    at_primary: u64,
    at_replicas: u64,
    /// Of all reads, sorted.
    latencies_us: Vec<u64>,
}

impl Played {
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    fn tell(&self, scene: Scene, seconds: u64, verdicts: &mut Verdicts) {
        let name = scene.name();
        let share = self.at_replicas as f64 * 100.0 / (self.at_primary + self.at_replicas).max(1) as f64;
        let quantile = |percent: usize| {
            let index = self.latencies_us.len() * percent / 100;
            self.latencies_us.get(index).map_or(f64::NAN, |&us| us as f64 / 1e3)
        };
        let text = format!(
            "{share:.1} % ({} of {}), p50 {:.2} ms, p99 {:.2} ms",
            self.at_replicas,
            self.at_primary + self.at_replicas,
            quantile(50),
            quantile(99)
        );
        let what = format!("{name}: reads on replicas");
        if scene == Scene::Hot {
            verdicts.note(&what, text);
        } else {
            let bar = format!("≥ {SHARE_PERCENT_MIN} %");
            verdicts.bar(&what, text, &bar, share >= SHARE_PERCENT_MIN);
        }
        let rate = |count: u64| count as f64 / seconds as f64;
        let (reads, writes) = (rate(self.reads), rate(self.writes));
        let (reads_min, writes_min) =
            (READS_PER_SECOND as f64 * RATE_PART_MIN, WRITES_PER_SECOND as f64 * RATE_PART_MIN);
        verdicts.bar(
            &format!("{name}: reads and writes a second"),
            format!("{reads:.0} and {writes:.0}"),
            &format!("≥ {reads_min:.0} and {writes_min:.0}"),
            reads >= reads_min && writes >= writes_min,
        );
        verdicts.none(&format!("{name}: failed statements"), self.failed);
    }
}

/// What the threads count together.
#[derive(Debug, Default)]
struct Counts {
    reads: AtomicU64,
    writes: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

fn play(cluster: &Cluster, pooler: SocketAddr, scene: Scene, seconds: u64) -> Result<Played> {
    let counts = Counts::default();
    let before = counted(cluster)?;
    let latencies = std::thread::scope(|scope| -> Result<Vec<u64>> {
        let counts = &counts;
        let writers: Vec<_> =
            (0..WRITERS).map(|index| scope.spawn(move || write(pooler, scene, index, counts))).collect();
        let readers: Vec<_> =
            (0..READERS).map(|index| scope.spawn(move || read(pooler, scene, index, counts))).collect();
        pause(Duration::from_secs(seconds));
        counts.stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().ok().context("a writer panicked")?;
        }
        let mut all = Vec::new();
        for reader in readers {
            all.append(&mut reader.join().ok().context("a reader panicked")?);
        }
        all.sort_unstable();
        Ok(all)
    })?;
    let after = counted(cluster)?;
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Ok(Played {
        reads: of(&counts.reads),
        writes: of(&counts.writes),
        failed: of(&counts.failed),
        at_primary: after.0.saturating_sub(before.0),
        at_replicas: after.1.saturating_sub(before.1),
        latencies_us: latencies,
    })
}

/// Reads that the primary and the replicas have run.
fn counted(cluster: &Cluster) -> Result<(u64, u64)> {
    let asked = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements \
        WHERE query LIKE 'SELECT%FROM stock%'";
    let ask = |server: &Server| Ok::<u64, anyhow::Error>(server.psql(asked)?.trim().parse()?);
    let mut at_replicas = 0;
    for replica in cluster.replicas() {
        at_replicas += ask(replica)?;
    }
    Ok((ask(cluster.primary())?, at_replicas))
}

/// One of `of` at its share of a rate: calls at set times, late ones at once, until told to stop.
fn pace(index: u64, of: u64, per_second: u64, counts: &Counts, mut call: impl FnMut(u64)) {
    let every = Duration::from_micros(1_000_000 * of / per_second);
    let began = now() + every.mul_f64(index as f64 / of as f64);
    let mut number = 0u32;
    let mut random = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while !counts.stop.load(Ordering::Relaxed) {
        let due = began + every * number;
        let ahead = due.saturating_duration_since(now());
        if !ahead.is_zero() {
            pause(ahead);
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        call(random >> 5);
        number += 1;
    }
}

fn write(pooler: SocketAddr, scene: Scene, index: u64, counts: &Counts) {
    let mut session = None;
    pace(index, WRITERS, WRITES_PER_SECOND, counts, |random| {
        let sql = scene.write(random);
        let done = with(&mut session, pooler, |session| session.query(&sql));
        count(&done, &counts.writes, counts);
    });
}

/// Returns its latencies in µs.
fn read(pooler: SocketAddr, scene: Scene, index: u64, counts: &Counts) -> Vec<u64> {
    let mut session = None;
    let mut latencies = Vec::new();
    pace(index, READERS, READS_PER_SECOND, counts, |random| {
        let (sql, key) = (scene.read(random), ((random >> 8) % ROWS).to_string());
        let began = now();
        let done = with(&mut session, pooler, |session| {
            if index.is_multiple_of(2) {
                return session.query(&sql.replace("$1", &key));
            }
            let mut out = Vec::new();
            wire::parse(&mut out, b"", sql.as_bytes(), []);
            let values = sql.contains("$1").then_some(Some(key.as_bytes()));
            wire::bind(&mut out, b"", b"", Format::Text, values, Format::Text);
            wire::execute(&mut out, b"", 0);
            wire::sync(&mut out);
            session.send(&out)?;
            session.answer()
        });
        latencies.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        count(&done, &counts.reads, counts);
    });
    latencies
}

fn count(done: &Result<bool, Lost>, good: &AtomicU64, counts: &Counts) {
    let count = if *done == Ok(true) { good } else { &counts.failed };
    count.fetch_add(1, Ordering::Relaxed);
}

/// Connects where there is no connection; whether the answer is no error.
fn with(
    session: &mut Option<Session>,
    to: SocketAddr,
    ask: impl FnOnce(&mut Session) -> Result<super::super::session::Answer, Lost>,
) -> Result<bool, Lost> {
    let mut open = match session.take() {
        Some(open) => open,
        None => Session::connect(to)?,
    };
    let answer = ask(&mut open)?;
    *session = Some(open);
    Ok(answer.error.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_name_keys_only_where_the_scene_has_them() {
        for random in [0, 1, 16, 0x1234_5678_9abc] {
            assert!(!Scene::Whole.read(random).contains("WHERE"), "{}", Scene::Whole.read(random));
            for scene in [Scene::Tables, Scene::Whole, Scene::Hot] {
                assert!(!scene.write(random).contains("id ="), "{}", scene.write(random));
            }
            assert!(Scene::Keys.write(random).contains("id ="));
        }
        assert_ne!(Scene::Whole.read(0), Scene::Whole.read(16), "both kinds are read");
    }

    #[test]
    fn only_what_has_grown_is_told() {
        let counts = |behind, writes| {
            BTreeMap::from([("replica_behind".to_owned(), behind), ("writes".to_owned(), writes)])
        };
        assert_eq!(since(&counts(5, 9), &counts(5, 2)), "7 writes");
    }
}
