//! `tenfold status`: what the running process is doing, as tables.
//!
//! With `--watch` again every second, and rates from the difference of two answers. Everything shown comes from
//! `/api/v1/status`, which `--json` prints as it is.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use serde_json::Value;

use super::{complain, print, print_json};
use crate::cli::{Exit, Status, color_on_stdout};
use crate::client::Client;
use crate::config::values::{duration_text, size_text};

const EVERY: Duration = Duration::from_secs(1);
/// Of the reasons for the primary; the console and `--json` have all.
const REASONS_SHOWN: usize = 3;

/// Prints it.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the command line waits between two looks; nothing else runs here"
)]
pub fn status(status: &Status) -> Exit {
    let client = Client::new(&status.running);
    let mut previous = None;
    loop {
        let answer = match client.get("/api/v1/status") {
            Ok(answer) if answer.is_fine() => answer.body,
            Ok(answer) => return failed(&answer.detail()),
            Err(message) => return failed(&message),
        };
        let printed = if status.running.json {
            print_json(&answer)
        } else {
            print(&screen(&answer, previous.as_ref(), status.watch))
        };
        if !status.watch || printed != Exit::Fine {
            return printed;
        }
        previous = Some(answer);
        std::thread::sleep(EVERY);
    }
}

fn failed(message: &str) -> Exit {
    complain(&format!("error: {message}"));
    Exit::Failed
}

/// One look; while watching on a terminal, over the one before.
fn screen(now: &Value, before: Option<&Value>, watch: bool) -> String {
    const HOME_AND_CLEAR: &str = "\x1b[H\x1b[J";
    let over = if watch && std::io::stdout().is_terminal() { HOME_AND_CLEAR } else { "" };
    format!("{over}{}", render(now, before, color_on_stdout()))
}

fn render(now: &Value, before: Option<&Value>, color: bool) -> String {
    let mut out = String::new();
    let text = |path: &str| now.pointer(path).map_or_else(|| "-".to_owned(), plain);
    let number = |path: &str| now.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let listen: Vec<_> =
        now.pointer("/edge/listen").and_then(Value::as_array).into_iter().flatten().map(plain).collect();
    let uptime = duration_text(Duration::from_secs(number("/uptime_s")));
    let _ = writeln!(
        out,
        "tenfold {}  {} for {uptime}  pid {}  {} workers  {} resident",
        text("/version"),
        text("/state"),
        text("/pid"),
        text("/workers"),
        mebibytes(number("/resident_bytes")),
    );
    let has_edge = !listen.is_empty() || now.get("pooler").is_none_or(Value::is_null);
    if has_edge {
        out += &edge(now, &listen);
    }
    out += &pooler(now);
    if has_edge {
        out.push('\n');
        out += &table(&routes(now, before), color);
        out.push('\n');
        out += &table(&nodes(now), color);
    }
    if !list(now, "/pooler/pools").is_empty() {
        out.push('\n');
        out += &table(&pools(now), color);
    }
    if !list(now, "/pooler/replicas").is_empty() {
        out.push('\n');
        out += &table(&replicas(now), color);
    }
    if !list(now, "/pooler/reads").is_empty() {
        out.push('\n');
        out += &table(&reads(now), color);
    }
    out
}

fn edge(now: &Value, listen: &[String]) -> String {
    let text = |path: &str| now.pointer(path).map_or_else(|| "-".to_owned(), plain);
    let number = |path: &str| now.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let (listen, mut out) = (listen.join(", "), String::new());
    let (open, max) = (text("/edge/connections/open"), text("/edge/connections/max"));
    let _ = writeln!(out, "edge    {listen}  {open} of {max} connections");
    let _ = writeln!(
        out,
        "cache   {} objects  {} of {}  {} fills running",
        text("/cache/objects"),
        mebibytes(number("/cache/bytes")),
        size_text(number("/cache/bytes_max")),
        text("/cache/fills"),
    );
    out
}

fn pooler(now: &Value) -> String {
    let Some(pooler) = now.get("pooler").filter(|pooler| pooler.is_object()) else { return String::new() };
    let listen: Vec<_> = list(pooler, "/listen").iter().map(plain).collect();
    let clients = &pooler["clients"];
    format!(
        "pooler  {}  {} of {} clients\n",
        listen.join(", "),
        plain(&clients["open"]),
        plain(&clients["max"])
    )
}

