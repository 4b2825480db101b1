//! Fills: one fetch, many followers.
//!
//! **Intuition.** When a thousand requests want what nobody has stored, one of them fetches and all read along. The
//! fetch is a task of its own rather than the first request's, so it goes on while anyone follows, whoever leaves.
//!
//! **Mechanism.** The task owns a [`Fill`]: it says what the origin answered, pushes the body, finishes. Each request
//! owns a [`Follower`] on whatever worker: it hears of a head, chunks and an end, as they come.
//!
//! ```text
//! waiting ─ on_head ─┬─ storable ──────► keep ─┬─ finish ─► stored, End
//!                    │                         └─ too long ─► window (nobody joins) ─ finish ─► End
//!                    ├─ not storable ──► others Released; window for the lead ─ finish ─► End
//!                    ├─ 304 to us ─────► stored entry freshened, Entry
//!                    └─ 5xx, stale ok ─► Stale
//! any ─ fail, drop ─► Stale if no head yet and stale is ok, else Failed
//! ```
//!
//! **Failure.** A response that turns out not to be storable releases the followers at once, to fetch in parallel, and
//! the key is remembered. A body that ends short is never stored and never ended: followers get `Failed`, and the edge
//! cuts their connections. A purge during the fetch keeps its result out of the store (see [`crate::purge`]).

mod request;
mod shared;
mod state;
mod table;
mod tier;
mod waiting;

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use smallvec::SmallVec;

pub(crate) use request::KeptFields;
pub(crate) use shared::Shared;
pub(crate) use shared::{Class, Fit, Identity};
use state::{Body, End, SlotId};
pub(crate) use table::{FILLS_PER_KEY_MAX, Fills, Place};

use crate::body::Body as StoredBody;
use crate::cache::Cache;
use crate::permit::Permit;
use crate::policy::conditional::{write_conditional, write_none_match};
use crate::policy::freshness::{
    Decision, decide, drops_cookies, is_error, is_shareable, is_the_request_s, speaks_of_the_resource,
    standing, usable_on_error,
};
use crate::policy::response::StoredFacts;
use crate::policy::vary::Vary;
use crate::policy::{RequestFacts, ResponseFacts, Timestamp, freshen, storable};
use crate::purge::{PurgeState, Slots};
use crate::stats::count;
use crate::tier::Lease;
use crate::{Entry, FailReason, Field, Head, Interim, ReleaseReason, Rule, Uncacheable};

/// The fetching side. Owned by its task; dropping it unfinished fails it.
#[derive(Debug)]
pub struct Fill {
    cache: Arc<Cache>,
    shared: Arc<Shared>,
    key: Box<[u8]>,
    rule: Rule,
    revalidating: Option<Arc<Entry>>,
    /// It is asked for without the condition, which met a 304 about something else; the entry may still stand in.
    is_unconditional: bool,
    /// Other variants that the origin may find to be the answer, each [for others too](Entry::may_answer_others).
    candidates: SmallVec<[Arc<Entry>; 2]>,
    /// When the request is sent, for the age of what comes back.
    requested: Timestamp,
    /// What to store once the body is complete.
    storing: Option<StoredFacts>,
    varies_by_each: bool,
    /// One of the fills that may run.
    _permit: Permit,
    /// One of the few that may renew what is suspect at once.
    refilling: Option<Permit>,
    /// The right to fetch for all edges, until what was fetched is on its way to them.
    lease: Option<Lease>,
}

/// The receiving side. Dropping it stops following.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
    slot: SlotId,
    /// For the response's `Vary`; the lead's own request needs no check.
    request: Option<KeptFields>,
}

/// What a follower learns, in this order: interim responses, a head, chunks, an end; or, after any interim ones, one of the
/// others alone.
#[derive(Debug)]
pub enum Event {
    /// An interim response, to be passed on to clients that know such. Before the head; there may be several.
    Interim(Arc<Interim>),
    /// The response's head.
    Head(Arc<Head>),
    /// A piece of the body.
    Chunk(Bytes),
    /// The body is complete.
    End,
    /// The answer is this stored response, fresh: the origin said 304, or another edge had fetched it.
    Entry(Arc<Entry>),
    /// The origin failed; this stale copy may be served instead.
    Stale(Arc<Entry>),
    /// Make your own request.
    Released(ReleaseReason),
    /// There is no answer; after a head, the client's connection has to be cut.
    Failed(FailReason),
}

