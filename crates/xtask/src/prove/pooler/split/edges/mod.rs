//! Own reads through edges: who writes through one and reads through the other sees it, cached answers included.
//!
//! **Intuition.** Behind a load balancer nobody comes back the way they came. The next request meets another edge with a
//! cache of its own, another node of the API and another pooler, and none of them has heard of the write.
//!
//! **Mechanism.** Two processes, each an edge and a pooler, with one key between them; a [node](api) of the API behind
//! each; a primary and two replicas, one late, the other jittering or standing still. [People](person) write here and
//! read there, and carry the token as cookie or field. First the same is played on routes without `own_writes`, where
//! stale answers must show, or the proof would prove nothing.
//!
//! **Failure.** Too few pairs in time, no read at a replica, no hit or no stored answer that was passed over miss their
//! bars: what was not put to the test was not shown.

mod api;
mod person;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenfold_testkit::postgres::{Cluster, Jitter, Options as ClusterOptions, Server};
use tenfold_testkit::{raw, try_wait_for};

use super::super::super::stand::{Scratch, Tenfold, free_address, now, pause};
use super::super::super::verdict::Verdicts;
use super::super::stand;
use api::Api;
use person::{Board, Crowd, Person, ROWS, Seen, TURNS};

const CROWDS: usize = 32;
/// In each scene, of routes that are cached and of routes that are not.
const PAIRS: u64 = 30_000;
const PAIRS_SHORT: u64 = 3_000;
/// Of the control.
const PAIRS_WITHOUT: u64 = 500;
const SCENE_TIME_MAX: Duration = Duration::from_secs(120);
const READY_TIME_MAX: Duration = Duration::from_secs(20);
const KEY: &str = "one-key-for-both-edges";

/// How the replicas lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replay {
    /// One is a tenth of a second late, the other stops for some milliseconds again and again.
    Jittering,
    /// One is a second late, the other stands still but for moments.
    Standing,
}

impl Replay {
    const ALL: [Self; 2] = [Self::Jittering, Self::Standing];

    fn name(self) -> &'static str {
        match self {
            Self::Jittering => "late and jittering",
            Self::Standing => "late and standing still",
        }
    }

    /// Of the first replica.
    fn delay(self) -> Duration {
        match self {
            Self::Jittering => Duration::from_millis(100),
            Self::Standing => Duration::from_secs(1),
        }
    }

    /// For how long the second one stands still and goes on, at most.
    fn times(self) -> (Duration, Duration) {
        match self {
            Self::Jittering => (Duration::from_millis(30), Duration::from_millis(30)),
            Self::Standing => (Duration::from_secs(2), Duration::from_millis(400)),
        }
    }

    /// Ends with what it returns.
    fn impose(self, cluster: &Cluster) -> Result<Jitter> {
        let [late, other] = cluster.replicas() else { anyhow::bail!("there are two replicas") };
        late.delay_replay(self.delay())?;
        let (held_max, running_max) = self.times();
        Ok(Jitter::start(other, held_max, running_max, 77)?)
    }
}

fn lift(cluster: &Cluster, jitter: Jitter) -> Result<()> {
    drop(jitter);
    for replica in cluster.replicas() {
        replica.delay_replay(Duration::ZERO)?;
        replica.resume_replay()?;
        Server::catch_up(replica, cluster.primary())?;
    }
    Ok(())
}

pub(crate) fn prove(scratch: &Scratch, short: bool) -> Result<Verdicts> {
    let pairs = if short { PAIRS_SHORT } else { PAIRS };
    let mut verdicts = Verdicts::new(format!(
        "split-edge: {} clients, {CROWDS} at a time, two edges, two poolers, a primary and two replicas; written through one edge, \
         read through the other",
        CROWDS * TURNS
    ));
    let cluster = start()?;
    let mut crowds: Vec<Vec<Person>> =
        (0..CROWDS).map(|crowd| (crowd * TURNS..(crowd + 1) * TURNS).map(Person::new).collect()).collect();
    let without = Stage::start(scratch, &cluster, "without", "own_writes = false")?;
    without.control(&cluster, &mut crowds, &mut verdicts)?;
    drop(without);
    let mut stage = Stage::start(scratch, &cluster, "with", "own_writes = true")?;
    for replay in Replay::ALL {
        stage.scene(&cluster, replay, pairs, &mut crowds, &mut verdicts)?;
    }
    stage.tell(&mut verdicts)?;
    Ok(verdicts)
}

