//! Every way in which a message can be refused: one variant, one status, one label each.

use thiserror::Error as ThisError;

/// Why a message was refused. The connection it came on must be closed.
///
/// The text is for the log; [`Error::reason`] is the metric's label; [`Error::status`] is what a server answers. When
/// the message was an origin's response, the status to answer is 502 whatever `status` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// The method is empty, too long, or holds a byte that no token has. Also what a TLS hello looks like.
    #[error("the method is not a token")]
    InvalidMethod,
    /// The target is empty, holds a space, control, non-ASCII byte or `#`, or has none of the four forms.
    #[error("the request target is not valid")]
    InvalidTarget,
    /// The target is longer than `target_bytes_max`.
    #[error("the request target is too long")]
    TargetTooLong,
    /// `*` with a method other than OPTIONS, `host:port` with one other than CONNECT, or CONNECT with another form.
    #[error("this form of request target does not go with the method")]
    TargetFormMismatch,
    /// The absolute target's scheme is neither `http` nor `https`.
    #[error("the scheme of the request target is not http or https")]
    UnsupportedScheme,
    /// The version is not `HTTP/` digit `.` digit.
    #[error("the HTTP version is malformed")]
    InvalidVersion,
    /// A well-formed version whose major is not 1.
    #[error("the HTTP major version is not supported")]
    UnsupportedVersion,
    /// A start line that does not begin like one, or a status line in which something other than a space follows.
    #[error("the status line is malformed")]
    InvalidStatusLine,
    /// The status is not three digits in 100..=599.
    #[error("the status code is not valid")]
    InvalidStatus,
    /// LF without CR, or CR without LF.
    #[error("a line does not end in CRLF")]
    BareLineEnd,
    /// A field line that begins with whitespace: obsolete folding, or whitespace before the first field.
    #[error("a field line begins with whitespace")]
    FoldedField,
    /// The field's name is empty or holds a byte that no token has.
    #[error("a field name is not a token")]
    InvalidFieldName,
    /// Whitespace in or behind a field's name.
    #[error("whitespace between field name and colon")]
    SpaceBeforeColon,
    /// A control character in a field value.
    #[error("a field value holds a control character")]
    InvalidFieldValue,
    /// One field line is longer than `line_bytes_max`.
    #[error("a field line is too long")]
    FieldTooLong,
    /// More field lines than `fields_max`.
    #[error("too many fields")]
    TooManyFields,
    /// The head is longer than `head_bytes_max`.
    #[error("the head is too long")]
    HeadTooLong,
    /// HTTP/1.1 without Host.
    #[error("Host is missing")]
    MissingHost,
    /// More than one Host line.
    #[error("Host is given more than once")]
    DuplicateHost,
    /// Host is not `uri-host [":" port]`, or is empty.
    #[error("Host is not valid")]
    InvalidHost,
    /// The target's authority is not `uri-host [":" port]`, is empty, or has userinfo.
    #[error("the authority of the request target is not valid")]
    InvalidAuthority,
    /// The target's authority names another host than Host does.
    #[error("the request target and Host disagree")]
    HostMismatch,
    /// Content-Length is not plain digits, or above 2^64 - 1.
    #[error("Content-Length is not a number")]
    InvalidContentLength,
    /// More than one Content-Length line, equal or not.
    #[error("Content-Length is given more than once")]
    DuplicateContentLength,
    /// Both Content-Length and Transfer-Encoding: the classic way to smuggle.
    #[error("both Transfer-Encoding and Content-Length")]
    ConflictingLength,
    /// Transfer-Encoding whose last coding is not `chunked`, or whose list is malformed.
    #[error("Transfer-Encoding does not end in chunked")]
    InvalidTransferEncoding,
    /// More than one Transfer-Encoding line.
    #[error("Transfer-Encoding is given more than once")]
    DuplicateTransferEncoding,
    /// Another transfer coding before the final `chunked`.
    #[error("transfer coding is not supported")]
    UnsupportedTransferCoding,
    /// Transfer-Encoding in an HTTP/1.0 message.
    #[error("Transfer-Encoding in HTTP/1.0")]
    TransferEncodingInHttp10,
    /// A length where none may be: in CONNECT, or in a 1xx response.
    #[error("a body where none may be")]
    UnexpectedBody,
    /// Connection holds something that is not a token, or more tokens than any sane peer sends.
    #[error("Connection is not a list of tokens")]
    InvalidConnection,
    /// Expect asks for something other than `100-continue`.
    #[error("expectation is not supported")]
    UnsupportedExpectation,
    /// The chunk size is empty, not hexadecimal, or not followed by CRLF or an extension.
    #[error("the chunk size is not valid")]
    InvalidChunkSize,
    /// The chunk size does not fit 64 bits.
    #[error("the chunk size is too large")]
    ChunkSizeOverflow,
    /// A chunk extension outside its grammar.
    #[error("a chunk extension is not valid")]
    InvalidChunkExtension,
    /// A chunk's line is longer than `chunk_line_bytes_max`, or all extensions than `chunk_extension_bytes_max`.
    #[error("chunk extensions are too long")]
    ChunkExtensionTooLong,
    /// A chunk's data is not followed by CRLF.
    #[error("the chunk does not end where its size says")]
    InvalidChunkEnd,
    /// A trailer line outside the grammar of fields.
    #[error("a trailer field is not valid")]
    InvalidTrailer,
    /// The trailer section is longer than `trailer_bytes_max`.
    #[error("the trailers are too long")]
    TrailersTooLong,
    /// The peer closed before the body had ended.
    #[error("the connection closed before the body's end")]
    Truncated,
    /// Writing: a method, target, name or value that would not come back as one, or a chunk of no bytes.
    #[error("refused to write bytes that would split the message")]
    UnsafeToWrite,
}

