//! The request target's four forms (RFC 9112 §3.2) and the authority within (RFC 3986 §3.2).

/// How a request names its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetForm<'b> {
    /// `/path?query`: what clients send to servers.
    Origin,
    /// `http://authority/path?query`: what clients send to proxies.
    Absolute {
        /// The scheme, in any case on the wire.
        scheme: Scheme,
        /// `host [":" port]`, as on the wire.
        authority: &'b [u8],
        /// What follows the authority, as on the wire: may be empty or begin with `?`. `RequestHead::path` and `query`
        /// are the same split and completed.
        path: &'b [u8],
    },
    /// `host:port`, CONNECT only.
    Authority,
    /// `*`, OPTIONS only.
    Asterisk,
}

/// The schemes an absolute target may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// http, default port 80
    Http,
    /// https, default port 443
    Https,
}
