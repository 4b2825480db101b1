//! Fills under threads: nobody sleeps for ever, nobody reads anything but the body.
//!
//! Each follower is a future on a small executor of its worker's thread; the fill runs on another. A wake-up that got
//! lost would leave its thread parked, which the deadline turns into a failure.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Wake;
use std::time::Duration;

use super::*;
use crate::cache::{Join, Lookup};
use crate::{Config, KeyBuf, KeyUrl, Relay, Scheme};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const FRESH: Field<'_> = (b"Cache-Control", b"max-age=60");
/// Far beyond what any round takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn build(key: &mut KeyBuf, path: &[u8]) {
    let url = KeyUrl { scheme: Scheme::Http, authority: b"shop.example", path, query: None, chosen_by: b"" };
    key.build(&url, &RequestFacts::read("GET", &[]), &Rule::Respect);
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Runs a fixed set of tasks on one thread, polling only what was woken.
struct Executor {
    tasks: Vec<Option<Task>>,
    woken: Receiver<usize>,
    wake: Sender<usize>,
    wakes_from_elsewhere: Arc<AtomicUsize>,
    thread: std::thread::ThreadId,
}

struct TaskWaker {
    task: usize,
    queued: AtomicBool,
    wake: Sender<usize>,
    thread: std::thread::ThreadId,
    wakes_from_elsewhere: Arc<AtomicUsize>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if std::thread::current().id() != self.thread {
            self.wakes_from_elsewhere.fetch_add(1, Ordering::Relaxed);
        }
        if !self.queued.swap(true, Ordering::AcqRel) {
            // The executor may be done with everything.
            let _ = self.wake.send(self.task);
        }
    }
}

impl Executor {
    fn new() -> Self {
        let (wake, woken) = channel();
        let thread = std::thread::current().id();
        Self { tasks: Vec::new(), woken, wake, wakes_from_elsewhere: Arc::default(), thread }
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.tasks.push(Some(Box::pin(task)));
    }

    /// Until all but the relay are done.
    fn run(mut self) -> usize {
        let waker = |task| {
            Arc::new(TaskWaker {
                task,
                queued: AtomicBool::new(true),
                wake: self.wake.clone(),
                thread: self.thread,
                wakes_from_elsewhere: Arc::clone(&self.wakes_from_elsewhere),
            })
        };
        let wakers: Vec<_> = (0..self.tasks.len()).map(waker).collect();
        (0..self.tasks.len()).for_each(|task| self.wake.send(task).expect("open"));
        let mut left = self.tasks.len() - 1;
        while left > 0 {
            let task = self.woken.recv_timeout(PATIENCE).expect("a wake-up was lost");
            wakers[task].queued.store(false, Ordering::Release);
            let Some(future) = &mut self.tasks[task] else { continue };
            let waker = std::task::Waker::from(Arc::clone(&wakers[task]));
            if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                self.tasks[task] = None;
                left -= 1;
            }
        }
        self.wakes_from_elsewhere.load(Ordering::Relaxed)
    }
}

/// What a follower read in the end.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    Body(Vec<u8>),
    Failed,
    Left,
    Alone,
}

async fn follow(mut follower: Follower, leave_after: Option<usize>) -> Read {
    let mut body = Vec::new();
    let mut events = 0;
    loop {
        if leave_after.is_some_and(|most| events >= most) {
            return Read::Left;
        }
        events += 1;
        match poll_fn(|cx| follower.poll_event(cx)).await {
            Event::Head(_) => {}
            Event::Interim(_) => {}
            Event::Chunk(bytes) => body.extend_from_slice(&bytes),
            Event::End => return Read::Body(body),
            Event::Entry(entry) | Event::Stale(entry) => {
                return Read::Body(entry.body.read().unwrap().to_vec());
            }
            Event::Failed(_) => return Read::Failed,
            Event::Released(_) => return Read::Alone,
        }
    }
}

/// The body that round `round` serves: distinct, so that a mix-up shows.
fn body_of(round: usize, chunks: usize, chunk_bytes: usize) -> Vec<u8> {
    (0..chunks * chunk_bytes).map(|n| (n.wrapping_mul(31) ^ round).to_le_bytes()[0]).collect()
}

