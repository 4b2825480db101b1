//! Failover: a node is killed under load, then both are, then they come back.
//!
//! Three scenes with two nodes that are processes. One dies by SIGKILL in the middle of a minute at 2,000 requests a
//! second: reads go on, and no POST reaches a node twice, by the nodes' own ledger. Both die: cached routes answer from
//! their stale copies, all others are refused at once and say why. They come back, one after the other: each has
//! traffic again after as many passed checks as it takes.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenfold_loadgen::report::RouteReport;
use tenfold_loadgen::scenario::{Class, CountHeader, Route};
use tenfold_loadgen::schedule::Spacing;
use tenfold_loadgen::{Plan, Run, Scenario, Schedule, Stop};
use tenfold_testkit::{raw, try_wait_for};

use super::stand::{Node, Scratch, Tenfold, now, pause};
use super::verdict::Verdicts;

const TOML: &str = r#"
[cluster.api]
nodes = [@NODES@]
health = { path = "/health" }

[[route]]
name = "cached"
path = "/cached/{key}"
to = "api"
cache = { ttl = "1s", stale_if_error = "10m" }

[[route]]
name = "rest"
path = "/{*rest}"
to = "api"
cache = "off"
"#;

/// The defaults, which the file above leaves as they are.
const HEALTH_EVERY: Duration = Duration::from_secs(2);
const PASS_AFTER: u32 = 2;

const READ: usize = 0;
const CACHED: usize = 1;
const ORDER: usize = 2;
const CACHED_KEYS: u32 = 200;

const REFUSAL_MS_MAX: f64 = 50.0;
const FAILED_READS_MAX: f64 = 0.0005;
/// Far beyond the promise, so that a late return is measured and not only missed.
const RETURN_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn prove(scratch: &Scratch, short: bool) -> Result<Verdicts> {
    let (seconds, rate) = if short { (10, 1000.0) } else { (60, 2000.0) };
    let ledger = scratch.file("posts");
    let mut nodes = [Node::new(&ledger)?, Node::new(&ledger)?];
    for node in &mut nodes {
        node.start()?;
    }
    let addresses: Vec<_> = nodes.iter().map(|node| format!("\"{}\"", node.addr)).collect();
    let tenfold = Tenfold::start(scratch, &TOML.replace("@NODES@", &addresses.join(", ")))?;
    let title = format!("failover: two nodes, {seconds} s at {rate} requests/s, kill -9");
    let mut scene = Scene { tenfold, nodes, ledger, verdicts: Verdicts::new(title) };
    scene.warm()?;
    scene.one_dies(seconds, rate)?;
    scene.both_are_dead(seconds / 3, rate / 2.0)?;
    scene.both_come_back()?;
    scene.verdicts.none("panics", count(scene.tenfold.metric("tenfold_service_panics_total")?));
    Ok(scene.verdicts)
}

struct Scene {
    tenfold: Tenfold,
    nodes: [Node; 2],
    ledger: PathBuf,
    verdicts: Verdicts,
}

impl Scene {
    /// Every cached key is stored, so that the outage finds something to stand in.
    fn warm(&self) -> Result<()> {
        let mut client = raw::Client::connect(self.tenfold.edge)?;
        for key in 1..=CACHED_KEYS {
            let status = client.get(&format!("/cached/{key}"))?.status;
            anyhow::ensure!(status == 200, "warming up: {status}");
        }
        Ok(())
    }

    fn plan(&self, rate: f64, seconds: u64, scenario: Scenario) -> Result<Plan> {
        let schedule = Schedule::constant(rate, Duration::from_secs(seconds), Spacing::Poisson, 1)?;
        let mut plan = Plan::new(vec![format!("http://{}", self.tenfold.edge)], scenario, schedule);
        plan.log_requests = true;
        Ok(plan)
    }

