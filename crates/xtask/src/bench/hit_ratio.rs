//! Which requests of real traffic are hits, where there is room for a part of what is asked for.
//!
//! **Intuition.** What a cache throws away decides how often it is asked in vain. Two traces of real web sites are played
//! through our cache (the real crate, with its weights and its locks), through real nginx, and through simulators of an
//! exact LRU and of the two policies that are best known today ([`policies`]), each with room for 1, 5 and 20 % of the
//! different keys.
//!
//! **Mechanism.** Every answer is of one size, so "room" is a number of answers: our memory is that many times what one
//! weighs, and nginx's index of keys is as small as holds that many, as its `max_size` is only looked at every few
//! seconds. nginx's index has a least size and, once it was full, a watermark an eighth below that its manager returns to
//! now and then, so what nginx really holds is counted in its folder all along. It held more than it was given room for,
//! so the like of it is our cache, and the exact LRU, with the room that nginx had: the mean of those counts, rounded up.
//!
//! **Failure.** A benchmark never fails a build: it prints.

mod policies;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tenfold_loadgen::trace::KeyTrace;
use tenfold_testkit::raw::Client;

use super::Scratch;
use super::server::Server;
use policies::{Lru, Ours, Policy, S3Fifo, TinyLfu};

const TRACES: [&str; 2] = ["web07", "web12"];
/// Room, in percent of the different keys.
const SHARES: [usize; 3] = [1, 5, 20];
/// What nginx 1.22 keeps of one key takes a slot of 128 bytes: 32 in a page of its index.
const NGINX_KEYS_PER_PAGE: usize = 32;
/// Pages of nginx's index for other things.
const NGINX_PAGES_OTHER: usize = 3;
/// nginx refuses a smaller index.
const NGINX_PAGES_MIN: usize = 8;
const PAGE_BYTES: usize = 4096;
/// Requests between two counts of what nginx holds.
const NGINX_COUNT_EVERY: usize = 200;

/// Plays both traces and prints the table. `short` leaves nginx out.
pub(crate) fn run(root: &Path, short: bool) -> Result<ExitCode> {
    let mut out = String::from("hit-ratio: the share of requests that are hits\n\n");
    out += "| trace | room for | Tenfold | exact LRU | S3-FIFO | W-TinyLFU | nginx held | nginx | Tenfold with nginx's room \
            | exact LRU with nginx's room |\n";
    out += "|---|---|---|---|---|---|---|---|---|---|\n";
    for name in TRACES {
        let keys = read(root, name)?;
        let different = keys.iter().collect::<std::collections::HashSet<_>>().len();
        for share in SHARES {
            let room = (different * share / 100).max(1);
            eprintln!("{name}, room for {room}");
            let simulated = [
                ratio(&mut Ours::new(room)?, &keys),
                ratio(&mut Lru::new(room), &keys),
                ratio(&mut S3Fifo::new(room), &keys),
                ratio(&mut TinyLfu::new(room), &keys),
            ];
            let beside_nginx =
                if short { "– | – | – | –".to_owned() } else { beside_nginx(root, room, &keys)? };
            let columns: Vec<_> = simulated.iter().map(|ratio| format!("{ratio:.3}")).collect();
            let _ =
                writeln!(out, "| {name} | {share} %, {room} | {} | {beside_nginx} |", columns.join(" | "));
        }
    }
    println!("{out}");
    Ok(ExitCode::SUCCESS)
}

fn read(root: &Path, name: &str) -> Result<Vec<u32>> {
    let path = root.join("data").join(format!("{name}.trace"));
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let trace = KeyTrace::parse(&bytes).with_context(|| format!("{} is no trace", path.display()))?;
    Ok(trace.ranks().to_vec())
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn ratio(policy: &mut impl Policy, keys: &[u32]) -> f64 {
    let hits = keys.iter().filter(|&&key| policy.ask(key)).count();
    hits as f64 / keys.len() as f64
}

/// The columns that need nginx: what it held, its ratio, and ours and the LRU's with the same room.
fn beside_nginx(root: &Path, room: usize, keys: &[u32]) -> Result<String> {
    let Nginx { ratio: its_ratio, held_mean, held_max } = nginx(root, room, keys)?;
    let (ours, lru) = (ratio(&mut Ours::new(held_mean)?, keys), ratio(&mut Lru::new(held_mean), keys));
    Ok(format!("{held_mean}, at most {held_max} | {its_ratio:.3} | {ours:.3} | {lru:.3}"))
}

/// What nginx did.
struct Nginx {
    ratio: f64,
    /// Answers, once it was as full as it gets.
    held_mean: usize,
    held_max: usize,
}

/// Through real nginx, one request after the other.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn nginx(root: &Path, room: usize, keys: &[u32]) -> Result<Nginx> {
    let scratch = Scratch::new(root)?;
    let pages = (room.div_ceil(NGINX_KEYS_PER_PAGE) + NGINX_PAGES_OTHER).max(NGINX_PAGES_MIN);
    let server = Server::start_nginx(root, &scratch, "hit-ratio.nginx.conf", pages * PAGE_BYTES)?;
    let mut client = Client::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, server.port())))?;
    let mut hits = 0_usize;
    let mut held = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let answer = client.get(&format!("/{key}"))?;
        hits += usize::from(answer.header("x-cache") == Some("HIT"));
        if index % NGINX_COUNT_EVERY == 0 {
            held.push(files(&scratch.memory)?);
        }
    }
    let (held_mean, held_max) = held_when_full(&held);
    Ok(Nginx { ratio: hits as f64 / keys.len() as f64, held_mean, held_max })
}

/// The mean, rounded up, from the first count that reached the room of the watermark; and the greatest.
fn held_when_full(held: &[usize]) -> (usize, usize) {
    let max = held.iter().copied().max().unwrap_or(0);
    let full: Vec<usize> = held.iter().copied().skip_while(|&count| count < max - max / 8).collect();
    (full.iter().sum::<usize>().div_ceil(full.len().max(1)), max)
}

/// Files in a folder and those in it.
fn files(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { files(&entry.path())? } else { 1 };
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nginx_held_is_counted_once_it_was_full() {
        assert_eq!(held_when_full(&[1, 50, 90, 100, 88, 88]), (92, 100));
        assert_eq!(held_when_full(&[]), (0, 0));
    }
}
