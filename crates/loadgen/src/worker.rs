//! One sending thread: starts each request when it is due, on a connection that is free.
//!
//! **Intuition.** The pacer is a metronome that never looks at the target. It hands each due request to an idle
//! connection, opens one if there is none, lets the request wait if no more may be opened, and drops it if too many
//! wait already. What the target does with its requests changes the report, never the beat.
//!
//! **Mechanism.** Each connection is a task with a [`Slot`]: the pacer puts a [`Job`] there and wakes it. A task that
//! is done takes the next waiting job or lies down on the idle stack (last in, first out: few warm connections for
//! little traffic, as a pool has), where it also notices the server closing. Timeouts need no timer per request: a
//! tick every 50 ms looks at the deadlines of all slots and of the queue's front.
//!
//! **Failure.** Connections, waiting jobs and their time are bounded ([`crate::ClientConfig`]). A thread that falls
//! behind starts what is overdue at once and shows it as `lag`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::hash::{DefaultHasher, Hasher as _};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tenfold_http1::Method;
use tenfold_service::clock::Clock;
use tokio::io::{AsyncRead as _, ReadBuf};

use crate::mix::{Mix, RoutePlan};
use crate::outcome::Failure;
use crate::plan::ClientConfig;
use crate::recorder::{Ended, Recorder};
use crate::target::Target;
use crate::template::Fill;
use crate::wire::{Answer, Body, Broken, Wire};

/// How often deadlines are looked at: timeouts are this much late at most.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// One request to be made: everything about it follows from these.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    /// Its number in the run.
    pub(crate) number: u64,
    pub(crate) intended: Duration,
    /// The key trace's rank, if its route needs one.
    pub(crate) rank: u32,
    pub(crate) route: u16,
}

/// Where the pacer and a connection's task meet.
#[derive(Debug, Default)]
struct Slot {
    job: Cell<Option<Job>>,
    waker: RefCell<Option<Waker>>,
    /// Of the job under way, from the start of the run.
    deadline: Cell<Option<Duration>>,
    is_overdue: Cell<bool>,
    /// Where it stands in its pool's `slots`.
    index: Cell<usize>,
}

/// Connections to one target.
#[derive(Debug)]
struct Pool {
    target: Target,
    /// All open connections; at most `connections_max`.
    slots: Vec<Rc<Slot>>,
    /// Those without a job, warmest last.
    idle: Vec<Rc<Slot>>,
    /// Jobs without a connection; at most `queue_max`.
    queue: VecDeque<Job>,
}

/// What the tasks of one thread share.
#[derive(Debug)]
pub(crate) struct Worker {
    mix: Rc<Mix>,
    config: ClientConfig,
    /// This thread's share for one target.
    connections_max: usize,
    queue_max: usize,
    clock: Clock,
    start: Instant,
    pools: Vec<RefCell<Pool>>,
    pub(crate) recorder: RefCell<Recorder>,
}

impl Worker {
    pub(crate) fn new(
        mix: Rc<Mix>,
        config: &ClientConfig,
        targets: &[Target],
        recorder: Recorder,
        clock: Clock,
        start: Instant,
    ) -> Self {
        let pool = |target: &Target| Pool {
            target: target.clone(),
            slots: Vec::new(),
            idle: Vec::new(),
            queue: VecDeque::new(),
        };
        let shares = config.threads * targets.len();
        Self {
            mix,
            config: config.clone(),
            connections_max: (config.connections_max / shares).max(1),
            queue_max: config.queue_max / shares,
            clock,
            start,
            pools: targets.iter().map(pool).map(RefCell::new).collect(),
            recorder: RefCell::new(recorder),
        }
    }

