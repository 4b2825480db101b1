//! Response heads: what is accepted, as what, and what is refused with which reason.

use tenfold_http1::{BodyLength, Error, Limits, Method, ResponseHead, Version, parse_response};

fn accept(method: Method, text: &str, look: impl FnOnce(&ResponseHead<'_>)) {
    let (head, consumed) = parse_response(text.as_bytes(), &mut 0, &method, &Limits::default())
        .unwrap_or_else(|error| panic!("{text:?} is refused: {error:?}"))
        .unwrap_or_else(|| panic!("{text:?} is not a whole head"));
    assert_eq!(consumed, text.len(), "{text:?}");
    look(&head);
}

fn refuse(text: &str, expected: Error) {
    let refused = parse_response(text.as_bytes(), &mut 0, &Method::Get, &Limits::default())
        .map(|found| found.is_some());
    assert_eq!(refused, Err(expected), "{text:?}");
}

#[test]
fn a_head_says_what_was_answered() {
    accept(
        Method::Get,
        "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 5\r\nKeep-Alive: timeout=5\r\n\r\n",
        |head| {
            assert_eq!((head.status, head.version, head.reason), (200, Version::Http11, &b"OK"[..]));
            assert_eq!(head.fields.len(), 3);
            assert_eq!((head.body, head.content_length), (BodyLength::Exact(5), Some(5)));
            assert!(head.keep_alive && !head.tunnel && !head.names_hop_by_hop && !head.is_interim());
            assert_eq!(head.keep_alive_timeout_s, Some(5));
        },
    );
}

#[test]
fn a_status_line_is_a_version_three_digits_and_a_reason() {
    let check = |line: &str, status: u16, reason: &[u8]| {
        accept(Method::Get, &format!("{line}\r\n\r\n"), |head| {
            assert_eq!((head.status, head.reason), (status, reason), "{line}");
        });
    };
    check("HTTP/1.1 200 OK", 200, b"OK");
    check("HTTP/1.1 200 ", 200, b"");
    check("HTTP/1.1 200", 200, b"");
    check("HTTP/1.1 404 Not Found\there", 404, b"Not Found\there");
    check("HTTP/1.1 404 Introuv\u{e9}", 404, "Introuv\u{e9}".as_bytes());
    check("HTTP/1.1 599 x", 599, b"x");
    check("HTTP/1.0 200 OK", 200, b"OK");
    check("HTTP/1.7 200 OK", 200, b"OK");
    check("HTTP/1.1 200  OK", 200, b" OK");
    for line in [
        "HTTP/1.1 600 x",
        "HTTP/1.1 099 x",
        "HTTP/1.1 999 x",
        "HTTP/1.1 000 x",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
    ] {
        refuse(&format!("{line}\r\n\r\n"), Error::InvalidStatus);
    }
    for line in [
        "HTTP/1.1  200 OK",
        "HTTP/1.1 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 ",
    ] {
        refuse(&format!("{line}\r\n\r\n"), Error::InvalidStatus);
    }
    for line in ["HTTP/2.0 200 OK", "HTTP/0.9 200 OK"] {
        refuse(&format!("{line}\r\n\r\n"), Error::UnsupportedVersion);
    }
    for line in
        ["HTTP/1.1", "HTTP/1.1\t200 OK", "http/1.1 200 OK", "HTTP/1.10 200 OK", "ICY 200 OK", "200 OK", ""]
    {
        refuse(&format!("{line}\r\n\r\n"), Error::InvalidStatusLine);
    }
    for line in
        ["<html>", "Content-Type: text/html", " HTTP/1.1 200 OK", "\r\nHTTP/1.1 200 OK", "HTTP 200", "\0"]
    {
        refuse(&format!("{line}\r\n\r\n"), Error::InvalidStatusLine);
    }
    refuse("HTTP/1.1 200 O\0K\r\n\r\n", Error::InvalidStatusLine);
    refuse("HTTP/1.1 200 OK\nX: y\r\n\r\n", Error::BareLineEnd);
    refuse("HTTP/1.1 200 OK\rX: y\r\n\r\n", Error::BareLineEnd);
    refuse("HTTP/1.1 200\n\r\n", Error::BareLineEnd);
}

#[test]
fn an_origin_that_speaks_something_else_is_refused_at_once() {
    refuse("<", Error::InvalidStatusLine);
    refuse("HTTX", Error::InvalidStatusLine);
    refuse("HTTP/1.1 7", Error::InvalidStatus);
    refuse("SSH-2.0-OpenSSH", Error::InvalidStatusLine);
    refuse("\x15\x03\x01", Error::InvalidStatusLine);
}

#[test]
fn the_body_ends_as_rfc_9112_says() {
    let check = |method: Method, status: u16, fields: &str, body: BodyLength| {
        accept(method, &format!("HTTP/1.1 {status} x\r\n{fields}\r\n"), |head| {
            assert_eq!(head.body, body, "{method:?} {status} {fields:?}");
        });
    };
    let (exact, chunked) = ("Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n");
    check(Method::Get, 200, exact, BodyLength::Exact(3));
    check(Method::Get, 200, "Content-Length: 0\r\n", BodyLength::Exact(0));
    check(Method::Get, 200, chunked, BodyLength::Chunked);
    check(Method::Get, 200, "", BodyLength::UntilClose);
    check(Method::Post, 500, "", BodyLength::UntilClose);
    check(Method::Head, 200, exact, BodyLength::None);
    check(Method::Head, 200, chunked, BodyLength::None);
    check(Method::Head, 200, "", BodyLength::None);
    check(Method::Get, 204, "", BodyLength::None);
    check(Method::Get, 304, exact, BodyLength::None);
    check(Method::Get, 304, "", BodyLength::None);
    check(Method::Get, 100, "", BodyLength::None);
    check(Method::Get, 103, "", BodyLength::None);
    check(Method::Get, 101, "", BodyLength::None);
    check(Method::Connect, 200, "", BodyLength::None);
    check(Method::Connect, 403, exact, BodyLength::Exact(3));
    check(Method::Get, 205, exact, BodyLength::Exact(3));
}

#[test]
fn a_length_that_could_be_read_in_two_ways_is_refused() {
    let check = |fields: &str, expected: Error| {
        refuse(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"), expected);
        // Also where the length would not matter.
        refuse(&format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n\r\n"), expected);
    };
    check("Content-Length: 3\r\nContent-Length: 4", Error::DuplicateContentLength);
    check("Content-Length: 3\r\nContent-Length: 3", Error::DuplicateContentLength);
    check("Content-Length: 3, 3", Error::InvalidContentLength);
    check("Content-Length: -3", Error::InvalidContentLength);
    check("Content-Length:", Error::InvalidContentLength);
    check("Transfer-Encoding: chunked\r\nContent-Length: 3", Error::ConflictingLength);
    check("Content-Length: 3\r\nTransfer-Encoding: chunked", Error::ConflictingLength);
    check("Transfer-Encoding: gzip", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: identity", Error::InvalidTransferEncoding);
    check("Transfer-Encoding: gzip, chunked", Error::UnsupportedTransferCoding);
    check("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Error::DuplicateTransferEncoding);
    refuse("HTTP/1.1 100 x\r\nContent-Length: 3\r\n\r\n", Error::UnexpectedBody);
    refuse("HTTP/1.1 103 x\r\nTransfer-Encoding: chunked\r\n\r\n", Error::UnexpectedBody);
    refuse("HTTP/1.1 101 x\r\nContent-Length: 0\r\n\r\n", Error::UnexpectedBody);
}

#[test]
fn fields_are_as_strict_as_in_requests() {
    let check = |line: &str, expected: Error| refuse(&format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n"), expected);
    check("X : y", Error::SpaceBeforeColon);
    check("X: y\r\n z", Error::FoldedField);
    check(" X: y", Error::FoldedField);
    check("X", Error::InvalidFieldName);
    check("X: y\0", Error::InvalidFieldValue);
    check("X: y\nSet-Cookie: z", Error::BareLineEnd);
    check("X: y\rSet-Cookie: z", Error::BareLineEnd);
    check("Connection: a b", Error::InvalidConnection);
}

#[test]
fn a_connection_is_kept_only_if_its_next_response_can_be_told_apart() {
    let check = |head: &str, keep_alive: bool| {
        accept(Method::Get, &format!("{head}\r\n\r\n"), |found| {
            assert_eq!(found.keep_alive, keep_alive, "{head:?}");
        });
    };
    check("HTTP/1.1 200 OK\r\nContent-Length: 0", true);
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", true);
    check("HTTP/1.1 200 OK", false);
    check("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close", false);
    check("HTTP/1.1 200 OK\r\nConnection: keep-alive", false);
    check("HTTP/1.0 200 OK\r\nContent-Length: 0", false);
    check("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive", true);
    check("HTTP/1.0 200 OK\r\nConnection: keep-alive", false);
    check("HTTP/1.1 204 No Content", true);
    check("HTTP/1.1 204 No Content\r\nContent-Length: 0", true);
    check("HTTP/1.1 204 No Content\r\nContent-Length: 4", false);
    check("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked", false);
    check("HTTP/1.1 304 Not Modified\r\nContent-Length: 4", true);
    check("HTTP/1.1 101 Switching Protocols", false);
}

#[test]
fn interim_responses_and_tunnels_are_flagged() {
    let check = |method: Method, status: u16, is_interim: bool, tunnel: bool| {
        accept(method, &format!("HTTP/1.1 {status} x\r\n\r\n"), |head| {
            assert_eq!((head.is_interim(), head.tunnel), (is_interim, tunnel), "{method:?} {status}");
        });
    };
    check(Method::Get, 100, true, false);
    check(Method::Get, 102, true, false);
    check(Method::Get, 103, true, false);
    check(Method::Get, 199, true, false);
    check(Method::Get, 101, false, true);
    check(Method::Get, 200, false, false);
    check(Method::Connect, 200, false, true);
    check(Method::Connect, 407, false, false);
}

#[test]
fn keep_alive_tells_its_timeout_or_nothing() {
    let check = |value: &str, timeout_s: Option<u32>| {
        accept(Method::Get, &format!("HTTP/1.1 204 x\r\nKeep-Alive: {value}\r\n\r\n"), |head| {
            assert_eq!(head.keep_alive_timeout_s, timeout_s, "{value}");
        });
    };
    check("timeout=5", Some(5));
    check("Timeout=5, max=100", Some(5));
    check("max=100,timeout=72", Some(72));
    check("timeout=0", Some(0));
    check("timeout=-1", None);
    check("timeout=99999999999", None);
    check("timeout", None);
    check("timeout=", None);
    check("max=100", None);
    check("", None);
    check("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}", None);
}
