//! From rows of the server's catalogue to the names that have effects.
//!
//! **Mechanism.** Rows are kept as they come, and read when all are there: a body can only be read by who knows all names
//! (`graph`).
//!
//! **Failure.** Rows that can't be ours are an [`Error`]; so is more text than [`TEXT_BYTES_MAX`].

use std::collections::HashSet;
use std::sync::Arc;

use super::behind::qualified;
use super::graph::{ANYTHING_NAME, EVENT_NAME, Graph, Key};
use super::queries::{
    AGGREGATES, ANYTHING, BUILTINS, COLUMNS, DOMAINS, EVENTS, FUNCTIONS, OPERATORS, RELATIONS, SETTINGS,
    TYPES,
};
use super::{Catalogue, RoleSetting};
use crate::Error;
use crate::read::facts::Change;

/// Bytes of all names, bodies and expressions of one database.
const TEXT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Gathers rows into a [`Catalogue`].
#[derive(Debug, Default)]
pub struct CatalogueBuilder {
    bytes: usize,
    pub(super) builtins: Vec<Box<str>>,
    pub(super) volatiles: Option<HashSet<Box<[u8]>>>,
    pub(super) system_relations: HashSet<Box<[u8]>>,
    pub(super) settings: Vec<RoleSetting>,
    pub(super) types: Vec<Box<str>>,
    pub(super) functions: Vec<Function>,
    /// Aggregate or function, what it calls.
    calls: Vec<(Box<str>, Box<str>)>,
    pub(super) operators: Vec<(Box<str>, Box<str>)>,
    anything: Vec<Box<str>>,
    pub(super) domains: Vec<(Box<str>, Box<str>)>,
    pub(super) relations: Vec<RelationOf>,
    events: Vec<Box<str>>,
}

#[derive(Debug)]
pub(crate) struct Function {
    pub(super) name: Box<str>,
    pub(super) language: Box<str>,
    pub(super) is_volatile: bool,
    pub(super) library: Option<Box<str>>,
    pub(super) source: Box<str>,
    pub(super) definition: Option<Box<str>>,
    pub(super) defaults: Option<Box<str>>,
    pub(super) schema: Option<Box<str>>,
    pub(super) takes_row: bool,
}

/// What a row says of which relation.
#[derive(Debug)]
pub(crate) struct RelationOf {
    pub(super) name: Box<str>,
    pub(super) schema: Option<Box<str>>,
    pub(super) row: RelationRow,
}

