//! What a request that fetched for itself leaves in the store.
//!
//! **Intuition.** Not every answer comes through a fill. A range is asked for by one client, a HEAD has no body to follow, a
//! POST changes something, a key that could not be stored yesterday can be today. Their answers pass by anyway; where the
//! standard lets them be stored, they are, at the cost of one copy.
//!
//! **Mechanism.** Before the request goes out a [`Watch`] takes the purge sequence, as a fill does. When the head comes,
//! [`Cache::observe`] says whether to record; the edge then pushes the body as it goes by, and [`Recording::finish`] stores
//! it: a whole response, or a part of one (206). Parts of one representation with the same strong validator are joined
//! where they touch (RFC 9111 §3.4); joined to the whole they become one. A HEAD freshens or invalidates what GET stored
//! (§4.3.5).
//!
//! **Failure.** A recording that is dropped stores nothing, so a body that broke off leaves no trace. One that outgrows
//! `cache.object_max`, or the share of memory that bodies under way may hold, gives up. A 206 whose body is not as long as
//! its `Content-Range` says is not stored.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::cache::Cache;
use crate::entry::Part;
use crate::fill::Class;
use crate::policy::conditional::strong_validator_agrees;
use crate::policy::encoding::is_encoded;
use crate::policy::fields;
use crate::policy::freshen::HeadSays;
use crate::policy::freshness::{drops_cookies, is_the_request_s, storable_part};
use crate::policy::request::MethodKind;
use crate::policy::response::StoredFacts;
use crate::policy::vary::Vary;
use crate::policy::{RequestFacts, ResponseFacts, Timestamp, freshen, invalidation, storable};
use crate::purge::{PurgeState, Slots};
use crate::{Entry, Field, Head, KeyBuf, Rule, Uncacheable};

/// A request that fetches for itself, as the cache remembers it.
#[derive(Clone, Debug)]
pub struct Watch {
    key: KeyBuf,
    /// The purge sequence before the request went out.
    began: u64,
    url_slots: Slots,
    requested: Timestamp,
    /// Its answer may be stored, if it can be.
    records: bool,
}

/// An answer that is being stored as it passes.
#[derive(Debug)]
pub struct Recording {
    cache: Arc<Cache>,
    key: Box<[u8]>,
    head: Head,
    facts: StoredFacts,
    tags: Box<[Slots]>,
    part: Option<Part>,
    body: Vec<u8>,
    /// What of the body is counted as held.
    held_bytes: u64,
    origin: (u64, Slots),
    failed: bool,
}

/// What arrived, as [`Cache::observe`] needs it.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The final status.
    pub status: u16,
    /// End-to-end fields.
    pub fields: &'a [Field<'a>],
    /// The body's length, if announced.
    pub content_length: Option<u64>,
}

impl Cache {
    /// Before a request goes to the origin by itself, after [`Join::Alone`](crate::Join::Alone). `records` is whether its
    /// answer may be stored; else it only tells that the key can be.
    #[must_use]
    pub fn watch(&self, key: &KeyBuf, records: bool, now: Timestamp) -> Watch {
        let url_slots = self.note_url(key.url_bytes());
        Watch { key: key.clone(), began: self.purges_so_far(), url_slots, requested: now, records }
    }

    /// A number that only purges change, for [`Cache::is_untouched`].
    #[must_use]
    pub fn purges_so_far(&self) -> u64 {
        self.sequence()
    }

    /// Whether no purge has taken a URL since [`Cache::purges_so_far`] said this: what was asked of it then is not out of
    /// date.
    #[must_use]
    pub fn is_untouched(&self, since: u64, authority: &[u8], (path, query): (&[u8], Option<&[u8]>)) -> bool {
        let mut key = KeyBuf::new();
        key.build_url(authority, path, query);
        self.url_purge_state(since, key.url_bytes()) == PurgeState::Untouched
    }

