//! Heads at and beyond their limits, and heads that arrive in pieces.

use tenfold_http1::{Error, Limits, Method, parse_request, parse_response};

/// Is a request head of these bytes taken (`Ok(true)`), unfinished, or refused?
fn parse(limits: &Limits, text: &[u8]) -> Result<bool, Error> {
    parse_request(text, &mut 0, limits).map(|found| found.is_some())
}

fn limits() -> Limits {
    Limits {
        head_bytes_max: 150,
        line_bytes_max: 40,
        target_bytes_max: 20,
        fields_max: 4,
        ..Limits::default()
    }
}

fn head(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn each_limit_is_inclusive_and_has_its_reason() {
    let check = |text: String, expected: Result<bool, Error>| {
        assert_eq!(parse(&limits(), text.as_bytes()), expected, "{text:?}");
    };
    let path = |bytes: usize| format!("/{}", "p".repeat(bytes - 1));
    check(head(&path(20), ""), Ok(true));
    check(head(&path(21), ""), Err(Error::TargetTooLong));
    let line = |bytes: usize| format!("X: {}\r\n", "v".repeat(bytes - 3));
    check(head("/", &line(40)), Ok(true));
    check(head("/", &line(41)), Err(Error::FieldTooLong));
    check(head("/", &format!("{}: v\r\n", "n".repeat(37))), Ok(true));
    check(head("/", &format!("{}: v\r\n", "n".repeat(38))), Err(Error::FieldTooLong));
    check(head("/", &"X: y\r\n".repeat(3)), Ok(true));
    check(head("/", &"X: y\r\n".repeat(4)), Err(Error::TooManyFields));
    let fill = 150 - head("/", "").len() - 2 * line(40).len();
    check(head("/", &format!("{}{}{}", line(40), line(40), line(fill - 2))), Ok(true));
    check(head("/", &format!("{}{}{}", line(40), line(40), line(fill - 1))), Err(Error::HeadTooLong));
}

#[test]
fn a_limit_is_enforced_before_the_line_or_head_ends() {
    let check = |text: String, expected: Result<bool, Error>| {
        assert_eq!(parse(&limits(), text.as_bytes()), expected, "{text:?}");
    };
    check(format!("GET /{}", "p".repeat(19)), Ok(false));
    check(format!("GET /{}", "p".repeat(20)), Err(Error::TargetTooLong));
    check(format!("GET / HTTP/1.1\r\nX: {}", "v".repeat(37)), Ok(false));
    check(format!("GET / HTTP/1.1\r\nX: {}", "v".repeat(38)), Err(Error::FieldTooLong));
    check(format!("GET / HTTP/1.1\r\n{}", "n".repeat(41)), Err(Error::FieldTooLong));
    check(format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(4)), Ok(false));
    check(format!("GET / HTTP/1.1\r\n{}Z", "X: y\r\n".repeat(4)), Err(Error::TooManyFields));
    let roomy = Limits { fields_max: 1000, ..limits() };
    let text = format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(100));
    assert_eq!(parse(&roomy, &text.as_bytes()[..149]), Ok(false));
    assert_eq!(parse(&roomy, &text.as_bytes()[..150]), Err(Error::HeadTooLong));
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let defaults = Limits::default();
    assert_eq!(parse(&defaults, head(&format!("/{}", "p".repeat(8191)), "").as_bytes()), Ok(true));
    assert_eq!(
        parse(&defaults, head(&format!("/{}", "p".repeat(8192)), "").as_bytes()),
        Err(Error::TargetTooLong)
    );
    assert_eq!(parse(&defaults, head("/", &"X: y\r\n".repeat(99)).as_bytes()), Ok(true));
    assert_eq!(parse(&defaults, head("/", &"X: y\r\n".repeat(100)).as_bytes()), Err(Error::TooManyFields));
    let long = format!("X: {}\r\n", "v".repeat(8192));
    assert_eq!(parse(&defaults, head("/", &long).as_bytes()), Err(Error::FieldTooLong));
    let lines = format!("X: {}\r\n", "v".repeat(8000)).repeat(5);
    assert_eq!(parse(&defaults, head("/", &lines).as_bytes()), Err(Error::HeadTooLong));
}

