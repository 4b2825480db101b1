//! The kit, tried on itself: what the other crates' tests rely on must hold first.
mod origins;
