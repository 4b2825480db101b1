//! Fetching what the cache has not: one task asks the origin, and whoever wants the answer follows it.
//!
//! **Intuition.** A fill belongs to nobody in particular. The request that began it follows it like all others, and when
//! it goes away the fill goes on for those that are left. So the fetching ([`begin`]) and the following ([`follow`]) know
//! nothing of each other; the cache stands between them.
//!
//! **Mechanism.** The fetching side is one exchange with a node, as for a request passed through, with the cache in the
//! client's place. The following side turns the cache's events into an answer.
//!
//! **Failure.** A body that does not end as announced fails the fill: nothing is stored, and followers that have seen the
//! head are cut. Where the cache holds a stale copy that may stand in, followers get that instead. Nobody waits longer
//! for a head than asking for themselves would take.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tenfold_balance::Outcome;
use tenfold_cache::tier::Answer;
use tenfold_cache::{
    CacheStatus, Entry, Event, FailReason, Fill, Follower, Forward, HeadOutcome, Hit, Join, KeyBuf,
    ReleaseReason, RequestFacts, Tier,
};
use tenfold_http1::{BodyLength, Error as Malformed, Method, ResponseHead};
use tenfold_service::timer::Timer;

use crate::body::{self, BodyError, Framing};
use crate::conn::After;
use crate::exchange::{Coming, Exchange, Following, NodeRequest, open, patience, read_head, report_head};
use crate::forward::{fields_to_keep, told_scheme, varies_by_each, write_fill_head};
use crate::io::{IoError, Reader, Socket, Writer, give_outbox, take_outbox};
use crate::local::Local;
use crate::metrics::{CacheOutcome, UpstreamFailure};
use crate::pass::{Won, client_pace, client_reason, pass, race, watch};
use crate::reason::Reason;
use crate::reply::{self, write_stored};
use crate::task::Task;
use crate::upstream::ClusterState;

/// Interim responses passed on in one fetch. Nobody needs more; a node that sends them without end is refused.
const INTERIM_MAX: u32 = 8;
/// Of a body that nobody wants, read so that the connection can be used again.
const UNWANTED_BYTES_MAX: u64 = 64 * 1024;
/// Between two questions of who waits for another edge.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(2);
/// The same, once it has waited for a while.
const ASK_AGAIN_MAX: Duration = Duration::from_millis(250);
/// In between, a share of how long it has waited: that is how much later than it could it hears of the answer.
const ASK_AGAIN_DIVISOR: u32 = 16;
/// Questions of one fill, however short its waits are.
const ASKS_MAX: u32 = 2000;
/// How often followers that hold a fill up are looked at.
const SLOW_EVERY: Duration = Duration::from_secs(1);
/// How often one request may join a fill that turns out not to be for it.
const JOINS_MAX: u32 = 3;

/// A fill's request, with and without its condition.
#[derive(Debug)]
struct FillRequest {
    /// Without the empty line.
    plain: Vec<u8>,
    /// Field lines; empty if there is nothing to ask about.
    validators: Vec<u8>,
}

impl FillRequest {
    fn request(&self, conditional: bool) -> NodeRequest {
        let mut head = take_outbox();
        head.extend_from_slice(&self.plain);
        if conditional {
            head.extend_from_slice(&self.validators);
        }
        head.extend_from_slice(b"\r\n");
        NodeRequest::new(head, Method::Get, BodyLength::None)
    }
}

impl Drop for FillRequest {
    fn drop(&mut self) {
        give_outbox(std::mem::take(&mut self.plain));
    }
}

/// Runs a fill on this worker, in a task of its own. `plain` is the request for it, without conditions and without the
/// empty line. It ends with the answer, with its failure, or when nobody follows any more.
pub(crate) fn begin(
    local: &Rc<Local>,
    cluster: Arc<ClusterState>,
    fill: Fill,
    plain: Vec<u8>,
    rate_min: u64,
) {
    let mut validators = Vec::new();
    fill.write_conditional(&mut validators);
    let request = FillRequest { plain, validators };
    let owned = Rc::clone(local);
    let task = async move {
        let filling = Filling { local: &owned, cluster, fill: RefCell::new(fill), rate_min };
        filling.run(&request).await;
    };
    // It ends by itself: every wait within it has a limit.
    drop(local.worker.spawn(task));
}

