//! Deadlines that almost never happen, for almost nothing.
//!
//! **Intuition.** Every request sets several deadlines and nearly all of them are moved or dropped long before they
//! strike. So setting one is a store into a cell, and only a task that really goes to sleep on its timer is filed in a
//! wheel; one sleep of the runtime serves the whole worker, in ticks of [`TICK_MS`] milliseconds.
//!
//! **Mechanism.** A [`Timer`] holds its deadline as a tick. [`Timer::poll_expired`], when it has to wait, files the timer
//! in a ring of `BUCKETS` buckets, at its deadline or at the ring's horizon if that is nearer. When a bucket comes up,
//! each timer in it has struck (its task is woken), was moved to later (it is filed again) or was disarmed (it is
//! forgotten until somebody waits again). Re-arming for later therefore costs nothing while asleep. A timer knows its
//! place in its bucket, so dropping it takes it out at once: the ring holds living timers only.
//!
//! **Failure.** A timer strikes up to one tick late, and later if the worker is busy; never early. Arming for *earlier*
//! than before takes effect at the next poll: a timer belongs to the one task that polls it.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::clock::Clock;

/// Granularity of all timers. Twenty wake-ups a second cost a worker nothing that can be measured, and no timeout that a
/// user configures is finer.
pub const TICK_MS: u64 = 50;

const TICK_NS: u32 = 50_000_000;
const _: () =
    assert!(TICK_NS as u64 == TICK_MS * 1_000_000 && 1_000 % TICK_MS == 0, "a second is whole ticks");

/// Ring of 51.2 s: the usual timeouts are filed once, longer ones once per turn.
const BUCKETS: usize = 1_024;

/// A deadline that never comes.
const DISARMED: u64 = u64::MAX;

/// Further away than any clock reaches, though armed.
const NEVER: u64 = DISARMED - 1;

/// The timers of one worker. Clones are the same wheel.
#[derive(Clone, Debug)]
pub struct Timers {
    wheel: Rc<Wheel>,
}

/// One deadline of one task.
#[derive(Debug)]
pub struct Timer {
    wheel: Rc<Wheel>,
    entry: Rc<Entry>,
}

#[derive(Debug)]
struct Wheel {
    clock: Clock,
    started: Instant,
    /// The last tick whose bucket was emptied; what is due by it has struck.
    tick: Cell<u64>,
    buckets: RefCell<Vec<Vec<Rc<Entry>>>>,
    /// Entries in all buckets.
    filed: Cell<usize>,
    /// Woken when the first entry is filed: the sleep that drives the wheel begins.
    driver: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Entry {
    /// Tick at which it strikes, or [`DISARMED`].
    deadline: Cell<u64>,
    place: Cell<Option<Place>>,
    waker: RefCell<Option<Waker>>,
}

/// Where an entry is filed: `buckets[tick % BUCKETS][position]`.
#[derive(Clone, Copy, Debug)]
struct Place {
    tick: u64,
    position: usize,
}

impl Timers {
    /// An empty wheel. Nothing strikes until [`drive`](Self::drive) runs.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let started = clock.now();
        let wheel = Wheel {
            clock,
            started,
            tick: Cell::new(0),
            buckets: RefCell::new((0..BUCKETS).map(|_| Vec::new()).collect()),
            filed: Cell::new(0),
            driver: RefCell::new(None),
        };
        Self { wheel: Rc::new(wheel) }
    }

    /// A timer that is not armed.
    #[must_use]
    pub fn timer(&self) -> Timer {
        let entry =
            Entry { deadline: Cell::new(DISARMED), place: Cell::new(None), waker: RefCell::new(None) };
        Timer { wheel: Rc::clone(&self.wheel), entry: Rc::new(entry) }
    }

    /// Timers that a task sleeps on now.
    #[must_use]
    pub fn filed(&self) -> usize {
        self.wheel.filed.get()
    }

    /// Wakes whatever is due by `now`. Called by [`drive`](Self::drive); tests call it themselves.
    pub fn advance(&self, now: Instant) {
        self.wheel.advance(now);
    }

    /// Turns the wheel, for ever: sleeps a tick at a time while a timer is filed, and without end while none is. Each
    /// worker runs one of these.
    pub async fn drive(&self) {
        loop {
            self.wheel.first_filed().await;
            tokio::time::sleep(Duration::from_millis(TICK_MS)).await;
            self.advance(self.wheel.clock.now());
        }
    }
}

impl Timer {
    /// Sets the deadline `after` from now, whether or not one was set.
    pub fn arm(&self, after: Duration) {
        match self.wheel.clock.now().checked_add(after) {
            Some(deadline) => self.arm_at(deadline),
            None => self.entry.deadline.set(NEVER),
        }
    }

