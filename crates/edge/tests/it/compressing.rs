//! Answers in a content coding, as clients see them. RFC 9110 §8.4, §12.5.3.

use std::io::Read as _;

use tenfold_cache::{Compress, Override, Rule};
use tenfold_testkit::raw::{Client, Response};
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::harness::{LIMIT, Running, config, route};

/// An edge that compresses what it stores.
fn compressing(origin: &Origin) -> Running {
    let rule = Override { compress: Some(Compress::default()), ..Override::default() };
    let mut config = config(&[origin.addr()]);
    config.routes = vec![route("all", "/{*rest}", Rule::Override(rule))];
    Running::start(config)
}

fn page() -> String {
    (0..2_000).map(|n| format!("{{\"product\": {n}, \"price\": 1999}}\n")).collect()
}

fn json() -> Answer {
    Answer::ok(page())
        .header("Content-Type", "application/json")
        .header("Accept-Ranges", "bytes")
        .cache_control("max-age=60")
        .etag("\"v1\"")
}

fn get(client: &mut Client, accepts: &str, more: &[(&str, &str)]) -> Response {
    let fields = [&[("Accept-Encoding", accepts)], more].concat();
    client.request("GET", "/a", &fields).unwrap()
}

/// The answer once the coding it wants has been made.
fn settled(client: &mut Client, accepts: &str, coding: &str) -> Response {
    let mut last = None;
    wait_for("the coding", LIMIT, || {
        let answer = get(client, accepts, &[]);
        let is_it = answer.header("content-encoding") == Some(coding);
        last = Some(answer);
        is_it
    });
    last.unwrap()
}

fn unpacked(answer: &Response) -> String {
    let mut out = String::new();
    let body = &answer.body[..];
    match answer.header("content-encoding") {
        Some("br") => drop(brotli::Decompressor::new(body, 4096).read_to_string(&mut out).unwrap()),
        Some("zstd") => out = String::from_utf8(zstd::stream::decode_all(body).unwrap()).unwrap(),
        Some("gzip") => drop(flate2::read::GzDecoder::new(body).read_to_string(&mut out).unwrap()),
        _ => out = answer.text(),
    }
    out
}

#[test]
fn each_client_gets_the_best_coding_it_accepts() {
    let origin = Origin::serve(|_| json()).unwrap();
    let edge = compressing(&origin);
    let mut client = edge.client();
    let miss = get(&mut client, "gzip, br, zstd", &[]);
    assert_eq!((miss.header("content-encoding"), miss.header("vary")), (None, Some("Accept-Encoding")));
    assert_eq!(origin.last().unwrap().header("accept-encoding"), Some("identity"));
    for (accepts, coding) in [("gzip, deflate, br, zstd", "br"), ("zstd, gzip", "zstd"), ("gzip", "gzip")] {
        let answer = settled(&mut client, accepts, coding);
        assert_eq!(unpacked(&answer), page(), "{coding}");
        assert!(answer.body.len() * 4 < page().len(), "{coding}: {}", answer.body.len());
        assert_eq!(answer.headers("vary").collect::<Vec<_>>(), ["Accept-Encoding"]);
        assert_eq!((answer.header("etag"), answer.header("accept-ranges")), (Some("W/\"v1\""), None));
        assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
        let head = client.request("HEAD", "/a", &[("Accept-Encoding", accepts)]).unwrap();
        assert_eq!(head.header("content-length"), answer.header("content-length"));
    }
    for accepts in ["", "identity", "deflate", "gzip;q=0", "br;q=0.1, identity"] {
        let plain = get(&mut client, accepts, &[]);
        assert_eq!((plain.header("content-encoding"), plain.header("etag")), (None, Some("\"v1\"")));
        assert_eq!(plain.header("vary"), Some("Accept-Encoding"), "{accepts}");
        assert_eq!(plain.text(), page());
    }
    assert_eq!(client.get("/a").unwrap().header("content-encoding"), None, "who doesn't ask");
    assert_eq!(origin.requests(), 1, "one copy for all of them");
    let stats = edge.stats();
    assert_eq!((stats.encodings, stats.objects), (3, 1));
    let line = "Tenfold; hit";
    assert!(get(&mut client, "gzip", &[]).header("cache-status").unwrap().starts_with(line));
}

