//! What a request is to routes, to the cache and to a node must be one and the same request.

use tenfold_cache::{KeyPart, Override, Rule};
use tenfold_edge::config::Config;
use tenfold_testkit::origin::Gate;
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::harness::{LIMIT, Running, config, route};

/// Answers with the value of one request field, to be kept for all that send the same.
fn telling(name: &'static str) -> Origin {
    let tell = move |value: Option<&str>| Answer::ok(value.unwrap_or("none")).cache_control("max-age=60");
    Origin::serve(move |request| tell(request.header(name)).header("Vary", name)).unwrap()
}

/// The tests' own address is one of our proxies.
fn behind_a_proxy(origin: &Origin) -> Config {
    let mut config = config(&[origin.addr()]);
    config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    config
}

#[test]
fn a_field_that_connection_names_selects_no_stored_answer() {
    let origin = telling("X-Lang");
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    let dropped = [("Connection", "X-Lang"), ("X-Lang", "de")];
    assert_eq!(client.request("GET", "/a", &dropped).unwrap().text(), "none");
    assert_eq!(client.request("GET", "/a", &[("X-Lang", "de")]).unwrap().text(), "de");
}

#[test]
fn a_field_that_connection_names_is_in_no_key_and_takes_no_route() {
    let origin = telling("X-Tenant");
    let mut config = config(&[origin.addr()]);
    let rule = Rule::Override(Override {
        ttl: Some(std::time::Duration::from_secs(60)),
        key: vec![KeyPart::Header("x-tenant".into())],
        ..Override::default()
    });
    let mut own = route("own", "/own", Rule::Respect);
    own.headers = vec![("x-tenant".to_owned(), "a".to_owned())];
    config.routes = vec![route("all", "/a", rule), own];
    let edge = Running::start(config);
    let mut client = edge.client();
    let dropped = [("Connection", "X-Tenant"), ("X-Tenant", "a")];
    let kept = &dropped[1..];
    assert_eq!(client.request("GET", "/a", &dropped).unwrap().text(), "none");
    assert_eq!(client.request("GET", "/a", kept).unwrap().text(), "a");
    assert_eq!(client.request("GET", "/own", &dropped).unwrap().status, 404);
    assert_eq!(client.request("GET", "/own", kept).unwrap().status, 200);
}

#[test]
fn a_strangers_scheme_selects_no_stored_answer() {
    let origin = telling("X-Forwarded-Proto");
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    for _ in 0..2 {
        let answer = client.request("GET", "/a", &[("X-Forwarded-Proto", "https")]).unwrap();
        assert_eq!(answer.text(), "http");
    }
    assert_eq!(client.get("/a").unwrap().text(), "http");
    assert_eq!(origin.requests(), 1, "what was never passed on makes no variant");
}

#[test]
fn a_proxys_scheme_has_its_own_answers() {
    let origin = Origin::serve(|request| {
        let scheme = request.header("x-forwarded-proto").unwrap_or("none");
        Answer::ok(scheme).cache_control("max-age=60")
    })
    .unwrap();
    let edge = Running::start(behind_a_proxy(&origin));
    let mut client = edge.client();
    for _ in 0..2 {
        for scheme in ["http", "https"] {
            let answer = client.request("GET", "/a", &[("X-Forwarded-Proto", scheme)]).unwrap();
            assert_eq!(answer.text(), scheme);
        }
    }
    assert_eq!(origin.requests(), 2);
}

#[test]
fn an_answer_that_varies_by_what_each_request_is_told_is_kept_for_nobody() {
    let origin = telling("X-Forwarded-For");
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    for alone in [false, true, true, true] {
        // Other clients are told of with other addresses, and ask with the same fields.
        let answer = client.get("/a").unwrap();
        assert_eq!(answer.text(), "127.0.0.1");
        assert_eq!(answer.headers("vary").collect::<Vec<_>>(), ["X-Forwarded-For"]);
        let status = answer.header("cache-status").unwrap();
        assert_eq!(status.contains("detail=known_uncacheable"), alone, "nobody waits for it: {status}");
    }
    assert_eq!(origin.requests(), 4);
}

