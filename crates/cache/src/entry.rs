//! A stored response, ready to be written.
//!
//! The head is kept as the bytes that go out, so a hit is one gathered write: the head, a few dynamic lines by the edge
//! (`Content-Length`, `Age`, `Cache-Status`, `Connection`), the body. Beside it lies what the policy needs to judge the
//! response without reading the head again.

use std::sync::atomic::AtomicU64;

use bytes::Bytes;

use crate::policy::response::StoredFacts;
use crate::policy::vary::Vary;
use crate::policy::{Timestamp, Validators};
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

    /// What it weighs in the store, without its key.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.weight
    }
}

impl Head {
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
