//! What every policy must do, whatever else it prefers.

use std::thread;

use tenfold_balance::{Outcome, Tried, Unavailable};

use super::{Bench, POLICIES, checked_config};

/// Requests one after the other, each done before the next: how often each node was picked.
fn sequential_shares(bench: &Bench, picks: usize) -> Vec<usize> {
    let mut shares = vec![0; bench.states().len()];
    for _ in 0..picks {
        let picked = bench.cluster.pick(&Tried::default(), bench.now).unwrap();
        shares[picked.node_index()] += 1;
        picked.report(Outcome::Ok, bench.now);
    }
    shares
}

#[test]
fn idle_nodes_share_by_weight() {
    for policy in POLICIES {
        assert_eq!(sequential_shares(&Bench::of(policy, &[1, 1, 1]), 300), [100, 100, 100], "{policy:?}");
        assert_eq!(sequential_shares(&Bench::of(policy, &[5, 1, 2]), 800), [500, 100, 200], "{policy:?}");
        assert_eq!(sequential_shares(&Bench::of(policy, &[1]), 5), [5], "{policy:?}");
    }
}

#[test]
fn busy_nodes_share_by_weight() {
    for policy in POLICIES {
        let bench = Bench::of(policy, &[3, 1]);
        let held: Vec<_> =
            (0..400).map(|_| bench.cluster.pick(&Tried::default(), bench.now).unwrap()).collect();
        let of_first = held.iter().filter(|picked| picked.node_index() == 0).count();
        assert_eq!(of_first, 300, "{policy:?}");
    }
}

#[test]
fn a_tried_node_is_not_picked_again() {
    for policy in POLICIES {
        let bench = Bench::of(policy, &[1, 9, 1]);
        let mut tried = Tried::default();
        for attempt in 0..3 {
            assert_eq!(tried.len(), attempt);
            let picked = bench.cluster.pick(&tried, bench.now).unwrap();
            assert!(!tried.contains(picked.node_index()), "{policy:?}");
            tried.insert(picked.node_index());
        }
        assert_eq!(bench.cluster.pick(&tried, bench.now).unwrap_err(), Unavailable::AllTried);
    }
}

#[test]
fn the_share_of_a_node_that_is_down_goes_to_all_others() {
    for policy in POLICIES {
        let bench = Bench::new(checked_config(policy, &[1, 1, 1, 1]));
        (0..3).for_each(|_| {
            bench.cluster.on_probe(1, false, bench.now);
        });
        let shares = sequential_shares(&bench, 3_000);
        assert_eq!(shares[1], 0, "{policy:?}");
        assert!([0, 2, 3].iter().all(|node| (950..1_050).contains(&shares[*node])), "{policy:?} {shares:?}");
    }
}

#[test]
fn in_flight_is_exact_and_returns_to_zero() {
    for policy in POLICIES {
        let bench = Bench::of(policy, &[2, 1, 1]);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let pick = || bench.cluster.pick(&Tried::default(), bench.now).unwrap();
                        let held: Vec<_> = (0..20).map(|_| pick()).collect();
                        held.iter().for_each(|picked| picked.report(Outcome::Ok, bench.now));
                        assert!(bench.in_flight() >= 20);
                    }
                });
            }
        });
        assert_eq!(bench.in_flight(), 0, "{policy:?}");
    }
}

#[test]
fn in_flight_counts_attempts_that_are_never_reported() {
    for policy in POLICIES {
        let bench = Bench::of(policy, &[1, 1]);
        let held = [(); 3].map(|()| bench.cluster.pick(&Tried::default(), bench.now).unwrap());
        assert_eq!(bench.in_flight(), 3, "{policy:?}");
        drop(held);
        assert_eq!(bench.in_flight(), 0, "{policy:?}");
    }
}
