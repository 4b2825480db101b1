//! The graph that effects, hazards and tables are followed along.
//!
//! **Mechanism.** Every function, relation (read and written apart), operator and domain is a node. A name with its
//! schema has a node of its own; the name alone has one that stands for all of that name. Reading a body or an
//! expression gives a node its own [`Entry`] and edges to the nodes it names. A work list then carries entries along the
//! edges backwards until nothing changes: each node changes at most once per effect, setting, hazard and table, so that
//! recursion and size cost no more than edges times what an entry can hold.
//!
//! Effects are followed by names without schema, tables and hazards with it: the first must not depend on any search
//! path, the second must be precise enough to be of use.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::behind::qualified;
use super::builder::{CatalogueBuilder, Function, RelationOf, RelationRow, key_of};
use super::trees::Trees;
use super::{Definitions, Entry, Relation, builtin, safety};
use crate::catalogue::PlainTable;
use crate::effects::Effects;
use crate::fingerprint::Reading;
use crate::ident::Ident;
use crate::lex::Dialect;
use crate::read::facts::{Call, Change, Facts, Form, Mention, Target, effects_reason};
use crate::read::{Mode, Reader, body};
use crate::route::{Reason, TableId, Tables};

/// What a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Function,
    Read,
    Write,
    /// Adding rows: writing without cascades.
    Insert,
    /// Changing rows: writing without what deleting them cascades to.
    Update,
    Operator,
    /// Making a row of a relation's type, as a cast does: what domains of its columns check.
    Row,
    Special,
}

pub(crate) const ANYTHING_NAME: &str = "anything";
pub(crate) const EVENT_NAME: &str = "event";
const ANY_READ: &str = "any relation read";
const ANY_WRITE: &str = "any relation written";
const ODD_READ: &str = "any name beyond ASCII read";
const ODD_WRITE: &str = "any name beyond ASCII written";

#[derive(Default)]
pub(crate) struct Graph {
    ids: HashMap<(Key, Box<[u8]>), usize>,
    nodes: Vec<Node>,
    /// Nodes with schema of each name.
    specific: HashMap<(Key, Box<[u8]>), Vec<usize>>,
    schemas: HashSet<Box<[u8]>>,
    domains: HashSet<Box<[u8]>>,
    volatiles: Option<HashSet<Box<[u8]>>>,
    system_relations: HashSet<Box<[u8]>>,
    builtins: HashSet<Box<[u8]>>,
}

#[derive(Default)]
struct Node {
    entry: Entry,
    /// Nodes that have whatever this one has.
    dependents: Vec<Edge>,
}

#[derive(Clone, Copy)]
struct Edge {
    to: usize,
    /// Drawing from a sequence is not the dependent's own doing.
    draws: bool,
    carries: Carries,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Carries {
    All,
    /// Effects and settings.
    Effects,
    /// What matters for routing.
    Behind,
    /// The same without the tables read.
    Hazards,
}

/// How a node takes what was read.
#[derive(Clone, Copy, Default)]
struct Taking {
    draws: bool,
    /// The query of a view that is written: what it names is written this way.
    writes_all: Option<Key>,
}

impl Graph {
    /// Every name first, so that reading bodies knows which words matter.
    pub(crate) fn of(rows: &CatalogueBuilder) -> Self {
        let mut graph = Self {
            volatiles: rows.volatiles.clone(),
            system_relations: rows.system_relations.clone(),
            domains: rows.domains.iter().map(|(name, _)| name.as_bytes().into()).collect(),
            builtins: rows.builtins.iter().map(|name| name.as_bytes().into()).collect(),
            ..Self::default()
        };
        for name in [ANYTHING_NAME, EVENT_NAME, ANY_READ, ANY_WRITE, ODD_READ, ODD_WRITE] {
            graph.id(Key::Special, name.as_bytes());
        }
        for function in &rows.functions {
            graph.add_function_name(function);
        }
        for (operator, _) in &rows.operators {
            graph.id(Key::Operator, operator.as_bytes());
        }
        for (domain, _) in &rows.domains {
            graph.add_relation_name(None, domain);
        }
        for relation in &rows.relations {
            graph.add_relation_name(relation.schema.as_deref(), &relation.name);
        }
        graph.add_tables(rows);
        graph
    }

