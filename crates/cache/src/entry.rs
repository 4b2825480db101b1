//! A stored response, ready to be written.
//!
//! The head is kept as the bytes that go out, so a hit is one gathered write: the head, a few dynamic lines by the edge
//! (`Content-Length`, `Age`, `Cache-Status`, `Connection`), the body. Beside it lies what the policy needs to judge the
//! response without reading the head again.

use std::sync::atomic::AtomicU64;

use bytes::Bytes;

use crate::policy::response::StoredFacts;
use crate::policy::vary::Vary;
use crate::policy::{ResponseFacts, Timestamp, Validators};
use crate::purge::Slots;

/// A complete response in the cache. Never changes; freshening makes another.
#[derive(Debug)]
pub struct Entry {
    /// Its status.
    pub status: u16,
    /// `HTTP/1.1 200 OK\r\nname: value\r\n…`, without the empty line, and without `Age`, `Connection`, `Cache-Status`,
    /// `Content-Length` and `Transfer-Encoding`, which are the edge's to write.
    pub head: Bytes,
    /// The whole body.
    pub body: Bytes,
    pub(crate) etag: Option<Bytes>,
    pub(crate) last_modified: Option<Bytes>,
    pub(crate) facts: StoredFacts,
    /// Which requests it answers; `None` for all.
    pub(crate) vary: Option<Vary>,
    /// The purge sequence when its fetch began.
    pub(crate) began: u64,
    /// The purge sequence at which it was last found untouched. At least `began`.
    pub(crate) checked: AtomicU64,
    pub(crate) url_slots: Slots,
    pub(crate) tag_slots: Box<[Slots]>,
    /// When a variant was last used, in milliseconds; kept up only where a key has several.
    pub(crate) last_used_ms: AtomicU64,
    /// What it weighs without its key.
    pub(crate) weight: u64,
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
    /// It will be stored if it ends as announced.
    pub stored: bool,
    pub(crate) etag: Option<Bytes>,
    pub(crate) last_modified: Option<Bytes>,
    pub(crate) date: Timestamp,
    pub(crate) vary: Option<Vary>,
}

impl Entry {
    /// A response that is complete. `began` is the purge sequence when its fetch began, with its URL's slots.
    pub(crate) fn new(
        head: &Head,
        body: Bytes,
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
            etag: head.etag.clone(),
            last_modified: head.last_modified.clone(),
            last_used_ms: AtomicU64::new(facts.received.0),
            facts,
            vary: head.vary.clone(),
            began,
            checked: AtomicU64::new(began),
            url_slots,
            tag_slots,
        }
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
        stored: bool,
    ) -> Self {
        Self {
            status: response.status,
            head,
            content_length,
            age_s: response.age_s.map(|_| response.initial_age_ms() / 1000),
            stored,
            etag: response.etag.map(Bytes::copy_from_slice),
            last_modified: response.last_modified.map(Bytes::copy_from_slice),
            date: response.date_or_received(),
            vary,
        }
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
