//! Which requests a stored response answers. RFC 9111 §4.1.
//!
//! A response with `Vary` answers requests whose named headers are those of the request it was made for. The values are
//! kept with the response and compared line by line, joined as a list would be (RFC 9110 §5.3); absent is not empty. Most
//! clients spell a value as the one before them, so the bytes as they came are compared first, and their normal form
//! ([`super::accept`]) only where those differ.

use smallvec::SmallVec;

use super::encoding::is_encoded;
use super::{accept, fields};
use crate::key::is_alias;
use crate::{Field, Rule, Uncacheable};

/// Names in one `Vary` that are compared; a response with more is not stored.
pub const VARY_NAMES_MAX: usize = 16;
/// Bytes of selecting values kept with one response; a request with more is answered but not stored for.
pub const VARY_VALUE_BYTES_MAX: usize = 8 << 10;

/// The headers a response varies by, with the values of the request it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vary {
    /// Sorted by name, each once.
    selecting: Box<[Selecting]>,
    /// `Content-Language`, where `Accept-Language` selects.
    language: Option<Box<[u8]>>,
}

/// One header and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Selecting {
    /// Lower-cased.
    name: Box<[u8]>,
    /// The request's lines joined by `, `; `None` if it had none.
    value: Option<Box<[u8]>>,
    /// The value's normal form, where it isn't that itself.
    normal: Option<Box<[u8]>>,
}

