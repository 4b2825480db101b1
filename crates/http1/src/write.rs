//! Writing messages: append to a buffer, refuse whatever could split a message.
//!
//! Whatever is written here, [`crate::parse_request`] or [`crate::parse_response`] reads back as the same: a name is a
//! token, a value holds no control character but HTAB, a target no space. A refused call appends nothing.

use crate::bytes::{self, TOKEN};
use crate::{Error, METHOD_BYTES_MAX, trim_ows};

/// Ends a head.
pub const HEAD_END: &[u8] = b"\r\n";
/// Ends a chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";
/// Ends a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends `METHOD target HTTP/1.1` and CRLF.
///
/// # Errors
/// [`Error::UnsafeToWrite`] if the method is not a token or the target is empty or holds a space, control, non-ASCII
/// byte or `#`; nothing is appended then.
#[inline]
pub fn write_request_line(out: &mut Vec<u8>, method: &str, target: &[u8]) -> Result<(), Error> {
    let is_method = method.len() <= METHOD_BYTES_MAX && bytes::all(method.as_bytes(), TOKEN);
    if !is_method || target.is_empty() || bytes::target_len(target) != target.len() {
        return Err(Error::UnsafeToWrite);
    }
    out.reserve(method.len() + target.len() + 12);
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    Ok(())
}

/// Appends `HTTP/1.1 status reason` and CRLF, with the canonical reason.
///
/// # Errors
/// [`Error::UnsafeToWrite`] if the status is outside 100..=599; nothing is appended then.
#[inline]
pub fn write_status_line(out: &mut Vec<u8>, status: u16) -> Result<(), Error> {
    if !(100..=599).contains(&status) {
        return Err(Error::UnsafeToWrite);
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    write_decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(canonical_reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends `name: value` and CRLF; whitespace around the value is left out.
///
/// # Errors
/// [`Error::UnsafeToWrite`] if the name is not a token or the value holds a control character other than HTAB;
/// nothing is appended then.
#[inline]
pub fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), Error> {
    if !bytes::all(name, TOKEN) || bytes::value_len(value) != value.len() {
        return Err(Error::UnsafeToWrite);
    }
    let value = trim_ows(value);
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends `content-length: length` and CRLF.
#[inline]
pub fn write_content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    write_decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

/// Appends the line that announces a chunk of `length` bytes; the data and [`CHUNK_END`] follow.
///
/// # Errors
/// [`Error::UnsafeToWrite`] for a length of zero, which would end the body; nothing is appended then.
#[inline]
pub fn write_chunk_header(out: &mut Vec<u8>, length: u64) -> Result<(), Error> {
    if length == 0 {
        return Err(Error::UnsafeToWrite);
    }
    let digits = 16 - length.leading_zeros() / 4;
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(length >> (place * 4) & 0xf) as usize]);
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends one whole chunk. No data, no chunk: an empty one would end the body.
#[inline]
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if write_chunk_header(out, data.len() as u64).is_ok() {
        out.extend_from_slice(data);
        out.extend_from_slice(CHUNK_END);
    }
}

/// Appends a number in decimal.
fn write_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b"0123456789"[(number % 10) as usize];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[from..]);
}

/// The registered reason phrase of a status (IANA HTTP Status Code Registry), empty for unknown ones.
#[must_use]
pub const fn canonical_reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}
