//! A Redis that is stopped, killed, restarted and failed over, under load.
//!
//! One edge, hits and misses by turns. What counts is what users feel: nothing fails, hits are as fast as before and after,
//! a miss pays its budget at most; and that the origin is not overrun when everything cached has become suspect.
//!
//! The edge has a core of its own, with the thread that talks to Redis, so what that does to hits is seen; clients, nodes
//! and Redis share the others. Phases of some seconds alternate for some rounds ([`phases`]).

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

use super::phases::{self, Day, Phase, Usage};
use super::{file, until_shared};
use crate::cores;
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
/// What the origin takes for a hot key, so that fetches that run at once are seen to.
const FETCH: Duration = Duration::from_millis(20);

struct Stage {
    edge: Tenfold,
    rate: f64,
    seconds: u64,
    phases: Vec<Phase>,
    /// The most hot keys that were fetched at once.
    most: Arc<AtomicU64>,
    /// The same, after each restart and failover.
    refills: u64,
}

pub(super) fn play(scratch: &Scratch, short: bool, verdicts: &mut Verdicts) -> Result<()> {
    let (rounds, seconds, rate) = if short { (1, 4, 500.0) } else { (5, 5, 1000.0) };
    let apart = cores::keep_off_the_servers()?;
    verdicts.note("the edge has a core of its own", if apart { "yes" } else { "no, there is one" });
    let (origin, most) = origin()?;
    let mut master = Redis::start(&[])?;
    let proxy = Proxy::start(([127, 0, 0, 1], master.port()).into())?;
    let through = format!("redis://{}", proxy.addr());
    // A miss is what the budget is about, so there is no shield.
    let text = file(&origin, Some(&through), "").replace("shield = true, ", "");
    let edge = Tenfold::start_on(scratch, "bad-days", &text, apart.then_some(cores::SERVER))?;
    until_shared(&edge)?;
    fill(edge.edge)?;
    let borne = most.swap(0, Ordering::SeqCst);
    let what = "requests the cluster was seen to bear at once";
    verdicts.bar(what, borne, &format!("≤ {BORNE}"), borne <= BORNE);
    let mut stage = Stage { edge, rate, seconds, phases: Vec::new(), most, refills: 0 };
    for _ in 0..rounds {
        master = stage.round(master, &proxy)?;
    }
    stage.run(Day::Undisturbed, || ())?;
    phases::judge(&stage.phases, verdicts);
    let what = "fetches of hot keys at once after a restart or a failover";
    let bar = format!("≤ {REFILLS_MAX}, a tenth of that");
    verdicts.bar(what, stage.refills, &bar, stage.refills <= REFILLS_MAX);
    verdicts.note("places lost", stage.edge.status()?["shared"]["places_lost"].clone());
    verdicts.none("panics", if stage.edge.metric("tenfold_service_panics_total")? > 0.0 { 1 } else { 0 });
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

impl Stage {
    /// Every bad day once, with undisturbed ones between them. Gives the master that is left.
    fn round(&mut self, mut master: Redis, proxy: &Proxy) -> Result<Redis> {
        self.run(Day::Undisturbed, || ())?;
        self.run(Day::Stopped, || master.freeze())?;
        master.thaw();
        until_shared(&self.edge)?;
        self.run(Day::Undisturbed, || ())?;
        self.run(Day::Killed, || master.kill())?;
        self.most.store(0, Ordering::SeqCst);
        self.run(Day::Restarted, || master.restart().unwrap_or_else(|error| panic!("{error}")))?;
        until_shared(&self.edge)?;
        self.see_refills();
        self.run(Day::Undisturbed, || ())?;
        let replica = master.replica()?;
        self.most.store(0, Ordering::SeqCst);
        self.run(Day::FailedOver, || {
            replica.promote();
            master.kill();
            proxy.set_server(([127, 0, 0, 1], replica.port()).into());
            proxy.sever();
        })?;
        until_shared(&self.edge)?;
        self.see_refills();
        Ok(replica)
    }

    fn see_refills(&mut self) {
        self.refills = self.refills.max(self.most.load(Ordering::SeqCst));
    }

    /// Runs the load, and does `what` to Redis a second after its start.
    fn run(&mut self, day: Day, mut what: impl FnMut()) -> Result<()> {
        let schedule = Schedule::constant(self.rate, Duration::from_secs(self.seconds), Spacing::Poisson, 1)?;
        let addresses = vec![format!("http://{}", self.edge.edge)];
        let mut plan = Plan::new(addresses, scenario(self.phases.len()), schedule);
        plan.log_requests = true;
        let pid = self.edge.child.pid();
        let before = Usage::read(pid)?;
        let run = tenfold_loadgen::run(&plan, &Stop::default(), &mut |second| {
            if second.second == 0 {
                what();
            }
        })?;
        let usage = Usage::read(pid)?.since(before);
        let failed = run.report.routes.iter().map(|route| route.errors).sum();
        let requests = run.log.lines().len() as u64;
        let (hit, miss) = (Took::of(&run, &[HOT]), Took::of(&run, &[COLD]));
        self.phases.push(Phase { day, hit, miss, failed, requests, usage });
        Ok(())
    }
}

/// Hits and misses, 4 : 1. Keys of misses are unlike those of other phases.
fn scenario(phase: usize) -> Scenario {
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
    Scenario {
        name: "cache-redis".into(),
        setup: Vec::new(),
        routes: vec![
            route("hot", 4, format!("/hot/{{random:1-{HOT_KEYS}}}")),
            route("cold", 1, format!("/cold/{phase}/{{n}}")),
        ],
        count_headers: Vec::new(),
    }
}
