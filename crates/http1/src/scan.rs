//! Finding the end of a head that arrives in pieces.
