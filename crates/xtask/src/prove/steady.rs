//! Clients that keep their connections and count what fails: the judges of a drain and of a reload.
//!
//! **Intuition.** "Nothing was lost" is for the clients to say. These behave as good clients do: each keeps one
//! connection, sends on it at least once a second, goes away when it is told `Connection: close`, and connects again.
//!
//! **Mechanism.** One thread a client, reading each answer whole. A third of the requests are POSTs, which nobody would
//! send again quietly. Clients differ in pace, so that some are in the middle of an exchange and some between two
//! whenever something happens.
//!
//! **Failure.** Whatever is not a whole answer with status 200 counts as failed and is kept with its text. A refused
//! connect means that nobody listens any more: it ends the client and is no failure. A connection that was made and
//! brought nothing at all had waited in the closing listener's queue; it is counted by itself.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenfold_testkit::raw::Client;

use super::stand::pause;

/// Between an answer and the next request: each client has one of these.
const PACES_MS: [u64; 8] = [0, 1, 3, 10, 30, 100, 300, 900];
/// Examples of failures kept.
const EXAMPLES_MAX: usize = 5;

/// What the clients saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    /// Connections whose last answer said `Connection: close`.
    pub(crate) told: u64,
    /// New connections on which not a byte came.
    pub(crate) lost_in_queue: u64,
    pub(crate) refused: u64,
    pub(crate) examples: Vec<String>,
}

impl Seen {
    /// Takes in what others saw.
    pub(crate) fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.told += other.told;
        self.lost_in_queue += other.lost_in_queue;
        self.refused += other.refused;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
    }

    fn fail(&mut self, what: String) {
        self.failed += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what);
        }
    }
}

/// Clients at work until they are stopped, or refused.
pub(crate) struct Steady {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Seen>>,
}

impl Steady {
    pub(crate) fn start(edge: SocketAddr, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |index: usize| {
            let stop = Arc::clone(&stop);
            let pace = Duration::from_millis(PACES_MS[index % PACES_MS.len()]);
            std::thread::spawn(move || play(edge, index, pace, &stop))
        };
        let clients = (0..clients).map(client).collect();
        Self { stop, clients }
    }

    /// Whether every client has ended by itself.
    pub(crate) fn all_refused(&self) -> bool {
        self.clients.iter().all(JoinHandle::is_finished)
    }

    /// Ends the clients and sums up what they saw.
    pub(crate) fn finish(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = Seen::default();
        for client in self.clients {
            seen.add(client.join().ok().context("a client panicked")?);
        }
        Ok(seen)
    }
}

fn play(edge: SocketAddr, index: usize, pace: Duration, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        match Client::connect(edge) {
            Ok(client) => connection(client, index, &mut number, pace, stop, &mut seen),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                seen.refused += 1;
                break;
            }
            Err(error) => seen.fail(format!("connect: {error}")),
        }
    }
    seen
}

/// One connection's life.
fn connection(
    mut client: Client,
    index: usize,
    number: &mut u64,
    pace: Duration,
    stop: &AtomicBool,
    seen: &mut Seen,
) {
    let mut is_new = true;
    while !stop.load(Ordering::Relaxed) {
        *number += 1;
        let target = format!("/{index}/{number}");
        let answer = if number.is_multiple_of(3) {
            client.request_with_body("POST", &target, &[], b"an order")
        } else {
            client.get(&target)
        };
        match &answer {
            Ok(answer) if answer.status == 200 => seen.answered += 1,
            Ok(answer) => {
                seen.fail(format!("{target}: {} {:?}", answer.status, answer.header("tenfold-reason")));
            }
            Err(_) if is_new => {
                seen.lost_in_queue += 1;
                return;
            }
            Err(error) => {
                seen.fail(format!("{target} on a kept connection: {error}"));
                return;
            }
        }
        if answer.is_ok_and(|answer| answer.closes) {
            seen.told += 1;
            return;
        }
        is_new = false;
        pause(pace);
    }
}
