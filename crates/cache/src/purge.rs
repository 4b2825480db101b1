//! Purges: sequence numbers instead of searches.
//!
//! **Intuition.** Removing everything that carries a tag would mean finding it. Instead a purge writes down *when* it
//! happened, and each entry knows when its fetch *began*: an entry that began before the purge is not served again.
//! That costs one store, whatever is in the cache.
//!
//! **Mechanism.** URLs, tags and path prefixes hash into a fixed array of 2^20 slots, each the id of its last purge; soft
//! and hard purges of one thing use different slots, so that a later soft one cannot undo a hard one. Slots are
//! allocated a page at a time as purges touch them. A fill takes the position (the last id) before it asks the origin,
//! so what it stores is judged by when it was asked for: a fetch that began before a purge cannot store past it, however
//! late it ends. An entry remembers how many purges there had been when it was last found unpurged, so most hits cost one
//! load. Where edges share a stream of purges, its ids are theirs (`Purges::apply_at`), so that an entry means the same
//! to all of them; a purge of this edge's own takes the id after the last one until it comes back with the stream.
//!
//! **Failure.** Two things in one slot purge each other: too much goes, never too little. Nothing fills up. Purges are
//! applied under a lock, the slot before the position and the count (release/acquire): a lookup that sees the count
//! sees the slot. An id that isn't above the position is applied above it.

use std::hash::{BuildHasher as _, Hash};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::key::{KeyBuf, UrlParts};
use crate::store::SeededHash;

/// What to purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge<'a> {
    /// Everything stored for one URL, under whatever rule and variant.
    Url {
        /// Lower-cased, with the port if the key has it.
        authority: &'a [u8],
        /// Normalised as for the key.
        path: &'a [u8],
        /// Without `?`; `None` if the URL has none.
        query: Option<&'a [u8]>,
    },
    /// Everything that carries the tag.
    Tag(&'a [u8]),
    /// Everything below a path, with and without a query.
    Prefix {
        /// As for a URL.
        authority: &'a [u8],
        /// Normalised, and ends at a `/`.
        path: &'a [u8],
    },
    /// Everything.
    All,
}

/// A purge that has been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Its place in the order of purges.
    pub sequence: u64,
}

/// How an entry stands towards the purges. Later is stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PurgeState {
    /// None hit it.
    Untouched,
    /// One may have: this edge lost its place among them. It may be served while it is fresh, and should be renewed.
    Suspect,
    /// It counts as stale.
    Soft,
    /// It is never served again.
    Hard,
}

/// Slots of the array. 8 MiB once every page is in use.
const SLOTS: usize = 1 << 20;
/// Path segments down to which prefixes can be purged.
pub const PREFIX_DEPTH_MAX: usize = 16;
/// Slots allocated together: 8 KiB, two pages of memory.
const PAGE_SLOTS: usize = 1 << 10;

/// Says which slots a thing has: one for soft and one for hard purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    soft: u32,
    hard: u32,
}

/// The record of all purges.
#[derive(Debug)]
pub(crate) struct Purges {
    hash: SeededHash,
    pages: Box<[OnceLock<Box<[AtomicU64]>>]>,
    /// One bit for each hard slot: something with a URL there has been asked for through the cache.
    seen: Box<[AtomicU64]>,
    suspect_all: AtomicU64,
    soft_all: AtomicU64,
    hard_all: AtomicU64,
    /// The id of the last purge, or of the last that was heard of.
    position: AtomicU64,
    /// Where the last purge of a tag is.
    last_tag: AtomicU64,
    /// Purges that are visible in their slots.
    count: AtomicU64,
    /// One purge at a time, so that slots are written in order.
    applying: Mutex<()>,
}

