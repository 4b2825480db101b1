//! Bytes that no client and no origin should send: one table of each, for whoever stands in between.
//!
//! **Intuition.** What a proxy makes of malformed input decides whether two parties ever read one message differently,
//! which is how requests are smuggled. So the inputs are kept in one place, by name, and every proof of the product
//! throws all of them.
//!
//! **Mechanism.** [`requests`] are whole inputs: once they are sent nothing more is needed to judge them. Where bytes
//! follow the fault, they are a request for [`SMUGGLED`], which must never reach an origin. [`answers`] are what a lying
//! origin sends; [`Lie`] says what may become of them.
//!
//! **Failure.** None of its own: these are constants, and the longest is below a megabyte.

use crate::Answer;

/// The target that bytes behind a fault ask for.
pub const SMUGGLED: &str = "/smuggled";

/// A malformed request.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is wrong with it.
    pub name: String,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// Heads with one fault each; `GET /smuggled` follows where the fault could hide it.
const HEADS: &[(&str, &str)] = &[
    ("nonsense", "nonsense\r\n\r\n"),
    ("two empty lines first", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("bare LF", "GET / HTTP/1.1\nHost: a\n\n"),
    ("bare LF in one line", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
    ("bare CR", "GET / HTTP/1.1\rHost: a\r\n\r\n"),
    ("bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n"),
    ("no version", "GET /\r\n\r\n"),
    ("HTTP/0.9 with a host", "GET /\r\nHost: a\r\n\r\n"),
    ("HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    ("HTTP/1.2", "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
    ("lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n"),
    ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("space behind the version", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    ("tab for space", "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    ("space before the method", " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no method", "/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a method that is no token", "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("control in the target", "GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a target without a slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("bad percent-encoding", "GET /%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    ("an encoded NUL", "GET /a%00b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    ("above the root", "GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    ("asterisk for GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nConnection: close\r\n\r\n"),
    ("TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    ("no host", "GET / HTTP/1.1\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("the same host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    ("a host that is none", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("a host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    ("another host in the target", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a user in the target", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n"),
    ("space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("a folded field", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"),
    ("a line without a colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
    ("an empty field name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
    ("a field name that is no token", "GET / HTTP/1.1\r\nHost: a\r\nX[]: b\r\n\r\n"),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n"),
    ("DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\x7fc\r\n\r\n"),
    (
        "both lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n@",
    ),
    (
        "both lengths, reversed",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 48\r\n\r\n0\r\n\r\n@",
    ),
    ("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 48\r\n\r\n@"),
    (
        "the same length twice",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n@",
    ),
    ("a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 48\r\n\r\n@"),
    ("a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n@"),
    ("a negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n@"),
    ("an empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n@"),
    ("a length in hex", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x0\r\n\r\n@"),
    (
        "a length beyond 64 bits",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n@",
    ),
    (
        "a body beyond every limit",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n@",
    ),
    ("a length with a space in it", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0 0\r\n\r\n@"),
    ("a second coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n@"),
    ("chunked twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n@"),
    (
        "chunked in two lines",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n@",
    ),
    ("identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n@"),
    (
        "chunked behind a vertical tab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n@",
    ),
    ("quoted chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n@"),
    ("an almost chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n@"),
    ("chunked in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n@"),
    (
        "a coding with a space before its colon",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n@",
    ),
    ("a folded coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n@"),
    ("a TLS greeting", "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03\r\n\r\n"),
    ("a SOCKS greeting", "\x05\x01\0\r\n\r\n"),
    ("an SSH greeting", "SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    ("a PROXY preamble", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a response", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
];

/// Bodies with one fault each, behind a head that announces chunks.
const CHUNKS: &[(&str, &str)] = &[
    ("a chunk size that is none", "zz\r\n@"),
    ("an empty chunk size", "\r\nabc\r\n0\r\n\r\n@"),
    ("a chunk size with 0x", "0x3\r\nabc\r\n0\r\n\r\n@"),
    ("a signed chunk size", "+3\r\nabc\r\n0\r\n\r\n@"),
    ("a negative chunk size", "-3\r\nabc\r\n0\r\n\r\n@"),
    ("a chunk size beyond 64 bits", "10000000000000000\r\nabc@"),
    ("a huge chunk size", "ffffffffffffffff\r\nabc@"),
    ("a chunk size in bare LF", "3\nabc\r\n0\r\n\r\n@"),
    ("a chunk longer than it says", "3\r\nabcd\r\n0\r\n\r\n@"),
    ("a chunk ended by bare LF", "3\r\nabc\n0\r\n\r\n@"),
    ("space before a chunk size", " 3\r\nabc\r\n0\r\n\r\n@"),
    ("a control in a chunk extension", "3;a=\x01\r\nabc\r\n0\r\n\r\n@"),
    ("a bare LF in a chunk extension", "3;a\nb\r\nabc\r\n0\r\n\r\n@"),
    ("a trailer that is no field", "0\r\nnonsense\r\n\r\n@"),
    ("a folded trailer", "0\r\nX: a\r\n b\r\n\r\n@"),
];

/// All malformed requests.
#[must_use]
pub fn requests() -> Vec<Request> {
    let smuggled = format!("GET {SMUGGLED} HTTP/1.1\r\nHost: a\r\n\r\n");
    let request = |name: &str, text: String| Request {
        name: name.to_owned(),
        bytes: text.replace('@', &smuggled).into_bytes(),
    };
    // `@` is also a byte of its own in two of the heads, which are judged by their hosts.
    let head = |&(name, text): &(&str, &str)| match name.contains("user") {
        true => Request { name: name.to_owned(), bytes: text.as_bytes().to_vec() },
        false => request(name, text.to_owned()),
    };
    let chunks = |&(name, text): &(&str, &str)| {
        request(name, format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{text}"))
    };
    let mut all: Vec<_> = HEADS.iter().map(head).chain(CHUNKS.iter().map(chunks)).collect();
    let get = |fields: String| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    all.push(request("a long target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9 << 10))));
    all.push(request("a long method", format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(9 << 10))));
    all.push(request("a long field", get(format!("X: {}\r\n", "a".repeat(9 << 10)))));
    all.push(request("many fields", get("X: a\r\n".repeat(101))));
    all.push(request("a long head", get(format!("X: {}\r\n", "a".repeat(4 << 10)).repeat(9))));
    all.push(Request { name: "bytes beyond ASCII".into(), bytes: (128..=255).chain(*b"\r\n\r\n").collect() });
    all.push(Request { name: "only NULs".into(), bytes: [&[0; 4096][..], b"\r\n\r\n"].concat() });
    all
}

/// What may become of a lying origin's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It must not be taken for an answer: the client gets a refusal.
    Refused,
    /// Its head may have gone through, but it never ends as a whole message.
    CutShort,
    /// It is whole as far as it goes, and what follows is nobody's. The body is `ok`.
    Surplus,
}

/// All lying answers, by name. Each asks to be cached.
#[must_use]
pub fn answers() -> Vec<(&'static str, Lie, Answer)> {
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n{fields}\r\n");
    let sent = |fields: &str, body: &str| Answer::verbatim(format!("{}{body}", head(fields)));
    let chunked = |body: &str| sent("Transfer-Encoding: chunked\r\n", body);
    let cached = |answer: Answer| answer.cache_control("max-age=600");
    let long = vec![b'x'; 300_000];
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    vec![
        ("silence", Lie::Refused, Answer::verbatim("")),
        ("half a head", Lie::Refused, Answer::verbatim("HTTP/1.1 200 OK\r\nContent-Le")),
        ("a status line of garbage", Lie::Refused, Answer::verbatim("\x07\x03 whatever\r\n\r\nbody")),
        ("a status that is none", Lie::Refused, Answer::verbatim("HTTP/1.1 20 OK\r\n\r\n")),
        ("a request for an answer", Lie::Refused, Answer::verbatim("GET / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("bare LF", Lie::Refused, Answer::verbatim("HTTP/1.1 200 OK\nContent-Length: 0\n\n")),
        ("two lengths", Lie::Refused, sent("Content-Length: 2\r\nContent-Length: 3\r\n", "okk")),
        (
            "both lengths",
            Lie::Refused,
            sent("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ),
        ("a negative length", Lie::Refused, sent("Content-Length: -2\r\n", "ok")),
        ("an unknown coding", Lie::Refused, sent("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")),
        ("a field name with a space", Lie::Refused, sent("Bad Name: 1\r\nContent-Length: 2\r\n", "ok")),
        ("a folded field", Lie::Refused, sent("X: a\r\n b\r\nContent-Length: 2\r\n", "ok")),
        (
            "an upgrade nobody asked for",
            Lie::Refused,
            Answer::verbatim("HTTP/1.1 101 \r\nUpgrade: x\r\n\r\n"),
        ),
        ("an endless head", Lie::Refused, Answer::verbatim(head(&"X-Endless: head\r\n".repeat(40_000)))),
        ("an endless line", Lie::Refused, Answer::verbatim(head(&format!("X: {}\r\n", "x".repeat(700_000))))),
        ("a flood of 1xx", Lie::Refused, Answer::verbatim("HTTP/1.1 102 Processing\r\n\r\n".repeat(20_000))),
        ("a short body", Lie::CutShort, cached(Answer::ok("hello world").cut_at(5))),
        ("a short body, reset", Lie::CutShort, cached(Answer::ok("hello world").cut_at(5).resetting())),
        ("a long body, short", Lie::CutShort, cached(Answer::ok(long.clone()).cut_at(200_000))),
        ("chunks without an end", Lie::CutShort, chunked("2\r\nok\r\n")),
        ("half a chunk", Lie::CutShort, chunked("8\r\nok\r\n")),
        (
            "long chunks, cut",
            Lie::CutShort,
            cached(Answer::new(200).chunked([long.clone(), long]).cut_at(400_000)),
        ),
        ("a bad chunk size", Lie::CutShort, chunked("2\r\nok\r\nXX\r\n")),
        ("a huge chunk", Lie::CutShort, chunked("ffffffffffffffff\r\nok")),
        ("an endless chunk extension", Lie::CutShort, chunked(&format!("2;{}", "x".repeat(700_000)))),
        (
            "endless trailers",
            Lie::CutShort,
            chunked(&format!("2\r\nok\r\n0\r\n{}", "X: a\r\n".repeat(40_000))),
        ),
        ("a body after the end", Lie::Surplus, sent("Content-Length: 2\r\n", &format!("ok{smuggled}"))),
        ("a body after the last chunk", Lie::Surplus, chunked(&format!("2\r\nok\r\n0\r\n\r\n{smuggled}"))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_what_follows_a_fault_asks_for_the_smuggled_target() {
        let requests = requests();
        let mut names: Vec<_> = requests.iter().map(|request| request.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), requests.len());
        let smuggling = requests.iter().filter(|request| {
            request.bytes.windows(SMUGGLED.len()).any(|window| window == SMUGGLED.as_bytes())
        });
        assert_eq!(smuggling.count(), 37);
    }

    #[test]
    fn lies_have_names_of_their_own() {
        let mut names: Vec<_> = answers().iter().map(|(name, ..)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), answers().len());
    }
}
