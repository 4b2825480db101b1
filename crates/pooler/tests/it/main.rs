//! The pooler against real PostgreSQL and foreign clients.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod basics;
mod carried;
mod commanding;
mod console;
mod control;
mod copying;
mod direct;
mod entering;
mod fast_closing;
mod hanging;
mod hot;
mod images;
mod leaks;
mod pooled;
mod prepared;
mod probes;
mod redefined;
mod reloads;
mod splitting;
mod unlucky;
