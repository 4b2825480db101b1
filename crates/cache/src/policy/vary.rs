//! Which requests a stored response answers. RFC 9111 §4.1.
//!
//! A response with `Vary` answers requests whose named headers are those of the request it was made for. The values are
//! kept with the response and compared line by line, joined as a list would be (RFC 9110 §5.3); absent is not empty.

use smallvec::SmallVec;

use super::fields;
use crate::{Field, Uncacheable};

/// Names in one `Vary` that are compared; a response with more is not stored.
pub const VARY_NAMES_MAX: usize = 16;
/// Bytes of selecting values kept with one response; a request with more is answered but not stored for.
pub const VARY_VALUE_BYTES_MAX: usize = 8 << 10;

/// The headers a response varies by, with the values of the request it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vary {
    /// Sorted by name, each once.
    selecting: Box<[Selecting]>,
}

/// One header and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Selecting {
    /// Lower-cased.
    name: Box<[u8]>,
    /// The request's lines joined by `, `; `None` if it had none.
    value: Option<Box<[u8]>>,
}

impl Vary {
    /// What a response to a request varies by; `None` if by nothing. Refuses `*` and too many names.
    pub fn select(
        response_fields: &[Field<'_>],
        request_fields: &[Field<'_>],
    ) -> Result<Option<Self>, Uncacheable> {
        let mut names: SmallVec<[Box<[u8]>; 4]> = SmallVec::new();
        for name in fields::lines(response_fields, b"vary").flat_map(fields::members) {
            // A quote is in no name, and may hide one, or `*`.
            if name == b"*" || name.contains(&b'"') || names.len() == VARY_NAMES_MAX {
                return Err(Uncacheable::Vary);
            }
            names.push(name.to_ascii_lowercase().into_boxed_slice());
        }
        if names.is_empty() {
            return Ok(None);
        }
        names.sort_unstable();
        names.dedup();
        let selecting: Box<[Selecting]> =
            names.into_iter().map(|name| Selecting { value: joined(request_fields, &name), name }).collect();
        let vary = Self { selecting };
        if vary.weight() > VARY_VALUE_BYTES_MAX as u64 { Err(Uncacheable::Vary) } else { Ok(Some(vary)) }
    }

    /// The same headers, with another request's values.
    #[must_use]
    pub fn reselect(&self, request_fields: &[Field<'_>]) -> Self {
        let of =
            |one: &Selecting| Selecting { name: one.name.clone(), value: joined(request_fields, &one.name) };
        Self { selecting: self.selecting.iter().map(of).collect() }
    }

    /// Whether a request selects the response. Does not allocate.
    #[must_use]
    pub fn matches(&self, request_fields: &[Field<'_>]) -> bool {
        self.selecting.iter().all(|selecting| selecting.matches(request_fields))
    }

    /// Bytes it takes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let of = |one: &Selecting| one.name.len() + one.value.as_ref().map_or(0, |value| value.len());
        let heap = self.selecting.iter().map(of).sum::<usize>();
        (heap + self.selecting.len() * (size_of::<Selecting>() + ALLOCATIONS_BYTES)) as u64
    }
}

/// What the allocator adds for a name and a value.
const ALLOCATIONS_BYTES: usize = 32;

impl Selecting {
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
    fn a_star_or_too_many_names_are_refused() {
        let refused = |line: &[u8]| Vary::select(&[(b"Vary", line)], &[]) == Err(Uncacheable::Vary);
        assert!(refused(b"*") && refused(b"Accept, *") && refused(b"\"Accept, *"));
        let many = (0..=VARY_NAMES_MAX).map(|n| format!("x{n}")).collect::<Vec<_>>().join(",");
        assert!(refused(many.as_bytes()));
        assert!(!refused(b""));
    }

    #[test]
    fn values_kept_are_bounded() {
        let long = vec![b'a'; VARY_VALUE_BYTES_MAX];
        assert_eq!(Vary::select(&[(b"Vary", b"x")], &[(b"x", &long)]), Err(Uncacheable::Vary));
    }
}