#[test]
fn a_fill_begun_again_says_what_was_said_before() {
    // Two wait for one fill whose answer turns out to be for the first alone: the second begins a fill of its own.
    let gate = Gate::new();
    let held = gate.clone();
    let answer = Answer::ok("x").cache_control("max-age=60").header("Vary", "X-Lang");
    let origin = Origin::serve(move |_| answer.clone().gated(&held)).unwrap();
    let edge = Running::start(behind_a_proxy(&origin));
    let ask = |language: &'static str| {
        let fields = [
            ("X-Lang", language),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-For", "198.51.100.7"),
            ("If-None-Match", "\"other\""),
        ];
        edge.client().request("GET", "/a", &fields).unwrap()
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask("de"));
        wait_for("the first fill", LIMIT, || origin.requests() == 1);
        let second = scope.spawn(|| ask("fr"));
        wait_for("the second to follow", LIMIT, || edge.stats().collapsed == 1);
        gate.open();
        assert_eq!((first.join().unwrap().status, second.join().unwrap().status), (200, 200));
    });
    let again = origin.last().unwrap();
    assert_eq!(again.header("x-lang"), Some("fr"));
    assert_eq!(again.header("x-forwarded-proto"), Some("https"));
    assert_eq!(again.header("x-forwarded-for"), Some("198.51.100.7, 127.0.0.1"));
    let host = again.header("host").unwrap();
    let forwarded = format!("for=198.51.100.7;host=\"{host}\";proto=https");
    assert_eq!(again.header("forwarded"), Some(forwarded.as_str()));
    assert_eq!(again.header("if-none-match"), None);
}

#[test]
fn a_refresh_that_head_brought_about_fetches_the_body() {
    let origin = Origin::serve(|request| {
        let body = if request.method == "HEAD" { "" } else { "whole" };
        Answer::ok(body).cache_control("max-age=0, stale-while-revalidate=60")
    })
    .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.get("/a").unwrap();
    assert_eq!(client.request("HEAD", "/a", &[]).unwrap().status, 200);
    wait_for("the refresh", LIMIT, || origin.requests() >= 2);
    assert_eq!(origin.count("HEAD", "/a"), 0);
    wait_for("the refresh to end", LIMIT, || edge.in_flight() == 0);
    assert_eq!(client.get("/a").unwrap().text(), "whole");
}

