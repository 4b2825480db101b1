//! Measures a lookup, and what an entry really takes.
//!
//! `cargo run --release -p tenfold-cache --example lookup` prints nanoseconds of CPU per hit with 1 and 1,000,000
//! keys, with one thread and two, and the process's resident memory beside the store's own accounting, for small and middling
//! bodies. The constants in `store.rs` come from here.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use tenfold_cache::{
    Cache, Config, Field, Join, KeyBuf, KeyUrl, Lookup, RequestFacts, Rule, Scheme, Timestamp,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const LOOKUPS: u64 = 4_000_000;
/// What a browser sends.
const REQUEST: [Field<'_>; 8] = [
    (b"Host", b"shop.example"),
    (
        b"User-Agent",
        b"Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126 Mobile",
    ),
    (b"Accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"Accept-Language", b"de-DE,de;q=0.9,en;q=0.8"),
    (b"Accept-Encoding", b"gzip, deflate, br"),
    (b"Referer", b"https://shop.example/"),
    (b"Connection", b"keep-alive"),
    (b"Sec-Fetch-Mode", b"navigate"),
];

fn build(key: &mut KeyBuf, n: u64) {
    let mut path = *b"/product/00000000";
    let mut rest = n;
    for digit in path[9..].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
    }
    let url =
        KeyUrl { scheme: Scheme::Http, authority: b"shop.example", path: &path, query: None, chosen_by: b"" };
    key.build(&url, &RequestFacts::read("GET", &REQUEST), &Rule::Respect);
}

fn filled(keys: u64, body_bytes: usize, memory_bytes: u64) -> Arc<Cache> {
    let config = Config { memory_bytes, ..Config::default() };
    let cache = Cache::new(config, 0x5eed).expect("fits");
    let facts = RequestFacts::read("GET", &[]);
    let response: [Field<'_>; 4] = [
        (b"Date", b"Tue, 14 Nov 2023 22:13:20 GMT"),
        (b"Content-Type", b"application/json"),
        (b"Cache-Control", b"public, max-age=600"),
        (b"ETag", b"\"5f3b2c1d\""),
    ];
    let body = vec![b'x'; body_bytes];
    let mut key = KeyBuf::new();
    for n in 0..keys {
        build(&mut key, n);
        let Join::Lead(mut fill, _follower) = cache.join(&key, &facts, &Rule::Respect, None, 0, NOW) else {
            continue;
        };
        fill.on_head(200, &response, Some(body_bytes as u64), NOW);
        fill.push(Bytes::copy_from_slice(&body));
        fill.finish(NOW);
    }
    cache
}

/// Nanoseconds for reading the request, building the key and looking it up; and for the lookup alone.
fn measure(cache: &Cache, keys: u64) -> (f64, f64) {
    let mut key = KeyBuf::new();
    let mut run = |with_request: bool| {
        let facts = RequestFacts::read("GET", &REQUEST);
        let mut n = 1;
        let mut hits = 0;
        let start = cpu_ns();
        for _ in 0..LOOKUPS {
            n = (n * 1_103_515_245 + 12_345) % keys.next_power_of_two() % keys;
            build(&mut key, n);
            if with_request {
                let facts = RequestFacts::read("GET", black_box(&REQUEST));
                hits += u64::from(matches!(cache.lookup(&key, &facts, &Rule::Respect, NOW), Lookup::Hit(_)));
            } else {
                hits += u64::from(matches!(cache.lookup(&key, &facts, &Rule::Respect, NOW), Lookup::Hit(_)));
            }
        }
        assert_eq!(hits, LOOKUPS);
        (cpu_ns() - start) as f64 / LOOKUPS as f64
    };
    (run(true), run(false))
}

/// What this thread has spent on a CPU, so that a busy machine matters less.
fn cpu_ns() -> u64 {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    spent.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number first")
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) * 1024
}

fn main() {
    for (keys, body_bytes) in [(1, 1024), (1_000_000, 1024), (200_000, 0), (50_000, 16 << 10)] {
        let before = resident_bytes();
        let cache = filled(keys, body_bytes, 4 << 30);
        let stats = cache.stats();
        let resident = resident_bytes().saturating_sub(before);
        println!(
            "{keys:>9} keys of {body_bytes:>6} bytes: weight {:>6} each, resident {:>6} each",
            stats.bytes / stats.objects,
            resident / stats.objects,
        );
        let (whole, lookup) = measure(&cache, keys);
        println!(
            "          one thread: {whole:.0} ns with reading the request, {lookup:.0} ns key and lookup"
        );
        let both = std::thread::scope(|scope| {
            let runs = [(); 2].map(|()| scope.spawn(|| measure(&cache, keys).1));
            runs.map(|run| run.join().expect("no panic"))
        });
        println!("          two threads: {:.0} and {:.0} ns", both[0], both[1]);
    }
}
