//! Looking at field lists: by name, as lists of members, and which are not end-to-end.

use crate::Field;

/// All lines of one field, in order. `name` in any case.
pub fn lines<'a, 'n>(
    fields: &'n [Field<'a>],
    name: &'n [u8],
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    fields.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|&(_, value)| value)
}

/// The members of a comma-separated list, commas within quoted strings aside; trimmed, empty ones left out.
/// RFC 9110 §5.6.1.
pub fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = member_end(rest);
        let member = rest[..end].trim_ascii();
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(member)
    })
    .filter(|member| !member.is_empty())
}

/// Where the first comma outside quotes is. A quote that never closes takes the rest of the line; see [`is_closed`].
fn member_end(line: &[u8]) -> usize {
    let mut quoting = Quoting::default();
    line.iter().position(|&byte| quoting.is_outside(byte) && byte == b',').unwrap_or(line.len())
}

/// Whether every quote closes. What an open one hides may be what matters most.
#[must_use]
pub fn is_closed(line: &[u8]) -> bool {
    let mut quoting = Quoting::default();
    for &byte in line {
        quoting.is_outside(byte);
    }
    !quoting.quoted
}

/// Goes through a line byte by byte. RFC 9110 §5.6.4.
#[derive(Default)]
struct Quoting {
    quoted: bool,
    escaped: bool,
}

impl Quoting {
    /// Takes the next byte; says whether it is outside quotes.
    fn is_outside(&mut self, byte: u8) -> bool {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.quoted => self.escaped = true,
            b'"' => self.quoted = !self.quoted,
            _ => {}
        }
        !self.quoted
    }
}

/// Fields that are about one connection, one hop's framing or proxy authentication, and so are never stored.
/// RFC 9111 §3.1, RFC 9110 §7.6.1. The edge has removed what `Connection` named; these go in any case.
#[must_use]
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    const NAMES: &[&[u8]] = &[
        b"connection",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
    ];
    NAMES.iter().any(|hop| name.eq_ignore_ascii_case(hop))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &[&str]) {
        let expected: Vec<_> = expected.iter().map(|member| member.as_bytes()).collect();
        assert_eq!(members(line.as_bytes()).collect::<Vec<_>>(), expected, "{line}");
    }

    #[test]
    fn lists_split_at_commas_outside_quotes() {
        check("a, b ,c", &["a", "b", "c"]);
        check(",, a,,", &["a"]);
        check("", &[]);
        check(r#"no-cache="a, b", max-age=1"#, &[r#"no-cache="a, b""#, "max-age=1"]);
        check(r#"x="a\", b", c"#, &[r#"x="a\", b""#, "c"]);
        check(r#"x="open, b"#, &[r#"x="open, b"#]);
    }

    #[test]
    fn lines_of_a_field_are_found_in_any_case() {
        let fields: [Field<'_>; 3] = [(b"Vary", b"a"), (b"x", b"y"), (b"VARY", b"b")];
        assert_eq!(lines(&fields, b"vary").collect::<Vec<_>>(), [b"a", b"b"]);
    }
}
