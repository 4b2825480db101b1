//! Names and literals as the server sees them: folded, unquoted, cut at 63 bytes, escapes resolved.
//!
//! Two spellings of one name must compare equal, or a trigger would be found under one and missed under the other.
//! PostgreSQL folds only ASCII letters of unquoted names (and in single-byte encodings others, by locale): names with
//! other bytes are marked, and callers treat them as possibly any such name.

use std::borrow::Cow;

use crate::lex::{Kind, Token};

/// PostgreSQL's `NAMEDATALEN` less the terminator.
pub(crate) const NAME_BYTES_MAX: usize = 63;

/// Bytes of a literal that is looked into: a name, a setting's value, a function's body.
pub(crate) const LITERAL_BYTES_MAX: usize = 64 * 1024;

/// A name without quotes, folded if it was written without.
#[derive(Clone, Copy)]
pub(crate) struct Ident {
    bytes: [u8; NAME_BYTES_MAX],
    length: u8,
    /// Written without quotes: it may be a keyword.
    pub(crate) is_plain: bool,
    /// Bytes beyond ASCII or Unicode escapes: equal names may differ in bytes.
    pub(crate) is_odd: bool,
}

impl Ident {
    /// The name of a token, if it is one.
    pub(crate) fn of(text: &[u8], token: Token) -> Option<Self> {
        let raw = token.of(text);
        match token.kind {
            Kind::Word => Some(Self::new(raw.iter().map(u8::to_ascii_lowercase), true, false)),
            Kind::Quoted => Some(Self::new(undoubled(raw, b'"'), false, false)),
            Kind::QuotedUnicode => {
                let quoted = raw.get(2..).unwrap_or_default();
                Some(Self::new(undoubled(quoted, b'"'), false, true))
            }
            _ => None,
        }
    }

    /// Bytes that are a name as the catalogue spells it.
    pub(crate) fn exact(name: &[u8]) -> Self {
        Self::new(name.iter().copied(), false, false)
    }

    fn new(bytes: impl Iterator<Item = u8>, is_plain: bool, is_odd: bool) -> Self {
        let mut ident = Self { bytes: [0; NAME_BYTES_MAX], length: 0, is_plain, is_odd };
        for (slot, byte) in ident.bytes.iter_mut().zip(bytes) {
            *slot = byte;
            ident.length += 1;
            ident.is_odd |= byte >= 0x80;
        }
        ident
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Whether it is this word written without quotes.
    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.is_plain && self.as_bytes() == word.as_bytes()
    }

    pub(crate) fn to_name(self) -> Box<[u8]> {
        self.as_bytes().into()
    }
}

/// What is between the quotes, doubled quotes single.
fn undoubled(raw: &[u8], quote: u8) -> impl Iterator<Item = u8> {
    let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    let mut skip = false;
    inner.iter().copied().filter(move |&byte| {
        skip = byte == quote && !skip;
        byte != quote || skip
    })
}

/// The value of a string literal. `None` for what is not a string, for escapes not resolved here (`\u`, `U&`, bits), and
/// for more than [`LITERAL_BYTES_MAX`].
pub(crate) fn literal(text: &[u8], token: Token) -> Option<Cow<'_, [u8]>> {
    let raw = token.of(text);
    if raw.len() > LITERAL_BYTES_MAX {
        return None;
    }
    match token.kind {
        Kind::Literal => {
            let raw = if raw.first() == Some(&b'\'') { raw } else { raw.get(1..)? };
            let inner = raw.get(1..raw.len().checked_sub(1)?)?;
            if memchr::memchr(b'\'', inner).is_none() {
                return Some(Cow::Borrowed(inner));
            }
            unescape(raw, false).map(Cow::Owned)
        }
        Kind::LiteralEscapes => {
            let raw = if raw.first() == Some(&b'\'') { raw } else { raw.get(1..)? };
            unescape(raw, true).map(Cow::Owned)
        }
        Kind::LiteralDollar => {
            let tag = memchr::memchr(b'$', raw.get(1..)?)? + 2;
            raw.get(tag..raw.len().checked_sub(tag)?).map(Cow::Borrowed)
        }
        _ => None,
    }
}

