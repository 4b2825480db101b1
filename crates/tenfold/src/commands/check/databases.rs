//! Whether each database can be logged in to, and is what the file takes it for.
//!
//! **Mechanism.** Each host is connected to as the pooler would: by its TLS mode, as the database's own user or the one
//! that asks for secrets. Where the file names neither, only clients can log in; there a connection is all that is tried.
//! Logged in, it asks whether this is the primary and how many connections the server takes. Replicas are asked the
//! same, and whether they are standbys of that primary.
//!
//! **Failure.** A host that cannot be reached may only be down, so it is a warning; a database none of whose hosts can be
//! used is an error, as is a login that the server refuses, and a replica that is none.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tenfold_pooler::auth::{SaltedCache, Users};
use tenfold_pooler::config::{Config, Database, Host};
use tenfold_pooler::control::{Address, Client, Endpoint, Entrance, Error, Resolver, Salter};
use tenfold_service::clock::Clock;

use super::CONNECT;
use crate::config::Loaded;
use crate::config::diagnostic::Diagnostic;
use crate::live::folder_of;
use crate::pooler_files;

/// Databases asked at once.
const AT_ONCE_MAX: usize = 32;
/// A name that was looked up once is good enough for one command.
const REFRESH: Duration = Duration::from_secs(60);

/// What a host said.
enum Found {
    /// It takes connections; who could log in is not known here.
    Reachable,
    /// Logged in.
    LoggedIn {
        is_primary: bool,
        connections_max: usize,
        /// The cluster it belongs to.
        system: String,
    },
}

/// What a database's servers said, each by its name.
struct Asked {
    database: Database,
    hosts: Hosts,
    replicas: Hosts,
}

/// Everything that is wrong with the databases' servers.
pub fn unreachable(loaded: &Loaded, path: &Path) -> Vec<Diagnostic> {
    let Some(settings) = &loaded.settings.pooler else { return Vec::new() };
    // It was read a moment ago; if a file has vanished since, that was said, or will be by the next command.
    let Ok(config) = pooler_files::read(settings, folder_of(path), [0; 16]) else { return Vec::new() };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let Ok(runtime) = runtime.enable_all().build() else {
        return vec![Diagnostic::unplaced("cannot start a runtime to connect with")];
    };
    let asked = runtime.block_on(ask_all(Arc::new(config)));
    runtime.shutdown_background();
    let judged = |asked: &Asked| {
        let mut found = judged(loaded, &asked.database, &asked.hosts);
        found.extend(judged_replicas(loaded, asked));
        found
    };
    asked.iter().flat_map(judged).collect()
}

/// Hosts of a database by name, and what they said.
type Hosts = Vec<(String, Result<Found, Error>)>;

async fn ask_all(config: Arc<Config>) -> Vec<Asked> {
    let mut asked = Vec::new();
    for batch in config.databases.chunks(AT_ONCE_MAX) {
        let mut asking = tokio::task::JoinSet::new();
        for database in batch {
            asking.spawn(ask(Arc::clone(&config), database.clone()));
        }
        asked.extend(asking.join_all().await);
    }
    asked
}

async fn ask(config: Arc<Config>, database: Database) -> Asked {
    let resolver = Resolver::new(Clock::system());
    let salter = Salter::new(Arc::new(SaltedCache::default()));
    let entrance = entrance(&config, &database);
    let replicas: Vec<_> = database.reads.replicas.iter().map(|replica| replica.host.clone()).collect();
    Asked {
        hosts: ask_hosts(&database.hosts, &resolver, entrance.as_ref(), &salter).await,
        replicas: ask_hosts(&replicas, &resolver, entrance.as_ref(), &salter).await,
        database,
    }
}

async fn ask_hosts(all: &[Host], resolver: &Resolver, entrance: Option<&Entrance>, salter: &Salter) -> Hosts {
    let mut hosts = Vec::new();
    for host in all {
        let (addresses, failures) = resolver.addresses(std::slice::from_ref(host), REFRESH).await;
        let mut outcome = Err(Error::Unresolved(failures.join(", ")));
        for address in &addresses {
            outcome = match entrance {
                Some(entrance) => log_in(address, entrance, salter).await,
                None => connect(&address.at).await,
            };
            if outcome.is_ok() {
                break;
            }
        }
        hosts.push((host.to_string(), outcome));
    }
    hosts
}

/// How to log in as the database's own user, or the one that asks for secrets. `None`: the file names neither.
pub fn entrance(config: &Config, database: &Database) -> Option<Entrance> {
    let (user, secret) = Users::new(config).monitor_login(database)?;
    Some(Entrance {
        dbname: database.dbname.clone().unwrap_or_else(|| match &*database.name {
            tenfold_pooler::config::ANY_DATABASE => user.to_string(),
            name => name.to_owned(),
        }),
        user,
        secret,
        tls: database.server_tls.clone(),
        limit: CONNECT,
    })
}

