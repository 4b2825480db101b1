//! A stored response, ready to be written.
//!
//! The head is kept as the bytes that go out, so a hit is one gathered write: the head, a few dynamic lines by the edge
//! (`Content-Length`, `Age`, `Cache-Status`, `Connection`), the body. Beside it lies what the policy needs to judge the
//! response without reading the head again.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use bytes::Bytes;

use crate::body::Body;
use crate::encoded::Encoded;
use crate::policy::encoding::{Transform, is_encoded};
use crate::policy::freshen::{merge_heads, read_head};
use crate::policy::range::{RangePlan, number, plan_range, split_once};
use crate::policy::response::StoredFacts;
use crate::policy::vary::Vary;
use crate::policy::{RequestFacts, ResponseFacts, Timestamp, Validators, fields};
use crate::purge::Slots;
use crate::{Compress, Field, Rule, Uncacheable};

/// A complete response in the cache. Never changes; freshening makes another.
#[derive(Debug)]
pub struct Entry {
    /// Its status.
    pub status: u16,
    /// `name: value\r\n…`, without the status line and the empty line, and without `Age`, `Connection`, `Cache-Status`,
    /// `Content-Length`, `Content-Range` and `Transfer-Encoding`, which are the edge's to write.
    pub head: Bytes,
    /// The whole body.
    pub body: Body,
    /// What `body` is of the representation, if not all of it. The status is 206 then.
    pub part: Option<Part>,
    pub(crate) etag: Option<Bytes>,
    pub(crate) last_modified: Option<Bytes>,
    pub(crate) facts: StoredFacts,
    /// Which requests it answers; `None` for all.
    pub(crate) vary: Option<Vary>,
    /// The purges' position when its fetch began.
    pub(crate) began: u64,
    /// How many purges there had been when it was last found untouched.
    pub(crate) checked: AtomicU64,
    pub(crate) url_slots: Slots,
    /// Of its tags, and of its path's prefixes.
    pub(crate) tag_slots: Box<[Slots]>,
    /// When a variant was last used, in milliseconds; kept up only where a key has several.
    pub(crate) last_used_ms: AtomicU64,
    /// What it weighs without its key.
    pub(crate) weight: u64,
    /// Another edge fetched it.
    pub(crate) from_tier: bool,
    /// How long it took to fetch, in milliseconds; 0 where that is not known.
    pub(crate) fetch_ms: u32,
    pub(crate) transform: Transform,
    /// The same in other codings; at most one of each.
    pub(crate) encoded: Box<[Encoded]>,
    /// The bits of codings that were made, or are being made, or can't be.
    pub(crate) encoding_begun: AtomicU8,
    /// Of these, those that save too little, or don't fit.
    pub(crate) encoding_refused: AtomicU8,
}

/// A part of a representation: bytes `start` to `end` (exclusive) of `complete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The first byte.
    pub start: u64,
    /// One past the last. At most `complete`, above `start`.
    pub end: u64,
    /// How long the representation is.
    pub complete: u64,
}

impl Part {
    /// What a 206's `Content-Range` says: `bytes 0-4/10`, with a known length. RFC 9110 §14.4.
    pub(crate) fn of(response_fields: &[Field<'_>]) -> Option<Self> {
        let mut lines = fields::lines(response_fields, b"content-range");
        let (line, None) = (lines.next()?, lines.next()) else { return None };
        let (unit, rest) = line.split_at_checked(6)?;
        let (first, rest) = split_once(rest, b'-')?;
        let (last, complete) = split_once(rest, b'/')?;
        let (start, last, complete) = (number(first)?, number(last)?, number(complete)?);
        let fits = unit.eq_ignore_ascii_case(b"bytes ") && start <= last && last < complete;
        fits.then_some(Self { start, end: last + 1, complete })
    }
}

/// The head of a response that is being fetched, as followers see it.
#[derive(Debug)]
pub struct Head {
    /// Its status.
    pub status: u16,
    /// As [`Entry::head`].
    pub head: Bytes,
    /// The body's length, if the origin announced it.
    pub content_length: Option<u64>,
    /// What to write as `Age`: present if the origin's response had one.
    pub age_s: Option<u64>,
    /// It will be stored if it ends as announced; else why not.
    pub stored: Result<(), Uncacheable>,
    /// How long it is fresh from now on, if it is stored.
    pub ttl_s: Option<i64>,
    pub(crate) etag: Option<Bytes>,
    pub(crate) last_modified: Option<Bytes>,
    pub(crate) date: Timestamp,
    pub(crate) vary: Option<Vary>,
    pub(crate) transform: Transform,
}

/// An interim response (1xx), for those who wait for the final one.
#[derive(Debug)]
pub struct Interim {
    /// Its status.
    pub status: u16,
    /// `name: value\r\n…`, without the empty line.
    pub head: Bytes,
}

impl Entry {
    /// A response that is complete. `began` is the purge sequence when its fetch began, with its URL's slots.
    pub(crate) fn new(
        head: &Head,
        body: Body,
        facts: StoredFacts,
        tag_slots: Box<[Slots]>,
        (began, url_slots): (u64, Slots),
    ) -> Self {
        let vary_weight = head.vary.as_ref().map_or(0, Vary::weight);
        let validators = [&head.etag, &head.last_modified].into_iter().flatten();
        let validators_weight: usize = validators.map(|value| value.len() + VALIDATOR_OVERHEAD_BYTES).sum();
        let extra = vary_weight + validators_weight as u64;
        Self {
            status: head.status,
            weight: Self::weigh(&head.head, &body, extra, tag_slots.len()),
            head: head.head.clone(),
            body,
            part: None,
            etag: head.etag.clone(),
            last_modified: head.last_modified.clone(),
            last_used_ms: AtomicU64::new(facts.received.0),
            facts,
            vary: head.vary.clone(),
            began,
            checked: AtomicU64::new(0),
            url_slots,
            tag_slots,
            from_tier: false,
            fetch_ms: 0,
            transform: head.transform,
            encoded: Box::default(),
            encoding_begun: AtomicU8::new(0),
            encoding_refused: AtomicU8::new(0),
        }
    }

