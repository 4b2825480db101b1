//! What probes and failing requests do to a node, in tables.

use std::time::Duration;

use tenfold_balance::{
    Cluster, ClusterConfig, NodeConfig, NodeState,
    NodeState::{Down, Ejected, Failing, OnTrial, Up},
    Outcome,
    Outcome::{ConnectFailed, HeadOk, Ok, Reset, ServerError, Timeout},
    Picked, Policy, Transition, Tried, Unavailable,
};

use super::{Bench, checked_config, config};

const SECOND: Duration = Duration::from_secs(1);

fn plain(nodes: usize) -> Bench {
    Bench::new(config(Policy::RoundRobin, &vec![1; nodes]))
}

fn checked(nodes: usize) -> Bench {
    Bench::new(checked_config(Policy::RoundRobin, &vec![1; nodes]))
}

impl Bench {
    /// Picks until the node with this index is picked, letting go of others unreported.
    fn pick_node(&self, node_index: usize) -> Picked {
        let mut tried = Tried::default();
        loop {
            let picked = self.cluster.pick(&tried, self.now).unwrap();
            if picked.node_index() == node_index {
                return picked;
            }
            tried.insert(picked.node_index());
        }
    }

    fn meet(&self, node_index: usize, outcome: Outcome, times: usize) {
        (0..times).for_each(|_| self.pick_node(node_index).report(outcome, self.now));
    }

    /// `F` is a failed probe, `P` one that passed.
    fn probe(&self, node_index: usize, probes: &str) -> Option<Transition> {
        probes.chars().fold(None, |_, kind| self.cluster.on_probe(node_index, kind == 'P', self.now))
    }

    /// Nodes that a request with a new budget of attempts gets to, in order.
    fn reachable(&self) -> usize {
        let mut tried = Tried::default();
        while let Result::Ok(picked) = self.cluster.pick(&tried, self.now) {
            tried.insert(picked.node_index());
        }
        tried.len()
    }
}

#[test]
fn probes_in_a_row_change_the_state() {
    fn check(probes: &str, last: Option<Transition>, state: NodeState) {
        let bench = checked(2);
        assert_eq!((bench.probe(0, probes), bench.states()[0]), (last, state), "{probes}");
    }
    check("", None, Up);
    check("P", None, Up);
    check("FF", None, Up);
    check("FFF", Some(Transition::Down), Down);
    check("PFFF", Some(Transition::Down), Down);
    check("FFFF", None, Down);
    check("FFPFF", None, Up);
    check("FFFP", None, Down);
    check("FFFPFP", None, Down);
    check("FFFPP", Some(Transition::Up), Up);
    check("FFFPPP", None, Up);
    check("FFFPPFF", None, Up);
}

#[test]
fn a_node_that_is_down_gets_nothing() {
    let bench = checked(3);
    bench.probe(1, "FFF");
    let picks: Vec<_> = (0..30).map(|_| bench.cluster.pick(&Tried::default(), bench.now).unwrap()).collect();
    assert!(picks.iter().all(|picked| picked.node_index() != 1));
    // Not even a retry: its checks say what would come.
    assert_eq!(bench.reachable(), 2);
}

#[test]
fn probes_without_checks_configured_are_ignored() {
    let bench = plain(2);
    bench.probe(0, "FFFFFF");
    assert_eq!(bench.states(), [Up, Up]);
    let checked = checked(2);
    assert_eq!(checked.cluster.on_probe(7, false, checked.now), None);
}

#[test]
fn when_most_are_down_the_checks_are_in_doubt() {
    let bench = checked(4);
    bench.probe(0, "FFF");
    bench.probe(1, "FFF");
    assert_eq!(bench.reachable(), 2, "half is not most");
    bench.probe(2, "FFF");
    assert_eq!(bench.reachable(), 4);
    bench.probe(3, "FFF");
    assert_eq!(bench.reachable(), 4);
    // Requests agree about two of them: nobody listens there.
    bench.meet(0, ConnectFailed, 5);
    bench.meet(1, ConnectFailed, 5);
    assert_eq!(bench.reachable(), 2);
}

#[test]
fn a_cluster_that_is_surely_dead_says_so_at_once() {
    let mut bench = checked(2);
    for node in [0, 1] {
        bench.meet(node, ConnectFailed, 5);
        bench.probe(node, "FFF");
    }
    assert_eq!(bench.cluster.pick(&Tried::default(), bench.now).unwrap_err(), Unavailable::AllDown);
    // Now and then one request finds out, and no more than one.
    bench.wait(5 * SECOND);
    let trials: Vec<_> = (0..2).map(|_| bench.cluster.pick(&Tried::default(), bench.now).unwrap()).collect();
    assert_eq!(bench.cluster.pick(&Tried::default(), bench.now).unwrap_err(), Unavailable::AllDown);
    trials[0].report(Ok, bench.now);
    assert!(bench.cluster.pick(&Tried::default(), bench.now).is_ok());
}

