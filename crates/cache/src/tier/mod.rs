//! The tier that edges share: what one has fetched, another need not fetch.
//!
//! **Intuition.** A fill that leads asks here before it asks the origin, and puts here what it stored. Nobody else knows
//! that there is a tier: hits don't, and followers wait for the fill as ever.
//!
//! **Mechanism.** [`Tier::ask`] is one script on the server: it finds the value, or, on a route with a shield, takes the
//! lock for fetching it in the same round trip. [`value`] is what a value looks like, `spread` how purges go round, and
//! ADR 0013 says why it is so. Everything runs on the thread of [`tenfold_state`]; a worker waits for an answer through a
//! channel, for its budget at most.
//!
//! **Failure.** No answer, an answer too late, an answer that can't be read: each sends the fill to the origin; where one
//! edge is to fetch for all it waits longer, once and for all. What is to be stored waits in a bounded queue, and is dropped when that is full.

mod order;
mod spread;
pub mod value;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tenfold_state::{CallError, Cmd, Link, Redis, Value as Reply, cmd, reply};
use tokio::sync::oneshot;
use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_128;

use crate::fill::KeptFields;
use crate::policy::vary::Vary;
use crate::stats::count;
use crate::{Cache, Entry};
pub use spread::Spread;
use value::{Content, Response, SEEN_BYTES, Value};

/// What the tier is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Before the names of all keys, so that several sites can share one Redis.
    pub prefix: String,
    /// How long a fill waits for answers, in all.
    pub budget: Duration,
    /// The same on routes with a shield, where an answer saves the origin more. Waiting for another edge's fetch is not
    /// counted: that takes no longer than fetching.
    pub shield_budget: Duration,
    /// The longest that anything stays. The stream of purges is kept an hour longer.
    pub life_max: Duration,
    /// The largest value, in bytes; larger responses stay with their edge.
    pub value_bytes_max: usize,
    /// How long an edge that can't hear of purges calls what it has fresh; `None` is for ever.
    pub purge_blind_max: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: "tenfold".into(),
            budget: Duration::from_millis(5),
            shield_budget: Duration::from_millis(200),
            life_max: Duration::from_secs(3600),
            value_bytes_max: 1 << 20,
            purge_blind_max: None,
        }
    }
}

/// The shared tier of one cache.
#[derive(Debug)]
pub struct Tier {
    redis: Redis,
    settings: Settings,
    /// Names the history that is being read; zero before the first.
    epoch: AtomicU64,
    /// The last id that was read of the stream in this history; zero before the first.
    heard: AtomicU64,
    /// Shared values whose fetch began before this are of a time whose purges this edge doesn't know.
    usable_since: AtomicU64,
    /// All purges up to a moment ago have been read.
    in_step: AtomicBool,
    /// What waits to be stored.
    storing_bytes: AtomicU64,
    storing: AtomicU64,
    spread: Spread,
    /// For the tokens of locks: the n-th of this edge.
    tokens: AtomicU64,
    seed: u64,
    counters: Counters,
}

/// What a fill wants to know.
#[derive(Clone, Debug)]
pub struct Question {
    pub(crate) key: Box<[u8]>,
    pub(crate) request: KeptFields,
    /// On a route with a shield: for how long the lock is taken.
    pub(crate) lease: Option<Duration>,
    /// A value that was found and couldn't be used.
    pub(crate) seen: Option<[u8; SEEN_BYTES]>,
}

impl Question {
    /// Whether the lock is asked for as well.
    #[must_use]
    pub fn has_lease(&self) -> bool {
        self.lease.is_some()
    }
}

/// What the tier says.
#[derive(Debug)]
pub enum Answer {
    /// Nothing that is known of: fetch.
    Nothing,
    /// No answer within the budget, from a server that isn't known to be away.
    Late,
    /// This; [`Fill::answer_from`](crate::Fill::answer_from) says whether it will do.
    Found(Box<Found>),
    /// Fetch for all edges.
    Lead(Lease),
    /// Another edge is fetching; ask again soon.
    Held,
    /// Another edge has found that it can't be stored: fetch, without waiting for anybody.
    Uncacheable,
}

/// A value from the tier.
#[derive(Debug)]
pub struct Found {
    /// Up to where its edge had read the purges when its fetch began; `None` where this edge can't tell which purges came
    /// since, or where the value can't be read: then it is no answer.
    pub(crate) began: Option<u64>,
    pub(crate) response: Response,
    pub(crate) seen: [u8; SEEN_BYTES],
}

