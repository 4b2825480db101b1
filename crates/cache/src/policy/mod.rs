//! What may be stored and what may be served: RFC 9111, and the RFCs around it, as plain functions.
//!
//! One question per file. [`directives`] reads `Cache-Control` and [`targeted`] what replaces it for us; [`date`] reads dates; [`request`] and [`response`] turn fields into facts;
//! [`freshness`] says whether a response may be stored ([`freshness::storable`]) and what a stored one may be used for
//! ([`freshness::decide`]); [`early`] renews what is about to be stale; [`vary`] selects among variants, with [`accept`] for spellings that mean the same; [`conditional`] answers a client's `If-None-Match` and
//! `If-Modified-Since` and asks the origin's; [`freshen`] applies a 304; [`encoding`] negotiates content codings; [`range`] plans a 206 from a complete body;
//! [`invalidation`] says what an unsafe method makes out of date; [`path`] spells paths in one way.
//!
//! Times are [`Timestamp`]s given by the caller. Arithmetic saturates: `Age: 99999999999999` is very old, not a panic.
//! No other crate decides freshness.

pub mod accept;
pub mod conditional;
pub mod date;
pub mod directives;
pub mod early;
pub mod encoding;
pub mod fields;
pub mod freshen;
pub mod freshness;
pub mod invalidation;
pub mod path;
pub mod range;
pub mod request;
pub mod response;
pub mod targeted;
pub mod time;
pub mod vary;

pub use conditional::{Validators, not_modified};
pub use early::Early;
pub use encoding::{Coding, Compress};
pub use freshness::{Decision, decide, storable};
pub use range::{RangePlan, plan_range};
pub use request::RequestFacts;
pub use response::ResponseFacts;
pub use time::Timestamp;
