//! Content codings: which a request accepts, and which responses may be given one. RFC 9110 §8.4, §12.5.3.
//!
//! **Intuition.** Text shrinks to a quarter, and most of what an API says is text. A stored response is compressed once
//! and then sent so to all who take it; who doesn't gets it as it came.
//!
//! **Mechanism.** [`Transform`] says of a stored head whether its body may be given a coding: a whole 200 of a kind that
//! shrinks, not encoded already, not `no-transform`. [`Accepted`] reads what a request takes. Weights count (`q=0` is a
//! refusal, `*` stands for what is not named), and among codings that are liked alike the operator's order decides. Without
//! `Accept-Encoding` any coding would be acceptable; who doesn't ask gets none.
//!
//! **Failure.** A member that can't be read counts as not there. Where nothing that is acceptable can be made, the
//! response goes out without a coding, as §12.5.3 says. A response that sets a cookie is left alone unless the operator
//! asks: where a secret and what an attacker chose are compressed together, the length tells (BREACH).

use std::sync::Arc;

use super::accept::thousandths;
use super::fields;
use crate::Field;

/// A way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878, with a window that RFC 9659 allows.
    Zstd,
    /// RFC 1952.
    Gzip,
}

/// How a route compresses what it stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compress {
    /// What it offers, the best first.
    pub codings: Arc<[Coding]>,
    /// Shorter bodies are left alone, in bytes.
    pub size_min: u64,
    /// What sets a cookie is compressed too.
    pub set_cookie: bool,
}

/// What a request accepts, in thousandths; 0 is a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    weights: [u32; Coding::ALL.len()],
    identity: u32,
}

/// What a stored head says of compressing its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transform {
    /// Its body may be given a coding, and is of a kind that shrinks.
    pub is_allowed: bool,
    /// Its `Vary` names `Accept-Encoding` already.
    pub names_encoding: bool,
    /// It sets a cookie.
    pub sets_cookie: bool,
}

impl Coding {
    /// Every coding; the order is only that of their bits and of the default preference.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// As in `Content-Encoding`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// By its name in any case. `x-gzip` is `gzip` (§8.4.1.3).
    #[must_use]
    pub fn read(name: &[u8]) -> Option<Self> {
        let named = |coding: &Self| name.eq_ignore_ascii_case(coding.as_str().as_bytes());
        Self::ALL
            .into_iter()
            .find(named)
            .or_else(|| name.eq_ignore_ascii_case(b"x-gzip").then_some(Self::Gzip))
    }

    const fn index(self) -> usize {
        match self {
            Self::Brotli => 0,
            Self::Zstd => 1,
            Self::Gzip => 2,
        }
    }

    /// A bit of its own.
    pub(crate) const fn bit(self) -> u8 {
        1 << self.index()
    }
}

impl Default for Compress {
    fn default() -> Self {
        Self { codings: Coding::ALL.into(), size_min: 1 << 10, set_cookie: false }
    }
}

impl Compress {
    /// Whether a stored response is offered in codings: then what it is sent as depends on `Accept-Encoding`, and it has
    /// to say so. `length` is the body's, where it is known.
    #[must_use]
    pub fn covers(&self, transform: Transform, length: Option<u64>) -> bool {
        transform.is_allowed
            && length.is_none_or(|length| length >= self.size_min)
            && (self.set_cookie || !transform.sets_cookie)
    }
}