/// The value of `'…'`, continuations on later lines joined.
fn unescape(raw: &[u8], backslashes: bool) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().skip(1).peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\'' if bytes.next_if_eq(&b'\'').is_some() => value.push(b'\''),
            // The literal ends here, or goes on at the next quote after a line break (and comments).
            b'\'' => skip_to_continuation(&mut bytes),
            b'\\' if backslashes => value.push(escape(&mut bytes)?),
            byte => value.push(byte),
        }
    }
    Some(value)
}

/// Between the parts of a continued literal are spaces and comments to the line's end, which may hold quotes.
fn skip_to_continuation(bytes: &mut std::iter::Peekable<impl Iterator<Item = u8>>) {
    let mut in_comment = false;
    for byte in bytes {
        match byte {
            b'\n' | b'\r' => in_comment = false,
            b'-' => in_comment = true,
            b'\'' if !in_comment => return,
            _ => {}
        }
    }
}

/// One escape after its backslash, by the rules of `xeescape`, `xeoctesc` and `xehexesc`.
fn escape(bytes: &mut std::iter::Peekable<impl Iterator<Item = u8>>) -> Option<u8> {
    let digit = |byte: u8, radix| char::from(byte).to_digit(radix).and_then(|digit| u8::try_from(digit).ok());
    match bytes.next()? {
        b'u' | b'U' => None,
        b'b' => Some(8),
        b'f' => Some(12),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        b'v' => Some(11),
        b'x' if bytes.peek().is_some_and(u8::is_ascii_hexdigit) => {
            let mut value = 0_u8;
            for _ in 0..2 {
                let Some(byte) = bytes.next_if(u8::is_ascii_hexdigit) else { break };
                value = value.wrapping_mul(16).wrapping_add(digit(byte, 16)?);
            }
            Some(value)
        }
        byte @ b'0'..=b'7' => {
            let mut value = digit(byte, 8)?;
            for _ in 0..2 {
                let Some(byte) = bytes.next_if(|byte| matches!(byte, b'0'..=b'7')) else { break };
                value = value.wrapping_mul(8).wrapping_add(digit(byte, 8)?);
            }
            Some(value)
        }
        byte => Some(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lex::{Dialect, Lexer};

    fn first(text: &str) -> Token {
        Lexer::new(text.as_bytes(), Dialect::default()).next().expect("a token")
    }

    fn check_name(text: &str, name: &str, is_plain: bool) {
        let ident = Ident::of(text.as_bytes(), first(text)).expect("a name");
        assert_eq!(String::from_utf8_lossy(ident.as_bytes()), name);
        assert_eq!(ident.is_plain, is_plain, "{text}");
    }

    #[test]
    fn names_are_folded_and_unquoted() {
        check_name("Set_Config", "set_config", true);
        check_name("\"Set_Config\"", "Set_Config", false);
        check_name("\"a\"\"b\"", "a\"b", false);
        check_name("\"\"\"\"", "\"", false);
        check_name(&"a".repeat(70), &"a".repeat(63), true);
    }

    fn check_literal(text: &str, value: Option<&str>) {
        let token = first(text);
        assert_eq!(token.end, text.len(), "{text} is one token");
        let literal = literal(text.as_bytes(), token);
        assert_eq!(literal.as_deref().map(String::from_utf8_lossy).as_deref(), value, "{text}");
    }

    #[test]
    fn literals_have_their_value() {
        check_literal("'a'", Some("a"));
        check_literal("''", Some(""));
        check_literal("''''", Some("'"));
        check_literal("'a''b'", Some("a'b"));
        check_literal(r"'a\b'", Some(r"a\b"));
        check_literal("'a' -- it's\n  'b'", Some("ab"));
        check_literal("N'a'", Some("a"));
        check_literal(r"E'a\'b\\\n\x41\101'", Some("a'b\\\nAA"));
        check_literal("e'a'\n'\\t'", Some("a\t"));
        check_literal(r"E'\u0041'", None);
        check_literal("$$a'b$$", Some("a'b"));
        check_literal("$x$a$$b$x$", Some("a$$b"));
        check_literal("U&'a'", None);
        check_literal("B'01'", None);
        check_literal("12", None);
    }
}
