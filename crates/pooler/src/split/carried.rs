//! What a client of the application must see, as its requests carry it from edge to edge and through the application.
//!
//! **Intuition.** Who wrote something holds a token that says where the primary's log was by then. It comes with the next
//! request, whichever edge, API node, connection and pooler that takes, and no read of that request goes to a replica
//! which is not there yet.
//!
//! **Mechanism.** The token is text: `1.SYSTEM.TIMELINE.LSN.UNTIL.ISSUED.SEAL`, numbers in hexadecimal. A position counts
//! on its own line of history: the cluster's system identifier and the timeline. `UNTIL` (milliseconds since 1970) is
//! for a write whose position nobody could tell: until then only the primary answers. The seal is the edge's, who made the
//! token and has checked it before the application saw it.
//!
//! **Failure.** A token that can't be read, or one of another line of history, sends reads to the primary; the latter
//! only while it is young, since later every replica that is used has what it is about.

use super::lsn::Lsn;

/// Parts of a token.
const PARTS: usize = 7;
/// A longer text is no token.
const TOKEN_BYTES_MAX: usize = 160;
const VERSION: &[u8] = b"1";

/// A line of history that positions belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Which `initdb`: `pg_control_system().system_identifier`.
    pub system: u64,
    /// Which timeline.
    pub timeline: u32,
}

/// A position and the history in which it means something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The history.
    pub history: History,
    /// The position.
    pub lsn: Lsn,
}

/// What a statement's comment asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// These.
    Token {
        /// What a replica must have replayed; position 0 for nothing.
        position: Position,
        /// Until when only the primary answers, in milliseconds since 1970; 0 for never.
        until_ms: u64,
        /// When it was made, in milliseconds since 1970.
        issued_ms: u64,
    },
    /// Something that could not be read.
    Unreadable,
}

impl Carried {
    /// Reads a token, but for its seal.
    #[must_use]
    pub fn read(token: &[u8]) -> Self {
        Self::parts(token).unwrap_or(Self::Unreadable)
    }

    fn parts(token: &[u8]) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let mut parts = token.split(|byte| *byte == b'.');
        if parts.next()? != VERSION || parts.clone().count() != PARTS - 1 {
            return None;
        }
        let mut number = || hex(parts.next()?);
        let (system, timeline, lsn) = (number()?, number()?, number()?);
        let (until_ms, issued_ms) = (number()?, number()?);
        let history = History { system, timeline: u32::try_from(timeline).ok()? };
        Some(Self::Token { position: Position { history, lsn: Lsn(lsn) }, until_ms, issued_ms })
    }

    /// What a replica must have replayed for both of two statements that go there together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Token { position: a, until_ms: a_until, issued_ms: a_issued },
                Self::Token { position: b, until_ms: b_until, issued_ms: b_issued },
            ) if a.history == b.history => Self::Token {
                position: Position { lsn: a.lsn.max(b.lsn), ..a },
                until_ms: a_until.max(b_until),
                issued_ms: a_issued.max(b_issued),
            },
            _ => Self::Unreadable,
        }
    }

    /// What a replica must have replayed now; `None`: only the primary may answer.
    ///
    /// `now_ms`: since 1970. `settled_ms`: after so long every replica in use has everything that was written before.
    #[must_use]
    pub fn floor(self, history: Option<History>, now_ms: u64, settled_ms: u64) -> Option<Lsn> {
        let Self::Token { position, until_ms, issued_ms } = self else { return None };
        if until_ms > now_ms {
            return None;
        }
        if position.lsn == Lsn(0) || history == Some(position.history) {
            return Some(position.lsn);
        }
        (issued_ms.saturating_add(settled_ms) < now_ms).then_some(Lsn(0))
    }
}

/// A number of at most sixteen hexadecimal digits.
fn hex(text: &[u8]) -> Option<u64> {
    let is_hex = !text.is_empty() && text.len() <= 16 && text.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(text).ok().filter(|_| is_hex)?;
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: History = History { system: 0x71, timeline: 2 };

    fn floor(token: &str, now_ms: u64) -> Option<u64> {
        Carried::read(token.as_bytes()).floor(Some(HERE), now_ms, 1_000).map(|lsn| lsn.0)
    }

    #[test]
    fn a_position_counts_on_its_own_history() {
        assert_eq!(floor("1.71.2.16b374d848.0.64.00ff", 200), Some(0x16_b374_d848));
        assert_eq!(floor("1.71.1.16b374d848.0.64.00ff", 200), None);
        assert_eq!(floor("1.72.2.16b374d848.0.64.00ff", 200), None);
        // By now, whoever is used has it.
        assert_eq!(floor("1.71.1.16b374d848.0.64.00ff", 1_101), Some(0));
        assert_eq!(Carried::read(b"1.71.2.5.0.64.00ff").floor(None, 200, 1_000), None);
        assert_eq!(Carried::read(b"1.0.0.0.0.64.00ff").floor(None, 200, 1_000), Some(Lsn(0)));
    }

    #[test]
    fn only_the_primary_answers_until_then() {
        assert_eq!(floor("1.71.2.5.c8.64.00ff", 199), None);
        assert_eq!(floor("1.71.2.5.c8.64.00ff", 200), Some(5));
    }

    #[test]
    fn what_cannot_be_read_goes_to_the_primary() {
        for token in [
            "",
            "1",
            "2.71.2.5.0.64.00ff",
            "1.71.2.5.0.64",
            "1.71.2.5.0.64.00.ff",
            "1.71.2.x.0.64.00ff",
            "1.71.2.+5.0.64.00ff",
            "1.71.2..0.64.00ff",
            "1.71.100000000.5.0.64.00ff",
            "1.71.2.11111111111111111.0.64.00ff",
            &"1".repeat(1_000),
        ] {
            assert_eq!(Carried::read(token.as_bytes()), Carried::Unreadable, "{token}");
            assert_eq!(floor(token, u64::MAX), None, "{token}");
        }
    }

    #[test]
    fn of_two_the_stricter_holds() {
        let read = |token: &str| Carried::read(token.as_bytes());
        let both = read("1.71.2.5.c8.64.0").and(read("1.71.2.9.0.65.0"));
        assert_eq!(both, read("1.71.2.9.c8.65.0"));
        assert_eq!(read("1.71.2.5.0.64.0").and(read("1.71.3.5.0.64.0")), Carried::Unreadable);
    }
}