fn start() -> Result<Cluster> {
    // Without `synchronous_commit` nothing would reach a replica for a tenth of a second.
    let settings = [("synchronous_commit", "on"), ("autovacuum", "off"), ("max_wal_size", "2GB")];
    let cluster = Cluster::start(&ClusterOptions {
        replicas: super::REPLICAS,
        connections_max: 250,
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        ..ClusterOptions::default()
    })?;
    cluster.psql(&format!(
        "CREATE TABLE item (id int PRIMARY KEY, owner int NOT NULL, v bigint NOT NULL) WITH (fillfactor = 50); \
         CREATE INDEX ON item (owner); \
         INSERT INTO item SELECT id, id / {ROWS}, 0 FROM generate_series(0, {CROWDS} * {TURNS} * {ROWS} - 1) AS id"
    ))?;
    for replica in cluster.replicas() {
        Server::catch_up(replica, cluster.primary())?;
    }
    Ok(cluster)
}

/// Two of everything but the database.
struct Stage {
    edges: [Tenfold; 2],
    /// Ended after the edges.
    _apis: [Api; 2],
}

impl Stage {
    fn start(scratch: &Scratch, cluster: &Cluster, name: &str, route: &str) -> Result<Self> {
        let one = |at: usize| -> Result<(Tenfold, Api)> {
            let pooler = free_address()?;
            let api = Api::start(pooler)?;
            let file = file(cluster, pooler, api.addr(), route);
            let edge = Tenfold::start_as(scratch, &format!("{name}-{at}"), &file)?;
            until_split(&edge)?;
            Ok((edge, api))
        };
        let ((first, first_api), (second, second_api)) = (one(0)?, one(1)?);
        Ok(Self { edges: [first, second], _apis: [first_api, second_api] })
    }

    /// Routes without `own_writes`: what doesn't show there would show nowhere.
    fn control(&self, cluster: &Cluster, crowds: &mut [Vec<Person>], verdicts: &mut Verdicts) -> Result<()> {
        for replay in Replay::ALL {
            let jitter = replay.impose(cluster)?;
            let seen = self.play(PAIRS_WITHOUT, crowds)?;
            lift(cluster, jitter)?;
            for (kind, stale, of) in
                [("uncached", seen.stale_plain, seen.plain), ("cached", seen.stale_stored, seen.stored)]
            {
                let what = format!("control, without own_writes, {}: stale own reads, {kind}", replay.name());
                verdicts.bar(&what, format!("{stale} of {of}"), "some", stale > 0);
            }
        }
        Ok(())
    }

    fn scene(
        &mut self,
        cluster: &Cluster,
        replay: Replay,
        pairs: u64,
        crowds: &mut [Vec<Person>],
        verdicts: &mut Verdicts,
    ) -> Result<()> {
        let before = counted(cluster)?;
        let jitter = replay.impose(cluster)?;
        let began = now();
        let seen = self.play(pairs, crowds)?;
        let seconds = began.elapsed().as_secs_f64();
        lift(cluster, jitter)?;
        let after = counted(cluster)?;
        judge(replay.name(), &seen, pairs, seconds, verdicts);
        let (primary, replicas) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
        #[expect(clippy::cast_precision_loss, reason = "a share of some thousands")]
        let share = replicas as f64 * 100.0 / (primary + replicas).max(1) as f64;
        verdicts.bar(
            &format!("{}: reads on replicas", replay.name()),
            format!("{share:.1} % ({replicas} of {})", primary + replicas),
            "some",
            replicas > 0,
        );
        for edge in &mut self.edges {
            let ended = edge.child.try_wait();
            anyhow::ensure!(ended.is_none(), "Tenfold ended:\n{}", edge.child.log());
        }
        Ok(())
    }

