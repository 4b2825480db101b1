//! A cluster: which node gets the next attempt, and what each outcome teaches.
//!
//! **Intuition.** Prefer nodes that are well. Try a doubtful one only if no other is left, and an ejected one only as the
//! last resort of a retry. When checks say that more than half are down, suspect the checks and use all of them, except
//! where requests agree that nobody listens. When nothing is worth a connection attempt, say so at once.
//!
//! **Mechanism.** [`Cluster::pick`] sorts the nodes that were not tried into classes (one load each), takes the best class
//! that has any, and lets the policy choose within it. No lock. Outcomes count failures in a row; the one that reaches the
//! threshold takes the cluster's lock and ejects the node, unless too many are out already.
//!
//! What the probes' thresholds mean: before its first probe a node is used. The first probe that passes makes it up;
//! `fail_after` failures in a row make it down; `pass_after` passes in a row bring it back, and then it is clear of
//! anything that requests had found. A node that was ejected because nobody listened, or for the first time because
//! connections broke, but was never down, is also clear after `pass_after` passes since. So traffic returns within
//! `pass_after` + 1 intervals of a node's return; a node that breaks requests while its probes pass serves its whole,
//! doubling time.
//!
//! **Failure.** Losing a race between two workers costs at most one more attempt on a bad node. A reload keeps what is
//! known of nodes whose names stay: requests of the old generation report into the same node.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    config::{ClusterConfig, Error, Policy},
    node::{Active, CLASSES, Cause, Node, NodeState, Outcome, Passive, Phase, TRIAL_MS},
    node_set::{NodeSet, Tried},
    policy::Rotation,
    retry_budget::RetryBudget,
};

/// Lost races for a trial before a pick goes ahead without one. Each lost race means that another worker won one.
const TRIAL_RACES_MAX: usize = 4;

/// A set of interchangeable nodes, shared by all workers.
#[derive(Debug)]
pub struct Cluster {
    config: ClusterConfig,
    /// In the order of `config.nodes`.
    nodes: Vec<Arc<Node>>,
    rotation: Rotation,
    budget: Arc<RetryBudget>,
    /// Zero of the milliseconds in the nodes' states; the same for all generations of a cluster.
    epoch: Instant,
    /// Held while a node changes its state; the same for all generations.
    changes: Arc<Mutex<()>>,
}

/// A node chosen for one attempt, which counts as in flight until this is dropped.
#[derive(Debug)]
pub struct Picked {
    cluster: Arc<Cluster>,
    node_index: usize,
    standing: Standing,
}

/// What the node was when it was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Clear,
    /// Ejected, failing, or on trial with another request.
    Out,
    /// This request is the trial.
    Trial,
}

/// Why no node can be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// Every node worth trying was tried by this request.
    #[error("every node worth trying was tried")]
    AllTried,
    /// The checks say that all nodes are down, and requests have found nobody listening.
    #[error("all nodes are down")]
    AllDown,
}

/// A node changed its state by active checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It passed again after being down.
    Up,
    /// It failed too often.
    Down,
}

/// A node at one moment, for status and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView<'a> {
    /// Its place in the configuration.
    pub index: usize,
    /// `host:port`.
    pub name: &'a str,
    /// Its weight.
    pub weight: u32,
    /// Attempts that run now.
    pub in_flight: u32,
    /// What it is to new requests.
    pub state: NodeState,
}

impl Cluster {
    /// Builds a cluster. With a `previous` generation, nodes that keep their name keep their counts and state, and an
    /// unchanged retry budget keeps its balance.
    pub fn new(config: ClusterConfig, previous: Option<&Self>, now: Instant) -> Result<Arc<Self>, Error> {
        config.validate()?;
        let kept =
            |name: &str| previous.and_then(|cluster| cluster.nodes.iter().find(|node| node.name == name));
        let nodes: Vec<_> = config
            .nodes
            .iter()
            .map(|node| kept(&node.name).cloned().unwrap_or_else(|| Arc::new(Node::new(node.name.clone()))))
            .collect();
        let weights: Vec<_> = config.nodes.iter().map(|node| node.weight).collect();
        let budget_config = config.retry.budget;
        let budget = previous
            .map(|cluster| &cluster.budget)
            .filter(|budget| budget.config() == budget_config)
            .map_or_else(|| Arc::new(RetryBudget::new(budget_config, now)), Arc::clone);
        Ok(Arc::new(Self {
            nodes,
            rotation: Rotation::new(&weights),
            budget,
            epoch: previous.map_or(now, |cluster| cluster.epoch),
            changes: previous.map_or_else(Arc::default, |cluster| Arc::clone(&cluster.changes)),
            config,
        }))
    }

