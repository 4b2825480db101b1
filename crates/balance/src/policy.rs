//! Choosing one of several nodes that are equally worth a pick.
//!
//! **Intuition.** Round robin goes through a fixed round in which each node stands as often as its weight, spread as
//! evenly as possible. Least connections takes the node with the least in flight for its weight, and where several have
//! the same (above all when all are idle), the same round decides, so that idle nodes share by weight.
//!
//! **Mechanism.** The round is what nginx's smooth weighted algorithm would yield, computed once when the cluster is
//! built; workers share one counter that says whose turn it is. When it is the turn of a node that is out (down, ejected,
//! tried already), a second counter picks a substitute among the others by weight: stepping by the golden ratio through
//! their weights laid end to end spreads the substitutes evenly for any set of nodes, so that a dead node's share does not
//! all fall to its neighbour in the round.
//!
//! **Failure.** None: the caller never asks for one of none.
//!
//! Source: nginx, `ngx_http_upstream_round_robin.c` (smooth weighted balancing); Knuth, TAOCP 3, §6.4 (the golden ratio).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::node_set::NodeSet;

/// 2^64 divided by the golden ratio.
const GOLDEN_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Whose turn it is.
#[derive(Debug)]
pub(crate) struct Rotation {
    weights: Box<[u32]>,
    /// Indices of nodes; at most `NODES_MAX × WEIGHT_MAX` of them.
    round: Box<[u16]>,
    turn: AtomicU64,
    substitute: AtomicU64,
}

impl Rotation {
    /// The round of nodes with these weights, none of which is zero.
    pub(crate) fn new(weights: &[u32]) -> Self {
        let round = smooth_round(weights);
        Self { weights: weights.into(), round, turn: AtomicU64::new(0), substitute: AtomicU64::new(0) }
    }

    /// The node whose turn it is among `among`, which is not empty.
    pub(crate) fn next(&self, among: &NodeSet) -> usize {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.round.len() as u64;
        let node = self.round[usize::try_from(turn).expect("below the round's length")];
        if among.contains(usize::from(node)) {
            return usize::from(node);
        }
        self.next_substitute(among)
    }

    /// The node of `among` with the fewest in flight for its weight; equals take turns.
    pub(crate) fn least_busy(&self, among: &NodeSet, in_flight: impl Fn(usize) -> u32) -> usize {
        let mut least = NodeSet::default();
        // in_flight / weight, compared without dividing.
        let mut best: Option<(u64, u64)> = None;
        for index in among.iter() {
            let (load, weight) = (u64::from(in_flight(index)), u64::from(self.weights[index]));
            let order = best.map(|(best_load, best_weight)| (load * best_weight).cmp(&(best_load * weight)));
            match order {
                Some(std::cmp::Ordering::Greater) => continue,
                Some(std::cmp::Ordering::Equal) => {}
                Some(std::cmp::Ordering::Less) | None => {
                    least = NodeSet::default();
                    best = Some((load, weight));
                }
            }
            least.insert(index);
        }
        if least.len() == 1 { least.iter().next().expect("it has one") } else { self.next(&least) }
    }

    fn next_substitute(&self, among: &NodeSet) -> usize {
        let total: u64 = among.iter().map(|index| u64::from(self.weights[index])).sum();
        let step = self.substitute.fetch_add(1, Ordering::Relaxed).wrapping_mul(GOLDEN_STEP);
        let mut position = (u128::from(step) * u128::from(total)) >> 64;
        for index in among.iter() {
            let weight = u128::from(self.weights[index]);
            if position < weight {
                return index;
            }
            position -= weight;
        }
        unreachable!("the position is below the sum of the weights")
    }
}

