//! Asking nodes whether they are well, and where they are.
//!
//! One loop on the control thread looks at the present snapshot, probes each node of a cluster with `health` once per
//! interval, and resolves names again every half minute, so that workers never wait for either. A probe is an ordinary
//! `GET` on a connection of its own: what an idle connection says about a node's readiness to accept is nothing.
//!
//! A status of 200 to 399 within the timeout passes; anything else fails, and `balance` counts (`fail_after`,
//! `pass_after`). A probe that hangs is cut at its timeout, and a node is never probed twice at once. A name that does not
//! resolve keeps its last address, and the failure is reported.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tenfold_http1::{Limits, Method, parse_response};
use tenfold_service::clock::Clock;
use tenfold_service::drain::DrainWatch;
use tenfold_service::metrics::Registry;
use tenfold_service::periodic::{self, Schedule};
use tenfold_service::rng::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::snapshot::Snapshot;
use crate::upstream::{ClusterState, NodeState};

/// How often names are resolved again.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// A name server that doesn't answer.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
/// Names looked up at once: each takes a thread.
const RESOLVING_MAX: usize = 64;
/// The longest the loop sleeps, so that it notices a reload.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Of a probe's answer, its head.
const ANSWER_BYTES_MAX: usize = 8 * 1024;
/// Probes wander by this share of their interval, so that many edges don't knock together.
const JITTER_RATIO: f64 = 0.1;

/// Something worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthEvent {
    /// A node changed its state.
    Changed {
        /// Its cluster.
        cluster: Arc<str>,
        /// Its address as configured.
        node: String,
        /// Usable now.
        up: bool,
        /// What the deciding probe saw.
        because: String,
    },
    /// A name has no address, or none could be found out.
    Unresolved {
        /// The cluster.
        cluster: Arc<str>,
        /// The node as configured.
        node: String,
        /// What the resolver said.
        because: String,
    },
}

/// Resolves every name of the snapshot once; before it is put in force, so that the first request finds addresses. Takes
/// little longer than the slowest name, and no longer than its limit however many a dead name server leaves unanswered
/// (up to `RESOLVING_MAX` of them).
pub async fn resolve(snapshot: &Snapshot, report: impl Fn(HealthEvent)) {
    let mut resolving = JoinSet::new();
    for cluster in &snapshot.clusters {
        for index in (0..cluster.nodes.len()).filter(|&index| cluster.nodes[index].is_named()) {
            if resolving.len() >= RESOLVING_MAX {
                told(resolving.join_next().await, &report);
            }
            let cluster = Arc::clone(cluster);
            resolving.spawn(async move {
                let node = &cluster.nodes[index];
                let failed = resolve_node(node).await.err();
                failed.map(|because| HealthEvent::Unresolved {
                    cluster: cluster.name.clone(),
                    node: node.config.address.clone(),
                    because,
                })
            });
        }
    }
    while let Some(ended) = resolving.join_next().await {
        told(Some(ended), &report);
    }
}

fn told(ended: Option<Result<Option<HealthEvent>, tokio::task::JoinError>>, report: &impl Fn(HealthEvent)) {
    if let Some(Ok(Some(event))) = ended {
        report(event);
    }
}

/// What the checks need from the process.
#[derive(Debug)]
pub struct Deps {
    /// The time.
    pub clock: Clock,
    /// Where jobs are counted.
    pub registry: Registry,
    /// For jitter.
    pub rng: Rng,
    /// Ends the checks.
    pub drain: DrainWatch,
}

/// Probes and resolves until the drain begins. Runs on a current-thread runtime: it spawns local tasks.
pub async fn run(
    snapshots: impl Fn() -> Arc<Snapshot>,
    mut deps: Deps,
    report: impl Fn(HealthEvent) + 'static,
) {
    let report: Rc<dyn Fn(HealthEvent)> = Rc::new(report);
    let schedule = Schedule { name: "resolve", every: RESOLVE_EVERY, jitter_ratio: JITTER_RATIO };
    let rng = deps.rng.split();
    let resolving = periodic::run(schedule, &deps.clock, &deps.registry, rng, &deps.drain, |_| {
        let (snapshot, report) = (snapshots(), Rc::clone(&report));
        async move { resolve(&snapshot, |event| report(event)).await }
    });
    tokio::join!(resolving, probe(&snapshots, &deps, deps.rng.clone(), &report));
}

