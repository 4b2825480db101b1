//! From rows of the server's catalogue to the names that have effects.
//!
//! **Mechanism.** Every function, relation (read and written apart), operator and domain is a node. Reading a body or an
//! expression gives a node its own effects and edges to the nodes it names. A work list then carries effects along the
//! edges backwards until nothing changes: each node changes at most once per effect and setting, so that recursion and
//! size cost no more than edges times effects.
//!
//! **Failure.** Rows that can't be ours are an [`Error`]; so is more text than [`TEXT_BYTES_MAX`].

use std::collections::HashMap;
use std::sync::Arc;

use super::queries::{
    AGGREGATES, ANYTHING, BUILTINS, COLUMNS, DOMAINS, EVENTS, FUNCTIONS, OPERATORS, RELATIONS, TYPES,
};
use super::{Catalogue, Definitions, Entry, Relation, builtin};
use crate::Error;
use crate::effects::Effects;
use crate::fingerprint::Reading;
use crate::ident::Ident;
use crate::lex::Dialect;
use crate::read::facts::{Facts, Form};
use crate::read::{Mode, Reader, body};

/// Bytes of all names, bodies and expressions of one database.
const TEXT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Gathers rows into a [`Catalogue`].
#[derive(Debug, Default)]
pub struct CatalogueBuilder {
    bytes: usize,
    builtins: Vec<Box<str>>,
    types: Vec<Box<str>>,
    functions: Vec<Function>,
    /// Aggregate or function, what it calls.
    calls: Vec<(Box<str>, Box<str>)>,
    operators: Vec<(Box<str>, Box<str>)>,
    anything: Vec<Box<str>>,
    relations: Vec<(Box<str>, RelationRow)>,
    events: Vec<Box<str>>,
}

#[derive(Debug)]
struct Function {
    name: Box<str>,
    language: Box<str>,
    is_volatile: bool,
    library: Option<Box<str>>,
    source: Box<str>,
    definition: Option<Box<str>>,
    defaults: Option<Box<str>>,
}

#[derive(Debug)]
enum RelationRow {
    /// An expression run when it is written.
    Write(Box<str>),
    /// When it is read or written.
    Both(Box<str>),
    /// The query of a view: whatever is done to the view is done to what it names.
    View(Box<str>),
    Identity,
    /// A relation or domain whose writing is part of writing this.
    Writes(Box<str>),
}

impl CatalogueBuilder {
    /// Nothing gathered yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One row of `Catalogue::QUERIES[query]`, columns in text form.
    ///
    /// # Errors
    /// A row that the query cannot have given, or more text than is kept.
    pub fn row(&mut self, query: usize, columns: &[Option<&str>]) -> Result<(), Error> {
        if COLUMNS.get(query) != Some(&columns.len()) {
            return Err(Error::CatalogueRow { query, columns: columns.len() });
        }
        self.bytes += columns.iter().flatten().map(|column| column.len()).sum::<usize>();
        if self.bytes > TEXT_BYTES_MAX {
            return Err(Error::CatalogueTooLarge { what: "bytes of names and bodies", max: TEXT_BYTES_MAX });
        }
        let column = |index: usize| columns.get(index).copied().flatten();
        let text = |index: usize| {
            column(index).map(Box::<str>::from).ok_or(Error::CatalogueNull { query, column: index })
        };
        match query {
            BUILTINS => self.builtins.extend(text(0)?.split(' ').map(Box::from)),
            FUNCTIONS => self.functions.push(Function {
                name: text(0)?,
                language: text(1)?,
                is_volatile: column(2) == Some("v"),
                library: column(3).map(Box::from),
                source: column(4).unwrap_or_default().into(),
                definition: column(5).map(Box::from),
                defaults: column(6).map(Box::from),
            }),
            AGGREGATES => self.calls.push((text(0)?, text(1)?)),
            OPERATORS => self.operators.push((text(0)?, text(1)?)),
            ANYTHING => self.anything.push(text(0)?),
            RELATIONS => {
                let row = match column(1) {
                    Some("w") => RelationRow::Write(text(2)?),
                    Some("b") => RelationRow::Both(text(2)?),
                    Some("v") => RelationRow::View(text(2)?),
                    Some("i") => RelationRow::Identity,
                    Some("c" | "d") => RelationRow::Writes(text(2)?),
                    _ => return Err(Error::CatalogueRow { query, columns: columns.len() }),
                };
                self.relations.push((text(0)?, row));
            }
            DOMAINS => self.relations.push((text(0)?, RelationRow::Both(text(1)?))),
            TYPES => self.types.push(text(0)?),
            EVENTS => self.events.push(text(0)?),
            _ => return Err(Error::CatalogueRow { query, columns: columns.len() }),
        }
        Ok(())
    }

