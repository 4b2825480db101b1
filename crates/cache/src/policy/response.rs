//! A response as the cache sees it.

use super::Timestamp;

/// What of a response matters to the cache.
#[derive(Clone, Copy, Debug)]
pub struct ResponseFacts {}

/// What is remembered of a stored response.
#[derive(Clone, Copy, Debug)]
pub struct StoredFacts {
    /// Its `Date`, else when it was received.
    pub date: Timestamp,
}
