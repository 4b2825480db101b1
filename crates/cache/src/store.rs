//! The RAM tier: keys to stored responses, bounded by what they truly weigh.
//!
//! **Intuition.** One object per key holds the few responses that `Vary` tells apart. Objects live in `quick_cache`, a
//! CLOCK-Pro cache that remembers evicted keys for a while, so that a crawler's once-seen pages pass through a small
//! cold section without pushing out what is asked for every second.
//!
//! **Mechanism.** The weight of an object is its bodies, heads, keys and the bookkeeping that was measured for them.
//! The usual object has one response, and then a lookup clones one `Arc` and nothing else. Changing an object (a new
//! variant, a freshened entry) builds another and replaces it whole, under a lock striped by hash, so weights never
//! drift.
//!
//! **Failure.** An object heavier than a shard's hot section would be evicted in the moment it is stored, so the number
//! of shards follows from the largest object, and [`Store::new`] refuses what cannot fit in one shard. Too many
//! variants, or too heavy ones, evict the least recently used.

use std::hash::BuildHasher;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quick_cache::{Lifecycle, OptionsBuilder, Weighter};
use smallvec::SmallVec;

use crate::body::Body;
use crate::policy::{RequestFacts, Timestamp};
use crate::{Config, Entry, Error, Field};

/// Objects by key.
#[derive(Debug)]
pub(crate) struct Store {
    objects: quick_cache::sync::Cache<Key, Object, Weight, SeededHash, Evictions>,
    hash: SeededHash,
    /// Serialise changes to one object.
    changing: Box<[Mutex<()>]>,
    variants_max: usize,
    /// What one object may weigh, so that it stays in its shard.
    object_weight_max: u64,
}

/// A short key lies in its slot of the store, where comparing it costs no further miss of the processor's caches: with a
/// million keys, comparing keys that lay apart took 5 % of a hit.
type Key = SmallVec<[u8; KEY_INLINE_BYTES]>;

/// What is stored under one key.
#[derive(Debug)]
pub(crate) enum Object {
    /// The usual case.
    One(Arc<Entry>),
    /// Several that `Vary` tells apart.
    Many(Arc<Variants>),
}

/// Which of the responses under a key answers a request.
#[derive(Debug)]
pub(crate) enum Selected {
    /// This one.
    Whole(Arc<Entry>),
    /// The part of one that was asked for.
    Part(Arc<Entry>),
    /// None.
    None {
        /// There is a part of it, but not the one asked for.
        partial: bool,
    },
}

/// Newest first.
#[derive(Debug)]
pub(crate) struct Variants {
    entries: Box<[Arc<Entry>]>,
    weight: u64,
}

/// Hashes with a seed that nobody outside knows.
#[derive(Clone, Debug)]
pub(crate) struct SeededHash(foldhash::quality::SeedableRandomState);

/// Weighs objects.
#[derive(Clone, Debug)]
struct Weight;

/// Collects what an insertion pushed out, to be dropped outside the shard's lock and counted.
#[derive(Clone, Debug)]
struct Evictions;

/// What one insertion did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Objects of other keys that left.
    pub(crate) evicted: u64,
    /// Variants of this key that left.
    pub(crate) variants_evicted: u64,
}

/// Bookkeeping of an object beside its entries: a slot of the slab and of the hash table (both grow by doubling, so
/// a slot and a half on average), and its share of remembered evicted keys. Measured with `examples/lookup.rs`, see
/// there.
const OBJECT_OVERHEAD_BYTES: u64 = 232;
/// Most keys are shorter: `shop.example` and `/product/00000000` make one of 42.
const KEY_INLINE_BYTES: usize = 56;
/// What the allocator adds to a key that is longer.
const KEY_OVERHEAD_BYTES: u64 = 16;
/// An entry's own allocation, and the allocator's and `Bytes`' bookkeeping for head and body.
const ENTRY_OVERHEAD_BYTES: u64 = size_of::<Entry>() as u64 + 16 + 2 * (16 + 32) + 16;
/// Small enough that two workers rarely meet on a shard, and few enough that shards are not tiny.
const SHARDS_MAX: u64 = 64;
/// A shard holds at least so many of the largest objects, where there is memory for it.
const OBJECTS_PER_SHARD_MIN: u64 = 4;
/// The share of a shard for what was asked for more than once; the rest is where new objects prove themselves. With 0.97
/// and a third of the ghosts, `bench/hit-ratio` was up to 3 points lower, and below an exact LRU where there is room for 137.
const HOT_PERCENT: u8 = 90;
/// Evicted keys remembered, as a share of the estimated number of objects.
const GHOST_ALLOCATION: f64 = 0.5;
/// For that estimate only: what small answers weigh, so that there are ghosts enough where there are most objects.
const OBJECT_BYTES_TYPICAL: u64 = 3 << 9;
const STRIPES: usize = 64;

