//! What an unsafe method makes out of date. RFC 9111 §4.4.
//!
//! A successful write changes its own URL, and what `Location` and `Content-Location` name if they are of the same
//! authority. Other authorities' URLs are left alone: a response must not be able to empty somebody else's cache. What is
//! named comes in the origin's own spelling and is brought to the normal form that keys have; what has none names nothing
//! that could be stored.

use super::fields;
use super::path::decode_unreserved;
use super::request::MethodKind;
use crate::Field;

/// Whether a response to this method makes its URL out of date: an unsafe method, and not an error.
#[must_use]
pub const fn invalidates(method: MethodKind, status: u16) -> bool {
    matches!(method, MethodKind::Unsafe) && matches!(status, 200..=399)
}

/// A path in normal form and a query on the same authority.
pub type Target<'a> = (Vec<u8>, Option<&'a [u8]>);

/// What `Location` and `Content-Location` name on the same authority.
pub fn named_targets<'a>(
    response_fields: &'a [Field<'a>],
    authority: &'a [u8],
    base_path: &'a [u8],
) -> impl Iterator<Item = Target<'a>> {
    [&b"location"[..], b"content-location"]
        .into_iter()
        .flat_map(|name| fields::lines(response_fields, name))
        .filter_map(move |reference| resolve(reference, authority, base_path))
}

/// Resolves a reference against the request's URL, with its path in normal form; `None` for another authority, and for a
/// path that has no normal form. RFC 3986 §5.2.
pub(crate) fn resolve<'a>(reference: &'a [u8], authority: &[u8], base_path: &[u8]) -> Option<Target<'a>> {
    let reference = reference.split(|&byte| byte == b'#').next()?;
    let rest = strip_authority(reference, authority)?;
    let (path, query) = match memchr::memchr(b'?', rest) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    if path.is_empty() {
        let root = rest.len() != reference.len();
        return Some((if root { b"/".to_vec() } else { base_path.to_vec() }, query));
    }
    let folder = if path.starts_with(b"/") {
        &b""[..]
    } else {
        memchr::memrchr(b'/', base_path).map_or(&b"/"[..], |at| &base_path[..=at])
    };
    let mut decoded = folder.to_vec();
    decode_unreserved(path, &mut decoded)?;
    Some((without_dots(&decoded), query))
}

/// What follows the authority, if that is ours or not given.
fn strip_authority<'a>(reference: &'a [u8], authority: &[u8]) -> Option<&'a [u8]> {
    let named = [("http://", ":80"), ("https://", ":443"), ("//", ":80")];
    let after_scheme = named.into_iter().find_map(|(prefix, port)| {
        let (start, rest) = reference.split_at_checked(prefix.len())?;
        start.eq_ignore_ascii_case(prefix.as_bytes()).then_some((rest, port.as_bytes()))
    });
    let Some((rest, port)) = after_scheme else {
        let first = reference.split(|&byte| byte == b'/').next().unwrap_or_default();
        return (!first.contains(&b':')).then_some(reference);
    };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (named, rest) = rest.split_at(end);
    without_port(named, port).eq_ignore_ascii_case(without_port(authority, port)).then_some(rest)
}

/// An authority without what may be left out of it: its scheme's own port, and a last dot. RFC 3986 §6.2.3.
fn without_port<'h>(authority: &'h [u8], port: &[u8]) -> &'h [u8] {
    let host = authority.strip_suffix(port).or_else(|| authority.strip_suffix(b":")).unwrap_or(authority);
    host.strip_suffix(b".").unwrap_or(host)
}

/// Removes dot segments. RFC 3986 §5.2.4.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut ends_in_folder = false;
    for segment in path.split(|&byte| byte == b'/').skip(1) {
        ends_in_folder = matches!(segment, b"." | b"..");
        match segment {
            b"." => {}
            b".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    if ends_in_folder {
        kept.push(b"");
    }
    let mut out = vec![b'/'];
    out.extend_from_slice(&kept.join(&b'/'));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reference: &str, expected: Option<(&str, Option<&str>)>) {
        let fields: [Field<'_>; 1] = [(b"Location", reference.as_bytes())];
        let found = named_targets(&fields, b"shop.example", b"/cart/items?").next();
        let found = found.map(|(path, query)| {
            (String::from_utf8(path).unwrap(), query.map(|q| String::from_utf8(q.to_vec()).unwrap()))
        });
        let expected = expected.map(|(path, query)| (path.to_owned(), query.map(str::to_owned)));
        assert_eq!(found, expected, "{reference}");
    }

    #[test]
    fn references_to_the_same_authority_are_resolved() {
        check("/a?b=1#c", Some(("/a", Some("b=1"))));
        check("https://shop.example/a", Some(("/a", None)));
        check("HTTP://SHOP.example/a?", Some(("/a", Some(""))));
        check("//shop.example", Some(("/", None)));
        check("https://shop.example?x", Some(("/", Some("x"))));
        check("7", Some(("/cart/7", None)));
        check("../orders/7", Some(("/orders/7", None)));
        check("./", Some(("/cart/", None)));
        check("../../../x", Some(("/x", None)));
    }

    #[test]
    fn what_is_named_has_the_spelling_of_keys() {
        check("/items/caf%c3%a9", Some(("/items/caf%C3%A9", None))); // RFC 3986 §6.2.2
        check("/items/%7e7/%2fx", Some(("/items/~7/%2Fx", None)));
        check("/a/./b/../c", Some(("/a/c", None)));
        check("/a/%2e%2e/b?x=/../%7e", Some(("/b", Some("x=/../%7e"))));
        check("caf%c3%a9/../7", Some(("/cart/7", None)));
        check("http://shop.example:80/x", Some(("/x", None))); // §6.2.3
        check("https://shop.example:443/x", Some(("/x", None)));
        check("//Shop.Example.:/x", Some(("/x", None)));
        check("http://shop.example:443/x", None);
        check("/%zz", None);
    }

    #[test]
    fn other_authorities_are_left_alone() {
        check("https://evil.example/a", None); // §4.4: same origin only
        check("//evil.example/a", None);
        check("https://shop.example.evil/a", None);
        check("https://shop.example:8443/a", None);
        check("mailto:x", None);
    }

    #[test]
    fn only_unsafe_methods_that_succeed_invalidate() {
        let check = |method: &str, status: u16, expected: bool| {
            assert_eq!(invalidates(MethodKind::read(method), status), expected, "{method} {status}");
        };
        check("POST", 200, true);
        check("PUT", 201, true);
        check("DELETE", 204, true);
        check("POST", 303, true);
        check("PURGE", 200, true); // unknown methods are unsafe
        check("POST", 400, false);
        check("POST", 500, false);
        check("GET", 200, false);
        check("OPTIONS", 200, false);
    }
}