    /// Sets the deadline: for callers who have read the clock already.
    pub fn arm_at(&self, deadline: Instant) {
        self.entry.deadline.set(self.wheel.tick_after(deadline));
    }

    /// Takes the deadline away: the timer never strikes.
    pub fn disarm(&self) {
        self.entry.deadline.set(DISARMED);
    }

    /// True if a deadline is set, past or not.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.entry.deadline.get() != DISARMED
    }

    /// Ready once the deadline has passed, and then until the timer is armed anew. Pending registers the task's waker.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.wheel.poll(&self.entry, cx)
    }

    /// Waits for the deadline. Cancellation safe; never ends while disarmed.
    pub async fn expired(&self) {
        poll_fn(|cx| self.poll_expired(cx)).await;
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.wheel.unfile(&self.entry);
    }
}

impl Wheel {
    fn poll(&self, entry: &Rc<Entry>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = entry.deadline.get();
        if deadline == DISARMED {
            // Only so that arming and polling again finds it; nothing has to be filed.
            return Poll::Pending;
        }
        if self.filed.get() == 0 {
            // The wheel stood still while nobody waited: bring it up to now before filing relative to it.
            self.tick.set(self.tick_at(self.clock.now()).max(self.tick.get()));
        }
        if deadline <= self.tick.get() {
            return Poll::Ready(());
        }
        entry.keep_waker(cx.waker());
        match entry.place.get() {
            // Filed early enough: when that bucket comes up, the entry is filed again if it is not due.
            Some(place) if place.tick <= deadline => {}
            Some(_) => {
                self.unfile(entry);
                self.file(entry);
            }
            None => self.file(entry),
        }
        Poll::Pending
    }

    fn file(&self, entry: &Rc<Entry>) {
        let tick = entry.deadline.get().min(self.tick.get() + BUCKETS as u64 - 1);
        let mut buckets = self.buckets.borrow_mut();
        let bucket = &mut buckets[bucket_of(tick)];
        entry.place.set(Some(Place { tick, position: bucket.len() }));
        bucket.push(Rc::clone(entry));
        drop(buckets);
        self.filed.set(self.filed.get() + 1);
        if self.filed.get() == 1
            && let Some(driver) = self.driver.take()
        {
            driver.wake();
        }
    }

    fn unfile(&self, entry: &Entry) {
        let Some(place) = entry.place.take() else { return };
        let mut buckets = self.buckets.borrow_mut();
        let bucket = &mut buckets[bucket_of(place.tick)];
        let removed = bucket.swap_remove(place.position);
        debug_assert!(std::ptr::eq(&*removed, entry), "an entry is where its place says");
        if let Some(moved) = bucket.get(place.position) {
            moved.place.set(Some(Place { tick: place.tick, position: place.position }));
        }
        self.filed.set(self.filed.get() - 1);
    }

    fn advance(&self, now: Instant) {
        let target = self.tick_at(now);
        // After a stall longer than the ring, one turn visits every bucket.
        let first = (self.tick.get() + 1).max((target + 1).saturating_sub(BUCKETS as u64));
        for tick in first..=target {
            self.tick.set(tick);
            self.empty_bucket(tick, target);
        }
        self.tick.set(target.max(self.tick.get()));
    }

    /// Wakes, files again or forgets each entry of one bucket.
    fn empty_bucket(&self, tick: u64, target: u64) {
        let due = std::mem::take(&mut self.buckets.borrow_mut()[bucket_of(tick)]);
        self.filed.set(self.filed.get() - due.len());
        for entry in &due {
            entry.place.set(None);
        }
        for entry in due {
            match entry.deadline.get() {
                DISARMED => drop(entry.waker.take()),
                deadline if deadline <= target => entry.wake(),
                _ => self.file(&entry),
            }
        }
    }