#[test]
fn a_response_has_the_same_limits() {
    let parse = |text: String| {
        parse_response(text.as_bytes(), &mut 0, &Method::Get, &limits()).map(|found| found.is_some())
    };
    assert_eq!(parse(format!("HTTP/1.1 200 {}\r\n\r\n", "r".repeat(19))), Ok(true));
    assert_eq!(parse(format!("HTTP/1.1 200 {}", "r".repeat(30))), Err(Error::FieldTooLong));
    assert_eq!(parse(format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(5))), Err(Error::TooManyFields));
    assert_eq!(parse(format!("HTTP/1.1 200 OK\r\nX: {}", "v".repeat(40))), Err(Error::FieldTooLong));
}

/// Sends `text` one byte at a time; says after which byte the answer came, and whether it was a head.
fn dribble(limits: &Limits, text: &[u8]) -> Option<(usize, Result<(), Error>)> {
    let mut scanned = 0;
    (1..=text.len()).find_map(|end| match parse_request(&text[..end], &mut scanned, limits) {
        Ok(None) => None,
        Ok(Some((_, consumed))) => {
            assert_eq!((consumed, scanned), (end, 0));
            Some((end, Ok(())))
        }
        Err(error) => Some((end, Err(error))),
    })
}

#[test]
fn a_dribbled_head_is_taken_at_its_last_byte() {
    for fields in ["", "X: y\r\n", &"X-Long-Name: and a value\r\n".repeat(50)] {
        let text = head("/products?page=2", fields);
        assert_eq!(dribble(&Limits::default(), text.as_bytes()), Some((text.len(), Ok(()))));
    }
}

#[test]
fn a_dribbled_head_is_refused_as_soon_as_a_byte_is_wrong() {
    let check = |wrong: &str, behind: usize, expected: Error| {
        let start = format!("GET /{} HTTP/1.1\r\nHost: a\r\nX: y", "p".repeat(100));
        let text = format!("{start}{wrong}");
        assert_eq!(
            dribble(&Limits::default(), text.as_bytes()),
            Some((start.len() + behind, Err(expected))),
            "{wrong:?}"
        );
    };
    check("\0", 1, Error::InvalidFieldValue);
    check("\x7f", 1, Error::InvalidFieldValue);
    check("\n", 1, Error::BareLineEnd);
    check("\rX", 2, Error::BareLineEnd);
    check("\r\n\n", 3, Error::BareLineEnd);
    check("\r\n\rX", 4, Error::BareLineEnd);
    check("\r\nX\0", 4, Error::InvalidFieldName);
}

#[test]
fn a_dribbled_head_that_never_ends_is_refused_at_its_limit() {
    let check = |text: String, expected: (usize, Error)| {
        let limits = Limits { fields_max: 10_000, ..Limits::default() };
        assert_eq!(
            dribble(&limits, text.as_bytes()),
            Some((expected.0, Err(expected.1))),
            "{} bytes",
            text.len()
        );
    };
    // An over-long line is found by a window as wide as the longest method and target with what is between them.
    let window = 32 + 8192 + 2;
    check("GET /".to_owned() + &"p".repeat(50_000), (window + 1, Error::TargetTooLong));
    check("GET / HTTP/1.1\r\n".to_owned() + &"X: y\r\n".repeat(50_000), (32 * 1024, Error::HeadTooLong));
    check("GET / HTTP/1.1\r\nX: ".to_owned() + &"v".repeat(50_000), (16 + window, Error::FieldTooLong));
}

#[test]
fn an_unfinished_head_says_nothing() {
    let text = head("/", "Content-Length: 12\r\n");
    for end in 0..text.len() {
        assert_eq!(parse(&Limits::default(), &text.as_bytes()[..end]), Ok(false), "{end}");
    }
    assert_eq!(parse(&Limits::default(), text.as_bytes()), Ok(true));
}

#[test]
fn a_wrong_position_is_survived() {
    let text = head("/", "");
    assert_eq!(
        parse_request(text.as_bytes(), &mut 1_000_000, &Limits::default()).map(|found| found.is_some()),
        Ok(false)
    );
}
