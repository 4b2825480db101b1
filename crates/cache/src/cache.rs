//! The cache: looking up, joining a fetch, storing, purging.
//!
//! [`Cache::lookup`] is the hot path and the only one most requests take: it reads the store, the purges and the policy,
//! and changes nothing that a response depends on: it makes a key hotter, frees what was purged, and counts answers in an
//! origin's stead. [`Cache::join`] is where a miss decides, under one key's lock, who fetches: a request either finds a fill it may follow, or a response that was stored since it looked, or leads. So however many requests miss
//! a key in the same moment, one of them fetches.

use std::hash::BuildHasher as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::body::Bodies;
use crate::encode::Notes;
use crate::fill::{
    Class, FILLS_PER_KEY_MAX, Fill, Fills, Fit, Follower, Identity, KeptFields, Place, Shared,
};
use crate::key::UrlParts;
use crate::marks::Marks;
use crate::policy::freshness::{self, Decision, is_shareable};
use crate::policy::request::MethodKind;
use crate::policy::{Early, RequestFacts, Timestamp, invalidation};
use crate::purge::{PurgeState, Purges, Slots};
use crate::relay::Relays;
use crate::rule::Effective;
use crate::stats::{Counters, count};
use crate::store::{Change, Object, SeededHash, Selected, Store};
use crate::tier::Tier;
use crate::{
    AloneReason, BypassReason, Config, Entry, Error, Field, KeyBuf, MissReason, Purge, Purged, Relay,
    Renewal, Rule, Stats, Uncacheable, tags,
};

mod explain;

pub use explain::{Explained, Shown};

/// The cache. One for the process, shared by all workers.
#[derive(Debug)]
pub struct Cache {
    config: Config,
    hash: SeededHash,
    store: Store,
    fills: Fills,
    bodies: Bodies,
    purges: Purges,
    marks: Marks,
    relays: Arc<Relays>,
    counters: Arc<Counters>,
    /// What is shared with other edges, once it is.
    tier: OnceLock<Arc<Tier>>,
    notes: Notes,
}

/// What [`Cache::lookup`] found.
#[derive(Debug)]
pub enum Lookup {
    /// Serve this.
    Hit(Hit),
    /// Serve this although it is stale; the request or the response allows it. Or it is fresh and suspect.
    Stale {
        /// What to serve.
        hit: Hit,
        /// Start [`Cache::refresh`] behind the answer (stale-while-revalidate, or an origin that failed lately).
        refresh: bool,
    },
    /// Ask the origin whether this still holds, through [`Cache::join`].
    Revalidate {
        /// What is stored. Its validators, if it has any, make the request conditional.
        entry: Arc<Entry>,
        /// If the origin fails, this may be served. The fill sees to it; the flag is for requests that go alone.
        serve_if_error: bool,
        /// The request's own directives (`no-cache`, `max-age`, `min-fresh`) asked for it; else it is stale.
        requested: bool,
    },
    /// Nothing usable is stored: [`Cache::join`].
    Miss(MissReason),
    /// Pass the request on as it is; its answer is not stored.
    Bypass(BypassReason),
    /// `only-if-cached`, and nothing is: 504. RFC 9111 §5.2.1.7.
    GatewayTimeout,
}

impl Lookup {
    /// Who wants nothing that has to be fetched gets nothing of the kind.
    fn unless_only_if_cached(self, facts: &RequestFacts<'_>) -> Self {
        let would_fetch = match self {
            Self::Revalidate { .. } | Self::Miss(_) => true,
            Self::Bypass(reason) => !matches!(reason, BypassReason::Off | BypassReason::Method),
            Self::Hit(_) | Self::Stale { .. } | Self::GatewayTimeout => false,
        };
        if would_fetch && facts.directives.only_if_cached { Self::GatewayTimeout } else { self }
    }

