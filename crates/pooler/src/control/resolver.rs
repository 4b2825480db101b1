//! Names of hosts to addresses, without any worker waiting for a name server.
//!
//! **Intuition.** A failover by DNS changes what a name means; a slow name server must not stop those who know where to
//! go. So names are looked up here, remembered for `dns_refresh`, and the last good answer serves while there is no
//! better one.
//!
//! **Mechanism.** [`Resolver::addresses`] goes through a database's hosts: literal addresses and Unix folders pass
//! through, names are looked up by the system's own resolver on a thread for blocking work.
//!
//! **Failure.** A name that does not resolve makes only its own host vanish, and only if it never resolved before. A
//! look-up that takes longer than [`LOOKUP_LIMIT`] counts as failed.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tenfold_service::clock::Clock;
use tokio::{net::lookup_host, time::timeout};

use super::target::{Address, Endpoint};
use crate::config::Host;

/// How long the system's resolver may take.
pub const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
/// Addresses of one host.
const HOST_ADDRESSES_MAX: usize = 16;
/// Names remembered.
const NAMES_MAX: usize = 10_000;

/// Looks names up and remembers them. Shared by all databases.
#[derive(Debug)]
pub struct Resolver {
    clock: Clock,
    names: Mutex<HashMap<Arc<str>, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    addresses: Vec<IpAddr>,
    looked_up: Instant,
}

/// A remembered name, for the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownName {
    /// The name.
    pub name: Arc<str>,
    /// What it meant when it was looked up last.
    pub addresses: Vec<IpAddr>,
    /// How long ago that was.
    pub age: Duration,
}

impl Resolver {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, names: Mutex::default() }
    }

    /// Addresses of these hosts, in their order, with names no older than `refresh` where they can be had; and what
    /// could not be resolved.
    pub async fn addresses(&self, hosts: &[Host], refresh: Duration) -> (Vec<Address>, Vec<String>) {
        let (mut addresses, mut failures) = (Vec::new(), Vec::new());
        for (index, host) in hosts.iter().enumerate() {
            match host {
                Host::Unix { folder, port } => {
                    let path = folder.join(format!(".s.PGSQL.{port}"));
                    let name = folder.display().to_string().into();
                    addresses.push(Address { host: index, name, at: Endpoint::Unix(path) });
                }
                Host::Tcp { host, port } => match self.resolve(host, refresh).await {
                    Ok(resolved) => {
                        let name: Arc<str> = host.as_str().into();
                        addresses.extend(resolved.into_iter().map(|ip| {
                            let at = Endpoint::Tcp(SocketAddr::new(ip, *port));
                            Address { host: index, name: Arc::clone(&name), at }
                        }));
                    }
                    Err(failure) => failures.push(format!("{host}: {failure}")),
                },
            }
        }
        (addresses, failures)
    }

    /// What is remembered.
    #[must_use]
    pub fn known(&self) -> Vec<KnownName> {
        let now = self.clock.now();
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known: Vec<_> = names
            .iter()
            .map(|(name, known)| KnownName {
                name: Arc::clone(name),
                addresses: known.addresses.clone(),
                age: now.saturating_duration_since(known.looked_up),
            })
            .collect();
        known.sort_by(|a, b| a.name.cmp(&b.name));
        known
    }

    async fn resolve(&self, host: &str, refresh: Duration) -> Result<Vec<IpAddr>, String> {
        if let Ok(literal) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(vec![literal]);
        }
        let known = self.recall(host);
        let now = self.clock.now();
        if let Some(known) = &known
            && now.saturating_duration_since(known.looked_up) < refresh
        {
            return Ok(known.addresses.clone());
        }
        // The port does not matter to the resolver.
        let looked_up = match timeout(LOOKUP_LIMIT, lookup_host((host, 0))).await {
            Ok(Ok(found)) => {
                let mut addresses: Vec<_> =
                    found.map(|address| address.ip()).take(HOST_ADDRESSES_MAX).collect();
                addresses.dedup();
                if addresses.is_empty() { Err("no addresses".to_owned()) } else { Ok(addresses) }
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the name server did not answer in time".to_owned()),
        };
        match (looked_up, known) {
            (Ok(addresses), known) => {
                // Name servers rotate their answers; an order that changes is no change.
                let same = known.filter(|known| is_permutation(&known.addresses, &addresses));
                let addresses = same.map_or(addresses, |known| known.addresses);
                self.remember(host, addresses.clone(), now);
                Ok(addresses)
            }
            (Err(_), Some(known)) => Ok(known.addresses),
            (Err(failure), None) => Err(failure),
        }
    }

    fn recall(&self, host: &str) -> Option<Known> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    fn remember(&self, host: &str, addresses: Vec<IpAddr>, looked_up: Instant) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES_MAX && !names.contains_key(host) {
            names.clear();
        }
        names.insert(host.into(), Known { addresses, looked_up });
    }
}

