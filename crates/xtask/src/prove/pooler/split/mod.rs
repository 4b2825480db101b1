//! Own reads are never stale: many clients write and read, while the replicas lag, stand still, die and are promoted.
//!
//! **Intuition.** One answer that is older than what its reader wrote, or has seen, would make all others doubtful. So
//! versions that only grow are written and read back tens of thousands of times for each kind of lag and each kind of
//! reader, and one count has to be zero.
//!
//! **Mechanism.** A primary and two replicas; the real Tenfold in front. [`lag`] makes the replicas late, [`pairs`] are
//! the clients, [`gauges`] what they write and read. First of all the same clients read from a replica directly, where
//! stale answers must show, or the proof would prove nothing. `--ignore-floors` has Tenfold do the same wrong.
//!
//! **Failure.** A run that cannot make its pairs in time misses their bar. Reads that fail are counted apart: they are
//! none where nothing is broken.

mod edges;
mod faults;
mod gauges;
mod lag;
mod pairs;
mod routes;
mod share;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenfold_testkit::postgres::{Cluster, Options as ClusterOptions, Server};

use super::super::stand::{Scratch, now, pause};
use super::super::verdict::Verdicts;
use super::stand::{self, Pooler};
use lag::Lag;
use pairs::{Board, Client, Reader, Seen};

pub(crate) use edges::prove as prove_edge;
use lag::Replay;
pub(crate) use routes::prove as prove_routes;
pub(crate) use share::prove as prove_share;

const CLIENTS: u64 = 48;
const PAIRS: u64 = 60_000;
const PAIRS_SHORT: u64 = 600;
/// Of the control, which reads from a replica directly.
const PAIRS_DIRECT: u64 = 1_000;
const REPLICAS: usize = 2;
const RUN_TIME_MAX: Duration = Duration::from_secs(900);
const POOL: &str = "size = 40, reserve = 8, query_wait = \"30s\"";

/// What is played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// For each kind of lag and each reader.
    pub(crate) pairs: u64,
    pub(crate) is_short: bool,
    /// Tenfold is told that any replica will do.
    pub(crate) ignores_floors: bool,
    pub(crate) replays: Vec<Replay>,
    pub(crate) readers: Vec<Reader>,
    /// Replicas die, stand still, and are promoted.
    pub(crate) has_faults: bool,
}

impl Options {
    /// Reads a command line; the error says what it doesn't know.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let is_short = words.contains(&"--short");
        let mut options = Self {
            pairs: if is_short { PAIRS_SHORT } else { PAIRS },
            is_short,
            ignores_floors: false,
            replays: Replay::ALL.to_vec(),
            readers: Reader::ALL.to_vec(),
            has_faults: true,
        };
        let mut words = words.iter().filter(|word| **word != "--short");
        while let Some(&word) = words.next() {
            if word == "--ignore-floors" {
                options.ignores_floors = true;
                continue;
            }
            let value = words.next().ok_or_else(|| format!("`{word}` is unknown or lacks its value"))?;
            let bad = || format!("`{word} {value}` is not understood");
            match word {
                "--pairs" => options.pairs = value.parse().map_err(|_| bad())?,
                "--readers" => {
                    let readers: Vec<&str> = value.split(',').collect();
                    options.readers.retain(|reader| readers.contains(&reader.word()));
                    if options.readers.len() != readers.len() {
                        return Err(format!("{}; there are same, identity, stranger", bad()));
                    }
                }
                "--scenes" => {
                    let scenes: Vec<&str> = value.split(',').collect();
                    options.replays.retain(|replay| scenes.contains(&replay.name()));
                    options.has_faults = scenes.contains(&"faults");
                    let known = |scene: &&str| {
                        *scene == "faults" || Replay::ALL.iter().any(|replay| replay.name() == *scene)
                    };
                    if !scenes.iter().all(known) {
                        return Err(format!("{}; there are paused, delayed, jittering, faults", bad()));
                    }
                }
                _ => return Err(bad()),
            }
        }
        Ok(options)
    }
}

