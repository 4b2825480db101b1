//! What functions, triggers, views and defaults of one database hide.
//!
//! **Intuition.** `SELECT f(1)` may set the time zone, `INSERT INTO t` may take an advisory lock by a trigger. What the
//! text can't show, the server's own catalogue does: the source of functions, and what refers to them.
//!
//! **Mechanism.** The pooler runs [`Catalogue::QUERIES`] and gives the rows to a [`CatalogueBuilder`], which reads every
//! body and expression as a statement is read, and follows calls, triggers, views, cascades and inheritance until
//! nothing changes. What remains is small: the names that have effects, and the names of all functions, so that a call
//! of one that is not known is seen as such.
//!
//! Names are matched without schema: `a.f` and `b.f` have the effects of both. That is coarser than the search path,
//! and safe against changing it.
//!
//! **Failure.** What can't be read (a language other than SQL and PL/pgSQL, statements put together at run time) has
//! [`Effects::UNKNOWN`]. While definitions have changed and aren't read yet, [`Catalogue::stale`] knows only
//! PostgreSQL's own functions; what calls others is [`Effects::UNSURE`], as is a call of what is not there. Not seen: a risky function that an implicit cast to a domain calls for a parameter
//! whose type no name in the text gives.

mod builder;
mod builtin;
mod queries;

pub use builder::CatalogueBuilder;

use std::collections::HashMap;
use std::sync::Arc;

use crate::effects::Effects;
use crate::ident::Ident;
use crate::read::facts::{Call, Facts, Form};

/// An immutable snapshot of one database's definitions, as far as they matter here.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    version: u64,
    is_stale: bool,
    definitions: Arc<Definitions>,
}

#[derive(Debug, Default)]
struct Definitions {
    /// Names of all functions, procedures, aggregates and types; whether PostgreSQL's own.
    names: HashMap<Box<[u8]>, bool>,
    /// The functions that have effects.
    functions: HashMap<Box<[u8]>, Entry>,
    /// The relations and domains that have effects.
    relations: HashMap<Box<[u8]>, Relation>,
    operators: HashMap<Box<[u8]>, Entry>,
    /// Of casts and index support functions, which any statement may call.
    anything: Entry,
    /// Of event triggers.
    definition: Entry,
    /// Of all names with bytes beyond ASCII: such a name in a text may be any of them.
    odd: Relation,
    /// Of all relations together.
    any_relation: Relation,
}

/// Effects found behind a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) effects: Effects,
    pub(crate) settings: Vec<Box<str>>,
}

/// What reading and what writing a relation does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) read: Entry,
    pub(crate) write: Entry,
}

impl Entry {
    /// Takes what another has; says whether that was anything new.
    pub(crate) fn merge(&mut self, other: &Self) -> bool {
        let before = (self.effects, self.settings.len());
        self.effects |= other.effects;
        for name in &other.settings {
            if !self.settings.contains(name) {
                self.settings.push(name.clone());
            }
        }
        if self.settings.len() > SETTINGS_MAX {
            self.settings.truncate(SETTINGS_MAX);
            self.effects |= Effects::SETTINGS_UNKNOWN;
        }
        before != (self.effects, self.settings.len())
    }

    fn add_to(&self, facts: &mut Facts) {
        facts.add(self.effects);
        for name in &self.settings {
            facts.note(name.clone());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }
}

/// Settings remembered of one function or relation.
const SETTINGS_MAX: usize = 32;

impl Catalogue {
    /// What to run on the server, in this order, in one REPEATABLE READ transaction; every row of the n-th goes to
    /// [`CatalogueBuilder::row`]. PostgreSQL 12 to 18.
    pub const QUERIES: &[&str] = queries::QUERIES;

    /// One row, one column; its text changes when definitions may have. Index scans of what users defined: cheap
    /// enough for once a second.
    pub const SIGNATURE_QUERY: &str = queries::SIGNATURE;

    /// Knows nothing: every function call is unknown.
    #[must_use]
    pub fn empty() -> Arc<Self> {
        Arc::new(Self { version: 0, is_stale: true, definitions: Arc::default() })
    }

