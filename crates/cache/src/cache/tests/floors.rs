//! Clients that have to see what they did.

use super::*;
use crate::Floor;

/// A write at this position that is settled after ten seconds.
fn floor(lsn: u64) -> Floor {
    Floor { history: 7, lsn, until: Timestamp(0), settled: at(10) }
}

impl Site {
    fn look(&self, floor: Floor, now: Timestamp) -> Lookup {
        let facts = RequestFacts::read("GET", &[]).needing(floor);
        self.cache.lookup(&self.key, &facts, &self.rule, now)
    }

    fn join_for(&self, floor: Floor, now: Timestamp) -> Join {
        let facts = RequestFacts::read("GET", &[]).needing(floor);
        self.cache.join(&self.key, &facts, &self.rule, None, 0, now)
    }

    fn lead_for(&self, floor: Floor, now: Timestamp) -> (Fill, Follower) {
        match self.join_for(floor, now) {
            Join::Lead(fill, follower) => (fill, follower),
            other => panic!("not led: {other:?}"),
        }
    }

    fn fill_for(&self, floor: Floor, body: &'static [u8], now: Timestamp) -> bool {
        let (fill, _lead) = self.lead_for(floor, now);
        answer(fill, body, now)
    }

    fn seen(&self, floor: Floor, now: Timestamp) -> Option<Bytes> {
        match self.look(floor, now) {
            Lookup::Hit(hit) => hit.entry.body.read().ok(),
            Lookup::Miss(MissReason::OwnWrite | MissReason::Uri) => None,
            other => panic!("{other:?}"),
        }
    }
}

fn answer(mut fill: Fill, body: &'static [u8], now: Timestamp) -> bool {
    assert_eq!(fill.on_head(200, &[FRESH], None, now), HeadOutcome::Store);
    fill.push(Bytes::from_static(body));
    fill.finish(now)
}

#[test]
fn who_wrote_gets_nothing_older_and_the_others_are_served_as_ever() {
    let site = Site::respect();
    assert!(site.fill_for(Floor::NONE, b"old", at(0)));
    assert!(matches!(site.look(floor(5), at(1)), Lookup::Miss(MissReason::OwnWrite)));
    assert_eq!(site.seen(Floor::NONE, at(1)).as_deref(), Some(&b"old"[..]));
    assert!(site.fill_for(floor(5), b"new", at(2)));
    for met in [Floor::NONE, floor(4), floor(5)] {
        assert_eq!(site.seen(met, at(3)).as_deref(), Some(&b"new"[..]), "{met:?}");
    }
    for beyond in [floor(6), Floor { history: 8, ..floor(1) }, Floor { until: at(5), ..floor(5) }] {
        assert_eq!(site.seen(beyond, at(3)), None, "{beyond:?}");
    }
}

#[test]
fn what_was_asked_for_long_after_a_write_will_do() {
    let site = Site::respect();
    assert!(site.fill_for(Floor::NONE, b"late", at(10)));
    assert_eq!(site.seen(floor(5), at(11)).as_deref(), Some(&b"late"[..]));
}

#[test]
fn such_misses_share_a_fetch_where_one_shows_enough() {
    let site = Site::respect();
    let (plain, _plain_lead) = site.lead_for(Floor::NONE, at(0));
    let (five, _five_lead) = site.lead_for(floor(5), at(0));
    assert!(matches!(site.join_for(floor(5), at(0)), Join::Follow(_)));
    assert!(matches!(site.join_for(floor(3), at(0)), Join::Follow(_)));
    assert!(matches!(site.join_for(Floor::NONE, at(0)), Join::Follow(_)));
    let (six, _six_lead) = site.lead_for(floor(6), at(1));
    assert!(answer(six, b"six", at(1)));
    // Whoever is later with less leaves what is there.
    assert!(!answer(five, b"five", at(2)) && !answer(plain, b"plain", at(2)));
    assert_eq!(site.seen(Floor::NONE, at(2)).as_deref(), Some(&b"six"[..]));
    assert!(matches!(site.join_for(floor(6), at(2)), Join::Stored(_)));
    assert!(matches!(site.join_for(floor(7), at(2)), Join::Lead(..)));
}

#[test]
fn what_was_asked_for_later_replaces_it_whatever_it_shows() {
    let site = Site::respect();
    assert!(site.fill_for(floor(5), b"new", at(0)));
    site.purge(true);
    let Lookup::Revalidate { entry, .. } = site.look(Floor::NONE, at(1)) else { panic!("not softened") };
    let facts = RequestFacts::read("GET", &[]);
    let Join::Lead(fill, _lead) = site.cache.join(&site.key, &facts, &site.rule, Some(entry), 0, at(1))
    else {
        panic!("not led")
    };
    assert!(answer(fill, b"newer", at(1)));
    assert_eq!(site.seen(Floor::NONE, at(2)).as_deref(), Some(&b"newer"[..]));
    assert_eq!(site.seen(floor(5), at(2)), None);
}

#[test]
fn what_still_holds_by_the_origins_word_shows_what_was_asked_for() {
    let site = Site::respect();
    let (mut fill, _lead) = site.lead_for(Floor::NONE, at(0));
    assert_eq!(fill.on_head(200, &[FRESH, ETAG], None, at(0)), HeadOutcome::Store);
    fill.push(Bytes::from_static(b"same"));
    assert!(fill.finish(at(0)));
    let (mut fill, mut lead) = site.lead_for(floor(5), at(1));
    let mut asked = Vec::new();
    fill.write_conditional(&mut asked);
    assert_eq!(asked, b"if-none-match: \"a\"\r\n");
    assert_eq!(fill.on_head(304, &[FRESH, ETAG], None, at(1)), HeadOutcome::NotModified);
    assert!(matches!(next(&mut lead), Some(Event::Entry(_))));
    assert_eq!(site.seen(floor(5), at(2)).as_deref(), Some(&b"same"[..]));
}

#[test]
fn nothing_too_old_stands_in_for_an_error() {
    let site = Site::respect();
    let (mut fill, _lead) = site.lead_for(Floor::NONE, at(0));
    assert_eq!(fill.on_head(200, &[STALE_OK, ETAG], None, at(0)), HeadOutcome::Store);
    assert!(fill.finish(at(0)));
    let (fill, mut lead) = site.lead_for(floor(5), at(1));
    fill.fail(FailReason::Timeout, at(1));
    assert!(matches!(next(&mut lead), Some(Event::Failed(FailReason::Timeout))));
}
