//! HTTP in and out: the tier between the users and the API nodes.
//!
//! A request goes one way, with no going back: accept, parse strictly, normalise, route, look up, and on a miss join or
//! lead the fetch, pick a node, send, receive, store, shape, reply, account.

pub mod config;

pub mod access_log;
pub mod forward;
pub mod metrics;
pub mod normalise;
pub mod reason;
pub mod request_id;
pub mod router;