impl Error {
    /// The status a server answers with before it closes.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::UnsupportedExpectation => 417,
            Self::FieldTooLong | Self::TooManyFields | Self::HeadTooLong | Self::TrailersTooLong => 431,
            Self::UnsafeToWrite => 500,
            Self::UnsupportedTransferCoding => 501,
            Self::UnsupportedVersion => 505,
            _ => 400,
        }
    }

    /// A stable label for metrics, logs and `Tenfold-Reason`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::InvalidMethod => "invalid_method",
            Self::InvalidTarget => "invalid_target",
            Self::TargetTooLong => "target_too_long",
            Self::TargetFormMismatch => "target_form_mismatch",
            Self::UnsupportedScheme => "unsupported_scheme",
            Self::InvalidVersion => "invalid_version",
            Self::UnsupportedVersion => "unsupported_version",
            Self::InvalidStatusLine => "invalid_status_line",
            Self::InvalidStatus => "invalid_status",
            Self::BareLineEnd => "bare_line_end",
            Self::FoldedField => "folded_field",
            Self::InvalidFieldName => "invalid_field_name",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::InvalidFieldValue => "invalid_field_value",
            Self::FieldTooLong => "field_too_long",
            Self::TooManyFields => "too_many_fields",
            Self::HeadTooLong => "head_too_long",
            Self::MissingHost => "missing_host",
            Self::DuplicateHost => "duplicate_host",
            Self::InvalidHost => "invalid_host",
            Self::InvalidAuthority => "invalid_authority",
            Self::HostMismatch => "host_mismatch",
            Self::InvalidContentLength => "invalid_content_length",
            Self::DuplicateContentLength => "duplicate_content_length",
            Self::ConflictingLength => "conflicting_length",
            Self::InvalidTransferEncoding => "invalid_transfer_encoding",
            Self::DuplicateTransferEncoding => "duplicate_transfer_encoding",
            Self::UnsupportedTransferCoding => "unsupported_transfer_coding",
            Self::TransferEncodingInHttp10 => "transfer_encoding_in_http10",
            Self::UnexpectedBody => "unexpected_body",
            Self::InvalidConnection => "invalid_connection",
            Self::UnsupportedExpectation => "unsupported_expectation",
            Self::InvalidChunkSize => "invalid_chunk_size",
            Self::ChunkSizeOverflow => "chunk_size_overflow",
            Self::InvalidChunkExtension => "invalid_chunk_extension",
            Self::ChunkExtensionTooLong => "chunk_extension_too_long",
            Self::InvalidChunkEnd => "invalid_chunk_end",
            Self::InvalidTrailer => "invalid_trailer",
            Self::TrailersTooLong => "trailers_too_long",
            Self::Truncated => "truncated",
            Self::UnsafeToWrite => "unsafe_to_write",
        }
    }
}
