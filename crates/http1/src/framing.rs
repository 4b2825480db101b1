//! Where a message's body ends (RFC 9112 §6).

/// The length of a body as its head declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none, whatever the fields say.
    None,
    /// So many bytes; zero when the head says so.
    Exact(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the peer closes; responses only.
    UntilClose,
}
