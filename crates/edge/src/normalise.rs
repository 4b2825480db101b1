//! One spelling for each target and host, before anything is decided by them.
//!
//! Routes, cache keys and the node must agree on what was asked for; where they read one request differently, an attacker
//! stands in between. So the path is brought to the normal form of RFC 3986 §6.2.2 once, and from then on that form is
//! matched, keyed and sent.
//!
//! Percent-encodings of unreserved characters are decoded and the others put in upper case; a backslash, which some
//! servers take for a slash, is encoded; dot segments are resolved. `%2F` stays encoded and `//` stays two slashes: to
//! many applications both mean something. What can't be normalised (a bad encoding, an encoded NUL, a path that climbs
//! above its root) is refused: guessing is how filters are walked around. The query is passed on as it came.

use std::net::IpAddr;

use ipnet::IpNet;
use tenfold_cache::policy::path::decode_unreserved;
use tenfold_http1::Field;

use crate::reason::Reason;

/// What was asked for, in normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'t> {
    /// Begins with a slash.
    pub path: &'t str,
    /// What follows the first `?`, as it came.
    pub query: Option<&'t str>,
}

impl Target<'_> {
    /// As it is written, in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.path.len() + self.query.map_or(0, |query| query.len() + 1)
    }
}

/// Brings a path and query as the codec found them to their normal form, without a copy where they already have it.
///
/// # Errors
/// [`Reason::BadTarget`] for what has no normal form.
pub fn normalise<'t>(
    path: &'t [u8],
    query: Option<&'t [u8]>,
    scratch: &'t mut Vec<u8>,
) -> Result<Target<'t>, Reason> {
    if path.first() != Some(&b'/') {
        return Err(Reason::BadTarget);
    }
    let path = if is_normal(path) {
        path
    } else {
        scratch.clear();
        decode_unreserved(path, scratch).ok_or(Reason::BadTarget)?;
        resolve_dots(scratch)?;
        scratch
    };
    Ok(Target { path: text(path)?, query: query.map(text).transpose()? })
}

fn text(bytes: &[u8]) -> Result<&str, Reason> {
    std::str::from_utf8(bytes).map_err(|_| Reason::BadTarget)
}

/// Nothing to decode and no segment that begins with a dot: true of nearly every path there is.
fn is_normal(path: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in path {
        if byte == b'%' || byte == b'\\' || (byte == b'.' && previous == b'/') {
            return false;
        }
        previous = byte;
    }
    true
}

/// RFC 3986 §5.2.4 in place, except that climbing above the root is refused instead of cut off.
fn resolve_dots(path: &mut Vec<u8>) -> Result<(), Reason> {
    let mut read = 0;
    let mut kept = 0;
    while read < path.len() {
        let end = memchr::memchr(b'/', &path[read + 1..]).map_or(path.len(), |at| read + 1 + at);
        let last = end == path.len();
        match &path[read + 1..end] {
            b"." => {}
            b".." => {
                kept = path[..kept].iter().rposition(|&byte| byte == b'/').ok_or(Reason::BadTarget)?;
            }
            _ => {
                path.copy_within(read..end, kept);
                kept += end - read;
                read = end;
                continue;
            }
        }
        if last {
            // A dot segment at the end leaves the folder it stands for.
            path[kept] = b'/';
            kept += 1;
        }
        read = end;
    }
    path.truncate(kept);
    Ok(())
}

/// A name in DNS has at most 253 letters and digits.
const HOST_BYTES_MAX: usize = 255;

/// Lower case, without a last dot and without HTTP's own port. An empty host stays empty.
///
/// # Errors
/// [`Reason::BadHost`] if it is longer than any name, has nothing before its last dot, or isn't ASCII; the codec has
/// checked the rest.
pub fn normalise_host<'h>(given: &'h [u8], scratch: &'h mut Vec<u8>) -> Result<&'h str, Reason> {
    let host = given.strip_suffix(b":80").or_else(|| given.strip_suffix(b":")).unwrap_or(given);
    let host = host.strip_suffix(b".").unwrap_or(host);
    if host.len() > HOST_BYTES_MAX || host.is_empty() != given.is_empty() || host.ends_with(b".") {
        return Err(Reason::BadHost);
    }
    let host = if host.iter().any(u8::is_ascii_uppercase) {
        scratch.clear();
        scratch.extend(host.iter().map(u8::to_ascii_lowercase));
        scratch
    } else {
        host
    };
    std::str::from_utf8(host).map_err(|_| Reason::BadHost)
}

/// Who is asking: the peer, or, where the peer is a proxy of ours, the nearest address to us in `X-Forwarded-For` (or
/// else `Forwarded`) that is not such a proxy. What stands further left was written by strangers.
#[must_use]
pub fn client_ip(peer: IpAddr, fields: &[Field<'_>], trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if trusted.is_empty() || !is_trusted(peer, trusted) {
        return peer;
    }
    let by_name =
        |name: &'static [u8]| fields.iter().rev().filter(move |(n, _)| n.eq_ignore_ascii_case(name));
    let listed = by_name(b"x-forwarded-for").flat_map(|(_, value)| value.rsplit(|&b| b == b','));
    let client = nearest_stranger(peer, listed.map(parse_address), trusted);
    if client != peer {
        return client;
    }
    let listed = by_name(b"forwarded").flat_map(|(_, value)| value.rsplit(|&b| b == b','));
    nearest_stranger(peer, listed.map(|element| forwarded_for(element).and_then(parse_address)), trusted)
}

/// Whether `address` belongs to a proxy whose word is taken.
#[must_use]
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address.to_canonical()))
}

