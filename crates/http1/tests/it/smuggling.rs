//! The known ways to have two parties see two different requests in the same bytes, each with its refusal.
//!
//! Collected from the published research on desynchronisation: Linhart et al. (2005), Kettle (2019, 2022), Klein
//! (2020), Grenfeldt et al. (2021), and the fixed vulnerabilities of nginx, HAProxy, Node, Go and hyper.

use tenfold_http1::{BodyDecoder, BodyLength, Error, Limits, parse_request, parse_response};

/// A POST with these framing lines is refused.
fn check(fields: &str, expected: Error) {
    let text = format!(
        "POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n"
    );
    let refused = parse_request(text.as_bytes(), &mut 0, &Limits::default()).map(|_| ());
    assert_eq!(refused, Err(expected), "{fields:?}");
}

/// This chunked body is refused.
fn check_body(body: &str, expected: Error) {
    let mut decoder = BodyDecoder::new(BodyLength::Chunked, &Limits::default());
    let mut rest = body.as_bytes();
    let error = loop {
        match decoder.decode(rest) {
            Ok((0, piece)) => panic!("{body:?} ends as {piece:?}"),
            Ok((consumed, _)) => rest = &rest[consumed..],
            Err(error) => break error,
        }
    };
    assert_eq!(error, expected, "{body:?}");
}

#[test]
fn cl_te() {
    check("Content-Length: 6\r\nTransfer-Encoding: chunked", Error::ConflictingLength);
    check("Content-Length: 0\r\nTransfer-Encoding: chunked", Error::ConflictingLength);
    check("content-length: 6\r\nX: y\r\ntransfer-encoding: CHUNKED", Error::ConflictingLength);
}

#[test]
fn te_cl() {
    check("Transfer-Encoding: chunked\r\nContent-Length: 4", Error::ConflictingLength);
    check(
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\nContent-Length: 4",
        Error::DuplicateContentLength,
    );
    check("Transfer-Encoding: chunked\r\nContent-Length: +4", Error::InvalidContentLength);
}

#[test]
fn cl_cl() {
    check("Content-Length: 8\r\nContent-Length: 7", Error::DuplicateContentLength);
    check("Content-Length: 8\r\nContent-Length: 8", Error::DuplicateContentLength);
    check("Content-Length: 8, 7", Error::InvalidContentLength);
    check("Content-Length: 8, 8", Error::InvalidContentLength);
    check("Content-Length: 0\r\nContent-Length: 44", Error::DuplicateContentLength);
    check("Content-Length: 44\r\nContent\0-Length: 0", Error::InvalidFieldName);
    check("Content-Length : 44", Error::SpaceBeforeColon);
    check("Content-Length\t: 44", Error::SpaceBeforeColon);
    check("Content-Length: 4\r\n 4", Error::FoldedField);
    check("Content-Length:\r\n 44", Error::InvalidContentLength);
    check("Content-Length: 4 4", Error::InvalidContentLength);
    check("Content-Length: \x0b44", Error::InvalidFieldValue);
    check("Content-Length: 44\x0c", Error::InvalidFieldValue);
    check("Content-Length: 0x2c", Error::InvalidContentLength);
    check("Content-Length: 4\u{a0}", Error::InvalidContentLength);
    check("Content-Length: -1", Error::InvalidContentLength);
    check("Content-Length: 18446744073709551660", Error::InvalidContentLength);
}

