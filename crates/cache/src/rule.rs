//! What a route says about caching.
//!
//! A rule is the operator's word. `Respect` leaves everything to the origin's headers; `Override` replaces their
//! freshness, and comes with a guard, because the classic accident is one user's answer shown to another: an override
//! does not apply to a request that carries `Authorization` or `Cookie`, unless the operator said `shared = true` or
//! that header is wholly in the key. Such a request falls back to `Respect`, under a key of its own, so that neither kind
//! replaces what is stored for the other; only a reload that changes the rule can leave an entry that the guard refuses.
//! What the guard cannot see is a personal answer that depends on neither header; there the origin must say `private`,
//! which wins over an override (unless `shared`).

use std::time::Duration;

use crate::policy::RequestFacts;

/// A route's `cache` setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// Nothing is looked up or stored.
    Off,
    /// The origin's headers decide, per RFC 9111.
    #[default]
    Respect,
    /// The operator decides.
    Override(Override),
}

/// `cache = { ttl, stale_while_revalidate, stale_if_error, key, shared }`.
///
/// Applies to 200, 203, 204, 300, 301 and 308. Other statuses, errors above all, are stored only if the origin
/// explicitly says so. The origin's `no-store` and `private` win unless `shared`; its other directives are replaced.
/// `Set-Cookie` is dropped; everything else, `Cache-Control` included, reaches the client as the origin sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Override {
    /// Freshness lifetime, counted from when the response was received.
    pub ttl: Duration,
    /// How long after that it may be served while a refresh runs behind. RFC 5861 §3.
    pub stale_while_revalidate: Duration,
    /// How long after that it may stand in for an error. RFC 5861 §4.
    pub stale_if_error: Duration,
    /// One entry for all users, even for requests with credentials.
    pub shared: bool,
    /// What else belongs to the key.
    pub key: Vec<KeyPart>,
}

/// A part of the key that comes from the request's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// `header:NAME`: all its lines.
    Header(String),
    /// `cookie:NAME`: one cookie; where a request sends it more than once, all of them.
    Cookie(String),
}

/// The rule that really applies to a request, after the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effective<'r> {
    Off,
    Respect,
    Override(&'r Override),
}

impl Rule {
    /// Applies the guard.
    pub(crate) fn effective(&self, facts: &RequestFacts<'_>) -> Effective<'_> {
        match self {
            Self::Off => Effective::Off,
            Self::Respect => Effective::Respect,
            Self::Override(rule) if rule.covers(facts) => Effective::Override(rule),
            Self::Override(_) => Effective::Respect,
        }
    }

    /// The key's extra parts.
    pub(crate) fn key_parts(&self) -> &[KeyPart] {
        match self {
            Self::Override(rule) => &rule.key,
            Self::Off | Self::Respect => &[],
        }
    }
}

impl Override {
    /// Whether sharing an answer to this request is what the operator meant.
    fn covers(&self, facts: &RequestFacts<'_>) -> bool {
        self.shared
            || (!facts.has_authorization || self.keyed_by_header("authorization"))
                && (!facts.has_cookie || self.keyed_by_header("cookie"))
    }

    /// Whether all of a header is in the key. One cookie of several is not.
    pub(crate) fn keyed_by_header(&self, name: &str) -> bool {
        self.key
            .iter()
            .any(|part| matches!(part, KeyPart::Header(header) if header.eq_ignore_ascii_case(name)))
    }
}
