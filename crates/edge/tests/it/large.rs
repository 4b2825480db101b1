//! Large answers from the cache: those kept in files of memory, and those kept as bytes, look the same.

use tenfold_cache::Purge;
use tenfold_testkit::raw::Response;
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::harness::{LIMIT, Running, config};

/// More than a file's least, and no whole number of pages.
const LEN: usize = 300_001;

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

fn origin(len: usize) -> Origin {
    let body = body(len);
    let answer = move || Answer::ok(body.clone()).cache_control("max-age=60").etag("\"v1\"");
    Origin::serve(move |_| answer().header("Content-Type", "text/plain")).unwrap()
}

/// An edge that may keep so many bodies in files, and has `/a` stored.
fn edge(origin: &Origin, files_max: usize) -> Running {
    let mut config = config(&[origin.addr()]);
    config.cache.files_max = files_max;
    let edge = Running::start(config);
    edge.client().get("/a").unwrap();
    wait_for("it is stored", LIMIT, || edge.stats().stored == 1);
    edge
}

/// What a client sees, but for the id of its request, which is another each time, and the time.
fn seen(mut answer: Response) -> (u16, String, Vec<u8>) {
    let id = answer.header("x-request-id").map(str::to_owned).unwrap_or_default();
    let known = ["content-length", "content-range", "content-type", "etag", "cache-control", "connection"];
    let fields = known.map(|name| format!("{name}: {:?}", answer.header(name)).replace(&id, "ID")).join("\n");
    if answer.header("content-type").is_some_and(|kind| kind.starts_with("multipart/")) {
        answer.body = answer.text().replace(&id, "ID").into_bytes();
    }
    (answer.status, fields, answer.body)
}

#[test]
fn a_body_in_a_file_is_answered_as_one_of_bytes() {
    let origin = origin(LEN);
    let (in_file, in_memory) = (edge(&origin, 8), edge(&origin, 0));
    assert_eq!((in_file.stats().files, in_memory.stats().files), (1, 0));
    let check = |method: &str, field: (&str, &str), status: u16, len: usize| {
        let ask = |edge: &Running| seen(edge.client().request(method, "/a", &[field]).unwrap());
        let (of_file, of_memory) = (ask(&in_file), ask(&in_memory));
        assert!(of_file == of_memory, "{method} {field:?}: {} and {}", of_file.1, of_memory.1);
        assert_eq!((of_file.0, of_file.2.len()), (status, len), "{method} {field:?}");
    };
    check("GET", ("Accept", "*/*"), 200, LEN);
    check("HEAD", ("Accept", "*/*"), 200, 0);
    check("GET", ("If-None-Match", "\"v1\""), 304, 0);
    check("GET", ("Range", "bytes=0-0"), 206, 1);
    check("GET", ("Range", "bytes=100-4195"), 206, 4096);
    check("GET", ("Range", "bytes=4097-"), 206, LEN - 4097);
    check("GET", ("Range", "bytes=-70000"), 206, 70_000);
    check("GET", ("Range", "bytes=300001-"), 416, 0);
    let several = ("Range", "bytes=1-3,70000-70001,300000-");
    let parts = seen(in_memory.client().request("GET", "/a", &[several]).unwrap()).2;
    check("GET", several, 206, parts.len());
    let parts = in_file.client().request("GET", "/a", &[several]).unwrap().body;
    let second = [&b"\r\n\r\n"[..], &body(LEN)[70_000..=70_001], b"\r\n--"].concat();
    assert!(parts.windows(second.len()).any(|window| window == second));
    let whole = in_file.client().get("/a").unwrap();
    assert!(whole.body == body(LEN));
    assert_eq!(whole.header("age"), Some("0"));
    let part = in_file.client().request("GET", "/a", &[("Range", "bytes=4097-")]).unwrap();
    assert!(part.body == body(LEN)[4097..]);
    assert_eq!(origin.requests(), 2, "once for each edge");
}

#[test]
fn answers_that_wait_for_their_reader_come_whole_and_in_order() {
    const ANSWERS: usize = 12;
    let origin = origin(3_000_000);
    let edge = edge(&origin, 8);
    assert_eq!(edge.stats().files, 1);
    let mut client = edge.client();
    // Far more than sockets hold.
    let two = [request(&edge, ""), request(&edge, "Range: bytes=5-9\r\n")].concat();
    client.send(two.repeat(ANSWERS)).unwrap();
    let expected = body(3_000_000);
    for _ in 0..ANSWERS {
        assert!(client.response().unwrap().body == expected);
        assert_eq!(client.response().unwrap().body, expected[5..10]);
    }
    assert_eq!(client.get("/a").unwrap().status, 200);
}

/// For `/a`, under the name that [`edge`] has asked for it.
fn request(edge: &Running, field: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: {}\r\n{field}\r\n", edge.address)
}

#[test]
fn who_leaves_in_the_middle_leaves_nothing_behind() {
    let origin = origin(3_000_000);
    let edge = edge(&origin, 8);
    let mut client = edge.client();
    client.send(request(&edge, "").repeat(12)).unwrap();
    assert_eq!(client.status().unwrap(), 200);
    let authority = edge.address.to_string();
    let _ = edge.edge.purge(&Purge::Url { authority: authority.as_bytes(), path: b"/a", query: None }, false);
    // What was purged is freed when it is looked at, and its file when the last answer from it has ended.
    let fetched = edge.client().get("/a").unwrap();
    assert!(fetched.body == body(3_000_000));
    assert_eq!(origin.requests(), 2);
    client.reset().unwrap();
    wait_for("the file to go", LIMIT, || edge.stats().files == 1);
    assert!(edge.panics.lock().unwrap().is_empty());
}
