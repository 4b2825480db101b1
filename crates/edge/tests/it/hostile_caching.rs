//! Origins that would spoil a cache: what is stored, what is served in their place, and what passes by.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tenfold_cache::{Override, Rule};
use tenfold_testkit::origin::Gate;
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::harness::{LIMIT, Running, config, route};

/// What a client is told and shown.
fn ask(edge: &Running, target: &str, fields: &[(&str, &str)]) -> (u16, String, String) {
    let answer = edge.client().request("GET", target, fields).unwrap();
    let cache = answer.header("cache-status").unwrap_or_default().to_owned();
    (answer.status, answer.text(), cache)
}

/// An origin that answers the first request one way and all later ones another.
fn first_then(first: Answer, then: Answer) -> Origin {
    let asked = std::sync::atomic::AtomicU64::new(0);
    let next = move |_: &_| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => first.clone(),
        _ => then.clone(),
    };
    Origin::serve(next).unwrap()
}

fn ok(cache_control: &str) -> Answer {
    Answer::ok("good").cache_control(cache_control).etag("\"1\"")
}

#[test]
fn an_error_is_passed_on_and_replaces_nothing_that_may_stand_in_for_it() {
    let error = Answer::new(500).body("bad");
    // RFC 5861 §4: only with permission.
    let plain = first_then(ok("max-age=0"), error.clone());
    let edge = Running::in_front_of(&[plain.addr()]);
    assert_eq!(ask(&edge, "/a", &[]).0, 200);
    for _ in 0..2 {
        let (status, text, cache) = ask(&edge, "/a", &[]);
        assert_eq!((status, text.as_str()), (500, "bad"), "{cache}");
        assert!(!cache.contains("stored"), "{cache}");
    }
    let permitted = first_then(ok("max-age=0, stale-if-error=60"), error.clone());
    let edge = Running::in_front_of(&[permitted.addr()]);
    for _ in 0..4 {
        let (status, text, _) = ask(&edge, "/a", &[]);
        assert_eq!((status, text.as_str()), (200, "good"));
    }
    // RFC 9111 §5.2.2.2: must-revalidate takes the permission back.
    let strict = first_then(ok("max-age=0, must-revalidate, stale-if-error=60"), error);
    let edge = Running::in_front_of(&[strict.addr()]);
    assert_eq!(ask(&edge, "/a", &[]).0, 200);
    assert_eq!(ask(&edge, "/a", &[]).0, 500);
}

#[test]
fn an_error_with_a_lifetime_of_its_own_or_the_route_s_is_stored() {
    let explicit = Origin::serve(|_| Answer::new(500).body("bad").cache_control("max-age=60")).unwrap();
    let edge = Running::in_front_of(&[explicit.addr()]);
    (0..3).for_each(|_| assert_eq!(ask(&edge, "/a", &[]).0, 500)); // RFC 9111 §3
    assert_eq!(explicit.requests(), 1);
    let silent = Origin::serve(|_| Answer::new(404).body("none")).unwrap();
    let mut config = config(&[silent.addr()]);
    let negative_ttl = Some(Duration::from_secs(60));
    let rule = Rule::Override(Override { negative_ttl, ..Override::default() });
    config.routes = vec![route("all", "/{*rest}", rule)];
    let edge = Running::start(config);
    (0..3).for_each(|_| assert_eq!(ask(&edge, "/a", &[]).0, 404));
    assert_eq!(silent.requests(), 1);
}

/// A node that may take a tenth of a second to answer.
fn impatient(origin: &Origin) -> Running {
    let mut config = config(&[origin.addr()]);
    config.clusters[0].timeouts.response = Duration::from_millis(100);
    Running::start(config)
}

#[test]
fn an_origin_that_hangs_is_waited_for_once() {
    let gate = Gate::new();
    let origin = first_then(ok("max-age=0, stale-if-error=60"), ok("max-age=60").gated(&gate));
    let edge = impatient(&origin);
    assert_eq!(ask(&edge, "/a", &[]).0, 200);
    let (status, text, cache) = ask(&edge, "/a", &[]);
    assert_eq!((status, text.as_str()), (200, "good"), "{cache}");
    let (_, _, cache) = ask(&edge, "/a", &[]);
    assert!(cache.contains("stale_if_error"), "not waited for again: {cache}");
    let (status, _, _) = ask(&edge, "/other", &[]);
    assert_eq!(status, 504, "where there is no copy the time runs out");
    gate.open();
}