#[test]
fn one_refusal_is_enough_to_know_a_broken_node_for_dead() {
    let bench = checked(2);
    for node in [0, 1] {
        // Killed with requests in its hands: their connections broke before any was refused.
        bench.meet(node, Reset, 5);
        bench.probe(node, "FFF");
    }
    assert_eq!(bench.reachable(), 2);
    bench.meet(0, ConnectFailed, 1);
    bench.meet(1, ConnectFailed, 1);
    assert_eq!(bench.cluster.pick(&Tried::default(), bench.now).unwrap_err(), Unavailable::AllDown);
}

#[test]
fn failures_in_a_row_eject() {
    fn check(outcomes: &[(Outcome, usize)], state: NodeState) {
        let bench = plain(2);
        outcomes.iter().for_each(|(outcome, times)| bench.meet(0, *outcome, *times));
        assert_eq!(bench.states(), [state, Up], "{outcomes:?}");
    }
    check(&[(ConnectFailed, 4)], Up);
    check(&[(ConnectFailed, 5)], Ejected);
    check(&[(Reset, 5)], Ejected);
    check(&[(Timeout, 5)], Ejected);
    check(&[(ConnectFailed, 2), (Reset, 2), (Timeout, 1)], Ejected);
    check(&[(ServerError, 9)], Up);
    check(&[(ServerError, 10)], Ejected);
    check(&[(ServerError, 9), (Reset, 1)], Ejected);
    check(&[(Reset, 4), (Ok, 1), (Reset, 4)], Up);
    check(&[(Reset, 4), (Ok, 1), (Reset, 5)], Ejected);
}

#[test]
fn zero_failures_switch_ejection_off() {
    let mut config = config(Policy::RoundRobin, &[1, 1]);
    config.passive.consecutive_failures = 0;
    let bench = Bench::new(config);
    bench.meet(0, ConnectFailed, 100);
    assert_eq!(bench.states(), [Up, Up]);
}

#[test]
fn an_ejected_node_gets_nothing_but_a_last_retry() {
    let bench = plain(2);
    bench.meet(0, Reset, 5);
    for _ in 0..20 {
        assert_eq!(bench.cluster.pick(&Tried::default(), bench.now).unwrap().node_index(), 1);
    }
    let mut tried = Tried::default();
    tried.insert(1);
    assert_eq!(bench.cluster.pick(&tried, bench.now).unwrap().node_index(), 0);
}

#[test]
fn a_last_retry_that_succeeds_clears_the_node() {
    let bench = plain(2);
    bench.meet(0, Reset, 5);
    bench.meet(0, Ok, 1);
    assert_eq!(bench.states(), [Up, Up]);
}

#[test]
fn a_success_from_before_the_ejection_clears_nothing() {
    let bench = plain(2);
    let slow = bench.pick_node(0);
    bench.meet(0, Reset, 5);
    slow.report(Ok, bench.now);
    assert_eq!(bench.states(), [Ejected, Up]);
}

#[test]
fn failures_from_before_the_ejection_do_not_lengthen_it() {
    let mut bench = plain(2);
    let many: Vec<_> = (0..50).map(|_| bench.pick_node(0)).collect();
    many.iter().for_each(|picked| picked.report(Reset, bench.now));
    bench.wait(5 * SECOND);
    assert_eq!(bench.states(), [OnTrial, Up]);
}

#[test]
fn failures_from_before_the_ejection_do_not_decide_the_trial() {
    let mut bench = plain(2);
    let many: Vec<_> = (0..50).map(|_| bench.pick_node(0)).collect();
    many[..5].iter().for_each(|picked| picked.report(Reset, bench.now));
    bench.wait(5 * SECOND);
    let trial = bench.pick_node(0);
    many[5..].iter().for_each(|picked| picked.report(Reset, bench.now));
    assert_eq!(bench.states(), [OnTrial, Up]);
    trial.report(Ok, bench.now);
    assert_eq!(bench.states(), [Up, Up]);
}

#[test]
fn at_most_half_are_ejected() {
    fn check(nodes: usize, failing: usize, ejected: usize) {
        let bench = plain(nodes);
        (0..failing).for_each(|node| bench.meet(node, ServerError, 10));
        let states = bench.states();
        assert_eq!(states.iter().filter(|state| **state == Ejected).count(), ejected, "{nodes} {failing}");
        assert_eq!(states.iter().filter(|state| **state == Failing).count(), failing - ejected);
    }
    check(1, 1, 0);
    check(2, 1, 1);
    check(2, 2, 1);
    check(3, 3, 1);
    check(4, 4, 2);
    check(5, 5, 2);
    check(9, 9, 4);
}

