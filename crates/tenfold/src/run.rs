//! `tenfold run`: read, build, bind, spawn, wait, drain.
//!
//! **Intuition.** No half-started process: everything that can be wrong is found out before the first connection is
//! accepted, and all of it is said at once.
//!
//! **Mechanism.** The main thread becomes the control thread: one small runtime for signals, the admin server, health
//! checks and reloads. Signals are heard from the start, and during a reload. Workers and the acceptor have threads of their own (`service`).
//!
//! An online restart ([`crate::restart`]) is the same but for where the sockets come from, and ends the old process without
//! a drain of its PostgreSQL clients: they are served as long as they stay.
//!
//! **Failure.** A mistake in the file: exit 2, with lines. A port in use: exit 1, naming the address and what to do.
//! SIGTERM or SIGINT begins the drain; the second one ends it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tenfold_edge::access_log::{AccessLog, AccessLogReceiver};
use tenfold_edge::health::{self, HealthEvent};
use tenfold_edge::{Deps, Edge};
use tenfold_pooler::{PoolerThreads, ProcessAsk};
use tenfold_service::acceptor::{Acceptor, AcceptorDeps, Address, Listener, Service, Serving};
use tenfold_service::clock::Clock;
use tenfold_service::drain::{Drain, Finished};
use tenfold_service::limits::{ConnectionLimits, raise_nofile};
use tenfold_service::metrics::{Registry, process};
use tenfold_service::rng::Rng;
use tenfold_service::signals::{Signal, Signals};
use tenfold_service::worker::{OnPanic, TaskPanic, WorkerDeps, Workers};
use tokio::sync::mpsc;

use crate::admin::{self, guard};
use crate::cli::{Exit, color_on_stderr};
use crate::commands::complain;
use crate::config::settings::Settings;
use crate::config::values::duration_text;
use crate::config::{self, Loaded};
use crate::listeners::{self, Listeners, Place, Tier};
use crate::live::{Live, folder_of};
use crate::log::{AccessLogThread, Log};
use crate::pooling::{Parts, Pooling};
use crate::restart::taking::Taking;
use crate::restart::{self, Door, Role, Spot};
use crate::scrape::Scrape;
use crate::sharing;

/// How long connections may still close in, once the drain's deadline has cut them.
const FORCED: Duration = Duration::from_secs(1);
/// How long a successor waits for the catalogues of its databases before it takes over.
const KNOWN: Duration = Duration::from_secs(2);
const KNOWN_POLL: Duration = Duration::from_millis(5);
/// How long the process stays for a reader of its stdout or stderr that takes nothing.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs until told to end.
#[must_use]
pub fn run(path: &Path, take_over: bool) -> Exit {
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(report) => {
            complain(&report.render(color_on_stderr()));
            return Exit::Usage;
        }
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    match runtime.enable_all().build_local(tokio::runtime::LocalOptions::default()) {
        Ok(runtime) => {
            let ended = runtime.block_on(control(path, loaded, take_over));
            // With the runtime go the last tasks that hold the edge, and with it the access log's last sender. Nobody waits
            // for the thread that a name server keeps waiting.
            runtime.shutdown_background();
            match ended {
                Ok(ended) => ended.finish(),
                Err(Refused { exit, message }) => {
                    complain(&message);
                    exit
                }
            }
        }
        Err(error) => {
            complain(&format!("error: cannot start the control thread: {error}"));
            Exit::Failed
        }
    }
}

/// The control thread, from start to end.
async fn control(path: &Path, loaded: Loaded, take_over: bool) -> Result<Ended, Refused> {
    // First, so that from here on no signal ends the process by itself.
    let mut signals = Signals::install()?;
    let clock = Clock::system();
    let log = Log::start(loaded.settings.log_format, clock.clone())?;
    let started = start(path, loaded, &clock, &log, &mut signals, take_over).await;
    let (live, threads, asked) = started.inspect_err(|_| log.flush(LAST_WORDS))?;
    let finished = wait(&live, &mut signals, asked).await;
    live.door.close();
    Ok(Ended { threads, finished, log })
}