    /// The stored response that it is about.
    fn entry(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::Hit(hit) | Self::Stale { hit, .. } => Some(&hit.entry),
            Self::Revalidate { entry, .. } => Some(entry),
            Self::Miss(_) | Self::Bypass(_) | Self::GatewayTimeout => None,
        }
    }
}

/// A stored response that answers a request.
#[derive(Debug)]
pub struct Hit {
    /// The response.
    pub entry: Arc<Entry>,
    /// For `Age`.
    pub age_s: u64,
    /// For `Cache-Status`: freshness left, negative when stale.
    pub ttl_s: i64,
    /// It is about to become stale: if [`Early::is_due`], start [`Cache::refresh`] behind the answer.
    pub early: Option<Early>,
    /// It stands in for an error: the origin failed lately, so this request did not wait for it to fail again.
    pub instead_of_error: bool,
    /// It is fresh as far as is known, but a purge may have been missed.
    pub suspect: bool,
}

impl Hit {
    fn new(entry: Arc<Entry>, standing: freshness::AgeAndTtl) -> Self {
        let (age_s, ttl_s) = (standing.age_s, standing.ttl_s);
        Self { entry, age_s, ttl_s, early: None, instead_of_error: false, suspect: false }
    }

    /// What is fresh, and may be renewed before it is not.
    fn fresh(entry: Arc<Entry>, standing: freshness::AgeAndTtl, rule: &Rule, now: Timestamp) -> Self {
        let resident_ms = now.since_ms(entry.facts.received);
        let early = Early::of(standing.left_ms, resident_ms, entry.fetch_ms.into());
        let early = early.filter(|_| rule.refreshes_early());
        Self { early, ..Self::new(entry, standing) }
    }
}

/// How a request that was not answered from the store goes on.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "taken apart at once, never kept")]
pub enum Join {
    /// Run the fill in a task of its own on this worker, and follow it.
    Lead(Fill, Follower),
    /// Somebody else fetches.
    Follow(Follower),
    /// Somebody else had just fetched it: serve this.
    Stored(Hit),
    /// Fetch without a fill, with a [`Cache::watch`] whose [`Cache::observe`] is shown the response's head.
    Alone(AloneReason),
}

/// All bodies under way together hold at most the store's memory divided by this; beyond it they stream without being kept.
const FILLS_MEMORY_DIVISOR: u64 = 4;

impl Cache {
    /// Builds a cache. `seed` should be random, so that nobody outside can predict hashes.
    pub fn new(config: Config, seed: u64) -> Result<Arc<Self>, Error> {
        config.validate()?;
        let hash = SeededHash::new(seed);
        Ok(Arc::new(Self {
            store: Store::new(&config, hash.clone())?,
            fills: Fills::new(config.fills_max, &hash),
            bodies: Bodies::new(config.files_max),
            purges: Purges::new(hash.clone()),
            marks: Marks::new(),
            relays: Arc::new(Relays::new()),
            counters: Arc::default(),
            tier: OnceLock::new(),
            notes: Notes::new(),
            hash,
            config,
        }))
    }

    /// What is stored for a request, and what it may be used for.
    #[must_use]
    pub fn lookup(&self, key: &KeyBuf, facts: &RequestFacts<'_>, rule: &Rule, now: Timestamp) -> Lookup {
        if *rule == Rule::Off {
            return Lookup::Bypass(BypassReason::Off);
        }
        if let Some(reason) = facts.bypass() {
            return Lookup::Bypass(reason).unless_only_if_cached(facts);
        }
        self.find(key.as_bytes(), facts, rule, now).unless_only_if_cached(facts)
    }

    fn find(&self, key: &[u8], facts: &RequestFacts<'_>, rule: &Rule, now: Timestamp) -> Lookup {
        let Some(object) = self.store.get(key) else { return Lookup::Miss(MissReason::Uri) };
        let found = self.judge(key, object, facts, rule, now);
        match &found {
            Lookup::Miss(MissReason::Purged) => self.forget_purged(key),
            Lookup::Stale { hit, .. } if hit.instead_of_error => count(&self.counters.stale_if_error),
            _ => {}
        }
        found
    }

