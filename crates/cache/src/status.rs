//! `Cache-Status` (RFC 9211): one list member that says what this cache did.

/// What this cache did with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Answered from the cache; `None` in `forward`.
    pub hit: bool,
    /// Why the request went on, if it did.
    pub forward: Option<Forward>,
    /// The status the origin answered with, where it differs from what the client gets. §2.3.
    pub forward_status: Option<u16>,
    /// The response was stored. §2.5.
    pub stored: bool,
    /// The request followed another's fetch. §2.6.
    pub collapsed: bool,
    /// Remaining freshness in seconds, negative when stale. §2.4.
    pub ttl_s: Option<i64>,
    /// A reason's label, written as a token. §2.8.
    pub detail: Option<&'static str>,
}

/// Why a request went to the origin. RFC 9211 §2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The cache was told not to handle it.
    Bypass,
    /// The method is not one it answers.
    Method,
    /// Nothing stored for the URI.
    UriMiss,
    /// Something stored, but not for these header values.
    VaryMiss,
    /// A part is stored, but not all that was asked for.
    Partial,
    /// The request's own directives asked for it.
    Request,
    /// What is stored is stale.
    Stale,
}

impl Forward {
    /// The parameter's token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Partial => "partial",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }
}

impl CacheStatus {
    /// An answer from the cache.
    #[must_use]
    pub fn hit(ttl_s: i64) -> Self {
        Self { hit: true, ttl_s: Some(ttl_s), ..Self::default() }
    }

    /// A request that went on.
    #[must_use]
    pub fn forward(forward: Forward) -> Self {
        Self { forward: Some(forward), ..Self::default() }
    }

    /// Appends the member, without the field's name: `Tenfold; hit; ttl=12`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Tenfold");
        if self.hit {
            out.extend_from_slice(b"; hit");
        }
        if let Some(forward) = self.forward {
            out.extend_from_slice(b"; fwd=");
            out.extend_from_slice(forward.as_str().as_bytes());
        }
        if let Some(status) = self.forward_status {
            out.extend_from_slice(b"; fwd-status=");
            out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        }
        if self.stored {
            out.extend_from_slice(b"; stored");
        }
        if self.collapsed {
            out.extend_from_slice(b"; collapsed");
        }
        if let Some(ttl_s) = self.ttl_s {
            out.extend_from_slice(b"; ttl=");
            out.extend_from_slice(itoa::Buffer::new().format(ttl_s).as_bytes());
        }
        if let Some(detail) = self.detail {
            out.extend_from_slice(b"; detail=");
            out.extend_from_slice(detail.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: CacheStatus, expected: &str) {
        let mut out = Vec::new();
        status.write(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn members_follow_rfc_9211() {
        check(CacheStatus::hit(12), "Tenfold; hit; ttl=12");
        check(CacheStatus::hit(-3), "Tenfold; hit; ttl=-3");
        check(CacheStatus::forward(Forward::UriMiss), "Tenfold; fwd=uri-miss");
        check(CacheStatus::forward(Forward::Bypass), "Tenfold; fwd=bypass");
        check(
            CacheStatus { stored: true, collapsed: true, ..CacheStatus::forward(Forward::VaryMiss) },
            "Tenfold; fwd=vary-miss; stored; collapsed",
        );
        check(
            CacheStatus {
                forward_status: Some(304),
                ttl_s: Some(60),
                ..CacheStatus::forward(Forward::Stale)
            },
            "Tenfold; fwd=stale; fwd-status=304; ttl=60",
        );
        check(
            CacheStatus { detail: Some("purged"), ..CacheStatus::forward(Forward::Request) },
            "Tenfold; fwd=request; detail=purged",
        );
    }
}