#[test]
fn te_te() {
    check("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Error::DuplicateTransferEncoding);
    check("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow", Error::DuplicateTransferEncoding);
    check("Transfer-Encoding: cow\r\nTransfer-Encoding: chunked", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: xchunked", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: chunkedx", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: identity", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: identity, chunked", Error::UnsupportedTransferCoding);
    check("Transfer-Encoding: gzip, chunked", Error::UnsupportedTransferCoding);
    check("Transfer-Encoding: chunked, identity", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: chunked, chunked", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: chunked, gzip", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: chunked,", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: ,chunked", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: chunked;q=1", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: \"chunked\"", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: 'chunked'", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: chunk ed", Error::InvalidTransferEncoding);
    check("Transfer-Encoding:", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: gzip", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: \u{a0}chunked", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: chunked\u{17f}", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: chun\u{212a}ed", Error::InvalidTransferEncoding);
}

#[test]
fn te_obfuscated() {
    check("Transfer-Encoding : chunked", Error::SpaceBeforeColon);
    check("Transfer-Encoding\t:chunked", Error::SpaceBeforeColon);
    check("Transfer Encoding: chunked", Error::SpaceBeforeColon);
    check(" Transfer-Encoding: chunked", Error::FoldedField);
    check("X: y\r\n Transfer-Encoding: chunked", Error::FoldedField);
    check("Transfer-Encoding:\r\n chunked", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: chunked\r\n , identity", Error::FoldedField);
    check("X: y\nTransfer-Encoding: chunked", Error::BareLineEnd);
    check("X: y\rTransfer-Encoding: chunked", Error::BareLineEnd);
    check("\nTransfer-Encoding: chunked", Error::BareLineEnd);
    check("Transfer-Encoding\n: chunked", Error::BareLineEnd);
    check("Transfer-Encoding: \x0bchunked", Error::InvalidFieldValue);
    check("Transfer-Encoding: \x0cchunked", Error::InvalidFieldValue);
    check("Transfer-Encoding: chunked\0", Error::InvalidFieldValue);
    check("Transfer-Encoding: chunked\x08", Error::InvalidFieldValue);
    check("Transfer-Encoding\0: chunked", Error::InvalidFieldName);
    check("Transfer-Encoding\u{a0}: chunked", Error::InvalidFieldName);
    check("\u{feff}Transfer-Encoding: chunked", Error::InvalidFieldName);
    check("\0Transfer-Encoding: chunked", Error::InvalidFieldName);
    check("Transfer-Encoding", Error::InvalidFieldName);
    check("[Transfer-Encoding: chunked", Error::InvalidFieldName);
}

#[test]
fn whitespace_around_chunked_and_its_case_carry_nothing() {
    for value in ["chunked", "  chunked", "\tchunked\t", "Chunked", "CHUNKED "] {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:{value}\r\n\r\n");
        let (head, _) = parse_request(text.as_bytes(), &mut 0, &Limits::default()).unwrap().unwrap();
        assert_eq!(head.body, BodyLength::Chunked, "{value:?}");
    }
}

#[test]
fn te_in_http10() {
    let text = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    let refused = parse_request(text, &mut 0, &Limits::default()).map(|_| ());
    assert_eq!(refused, Err(Error::TransferEncodingInHttp10));
    let text = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let refused = parse_response(text, &mut 0, &tenfold_http1::Method::Get, &Limits::default()).map(|_| ());
    assert_eq!(refused, Err(Error::TransferEncodingInHttp10));
}

#[test]
fn chunks() {
    check_body("5\nhello\r\n0\r\n\r\n", Error::BareLineEnd);
    check_body("5\rhello\r\n0\r\n\r\n", Error::BareLineEnd);
    check_body("5;\nxx\r\n0\r\n\r\n", Error::BareLineEnd);
    check_body("5;a\n\r\nhello\r\n", Error::BareLineEnd);
    check_body("5;a\rb\r\nhello\r\n", Error::BareLineEnd);
    check_body("5;a=\"\nb\"\r\nhello\r\n", Error::BareLineEnd);
    check_body("0x5\r\nhello\r\n0\r\n\r\n", Error::InvalidChunkSize);
    check_body("+5\r\nhello\r\n0\r\n\r\n", Error::InvalidChunkSize);
    check_body("-5\r\nhello\r\n0\r\n\r\n", Error::InvalidChunkSize);
    check_body(" 5\r\nhello\r\n0\r\n\r\n", Error::InvalidChunkSize);
    check_body("5_0\r\nhello\r\n0\r\n\r\n", Error::InvalidChunkSize);
    check_body("5\0\r\nhello\r\n0\r\n\r\n", Error::InvalidChunkSize);
    check_body("5,\r\nhello\r\n0\r\n\r\n", Error::InvalidChunkSize);
    check_body("\r\n5\r\nhello\r\n0\r\n\r\n", Error::InvalidChunkSize);
    check_body("5 \r\nhello\r\n0\r\n\r\n", Error::InvalidChunkExtension);
    check_body("5 5\r\nhello\r\n0\r\n\r\n", Error::InvalidChunkExtension);
    check_body("10000000000000005\r\nhello\r\n0\r\n\r\n", Error::ChunkSizeOverflow);
    check_body("fffffffffffffffff\r\nhello\r\n0\r\n\r\n", Error::ChunkSizeOverflow);
    check_body("5\r\nhello0\r\n\r\n", Error::InvalidChunkEnd);
    check_body("5\r\nhello!\r\n0\r\n\r\n", Error::InvalidChunkEnd);
    check_body("5\r\nhello\n0\r\n\r\n", Error::InvalidChunkEnd);
    check_body("5\r\nhello\r0\r\n\r\n", Error::InvalidChunkEnd);
    check_body("5\r\nhello  \r\n0\r\n\r\n", Error::InvalidChunkEnd);
    check_body("0\r\n\n", Error::BareLineEnd);
    check_body("0\r\n\rX", Error::BareLineEnd);
    check_body("0\n\n", Error::BareLineEnd);
    check_body("0\r\nX\r\n\r\n", Error::InvalidTrailer);
    check_body("0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Error::InvalidTrailer);
}
