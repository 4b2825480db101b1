//! Finding the server and getting in.
//!
//! **Mechanism.** A URL names a server, or sentinels that know it ([`crate::sentinel`]). Sentinels are asked anew for each
//! connection, so that one made after a failover goes to the server that is the master then. Names are looked up anew each
//! time, too. `rediss` is TLS, by the system's certificates or by an authority of one's own, and the server has to be the
//! one that the URL names.
//!
//! **Failure.** What is wrong with a URL is said without repeating it: it may hold a password.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo,
    TlsCertificates,
};
use tokio::time::timeout;

use crate::sentinel::{Sentinels, address};
use crate::{Config, Error};

const SENTINEL: &str = "redis+sentinel://";
/// The same, with the sentinels and the servers spoken to by TLS.
const SENTINEL_TLS: &str = "rediss+sentinel://";
const SENTINEL_PORT: u16 = 26_379;
/// More than anybody runs.
const SENTINELS_MAX: usize = 32;

/// Where connections are made to.
pub(crate) enum Endpoint {
    /// One server.
    Server(Box<Client>),
    /// Whoever the sentinels name.
    Sentinel(Box<Sentinels>),
}

/// Whom to believe that it is the server: these certificates in PEM, or the system's.
pub(crate) struct Trust(Option<Vec<u8>>);

impl Endpoint {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        for (scheme, with_tls) in [(SENTINEL, false), (SENTINEL_TLS, true)] {
            if let Some(rest) = config.url.strip_prefix(scheme) {
                return sentinels(rest, with_tls, config);
            }
        }
        server(config)
    }

    /// A connection that has authenticated, within the configured time.
    pub(crate) async fn connect(&self, config: &Config) -> Result<MultiplexedConnection, Error> {
        let connecting = async {
            match self {
                Self::Server(client) => dial(client, config.connect).await,
                Self::Sentinel(sentinels) => sentinels.connect(config.connect).await,
            }
        };
        timeout(config.connect, connecting).await.unwrap_or(Err(Error::TimedOut(config.connect)))
    }
}

/// Connects and authenticates. Limits on calls are set by whoever makes them, for each call.
pub(crate) async fn dial(client: &Client, within: Duration) -> Result<MultiplexedConnection, Error> {
    let options =
        AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(Some(within));
    let connected = client.get_multiplexed_async_connection_with_config(&options).await;
    connected.map_err(|error| Error::Connect(error.to_string()))
}

/// A client of one address.
pub(crate) fn client_of(
    addr: ConnectionAddr,
    settings: RedisConnectionInfo,
    trust: Option<&Trust>,
) -> Result<Client, Error> {
    let unread = |_| Error::Url("an address or a certificate can't be used".into());
    let info = addr.into_connection_info().map_err(unread)?.set_redis_settings(settings);
    client(info, trust).map_err(unread)
}

fn client(info: ConnectionInfo, trust: Option<&Trust>) -> redis::RedisResult<Client> {
    match trust {
        Some(Trust(root_cert)) => {
            let root_cert = root_cert.clone();
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
        }
        None => Client::open(info),
    }
}

fn server(config: &Config) -> Result<Endpoint, Error> {
    let with_tls = config.url.starts_with("rediss://");
    if !with_tls && !config.url.starts_with("redis://") {
        return Err(Error::Url("it begins with redis://, rediss:// or redis+sentinel://".into()));
    }
    // What the library says may repeat the URL.
    let unread = |_| Error::Url("a host, a port or a database is missing or malformed".into());
    let info = config.url.as_str().into_connection_info().map_err(unread)?;
    let settings = with_credentials(info.redis_settings().clone(), config);
    let trust = with_tls.then(|| Trust(config.ca.clone()));
    let uncertain = |_| Error::Url("the certificate of its authority can't be read".into());
    let client = client(info.set_redis_settings(settings), trust.as_ref());
    Ok(Endpoint::Server(Box::new(client.map_err(uncertain)?)))
}

fn with_credentials(mut settings: RedisConnectionInfo, config: &Config) -> RedisConnectionInfo {
    if let Some(username) = &config.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &config.password {
        settings = settings.set_password(password);
    }
    settings
}

fn wrong(what: &str) -> Error {
    Error::Url(format!("{what}; expected redis+sentinel://HOST:PORT,HOST:PORT/NAME"))
}

/// `user:password@host:port,host:port/NAME/db`; the user and the password are the sentinels' own.
fn sentinels(rest: &str, with_tls: bool, config: &Config) -> Result<Endpoint, Error> {
    let (hosts, path) = rest.split_once('/').ok_or_else(|| wrong("the master's name is missing"))?;
    let (name, db) = path.split_once('/').unwrap_or((path, "0"));
    let db: i64 = db.parse().map_err(|_| wrong("the database is no number"))?;
    if name.is_empty() {
        return Err(wrong("the master's name is missing"));
    }
    let (own, hosts) = match hosts.rsplit_once('@') {
        Some((user, hosts)) => (credentials(user)?, hosts),
        None => (RedisConnectionInfo::default(), hosts),
    };
    let trust = || with_tls.then(|| Trust(config.ca.clone()));
    let client = |host: &str| {
        let (host, port) = host_and_port(host)?;
        client_of(address(host, port, with_tls), own.clone(), trust().as_ref())
    };
    let clients = hosts.split(',').map(client).collect::<Result<Vec<_>, _>>()?;
    if clients.len() > SENTINELS_MAX {
        return Err(wrong("these are more sentinels than can be asked"));
    }
    let settings = with_credentials(RedisConnectionInfo::default().set_db(db), config);
    Ok(Endpoint::Sentinel(Box::new(Sentinels::new(clients, name, settings, trust()))))
}

/// `host`, `host:port`, `[::1]:port`.
fn host_and_port(text: &str) -> Result<(String, u16), Error> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(['[', ']']) {
        return Err(wrong("a host is missing"));
    }
    let port = port.map_or(Ok(SENTINEL_PORT), str::parse);
    Ok((host.to_owned(), port.map_err(|_| wrong("a port is no number"))?))
}

/// `user:password`, with `%40` for an `@`; without a user it is the default one.
fn credentials(text: &str) -> Result<RedisConnectionInfo, Error> {
    let unread = || wrong("the sentinels' password is not well written");
    let (user, password) = text.split_once(':').ok_or_else(unread)?;
    let mut settings =
        RedisConnectionInfo::default().set_password(percent_decoded(password).ok_or_else(unread)?);
    if !user.is_empty() {
        settings = settings.set_username(percent_decoded(user).ok_or_else(unread)?);
    }
    Ok(settings)
}

/// RFC 3986 §2.1.
fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        rest = after;
        let hex = |digit: u8| char::from(digit).to_digit(16);
        out.push(u8::try_from(hex(digits[0])? * 16 + hex(digits[1])?).ok()?);
    }
    String::from_utf8(out).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_sentinels_have_a_port_of_their_own() {
        let read = |text: &str| host_and_port(text).ok();
        let expected = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(read("10.0.0.1"), expected("10.0.0.1", SENTINEL_PORT));
        assert_eq!(read("s.example:5000"), expected("s.example", 5000));
        assert_eq!(read("[::1]:5000"), expected("::1", 5000));
        assert_eq!(read("[::1]"), expected("::1", SENTINEL_PORT));
        for text in ["", ":1", "[]", "[::1", "h:", "h:x", "h:70000"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_a_url_can_not_hold_is_written_in_percents() {
        assert_eq!(percent_decoded("a%40b%2Fc").as_deref(), Some("a@b/c"));
        for text in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(percent_decoded(text), None, "{text}");
        }
    }
}
