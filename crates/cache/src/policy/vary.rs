//! Which requests a stored response answers. RFC 9111 §4.1.

/// The headers a response varies by, with the values of the request it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vary {}
