//! What the cache counts about itself.
//!
//! Hits and misses are not here: a shared counter on the hit path would cost more than the lookup, so the edge counts
//! the [`Lookup`](crate::Lookup) it got, per worker. What happens off that path is counted here, in plain atomics.

use std::sync::atomic::{AtomicU64, Ordering};

/// A snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys stored.
    pub objects: u64,
    /// Their weight: bodies, heads, keys and bookkeeping.
    pub bytes: u64,
    /// The most they may weigh.
    pub bytes_max: u64,
    /// Responses stored since the start.
    pub stored: u64,
    /// Stored responses freshened by a 304.
    pub revalidated: u64,
    /// Requests answered with a stale copy because the origin failed.
    pub stale_if_error: u64,
    /// Requests that followed another's fetch.
    pub collapsed: u64,
    /// Followers sent to make their own request.
    pub released: u64,
    /// Objects evicted to make room.
    pub evicted: u64,
    /// Variants that left because their key had too many.
    pub variants_evicted: u64,
    /// Purges applied.
    pub purges: u64,
    /// Fills running.
    pub fills: u64,
    /// Bodies kept in files of memory.
    pub files: u64,
    /// Fills ended without an answer.
    pub fills_failed: u64,
    /// Fills that ended because nobody followed.
    pub fills_abandoned: u64,
    /// Bodies held by running fills, in bytes.
    pub fill_bytes: u64,
    /// Requests refused a fill because `cache.fills_max` were running.
    pub fills_full: u64,
    /// Codings made of stored responses.
    pub encodings: u64,
    /// Codings that saved too little or found no room.
    pub encodings_refused: u64,
    /// Wishes for a coding that were forgotten because too many waited.
    pub encodings_dropped: u64,
}

/// The counters behind it.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) stored: AtomicU64,
    pub(crate) revalidated: AtomicU64,
    pub(crate) stale_if_error: AtomicU64,
    pub(crate) collapsed: AtomicU64,
    pub(crate) released: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) variants_evicted: AtomicU64,
    pub(crate) fills: AtomicU64,
    pub(crate) fills_failed: AtomicU64,
    pub(crate) fills_abandoned: AtomicU64,
    pub(crate) fill_bytes: AtomicU64,
    pub(crate) fills_full: AtomicU64,
    pub(crate) encodings: AtomicU64,
    pub(crate) encodings_refused: AtomicU64,
    pub(crate) encodings_dropped: AtomicU64,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// Reads them all; the store's and the purges' figures are filled in by the cache.
    pub(crate) fn snapshot(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            stored: read(&self.stored),
            revalidated: read(&self.revalidated),
            stale_if_error: read(&self.stale_if_error),
            collapsed: read(&self.collapsed),
            released: read(&self.released),
            evicted: read(&self.evicted),
            variants_evicted: read(&self.variants_evicted),
            fills: read(&self.fills),
            files: 0,
            fills_failed: read(&self.fills_failed),
            fills_abandoned: read(&self.fills_abandoned),
            fill_bytes: read(&self.fill_bytes),
            fills_full: read(&self.fills_full),
            encodings: read(&self.encodings),
            encodings_refused: read(&self.encodings_refused),
            encodings_dropped: read(&self.encodings_dropped),
            ..Stats::default()
        }
    }
}
