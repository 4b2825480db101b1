//! Where load may go.
