//! Reading a stream to its end and on, knowing at each moment whether nothing was missed.
//!
//! **Intuition.** Who follows a stream over a connection that comes and goes has to know one thing when it is back: is this
//! the same stream, and is the place where I was still in it? If so nothing is lost; if not, anything may be.
//!
//! **Mechanism.** On each connection the reader asks for the server's replication id, a name for the history of its data,
//! which a restart and a promotion change, and for the entry it read last. With both as they were it goes on from there, else
//! it begins at the front and says so. Then it reads, blocking for at most [`BLOCK`], so that each answer, empty or not, is
//! proof of contact; an answer that doesn't come in time ends the connection. The replication id is asked for again every
//! [`RECHECK`], as a server can be promoted under an open connection.
//!
//! **Failure.** Everything but the end of the thread is answered by [`StreamEvent::Lost`] and another connection. Entries
//! are taken [`COUNT`] at a time. A replica is not followed: what is published goes to its master.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value, cmd};
use tokio::time::{sleep, timeout};

use crate::{Link, reply};

/// An entry's id. Ids only grow within one history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// When it was added, in the server's milliseconds since 1970.
    pub ms: u64,
    /// Counts those of one millisecond.
    pub counter: u64,
}

/// What the reader learns, in this order on each connection: `Joined`, entries and contacts, `Lost`.
#[derive(Debug)]
pub enum StreamEvent {
    /// Connected.
    Joined {
        /// Names the history: a hash of the replication id.
        epoch: u64,
        /// The reader goes on where it was. Else what follows begins at the stream's front, and what was before may have
        /// been missed.
        kept_place: bool,
    },
    /// An entry's fields, as they were added.
    Entry(StreamId, Vec<(Vec<u8>, Vec<u8>)>),
    /// All there was up to this moment has been read.
    Contact,
    /// The connection is gone, and why.
    Lost(String),
}

/// How long one read may wait for news.
const BLOCK: Duration = Duration::from_secs(1);
/// Beyond that, how long the answer may take.
const LATE: Duration = Duration::from_secs(1);
/// For the questions at the start.
const QUESTION: Duration = Duration::from_secs(1);
/// Entries taken at once.
const COUNT: usize = 1000;
/// How often the replication id is asked for again.
const RECHECK: Duration = Duration::from_secs(5);
/// Between connections.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The same, for a server that stays away.
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl StreamId {
    /// Reads `1700000000000-3`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (ms, counter) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, counter: counter.parse().ok()? })
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.counter)
    }
}