/// The right and the duty to fetch for all edges. Given back by [`Tier::release`], or by storing what was fetched.
#[derive(Clone, Debug)]
pub struct Lease {
    lock: String,
    token: String,
}

/// Up to where an edge has read the purges, and in which history. Positions that an edge makes up for purges of its own
/// mean nothing to others, so this is what shared values carry. It is never above the position, so a value is purged by
/// whatever purges its entry here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    epoch: u64,
    id: u64,
}

/// Why a response was not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unshared {
    /// It never will be: it is for one only, is not fresh for a moment, or too large.
    Never,
    /// It is no fault of the response; the next one may be.
    Now,
}

/// What happened, as a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierStats {
    /// Values found and used.
    pub hits: u64,
    /// Nothing found.
    pub misses: u64,
    /// Found, and stale, purged or of another history.
    pub unusable: u64,
    /// Found, and unreadable.
    pub unread: u64,
    /// No answer within the budget, or none at all.
    pub unanswered: u64,
    /// Responses stored.
    pub stored: u64,
    /// Responses not stored, since too many waited or the server didn't take them.
    pub dropped: u64,
    /// Locks taken.
    pub leases: u64,
    /// Fills that waited for another edge.
    pub waits: u64,
    /// Of those, how many fetched all the same.
    pub waits_in_vain: u64,
    /// Purges published.
    pub purges_published: u64,
    /// Purges that wait to be published.
    pub purges_waiting: u64,
    /// Purges heard of.
    pub purges_heard: u64,
    /// Times the place among the purges was lost.
    pub places_lost: u64,
    /// Times everything was made stale because nothing had been heard for too long.
    pub blind_softened: u64,
    /// For how long nothing has been heard, in milliseconds.
    pub blind_ms: u64,
    /// In step with the purges.
    pub in_step: bool,
}

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    unusable: AtomicU64,
    unread: AtomicU64,
    unanswered: AtomicU64,
    stored: AtomicU64,
    dropped: AtomicU64,
    leases: AtomicU64,
    waits: AtomicU64,
    waits_in_vain: AtomicU64,
}

/// Responses that wait to be stored.
const STORING_MAX: u64 = 512;
/// What they hold together.
const STORING_BYTES_MAX: u64 = 32 << 20;
/// How long storing one may take. Nobody waits for it.
const STORE_BUDGET: Duration = Duration::from_millis(500);
/// What is packed or unpacked off the thread.
const LARGE_BYTES: usize = 64 << 10;
/// For how long other edges are told that something can't be stored.
const UNCACHEABLE_MS: u64 = 1000;

/// `{0}`, `{1, value}`, `{2}` the lock is ours, `{3}` uncacheable, `{4}` the lock is another's.
const ASK: &str = "
local n = redis.call('STRLEN', KEYS[1])
if n > 0 and n <= tonumber(ARGV[1]) and redis.call('GETRANGE', KEYS[1], 0, 15) ~= ARGV[4] then
  return {1, redis.call('GET', KEYS[1])}
end
if ARGV[2] == '0' then return {0} end
if redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[2]) then return {2} end
if redis.call('GET', KEYS[2]) == '-' then return {3} end
return {4}";
/// The names of a `Vary` and the lock of their key, then the value and the lock of its own.
const STORE: &str = "
if #KEYS == 4 then
  redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
  redis.call('DEL', KEYS[4])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
return 1";
/// Gives a lock back, or leaves word that there is nothing to wait for.
const RELEASE: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], '-', 'PX', ARGV[2]) end
return 1";

impl Tier {
    /// Begins to share: gives `cache` this tier, and starts listening to purges. `seed` should be random, and different on
    /// each edge. Once for a cache.
    ///
    /// # Errors
    /// If the thread has ended already.
    pub fn start(
        cache: &Arc<Cache>,
        redis: Redis,
        settings: Settings,
        seed: u64,
    ) -> Result<Arc<Self>, CallError> {
        let tier = Arc::new(Self {
            redis,
            settings,
            epoch: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            usable_since: AtomicU64::new(u64::MAX),
            in_step: AtomicBool::new(false),
            storing_bytes: AtomicU64::new(0),
            storing: AtomicU64::new(0),
            spread: Spread::default(),
            tokens: AtomicU64::new(0),
            seed,
            counters: Counters::default(),
        });
        let (listening, of) = (Arc::clone(&tier), Arc::clone(cache));
        tier.redis.submit(move |link| spread::run(link, listening, of))?;
        cache.attach(Arc::clone(&tier));
        Ok(tier)
    }

