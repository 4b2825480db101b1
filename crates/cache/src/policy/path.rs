//! One spelling for each byte of a path. RFC 3986 §6.2.2.
//!
//! `/caf%c3%a9`, `/%63af%C3%A9` and `/caf%C3%A9` name one resource. The edge brings what it is asked for to the last of
//! these forms before it is keyed, and what a response names (`Location`) has to come to the same form, or a write would
//! not reach what is stored. What has no normal form, a bad encoding or an encoded NUL, is refused: guessing is how
//! filters are walked around.

/// Appends a path with percent-encodings of unreserved characters decoded, the others in upper case, and a backslash, which
/// some servers take for a slash, encoded. `None` for what can't be read; `out` then holds what could.
///
/// `%2F` stays encoded and dot segments stay where they are.
#[must_use]
pub fn decode_unreserved(path: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'\\' => out.extend_from_slice(b"%5C"),
            b'%' => {
                push_decoded(encoded_byte(rest)?, out);
                rest = rest.get(2..)?;
            }
            _ => out.push(byte),
        }
    }
    Some(())
}

fn encoded_byte(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| digits.get(at).and_then(|&digit| char::from(digit).to_digit(16));
    let value = digit(0)? * 16 + digit(1)?;
    u8::try_from(value).ok().filter(|&value| value != 0)
}

fn push_decoded(value: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_' | b'~') {
        out.push(value);
    } else {
        out.extend_from_slice(&[b'%', HEX[usize::from(value >> 4)], HEX[usize::from(value & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_has_one_spelling() {
        let check = |path: &str, expected: Option<&str>| {
            let mut out = Vec::new();
            let decoded = decode_unreserved(path.as_bytes(), &mut out).map(|()| out);
            assert_eq!(decoded.as_deref(), expected.map(str::as_bytes), "{path}");
        };
        check("/%7Euser/%61", Some("/~user/a"));
        check("/caf%c3%a9", Some("/caf%C3%A9"));
        check("/a%2fb\\c", Some("/a%2Fb%5Cc"));
        check("/%2e%2E/./b", Some("/.././b"));
        for unreadable in ["/%", "/%4", "/%zz", "/a%00", "/%+1"] {
            check(unreadable, None);
        }
    }
}