/// What the fill's task does with a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Whole,
    Cut,
    Uncacheable,
}

async fn fetch(mut fill: Fill, round: usize, chunk_bytes: usize, origin: Origin) {
    const CHUNKS: usize = 40;
    let body = body_of(round, CHUNKS, chunk_bytes);
    let uncacheable: Field<'_> = (b"Cache-Control", b"private");
    let header = if origin == Origin::Uncacheable { uncacheable } else { FRESH };
    fill.on_head(200, &[header], None, NOW);
    for chunk in body.chunks(chunk_bytes) {
        let abandoned = poll_fn(|cx| match fill.poll_abandoned(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => fill.poll_writable(cx).map(|()| false),
        });
        if abandoned.await {
            return;
        }
        fill.push(Bytes::copy_from_slice(chunk));
        if origin == Origin::Cut && chunk[0] % 5 == 0 {
            return fill.fail(FailReason::Truncated, NOW);
        }
    }
    fill.finish(NOW);
}

/// One worker's thread: `tasks` requests for one key, all at once. Whoever leads runs the fill as one more task.
fn worker(
    cache: &Arc<Cache>,
    index: usize,
    round: usize,
    tasks: usize,
    chunk_bytes: usize,
    origin: Origin,
) -> (Vec<Read>, usize, usize) {
    let mut executor = Executor::new();
    let relay: Relay = cache.relay(index);
    let results = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let led = std::rc::Rc::new(std::cell::Cell::new(0));
    executor.spawn(relay);
    for task in 0..tasks {
        let mut key = KeyBuf::new();
        build(&mut key, round.to_string().as_bytes());
        let (cache, results, led) = (Arc::clone(cache), results.clone(), led.clone());
        let leave_after = (task % 7 == 3).then_some(task % 5);
        executor.spawn(async move {
            let facts = RequestFacts::read("GET", &[]);
            let read = match cache.lookup(&key, &facts, &Rule::Respect, NOW) {
                Lookup::Hit(hit) => Read::Body(hit.entry.body.read().unwrap().to_vec()),
                _ => match cache.join(&key, &facts, &Rule::Respect, None, index, NOW) {
                    Join::Follow(follower) => follow(follower, leave_after).await,
                    Join::Stored(hit) => Read::Body(hit.entry.body.read().unwrap().to_vec()),
                    Join::Alone(_) => Read::Alone,
                    Join::Lead(fill, follower) => {
                        led.set(led.get() + 1);
                        let mut fetch = pin!(fetch(fill, round, chunk_bytes, origin));
                        let mut follow = pin!(follow(follower, leave_after));
                        let (mut fetched, mut read) = (false, None);
                        poll_fn(|cx| {
                            fetched = fetched || fetch.as_mut().poll(cx).is_ready();
                            if let (None, Poll::Ready(done)) =
                                (&read, if read.is_none() { follow.as_mut().poll(cx) } else { Poll::Pending })
                            {
                                read = Some(done);
                            }
                            if fetched && read.is_some() { Poll::Ready(()) } else { Poll::Pending }
                        })
                        .await;
                        read.expect("polled until there")
                    }
                },
            };
            results.borrow_mut().push(read);
        });
    }
    let foreign_wakes = executor.run();
    let results = results.take();
    (results, led.get(), foreign_wakes)
}

