//! From the checked tree to plain structs, one per tier.
//!
//! Nothing can fail here: forms, ranges, references and defaults were all settled before. What a tier alone can know
//! (two routes that tie in its router, say) is its own `build`'s to refuse.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tenfold_balance::retry_budget;
use tenfold_balance::{HealthConfig, Policy, RetryConfig};
use tenfold_cache::{Coding, Compress, KeyPart, Override, Pattern, QueryRule, Rule, TagTemplate};
use tenfold_edge::config as edge;

use super::forms;
use super::pooler::PoolerSettings;
use super::tree::{Node, Table, Value};

/// Retries a cluster may make every second whatever its traffic, so that quiet ones can retry at all.
const RETRY_FLOOR_PER_SECOND: u32 = 10;

/// What the process is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Worker threads; `None` is one per core.
    pub workers: Option<usize>,
    /// The admin server.
    pub admin: Admin,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// How long open requests may finish in.
    pub drain_deadline: Duration,
    /// How long those are served that a successor cannot take over.
    pub drain_handover: Duration,
    /// The edge. Without a route it listens nowhere.
    pub edge: edge::Config,
    /// The pooler, if there is a database.
    pub pooler: Option<PoolerSettings>,
    /// What edges share, if they do.
    pub shared: Option<SharedSettings>,
}

/// The Redis that edges share, and what it may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSettings {
    /// As in `redis.NAME`.
    pub name: String,
    /// The server. Whom to believe that it is the one is yet to be read from `ca`.
    pub redis: tenfold_state::Config,
    /// A file in PEM, beside the configuration.
    pub ca: Option<String>,
    /// The tier.
    pub tier: tenfold_cache::tier::Settings,
}

/// The admin server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The whole API.
    pub listen: SocketAddr,
    /// Probes and metrics alone.
    pub probe_listen: Option<SocketAddr>,
    /// What callers must know.
    pub token: Option<Secret>,
    /// The socket by which a successor comes; `None`: where such sockets are by themselves.
    pub handover: Option<PathBuf>,
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Settings {
    /// Reads a tree in which the walk and the rules found no mistake.
    #[must_use]
    pub fn from_tree(root: &Table) -> Self {
        let log = section(root, "log");
        Self {
            workers: Some(count(root, "workers")).filter(|&workers| workers > 0),
            admin: admin(section(root, "admin")),
            log_format: match log.text("format") {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                other => unknown(other),
            },
            drain_deadline: section(root, "drain").duration("deadline"),
            drain_handover: section(root, "drain").duration("handover"),
            edge: edge_config(root, log),
            pooler: PoolerSettings::from_tree(root),
            shared: shared(root),
        }
    }
}

fn admin(table: &Table) -> Admin {
    Admin {
        listen: address(table.text("listen")),
        probe_listen: table.optional_text("probe_listen").map(address),
        token: table.optional_text("token").map(|token| Secret(token.to_owned())),
        handover: table.optional_text("handover").map(PathBuf::from),
    }
}

fn edge_config(root: &Table, log: &Table) -> edge::Config {
    let table = section(root, "edge");
    let routes: Vec<_> = root.list("route").iter().filter_map(Node::as_table).map(route).collect();
    let listen = table.list("listen").iter().map(|node| address(text(node)));
    let clusters = root.table("cluster").into_iter().flat_map(|clusters| &clusters.entries);
    edge::Config {
        listen: listen.filter(|_| !routes.is_empty()).collect(),
        trusted_proxies: table.list("trusted_proxies").iter().map(|node| network(text(node))).collect(),
        limits: limits(table),
        cache: cache(section(root, "cache")),
        clusters: clusters.filter_map(|(name, node)| Some(cluster(name, node.as_table()?))).collect(),
        routes: with_unique_names(routes),
        access_log: edge::AccessLogConfig { sample_ppm: log.ratio_ppm("access") },
        own_writes: own_writes(root, section(table, "own_writes")),
    }
}

fn own_writes(root: &Table, table: &Table) -> edge::OwnWrites {
    let databases = root.table("database").into_iter().flat_map(|databases| databases.entries.values());
    let of_database = |node: &Node| node.as_table()?.table("reads")?.optional_duration("lag_max");
    let largest = databases.filter_map(of_database).max();
    let default = edge::OwnWrites::default();
    edge::OwnWrites {
        key: table.optional_text("key").map(|key| edge::SealKey::new(key.as_bytes())),
        ttl: table.duration("ttl"),
        lag_max: table.optional_duration("lag_max").or(largest).unwrap_or(default.lag_max),
    }
}

