//! A small set of nodes, by index: which ones a request has tried, which ones are worth a pick.
//!
//! A bit per possible node ([`NODES_MAX`](crate::NODES_MAX)), on the stack; nothing is allocated per request.

use crate::config::NODES_MAX;

const WORDS: usize = NODES_MAX / 64;

/// The nodes that a request has tried already. Starts empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    nodes: NodeSet,
}

/// Indices of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeSet {
    words: [u64; WORDS],
}

impl Tried {
    /// Remembers a node.
    pub fn insert(&mut self, node_index: usize) {
        self.nodes.insert(node_index);
    }

    /// True if the node was tried.
    #[must_use]
    pub fn contains(&self, node_index: usize) -> bool {
        self.nodes.contains(node_index)
    }

    /// How many were tried.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True before the first attempt.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

impl NodeSet {
    pub(crate) fn insert(&mut self, node_index: usize) {
        self.words[node_index / 64] |= 1 << (node_index % 64);
    }

    pub(crate) fn contains(&self, node_index: usize) -> bool {
        self.words[node_index / 64] >> (node_index % 64) & 1 == 1
    }

    pub(crate) fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The indices, rising.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(word_index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some(word_index * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_set(indices in prop::collection::vec(0..NODES_MAX, 0..50)) {
            let expected: BTreeSet<_> = indices.iter().copied().collect();
            let mut set = NodeSet::default();
            indices.iter().for_each(|index| set.insert(*index));
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), expected.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.len(), expected.len());
            prop_assert_eq!(set.is_empty(), expected.is_empty());
            prop_assert!((0..NODES_MAX).all(|index| set.contains(index) == expected.contains(&index)));
        }
    }
}
