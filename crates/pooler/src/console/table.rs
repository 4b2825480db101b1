//! A result as PostgreSQL sends it: named, typed columns and rows of text.
//!
//! **Intuition.** Exporters read columns by name and convert by type, so both are PgBouncer's.
//!
//! **Mechanism.** [`Table`] holds rows of [`Cell`]s; writing it appends a RowDescription and DataRows.
//!
//! **Failure.** A row with another number of cells than columns is a mistake of ours, and a test's.

use tenfold_pgwire::{backend, frontend::Format, write};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `text`.
    Text,
    /// `int4`: counts and ports.
    Int4,
    /// `int8`.
    Int8,
    /// `numeric`: totals, as PgBouncer sends them, since they outgrow `int8`.
    Numeric,
    /// `bytea`.
    Bytea,
}

/// A value, as text; `None` is NULL.
pub type Cell = Option<String>;

/// Columns and rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Names and types.
    pub columns: Vec<(&'static str, Type)>,
    /// As many cells each as there are columns.
    pub rows: Vec<Vec<Cell>>,
}

impl Type {
    /// Its oid and length in `pg_type`.
    const fn oid_and_length(self) -> (u32, i16) {
        match self {
            Self::Text => (25, -1),
            Self::Int4 => (23, 4),
            Self::Int8 => (20, 8),
            Self::Numeric => (1_700, -1),
            Self::Bytea => (17, -1),
        }
    }
}

impl Table {
    /// Columns without rows.
    #[must_use]
    pub fn new(columns: &[(&'static str, Type)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len(), "a cell per column");
        self.rows.push(row);
    }

    /// Keeps the rows in which a column has this value, where there is one to keep them by.
    pub fn keep(&mut self, column: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        let Some(at) = self.columns.iter().position(|(name, _)| *name == column) else { return };
        self.rows.retain(|row| row[at].as_deref() == Some(value));
    }

    /// Appends its messages.
    pub fn write(&self, out: &mut Vec<u8>) {
        let columns = self.columns.iter().map(|(name, of)| {
            let (type_oid, type_len) = of.oid_and_length();
            backend::Column {
                name: name.as_bytes(),
                table_oid: 0,
                attribute: 0,
                type_oid,
                type_len,
                type_modifier: -1,
                format: Format::Text,
            }
        });
        write::row_description(out, columns);
        for row in &self.rows {
            write::data_row(out, row.iter().map(|cell| cell.as_ref().map(String::as_bytes)));
        }
    }
}

/// Text.
pub(super) fn text(value: impl Into<String>) -> Cell {
    Some(value.into())
}

/// A number.
pub(super) fn number(value: impl TryInto<u64>) -> Cell {
    Some(value.try_into().unwrap_or(u64::MAX).to_string())
}

/// 1 or 0.
pub(super) fn flag(value: bool) -> Cell {
    Some(u8::from(value).to_string())
}