    /// Shows the head of a response to a request that went alone. A key that can be stored after all is no longer
    /// remembered as uncacheable; a HEAD freshens what GET stored; and a response that may be stored is to be recorded.
    #[must_use = "a response that may be stored is stored only if its body is pushed"]
    pub fn observe(
        self: &Arc<Self>,
        watch: &Watch,
        facts: &RequestFacts<'_>,
        rule: &Rule,
        observed: &Observed<'_>,
        now: Timestamp,
    ) -> Option<Recording> {
        let response = ResponseFacts::read(observed.status, observed.fields, watch.requested, now);
        if *rule == Rule::Off || facts.bypass().is_some() {
            return None;
        }
        if facts.method == MethodKind::Head {
            self.on_head_response(watch, facts, rule, &response, observed.content_length);
            return None;
        }
        // What a range met is its sender's alone, unless it is a part or, the range ignored, the whole: no key holds it.
        if facts.range.is_some() && !matches!(response.status, 200 | 206) {
            return None;
        }
        let (stored, part) = match response.status {
            206 => (storable_part(facts, rule, &response).ok()?, Some(Part::of(response.fields)?)),
            _ => (storable(facts, rule, &response).ok()?, None),
        };
        let vary = Vary::select_under(rule, response.fields, facts.fields).ok()?;
        if part.is_none() {
            self.forget_uncacheable(watch.key.as_bytes(), Class::of(facts, rule));
        }
        if !watch.records {
            return None;
        }
        self.record(watch, facts, rule, &response, (stored, part, vary), observed.content_length)
    }

    /// A POST whose response is, by its own word, what a GET of the same URL would get: with a lifetime of its own and a
    /// `Content-Location` that names the request's target ([`is_of_its_target`]). RFC 9110 §9.3.3. `key` is that of the GET.
    /// After [`Cache::invalidate`], and only if the URL [`is_untouched`](Cache::is_untouched) before that since the POST went
    /// out.
    #[must_use = "a response that may be stored is stored only if its body is pushed"]
    pub fn observe_post(
        self: &Arc<Self>,
        (key, requested): (&KeyBuf, Timestamp),
        facts: &RequestFacts<'_>,
        rule: &Rule,
        observed: &Observed<'_>,
        now: Timestamp,
    ) -> Option<Recording> {
        let response = ResponseFacts::read(observed.status, observed.fields, requested, now);
        response.lifetime_ms()?;
        // As the GET that it will answer.
        let facts = RequestFacts { method: MethodKind::Get, has_body: false, range: None, ..*facts };
        if facts.bypass().is_some() || response.status != 200 {
            return None;
        }
        let stored = storable(&facts, rule, &response).ok()?;
        let vary = Vary::select_under(rule, response.fields, facts.fields).ok()?;
        let watch = Watch { requested, ..self.watch(key, true, now) };
        self.record(&watch, &facts, rule, &response, (stored, None, vary), observed.content_length)
    }

    fn record(
        self: &Arc<Self>,
        watch: &Watch,
        facts: &RequestFacts<'_>,
        rule: &Rule,
        response: &ResponseFacts<'_>,
        (stored, part, vary): (StoredFacts, Option<Part>, Option<Vary>),
        content_length: Option<u64>,
    ) -> Option<Recording> {
        let announced = part.map(|part| part.end - part.start).or(content_length);
        let object_bytes_max = self.config().object_bytes_max;
        let contradicts = part.is_some() && content_length.is_some_and(|length| Some(length) != announced);
        if contradicts || announced.is_some_and(|length| length > object_bytes_max) {
            return None;
        }
        let tags = self.tag_slots_of(watch.key.as_bytes(), rule, response.fields).ok()?;
        let head = freshen::write_head(response, true, drops_cookies(facts, rule, response)).ok()?;
        Some(Recording {
            cache: Arc::clone(self),
            key: watch.key.as_bytes().into(),
            head: Head::new(response, head, announced, vary, Ok(())),
            facts: stored,
            tags,
            part,
            body: Vec::new(),
            held_bytes: 0,
            origin: (watch.began, watch.url_slots),
            failed: false,
        })
    }

    /// RFC 9111 §4.3.5: each stored response that the HEAD could have been answered from is freshened, or is out of date, or
    /// stays what it is where the HEAD has no validator.
    fn on_head_response(
        &self,
        watch: &Watch,
        facts: &RequestFacts<'_>,
        rule: &Rule,
        response: &ResponseFacts<'_>,
        content_length: Option<u64>,
    ) {
        // Where we compress by ourselves what GET stored has no coding, so a HEAD with one is about something else.
        if response.status != 200 || rule.compress().is_some() && is_encoded(response.fields) {
            return;
        }
        let facts = RequestFacts { method: MethodKind::Get, ..*facts };
        for old in self.stored_for(watch.key.as_bytes(), facts.fields) {
            let body_bytes = old.body.len() as u64;
            match freshen::head_says(&old.validators(), body_bytes, response, content_length) {
                HeadSays::Same if old.status == 200 => {
                    self.freshen_stored(watch, &facts, rule, response, &old);
                }
                HeadSays::Nothing if old.status == 200 => {}
                HeadSays::Same | HeadSays::Nothing | HeadSays::Other => {
                    self.forget(watch.key.as_bytes(), &old);
                }
            }
        }
    }