    /// What it was built from.
    #[must_use]
    pub fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// The account that retries are drawn from, and that each ordinary request pays into.
    #[must_use]
    pub fn retry_budget(&self) -> &RetryBudget {
        &self.budget
    }

    /// Chooses a node that is not in `tried`. The caller adds the choice to `tried` before it asks again.
    pub fn pick(self: &Arc<Self>, tried: &Tried, now: Instant) -> Result<Picked, Unavailable> {
        let now_ms = self.millis(now);
        for _ in 0..TRIAL_RACES_MAX {
            let node_index = self.choose(tried, now_ms)?;
            let node = &self.nodes[node_index];
            let passive = node.passive();
            if !passive.is_over(now_ms) {
                let standing = if passive.phase == Phase::Clear { Standing::Clear } else { Standing::Out };
                return Ok(self.picked(node_index, standing));
            }
            let trial = Passive { phase: Phase::Trial, cause: passive.cause, until_ms: now_ms + TRIAL_MS };
            if node.swap_passive(passive, trial) {
                return Ok(self.picked(node_index, Standing::Trial));
            }
        }
        self.choose(tried, now_ms).map(|node_index| self.picked(node_index, Standing::Out))
    }

    /// A probe of a node has ended. Returns the change it made, if any, for the log.
    pub fn on_probe(&self, node_index: usize, has_passed: bool, now: Instant) -> Option<Transition> {
        let health = self.config.health.as_ref()?;
        let node = self.nodes.get(node_index)?;
        let _changing = self.changing();
        let mut record = node.record();
        let is_down = node.active() == Active::Down;
        if !has_passed {
            record.passed = 0;
            record.failed = record.failed.saturating_add(1);
            if is_down || record.failed < health.fail_after {
                return None;
            }
            node.set_active(Active::Down);
            return Some(Transition::Down);
        }
        record.failed = 0;
        record.passed = record.passed.saturating_add(1);
        if !is_down {
            node.set_active(Active::Up);
        }
        if record.passed < health.pass_after {
            return None;
        }
        let passive = node.passive();
        let settles = match passive.cause {
            // A node that was down was seen by the probes to be bad and then good, whatever it was bad at.
            _ if is_down => true,
            Cause::Unreachable => true,
            // Once is an accident. A node that breaks requests again and again while its probes pass is sick in a way that
            // they don't see, and must not be freed by them before its time.
            Cause::Broken => record.ejections <= 1,
            Cause::Errors => false,
        };
        if passive.phase != Phase::Clear && settles {
            node.set_passive(Passive::CLEAR);
            node.forget_failures();
            record.clear_since_ms = self.millis(now);
        }
        node.set_active(Active::Up);
        is_down.then_some(Transition::Up)
    }