impl Accepted {
    /// Reads a request's `Accept-Encoding`; `None` if it has none, or an empty one.
    #[must_use]
    pub fn read(request_fields: &[Field<'_>]) -> Option<Self> {
        let mut named = [None; Coding::ALL.len()];
        let (mut identity, mut others, mut any) = (None, None, false);
        for member in fields::lines(request_fields, b"accept-encoding").flat_map(fields::members) {
            let Some((name, weight)) = read_member(member) else { continue };
            any = true;
            if let Some(coding) = Coding::read(name) {
                lower(&mut named[coding.index()], weight);
            } else if name.eq_ignore_ascii_case(b"identity") {
                lower(&mut identity, weight);
            } else if name == b"*" {
                lower(&mut others, weight);
            }
        }
        // Not named, it is acceptable, and liked least, unless `*;q=0` refuses it.
        let identity = identity.unwrap_or(if others == Some(0) { 0 } else { 1 });
        any.then(|| Self { weights: named.map(|weight| weight.or(others).unwrap_or(0)), identity })
    }

    /// Whether it takes a body without a coding.
    #[must_use]
    pub fn takes_identity(&self) -> bool {
        self.identity > 0
    }

    /// The best of these codings: the one it likes most, the earliest of several; `None` if it likes none, or would
    /// rather have no coding.
    #[must_use]
    pub fn best(&self, codings: impl IntoIterator<Item = Coding>) -> Option<Coding> {
        let mut best: Option<(u32, Coding)> = None;
        for coding in codings {
            let weight = self.weights[coding.index()];
            let better = best.is_none_or(|(other, _)| weight > other);
            if weight > 0 && weight >= self.identity && better {
                best = Some((weight, coding));
            }
        }
        best.map(|(_, coding)| coding)
    }
}

/// Of two weights for one name the lower counts, so that the order of members says nothing and a refusal holds.
fn lower(weight: &mut Option<u32>, other: u32) {
    *weight = Some(weight.map_or(other, |weight| weight.min(other)));
}

/// `gzip;q=0.5`: the name and its weight in thousandths. §12.4.2.
fn read_member(member: &[u8]) -> Option<(&[u8], u32)> {
    let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let Some(parameter) = parts.next() else { return Some((name, 1000)) };
    if parts.next().is_some() {
        return None;
    }
    let (q, weight) = parameter.split_at_checked(2)?;
    let weight = thousandths(weight).filter(|_| q.eq_ignore_ascii_case(b"q="))?;
    Some((name, weight))
}

impl Transform {
    /// Of a head as it is stored.
    #[must_use]
    pub fn of(status: u16, head_fields: &[Field<'_>]) -> Self {
        let mut lines = fields::lines(head_fields, b"content-type");
        let shrinks = lines.next().is_some_and(shrinks) && lines.next().is_none();
        let has = |name: &[u8]| fields::lines(head_fields, name).next().is_some();
        let forbidden = [&b"cache-control"[..], b"cdn-cache-control", b"tenfold-cache-control"]
            .into_iter()
            .flat_map(|name| fields::lines(head_fields, name).flat_map(fields::members))
            .any(|directive| directive.eq_ignore_ascii_case(b"no-transform"));
        let names_encoding = fields::lines(head_fields, b"vary")
            .flat_map(fields::members)
            .any(|name| name.eq_ignore_ascii_case(b"accept-encoding"));
        Self {
            is_allowed: status == 200
                && shrinks
                && !forbidden
                && !is_encoded(head_fields)
                && !has(b"content-range"),
            names_encoding,
            sets_cookie: has(b"set-cookie"),
        }
    }
}

/// Whether a response came with a coding of the origin's.
#[must_use]
pub fn is_encoded(response_fields: &[Field<'_>]) -> bool {
    fields::lines(response_fields, b"content-encoding")
        .flat_map(fields::members)
        .any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

/// Whether bodies of a type are text of some kind, or else known to shrink. Pictures, films and archives don't.
fn shrinks(content_type: &[u8]) -> bool {
    const NAMES: [&[u8]; 14] = [
        b"application/json",
        b"application/javascript",
        b"application/x-javascript",
        b"application/xml",
        b"application/wasm",
        b"application/graphql",
        b"application/x-ndjson",
        b"application/vnd.ms-fontobject",
        b"application/rtf",
        b"font/ttf",
        b"font/otf",
        b"image/svg+xml",
        b"image/bmp",
        b"image/x-icon",
    ];
    let essence = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let starts = |prefix: &[u8]| essence.get(..prefix.len()).is_some_and(|s| s.eq_ignore_ascii_case(prefix));
    let ends = |suffix: &[u8]| {
        let start = essence.len().checked_sub(suffix.len());
        start.and_then(|start| essence.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    // Server-sent events never end, so they are never stored; should one end, it is no page that is fetched again.
    starts(b"text/") && !starts(b"text/event-stream")
        || ends(b"+json")
        || ends(b"+xml")
        || NAMES.iter().any(|name| essence.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn best(accept: Option<&str>) -> &'static str {
        let fields: Vec<Field<'_>> =
            accept.iter().map(|value| (&b"Accept-Encoding"[..], value.as_bytes())).collect();
        let accepted = Accepted::read(&fields);
        accepted.and_then(|accepted| accepted.best(Coding::ALL)).map_or("identity", Coding::as_str)
    }

    #[test]
    fn weights_decide_then_the_order_offered() {
        let check = |accept: &str, expected: &str| assert_eq!(best(Some(accept)), expected, "{accept}");
        assert_eq!(best(None), "identity"); // who doesn't ask gets none
        check("gzip, deflate, br, zstd", "br"); // RFC 9110 §12.5.3
        check("gzip, zstd", "zstd");
        check("gzip", "gzip");
        check("GZIP", "gzip"); // §8.4.1: in any case
        check("x-gzip", "gzip"); // §8.4.1.3
        check("br;q=0.5, gzip;q=0.8", "gzip");
        check("br;q=0, *", "zstd");
        check("*", "br");
        check("*;q=0", "identity");
        check("gzip;q=0", "identity");
        check("gzip;q=0, *;q=0.1", "br");
        check("", "identity"); // §12.5.3: an empty field
        check("identity", "identity");
        check("identity;q=1, gzip;q=0.5", "identity");
        check("identity;q=0.5, gzip;q=0.5", "gzip");
        check("gzip;q=0.001", "gzip");
        check("deflate", "identity");
        check("gzip;q=2", "identity"); // §12.4.2: no weight
        check("gzip;level=9", "identity");
        check("br ; q=1.0,gzip", "br");
        check("gzip;q=0, gzip", "identity"); // of two weights the lower, in any order
        check("gzip, br;q=0.5, br, gzip;q=0", "br");
        check("gzip;q=1;q=0.5", "identity"); // §12.5.3: one weight and nothing else
    }

    #[test]
    fn identity_is_acceptable_unless_it_is_refused() {
        let check = |accept: &str, expected: bool| {
            let fields: [Field<'_>; 1] = [(b"Accept-Encoding", accept.as_bytes())];
            let takes = Accepted::read(&fields).is_none_or(|accepted| accepted.takes_identity());
            assert_eq!(takes, expected, "{accept}");
        };
        check("gzip", true); // §12.5.3
        check("", true);
        check("gzip, identity;q=0", false);
        check("gzip, *;q=0", false);
        check("identity, *;q=0", true);
        check("*;q=0.1", true);
    }

    #[test]
    fn only_whole_text_that_may_be_changed_is_given_a_coding() {
        let check = |status: u16, head: &[(&str, &str)], expected: bool| {
            let fields: Vec<Field<'_>> = head.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            assert_eq!(Transform::of(status, &fields).is_allowed, expected, "{status} {head:?}");
        };
        let json = ("Content-Type", "application/json; charset=utf-8");
        check(200, &[json], true);
        check(200, &[("content-type", "TEXT/HTML")], true);
        check(200, &[("content-type", "application/problem+json")], true);
        check(200, &[("content-type", "image/svg+xml")], true);
        check(200, &[("content-type", "image/png")], false);
        check(200, &[("content-type", "text/event-stream")], false);
        check(200, &[("content-type", "application/zip")], false);
        check(200, &[], false);
        check(200, &[json, json], false);
        check(404, &[json], false);
        check(206, &[json, ("Content-Range", "bytes 0-1/2")], false);
        check(200, &[json, ("Content-Encoding", "gzip")], false);
        check(200, &[json, ("Content-Encoding", "identity")], true);
        check(200, &[json, ("Cache-Control", "max-age=60, No-Transform")], false); // RFC 9111 §5.2.2.6
        check(200, &[json, ("CDN-Cache-Control", "max-age=1"), ("Cache-Control", "no-transform")], false);
    }

    #[test]
    fn what_sets_a_cookie_or_is_short_is_left_alone() {
        let plain = Transform { is_allowed: true, ..Transform::default() };
        let cookie = Transform { sets_cookie: true, ..plain };
        let rule = Compress::default();
        assert!(rule.covers(plain, Some(1024)) && rule.covers(plain, None));
        assert!(!rule.covers(plain, Some(1023)) && !rule.covers(Transform::default(), Some(4096)));
        assert!(!rule.covers(cookie, Some(4096)));
        assert!(Compress { set_cookie: true, ..rule }.covers(cookie, Some(4096)));
    }

    proptest! {
        #[test]
        fn a_refused_coding_is_never_chosen(value in "(br|gzip|zstd|identity|\\*|deflate|;q=0|;q=1|;q=0\\.5|,| ){0,12}") {
            let refused = value.split(',').any(|member| member.trim().replace(' ', "") == "br;q=0");
            let named = value.matches("br").count();
            if refused && named == 1 {
                prop_assert_ne!(best(Some(&value)), "br", "{}", value);
            }
        }
    }
}
