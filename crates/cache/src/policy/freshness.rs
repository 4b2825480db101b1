//! May it be stored, may it be served. RFC 9111 §3, §4.

/// What a stored response may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {}
/// See the module.
pub fn decide() {}
/// See the module.
pub fn storable() {}