impl Purges {
    pub(crate) fn new(hash: SeededHash) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            hash,
            pages: (0..SLOTS / PAGE_SLOTS).map(|_| OnceLock::new()).collect(),
            seen: (0..SLOTS / 64).map(|_| AtomicU64::new(0)).collect(),
            suspect_all: zero(),
            soft_all: zero(),
            hard_all: zero(),
            position: zero(),
            last_tag: zero(),
            count: zero(),
            applying: Mutex::new(()),
        }
    }

    /// The position that a fetch which begins now carries.
    pub(crate) fn sequence(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// How many purges there have been. What was found untouched at this count is so while it stands.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Applies a purge: what began before this moment is out of date when this returns.
    pub(crate) fn apply(&self, purge: &Purge<'_>, soft: bool) -> Purged {
        self.apply_at(purge, soft, 0)
    }

    /// Applies a purge that has an id.
    pub(crate) fn apply_at(&self, purge: &Purge<'_>, soft: bool, id: u64) -> Purged {
        let purged = self.write(self.slot_of(purge, soft), id);
        self.note_tag(purge, purged.sequence);
        purged
    }

    fn note_tag(&self, purge: &Purge<'_>, position: u64) {
        if matches!(purge, Purge::Tag(_)) {
            self.last_tag.fetch_max(position, Ordering::Release);
        }
    }

    /// Whether any tag was purged since: what it carries that began then is not known until its head comes.
    pub(crate) fn any_tag_since(&self, began: u64) -> bool {
        self.last_tag.load(Ordering::Acquire) > began
    }

    /// Where a purge is recorded.
    fn slot_of(&self, purge: &Purge<'_>, soft: bool) -> &AtomicU64 {
        let slots = match *purge {
            Purge::Url { authority, path, query } => {
                let mut key = KeyBuf::new();
                key.build_url(authority, path, query);
                Some(self.url_slots(key.url_bytes()))
            }
            Purge::Tag(tag) => Some(self.tag_slots(tag)),
            Purge::Prefix { authority, path } => Some(self.slots((b'p', (authority, path)))),
            Purge::All => None,
        };
        match (slots, soft) {
            (Some(slots), true) => self.slot_allocated(slots.soft),
            (Some(slots), false) => self.slot_allocated(slots.hard),
            (None, true) => &self.soft_all,
            (None, false) => &self.hard_all,
        }
    }

    /// Applies a purge that may have been applied before, at its id. What began since keeps its place.
    pub(crate) fn apply_known(&self, purge: &Purge<'_>, soft: bool, id: u64) {
        let slot = self.slot_of(purge, soft);
        let _one_at_a_time = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        slot.fetch_max(id, Ordering::Release);
        self.note_tag(purge, id);
        self.position.fetch_max(id, Ordering::Release);
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Anything may have been purged that is not known of.
    pub(crate) fn suspect_all(&self) {
        self.write(&self.suspect_all, 0);
    }

    fn write(&self, slot: &AtomicU64, id: u64) -> Purged {
        let _one_at_a_time = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let position = self.position.load(Ordering::Relaxed);
        let sequence = if id > position { id } else { position + 1 };
        slot.store(sequence, Ordering::Release);
        self.position.store(sequence, Ordering::Release);
        self.count.fetch_add(1, Ordering::Release);
        Purged { sequence }
    }

    /// An id has been heard of that purges nothing.
    pub(crate) fn advance(&self, id: u64) {
        let _one_at_a_time = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        self.position.fetch_max(id, Ordering::Release);
    }

    /// Notes that a URL is being fetched to be stored. Before the fetch takes its sequence.
    pub(crate) fn note(&self, slots: Slots) {
        let (word, bit) = seen_bit(slots);
        if self.seen[word].load(Ordering::SeqCst) & bit == 0 {
            self.seen[word].fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// Whether anything can be stored, or on its way to be, for a URL. Invalidation by unsafe methods asks this first,
    /// so that writes to URLs nobody reads don't make every entry look at its slots again.
    pub(crate) fn may_hold(&self, slots: Slots) -> bool {
        let (word, bit) = seen_bit(slots);
        self.seen[word].load(Ordering::SeqCst) & bit != 0
    }

    /// Where a key's URL is recorded.
    pub(crate) fn url_slots(&self, url_bytes: &[u8]) -> Slots {
        self.slots((b'u', url_bytes))
    }

    /// Where a tag is recorded.
    pub(crate) fn tag_slots(&self, tag: &[u8]) -> Slots {
        self.slots((b't', tag))
    }

    /// Where the prefixes of a key's path are recorded, the shortest first.
    pub(crate) fn prefix_slots<'k>(&self, url: &UrlParts<'k>) -> impl Iterator<Item = Slots> + use<'k, '_> {
        let UrlParts { authority, path, .. } = *url;
        let ends = memchr::memchr_iter(b'/', path).take(PREFIX_DEPTH_MAX);
        ends.map(move |end| self.slots((b'p', (authority, &path[..=end]))))
    }

    fn slots(&self, thing: impl Hash) -> Slots {
        let hash = self.hash.hash_one(thing);
        let index = |bits: u64| u32::try_from(bits % SLOTS as u64).expect("below 2^20");
        Slots { soft: index(hash), hard: index(hash >> 32) }
    }

    /// How something fetched since `began` stands, with the slots it lies under.
    pub(crate) fn state(&self, began: u64, slots: impl IntoIterator<Item = Slots>) -> PurgeState {
        let suspect = self.suspect_all.load(Ordering::Acquire);
        let mut soft = self.soft_all.load(Ordering::Acquire);
        let mut hard = self.hard_all.load(Ordering::Acquire);
        for slots in slots {
            soft = soft.max(self.read(slots.soft));
            hard = hard.max(self.read(slots.hard));
        }
        if hard > began {
            return PurgeState::Hard;
        }
        if soft > began {
            return PurgeState::Soft;
        }
        if suspect > began { PurgeState::Suspect } else { PurgeState::Untouched }
    }

    fn read(&self, slot: u32) -> u64 {
        let slot = slot as usize;
        self.pages[slot / PAGE_SLOTS].get().map_or(0, |page| page[slot % PAGE_SLOTS].load(Ordering::Acquire))
    }

    fn slot_allocated(&self, slot: u32) -> &AtomicU64 {
        let slot = slot as usize;
        let page = self.pages[slot / PAGE_SLOTS].get_or_init(|| {
            (0..PAGE_SLOTS).map(|_| AtomicU64::new(0)).collect::<Vec<_>>().into_boxed_slice()
        });
        &page[slot % PAGE_SLOTS]
    }

    #[cfg(test)]
    fn pages_allocated(&self) -> usize {
        self.pages.iter().filter(|page| page.get().is_some()).count()
    }
}

fn seen_bit(slots: Slots) -> (usize, u64) {
    (slots.hard as usize / 64, 1 << (slots.hard % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purges() -> Purges {
        Purges::new(SeededHash::new(7))
    }

    fn url(path: &[u8]) -> Purge<'_> {
        Purge::Url { authority: b"shop.example", path, query: None }
    }

    fn slots(purges: &Purges, path: &[u8]) -> Slots {
        let mut key = KeyBuf::new();
        key.build_url(b"shop.example", path, None);
        purges.url_slots(key.url_bytes())
    }

    #[test]
    fn what_began_before_is_purged_and_what_began_after_is_not() {
        let purges = purges();
        let began_before = purges.sequence();
        let purged = purges.apply(&url(b"/a"), false);
        assert_eq!(purges.state(began_before, [slots(&purges, b"/a")]), PurgeState::Hard);
        assert_eq!(purges.state(purged.sequence, [slots(&purges, b"/a")]), PurgeState::Untouched);
        assert_eq!(purges.state(began_before, [slots(&purges, b"/b")]), PurgeState::Untouched);
    }

    #[test]
    fn a_later_soft_purge_does_not_undo_a_hard_one() {
        let purges = purges();
        let began = purges.sequence();
        purges.apply(&url(b"/a"), false);
        purges.apply(&url(b"/a"), true);
        assert_eq!(purges.state(began, [slots(&purges, b"/a")]), PurgeState::Hard);
        assert_eq!(purges.state(1, [slots(&purges, b"/a")]), PurgeState::Soft);
    }

    #[test]
    fn tags_and_all_reach_what_lies_under_them() {
        let purges = purges();
        let tags = [slots(&purges, b"/a"), purges.tag_slots(b"product-1"), purges.tag_slots(b"product-2")];
        purges.apply(&Purge::Tag(b"product-2"), true);
        assert_eq!(purges.state(0, tags), PurgeState::Soft);
        assert_eq!(purges.state(0, [slots(&purges, b"/a")]), PurgeState::Untouched);
        purges.apply(&Purge::All, false);
        assert_eq!(purges.state(1, []), PurgeState::Hard);
        assert_eq!(purges.state(2, []), PurgeState::Untouched);
    }

    #[test]
    fn a_prefix_reaches_what_lies_below_it_and_nothing_beside_it() {
        let purges = purges();
        let state = |authority: &[u8], path: &[u8], began| {
            purges.state(began, purges.prefix_slots(&UrlParts { authority, path, query: None }))
        };
        let below = |path| Purge::Prefix { authority: b"shop.example", path };
        let purged = purges.apply(&below(b"/a/b/"), false);
        for path in [&b"/a/b/"[..], b"/a/b/c", b"/a/b/c/d"] {
            assert_eq!(state(b"shop.example", path, 0), PurgeState::Hard, "{path:?}");
            assert_eq!(state(b"shop.example", path, purged.sequence), PurgeState::Untouched);
            assert_eq!(state(b"other.example", path, 0), PurgeState::Untouched);
        }
        for path in [&b"/a/b"[..], b"/a/", b"/a/bc", b"/"] {
            assert_eq!(state(b"shop.example", path, 0), PurgeState::Untouched, "{path:?}");
        }
        purges.apply(&below(b"/"), true);
        assert_eq!(state(b"shop.example", b"/x", 0), PurgeState::Soft);
        let deep = "/d".repeat(PREFIX_DEPTH_MAX + 5);
        let parts = UrlParts { authority: b"", path: deep.as_bytes(), query: None };
        assert_eq!(purges.prefix_slots(&parts).count(), PREFIX_DEPTH_MAX);
    }

    #[test]
    fn ids_may_come_in_any_order_and_none_is_missed() {
        let purges = purges();
        purges.advance(100);
        assert_eq!(purges.sequence(), 100);
        let own = purges.apply(&url(b"/a"), false);
        assert_eq!(own.sequence, 101);
        // What was fetched since must go too: it cannot be known what came first.
        let late = purges.apply_at(&url(b"/b"), false, 101);
        assert_eq!(late.sequence, 102);
        assert_eq!(purges.state(101, [slots(&purges, b"/b")]), PurgeState::Hard);
        purges.apply_at(&url(b"/c"), false, 200);
        assert_eq!(purges.sequence(), 200);
        purges.advance(150);
        assert_eq!(purges.sequence(), 200);
        purges.apply_known(&url(b"/d"), false, 180);
        assert_eq!(purges.sequence(), 200);
        assert_eq!(purges.state(179, [slots(&purges, b"/d")]), PurgeState::Hard);
        assert_eq!(purges.state(180, [slots(&purges, b"/d")]), PurgeState::Untouched);
    }

    #[test]
    fn what_is_suspect_is_less_than_stale() {
        let purges = purges();
        let began = purges.sequence();
        purges.suspect_all();
        assert_eq!(purges.state(began, []), PurgeState::Suspect);
        assert_eq!(purges.state(purges.sequence(), []), PurgeState::Untouched);
        purges.apply(&url(b"/a"), true);
        assert_eq!(purges.state(began, [slots(&purges, b"/a")]), PurgeState::Soft);
    }

    #[test]
    fn memory_is_taken_a_page_at_a_time() {
        let purges = purges();
        assert_eq!(purges.pages_allocated(), 0);
        purges.apply(&Purge::All, false);
        assert_eq!(purges.pages_allocated(), 0);
        purges.apply(&url(b"/a"), false);
        assert_eq!(purges.pages_allocated(), 1);
    }

    #[test]
    fn concurrent_purges_are_all_seen_by_who_sees_the_sequence() {
        let purges = purges();
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let purges = &purges;
                scope.spawn(move || {
                    for round in 0..500_u16 {
                        let path = [thread, round.to_le_bytes()[0], round.to_le_bytes()[1]];
                        let began = purges.sequence();
                        purges.apply(&url(&path), false);
                        assert!(purges.sequence() > began);
                        assert_eq!(purges.state(began, [slots(purges, &path)]), PurgeState::Hard);
                    }
                });
            }
        });
        assert_eq!(purges.sequence(), 2000);
    }
}
