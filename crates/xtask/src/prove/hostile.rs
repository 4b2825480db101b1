//! Hostile clients, lying origins: what comes of bytes that nobody should send.
//!
//! Everything is thrown at one real Tenfold while good clients go on, so that what the bad ones cost shows where it
//! matters: in the good ones' failures, in memory, in panics, and at the node, which counts what reaches it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tenfold_loadgen::scenario::{Class, Route};
use tenfold_loadgen::schedule::Spacing;
use tenfold_loadgen::{Plan, Report, Scenario, Schedule, Stop};
use tenfold_testkit::hostile::{self, Lie, SMUGGLED};
use tenfold_testkit::raw::Client;
use tenfold_testkit::{Answer, Origin, raw, try_wait_for};

use super::garbage::{self, POUR_BYTES_MAX};
use super::stand::{Scratch, Tenfold, now};
use super::verdict::Verdicts;

/// Short times, so that what has to time out does so within the proof.
const TOML: &str = r#"
edge.head_read = "2s"
edge.body_idle = "2s"

[cache]
memory = "32MiB"

[cluster.honest]
nodes = ["@HONEST@"]

[cluster.liar]
nodes = ["@LIAR@"]
timeout = { response = "5s", idle = "5s" }

[[route]]
name = "good"
path = "/good/{key}"
to = "honest"
cache = { ttl = "1s" }

[[route]]
name = "lies"
path = "/lies/{*rest}"
to = "liar"
cache = { ttl = "10m", stale_if_error = "10m" }

[[route]]
name = "rest"
path = "/{*rest}"
to = "honest"
cache = "off"
"#;

const GOOD_RATE: f64 = 200.0;
/// More than the kernel's buffers of both ends take, so that a client that does not read is noticed.
const BIG_BODY_BYTES: usize = 8 << 20;
/// What the cache may hold, each worker's buffers, and what 2,000 dribbled heads may take: nothing near what is sent.
const MEMORY_MIB_MAX: u64 = 256;
/// For a head to time out, its answer to be read, and the connection to be closed.
const DRIBBLE_LIMIT: Duration = Duration::from_secs(30);
const DRIBBLE_S_MAX: f64 = 10.0;

/// How much of each.
struct Size {
    garbage: u64,
    dribbling: usize,
    vanishing: usize,
    not_reading: u32,
}

pub(crate) fn prove(scratch: &Scratch, short: bool) -> Result<Verdicts> {
    let size = if short {
        Size { garbage: 1000, dribbling: 200, vanishing: 60, not_reading: 6 }
    } else {
        Size { garbage: 10_000, dribbling: 2000, vanishing: 600, not_reading: 20 }
    };
    raise_descriptors()?;
    let strangers = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&strangers);
    let honest = Origin::serve(move |request| {
        let is_good = request.target.starts_with("/good/");
        counter.fetch_add(u64::from(!is_good), Ordering::SeqCst);
        let body = if request.path() == "/big" { vec![b'x'; BIG_BODY_BYTES] } else { b"ok".to_vec() };
        Answer::ok(body)
    })?;
    let lies = hostile::answers();
    let liar = {
        let lies = lies.clone();
        Origin::serve(move |request| {
            let index = request.path().strip_prefix("/lies/").and_then(|index| index.parse::<usize>().ok());
            index.and_then(|index| lies.get(index)).map_or(Answer::new(404), |(_, _, answer)| answer.clone())
        })?
    };
    let toml =
        TOML.replace("@HONEST@", &honest.addr().to_string()).replace("@LIAR@", &liar.addr().to_string());
    let tenfold = Tenfold::start(scratch, &toml)?;
    let (at_rest, _) = tenfold.memory_mib()?;
    let good = Good::start(tenfold.edge)?;
    let mut scene = Scene {
        edge: tenfold.edge,
        tenfold,
        honest,
        strangers,
        verdicts: Verdicts::new("hostile: real sockets, good clients meanwhile"),
    };
    scene.malformed(&size)?;
    scene.without_end()?;
    scene.too_slow(&size)?;
    scene.leaving(&size)?;
    scene.lies(&lies, &liar)?;
    scene.admin(&size)?;
    scene.aftermath(at_rest, &good.finish()?)?;
    Ok(scene.verdicts)
}

struct Scene {
    edge: SocketAddr,
    tenfold: Tenfold,
    honest: Origin,
    strangers: Arc<AtomicU64>,
    verdicts: Verdicts,
}

impl Scene {
    /// Whole requests at the node that no good client made.
    fn strangers(&self) -> u64 {
        self.strangers.load(Ordering::SeqCst)
    }