fn is_permutation(a: &[IpAddr], b: &[IpAddr]) -> bool {
    let sorted = |addresses: &[IpAddr]| {
        let mut sorted = addresses.to_vec();
        sorted.sort_unstable();
        sorted
    };
    sorted(a) == sorted(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str) -> Host {
        Host::Tcp { host: host.into(), port: 5432 }
    }

    fn texts(addresses: &[Address]) -> Vec<String> {
        addresses.iter().map(|address| format!("{} {address}", address.host)).collect()
    }

    #[tokio::test]
    async fn literals_and_folders_pass_through() {
        let resolver = Resolver::new(Clock::manual());
        let unix = Host::Unix { folder: "/run/postgresql".into(), port: 5433 };
        let hosts = [tcp("10.0.0.1"), tcp("::1"), tcp("[2001:db8::1]"), unix];
        let (addresses, failures) = resolver.addresses(&hosts, Duration::ZERO).await;
        assert!(failures.is_empty() && resolver.known().is_empty());
        let texts = texts(&addresses);
        assert_eq!(texts[..2], ["0 10.0.0.1:5432", "1 [::1]:5432"]);
        assert!(texts[2].contains("[2001:db8::1]:5432"));
        assert_eq!(texts[3], "3 /run/postgresql/.s.PGSQL.5433");
    }

    #[tokio::test]
    async fn names_are_remembered_and_looked_up_again_when_old() {
        let clock = Clock::manual();
        let resolver = Resolver::new(clock.clone());
        let hosts = [tcp("localhost")];
        let refresh = Duration::from_secs(30);
        let (first, failures) = resolver.addresses(&hosts, refresh).await;
        assert!(!first.is_empty() && failures.is_empty());
        clock.advance(Duration::from_secs(29));
        // What is remembered is believed while it is young.
        let elsewhere: IpAddr = "192.0.2.7".parse().unwrap();
        let looked_up = resolver.recall("localhost").unwrap().looked_up;
        resolver.remember("localhost", vec![elsewhere], looked_up);
        assert_eq!(resolver.addresses(&hosts, refresh).await.0.len(), 1);
        assert_eq!(resolver.known()[0].age, Duration::from_secs(29));
        clock.advance(Duration::from_secs(1));
        assert_eq!(resolver.addresses(&hosts, refresh).await.0, first);
    }

    #[tokio::test]
    async fn a_name_that_fails_keeps_its_last_answer_and_spoils_no_other() {
        let resolver = Resolver::new(Clock::manual());
        let hosts = [tcp("no-such-host.invalid"), tcp("10.0.0.1")];
        let (addresses, failures) = resolver.addresses(&hosts, Duration::ZERO).await;
        assert_eq!(texts(&addresses), ["1 10.0.0.1:5432"]);
        assert!(failures.len() == 1 && failures[0].starts_with("no-such-host.invalid: "), "{failures:?}");
        let old = Clock::manual().now();
        resolver.remember("no-such-host.invalid", vec!["192.0.2.7".parse().unwrap()], old);
        let (addresses, failures) = resolver.addresses(&hosts, Duration::ZERO).await;
        assert!(addresses.len() == 2 && failures.is_empty(), "{addresses:?}");
    }
}