/// Walks from the nearest hop outwards. An unreadable hop ends the walk: nothing beyond it can be believed.
fn nearest_stranger(peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>, trusted: &[IpNet]) -> IpAddr {
    let mut nearest = peer;
    for hop in hops {
        let Some(hop) = hop else { break };
        nearest = hop;
        if !is_trusted(hop, trusted) {
            break;
        }
    }
    nearest
}

fn forwarded_for(element: &[u8]) -> Option<&[u8]> {
    element.split(|&b| b == b';').find_map(|pair| {
        let pair = pair.trim_ascii();
        let (name, value) = pair.split_at_checked(4)?;
        let quoted = name.eq_ignore_ascii_case(b"for=").then_some(value)?;
        Some(quoted.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(quoted))
    })
}

/// An address, perhaps with a port, perhaps in brackets.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']')?.0.parse::<IpAddr>().ok().map(|a| a.to_canonical());
    }
    text.parse::<std::net::SocketAddr>().ok().map(|a| a.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(target: &str, path: &str) {
        let mut scratch = Vec::new();
        let found = normalise(target.as_bytes(), None, &mut scratch).map(|target| target.path.to_owned());
        assert_eq!(found.as_deref(), Ok(path), "{target}");
    }

    fn refused(target: &str) {
        assert_eq!(normalise(target.as_bytes(), None, &mut Vec::new()), Err(Reason::BadTarget), "{target}");
    }

    #[test]
    fn a_path_has_one_spelling() {
        check("/", "/");
        check("/a/b", "/a/b");
        check("/%7Euser/%61", "/~user/a");
        check("/a%2fb", "/a%2Fb");
        check("/a//b", "/a//b");
        check("/caf%c3%a9", "/caf%C3%A9");
        check("/a%25b", "/a%25b");
        check("/a\\b", "/a%5Cb");
        check("/.well-known/x", "/.well-known/x");
        check("/a/...", "/a/...");
    }

    #[test]
    fn dot_segments_are_resolved() {
        check("/a/./b", "/a/b");
        check("/a/../b", "/b");
        check("/a/b/..", "/a/");
        check("/a/.", "/a/");
        check("/./a", "/a");
        check("/a/%2e%2e/b", "/b");
        check("/a/.%2E/", "/");
        check("/a//../b", "/a/b");
        check("/.", "/");
    }

    #[test]
    fn what_has_no_normal_form_is_refused() {
        for target in ["", "a", "/%", "/%4", "/%zz", "/%00", "/..", "/../etc", "/a/../..", "/%2e%2e/x"] {
            refused(target);
        }
    }

    #[test]
    fn the_query_is_left_alone() {
        let mut scratch = Vec::new();
        let target = normalise(b"/a/../b", Some(b"x=%7E&y=/../"), &mut scratch).expect("normal");
        assert_eq!(target, Target { path: "/b", query: Some("x=%7E&y=/../") });
    }

    #[test]
    fn a_host_has_one_spelling() {
        for (given, host) in [
            ("Shop.Example", "shop.example"),
            ("shop.example:80", "shop.example"),
            ("shop.example:8080", "shop.example:8080"),
            ("shop.example.", "shop.example"),
            ("[::1]:80", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(normalise_host(given.as_bytes(), &mut Vec::new()), Ok(host));
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = "a".repeat(HOST_BYTES_MAX + 1);
        for host in [".", "..", ".:80", ":80", ":", "a..", &long] {
            assert_eq!(normalise_host(host.as_bytes(), &mut Vec::new()), Err(Reason::BadHost), "{host}");
        }
        assert!(normalise_host(&long.as_bytes()[1..], &mut Vec::new()).is_ok());
    }

    fn client(peer: &str, fields: &[(&str, &str)]) -> String {
        let fields: Vec<Field<'_>> = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let trusted = ["10.0.0.0/8".parse().expect("net"), "fd00::/8".parse().expect("net")];
        client_ip(peer.parse().expect("address"), &fields, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_name_the_client() {
        assert_eq!(client("192.0.2.1", &[("X-Forwarded-For", "198.51.100.7")]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &[("X-Forwarded-For", "198.51.100.7")]), "198.51.100.7");
        assert_eq!(client("::ffff:10.0.0.1", &[("x-forwarded-for", "198.51.100.7")]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_strangers_wrote_further_left_is_not_believed() {
        assert_eq!(
            client("10.0.0.1", &[("X-Forwarded-For", "1.1.1.1, 198.51.100.7, 10.0.0.2")]),
            "198.51.100.7"
        );
        assert_eq!(
            client("10.0.0.1", &[("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "10.0.0.3")]),
            "1.1.1.1"
        );
        assert_eq!(client("10.0.0.1", &[("X-Forwarded-For", "1.1.1.1, junk, 10.0.0.3")]), "10.0.0.3");
    }

    #[test]
    fn forwarded_is_read_where_the_older_field_is_missing() {
        assert_eq!(
            client("10.0.0.1", &[("Forwarded", "for=192.0.2.60;proto=http;by=10.0.0.1")]),
            "192.0.2.60"
        );
        assert_eq!(client("10.0.0.1", &[("Forwarded", "For=\"[2001:db8::1]:4711\"")]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &[("Forwarded", "for=_hidden")]), "10.0.0.1");
    }

    proptest! {
        #[test]
        fn the_normal_form_is_its_own_normal_form(target in "/[a-c./%2eEfF\\\\]{0,24}") {
            let mut first = Vec::new();
            if let Ok(once) = normalise(target.as_bytes(), None, &mut first) {
                let path = once.path.to_owned();
                prop_assert!(!path.split('/').any(|s| s == "." || s == ".."));
                let mut second = Vec::new();
                prop_assert_eq!(normalise(path.as_bytes(), None, &mut second).map(|t| t.path.to_owned()), Ok(path));
            }
        }
    }
}