#[test]
fn nodes_that_are_down_count_towards_the_half() {
    let bench = checked(4);
    bench.probe(0, "FFF");
    bench.meet(1, ServerError, 10);
    bench.meet(2, ServerError, 10);
    assert_eq!(bench.states(), [Down, Ejected, Failing, Up]);
}

#[test]
fn a_node_that_only_answers_badly_stays_in_use_when_it_may_not_be_ejected() {
    let bench = plain(2);
    bench.meet(0, ServerError, 10);
    bench.meet(1, ServerError, 10);
    assert_eq!(bench.states(), [Ejected, Failing]);
    assert_eq!(bench.cluster.pick(&Tried::default(), bench.now).unwrap().node_index(), 1);
}

#[test]
fn a_node_that_refuses_is_avoided_even_when_it_may_not_be_ejected() {
    let bench = plain(5);
    (0..4).for_each(|node| bench.meet(node, ConnectFailed, 5));
    assert_eq!(bench.states(), [Ejected, Ejected, Failing, Failing, Up]);
    for _ in 0..20 {
        assert_eq!(bench.cluster.pick(&Tried::default(), bench.now).unwrap().node_index(), 4);
    }
}

#[test]
fn a_single_node_is_always_tried() {
    let bench = plain(1);
    bench.meet(0, ConnectFailed, 50);
    assert_eq!(bench.states(), [Failing]);
    assert_eq!(bench.reachable(), 1);
    bench.meet(0, Ok, 1);
    assert_eq!(bench.states(), [Up]);
}

#[test]
fn ejections_double_up_to_a_minute_and_one_trial_decides() {
    let mut bench = plain(2);
    bench.meet(0, Reset, 5);
    for seconds in [5, 10, 20, 40, 60, 60] {
        bench.wait(seconds * SECOND - Duration::from_millis(1));
        assert_eq!(bench.states(), [Ejected, Up], "{seconds}");
        bench.wait(Duration::from_millis(1));
        let trial = bench.pick_node(0);
        assert_eq!(bench.states(), [OnTrial, Up]);
        // Meanwhile everybody else goes elsewhere.
        assert!((0..20).all(|_| bench.cluster.pick(&Tried::default(), bench.now).unwrap().node_index() == 1));
        trial.report(Reset, bench.now);
    }
    bench.wait(60 * SECOND);
    bench.meet(0, Ok, 1);
    assert_eq!(bench.states(), [Up, Up]);
}

#[test]
fn a_head_is_no_end_to_failures_in_a_row() {
    let bench = plain(2);
    for _ in 0..5 {
        assert_eq!(bench.states(), [Up, Up]);
        bench.meet(0, HeadOk, 1);
        bench.meet(0, Reset, 1);
    }
    assert_eq!(bench.states(), [Ejected, Up]);
}

#[test]
fn a_trial_settled_by_a_head_is_forgiven_nothing_until_an_answer_is_whole() {
    fn check(end: Outcome, state: NodeState) {
        let mut bench = plain(2);
        bench.meet(0, Reset, 5);
        bench.wait(5 * SECOND);
        let trial = bench.pick_node(0);
        trial.report(HeadOk, bench.now);
        assert_eq!(bench.states(), [Up, Up], "a long answer keeps nobody away");
        trial.report(end, bench.now);
        assert_eq!(bench.states(), [if end == Ok { Up } else { Ejected }, Up], "{end:?}");
        bench.meet(0, HeadOk, 1);
        bench.meet(0, Reset, 1);
        assert_eq!(bench.states(), [state, Up], "{end:?}");
    }
    check(Reset, Ejected);
    check(Timeout, Ejected);
    check(Ok, Up);
}

#[test]
fn a_minute_of_health_is_a_clean_slate() {
    fn check(healthy: Duration, ejected_for: Duration) {
        let mut bench = plain(2);
        bench.meet(0, Reset, 5);
        bench.wait(5 * SECOND);
        bench.meet(0, Ok, 1);
        bench.wait(healthy);
        bench.meet(0, Reset, 5);
        bench.wait(ejected_for - Duration::from_millis(1));
        assert_eq!(bench.states(), [Ejected, Up], "{healthy:?}");
        bench.wait(Duration::from_millis(1));
        assert_eq!(bench.states(), [OnTrial, Up], "{healthy:?}");
    }
    check(10 * SECOND, 10 * SECOND);
    check(60 * SECOND, 10 * SECOND);
    check(61 * SECOND, 5 * SECOND);
}

#[test]
fn a_trial_whose_client_left_is_followed_by_another() {
    let mut bench = plain(2);
    bench.meet(0, Reset, 5);
    bench.wait(5 * SECOND);
    drop(bench.pick_node(0));
    let picks_first = |bench: &Bench| {
        (0..4).any(|_| bench.cluster.pick(&Tried::default(), bench.now).unwrap().node_index() == 0)
    };
    assert!(!picks_first(&bench));
    bench.wait(SECOND);
    assert!(picks_first(&bench));
}

