//! One line per request, kept in memory: what [`crate::ideal`] replays against a perfect cache.
//!
//! 40 bytes a line, `LOG_LINES_MAX` lines at most; beyond that, requests are counted as dropped rather than kept.

/// The most lines kept: 160 MB.
pub const LOG_LINES_MAX: usize = 4_000_000;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was meant to start, in microseconds from the start of the run.
    pub intended_us: u64,
    /// When it was first written to a connection. Equal to `ended_us` if it never was.
    pub started_us: u64,
    /// When its last byte came, or it failed.
    pub ended_us: u64,
    /// A hash of the target (path and query) as sent: the same target has the same hash in every run.
    pub target: u64,
    /// The index of its route in the scenario.
    pub route: u16,
    /// Whether it was answered as expected.
    pub ok: bool,
}

/// The requests of a run, by intended start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestLog {
    lines: Vec<LogLine>,
    dropped: u64,
}

impl RequestLog {
    /// A log of these lines, in any order.
    #[must_use]
    pub fn of_lines(mut lines: Vec<LogLine>) -> Self {
        lines.sort_by_key(|line| line.intended_us);
        Self { lines, dropped: 0 }
    }

    pub(crate) fn push(&mut self, line: LogLine) {
        if self.lines.len() < LOG_LINES_MAX {
            self.lines.push(line);
        } else {
            self.dropped += 1;
        }
    }

    /// Takes in another thread's lines. [`Self::of_lines`]'s order is restored.
    pub(crate) fn merge(&mut self, other: Self) {
        self.dropped += other.dropped;
        other.lines.into_iter().for_each(|line| self.push(line));
        self.lines.sort_by_key(|line| line.intended_us);
    }

    /// The lines, by intended start.
    #[must_use]
    pub fn lines(&self) -> &[LogLine] {
        &self.lines
    }

    /// Requests beyond [`LOG_LINES_MAX`].
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}