    /// The same again, to be changed before it is shared.
    pub(crate) fn clone_as_is(&self) -> Self {
        Self {
            status: self.status,
            head: self.head.clone(),
            body: self.body.clone(),
            part: self.part,
            etag: self.etag.clone(),
            last_modified: self.last_modified.clone(),
            facts: self.facts,
            vary: self.vary.clone(),
            began: self.began,
            checked: AtomicU64::new(self.checked.load(Ordering::Relaxed)),
            url_slots: self.url_slots,
            tag_slots: self.tag_slots.clone(),
            last_used_ms: AtomicU64::new(self.last_used_ms.load(Ordering::Relaxed)),
            weight: self.weight,
            from_tier: self.from_tier,
            fetch_ms: self.fetch_ms,
            transform: self.transform,
            encoded: self.encoded.clone(),
            encoding_begun: AtomicU8::new(self.encoding_begun.load(Ordering::Relaxed)),
            encoding_refused: AtomicU8::new(self.encoding_refused.load(Ordering::Relaxed)),
        }
    }

    /// Knowing how long it took to fetch.
    pub(crate) fn fetched_in(self, milliseconds: u64) -> Self {
        // What took no measurable time took less than one.
        Self { fetch_ms: u32::try_from(milliseconds).unwrap_or(u32::MAX).max(1), ..self }
    }

    /// As another edge fetched it, in so many milliseconds; 0 if that is not known.
    pub(crate) fn of_tier(self, fetch_ms: u32) -> Self {
        Self { from_tier: true, fetch_ms, ..self }
    }

    /// Whether another edge fetched it, and it came from the tier that edges share.
    #[must_use]
    pub fn is_from_tier(&self) -> bool {
        self.from_tier
    }

    /// A part of its representation.
    pub(crate) fn with_part(self, part: Part) -> Self {
        Self { part: Some(part), status: 206, ..self }
    }

    /// How long the representation is.
    #[must_use]
    pub fn complete_length(&self) -> u64 {
        self.part.map_or(self.body.len() as u64, |part| part.complete)
    }

    /// Whether the one range that a request asks for is in this part.
    pub(crate) fn holds_range(&self, facts: &RequestFacts<'_>) -> bool {
        let Some(part) = self.part else { return true };
        match plan_range(facts, 200, &self.validators(), part.complete) {
            RangePlan::Single { start, end } => part.start <= start && end <= part.end,
            RangePlan::Full | RangePlan::NotSatisfiable | RangePlan::Several(_) => false,
        }
    }

    /// This part and an older response of the same representation in one, with this one's fields before the older's where
    /// both have them; `None` if they don't touch. What holds all of it is the whole, with status 200. RFC 9111 §3.4.
    pub(crate) fn joined(&self, old: &Self) -> Option<Self> {
        let part = self.part?;
        let old_part = old.part.unwrap_or(Part {
            start: 0,
            end: old.complete_length(),
            complete: old.complete_length(),
        });
        if part.complete != old_part.complete || part.end < old_part.start || old_part.end < part.start {
            return None;
        }
        let (start, end) = (part.start.min(old_part.start), part.end.max(old_part.end));
        let before = usize::try_from(part.start.saturating_sub(old_part.start)).ok()?;
        let behind = usize::try_from(part.end.saturating_sub(old_part.start)).ok()?;
        let mut body = Vec::with_capacity(usize::try_from(end - start).ok()?);
        let pieces = [old.body.slice(0..before), self.body.clone(), old.body.slice(behind..old.body.len())];
        pieces.iter().try_for_each(|piece| piece.append_to(&mut body)).ok()?;
        let whole = end - start == part.complete;
        let part = (!whole).then_some(Part { start, end, complete: part.complete });
        let head = merge_heads(&old.head, &self.head);
        debug_assert_eq!(body.len() as u64, end - start, "no byte twice");
        Some(self.rebuilt(head, Bytes::from(body).into(), part))
    }

