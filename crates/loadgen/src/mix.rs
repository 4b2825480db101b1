//! A scenario made ready to play: which route the n-th request takes, and what fills its holes.
//!
//! All of it is a function of the plan's seed and the request's number, so that threads agree without talking and a
//! run can be repeated. Routes are drawn by weight. Keys are the one thing that needs counting: they go to the requests
//! that need one, in the trace's order, and each thread counts for all.

use std::sync::Arc;

use tenfold_http1::Method;

use crate::error::Error;
use crate::plan::Plan;
use crate::random::Random;
use crate::scenario::{CountHeader, Route, is_expected};
use crate::target::Target;
use crate::template::{Fill, Template};
use crate::trace::KeyTrace;
use crate::worker::Job;

/// Told apart from the streams that fill templates.
const ROUTE_STREAM: u64 = 0x726f_7574_6500_0000;
const TOKEN_STREAM: u64 = 0x746f_6b65_6e00_0000;

/// A scenario ready to play.
#[derive(Debug)]
pub(crate) struct Mix {
    pub(crate) routes: Vec<RoutePlan>,
    pub(crate) count_headers: Vec<CountHeader>,
    /// Sums of weights up to and including each route.
    weights: Vec<u64>,
    keys: Option<Arc<KeyTrace>>,
    tokens: Arc<Vec<String>>,
    seed: u64,
}

/// A route ready to play.
#[derive(Debug)]
pub(crate) struct RoutePlan {
    pub(crate) method: Method,
    /// By target: they differ in the Host field.
    pub(crate) templates: Vec<Template>,
    needs_key: bool,
    expect: Vec<u16>,
}

impl RoutePlan {
    pub(crate) fn new(route: &Route, targets: &[Target]) -> Result<Self, Error> {
        let templates: Result<Vec<_>, _> =
            targets.iter().map(|target| Template::of_route(route, &target.authority)).collect();
        let templates = templates?;
        Ok(Self {
            method: Method::from_bytes(route.method.as_bytes()),
            needs_key: templates.iter().any(Template::needs_key),
            templates,
            expect: route.expect.clone(),
        })
    }

    pub(crate) fn expects(&self, status: u16) -> bool {
        is_expected(&self.expect, status)
    }
}

impl Mix {
    /// Prepares the plan's scenario. The plan's tokens must be there if its routes need any.
    pub(crate) fn new(plan: &Plan, targets: &[Target]) -> Result<Self, Error> {
        plan.scenario.validate()?;
        let refuse = |why: &str| Err(Error::Scenario(why.to_owned()));
        if plan.scenario.needs_keys() && plan.keys.is_none() {
            return refuse("a route has {key}, but the plan has no key trace");
        }
        if plan.scenario.needs_tokens() && plan.tokens.is_empty() {
            return refuse("a route has {token}, but no set-up request brings one home");
        }
        let routes: Result<Vec<_>, _> =
            plan.scenario.routes.iter().map(|route| RoutePlan::new(route, targets)).collect();
        let weights = plan.scenario.routes.iter().scan(0, |sum, route| {
            *sum += u64::from(route.weight);
            Some(*sum)
        });
        Ok(Self {
            routes: routes?,
            count_headers: plan.scenario.count_headers.clone(),
            weights: weights.collect(),
            keys: plan.keys.clone(),
            tokens: Arc::clone(&plan.tokens),
            seed: plan.seed,
        })
    }

    /// The route of the n-th request.
    pub(crate) fn route(&self, number: u64) -> u16 {
        let total = *self.weights.last().expect("a valid scenario has routes");
        let drawn = Random::of_request(self.seed ^ ROUTE_STREAM, number).below(total);
        let index = self.weights.partition_point(|&sum| sum <= drawn);
        u16::try_from(index).expect("at most ROUTES_MAX routes")
    }

    /// Whether the route takes a key from the trace.
    pub(crate) fn needs_key(&self, route: u16) -> bool {
        self.routes[usize::from(route)].needs_key
    }

    /// The rank of the n-th request among those that take a key.
    pub(crate) fn rank(&self, keyed: u64) -> u32 {
        self.keys.as_ref().map_or(0, |keys| keys.rank(keyed))
    }

    /// What fills the holes of a job's request.
    pub(crate) fn fill(&self, job: Job) -> Fill<'_> {
        let tokens = u64::try_from(self.tokens.len()).expect("usize fits u64");
        let drawn = Random::of_request(self.seed ^ TOKEN_STREAM, job.number).below(tokens);
        let token =
            self.tokens.get(usize::try_from(drawn).expect("below a usize")).map_or("", String::as_str);
        Fill { key: u64::from(job.rank) + 1, number: job.number, token, seed: self.seed }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scenario::Scenario;
    use crate::schedule::{Schedule, Spacing};

    fn plan(json: &str) -> Plan {
        let scenario: Scenario = serde_json::from_str(json).unwrap();
        let schedule = Schedule::constant(1.0, Duration::from_secs(1), Spacing::Even, 0).unwrap();
        Plan::new(vec!["http://127.0.0.1:1".into()], scenario, schedule)
    }

    fn mix(plan: &Plan) -> Result<Mix, Error> {
        Mix::new(plan, &Target::resolve_all(&plan.targets, false)?)
    }

    #[test]
    fn routes_are_drawn_by_weight() {
        let mix = mix(&plan(
            r#"{"route": [{"name": "a", "weight": 7, "path": "/a"}, {"name": "never", "weight": 0, "path": "/"},
                {"name": "b", "weight": 3, "path": "/b"}]}"#,
        ))
        .unwrap();
        let mut drawn = [0_u32; 3];
        (0..100_000).for_each(|n| drawn[usize::from(mix.route(n))] += 1);
        assert!((69_000..71_000).contains(&drawn[0]) && drawn[1] == 0, "{drawn:?}");
    }

    #[test]
    fn what_a_route_needs_must_be_there() {
        let mut keyed = plan(r#"{"route": [{"name": "a", "weight": 1, "path": "/{key}"}]}"#);
        assert!(mix(&keyed).is_err());
        keyed.keys = Some(Arc::new(KeyTrace::of_keys([5, 6]).unwrap()));
        let keyed = mix(&keyed).unwrap();
        assert_eq!([keyed.rank(0), keyed.rank(1), keyed.rank(2)], [0, 1, 0]);
        let mut tokens = plan(r#"{"route": [{"name": "a", "weight": 1, "path": "/{token}"}]}"#);
        assert!(mix(&tokens).is_err());
        tokens.tokens = Arc::new(vec!["t".into()]);
        assert!(mix(&tokens).is_ok());
    }
}
