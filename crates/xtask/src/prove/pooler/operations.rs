//! Operations: PAUSE and RESUME, reloads, restarts of the server with and without PAUSE, and its death, under load.
//!
//! PAUSE and RESUME come as SIGUSR1 and SIGUSR2, reloads as SIGHUP. The judges are [`super::steady`]'s clients: what was
//! announced may cost them a wait and nothing else; what was not, the transaction they are in.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tenfold_testkit::postgres::{Cluster, Options};
use tenfold_testkit::try_wait_for;

use super::super::stand::{Scratch, now, pause};
use super::super::verdict::Verdicts;
use super::stand::Pooler;
use super::steady::{Seen, Steady};

const CLIENTS: usize = 64;
const POOL: &str = "size = 16, reserve = 4, query_wait = \"60s\"";
const RELOADS: usize = 20;
const BACK_TIME_MAX: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn prove(scratch: &Scratch, short: bool) -> Result<Verdicts> {
    let between = Duration::from_millis(if short { 300 } else { 3_000 });
    let mut verdicts =
        Verdicts::new(format!("pooler-operations: {CLIENTS} clients in transactions all the time"));
    let mut cluster = Cluster::start(&Options { fsync: true, ..Options::default() })?;
    cluster.psql("CREATE TABLE operations (at timestamptz DEFAULT now())")?;
    let mut pooler = Pooler::start(scratch, cluster.primary().port(), POOL)?;
    let announced = [Scene::Pause, Scene::Reloads, Scene::PausedRestart];
    for scene in announced {
        let seen = play(scene, &mut cluster, &mut pooler, between, &mut verdicts)?;
        verdicts.bar(&format!("{}: failed", scene.name()), seen.shown(), "0", seen.failures() == 0);
    }
    for scene in [Scene::Restart, Scene::Death] {
        let seen = play(scene, &mut cluster, &mut pooler, between, &mut verdicts)?;
        let what = format!("{}: failed", scene.name());
        let held = seen.failed_of_one_max <= 1 && seen.bare_closes == 0;
        verdicts.bar(&what, seen.shown(), "at most the one transaction each client was in", held);
        verdicts.none(&format!("{}: closes without a word", scene.name()), seen.bare_closes);
    }
    let ended = pooler.child.try_wait();
    verdicts.bar(
        "the pooler",
        ended.map_or("runs".into(), |status| status.to_string()),
        "runs",
        ended.is_none(),
    );
    Ok(verdicts)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    Pause,
    Reloads,
    PausedRestart,
    Restart,
    Death,
}

impl Scene {
    fn name(self) -> &'static str {
        match self {
            Self::Pause => "PAUSE and RESUME",
            Self::Reloads => "20 reloads",
            Self::PausedRestart => "a restart between PAUSE and RESUME",
            Self::Restart => "a restart",
            Self::Death => "kill -9 of the server",
        }
    }
}

fn play(
    scene: Scene,
    cluster: &mut Cluster,
    pooler: &mut Pooler,
    between: Duration,
    verdicts: &mut Verdicts,
) -> Result<Seen> {
    let clients = Steady::start(pooler.addr, CLIENTS);
    try_wait_for("the clients to work", LIMIT, || clients.done() > CLIENTS as u64)?;
    pause(between);
    match scene {
        Scene::Pause => {
            send(pooler, Signal::SIGUSR1)?;
            pause(between);
            send(pooler, Signal::SIGUSR2)?;
        }
        Scene::Reloads => {
            for _ in 0..RELOADS {
                send(pooler, Signal::SIGHUP)?;
                pause(between / 10);
            }
        }
        Scene::PausedRestart => {
            send(pooler, Signal::SIGUSR1)?;
            stand_still(&clients)?;
            cluster.primary_mut().restart()?;
            send(pooler, Signal::SIGUSR2)?;
        }
        Scene::Restart => cluster.primary_mut().restart()?,
        Scene::Death => {
            cluster.primary_mut().kill();
            pause(between);
            cluster.primary_mut().start()?;
        }
    }
    let (began, done) = (now(), clients.done());
    try_wait_for("the clients to go on", LIMIT, || clients.done() > done)?;
    let back = began.elapsed();
    let measured = format!("{} ms", back.as_millis());
    verdicts.bar(&format!("{}: back after", scene.name()), measured, "≤ 1 s", back <= BACK_TIME_MAX);
    pause(between);
    let seen = clients.finish()?;
    verdicts.note(&format!("{}: longest wait", scene.name()), format!("{} ms", seen.slowest.as_millis()));
    Ok(seen)
}

/// Waits until the transactions that ran have ended.
fn stand_still(clients: &Steady) -> Result<()> {
    let mut last = clients.done();
    let mut since = now();
    try_wait_for("the clients to stand still", LIMIT, || {
        let done = clients.done();
        if done != last {
            (last, since) = (done, now());
        }
        since.elapsed() > Duration::from_millis(300)
    })?;
    Ok(())
}

fn send(pooler: &mut Pooler, signal: Signal) -> Result<()> {
    if pooler.child.try_wait().is_some() {
        bail!("Tenfold has ended:\n{}", pooler.child.log());
    }
    let pid = i32::try_from(pooler.child.pid()).context("process ids are below 2^22")?;
    kill(Pid::from_raw(pid), signal).context("signalling Tenfold")
}