fn round(
    round: usize,
    workers: usize,
    tasks: usize,
    chunk_bytes: usize,
    origin: Origin,
) -> (Vec<Read>, usize, usize) {
    let config = Config { memory_bytes: 64 << 20, object_bytes_max: 256 << 10, ..Config::default() };
    let cache = Cache::new(config, round as u64).expect("fits");
    let per_worker: Vec<_> = std::thread::scope(|scope| {
        let start = |index| {
            let cache = &cache;
            scope.spawn(move || worker(cache, index, round, tasks, chunk_bytes, origin))
        };
        let threads: Vec<_> = (0..workers).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let stats = cache.stats();
    assert_eq!((stats.fills, stats.fill_bytes), (0, 0), "everything is given back");
    let led = per_worker.iter().map(|(_, led, _)| led).sum();
    let wakes = per_worker.iter().map(|(_, _, wakes)| wakes).sum();
    (per_worker.into_iter().flat_map(|(results, _, _)| results).collect(), led, wakes)
}

#[test]
fn followers_on_several_threads_all_read_the_whole_body() {
    for number in 0..30 {
        let (results, _, _) = round(number, 4, 50, 700, Origin::Whole);
        let body = body_of(number, 40, 700);
        assert_eq!(results.len(), 200);
        for read in results {
            assert!(
                matches!(&read, Read::Left) || matches!(&read, Read::Body(read) if *read == body),
                "{read:?}"
            );
        }
    }
}

#[test]
fn a_thousand_requests_on_a_cold_key_fetch_once() {
    // The lead is some worker's first task, and those stay to the end.
    for number in 0..10 {
        let (results, led, _) = round(number, 4, 250, 100, Origin::Whole);
        assert_eq!(results.len(), 1000);
        assert_eq!(led, 1);
    }
}

#[test]
fn a_body_larger_than_the_cache_reaches_those_attached() {
    for number in 0..30 {
        let (results, _, _) = round(number, 3, 20, 10_000, Origin::Whole);
        let body = body_of(number, 40, 10_000);
        for read in results {
            let right = matches!(&read, Read::Body(read) if *read == body);
            assert!(right || matches!(read, Read::Left | Read::Alone));
        }
    }
}

#[test]
fn a_cut_body_is_never_taken_for_a_whole_one() {
    for number in 0..30 {
        let (results, _, _) = round(number, 3, 30, 600, Origin::Cut);
        let body = body_of(number, 40, 600);
        for read in results {
            assert!(!matches!(&read, Read::Body(read) if *read != body), "{}", read_len(&read));
        }
    }
}

#[test]
fn an_uncacheable_body_is_the_lead_s_alone() {
    for number in 0..30 {
        let (results, led, _) = round(number, 4, 40, 900, Origin::Uncacheable);
        let whole = results.iter().filter(|read| matches!(read, Read::Body(_))).count();
        assert!(whole <= led, "{whole} {led}");
        assert_eq!(results.len(), 160);
    }
}

#[test]
fn a_core_full_of_followers_is_woken_once_for_each_event() {
    let cache = Cache::new(Config::default(), 1).expect("fits");
    let mut key = KeyBuf::new();
    build(&mut key, b"/");
    let facts = RequestFacts::read("GET", &[]);
    let join = |worker| cache.join(&key, &facts, &Rule::Respect, None, worker, NOW);
    let Join::Lead(mut fill, _lead) = join(0) else { panic!("cold") };
    let (ready, is_ready) = channel();
    let wakes = std::thread::scope(|scope| {
        let other_core = scope.spawn(|| {
            let mut executor = Executor::new();
            executor.spawn(cache.relay(1));
            for _ in 0..500 {
                let Join::Follow(mut follower) = join(1) else { panic!("one fetches") };
                let ready = ready.clone();
                executor.spawn(async move {
                    let mut polled = false;
                    let event = poll_fn(|cx| {
                        let event = follower.poll_event(cx);
                        if !std::mem::replace(&mut polled, true) {
                            ready.send(()).expect("the test waits");
                        }
                        event
                    });
                    assert!(matches!(event.await, Event::Head(_)));
                    assert_eq!(follow(follower, None).await, Read::Body(b"hello".to_vec()));
                });
            }
            executor.run()
        });
        (0..500).for_each(|_| is_ready.recv_timeout(PATIENCE).expect("all wait"));
        fill.on_head(200, &[FRESH], None, NOW);
        fill.push(Bytes::from_static(b"hello"));
        fill.finish(NOW);
        other_core.join().expect("no panic")
    });
    assert!(wakes <= 3 + 3, "a head, a chunk and an end; {wakes} wakes");
}

fn read_len(read: &Read) -> String {
    match read {
        Read::Body(body) => format!("{} bytes", body.len()),
        other => format!("{other:?}"),
    }
}