fn pools(now: &Value) -> Vec<Vec<String>> {
    let head =
        ["DATABASE", "USER", "MODE", "CLIENTS", "WAITING", "SERVERS", "IDLE", "SIZE", "OLDEST WAIT", "STATE"];
    let mut rows = vec![titles(&head)];
    for pool in list(now, "/pooler/pools") {
        let servers = count(pool, "servers_active") + count(pool, "servers_idle");
        let wait = duration_text(Duration::from_millis(count(pool, "oldest_wait_ms")));
        rows.push(vec![
            plain(&pool["database"]),
            plain(&pool["user"]),
            plain(&pool["mode"]),
            plain(&pool["clients"]),
            plain(&pool["waiting"]),
            servers.to_string(),
            plain(&pool["servers_idle"]),
            format!("{}+{}", count(pool, "size"), count(pool, "reserve")),
            wait,
            if pool["paused"] == true { "paused".to_owned() } else { "open".to_owned() },
        ]);
    }
    rows
}

fn replicas(now: &Value) -> Vec<Vec<String>> {
    let head = ["DATABASE", "REPLICA", "STATE", "LAG", "REPLAYED", "IN FLIGHT", "WEIGHT", "SERVERS"];
    let mut rows = vec![titles(&head)];
    for replica in list(now, "/pooler/replicas") {
        let lag = replica["lag_us"].as_u64().map(|us| duration_text(Duration::from_millis(us / 1_000)));
        rows.push(vec![
            plain(&replica["database"]),
            plain(&replica["name"]),
            plain(&replica["state"]),
            lag.unwrap_or_else(|| "-".to_owned()),
            plain(&replica["replayed"]),
            plain(&replica["in_flight"]),
            plain(&replica["weight"]),
            plain(&replica["servers"]),
        ]);
    }
    rows
}

/// Since the start: how many reads replicas answered, and what keeps most of the others, or of what is no read, away.
fn reads(now: &Value) -> Vec<Vec<String>> {
    let mut rows =
        vec![titles(&["DATABASE", "READS", "AT REPLICAS", "WAITED", "RERUN", "AT THE PRIMARY FOR"])];
    for row in list(now, "/pooler/reads") {
        let reads = count(row, "reads");
        let share = ratio(count(row, "at_replicas"), reads.max(1)) * 100.0;
        let at_primary = list(row, "/routes").iter().filter(|route| route["route"] == "primary");
        let reasons: Vec<_> = at_primary
            .take(REASONS_SHOWN)
            .map(|route| format!("{} {}", plain(&route["reason"]), count(route, "count")))
            .collect();
        rows.push(vec![
            plain(&row["database"]),
            reads.to_string(),
            if reads == 0 { "-".to_owned() } else { format!("{share:.1}%") },
            count(row, "waits").to_string(),
            count(row, "reruns").to_string(),
            if reasons.is_empty() { "-".to_owned() } else { reasons.join(", ") },
        ]);
    }
    rows
}

