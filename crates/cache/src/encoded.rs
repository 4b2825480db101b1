//! The codings that a stored response was given, and which of them answers a request.
//!
//! **Intuition.** An entry and its compressed forms are one response: they are fresh together, purged together, renewed
//! together. So the forms hang on the entry, as ready to be written as the entry itself.
//!
//! **Mechanism.** [`Entry::represent`] picks what a request gets: a form that is there, else the body as it came, and says
//! which form would have been better, to be made off the request's path ([`crate::Encoder`]). A form's head is the
//! entry's with `Content-Encoding` and `Vary`, a weak `ETag` (RFC 9110 §8.8.1: what is compressed here is the same to a
//! reader, not to the byte), and without what speaks of the bytes: ranges are answered from the body as it came, by its
//! strong tag.
//!
//! **Failure.** An entry whose form can't be made, or saves too little, or doesn't fit, is served as it came and not
//! asked about again.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::body::Body;
use crate::entry::Entry;
use crate::policy::encoding::Accepted;
use crate::policy::range::{RangePlan, plan_range};
use crate::policy::{Coding, Compress, RequestFacts, Validators, freshen};
use crate::rule::Rule;

/// A stored response in one coding.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(crate) coding: Coding,
    head: Bytes,
    body: Body,
    etag: Option<Bytes>,
}

/// What a request gets of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Representation<'e> {
    /// As [`Entry::head`].
    pub head: &'e Bytes,
    /// The whole body, or what of it is stored.
    pub body: &'e Body,
    /// `None`: as it came.
    pub coding: Option<Coding>,
    /// `Vary: Accept-Encoding` has to be written behind the head.
    pub adds_vary: bool,
    /// What would be better and is not there: [`Cache::want_for`](crate::Cache::want_for).
    pub wanted: Option<Coding>,
    /// What it can be asked for by.
    pub validators: Validators<'e>,
}

/// What the allocator and `Bytes` add to the head, the body and the tag.
const ENCODED_OVERHEAD_BYTES: usize = 3 * (16 + 32);

impl Encoded {
    /// Of an entry with this head.
    pub(crate) fn new(head: &[u8], names_encoding: bool, coding: Coding, body: Body) -> Self {
        let stored_fields = freshen::read_head(head);
        let mut out = Vec::with_capacity(head.len() + 64);
        let mut etag = None;
        for (name, value) in stored_fields {
            if speaks_of_bytes(name) {
                continue;
            }
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            if name.eq_ignore_ascii_case(b"etag") {
                let weak: &[u8] = if value.starts_with(b"W/") { b"" } else { b"W/" };
                out.extend_from_slice(weak);
                etag = Some(Bytes::from([weak, value].concat()));
            }
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"Content-Encoding: ");
        out.extend_from_slice(coding.as_str().as_bytes());
        out.extend_from_slice(b"\r\n");
        if !names_encoding {
            out.extend_from_slice(VARY_LINE);
        }
        Self { coding, head: out.into_boxed_slice().into(), body, etag }
    }

    fn weight(&self) -> u64 {
        let etag = self.etag.as_ref().map_or(0, Bytes::len);
        let heap = self.head.len() + self.body.len() + etag;
        (size_of::<Self>() + ENCODED_OVERHEAD_BYTES + heap) as u64
    }
}

/// The line that a response needs that differs by what a request accepts.
pub const VARY_LINE: &[u8] = b"Vary: Accept-Encoding\r\n";

/// Fields that are about the bytes as they were: digests of them, and that parts of them can be had.
fn speaks_of_bytes(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 6] =
        [b"accept-ranges", b"content-encoding", b"content-md5", b"content-digest", b"repr-digest", b"digest"];
    NAMES.iter().any(|other| name.eq_ignore_ascii_case(other))
}