async fn start(
    path: &Path,
    loaded: Loaded,
    clock: &Clock,
    log: &Log,
    signals: &mut Signals,
    take_over: bool,
) -> Result<(Rc<Live>, Threads, mpsc::Receiver<restart::door::Ask>), Refused> {
    if !loaded.warnings.is_empty() {
        log.warn(&loaded.report(loaded.warnings.clone()).render(false));
    }
    let built = build(path, &loaded, clock, log)?;
    let (door, asked) = Door::new(&loaded.settings);
    let taking = match take_over {
        true => knock(&loaded.settings, built.pooling.as_ref(), log).await?,
        false => None,
    };
    if let (Some(taking), Some(pooling)) = (&taking, &built.pooling)
        && taking.hello.has_pooler
    {
        pooling.pooler.take_over(taking.outbox(), pooling.admit(&built.drain));
    }
    let bound = bind(&loaded.settings, log, taking)?;
    let snapshot = built.edge.snapshot();
    let mut resolving = std::pin::pin!(health::resolve(&snapshot, report_to(log)));
    let mut reload_asked = false;
    loop {
        // Both branches are cancellation safe; the first is polled again where it stood.
        let signal = tokio::select! {
            () = &mut resolving => break,
            signal = signals.next() => signal,
        };
        match signal {
            Signal::Terminate => {
                return Err(Refused { exit: Exit::Fine, message: "ended before it was ready".into() });
            }
            // The file may have changed since it was read.
            Signal::Reload => reload_asked = true,
            // Nothing runs that could be held.
            Signal::Pause | Signal::Resume => {}
        }
    }
    let (live, threads) = spawn(path, loaded, built, bound, door, log).await?;
    if reload_asked {
        live.reload_soon();
    }
    Ok((live, threads, asked))
}

/// Asks the running process for its sockets.
async fn knock(settings: &Settings, pooling: Option<&Pooling>, log: &Log) -> Result<Option<Taking>, Refused> {
    let failed = |message: String| Refused { exit: Exit::Failed, message: format!("error: {message}") };
    let path = restart::door::path(settings);
    let path = path.ok_or_else(|| failed("set admin.handover to take over from a running process".into()))?;
    let taking = restart::taking::knock(&path, pooling.is_some()).await.map_err(failed)?;
    if taking.is_none() {
        log.info(&format!("nobody is running at {}: starting as usual", path.display()));
    }
    Ok(taking)
}

/// Why nothing was started.
struct Refused {
    exit: Exit,
    message: String,
}

impl<E: std::error::Error> From<E> for Refused {
    fn from(error: E) -> Self {
        Self { exit: Exit::Failed, message: format!("error: {error}") }
    }
}

/// What is made before anything is opened.
struct Built {
    clock: Clock,
    registry: Registry,
    drain: Drain,
    edge: Edge,
    pooling: Option<Pooling>,
    access_records: AccessLogReceiver,
    workers: usize,
}

fn build(path: &Path, loaded: &Loaded, clock: &Clock, log: &Log) -> Result<Built, Refused> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = loaded.settings.workers.unwrap_or(cores);
    let registry = Registry::new(workers);
    process::register(&registry, clock);
    let (access_log, access_records) = AccessLog::channel();
    count_dropped(&registry, &access_records);
    let deps =
        Deps { registry: registry.clone(), access_log, seed: Rng::from_os().next_u64(), now: clock.now() };
    let edge = Edge::build(loaded.settings.edge.clone(), deps).map_err(|errors| Refused {
        exit: Exit::Usage,
        message: loaded.place(&errors).render(color_on_stderr()),
    })?;
    let drain = Drain::new();
    let parts = Parts { clock, registry: &registry, drain: &drain, log, workers };
    let build = |settings| Pooling::build(settings, folder_of(path), &parts);
    let pooling = loaded.settings.pooler.as_ref().map(build).transpose().map_err(|errors| Refused {
        exit: Exit::Usage,
        message: loaded.place_pooler(&errors).render(color_on_stderr()),
    })?;
    if let Some(pooling) = &pooling {
        edge.set_positions(pooling.positions());
    }
    Ok(Built { clock: clock.clone(), registry, drain, edge, pooling, access_records, workers })
}

