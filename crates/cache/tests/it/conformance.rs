//! What any tier must do, run on each: what was stored is found by whoever it is for, as it was, and by nobody else; and
//! what was purged isn't.

use std::sync::Arc;
use std::time::Duration;

use tenfold_cache::tier::Settings;
use tenfold_cache::{Field, Override, Purge, Rule, TagTemplate};
use tenfold_testkit::redis::Redis as Server;
use tenfold_testkit::wait_for;

use crate::site::{Ask, PATIENCE, Site, at, finish};

const FRESH: Field<'_> = (b"Cache-Control", b"max-age=600");

/// Where it is stored, and where it is looked for.
struct Pair<'s> {
    writer: &'s Site,
    reader: &'s Site,
}

impl Pair<'_> {
    /// Stores, and waits until the tier has it.
    fn store(&self, ask: &Ask<'_>, response: &[Field<'_>], body: &[u8]) {
        let stored = || self.writer.cache.tier().map_or(0, |tier| tier.stats().stored);
        let before = stored();
        if self.writer.get(ask, at(0)).is_some() {
            return;
        }
        assert!(self.writer.store(ask, response, body, at(0)), "{}", ask.path);
        if self.writer.cache.tier().is_some() {
            wait_for("the tier has it", PATIENCE, || stored() > before);
        }
    }

    fn body(&self, ask: &Ask<'_>, seconds: u64) -> Option<Vec<u8>> {
        self.reader.get(ask, at(seconds)).map(|entry| entry.body.read().expect("it can be read").to_vec())
    }

    /// A purge that both sides know of.
    fn purge(&self, purge: &Purge<'_>, soft: bool) {
        let heard = || self.reader.cache.stats().purges;
        let before = heard();
        let (_, told) = self.writer.cache.purge_everywhere(purge, soft);
        assert_eq!(told.is_some(), self.writer.cache.tier().is_some());
        wait_for("the purge arrives", PATIENCE, || heard() > before);
    }
}

fn conforms(pair: &Pair<'_>) {
    what_is_stored_is_found_as_it_was(pair);
    variants_are_kept_apart(pair);
    what_the_key_holds_tells_responses_apart(pair);
    what_is_out_of_date_is_not_found(pair);
    purges_reach_what_they_name(pair);
    what_began_before_a_purge_does_not_come_after_it(pair);
}

fn what_is_stored_is_found_as_it_was(pair: &Pair<'_>) {
    let long: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[usize::from(n % 7 == 0)]).collect();
    for (path, body) in [("/empty", &b""[..]), ("/short", b"hello"), ("/long", &long)] {
        let fields =
            [FRESH, (b"Content-Type", b"text/plain"), (b"ETag", b"\"1\""), (b"X-Note", b"\xe4 \t b")];
        pair.store(&Ask::of(path), &fields, body);
        let found = pair.reader.get(&Ask::of(path), at(7)).expect(path);
        assert_eq!(
            (&found.body.read().expect("it can be read")[..], found.status, found.age_s(at(7))),
            (body, 200, 7),
            "{path}"
        );
        assert_eq!(found.etag(), Some(&b"\"1\""[..]));
        let head = String::from_utf8_lossy(&found.head).into_owned();
        assert!(head.contains("Content-Type: text/plain\r\n") && head.contains("X-Note: \u{fffd} \t b\r\n"));
    }
    assert_eq!(pair.body(&Ask::of("/other"), 0), None);
    assert_eq!(pair.body(&Ask::of("/short?"), 0), None);
}