    /// How long one fill may wait for answers to a question, however often it asks.
    #[must_use]
    pub fn budget(&self, question: &Question) -> Duration {
        if question.lease.is_some() { self.settings.shield_budget } else { self.settings.budget }
    }

    /// What is known of a question, within what is left of its [budget](Self::budget). Cancellation safe: a lock that was
    /// taken meanwhile ends with its lease.
    pub async fn ask(self: &Arc<Self>, question: Question, budget: Duration) -> Answer {
        // A value of which it can't be said whether it was purged is no use, and without one a lock neither.
        if !self.redis.is_up() || !self.is_in_step() {
            count(&self.counters.unanswered);
            return Answer::Nothing;
        }
        let (sender, answered) = oneshot::channel();
        let tier = Arc::clone(self);
        let submitted = self.redis.submit(move |link| async move {
            let answer = tier.answer(&link, &question, budget).await;
            // Whoever asked may have given up; then the lock is of no use to anybody.
            if let Err(Ok(Answer::Lead(lease))) = sender.send(answer) {
                tier.give_back(&link, &lease, 0).await;
            }
        });
        let answer = match submitted {
            Ok(()) => timeout(budget, answered).await.ok().and_then(Result::ok),
            Err(error) => Some(Err(error)),
        };
        // Which of the two clocks runs out first, this one or the call's, is chance.
        match answer.unwrap_or(Err(CallError::TimedOut)) {
            Ok(answer) => answer,
            Err(error) => {
                count(&self.counters.unanswered);
                let late = matches!(error, CallError::TimedOut) && self.redis.is_up();
                if late { Answer::Late } else { Answer::Nothing }
            }
        }
    }

    async fn answer(
        &self,
        link: &Rc<Link>,
        question: &Question,
        budget: Duration,
    ) -> Result<Answer, CallError> {
        let began = link.now();
        let asked = match self.answer_at(link, question, &self.place(&question.key), budget).await? {
            Asked::Names(names) => {
                let Some(variant) = variant_of(&names, &question.request) else { return Ok(Answer::Nothing) };
                let left = budget.saturating_sub(link.now() - began);
                let place = self.place(&[&question.key[..], &variant].concat());
                self.answer_at(link, question, &place, left).await?
            }
            asked => asked,
        };
        Ok(match asked {
            Asked::Answer(answer) => answer,
            // Names under a variant's key are nobody's doing.
            Asked::Names(_) => Answer::Nothing,
        })
    }

