//! Edges that share a Redis which is stopped, cut off, restarted, failed over, or lies.

use std::time::Duration;

use tenfold_cache::tier::{Answer, Settings};
use tenfold_cache::{Compress, Field, Lookup, Override, Purge, RequestFacts, Rule};
use tenfold_testkit::fault::{Direction, Fault, Proxy};
use tenfold_testkit::redis::Redis as Server;
use tenfold_testkit::wait_for;

use crate::site::{Ask, BUDGET, PATIENCE, Site, at, finish, now, wait};

const FRESH: Field<'_> = (b"Cache-Control", b"max-age=600");

fn url(path: &[u8]) -> Purge<'_> {
    Purge::Url { authority: b"shop.example", path, query: None }
}

fn is_hit(site: &Site, path: &str) -> bool {
    matches!(site.look_up(&Ask::of(path), at(1)), Lookup::Hit(_))
}

/// Stores in this edge's RAM, where it is fresh.
fn keep(site: &Site, path: &str) {
    assert!(site.store(&Ask::of(path), &[FRESH], b"body", at(0)));
    assert!(is_hit(site, path));
}

#[test]
fn a_purge_reaches_every_edge_within_a_tenth_of_a_second() {
    let server = Server::start(&[]).expect("a Redis");
    let edges: Vec<_> = (0..3).map(|n| Site::sharing(&server.url(), Settings::default(), n)).collect();
    edges.iter().for_each(|edge| keep(edge, "/a"));
    // The slowest of a few: one may be unlucky on a busy machine.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let began = now();
        drop(edges[0].cache.purge_everywhere(&url(b"/a"), false));
        wait_for("no edge has it", PATIENCE, || edges.iter().all(|edge| !is_hit(edge, "/a")));
        best = best.min(now() - began);
        wait_for("all of it is heard", PATIENCE, || {
            edges[0].tier().stats().purges_heard == edges[0].tier().stats().purges_published
        });
        edges.iter().for_each(|edge| keep(edge, "/a"));
    }
    assert!(best < Duration::from_millis(100), "{best:?}");
}

#[test]
fn an_edge_that_was_cut_off_serves_nothing_that_was_purged_meanwhile() {
    let server = Server::start(&[]).expect("a Redis");
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).expect("a proxy");
    let near = Site::sharing(&server.url(), Settings::default(), 1);
    let far = Site::sharing(&format!("redis://{}", proxy.addr()), Settings::default(), 2);
    keep(&far, "/purged");
    keep(&far, "/kept");
    proxy.set(Direction::ToClient, Fault::StallAt(0));
    drop(near.cache.purge_everywhere(&url(b"/purged"), false));
    wait_for("the cut is noticed", PATIENCE, || !far.tier().stats().in_step);
    assert!(is_hit(&far, "/purged"), "it can't know");
    assert!(far.tier().stats().blind_ms > 0);
    proxy.set(Direction::ToClient, Fault::None);
    far.until_in_step();
    assert!(!is_hit(&far, "/purged"));
    assert!(is_hit(&far, "/kept"), "its place was kept");
    assert_eq!(far.tier().stats().places_lost, 0);
}

#[test]
fn an_edge_that_may_not_be_blind_calls_nothing_fresh() {
    let server = Server::start(&[]).expect("a Redis");
    let blind = Settings { purge_blind_max: Some(Duration::from_secs(3)), ..Settings::default() };
    let edge = Site::sharing(&server.url(), blind, 1);
    keep(&edge, "/a");
    server.freeze();
    wait_for("nothing is fresh", PATIENCE, || !is_hit(&edge, "/a"));
    assert!(edge.tier().stats().blind_softened >= 1);
    assert!(edge.tier().stats().blind_ms >= 3000);
    server.thaw();
    edge.until_in_step();
    keep(&edge, "/b");
}

