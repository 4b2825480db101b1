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

pub(crate) mod behind;
mod builder;
mod builtin;
mod graph;
mod queries;
mod safety;
mod trees;

pub use builder::CatalogueBuilder;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::effects::Effects;
use crate::ident::Ident;
use crate::read::facts::{Call, Facts, Form, Mention};
use crate::route::{Reason, TableId, Tables};
use behind::{Behind, qualified};

/// An immutable snapshot of one database's definitions, as far as they matter here.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    version: u64,
    is_stale: bool,
    /// Something unread may be behind any name of a relation.
    hides: bool,
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
    /// What adding rows to a relation means for routing.
    inserts: HashMap<Box<[u8]>, Behind>,
    /// What changing rows of a relation means for routing; deleting them is what writing it means.
    updates: HashMap<Box<[u8]>, Behind>,
    /// What making a row of a relation's type means for routing.
    rows: HashMap<Box<[u8]>, Behind>,
    operators: HashMap<Box<[u8]>, Entry>,
    /// Of casts and index support functions, which any statement may call.
    anything: Entry,
    /// Of event triggers.
    definition: Entry,
    /// Of all names with bytes beyond ASCII: such a name in a text may be any of them.
    odd: Relation,
    /// Of all relations together.
    any_relation: Relation,
    /// PostgreSQL's own functions that are VOLATILE; `None`: not read, so that all count as such.
    volatiles: Option<HashSet<Box<[u8]>>>,
    /// PostgreSQL's own relations.
    system_relations: HashSet<Box<[u8]>>,
    /// Keys of all relations, those without effects included.
    known_relations: HashSet<Box<[u8]>>,
    /// The domains that have effects.
    domains: HashMap<Box<[u8]>, Entry>,
    /// Types that users defined.
    types: HashSet<Box<[u8]>>,
    /// Schemas with relations or functions of users.
    schemas: HashSet<Box<[u8]>>,
    /// Functions that can be written like a column of a row.
    row_functions: HashSet<Box<[u8]>>,
    /// Keys of names that are of one table each.
    plain_tables: HashMap<Box<[u8]>, Arc<PlainTable>>,
    /// Each table's name with its schema, for people.
    table_names: HashMap<TableId, Box<str>>,
    settings: Vec<RoleSetting>,
}

/// A table that can be spoken of by key.
#[derive(Debug)]
struct PlainTable {
    /// A change of it changes nothing more: no trigger, no rule, no cascade, no child.
    changes_alone: bool,
    /// Columns of integers or UUIDs that are not computed; none where row policies look at other rows.
    columns: HashSet<Box<[u8]>>,
}

/// A setting that sessions begin with, by ALTER ROLE or ALTER DATABASE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleSetting {
    /// For whom; `None`: for everybody in the database.
    pub role: Option<Box<str>>,
    /// Lower case.
    pub name: Box<str>,
    /// As it would stand in `SET`, unquoted.
    pub value: Box<str>,
}