/// nginx's algorithm: in each step every node gains its weight; the richest is chosen and pays the sum of all weights.
fn smooth_round(weights: &[u32]) -> Box<[u16]> {
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
    let gains: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
    let total: i64 = gains.iter().sum();
    let mut wealth = vec![0_i64; gains.len()];
    (0..total)
        .map(|_| {
            wealth.iter_mut().zip(&gains).for_each(|(wealth, gain)| *wealth += gain);
            // The first of the richest, as nginx chooses.
            let richest = (0..wealth.len()).rev().max_by_key(|index| wealth[*index]);
            let richest = richest.expect("a cluster has a node");
            wealth[richest] -= total;
            u16::try_from(richest).expect("a cluster has at most 256 nodes")
        })
        .collect()
}

fn greatest_common_divisor(left: u32, right: u32) -> u32 {
    if right == 0 { left } else { greatest_common_divisor(right, left % right) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(indices: &[usize]) -> NodeSet {
        let mut set = NodeSet::default();
        indices.iter().for_each(|index| set.insert(*index));
        set
    }

    fn shares(picks: impl Iterator<Item = usize>, nodes: usize) -> Vec<usize> {
        let mut shares = vec![0; nodes];
        picks.for_each(|node| shares[node] += 1);
        shares
    }

    #[test]
    fn the_round_is_nginxs() {
        fn check(weights: &[u32], round: &[u16]) {
            assert_eq!(&*smooth_round(weights), round, "{weights:?}");
        }
        check(&[1], &[0]);
        check(&[7], &[0]);
        check(&[1, 1, 1], &[0, 1, 2]);
        check(&[100, 100], &[0, 1]);
        // The example in nginx's commit 52327e0627f4.
        check(&[5, 1, 1], &[0, 0, 1, 0, 2, 0, 0]);
        check(&[2, 1], &[0, 1, 0]);
        check(&[10, 5], &[0, 1, 0]);
    }

    #[test]
    fn the_largest_round_is_bounded() {
        let weights: Vec<u32> = (0..256).map(|index| if index == 0 { 255 } else { 256 }).collect();
        assert_eq!(smooth_round(&weights).len(), 255 * 256 + 255);
    }

    #[test]
    fn the_share_of_a_missing_node_is_spread_over_all_others() {
        let rotation = Rotation::new(&[1, 1, 1, 1]);
        let shares = shares((0..4_000).map(|_| rotation.next(&set(&[0, 2, 3]))), 4);
        assert_eq!(shares[1], 0);
        for node in [0, 2, 3] {
            assert!((1_300..=1_367).contains(&shares[node]), "{shares:?}");
        }
    }

    #[test]
    fn the_least_busy_for_its_weight_is_chosen() {
        fn check(weights: &[u32], in_flight: &[u32], expected: usize) {
            let among = set(&(0..weights.len()).collect::<Vec<_>>());
            let chosen = Rotation::new(weights).least_busy(&among, |index| in_flight[index]);
            assert_eq!(chosen, expected, "{weights:?} {in_flight:?}");
        }
        check(&[1, 1, 1], &[3, 1, 2], 1);
        check(&[4, 1], &[7, 2], 0);
        check(&[4, 1], &[9, 2], 1);
        check(&[1, 256], &[u32::MAX, u32::MAX], 1);
    }

    proptest! {
        /// Whatever nodes are out, those left share by weight.
        #[test]
        fn substitutes_share_by_weight(
            weights in prop::collection::vec(1..20_u32, 2..12),
            out in prop::collection::vec(any::<bool>(), 12),
        ) {
            let left: Vec<usize> = (0..weights.len()).filter(|index| !out[*index]).collect();
            prop_assume!(!left.is_empty());
            let rotation = Rotation::new(&weights);
            let total: u32 = left.iter().map(|index| weights[*index]).sum();
            let rounds: u32 = weights.iter().sum::<u32>() * 100;
            let shares = shares((0..rounds).map(|_| rotation.next(&set(&left))), weights.len());
            for index in left {
                let expected = f64::from(rounds) * f64::from(weights[index]) / f64::from(total);
                // The golden ratio's steps stray from the ideal by a few picks, whatever the length.
                let strayed = (shares[index] as f64 - expected).abs();
                prop_assert!(strayed <= 12.0 + expected * 0.02, "{:?} {}", shares, expected);
            }
        }
    }
}
