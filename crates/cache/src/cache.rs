//! The cache: looking up, joining, purging.

use std::sync::Arc;

use crate::fill::{Fill, Follower};
use crate::policy::{RequestFacts, Timestamp};
use crate::purge::Purges;
use crate::relay::Relays;
use crate::stats::Counters;
use crate::store::SeededHash;
use crate::uncacheable::Marks;
use crate::{
    AloneReason, BypassReason, Config, Entry, Error, Field, KeyBuf, MissReason, Purge, Purged, Relay, Rule,
    Stats,
};

/// The cache. One for the process, shared by all workers.
#[derive(Debug)]
pub struct Cache {
    config: Config,
    purges: Purges,
    relays: Arc<Relays>,
    counters: Counters,
    marks: Marks,
}

/// What [`Cache::lookup`] found.
#[derive(Debug)]
pub enum Lookup {
    /// Serve this.
    Hit(Hit),
    /// Serve this although it is stale; the request or the response allows it.
    Stale {
        /// What to serve.
        hit: Hit,
        /// Start [`Cache::refresh`] behind the answer (stale-while-revalidate).
        refresh: bool,
    },
    /// Ask the origin whether this still holds, through [`Cache::join`].
    Revalidate {
        /// What is stored. Its validators, if it has any, make the request conditional.
        entry: Arc<Entry>,
        /// If the origin fails, this may be served. The fill sees to it; the flag is for requests that go alone.
        serve_if_error: bool,
        /// The request's own directives (`no-cache`, `max-age`, `min-fresh`) asked for it; else it is stale.
        requested: bool,
    },
    /// Nothing usable is stored: [`Cache::join`].
    Miss(MissReason),
    /// Pass the request on as it is; its answer is not stored.
    Bypass(BypassReason),
    /// `only-if-cached`, and nothing is: 504. RFC 9111 §5.2.1.7.
    GatewayTimeout,
}

/// A stored response that answers a request.
#[derive(Debug)]
pub struct Hit {
    /// The response.
    pub entry: Arc<Entry>,
    /// For `Age`.
    pub age_s: u64,
    /// For `Cache-Status`: freshness left, negative when stale.
    pub ttl_s: i64,
}

/// How a request that was not answered from the store goes on.
#[derive(Debug)]
pub enum Join {
    /// Run the fill in a task of its own on this worker, and follow it.
    Lead(Fill, Follower),
    /// Somebody else fetches.
    Follow(Follower),
    /// Fetch without a fill, and tell [`Cache::observe`] the response's head.
    Alone(AloneReason),
}

impl Cache {
    /// Builds a cache. `seed` should be random, so that nobody outside can predict hashes.
    pub fn new(config: Config, seed: u64) -> Result<Arc<Self>, Error> {
        let hash = SeededHash::new(seed);
        Ok(Arc::new(Self {
            config,
            purges: Purges::new(hash),
            relays: Arc::new(Relays::new()),
            counters: Counters::default(),
            marks: Marks::new(),
        }))
    }

    /// What is stored for a request, and what it may be used for.
    #[must_use]
    pub fn lookup(&self, key: &KeyBuf, facts: &RequestFacts<'_>, rule: &Rule, now: Timestamp) -> Lookup {
        let _ = (key, rule, now);
        match facts.bypass() {
            Some(reason) => Lookup::Bypass(reason),
            None => Lookup::Miss(MissReason::Uri),
        }
    }

    /// Leads, follows or goes alone. `worker` is the calling worker's index: its thread's followers are woken together.
    ///
    /// `revalidating` is the entry of [`Lookup::Revalidate`].
    #[must_use]
    pub fn join(
        self: &Arc<Self>,
        key: &KeyBuf,
        facts: &RequestFacts<'_>,
        rule: &Rule,
        revalidating: Option<Arc<Entry>>,
        worker: usize,
        now: Timestamp,
    ) -> Join {
        let _ = (key, facts, rule, revalidating, worker, now);
        Join::Alone(AloneReason::FillsFull)
    }

    /// A fill that renews a stale entry behind its answer. `None` if one is running already, or too many are.
    #[must_use]
    pub fn refresh(
        self: &Arc<Self>,
        key: &KeyBuf,
        facts: &RequestFacts<'_>,
        rule: &Rule,
        entry: Arc<Entry>,
        worker: usize,
        now: Timestamp,
    ) -> Option<Fill> {
        let _ = (key, facts, rule, entry, worker, now);
        None
    }

    /// Tells the head of a response to a request that went alone, so that a key which can be stored after all is
    /// no longer remembered as uncacheable.
    pub fn observe(
        &self,
        key: &KeyBuf,
        facts: &RequestFacts<'_>,
        rule: &Rule,
        status: u16,
        response_fields: &[Field<'_>],
        now: Timestamp,
    ) {
        let _ = (key, facts, rule, status, response_fields, now, &self.marks, &self.config);
    }

    /// Applies what an unsafe method's response makes out of date: its own URL, and `Location` and `Content-Location`
    /// of the same authority. `target` is the request's path and query.
    /// RFC 9111 §4.4.
    pub fn invalidate(
        &self,
        facts: &RequestFacts<'_>,
        authority: &[u8],
        target: (&[u8], Option<&[u8]>),
        status: u16,
        response_fields: &[Field<'_>],
    ) {
        let _ = (facts, authority, target, status, response_fields);
    }

    /// Makes what is stored out of date: `soft` leaves it usable as a stale copy, otherwise it is never served again.
    pub fn purge(&self, purge: &Purge<'_>, soft: bool) -> Purged {
        self.purges.apply(purge, soft)
    }

    /// The relay of one worker. Spawn it there, once; see [`Relay`].
    #[must_use]
    pub fn relay(&self, worker: usize) -> Relay {
        self.relays.relay(worker)
    }

    /// What there is and what happened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { purges: self.purges.sequence(), ..self.counters.snapshot() }
    }
}
