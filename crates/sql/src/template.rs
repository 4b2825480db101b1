//! Texts that differ from an earlier one in numbers and strings only, recognised without lexing.
//!
//! **Intuition.** An application that writes its values into the text sends the same text over and over with other
//! digits in the same places. Comparing what is around those places is several times cheaper than lexing.
//!
//! **Mechanism.** A template is a text that was lexed, with *holes* where it has a plain number (digits only) or a plain
//! string (`'…'` without a quote inside). A text fits if all between the holes is equal, byte for byte, and each hole is
//! filled with digits, or with a string that ends at its first quote. Lexing goes from left to right and looks at no byte
//! of a value to decide where the next token begins, so a text that fits has the template's tokens, and the
//! template's fingerprint. What could make a value reach beyond its hole (`1.5`, `0x1F`, `'it''s'`, a string that goes on
//! in the next line) is no hole, or does not fit. Templates stand in a table of fixed size, found by a hash of the text
//! up to its first digit or quote.
//!
//! **Failure.** A text that fits nothing is lexed. Templates push each other out; a client that makes up statements
//! costs the others their short cut, not their answer. The hash is keyed by the process's seed.

use std::sync::Arc;

use memchr::memchr;

use crate::decision::Decision;
use crate::fingerprint::{Seed, chunk, multiply};
use crate::lex::{Dialect, Kind, Lexer};

/// Longer texts are always lexed.
pub(crate) const TEXT_BYTES_MAX: usize = 1_024;
/// Values of one text; a text with more is always lexed.
const HOLES_MAX: usize = 32;
/// Templates kept: 1 KiB of text each at most.
const SETS: usize = 256;
/// Templates that share a place in the table.
const WAYS: usize = 2;
/// Bytes of a text that are looked at to find its place.
const BEGINNING_BYTES_MAX: usize = 128;

/// What a template's decision was made under; a text is recognised only under the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Under {
    pub(crate) dialect: Dialect,
    /// See `Catalogue::mark`.
    pub(crate) catalogue: (u64, bool),
    /// The search path's number; 0: none given.
    pub(crate) path: u64,
}

/// A table of templates.
#[derive(Debug)]
pub(crate) struct Templates {
    sets: Box<[[Option<Box<Template>>; WAYS]]>,
    seed: Seed,
}

#[derive(Debug)]
struct Template {
    text: Box<[u8]>,
    holes: Box<[Hole]>,
    under: Under,
    decision: Arc<Decision>,
}

/// A value's place in the template's text.
#[derive(Clone, Copy, Debug)]
struct Hole {
    start: usize,
    end: usize,
    is_string: bool,
}

impl Templates {
    pub(crate) fn new(seed: Seed) -> Self {
        Self { sets: (0..SETS).map(|_| [const { None }; WAYS]).collect(), seed }
    }

    /// The decision of the template that `sql` fits.
    #[inline]
    pub(crate) fn find(&mut self, sql: &[u8], under: Under) -> Option<&Arc<Decision>> {
        if sql.len() > TEXT_BYTES_MAX {
            return None;
        }
        let at = place(sql, &self.seed);
        let set = self.sets.get_mut(at)?;
        if !set[0].as_ref().is_some_and(|template| template.fits(sql, under)) {
            if !set[1].as_ref().is_some_and(|template| template.fits(sql, under)) {
                return None;
            }
            set.swap(0, 1);
        }
        set[0].as_ref().map(|template| &template.decision)
    }

    /// Remembers a text that was lexed, in the place of the one asked for longest ago.
    pub(crate) fn learn(&mut self, sql: &[u8], under: Under, decision: &Arc<Decision>) {
        if sql.len() > TEXT_BYTES_MAX {
            return;
        }
        let Some(holes) = holes(sql, under.dialect) else { return };
        let at = place(sql, &self.seed);
        let template = Template { text: sql.into(), holes, under, decision: Arc::clone(decision) };
        if let Some(set) = self.sets.get_mut(at) {
            set.swap(0, 1);
            set[0] = Some(Box::new(template));
        }
    }
}

