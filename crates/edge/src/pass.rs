//! Passing a request through: both bodies streamed, at the same time, through one buffer each.
//!
//! **Intuition.** Two things go on at once on behalf of a request that isn't answered from the cache. On one side the
//! client still sends, and when it has finished it may go away; on the other the node answers, perhaps before it has
//! read everything. Each side is one future, and [`race`] runs both in the connection's own task.
//!
//! **Mechanism.** What one buffer takes of the request's body is read before a node is asked. The client's side relays
//! the body and then watches the connection: bytes of a next request stay in the buffer, an end means that the client
//! has gone. The node's side reads heads (passing on what is interim),
//! writes the client's head and relays the response's body. Whichever side ends the exchange first ends the other.
//!
//! **Failure.** A body that breaks off on one side is broken off on the other: the node's connection is reset without a
//! last chunk, the client's likewise. A client that goes away cancels a safe request; any other whose body was sent whole
//! runs to its end, and its answer is read and dropped. A client's half-close counts as going away: it cannot be told
//! from a close.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tenfold_balance::{Outcome, Picked};
use tenfold_cache::Entry;
use tenfold_cache::policy::freshness::is_error;
use tenfold_http1::{BodyDecoder, BodyLength, Error as Malformed, Limits, ResponseHead};
use tenfold_service::timer::Timer;

use crate::body::{self, BodyError, RelayEnd, RelayError};
use crate::config;
use crate::conn::After;
use crate::exchange::{
    Attempts, Blame, Coming, Exchange, Failure, Following, acquire, open, read_head, report_head,
};
use crate::fetch;
use crate::io::{BUFFER_BYTES, IoError, Pace, Reader, Socket, Writer};
use crate::local::Local;
use crate::metrics::UpstreamFailure;
use crate::own_writes;
use crate::reason::Reason;
use crate::reply::{self, Answer};
use crate::task::Task;

/// Interim responses passed on for one request. Nobody needs more; a node that sends them without end is refused.
const INTERIM_MAX: u32 = 8;
/// A client that expects `100 Continue` gets ours after this long, should the node not know the expectation.
const CONTINUE_AFTER: Duration = Duration::from_secs(1);
/// How long the first buffer of a request's body is waited for before a node is asked.
const AHEAD_AT_MOST: Duration = Duration::from_millis(500);
/// Of an answer whose client has gone, after a request that had to run to its end.
const DROPPED_BYTES_MAX: u64 = 1 << 20;
/// Of an error's body in whose place a stale copy is served, read so that the node's connection can be used again …
const REPLACED_BYTES_MAX: u64 = 64 * 1024;
/// … and how long the client waits for that.
const REPLACED_AT_MOST: Duration = Duration::from_millis(100);
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Which side of an exchange ended it.
pub(crate) enum Won<A, B> {
    Client(A),
    Node(B),
}

/// Runs both sides until one ends, the client's first at each turn. The other is left where it stands, to be dropped. Takes
/// them pinned where they are: moving a future into another one doubles its room.
pub(crate) async fn race<A, B>(
    mut client: Pin<&mut impl Future<Output = A>>,
    mut node: Pin<&mut impl Future<Output = B>>,
) -> Won<A, B> {
    poll_fn(|cx| {
        if let Poll::Ready(ended) = client.as_mut().poll(cx) {
            return Poll::Ready(Won::Client(ended));
        }
        node.as_mut().poll(cx).map(Won::Node)
    })
    .await
}

/// What the two sides tell each other.
#[derive(Debug, Default)]
struct Progress {
    /// The node has the whole request.
    sent: Cell<bool>,
    /// The client has seen a final head, or part of one: only its connection's end can tell it of a failure now.
    answered: Cell<bool>,
    /// The client was told to go on with its body.
    continued: Cell<bool>,
    /// An interim head is on its way to the client, or broke off: what came behind it would be taken for its rest.
    writing: Cell<bool>,
    /// Bytes a second that the client must send of its body. None once it is answered: what the two sides then have to
    /// say to each other may come as seldom as they like.
    rate_min: Cell<u64>,
}

