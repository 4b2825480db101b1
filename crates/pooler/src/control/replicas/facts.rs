//! Who a server is: which of its starts, of which cluster, on which line of its history.
//!
//! **Intuition.** A position of the write-ahead log means something only together with the history it belongs to. Two
//! servers share one if they were made from the same `initdb` (the system identifier) and are on the same timeline.
//!
//! **Mechanism.** Plain queries that any login may ask, written so that nothing a session can set (search_path,
//! TimeZone, DateStyle, extra_float_digits) changes their answer. An *instance* is a server between its start and its
//! end: its positions only grow while a connection to it lasts.
//!
//! **Failure.** A standby may not have written down yet that it follows its primary to another timeline; until it has,
//! it counts as foreign, unless the user may see `pg_stat_wal_receiver` (`pg_read_all_stats`), where it shows at once.
//!
//! Source: PostgreSQL's manual, "System Information Functions" and "Recovery Control Functions".

use std::{fmt, time::Duration};

use tokio::time::timeout;

use crate::{
    control::{Client, Error, client::Row},
    split::{History, Lsn, instance_of},
};

/// Whether the server is in recovery ("true" or "false"), the microsecond of its start, its address and port (NULL on a
/// Unix socket), as workers ask it too ([`facts_query`](crate::split::facts_query)); then the cluster's system
/// identifier and the latest timeline known to be the standby's. All as text.
const STANDBY_QUERY: &str = "SELECT pg_catalog.pg_is_in_recovery()::pg_catalog.text, \
     (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) \
      OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8::pg_catalog.text, \
     pg_catalog.inet_server_addr()::pg_catalog.text, pg_catalog.inet_server_port()::pg_catalog.text, \
     (SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()), \
     GREATEST((SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()), \
              (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()), \
              (SELECT pg_catalog.max(received_tli) FROM pg_catalog.pg_stat_wal_receiver))::pg_catalog.text";

/// Whether a server is in recovery.
const RECOVERY_QUERY: &str = "SELECT pg_catalog.pg_is_in_recovery()::pg_catalog.text";

/// The primary's system identifier, and a file of its log, whose name begins with the timeline. Fails in recovery.
const PRIMARY_QUERY: &str = "SELECT (SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()), \
     pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())";

/// Where the primary is: what it has begun to write, and what standbys may have.
const SAMPLE_QUERY: &str = "SELECT pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text, \
     pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text";

/// Where a standby is, and how old the last commit it has replayed is, in microseconds.
const POSITION_QUERY: &str = "SELECT pg_catalog.pg_is_in_recovery()::pg_catalog.text, \
     pg_catalog.pg_last_wal_replay_lsn()::pg_catalog.text, \
     (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) \
      pg_catalog.pg_last_xact_replay_timestamp()) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8::pg_catalog.text";

/// Hexadecimal digits of the timeline at the beginning of a log file's name.
const TIMELINE_DIGITS: usize = 8;

/// A line of history that positions belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Which `initdb`.
    pub(super) system: String,
    pub(super) timeline: u32,
}

impl Line {
    /// The same in numbers, as positions are carried about. No server has an identifier that is no
    /// number, or 0.
    pub(super) fn history(&self) -> History {
        History { system: self.system.parse().unwrap_or(0), timeline: self.timeline }
    }
}

/// What a replica says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standby {
    pub(super) is_in_recovery: bool,
    /// [`instance_of`] this start of it.
    pub(super) instance: u64,
    pub(super) line: Line,
}

/// Where a primary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sampled {
    /// At or above every commit that was acknowledged.
    pub(super) inserted: Lsn,
    /// Sent to standbys, or about to be.
    pub(super) flushed: Lsn,
}

/// Where a standby is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) is_in_recovery: bool,
    /// `None`: it has replayed nothing.
    pub(super) replayed: Option<Lsn>,
    /// How old the last commit is that it has replayed, in microseconds.
    pub(super) applied_us: Option<u64>,
}

/// Why a server's positions are not this primary's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// It is a primary itself.
    Promoted,
    /// It was made by another `initdb`.
    System {
        /// Its own identifier.
        own: String,
        /// The primary's.
        primary: String,
    },
    /// It follows another history of the same cluster.
    Timeline {
        /// Its own.
        own: u32,
        /// The primary's.
        primary: u32,
    },
}

impl Standby {
    /// What keeps it from being a standby of the primary on this line.
    pub(super) fn check(&self, primary: &Line) -> Result<(), Foreign> {
        if !self.is_in_recovery {
            return Err(Foreign::Promoted);
        }
        if self.line.system != primary.system {
            let (own, primary) = (self.line.system.clone(), primary.system.clone());
            return Err(Foreign::System { own, primary });
        }
        if self.line.timeline != primary.timeline {
            return Err(Foreign::Timeline { own: self.line.timeline, primary: primary.timeline });
        }
        Ok(())
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Promoted => f.write_str("it is not in recovery: it was promoted, or never was a standby"),
            Self::System { own, primary } => {
                write!(
                    f,
                    "it belongs to another cluster: its system identifier is {own}, the primary's {primary}"
                )
            }
            Self::Timeline { own, primary } => {
                write!(f, "it is on timeline {own}, the primary on {primary}")
            }
        }
    }
}