#[test]
fn probes_bring_an_unreachable_node_back_before_its_time() {
    fn check(cause: Outcome, times: usize, probes: &str, state: NodeState) {
        let bench = checked(2);
        bench.meet(0, cause, times);
        bench.probe(0, probes);
        assert_eq!(bench.states()[0], state, "{cause:?} {probes}");
    }
    check(ConnectFailed, 5, "P", Ejected);
    check(ConnectFailed, 5, "PP", Up);
    check(ConnectFailed, 5, "PFP", Ejected);
    check(Reset, 5, "PP", Up);
    // A passing probe says nothing about gateway errors …
    check(ServerError, 10, "PPPPP", Ejected);
    // … unless the probes have seen it bad, too.
    check(ServerError, 10, "FFFPP", Up);
}

#[test]
fn passing_probes_free_a_node_that_breaks_requests_only_once() {
    let mut bench = checked(2);
    bench.meet(0, Reset, 5);
    bench.probe(0, "PP");
    assert_eq!(bench.states(), [Up, Up]);
    // It goes on breaking them, though its probes are fine: now it serves its time, which is twice as long.
    bench.meet(0, Reset, 5);
    bench.wait(9 * SECOND);
    bench.probe(0, "PPPP");
    assert_eq!(bench.states(), [Ejected, Up]);
    bench.wait(SECOND);
    assert_eq!(bench.states(), [OnTrial, Up]);
    // That nobody listened is another matter: probes see that.
    bench.pick_node(0).report(ConnectFailed, bench.now);
    bench.probe(0, "PP");
    assert_eq!(bench.states(), [Up, Up]);
}

#[test]
fn passes_from_before_the_ejection_do_not_count() {
    let bench = checked(2);
    bench.probe(0, "PPPP");
    bench.meet(0, ConnectFailed, 5);
    bench.probe(0, "P");
    assert_eq!(bench.states(), [Ejected, Up]);
}

#[test]
fn a_reload_keeps_what_is_known_by_name() {
    let mut bench = checked(4);
    bench.probe(0, "FFF");
    bench.meet(1, Reset, 5);
    let held = bench.pick_node(3);
    bench.reload(|config| {
        config.nodes.reverse();
        config.nodes.push(NodeConfig { name: "new:1".into(), weight: 3 });
    });
    let nodes: Vec<_> =
        bench.cluster.nodes(bench.now).map(|node| (node.name, node.state, node.in_flight)).collect();
    assert_eq!(
        nodes,
        [("d:1", Up, 1), ("c:1", Up, 0), ("b:1", Ejected, 0), ("a:1", Down, 0), ("new:1", Up, 0)]
    );
    let names: Vec<_> = (0..5).map(|_| bench.cluster.pick(&Tried::default(), bench.now).unwrap()).collect();
    assert!(names.iter().all(|picked| ["d:1", "c:1", "new:1"].contains(&picked.node_name())));
    drop(held);
    let of_first = bench.cluster.nodes(bench.now).next().unwrap().in_flight;
    assert_eq!(of_first as usize, names.iter().filter(|picked| picked.node_name() == "d:1").count());
}

#[test]
fn a_reload_without_checks_leaves_nobody_down() {
    let mut bench = checked(2);
    bench.probe(0, "FFF");
    let checking = std::sync::Arc::clone(&bench.cluster);
    bench.reload(|config| config.health = None);
    assert_eq!(bench.states(), [Up, Up]);
    assert_eq!(bench.reachable(), 2);
    // A probe of the old generation that was still under way.
    for _ in 0..3 {
        let _ = checking.on_probe(1, false, bench.now);
    }
    assert_eq!(bench.states(), [Up, Up]);
    assert_eq!(bench.reachable(), 2);
}

#[test]
fn a_reload_that_is_refused_leaves_a_node_down() {
    let bench = checked(3);
    bench.probe(0, "FFF");
    let unchecked = ClusterConfig { health: None, ..bench.cluster.config().clone() };
    drop(Cluster::new(unchecked, Some(&bench.cluster), bench.now).unwrap());
    assert_eq!(bench.states(), [Down, Up, Up]);
}

#[test]
fn a_reload_keeps_the_retry_budget_if_it_is_the_same() {
    let mut bench = plain(2);
    let drain =
        |bench: &Bench| (0..100).filter(|_| bench.cluster.retry_budget().try_withdraw(bench.now)).count();
    assert_eq!(drain(&bench), 10);
    bench.reload(|config| config.retry.per_request = 2);
    assert_eq!(drain(&bench), 0);
    bench.reload(|config| config.retry.budget.floor_per_second = 7);
    assert_eq!(drain(&bench), 7);
}