/// An exchange that can't be completed.
#[derive(Clone, Copy, Debug)]
struct Broken {
    reason: Reason,
    /// What the balancer is told, where the node is to blame.
    blame: Blame,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self { reason: failure.reason, blame: failure.blame() }
    }
}

impl From<Reason> for Broken {
    fn from(reason: Reason) -> Self {
        Self { reason, blame: None }
    }
}

/// An answer that the node gave to its end, or that its client didn't take to the end.
#[derive(Debug)]
struct Answered {
    /// What becomes of the client's connection, or why something else is answered.
    after: Result<After, Reason>,
    following: Following,
}

/// Passes one request through. The socket's inbox begins with the request's body.
pub(crate) async fn pass(local: &Rc<Local>, socket: &mut Socket, task: &mut Task) -> After {
    let progress = Progress::default();
    progress.rate_min.set(task.send_rate_min());
    let result = if task.request.has_no_body() {
        without_body(local, socket, task, &progress).await
    } else {
        // Boxed: it is large, and most requests have no body.
        Box::pin(with_body(local, socket, task, &progress)).await
    };
    match result {
        Ok(after) => after,
        Err(Broken { reason, .. })
            if reason == Reason::ClientGone || progress.answered.get() || progress.writing.get() =>
        {
            task.account.reason = Some(reason);
            After::Abort
        }
        Err(Broken { reason, .. }) => {
            socket.outbox.clear();
            if let Some(entry) = stand_in(local, task).filter(|_| stale_may_stand_in(reason)) {
                return Box::pin(fetch::answer_stored(
                    local,
                    socket,
                    task,
                    &entry,
                    fetch::Kept::InsteadOfError,
                ))
                .await;
            }
            Box::pin(reply::refuse(local, socket, task, reason)).await
        }
    }
}

/// The stale copy that may be served in a failing node's place, unless it was purged meanwhile.
fn stand_in(local: &Local, task: &mut Task) -> Option<Arc<Entry>> {
    task.stale.take().filter(|entry| local.cache().may_stand_in(entry))
}

/// May a stale copy stand in? RFC 5861 §4 speaks of errors of the origin, not of the client; that the origin can't be asked
/// from here comes to the same.
fn stale_may_stand_in(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NoNode
            | Reason::ConnectTimeout
            | Reason::ResponseTimeout
            | Reason::NodeClosed
            | Reason::BadResponse
            | Reason::LocalLimit
    )
}

async fn without_body(
    local: &Rc<Local>,
    socket: &mut Socket,
    task: &mut Task,
    progress: &Progress,
) -> Result<After, Broken> {
    progress.sent.set(true);
    let safe = task.request.is_safe();
    let (mut reader, mut writer) = socket.split(client_pace(&task.snapshot.config.limits));
    let node_side = async {
        let cluster = task.cluster();
        let mut on_head =
            |head: &ResponseHead<'_>| reply::on_node_head(local, task, head, true, writer.outbox);
        let (mut exchange, answer, following) = open(local, &cluster, &task.request, &mut on_head).await?;
        let mut node = exchange.connection.socket.reader();
        let first = Some((answer, following));
        let picked = &exchange.picked;
        let answered = answer_with((&mut node, picked), first, &mut writer, (local, task), progress).await;
        conclude(local, exchange, answered, progress)
    };
    let node_side = pin!(node_side);
    let client_side = pin!(watch(&mut reader, safe));
    match race(client_side, node_side).await {
        Won::Client(reason) => Err(reason.into()),
        Won::Node(result) => result,
    }
}

