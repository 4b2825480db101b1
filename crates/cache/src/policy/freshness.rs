//! May a response be stored, and what may a stored one be used for. RFC 9111 §3, §4; RFC 5861.
//!
//! [`storable`] judges once, when the head arrives; [`decide`] judges every request. Both take the route's rule: what
//! an override replaces is said here and nowhere else. Choices the standards leave open:
//! - `s-maxage` forbids stale answers on its own (§5.2.2.10), but an explicit `stale-while-revalidate` or
//!   `stale-if-error` beside it is permission (§4.2.4 names RFC 5861 as one); `must-revalidate` and
//!   `proxy-revalidate` forbid both.
//! - A request's `max-age` or `min-fresh` without `max-stale` refuses stale answers (§5.2.1.1).
//! - Heuristic freshness (§4.2.2) only where the operator asked for it (`heuristic = true`), and then a tenth of the time
//!   since `Last-Modified`, at most a day.
//! - `immutable` (RFC 8246) makes a request's `max-age` count only for what is stale; `no-cache` still asks the origin.

use super::Timestamp;
use super::date::parse_date;
use super::directives::ResponseDirectives;
use super::request::{MethodKind, RequestFacts};
use super::response::{ResponseFacts, StoredFacts};
use super::time::duration_ms;
use crate::rule::{Effective, Override, is_negative, is_positive};
use crate::{Rule, Uncacheable};

/// What a stored response may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Serve it.
    Fresh(AgeAndTtl),
    /// Serve it, stale.
    Stale {
        /// How stale.
        standing: AgeAndTtl,
        /// And renew it behind the answer: it is within `stale-while-revalidate`.
        refresh: bool,
    },
    /// Ask the origin first.
    Revalidate {
        /// If the origin fails, it may be served all the same.
        serve_if_error: bool,
        /// The request's own directives asked for it; else it is stale, or `no-cache`.
        requested: bool,
    },
    /// Not for this request: what allowed storing it does not apply to it.
    Guarded,
}

/// How old a served response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgeAndTtl {
    /// For `Age`. RFC 9111 §4.2.3.
    pub age_s: u64,
    /// Freshness left; negative when stale.
    pub ttl_s: i64,
    /// The same to the millisecond; 0 when stale.
    pub left_ms: u64,
}

/// Whether a response to a request may be stored, and what to remember of it.
pub fn storable(
    facts: &RequestFacts<'_>,
    rule: &Rule,
    response: &ResponseFacts<'_>,
) -> Result<StoredFacts, Uncacheable> {
    match response.status {
        206 => Err(Uncacheable::Partial),
        0..=199 | 304 => Err(Uncacheable::Status),
        status => storable_as(status, facts, rule, response),
    }
}

/// Whether a 206 may be stored, as a part of what a 200 would be. Whether it is a part at all its `Content-Range` says.
/// RFC 9111 §3.3.
pub fn storable_part(
    facts: &RequestFacts<'_>,
    rule: &Rule,
    response: &ResponseFacts<'_>,
) -> Result<StoredFacts, Uncacheable> {
    match response.status {
        206 => storable_as(200, facts, rule, response),
        _ => Err(Uncacheable::Status),
    }
}

/// Judges a response by what its directives and its request say; `status` is what it counts as.
fn storable_as(
    status: u16,
    facts: &RequestFacts<'_>,
    rule: &Rule,
    response: &ResponseFacts<'_>,
) -> Result<StoredFacts, Uncacheable> {
    let effective = rule.effective(facts);
    if effective == Effective::Off {
        return Err(Uncacheable::Off);
    }
    if facts.method != MethodKind::Get {
        return Err(Uncacheable::Method);
    }
    if facts.directives.no_store {
        return Err(Uncacheable::RequestNoStore);
    }
    let lifetime_ms = response.lifetime_ms();
    let heuristic_ms = heuristic_ms(facts, rule, response);
    let respect = fits_respect(facts, rule, response, lifetime_ms.or(heuristic_ms));
    let kind = StatusKind::of(status);
    let directives = &response.directives;
    let overridden = Lifetime::of_rule(effective, kind, lifetime_ms);
    match overridden {
        Some((rule, _)) => {
            if !rule.shared && directives.no_store {
                return Err(Uncacheable::NoStore);
            }
            if !rule.shared && directives.private {
                return Err(Uncacheable::Private);
            }
        }
        None => respect?,
    }
    Ok(StoredFacts {
        date: response.date_or_received(),
        received: response.received,
        initial_age_ms: response.initial_age_ms(),
        lifetime_ms,
        heuristic_ms,
        directives: *directives,
        fits_respect: respect.is_ok(),
        kind,
        personal: is_personal(facts, rule),
        sets_cookie: response.has_set_cookie && overridden.is_none(),
        asked: response.requested,
        floor: facts.floor,
    })
}

