//! The cache under a rush and under a flood: what is renewed early, and what it takes when nothing comes twice.
//!
//! `cache-refresh` asks for one key of a ttl of ten seconds a thousand times a second, in front of a node that takes 20
//! ms: it is to be fetched hardly more often than once a ttl, and nobody is to wait. `cache-memory` asks for objects of 1
//! KiB of which none comes twice, many times what the cache may hold, and looks at the process's peak.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tenfold_testkit::raw::Client;
use tenfold_testkit::{Answer, Origin};

use super::stand::{Scratch, Tenfold, now, pause};
use super::verdict::Verdicts;

const TTL_S: u64 = 10;
const FETCH: Duration = Duration::from_millis(20);
/// Clients that together ask a thousand times a second, one every so often.
const CLIENTS: usize = 10;
const EVERY: Duration = Duration::from_millis(10);
/// Objects of the flood.
const OBJECT_BYTES: usize = 1024;
/// Requests sent together on one connection of the flood.
const BATCH: u64 = 64;
const FLOOD_CLIENTS: u64 = 4;

/// Renewed early: fetches and waits.
pub(crate) fn prove_refresh(scratch: &Scratch, short: bool) -> Result<Verdicts> {
    let duration = Duration::from_secs(if short { 31 } else { 300 });
    let mut verdicts = Verdicts::new(format!(
        "cache-refresh: one key of ttl {TTL_S} s, a node that takes {} ms, 1,000 requests a second for {} s",
        FETCH.as_millis(),
        duration.as_secs()
    ));
    let origin = Origin::serve(|_| {
        pause(FETCH);
        Answer::ok(vec![b'x'; OBJECT_BYTES]).etag("\"one\"")
    })?;
    let tenfold = Tenfold::start(scratch, &toml(&origin, "", "cache = { ttl = \"10s\" }"))?;
    Client::connect(tenfold.edge)?.get("/hot").context("the first answer")?;
    let edge = tenfold.edge;
    let clients: Vec<_> = (0..CLIENTS).map(|_| std::thread::spawn(move || ask(edge, duration))).collect();
    let mut asked = Asked::default();
    for client in clients {
        asked.add(client.join().ok().context("a client panicked")??);
    }
    let fetches = origin.count("GET", "/hot");
    let most = 1.05 * duration.as_secs_f64() / TTL_S as f64 + 1.0;
    verdicts.note("requests", asked.requests);
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    let held = fetches as f64 <= most;
    verdicts.bar("fetches", fetches, &format!("≤ 1.05 × duration / ttl + 1 = {most:.1}"), held);
    verdicts.none("clients that waited for the node", asked.waited);
    verdicts.none("failed", asked.failed);
    verdicts.note("refreshes", tenfold.metric("tenfold_edge_refreshes_total")?);
    Ok(verdicts)
}

/// What clients of the rush saw.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    requests: u64,
    waited: u64,
    failed: u64,
}

impl Asked {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.waited += other.waited;
        self.failed += other.failed;
    }
}

/// One client of the rush. Who was answered from the cache did not wait, however slow the machine was.
fn ask(edge: SocketAddr, duration: Duration) -> Result<Asked> {
    let mut client = Client::connect(edge)?;
    let mut asked = Asked::default();
    let began = now();
    let mut next = Duration::ZERO;
    while next < duration {
        pause(next.saturating_sub(began.elapsed()));
        let answer = client.get("/hot")?;
        let is_hit = answer.header("cache-status").is_some_and(|status| status.contains("; hit"));
        asked.requests += 1;
        asked.waited += u64::from(!is_hit);
        asked.failed += u64::from(answer.status != 200);
        next += EVERY;
    }
    Ok(asked)
}

/// Memory: the process's peak while nothing comes twice.
pub(crate) fn prove_memory(scratch: &Scratch, short: bool) -> Result<Verdicts> {
    let (memory_mib, objects): (u64, u64) = if short { (32, 250_000) } else { (256, 10_000_000) };
    let mut verdicts = Verdicts::new(format!(
        "cache-memory: {objects} objects of {OBJECT_BYTES} bytes, none twice, through a cache of {memory_mib} MiB"
    ));
    let origin = Origin::serve(|_| Answer::ok(vec![b'x'; OBJECT_BYTES]).cache_control("max-age=86400"))?;
    let memory = format!("cache.memory = \"{memory_mib}MiB\"\n");
    let tenfold = Tenfold::start(scratch, &toml(&origin, &memory, ""))?;
    let (start, _) = tenfold.memory_mib()?;
    let began = now();
    flood(tenfold.edge, &origin, objects)?;
    let seconds = began.elapsed().as_secs_f64();
    let (after, peak) = tenfold.memory_mib()?;
    let most = memory_mib * 5 / 4 + start;
    verdicts.note("before the first request, MiB", start);
    verdicts.note("afterwards, MiB", after);
    verdicts.bar("peak, MiB", peak, &format!("≤ 1.25 × {memory_mib} + {start} = {most}"), peak <= most);
    let stored = tenfold.metric("tenfold_cache_stored_bytes")? / f64::from(1 << 20);
    verdicts.note("stored by the cache's own count, MiB", format!("{stored:.1}"));
    verdicts.note("objects stored", tenfold.metric("tenfold_cache_objects")?);
    let stores = tenfold.metric("tenfold_cache_stores_total")?;
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    verdicts.bar("stored since the start", stores, &format!("{objects}"), stores == objects as f64);
    verdicts.note("seconds", format!("{seconds:.0}"));
    Ok(verdicts)
}

/// Asks for each object once, some in flight together on each of some connections.
fn flood(edge: SocketAddr, origin: &Origin, objects: u64) -> Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let client = || {
        let next = Arc::clone(&next);
        std::thread::spawn(move || -> Result<()> {
            let mut client = Client::connect(edge)?;
            loop {
                let first = next.fetch_add(BATCH, Ordering::Relaxed);
                let batch = first..objects.min(first.saturating_add(BATCH));
                if batch.is_empty() {
                    return Ok(());
                }
                let request = |n: u64| format!("GET /object/{n} HTTP/1.1\r\nhost: shop.example\r\n\r\n");
                client.send(batch.clone().map(request).collect::<String>())?;
                for _ in batch {
                    let answer = client.response()?;
                    if answer.status != 200 || answer.body.len() != OBJECT_BYTES {
                        bail!("answered {} with {} bytes", answer.status, answer.body.len());
                    }
                    if answer.closes {
                        bail!("a connection was closed in the middle of the flood");
                    }
                }
            }
        })
    };
    let clients: Vec<_> = (0..FLOOD_CLIENTS).map(|_| client()).collect();
    // The list of what it was asked would outgrow everything measured here.
    while !clients.iter().all(std::thread::JoinHandle::is_finished) {
        origin.forget();
        pause(Duration::from_millis(200));
    }
    for client in clients {
        client.join().ok().context("a client panicked")??;
    }
    Ok(())
}

fn toml(origin: &Origin, keys: &str, route: &str) -> String {
    format!(
        "edge.requests_per_connection_max = 1000000000\n{keys}[cluster.api]\nnodes = [\"{}\"]\n\n[[route]]\nname = \"all\"\npath = \"/{{*rest}}\"\nto = \"api\"\n{route}\n",
        origin.addr()
    )
}
