//! One request and its answer, with whichever node gives one.
//!
//! **Intuition.** Passing and filling both want the same thing: a node's answer, from a connection that may be old, on a
//! node that may be dead, tried again where that cannot do harm. [`open`] is that. What is done with the answer's body is
//! the caller's affair.
//!
//! **Mechanism.** The request's head is written once, before a node is known, and sent as it is to each node tried; only
//! the host is cut in where the configuration names another. The caller looks at the response's head through a closure
//! while it is still borrowed from the receive buffer, so it is parsed once and never copied. An idle connection that
//! turns out dead before it said a word is replaced by a new one, once; a node that fails is replaced by another, as far
//! as the retry rule and the cluster's budget go.
//!
//! **Failure.** [`Failure`] carries the reason that the client, the metrics and the log are told. A request is sent again
//! only if nothing of it can have been handled (the connection was refused), or if its method is idempotent, it has no
//! body, and no byte of an answer was seen. A POST written to a connection that then breaks counts as sent.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tenfold_balance::retry_rule::{Attempt, Sent, may_retry};
use tenfold_balance::{Outcome, Picked, Tried};
use tenfold_http1::{BodyDecoder, BodyLength, Limits, Method, ResponseHead, parse_response};

use crate::body;
use crate::io::{IoError, Pace, Reader};
use crate::local::Local;
use crate::metrics::UpstreamFailure;
use crate::reason::Reason;
use crate::upstream::{ClusterState, NodeConnection, connect};

/// A request, ready for any node of a cluster.
#[derive(Debug)]
pub(crate) struct NodeRequest {
    /// Whole, with framing and the empty line.
    head: Vec<u8>,
    /// Where the value of Host stands in `head`.
    host: std::ops::Range<usize>,
    pub(crate) method: Method,
    pub(crate) body: BodyLength,
}

impl NodeRequest {
    /// `head` begins with the request line, then Host.
    pub(crate) fn new(head: Vec<u8>, method: Method, body: BodyLength) -> Self {
        const HOST: &[u8] = b"Host: ";
        let line_end = memchr::memchr(b'\n', &head).map_or(head.len(), |at| at + 1);
        let start = (line_end + HOST.len()).min(head.len());
        let length = memchr::memchr(b'\r', &head[start..]).unwrap_or(0);
        debug_assert!(head[line_end..].starts_with(HOST), "Host comes first");
        Self { host: start..start + length, head, method, body }
    }

    /// As it is sent, but for the node's own host.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Method, target and host, for the log.
    pub(crate) fn described(&self) -> (&[u8], &[u8], &[u8]) {
        let mut words = self.head.split(|&byte| byte == b' ' || byte == b'\r');
        let method = words.next().unwrap_or_default();
        (method, words.next().unwrap_or_default(), &self.head[self.host.clone()])
    }

    /// May it be sent again though a node may have had it? RFC 9110 §9.2.2.
    pub(crate) fn is_replayable(&self) -> bool {
        self.has_no_body() && self.is_idempotent()
    }

    pub(crate) fn has_no_body(&self) -> bool {
        body::is_empty(self.body)
    }

    fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self.method, Method::Put | Method::Delete)
    }

    /// Does it ask for nothing but an answer? Then nobody needs it once the client has gone. RFC 9110 §9.2.1.
    pub(crate) fn is_safe(&self) -> bool {
        matches!(self.method, Method::Get | Method::Head | Method::Options | Method::Trace)
    }

    /// The head in three parts, with the node's own host in the middle if it has one.
    fn parts<'a>(&'a self, node_host: Option<&'a str>) -> [&'a [u8]; 3] {
        match node_host {
            None => [&self.head, &[], &[]],
            Some(host) => [&self.head[..self.host.start], host.as_bytes(), &self.head[self.host.end..]],
        }
    }
}

impl Drop for NodeRequest {
    fn drop(&mut self) {
        crate::io::give_outbox(std::mem::take(&mut self.head));
    }
}

/// Why no node gave an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    /// Bytes of an answer had come.
    started: bool,
    /// The connection had served before and broke before it said a word: most likely it was closed while idle.
    died_idle: bool,
    blame: Blame,
}

/// What the metrics and the balancer are told of a node; nothing where it isn't to blame.
pub(crate) type Blame = Option<(UpstreamFailure, Outcome)>;

impl Failure {
    pub(crate) fn blame(&self) -> Blame {
        self.blame
    }

    const fn new(reason: Reason, kind: UpstreamFailure, outcome: Outcome) -> Self {
        Self { reason, started: false, died_idle: false, blame: Some((kind, outcome)) }
    }
}

