//! Renewing early: on paused time, a key under a rush.

use super::*;

/// A key that is asked for so often, on time that only moves as the test says: how often it is fetched, and how many
/// requests are not answered at once.
struct Rush {
    ttl_s: u64,
    fetch_ms: u64,
    requests_per_ms: u64,
}

impl Rush {
    fn run(&self, site: &Site, duration_ms: u64) -> (u64, u64) {
        let control = format!("max-age={}", self.ttl_s);
        let response: [Field<'_>; 2] = [(b"Cache-Control", control.as_bytes()), ETAG];
        let facts = RequestFacts::read("GET", &[]);
        let (mut fetches, mut waits, mut draw) = (0, 0, 1_u64);
        let mut running: Option<(Fill, u64)> = None;
        for ms in 0..duration_ms {
            let now = Timestamp(NOW.0 + ms);
            if let Some((mut fill, _)) = running.take_if(|(_, ends)| *ends <= ms) {
                assert_eq!(fill.on_head(200, &response, None, now), HeadOutcome::Store);
                fill.push(Bytes::from_static(b"body"));
                assert!(fill.finish(now));
            }
            for _ in 0..self.requests_per_ms {
                draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let begun = match site.lookup(&[], now) {
                    Lookup::Hit(hit) if hit.early.is_some_and(|early| early.is_due(draw)) => {
                        site.renew(&facts, hit.entry, now)
                    }
                    Lookup::Hit(_) => None,
                    found => {
                        waits += 1;
                        match site.join_after(found, &[], now) {
                            Join::Lead(fill, _) => Some(fill),
                            Join::Follow(_) | Join::Stored(_) | Join::Alone(_) => None,
                        }
                    }
                };
                if let Some(fill) = begun {
                    fetches += 1;
                    running = Some((fill, ms + self.fetch_ms));
                }
            }
        }
        (fetches, waits)
    }
}

#[test]
fn who_asks_for_what_many_ask_for_never_waits_and_it_is_fetched_hardly_more_often() {
    let (rush, duration_s) = (Rush { ttl_s: 10, fetch_ms: 20, requests_per_ms: 1 }, 300);
    let (fetches, waits) = rush.run(&Site::respect(), duration_s * 1000);
    let cold = rush.fetch_ms * rush.requests_per_ms;
    assert_eq!(waits, cold, "only while there was nothing yet");
    // 1.05 × duration / ttl + 1, in twentieths.
    assert!(fetches * 20 <= 21 * duration_s / rush.ttl_s + 20, "{fetches}");
}

#[test]
fn a_slow_node_and_a_crowd_are_fetched_for_no_more_often_either() {
    for rush in [
        Rush { ttl_s: 10, fetch_ms: 2_000, requests_per_ms: 1 },
        Rush { ttl_s: 2, fetch_ms: 5, requests_per_ms: 10 },
        Rush { ttl_s: 30, fetch_ms: 400, requests_per_ms: 2 },
    ] {
        let duration_s = rush.ttl_s * 12;
        let (fetches, _) = rush.run(&Site::respect(), duration_s * 1000);
        assert!(fetches * 20 <= 21 * duration_s / rush.ttl_s + 20, "{fetches} of {}", rush.ttl_s);
    }
}

#[test]
fn a_route_may_let_things_expire() {
    let rule = Rule::Override(Override { early_refresh_off: true, ..Override::default() });
    let rush = Rush { ttl_s: 1, fetch_ms: 20, requests_per_ms: 1 };
    let (_, waits) = rush.run(&Site::new(small(), rule), 5_000);
    assert!(waits >= 4 * rush.fetch_ms, "{waits}");
}

#[test]
fn an_early_refresh_that_is_turned_away_leaves_the_copy_and_is_not_tried_again_at_once() {
    let site = Site::respect();
    let (mut fill, _lead) = site.lead(&[], at(0));
    let _ = fill.on_head(200, &[FRESH, ETAG], None, at(0));
    assert!(fill.finish(at(0)));
    let facts = RequestFacts::read("GET", &[]);
    let Lookup::Hit(hit) = site.lookup(&[], at(59)) else { panic!("fresh") };
    assert!(hit.early.is_some());
    let refresh = || site.renew(&facts, Arc::clone(&hit.entry), at(59));
    let mut fill = refresh().expect("nobody else does");
    assert!(refresh().is_none(), "one at a time");
    let _ = fill.on_head(429, &[], Some(0), at(59));
    drop(fill);
    assert!(matches!(site.lookup(&[], at(59)), Lookup::Hit(_)));
    assert!(refresh().is_none());
}
