//! Positions in the write-ahead log.

use std::{fmt, str::FromStr};

/// Bytes of a page of the log, as all but hand-made builds have it.
const PAGE_BYTES: u64 = 8_192;
/// Headers of a page and of a segment's first page (`SizeOfXLogShortPHD`, `SizeOfXLogLongPHD`).
const PAGE_HEADERS_BYTES: [u64; 2] = [24, 40];

/// A position in the write-ahead log: bytes since its beginning (`pg_lsn`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Where everything before this position has been replayed. The insert position right behind a page's header is one
    /// that no replica reports: what ends at the end of a page ends at the beginning of the next.
    #[must_use]
    pub const fn replayed(self) -> Self {
        let in_page = self.0 % PAGE_BYTES;
        let is_behind_header = in_page == PAGE_HEADERS_BYTES[0] || in_page == PAGE_HEADERS_BYTES[1];
        if is_behind_header { Self(self.0 - in_page) } else { self }
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// It is not two hexadecimal numbers with a slash between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position of the write-ahead log")]
pub struct NotAnLsn;

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let (high, low) = text.split_once('/').ok_or(NotAnLsn)?;
        let half = |digits: &str| {
            let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten().ok_or(NotAnLsn)
        };
        Ok(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_written() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().expect("a position").to_string(), text);
        }
        for text in ["", "0", "/", "1/", "/1", "1/2/3", "123456789/0", "+1/0", "1/ 2", "g/0"] {
            assert_eq!(text.parse::<Lsn>(), Err(NotAnLsn), "{text}");
        }
    }

    #[test]
    fn a_position_behind_a_pages_header_is_the_pages_beginning() {
        let page = 7 * PAGE_BYTES;
        for (in_page, replayed) in [(0, 0), (24, 0), (40, 0), (25, 25), (8_191, 8_191)] {
            assert_eq!(Lsn(page + in_page).replayed(), Lsn(page + replayed));
        }
    }
}
