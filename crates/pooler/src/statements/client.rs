//! Which name of a client's means which statement.
//!
//! **Intuition.** Most clients have none, most others a handful; the names are theirs, and no server ever hears them.
//!
//! **Mechanism.** A sorted list behind one pointer that is null for a client without statements.
//!
//! **Failure.** [`StatementsError`]: a name that exists, or more than one client may keep.

use std::sync::Arc;

use super::Statement;

/// Prepared statements of one client at most.
pub const CLIENT_STATEMENTS_MAX: usize = 8_192;
/// Names and texts of one client's statements, together, at most.
pub const CLIENT_STATEMENT_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// A client's named statements. Eight bytes while there are none.
#[derive(Debug, Default)]
pub struct ClientStatements {
    list: Option<Box<List>>,
}

#[derive(Debug, Default)]
struct List {
    /// Sorted by name.
    named: Vec<(Box<[u8]>, Arc<Statement>)>,
    /// Names and texts.
    bytes: usize,
}

/// Why a name could not be given to a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatementsError {
    /// It has one. SQLSTATE 42P05.
    #[error("prepared statement already exists")]
    Exists,
    /// The client keeps as many, or as large ones, as it may. SQLSTATE 54000.
    #[error("too many prepared statements")]
    TooMany,
}

impl ClientStatements {
    /// The statement of this name.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        let list = self.list.as_deref()?;
        let at = list.position(name).ok()?;
        Some(&list.named[at].1)
    }

    /// The first name of the statement of this id.
    #[must_use]
    pub fn name_of(&self, id: u64) -> Option<&[u8]> {
        let list = self.list.as_deref()?;
        list.named.iter().find(|(_, statement)| statement.id == id).map(|(name, _)| &**name)
    }

    /// Names and statements, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Arc<Statement>)> {
        let named = self.list.as_deref().map(|list| &*list.named).unwrap_or_default();
        named.iter().map(|(name, statement)| (&**name, statement))
    }

    /// Gives a statement a name.
    ///
    /// # Errors
    /// [`StatementsError`]; nothing is changed then.
    pub fn insert(&mut self, name: &[u8], statement: Arc<Statement>) -> Result<(), StatementsError> {
        let bytes = name.len() + statement.bytes();
        if let Some(list) = self.list.as_deref() {
            if list.position(name).is_ok() {
                return Err(StatementsError::Exists);
            }
            if list.named.len() >= CLIENT_STATEMENTS_MAX {
                return Err(StatementsError::TooMany);
            }
        }
        let held = self.list.as_deref().map_or(0, |list| list.bytes);
        if held + bytes > CLIENT_STATEMENT_BYTES_MAX {
            return Err(StatementsError::TooMany);
        }
        let list = self.list.get_or_insert_default();
        if let Err(at) = list.position(name) {
            list.named.insert(at, (name.into(), statement));
            list.bytes += bytes;
        }
        Ok(())
    }

    /// Takes a name away, if there is such a one.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        let list = self.list.as_deref_mut()?;
        let at = list.position(name).ok()?;
        let (name, statement) = list.named.remove(at);
        list.bytes -= name.len() + statement.bytes();
        if list.named.is_empty() {
            self.list = None;
        }
        Some(statement)
    }

    /// Takes all names away, as DEALLOCATE ALL and DISCARD ALL do.
    pub fn clear(&mut self) {
        self.list = None;
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.as_deref().map_or(0, |list| list.named.len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_none()
    }
}

impl List {
    fn position(&self, name: &[u8]) -> Result<usize, usize> {
        self.named.binary_search_by(|(other, _)| (**other).cmp(name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::{Statements, tests::statement};
    use super::*;

    #[test]
    fn a_client_without_statements_costs_a_pointer() {
        assert_eq!(size_of::<ClientStatements>(), 8);
    }

    proptest! {
        #[test]
        fn names_are_a_map(steps in prop::collection::vec((any::<bool>(), "[ab]{0,2}"), 0..60)) {
            let statements = Statements::new();
            let mut names = ClientStatements::default();
            let mut model = BTreeMap::new();
            for (insert, name) in steps {
                if insert {
                    let made = statement(&statements, &name);
                    let expected = match model.contains_key(&name) {
                        true => Err(StatementsError::Exists),
                        false => Ok(()),
                    };
                    prop_assert_eq!(names.insert(name.as_bytes(), Arc::clone(&made)), expected);
                    model.entry(name).or_insert(made.id);
                } else {
                    prop_assert_eq!(names.remove(name.as_bytes()).map(|gone| gone.id), model.remove(&name));
                }
                prop_assert_eq!(names.len(), model.len());
                for (name, id) in &model {
                    prop_assert_eq!(names.get(name.as_bytes()).map(|found| found.id), Some(*id));
                }
                prop_assert_eq!(names.is_empty(), model.is_empty());
            }
            names.clear();
            prop_assert!(names.is_empty());
        }
    }

    #[test]
    fn a_client_is_bounded_in_number_and_bytes() {
        let statements = Statements::new();
        let small = statement(&statements, "");
        let mut names = ClientStatements::default();
        for at in 0..CLIENT_STATEMENTS_MAX {
            names.insert(at.to_string().as_bytes(), Arc::clone(&small)).unwrap();
        }
        assert_eq!(names.insert(b"one more", Arc::clone(&small)), Err(StatementsError::TooMany));
        names.remove(b"7").unwrap();
        assert_eq!(names.insert(b"one more", small), Ok(()));

        let half = "x".repeat(CLIENT_STATEMENT_BYTES_MAX / 2);
        let large = statement(&statements, &half);
        let mut names = ClientStatements::default();
        names.insert(b"", Arc::clone(&large)).unwrap();
        assert_eq!(names.insert(b"b", Arc::clone(&large)), Err(StatementsError::TooMany));
        names.remove(b"").unwrap();
        assert_eq!(names.insert(b"b", large), Ok(()));
    }
}
