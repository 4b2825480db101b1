//! Applying a 304.
