//! Bodies: payload, ends, truncation, and the limits of what surrounds the payload.

use tenfold_http1::{BodyDecoder, BodyLength, Error, Limits, Piece};

/// What became of a body: its payload, what was left over, and whether it had ended.
#[derive(Debug, PartialEq)]
struct Outcome<'b> {
    payload: Vec<u8>,
    left_over: &'b [u8],
    end: Result<(), Error>,
}

fn decode<'b>(length: BodyLength, limits: &Limits, body: &'b [u8]) -> Outcome<'b> {
    let mut decoder = BodyDecoder::new(length, limits);
    let mut outcome = Outcome { payload: Vec::new(), left_over: body, end: Ok(()) };
    loop {
        match decoder.decode(outcome.left_over) {
            Ok((consumed, piece)) => {
                outcome.left_over = &outcome.left_over[consumed..];
                match piece {
                    Piece::Data(data) => outcome.payload.extend_from_slice(data),
                    Piece::NeedMore | Piece::End => break,
                }
            }
            Err(error) => {
                outcome.end = Err(error);
                return outcome;
            }
        }
    }
    outcome.end = decoder.on_eof();
    outcome
}

fn check(length: BodyLength, body: &str, payload: &str, left_over: &str) {
    let expected = Outcome { payload: payload.into(), left_over: left_over.as_bytes(), end: Ok(()) };
    assert_eq!(decode(length, &Limits::default(), body.as_bytes()), expected, "{body:?}");
}

fn check_refused(limits: &Limits, body: &str, expected: Error) {
    assert_eq!(decode(BodyLength::Chunked, limits, body.as_bytes()).end, Err(expected), "{body:?}");
}

fn check_chunked(body: &str, payload: &str) {
    check(BodyLength::Chunked, &format!("{body}next"), payload, "next");
}

#[test]
fn a_body_of_known_length_ends_there() {
    check(BodyLength::Exact(5), "hello", "hello", "");
    check(BodyLength::Exact(5), "hello world", "hello", " world");
    check(BodyLength::Exact(0), "hello", "", "hello");
    check(BodyLength::None, "hello", "", "hello");
    check(BodyLength::UntilClose, "hello", "hello", "");
    check(BodyLength::UntilClose, "", "", "");
}

#[test]
fn chunks_are_joined() {
    check_chunked("0\r\n\r\n", "");
    check_chunked("5\r\nhello\r\n0\r\n\r\n", "hello");
    check_chunked("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world");
    check_chunked("A\r\n0123456789\r\n000\r\n\r\n", "0123456789");
    check_chunked("a\r\n0123456789\r\n0\r\n\r\n", "0123456789");
    check_chunked("00000000000000000000005\r\nhello\r\n0\r\n\r\n", "hello");
    check_chunked("2\r\n\r\n\r\n0\r\n\r\n", "\r\n");
}

#[test]
fn extensions_of_the_grammar_are_skipped() {
    for extension in [
        ";a",
        ";a=b",
        ";a=\"b c\"",
        ";a;b",
        " ; a = b",
        "\t;a",
        ";a=\"\\\"\"",
        ";a=\"\\\\\" ;b",
        ";a ;b",
        ";a =b",
    ] {
        check_chunked(&format!("5{extension}\r\nhello\r\n0\r\n\r\n"), "hello");
        check_chunked(&format!("5\r\nhello\r\n0{extension}\r\n\r\n"), "hello");
    }
    for extension in [
        ";",
        ";=b",
        ";a=",
        ";a b",
        ";a=b c",
        ";a=\"b",
        ";a=\"b\"c",
        ";a=\"\x01\"",
        ";a=\"b\\",
        ";;",
        " ",
        ";a ",
        ";(",
        ";a=(",
        ";a=\"b\" ",
    ] {
        check_refused(
            &Limits::default(),
            &format!("5{extension}\r\nhello\r\n0\r\n\r\n"),
            Error::InvalidChunkExtension,
        );
    }
}

#[test]
fn trailers_are_checked_and_dropped() {
    check_chunked("1\r\nx\r\n0\r\nA: b\r\n\r\n", "x");
    check_chunked("0\r\nA: b\r\nContent-Length: 9\r\nHost: evil\r\n\r\n", "");
    check_chunked("0\r\nA:\r\nB: \u{e9}\t\r\n\r\n", "");
    for trailer in ["A : b", "A", ": b", " A: b", "A: b\r\n c", "A: \x01", "A(: b", "A: b\0"] {
        check_refused(&Limits::default(), &format!("0\r\n{trailer}\r\n\r\n"), Error::InvalidTrailer);
    }
    for trailer in ["A: b\n", "A: b\rC", "A\n"] {
        check_refused(&Limits::default(), &format!("0\r\n{trailer}\r\n\r\n"), Error::BareLineEnd);
    }
}