#[test]
fn a_purge_told_while_redis_is_away_is_applied_at_once_and_told_later() {
    let mut server = Server::start(&[]).expect("a Redis");
    let (one, two) = (
        Site::sharing(&server.url(), Settings::default(), 1),
        Site::sharing(&server.url(), Settings::default(), 2),
    );
    keep(&one, "/a");
    keep(&two, "/a");
    server.kill();
    wait_for("it is noticed", PATIENCE, || !one.tier().redis_stats().up || !one.tier().stats().in_step);
    let (_, told) = one.cache.purge_everywhere(&url(b"/a"), false);
    assert!(!is_hit(&one, "/a") && is_hit(&two, "/a"));
    wait_for("it waits", PATIENCE, || one.tier().stats().purges_waiting == 1);
    server.restart().expect("it starts again");
    wait(told.expect("it is published")).expect("it is published");
    wait_for("the other edge hears", PATIENCE, || !is_hit(&two, "/a"));
}

#[test]
fn a_lost_place_makes_everything_suspect_and_few_renew_it_at_once() {
    let mut server = Server::start(&[]).expect("a Redis");
    let edge = Site::sharing(&server.url(), Settings::default(), 1);
    for path in 0..100 {
        keep(&edge, &format!("/{path}"));
    }
    server.restart().expect("it starts again");
    wait_for("the place is lost", PATIENCE, || edge.tier().stats().places_lost == 1);
    // What the cluster has been seen to bear.
    edge.refills.observe(40, at(1));
    let mut renewing = Vec::new();
    for path in 0..100 {
        let path = format!("/{path}");
        let ask = Ask::of(&path);
        let Lookup::Stale { hit, refresh: true } = edge.look_up(&ask, at(1)) else {
            panic!("{path} is served and to be renewed")
        };
        assert!(hit.suspect && hit.ttl_s > 0, "it is fresh as far as anybody knows");
        renewing.extend(edge.refresh(&ask, hit.entry, at(1)));
    }
    assert_eq!(renewing.len(), 4, "a tenth of it");
    for (path, fill) in renewing.into_iter().enumerate() {
        assert!(finish(fill, &[FRESH], b"new", at(1)));
        assert!(is_hit(&edge, &format!("/{path}")));
    }
    let again = Ask::of("/99");
    let Lookup::Stale { hit, .. } = edge.look_up(&again, at(1)) else { panic!("/99 is still suspect") };
    assert!(edge.refresh(&again, hit.entry, at(1)).is_some(), "the others are done");
}

#[test]
fn after_a_failover_what_the_dead_master_had_just_taken_is_told_again() {
    let mut master = Server::start(&[]).expect("a Redis");
    let replica = master.replica().expect("a replica");
    let to_master = ([127, 0, 0, 1], master.port()).into();
    let proxy = Proxy::start(to_master).expect("a proxy");
    let through = format!("redis://{}", proxy.addr());
    let (one, two) =
        (Site::sharing(&through, Settings::default(), 1), Site::sharing(&through, Settings::default(), 2));
    keep(&one, "/a");
    keep(&two, "/a");
    // It copies no more from here on, so the master dies with what it was told.
    replica.promote();
    let (_, told) = one.cache.purge_everywhere(&url(b"/b"), false);
    wait(told.expect("it is published")).expect("it is published");
    wait_for("it is heard", PATIENCE, || two.tier().stats().purges_heard == 1);
    master.kill();
    assert!(!replica.command(&["XRANGE", "tenfold:purges", "-", "+"]).contains("/b"), "it was not copied");
    proxy.set_server(([127, 0, 0, 1], replica.port()).into());
    one.until_in_step();
    two.until_in_step();
    wait_for("it is told again", PATIENCE, || {
        replica.command(&["XRANGE", "tenfold:purges", "-", "+"]).contains("/b")
    });
    wait_for("both are suspicious", PATIENCE, || [&one, &two].iter().all(|edge| !is_hit(edge, "/a")));
    assert!(one.tier().stats().places_lost == 1 && two.tier().stats().places_lost == 1);
}

