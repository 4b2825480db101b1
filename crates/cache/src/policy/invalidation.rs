//! What an unsafe method makes out of date. RFC 9111 §4.4.