    /// What an object may be used for. Changes nothing, so that it can be asked by who only wants to know.
    fn judge(
        &self,
        key: &[u8],
        object: Object,
        facts: &RequestFacts<'_>,
        rule: &Rule,
        now: Timestamp,
    ) -> Lookup {
        let entry = match object.into_selected(facts, now) {
            Selected::Whole(entry) => entry,
            Selected::Part(entry) => return self.find_part(entry, facts, rule, now),
            Selected::None { partial } => {
                return Lookup::Miss(if partial { MissReason::Partial } else { MissReason::Vary });
            }
        };
        let purge_state = self.purge_state(&entry);
        if purge_state == PurgeState::Hard {
            return Lookup::Miss(MissReason::Purged);
        }
        if !entry.facts.shows(&facts.floor) {
            return Lookup::Miss(MissReason::OwnWrite);
        }
        let softened = purge_state == PurgeState::Soft;
        let suspect = purge_state == PurgeState::Suspect;
        match freshness::decide(facts, rule, &entry.facts, softened, now) {
            // Fresh as far as anybody knows; whether it still is, the origin is asked behind it.
            Decision::Fresh(standing) if suspect => {
                let hit = Hit { suspect: true, ..Hit::new(entry, standing) };
                Lookup::Stale { hit, refresh: true }
            }
            Decision::Fresh(standing) => Lookup::Hit(Hit::fresh(entry, standing, rule, now)),
            Decision::Stale { standing, refresh } => {
                Lookup::Stale { hit: Hit::new(entry, standing), refresh }
            }
            Decision::Revalidate { serve_if_error, requested } => {
                let failing = || self.failing_s(key, Class::of(facts, rule), now) > 0;
                let instead = serve_if_error && !requested && failing();
                match freshness::standing(facts, rule, &entry.facts, softened, now).filter(|_| instead) {
                    Some(standing) => {
                        let hit = Hit { instead_of_error: true, ..Hit::new(entry, standing) };
                        Lookup::Stale { hit, refresh: true }
                    }
                    None => Lookup::Revalidate { entry, serve_if_error, requested },
                }
            }
            Decision::Guarded => Lookup::Miss(MissReason::Guarded),
        }
    }

    /// Frees what of a key is never served again.
    fn forget_purged(&self, key: &[u8]) {
        for entry in self.all_stored(key).iter().filter(|entry| self.is_purged(entry)) {
            self.store.remove(key, entry);
        }
    }

    /// A stored part answers while it is fresh; nothing else is done with it.
    fn find_part(&self, entry: Arc<Entry>, facts: &RequestFacts<'_>, rule: &Rule, now: Timestamp) -> Lookup {
        let untouched = self.purge_state(&entry) == PurgeState::Untouched;
        if !entry.facts.shows(&facts.floor) {
            return Lookup::Miss(MissReason::OwnWrite);
        }
        match freshness::decide(facts, rule, &entry.facts, false, now) {
            Decision::Fresh(standing) if untouched => Lookup::Hit(Hit::new(entry, standing)),
            _ => Lookup::Miss(MissReason::Partial),
        }
    }

    /// How an entry stands towards the purges: one load, unless there was a purge since it was last looked at.
    #[inline]
    pub(crate) fn purge_state(&self, entry: &Entry) -> PurgeState {
        let count = self.purges.count();
        if entry.checked.load(Ordering::Relaxed) >= count {
            return PurgeState::Untouched;
        }
        let slots = entry.tag_slots.iter().copied().chain([entry.url_slots]);
        let state = self.purges.state(entry.began, slots);
        if state == PurgeState::Untouched {
            entry.checked.fetch_max(count, Ordering::Relaxed);
        }
        state
    }

