//! Which failed attempts may be repeated at all.
//!
//! **Intuition.** A payment must not be made twice because a cable was. An attempt may be repeated only if no node can
//! have acted on it, or if acting twice is the same as acting once.
//!
//! **Mechanism.** A pure function of what is known about the attempt. Nothing sent: repeat. Something sent: repeat only an
//! idempotent method whose body is still at hand. Anything of the response passed on: never.
//!
//! **Failure.** Whatever is uncertain counts against repeating: a write into a connection that turns out to be dead counts
//! as sent, because the kernel's buffer may have reached the node before the reset came back.
//!
//! Source: RFC 9110 §9.2.2 (idempotent methods), RFC 9112 §9.3.1 (retrying requests).

/// What is known about an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The method is idempotent: see [`is_idempotent`].
    pub is_idempotent: bool,
    /// The body can be sent again: there is none, or all of it is kept.
    pub body_is_replayable: bool,
    /// How much of the request can have reached the node.
    pub sent: Sent,
    /// A byte of a final response has arrived. (Interim 1xx responses don't count, but whoever sends one has read the
    /// request's head.)
    pub response_has_started: bool,
}

/// How much of a request can have reached a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Surely nothing: the connection was never made, or the node said that it did not look at the request.
    Nothing,
    /// Anything else, including a write into a connection that was found dead afterwards.
    Possibly,
}

/// True if the attempt may be repeated on another node, budget permitting.
#[must_use]
pub fn may_retry(attempt: &Attempt) -> bool {
    if attempt.response_has_started {
        return false;
    }
    match attempt.sent {
        Sent::Nothing => true,
        Sent::Possibly => attempt.is_idempotent && attempt.body_is_replayable,
    }
}

/// True for the methods that RFC 9110 §9.2.2 defines as idempotent. Methods are case-sensitive; an unknown one is not.
#[must_use]
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_act_twice_is_repeated() {
        fn check(is_idempotent: bool, body_is_replayable: bool, sent: Sent, started: bool, expected: bool) {
            let attempt = Attempt { is_idempotent, body_is_replayable, sent, response_has_started: started };
            assert_eq!(may_retry(&attempt), expected, "{attempt:?}");
        }
        //     idempotent replayable sent          started  may retry
        check(true, true, Sent::Nothing, false, true);
        check(true, false, Sent::Nothing, false, true);
        check(false, true, Sent::Nothing, false, true);
        check(false, false, Sent::Nothing, false, true);
        check(true, true, Sent::Possibly, false, true);
        check(true, false, Sent::Possibly, false, false);
        check(false, true, Sent::Possibly, false, false);
        check(false, false, Sent::Possibly, false, false);
        for sent in [Sent::Nothing, Sent::Possibly] {
            for (is_idempotent, body_is_replayable) in
                [(true, true), (true, false), (false, true), (false, false)]
            {
                check(is_idempotent, body_is_replayable, sent, true, false);
            }
        }
    }

    #[test]
    fn methods_are_as_the_rfc_says() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(is_idempotent(method), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "PURGE", "get", ""] {
            assert!(!is_idempotent(method), "{method}");
        }
    }
}
