//! The primary key: what a request asks for, as bytes.
//!
//! A key is the authority, the path and the query, then what the route's rule adds, each with its length before it, so
//! that no two different requests can spell the same bytes. GET and HEAD share a key; other methods have none. The
//! bytes themselves are compared on a lookup, so hash quality is a matter of speed only; the hash is seeded, so that
//! nobody outside can aim at one shard or slot. Building a key into a reused [`KeyBuf`] does not allocate.
//!
//! Nothing that is not in the key may change what the origin answers: the edge sets or drops such headers
//! (`X-Forwarded-Host` and the like) before the origin sees them.

use crate::policy::fields;
use crate::{Field, KeyPart, Rule};

/// Scratch that holds one key. Reuse it from request to request.
#[derive(Clone, Debug, Default)]
pub struct KeyBuf {
    bytes: Vec<u8>,
    /// Where the part that names the URL ends; what follows comes from the rule.
    url_len: usize,
}

/// Stands for "the request has no such header or cookie", which differs from an empty one.
const ABSENT: u32 = u32::MAX;
/// Marks a part as taken from a header's lines or from a cookie.
const PART_HEADER: u8 = b'h';
const PART_COOKIE: u8 = b'c';

impl KeyBuf {
    /// An empty scratch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the contents with the key of a request.
    ///
    /// `authority` is lower-cased and `path` normalised by the caller; `query` is `None` without a `?`, which differs
    /// from an empty query.
    pub fn build(
        &mut self,
        authority: &[u8],
        path: &[u8],
        query: Option<&[u8]>,
        rule: &Rule,
        request_fields: &[Field<'_>],
    ) {
        self.build_url(authority, path, query);
        for part in rule.key_parts() {
            match part {
                KeyPart::Header(name) => self.push_header(name, request_fields),
                KeyPart::Cookie(name) => self.push_cookie(name, request_fields),
            }
        }
    }

    /// The part of the key that a purge by URL names.
    pub(crate) fn build_url(&mut self, authority: &[u8], path: &[u8], query: Option<&[u8]>) {
        self.bytes.clear();
        self.push(Some(authority));
        self.push(Some(path));
        self.push(query);
        self.url_len = self.bytes.len();
    }

    /// The whole key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key's URL part.
    #[must_use]
    pub fn url_bytes(&self) -> &[u8] {
        &self.bytes[..self.url_len]
    }

    fn push(&mut self, part: Option<&[u8]>) {
        let length =
            part.map_or(ABSENT, |part| u32::try_from(part.len()).map_or(ABSENT - 1, |n| n.min(ABSENT - 1)));
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(part.unwrap_or_default());
    }

    /// All lines of a header, in order. Their count comes first, so that lines cannot be mistaken for commas.
    fn push_header(&mut self, name: &str, request_fields: &[Field<'_>]) {
        self.bytes.push(PART_HEADER);
        self.push(Some(name.as_bytes()));
        let count = fields::lines(request_fields, name.as_bytes()).count();
        self.bytes.extend_from_slice(&u32::try_from(count).unwrap_or(ABSENT).to_le_bytes());
        for line in fields::lines(request_fields, name.as_bytes()) {
            self.push(Some(line));
        }
    }

    /// The first cookie of that name. RFC 6265 §5.4: servers ought not to rely on the order of equal names.
    fn push_cookie(&mut self, name: &str, request_fields: &[Field<'_>]) {
        self.bytes.push(PART_COOKIE);
        self.push(Some(name.as_bytes()));
        self.push(cookie(request_fields, name.as_bytes()));
    }
}

/// A cookie's value, if the request carries it.
fn cookie<'a>(request_fields: &[Field<'a>], name: &[u8]) -> Option<&'a [u8]> {
    fields::lines(request_fields, b"cookie")
        .flat_map(|line| line.split(|&byte| byte == b';'))
        .map(|pair| pair.trim_ascii())
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Override;
    use proptest::prelude::*;

    fn key(authority: &str, path: &str, query: Option<&str>, rule: &Rule, fields: &[Field<'_>]) -> Vec<u8> {
        let mut buf = KeyBuf::new();
        buf.build(authority.as_bytes(), path.as_bytes(), query.map(str::as_bytes), rule, fields);
        assert!(buf.as_bytes().starts_with(buf.url_bytes()));
        buf.as_bytes().to_vec()
    }

    fn keyed(part: KeyPart) -> Rule {
        Rule::Override(Override { key: vec![part], ..Override::default() })
    }

    #[test]
    fn parts_cannot_be_shifted_into_one_another() {
        let plain = Rule::Respect;
        assert_ne!(key("a", "b/c", None, &plain, &[]), key("ab", "/c", None, &plain, &[]));
        assert_ne!(key("a", "/?", None, &plain, &[]), key("a", "/", Some("?"), &plain, &[]));
        assert_ne!(key("a", "/", None, &plain, &[]), key("a", "/", Some(""), &plain, &[]));
    }

    #[test]
    fn a_header_part_keeps_lines_apart_and_tells_absent_from_empty() {
        let rule = keyed(KeyPart::Header("x-tenant".into()));
        let key = |fields: &[Field<'_>]| key("a", "/", None, &rule, fields);
        assert_ne!(key(&[(b"X-Tenant", b"1")]), key(&[(b"X-Tenant", b"2")]));
        assert_eq!(key(&[(b"X-Tenant", b"1")]), key(&[(b"x-tenant", b"1"), (b"accept", b"*/*")]));
        assert_ne!(key(&[]), key(&[(b"X-Tenant", b"")]));
        assert_ne!(key(&[(b"x-tenant", b"1"), (b"x-tenant", b"2")]), key(&[(b"x-tenant", b"1, 2")]));
    }

    #[test]
    fn a_cookie_part_reads_one_cookie() {
        let rule = keyed(KeyPart::Cookie("lang".into()));
        let key = |cookie: &str| key("a", "/", None, &rule, &[(b"Cookie", cookie.as_bytes())]);
        assert_eq!(key("lang=de; sid=1"), key("sid=2;lang=de"));
        assert_ne!(key("lang=de"), key("lang=en"));
        assert_ne!(key("lang="), key("sid=1"));
        assert_eq!(key("xlang=de"), key("sid=1"));
    }

    proptest! {
        #[test]
        fn different_urls_have_different_keys(a in ".{0,8}", b in ".{0,8}", c in ".{0,8}", d in ".{0,8}") {
            let same = a == c && b == d;
            prop_assert_eq!(key(&a, &b, None, &Rule::Respect, &[]) == key(&c, &d, None, &Rule::Respect, &[]), same);
        }
    }
}
