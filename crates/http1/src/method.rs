//! Methods and versions: the closed sets of a start line.

/// The longest method accepted. The longest registered one (`UPDATEREDIRECTREF`) has 17 bytes.
pub const METHOD_BYTES_MAX: usize = 32;

/// The methods this edge treats by name; case-sensitive, as RFC 9110 §9.1 has it. Everything else is [`Method::Other`],
/// whose text stays on the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// PATCH
    Patch,
    /// TRACE
    Trace,
    /// CONNECT
    Connect,
    /// Any other token.
    Other,
}

impl Method {
    /// Names a method; what is not one of ours is [`Method::Other`].
    #[inline]
    #[must_use]
    pub fn from_bytes(text: &[u8]) -> Self {
        match text {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }

    /// The method's name, `None` for [`Method::Other`].
    #[must_use]
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Get => Some("GET"),
            Self::Head => Some("HEAD"),
            Self::Post => Some("POST"),
            Self::Put => Some("PUT"),
            Self::Delete => Some("DELETE"),
            Self::Options => Some("OPTIONS"),
            Self::Patch => Some("PATCH"),
            Self::Trace => Some("TRACE"),
            Self::Connect => Some("CONNECT"),
            Self::Other => None,
        }
    }

    /// Asks for nothing to change (RFC 9110 §9.2.1). Unknown methods are not safe.
    #[must_use]
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// May be sent twice with the effect of once (RFC 9110 §9.2.2). Unknown methods may not.
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }
}

/// The versions whose framing this codec speaks. HTTP/1.2 and up within major 1 are read as 1.1 (RFC 9110 §2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}
