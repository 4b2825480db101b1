//! What of a message goes on to the next hop, and what we add.
//!
//! **Intuition.** A header that is not in the cache's key must never steer the answer that is stored: that is the door of
//! cache poisoning. So one list says which fields a request has ([`passed_on`]), and everything behind it reads that list:
//! routes, keys, `Vary` and what the node is sent.
//!
//! **Mechanism.** Fields that concern one connection stop here (RFC 9110 §7.6.1), those that `Connection` names too. So
//! does everything by which a client could pretend to be a proxy or rewrite what was routed and cached
//! (`X-Forwarded-*`, `Forwarded`, `X-Original-URL` and their kin), in every spelling that a gateway would read as the same
//! (`X_Forwarded_For`). `X-Forwarded-For`, `-Proto` and `-Host` and `Forwarded` are then written anew from what we know;
//! the others stay away. A proxy named in `edge.trusted_proxies` is believed what it says of the client's address and
//! scheme: its chain of addresses is continued, its `Forwarded` is not.
//!
//! **Failure.** Nothing here refuses: what may not pass is left out. An answer that says it varies by what we write anew
//! for each request is for the cache one that varies by everything ([`varies_by_each`]).

use std::net::IpAddr;

use tenfold_cache::Scheme;
use tenfold_http1::{Field, Fields, RequestHead, hop_by_hop_named, is_hop_by_hop};

use crate::normalise::Target;
use crate::position::NAME;
use crate::request_id::{RequestId, RequestIds};

/// What the node is told about where a request came from, beside what a trusted proxy says in the request itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forwarding<'a> {
    /// The other end of the connection.
    pub(crate) peer: IpAddr,
    /// Who asks, as far as that is known.
    pub(crate) client: IpAddr,
    /// In normal form.
    pub(crate) host: &'a str,
    /// Names this request.
    pub(crate) request_id: &'a RequestId,
    /// The answer may be stored: nothing of this one client's state may shape it.
    pub(crate) for_cache: bool,
    /// The answer is to come without a content coding: it will be given those that its readers accept.
    pub(crate) unencoded: bool,
    /// What the client has to see, sealed.
    pub(crate) position: Option<&'a str>,
}

/// Names that begin so are said by proxies; what of them holds is written anew.
const CLAIMED_PREFIXES: [&str; 3] = ["x-forwarded", "x-original-", "x-rewrite-"];

/// Other names by which a client could pretend to be a proxy. `Proxy` becomes `HTTP_PROXY` in CGI; what a client has to see
/// the node hears from us, once it is believed.
const CLAIMED_BY_PROXIES: [&str; 15] = [
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-host",
    "x-url-scheme",
    "x-scheme",
    "x-script-name",
    "front-end-https",
    "cf-connecting-ip",
    "client-ip",
    "true-client-ip",
    "proxy",
    "x-proxyuser-ip",
    "tenfold-position",
];

/// A GET that says it is a DELETE: harmless where every answer is the sender's own, poison where answers are shared.
const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Answered by the cache for each client by itself; the fetch is for all of them.
const CONDITIONS: [&str; 6] =
    ["if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range", "range"];

/// What codings its sender accepts.
const ENCODING: [&str; 1] = ["accept-encoding"];

/// Belong to one message on one connection: written by the caller, who knows the framing.
const FRAMING: [&str; 3] = ["content-length", "transfer-encoding", "expect"];

/// Written by us, from what the request said or from what we know.
const WRITTEN_ANEW: [&str; 5] =
    ["host", "x-request-id", "traceparent", "x-forwarded-for", "x-forwarded-proto"];

/// Written by us and different for each request: an answer that varies by them can answer no other.
const EACH_ITS_OWN: [&str; 5] =
    ["x-forwarded-for", "forwarded", "x-request-id", "traceparent", "tenfold-position"];

/// What one look at the names says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Some field claims what only a proxy may say.
    pub(crate) claims: bool,
    /// It asks whether the client's copy still holds.
    pub(crate) conditional: bool,
}

