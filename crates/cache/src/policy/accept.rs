//! Selecting headers whose values mean the same in many spellings. RFC 9111 §4.1, RFC 9110 §12.5.
//!
//! **Intuition.** `Vary: Accept-Language` makes one response per spelling, and `en, de` and `de,EN` are two of them. RFC
//! 9111 §4.1 lets a cache compare what the values mean.
//!
//! **Mechanism.** In `Accept`, `Accept-Language`, `Accept-Encoding` and `Accept-Charset` the order of members says nothing
//! (preference is in `q`), names come in any case, blanks count for nothing and `q=1` is what is meant without one; so
//! each has a normal form: members in lower case without blanks, sorted, each once. Any other list loses the blanks
//! around its commas, except credentials and cookies, which are nobody's to interpret. A stored response in the one
//! language that a request likes best answers that request, whatever else it listed.
//!
//! **Failure.** A value with a quote in it, or with more members than `MEMBERS_MAX`, is compared as it stands.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::fields;

/// Members of one value that are put in order.
const MEMBERS_MAX: usize = 64;

/// The normal form of a selecting header's value; `name` in lower case.
#[must_use]
pub fn normal<'v>(name: &[u8], value: &'v [u8]) -> Cow<'v, [u8]> {
    let is_negotiated =
        matches!(name, b"accept" | b"accept-language" | b"accept-encoding" | b"accept-charset");
    let is_opaque = matches!(name, b"authorization" | b"proxy-authorization" | b"cookie");
    if is_opaque || value.contains(&b'"') {
        return Cow::Borrowed(value);
    }
    let mut members: SmallVec<[Cow<'v, [u8]>; 8]> = SmallVec::new();
    for member in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
        if members.len() == MEMBERS_MAX {
            return Cow::Borrowed(value);
        }
        match is_negotiated {
            true if member.is_empty() => {}
            true => members.push(Cow::Owned(negotiated(member))),
            false => members.push(Cow::Borrowed(member)),
        }
    }
    if is_negotiated {
        members.sort_unstable();
        members.dedup();
    }
    Cow::Owned(members.join(&b","[..]))
}

/// `De ; Q=1.0` is `de`; `en;q=0.50` is `en;q=0.5`.
fn negotiated(member: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(member.len());
    let is_weight = |part: &[u8]| part.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"q="));
    // A second weight may not be one, and then the first may not be left out for saying nothing.
    let weights =
        member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii).filter(|part| is_weight(part)).count();
    for (at, part) in member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii).enumerate() {
        let part = part.to_ascii_lowercase();
        if at == 0 && part.is_empty() {
            // It names nothing, so it means nothing that could be said in another way.
            return member.to_vec();
        }
        if at == 0 {
            out = part;
            continue;
        }
        let Some(weight) = part.strip_prefix(b"q=").filter(|_| weights == 1) else {
            out.push(b';');
            out.extend_from_slice(&part);
            continue;
        };
        match thousandths(weight) {
            Some(1000) => {}
            Some(weight) => out.extend_from_slice(format!(";q=0.{weight:03}").as_bytes()),
            None => {
                out.push(b';');
                out.extend_from_slice(&part);
            }
        }
    }
    out
}

/// A weight in thousandths. RFC 9110 §12.4.2.
pub(crate) fn thousandths(weight: &[u8]) -> Option<u32> {
    let (whole, fraction): (_, &[u8]) = match weight {
        [whole] | [whole, b'.'] => (*whole, &[]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (*whole, fraction),
        _ => return None,
    };
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
    let mut sum = digit(whole)?;
    for place in 0..3 {
        sum = sum * 10 + fraction.get(place).map_or(Some(0), |&byte| digit(byte))?;
    }
    (sum <= 1000).then_some(sum)
}

/// The one language that a request likes better than all others, if there is one. Not `*`.
#[must_use]
pub fn best_language(value: &[u8]) -> Option<&[u8]> {
    let mut best: Option<(u32, &[u8])> = None;
    let mut tied = false;
    for member in fields::members(value) {
        let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let language = parts.next()?;
        let weight = match parts.next() {
            None => 1000,
            Some(part) => {
                let (name, weight) = part.split_at_checked(2)?;
                thousandths(weight).filter(|_| name.eq_ignore_ascii_case(b"q="))?
            }
        };
        match best {
            Some((other, _)) if weight < other => {}
            Some((other, _)) if weight == other => tied = true,
            _ => (best, tied) = (Some((weight, language)), false),
        }
    }
    best.filter(|(weight, language)| !tied && *weight > 0 && *language != b"*").map(|(_, language)| language)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn same(name: &str, a: &str, b: &str, expected: bool) {
        let equal = normal(name.as_bytes(), a.as_bytes()) == normal(name.as_bytes(), b.as_bytes());
        assert_eq!(equal, expected, "{name}: {a} | {b}");
    }

    #[test]
    fn negotiation_means_the_same_in_any_order_and_case() {
        same("accept-language", "en, de", "de, en", true); // RFC 9110 §12.5.4
        same("accept-language", "en, de", "eN,De", true);
        same("accept-language", "en, de", " en ,   de", true);
        same("accept-language", "en;q=1.0, de;q=0.5", "de; q=0.50,en", true);
        same("accept-language", "en, en", "en", true);
        same("accept-language", "en, de", "en", false);
        same("accept-language", "en, de", "en, de;q=0.9", false);
        same("accept-language", "en;q=2", "en", false);
        same("accept-language", "en;q=0.5", "en;q=500", false);
        same("accept-language", "en", "en, ;q=1", false);
        same("accept-encoding", "gzip, br", "br,GZIP", true); // §12.5.3
        same("accept-encoding", "gzip;q=0", "gzip", false);
        same("accept-encoding", "gzip;q=1;q=0.5", "gzip;q=0.5", false); // not a weight of 0.5
        same("accept-encoding", "", "identity", false);
        same("accept", "text/html, */*;q=0.1", "*/*;q=0.1,TEXT/HTML", true); // §12.5.1
        same("accept", "text/html;level=1", "text/html", false);
    }

    #[test]
    fn other_lists_lose_blanks_only() {
        same("foo", "1,2", "1, 2", true); // RFC 9111 §4.1
        same("foo", "1 , 2", "1,2", true);
        same("foo", "1,2", "2,1", false);
        same("foo", "a b", "ab", false);
        same("foo", "A", "a", false);
        same("foo", "a,,b", "a,b", false);
        same("foo", "\"1, 2\"", "\"1,2\"", false);
        same("cookie", "a=1,2", "a=1, 2", false);
        same("authorization", "a,b", "a, b", false);
    }

    #[test]
    fn the_best_language_is_one_alone() {
        let check = |value: &str, expected: Option<&str>| {
            assert_eq!(best_language(value.as_bytes()), expected.map(str::as_bytes), "{value}");
        };
        check("fr;q=0.5, de;q=1.0", Some("de"));
        check("de", Some("de"));
        check("de, en", None);
        check("de, en;q=0.9", Some("de"));
        check("*", None);
        check("de;q=0", None);
        check("de;q=x, en", None);
        check("de;level=1", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own(value in "[a-cQq=;., 01*\"]{0,24}") {
            for name in ["accept-language", "foo", "cookie"] {
                let once = normal(name.as_bytes(), value.as_bytes()).into_owned();
                prop_assert_eq!(normal(name.as_bytes(), &once).into_owned(), once);
            }
        }
    }
}