    fn one_dies(&mut self, seconds: u64, rate: f64) -> Result<()> {
        let plan = self.plan(rate, seconds, scenario("order", &[]))?;
        let Self { nodes: [victim, _], .. } = self;
        let run = tenfold_loadgen::run(&plan, &Stop::default(), &mut |second| {
            if u64::from(second.second) + 1 == seconds / 2 {
                victim.kill();
            }
        })?;
        let report = &run.report;
        let [read, cached, order] = routes(&run)?;
        let (failed, offered) = (read.errors + cached.errors, read.offered + cached.offered);
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
        let share = failed as f64 / offered as f64;
        let measured = format!("{failed} of {offered} ({:.4} %)", share * 100.0);
        self.verdicts.bar("one node killed: failed GETs", measured, "≤ 0.05 %", share <= FAILED_READS_MAX);
        let posts = Posts::read(&self.ledger)?;
        self.verdicts.none("POSTs that reached a node twice", posts.twice);
        self.verdicts
            .none("POSTs answered 2xx that no node wrote down", order.ok.saturating_sub(posts.distinct));
        self.verdicts.note(
            "POSTs offered / answered / written down",
            format!("{} / {} / {}", order.offered, order.ok, posts.distinct),
        );
        self.verdicts.note("what failed, of all", shown(&report.failures));
        self.verdicts.note(
            "latency p50 / p99 / max",
            shown_ms(report.latency.p50_ms, report.latency.p99_ms, report.latency.max_ms),
        );
        self.verdicts.note("the load generator's own lag, p99", format!("{:.1} ms", report.lag.p99_ms));
        self.verdicts.note("retries", self.tenfold.status()?["clusters"][0]["retries"].clone());
        Ok(())
    }

    fn both_are_dead(&mut self, seconds: u64, rate: f64) -> Result<()> {
        for node in &mut self.nodes {
            node.kill();
        }
        // The cached copies have to be stale for standing in to mean something.
        pause(Duration::from_millis(1500));
        let mut stale = raw::Client::connect(self.tenfold.edge)?;
        let shown_stale = stale.get("/cached/1")?.header("cache-status").unwrap_or("none").to_owned();
        let plan = self.plan(rate, seconds, scenario("outage", &[503]))?;
        let run = tenfold_loadgen::run(&plan, &Stop::default(), &mut |_| {})?;
        let [read, cached, order] = routes(&run)?;
        let report = &run.report;
        self.verdicts.bar(
            "both dead: cached GETs answered 200",
            format!("{} of {}", cached.ok, cached.offered),
            "all",
            cached.ok == cached.offered && cached.offered > 0,
        );
        // A fetch that failed for this answer, or one that failed a moment ago and was not repeated.
        let of = |name, value| header(report, name).get(value).copied().unwrap_or(0);
        let stale = of("cache-status", "fwd=stale") + of(DETAIL, "detail=stale_if_error");
        self.verdicts.bar(
            "… that say they are stale",
            format!("{stale}; `{shown_stale}`"),
            "all",
            stale == cached.ok,
        );
        let others = read.offered + order.offered;
        let reasons = header(report, "tenfold-reason");
        let named: u64 = reasons.iter().filter(|(text, _)| *text != "-").map(|(_, count)| count).sum();
        self.verdicts.bar(
            "both dead: others refused with 503",
            format!("{} of {others}", read.ok + order.ok),
            "all",
            read.ok + order.ok == others,
        );
        self.verdicts.bar(
            "… with a Tenfold-Reason",
            format!("{named} ({})", shown(&reasons)),
            "all",
            named == others,
        );
        let took = Took::of(&run, &[READ, ORDER]);
        self.verdicts.bar(
            "… within, p99",
            format!("{:.2} ms", took.p99_ms),
            "≤ 50 ms",
            took.p99_ms <= REFUSAL_MS_MAX,
        );
        let Took { p50_ms, p999_ms, max_ms, .. } = took;
        self.verdicts
            .note("… within, p50 / p99.9 / max", format!("{p50_ms:.2} / {p999_ms:.2} / {max_ms:.2} ms"));
        self.verdicts
            .note("the load generator's own lag meanwhile, p99", format!("{:.1} ms", report.lag.p99_ms));
        let took = Took::of(&run, &[CACHED]);
        self.verdicts
            .note("stale answers within, p99 / max", format!("{:.2} / {:.2} ms", took.p99_ms, took.max_ms));
        Ok(())
    }

