//! Requests that the cache answers, or has answered.

use std::time::Duration;

use tenfold_cache::{Override, Pattern, Purge, QueryRule, Rule};
use tenfold_edge::config::RouteConfig;
use tenfold_testkit::origin::Gate;
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::harness::{LIMIT, Running, config, route};

/// An edge whose only route forces this rule.
fn overriding(origin: &Origin, rule: Override) -> Running {
    let mut config = config(&[origin.addr()]);
    config.routes = vec![route("all", "/{*rest}", Rule::Override(rule))];
    Running::start(config)
}

#[test]
fn a_hit_is_the_answer_again_with_its_age() {
    let origin = Origin::serve(|_| Answer::ok("hello").cache_control("max-age=60").etag("\"v1\"")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    let miss = client.get("/a").unwrap();
    assert_eq!((miss.status, miss.text()), (200, "hello".to_owned()));
    assert_eq!(miss.header("cache-status"), Some("Tenfold; fwd=uri-miss; stored; ttl=60"));
    let hit = client.get("/a").unwrap();
    assert_eq!((hit.status, hit.text()), (200, "hello".to_owned()));
    assert_eq!(hit.header("age"), Some("0"));
    assert!(hit.header("cache-status").unwrap().starts_with("Tenfold; hit; ttl="));
    assert_eq!(hit.header("content-length"), Some("5"));
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_hit_answers_head_conditions_and_ranges() {
    let origin =
        Origin::serve(|_| Answer::ok("0123456789").cache_control("max-age=60").etag("\"v1\"")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.get("/a").unwrap();
    let head = client.request("HEAD", "/a", &[]).unwrap();
    assert_eq!((head.status, head.header("content-length"), head.text()), (200, Some("10"), String::new()));
    let unchanged = client.request("GET", "/a", &[("If-None-Match", "\"v1\"")]).unwrap();
    assert_eq!(
        (unchanged.status, unchanged.header("etag"), unchanged.text()),
        (304, Some("\"v1\""), String::new())
    );
    let part = client.request("GET", "/a", &[("Range", "bytes=2-4")]).unwrap();
    assert_eq!((part.status, part.text()), (206, "234".to_owned()));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let beyond = client.request("GET", "/a", &[("Range", "bytes=20-")]).unwrap();
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10")));
    // Nor is it, for a cache below us, everybody's answer.
    assert_eq!((beyond.header("cache-control"), beyond.header("etag")), (None, Some("\"v1\"")));
    assert_eq!(origin.requests(), 1);
}

#[test]
fn large_hits_come_whole() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let sent = body.clone();
    let origin = Origin::serve(move |_| Answer::ok(sent.clone()).cache_control("max-age=60")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    assert!(client.get("/a").unwrap().body == body);
    assert!(client.get("/a").unwrap().body == body);
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_crowd_makes_one_fetch() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::serve(move |_| Answer::ok("once").cache_control("max-age=60").gated(&held)).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..20).map(|_| scope.spawn(|| edge.client().get("/a").unwrap())).collect();
        wait_for("all to follow", LIMIT, || edge.stats().collapsed == 19);
        gate.open();
        for one in crowd {
            let answer = one.join().unwrap();
            assert_eq!((answer.status, answer.text()), (200, "once".to_owned()));
        }
    });
    assert_eq!(origin.requests(), 1);
}