    fn id(&mut self, key: Key, name: &[u8]) -> usize {
        if let Some(id) = self.ids.get(&(key, name.into())) {
            return *id;
        }
        self.nodes.push(Node::default());
        let id = self.nodes.len() - 1;
        self.ids.insert((key, name.into()), id);
        id
    }

    fn find(&self, key: Key, name: &[u8]) -> Option<usize> {
        self.ids.get(&(key, name.into())).copied()
    }

    /// The node of a name in a schema, on which that of the name alone depends.
    fn specific(&mut self, key: Key, schema: Option<&str>, name: &str) -> usize {
        let Some(schema) = schema else { return self.id(key, name.as_bytes()) };
        self.schemas.insert(schema.as_bytes().into());
        let full = qualified(schema.as_bytes(), name.as_bytes());
        if let Some(id) = self.find(key, &full) {
            return id;
        }
        let all = self.id(key, name.as_bytes());
        let id = self.id(key, &full);
        self.specific.entry((key, name.as_bytes().into())).or_default().push(id);
        self.depend(all, id, Carries::All, false);
        id
    }

    fn add_function_name(&mut self, function: &Function) {
        self.specific(Key::Function, function.schema.as_deref(), &function.name);
        if !function.name.is_ascii() {
            let id = self.id(Key::Function, function.name.as_bytes());
            self.special_depends(ODD_READ, id);
        }
    }

    fn add_relation_name(&mut self, schema: Option<&str>, name: &str) {
        if self.find(Key::Read, &key_of(schema, name)).is_some() {
            return;
        }
        self.specific(Key::Read, schema, name);
        let write = self.specific(Key::Write, schema, name);
        let update = self.specific(Key::Update, schema, name);
        let insert = self.specific(Key::Insert, schema, name);
        self.specific(Key::Row, schema, name);
        self.depend(write, update, Carries::All, false);
        self.depend(update, insert, Carries::All, false);
        let (read, write) = (self.id(Key::Read, name.as_bytes()), self.id(Key::Write, name.as_bytes()));
        self.special_depends(ANY_READ, read);
        self.special_depends(ANY_WRITE, write);
        if !name.is_ascii() {
            self.special_depends(ODD_READ, read);
            self.special_depends(ODD_WRITE, write);
        }
    }

    /// What each relation is itself: a table that is read and written, a sequence, a foreign table.
    fn add_tables(&mut self, rows: &CatalogueBuilder) {
        let trees = Trees::of(&rows.relations);
        for relation in &rows.relations {
            let RelationRow::Object { oid, kind, persistence } = relation.row else { continue };
            let read = self.specific(Key::Read, relation.schema.as_deref(), &relation.name);
            let insert = self.specific(Key::Insert, relation.schema.as_deref(), &relation.name);
            let name = relation.name.as_bytes();
            let entry = &mut self.nodes[read].entry.behind;
            match kind {
                b'S' => entry.add(Reason::Sequence, name),
                b'f' => entry.add(Reason::ForeignTable, name),
                _ if persistence == b'u' => entry.add(Reason::UnloggedTable, name),
                _ => {}
            }
            if matches!(kind, b'r' | b'p' | b'm' | b'f') {
                let table = Tables::one(trees.root(oid));
                entry.reads.merge(&table);
                self.nodes[insert].entry.behind.writes.merge(&table);
            }
        }
    }

    fn special_depends(&mut self, special: &str, on: usize) {
        let id = self.id(Key::Special, special.as_bytes());
        self.depend(id, on, Carries::All, false);
    }

