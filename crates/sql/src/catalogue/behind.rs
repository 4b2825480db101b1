//! What is behind the names of a statement, for routing: hazards, tables read, tables written.
//!
//! **Mechanism.** [`Behind`] is what one name hides, or one text; it only grows when merged, so that following calls,
//! views and triggers comes to an end. A statement's names are looked up as PostgreSQL would look them up, as far as
//! that is known: with a schema in that schema, with a search path in its schemas, else in all. Of several functions of
//! one name, and of several schemas of a path, all count: which overload is meant depends on types that no text shows.
//!
//! **Failure.** What is not found is a hazard; so is a text with more names than [`LOOKUPS_MAX`] allows for.

use super::{Catalogue, Definitions, safety};
use crate::ident::Ident;
use crate::path::SearchPath;
use crate::read::facts::{Call, Change, Facts, Form, Mention, Target};
use crate::route::{Reason, TableId, Tables};

/// Names looked up for one text, about 50 ns each.
const LOOKUPS_MAX: usize = 8_192;

/// What a name hides, or a text says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behind {
    /// Why it does not run on a replica.
    pub(crate) hazard: Option<Hazard>,
    pub(crate) reads: Tables,
    pub(crate) writes: Tables,
    /// Its answer belongs to the transaction.
    pub(crate) binds: bool,
    /// Names looked up.
    pub(crate) lookups: u32,
}

/// A reason with the name that gave it. Of two the lesser is kept, so that the order of merging does not matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hazard {
    pub(crate) reason: Reason,
    pub(crate) name: Box<str>,
}

impl Behind {
    /// Takes what another has; says whether that was anything new.
    pub(crate) fn merge(&mut self, other: &Self) -> bool {
        let is_worse = match (&self.hazard, &other.hazard) {
            (Some(mine), Some(other)) => other < mine,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if is_worse {
            self.hazard.clone_from(&other.hazard);
        }
        let binds = other.binds && !self.binds;
        self.binds |= other.binds;
        let reads = self.reads.merge(&other.reads);
        let writes = self.writes.merge(&other.writes);
        is_worse || binds || reads || writes
    }

    /// The same of a name that may be something else than a relation: what it would read counts if it is read.
    pub(super) fn merge_named(&mut self, other: &Self, is_read: bool) -> bool {
        match is_read {
            true => self.merge(other),
            false => self.merge(&Self { reads: Tables::NONE, ..other.clone() }),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hazard.is_none() && !self.binds && self.reads.is_empty() && self.writes.is_empty()
    }

    /// Adds a reason, with the name that gave it.
    pub(crate) fn add(&mut self, reason: Reason, name: &[u8]) {
        let hazard = Hazard { reason, name: String::from_utf8_lossy(name).into() };
        if self.hazard.as_ref().is_none_or(|mine| hazard < *mine) {
            self.hazard = Some(hazard);
        }
    }

    /// Whatever it reads and writes is not known.
    pub(crate) fn anything(&mut self) {
        self.reads = Tables::All;
        self.writes = Tables::All;
    }

    /// Adds what calling one of PostgreSQL's own functions means.
    pub(crate) fn builtin(&mut self, name: &[u8], is_volatile: bool) {
        let Some(reason) = safety::function(name, is_volatile) else { return };
        self.add(reason, name);
        // Large objects, and what functions of administration change, are in the server's own tables.
        if matches!(reason, Reason::Writes | Reason::VolatileFunction) {
            self.writes.merge(&Tables::one(TableId::CATALOGUE));
        }
    }
}

/// What a qualified name is kept under; no name has a zero byte.
pub(crate) fn qualified(schema: &[u8], name: &[u8]) -> Box<[u8]> {
    [schema, &[0], name].concat().into()
}

/// A statement's names being looked up.
struct Lookup<'c> {
    catalogue: &'c Catalogue,
    path: Option<&'c SearchPath>,
    behind: Behind,
    lookups: usize,
}

impl Catalogue {
    /// What is behind the names of a text.
    pub(crate) fn behind(&self, facts: &Facts, path: Option<&SearchPath>) -> Behind {
        let behind = self.definitions.anything.behind.clone();
        let mut lookup = Lookup { catalogue: self, path, behind, lookups: 0 };
        facts.calls.iter().for_each(|call| lookup.call(call));
        facts.mentions.iter().for_each(|mention| lookup.named(mention, facts.is_cut));
        lookup.rows_made(facts);
        facts.sources.iter().for_each(|source| lookup.named(source, true));
        facts.targets.iter().for_each(|target| lookup.write(target));
        lookup.sources(facts);
        for operator in &facts.operators {
            if let Some(entry) = self.definitions.operators.get(operator.as_bytes()) {
                lookup.behind.merge(&entry.behind);
            }
        }
        let is_defined = !facts.calls.is_empty() || !facts.mentions.is_empty();
        if self.is_stale && is_defined && lookup.touches_definitions(facts) {
            let reason = if self.version == 0 { Reason::CatalogueUnknown } else { Reason::CatalogueStale };
            lookup.behind.add(reason, b"");
            lookup.behind.anything();
        }
        lookup.behind.lookups = u32::try_from(lookup.lookups).unwrap_or(u32::MAX);
        lookup.behind
    }
}

impl Catalogue {
    /// Whether a statement of these facts touches the rows of one table alone, which its own words pick by a value of
    /// this column: the name is of one table, the column's type has one way to be equal, no function of users is called,
    /// and (if it is changed) nothing else changes with it.
    pub(crate) fn is_keyed(
        &self,
        table: &Mention,
        column: &str,
        is_write: bool,
        facts: &Facts,
        path: Option<&SearchPath>,
    ) -> bool {
        let definitions = &self.definitions;
        let lookup = Lookup { catalogue: self, path, behind: Behind::default(), lookups: 0 };
        let keys = lookup.keys(&table.name, table.schema.as_ref());
        let mut found = keys.iter().filter_map(|key| definitions.plain_tables.get(key));
        let (Some(plain), None) = (found.next(), found.next()) else { return false };
        let is_builtin = |call: &Call| {
            call.form == Form::Attribute || definitions.names.get(call.name.as_bytes()) == Some(&true)
        };
        let is_own = |call: &Call| !definitions.functions.contains_key(call.name.as_bytes());
        !self.is_stale
            && (plain.changes_alone || !is_write)
            && plain.columns.contains(column.as_bytes())
            && facts.calls.iter().all(|call| is_builtin(call) && is_own(call))
    }
}

impl Lookup<'_> {
    fn definitions(&self) -> &Definitions {
        &self.catalogue.definitions
    }

