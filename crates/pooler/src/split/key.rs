//! Values of key columns, the same however they are written.
//!
//! **Intuition.** `id = 7`, `id = '07'` and `id = $1` with four binary bytes are the same row. Two values that are equal
//! to PostgreSQL must be equal here; two that differ may well be equal here, which only costs a little waiting.
//!
//! **Mechanism.** Only what looks the same in every type is taken: decimal digits, whose number counts, and UUIDs in
//! their usual form, whose bytes do; in binary only where the client has declared the type.
//!
//! **Failure.** Anything else is no value, and its statement is one about the whole table. So are negative numbers
//! (`oid` takes −1 for 4,294,967,295) and everything that depends on a collation.

use std::hash::{BuildHasher, RandomState};

use tenfold_pgwire::frontend::Format;

/// Types of parameters (`pg_type.dat`).
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const UUID: u32 = 2_950;
/// Digits of the largest number that is taken.
const DIGITS_MAX: usize = 18;
/// `550e8400-e29b-41d4-a716-446655440000`
const UUID_TEXT_BYTES: usize = 36;
const UUID_DASHES: [usize; 4] = [8, 13, 18, 23];

/// The hash of a value in text form.
#[must_use]
pub fn text_value(hasher: &RandomState, text: &[u8]) -> Option<u64> {
    if !text.is_empty() && text.len() <= DIGITS_MAX && text.iter().all(u8::is_ascii_digit) {
        let number = text.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
        return Some(hasher.hash_one(number));
    }
    uuid(text).map(|uuid| hasher.hash_one(uuid))
}

/// The hash of a parameter's value. `type_oid`: as declared in Parse, or 0.
#[must_use]
pub fn param_value(hasher: &RandomState, value: &[u8], format: Format, type_oid: u32) -> Option<u64> {
    if format == Format::Text {
        return text_value(hasher, value);
    }
    let number = match type_oid {
        INT2 => i64::from(i16::from_be_bytes(value.try_into().ok()?)),
        INT4 => i64::from(i32::from_be_bytes(value.try_into().ok()?)),
        INT8 => i64::from_be_bytes(value.try_into().ok()?),
        UUID => return Some(hasher.hash_one(<[u8; 16]>::try_from(value).ok()?)),
        _ => return None,
    };
    Some(hasher.hash_one(u64::try_from(number).ok()?))
}

fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != UUID_TEXT_BYTES || UUID_DASHES.iter().any(|at| text[*at] != b'-') {
        return None;
    }
    let mut bytes = [0; 16];
    let mut digits = text.iter().filter(|byte| **byte != b'-');
    for byte in &mut bytes {
        let mut nibble = || char::from(*digits.next()?).to_digit(16);
        *byte = u8::try_from(nibble()? << 4 | nibble()?).ok()?;
    }
    digits.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_one_hash_however_it_is_written() {
        let hasher = RandomState::new();
        let text = |text: &str| text_value(&hasher, text.as_bytes());
        let binary = |value: &[u8], oid| param_value(&hasher, value, Format::Binary, oid);
        assert!(text("7").is_some() && text("7") == text("007") && text("7") != text("8"));
        assert_eq!(text("7"), binary(&7_i32.to_be_bytes(), INT4));
        assert_eq!(text("7"), binary(&7_i64.to_be_bytes(), INT8));
        assert_eq!(text("7"), binary(&7_i16.to_be_bytes(), INT2));
        assert_eq!(text("7"), param_value(&hasher, b"7", Format::Text, 0));
        let id = "550E8400-e29b-41d4-a716-446655440000";
        assert!(text(id).is_some() && text(id) == text(&id.to_ascii_lowercase()));
        let bytes = [0x55, 0x0e, 0x84, 0, 0xe2, 0x9b, 0x41, 0xd4, 0xa7, 0x16, 0x44, 0x66, 0x55, 0x44, 0, 0];
        assert_eq!(text(id), binary(&bytes, UUID));
    }

    #[test]
    fn what_may_be_equal_to_something_else_is_no_value() {
        let hasher = RandomState::new();
        for none in
            ["", "-1", "+1", " 1", "1 ", "1.0", "1e3", "abc", "t", "9999999999999999999", "0x1f", "1_0"]
        {
            assert_eq!(text_value(&hasher, none.as_bytes()), None, "{none}");
        }
        let odd = "{550e8400-e29b-41d4-a716-446655440000}";
        assert_eq!(text_value(&hasher, odd.as_bytes()), None);
        assert_eq!(text_value(&hasher, b"550e8400-e29b-41d4-a716-44665544000-"), None);
        assert_eq!(param_value(&hasher, &7_i32.to_be_bytes(), Format::Binary, 0), None);
        assert_eq!(param_value(&hasher, &(-7_i32).to_be_bytes(), Format::Binary, INT4), None);
        assert_eq!(param_value(&hasher, b"abc", Format::Binary, INT4), None);
    }
}