/// A fill at work.
struct Filling<'l> {
    local: &'l Rc<Local>,
    cluster: Arc<ClusterState>,
    /// Shared by the fetch and by the watch for its being abandoned, which take turns in one task.
    fill: RefCell<Fill>,
    rate_min: u64,
}

/// What the head of a fetch meant.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Interim,
    Final(HeadOutcome),
}

impl Filling<'_> {
    async fn run(self, request: &FillRequest) {
        let fetched = {
            let abandoned = pin!(poll_fn(|cx| self.fill.borrow_mut().poll_abandoned(cx)));
            let fetch = pin!(self.consult_or_fetch(request));
            race(abandoned, fetch).await
        };
        let now = self.local.timestamp();
        let fill = self.fill.into_inner();
        match fetched {
            Won::Client(()) => fill.fail(FailReason::Abandoned, now),
            Won::Node(Err(reason)) => fill.fail(reason, now),
            Won::Node(Ok(Ended::Whole)) => drop(fill.finish(now)),
            // The followers have been given something else.
            Won::Node(Ok(Ended::Settled)) => drop(fill),
        }
    }

    /// Asks the tier that edges share first, if there is one.
    async fn consult_or_fetch(&self, request: &FillRequest) -> Result<Ended, FailReason> {
        if self.consult().await {
            return Ok(Ended::Settled);
        }
        let began = self.local.worker.clock.now();
        self.cluster.refills.observe(self.cluster.balancer.in_flight() + 1, self.local.timestamp());
        let ended = self.fetch(request).await?;
        if matches!(ended, Ended::Whole) {
            self.cluster.fetch_time.observe(self.local.worker.clock.now() - began);
        }
        Ok(ended)
    }

    /// Whether the shared tier had the answer. Waits for another edge that is fetching it, on routes that have one edge
    /// fetch for all, and no longer than fetching takes. For the tier's own answers it waits no longer than the budget, all
    /// of them together.
    async fn consult(&self) -> bool {
        let Some(tier) = self.local.cache().tier() else { return false };
        let mut held = false;
        let found = self.ask_tier(tier, &mut held).await;
        if held {
            tier.count_wait(!found);
        }
        found
    }

    /// As [`consult`](Self::consult); `held` becomes whether it had to wait for another edge.
    async fn ask_tier(&self, tier: &Arc<Tier>, held: &mut bool) -> bool {
        // Half of what the request may take: who holds the lock and is lost costs the others no more.
        let lease = self.cluster.timeouts.response / 2;
        let Some(mut question) = self.fill.borrow().question(Some(lease)) else { return false };
        let patience = self.cluster.fetch_time.patience(lease);
        let clock = &self.local.worker.clock;
        let began = clock.now();
        let mut left = tier.budget(&question);
        for _ in 0..ASKS_MAX {
            let asked = clock.now();
            let waited = asked - began;
            let answer = tier.ask(question.clone(), left).await;
            left = left.saturating_sub(clock.now() - asked);
            match answer {
                Answer::Found(found) => {
                    let now = self.local.timestamp();
                    if self.fill.borrow_mut().answer_from(&found, &mut question, now) {
                        return true;
                    }
                    if !question.has_lease() {
                        return false;
                    }
                }
                Answer::Lead(lease) => {
                    self.fill.borrow_mut().lead_for_all(lease);
                    return false;
                }
                Answer::Held if waited < patience && !left.is_zero() => {
                    *held = true;
                    let pause = waited / ASK_AGAIN_DIVISOR;
                    tokio::time::sleep(pause.clamp(ASK_AGAIN_MIN, ASK_AGAIN_MAX)).await;
                }
                Answer::Held | Answer::Late | Answer::Uncacheable | Answer::Nothing => return false,
            }
        }
        false
    }

    async fn fetch(&self, request: &FillRequest) -> Result<Ended, FailReason> {
        let (exchange, outcome, following) = match self.ask(request, true).await? {
            (exchange, HeadOutcome::Refetch, following) => {
                self.drop_body(exchange, following).await;
                self.ask(request, false).await?
            }
            asked => asked,
        };
        match outcome {
            HeadOutcome::Store | HeadOutcome::Stream(_) => self.receive(exchange, following).await,
            HeadOutcome::UseStale | HeadOutcome::NotModified => {
                self.drop_body(exchange, following).await;
                Ok(Ended::Settled)
            }
            HeadOutcome::Refetch | HeadOutcome::Invalid => Err(FailReason::Invalid),
        }
    }

    /// Sends the request and shows the cache the final head.
    async fn ask(
        &self,
        request: &FillRequest,
        conditional: bool,
    ) -> Result<(Exchange, HeadOutcome, Following), FailReason> {
        let request = request.request(conditional);
        let mut on_head = |head: &ResponseHead<'_>| {
            let fields = fields_to_keep(&head.fields, head.names_hop_by_hop);
            if head.is_interim() {
                self.fill.borrow_mut().on_interim(head.status, &fields);
                return Seen::Interim;
            }
            let length = reply::body_length(head);
            let now = self.local.timestamp();
            let mut fill = self.fill.borrow_mut();
            fill.set_varies_by_each(varies_by_each(&head.fields));
            Seen::Final(fill.on_head(head.status, &fields, length, now))
        };
        let opened = open(self.local, &self.cluster, &request, &mut on_head).await;
        let (mut exchange, mut seen, mut following) =
            opened.map_err(|failure| fail_reason(failure.reason))?;
        for _ in 0..=INTERIM_MAX {
            if let Seen::Final(outcome) = seen {
                return Ok((exchange, outcome, following));
            }
            let mut reader = exchange.connection.socket.reader();
            match read_head(&mut reader, Method::Get, &mut on_head).await {
                Ok(next) => {
                    (seen, following) = next;
                    report_head(&exchange.picked, &following, self.local);
                }
                Err(failure) => {
                    exchange.fail(failure.blame(), self.local);
                    return Err(fail_reason(failure.reason));
                }
            }
        }
        exchange.fail((UpstreamFailure::Malformed, Outcome::Reset), self.local);
        Err(FailReason::Invalid)
    }

    /// Hands the body to the cache as it comes, no faster than followers take it where they matter.
    async fn receive(&self, mut exchange: Exchange, mut following: Following) -> Result<Ended, FailReason> {
        let idle = self.cluster.timeouts.idle;
        let coming = Coming::new(&exchange.picked, &following, self.local);
        loop {
            let mut reader = exchange.connection.socket.reader();
            let piece = match body::next(&mut reader, &mut following.decoder, idle).await {
                Ok(piece) => piece,
                Err(error) => {
                    let (outcome, reason) = broken_body(&error);
                    coming.broke();
                    exchange.fail((UpstreamFailure::Body, outcome), self.local);
                    return Err(reason);
                }
            };
            if !piece.is_empty() {
                let chunk = Bytes::copy_from_slice(piece.bytes(reader.inbox));
                self.fill.borrow_mut().push(chunk);
            }
            if piece.ended {
                drop(coming);
                exchange.finish(&following, self.local);
                return Ok(Ended::Whole);
            }
            self.writable(&mut reader).await;
        }
    }

    /// Waits until more of the body is welcome; followers that hold it up and take too little are cut.
    async fn writable(&self, reader: &mut Reader<'_>) {
        loop {
            let timer = reader.timer;
            let waited = poll_fn(|cx| {
                if self.fill.borrow_mut().poll_writable(cx).is_ready() {
                    return Poll::Ready(true);
                }
                if !timer.is_armed() {
                    timer.arm(SLOW_EVERY);
                }
                timer.poll_expired(cx).map(|()| false)
            })
            .await;
            timer.disarm();
            if waited {
                return;
            }
            self.fill.borrow_mut().cut_slow(self.rate_min, self.local.timestamp());
        }
    }

    /// Reads past a body that nobody wants, if that is cheaper than a new connection.
    async fn drop_body(&self, mut exchange: Exchange, mut following: Following) {
        let idle = self.cluster.timeouts.idle;
        let coming = Coming::new(&exchange.picked, &following, self.local);
        let mut reader = exchange.connection.socket.reader();
        if body::discard(&mut reader, &mut following.decoder, idle, UNWANTED_BYTES_MAX).await {
            drop(coming);
            exchange.finish(&following, self.local);
        } else {
            // Too long or broken: it speaks neither for the node nor against it.
            coming.broke();
        }
    }
}

