//! A request as bytes, with holes: made once per route and target, filled in per request.
//!
//! **Intuition.** The generator shares two cores with the system it measures, so a request must cost it little:
//! everything constant (request line, Host, headers) is one or two byte strings made in advance, and sending is
//! copying them with the numbers in between.
//!
//! **Mechanism.** [`Template::of_route`] parses the placeholders of path, header values and body (listed in
//! [`crate::scenario`]) and lays the whole head out as parts. [`Template::render`] appends head and body to a buffer
//! that its connection reuses. The body goes to a scratch buffer first, since its length stands in the head.
//!
//! **Failure.** Bytes that could split a message (CR, LF, NUL, a space in a path) are refused when the template is
//! made. What is filled in later can't bring them: numbers are digits, and tokens are checked when they are taken in.

use std::io::Write as _;
use std::ops::Range;

use crate::error::Error;
use crate::random::Random;
use crate::scenario::Route;

/// One rendered request's head and body must fit, whatever the numbers.
const TEMPLATE_BYTES_MAX: usize = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<[u8]>),
    Key,
    Number,
    Token,
    /// Uniform in `low..=high`.
    Random {
        low: u64,
        high: u64,
    },
    /// The length of the rendered body, in the head only.
    ContentLength,
}

/// A request with holes.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    /// Request line up to the target, target, and the rest of the head.
    before: Vec<Part>,
    path: Vec<Part>,
    after: Vec<Part>,
    body: Option<Vec<Part>>,
}

/// What fills the holes of one request. A pure function of the plan and the request's number, so that a request
/// rendered again (after a reconnect) is the same request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill<'t> {
    /// Counted from 1.
    pub(crate) key: u64,
    pub(crate) number: u64,
    pub(crate) token: &'t str,
    pub(crate) seed: u64,
}

impl Template {
    /// Parses a route's templates. `authority` is the value of the Host field.
    pub(crate) fn of_route(route: &Route, authority: &str) -> Result<Self, Error> {
        let refuse = |why: String| Error::Scenario(format!("route {:?}: {why}", route.name));
        let parts = |text: &str| parse(text).map_err(&refuse);
        if route.method.is_empty() || !route.method.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err(refuse(format!("method {:?} is not a word in capitals", route.method)));
        }
        if route.method == "CONNECT" {
            return Err(refuse("CONNECT opens a tunnel, and load has nothing to say in one".into()));
        }
        if !route.path.starts_with('/') {
            return Err(refuse(format!("path {:?} must begin with /", route.path)));
        }
        if !route.path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(refuse(format!("path {:?}: only printable ASCII, without spaces", route.path)));
        }
        let mut before = Vec::new();
        push_literal(&mut before, &format!("{} ", route.method));
        let path = parts(&route.path)?;
        let mut after = Vec::new();
        push_literal(&mut after, &format!(" HTTP/1.1\r\nHost: {authority}\r\n"));
        for (name, value) in default_fields(route) {
            push_literal(&mut after, &format!("{name}: {value}\r\n"));
        }
        for (name, value) in &route.headers {
            check_field(name, value).map_err(&refuse)?;
            push_literal(&mut after, &format!("{name}: "));
            parts(value)?.into_iter().for_each(|part| push(&mut after, part));
            push_literal(&mut after, "\r\n");
        }
        let body = route.body.as_deref().map(parts).transpose()?;
        if body.is_some() || route.method == "POST" {
            push_literal(&mut after, "Content-Length: ");
            after.push(Part::ContentLength);
            push_literal(&mut after, "\r\n");
        }
        push_literal(&mut after, "\r\n");
        let bytes = route.path.len() + route.body.as_ref().map_or(0, String::len);
        if bytes > TEMPLATE_BYTES_MAX {
            return Err(refuse(format!("{bytes} bytes; {TEMPLATE_BYTES_MAX} are possible")));
        }
        Ok(Self { before, path, after, body })
    }

    pub(crate) fn needs_key(&self) -> bool {
        self.has(&Part::Key)
    }

    pub(crate) fn needs_token(&self) -> bool {
        self.has(&Part::Token)
    }

    fn has(&self, wanted: &Part) -> bool {
        let body = self.body.iter().flatten();
        self.path.iter().chain(&self.after).chain(body).any(|part| part == wanted)
    }

    /// Appends the request to `out`; `scratch` is the body's and is cleared. Returns where the target lies in `out`.
    pub(crate) fn render(&self, fill: &Fill<'_>, out: &mut Vec<u8>, scratch: &mut Vec<u8>) -> Range<usize> {
        let mut random = Random::of_request(fill.seed, fill.number);
        scratch.clear();
        write_parts(&self.before, fill, &mut random, 0, out);
        let target_start = out.len();
        write_parts(&self.path, fill, &mut random, 0, out);
        let target = target_start..out.len();
        write_parts(self.body.as_deref().unwrap_or_default(), fill, &mut random, 0, scratch);
        write_parts(&self.after, fill, &mut random, scratch.len(), out);
        out.extend_from_slice(scratch);
        target
    }
}

