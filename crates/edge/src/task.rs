//! A request that has to wait for something: what is known about it, owned.
//!
//! Most requests are answered from the cache while their head is still borrowed from the receive buffer, and need nothing
//! of this. The others outlive the buffer, so what they need is written down once: the request as a node will see it,
//! what the client can take, and an [`Account`] that follows the request to its end.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tenfold_cache::{CacheStatus, Entry, Floor, Recording, RequestFacts, Watch};
use tenfold_http1::{Field, Limits, RequestHead, parse_request};

use crate::access_log::Record;
use crate::config::Timeouts;
use crate::exchange::NodeRequest;
use crate::forward::passed_on;
use crate::local::Local;
use crate::metrics::CacheOutcome;
use crate::position::Token;
use crate::reason::Reason;
use crate::reply::{Ours, ShownKey};
use crate::request_id::RequestId;
use crate::router::RouteIndex;
use crate::snapshot::{RouteState, Snapshot};
use crate::upstream::ClusterState;

/// A request on its way to a node, or waiting for a fill.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) route: RouteIndex,
    /// As a node is to see it on behalf of this client alone.
    pub(crate) request: NodeRequest,
    pub(crate) client: Client,
    pub(crate) request_id: RequestId,
    /// What its client has to see.
    pub(crate) token: Option<Token>,
    pub(crate) cache: CacheStatus,
    /// Where the cache wants to see the answer's head ([`tenfold_cache::Cache::observe`]).
    pub(crate) watch: Option<Watch>,
    /// The answer, while it is being stored as it passes.
    pub(crate) recording: RefCell<Option<Recording>>,
    /// [`tenfold_cache::Cache::purges_so_far`] before it went out.
    pub(crate) purges: u64,
    /// To be served should no node answer.
    pub(crate) stale: Option<Arc<Entry>>,
    pub(crate) account: Account,
}

/// What the client can take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) ip: IpAddr,
    /// Neither chunks nor interim responses.
    pub(crate) http10: bool,
    /// Another request may follow on this connection.
    pub(crate) keep_alive: bool,
    /// The request was HEAD.
    pub(crate) head_only: bool,
    /// It has a copy, and asks whether that still holds.
    pub(crate) conditional: bool,
    /// It waits for `100 Continue`.
    pub(crate) expect_continue: bool,
}

impl Task {
    pub(crate) fn route(&self) -> &RouteState {
        &self.snapshot.routes[self.route.0]
    }

    pub(crate) fn cluster(&self) -> Arc<ClusterState> {
        Arc::clone(&self.route().cluster)
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.route().cluster.timeouts
    }

    pub(crate) fn send_rate_min(&self) -> u64 {
        self.snapshot.config.limits.send_rate_min
    }

    /// The lines that are ours on its answer.
    pub(crate) fn ours(&self, cache: CacheStatus, close: bool) -> Ours<'_> {
        let shown = || {
            let (_, path, host) = self.request.described();
            ShownKey { host, path, query: None }
        };
        let key = self.route().rule.shows_key().then(shown);
        Ours { request_id: &self.request_id, cache, key, http10: self.client.http10, close }
    }

    /// The client has a copy and asks whether it still holds.
    pub(crate) fn is_conditional(&self) -> bool {
        self.client.conditional
    }

    /// Reads the request once more, for what is seldom needed. The fields are those that routes, keys and `Vary` saw,
    /// beside those that we write on each request.
    pub(crate) fn with_head<R>(&self, look: impl FnOnce(&RequestHead<'_>, &[Field<'_>]) -> R) -> Option<R> {
        let own = self.request.head();
        // Our own fields come on top of what the client was allowed.
        let limits = Limits {
            head_bytes_max: usize::MAX,
            line_bytes_max: own.len(),
            target_bytes_max: own.len(),
            fields_max: usize::MAX,
            ..self.snapshot.codec
        };
        let parsed = parse_request(own, &mut 0, &limits);
        debug_assert!(matches!(parsed, Ok(Some(_))), "what we write can be read");
        let (head, _) = parsed.ok()??;
        // What it says of its way is our own word.
        let fields = passed_on(&head.fields, head.names_hop_by_hop, true);
        Some(look(&head, &fields))
    }

    /// As [`with_head`](Self::with_head), seen by the cache.
    pub(crate) fn with_facts<R>(&self, look: impl FnOnce(&RequestFacts<'_>) -> R) -> Option<R> {
        let rule = &self.route().rule;
        let floor = self.floor();
        self.with_head(|head, fields| {
            look(&RequestFacts::read(head.method_text, fields).under(rule).needing(floor))
        })
    }

    /// What its client has to see, as the cache knows it.
    pub(crate) fn floor(&self) -> Floor {
        match (&self.snapshot.seal, &self.token) {
            (Some(seal), Some(token)) => seal.floor(token),
            _ => Floor::NONE,
        }
    }
}

/// What became of a request, for metrics and the log.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) started: Instant,
    /// 0 until there is an answer.
    pub(crate) status: u16,
    pub(crate) reason: Option<Reason>,
    pub(crate) cache: Option<CacheOutcome>,
    pub(crate) body_bytes: u64,
}

/// Longer methods, hosts and targets are cut in the log.
const LOGGED_BYTES_MAX: usize = 1024;

/// How the log describes a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Described<'a> {
    pub(crate) client: IpAddr,
    pub(crate) request_id: &'a RequestId,
    pub(crate) method: &'a [u8],
    pub(crate) host: &'a [u8],
    pub(crate) target: &'a [u8],
}

impl Account {
    pub(crate) fn new(started: Instant) -> Self {
        Self { started, status: 0, reason: None, cache: None, body_bytes: 0 }
    }

    /// Counts the request, and logs it if it is to be.
    pub(crate) fn close<'a>(
        &self,
        local: &Local,
        snapshot: &Snapshot,
        route: Option<RouteIndex>,
        described: impl FnOnce() -> Described<'a>,
    ) {
        let duration = local.worker.clock.now().saturating_duration_since(self.started);
        snapshot.metrics_of(route).on_request(self.status, self.cache, self.body_bytes, duration);
        if let Some(reason) = self.reason {
            local.shared.metrics.on_refusal(reason);
        }
        let remarkable = self.reason.is_some() || self.status >= 500;
        local.access_log.offer(snapshot.config.access_log.sample_ppm, remarkable, || {
            self.record(local, snapshot, route, &described(), duration)
        });
    }

    fn record(
        &self,
        local: &Local,
        snapshot: &Snapshot,
        route: Option<RouteIndex>,
        described: &Described<'_>,
        duration: Duration,
    ) -> Record {
        let text =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(LOGGED_BYTES_MAX)]).into_owned();
        Record {
            unix_ms: local.worker.clock.unix_ms(),
            client: described.client,
            request_id: described.request_id.as_str().to_owned(),
            method: text(described.method),
            host: text(described.host),
            target: text(described.target),
            route: snapshot.route(route).map(|route| Arc::clone(&route.name)),
            status: self.status,
            body_bytes: self.body_bytes,
            duration,
            cache: self.cache.map_or("none", CacheOutcome::as_str),
            reason: self.reason,
        }
    }
}
