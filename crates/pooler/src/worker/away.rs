//! Reads on replicas, from a worker's side: who waits for a replica to catch up, what is sent again to the primary.

use std::sync::Arc;

use super::Worker;
use crate::shared::Database;

impl Worker {
    /// Where a database's servers are was learned: reads that wait for it are looked at again.
    pub(super) fn positions_known(&mut self, database: &Arc<Database>) {
        self.wake_database(database);
    }
}