#[derive(Debug)]
pub(crate) enum RelationRow {
    /// An expression run when it is written.
    Write(Box<str>),
    /// When it is read or written.
    Both(Box<str>),
    /// The query of a view: whatever is done to the view is done to what it names.
    View(Box<str>),
    Identity,
    /// A domain of a column.
    Domain(Box<str>),
    /// A relation that a foreign key changes along with this one, with its schema.
    Cascade {
        of: Change,
        name: Box<str>,
        schema: Option<Box<str>>,
    },
    /// A partition, or a table that inherits, with its schema.
    Child(Box<str>, Option<Box<str>>),
    /// A column of integers or UUIDs that is not computed, of a table without row policies.
    Keyable(Box<str>),
    /// What the relation is: its number, kind and persistence as in `pg_class`.
    Object {
        oid: u32,
        kind: u8,
        persistence: u8,
    },
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
            BUILTINS => {
                self.builtins.extend(text(0)?.split(' ').map(Box::from));
                self.volatiles = column(1).map(names);
                self.system_relations.extend(column(2).map(names).unwrap_or_default());
            }
            FUNCTIONS => self.functions.push(Function {
                name: text(0)?,
                language: text(1)?,
                is_volatile: column(2) == Some("v"),
                library: column(3).map(Box::from),
                source: column(4).unwrap_or_default().into(),
                definition: column(5).map(Box::from),
                defaults: column(6).map(Box::from),
                schema: column(7).map(Box::from),
                takes_row: column(8) != Some("false"),
            }),
            AGGREGATES => self.calls.push((text(0)?, text(1)?)),
            OPERATORS => self.operators.push((text(0)?, text(1)?)),
            ANYTHING => self.anything.push(text(0)?),
            RELATIONS => {
                let row =
                    relation_row(columns).ok_or(Error::CatalogueRow { query, columns: columns.len() })?;
                self.relations.push(RelationOf { name: text(0)?, schema: column(3).map(Box::from), row });
            }
            DOMAINS => self.domains.push((text(0)?, text(1)?)),
            SETTINGS => self.settings.push(RoleSetting {
                role: column(0).map(Box::from),
                name: text(1)?.to_ascii_lowercase().into(),
                value: text(2)?,
            }),
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
        let mut graph = Graph::of(&self);
        self.functions.iter().for_each(|function| graph.function(function));
        for (name, called) in &self.calls {
            graph.call(Key::Function, name, called);
        }
        for (name, called) in &self.operators {
            graph.call(Key::Operator, name, called);
        }
        for (name, text) in &self.domains {
            graph.relation(name.as_bytes(), &RelationRow::Both(text.clone()));
        }
        for relation in &self.relations {
            graph.relation(&relation.key(), &relation.row);
        }
        for called in &self.anything {
            graph.call(Key::Special, ANYTHING_NAME, called);
        }
        for called in &self.events {
            graph.call(Key::Special, EVENT_NAME, called);
        }
        graph.settle();
        let definitions = graph.definitions(&self);
        Arc::new(Catalogue { version, is_stale: false, hides: false, definitions: Arc::new(definitions) })
    }
}

/// Names parted by spaces.
fn names(text: &str) -> HashSet<Box<[u8]>> {
    text.split(' ').map(|name| name.as_bytes().into()).collect()
}

/// `None`: the query gives no such row.
fn relation_row(columns: &[Option<&str>]) -> Option<RelationRow> {
    let column = |index: usize| columns.get(index).copied().flatten();
    let text = || column(2).map(Box::<str>::from);
    Some(match column(1)? {
        "w" => RelationRow::Write(text()?),
        "b" => RelationRow::Both(text()?),
        "v" => RelationRow::View(text()?),
        "i" => RelationRow::Identity,
        "d" => RelationRow::Domain(text()?),
        "c" => RelationRow::Cascade { of: Change::Update, name: text()?, schema: column(4).map(Box::from) },
        "x" => RelationRow::Cascade { of: Change::Delete, name: text()?, schema: column(4).map(Box::from) },
        "k" => RelationRow::Keyable(text()?),
        "h" => RelationRow::Child(text()?, column(4).map(Box::from)),
        "o" => {
            let mut parts = column(2)?.split(' ');
            let oid = parts.next()?.parse().ok()?;
            let mut letter = || parts.next().and_then(|part| part.bytes().next());
            RelationRow::Object { oid, kind: letter()?, persistence: letter()? }
        }
        _ => return None,
    })
}

impl RelationRow {
    /// Whether a change of the relation may change more than the rows that the statement picks.
    pub(super) fn changes_more(&self) -> bool {
        match self {
            Self::Write(text) => {
                text.starts_with("CREATE ")
                    && !text.starts_with("CREATE INDEX")
                    && !text.starts_with("CREATE UNIQUE")
            }
            Self::Cascade { .. } | Self::Child(..) => true,
            _ => false,
        }
    }
}

impl RelationOf {
    /// With its schema where the row tells it.
    pub(super) fn key(&self) -> Box<[u8]> {
        key_of(self.schema.as_deref(), &self.name)
    }
}

pub(crate) fn key_of(schema: Option<&str>, name: &str) -> Box<[u8]> {
    schema.map_or(name.as_bytes().into(), |schema| qualified(schema.as_bytes(), name.as_bytes()))
}