    fn both_come_back(&mut self) -> Result<()> {
        let edge = self.tenfold.edge;
        let promised = HEALTH_EVERY * (PASS_AFTER + 1);
        let states = self.tenfold.status()?["clusters"][0]["nodes"].clone();
        self.verdicts.note(
            "the nodes' states before",
            states.as_array().map_or_else(String::new, |nodes| {
                nodes.iter().map(|node| node["state"].to_string()).collect::<Vec<_>>().join(", ")
            }),
        );
        // Some traffic, so that the node with the fewest requests in flight is not always the first.
        let plan = self.plan(200.0, 600, scenario("return", &[200, 503]))?;
        let stop = Stop::default();
        let of_load = stop.clone();
        let load = std::thread::spawn(move || tenfold_loadgen::run(&plan, &of_load, &mut |_| {}).map(drop));
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.start()?;
            let (started, addr) = (now(), node.addr.to_string());
            try_wait_for("traffic to return", RETURN_LIMIT, || {
                raw::get(edge, "/read/back")
                    .is_ok_and(|answer| answer.header("x-node") == Some(addr.as_str()))
            })?;
            let took = started.elapsed();
            let what = if index == 0 { "the first node is back: traffic after" } else { "the second: after" };
            let bar = format!("≤ {:.0} s", promised.as_secs_f64());
            self.verdicts.bar(what, format!("{:.2} s", took.as_secs_f64()), &bar, took <= promised);
        }
        stop.stop();
        load.join().ok().context("the load panicked")??;
        Ok(())
    }
}

/// Reads, cached reads and orders, 5 : 3 : 2. Each order's target is unlike any other's.
fn scenario(orders: &str, uncached: &[u16]) -> Scenario {
    let route = |name: &str, weight: u32, method: &str, path: &str, class: Class| Route {
        name: name.to_owned(),
        weight,
        method: method.to_owned(),
        path: path.to_owned(),
        headers: BTreeMap::new(),
        body: None,
        expect: vec![200],
        slo_exempt: false,
        class,
    };
    let expect = if uncached.is_empty() { vec![200] } else { uncached.to_vec() };
    let read = route("read", 5, "GET", "/read/{random:1-100000}", Class::Personal);
    let cached = route("cached", 3, "GET", &format!("/cached/{{random:1-{CACHED_KEYS}}}"), Class::Cacheable);
    // Without a body: the only kind that could be sent again at all.
    let order = route("order", 2, "POST", &format!("/{orders}/{{n}}"), Class::Write);
    Scenario {
        name: "failover".into(),
        setup: Vec::new(),
        routes: vec![Route { expect: expect.clone(), ..read }, cached, Route { expect, ..order }],
        count_headers: vec![
            CountHeader::of("cache-status"),
            CountHeader { name: DETAIL.into(), part: 3 },
            CountHeader::of("tenfold-reason"),
        ],
    }
}

fn routes(run: &Run) -> Result<[&RouteReport; 3]> {
    let routes: Vec<_> = run.report.routes.iter().collect();
    routes.try_into().ok().context("the report has three routes")
}

/// `Cache-Status` again, by the part that holds the detail: the report tells counted headers apart by their spelling.
const DETAIL: &str = "Cache-Status";

fn header(report: &tenfold_loadgen::Report, name: &str) -> BTreeMap<String, u64> {
    report.headers.get(name).cloned().unwrap_or_default()
}

fn shown(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "nothing".into();
    }
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn shown_ms(p50: f64, p99: f64, max: f64) -> String {
    format!("{p50:.1} / {p99:.1} / {max:.1} ms")
}

/// What the nodes wrote down.
struct Posts {
    distinct: u64,
    /// Lines beyond the first of the same order.
    twice: u64,
}

impl Posts {
    fn read(ledger: &std::path::Path) -> Result<Self> {
        let text = std::fs::read_to_string(ledger).context("the nodes wrote nothing down")?;
        let mut seen: HashMap<&str, u64> = HashMap::new();
        for line in text.lines() {
            *seen.entry(line).or_default() += 1;
        }
        Ok(Self { distinct: seen.len() as u64, twice: seen.values().map(|count| count - 1).sum() })
    }
}

/// From the first byte sent to the last received: the edge's time, without the generator's own delays.
#[derive(Debug, Default)]
pub(super) struct Took {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
}

impl Took {
    pub(super) fn of(run: &Run, routes: &[usize]) -> Self {
        let lines = run.log.lines().iter().filter(|line| routes.contains(&usize::from(line.route)));
        let mut took_us: Vec<u64> = lines.map(|line| line.ended_us - line.started_us).collect();
        took_us.sort_unstable();
        let at = |per_mille: usize| {
            let index = (took_us.len() * per_mille / 1000).min(took_us.len().saturating_sub(1));
            #[expect(clippy::cast_precision_loss, reason = "durations far below 2^53 microseconds")]
            let us = took_us.get(index).copied().unwrap_or(0) as f64;
            us / 1000.0
        };
        Self { p50_ms: at(500), p99_ms: at(990), p999_ms: at(999), max_ms: at(1000) }
    }
}

/// A counter's value as what it is.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters are whole and not negative"
)]
fn count(value: f64) -> u64 {
    value as u64
}
