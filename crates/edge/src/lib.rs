//! HTTP in and out: the tier between the users and the API nodes.
//!
//! **Intuition.** A request goes one way, with no going back: accept, parse strictly, normalise, route, look up, and on a
//! miss join or lead the fetch, pick a node, send, receive, store, shape, reply, account.
//!
//! **Mechanism.** [`Edge::build`] makes a [`Snapshot`] of the configuration. [`Edge::serve`] is one connection, on the
//! worker that was given its socket, for as long as it lives. A reload is [`Edge::prepare`], which may fail, and
//! [`Edge::commit`], which can't and swaps the snapshot: requests under way finish on the old one; the cache and the
//! nodes' state go on.
//!
//! **Failure.** A configuration that can't work changes nothing and says all that is wrong with it. Whatever happens to a
//! request has a [`reason::Reason`].

pub mod access_log;
mod body;
pub mod config;
mod conn;
mod dispatch;
mod exchange;
pub mod explain;
mod fetch;
mod fetch_time;
mod forward;
pub mod health;
mod io;
mod local;
mod metrics;
pub mod normalise;
mod own_writes;
mod pass;
mod position;
pub mod reason;
mod reply;
mod request_id;
pub mod router;
pub mod snapshot;
mod task;
pub mod upstream;

use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use tenfold_cache::{Cache, Purge, Purged, Stats};
use tenfold_service::acceptor::Accepted;
use tenfold_service::limits::Refused;
use tenfold_service::metrics::Registry;
use tenfold_service::worker::Worker;
use tokio::sync::oneshot;

use crate::access_log::AccessLog;
use crate::config::{BuildError, Config};
use crate::local::{Local, Shared};
use crate::metrics::{CacheOutcome, EdgeMetrics};
pub use crate::own_writes::{After, Answering, Positions};
pub use crate::snapshot::Snapshot;

/// What the edge needs from the process.
#[derive(Debug)]
pub struct Deps {
    /// Where it counts.
    pub registry: Registry,
    /// Where requests are logged.
    pub access_log: AccessLog,
    /// Random: for request ids and the cache's hashes.
    pub seed: u64,
    /// When the balancers' clocks begin.
    pub now: Instant,
}

/// The edge. Cheap to clone; clones are the same edge.
#[derive(Clone, Debug)]
pub struct Edge {
    shared: Arc<Shared>,
    /// What a connection beyond the limits is told.
    refusal: Arc<[u8]>,
}

impl Edge {
    /// Builds an edge that serves nothing yet. Opens no socket.
    ///
    /// # Errors
    /// All that is wrong with the configuration, each with its path.
    pub fn build(config: Config, deps: Deps) -> Result<Self, Vec<BuildError>> {
        let Deps { registry, access_log, seed, now } = deps;
        let cache = Cache::new(config.cache, seed).map_err(|error| cache_error(&error));
        let snapshot = Snapshot::build(config, &registry, None, now);
        let (cache, snapshot) = match (cache, snapshot) {
            (Ok(cache), Ok(snapshot)) => (cache, snapshot),
            (cache, snapshot) => {
                return Err(cache.err().into_iter().chain(snapshot.err().unwrap_or_default()).collect());
            }
        };
        let shared = Shared {
            snapshot: ArcSwap::from_pointee(snapshot),
            cache,
            metrics: EdgeMetrics::new(&registry),
            registry,
            access_log,
            seed,
            positions: OnceLock::new(),
        };
        Ok(Self { shared: Arc::new(shared), refusal: reason::connection_refusal().into() })
    }

    /// Gives it somebody who knows where the database is, for routes with `own_writes`. The first one counts. Without one,
    /// every write is of an unknown position.
    pub fn set_positions(&self, positions: Positions) {
        // There is one pooler in a process, or none.
        let _ = self.shared.positions.set(positions);
    }