    /// Has all play until so many pairs of each kind are made.
    fn play(&self, pairs: u64, crowds: &mut [Vec<Person>]) -> Result<Seen> {
        let board = Board::new([self.edges[0].edge, self.edges[1].edge]);
        let began = now();
        std::thread::scope(|scope| -> Result<Seen> {
            let board = &board;
            let playing: Vec<_> = (0..)
                .zip(crowds.iter())
                .map(|(index, people)| {
                    let people = people.clone();
                    scope.spawn(move || Crowd::new(board, index, people).play())
                })
                .collect();
            let made = || board.plain.load(Ordering::Relaxed).min(board.stored.load(Ordering::Relaxed));
            while made() < pairs && began.elapsed() < SCENE_TIME_MAX {
                pause(Duration::from_millis(20));
            }
            board.stop.store(true, Ordering::Relaxed);
            let mut seen = Seen::default();
            for (played, people) in playing.into_iter().zip(crowds) {
                let (one, known) = played.join().ok().context("a client panicked")?;
                seen.add(one);
                *people = known;
            }
            Ok(seen)
        })
    }

    /// What the edges say of the tokens they made.
    fn tell(&self, verdicts: &mut Verdicts) -> Result<()> {
        let mut counts = Vec::new();
        for outcome in ["issued", "unknown", "nothing", "refused"] {
            let of = |edge: &Tenfold| {
                edge.metric_of("tenfold_edge_positions_total", &format!("outcome=\"{outcome}\""))
            };
            counts.push(format!("{} {outcome}", of(&self.edges[0])? + of(&self.edges[1])?));
        }
        verdicts.note("tokens", counts.join(", "));
        Ok(())
    }
}

fn judge(scene: &str, seen: &Seen, pairs: u64, seconds: f64, verdicts: &mut Verdicts) {
    for (kind, made, stale) in
        [("uncached", seen.plain, seen.stale_plain), ("cached", seen.stored, seen.stale_stored)]
    {
        verdicts.bar(
            &format!("{scene}: pairs, {kind}"),
            format!("{made} in {seconds:.0} s"),
            &format!("≥ {pairs}"),
            made >= pairs,
        );
        verdicts.none(&format!("{scene}: stale own reads, {kind}"), stale);
    }
    let failed = format!("{} {}", seen.failed, seen.examples.join("; "));
    verdicts.bar(&format!("{scene}: failed requests"), failed.trim(), "0", seen.failed == 0);
    for (what, count) in
        [("from a cache", seen.hits), ("for which a stored answer was passed over", seen.passed_over)]
    {
        verdicts.bar(&format!("{scene}: own reads {what}"), count, "some", count > 0);
    }
}

/// Until reads go to replicas.
fn until_split(edge: &Tenfold) -> Result<()> {
    try_wait_for("reads on replicas", READY_TIME_MAX, || {
        let asked = raw::get(edge.edge, "/plain/row/0").is_ok_and(|answer| answer.status == 200);
        let away = edge.metric_of("tenfold_pooler_routes_total", "route=\"replica\"");
        asked && away.is_ok_and(|count| count > 0.0)
    })?;
    Ok(())
}

/// Reads that the primary and the replicas have run.
fn counted(cluster: &Cluster) -> Result<(u64, u64)> {
    let asked = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements \
        WHERE query LIKE 'SELECT%FROM item WHERE%'";
    let ask = |server: &Server| Ok::<u64, anyhow::Error>(server.psql(asked)?.trim().parse()?);
    let mut at_replicas = 0;
    for replica in cluster.replicas() {
        at_replicas += ask(replica)?;
    }
    Ok((ask(cluster.primary())?, at_replicas))
}

fn file(cluster: &Cluster, pooler: SocketAddr, node: SocketAddr, route: &str) -> String {
    let replicas: Vec<String> = cluster
        .replicas()
        .iter()
        .map(|replica| format!("\"{}:{}\"", Ipv4Addr::LOCALHOST, replica.port()))
        .collect();
    format!(
        "edge.own_writes.key = \"{KEY}\"\npooler.listen = \"{pooler}\"\npooler.auth = \"trust\"\n\
         [database.postgres]\n{}replicas = [{}]\n[cluster.api]\nnodes = [\"{node}\"]\n\
         [[route]]\npath = \"/{{*rest}}\"\nto = \"api\"\n{route}\n",
        stand::database(cluster.primary().port(), super::POOL),
        replicas.join(", "),
    )
}
