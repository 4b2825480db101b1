//! What is asked for: the mix of requests that users make.
//!
//! **Intuition.** A shop's traffic is a few kinds of request in steady proportions: many product pages, fewer lists,
//! a cart here and there, an order. A scenario names each kind once, with its weight and what counts as a good answer.
//!
//! **Mechanism.** Plain structs that the binary fills from a TOML or JSON file. Paths, header values and bodies are
//! templates:
//!
//! | placeholder | becomes |
//! |---|---|
//! | `{key}` | the next key of the key trace, counted from 1; the same one throughout a request |
//! | `{random:1-500}` | a number from 1 to 500, both included |
//! | `{n}` | the request's number in the run, from 0; in a set-up request, the repetition's, from 0 |
//! | `{token}` | one of the tokens that set-up requests brought home, at random; the same one throughout a request |
//!
//! Any other brace is text, so that JSON bodies need no escaping; a brace around a word that is no placeholder
//! (`{kye}`) is refused, since JSON has no such thing and it is certainly a mistake.
//!
//! **Failure.** [`Scenario::validate`] says what can't be played before anything is sent.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::template::Template;

/// Kinds of request in one scenario.
pub const ROUTES_MAX: usize = 256;
/// Set-up requests in all, repetitions counted.
pub const SETUP_REQUESTS_MAX: u32 = 10_000;
/// Response headers whose values may be counted.
pub const COUNTED_HEADERS_MAX: usize = 8;

/// A mix of requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What the report calls it.
    #[serde(default)]
    pub name: String,
    /// Sent once, in order, before the run: log-ins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<Setup>,
    /// The kinds of request.
    #[serde(rename = "route")]
    pub routes: Vec<Route>,
    /// Response headers whose values the report counts.
    #[serde(default, rename = "count_header", skip_serializing_if = "Vec::is_empty")]
    pub count_headers: Vec<CountHeader>,
}

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// What the report calls it.
    pub name: String,
    /// Its share of the mix, relative to the other weights.
    pub weight: u32,
    /// The HTTP method.
    #[serde(default = "get")]
    pub method: String,
    /// The target in origin form, a template.
    pub path: String,
    /// Fields beside Host, User-Agent and Accept; values are templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body, a template. `Content-Type: application/json` unless `headers` say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The statuses that count as success. Empty: 200 to 399.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<u16>,
    /// Its latency is not held against the SLO (a payment provider's is not the shop's). Its errors still are.
    #[serde(default)]
    pub slo_exempt: bool,
    /// What a cache may do for it.
    #[serde(default)]
    pub class: Class,
}

/// What kind of answer a route gives. The report sums by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The same answer for everyone.
    #[default]
    Cacheable,
    /// An answer for one user alone.
    Personal,
    /// A request that changes something.
    Write,
}

impl Class {
    /// All of them, in the report's order.
    pub const ALL: [Self; 3] = [Self::Cacheable, Self::Personal, Self::Write];

    /// As written in files and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cacheable => "cacheable",
            Self::Personal => "personal",
            Self::Write => "write",
        }
    }
}

/// A request made before the run, whose answer holds a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// What error messages call it.
    pub name: String,
    /// How often it is sent.
    #[serde(default = "once")]
    pub repeat: u32,
    /// The HTTP method.
    #[serde(default = "post")]
    pub method: String,
    /// The target in origin form, a template.
    pub path: String,
    /// As in [`Route::headers`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// As in [`Route::body`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The statuses that count as success. Empty: 200 to 399.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<u16>,
    /// The field of the JSON answer to keep as a token, as a JSON pointer (`/token`, `/user/session/id`; RFC 6901).
    /// None: the answer is only checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<String>,
}

/// Counts the values of a response header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountHeader {
    /// The header's name, in any case.
    pub name: String,
    /// Which of the value's `;`-separated parts is counted, from 0. In `Cache-Status: tenfold; hit; ttl=3`, part 1
    /// is `hit`.
    #[serde(default)]
    pub part: usize,
}

impl CountHeader {
    /// Counts `name` by its first part, or `Cache-Status` by its second, which holds the verdict (RFC 9211).
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self { name: name.to_owned(), part: usize::from(name.eq_ignore_ascii_case("cache-status")) }
    }
}

fn get() -> String {
    "GET".to_owned()
}

fn post() -> String {
    "POST".to_owned()
}

fn once() -> u32 {
    1
}

/// True when `status` is one of `expect`, or, if that is empty, any of 200 to 399.
#[must_use]
pub(crate) fn is_expected(expect: &[u16], status: u16) -> bool {
    if expect.is_empty() { (200..400).contains(&status) } else { expect.contains(&status) }
}

