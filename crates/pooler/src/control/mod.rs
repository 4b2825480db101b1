//! What must not make a worker wait: names, look-ups, notifications, watching servers.
//!
//! **Intuition.** Workers serve clients and never wait for anything else. All that needs a conversation of its own with
//! a server or with the system happens here, on one thread with tasks, and comes back as a message.
//!
//! **Mechanism.** For each database in use a [`Monitor`] finds the primary and reads the catalogue, and a [`Hub`]
//! listens for its clients; [`Replicas`] are watched where there are any; [`Lookups`] asks for users' secrets; [`Resolver`] turns names into addresses; [`Salter`]
//! does the hashing that takes milliseconds. All connect with the small [`Client`] of [`client`]. What they need of a
//! database, and what they tell of it, is [`Watched`].
//!
//! **Failure.** Each task fails alone, says so as an [`Event`], and tries again.

pub mod client;
pub mod error;
pub mod hub;
pub mod lookup;
pub mod monitor;
pub mod replicas;
pub mod resolver;
pub mod secrets;
pub mod target;
mod tasks;
pub mod watched;

pub use client::{Client, Entrance};
pub use error::Error;
pub use hub::{Hub, HubAsk, Outlet};
pub use lookup::Lookups;
pub use monitor::{Monitor, Poke, Tools};
pub use replicas::{Foreign, Replicas};
pub use resolver::Resolver;
pub use secrets::Salter;
pub use target::{Address, Endpoint, Target};
pub use tasks::run;
pub use watched::{Change, Event, Watched};
