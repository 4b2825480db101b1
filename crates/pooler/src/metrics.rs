//! (being written)
/// Registers.
pub fn register(_shared: &std::sync::Arc<crate::shared::Shared>) {}
