//! What of a query counts.
//!
//! **Intuition.** `?utm_source=mail&id=7` and `?id=7` are one page, and so are `?a=1&b=2` and `?b=2&a=1` for most origins;
//! stored apart they fill the cache and empty the hit ratio. A route can say so.
//!
//! **Mechanism.** Parameters are kept or dropped by name (`utm_*` for all that begin so), then sorted by name; those of
//! one name keep their order, which may mean something. The outcome is what the key holds *and* what the node is asked
//! for: were the dropped parameters sent on, one client's could shape the answer that all others get.
//!
//! **Failure.** Names are compared as they are written: `%75tm_x` is not `utm_x`, and is kept, which costs an entry.

use std::borrow::Cow;

/// A route's `query` setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryRule {
    /// Sort parameters by name.
    pub sort: bool,
    /// Only these, if there are any.
    pub keep: Vec<Pattern>,
    /// Never these.
    pub drop: Vec<Pattern>,
}

/// A parameter's name, or with a `*` at its end how it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    start: Box<[u8]>,
    whole: bool,
}

impl Pattern {
    /// `utm_*` or `sessionid`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(start) => Self { start: start.as_bytes().into(), whole: false },
            None => Self { start: text.as_bytes().into(), whole: true },
        }
    }

    fn fits(&self, name: &[u8]) -> bool {
        if self.whole { name == &*self.start } else { name.starts_with(&self.start) }
    }
}

impl QueryRule {
    /// What is left of a query; `None` if nothing is. A query that is as it should be is not copied.
    #[must_use]
    pub fn apply<'q>(&self, query: &'q str) -> Option<Cow<'q, str>> {
        let counts = |parameter: &&str| {
            let name = name_of(parameter);
            (self.keep.is_empty() || self.keep.iter().any(|pattern| pattern.fits(name)))
                && !self.drop.iter().any(|pattern| pattern.fits(name))
        };
        let all = || query.split('&');
        let is_sorted = || all().is_sorted_by_key(name_of);
        if all().all(|parameter| counts(&parameter)) && (!self.sort || is_sorted()) {
            return Some(Cow::Borrowed(query));
        }
        let mut kept: Vec<&str> = all().filter(counts).collect();
        if self.sort {
            kept.sort_by_key(|parameter| name_of(parameter));
        }
        if kept.is_empty() { None } else { Some(Cow::Owned(kept.join("&"))) }
    }
}

fn name_of(parameter: &str) -> &[u8] {
    parameter.split('=').next().unwrap_or_default().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(sort: bool, keep: &[&str], drop: &[&str]) -> QueryRule {
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::new(text)).collect();
        QueryRule { sort, keep: patterns(keep), drop: patterns(drop) }
    }

    fn check(rule: &QueryRule, query: &str, expected: Option<&str>) {
        assert_eq!(rule.apply(query).as_deref(), expected, "{query}");
    }

    #[test]
    fn parameters_are_dropped_kept_and_sorted() {
        let utm = rule(false, &[], &["utm_*", "fbclid"]);
        check(&utm, "utm_source=mail&id=7&fbclid=x", Some("id=7"));
        check(&utm, "utm_source=mail", None);
        check(&utm, "fbclids=1", Some("fbclids=1"));
        check(&utm, "b=1&a=2", Some("b=1&a=2"));
        check(&utm, "", Some(""));
        let only = rule(false, &["id", "page"], &[]);
        check(&only, "page=2&x=1&id=7", Some("page=2&id=7"));
        check(&only, "x", None);
        check(&rule(false, &["a*"], &["ab"]), "aa=1&ab=2&b=3", Some("aa=1"));
        let sorted = rule(true, &[], &[]);
        check(&sorted, "b=1&a=2", Some("a=2&b=1"));
        check(&sorted, "a=2&a=1&a=3", Some("a=2&a=1&a=3"));
        check(&sorted, "b&a=2&a=1", Some("a=2&a=1&b"));
    }

    proptest! {
        #[test]
        fn what_was_applied_once_stays(query in "[abu_t=&%]{0,24}", sort: bool) {
            let rule = rule(sort, &[], &["u*"]);
            let once = rule.apply(&query).map(Cow::into_owned);
            if let Some(once) = &once {
                let twice = rule.apply(once).map(Cow::into_owned);
                prop_assert_eq!(twice.as_ref(), Some(once));
                prop_assert!(once.len() <= query.len());
            }
        }
    }
}
