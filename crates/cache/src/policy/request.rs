//! A request as the cache sees it: read once, in one pass over the fields.

use super::directives::RequestDirectives;
use super::fields;
use crate::key::is_alias;
use crate::{BypassReason, Field, Floor, Rule};

/// What of a request matters to the cache. Borrows the fields, for `Vary` and conditionals.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// What kind of method it is.
    pub method: MethodKind,
    /// All fields, hop-by-hop ones already removed.
    pub fields: &'a [Field<'a>],
    /// `Cache-Control`, or `Pragma` in its place.
    pub directives: RequestDirectives,
    /// `Authorization` is present. RFC 9111 §3.5.
    pub has_authorization: bool,
    /// `Cookie` is present.
    pub has_cookie: bool,
    /// `If-None-Match` is present.
    pub has_if_none_match: bool,
    /// The first `If-Modified-Since`, as it stands.
    pub if_modified_since: Option<&'a [u8]>,
    /// `If-Match` or `If-Unmodified-Since` is present, or what an origin may read as one (`If_Match`): only the origin may
    /// evaluate those.
    pub has_precondition: bool,
    /// `Range`, as it stands; only for GET (RFC 9110 §14.2).
    pub range: Option<&'a [u8]>,
    /// `If-Range`, as it stands.
    pub if_range: Option<&'a [u8]>,
    /// It carries a body, or says so.
    pub has_body: bool,
    /// What its client has to see.
    pub floor: Floor,
}

/// Methods, as far as caching tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodKind {
    /// Answered and stored.
    Get,
    /// Answered from what GET stored.
    Head,
    /// Changes nothing at the origin, but is not cached: OPTIONS, TRACE.
    Safe,
    /// May change something, unknown methods included; invalidates what it names. RFC 9111 §4.4.
    Unsafe,
}

impl MethodKind {
    /// Methods are case-sensitive. RFC 9110 §9.1.
    #[must_use]
    pub fn read(method: &str) -> Self {
        match method {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "OPTIONS" | "TRACE" => Self::Safe,
            _ => Self::Unsafe,
        }
    }
}

