//! Two rows of `bench cache-hit` in which Tenfold is beside itself: one key and a million, one worker and two.
//!
//! **Intuition.** A cache that is quick for one key may be slow for a million, because what it touches no longer fits
//! the processor's caches; and one that is quick on one core may lose time on two, because they touch the same memory.
//! Both are questions about us alone, so the neighbour is another Tenfold that is asked the same way, seconds apart.
//!
//! **Mechanism.** Many keys: both servers have the same room and are asked by the same wrk script, which draws a key
//! for each request, from all of them or from one; paths are equally long. The keys are stored by asking for each once
//! ([`fill`]). Beside them the floor is asked the same, since memory that no processor's cache holds is slower for anybody. Two workers have two cores, which they share with a client of two threads. A core that has to serve a
//! client besides costs its server time in itself (switches between the two, and a processor cache for both), so the
//! like of it is one worker on one core, beside a client of one thread and half as many connections; one worker that may
//! choose between both cores is shown too. How requests were split is read from Tenfold's own metrics.
//!
//! **Failure.** A key that was not stored would be a miss in the measure, so the run ends if there was one.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use tenfold_testkit::raw::Client;

use super::rows::Size;
use super::server::{SERVER_CORE, Server};
use super::sides::{Program, Side};
use super::wrk::Asking;
use super::{Bench, Options, Place, compete, same_work, table};

/// Room for a million answers of 1 KiB with their heads and keys.
const MEMORY: &str = "3GiB";
const FILLERS: u32 = 16;
/// Requests that a filler sends at once.
const PIPELINED: u32 = 16;
const TWO_CORES: &str = "0-1";

/// One key beside many.
pub(super) fn run_keys(place: &Place<'_>, options: &Options) -> Result<()> {
    let many = place.start(Side::ours(MEMORY, "1", "many keys")?, SERVER_CORE)?;
    let one = place.start(Side::ours(MEMORY, "1", "one key")?, SERVER_CORE)?;
    let floor_many = place.start(Side::floor_of_keys("write, many keys"), SERVER_CORE)?;
    let floor_one = place.start(Side::floor_of_keys("write, one key"), SERVER_CORE)?;
    let running = [many, one, floor_many, floor_one];
    let keys = [options.keys, 1, options.keys, 1];
    let mut askings = Vec::new();
    for ((side, server), keys) in running.iter().zip(keys) {
        if side.program == Program::Tenfold {
            eprintln!("{}: storing {keys} keys", side.label());
            fill(server.port(), keys)?;
        }
        let script = place.scratch.folder.join(format!("keys-{keys}.lua"));
        std::fs::write(&script, draw_script(keys))?;
        askings.push(Asking { script: Some(script), ..Asking::for_path(key_path(0), options.connections) });
    }
    let misses = || -> Result<f64> {
        let all = running.iter().take(2).map(|(_, server)| {
            let (all, hits) = (server.metric("tenfold_edge_cache_total", "")?, hits(server)?);
            anyhow::Ok(all - hits)
        });
        all.sum()
    };
    let before = misses()?;
    let rows = compete(&running, options, |index| &askings[index])?;
    let missed = misses()? - before;
    ensure!(missed == 0.0, "{missed} requests were no hits");
    println!("{}", table::render(&format!("cache-hit: {} keys beside one", options.keys), options, &rows));
    println!("Many keys ÷ one, of the floor: {}\n", table::cost_ratio(&rows[2], &rows[3]));
    Ok(())
}

fn hits(server: &Server) -> Result<f64> {
    server.metric("tenfold_edge_cache_total", "cache=\"hit\"")
}

/// The path of a key.
pub(super) fn key_path(key: u32) -> String {
    format!("/key-{key:07}")
}

/// Asks for each key once.
fn fill(port: u16, keys: u32) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let each = keys.div_ceil(FILLERS);
    std::thread::scope(|scope| {
        let fillers: Vec<_> = (0..FILLERS)
            .map(|filler| {
                scope.spawn(move || fill_part(address, filler * each..keys.min((filler + 1) * each)))
            })
            .collect();
        for filler in fillers {
            filler.join().expect("a filler reports its errors")?;
        }
        Ok(())
    })
}

fn fill_part(address: SocketAddr, keys: std::ops::Range<u32>) -> Result<()> {
    let mut client = Client::connect(address)?;
    let mut start = keys.start;
    while start < keys.end {
        let end = keys.end.min(start + PIPELINED);
        let requests: String = (start..end)
            .map(|key| format!("GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", key_path(key)))
            .collect();
        client.send(requests)?;
        for key in start..end {
            let answer = client.response().with_context(|| key_path(key))?;
            ensure!(answer.status == 200, "{} was answered with {}", key_path(key), answer.status);
        }
        start = end;
    }
    Ok(())
}

/// A wrk script that draws one of so many keys. `Host` is what wrk says, with no port, as `fill` does.
fn draw_script(keys: u32) -> String {
    format!(
        "local draw = math.random\n\
         function init() math.randomseed(12345) end\n\
         function request()\n\
         \x20 return string.format('GET /key-%07d HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n', draw({keys}) - 1)\n\
         end\n"
    )
}

/// Two workers beside one.
pub(super) fn run_workers(place: &Place<'_>, options: &Options) -> Result<()> {
    // The memory tells their files apart.
    let two =
        place.start(Side::ours("64MiB", "2", "two workers, each beside a client's thread")?, TWO_CORES)?;
    let beside =
        place.start(Side::ours("65MiB", "1", "one worker beside a client's thread")?, SERVER_CORE)?;
    let free =
        place.start(Side::ours("66MiB", "1", "one worker, two cores, two client's threads")?, TWO_CORES)?;
    let running = [two, beside, free];
    let size = Size::SMALL;
    for (side, server) in &running {
        same_work::check(Bench::CacheHit, side, server.port(), size)?;
    }
    let connections = options.connections;
    let both = Asking { cores: TWO_CORES, threads: 2, ..Asking::for_path(size.path(), connections) };
    let half = Asking { cores: SERVER_CORE, ..Asking::for_path(size.path(), connections.div_ceil(2)) };
    let askings = [&both, &half, &both];
    let before = by_worker(&running[0].1)?;
    let rows = compete(&running, options, |index| askings[index])?;
    let after = by_worker(&running[0].1)?;
    println!("{}", table::render("cache-hit: two workers beside one", options, &rows));
    println!("Requests of the two workers: {}\n", shares(before, after)?);
    Ok(())
}

/// Requests that came to each of two workers so far.
fn by_worker(server: &Server) -> Result<[f64; 2]> {
    let requests = |label| server.metric("tenfold_edge_worker_requests_total", label);
    Ok([requests("worker=\"0\"")?, requests("worker=\"1\"")?])
}

fn shares(before: [f64; 2], after: [f64; 2]) -> Result<String> {
    let served = [after[0] - before[0], after[1] - before[1]];
    let all: f64 = served.iter().sum();
    ensure!(all > 0.0, "no worker served a request");
    let [first, second] = served.map(|count| count / all * 100.0);
    Ok(format!("{first:.1} % and {second:.1} %"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_came_between() {
        assert_eq!(shares([100.0, 0.0], [103.0, 1.0]).unwrap(), "75.0 % and 25.0 %");
        assert!(shares([1.0, 1.0], [1.0, 1.0]).is_err());
    }

    #[test]
    fn all_paths_are_equally_long() {
        assert_eq!(key_path(0).len(), key_path(999_999).len());
        assert!(draw_script(5).contains("draw(5) - 1"));
        assert!(draw_script(5).contains("HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n'"));
    }
}