    /// Whether there is anything in a text that a changed definition could change.
    fn touches_definitions(&self, facts: &Facts) -> bool {
        let definitions = self.definitions();
        let is_builtin = |call: &Call| definitions.names.get(call.name.as_bytes()) == Some(&true);
        !facts.sources.is_empty()
            || !facts.targets.is_empty()
            || facts.calls.iter().any(|call| call.form == Form::Certain && !is_builtin(call))
    }

    /// Counts a look-up; false: there were too many.
    fn counts(&mut self) -> bool {
        self.lookups += 1;
        if self.lookups > LOOKUPS_MAX {
            self.behind.add(Reason::TooLong, b"");
            self.behind.anything();
        }
        self.lookups <= LOOKUPS_MAX
    }

    /// The keys under which a name may be found: one with schema, several along the path, or the one for all schemas.
    fn keys(&self, name: &Ident, schema: Option<&Ident>) -> Vec<Box<[u8]>> {
        let name = name.as_bytes();
        match (schema, self.path) {
            (Some(schema), _) => vec![qualified(schema.as_bytes(), name)],
            (None, Some(path)) => path.schemas().iter().map(|schema| qualified(schema, name)).collect(),
            (None, None) => vec![name.into()],
        }
    }

    fn call(&mut self, call: &Call) {
        let name = call.name.as_bytes();
        if call.form == Form::Attribute && !self.definitions().row_functions.contains(name) {
            return;
        }
        // `x.f` where x is no schema is a column of x, or a function of the row x.
        let schema = call.schema.as_ref().filter(|_| call.form != Form::Attribute);
        let is_own = schema.is_none_or(|schema| schema.as_bytes() == b"pg_catalog");
        let mut is_found = is_own && self.builtin(name);
        for key in self.keys(&call.name, schema) {
            if !self.counts() {
                return;
            }
            let definitions = &self.catalogue.definitions;
            is_found |= definitions.names.contains_key(&key) || definitions.types.contains(name);
            if let Some(entry) = definitions.functions.get(&key) {
                self.behind.merge(&entry.behind);
            }
        }
        if call.name.is_odd {
            let odd = &self.catalogue.definitions.odd.read.behind;
            self.behind.merge(odd);
        }
        if !is_found && call.form == Form::Certain {
            self.behind.add(Reason::UnknownFunction, name);
            self.behind.anything();
        }
    }