    async fn answer_at(
        &self,
        link: &Rc<Link>,
        question: &Question,
        place: &Place,
        budget: Duration,
    ) -> Result<Asked, CallError> {
        let token = self.token();
        let lease_ms = question.lease.map_or(0, |lease| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX));
        let mut command = eval(ASK, &[&place.value, &place.lock]);
        command.arg(self.settings.value_bytes_max).arg(lease_ms).arg(&token);
        command.arg(question.seen.as_ref().map_or(&[][..], |seen| seen));
        let mut parts = reply::list(link.call(&command, budget).await?).into_iter();
        let answer = match parts.next().as_ref().and_then(reply::integer) {
            Some(1) => return Ok(self.read(parts.next(), question).await),
            Some(2) => {
                count(&self.counters.leases);
                Answer::Lead(Lease { lock: place.lock.clone(), token })
            }
            Some(3) => Answer::Uncacheable,
            Some(4) => Answer::Held,
            _ => {
                count(&self.counters.misses);
                Answer::Nothing
            }
        };
        Ok(Asked::Answer(answer))
    }

    /// What a value says to this question.
    async fn read(&self, value: Option<Reply>, question: &Question) -> Asked {
        let Some(bytes) = value.and_then(reply::bytes) else { return Asked::Answer(Answer::Nothing) };
        let seen = bytes.first_chunk::<SEEN_BYTES>().copied().unwrap_or_default();
        // What is packed may be eight times as long, and more.
        let most = self.settings.value_bytes_max.saturating_mul(16);
        let value = if bytes.len() < LARGE_BYTES {
            Value::read(&bytes, most)
        } else {
            tokio::task::spawn_blocking(move || Value::read(&bytes, most)).await.ok().flatten()
        };
        match value {
            Some(Value { content: Content::Names { key, names }, .. }) if *key == *question.key => {
                Asked::Names(names)
            }
            Some(Value { epoch, began, content: Content::Response(response) })
                if *response.key == *question.key =>
            {
                let known = epoch == self.epoch.load(Ordering::Relaxed)
                    && began >= self.usable_since.load(Ordering::Relaxed);
                let began = known.then_some(began);
                Asked::Answer(Answer::Found(Box::new(Found { began, response, seen })))
            }
            _ => {
                count(&self.counters.unread);
                let found = Found { began: None, response: Response::default(), seen };
                Asked::Answer(Answer::Found(Box::new(found)))
            }
        }
    }

    /// Counts what became of a value that was found.
    pub(crate) fn count_found(&self, used: bool) {
        count(if used { &self.counters.hits } else { &self.counters.unusable });
    }

    /// Counts a fill that waited for another edge, and whether for nothing.
    pub fn count_wait(&self, in_vain: bool) {
        count(&self.counters.waits);
        if in_vain {
            count(&self.counters.waits_in_vain);
        }
    }

    /// Up to where the purges have been read, for a fetch that begins now.
    pub(crate) fn heard(&self) -> Heard {
        // The epoch first: an id read after it is of that history, or of a later one, and then the epoch is out of date.
        let epoch = self.epoch.load(Ordering::Acquire);
        Heard { epoch, id: self.heard.load(Ordering::Acquire) }
    }

    /// Whether other edges can tell what was purged since then.
    fn is_told(&self, heard: Heard) -> bool {
        heard.epoch == self.epoch.load(Ordering::Acquire)
            && heard.id >= self.usable_since.load(Ordering::Acquire)
    }

    /// Stores a response for the others, behind whoever waits. `heard` is from when its fetch began.
    pub(crate) fn store(
        self: &Arc<Self>,
        key: &[u8],
        entry: &Arc<Entry>,
        heard: Heard,
        life: Duration,
    ) -> Result<(), Unshared> {
        let bytes = (entry.body.len() + entry.head.len() + key.len()) as u64;
        if bytes > self.settings.value_bytes_max as u64 {
            return Err(Unshared::Never);
        }
        if !self.redis.is_up() || !self.is_in_step() || !self.is_told(heard) {
            return Err(Unshared::Now);
        }
        let waiting = self.storing.fetch_add(1, Ordering::Relaxed);
        let waiting_bytes = self.storing_bytes.fetch_add(bytes, Ordering::Relaxed);
        let guard = Storing { tier: Arc::clone(self), bytes };
        if waiting >= STORING_MAX || waiting_bytes + bytes > STORING_BYTES_MAX {
            count(&self.counters.dropped);
            return Err(Unshared::Now);
        }
        let life_ms = u64::try_from(life.min(self.settings.life_max).as_millis()).unwrap_or(u64::MAX).max(1);
        let (key, entry) = (Box::<[u8]>::from(key), Arc::clone(entry));
        let submitted = self.redis.submit(move |link| async move {
            let stored = guard.tier.store_now(&link, &key, (&entry, heard), life_ms).await;
            let counters = &guard.tier.counters;
            count(if stored { &counters.stored } else { &counters.dropped });
        });
        submitted.map_err(|_| {
            count(&self.counters.dropped);
            Unshared::Now
        })
    }

    async fn store_now(
        &self,
        link: &Rc<Link>,
        key: &[u8],
        (entry, heard): (&Arc<Entry>, Heard),
        life_ms: u64,
    ) -> bool {
        // The place may have been lost while it waited.
        if !self.is_told(heard) {
            return false;
        }
        let Ok(response) = response_of(key, entry) else { return false };
        let Heard { epoch, id: began } = heard;
        let large = entry.body.len() >= LARGE_BYTES;
        let write = move || Value { epoch, began, content: Content::Response(response) }.write();
        let written = if large { tokio::task::spawn_blocking(write).await.ok() } else { Some(write()) };
        let Some(written) = written.filter(|written| written.len() <= self.settings.value_bytes_max) else {
            return false;
        };
        let base = self.place(key);
        let command = match &entry.vary {
            None => {
                let mut command = eval(STORE, &[&base.value, &base.lock]);
                command.arg(written).arg(life_ms);
                command
            }
            Some(vary) => {
                let place = self.place(&[key, &vary.digest()].concat());
                let names = vary.selecting().map(|(name, _)| name.to_vec()).collect();
                let names = Value { epoch, began, content: Content::Names { key: key.to_vec(), names } };
                let names_life_ms = u64::try_from(self.settings.life_max.as_millis()).unwrap_or(u64::MAX);
                let keys = [&base.value, &base.lock, &place.value, &place.lock];
                let mut command = eval(STORE, &keys.map(String::as_str));
                command.arg(names.write()).arg(names_life_ms).arg(written).arg(life_ms);
                command
            }
        };
        link.call(&command, STORE_BUDGET).await.is_ok()
    }

    /// Gives the lock back without anything stored. `uncacheable` tells those that wait that they need not.
    pub fn release(self: &Arc<Self>, lease: Lease, uncacheable: bool) {
        let tier = Arc::clone(self);
        let for_ms = if uncacheable { UNCACHEABLE_MS } else { 0 };
        let job = move |link| async move { tier.give_back(&link, &lease, for_ms).await };
        // Not submitted, the lock ends with its lease.
        let _ = self.redis.submit(job);
    }

    async fn give_back(&self, link: &Rc<Link>, lease: &Lease, for_ms: u64) {
        let mut command = eval(RELEASE, &[&lease.lock]);
        command.arg(&lease.token).arg(for_ms);
        // As above.
        let _ = link.call(&command, STORE_BUDGET).await;
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> TierStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let spread = self.spread.stats();
        TierStats {
            hits: read(&counters.hits),
            misses: read(&counters.misses),
            unusable: read(&counters.unusable),
            unread: read(&counters.unread),
            unanswered: read(&counters.unanswered),
            stored: read(&counters.stored),
            dropped: read(&counters.dropped),
            leases: read(&counters.leases),
            waits: read(&counters.waits),
            waits_in_vain: read(&counters.waits_in_vain),
            in_step: self.is_in_step(),
            ..spread
        }
    }

    /// What the thread that talks to Redis counts.
    #[must_use]
    pub fn redis_stats(&self) -> tenfold_state::Stats {
        self.redis.stats()
    }

    /// All purges have been read that concern what may be found.
    fn is_in_step(&self) -> bool {
        self.in_step.load(Ordering::Relaxed) && self.usable_since.load(Ordering::Relaxed) != u64::MAX
    }

    /// Where a key's value and lock are. The braces keep them together in a cluster.
    fn place(&self, key: &[u8]) -> Place {
        let (prefix, hash) = (&self.settings.prefix, xxh3_128(key));
        Place { value: format!("{prefix}:{{{hash:032x}}}:v"), lock: format!("{prefix}:{{{hash:032x}}}:l") }
    }

    fn token(&self) -> String {
        format!("{:016x}-{}", self.seed, self.tokens.fetch_add(1, Ordering::Relaxed))
    }
}