/// The fields every request carries unless the route sets them itself.
fn default_fields(route: &Route) -> impl Iterator<Item = (&'static str, &'static str)> {
    let fields = [("User-Agent", "tenfold-load"), ("Accept", "*/*"), ("Content-Type", "application/json")];
    let has_body = route.body.is_some();
    fields.into_iter().filter(move |(name, _)| {
        let set = route.headers.keys().any(|key| key.eq_ignore_ascii_case(name));
        !set && (*name != "Content-Type" || has_body)
    })
}

fn check_field(name: &str, value: &str) -> Result<(), String> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("header name {name:?}"));
    }
    for reserved in ["host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"] {
        if name.eq_ignore_ascii_case(reserved) {
            return Err(format!("header {name:?} is the generator's own"));
        }
    }
    if !is_field_value(value) {
        return Err(format!("header {name:?} has a control character in its value"));
    }
    Ok(())
}

/// True when `value` can stand in a field without ending it.
pub(crate) fn is_field_value(value: &str) -> bool {
    value.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7f))
}

fn write_parts(parts: &[Part], fill: &Fill<'_>, random: &mut Random, body_length: usize, out: &mut Vec<u8>) {
    for part in parts {
        let number = match part {
            Part::Literal(bytes) => {
                out.extend_from_slice(bytes);
                continue;
            }
            Part::Token => {
                out.extend_from_slice(fill.token.as_bytes());
                continue;
            }
            Part::Key => fill.key,
            Part::Number => fill.number,
            Part::Random { low, high } => low + random.below(high - low + 1),
            Part::ContentLength => u64::try_from(body_length).expect("usize fits u64"),
        };
        write!(out, "{number}").expect("writing to a Vec can't fail");
    }
}

/// Splits a text into literals and placeholders.
fn parse(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let (literal, from_brace) = rest.split_at(open);
        push_literal(&mut parts, literal);
        let inside = &from_brace[1..];
        match inside.find(['{', '}', '"', ' ', '\n']).filter(|&end| inside[end..].starts_with('}')) {
            Some(end) if inside.starts_with(|c: char| c.is_ascii_lowercase()) => {
                push(&mut parts, placeholder(&inside[..end])?);
                rest = &inside[end + 1..];
            }
            _ => {
                push_literal(&mut parts, "{");
                rest = inside;
            }
        }
    }
    push_literal(&mut parts, rest);
    Ok(parts)
}

fn placeholder(word: &str) -> Result<Part, String> {
    let unknown = || format!("{{{word}}} is none of {{key}}, {{n}}, {{token}} and {{random:1-500}}");
    match word {
        "key" => return Ok(Part::Key),
        "n" => return Ok(Part::Number),
        "token" => return Ok(Part::Token),
        _ => {}
    }
    let range = word.strip_prefix("random:").ok_or_else(unknown)?;
    let (low, high) = range.split_once('-').ok_or_else(unknown)?;
    let (low, high) = (low.parse().map_err(|_| unknown())?, high.parse().map_err(|_| unknown())?);
    if low > high || high == u64::MAX {
        return Err(format!("{{{word}}} is no range"));
    }
    Ok(Part::Random { low, high })
}

