//! What the process is doing, for `/api/v1/status` and `tenfold status`.
//!
//! Counters since the start, and gauges of this moment; rates are the difference of two answers, which is the reader's
//! business. Names are those of the configuration and the metrics.

use serde_json::{Value, json};
use tenfold_edge::{ClusterStatus, NodeStatus, RouteStatus};
use tenfold_service::metrics::process;

use crate::listeners::Tier;
use crate::live::Live;

/// The whole answer.
#[must_use]
pub fn of(live: &Live) -> Value {
    let now = live.clock.now();
    let uptime = now.saturating_duration_since(live.started);
    let status = live.edge.status(now);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "file": live.path.display().to_string(),
        "state": if live.is_ready() { "ready" } else { "draining" },
        "uptime_s": uptime.as_secs(),
        "uptime_ms": u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        "workers": live.workers,
        "resident_bytes": process::resident_bytes(),
        "edge": {
            "listen": live.listeners.of(Tier::Edge),
            "connections": { "open": live.limits.open(), "max": live.limits.total_max() },
        },
        "pooler": live.pooling.as_ref().map(|pooling| pooling.status(&live.listeners.of(Tier::Pooler))),
        "cache": cache(&status.cache),
        "shared": live.edge.cache().tier().map(|tier| shared(tier)),
        "routes": status.routes.iter().map(route).collect::<Vec<_>>(),
        "clusters": status.clusters.iter().map(cluster).collect::<Vec<_>>(),
    })
}

fn cache(stats: &tenfold_cache::Stats) -> Value {
    json!({
        "objects": stats.objects,
        "bytes": stats.bytes,
        "bytes_max": stats.bytes_max,
        "stored": stats.stored,
        "revalidated": stats.revalidated,
        "collapsed": stats.collapsed,
        "stale_if_error": stats.stale_if_error,
        "evicted": stats.evicted,
        "purges": stats.purges,
        "fills": stats.fills,
        "fills_failed": stats.fills_failed,
    })
}

fn shared(tier: &tenfold_cache::Tier) -> Value {
    let (stats, redis) = (tier.stats(), tier.redis_stats());
    json!({
        "up": redis.up,
        "in_step": stats.in_step,
        "blind_ms": stats.blind_ms,
        "hits": stats.hits,
        "misses": stats.misses,
        "stored": stats.stored,
        "dropped": stats.dropped,
        "unanswered": stats.unanswered,
        "purges_waiting": stats.purges_waiting,
        "places_lost": stats.places_lost,
    })
}

fn route(route: &RouteStatus) -> Value {
    json!({
        "name": route.name,
        "requests": route.requests,
        "errors": route.errors,
        "hits": route.hits,
        "stale": route.stale,
    })
}

fn cluster(cluster: &ClusterStatus) -> Value {
    let node = |node: &NodeStatus| {
        json!({
            "name": node.name,
            "state": node.state.as_str(),
            "weight": node.weight,
            "in_flight": node.in_flight,
        })
    };
    json!({
        "name": cluster.name,
        "exchanges": cluster.exchanges,
        "retries": cluster.retries,
        "nodes": cluster.nodes.iter().map(node).collect::<Vec<_>>(),
    })
}
