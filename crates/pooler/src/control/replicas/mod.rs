//! Watching the replicas of a database, and its primary's position, for those who route reads.
//!
//! **Intuition.** Workers decide where a read goes by numbers: where the primary was, how far each replica is. Here is
//! who brings these numbers, with connections of its own, so that nothing is added to anybody's transaction.
//!
//! **Mechanism.** [`Replicas`] keeps one sampler of the primary and one watcher per replica as tasks, as the
//! configuration names them, and they write into the database's [`Split`]. What they know of the primary in common is
//! `Known`: the line of history it writes, and where it was when.
//!
//! **Failure.** Each task fails alone and tries again. When the watching ends, or a replica is no longer configured, its
//! state is left as *down*: what nobody watches nobody uses.

mod facts;
mod lag;
mod sampler;
mod standby;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

pub use self::facts::Foreign;
use self::{facts::Line, lag::History, sampler::Sampler, standby::Watcher};
use super::{Entrance, Tools, Watched};
use crate::split::{Lsn, Replica, Split, State};

/// From one question to the next while nobody waits.
const INTERVAL: Duration = Duration::from_millis(100);
/// The same while nobody uses the database.
const UNUSED_INTERVAL: Duration = Duration::from_secs(1);
/// From one question to the next at least.
const GAP: Duration = Duration::from_millis(1);
/// A server that does not answer a question for this long cannot be used.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// One attempt to log in, at most.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Keeps watch over a database's replicas.
pub struct Replicas {
    watched: Arc<dyn Watched>,
    tools: Tools,
    known: Arc<Known>,
    sampler: Option<Task>,
    watchers: Vec<Watching>,
}

/// A task that ends when this is dropped.
struct Task(JoinHandle<()>);

struct Watching {
    replica: Arc<Replica>,
    _task: Task,
}

/// What is known of the primary.
#[derive(Debug, Default)]
struct Known {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// `None` until it was seen.
    line: Option<Line>,
    history: History,
}

impl Replicas {
    /// For a database, whether it has replicas now or not.
    #[must_use]
    pub fn new(watched: Arc<dyn Watched>, tools: Tools) -> Self {
        Self { watched, tools, known: Arc::default(), sampler: None, watchers: Vec::new() }
    }

    /// Watches until dropped. Needs a tokio runtime.
    pub async fn run(mut self) {
        let split = Arc::clone(self.watched.split());
        loop {
            self.follow(&split.replicas.load_full());
            split.replicas_changed().await;
        }
    }

    /// Has exactly these watched.
    fn follow(&mut self, replicas: &[Arc<Replica>]) {
        self.watchers.retain(|watching| replicas.iter().any(|kept| Arc::ptr_eq(kept, &watching.replica)));
        for replica in replicas {
            if !self.watchers.iter().any(|watching| Arc::ptr_eq(replica, &watching.replica)) {
                let (watched, tools) = (Arc::clone(&self.watched), self.tools.clone());
                let watcher = Watcher::new(watched, tools, Arc::clone(&self.known), Arc::clone(replica));
                let task = Task(tokio::spawn(watcher.run()));
                self.watchers.push(Watching { replica: Arc::clone(replica), _task: task });
            }
        }
        if replicas.is_empty() {
            self.sampler = None;
        } else if self.sampler.is_none() {
            let (watched, tools) = (Arc::clone(&self.watched), self.tools.clone());
            let sampler = Sampler::new(watched, tools, Arc::clone(&self.known));
            self.sampler = Some(Task(tokio::spawn(sampler.run())));
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.replica.lost(State::Down);
    }
}

impl Known {
    fn line(&self) -> Option<Line> {
        self.lock().line.clone()
    }

    /// The primary writes this line. If that is news, no replica was seen to be on it.
    fn primary_is(&self, line: &Line, split: &Split) {
        let mut inner = self.lock();
        if inner.line.as_ref() == Some(line) {
            return;
        }
        inner.line = Some(line.clone());
        split.set_history(line.history());
        for replica in split.replicas.load().iter() {
            replica.lost(State::Down);
            replica.poke();
        }
    }

    fn found(&self, flushed: Lsn, at_us: u64) {
        self.lock().history.found(flushed, at_us);
    }

    fn restart(&self, flushed: Lsn, at_us: u64) {
        self.lock().history.restart(flushed, at_us);
    }

    /// Does this if the primary still writes this line, and before it can be said to write another.
    fn if_still(&self, line: &Line, then: impl FnOnce(&History)) {
        let inner = self.lock();
        if inner.line.as_ref() == Some(line) {
            then(&inner.history);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As whom to log in to the database's servers; `None`: nobody is known who could.
fn entrance(watched: &dyn Watched) -> Option<Entrance> {
    let spec = watched.spec();
    let (user, secret) = watched.login()?;
    Some(Entrance {
        user,
        dbname: spec.dbname.clone().unwrap_or_else(|| watched.name().to_string()),
        secret,
        tls: spec.server_tls.clone(),
        limit: spec.pool.connect_timeout.min(CONNECT_LIMIT),
    })
}

/// Those who wait for positions go on.
fn share(watched: &dyn Watched) {
    watched.split().sampled();
    if watched.split().is_waited_for() {
        watched.positions_known();
    }
}

/// Until the next question: `is_wanted` says whether anybody waits still. Whoever poked while the last one was under way
/// may have been served by it, and so have poked for nothing.
async fn rest<F: Future<Output = ()>>(
    watched: &dyn Watched,
    poked: impl Fn() -> F,
    is_wanted: impl Fn() -> bool,
) {
    // Those who were told of the last answer are gone by then.
    sleep(GAP).await;
    let interval = if watched.is_used() { INTERVAL } else { UNUSED_INTERVAL };
    while !is_wanted() && timeout(interval, poked()).await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Host, ReplicaHost};

    #[test]
    fn on_another_line_no_replica_counts_until_it_was_seen_there() {
        let split = Split::default();
        let host = Host::Tcp { host: "r".into(), port: 1 };
        split.set_replicas(&[ReplicaHost { host, weight: 1 }]);
        let replica = Arc::clone(&split.replicas.load()[0]);
        let line = |timeline| Line { system: "71".into(), timeline };
        let known = Known::default();
        let answer = |on| known.if_still(&line(on), |_| replica.answered(7, Lsn(50), 0, 1));
        answer(1);
        assert_eq!(replica.state(), State::Down, "the primary was not seen yet");
        known.primary_is(&line(1), &split);
        answer(1);
        assert_eq!(replica.state(), State::Up);
        let life = replica.life();
        known.primary_is(&line(1), &split);
        assert_eq!((replica.state(), replica.life()), (State::Up, life));
        known.primary_is(&line(2), &split);
        answer(1);
        assert_eq!(replica.state(), State::Down);
        assert_ne!(replica.life(), life);
    }
}