    /// `node` has what `on` has.
    fn depend(&mut self, node: usize, on: usize, carries: Carries, draws: bool) {
        if node != on {
            self.nodes[on].dependents.push(Edge { to: node, draws, carries });
        }
    }

    pub(crate) fn function(&mut self, function: &Function) {
        let id = self.specific(Key::Function, function.schema.as_deref(), &function.name);
        let taking = Taking::default();
        match &*function.language {
            "sql" => self.take(id, &facts_of(Mode::Sql, &function.source, body::nested), taking),
            "plpgsql" => {
                self.take(id, &facts_of(Mode::Plpgsql, &function.source, body::nested), taking);
                if function.is_volatile {
                    self.nodes[id].entry.behind.add(Reason::VolatileFunction, function.name.as_bytes());
                }
            }
            "internal" | "c" => self.compiled(id, function),
            _ => {
                let entry = &mut self.nodes[id].entry;
                entry.effects |= Effects::UNKNOWN;
                entry.behind.add(Reason::UnreadableFunction, function.name.as_bytes());
                entry.behind.anything();
            }
        }
        for expression in function.defaults.iter().chain(&function.definition) {
            self.read(id, expression, taking);
        }
    }

    fn compiled(&mut self, id: usize, function: &Function) {
        let name = function.name.as_bytes();
        let found = [builtin::function(name), builtin::symbol(function.source.as_bytes())];
        let entry = &mut self.nodes[id].entry;
        for (effects, setting) in found.into_iter().flatten() {
            entry.effects |= effects;
            entry.note(setting.into_iter().map(Box::from));
        }
        let is_stateful =
            |library: &str| builtin::LIBRARIES_STATEFUL.iter().any(|name| library.contains(name));
        if function.is_volatile && function.library.as_deref().is_some_and(is_stateful) {
            entry.effects |= Effects::UNKNOWN;
        }
        if let Some(reason) = effects_reason(entry.effects, Reason::UnreadableFunction) {
            entry.behind.add(reason, name);
        }
        if let Some(reason) = safety::function(name, function.is_volatile) {
            entry.behind.add(reason, name);
        }
        // One of PostgreSQL's own by another name, whatever that one is declared to be.
        let symbol = function.source.as_bytes();
        let is_volatile = self.volatiles.as_ref().is_none_or(|volatiles| volatiles.contains(symbol));
        if &*function.language == "internal"
            && let Some(reason) = safety::function(symbol, is_volatile)
        {
            entry.behind.add(reason, name);
        }
        if entry.behind.hazard.is_some() {
            entry.behind.anything();
        }
    }

    /// A name of `key`, in whatever schema, calls a function.
    pub(crate) fn call(&mut self, key: Key, name: &str, called: &str) {
        let mut ids = vec![self.id(key, name.as_bytes())];
        ids.extend(self.specific.get(&(key, name.as_bytes().into())).into_iter().flatten());
        let mut facts = Facts::default();
        facts.call(Ident::exact(called.as_bytes()), Form::Perhaps);
        // It may be a domain.
        let name = Ident::exact(called.as_bytes());
        facts.mentions.push(Mention { name, schema: None, is_type: false });
        // Whatever a domain's check reads is read.
        facts.is_cut = true;
        for id in ids {
            self.take(id, &facts, Taking::default());
        }
    }