/// Whether `Set-Cookie` is dropped from what is stored: where the lifetime is the operator's.
#[must_use]
pub fn drops_cookies(facts: &RequestFacts<'_>, rule: &Rule, response: &ResponseFacts<'_>) -> bool {
    let kind = StatusKind::of(if response.status == 206 { 200 } else { response.status });
    Lifetime::of_rule(rule.effective(facts), kind, response.lifetime_ms()).is_some()
}

/// What an operator's lifetimes make of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusKind {
    /// `ttl` covers it.
    Positive,
    /// `negative_ttl` covers it.
    Negative,
    /// It goes by the origin's word.
    Other,
}

impl StatusKind {
    /// Of a status.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        if is_positive(status) {
            Self::Positive
        } else if is_negative(status) {
            Self::Negative
        } else {
            Self::Other
        }
    }
}

/// How long an operator says that a response is fresh, and usable when stale.
#[derive(Clone, Copy, Debug)]
struct Lifetime {
    lifetime_ms: u64,
    windows: Windows,
}

impl Lifetime {
    /// What the rule says of a kind of status, if anything. For errors the origin's own lifetime comes first.
    fn of_rule(
        effective: Effective<'_>,
        kind: StatusKind,
        explicit_ms: Option<u64>,
    ) -> Option<(&Override, Self)> {
        let Effective::Override(rule) = effective else { return None };
        let lifetime = match kind {
            StatusKind::Positive => {
                Self { lifetime_ms: duration_ms(rule.ttl?), windows: Windows::of_rule(rule) }
            }
            StatusKind::Negative if explicit_ms.is_none() => {
                Self { lifetime_ms: duration_ms(rule.negative_ttl?), windows: Windows::default() }
            }
            StatusKind::Negative | StatusKind::Other => return None,
        };
        Some((rule, lifetime))
    }
}

/// A share of the time that a response has been unchanged. RFC 9111 §4.2.2.
///
/// A guess, so it is kept from whatever might be somebody's own: requests that the guard refuses, and responses that set
/// a cookie, unless the origin says `public`.
fn heuristic_ms(facts: &RequestFacts<'_>, rule: &Rule, response: &ResponseFacts<'_>) -> Option<u64> {
    let directives = &response.directives;
    rule.options().filter(|options| options.heuristic)?;
    let covered = !matches!(rule.effective(facts), Effective::Respect(None));
    let for_all = directives.public || covered && !response.has_set_cookie;
    let guessable = is_heuristically_cacheable(response.status) || directives.public;
    if !for_all || !guessable || response.lifetime_ms().is_some() || directives.no_cache {
        return None;
    }
    let modified = response.last_modified.and_then(parse_date)?;
    let unchanged_ms = response.date_or_received().since_ms(modified);
    Some((unchanged_ms / HEURISTIC_DIVISOR).min(HEURISTIC_MS_MAX))
}

/// The fraction §4.2.2 names as typical.
const HEURISTIC_DIVISOR: u64 = 10;
/// A guess is good for a day at most, as caches that warned of older ones held it (RFC 7234 §5.5.4).
const HEURISTIC_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Statuses that may be fresh without saying so. RFC 9110 §15.1.
const fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Credentials that the key does not hold.
fn is_personal(facts: &RequestFacts<'_>, rule: &Rule) -> bool {
    let keyed = |name: &str| rule.options().is_some_and(|rule| rule.keyed_by_header(name));
    facts.has_authorization && !keyed("authorization") || facts.has_cookie && !keyed("cookie")
}

