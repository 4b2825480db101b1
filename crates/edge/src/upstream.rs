//! The nodes of a cluster as a worker sees them: an address each, and idle connections to use again.
//!
//! **Intuition.** Opening a connection costs a node and us more than most requests do, so those that are done are kept
//! for a few seconds. But idle connections die under their holder: Node.js closes after five seconds, and a request
//! written into a closing connection is lost. So ours are kept shorter than the node keeps them, and looked at before
//! they are used.
//!
//! **Mechanism.** Each worker has its own `Pool`, last in first out, so that a falling load lets the oldest expire. The
//! look is free of system calls where the runtime has seen nothing on the socket; where a lost request would be worse
//! (a POST), the kernel is asked. Idle connections hold no buffers. A sweeper runs once a second while any are kept.
//!
//! **Failure.** A connection that says anything while idle, an end or unasked bytes, is closed. At most
//! `IDLE_PER_NODE_MAX` are kept for a node; more are closed. A name that does not resolve keeps its last address.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tenfold_balance::Cluster;
use tenfold_cache::Refills;
use tenfold_service::worker::Worker;
use tokio::net::TcpStream;

use crate::config::{ClusterConfig, NodeConfig, Timeouts};
use crate::fetch_time::FetchTime;
use crate::io::{IoError, Socket};
use crate::metrics::ClusterMetrics;

/// How long a connection is kept where the node doesn't say: below the five seconds of Node.js, the shortest in use.
const KEEP: Duration = Duration::from_secs(4);
/// However long a node says it keeps its end.
const KEEP_MAX: Duration = Duration::from_secs(60);
/// Idle connections to one node, on one worker.
const IDLE_PER_NODE_MAX: usize = 256;
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A cluster: its balancer and where its nodes are.
#[derive(Debug)]
pub struct ClusterState {
    /// As in `cluster.NAME`.
    pub name: Arc<str>,
    /// Picks nodes and knows their state.
    pub balancer: Arc<Cluster>,
    /// In the balancer's order.
    pub nodes: Vec<NodeState>,
    /// Limits on waiting.
    pub timeouts: Timeouts,
    pub(crate) metrics: ClusterMetrics,
    /// How long a whole answer takes, for who considers waiting for another edge's.
    pub(crate) fetch_time: FetchTime,
    /// Fetches that renew what is suspect; they outlive a reload.
    pub(crate) refills: Arc<Refills>,
}

impl ClusterState {
    /// Takes over the balancer's state. `known` says where a node is, if that was found out before.
    pub(crate) fn new(
        config: &ClusterConfig,
        metrics: ClusterMetrics,
        previous: Option<&Self>,
        known: impl Fn(&str) -> Option<SocketAddr>,
        now: Instant,
    ) -> Result<Self, tenfold_balance::Error> {
        let balancer = Cluster::new(balancer_config(config), previous.map(|p| &*p.balancer), now)?;
        let nodes =
            config.nodes.iter().map(|node| NodeState::new(node.clone(), known(&node.address))).collect();
        let fetch_time = previous.map(|p| p.fetch_time.clone()).unwrap_or_default();
        let refills = previous.map(|p| Arc::clone(&p.refills)).unwrap_or_default();
        let (name, timeouts) = (config.name.as_str().into(), config.timeouts);
        Ok(Self { name, balancer, nodes, timeouts, metrics, fetch_time, refills })
    }
}

fn balancer_config(config: &ClusterConfig) -> tenfold_balance::ClusterConfig {
    let node =
        |node: &NodeConfig| tenfold_balance::NodeConfig { name: node.address.clone(), weight: node.weight };
    tenfold_balance::ClusterConfig {
        name: config.name.clone(),
        nodes: config.nodes.iter().map(node).collect(),
        policy: config.policy,
        health: config.health.clone(),
        passive: tenfold_balance::PassiveConfig::default(),
        retry: config.retry,
    }
}

/// One node's place in the network.
#[derive(Debug)]
pub struct NodeState {
    /// As configured.
    pub config: NodeConfig,
    resolved: ArcSwapOption<SocketAddr>,
}

impl NodeState {
    fn new(config: NodeConfig, known: Option<SocketAddr>) -> Self {
        let address = config.address.parse().ok().or(known);
        Self { config, resolved: ArcSwapOption::from_pointee(address) }
    }

    /// Where to connect to; none until the name has been resolved for the first time.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.resolved.load().as_deref().copied()
    }

    /// Configured by name, so that its address has to be found out.
    pub(crate) fn is_named(&self) -> bool {
        self.config.address.parse::<SocketAddr>().is_err()
    }

    /// The name resolves to this address now.
    pub fn set_address(&self, address: SocketAddr) {
        if self.address() != Some(address) {
            self.resolved.store(Some(Arc::new(address)));
        }
    }
}

