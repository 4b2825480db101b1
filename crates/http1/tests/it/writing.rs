//! Writing: exact bytes, and what is refused.

use tenfold_http1::{
    Error, canonical_reason, write_chunk, write_chunk_header, write_content_length, write_field,
    write_request_line, write_status_line,
};

/// What a call that is never refused appends.
fn appended(write: impl FnOnce(&mut Vec<u8>)) -> Result<String, Error> {
    written(|out| {
        write(out);
        Ok(())
    })
}

/// What `write` appends behind `-`; a refusal appends nothing.
fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>) -> Result<String, Error> {
    let mut out = b"-".to_vec();
    let result = write(&mut out);
    let text = String::from_utf8(out).expect("text");
    match result {
        Ok(()) => Ok(text[1..].to_owned()),
        Err(error) => {
            assert_eq!(text, "-", "a refused call appends nothing");
            Err(error)
        }
    }
}

fn check(found: &Result<String, Error>, expected: &str) {
    assert_eq!(found.as_deref(), Ok(expected));
}

fn refused(found: &Result<String, Error>) {
    assert_eq!(found, &Err(Error::UnsafeToWrite));
}

#[test]
fn request_lines() {
    let line = |method: &str, target: &str| written(|out| write_request_line(out, method, target.as_bytes()));
    check(&line("GET", "/a?b"), "GET /a?b HTTP/1.1\r\n");
    check(&line("M-SEARCH", "*"), "M-SEARCH * HTTP/1.1\r\n");
    for method in ["", "G T", "GET\r\n", "G\u{e9}T", "GET:", &"X".repeat(33)] {
        refused(&line(method, "/"));
    }
    for target in ["", "/a b", "/\r\n", "/\n", "/\0", "/\u{e9}", "/#", "/\t", "/\x7f"] {
        refused(&line("GET", target));
    }
}

#[test]
fn status_lines() {
    let line = |status: u16| written(|out| write_status_line(out, status));
    check(&line(200), "HTTP/1.1 200 OK\r\n");
    check(&line(100), "HTTP/1.1 100 Continue\r\n");
    check(&line(299), "HTTP/1.1 299 \r\n");
    for status in [0, 99, 600, 1000, u16::MAX] {
        refused(&line(status));
    }
}

#[test]
fn fields() {
    let field = |name: &str, value: &str| written(|out| write_field(out, name.as_bytes(), value.as_bytes()));
    check(&field("Host", "a"), "Host: a\r\n");
    check(&field("X", ""), "X: \r\n");
    check(&field("X", " a\tb "), "X: a\tb\r\n");
    check(&field("X", "\u{e9}"), "X: \u{e9}\r\n");
    for name in ["", "X Y", "X:", "X\r\nY", "X\n", "X\0", "\u{e9}"] {
        refused(&field(name, "y"));
    }
    for value in ["a\r\nb", "a\nb", "a\rb", "a\0", "\r\n", "\x7f", "a long one with a mistake at its end\x0b"]
    {
        refused(&field("X", value));
    }
}

#[test]
fn lengths_and_chunks() {
    let length = |bytes: u64| appended(|out| write_content_length(out, bytes));
    check(&length(0), "content-length: 0\r\n");
    check(&length(1024), "content-length: 1024\r\n");
    check(&length(u64::MAX), "content-length: 18446744073709551615\r\n");
    let header = |bytes: u64| written(|out| write_chunk_header(out, bytes));
    check(&header(1), "1\r\n");
    check(&header(15), "f\r\n");
    check(&header(16), "10\r\n");
    check(&header(0x00ab_cdef), "abcdef\r\n");
    check(&header(u64::MAX), "ffffffffffffffff\r\n");
    refused(&header(0));
    check(&appended(|out| write_chunk(out, b"hello")), "5\r\nhello\r\n");
    check(&appended(|out| write_chunk(out, b"")), "");
}

#[test]
fn every_registered_status_has_its_reason() {
    assert_eq!(canonical_reason(103), "Early Hints");
    assert_eq!(canonical_reason(404), "Not Found");
    assert_eq!(canonical_reason(431), "Request Header Fields Too Large");
    assert_eq!(canonical_reason(299), "");
    for status in 0..=u16::MAX {
        assert!(canonical_reason(status).bytes().all(|byte| matches!(byte, b' '..=b'~')), "{status}");
    }
}