/// RFC 9111 §3 for a shared cache.
fn fits_respect(
    facts: &RequestFacts<'_>,
    rule: &Rule,
    response: &ResponseFacts<'_>,
    lifetime_ms: Option<u64>,
) -> Result<(), Uncacheable> {
    let directives = &response.directives;
    if directives.must_understand && !is_understood(response.status) {
        return Err(Uncacheable::Status);
    }
    // §5.2.2.3: who understands the status ignores the no-store that stands beside must-understand.
    if directives.no_store && !directives.must_understand {
        return Err(Uncacheable::NoStore);
    }
    if directives.private {
        return Err(Uncacheable::Private);
    }
    let for_all = directives.public || directives.s_maxage_s.is_some();
    if facts.has_authorization && !for_all && !directives.must_revalidate {
        return Err(Uncacheable::Authorization);
    }
    let cookies_allowed = rule.options().is_some_and(|options| options.set_cookie);
    // Each who asks again is told by the origin itself, which may set another cookie each time, or none.
    let cookie_for_all = !directives.no_cache
        && (directives.public || directives.s_maxage_s.is_some_and(|seconds| seconds > 0));
    if response.has_set_cookie && !cookie_for_all && !cookies_allowed {
        return Err(Uncacheable::SetCookie);
    }
    let added = if let Effective::Respect(added) = rule.effective(facts) { added } else { None };
    let windows = Windows::of_response(directives).and(added, directives);
    if is_worth_storing(response, lifetime_ms, windows) { Ok(()) } else { Err(Uncacheable::NoFreshness) }
}

/// Whether it could ever be used: fresh now, usable when stale, or asked for by a validator.
fn is_worth_storing(response: &ResponseFacts<'_>, lifetime_ms: Option<u64>, windows: Windows) -> bool {
    let directives = &response.directives;
    let has_validator = response.etag.is_some() || response.last_modified.is_some();
    let Some(lifetime_ms) = lifetime_ms else {
        return directives.no_cache && has_validator;
    };
    let usable_ms = lifetime_ms.saturating_add(windows.revalidate_ms.max(windows.error_ms));
    has_validator || !directives.no_cache && usable_ms > response.initial_age_ms()
}

/// Final statuses whose meaning RFC 9110 §15 gives. A 304 is never stored as such.
fn is_understood(status: u16) -> bool {
    matches!(status, 200..=206 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 451 | 500..=505)
}

/// How long beyond its lifetime a response may be used, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Windows {
    revalidate_ms: u64,
    error_ms: u64,
}

impl Windows {
    fn of_response(directives: &ResponseDirectives) -> Self {
        if directives.must_revalidate || directives.proxy_revalidate {
            return Self::default();
        }
        let ms = |seconds: Option<u64>| seconds.unwrap_or(0).saturating_mul(1000);
        Self {
            revalidate_ms: ms(directives.stale_while_revalidate_s),
            error_ms: ms(directives.stale_if_error_s),
        }
    }

    /// With what the operator adds, unless the origin forbids stale answers.
    fn and(self, added: Option<&Override>, directives: &ResponseDirectives) -> Self {
        let forbidden = directives.must_revalidate || directives.proxy_revalidate;
        let Some(added) = added.filter(|_| !forbidden).map(Self::of_rule) else { return self };
        Self {
            revalidate_ms: self.revalidate_ms.max(added.revalidate_ms),
            error_ms: self.error_ms.max(added.error_ms),
        }
    }

    fn of_rule(rule: &Override) -> Self {
        Self {
            revalidate_ms: duration_ms(rule.stale_while_revalidate),
            error_ms: duration_ms(rule.stale_if_error),
        }
    }
}

