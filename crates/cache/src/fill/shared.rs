//! What the fill, its followers and the table of running fills hold in common.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::state::{Body, State};
use super::waiting::Woken;
use super::{Follower, KeptFields};
use crate::policy::vary::Vary;
use crate::policy::{RequestFacts, Timestamp};
use crate::purge::Slots;
use crate::relay::Relays;
use crate::stats::Counters;
use crate::tier::Heard;
use crate::{Field, Floor, ReleaseReason};

/// One fill's identity, and its state behind a lock.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    state: Mutex<State>,
    /// Under which slots the response can be purged by tag, once its head is there.
    pub(crate) tag_slots: OnceLock<Box<[Slots]>>,
    relays: Arc<Relays>,
    pub(crate) counters: Arc<Counters>,
    /// What of `held_bytes` has been counted in `counters.fill_bytes`.
    accounted: AtomicU64,
}

/// Requests that are treated alike: the same rule applies, and either all carry `Authorization` or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Class {
    pub(crate) overridden: bool,
    /// An answer without a lifetime may be given one, which is not for requests of another class.
    pub(crate) guessed: bool,
    pub(crate) authorized: bool,
}

/// Whether a request may follow a running fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It may.
    Follow,
    /// It is for other requests, or over.
    Other,
    /// It would be the right one, but its front is gone.
    Outgrown,
}

/// What a fill is from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The lead's request.
    pub(crate) request: KeptFields,
    /// Whether the request carried credentials, and which rule applied: only requests alike follow one another.
    pub(crate) class: Class,
    /// What it fetches was asked for no earlier than this.
    pub(crate) asked: Timestamp,
    /// What it fetches shows at least.
    pub(crate) floor: Floor,
    /// The purge sequence when it began.
    pub(crate) began: u64,
    /// Up to where the purges of all edges had been read then, where they share any.
    pub(crate) heard: Option<Heard>,
    pub(crate) url_slots: Slots,
    /// What stored responses of this key varied by, with the lead's values: before the head comes, a guess at whom it
    /// will answer.
    pub(crate) expected_vary: Option<Vary>,
    /// Where its task runs.
    pub(crate) worker: usize,
    /// What all fills together may hold before they stop keeping bodies.
    pub(crate) held_bytes_max: u64,
}

impl Shared {
    /// `background`: it goes on without followers.
    pub(crate) fn new(
        identity: Identity,
        background: bool,
        relays: &Arc<Relays>,
        counters: &Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            identity,
            state: Mutex::new(State::new(background)),
            tag_slots: OnceLock::new(),
            relays: Arc::clone(relays),
            counters: Arc::clone(counters),
            accounted: AtomicU64::new(0),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request may follow. The caller has checked that no purge came between.
    pub(crate) fn fits(&self, class: Class, facts: &RequestFacts<'_>) -> Fit {
        let state = self.lock();
        let shows = facts.floor.is_met_by(self.identity.asked, &self.identity.floor);
        if !shows || class != self.identity.class || state.end.is_some() || state.lead_only.is_some() {
            return Fit::Other;
        }
        let selects = match (&state.head, &self.identity.expected_vary) {
            // What is being received began before this request, which wants the origin's word.
            (Some(_), _) if facts.directives.no_cache => false,
            (Some(head), _) => head.vary.as_ref().is_none_or(|vary| vary.matches(facts.fields)),
            (None, Some(vary)) => vary.matches(facts.fields),
            (None, None) => true,
        };
        if !selects {
            return Fit::Other;
        }
        if state.closed || state.body != Body::Keep { Fit::Outgrown } else { Fit::Follow }
    }

    /// Whether what it fetches may be used by its lead only, because each request has to ask for itself.
    pub(crate) fn is_for_one(&self, class: Class) -> bool {
        class == self.identity.class && self.lock().lead_only == Some(ReleaseReason::NotShareable)
    }

    /// Adds a follower, unless the fill has closed since it was looked at.
    pub(crate) fn attach(
        self: &Arc<Self>,
        worker: usize,
        request: Option<&[Field<'_>]>,
        accepts_stale: bool,
    ) -> Option<Follower> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        let slot = state.attach(worker, request.is_none(), accepts_stale);
        drop(state);
        Some(Follower { shared: Arc::clone(self), slot, request: request.map(KeptFields::new) })
    }

    /// Wakes followers, those of other workers through their relays.
    pub(crate) fn wake(&self, woken: Woken) {
        for (worker, wakers) in woken {
            self.relays.wake(worker, worker == self.identity.worker, wakers);
        }
    }

    /// Brings the common count of held bytes up to date. Under the state's lock, so two can't cross.
    pub(crate) fn account(&self, state: &State) {
        let held = state.held_bytes;
        let before = self.accounted.swap(held, Ordering::Relaxed);
        if held > before {
            self.counters.fill_bytes.fetch_add(held - before, Ordering::Relaxed);
        } else if held < before {
            self.counters.fill_bytes.fetch_sub(before - held, Ordering::Relaxed);
        }
    }

    /// Whether all fills together hold more than they may.
    pub(crate) fn others_hold_too_much(&self) -> bool {
        self.counters.fill_bytes.load(Ordering::Relaxed) > self.identity.held_bytes_max
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let held = self.accounted.load(Ordering::Relaxed);
        self.counters.fill_bytes.fetch_sub(held, Ordering::Relaxed);
    }
}