    fn malformed(&mut self, size: &Size) -> Result<()> {
        let ends = garbage::malformed(self.edge, true)?;
        let held = ends.wrong.is_empty();
        self.verdicts.bar(
            "malformed requests: an error with its reason and a close, or a close",
            ends.shown(),
            "all",
            held,
        );
        self.verdicts.none("… that reached the node", self.strangers());
        let began = now();
        let ends = garbage::random(self.edge, size.garbage, true)?;
        let held = ends.wrong.is_empty();
        let what = format!("{} connections of garbage", size.garbage);
        self.verdicts.bar(
            &what,
            format!("{} in {:.1} s", ends.shown(), began.elapsed().as_secs_f64()),
            "all",
            held,
        );
        self.verdicts.none("… that reached the node", self.strangers());
        let mut client = Client::connect(self.edge)?;
        client.send(
            "GET /first HTTP/1.1\r\nHost: a\r\n\r\nGARBAGE\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        )?;
        let (first, second) = (client.response()?, client.response()?);
        let held = first.status == 200 && second.status == 400 && client.closed_in_silence();
        self.verdicts.bar(
            "garbage behind a valid request",
            format!("{}, then {}, then a close", first.status, second.status),
            "200, 400, close",
            held,
        );
        self.verdicts.none("requests smuggled behind a fault", self.honest.count("GET", SMUGGLED));
        Ok(())
    }

    fn without_end(&mut self) -> Result<()> {
        let chunked = "POST /endless HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let extension = format!("{chunked}5;");
        let trailers = format!("{chunked}0\r\n");
        let endless = [
            ("a head of endless fields", "GET / HTTP/1.1\r\nHost: a\r\n", "X-Endless: head\r\n"),
            ("an endless field", "GET / HTTP/1.1\r\nHost: a\r\nX: ", "x"),
            ("an endless target", "GET /", "x"),
            ("endless empty lines", "\r\n", "\r\n"),
            ("an endless chunk extension", &extension, "x"),
            ("endless trailers", &trailers, "X: a\r\n"),
        ];
        let before = self.strangers();
        for (what, first, again) in endless {
            let (poured, ends) = garbage::pour(self.edge, first, again)?;
            let measured = format!("{}, {} KiB taken", ends.shown(), poured >> 10);
            let held = ends.wrong.is_empty() && poured < POUR_BYTES_MAX;
            self.verdicts.bar(what, measured, "an error or a close", held);
        }
        self.verdicts.none("… that reached the node", self.strangers() - before);
        Ok(())
    }

    fn too_slow(&mut self, size: &Size) -> Result<()> {
        let (open, took) = garbage::dribble(self.edge, size.dribbling, DRIBBLE_LIMIT)?;
        let what = format!("{} connections that dribble a head", size.dribbling);
        let measured = format!("{open} open after {:.1} s", took.as_secs_f64());
        self.verdicts.bar(
            &what,
            measured,
            "none after 10 s",
            open == 0 && took.as_secs_f64() <= DRIBBLE_S_MAX,
        );
        let streams = garbage::ask_and_not_read(self.edge, "/big", size.not_reading)?;
        let asked = u64::from(size.not_reading);
        try_wait_for("all to have asked", DRIBBLE_LIMIT, || self.honest.count("GET", "/big") == asked)?;
        let began = now();
        let slow_readers =
            || self.tenfold.metric_of("tenfold_edge_refusals_total", "reason=\"slow_reader\"").ok();
        let left = try_wait_for("those who do not read to be cut", DRIBBLE_LIMIT, || {
            slow_readers().is_some_and(|cut| cut >= f64::from(size.not_reading))
        });
        let took = format!("cut after {:.1} s", began.elapsed().as_secs_f64());
        drop(streams);
        let what = format!("{} clients that do not read 8 MiB", size.not_reading);
        self.verdicts.bar(
            &what,
            if left.is_ok() { took.as_str() } else { "still open after 30 s" },
            "cut",
            left.is_ok(),
        );
        Ok(())
    }

    fn leaving(&mut self, size: &Size) -> Result<()> {
        let before = self.strangers();
        let ends = garbage::vanish(self.edge, size.vanishing)?;
        self.verdicts.bar(
            &format!("{} uploads that vanish", size.vanishing),
            ends.shown(),
            "refused or closed",
            ends.wrong.is_empty(),
        );
        self.verdicts.none("… that the node took for whole", self.strangers() - before);
        let end = garbage::half_close(self.edge)?;
        self.verdicts.bar(
            "a whole request, then a half-close",
            end,
            "an answer or an end",
            end != "left open",
        );
        Ok(())
    }

    /// Each lie twice: none may be taken for an answer, or asked for only once.
    fn lies(&mut self, lies: &[(&'static str, Lie, Answer)], liar: &Origin) -> Result<()> {
        let (mut wrong, mut stored) = (Vec::new(), Vec::new());
        for (index, (name, lie, _)) in lies.iter().enumerate() {
            let target = format!("/lies/{index}");
            for _ in 0..2 {
                let answer = Client::connect(self.edge)?.get(&target);
                let is_refused = answer
                    .as_ref()
                    .is_ok_and(|answer| answer.status == 502 && answer.header("tenfold-reason").is_some());
                let held = match lie {
                    Lie::Refused => is_refused,
                    // A broken connection is the other way of saying that this was not all.
                    Lie::CutShort => is_refused || answer.is_err(),
                    Lie::Surplus => answer.as_ref().is_ok_and(|answer| answer.text() == "ok"),
                };
                if !held {
                    wrong.push(format!(
                        "{name}: {:?}",
                        answer.map(|answer| (answer.status, answer.body.len()))
                    ));
                }
            }
            if *lie != Lie::Surplus && liar.count("GET", &target) < 2 {
                stored.push(*name);
            }
        }
        let count = lies.len();
        self.verdicts.bar(
            "lying answers: refused, cut short, or the surplus dropped",
            format!("{} of {count} wrong {}", wrong.len(), wrong.join(", ")),
            "0",
            wrong.is_empty(),
        );
        self.verdicts.bar(
            "… that were stored",
            format!("{} {}", stored.len(), stored.join(", ")),
            "0",
            stored.is_empty(),
        );
        Ok(())
    }

    fn admin(&mut self, size: &Size) -> Result<()> {
        let admin = self.tenfold.admin;
        let ends = garbage::malformed(admin, false)?;
        self.verdicts.bar("admin: malformed requests", ends.shown(), "all", ends.wrong.is_empty());
        let ends = garbage::random(admin, size.garbage / 10, false)?;
        self.verdicts.bar(
            &format!("admin: {} connections of garbage", size.garbage / 10),
            ends.shown(),
            "all",
            ends.wrong.is_empty(),
        );
        let healthy = raw::get(admin, "/healthz").is_ok_and(|answer| answer.status == 200);
        self.verdicts.bar("admin: healthy afterwards", healthy, "true", healthy);
        Ok(())
    }

    fn aftermath(&mut self, at_rest: u64, good: &Report) -> Result<()> {
        let (now, peak) = self.tenfold.memory_mib()?;
        let measured = format!("{at_rest} MiB at rest, {peak} MiB at its peak, {now} MiB after");
        self.verdicts.bar("memory", measured, "≤ 256 MiB", peak <= MEMORY_MIB_MAX);
        let failures: Vec<String> =
            good.failures.iter().map(|(what, count)| format!("{what} {count}")).collect();
        let measured = format!("{} of {} {}", good.errors, good.offered, failures.join(", "));
        self.verdicts.bar("good clients meanwhile: failed", measured, "0", good.errors == 0 && good.ok > 0);
        let Report { latency, .. } = good;
        self.verdicts.note(
            "… latency p50 / p99 / max",
            format!("{:.1} / {:.1} / {:.1} ms", latency.p50_ms, latency.p99_ms, latency.max_ms),
        );
        let mut seconds: Vec<_> = good.series.iter().collect();
        seconds.sort_by(|a, b| b.p99_ms.total_cmp(&a.p99_ms));
        let worst = seconds.iter().take(5).map(|at| format!("{:.0} ms in second {}", at.p99_ms, at.second));
        self.verdicts.note("… their worst seconds by p99", worst.collect::<Vec<_>>().join(", "));
        self.verdicts.note("… the load generator's own lag, p99", format!("{:.1} ms", good.lag.p99_ms));
        let panics = self.tenfold.metric("tenfold_service_panics_total")?;
        self.verdicts.bar("panics", panics, "0", panics == 0.0);
        self.verdicts
            .note("refusals counted by reason, in all", self.tenfold.metric("tenfold_edge_refusals_total")?);
        Ok(())
    }
}

const GOOD_CONNECTIONS_MAX: usize = 64;

/// Users with a right to their answers.
struct Good {
    stop: Stop,
    load: std::thread::JoinHandle<Result<Report>>,
}

impl Good {
    fn start(edge: SocketAddr) -> Result<Self> {
        let route = |name: &str, method: &str, path: &str, class: Class| Route {
            name: name.to_owned(),
            weight: 1,
            method: method.to_owned(),
            path: path.to_owned(),
            headers: BTreeMap::new(),
            body: (method == "POST").then(|| "an order".to_owned()),
            expect: vec![200],
            slo_exempt: false,
            class,
        };
        let scenario = Scenario {
            name: "good".into(),
            setup: Vec::new(),
            routes: vec![
                route("read", "GET", "/good/{random:1-50}", Class::Cacheable),
                route("order", "POST", "/good/order", Class::Write),
            ],
            count_headers: Vec::new(),
        };
        let schedule = Schedule::constant(GOOD_RATE, Duration::from_secs(3600), Spacing::Poisson, 1)?;
        let mut plan = Plan::new(vec![format!("http://{edge}")], scenario, schedule);
        plan.client.connections_max = GOOD_CONNECTIONS_MAX;
        plan.client.reconnect = false;
        let stop = Stop::default();
        let of_load = stop.clone();
        let load = std::thread::spawn(move || Ok(tenfold_loadgen::run(&plan, &of_load, &mut |_| {})?.report));
        Ok(Self { stop, load })
    }

    fn finish(self) -> Result<Report> {
        self.stop.stop();
        self.load.join().ok().context("the good clients panicked")?
    }
}

/// The crowd needs a descriptor for each of its connections.
fn raise_descriptors() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of open files")
}
