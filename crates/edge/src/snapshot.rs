//! One configuration, built: routes, rules and clusters as requests find them.
//!
//! A reload builds a new snapshot beside the old one and swaps it in; requests under way finish on the one they began
//! with. What has to outlive a reload (the nodes' state, resolved addresses, counters) is taken over by name.

use std::sync::Arc;
use std::time::Instant;

use tenfold_cache::{KeyBuf, KeyPart, KeyUrl, RequestFacts, Rule, Scheme};
use tenfold_service::metrics::Registry;

use crate::config::{BuildError, Config};
use crate::forward::is_kept_from_nodes;
use crate::metrics::{ClusterMetrics, RouteMetrics};
use crate::normalise::normalise_host;
use crate::position::Seal;
use crate::router::{RouteIndex, Router};
use crate::upstream::{ClusterState, NodeState};

/// Everything a request needs to know of the configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// What it was built from.
    pub config: Config,
    /// In the configuration's order.
    pub clusters: Vec<Arc<ClusterState>>,
    pub(crate) router: Router,
    pub(crate) routes: Vec<RouteState>,
    /// Requests that found no route.
    pub(crate) unrouted: RouteMetrics,
    pub(crate) codec: tenfold_http1::Limits,
    /// Where a route lets clients see their own writes.
    pub(crate) seal: Option<Seal>,
}

/// One route, ready for use.
#[derive(Debug)]
pub(crate) struct RouteState {
    pub(crate) name: Arc<str>,
    pub(crate) rule: Rule,
    /// Its clients see their own writes.
    pub(crate) own_writes: bool,
    /// The headers it asks for, for the cache's key: without them another route, and perhaps another cluster, answers.
    pub(crate) conditions: Box<[u8]>,
    pub(crate) cluster: Arc<ClusterState>,
    /// For requests that name no host, in normal form: how the cluster's first node is called.
    pub(crate) host_of_unnamed: Box<str>,
    pub(crate) metrics: RouteMetrics,
}

impl RouteState {
    /// What a request asks for here, as the cache's key: every request to this route is told apart in this one place. The
    /// authority, the path and the query are in normal form, with what of the query counts.
    pub(crate) fn key(
        &self,
        key: &mut KeyBuf,
        scheme: Scheme,
        authority: &[u8],
        (path, query): (&[u8], Option<&[u8]>),
        facts: &RequestFacts<'_>,
    ) {
        let url = KeyUrl { scheme, authority, path, query, chosen_by: &self.conditions };
        key.build(&url, facts, &self.rule);
    }
}

impl Snapshot {
    /// Checks what only the edge can know and builds the rest.
    pub(crate) fn build(
        config: Config,
        registry: &Registry,
        previous: Option<&Self>,
        now: Instant,
    ) -> Result<Self, Vec<BuildError>> {
        let mut errors = Vec::new();
        check_names(&config, &mut errors);
        check_keys(&config, &mut errors);
        // Whatever its cluster is called now: a node is where it is.
        let known = |address: &str| {
            let nodes = previous.into_iter().flat_map(|p| &p.clusters).flat_map(|cluster| &cluster.nodes);
            nodes.filter(|node| node.config.address == address).find_map(NodeState::address)
        };
        let mut clusters = Vec::new();
        for cluster in &config.clusters {
            let old = previous.and_then(|p| p.clusters.iter().find(|c| *c.name == *cluster.name));
            let metrics = ClusterMetrics::new(registry, &cluster.name);
            match ClusterState::new(cluster, metrics, old.map(|old| &**old), known, now) {
                Ok(state) => clusters.push(Arc::new(state)),
                Err(error) => errors.push(BuildError {
                    path: format!("cluster.{}", cluster.name),
                    message: error.to_string(),
                }),
            }
        }
        let router = Router::build(&config.routes).unwrap_or_else(|found| {
            errors.extend(found);
            Router::default()
        });
        let mut routes = Vec::new();
        for (index, route) in config.routes.iter().enumerate() {
            let Some(cluster) = clusters.iter().find(|cluster| *cluster.name == *route.to) else {
                if config.clusters.iter().any(|cluster| cluster.name == route.to) {
                    // Its own mistake has been reported.
                    continue;
                }
                errors.push(unknown_cluster(index, &route.to));
                continue;
            };
            routes.push(RouteState {
                name: route.name.as_str().into(),
                rule: route.cache.clone(),
                own_writes: route.own_writes,
                conditions: conditions(&route.headers),
                host_of_unnamed: host_of_unnamed(cluster),
                cluster: Arc::clone(cluster),
                metrics: RouteMetrics::new(registry, &route.name),
            });
        }
        let needs_seal = config.routes.iter().any(|route| route.own_writes);
        let seal = needs_seal.then(|| Seal::new(&config.own_writes)).transpose();
        let seal = seal.map_err(|error| errors.push(error)).unwrap_or_default();
        if !errors.is_empty() {
            return Err(errors);
        }
        let codec = codec_limits(&config);
        let unrouted = RouteMetrics::new(registry, "none");
        Ok(Self { unrouted, config, clusters, router, routes, codec, seal })
    }

