//! What of a message goes on to the next hop, and what we add.
//!
//! Fields that concern one connection stop here (RFC 9110 §7.6.1), and so does everything by which a client could pretend
//! to be a proxy or rewrite what was routed and cached: `X-Forwarded-*`, `Forwarded`, `X-Original-URL` and their kin are
//! dropped, in every spelling that a gateway would read as the same (`X_Forwarded_For`), and set anew from what we know.
//! A header that is not in the cache's key must never steer the answer that is stored: that is the door of cache
//! poisoning.
//!
//! A proxy named in `edge.trusted_proxies` is believed: its chain is continued rather than replaced.

use std::net::IpAddr;

use tenfold_cache::Scheme;
use tenfold_http1::{Field, RequestHead, hop_by_hop_named, is_hop_by_hop};

use crate::normalise::Target;
use crate::request_id::{RequestId, RequestIds};

/// What the node is told about where a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// In normal form.
    pub host: &'a str,
    /// Names this request.
    pub request_id: &'a RequestId,
    /// The peer is one of our proxies.
    pub trusted: bool,
    /// The answer may be stored: nothing of this one client's state may shape it.
    pub for_cache: bool,
}

/// Set by us, or by nobody.
const CLAIMED_BY_PROXIES: [&str; 16] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-scheme",
    "x-forwarded-ssl",
    "x-forwarded-server",
    "x-forwarded-prefix",
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-host",
];

/// A GET that says it is a DELETE: harmless where every answer is the sender's own, poison where answers are shared.
const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Answered by the cache for each client by itself; the fetch is for all of them.
const CONDITIONS: [&str; 6] =
    ["if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range", "range"];

/// Written by the caller, who knows the framing, or by us.
const WRITTEN_ELSEWHERE: [&str; 6] =
    ["host", "content-length", "transfer-encoding", "expect", "x-request-id", "traceparent"];

/// Appends the request's line and fields for a node, without those of framing and without the empty line: the caller adds
/// them. `node_host` takes the place of the client's `Host` where the configuration says so.
pub fn write_request_head(
    out: &mut Vec<u8>,
    head: &RequestHead<'_>,
    target: &Target<'_>,
    forwarding: &Forwarding<'_>,
    node_host: Option<&str>,
    ids: &mut RequestIds,
) {
    write_request_line(out, head.method_text.as_bytes(), target, node_host.unwrap_or(forwarding.host));
    for &(name, value) in &head.fields {
        if is_passed_on(name, forwarding) && !(head.names_hop_by_hop && is_named(name, &head.fields)) {
            write_field(out, name, value);
        }
    }
    write_provenance(out, &head.fields, forwarding);
    write_trace(out, &head.fields, forwarding.request_id, ids);
}

fn write_request_line(out: &mut Vec<u8>, method: &[u8], target: &Target<'_>, host: &str) {
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(target.path.as_bytes());
    if let Some(query) = target.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_field(out, b"Host", host.as_bytes());
}

fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn is_passed_on(name: &[u8], forwarding: &Forwarding<'_>) -> bool {
    // Most names begin with a letter that none of the lists holds.
    if !matches!(
        name.first().map(u8::to_ascii_lowercase),
        Some(b'c' | b'e'..=b'i' | b'k' | b'p' | b'r' | b't' | b'u' | b'x')
    ) {
        return true;
    }
    !(is_in(&WRITTEN_ELSEWHERE, name)
        || is_hop_by_hop(name)
        || is_in(&CLAIMED_BY_PROXIES, name)
        || (forwarding.for_cache && (is_in(&CONDITIONS, name) || is_in(&OVERRIDES, name))))
}

/// Whether `name` is in `list`, reading `_` as `-` as gateways to CGI, WSGI and Rack do.
fn is_in(list: &[&str], name: &[u8]) -> bool {
    list.iter().any(|listed| {
        listed.len() == name.len()
            && listed.bytes().zip(name).all(|(l, &n)| l == n.to_ascii_lowercase() || (l == b'-' && n == b'_'))
    })
}

