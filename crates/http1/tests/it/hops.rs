//! What lives for one hop only.

use tenfold_http1::{Field, Limits, connection_tokens, hop_by_hop_named, is_hop_by_hop, parse_request};

fn named(values: &[&str]) -> Vec<String> {
    let fields: Vec<Field<'_>> = values.iter().map(|value| (&b"Connection"[..], value.as_bytes())).collect();
    hop_by_hop_named(&fields).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

fn check(values: &[&str], expected: &[&str]) {
    assert_eq!(named(values), expected, "{values:?}");
    // The heads' flag says the same.
    let lines: String = values.iter().map(|value| format!("Connection: {value}\r\n")).collect();
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let (head, _) =
        parse_request(text.as_bytes(), &mut 0, &Limits::default()).expect("accepted").expect("whole");
    assert_eq!(head.names_hop_by_hop, !expected.is_empty(), "{values:?}");
}

#[test]
fn connection_names_what_to_drop() {
    check(&[], &[]);
    check(&[""], &[]);
    check(&["keep-alive"], &[]);
    check(&["close"], &[]);
    check(&["X-Hop"], &["X-Hop"]);
    check(&["close, X-Hop , ,Y"], &["X-Hop", "Y"]);
    check(&["X", "Y,Z"], &["X", "Y", "Z"]);
    check(&["Upgrade, HTTP2-Settings"], &[]);
    check(&["TE"], &[]);
}

#[test]
fn connection_can_not_name_what_is_meant_for_the_other_end() {
    for name in [
        "Host",
        "Authorization",
        "Content-Length",
        "Transfer-Encoding",
        "Cookie",
        "Cache-Control",
        "Set-Cookie",
    ] {
        check(&[name], &[]);
    }
    for name in
        ["host", "ACCEPT-ENCODING", "X-Forwarded-For", "Forwarded", "Via", "If-None-Match", "Range", "Vary"]
    {
        check(&[name, "close"], &[]);
    }
    check(&["Host, X"], &["X"]);
}

#[test]
fn some_fields_are_always_for_one_hop() {
    for name in
        ["Connection", "keep-alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "UPGRADE"]
    {
        assert!(is_hop_by_hop(name.as_bytes()), "{name}");
    }
    for name in ["Proxy-Authenticate", "Proxy-Authorization", "HTTP2-Settings"] {
        assert!(is_hop_by_hop(name.as_bytes()), "{name}");
    }
    for name in
        ["", "Host", "Content-Length", "Trailers", "TEE", "Cookie", "X-Connection", "Proxy-Other-Field"]
    {
        assert!(!is_hop_by_hop(name.as_bytes()), "{name}");
    }
}

#[test]
fn tokens_are_trimmed_and_empty_ones_skipped() {
    let tokens = |value: &'static str| connection_tokens(value.as_bytes()).collect::<Vec<_>>();
    assert_eq!(tokens(" a ,\t, b,c "), [b"a", b"b", b"c"]);
    assert!(tokens(" , ").is_empty());
    assert!(tokens("").is_empty());
}
