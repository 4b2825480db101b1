//! One number for all texts that differ only in literals, parameters, comments, spacing and the length of lists.
//!
//! **Intuition.** An application sends few statements, each with countless values. What a statement does to its
//! session hardly ever depends on the values, so it is decided once and found again by this number, in the time it
//! takes to lex the text.
//!
//! **Mechanism.** Tokens are folded as PostgreSQL folds identifiers and mixed into two lanes of 64 bits by keyed
//! multiplication; every literal and parameter counts as the same token. In `IN (…)`, `VALUES …` and `ARRAY[…]` each
//! element is mixed on its own, and an element equal to an earlier one of its list is dropped with its tokens: a list
//! of any length is one fingerprint. The tokens that remain are the condensed text, and the reader sees no others: so
//! equal fingerprints mean equal decisions.
//!
//! **Failure.** Two different statements meet in one fingerprint with probability 2⁻¹²⁸, and nobody who does not know
//! the [`Seed`] can look for such a pair. A text that takes too long ([`WORK_MAX`]) or does not lex has no fingerprint
//! and is not read.

use std::fmt;

use crate::lex::{Dialect, Hint, Kind, Lexer, Token};

/// 128 bits that stand for a statement without its literals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u128);

impl fmt::Display for Fingerprint {
    /// 32 hexadecimal digits.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", self.0)
    }
}

/// Secret numbers that keep clients from making two statements meet in one fingerprint. One per process, random.
#[derive(Clone, Copy)]
pub struct Seed(pub [u64; 4]);

impl fmt::Debug for Seed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Seed(secret)")
    }
}

/// What lexing a text found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Of the whole text.
    pub fingerprint: Fingerprint,
    /// Elements of lists were dropped as repetitions.
    pub is_condensed: bool,
    /// What a comment asks for. Texts that differ in it have different fingerprints.
    pub hint: Option<Hint>,
}

/// Work that one text may take, about a nanosecond each: a token counts six, its bytes one each, those of a
/// string a sixteenth. 0.5 ms leaves the other connections of a worker their turn.
pub const WORK_MAX: usize = 500_000;
/// Measured: `examples/classify_speed.rs`.
const TOKEN_WORK: usize = 6;
/// An operator is also looked through for signs that it may not end with.
const OPERATOR_WORK: usize = 10;
const STRING_BYTES_PER_WORK: usize = 16;
/// Lists within lists that are condensed; deeper ones are taken as they are.
const LISTS_MAX: usize = 8;
/// Different elements remembered per list; further ones are taken as they are.
const ELEMENTS_MAX: usize = 8;

/// The fingerprint of a text. `None` if it does not lex to its end within [`WORK_MAX`].
#[must_use]
#[inline]
pub fn fingerprint(sql: &[u8], dialect: Dialect, seed: &Seed) -> Option<Reading> {
    condense(sql, dialect, seed, &mut ())
}

/// Receives the condensed text's tokens.
pub(crate) trait Sink {
    /// A token; `ordinal` counts the values outside lists, for values outside lists.
    fn push(&mut self, token: Token, ordinal: Option<u32>);
    /// How many tokens there are.
    fn len(&self) -> usize;
    /// Forgets all but the first `len`.
    fn truncate(&mut self, len: usize);
    /// Whether it takes no more, and the rest need not be lexed.
    fn is_full(&self) -> bool {
        false
    }
}

impl Sink for () {
    #[inline]
    fn push(&mut self, _: Token, _: Option<u32>) {}
    #[inline]
    fn len(&self) -> usize {
        0
    }
    #[inline]
    fn truncate(&mut self, _: usize) {}
}

/// A list being condensed.
struct List {
    /// Nesting at which commas part its elements.
    base: u32,
    /// `VALUES`: ends with the first token at `base` that begins no further row.
    is_values: bool,
    outer: Lanes,
    seen: [Lanes; ELEMENTS_MAX],
    seen_count: usize,
    /// Tokens before the element under way, its comma included.
    mark: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Lanes {
    a: u64,
    b: u64,
}

struct Condenser<'a, S> {
    text: &'a [u8],
    seed: &'a Seed,
    lanes: Lanes,
    depth: u32,
    lists: Vec<List>,
    /// What stood before: IN or ARRAY wait for their bracket, VALUES for its first row.
    opener: Opener,
    ordinal: u32,
    is_condensed: bool,
    sink: &'a mut S,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opener {
    None,
    In,
    Array,
    Values,
}

const IN: u64 = chars(b"in");
const ARRAY: u64 = chars(b"array");
const VALUES: u64 = chars(b"values");
const NULL: u64 = chars(b"null");
const TRUE: u64 = chars(b"true");
const FALSE: u64 = chars(b"false");
const DEFAULT: u64 = chars(b"default");

