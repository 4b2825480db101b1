//! The orderly end: stop accepting, finish what runs, then close; a second signal means now.
//!
//! **Intuition.** Every connection holds a [`TaskGuard`]. When the process is told to end, everybody who watches hears
//! of it; whoever has work left does it, and the last guard dropped lets the process go.
//!
//! **Mechanism.** One flag, read with one relaxed load ([`DrainWatch::is_draining`]), and one wake-up list per watch, so
//! that the connections of one worker never contend with another's. The guards are one shared counter, touched once per
//! connection and not per request.
//!
//! **Failure.** What does not finish by the deadline, or is overtaken by [`Drain::force`], is reported as still open in
//! [`Finished`]; the process then ends anyway. Beginning twice is the same as beginning once.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

/// The process's end, held by whoever may begin it. Clones are the same end.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    shared: Arc<Shared>,
}

/// Hears of the end. Clones share one wake-up list; ask [`Drain::watch`] for one of its own per worker.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    shared: Arc<Shared>,
    changed: Arc<Notify>,
}

/// One piece of work that the end waits for. Dropping it says it is done.
#[derive(Debug)]
pub struct TaskGuard {
    shared: Arc<Shared>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// Everything was done in time.
    Clean,
    /// The deadline passed with this many guards still held.
    DeadlinePassed {
        /// Guards held at that moment.
        open: usize,
    },
    /// [`Drain::force`] was called with this many guards still held.
    Forced {
        /// Guards held at that moment.
        open: usize,
    },
}

#[derive(Debug, Default)]
struct Shared {
    draining: AtomicBool,
    forced: AtomicBool,
    open: AtomicUsize,
    /// Notified when `open` falls to zero.
    idle: Notify,
    /// One per watch that was asked for; as many as there are workers, and a few.
    watches: Mutex<Vec<Weak<Notify>>>,
}

impl Drain {
    /// An end that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the end. Idempotent.
    pub fn begin(&self) {
        self.shared.draining.store(true, Ordering::SeqCst);
        self.shared.notify_watches();
    }

    /// Ends without waiting any longer: what is open is cut. Begins the end if it has not begun.
    pub fn force(&self) {
        self.shared.forced.store(true, Ordering::SeqCst);
        self.begin();
    }

    /// True once [`begin`](Self::begin) was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// A watch with a wake-up list of its own.
    #[must_use]
    pub fn watch(&self) -> DrainWatch {
        let changed = Arc::new(Notify::new());
        let mut watches = self.shared.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|watch| watch.strong_count() > 0);
        watches.push(Arc::downgrade(&changed));
        drop(watches);
        DrainWatch { shared: Arc::clone(&self.shared), changed }
    }

    /// Counts a piece of work that the end must wait for.
    #[must_use]
    pub fn guard(&self) -> TaskGuard {
        TaskGuard::new(&self.shared)
    }

    /// Guards held now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Waits until no guard is held, `within` has passed, or the end is forced. Call it after [`begin`](Self::begin).
    ///
    /// Cancellation safe.
    pub async fn finished(&self, within: Duration) -> Finished {
        let watch = self.watch();
        tokio::select! {
            biased;
            () = self.idle() => Finished::Clean,
            () = watch.forced() => Finished::Forced { open: self.open() },
            () = tokio::time::sleep(within) => Finished::DeadlinePassed { open: self.open() },
        }
    }

    async fn idle(&self) {
        while self.open() > 0 {
            // A guard dropped between the test and this line left its permit in `idle`: no wake-up is lost.
            self.shared.idle.notified().await;
        }
    }
}

impl DrainWatch {
    /// True once the end has begun. One relaxed load: ask as often as you like.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// True once nobody waits any longer.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.shared.forced.load(Ordering::Relaxed)
    }

    /// Waits for the end to begin; returns at once if it has. Cancellation safe.
    pub async fn begun(&self) {
        self.wait_for(&self.shared.draining).await;
    }

    /// Waits for the end to be forced; returns at once if it has been. Cancellation safe.
    pub async fn forced(&self) {
        self.wait_for(&self.shared.forced).await;
    }

    /// Counts a piece of work that the end must wait for.
    #[must_use]
    pub fn guard(&self) -> TaskGuard {
        TaskGuard::new(&self.shared)
    }

    async fn wait_for(&self, flag: &AtomicBool) {
        loop {
            // Made before the flag is read: from here on it hears of `notify_waiters`, so no change in between is missed.
            let changed = self.changed.notified();
            if flag.load(Ordering::SeqCst) {
                return;
            }
            changed.await;
        }
    }
}

impl TaskGuard {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::SeqCst);
        Self { shared: Arc::clone(shared) }
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        if self.shared.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shared.idle.notify_one();
        }
    }
}

impl Shared {
    fn notify_watches(&self) {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        for watch in watches.iter().filter_map(Weak::upgrade) {
            watch.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_who_watches_hears_of_the_beginning() {
        let drain = Drain::new();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let watch = drain.watch();
                tokio::spawn(async move { watch.begun().await })
            })
            .collect();
        let late = drain.watch();
        assert!(!late.is_draining());
        tokio::task::yield_now().await;
        drain.begin();
        for task in waiting {
            task.await.unwrap();
        }
        assert!(late.is_draining());
        late.begun().await;
    }

    #[tokio::test]
    async fn clones_of_one_watch_are_all_woken() {
        let drain = Drain::new();
        let watch = drain.watch();
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let watch = watch.clone();
                tokio::spawn(async move { watch.begun().await })
            })
            .collect();
        tokio::task::yield_now().await;
        drain.begin();
        for task in waiting {
            task.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_the_last_guard() {
        let drain = Drain::new();
        let guards = [drain.guard(), drain.watch().guard()];
        drain.begin();
        let finished = tokio::spawn({
            let drain = drain.clone();
            async move { drain.finished(Duration::from_secs(30)).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(drain.open(), 2);
        assert!(!finished.is_finished());
        drop(guards);
        assert_eq!(finished.await.unwrap(), Finished::Clean);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_the_wait_and_says_what_was_open() {
        let drain = Drain::new();
        let _guard = drain.guard();
        drain.begin();
        let finished = drain.finished(Duration::from_secs(30)).await;
        assert_eq!(finished, Finished::DeadlinePassed { open: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn force_ends_the_wait_at_once() {
        let drain = Drain::new();
        let watch = drain.watch();
        let _guard = drain.guard();
        drain.begin();
        let finished = tokio::spawn({
            let drain = drain.clone();
            async move { drain.finished(Duration::from_secs(30)).await }
        });
        tokio::task::yield_now().await;
        assert!(!watch.is_forced());
        drain.force();
        assert_eq!(finished.await.unwrap(), Finished::Forced { open: 1 });
        watch.forced().await;
    }

    #[tokio::test(start_paused = true)]
    async fn guards_that_came_and_went_before_the_end_leave_it_clean() {
        let drain = Drain::new();
        drop(drain.guard());
        drop(drain.guard());
        let guard = drain.guard();
        drain.begin();
        let finished = drain.finished(Duration::from_secs(1));
        drop(guard);
        assert_eq!(finished.await, Finished::Clean);
    }
}
