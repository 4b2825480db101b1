//! Caches of answers that are all of one size: ours, and simulators of others.
//!
//! The simulators are as their papers say, and generous: where a real cache would estimate (the frequencies of W-TinyLFU)
//! they count exactly. `S3Fifo`: Yang et al., "FIFO Queues are All You Need for Cache Eviction" (SOSP 2023): a small queue of
//! a tenth, a main one, a ghost as long as the main one. `TinyLfu`: Einziger, Friedman, Manes, "TinyLFU: A Highly Efficient
//! Cache Admission Policy" (2017), with the window of a hundredth and the segmented LRU of Caffeine.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use anyhow::{Result, bail};
use bytes::Bytes;
use tenfold_cache::{
    Cache, Config, Field, Join, KeyBuf, KeyUrl, Lookup, RequestFacts, Rule, Scheme, Timestamp,
};

/// Answers a request for a key, storing what it has not; says whether it had it.
pub(crate) trait Policy {
    fn ask(&mut self, key: u32) -> bool;
}

/// The cache of this repository.
pub(crate) struct Ours {
    cache: Arc<Cache>,
    key: KeyBuf,
}

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const RESPONSE: [Field<'_>; 1] = [(b"Cache-Control", b"max-age=86400")];
const BODY: &[u8] = &[b'x'; 1024];

impl Ours {
    /// With room for so many answers.
    pub(crate) fn new(room: usize) -> Result<Self> {
        let config = |memory_bytes| Config { memory_bytes, object_bytes_max: 4096, ..Config::default() };
        let mut scale = Self { cache: Cache::new(config(1 << 20), 1)?, key: KeyBuf::new() };
        scale.ask(0);
        let one = scale.cache.stats().bytes;
        if one == 0 {
            bail!("an answer that should be stored was not");
        }
        Ok(Self { cache: Cache::new(config(one * room as u64), 1)?, key: KeyBuf::new() })
    }
}

impl Policy for Ours {
    fn ask(&mut self, key: u32) -> bool {
        // All keys of one length, so that all weigh the same.
        let path = format!("/{key:010}");
        let url = KeyUrl {
            scheme: Scheme::Http,
            authority: b"shop.example",
            path: path.as_bytes(),
            query: None,
            chosen_by: b"",
        };
        let facts = RequestFacts::read("GET", &[]);
        self.key.build(&url, &facts, &Rule::Respect);
        if let Lookup::Hit(_) = self.cache.lookup(&self.key, &facts, &Rule::Respect, NOW) {
            return true;
        }
        if let Join::Lead(mut fill, _lead) = self.cache.join(&self.key, &facts, &Rule::Respect, None, 0, NOW)
        {
            // What it says is known: this is stored.
            let _ = fill.on_head(200, &RESPONSE, Some(BODY.len() as u64), NOW);
            fill.push(Bytes::from_static(BODY));
            fill.finish(NOW);
        }
        false
    }
}

/// Keys in the order of their last use.
#[derive(Default)]
struct Recency {
    by_key: HashMap<u32, u64>,
    by_use: BTreeMap<u64, u32>,
    clock: u64,
}

impl Recency {
    fn touch(&mut self, key: u32) {
        self.remove(key);
        self.clock += 1;
        self.by_key.insert(key, self.clock);
        self.by_use.insert(self.clock, key);
    }

    fn remove(&mut self, key: u32) -> bool {
        let used = self.by_key.remove(&key);
        used.is_some_and(|used| self.by_use.remove(&used).is_some())
    }

    fn holds(&self, key: u32) -> bool {
        self.by_key.contains_key(&key)
    }

    fn oldest(&self) -> Option<u32> {
        self.by_use.values().next().copied()
    }

    fn len(&self) -> usize {
        self.by_key.len()
    }
}

/// The least recently used leaves.
pub(crate) struct Lru {
    room: usize,
    keys: Recency,
}

impl Lru {
    pub(crate) fn new(room: usize) -> Self {
        Self { room, keys: Recency::default() }
    }
}

impl Policy for Lru {
    fn ask(&mut self, key: u32) -> bool {
        let hit = self.keys.holds(key);
        self.keys.touch(key);
        if self.keys.len() > self.room
            && let Some(oldest) = self.keys.oldest()
        {
            self.keys.remove(oldest);
        }
        hit
    }
}

/// Three queues.
pub(crate) struct S3Fifo {
    small_room: usize,
    main_room: usize,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    ghost: VecDeque<u32>,
    /// Of what is in the small or the main queue: how often it was asked for since it came.
    asked: HashMap<u32, u8>,
    ghosts: HashMap<u32, usize>,
}

const ASKED_MAX: u8 = 3;

impl S3Fifo {
    pub(crate) fn new(room: usize) -> Self {
        let small_room = (room / 10).max(1);
        Self {
            small_room,
            main_room: room.saturating_sub(small_room).max(1),
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghost: VecDeque::new(),
            asked: HashMap::new(),
            ghosts: HashMap::new(),
        }
    }

    fn make_room(&mut self) {
        while self.small.len() + self.main.len() >= self.small_room + self.main_room {
            if self.small.len() >= self.small_room { self.evict_small() } else { self.evict_main() }
        }
    }

    fn evict_small(&mut self) {
        let Some(key) = self.small.pop_front() else { return };
        if self.asked.get(&key).is_some_and(|&asked| asked > 1) {
            self.asked.insert(key, 0);
            self.main.push_back(key);
            return;
        }
        self.asked.remove(&key);
        self.ghost.push_back(key);
        *self.ghosts.entry(key).or_default() += 1;
        if self.ghost.len() > self.main_room
            && let Some(oldest) = self.ghost.pop_front()
        {
            self.forget_ghost(oldest);
        }
    }

    fn evict_main(&mut self) {
        while let Some(key) = self.main.pop_front() {
            let asked = self.asked.entry(key).or_default();
            if *asked == 0 {
                self.asked.remove(&key);
                return;
            }
            *asked -= 1;
            self.main.push_back(key);
        }
    }

    fn forget_ghost(&mut self, key: u32) {
        if let Some(count) = self.ghosts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.ghosts.remove(&key);
            }
        }
    }
}

