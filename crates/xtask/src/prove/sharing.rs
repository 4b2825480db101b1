//! Three edges and the Redis they share: one fetch for all, purges that reach all, and a Redis that goes away.
//!
//! A crowd asks three edges for one cold key: with Redis and `shield` the origin is asked once, without three times. A tag
//! over a tenth of a million entries is purged in the cache itself, and a key on all edges; one edge is cut off meanwhile.
//! Then Redis is stopped, killed, restarted and replaced by its replica under load ([`bad_days`]).

mod bad_days;
mod phases;
mod purges;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tenfold_testkit::redis::Redis;
use tenfold_testkit::{Answer, Origin, raw, try_wait_for};

use super::stand::{Scratch, Tenfold, pause};
use super::verdict::Verdicts;

const EDGES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(30);
/// What the origin takes for the cold key.
const SLOW: Duration = Duration::from_millis(200);
const HOST: (&str, &str) = ("Host", "shop.example");
/// Enough for a socket and a few lines.
const STACK_BYTES: usize = 128 << 10;

pub(crate) fn prove(scratch: &Scratch, short: bool) -> Result<Verdicts> {
    let clients = if short { 300 } else { 2000 };
    let title =
        format!("cache-redis: three edges and the Redis they share, {clients} clients for a cold key");
    let mut verdicts = Verdicts::new(title);
    cold_key(scratch, clients, &mut verdicts)?;
    purges::local(if short { 100_000 } else { 1_000_000 }, &mut verdicts)?;
    purges::everywhere(scratch, &mut verdicts)?;
    bad_days::play(scratch, short, &mut verdicts)?;
    Ok(verdicts)
}

/// An edge's file: `more` is of `[cache]`.
fn file(origin: &Origin, redis: Option<&str>, more: &str) -> String {
    let shared = redis.map_or(String::new(), |url| {
        format!("[redis.cache]\nurl = \"{url}\"\n[cache]\nredis = \"cache\"\n{more}")
    });
    format!(
        "[cluster.api]\nnodes = [\"{}\"]\n[[route]]\npath = \"/{{*rest}}\"\nto = \"api\"\n\
         cache = {{ shield = true, tags = [\"all\"] }}\n{shared}",
        origin.addr()
    )
}

fn until_shared(edge: &Tenfold) -> Result<()> {
    Ok(try_wait_for("the edge to share", PATIENCE, || {
        edge.status()
            .is_ok_and(|status| status["shared"]["up"] == true && status["shared"]["in_step"] == true)
    })?)
}

fn edges(scratch: &Scratch, origin: &Origin, redis: Option<&str>) -> Result<Vec<Tenfold>> {
    let edges = (0..EDGES)
        .map(|n| Tenfold::start_as(scratch, &format!("edge-{n}"), &file(origin, redis, "")))
        .collect::<Result<Vec<_>>>()?;
    if redis.is_some() {
        edges.iter().try_for_each(until_shared)?;
    }
    Ok(edges)
}

/// A crowd for one key that nobody has.
fn cold_key(scratch: &Scratch, clients: usize, verdicts: &mut Verdicts) -> Result<()> {
    let redis = Redis::start(&[])?;
    for (what, url, expected) in [
        ("a cold key, Redis and shield: origin fetches", Some(redis.url()), 1),
        ("the same without Redis", None, EDGES as u64),
    ] {
        let origin = Origin::serve(|_| {
            pause(SLOW);
            Answer::ok("body").cache_control("max-age=600")
        })?;
        let edges = edges(scratch, &origin, url.as_deref())?;
        let failed = Arc::new(AtomicU64::new(0));
        let threads = (0..clients).map(|n| {
            let (edge, failed) = (edges[n % EDGES].edge, Arc::clone(&failed));
            std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
                let answer =
                    raw::Client::connect(edge).and_then(|mut client| client.request("GET", "/cold", &[HOST]));
                if !answer.is_ok_and(|answer| answer.status == 200 && answer.text() == "body") {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let threads = threads.collect::<Result<Vec<_>, _>>().context("no more threads")?;
        for thread in threads {
            ensure!(thread.join().is_ok(), "a client panicked");
        }
        let fetches = origin.count("GET", "/cold");
        verdicts.bar(what, fetches, &expected.to_string(), fetches == expected);
        if url.is_some() {
            let sum = |name: &str| edges.iter().map(|edge| edge.metric(name)).sum::<Result<f64>>();
            let unanswered = sum("tenfold_cache_shared_unanswered_total")?;
            let (waits, vain) =
                (sum("tenfold_cache_shield_waits_total")?, sum("tenfold_cache_shield_waits_in_vain_total")?);
            verdicts.note(
                "edges that got no answer / waited / in vain",
                format!("{unanswered} / {waits} / {vain}"),
            );
        }
        verdicts.none("clients without an answer", failed.load(Ordering::Relaxed));
    }
    Ok(())
}
