//! What must hold of the HTTP/1.1 codec for any bytes whatever.
//!
//! **Intuition.** Most inputs have no expected answer, but every input has laws: nothing panics; bytes that come in
//! pieces mean what they mean at once; what was accepted can be written and read back; and what we accept, another
//! parser accepts in the same words. The last is what smuggling breaks.
//!
//! **Mechanism.** Each function checks the laws of one side on one input. The fuzz targets call them with made-up
//! bytes, the tests of the crate with the corpora.
//!
//! **Known differences from httparse**, all ours to be stricter except the first:
//! - HTTP/1.2 to 1.9 are read as 1.1 (RFC 9110 §2.5); httparse refuses them.
//! - More than 15 hexadecimal digits of chunk size: we go by the value, httparse by the digits.
//! - A reason phrase with obs-text is `""` to httparse, the bytes to us.

#![allow(dead_code, reason = "each fuzz target uses one of these")]

use tenfold_http1::{
    BodyDecoder, BodyLength, Error, Field, HEAD_END, LAST_CHUNK, Limits, Method, Piece, RequestHead,
    ResponseHead, Version, parse_request, parse_response, write_chunk, write_field, write_request_line,
};

/// A corpus entry beyond this tells nothing that a shorter one doesn't.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Room for whatever we accept to be written again with canonical spacing.
const ROOMY: Limits = Limits {
    head_bytes_max: 1 << 20,
    line_bytes_max: 1 << 17,
    target_bytes_max: 1 << 17,
    fields_max: 1000,
    chunk_line_bytes_max: 1 << 17,
    chunk_extension_bytes_max: 1 << 17,
    trailer_bytes_max: 1 << 17,
};
/// So tight that limits meet ordinary inputs.
const TIGHT: Limits = Limits {
    head_bytes_max: 300,
    line_bytes_max: 100,
    target_bytes_max: 60,
    fields_max: 6,
    chunk_line_bytes_max: 20,
    chunk_extension_bytes_max: 30,
    trailer_bytes_max: 40,
};

/// Laws of request heads.
pub(crate) fn request(input: &[u8]) {
    let input = &input[..input.len().min(INPUT_BYTES_MAX)];
    for limits in [Limits::default(), TIGHT] {
        let parse = |bytes: &[u8], scanned: &mut usize| -> Parsed {
            let found = parse_request(bytes, scanned, &limits)?;
            Ok(found.map(|(head, consumed)| (format!("{head:?}"), consumed)))
        };
        splits_agree(input, parse);
    }
    let limits = Limits::default();
    let ours = parse_request(input, &mut 0, &limits);
    if let Ok(Some((head, consumed))) = &ours {
        head_is_sound(&input[..*consumed], &head.fields);
        assert!(head.version == Version::Http10 || !head.host.is_empty());
        assert!(head.body != BodyLength::UntilClose);
        request_reads_back(head);
    }
    request_agrees_with_httparse(input, &ours);
}

/// Laws of response heads.
pub(crate) fn response(input: &[u8]) {
    let input = &input[..input.len().min(INPUT_BYTES_MAX)];
    for (limits, method) in
        [(Limits::default(), Method::Get), (TIGHT, Method::Head), (TIGHT, Method::Connect)]
    {
        let parse = |bytes: &[u8], scanned: &mut usize| -> Parsed {
            let found = parse_response(bytes, scanned, &method, &limits)?;
            Ok(found.map(|(head, consumed)| (format!("{head:?}"), consumed)))
        };
        splits_agree(input, parse);
    }
    let ours = parse_response(input, &mut 0, &Method::Get, &Limits::default());
    if let Ok(Some((head, consumed))) = &ours {
        head_is_sound(&input[..*consumed], &head.fields);
        assert!((100..=599).contains(&head.status));
        assert!(!(head.keep_alive && head.body == BodyLength::UntilClose));
        response_reads_back(head);
    }
    response_agrees_with_httparse(input, &ours);
}

/// Laws of bodies: chunked, of known length, until close.
pub(crate) fn chunked(input: &[u8]) {
    let input = &input[..input.len().min(INPUT_BYTES_MAX)];
    let half = BodyLength::Exact(input.len() as u64 / 2);
    for length in [BodyLength::Chunked, half, BodyLength::UntilClose, BodyLength::None] {
        for limits in [Limits::default(), TIGHT] {
            let whole = decode(input, length, &limits, usize::MAX);
            for step in steps(input) {
                assert_eq!(decode(input, length, &limits, step), whole, "{length:?} in steps of {step}");
            }
        }
    }
    let whole = decode(input, BodyLength::Chunked, &ROOMY, usize::MAX);
    if whole.end == Ok(true) {
        chunks_agree_with_httparse(&input[..whole.consumed], &whole.payload);
    }
    chunks_read_back(input);
}