/// A node at work on a request.
pub(crate) struct Exchange {
    /// When the node had the whole request, as far as is known.
    pub(crate) sent: Instant,
    pub(crate) connection: NodeConnection,
    pub(crate) picked: Picked,
    pub(crate) cluster: Arc<ClusterState>,
}

/// What a response's head said about what follows it.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) decoder: BodyDecoder,
    keep_alive: bool,
    keep_alive_s: Option<u32>,
    status: u16,
    /// No body follows, whatever the head says: a node that sends one all the same is heard only later.
    bodiless: bool,
}

impl Exchange {
    fn new(connection: NodeConnection, picked: Picked, cluster: &Arc<ClusterState>, sent: Instant) -> Self {
        cluster.metrics.on_exchange(connection.reused);
        Self { sent, connection, picked, cluster: Arc::clone(cluster) }
    }

    /// The head of the answer has come.
    fn on_answer(&self, now: Instant) {
        self.cluster.metrics.response.observe(now.saturating_duration_since(self.sent));
    }

    /// The node's own `Host`, if the configuration gives it one.
    fn node_host(&self) -> Option<&str> {
        self.cluster.nodes.get(self.picked.node_index())?.config.host.as_deref()
    }

    /// Puts the request's head before whatever is written next.
    pub(crate) fn queue_head(&mut self, request: &NodeRequest) {
        let mut outbox = std::mem::take(&mut self.connection.socket.outbox);
        for part in request.parts(self.node_host()) {
            outbox.extend_from_slice(part);
        }
        self.connection.socket.outbox = outbox;
    }

    pub(crate) fn pace(&self) -> Pace {
        Pace { idle: self.cluster.timeouts.idle, rate_min: 0 }
    }

    /// Sends a request without a body and reads the first head that comes back.
    async fn ask<R>(
        &mut self,
        request: &NodeRequest,
        on_head: &mut impl FnMut(&ResponseHead<'_>) -> R,
    ) -> Result<(R, Following), Failure> {
        let reused = self.connection.reused;
        let pace = self.pace();
        let cluster = Arc::clone(&self.cluster);
        let host = cluster.nodes.get(self.picked.node_index()).and_then(|node| node.config.host.as_deref());
        let (mut reader, mut writer) = self.connection.socket.split(pace);
        let seen = |failure: Failure, reader: &Reader<'_>| {
            let started = !reader.inbox.is_empty();
            let died_idle = reused && !started && failure.reason == Reason::NodeClosed;
            Failure { started, died_idle, ..failure }
        };
        if let Err(error) = writer.write(request.parts(host)).await {
            return Err(seen(failed(&error), &reader));
        }
        reader.timer.arm(cluster.timeouts.response);
        read_head(&mut reader, request.method, on_head).await.map_err(|failure| seen(failure, &reader))
    }

    /// The answer has come whole: the connection is kept if it may be.
    pub(crate) fn finish(mut self, following: &Following, local: &Local) {
        if following.keep_alive && following.decoder.is_done() {
            self.connection.wary = following.bodiless;
            local.pool.put(self.connection, following.keep_alive_s, &local.worker);
        }
    }

    /// The exchange can't be completed, and the connection is given up.
    pub(crate) fn fail(self, blame: impl Into<Blame>, local: &Local) {
        if let Some((kind, outcome)) = blame.into() {
            self.cluster.metrics.on_failure(kind);
            self.picked.report(outcome, local.worker.clock.now());
        }
        self.connection.socket.abort();
    }
}

/// Tells the balancer what a head says of its node: an answer may go on for hours. What its body says is told by
/// [`Coming`].
pub(crate) fn report_head(picked: &Picked, following: &Following, local: &Local) {
    let outcome = match following.status {
        100..200 => return,
        status if is_gateway_error(status) => Outcome::ServerError,
        _ => Outcome::HeadOk,
    };
    picked.report(outcome, local.worker.clock.now());
}

fn is_gateway_error(status: u16) -> bool {
    matches!(status, 502..=504)
}

/// An answer while its body comes. However that ends, be it that the client leaves, it speaks for the node, unless the
/// node [`broke`](Self::broke) it or the answer is a failure itself.
pub(crate) struct Coming<'e> {
    picked: &'e Picked,
    local: &'e Local,
    speaks_well: bool,
}

impl<'e> Coming<'e> {
    pub(crate) fn new(picked: &'e Picked, following: &Following, local: &'e Local) -> Self {
        Self { picked, local, speaks_well: !is_gateway_error(following.status) }
    }

    /// The node is to blame, which is for [`Exchange::fail`] to report.
    pub(crate) fn broke(mut self) {
        self.speaks_well = false;
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        if self.speaks_well {
            self.picked.report(Outcome::Ok, self.local.worker.clock.now());
        }
    }
}