    /// The counters of a route, or those of requests without one.
    pub(crate) fn metrics_of(&self, route: Option<RouteIndex>) -> &RouteMetrics {
        self.route(route).map_or(&self.unrouted, |route| &route.metrics)
    }

    pub(crate) fn route(&self, route: Option<RouteIndex>) -> Option<&RouteState> {
        route.and_then(|RouteIndex(index)| self.routes.get(index))
    }
}

/// What a route's headers come to, in one spelling whatever order they are written in.
fn conditions(headers: &[(String, String)]) -> Box<[u8]> {
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{}: {value}\n", name.to_ascii_lowercase())).collect();
    lines.sort_unstable();
    lines.concat().into_bytes().into_boxed_slice()
}

fn host_of_unnamed(cluster: &ClusterState) -> Box<str> {
    let node = cluster.nodes.first().map(|node| &node.config);
    let name = node.map_or("", |node| node.host.as_deref().unwrap_or(&node.address));
    // One without a normal form serves no request that names no host, unless that goes for all hosts.
    normalise_host(name.as_bytes(), &mut Vec::new()).unwrap_or_default().into()
}

fn codec_limits(config: &Config) -> tenfold_http1::Limits {
    tenfold_http1::Limits {
        head_bytes_max: config.limits.head_bytes_max,
        line_bytes_max: config.limits.field_line_bytes_max,
        target_bytes_max: config.limits.target_bytes_max,
        fields_max: config.limits.fields_max,
        ..tenfold_http1::Limits::default()
    }
}

/// Metrics and state are told apart by name, so names must be unique.
fn check_names(config: &Config, errors: &mut Vec<BuildError>) {
    let error = |path: String, message: &str| BuildError { path, message: message.to_owned() };
    for (index, route) in config.routes.iter().enumerate() {
        if config.routes[..index].iter().any(|other| other.name == route.name) {
            errors.push(error(format!("route[{index}].name"), "another route has this name"));
        }
    }
    for (index, cluster) in config.clusters.iter().enumerate() {
        if config.clusters[..index].iter().any(|other| other.name == cluster.name) {
            errors.push(error(format!("cluster.{}", cluster.name), "another cluster has this name"));
        }
    }
}

/// A key of what no node is told would store one client's answer under another's word; a route that waits for it would
/// never be taken.
fn check_keys(config: &Config, errors: &mut Vec<BuildError>) {
    for (index, route) in config.routes.iter().enumerate() {
        for (name, value) in &route.headers {
            // The one claim that is believed, where a trusted proxy makes it.
            let believed = name == "x-forwarded-proto" && value == "https";
            if is_kept_from_nodes(name.as_bytes()) && !believed {
                errors.push(BuildError {
                    path: format!("route[{index}].headers"),
                    message: format!(
                        "no request has {name:?} here: what clients say under this name is dropped"
                    ),
                });
            }
        }
        let Rule::Override(rule) = &route.cache else { continue };
        let names = rule.key.iter().filter_map(|part| match part {
            KeyPart::Header(name) => Some(name),
            KeyPart::Cookie(_) => None,
        });
        for name in names.filter(|name| is_kept_from_nodes(name.as_bytes())) {
            errors.push(BuildError {
                path: format!("route[{index}].cache.key"),
                message: format!(
                    "nodes never see a client's own {name:?}, so their answers can't depend on it; leave it out"
                ),
            });
        }
    }
}

fn unknown_cluster(index: usize, wanted: &str) -> BuildError {
    BuildError {
        path: format!("route[{index}].to"),
        message: format!("there is no cluster called {wanted:?}"),
    }
}