/// Probes each node when it is due. The nodes are those of the present snapshot, so a reload needs no word to this loop.
async fn probe(
    snapshots: &impl Fn() -> Arc<Snapshot>,
    deps: &Deps,
    mut rng: Rng,
    report: &Rc<dyn Fn(HealthEvent)>,
) {
    let mut due: HashMap<ProbeKey, Instant> = HashMap::new();
    let mut running: JoinSet<()> = JoinSet::new();
    loop {
        let now = deps.clock.now();
        let mut seen = HashMap::with_capacity(due.len());
        for probe in probes_of(&snapshots()) {
            let at = *due.get(&probe.key()).unwrap_or(&now);
            let next = if at <= now { now + spread(probe.every, &mut rng) } else { at };
            if at <= now {
                running.spawn_local(probe.clone().run_once(deps.clock.clone(), Rc::clone(report)));
            }
            seen.insert(probe.key(), next);
        }
        due = seen;
        let earliest = due.values().copied().min().unwrap_or(now + LOOK_EVERY);
        let wait = earliest.saturating_duration_since(deps.clock.now()).min(LOOK_EVERY);
        // Both branches are cancellation safe.
        tokio::select! {
            () = deps.drain.begun() => return,
            () = tokio::time::sleep(wait) => {}
        }
        while running.try_join_next().is_some() {}
    }
}

/// A cluster's name and a node's place in it.
type ProbeKey = (Arc<str>, String);

/// One check of one node. Its timeout is below its interval, so one has ended before the next begins.
#[derive(Clone)]
struct Probe {
    cluster: Arc<ClusterState>,
    index: usize,
    every: Duration,
    timeout: Duration,
    path: String,
}

fn probes_of(snapshot: &Snapshot) -> impl Iterator<Item = Probe> + '_ {
    let checked = snapshot.config.clusters.iter().zip(&snapshot.clusters);
    checked.filter_map(|(config, state)| config.health.as_ref().map(|health| (health, state))).flat_map(
        |(health, state)| {
            (0..state.nodes.len()).map(|index| Probe {
                cluster: Arc::clone(state),
                index,
                every: health.every,
                timeout: health.timeout.min(health.every.mul_f64(1.0 - JITTER_RATIO)),
                path: health.path.clone(),
            })
        },
    )
}

/// `every`, give or take half the jitter.
fn spread(every: Duration, rng: &mut Rng) -> Duration {
    every.mul_f64(1.0 - JITTER_RATIO / 2.0 + JITTER_RATIO * rng.next_ratio())
}

impl Probe {
    fn node(&self) -> &NodeState {
        &self.cluster.nodes[self.index]
    }

    fn key(&self) -> ProbeKey {
        (self.cluster.name.clone(), self.node().config.address.clone())
    }

    async fn run_once(self, clock: Clock, report: Rc<dyn Fn(HealthEvent)>) {
        let outcome = match tokio::time::timeout(self.timeout, self.ask()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        };
        let changed = self.cluster.balancer.on_probe(self.index, outcome.is_ok(), clock.now());
        let Some(_) = changed else { return };
        report(HealthEvent::Changed {
            cluster: self.cluster.name.clone(),
            node: self.node().config.address.clone(),
            up: outcome.is_ok(),
            because: outcome
                .map_or_else(|because| because, |status| format!("{} answers {status}", self.path)),
        });
    }

    /// The status, if it is a good one.
    async fn ask(&self) -> Result<u16, String> {
        let address = self.node().address().ok_or("its name has no address")?;
        let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let host = self.node().config.host.as_deref().unwrap_or(&self.node().config.address);
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tenfold-health\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            self.path
        );
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        match read_status(&mut stream).await? {
            status @ 200..=399 => Ok(status),
            status => Err(format!("{} answers {status}", self.path)),
        }
    }
}

