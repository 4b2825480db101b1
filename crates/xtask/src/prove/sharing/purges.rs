//! Purges: how long one takes over many entries, how soon every edge knows, and an edge that was cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tenfold_cache::{
    Cache, Config, Field, Join, KeyBuf, KeyUrl, Lookup, Purge, RequestFacts, Rule, Scheme, Timestamp,
};
use tenfold_testkit::fault::{Direction, Fault, Proxy};
use tenfold_testkit::redis::Redis;
use tenfold_testkit::{Answer, Origin, raw, try_wait_for};

use super::{HOST, PATIENCE, edges, file, until_shared};
use crate::prove::stand::{Scratch, Tenfold, now};
use crate::prove::verdict::Verdicts;

/// One entry in so many carries the tag.
const TAGGED_EACH: u64 = 10;
const LOCAL_MAX: Duration = Duration::from_millis(1);
const EVERYWHERE_MAX: Duration = Duration::from_millis(100);
const ROUNDS: usize = 20;
const BLIND_MAX: Duration = Duration::from_secs(3);
const AT: Timestamp = Timestamp(1_700_000_000_000);

/// The cache itself: a tag over a tenth of so many entries.
pub(super) fn local(entries: u64, verdicts: &mut Verdicts) -> Result<()> {
    let cache = Cache::new(Config { memory_bytes: 8 << 30, ..Config::default() }, 7)?;
    let facts = RequestFacts::read("GET", &[]);
    let key = |n: u64| {
        let (mut key, path) = (KeyBuf::new(), format!("/{n}"));
        let url = KeyUrl {
            scheme: Scheme::Http,
            authority: b"shop.example",
            path: path.as_bytes(),
            query: None,
            chosen_by: b"",
        };
        key.build(&url, &facts, &Rule::Respect);
        key
    };
    for n in 0..entries {
        let Join::Lead(mut fill, follower) = cache.join(&key(n), &facts, &Rule::Respect, None, 0, AT) else {
            bail!("a fill was expected")
        };
        let tag: Field<'_> = (b"Surrogate-Key", if n % TAGGED_EACH == 0 { b"sale" } else { b"other" });
        let _ = fill.on_head(200, &[(b"Cache-Control", b"max-age=600"), tag], None, AT);
        fill.push(bytes::Bytes::from_static(b"body"));
        ensure!(fill.finish(AT), "an entry was not stored");
        drop(follower);
    }
    let stored = cache.stats().objects;
    let began = now();
    let _ = cache.purge(&Purge::Tag(b"sale"), false);
    let took = began.elapsed();
    let what = format!("a tag over {} of {stored} entries is purged in", entries / TAGGED_EACH);
    verdicts.bar(&what, format!("{:.1} µs", took.as_secs_f64() * 1e6), "≤ 1 ms", took <= LOCAL_MAX);
    let hit = |n: u64| matches!(cache.lookup(&key(n), &facts, &Rule::Respect, AT), Lookup::Hit(_));
    let tagged = |n: u64| n.is_multiple_of(TAGGED_EACH);
    let spared = (0..entries).filter(|&n| tagged(n) && hit(n)).count() as u64;
    let beyond = (0..entries).filter(|&n| !tagged(n) && !hit(n)).count();
    verdicts.none("entries with the tag that the purge spared", spared);
    // Two things in one of 2^20 slots purge each other: about one entry in a million.
    verdicts.note("entries without it that went too, by collision", beyond);
    Ok(())
}

/// An origin whose answers say which version they are of.
fn versioned() -> Result<(Origin, Arc<AtomicU64>)> {
    let version = Arc::new(AtomicU64::new(0));
    let of_answers = Arc::clone(&version);
    let origin = Origin::serve(move |_| {
        Answer::ok(of_answers.load(Ordering::SeqCst).to_string()).cache_control("max-age=600")
    })?;
    Ok((origin, version))
}

/// Which version an edge serves.
fn served(edge: &Tenfold) -> Result<u64> {
    let mut client = raw::Client::connect(edge.edge)?;
    Ok(client.request("GET", "/a", &[HOST])?.text().parse()?)
}

fn purge_at(edge: &Tenfold) -> Result<()> {
    let output = edge.command(&["purge", "--tag", "all"])?;
    ensure!(output.status.success(), "the purge failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

pub(super) fn everywhere(scratch: &Scratch, verdicts: &mut Verdicts) -> Result<()> {
    let redis = Redis::start(&[])?;
    let (origin, version) = versioned()?;
    let edges = edges(scratch, &origin, Some(&redis.url()))?;
    let mut slowest = Duration::ZERO;
    for _ in 0..ROUNDS {
        for edge in &edges {
            served(edge)?;
        }
        let new = version.fetch_add(1, Ordering::SeqCst) + 1;
        purge_at(&edges[0])?;
        // The command took its own time; what counts is when the others know after it.
        let began = now();
        try_wait_for("all edges to serve the new version", PATIENCE, || {
            edges.iter().all(|edge| served(edge).is_ok_and(|version| version == new))
        })?;
        slowest = slowest.max(began.elapsed());
    }
    let what = format!("the slowest of {ROUNDS} purges is known to all edges, after the command ended, in");
    let held = slowest <= EVERYWHERE_MAX;
    verdicts.bar(&what, format!("{:.1} ms", slowest.as_secs_f64() * 1e3), "≤ 100 ms", held);
    cut_off(scratch, verdicts)
}

fn cut_off(scratch: &Scratch, verdicts: &mut Verdicts) -> Result<()> {
    let redis = Redis::start(&[])?;
    let (origin, version) = versioned()?;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port()).into())?;
    let through = format!("redis://{}", proxy.addr());
    let blind = format!("purge_blind_max = \"{}s\"\n", BLIND_MAX.as_secs());
    let near = Tenfold::start_as(scratch, "near", &file(&origin, Some(&redis.url()), ""))?;
    let far = Tenfold::start_as(scratch, "far", &file(&origin, Some(&through), ""))?;
    let wary = Tenfold::start_as(scratch, "wary", &file(&origin, Some(&through), &blind))?;
    for edge in [&near, &far, &wary] {
        until_shared(edge)?;
        served(edge)?;
    }
    proxy.set(Direction::ToClient, Fault::StallAt(0));
    let began = now();
    version.store(1, Ordering::SeqCst);
    purge_at(&near)?;
    try_wait_for("the wary edge to serve nothing purged", PATIENCE, || served(&wary).is_ok_and(|v| v == 1))?;
    let took = began.elapsed();
    let most = BLIND_MAX + Duration::from_secs(2);
    let measured = format!("{:.1} s", took.as_secs_f64());
    verdicts.bar(
        "cut off, purge_blind_max 3 s: nothing purged is fresh after",
        measured,
        "≤ 5 s",
        took <= most,
    );
    verdicts.note("cut off without it: still serves version", served(&far)?);
    proxy.heal();
    until_shared(&far)?;
    let old = u64::from(served(&far)? != 1);
    verdicts.none("purged answers by the other one, once it is back", old);
    let lost = far.status()?["shared"]["places_lost"].as_u64().unwrap_or(u64::MAX);
    verdicts.none("places lost by that", lost);
    Ok(())
}
