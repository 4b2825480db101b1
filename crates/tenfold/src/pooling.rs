//! The pooler in the running process: built from the file, given its sockets, reloaded, shown.
//!
//! **Mechanism.** The tier has threads of its own, so the acceptor hands sockets over ([`Pooling::service`]). Clients
//! beyond its limit are told so by the tier, in PostgreSQL's words, once they have said who they are; a few more are
//! let in for that ([`BEYOND_CLIENTS_MAX`]), and whoever comes after them is told at once.
//!
//! **Failure.** A configuration that the pooler does not take changes nothing.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tenfold_pgwire::{sqlstate, write::Report};
use tenfold_pooler::config::{Config, ConfigError, Mode};
use tenfold_pooler::handover::Admit;
use tenfold_pooler::pool::Pool;
use tenfold_pooler::report::{ReplicaRow, RoutesRow};
use tenfold_pooler::shared::{Database, Level, Shared};
use tenfold_pooler::split::{After, Position};
use tenfold_pooler::{Deps, Pooler, ProcessAsk};
use tenfold_service::acceptor::{Accepted, Address, Service, Serving};
use tenfold_service::clock::Clock;
use tenfold_service::drain::Drain;
use tenfold_service::limits::ConnectionLimits;
use tenfold_service::metrics::Registry;
use tenfold_service::rng::Rng;
use tokio::sync::mpsc;

use crate::config::pooler::PoolerSettings;
use crate::log::Log;
use crate::pooler_files;

/// Connections beyond `pooler.clients_max`: cancel requests, the console, and clients on their way to a refusal.
const BEYOND_CLIENTS_MAX: usize = 1_024;

/// How long an answer to a client is held up, at most, until it is known where the database is.
const POSITION_WITHIN: Duration = Duration::from_millis(20);

/// Orders of the console that wait for the process at once.
const ASKS_MAX: usize = 16;

/// The pooler and what belongs to it.
pub struct Pooling {
    /// The tier.
    pub pooler: Pooler,
    /// What its console asks of the process, until somebody takes it.
    asks: Cell<Option<mpsc::Receiver<ProcessAsk>>>,
    limits: Arc<ConnectionLimits>,
    salt_seed: [u8; 16],
}

/// What the process gives it.
pub struct Parts<'a> {
    /// Time.
    pub clock: &'a Clock,
    /// Where it counts.
    pub registry: &'a Registry,
    /// The process's end.
    pub drain: &'a Drain,
    /// What is worth a line.
    pub log: &'a Log,
    /// Its threads.
    pub workers: usize,
}