    /// Replaces a stored response by itself with newer fields, unless these forbid storing it.
    fn freshen_stored(
        &self,
        watch: &Watch,
        facts: &RequestFacts<'_>,
        rule: &Rule,
        response: &ResponseFacts<'_>,
        old: &Arc<Entry>,
    ) {
        let key = watch.key.as_bytes();
        if self.is_purged(old) {
            return;
        }
        let stored_fields = freshen::read_head(&old.head);
        let merged = freshen::merge(&stored_fields, response.fields);
        let merged = ResponseFacts::read(old.status, &merged, watch.requested, response.received);
        let freshened = || -> Result<Entry, Uncacheable> {
            let stored = storable(facts, rule, &merged)?;
            let head = freshen::write_head(&merged, true, drops_cookies(facts, rule, &merged))?;
            let vary = Vary::select_under(rule, merged.fields, facts.fields)?;
            let tags = self.tag_slots_of(key, rule, merged.fields)?;
            let head = Head::new(&merged, head, None, vary, Ok(()));
            let entry = Entry::new(&head, old.body.clone(), stored, tags, (watch.began, watch.url_slots));
            Ok(entry.with_encodings_of(old))
        };
        match freshened() {
            Ok(entry) => self.freshened(key, old, &Arc::new(entry)),
            Err(reason) if is_the_request_s(facts, reason) => {}
            Err(_) => self.forget(key, old),
        }
    }
}

/// Whether a POST's response says that it is what a GET of its target would get: `Content-Location` names that target.
#[must_use]
pub fn is_of_its_target(
    response_fields: &[Field<'_>],
    authority: &[u8],
    (path, query): (&[u8], Option<&[u8]>),
) -> bool {
    let mut locations = fields::lines(response_fields, b"content-location");
    let (Some(location), None) = (locations.next(), locations.next()) else { return false };
    let named = invalidation::resolve(location, authority, path);
    named.is_some_and(|(named, of)| *named == *path && of == query)
}

impl Recording {
    /// A piece of the body has passed.
    pub fn push(&mut self, piece: &[u8]) {
        if self.failed {
            return;
        }
        let length = (self.body.len() + piece.len()) as u64;
        let most = self.head.content_length.unwrap_or(self.cache.config().object_bytes_max);
        if length > most || self.cache.bodies_hold_too_much() {
            self.failed = true;
            self.release();
            return;
        }
        self.cache.count_held(piece.len() as u64);
        self.held_bytes += piece.len() as u64;
        self.body.extend_from_slice(piece);
    }

    /// The body is complete. Says whether it was stored.
    pub fn finish(mut self) -> bool {
        let whole = self.head.content_length.is_none_or(|length| length == self.body.len() as u64);
        if self.failed || !whole {
            return false;
        }
        // Without the room it grew into.
        let body = Bytes::from(std::mem::take(&mut self.body).into_boxed_slice());
        // What is joined to others is copied once more.
        let body = if self.part.is_none() { self.cache.bodies().make(&[body]) } else { body.into() };
        let entry = Entry::new(&self.head, body, self.facts, std::mem::take(&mut self.tags), self.origin);
        match self.part {
            None => self.cache.filled(&self.key, &Arc::new(entry)),
            Some(part) => self.finish_part(entry.with_part(part)),
        }
    }

    /// A part: it is joined to what it is of, or takes the place of what it is no part of.
    fn finish_part(&self, new: Entry) -> bool {
        let mut entry = None;
        let others = self.cache.all_stored(&self.key);
        for old in others.iter().filter(|old| old.selects_as(&new) && !self.cache.is_purged(old)) {
            if strong_validator_agrees(&old.validators(), &new.validators()) {
                entry = entry.or_else(|| new.joined(old));
            } else if old.part.is_none() {
                self.cache.forget(&self.key, old);
            }
        }
        let object_bytes_max = self.cache.config().object_bytes_max;
        let entry = entry.filter(|entry| entry.body.len() as u64 <= object_bytes_max).unwrap_or(new);
        self.cache.filled(&self.key, &Arc::new(entry))
    }

    fn release(&mut self) {
        self.cache.release_held(std::mem::take(&mut self.held_bytes));
        self.body = Vec::new();
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.release();
    }
}

impl Cache {
    /// All fills and recordings together hold more than they may.
    fn bodies_hold_too_much(&self) -> bool {
        self.counters().fill_bytes.load(Ordering::Relaxed) > self.held_bytes_max()
    }

    fn count_held(&self, bytes: u64) {
        self.counters().fill_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn release_held(&self, bytes: u64) {
        self.counters().fill_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
