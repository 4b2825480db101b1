//! The primary key: what a request asks for, as bytes.
//!
//! A key is the authority, the path and the query, then the scheme, then what the route adds, each with its
//! length before it, so that no two different requests can spell the same bytes. GET and HEAD share a key; other methods
//! have none. The bytes themselves are compared on a lookup, so hash quality is a matter of speed only; the hash is
//! seeded, so that nobody outside can aim at one shard or slot. Building a key into a reused [`KeyBuf`] does not allocate.
//!
//! Nothing that is not in the key may change what the origin answers: the edge sets or drops such headers
//! (`X-Forwarded-Host` and the like) before the origin sees them. Where origins read a field in more ways than one (a
//! cookie twice, `X_Tenant` for `X-Tenant`), every reading is in the key, so that what one client sends cannot be stored
//! as the answer to what another sends.

use crate::policy::{RequestFacts, fields};
use crate::rule::Effective;
use crate::{Field, KeyPart, Override, Rule};

/// Scratch that holds one key. Reuse it from request to request.
#[derive(Clone, Debug, Default)]
pub struct KeyBuf {
    bytes: Vec<u8>,
    /// Where the part that names the URL for a purge ends; the scheme and what the rule adds follow.
    url_len: usize,
}

/// What a request names, in normal form.
#[derive(Clone, Copy, Debug)]
pub struct KeyUrl<'a> {
    /// What the origin is told the client used: an origin may redirect `http` to `https`, so it steers the answer.
    pub scheme: Scheme,
    /// Lower-cased.
    pub authority: &'a [u8],
    /// Normalised.
    pub path: &'a [u8],
    /// `None` without a `?`, which differs from an empty query.
    pub query: Option<&'a [u8]>,
    /// What beside the URL chose who answers, as any bytes: the conditions of a route that asks for certain headers.
    /// Else empty.
    pub chosen_by: &'a [u8],
}

/// How the client came, as the origin is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// `http`.
    #[default]
    Http,
    /// `https`, ended by a trusted proxy before us.
    Https,
}

/// Stands for "the request has no such part", which differs from an empty one.
const ABSENT: u32 = u32::MAX;
/// Marks a part as taken from a header's lines or from a cookie.
const PART_HEADER: u8 = b'h';
const PART_COOKIE: u8 = b'c';
/// Marks what beside the URL chose who answers.
const CHOSEN_BY: u8 = b'r';
/// Marks the key of a request that the route's override does not cover, see [`KeyBuf::build`].
const UNCOVERED: u8 = b'u';

impl KeyBuf {
    /// An empty scratch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the contents with the key of a request.
    ///
    /// Requests that an override covers and those that fall back to the origin's word have keys of their own: what is
    /// stored for one kind is judged by that kind's rule, and never replaced or removed by an answer to the other.
    pub fn build(&mut self, url: &KeyUrl<'_>, facts: &RequestFacts<'_>, rule: &Rule) {
        self.build_url(url.authority, url.path, url.query);
        self.bytes.push(match url.scheme {
            Scheme::Http => b'p',
            Scheme::Https => b's',
        });
        if !url.chosen_by.is_empty() {
            self.bytes.push(CHOSEN_BY);
            self.push(Some(url.chosen_by));
        }
        if rule.options().is_some_and(Override::gives_lifetimes)
            && rule.effective(facts) == Effective::Respect(None)
        {
            self.bytes.push(UNCOVERED);
        }
        for part in rule.key_parts() {
            match part {
                KeyPart::Header(name) => self.push_header(name, facts.fields),
                KeyPart::Cookie(name) => self.push_cookie(name, facts.fields),
            }
        }
    }

    /// The part of the key that a purge by URL names, whatever the scheme.
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

    fn push_count(&mut self, count: usize) {
        self.bytes.extend_from_slice(&u32::try_from(count).unwrap_or(ABSENT).to_le_bytes());
    }

