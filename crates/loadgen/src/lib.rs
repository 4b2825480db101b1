//! Load as it comes from real users: on its own schedule, whatever the target makes of it.
//!
//! **Intuition.** A load test tells the truth only if the generator behaves like a crowd: people arrive when they
//! arrive, not when the previous one was served; they hold connections open; they give up after a while. So the starts
//! are decided in advance ([`schedule`]), latency counts from the intended start, and what is asked for follows
//! recorded popularity ([`trace`]) and a mix of requests ([`scenario`]).
//!
//! **Mechanism.** A [`Plan`] goes into [`run()`], which plays it on its own threads and returns a [`Run`]: the
//! [`Report`] and, if asked, a log of the requests. [`capacity`] finds the highest rate that holds an SLO with such
//! runs; [`ideal`] says what an unlimited cache would have fetched of a log; [`table`] draws a report as text.
//!
//! **Failure.** A plan that can't be played is refused before anything is sent, above all one whose target is not this
//! machine and not said to be the user's own. After that, everything that goes wrong is counted in the report.

mod beat;
pub mod capacity;
mod error;
pub mod ideal;
mod mix;
mod outcome;
mod plan;
mod random;
mod recorder;
pub mod report;
mod request_log;
mod run;
pub mod scenario;
pub mod schedule;
mod setup;
mod summary;
pub mod table;
mod target;
mod template;
pub mod trace;
mod wire;
mod worker;

pub use error::Error;
pub use plan::{CONNECTIONS_MAX, ClientConfig, Plan, QUEUE_MAX, Stop, THREADS_MAX};
pub use report::{Report, Second, Slo, Verdict};
pub use request_log::{LOG_LINES_MAX, LogLine, RequestLog};
pub use run::{Run, run};
pub use scenario::Scenario;
pub use schedule::Schedule;
pub use setup::log_in;