impl Template {
    #[inline]
    fn fits(&self, sql: &[u8], under: Under) -> bool {
        if self.under != under {
            return false;
        }
        let mut at = 0;
        let mut from = 0;
        for hole in &self.holes {
            let (Some(around), Some(rest)) = (self.text.get(from..hole.start), sql.get(at..)) else {
                return false;
            };
            if !rest.starts_with(around) {
                return false;
            }
            at += around.len();
            let filled = match hole.is_string {
                false => sql.iter().skip(at).take_while(|byte| byte.is_ascii_digit()).count(),
                true => string_len(sql.get(at..).unwrap_or_default()),
            };
            if filled == 0 {
                return false;
            }
            at += filled;
            from = hole.end;
        }
        sql.get(at..) == self.text.get(from..)
    }
}

/// Bytes of the plain string that `text` begins with, both quotes included; 0 if it begins with none.
#[inline]
fn string_len(text: &[u8]) -> usize {
    match text.split_first() {
        Some((b'\'', rest)) => memchr(b'\'', rest).map_or(0, |length| length + 2),
        _ => 0,
    }
}

/// Where a text has plain values; `None`: it does not lex, or has too many.
fn holes(sql: &[u8], dialect: Dialect) -> Option<Box<[Hole]>> {
    let mut holes = Vec::new();
    for token in Lexer::new(sql, dialect) {
        let text = token.of(sql);
        let is_string = match token.kind {
            Kind::Unterminated | Kind::Junk => return None,
            // A number goes on with one of these.
            Kind::Number if !matches!(sql.get(token.end), Some(b'.' | b'_' | b'a'..=b'z' | b'A'..=b'Z')) => {
                if !text.iter().all(u8::is_ascii_digit) {
                    continue;
                }
                false
            }
            Kind::Literal if string_len(text) == text.len() => true,
            _ => continue,
        };
        if holes.len() == HOLES_MAX {
            return None;
        }
        holes.push(Hole { start: token.start, end: token.end, is_string });
    }
    Some(holes.into())
}

/// The set that a text belongs to, by its beginning up to the first digit or quote.
#[inline]
#[allow(clippy::cast_possible_truncation)] // only some bits are wanted
fn place(sql: &[u8], seed: &Seed) -> usize {
    let mut hash = seed.0[0];
    let end = sql.len().min(BEGINNING_BYTES_MAX);
    let mut at = 0;
    while at < end {
        let length = (end - at).min(8);
        let word = chunk(sql, at, length);
        let values = digits_and_quotes(word);
        if values != 0 {
            // What stands before the first of them.
            let before = values.trailing_zeros() & !7;
            hash = multiply(hash ^ (word & ((1_u64 << before) - 1)), seed.0[2]);
            break;
        }
        hash = multiply(hash ^ word, seed.0[2]);
        at += 8;
    }
    hash as usize % SETS
}