#[test]
fn a_body_that_breaks_off_replaces_nothing_and_leaves_no_part() {
    let cut = Answer::ok("good").cache_control("max-age=60").etag("\"2\"").cut_at(2);
    let origin = first_then(ok("max-age=0"), cut);
    let edge = Running::in_front_of(&[origin.addr()]);
    assert_eq!(ask(&edge, "/a", &[]).1, "good");
    for _ in 0..2 {
        let got = edge.client().get("/a");
        assert!(got.as_ref().map_or(true, |answer| answer.status == 502), "taken as whole: {got:?}");
    }
    let part = Answer::new(206).body("2345").cache_control("max-age=60").etag("\"1\"");
    let part = part.header("Content-Range", "bytes 2-5/10").cut_at(3);
    let origin = Origin::serve(move |_| part.clone()).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    for _ in 0..2 {
        let got = edge.client().request("GET", "/a", &[("Range", "bytes=2-5")]);
        assert!(got.as_ref().map_or(true, |answer| answer.status == 502), "taken as whole: {got:?}");
    }
    wait_for("both to be over", LIMIT, || edge.stats().fill_bytes == 0);
    assert_eq!((origin.requests(), edge.stats().objects), (2, 0));
    let post = Origin::serve(|_| {
        Answer::ok("made").cache_control("max-age=60").header("Content-Location", "/a").cut_at(2)
    })
    .unwrap();
    let edge = Running::in_front_of(&[post.addr()]);
    let got = edge.client().request_with_body("POST", "/a", &[], b"x");
    assert!(got.as_ref().map_or(true, |answer| answer.status == 502), "taken as whole: {got:?}");
    assert_eq!(edge.stats().objects, 0);
}

#[test]
fn a_part_that_is_not_what_it_says_is_passed_on_and_not_stored() {
    for range in ["bytes 4-9/10", "bytes 2-5/*", "bytes 5-2/10", "bytes 2-5/4", "lines 2-5/10", "2-5/10", ""]
    {
        let origin = Origin::serve(move |_| {
            Answer::new(206).body("2345").cache_control("max-age=60").header("Content-Range", range)
        })
        .unwrap();
        let edge = Running::in_front_of(&[origin.addr()]);
        for _ in 0..2 {
            let (status, text, _) = ask(&edge, "/a", &[("Range", "bytes=2-5")]);
            assert_eq!((status, text.as_str()), (206, "2345"), "{range}"); // RFC 9111 §3.3
        }
        assert_eq!((origin.requests(), edge.stats().objects), (2, 0), "{range}");
    }
}

#[test]
fn parts_of_two_versions_are_never_joined() {
    let origin = Origin::serve(|request| {
        let (text, range, tag) = match request.header("range") {
            Some("bytes=0-4") => ("AAAAA", "bytes 0-4/10", "\"1\""),
            _ => ("BBBBB", "bytes 5-9/10", "\"2\""),
        };
        Answer::new(206).body(text).cache_control("max-age=60").etag(tag).header("Content-Range", range)
    })
    .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    assert_eq!(ask(&edge, "/a", &[("Range", "bytes=0-4")]).1, "AAAAA");
    assert_eq!(ask(&edge, "/a", &[("Range", "bytes=5-9")]).1, "BBBBB");
    assert_eq!(ask(&edge, "/a", &[("Range", "bytes=6-7")]).1, "BB"); // RFC 9111 §3.4
    assert_eq!(origin.requests(), 2);
    assert_eq!(ask(&edge, "/a", &[("Range", "bytes=0-4")]).1, "AAAAA");
    assert_eq!(origin.requests(), 3, "the older version's part has gone");
}