/// At most seven characters as a number, first character lowest, as [`chunk`] reads them.
const fn chars(word: &[u8]) -> u64 {
    let mut number = 0;
    let mut at = word.len();
    while at > 0 {
        at -= 1;
        number = number << 8 | word[at] as u64;
    }
    number
}

const TAG_VALUE: u64 = 0xf1 << 56;
const TAG_WORD: u64 = 0x10 << 56;
const TAG_QUOTED: u64 = 0x20 << 56;
const TAG_UNICODE: u64 = 0x50 << 56;
const TAG_OPERATOR: u64 = 0x60 << 56;
const TAG_OTHER: u64 = 0x30 << 56;
const TAG_ELEMENT: u64 = 0x40 << 56;
const TAG_HINT: u64 = 0x70 << 56;
/// The token's length follows, and then its bytes.
const TAG_LENGTH: u64 = 0x08 << 56;

/// Lexes `sql` once, giving its condensed tokens to `sink`.
#[inline]
pub(crate) fn condense<S: Sink>(sql: &[u8], dialect: Dialect, seed: &Seed, sink: &mut S) -> Option<Reading> {
    let mut condenser = Condenser {
        text: sql,
        seed,
        lanes: Lanes { a: seed.0[0], b: seed.0[1] },
        depth: 0,
        lists: Vec::new(),
        opener: Opener::None,
        ordinal: 0,
        is_condensed: false,
        sink,
    };
    let mut work = 0;
    let mut end = 0;
    let mut lexer = Lexer::new(sql, dialect);
    for token in lexer.by_ref() {
        let length = token.end - token.start;
        let is_long = length > 64 && (token.kind.is_string() || token.kind == Kind::Quoted);
        let bytes = if is_long { length / STRING_BYTES_PER_WORK } else { length };
        let token_work = if token.kind == Kind::Op { OPERATOR_WORK } else { TOKEN_WORK };
        work += token_work + (token.start - end) + bytes;
        let is_bad = matches!(token.kind, Kind::Unterminated | Kind::Junk);
        if work > WORK_MAX || is_bad || condenser.sink.is_full() {
            return None;
        }
        end = token.end;
        condenser.token(token);
    }
    while !condenser.lists.is_empty() {
        condenser.close_list();
    }
    let hint = lexer.hint();
    if let Some(hint) = hint {
        condenser.lanes.mix(TAG_HINT | hint as u64, seed);
    }
    let Lanes { a, b } = condenser.lanes;
    let fingerprint = Fingerprint(u128::from(a) << 64 | u128::from(b));
    Some(Reading { fingerprint, is_condensed: condenser.is_condensed, hint })
}