    /// Leads, follows or goes alone. `worker` is the calling worker's index: its thread's followers are woken together.
    ///
    /// `revalidating` is the entry of [`Lookup::Revalidate`].
    #[must_use]
    pub fn join(
        self: &Arc<Self>,
        key: &KeyBuf,
        facts: &RequestFacts<'_>,
        rule: &Rule,
        revalidating: Option<Arc<Entry>>,
        worker: usize,
        now: Timestamp,
    ) -> Join {
        let ask = Ask { key, facts, rule, class: Class::of(facts, rule), worker, now };
        if let Some(reason) = self.why_alone(&ask, revalidating.is_some()) {
            return Join::Alone(reason);
        }
        // What needs validation each time is not shared, so each request validates for itself.
        if revalidating.as_ref().is_some_and(|entry| !is_shareable(facts, rule, &entry.facts)) {
            return self.lead(None, &ask, revalidating);
        }
        let place = self.fills.place(key.as_bytes());
        if place.fills().iter().any(|fill| fill.is_for_one(ask.class)) {
            drop(place);
            return self.lead(None, &ask, revalidating);
        }
        if let Some(join) = self.follow(place.fills(), &ask, revalidating.is_some()) {
            return join;
        }
        if let Some(hit) = self.stored_meanwhile(&ask) {
            return Join::Stored(hit);
        }
        self.lead(Some(place), &ask, revalidating)
    }

    /// Why a request has no use for fills, if it has none.
    fn why_alone(&self, ask: &Ask<'_>, revalidates: bool) -> Option<AloneReason> {
        if *ask.rule == Rule::Off || ask.facts.bypass().is_some() {
            return Some(AloneReason::Bypass);
        }
        if ask.facts.method == MethodKind::Head {
            return Some(AloneReason::Head);
        }
        if ask.facts.range.is_some() {
            return Some(AloneReason::Range);
        }
        let known = !revalidates && self.marks.is_set(self.mark(ask.key.as_bytes(), ask.class), ask.now);
        known.then_some(AloneReason::KnownUncacheable)
    }

    /// A fill that is running already and suits the request.
    fn follow(&self, running: &[Arc<Shared>], ask: &Ask<'_>, revalidates: bool) -> Option<Join> {
        let accepts_stale = revalidates && freshness::accepts_stale_on_error(ask.facts);
        for fill in running {
            if self.was_purged_since(fill, ask.key.url_bytes()) {
                continue;
            }
            match fill.fits(ask.class, ask.facts) {
                Fit::Other => {}
                Fit::Outgrown => return Some(Join::Alone(AloneReason::Outgrown)),
                Fit::Follow => {
                    // It may have closed in this moment; then it is as if it had never been there.
                    if let Some(follower) = fill.attach(ask.worker, Some(ask.facts.fields), accepts_stale) {
                        count(&self.counters.collapsed);
                        return Some(Join::Follow(follower));
                    }
                }
            }
        }
        (running.len() >= FILLS_PER_KEY_MAX).then_some(Join::Alone(AloneReason::VariantsFull))
    }

    /// Whether what a fill fetches may be out of date for a request that comes now.
    fn was_purged_since(&self, fill: &Shared, url: &[u8]) -> bool {
        let began = fill.identity.began;
        if self.purges.sequence() == began {
            return false;
        }
        let by_tag = match fill.tag_slots.get() {
            Some(slots) => self.purges.state(began, slots.iter().copied()) != PurgeState::Untouched,
            // Which tags the response will carry nobody knows yet.
            None => self.purges.any_tag_since(began),
        };
        by_tag || self.url_purge_state(began, url) != PurgeState::Untouched
    }

    /// What another fill stored between this request's lookup and now.
    fn stored_meanwhile(&self, ask: &Ask<'_>) -> Option<Hit> {
        let object = self.store.peek(ask.key.as_bytes())?;
        let Selected::Whole(entry) = object.into_selected(ask.facts, ask.now) else { return None };
        if self.purge_state(&entry) != PurgeState::Untouched || !entry.facts.shows(&ask.facts.floor) {
            return None;
        }
        match freshness::decide(ask.facts, ask.rule, &entry.facts, false, ask.now) {
            Decision::Fresh(standing) => Some(Hit::new(entry, standing)),
            _ => None,
        }
    }