    /// All lines of a header, in order. Their count comes first, so that lines cannot be mistaken for commas. A name
    /// that a gateway would read as the same (`X_Tenant`) counts too, and is told apart: some origins drop it.
    fn push_header(&mut self, name: &str, request_fields: &[Field<'_>]) {
        self.bytes.push(PART_HEADER);
        self.push(Some(name.as_bytes()));
        let lines = || request_fields.iter().filter(|(other, _)| is_read_as(other, name.as_bytes(), b"-_"));
        self.push_count(lines().count());
        for (other, line) in lines() {
            self.bytes.push(u8::from(other.eq_ignore_ascii_case(name.as_bytes())));
            self.push(Some(line));
        }
    }

    /// All pairs that some origin could take for the cookie, whole: parsers differ on which of two counts, on blanks
    /// around `=`, on commas between pairs, and on `.` or a blank for `_`. RFC 6265 §4.2.2 warns of the first.
    fn push_cookie(&mut self, name: &str, request_fields: &[Field<'_>]) {
        self.bytes.push(PART_COOKIE);
        self.push(Some(name.as_bytes()));
        let pairs = || {
            fields::lines(request_fields, b"cookie")
                .flat_map(|line| line.split(|&byte| byte == b';'))
                .map(<[u8]>::trim_ascii)
                .filter(|pair| holds_cookie(pair, name.as_bytes()))
        };
        self.push_count(pairs().count());
        for pair in pairs() {
            self.push(Some(pair));
        }
    }
}

/// What a key says of its URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UrlParts<'k> {
    pub(crate) authority: &'k [u8],
    pub(crate) path: &'k [u8],
    pub(crate) query: Option<&'k [u8]>,
}

impl<'k> UrlParts<'k> {
    /// Of a key's bytes; empty where they are none.
    pub(crate) fn of(key: &'k [u8]) -> Self {
        let read = || {
            let (authority, rest) = split_part(key)?;
            let (path, rest) = split_part(rest)?;
            let (query, _) = split_part(rest)?;
            Some(Self { authority: authority?, path: path?, query })
        };
        read().unwrap_or(Self { authority: b"", path: b"", query: None })
    }
}

/// The first part, if it is there at all, and what follows.
fn split_part(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    match u32::from_le_bytes(*length) {
        ABSENT => Some((None, rest)),
        length => rest.split_at_checked(length as usize).map(|(part, rest)| (Some(part), rest)),
    }
}

/// Whether one of the pieces between commas is named so.
fn holds_cookie(pair: &[u8], name: &[u8]) -> bool {
    pair.split(|&byte| byte == b',').any(|piece| {
        let end = memchr::memchr(b'=', piece).unwrap_or(piece.len());
        is_read_as(piece[..end].trim_ascii(), name, b"_. ")
    })
}

/// Whether a name is the keyed one in any case, with the `alike` bytes standing for one another.
fn is_read_as(name: &[u8], keyed: &[u8], alike: &[u8]) -> bool {
    let same = |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b) || alike.contains(a) && alike.contains(b);
    name.len() == keyed.len() && name.iter().zip(keyed).all(same)
}