async fn with_body(
    local: &Rc<Local>,
    socket: &mut Socket,
    task: &mut Task,
    progress: &Progress,
) -> Result<After, Broken> {
    let cluster = task.cluster();
    let limits = task.snapshot.config.limits;
    if !task.client.expect_continue {
        read_ahead(&mut socket.reader(), task.request.body).await?;
    }
    cluster.balancer.retry_budget().on_request(local.worker.clock.now());
    let mut exchange = acquire(local, &cluster, &task.request, &mut Attempts::default()).await?;
    exchange.queue_head(&task.request);
    let safe = task.request.is_safe();
    let (mut reader, mut writer) = socket.split(client_pace(&limits));
    let pace = exchange.pace();
    let (mut node, mut node_writer) = exchange.connection.socket.split(pace);
    let facts = UploadFacts {
        length: task.request.body,
        expect_continue: task.client.expect_continue,
        response: cluster.timeouts.response,
        response_timer: node.timer,
    };
    let client_side = async {
        match upload(&mut reader, &mut node_writer, &facts, &limits, progress).await {
            Ok(()) => watch(&mut reader, safe).await,
            Err(reason) => reason,
        }
    };
    let node_side = answer_with((&mut node, &exchange.picked), None, &mut writer, (local, task), progress);
    let won = {
        let client_side = pin!(client_side);
        let node_side = pin!(node_side);
        race(client_side, node_side).await
    };
    match won {
        Won::Node(answered) => conclude(local, exchange, answered, progress),
        Won::Client(reason) => {
            exchange.connection.socket.abort();
            Err(reason.into())
        }
    }
}

/// Reads what one buffer takes of the request's body before a node is bothered with it. Then a client that sends slowly
/// has no node waiting for a small body, and one that sends nonsense has none at all. Not for long: a client may want the
/// answer's beginning before it goes on.
async fn read_ahead(client: &mut Reader<'_>, length: BodyLength) -> Result<(), Reason> {
    let mut decoder = BodyDecoder::new(length, &Limits::default());
    let mut seen = 0;
    loop {
        while let Some(unseen) = client.inbox.bytes().get(seen..).filter(|unseen| !unseen.is_empty()) {
            let (consumed, _) = decoder.decode(unseen)?;
            seen += consumed;
            if decoder.is_done() || consumed == 0 {
                break;
            }
        }
        if decoder.is_done() || client.inbox.len() >= BUFFER_BYTES {
            break;
        }
        if !client.timer.is_armed() {
            client.timer.arm(AHEAD_AT_MOST);
        }
        match client.fill_armed().await {
            Ok(_) => {}
            Err(error) if error.is_timeout() => break,
            Err(_) => return Err(Reason::ClientGone),
        }
    }
    client.timer.disarm();
    Ok(())
}

/// What an upload has to know of its request.
#[derive(Clone, Copy, Debug)]
struct UploadFacts<'t> {
    length: BodyLength,
    expect_continue: bool,
    /// How long the node may think once it has everything.
    response: Duration,
    /// On which the node's side waits for the head.
    response_timer: &'t Timer,
}

impl UploadFacts<'_> {
    /// From now on the node has no excuse. Once it has answered, the timer is its body's.
    fn await_head(&self, progress: &Progress) {
        if !progress.answered.get() {
            self.response_timer.arm(self.response);
        }
    }
}

/// Relays the request's body. Never ends while the node alone is at fault: then its answer, or the lack of one, counts.
async fn upload<'p>(
    client: &mut Reader<'p>,
    node: &mut Writer<'_>,
    facts: &UploadFacts<'_>,
    limits: &config::Limits,
    progress: &'p Progress,
) -> Result<(), Reason> {
    let mut decoder = BodyDecoder::new(facts.length, &Limits::default());
    let mut framing = body::Framing::of(facts.length);
    if facts.expect_continue && client.inbox.is_empty() {
        if node.flush().await.is_err() {
            return refused_by_node(facts, progress).await;
        }
        await_body(client, progress).await?;
    }
    let limit = limits.request_body_bytes_max;
    client.demand(&progress.rate_min);
    let source = (&mut decoder, limits.body_idle);
    let relayed = body::relay(client, source, node, &mut framing, limit, |_, _| {}).await;
    client.pause();
    match relayed {
        Ok(RelayEnd::Whole) => {
            progress.sent.set(true);
            facts.await_head(progress);
            Ok(())
        }
        Ok(RelayEnd::TooLarge) => Err(Reason::BodyTooLarge),
        Err(RelayError::Sink(_)) => refused_by_node(facts, progress).await,
        Err(RelayError::Source(error)) => Err(match error {
            BodyError::Malformed(Malformed::Truncated) => Reason::ClientGone,
            BodyError::Malformed(error) => error.into(),
            BodyError::Io(error) if error.is_timeout() => Reason::BodyTimeout,
            BodyError::Io(_) => Reason::ClientGone,
        }),
    }
}