async fn connect(at: &Endpoint) -> Result<Found, Error> {
    let connected = async {
        match at {
            Endpoint::Tcp(at) => tokio::net::TcpStream::connect(at).await.map(drop),
            Endpoint::Unix(path) => tokio::net::UnixStream::connect(path).await.map(drop),
        }
    };
    match tokio::time::timeout(CONNECT, connected).await {
        Ok(connected) => Ok(connected.map(|()| Found::Reachable)?),
        Err(_) => Err(Error::TimedOut("connecting")),
    }
}

async fn log_in(address: &Address, entrance: &Entrance, salter: &Salter) -> Result<Found, Error> {
    const FACTS: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
                         pg_catalog.current_setting('max_connections'), \
                         (SELECT system_identifier FROM pg_catalog.pg_control_system())";
    let mut client = Client::connect(address, entrance, salter).await?;
    let rows = tokio::time::timeout(CONNECT, client.rows(FACTS)).await;
    let rows = rows.map_err(|_| Error::TimedOut("asking the server what it is"))??;
    let column = |index: usize| rows.first().and_then(|row| row.get(index)?.as_deref());
    let connections_max = column(1).and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
    let system = column(2).unwrap_or_default().to_owned();
    Ok(Found::LoggedIn { is_primary: column(0) == Some("f"), connections_max, system })
}

fn judged(loaded: &Loaded, database: &Database, hosts: &Hosts) -> Vec<Diagnostic> {
    let (name, mut found) = (&database.name, Vec::new());
    let span_of = |key: &str| span_of(loaded, name, key);
    let mut usable = 0;
    let mut refused = 0;
    for (host, outcome) in hosts {
        match outcome {
            Ok(Found::Reachable) => usable += 1,
            Ok(Found::LoggedIn { is_primary, connections_max, .. }) => {
                usable += usize::from(*is_primary);
                let wanted = database.pool.size.saturating_add(database.pool.reserve);
                if wanted > *connections_max {
                    let message = format!("pools of database \"{name}\" may open {wanted} connections");
                    let label = format!("{host} has max_connections = {connections_max}");
                    found.push(Diagnostic::warning(span_of("pool.size"), message, label));
                }
            }
            Err(error @ Error::Server { .. }) => {
                refused += 1;
                let message = format!("server {host} refuses the login to database \"{name}\"");
                found.push(Diagnostic::error(span_of("primary"), message, error.to_string()));
            }
            Err(error) => {
                let message = format!("server {host} of database \"{name}\" cannot be used");
                found.push(Diagnostic::warning(span_of("primary"), message, error.to_string()));
            }
        }
    }
    if usable > 0 || refused > 0 {
        return found;
    }
    let is_standby = hosts.iter().any(|(_, outcome)| matches!(outcome, Ok(Found::LoggedIn { .. })));
    let (message, label) = if is_standby {
        (
            format!("no server of database \"{name}\" is a primary"),
            "they all follow another; name that one, too",
        )
    } else {
        (format!("no server of database \"{name}\" can be reached"), "start it, or check the addresses")
    };
    found.push(Diagnostic::error(span_of("primary"), message, label));
    found
}

fn judged_replicas(loaded: &Loaded, asked: &Asked) -> Vec<Diagnostic> {
    let (name, reads) = (&asked.database.name, &asked.database.reads);
    let span = span_of(loaded, name, "replicas");
    let of_primary = asked.hosts.iter().find_map(|(_, outcome)| match outcome {
        Ok(Found::LoggedIn { is_primary: true, system, .. }) => Some(system),
        _ => None,
    });
    let judge = |(host, outcome): &(String, Result<Found, Error>)| {
        let error = |message: String, label: &str| Some(Diagnostic::error(span.clone(), message, label));
        let warning =
            |message: String, label: String| Some(Diagnostic::warning(span.clone(), message, label));
        match outcome {
            Ok(Found::Reachable) => None,
            Ok(Found::LoggedIn { is_primary: true, .. }) => error(
                format!("{host} is no replica of database \"{name}\": it is not in recovery"),
                "it was promoted, or never was a standby; it would get no reads",
            ),
            Ok(Found::LoggedIn { system, .. }) if of_primary.is_some_and(|primary| primary != system) => {
                error(
                    format!("{host} is no replica of database \"{name}\": it belongs to another cluster"),
                    "its system identifier is not the primary's; it would get no reads",
                )
            }
            Ok(Found::LoggedIn { connections_max, .. }) => {
                let wanted = reads.size.unwrap_or(asked.database.pool.size);
                let message = format!("reads of database \"{name}\" may open {wanted} connections");
                let label = format!("{host} has max_connections = {connections_max}");
                (wanted > *connections_max).then(|| warning(message, label)).flatten()
            }
            Err(refused @ Error::Server { .. }) => error(
                format!("replica {host} refuses the login to database \"{name}\""),
                &refused.to_string(),
            ),
            Err(failed) => {
                warning(format!("replica {host} of database \"{name}\" cannot be used"), failed.to_string())
            }
        }
    };
    asked.replicas.iter().filter_map(judge).collect()
}

fn span_of(loaded: &Loaded, database: &str, key: &str) -> std::ops::Range<usize> {
    let span = loaded.tree.span_of(&format!("database.{database}.{key}"));
    span.filter(|span| !span.is_empty()).unwrap_or(0..0)
}
