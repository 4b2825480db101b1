//! What the edge is told: plain structs, already validated in form, with no file format in sight.
//!
//! The binary reads `tenfold.toml` and fills these in; [`crate::Edge::build`] checks what only the edge can know (that a
//! route's cluster exists, that no two routes tie) and answers with every problem at once, each named by its
//! configuration path.
//!
//! Everything here has a default that suits a laptop, so a configuration of one route and one cluster is whole.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

/// The whole edge.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; `edge.listen`.
    pub listen: Vec<SocketAddr>,
    /// Peers whose `Forwarded` and `X-Forwarded-For` are believed; `edge.trusted_proxies`.
    pub trusted_proxies: Vec<IpNet>,
    /// What one client may cost.
    pub limits: Limits,
    /// The RAM tier and what it may hold; `cache`.
    pub cache: tenfold_cache::Config,
    /// Groups of nodes; `cluster.NAME`.
    pub clusters: Vec<ClusterConfig>,
    /// In the file's order; `route[N]`.
    pub routes: Vec<RouteConfig>,
    /// What the access log keeps; `log`.
    pub access_log: AccessLogConfig,
    /// How clients see their own writes, on routes that say so; `edge.own_writes`.
    pub own_writes: OwnWrites,
}

/// Bounds on what a client may send, hold or wait for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open client connections in all; `edge.connections_max`.
    pub connections_max: usize,
    /// Open connections of one address (IPv6: of one /64); off by default, since a whole carrier may sit behind one.
    pub connections_per_ip_max: Option<usize>,
    /// Requests served on one connection before it is closed in an orderly way.
    pub requests_per_connection_max: u64,
    /// The request head, in bytes, with its line.
    pub head_bytes_max: usize,
    /// One field line of the head, in bytes.
    pub field_line_bytes_max: usize,
    /// The request target, in bytes.
    pub target_bytes_max: usize,
    /// Fields in a head.
    pub fields_max: usize,
    /// The body of a request, in bytes; `edge.body_max`.
    pub request_body_bytes_max: u64,
    /// From the first byte of a head to its last.
    pub head_read: Duration,
    /// How long a kept-alive connection may stay quiet between requests.
    pub keep_alive: Duration,
    /// How long a body, in either direction, may stand still.
    pub body_idle: Duration,
    /// A client that takes a response or sends a body slower than this, over `body_idle`, is cut. In bytes a second.
    pub send_rate_min: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            connections_per_ip_max: None,
            requests_per_connection_max: 100_000,
            head_bytes_max: 32 * 1024,
            field_line_bytes_max: 8 * 1024,
            target_bytes_max: 8 * 1024,
            fields_max: 100,
            request_body_bytes_max: 1 << 30,
            head_read: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            body_idle: Duration::from_secs(30),
            send_rate_min: 512,
        }
    }
}

/// A group of nodes that serve the same thing.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// As in `cluster.NAME`.
    pub name: String,
    /// At least one.
    pub nodes: Vec<NodeConfig>,
    /// How a node is picked.
    pub policy: tenfold_balance::Policy,
    /// Active checks; none unless configured.
    pub health: Option<tenfold_balance::HealthConfig>,
    /// How often a request may be tried again, and within what budget.
    pub retry: tenfold_balance::RetryConfig,
    /// What each wait on a node may take.
    pub timeouts: Timeouts,
}

/// One node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// `host:port`; the host a name or an address. Names are resolved off the workers, again every half minute.
    pub address: String,
    /// Share of the work relative to its siblings; at least 1.
    pub weight: u32,
    /// What to send as `Host` instead of the client's.
    pub host: Option<String>,
}

/// Limits on waiting for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the TCP connection.
    pub connect: Duration,
    /// From the end of the request's body to the response's head. Phones upload slowly, so the body does not count.
    pub response: Duration,
    /// How long a body, in either direction, may stand still at the node's side.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(10),
            idle: Duration::from_secs(60),
        }
    }
}

/// One `[[route]]`.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    /// For metrics and logs; the path pattern where the file gives none. Unique.
    pub name: String,
    /// An exact host name, or `*.example.com` for its subdomains; any host if absent. Lower case, no port.
    pub host: Option<String>,
    /// `/api/products/{id}`: `{name}` is one segment, a last `{*rest}` the remainder.
    pub path: String,
    /// Any method if empty.
    pub methods: Vec<String>,
    /// Fields that must be present with exactly this value; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Name of the cluster.
    pub to: String,
    /// What may be cached, and for how long.
    pub cache: tenfold_cache::Rule,
    /// Whether clients see their own writes, cached answers included; `own_writes`.
    pub own_writes: bool,
}

/// How clients see their own writes.
#[derive(Clone, Debug)]
pub struct OwnWrites {
    /// Seals what clients carry; edges that share clients share it. `None`: one that this process makes up.
    pub key: Option<SealKey>,
    /// How long what a client carries counts.
    pub ttl: Duration,
    /// Replicas further behind than this are not used, nowhere.
    pub lag_max: Duration,
}

impl Default for OwnWrites {
    fn default() -> Self {
        Self { key: None, ttl: Duration::from_secs(3600), lag_max: Duration::from_secs(10) }
    }
}

/// A key that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey(Box<[u8]>);

impl SealKey {
    /// Of any bytes that are hard to guess.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What the access log keeps. Refusals and errors are always kept.
#[derive(Clone, Copy, Debug)]
pub struct AccessLogConfig {
    /// Share of ordinary requests kept, in parts per million.
    pub sample_ppm: u32,
}

impl Default for AccessLogConfig {
    fn default() -> Self {
        Self { sample_ppm: 10_000 }
    }
}

/// Why a configuration cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct BuildError {
    /// The configuration path that is at fault, such as `route[2].to`.
    pub path: String,
    /// What is wrong and what to do, in one sentence.
    pub message: String,
}