    /// Serves one connection until it ends. The future belongs on the worker given.
    pub fn serve(&self, worker: &Rc<Worker>, accepted: Accepted) -> impl Future<Output = ()> + 'static {
        conn::serve(Local::of(&self.shared, worker), accepted)
    }

    /// What a connection is told that is refused before it was served. Empty would leave its client guessing.
    #[must_use]
    pub fn refusal(&self, refused: Refused) -> Arc<[u8]> {
        // Whichever limit it was, what to do about it is the same.
        let _ = refused;
        Arc::clone(&self.refusal)
    }

    /// Builds a new configuration beside the one in force, which goes on. Where its nodes' names are still to be resolved
    /// ([`health::resolve`]), that comes before [`Self::commit`], or requests would find nodes without an address.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn prepare(&self, config: Config, now: Instant) -> Result<Snapshot, Vec<BuildError>> {
        // The cache in force keeps its size until a restart, which must not be what finds out that it can't work.
        let cache = config.cache.validate().map_err(|error| cache_error(&error));
        let previous = self.shared.snapshot.load_full();
        let next = match (cache, Snapshot::build(config, &self.shared.registry, Some(&previous), now)) {
            (Ok(()), next) => next,
            (Err(error), next) => Err([vec![error], next.err().unwrap_or_default()].concat()),
        };
        if next.is_err() {
            self.forget_absent();
        }
        next
    }

    /// Takes routes and clusters that are not in force out of the metrics: those of a configuration that was prepared and
    /// will not be committed.
    pub fn forget_absent(&self) {
        let config = &self.shared.snapshot.load().config;
        let routes: Vec<_> = config.routes.iter().map(|route| route.name.clone()).collect();
        let clusters: Vec<_> = config.clusters.iter().map(|cluster| cluster.name.clone()).collect();
        metrics::forget_absent(&self.shared.registry, &routes, &clusters);
    }

    /// Takes a configuration that was prepared. Requests under way finish on the old one. The cache keeps its size until a
    /// restart.
    pub fn commit(&self, next: Snapshot) {
        self.shared.snapshot.store(Arc::new(next));
        self.forget_absent();
    }

    /// The configuration in force, built: for health checks, name resolution and the status page.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// The cache, for who joins it with others'.
    #[must_use]
    pub fn cache(&self) -> &Arc<Cache> {
        &self.shared.cache
    }

    /// Makes stored answers out of date, here at once, and on all edges that share a tier. A URL is purged as it stands, and
    /// as its route's `query` setting has it.
    #[must_use]
    pub fn purge(&self, purge: &Purge<'_>, soft: bool) -> Purging {
        let (purged, told) = self.shared.cache.purge_everywhere(purge, soft);
        let purged = Purging { purged, told: told.into_iter().collect() };
        let Purge::Url { authority, path, query: Some(query) } = *purge else { return purged };
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        let snapshot = self.snapshot();
        let route = snapshot.router.find(text(authority), text(path), "GET", &[]);
        let Some(route) = snapshot.route(route) else { return purged };
        let Ok(text) = std::str::from_utf8(query) else { return purged };
        let counts = route.rule.counted_query(Some(text));
        let counts = counts.as_deref().map(str::as_bytes);
        if counts == Some(query) {
            return purged;
        }
        let also = Purge::Url { authority, path, query: counts };
        let (last, told) = self.shared.cache.purge_everywhere(&also, soft);
        Purging { purged: last, told: purged.told.into_iter().chain(told).collect() }
    }

    /// Compresses what is stored, on a thread of its own for as long as the edge lives: [`tenfold_cache::Encoder::run`].
    /// Without it nothing is compressed. There is one; `None` once it has been taken.
    #[must_use]
    pub fn encoder(&self) -> Option<tenfold_cache::Encoder> {
        self.shared.cache.encoder()
    }

    /// What is going on, for people.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let snapshot = self.shared.snapshot.load();
        let clusters = snapshot.clusters.iter().map(|cluster| ClusterStatus {
            name: cluster.name.to_string(),
            nodes: cluster.balancer.nodes(now).map(|node| NodeStatus::of(&node)).collect(),
            exchanges: cluster.metrics.exchanges_total(),
            retries: cluster.metrics.retries.value(),
        });
        let routes = snapshot.routes.iter().map(|route| {
            let (requests, errors) = route.metrics.totals();
            RouteStatus {
                name: route.name.to_string(),
                requests,
                errors,
                hits: route.metrics.cache_total(CacheOutcome::Hit),
                stale: route.metrics.cache_total(CacheOutcome::Stale),
            }
        });
        Status { clusters: clusters.collect(), routes: routes.collect(), cache: self.shared.cache.stats() }
    }
}

/// A purge that this edge has applied.
#[derive(Debug)]
pub struct Purging {
    /// Its place in the order.
    pub purged: Purged,
    /// Each hears when the other edges can hear of it; empty where there are none.
    pub told: Vec<oneshot::Receiver<()>>,
}

fn cache_error(error: &tenfold_cache::Error) -> BuildError {
    BuildError { path: error.path().to_owned(), message: error.to_string() }
}

/// What is going on, as plain values.
#[derive(Clone, Debug)]
pub struct Status {
    /// In the configuration's order.
    pub clusters: Vec<ClusterStatus>,
    /// In the configuration's order.
    pub routes: Vec<RouteStatus>,
    /// What is stored.
    pub cache: Stats,
}

/// One cluster.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// As in `cluster.NAME`.
    pub name: String,
    /// In the configuration's order.
    pub nodes: Vec<NodeStatus>,
    /// Requests sent to its nodes since the start.
    pub exchanges: u64,
    /// Those that were sent again.
    pub retries: u64,
}

/// One node.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// `host:port`.
    pub name: String,
    /// Its share.
    pub weight: u32,
    /// Requests it is working on for this process.
    pub in_flight: u64,
    /// What it is to new requests.
    pub state: tenfold_balance::NodeState,
}

impl NodeStatus {
    fn of(node: &tenfold_balance::NodeView<'_>) -> Self {
        Self {
            name: node.name.to_owned(),
            weight: node.weight,
            in_flight: node.in_flight as u64,
            state: node.state,
        }
    }
}

/// One route.
#[derive(Clone, Debug)]
pub struct RouteStatus {
    /// Its name.
    pub name: String,
    /// Requests since the start.
    pub requests: u64,
    /// Those answered with 500 or more.
    pub errors: u64,
    /// Those answered from the cache, fresh.
    pub hits: u64,
    /// Those answered from the cache, stale.
    pub stale: u64,
}