#[expect(clippy::cast_precision_loss, reason = "records far below 2^53")]
fn count_dropped(registry: &Registry, records: &AccessLogReceiver) {
    let dropped = records.dropped_counter();
    let help = "Access log records dropped because the writer could not keep up.";
    registry.counter_fn("tenfold_edge_access_log_dropped", help, &[], move || {
        dropped.load(Ordering::Relaxed) as f64
    });
}

/// Sockets of all listeners, bound before anything runs.
struct Bound {
    admin: TcpListener,
    probe: Option<TcpListener>,
    tiers: Vec<(Place, Listener)>,
    /// The process they came from.
    taking: Option<Taking>,
}

/// Binds everything, or says everything that could not be bound.
fn bind(settings: &Settings, log: &Log, mut taking: Option<Taking>) -> Result<Bound, Refused> {
    if let Err(error) = raise_nofile() {
        log.warn(&error.to_string());
    }
    let mut problems = Vec::new();
    let mut keep = |bound: Result<TcpListener, String>| bound.map_err(|problem| problems.push(problem)).ok();
    let mut admin_at = |role, address| taking.as_mut()?.take_admin(role, address);
    let listen = settings.admin.listen;
    let admin = admin_at(Role::Admin, listen).or_else(|| keep(admin::bind(listen, "admin.listen")));
    let probe = settings.admin.probe_listen.and_then(|address| {
        admin_at(Role::Probe, address).or_else(|| keep(admin::bind(address, "admin.probe_listen")))
    });
    let mut tiers = Vec::new();
    for place in listeners::wanted(settings) {
        match bind_or_take(&place, taking.as_mut()) {
            Ok(listener) => tiers.push((place, listener)),
            Err(error) => problems.push(format!("{error} ({})", place.tier.key())),
        }
    }
    match (admin, problems.is_empty()) {
        (Some(admin), true) => Ok(Bound { admin, probe, tiers, taking }),
        _ => {
            let lines: Vec<_> = problems.iter().map(|problem| format!("error: {problem}")).collect();
            Err(Refused { exit: Exit::Failed, message: lines.join("\n") })
        }
    }
}

fn bind_or_take(place: &Place, taking: Option<&mut Taking>) -> Result<Listener, Box<dyn std::error::Error>> {
    let role = match place.tier {
        Tier::Edge => Role::Edge,
        Tier::Pooler => Role::Pooler,
    };
    match taking.and_then(|taking| taking.take(role, &place.at)) {
        Some(socket) => Ok(Listener::taken_over(socket, &place.at)?),
        None => Ok(listeners::bind(&place.at)?),
    }
}

/// The threads of a running process, in the order in which they end.
struct Threads {
    acceptor: Acceptor,
    pooler: Option<PoolerThreads>,
    workers: Workers,
    access_log: AccessLogThread,
    /// Talks to Redis, where edges share one.
    shared: Option<tenfold_state::Thread>,
}

