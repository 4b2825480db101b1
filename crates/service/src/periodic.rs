//! One loop for everything that is done now and then: health checks, refreshes, sweeps.
//!
//! **Intuition.** A periodic job is an idempotent function of `now`. This loop calls it, never twice at once, and spreads
//! the calls of many jobs and many processes with jitter, so that a thousand edges don't probe a node in the same
//! millisecond.
//!
//! **Mechanism.** The first call comes after a random part of `every × jitter`; each next one starts `every`, give or
//! take half of `every × jitter`, after the start of the last, or at once if that took longer.
//!
//! **Failure.** A call that hangs delays the next one: give it a timeout of its own. A call that panics is counted by
//! [`Ran::panicked`] and the loop goes on. At the drain the loop ends after the call that runs.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use crate::{clock::Clock, drain::DrainWatch, metrics::Registry, rng::Rng};

/// When a job runs, and under which name it is counted.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The job's name: the label in `tenfold_service_job_runs` and `_job_panics`.
    pub name: &'static str,
    /// From one start to the next.
    pub every: Duration,
    /// How much of `every` is left to chance: `0.0` none, `0.2` plus or minus a tenth. Clamped to `0.0..=1.0`.
    pub jitter_ratio: f64,
}

/// What a loop has done, when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Calls that ended.
    pub times: u64,
    /// Calls among them that panicked.
    pub panicked: u64,
}

/// Calls `job` on its schedule until the drain begins. Not cancellation safe in the sense of the job: dropping the future
/// drops the call that runs.
pub async fn run<J, F>(
    schedule: Schedule,
    clock: &Clock,
    registry: &Registry,
    mut rng: Rng,
    drain: &DrainWatch,
    mut job: J,
) -> Ran
where
    J: FnMut(Instant) -> F,
    F: Future<Output = ()>,
{
    let labels = [("job", schedule.name)];
    let runs = registry.counter("tenfold_service_job_runs", "Calls of periodic jobs.", &labels);
    let panics =
        registry.counter("tenfold_service_job_panics", "Calls of periodic jobs that panicked.", &labels);
    let jitter = schedule.every.mul_f64(schedule.jitter_ratio.clamp(0.0, 1.0));
    let mut ran = Ran::default();
    let mut wait = jitter.mul_f64(rng.next_ratio());
    loop {
        // Both branches are cancellation safe.
        tokio::select! {
            biased;
            () = drain.begun() => return ran,
            () = tokio::time::sleep(wait) => {}
        }
        let began = clock.now();
        ran.times += 1;
        runs.add(1);
        if !completes(|| job(began)).await {
            ran.panicked += 1;
            panics.add(1);
        }
        let interval = schedule.every - jitter / 2 + jitter.mul_f64(rng.next_ratio());
        wait = interval.saturating_sub(clock.now().saturating_duration_since(began));
    }
}

/// Runs one call to its end; false if it panicked.
async fn completes<F: Future<Output = ()>>(make: impl FnOnce() -> F) -> bool {
    let Ok(future) = catch_unwind(AssertUnwindSafe(make)) else { return false };
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(|()| true),
        Err(_) => Poll::Ready(false),
    })
    .await
}