impl<S: Sink> Condenser<'_, S> {
    #[inline]
    fn token(&mut self, token: Token) {
        if self.opener != Opener::None || !self.lists.is_empty() {
            return self.token_near_list(token);
        }
        self.take(token);
    }

    /// A token inside a list, or right after a word that may open one.
    fn token_near_list(&mut self, token: Token) {
        let opens = match (self.opener, token.kind) {
            (Opener::In, Kind::Open) | (Opener::Array, Kind::OpenBracket) => Some(self.depth + 1),
            (Opener::Values, Kind::Open) => Some(self.depth),
            _ => None,
        };
        let is_values = self.opener == Opener::Values;
        self.opener = Opener::None;
        if let Some(base) = opens
            && self.lists.len() < LISTS_MAX
        {
            return self.open_list(base, is_values, token);
        }
        self.end_lists(token.kind);
        match self.lists.last() {
            Some(list) if token.kind == Kind::Comma && self.depth == list.base => self.end_element(token),
            _ => self.take(token),
        }
    }

    fn open_list(&mut self, base: u32, is_values: bool, token: Token) {
        // The bracket of IN and ARRAY belongs to what is around, that of a row to the row.
        if !is_values {
            self.take(token);
        }
        let blank = Lanes { a: self.seed.0[0], b: self.seed.0[1] };
        self.lists.push(List {
            base,
            is_values,
            outer: self.lanes,
            seen: [blank; ELEMENTS_MAX],
            seen_count: 0,
            mark: self.sink.len(),
        });
        self.lanes = blank;
        if is_values {
            self.take(token);
        }
    }

    /// Closes the lists that a token of this kind ends.
    fn end_lists(&mut self, kind: Kind) {
        while let Some(list) = self.lists.last() {
            let is_closing = matches!(kind, Kind::Close | Kind::CloseBracket);
            let ends = match (list.is_values, is_closing) {
                (true, true) => self.depth <= list.base,
                (true, false) => self.depth <= list.base && !matches!(kind, Kind::Open | Kind::Comma),
                (false, true) => self.depth <= list.base,
                (false, false) => false,
            };
            if !ends {
                return;
            }
            self.close_list();
        }
    }

    /// The element under way is complete: it is kept, or dropped if the list has one like it.
    fn settle_element(&mut self) {
        let element = self.lanes;
        let Some(list) = self.lists.last_mut() else { return };
        let is_repeated = list.seen.iter().take(list.seen_count).any(|seen| *seen == element);
        if is_repeated {
            self.sink.truncate(list.mark);
            self.is_condensed = true;
            return;
        }
        if let Some(slot) = list.seen.get_mut(list.seen_count) {
            *slot = element;
            list.seen_count += 1;
        }
        let mut outer = list.outer;
        outer.mix(TAG_ELEMENT, self.seed);
        outer.mix(element.a, self.seed);
        outer.mix(element.b, self.seed);
        list.outer = outer;
    }

    fn end_element(&mut self, comma: Token) {
        self.settle_element();
        if let Some(list) = self.lists.last_mut() {
            list.mark = self.sink.len();
        }
        self.lanes = Lanes { a: self.seed.0[0], b: self.seed.0[1] };
        self.sink.push(comma, None);
    }

    fn close_list(&mut self) {
        self.settle_element();
        if let Some(list) = self.lists.pop() {
            self.lanes = list.outer;
        }
    }

    /// Mixes a token in.
    #[inline]
    fn take(&mut self, token: Token) {
        let mut ordinal = None;
        match token.kind {
            Kind::Word => self.word(token),
            kind if kind.is_value() => {
                self.lanes.mix(TAG_VALUE, self.seed);
                if self.lists.is_empty() {
                    ordinal = Some(self.ordinal);
                    self.ordinal = self.ordinal.saturating_add(1);
                }
            }
            Kind::Quoted => self.bytes(token, TAG_QUOTED, false),
            Kind::QuotedUnicode => self.bytes(token, TAG_UNICODE, false),
            Kind::Open | Kind::OpenBracket => {
                self.depth = self.depth.saturating_add(1);
                self.lanes.mix(TAG_OTHER | token.kind as u64, self.seed);
            }
            Kind::Close | Kind::CloseBracket => {
                self.depth = self.depth.saturating_sub(1);
                self.lanes.mix(TAG_OTHER | token.kind as u64, self.seed);
            }
            Kind::Op => self.bytes(token, TAG_OPERATOR, false),
            kind => self.lanes.mix(TAG_OTHER | kind as u64, self.seed),
        }
        self.sink.push(token, ordinal);
    }

    #[inline]
    fn word(&mut self, token: Token) {
        let length = token.end - token.start;
        if length > 7 {
            return self.bytes(token, TAG_WORD, true);
        }
        let word = fold(chunk(self.text, token.start, length));
        match word {
            IN => self.opener = Opener::In,
            ARRAY => self.opener = Opener::Array,
            VALUES => self.opener = Opener::Values,
            NULL | TRUE | FALSE | DEFAULT if !self.lists.is_empty() => {
                return self.lanes.mix(TAG_VALUE, self.seed);
            }
            _ => {}
        }
        self.lanes.mix(TAG_WORD | word, self.seed);
    }

    /// Mixes in a token by its bytes: a head with its length, then chunks of eight.
    #[inline]
    fn bytes(&mut self, token: Token, tag: u64, folded: bool) {
        let length = token.end - token.start;
        self.lanes.mix(tag | TAG_LENGTH | length as u64 & 0xffff_ffff, self.seed);
        let mut at = token.start;
        while at < token.end {
            let word = chunk(self.text, at, token.end - at);
            self.lanes.mix(if folded { fold(word) } else { word }, self.seed);
            at += 8;
        }
    }
}

impl Lanes {
    #[inline]
    fn mix(&mut self, word: u64, seed: &Seed) {
        self.a = multiply(self.a ^ word, seed.0[2]);
        self.b = multiply(self.b ^ word.rotate_left(32), seed.0[3]);
    }
}

/// The two halves of a product, folded together.
#[inline]
#[allow(clippy::cast_possible_truncation)] // the low half is what is wanted
pub(crate) fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b | 1);
    (product as u64) ^ (product >> 64) as u64
}

/// At most eight bytes from `at`, first byte lowest.
#[inline]
pub(crate) fn chunk(text: &[u8], at: usize, length: usize) -> u64 {
    let length = length.min(8);
    if let Some(bytes) = text.get(at..at + 8)
        && let Ok(bytes) = <[u8; 8]>::try_from(bytes)
    {
        let word = u64::from_le_bytes(bytes);
        return if length == 8 { word } else { word & ((1 << (8 * length)) - 1) };
    }
    let bytes = text.get(at..at + length).unwrap_or_default();
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// ASCII letters in lower case, eight bytes at once.
#[inline]
const fn fold(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & (0x7f * ONES);
    let at_least_a = low + (0x80 - b'A' as u64) * ONES;
    let beyond_z = low + (0x80 - b'Z' as u64 - 1) * ONES;
    let upper = at_least_a & !beyond_z & !word & (0x80 * ONES);
    word | upper >> 2
}