#[test]
fn what_another_edge_fetched_is_renewed_early_and_a_copy_of_it_is_no_renewal() {
    let server = Server::start(&[]).expect("a Redis");
    let edges: Vec<_> = (0..2).map(|n| Site::sharing(&server.url(), Settings::default(), n)).collect();
    let (one, two) = (&edges[0], &edges[1]);
    let ask = Ask::of("/a");
    keep(one, "/a");
    wait_for("it is stored", PATIENCE, || one.tier().stats().stored == 1);
    assert!(two.get(&ask, at(0)).is_some_and(|entry| entry.is_from_tier()));
    let early = |edge: &Site| match edge.look_up(&ask, at(599)) {
        Lookup::Hit(hit) if hit.early.is_some() => edge.refresh(&ask, hit.entry, at(599)),
        _ => None,
    };
    // One that came from another edge, and one that this edge has shared itself.
    let (mut of_two, mut of_one) = (early(two).expect("it is near its end"), early(one).expect("here too"));
    for (edge, fill) in [(two, &mut of_two), (one, &mut of_one)] {
        let mut question = fill.question(None).expect("there is a tier");
        let Answer::Found(found) = wait(edge.tier().ask(question.clone(), BUDGET)) else {
            panic!("it is there")
        };
        assert!(!fill.answer_from(&found, &mut question, at(599)), "it is what was to be renewed");
    }
    assert!(finish(of_two, &[FRESH], b"new", at(599)));
    wait_for("it is stored", PATIENCE, || two.tier().stats().stored == 1);
    let mut question = of_one.question(None).expect("there is a tier");
    let Answer::Found(found) = wait(one.tier().ask(question.clone(), BUDGET)) else { panic!("it is there") };
    assert!(of_one.answer_from(&found, &mut question, at(599)));
    assert_eq!(&one.get(&ask, at(1000)).expect("renewed").body.read().unwrap()[..], b"new");
}

#[test]
fn values_that_were_tampered_with_are_misses() {
    let server = Server::start(&[]).expect("a Redis");
    let (one, two) = (
        Site::sharing(&server.url(), Settings::default(), 1),
        Site::sharing(&server.url(), Settings::default(), 2),
    );
    let ask = Ask::of("/a");
    keep(&one, "/a");
    wait_for("it is stored", PATIENCE, || one.tier().stats().stored == 1);
    let keys = server.command(&["KEYS", "tenfold:{*}:v"]);
    let key = keys.trim();
    let _ = server.command(&["SETRANGE", key, "64", "nonsense"]);
    assert!(two.get(&ask, at(0)).is_none());
    let _ = server.command(&["SET", key, "nonsense"]);
    assert!(two.get(&ask, at(0)).is_none());
    assert_eq!(two.tier().stats().unread, 2);
    let _ = server.command(&["DEL", key]);
    let _ = server.command(&["LPUSH", key, "nonsense"]);
    assert!(two.get(&ask, at(0)).is_none());
    assert!(two.tier().redis_stats().up, "a refusal is an answer");
}

#[test]
fn a_frozen_redis_costs_a_miss_its_budget_and_then_nothing() {
    let server = Server::start(&[]).expect("a Redis");
    let edge = Site::sharing(&server.url(), Settings::default(), 1);
    server.freeze();
    let ask = Ask::of("/a");
    let mut asked = 0;
    loop {
        let question = edge.lead(&ask, at(0)).question(None).expect("there is a tier");
        let began = now();
        assert!(matches!(wait(edge.tier().ask(question, BUDGET)), Answer::Nothing | Answer::Late));
        let took = now() - began;
        assert!(took < BUDGET * 2, "{took:?}");
        if took < BUDGET / 2 {
            break;
        }
        asked += 1;
        assert!(asked <= 5, "it is known to be away");
    }
    assert_eq!(edge.tier().stats().unanswered, asked + 1, "each question counts once");
}

