//! The thread that talks to Redis, and the handle by which others reach it.
//!
//! A job is a closure that makes its future on that thread, where it may hold the [`Link`] across waits. What it finds out
//! goes back through whatever channel it brought along. The thread ends when it is told to, with whatever still runs.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;

use crate::endpoint::Endpoint;
use crate::link::{Counters, count};
use crate::{CallError, Config, Error, Link, Stats};

/// Jobs sent and not yet begun.
const QUEUE_MAX: usize = 1024;
/// Jobs at work.
const JOBS_MAX: usize = 4096;

type Job = Box<dyn FnOnce(&Rc<Link>, JobGuard) + Send>;

/// Reaches the thread. Clones reach the same one.
#[derive(Clone)]
pub struct Redis {
    jobs: mpsc::Sender<Job>,
    counters: Arc<Counters>,
}

/// The thread itself. Dropping it ends it.
pub struct Thread {
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Counts a job for as long as it is at work.
struct JobGuard(Rc<Cell<usize>>);

impl Drop for JobGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").finish_non_exhaustive()
    }
}

impl Redis {
    /// Starts the thread, which connects by itself and again whenever it has to. `now` reads the time.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Thread`]. That the server is away is none.
    pub fn start(
        config: Config,
        now: impl Fn() -> Instant + Send + Sync + 'static,
    ) -> Result<(Self, Thread), Error> {
        // What can be wrong is said here; the thread makes its own.
        config.validate()?;
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let (stop, stopped) = watch::channel(false);
        let counters = Arc::new(Counters::default());
        let redis = Self { jobs, counters: Arc::clone(&counters) };
        let thread = std::thread::Builder::new().name("tenfold-state".into()).spawn(move || {
            let mut runtime = Builder::new_current_thread();
            runtime.enable_all().max_blocking_threads(1);
            let Ok(runtime) = runtime.build_local(LocalOptions::default()) else { return };
            runtime.block_on(run(config, Arc::new(now), counters, queue, stopped));
            // What a name server keeps waiting is not waited for.
            runtime.shutdown_background();
        })?;
        Ok((redis, Thread { stop, thread: Some(thread) }))
    }

    /// Sends a job to the thread. Its future is dropped when the thread ends.
    ///
    /// # Errors
    /// [`CallError::Busy`] if too many wait, [`CallError::Down`] if the thread has ended.
    pub fn submit<F, R>(&self, job: F) -> Result<(), CallError>
    where
        F: FnOnce(Rc<Link>) -> R + Send + 'static,
        R: Future<Output = ()> + 'static,
    {
        let job: Job = Box::new(move |link, guard| {
            let future = job(Rc::clone(link));
            drop(spawn_local(async move {
                let _at_work = guard;
                future.await;
            }));
        });
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                count(&self.counters.busy);
                CallError::Busy
            }
            mpsc::error::TrySendError::Closed(_) => CallError::Down,
        })
    }

    /// Whether calls are worth making. One load.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.counters.up.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.snapshot()
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // The thread may have gone already.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(
    config: Config,
    now: crate::link::Now,
    counters: Arc<Counters>,
    mut queue: mpsc::Receiver<Job>,
    mut stopped: watch::Receiver<bool>,
) {
    let Ok(endpoint) = Endpoint::new(&config) else { return };
    let link = Rc::new(Link::new(config, endpoint, now, Arc::clone(&counters)));
    let kept = Rc::clone(&link);
    let keeping = spawn_local(async move { kept.keep().await });
    let at_work = Rc::new(Cell::new(0_usize));
    loop {
        // Both branches are cancellation safe.
        let job = tokio::select! {
            biased;
            _ = stopped.changed() => break,
            job = queue.recv() => job,
        };
        let Some(job) = job else { break };
        if at_work.get() >= JOBS_MAX {
            // Dropping it closes its channel, which says enough.
            count(&counters.busy);
            continue;
        }
        at_work.set(at_work.get() + 1);
        job(&link, JobGuard(Rc::clone(&at_work)));
    }
    keeping.abort();
    counters.up.store(false, std::sync::atomic::Ordering::Relaxed);
}