fn limits(table: &Table) -> edge::Limits {
    let bytes = |key: &str| usize::try_from(table.size(key)).unwrap_or(usize::MAX);
    edge::Limits {
        connections_max: count(table, "connections_max"),
        connections_per_ip_max: table
            .optional_integer("connections_per_ip_max")
            .map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        requests_per_connection_max: table.integer("requests_per_connection_max"),
        head_bytes_max: bytes("head_max"),
        field_line_bytes_max: bytes("field_line_max"),
        target_bytes_max: bytes("target_max"),
        fields_max: count(table, "fields_max"),
        request_body_bytes_max: table.size("body_max"),
        head_read: table.duration("head_read"),
        keep_alive: table.duration("keep_alive"),
        body_idle: table.duration("body_idle"),
        send_rate_min: table.size("send_rate_min"),
    }
}

/// The section's numbers.
#[must_use]
pub fn cache(table: &Table) -> tenfold_cache::Config {
    tenfold_cache::Config {
        memory_bytes: table.size("memory"),
        object_bytes_max: table.size("object_max"),
        variants_max: count(table, "variants_max"),
        files_max: count(table, "files_max"),
        fills_max: count(table, "fills_max"),
        refills_max: table.optional_integer("refills_max").and_then(|most| usize::try_from(most).ok()),
    }
}

fn shared(root: &Table) -> Option<SharedSettings> {
    let cache = section(root, "cache");
    let name = cache.optional_text("redis")?;
    let server = root.table("redis")?.table(name)?;
    let shared = section(cache, "shared");
    Some(SharedSettings {
        name: name.to_owned(),
        redis: tenfold_state::Config {
            url: server.text("url").to_owned(),
            ca: None,
            username: server.optional_text("user").map(str::to_owned),
            password: server.optional_text("password").map(str::to_owned),
            connect: server.duration("connect"),
            probe: server.duration("probe"),
            in_flight_max: count(server, "in_flight_max"),
        },
        ca: server.optional_text("ca").map(str::to_owned),
        tier: tenfold_cache::tier::Settings {
            prefix: shared.text("prefix").to_owned(),
            budget: shared.duration("budget"),
            shield_budget: shared.duration("shield_budget"),
            life_max: shared.duration("life_max"),
            value_bytes_max: usize::try_from(shared.size("object_max")).unwrap_or(usize::MAX),
            purge_blind_max: cache.optional_duration("purge_blind_max"),
        },
    })
}

fn cluster(name: &str, table: &Table) -> edge::ClusterConfig {
    let retries = section(table, "retries");
    let timeout = section(table, "timeout");
    edge::ClusterConfig {
        name: name.to_owned(),
        nodes: table.list("nodes").iter().map(node).collect(),
        policy: match table.text("balance") {
            "least_connections" => Policy::LeastConnections,
            "round_robin" => Policy::RoundRobin,
            other => unknown(other),
        },
        health: table.table("health").map(health),
        retry: RetryConfig {
            per_request: small(retries, "per_request"),
            budget: retry_budget::Config {
                percent: retries.ratio_ppm("budget") / 10_000,
                floor_per_second: RETRY_FLOOR_PER_SECOND,
            },
        },
        timeouts: edge::Timeouts {
            connect: timeout.duration("connect"),
            response: timeout.duration("response"),
            idle: timeout.duration("idle"),
        },
    }
}

fn node(node: &Node) -> edge::NodeConfig {
    match node.as_table() {
        Some(table) => edge::NodeConfig {
            address: table.text("address").to_owned(),
            weight: small(table, "weight"),
            host: table.optional_text("host").map(str::to_owned),
        },
        None => edge::NodeConfig { address: text(node).to_owned(), weight: 1, host: None },
    }
}

fn health(table: &Table) -> HealthConfig {
    HealthConfig {
        path: table.text("path").to_owned(),
        every: table.duration("every"),
        timeout: table.duration("timeout"),
        fail_after: small(table, "fail_after"),
        pass_after: small(table, "pass_after"),
    }
}

fn route(table: &Table) -> edge::RouteConfig {
    let headers = table.table("headers").into_iter().flat_map(|headers| &headers.entries);
    let text = |node: &Node| text(node).to_owned();
    edge::RouteConfig {
        name: table.optional_text("name").unwrap_or_default().to_owned(),
        host: table.optional_text("host").map(str::to_ascii_lowercase),
        path: table.text("path").to_owned(),
        methods: table.list("methods").iter().map(text).collect(),
        headers: headers.map(|(name, node)| (name.clone(), text(node))).collect(),
        to: table.text("to").to_owned(),
        cache: table.get("cache").map_or(Rule::Respect, |node| rule(node, table.text("path"))),
        own_writes: table.boolean("own_writes"),
    }
}

