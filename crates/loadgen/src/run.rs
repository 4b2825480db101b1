//! Plays a plan.

use crate::error::Error;
use crate::plan::{Plan, Stop};
use crate::report::{Report, Second};
use crate::request_log::RequestLog;

/// What a run leaves.
#[derive(Clone, Debug)]
pub struct Run {
    /// The result.
    pub report: Report,
    /// The requests, if the plan asked for them; else empty.
    pub log: RequestLog,
}

/// Plays the plan and blocks until it is played, or `stop` is called. `progress` sees each second as it ends.
///
/// # Errors
/// When the plan can't be played or its set-up requests failed. Failed requests are no error: the report counts them.
pub fn run(plan: &Plan, stop: &Stop, progress: &mut dyn FnMut(&Second)) -> Result<Run, Error> {
    let _ = (plan, stop, progress);
    Err(Error::Client("not connected".into()))
}

/// Sends the scenario's set-up requests, in order, to the first target, and returns the tokens they brought home.
///
/// # Errors
/// [`Error::Setup`] when one isn't answered as it should be; and as [`run`].
pub fn log_in(plan: &Plan) -> Result<Vec<String>, Error> {
    let _ = plan;
    Ok(vec![])
}