    /// Since the start of the run.
    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.start)
    }

    /// Starts a job that is due. Must run within the thread's local runtime.
    pub(crate) fn dispatch(self: &Rc<Self>, job: Job, elapsed: Duration) {
        let lag = elapsed.saturating_sub(job.intended);
        self.recorder.borrow_mut().offered(job.route, micros(lag));
        let pool_index = self.pool_of(job.number);
        let mut pool = self.pools[pool_index].borrow_mut();
        if let Some(slot) = pool.idle.pop() {
            slot.job.set(Some(job));
            slot.wake();
        } else if pool.slots.len() < self.connections_max {
            let slot = Rc::new(Slot::default());
            slot.index.set(pool.slots.len());
            pool.slots.push(Rc::clone(&slot));
            tokio::task::spawn_local(Rc::clone(self).serve(pool_index, slot, job));
        } else if pool.queue.len() < self.queue_max {
            pool.queue.push_back(job);
        } else {
            drop(pool);
            self.never_sent(job, Failure::Overflow);
        }
    }

    /// Wakes the connections whose request is overdue, and gives up the waiting jobs that are.
    pub(crate) fn expire(&self) {
        let elapsed = self.elapsed();
        for pool in &self.pools {
            let overdue = |slot: &&Rc<Slot>| slot.deadline.get().is_some_and(|deadline| deadline <= elapsed);
            for slot in pool.borrow().slots.iter().filter(overdue) {
                slot.is_overdue.set(true);
                slot.wake();
            }
            while let Some(job) = pool.borrow_mut().pop_overdue(elapsed, self.config.timeout()) {
                self.never_sent(job, Failure::Timeout);
            }
        }
    }

    fn pool_of(&self, number: u64) -> usize {
        let pools = u64::try_from(self.pools.len()).expect("usize fits u64");
        usize::try_from(number % pools).expect("below the number of pools")
    }

    /// A connection's life: jobs, until it is closed with none waiting.
    async fn serve(self: Rc<Self>, pool: usize, slot: Rc<Slot>, first: Job) {
        let mut wire = Wire::new();
        let mut next = Some(first);
        while let Some(job) = next {
            self.play(pool, &slot, &mut wire, job).await;
            next = self.next_job(pool, &slot, &mut wire).await;
        }
        self.pools[pool].borrow_mut().forget(&slot);
    }

    /// A waiting job, or the pacer's next; None when the connection is gone and nothing waits.
    async fn next_job(&self, pool: usize, slot: &Rc<Slot>, wire: &mut Wire) -> Option<Job> {
        {
            let mut pool = self.pools[pool].borrow_mut();
            if let Some(job) = pool.queue.pop_front() {
                return Some(job);
            }
            wire.stream.as_ref()?;
            pool.idle.push(Rc::clone(slot));
        }
        let job = std::future::poll_fn(|cx| slot.poll_job(cx, wire)).await;
        if job.is_none() {
            self.pools[pool].borrow_mut().idle.retain(|idle| !Rc::ptr_eq(idle, slot));
        }
        job
    }

    /// Makes one request and records how it ended.
    async fn play(&self, pool: usize, slot: &Slot, wire: &mut Wire, job: Job) {
        let Mix { routes, .. } = &*self.mix;
        let route = &routes[usize::from(job.route)];
        let target = self.render(pool, route, wire, job);
        slot.is_overdue.set(false);
        slot.deadline.set(Some(job.intended + self.config.timeout()));
        let started = Cell::new(None);
        let attempt = self.attempt(pool, route, wire, &started);
        let outcome = slot.unless_overdue(attempt).await;
        slot.deadline.set(None);
        if outcome.is_err() {
            wire.stream = None;
        }
        let ended_us = micros(self.elapsed());
        self.recorder.borrow_mut().ended(&Ended {
            route: job.route,
            intended_us: micros(job.intended),
            started_us: started.get().unwrap_or(ended_us),
            ended_us,
            target,
            answer: outcome.ok().map(|answer| (answer.status, answer.bytes)),
            failure: match outcome {
                Ok(answer) if route.expects(answer.status) => None,
                Ok(answer) => Some(Failure::of_status(answer.status)),
                Err(failure) => Some(failure),
            },
        });
    }

    /// One request, connected first if need be, and once more if a kept connection proves closed.
    async fn attempt(
        &self,
        pool: usize,
        route: &RoutePlan,
        wire: &mut Wire,
        started: &Cell<Option<u64>>,
    ) -> Result<Answer, Failure> {
        let was_kept = wire.stream.is_some();
        if !was_kept {
            self.connect(pool, wire).await?;
        }
        started.set(Some(micros(self.elapsed())));
        let broken = match self.exchange(route, wire).await {
            Ok(answer) => return Ok(answer),
            Err(broken) => broken,
        };
        if !(was_kept && self.may_reconnect(route.method, broken)) {
            return Err(broken.failure);
        }
        self.recorder.borrow_mut().tally.reconnects += 1;
        self.connect(pool, wire).await?;
        self.exchange(route, wire).await.map_err(|broken| broken.failure)
    }

    /// Whether a real client would quietly try again: the server closed a kept connection just as we used it.
    fn may_reconnect(&self, method: Method, broken: Broken) -> bool {
        let is_closed = matches!(broken.failure, Failure::Closed | Failure::Reset);
        let is_harmless = matches!(method, Method::Get | Method::Head);
        self.config.reconnect && is_closed && !broken.was_answered && is_harmless
    }

    async fn connect(&self, pool: usize, wire: &mut Wire) -> Result<(), Failure> {
        self.recorder.borrow_mut().tally.connections += 1;
        let address = self.pools[pool].borrow().target.address;
        wire.connect(address).await
    }

    async fn exchange(&self, route: &RoutePlan, wire: &mut Wire) -> Result<Answer, Broken> {
        let wanted = &self.mix.count_headers;
        wire.exchange(route.method, Body::Drop, |head| {
            if !wanted.is_empty() {
                self.recorder.borrow_mut().head(wanted, &head.fields);
            }
        })
        .await
    }

    /// Renders the job's request into the wire's buffer; returns the hash of its target.
    fn render(&self, pool: usize, route: &RoutePlan, wire: &mut Wire, job: Job) -> u64 {
        wire.request.clear();
        let fill = self.mix.fill(job);
        let target = route.templates[pool].render(&fill, &mut wire.request, &mut wire.scratch);
        hash(&wire.request[target])
    }

    /// Ends a job that no connection ever had.
    fn never_sent(&self, job: Job, failure: Failure) {
        let ended_us = micros(self.elapsed());
        let pool = self.pool_of(job.number);
        let route = &self.mix.routes[usize::from(job.route)];
        let fill: Fill<'_> = self.mix.fill(job);
        let mut request = Vec::new();
        let target = route.templates[pool].render(&fill, &mut request, &mut Vec::new());
        self.recorder.borrow_mut().ended(&Ended {
            route: job.route,
            intended_us: micros(job.intended),
            started_us: ended_us,
            ended_us,
            target: hash(&request[target]),
            answer: None,
            failure: Some(failure),
        });
    }
}