    /// Which snapshot this is; decisions made with another do not hold.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The same while definitions have changed and are not read yet: calls of functions that are not PostgreSQL's own
    /// are [`Effects::UNSURE`].
    #[must_use]
    pub fn stale(&self) -> Arc<Self> {
        Arc::new(Self { is_stale: true, ..self.clone() })
    }

    /// What was read, whatever may have changed since: for statements that ran before it was read.
    #[must_use]
    pub fn as_read(&self) -> Arc<Self> {
        Arc::new(Self { is_stale: self.version == 0, ..self.clone() })
    }

    /// Whether this is what [`Catalogue::stale`] or [`Catalogue::empty`] made.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// What calling a function of this name does, as far as the catalogue knows; for explanations and tests.
    #[must_use]
    pub fn function_effects(&self, name: &str) -> Effects {
        let builtin = builtin::function(name.as_bytes()).map_or(Effects::NONE, |(effects, _)| effects);
        builtin | self.definitions.functions.get(name.as_bytes()).map_or(Effects::NONE, |entry| entry.effects)
    }

    /// What reading, and what writing, a relation of this name does; for explanations and tests.
    #[must_use]
    pub fn relation_effects(&self, name: &str) -> (Effects, Effects) {
        let found = self.definitions.relations.get(name.as_bytes());
        found.map_or((Effects::NONE, Effects::NONE), |relation| {
            (relation.read.effects, relation.write.effects)
        })
    }

    /// Adds what the names in `facts` hide.
    pub(crate) fn resolve(&self, facts: &mut Facts) {
        let definitions = Arc::clone(&self.definitions);
        definitions.anything.add_to(facts);
        if facts.writes && self.is_stale {
            facts.add(Effects::SEQUENCE_MAYBE);
        }
        if facts.defines {
            definitions.definition.add_to(facts);
        }
        for call in std::mem::take(&mut facts.calls) {
            self.resolve_call(call, facts);
        }
        for name in std::mem::take(&mut facts.mentions) {
            definitions.resolve_mention(&name, facts);
        }
        if !definitions.operators.is_empty() {
            for operator in std::mem::take(&mut facts.operators) {
                if let Some(entry) = definitions.operators.get(operator.as_bytes()) {
                    entry.add_to(facts);
                }
            }
        }
        if facts.any_relation {
            let written = facts.writes;
            definitions.any_relation.read.add_to(facts);
            if written {
                definitions.any_relation.write.add_to(facts);
            }
        }
    }

    fn resolve_call(&self, call: Call, facts: &mut Facts) {
        let definitions = &self.definitions;
        let name = call.name.as_bytes();
        let found = definitions.functions.get(name);
        if let Some(entry) = found {
            entry.add_to(facts);
        }
        if call.form == Form::Attribute {
            return;
        }
        if call.name.is_odd {
            definitions.odd.read.add_to(facts);
        }
        let builtin = builtin::function(name);
        if let Some((effects, setting)) = builtin {
            facts.add(effects);
            setting.into_iter().for_each(|setting| facts.note(setting.into()));
        }
        let is_known = match definitions.names.get(name) {
            Some(is_builtin) => *is_builtin || !self.is_stale,
            None => builtin.is_some(),
        };
        if !is_known && call.form == Form::Certain {
            // What was never read never will be: there is nobody to read it as. Nor is a name beyond ASCII ever found.
            facts.add(if self.version > 0 && !call.name.is_odd { Effects::UNSURE } else { Effects::UNKNOWN });
        }
    }
}

impl Definitions {
    fn resolve_mention(&self, name: &Ident, facts: &mut Facts) {
        if let Some((read, write)) = builtin::relation(name.as_bytes()) {
            facts.add(read);
            if facts.writes {
                facts.add(write);
            }
        }
        let found = self.relations.get(name.as_bytes());
        let odd = name.is_odd.then_some(&self.odd);
        for relation in found.into_iter().chain(odd) {
            relation.read.add_to(facts);
            if facts.writes {
                relation.write.add_to(facts);
            }
        }
    }
}
