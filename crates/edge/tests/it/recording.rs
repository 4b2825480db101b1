//! What requests that fetch for themselves leave in the store: parts, HEADs, POSTs; and what fills pass on before a head.

use tenfold_testkit::{Answer, Origin};

use crate::harness::Running;

const BODY: &str = "0123456789";

/// Serves ranges of [`BODY`] with a strong tag, and all of it where none is asked for.
fn ranged() -> Origin {
    Origin::serve(|request| {
        let range = request.header("range").and_then(|range| range.strip_prefix("bytes="));
        let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
            return Answer::ok(BODY).cache_control("max-age=60").etag("\"v1\"");
        };
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        Answer::new(206)
            .body(&BODY[first..=last])
            .cache_control("max-age=60")
            .etag("\"v1\"")
            .header("Content-Range", &format!("bytes {first}-{last}/10"))
    })
    .unwrap()
}

#[test]
fn a_part_answers_for_what_is_in_it_and_parts_that_touch_become_the_whole() {
    let origin = ranged();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    let mut ask = |range: &str| {
        let answer = client.request("GET", "/a", &[("Range", range)]).unwrap();
        (answer.status, answer.text(), answer.header("content-range").map(str::to_owned))
    };
    let part = |text: &str, range: &str| (206, text.to_owned(), Some(range.to_owned()));
    assert_eq!(ask("bytes=2-5"), part("2345", "bytes 2-5/10"));
    assert_eq!(ask("bytes=3-4"), part("34", "bytes 3-4/10"));
    assert_eq!(origin.requests(), 1);
    assert_eq!(ask("bytes=6-9"), part("6789", "bytes 6-9/10"));
    assert_eq!(ask("bytes=-5"), part("56789", "bytes 5-9/10"));
    assert_eq!(origin.requests(), 2, "two parts that touch are one");
    assert_eq!(ask("bytes=0-1"), part("01", "bytes 0-1/10"));
    let whole = client.get("/a").unwrap();
    assert_eq!((whole.status, whole.text()), (200, BODY.to_owned()));
    assert_eq!((whole.header("content-length"), whole.header("content-range")), (Some("10"), None));
    assert_eq!(origin.requests(), 3, "all its parts are the whole");
}

