//! What only the whole file can tell: references, ties, addresses used twice.
//!
//! Runs after the walk, also on trees with mistakes in them, so that everything is said at once; a value the walk could
//! not read is passed over here.

mod pooler;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;

use tenfold_edge::config::RouteConfig;
use tenfold_edge::router::{self, RouteIndex};

use super::diagnostic::Diagnostic;
use super::suggest;
use super::tree::{Node, Table, Value};
use super::values::size_text;

/// Adds what is wrong, or worth a warning, to `out`.
pub fn check(root: &Table, out: &mut Vec<Diagnostic>) {
    let empty = Table::default();
    let clusters = root.table("cluster").unwrap_or(&empty);
    check_admin(root, out);
    check_addresses(root, out);
    check_cache(root, out);
    check_redis(root, out);
    check_references(root, clusters, out);
    check_nodes(clusters, out);
    check_amounts(clusters, out);
    check_names(root, out);
    check_ties(root, out);
    check_tags(root, out);
    check_keyed_cookies(root, out);
    check_own_writes(root, out);
    pooler::check(root, out);
    if !["route", "database"].iter().any(|key| root.entries.contains_key(*key)) {
        let message = "there is neither a [[route]] nor a [database.NAME], so there is nothing to start";
        out.push(Diagnostic::unplaced(message));
    }
}

fn check_admin(root: &Table, out: &mut Vec<Diagnostic>) {
    let Some(admin) = root.table("admin") else { return };
    let Some(node) = admin.get("listen") else { return };
    let Some(address) = socket(node) else { return };
    if !address.ip().is_loopback() && admin.get("token").is_none() {
        let message = format!("admin.listen = \"{}\" is off loopback and has no token", node.shown());
        out.push(Diagnostic::error(node.span.clone(), message, "add a token, or listen on 127.0.0.1"));
    }
}