#[test]
fn a_close_before_the_end_is_truncation() {
    let whole = "5;a=\"b\"\r\nhello\r\n0\r\nA: b\r\n\r\n";
    for end in 0..whole.len() {
        check_refused(&Limits::default(), &whole[..end], Error::Truncated);
    }
    check_chunked(whole, "hello");
    for end in 0..5 {
        let outcome = decode(BodyLength::Exact(5), &Limits::default(), &b"hello"[..end]);
        assert_eq!(outcome.end, Err(Error::Truncated));
    }
}

#[test]
fn an_end_and_an_error_are_final() {
    let mut decoder = BodyDecoder::new(BodyLength::Chunked, &Limits::default());
    assert_eq!(decoder.decode(b"x"), Err(Error::InvalidChunkSize));
    assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(Error::InvalidChunkSize));
    assert_eq!(decoder.on_eof(), Err(Error::InvalidChunkSize));
    assert!(!decoder.is_done());

    let mut decoder = BodyDecoder::new(BodyLength::UntilClose, &Limits::default());
    assert_eq!(decoder.decode(b"x"), Ok((1, Piece::Data(b"x"))));
    assert_eq!(decoder.decode(b""), Ok((0, Piece::NeedMore)));
    assert_eq!(decoder.on_eof(), Ok(()));
    assert_eq!(decoder.decode(b"x"), Ok((0, Piece::End)));
    assert!(decoder.is_done());
}

#[test]
fn what_remains_is_known_for_declared_lengths() {
    let mut decoder = BodyDecoder::new(BodyLength::Exact(5), &Limits::default());
    assert_eq!(decoder.remaining(), Some(5));
    assert_eq!(decoder.decode(b"he"), Ok((2, Piece::Data(b"he"))));
    assert_eq!(decoder.remaining(), Some(3));
    assert_eq!(decoder.decode(b"llo!"), Ok((3, Piece::Data(b"llo"))));
    assert_eq!((decoder.remaining(), decoder.is_done()), (Some(0), true));
    assert_eq!(BodyDecoder::new(BodyLength::Chunked, &Limits::default()).remaining(), None);
}

#[test]
fn payload_is_a_slice_of_what_came_in() {
    let mut decoder = BodyDecoder::new(BodyLength::Chunked, &Limits::default());
    let body = b"100000\r\nhello";
    let Ok((consumed, Piece::Data(data))) = decoder.decode(body) else { panic!("payload") };
    assert_eq!((consumed, data.as_ptr()), (body.len(), body[8..].as_ptr()));
}

#[test]
fn sizes_reach_64_bits() {
    let mut decoder = BodyDecoder::new(BodyLength::Chunked, &Limits::default());
    assert_eq!(decoder.decode(b"ffffffffffffffff\r\nx"), Ok((19, Piece::Data(b"x"))));
    let mut decoder = BodyDecoder::new(BodyLength::Exact(u64::MAX), &Limits::default());
    assert_eq!(decoder.decode(b"x"), Ok((1, Piece::Data(b"x"))));
    assert_eq!(decoder.remaining(), Some(u64::MAX - 1));
}

#[test]
fn what_surrounds_the_payload_is_bounded() {
    let limits = Limits {
        chunk_line_bytes_max: 8,
        chunk_extension_bytes_max: 10,
        trailer_bytes_max: 12,
        ..Limits::default()
    };
    let check_fine = |body: &str| {
        assert_eq!(decode(BodyLength::Chunked, &limits, body.as_bytes()).end, Ok(()), "{body:?}");
    };
    check_fine("00000001\r\nx\r\n0\r\n\r\n");
    check_refused(&limits, "000000001\r\nx\r\n0\r\n\r\n", Error::ChunkExtensionTooLong);
    check_fine("1;aaaaaa\r\nx\r\n0\r\n\r\n");
    check_refused(&limits, "1;aaaaaaa\r\nx\r\n0\r\n\r\n", Error::ChunkExtensionTooLong);
    check_fine("1;aaaa\r\nx\r\n1;aaaa\r\nx\r\n0\r\n\r\n");
    check_refused(&limits, "1;aaaa\r\nx\r\n1;aaaa\r\nx\r\n0;a\r\n\r\n", Error::ChunkExtensionTooLong);
    check_fine("0\r\nA: b\r\nC: d\r\n\r\n");
    check_refused(&limits, "0\r\nA: b\r\nC: de\r\n\r\n", Error::TrailersTooLong);
    check_refused(&limits, "0\r\nA: bbbbbbbbbbbbb", Error::TrailersTooLong);
}
