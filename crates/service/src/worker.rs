//! One thread per core, each with its own runtime; a task never leaves the thread it was born on.
//!
//! **Intuition.** Cores that share nothing wait for nothing. A connection is handed to one worker and lives there, so its
//! task may use `Rc` and `Cell`, and its memory stays in one cache.
//!
//! **Mechanism.** Each worker runs a tokio `LocalRuntime`. Other threads send it closures through a bounded queue, one
//! cross-thread wake each; the closure makes its future there. [`current_index`] tells which worker a thread is: metrics
//! use it to find their cell.
//!
//! **Failure.** A panic in a task is caught, counted (`tenfold_service_panics`) and reported to the callback in
//! [`WorkerDeps`]; its future is dropped, which closes its connection, and the worker goes on. A full queue is an error
//! to the sender, who refuses the connection.

use std::{
    any::Any,
    cell::Cell,
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    thread::{self, JoinHandle},
};

use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    sync::{mpsc, watch},
};

use crate::{
    Error,
    clock::Clock,
    drain::{Drain, DrainWatch},
    metrics::{Counter, Registry},
    timer::Timers,
};

/// Tasks sent to one worker and not yet started. The acceptor's limits keep it far from full; past it, connections are
/// refused.
pub const SPAWN_QUEUE_MAX: usize = 16_384;

/// What a worker needs from the process.
#[derive(Clone)]
pub struct WorkerDeps {
    /// The time.
    pub clock: Clock,
    /// Where panics are counted.
    pub registry: Registry,
    /// The process's end.
    pub drain: Drain,
    /// Told of each panic in a task, on the worker's thread: log it, and return soon.
    pub on_panic: OnPanic,
}

/// Called with each panic in a task.
pub type OnPanic = Arc<dyn Fn(&TaskPanic<'_>) + Send + Sync>;

/// A panic in a task.
#[derive(Clone, Copy, Debug)]
pub struct TaskPanic<'a> {
    /// The worker it happened on.
    pub worker_index: usize,
    /// What the panic said, if it was text.
    pub message: &'a str,
}

/// The threads of the process that do its work.
#[derive(Debug)]
pub struct Workers {
    handles: Vec<WorkerHandle>,
    threads: Vec<JoinHandle<()>>,
    /// Set to true to end the workers.
    stop: watch::Sender<bool>,
}

/// Sends tasks to one worker, from any thread.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    index: usize,
    spawns: mpsc::Sender<Spawn>,
    open: Arc<AtomicUsize>,
}

/// What a task finds on its own worker.
pub struct Worker {
    /// Which worker: `0..count`.
    pub index: usize,
    /// The time.
    pub clock: Clock,
    /// The wheel of this worker.
    pub timers: Timers,
    /// The process's end, with a wake-up list of this worker's own.
    pub drain: DrainWatch,
    panics: Counter,
    on_panic: OnPanic,
}

/// A closure that starts its task on the worker.
type Spawn = Box<dyn FnOnce(Rc<Worker>) + Send>;

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// The index of the worker that this thread is; `usize::MAX` on any other thread.
#[must_use]
pub fn current_index() -> usize {
    INDEX.get()
}

impl Workers {
    /// Starts `count` workers (at least one). Returns once each of them runs.
    pub fn start(count: usize, deps: &WorkerDeps) -> Result<Self, Error> {
        let (stop, _) = watch::channel(false);
        let mut workers = Self { handles: Vec::new(), threads: Vec::new(), stop };
        for index in 0..count.max(1) {
            workers.start_one(index, deps)?;
        }
        Ok(workers)
    }

    /// A handle for each worker, in order of their indices.
    #[must_use]
    pub fn handles(&self) -> Vec<WorkerHandle> {
        self.handles.clone()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.handles.len()
    }