/// Laws of a connection: requests with their bodies, one behind the other.
pub(crate) fn connection(input: &[u8]) {
    let input = &input[..input.len().min(INPUT_BYTES_MAX)];
    for limits in [Limits::default(), TIGHT] {
        let whole = converse(input, usize::MAX, &limits);
        for step in steps(input) {
            let pieces = converse(input, step, &limits);
            // What only a whole head can show is refused later in pieces than at once; never differently.
            let is_late = pieces.refusal.is_none() && whole.refusal.is_some();
            assert_eq!(pieces.messages, whole.messages, "in steps of {step}");
            assert!(is_late || pieces.refusal == whole.refusal, "in steps of {step}");
        }
    }
}

/// Laws of the writers: method, target, then names and values, each ended by 0xFF. What is not refused reads back.
pub(crate) fn write(input: &[u8]) {
    let input = &input[..input.len().min(INPUT_BYTES_MAX)];
    let mut parts = input.split(|&byte| byte == 0xff);
    let method = parts.next().and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("GET");
    let target = parts.next().unwrap_or(b"/");
    let mut out = Vec::new();
    if write_request_line(&mut out, method, target).is_err() {
        assert!(out.is_empty(), "a refused call appends nothing");
        write_request_line(&mut out, "GET", b"/").expect("a plain request line");
    }
    let mut written: Vec<(&[u8], &[u8])> = Vec::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        let before = out.len();
        match write_field(&mut out, name, value) {
            Ok(()) => written.push((name, tenfold_http1::trim_ows(value))),
            Err(error) => assert_eq!((error, out.len()), (Error::UnsafeToWrite, before)),
        }
    }
    out.extend_from_slice(HEAD_END);
    // What the fields mean may still be refused; their bytes may not be.
    match parse_request(&out, &mut 0, &ROOMY) {
        Ok(Some((head, consumed))) => {
            assert_eq!((consumed, &head.fields[..]), (out.len(), &written[..]));
        }
        Ok(None) => panic!("what was written is a whole head"),
        Err(error) => assert!(is_about_meaning(error, written.len()), "{error:?}"),
    }
}

fn is_about_meaning(error: Error, fields: usize) -> bool {
    match error {
        Error::TooManyFields => fields > ROOMY.fields_max,
        Error::InvalidTarget
        | Error::TargetFormMismatch
        | Error::UnsupportedScheme
        | Error::InvalidAuthority => true,
        Error::MissingHost | Error::DuplicateHost | Error::InvalidHost | Error::HostMismatch => true,
        Error::InvalidContentLength | Error::DuplicateContentLength | Error::ConflictingLength => true,
        Error::InvalidTransferEncoding | Error::DuplicateTransferEncoding => true,
        Error::UnsupportedTransferCoding | Error::UnsupportedExpectation => true,
        Error::InvalidConnection | Error::UnexpectedBody => true,
        _ => false,
    }
}

/// A head as text and its length.
type Parsed = Result<Option<(String, usize)>, Error>;

