//! What holds after any sequence of picks, outcomes, probes and waits.

use std::time::Duration;

use proptest::prelude::*;
use tenfold_balance::{NodeState, Outcome, Picked, Tried};

use super::{Bench, POLICIES, checked_config};

#[derive(Clone, Debug)]
enum Step {
    Pick,
    /// Ends the attempt with this place among those that run.
    End(usize, Option<Outcome>),
    Probe(usize, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop::sample::select(vec![
        Outcome::HeadOk,
        Outcome::Ok,
        Outcome::ConnectFailed,
        Outcome::Reset,
        Outcome::Timeout,
        Outcome::ServerError,
    ]);
    prop_oneof![
        8 => Just(Step::Pick),
        8 => (any::<usize>(), prop::option::weighted(0.9, outcome)).prop_map(|(which, how)| Step::End(which, how)),
        2 => (0..6_usize, any::<bool>()).prop_map(|(node, passes)| Step::Probe(node, passes)),
        1 => (0..20_000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn counts_are_exact_and_at_most_half_are_ejected(
        nodes in 1..6_usize,
        policy in prop::sample::select(POLICIES.to_vec()),
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let mut bench = Bench::new(checked_config(policy, &vec![1; nodes]));
        let mut running: Vec<Picked> = Vec::new();
        for step in steps {
            match step {
                Step::Pick => running.extend(bench.cluster.pick(&Tried::default(), bench.now)),
                Step::End(_, _) if running.is_empty() => {}
                Step::End(which, outcome) => {
                    let picked = running.swap_remove(which % running.len());
                    outcome.into_iter().for_each(|outcome| picked.report(outcome, bench.now));
                }
                Step::Probe(node, passes) => {
                    bench.cluster.on_probe(node, passes, bench.now);
                }
                Step::Wait(wait_ms) => bench.wait(Duration::from_millis(wait_ms)),
            }
            prop_assert_eq!(bench.in_flight() as usize, running.len());
            let states = bench.states();
            let ejected = states.iter().filter(|state| **state == NodeState::Ejected).count();
            prop_assert!(ejected * 2 <= nodes, "{:?}", states);
            // Somebody who is neither down nor ejected is always left, unless the checks took all.
            let left = states.iter().any(|state| !matches!(state, NodeState::Ejected | NodeState::Down));
            prop_assert!(left || states.contains(&NodeState::Down), "{:?}", states);
        }
        running.clear();
        prop_assert_eq!(bench.in_flight(), 0);
    }

    /// A request that keeps trying meets each node at most once, and never none while one is worth trying.
    #[test]
    fn a_request_meets_each_node_once(
        nodes in 1..8_usize,
        policy in prop::sample::select(POLICIES.to_vec()),
        failing in prop::collection::vec(any::<bool>(), 8),
    ) {
        let bench = Bench::new(checked_config(policy, &vec![1; nodes]));
        for _ in 0..20 {
            let mut tried = Tried::default();
            while let Ok(picked) = bench.cluster.pick(&tried, bench.now) {
                prop_assert!(!tried.contains(picked.node_index()));
                tried.insert(picked.node_index());
                let outcome = if failing[picked.node_index()] { Outcome::ConnectFailed } else { Outcome::Ok };
                picked.report(outcome, bench.now);
            }
            prop_assert_eq!(tried.len(), nodes);
        }
    }
}