    /// What a row says of the relation, or the domain, under `key`.
    pub(crate) fn relation(&mut self, key: &[u8], row: &RelationRow) {
        let read = self.id(Key::Read, key);
        let write = self.id(Key::Write, key);
        let update = self.id(Key::Update, key);
        let insert = self.id(Key::Insert, key);
        let drawing = Taking { draws: true, ..Taking::default() };
        match row {
            RelationRow::Write(text) if text.starts_with("CREATE ") && text.contains(" TRIGGER ") => {
                self.take(insert, &facts_of(Mode::Sql, text, body::trigger), drawing);
            }
            RelationRow::Write(text) => self.read(insert, text, drawing),
            RelationRow::Both(text) => {
                self.read(read, text, Taking::default());
                self.read(insert, text, drawing);
            }
            RelationRow::View(text) => {
                let mut facts = facts_of(Mode::Sql, text, body::swept);
                self.take(read, &facts, Taking::default());
                facts.writes = true;
                self.take(write, &facts, Taking { draws: true, writes_all: Some(Key::Write) });
                self.take(update, &facts, Taking { draws: true, writes_all: Some(Key::Update) });
                self.take(insert, &facts, Taking { draws: true, writes_all: Some(Key::Insert) });
            }
            RelationRow::Identity => self.nodes[insert].entry.effects |= Effects::SEQUENCE_MAYBE,
            RelationRow::Domain(domain) => {
                self.part(insert, Key::Write, None, domain, Carries::All);
                let row = self.id(Key::Row, key);
                self.part(row, Key::Read, None, domain, Carries::Behind);
                self.part(row, Key::Row, None, domain, Carries::Behind);
            }
            // What is deleted or changed there may be deleted or changed by any of the actions.
            RelationRow::Cascade { of, name, schema } => {
                let node = if *of == Change::Update { update } else { write };
                self.part(node, Key::Write, schema.as_deref(), name, Carries::All);
            }
            RelationRow::Child(child, schema) => {
                let schema = schema.as_deref();
                self.part(write, Key::Write, schema, child, Carries::All);
                self.part(update, Key::Update, schema, child, Carries::All);
                self.part(insert, Key::Insert, schema, child, Carries::All);
                // A foreign partition is read with its tree.
                self.part(read, Key::Read, schema, child, Carries::Behind);
            }
            RelationRow::Object { .. } | RelationRow::Keyable(_) => {}
        }
    }

    /// Doing something to `node` does it to another relation.
    fn part(&mut self, node: usize, key: Key, schema: Option<&str>, name: &str, carries: Carries) {
        if let Some(on) = self.find(key, &key_of(schema, name)) {
            self.depend(node, on, carries, true);
        }
    }

    /// An expression, or a definition as the server prints it.
    fn read(&mut self, id: usize, text: &str, taking: Taking) {
        self.take(id, &facts_of(Mode::Sql, text, body::swept), taking);
    }

    /// Gives a node what was read of it.
    fn take(&mut self, id: usize, facts: &Facts, taking: Taking) {
        let mut own = Entry { effects: facts.effects, settings: facts.settings.clone(), ..Entry::default() };
        if facts.writes || facts.locks {
            own.effects |= Effects::WRITES;
        }
        if taking.writes_all.is_none() {
            own.behind = facts.behind(Reason::UnreadableFunction);
        }
        for call in &facts.calls {
            self.take_call(id, call, taking.draws, &mut own);
        }
        let makes_rows = facts.makes_rows();
        for mention in &facts.mentions {
            self.take_effects(id, &mention.name, facts.writes, taking.draws, &mut own);
            if facts.is_cut {
                self.take_read(id, mention, &mut own);
            }
            self.take_mention(id, mention);
            if let Some(reason) = safety::column(mention.name.as_bytes()) {
                own.behind.add(reason, mention.name.as_bytes());
            }
            if mention.is_type || makes_rows {
                self.take_row(id, mention);
            }
        }
        for source in &facts.sources {
            self.take_read(id, source, &mut own);
            if let Some(key) = taking.writes_all {
                self.take_change(id, key, source, &mut own);
            }
        }
        for target in &facts.targets {
            self.take_target(id, target, &mut own);
        }
        for operator in &facts.operators {
            if let Some(on) = self.find(Key::Operator, operator.as_bytes()) {
                self.depend(id, on, Carries::All, taking.draws);
            }
        }
        if facts.any_relation {
            let special = if facts.writes { ANY_WRITE } else { ANY_READ };
            let on = self.id(Key::Special, special.as_bytes());
            self.depend(id, on, Carries::Effects, taking.draws);
        }
        if facts.defines {
            let on = self.id(Key::Special, EVENT_NAME.as_bytes());
            self.depend(id, on, Carries::All, taking.draws);
        }
        let node = &mut self.nodes[id];
        node.entry.merge(&if taking.draws { own.drawn() } else { own });
    }

