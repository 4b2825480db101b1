//! `tenfold cache explain`: what is stored for a URL, and why the next request would hit or miss.

use std::fmt::Write as _;

use serde_json::Value;

use super::{complain, print, print_json};
use crate::cli::{Exit, Explain};
use crate::client::Client;
use crate::config::values::size_text;

/// Asks, and prints the answer.
#[must_use]
pub fn explain(explain: &Explain) -> Exit {
    let mut headers = Vec::new();
    for header in &explain.headers {
        let Some((name, value)) = header.split_once(':') else {
            complain(&format!("error: {header:?} is not a header such as 'Accept-Language: de'"));
            return Exit::Usage;
        };
        headers.push([name.trim(), value.trim()]);
    }
    let question = serde_json::json!({ "url": explain.url, "method": explain.method, "headers": headers });
    match Client::new(&explain.running).post("/api/v1/cache/explain", &question) {
        Ok(answer) if answer.is_fine() && explain.running.json => print_json(&answer.body),
        Ok(answer) if answer.is_fine() => print(&render(&answer.body)),
        Ok(answer) => {
            complain(&format!("error: {}", answer.detail()));
            if answer.status == 400 { Exit::Usage } else { Exit::Failed }
        }
        Err(message) => {
            complain(&format!("error: {message}"));
            Exit::Failed
        }
    }
}

fn render(answer: &Value) -> String {
    let text = |path: &str| answer.pointer(path).and_then(Value::as_str).unwrap_or("-");
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<10} {}", printable(value));
    };
    line("url", &format!("{}{}", text("/host"), text("/target")));
    line("route", text("/route"));
    line("next", &format!("{} ({}): {}", text("/next/outcome"), text("/next/reason"), text("/next/why")));
    let seconds = |path: &str| answer.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    if seconds("/uncacheable_s") > 0 {
        line("remembered", &format!("as uncacheable for {} s more", seconds("/uncacheable_s")));
    }
    if seconds("/origin_failing_s") > 0 {
        line("remembered", &format!("as failing for {} s more", seconds("/origin_failing_s")));
    }
    if seconds("/fills") > 0 {
        line("fetching", &seconds("/fills").to_string());
    }
    let stored = answer.get("stored").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    line("stored", &stored.len().to_string());
    for entry in stored {
        out += &render_entry(entry);
    }
    out
}

/// One stored response, one fact a line.
fn render_entry(entry: &Value) -> String {
    let number = |name: &str| entry.get(name).and_then(Value::as_i64);
    let mut out = String::new();
    let selected =
        if entry.get("selected") == Some(&Value::Bool(true)) { "answers this request" } else { "" };
    let _ = writeln!(
        out,
        "\n  {} from {}  {selected}",
        number("status").unwrap_or(0),
        entry.get("source").and_then(Value::as_str).unwrap_or("-"),
    );
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "  {name:<13} {}", printable(&value));
    };
    line("age", format!("{} s", number("age_s").unwrap_or(0)));
    match (number("ttl_s"), number("lifetime_s")) {
        (Some(ttl), Some(lifetime)) if ttl >= 0 => line("fresh", format!("{ttl} s more, of {lifetime} s")),
        (Some(ttl), Some(lifetime)) => line("stale", format!("for {} s, after {lifetime} s", -ttl)),
        _ => line("fresh", "not for this request".into()),
    }
    if let Some(standing) = entry.get("purge_standing").and_then(Value::as_str) {
        let suspect = "suspect: one may have been missed";
        line("purges", if standing == "suspect" { suspect } else { standing }.into());
    }
    let list = |name: &str| entry.get(name).and_then(Value::as_array).into_iter().flatten();
    let tags: Vec<_> = list("tags").filter_map(Value::as_str).collect();
    line("tags", if tags.is_empty() { "none".into() } else { tags.join(" ") });
    for (name, value) in entry.get("vary").and_then(Value::as_object).into_iter().flatten() {
        line("varies by", format!("{name}: {}", value.as_str().unwrap_or("(absent)")));
    }
    for (label, name) in [("etag", "etag"), ("last-modified", "last_modified"), ("part", "part")] {
        if let Some(value) = entry.get(name).and_then(Value::as_str) {
            line(label, value.into());
        }
    }
    let size = |name: &str| size_text(entry.get(name).and_then(Value::as_u64).unwrap_or(0));
    line("body", size("body_bytes"));
    for (coding, bytes) in entry.get("encodings").and_then(Value::as_object).into_iter().flatten() {
        line(&format!("as {coding}"), size_text(bytes.as_u64().unwrap_or(0)));
    }
    line("weight", size("weight_bytes"));
    out
}

/// What an origin wrote, without what would steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_line_by_line() {
        let answer = serde_json::json!({
            "host": "shop.example", "target": "/a?b=1", "route": "all",
            "next": { "outcome": "hit", "reason": "fresh", "why": "it is stored and fresh for 40 s more" },
            "uncacheable_s": 0, "origin_failing_s": 0, "fills": 0,
            "stored": [{
                "selected": true, "source": "origin", "status": 200, "age_s": 20, "ttl_s": 40, "lifetime_s": 60,
                "purge_standing": null, "vary": { "accept-language": "de" }, "tags": ["product:7"],
                "etag": "\"a\u{1b}[2J\"", "last_modified": null, "part": null, "body_bytes": 4096, "weight_bytes": 5120,
                "encodings": { "br": 1024 },
            }],
        });
        let expected = "\
url        shop.example/a?b=1
route      all
next       hit (fresh): it is stored and fresh for 40 s more
stored     1

  200 from origin  answers this request
  age           20 s
  fresh         40 s more, of 60 s
  tags          product:7
  varies by     accept-language: de
  etag          \"a\u{fffd}[2J\"
  body          4KiB
  as br         1KiB
  weight        5KiB
";
        assert_eq!(render(&answer), expected);
    }
}