fn check_addresses(root: &Table, out: &mut Vec<Diagnostic>) {
    let mut taken: BTreeMap<SocketAddr, (&'static str, Range<usize>)> = BTreeMap::new();
    let admin = root.table("admin").into_iter().flat_map(|admin| {
        let keys = [("admin.listen", "listen"), ("admin.probe_listen", "probe_listen")];
        keys.into_iter().filter_map(|(name, key)| Some((name, admin.get(key)?)))
    });
    // Without a route the edge listens nowhere.
    let edge = root.table("edge").filter(|_| !root.list("route").is_empty());
    let edge =
        edge.map(|edge| edge.list("listen")).unwrap_or_default().iter().map(|node| ("edge.listen", node));
    let pooler = pooler::tcp_listens(root).map(|node| ("pooler.listen", node));
    for (name, node) in admin.chain(edge).chain(pooler) {
        let Some(address) = socket(node) else { continue };
        let Some((other, first)) = taken.insert(address, (name, node.span.clone())) else { continue };
        // Port 0 is another port each time; within one key it would only be unclear which is which.
        if address.port() == 0 && other != name {
            continue;
        }
        // The default of a section that was not written has no place of its own.
        let span = if node.span.is_empty() { first } else { node.span.clone() };
        let (message, label) =
            (format!("{} is used twice", node.shown()), format!("{name} and {other} both have it"));
        out.push(Diagnostic::error(span, message, label));
    }
}

/// Whether it could work at all is the cache's to say.
fn check_cache(root: &Table, out: &mut Vec<Diagnostic>) {
    let Some(cache) = root.table("cache") else { return };
    let is_whole = |node: &Node| !matches!(node.value, Value::Invalid);
    if !cache.entries.values().all(is_whole) {
        return;
    }
    let Err(error) = super::settings::cache(cache).validate() else { return };
    // What was left to its default has no place of its own.
    let written = |key: &str| root.span_of(key).filter(|span| !span.is_empty());
    let span = written(error.path()).or_else(|| written("cache.memory")).unwrap_or(0..0);
    let tenfold_cache::Error::ObjectTooLarge { object_bytes_max, memory_bytes, possible_bytes_max } = error
    else {
        out.push(Diagnostic::error(span, format!("{}: {error}", error.path()), ""));
        return;
    };
    let message = format!(
        "cache.object_max = {} cannot be kept in cache.memory = {}",
        size_text(object_bytes_max),
        size_text(memory_bytes)
    );
    // Whole KiB, of which an object may have one at least.
    let possible = possible_bytes_max & !1023;
    let label = match possible {
        0 => "raise cache.memory".to_owned(),
        _ => format!("raise cache.memory, or set cache.object_max to at most {}", size_text(possible)),
    };
    out.push(Diagnostic::error(span, message, label));
}

/// Who shares what with whom.
fn check_redis(root: &Table, out: &mut Vec<Diagnostic>) {
    let empty = Table::default();
    let servers = root.table("redis").unwrap_or(&empty);
    let named = root.table("cache").and_then(|cache| cache.get("redis"));
    let name = named.and_then(Node::as_text);
    if let (Some(node), Some(name)) = (named, name)
        && !servers.entries.contains_key(name)
    {
        let known = servers.entries.keys().map(String::as_str);
        let label = match suggest::nearest(name, known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("add [redis.{name}] with a url"),
        };
        out.push(Diagnostic::error(node.span.clone(), format!("there is no redis \"{name}\""), label));
        return;
    }
    for (unused, node) in servers.entries.iter().filter(|(other, _)| Some(other.as_str()) != name) {
        let message = format!("nothing uses redis \"{unused}\"");
        out.push(Diagnostic::warning(node.span.clone(), message, "cache.redis would name it"));
    }
    if name.is_some() {
        return;
    }
    let routes = root.list("route").iter().filter_map(Node::as_table);
    for node in routes.filter_map(|route| route.table("cache")?.get("shield")) {
        if matches!(node.value, Value::Boolean(true)) {
            let message = "shield does nothing without cache.redis";
            out.push(Diagnostic::warning(node.span.clone(), message, "edges can't tell each other"));
        }
    }
}

fn check_references(root: &Table, clusters: &Table, out: &mut Vec<Diagnostic>) {
    let mut used = BTreeSet::new();
    let found = out.len();
    for (_, to) in routes_with(root, "to") {
        let Some(name) = to.as_text() else { continue };
        used.insert(name.to_owned());
        if clusters.entries.contains_key(name) {
            continue;
        }
        let known = clusters.entries.keys().map(String::as_str);
        let label = match suggest::nearest(name, known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("add [cluster.{}]", to.shown()),
        };
        out.push(Diagnostic::error(
            to.span.clone(),
            format!("there is no cluster \"{}\"", to.shown()),
            label,
        ));
    }
    if out.len() > found {
        // One of these names was probably meant for one of those clusters.
        return;
    }
    for (name, node) in clusters.entries.iter().filter(|(name, _)| !used.contains(*name)) {
        let message = format!("no route leads to cluster \"{name}\"");
        out.push(Diagnostic::warning(node.span.clone(), message, "it is not checked or used"));
    }
}

fn check_nodes(clusters: &Table, out: &mut Vec<Diagnostic>) {
    for (name, cluster) in &clusters.entries {
        let Some(nodes) = cluster.as_table().and_then(|cluster| cluster.get("nodes")) else { continue };
        if matches!(&nodes.value, Value::List(list) if list.is_empty()) {
            let message = format!("cluster \"{name}\" has no nodes");
            out.push(Diagnostic::error(nodes.span.clone(), message, "expected at least one"));
        }
        if nodes.as_list().len() > tenfold_balance::NODES_MAX {
            let (message, most) =
                (format!("cluster \"{name}\" has too many nodes"), tenfold_balance::NODES_MAX);
            out.push(Diagnostic::error(nodes.span.clone(), message, format!("expected at most {most}")));
        }
        let mut seen = BTreeSet::new();
        for node in nodes.as_list() {
            let Some(address) = node_address(node) else { continue };
            let Some(text) = address.as_text() else { continue };
            if !seen.insert(text) {
                let message = format!("node \"{}\" is in cluster \"{name}\" twice", address.shown());
                out.push(Diagnostic::error(node.span.clone(), message, "give it a weight instead"));
            }
        }
    }
}

/// What would otherwise be rounded or cut in silence.
fn check_amounts(clusters: &Table, out: &mut Vec<Diagnostic>) {
    const ONE_PERCENT_PPM: u32 = 10_000;
    for cluster in clusters.entries.values().filter_map(Node::as_table) {
        let budget = cluster.table("retries").and_then(|retries| retries.get("budget"));
        if let Some((node, Value::Ratio(ppm))) = budget.map(|node| (node, &node.value))
            && ppm % ONE_PERCENT_PPM != 0
        {
            let message = "budget is not a whole percentage";
            out.push(Diagnostic::error(node.span.clone(), message, "expected whole percents"));
        }
        let Some(health) = cluster.table("health") else { continue };
        let (every, timeout) = (health.get("every"), health.get("timeout"));
        if let (Some(Value::Duration(every)), Some(timeout)) = (every.map(|node| &node.value), timeout)
            && matches!(&timeout.value, Value::Duration(timeout) if timeout >= every)
        {
            let (message, label) =
                ("health.timeout is not below health.every", "a check is cut before the next one begins");
            out.push(Diagnostic::warning(timeout.span.clone(), message, label));
        }
    }
}

fn check_names(root: &Table, out: &mut Vec<Diagnostic>) {
    let mut seen = BTreeSet::new();
    for (_, node) in routes_with(root, "name") {
        let Some(name) = node.as_text() else { continue };
        if !seen.insert(name) {
            let message = format!("two routes are named \"{}\"", node.shown());
            out.push(Diagnostic::error(node.span.clone(), message, "names tell routes apart in metrics"));
        }
    }
}

/// Which routes tie is the router's to say; of those that can be read, whatever is wrong with the others.
fn check_ties(root: &Table, out: &mut Vec<Diagnostic>) {
    let readable = |(index, path): (usize, &Node)| {
        let route = root.list("route")[index].as_table()?;
        Some((index, path.span.clone(), asked(route)?))
    };
    let places: Vec<_> = routes_with(root, "path").filter_map(readable).collect();
    let routes: Vec<_> = places.iter().map(|(_, _, route)| route.clone()).collect();
    for (RouteIndex(this), RouteIndex(other)) in router::ties(&routes) {
        let ((index, span, _), (other, ..)) = (&places[this], &places[other]);
        let message = format!("route[{index}] and route[{other}] ask for the same requests");
        out.push(Diagnostic::error(span.clone(), message, router::TELL_APART));
    }
}

/// Which places a tag may have depends on the route's path.
fn check_tags(root: &Table, out: &mut Vec<Diagnostic>) {
    for route in root.list("route").iter().filter_map(Node::as_table) {
        let (Some(path), Some(cache)) = (route.optional_text("path"), route.table("cache")) else { continue };
        for node in cache.list("tags") {
            let Some(text) = node.as_text() else { continue };
            if let Err(wrong) = tenfold_cache::TagTemplate::parse(text, path) {
                out.push(Diagnostic::error(
                    node.span.clone(),
                    format!("{text:?} is no tag of this route"),
                    wrong,
                ));
            }
        }
    }
}

/// A lifetime of the route's is for requests with a cookie only where `shared` or the whole header is in the key; who has
/// one cookie in it may think that it is enough.
fn check_keyed_cookies(root: &Table, out: &mut Vec<Diagnostic>) {
    for cache in root.list("route").iter().filter_map(|route| route.as_table()?.table("cache")) {
        let given = ["ttl", "negative_ttl"].into_iter().find(|key| cache.get(key).is_some());
        let parts = || cache.list("key").iter().filter_map(|node| Some((node, node.as_text()?)));
        let one = parts().find(|(_, part)| part.starts_with("cookie:"));
        let (Some(given), Some((node, part))) = (given, one) else { continue };
        let shared = cache.get("shared").is_some_and(|node| matches!(node.value, Value::Boolean(true)));
        if shared || parts().any(|(_, part)| part.eq_ignore_ascii_case("header:cookie")) {
            continue;
        }
        let message = format!("{given} never applies to a request that has the cookie of \"{part}\"");
        let label = "add shared = true: nothing else in its cookies counts; or take \"header:cookie\"";
        out.push(Diagnostic::warning(node.span.clone(), message, label));
    }
}

/// What clients carry is sealed; who seals with a key that nobody else knows, and that ends with the process, should know.
fn check_own_writes(root: &Table, out: &mut Vec<Diagnostic>) {
    let has_key = || root.table("edge")?.table("own_writes")?.get("key");
    if has_key().is_some() {
        return;
    }
    let is_on = |node: &&Node| matches!(node.value, Value::Boolean(true));
    let first = root.list("route").iter().find_map(|route| route.as_table()?.get("own_writes").filter(is_on));
    let Some(node) = first else { return };
    let message = "own_writes without edge.own_writes.key: the process makes a key up";
    let label = "what clients carry counts for nothing after a restart, nor at another edge";
    out.push(Diagnostic::warning(node.span.clone(), message, label));
}

/// The part of a route that requests are compared with.
fn asked(route: &Table) -> Option<RouteConfig> {
    let texts = |nodes: &[Node]| {
        nodes.iter().map(|node| node.as_text().map(str::to_owned)).collect::<Option<Vec<_>>>()
    };
    let headers = route.table("headers").into_iter().flat_map(|headers| &headers.entries);
    Some(RouteConfig {
        name: String::new(),
        host: route.optional_text("host").map(str::to_ascii_lowercase),
        path: route.optional_text("path")?.to_owned(),
        methods: texts(route.list("methods"))?,
        headers: headers
            .map(|(name, node)| Some((name.clone(), node.as_text()?.to_owned())))
            .collect::<Option<_>>()?,
        to: String::new(),
        cache: tenfold_cache::Rule::Respect,
        own_writes: false,
    })
}

/// Routes that have `key`, with their number.
fn routes_with<'t>(root: &'t Table, key: &'static str) -> impl Iterator<Item = (usize, &'t Node)> {
    let routes = root.list("route").iter().enumerate();
    routes.filter_map(move |(index, route)| Some((index, route.as_table()?.get(key)?)))
}

fn node_address(node: &Node) -> Option<&Node> {
    node.as_table().map_or(Some(node), |table| table.get("address"))
}

fn socket(node: &Node) -> Option<SocketAddr> {
    node.as_text()?.parse().ok()
}