/// A connection that failed before a whole head had come.
fn failed(error: &IoError) -> Failure {
    if error.is_timeout() {
        Failure::new(Reason::ResponseTimeout, UpstreamFailure::ResponseTimeout, Outcome::Timeout)
    } else {
        Failure::new(Reason::NodeClosed, UpstreamFailure::Closed, Outcome::Reset)
    }
}

/// What came was no answer.
const MALFORMED: Failure = Failure::new(Reason::BadResponse, UpstreamFailure::Malformed, Outcome::Reset);

/// Reads one head, interim or final, until the reader's timer strikes; a final one disarms it. Cancellation safe only by
/// closing.
pub(crate) async fn read_head<R>(
    reader: &mut Reader<'_>,
    method: Method,
    on_head: &mut impl FnMut(&ResponseHead<'_>) -> R,
) -> Result<(R, Following), Failure> {
    let limits = Limits::default();
    let mut scanned = 0;
    loop {
        let read = match parse_response(reader.inbox.bytes(), &mut scanned, &method, &limits) {
            // Nobody asked for another protocol.
            Ok(Some((head, _))) if head.tunnel => return Err(MALFORMED),
            Ok(Some((head, consumed))) => {
                let following = Following {
                    decoder: BodyDecoder::new(head.body, &limits),
                    keep_alive: head.keep_alive,
                    keep_alive_s: head.keep_alive_timeout_s,
                    status: head.status,
                    bodiless: method == Method::Head || matches!(head.status, 204 | 304),
                };
                if !head.is_interim() {
                    reader.timer.disarm();
                }
                Some((on_head(&head), following, consumed))
            }
            Ok(None) => None,
            Err(_) => return Err(MALFORMED),
        };
        if let Some((result, following, consumed)) = read {
            reader.inbox.consume(consumed);
            return Ok((result, following));
        }
        if !reader.inbox.make_room(limits.head_bytes_max) {
            return Err(MALFORMED);
        }
        reader.fill_armed().await.map_err(|error| failed(&error))?;
    }
}

/// What one request has tried so far.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    tried: Tried,
    /// On another node, because one failed.
    retries: u32,
    /// A connection that died while idle was replaced; that is nobody's failure, and happens once.
    replaced: bool,
    /// How the attempt before failed: the answer, should there be no other node.
    failed: Option<Failure>,
}