#[test]
fn an_origin_that_changes_its_vary_is_followed() {
    let origin = Origin::serve(|request| {
        let kind = request.header("x-kind").unwrap_or("none").to_owned();
        let vary = if request.target == "/star" && kind == "2" { "*" } else { "X-Kind" };
        let vary = if kind == "3" { "X-Other" } else { vary };
        Answer::ok(kind).cache_control("max-age=60").header("Vary", vary)
    })
    .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    for target in ["/a", "/star"] {
        for kind in ["1", "2", "1", "2"] {
            assert_eq!(ask(&edge, target, &[("X-Kind", kind)]).1, kind, "{target}"); // RFC 9111 §4.1
        }
    }
    assert_eq!(origin.count("GET", "/a"), 2);
    assert_eq!(origin.count("GET", "/star"), 3, "what varies by everything is asked for each time");
    // From now on it varies by something else, and answers all who lack that.
    assert_eq!(ask(&edge, "/a", &[("X-Kind", "3")]).1, "3");
    assert_eq!(ask(&edge, "/a", &[("X-Kind", "4")]).1, "3");
}

/// Serves `1 GiB` to each connection, and says nothing of its length.
fn endless() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let _ = connection.read(&mut [0; 4096]);
            let _ = connection
                .write_all(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConnection: close\r\n\r\n");
            let block = vec![b'x'; 1 << 20];
            for _ in 0..1 << 10 {
                if connection.write_all(&block).is_err() {
                    break;
                }
            }
        }
    });
    address
}

#[test]
fn a_gibibyte_streams_past_the_cache() {
    let mut config = config(&[endless()]);
    config.cache.object_bytes_max = 1 << 20;
    let edge = Running::start(config);
    let mut client = TcpStream::connect(edge.address).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.write_all(b"GET /a HTTP/1.0\r\nHost: t\r\n\r\n").unwrap();
    let (mut received, mut held_most) = (0_u64, 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = client.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        received += read as u64;
        held_most = held_most.max(edge.stats().fill_bytes);
    }
    assert!(received > 1 << 30, "{received}");
    assert!(held_most < 4 << 20, "{held_most} bytes were held of it");
    assert_eq!(edge.stats().objects, 0);
}

#[test]
fn a_cookie_is_shared_only_on_somebody_s_word() {
    let origin = Origin::serve(|request| {
        let cache_control =
            if request.target.starts_with("/public") { "public, max-age=60" } else { "max-age=60" };
        Answer::ok("x").cache_control(cache_control).header("Set-Cookie", "sid=1")
    })
    .unwrap();
    let with = |rule: Rule, target: &str| {
        let mut config = config(&[origin.addr()]);
        config.routes = vec![route("all", "/{*rest}", rule)];
        let edge = Running::start(config);
        let before = origin.requests();
        edge.client().get(target).unwrap();
        let cookie = edge.client().get(target).unwrap().header("set-cookie").map(str::to_owned);
        (origin.requests() - before, cookie.as_deref() == Some("sid=1"))
    };
    assert_eq!(with(Rule::Respect, "/a"), (2, true));
    assert_eq!(with(Rule::Respect, "/public"), (1, true)); // RFC 9111 §5.2.2.9
    let ttl = Override { ttl: Some(Duration::from_secs(60)), ..Override::default() };
    assert_eq!(with(Rule::Override(ttl), "/a"), (1, false), "a forced store drops it");
    let as_the_rfc = Override { set_cookie: true, ..Override::default() };
    assert_eq!(with(Rule::Override(as_the_rfc), "/a"), (1, true)); // §3
    let guess = Override { heuristic: true, ..Override::default() };
    assert_eq!(with(Rule::Override(guess), "/a"), (2, true));
}

#[test]
fn an_age_beyond_all_numbers_is_very_old() {
    let origin = Origin::serve(|request| {
        let answer = Answer::ok("x").cache_control("max-age=60").header("Age", "99999999999999");
        if request.target == "/tagged" { answer.etag("\"1\"") } else { answer }
    })
    .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    for target in ["/a", "/a", "/tagged", "/tagged"] {
        assert_eq!(ask(&edge, target, &[]).0, 200); // RFC 9111 §1.2.2, §5.1
    }
    assert_eq!((origin.count("GET", "/a"), origin.count("GET", "/tagged")), (2, 2), "stale when it came");
    assert_eq!(origin.last().unwrap().header("if-none-match"), Some("\"1\""));
    let age = edge.client().get("/tagged").unwrap().header("age").map(str::to_owned);
    assert_eq!(age.as_deref(), Some("2147483648"));
}