impl Store {
    pub(crate) fn new(config: &Config, hash: SeededHash) -> Result<Self, Error> {
        let shards = Self::shards_for(config)?;
        let object_weight_max = Self::hot_bytes(config.memory_bytes / shards);
        let objects_estimated =
            usize::try_from(config.memory_bytes / OBJECT_BYTES_TYPICAL).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .shards(usize::try_from(shards).expect("at most SHARDS_MAX"))
            .weight_capacity(config.memory_bytes)
            .estimated_items_capacity(objects_estimated)
            .hot_allocation(f64::from(HOT_PERCENT) / 100.0)
            .ghost_allocation(GHOST_ALLOCATION)
            .build()
            .expect("both capacities are set");
        Ok(Self {
            objects: quick_cache::sync::Cache::with_options(options, Weight, hash.clone(), Evictions),
            hash,
            changing: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            variants_max: config.variants_max,
            object_weight_max,
        })
    }

    /// How many shards a configuration gets; refuses one whose largest object none of them could hold.
    pub(crate) fn shards_for(config: &Config) -> Result<u64, Error> {
        let largest = Self::largest_weight(config.object_bytes_max);
        let shards = Self::shards(config.memory_bytes, largest);
        if largest <= Self::hot_bytes(config.memory_bytes / shards) {
            return Ok(shards);
        }
        Err(Error::ObjectTooLarge {
            object_bytes_max: config.object_bytes_max,
            memory_bytes: config.memory_bytes,
            possible_bytes_max: Self::hot_bytes(config.memory_bytes).saturating_sub(Self::largest_weight(0)),
        })
    }

    /// The most that an object of one response with this body can weigh.
    fn largest_weight(body_bytes: u64) -> u64 {
        /// A head, selecting values and a key of the largest size, and what a file takes beside its bytes.
        const EXTRA_BYTES_MAX: u64 = (64 + 16 + 48 + 8) << 10;
        body_bytes.saturating_add(EXTRA_BYTES_MAX)
    }

    /// As many shards as still hold several of the largest objects each; one if need be.
    fn shards(memory_bytes: u64, largest: u64) -> u64 {
        let mut shards = SHARDS_MAX;
        while shards > 1 && memory_bytes / shards < largest.saturating_mul(OBJECTS_PER_SHARD_MIN) {
            shards /= 2;
        }
        shards
    }

    /// The hot section of a shard, which is the most one object may weigh; rounded down by more than a float can err.
    fn hot_bytes(shard_bytes: u64) -> u64 {
        shard_bytes / 100 * u64::from(HOT_PERCENT)
    }