/// The high bit of each byte that is a digit or a quote. Bytes above the lowest such byte may be marked wrongly.
#[inline]
const fn digits_and_quotes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    // `c ^ 0x30` is below ten for digits, `c ^ 0x27` is nothing for quotes.
    let digit = word ^ (b'0' as u64 * ONES);
    let quote = word ^ (b'\'' as u64 * ONES);
    let below_ten = digit.wrapping_sub(10 * ONES) & !digit & HIGH;
    let zero = quote.wrapping_sub(ONES) & !quote & HIGH;
    below_ten | zero
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::fingerprint;

    const SEED: Seed = Seed([3, 5, 0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f]);

    fn under() -> Under {
        Under { dialect: Dialect::default(), catalogue: (1, false), path: 0 }
    }

    fn learned(sql: &str) -> Templates {
        let mut templates = Templates::new(SEED);
        let reading = fingerprint(sql.as_bytes(), Dialect::default(), &SEED).expect("it lexes");
        let decision = Arc::new(Decision::unknown(reading.fingerprint));
        templates.learn(sql.as_bytes(), under(), &decision);
        templates
    }

    fn fits(template: &str, sql: &str) -> bool {
        learned(template).find(sql.as_bytes(), under()).is_some()
    }

    #[test]
    fn other_values_fit() {
        assert!(fits("SELECT 1", "SELECT 22222222222222222222"));
        assert!(fits("SELECT a FROM t WHERE id = 5;", "SELECT a FROM t WHERE id = 77;"));
        assert!(fits(
            "UPDATE t SET a = 'x', b = 3 WHERE c='y'",
            "UPDATE t SET a = '', b = 31 WHERE c='long; --'"
        ));
        assert!(fits("SELECT '1', 2", "SELECT '2', 1"));
        assert!(fits("SELECT $1", "SELECT $1"));
        assert!(fits("", ""));
    }

    #[test]
    fn what_reaches_beyond_its_hole_does_not_fit() {
        for (template, sql) in [
            ("SELECT 1", "SELECT 1.5"),
            ("SELECT 1", "SELECT 1e5"),
            ("SELECT 0", "SELECT 0x1F"),
            ("SELECT 1", "SELECT 1_0"),
            ("SELECT 1", "SELECT 1 "),
            ("SELECT 1", "SELECT "),
            ("SELECT 1", "SELECT a1"),
            ("SELECT 'a'", "SELECT 'a''b'"),
            ("SELECT 'a'", "SELECT 'a'\n'b'"),
            ("SELECT 'a'", "SELECT 'a"),
            ("SELECT 'a'", "SELECT E'a'"),
            ("SELECT 'a'", "SELECT \"a\""),
            ("SELECT $1", "SELECT $2"),
            ("SELECT 1a", "SELECT 2a"),
            ("SELECT 1.5", "SELECT 2.5"),
            ("SELECT 1", "SELECT 'a'"),
        ] {
            assert!(!fits(template, sql), "{template:?} took {sql:?}");
        }
    }

    #[test]
    fn only_the_same_dialect_and_catalogue_will_do() {
        let mut templates = learned("SELECT 'a'");
        let mut other = under();
        other.dialect.standard_conforming_strings = false;
        assert!(templates.find(b"SELECT 'a'", other).is_none());
        assert!(templates.find(b"SELECT 'a'", Under { catalogue: (2, false), ..under() }).is_none());
        assert!(templates.find(b"SELECT 'a'", Under { catalogue: (1, true), ..under() }).is_none());
        assert!(templates.find(b"SELECT 'a'", under()).is_some());
    }

    #[test]
    fn the_first_digit_or_quote_is_found() {
        for byte in 0..=255_u8 {
            let is_value = byte.is_ascii_digit() || byte == b'\'';
            for at in 0..8 {
                let mut bytes = [b'a'; 8];
                bytes[at] = byte;
                let found = digits_and_quotes(u64::from_le_bytes(bytes));
                assert_eq!(found != 0, is_value, "{byte}");
                assert!(!is_value || found.trailing_zeros() as usize / 8 == at, "{byte} at {at}");
            }
        }
    }

    /// Whatever fits has the fingerprint that lexing it gives: random texts made of the pieces that lexers trip over.
    #[test]
    fn what_fits_has_the_templates_fingerprint() {
        const PIECES: [&str; 32] = [
            "'", "''", "\n", " ", "--", "/*", "*/", "1", "0", "99", "x", "e", ".", "..", "$1", "$a$", "$",
            "E'", "a", "\\", "in (", "values (", ",", ")", "-", "::", "_", "U&'", "\"", "select", "'a'",
            "\u{e9}",
        ];
        let mut state = 0x1234_5678_9abc_def1_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).expect("it fits") % below
        };
        let mut fitting = 0;
        for _ in 0..60_000 {
            let count = 1 + random(9);
            let pieces: Vec<&str> = (0..count).map(|_| PIECES[random(PIECES.len())]).collect();
            let sql = pieces.concat();
            let Some(reading) = fingerprint(sql.as_bytes(), Dialect::default(), &SEED) else { continue };
            let mut templates = learned(&sql);
            for _ in 0..8 {
                // One piece becomes another, or its value another value.
                let mut other = pieces.clone();
                let at = random(count);
                other[at] = if random(2) == 0 {
                    ["7", "0", "'b'", "'''", "12"][random(5)]
                } else {
                    PIECES[random(32)]
                };
                let other = other.concat();
                if let Some(found) = templates.find(other.as_bytes(), under()) {
                    let lexed = fingerprint(other.as_bytes(), Dialect::default(), &SEED)
                        .expect("it fits, so it lexes");
                    assert_eq!(lexed.fingerprint, found.fingerprint, "{sql:?} took {other:?}");
                    assert_eq!(lexed.fingerprint, reading.fingerprint);
                    fitting += usize::from(other != sql);
                }
            }
        }
        assert!(fitting > 1_000, "only {fitting} texts were other than their template");
    }
}
