//! The laws on generated input: plausible messages, and plausible messages with one byte changed.

use proptest::prelude::*;

use crate::properties;

/// A field line: often one that matters, rarely with a value that doesn't fit.
fn field_line() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "Host: a",
        "Content-Length: 5",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Connection: close",
        "Connection: keep-alive, X",
        "Expect: 100-continue",
        "Upgrade: websocket",
        "Keep-Alive: timeout=5",
    ]);
    let any = ("[A-Za-z-]{1,12}", "[ \t]{0,2}", "[ -~\u{e9}]{0,40}")
        .prop_map(|(name, space, value)| format!("{name}:{space}{value}"));
    prop_oneof![known.prop_map(str::to_owned), any]
}

fn start_line() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "GET / HTTP/1.1",
        "POST /cart?x=1 HTTP/1.1",
        "HEAD http://a/b HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "CONNECT a:443 HTTP/1.1",
        "GET /old HTTP/1.0",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 304 Not Modified",
        "HTTP/1.1 204 No Content",
        "HTTP/1.1 103 Early Hints",
        "HTTP/1.0 200",
    ])
}

/// A message, then perhaps one byte of it replaced.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let lines = prop::collection::vec(field_line(), 0..9);
    let body = prop::sample::select(vec![
        "",
        "hello",
        "5\r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    ]);
    let change = prop::option::weighted(0.5, (any::<prop::sample::Index>(), any::<u8>()));
    (start_line(), any::<bool>(), lines, body, change).prop_map(|(start, has_host, lines, body, change)| {
        let host = if has_host { "Host: a\r\n" } else { "" };
        let fields: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let mut message = format!("{start}\r\n{host}{fields}\r\n{body}").into_bytes();
        if let Some((place, byte)) = change {
            let place = place.index(message.len());
            message[place] = byte;
        }
        message
    })
}

proptest! {
    #[test]
    fn heads_keep_their_laws(message in message()) {
        properties::request(&message);
        properties::response(&message);
    }

    #[test]
    fn connections_keep_their_laws(first in message(), second in message()) {
        properties::connection(&[first, second].concat());
    }

    #[test]
    fn bodies_keep_their_laws(chunks in prop::collection::vec((0_usize..40, "(;[a-c]{1,3}(=\"?[a-c]\"?)?)?"), 0..6), end in "(0\r\n)?(X: y\r\n)?(\r\n)?") {
        let mut body: Vec<u8> = Vec::new();
        for (length, extension) in chunks {
            body.extend_from_slice(format!("{length:x}{extension}\r\n{}\r\n", "x".repeat(length)).as_bytes());
        }
        body.extend_from_slice(end.as_bytes());
        properties::chunked(&body);
    }

    #[test]
    fn any_bytes_keep_the_laws(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        properties::request(&bytes);
        properties::response(&bytes);
        properties::chunked(&bytes);
        properties::connection(&bytes);
        properties::write(&bytes);
    }
}
