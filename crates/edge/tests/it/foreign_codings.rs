//! Content codings as other people's clients take them: curl, Node.js and Python decode what they get.
//!
//! Each client that is not installed is left out, but for curl, which every machine that builds this has.

use std::process::Command;

use tenfold_cache::{Compress, Override, Rule};
use tenfold_testkit::process::find_program;
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::harness::{LIMIT, Running, config, route};

fn page() -> String {
    (0..2_000).map(|n| format!("{{\"product\": {n}, \"price\": 1999}}\n")).collect()
}

fn compressing() -> (Origin, Running) {
    let origin = Origin::serve(|_| {
        let answer = Answer::ok(page()).header("Content-Type", "application/json");
        answer.cache_control("max-age=60").etag("\"v1\"")
    })
    .unwrap();
    let rule = Override { compress: Some(Compress::default()), ..Override::default() };
    let mut config = config(&[origin.addr()]);
    config.routes = vec![route("all", "/{*rest}", Rule::Override(rule))];
    let edge = Running::start(config);
    (origin, edge)
}

/// Until each coding has been made.
fn ready(edge: &Running) -> String {
    for coding in ["br", "zstd", "gzip"] {
        wait_for("the coding", LIMIT, || {
            let answer = edge.client().request("GET", "/a", &[("Accept-Encoding", coding)]).unwrap();
            answer.header("content-encoding") == Some(coding)
        });
    }
    format!("http://{}/a", edge.address)
}

fn output(program: &str, arguments: &[&str]) -> String {
    let ran = Command::new(program).args(arguments).output().unwrap();
    assert!(ran.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

/// What curl decodes, and the head it was sent.
fn curl(url: &str, more: &[&str]) -> (String, String) {
    let base = ["--silent", "--show-error", "--max-time", "20", "--dump-header", "/dev/stderr"];
    let ran = Command::new("curl").args(base).args(more).arg(url).output().unwrap();
    let head = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.success(), "{more:?}: {head}");
    (String::from_utf8_lossy(&ran.stdout).into_owned(), head.to_ascii_lowercase())
}

#[test]
fn curl_decodes_each_coding_that_it_knows() {
    let (_origin, edge) = compressing();
    let url = ready(&edge);
    let known = output("curl", &["--version"]);
    let (plain, head) = curl(&url, &[]);
    assert!(plain == page() && !head.contains("content-encoding") && head.contains("vary: accept-encoding"));
    let mut decoded = 0;
    for (coding, feature) in [("br", "brotli"), ("zstd", "zstd"), ("gzip", "libz")] {
        if !known.contains(feature) {
            continue;
        }
        let (text, head) = curl(&url, &["--compressed", "-H", &format!("Accept-Encoding: {coding}")]);
        assert!(head.contains(&format!("content-encoding: {coding}\r\n")), "{head}");
        assert!(head.contains("etag: w/\"v1\"\r\n") && head.contains("vary: accept-encoding\r\n"), "{head}");
        assert!(text == page(), "{coding}: {} bytes", text.len());
        decoded += 1;
    }
    assert!(decoded > 0, "{known}");
    let (text, head) = curl(&url, &["--compressed"]);
    assert!(text == page() && head.contains("content-encoding: "), "whatever it likes best: {head}");
}

#[test]
fn curl_revalidates_resumes_and_looks_in_any_coding() {
    let (_origin, edge) = compressing();
    let url = ready(&edge);
    let coded = ["-H", "Accept-Encoding: gzip"];
    let with = |more: &[&str]| curl(&url, &[&coded[..], more].concat());
    // What it got in one coding is confirmed in another.
    for accepts in ["gzip", "br", "identity"] {
        let accepts = format!("Accept-Encoding: {accepts}");
        let (text, head) = curl(&url, &["-H", &accepts, "-H", "If-None-Match: W/\"v1\""]);
        assert!(head.starts_with("http/1.1 304") && text.is_empty(), "{accepts}: {head}");
    }
    let (_, head) = with(&["--head"]);
    assert!(head.contains("content-encoding: gzip\r\n") && head.contains("etag: w/\"v1\"\r\n"), "{head}");
    // A download that broke off is resumed with the bytes that it is of.
    let (text, head) = with(&["--range", "100-", "-H", "If-Range: \"v1\""]);
    assert!(head.starts_with("http/1.1 206") && !head.contains("content-encoding"), "{head}");
    assert!(text == page()[100..]);
    let (_, head) = with(&["--range", "100-", "-H", "If-Range: W/\"v1\""]);
    assert!(head.starts_with("http/1.1 200"), "a weak tag names no bytes: {head}");
}

#[test]
fn node_and_python_decode_what_they_ask_for() {
    let (_origin, edge) = compressing();
    let url = ready(&edge);
    let expected = format!("{}", page().len());
    if find_program("node").is_some() {
        let fetches = "const r = await fetch(process.argv[1]); const t = await r.text(); \
             console.log(t.length, r.headers.get('content-encoding') !== null, r.headers.get('vary'))";
        let said = output("node", &["--input-type=module", "-e", fetches, &url]);
        assert_eq!(said.trim(), format!("{expected} true Accept-Encoding"));
        let brotli = "import http from 'node:http'; import zlib from 'node:zlib'; \
             http.get(process.argv[1], { headers: { 'accept-encoding': 'br' } }, r => { const c = []; \
             r.on('data', d => c.push(d)); r.on('end', () => \
             console.log(zlib.brotliDecompressSync(Buffer.concat(c)).length)) })";
        assert_eq!(output("node", &["--input-type=module", "-e", brotli, &url]).trim(), expected);
    }
    if find_program("python3").is_some() {
        let gunzip = "import gzip, sys, urllib.request as u\n\
             r = u.urlopen(u.Request(sys.argv[1], headers={'Accept-Encoding': 'gzip'}))\n\
             print(len(gzip.decompress(r.read())), r.headers['Content-Encoding'])";
        assert_eq!(output("python3", &["-c", gunzip, &url]).trim(), format!("{expected} gzip"));
    }
}
