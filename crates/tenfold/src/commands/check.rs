//! `tenfold check`: everything that is wrong with the file and its surroundings, at once.
//!
//! **Mechanism.** The file is read and the tiers are built from it, as `run` would; then each node's name is resolved and
//! a connection made to it, all at the same time; and each database is logged in to ([`databases`]).
//!
//! **Failure.** A mistake in the file is an error, and the exit code 2. A node that can't be reached may only be down, so
//! it is a warning; a cluster of which no node can be reached is an error, and the exit code 1; likewise a database and
//! its servers. A Redis that can't be reached is a warning, as edges work without it. `--offline` leaves the network out of it.

pub mod databases;
mod redis;

use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use tenfold_edge::config::ClusterConfig;

use super::{complain, print, print_json};
use crate::cli::{Check, Exit, color_on_stderr};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::{self, Loaded};

/// How long a node may take to accept.
const CONNECT: Duration = Duration::from_secs(2);
/// Nodes asked at once.
const CONNECTS_MAX: usize = 32;

/// Checks, and prints what was found.
#[must_use]
pub fn check(check: &Check) -> Exit {
    let loaded = match config::load(&check.file.config) {
        Ok(loaded) => loaded,
        Err(report) => return told(&report, check, Exit::Usage),
    };
    if let Err(mut report) = crate::live::rehearse(&loaded, &check.file.config) {
        report.diagnostics.extend(loaded.warnings.iter().cloned());
        return told(&report, check, Exit::Usage);
    }
    let mut found = loaded.warnings.clone();
    if !check.offline {
        found.extend(unreachable(&loaded));
        found.extend(databases::unreachable(&loaded, &check.file.config));
        found.extend(redis::unreachable(&loaded, &check.file.config));
    }
    let exit = if found.iter().any(|d| d.severity == Severity::Error) { Exit::Failed } else { Exit::Fine };
    told(&loaded.report(found), check, exit)
}

fn told(report: &config::diagnostic::Report, check: &Check, exit: Exit) -> Exit {
    if check.json {
        let problems = report.to_json();
        let printed = print_json(&serde_json::json!({ "fine": exit == Exit::Fine, "problems": problems }));
        return if exit == Exit::Fine { printed } else { exit };
    }
    if !report.diagnostics.is_empty() {
        complain(&report.render(color_on_stderr()));
    }
    let file = check.file.config.display();
    if exit == Exit::Fine {
        return print(&format!("{file} is fine"));
    }
    let errors = report.errors();
    complain(&format!("\n{file}: {errors} {}", if errors == 1 { "error" } else { "errors" }));
    exit
}

/// Why a node could not be reached.
struct Failure {
    cluster: usize,
    node: usize,
    why: String,
}

/// Warnings for nodes that can't be reached, an error for a cluster without any that can.
fn unreachable(loaded: &Loaded) -> Vec<Diagnostic> {
    let clusters = &loaded.settings.edge.clusters;
    let failures = failures(clusters);
    let mut found = Vec::new();
    for failure in &failures {
        let cluster = &clusters[failure.cluster];
        let address = &cluster.nodes[failure.node].address;
        let path = format!("cluster.{}.nodes[{}]", cluster.name, failure.node);
        let span = loaded.tree.span_of(&path).unwrap_or(0..0);
        let message = format!("node {address} of cluster \"{}\" cannot be reached", cluster.name);
        found.push(Diagnostic::warning(span, message, failure.why.clone()));
    }
    for (index, cluster) in clusters.iter().enumerate() {
        let failed = failures.iter().filter(|failure| failure.cluster == index).count();
        if failed == cluster.nodes.len() {
            let span = loaded.tree.span_of(&format!("cluster.{}", cluster.name)).unwrap_or(0..0);
            let message = format!("no node of cluster \"{}\" can be reached", cluster.name);
            found.push(Diagnostic::error(span, message, "start it, or check the addresses"));
        }
    }
    found
}

fn failures(clusters: &[ClusterConfig]) -> Vec<Failure> {
    let nodes = clusters.iter().enumerate().flat_map(|(cluster, config)| {
        config.nodes.iter().enumerate().map(move |(node, config)| (cluster, node, config.address.clone()))
    });
    let nodes: Vec<_> = nodes.collect();
    let mut failures = Vec::new();
    for batch in nodes.chunks(CONNECTS_MAX) {
        let asked: Vec<_> = batch
            .iter()
            .map(|(cluster, node, address)| {
                let address = address.clone();
                (*cluster, *node, std::thread::spawn(move || connect(&address)))
            })
            .collect();
        for (cluster, node, thread) in asked {
            let outcome = thread.join().unwrap_or_else(|_| Err("the attempt panicked".into()));
            failures.extend(outcome.err().map(|why| Failure { cluster, node, why }));
        }
    }
    failures
}

fn connect(address: &str) -> Result<(), String> {
    let resolved =
        address.to_socket_addrs().map_err(|error| format!("the name does not resolve: {error}"))?;
    let mut why = "the name has no address".to_owned();
    for address in resolved {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(_) => return Ok(()),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}
