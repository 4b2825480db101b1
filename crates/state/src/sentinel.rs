//! Asking sentinels which server is the master.
//!
//! **Intuition.** Sentinels watch a master and its replicas and agree on who takes its place. Whoever wants the master asks
//! any of them, each time it connects: an answer is good for one connection.
//!
//! **Mechanism.** They are asked one after the other, beginning with the one that answered last, each for a share of the
//! time that connecting may take. What the one names has to say of itself that it is a master (`ROLE`); if it doesn't, that
//! sentinel is behind the times, and the next one is asked. A connection whose server becomes a replica is refused writes,
//! which gives the connection up; the next one is made to whoever is named then.
//!
//! **Failure.** A sentinel that hangs costs its share and is not asked first again. With none that names a master that is
//! one, the error is what was wrong with the last. Source: Redis, "Sentinel client spec".

use std::cell::Cell;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, ConnectionAddr, RedisConnectionInfo, Value, cmd};
use tokio::time::timeout;

use crate::endpoint::{Trust, client_of, dial};
use crate::{Error, reply};

/// The sentinels of one master.
pub(crate) struct Sentinels {
    sentinels: Vec<Client>,
    /// The master's name.
    name: String,
    /// How to get in at the master.
    settings: RedisConnectionInfo,
    /// Set where masters are spoken to by TLS.
    trust: Option<Trust>,
    /// Which one is asked first.
    first: Cell<usize>,
}

impl Sentinels {
    /// At least one of them.
    pub(crate) fn new(
        sentinels: Vec<Client>,
        name: &str,
        settings: RedisConnectionInfo,
        trust: Option<Trust>,
    ) -> Self {
        Self { sentinels, name: name.to_owned(), settings, trust, first: Cell::new(0) }
    }

    /// A connection to the master, to be had within `within`. Cancellation safe.
    pub(crate) async fn connect(&self, within: Duration) -> Result<MultiplexedConnection, Error> {
        let count = self.sentinels.len();
        // One share for each sentinel and two for the server.
        let share = within / u32::try_from(count + 2).unwrap_or(u32::MAX);
        let mut wrong = Error::Connect("there are no sentinels".into());
        let first = self.first.get();
        for at in (0..count).map(|n| (first + n) % count) {
            // Should this one not come to an end in time, the next attempt begins with another.
            self.first.set((at + 1) % count);
            match self.connect_by(&self.sentinels[at], share).await {
                Ok(connection) => {
                    self.first.set(at);
                    return Ok(connection);
                }
                Err(error) => wrong = error,
            }
        }
        Err(wrong)
    }

    /// To the one that a sentinel names.
    async fn connect_by(&self, sentinel: &Client, share: Duration) -> Result<MultiplexedConnection, Error> {
        let (host, port) = match timeout(share, self.ask(sentinel)).await {
            Ok(named) => named?,
            Err(_) => return Err(Error::Connect(format!("a sentinel gave no answer within {share:?}"))),
        };
        let server = format!("{host}:{port}");
        let addr = address(host, port, self.trust.is_some());
        let client = client_of(addr, self.settings.clone(), self.trust.as_ref())?;
        let connecting = async {
            let mut connection = dial(&client, share * 2).await?;
            let role = connection.send_packed_command(&cmd("ROLE")).await;
            let role = role.map_err(|error| Error::Connect(error.to_string()))?;
            let is_master = reply::list(role).into_iter().next().and_then(reply::bytes);
            if is_master.as_deref() == Some(b"master") {
                Ok(connection)
            } else {
                Err(Error::Connect("it is no master, or does not say so".into()))
            }
        };
        let connected = timeout(share * 2, connecting).await;
        match connected {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => {
                Err(Error::Connect(format!("{server}, which a sentinel named as the master: {error}")))
            }
            Err(_) => Err(Error::Connect(format!(
                "{server}, which a sentinel named as the master, gave no answer in time"
            ))),
        }
    }

    /// What it says that the master's address is.
    async fn ask(&self, sentinel: &Client) -> Result<(String, u16), Error> {
        let wrong = |error: redis::RedisError| Error::Connect(format!("a sentinel: {error}"));
        let mut connection = sentinel.get_multiplexed_async_connection().await.map_err(wrong)?;
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
        let answer = match connection.send_packed_command(&question).await.map_err(wrong)? {
            Value::ServerError(error) => return Err(wrong(error.into())),
            answer => answer,
        };
        let mut parts = reply::list(answer).into_iter().filter_map(reply::bytes);
        let text = |part: Vec<u8>| String::from_utf8(part).ok();
        let host = parts.next().and_then(text).filter(|host| !host.is_empty());
        let port = parts.next().and_then(text).and_then(|port| port.parse().ok());
        host.zip(port)
            .ok_or_else(|| Error::Connect(format!("a sentinel knows of no master called {}", self.name)))
    }
}

/// An address as the library wants it.
pub(crate) fn address(host: String, port: u16, with_tls: bool) -> ConnectionAddr {
    match with_tls {
        true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host, port),
    }
}
