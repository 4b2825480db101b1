//! What the edge counts.
//!
//! Every handle is made when the configuration is built, with its labels, so that counting an event is one addition in
//! the worker's own cell and no event can name a series of its own. A reload makes the handles anew and meets the same
//! cells; series of routes and clusters that are gone leave with [`forget_absent`].
//!
//! Refusals are the exception: their reasons are many and seldom, so the registry is asked when one happens.

use std::time::Duration;

use tenfold_service::metrics::{Counter, Histogram, LATENCY_BOUNDS_S, Registry};

use crate::reason::Reason;

/// What the cache did for a request; the label `cache` of `tenfold_edge_cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheOutcome {
    /// Answered from the store, fresh.
    Hit,
    /// Answered from the store, stale, by the route's leave.
    Stale,
    /// Answered from what another edge had fetched.
    Shared,
    /// The origin said that the stored answer still holds.
    Revalidated,
    /// Fetched, by a fill that this request led.
    Miss,
    /// Fetched, by a fill that another request led.
    Collapsed,
    /// Not the cache's affair: the method, the request's directives or a key known to be uncacheable.
    Bypass,
}

impl CacheOutcome {
    const ALL: [Self; 7] =
        [Self::Hit, Self::Stale, Self::Shared, Self::Revalidated, Self::Miss, Self::Collapsed, Self::Bypass];

    /// The label's value and the log's word.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Shared => "shared",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Bypass => "bypass",
        }
    }
}

/// How an exchange with a node failed; the label `kind` of `tenfold_edge_upstream_failures`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamFailure {
    /// The connection was refused or unreachable.
    Refused,
    /// No connection in time.
    ConnectTimeout,
    /// No head in time.
    ResponseTimeout,
    /// Closed or reset before a whole head.
    Closed,
    /// Not HTTP.
    Malformed,
    /// The body ended before its end, or stood still.
    Body,
}

impl UpstreamFailure {
    const ALL: [Self; 6] = [
        Self::Refused,
        Self::ConnectTimeout,
        Self::ResponseTimeout,
        Self::Closed,
        Self::Malformed,
        Self::Body,
    ];

    /// The label's value.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::ResponseTimeout => "response_timeout",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
            Self::Body => "body",
        }
    }
}

/// What a client was told about its write; the label `outcome` of `tenfold_edge_positions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PositionOutcome {
    /// The position after it.
    Known,
    /// That the primary answers for a while, since nobody knew the position.
    Unknown,
    /// Nothing: the request did nothing at the database.
    Nothing,
    /// The request's own token was not believed.
    Refused,
}

impl PositionOutcome {
    const ALL: [Self; 4] = [Self::Known, Self::Unknown, Self::Nothing, Self::Refused];

    /// The label's value.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Known => "issued",
            Self::Unknown => "unknown",
            Self::Nothing => "nothing",
            Self::Refused => "refused",
        }
    }
}

/// Counters of one route.
#[derive(Clone, Debug)]
pub(crate) struct RouteMetrics {
    /// By the first digit of the status; `[0]` for requests that got no answer.
    requests: [Counter; 6],
    cache: [Counter; CacheOutcome::ALL.len()],
    duration: Histogram,
    body_bytes: Counter,
}

impl RouteMetrics {
    /// The handles of the route called `route`; of requests without a route under `"none"`.
    #[must_use]
    pub(crate) fn new(registry: &Registry, route: &str) -> Self {
        let requests = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].map(|status| {
            let labels = [("route", route), ("status", status)];
            registry.counter("tenfold_edge_requests", "Requests by route and class of status.", &labels)
        });
        let cache = CacheOutcome::ALL.map(|outcome| {
            let labels = [("route", route), ("cache", outcome.as_str())];
            registry.counter("tenfold_edge_cache", "Requests by route and what the cache did.", &labels)
        });
        let labels = [("route", route)];
        Self {
            requests,
            cache,
            duration: registry.histogram(
                "tenfold_edge_request_duration_seconds",
                "From the request's head to the answer's last byte.",
                &labels,
                LATENCY_BOUNDS_S,
            ),
            body_bytes: registry.counter(
                "tenfold_edge_response_body_bytes",
                "Bytes of bodies sent to clients.",
                &labels,
            ),
        }
    }

    /// A request was answered; `status` 0 if it got none.
    pub(crate) fn on_request(
        &self,
        status: u16,
        outcome: Option<CacheOutcome>,
        body_bytes: u64,
        duration: Duration,
    ) {
        self.requests[usize::from(status / 100).min(5)].add(1);
        if let Some(outcome) = outcome {
            self.cache[outcome as usize].add(1);
        }
        self.body_bytes.add(body_bytes);
        self.duration.observe(duration);
    }

    /// Requests so far, and those among them answered with 500 or more.
    #[must_use]
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.requests.iter().map(Counter::value).sum(), self.requests[5].value())
    }

    /// Requests so far for which the cache did this.
    #[must_use]
    pub(crate) fn cache_total(&self, outcome: CacheOutcome) -> u64 {
        self.cache[outcome as usize].value()
    }
}

/// Counters of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct ClusterMetrics {
    exchanges: [Counter; 2],
    failures: [Counter; UpstreamFailure::ALL.len()],
    /// Requests tried again on another node.
    pub(crate) retries: Counter,
    /// Requests that might have been, had the budget allowed it.
    pub(crate) retries_denied: Counter,
    /// From the end of the request to the head of the response.
    pub(crate) response: Histogram,
}