/// Effects found behind a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) effects: Effects,
    pub(crate) settings: Vec<Box<str>>,
    pub(crate) behind: Behind,
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
        let effects = self.merge_effects(other);
        self.behind.merge(&other.behind) || effects
    }

    /// The same for effects and settings alone.
    pub(crate) fn merge_effects(&mut self, other: &Self) -> bool {
        let before = (self.effects, self.settings.len());
        self.effects |= other.effects;
        self.note(other.settings.iter().cloned());
        before != (self.effects, self.settings.len())
    }

    /// Remembers settings that may change.
    pub(crate) fn note(&mut self, settings: impl Iterator<Item = Box<str>>) {
        for name in settings {
            if !self.settings.contains(&name) {
                self.settings.push(name);
            }
        }
        if self.settings.len() > SETTINGS_MAX {
            self.settings.truncate(SETTINGS_MAX);
            self.effects |= Effects::SETTINGS_UNKNOWN;
        }
    }

    fn add_to(&self, facts: &mut Facts) {
        facts.add(self.effects);
        for name in &self.settings {
            facts.note(name.clone());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.effects.is_empty() && self.behind.is_empty()
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
        Arc::new(Self { version: 0, is_stale: true, hides: false, definitions: Arc::default() })
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

    /// The same where something may have been put behind names that were known ([`Decision::hides`]): statements that
    /// name relations are [`Effects::UNSURE`], too.
    ///
    /// [`Decision::hides`]: crate::Decision::hides
    #[must_use]
    pub fn hiding(&self) -> Arc<Self> {
        Arc::new(Self { is_stale: true, hides: self.version > 0, ..self.clone() })
    }

    /// Whether this is what [`Catalogue::hiding`] made.
    #[must_use]
    pub fn hides(&self) -> bool {
        self.hides
    }

    /// The same, where nobody will read in time what is behind names: only calls are unsure.
    #[must_use]
    pub fn given_up(&self) -> Arc<Self> {
        Arc::new(Self { hides: false, ..self.clone() })
    }

    /// What was read, whatever may have changed since: for statements that ran before it was read.
    #[must_use]
    pub fn as_read(&self) -> Arc<Self> {
        Arc::new(Self { is_stale: self.version == 0, hides: false, ..self.clone() })
    }

    /// Whether this is what [`Catalogue::stale`] or [`Catalogue::empty`] made.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Decisions made with another mark do not hold: the version, whether anything is hidden, whether it is stale.
    pub(crate) fn mark(&self) -> (u64, bool) {
        (self.version << 1 | u64::from(self.hides), self.is_stale)
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

    /// What keeps a function of this name, in any schema, off replicas; for explanations and tests.
    #[must_use]
    pub fn function_hazard(&self, name: &str) -> Option<(Reason, Box<str>)> {
        let mut behind = Behind::default();
        if self.definitions.names.get(name.as_bytes()) == Some(&true) {
            behind.builtin(name.as_bytes(), self.definitions.is_volatile(name.as_bytes()));
        }
        if let Some(entry) = self.definitions.functions.get(name.as_bytes()) {
            behind.merge(&entry.behind);
        }
        behind.hazard.map(|hazard| (hazard.reason, hazard.name))
    }

    /// The tables of this name, with schema or in any, that reading and that writing it may touch.
    #[must_use]
    pub fn tables(&self, schema: Option<&str>, name: &str) -> Option<(&Tables, &Tables)> {
        let key =
            schema.map_or(name.as_bytes().into(), |schema| qualified(schema.as_bytes(), name.as_bytes()));
        let relation = self.definitions.relations.get(&key)?;
        Some((&relation.read.behind.reads, &relation.write.behind.writes))
    }

    /// A table's name with its schema: of a tree the name of the member that it is known by.
    #[must_use]
    pub fn table_name(&self, table: TableId) -> Option<&str> {
        if table == TableId::CATALOGUE {
            return Some("pg_catalog");
        }
        self.definitions.table_names.get(&table).map(|name| &**name)
    }

    /// What sessions of this database begin with, by ALTER ROLE and ALTER DATABASE.
    #[must_use]
    pub fn role_settings(&self) -> &[RoleSetting] {
        &self.definitions.settings
    }

    /// Adds what the names in `facts` hide.
    pub(crate) fn resolve(&self, facts: &mut Facts) {
        let definitions = Arc::clone(&self.definitions);
        definitions.anything.add_to(facts);
        if facts.writes && self.is_stale {
            facts.add(Effects::SEQUENCE_MAYBE);
        }
        let names_relations = || !facts.sources.is_empty() || !facts.targets.is_empty() || facts.any_relation;
        if self.hides && (facts.writes || facts.is_cut || names_relations()) {
            facts.add(Effects::UNSURE);
        }
        if facts.defines {
            definitions.definition.add_to(facts);
        }
        for dropped in std::mem::take(&mut facts.drops) {
            if self.may_be_known(&dropped) {
                facts.add(Effects::DDL);
            }
        }
        for call in std::mem::take(&mut facts.calls) {
            self.resolve_call(call, facts);
        }
        for name in std::mem::take(&mut facts.mentions) {
            definitions.resolve_mention(&name.name, facts);
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

    /// Whether a table may be one that others have, too. A temporary one is never read, and one that was made since the
    /// last reading made this stale.
    fn may_be_known(&self, table: &Mention) -> bool {
        let is_temporary = |schema: &Ident| schema.as_bytes().starts_with(b"pg_temp");
        if table.schema.as_ref().is_some_and(is_temporary) {
            return false;
        }
        let is_odd = table.name.is_odd || table.schema.is_some_and(|schema| schema.is_odd);
        if is_odd || self.is_stale || self.version == 0 {
            return true;
        }
        let name = table.name.as_bytes();
        let key = table.schema.map_or(name.into(), |schema| qualified(schema.as_bytes(), name));
        self.definitions.known_relations.contains(&key) || self.definitions.relations.contains_key(&key)
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
    fn is_volatile(&self, name: &[u8]) -> bool {
        self.volatiles.as_ref().is_none_or(|volatiles| volatiles.contains(name))
    }

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
