//! Heads that arrive in pieces: when is it worth parsing again?
//!
//! **Intuition.** The parsers read a head from its first byte to its last in one pass, which is the fastest way when
//! it is all there, as it nearly always is. A peer that sends one byte at a time would make that quadratic. So after a
//! first look that found the head unfinished, only new bytes are looked at, until they either end the head or prove
//! that it is refused; then the parser runs once more and says which.
//!
//! **Mechanism.** `scanned` counts the bytes already looked at. The first few are parsed every time, since that is
//! cheap and tells a TLS hello or other nonsense at its first wrong byte. From then on new bytes are searched for
//! control characters and line ends. An over-long line shows by the absence of a line end in the last window of bytes,
//! which is one backward search of bounded length.
//!
//! **Failure.** What only a whole line or head can show (a name without colon, too many fields, a missing Host) is
//! found when the head ends or reaches its limit; either bounds how much a peer can make us hold.

use crate::bytes;
use crate::method::METHOD_BYTES_MAX;
use crate::{Error, Limits};

/// Why a reader stopped before the end of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// All bytes so far may begin a valid head.
    Partial,
    /// No continuation can make it valid.
    Refused(Error),
}

impl From<Error> for Stop {
    #[inline(always)]
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Heads shorter than this are parsed from the start every time: about as cheap as deciding not to.
const REPARSE_BYTES: usize = 64;

/// The bytes to read a head from, unless new bytes can't have changed what was found last time.
///
/// What reads them must be a function of the bytes alone whose refusals are final: whatever it refuses, it refuses with
/// the same error however many bytes follow.
#[inline(always)]
pub(crate) fn to_read<'b>(buf: &'b [u8], scanned: &mut usize, limits: &Limits) -> Option<&'b [u8]> {
    if buf.len() >= limits.head_bytes_max {
        return Some(&buf[..limits.head_bytes_max]);
    }
    if *scanned > REPARSE_BYTES && !is_worth_reading(buf, *scanned, limits) {
        *scanned = buf.len();
        return None;
    }
    Some(buf)
}

/// The outcome of a reader that stopped early in `view`.
#[cold]
pub(crate) fn stopped(stop: Stop, view: &[u8], scanned: &mut usize, limits: &Limits) -> Result<(), Error> {
    match stop {
        Stop::Refused(error) => Err(error),
        Stop::Partial if view.len() >= limits.head_bytes_max => Err(Error::HeadTooLong),
        Stop::Partial => {
            *scanned = view.len();
            Ok(())
        }
    }
}

/// Do the bytes from `scanned` on end the head, or hold what no head holds?
#[cold]
fn is_worth_reading(view: &[u8], scanned: usize, limits: &Limits) -> bool {
    // A line end may have begun just before.
    let mut at = scanned.saturating_sub(1);
    loop {
        at += bytes::value_len(&view[at.min(view.len())..]);
        let Some(rest) = view.get(at..) else { break };
        match rest {
            [] | [b'\r'] => break,
            [b'\r', b'\n', ..] if view[..at].ends_with(b"\r\n") => return true,
            [b'\r', b'\n', ..] => at += 2,
            // The LF of a CRLF whose CR came last time.
            [b'\n', ..] if at < scanned && view[..at].ends_with(b"\r") => at += 1,
            _ => return true,
        }
    }
    // The start line's bound is the wider one; a field line between the two is refused once it has passed both.
    let window = limits.line_bytes_max.max(limits.target_bytes_max + METHOD_BYTES_MAX) + 2;
    view.len() > window && memchr::memrchr(b'\n', &view[view.len() - window..]).is_none()
}