    /// The same again, with another head and body.
    fn rebuilt(&self, head: Bytes, body: Body, part: Option<Part>) -> Self {
        debug_assert!(self.encoded.is_empty(), "a part has no codings");
        let without = self.weight - self.head.len() as u64 - self.body.weight();
        let status = if part.is_some() { 206 } else { 200 };
        let weight = without + head.len() as u64 + body.weight();
        let transform = Transform::of(status, &read_head(&head));
        Self { status, weight, transform, head, body, part, checked: AtomicU64::new(0), ..self.clone_as_is() }
    }

    /// What the response can be asked for by.
    #[must_use]
    pub fn validators(&self) -> Validators<'_> {
        Validators {
            etag: self.etag.as_deref(),
            last_modified: self.last_modified.as_deref(),
            date: self.facts.date,
        }
    }

    /// `ETag` as the origin sent it.
    #[must_use]
    pub fn etag(&self) -> Option<&[u8]> {
        self.etag.as_deref()
    }

    /// Whether the origin may find it to be the answer to a request that its `Vary` tells apart from its own. A strong tag
    /// names one representation byte for byte; a weak one several codings may share, of which the other request may know
    /// none (RFC 9110 §8.8.1), and no browser asks with what it was told under other credentials.
    pub(crate) fn may_answer_others(&self) -> bool {
        let is_strong = self.etag().is_some_and(|etag| !etag.starts_with(b"W/"));
        let of_user = || self.vary.as_ref().is_some_and(Vary::names_credentials);
        is_strong && self.part.is_none() && !of_user() && !is_encoded(&read_head(&self.head))
    }

    /// `Last-Modified` as the origin sent it.
    #[must_use]
    pub fn last_modified(&self) -> Option<&[u8]> {
        self.last_modified.as_deref()
    }

    /// Its age, for `Age`. RFC 9111 §4.2.3.
    #[must_use]
    pub fn age_s(&self, now: Timestamp) -> u64 {
        self.facts.age_ms(now) / 1000
    }

    /// Asks for the memory of the entry, its head and its body: with many keys it is in no cache of the processor, and
    /// what is asked for together comes together.
    #[inline]
    pub(crate) fn touch(&self) {
        let own =
            (self.facts.received, self.vary.is_some(), self.checked.load(Ordering::Relaxed), self.weight);
        std::hint::black_box((own, self.head.first().copied(), self.body.first()));
    }

    /// What it weighs in the store, without its key.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.weight
    }
}

/// What the allocator and `Bytes` add to a validator's own copy.
const VALIDATOR_OVERHEAD_BYTES: usize = 16 + 32;

impl Head {
    /// Of a response whose head has been written as `head`.
    pub(crate) fn new(
        response: &ResponseFacts<'_>,
        head: Bytes,
        content_length: Option<u64>,
        vary: Option<Vary>,
        stored: Result<(), Uncacheable>,
    ) -> Self {
        Self {
            status: response.status,
            transform: match stored {
                Ok(()) => Transform::of(response.status, &read_head(&head)),
                Err(_) => Transform::default(),
            },
            head,
            content_length,
            age_s: response.age_s.map(|_| response.initial_age_ms() / 1000),
            stored,
            ttl_s: None,
            etag: response.etag.map(Bytes::copy_from_slice),
            last_modified: response.last_modified.map(Bytes::copy_from_slice),
            date: response.date_or_received(),
            vary,
        }
    }

    /// Whether `Vary: Accept-Encoding` has to be written behind the head: what is stored of it will come in codings.
    #[must_use]
    pub fn adds_vary(&self, rule: &Rule) -> bool {
        let covered = |rule: &Compress| rule.covers(self.transform, self.content_length);
        self.stored.is_ok() && !self.transform.names_encoding && rule.compress().is_some_and(covered)
    }

    /// What the response can be asked for by.
    #[must_use]
    pub fn validators(&self) -> Validators<'_> {
        Validators {
            etag: self.etag.as_deref(),
            last_modified: self.last_modified.as_deref(),
            date: self.date,
        }
    }
}