pub(crate) fn prove(scratch: &Scratch, options: &Options) -> Result<Verdicts> {
    let title = if options.ignores_floors { "split, floors ignored (the control)" } else { "split" };
    let mut verdicts = Verdicts::new(format!(
        "{title}: {CLIENTS} clients, 1 primary and {REPLICAS} replicas, {} pairs of a write and a read for each",
        options.pairs
    ));
    let mut cluster = start()?;
    let consistency = if options.ignores_floors { "eventual" } else { "own_writes" };
    let mut pooler = Pooler::start_with(scratch, &database(&cluster, consistency))?;
    let mut stage = Stage { at: pooler.addr, version: 0 };
    stage.control(&cluster, &mut verdicts)?;
    for &replay in &options.replays {
        let lag = Lag::impose(&cluster, replay)?;
        for &reader in &options.readers {
            stage.scene(&cluster, replay, reader, options, &mut verdicts)?;
        }
        lag.lift(&cluster)?;
    }
    if options.has_faults {
        faults::play(&mut cluster, &mut stage, options, &mut verdicts)?;
    }
    let ended = pooler.child.try_wait();
    let state = ended.map_or("runs".into(), |status| status.to_string());
    verdicts.bar("the pooler", state, "runs", ended.is_none());
    if ended.is_some() {
        eprintln!("{}", pooler.child.log());
    }
    Ok(verdicts)
}

fn start() -> Result<Cluster> {
    let settings = [
        // Without it nothing would reach a replica for a tenth of a second.
        ("synchronous_commit", "on"),
        ("max_locks_per_transaction", "512"),
        ("max_wal_size", "2GB"),
        ("autovacuum", "off"),
    ];
    let cluster = Cluster::start(&ClusterOptions {
        replicas: REPLICAS,
        connections_max: 250,
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        ..ClusterOptions::default()
    })?;
    cluster.psql(&gauges::schema(CLIENTS))?;
    for replica in cluster.replicas() {
        Server::catch_up(replica, cluster.primary())?;
    }
    Ok(cluster)
}

/// What stands below `[database.postgres]`. Replicas are used however late they are, so that lag is never a way out.
pub(super) fn database(cluster: &Cluster, consistency: &str) -> String {
    let replicas: Vec<String> =
        cluster.replicas().iter().map(|replica| format!("\"127.0.0.1:{}\"", replica.port())).collect();
    format!(
        "{}replicas = [{}]\nreads = {{ consistency = \"{consistency}\", lag_max = \"1h\" }}\n",
        stand::database(cluster.primary().port(), POOL),
        replicas.join(", ")
    )
}

/// Where the clients play, one scene after the other.
struct Stage {
    at: SocketAddr,
    /// The last version anybody wrote.
    version: u64,
}

impl Stage {
    /// Reads at a replica itself: what the clients can't see here they would see nowhere.
    fn control(&mut self, cluster: &Cluster, verdicts: &mut Verdicts) -> Result<()> {
        for replay in Replay::ALL {
            let lag = Lag::impose(cluster, replay)?;
            let replica = cluster.replica().context("there are replicas")?;
            let reads_at = SocketAddr::from(([127, 0, 0, 1], replica.port()));
            let board = Board::new(self.at, reads_at, Reader::Stranger, CLIENTS);
            let seen = self.play(&board, PAIRS_DIRECT, || Ok(()))?;
            lag.lift(cluster)?;
            let what = format!("control, {}: stale reads at a replica itself", replay.name());
            let found = format!("{} of {}", seen.stale, seen.pairs);
            verdicts.bar(&what, found, "some", seen.stale > 0);
        }
        Ok(())
    }

    fn scene(
        &mut self,
        cluster: &Cluster,
        replay: Replay,
        reader: Reader,
        options: &Options,
        verdicts: &mut Verdicts,
    ) -> Result<()> {
        let board = Board::new(self.at, self.at, reader, CLIENTS);
        let before = Reads::count(cluster)?;
        let began = now();
        let seen = self.play(&board, options.pairs, || Ok(()))?;
        let (seconds, reads) = (began.elapsed().as_secs_f64(), Reads::count(cluster)?.since(&before));
        let scene = format!("{}, {}", replay.name(), reader.name());
        let pairs = format!("{} in {seconds:.0} s, {}", seen.pairs, reads.shown());
        verdicts.bar(
            &format!("{scene}: pairs"),
            pairs,
            &format!("≥ {}", options.pairs),
            seen.pairs >= options.pairs,
        );
        judge(&scene, &seen, options, verdicts);
        verdicts.bar(
            &format!("{scene}: failed statements"),
            format!("{} {}", seen.failed, seen.failures.join("; ")),
            "0",
            seen.failed == 0,
        );
        Ok(())
    }