/// A connection to a node, idle or in use.
#[derive(Debug)]
pub(crate) struct NodeConnection {
    pub(crate) socket: Socket,
    pub(crate) address: SocketAddr,
    /// It has answered a request before.
    pub(crate) reused: bool,
    /// Its last answer had no body to come; one sent all the same may be on its way, so the kernel must be asked.
    pub(crate) wary: bool,
    expires: Option<Instant>,
}

impl NodeConnection {
    /// Has the node said nothing, not even goodbye, since its last answer? `thoroughly` asks the kernel rather than what
    /// the runtime has heard.
    fn is_quiet(&self, thoroughly: bool) -> bool {
        let stream = &self.socket.stream;
        if thoroughly || self.wary {
            let mut byte = [std::mem::MaybeUninit::uninit()];
            let peeked = socket2::SockRef::from(stream).peek(&mut byte);
            return matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        }
        if stream.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_pending() {
            return true;
        }
        // Ready may be left over from the last answer: only a read can tell.
        matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// The idle connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<SocketAddr, Vec<NodeConnection>, foldhash::fast::FixedState>>,
    sweeping: Cell<bool>,
}

impl Pool {
    /// The connection to this node that was used last, if there is one still good.
    pub(crate) fn take(&self, address: SocketAddr, now: Instant, thoroughly: bool) -> Option<NodeConnection> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&address)?;
        while let Some(connection) = connections.pop() {
            let fresh = connection.expires.is_none_or(|expires| now < expires);
            if fresh && connection.is_quiet(thoroughly) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose last answer is whole. `keep_alive_s` is what the node's `Keep-Alive` field said.
    pub(crate) fn put(
        self: &Rc<Self>,
        mut connection: NodeConnection,
        keep_alive_s: Option<u32>,
        worker: &Rc<Worker>,
    ) {
        if !connection.socket.inbox.is_empty() {
            // Bytes behind the end of an answer belong to nobody.
            return;
        }
        let keep =
            keep_alive_s.map_or(KEEP, |s| Duration::from_secs(u64::from(s.saturating_sub(1))).min(KEEP_MAX));
        if keep.is_zero() {
            return;
        }
        connection.socket.inbox.release();
        connection.socket.read_timer.disarm();
        connection.reused = true;
        connection.expires = Some(worker.clock.now() + keep);
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(connection.address).or_default();
        if connections.len() < IDLE_PER_NODE_MAX {
            connections.push(connection);
        }
        drop(idle);
        if !self.sweeping.replace(true) {
            // It ends with the last idle connection.
            drop(worker.spawn(sweep(Rc::clone(self), Rc::clone(worker))));
        }
    }

    /// Idle connections held now.
    pub(crate) fn len(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }

    fn sweep_once(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain(|c| c.expires.is_none_or(|expires| now < expires) && c.is_quiet(false));
            !connections.is_empty()
        });
    }
}

/// Closes what has expired or ended, until nothing is left.
async fn sweep(pool: Rc<Pool>, worker: Rc<Worker>) {
    let timer = worker.timers.timer();
    while pool.len() > 0 {
        timer.arm(SWEEP_EVERY);
        std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
        pool.sweep_once(worker.clock.now());
    }
    pool.sweeping.set(false);
}

/// Opens a connection, within `limit`.
pub(crate) async fn connect(
    address: SocketAddr,
    limit: Duration,
    worker: &Worker,
) -> Result<NodeConnection, IoError> {
    let timer = worker.timers.timer();
    timer.arm(limit);
    let mut connecting = std::pin::pin!(TcpStream::connect(address));
    let stream = std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = connecting.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(IoError::Lost));
        }
        timer.poll_expired(cx).map(|()| Err(IoError::Idle))
    })
    .await?;
    timer.disarm();
    // Without it, a head and a body in two writes wait for each other's acknowledgement.
    let _ = stream.set_nodelay(true);
    let socket = Socket::new(stream, timer, worker.timers.timer());
    Ok(NodeConnection { socket, address, reused: false, wary: false, expires: None })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tenfold_service::clock::Clock;
    use tenfold_service::timer::Timers;

    use super::*;

    #[test]
    fn unasked_bytes_are_seen_before_the_runtime_hears_of_them() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let stream = TcpStream::connect(address).await.unwrap();
            let (mut node, _) = listener.accept().unwrap();
            let timers = Timers::new(Clock::system());
            let socket = Socket::new(stream, timers.timer(), timers.timer());
            let connection = NodeConnection { socket, address, reused: true, wary: true, expires: None };
            assert!(connection.is_quiet(false));
            // No await follows: the runtime has no chance to learn of it.
            node.write_all(b"a body after 204").unwrap();
            assert!(!connection.is_quiet(false));
        });
    }
}