impl Pool {
    /// The waiting job that has waited longest, if for too long. The queue is in the order of intended starts.
    fn pop_overdue(&mut self, elapsed: Duration, timeout: Duration) -> Option<Job> {
        let is_overdue = self.queue.front()?.intended + timeout <= elapsed;
        if is_overdue { self.queue.pop_front() } else { None }
    }

    fn forget(&mut self, slot: &Rc<Slot>) {
        let index = slot.index.get();
        self.slots.swap_remove(index);
        if let Some(moved) = self.slots.get(index) {
            moved.index.set(index);
        }
    }
}

impl Slot {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn remember(&self, waker: &Waker) {
        let mut remembered = self.waker.borrow_mut();
        match &mut *remembered {
            Some(known) => known.clone_from(waker),
            None => *remembered = Some(waker.clone()),
        }
    }

    /// Ready with a job, or with None when the server closed the connection or said something unasked.
    fn poll_job(&self, cx: &mut Context<'_>, wire: &mut Wire) -> Poll<Option<Job>> {
        if let Some(job) = self.job.take() {
            return Poll::Ready(Some(job));
        }
        self.remember(cx.waker());
        let Some(stream) = &mut wire.stream else { return Poll::Ready(None) };
        let mut unasked = [0_u8; 1];
        match pin!(stream).poll_read(cx, &mut ReadBuf::new(&mut unasked)) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The future's output, or a timeout as soon as the tick has found the deadline passed.
    async fn unless_overdue<T>(
        &self,
        future: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            if self.is_overdue.get() {
                return Poll::Ready(Err(Failure::Timeout));
            }
            self.remember(cx.waker());
            future.as_mut().poll(cx)
        })
        .await
    }
}

/// Microseconds, saturating: runs last a day at most.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn hash(target: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(target);
    hasher.finish()
}
