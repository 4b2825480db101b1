//! PostgreSQL's lexer, exactly: where each token of a text begins and ends.
//!
//! **Intuition.** Whether `'; DROP …` is inside a literal is decided by the lexer alone. One that differs from the
//! server's in a single corner (a backslash, a nested comment, a literal continued on the next line) can be talked
//! into reading another statement than the one that runs.
//!
//! **Mechanism.** The rules of `src/backend/parser/scan.l`, by hand: nested comments; `'…'`, `E'…'`, `B'…'`, `X'…'`,
//! `N'…'`, `U&'…'`, all continued across a line break; `$tag$…$tag$`; quoted identifiers; parameters; numbers of all
//! bases; operators with the rule about trailing signs. Spaces and comments are skipped. Where versions differ (a
//! number followed at once by letters is an error since 15) the tokens of the oldest are given: a newer server
//! refuses the text.
//!
//! **Failure.** What does not end is one token [`Kind::Unterminated`] up to the text's end; bytes outside every rule
//! are [`Kind::Junk`]. Both mean that the server answers with a syntax error and runs nothing of the text. So that no
//! text takes long, a word or run of spaces of 64 KiB, a comment of 512 KiB, or a string with 64 Ki escapes is taken for
//! one that does not end.

use memchr::{memchr, memchr2, memmem};

/// What of a session's settings changes how its texts are lexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// `standard_conforming_strings`: backslashes in plain literals are ordinary bytes.
    pub standard_conforming_strings: bool,
    /// The client's encoding never uses a byte below 0x80 as a trailing byte. False for SJIS, BIG5, GBK, UHC, GB18030,
    /// JOHAB and SHIFT_JIS_2004, in which a quote or backslash may be half of a character: such texts are not read.
    pub ascii_safe: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { standard_conforming_strings: true, ascii_safe: true }
    }
}

impl Dialect {
    /// The dialect for the values of `standard_conforming_strings` and `client_encoding` as a server reports them.
    /// An encoding that is not known to be safe is taken for unsafe.
    #[must_use]
    pub fn of(standard_conforming_strings: &[u8], client_encoding: &[u8]) -> Self {
        Self {
            standard_conforming_strings: standard_conforming_strings.eq_ignore_ascii_case(b"on"),
            ascii_safe: ENCODINGS_SAFE.iter().any(|safe| client_encoding.eq_ignore_ascii_case(safe)),
        }
    }
}

/// Server encodings of PostgreSQL (`src/include/mb/pg_wchar.h`): those whose bytes below 0x80 are always ASCII.
const ENCODINGS_SAFE: &[&[u8]] = &[
    b"SQL_ASCII",
    b"EUC_JP",
    b"EUC_CN",
    b"EUC_KR",
    b"EUC_TW",
    b"EUC_JIS_2004",
    b"UTF8",
    b"MULE_INTERNAL",
    b"LATIN1",
    b"LATIN2",
    b"LATIN3",
    b"LATIN4",
    b"LATIN5",
    b"LATIN6",
    b"LATIN7",
    b"LATIN8",
    b"LATIN9",
    b"LATIN10",
    b"WIN1256",
    b"WIN1258",
    b"WIN866",
    b"WIN874",
    b"KOI8R",
    b"WIN1251",
    b"WIN1252",
    b"ISO_8859_5",
    b"ISO_8859_6",
    b"ISO_8859_7",
    b"ISO_8859_8",
    b"WIN1250",
    b"WIN1253",
    b"WIN1254",
    b"WIN1255",
    b"WIN1257",
    b"KOI8U",
];

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A keyword or an identifier without quotes.
    Word,
    /// `"…"`.
    Quoted,
    /// `U&"…"`.
    QuotedUnicode,
    /// `'…'` without escapes by backslash, `N'…'` included.
    Literal,
    /// `E'…'`, and `'…'` while `standard_conforming_strings` is off.
    LiteralEscapes,
    /// `B'…'` and `X'…'`.
    LiteralBits,
    /// `U&'…'`.
    LiteralUnicode,
    /// `$tag$…$tag$`.
    LiteralDollar,
    /// A number without sign.
    Number,
    /// `$1`.
    Param,
    /// An operator, `=>` and single signs included.
    Op,
    /// `::`.
    Typecast,
    /// `(`.
    Open,
    /// `)`.
    Close,
    /// `[`.
    OpenBracket,
    /// `]`.
    CloseBracket,
    /// `,`.
    Comma,
    /// `;`.
    Semicolon,
    /// `.`.
    Dot,
    /// `..`.
    DotDot,
    /// `:`.
    Colon,
    /// `:=`.
    ColonEquals,
    /// A byte that begins nothing.
    Junk,
    /// A literal, quoted identifier or comment that does not end.
    Unterminated,
}