#[test]
fn one_edge_fetches_for_all_and_its_failure_sets_the_next_one_free() {
    let server = Server::start(&[]).expect("a Redis");
    let edges: Vec<_> = (0..2).map(|n| Site::sharing(&server.url(), Settings::default(), n)).collect();
    let rule = Rule::Override(Override { shield: true, ..Override::default() });
    let ask = Ask { rule: &rule, ..Ask::of("/a") };
    let lease = Some(Duration::from_secs(60));
    let answer = |edge: &Site, fill: &tenfold_cache::Fill| {
        wait(edge.tier().ask(fill.question(lease).expect("there is a tier"), BUDGET))
    };
    let (mut first, mut second) = (edges[0].lead(&ask, at(0)), edges[1].lead(&ask, at(0)));
    let Answer::Lead(lock) = answer(&edges[0], &first) else { panic!("the first one leads") };
    first.lead_for_all(lock);
    assert!(matches!(answer(&edges[1], &second), Answer::Held));
    // It fails, and the other one may.
    first.fail(tenfold_cache::FailReason::Connect, at(0));
    let mut lock = None;
    wait_for("the lock is free", PATIENCE, || match answer(&edges[1], &second) {
        Answer::Lead(taken) => lock.replace(taken).is_none(),
        _ => false,
    });
    second.lead_for_all(lock.expect("taken"));
    let mut third = edges[0].lead(&ask, at(0));
    assert!(matches!(answer(&edges[0], &third), Answer::Held));
    assert!(finish(second, &[FRESH], b"body", at(0)));
    let mut question = third.question(lease).expect("there is a tier");
    wait_for("the answer is there", PATIENCE, || match wait(edges[0].tier().ask(question.clone(), BUDGET)) {
        Answer::Found(found) => third.answer_from(&found, &mut question, at(0)),
        _ => false,
    });
    // What can't be stored is said to be so.
    let other = Ask { rule: &rule, ..Ask::of("/b") };
    let (mut first, second) = (edges[0].lead(&other, at(0)), edges[1].lead(&other, at(0)));
    let Answer::Lead(lock) = answer(&edges[0], &first) else { panic!("the first one leads") };
    first.lead_for_all(lock);
    let _ = first.on_head(200, &[(b"Cache-Control", b"no-store")], None, at(0));
    wait_for("nobody waits", PATIENCE, || matches!(answer(&edges[1], &second), Answer::Uncacheable));
}

#[test]
fn a_new_edge_uses_nothing_of_a_time_whose_purges_it_cannot_know() {
    let server = Server::start(&[]).expect("a Redis");
    let one = Site::sharing(&server.url(), Settings::default(), 1);
    keep(&one, "/a");
    wait_for("it is stored", PATIENCE, || one.tier().stats().stored == 1);
    // Purged for all; then a full server evicts the stream, and with it what it says.
    let (_, told) = one.cache.purge_everywhere(&url(b"/a"), false);
    wait(told.expect("it is published")).expect("it is published");
    let _ = server.command(&["DEL", "tenfold:purges"]);
    let two = Site::sharing(&server.url(), Settings::default(), 2);
    assert!(two.get(&Ask::of("/a"), at(1)).is_none(), "it was purged");
    assert_eq!(two.tier().stats().unusable, 1, "it was found");
}

#[test]
fn a_write_that_one_edge_hears_of_keeps_it_from_sharing_nothing() {
    let server = Server::start(&[]).expect("a Redis");
    let edges: Vec<_> = (0..2).map(|n| Site::sharing(&server.url(), Settings::default(), n)).collect();
    let (one, two) = (&edges[0], &edges[1]);
    keep(one, "/cart");
    let post = RequestFacts::read("POST", &[]);
    one.cache.invalidate(&post, &Rule::Respect, b"shop.example", (b"/cart", None), 303, &[]);
    assert!(!is_hit(one, "/cart"));
    keep(one, "/b");
    wait_for("it is stored", PATIENCE, || one.tier().stats().stored == 2);
    assert!(two.get(&Ask::of("/b"), at(1)).is_some());
    // What was fetched before a purge that all hear of is not shared past it.
    let fill = one.lead(&Ask::of("/c"), at(0));
    let (_, told) = two.cache.purge_everywhere(&url(b"/b"), false);
    wait(told.expect("it is published")).expect("it is published");
    wait_for("it is heard", PATIENCE, || edges.iter().all(|edge| edge.tier().stats().purges_heard == 1));
    assert!(finish(fill, &[FRESH], b"body", at(0)), "another URL was purged");
    wait_for("it is stored", PATIENCE, || one.tier().stats().stored == 3);
    assert!(two.get(&Ask::of("/c"), at(1)).is_some());
    assert!(two.get(&Ask::of("/b"), at(1)).is_none());
}