/// Follows the stream `key` for ever, on connections of its own. `on_event` must not take long.
pub async fn follow(link: &Link, key: &str, mut on_event: impl FnMut(StreamEvent)) {
    let mut place = Place::default();
    let mut pause = PAUSE_MIN;
    loop {
        let why = match link.endpoint.connect(&link.config).await {
            Ok(mut connection) => {
                let (joined, why) = read_on(link, &mut connection, key, &mut place, &mut on_event).await;
                if joined {
                    pause = PAUSE_MIN;
                }
                why
            }
            Err(error) => error.to_string(),
        };
        on_event(StreamEvent::Lost(why));
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// How far the reader has come, in which history.
#[derive(Debug, Default)]
struct Place {
    epoch: Option<u64>,
    last: Option<StreamId>,
}

/// Reads on one connection until it breaks. Says whether it got as far as joining, and why it ended.
async fn read_on(
    link: &Link,
    connection: &mut MultiplexedConnection,
    key: &str,
    place: &mut Place,
    on_event: &mut impl FnMut(StreamEvent),
) -> (bool, String) {
    let epoch = match epoch(connection).await {
        Ok(epoch) => epoch,
        Err(why) => return (false, why),
    };
    let kept_place = match kept(connection, key, place, epoch).await {
        Ok(kept) => kept,
        Err(why) => return (false, why),
    };
    if !kept_place {
        *place = Place { epoch: Some(epoch), last: None };
    }
    on_event(StreamEvent::Joined { epoch, kept_place });
    let mut checked = link.now();
    loop {
        match read_once(connection, key, place, on_event).await {
            Ok(more) if more => {}
            Ok(_) => on_event(StreamEvent::Contact),
            Err(why) => return (true, why),
        }
        if link.now().saturating_duration_since(checked) >= RECHECK {
            checked = link.now();
            match self::epoch(connection).await {
                Ok(now) if now == epoch => {}
                Ok(_) => return (true, "the server's replication id has changed".into()),
                Err(why) => return (true, why),
            }
        }
    }
}

async fn ask(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
    within: Duration,
) -> Result<Value, String> {
    match timeout(within, connection.send_packed_command(command)).await {
        Ok(Ok(Value::ServerError(error))) => Err(redis::RedisError::from(error).to_string()),
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {within:?}")),
    }
}

/// Names the server's history. Refuses replicas.
async fn epoch(connection: &mut MultiplexedConnection) -> Result<u64, String> {
    let info = ask(connection, cmd("INFO").arg("replication"), QUESTION).await?;
    let info = match info {
        Value::VerbatimString { text, .. } => text.into_bytes(),
        other => reply::bytes(other).ok_or("INFO answered something else than text")?,
    };
    let info = String::from_utf8_lossy(&info);
    let line = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
    if line("role:").is_some_and(|role| role.trim() != "master") {
        return Err("the server is a replica".into());
    }
    let id = line("master_replid:").ok_or("the server does not say its replication id")?;
    Ok(hash(id.trim().as_bytes()))
}

/// FNV-1a: it has to be the same everywhere, and nobody gains by a collision.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Whether the entry that was read last is still in the same stream. A stream that was empty throughout is the same, too.
async fn kept(
    connection: &mut MultiplexedConnection,
    key: &str,
    place: &Place,
    epoch: u64,
) -> Result<bool, String> {
    let Some(last) = place.last.filter(|_| place.epoch == Some(epoch)) else { return Ok(false) };
    let id = last.to_string();
    let found = ask(connection, cmd("XRANGE").arg(key).arg(&id).arg(&id), QUESTION).await?;
    Ok(!reply::list(found).is_empty())
}

/// Reads once; says whether there may be more at once.
async fn read_once(
    connection: &mut MultiplexedConnection,
    key: &str,
    place: &mut Place,
    on_event: &mut impl FnMut(StreamEvent),
) -> Result<bool, String> {
    let after = place.last.unwrap_or_default().to_string();
    let mut command = cmd("XREAD");
    let block = u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX);
    command.arg("COUNT").arg(COUNT).arg("BLOCK").arg(block).arg("STREAMS").arg(key).arg(after);
    let read = ask(connection, &command, BLOCK + LATE).await?;
    // One stream was asked for: a list (RESP 2) or a map (RESP 3) of one.
    let entries = match read {
        Value::Map(mut streams) => streams.pop().map(|(_, entries)| entries),
        other => reply::list(other).pop().and_then(|stream| reply::list(stream).into_iter().nth(1)),
    };
    let entries = entries.map(reply::list).unwrap_or_default();
    let more = entries.len() >= COUNT;
    for entry in entries {
        let mut parts = reply::list(entry).into_iter();
        let id = parts.next().and_then(reply::bytes).and_then(|id| StreamId::parse(&id));
        let Some(id) = id.filter(|id| place.last.is_none_or(|last| *id > last)) else {
            return Err("an entry without an id, or out of order".into());
        };
        place.last = Some(id);
        on_event(StreamEvent::Entry(id, parts.next().map(reply::pairs).unwrap_or_default()));
    }
    Ok(more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_strictly_and_grow() {
        let id = |ms, counter| Some(StreamId { ms, counter });
        assert_eq!(StreamId::parse(b"1700000000000-3"), id(1_700_000_000_000, 3));
        for wrong in [&b""[..], b"1", b"-1", b"1-", b"a-1", b"1-2-3", b"\xff-1", b"1-99999999999999999999"] {
            assert_eq!(StreamId::parse(wrong), None, "{wrong:?}");
        }
        assert!(id(2, 0) > id(1, 9));
        assert_eq!(StreamId { ms: 5, counter: 7 }.to_string(), "5-7");
    }
}