    /// Follows calls and triggers to the end and makes the snapshot. Versions of one database must differ and not be 0.
    /// Takes about a second per 50 MiB of function bodies: not for a worker.
    #[must_use]
    pub fn build(self, version: u64) -> Arc<Catalogue> {
        let mut graph = Graph::default();
        graph.add_nodes(&self);
        self.functions.iter().for_each(|function| graph.function(function));
        for (name, called) in &self.calls {
            graph.call(Key::Function, name, called);
        }
        for (name, called) in &self.operators {
            graph.call(Key::Operator, name, called);
        }
        for (name, row) in &self.relations {
            graph.relation(name, row);
        }
        for called in &self.anything {
            graph.call(Key::Special, ANYTHING_NAME, called);
        }
        for called in &self.events {
            graph.call(Key::Special, EVENT_NAME, called);
        }
        graph.settle();
        let definitions = graph.definitions(&self);
        Arc::new(Catalogue { version, is_stale: false, definitions: Arc::new(definitions) })
    }
}

/// What a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Function,
    Read,
    Write,
    Operator,
    Special,
}

const ANYTHING_NAME: &str = "anything";
const EVENT_NAME: &str = "event";
const ANY_READ: &str = "any relation read";
const ANY_WRITE: &str = "any relation written";
const ODD_READ: &str = "any name beyond ASCII read";
const ODD_WRITE: &str = "any name beyond ASCII written";

#[derive(Default)]
struct Graph {
    ids: HashMap<(Key, Box<[u8]>), usize>,
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    entry: Entry,
    /// Nodes that have whatever this one has; with true, drawing from a sequence is not their own doing.
    dependents: Vec<(usize, bool)>,
}

impl Graph {
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

    /// Every name first, so that reading bodies knows which words matter.
    fn add_nodes(&mut self, rows: &CatalogueBuilder) {
        for name in [ANYTHING_NAME, EVENT_NAME, ANY_READ, ANY_WRITE, ODD_READ, ODD_WRITE] {
            self.id(Key::Special, name.as_bytes());
        }
        for function in &rows.functions {
            let id = self.id(Key::Function, function.name.as_bytes());
            if !function.name.is_ascii() {
                self.depend_on_special(ODD_READ, id);
            }
        }
        for (operator, _) in &rows.operators {
            self.id(Key::Operator, operator.as_bytes());
        }
        for (relation, _) in &rows.relations {
            let read = self.id(Key::Read, relation.as_bytes());
            let write = self.id(Key::Write, relation.as_bytes());
            self.depend_on_special(ANY_READ, read);
            self.depend_on_special(ANY_WRITE, write);
            if !relation.is_ascii() {
                self.depend_on_special(ODD_READ, read);
                self.depend_on_special(ODD_WRITE, write);
            }
        }
    }

    fn depend_on_special(&mut self, special: &str, on: usize) {
        let id = self.id(Key::Special, special.as_bytes());
        self.depend(id, on, false);
    }

    /// `node` has what `on` has.
    fn depend(&mut self, node: usize, on: usize, draws: bool) {
        if node != on {
            self.nodes[on].dependents.push((node, draws));
        }
    }

