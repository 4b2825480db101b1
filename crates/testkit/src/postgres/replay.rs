//! How far behind a replica is: held where it stands, a fixed time late, or now the one and now the other.
//!
//! **Intuition.** Lag is what makes reads on replicas wrong, and on a quiet machine there is none. So a test makes its
//! own, as much as it wants and when it wants.
//!
//! **Mechanism.** `pg_wal_replay_pause()` and `recovery_min_apply_delay`, which holds back commits. [`Jitter`] is a thread
//! with one `psql` whose standard input it writes to, so that a change takes no new connection and no process.
//!
//! **Failure.** Errors are PostgreSQL's own. A replica that is restarted or promoted replays again, whatever was set by
//! a pause; jitter ends with its `psql` and can be started again.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{SUPERUSER, Server};
use crate::{Error, try_wait_for};

const PAUSE_LIMIT: Duration = Duration::from_secs(10);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);

impl Server {
    /// Holds a replica's replay where it stands, and waits until it is held.
    ///
    /// # Errors
    /// As [`Server::psql`]; [`Error::TimedOut`].
    pub fn pause_replay(&self) -> Result<(), Error> {
        self.psql("SELECT pg_wal_replay_pause()")?;
        let state = "SELECT pg_get_wal_replay_pause_state()";
        try_wait_for("the replay to stand still", PAUSE_LIMIT, || {
            self.psql(state).is_ok_and(|state| state == "paused").then_some(())
        })
    }

    /// Has a replica replay again.
    ///
    /// # Errors
    /// As [`Server::psql`].
    pub fn resume_replay(&self) -> Result<(), Error> {
        self.psql("SELECT pg_wal_replay_resume()").map(drop)
    }

    /// Shows commits on a replica so much later than the primary made them; zero: as soon as can be.
    ///
    /// # Errors
    /// As [`Server::psql`].
    pub fn delay_replay(&self, delay: Duration) -> Result<(), Error> {
        self.set("recovery_min_apply_delay", &format!("{}ms", delay.as_millis()))
    }

    /// Waits until a replica has replayed all that `primary` has written by now.
    ///
    /// # Errors
    /// As [`Server::psql`]; [`Error::TimedOut`].
    pub fn catch_up(&self, primary: &Self) -> Result<(), Error> {
        // A commit that was not waited for is nowhere but in memory; one that is flushes all before it.
        primary.psql("SET synchronous_commit = on; SELECT pg_logical_emit_message(true, 'catch up', '')")?;
        let written = primary.psql("SELECT pg_current_wal_flush_lsn()")?;
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        try_wait_for("the replica to catch up", CATCH_UP_LIMIT, || {
            self.psql(&replayed).is_ok_and(|answer| answer == "t").then_some(())
        })
    }

    /// `psql` that runs what is written to its standard input.
    pub(super) fn psql_session(&self) -> Command {
        let mut psql = self.install.program("psql");
        psql.args(["-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-U", SUPERUSER, "-d", SUPERUSER]);
        psql.arg("-p").arg(self.port().to_string());
        psql.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.authenticate(&mut psql);
        psql
    }
}

/// A replica that stops and goes on at random, until this is dropped.
#[derive(Debug)]
pub struct Jitter {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Jitter {
    /// Holds the replay for up to `held_max`, lets it go on for up to `running_max`, and so on; both times are drawn
    /// from a sequence that `seed` begins.
    ///
    /// # Errors
    /// [`Error::System`] if `psql` does not start.
    pub fn start(
        replica: &Server,
        held_max: Duration,
        running_max: Duration,
        seed: u64,
    ) -> Result<Self, Error> {
        let mut psql = replica.psql_session().spawn().map_err(Error::system("starting psql"))?;
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            if let Some(stdin) = psql.stdin.take() {
                shake(stdin, &stopped, held_max, running_max, seed);
            }
            let _ = psql.wait();
        });
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Jitter {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn shake(
    mut psql: std::process::ChildStdin,
    stopped: &Receiver<()>,
    held_max: Duration,
    running_max: Duration,
    seed: u64,
) {
    let mut random = seed | 1;
    let mut draw = |max: Duration| {
        // xorshift64: any sequence that does not repeat soon will do.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let most = u64::try_from(max.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(random % most)
    };
    let goes_on = |time| matches!(stopped.recv_timeout(time), Err(RecvTimeoutError::Timeout));
    loop {
        let held = writeln!(psql, "SELECT pg_wal_replay_pause();").and_then(|()| psql.flush());
        let on = held.is_ok() && goes_on(draw(held_max));
        let released = writeln!(psql, "SELECT pg_wal_replay_resume();").and_then(|()| psql.flush());
        if !on || released.is_err() || !goes_on(draw(running_max)) {
            return;
        }
    }
}
