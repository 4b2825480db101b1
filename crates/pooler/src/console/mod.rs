//! The console: a virtual database that tells what goes on and takes commands.
//!
//! **Intuition.** `psql -d pgbouncer`, the dashboards and the exporters that people have already speak to PgBouncer's
//! console. So ours has its commands, its columns under its names, and its wording; the same under the name `tenfold`.
//!
//! **Mechanism.** [`serve`] speaks the simple query protocol over whatever stream it is given, to a client that is
//! already logged in: [`command`] reads a statement, [`show`] makes a [`table::Table`] of a
//! [`Report`](crate::report::Report), [`settings`] knows the settings by PgBouncer's names, and everything that does
//! something is asked of the [`ConsoleApi`].
//!
//! **Failure.** A mistake is an ErrorResponse and the session goes on; the extended protocol is refused once per series
//! and skipped up to Sync. A command that waits (PAUSE) is given up when its client goes, and what it began stays: a
//! database paused is paused. Messages above [`MESSAGE_BYTES_MAX`] end the session.
//!
//! Source: PgBouncer's manual, "Admin console".

mod api;
pub mod command;
mod desk;
mod gather;
mod session;
pub mod settings;
pub mod show;
pub mod table;
mod tier;
mod tls_settings;

pub use api::{ConsoleApi, Refused, Shutdown};
pub use desk::Desk;
pub(crate) use gather::totals;
pub use session::{MESSAGE_BYTES_MAX, Session, serve};
pub use tier::{Tier, session};