/// What to do with the origin's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadOutcome {
    /// Push the body; it will be stored when finished.
    Store,
    /// Push the body, for the lead alone; nobody else follows any more. A refresh has no lead: drop the fill.
    Stream(Uncacheable),
    /// Drop the body: the followers got a stale copy. The fill has ended.
    UseStale,
    /// Drop the body, if any: what was stored has been freshened and the followers have it. The fill has ended.
    NotModified,
    /// A 304 to something else than what is stored: ask again without a condition, and call `on_head` again.
    Refetch,
    /// A 304 that nobody asked for, or a head too large to pass on: `fail(FailReason::Invalid)`.
    Invalid,
}

/// What the lead alone gets is held in a window of this size. Two of the edge's read buffers would do; this keeps the
/// origin's connection busy while the client's drains.
const LEAD_WINDOW_BYTES: u64 = 256 << 10;
/// How long a key is remembered as uncacheable. A later response that can be stored forgets it sooner.
const REMEMBERED_S: u64 = 60;
/// The same for an error, which says little about the next response.
const REMEMBERED_ERROR_S: u64 = 1;

impl Fill {
    pub(crate) fn new(
        cache: Arc<Cache>,
        shared: Arc<Shared>,
        key: &[u8],
        rule: &Rule,
        revalidating: Option<Arc<Entry>>,
        requested: Timestamp,
        permit: Permit,
    ) -> Self {
        let (key, rule) = (key.into(), rule.clone());
        let candidates = SmallVec::new();
        Self {
            cache,
            shared,
            key,
            rule,
            revalidating,
            is_unconditional: false,
            candidates,
            requested,
            storing: None,
            varies_by_each: false,
            _permit: permit,
            refilling: None,
            lease: None,
        }
    }

    /// Counted among those that renew what is suspect, if it is one.
    pub(crate) fn holding(mut self, refilling: Option<Permit>) -> Self {
        self.refilling = refilling;
        self
    }

    /// With the variants stored for other requests, whose tags the origin is asked about too. RFC 9111 §4.3.1.
    pub(crate) fn with_candidates(mut self, candidates: SmallVec<[Arc<Entry>; 2]>) -> Self {
        self.candidates = candidates;
        self
    }

    /// The entry whose validators make the request conditional, if any.
    #[must_use]
    pub fn revalidating(&self) -> Option<&Arc<Entry>> {
        self.revalidating.as_ref().filter(|_| !self.is_unconditional)
    }

    /// Appends the fields that make the request conditional: on what is being revalidated, or on any of the variants that
    /// are stored for other requests. Nothing where there is nothing to ask about.
    pub fn write_conditional(&self, out: &mut Vec<u8>) {
        if let Some(entry) = self.revalidating() {
            write_conditional(&entry.validators(), out);
            return;
        }
        write_none_match(self.candidates.iter().filter_map(|entry| entry.etag()), out);
    }

