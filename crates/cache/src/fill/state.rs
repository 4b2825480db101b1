//! What a fill and its followers share: a head, a list of chunks, and who waits for more.
//!
//! **Mechanism.** Plain data behind one short lock. While all of the body is kept (`Body::Keep`), chunks are only
//! appended, and a late joiner starts at the front. Once the body is larger than may be kept, or belongs to the lead
//! alone, it is a window (`Body::Window`): a chunk leaves when everybody who follows has taken it, and a full window
//! holds the fetch back. Each chunk counts who still needs it, so taking one costs the same with one follower or a
//! thousand.
//!
//! **Failure.** Positions are byte offsets and only grow. Methods return the wakers that have to be woken; the caller
//! wakes them after unlocking, so no foreign code runs under the lock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use bytes::{Bytes, BytesMut};

use super::Event;
use super::waiting::{Waiting, Woken};
use crate::body::Body as StoredBody;
use crate::policy::Timestamp;
use crate::policy::vary::Vary;
use crate::{Entry, FailReason, Head, Interim, ReleaseReason};

/// The state of one fill.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) end: Option<End>,
    /// Everybody but the lead has to go: why.
    pub(crate) lead_only: Option<ReleaseReason>,
    /// Nobody may join any more.
    pub(crate) closed: bool,
    /// Goes on without followers.
    pub(crate) background: bool,
    /// In the order they came, at most [`INTERIM_MAX`].
    pub(crate) interim: Vec<Arc<Interim>>,
    pub(crate) head: Option<Arc<Head>>,
    /// The lead's own, where it differs.
    pub(crate) lead_head: Option<Arc<Head>>,
    /// The lead's own, where it differs from that of [`End::Entry`].
    pub(crate) lead_entry: Option<Arc<Entry>>,
    pub(crate) body: Body,
    chunks: VecDeque<Chunk>,
    /// Bytes in `chunks`, with [`CHUNK_OVERHEAD_BYTES`] each.
    pub(crate) held_bytes: u64,
    /// Bytes of the body so far.
    pub(crate) received_bytes: u64,
    slots: Vec<Option<Slot>>,
    free: Vec<SlotId>,
    /// Followers that still want something.
    active: usize,
    waiting: Waiting,
    /// The fill's own task, waiting for room or for the last follower to leave.
    task: Option<Waker>,
}

pub(crate) type SlotId = u32;

/// How a fill ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Complete,
    Entry(Arc<Entry>),
    Stale(Arc<Entry>),
    Failed(FailReason),
}

/// How much of the body is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// All of it, to be stored.
    Keep,
    /// At most so many bytes; paced by the slowest follower.
    Window(u64),
}

#[derive(Debug)]
struct Chunk {
    /// Offset in the body.
    start: u64,
    bytes: Bytes,
    /// Followers that have not taken it; only kept up in a window.
    needed_by: usize,
}

/// One follower's place.
#[derive(Debug)]
pub(crate) struct Slot {
    worker: usize,
    is_lead: bool,
    /// A stale copy would do, should the origin fail.
    pub(crate) accepts_stale: bool,
    /// Interim responses taken.
    interim_taken: usize,
    head_taken: bool,
    /// Bytes of the body taken.
    position: u64,
    /// Where and when `cut_slow` last looked.
    marked: Option<(u64, Timestamp)>,
    cut: bool,
    /// Counts in `active`.
    is_active: bool,
}

/// Chunks that together are at most this long are joined, so that an origin that sends single bytes costs no more
/// bookkeeping than one that sends pages.
const JOINED_BYTES_MAX: usize = 1 << 10;
/// Shorter chunks are copied, so that they don't keep the large buffer alive they were read into.
const COPIED_BYTES_MAX: usize = 4 << 10;
/// What a chunk costs beside its bytes.
const CHUNK_OVERHEAD_BYTES: u64 = 64;
/// Interim responses kept for followers.
pub(crate) const INTERIM_MAX: usize = 8;
/// How long a follower is measured before it may be called slow.
const MEASURED_MS_MIN: u64 = 1000;

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn weight(&self) -> u64 {
        self.bytes.len() as u64 + CHUNK_OVERHEAD_BYTES
    }
}

impl State {
    pub(crate) fn new(background: bool) -> Self {
        Self {
            end: None,
            lead_only: None,
            closed: false,
            background,
            interim: Vec::new(),
            head: None,
            lead_head: None,
            lead_entry: None,
            body: Body::Keep,
            chunks: VecDeque::new(),
            held_bytes: 0,
            received_bytes: 0,
            slots: Vec::new(),
            free: Vec::new(),
            active: 0,
            waiting: Waiting::default(),
            task: None,
        }
    }

    /// Adds a follower at the front of the body. Only while all of it is kept.
    pub(crate) fn attach(&mut self, worker: usize, is_lead: bool, accepts_stale: bool) -> SlotId {
        debug_assert_eq!(self.body, Body::Keep, "a window's front may be gone");
        let slot = Slot {
            worker,
            is_lead,
            accepts_stale,
            interim_taken: 0,
            head_taken: false,
            position: 0,
            marked: None,
            cut: false,
            is_active: true,
        };
        self.active += 1;
        if let Some(id) = self.free.pop() {
            self.slots[id as usize] = Some(slot);
            return id;
        }
        self.slots.push(Some(slot));
        u32::try_from(self.slots.len() - 1).expect("fewer followers than connections")
    }