/// How a fetch ended well.
#[derive(Clone, Copy, Debug)]
enum Ended {
    /// The body is whole.
    Whole,
    /// The cache had what the followers needed.
    Settled,
}

fn fail_reason(reason: Reason) -> FailReason {
    match reason {
        Reason::NoNode => FailReason::Connect,
        Reason::ConnectTimeout | Reason::ResponseTimeout => FailReason::Timeout,
        Reason::NodeClosed => FailReason::Truncated,
        Reason::LocalLimit => FailReason::Local,
        _ => FailReason::Invalid,
    }
}

fn broken_body(error: &BodyError) -> (Outcome, FailReason) {
    match error {
        BodyError::Io(IoError::Idle | IoError::TooSlow) => (Outcome::Timeout, FailReason::Timeout),
        BodyError::Io(IoError::Closed | IoError::Lost(_)) | BodyError::Malformed(Malformed::Truncated) => {
            (Outcome::Reset, FailReason::Truncated)
        }
        BodyError::Malformed(_) => (Outcome::Reset, FailReason::Invalid),
    }
}

/// What following came to.
enum Followed {
    Answered(After),
    Stored(Arc<Entry>, Kept),
    Released(ReleaseReason),
    Failed(Reason),
    /// The head was sent, and the rest will not come.
    Broken(Reason),
}

