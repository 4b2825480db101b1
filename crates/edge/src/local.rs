//! What the edge keeps for each worker, and what all workers share.
//!
//! A connection's task lives on one thread, so most of what it needs does too and takes no lock: idle node connections,
//! scratch memory, request ids. Shared are the snapshot (one load per request), the cache and the counters.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tenfold_cache::{Cache, KeyBuf, Timestamp};
use tenfold_service::metrics::{Counter, Registry};
use tenfold_service::worker::Worker;

use crate::access_log::AccessLog;
use crate::metrics::EdgeMetrics;
use crate::own_writes::Positions;
use crate::request_id::RequestIds;
use crate::snapshot::Snapshot;
use crate::task::Client;
use crate::upstream::Pool;

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) metrics: EdgeMetrics,
    pub(crate) registry: Registry,
    pub(crate) access_log: AccessLog,
    /// Random; each worker mixes in its index.
    pub(crate) seed: u64,
    /// Who knows where the database is.
    pub(crate) positions: OnceLock<Positions>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// What one worker has for itself.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) shared: Arc<Shared>,
    pub(crate) worker: Rc<Worker>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) ids: RefCell<RequestIds>,
    /// Requests that came to this worker.
    pub(crate) requests: Counter,
    pub(crate) scratch: RefCell<Scratch>,
    pub(crate) access_log: AccessLog,
}

/// Memory used within one decision and never across a wait.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) path: Vec<u8>,
    pub(crate) host: Vec<u8>,
    pub(crate) key: KeyBuf,
}

thread_local! {
    /// One for each edge that has served a connection on this thread; in a process, that is one.
    static LOCALS: RefCell<Vec<Rc<Local>>> = const { RefCell::new(Vec::new()) };
}

impl Local {
    /// This worker's part of the edge, made when first asked for.
    pub(crate) fn of(shared: &Arc<Shared>, worker: &Rc<Worker>) -> Rc<Self> {
        let found =
            LOCALS.with_borrow(|locals| locals.iter().find(|l| Arc::ptr_eq(&l.shared, shared)).cloned());
        found.unwrap_or_else(|| {
            let local = Rc::new(Self::new(shared, worker));
            drop(worker.spawn(shared.cache.relay(worker.index)));
            LOCALS.with_borrow_mut(|locals| locals.push(Rc::clone(&local)));
            local
        })
    }

    fn new(shared: &Arc<Shared>, worker: &Rc<Worker>) -> Self {
        // An odd multiplier spreads the workers over the whole range of seeds.
        let seed = shared.seed ^ (worker.index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            shared: Arc::clone(shared),
            worker: Rc::clone(worker),
            pool: Rc::new(Pool::default()),
            ids: RefCell::new(RequestIds::new(seed)),
            requests: shared.metrics.worker_requests(worker.index),
            scratch: RefCell::default(),
            access_log: shared.access_log.clone(),
        }
    }

    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.shared.cache
    }

    /// Must this client's connection close after its answer, whatever the answer is?
    pub(crate) fn closes(&self, client: &Client) -> bool {
        !client.keep_alive || self.worker.drain.is_draining()
    }

    pub(crate) fn timestamp(&self) -> Timestamp {
        Timestamp(self.worker.clock.unix_ms())
    }
}