    fn take_call(&mut self, id: usize, call: &Call, draws: bool, own: &mut Entry) {
        let name = call.name.as_bytes();
        if let Some(on) = self.find(Key::Function, name) {
            self.depend(id, on, Carries::Effects, draws);
        }
        if let Some(on) = self.node_of(Key::Function, &call.name, call.schema.as_ref()) {
            self.depend(id, on, Carries::Behind, draws);
        }
        if call.form == Form::Attribute {
            return;
        }
        if let Some((effects, setting)) = builtin::function(name) {
            own.effects |= effects;
            own.note(setting.into_iter().map(Box::from));
            if effects.intersects(Effects::UNKNOWN) {
                own.behind.add(Reason::UnreadableFunction, name);
                own.behind.anything();
            }
        }
        let is_own = call.schema.is_none_or(|schema| schema.as_bytes() == b"pg_catalog");
        if is_own && self.builtins.contains(name) {
            let is_volatile = self.volatiles.as_ref().is_none_or(|volatiles| volatiles.contains(name));
            own.behind.builtin(name, is_volatile);
        }
        if call.name.is_odd {
            let on = self.id(Key::Special, ODD_READ.as_bytes());
            self.depend(id, on, Carries::All, draws);
        }
    }

    /// The node of a name: in its schema if it has one, else that of all schemas. `None`: there is none, or what
    /// stands before the dot is no schema.
    fn node_of(&self, key: Key, name: &Ident, schema: Option<&Ident>) -> Option<usize> {
        match schema {
            Some(schema) => self.find(key, &qualified(schema.as_bytes(), name.as_bytes())),
            None => self.find(key, name.as_bytes()),
        }
    }

    /// Effects of whatever has this name.
    fn take_effects(&mut self, id: usize, name: &Ident, writes: bool, draws: bool, own: &mut Entry) {
        let key = if writes { Key::Write } else { Key::Read };
        let odd = if writes { ODD_WRITE } else { ODD_READ };
        let found = self.find(Key::Read, name.as_bytes()).into_iter().chain(self.find(key, name.as_bytes()));
        let found: Vec<usize> = found.collect();
        for on in found {
            self.depend(id, on, Carries::Effects, draws);
        }
        if name.is_odd {
            let on = self.id(Key::Special, odd.as_bytes());
            self.depend(id, on, Carries::All, draws);
        }
        if let Some((read, write)) = builtin::relation(name.as_bytes()) {
            own.effects |= read | if writes { write } else { Effects::NONE };
        }
    }

    /// What a name may mean for routing wherever it stands: hazards of a relation, and a domain.
    fn take_mention(&mut self, id: usize, mention: &Mention) {
        if let Some(on) = self.node_of(Key::Read, &mention.name, mention.schema.as_ref()) {
            self.depend(id, on, Carries::Hazards, false);
        }
        if self.domains.contains(mention.name.as_bytes())
            && let Some(on) = self.find(Key::Read, mention.name.as_bytes())
        {
            self.depend(id, on, Carries::Behind, false);
        }
    }

    /// A name that may be of a row's type, of which a value is made.
    fn take_row(&mut self, id: usize, mention: &Mention) {
        if let Some(on) = self.node_of(Key::Row, &mention.name, mention.schema.as_ref()) {
            self.depend(id, on, Carries::Hazards, false);
        }
    }