impl Policy for S3Fifo {
    fn ask(&mut self, key: u32) -> bool {
        if let Some(asked) = self.asked.get_mut(&key) {
            *asked = (*asked + 1).min(ASKED_MAX);
            return true;
        }
        let is_ghost = self.ghosts.contains_key(&key);
        self.make_room();
        if is_ghost {
            self.main.push_back(key);
        } else {
            self.small.push_back(key);
        }
        self.asked.insert(key, 0);
        false
    }
}

/// A window of recent keys before a segmented LRU that admits who is asked for more often than whom it would replace.
pub(crate) struct TinyLfu {
    window_room: usize,
    probation_room: usize,
    protected_room: usize,
    window: Recency,
    probation: Recency,
    protected: Recency,
    /// Halved every so often, so that old fame fades.
    counts: HashMap<u32, u8>,
    counted: usize,
}

/// Counts are of four bits.
const COUNT_MAX: u8 = 15;
/// Requests counted between two halvings, for each key that there is room for.
const SAMPLE: usize = 10;

impl TinyLfu {
    pub(crate) fn new(room: usize) -> Self {
        let window_room = (room / 100).max(1);
        let main_room = room.saturating_sub(window_room).max(1);
        let protected_room = main_room * 8 / 10;
        Self {
            window_room,
            probation_room: main_room - protected_room,
            protected_room,
            window: Recency::default(),
            probation: Recency::default(),
            protected: Recency::default(),
            counts: HashMap::new(),
            counted: 0,
        }
    }

    fn count(&mut self, key: u32) {
        let count = self.counts.entry(key).or_default();
        *count = (*count + 1).min(COUNT_MAX);
        self.counted += 1;
        if self.counted >= SAMPLE * (self.window_room + self.probation_room + self.protected_room) {
            self.counted /= 2;
            self.counts.retain(|_, count| {
                *count /= 2;
                *count > 0
            });
        }
    }

    fn frequency(&self, key: u32) -> u8 {
        self.counts.get(&key).copied().unwrap_or(0)
    }

    /// What leaves the window competes with what would leave the main part.
    fn admit(&mut self, candidate: u32) {
        if self.probation.len() + self.protected.len() < self.probation_room + self.protected_room {
            self.probation.touch(candidate);
            return;
        }
        let Some(victim) = self.probation.oldest().or_else(|| self.protected.oldest()) else { return };
        if self.frequency(candidate) > self.frequency(victim) {
            self.probation.remove(victim);
            self.protected.remove(victim);
            self.probation.touch(candidate);
        }
    }
}

impl Policy for TinyLfu {
    fn ask(&mut self, key: u32) -> bool {
        self.count(key);
        if self.window.holds(key) {
            self.window.touch(key);
            return true;
        }
        if self.protected.holds(key) {
            self.protected.touch(key);
            return true;
        }
        if self.probation.remove(key) {
            self.protected.touch(key);
            if self.protected.len() > self.protected_room
                && let Some(demoted) = self.protected.oldest()
            {
                self.protected.remove(demoted);
                self.probation.touch(demoted);
            }
            return true;
        }
        self.window.touch(key);
        if self.window.len() > self.window_room
            && let Some(candidate) = self.window.oldest()
        {
            self.window.remove(candidate);
            self.admit(candidate);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(policy: &mut impl Policy, keys: &[u32]) -> usize {
        keys.iter().filter(|&&key| policy.ask(key)).count()
    }

    #[test]
    fn the_least_recently_used_leaves() {
        assert_eq!(hits(&mut Lru::new(2), &[1, 2, 1, 3, 1, 2]), 2);
    }

    #[test]
    fn a_scan_drives_out_of_the_others_nothing_that_is_asked_for_again() {
        // Ten keys that all come again and again, and between them keys that never do.
        let keys: Vec<u32> = (0..20_000).map(|n| if n % 2 == 0 { n / 2 % 10 } else { 1_000 + n }).collect();
        assert!(hits(&mut Lru::new(15), &keys) < 100);
        assert!(hits(&mut S3Fifo::new(15), &keys) > 9_000);
        assert!(hits(&mut TinyLfu::new(15), &keys) > 9_000);
    }

    #[test]
    fn none_holds_more_than_there_is_room_for() {
        for room in [1, 7, 100] {
            let (mut s3, mut tiny) = (S3Fifo::new(room), TinyLfu::new(room));
            for n in 0..5_000_u32 {
                let key = n.wrapping_mul(2_654_435_761) >> 22;
                s3.ask(key);
                tiny.ask(key);
                assert!(s3.small.len() + s3.main.len() <= room.max(2));
                assert!(tiny.window.len() + tiny.probation.len() + tiny.protected.len() <= room.max(2));
            }
        }
    }

    #[test]
    fn ours_keeps_what_it_has_room_for() {
        let mut ours = Ours::new(300).expect("fits");
        let keys: Vec<u32> = (0..100).collect();
        assert_eq!((hits(&mut ours, &keys), hits(&mut ours, &keys)), (0, 100));
    }
}
