//! Where the transactions of one pool went, for the console, status and metrics.
//!
//! **Mechanism.** What the workers have shown of a pool ([`Routes`], [`TopRow`]), with the names it goes by. Only pools of
//! databases that have replicas have any.
//!
//! **Failure.** Counts are up to a second old, and gone with their pool.

use std::sync::Arc;

use crate::{
    shared::Database,
    split::{Routes, TOP_MAX, TopRow, merged},
};

/// Statements told of per pool at the console, and per database in metrics.
pub const TOP_SHOWN_MAX: usize = 20;

/// Of one pool, or of one database's pools together.
#[derive(Clone, Debug, Default)]
pub struct RoutesRow {
    /// The database.
    pub database: Arc<str>,
    /// Whom its server connections are logged in as; empty for all of the database.
    pub user: Arc<str>,
    /// How many went where, and why.
    pub routes: Routes,
    /// The statements that did so most often; no more than [`TOP_SHOWN_MAX`].
    pub top: Vec<TopRow>,
}

impl RoutesRow {
    /// Of all pools of a database, if it has replicas.
    #[must_use]
    pub fn all(database: &Database) -> Vec<Self> {
        Self::of_pools(database, TOP_SHOWN_MAX)
    }

    fn of_pools(database: &Database, top_max: usize) -> Vec<Self> {
        if !database.split.is_on() {
            return Vec::new();
        }
        let pools = database.pools();
        let rows = pools.iter().map(|pool| Self {
            database: Arc::clone(&database.name),
            user: Arc::clone(&pool.user),
            routes: pool.routes(),
            top: pool.top(top_max),
        });
        rows.collect()
    }

    /// Of a database as a whole, if it has replicas.
    #[must_use]
    pub fn sum(database: &Database) -> Option<Self> {
        let rows = Self::of_pools(database, TOP_MAX);
        let mut sum = Self { database: Arc::clone(&database.name), ..Self::default() };
        rows.iter().for_each(|row| sum.routes.merge(&row.routes));
        sum.top = merged(rows.into_iter().map(|row| row.top), TOP_SHOWN_MAX);
        database.split.is_on().then_some(sum)
    }
}