async fn read_status(stream: &mut TcpStream) -> Result<u16, String> {
    let limits = Limits { head_bytes_max: ANSWER_BYTES_MAX, ..Limits::default() };
    let mut received = Vec::with_capacity(1024);
    let mut scanned = 0;
    loop {
        let interim = match parse_response(&received, &mut scanned, &Method::Get, &limits) {
            Ok(Some((head, consumed))) if head.status < 200 => consumed,
            Ok(Some((head, _))) => return Ok(head.status),
            Ok(None) => 0,
            Err(error) => return Err(error.to_string()),
        };
        if interim > 0 {
            received.drain(..interim);
            continue;
        }
        if received.len() > ANSWER_BYTES_MAX {
            return Err("the answer's head is too long".to_owned());
        }
        match stream.read_buf(&mut received).await {
            Ok(0) => return Err("closed without an answer".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Keeps the present address if the name still has it: a name with several must not move a node at each look.
async fn resolve_node(node: &NodeState) -> Result<(), String> {
    let looked_up =
        tokio::time::timeout(RESOLVE_LIMIT, tokio::net::lookup_host(node.config.address.as_str()));
    let found: Vec<SocketAddr> = match looked_up.await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no answer within {RESOLVE_LIMIT:?}")),
    };
    let first = *found.first().ok_or("the name has no address")?;
    if node.address().is_none_or(|present| !found.contains(&present)) {
        node.set_address(first);
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test stands where the binary does and hands out the time")]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tenfold_service::drain::Drain;
    use tenfold_testkit::{Answer, Origin, eventually};

    use crate::config::{AccessLogConfig, ClusterConfig, Config, Limits as EdgeLimits, NodeConfig, Timeouts};

    const LIMIT: Duration = Duration::from_secs(10);

    fn snapshot(address: String, health: bool) -> Arc<Snapshot> {
        after(None, "api", address, health)
    }

    fn after(previous: Option<&Snapshot>, cluster: &str, address: String, health: bool) -> Arc<Snapshot> {
        let every = Duration::from_millis(20);
        let health = health.then(|| tenfold_balance::HealthConfig {
            path: "/health".to_owned(),
            every,
            timeout: every,
            fail_after: 2,
            pass_after: 2,
        });
        let cluster = ClusterConfig {
            name: cluster.to_owned(),
            nodes: vec![NodeConfig { address, weight: 1, host: Some("api.example".to_owned()) }],
            policy: tenfold_balance::Policy::default(),
            health,
            retry: tenfold_balance::RetryConfig::default(),
            timeouts: Timeouts::default(),
        };
        let config = Config {
            listen: Vec::new(),
            trusted_proxies: Vec::new(),
            limits: EdgeLimits::default(),
            cache: tenfold_cache::Config::default(),
            clusters: vec![cluster],
            routes: Vec::new(),
            access_log: AccessLogConfig::default(),
            own_writes: crate::config::OwnWrites::default(),
        };
        Arc::new(Snapshot::build(config, &Registry::new(1), previous, Instant::now()).expect("builds"))
    }

    /// Runs the checks of one node while `test` goes on; gives both what they reported.
    fn with_checks<F: Future<Output = ()>>(
        snapshot: Arc<Snapshot>,
        test: impl FnOnce(Arc<Mutex<Vec<HealthEvent>>>) -> F,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        let (drain, events) = (Drain::new(), Arc::new(Mutex::new(Vec::new())));
        let seen = Arc::clone(&events);
        let report = move |event| seen.lock().expect("no panic").push(event);
        let deps = Deps {
            clock: Clock::system(),
            registry: Registry::new(1),
            rng: Rng::new(1),
            drain: drain.watch(),
        };
        let checks = run(move || Arc::clone(&snapshot), deps, report);
        runtime.expect("a runtime").block_on(async {
            let checks = tokio::task::spawn_local(checks);
            test(events).await;
            drain.begin();
            checks.await.expect("the checks end with the drain");
        });
    }

    #[test]
    fn a_node_goes_down_and_comes_back_and_both_are_told() {
        let origin = Origin::kv().expect("an origin");
        origin.set("/health", Answer::new(503));
        with_checks(snapshot(origin.addr().to_string(), true), async |events| {
            eventually("the node is down", LIMIT, async || !events.lock().expect("no panic").is_empty())
                .await;
            origin.set("/health", Answer::ok("well"));
            eventually("the node is up", LIMIT, async || events.lock().expect("no panic").len() == 2).await;
        });
        assert_eq!(origin.last().expect("a probe").header("host"), Some("api.example"));
    }

    #[test]
    fn a_node_that_never_answers_is_down() {
        let silent = Origin::scripted(vec![tenfold_testkit::origin::Step::Stall]).expect("an origin");
        with_checks(snapshot(silent.addr().to_string(), true), async |events| {
            let down = async || {
                let events = events.lock().expect("no panic");
                events.iter().any(|e| matches!(e, HealthEvent::Changed { up: false, because, .. } if because.contains("within")))
            };
            eventually("the node is down", LIMIT, down).await;
        });
    }

    #[test]
    fn names_are_resolved_and_unknown_ones_reported() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let known = snapshot("localhost:3000".to_owned(), false);
        assert_eq!(known.clusters[0].nodes[0].address(), None);
        runtime.block_on(resolve(&known, |event| panic!("{event:?}")));
        assert_eq!(known.clusters[0].nodes[0].address().map(|a| a.port()), Some(3000));
        // Whatever its cluster is called: a reload begins with what is known.
        let renamed = after(Some(&known), "shop", "localhost:3000".to_owned(), false);
        assert_eq!(renamed.clusters[0].nodes[0].address(), known.clusters[0].nodes[0].address());
        let events = Mutex::new(Vec::new());
        let unknown = snapshot("no-such-host.invalid:3000".to_owned(), false);
        runtime.block_on(resolve(&unknown, |event| events.lock().expect("no panic").push(event)));
        assert!(matches!(events.lock().expect("no panic")[..], [HealthEvent::Unresolved { .. }]));
    }
}
