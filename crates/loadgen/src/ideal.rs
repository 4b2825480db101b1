//! What an unlimited cache would have fetched: the yardstick a real cache is held to.
//!
//! **Intuition.** "Few requests reach the shop" says little until one knows how few are possible. An unlimited cache
//! with the same times to live, which never evicts and never asks twice at once, gives the number below which nobody
//! can get without serving older copies than the owner allowed.
//!
//! **Definition.** The log's requests are played in the order of their starts, `started_us`. A target (the path and
//! query as sent; equal targets share a copy whatever route asked) is in one of three states. *Empty*: a request
//! fetches. *Being fetched*, from the request that fetches until `origin_us` of its route later: a request joins it.
//! *Held*, from then on: a request is served from the copy while its age, counted from the fetch's end, is below the
//! ttl of the request's route; at `age ≥ ttl` it fetches. A fetch is a fetch whether it brings a new body or a 304, so
//! revalidations are included. Stale-while-revalidate changes who waits for a fetch, not how many there are, and
//! stale-if-error serves only where a fetch failed; neither appears here. Routes without a ttl (`None`) are not cached
//! and not counted. Every fetch succeeds.
//!
//! Each choice favours the ideal cache (its copies live from the fetch's end, not its beginning; it knows no failed
//! fetch), so that a comparison with it errs to the disadvantage of the real one.

use std::collections::HashMap;

use crate::request_log::RequestLog;

/// How a route's answers are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// How long a copy may be served, in milliseconds. None: not cached, not counted.
    pub ttl_ms: Option<u64>,
    /// How long the origin takes to answer, in microseconds: requests in that time share one fetch.
    pub origin_us: u64,
}

impl Rule {
    /// Not cached.
    pub const OFF: Self = Self { ttl_ms: None, origin_us: 0 };
}

/// What came of the ideal cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ideal {
    /// Requests to routes that are cached.
    pub requests: u64,
    /// Of them, those that reached the origin.
    pub fetches: u64,
}

/// Fetches of an unlimited cache: [`play`]'s short form.
#[must_use]
pub fn fetches(log: &RequestLog, rules: &[Rule]) -> u64 {
    play(log, rules).fetches
}

/// Plays the log against an unlimited cache; `rules[i]` is route i's, and routes beyond the list are not cached.
#[must_use]
pub fn play(log: &RequestLog, rules: &[Rule]) -> Ideal {
    let mut order: Vec<_> = log.lines().iter().collect();
    order.sort_by_key(|line| line.started_us);
    // When the copy of a target was (or will be) complete.
    let mut held_from_us: HashMap<u64, u64> = HashMap::new();
    let mut ideal = Ideal::default();
    for line in order {
        let rule = rules.get(usize::from(line.route)).copied().unwrap_or(Rule::OFF);
        let Some(ttl_ms) = rule.ttl_ms else { continue };
        ideal.requests += 1;
        // A fetch that ends in the future is one to join: its copy's age is zero as soon as there is one. A ttl of
        // zero still joins it.
        let is_served = held_from_us.get(&line.target).is_some_and(|&from_us| {
            line.started_us < from_us || line.started_us - from_us < ttl_ms.saturating_mul(1000)
        });
        if !is_served {
            ideal.fetches += 1;
            held_from_us.insert(line.target, line.started_us.saturating_add(rule.origin_us));
        }
    }
    ideal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_log::LogLine;

    /// Requests as (start in ms, target, route).
    fn log(requests: &[(u64, u64, u16)]) -> RequestLog {
        let line = |&(start_ms, target, route): &(u64, u64, u16)| LogLine {
            intended_us: start_ms * 1000,
            started_us: start_ms * 1000,
            ended_us: start_ms * 1000 + 1,
            target,
            route,
            ok: true,
        };
        RequestLog::of_lines(requests.iter().map(line).collect())
    }

    fn check(ttl_ms: u64, origin_ms: u64, requests: &[(u64, u64, u16)], expected: u64) {
        let rules = [Rule { ttl_ms: Some(ttl_ms), origin_us: origin_ms * 1000 }];
        assert_eq!(fetches(&log(requests), &rules), expected, "ttl {ttl_ms} origin {origin_ms} {requests:?}");
    }

    #[test]
    fn a_copy_is_fetched_once_per_ttl() {
        check(1000, 0, &[], 0);
        check(1000, 0, &[(0, 1, 0)], 1);
        check(1000, 0, &[(0, 1, 0), (1, 1, 0), (999, 1, 0)], 1);
        check(1000, 0, &[(0, 1, 0), (1000, 1, 0)], 2);
        check(1000, 0, &[(0, 1, 0), (999, 1, 0), (1998, 1, 0)], 2);
        check(1000, 0, &[(0, 1, 0), (0, 2, 0), (500, 1, 0), (500, 2, 0)], 2);
    }

    #[test]
    fn requests_during_a_fetch_share_it() {
        check(1000, 50, &[(0, 1, 0), (10, 1, 0), (49, 1, 0)], 1);
        check(0, 50, &[(0, 1, 0), (10, 1, 0), (49, 1, 0), (50, 1, 0), (60, 1, 0)], 2);
    }

    #[test]
    fn age_counts_from_the_end_of_the_fetch() {
        check(1000, 50, &[(0, 1, 0), (1049, 1, 0)], 1);
        check(1000, 50, &[(0, 1, 0), (1050, 1, 0)], 2);
    }

    #[test]
    fn order_is_by_start_not_by_intention() {
        let mut lines = log(&[(0, 1, 0), (10, 1, 0)]).lines().to_vec();
        lines[0].started_us = 2_000_000;
        let rules = [Rule { ttl_ms: Some(1000), origin_us: 0 }];
        assert_eq!(fetches(&RequestLog::of_lines(lines), &rules), 2);
    }

    #[test]
    fn routes_have_their_own_ttl_but_share_copies_of_one_target() {
        let rules =
            [Rule { ttl_ms: Some(1000), origin_us: 0 }, Rule { ttl_ms: Some(100), origin_us: 0 }, Rule::OFF];
        let played =
            play(&log(&[(0, 1, 0), (50, 1, 1), (200, 1, 1), (250, 1, 0), (260, 1, 2), (270, 1, 3)]), &rules);
        assert_eq!(played, Ideal { requests: 4, fetches: 2 });
    }
}