impl Survey {
    pub(crate) fn of(fields: &[Field<'_>]) -> Self {
        let mut survey = Self::default();
        for (name, _) in fields {
            match name.first() {
                Some(b'I' | b'i') => survey.conditional |= is_conditional(name),
                // The letters with which claims begin.
                Some(b'X' | b'x' | b'F' | b'f' | b'C' | b'c' | b'T' | b't' | b'P' | b'p') => {
                    survey.claims |= is_claim(name);
                }
                _ => {}
            }
        }
        survey
    }
}

fn is_conditional(name: &[u8]) -> bool {
    match name.len() {
        13 => name.eq_ignore_ascii_case(b"if-none-match"),
        17 => name.eq_ignore_ascii_case(b"if-modified-since"),
        _ => false,
    }
}

fn is_claim(name: &[u8]) -> bool {
    CLAIMED_PREFIXES
        .iter()
        .any(|prefix| name.get(..prefix.len()).is_some_and(|start| is_read_as(start, prefix)))
        || is_in(&CLAIMED_BY_PROXIES, name)
}

/// Whether a node never sees what a client sends under this name: a key made of it would tell nothing apart.
pub(crate) fn is_kept_from_nodes(name: &[u8]) -> bool {
    is_claim(name) || is_in(&EACH_ITS_OWN, name) || is_hop_by_hop(name)
}

/// The fields that a request has for routes, keys, `Vary` and the node: not those that `Connection` names and not those
/// by which a client pretends to be a proxy. Of a trusted proxy's claims, the chain of addresses stays as it is, and the
/// scheme if it is `https`, in the form that the node is told. A request with nothing to leave out needs no list of its own: see
/// [`Survey::claims`] and [`RequestHead::names_hop_by_hop`].
pub(crate) fn passed_on<'b>(fields: &[Field<'b>], names_hop_by_hop: bool, trusted: bool) -> Fields<'b> {
    let is_believed = |name: &[u8]| trusted && name.eq_ignore_ascii_case(b"x-forwarded-for");
    let stays =
        |name: &[u8]| (!is_claim(name) || is_believed(name)) && !(names_hop_by_hop && is_named(name, fields));
    let mut kept: Fields<'b> = fields.iter().copied().filter(|(name, _)| stays(name)).collect();
    let mut proto =
        fields.iter().filter(|(name, _)| trusted && name.eq_ignore_ascii_case(b"x-forwarded-proto"));
    // `http` is what is meant where nothing is said, so that both are one request to `Vary`.
    if proto.find(|(_, value)| !value.is_empty()).is_some_and(|(_, v)| v.eq_ignore_ascii_case(b"https")) {
        kept.push((b"X-Forwarded-Proto", scheme_text(Scheme::Https)));
    }
    kept
}

/// The scheme that the node is told the client used: a trusted proxy's word, else `http`. Part of the cache's key.
/// `fields` are those [`passed_on`].
pub(crate) fn told_scheme(fields: &[Field<'_>]) -> Scheme {
    match tenfold_http1::find(fields, "x-forwarded-proto") {
        Some(b"https") => Scheme::Https,
        _ => Scheme::Http,
    }
}

fn scheme_text(scheme: Scheme) -> &'static [u8] {
    match scheme {
        Scheme::Http => b"http",
        Scheme::Https => b"https",
    }
}

/// What of a request is written down for a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'r, 'b> {
    pub(crate) method: &'r str,
    pub(crate) target: Target<'r>,
    /// Those [`passed_on`].
    pub(crate) fields: &'r [Field<'b>],
    pub(crate) scheme: Scheme,
}

/// Appends the request's line and fields for a node, without those of framing and without the empty line: the caller adds
/// them.
pub(crate) fn write_request_head(
    out: &mut Vec<u8>,
    request: &Outgoing<'_, '_>,
    forwarding: &Forwarding<'_>,
    ids: &mut RequestIds,
) {
    // What is stored answers GET and HEAD alike.
    let method = if forwarding.for_cache { "GET" } else { request.method };
    write_request_line(out, method, &request.target);
    write_field(out, b"Host", forwarding.host.as_bytes());
    for &(name, value) in request.fields {
        if is_copied(name, forwarding.for_cache) && !(forwarding.unencoded && is_in(&ENCODING, name)) {
            write_field(out, name, value);
        }
    }
    if forwarding.unencoded {
        write_field(out, b"Accept-Encoding", b"identity");
    }
    write_provenance(out, request, forwarding);
    if let Some(position) = forwarding.position {
        write_field(out, NAME.as_bytes(), position.as_bytes());
    }
    write_trace(out, request.fields, forwarding.request_id, ids);
}

