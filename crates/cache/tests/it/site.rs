//! An edge's cache, and its tier, as a few words.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tenfold_cache::tier::{Answer, Settings};
use tenfold_cache::{
    Cache, Config, Entry, Field, Fill, HeadOutcome, Join, KeyBuf, KeyUrl, Lookup, Refills, Renewal,
    RequestFacts, Rule, Scheme, Tier, Timestamp,
};
use tenfold_state::{Redis, Thread};
use tenfold_testkit::wait_for;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Long, so that a busy machine is no reason for a test to fail.
pub(crate) const BUDGET: Duration = Duration::from_millis(500);
/// A moment, and how much later.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp(1_700_000_000_000 + seconds * 1000)
}

/// One edge.
pub(crate) struct Site {
    pub(crate) cache: Arc<Cache>,
    pub(crate) refills: Arc<Refills>,
    /// Ends with the edge.
    _thread: Option<Thread>,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) path: &'a str,
    pub(crate) fields: &'a [Field<'a>],
    pub(crate) rule: &'a Rule,
}

impl<'a> Ask<'a> {
    pub(crate) fn of(path: &'a str) -> Self {
        Self { path, fields: &[], rule: &Rule::Respect }
    }

    fn key(&self) -> KeyBuf {
        let mut key = KeyBuf::new();
        let (path, query) = self.path.split_once('?').map_or((self.path, None), |(p, q)| (p, Some(q)));
        let url = KeyUrl {
            scheme: Scheme::Http,
            authority: b"shop.example",
            path: path.as_bytes(),
            query: query.map(str::as_bytes),
            chosen_by: b"",
        };
        key.build(&url, &self.facts(), self.rule);
        key
    }

    fn facts(&self) -> RequestFacts<'a> {
        RequestFacts::read("GET", self.fields).under(self.rule)
    }
}

#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

impl Site {
    /// An edge by itself.
    pub(crate) fn alone() -> Self {
        let config = Config { memory_bytes: 64 << 20, object_bytes_max: 1 << 20, ..Config::default() };
        Self { cache: Cache::new(config, 7).expect("a cache"), refills: Arc::default(), _thread: None }
    }

    /// An edge that shares a Redis, as soon as it knows of all purges.
    pub(crate) fn sharing(url: &str, settings: Settings, seed: u64) -> Self {
        let site = Self::joining(url, settings, seed);
        site.until_in_step();
        site
    }

    /// The same, without waiting.
    pub(crate) fn joining(url: &str, settings: Settings, seed: u64) -> Self {
        let config =
            tenfold_state::Config { url: url.into(), probe: BUDGET, ..tenfold_state::Config::default() };
        let (redis, thread) = Redis::start(config, now).expect("a thread");
        let site = Self::alone();
        let settings = Settings { budget: BUDGET, shield_budget: BUDGET, ..settings };
        Tier::start(&site.cache, redis, settings, seed).expect("a tier");
        Self { _thread: Some(thread), ..site }
    }

    pub(crate) fn tier(&self) -> &Arc<Tier> {
        self.cache.tier().expect("it shares")
    }

    pub(crate) fn until_in_step(&self) {
        wait_for("the edge is in step", PATIENCE, || {
            self.tier().stats().in_step && self.tier().redis_stats().up
        });
    }

    pub(crate) fn look_up(&self, ask: &Ask<'_>, now: Timestamp) -> Lookup {
        self.cache.lookup(&ask.key(), &ask.facts(), ask.rule, now)
    }

    /// The fill that a miss leads.
    pub(crate) fn lead(&self, ask: &Ask<'_>, now: Timestamp) -> Fill {
        let revalidating = match self.look_up(ask, now) {
            Lookup::Revalidate { entry, .. } => Some(entry),
            _ => None,
        };
        match self.cache.join(&ask.key(), &ask.facts(), ask.rule, revalidating, 0, now) {
            // Nobody follows: the fill runs in the background of a test.
            Join::Lead(fill, _) => fill,
            Join::Follow(_) | Join::Stored(_) | Join::Alone(_) => panic!("{} was to be fetched", ask.path),
        }
    }

    /// The fill that renews an entry behind its answer, if there may be one.
    pub(crate) fn refresh(&self, ask: &Ask<'_>, entry: Arc<Entry>, now: Timestamp) -> Option<Fill> {
        let renewal = Renewal { entry, refills: &self.refills };
        self.cache.refresh(&ask.key(), &ask.facts(), ask.rule, renewal, 0, now)
    }

    /// Fetches and stores; says whether it was stored.
    pub(crate) fn store(&self, ask: &Ask<'_>, response: &[Field<'_>], body: &[u8], now: Timestamp) -> bool {
        finish(self.lead(ask, now), response, body, now)
    }

    /// What RAM has, fresh, else what the shared tier has.
    pub(crate) fn get(&self, ask: &Ask<'_>, now: Timestamp) -> Option<Arc<Entry>> {
        if let Lookup::Hit(hit) = self.look_up(ask, now) {
            return Some(hit.entry);
        }
        let tier = self.cache.tier()?;
        let mut fill = self.lead(ask, now);
        let mut question = fill.question(None)?;
        match wait(tier.ask(question.clone(), BUDGET)) {
            Answer::Found(found) => fill.answer_from(&found, &mut question, now).then_some(())?,
            _ => return None,
        }
        drop(fill);
        match self.look_up(ask, now) {
            Lookup::Hit(hit) => Some(hit.entry),
            _ => None,
        }
    }
}

/// Ends a fill with a response.
pub(crate) fn finish(mut fill: Fill, response: &[Field<'_>], body: &[u8], now: Timestamp) -> bool {
    let outcome = fill.on_head(200, response, Some(body.len() as u64), now);
    fill.push(bytes::Bytes::copy_from_slice(body));
    let stored = fill.finish(now);
    stored && outcome == HeadOutcome::Store
}

/// Runs a future to its end.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}
