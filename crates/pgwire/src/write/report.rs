//! ErrorResponse and NoticeResponse.
//!
//! **Intuition.** An error of ours should read like one of PostgreSQL's: severity, code, one sentence, and where it
//! helps a detail and a hint.
//!
//! **Mechanism.** [`Report`] is filled like a form and appended as either message.
//!
//! **Failure.** None but those of [`crate::write`].

use super::message::{build, string};
use crate::backend::field;
use crate::frame::backend as tag;
use crate::sqlstate::SqlState;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The session ends.
    Fatal,
    /// All sessions end.
    Panic,
    /// Probably not meant.
    Warning,
    /// Worth knowing.
    Notice,
    /// For developers.
    Debug,
    /// Asked for.
    Info,
    /// For the log.
    Log,
}

impl Severity {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Panic => "PANIC",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Log => "LOG",
        }
    }
}

/// An error or notice to be sent.
///
/// ```
/// use tenfold_pgwire::{sqlstate, write::Report};
///
/// let mut out = Vec::new();
/// Report::fatal(sqlstate::TOO_MANY_CONNECTIONS, "sorry, too many clients already").append_error(&mut out);
/// assert_eq!(out[0], b'E');
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it has to be appended to a buffer"]
pub struct Report<'a> {
    /// How bad it is.
    pub severity: Severity,
    /// What a driver decides by.
    pub code: SqlState,
    /// One sentence, without a full stop.
    pub message: &'a str,
    /// More about it, in whole sentences.
    pub detail: Option<&'a str>,
    /// What may help, in whole sentences.
    pub hint: Option<&'a str>,
    /// Fields beyond these: type bytes of [`field`] and texts.
    pub others: &'a [(u8, &'a str)],
}

impl<'a> Report<'a> {
    /// A report of this severity with nothing but a code and a message.
    pub const fn new(severity: Severity, code: SqlState, message: &'a str) -> Self {
        Self { severity, code, message, detail: None, hint: None, others: &[] }
    }

    /// The statement failed, the session goes on.
    pub const fn error(code: SqlState, message: &'a str) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// The session ends.
    pub const fn fatal(code: SqlState, message: &'a str) -> Self {
        Self::new(Severity::Fatal, code, message)
    }

    /// The same with a detail.
    pub const fn with_detail(self, detail: &'a str) -> Self {
        Self { detail: Some(detail), ..self }
    }

    /// The same with a hint.
    pub const fn with_hint(self, hint: &'a str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// Appends an ErrorResponse.
    pub fn append_error(&self, out: &mut Vec<u8>) {
        self.append(out, tag::ERROR_RESPONSE);
    }

    /// Appends a NoticeResponse.
    pub fn append_notice(&self, out: &mut Vec<u8>) {
        self.append(out, tag::NOTICE_RESPONSE);
    }

    fn append(&self, out: &mut Vec<u8>, tag: u8) {
        let severity = self.severity.as_str();
        let known = [
            (field::SEVERITY, Some(severity)),
            (field::SEVERITY_PLAIN, Some(severity)),
            (field::CODE, Some(self.code.as_str())),
            (field::MESSAGE, Some(self.message)),
            (field::DETAIL, self.detail),
            (field::HINT, self.hint),
        ];
        let known = known.into_iter().filter_map(|(kind, text)| Some((kind, text?)));
        build(out, tag, |out| {
            // A type byte of 0 would end the message early.
            for (kind, text) in known.chain(self.others.iter().copied()).filter(|&(kind, _)| kind != 0) {
                out.push(kind);
                string(out, text.as_bytes());
            }
            out.push(0);
        });
    }
}