    /// An interim response has arrived: followers pass it on. `100` and `101` are between two hops.
    pub fn on_interim(&mut self, status: u16, response_fields: &[Field<'_>]) {
        let passed = (102..=199).contains(&status);
        let Some(head) = freshen::write_interim(response_fields).filter(|_| passed) else { return };
        let woken = {
            let mut state = self.shared.lock();
            if state.head.is_some() || state.interim.len() == state::INTERIM_MAX {
                return;
            }
            state.interim.push(Arc::new(Interim { status, head }));
            state.wake_all()
        };
        self.shared.wake(woken);
    }

    /// Before [`Fill::on_head`]: the response varies by what is different for each request, so that it is treated as one
    /// with `Vary: *`, whose line it hasn't.
    pub fn set_varies_by_each(&mut self, varies: bool) {
        self.varies_by_each = varies;
    }

    /// The response's head has arrived. `content_length` is the body's length if the origin announced it; interim
    /// responses (1xx) do not belong here.
    pub fn on_head(
        &mut self,
        status: u16,
        response_fields: &[Field<'_>],
        content_length: Option<u64>,
        now: Timestamp,
    ) -> HeadOutcome {
        let shared = Arc::clone(&self.shared);
        let request_fields = shared.identity.request.fields();
        let facts =
            RequestFacts::read("GET", &request_fields).under(&self.rule).needing(self.shared.identity.floor);
        let response = ResponseFacts::read(status, response_fields, self.requested, now);
        if status == 304 {
            return self.on_not_modified(&facts, &response);
        }
        let fails_stale_if_error = is_error(status);
        // A refresh has nobody to show another error to, so it only says that asking again at once is no use.
        if fails_stale_if_error || (status >= 500 || status == 429) && self.shared.lock().background {
            self.remember_failing(now);
        }
        if fails_stale_if_error && self.end_stale(now) {
            return HeadOutcome::UseStale;
        }
        let prepared = if self.would_replace_what_serves(&response, now) {
            Err(Uncacheable::Status)
        } else {
            self.prepare(&facts, &response, content_length)
        };
        match prepared {
            Ok((stored, head, tags)) => {
                // There is one head that is stored.
                let _ = self.shared.tag_slots.set(tags);
                self.start_storing(&facts, &response, stored, head)
            }
            Err(reason) => self.start_streaming(reason, &facts, &response, content_length),
        }
    }

    /// An error that only the operator gives a lifetime takes no place of a copy that may still be served, now or in its
    /// stead.
    fn would_replace_what_serves(&self, response: &ResponseFacts<'_>, now: Timestamp) -> bool {
        response.status >= 500 && response.lifetime_ms().is_none() && self.what_serves(now).is_some()
    }

    /// A fetch for what is stored has failed.
    fn remember_failing(&self, now: Timestamp) {
        if self.revalidating.is_some() {
            self.cache.remember_failing(&self.key, self.shared.identity.class, now);
        }
    }

    fn storable(
        &self,
        facts: &RequestFacts<'_>,
        response: &ResponseFacts<'_>,
    ) -> Result<StoredFacts, Uncacheable> {
        let stored = storable(facts, &self.rule, response)?;
        if self.varies_by_each { Err(Uncacheable::Vary) } else { Ok(stored) }
    }

    /// How long a response that has just come is fresh.
    fn ttl_s(&self, facts: &RequestFacts<'_>, stored: &StoredFacts) -> Option<i64> {
        Some(standing(facts, &self.rule, stored, false, stored.received)?.ttl_s)
    }

    /// Judges a response and writes its head for everybody.
    fn prepare(
        &self,
        facts: &RequestFacts<'_>,
        response: &ResponseFacts<'_>,
        content_length: Option<u64>,
    ) -> Result<(StoredFacts, Head, Box<[Slots]>), Uncacheable> {
        let stored = self.storable(facts, response)?;
        if content_length.is_some_and(|length| length > self.cache.config().object_bytes_max) {
            return Err(Uncacheable::TooLarge);
        }
        let vary = Vary::select_under(&self.rule, response.fields, facts.fields)?;
        let tags = self.tag_slots(response.fields)?;
        let bytes = freshen::write_head(response, true, drops_cookies(facts, &self.rule, response))?;
        let ttl_s = self.ttl_s(facts, &stored);
        let head = Head { ttl_s, ..Head::new(response, bytes, content_length, vary, Ok(())) };
        Ok((stored, head, tags))
    }

    fn start_storing(
        &mut self,
        facts: &RequestFacts<'_>,
        response: &ResponseFacts<'_>,
        stored: StoredFacts,
        head: Head,
    ) -> HeadOutcome {
        let lead_head = self.lead_head(facts, response, head.content_length);
        let shareable = is_shareable(facts, &self.rule, &stored);
        self.cache.forget_uncacheable(&self.key, self.shared.identity.class);
        self.storing = Some(stored);
        let woken = {
            let mut state = self.shared.lock();
            state.head = Some(Arc::new(head));
            state.lead_head = lead_head.map(Arc::new);
            if !shareable {
                state.release_followers(ReleaseReason::NotShareable);
                state.closed = true;
            }
            state.wake_all()
        };
        self.shared.wake(woken);
        HeadOutcome::Store
    }

    /// The head for the lead, where the shared one leaves out fields that are meant for it alone: those that
    /// `no-cache="…"` and `private="…"` name are withheld from others, not from who asked. RFC 9111 §5.2.2.4, §5.2.2.7.
    fn lead_head(
        &self,
        facts: &RequestFacts<'_>,
        response: &ResponseFacts<'_>,
        content_length: Option<u64>,
    ) -> Option<Head> {
        if !response.directives.has_field_names {
            return None;
        }
        let bytes = freshen::write_head(response, false, drops_cookies(facts, &self.rule, response)).ok()?;
        let ttl_s = storable(facts, &self.rule, response).ok().and_then(|stored| self.ttl_s(facts, &stored));
        Some(Head { ttl_s, ..Head::new(response, bytes, content_length, None, Ok(())) })
    }

    fn start_streaming(
        &mut self,
        reason: Uncacheable,
        facts: &RequestFacts<'_>,
        response: &ResponseFacts<'_>,
        content_length: Option<u64>,
    ) -> HeadOutcome {
        let Ok(bytes) = freshen::write_head(response, false, false) else { return HeadOutcome::Invalid };
        self.remember(reason, facts, response);
        self.give_back_lease(true);
        let head = Head::new(response, bytes, content_length, None, Err(reason));
        self.cache.fills().remove(&self.key, &self.shared);
        let woken = {
            let mut state = self.shared.lock();
            state.head = Some(Arc::new(head));
            state.release_followers(ReleaseReason::Uncacheable);
            state.narrow(LEAD_WINDOW_BYTES);
            state.background = false;
            state.wake_all()
        };
        self.shared.wake(woken);
        HeadOutcome::Stream(reason)
    }

    /// Remembers the key as uncacheable, and drops what the new response has replaced: not for what this request alone met,
    /// or each odd one would take everybody's copy, and send everybody to the origin.
    fn remember(&self, reason: Uncacheable, facts: &RequestFacts<'_>, response: &ResponseFacts<'_>) {
        if facts.directives.no_store
            || matches!(reason, Uncacheable::Off | Uncacheable::Method | Uncacheable::FieldAlias)
        {
            return;
        }
        let speaks = speaks_of_the_resource(response.status);
        let serves = self.what_serves(response.received);
        // Who finds the copy fresh doesn't ask, and who misses another variant shares the next fetch.
        if !matches!(serves, Some(Decision::Fresh(_))) {
            let seconds = if speaks { REMEMBERED_S } else { REMEMBERED_ERROR_S };
            self.cache.remember_uncacheable(
                &self.key,
                self.shared.identity.class,
                response.received,
                seconds,
            );
        }
        // A copy of no more use makes all wait for an answer that they can't share.
        let stays = !speaks
            || reason == Uncacheable::Authorization
            || serves.is_some() && is_the_request_s(facts, reason);
        if let Some(entry) = self.revalidating.as_ref().filter(|_| !stays) {
            self.cache.store().remove(&self.key, entry);
        }
    }

    /// What the copy under revalidation would be used for without the request's own directives; none if for nothing.
    fn what_serves(&self, now: Timestamp) -> Option<Decision> {
        let entry = self.revalidating.as_ref().filter(|entry| !self.cache.is_purged(entry))?;
        let request_fields = self.shared.identity.request.fields();
        let facts =
            RequestFacts { directives: Default::default(), ..RequestFacts::read("GET", &request_fields) };
        let softened = self.cache.purge_state(entry) == PurgeState::Soft;
        let decision = decide(&facts, &self.rule, &entry.facts, softened, now);
        let serves = match decision {
            Decision::Fresh(_) | Decision::Stale { .. } => true,
            Decision::Revalidate { serve_if_error, .. } => serve_if_error,
            Decision::Guarded => false,
        };
        serves.then_some(decision)
    }

    /// A 304: freshens the stored response. RFC 9111 §4.3.4.
    fn on_not_modified(&mut self, facts: &RequestFacts<'_>, response: &ResponseFacts<'_>) -> HeadOutcome {
        let candidates = std::mem::take(&mut self.candidates);
        let (old, is_own) = match self.revalidating().cloned() {
            Some(old) if freshen::is_about(&old.validators(), response) => (old, true),
            Some(_) => {
                self.is_unconditional = true;
                return HeadOutcome::Refetch;
            }
            None if candidates.is_empty() => return HeadOutcome::Invalid,
            None => match freshen::named_by(&candidates, response) {
                Some(variant) => (variant, false),
                None => return HeadOutcome::Refetch,
            },
        };
        let stored_fields = freshen::read_head(&old.head);
        let merged = freshen::merge(&stored_fields, response.fields);
        let merged = ResponseFacts::read(old.status, &merged, self.requested, response.received);
        let vary = Vary::select_under(&self.rule, merged.fields, facts.fields);
        let is_alias = matches!(vary, Err(Uncacheable::FieldAlias));
        let vary = if is_alias { Ok(old.vary.clone()) } else { vary };
        let stored = match self.storable(facts, &merged) {
            Ok(_) if is_alias => Err(Uncacheable::FieldAlias),
            stored => stored,
        };
        // What may not be stored is the lead's alone, as in `start_streaming`.
        let for_all = stored.is_ok();
        let head =
            freshen::write_head(&merged, for_all, for_all && drops_cookies(facts, &self.rule, &merged));
        let (Ok(head), Ok(vary), Ok(tags)) = (head, vary, self.tag_slots(merged.fields)) else {
            return HeadOutcome::Invalid;
        };
        let facts_now = stored.unwrap_or(StoredFacts { received: response.received, ..old.facts });
        let head = Head::new(&merged, head, None, vary, stored.map(|_| ()));
        let fetch_ms = response.received.since_ms(self.requested);
        let entry = self.entry(&head, old.body.clone(), facts_now, tags).with_encodings_of(&old);
        let entry = Arc::new(entry.fetched_in(fetch_ms));
        self.shared.lock().lead_entry = self
            .lead_head(facts, &merged, None)
            .filter(|_| for_all)
            .map(|head| Arc::new(self.entry(&head, old.body.clone(), facts_now, Box::default())));
        self.cache.forget_failing(&self.key, self.shared.identity.class);
        let release = match stored {
            Err(_) => Some(ReleaseReason::Uncacheable),
            Ok(stored) if !is_shareable(facts, &self.rule, &stored) => Some(ReleaseReason::NotShareable),
            Ok(_) => None,
        };
        match stored {
            Ok(_) if is_own => self.cache.freshened(&self.key, &old, &entry),
            // Another request's copy stays what it was; this is one more of its kind.
            Ok(_) => drop(self.cache.filled(&self.key, &entry)),
            // It holds, says the 304; only this answer is not for others.
            Err(reason) if !is_own || is_the_request_s(facts, reason) => {}
            Err(_) => self.cache.store().remove(&self.key, &old),
        }
        if for_all {
            self.share(&entry);
        }
        self.end(End::Entry(entry), release);
        HeadOutcome::NotModified
    }

    /// Builds an entry from a head that was passed on and a body.
    fn entry(&self, head: &Head, body: StoredBody, facts: StoredFacts, tag_slots: Box<[Slots]>) -> Entry {
        Entry::new(head, body, facts, tag_slots, (self.shared.identity.began, self.shared.identity.url_slots))
    }

    /// Under which slots the response can be purged by tag.
    fn tag_slots(&self, response_fields: &[Field<'_>]) -> Result<Box<[Slots]>, Uncacheable> {
        self.cache.tag_slots_of(&self.key, &self.rule, response_fields)
    }

    /// A piece of the body has arrived. It may be stored as it is, so it should keep no larger buffer alive.
    ///
    /// A body that outgrows `cache.object_max`, or that would make all fills together hold too much, goes on in a
    /// window: those attached stay, nobody joins, nothing is stored.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        let object_bytes_max = self.cache.config().object_bytes_max;
        let (woken, outgrown) = {
            let mut state = self.shared.lock();
            if state.end.is_some() {
                return;
            }
            state.push(chunk);
            self.shared.account(&state);
            let too_large = state.received_bytes > object_bytes_max || self.shared.others_hold_too_much();
            let outgrown = state.body == Body::Keep && too_large;
            if outgrown {
                let larger = state.received_bytes > object_bytes_max;
                let window_bytes = object_bytes_max.clamp(LEAD_WINDOW_BYTES, OUTGROWN_WINDOW_BYTES_MAX);
                state.narrow(if larger { window_bytes } else { LEAD_WINDOW_BYTES });
                self.shared.account(&state);
            }
            (state.wake_all(), outgrown)
        };
        if outgrown {
            // It stays in the table, so that who comes later learns at once to go alone.
            self.storing = None;
            self.drop_outgrown();
        }
        self.shared.wake(woken);
    }

    /// What has grown beyond `cache.object_max` has replaced what was stored, which refreshes would else go on fetching
    /// in vain.
    fn drop_outgrown(&mut self) {
        let too_large = self.shared.lock().received_bytes > self.cache.config().object_bytes_max;
        if let Some(old) = self.revalidating.take_if(|_| too_large) {
            self.cache.store().remove(&self.key, &old);
        }
    }

    /// Ready when more of the body is welcome. Pending while a window is full; never where all of it is kept.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        if !state.is_full() || state.end.is_some() {
            return Poll::Ready(());
        }
        state.wait_task(cx.waker());
        Poll::Pending
    }