impl ClusterMetrics {
    /// The handles of the cluster called `cluster`.
    #[must_use]
    pub(crate) fn new(registry: &Registry, cluster: &str) -> Self {
        let exchanges = ["new", "reused"].map(|connection| {
            let labels = [("cluster", cluster), ("connection", connection)];
            registry.counter("tenfold_edge_upstream_exchanges", "Requests sent to nodes.", &labels)
        });
        let failures = UpstreamFailure::ALL.map(|kind| {
            let labels = [("cluster", cluster), ("kind", kind.as_str())];
            registry.counter("tenfold_edge_upstream_failures", "Exchanges with nodes that failed.", &labels)
        });
        let labels = [("cluster", cluster)];
        let counter = |name, help| registry.counter(name, help, &labels);
        Self {
            exchanges,
            failures,
            retries: counter("tenfold_edge_retries", "Requests tried again on another node."),
            retries_denied: counter(
                "tenfold_edge_retries_denied",
                "Retries for which the budget had nothing left.",
            ),
            response: registry.histogram(
                "tenfold_edge_upstream_response_seconds",
                "From the end of the request to the head of the response.",
                &labels,
                LATENCY_BOUNDS_S,
            ),
        }
    }

    /// A request was written to a connection.
    pub(crate) fn on_exchange(&self, reused: bool) {
        self.exchanges[usize::from(reused)].add(1);
    }

    /// An exchange failed.
    pub(crate) fn on_failure(&self, kind: UpstreamFailure) {
        self.failures[kind as usize].add(1);
    }

    /// Requests written to connections so far.
    #[must_use]
    pub(crate) fn exchanges_total(&self) -> u64 {
        self.exchanges.iter().map(Counter::value).sum()
    }
}

/// Counters of the edge as a whole.
#[derive(Clone)]
pub(crate) struct EdgeMetrics {
    registry: Registry,
    /// Bytes read from clients.
    pub(crate) client_bytes_read: Counter,
    /// Bytes written to clients.
    pub(crate) client_bytes_written: Counter,
    /// Background fills begun to renew what was served stale.
    pub(crate) refreshes: Counter,
    /// Stored answers that were too old for who had written something.
    pub(crate) passed_over: Counter,
    positions: [Counter; PositionOutcome::ALL.len()],
}

impl EdgeMetrics {
    /// The handles.
    #[must_use]
    pub(crate) fn new(registry: &Registry) -> Self {
        let counter = |name, help| registry.counter(name, help, &[]);
        let positions = PositionOutcome::ALL.map(|outcome| {
            let labels = [("outcome", outcome.as_str())];
            let help = "Tokens on routes with own_writes: given to clients, or not believed.";
            registry.counter("tenfold_edge_positions", help, &labels)
        });
        Self {
            registry: registry.clone(),
            positions,
            passed_over: counter(
                "tenfold_edge_cache_passed_over",
                "Stored answers passed over for clients that had written since.",
            ),
            client_bytes_read: counter("tenfold_edge_client_read_bytes", "Bytes read from clients."),
            client_bytes_written: counter("tenfold_edge_client_written_bytes", "Bytes written to clients."),
            refreshes: counter(
                "tenfold_edge_refreshes",
                "Fetches begun behind an answer that is stale, or about to be.",
            ),
        }
    }

    /// Requests that came to one worker: an even split is what the acceptor is for.
    #[must_use]
    pub(crate) fn worker_requests(&self, worker: usize) -> Counter {
        let labels = [("worker", &*worker.to_string())];
        self.registry.counter("tenfold_edge_worker_requests", "Requests by the worker they came to.", &labels)
    }

    /// A client was told, or not believed.
    pub(crate) fn on_position(&self, outcome: PositionOutcome) {
        self.positions[outcome as usize].add(1);
    }

    /// A request was refused, or a connection cut.
    pub(crate) fn on_refusal(&self, reason: Reason) {
        let labels = [("reason", reason.as_str())];
        self.registry
            .counter("tenfold_edge_refusals", "Requests refused and connections cut, by reason.", &labels)
            .add(1);
    }
}

impl std::fmt::Debug for EdgeMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeMetrics").finish_non_exhaustive()
    }
}

/// Drops the series of routes and clusters that a reload took away.
pub(crate) fn forget_absent(registry: &Registry, routes: &[String], clusters: &[String]) {
    registry.retain(|name, labels| {
        !name.starts_with("tenfold_edge_")
            || labels.iter().all(|(label, value)| match *label {
                "route" => value == "none" || routes.contains(value),
                "cluster" => clusters.contains(value),
                _ => true,
            })
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_shows_in_the_exposition() {
        let registry = Registry::new(1);
        let route = RouteMetrics::new(&registry, "product");
        route.on_request(200, Some(CacheOutcome::Collapsed), 10, Duration::from_millis(3));
        route.on_request(503, None, 0, Duration::from_millis(3));
        assert_eq!(route.totals(), (2, 1));
        EdgeMetrics::new(&registry).on_refusal(Reason::NoNode);
        EdgeMetrics::new(&registry).worker_requests(1).add(2);
        let text = registry.render();
        for line in [
            "tenfold_edge_requests_total{route=\"product\",status=\"2xx\"} 1",
            "tenfold_edge_cache_total{cache=\"collapsed\",route=\"product\"} 1",
            "tenfold_edge_worker_requests_total{worker=\"1\"} 2",
            "tenfold_edge_refusals_total{reason=\"no_node\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }

    #[test]
    fn a_removed_route_leaves_and_the_others_stay() {
        let registry = Registry::new(1);
        for route in ["old", "kept", "none"] {
            RouteMetrics::new(&registry, route).on_request(200, None, 0, Duration::ZERO);
        }
        forget_absent(&registry, &["kept".to_owned()], &[]);
        let text = registry.render();
        assert!(!text.contains("\"old\""), "{text}");
        assert!(text.contains("\"kept\"") && text.contains("\"none\""), "{text}");
    }
}