async fn spawn(
    path: &Path,
    loaded: Loaded,
    built: Built,
    bound: Bound,
    door: Door,
    log: &Log,
) -> Result<(Rc<Live>, Threads), Refused> {
    let Built { clock, registry, drain, edge, pooling, access_records, workers } = built;
    let settings = loaded.settings.clone();
    let worker_deps = WorkerDeps {
        clock: clock.clone(),
        registry: registry.clone(),
        drain: drain.clone(),
        on_panic: on_panic(log),
    };
    let workers = Workers::start(workers, &worker_deps)?;
    let pooler = pooling.as_ref().map(|pooling| pooling.pooler.start()).transpose()?;
    if let Some(pooling) = &pooling {
        tokio::task::spawn_local(pooling.pooler.control());
        if bound.taking.is_some() {
            let _ = tokio::time::timeout(KNOWN, known(pooling)).await;
        }
    }
    let access_log = AccessLogThread::start(access_records, settings.log_format, log.clone())?;
    let shared = sharing::start(&edge, settings.shared.as_ref(), folder_of(path), &clock, &registry)?;
    if let Some(encoder) = edge.encoder() {
        // It ends with the edge's cache, and nothing waits for what it does.
        std::thread::Builder::new().name("tenfold-encode".into()).spawn(move || encoder.run())?;
    }
    let client = &settings.edge.limits;
    let limits = ConnectionLimits::new(client.connections_max, client.connections_per_ip_max);
    let deps = AcceptorDeps { limits: Arc::clone(&limits), registry: registry.clone(), drain: drain.clone() };
    let locals =
        bound.tiers.iter().map(|(place, listener)| (place.clone(), listener.local().clone())).collect();
    let service = |tier| match (tier, &pooling) {
        (Tier::Pooler, Some(pooling)) => pooling.service(),
        (Tier::Pooler, None) | (Tier::Edge, _) => service(&edge),
    };
    let listeners =
        bound.tiers.into_iter().map(|(place, listener)| (listener, service(place.tier))).collect();
    let acceptor = Acceptor::spawn(listeners, &workers, &deps)?;
    let live = Rc::new(Live {
        path: std::path::absolute(path)?,
        log: log.clone(),
        scrape: Scrape::register(&registry),
        started: clock.now(),
        clock,
        registry,
        drain,
        edge,
        pooling,
        listeners: Listeners::new(acceptor.handle(), locals),
        door,
        limits,
        workers: workers.count(),
        at_start: settings,
        loaded: RefCell::new(loaded),
        reloading: tokio::sync::Mutex::new(()),
        reload_waits: Cell::new(false),
    });
    serve_admin(&live, bound.admin, bound.probe)?;
    attend(&live, bound.taking)?;
    Ok((live, Threads { acceptor, pooler, workers, access_log, shared }))
}

/// What goes on beside the serving, from here on.
fn attend(live: &Rc<Live>, taking: Option<Taking>) -> io::Result<()> {
    spawn_health(live);
    sharing::watch(live);
    match taking {
        Some(taking) => take_over(live, taking)?,
        None => Door::open(live),
    }
    restart::notify::ready();
    Ok(())
}

/// Waits until the pooler's clients would not have to wait for the catalogues of their databases.
async fn known(pooling: &Pooling) {
    while !pooling.pooler.is_known() {
        tokio::time::sleep(KNOWN_POLL).await;
    }
}

/// Tells the running process that this one accepts. Once that will not any more, what it had is this one's.
fn take_over(live: &Rc<Live>, mut taking: Taking) -> io::Result<()> {
    taking.close_rest();
    let hello = &taking.hello;
    live.log.info(&format!("taking over from process {} (tenfold {})", hello.pid, hello.version));
    let pooler = live.pooling.as_ref().map(|pooling| pooling.pooler.clone());
    let is_committed = taking.ready(pooler, &live.registry, live.log.clone())?;
    let live = Rc::clone(live);
    tokio::task::spawn_local(async move {
        // Gone is as good: nobody else has them.
        let _ = is_committed.await;
        live.listeners.own_files().await;
        Door::open(&live);
    });
    Ok(())
}

/// What the acceptor does with the edge's connections.
#[must_use]
pub fn service(edge: &Edge) -> Service {
    let (serving, refusing) = (edge.clone(), edge.clone());
    Service {
        serving: Serving::OnWorker(Arc::new(move |worker, accepted| {
            Box::pin(serving.serve(&worker, accepted))
        })),
        refusal: Arc::new(move |refused| refusing.refusal(refused)),
        limits: None,
    }
}

/// Says what the health checks find out.
pub fn report_to(log: &Log) -> impl Fn(HealthEvent) + 'static {
    let log = log.clone();
    move |event| match event {
        HealthEvent::Changed { cluster, node, up: true, because } => {
            log.info(&format!("node {node} of cluster {cluster} is up: {because}"));
        }
        HealthEvent::Changed { cluster, node, up: false, because } => {
            log.warn(&format!("node {node} of cluster {cluster} is down: {because}"));
        }
        HealthEvent::Unresolved { cluster, node, because } => {
            log.warn(&format!("node {node} of cluster {cluster} has no address: {because}"));
        }
    }
}

fn spawn_health(live: &Rc<Live>) {
    let edge = live.edge.clone();
    let deps = health::Deps {
        clock: live.clock.clone(),
        registry: live.registry.clone(),
        rng: Rng::from_os(),
        drain: live.drain.watch(),
    };
    let checks = health::run(move || edge.snapshot(), deps, report_to(&live.log));
    tokio::task::spawn_local(checks);
}

