//! Byte classes, and how far a run of one class reaches.
//!
//! **Intuition.** A parser spends its time asking one question of each byte: may it stand here? A 256-entry table
//! answers it for names; for values and targets, which are long, eight bytes are asked at once.
//!
//! **Mechanism.** The word tricks are the classic ones: `(x - 0x20…) & !x & 0x80…` flags bytes below 0x20. A borrow can
//! raise false flags, but only above the lowest true one, and the lowest is all we take.

/// `tchar`: RFC 9110 §5.6.2.
pub(crate) const TOKEN: u8 = 1;
/// What a field value is made of: HTAB, SP, VCHAR, obs-text (RFC 9110 §5.5).
pub(crate) const VALUE: u8 = 1 << 1;
/// What we take in a request target: VCHAR but `#`. Wider than RFC 3986 by the characters that browsers leave
/// unescaped in queries, such as `|` and `[`.
pub(crate) const TARGET: u8 = 1 << 2;
/// `unreserved` and `sub-delims`: a registered name without its percent-escapes (RFC 3986 §3.2.2).
pub(crate) const REG_NAME: u8 = 1 << 3;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    loop {
        let alphanumeric = byte.is_ascii_alphanumeric();
        let mut class = 0;
        if alphanumeric
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
        {
            class |= TOKEN;
        }
        if matches!(byte, b'\t' | b' '..=b'~' | 0x80..) {
            class |= VALUE;
        }
        if byte.is_ascii_graphic() && byte != b'#' {
            class |= TARGET;
        }
        if alphanumeric || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'..=b',' | b';' | b'=')
        {
            class |= REG_NAME;
        }
        table[byte as usize] = class;
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

/// Does the byte belong to the class?
#[inline(always)]
pub(crate) fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// Are all bytes of the class, and is there at least one?
#[inline]
pub(crate) fn all(text: &[u8], class: u8) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is(byte, class))
}

/// Length of the token that `text` begins with. Eight lookups are unrolled; 9 % faster on a browser's head than
/// `position`, by `examples/parse_speed.rs`.
#[inline(always)]
pub(crate) fn token_len(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        for (place, &byte) in word.iter().enumerate() {
            if !is(byte, TOKEN) {
                return index * 8 + place;
            }
        }
    }
    let tail = rest.iter().position(|&byte| !is(byte, TOKEN)).unwrap_or(rest.len());
    text.len() - rest.len() + tail
}

/// Length of the run of value bytes that `text` begins with. Not inlined: with registers of its own it is 9 % faster on
/// a browser's head, by `examples/parse_speed.rs`.
#[inline(never)]
pub(crate) fn value_len(text: &[u8]) -> usize {
    let mut from = 0;
    loop {
        let at = from + run_len(&text[from..], |word| flag_below(word, 0x20) | flag_equal(word, 0x7f), VALUE);
        // HTAB is the one control that may stand in a value, and is rare.
        if text.get(at) != Some(&b'\t') {
            return at;
        }
        from = at + 1;
    }
}

/// Length of the run of target bytes that `text` begins with.
#[inline(always)]
pub(crate) fn target_len(text: &[u8]) -> usize {
    let stops = |word| flag_below(word, 0x21) | flag_equal(word, 0x7f) | flag_equal(word, b'#') | word & HIGH;
    run_len(text, stops, TARGET)
}

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Bytes before the first one that `stops` flags, eight at a time; the last few by table.
#[inline(always)]
fn run_len(text: &[u8], stops: impl Fn(u64) -> u64, class: u8) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let flags = stops(u64::from_le_bytes(*word));
        if flags != 0 {
            return index * 8 + flags.trailing_zeros() as usize / 8;
        }
    }
    let tail = rest.iter().position(|&byte| !is(byte, class)).unwrap_or(rest.len());
    text.len() - rest.len() + tail
}

/// Flags bytes below `bound` (at most 0x80); exact up to and including the lowest flag.
#[inline(always)]
fn flag_below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(LOW * u64::from(bound)) & !word & HIGH
}

/// Flags bytes equal to `byte`; exact up to and including the lowest flag.
#[inline(always)]
fn flag_equal(word: u64, byte: u8) -> u64 {
    flag_below(word ^ (LOW * u64::from(byte)), 1)
}

/// Reads an unsigned decimal of plain digits; `None` for anything else and beyond 64 bits.
#[inline]
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_the_grammar_says() {
        let members = |class| (0..=u8::MAX).filter(|&byte| is(byte, class)).collect::<Vec<_>>();
        let mut token = b"!#$%&'*+-.^_`|~".to_vec();
        token.extend((b'0'..=b'9').chain(b'A'..=b'Z').chain(b'a'..=b'z'));
        token.sort_unstable();
        assert_eq!(members(TOKEN), token);
        assert_eq!(members(VALUE).len(), 1 + 95 + 128);
        assert_eq!(members(TARGET).len(), 94 - 1);
        assert_eq!(members(REG_NAME).len(), 62 + 4 + 11);
    }

    #[test]
    fn words_and_table_agree_on_every_byte_at_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..20 {
                let mut text = [b'a'; 20];
                text[place] = byte;
                let expected = |class| if is(byte, class) { 20 } else { place };
                assert_eq!(value_len(&text), expected(VALUE), "{byte:#x} at {place}");
                assert_eq!(target_len(&text), expected(TARGET), "{byte:#x} at {place}");
                assert_eq!(token_len(&text), expected(TOKEN), "{byte:#x} at {place}");
            }
        }
    }

    #[test]
    fn tabs_do_not_end_a_value() {
        assert_eq!(value_len(b"\t\ta\t\t\t\tb\t\r\n"), 9);
        assert_eq!(value_len(b"\t"), 1);
        assert_eq!(value_len(b"aaaaaaa\t"), 8);
    }

    #[test]
    fn decimals_are_digits_within_64_bits() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for refused in ["18446744073709551616", "", "+1", "-1", "1 ", "0x1", "1,1", "1.0"] {
            assert_eq!(decimal(refused.as_bytes()), None, "{refused}");
        }
    }
}
