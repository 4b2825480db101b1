//! Ctrl-C and SIGTERM, for commands that have something to put away first.
//!
//! A thread of its own waits for the signal, because the command may be waiting for a child at that moment. What to
//! put away is handed over as a closure and runs once; then the process ends with the status a shell expects (128 plus
//! the signal). Children are not its business: `testkit` makes each end with this process, however that ends.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tenfold_loadgen::Stop;
use tokio::signal::unix::{SignalKind, signal};

/// How long an interrupted command may take to stop its children in order. Then the process ends as it is, and their
/// watchers stop them.
const ORDERLY_END_MAX: Duration = Duration::from_secs(3);

/// From now on an interrupt runs `put_away` and ends the process.
pub(crate) fn on_interrupt(put_away: impl FnOnce() + Send + 'static) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot wait for signals")?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    drop(entered);
    thread::spawn(move || {
        let status = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            }
        });
        put_away();
        std::process::exit(status);
    });
    Ok(())
}

/// Whether the user has asked to stop, seen from everywhere in a long command.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    /// Ends a running load.
    stop: Stop,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Clone, Copy, Default)]
struct State {
    asked: bool,
    /// The command has stopped everything in order; nothing is left to wait for.
    finished: bool,
}

impl Interrupt {
    /// From now on an interrupt is noticed by `check`, `wait` and the load; the process ends once `finish` is called,
    /// or after a while without it.
    pub(crate) fn install() -> Result<Self> {
        let interrupt = Self::default();
        let noticed = interrupt.clone();
        on_interrupt(move || {
            eprintln!("\nStopping");
            noticed.stop.stop();
            noticed.change(|state| state.asked = true);
            noticed.wait_until(|state| state.finished, Some(ORDERLY_END_MAX));
        })?;
        Ok(interrupt)
    }

    /// What a load is run with, so that it ends early.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    pub(crate) fn was_asked(&self) -> bool {
        self.lock().asked
    }

    /// An error if the user has asked to stop: called between two steps.
    pub(crate) fn check(&self) -> Result<()> {
        if self.was_asked() {
            bail!("stopped");
        }
        Ok(())
    }

    /// Blocks until the user asks to stop.
    pub(crate) fn wait(&self) {
        self.wait_until(|state| state.asked, None);
    }

    /// Everything is put away.
    pub(crate) fn finish(&self) {
        self.change(|state| state.finished = true);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.state.1.notify_all();
    }

    fn wait_until(&self, done: impl Fn(&State) -> bool, limit: Option<Duration>) {
        let state = self.lock();
        let limit = limit.unwrap_or(Duration::MAX);
        drop(self.state.1.wait_timeout_while(state, limit, |state| !done(state)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_asked_is_seen_by_every_clone_and_ends_the_wait() {
        let interrupt = Interrupt::default();
        assert!(interrupt.check().is_ok());
        let waiting = interrupt.clone();
        let waiter = thread::spawn(move || waiting.wait());
        interrupt.change(|state| state.asked = true);
        waiter.join().expect("no panic");
        assert!(interrupt.clone().check().is_err());
    }

    #[test]
    fn an_orderly_end_is_not_waited_for_forever() {
        Interrupt::default().wait_until(|state| state.finished, Some(Duration::from_millis(10)));
    }
}
