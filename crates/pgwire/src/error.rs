//! Every way in which a peer's bytes can be refused: one variant, one text, one SQLSTATE.
//!
//! **Intuition.** A client that breaks the protocol should see the words PostgreSQL would have used, since that is what
//! its authors will search for. So the texts here are PostgreSQL's.
//!
//! **Mechanism.** `Display` is the message for an ErrorResponse, [`Error::detail`] and [`Error::hint`] its other
//! fields, [`Error::sqlstate`] its code.
//!
//! **Failure.** After a frame error the position in the stream is unknown: answer FATAL and close. After a field error
//! in a well-framed message PostgreSQL answers ERROR and goes on; [`Error::is_fatal`] tells them apart.

use thiserror::Error as ThisError;

use crate::sqlstate::{self, SqlState};

/// Why bytes from a peer were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// A length word below 4, or above what this tag may have.
    #[error("invalid message length")]
    MessageLength {
        /// The message's tag.
        tag: u8,
        /// The length word, as unsigned.
        length: u32,
    },
    /// A tag that no client message has.
    #[error("invalid frontend message type {0}")]
    FrontendTag(u8),
    /// A tag that no server message has.
    #[error("unexpected message type {0:#04x} from server")]
    BackendTag(u8),
    /// A field runs past the end of its message, or a length is negative.
    #[error("insufficient data left in message")]
    InsufficientData,
    /// A string without its NUL.
    #[error("invalid string in message")]
    InvalidString,
    /// Bytes left behind the last field.
    #[error("invalid message format")]
    MessageFormat,
    /// Bind: neither none, one, nor as many formats as parameters.
    #[error("bind message has {formats} parameter formats but {params} parameters")]
    ParameterFormats {
        /// Formats in the message.
        formats: u16,
        /// Parameters in the message.
        params: u16,
    },
    /// Describe of neither `S` nor `P`.
    #[error("invalid DESCRIBE message subtype {0}")]
    DescribeSubtype(u8),
    /// Close of neither `S` nor `P`.
    #[error("invalid CLOSE message subtype {0}")]
    CloseSubtype(u8),
    /// A password that is not one string over the whole message.
    #[error("invalid password packet size")]
    PasswordPacket,
    /// A transaction state other than `I`, `T`, `E`.
    #[error("invalid transaction status {0:#04x} from server")]
    TransactionStatus(u8),
    /// An authentication request of a kind that does not exist.
    #[error("authentication method {0} not supported")]
    AuthenticationRequest(u32),

    /// A startup packet's length is not within 8 and 10,004.
    #[error("invalid length of startup packet")]
    StartupLength,
    /// A cancel request whose key is not of 4 to 256 bytes.
    #[error("invalid length of cancel request packet")]
    CancelLength,
    /// A protocol version other than 3.
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2")]
    ProtocolVersion {
        /// The upper half of the version.
        major: u16,
        /// The lower half of the version.
        minor: u16,
    },
    /// The parameters of a startup packet are not pairs of strings up to a last NUL.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    StartupLayout,
    /// A startup packet without a user.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// `replication` is neither a boolean nor `database`.
    #[error("invalid value for parameter \"replication\"")]
    Replication,
    /// A word in `options` that is no setting; [`crate::startup::options::Refused`] has it.
    #[error("invalid command-line argument for server process")]
    OptionUnknown,
    /// A setting in `options` without `=`.
    #[error("-c and -- in \"options\" require a value")]
    OptionWithoutValue,

    /// A SASL mechanism other than those offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    SaslMechanism,
    /// As a client: the server offers no SASL mechanism that we know.
    #[error("none of the server's SASL authentication mechanisms are supported")]
    SaslUnsupported,
    /// A SCRAM message outside RFC 5802's grammar; the text is PostgreSQL's detail.
    #[error("malformed SCRAM message")]
    ScramMalformed(&'static str),
    /// A SCRAM message that asks for what no server of PostgreSQL does: an authorization identity, a mandatory
    /// extension, a channel binding other than `tls-server-end-point`.
    #[error("{0}")]
    ScramUnsupported(&'static str),
    /// The client thinks that we offered no channel binding, and we did: someone between us stripped the offer.
    #[error("SCRAM channel binding negotiation error")]
    ScramDowngrade,
    /// The client is bound to another TLS channel than ours.
    #[error("SCRAM channel binding check failed")]
    ScramBinding,
    /// The nonce is not the one of this exchange.
    #[error("invalid SCRAM response")]
    ScramNonce,
    /// The proof does not fit: a wrong password, or a user there is not.
    #[error("password authentication failed")]
    ScramProof,
    /// As a client: the server asks for more hashing than [`crate::scram::ITERATIONS_MAX`], or none.
    #[error("SCRAM iteration count {0} from server is out of range")]
    ScramIterations(u32),
    /// As a client: the server reported an error in its last message.
    #[error("server refused the SCRAM exchange")]
    ScramRefused,
    /// As a client: the server does not know the password either.
    #[error("incorrect server signature")]
    ScramSignature,
    /// A stored secret of no known form, or a damaged one.
    #[error("stored secret is not valid")]
    StoredSecret,
}

impl Error {
    /// The code to answer with.
    #[must_use]
    pub const fn sqlstate(self) -> SqlState {
        match self {
            Self::ProtocolVersion { .. } | Self::ScramUnsupported(_) => sqlstate::FEATURE_NOT_SUPPORTED,
            Self::NoUser | Self::ScramBinding | Self::ScramDowngrade => {
                sqlstate::INVALID_AUTHORIZATION_SPECIFICATION
            }
            Self::Replication => sqlstate::INVALID_PARAMETER_VALUE,
            Self::OptionUnknown | Self::OptionWithoutValue => sqlstate::SYNTAX_ERROR,
            Self::ScramProof => sqlstate::INVALID_PASSWORD,
            Self::StoredSecret => sqlstate::INTERNAL_ERROR,
            _ => sqlstate::PROTOCOL_VIOLATION,
        }
    }

    /// More for the DETAIL field, where PostgreSQL gives one.
    #[must_use]
    pub const fn detail(self) -> Option<&'static str> {
        match self {
            Self::ScramMalformed(detail) => Some(detail),
            Self::ScramNonce => Some("Nonce does not match."),
            Self::ScramDowngrade => Some(
                "The client supports SCRAM channel binding but thinks the server does not. However, this server \
                 does support channel binding.",
            ),
            _ => None,
        }
    }

    /// What the HINT field says, where PostgreSQL gives one.
    #[must_use]
    pub const fn hint(self) -> Option<&'static str> {
        match self {
            Self::Replication => Some("Valid values are: \"false\", 0, \"true\", 1, \"database\"."),
            Self::OptionUnknown => Some("Try \"postgres --help\" for more information."),
            _ => None,
        }
    }

    /// Whether the connection cannot go on: all but a bad field in a message whose end is known, which a client after
    /// its login may survive.
    #[must_use]
    pub const fn is_fatal(self) -> bool {
        !matches!(
            self,
            Self::InsufficientData
                | Self::InvalidString
                | Self::MessageFormat
                | Self::ParameterFormats { .. }
                | Self::DescribeSubtype(_)
                | Self::CloseSubtype(_)
        )
    }
}