    /// A relation that is read.
    fn take_read(&mut self, id: usize, mention: &Mention, own: &mut Entry) {
        if let Some(on) = self.node_of(Key::Read, &mention.name, mention.schema.as_ref()) {
            self.depend(id, on, Carries::Behind, false);
        }
        let schema = mention.schema.as_ref().map(Ident::as_bytes);
        let is_own = schema.is_none_or(|schema| matches!(schema, b"pg_catalog" | b"information_schema"));
        if is_own && self.system_relations.contains(mention.name.as_bytes()) {
            own.behind.reads.merge(&Tables::one(TableId::CATALOGUE));
            if let Some(reason) = safety::relation(mention.name.as_bytes()) {
                own.behind.add(reason, mention.name.as_bytes());
            }
        }
    }

    /// A relation that a body or rule changes.
    fn take_target(&mut self, id: usize, target: &Target, own: &mut Entry) {
        let key = match target.change {
            Change::Insert => Key::Insert,
            Change::Update => Key::Update,
            Change::Delete => Key::Write,
        };
        self.take_change(id, key, &target.mention, own);
    }

    fn take_change(&mut self, id: usize, key: Key, mention: &Mention, own: &mut Entry) {
        let Mention { name, schema, .. } = mention;
        match self.node_of(key, name, schema.as_ref()) {
            Some(on) if !name.is_odd => self.depend(id, on, Carries::Behind, false),
            _ => own.behind.writes = Tables::All,
        }
    }

    /// Carries entries to all that depend on them.
    pub(crate) fn settle(&mut self) {
        let mut work: Vec<usize> =
            (0..self.nodes.len()).filter(|id| !self.nodes[*id].entry.is_empty()).collect();
        while let Some(id) = work.pop() {
            let entry = self.nodes[id].entry.clone();
            let drawn = entry.drawn();
            for index in 0..self.nodes[id].dependents.len() {
                let Edge { to, draws, carries } = self.nodes[id].dependents[index];
                let from = if draws { &drawn } else { &entry };
                let changes = match carries {
                    Carries::All => self.nodes[to].entry.merge(from),
                    Carries::Effects => self.nodes[to].entry.merge_effects(from),
                    Carries::Behind => self.nodes[to].entry.behind.merge(&from.behind),
                    Carries::Hazards => self.nodes[to].entry.behind.merge_named(&from.behind, false),
                };
                if changes {
                    work.push(to);
                }
            }
        }
    }

    /// What is kept of it all.
    pub(crate) fn definitions(mut self, rows: &CatalogueBuilder) -> Definitions {
        let mut definitions = Definitions {
            volatiles: std::mem::take(&mut self.volatiles),
            system_relations: std::mem::take(&mut self.system_relations),
            schemas: std::mem::take(&mut self.schemas),
            settings: rows.settings.clone(),
            types: rows.types.iter().map(|name| name.as_bytes().into()).collect(),
            ..Definitions::default()
        };
        for name in &rows.builtins {
            definitions.names.insert(name.as_bytes().into(), true);
        }
        for name in &rows.types {
            definitions.names.entry(name.as_bytes().into()).or_insert(false);
        }
        for function in &rows.functions {
            let key = key_of(function.schema.as_deref(), &function.name);
            for name in [function.name.as_bytes().into(), key] {
                definitions.names.entry(name).or_insert(false);
            }
            if function.takes_row {
                definitions.row_functions.insert(function.name.as_bytes().into());
            }
        }
        definitions.keep_tables(rows);
        let relation = |graph: &Self, read: &str, write: &str| Relation {
            read: graph.special(read),
            write: graph.special(write),
        };
        definitions.anything = self.special(ANYTHING_NAME);
        definitions.definition = self.special(EVENT_NAME);
        definitions.odd = relation(&self, ODD_READ, ODD_WRITE);
        definitions.any_relation = relation(&self, ANY_READ, ANY_WRITE);
        self.keep_entries(&mut definitions);
        definitions
    }