    /// Ends all workers: tasks that still run are dropped where they stand. Blocks until the threads have ended; call it
    /// after the drain, and not from a worker.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // A worker's thread itself does not panic; if it did, the panic was printed, and the rest must still end.
            drop(thread.join());
        }
    }

    fn start_one(&mut self, index: usize, deps: &WorkerDeps) -> Result<(), Error> {
        let name = format!("tenfold-w{index}");
        let failed = |source| Error::Thread { name: format!("tenfold-w{index}"), source };
        let (spawns, queue) = mpsc::channel(SPAWN_QUEUE_MAX);
        let (started, is_started) = std::sync::mpsc::channel();
        let (deps, stop) = (deps.clone(), self.stop.subscribe());
        let run = move || {
            INDEX.set(index);
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let (runtime, outcome) = match runtime {
                Ok(runtime) => (Some(runtime), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // The starter waits for this and nothing else, so it is still there.
            drop(started.send(outcome));
            if let Some(runtime) = runtime {
                serve(&runtime, Worker::new(index, deps), queue, stop);
            }
        };
        let thread = thread::Builder::new().name(name).spawn(run).map_err(failed)?;
        self.threads.push(thread);
        is_started
            .recv()
            .unwrap_or_else(|_| Err(std::io::Error::other("the thread ended")))
            .map_err(failed)?;
        self.handles.push(WorkerHandle { index, spawns, open: Arc::default() });
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}

/// A worker's life: starts what it is sent until it is told to stop. Tasks still running end with the runtime.
fn serve(
    runtime: &LocalRuntime,
    worker: Worker,
    mut queue: mpsc::Receiver<Spawn>,
    mut stop: watch::Receiver<bool>,
) {
    let worker = Rc::new(worker);
    runtime.block_on(async move {
        let timers = worker.timers.clone();
        tokio::task::spawn_local(async move { timers.drive().await });
        loop {
            // Both branches are cancellation safe: a queue's `recv` and a watch's `wait_for` lose nothing.
            tokio::select! {
                spawn = queue.recv() => match spawn {
                    Some(spawn) => spawn(Rc::clone(&worker)),
                    None => return,
                },
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    });
}

impl WorkerHandle {
    /// The worker's index.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Connections handed to this worker and still open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Makes a future on the worker and runs it there. It belongs to the worker, which drops it at its end.
    pub fn spawn<M, F>(&self, make: M) -> Result<(), Error>
    where
        M: FnOnce(Rc<Worker>) -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let spawn = Box::new(move |worker: Rc<Worker>| {
            // Made inside the task, so that a panic in `make` is the task's too. It ends by itself or with the worker.
            let owned = Rc::clone(&worker);
            drop(worker.spawn(async move { make(owned).await }));
        });
        self.spawns.try_send(spawn).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::SpawnQueueFull,
            mpsc::error::TrySendError::Closed(_) => Error::WorkerStopped,
        })
    }

    pub(crate) fn open_counter(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.open)
    }
}

impl Worker {
    fn new(index: usize, deps: WorkerDeps) -> Self {
        let panics = deps.registry.counter(
            "tenfold_service_panics",
            "Panics caught in tasks; each closed its connection.",
            &[],
        );
        Self {
            index,
            timers: Timers::new(deps.clock.clone()),
            clock: deps.clock,
            drain: deps.drain.watch(),
            panics,
            on_panic: deps.on_panic,
        }
    }

    /// Runs a future on this worker. Dropping the handle lets it run; `abort` ends it.
    ///
    /// # Panics
    /// If called on another thread than the worker's, which a `Rc<Worker>` does not get to.
    pub fn spawn<F>(self: &Rc<Self>, future: F) -> tokio::task::JoinHandle<()>
    where
        F: Future<Output = ()> + 'static,
    {
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let mut future = pin!(future);
            let outcome = poll_fn(|cx| {
                let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
                match polled {
                    Ok(poll) => poll.map(Ok),
                    Err(payload) => Poll::Ready(Err(payload)),
                }
            })
            .await;
            if let Err(payload) = outcome {
                worker.report_panic(&*payload);
            }
        })
    }

    fn report_panic(&self, payload: &(dyn Any + Send)) {
        self.panics.add(1);
        let message = panic_message(payload);
        (self.on_panic)(&TaskPanic { worker_index: self.index, message });
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        return text;
    }
    payload.downcast_ref::<String>().map_or("not a text", String::as_str)
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

impl fmt::Debug for WorkerDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerDeps").field("clock", &self.clock).finish_non_exhaustive()
    }
}
