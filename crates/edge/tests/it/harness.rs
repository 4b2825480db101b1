//! An edge on a port of its own, in front of the origins a test gives it.
#![expect(clippy::disallowed_methods, reason = "tests stand where the binary does: they hand out the clocks")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tenfold_cache::Rule;
use tenfold_edge::access_log::{AccessLog, AccessLogReceiver};
use tenfold_edge::config::{
    AccessLogConfig, ClusterConfig, Config, Limits, NodeConfig, RouteConfig, Timeouts,
};
use tenfold_edge::{Deps, Edge};
use tenfold_service::acceptor::{Acceptor, AcceptorDeps, Listener, Service, Serving};
use tenfold_service::clock::Clock;
use tenfold_service::drain::Drain;
use tenfold_service::limits::ConnectionLimits;
use tenfold_service::metrics::Registry;
use tenfold_service::worker::{WorkerDeps, Workers};
use tenfold_testkit::raw::Client;

/// How long anything in these tests may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// A running edge. Dropping it ends its threads.
pub(crate) struct Running {
    pub(crate) edge: Edge,
    pub(crate) address: SocketAddr,
    pub(crate) registry: Registry,
    pub(crate) drain: Drain,
    pub(crate) limits: Arc<ConnectionLimits>,
    /// What tasks panicked with; none should.
    pub(crate) panics: Arc<Mutex<Vec<String>>>,
    /// The requests that were logged.
    pub(crate) log: Mutex<AccessLogReceiver>,
    parts: Option<(Acceptor, Workers)>,
}

/// One route to one cluster of these nodes, with every default.
pub(crate) fn config(nodes: &[SocketAddr]) -> Config {
    let node = |address: &SocketAddr| NodeConfig { address: address.to_string(), weight: 1, host: None };
    Config {
        listen: Vec::new(),
        trusted_proxies: Vec::new(),
        limits: Limits::default(),
        cache: tenfold_cache::Config { memory_bytes: 64 << 20, ..tenfold_cache::Config::default() },
        clusters: vec![ClusterConfig {
            name: "api".to_owned(),
            nodes: nodes.iter().map(node).collect(),
            policy: tenfold_balance::Policy::default(),
            health: None,
            retry: tenfold_balance::RetryConfig::default(),
            timeouts: Timeouts::default(),
        }],
        routes: vec![route("all", "/{*rest}", Rule::Respect)],
        access_log: AccessLogConfig::default(),
        own_writes: tenfold_edge::config::OwnWrites::default(),
    }
}

pub(crate) fn route(name: &str, path: &str, cache: Rule) -> RouteConfig {
    RouteConfig {
        name: name.to_owned(),
        host: None,
        path: path.to_owned(),
        methods: Vec::new(),
        headers: Vec::new(),
        to: "api".to_owned(),
        cache,
        own_writes: false,
    }
}

impl Running {
    pub(crate) fn start(config: Config) -> Self {
        Self::start_on(config, 2)
    }

    pub(crate) fn in_front_of(nodes: &[SocketAddr]) -> Self {
        Self::start(config(nodes))
    }

    pub(crate) fn start_on(config: Config, worker_count: usize) -> Self {
        let (clock, drain, registry) = (Clock::system(), Drain::new(), Registry::new(worker_count));
        let panics: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&panics);
        let deps = WorkerDeps {
            clock,
            registry: registry.clone(),
            drain: drain.clone(),
            on_panic: Arc::new(move |panic| seen.lock().unwrap().push(panic.message.to_owned())),
        };
        let workers = Workers::start(worker_count, &deps).unwrap();
        let limits =
            ConnectionLimits::new(config.limits.connections_max, config.limits.connections_per_ip_max);
        let (access_log, log) = AccessLog::channel();
        let edge_deps = Deps { registry: registry.clone(), access_log, seed: 42, now: Instant::now() };
        let edge = Edge::build(config, edge_deps).unwrap();
        // It ends with the edge's cache.
        let encoder = edge.encoder().unwrap();
        std::thread::spawn(move || encoder.run());
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local().tcp().unwrap();
        let (serving, refusing) = (edge.clone(), edge.clone());
        let service = Service {
            serving: Serving::OnWorker(Arc::new(move |worker, accepted| {
                Box::pin(serving.serve(&worker, accepted))
            })),
            refusal: Arc::new(move |refused| refusing.refusal(refused)),
            limits: None,
        };
        let deps =
            AcceptorDeps { limits: Arc::clone(&limits), registry: registry.clone(), drain: drain.clone() };
        let acceptor = Acceptor::spawn(vec![(listener, service)], &workers, &deps).unwrap();
        let parts = Some((acceptor, workers));
        Self { edge, address, registry, drain, limits, panics, log: Mutex::new(log), parts }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect_with_limit(self.address, LIMIT).unwrap()
    }

    /// The value of a series as the exposition has it.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.registry.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    pub(crate) fn refusals(&self, reason: &str) -> f64 {
        self.metric(&format!("tenfold_edge_refusals_total{{reason=\"{reason}\"}}"))
    }

    pub(crate) fn stats(&self) -> tenfold_cache::Stats {
        self.edge.status(Instant::now()).cache
    }

    /// Requests that nodes are working on.
    pub(crate) fn in_flight(&self) -> u64 {
        let status = self.edge.status(Instant::now());
        status.clusters.iter().flat_map(|cluster| &cluster.nodes).map(|node| node.in_flight).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.drain.force();
        if let Some((acceptor, workers)) = self.parts.take() {
            acceptor.join();
            workers.stop();
        }
        if !std::thread::panicking() {
            assert_eq!(*self.panics.lock().unwrap(), Vec::<String>::new(), "no task panics");
        }
    }
}