    fn function(&mut self, function: &Function) {
        let id = self.id(Key::Function, function.name.as_bytes());
        match &*function.language {
            "sql" => self.take(id, &facts_of(Mode::Sql, &function.source, body::nested), false),
            "plpgsql" => self.take(id, &facts_of(Mode::Plpgsql, &function.source, body::nested), false),
            "internal" | "c" => self.compiled(id, function),
            _ => self.nodes[id].entry.effects |= Effects::UNKNOWN,
        }
        for expression in function.defaults.iter().chain(&function.definition) {
            self.read(id, expression, false);
        }
    }

    fn compiled(&mut self, id: usize, function: &Function) {
        let found =
            [builtin::function(function.name.as_bytes()), builtin::symbol(function.source.as_bytes())];
        for (effects, setting) in found.into_iter().flatten() {
            let settings = setting.into_iter().map(Box::from).collect();
            self.nodes[id].entry.merge(&Entry { effects, settings });
        }
        let is_stateful =
            |library: &str| builtin::LIBRARIES_STATEFUL.iter().any(|name| library.contains(name));
        if function.is_volatile && function.library.as_deref().is_some_and(is_stateful) {
            self.nodes[id].entry.effects |= Effects::UNKNOWN;
        }
    }

    fn call(&mut self, key: Key, name: &str, called: &str) {
        let id = self.id(key, name.as_bytes());
        let mut facts = Facts::default();
        facts.call(Ident::exact(called.as_bytes()), Form::Perhaps);
        self.take(id, &facts, false);
    }

    fn relation(&mut self, name: &str, row: &RelationRow) {
        let read = self.id(Key::Read, name.as_bytes());
        let write = self.id(Key::Write, name.as_bytes());
        match row {
            RelationRow::Write(text) => self.read(write, text, true),
            RelationRow::Both(text) => {
                self.read(read, text, false);
                self.read(write, text, true);
            }
            RelationRow::View(text) => {
                let mut facts = facts_of(Mode::Sql, text, body::swept);
                self.take(read, &facts, false);
                facts.writes = true;
                self.take(write, &facts, true);
            }
            RelationRow::Identity => self.nodes[write].entry.effects |= Effects::SEQUENCE_MAYBE,
            RelationRow::Writes(other) => {
                if let Some(other) = self.find(Key::Write, other.as_bytes()) {
                    self.depend(write, other, true);
                }
            }
        }
    }

    /// An expression, or a definition as the server prints it.
    fn read(&mut self, id: usize, text: &str, draws: bool) {
        self.take(id, &facts_of(Mode::Sql, text, body::swept), draws);
    }

    /// Gives a node what was read of it.
    fn take(&mut self, id: usize, facts: &Facts, draws: bool) {
        let mut own = Entry { effects: facts.effects, settings: facts.settings.clone() };
        if facts.writes || facts.locks {
            own.effects |= Effects::WRITES;
        }
        for call in &facts.calls {
            self.take_call(id, call.name, call.form, draws, &mut own);
        }
        for name in &facts.mentions {
            self.take_mention(id, name, facts.writes, draws, &mut own);
        }
        for operator in &facts.operators {
            if let Some(on) = self.find(Key::Operator, operator.as_bytes()) {
                self.depend(id, on, draws);
            }
        }
        if facts.any_relation {
            let special = if facts.writes { ANY_WRITE } else { ANY_READ };
            let on = self.id(Key::Special, special.as_bytes());
            self.depend(id, on, draws);
        }
        if facts.defines {
            let on = self.id(Key::Special, EVENT_NAME.as_bytes());
            self.depend(id, on, draws);
        }
        let node = &mut self.nodes[id];
        node.entry.merge(&if draws { drawn(&own) } else { own });
    }

    fn take_call(&mut self, id: usize, name: Ident, form: Form, draws: bool, own: &mut Entry) {
        if let Some(on) = self.find(Key::Function, name.as_bytes()) {
            self.depend(id, on, draws);
        }
        if form == Form::Attribute {
            return;
        }
        if let Some((effects, setting)) = builtin::function(name.as_bytes()) {
            own.merge(&Entry { effects, settings: setting.into_iter().map(Box::from).collect() });
        }
        if name.is_odd {
            let on = self.id(Key::Special, ODD_READ.as_bytes());
            self.depend(id, on, draws);
        }
    }

