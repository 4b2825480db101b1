//! A Redis that is stopped, killed, restarted and failed over, under load.
//!
//! One edge, hits and misses by turns. What counts is what users feel: nothing fails, hits are as fast as before, a miss
//! pays its budget at most; and that the origin is not overrun when everything cached has become suspect.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenfold_loadgen::scenario::{Class, Route};
use tenfold_loadgen::schedule::Spacing;
use tenfold_loadgen::{Plan, Scenario, Schedule, Stop};
use tenfold_testkit::fault::Proxy;
use tenfold_testkit::redis::Redis;
use tenfold_testkit::{Answer, Origin, raw};

use super::{file, until_shared};
use crate::prove::failover::Took;
use crate::prove::stand::{Scratch, Tenfold, pause};
use crate::prove::verdict::Verdicts;

const HOT: usize = 0;
const COLD: usize = 1;
const HOT_KEYS: u32 = 500;
/// Clients that fill the cache at first, so that the edge learns what its cluster bears.
const BORNE: u64 = 80;
/// A tenth of it.
const REFILLS_MAX: u64 = BORNE / 10;
const BUDGET_MS: f64 = 5.0;
const HIT_RATIO_MAX: f64 = 1.2;
/// What the origin takes for a hot key, so that fetches that run at once are seen to.
const FETCH: Duration = Duration::from_millis(20);

/// What one phase showed.
struct Phase {
    hit: Took,
    miss: Took,
    failed: u64,
}

struct Stage<'s> {
    edge: Tenfold,
    rate: f64,
    seconds: u64,
    verdicts: &'s mut Verdicts,
    before: Option<Phase>,
}

pub(super) fn play(scratch: &Scratch, short: bool, verdicts: &mut Verdicts) -> Result<()> {
    let (seconds, rate) = if short { (5, 500.0) } else { (20, 1000.0) };
    let (origin, most) = origin()?;
    let mut master = Redis::start(&[])?;
    let proxy = Proxy::start(([127, 0, 0, 1], master.port()).into())?;
    let through = format!("redis://{}", proxy.addr());
    // A miss is what the budget is about, so there is no shield.
    let text = file(&origin, Some(&through), "").replace("shield = true, ", "");
    let edge = Tenfold::start_as(scratch, "bad-days", &text)?;
    until_shared(&edge)?;
    fill(edge.edge)?;
    let borne = most.swap(0, Ordering::SeqCst);
    verdicts.bar(
        "requests the cluster was seen to bear at once",
        borne,
        &format!("≤ {BORNE}"),
        borne <= BORNE,
    );
    let mut stage = Stage { edge, rate, seconds, verdicts, before: None };
    stage.run("before", |_| ())?;
    stage.run("Redis stopped (SIGSTOP)", |_| master.freeze())?;
    master.thaw();
    until_shared(&stage.edge)?;
    stage.run("killed", |_| master.kill())?;
    most.store(0, Ordering::SeqCst);
    stage.run("restarted", |_| master.restart().unwrap_or_else(|error| panic!("{error}")))?;
    until_shared(&stage.edge)?;
    let refills = most.swap(0, Ordering::SeqCst);
    let bar = format!("≤ {REFILLS_MAX}, a tenth of that");
    stage.verdicts.bar("fetches of hot keys at once after it", refills, &bar, refills <= REFILLS_MAX);
    let replica = master.replica()?;
    stage.run("failed over to its replica", |_| {
        replica.promote();
        master.kill();
        proxy.set_server(([127, 0, 0, 1], replica.port()).into());
        proxy.sever();
    })?;
    until_shared(&stage.edge)?;
    let refills = most.load(Ordering::SeqCst);
    stage.verdicts.bar("fetches of hot keys at once after it", refills, &bar, refills <= REFILLS_MAX);
    let lost = stage.edge.status()?["shared"]["places_lost"].clone();
    stage.verdicts.note("places lost", lost);
    stage
        .verdicts
        .none("panics", if stage.edge.metric("tenfold_service_panics_total")? > 0.0 { 1 } else { 0 });
    Ok(())
}