#[test]
fn what_an_edge_compresses_for_itself_is_shared_whatever_each_client_accepts() {
    let server = Server::start(&[]).expect("a Redis");
    let edges: Vec<_> = (0..2).map(|n| Site::sharing(&server.url(), Settings::default(), n)).collect();
    let compress = Some(Compress::default());
    let rule = Rule::Override(Override { compress, ..Override::default() });
    let accepts: [Field<'_>; 1] = [(b"Accept-Encoding", b"gzip")];
    let ask = |fields| Ask { fields, rule: &rule, ..Ask::of("/a") };
    let json: [Field<'_>; 3] = [FRESH, (b"Content-Type", b"application/json"), (b"Vary", b"Accept-Encoding")];
    assert!(edges[0].store(&ask(&accepts), &json, &[b'a'; 4096], at(0)));
    wait_for("it is stored", PATIENCE, || edges[0].tier().stats().stored == 1);
    assert!(edges[1].get(&ask(&accepts), at(1)).is_some());
    assert!(edges[1].get(&ask(&[]), at(1)).is_some());
}

#[test]
fn a_cookie_that_one_rule_keeps_is_gone_under_another() {
    let server = Server::start(&[]).expect("a Redis");
    let edges: Vec<_> = (0..2).map(|n| Site::sharing(&server.url(), Settings::default(), n)).collect();
    let cookie: Field<'_> = (b"Set-Cookie", b"sid=1");
    let public: Field<'_> = (b"Cache-Control", b"public, max-age=600");
    assert!(edges[0].store(&Ask::of("/a"), &[public, cookie], b"body", at(0)));
    wait_for("it is stored", PATIENCE, || edges[0].tier().stats().stored == 1);
    let ttl = Some(Duration::from_secs(60));
    let rule = Rule::Override(Override { ttl, ..Override::default() });
    let entry = edges[1].get(&Ask { rule: &rule, ..Ask::of("/a") }, at(1)).expect("it is shared");
    assert!(!String::from_utf8_lossy(&entry.head).contains("sid=1"));
}

#[test]
fn a_purge_after_a_failover_counts_although_the_new_master_s_clock_is_behind() {
    let mut old = Server::start(&[]).expect("a Redis");
    let new = Server::start(&[]).expect("a Redis");
    let proxy = Proxy::start(([127, 0, 0, 1], old.port()).into()).expect("a proxy");
    let edge = Site::sharing(&format!("redis://{}", proxy.addr()), Settings::default(), 1);
    // The old master's clock is ahead.
    let _ = old.command(&["XADD", "tenfold:purges", "9000000000000-0", "kind", "tag", "tag", "other"]);
    wait_for("it is heard", PATIENCE, || edge.tier().stats().purges_heard == 1);
    keep(&edge, "/a");
    // Another edge has found the new master already, and purges there.
    let other = Site::sharing(&new.url(), Settings::default(), 2);
    let (_, told) = other.cache.purge_everywhere(&url(b"/a"), false);
    wait(told.expect("it is published")).expect("it is published");
    old.kill();
    proxy.set_server(([127, 0, 0, 1], new.port()).into());
    wait_for("the purge counts", PATIENCE, || matches!(edge.look_up(&Ask::of("/a"), at(1)), Lookup::Miss(_)));
}
