//! Whole outages in virtual time: two nodes, 2,000 requests a second, and a node killed in the middle.
//!
//! A living node answers in 5 ms. A killed one breaks what is in flight and refuses connections after 100 µs. Every
//! fifth request is a POST. The player does what an edge does: one retry, if the rule and the budget allow it.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use tenfold_balance::{
    ClusterConfig, Outcome, Picked, Policy, Tried,
    retry_rule::{Attempt, Sent, may_retry},
};

use super::{Bench, POLICIES, checked_config, config};

const SERVICE: Duration = Duration::from_millis(5);
const REFUSAL: Duration = Duration::from_micros(100);
const PER_SECOND: u32 = 2_000;

struct Request {
    number: u64,
    arrived: Instant,
    tried: Tried,
    /// A connection to a node was made and the request written.
    times_sent: u32,
}

enum Event {
    Arrival(u64),
    /// The attempt ends, unless the node dies first.
    End(Request, Picked, Connection),
    Probe,
    Power {
        node: usize,
        is_on: bool,
    },
}

/// How an attempt stood when it began.
#[derive(Clone, Copy, PartialEq)]
enum Connection {
    Refused,
    /// Made in this life of the node.
    Made(u32),
}

#[derive(Debug, Default)]
struct Tally {
    requests: u64,
    failed_gets: u64,
    failed_posts: u64,
    posts_sent_twice: u64,
    /// From arrival to the answer "no node", at worst.
    slowest_failure: Duration,
    /// When each request that succeeded began, on which node.
    succeeded: Vec<(Instant, usize)>,
}

struct Player {
    bench: Bench,
    start: Instant,
    /// Even: the node lives. Odd: it is dead.
    lives: [u32; 2],
    /// Events by time, then by order of making.
    queue: BinaryHeap<Reverse<(Instant, usize)>>,
    events: Vec<Option<Event>>,
    tally: Tally,
}

impl Player {
    fn new(config: ClusterConfig) -> Self {
        let bench = Bench::new(config);
        let start = bench.now;
        let (lives, queue, events) = ([0; 2], BinaryHeap::new(), Vec::new());
        Self { bench, start, lives, queue, events, tally: Tally::default() }
    }

    /// Plays this much traffic with nodes switched off and on: `(second, node, is_on)`.
    fn play(mut self, per_second: u32, seconds: u32, power: &[(u64, usize, bool)]) -> (Tally, Instant) {
        let between = Duration::from_secs(1) / per_second;
        for number in 0..seconds * per_second {
            self.at(self.start + between * number, Event::Arrival(number.into()));
        }
        for second in (0..seconds).step_by(2) {
            self.at(self.start + Duration::from_secs(second.into()), Event::Probe);
        }
        for &(second, node, is_on) in power {
            // Not on the second, where probes are, but as far from the next one as can be.
            let moment = self.start + Duration::from_secs(second) + Duration::from_millis(1);
            self.at(moment, Event::Power { node, is_on });
        }
        while let Some(Reverse((moment, index))) = self.queue.pop() {
            self.bench.now = moment;
            let event = self.events[index].take().unwrap();
            self.happen(event);
        }
        assert_eq!(self.bench.in_flight(), 0);
        (self.tally, self.start)
    }

    fn at(&mut self, moment: Instant, event: Event) {
        self.queue.push(Reverse((moment, self.events.len())));
        self.events.push(Some(event));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival(number) => {
                self.tally.requests += 1;
                self.bench.cluster.retry_budget().on_request(self.bench.now);
                let arrived = self.bench.now;
                self.attempt(Request { number, arrived, tried: Tried::default(), times_sent: 0 });
            }
            Event::End(request, picked, connection) => self.end(request, &picked, connection),
            Event::Probe => {
                // Ignored by a cluster without checks.
                for node in [0, 1] {
                    self.bench.cluster.on_probe(node, self.is_on(node), self.bench.now);
                }
            }
            Event::Power { node, is_on } => {
                self.lives[node] += u32::from(is_on != self.is_on(node));
            }
        }
    }

    fn attempt(&mut self, mut request: Request) {
        let Ok(picked) = self.bench.cluster.pick(&request.tried, self.bench.now) else {
            return self.fail(&request);
        };
        let node = picked.node_index();
        request.tried.insert(node);
        let (after, connection) = if self.is_on(node) {
            request.times_sent += 1;
            self.tally.posts_sent_twice += u64::from(request.is_post() && request.times_sent == 2);
            (SERVICE, Connection::Made(self.lives[node]))
        } else {
            (REFUSAL, Connection::Refused)
        };
        self.at(self.bench.now + after, Event::End(request, picked, connection));
    }

    fn end(&mut self, request: Request, picked: &Picked, connection: Connection) {
        let node = picked.node_index();
        let (outcome, sent) = match connection {
            Connection::Refused => (Outcome::ConnectFailed, Sent::Nothing),
            Connection::Made(life) if life == self.lives[node] => (Outcome::Ok, Sent::Possibly),
            Connection::Made(_) => (Outcome::Reset, Sent::Possibly),
        };
        picked.report(outcome, self.bench.now);
        if outcome == Outcome::Ok {
            self.tally.succeeded.push((request.arrived, node));
            return;
        }
        let attempt = Attempt {
            is_idempotent: !request.is_post(),
            body_is_replayable: !request.is_post(),
            sent,
            response_has_started: false,
        };
        let is_first = request.tried.len() == 1;
        if is_first && may_retry(&attempt) && self.bench.cluster.retry_budget().try_withdraw(self.bench.now) {
            self.attempt(request);
        } else {
            self.fail(&request);
        }
    }

    fn fail(&mut self, request: &Request) {
        let waited = self.bench.now - request.arrived;
        if request.times_sent == 0 {
            self.tally.slowest_failure = self.tally.slowest_failure.max(waited);
        }
        let failed =
            if request.is_post() { &mut self.tally.failed_posts } else { &mut self.tally.failed_gets };
        *failed += 1;
    }

    fn is_on(&self, node: usize) -> bool {
        self.lives[node].is_multiple_of(2)
    }
}