impl Vary {
    /// What a response to a request varies by; `None` if by nothing. Refuses `*` and too many names, and a request that says
    /// under another spelling (`X_Country`) what may have chosen the response and is not compared.
    pub fn select(
        response_fields: &[Field<'_>],
        request_fields: &[Field<'_>],
    ) -> Result<Option<Self>, Uncacheable> {
        Self::select_except(response_fields, request_fields, None)
    }

    /// The same where the route compresses by itself: what came without a coding answers whatever a request accepts of
    /// them, so `Accept-Encoding` doesn't select.
    pub(crate) fn select_under(
        rule: &Rule,
        response_fields: &[Field<'_>],
        request_fields: &[Field<'_>],
    ) -> Result<Option<Self>, Uncacheable> {
        let ours = rule.compress().is_some() && !is_encoded(response_fields);
        Self::select_except(response_fields, request_fields, ours.then_some(b"accept-encoding"))
    }

    fn select_except(
        response_fields: &[Field<'_>],
        request_fields: &[Field<'_>],
        except: Option<&[u8]>,
    ) -> Result<Option<Self>, Uncacheable> {
        let mut names: SmallVec<[Box<[u8]>; 4]> = SmallVec::new();
        for name in fields::lines(response_fields, b"vary").flat_map(fields::members) {
            // A quote is in no name, and may hide one, or `*`.
            if name == b"*" || name.contains(&b'"') || names.len() == VARY_NAMES_MAX {
                return Err(Uncacheable::Vary);
            }
            if except.is_some_and(|except| name.eq_ignore_ascii_case(except)) {
                continue;
            }
            names.push(name.to_ascii_lowercase().into_boxed_slice());
        }
        if names.is_empty() {
            return Ok(None);
        }
        names.sort_unstable();
        names.dedup();
        if request_fields.iter().any(|(name, _)| names.iter().any(|selecting| is_alias(name, selecting))) {
            return Err(Uncacheable::FieldAlias);
        }
        let by_language = names.iter().any(|name| **name == *ACCEPT_LANGUAGE);
        let selecting = names.into_iter().map(|name| Selecting::new(name, request_fields)).collect();
        let vary = Self { selecting, language: by_language.then(|| language_of(response_fields)).flatten() };
        if vary.weight() > VARY_VALUE_BYTES_MAX as u64 { Err(Uncacheable::Vary) } else { Ok(Some(vary)) }
    }

    /// The same headers, with another request's values.
    #[must_use]
    pub fn reselect(&self, request_fields: &[Field<'_>]) -> Self {
        let of = |one: &Selecting| Selecting::new(one.name.clone(), request_fields);
        Self { selecting: self.selecting.iter().map(of).collect(), language: None }
    }

    /// Whether a request spells each value as the one that the response was made for. Does not allocate.
    #[must_use]
    pub fn is_spelled_so(&self, request_fields: &[Field<'_>]) -> bool {
        self.selecting.iter().all(|selecting| selecting.matches(request_fields))
    }

    /// Whether a request selects the response. Allocates only where a value is spelled in another way than the stored one.
    #[must_use]
    pub fn matches(&self, request_fields: &[Field<'_>]) -> bool {
        self.selecting.iter().all(|selecting| {
            selecting.matches(request_fields)
                || selecting.means_the_same(request_fields)
                || self.is_in_the_language(selecting, request_fields)
        })
    }

    /// Whether two responses answer the same requests, so that the newer takes the other's place.
    #[must_use]
    pub fn selects_as(&self, other: &Self) -> bool {
        self.selecting.len() == other.selecting.len()
            && self
                .selecting
                .iter()
                .zip(&other.selecting)
                .all(|(a, b)| a.name == b.name && a.normal() == b.normal())
    }

    /// The response is in the one language that the request likes best. RFC 9111 §4.1 leaves the choice by preference to
    /// the cache.
    fn is_in_the_language(&self, selecting: &Selecting, request_fields: &[Field<'_>]) -> bool {
        let Some(language) = self.language.as_deref().filter(|_| *selecting.name == *ACCEPT_LANGUAGE) else {
            return false;
        };
        let wanted = joined(request_fields, ACCEPT_LANGUAGE);
        let best = wanted.as_deref().and_then(accept::best_language);
        best.is_some_and(|best| best.eq_ignore_ascii_case(language))
    }

    /// Whether it is told apart by who asks.
    pub(crate) fn names_credentials(&self) -> bool {
        self.selecting.iter().any(|one| matches!(&*one.name, b"cookie" | b"authorization"))
    }

    /// The names it varies by, each with the value that the response is for; `None` for a request without the header.
    pub fn selecting(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.selecting.iter().map(|one| (&*one.name, one.value.as_deref()))
    }

    /// Its names and the normal forms of its values as bytes that are the same for all that [select alike](Self::selects_as).
    #[must_use]
    pub fn digest(&self) -> Vec<u8> {
        let mut digest = Vec::new();
        let mut push = |part: Option<&[u8]>| {
            let length = part.map_or(u32::MAX, |part| u32::try_from(part.len()).unwrap_or(u32::MAX - 1));
            digest.extend_from_slice(&length.to_le_bytes());
            digest.extend_from_slice(part.unwrap_or_default());
        };
        for one in &self.selecting {
            push(Some(&one.name));
            push(one.normal());
        }
        digest
    }

    /// Bytes it takes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let bytes = |value: &Option<Box<[u8]>>| value.as_ref().map_or(0, |value| value.len());
        let of = |one: &Selecting| one.name.len() + bytes(&one.value) + bytes(&one.normal);
        let heap = self.selecting.iter().map(of).sum::<usize>() + bytes(&self.language);
        (heap + self.selecting.len() * (size_of::<Selecting>() + ALLOCATIONS_BYTES)) as u64
    }
}

/// What the allocator adds for a name, a value and its normal form.
const ALLOCATIONS_BYTES: usize = 48;
const ACCEPT_LANGUAGE: &[u8] = b"accept-language";

/// `Content-Language`, if it is one language.
fn language_of(response_fields: &[Field<'_>]) -> Option<Box<[u8]>> {
    let mut languages = fields::lines(response_fields, b"content-language").flat_map(fields::members);
    let language = languages.next().filter(|_| languages.next().is_none())?;
    Some(language.into())
}

impl Selecting {
    fn new(name: Box<[u8]>, request_fields: &[Field<'_>]) -> Self {
        let value = joined(request_fields, &name);
        let normal = value.as_deref().map(|value| accept::normal(&name, value));
        let normal =
            normal.filter(|normal| value.as_deref() != Some(normal)).map(|normal| normal.into_owned().into());
        Self { name, value, normal }
    }

    fn normal(&self) -> Option<&[u8]> {
        self.normal.as_deref().or(self.value.as_deref())
    }

    /// Whether the request's value has the stored one's normal form.
    fn means_the_same(&self, request_fields: &[Field<'_>]) -> bool {
        let Some(value) = joined(request_fields, &self.name) else { return false };
        Some(&*accept::normal(&self.name, &value)) == self.normal()
    }

    fn matches(&self, request_fields: &[Field<'_>]) -> bool {
        let mut lines = fields::lines(request_fields, &self.name);
        let (Some(first), Some(value)) = (lines.next(), self.value.as_deref()) else {
            return self.value.is_none() && fields::lines(request_fields, &self.name).next().is_none();
        };
        let rest = lines.try_fold(value.strip_prefix(first), |rest, line| {
            Some(rest?.strip_prefix(b", ")?.strip_prefix(line))
        });
        rest.flatten().is_some_and(<[u8]>::is_empty)
    }
}

fn joined(request_fields: &[Field<'_>], name: &[u8]) -> Option<Box<[u8]>> {
    let lines: SmallVec<[&[u8]; 2]> = fields::lines(request_fields, name).collect();
    if lines.is_empty() { None } else { Some(lines.join(&b", "[..]).into_boxed_slice()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(vary: &[&str], stored_for: &[Field<'_>], asked: &[Field<'_>], expected: bool) {
        let response: Vec<Field<'_>> = vary.iter().map(|line| (&b"Vary"[..], line.as_bytes())).collect();
        let vary = Vary::select(&response, stored_for).unwrap();
        let matches = vary.is_none_or(|vary| vary.matches(asked));
        assert_eq!(matches, expected, "{response:?} {stored_for:?} {asked:?}");
    }

    const GZIP: Field<'_> = (b"Accept-Encoding", b"gzip");
    const BR: Field<'_> = (b"accept-encoding", b"br");
    const DE: Field<'_> = (b"Accept-Language", b"de");

    #[test]
    fn named_headers_have_to_agree() {
        check(&[], &[GZIP], &[BR], true);
        check(&["Accept-Encoding"], &[GZIP], &[GZIP], true);
        check(&["accept-encoding"], &[GZIP], &[(b"ACCEPT-ENCODING", b"gzip")], true);
        check(&["Accept-Encoding"], &[GZIP], &[BR], false);
        check(&["Accept-Encoding"], &[GZIP, DE], &[GZIP], true);
        check(&["Accept-Encoding, Accept-Language"], &[GZIP, DE], &[GZIP], false);
        check(&["Accept-Encoding", "Accept-Language"], &[GZIP, DE], &[DE, GZIP], true);
        check(&["Accept-Encoding", "Accept-Language"], &[GZIP, DE], &[GZIP], false);
    }

    #[test]
    fn absent_matches_only_absent() {
        check(&["X"], &[], &[], true);
        check(&["X"], &[], &[(b"x", b"")], false);
        check(&["X"], &[(b"x", b"")], &[], false);
        check(&["X"], &[(b"x", b"")], &[(b"x", b"")], true);
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines: [Field<'_>; 2] = [(b"x", b"a"), (b"x", b"b")];
        check(&["X"], &lines, &lines, true);
        check(&["X"], &lines, &[(b"x", b"a, b")], true); // RFC 9110 §5.3
        check(&["X"], &lines, &lines[..1], false);
        check(&["X"], &lines[..1], &lines, false);
        check(&["X"], &lines, &[(b"x", b"a"), (b"x", b"b"), (b"x", b"")], false);
        check(&["X"], &[(b"x", b"ab")], &[(b"x", b"a"), (b"x", b"b")], false);
    }

    #[test]
    fn what_means_the_same_selects_the_same() {
        let language =
            |value: &'static str| -> [Field<'static>; 1] { [(b"Accept-Language", value.as_bytes())] };
        check(&["Accept-Language"], &language("en, de"), &language("de, en"), true); // RFC 9111 §4.1
        check(&["Accept-Language"], &language("en, de"), &language("eN ,  De;q=1"), true);
        check(&["Accept-Language"], &language("en, de"), &language("en"), false);
        check(&["Accept-Language"], &language("en"), &[], false);
        check(&["Accept-Encoding"], &[GZIP], &[(b"accept-encoding", b" GZIP;q=1.0")], true);
        check(&["Foo"], &[(b"foo", b"1,2")], &[(b"foo", b"1, 2")], true);
        check(&["Foo"], &[(b"foo", b"1,2")], &[(b"foo", b"1"), (b"foo", b"2")], true);
        check(&["Cookie"], &[(b"cookie", b"1,2")], &[(b"cookie", b"1, 2")], false);
    }

    #[test]
    fn a_response_in_the_language_liked_best_is_selected() {
        let stored_for: [Field<'_>; 1] = [(b"Accept-Language", b"en, de")];
        let selects = |content: &'static [u8], wanted: &'static [u8]| {
            let response: [Field<'_>; 2] = [(b"Vary", b"Accept-Language"), (b"Content-Language", content)];
            let vary = Vary::select(&response, &stored_for).unwrap().unwrap();
            vary.matches(&[(b"accept-language", wanted)])
        };
        assert!(selects(b"de", b"fr;q=0.5, de;q=1.0")); // RFC 9111 §4.1
        assert!(selects(b"de", b"DE"));
        assert!(!selects(b"de", b"fr, de;q=0.9"));
        assert!(!selects(b"de", b"fr, de"), "both are liked best");
        assert!(!selects(b"de-AT", b"de"));
        assert!(!selects(b"de, en", b"de"));
        assert!(!selects(b"", b"de"));
    }

    #[test]
    fn a_star_or_too_many_names_are_refused() {
        let refused = |line: &[u8]| Vary::select(&[(b"Vary", line)], &[]) == Err(Uncacheable::Vary);
        assert!(refused(b"*") && refused(b"Accept, *") && refused(b"\"Accept, *"));
        let many = (0..=VARY_NAMES_MAX).map(|n| format!("x{n}")).collect::<Vec<_>>().join(",");
        assert!(refused(many.as_bytes()));
        assert!(!refused(b""));
    }

    #[test]
    fn a_request_that_spells_a_selecting_field_in_two_ways_is_not_stored_for() {
        let select = |vary: &[u8], asked: &[Field<'_>]| Vary::select(&[(b"Vary", vary)], asked);
        let alias = Err(Uncacheable::FieldAlias);
        assert_eq!(select(b"X-Country", &[(b"X_Country", b"evil")]), alias);
        assert_eq!(select(b"X-Country", &[(b"X-Country", b"de"), (b"x_country", b"evil")]), alias);
        assert_eq!(select(b"Accept, X_Country", &[(b"x-country", b"evil")]), alias);
        assert!(select(b"X-Country", &[(b"x-country", b"de"), (b"X_Other", b"x")]).is_ok());
        assert_eq!(select(b"", &[(b"X_Country", b"x")]), Ok(None));
    }

    #[test]
    fn values_kept_are_bounded() {
        let long = vec![b'a'; VARY_VALUE_BYTES_MAX];
        assert_eq!(Vary::select(&[(b"Vary", b"x")], &[(b"x", &long)]), Err(Uncacheable::Vary));
    }
}
