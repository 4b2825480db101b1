//! How much the cache may hold, and what cannot work.
//!
//! What stored responses take follows from the first three of these numbers; bodies under way hold a quarter as much at
//! most, and the records of purges and marks some MiB. [`Config::validate`] checks them, and
//! [`Cache::new`](crate::Cache::new) calls it; afterwards nothing can be wrong with them. An object that its shard could not hold
//! would be evicted in the moment it is stored, silently, so a configuration that allows one is refused.

use thiserror::Error;

use crate::store::Store;

/// Bounds of one cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// `cache.memory`: what all entries together may weigh, their heads, keys and bookkeeping included.
    pub memory_bytes: u64,
    /// `cache.object_max`: the largest body that is stored. A larger one streams through a window of this size.
    pub object_bytes_max: u64,
    /// `cache.variants_max`: stored responses under one key that differ by `Vary`; the least recently used leaves.
    pub variants_max: usize,
    /// `cache.files_max`: large bodies that are kept in files of memory, which the kernel sends without copying, a
    /// descriptor each. 0 keeps all in memory of the process.
    pub files_max: usize,
    /// `cache.fills_max`: fetches that others may follow, at once. Beyond it requests go upstream alone.
    pub fills_max: usize,
    /// `cache.refills_max`: fetches at once, for each cluster, that renew what became suspect when the place among the
    /// purges was lost. `None`: a tenth of what the cluster has been seen to bear ([`crate::Refills`]).
    pub refills_max: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            object_bytes_max: 4 << 20,
            variants_max: 16,
            files_max: 4096,
            fills_max: 4096,
            refills_max: None,
        }
    }
}

impl Config {
    /// Whether a cache can be built so. For who checks a configuration without building anything.
    pub fn validate(&self) -> Result<(), Error> {
        let counts = [
            ("cache.variants_max", self.variants_max),
            ("cache.fills_max", self.fills_max),
            ("cache.refills_max", self.refills_max.unwrap_or(1)),
        ];
        for (path, value) in counts {
            if value == 0 {
                return Err(Error::Zero { path });
            }
        }
        Store::shards_for(self).map(drop)
    }
}

/// Why a cache cannot be built. [`Error::path`] names the setting to change.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// An object of the permitted size would not fit beside anything else.
    #[error(
        "{object_bytes_max} bytes cannot be kept in cache.memory = {memory_bytes} bytes; at most {possible_bytes_max}"
    )]
    ObjectTooLarge {
        /// What was asked for.
        object_bytes_max: u64,
        /// What there is.
        memory_bytes: u64,
        /// The largest body that would stay.
        possible_bytes_max: u64,
    },
    /// A count that has to be at least one is zero.
    #[error("must be at least 1")]
    Zero {
        /// The setting's path.
        path: &'static str,
    },
}

impl Error {
    /// The setting that it is about.
    #[must_use]
    pub const fn path(&self) -> &'static str {
        match self {
            Self::ObjectTooLarge { .. } => "cache.object_max",
            Self::Zero { path } => path,
        }
    }
}
