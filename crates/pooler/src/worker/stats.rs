//! What one worker has done for one pool, counted where it is done and added up when somebody asks.

/// What happened in one worker's part of a pool, ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Transactions ended.
    pub transactions: u64,
    /// Statements ended.
    pub queries: u64,
    /// Bytes from clients.
    pub bytes_received: u64,
    /// Bytes to clients.
    pub bytes_sent: u64,
    /// Microseconds in transactions.
    pub transaction_us: u64,
    /// Microseconds in statements.
    pub query_us: u64,
    /// Microseconds clients waited for a server connection.
    pub wait_us: u64,
    /// Prepared statements the server had already.
    pub prepared_hits: u64,
    /// Prepared statements that were prepared.
    pub prepared_misses: u64,
    /// Times a client got a server connection.
    pub assignments: u64,
    /// Binds of clients.
    pub binds: u64,
}

impl Stats {
    /// How many there are.
    pub(crate) const FIELDS: usize = 11;

    pub(crate) fn values(&self) -> [u64; Self::FIELDS] {
        [
            self.transactions,
            self.queries,
            self.bytes_received,
            self.bytes_sent,
            self.transaction_us,
            self.query_us,
            self.wait_us,
            self.prepared_hits,
            self.prepared_misses,
            self.assignments,
            self.binds,
        ]
    }

    pub(crate) fn of(values: [u64; Self::FIELDS]) -> Self {
        let [
            transactions,
            queries,
            bytes_received,
            bytes_sent,
            transaction_us,
            query_us,
            wait_us,
            prepared_hits,
            prepared_misses,
            assignments,
            binds,
        ] = values;
        Self {
            transactions,
            queries,
            bytes_received,
            bytes_sent,
            transaction_us,
            query_us,
            wait_us,
            prepared_hits,
            prepared_misses,
            assignments,
            binds,
        }
    }
}
