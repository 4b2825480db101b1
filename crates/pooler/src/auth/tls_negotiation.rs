//! Agreeing with a server whether to encrypt, as libpq's `sslmode` says.
//!
//! **Intuition.** PostgreSQL's server is asked in plain text whether it speaks TLS and answers with one byte. What
//! follows from an `N`, or from a login that fails, depends on how much the user insists.
//!
//! **Mechanism.** One [`TlsNegotiation`] lives through all attempts for one server connection. [`begin`] says how a
//! fresh socket starts, [`answer`] what the server's byte means, [`retry`] whether a failed attempt is worth another
//! with the opposite choice:
//!
//! | mode | first | then |
//! |---|---|---|
//! | disable | plain | |
//! | allow | plain | encrypted, if the server refuses the plain login |
//! | prefer | encrypted if the server can, else plain | plain, if TLS or the encrypted login fails |
//! | require, verify-ca, verify-full | encrypted | |
//!
//! What a certificate must prove (nothing, its authority, its name) is up to the `rustls::ClientConfig` of the mode.
//! Unix sockets are never encrypted, whatever the mode, as in libpq.
//!
//! **Failure.** Anything but `S`, `N` or an error is not PostgreSQL. Bytes behind the answer are an attempt to smuggle
//! plain text into the encrypted stream (CVE-2021-23222): the connection must be closed, see [`TlsStep::Failed`].
//!
//! Source: PostgreSQL documentation, "SSL Session Encryption" (protocol) and "SSL Support" (libpq, table of modes).
//!
//! [`begin`]: TlsNegotiation::begin
//! [`answer`]: TlsNegotiation::answer
//! [`retry`]: TlsNegotiation::retry

use crate::config::TlsMode;

/// SSLRequest: length 8, code 1234 and 5679.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The choice of encryption for one server connection, over all its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsNegotiation {
    mode: TlsMode,
    attempt: Attempt,
    /// The other choice has been made: there is no third attempt.
    retried: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Plain,
    Encrypted,
}

/// What to do with the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsStep {
    /// Send what was written and wait for one byte.
    AwaitAnswer,
    /// Begin the TLS handshake.
    Handshake,
    /// Send the startup message unencrypted.
    Plain,
    /// Give the connection up: what to say in the log.
    Failed(&'static str),
}

impl TlsNegotiation {
    /// The choice for a server connection. `unix_socket`: encryption has no meaning and is not asked for.
    #[must_use]
    pub fn new(mode: TlsMode, unix_socket: bool) -> Self {
        let mode = if unix_socket { TlsMode::Disable } else { mode };
        let attempt = if mode <= TlsMode::Allow { Attempt::Plain } else { Attempt::Encrypted };
        Self { mode, attempt, retried: false }
    }

    /// How a socket that was just connected starts; what must be sent is appended to `out`.
    pub fn begin(&self, out: &mut Vec<u8>) -> TlsStep {
        if self.attempt == Attempt::Plain {
            return TlsStep::Plain;
        }
        out.extend_from_slice(&SSL_REQUEST);
        TlsStep::AwaitAnswer
    }

    /// What the server's answer means: all bytes that were read so far, of which there must be one.
    pub fn answer(&mut self, read: &[u8]) -> TlsStep {
        match read {
            [] => TlsStep::AwaitAnswer,
            [b'S'] => TlsStep::Handshake,
            [b'N'] if self.mode == TlsMode::Prefer && !self.retried => {
                // The same socket goes on in plain text, so the plain attempt is used up.
                (self.attempt, self.retried) = (Attempt::Plain, true);
                TlsStep::Plain
            }
            [b'N'] => TlsStep::Failed("the server does not support TLS, but it is required"),
            // Before it knows the request, a server of old or one that is full answers with an error; its text came
            // unauthenticated and is not shown, see CVE-2024-10977.
            [b'E', ..] => TlsStep::Failed("the server sent an error in reply to the request for TLS"),
            [b'S' | b'N', ..] => TlsStep::Failed("the server sent plain data behind its answer about TLS"),
            _ => TlsStep::Failed("the server's answer to the request for TLS is not PostgreSQL's"),
        }
    }