    /// Removes a follower; the task is woken if it waits for that.
    pub(crate) fn detach(&mut self, id: SlotId) -> Option<Waker> {
        self.waiting.remove(id);
        let waker = self.deactivate(id);
        self.slots[id as usize] = None;
        self.free.push(id);
        waker
    }

    pub(crate) fn has_followers(&self) -> bool {
        self.active > 0
    }

    pub(crate) fn anyone_accepts_stale(&self) -> bool {
        self.slots.iter().flatten().any(|slot| slot.is_active && slot.accepts_stale)
    }

    /// The next event for a follower; `selects` says whether a response's `Vary` fits its request.
    pub(crate) fn next(
        &mut self,
        id: SlotId,
        waker: &Waker,
        selects: impl Fn(Option<&Vary>) -> bool,
    ) -> (Option<Event>, Option<Waker>) {
        let slot = self.slots[id as usize].as_mut().expect("attached until dropped");
        if slot.cut {
            return (Some(Event::Failed(FailReason::TooSlow)), None);
        }
        if let Some(reason) = self.lead_only.filter(|_| !slot.is_lead) {
            return (Some(Event::Released(reason)), self.deactivate(id));
        }
        if let Some(interim) = self.interim.get(slot.interim_taken).filter(|_| !slot.head_taken) {
            slot.interim_taken += 1;
            return (Some(Event::Interim(Arc::clone(interim))), None);
        }
        match &self.end {
            Some(End::Entry(entry)) => {
                if !slot.is_lead && !selects(entry.vary.as_ref()) {
                    return (Some(Event::Released(ReleaseReason::VaryMismatch)), self.deactivate(id));
                }
                let entry = self.lead_entry.as_ref().filter(|_| slot.is_lead).unwrap_or(entry);
                return (Some(Event::Entry(Arc::clone(entry))), None);
            }
            Some(End::Stale(entry)) if slot.accepts_stale => {
                return (Some(Event::Stale(Arc::clone(entry))), None);
            }
            Some(End::Stale(_)) => return (Some(Event::Released(ReleaseReason::StaleRefused)), None),
            Some(End::Failed(reason)) => return (Some(Event::Failed(*reason)), None),
            Some(End::Complete) | None => {}
        }
        if let Some(head) = self.head.as_ref().filter(|_| !slot.head_taken) {
            if !slot.is_lead && !selects(head.vary.as_ref()) {
                return (Some(Event::Released(ReleaseReason::VaryMismatch)), self.deactivate(id));
            }
            let head = Arc::clone(self.lead_head.as_ref().filter(|_| slot.is_lead).unwrap_or(head));
            self.slot_mut(id).head_taken = true;
            return (Some(Event::Head(head)), None);
        }
        if let Some((bytes, task)) = self.take_chunk(id) {
            return (Some(Event::Chunk(bytes)), task);
        }
        if self.end.is_some() {
            return (Some(Event::End), self.deactivate(id));
        }
        let worker = self.slot_mut(id).worker;
        self.waiting.add(id, worker, waker);
        (None, None)
    }

    /// What of the body a follower has not had; in a window, frees what nobody needs any more.
    fn take_chunk(&mut self, id: SlotId) -> Option<(Bytes, Option<Waker>)> {
        let position = self.slot_mut(id).position;
        let index = self.chunks.partition_point(|chunk| chunk.end() <= position);
        let windowed = self.body != Body::Keep;
        let chunk = self.chunks.get_mut(index)?;
        let skip = usize::try_from(position.saturating_sub(chunk.start)).expect("within a chunk");
        let bytes = chunk.bytes.slice(skip..);
        chunk.needed_by = chunk.needed_by.saturating_sub(1);
        let end = chunk.end();
        self.slot_mut(id).position = end;
        let task = if windowed { self.trim() } else { None };
        Some((bytes, task))
    }

    /// Drops chunks that everybody has; wakes the task if that made room.
    fn trim(&mut self) -> Option<Waker> {
        let was_full = self.is_full();
        while let Some(chunk) = self.chunks.front().filter(|chunk| chunk.needed_by == 0) {
            self.held_bytes -= chunk.weight();
            self.chunks.pop_front();
        }
        if was_full && !self.is_full() { self.task.take() } else { None }
    }

    /// Takes a follower out of the count, and out of what the chunks wait for.
    fn deactivate(&mut self, id: SlotId) -> Option<Waker> {
        let slot = self.slot_mut(id);
        if !std::mem::replace(&mut slot.is_active, false) {
            return None;
        }
        let position = slot.position;
        self.active -= 1;
        let mut task = None;
        if self.body != Body::Keep {
            let needed = self.chunks.iter_mut().filter(|chunk| chunk.end() > position);
            needed.for_each(|chunk| chunk.needed_by = chunk.needed_by.saturating_sub(1));
            task = self.trim();
        }
        if self.active == 0 { task.or_else(|| self.task.take()) } else { task }
    }

