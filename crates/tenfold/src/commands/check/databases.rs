//! Whether the servers of each database answer.
//!
//! **Failure.** A server that cannot be reached may only be down, so it is a warning; a database none of whose servers
//! can be reached is an error.

use std::os::unix::net::UnixStream;
use std::path::Path;

use tenfold_pooler::config::Host;

use super::connect;
use crate::config::Loaded;
use crate::config::diagnostic::Diagnostic;

/// Warnings for servers that can't be reached, an error for a database without any that can.
pub fn unreachable(loaded: &Loaded, _: &Path) -> Vec<Diagnostic> {
    let Some(settings) = &loaded.settings.pooler else { return Vec::new() };
    let mut found = Vec::new();
    for database in &settings.config.databases {
        let name = &database.name;
        let path = format!("database.{name}.primary");
        let span = loaded.tree.span_of(&path).unwrap_or(0..0);
        let asked = database.hosts.iter().map(|host| (host, reach(host)));
        let failures: Vec<_> = asked.filter_map(|(host, outcome)| Some((host, outcome.err()?))).collect();
        for (host, why) in &failures {
            let message = format!("server {host} of database \"{name}\" cannot be reached");
            found.push(Diagnostic::warning(span.clone(), message, why.clone()));
        }
        if failures.len() == database.hosts.len() {
            let message = format!("no server of database \"{name}\" can be reached");
            found.push(Diagnostic::error(span.clone(), message, "start it, or check the addresses"));
        }
    }
    found
}

fn reach(host: &Host) -> Result<(), String> {
    match host {
        Host::Tcp { .. } => connect(&host.to_string()),
        Host::Unix { .. } => {
            UnixStream::connect(host.to_string()).map(drop).map_err(|error| error.to_string())
        }
    }
}