    /// Has all clients play until so many pairs are made, and `meanwhile` is through.
    fn play(&mut self, board: &Board, pairs: u64, meanwhile: impl FnOnce() -> Result<()>) -> Result<Seen> {
        let first = self.version;
        let began = now();
        let (seen, last) = std::thread::scope(|scope| -> Result<(Seen, u64)> {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|index| scope.spawn(move || Client::new(board, index, first).play()))
                .collect();
            let struck = meanwhile();
            while board.pairs.load(Ordering::Relaxed) < pairs && began.elapsed() < RUN_TIME_MAX {
                pause(Duration::from_millis(20));
            }
            board.stop.store(true, Ordering::Relaxed);
            let (mut seen, mut last) = (Seen::default(), first);
            for client in clients {
                let (one, version) = client.join().ok().context("a client panicked")?;
                seen.add(one);
                last = last.max(version);
            }
            struck.map(|()| (seen, last))
        })?;
        self.version = last;
        Ok(seen)
    }
}

/// The counts that must be zero, or, of the control, must not.
fn judge(scene: &str, seen: &Seen, options: &Options, verdicts: &mut Verdicts) {
    let examples = seen.examples.join("; ");
    let wrong = seen.stale + seen.stale_of_others + seen.backwards;
    let found = format!(
        "{} stale own, {} of {} stale of others, {} backwards {examples}",
        seen.stale, seen.stale_of_others, seen.reads_of_others, seen.backwards
    );
    let (bar, held) = if options.ignores_floors { ("some", wrong > 0) } else { ("0, 0, 0", wrong == 0) };
    verdicts.bar(&format!("{scene}: stale reads"), found, bar, held);
}

/// Reads of the proof's tables, by server.
struct Reads {
    primary: u64,
    replicas: u64,
}

impl Reads {
    fn count(cluster: &Cluster) -> Result<Self> {
        let asked = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements \
            WHERE query ~ '^SELECT.*(rows|seen|trail|parents|children|shared|parts|leaf|made|version)_[0-9]|FROM (keyed|moved)' \
            AND query !~ 'raise_|FOR KEY SHARE'";
        let ask = |server: &Server| Ok::<u64, anyhow::Error>(server.psql(asked)?.trim().parse()?);
        let mut replicas = 0;
        for replica in cluster.replicas() {
            // One that is down has forgotten its counts as well.
            replicas += ask(replica).unwrap_or_default();
        }
        Ok(Self { primary: ask(cluster.primary())?, replicas })
    }

    fn since(&self, before: &Self) -> Self {
        let since = |now: u64, before: u64| now.saturating_sub(before);
        Self { primary: since(self.primary, before.primary), replicas: since(self.replicas, before.replicas) }
    }

    fn shown(&self) -> String {
        #[expect(clippy::cast_precision_loss, reason = "a share of some thousands")]
        let share = self.replicas as f64 * 100.0 / (self.primary + self.replicas).max(1) as f64;
        format!("{share:.0} % of the reads on replicas")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_are_chosen_by_name() {
        let all = Options::parse(&[]).expect("nothing is needed");
        assert_eq!((all.pairs, all.replays.len(), all.has_faults), (60_000, 3, true));
        let some =
            Options::parse(&["--short", "--scenes", "paused,faults", "--ignore-floors"]).expect("known");
        assert_eq!((some.replays, some.has_faults, some.ignores_floors), (vec![Replay::Paused], true, true));
        let stranger = Options::parse(&["--readers", "stranger"]).expect("known");
        assert_eq!(stranger.readers, [Reader::Stranger]);
        assert!(Options::parse(&["--readers", "nobody"]).is_err());
        assert!(Options::parse(&["--scenes", "sunny"]).is_err() && Options::parse(&["--pairs"]).is_err());
    }
}