/// Asks for each hot key once, as many clients at a time as the cluster is to bear.
fn fill(edge: SocketAddr) -> Result<()> {
    let client = |n: u64| {
        std::thread::spawn(move || -> Result<()> {
            let mut client = raw::Client::connect(edge)?;
            for key in (1..=u64::from(HOT_KEYS)).filter(|key| key % BORNE == n) {
                client.get(&format!("/hot/{key}"))?;
            }
            Ok(())
        })
    };
    let clients: Vec<_> = (0..BORNE).map(client).collect();
    for client in clients {
        client.join().ok().context("a client panicked")??;
    }
    Ok(())
}

/// Counts how many hot keys are fetched at once, at most.
fn origin() -> Result<(Origin, Arc<AtomicU64>)> {
    let (running, most) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    let of_origin = Arc::clone(&most);
    let origin = Origin::serve(move |request| {
        if request.path().starts_with("/hot/") {
            let at_once = running.fetch_add(1, Ordering::SeqCst) + 1;
            of_origin.fetch_max(at_once, Ordering::SeqCst);
            pause(FETCH);
            running.fetch_sub(1, Ordering::SeqCst);
        }
        Answer::ok("a body of some length").cache_control("max-age=3600")
    })?;
    Ok((origin, most))
}

impl Stage<'_> {
    /// Runs the load, and does `what` to Redis a second after its start.
    fn run(&mut self, name: &str, mut what: impl FnMut(&Tenfold)) -> Result<()> {
        let schedule = Schedule::constant(self.rate, Duration::from_secs(self.seconds), Spacing::Poisson, 1)?;
        let mut plan = Plan::new(vec![format!("http://{}", self.edge.edge)], scenario(name), schedule);
        plan.log_requests = true;
        let edge = &self.edge;
        let run = tenfold_loadgen::run(&plan, &Stop::default(), &mut |second| {
            if second.second == 0 {
                what(edge);
            }
        })?;
        let failed = run.report.routes.iter().map(|route| route.errors).sum();
        let phase = Phase { hit: Took::of(&run, &[HOT]), miss: Took::of(&run, &[COLD]), failed };
        self.verdicts.none(&format!("{name}: failed"), phase.failed);
        let Some(before) = &self.before else {
            let shown = |took: &Took| format!("{:.2} / {:.2} ms", took.p50_ms, took.p99_ms);
            self.verdicts.note("before: hits, p50 / p99", shown(&phase.hit));
            self.verdicts.note("before: misses, p50 / p99", shown(&phase.miss));
            self.before = Some(phase);
            return Ok(());
        };
        let ratio = phase.hit.p99_ms / before.hit.p99_ms;
        let measured = format!("{ratio:.2}× ({:.2} ms)", phase.hit.p99_ms);
        self.verdicts.bar(&format!("{name}: hits, p99"), measured, "≤ 1.2× before", ratio <= HIT_RATIO_MAX);
        let added = phase.miss.p99_ms - before.miss.p99_ms;
        let measured = format!("{added:+.2} ms ({:.2} ms)", phase.miss.p99_ms);
        self.verdicts.bar(&format!("{name}: misses, p99"), measured, "≤ +5 ms", added <= BUDGET_MS);
        Ok(())
    }
}

/// Hits and misses, 4 : 1. Keys of misses are unlike those of other phases.
fn scenario(phase: &str) -> Scenario {
    let route = |name: &str, weight: u32, path: String| Route {
        name: name.to_owned(),
        weight,
        method: "GET".to_owned(),
        path,
        headers: BTreeMap::new(),
        body: None,
        expect: vec![200],
        slo_exempt: false,
        class: Class::Cacheable,
    };
    let apart: String = phase.chars().filter(char::is_ascii_alphabetic).collect();
    Scenario {
        name: "cache-redis".into(),
        setup: Vec::new(),
        routes: vec![
            route("hot", 4, format!("/hot/{{random:1-{HOT_KEYS}}}")),
            route("cold", 1, format!("/cold/{apart}/{{n}}")),
        ],
        count_headers: Vec::new(),
    }
}
