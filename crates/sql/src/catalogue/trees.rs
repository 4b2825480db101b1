//! Trees of partitions and of inheritance: which table each member is known by.
//!
//! A row written to a partition is read through its parent, and the other way round. So the members of one tree are
//! one table for routing, known by the least oid among them. Tables may inherit from several parents: then their trees
//! are one.

use std::collections::HashMap;

use super::builder::{RelationOf, RelationRow, key_of};
use crate::route::TableId;

/// Sets of oids, merged pairwise.
pub(crate) struct Trees {
    parents: HashMap<u32, u32>,
}

impl Trees {
    pub(crate) fn of(relations: &[RelationOf]) -> Self {
        let mut oids = HashMap::new();
        for relation in relations {
            if let RelationRow::Object { oid, .. } = relation.row {
                oids.insert(relation.key(), oid);
            }
        }
        let mut trees = Self { parents: HashMap::new() };
        for relation in relations {
            let RelationRow::Child(name, schema) = &relation.row else { continue };
            let child = oids.get(&key_of(schema.as_deref(), name));
            if let (Some(parent), Some(child)) = (oids.get(&relation.key()), child) {
                trees.join(*parent, *child);
            }
        }
        trees
    }

    fn join(&mut self, one: u32, other: u32) {
        let (one, other) = (self.root(one).0, self.root(other).0);
        if one != other {
            self.parents.insert(one.max(other), one.min(other));
        }
    }

    /// The table that a relation is known by.
    pub(crate) fn root(&self, oid: u32) -> TableId {
        let mut oid = oid;
        // Every step leads to a lesser oid, so that this ends.
        while let Some(parent) = self.parents.get(&oid) {
            oid = *parent;
        }
        TableId(oid)
    }
}