    /// Ready once at least one entry is filed. Polled by the driver only.
    async fn first_filed(&self) {
        poll_fn(|cx| {
            if self.filed.get() > 0 {
                return Poll::Ready(());
            }
            self.driver.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// The tick that `instant` lies in.
    fn tick_at(&self, instant: Instant) -> u64 {
        let elapsed = instant.saturating_duration_since(self.started);
        ticks_of_seconds(elapsed).saturating_add(u64::from(elapsed.subsec_nanos() / TICK_NS))
    }

    /// The first tick that begins at `instant` or later: what is due at it is not woken early.
    fn tick_after(&self, instant: Instant) -> u64 {
        let elapsed = instant.saturating_duration_since(self.started);
        let tick =
            ticks_of_seconds(elapsed).saturating_add(u64::from(elapsed.subsec_nanos().div_ceil(TICK_NS)));
        tick.min(NEVER)
    }
}

/// Ticks in the whole seconds of a duration. (Arming is hot; 128-bit nanoseconds would cost more than reading the clock.)
fn ticks_of_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000 / TICK_MS)
}

impl Entry {
    fn keep_waker(&self, waker: &Waker) {
        let mut kept = self.waker.borrow_mut();
        match &mut *kept {
            Some(kept) => kept.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    fn wake(&self) {
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn bucket_of(tick: u64) -> usize {
    usize::try_from(tick % BUCKETS as u64).expect("below the number of buckets")
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A task that only counts how often it is woken.
    #[derive(Default)]
    struct Task {
        woken: AtomicUsize,
    }

    impl std::task::Wake for Task {
        fn wake(self: Arc<Self>) {
            self.woken.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Bench {
        clock: Clock,
        timers: Timers,
        task: Arc<Task>,
    }

    impl Bench {
        fn new() -> Self {
            let clock = Clock::manual();
            Self { timers: Timers::new(clock.clone()), clock, task: Arc::default() }
        }

        fn timer(&self, after: Duration) -> Timer {
            let timer = self.timers.timer();
            timer.arm(after);
            timer
        }

        fn has_expired(&self, timer: &Timer) -> bool {
            timer.poll_expired(&mut Context::from_waker(&Arc::clone(&self.task).into())).is_ready()
        }

        fn woken(&self) -> usize {
            self.task.woken.load(Ordering::Relaxed)
        }

        /// Time passes, and the driver wakes up once at its end.
        fn pass(&self, time: Duration) {
            self.clock.advance(time);
            self.timers.advance(self.clock.now());
        }
    }

    #[test]
    fn it_strikes_within_one_tick_and_never_early() {
        fn check(after: Duration) {
            let bench = Bench::new();
            bench.clock.advance(Duration::from_millis(7));
            let timer = bench.timer(after);
            assert!(!bench.has_expired(&timer));
            bench.pass(after.saturating_sub(Duration::from_nanos(1)));
            assert!(!bench.has_expired(&timer), "{after:?}");
            assert_eq!(bench.woken(), 0, "{after:?}");
            bench.pass(Duration::from_millis(TICK_MS));
            assert_eq!(bench.woken(), 1, "{after:?}");
            assert!(bench.has_expired(&timer), "{after:?}");
            assert!(bench.has_expired(&timer), "it stays expired");
            assert_eq!(bench.timers.filed(), 0);
        }
        check(Duration::from_millis(1));
        check(Duration::from_millis(50));
        check(Duration::from_millis(51));
        check(10 * SECOND);
        check(51 * SECOND);
        check(600 * SECOND);
        check(100_000 * SECOND);
    }

    #[test]
    fn arming_alone_files_nothing() {
        let bench = Bench::new();
        let timer = bench.timer(SECOND);
        timer.arm(2 * SECOND);
        assert!(timer.is_armed());
        assert_eq!(bench.timers.filed(), 0);
        bench.pass(3 * SECOND);
        assert!(bench.has_expired(&timer));
        assert_eq!((bench.timers.filed(), bench.woken()), (0, 0));
    }

    #[test]
    fn moving_it_to_later_does_not_touch_the_wheel() {
        let bench = Bench::new();
        let timer = bench.timer(SECOND);
        assert!(!bench.has_expired(&timer));
        let place = timer.entry.place.get().unwrap();
        timer.arm(5 * SECOND);
        assert!(!bench.has_expired(&timer));
        assert_eq!(timer.entry.place.get().unwrap().tick, place.tick);
        bench.pass(4 * SECOND);
        assert_eq!((bench.woken(), bench.timers.filed()), (0, 1));
        bench.pass(SECOND);
        assert_eq!((bench.woken(), bench.timers.filed()), (1, 0));
    }

    #[test]
    fn moving_it_to_earlier_takes_effect_at_the_next_poll() {
        let bench = Bench::new();
        let timer = bench.timer(60 * SECOND);
        assert!(!bench.has_expired(&timer));
        timer.arm(SECOND);
        assert!(!bench.has_expired(&timer));
        bench.pass(SECOND);
        assert_eq!(bench.woken(), 1);
        assert!(bench.has_expired(&timer));
    }

    #[test]
    fn a_disarmed_timer_never_strikes() {
        let bench = Bench::new();
        let timer = bench.timer(SECOND);
        assert!(!bench.has_expired(&timer));
        timer.disarm();
        bench.pass(100 * SECOND);
        assert_eq!((bench.woken(), bench.timers.filed()), (0, 0));
        assert!(!bench.has_expired(&timer));
        timer.arm(SECOND);
        assert!(!bench.has_expired(&timer));
        bench.pass(SECOND);
        assert_eq!(bench.woken(), 1);
    }

    #[test]
    fn a_dropped_timer_leaves_the_wheel_at_once_and_the_others_alone() {
        let bench = Bench::new();
        let mut timers: Vec<_> = (0..10).map(|_| bench.timer(SECOND)).collect();
        assert!(timers.iter().all(|timer| !bench.has_expired(timer)));
        for position in [0, 4, 7, 0] {
            timers.remove(position);
        }
        assert_eq!(bench.timers.filed(), 6);
        bench.pass(SECOND);
        assert_eq!(bench.woken(), 6);
        assert!(timers.iter().all(|timer| bench.has_expired(timer)));
    }

    #[test]
    fn the_longest_duration_is_never() {
        let bench = Bench::new();
        let timer = bench.timer(Duration::MAX);
        assert!(timer.is_armed() && !bench.has_expired(&timer));
        bench.pass(1_000_000 * SECOND);
        assert!(!bench.has_expired(&timer));
    }

    #[tokio::test(start_paused = true)]
    async fn the_driver_sleeps_without_end_while_nothing_is_filed() {
        let bench = Bench::new();
        let driver = bench.timers.clone();
        let wheel = Rc::clone(&bench.timers.wheel);
        let is_idle = || wheel.driver.borrow().is_some();
        let scenario = async {
            tokio::task::yield_now().await;
            assert!(is_idle());
            let timer = bench.timer(Duration::from_millis(120));
            let expired = timer.expired();
            let time = async {
                // The test's clock goes along with the runtime's, which only the driver's sleep moves.
                for _ in 0..3 {
                    tokio::time::sleep(Duration::from_millis(TICK_MS)).await;
                    bench.clock.advance(Duration::from_millis(TICK_MS));
                }
            };
            tokio::join!(expired, time);
            tokio::task::yield_now().await;
            assert!(is_idle());
        };
        tokio::select! {
            () = driver.drive() => unreachable!("it drives for ever"),
            () = scenario => {}
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arm(usize, u64),
        Disarm(usize),
        Poll(usize),
        Replace(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..5_usize, 0..200_000_u64).prop_map(|(timer, ms)| Step::Arm(timer, ms)),
            1 => (0..5_usize).prop_map(Step::Disarm),
            4 => (0..5_usize).prop_map(Step::Poll),
            1 => (0..5_usize).prop_map(Step::Replace),
            3 => (0..30_000_u64).prop_map(Step::Pass),
            1 => (0..300_000_u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Against the plainest model: a deadline per timer, and whether its task sleeps on it.
        #[test]
        fn sleepers_are_woken_when_due_and_the_wheel_holds_no_others(steps in prop::collection::vec(step(), 1..200)) {
            let bench = Bench::new();
            let tasks: Vec<Arc<Task>> = (0..5).map(|_| Arc::default()).collect();
            let mut timers: Vec<Timer> = (0..5).map(|_| bench.timers.timer()).collect();
            let mut deadlines: Vec<Option<Instant>> = vec![None; 5];
            // Woken counts at the moment the task went to sleep on its present deadline.
            let mut asleep: Vec<Option<usize>> = vec![None; 5];
            for step in steps {
                match step {
                    Step::Arm(timer, after_ms) => {
                        timers[timer].arm(Duration::from_millis(after_ms));
                        deadlines[timer] = Some(bench.clock.now() + Duration::from_millis(after_ms));
                        asleep[timer] = None;
                    }
                    Step::Disarm(timer) => {
                        timers[timer].disarm();
                        (deadlines[timer], asleep[timer]) = (None, None);
                    }
                    Step::Replace(timer) => {
                        timers[timer] = bench.timers.timer();
                        (deadlines[timer], asleep[timer]) = (None, None);
                    }
                    Step::Poll(timer) => {
                        let waker = Arc::clone(&tasks[timer]).into();
                        let is_ready = timers[timer].poll_expired(&mut Context::from_waker(&waker)).is_ready();
                        let is_due = deadlines[timer].is_some_and(|deadline| deadline <= bench.clock.now());
                        prop_assert!(!is_ready || is_due, "early");
                        asleep[timer] = (!is_ready).then(|| tasks[timer].woken.load(Ordering::Relaxed));
                    }
                    Step::Pass(time_ms) => bench.pass(Duration::from_millis(time_ms)),
                }
                let tick = Duration::from_millis(TICK_MS);
                for timer in 0..5 {
                    let is_overdue = deadlines[timer].is_some_and(|deadline| deadline + tick <= bench.clock.now());
                    if let (true, Some(woken_before)) = (is_overdue, asleep[timer]) {
                        prop_assert!(tasks[timer].woken.load(Ordering::Relaxed) > woken_before, "slept through");
                    }
                }
                prop_assert!(bench.timers.filed() <= 5);
                let in_buckets: usize = bench.timers.wheel.buckets.borrow().iter().map(Vec::len).sum();
                prop_assert_eq!(bench.timers.filed(), in_buckets);
            }
            timers.clear();
            prop_assert_eq!(bench.timers.filed(), 0);
        }
    }
}
