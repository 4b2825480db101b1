//! Where requests of different kinds, failures and purges meet on one key.

use super::*;

const USER: [Field<'_>; 1] = [(b"Cookie", b"sid=1")];
const SWR: Field<'_> = (b"Cache-Control", b"max-age=60, stale-while-revalidate=60, stale-if-error=600");

impl Site {
    fn refresh(&self, now: Timestamp) -> Option<Fill> {
        let Lookup::Stale { hit, refresh: true } = self.lookup(&[], now) else { panic!("not stale") };
        self.renew(&RequestFacts::read("GET", &[]), hit.entry, now)
    }

    fn text(head: &Bytes) -> &str {
        std::str::from_utf8(head).expect("text")
    }
}

#[test]
fn a_user_s_request_leaves_what_an_override_stored_for_everybody_alone() {
    let (ttl, stale_while_revalidate) = (Duration::from_secs(30), Duration::from_secs(600));
    let rule = Rule::Override(Override { ttl: Some(ttl), stale_while_revalidate, ..Override::default() });
    let site = Site::new(small(), rule);
    let validated: [Field<'_>; 2] = [(b"Cache-Control", b"public, max-age=0"), ETAG];
    assert!(site.fill(&[], &validated, b"everybody's", NOW));
    // The origin's word makes a user's answer one to be validated each time, or none to be stored at all.
    assert!(site.fill(&USER, &validated, b"a user's", at(31)));
    assert!(matches!(site.lookup(&USER, at(31)), Lookup::Revalidate { .. }));
    let (mut fill, _lead) = site.lead(&USER, at(32));
    assert_eq!(fill.on_head(304, &[ETAG], None, at(32)), HeadOutcome::NotModified);
    let (mut fill, _lead) = site.lead(&USER, at(33));
    assert!(matches!(fill.on_head(200, &[], None, at(33)), HeadOutcome::Stream(_)));
    let Lookup::Stale { hit, refresh: true } = site.lookup(&[], at(34)) else { panic!("not everybody's") };
    assert_eq!(hit.entry.body, "everybody's");
    site.purge(false);
    for request in [&[][..], &USER] {
        assert!(matches!(site.lookup(request, at(34)), Lookup::Miss(_)), "one purge reaches both");
    }
}

#[test]
fn fields_meant_for_the_lead_reach_it_and_nobody_else() {
    let site = Site::respect();
    let qualified = b"max-age=60, public, no-cache=\"Set-Cookie\", private=\"X-User\"";
    let response: [Field<'_>; 4] =
        [(b"Cache-Control", qualified), ETAG, (b"Set-Cookie", b"sid=1"), (b"X-User", b"ann")];
    let (mut fill, mut lead) = site.lead(&[], NOW);
    let mut other = site.follow(&[], NOW);
    assert_eq!(fill.on_head(200, &response, None, NOW), HeadOutcome::Store);
    fill.push(Bytes::from_static(b"x"));
    assert!(fill.finish(NOW));
    let Some(Event::Head(head)) = next(&mut lead) else { panic!("no head") };
    let text = Site::text(&head.head);
    assert!(text.contains("Set-Cookie: sid=1\r\n") && text.contains("X-User: ann\r\n"), "{text}");
    let Some(Event::Head(head)) = next(&mut other) else { panic!("no head") };
    assert!(!Site::text(&head.head).contains("sid=1") && !Site::text(&head.head).contains("ann"));
    let Lookup::Hit(hit) = site.lookup(&[], NOW) else { panic!("no hit") };
    assert!(!Site::text(&hit.entry.head).contains("sid=1") && !Site::text(&hit.entry.head).contains("ann"));
    // A 304 brings fields of the lead's own, too.
    let (mut fill, mut lead) = site.lead(&[], at(70));
    let mut other = site.follow(&[], at(70));
    assert_eq!(fill.on_head(304, &response, None, at(70)), HeadOutcome::NotModified);
    let Some(Event::Entry(entry)) = next(&mut lead) else { panic!("no entry") };
    assert!(Site::text(&entry.head).contains("Set-Cookie: sid=1\r\n") && entry.body == "x");
    let Some(Event::Entry(entry)) = next(&mut other) else { panic!("no entry") };
    assert!(!Site::text(&entry.head).contains("sid=1"));
    let Lookup::Hit(hit) = site.lookup(&[], at(70)) else { panic!("no hit") };
    assert!(!Site::text(&hit.entry.head).contains("sid=1"));
}

#[test]
fn a_failed_refresh_is_not_repeated_at_once() {
    type Failing = (&'static str, fn(Fill));
    let cases: [Failing; 4] = [
        ("503", |mut fill| assert!(matches!(fill.on_head(503, &[], None, at(70)), HeadOutcome::Stream(_)))),
        ("501", |mut fill| assert!(matches!(fill.on_head(501, &[], None, at(70)), HeadOutcome::Stream(_)))),
        ("refused", |fill| fill.fail(FailReason::Refused, at(70))),
        ("cut", |mut fill| {
            assert_eq!(fill.on_head(200, &[SWR], Some(9), at(70)), HeadOutcome::Store);
            fill.fail(FailReason::Truncated, at(70));
        }),
    ];
    for (case, fails) in cases {
        let site = Site::respect();
        site.fill(&[], &[SWR], b"old", NOW);
        fails(site.refresh(at(70)).expect("none runs"));
        assert!(site.refresh(at(71)).is_none(), "{case}");
        let mut again = site.refresh(at(72)).expect("two seconds later");
        assert_eq!(again.on_head(200, &[SWR], None, at(72)), HeadOutcome::Store, "{case}");
        assert!(again.finish(at(72)));
        assert!(site.refresh(at(140)).is_some(), "{case}: forgotten by success");
    }
    for reason in [FailReason::Abandoned, FailReason::Local] {
        let site = Site::respect();
        site.fill(&[], &[SWR], b"old", NOW);
        site.refresh(at(70)).expect("none runs").fail(reason, at(70));
        assert!(site.refresh(at(70)).is_some(), "{reason:?}: the origin did nothing wrong");
    }
}

#[test]
fn while_the_origin_fails_a_stale_copy_is_served_without_waiting_for_the_next_failure() {
    let site = Site::respect();
    site.fill(&[], &[SWR], b"old", NOW);
    let (fill, mut lead) = site.lead(&[], at(200));
    fill.fail(FailReason::Timeout, at(230));
    assert!(matches!(next(&mut lead), Some(Event::Stale(_))));
    let Lookup::Stale { hit, refresh: true } = site.lookup(&[], at(231)) else { panic!("it would wait") };
    assert_eq!((hit.age_s, hit.ttl_s, hit.instead_of_error), (231, -171, true));
    assert_eq!(site.cache.stats().stale_if_error, 2);
    let no_cache: [Field<'_>; 1] = [(b"Cache-Control", b"no-cache")];
    assert!(matches!(site.lookup(&no_cache, at(231)), Lookup::Revalidate { requested: true, .. }));
    // The next attempt runs behind the answers, however long it takes to fail.
    let hanging = site.refresh(at(233)).expect("none runs");
    assert!(matches!(site.lookup(&[], at(290)), Lookup::Stale { .. }));
    hanging.fail(FailReason::Timeout, at(293));
    assert!(matches!(site.lookup(&[], at(350)), Lookup::Stale { .. }));
    assert!(matches!(site.lookup(&[], at(661)), Lookup::Revalidate { .. }), "beyond what the origin allowed");
    let mut well = site.refresh(at(360)).expect("none runs");
    assert_eq!(well.on_head(304, &[SWR], None, at(360)), HeadOutcome::NotModified);
    assert!(site.hit(&[], at(361)).is_some());
    assert!(
        matches!(site.lookup(&[], at(500)), Lookup::Revalidate { serve_if_error: true, .. }),
        "it is well"
    );
}

#[test]
fn without_stale_if_error_a_failing_origin_is_asked_each_time() {
    let site = Site::respect();
    site.fill(&[], &[FRESH], b"old", NOW);
    let (fill, _lead) = site.lead(&[], at(70));
    fill.fail(FailReason::Timeout, at(70));
    assert!(matches!(site.lookup(&[], at(70)), Lookup::Revalidate { serve_if_error: false, .. }));
}

#[test]
fn a_late_304_brings_no_old_body_back_over_a_newer_one() {
    let site = Site::respect();
    site.fill(&[], &[FRESH, ETAG], b"old", NOW);
    let (mut late, mut asked_late) = site.lead(&[], at(70));
    // A request with credentials does not follow it, and what it is told may be for all.
    let (mut fill, _lead) = site.lead(&[(b"Authorization", b"x")], at(71));
    let public: [Field<'_>; 1] = [(b"Cache-Control", b"public, max-age=60")];
    assert_eq!(fill.on_head(200, &public, None, at(71)), HeadOutcome::Store);
    fill.push(Bytes::from_static(b"new"));
    assert!(fill.finish(at(71)));
    assert_eq!(late.on_head(304, &[FRESH, ETAG], None, at(72)), HeadOutcome::NotModified);
    assert!(matches!(next(&mut asked_late), Some(Event::Entry(entry)) if entry.body == "old"));
    assert_eq!(site.hit(&[], at(73)), Some(Bytes::from_static(b"new")));
    assert_eq!(site.cache.stats().revalidated, 0);
}

#[test]
fn what_was_purged_since_it_was_looked_at_is_neither_validated_nor_stands_in() {
    let site = Site::respect();
    site.fill(&[], &[SWR, ETAG], b"old", NOW);
    let Lookup::Stale { hit, .. } = site.lookup(&[], at(70)) else { panic!("not stale") };
    let found = site.lookup(&[], at(200));
    assert!(matches!(&found, Lookup::Revalidate { serve_if_error: true, .. }));
    assert!(site.cache.may_stand_in(&hit.entry));
    site.purge(true);
    assert!(site.cache.may_stand_in(&hit.entry), "a soft purge leaves that");
    site.purge(false);
    assert!(!site.cache.may_stand_in(&hit.entry));
    let facts = RequestFacts::read("GET", &[]);
    let refresh = site.renew(&facts, Arc::clone(&hit.entry), at(70));
    assert!(refresh.is_none());
    let Join::Lead(mut fill, mut lead) = site.join_after(found, &[], at(200)) else { panic!("not led") };
    assert!(fill.revalidating().is_none());
    assert!(matches!(fill.on_head(503, &[], None, at(200)), HeadOutcome::Stream(_)));
    assert!(matches!(next(&mut lead), Some(Event::Head(head)) if head.status == 503));
}

#[test]
fn a_refresh_that_outgrows_the_cache_drops_what_it_replaces() {
    let site = Site::respect();
    site.fill(&[], &[SWR], b"old", NOW);
    let mut fill = site.refresh(at(70)).expect("none runs");
    assert_eq!(fill.on_head(200, &[SWR], None, at(70)), HeadOutcome::Store);
    fill.push(Bytes::from(vec![1; (1 << 20) + 1]));
    assert!(is_abandoned(&mut fill));
    assert!(matches!(site.lookup(&[], at(70)), Lookup::Miss(MissReason::Uri)));
}

#[test]
fn a_body_that_came_in_one_piece_is_stored_without_a_copy() {
    let site = Site::respect();
    let piece = Bytes::from(vec![7; 8 << 10]);
    let (mut fill, _lead) = site.lead(&[], NOW);
    assert_eq!(fill.on_head(200, &[FRESH], None, NOW), HeadOutcome::Store);
    fill.push(piece.clone());
    assert!(fill.finish(NOW));
    let stored = site.hit(&[], NOW).expect("stored");
    assert!(stored == piece && stored.as_ptr() == piece.as_ptr());
    assert_eq!(site.cache.stats().fill_bytes, 0);
}

#[test]
fn a_configuration_is_checked_without_building_a_cache() {
    assert_eq!(Config::default().validate(), Ok(()));
    let object_too_large = Config { memory_bytes: 8 << 20, object_bytes_max: 8 << 20, ..small() };
    assert!(matches!(object_too_large.validate(), Err(Error::ObjectTooLarge { .. })));
    assert_eq!(
        Config { variants_max: 0, ..small() }.validate(),
        Err(Error::Zero { path: "cache.variants_max" })
    );
}

#[test]
fn an_error_that_only_the_route_gives_a_lifetime_replaces_no_copy_that_still_serves() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let rule = Rule::Override(Override {
        ttl: seconds(10),
        negative_ttl: seconds(5),
        stale_while_revalidate: Duration::from_secs(60),
        ..Override::default()
    });
    let site = Site::new(small(), rule);
    site.fill(&[], &[], b"good", NOW);
    let Lookup::Stale { hit, refresh: true } = site.lookup(&[], at(20)) else { panic!("it is stale") };
    let facts = RequestFacts::read("GET", &[]);
    let mut refresh = site.renew(&facts, hit.entry, at(20)).expect("none runs");
    assert_eq!(refresh.on_head(503, &[], None, at(20)), HeadOutcome::Stream(Uncacheable::Status));
    drop(refresh);
    assert!(matches!(site.lookup(&[], at(21)), Lookup::Stale { hit, .. } if hit.entry.body == "good"));
    // Where nothing serves any more, the error is kept for its while.
    let (mut fill, _lead) = site.lead(&[], at(200));
    assert_eq!(fill.on_head(503, &[], None, at(200)), HeadOutcome::Store);
    assert!(fill.finish(at(200)));
    assert!(matches!(site.lookup(&[], at(201)), Lookup::Hit(hit) if hit.entry.status == 503));
}
