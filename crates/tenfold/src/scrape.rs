//! Metrics that are read from the edge at scrape time: what the cache holds, how the nodes are.
//!
//! The tiers keep these in plain atomics of their own; here they get their names. One look at the edge serves a whole
//! scrape: the callbacks read the copy that the look left behind. Nodes that a reload took away leave at the next scrape.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tenfold_balance::NodeState;
use tenfold_cache::Stats;
use tenfold_edge::Edge;
use tenfold_service::metrics::Registry;

/// Names what the cache counts.
type CacheMetric = (&'static str, &'static str, fn(&Stats) -> u64);

const CACHE_GAUGES: [CacheMetric; 6] = [
    ("tenfold_cache_objects", "Keys stored.", |stats| stats.objects),
    ("tenfold_cache_stored_bytes", "What they weigh, heads and bookkeeping included.", |stats| stats.bytes),
    ("tenfold_cache_limit_bytes", "What they may weigh.", |stats| stats.bytes_max),
    ("tenfold_cache_files", "Bodies kept in files of memory, a descriptor each.", |stats| stats.files),
    ("tenfold_cache_fills_running", "Fetches for the cache under way.", |stats| stats.fills),
    ("tenfold_cache_fill_bytes", "Bodies held by fetches under way.", |stats| stats.fill_bytes),
];

const CACHE_COUNTERS: [CacheMetric; 14] = [
    ("tenfold_cache_stores", "Responses stored.", |stats| stats.stored),
    ("tenfold_cache_revalidations", "Stored responses freshened by a 304.", |stats| stats.revalidated),
    ("tenfold_cache_stale_if_error", "Stale answers given because the nodes failed.", |stats| {
        stats.stale_if_error
    }),
    ("tenfold_cache_collapsed", "Requests that followed another's fetch.", |stats| stats.collapsed),
    ("tenfold_cache_released", "Followers sent to make their own request.", |stats| stats.released),
    ("tenfold_cache_evictions", "Objects evicted to make room.", |stats| stats.evicted),
    ("tenfold_cache_variant_evictions", "Variants that left because their key had too many.", |stats| {
        stats.variants_evicted
    }),
    ("tenfold_cache_purges", "Purges applied.", |stats| stats.purges),
    ("tenfold_cache_encodings", "Content codings made of stored responses.", |stats| stats.encodings),
    ("tenfold_cache_encodings_refused", "Codings that saved too little or found no room.", |stats| {
        stats.encodings_refused
    }),
    ("tenfold_cache_encodings_dropped", "Wishes for a coding forgotten because too many waited.", |stats| {
        stats.encodings_dropped
    }),
    ("tenfold_cache_fills_failed", "Fetches that ended without an answer.", |stats| stats.fills_failed),
    ("tenfold_cache_fills_abandoned", "Fetches that ended because nobody followed.", |stats| {
        stats.fills_abandoned
    }),
    ("tenfold_cache_fills_full", "Requests beyond `cache.fills_max`.", |stats| stats.fills_full),
];

const NODE_UP: &str = "tenfold_balance_node_up";
const NODE_IN_FLIGHT: &str = "tenfold_balance_node_in_flight";

/// The look that a scrape's callbacks read.
#[derive(Clone)]
pub struct Scrape {
    registry: Registry,
    stats: Arc<Mutex<Stats>>,
}

impl Scrape {
    /// Registers what does not depend on the configuration.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let stats = Arc::new(Mutex::new(Stats::default()));
        for (name, help, of) in CACHE_GAUGES {
            registry.gauge_fn(name, help, &[], read(&stats, of));
        }
        for (name, help, of) in CACHE_COUNTERS {
            registry.counter_fn(name, help, &[], read(&stats, of));
        }
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.gauge("tenfold_build", "1, with the version that runs.", &version).set(1);
        Self { registry: registry.clone(), stats }
    }

    /// Looks at the edge, and renders everything there is.
    #[must_use]
    pub fn render(&self, edge: &Edge, now: Instant) -> String {
        let status = edge.status(now);
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = status.cache;
        let mut present = BTreeSet::new();
        for cluster in &status.clusters {
            for node in &cluster.nodes {
                let labels = [("cluster", cluster.name.as_str()), ("node", node.name.as_str())];
                let is_up = matches!(node.state, NodeState::Up | NodeState::OnTrial | NodeState::Failing);
                self.registry.gauge(NODE_UP, "1 while a node is given requests.", &labels).set(is_up.into());
                let in_flight = i64::try_from(node.in_flight).unwrap_or(i64::MAX);
                self.registry.gauge(NODE_IN_FLIGHT, "Requests a node is working on.", &labels).set(in_flight);
                present.insert((cluster.name.clone(), node.name.clone()));
            }
        }
        self.registry.retain(|name, labels| {
            let value =
                |label| labels.iter().find(|(name, _)| *name == label).map(|(_, value)| value.clone());
            let node = value("cluster").zip(value("node"));
            !matches!(name, NODE_UP | NODE_IN_FLIGHT) || node.is_some_and(|node| present.contains(&node))
        });
        self.registry.render()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and bytes far below 2^53")]
fn read(stats: &Arc<Mutex<Stats>>, of: fn(&Stats) -> u64) -> impl Fn() -> f64 + Send + Sync + 'static {
    let stats = Arc::clone(stats);
    move || of(&stats.lock().unwrap_or_else(PoisonError::into_inner)) as f64
}