fn on_panic(log: &Log) -> OnPanic {
    let log = log.clone();
    Arc::new(move |panic: &TaskPanic<'_>| {
        log.error(&format!("a task panicked on worker {}: {}", panic.worker_index, panic.message));
    })
}

/// Starts the admin server's tasks, and says where everything is.
fn serve_admin(live: &Rc<Live>, admin: TcpListener, probe: Option<TcpListener>) -> io::Result<()> {
    let mut places: Vec<_> = live.listeners.edge().iter().map(|at| format!("edge http://{at}")).collect();
    places.extend(live.listeners.of(Tier::Pooler).iter().map(|at| format!("pooler {at}")));
    places.push(format!("admin http://{}", admin.local_addr()?));
    let configured = &live.at_start.admin;
    let spot = |role, at| Spot { role, at: Address::Tcp(at) };
    Door::serve_admin(live, admin, spot(Role::Admin, configured.listen), guard::Listener::Admin)?;
    if let (Some(probe), Some(at)) = (probe, configured.probe_listen) {
        places.push(format!("probes http://{}", probe.local_addr()?));
        Door::serve_admin(live, probe, spot(Role::Probe, at), guard::Listener::Probe)?;
    }
    let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
    live.log.info(&format!("tenfold {version} is ready (pid {pid}): {}", places.join(", ")));
    Ok(())
}

/// Until somebody wants it to end, and through the drain that follows.
async fn wait(
    live: &Rc<Live>,
    signals: &mut Signals,
    restarts: mpsc::Receiver<restart::door::Ask>,
) -> Finished {
    let mut orders = Orders { signals, asks: live.pooling.as_ref().and_then(Pooling::take_asks), restarts };
    let mut at_once = loop {
        match orders.next().await {
            Order::Signal(Signal::Terminate) => break Some(false),
            Order::Signal(Signal::Reload) => live.reload_soon(),
            Order::Signal(Signal::Pause) => live.pause(),
            Order::Signal(Signal::Resume) => live.resume(),
            Order::Ask(ProcessAsk::Reload { reply }) => live.reload_for(reply),
            Order::Ask(ProcessAsk::Shutdown { at_once }) => break Some(at_once),
            Order::Restart(ask) => {
                if Door::answer(live, ask).await {
                    break None;
                }
            }
        }
    };
    if at_once.is_none() {
        at_once = match outlive(live, &mut orders).await {
            Outlived::Left => return Finished::Clean,
            Outlived::Deadline => Some(false),
            Outlived::Told { at_once } => Some(at_once),
        };
    }
    end(live, orders, at_once == Some(true)).await
}

/// How the time after a successor took over ended.
enum Outlived {
    /// With the last of those who stayed.
    Left,
    /// They stayed too long.
    Deadline,
    /// Somebody said so.
    Told { at_once: bool },
}

/// A successor has taken over: HTTP connections end as they may, PostgreSQL clients go on until they go.
async fn outlive(live: &Rc<Live>, orders: &mut Orders<'_>) -> Outlived {
    let limit = live.loaded.borrow().settings.drain_handover;
    live.drain.begin();
    let clients = live.pooling.as_ref().map_or(0, |pooling| pooling.pooler.open_clients());
    let (connections, limit_text) = (live.limits.open(), duration_text(limit));
    live.log.info(&format!(
        "handed over; {clients} PostgreSQL clients and {connections} HTTP connections stay until they end, for at most {limit_text}"
    ));
    // Both branches are cancellation safe.
    tokio::select! {
        finished = live.drain.finished(limit) => match finished {
            Finished::Clean => Outlived::Left,
            _ => Outlived::Deadline,
        },
        at_once = orders.told_to_end() => Outlived::Told { at_once },
    }
}