/// The rule of a route with this path.
fn rule(node: &Node, path: &str) -> Rule {
    let Some(table) = node.as_table() else {
        return match text(node) {
            "off" => Rule::Off,
            "respect" => Rule::Respect,
            other => unknown(other),
        };
    };
    let part = |node: &Node| match forms::key_part(text(node)).expect("the walker checked the key's parts") {
        ("cookie", name) => KeyPart::Cookie(name.into()),
        ("header", name) => KeyPart::Header(name.to_ascii_lowercase()),
        (other, _) => unknown(other),
    };
    let tag = |node: &Node| TagTemplate::parse(text(node), path).expect("the rules checked the tags");
    Rule::Override(Override {
        ttl: table.optional_duration("ttl"),
        negative_ttl: table.optional_duration("negative_ttl"),
        stale_while_revalidate: table.duration("stale_while_revalidate"),
        stale_if_error: table.duration("stale_if_error"),
        heuristic: table.boolean("heuristic"),
        shared: table.boolean("shared"),
        set_cookie: table.boolean("store_set_cookie"),
        ignore_client_revalidation: table.boolean("ignore_client_revalidation"),
        show_key: table.boolean("show_key"),
        shield: table.boolean("shield"),
        key: table.list("key").iter().map(part).collect(),
        query: query(section(table, "query")),
        tags: table.list("tags").iter().map(tag).collect(),
        early_refresh_off: !table.boolean("early_refresh"),
        compress: table.get("compress").and_then(compress),
    })
}

fn compress(node: &Node) -> Option<Compress> {
    let Some(table) = node.as_table() else {
        return matches!(node.value, Value::Boolean(true)).then(Compress::default);
    };
    let coding = |node: &Node| Coding::read(text(node).as_bytes()).expect("the walker checked the word");
    Some(Compress {
        codings: table.list("encodings").iter().map(coding).collect(),
        size_min: table.size("size_min"),
        set_cookie: table.boolean("set_cookie"),
    })
}

/// Nothing where all of a query counts as it stands.
fn query(table: &Table) -> Option<Arc<QueryRule>> {
    let patterns = |key| table.list(key).iter().map(|node| Pattern::new(text(node))).collect();
    let rule = QueryRule { sort: table.boolean("sort"), keep: patterns("keep"), drop: patterns("drop") };
    (rule != QueryRule::default()).then(|| rule.into())
}

/// A route without a name is called by its path; where several share one, by as much more as tells them apart.
fn with_unique_names(mut routes: Vec<edge::RouteConfig>) -> Vec<edge::RouteConfig> {
    let mut taken: Vec<String> =
        routes.iter().map(|route| route.name.clone()).filter(|name| !name.is_empty()).collect();
    for (index, route) in routes.iter_mut().enumerate().filter(|(_, route)| route.name.is_empty()) {
        let host = route.host.clone().unwrap_or_default();
        let methods = route.methods.join(",");
        let candidates = [
            route.path.clone(),
            format!("{host}{}", route.path),
            format!("{methods} {host}{}", route.path).trim_start().to_owned(),
            format!("{host}{} #{index}", route.path),
        ];
        let free = candidates.into_iter().find(|name| !taken.contains(name));
        route.name = free.unwrap_or_else(|| format!("route #{index}"));
        taken.push(route.name.clone());
    }
    routes
}

fn network(text: &str) -> IpNet {
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    network.expect("the walker checked the network")
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("the walker checked the address")
}

fn text(node: &Node) -> &str {
    node.as_text().expect("the walker checked the text")
}

/// The table of keys knows a word that this module doesn't; a test builds from every word there is.
fn unknown(word: &str) -> ! {
    panic!("a word that nothing is built from: {word:?}")
}

fn section<'t>(table: &'t Table, key: &str) -> &'t Table {
    table.table(key).expect("a section with defaults is always there")
}

fn count(table: &Table, key: &str) -> usize {
    usize::try_from(table.integer(key)).unwrap_or(usize::MAX)
}

fn small(table: &Table, key: &str) -> u32 {
    u32::try_from(table.integer(key)).unwrap_or(u32::MAX)
}