impl<'a> RequestFacts<'a> {
    /// Reads a request's fields. Does not allocate.
    #[must_use]
    pub fn read(method: &str, fields: &'a [Field<'a>]) -> Self {
        let mut facts = Self {
            method: MethodKind::read(method),
            fields,
            directives: RequestDirectives::default(),
            has_authorization: false,
            has_cookie: false,
            has_if_none_match: false,
            if_modified_since: None,
            has_precondition: false,
            range: None,
            if_range: None,
            has_body: false,
            floor: Floor::NONE,
        };
        let (mut has_cache_control, mut pragma_no_cache) = (false, false);
        for &(name, value) in fields {
            let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
            // An origin may evaluate what we would not, and its 412 is this request's alone.
            let is_read_as = |other: &[u8]| is(other) || is_alias(name, other);
            match name.len() {
                5 if is(b"range") && facts.method == MethodKind::Get => facts.range = Some(value),
                6 if is(b"cookie") => facts.has_cookie = true,
                6 if is(b"pragma") => {
                    let no_cache = |member: &[u8]| member.eq_ignore_ascii_case(b"no-cache");
                    pragma_no_cache |= fields::members(value).any(no_cache);
                }
                8 if is_read_as(b"if-match") => facts.has_precondition = true,
                8 if is(b"if-range") => facts.if_range = Some(value),
                13 if is(b"if-none-match") => facts.has_if_none_match = true,
                13 if is(b"authorization") => facts.has_authorization = true,
                13 if is(b"cache-control") => {
                    has_cache_control = true;
                    facts.directives.read_line(value);
                }
                14 if is(b"content-length") => facts.has_body |= value != b"0",
                17 if is(b"if-modified-since") => {
                    facts.if_modified_since = facts.if_modified_since.or(Some(value));
                }
                17 if is(b"transfer-encoding") => facts.has_body = true,
                19 if is_read_as(b"if-unmodified-since") => facts.has_precondition = true,
                _ => {}
            }
        }
        // RFC 9111 §5.4: only where there is no Cache-Control.
        facts.directives.no_cache |= pragma_no_cache && !has_cache_control;
        facts
    }

    /// Of a client that has to see this much.
    #[must_use]
    pub fn needing(mut self, floor: Floor) -> Self {
        self.floor = floor;
        self
    }

    /// As the rule hears it: where it ignores clients that want the origin asked, they don't.
    #[must_use]
    pub fn under(mut self, rule: &Rule) -> Self {
        if !rule.hears_clients() {
            let RequestDirectives { max_stale_s, only_if_cached, no_transform, .. } = self.directives;
            let none = RequestDirectives::default();
            self.directives = RequestDirectives { max_stale_s, only_if_cached, no_transform, ..none };
        }
        self
    }

    /// Why the cache stays out of this request, if it does.
    #[must_use]
    pub fn bypass(&self) -> Option<BypassReason> {
        if !matches!(self.method, MethodKind::Get | MethodKind::Head) {
            return Some(BypassReason::Method);
        }
        if self.has_body {
            return Some(BypassReason::Body);
        }
        if self.has_precondition {
            return Some(BypassReason::Precondition);
        }
        self.directives.no_store.then_some(BypassReason::NoStore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, fields: &[Field<'_>], expected: Option<BypassReason>) {
        assert_eq!(RequestFacts::read(method, fields).bypass(), expected, "{method} {fields:?}");
    }

    #[test]
    fn only_plain_get_and_head_are_looked_up() {
        check("GET", &[], None);
        check("HEAD", &[], None);
        check("get", &[], Some(BypassReason::Method)); // RFC 9110 §9.1
        check("POST", &[], Some(BypassReason::Method));
        check("OPTIONS", &[], Some(BypassReason::Method));
        check("GET", &[(b"Content-Length", b"3")], Some(BypassReason::Body));
        check("GET", &[(b"Content-Length", b"0")], None);
        check("GET", &[(b"Transfer-Encoding", b"chunked")], Some(BypassReason::Body));
        check("GET", &[(b"If-Match", b"\"a\"")], Some(BypassReason::Precondition)); // RFC 9111 §4.3.2
        check("GET", &[(b"If-Unmodified-Since", b"x")], Some(BypassReason::Precondition));
        check("GET", &[(b"If_Match", b"\"a\"")], Some(BypassReason::Precondition));
        check("GET", &[(b"if-unmodified_since", b"x")], Some(BypassReason::Precondition));
        check("GET", &[(b"If_None_Match", b"\"a\"")], None);
        check("GET", &[(b"Cache-Control", b"no-store")], Some(BypassReason::NoStore)); // §5.2.1.5
        check("GET", &[(b"Cache-Control", b"no-cache")], None);
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        let no_cache = |fields: &[Field<'_>]| RequestFacts::read("GET", fields).directives.no_cache;
        assert!(no_cache(&[(b"Pragma", b"no-cache")])); // RFC 9111 §5.4
        assert!(!no_cache(&[(b"Pragma", b"no-cache"), (b"Cache-Control", b"max-age=1")]));
        assert!(!no_cache(&[(b"Cache-Control", b""), (b"Pragma", b"no-cache")]));
        assert!(!no_cache(&[(b"Pragma", b"foo")]));
        assert!(no_cache(&[(b"pragma", b"foo=1 , No-Cache")])); // a list of directives
        assert!(!no_cache(&[(b"Pragma", b"foo=\"no-cache\"")]));
    }

    #[test]
    fn a_range_is_only_for_get() {
        let range: [Field<'_>; 1] = [(b"Range", b"bytes=0-1")];
        assert!(RequestFacts::read("GET", &range).range.is_some());
        assert!(RequestFacts::read("HEAD", &range).range.is_none()); // RFC 9110 §14.2
    }

    #[test]
    fn methods_are_sorted_by_what_they_may_change() {
        assert_eq!(MethodKind::read("TRACE"), MethodKind::Safe);
        assert_eq!(MethodKind::read("DELETE"), MethodKind::Unsafe);
        assert_eq!(MethodKind::read("FROBNICATE"), MethodKind::Unsafe); // RFC 9111 §4.4
    }
}
