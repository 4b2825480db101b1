//! Plays a plan: threads, beat, seconds, report.
//!
//! The calling thread only listens: each sending thread reports every second as it ends, and the caller's `progress`
//! sees a second when all threads have. Threads share the schedule by numbers: of `n` threads, thread `t` sends the
//! requests whose number is `t` modulo `n`, and all start their clocks at the same instant.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use tenfold_service::clock::Clock;
use tokio::runtime::LocalOptions;

use crate::beat::Beat;
use crate::error::Error;
use crate::mix::Mix;
use crate::plan::{Plan, Stop};
use crate::recorder::{Recorder, Tally, Window};
use crate::report::{Report, Second};
use crate::request_log::RequestLog;
use crate::summary;
use crate::target::Target;
use crate::worker::{Job, TICK, Worker};

/// For threads to be there before the first request is due.
const START_DELAY: Duration = Duration::from_millis(20);
/// Beyond so many connections, the usual limit of 1,024 descriptors is raised first.
const ORDINARY_CONNECTIONS_MAX: usize = 512;
/// How soon a stop is noticed by a pacer with nothing to do.
const PACE_MAX: Duration = Duration::from_millis(100);
/// How often the end is looked for once everything has been sent.
const DRAIN_POLL: Duration = Duration::from_millis(2);
/// How long after the last timeout a request may still be under way.
const DRAIN_SLACK: Duration = Duration::from_secs(1);
/// Messages a sending thread may be ahead of the listener: a minute of seconds.
const MESSAGES_MAX: usize = 64;

/// What a run leaves.
#[derive(Clone, Debug)]
pub struct Run {
    /// The result.
    pub report: Report,
    /// The requests, if the plan asked for them; else empty.
    pub log: RequestLog,
}

/// What a sending thread tells the listener.
enum Message {
    Second {
        thread: usize,
        window: Window,
    },
    Done {
        thread: usize,
        tally: Box<Tally>,
    },
    /// It could not start.
    Failed(std::io::Error),
}

/// Plays the plan and blocks until it is played, or `stop` is called. `progress` sees each second as it ends.
///
/// # Errors
/// When the plan can't be played or its set-up requests failed. Failed requests are no error: the report counts them.
pub fn run(plan: &Plan, stop: &Stop, progress: &mut dyn FnMut(&Second)) -> Result<Run, Error> {
    plan.client.validate()?;
    let targets = Target::resolve_all(&plan.targets, plan.own_host)?;
    let mut plan = plan.clone();
    if plan.scenario.needs_tokens() && plan.tokens.is_empty() {
        plan.tokens = crate::log_in(&plan)?.into();
    }
    // Refused here, on the caller's thread, rather than on each sending one.
    Mix::new(&plan, &targets)?;
    if plan.client.connections_max > ORDINARY_CONNECTIONS_MAX {
        tenfold_service::limits::raise_nofile().map_err(std::io::Error::other)?;
    }
    let plan = Arc::new(plan);
    let clock = Clock::system();
    let start = clock.now() + START_DELAY;
    let (sender, receiver) = sync_channel(MESSAGES_MAX);
    // Ends the threads that did start when one could not.
    let abandon = Stop::default();
    let played = std::thread::scope(|scope| {
        let threads = (0..plan.client.threads).map(|thread| Sending {
            thread,
            plan: Arc::clone(&plan),
            targets: targets.clone(),
            stops: [stop.clone(), abandon.clone()],
            clock: clock.clone(),
            start,
        });
        let played = spawn_all(scope, threads, sender).and_then(|()| listen(&receiver, &plan, progress));
        if played.is_err() {
            abandon.stop();
        }
        played
    })?;
    Ok(summary::summarise(&plan, played, stop.is_stopped()))
}

/// Starts a thread for each share. The scope waits for them, and passes on their panics.
fn spawn_all<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    threads: impl Iterator<Item = Sending>,
    sender: SyncSender<Message>,
) -> Result<(), Error> {
    for sending in threads {
        let sender = sender.clone();
        let builder = std::thread::Builder::new().name(format!("load-{}", sending.thread));
        builder.spawn_scoped(scope, move || sending.run(&sender))?;
    }
    drop(sender);
    Ok(())
}

/// Everything heard from the sending threads.
pub(crate) struct Played {
    pub(crate) tally: Tally,
    pub(crate) series: Vec<Second>,
}

/// Collects seconds and tallies until every thread is done.
fn listen(
    receiver: &Receiver<Message>,
    plan: &Plan,
    progress: &mut dyn FnMut(&Second),
) -> Result<Played, Error> {
    let threads = plan.client.threads;
    let mut played = Played { tally: Tally::new(&plan.scenario), series: Vec::new() };
    // Seconds that not every thread has reported; the first is number `played.series.len()`.
    let mut open: Vec<Window> = Vec::new();
    let mut reported = vec![0_usize; threads];
    while let Ok(message) = receiver.recv() {
        match message {
            Message::Second { thread, window } => {
                let index = reported[thread] - played.series.len();
                match open.get_mut(index) {
                    Some(known) => known.merge(&window),
                    None => open.push(window),
                }
                reported[thread] += 1;
            }
            Message::Done { thread, tally } => {
                reported[thread] = usize::MAX;
                played.tally.merge(*tally);
            }
            Message::Failed(error) => return Err(error.into()),
        }
        let complete =
            reported.iter().min().map_or(0, |least| (*least).min(played.series.len() + open.len()));
        for window in open.drain(..complete - played.series.len()) {
            let second = summary::second(played.series.len(), &window);
            progress(&second);
            played.series.push(second);
        }
    }
    Ok(played)
}