/// The node takes no more of the request. It may have answered before it stopped, so reading goes on.
async fn refused_by_node(facts: &UploadFacts<'_>, progress: &Progress) -> Result<(), Reason> {
    facts.await_head(progress);
    pending().await
}

/// Waits for the client's body, and asks for it should the node not do so. RFC 9110 §10.1.1 has the expectation passed on;
/// a node that doesn't know it would leave both sides waiting.
async fn await_body(client: &mut Reader<'_>, progress: &Progress) -> Result<(), Reason> {
    match client.fill(CONTINUE_AFTER).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_timeout() => {
            let between = !progress.answered.get() && !progress.writing.get();
            let told = !between || progress.continued.replace(true) || client.interject(CONTINUE);
            if told { Ok(()) } else { Err(Reason::ClientGone) }
        }
        Err(_) => Err(Reason::ClientGone),
    }
}

/// Watches a client that has sent its whole request. Its next request waits in the buffer; when it goes away, a safe
/// request is over, and another runs to its end.
pub(crate) async fn watch(client: &mut Reader<'_>, safe: bool) -> Reason {
    loop {
        if !client.inbox.has_room() {
            // It may pipeline more than is read; it must be missed all the same.
            client.gone().await;
            break;
        }
        if !matches!(poll_fn(|cx| client.poll_fill(cx)).await, Ok(1..)) {
            break;
        }
    }
    if safe {
        return Reason::ClientGone;
    }
    pending().await
}