    /// Ready when nobody follows: cancel the fetch and drop the fill. Nobody can join it any more then. A background
    /// refresh is never abandoned while what it fetches can be stored; a fill that `on_head` has ended never is, so
    /// that the rest of the exchange can be finished in peace.
    pub fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut state = self.shared.lock();
            if let Some(end) = &state.end {
                let abandoned = matches!(end, End::Failed(FailReason::Abandoned));
                return if abandoned { Poll::Ready(()) } else { Poll::Pending };
            }
            if state.has_followers() || state.background && state.body == Body::Keep {
                state.wait_task(cx.waker());
                return Poll::Pending;
            }
            state.finish(End::Failed(FailReason::Abandoned));
            self.shared.account(&state);
        }
        self.cache.fills().remove(&self.key, &self.shared);
        Poll::Ready(())
    }

    /// Cuts followers that hold the window up and took less than this since they were last looked at, at least a
    /// second ago; says how many. Call it about once a second while `poll_writable` is pending.
    pub fn cut_slow(&mut self, bytes_per_second_min: u64, now: Timestamp) -> usize {
        let (cut, woken) = {
            let mut state = self.shared.lock();
            let cut = state.cut_slow(bytes_per_second_min, now);
            self.shared.account(&state);
            (cut, state.wake_all())
        };
        self.shared.wake(woken);
        cut
    }

    /// The body is complete, and as long as announced. Says whether it was stored.
    ///
    /// A body of another length than the head announced is a failure, whatever the caller thinks.
    pub fn finish(mut self, now: Timestamp) -> bool {
        let (head, pieces) = {
            let mut state = self.shared.lock();
            let Some(head) = state.head.clone().filter(|_| state.end.is_none()) else {
                drop(state);
                self.end(End::Failed(FailReason::Invalid), None);
                return false;
            };
            if head.content_length.is_some_and(|length| length != state.received_bytes) {
                drop(state);
                self.end(End::Failed(FailReason::Truncated), None);
                return false;
            }
            let pieces = (state.body == Body::Keep).then(|| state.pieces());
            self.shared.account(&state);
            (head, pieces)
        };
        if head.status < 500 {
            self.cache.forget_failing(&self.key, self.shared.identity.class);
        }
        let mut was_stored = false;
        if let (Some(facts), Some(pieces)) = (self.storing.take(), pieces) {
            // Not under the fill's lock: it may be megabytes, and every follower would wait.
            let body = self.cache.bodies().make(&pieces);
            self.shared.lock().read_from(&body);
            let tags = self.shared.tag_slots.get().cloned().unwrap_or_default();
            let fetch_ms = now.since_ms(self.requested);
            let entry = Arc::new(self.entry(&head, body, facts, tags).fetched_in(fetch_ms));
            was_stored = self.cache.filled(&self.key, &entry);
            if was_stored {
                self.share(&entry);
            }
            self.want_coding(&entry);
        } else if head.stored.is_ok() {
            self.cache.remember_uncacheable(&self.key, self.shared.identity.class, now, REMEMBERED_S);
        }
        self.end(End::Complete, None);
        was_stored
    }

    /// Who began it will come back, or others like it: what they accept is made ready.
    fn want_coding(&self, entry: &Arc<Entry>) {
        if self.rule.compress().is_none() {
            return;
        }
        let request_fields = self.shared.identity.request.fields();
        let wanted = entry.represent(&RequestFacts::read("GET", &request_fields), &self.rule).wanted;
        if let Some(coding) = wanted {
            self.cache.want(&self.key, entry, coding);
        }
    }

    /// There will be no (more) response. Before a head, those who accept a stale copy get one if it may be served.
    pub fn fail(mut self, reason: FailReason, now: Timestamp) {
        // That nobody wants it any more, or that it couldn't be asked for from here, says nothing about the origin.
        if !matches!(reason, FailReason::Abandoned | FailReason::Dropped | FailReason::Local) {
            self.remember_failing(now);
        }
        let before_head = self.shared.lock().head.is_none();
        if !(before_head && self.end_stale(now)) {
            self.end(End::Failed(reason), None);
        }
    }

    /// Ends with the stale copy, if it may stand in for an error and somebody takes it. RFC 5861 §4.
    fn end_stale(&mut self, now: Timestamp) -> bool {
        let Some(entry) = self.revalidating.clone() else { return false };
        let usable = {
            let request_fields = self.shared.identity.request.fields();
            // What each follower's own directives accept was asked when it joined.
            let facts =
                RequestFacts { directives: Default::default(), ..RequestFacts::read("GET", &request_fields) };
            usable_on_error(&facts, &self.rule, &entry.facts, now) && !self.cache.is_purged(&entry)
        };
        if !usable || !self.shared.lock().anyone_accepts_stale() {
            return false;
        }
        self.end(End::Stale(entry), None);
        true
    }

    /// Ends the fill: nobody joins, everybody learns.
    fn end(&mut self, end: End, release: Option<ReleaseReason>) {
        let failed = matches!(end, End::Failed(_));
        self.cache.fills().remove(&self.key, &self.shared);
        let woken = {
            let mut state = self.shared.lock();
            if failed && state.end.is_none() {
                count(&self.shared.counters.fills_failed);
            }
            if let Some(reason) = release {
                state.release_followers(reason);
            }
            state.finish(end);
            self.shared.account(&state);
            state.wake_all()
        };
        self.shared.wake(woken);
    }
}

