//! Clients that keep their connections and run one transaction after the other: the judges of operations and fairness.
//!
//! One thread each. A transaction is BEGIN, a row written, COMMIT; whatever is not three answers without an error is a
//! failed one, kept with its SQLSTATE.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::super::stand::{now, pause};
use super::session::{Lost, Session};

/// What they share.
#[derive(Debug, Default)]
struct Board {
    stop: AtomicBool,
    done: AtomicU64,
}

/// What they saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) done: u64,
    /// By SQLSTATE.
    pub(super) failed: BTreeMap<String, u64>,
    /// Failures of the client that had most.
    pub(super) failed_of_one_max: u64,
    pub(super) bare_closes: u64,
    pub(super) slowest: Duration,
}

impl Seen {
    pub(super) fn failures(&self) -> u64 {
        self.failed.values().sum::<u64>() + self.bare_closes
    }

    /// For a table.
    pub(super) fn shown(&self) -> String {
        let codes: Vec<_> = self.failed.iter().map(|(code, count)| format!("{count} × {code}")).collect();
        format!("{} of {} {}", self.failures(), self.done + self.failures(), codes.join(", "))
    }

    fn add(&mut self, other: &Self) {
        self.done += other.done;
        for (code, count) in &other.failed {
            *self.failed.entry(code.clone()).or_default() += count;
        }
        self.failed_of_one_max = self.failed_of_one_max.max(other.failures());
        self.bare_closes += other.bare_closes;
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// Clients at work until they are stopped.
pub(super) struct Steady {
    board: Arc<Board>,
    clients: Vec<JoinHandle<Seen>>,
}

impl Steady {
    pub(super) fn start(pooler: SocketAddr, clients: usize) -> Self {
        let board = Arc::new(Board::default());
        let client = |_| {
            let board = Arc::clone(&board);
            std::thread::spawn(move || play(pooler, &board))
        };
        Self { clients: (0..clients).map(client).collect(), board }
    }

    /// Transactions ended well so far.
    pub(super) fn done(&self) -> u64 {
        self.board.done.load(Ordering::Relaxed)
    }

    pub(super) fn finish(self) -> Result<Seen> {
        self.board.stop.store(true, Ordering::Relaxed);
        let mut seen = Seen::default();
        for client in self.clients {
            seen.add(&client.join().ok().context("a client panicked")?);
        }
        Ok(seen)
    }
}

fn play(pooler: SocketAddr, board: &Board) -> Seen {
    let mut seen = Seen::default();
    let mut session = None;
    while !board.stop.load(Ordering::Relaxed) {
        let began = now();
        let outcome = match session.take() {
            Some(session) => Ok(session),
            None => Session::connect(pooler),
        };
        match outcome.and_then(transaction) {
            Ok((back, None)) => {
                seen.done += 1;
                board.done.fetch_add(1, Ordering::Relaxed);
                session = Some(back);
            }
            Ok((back, Some(code))) => {
                *seen.failed.entry(code).or_default() += 1;
                session = Some(back);
            }
            Err(Lost::Closed(Some(error))) => *seen.failed.entry(error.code).or_default() += 1,
            Err(Lost::Closed(None) | Lost::Refused) => seen.bare_closes += 1,
            Err(Lost::Silent) => *seen.failed.entry("no answer".into()).or_default() += 1,
        }
        seen.slowest = seen.slowest.max(began.elapsed());
        pause(Duration::from_millis(1));
    }
    seen
}

/// The connection again, and the SQLSTATE if the transaction failed.
fn transaction(mut session: Session) -> Result<(Session, Option<String>), Lost> {
    let mut failed = None;
    for sql in ["BEGIN", "INSERT INTO operations DEFAULT VALUES", "COMMIT"] {
        let answer = session.query(sql)?;
        failed = failed.or(answer.error.map(|error| error.code));
    }
    Ok((session, failed))
}