/// A stored response under a rule at a moment.
#[derive(Clone, Copy, Debug)]
struct Judged {
    /// RFC 9111 §4.2.3 `current_age`, for `Age` and the request's directives.
    age_ms: u64,
    /// What counts against the lifetime: the age, or under an override the time since it was received.
    spent_ms: u64,
    lifetime_ms: u64,
    windows: Windows,
    /// Never without validation.
    no_cache: bool,
    /// A client that asks again, only to be sure, need not be heard while it is fresh. RFC 8246 §2.
    immutable: bool,
    /// Whether a request's `max-stale` may be granted.
    max_stale_allowed: bool,
    /// A soft purge took its freshness.
    softened: bool,
}

impl Judged {
    fn new(
        facts: &RequestFacts<'_>,
        rule: &Rule,
        stored: &StoredFacts,
        softened: bool,
        now: Timestamp,
    ) -> Option<Self> {
        let resident_ms = now.since_ms(stored.received);
        let age_ms = stored.age_ms(now);
        let directives = &stored.directives;
        let must_revalidate = directives.must_revalidate || directives.proxy_revalidate;
        let effective = rule.effective(facts);
        if let Some((rule, operators)) = Lifetime::of_rule(effective, stored.kind, stored.lifetime_ms) {
            let refused = directives.no_store || directives.private || stored.personal;
            let usable = (rule.shared || !refused) && !stored.sets_cookie;
            return usable.then_some(Self {
                age_ms,
                spent_ms: resident_ms,
                lifetime_ms: operators.lifetime_ms,
                windows: operators.windows,
                no_cache: false,
                immutable: directives.immutable,
                max_stale_allowed: !must_revalidate,
                softened,
            });
        }
        let added = match effective {
            Effective::Off => return None,
            Effective::Respect(added) => added,
            Effective::Override(rule) => Some(rule),
        };
        let guessed_ms =
            stored.heuristic_ms.filter(|_| added.is_some_and(|added| added.heuristic) || directives.public);
        stored.fits_respect.then_some(Self {
            age_ms,
            spent_ms: age_ms,
            lifetime_ms: stored.lifetime_ms.or(guessed_ms).unwrap_or(0),
            windows: Windows::of_response(directives).and(added, directives),
            no_cache: directives.no_cache,
            immutable: directives.immutable,
            max_stale_allowed: !must_revalidate && directives.s_maxage_s.is_none(),
            softened,
        })
    }

    fn is_fresh(&self) -> bool {
        self.lifetime_ms > self.spent_ms && !self.softened
    }

    fn staleness_ms(&self) -> u64 {
        self.spent_ms.saturating_sub(self.lifetime_ms)
    }

    fn standing(&self) -> AgeAndTtl {
        let seconds = |ms: u64| i64::try_from(ms / 1000).unwrap_or(i64::MAX);
        let ttl_s = if self.softened {
            -seconds(self.staleness_ms())
        } else {
            seconds(self.lifetime_ms).saturating_sub(seconds(self.spent_ms))
        };
        let left_ms = if self.softened { 0 } else { self.lifetime_ms.saturating_sub(self.spent_ms) };
        AgeAndTtl { age_s: self.age_ms / 1000, ttl_s, left_ms }
    }

    fn usable_on_error(&self, facts: &RequestFacts<'_>) -> bool {
        self.windows.error_ms > 0
            && !self.no_cache
            && accepts_stale_on_error(facts)
            && self.staleness_ms() <= self.windows.error_ms
    }
}

/// Whether a request's own directives leave room for a stale answer when the origin fails.
#[must_use]
pub fn accepts_stale_on_error(facts: &RequestFacts<'_>) -> bool {
    !facts.directives.no_cache && !refuses_stale(facts)
}

/// The request wants freshness and does not say that stale is fine. RFC 9111 §5.2.1.1.
fn refuses_stale(facts: &RequestFacts<'_>) -> bool {
    let directives = &facts.directives;
    directives.max_stale_s.is_none() && (directives.max_age_s.is_some() || directives.min_fresh_s.is_some())
}

