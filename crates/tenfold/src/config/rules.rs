//! What only the whole file can tell: references, ties, addresses used twice.
//!
//! Runs after the walk, also on trees with mistakes in them, so that everything is said at once; a value the walk could
//! not read is passed over here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;

use super::diagnostic::Diagnostic;
use super::suggest;
use super::tree::{Node, Table, Value};

/// Adds what is wrong, or worth a warning, to `out`.
pub fn check(root: &Table, out: &mut Vec<Diagnostic>) {
    let empty = Table::default();
    let clusters = root.table("cluster").unwrap_or(&empty);
    check_admin(root, out);
    check_addresses(root, out);
    check_cache(root, out);
    check_references(root, clusters, out);
    check_nodes(clusters, out);
    check_amounts(clusters, out);
    check_names(root, out);
    check_ties(root, out);
    if root.list("route").is_empty() && !root.entries.contains_key("route") {
        out.push(Diagnostic::unplaced("there is no [[route]], so there is nothing to start"));
    }
}

fn check_admin(root: &Table, out: &mut Vec<Diagnostic>) {
    let Some(admin) = root.table("admin") else { return };
    let Some(node) = admin.get("listen") else { return };
    let Some(address) = socket(node) else { return };
    if !address.ip().is_loopback() && admin.get("token").is_none() {
        let message = format!("admin.listen = \"{address}\" is off loopback and has no token");
        out.push(Diagnostic::error(node.span.clone(), message, "add a token, or listen on 127.0.0.1"));
    }
}

fn check_addresses(root: &Table, out: &mut Vec<Diagnostic>) {
    let mut taken: BTreeMap<SocketAddr, (&'static str, Range<usize>)> = BTreeMap::new();
    let admin = root.table("admin").into_iter().flat_map(|admin| {
        let keys = [("admin.listen", "listen"), ("admin.probe_listen", "probe_listen")];
        keys.into_iter().filter_map(|(name, key)| Some((name, admin.get(key)?)))
    });
    let edge = root.table("edge").map(|edge| edge.list("listen")).unwrap_or_default();
    for (name, node) in admin.chain(edge.iter().map(|node| ("edge.listen", node))) {
        let Some(address) = socket(node) else { continue };
        let Some((other, first)) = taken.insert(address, (name, node.span.clone())) else { continue };
        // Port 0 is another port each time; within one key it would only be unclear which is which.
        if address.port() == 0 && other != name {
            continue;
        }
        // The default of a section that was not written has no place of its own.
        let span = if node.span.is_empty() { first } else { node.span.clone() };
        let (message, label) =
            (format!("{address} is used twice"), format!("{name} and {other} both have it"));
        out.push(Diagnostic::error(span, message, label));
    }
}

fn check_cache(root: &Table, out: &mut Vec<Diagnostic>) {
    let Some(cache) = root.table("cache") else { return };
    let size = |key: &str| match cache.get(key).map(|node| &node.value) {
        Some(Value::Size(bytes)) => Some(*bytes),
        _ => None,
    };
    let (Some(memory), Some(object_max)) = (size("memory"), size("object_max")) else { return };
    if object_max > memory && memory > 0 {
        let span = cache.get("object_max").map_or(0..0, |node| node.span.clone());
        out.push(Diagnostic::error(
            span,
            "cache.object_max is larger than cache.memory",
            "no such object would fit",
        ));
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
            None => format!("add [cluster.{name}]"),
        };
        out.push(Diagnostic::error(to.span.clone(), format!("there is no cluster \"{name}\""), label));
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
            if !seen.insert(address) {
                let message = format!("node \"{address}\" is in cluster \"{name}\" twice");
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
            let message = format!("two routes are named \"{name}\"");
            out.push(Diagnostic::error(node.span.clone(), message, "names tell routes apart in metrics"));
        }
    }
}

/// What a route asks for; two routes that ask for the same tie.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    host: Option<String>,
    path: String,
    headers: Vec<(String, String)>,
}

fn check_ties(root: &Table, out: &mut Vec<Diagnostic>) {
    let mut seen: BTreeMap<Asked, Vec<(usize, BTreeSet<&str>)>> = BTreeMap::new();
    for (index, path) in routes_with(root, "path") {
        let Some(route) = root.list("route")[index].as_table() else { continue };
        let Some(asked) = asked(route) else { continue };
        let methods: BTreeSet<&str> = route.list("methods").iter().filter_map(Node::as_text).collect();
        let others = seen.entry(asked).or_default();
        // Routes for some methods come before one for any, so only equals tie.
        let clash = |other: &BTreeSet<&str>| match (methods.is_empty(), other.is_empty()) {
            (true, true) => true,
            (false, false) => methods.intersection(other).next().is_some(),
            _ => false,
        };
        if let Some((other, _)) = others.iter().find(|(_, other)| clash(other)) {
            let message = format!("route[{index}] and route[{other}] ask for the same requests");
            out.push(Diagnostic::error(
                path.span.clone(),
                message,
                "tell them apart by host, path, methods or headers",
            ));
        }
        others.push((index, methods));
    }
}

fn asked(route: &Table) -> Option<Asked> {
    let headers = route.table("headers").map(|table| &table.entries);
    let pair = |(name, node): (&String, &Node)| Some((name.clone(), node.as_text()?.to_owned()));
    Some(Asked {
        host: route.optional_text("host").map(str::to_ascii_lowercase),
        path: shape(route.optional_text("path")?),
        headers: headers.into_iter().flatten().filter_map(pair).collect(),
    })
}

/// The path without its names: `/a/{id}` and `/a/{sku}` are the same.
fn shape(path: &str) -> String {
    let segment = |segment: &str| match segment.strip_prefix('{') {
        Some(name) if name.starts_with('*') => "{*}".to_owned(),
        Some(_) => "{}".to_owned(),
        None => segment.to_owned(),
    };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// Routes that have `key`, with their number.
fn routes_with<'t>(root: &'t Table, key: &'static str) -> impl Iterator<Item = (usize, &'t Node)> {
    let routes = root.list("route").iter().enumerate();
    routes.filter_map(move |(index, route)| Some((index, route.as_table()?.get(key)?)))
}

fn node_address(node: &Node) -> Option<&str> {
    node.as_table().map_or_else(|| node.as_text(), |table| table.optional_text("address"))
}

fn socket(node: &Node) -> Option<SocketAddr> {
    node.as_text()?.parse().ok()
}