/// What one round trip came to.
enum Asked {
    Answer(Answer),
    /// The responses of this key differ by these headers.
    Names(Vec<Vec<u8>>),
}

struct Place {
    value: String,
    lock: String,
}

/// Counts what waits to be stored, for as long as it does.
struct Storing {
    tier: Arc<Tier>,
    bytes: u64,
}

impl Drop for Storing {
    fn drop(&mut self) {
        self.tier.storing.fetch_sub(1, Ordering::Relaxed);
        self.tier.storing_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn eval(script: &str, keys: &[&str]) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(script).arg(keys.len());
    for key in keys {
        command.arg(*key);
    }
    command
}

/// What tells the variant apart that a request selects.
fn variant_of(names: &[Vec<u8>], request: &KeptFields) -> Option<Vec<u8>> {
    let line = names.join(&b", "[..]);
    let vary = Vary::select(&[(b"vary", &line)], &request.fields()).ok()??;
    Some(vary.digest())
}

fn response_of(key: &[u8], entry: &Entry) -> std::io::Result<Response> {
    let selecting = entry.vary.iter().flat_map(|vary| vary.selecting());
    Ok(Response {
        status: entry.status,
        personal: entry.facts.personal,
        received_ms: entry.facts.received.0,
        initial_age_ms: entry.facts.initial_age_ms,
        fetch_ms: entry.fetch_ms,
        key: key.to_vec(),
        selecting: selecting.map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
        head: Bytes::clone(&entry.head),
        body: entry.body.read()?,
    })
}
