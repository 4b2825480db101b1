//! HTTP caching: what may be stored, what may be served, and who fetches it.
//!
//! **Intuition.** A cache answers three questions: may this response be kept, may that copy be served now, and if
//! neither, who goes to the origin while the others wait? The first two are [`policy`] (RFC 9111, plain functions of
//! their input and `now`); the third is a [`Fill`], one fetch that any number of requests follow.
//!
//! **Mechanism.** The edge builds a key in a reused [`KeyBuf`], reads the request into [`RequestFacts`] and calls
//! [`Cache::lookup`]. A hit costs one hash, one shared lock of a shard and one `Arc` clone. Otherwise
//! [`Cache::join`] says whether to lead a fill, to follow one, or to go alone. Purges are sequence numbers
//! ([`purge`]), so that removing a million entries costs one atomic store. Nothing here reads a clock, opens a socket
//! or draws a random number. A request may carry a [`Floor`]: what its client did and has to see.
//!
//! **Failure.** Input is hostile: a header that cannot be understood makes a response staler, never fresher. Every
//! map, list and window is bounded by [`Config`] or a named constant, and a full one means "go upstream", never an
//! error. A body that did not end as announced is never stored nor ended as whole.

mod body;
mod cache;
mod config;
mod encode;
mod encoded;
mod entry;
mod fill;
mod floor;
mod key;
mod marks;
mod permit;
pub mod policy;
pub mod purge;
mod query;
mod reason;
mod recording;
mod refills;
mod relay;
mod rule;
mod stats;
mod status;
mod store;
mod tags;
pub mod tier;

pub use body::{Body, FileRange};
pub use cache::{Cache, Explained, Hit, Join, Lookup, Shown};
pub use config::{Config, Error};
pub use encode::{Encoder, compress_at, level_of};
pub use encoded::{Representation, VARY_LINE};
pub use entry::{Entry, Head, Interim, Part};
pub use fill::{Event, Fill, Follower, HeadOutcome};
pub use floor::Floor;
pub use key::{KeyBuf, KeyUrl, Scheme};
pub use policy::{Coding, Compress, Early, RequestFacts, Timestamp};
pub use purge::{PREFIX_DEPTH_MAX, Purge, Purged};
pub use query::{Pattern, QueryRule};
pub use reason::{AloneReason, BypassReason, FailReason, MissReason, ReleaseReason, Uncacheable};
pub use recording::{Observed, Recording, Watch, is_of_its_target};
pub use refills::{DERIVED_MAX as REFILLS_DERIVED_MAX, Refills, Renewal};
pub use relay::Relay;
pub use rule::{KeyPart, Override, Rule};
pub use stats::Stats;
pub use status::{CacheStatus, Forward};
pub use tags::TagTemplate;
pub use tier::Tier;

/// One header field as it came: the name as on the wire, the value without surrounding whitespace.
pub type Field<'a> = (&'a [u8], &'a [u8]);
