//! Which statements a server connection has prepared.
//!
//! **Intuition.** A statement costs the server memory for as long as it is prepared, so a connection keeps those used
//! lately, and the one not used for longest makes room.
//!
//! **Mechanism.** A map from id to a place in a doubly linked list inside a vector: using, adding and dropping one are
//! each a few stores.
//!
//! **Failure.** None. What is evicted must be closed at the server by the caller, in the same write as what replaces it.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use super::Statement;

/// A server connection's statements, by use.
#[derive(Debug)]
pub struct ServerStatements {
    places: HashMap<u64, usize, RandomState>,
    /// Linked from the most to the least recently used.
    entries: Vec<Entry>,
    /// Places in `entries` that are free.
    free: Vec<usize>,
    newest: Option<usize>,
    oldest: Option<usize>,
    capacity: usize,
}

#[derive(Debug)]
struct Entry {
    statement: Option<Arc<Statement>>,
    newer: Option<usize>,
    older: Option<usize>,
}

impl ServerStatements {
    /// A connection that has none and may have `capacity`, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            places: HashMap::default(),
            entries: Vec::new(),
            free: Vec::new(),
            newest: None,
            oldest: None,
            capacity: capacity.max(1),
        }
    }

    /// Whether the server has this statement. If so it is now the most recently used.
    pub fn touch(&mut self, id: u64) -> bool {
        let Some(place) = self.places.get(&id).copied() else { return false };
        if self.newest != Some(place) {
            self.unlink(place);
            self.link_newest(place);
        }
        true
    }

    /// Whether the server has this statement.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        self.places.contains_key(&id)
    }

    /// The statement of this id, if the server has it.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Arc<Statement>> {
        self.entries.get(*self.places.get(&id)?)?.statement.as_ref()
    }

    /// The server has this statement now. Returns the id of the one that must be closed there to make room for it.
    #[must_use = "what is evicted must be closed at the server"]
    pub fn insert(&mut self, statement: &Arc<Statement>) -> Option<u64> {
        if self.touch(statement.id) {
            return None;
        }
        let evicted = if self.places.len() >= self.capacity { self.remove_oldest() } else { None };
        let entry = Entry { statement: Some(Arc::clone(statement)), newer: None, older: None };
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.places.insert(statement.id, place);
        self.link_newest(place);
        evicted
    }

    /// The server no longer has this statement.
    pub fn remove(&mut self, id: u64) -> Option<Arc<Statement>> {
        let place = self.places.remove(&id)?;
        self.unlink(place);
        self.free.push(place);
        self.entries[place].statement.take()
    }

    /// The server has none any more, as after DEALLOCATE ALL or DISCARD ALL.
    pub fn clear(&mut self) {
        *self = Self::new(self.capacity);
    }

    /// Of all that the server has.
    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.places.keys().copied()
    }

    /// How many the server has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn remove_oldest(&mut self) -> Option<u64> {
        let oldest = self.entries[self.oldest?].statement.as_ref()?.id;
        self.remove(oldest).map(|statement| statement.id)
    }

    fn unlink(&mut self, place: usize) {
        let Entry { newer, older, .. } = self.entries[place];
        match newer {
            Some(newer) => self.entries[newer].older = older,
            None => self.newest = older,
        }
        match older {
            Some(older) => self.entries[older].newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, place: usize) {
        let before = self.newest.replace(place);
        self.entries[place].newer = None;
        self.entries[place].older = before;
        match before {
            Some(before) => self.entries[before].newer = Some(place),
            None => self.oldest = Some(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Statements, tests::statement};
    use super::*;

    proptest! {
        /// Against a list in which the most recently used stands first.
        #[test]
        fn the_least_recently_used_goes_first(
            capacity in 1..6_usize,
            steps in prop::collection::vec((0..5_u8, 0..9_usize), 0..200),
        ) {
            let statements = Statements::new();
            let all: Vec<_> = (0..9).map(|at| statement(&statements, &at.to_string())).collect();
            let mut server = ServerStatements::new(capacity);
            let mut model: Vec<u64> = Vec::new();
            for (step, which) in steps {
                let id = all[which].id;
                let known = model.contains(&id);
                match step {
                    0 => {
                        prop_assert_eq!(server.remove(id).map(|gone| gone.id), known.then_some(id));
                        model.retain(|other| *other != id);
                    }
                    1 => {
                        prop_assert_eq!(server.touch(id), known);
                        if known {
                            model.retain(|other| *other != id);
                            model.insert(0, id);
                        }
                    }
                    _ => {
                        model.retain(|other| *other != id);
                        model.insert(0, id);
                        let evicted = if model.len() > capacity { model.pop() } else { None };
                        prop_assert_eq!(server.insert(&all[which]), evicted);
                    }
                }
                prop_assert_eq!(server.len(), model.len());
                prop_assert!(model.iter().all(|id| server.contains(*id)));
                prop_assert!(server.entries.len() <= capacity);
            }
            server.clear();
            prop_assert!(server.is_empty() && !server.contains(all[0].id));
        }
    }

    #[test]
    fn a_server_keeps_what_it_has_known() {
        let statements = Statements::new();
        let mut server = ServerStatements::new(1);
        let first = statement(&statements, "SELECT 1");
        let id = first.id;
        assert_eq!(server.insert(&first), None);
        drop(first);
        assert_eq!(statement(&statements, "SELECT 1").id, id, "the next client finds it prepared");
        assert_eq!(server.insert(&statement(&statements, "SELECT 2")), Some(id));
        assert_ne!(statement(&statements, "SELECT 1").id, id);
    }
}
