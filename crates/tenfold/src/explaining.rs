//! A question about a URL, put as the request that a client would send, and its answer as JSON.
//!
//! The URL and the headers become the head of a request; what the codec, the edge's normal form or its routes refuse of
//! it is refused here too, with the reason that a client would see. The answer repeats what was understood, so that a
//! question that was put wrongly shows.

use serde_json::{Value, json};
use tenfold_cache::{Shown, Timestamp};
use tenfold_edge::Edge;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The head of a request.
    head: Vec<u8>,
}

/// Headers of one question; a request may have no more by default.
const HEADERS_MAX: usize = 100;
const EXPECTED: &str = "send {\"url\": \"http://shop.example/path\"}, optionally with \"method\": \"HEAD\" and \"headers\": [[\"Accept-Language\", \"de\"]]";

impl Question {
    /// `{"url": "http://host/path?query", "method": "GET", "headers": [["Name", "value"]]}`; method and headers optional.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(body).map_err(|_| format!("not JSON; {EXPECTED}"))?;
        let fields = value.as_object().ok_or(EXPECTED)?;
        if let Some(unknown) = fields.keys().find(|key| !matches!(key.as_str(), "url" | "method" | "headers"))
        {
            return Err(format!("unknown field {unknown:?}; {EXPECTED}"));
        }
        let url = fields.get("url").and_then(Value::as_str).ok_or(EXPECTED)?;
        let method = fields.get("method").map_or(Some("GET"), Value::as_str).ok_or(EXPECTED)?;
        let headers = match fields.get("headers") {
            None => Vec::new(),
            Some(list) => headers(list).ok_or(EXPECTED)?,
        };
        Self::new(url, method, &headers)
    }

    fn new(url: &str, method: &str, headers: &[(&str, &str)]) -> Result<Self, String> {
        let refused = || format!("{url:?} is not a URL such as http://shop.example/api/products/7");
        let (scheme, rest) = url.split_once("://").ok_or_else(refused)?;
        if !matches!(scheme, "http" | "https") {
            return Err(refused());
        }
        let (authority, target) = rest.find(['/', '?']).map_or((rest, "/"), |at| rest.split_at(at));
        let slash = if target.starts_with('/') { "" } else { "/" };
        let splits = |text: &str| text.contains(['\r', '\n', '\0']);
        if authority.is_empty() || splits(authority) || target.contains([' ', '#']) || splits(target) {
            return Err(refused());
        }
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(format!("{method:?} is no method"));
        }
        let mut head = format!("{method} {slash}{target} HTTP/1.1\r\nhost: {authority}\r\n");
        if scheme == "https" {
            head += "x-forwarded-proto: https\r\n";
        }
        for (name, value) in headers {
            if splits(name) || splits(value) || name.is_empty() || name.eq_ignore_ascii_case("host") {
                return Err(format!("{name:?} is no header to ask with"));
            }
            head += &format!("{name}: {}\r\n", value.trim());
        }
        Ok(Self { head: (head + "\r\n").into_bytes() })
    }

    /// What the edge's cache has to say.
    pub fn answer(&self, edge: &Edge, now: Timestamp) -> Result<Value, String> {
        let explanation = edge
            .explain(&self.head, now)
            .map_err(|reason| format!("such a request is refused: {}", reason.as_str()))?;
        let cache = &explanation.cache;
        Ok(json!({
            "host": explanation.host,
            "target": explanation.target,
            "route": explanation.route,
            "next": {
                "outcome": explanation.outcome, "reason": explanation.reason, "why": explanation.why,
            },
            "uncacheable_s": cache.uncacheable_s,
            "origin_failing_s": cache.failing_s,
            "fills": cache.fills,
            "stored": cache.stored.iter().map(shown).collect::<Vec<_>>(),
        }))
    }
}

fn headers(list: &Value) -> Option<Vec<(&str, &str)>> {
    let pairs = list.as_array().filter(|pairs| pairs.len() <= HEADERS_MAX)?;
    pairs.iter().map(text_pair).collect()
}

fn text_pair(pair: &Value) -> Option<(&str, &str)> {
    let [name, value] = pair.as_array()?.as_slice() else { return None };
    Some((name.as_str()?, value.as_str()?))
}

fn shown(entry: &Shown) -> Value {
    let vary: serde_json::Map<_, _> =
        entry.vary.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let encodings: serde_json::Map<_, _> =
        entry.encodings.iter().map(|&(coding, bytes)| (coding.to_owned(), json!(bytes))).collect();
    json!({
        "selected": entry.is_selected,
        "source": entry.source,
        "status": entry.status,
        "age_s": entry.age_s,
        "ttl_s": entry.ttl_s,
        "lifetime_s": entry.lifetime_s,
        "purge_standing": entry.purge_standing,
        "vary": vary,
        "tags": entry.tags,
        "etag": entry.etag,
        "last_modified": entry.last_modified,
        "part": entry.part.map(|part| format!("bytes {}-{}/{}", part.start, part.end.saturating_sub(1), part.complete)),
        "body_bytes": entry.body_bytes,
        "weight_bytes": entry.weight_bytes,
        "encodings": encodings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: &str) {
        let head = Question::parse(body.as_bytes()).map(|question| String::from_utf8(question.head).unwrap());
        assert_eq!(head.as_deref(), Ok(expected), "{body}");
    }

    #[test]
    fn a_question_becomes_a_request() {
        check(r#"{"url":"http://a/b?c"}"#, "GET /b?c HTTP/1.1\r\nhost: a\r\n\r\n");
        check(r#"{"url":"http://a?c"}"#, "GET /?c HTTP/1.1\r\nhost: a\r\n\r\n");
        check(
            r#"{"url":"https://a/","method":"HEAD","headers":[["Accept-Language"," de"]]}"#,
            "HEAD / HTTP/1.1\r\nhost: a\r\nx-forwarded-proto: https\r\nAccept-Language: de\r\n\r\n",
        );
    }

    #[test]
    fn what_is_no_question_is_refused() {
        for body in [
            "",
            "{}",
            "[]",
            r#"{"url":7}"#,
            r#"{"url":"a/b"}"#,
            r#"{"url":"ftp://a/b"}"#,
            r#"{"url":"http:///b"}"#,
            r#"{"url":"http://a/b c"}"#,
            r#"{"url":"http://a/b\r\nx: y"}"#,
            r#"{"url":"http://a/","method":"GET / HTTP/1.1"}"#,
            r#"{"url":"http://a/","headers":[["a"]]}"#,
            r#"{"url":"http://a/","headers":[["a","b\r\nc: d"]]}"#,
            r#"{"url":"http://a/","headers":[["Host","b"]]}"#,
            r#"{"url":"http://a/","header":[]}"#,
        ] {
            assert!(Question::parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
