//! `Tenfold-Cache-Control` and `CDN-Cache-Control`: directives for this cache rather than for all. RFC 9213.
//!
//! **Intuition.** An origin may want its edge to keep a page for an hour and browsers for none of it. A targeted field
//! says so: where one that this cache listens to is there, it is all that counts, and `Cache-Control` and `Expires` are
//! for others.
//!
//! **Mechanism.** The target list is our own field first, then that of all CDNs (§2.2). Values are structured-field
//! dictionaries (RFC 9651), read by a library. `private` and `no-cache` with an argument are taken as without one, which
//! is the more restrictive.
//!
//! **Failure.** A field that is empty, that is no dictionary, or in which a directive that is known has a value of the
//! wrong type, is as if it were not there: the next of the list counts (§2.1).

use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::directives::{DELTA_SECONDS_MAX, ResponseDirectives};
use super::fields;
use crate::Field;

/// The fields this cache listens to, the first that is valid counts. §2.2.
const TARGETS: [&[u8]; 2] = [b"tenfold-cache-control", b"cdn-cache-control"];
/// Longer values are not looked at; a head's line is shorter.
const VALUE_BYTES_MAX: usize = 16 << 10;

/// What the first valid targeted field says, if there is one.
#[must_use]
pub fn read(response_fields: &[Field<'_>]) -> Option<ResponseDirectives> {
    // Most responses have none, and are done with one look at each name's last letters.
    let is_near = |(name, _): &Field<'_>| {
        name.len() > 13 && name[name.len() - 13..].eq_ignore_ascii_case(b"cache-control")
    };
    if !response_fields.iter().any(is_near) {
        return None;
    }
    TARGETS.iter().find_map(|target| read_one(response_fields, target))
}

fn read_one(response_fields: &[Field<'_>], target: &[u8]) -> Option<ResponseDirectives> {
    // Several lines are one dictionary (RFC 9651 §4.2).
    let value = fields::lines(response_fields, target).collect::<Vec<_>>().join(&b", "[..]);
    if value.len() > VALUE_BYTES_MAX {
        return None;
    }
    let dictionary = Parser::new(&value).parse::<Dictionary>().ok()?;
    if dictionary.is_empty() {
        return None;
    }
    let mut directives = ResponseDirectives { targeted: true, ..ResponseDirectives::default() };
    for (name, value) in &dictionary {
        set(&mut directives, name.as_str(), value)?;
    }
    Some(directives)
}

/// One directive; `None` if its value is not of its type.
fn set(directives: &mut ResponseDirectives, name: &str, value: &ListEntry) -> Option<()> {
    match name {
        "max-age" => directives.max_age_s = Some(seconds(value)?),
        "s-maxage" => directives.s_maxage_s = Some(seconds(value)?),
        "stale-while-revalidate" => directives.stale_while_revalidate_s = Some(seconds(value)?),
        "stale-if-error" => directives.stale_if_error_s = Some(seconds(value)?),
        "no-store" => directives.no_store = flag(value)?,
        "no-cache" => directives.no_cache = flag(value).unwrap_or(true),
        "private" => directives.private = flag(value).unwrap_or(true),
        "public" => directives.public = flag(value)?,
        "must-revalidate" => directives.must_revalidate = flag(value)?,
        "proxy-revalidate" => directives.proxy_revalidate = flag(value)?,
        "must-understand" => directives.must_understand = flag(value)?,
        "immutable" => directives.immutable = flag(value)?,
        _ => {}
    }
    Some(())
}

/// An Integer; negative is zero, as unreadable is elsewhere.
fn seconds(value: &ListEntry) -> Option<u64> {
    let ListEntry::Item(item) = value else { return None };
    let BareItem::Integer(number) = &item.bare_item else { return None };
    Some(u64::try_from(i64::from(*number)).unwrap_or(0).min(DELTA_SECONDS_MAX))
}

/// A Boolean; without a value it is true.
fn flag(value: &ListEntry) -> Option<bool> {
    let ListEntry::Item(item) = value else { return None };
    match item.bare_item {
        BareItem::Boolean(set) => Some(set),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[(&str, &str)]) -> Option<ResponseDirectives> {
        let fields: Vec<Field<'_>> = lines.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        read(&fields)
    }

    fn cdn(value: &str) -> Option<ResponseDirectives> {
        of(&[("CDN-Cache-Control", value)])
    }

    #[test]
    fn our_own_field_comes_before_that_of_all() {
        let both = [("CDN-Cache-Control", "max-age=5"), ("Tenfold-Cache-Control", "max-age=9")];
        assert_eq!(of(&both).and_then(|d| d.max_age_s), Some(9)); // RFC 9213 §2.2
        let ours_invalid = [("CDN-Cache-Control", "max-age=5"), ("Tenfold-Cache-Control", "&")];
        assert_eq!(of(&ours_invalid).and_then(|d| d.max_age_s), Some(5)); // §2.1
        assert_eq!(of(&[("Cache-Control", "max-age=5")]), None);
        assert_eq!(of(&[("Other-Cache-Control", "max-age=5")]), None);
    }

    #[test]
    fn directives_have_types() {
        let age = |value| cdn(value).and_then(|d| d.max_age_s);
        assert_eq!(age("max-age=3600"), Some(3600));
        assert_eq!(age("foobar, max-age=3600"), Some(3600));
        assert_eq!(age("foobar=1.5, x=\"y\", max-age=3600;p=1"), Some(3600));
        assert_eq!(age("max-age=1, max-age=2"), Some(2)); // RFC 9651 §3.2: the last
        assert_eq!(age("max-age=99999999999"), Some(DELTA_SECONDS_MAX)); // RFC 9111 §1.2.2
        assert_eq!(age("max-age=-1"), Some(0));
        assert_eq!(
            of(&[("cdn-cache-control", "public"), ("CDN-Cache-Control", "max-age=7")])
                .and_then(|d| d.max_age_s),
            Some(7)
        );
        for invalid in [
            "",
            "max-age=\"3600\"",
            "max-age=1.5",
            "max-age",
            "max-age=(1 2)",
            "max-age =3600",
            "max-age= 3600",
            "max-age=3600, &&&&&",
            "MaX-aGe=3600",
            "max-age=99999999999999999",
            "no-store=1",
            "max-age=3600,",
        ] {
            assert_eq!(cdn(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn flags_may_be_said_to_be_false_and_qualified_ones_are_unqualified() {
        assert!(cdn("private").is_some_and(|d| d.private && d.targeted));
        assert!(cdn("private=?0, max-age=1").is_some_and(|d| !d.private));
        assert!(cdn("private=\"x-user\"").is_some_and(|d| d.private && !d.has_field_names));
        assert!(cdn("no-cache=(a b)").is_some_and(|d| d.no_cache));
        assert!(
            cdn("no-store, must-understand, must-revalidate, proxy-revalidate, immutable, public")
                .is_some_and(|d| d.no_store
                    && d.must_understand
                    && d.must_revalidate
                    && d.proxy_revalidate
                    && d.immutable
                    && d.public)
        );
        assert!(cdn("stale-while-revalidate=3, stale-if-error=4, s-maxage=5").is_some_and(|d| {
            (d.stale_while_revalidate_s, d.stale_if_error_s, d.s_maxage_s) == (Some(3), Some(4), Some(5))
        }));
    }
}