#[test]
fn a_client_s_copy_is_confirmed_in_whatever_coding_it_has_it() {
    let origin = Origin::serve(|_| json()).unwrap();
    let edge = compressing(&origin);
    let mut client = edge.client();
    settled(&mut client, "gzip", "gzip");
    for (accepts, etag, expected) in [
        ("gzip", "W/\"v1\"", "W/\"v1\""),
        ("gzip", "\"v1\"", "W/\"v1\""), // RFC 9110 §13.1.2 compares weakly
        ("identity", "W/\"v1\"", "\"v1\""),
    ] {
        let unchanged = get(&mut client, accepts, &[("If-None-Match", etag)]);
        assert_eq!((unchanged.status, unchanged.header("etag")), (304, Some(expected)), "{accepts} {etag}");
        assert_eq!(unchanged.header("vary"), Some("Accept-Encoding"));
        assert_eq!(unchanged.header("content-encoding"), None);
    }
    assert_eq!(get(&mut client, "gzip", &[("If-None-Match", "\"v2\"")]).status, 200);
}

#[test]
fn ranges_are_of_the_body_as_it_came() {
    let origin = Origin::serve(|_| json()).unwrap();
    let edge = compressing(&origin);
    let mut client = edge.client();
    settled(&mut client, "gzip", "gzip");
    let part = get(&mut client, "gzip", &[("Range", "bytes=2-8")]);
    assert_eq!((part.status, part.text()), (206, page()[2..9].to_owned()));
    assert_eq!((part.header("content-encoding"), part.header("etag")), (None, Some("\"v1\"")));
    assert_eq!(part.header("vary"), Some("Accept-Encoding"));
    assert_eq!(part.header("content-range"), Some(&*format!("bytes 2-8/{}", page().len())));
    let same = get(&mut client, "gzip", &[("Range", "bytes=2-8"), ("If-Range", "\"v1\"")]);
    assert_eq!(same.status, 206);
    // Who has the first bytes of the compressed form has a weak tag, and gets all of it again.
    let anew = get(&mut client, "gzip", &[("Range", "bytes=2-8"), ("If-Range", "W/\"v1\"")]);
    assert_eq!((anew.status, anew.header("content-encoding")), (200, Some("gzip")));
    let refused = get(&mut client, "gzip, identity;q=0", &[("Range", "bytes=2-8")]);
    assert_eq!((refused.status, refused.header("content-encoding")), (200, Some("gzip")));
}

#[test]
fn what_may_not_or_need_not_be_compressed_is_not() {
    let origin = Origin::kv().unwrap();
    let text = || Answer::ok(page()).header("Content-Type", "text/html").etag("\"v1\"");
    origin.set("/no-transform", text().cache_control("max-age=60, no-transform"));
    origin.set("/cookie", text().cache_control("s-maxage=60").header("Set-Cookie", "session=secret"));
    origin.set("/encoded", text().cache_control("max-age=60").header("Content-Encoding", "gzip"));
    origin.set("/picture", text().cache_control("max-age=60").header("Content-Type", "image/png"));
    let short = Answer::ok("short").header("Content-Type", "text/html").cache_control("max-age=60");
    origin.set("/short", short);
    origin.set("/later", text().cache_control("max-age=60"));
    let edge = compressing(&origin);
    let mut client = edge.client();
    let mut ask = |path: &str| client.request("GET", path, &[("Accept-Encoding", "gzip")]).unwrap();
    for path in ["/no-transform", "/cookie", "/encoded", "/picture", "/short"] {
        for _ in 0..3 {
            let answer = ask(path);
            assert_eq!((answer.status, answer.header("vary")), (200, None), "{path}");
            let came = (path == "/encoded").then_some("gzip");
            assert_eq!(answer.header("content-encoding"), came, "{path}");
        }
    }
    wait_for("a later one", LIMIT, || ask("/later").header("content-encoding") == Some("gzip"));
    assert_eq!(edge.stats().encodings, 1);
}

#[test]
fn a_copy_that_a_304_renewed_keeps_its_codings() {
    let origin = Origin::serve(|request| match request.header("if-none-match") {
        Some("\"v1\"") => Answer::new(304).etag("\"v1\"").cache_control("max-age=60"),
        _ => json(),
    })
    .unwrap();
    let edge = compressing(&origin);
    let mut client = edge.client();
    settled(&mut client, "gzip", "gzip");
    let renewed = get(&mut client, "gzip", &[("Cache-Control", "no-cache")]);
    assert_eq!(renewed.header("content-encoding"), Some("gzip"));
    assert_eq!(unpacked(&renewed), page());
    assert_eq!((origin.requests(), edge.stats().encodings), (2, 1));
}

#[test]
fn nothing_changes_on_a_route_that_does_not_compress() {
    let origin = Origin::serve(|_| json()).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    for _ in 0..2 {
        let answer = get(&mut client, "gzip", &[]);
        assert_eq!((answer.header("content-encoding"), answer.header("vary")), (None, None));
    }
    assert_eq!(origin.last().unwrap().header("accept-encoding"), Some("gzip"), "it is the node's to encode");
}