/// Sends a request without a body to a node and reads the first head of its answer, trying again where that is safe.
pub(crate) async fn open<R>(
    local: &Local,
    cluster: &Arc<ClusterState>,
    request: &NodeRequest,
    on_head: &mut impl FnMut(&ResponseHead<'_>) -> R,
) -> Result<(Exchange, R, Following), Failure> {
    let mut attempts = Attempts::default();
    cluster.balancer.retry_budget().on_request(local.worker.clock.now());
    loop {
        let mut exchange = acquire(local, cluster, request, &mut attempts).await?;
        let failure = match exchange.ask(request, on_head).await {
            Ok((head, following)) => {
                exchange.on_answer(local.worker.clock.now());
                report_head(&exchange.picked, &following, local);
                return Ok((exchange, head, following));
            }
            Err(failure) => failure,
        };
        if failure.died_idle && request.is_replayable() && !attempts.replaced {
            attempts.replaced = true;
            continue;
        }
        let index = exchange.picked.node_index();
        exchange.fail(failure.blame(), local);
        attempts.tried.insert(index);
        attempts.failed = Some(failure);
        let attempt = Attempt {
            is_idempotent: request.is_idempotent(),
            body_is_replayable: request.has_no_body(),
            sent: Sent::Possibly,
            response_has_started: failure.started,
        };
        // One that timed out is not repeated: the next would begin when the user has given up.
        let again = failure.reason == Reason::NodeClosed && may_retry(&attempt);
        if !again || !attempts.withdraw(local, cluster) {
            return Err(failure);
        }
    }
}

impl Attempts {
    /// Draws one retry on the request's share and on the cluster's budget.
    fn withdraw(&mut self, local: &Local, cluster: &ClusterState) -> bool {
        if self.retries >= cluster.balancer.config().retry.per_request {
            return false;
        }
        let granted = cluster.balancer.retry_budget().try_withdraw(local.worker.clock.now());
        self.retries += u32::from(granted);
        let counter = if granted { &cluster.metrics.retries } else { &cluster.metrics.retries_denied };
        counter.add(1);
        granted
    }
}

/// A connection to a node that can take the request: an idle one, or a new one. A refused connection means that nothing
/// was sent, so the next node is tried whatever the method.
pub(crate) async fn acquire(
    local: &Local,
    cluster: &Arc<ClusterState>,
    request: &NodeRequest,
    attempts: &mut Attempts,
) -> Result<Exchange, Failure> {
    let mut last = attempts.failed.unwrap_or(REFUSED);
    loop {
        let now = local.worker.clock.now();
        let Ok(picked) = cluster.balancer.pick(&attempts.tried, now) else { return Err(last) };
        let index = picked.node_index();
        let address = cluster.nodes.get(index).and_then(crate::upstream::NodeState::address);
        let thoroughly = !request.is_replayable();
        if let Some(address) = address
            && !attempts.replaced
            && let Some(connection) = local.pool.take(address, now, thoroughly)
        {
            return Ok(Exchange::new(connection, picked, cluster, now));
        }
        let connected = match address {
            Some(address) => Box::pin(connect(address, cluster.timeouts.connect, &local.worker)).await,
            None => Err(IoError::Closed),
        };
        let error = match connected {
            Ok(connection) => {
                let now = local.worker.clock.now();
                return Ok(Exchange::new(connection, picked, cluster, now));
            }
            Err(error) => error,
        };
        last = failed_connect(&error);
        // No node is to blame where the limit is ours, and then the next would fare no better.
        let Some((kind, outcome)) = last.blame else { return Err(last) };
        cluster.metrics.on_failure(kind);
        picked.report(outcome, local.worker.clock.now());
        attempts.tried.insert(index);
        drop(picked);
        if !attempts.withdraw(local, cluster) {
            return Err(last);
        }
    }
}

/// No node would have the request.
const REFUSED: Failure = Failure::new(Reason::NoNode, UpstreamFailure::Refused, Outcome::ConnectFailed);

/// This machine can't open another connection; the nodes may be as well as ever.
const LOCAL_LIMIT: Failure =
    Failure { reason: Reason::LocalLimit, started: false, died_idle: false, blame: None };

fn failed_connect(error: &IoError) -> Failure {
    match error {
        IoError::Idle | IoError::TooSlow => {
            Failure::new(Reason::ConnectTimeout, UpstreamFailure::ConnectTimeout, Outcome::ConnectFailed)
        }
        IoError::Lost(error) if is_local_limit(error) => LOCAL_LIMIT,
        IoError::Closed | IoError::Lost(_) => REFUSED,
    }
}

/// Descriptors, ports or kernel memory have run out on this side.
fn is_local_limit(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMFILE | Errno::ENFILE | Errno::EADDRNOTAVAIL | Errno::ENOBUFS | Errno::ENOMEM)
    )
}

/// How long a request may wait for a head from a cluster, all attempts together: each may connect, one more replaces a
/// connection that died idle, and the last is given its time to answer.
pub(crate) fn patience(cluster: &ClusterState) -> Duration {
    let connects = cluster.balancer.config().retry.per_request.saturating_add(2);
    cluster.timeouts.connect.saturating_mul(connects).saturating_add(cluster.timeouts.response)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tenfold_service::clock::Clock;
    use tenfold_service::timer::Timers;
    use tokio::net::TcpStream;

    use super::*;
    use crate::io::Socket;

    #[test]
    fn the_time_for_a_head_ends_with_the_final_one() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut node, _) = listener.accept().unwrap();
            let timers = Timers::new(Clock::system());
            let mut socket = Socket::new(stream, timers.timer(), timers.timer());
            let mut reader = socket.reader();
            reader.timer.arm(Duration::from_secs(10));
            node.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").unwrap();
            let mut status = |head: &ResponseHead<'_>| head.status;
            let (hints, _) = read_head(&mut reader, Method::Get, &mut status).await.unwrap();
            assert!(hints == 103 && reader.timer.is_armed());
            let (answer, _) = read_head(&mut reader, Method::Get, &mut status).await.unwrap();
            assert!(answer == 204 && !reader.timer.is_armed());
        });
    }

    #[test]
    fn our_own_limits_blame_no_node() {
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::EADDRNOTAVAIL, Errno::ENOBUFS, Errno::ENOMEM] {
            let failure = failed_connect(&IoError::Lost(errno.into()));
            assert_eq!((failure.reason, failure.blame), (Reason::LocalLimit, None), "{errno}");
        }
        for errno in [Errno::ECONNREFUSED, Errno::EHOSTUNREACH, Errno::ENETUNREACH, Errno::ECONNRESET] {
            let failure = failed_connect(&IoError::Lost(errno.into()));
            assert_eq!(failure.reason, Reason::NoNode, "{errno}");
            assert!(failure.blame.is_some(), "{errno}");
        }
        let late = failed_connect(&IoError::Idle);
        assert!(late.reason == Reason::ConnectTimeout && late.blame.is_some());
    }
}