/// Piece sizes to try: single bytes, a small odd one, and one that depends on the input.
fn steps(input: &[u8]) -> [usize; 3] {
    let sum = input.iter().fold(0_usize, |sum, &byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    [1, 7, sum % input.len().max(1) + 1]
}

/// Bytes in pieces mean what they mean at once; a refusal may come later, but is the same one.
fn splits_agree(input: &[u8], parse: impl Fn(&[u8], &mut usize) -> Parsed) {
    let whole = parse(input, &mut 0);
    for step in steps(input) {
        let mut scanned = 0;
        let mut last = Ok(None);
        for end in (step..input.len()).step_by(step).chain([input.len()]) {
            last = parse(&input[..end], &mut scanned);
            if last != Ok(None) {
                break;
            }
        }
        if last == Ok(None) && whole.is_err() {
            let mut ended = input.to_vec();
            ended.extend_from_slice(b"\r\n\r\n");
            last = parse(&ended, &mut scanned);
        }
        assert_eq!(last, whole, "in steps of {step}");
    }
}

fn head_is_sound(head: &[u8], fields: &[Field<'_>]) {
    assert!(head.ends_with(b"\r\n\r\n"));
    let mut scratch = Vec::new();
    for (name, value) in fields {
        write_field(&mut scratch, name, value).expect("what was accepted can be written");
        assert_eq!(tenfold_http1::trim_ows(value), *value);
    }
}

fn request_reads_back(head: &RequestHead<'_>) {
    let mut out = Vec::new();
    write_request_line(&mut out, head.method_text, head.target).expect("what was accepted can be written");
    if head.version == Version::Http10 {
        let minor = out.len() - b"1\r\n".len();
        out[minor] = b'0';
    }
    for (name, value) in &head.fields {
        write_field(&mut out, name, value).expect("what was accepted can be written");
    }
    out.extend_from_slice(HEAD_END);
    let again = parse_request(&out, &mut 0, &ROOMY).expect("what was accepted is accepted again");
    // By their text: the fields' type ties two heads that compare to one lifetime.
    assert_eq!(format!("{again:?}"), format!("{:?}", Some((head, out.len()))));
}

fn response_reads_back(head: &ResponseHead<'_>) {
    let minor = u8::from(head.version == Version::Http11);
    let mut out = format!("HTTP/1.{minor} {} ", head.status).into_bytes();
    out.extend_from_slice(head.reason);
    out.extend_from_slice(b"\r\n");
    for (name, value) in &head.fields {
        write_field(&mut out, name, value).expect("what was accepted can be written");
    }
    out.extend_from_slice(HEAD_END);
    let again =
        parse_response(&out, &mut 0, &Method::Get, &ROOMY).expect("what was accepted is accepted again");
    assert_eq!(format!("{again:?}"), format!("{:?}", Some((head, out.len()))));
}

/// Does the request line end in a version that httparse knows?
fn has_common_request_version(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

/// Does the status line begin with a version that httparse knows? Its reason phrase may end like any other.
fn has_common_status_version(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.1 ") || head.starts_with(b"HTTP/1.0 ")
}

fn request_agrees_with_httparse(input: &[u8], ours: &Result<Option<(RequestHead<'_>, usize)>, Error>) {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut theirs = httparse::Request::new(&mut headers);
    let verdict = theirs.parse(input);
    match ours {
        Ok(Some((head, consumed))) if has_common_request_version(&input[..*consumed]) => {
            assert_eq!(verdict, Ok(httparse::Status::Complete(*consumed)));
            assert_eq!(theirs.method, Some(head.method_text));
            assert_eq!(theirs.path.map(str::as_bytes), Some(head.target));
            assert_eq!(theirs.version, Some(u8::from(head.version == Version::Http11)));
            same_fields(&head.fields, theirs.headers);
        }
        Ok(None) => {
            assert!(!matches!(verdict, Ok(httparse::Status::Complete(_))), "we wait for what has come");
        }
        _ => {}
    }
}

fn response_agrees_with_httparse(input: &[u8], ours: &Result<Option<(ResponseHead<'_>, usize)>, Error>) {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut theirs = httparse::Response::new(&mut headers);
    let verdict = theirs.parse(input);
    match ours {
        Ok(Some((head, consumed))) if has_common_status_version(&input[..*consumed]) => {
            assert_eq!(verdict, Ok(httparse::Status::Complete(*consumed)));
            assert_eq!(theirs.code, Some(head.status));
            let reason = if head.reason.is_ascii() { head.reason } else { b"" };
            assert_eq!(theirs.reason.map(str::as_bytes), Some(reason));
            same_fields(&head.fields, theirs.headers);
        }
        Ok(None) => {
            assert!(!matches!(verdict, Ok(httparse::Status::Complete(_))), "we wait for what has come");
        }
        _ => {}
    }
}

fn same_fields(ours: &[Field<'_>], theirs: &[httparse::Header<'_>]) {
    let theirs: Vec<Field<'_>> = theirs.iter().map(|header| (header.name.as_bytes(), header.value)).collect();
    assert_eq!(ours, &theirs[..]);
}

/// What became of a body.
#[derive(Debug, PartialEq)]
struct Decoded {
    payload: Vec<u8>,
    consumed: usize,
    /// Had it ended when the bytes had?
    end: Result<bool, Error>,
}

/// Decodes `input` as it comes in pieces of `step` bytes.
fn decode(input: &[u8], length: BodyLength, limits: &Limits, step: usize) -> Decoded {
    let mut decoder = BodyDecoder::new(length, limits);
    let mut decoded = Decoded { payload: Vec::new(), consumed: 0, end: Ok(false) };
    for piece in input.chunks(step.min(input.len().max(1))) {
        let mut rest = piece;
        loop {
            match decoder.decode(rest) {
                Ok((consumed, found)) => {
                    rest = &rest[consumed..];
                    decoded.consumed += consumed;
                    match found {
                        Piece::Data(data) => {
                            assert!(!data.is_empty());
                            decoded.payload.extend_from_slice(data);
                        }
                        Piece::NeedMore => {
                            assert!(rest.is_empty());
                            break;
                        }
                        Piece::End => {
                            assert!(decoder.is_done());
                            assert_eq!(decoder.on_eof(), Ok(()));
                            decoded.end = Ok(true);
                            return decoded;
                        }
                    }
                }
                Err(error) => {
                    assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(error), "an error is final");
                    assert_eq!(decoder.on_eof(), Err(error));
                    // How far framing was consumed before it turned out wrong depends on the pieces.
                    decoded.consumed = 0;
                    decoded.end = Err(error);
                    return decoded;
                }
            }
        }
    }
    decoded.end = Ok(decoder.is_done());
    decoded
}

/// Reads a complete chunked body once more with httparse's functions.
fn chunks_agree_with_httparse(body: &[u8], payload: &[u8]) {
    let mut rest = body;
    let mut theirs = Vec::new();
    loop {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > 15 {
            return;
        }
        let Ok(httparse::Status::Complete((behind, size))) = httparse::parse_chunk_size(rest) else {
            panic!("httparse refuses a chunk size that we took");
        };
        rest = &rest[behind..];
        if size == 0 {
            break;
        }
        let (data, behind) = rest.split_at(usize::try_from(size).expect("within the input"));
        theirs.extend_from_slice(data);
        rest = behind.strip_prefix(b"\r\n").expect("a chunk ends in CRLF");
    }
    assert_eq!(theirs, payload);
    let mut headers = vec![httparse::EMPTY_HEADER; rest.len() / 2 + 1];
    let trailers = httparse::parse_headers(rest, &mut headers);
    assert!(
        matches!(trailers, Ok(httparse::Status::Complete((end, _))) if end == rest.len()),
        "{trailers:?}"
    );
}

/// Payload written as chunks decodes to itself.
fn chunks_read_back(payload: &[u8]) {
    let mut out = Vec::new();
    payload.chunks(payload.len() / 3 + 1).for_each(|data| write_chunk(&mut out, data));
    out.extend_from_slice(LAST_CHUNK);
    let again = decode(&out, BodyLength::Chunked, &ROOMY, usize::MAX);
    assert_eq!(again, Decoded { payload: payload.to_vec(), consumed: out.len(), end: Ok(true) });
}

/// What a server made of a connection's bytes.
#[derive(Debug, Default, PartialEq)]
struct Conversation {
    /// Target and body of each message that ended.
    messages: Vec<(Vec<u8>, Vec<u8>)>,
    refusal: Option<Error>,
}

/// Serves a connection whose bytes come in pieces of `step`.
fn converse(input: &[u8], step: usize, limits: &Limits) -> Conversation {
    let mut conversation = Conversation::default();
    let mut buffered: Vec<u8> = Vec::new();
    let mut scanned = 0;
    let mut body: Option<(Vec<u8>, BodyDecoder, Vec<u8>)> = None;
    for piece in input.chunks(step.min(input.len().max(1))) {
        buffered.extend_from_slice(piece);
        let outcome = advance(&mut buffered, &mut scanned, &mut body, limits, &mut conversation.messages);
        if let Err(error) = outcome {
            conversation.refusal = Some(error);
            break;
        }
    }
    conversation
}

/// Reads as many messages as `buffered` holds.
fn advance(
    buffered: &mut Vec<u8>,
    scanned: &mut usize,
    body: &mut Option<(Vec<u8>, BodyDecoder, Vec<u8>)>,
    limits: &Limits,
    messages: &mut Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<(), Error> {
    loop {
        if let Some((target, decoder, payload)) = body {
            let (consumed, piece) = decoder.decode(buffered)?;
            match piece {
                Piece::Data(data) => payload.extend_from_slice(data),
                Piece::NeedMore => {}
                Piece::End => messages.push((std::mem::take(target), std::mem::take(payload))),
            }
            let needs_more = piece == Piece::NeedMore;
            let is_done = piece == Piece::End;
            buffered.drain(..consumed);
            if needs_more {
                return Ok(());
            }
            if is_done {
                *body = None;
            }
            continue;
        }
        let Some((head, consumed)) = parse_request(buffered, scanned, limits)? else { return Ok(()) };
        assert_eq!(*scanned, 0, "ready for the next head");
        *body = Some((head.target.to_vec(), BodyDecoder::new(head.body, limits), Vec::new()));
        drop(head);
        buffered.drain(..consumed);
    }
}
