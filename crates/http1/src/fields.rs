//! Field lines: names as on the wire, values trimmed.

use smallvec::SmallVec;

/// A field: name as on the wire (a token), value without surrounding whitespace (may be empty, may hold obs-text).
pub type Field<'b> = (&'b [u8], &'b [u8]);

/// A head's fields in order. Heads of up to 32 fields don't allocate.
pub type Fields<'b> = SmallVec<[Field<'b>; 32]>;

/// The value of the first field of this name, whatever its case.
#[must_use]
pub fn find<'b>(fields: &[Field<'b>], name: &str) -> Option<&'b [u8]> {
    find_all(fields, name).next()
}

/// The values of all fields of this name, in order.
pub fn find_all<'f, 'b>(
    fields: &'f [Field<'b>],
    name: &'f str,
) -> impl Iterator<Item = &'b [u8]> + use<'f, 'b> {
    fields.iter().filter(move |(wire, _)| wire.eq_ignore_ascii_case(name.as_bytes())).map(|&(_, value)| value)
}

/// Strips optional whitespace (SP, HTAB) from both ends; RFC 9110 §5.6.3.
#[inline]
#[must_use]
pub fn trim_ows(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}
