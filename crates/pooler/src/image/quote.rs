//! SQL text that means the same to every session.
//!
//! **Intuition.** What we say to a server is read under whatever settings its last client left: strings with or without
//! backslashes, bytes in any encoding. So literals are `E'…'`, whose backslashes count always, names that are not plain
//! are `U&"…"`, and every character beyond printable ASCII is an escape.
//!
//! **Mechanism.** One pass per text. Both forms are read before encoding conversion matters and whatever
//! `standard_conforming_strings` is; `U&'…'` (a string) would not be, which is why it is not used.
//!
//! **Failure.** None. A NUL, which PostgreSQL's strings cannot hold, is kept out by [`super::Images`].
//!
//! Source: PostgreSQL manual 4.1.1 (identifiers with Unicode escapes), 4.1.2.2 and 4.1.2.3; `src/backend/parser/scan.l`.

/// Appends `text` as a string literal.
pub(crate) fn push_literal(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"E'");
    for character in text.chars() {
        match character {
            '\'' => out.extend_from_slice(b"''"),
            '\\' => out.extend_from_slice(b"\\\\"),
            ' '..='~' => out.push(ascii(character)),
            _ => push_escaped(out, "\\u", "\\U", 8, character),
        }
    }
    out.push(b'\'');
}

/// Appends `name` as an identifier that is neither folded nor taken for a key word.
pub(crate) fn push_identifier(out: &mut Vec<u8>, name: &str) {
    let plain = name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'\\');
    out.extend_from_slice(if plain { b"\"" } else { b"U&\"" });
    for character in name.chars() {
        match character {
            '"' => out.extend_from_slice(b"\"\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            ' '..='~' => out.push(ascii(character)),
            _ => push_escaped(out, "\\", "\\+", 6, character),
        }
    }
    out.push(b'"');
}

/// Four hexadecimal digits after `short`, or `digits_long` after `long` for what needs more.
fn push_escaped(out: &mut Vec<u8>, short: &str, long: &str, digits_long: usize, character: char) {
    let code = u32::from(character);
    let escaped = match code {
        0..=0xffff => format!("{short}{code:04X}"),
        _ => format!("{long}{code:0digits_long$X}"),
    };
    out.extend_from_slice(escaped.as_bytes());
}

fn ascii(character: char) -> u8 {
    u8::try_from(character).expect("the arm matched ASCII only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_ascii_and_closed() {
        fn check(text: &str, expected: &str) {
            let mut out = Vec::new();
            push_literal(&mut out, text);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        check("", "E''");
        check("UTC", "E'UTC'");
        check("a'b", "E'a''b'");
        check("\\'; DROP TABLE t; --", "E'\\\\''; DROP TABLE t; --'");
        check("a\nb\t\u{7f}", "E'a\\u000Ab\\u0009\\u007F'");
        check("é😀", "E'\\u00E9\\U0001F600'");
    }

    #[test]
    fn identifiers_are_ascii_and_closed() {
        fn check(name: &str, expected: &str) {
            let mut out = Vec::new();
            push_identifier(&mut out, name);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        check("jobs", "\"jobs\"");
        check("Select", "\"Select\"");
        check("a\"b", "\"a\"\"b\"");
        check("a\\b", "U&\"a\\\\b\"");
        check("é", "U&\"\\00E9\"");
        check("😀\n", "U&\"\\+01F600\\000A\"");
    }
}