/// Decides what a stored response may be used for. RFC 9111 §4.
///
/// `now` is the edge's clock when the request arrived; `softened` says that a soft purge took its freshness.
#[must_use]
pub fn decide(
    facts: &RequestFacts<'_>,
    rule: &Rule,
    stored: &StoredFacts,
    softened: bool,
    now: Timestamp,
) -> Decision {
    let Some(judged) = Judged::new(facts, rule, stored, softened, now) else { return Decision::Guarded };
    let serve_if_error = judged.usable_on_error(facts);
    let asked = &facts.directives;
    let beyond = |seconds: Option<u64>| seconds.is_some_and(|s| judged.age_ms > s.saturating_mul(1000));
    let left_ms = judged.lifetime_ms.saturating_sub(judged.spent_ms);
    let too_short = asked.min_fresh_s.is_some_and(|s| left_ms < s.saturating_mul(1000));
    let sure = judged.immutable && judged.is_fresh();
    if asked.no_cache || beyond(asked.max_age_s) && !sure || too_short {
        return Decision::Revalidate { serve_if_error, requested: true };
    }
    if judged.no_cache {
        return Decision::Revalidate { serve_if_error: false, requested: false };
    }
    if judged.is_fresh() {
        return Decision::Fresh(judged.standing());
    }
    let staleness_ms = judged.staleness_ms();
    let revalidate_ms = judged.windows.revalidate_ms;
    if revalidate_ms > 0 && staleness_ms <= revalidate_ms && !refuses_stale(facts) {
        return Decision::Stale { standing: judged.standing(), refresh: true };
    }
    let granted = asked.max_stale_s.is_some_and(|s| staleness_ms <= s.saturating_mul(1000));
    if granted && judged.max_stale_allowed && !judged.softened {
        return Decision::Stale { standing: judged.standing(), refresh: false };
    }
    Decision::Revalidate { serve_if_error, requested: false }
}

/// How old a stored response is, were it served now; `None` where the rule has no use for it.
#[must_use]
pub fn standing(
    facts: &RequestFacts<'_>,
    rule: &Rule,
    stored: &StoredFacts,
    softened: bool,
    now: Timestamp,
) -> Option<AgeAndTtl> {
    Judged::new(facts, rule, stored, softened, now).map(|judged| judged.standing())
}

/// Whether a stored response may stand in for an error. RFC 5861 §4.
#[must_use]
pub fn usable_on_error(facts: &RequestFacts<'_>, rule: &Rule, stored: &StoredFacts, now: Timestamp) -> bool {
    Judged::new(facts, rule, stored, false, now).is_some_and(|judged| judged.usable_on_error(facts))
}

/// Whether a response, just received, may be used for other requests without asking again. What may not is stored for
/// validation only, and each request asks for itself.
#[must_use]
pub fn is_shareable(facts: &RequestFacts<'_>, rule: &Rule, stored: &StoredFacts) -> bool {
    Judged::new(facts, rule, stored, false, stored.received).is_some_and(|judged| {
        let usable_ms = judged.lifetime_ms.saturating_add(judged.windows.revalidate_ms);
        !judged.no_cache && usable_ms > judged.spent_ms
    })
}

/// Whether a response may not be stored because of who asked, or how: it says nothing of what others are given.
#[must_use]
pub fn is_the_request_s(facts: &RequestFacts<'_>, reason: Uncacheable) -> bool {
    match reason {
        Uncacheable::Authorization
        | Uncacheable::SetCookie
        | Uncacheable::RequestNoStore
        | Uncacheable::FieldAlias => true,
        Uncacheable::Private | Uncacheable::NoStore => facts.has_authorization || facts.has_cookie,
        _ => false,
    }
}

/// Statuses that speak of the resource, whoever asks: not what a node says to a request that it can't read, won't serve or
/// fails at.
#[must_use]
pub const fn speaks_of_the_resource(status: u16) -> bool {
    matches!(status, 200..=399 | 404 | 410 | 451)
}

/// Statuses that count as the origin failing. RFC 5861 §4.
#[must_use]
pub const fn is_error(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests;