/// Appends a fill's head, made from one that was written for one client: what we said there of the request's way stands,
/// what shapes the answer for that client alone goes.
pub(crate) fn write_fill_head(out: &mut Vec<u8>, own: &RequestHead<'_>, unencoded: bool) {
    out.extend_from_slice(b"GET ");
    out.extend_from_slice(own.target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for &(name, value) in &own.fields {
        let stays = is_in(&FRAMING, name) || is_one_clients(name) || unencoded && is_in(&ENCODING, name);
        if !stays {
            write_field(out, name, value);
        }
    }
    if unencoded {
        write_field(out, b"Accept-Encoding", b"identity");
    }
}

fn write_request_line(out: &mut Vec<u8>, method: &str, target: &Target<'_>) {
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.path.as_bytes());
    if let Some(query) = target.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Of the fields passed on: does it go to the node as it came?
fn is_copied(name: &[u8], for_cache: bool) -> bool {
    // Most names begin with a letter that none of the lists holds.
    if !matches!(
        name.first().map(u8::to_ascii_lowercase),
        Some(b'c' | b'e' | b'h' | b'i' | b'k' | b'p' | b'r' | b't' | b'u' | b'x')
    ) {
        return true;
    }
    !(is_in(&FRAMING, name)
        || is_in(&WRITTEN_ANEW, name)
        || is_hop_by_hop(name)
        || for_cache && is_one_clients(name))
}

fn is_one_clients(name: &[u8]) -> bool {
    is_in(&CONDITIONS, name) || is_in(&OVERRIDES, name)
}

/// Does a request say that it is of another method? What it gets is the sender's own, and tells nothing of the URL.
pub(crate) fn overrides_method(fields: &[Field<'_>]) -> bool {
    fields.iter().any(|(name, _)| is_in(&OVERRIDES, name))
}

fn is_in(list: &[&str], name: &[u8]) -> bool {
    list.iter().any(|listed| is_read_as(name, listed))
}

/// Whether `name` is `listed`, reading `_` as `-` as gateways to CGI, WSGI and Rack do.
fn is_read_as(name: &[u8], listed: &str) -> bool {
    listed.len() == name.len()
        && listed.bytes().zip(name).all(|(l, &n)| l == n.to_ascii_lowercase() || (l == b'-' && n == b'_'))
}

/// A field that `Connection` names stops here, unless it may not name it.
fn is_named(name: &[u8], fields: &[Field<'_>]) -> bool {
    hop_by_hop_named(fields).any(|named| named.eq_ignore_ascii_case(name))
}

fn write_provenance(out: &mut Vec<u8>, request: &Outgoing<'_, '_>, forwarding: &Forwarding<'_>) {
    let Forwarding { peer, client, host, .. } = *forwarding;
    let scheme = scheme_text(request.scheme);
    out.extend_from_slice(b"X-Forwarded-For: ");
    for link in tenfold_http1::find_all(request.fields, "x-forwarded-for").filter(|link| !link.is_empty()) {
        out.extend_from_slice(link);
        out.extend_from_slice(b", ");
    }
    write_address(out, peer);
    out.extend_from_slice(b"\r\nX-Forwarded-Proto: ");
    out.extend_from_slice(scheme);
    out.extend_from_slice(b"\r\nX-Forwarded-Host: ");
    out.extend_from_slice(host.as_bytes());
    let (open, close): (&[u8], &[u8]) = if client.is_ipv4() { (b"for=", b"") } else { (b"for=\"[", b"]\"") };
    // One element, and all of it ours: a reader of several takes the first, and that would be a stranger's.
    out.extend_from_slice(b"\r\nForwarded: ");
    out.extend_from_slice(open);
    write_address(out, client);
    out.extend_from_slice(close);
    out.extend_from_slice(b";host=\"");
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(b"\";proto=");
    out.extend_from_slice(scheme);
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
    let own;
    let (trace, flags): (&[u8], &[u8]) = match given.and_then(|(_, value)| parse_traceparent(value)) {
        Some(parts) => parts,
        None if is_trace_id(request_id.as_bytes()) => (request_id.as_bytes(), b"00"),
        // A trusted proxy's own form of id is no trace's.
        None => {
            own = ids.make();
            (own.as_bytes(), b"00")
        }
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
pub(crate) fn parse_traceparent(value: &[u8]) -> Option<(&[u8], &[u8])> {
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
pub(crate) fn write_response_fields(out: &mut Vec<u8>, fields: &[Field<'_>], names_hop_by_hop: bool) {
    for &(name, value) in fields {
        if !name.eq_ignore_ascii_case(b"content-length") && is_passed_back(name, fields, names_hop_by_hop) {
            write_field(out, name, value);
        }
    }
}

/// A response's fields as the cache may see and keep them.
pub(crate) fn fields_to_keep<'b>(fields: &[Field<'b>], names_hop_by_hop: bool) -> Fields<'b> {
    let stays = |name: &[u8]| is_passed_back(name, fields, names_hop_by_hop);
    fields.iter().copied().filter(|(name, _)| stays(name)).collect()
}

fn is_passed_back(name: &[u8], fields: &[Field<'_>], names_hop_by_hop: bool) -> bool {
    !(name.eq_ignore_ascii_case(b"x-request-id")
        || is_hop_by_hop(name)
        || names_hop_by_hop && is_named(name, fields))
}

/// Does an answer say that it is for its own request only: by what each is told anew, or by everything?
pub(crate) fn varies_by_each(fields: &[Field<'_>]) -> bool {
    tenfold_http1::find_all(fields, "vary")
        .flat_map(|line| line.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|name| name == b"*" || is_in(&EACH_ITS_OWN, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "192.0.2.9";
    const CLIENT: &str = "198.51.100.7";

    fn head_of(request: &str, trusted: bool, for_cache: bool) -> String {
        let mut scanned = 0;
        let limits = tenfold_http1::Limits::default();
        let (head, _) = tenfold_http1::parse_request(request.as_bytes(), &mut scanned, &limits)
            .expect("valid")
            .expect("whole");
        let mut ids = RequestIds::new(1);
        let request_id = ids.make();
        let peer = PEER.parse().expect("address");
        let client = CLIENT.parse().expect("address");
        let forwarding = Forwarding {
            peer,
            client,
            host: "shop.example",
            request_id: &request_id,
            for_cache,
            unencoded: false,
            position: None,
        };
        let mut out = Vec::new();
        let fields = passed_on(&head.fields, head.names_hop_by_hop, trusted);
        let (method, scheme) = (head.method_text, told_scheme(&fields));
        let target = Target { path: "/a", query: Some("q=1") };
        let request = Outgoing { method, target, fields: &fields, scheme };
        write_request_head(&mut out, &request, &forwarding, &mut ids);
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
            "X-Forwarded: for=1.1.1.1",
            "X-Forwarded-Scheme: 1.1.1.1",
            "X-Forwarded_Whatever: 1.1.1.1",
            "X-Original-Method: 1.1.1.1",
            "X-Rewrite-Path: 1.1.1.1",
            "X-Url-Scheme: 1.1.1.1",
            "X_Scheme: 1.1.1.1",
            "Front-End-Https: 1.1.1.1",
            "X-Script-Name: 1.1.1.1",
            "CF-Connecting-IP: 1.1.1.1",
            "Client_IP: 1.1.1.1",
            "X-Cluster-Client-IP: 1.1.1.1",
            "X-Client-IP: 1.1.1.1",
            "True-Client-IP: 1.1.1.1",
            "X-Host: 1.1.1.1",
            "Proxy: 1.1.1.1",
        ] {
            let head = head_of(&request(&format!("{field}\r\n")), false, false);
            let (name, value) = field.split_once(": ").expect("a value");
            assert!(!head.contains(value), "{field} in {head}");
            assert!(Survey::of(&[(name.as_bytes(), b"")]).claims, "{field} is seen at once");
        }
        for name in
            ["X-Requested-With", "X-Forward", "Cookie", "Proxies", "X-Original", "From", "Traceparent"]
        {
            assert_eq!(Survey::of(&[(name.as_bytes(), b"")]), Survey::default(), "{name}");
        }
        let head = head_of(&request(""), false, false);
        assert!(head.contains("X-Forwarded-For: 192.0.2.9\r\n"), "{head}");
        assert!(head.contains("Forwarded: for=198.51.100.7;host=\"shop.example\";proto=http\r\n"), "{head}");
    }

    #[test]
    fn a_trusted_proxys_forwarded_is_not_continued() {
        let fields = "Forwarded: for=1.1.1.1;host=evil.example;proto=https\r\nX-Forwarded-Proto: https\r\n";
        let head = head_of(&request(fields), true, false);
        assert!(!head.contains("evil"), "{head}");
        assert!(
            head.contains("\r\nForwarded: for=198.51.100.7;host=\"shop.example\";proto=https\r\n"),
            "{head}"
        );
    }

    #[test]
    fn one_list_says_what_a_request_has() {
        let fields: Vec<Field<'_>> = vec![
            (b"Host", b"t"),
            (b"Connection", b"x-hop, authorization"),
            (b"X-Hop", b"1"),
            (b"Authorization", b"a"),
            (b"X-Forwarded-For", b"198.51.100.7"),
            (b"X_Forwarded_For", b"1.1.1.1"),
            (b"X-Forwarded-Proto", b"HTTPS"),
            (b"X-Forwarded-Host", b"evil"),
            (b"Accept", b"*/*"),
        ];
        let names = |trusted| -> Vec<String> {
            let kept = passed_on(&fields, true, trusted);
            kept.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
        };
        assert_eq!(names(false), ["Host", "Connection", "Authorization", "Accept"]);
        assert_eq!(
            names(true),
            ["Host", "Connection", "Authorization", "X-Forwarded-For", "Accept", "X-Forwarded-Proto"]
        );
        assert_eq!(told_scheme(&passed_on(&fields, true, true)), Scheme::Https);
        assert_eq!(told_scheme(&passed_on(&fields, true, false)), Scheme::Http);
    }

    #[test]
    fn what_we_wrote_says_no_other_scheme_than_the_request_did() {
        let protos = |head: &RequestHead<'_>, trusted| -> Vec<Vec<u8>> {
            let kept = passed_on(&head.fields, head.names_hop_by_hop, trusted);
            tenfold_http1::find_all(&kept, "x-forwarded-proto").map(<[u8]>::to_vec).collect()
        };
        let limits = tenfold_http1::Limits::default();
        for proto in ["", "X-Forwarded-Proto: http\r\n", "X-Forwarded-Proto: https\r\n"] {
            for trusted in [false, true] {
                let request = request(proto);
                let own = head_of(&request, trusted, false) + "\r\n";
                let (given, _) = tenfold_http1::parse_request(request.as_bytes(), &mut 0, &limits)
                    .expect("valid")
                    .expect("whole");
                let (own, _) = tenfold_http1::parse_request(own.as_bytes(), &mut 0, &limits)
                    .expect("valid")
                    .expect("whole");
                assert_eq!(protos(&given, trusted), protos(&own, true), "{proto} {trusted}");
            }
        }
    }

    #[test]
    fn a_fill_made_from_one_clients_request_keeps_what_we_said_of_its_way() {
        let fields =
            "X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\nIf-None-Match: \"x\"\r\nX-A: 1\r\n";
        let own = head_of(&request(fields), true, false) + "Content-Length: 0\r\n\r\n";
        let (head, _) =
            tenfold_http1::parse_request(own.as_bytes(), &mut 0, &tenfold_http1::Limits::default())
                .expect("valid")
                .expect("whole");
        let mut out = Vec::new();
        write_fill_head(&mut out, &head, false);
        let expected = own.replace("If-None-Match: \"x\"\r\n", "").replace("Content-Length: 0\r\n\r\n", "");
        assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
    }

    #[test]
    fn a_fetch_of_what_we_compress_asks_for_no_coding() {
        let own =
            head_of(&request("Accept-Encoding: gzip\r\naccept_encoding: br\r\nX-A: 1\r\n"), false, false);
        let own = own + "\r\n";
        let limits = tenfold_http1::Limits::default();
        let (head, _) =
            tenfold_http1::parse_request(own.as_bytes(), &mut 0, &limits).expect("valid").expect("whole");
        let mut out = Vec::new();
        write_fill_head(&mut out, &head, true);
        let fill = String::from_utf8(out).expect("ASCII");
        assert!(fill.ends_with("Accept-Encoding: identity\r\n") && fill.contains("X-A: 1\r\n"), "{fill}");
        assert!(!fill.contains("gzip") && !fill.contains("br\r\n"), "{fill}");
    }

    #[test]
    fn a_fetch_for_all_is_a_get() {
        let head = request("").replace("GET", "HEAD");
        assert!(head_of(&head, false, true).starts_with("GET /a?q=1 "));
        assert!(head_of(&head, false, false).starts_with("HEAD /a?q=1 "));
    }

    #[test]
    fn the_cache_is_shown_what_goes_on_and_what_it_really_varies_by() {
        let keep = |fields: &[Field<'static>]| fields_to_keep(fields, true).to_vec();
        let hop: [Field<'_>; 4] = [
            (b"Connection", b"x-hop"),
            (b"X-Hop", b"1"),
            (b"X-Request-Id", b"the origin's"),
            (b"Vary", b"accept"),
        ];
        assert_eq!(keep(&hop), [(b"Vary".as_slice(), b"accept".as_slice())]);
        for vary in ["X-Forwarded-For", "accept, Forwarded", "traceparent", "x-request-id", "*"] {
            assert!(varies_by_each(&[(b"Vary", vary.as_bytes())]), "{vary}");
        }
        assert!(!varies_by_each(&[(b"Vary", b"x-forwarded-proto, x-forwarded-host")]));
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