/// One sending thread's share of a run.
struct Sending {
    thread: usize,
    plan: Arc<Plan>,
    targets: Vec<Target>,
    /// The caller's, and the run's own.
    stops: [Stop; 2],
    clock: Clock,
    start: Instant,
}

impl Sending {
    fn run(self, messages: &SyncSender<Message>) {
        // When the listener has gone, with an error of another thread, nobody wants to hear of this one.
        let thread = self.thread;
        let _ = match Rc::new(self).play(messages) {
            Ok(tally) => messages.send(Message::Done { thread, tally }),
            Err(error) => messages.send(Message::Failed(error)),
        };
    }

    fn play(self: &Rc<Self>, messages: &SyncSender<Message>) -> std::io::Result<Box<Tally>> {
        let cpu_before_us = thread_cpu_us();
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build_local(LocalOptions::default())?;
        let mix = Mix::new(&self.plan, &self.targets).expect("it was made once already, from the same plan");
        let mix = Rc::new(mix);
        let recorder = Recorder::new(&self.plan.scenario, self.plan.log_requests);
        let worker = Worker::new(
            Rc::clone(&mix),
            &self.plan.client,
            &self.targets,
            recorder,
            self.clock.clone(),
            self.start,
        );
        let worker = Rc::new(worker);
        runtime.block_on(async {
            let ticking = tokio::task::spawn_local(tick(Rc::clone(&worker), self.thread, messages.clone()));
            // As a task of its own: waking the runtime's outermost future costs a system call each time.
            let (sending, pacer) = (Rc::clone(self), Rc::clone(&worker));
            let pacing = tokio::task::spawn_local(async move { sending.pace(&pacer, &mix).await });
            pacing.await.map_err(std::io::Error::other)??;
            self.drain(&worker).await;
            ticking.abort();
            Ok::<_, std::io::Error>(())
        })?;
        // Ends the connections' tasks, and closes their sockets.
        drop(runtime);
        let mut recorder = worker.recorder.borrow_mut();
        let window = recorder.take_window();
        if !window.is_empty() {
            let _ = messages.send(Message::Second { thread: self.thread, window });
        }
        let mut tally = std::mem::replace(&mut recorder.tally, Tally::new(&self.plan.scenario));
        tally.cpu_us = thread_cpu_us().saturating_sub(cpu_before_us);
        Ok(Box::new(tally))
    }

    /// Dispatches every request of this thread when it is due.
    async fn pace(&self, worker: &Rc<Worker>, mix: &Mix) -> std::io::Result<()> {
        let mut beat = Beat::new(self.clock.clone())?;
        let threads = u64::try_from(self.plan.client.threads).expect("at most THREADS_MAX");
        let mine = u64::try_from(self.thread).expect("below THREADS_MAX");
        let mut keyed = 0;
        for (intended, number) in self.plan.schedule.offsets().zip(0_u64..) {
            let route = mix.route(number);
            let rank = if mix.needs_key(route) { mix.rank(keyed) } else { 0 };
            keyed += u64::from(mix.needs_key(route));
            if number % threads != mine {
                continue;
            }
            let Some(elapsed) = self.until(&mut beat, intended).await? else { return Ok(()) };
            worker.dispatch(Job { number, intended, rank, route }, elapsed);
        }
        // The schedule may end with silence.
        self.until(&mut beat, self.plan.schedule.duration()).await?;
        Ok(())
    }

    /// Waits for an offset of the run, if it is not there yet; returns the offset it is. None: the run was stopped.
    async fn until(&self, beat: &mut Beat, offset: Duration) -> std::io::Result<Option<Duration>> {
        let due = self.start + offset;
        loop {
            let now = self.clock.now();
            if self.is_stopped() {
                return Ok(None);
            }
            if now >= due {
                return Ok(Some(now.saturating_duration_since(self.start)));
            }
            beat.at(due.min(now + PACE_MAX)).await?;
        }
    }

    /// Waits until the last request has ended: the client's timeout at most, and a little for it to be noticed.
    async fn drain(&self, worker: &Worker) {
        let latest = self.plan.schedule.duration() + self.plan.client.timeout() + DRAIN_SLACK;
        let is_waiting = || worker.recorder.borrow().in_flight() > 0 && worker.elapsed() < latest;
        while is_waiting() && !self.is_stopped() {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    fn is_stopped(&self) -> bool {
        self.stops.iter().any(Stop::is_stopped)
    }
}

/// Twenty times a second: deadlines. Once a second: what happened in it.
async fn tick(worker: Rc<Worker>, thread: usize, messages: SyncSender<Message>) {
    let mut ticks = tokio::time::interval(TICK);
    let mut second = 1;
    loop {
        ticks.tick().await;
        worker.expire();
        while worker.elapsed() >= Duration::from_secs(second) {
            second += 1;
            let window = worker.recorder.borrow_mut().take_window();
            // Never blocks for long: the listener does nothing else. When it has gone, so has the run.
            let _ = messages.send(Message::Second { thread, window });
        }
    }
}

/// CPU time of the calling thread, user and system.
fn thread_cpu_us() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else { return 0 };
    let used = usage.user_time() + usage.system_time();
    u64::try_from(used.num_microseconds()).unwrap_or(0)
}