/// Which line the primary writes.
pub(super) async fn primary(client: &mut Client, limit: Duration) -> Result<Line, Error> {
    let recovery = one(client, RECOVERY_QUERY, limit).await?;
    if !matches!(&recovery[..], [Some(answer)] if answer == "false") {
        return Err(Error::NoPrimary);
    }
    read_primary(&one(client, PRIMARY_QUERY, limit).await?).ok_or_else(broken)
}

/// What a server says about itself as a standby. `name`: what it is called here.
pub(super) async fn standby(client: &mut Client, name: &str, limit: Duration) -> Result<Standby, Error> {
    read_standby(name, &one(client, STANDBY_QUERY, limit).await?).ok_or_else(broken)
}

/// Where the primary is.
pub(super) async fn sample(client: &mut Client, limit: Duration) -> Result<Sampled, Error> {
    read_sample(&one(client, SAMPLE_QUERY, limit).await?).ok_or_else(broken)
}

/// Where a standby is.
pub(super) async fn position(client: &mut Client, limit: Duration) -> Result<Position, Error> {
    read_position(&one(client, POSITION_QUERY, limit).await?).ok_or_else(broken)
}

async fn one(client: &mut Client, query: &str, limit: Duration) -> Result<Row, Error> {
    let rows = timeout(limit, client.rows(query)).await;
    let rows = rows.unwrap_or(Err(Error::TimedOut("waiting for the server's answer")))?;
    rows.into_iter().next().ok_or_else(broken)
}

fn broken() -> Error {
    tenfold_pgwire::Error::MessageFormat.into()
}

fn read_primary(row: &[Option<String>]) -> Option<Line> {
    let [Some(system), Some(file)] = row else { return None };
    let timeline = u32::from_str_radix(file.get(..TIMELINE_DIGITS)?, 16).ok()?;
    Some(Line { system: system.clone(), timeline })
}

fn read_standby(name: &str, row: &[Option<String>]) -> Option<Standby> {
    let [Some(recovery), Some(started), address, port, Some(system), Some(timeline)] = row else {
        return None;
    };
    let instance = instance_of(name, started, address.as_deref(), port.as_deref());
    let line = Line { system: system.clone(), timeline: timeline.parse().ok()? };
    Some(Standby { is_in_recovery: recovery == "true", instance, line })
}

fn read_sample(row: &[Option<String>]) -> Option<Sampled> {
    let [Some(inserted), Some(flushed)] = row else { return None };
    Some(Sampled { inserted: inserted.parse().ok()?, flushed: flushed.parse().ok()? })
}

fn read_position(row: &[Option<String>]) -> Option<Position> {
    let [Some(recovery), replayed, applied] = row else { return None };
    let replayed = match replayed {
        Some(replayed) => Some(replayed.parse().ok()?),
        None => None,
    };
    // Of a clock that is behind the primary's: no age at all.
    let applied_us = applied.as_ref().map(|applied| applied.parse().unwrap_or(0));
    Some(Position { is_in_recovery: recovery == "true", replayed, applied_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[&str]) -> Row {
        columns.iter().map(|column| (*column != "NULL").then(|| (*column).to_owned())).collect()
    }

    #[test]
    fn answers_are_read_and_odd_ones_are_none() {
        let line = Line { system: "71".into(), timeline: 26 };
        assert_eq!(read_primary(&row(&["71", "0000001A0000000000000001"])), Some(line));
        assert_eq!(read_primary(&row(&["71", "000"])), None);
        let sampled = Sampled { inserted: Lsn(0x1_0000_0002), flushed: Lsn(1) };
        assert_eq!(read_sample(&row(&["1/2", "0/1"])), Some(sampled));
        assert_eq!(read_sample(&row(&["1/2", "NULL"])), None);
        let position = Position { is_in_recovery: true, replayed: Some(Lsn(5)), applied_us: Some(7) };
        assert_eq!(read_position(&row(&["true", "0/5", "7"])), Some(position));
        assert_eq!(read_position(&row(&["true", "0/5", "-7"])).and_then(|at| at.applied_us), Some(0));
        assert_eq!(read_position(&row(&["true", "x", "7"])), None);
        assert_eq!(read_position(&row(&["true", "NULL", "NULL"])).map(|at| at.replayed), Some(None));
        assert_eq!(read_standby("r", &row(&["true", "1", "NULL", "NULL", "71", "x"])), None);
        assert_eq!(read_standby("r", &[]), None);
    }

    #[test]
    fn only_a_standby_on_the_primarys_line_will_do() {
        let primary = Line { system: "71".into(), timeline: 2 };
        let check = |recovery: &str, system: &str, timeline: &str| {
            let columns = [recovery, "1", "NULL", "NULL", system, timeline];
            read_standby("r", &row(&columns)).expect("a standby's row").check(&primary)
        };
        assert_eq!(check("true", "71", "2"), Ok(()));
        assert_eq!(check("false", "71", "2"), Err(Foreign::Promoted));
        assert!(matches!(check("true", "72", "2"), Err(Foreign::System { .. })));
        assert_eq!(check("true", "71", "1"), Err(Foreign::Timeline { own: 1, primary: 2 }));
    }
}