/// Whether some origins would read one field's name as another's that it isn't: gateways to CGI, WSGI and Rack turn both
/// `X-Tenant` and `X_Tenant` into `X_TENANT`. Any case.
pub(crate) fn is_alias(name: &[u8], of: &[u8]) -> bool {
    is_read_as(name, of, b"-_") && !name.eq_ignore_ascii_case(of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn build(url: &KeyUrl<'_>, rule: &Rule, fields: &[Field<'_>]) -> KeyBuf {
        let mut buf = KeyBuf::new();
        buf.build(url, &RequestFacts::read("GET", fields), rule);
        assert!(buf.as_bytes().starts_with(buf.url_bytes()));
        buf
    }

    fn key(authority: &str, path: &str, query: Option<&str>, rule: &Rule, fields: &[Field<'_>]) -> Vec<u8> {
        let (authority, path, query) = (authority.as_bytes(), path.as_bytes(), query.map(str::as_bytes));
        let url = KeyUrl { scheme: Scheme::Http, authority, path, query, chosen_by: b"" };
        build(&url, rule, fields).as_bytes().to_vec()
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
    fn a_key_says_what_it_is_of() {
        for query in [None, Some(""), Some("a=b")] {
            let key = key("shop.example", "/a", query, &Rule::Respect, &[]);
            let query = query.map(str::as_bytes);
            assert_eq!(UrlParts::of(&key), UrlParts { authority: b"shop.example", path: b"/a", query });
        }
        assert_eq!(UrlParts::of(b"\xff\xff\xff\x7f"), UrlParts { authority: b"", path: b"", query: None });
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
    fn a_header_that_some_origins_read_as_the_keyed_one_is_in_the_key() {
        let rule = keyed(KeyPart::Header("x-tenant".into()));
        let key = |fields: &[Field<'_>]| key("a", "/", None, &rule, fields);
        let plain = key(&[(b"X-Tenant", b"1")]);
        assert_ne!(key(&[(b"X-Tenant", b"1"), (b"X_Tenant", b"2")]), plain);
        assert_ne!(key(&[(b"X_Tenant", b"1")]), plain, "other origins drop it");
        assert_ne!(key(&[(b"X_Tenant", b"1")]), key(&[]));
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

    #[test]
    fn every_pair_that_an_origin_could_take_for_the_cookie_is_in_the_key() {
        let rule = keyed(KeyPart::Cookie("user_lang".into()));
        let key = |cookie: &str| key("a", "/", None, &rule, &[(b"Cookie", cookie.as_bytes())]);
        let plain = key("user_lang=de");
        for other in [
            "user_lang=de; user_lang=en",
            "user_lang=en; user_lang=de",
            "user_lang=de; user_lang =en",
            "user_lang=de; User_Lang=en",
            "user_lang=de; user.lang=en",
            "user_lang=de; user_lang",
            "user_lang=de; sid=1, user_lang=en",
            "user_lang=de,user_lang=en",
            "user_lang=de,x",
        ] {
            assert_ne!(key(other), plain, "{other}");
        }
        assert_ne!(key("user_lang =de"), key("sid=1"));
        assert_ne!(key("user_lang"), key("sid=1"));
    }

    #[test]
    fn the_scheme_and_the_route_s_conditions_are_in_the_key_but_not_in_what_a_purge_names() {
        let url = KeyUrl { scheme: Scheme::Http, authority: b"a", path: b"/", query: None, chosen_by: b"" };
        let http = build(&url, &Rule::Respect, &[]);
        for other in [KeyUrl { scheme: Scheme::Https, ..url }, KeyUrl { chosen_by: b"x-beta: 1", ..url }] {
            let other = build(&other, &Rule::Respect, &[]);
            assert_ne!(http.as_bytes(), other.as_bytes());
            assert_eq!(http.url_bytes(), other.url_bytes());
        }
    }

    #[test]
    fn requests_that_an_override_does_not_cover_have_keys_of_their_own() {
        let user: [Field<'_>; 1] = [(b"Cookie", b"sid=1")];
        let of = |rule: Override, fields: &[Field<'_>]| key("a", "/", None, &Rule::Override(rule), fields);
        let ttl = || Override { ttl: Some(std::time::Duration::ZERO), ..Override::default() };
        assert_ne!(of(ttl(), &user), of(ttl(), &[]));
        let guess = || Override { heuristic: true, ..Override::default() };
        assert_eq!(of(guess(), &user), of(guess(), &[]), "what is guessed is marked, not kept apart");
        let shared = || Override { shared: true, ..ttl() };
        assert_eq!(of(shared(), &user), of(shared(), &[]));
        assert_eq!(key("a", "/", None, &Rule::Respect, &user), key("a", "/", None, &Rule::Respect, &[]));
        // A reload that adds or removes an override finds what is stored for requests without credentials.
        assert_eq!(of(ttl(), &[]), key("a", "/", None, &Rule::Respect, &[]));
    }

    proptest! {
        #[test]
        fn different_urls_have_different_keys(a in ".{0,8}", b in ".{0,8}", c in ".{0,8}", d in ".{0,8}") {
            let same = a == c && b == d;
            prop_assert_eq!(key(&a, &b, None, &Rule::Respect, &[]) == key(&c, &d, None, &Rule::Respect, &[]), same);
        }
    }
}