/// A field that `Connection` names stops here, unless it may not name it.
fn is_named(name: &[u8], fields: &[Field<'_>]) -> bool {
    hop_by_hop_named(fields).any(|named| named.eq_ignore_ascii_case(name))
}

/// The scheme that the node is told the client used: a trusted proxy's word, else `http`. Part of the cache's key.
pub(crate) fn told_scheme(fields: &[Field<'_>], trusted: bool) -> Scheme {
    let mut told =
        fields.iter().filter(|(name, _)| trusted && name.eq_ignore_ascii_case(b"x-forwarded-proto"));
    match told.find(|(_, value)| !value.is_empty()) {
        Some((_, value)) if value.eq_ignore_ascii_case(b"https") => Scheme::Https,
        _ => Scheme::Http,
    }
}

fn write_provenance(out: &mut Vec<u8>, fields: &[Field<'_>], forwarding: &Forwarding<'_>) {
    let chain = |name: &'static [u8]| {
        let listed = fields.iter().filter(move |(n, _)| forwarding.trusted && n.eq_ignore_ascii_case(name));
        listed.map(|(_, value)| *value).filter(|value| !value.is_empty())
    };
    let Forwarding { peer, host, .. } = *forwarding;
    out.extend_from_slice(b"X-Forwarded-For: ");
    for link in chain(b"x-forwarded-for") {
        out.extend_from_slice(link);
        out.extend_from_slice(b", ");
    }
    write_address(out, peer);
    let scheme = match told_scheme(fields, forwarding.trusted) {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    out.extend_from_slice(b"\r\nX-Forwarded-Proto: ");
    out.extend_from_slice(scheme.as_bytes());
    out.extend_from_slice(b"\r\nX-Forwarded-Host: ");
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(b"\r\nForwarded: ");
    for link in chain(b"forwarded") {
        out.extend_from_slice(link);
        out.extend_from_slice(b", ");
    }
    let (open, close): (&[u8], &[u8]) = if peer.is_ipv4() { (b"for=", b"") } else { (b"for=\"[", b"]\"") };
    out.extend_from_slice(open);
    write_address(out, peer);
    out.extend_from_slice(close);
    out.extend_from_slice(b";host=\"");
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(b"\";proto=");
    out.extend_from_slice(scheme.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Without the machinery of `fmt` for IPv4: this is on every request's way.
fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    use std::io::Write as _;
    let IpAddr::V4(v4) = address else {
        // Writing to a `Vec` cannot fail.
        let _ = write!(out, "{address}");
        return;
    };
    for (at, octet) in v4.octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
    }
}

/// Continues the client's trace with a span of ours, or begins one that bears the request's id.
fn write_trace(out: &mut Vec<u8>, fields: &[Field<'_>], request_id: &RequestId, ids: &mut RequestIds) {
    write_field(out, b"X-Request-Id", request_id.as_bytes());
    let given = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"traceparent"));
    let (trace, flags): (&[u8], &[u8]) = match given.and_then(|(_, value)| parse_traceparent(value)) {
        Some(parts) => parts,
        None if is_trace_id(request_id.as_bytes()) => (request_id.as_bytes(), b"00"),
        // A trusted proxy's own form of id.
        None => return,
    };
    out.extend_from_slice(b"traceparent: 00-");
    out.extend_from_slice(trace);
    out.push(b'-');
    out.extend_from_slice(&ids.make_span());
    out.push(b'-');
    out.extend_from_slice(flags);
    out.extend_from_slice(b"\r\n");
}

/// `version-traceid-parentid-flags`; a later version may say more after that (W3C Trace Context §3.2).
fn parse_traceparent(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let hex = |part: &[u8]| part.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    let mut parts = value.split(|&b| b == b'-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let whole = version.len() == 2
        && hex(version)
        && version != b"ff"
        && (version != b"00" || parts.next().is_none());
    let named = is_trace_id(trace) && parent.len() == 16 && hex(parent) && parent.iter().any(|&b| b != b'0');
    (whole && named && flags.len() == 2 && hex(flags)).then_some((trace, flags))
}

fn is_trace_id(id: &[u8]) -> bool {
    let hex = id.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    id.len() == 32 && hex && id.iter().any(|&b| b != b'0')
}

/// Appends a response's end-to-end fields; framing is the caller's, and so is the request's id.
pub fn write_response_fields(out: &mut Vec<u8>, fields: &[Field<'_>], names_hop_by_hop: bool) {
    for &(name, value) in fields {
        let ours = name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"x-request-id");
        let stops = ours || is_hop_by_hop(name) || names_hop_by_hop && is_named(name, fields);
        if !stops {
            write_field(out, name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "192.0.2.9";

    fn head_of(request: &str, trusted: bool, for_cache: bool) -> String {
        let mut scanned = 0;
        let limits = tenfold_http1::Limits::default();
        let (head, _) = tenfold_http1::parse_request(request.as_bytes(), &mut scanned, &limits)
            .expect("valid")
            .expect("whole");
        let mut ids = RequestIds::new(1);
        let request_id = ids.make();
        let peer = PEER.parse().expect("address");
        let forwarding =
            Forwarding { peer, host: "shop.example", request_id: &request_id, trusted, for_cache };
        let mut out = Vec::new();
        let target = Target { path: "/a", query: Some("q=1") };
        write_request_head(&mut out, &head, &target, &forwarding, None, &mut ids);
        String::from_utf8(out).expect("ASCII")
    }

    fn request(fields: &str) -> String {
        format!("GET /raw HTTP/1.1\r\nHost: Shop.Example\r\n{fields}\r\n")
    }

    fn passes(field: &str) -> bool {
        head_of(&request(&format!("{field}\r\n")), false, false).contains(&format!("\r\n{field}\r\n"))
    }

    #[test]
    fn the_normal_form_is_what_the_node_sees() {
        let head = head_of(&request(""), false, false);
        assert!(head.starts_with("GET /a?q=1 HTTP/1.1\r\nHost: shop.example\r\n"), "{head}");
    }

    #[test]
    fn fields_of_one_hop_stop_here() {
        for field in
            ["Keep-Alive: timeout=5", "Upgrade: h2c", "Proxy-Connection: x", "TE: trailers", "Trailer: x"]
        {
            assert!(!passes(field), "{field}");
        }
        for field in
            ["Accept: */*", "Authorization: Basic x", "Cookie: a=b", "X-Custom: 1", "Content-Type: a/b"]
        {
            assert!(passes(field), "{field}");
        }
    }

    #[test]
    fn connection_names_fields_but_not_every_field() {
        let head = head_of(
            &request("Connection: x-private, authorization\r\nX-Private: 1\r\nAuthorization: a\r\n"),
            false,
            false,
        );
        assert!(!head.contains("X-Private"), "{head}");
        assert!(!head.contains("Connection"), "{head}");
        assert!(head.contains("Authorization: a"), "{head}");
    }

    #[test]
    fn claims_of_strangers_are_dropped_in_every_spelling() {
        for field in [
            "X-Forwarded-For: 1.1.1.1",
            "X_Forwarded_For: 1.1.1.1",
            "x-original-url: /admin",
            "X-Rewrite_URL: /x",
            "X-Real-IP: 1.1.1.1",
            "Forwarded: for=1.1.1.1",
        ] {
            let head = head_of(&request(&format!("{field}\r\n")), false, false);
            let (_, value) = field.split_once(": ").expect("a value");
            assert!(!head.contains(value), "{field} in {head}");
        }
        let head = head_of(&request(""), false, false);
        assert!(head.contains("X-Forwarded-For: 192.0.2.9\r\n"), "{head}");
        assert!(head.contains("Forwarded: for=192.0.2.9;host=\"shop.example\";proto=http\r\n"), "{head}");
    }

    #[test]
    fn the_chain_of_a_trusted_proxy_is_continued() {
        let head =
            head_of(&request("X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n"), true, false);
        assert!(head.contains("X-Forwarded-For: 198.51.100.7, 192.0.2.9\r\n"), "{head}");
        assert!(head.contains("X-Forwarded-Proto: https\r\n"), "{head}");
    }

    #[test]
    fn a_fetch_for_all_carries_no_condition_and_no_override() {
        let fields = "If-None-Match: \"x\"\r\nRange: bytes=0-1\r\nX-HTTP-Method-Override: DELETE\r\n";
        let shared = head_of(&request(fields), false, true);
        assert!(
            !shared.contains("If-None-Match") && !shared.contains("Range") && !shared.contains("Override"),
            "{shared}"
        );
        let own = head_of(&request(fields), false, false);
        assert!(own.contains("If-None-Match") && own.contains("Range") && own.contains("Override"), "{own}");
    }

    #[test]
    fn a_trace_is_continued_or_begun() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let head =
            head_of(&request(&format!("traceparent: 00-{trace}-00f067aa0ba902b7-01\r\n")), false, false);
        assert!(head.contains(&format!("traceparent: 00-{trace}-")), "{head}");
        assert!(!head.contains("00f067aa0ba902b7"), "the span is ours: {head}");
        for bad in
            ["00-0-0-0", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "ff-x-y-z", "00-A-B-C"]
        {
            let head = head_of(&request(&format!("traceparent: {bad}\r\n")), false, false);
            let id = head
                .split("X-Request-Id: ")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next())
                .expect("an id");
            assert!(head.contains(&format!("traceparent: 00-{id}-")), "{head}");
        }
    }

    #[test]
    fn a_response_keeps_its_end_to_end_fields() {
        let fields: Vec<Field<'_>> = vec![
            (b"Content-Type", b"text/html"),
            (b"Content-Length", b"5"),
            (b"Connection", b"x-hop"),
            (b"X-Hop", b"1"),
            (b"Set-Cookie", b"a=b"),
            (b"Keep-Alive", b"timeout=5"),
        ];
        let mut out = Vec::new();
        write_response_fields(&mut out, &fields, true);
        assert_eq!(out, b"Content-Type: text/html\r\nSet-Cookie: a=b\r\n");
    }
}
