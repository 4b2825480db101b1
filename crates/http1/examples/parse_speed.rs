//! How long reading a head takes, beside httparse (which reads less: no framing, no Host, no limits).
//!
//! Run with `cargo run --release -p tenfold-http1 --example parse_speed`. Prints the fastest of many rounds, since
//! everything else on the machine can only add.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::hint::black_box;
use std::time::Instant;

use tenfold_http1::{BodyDecoder, BodyLength, Limits, Method, Piece, parse_request, parse_response};

const ROUNDS: u32 = 300;
const CALLS_PER_ROUND: u32 = 2_000;

const SHORT: &[u8] = b"GET /products/4711 HTTP/1.1\r\nHost: shop.example\r\n\r\n";

const BROWSER: &[u8] = b"GET /products/4711?sort=price HTTP/1.1\r\nHost: shop.example\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: de,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://shop.example/categories/12\r\n\
    Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark\r\nConnection: keep-alive\r\n\
    If-None-Match: \"33a64df551425fcc\"\r\nPriority: u=0, i\r\n\r\n";

const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nX-Powered-By: Express\r\nContent-Type: application/json; charset=utf-8\r\n\
    Content-Length: 1042\r\nETag: W/\"412-0uKf1p9VhYyJrDgN7bqCLW\"\r\nCache-Control: public, max-age=30\r\n\
    Vary: Accept-Encoding\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nConnection: keep-alive\r\n\
    Keep-Alive: timeout=5\r\n\r\n";

fn main() {
    let limits = Limits::default();
    for (name, head) in [("short request", SHORT), ("browser request", BROWSER)] {
        report(name, head.len(), || {
            let parsed = parse_request(black_box(head), &mut 0, &limits);
            black_box(&parsed).is_ok()
        });
        report(&format!("{name}, httparse"), head.len(), || {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut request = httparse::Request::new(&mut headers);
            let parsed = request.parse(black_box(head));
            black_box(&request);
            parsed.is_ok()
        });
    }
    report("response", RESPONSE.len(), || {
        let parsed = parse_response(black_box(RESPONSE), &mut 0, &Method::Get, &limits);
        black_box(&parsed).is_ok()
    });
    report("response, httparse", RESPONSE.len(), || {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(black_box(RESPONSE));
        black_box(&response);
        parsed.is_ok()
    });
    let chunks = chunked_body();
    report("64 chunks of 1 KiB", chunks.len(), || decode(black_box(&chunks), &limits));
}

/// Prints the fastest round, per call.
fn report(name: &str, bytes: usize, mut call: impl FnMut() -> bool) {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for _ in 0..CALLS_PER_ROUND {
            assert!(call());
        }
        best = best.min(started.elapsed().as_secs_f64() / f64::from(CALLS_PER_ROUND));
    }
    println!("{name:28} {bytes:6} B {:9.1} ns", best * 1e9);
}

fn chunked_body() -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..64 {
        tenfold_http1::write_chunk(&mut body, &[b'x'; 1024]);
    }
    body.extend_from_slice(tenfold_http1::LAST_CHUNK);
    body
}

fn decode(body: &[u8], limits: &Limits) -> bool {
    let mut decoder = BodyDecoder::new(BodyLength::Chunked, limits);
    let mut rest = body;
    loop {
        match decoder.decode(rest) {
            Ok((consumed, Piece::Data(data))) => {
                black_box(data);
                rest = &rest[consumed..];
            }
            Ok((_, piece)) => return piece == Piece::End,
            Err(_) => return false,
        }
    }
}