    /// What is stored under a key. The hit path: one hash, one shared lock, one `Arc` clone.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Option<Object> {
        self.objects.get(key)
    }

    /// Looks without making the key hotter.
    pub(crate) fn peek(&self, key: &[u8]) -> Option<Object> {
        self.objects.peek(key)
    }

    /// Stores a response, in the place of the one for the same requests.
    pub(crate) fn put(&self, key: &[u8], entry: &Arc<Entry>) -> Change {
        let _change = self.changing(key);
        let object = self.objects.peek(key);
        self.put_beside(key, object.as_ref().map_or(&[], Object::entries), entry)
    }

    /// Stores a response in the place of another, unless that one has left or been replaced meanwhile.
    pub(crate) fn replace(&self, key: &[u8], old: &Arc<Entry>, entry: &Arc<Entry>) -> Option<Change> {
        let _change = self.changing(key);
        let object = self.objects.peek(key)?;
        let others: SmallVec<[Arc<Entry>; 4]> =
            object.entries().iter().filter(|other| !other.is_same_as(old)).cloned().collect();
        (others.len() < object.entries().len()).then(|| self.put_beside(key, &others, entry))
    }

    /// Puts another form of a response in its place, if it is still there and there is room for what it grew by.
    pub(crate) fn amend(&self, key: &[u8], entry: &Entry, amended: impl FnOnce(&Entry) -> Entry) -> bool {
        let _change = self.changing(key);
        let Some(object) = self.objects.peek(key) else { return false };
        let mut entries: SmallVec<[Arc<Entry>; 4]> = object.entries().iter().cloned().collect();
        let Some(current) = entries.iter_mut().find(|other| other.is_same_as(entry)) else { return false };
        *current = Arc::new(amended(current));
        if weight_of(&entries) > self.object_weight_max.saturating_sub(object_overhead(key)) {
            return false;
        }
        let Some(object) = Object::of(entries) else { return false };
        self.objects.replace(Key::from_slice(key), object, true).is_ok()
    }

    /// Stores a response beside others of its key. Under the key's lock.
    fn put_beside(&self, key: &[u8], others: &[Arc<Entry>], entry: &Arc<Entry>) -> Change {
        let (object, variants_evicted) = self.with_entry(key, others, entry);
        let mut evicted = Evicted::default();
        self.objects.insert_with_lifecycle(Key::from_slice(key), object, &mut evicted);
        let others = evicted.0.iter().filter(|(other, _)| **other != *key).count() as u64;
        Change { evicted: others, variants_evicted }
    }

    /// Removes one response, if it is still there.
    pub(crate) fn remove(&self, key: &[u8], entry: &Arc<Entry>) {
        let _change = self.changing(key);
        let Some(object) = self.objects.peek(key) else { return };
        let kept: SmallVec<[Arc<Entry>; 4]> =
            object.entries().iter().filter(|other| !other.is_same_as(entry)).cloned().collect();
        if kept.len() == object.entries().len() {
            return;
        }
        match Object::of(kept) {
            None => drop(self.objects.remove(key)),
            Some(object) => drop(self.objects.replace(Key::from_slice(key), object, true)),
        }
    }

    /// Adds an entry to what is there: it leads, those for the same requests leave, and the least recently used leave
    /// until count and weight are within bounds.
    fn with_entry(&self, key: &[u8], others: &[Arc<Entry>], entry: &Arc<Entry>) -> (Object, u64) {
        let mut entries: SmallVec<[Arc<Entry>; 4]> = SmallVec::new();
        entries.push(Arc::clone(entry));
        // A part leaves the whole alone; the whole replaces parts too.
        let replaced =
            |other: &Arc<Entry>| other.selects_as(entry) && (entry.part.is_none() || other.part.is_some());
        entries.extend(others.iter().filter(|other| !replaced(other)).cloned());
        let mut variants_evicted = 0;
        let budget = self.object_weight_max.saturating_sub(object_overhead(key));
        while entries.len() > 1 && (entries.len() > self.variants_max || weight_of(&entries) > budget) {
            let used = |index: &usize| entries[*index].last_used_ms.load(Ordering::Relaxed);
            let coldest = (1..entries.len()).min_by_key(used).expect("more than one");
            entries.remove(coldest);
            variants_evicted += 1;
        }
        (Object::of(entries).expect("one at least"), variants_evicted)
    }

    fn changing(&self, key: &[u8]) -> MutexGuard<'_, ()> {
        let stripe = usize::try_from(self.hash.hash_one(key) % STRIPES as u64).expect("below STRIPES");
        self.changing[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keys stored.
    pub(crate) fn len(&self) -> u64 {
        self.objects.len() as u64
    }

    /// What they weigh.
    pub(crate) fn weight(&self) -> u64 {
        self.objects.weight()
    }
}

impl Clone for Object {
    /// What a hit takes from under the shard's lock. Counting a reference is a locked instruction, behind which a processor
    /// loads nothing ahead, so what is needed next is asked for before it.
    #[inline]
    fn clone(&self) -> Self {
        match self {
            Self::One(entry) => {
                entry.touch();
                Self::One(Arc::clone(entry))
            }
            Self::Many(variants) => Self::Many(Arc::clone(variants)),
        }
    }
}

impl Object {
    fn of(entries: SmallVec<[Arc<Entry>; 4]>) -> Option<Self> {
        match entries.len() {
            0 => None,
            1 => entries.into_iter().next().map(Self::One),
            _ => {
                let weight = weight_of(&entries);
                Some(Self::Many(Arc::new(Variants {
                    entries: entries.into_vec().into_boxed_slice(),
                    weight,
                })))
            }
        }
    }