impl Pooling {
    /// Reads the files, checks everything, opens nothing.
    ///
    /// # Errors
    /// Every mistake, by its path.
    pub fn build(
        settings: &PoolerSettings,
        folder: &Path,
        parts: &Parts<'_>,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut rng = Rng::from_os();
        let salt_seed = (u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())).to_be_bytes();
        let config = pooler_files::read(settings, folder, salt_seed)?;
        let limits = ConnectionLimits::new(limit_of(&config), None);
        let log = parts.log.clone();
        let (process, asks) = mpsc::channel(ASKS_MAX);
        let deps = Deps {
            clock: parts.clock.clone(),
            registry: parts.registry.clone(),
            drain: parts.drain.clone(),
            log: Arc::new(move |level, line| match level {
                Level::Info => log.info(line),
                Level::Warn => log.warn(line),
            }),
            seed: rng.next_u64(),
            workers: parts.workers,
            process,
            make_tls: crate::tls::maker(folder),
        };
        let pooler = Pooler::build(config, deps)?;
        Ok(Self { pooler, asks: Cell::new(Some(asks)), limits, salt_seed })
    }

    /// Says where the databases are after what requests did, for the edge.
    #[must_use]
    pub fn positions(&self) -> tenfold_edge::Positions {
        let positions = self.pooler.positions();
        Arc::new(move |trace| {
            let positions = positions.clone();
            Box::pin(async move {
                match positions.after(trace, POSITION_WITHIN).await {
                    After::Nothing => tenfold_edge::After::Nothing,
                    After::At(Position { history, lsn }) => tenfold_edge::After::At {
                        system: history.system,
                        timeline: history.timeline,
                        lsn: lsn.0,
                    },
                    // Statements that name no request may be this one's.
                    After::Unseen | After::Unknown => tenfold_edge::After::Unknown,
                }
            })
        })
    }

    /// What the console asks of the process: to be taken once.
    #[must_use]
    pub fn take_asks(&self) -> Option<mpsc::Receiver<ProcessAsk>> {
        self.asks.take()
    }

    /// What the acceptor does with its connections.
    #[must_use]
    pub fn service(&self) -> Service {
        let pooler = self.pooler.clone();
        let refusal = too_many();
        Service {
            serving: Serving::HandOver(Arc::new(move |accepted| pooler.accept(accepted))),
            refusal: Arc::new(move |_| Arc::clone(&refusal)),
            limits: Some(Arc::clone(&self.limits)),
        }
    }

    /// How clients are counted that another process accepted.
    #[must_use]
    pub fn admit(&self, drain: &Drain) -> Admit {
        let (limits, drain) = (Arc::clone(&self.limits), drain.clone());
        // Where it was accepted nobody asks later.
        let local = Address::Tcp(SocketAddr::from(([0, 0, 0, 0], 0)));
        Arc::new(move |stream, peer| Accepted::taken_over(stream, peer, local.clone(), &limits, &drain))
    }

    /// Reads the files of another configuration. Without a database left, it is one without any.
    ///
    /// # Errors
    /// Every mistake, by its path.
    pub fn prepare(
        &self,
        settings: Option<&PoolerSettings>,
        folder: &Path,
    ) -> Result<Config, Vec<ConfigError>> {
        match settings {
            Some(settings) => pooler_files::read(settings, folder, self.salt_seed),
            None => Ok(Config { salt_seed: self.salt_seed, ..Config::default() }),
        }
    }

    /// Puts a configuration in force.
    ///
    /// # Errors
    /// Every mistake; nothing is changed then.
    pub fn commit(&self, config: Config) -> Result<(), Vec<ConfigError>> {
        let limit = limit_of(&config);
        self.pooler.reload(config)?;
        self.limits.set(limit, None);
        Ok(())
    }

    /// For `/api/v1/status`.
    #[must_use]
    pub fn status(&self, listen: &[String]) -> Value {
        let shared = self.pooler.shared();
        let now_ms = shared.ms(shared.clock.now());
        let databases = shared.databases();
        let pools: Vec<_> = databases
            .iter()
            .flat_map(|database| {
                database.pools().into_iter().map(move |pool| row(shared, database, &pool, now_ms))
            })
            .collect();
        json!({
            "listen": listen,
            "clients": { "open": self.pooler.open_clients(), "max": shared.config.load().clients_max },
            "pools": pools,
            "reads": databases.iter().filter_map(|database| RoutesRow::sum(database)).map(|row| reads(&row)).collect::<Vec<_>>(),
            "replicas": databases.iter().flat_map(|database| ReplicaRow::all(database)).map(|row| replica(&row)).collect::<Vec<_>>(),
        })
    }
}

fn reads(row: &RoutesRow) -> Value {
    let routes = &row.routes;
    let reason = |(route, reason, count)| json!({ "route": route, "reason": reason, "count": count });
    json!({
        "database": &*row.database,
        "reads": routes.reads(),
        "at_replicas": routes.answered(),
        "waits": routes.waits,
        "wait_us": routes.wait_us,
        "reruns": routes.reruns,
        "routes": routes.by_reason().into_iter().map(reason).collect::<Vec<_>>(),
    })
}

fn replica(row: &ReplicaRow) -> Value {
    json!({
        "database": &*row.database,
        "name": &*row.name,
        "state": row.state.label(),
        "lag_us": row.lag.map(|lag| u64::try_from(lag.as_micros()).unwrap_or(u64::MAX)),
        "replayed": row.replayed.to_string(),
        "in_flight": row.in_flight,
        "weight": row.weight,
        "servers": row.servers,
    })
}

fn row(shared: &Shared, database: &Database, pool: &Pool, now_ms: u64) -> Value {
    let settings = pool.settings.load();
    let (open, idle) = (pool.open(), pool.idle());
    json!({
        "database": &*database.name,
        "user": &*pool.user,
        "mode": match settings.mode {
            Mode::Session => "session",
            Mode::Transaction => "transaction",
            Mode::Statement => "statement",
        },
        "clients": pool.clients.load(Ordering::Relaxed),
        "waiting": pool.waiting(),
        "servers_active": open.saturating_sub(idle),
        "servers_idle": idle,
        "size": settings.size,
        "reserve": settings.reserve,
        "oldest_wait_ms": pool.oldest_ms().map_or(0, |since| now_ms.saturating_sub(since)),
        "paused": shared.is_paused(database),
    })
}

fn limit_of(config: &Config) -> usize {
    config.clients_max.saturating_add(BEYOND_CLIENTS_MAX)
}

/// What PostgreSQL says in this case, before it has read anything.
fn too_many() -> Arc<[u8]> {
    let mut bytes = Vec::new();
    Report::fatal(sqlstate::TOO_MANY_CONNECTIONS, "sorry, too many clients already").append_error(&mut bytes);
    bytes.into()
}