#[test]
fn several_ranges_of_a_stored_answer_come_between_boundaries() {
    let body = "x".repeat(2000);
    let origin = Origin::serve(move |_| {
        Answer::ok(body.clone()).cache_control("max-age=60").header("Content-Type", "text/plain")
    })
    .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.get("/a").unwrap();
    let parts = client.request("GET", "/a", &[("Range", "bytes=0-3, 1998-")]).unwrap();
    assert_eq!(parts.status, 206);
    let kind = parts.header("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=\"").unwrap().trim_end_matches('"');
    let expected = format!(
        "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-3/2000\r\n\r\nxxxx\r\n\
         --{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 1998-1999/2000\r\n\r\nxx\r\n--{boundary}--\r\n"
    );
    assert_eq!(parts.text(), expected);
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_head_freshens_what_get_stored_or_ends_it() {
    let origin = Origin::serve(|request| match (request.method.as_str(), request.header("x-tag")) {
        ("HEAD", tag) => Answer::ok("body").cache_control("max-age=60").etag(tag.unwrap_or("\"1\"")),
        _ => Answer::ok("body").cache_control("max-age=0, must-revalidate").etag("\"1\""),
    })
    .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.get("/a").unwrap();
    client.request("HEAD", "/a", &[]).unwrap();
    let hit = client.get("/a").unwrap();
    assert!(hit.header("cache-status").unwrap().starts_with("Tenfold; hit"), "{hit:?}"); // RFC 9111 §4.3.5
    assert_eq!((hit.text(), origin.count("GET", "/a")), ("body".to_owned(), 1));
    client.request("HEAD", "/a", &[("Cache-Control", "no-cache"), ("X-Tag", "\"2\"")]).unwrap();
    let other = client.get("/a").unwrap();
    assert_eq!(
        other.header("cache-status"),
        Some("Tenfold; fwd=uri-miss; stored; ttl=0"),
        "its tag is another's"
    );
}

#[test]
fn a_post_that_says_so_is_the_answer_to_a_get() {
    let origin = Origin::serve(|request| {
        let answer = Answer::ok("made").cache_control("max-age=60");
        match request.target.as_str() {
            "/a" | "/old" => answer.header("Content-Location", "/a"),
            _ => answer,
        }
    })
    .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    let post = client.request_with_body("POST", "/a", &[], b"x").unwrap();
    assert_eq!(post.header("cache-status"), Some("Tenfold; fwd=method; stored")); // RFC 9211 §2.5
    let mut stores = |target: &str| {
        client.request_with_body("POST", target, &[], b"x").unwrap();
        let before = origin.requests();
        assert_eq!(client.get(target).unwrap().text(), "made");
        origin.requests() == before
    };
    assert!(stores("/a")); // RFC 9110 §9.3.3
    assert!(stores("/a"), "each time anew");
    assert!(!stores("/b"), "it says nothing of itself");
    assert!(!stores("/old"), "it is of another URL");
}

#[test]
fn interim_answers_reach_all_who_wait_and_are_not_stored() {
    let origin = Origin::serve(|_| {
        Answer::ok("x")
            .cache_control("max-age=60")
            .interim("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
    })
    .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.send("GET /a HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    let hints = client.read_through("\r\n\r\n").unwrap();
    let hints = String::from_utf8_lossy(&hints).into_owned();
    assert!(hints.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n"), "{hints}"); // RFC 8297
    let answer = client.read_through("\r\n\r\nx").unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains("HTTP/1.1 200 OK") && !answer.contains("preload"), "{answer}");
    client.send("GET /a HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    let hit = client.read_through("\r\n\r\nx").unwrap();
    let hit = String::from_utf8_lossy(&hit).into_owned();
    assert!(hit.starts_with("HTTP/1.1 200 OK") && hit.contains("Tenfold; hit"), "{hit}"); // RFC 9111 §3: final only
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_variant_stored_for_others_is_the_answer_if_the_origin_says_so() {
    let origin = Origin::serve(|request| {
        let answer = Answer::ok("same").cache_control("max-age=60").etag("\"same\"").header("Vary", "X-Kind");
        match request.header("if-none-match") {
            Some("\"same\"") => {
                Answer::new(304).cache_control("max-age=60").etag("\"same\"").header("Vary", "X-Kind")
            }
            _ => answer,
        }
    })
    .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.request("GET", "/a", &[("X-Kind", "1")]).unwrap();
    let other = client.request("GET", "/a", &[("X-Kind", "2")]).unwrap();
    assert_eq!((other.status, other.text()), (200, "same".to_owned())); // RFC 9111 §4.3.1, §4.3.4
    assert_eq!(origin.last().unwrap().header("if-none-match"), Some("\"same\""));
    for kind in ["1", "2"] {
        let hit = client.request("GET", "/a", &[("X-Kind", kind)]).unwrap();
        assert!(hit.header("cache-status").unwrap().starts_with("Tenfold; hit"), "{hit:?}");
    }
    assert_eq!(origin.requests(), 2);
}

#[test]
fn what_a_method_override_got_is_nobody_else_s() {
    let origin = Origin::serve(|request| {
        let said = request.header("x-http-method-override").unwrap_or("none").to_owned();
        match request.header("range") {
            Some(_) => Answer::new(206)
                .body("part".as_bytes())
                .cache_control("max-age=60")
                .header("Content-Range", "bytes 0-3/10"),
            None => Answer::ok(said).cache_control("max-age=60").header("Content-Location", "/a"),
        }
    })
    .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    let odd = ("X-HTTP-Method-Override", "DELETE");
    client.request("GET", "/part", &[("Range", "bytes=0-3"), odd]).unwrap();
    client.request_with_body("POST", "/a", &[odd], b"x").unwrap();
    client.request("HEAD", "/head", &[odd]).unwrap();
    assert_eq!(edge.stats().objects, 0);
    assert_eq!(client.get("/a").unwrap().text(), "none");
}