/// The drain.
async fn end(live: &Rc<Live>, mut orders: Orders<'_>, at_once: bool) -> Finished {
    let deadline = if at_once { Duration::ZERO } else { live.loaded.borrow().settings.drain_deadline };
    let shown = duration_text(deadline);
    live.log.info(&format!("draining, for at most {shown}; signal again to end now"));
    live.drain.begin();
    if let Some(pooling) = &live.pooling {
        pooling.pooler.drain();
    }
    let finished = tokio::select! {
        finished = live.drain.finished(deadline) => finished,
        () = orders.end_now() => Finished::Forced { open: live.drain.open() },
    };
    if finished != Finished::Clean {
        // Connections hear of it and close; those that don't are dropped with their worker.
        live.drain.force();
        let _ = tokio::time::timeout(FORCED, idle(&live.drain)).await;
    }
    finished
}

/// Whoever may tell the process something: the operating system, and the pooler's console.
struct Orders<'a> {
    signals: &'a mut Signals,
    asks: Option<mpsc::Receiver<ProcessAsk>>,
    restarts: mpsc::Receiver<restart::door::Ask>,
}

enum Order {
    Signal(Signal),
    Ask(ProcessAsk),
    Restart(restart::door::Ask),
}

impl Orders<'_> {
    /// The next one. Cancellation safe.
    async fn next(&mut self) -> Order {
        loop {
            let asked = async {
                match &mut self.asks {
                    Some(asks) => asks.recv().await,
                    None => std::future::pending().await,
                }
            };
            // All branches are cancellation safe.
            let ask = tokio::select! {
                biased;
                signal = self.signals.next() => return Order::Signal(signal),
                Some(ask) = self.restarts.recv() => return Order::Restart(ask),
                ask = asked => ask,
            };
            match ask {
                Some(ask) => return Order::Ask(ask),
                None => self.asks = None,
            }
        }
    }

    /// After a successor took over: a signal, or SHUTDOWN. Other orders are the successor's to follow.
    async fn told_to_end(&mut self) -> bool {
        loop {
            match self.next().await {
                Order::Signal(Signal::Terminate) => return false,
                Order::Ask(ProcessAsk::Shutdown { at_once }) => return at_once,
                Order::Ask(ProcessAsk::Reload { reply }) => {
                    // Whoever asked may be gone.
                    let _ = reply.send(Err("another process has taken over".into()));
                }
                // Dropped unanswered, it is refused.
                Order::Signal(_) | Order::Restart(_) => {}
            }
        }
    }

    /// During the drain: a second signal, or SHUTDOWN without waiting. Other orders come too late.
    async fn end_now(&mut self) {
        loop {
            match self.next().await {
                Order::Signal(Signal::Terminate) | Order::Ask(ProcessAsk::Shutdown { at_once: true }) => {
                    return;
                }
                Order::Signal(_)
                | Order::Ask(ProcessAsk::Shutdown { at_once: false })
                // Dropped unanswered, it is refused.
                | Order::Restart(_) => {}
                Order::Ask(ProcessAsk::Reload { reply }) => {
                    // Whoever asked may be gone.
                    let _ = reply.send(Err("the process is about to end, so nothing is reloaded".into()));
                }
            }
        }
    }
}

async fn idle(drain: &Drain) {
    const POLL: Duration = Duration::from_millis(10);
    while drain.open() > 0 {
        tokio::time::sleep(POLL).await;
    }
}

/// A process that serves nobody any more.
struct Ended {
    threads: Threads,
    finished: Finished,
    log: Log,
}

impl Ended {
    /// Ends what still runs. What the logs hold is written before the process goes, if anybody takes it.
    fn finish(self) -> Exit {
        let Self { threads, finished, log } = self;
        threads.acceptor.join();
        // What waits to be told to other edges is lost with it; they hear of purges from who is left.
        drop(threads.shared);
        if let Some(Err(error)) = threads.pooler.map(PoolerThreads::stop) {
            log.error(&format!("the pooler did not end well: {error}"));
        }
        threads.workers.stop();
        if !threads.access_log.join_within(LAST_WORDS) {
            log.warn("the end of the access log was not written: nobody reads stdout");
        }
        match finished {
            Finished::Clean => log.info("ended: everything was finished"),
            Finished::DeadlinePassed { open } => log.warn(&cut("ended at the deadline", open)),
            Finished::Forced { open } => log.warn(&cut("ended at once", open)),
        }
        log.flush(LAST_WORDS);
        Exit::Fine
    }
}

fn cut(how: &str, open: usize) -> String {
    format!("{how}: {open} connections were cut")
}
