//! Bounds, weights and what stays.

use std::sync::OnceLock;

use bytes::Bytes;

use super::*;
use crate::policy::vary::Vary;
use crate::policy::{RequestFacts, ResponseFacts, storable};
use crate::purge::Purges;
use crate::{Head, Rule};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn store(memory_bytes: u64, object_bytes_max: u64) -> Store {
    let config = Config { memory_bytes, object_bytes_max, variants_max: 4, ..Config::default() };
    Store::new(&config, SeededHash::new(3)).expect("fits")
}

fn entry(body_bytes: usize, vary: Option<&[u8]>) -> Arc<Entry> {
    let request: Vec<Field<'_>> = vary.iter().map(|value| (&b"x"[..], *value)).collect();
    let fields: Vec<Field<'_>> =
        vec![(b"Cache-Control", b"max-age=60"), (b"Vary", if vary.is_some() { b"x" } else { b"" })];
    let response = ResponseFacts::read(200, &fields, NOW, NOW);
    let facts = RequestFacts::read("GET", &request);
    let stored = storable(&facts, &Rule::Respect, &response).expect("storable");
    let vary = Vary::select(&fields, &request).expect("few");
    let head = Head::new(&response, Bytes::from_static(b"Date: x\r\n"), None, vary, Ok(()));
    static SLOTS: OnceLock<crate::purge::Slots> = OnceLock::new();
    let slots = *SLOTS.get_or_init(|| Purges::new(SeededHash::new(3)).url_slots(b"u"));
    Arc::new(Entry::new(&head, Bytes::from(vec![0; body_bytes]).into(), stored, Box::new([]), (0, slots)))
}

fn key(n: u64) -> [u8; 8] {
    n.to_le_bytes()
}

/// Asks, and stores on a miss; says whether it was a hit.
fn ask(store: &Store, n: u64, body_bytes: usize) -> bool {
    let hit = store.get(&key(n)).is_some();
    if !hit {
        store.put(&key(n), &entry(body_bytes, None));
    }
    hit
}

/// Stores a body of each key.
fn put_all(store: &Store, keys: std::ops::Range<u64>, body_bytes: usize, vary: Option<&[u8]>) {
    for n in keys {
        store.put(&key(n), &entry(body_bytes, vary));
    }
}

/// Plain xorshift: the tests need repeatable numbers, not good ones.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn memory_stays_within_its_bound() {
    let store = store(16 << 20, 1 << 20);
    let mut numbers = Numbers(5);
    for n in 0..30_000 {
        let size = usize::try_from(numbers.below(3000)).expect("small");
        store.put(&key(n), &entry(size, None));
        if n % 500 == 0 {
            assert!(store.weight() <= 16 << 20, "{}", store.weight());
        }
    }
    assert!(store.weight() > 15 << 20, "and it is used: {}", store.weight());
}

#[test]
fn the_largest_objects_stay_when_stored() {
    for (memory_mib, object_mib) in [(64, 1), (64, 16), (64, 56), (256, 4)] {
        let store = store(memory_mib << 20, object_mib << 20);
        let body = usize::try_from(object_mib << 20).expect("small");
        put_all(&store, 0..memory_mib * 150, 9000, None);
        store.put(&key(u64::MAX), &entry(body, None));
        assert!(store.get(&key(u64::MAX)).is_some(), "{memory_mib} MiB, {object_mib} MiB");
        assert!(store.weight() <= memory_mib << 20);
    }
}

#[test]
fn replacing_keeps_weights_exact() {
    let store = store(16 << 20, 1 << 20);
    put_all(&store, 0..100, 1000, None);
    let before = store.weight();
    for round in 0..5_u8 {
        put_all(&store, 0..100, 500 + usize::from(round), None);
        put_all(&store, 0..100, 1000, Some(b"a"));
        for n in 0..100 {
            let object = store.get(&key(n)).expect("stored");
            object.entries().to_vec().iter().for_each(|one| store.remove(&key(n), one));
        }
        assert_eq!((store.weight(), store.len()), (0, 0));
        put_all(&store, 0..100, 1000, None);
        assert_eq!(store.weight(), before);
    }
}

#[test]
fn variants_are_bounded_by_count_and_by_weight() {
    let bounded = |body: usize| {
        let store = store(8 << 20, 2 << 20);
        for value in 0..9_u8 {
            store.put(b"k", &entry(body, Some(&[value])));
        }
        let object = store.get(b"k").expect("stored");
        let request: [Field<'_>; 1] = [(b"x", &[8])];
        let entries = object.entries().len();
        let selected = object.into_selected(&RequestFacts::read("GET", &request), NOW);
        (entries, matches!(selected, Selected::Whole(_)))
    };
    assert_eq!(bounded(1000), (4, true));
    assert_eq!(bounded(2 << 20), (3, true), "what a shard can hold");
}

#[test]
fn the_same_selecting_values_replace() {
    let store = store(8 << 20, 1 << 20);
    for _ in 0..5 {
        store.put(b"k", &entry(10, Some(b"de")));
        store.put(b"k", &entry(10, Some(b"en")));
    }
    assert_eq!(store.get(b"k").expect("stored").entries().len(), 2);
}

#[test]
fn a_scan_does_not_flush_what_is_asked_for() {
    let store = store(8 << 20, 64 << 10);
    let hot = 2000; // about 3 MB of 8
    for n in 0..4 * hot {
        ask(&store, n % hot, 1000);
    }
    // A crawler reads three times the cache's size, once each; the users go on meanwhile.
    let mut hits = 0;
    for n in 0..20_000 {
        ask(&store, 1_000_000 + n, 1000);
        hits += u64::from(ask(&store, n % hot, 1000));
    }
    assert!(hits > 19_500, "{hits} of 20000");
}

#[test]
fn hits_follow_popularity() {
    let store = store(8 << 20, 64 << 10); // room for about 5,500 of 50,000
    let mut numbers = Numbers(11);
    // Zipf with exponent 1: a uniform draw of the logarithm.
    let zipf = |numbers: &mut Numbers| {
        let log = numbers.below(1 << 20) as f64 / f64::from(1 << 20) * 50_000_f64.ln();
        // Whole numbers have distinct bits, which is all a key needs.
        log.exp().trunc().to_bits()
    };
    let mut hits_among = |asked: u32| (0..asked).filter(|_| ask(&store, zipf(&mut numbers), 1000)).count();
    hits_among(50_000);
    let hits = hits_among(50_000);
    // Keeping the most popular would give ln(5500)/ln(50000) = 0.80.
    assert!((36_000..=41_000).contains(&hits), "{hits}");
}
