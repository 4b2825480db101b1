//! Request heads: what is accepted, as what, and what is refused with which reason.

use tenfold_http1::{
    BodyLength, Error, Limits, Method, RequestHead, Scheme, TargetForm, Version, find, find_all,
};
use tenfold_http1::{METHOD_BYTES_MAX, parse_request};

/// Parses `text`, a whole head, and shows the head to `look`.
fn accept(text: &str, look: impl FnOnce(&RequestHead<'_>)) {
    let limits = Limits::default();
    let (head, consumed) = parse_request(text.as_bytes(), &mut 0, &limits)
        .unwrap_or_else(|error| panic!("{text:?} is refused: {error:?}"))
        .unwrap_or_else(|| panic!("{text:?} is not a whole head"));
    assert_eq!(consumed, text.len(), "{text:?}");
    look(&head);
}

/// `text`, whole or not, is refused for this reason.
fn refuse(text: &str, expected: Error) {
    let refused = parse_request(text.as_bytes(), &mut 0, &Limits::default()).map(|found| found.is_some());
    assert_eq!(refused, Err(expected), "{text:?}");
}

/// A GET of `/` with these field lines besides Host.
fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn check_line(line: &str, expected: Error) {
    refuse(&format!("{line}\r\nHost: a\r\n\r\n"), expected);
}

fn check_fields(fields: &str, expected: Error) {
    refuse(&get(fields), expected);
}

#[test]
fn a_head_says_what_was_asked() {
    accept(
        "POST /a/b?c=d&e HTTP/1.1\r\nHost: Shop.example:8080\r\nX: y\r\nContent-Length: 12\r\n\r\n",
        |head| {
            assert_eq!((head.method, head.method_text), (Method::Post, "POST"));
            assert_eq!(head.target, b"/a/b?c=d&e");
            assert_eq!((head.path, head.query), (&b"/a/b"[..], Some(&b"c=d&e"[..])));
            assert_eq!(head.form, TargetForm::Origin);
            assert_eq!(head.version, Version::Http11);
            assert_eq!(head.host, b"Shop.example:8080");
            assert_eq!(head.fields.len(), 3);
            assert_eq!(head.fields[1], (&b"X"[..], &b"y"[..]));
            assert_eq!(head.body, BodyLength::Exact(12));
            assert!(head.keep_alive && !head.expect_continue && !head.upgrade && !head.names_hop_by_hop);
        },
    );
}

#[test]
fn what_follows_the_head_is_left_alone() {
    let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\x00\xff not looked at";
    let (_, consumed) = parse_request(text, &mut 0, &Limits::default()).unwrap().unwrap();
    assert_eq!(&text[consumed..], b"\x00\xff not looked at");
}

#[test]
fn methods_are_case_sensitive_tokens_of_bounded_length() {
    let check = |text: &str, method: Method| {
        accept(&format!("{text} / HTTP/1.1\r\nHost: a\r\n\r\n"), |head| {
            assert_eq!((head.method, head.method_text), (method, text));
        });
    };
    check("GET", Method::Get);
    check("HEAD", Method::Head);
    check("POST", Method::Post);
    check("PUT", Method::Put);
    check("DELETE", Method::Delete);
    check("OPTIONS", Method::Options);
    check("PATCH", Method::Patch);
    check("TRACE", Method::Trace);
    check("get", Method::Other);
    check("GETS", Method::Other);
    check("M-SEARCH", Method::Other);
    check("!#$%&'*+-.^_`|~09", Method::Other);
    check(&"X".repeat(METHOD_BYTES_MAX), Method::Other);
    check_line(&format!("{} / HTTP/1.1", "X".repeat(METHOD_BYTES_MAX + 1)), Error::InvalidMethod);
    check_line("G(T / HTTP/1.1", Error::InvalidMethod);
    check_line(" / HTTP/1.1", Error::InvalidMethod);
    check_line(" GET / HTTP/1.1", Error::InvalidMethod);
    check_line("GET\t/ HTTP/1.1", Error::InvalidMethod);
    check_line("GET\r\n", Error::InvalidMethod);
}

#[test]
fn methods_know_whether_they_may_be_sent_again() {
    let check = |method: Method, is_safe: bool, is_idempotent: bool| {
        assert_eq!((method.is_safe(), method.is_idempotent()), (is_safe, is_idempotent), "{method:?}");
    };
    check(Method::Get, true, true);
    check(Method::Head, true, true);
    check(Method::Options, true, true);
    check(Method::Trace, true, true);
    check(Method::Put, false, true);
    check(Method::Delete, false, true);
    check(Method::Post, false, false);
    check(Method::Patch, false, false);
    check(Method::Connect, false, false);
    check(Method::Other, false, false);
}

#[test]
fn nonsense_is_refused_at_its_first_byte() {
    refuse("\x16", Error::InvalidMethod);
    refuse("\x16\x03\x01", Error::InvalidMethod);
    refuse("GET\0", Error::InvalidMethod);
    refuse("\0", Error::InvalidMethod);
    refuse("\n", Error::InvalidMethod);
    refuse("<", Error::InvalidMethod);
    refuse("{\"", Error::InvalidMethod);
    refuse("GET /\0", Error::InvalidTarget);
    refuse("GET / X", Error::InvalidVersion);
    refuse("GET / HTTP/1.1\r\nHost: a\r\nX\0", Error::InvalidFieldName);
    refuse("GET / HTTP/1.1\r\nHost: a\r\nX: \0", Error::InvalidFieldValue);
}

#[test]
fn one_empty_line_before_a_request_is_skipped() {
    accept("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", |head| assert_eq!(head.target, b"/"));
    refuse("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Error::InvalidMethod);
    refuse("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Error::InvalidMethod);
    refuse("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Error::InvalidMethod);
}

#[test]
fn versions_are_one_dot_something() {
    let check = |text: &str, version: Version, keep_alive: bool| {
        accept(&format!("GET / {text}\r\nHost: a\r\n\r\n"), |head| {
            assert_eq!((head.version, head.keep_alive), (version, keep_alive), "{text}");
        });
    };
    check("HTTP/1.1", Version::Http11, true);
    check("HTTP/1.0", Version::Http10, false);
    check("HTTP/1.2", Version::Http11, true);
    check("HTTP/1.9", Version::Http11, true);
    for unsupported in ["HTTP/2.0", "HTTP/0.9", "HTTP/3.0", "HTTP/9.9"] {
        check_line(&format!("GET / {unsupported}"), Error::UnsupportedVersion);
    }
    refuse("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Error::UnsupportedVersion);
    for malformed in
        ["http/1.1", "HTTP/1", "HTTP/1.", "HTTP/1.10", "HTTP/11.1", "HTTP/1,1", "HTTPS/1.1", "HTTP/a.b"]
    {
        check_line(&format!("GET / {malformed}"), Error::InvalidVersion);
    }
    for malformed in ["HTTP/1.1 ", " HTTP/1.1", "HTTP /1.1", "HTTP/1.1\t", "HTTP/1.1 x", "", "HTTP/+1.1"] {
        check_line(&format!("GET / {malformed}"), Error::InvalidVersion);
    }
    check_line("GET /", Error::InvalidVersion);
    check_line("GET / x HTTP/1.1", Error::InvalidVersion);
}

#[test]
fn lines_end_in_crlf_and_nothing_else() {
    refuse("GET / HTTP/1.1\nHost: a\n\n", Error::BareLineEnd);
    refuse("GET / HTTP/1.1\rHost: a\r\r", Error::BareLineEnd);
    refuse("GET / HTTP/1.1\r\nHost: a\n\r\n", Error::BareLineEnd);
    refuse("GET / HTTP/1.1\r\nHost: a\r\n\n", Error::BareLineEnd);
    refuse("GET / HTTP/1.1\r\nHost: a\r\n\rX", Error::BareLineEnd);
    refuse("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", Error::BareLineEnd);
    refuse("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Error::BareLineEnd);
    refuse("GET / HTTP/1.1\r\nHost\n", Error::BareLineEnd);
}

#[test]
fn targets_are_printable_ascii_without_space_and_fragment() {
    let check = |target: &str| {
        accept(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), |head| {
            assert_eq!(head.target, target.as_bytes());
        });
    };
    check("/");
    check("//double//slash");
    check("/a;b=c,d:@!$&'()*+");
    check("/%7Euser/%zz");
    check("/?x[]=1|{y}^`\"<>\\");
    check("/~");
    for refused in ["/a\tb", "/a#b", "/\u{e4}", "/a\x7fb", "/a\x01", "#", "\x08"] {
        check_line(&format!("GET {refused} HTTP/1.1"), Error::InvalidTarget);
    }
    check_line("GET  / HTTP/1.1", Error::InvalidTarget);
    check_line("GET  HTTP/1.1", Error::InvalidTarget);
}

#[test]
fn paths_and_queries_are_told_apart() {
    let check = |line: &str, path: &str, query: Option<&str>| {
        accept(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"), |head| {
            assert_eq!((head.path, head.query), (path.as_bytes(), query.map(str::as_bytes)), "{line}");
        });
    };
    check("GET /", "/", None);
    check("GET /?", "/", Some(""));
    check("GET /a?b?c", "/a", Some("b?c"));
    check("GET http://a", "/", None);
    check("GET http://a/", "/", None);
    check("GET http://a?b", "/", Some("b"));
    check("GET http://a/b/c?d", "/b/c", Some("d"));
    check("OPTIONS *", "*", None);
    check("OPTIONS http://a", "*", None);
    check("OPTIONS http://a/", "/", None);
    check("OPTIONS http://a?b", "/", Some("b"));
}

#[test]
fn forms_go_with_their_methods() {
    accept("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", |head| assert_eq!(head.form, TargetForm::Asterisk));
    accept("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", |head| {
        assert_eq!((head.form, head.host, head.path), (TargetForm::Authority, &b"a:443"[..], &b""[..]));
    });
    accept("GET HTTPS://a:444/b?c HTTP/1.1\r\nHost: a:444\r\n\r\n", |head| {
        let path = &b"/b?c"[..];
        assert_eq!(head.form, TargetForm::Absolute { scheme: Scheme::Https, authority: b"a:444", path });
    });
    check_line("GET * HTTP/1.1", Error::TargetFormMismatch);
    check_line("GET a:443 HTTP/1.1", Error::TargetFormMismatch);
    check_line("CONNECT / HTTP/1.1", Error::TargetFormMismatch);
    check_line("CONNECT * HTTP/1.1", Error::TargetFormMismatch);
    check_line("CONNECT http://a:80/ HTTP/1.1", Error::TargetFormMismatch);
    check_line("CONNECT a HTTP/1.1", Error::InvalidAuthority);
    check_line("CONNECT a: HTTP/1.1", Error::InvalidAuthority);
    check_line("CONNECT a:99999 HTTP/1.1", Error::InvalidAuthority);
    check_line("CONNECT u@a:443 HTTP/1.1", Error::InvalidAuthority);
    check_line("OPTIONS ** HTTP/1.1", Error::InvalidTarget);
    check_line("GET index.html HTTP/1.1", Error::InvalidTarget);
    check_line("GET ?q HTTP/1.1", Error::InvalidTarget);
    check_line("GET \\a HTTP/1.1", Error::InvalidTarget);
    check_line("GET mailto:a HTTP/1.1", Error::InvalidTarget);
    check_line("GET ftp://a/ HTTP/1.1", Error::UnsupportedScheme);
    check_line("GET ws://a/ HTTP/1.1", Error::UnsupportedScheme);
    check_line("GET ://a/ HTTP/1.1", Error::UnsupportedScheme);
}

#[test]
fn the_target_and_host_name_the_same_host() {
    let check = |authority: &str, host: &str, agrees: bool| {
        let text = format!("GET {authority}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let named = authority.split_once("://").unwrap().1;
        match agrees {
            true => accept(&text, |head| assert_eq!(head.host, named.as_bytes())),
            false => refuse(&text, Error::HostMismatch),
        }
    };
    check("http://a.example", "a.example", true);
    check("http://A.example", "a.EXAMPLE", true);
    check("http://a.example:80", "a.example", true);
    check("http://a.example", "a.example:80", true);
    check("http://a.example:", "a.example", true);
    check("https://a.example", "a.example:443", true);
    check("http://[::1]:8080", "[::1]:8080", true);
    check("https://a.example", "a.example:80", false);
    check("http://a.example", "a.example:443", false);
    check("http://a.example", "b.example", false);
    check("http://a.example", "a.example.", false);
    check("http://a.example:8080", "a.example", false);
    check("http://a.example", "[::1]", false);
    refuse("CONNECT a:443 HTTP/1.1\r\nHost: b:443\r\n\r\n", Error::HostMismatch);
    refuse("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Error::HostMismatch);
}

#[test]
fn an_authority_is_a_host_and_perhaps_a_port() {
    for refused in
        ["", ":80", "user@a", "user:pass@a", "a:b", "a:80:80", "[::1", "a\\b", "a%zz", "a:65536", "[v1.x]"]
    {
        check_line(&format!("GET http://{refused}/ HTTP/1.1"), Error::InvalidAuthority);
    }
}

#[test]
fn host_is_one_valid_host() {
    let check = |host: &str, expected: Result<(), Error>| {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        match expected {
            Ok(()) => accept(&text, |head| assert_eq!(head.host, host.trim().as_bytes())),
            Err(error) => refuse(&text, error),
        }
    };
    for host in
        ["a", "a.example", "a.example.", "a:80", "a:", "127.0.0.1:1", "[::1]", "[2001:db8::1]:8080", "a_b"]
    {
        check(host, Ok(()));
    }
    for host in
        ["xn--bcher-kva.example", "%41", "a:65535", "a:00080", "  a\t", "[::ffff:1.2.3.4]", "a!$&'()*+,;="]
    {
        check(host, Ok(()));
    }
    for host in
        ["", ":80", " ", "a b", "a,b c", "a/", "a/b", "a?b", "a#b", "a@b", "u:p@a", "a\\b", "a:65536", "a:-1"]
    {
        check(host, Err(Error::InvalidHost));
    }
    for host in
        ["a:+1", "a:8o", "a:80:90", "[::1", "::1", "[::1]a", "[]", "[fe80::1%25eth0]", "[v1.a]", "[1.2.3.4]"]
    {
        check(host, Err(Error::InvalidHost));
    }
    for host in ["b\u{fc}cher.example", "a%", "a%4", "a%g0", "a<b>", "\"a\"", "a^", "a|b", "a`", "{a}"] {
        check(host, Err(Error::InvalidHost));
    }
}

#[test]
fn host_is_required_once_in_http11() {
    refuse("GET / HTTP/1.1\r\n\r\n", Error::MissingHost);
    refuse("GET http://a/ HTTP/1.1\r\n\r\n", Error::MissingHost);
    refuse("GET / HTTP/1.2\r\nX: y\r\n\r\n", Error::MissingHost);
    refuse("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Error::DuplicateHost);
    refuse("GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", Error::DuplicateHost);
    refuse("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Error::DuplicateHost);
    refuse("GET / HTTP/1.0\r\nHost:\r\n\r\n", Error::InvalidHost);
    accept("GET / HTTP/1.0\r\n\r\n", |head| assert_eq!(head.host, b""));
    accept("GET http://a/ HTTP/1.0\r\n\r\n", |head| assert_eq!(head.host, b"a"));
}

#[test]
fn names_are_tokens_up_to_their_colon() {
    check_fields("X : y\r\n", Error::SpaceBeforeColon);
    check_fields("X\t: y\r\n", Error::SpaceBeforeColon);
    check_fields("X Y: z\r\n", Error::SpaceBeforeColon);
    check_fields(": y\r\n", Error::InvalidFieldName);
    check_fields("X\r\n", Error::InvalidFieldName);
    check_fields("X(: y\r\n", Error::InvalidFieldName);
    check_fields("X@Y: z\r\n", Error::InvalidFieldName);
    check_fields("X\u{e9}: y\r\n", Error::InvalidFieldName);
    check_fields("\"X\": y\r\n", Error::InvalidFieldName);
    check_fields("X\x7f: y\r\n", Error::InvalidFieldName);
    check_fields("X\0: y\r\n", Error::InvalidFieldName);
    accept(&get("!#$%&'*+-.^_`|~: y\r\n"), |head| {
        assert_eq!(find(&head.fields, "!#$%&'*+-.^_`|~"), Some(&b"y"[..]));
    });
}

#[test]
fn folding_is_refused_wherever_it_stands() {
    check_fields("X: y\r\n z\r\n", Error::FoldedField);
    check_fields("X: y\r\n\tz: w\r\n", Error::FoldedField);
    check_fields(" X: y\r\n", Error::FoldedField);
    check_fields("X: y\r\n \r\n", Error::FoldedField);
    refuse("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Error::FoldedField);
}

#[test]
fn values_are_trimmed_and_free_of_controls() {
    let check = |raw: &str, value: &[u8]| {
        accept(&get(&format!("X:{raw}\r\n")), |head| {
            assert_eq!(find(&head.fields, "x"), Some(value), "{raw:?}");
        });
    };
    check("", b"");
    check(" ", b"");
    check(" \t \t", b"");
    check("y", b"y");
    check(" y", b"y");
    check("\ty \t", b"y");
    check("  y \t z  ", b"y \t z");
    check(" \u{e9}", "\u{e9}".as_bytes());
    check(" :", b":");
    check(
        " a long value, longer than a few words of eight bytes each",
        b"a long value, longer than a few words of eight bytes each",
    );
    for control in (0..=0x1f_u8).chain([0x7f]).filter(|byte| !b"\t\r\n".contains(byte)) {
        for place in ["", "y", "yyyyyyyyyyyyyyyyyyyyyy"] {
            check_fields(&format!("X: {place}{}z\r\n", char::from(control)), Error::InvalidFieldValue);
        }
    }
}

#[test]
fn fields_are_found_by_name_in_order() {
    accept(&get("Via: b\r\nX: c\r\nvIA: d\r\n"), |head| {
        assert_eq!(find(&head.fields, "via"), Some(&b"b"[..]));
        assert_eq!(find_all(&head.fields, "VIA").collect::<Vec<_>>(), [b"b", b"d"]);
        assert_eq!(find(&head.fields, "vi"), None);
    });
}

#[test]
fn lengths_are_digits_within_64_bits_and_given_once() {
    let check = |value: &str, expected: Result<u64, Error>| {
        let text = get(&format!("Content-Length: {value}\r\n"));
        match expected {
            Ok(length) => accept(&text, |head| assert_eq!(head.body, BodyLength::Exact(length))),
            Err(error) => refuse(&text, error),
        }
    };
    check("0", Ok(0));
    check("42", Ok(42));
    check("0042", Ok(42));
    check("18446744073709551615", Ok(u64::MAX));
    for refused in
        ["18446744073709551616", "99999999999999999999999", "", " ", "+1", "-1", "1 2", "1,1", "1, 1", "0x1"]
    {
        check(refused, Err(Error::InvalidContentLength));
    }
    for refused in ["1e3", "1.0", "1;", "\"1\"", "one", "\u{661}", "1\t1", "1_0", "1b"] {
        check(refused, Err(Error::InvalidContentLength));
    }
    check_fields("Content-Length: 1\r\nContent-Length: 1\r\n", Error::DuplicateContentLength);
    check_fields("Content-Length: 1\r\ncontent-length: 2\r\n", Error::DuplicateContentLength);
    accept(&get(""), |head| assert_eq!(head.body, BodyLength::None));
    refuse("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 1\r\n\r\n", Error::UnexpectedBody);
    refuse("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n", Error::UnexpectedBody);
}

#[test]
fn connections_persist_as_the_version_and_options_say() {
    let check = |version: &str, fields: &str, keep_alive: bool| {
        accept(&format!("GET / {version}\r\nHost: a\r\n{fields}\r\n"), |head| {
            assert_eq!(head.keep_alive, keep_alive, "{version} {fields:?}");
        });
    };
    check("HTTP/1.1", "", true);
    check("HTTP/1.1", "Connection: keep-alive\r\n", true);
    check("HTTP/1.1", "Connection: close\r\n", false);
    check("HTTP/1.1", "Connection: Close\r\n", false);
    check("HTTP/1.1", "Connection: foo, ,close ,\r\n", false);
    check("HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n", false);
    check("HTTP/1.1", "Connection: closed\r\n", true);
    check("HTTP/1.1", "Connection:\r\n", true);
    check("HTTP/1.1", "Proxy-Connection: close\r\n", true);
    check("HTTP/1.0", "", false);
    check("HTTP/1.0", "Connection: Keep-Alive\r\n", true);
    check("HTTP/1.0", "Connection: keep-alive, close\r\n", false);
    check_fields("Connection: a b\r\n", Error::InvalidConnection);
    check_fields("Connection: close;\r\n", Error::InvalidConnection);
    check_fields("Connection: \"close\"\r\n", Error::InvalidConnection);
    check_fields(&format!("Connection: {}\r\n", "a,".repeat(33)), Error::InvalidConnection);
    check_fields(&"Connection: a\r\n".repeat(33), Error::InvalidConnection);
}

#[test]
fn expectations_are_100_continue_or_refused() {
    let check = |version: &str, fields: &str, expected: Result<bool, Error>| {
        let text = format!("PUT / {version}\r\nHost: a\r\n{fields}\r\n");
        match expected {
            Ok(expects) => accept(&text, |head| assert_eq!(head.expect_continue, expects, "{text:?}")),
            Err(error) => refuse(&text, error),
        }
    };
    let body = "Content-Length: 1\r\n";
    check("HTTP/1.1", &format!("Expect: 100-continue\r\n{body}"), Ok(true));
    check("HTTP/1.1", &format!("Expect: 100-Continue\r\n{body}"), Ok(true));
    check("HTTP/1.1", "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", Ok(true));
    check("HTTP/1.1", "Expect: 100-continue\r\n", Ok(false));
    check("HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n", Ok(false));
    check("HTTP/1.1", &format!("Expect:\r\n{body}"), Ok(false));
    check("HTTP/1.0", &format!("Expect: 100-continue\r\n{body}"), Ok(false));
    check("HTTP/1.0", "Expect: tea\r\n", Ok(false));
    check("HTTP/1.1", "Expect: tea\r\n", Err(Error::UnsupportedExpectation));
    check("HTTP/1.1", "Expect: 100-continue, tea\r\n", Err(Error::UnsupportedExpectation));
    check("HTTP/1.1", "Expect: 100-continue=1\r\n", Err(Error::UnsupportedExpectation));
}

#[test]
fn an_upgrade_is_offered_by_both_fields_in_http11() {
    let check = |version: &str, fields: &str, upgrade: bool| {
        accept(&format!("GET / {version}\r\nHost: a\r\n{fields}\r\n"), |head| {
            assert_eq!(head.upgrade, upgrade, "{version} {fields:?}");
        });
    };
    check("HTTP/1.1", "Upgrade: websocket\r\nConnection: Upgrade\r\n", true);
    check("HTTP/1.1", "Upgrade: h2c\r\nConnection: keep-alive, upgrade\r\n", true);
    check("HTTP/1.1", "Upgrade: websocket\r\n", false);
    check("HTTP/1.1", "Connection: upgrade\r\n", false);
    check("HTTP/1.0", "Upgrade: websocket\r\nConnection: Upgrade\r\n", false);
}

#[test]
fn every_refusal_has_a_status() {
    let check = |error: Error, status: u16, reason: &str| {
        assert_eq!((error.status(), error.reason()), (status, reason));
    };
    check(Error::InvalidMethod, 400, "invalid_method");
    check(Error::TargetTooLong, 414, "target_too_long");
    check(Error::UnsupportedExpectation, 417, "unsupported_expectation");
    check(Error::FieldTooLong, 431, "field_too_long");
    check(Error::TooManyFields, 431, "too_many_fields");
    check(Error::HeadTooLong, 431, "head_too_long");
    check(Error::TrailersTooLong, 431, "trailers_too_long");
    check(Error::UnsupportedTransferCoding, 501, "unsupported_transfer_coding");
    check(Error::UnsupportedVersion, 505, "unsupported_version");
    check(Error::MissingHost, 400, "missing_host");
    check(Error::ConflictingLength, 400, "conflicting_length");
    check(Error::UnsafeToWrite, 500, "unsafe_to_write");
}