    /// Its nodes as they are now, in the order of the configuration.
    pub fn nodes(&self, now: Instant) -> impl Iterator<Item = NodeView<'_>> {
        let now_ms = self.millis(now);
        self.nodes.iter().zip(&self.config.nodes).enumerate().map(move |(index, (node, config))| NodeView {
            index,
            name: &node.name,
            weight: config.weight,
            in_flight: node.in_flight(),
            state: if self.is_down(node) { NodeState::Down } else { node.passive().state(now_ms) },
        })
    }

    /// Requests in flight to all of its nodes.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.nodes.iter().map(|node| node.in_flight() as usize).sum()
    }

    /// Its checks say so, and there are checks: without them, nobody would ever bring it up again. The node itself is shared
    /// with other generations, which may have some.
    fn is_down(&self, node: &Node) -> bool {
        self.config.health.is_some() && node.active() == Active::Down
    }

    fn choose(&self, tried: &Tried, now_ms: u64) -> Result<usize, Unavailable> {
        let down = self.nodes.iter().filter(|node| self.is_down(node)).count();
        let is_panic = down * 2 > self.nodes.len();
        let mut classes = [NodeSet::default(); CLASSES];
        for (index, node) in self.nodes.iter().enumerate() {
            if tried.contains(index) {
                continue;
            }
            let is_down = self.is_down(node);
            if let Some(class) = node.passive().class(is_down, is_panic, now_ms) {
                classes[class as usize].insert(index);
            }
        }
        let Some(best) = classes.iter().find(|class| !class.is_empty()) else {
            return Err(if tried.is_empty() { Unavailable::AllDown } else { Unavailable::AllTried });
        };
        Ok(match self.config.policy {
            Policy::LeastConnections => self.rotation.least_busy(best, |index| self.nodes[index].in_flight()),
            Policy::RoundRobin => self.rotation.next(best),
        })
    }

    fn picked(self: &Arc<Self>, node_index: usize, standing: Standing) -> Picked {
        self.nodes[node_index].begin();
        Picked { cluster: Arc::clone(self), node_index, standing }
    }

    fn report(&self, node_index: usize, standing: Standing, outcome: Outcome, now: Instant) {
        let node = &self.nodes[node_index];
        let Some((halves, cause)) = outcome.failure() else {
            if standing != Standing::Clear {
                self.clear(node, now);
            }
            if outcome == Outcome::Ok {
                node.forget_failures();
            }
            return;
        };
        match standing {
            Standing::Trial if node.passive().phase == Phase::Trial => self.eject(node, cause, now),
            // Also a trial that probes have overtaken.
            Standing::Clear | Standing::Trial => self.count_failure(node, halves, cause, now),
            // It is out already. That nobody listens is worth knowing all the same.
            Standing::Out if cause == Cause::Unreachable => {
                let passive = node.passive();
                if passive.phase != Phase::Clear {
                    // Lost to another change: that one knows better.
                    node.swap_passive(passive, Passive { cause, ..passive });
                }
            }
            Standing::Out => {}
        }
    }

    fn count_failure(&self, node: &Node, halves: u32, cause: Cause, now: Instant) {
        let threshold = self.threshold_halves();
        // Requests that were in flight when the node went out are no new evidence.
        if threshold == 0 || node.passive().phase != Phase::Clear {
            return;
        }
        if node.add_failure(halves) >= threshold {
            self.eject(node, cause, now);
        }
    }

    /// Failures in a row that put a node out, in halves; zero for never.
    fn threshold_halves(&self) -> u32 {
        self.config.passive.consecutive_failures.saturating_mul(2)
    }

    /// Puts a node out that is clear, or whose trial has failed. Twice as long as last time, if that was not long ago.
    fn eject(&self, node: &Node, cause: Cause, now: Instant) {
        let now_ms = self.millis(now);
        let _changing = self.changing();
        let read = node.passive();
        if !matches!(read.phase, Phase::Clear | Phase::Trial) {
            return;
        }
        let mut record = node.record();
        let limits = &self.config.passive;
        let was_clear_ms = now_ms.saturating_sub(record.clear_since_ms);
        if read.phase == Phase::Clear && was_clear_ms > as_millis(limits.eject_for_max) {
            record.ejections = 0;
        }
        let doubled_ms = as_millis(limits.eject_for).saturating_mul(1 << record.ejections.min(16));
        let phase = if self.may_eject(node) { Phase::Ejected } else { Phase::Failing };
        let until_ms = now_ms.saturating_add(doubled_ms.min(as_millis(limits.eject_for_max)));
        record.ejections = record.ejections.saturating_add(1);
        record.passed = 0;
        node.set_passive(Passive { phase, cause, until_ms });
        node.forget_failures();
    }

    /// True if, with this node out, no more than the allowed share would be.
    fn may_eject(&self, node: &Node) -> bool {
        let is_out = |other: &Node| matches!(other.passive().phase, Phase::Ejected) || self.is_down(other);
        let others = self.nodes.iter().filter(|other| !std::ptr::eq(&***other, node));
        let out = 1 + others.filter(|other| is_out(other)).count();
        let share_max = self.config.passive.ejected_percent_max.min(50) as usize;
        out * 100 <= self.nodes.len() * share_max
    }

    /// Takes a node back on the word of one head: the next failure, should no whole answer come before it, is one too
    /// many.
    fn clear(&self, node: &Node, now: Instant) {
        if node.passive().phase == Phase::Clear {
            return;
        }
        let _changing = self.changing();
        node.presume_failures(self.threshold_halves().saturating_sub(2));
        node.set_passive(Passive::CLEAR);
        node.record().clear_since_ms = self.millis(now);
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self, now: Instant) -> u64 {
        as_millis(now.saturating_duration_since(self.epoch))
    }
}

impl Picked {
    /// The node's place in the configuration, for [`Tried::insert`].
    #[must_use]
    pub fn node_index(&self) -> usize {
        self.node_index
    }

    /// `host:port`.
    #[must_use]
    pub fn node_name(&self) -> &str {
        &self.cluster.nodes[self.node_index].name
    }

    /// The cluster it belongs to.
    #[must_use]
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Tells how the attempt went: [`Outcome::HeadOk`] as soon as the response's head is here, and once more how its body
    /// ended. [`Outcome::Ok`] is that it came whole, or that it was still coming when its client had enough. An attempt
    /// given up for the client's sake before it was answered is not reported.
    pub fn report(&self, outcome: Outcome, now: Instant) {
        self.cluster.report(self.node_index, self.standing, outcome, now);
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.cluster.nodes[self.node_index].end();
    }
}

fn as_millis(duration: Duration) -> u64 {
    // Sixty bits are what a node's state keeps, and more than any clock reaches.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(1 << 59)
}