fn variants_are_kept_apart(pair: &Pair<'_>) {
    let ask = |fields| Ask { fields, ..Ask::of("/varies") };
    let german: [Field<'_>; 1] = [(b"Accept-Language", b"de, en;q=0.5")];
    let spelled: [Field<'_>; 1] = [(b"accept-language", b"de,en;q=0.5")];
    let french: [Field<'_>; 1] = [(b"Accept-Language", b"fr")];
    let vary: Field<'_> = (b"Vary", b"Accept-Language");
    pair.store(&ask(&german), &[FRESH, vary], b"hallo");
    pair.store(&ask(&french), &[FRESH, vary], b"salut");
    assert_eq!(pair.body(&ask(&german), 1).as_deref(), Some(&b"hallo"[..]));
    assert_eq!(pair.body(&ask(&spelled), 1).as_deref(), Some(&b"hallo"[..]), "it means the same");
    assert_eq!(pair.body(&ask(&french), 1).as_deref(), Some(&b"salut"[..]));
    assert_eq!(pair.body(&ask(&[]), 1), None);
}

fn what_the_key_holds_tells_responses_apart(pair: &Pair<'_>) {
    let rule = Rule::Override(Override {
        ttl: Some(Duration::from_secs(60)),
        key: vec![tenfold_cache::KeyPart::Cookie("currency".into())],
        shared: true,
        ..Override::default()
    });
    let ask = |fields| Ask { fields, rule: &rule, ..Ask::of("/price") };
    let (euro, yen): ([Field<'_>; 1], [Field<'_>; 1]) =
        ([(b"Cookie", b"currency=eur")], [(b"Cookie", b"currency=jpy")]);
    pair.store(&ask(&euro), &[], b"1 EUR");
    assert_eq!(pair.body(&ask(&euro), 1).as_deref(), Some(&b"1 EUR"[..]));
    assert_eq!(pair.body(&ask(&yen), 1), None);
    assert_eq!(pair.body(&ask(&euro), 61), None, "the route's lifetime is over");
}

fn what_is_out_of_date_is_not_found(pair: &Pair<'_>) {
    pair.store(&Ask::of("/aged"), &[FRESH, (b"Age", b"590")], b"old");
    assert_eq!(pair.body(&Ask::of("/aged"), 5).as_deref(), Some(&b"old"[..]));
    assert_eq!(pair.body(&Ask::of("/aged"), 11), None);
    let fresh: [Field<'_>; 1] = [(b"Cache-Control", b"no-cache")];
    pair.store(&Ask::of("/asked"), &[FRESH], b"new");
    assert_eq!(
        pair.body(&Ask { fields: &fresh, ..Ask::of("/asked") }, 0),
        None,
        "the client wants the origin's"
    );
}

fn purges_reach_what_they_name(pair: &Pair<'_>) {
    let tag = TagTemplate::parse("product:{id}", "/shop/{id}").expect("a template");
    let rule = Rule::Override(Override { tags: Arc::new([tag]), ..Override::default() });
    let ask = |path| Ask { rule: &rule, ..Ask::of(path) };
    let url = |path| Purge::Url { authority: b"shop.example", path, query: None };
    let below = |path| Purge::Prefix { authority: b"shop.example", path };
    for (purge, path, beside) in [
        (url(b"/shop/1"), "/shop/1", "/shop/11"),
        (Purge::Tag(b"product:2"), "/shop/2", "/shop/22"),
        (Purge::Tag(b"sale"), "/shop/3", "/elsewhere"),
        (below(b"/shop/"), "/shop/4", "/shopping"),
        (below(b"/"), "/shop/5/6/7", ""),
        (Purge::All, "/shop/8", ""),
    ] {
        for soft in [false, true] {
            let tags: Field<'_> = (b"Surrogate-Key", if path == "/shop/3" { b"sale" } else { b"none" });
            for path in [path, beside].into_iter().filter(|path| !path.is_empty()) {
                pair.store(&ask(path), &[FRESH, tags], path.as_bytes());
                assert!(pair.body(&ask(path), 1).is_some(), "{path} before {purge:?}");
            }
            let tags_of_beside = path == "/shop/3";
            pair.purge(&purge, soft);
            assert_eq!(pair.body(&ask(path), 1), None, "{path} after {purge:?}");
            if !beside.is_empty() && !tags_of_beside {
                assert!(pair.body(&ask(beside), 1).is_some(), "{beside} after {purge:?}");
            }
            until_shareable(pair);
        }
    }
}

/// What was purged here at once is known by the stream's id a moment later; what is shared between is purged by that.
fn until_shareable(pair: &Pair<'_>) {
    let Some(tier) = pair.writer.cache.tier() else { return };
    wait_for("all purges came back", PATIENCE, || {
        let stats = tier.stats();
        stats.purges_waiting == 0 && stats.purges_heard >= stats.purges_published
    });
}

fn what_began_before_a_purge_does_not_come_after_it(pair: &Pair<'_>) {
    let ask = Ask::of("/began");
    let fill = pair.writer.lead(&ask, at(0));
    pair.purge(&Purge::Url { authority: b"shop.example", path: b"/began", query: None }, false);
    assert!(!finish(fill, &[FRESH], b"old", at(0)));
    assert_eq!(pair.body(&ask, 0), None);
}

#[test]
fn ram_conforms() {
    let site = Site::alone();
    conforms(&Pair { writer: &site, reader: &site });
}

#[test]
fn redis_conforms() {
    let server = Server::start(&[]).expect("a Redis");
    let writer = Site::sharing(&server.url(), Settings::default(), 1);
    let reader = Site::sharing(&server.url(), Settings::default(), 2);
    conforms(&Pair { writer: &writer, reader: &reader });
    let stats = reader.tier().stats();
    assert!(stats.hits > 10 && stats.unread == 0, "{stats:?}");
}