#[test]
fn a_flood_of_interim_answers_is_cut() {
    let flood = |count: usize| {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(count);
        Origin::serve(move |_| Answer::ok("x").cache_control("max-age=60").interim(interim.clone())).unwrap()
    };
    for rule in [Rule::Respect, Rule::Off] {
        let through = |origin: &Origin| {
            let mut config = config(&[origin.addr()]);
            config.routes = vec![route("all", "/{*rest}", rule.clone())];
            let edge = Running::start(config);
            let mut client = edge.client();
            client.send("GET /a HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
            let all = String::from_utf8(client.read_to_close().unwrap()).unwrap();
            (all.matches("103 Early Hints").count(), all.contains("HTTP/1.1 200 OK"), edge.stats().objects)
        };
        let stored = u64::from(rule == Rule::Respect);
        assert_eq!(through(&flood(8)), (8, true, stored), "{rule:?}"); // RFC 9110 §15.2
        let (_, answered, stored) = through(&flood(1000));
        assert!(!answered && stored == 0, "{rule:?}");
    }
}

/// Compresses as Express does: one weak tag for all codings.
fn compressing() -> Origin {
    Origin::serve(|request| {
        let zipped = request.header("accept-encoding").is_some_and(|codings| codings.contains("gzip"));
        let known = request.header("if-none-match").is_some_and(|tags| tags.contains("W/\"1\""));
        let answer = match (known, zipped) {
            (true, _) => Answer::new(304),
            (false, true) => Answer::ok("zipped").header("Content-Encoding", "gzip"),
            (false, false) => Answer::ok("plain"),
        };
        answer.cache_control("max-age=60").etag("W/\"1\"").header("Vary", "Accept-Encoding")
    })
    .unwrap()
}

#[test]
fn a_tag_that_codings_share_hands_nobody_one_it_cannot_read() {
    let origin = compressing();
    let edge = Running::in_front_of(&[origin.addr()]);
    assert_eq!(ask(&edge, "/a", &[("Accept-Encoding", "gzip, br")]).1, "zipped");
    for _ in 0..2 {
        let answer = edge.client().get("/a").unwrap();
        assert_eq!((answer.text().as_str(), answer.header("content-encoding")), ("plain", None)); // RFC 9110 §8.8.1
    }
    assert_eq!(origin.requests(), 2);
    // For those it was stored for it is asked about as ever.
    let again = [("Accept-Encoding", "gzip, br"), ("Cache-Control", "no-cache")];
    assert_eq!(ask(&edge, "/a", &again).1, "zipped");
    assert_eq!(origin.last().unwrap().header("if-none-match"), Some("W/\"1\""));
}

#[test]
fn what_one_client_s_range_or_header_met_spoils_nothing() {
    let origin = Origin::serve(|request| {
        let (odd, range) = (request.header("accept") == Some("x/y"), request.header("range"));
        match (odd, range) {
            (true, _) => Answer::new(406).body("odd"),
            (_, Some(_)) => Answer::new(416).body("none").cache_control("public, max-age=60"),
            _ => Answer::ok("good").cache_control("public, max-age=60"),
        }
    })
    .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    assert_eq!(ask(&edge, "/a", &[]).1, "good");
    let insists = ("Cache-Control", "no-cache");
    assert_eq!(ask(&edge, "/a", &[insists, ("Range", "bytes=999999999-")]).0, 416);
    assert_eq!(ask(&edge, "/a", &[insists, ("Accept", "x/y")]).0, 406);
    let (status, text, cache) = ask(&edge, "/a", &[]);
    assert_eq!((status, text.as_str()), (200, "good"));
    assert!(cache.starts_with("Tenfold; hit"), "{cache}");
    assert_eq!(origin.requests(), 3);
}