    fn take_mention(&mut self, id: usize, name: &Ident, writes: bool, draws: bool, own: &mut Entry) {
        let key = if writes { Key::Write } else { Key::Read };
        let odd = if writes { ODD_WRITE } else { ODD_READ };
        let found = self.find(Key::Read, name.as_bytes()).into_iter().chain(self.find(key, name.as_bytes()));
        let found: Vec<usize> = found.collect();
        for on in found {
            self.depend(id, on, draws);
        }
        if name.is_odd {
            let on = self.id(Key::Special, odd.as_bytes());
            self.depend(id, on, draws);
        }
        if let Some((read, write)) = builtin::relation(name.as_bytes()) {
            own.effects |= read | if writes { write } else { Effects::NONE };
        }
    }

    /// Carries effects to all that depend on them.
    fn settle(&mut self) {
        let mut work: Vec<usize> =
            (0..self.nodes.len()).filter(|id| !self.nodes[*id].entry.is_empty()).collect();
        while let Some(id) = work.pop() {
            let entry = self.nodes[id].entry.clone();
            let drawn = drawn(&entry);
            for index in 0..self.nodes[id].dependents.len() {
                let (dependent, draws) = self.nodes[id].dependents[index];
                if self.nodes[dependent].entry.merge(if draws { &drawn } else { &entry }) {
                    work.push(dependent);
                }
            }
        }
    }

    fn definitions(mut self, rows: &CatalogueBuilder) -> Definitions {
        let mut definitions = Definitions::default();
        for name in &rows.builtins {
            definitions.names.insert(name.as_bytes().into(), true);
        }
        let functions = rows.functions.iter().map(|function| &function.name);
        for name in functions.chain(&rows.types) {
            definitions.names.entry(name.as_bytes().into()).or_insert(false);
        }
        let relation = |graph: &Self, read: &str, write: &str| Relation {
            read: graph.special(read),
            write: graph.special(write),
        };
        definitions.anything = self.special(ANYTHING_NAME);
        definitions.definition = self.special(EVENT_NAME);
        definitions.odd = relation(&self, ODD_READ, ODD_WRITE);
        definitions.any_relation = relation(&self, ANY_READ, ANY_WRITE);
        for ((key, name), id) in std::mem::take(&mut self.ids) {
            let entry = self.nodes[id].entry.clone();
            if entry.is_empty() {
                continue;
            }
            match key {
                Key::Function => drop(definitions.functions.insert(name, entry)),
                Key::Operator => drop(definitions.operators.insert(name, entry)),
                Key::Read => definitions.relations.entry(name).or_default().read = entry,
                Key::Write => definitions.relations.entry(name).or_default().write = entry,
                Key::Special => {}
            }
        }
        definitions
    }

    fn special(&self, name: &str) -> Entry {
        let id = self.find(Key::Special, name.as_bytes());
        id.and_then(|id| self.nodes.get(id)).map(|node| node.entry.clone()).unwrap_or_default()
    }
}

/// What a default or a trigger draws from a sequence is not what the client asked for.
fn drawn(entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    if entry.effects.intersects(Effects::SEQUENCE_SET) {
        entry.effects = entry.effects.without(Effects::SEQUENCE_SET) | Effects::SEQUENCE_MAYBE;
    }
    entry
}

/// Reads a text as the server gives it.
fn facts_of(mode: Mode, text: &str, read: fn(&mut Reader<'_>, &[u8], Mode)) -> Facts {
    let reading = Reading::default();
    let mut reader = Reader {
        mode,
        catalogue: None,
        dialect: Dialect::default(),
        reading,
        facts: Facts::default(),
        level: 0,
    };
    read(&mut reader, text.as_bytes(), mode);
    if reader.facts.set_configs > 0 && reader.reading.is_condensed {
        reader.facts.add(Effects::SETTINGS_UNKNOWN);
    }
    reader.facts
}