/// Reads the node's heads from `first` on and relays the final one's body.
async fn answer_with(
    (node, picked): (&mut Reader<'_>, &Picked),
    first: Option<(Answer, Following)>,
    client: &mut Writer<'_>,
    (local, task): (&Local, &mut Task),
    progress: &Progress,
) -> Result<Answered, Broken> {
    let (answer, mut following) = final_head((node, picked), first, client, (local, task), progress).await?;
    let coming = Coming::new(picked, &following, local);
    if is_error(answer.status)
        && let Some(entry) = stand_in(local, task)
    {
        task.stale = Some(entry);
        let _ =
            Box::pin(body::discard(node, &mut following.decoder, REPLACED_AT_MOST, REPLACED_BYTES_MAX)).await;
        return Ok(Answered { after: Err(Reason::BadResponse), following });
    }
    progress.answered.set(true);
    progress.rate_min.set(0);
    task.account.status = answer.status;
    let mut framing = answer.framing;
    let idle = task.timeouts().idle;
    let before = client.written;
    let mut recording = task.recording.take();
    let record = |payload: &[u8], ended| {
        recording.iter_mut().for_each(|recording| recording.push(payload));
        if ended {
            recording.take().map(tenfold_cache::Recording::finish);
        }
    };
    let source = (&mut following.decoder, idle);
    let moved = body::relay(node, source, client, &mut framing, u64::MAX, record).await;
    task.account.body_bytes = (client.written - before).saturating_sub(answer.head_bytes);
    match moved {
        Ok(RelayEnd::Whole | RelayEnd::TooLarge) => {}
        Err(RelayError::Source(error)) => {
            coming.broke();
            return Err(broken_by_node(&error));
        }
        // The answer contradicts the length it announced.
        Err(RelayError::Sink(BodyError::Malformed(_))) => {
            coming.broke();
            return Err(broken_by_node(&Malformed::Truncated.into()));
        }
        Err(RelayError::Sink(BodyError::Io(error))) => {
            if !task.request.is_safe() {
                let _ = Box::pin(body::discard(node, &mut following.decoder, idle, DROPPED_BYTES_MAX)).await;
            }
            task.account.reason = Some(client_reason(&error));
            return Ok(Answered { after: Ok(After::Abort), following });
        }
    }
    Ok(Answered { after: Ok(After::of(answer.close)), following })
}

/// Passes interim heads on until the final one comes. That one is left in the client's outbox.
async fn final_head(
    (node, picked): (&mut Reader<'_>, &Picked),
    mut first: Option<(Answer, Following)>,
    client: &mut Writer<'_>,
    (local, task): (&Local, &Task),
    progress: &Progress,
) -> Result<(reply::Final, Following), Broken> {
    for _ in 0..=INTERIM_MAX {
        let (answer, following) = match first.take() {
            Some(first) => first,
            None => {
                let mut on_head = |head: &ResponseHead<'_>| {
                    reply::on_node_head(local, task, head, progress.sent.get(), client.outbox)
                };
                let read = read_head(node, task.request.method, &mut on_head).await?;
                report_head(picked, &read.1, local);
                read
            }
        };
        match answer {
            Answer::Final(answer) => {
                let told = own_writes::tell(local, task, client.outbox).await;
                let answer = reply::Final { head_bytes: answer.head_bytes + told, ..answer };
                return Ok((answer, following));
            }
            Answer::Interim { is_continue } if is_continue && progress.continued.replace(true) => {
                client.outbox.clear();
            }
            // A client that can't be reached is noticed by the other side, or with the final head: nothing is written
            // behind a write that failed.
            Answer::Interim { .. } => {
                progress.writing.set(true);
                if client.flush().await.is_ok() {
                    progress.writing.set(false);
                }
            }
        }
    }
    Err(Broken { reason: Reason::BadResponse, blame: Some((UpstreamFailure::Malformed, Outcome::Reset)) })
}

fn broken_by_node(error: &BodyError) -> Broken {
    let (reason, outcome) = match error {
        BodyError::Io(error) if error.is_timeout() => (Reason::ResponseStalled, Outcome::Timeout),
        BodyError::Io(_) | BodyError::Malformed(Malformed::Truncated) => {
            (Reason::ResponseTruncated, Outcome::Reset)
        }
        BodyError::Malformed(_) => (Reason::BadResponse, Outcome::Reset),
    };
    Broken { reason, blame: Some((UpstreamFailure::Body, outcome)) }
}

/// Keeps the node's connection or gives it up, and says what becomes of the client's.
fn conclude(
    local: &Local,
    exchange: Exchange,
    answered: Result<Answered, Broken>,
    progress: &Progress,
) -> Result<After, Broken> {
    match answered {
        Ok(Answered { after, following }) => {
            if progress.sent.get() {
                exchange.finish(&following, local);
            }
            after.map_err(Broken::from)
        }
        Err(broken) => {
            exchange.fail(broken.blame, local);
            Err(broken)
        }
    }
}

/// How slowly a client may take its answer.
pub(crate) fn client_pace(limits: &config::Limits) -> Pace {
    Pace { idle: limits.body_idle, rate_min: limits.send_rate_min }
}

/// What is said of a client that didn't take its answer.
pub(crate) fn client_reason(error: &IoError) -> Reason {
    if error.is_timeout() { Reason::SlowReader } else { Reason::ClientGone }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_copy_stands_in_where_the_client_did_nothing_wrong() {
        for reason in Reason::OWN {
            // None of those that say 4xx is about the origin.
            assert!(reason.status() >= 500 || !stale_may_stand_in(reason), "{reason:?}");
        }
        for reason in [Reason::NoNode, Reason::NodeClosed, Reason::LocalLimit] {
            assert!(stale_may_stand_in(reason), "{reason:?}");
        }
    }
}