    fn slot_mut(&mut self, id: SlotId) -> &mut Slot {
        self.slots[id as usize].as_mut().expect("attached until dropped")
    }

    /// Appends to the body.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        let start = self.received_bytes;
        self.received_bytes += bytes.len() as u64;
        match self.body {
            Body::Keep => self.push_joined(start, bytes),
            Body::Window(_) if self.active == 0 => {}
            Body::Window(_) => self.append(start, bytes),
        }
    }

    fn push_joined(&mut self, start: u64, bytes: Bytes) {
        if let Some(last) =
            self.chunks.back_mut().filter(|last| last.bytes.len() + bytes.len() <= JOINED_BYTES_MAX)
        {
            let mut joined = BytesMut::with_capacity(last.bytes.len() + bytes.len());
            joined.extend_from_slice(&last.bytes);
            joined.extend_from_slice(&bytes);
            self.held_bytes += bytes.len() as u64;
            last.bytes = joined.freeze();
            return;
        }
        self.append(start, bytes);
    }

    fn append(&mut self, start: u64, bytes: Bytes) {
        let bytes = if bytes.len() < COPIED_BYTES_MAX { Bytes::copy_from_slice(&bytes) } else { bytes };
        let chunk = Chunk { start, bytes, needed_by: self.active };
        self.held_bytes += chunk.weight();
        self.chunks.push_back(chunk);
    }

    /// From now on holds a window only. Nobody joins any more.
    pub(crate) fn narrow(&mut self, window_bytes: u64) {
        self.closed = true;
        if self.body == Body::Keep {
            for chunk in &mut self.chunks {
                let behind = |slot: &&Slot| slot.is_active && slot.position < chunk.end();
                chunk.needed_by = self.slots.iter().flatten().filter(behind).count();
            }
        }
        self.body = Body::Window(window_bytes);
        self.trim();
    }

    /// Sends everybody but the lead away. They learn when they are next polled.
    pub(crate) fn release_followers(&mut self, reason: ReleaseReason) {
        self.lead_only = Some(reason);
        let others: Vec<SlotId> = (0..)
            .zip(&self.slots)
            .filter_map(|(id, slot)| slot.as_ref().filter(|slot| !slot.is_lead).map(|_| id))
            .collect();
        for id in others {
            // The task is the caller, so nobody has to wake it.
            drop(self.deactivate(id));
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        matches!(self.body, Body::Window(bytes) if self.held_bytes >= bytes)
    }

    pub(crate) fn wait_task(&mut self, waker: &Waker) {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            self.task = Some(waker.clone());
        }
    }

    /// The whole body, where all of it was kept. Several pieces are about to be joined, so they count twice until
    /// [`State::read_from`].
    pub(crate) fn pieces(&mut self) -> Vec<Bytes> {
        if self.chunks.len() > 1 {
            self.held_bytes += self.received_bytes;
        }
        self.chunks.iter().map(|chunk| chunk.bytes.clone()).collect()
    }

    /// Followers go on reading from the stored copy, so that it is not held twice. What is stored in a file they have in
    /// pieces still, which are gone when they are.
    pub(crate) fn read_from(&mut self, body: &StoredBody) {
        let StoredBody::Memory(body) = body else {
            self.held_bytes = self.chunks.iter().map(Chunk::weight).sum();
            return;
        };
        self.chunks.clear();
        self.held_bytes = 0;
        if !body.is_empty() {
            self.chunks.push_back(Chunk { start: 0, bytes: body.clone(), needed_by: 0 });
        }
    }

    /// Ends the fill, once; what is said later is ignored.
    pub(crate) fn finish(&mut self, end: End) {
        if self.end.is_none() {
            if !matches!(end, End::Complete) {
                self.chunks.clear();
                self.held_bytes = 0;
            }
            self.end = Some(end);
            self.closed = true;
        }
    }

    /// Everybody who waits, to be woken after unlocking.
    pub(crate) fn wake_all(&mut self) -> Woken {
        self.waiting.take()
    }

    /// Cuts followers that hold the window up and were slow since they were last looked at.
    pub(crate) fn cut_slow(&mut self, bytes_per_second_min: u64, now: Timestamp) -> usize {
        let Some(front_end) = self.chunks.front().map(Chunk::end).filter(|_| self.is_full()) else {
            return 0;
        };
        let mut cut = Vec::new();
        for (id, slot) in (0..).zip(&mut self.slots) {
            let Some(slot) = slot.as_mut().filter(|slot| slot.is_active) else { continue };
            let Some((position, at)) = slot.marked else {
                slot.marked = Some((slot.position, now));
                continue;
            };
            let elapsed_ms = now.since_ms(at);
            if elapsed_ms < MEASURED_MS_MIN {
                continue;
            }
            let taken = (slot.position - position).saturating_mul(1000) / elapsed_ms;
            slot.marked = Some((slot.position, now));
            if slot.position < front_end && taken < bytes_per_second_min {
                slot.cut = true;
                cut.push(id);
            }
        }
        for &id in &cut {
            drop(self.deactivate(id));
        }
        cut.len()
    }
}