    /// One of PostgreSQL's own; whether there is one.
    fn builtin(&mut self, name: &[u8]) -> bool {
        let definitions = &self.catalogue.definitions;
        if definitions.names.get(name) != Some(&true) {
            return false;
        }
        self.behind.builtin(name, definitions.is_volatile(name));
        true
    }

    /// Whether a name is PostgreSQL's own relation.
    fn system_relation(&self, mention: &Mention) -> bool {
        let schema = mention.schema.as_ref().map(Ident::as_bytes);
        let is_own = schema.is_none_or(|schema| matches!(schema, b"pg_catalog" | b"information_schema"));
        is_own && self.definitions().system_relations.contains(mention.name.as_bytes())
    }

    /// A name anywhere: what is against reading it if it were a relation or a domain, and, where it is read, what that
    /// reads.
    fn named(&mut self, mention: &Mention, is_read: bool) {
        if self.system_relation(mention) {
            if is_read {
                self.behind.reads.merge(&Tables::one(TableId::CATALOGUE));
            }
            if let Some(reason) = safety::relation(mention.name.as_bytes()) {
                self.behind.add(reason, mention.name.as_bytes());
            }
        }
        if let Some(reason) = safety::column(mention.name.as_bytes()) {
            self.behind.add(reason, mention.name.as_bytes());
        }
        if mention.name.is_odd {
            let odd = &self.catalogue.definitions.odd.read.behind;
            self.behind.merge_named(odd, is_read);
        }
        if let Some(domain) = self.catalogue.definitions.domains.get(mention.name.as_bytes()) {
            self.behind.merge(&domain.behind);
        }
        if !self.counts() || self.is_column(mention) {
            return;
        }
        for key in self.keys(&mention.name, mention.schema.as_ref()) {
            if !self.counts() {
                return;
            }
            if let Some(relation) = self.catalogue.definitions.relations.get(&key) {
                self.behind.merge_named(&relation.read.behind, is_read);
            }
        }
    }

    /// Rows that are made of values: domains of their columns are checked.
    fn rows_made(&mut self, facts: &Facts) {
        if self.definitions().rows.is_empty() {
            return;
        }
        let any = facts.makes_rows();
        for mention in facts.mentions.iter().filter(|mention| any || mention.is_type) {
            for key in self.keys(&mention.name, mention.schema.as_ref()) {
                if !self.counts() {
                    return;
                }
                if let Some(row) = self.catalogue.definitions.rows.get(&key) {
                    self.behind.merge_named(row, false);
                }
            }
        }
    }

    /// Whether what stands before the dot is no schema.
    fn is_column(&self, mention: &Mention) -> bool {
        let schemas = &self.definitions().schemas;
        mention.schema.is_some_and(|schema| !schemas.contains(schema.as_bytes()) && !schema.is_odd)
    }

    fn write(&mut self, target: &Target) {
        let mut is_found = false;
        let Mention { name, schema, .. } = &target.mention;
        for key in self.keys(name, schema.as_ref()) {
            if !self.counts() {
                return;
            }
            let definitions = &self.catalogue.definitions;
            let found = match target.change {
                Change::Insert => definitions.inserts.get(&key),
                Change::Update => definitions.updates.get(&key),
                Change::Delete => definitions.relations.get(&key).map(|relation| &relation.write.behind),
            };
            if let Some(found) = found {
                is_found = true;
                self.behind.merge(found);
            }
            // Which rows are changed or deleted is read from them.
            if let Some(relation) = definitions.relations.get(&key)
                && target.change != Change::Insert
            {
                self.behind.reads.merge(&relation.read.behind.reads);
            }
        }
        if !is_found || name.is_odd {
            self.behind.writes = Tables::All;
        }
    }

    /// Relations read from that are nowhere.
    fn sources(&mut self, facts: &Facts) {
        for source in &facts.sources {
            let name = source.name.as_bytes();
            let is_query = |with: &Ident| source.schema.is_none() && with.as_bytes() == name;
            if self.system_relation(source) || facts.with_names.iter().any(is_query) {
                continue;
            }
            let definitions = &self.catalogue.definitions;
            let keys = self.keys(&source.name, source.schema.as_ref());
            let is_found = keys.iter().any(|key| definitions.known_relations.contains(key));
            if !is_found && self.counts() {
                self.behind.add(Reason::UnknownTable, name);
                self.behind.anything();
            }
        }
    }
}