fn routes(now: &Value, before: Option<&Value>) -> Vec<Vec<String>> {
    let mut rows = vec![titles(&["ROUTE", "REQUESTS", "ERRORS", "HIT RATIO", "PER SECOND"])];
    let seconds = before.map_or(0.0, |before| elapsed_s(before, now));
    for (index, route) in list(now, "/routes").iter().enumerate() {
        let requests = count(route, "requests");
        let earlier = before
            .and_then(|before| before.pointer(&format!("/routes/{index}")))
            .filter(|old| old["name"] == route["name"]);
        let rate = earlier
            .filter(|_| seconds > 0.0)
            .map(|old| per_second(requests.saturating_sub(count(old, "requests")), seconds));
        rows.push(vec![
            plain(&route["name"]),
            requests.to_string(),
            count(route, "errors").to_string(),
            hit_ratio(route),
            rate.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    rows
}

fn nodes(now: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![titles(&["CLUSTER", "NODE", "STATE", "IN FLIGHT", "WEIGHT"])];
    for cluster in list(now, "/clusters") {
        for node in list(cluster, "/nodes") {
            rows.push(vec![
                plain(&cluster["name"]),
                plain(&node["name"]),
                plain(&node["state"]),
                plain(&node["in_flight"]),
                plain(&node["weight"]),
            ]);
        }
    }
    rows
}

/// Of all requests, those answered from the store.
fn hit_ratio(route: &Value) -> String {
    let requests = count(route, "requests");
    if requests == 0 {
        return "-".to_owned();
    }
    format!("{:.1}%", ratio(count(route, "hits") + count(route, "stale"), requests) * 100.0)
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[expect(clippy::cast_precision_loss, reason = "shown without decimals")]
fn per_second(events: u64, seconds: f64) -> String {
    format!("{:.0}", events as f64 / seconds)
}

fn elapsed_s(before: &Value, now: &Value) -> f64 {
    let at = |value: &Value| value["uptime_ms"].as_u64().unwrap_or(0);
    Duration::from_millis(at(now).saturating_sub(at(before))).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn list<'v>(value: &'v Value, path: &str) -> &'v [Value] {
    value.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn count(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

fn titles(titles: &[&str]) -> Vec<String> {
    titles.iter().map(|&title| title.to_owned()).collect()
}

/// A value as a cell. Control characters (of a name in the file, say) do not reach the terminal.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// Columns as wide as their widest cell; the first row is the head.
fn table(rows: &[Vec<String>], color: bool) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let line = cells.join("  ");
        let (bold, end) = if color && index == 0 { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        let _ = writeln!(out, "{bold}{}{end}", line.trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(requests: u64, uptime_ms: u64) -> Value {
        json!({
            "version": "0.1.0", "state": "ready", "uptime_s": 75, "uptime_ms": uptime_ms, "pid": 7, "workers": 2,
            "resident_bytes": 10_485_760,
            "edge": { "listen": ["127.0.0.1:8080"], "connections": { "open": 3, "max": 100 } },
            "cache": { "objects": 5, "bytes": 1_048_576, "bytes_max": 268_435_456, "fills": 1 },
            "routes": [{ "name": "product", "requests": requests, "errors": 1, "hits": 9, "stale": 1 }],
            "clusters": [{ "name": "api", "nodes": [{ "name": "127.0.0.1:3000", "state": "up", "in_flight": 2, "weight": 1 }] }],
        })
    }

    #[test]
    fn a_look_is_two_tables() {
        let expected = "\
tenfold 0.1.0  ready for 1m15s  pid 7  2 workers  10.0 MiB resident
edge    127.0.0.1:8080  3 of 100 connections
cache   5 objects  1.0 MiB of 256MiB  1 fills running

ROUTE    REQUESTS  ERRORS  HIT RATIO  PER SECOND
product  20        1       50.0%      -

CLUSTER  NODE            STATE  IN FLIGHT  WEIGHT
api      127.0.0.1:3000  up     2          1
";
        assert_eq!(render(&answer(20, 1_000), None, false), expected);
    }

    #[test]
    fn pools_are_a_table_of_their_own_and_stand_alone_without_an_edge() {
        let mut answer = answer(20, 1_000);
        answer["edge"]["listen"] = json!([]);
        answer["pooler"] = json!({
            "listen": ["127.0.0.1:6432", "/run/tenfold/.s.PGSQL.6432"],
            "clients": { "open": 12, "max": 16_384 },
            "pools": [{
                "database": "shop", "user": "app", "mode": "transaction", "clients": 12, "waiting": 3,
                "servers_active": 4, "servers_idle": 1, "size": 20, "reserve": 5, "oldest_wait_ms": 1_250, "paused": false,
            }],
            "reads": [
                { "database": "shop", "reads": 1_000, "at_replicas": 876, "waits": 12, "wait_us": 9_000, "reruns": 1, "routes": [
                    { "route": "replica", "reason": "read", "count": 877 },
                    { "route": "primary", "reason": "writes", "count": 400 },
                    { "route": "primary", "reason": "replica_behind", "count": 123 },
                ] },
                { "database": "new", "reads": 0, "at_replicas": 0, "waits": 0, "reruns": 0, "routes": [] },
            ],
            "replicas": [
                { "database": "shop", "name": "a:5432", "state": "up", "lag_us": 12_000, "replayed": "0/3000148",
                  "in_flight": 3, "weight": 2, "servers": 5 },
                { "database": "shop", "name": "b:5432", "state": "down", "lag_us": null, "replayed": "0/0",
                  "in_flight": 0, "weight": 1, "servers": 0 },
            ],
        });
        let expected = "\
tenfold 0.1.0  ready for 1m15s  pid 7  2 workers  10.0 MiB resident
pooler  127.0.0.1:6432, /run/tenfold/.s.PGSQL.6432  12 of 16384 clients

DATABASE  USER  MODE         CLIENTS  WAITING  SERVERS  IDLE  SIZE  OLDEST WAIT  STATE
shop      app   transaction  12       3        5        1     20+5  1s250ms      open

DATABASE  REPLICA  STATE  LAG   REPLAYED   IN FLIGHT  WEIGHT  SERVERS
shop      a:5432   up     12ms  0/3000148  3          2       5
shop      b:5432   down   -     0/0        0          1       0

DATABASE  READS  AT REPLICAS  WAITED  RERUN  AT THE PRIMARY FOR
shop      1000   87.6%        12      1      writes 400, replica_behind 123
new       0      -            0       0      -
";
        assert_eq!(render(&answer, None, false), expected);
    }

    #[test]
    fn two_looks_make_a_rate() {
        let shown = render(&answer(1_000, 3_000), Some(&answer(200, 1_000)), false);
        assert!(shown.contains("1.0%       400"), "{shown}");
    }

    #[test]
    fn an_answer_without_anything_still_prints() {
        assert!(render(&json!({}), None, true).contains("tenfold -"));
    }
}
