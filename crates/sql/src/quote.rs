//! Names and values put into SQL text: quoting as PostgreSQL's `quote_ident` and `quote_literal` do.
//!
//! Whatever of a client's goes into a statement of ours goes through here. Identifiers are always quoted; a literal
//! with a backslash is written as `E'…'`, which means the same whatever `standard_conforming_strings` says. The bytes
//! are in the client's encoding; callers refuse encodings in which a quote or backslash may be a trailing byte.

/// Appends `name` as a quoted identifier.
pub fn quote_ident(name: &[u8], out: &mut Vec<u8>) {
    quoted(name, b'"', out);
}

/// Appends `value` as a string literal.
pub fn quote_literal(value: &[u8], out: &mut Vec<u8>) {
    if memchr::memchr(b'\\', value).is_none() {
        return quoted(value, b'\'', out);
    }
    out.extend_from_slice(b" E'");
    for &byte in value {
        if byte == b'\'' || byte == b'\\' {
            out.push(byte);
        }
        out.push(byte);
    }
    out.push(b'\'');
}

fn quoted(text: &[u8], quote: u8, out: &mut Vec<u8>) {
    out.push(quote);
    for &byte in text {
        if byte == quote {
            out.push(quote);
        }
        out.push(byte);
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(quote: fn(&[u8], &mut Vec<u8>), text: &str, expected: &str) {
        let mut out = Vec::new();
        quote(text.as_bytes(), &mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn quotes_are_doubled() {
        check(quote_ident, "a", "\"a\"");
        check(quote_ident, "a\"; DROP TABLE x; --", "\"a\"\"; DROP TABLE x; --\"");
        check(quote_literal, "it's", "'it''s'");
        check(quote_literal, "", "''");
    }

    #[test]
    fn backslashes_mean_themselves_in_either_dialect() {
        check(quote_literal, r"a\b'c", r" E'a\\b''c'");
    }
}