#[test]
fn followers_read_along_while_the_body_comes() {
    let gate = Gate::new();
    let held = gate.clone();
    let answer = move |_: &_| {
        Answer::new(200).chunked(["first", "second"]).cache_control("max-age=60").gated_chunks(&held)
    };
    let origin = Origin::serve(answer).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut clients = [edge.client(), edge.client()];
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        client.read_through("first").unwrap();
    }
    gate.open();
    for client in &mut clients {
        client.read_through("second").unwrap();
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_stale_answer_is_refreshed_behind_it() {
    let origin = Origin::serve(|_| {
        Answer::ok("v").cache_control("max-age=0, stale-while-revalidate=60").etag("\"1\"")
    })
    .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.get("/a").unwrap();
    let stale = client.get("/a").unwrap();
    assert!(stale.header("cache-status").unwrap().contains("hit"), "{stale:?}");
    wait_for("the refresh", LIMIT, || origin.requests() >= 2);
    assert_eq!(origin.last().unwrap().header("if-none-match"), Some("\"1\""));
}

#[test]
fn a_revalidated_answer_is_served_without_its_body_being_sent_again() {
    let origin =
        Origin::serve(|_| Answer::ok("body").cache_control("max-age=0, must-revalidate").etag("\"1\""))
            .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.get("/a").unwrap();
    let again = client.get("/a").unwrap();
    assert_eq!((again.status, again.text()), (200, "body".to_owned()));
    assert_eq!(again.header("cache-status").map(|s| s.contains("fwd-status=304")), Some(true), "{again:?}");
}

#[test]
fn a_stale_copy_stands_in_for_dead_nodes() {
    let mut origin =
        Origin::serve(|_| Answer::ok("kept").cache_control("max-age=0, stale-if-error=60")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.get("/a").unwrap();
    origin.stop();
    // One request learns that the nodes are dead; the others are answered without waiting for that.
    for said in ["fwd=stale", "detail=stale_if_error", "detail=stale_if_error"] {
        let answer = client.get("/a").unwrap();
        assert_eq!((answer.status, answer.text()), (200, "kept".to_owned()));
        assert!(answer.header("cache-status").unwrap().contains(said), "{answer:?}");
    }
    let other = client.get("/other").unwrap();
    assert_eq!((other.status, other.header("tenfold-reason")), (503, Some("no_node")));
}

#[test]
fn a_purge_is_the_end_of_a_stored_answer() {
    let origin = Origin::serve(|_| Answer::ok("x").cache_control("max-age=60")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.get("/a").unwrap();
    let _ = edge.edge.purge(&Purge::All, false);
    client.get("/a").unwrap();
    assert_eq!(origin.requests(), 2);
}

#[test]
fn a_successful_write_makes_the_stored_answer_stale() {
    let origin = Origin::serve(|_| Answer::ok("x").cache_control("max-age=60")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.get("/a").unwrap();
    client.request_with_body("POST", "/a", &[], b"change").unwrap();
    client.get("/a").unwrap();
    assert_eq!(origin.count("GET", "/a"), 2);
}

#[test]
fn what_may_not_be_shared_is_fetched_for_each() {
    let origin = Origin::serve(|_| Answer::ok("mine").cache_control("private")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    for _ in 0..3 {
        assert_eq!(client.get("/a").unwrap().text(), "mine");
    }
    assert_eq!(origin.requests(), 3);
}

#[test]
fn an_override_keeps_what_the_origin_says_nothing_about() {
    let origin = Origin::serve(|_| Answer::ok("x")).unwrap();
    let edge = overriding(&origin, Override { ttl: Some(Duration::from_secs(60)), ..Override::default() });
    let mut client = edge.client();
    client.get("/a").unwrap();
    client.get("/a").unwrap();
    assert_eq!(origin.requests(), 1);
    client.request("GET", "/a", &[("Cookie", "user=1")]).unwrap();
    assert_eq!(origin.requests(), 2, "a request with a cookie isn't covered");
}

#[test]
fn routes_told_apart_by_headers_never_answer_for_one_another() {
    let serving = |body| Origin::serve(move |_| Answer::ok(body).cache_control("max-age=60")).unwrap();
    let (plain, beta) = (serving("plain"), serving("beta"));
    let mut config = config(&[plain.addr()]);
    config.clusters.extend(self::config(&[beta.addr()]).clusters);
    config.clusters[1].name = "beta".to_owned();
    let headers = vec![("x-beta".to_owned(), "1".to_owned())];
    config.routes.push(RouteConfig {
        headers,
        to: "beta".to_owned(),
        ..route("beta", "/{*rest}", Rule::Respect)
    });
    let edge = Running::start(config);
    let mut client = edge.client();
    for _ in 0..2 {
        assert_eq!(client.request("GET", "/a", &[("X-Beta", "1")]).unwrap().text(), "beta");
        assert_eq!(client.get("/a").unwrap().text(), "plain");
    }
    assert_eq!((plain.requests(), beta.requests()), (1, 1));
    let authority = edge.address.to_string();
    let purge = Purge::Url { authority: authority.as_bytes(), path: b"/a", query: None };
    let _ = edge.edge.purge(&purge, false);
    client.request("GET", "/a", &[("X-Beta", "1")]).unwrap();
    client.get("/a").unwrap();
    assert_eq!((plain.requests(), beta.requests()), (2, 2), "one purge reaches both");
}

#[test]
fn headers_outside_the_key_reach_no_node() {
    let origin = Origin::serve(|_| Answer::ok("x").cache_control("max-age=60")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    edge.client()
        .request("GET", "/a", &[("X-Forwarded-Host", "evil"), ("X-HTTP-Method-Override", "DELETE")])
        .unwrap();
    let seen = origin.last().unwrap();
    assert_ne!(seen.header("x-forwarded-host"), Some("evil"));
    assert_eq!(seen.header("x-http-method-override"), None);
}

#[test]
fn the_key_is_shown_where_the_route_says_so() {
    let origin = Origin::serve(|_| Answer::ok("x").cache_control("max-age=60")).unwrap();
    let edge = overriding(&origin, Override { show_key: true, ..Override::default() });
    let mut client = edge.client();
    let key = format!("; key=\"{}/a%22?q=1\"", edge.address);
    for _ in 0..2 {
        let answer = client.get("/%61%22?q=1").unwrap();
        assert!(answer.header("cache-status").unwrap().ends_with(&key), "{answer:?} {key}");
    }
}

#[test]
fn what_of_a_query_does_not_count_reaches_no_node() {
    let origin = Origin::serve(|_| Answer::ok("x").cache_control("max-age=60")).unwrap();
    let query = QueryRule { sort: true, keep: Vec::new(), drop: vec![Pattern::new("utm_*")] };
    let edge = overriding(&origin, Override { query: Some(query.into()), ..Override::default() });
    let mut client = edge.client();
    for target in ["/a?b=2&utm_source=mail&a=1", "/a?a=1&b=2", "/a?utm_x=%22&a=1&b=2"] {
        assert_eq!(client.get(target).unwrap().status, 200);
    }
    assert_eq!((origin.requests(), origin.count("GET", "/a?a=1&b=2")), (1, 1));
    client.request_with_body("POST", "/a?utm_source=mail&b=2&a=1", &[], b"change").unwrap();
    client.get("/a?a=1&b=2").unwrap();
    assert_eq!(origin.count("GET", "/a?a=1&b=2"), 2, "a write to any of its spellings is a write to it");
    let authority = edge.address.to_string();
    let query = Some(&b"b=2&a=1&utm_x"[..]);
    let _ = edge.edge.purge(&Purge::Url { authority: authority.as_bytes(), path: b"/a", query }, false);
    client.get("/a?a=1&b=2").unwrap();
    assert_eq!(origin.count("GET", "/a?a=1&b=2"), 3, "and so is a purge of any");
}

#[test]
fn a_client_s_wish_to_ask_the_origin_can_be_ignored() {
    let origin = Origin::serve(|_| Answer::ok("x").cache_control("max-age=60")).unwrap();
    let edge = overriding(&origin, Override { ignore_client_revalidation: true, ..Override::default() });
    let mut client = edge.client();
    for wish in ["no-cache", "max-age=0", "no-store", "min-fresh=1000", ""] {
        client.request("GET", "/a", &[("Cache-Control", wish)]).unwrap();
    }
    client.request("GET", "/a", &[("Pragma", "no-cache")]).unwrap();
    assert_eq!(origin.requests(), 1);
    assert_eq!(client.request("GET", "/b", &[("Cache-Control", "only-if-cached")]).unwrap().status, 504);
}
