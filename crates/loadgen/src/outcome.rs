//! How a request can end: the report's closed list.

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// Nobody listens there.
    Refused,
    /// The connection could not be made for another reason (no descriptor or port left, unreachable).
    Connect,
    /// The connection was reset, or broke while the request was written.
    Reset,
    /// The connection was closed before the first byte of an answer.
    Closed,
    /// Not answered in full within the timeout, counted from the intended start.
    Timeout,
    /// The connection was closed in the middle of an answer.
    Truncated,
    /// The answer is not HTTP.
    Malformed,
    /// No connection was free and too many requests were waiting for one already.
    Overflow,
    /// A status of 400 and above that was not expected.
    Status(u16),
    /// A status below 400 that was not expected.
    Unexpected(u16),
}

impl Failure {
    /// The failure of a write or read.
    pub(crate) fn of_io(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::Reset,
        }
    }

    /// The failure of a connect.
    pub(crate) fn of_connect(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::Connect,
        }
    }

    /// The failure that an answer's status is.
    pub(crate) fn of_status(status: u16) -> Self {
        if status >= 400 { Self::Status(status) } else { Self::Unexpected(status) }
    }

    /// As it is called in reports.
    pub(crate) fn label(self) -> String {
        let label = match self {
            Self::Refused => "refused",
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Overflow => "overflow",
            Self::Status(status) => return format!("status_{status}"),
            Self::Unexpected(status) => return format!("unexpected_{status}"),
        };
        label.to_owned()
    }
}
