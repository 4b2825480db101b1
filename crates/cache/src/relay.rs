//! One cross-thread wake per core, however many follow.
//!
//! **Intuition.** Waking a task on another thread costs a system call; waking one on the own thread costs a push onto
//! its queue. When a thousand requests on another core wait for one response, that core should be woken once and wake
//! its thousand itself.
//!
//! **Mechanism.** Each worker runs one [`Relay`] for as long as it lives. A fill hands a worker's waiting wakers to the
//! worker's queue and wakes the relay, which wakes them on its own thread. The relay is a task of its own rather than
//! one of the followers, because a follower that is busy elsewhere, or gone, would leave the others asleep.
//!
//! **Failure.** A worker without a relay (not started yet, stopped, an index out of range) has its wakers woken directly:
//! slower, never lost. A dropped relay wakes what it still held. The queue holds what follows a fill on that worker.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Workers that can have a relay.
const WORKERS_MAX: usize = 256;

/// Wakes followers on its worker's thread. A future that never ends: spawn it on the worker, once.
#[derive(Debug)]
pub struct Relay {
    relays: Arc<Relays>,
    worker: usize,
}

/// The queues of all workers.
#[derive(Debug)]
pub(crate) struct Relays {
    queues: Box<[Mutex<Queue>]>,
}

#[derive(Debug, Default)]
struct Queue {
    /// How many relays serve this queue; normally one.
    relays: usize,
    /// The relay's own task.
    task: Option<Waker>,
    pending: Vec<Waker>,
}

impl Relays {
    pub(crate) fn new() -> Self {
        Self { queues: (0..WORKERS_MAX).map(|_| Mutex::default()).collect() }
    }

    /// Registers a relay for a worker.
    pub(crate) fn relay(self: &Arc<Self>, worker: usize) -> Relay {
        if let Some(mut queue) = self.queue(worker) {
            queue.relays += 1;
        }
        Relay { relays: Arc::clone(self), worker }
    }

    /// Wakes everyone, through the worker's relay unless this already is that worker's thread.
    pub(crate) fn wake(&self, worker: usize, on_this_thread: bool, wakers: Vec<Waker>) {
        if wakers.is_empty() {
            return;
        }
        if on_this_thread || wakers.len() == 1 {
            return wakers.into_iter().for_each(Waker::wake);
        }
        let Some(mut queue) = self.queue(worker).filter(|queue| queue.relays > 0) else {
            return wakers.into_iter().for_each(Waker::wake);
        };
        if queue.pending.is_empty() {
            queue.pending = wakers;
        } else {
            queue.pending.extend(wakers);
        }
        let task = queue.task.take();
        drop(queue);
        if let Some(task) = task {
            task.wake();
        }
    }

    fn queue(&self, worker: usize) -> Option<MutexGuard<'_, Queue>> {
        Some(self.queues.get(worker)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Future for Relay {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(mut queue) = self.relays.queue(self.worker) else { return Poll::Pending };
        let pending = std::mem::take(&mut queue.pending);
        queue.task = Some(cx.waker().clone());
        drop(queue);
        pending.into_iter().for_each(Waker::wake);
        Poll::Pending
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let Some(mut queue) = self.relays.queue(self.worker) else { return };
        queue.relays = queue.relays.saturating_sub(1);
        let pending = std::mem::take(&mut queue.pending);
        drop(queue);
        pending.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn wakers(count: usize) -> (Arc<Woken>, Vec<Waker>) {
        let woken = Arc::new(Woken::default());
        let wakers = (0..count).map(|_| Waker::from(Arc::clone(&woken))).collect();
        (woken, wakers)
    }

    #[test]
    fn many_waiters_cost_one_wake_of_the_relay() {
        let relays = Arc::new(Relays::new());
        let mut relay = relays.relay(1);
        let (relay_woken, task) = wakers(1);
        assert!(Pin::new(&mut relay).poll(&mut Context::from_waker(&task[0])).is_pending());
        let (woken, waiting) = wakers(100);
        relays.wake(1, false, waiting);
        assert_eq!((relay_woken.0.load(Ordering::SeqCst), woken.0.load(Ordering::SeqCst)), (1, 0));
        assert!(Pin::new(&mut relay).poll(&mut Context::from_waker(&task[0])).is_pending());
        assert_eq!(woken.0.load(Ordering::SeqCst), 100);
    }

    #[test]
    fn nobody_sleeps_without_a_relay() {
        let relays = Arc::new(Relays::new());
        for worker in [0, 255, 256, usize::MAX] {
            let (woken, waiting) = wakers(3);
            relays.wake(worker, false, waiting);
            assert_eq!(woken.0.load(Ordering::SeqCst), 3);
        }
        let relay = relays.relay(2);
        let (woken, waiting) = wakers(3);
        relays.wake(2, false, waiting);
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        drop(relay);
        assert_eq!(woken.0.load(Ordering::SeqCst), 3);
    }
}
