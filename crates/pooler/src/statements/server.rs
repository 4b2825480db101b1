//! Which statements a server connection has prepared.
//!
//! **Intuition.** A statement costs the server memory for as long as it is prepared, so a connection keeps those used
//! lately, and the one not used for longest makes room.
//!
//! **Mechanism.** A map from id to a place in a doubly linked list inside a vector: using, adding and dropping one are
//! each a few stores. What was prepared behind other messages of its series is in doubt until the server says so, since
//! an error of theirs would have it dropped.
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
    /// How many are in doubt: hardly ever any.
    doubted: usize,
    /// Which of the connection's series this is.
    pub(crate) series: u64,
    /// The client's next message waits for the end of a series before it.
    pub(crate) awaits_end: bool,
}

#[derive(Debug)]
struct Entry {
    statement: Option<Arc<Statement>>,
    /// The series of the connection whose error would keep it from being prepared; `None` once it is.
    doubted_in: Option<u64>,
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
            doubted: 0,
            series: 0,
            awaits_end: false,
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
        let entry =
            Entry { statement: Some(Arc::clone(statement)), doubted_in: None, newer: None, older: None };
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

    /// The server will have this statement unless something before it in this series fails.
    pub fn doubt(&mut self, id: u64, series: u64) {
        if let Some(entry) = self.entry_mut(id) {
            let before = entry.doubted_in.replace(series);
            self.doubted += usize::from(before.is_none());
        }
    }

    /// The server has said that it has this statement.
    pub fn confirm(&mut self, id: u64) {
        if self.doubted > 0
            && let Some(entry) = self.entry_mut(id)
        {
            let before = entry.doubted_in.take();
            self.doubted -= usize::from(before.is_some());
        }
    }

    /// Whether it takes the end of another series than this one to know that the server has this statement.
    #[must_use]
    pub fn is_doubted_outside(&self, id: u64, series: u64) -> bool {
        if self.doubted == 0 {
            return false;
        }
        let entry = self.places.get(&id).and_then(|place| self.entries.get(*place));
        entry.and_then(|entry| entry.doubted_in).is_some_and(|doubted_in| doubted_in != series)
    }

    /// The server no longer has this statement.
    pub fn remove(&mut self, id: u64) -> Option<Arc<Statement>> {
        self.confirm(id);
        let place = self.places.remove(&id)?;
        self.unlink(place);
        self.free.push(place);
        self.entries[place].statement.take()
    }

    /// The server has none any more, as after DEALLOCATE ALL or DISCARD ALL.
    pub fn clear(&mut self) {
        *self = Self { series: self.series, awaits_end: self.awaits_end, ..Self::new(self.capacity) };
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

    fn entry_mut(&mut self, id: u64) -> Option<&mut Entry> {
        self.entries.get_mut(*self.places.get(&id)?)
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
    fn what_is_in_doubt_is_so_for_other_series_until_the_server_has_said() {
        let statements = Statements::new();
        let mut server = ServerStatements::new(2);
        let (first, second) = (statement(&statements, "SELECT 1"), statement(&statements, "SELECT 2"));
        for statement in [&first, &second] {
            assert_eq!(server.insert(statement), None);
            server.doubt(statement.id, 7);
            assert!(
                server.is_doubted_outside(statement.id, 8) && !server.is_doubted_outside(statement.id, 7)
            );
        }
        server.confirm(first.id);
        assert!(!server.is_doubted_outside(first.id, 8) && server.is_doubted_outside(second.id, 8));
        server.remove(second.id);
        assert_eq!(server.insert(&second), None);
        assert!(!server.is_doubted_outside(second.id, 8));
        assert_eq!(server.doubted, 0);
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