impl Scenario {
    /// Refuses what can't be played.
    ///
    /// # Errors
    /// [`Error::Scenario`], naming the route and what is wrong with it.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::Scenario(why));
        if self.routes.is_empty() || self.routes.len() > ROUTES_MAX {
            return refuse(format!("{} routes; 1 to {ROUTES_MAX} are possible", self.routes.len()));
        }
        if self.routes.iter().all(|route| route.weight == 0) {
            return refuse("every weight is 0".into());
        }
        let logins: u32 = self.setup.iter().fold(0, |sum, setup| sum.saturating_add(setup.repeat));
        if logins > SETUP_REQUESTS_MAX {
            return refuse(format!("{logins} set-up requests; {SETUP_REQUESTS_MAX} are possible"));
        }
        if self.count_headers.len() > COUNTED_HEADERS_MAX {
            return refuse(format!("more than {COUNTED_HEADERS_MAX} headers to count"));
        }
        let mut names = BTreeSet::new();
        for route in &self.routes {
            if route.name.is_empty() || !names.insert(&route.name) {
                return refuse(format!("route name {:?} is empty or taken twice", route.name));
            }
            Template::of_route(route, "localhost")?;
        }
        for setup in &self.setup {
            let template = Template::of_route(&setup.as_route(), "localhost")?;
            if template.needs_key() || template.needs_token() {
                return refuse(format!(
                    "{}: a set-up request has neither {{key}} nor {{token}} yet",
                    setup.name
                ));
            }
        }
        Ok(())
    }

    /// Whether some route takes keys from a trace.
    #[must_use]
    pub fn needs_keys(&self) -> bool {
        self.templates().any(|template| template.needs_key())
    }

    /// Whether some route takes tokens from set-up requests.
    #[must_use]
    pub fn needs_tokens(&self) -> bool {
        self.templates().any(|template| template.needs_token())
    }

    /// The share of requests, in 0..=1, whose class is `class`.
    #[must_use]
    pub fn share(&self, class: Class) -> f64 {
        let weigh =
            |routes: &mut dyn Iterator<Item = &Route>| routes.map(|r| f64::from(r.weight)).sum::<f64>();
        weigh(&mut self.routes.iter().filter(|route| route.class == class)) / weigh(&mut self.routes.iter())
    }

    fn templates(&self) -> impl Iterator<Item = Template> {
        self.routes.iter().filter_map(|route| Template::of_route(route, "localhost").ok())
    }
}

impl Setup {
    /// The same request as a route, which is what templates are made of.
    pub(crate) fn as_route(&self) -> Route {
        Route {
            name: self.name.clone(),
            weight: 1,
            method: self.method.clone(),
            path: self.path.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            expect: self.expect.clone(),
            slo_exempt: false,
            class: Class::Personal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(json: &str) -> Result<Scenario, String> {
        let scenario: Scenario = serde_json::from_str(json).map_err(|error| error.to_string())?;
        scenario.validate().map_err(|error| error.to_string())?;
        Ok(scenario)
    }

    fn refused(json: &str, because: &str) {
        let error = scenario(json).unwrap_err();
        assert!(error.contains(because), "{json}: {error}");
    }

    #[test]
    fn a_route_needs_only_name_weight_and_path() {
        let scenario = scenario(r#"{"route": [{"name": "home", "weight": 1, "path": "/"}]}"#).unwrap();
        let route = &scenario.routes[0];
        assert_eq!((route.method.as_str(), route.class, route.slo_exempt), ("GET", Class::Cacheable, false));
        assert!(!scenario.needs_keys() && !scenario.needs_tokens());
    }

    #[test]
    fn shares_are_by_weight() {
        let scenario = scenario(
            r#"{"route": [{"name": "p", "weight": 18, "path": "/p/{key}"},
                {"name": "c", "weight": 1, "path": "/cart", "class": "personal", "headers": {"Authorization": "Bearer {token}"}},
                {"name": "o", "weight": 1, "method": "POST", "path": "/o", "class": "write", "body": "{\"n\": {n}}"}]}"#,
        )
        .unwrap();
        assert!((scenario.share(Class::Cacheable) - 0.9).abs() < 1e-9);
        assert!((scenario.share(Class::Write) - 0.05).abs() < 1e-9);
        assert!(scenario.needs_keys() && scenario.needs_tokens());
    }

    #[test]
    fn what_cannot_be_played_is_refused() {
        refused(r#"{"route": []}"#, "0 routes");
        refused(r#"{"route": [{"name": "a", "weight": 0, "path": "/"}]}"#, "weight");
        refused(r#"{"route": [{"name": "a", "weight": 1, "path": "p"}]}"#, "begin with /");
        refused(
            r#"{"route": [{"name": "a", "weight": 1, "path": "/"}, {"name": "a", "weight": 1, "path": "/"}]}"#,
            "twice",
        );
        refused(r#"{"route": [{"name": "a", "weight": 1, "path": "/{kye}"}]}"#, "{kye}");
        refused(r#"{"route": [{"name": "a", "weight": 1, "path": "/", "colour": "red"}]}"#, "colour");
        refused(
            r#"{"route": [{"name": "a", "weight": 1, "path": "/"}], "setup": [{"name": "in", "path": "/{token}"}]}"#,
            "neither",
        );
        refused(
            r#"{"route": [{"name": "a", "weight": 1, "path": "/"}], "setup": [{"name": "in", "path": "/", "repeat": 10001}]}"#,
            "10001",
        );
    }

    #[test]
    fn success_is_what_was_expected() {
        for (expect, status, ok) in [
            (&[][..], 200, true),
            (&[], 304, true),
            (&[], 404, false),
            (&[404], 404, true),
            (&[201], 200, false),
        ] {
            assert_eq!(is_expected(expect, status), ok, "{expect:?} {status}");
        }
    }
}