    /// Begins a fill, with a place in the table if others may follow it.
    fn lead(
        self: &Arc<Self>,
        place: Option<Place<'_>>,
        ask: &Ask<'_>,
        revalidating: Option<Arc<Entry>>,
    ) -> Join {
        let Some(permit) = self.fills.begin() else {
            count(&self.counters.fills_full);
            return Join::Alone(AloneReason::FillsFull);
        };
        let shared = self.new_fill(ask, false);
        // A purge between the lookup and the sequence just taken would be undone by a 304.
        let revalidating = revalidating.filter(|entry| !self.is_purged(entry));
        let accepts_stale = revalidating.is_some() && freshness::accepts_stale_on_error(ask.facts);
        let follower = shared.attach(ask.worker, None, accepts_stale).expect("nobody else has closed it");
        if let Some(mut place) = place {
            place.insert(Arc::clone(&shared));
        }
        let candidates =
            if revalidating.is_some() { SmallVec::new() } else { self.candidates(ask.key.as_bytes()) };
        let (cache, key) = (Arc::clone(self), ask.key.as_bytes());
        let fill = Fill::new(cache, shared, key, ask.rule, revalidating, ask.now, permit);
        Join::Lead(fill.with_candidates(candidates), follower)
    }

    /// What is stored for other requests than the one that missed, and can be asked about by its tag.
    fn candidates(&self, key: &[u8]) -> SmallVec<[Arc<Entry>; 2]> {
        let mut stored = self.all_stored(key);
        stored.retain(|entry| entry.may_answer_others() && !self.is_purged(entry));
        stored.truncate(CANDIDATES_MAX);
        stored
    }

    /// What a fill and those who follow it will hold in common; in the `background` it needs nobody who follows.
    fn new_fill(&self, ask: &Ask<'_>, background: bool) -> Arc<Shared> {
        let url_slots = self.note_url(ask.key.url_bytes());
        let known = self.store.peek(ask.key.as_bytes());
        let newest = known.as_ref().and_then(|object| object.entries().first());
        let identity = Identity {
            request: KeptFields::new(ask.facts.fields),
            class: ask.class,
            // What another edge asked for may be older.
            asked: if self.tier().is_some() { Timestamp(0) } else { ask.now },
            floor: ask.facts.floor,
            began: self.purges.sequence(),
            heard: self.tier().map(|tier| tier.heard()),
            url_slots,
            expected_vary: newest.and_then(|entry| Some(entry.vary.as_ref()?.reselect(ask.facts.fields))),
            worker: ask.worker,
            held_bytes_max: self.held_bytes_max(),
        };
        Shared::new(identity, background, &self.relays, &self.counters)
    }

    /// A fill that renews an entry behind its answer, stale or about to be. `None` if one is running already, or too many are, or the
    /// last one failed just now, or the entry was purged meanwhile.
    #[must_use]
    pub fn refresh(
        self: &Arc<Self>,
        key: &KeyBuf,
        facts: &RequestFacts<'_>,
        rule: &Rule,
        Renewal { entry, refills }: Renewal<'_>,
        worker: usize,
        now: Timestamp,
    ) -> Option<Fill> {
        let ask = Ask { key, facts, rule, class: Class::of(facts, rule), worker, now };
        if self.failing_s(key.as_bytes(), ask.class, now) > FAILING_S - BACK_OFF_S {
            return None;
        }
        let mut place = self.fills.place(key.as_bytes());
        let fits = |fill: &Arc<Shared>| fill.fits(ask.class, facts) != Fit::Other;
        let running = place.fills().len() >= FILLS_PER_KEY_MAX || place.fills().iter().any(fits);
        // Renewed early, what is fresh is the entry itself.
        let newer = |stored: Hit| !stored.entry.is_same_as(&entry);
        if running || self.stored_meanwhile(&ask).is_some_and(newer) {
            return None;
        }
        let shared = self.new_fill(&ask, true);
        let purge_state = self.purge_state(&entry);
        if purge_state == PurgeState::Hard {
            return None;
        }
        // A place among the purges is lost for everything at once, and must not send all of it to the origin.
        let refilling = match purge_state {
            PurgeState::Suspect => Some(refills.begin(self.config.refills_max, now)?),
            _ => None,
        };
        let Some(permit) = self.fills.begin() else {
            count(&self.counters.fills_full);
            return None;
        };
        place.insert(Arc::clone(&shared));
        let fill = Fill::new(Arc::clone(self), shared, key.as_bytes(), rule, Some(entry), now, permit);
        Some(fill.holding(refilling))
    }

