//! How much of a message this codec is willing to hold or skip.
//!
//! Every limit is checked as soon as the bytes at hand prove it broken, whether or not the line or head has ended.

/// Limits of one listener or one upstream. All in bytes unless the name says otherwise; all inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The whole head: start line, fields, and the empty line that ends it.
    pub head_bytes_max: usize,
    /// One field line without its CRLF.
    pub line_bytes_max: usize,
    /// The request target; also bounds a response's reason phrase.
    pub target_bytes_max: usize,
    /// Field lines in one head.
    pub fields_max: usize,
    /// A chunk's size line with its extensions, without its CRLF.
    pub chunk_line_bytes_max: usize,
    /// All chunk extensions of one body together. They carry nothing we use, and without a total a peer can make us
    /// read any amount of them for each byte of payload.
    pub chunk_extension_bytes_max: usize,
    /// The trailer section of one body, with its line ends.
    pub trailer_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 32 * 1024,
            line_bytes_max: 8 * 1024,
            target_bytes_max: 8 * 1024,
            fields_max: 100,
            chunk_line_bytes_max: 1024,
            chunk_extension_bytes_max: 16 * 1024,
            trailer_bytes_max: 8 * 1024,
        }
    }
}
