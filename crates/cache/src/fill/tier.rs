//! A fill and the tier that edges share: asked before the origin, told after it.
//!
//! What comes from the tier goes through the policy as if the origin had just sent it: it is stored, selected and judged by
//! this edge's rule and for this fill's request, and must be fresh, and newer than what is to be renewed. What was stored is passed on only where all edges
//! could use it: whole, for anybody, for a while, and fetched at a moment that the stream of purges can name.

use std::sync::Arc;
use std::time::Duration;

use super::Fill;
use super::state::End;
use crate::policy::freshness::{Decision, decide, drops_cookies, is_shareable, standing};
use crate::policy::response::StoredFacts;
use crate::policy::vary::Vary;
use crate::policy::{RequestFacts, ResponseFacts, Timestamp, freshen, storable};
use crate::purge::PurgeState;
use crate::tier::value::Response;
use crate::tier::{Found, Lease, Question, Unshared};
use crate::{Entry, Field, Head};

impl Fill {
    /// What to ask the shared tier, if there is one and the request lets it be asked. `lease` is how long the lock may be
    /// held; none where the route has no shield.
    #[must_use]
    pub fn question(&self, lease: Option<Duration>) -> Option<Question> {
        self.cache.tier()?;
        let request_fields = self.shared.identity.request.fields();
        let facts = RequestFacts::read("GET", &request_fields).under(&self.rule);
        if facts.directives.no_cache {
            return None;
        }
        // Who must see more than others does not wait for what they fetch.
        let lease = lease.filter(|_| self.rule.has_shield() && self.shared.identity.floor.is_none());
        Some(Question {
            key: self.key.clone(),
            request: self.shared.identity.request.clone(),
            lease,
            seen: None,
        })
    }

    /// Ends the fill with what the tier found, if it may be used. If not, `question` is made to say so when it is asked
    /// again.
    pub fn answer_from(&mut self, found: &Found, question: &mut Question, now: Timestamp) -> bool {
        let entry = found.began.and_then(|began| self.entry_of(&found.response, began, now));
        if let Some(tier) = self.cache.tier() {
            tier.count_found(entry.is_some());
        }
        let Some(entry) = entry else {
            question.seen = Some(found.seen);
            return false;
        };
        let entry = Arc::new(entry);
        self.cache.keep(&self.key, &entry);
        self.cache.forget_failing(&self.key, self.shared.identity.class);
        self.end(End::Entry(entry), None);
        true
    }

    /// Fetches for all edges from now on. What is stored, or the fill's end, gives the right back.
    pub fn lead_for_all(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    /// Gives the right to fetch for all edges back, with nothing stored. `uncacheable` says that there will not be.
    pub(super) fn give_back_lease(&mut self, uncacheable: bool) {
        if let Some((lease, tier)) = self.lease.take().zip(self.cache.tier()) {
            tier.release(lease, uncacheable);
        }
    }

    /// The entry that a response from the tier makes here; none if this edge would not serve it now.
    fn entry_of(&self, response: &Response, began: u64, now: Timestamp) -> Option<Entry> {
        let stored_fields = freshen::read_head(&response.head);
        // Another edge's clock may be ahead; what has just come was received no later than now.
        let received = Timestamp(response.received_ms.min(now.0));
        // What is being renewed, often by the very edge that shared it, is no renewal.
        if self.revalidating.as_ref().is_some_and(|old| received <= old.facts.received) {
            return None;
        }
        let read = ResponseFacts::read(response.status, &stored_fields, received, received);
        let request_fields = self.shared.identity.request.fields();
        let facts = RequestFacts::read("GET", &request_fields).under(&self.rule);
        let stored = storable(&facts, &self.rule, &read).ok()?;
        let stored = StoredFacts {
            initial_age_ms: stored.initial_age_ms.max(response.initial_age_ms),
            personal: stored.personal || response.personal,
            // How long a fetch took of which that is not known, nobody knows.
            asked: Timestamp(received.0.saturating_sub(match response.fetch_ms {
                0 => u64::MAX,
                milliseconds => milliseconds.into(),
            })),
            ..stored
        };
        if !stored.shows(&self.shared.identity.floor) {
            return None;
        }
        let selecting: Vec<Field<'_>> = response
            .selecting
            .iter()
            .filter_map(|(name, value)| Some((name.as_slice(), value.as_deref()?)))
            .collect();
        // As it was selected for storing: where we compress, `Accept-Encoding` may be no part of it.
        let vary = Vary::select_under(&self.rule, read.fields, &selecting).ok()?;
        if vary.as_ref().is_some_and(|vary| !vary.matches(&request_fields)) {
            return None;
        }
        let tags = self.tag_slots(read.fields).ok()?;
        // Written again, so that nothing is in it that we would not have put there.
        let bytes = freshen::write_head(&read, true, drops_cookies(&facts, &self.rule, &read)).ok()?;
        let head = Head::new(&read, bytes, None, vary, Ok(()));
        let body = self.cache.bodies().make(std::slice::from_ref(&response.body));
        let entry = Entry::new(&head, body, stored, tags, (began, self.shared.identity.url_slots))
            .of_tier(response.fetch_ms);
        let usable = self.cache.purge_state(&entry) == PurgeState::Untouched
            && is_shareable(&facts, &self.rule, &stored)
            && matches!(decide(&facts, &self.rule, &stored, false, now), Decision::Fresh(_));
        usable.then_some(entry)
    }

    /// Passes on what has just been stored, where that helps others.
    pub(super) fn share(&mut self, entry: &Arc<Entry>) {
        match self.pass_on(entry) {
            // Storing it ends the lock.
            Ok(()) => self.lease = None,
            Err(unshared) => self.give_back_lease(unshared == Unshared::Never),
        }
    }

    fn pass_on(&self, entry: &Arc<Entry>) -> Result<(), Unshared> {
        let tier = self.cache.tier().ok_or(Unshared::Never)?;
        let request_fields = self.shared.identity.request.fields();
        let facts = RequestFacts::read("GET", &request_fields).under(&self.rule);
        let stored = &entry.facts;
        let for_others = entry.part.is_none()
            && !stored.directives.has_field_names
            && is_shareable(&facts, &self.rule, stored);
        let left_s = standing(&facts, &self.rule, stored, false, stored.received).map(|then| then.ttl_s);
        let left_s = left_s.and_then(|left_s| u64::try_from(left_s).ok()).unwrap_or(0);
        if !for_others || left_s == 0 {
            return Err(Unshared::Never);
        }
        let heard = self.shared.identity.heard.ok_or(Unshared::Now)?;
        tier.store(&self.key, entry, heard, Duration::from_secs(left_s))
    }
}