    /// Whether a stale copy that [`Lookup::Revalidate`] offered with `serve_if_error` may still be served, once the
    /// origin has failed a request that went alone: no purge came meanwhile. What counts as failing is said by
    /// [`is_error`](freshness::is_error), besides there being no answer at all.
    #[must_use]
    pub fn may_stand_in(&self, entry: &Entry) -> bool {
        !self.is_purged(entry)
    }

    /// Applies what an unsafe method's response makes out of date: its own URL, and `Location` and `Content-Location`
    /// of the same authority. `target` is the request's path and query. Call it for every response to such a request,
    /// before the response is passed on. RFC 9111 §4.4. Queries are taken as the request's own rule has them; what another
    /// route would make of what a response names is not known here.
    pub fn invalidate(
        &self,
        facts: &RequestFacts<'_>,
        rule: &Rule,
        authority: &[u8],
        target: (&[u8], Option<&[u8]>),
        status: u16,
        response_fields: &[Field<'_>],
    ) {
        if !invalidation::invalidates(facts.method, status) {
            return;
        }
        let (path, query) = target;
        self.invalidate_url(rule, authority, path, query);
        for (path, query) in invalidation::named_targets(response_fields, authority, path).take(TARGETS_MAX) {
            self.invalidate_url(rule, authority, &path, query);
        }
    }

    fn invalidate_url(&self, rule: &Rule, authority: &[u8], path: &[u8], query: Option<&[u8]>) {
        let text = query.and_then(|query| std::str::from_utf8(query).ok());
        let counts = rule.counted_query(text);
        let query = text.map_or(query, |_| counts.as_deref().map(str::as_bytes));
        let mut key = KeyBuf::new();
        key.build_url(authority, path, query);
        if self.purges.may_hold(self.purges.url_slots(key.url_bytes())) {
            self.purges.apply(&Purge::Url { authority, path, query }, false);
        }
    }

    /// Makes what is stored out of date: `soft` leaves it usable as a stale copy, otherwise it is never served again.
    ///
    /// Takes one atomic store, whatever is stored; the memory is freed as entries are looked at or evicted.
    pub fn purge(&self, purge: &Purge<'_>, soft: bool) -> Purged {
        self.purges.apply(purge, soft)
    }

    /// [`Cache::purge`], here at once and on all edges that share a tier as soon as they can be told. The receiver hears when
    /// the purge is out; there is none where nothing is shared.
    pub fn purge_everywhere(&self, purge: &Purge<'_>, soft: bool) -> (Purged, Option<oneshot::Receiver<()>>) {
        let purged = self.purge(purge, soft);
        (purged, self.tier().map(|tier| tier.publish(purge, soft)))
    }

    /// The tier that edges share, if there is one.
    #[must_use]
    pub fn tier(&self) -> Option<&Arc<Tier>> {
        self.tier.get()
    }

    pub(crate) fn attach(&self, tier: Arc<Tier>) {
        // A second one would not be asked; there is one call to this.
        let _ = self.tier.set(tier);
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.store.len() == 0
    }

    pub(crate) fn bodies(&self) -> &Bodies {
        &self.bodies
    }

    pub(crate) fn purges(&self) -> &Purges {
        &self.purges
    }

    /// Stores what came from the tier; the caller has judged it.
    pub(crate) fn keep(&self, key: &[u8], entry: &Arc<Entry>) {
        self.count_stored(self.store.put(key, entry));
    }

    /// The relay of one worker. Spawn it there, once; see [`Relay`].
    #[must_use]
    pub fn relay(&self, worker: usize) -> Relay {
        self.relays.relay(worker)
    }

    /// What there is and what happened. Locks each shard in turn; for metrics, not for requests.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            objects: self.store.len(),
            bytes: self.store.weight(),
            bytes_max: self.config.memory_bytes,
            purges: self.purges.count(),
            fills: self.fills.running(),
            files: self.bodies.files(),
            ..self.counters.snapshot()
        }
    }

    /// Its bounds.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// Tags that one request asks about.