/// Appends a part; literals next to one another become one copy.
fn push(parts: &mut Vec<Part>, part: Part) {
    match part {
        Part::Literal(bytes) => push_bytes(parts, &bytes),
        other => parts.push(other),
    }
}

fn push_literal(parts: &mut Vec<Part>, text: &str) {
    push_bytes(parts, text.as_bytes());
}

fn push_bytes(parts: &mut Vec<Part>, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    if let Some(Part::Literal(last)) = parts.last_mut() {
        *last = [last, bytes].concat().into();
        return;
    }
    parts.push(Part::Literal(bytes.into()));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::scenario::Class;

    fn route(method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Route {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Route {
            name: "r".into(),
            weight: 1,
            method: method.into(),
            path: path.into(),
            headers: headers.collect::<BTreeMap<_, _>>(),
            body: body.map(str::to_owned),
            expect: vec![],
            slo_exempt: false,
            class: Class::Cacheable,
        }
    }

    fn render(route: &Route, number: u64) -> (String, String) {
        let template = Template::of_route(route, "shop:80").unwrap();
        let (mut out, mut scratch) = (Vec::new(), Vec::new());
        let fill = Fill { key: 42, number, token: "T0k", seed: 9 };
        let target = template.render(&fill, &mut out, &mut scratch);
        let text = String::from_utf8(out).unwrap();
        (text[target].to_owned(), text.clone())
    }

    #[test]
    fn a_get_is_a_head_alone() {
        let (target, text) = render(&route("GET", "/p/{key}?n={n}", &[], None), 7);
        assert_eq!(target, "/p/42?n=7");
        assert_eq!(
            text,
            "GET /p/42?n=7 HTTP/1.1\r\nHost: shop:80\r\nUser-Agent: tenfold-load\r\nAccept: */*\r\n\r\n"
        );
    }

    #[test]
    fn a_json_body_needs_no_escaping_and_is_measured() {
        let headers = [("authorization", "Bearer {token}"), ("content-type", "text/plain")];
        let body = r#"{"items":[{"id":{key},"q":1}],"o":{}, "t":"{token}"}"#;
        let (_, text) = render(&route("POST", "/orders", &headers, Some(body)), 0);
        let (head, sent) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(sent, r#"{"items":[{"id":42,"q":1}],"o":{}, "t":"T0k"}"#);
        assert!(head.contains(&format!("Content-Length: {}", sent.len())), "{head}");
        assert!(head.contains("authorization: Bearer T0k"), "{head}");
        assert_eq!(head.to_ascii_lowercase().matches("content-type").count(), 1, "{head}");
    }

    #[test]
    fn a_post_without_body_says_so() {
        assert!(render(&route("POST", "/", &[], None), 0).1.contains("Content-Length: 0\r\n\r\n"));
    }

    #[test]
    fn random_stays_in_range_and_is_the_same_again() {
        let dice = route("GET", "/{random:1-6}", &[], None);
        let mut seen: Vec<String> = (0..200).map(|n| render(&dice, n).0).collect();
        assert_eq!(seen, (0..200).map(|n| render(&dice, n).0).collect::<Vec<_>>());
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["/1", "/2", "/3", "/4", "/5", "/6"]);
    }

    #[test]
    fn mistakes_are_refused() {
        for (method, path, header) in [
            ("GET", "p", ("a", "b")),
            ("GET", "/a b", ("a", "b")),
            ("GET", "/{keys}", ("a", "b")),
            ("GET", "/{random:5-1}", ("a", "b")),
            ("GET", "/{random:x}", ("a", "b")),
            ("GET", "/\r\nX: y", ("a", "b")),
            ("get", "/", ("a", "b")),
            ("", "/", ("a", "b")),
            ("CONNECT", "/", ("a", "b")),
            ("GET", "/", ("a:", "b")),
            ("GET", "/", ("a", "b\r\nc: d")),
            ("GET", "/", ("Content-Length", "3")),
            ("GET", "/", ("a", "{tokn}")),
        ] {
            let route = route(method, path, &[header], None);
            assert!(Template::of_route(&route, "h").is_err(), "{method} {path} {header:?}");
        }
    }
}