    /// Whether a connection that failed before the login was done should be tried anew, on a fresh socket, with the
    /// opposite choice: then `self` has made it.
    ///
    /// `refused`: the server answered the login with an error, as opposed to a broken handshake or connection.
    pub fn retry(&mut self, refused: bool) -> bool {
        let worth_it = match (self.mode, self.attempt) {
            (TlsMode::Allow, Attempt::Plain) => refused,
            (TlsMode::Prefer, Attempt::Encrypted) => true,
            _ => false,
        };
        if self.retried || !worth_it {
            return false;
        }
        self.retried = true;
        self.attempt = match self.attempt {
            Attempt::Plain => Attempt::Encrypted,
            Attempt::Encrypted => Attempt::Plain,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TlsMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};

    fn started(mode: TlsMode) -> (TlsNegotiation, TlsStep) {
        let negotiation = TlsNegotiation::new(mode, false);
        let mut out = Vec::new();
        let step = negotiation.begin(&mut out);
        assert_eq!(out.len(), if step == TlsStep::AwaitAnswer { 8 } else { 0 });
        (negotiation, step)
    }

    #[test]
    fn each_mode_starts_as_libpq_does() {
        for (mode, expected) in [
            (Disable, TlsStep::Plain),
            (Allow, TlsStep::Plain),
            (Prefer, TlsStep::AwaitAnswer),
            (Require, TlsStep::AwaitAnswer),
            (VerifyCa, TlsStep::AwaitAnswer),
            (VerifyFull, TlsStep::AwaitAnswer),
        ] {
            assert_eq!(started(mode).1, expected, "{mode:?}");
            assert_eq!(TlsNegotiation::new(mode, true).begin(&mut Vec::new()), TlsStep::Plain, "{mode:?}");
        }
    }

    #[test]
    fn a_no_is_taken_only_by_prefer() {
        assert_eq!(started(Prefer).0.answer(b"N"), TlsStep::Plain);
        for mode in [Require, VerifyCa, VerifyFull] {
            assert!(matches!(started(mode).0.answer(b"N"), TlsStep::Failed(_)), "{mode:?}");
        }
        // Allow came here because the plain login was refused: a no leaves nothing.
        let (mut negotiation, _) = started(Allow);
        assert!(negotiation.retry(true));
        assert!(matches!(negotiation.answer(b"N"), TlsStep::Failed(_)));
    }

    #[test]
    fn only_one_byte_is_an_answer() {
        for mode in [Prefer, Require] {
            assert_eq!(started(mode).0.answer(b"S"), TlsStep::Handshake);
            assert_eq!(started(mode).0.answer(b""), TlsStep::AwaitAnswer);
            for hostile in [&b"SE"[..], b"NE", b"E\0\0\0\x20", b"HTTP/1.1 400", b"\x15", b"s", b"\0"] {
                assert!(matches!(started(mode).0.answer(hostile), TlsStep::Failed(_)), "{hostile:?}");
            }
        }
    }

    #[test]
    fn a_failed_attempt_is_repeated_once_with_the_opposite_choice() {
        for (mode, refused, expected) in [
            (Disable, true, None),
            (Allow, false, None),
            (Allow, true, Some(TlsStep::AwaitAnswer)),
            (Prefer, true, Some(TlsStep::Plain)),
            (Prefer, false, Some(TlsStep::Plain)),
            (Require, true, None),
            (VerifyFull, false, None),
        ] {
            let (mut negotiation, _) = started(mode);
            let retried = negotiation.retry(refused).then(|| negotiation.begin(&mut Vec::new()));
            assert_eq!(retried, expected, "{mode:?} {refused}");
            if expected.is_some() {
                assert!(!negotiation.retry(true), "{mode:?}: no third attempt");
            }
        }
        let (mut negotiation, _) = started(Prefer);
        assert_eq!(negotiation.answer(b"N"), TlsStep::Plain);
        assert!(!negotiation.retry(true), "plain was tried already");
    }
}
