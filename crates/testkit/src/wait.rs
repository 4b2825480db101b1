//! Waiting for a condition, with a limit: what tests do instead of sleeping.
//!
//! **Intuition.** A sleep is either too short on a busy machine or too long on a quiet one. Asking again and again is
//! neither, and when the limit passes the failure says what was waited for.
//!
//! **Mechanism.** The condition is asked at once, then after one, two, four … at most twenty milliseconds. It is true
//! when it is `true` or `Some`. This file is the only place of the kit that reads the clock.
//!
//! **Failure.** At the limit [`wait_for`] and [`eventually`] panic at the caller's line; [`try_wait_for`] returns
//! [`Error::TimedOut`]. A condition that itself blocks is not interrupted.
#![expect(clippy::disallowed_methods, reason = "the one place that waits and reads the clock for tests")]

use std::time::{Duration, Instant};

use crate::Error;

const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// What a condition may return: `bool`, or an `Option` whose content the waiter is given.
pub trait Observed {
    /// What is handed over once the condition holds.
    type Value;
    /// The value, if the condition holds.
    fn value(self) -> Option<Self::Value>;
}

impl Observed for bool {
    type Value = ();
    fn value(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Observed for Option<T> {
    type Value = T;
    fn value(self) -> Option<T> {
        self
    }
}

/// Asks `condition` until it holds.
///
/// # Panics
/// At the limit, naming `what`.
#[track_caller]
pub fn wait_for<C: Observed>(what: &str, limit: Duration, condition: impl FnMut() -> C) -> C::Value {
    match try_wait_for(what, limit, condition) {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

/// Asks `condition` until it holds, or says that it did not.
///
/// # Errors
/// [`Error::TimedOut`] at the limit.
pub fn try_wait_for<C: Observed>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> C,
) -> Result<C::Value, Error> {
    let deadline = Deadline::after(limit);
    let mut pause = PAUSE_MIN;
    loop {
        if let Some(value) = condition().value() {
            return Ok(value);
        }
        if deadline.remaining().is_none() {
            return Err(Error::TimedOut { what: what.to_owned(), limit });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// [`wait_for`] for asynchronous conditions, on tokio. Dropping the future stops the waiting.
///
/// # Panics
/// At the limit, naming `what`.
pub async fn eventually<C: Observed>(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> C,
) -> C::Value {
    let deadline = Deadline::after(limit);
    let mut pause = PAUSE_MIN;
    loop {
        if let Some(value) = condition().await.value() {
            return value;
        }
        assert!(deadline.remaining().is_some(), "waited {} ms for {what}", limit.as_millis());
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A moment by which something must have happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// What is left, or `None` once it has passed.
    pub(crate) fn remaining(self) -> Option<Duration> {
        self.0.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(30);

    #[test]
    fn a_condition_that_holds_gives_its_value() {
        let mut asked = 0;
        let value = wait_for("the third time", Duration::from_secs(5), || {
            asked += 1;
            (asked == 3).then_some("three")
        });
        assert_eq!((value, asked), ("three", 3));
        wait_for("true", SHORT, || true);
    }

    #[test]
    #[should_panic(expected = "waited 30 ms for the moon to fall")]
    fn a_condition_that_never_holds_panics_with_its_name() {
        wait_for("the moon to fall", SHORT, || false);
    }

    #[test]
    fn the_limit_is_an_error_where_asked_for() {
        let error = try_wait_for("rain", SHORT, || None::<()>).unwrap_err();
        assert_eq!(error.to_string(), "waited 30 ms for rain");
    }

    #[tokio::test]
    async fn asynchronous_conditions_are_awaited() {
        let mut asked = 0;
        eventually("twice", Duration::from_secs(5), async || {
            tokio::task::yield_now().await;
            asked += 1;
            asked == 2
        })
        .await;
    }
}