impl Entry {
    /// What a request gets of this response under a rule.
    #[must_use]
    pub fn represent(&self, facts: &RequestFacts<'_>, rule: &Rule) -> Representation<'_> {
        let as_it_came = Representation {
            head: &self.head,
            body: &self.body,
            coding: None,
            adds_vary: false,
            wanted: None,
            validators: self.validators(),
        };
        let length = self.body.len() as u64;
        let compress =
            rule.compress().filter(|rule| self.part.is_none() && rule.covers(self.transform, Some(length)));
        let Some(compress) = compress else { return as_it_came };
        let as_it_came = Representation { adds_vary: !self.transform.names_encoding, ..as_it_came };
        self.negotiate(facts, compress, as_it_came)
    }

    fn negotiate<'e>(
        &'e self,
        facts: &RequestFacts<'_>,
        compress: &Compress,
        as_it_came: Representation<'e>,
    ) -> Representation<'e> {
        if facts.directives.no_transform {
            return as_it_came;
        }
        let Some(accepted) = Accepted::read(facts.fields) else { return as_it_came };
        // A range of what was compressed here would be one of bytes that nobody can name by a strong tag.
        if accepted.takes_identity() && facts.range.is_some() {
            let plan = plan_range(facts, self.status, &as_it_came.validators, self.body.len() as u64);
            if plan != RangePlan::Full {
                return as_it_came;
            }
        }
        let Some(best) = accepted.best(compress.codings.iter().copied()) else { return as_it_came };
        let is_there = |coding: &Coding| self.has_encoding(*coding);
        let wanted = (!is_there(&best) && !self.has_begun(best)).then_some(best);
        let ready = accepted.best(compress.codings.iter().copied().filter(is_there));
        let Some(encoded) = self.encoded.iter().find(|encoded| Some(encoded.coding) == ready) else {
            return Representation { wanted, ..as_it_came };
        };
        let validators = Validators { etag: encoded.etag.as_deref(), ..as_it_came.validators };
        let (head, body, coding) = (&encoded.head, &encoded.body, Some(encoded.coding));
        Representation { head, body, coding, adds_vary: false, wanted, validators }
    }

    /// The codings that are there, with the length of each body.
    pub(crate) fn encodings(&self) -> impl Iterator<Item = (Coding, u64)> {
        self.encoded.iter().map(|encoded| (encoded.coding, encoded.body.len() as u64))
    }

    fn has_begun(&self, coding: Coding) -> bool {
        self.encoding_begun.load(Ordering::Relaxed) & coding.bit() != 0
    }

    /// Says that a coding is being made; false if somebody has said so before.
    pub(crate) fn begin_encoding(&self, coding: Coding) -> bool {
        self.encoding_begun.fetch_or(coding.bit(), Ordering::Relaxed) & coding.bit() == 0
    }

    /// It was not made after all, and may be asked for again.
    pub(crate) fn abandon_encoding(&self, coding: Coding) {
        self.encoding_begun.fetch_and(!coding.bit(), Ordering::Relaxed);
    }

    /// It can't be made, or is not worth it, as long as the body stays.
    pub(crate) fn refuse_encoding(&self, coding: Coding) {
        self.encoding_refused.fetch_or(coding.bit(), Ordering::Relaxed);
    }

    /// Whether a coding is there.
    pub(crate) fn has_encoding(&self, coding: Coding) -> bool {
        self.encoded.iter().any(|encoded| encoded.coding == coding)
    }

    /// The same response with one coding more.
    pub(crate) fn with_encoding(&self, coding: Coding, body: Bytes) -> Self {
        let encoded = Encoded::new(&self.head, self.transform.names_encoding, coding, body.into());
        let others = self.encoded.iter().filter(|other| other.coding != coding).cloned();
        let mut entry = self.clone_as_is();
        entry.set_encoded(others.chain([encoded]).collect());
        entry
    }

    /// With the codings of an older form of the same body, under this one's head.
    pub(crate) fn with_encodings_of(mut self, old: &Self) -> Self {
        if self.transform.is_allowed && !old.encoded.is_empty() {
            let again = |encoded: &Encoded| {
                Encoded::new(&self.head, self.transform.names_encoding, encoded.coding, encoded.body.clone())
            };
            let encoded = old.encoded.iter().map(again).collect();
            self.set_encoded(encoded);
        }
        // Not of codings that are on their way: what is being made is for the older form, and may come to nothing.
        let refused = old.encoding_refused.load(Ordering::Relaxed);
        let made = self.encoded.iter().fold(0, |bits, encoded| bits | encoded.coding.bit());
        self.encoding_refused.store(refused, Ordering::Relaxed);
        self.encoding_begun.store(made | refused, Ordering::Relaxed);
        self
    }

    fn set_encoded(&mut self, encoded: Box<[Encoded]>) {
        let weigh = |encoded: &[Encoded]| encoded.iter().map(Encoded::weight).sum::<u64>();
        self.weight = self.weight - weigh(&self.encoded) + weigh(&encoded);
        self.encoded = encoded;
    }

    /// Whether another is this very response, perhaps with other codings.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        // Heads are never empty, and clones of one share it.
        self.head.as_ptr() == other.head.as_ptr() && self.head.len() == other.head.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cache::tests::{Site, at, small};
    use crate::{Field, Lookup, Override};

    const BODY: &[u8] = &[b'a'; 4096];
    const JSON: [Field<'_>; 4] = [
        (b"Cache-Control", b"max-age=60"),
        (b"Content-Type", b"application/json"),
        (b"ETag", b"\"a\""),
        (b"Accept-Ranges", b"bytes"),
    ];
    const GZIP: Field<'_> = (b"Accept-Encoding", b"gzip");
    const ANY: Field<'_> = (b"Accept-Encoding", b"gzip, br, zstd");

    fn site() -> Site {
        let compress = Some(Compress::default());
        Site::new(small(), Rule::Override(Override { compress, ..Override::default() }))
    }

    fn entry(site: &Site, request: &[Field<'_>], second: u64) -> Arc<Entry> {
        match site.lookup(request, at(second)) {
            Lookup::Hit(hit) => hit.entry,
            other => panic!("no hit: {other:?}"),
        }
    }

    fn make(site: &Site, request: &[Field<'_>], second: u64) -> Option<Coding> {
        let entry = entry(site, request, second);
        let wanted = entry.represent(&RequestFacts::read("GET", request), &site.rule).wanted?;
        site.cache.want(site.key(request).as_bytes(), &entry, wanted);
        site.cache.encode_waiting();
        Some(wanted)
    }

    fn head_of<'e>(entry: &'e Entry, request: &[Field<'_>], rule: &Rule) -> (Option<Coding>, &'e str) {
        let shown = entry.represent(&RequestFacts::read("GET", request), rule);
        (shown.coding, std::str::from_utf8(shown.head).unwrap())
    }

    #[test]
    fn a_coding_is_made_once_and_then_served_to_who_accepts_it() {
        let site = site();
        assert!(site.fill(&[], &JSON, BODY, at(0)));
        assert_eq!(make(&site, &[GZIP], 1), Some(Coding::Gzip));
        assert_eq!(make(&site, &[GZIP], 1), None, "once");
        let stored = entry(&site, &[GZIP], 1);
        let (coding, head) = head_of(&stored, &[GZIP], &site.rule);
        assert_eq!(coding, Some(Coding::Gzip));
        assert!(head.contains("Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n"), "{head}");
        assert!(head.contains("ETag: W/\"a\"\r\n") && !head.contains("Accept-Ranges"), "{head}");
        let (coding, head) = head_of(&stored, &[], &site.rule);
        assert!(coding.is_none() && head.contains("ETag: \"a\"\r\n") && head.contains("Accept-Ranges"));
        assert!(stored.represent(&RequestFacts::read("GET", &[]), &site.rule).adds_vary);
        let unpacked = crate::encode::tests::decode(
            Coding::Gzip,
            &stored.represent(&RequestFacts::read("GET", &[GZIP]), &site.rule).body.read().unwrap(),
        );
        assert_eq!(unpacked, BODY);
    }

    #[test]
    fn until_the_best_coding_is_there_the_next_best_answers() {
        let site = site();
        assert!(site.fill(&[], &JSON, BODY, at(0)));
        assert_eq!(make(&site, &[GZIP], 1), Some(Coding::Gzip));
        let stored = entry(&site, &[ANY], 1);
        let shown = stored.represent(&RequestFacts::read("GET", &[ANY]), &site.rule);
        assert_eq!((shown.coding, shown.wanted), (Some(Coding::Gzip), Some(Coding::Brotli)));
        assert_eq!(make(&site, &[ANY], 1), Some(Coding::Brotli));
        let stored = entry(&site, &[ANY], 1);
        assert_eq!(head_of(&stored, &[ANY], &site.rule).0, Some(Coding::Brotli));
        assert_eq!(head_of(&stored, &[GZIP], &site.rule).0, Some(Coding::Gzip), "beside it");
    }

    #[test]
    fn what_it_weighs_is_counted_to_the_byte() {
        let site = site();
        assert!(site.fill(&[], &JSON, BODY, at(0)));
        let (before, plain) = (site.cache.stats().bytes, entry(&site, &[], 1).weight());
        make(&site, &[GZIP], 1);
        make(&site, &[ANY], 1);
        let stored = entry(&site, &[], 1);
        let grown: u64 = stored.encoded.iter().map(Encoded::weight).sum();
        assert_eq!(stored.weight(), plain + grown);
        assert_eq!(site.cache.stats().bytes, before + grown);
    }

    #[test]
    fn a_range_is_one_of_the_body_as_it_came() {
        let site = site();
        assert!(site.fill(&[], &JSON, BODY, at(0)));
        make(&site, &[GZIP], 1);
        let stored = entry(&site, &[], 1);
        let check = |more: &[Field<'_>], expected: Option<Coding>| {
            let request = [&[GZIP], more].concat();
            assert_eq!(head_of(&stored, &request, &site.rule).0, expected, "{more:?}");
        };
        check(&[(b"Range", b"bytes=0-9")], None);
        check(&[(b"Range", b"bytes=0-9"), (b"If-Range", b"\"a\"")], None);
        // The tag of the compressed form is weak, so who has a part of that gets all of it anew. RFC 9110 §13.1.5.
        check(&[(b"Range", b"bytes=0-9"), (b"If-Range", b"W/\"a\"")], Some(Coding::Gzip));
        check(&[(b"Range", b"bytes=9-0")], Some(Coding::Gzip));
        let refuses: [Field<'_>; 2] = [(b"Accept-Encoding", b"gzip, identity;q=0"), (b"Range", b"bytes=0-9")];
        assert_eq!(head_of(&stored, &refuses, &site.rule).0, Some(Coding::Gzip));
    }

    #[test]
    fn a_request_that_forbids_it_gets_it_as_it_came() {
        let site = site();
        assert!(site.fill(&[], &JSON, BODY, at(0)));
        make(&site, &[GZIP], 1);
        let request: [Field<'_>; 2] = [GZIP, (b"Cache-Control", b"no-transform")]; // RFC 9111 §5.2.1.6
        assert_eq!(head_of(&entry(&site, &request, 1), &request, &site.rule).0, None);
    }

    #[test]
    fn a_304_keeps_the_codings_under_the_new_head() {
        let site = site();
        assert!(site.fill(&[], &JSON, BODY, at(0)));
        make(&site, &[GZIP], 1);
        let (mut fill, _lead) = site.lead(&[], at(70));
        let fresh: [Field<'_>; 2] = [(b"Cache-Control", b"max-age=99"), (b"ETag", b"\"a\"")];
        assert_eq!(fill.on_head(304, &fresh, None, at(70)), crate::HeadOutcome::NotModified);
        let stored = entry(&site, &[GZIP], 71);
        let (coding, head) = head_of(&stored, &[GZIP], &site.rule);
        assert!(coding.is_some() && head.contains("max-age=99"), "{head}");
    }

    #[test]
    fn an_origin_s_vary_by_encoding_makes_no_variants_where_we_compress() {
        let site = site();
        let varies = [&JSON[..], &[(b"Vary", b"Accept-Encoding")]].concat();
        assert!(site.fill(&[GZIP], &varies, BODY, at(0)));
        let stored = entry(&site, &[], 1);
        let shown = stored.represent(&RequestFacts::read("GET", &[]), &site.rule);
        assert!(!shown.adds_vary, "it says so itself");
        // What the origin encoded is for those who asked so.
        let site = self::site();
        let encoded = [&varies[..], &[(b"Content-Encoding", b"gzip")]].concat();
        assert!(site.fill(&[GZIP], &encoded, BODY, at(0)));
        assert!(matches!(site.lookup(&[], at(1)), Lookup::Miss(_)));
    }

    #[test]
    fn an_entry_that_was_purged_or_replaced_meanwhile_is_not_brought_back() {
        let site = site();
        assert!(site.fill(&[], &JSON, BODY, at(0)));
        let old = entry(&site, &[], 1);
        site.cache.want(site.key.as_bytes(), &old, Coding::Gzip);
        site.purge(false);
        assert!(site.fill(&[], &JSON, &[b'b'; 4096], at(2)));
        site.cache.encode_waiting();
        assert_eq!(entry(&site, &[], 3).encodings().count(), 0);
    }

    #[test]
    fn a_coding_that_was_on_its_way_when_a_304_came_is_made_after_all() {
        let site = site();
        let revalidate = |second| {
            let (mut fill, _lead) = site.lead(&[], at(second));
            let fresh: [Field<'_>; 2] = [(b"Cache-Control", b"max-age=60"), (b"ETag", b"\"a\"")];
            assert_eq!(fill.on_head(304, &fresh, None, at(second)), crate::HeadOutcome::NotModified);
        };
        assert!(site.fill(&[], &JSON, BODY, at(0)));
        let wanted = |second| {
            let entry = entry(&site, &[GZIP], second);
            entry.represent(&RequestFacts::read("GET", &[GZIP]), &site.rule).wanted
        };
        // The list is long, and the entry is another when its turn comes.
        site.cache.want(site.key.as_bytes(), &entry(&site, &[], 1), Coding::Gzip);
        assert_eq!(wanted(1), None, "it is on its way");
        revalidate(70);
        site.cache.encode_waiting();
        assert_eq!(entry(&site, &[], 71).encodings().count(), 1, "of the same body");
        revalidate(140);
        assert_eq!(wanted(141), None, "it is there");
    }

    #[test]
    fn two_codings_wanted_at_once_are_both_made() {
        let site = site();
        assert!(site.fill(&[], &JSON, BODY, at(0)));
        let stored = entry(&site, &[], 1);
        for coding in [Coding::Gzip, Coding::Brotli, Coding::Zstd] {
            site.cache.want(site.key.as_bytes(), &stored, coding);
        }
        drop(stored);
        site.cache.encode_waiting();
        assert_eq!(entry(&site, &[], 2).encodings().count(), 3);
    }

    #[test]
    fn what_saves_too_little_is_not_tried_again_for_the_same_body() {
        let site = site();
        let noise: &[u8] = (0..256_u32)
            .flat_map(|n| xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes()).to_le_bytes())
            .collect::<Vec<_>>()
            .leak();
        assert!(site.fill(&[], &JSON, noise, at(0)));
        site.cache.want(site.key.as_bytes(), &entry(&site, &[], 1), Coding::Gzip);
        site.cache.encode_waiting();
        assert_eq!(site.cache.stats().encodings_refused, 1);
        let (mut fill, _lead) = site.lead(&[], at(70));
        let fresh: [Field<'_>; 2] = [(b"Cache-Control", b"max-age=60"), (b"ETag", b"\"a\"")];
        assert_eq!(fill.on_head(304, &fresh, None, at(70)), crate::HeadOutcome::NotModified);
        let stored = entry(&site, &[GZIP], 71);
        assert_eq!(stored.represent(&RequestFacts::read("GET", &[GZIP]), &site.rule).wanted, None);
    }

    #[test]
    fn nothing_changes_on_a_route_that_does_not_ask_for_it() {
        let site = Site::respect();
        assert!(site.fill(&[], &JSON, BODY, at(0)));
        let stored = entry(&site, &[ANY], 1);
        let shown = stored.represent(&RequestFacts::read("GET", &[ANY]), &site.rule);
        assert!(shown.coding.is_none() && !shown.adds_vary && shown.wanted.is_none());
    }
}
