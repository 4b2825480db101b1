//! SQLSTATE codes: five characters that drivers decide by.
//!
//! **Intuition.** A driver retries, reconnects or gives up by the code, never by the text. So every error of ours
//! carries the code PostgreSQL itself would use in that place.
//!
//! **Mechanism.** [`SqlState`] is the five bytes; the constants have PostgreSQL's names. Any other code a server sends
//! is read with [`SqlState::parse`].
//!
//! **Failure.** Five bytes that are not digits or upper-case letters are no code.
//!
//! Source: PostgreSQL documentation, appendix A; `errcodes.txt`.

use std::fmt;

/// A code of five digits or upper-case ASCII letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SqlState([u8; 5]);

impl SqlState {
    const fn new(code: &[u8; 5]) -> Self {
        Self(*code)
    }

    /// Reads a code.
    #[must_use]
    pub fn parse(code: &[u8]) -> Option<Self> {
        let code: [u8; 5] = code.try_into().ok()?;
        code.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()).then_some(Self(code))
    }

    /// The code's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("built from ASCII only")
    }

    /// The class: the first two characters.
    #[must_use]
    pub fn class(&self) -> &str {
        &self.as_str()[..2]
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SqlState({})", self.as_str())
    }
}

macro_rules! codes {
    ($($code:literal $name:ident $doc:literal;)*) => {
        $(#[doc = $doc] pub const $name: SqlState = SqlState::new($code);)*
        #[cfg(test)]
        const ALL: &[SqlState] = &[$($name),*];
    };
}

codes! {
    b"00000" SUCCESSFUL_COMPLETION "No error.";
    b"01000" WARNING "A warning.";
    b"08000" CONNECTION_EXCEPTION "Something is wrong with the connection.";
    b"08001" UNABLE_TO_CONNECT "The server could not be reached.";
    b"08003" CONNECTION_DOES_NOT_EXIST "The connection is gone.";
    b"08004" CONNECTION_REJECTED "The server refused the connection.";
    b"08006" CONNECTION_FAILURE "The connection broke.";
    b"08P01" PROTOCOL_VIOLATION "A message outside the protocol.";
    b"0A000" FEATURE_NOT_SUPPORTED "The feature is not supported.";
    b"22021" CHARACTER_NOT_IN_REPERTOIRE "Bytes that are no text of the encoding.";
    b"22023" INVALID_PARAMETER_VALUE "A parameter's value is not valid.";
    b"22P02" INVALID_TEXT_REPRESENTATION "Text that is no value of its type.";
    b"25000" INVALID_TRANSACTION_STATE "Not in this state of the transaction.";
    b"25001" ACTIVE_SQL_TRANSACTION "Not inside a transaction.";
    b"25006" READ_ONLY_SQL_TRANSACTION "A write in a read-only transaction.";
    b"25P01" NO_ACTIVE_SQL_TRANSACTION "Only inside a transaction.";
    b"25P02" IN_FAILED_SQL_TRANSACTION "The transaction has failed and waits for its end.";
    b"25P03" IDLE_IN_TRANSACTION_SESSION_TIMEOUT "Idle in a transaction for too long.";
    b"25P04" TRANSACTION_TIMEOUT "The transaction took too long.";
    b"26000" INVALID_SQL_STATEMENT_NAME "No such prepared statement.";
    b"28000" INVALID_AUTHORIZATION_SPECIFICATION "This user may not come in this way.";
    b"28P01" INVALID_PASSWORD "Password authentication failed.";
    b"34000" INVALID_CURSOR_NAME "No such portal or cursor.";
    b"3D000" INVALID_CATALOG_NAME "No such database.";
    b"3F000" INVALID_SCHEMA_NAME "No such schema.";
    b"40001" SERIALIZATION_FAILURE "The transaction may be tried again.";
    b"40P01" DEADLOCK_DETECTED "A deadlock.";
    b"42501" INSUFFICIENT_PRIVILEGE "Not allowed.";
    b"42601" SYNTAX_ERROR "Not a statement, or not an option.";
    b"42704" UNDEFINED_OBJECT "No such object or setting.";
    b"42883" UNDEFINED_FUNCTION "There is no such function.";
    b"42P03" DUPLICATE_CURSOR "There is such a cursor already.";
    b"42P05" DUPLICATE_PREPARED_STATEMENT "There is such a prepared statement already.";
    b"53000" INSUFFICIENT_RESOURCES "Out of some resource.";
    b"53200" OUT_OF_MEMORY "Out of memory.";
    b"53300" TOO_MANY_CONNECTIONS "Too many connections.";
    b"53400" CONFIGURATION_LIMIT_EXCEEDED "A configured limit is reached.";
    b"54000" PROGRAM_LIMIT_EXCEEDED "Beyond a limit of the program.";
    b"55000" OBJECT_NOT_IN_PREREQUISITE_STATE "Not in this state.";
    b"55P03" LOCK_NOT_AVAILABLE "The lock is held by another.";
    b"57000" OPERATOR_INTERVENTION "An operator stepped in.";
    b"57014" QUERY_CANCELED "The query was cancelled or took too long.";
    b"57P01" ADMIN_SHUTDOWN "The server ends the connection: shutdown or an operator.";
    b"57P02" CRASH_SHUTDOWN "The server ends the connection: another process crashed.";
    b"57P03" CANNOT_CONNECT_NOW "The server starts, stops or recovers; try again.";
    b"57P04" DATABASE_DROPPED "The database was dropped.";
    b"57P05" IDLE_SESSION_TIMEOUT "Idle for too long.";
    b"58000" SYSTEM_ERROR "The system failed below the server.";
    b"58030" IO_ERROR "Reading or writing failed.";
    b"XX000" INTERNAL_ERROR "An error that should not be.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constant_is_a_code_and_there_once() {
        for code in ALL {
            assert_eq!(SqlState::parse(code.as_str().as_bytes()), Some(*code));
        }
        assert!(ALL.windows(2).all(|pair| pair[0] < pair[1]), "sorted, so none is there twice");
    }

    #[test]
    fn other_bytes_are_no_code() {
        for bytes in [&b""[..], b"4000", b"400010", b"4000\0", b"28p01", b"\xff\xff\xff\xff\xff"] {
            assert_eq!(SqlState::parse(bytes), None, "{bytes:?}");
        }
        assert_eq!(SqlState::parse(b"57P01").map(|code| code.class().to_owned()).as_deref(), Some("57"));
    }
}