const CANDIDATES_MAX: usize = 8;
/// How long the origin counts as failing for a key after a fetch failed: longer than the next one may take to fail, so
/// that a node that hangs makes nobody wait for it again.
const FAILING_S: u64 = 120;
/// For how long of that nobody asks again: between one and two seconds, as marks count whole ones.
const BACK_OFF_S: u64 = 2;

/// `Location` and `Content-Location` lines that are looked at.
const TARGETS_MAX: usize = 4;

/// A request on its way from the store to the origin.
struct Ask<'a> {
    key: &'a KeyBuf,
    facts: &'a RequestFacts<'a>,
    rule: &'a Rule,
    class: Class,
    worker: usize,
    now: Timestamp,
}

impl Class {
    pub(crate) fn of(facts: &RequestFacts<'_>, rule: &Rule) -> Self {
        let (overridden, guessed) = match rule.effective(facts) {
            Effective::Override(_) => (true, false),
            Effective::Respect(Some(added)) => (false, added.heuristic),
            Effective::Respect(None) | Effective::Off => (false, false),
        };
        // Under an override that applies, credentials are shared on purpose or in the key.
        Self { overridden, guessed, authorized: facts.has_authorization && !overridden }
    }
}

/// What fills do with their results.
impl Cache {
    pub(crate) fn fills(&self) -> &Fills {
        &self.fills
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Under which slots a response can be purged by tag, the route's and the origin's, and by prefix.
    pub(crate) fn tag_slots_of(
        &self,
        key: &[u8],
        rule: &Rule,
        response_fields: &[Field<'_>],
    ) -> Result<Box<[Slots]>, Uncacheable> {
        let templates = rule.options().map_or(&[][..], |options| &options.tags);
        let tags =
            tags::of_response(templates, &UrlParts::of(key), response_fields).ok_or(Uncacheable::Tags)?;
        let prefixes = self.purges.prefix_slots(&UrlParts::of(key));
        Ok(tags.iter().map(|tag| self.purges.tag_slots(tag)).chain(prefixes).collect())
    }

    /// Notes that a URL is being fetched to be stored.
    pub(crate) fn note_url(&self, url: &[u8]) -> Slots {
        let url_slots = self.purges.url_slots(url);
        self.purges.note(url_slots);
        url_slots
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.purges.sequence()
    }

    /// How what was asked of a URL at a position stands towards the purges since that name it or what it lies below.
    pub(crate) fn url_purge_state(&self, since: u64, url: &[u8]) -> PurgeState {
        if self.purges.sequence() == since {
            return PurgeState::Untouched;
        }
        let prefixes = self.purges.prefix_slots(&UrlParts::of(url));
        self.purges.state(since, prefixes.chain([self.purges.url_slots(url)]))
    }

    /// Codings that are wished for.
    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What bodies under way may hold together.
    pub(crate) fn held_bytes_max(&self) -> u64 {
        self.config.memory_bytes / FILLS_MEMORY_DIVISOR
    }

    /// The whole responses stored that answer a request with these fields.
    pub(crate) fn stored_for(&self, key: &[u8], request_fields: &[Field<'_>]) -> SmallVec<[Arc<Entry>; 2]> {
        let selected = |entry: &&Arc<Entry>| entry.part.is_none() && entry.selects(request_fields);
        let object = self.store.peek(key);
        object.iter().flat_map(|object| object.entries().iter().filter(selected).cloned()).collect()
    }

    /// Everything stored under a key, parts too.
    pub(crate) fn all_stored(&self, key: &[u8]) -> SmallVec<[Arc<Entry>; 2]> {
        self.store.peek(key).iter().flat_map(|object| object.entries().iter().cloned()).collect()
    }

    /// Removes a response that is out of date.
    pub(crate) fn forget(&self, key: &[u8], entry: &Arc<Entry>) {
        self.store.remove(key, entry);
    }

    /// Whether an entry may not even stand in for an error.
    pub(crate) fn is_purged(&self, entry: &Entry) -> bool {
        self.purge_state(entry) == PurgeState::Hard
    }

    /// Stores a complete response, unless it was purged while it was fetched, or somebody who has to see more has asked
    /// since and got it.
    pub(crate) fn filled(&self, key: &[u8], entry: &Arc<Entry>) -> bool {
        if self.is_purged(entry) || self.has_higher(key, entry) {
            return false;
        }
        self.count_stored(self.store.put(key, entry));
        true
    }

    /// Whether what is stored in its place shows more, and was asked for no earlier.
    fn has_higher(&self, key: &[u8], entry: &Entry) -> bool {
        let is_higher = |stored: &Arc<Entry>| {
            let is_rival = stored.part.is_none() && entry.part.is_none() && stored.selects_as(entry);
            is_rival
                && !entry.facts.shows(&stored.facts.floor)
                && stored.facts.asked >= entry.facts.asked
                && !self.is_purged(stored)
        };
        self.store.peek(key).is_some_and(|object| object.entries().iter().any(is_higher))
    }

    /// Stores a freshened response in the place of the old one, if that is still what is stored: its body must not
    /// come back over a newer one, nor after a purge.
    pub(crate) fn freshened(&self, key: &[u8], old: &Arc<Entry>, entry: &Arc<Entry>) {
        if self.is_purged(entry) {
            return;
        }
        if let Some(change) = self.store.replace(key, old, entry) {
            self.count_stored(change);
            count(&self.counters.revalidated);
        }
    }

    fn count_stored(&self, change: Change) {
        count(&self.counters.stored);
        self.counters.evicted.fetch_add(change.evicted, Ordering::Relaxed);
        self.counters.variants_evicted.fetch_add(change.variants_evicted, Ordering::Relaxed);
    }

    fn mark(&self, key: &[u8], class: Class) -> u64 {
        self.hash.hash_one((class, key))
    }

    /// For how many more seconds the origin counts as failing for a key.
    fn failing_s(&self, key: &[u8], class: Class, now: Timestamp) -> u64 {
        self.marks.left_s(self.failing_mark(key, class), now)
    }

    fn failing_mark(&self, key: &[u8], class: Class) -> u64 {
        self.hash.hash_one((class, key, "failing"))
    }

    /// A fetch for what is stored has failed: for a while, whoever may have the stale copy does not wait for the next.
    pub(crate) fn remember_failing(&self, key: &[u8], class: Class, now: Timestamp) {
        self.marks.set(self.failing_mark(key, class), now, FAILING_S);
    }

    pub(crate) fn forget_failing(&self, key: &[u8], class: Class) {
        self.marks.clear(self.failing_mark(key, class));
    }

    pub(crate) fn remember_uncacheable(&self, key: &[u8], class: Class, now: Timestamp, seconds: u64) {
        self.marks.set(self.mark(key, class), now, seconds);
    }

    pub(crate) fn forget_uncacheable(&self, key: &[u8], class: Class) {
        self.marks.clear(self.mark(key, class));
    }
}

#[cfg(test)]
pub(crate) mod tests;
