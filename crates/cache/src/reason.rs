//! Why: one closed set of reasons for everything the cache declines.
//!
//! Each has a stable snake_case label for metrics, logs and `Tenfold-Reason`. Labels never contain input.

/// Declares an enum whose variants each carry a label.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every reason, for registering metrics.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable label.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

reasons! {
    /// Why nothing stored could answer.
    MissReason {
        /// Nothing is stored under the key.
        Uri = "uri_miss",
        /// Something is, but for other values of the headers in `Vary`.
        Vary = "vary_miss",
        /// A part of it is, but not the one asked for.
        Partial = "partial",
        /// What was stored has been purged.
        Purged = "purged",
        /// What is stored may not answer this request (stored under an override that does not apply to it).
        Guarded = "guarded",
        /// What is stored may be older than what this client did.
        OwnWrite = "own_write",
    }
}

reasons! {
    /// Why the cache stays out of it: nothing is looked up and nothing stored.
    BypassReason {
        /// The route has no cache.
        Off = "off",
        /// Only GET and HEAD are answered from here.
        Method = "method",
        /// The request said `no-store`.
        NoStore = "request_no_store",
        /// A GET or HEAD with a body, which could change the answer without being in the key.
        Body = "request_body",
        /// `If-Match` and `If-Unmodified-Since` are the origin's to evaluate. RFC 9111 §4.3.2.
        Precondition = "precondition",
    }
}

reasons! {
    /// Why a request fetches for itself, without a fill.
    AloneReason {
        /// The key's last response could not be stored.
        KnownUncacheable = "known_uncacheable",
        /// A HEAD that nothing stored could answer.
        Head = "head",
        /// A range that nothing stored could answer.
        Range = "range",
        /// The running fill has outgrown what late joiners could still be given.
        Outgrown = "outgrown",
        /// `cache.fills_max` fills are running.
        FillsFull = "fills_full",
        /// As many fills for variants of this key as may be.
        VariantsFull = "variants_full",
        /// The cache may not be used for this request (see [`BypassReason`]).
        Bypass = "bypass",
    }
}

reasons! {
    /// Why a follower has to make its own request.
    ReleaseReason {
        /// The response cannot be stored, so it is the lead's alone.
        Uncacheable = "uncacheable",
        /// The response is for other values of the headers in `Vary`. Joining again finds or leads the right fill.
        VaryMismatch = "vary_mismatch",
        /// It may be stored, but not used again without validation.
        NotShareable = "not_shareable",
        /// A stale copy is the answer, which this request's directives refuse.
        StaleRefused = "stale_refused",
    }
}

impl ReleaseReason {
    /// Whether [`Cache::join`](crate::Cache::join) may be called again; otherwise go alone.
    #[must_use]
    pub const fn may_join_again(self) -> bool {
        matches!(self, Self::VaryMismatch | Self::NotShareable)
    }
}

reasons! {
    /// Why a fill ended without an answer.
    FailReason {
        /// No connection to any node.
        Connect = "connect",
        /// The origin took too long.
        Timeout = "timeout",
        /// The origin closed or reset the connection, or sent less than it announced.
        Truncated = "truncated",
        /// The origin sent what is not HTTP, or contradicts itself.
        Invalid = "invalid",
        /// Refused before sending: no budget, no node, overload.
        Refused = "refused",
        /// This side is at a limit of its own; the origin was not asked.
        Local = "local_limit",
        /// Nobody followed any more.
        Abandoned = "abandoned",
        /// The fill's task went away without a word.
        Dropped = "dropped",
        /// This follower was slower than the minimum rate and held the others up.
        TooSlow = "too_slow",
    }
}

reasons! {
    /// Why a response is not stored.
    Uncacheable {
        /// The route has no cache.
        Off = "off",
        /// Only answers to GET are stored.
        Method = "method",
        /// The request said `no-store`.
        RequestNoStore = "request_no_store",
        /// The response said `no-store`.
        NoStore = "no_store",
        /// The response said `private`.
        Private = "private",
        /// To a request with `Authorization`, and no directive allows sharing it. RFC 9111 §3.5.
        Authorization = "authorization",
        /// It sets a cookie, and nothing says explicitly that it is for all.
        SetCookie = "set_cookie",
        /// It says neither how long it is fresh nor gives a validator to ask with.
        NoFreshness = "no_freshness",
        /// `Vary: *`, or more names than are compared.
        Vary = "vary",
        /// The request spells a field of `Vary` in another way (`X_Country`), which the origin may have read.
        FieldAlias = "field_alias",
        /// A part of something, where the whole was asked for.
        Partial = "partial",
        /// A status that may not be stored: interim, 304 to nobody's question, `must-understand` and not understood.
        Status = "status",
        /// More tags, or longer ones, than are kept: it could not be purged by all its names.
        Tags = "too_many_tags",
        /// Larger than `cache.object_max`.
        TooLarge = "too_large",
        /// Its head is larger than what is stored.
        HeadTooLarge = "head_too_large",
    }
}