/// A window for several followers is no larger than this, whatever `cache.object_max` says.
const OUTGROWN_WINDOW_BYTES_MAX: u64 = 16 << 20;

impl Drop for Fill {
    fn drop(&mut self) {
        let (ended, abandoned) = {
            let state = self.shared.lock();
            (state.end.is_some(), matches!(state.end, Some(End::Failed(FailReason::Abandoned))))
        };
        if abandoned {
            count(&self.shared.counters.fills_abandoned);
        }
        if !ended {
            self.end(End::Failed(FailReason::Dropped), None);
        }
        self.give_back_lease(false);
    }
}

impl Follower {
    /// What happened next. After the last event (`End`, `Entry`, `Stale`, `Released`, `Failed`) it repeats.
    ///
    /// Cancellation safe: an event is taken when it is returned, and the waker is kept until then.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let (event, task) = {
            let mut state = self.shared.lock();
            let request = self.request.as_ref();
            let selects = |vary: Option<&Vary>| match (vary, request) {
                (Some(vary), Some(request)) => vary.matches(&request.fields()),
                _ => true,
            };
            let result = state.next(self.slot, cx.waker(), selects);
            self.shared.account(&state);
            result
        };
        if let Some(task) = task {
            task.wake();
        }
        let Some(event) = event else { return Poll::Pending };
        match &event {
            Event::Released(_) => count(&self.shared.counters.released),
            Event::Stale(_) => count(&self.shared.counters.stale_if_error),
            _ => {}
        }
        Poll::Ready(event)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let task = self.shared.lock().detach(self.slot);
        if let Some(task) = task {
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests;