impl Kind {
    /// A constant or a parameter: what a fingerprint leaves out.
    #[must_use]
    #[inline]
    pub const fn is_value(self) -> bool {
        matches!(
            self,
            Self::Literal
                | Self::LiteralEscapes
                | Self::LiteralBits
                | Self::LiteralUnicode
                | Self::LiteralDollar
                | Self::Number
                | Self::Param
        )
    }

    /// A string of any form.
    #[must_use]
    pub const fn is_string(self) -> bool {
        self.is_value() && !matches!(self, Self::Number | Self::Param)
    }

    /// A name or keyword of any form.
    #[must_use]
    pub const fn is_name(self) -> bool {
        matches!(self, Self::Word | Self::Quoted | Self::QuotedUnicode)
    }
}

/// A token: bytes `start..end` of the text, both within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its first byte.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

impl Token {
    /// The token's bytes.
    #[must_use]
    #[inline]
    pub fn of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

/// Tokens of a text, one after the other. Cheap to copy: a copy looks ahead.
#[derive(Clone, Copy, Debug)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    /// Where the token under way must have ended, unless it is a string: no run of bytes is looked through for longer.
    limit: usize,
    backslashes: bool,
    /// Up to here there are only signs, each an operator of its own: a long run of them is looked through once.
    signs_until: usize,
    hint: Option<Hint>,
}

/// What a comment asks for: `/*tenfold: primary*/` or `/*tenfold: replica*/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    /// The primary, whatever the statement is.
    Primary,
    /// A replica, although a function or table in it may not be known to be harmless.
    Replica,
}

impl Hint {
    /// What follows `/*`, if it is a hint. One in capitals, with more in it, or within another comment is none.
    fn of(comment: &[u8]) -> Option<Self> {
        let rest = comment.trim_ascii_start().strip_prefix(b"tenfold:")?.trim_ascii_start();
        let (hint, rest) = match (rest.strip_prefix(b"primary"), rest.strip_prefix(b"replica")) {
            (Some(rest), _) => (Self::Primary, rest),
            (_, Some(rest)) => (Self::Replica, rest),
            _ => return None,
        };
        rest.trim_ascii_start().starts_with(b"*/").then_some(hint)
    }
}

impl<'a> Lexer<'a> {
    /// From the beginning of `text`. The caller has seen to `Dialect::ascii_safe`.
    #[must_use]
    #[inline]
    pub fn new(text: &'a [u8], dialect: Dialect) -> Self {
        Self {
            text,
            at: 0,
            limit: 0,
            backslashes: !dialect.standard_conforming_strings,
            signs_until: 0,
            hint: None,
        }
    }