/// What a stored response is to the request that it answers, when that was not so from the start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept {
    /// The origin said that it holds, or another edge had fetched it.
    Confirmed,
    /// It stands in for an error.
    InsteadOfError,
    /// It was stored while the request looked elsewhere, and is fresh for so many seconds.
    Hit { ttl_s: i64 },
}

/// What a request does that the fill it followed was not for.
enum Rejoined {
    Follows(Follower),
    Stored(Hit),
}

/// Answers a request from a fill.
pub(crate) async fn follow(
    local: &Rc<Local>,
    socket: &mut Socket,
    task: &mut Task,
    mut follower: Follower,
) -> After {
    for _ in 0..JOINS_MAX {
        match follow_once(local, socket, task, follower).await {
            Followed::Answered(after) => return after,
            Followed::Stored(entry, kept) => {
                return answer_stored(local, socket, task, &entry, kept).await;
            }
            Followed::Failed(reason) => return reply::refuse(local, socket, task, reason).await,
            Followed::Broken(reason) => {
                task.account.reason = Some(reason);
                return After::Abort;
            }
            Followed::Released(reason) => {
                task.cache.detail = Some(reason.as_str());
                task.cache.collapsed = false;
                match rejoin(local, task, reason) {
                    Some(Rejoined::Follows(next)) => follower = next,
                    Some(Rejoined::Stored(Hit { entry, ttl_s, .. })) => {
                        return answer_stored(local, socket, task, &entry, Kept::Hit { ttl_s }).await;
                    }
                    None => break,
                }
            }
        }
    }
    task.account.cache = Some(CacheOutcome::Bypass);
    pass(local, socket, task).await
}

