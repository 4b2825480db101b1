//! Ctrl-C and SIGTERM, for commands that have something to put away first.
//!
//! A thread of its own waits for the signal, because the command may be waiting for a child at that moment. What to
//! put away is handed over as a closure and runs once; then the process ends with the status a shell expects (128 plus
//! the signal). Children are not its business: they end with the process, because they were asked to.

use std::thread;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

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
