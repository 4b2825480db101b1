//! Writing messages: append to a buffer, refuse whatever could split a message.

use crate::Error;

/// Ends a head.
pub const HEAD_END: &[u8] = b"\r\n";
/// Ends a chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";
/// Ends a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends `METHOD target HTTP/1.1` and CRLF.
///
/// # Errors
/// [`Error::UnsafeToWrite`] if the method is not a token or the target holds a space, control or non-ASCII byte;
/// nothing is appended then.
pub fn write_request_line(out: &mut Vec<u8>, method: &str, target: &[u8]) -> Result<(), Error> {
    let _ = (out, method, target);
    Err(Error::UnsafeToWrite)
}

/// Appends `HTTP/1.1 status reason` and CRLF, with the canonical reason.
///
/// # Errors
/// [`Error::UnsafeToWrite`] if the status is outside 100..=599; nothing is appended then.
pub fn write_status_line(out: &mut Vec<u8>, status: u16) -> Result<(), Error> {
    let _ = (out, status);
    Err(Error::UnsafeToWrite)
}

/// Appends `name: value` and CRLF.
///
/// # Errors
/// [`Error::UnsafeToWrite`] if the name is not a token or the value holds a control character other than HTAB;
/// nothing is appended then.
pub fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), Error> {
    let _ = (out, name, value);
    Err(Error::UnsafeToWrite)
}

/// Appends `content-length: length` and CRLF.
pub fn write_content_length(out: &mut Vec<u8>, length: u64) {
    let _ = (out, length);
}

/// Appends the line that announces a chunk of `length` bytes; the data and [`CHUNK_END`] follow.
///
/// # Errors
/// [`Error::UnsafeToWrite`] for a length of zero, which would end the body; nothing is appended then.
pub fn write_chunk_header(out: &mut Vec<u8>, length: u64) -> Result<(), Error> {
    let _ = (out, length);
    Err(Error::UnsafeToWrite)
}

/// Appends one whole chunk. No data, no chunk: an empty one would end the body.
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    let _ = (out, data);
}

/// The registered reason phrase of a status, empty for unknown ones.
#[must_use]
pub const fn canonical_reason(status: u16) -> &'static str {
    let _ = status;
    ""
}
