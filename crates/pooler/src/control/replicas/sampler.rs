//! Asking the primary where it is.
//!
//! **Intuition.** A commit is settled by any position of the primary that was asked for after the commit's answer. So
//! one connection keeps asking: at once when somebody waits, and otherwise often enough to know who is late.
//!
//! **Mechanism.** [`Sampler::run`] connects to the database's target, makes sure that this is a primary, and says which
//! line of history it writes before anything else ([`Known::primary_is`]): replicas of another line are out before the
//! first position of this one can settle anything.
//!
//! **Failure.** A position counts only if the target was still the same after the answer: a commit that a new primary
//! has acknowledged is never settled by the old one. After each new connection the first position answers for all
//! before it ([`Samples::restart`](crate::split::Samples::restart)). While nobody can be asked, commits stay unsettled,
//! and their readers go to the primary.

use std::sync::Arc;

use tokio::time::sleep;

use super::{ANSWER_LIMIT, Known, entrance, rest, share};
use crate::control::{
    Client, Error, Event, Target, Tools, Watched,
    monitor::{REFUSED_RETRY, RETRY},
};

use super::facts;

/// Attempts that fail before it is worth a line: the monitor tells of a primary that is merely restarted.
const FAILURES_UNTOLD: u32 = 8;

/// The one that asks the primary of a database.
pub(super) struct Sampler {
    watched: Arc<dyn Watched>,
    tools: Tools,
    known: Arc<Known>,
    /// In a row.
    failures: u32,
    has_told: bool,
}

impl Sampler {
    pub(super) fn new(watched: Arc<dyn Watched>, tools: Tools, known: Arc<Known>) -> Self {
        Self { watched, tools, known, failures: 0, has_told: false }
    }

    /// Asks until dropped.
    pub(super) async fn run(mut self) {
        loop {
            let target = self.watched.target();
            let pause = match self.connected(&target).await {
                // The target changed; where to is known.
                Ok(()) => RETRY,
                Err(error) => {
                    self.failed(&error);
                    let is_hopeless = error.is_refusal() || !self.watched.is_used();
                    if is_hopeless { REFUSED_RETRY } else { RETRY }
                }
            };
            sleep(pause).await;
        }
    }

    fn failed(&mut self, error: &Error) {
        // Without a user or an address the monitor has said so.
        if matches!(error, Error::NoLogin | Error::Unresolved(_)) {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures > FAILURES_UNTOLD && !self.has_told {
            self.watched.told(Event::PositionUnknown { error: error.to_string() });
            self.has_told = true;
        }
    }

    /// One connection, from its login until it fails or the target has changed.
    async fn connected(&mut self, target: &Target) -> Result<(), Error> {
        let Some(address) = target.addresses.first() else { return Err(Error::Unresolved(String::new())) };
        let entrance = entrance(&*self.watched).ok_or(Error::NoLogin)?;
        let mut client = Client::connect(address, &entrance, &self.tools.salter).await?;
        let line = facts::primary(&mut client, ANSWER_LIMIT).await?;
        let split = Arc::clone(self.watched.split());
        let mut is_first = true;
        loop {
            let sample = split.samples.begin();
            let asked_us = self.watched.now_us();
            let sampled = facts::sample(&mut client, ANSWER_LIMIT).await?;
            if self.watched.target().generation != target.generation {
                return Ok(());
            }
            // A position right behind a page's header is one that no replica reports.
            let inserted = sampled.inserted.replayed();
            if is_first {
                self.known.primary_is(&line, &split);
                self.known.restart(sampled.flushed.replayed(), asked_us);
                split.samples.restart(sample, inserted);
                is_first = false;
                self.back();
            } else {
                self.known.found(sampled.flushed.replayed(), asked_us);
                split.samples.found(sample, inserted);
            }
            share(&*self.watched);
            let split = &*split;
            rest(&*self.watched, || split.poked(), || split.is_waited_for()).await;
        }
    }

    fn back(&mut self) {
        self.failures = 0;
        if std::mem::take(&mut self.has_told) {
            self.watched.told(Event::PositionKnown);
        }
    }
}