    /// All responses, newest first.
    pub(crate) fn entries(&self) -> &[Arc<Entry>] {
        match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Many(variants) => &variants.entries,
        }
    }

    /// The response that answers a request, if one does: the newest whole one of those that match (RFC 9111 §4.1), those spelled
    /// alike before those that mean the same; else a part that holds the range asked for.
    #[inline]
    pub(crate) fn into_selected(self, facts: &RequestFacts<'_>, now: Timestamp) -> Selected {
        match self {
            Self::One(entry) if entry.part.is_none() && entry.selects(facts.fields) => Selected::Whole(entry),
            Self::One(entry) => Self::part_of(std::slice::from_ref(&entry), facts),
            Self::Many(variants) => {
                let wholes = || variants.entries.iter().filter(|entry| entry.part.is_none());
                // What is spelled alike is found without looking at what anything means.
                let spelled = wholes().find(|entry| entry.is_spelled_so(facts.fields));
                let Some(entry) = spelled.or_else(|| wholes().find(|entry| entry.selects(facts.fields)))
                else {
                    return Self::part_of(&variants.entries, facts);
                };
                entry.last_used_ms.store(now.0, Ordering::Relaxed);
                Selected::Whole(Arc::clone(entry))
            }
        }
    }

    fn part_of(entries: &[Arc<Entry>], facts: &RequestFacts<'_>) -> Selected {
        let mut parts =
            entries.iter().filter(|entry| entry.part.is_some() && entry.selects(facts.fields)).peekable();
        let partial = parts.peek().is_some();
        match parts.find(|entry| entry.holds_range(facts)) {
            Some(entry) => Selected::Part(Arc::clone(entry)),
            None => Selected::None { partial },
        }
    }

    fn weight(&self) -> u64 {
        match self {
            Self::One(entry) => entry.weight,
            Self::Many(variants) => variants.weight,
        }
    }
}

fn weight_of(entries: &[Arc<Entry>]) -> u64 {
    let list = if entries.len() > 1 { 32 + size_of_val(entries) as u64 } else { 0 };
    entries.iter().map(|entry| entry.weight).sum::<u64>() + list
}

fn object_overhead(key: &[u8]) -> u64 {
    let apart = if key.len() > KEY_INLINE_BYTES { KEY_OVERHEAD_BYTES + key.len() as u64 } else { 0 };
    OBJECT_OVERHEAD_BYTES + apart
}

impl Entry {
    fn is_spelled_so(&self, request_fields: &[Field<'_>]) -> bool {
        self.vary.as_ref().is_none_or(|vary| vary.is_spelled_so(request_fields))
    }

    #[inline]
    pub(crate) fn selects(&self, request_fields: &[Field<'_>]) -> bool {
        self.vary.as_ref().is_none_or(|vary| vary.matches(request_fields))
    }

    /// Whether it answers the same requests as another.
    pub(crate) fn selects_as(&self, other: &Self) -> bool {
        match (&self.vary, &other.vary) {
            (Some(vary), Some(other)) => vary.selects_as(other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// Weighs an entry's parts: what it allocates and what the allocator adds.
    pub(crate) fn weigh(head: &[u8], body: &Body, vary_and_validators: u64, tags: usize) -> u64 {
        let tags = (tags * size_of::<crate::purge::Slots>()) as u64;
        ENTRY_OVERHEAD_BYTES + head.len() as u64 + body.weight() + vary_and_validators + tags
    }
}

impl Weighter<Key, Object> for Weight {
    #[inline]
    fn weight(&self, key: &Key, object: &Object) -> u64 {
        object_overhead(key) + object.weight()
    }
}

/// Keys and objects that left during one insertion, the replaced object among them.
#[derive(Default)]
struct Evicted(SmallVec<[(Key, Object); 4]>);

impl Lifecycle<Key, Object> for Evictions {
    type RequestState = Evicted;

    fn on_evict(&self, evicted: &mut Evicted, key: Key, object: Object) {
        evicted.0.push((key, object));
    }
}

impl SeededHash {
    pub(crate) fn new(seed: u64) -> Self {
        Self(foldhash::quality::SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_random()))
    }
}

impl BuildHasher for SeededHash {
    type Hasher = <foldhash::quality::SeedableRandomState as BuildHasher>::Hasher;

    #[inline]
    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}

#[cfg(test)]
mod tests;
