//! Field lines: names as on the wire, values trimmed (RFC 9112 §5).
//!
//! One pass: the name by table to its colon, the value by words to its line end. Folding, bare line ends, whitespace
//! around names and controls in values are refused where they stand.

use smallvec::SmallVec;

use crate::bytes;
use crate::scan::Stop;
use crate::{Error, Limits};

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

/// Reads field lines from `at` to the empty line; returns where the head ends. `note` sees each field, and may refuse.
#[inline(always)]
pub(crate) fn read_fields<'b>(
    view: &'b [u8],
    mut at: usize,
    limits: &Limits,
    fields: &mut Fields<'b>,
    mut note: impl FnMut(&'b [u8], &'b [u8]) -> Result<(), Error>,
) -> Result<usize, Stop> {
    loop {
        let line = &view[at..];
        let Some(&first) = line.first() else { return Err(Stop::Partial) };
        if !bytes::is(first, bytes::TOKEN) {
            return read_end(line).map(|()| at + 2);
        }
        if fields.len() >= limits.fields_max {
            return Err(Error::TooManyFields.into());
        }
        let (field, next) = read_field(line, limits.line_bytes_max)?;
        note(field.0, field.1)?;
        fields.push(field);
        at += next;
    }
}

/// A line that does not begin with a name: the empty one, or a mistake.
#[inline]
fn read_end(line: &[u8]) -> Result<(), Stop> {
    match line {
        [b'\r', b'\n', ..] => Ok(()),
        [b'\r'] => Err(Stop::Partial),
        [b'\r' | b'\n', ..] => Err(Error::BareLineEnd.into()),
        [b' ' | b'\t', ..] => Err(Error::FoldedField.into()),
        _ => Err(Error::InvalidFieldName.into()),
    }
}

/// Reads one field line that begins with a token byte; returns the field and the line's length with its CRLF.
#[inline(always)]
fn read_field(line: &[u8], line_bytes_max: usize) -> Result<(Field<'_>, usize), Stop> {
    let name_len = bytes::token_len(line);
    if line.get(name_len) != Some(&b':') {
        return Err(no_colon(line, name_len, line_bytes_max));
    }
    let end = name_len + 1 + bytes::value_len(&line[name_len + 1..]);
    if end > line_bytes_max {
        return Err(Error::FieldTooLong.into());
    }
    let [b'\r', b'\n', ..] = line[end..] else {
        return Err(no_line_end(&line[end..], Error::InvalidFieldValue));
    };
    Ok(((&line[..name_len], trim_ows(&line[name_len + 1..end])), end + 2))
}

#[cold]
fn no_colon(line: &[u8], name_len: usize, line_bytes_max: usize) -> Stop {
    if name_len > line_bytes_max {
        return Error::FieldTooLong.into();
    }
    match line.get(name_len) {
        None => Stop::Partial,
        Some(b' ' | b'\t') => Error::SpaceBeforeColon.into(),
        Some(b'\n') => Error::BareLineEnd.into(),
        Some(_) => Error::InvalidFieldName.into(),
    }
}

/// What `rest` is when it is not a CRLF, where only more text or a CRLF could stand.
#[cold]
pub(crate) fn no_line_end(rest: &[u8], otherwise: Error) -> Stop {
    match rest {
        [] | [b'\r'] => Stop::Partial,
        [b'\r' | b'\n', ..] => Error::BareLineEnd.into(),
        _ => otherwise.into(),
    }
}