impl Request {
    fn is_post(&self) -> bool {
        self.number % 5 == 4
    }
}

fn with_and_without_checks() -> impl Iterator<Item = ClusterConfig> {
    let both = |policy: Policy| [config(policy, &[1, 1]), checked_config(policy, &[1, 1])];
    POLICIES.into_iter().flat_map(both)
}

#[test]
fn one_node_of_two_is_killed_and_hardly_a_request_fails() {
    for config in with_and_without_checks() {
        let name = format!("{:?} {:?}", config.policy, config.health.is_some());
        let (tally, _) = Player::new(config).play(PER_SECOND, 30, &[(3, 0, false)]);
        assert_eq!(tally.requests, 60_000);
        assert_eq!(tally.failed_gets, 0, "{name}");
        assert_eq!(tally.posts_sent_twice, 0, "{name}");
        // Those that the dead node had in its hands.
        assert!((1..=10).contains(&tally.failed_posts), "{name} {}", tally.failed_posts);
        assert_eq!(tally.failed_gets + tally.failed_posts + tally.succeeded.len() as u64, 60_000);
    }
}

#[test]
fn both_dead_is_said_at_once() {
    for config in with_and_without_checks() {
        let name = format!("{:?} {:?}", config.policy, config.health.is_some());
        let (tally, start) = Player::new(config).play(PER_SECOND, 15, &[(1, 0, false), (5, 1, false)]);
        let dead = start + Duration::from_secs(5);
        assert!(tally.succeeded.iter().all(|(began, _)| *began <= dead + Duration::from_millis(1)));
        assert!(tally.slowest_failure <= Duration::from_millis(1), "{name} {:?}", tally.slowest_failure);
        assert_eq!(tally.posts_sent_twice, 0);
    }
}

#[test]
fn traffic_returns_within_pass_after_and_one_intervals() {
    for policy in POLICIES {
        let config = checked_config(policy, &[1, 1]);
        let health = config.health.clone().unwrap();
        let within = health.every * (health.pass_after + 1);
        // Dead for a second (ejected only), for long (ejected many times over, and down), and both at once.
        let scripts: [&[_]; 3] = [
            &[(20, 0, false), (21, 0, true)],
            &[(2, 0, false), (90, 0, true)],
            &[(20, 0, false), (20, 1, false), (90, 0, true)],
        ];
        for power in scripts {
            let (tally, start) = Player::new(config.clone()).play(200, 100, power);
            let returned = start + Duration::from_secs(power.last().unwrap().0);
            let served = tally.succeeded.iter().filter(|(began, node)| *node == 0 && *began > returned);
            let first = served.map(|(began, _)| *began).min().expect("traffic returns");
            // A trial may come first; a share of the traffic is what counts.
            let settled = returned + within;
            let span = settled..settled + Duration::from_secs(1);
            let share =
                tally.succeeded.iter().filter(|(began, node)| *node == 0 && span.contains(began)).count();
            assert!(first <= settled && share >= 90, "{policy:?} {power:?} {:?} {share}", first - returned);
        }
    }
}

#[test]
fn retries_stay_within_their_budget() {
    // Both nodes dead from the start: every request is refused, and the budget is all there is.
    let config = config(Policy::LeastConnections, &[1, 1]);
    let bench = Bench::new(config);
    let budget = bench.cluster.retry_budget();
    let mut retries = 0;
    for number in 0..20_000_u32 {
        let now = bench.now + Duration::from_secs(1) / PER_SECOND * number;
        budget.on_request(now);
        retries += u32::from(budget.try_withdraw(now));
    }
    // A fifth of the requests, and ten for each of the ten seconds.
    assert_eq!(retries, 4_000 + 100);
}
