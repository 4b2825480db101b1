//! What functions, triggers, views and defaults of one database hide.

use std::sync::Arc;

use crate::Error;

/// An immutable snapshot of one database's definitions, as far as they matter here.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    version: u64,
    is_stale: bool,
}

impl Catalogue {
    /// What to run on the server, in this order, in one REPEATABLE READ transaction; every row of the n-th goes to
    /// `CatalogueBuilder::row(n, …)`. PostgreSQL 12 to 18.
    pub const QUERIES: &[&str] = &[];

    /// One row, one column; its text changes when definitions may have. Cheap enough for once a second.
    pub const SIGNATURE_QUERY: &str = "SELECT 1";

    /// Knows nothing: every function call is unknown.
    #[must_use]
    pub fn empty() -> Arc<Self> {
        Arc::new(Self { version: 0, is_stale: true })
    }

    /// Which snapshot this is; decisions made with another do not hold.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The same while definitions have changed and are not read yet: calls of functions that are not PostgreSQL's own
    /// are unknown.
    #[must_use]
    pub fn stale(&self) -> Arc<Self> {
        Arc::new(Self { is_stale: true, ..self.clone() })
    }

    /// Whether this is what [`Catalogue::stale`] made.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.is_stale
    }
}

/// Gathers rows into a [`Catalogue`].
#[derive(Debug, Default)]
pub struct CatalogueBuilder {}

impl CatalogueBuilder {
    /// Nothing gathered yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One row of `Catalogue::QUERIES[query]`, columns in text form.
    ///
    /// # Errors
    /// A row that the query cannot have given, or more rows than are kept.
    pub fn row(&mut self, query: usize, columns: &[Option<&str>]) -> Result<(), Error> {
        Err(Error::CatalogueRow { query, columns: columns.len() })
    }

    /// Follows calls and triggers to the end and makes the snapshot. Versions of one database must differ and not be 0.
    #[must_use]
    pub fn build(self, version: u64) -> Arc<Catalogue> {
        Arc::new(Catalogue { version, is_stale: false })
    }
}