    /// What the comments so far ask for; of several hints the primary's.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        self.hint
    }

    #[inline]
    fn byte(&self, at: usize) -> Option<u8> {
        self.text.get(at).copied()
    }

    #[inline]
    fn has(&self, at: usize, byte: u8) -> bool {
        self.byte(at) == Some(byte)
    }

    /// The first position from `at` whose byte has none of the classes `mask`.
    #[inline]
    fn skip_class(&self, at: usize, mask: u8) -> usize {
        let end = self.limit.min(self.text.len());
        let window = self.text.get(at..end).unwrap_or_default();
        at + window.iter().position(|&byte| CLASSES[usize::from(byte)] & mask == 0).unwrap_or(window.len())
    }

    #[inline]
    fn is_class(&self, at: usize, mask: u8) -> bool {
        self.text.get(at).is_some_and(|&byte| CLASSES[usize::from(byte)] & mask != 0)
    }

    /// Past spaces and comments. `Err`: a comment that does not end begins there.
    #[inline]
    fn skip_blank(&mut self, at: usize) -> Result<usize, usize> {
        let at = self.skip_class(at, SPACE);
        if at >= self.limit {
            return Err(at);
        }
        match self.byte(at) {
            Some(b'-') if self.has(at + 1, b'-') => self.skip_comments(at),
            Some(b'/') if self.has(at + 1, b'*') => self.skip_comments(at),
            _ => Ok(at),
        }
    }

    #[cold]
    fn skip_comments(&mut self, mut at: usize) -> Result<usize, usize> {
        loop {
            at = self.skip_class(at, SPACE);
            if self.has(at, b'-') && self.has(at + 1, b'-') {
                at = self.line_end(at).ok_or(at)?;
            } else if self.has(at, b'/') && self.has(at + 1, b'*') {
                self.take_hint(at);
                at = self.comment_end(at).ok_or(at)?;
            } else {
                return Ok(at);
            }
            if at >= self.limit {
                return Err(at);
            }
        }
    }

    /// Remembers what the comment that begins at `at` asks for.
    fn take_hint(&mut self, at: usize) {
        let end = self.text.len().min(at + HINT_BYTES_MAX);
        let hint = self.text.get(at + 2..end).and_then(Hint::of);
        self.hint = match (self.hint, hint) {
            (Some(before), Some(hint)) => Some(before.min(hint)),
            (before, hint) => before.or(hint),
        };
    }

    /// The end of the comment to the line's end that begins at `at`; `None`: too long.
    fn line_end(&self, at: usize) -> Option<usize> {
        let end = self.text.len().min(at + COMMENT_BYTES_MAX);
        let rest = self.text.get(at..end)?;
        let found = memchr2(b'\n', b'\r', rest).map(|length| at + length);
        found.or_else(|| (end == self.text.len()).then_some(end))
    }

    /// One past the end of the comment that begins at `at`; comments nest.
    fn comment_end(&self, at: usize) -> Option<usize> {
        let mut depth = 1_usize;
        let mut at = at + 2;
        let text = self.text.get(..self.text.len().min(at + COMMENT_BYTES_MAX))?;
        while depth > 0 {
            if at >= self.limit && depth > 1 {
                return None;
            }
            at += memchr2(b'*', b'/', text.get(at..)?)?;
            match (self.byte(at), self.byte(at + 1)) {
                (Some(b'*'), Some(b'/')) => (depth, at) = (depth - 1, at + 2),
                (Some(b'/'), Some(b'*')) => (depth, at) = (depth + 1, at + 2),
                _ => at += 1,
            }
        }
        Some(at)
    }

    #[inline]
    fn token(&mut self, kind: Kind, start: usize, end: usize) -> Option<Token> {
        if end >= self.limit {
            return self.unterminated(start);
        }
        self.at = end;
        Some(Token { kind, start, end })
    }

    fn unterminated(&mut self, start: usize) -> Option<Token> {
        self.string_token(Kind::Unterminated, start, self.text.len())
    }

    /// A token of any length.
    fn string_token(&mut self, kind: Kind, start: usize, end: usize) -> Option<Token> {
        self.at = end;
        Some(Token { kind, start, end })
    }

    #[inline]
    fn word(&mut self, start: usize) -> Option<Token> {
        let end = self.skip_class(start + 1, IDENT);
        if end == start + 1 {
            match (self.text[start] | 0x20, self.byte(end), self.byte(end + 1)) {
                (b'e', Some(b'\''), _) => return self.string(Kind::LiteralEscapes, start, end),
                (b'n', Some(b'\''), _) if self.backslashes => {
                    return self.string(Kind::LiteralEscapes, start, end);
                }
                (b'n', Some(b'\''), _) => return self.string(Kind::Literal, start, end),
                (b'b' | b'x', Some(b'\''), _) => return self.string(Kind::LiteralBits, start, end),
                (b'u', Some(b'&'), Some(b'\'')) => return self.string(Kind::LiteralUnicode, start, end + 1),
                (b'u', Some(b'&'), Some(b'"')) => return self.quoted(Kind::QuotedUnicode, start, end + 1),
                _ => {}
            }
        }
        self.token(Kind::Word, start, end)
    }

    /// A quoted identifier whose opening quote is at `quote`.
    fn quoted(&mut self, kind: Kind, start: usize, quote: usize) -> Option<Token> {
        let mut at = quote + 1;
        for _ in 0..ESCAPES_MAX {
            let Some(length) = memchr(b'"', self.text.get(at..).unwrap_or_default()) else {
                return self.unterminated(start);
            };
            at += length + 1;
            if !self.has(at, b'"') {
                return self.string_token(kind, start, at);
            }
            at += 1;
        }
        self.unterminated(start)
    }

    /// A string whose opening quote is at `quote`, with what continues it on later lines.
    fn string(&mut self, kind: Kind, start: usize, quote: usize) -> Option<Token> {
        let mut at = quote + 1;
        for _ in 0..ESCAPES_MAX {
            let rest = self.text.get(at..).unwrap_or_default();
            let found = match kind {
                Kind::LiteralEscapes => memchr2(b'\'', b'\\', rest),
                _ => memchr(b'\'', rest),
            };
            let Some(length) = found else { return self.unterminated(start) };
            at += length;
            if self.has(at, b'\\') {
                at += 2;
                continue;
            }
            at += 1;
            if kind != Kind::LiteralBits && self.has(at, b'\'') {
                at += 1;
            } else if let Some(next) = self.continued(at) {
                at = next;
            } else {
                return self.string_token(kind, start, at);
            }
        }
        self.unterminated(start)
    }

    /// One past the quote that continues a string which ended at `at`: there must be a line break before it.
    fn continued(&self, at: usize) -> Option<usize> {
        if !self.is_class(at, SPACE) && !self.has(at, b'-') {
            return None;
        }
        let mut at = at;
        let mut seen_newline = false;
        let limit = at + RUN_BYTES_MAX;
        while at < limit {
            match self.byte(at)? {
                b'\n' | b'\r' => (seen_newline, at) = (true, at + 1),
                byte if CLASSES[usize::from(byte)] & SPACE != 0 => at += 1,
                b'-' if self.has(at + 1, b'-') => at = self.line_end(at).unwrap_or(limit),
                b'\'' if seen_newline => return Some(at + 1),
                _ => return None,
            }
        }
        // Too long to say: the string has no end.
        Some(self.text.len())
    }

    /// `$`: a parameter, a dollar-quoted string, or junk.
    fn dollar(&mut self, start: usize) -> Option<Token> {
        if self.is_class(start + 1, DIGIT) {
            let end = self.skip_class(start + 1, DIGIT);
            return self.token(Kind::Param, start, end);
        }
        let tag_end = match self.is_class(start + 1, IDENT_START) {
            true => self.skip_tag(start + 1),
            false => start + 1,
        };
        if !self.has(tag_end, b'$') {
            return self.token(Kind::Junk, start, start + 1);
        }
        let (tag, body) = self.text.split_at(tag_end + 1);
        match memmem::find(body, &tag[start..]) {
            Some(length) => {
                let end = tag_end + 1 + length + (tag_end + 1 - start);
                self.string_token(Kind::LiteralDollar, start, end)
            }
            None => self.unterminated(start),
        }
    }

    fn skip_tag(&self, mut at: usize) -> usize {
        while self.is_class(at, IDENT) && !self.has(at, b'$') && at < self.limit {
            at += 1;
        }
        at
    }

    /// A number that begins with a digit, or with a dot before one.
    #[inline]
    fn number(&mut self, start: usize) -> Option<Token> {
        let mut end = self.skip_class(start, DIGIT);
        if !matches!(
            self.byte(end),
            Some(b'.' | b'_' | b'e' | b'E' | b'x' | b'X' | b'o' | b'O' | b'b' | b'B')
        ) {
            return self.token(Kind::Number, start, end);
        }
        if end == start + 1 && self.has(start, b'0') {
            let end = self.based(start + 1);
            if end > start + 1 {
                return self.token(Kind::Number, start, end);
            }
        }
        end = self.digits(start);
        if self.has(end, b'.') && !(end > start && self.has(end + 1, b'.')) {
            end = self.digits(end + 1);
        }
        if matches!(self.byte(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.byte(end + 1), Some(b'+' | b'-')));
            if self.is_class(end + 1 + sign, DIGIT) {
                end = self.digits(end + 1 + sign);
            }
        }
        self.token(Kind::Number, start, end)
    }

    /// Digits with single underscores between them.
    fn digits(&self, at: usize) -> usize {
        let mut at = self.skip_class(at, DIGIT);
        while self.has(at, b'_') && self.is_class(at + 1, DIGIT) && at > 0 && self.is_class(at - 1, DIGIT) {
            at = self.skip_class(at + 1, DIGIT);
        }
        at
    }

    /// The end of `x1F`, `o17` or `b01` after a zero; `at` itself if there is none.
    fn based(&self, at: usize) -> usize {
        let is_digit: fn(u8) -> bool = match self.byte(at) {
            Some(b'x' | b'X') => |byte| byte.is_ascii_hexdigit(),
            Some(b'o' | b'O') => |byte| matches!(byte, b'0'..=b'7'),
            Some(b'b' | b'B') => |byte| matches!(byte, b'0' | b'1'),
            _ => return at,
        };
        let mut end = at + 1;
        loop {
            let skip = usize::from(self.has(end, b'_'));
            if !self.byte(end + skip).is_some_and(is_digit) || end >= self.limit {
                break;
            }
            end += skip + 1;
        }
        if end == at + 1 { at } else { end }
    }

    /// As `operator` in scan.l: cut at a comment's start; a trailing sign stays only beside one of ``~!@#^&|`?%``.
    fn operator(&mut self, start: usize) -> Option<Token> {
        if start < self.signs_until {
            return self.token(Kind::Op, start, start + 1);
        }
        let run = self.skip_class(start, OPERATOR);
        let mut end = start + 1;
        while end < run {
            let pair = (self.text[end], self.byte(end + 1));
            if matches!(pair, (b'/', Some(b'*')) | (b'-', Some(b'-'))) {
                break;
            }
            end += 1;
        }
        let operator = &self.text[start..end];
        let keeps_sign = operator.iter().any(|byte| b"~!@#^&|`?%".contains(byte));
        if !keeps_sign {
            self.signs_until = end;
            while end > start + 1 && matches!(self.text[end - 1], b'+' | b'-') {
                end -= 1;
            }
        }
        self.token(Kind::Op, start, end)
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    #[inline]
    fn next(&mut self) -> Option<Token> {
        self.limit = self.at + RUN_BYTES_MAX;
        let at = match self.skip_blank(self.at) {
            Ok(at) => at,
            Err(comment) => return self.unterminated(comment),
        };
        let byte = self.byte(at)?;
        self.limit = at + RUN_BYTES_MAX;
        let class = CLASSES[usize::from(byte)];
        if class & IDENT_START != 0 {
            return self.word(at);
        }
        if class & DIGIT != 0 {
            return self.number(at);
        }
        let (kind, length) = match byte {
            b',' => (Kind::Comma, 1),
            b'(' => (Kind::Open, 1),
            b')' => (Kind::Close, 1),
            b'\'' if self.backslashes => return self.string(Kind::LiteralEscapes, at, at),
            b'\'' => return self.string(Kind::Literal, at, at),
            b'$' => return self.dollar(at),
            b'"' => return self.quoted(Kind::Quoted, at, at),
            b';' => (Kind::Semicolon, 1),
            b'[' => (Kind::OpenBracket, 1),
            b']' => (Kind::CloseBracket, 1),
            b'.' if self.has(at + 1, b'.') => (Kind::DotDot, 2),
            b'.' if self.is_class(at + 1, DIGIT) => return self.number(at),
            b'.' => (Kind::Dot, 1),
            b':' if self.has(at + 1, b':') => (Kind::Typecast, 2),
            b':' if self.has(at + 1, b'=') => (Kind::ColonEquals, 2),
            b':' => (Kind::Colon, 1),
            _ if class & OPERATOR != 0 => return self.operator(at),
            _ => (Kind::Junk, 1),
        };
        self.token(kind, at, at + length)
    }
}

/// Bytes of one identifier, operator, number or run of spaces; a text with a longer one does not lex.
const RUN_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a comment that is a hint.
const HINT_BYTES_MAX: usize = 64;
/// Bytes of one comment.
const COMMENT_BYTES_MAX: usize = 512 * 1024;
/// Doubled quotes, backslashes and continuations in one string.
const ESCAPES_MAX: usize = 64 * 1024;

const SPACE: u8 = 1;
const IDENT_START: u8 = 2;
/// What may follow the first byte of an identifier.
const IDENT: u8 = 4;
const DIGIT: u8 = 8;
const OPERATOR: u8 = 16;

const CLASSES: [u8; 256] = {
    let mut classes = [0_u8; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation)] // below 256
        let class = class_of(byte as u8);
        classes[byte] = class;
        byte += 1;
    }
    classes
};

const fn class_of(byte: u8) -> u8 {
    match byte {
        b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => SPACE,
        b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => IDENT_START | IDENT,
        b'0'..=b'9' => DIGIT | IDENT,
        b'$' => IDENT,
        b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' => OPERATOR,
        b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' => OPERATOR,
        _ => 0,
    }
}