    fn keep_entries(&mut self, definitions: &mut Definitions) {
        for ((key, name), id) in std::mem::take(&mut self.ids) {
            let entry = self.nodes[id].entry.clone();
            if entry.is_empty() {
                continue;
            }
            match key {
                Key::Function => drop(definitions.functions.insert(name, entry)),
                Key::Operator => drop(definitions.operators.insert(name, entry)),
                Key::Read => {
                    if self.domains.contains(&name) {
                        definitions.domains.insert(name.clone(), entry.clone());
                    }
                    definitions.relations.entry(name).or_default().read = entry;
                }
                Key::Write => definitions.relations.entry(name).or_default().write = entry,
                Key::Update => drop(definitions.updates.insert(name, entry.behind)),
                Key::Insert => drop(definitions.inserts.insert(name, entry.behind)),
                Key::Row => drop(definitions.rows.insert(name, entry.behind)),
                Key::Special => {}
            }
        }
    }

    fn special(&self, name: &str) -> Entry {
        let id = self.find(Key::Special, name.as_bytes());
        id.and_then(|id| self.nodes.get(id)).map(|node| node.entry.clone()).unwrap_or_default()
    }
}

impl Definitions {
    /// Names of relations, what each table is called, and which can be spoken of by key.
    fn keep_tables(&mut self, rows: &CatalogueBuilder) {
        let with_more: HashSet<Box<[u8]>> = rows
            .relations
            .iter()
            .filter(|relation| relation.row.changes_more())
            .map(RelationOf::key)
            .collect();
        let mut columns: HashMap<Box<[u8]>, HashSet<Box<[u8]>>> = HashMap::new();
        for relation in &rows.relations {
            if let RelationRow::Keyable(column) = &relation.row {
                columns.entry(relation.key()).or_default().insert(column.as_bytes().into());
            }
        }
        let mut of_name: HashMap<&str, u32> = HashMap::new();
        for relation in &rows.relations {
            if matches!(relation.row, RelationRow::Object { .. }) {
                *of_name.entry(&relation.name).or_default() += 1;
            }
        }
        for relation in &rows.relations {
            let RelationRow::Object { oid, kind, .. } = relation.row else { continue };
            if matches!(kind, b'r' | b'p') {
                let plain = Arc::new(PlainTable {
                    changes_alone: !with_more.contains(&relation.key()),
                    columns: columns.remove(&relation.key()).unwrap_or_default(),
                });
                if of_name.get(&*relation.name) == Some(&1) {
                    self.plain_tables.insert(relation.name.as_bytes().into(), Arc::clone(&plain));
                }
                self.plain_tables.insert(relation.key(), plain);
            }
            self.known_relations.insert(relation.name.as_bytes().into());
            self.known_relations.insert(relation.key());
            let schema = relation.schema.as_deref().unwrap_or("?");
            self.table_names.insert(TableId(oid), format!("{schema}.{}", relation.name).into());
        }
    }
}

impl Entry {
    /// What a default or a trigger draws from a sequence is not what the client asked for.
    fn drawn(&self) -> Self {
        let mut entry = self.clone();
        if entry.effects.intersects(Effects::SEQUENCE_SET) {
            entry.effects = entry.effects.without(Effects::SEQUENCE_SET) | Effects::SEQUENCE_MAYBE;
        }
        entry
    }
}

/// Reads a text as the server gives it.
fn facts_of(mode: Mode, text: &str, read: fn(&mut Reader<'_>, &[u8], Mode)) -> Facts {
    let mut reader = Reader {
        mode,
        catalogue: None,
        path: None,
        dialect: Dialect::default(),
        reading: Reading::default(),
        facts: Facts::default(),
        level: 0,
    };
    read(&mut reader, text.as_bytes(), mode);
    if reader.facts.set_configs > 0 && reader.reading.is_condensed {
        reader.facts.add(Effects::SETTINGS_UNKNOWN);
    }
    if reader.facts.setting_reads > 0 && reader.reading.is_condensed {
        reader.facts.read_setting(None);
    }
    reader.facts
}
