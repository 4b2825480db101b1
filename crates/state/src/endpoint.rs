//! Finding the server and getting in.
//!
//! A URL names a server, or sentinels that know it. Sentinels are asked anew for each connection, so that one made after a
//! failover goes to the server that is the master then. Names are looked up anew each time, too.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::{Config, Error};

const SENTINEL: &str = "redis+sentinel://";
const SENTINEL_PORT: u16 = 26_379;

/// Where connections are made to.
pub(crate) enum Endpoint {
    /// One server.
    Server(Box<Client>),
    /// Whoever the sentinels name.
    Sentinel(Box<Mutex<SentinelClient>>),
}

impl Endpoint {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        match config.url.strip_prefix(SENTINEL) {
            Some(rest) => sentinel(rest, config),
            None => server(config),
        }
    }

    /// A connection that has authenticated, within the configured time. `probe` is how long its first answer may take.
    pub(crate) async fn connect(&self, config: &Config) -> Result<MultiplexedConnection, Error> {
        // Limits are set by whoever calls, for each call.
        let options = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(Some(config.connect));
        let connecting = async {
            match self {
                Self::Server(client) => client.get_multiplexed_async_connection_with_config(&options).await,
                Self::Sentinel(sentinel) => {
                    sentinel.lock().await.get_async_connection_with_config(&options).await
                }
            }
        };
        match timeout(config.connect, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(Error::Connect(error.to_string())),
            Err(_) => Err(Error::TimedOut(config.connect)),
        }
    }
}

fn server(config: &Config) -> Result<Endpoint, Error> {
    if !["redis://", "rediss://"].iter().any(|scheme| config.url.starts_with(scheme)) {
        return Err(Error::Url("it begins with redis://, rediss:// or redis+sentinel://".into()));
    }
    // What the library says may repeat the URL.
    let unread = |_| Error::Url("a host, a port or a database is missing or malformed".into());
    let info = config.url.as_str().into_connection_info().map_err(unread)?;
    let mut settings = info.redis_settings().clone();
    if let Some(username) = &config.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &config.password {
        settings = settings.set_password(password);
    }
    let client = Client::open(info.set_redis_settings(settings)).map_err(unread)?;
    Ok(Endpoint::Server(Box::new(client)))
}

/// `host:port,host:port/NAME/db`.
fn sentinel(rest: &str, config: &Config) -> Result<Endpoint, Error> {
    let wrong =
        |what: &str| Error::Url(format!("{what}; expected redis+sentinel://HOST:PORT,HOST:PORT/NAME"));
    let (hosts, path) = rest.split_once('/').ok_or_else(|| wrong("the master's name is missing"))?;
    let (name, db) = path.split_once('/').unwrap_or((path, "0"));
    let db: i64 = db.parse().map_err(|_| wrong("the database is no number"))?;
    if name.is_empty() {
        return Err(wrong("the master's name is missing"));
    }
    let address = |host: &str| {
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong("a port is no number"))?),
            None => (host, SENTINEL_PORT),
        };
        if host.is_empty() {
            return Err(wrong("a host is missing"));
        }
        Ok(ConnectionAddr::Tcp(host.to_owned(), port))
    };
    let hosts = hosts.split(',').map(address).collect::<Result<Vec<_>, _>>()?;
    let unread = |_| wrong("no sentinel can be made of it");
    let mut builder = SentinelClientBuilder::new(hosts, name, SentinelServerType::Master)
        .map_err(unread)?
        .set_client_to_redis_db(db);
    if let Some(username) = &config.username {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = &config.password {
        builder = builder.set_client_to_redis_password(password);
    }
    let client = builder.build().map_err(unread)?;
    Ok(Endpoint::Sentinel(Box::new(Mutex::new(client))))
}

/// Connects once and asks for a sign of life: what a check of the configuration does. Needs a tokio runtime.
///
/// # Errors
/// What a person would want to read.
pub async fn probe(config: &Config) -> Result<(), Error> {
    let mut connection = Endpoint::new(config)?.connect(config).await?;
    let ping = redis::cmd("PING");
    match timeout(PROBE_MAX, connection.send_packed_command(&ping)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Error::Connect(error.to_string())),
        Err(_) => Err(Error::TimedOut(PROBE_MAX)),
    }
}

/// How long who asks once may wait.
const PROBE_MAX: Duration = Duration::from_secs(1);