#[test]
fn what_one_hop_says_and_how_the_origin_names_a_request_is_not_kept() {
    let origin = Origin::serve(|_| {
        let answer = Answer::ok("x").cache_control("max-age=60").header("X-Request-Id", "the-origins-own");
        answer.header("Connection", "X-Hop").header("X-Hop", "1")
    })
    .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    for _ in 0..2 {
        let answer = client.get("/a").unwrap();
        assert_eq!(answer.header("x-hop"), None);
        assert_eq!(answer.headers("x-request-id").count(), 1);
        assert_ne!(answer.header("x-request-id"), Some("the-origins-own"));
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_fetched_answers_age_counts_from_its_making() {
    let origin =
        Origin::serve(|_| Answer::ok("x").cache_control("max-age=0").etag("\"1\"").header("Age", "7"))
            .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.get("/a").unwrap();
    origin.set_default(Answer::new(304).cache_control("max-age=60").etag("\"1\"").header("Age", "7"));
    let validated = client.get("/a").unwrap();
    let age: u64 = validated.header("age").unwrap().parse().unwrap();
    assert!(age >= 7, "{validated:?}");
}

#[test]
fn the_longest_targets_and_hosts_are_refused_by_name() {
    let origin = Origin::serve(|_| Answer::ok("x").cache_control("max-age=60")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let target = format!("/{}", "\\".repeat(4000));
    let answer = edge.client().get(&target).unwrap();
    assert_eq!((answer.status, answer.header("tenfold-reason")), (414, Some("target_too_long")));
    let long = "a".repeat(8000);
    for host in [long.as_str(), "."] {
        let answer = edge.client().request("GET", "/", &[("Host", host)]).unwrap();
        assert_eq!((answer.status, answer.header("tenfold-reason")), (400, Some("bad_host")), "{host}");
    }
}

#[test]
fn a_request_as_long_as_may_be_is_read_again() {
    // Followers look at their own request once more when the answer has come, here for its condition.
    let origin = Origin::serve(|_| Answer::ok("x").cache_control("max-age=60").etag("\"1\"")).unwrap();
    let edge = Running::start(behind_a_proxy(&origin));
    let target = format!("/{}", "a".repeat(8191));
    let chain = "198.51.100.7, ".repeat(583) + "198.51.100.7";
    let fields = [("X-Forwarded-For", chain.as_str()), ("If-None-Match", "\"1\"")];
    let answer = edge.client().request("GET", &target, &fields).unwrap();
    assert_eq!(answer.status, 304, "{answer:?}");
}

#[test]
fn a_request_without_a_host_reaches_the_node_by_the_nodes_name() {
    let origin = Origin::serve(|_| Answer::ok("x").cache_control("max-age=60").etag("\"1\"")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.send("GET /a HTTP/1.0\r\nIf-None-Match: \"1\"\r\n\r\n").unwrap();
    assert_eq!(client.response().unwrap().status, 304);
    let name = origin.addr().to_string();
    assert_eq!(origin.last().unwrap().header("host"), Some(name.as_str()));
}

#[test]
fn the_log_names_a_hit_as_it_names_a_miss() {
    let origin = Origin::serve(|_| Answer::ok("x").cache_control("max-age=60")).unwrap();
    let mut config = config(&[origin.addr()]);
    config.access_log.sample_ppm = 1_000_000;
    let edge = Running::start(config);
    let mut client = edge.client();
    let next = || edge.log.lock().unwrap().next(LIMIT).unwrap().unwrap();
    for cache in ["miss", "hit"] {
        client.request("GET", "/x/../%61?q=%7E", &[("Host", "Shop.Example:80")]).unwrap();
        let record = next();
        assert_eq!(record.cache, cache);
        assert_eq!((record.host.as_str(), record.target.as_str()), ("shop.example", "/a?q=%7E"), "{cache}");
    }
    client.request("GET", "/../b", &[("Host", "Shop.Example")]).unwrap();
    let refused = next();
    assert_eq!((refused.host.as_str(), refused.target.as_str()), ("Shop.Example", "/../b"));
}

#[test]
fn a_request_without_a_host_gets_the_first_nodes_if_that_leads_the_same_way() {
    let origin = Origin::serve(|_| Answer::ok("x").cache_control("max-age=60")).unwrap();
    let ask = |config: Config| {
        let edge = Running::start(config);
        let mut client = edge.client();
        client.send("GET /a HTTP/1.0\r\n\r\n").unwrap();
        client.response().unwrap()
    };
    assert_eq!(ask(config(&[origin.addr()])).status, 200);
    assert_eq!(origin.last().unwrap().header("host"), Some(&*origin.addr().to_string()));
    // Under that name it would be another route's, and its answer would be taken for one of that route.
    let mut two = config(&[origin.addr()]);
    two.routes.push(route("named", "/{*rest}", Rule::Respect));
    two.routes[1].host = Some(origin.addr().to_string());
    let answer = ask(two);
    assert_eq!((answer.status, answer.header("tenfold-reason")), (400, Some("bad_host")));
    // A name in another spelling is one name.
    let mut spelled = config(&[origin.addr()]);
    spelled.clusters[0].nodes[0].host = Some("API.Example:80".to_owned());
    spelled.routes.push(route("named", "/{*rest}", Rule::Respect));
    spelled.routes[1].host = Some("api.example".to_owned());
    assert_eq!(ask(spelled).status, 400);
}