/// Another fill may be the right one for this request: one for other values of the headers in `Vary`, or a new one.
fn rejoin(local: &Rc<Local>, task: &Task, reason: ReleaseReason) -> Option<Rejoined> {
    if !reason.may_join_again() {
        return None;
    }
    let (_, _, host) = task.request.described();
    let joined = task.with_head(|head, fields| {
        let rule = &task.route().rule;
        let facts = RequestFacts::read(head.method_text, fields).under(rule).needing(task.floor());
        let mut key = KeyBuf::new();
        task.route().key(&mut key, told_scheme(fields), host, (head.path, head.query), &facts);
        match local.cache().join(&key, &facts, rule, None, local.worker.index, local.timestamp()) {
            Join::Lead(fill, follower) => {
                let mut plain = take_outbox();
                write_fill_head(&mut plain, head, rule.compress().is_some());
                begin(local, task.cluster(), fill, plain, task.send_rate_min());
                Some(Rejoined::Follows(follower))
            }
            Join::Follow(follower) => Some(Rejoined::Follows(follower)),
            Join::Stored(hit) => Some(Rejoined::Stored(hit)),
            Join::Alone(_) => None,
        }
    });
    joined.flatten()
}

/// Follows a fill to the end of what it has for this request.
async fn follow_once(
    local: &Rc<Local>,
    socket: &mut Socket,
    task: &mut Task,
    mut follower: Follower,
) -> Followed {
    let limits = task.snapshot.config.limits;
    let (mut reader, mut writer) = socket.split(client_pace(&limits));
    let timer = reader.timer;
    let following = async {
        let cluster = task.cluster();
        let first = loop {
            timer.arm(patience(&cluster));
            match next_event(&mut follower, timer).await {
                Some(Event::Interim(interim)) => {
                    reply::write_shared_interim(task, &interim, writer.outbox);
                    if let Err(error) = writer.flush().await {
                        return Followed::Broken(client_reason(&error));
                    }
                }
                other => break other,
            }
        };
        let before = writer.written;
        let head = match first {
            Some(Event::Head(head)) => head,
            Some(Event::Entry(entry)) => return Followed::Stored(entry, Kept::Confirmed),
            Some(Event::Stale(entry)) => return Followed::Stored(entry, Kept::InsteadOfError),
            Some(Event::Released(reason)) => return Followed::Released(reason),
            Some(Event::Failed(reason)) => return Followed::Failed(refusal_for(reason)),
            // A body without a head can't be, and the interim ones are through.
            Some(Event::Chunk(_) | Event::End | Event::Interim(_)) => {
                return Followed::Failed(Reason::Internal);
            }
            None => return Followed::Failed(Reason::ResponseTimeout),
        };
        let answer = reply::write_fetched(local, task, &head, writer.outbox);
        task.account.status = answer.status;
        let sent = write_body(&mut follower, timer, cluster.timeouts.idle, &mut writer, answer).await;
        task.account.body_bytes = (writer.written - before).saturating_sub(answer.head_bytes);
        match sent {
            Ok(()) => Followed::Answered(After::of(answer.close)),
            Err(reason) => Followed::Broken(reason),
        }
    };
    let following = pin!(following);
    let watching = pin!(watch(&mut reader, true));
    match race(watching, following).await {
        Won::Client(reason) => Followed::Broken(reason),
        Won::Node(followed) => followed,
    }
}

/// What happens next, or nothing by the timer's end.
async fn next_event(follower: &mut Follower, timer: &Timer) -> Option<Event> {
    let event = poll_fn(|cx| {
        if let Poll::Ready(event) = follower.poll_event(cx) {
            return Poll::Ready(Some(event));
        }
        timer.poll_expired(cx).map(|()| None)
    })
    .await;
    timer.disarm();
    event
}

