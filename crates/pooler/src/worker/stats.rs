//! What one worker has done for one pool, counted where it is done and added up when somebody asks.

use std::ops::{Index, IndexMut};

/// What happened in one worker's part of a pool, ever; or in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats(pub(crate) [u64; Stat::COUNT]);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stat {
    /// Transactions ended.
    Transactions,
    /// Statements ended.
    Queries,
    /// Bytes from clients.
    BytesReceived,
    /// Bytes to clients.
    BytesSent,
    /// Microseconds in transactions.
    TransactionUs,
    /// Microseconds in statements.
    QueryUs,
    /// Microseconds clients waited for a server connection.
    WaitUs,
    /// Prepared statements the server had already.
    PreparedHits,
    /// Prepared statements that were prepared.
    PreparedMisses,
    /// Times a client got a server connection.
    Assignments,
    /// Binds of clients.
    Binds,
}

impl Stat {
    /// How many there are: the last one's place, and one.
    pub(crate) const COUNT: usize = Self::Binds as usize + 1;
}

impl Index<Stat> for Stats {
    type Output = u64;

    #[inline]
    fn index(&self, stat: Stat) -> &u64 {
        &self.0[stat as usize]
    }
}

impl IndexMut<Stat> for Stats {
    #[inline]
    fn index_mut(&mut self, stat: Stat) -> &mut u64 {
        &mut self.0[stat as usize]
    }
}
