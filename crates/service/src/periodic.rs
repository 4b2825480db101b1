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
    let mut pause = pin!(tokio::time::sleep(jitter.mul_f64(rng.next_ratio())));
    loop {
        // Both branches are cancellation safe.
        tokio::select! {
            biased;
            () = drain.begun() => return ran,
            () = &mut pause => {}
        }
        // Counted from the call's start, so that its length does not add to the interval.
        pause.set(tokio::time::sleep(schedule.every - jitter / 2 + jitter.mul_f64(rng.next_ratio())));
        ran.times += 1;
        runs.add(1);
        if !completes(|| job(clock.now())).await {
            ran.panicked += 1;
            panics.add(1);
        }
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

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::drain::Drain;

    /// Plays a job for a virtual time and returns when its calls began, in milliseconds.
    async fn starts_ms(
        jitter_ratio: f64,
        play: Duration,
        takes: impl Fn(usize) -> Duration,
    ) -> (Vec<u64>, Ran) {
        let drain = Drain::new();
        let starts = RefCell::new(Vec::new());
        let running = Cell::new(0);
        let zero = tokio::time::sleep(Duration::ZERO).deadline();
        let job = |_| {
            let call = starts.borrow().len();
            let elapsed = tokio::time::sleep(Duration::ZERO).deadline() - zero;
            starts.borrow_mut().push(u64::try_from(elapsed.as_millis()).unwrap());
            running.set(running.get() + 1);
            assert_eq!(running.get(), 1, "calls overlap");
            let (running, takes) = (&running, takes(call));
            async move {
                tokio::time::sleep(takes).await;
                running.set(running.get() - 1);
            }
        };
        let schedule = Schedule { name: "test", every: Duration::from_secs(10), jitter_ratio };
        let (clock, registry, watch) = (Clock::manual(), Registry::new(0), drain.watch());
        let ((), ran) = tokio::join!(
            async {
                tokio::time::sleep(play).await;
                drain.begin();
            },
            run(schedule, &clock, &registry, Rng::new(1), &watch, job),
        );
        (starts.into_inner(), ran)
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_an_interval_apart() {
        let (starts, ran) = starts_ms(0.0, Duration::from_secs(35), |_| Duration::ZERO).await;
        assert_eq!(starts, [0, 10_000, 20_000, 30_000]);
        assert_eq!(ran, Ran { times: 4, panicked: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn jitter_spreads_them_and_keeps_their_number() {
        let (starts, _) = starts_ms(0.5, Duration::from_secs(1_000), |_| Duration::ZERO).await;
        let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(starts[0] <= 5_001 && gaps.iter().all(|gap| (7_499..=12_502).contains(gap)), "{gaps:?}");
        assert!(gaps.iter().max().unwrap() - gaps.iter().min().unwrap() > 3_000, "{gaps:?}");
        assert!((95..=106).contains(&starts.len()), "{}", starts.len());
    }

    #[tokio::test(start_paused = true)]
    async fn the_drain_ends_the_loop_but_not_the_call_that_runs() {
        let (starts, ran) = starts_ms(0.0, Duration::from_secs(12), |_| Duration::from_secs(5)).await;
        assert_eq!((starts.len(), ran.times), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_too_long_delays_the_next_and_no_other() {
        let takes = |call| Duration::from_secs(if call == 1 { 14 } else { 3 });
        let (starts, _) = starts_ms(0.0, Duration::from_secs(50), takes).await;
        assert_eq!(starts, [0, 10_000, 24_000, 34_000, 44_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_panics_is_counted_and_the_loop_goes_on() {
        let drain = Drain::new();
        let (clock, registry, watch) = (Clock::manual(), Registry::new(0), drain.watch());
        let schedule = Schedule { name: "brittle", every: Duration::from_secs(1), jitter_ratio: 0.0 };
        let mut calls = 0;
        let job = |_| {
            calls += 1;
            assert_ne!(calls, 1, "before the future");
            if calls == 4 {
                drain.begin();
            }
            let call = calls;
            async move { assert_ne!(call, 2, "inside the future") }
        };
        let ran = run(schedule, &clock, &registry, Rng::new(1), &watch, job).await;
        assert_eq!(ran, Ran { times: 4, panicked: 2 });
        let text = registry.render();
        assert!(text.contains("tenfold_service_job_runs_total{job=\"brittle\"} 4\n"), "{text}");
        assert!(text.contains("tenfold_service_job_panics_total{job=\"brittle\"} 2\n"), "{text}");
    }
}