/// Writes the body as it comes. A client that wants none of it still follows to the end, so that what it began is stored.
async fn write_body(
    follower: &mut Follower,
    timer: &Timer,
    idle: Duration,
    writer: &mut Writer<'_>,
    answer: reply::Final,
) -> Result<(), Reason> {
    let mut framing = answer.framing;
    if framing == Framing::None {
        writer.flush().await.map_err(|error| unsent(&error.into()))?;
    }
    loop {
        let event = match poll_fn(|cx| Poll::Ready(follower.poll_event(cx))).await {
            Poll::Ready(event) => Some(event),
            Poll::Pending => {
                // A head that waits for company goes alone rather than wait for it.
                if !writer.outbox.is_empty() {
                    writer.flush().await.map_err(|error| unsent(&error.into()))?;
                }
                timer.arm(idle);
                next_event(follower, timer).await
            }
        };
        match event {
            Some(Event::Chunk(chunk)) => {
                framing.write(writer, &chunk, false).await.map_err(|error| unsent(&error))?;
            }
            Some(Event::End | Event::Entry(_)) => {
                return framing.write(writer, &[], true).await.map_err(|error| unsent(&error));
            }
            Some(Event::Failed(FailReason::TooSlow)) => return Err(Reason::SlowReader),
            Some(_) => return Err(Reason::ResponseTruncated),
            None => return Err(Reason::ResponseStalled),
        }
    }
}

fn unsent(error: &BodyError) -> Reason {
    match error {
        BodyError::Io(error) => client_reason(error),
        BodyError::Malformed(_) => Reason::ResponseTruncated,
    }
}

fn refusal_for(reason: FailReason) -> Reason {
    match reason {
        FailReason::Connect | FailReason::Refused => Reason::NoNode,
        FailReason::Timeout => Reason::ResponseTimeout,
        FailReason::Truncated => Reason::NodeClosed,
        FailReason::TooSlow => Reason::SlowReader,
        FailReason::Local => Reason::LocalLimit,
        FailReason::Abandoned | FailReason::Dropped => Reason::Internal,
        _ => Reason::BadResponse,
    }
}

/// Answers from a stored response that a fill brought to light.
pub(crate) async fn answer_stored(
    local: &Rc<Local>,
    socket: &mut Socket,
    task: &mut Task,
    entry: &Entry,
    kept: Kept,
) -> After {
    let close = local.closes(&task.client);
    let age_s = entry.age_s(local.timestamp());
    let (cache, outcome) = match kept {
        Kept::Hit { ttl_s } => (CacheStatus::hit(ttl_s), CacheOutcome::Hit),
        Kept::InsteadOfError => (CacheStatus::forward(Forward::Stale), CacheOutcome::Stale),
        Kept::Confirmed if entry.is_from_tier() => {
            let cache = CacheStatus { hit: true, detail: Some("shared"), ..CacheStatus::default() };
            (cache, CacheOutcome::Shared)
        }
        Kept::Confirmed => {
            let asked = matches!(task.cache.forward, Some(Forward::Stale | Forward::Request));
            let cache = CacheStatus { forward_status: asked.then_some(304), ..task.cache };
            (cache, CacheOutcome::Revalidated)
        }
    };
    let ours = task.ours(cache, close);
    let head_only = task.client.head_only;
    let mut out = std::mem::take(&mut socket.outbox);
    let stored = task.with_facts(|facts| {
        let shown = entry.represent(facts, &task.route().rule);
        write_stored(&mut out, entry, &shown, facts, (head_only, age_s), &ours)
    });
    socket.outbox = out;
    let Some(stored) = stored else { return reply::refuse(local, socket, task, Reason::Internal).await };
    task.account.status = stored.status;
    task.account.cache = Some(outcome);
    task.account.body_bytes = stored.body_bytes;
    let pace = client_pace(&task.snapshot.config.limits);
    let mut writer = socket.writer(pace);
    let written = match &stored.rest {
        Some(body) => writer.write_body(body).await,
        None => writer.flush().await,
    };
    match written {
        Ok(()) => After::of(close),
        Err(error) => {
            task.account.reason = Some(unsent(&error.into()));
            After::Abort
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followers_are_told_what_was_told_to_the_fetch() {
        for reason in [
            Reason::NoNode,
            Reason::ResponseTimeout,
            Reason::NodeClosed,
            Reason::BadResponse,
            Reason::LocalLimit,
        ] {
            assert_eq!(refusal_for(fail_reason(reason)), reason);
        }
    }
}
