//! Messages from a server, read in place.
//!
//! **Intuition.** A pooler passes answers on unread but for a few kinds: those that say the server is free, that a
//! setting changed, that something failed, and what a login needs. The rest of the views serve the pooler's own queries.
//!
//! **Mechanism.** As [`crate::frontend`]: `parse` takes a body, checks it once, borrows from it.
//!
//! **Failure.** An [`Error`] means that the server, or whatever poses as one, is not to be believed: close it.
//!
//! Source: PostgreSQL documentation, "Message Formats" and "Error and Notice Message Fields".

use crate::Error;
use crate::fields::{self, Fields};
use crate::frontend::Format;
use crate::sqlstate::SqlState;

/// The state of a server's transaction, as ReadyForQuery tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: no transaction.
    Idle,
    /// `T`: inside a transaction.
    InTransaction,
    /// `E`: inside a failed transaction.
    Failed,
}

impl TransactionStatus {
    /// The byte on the wire.
    #[must_use]
    #[inline]
    pub const fn as_byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyForQuery {
    /// The transaction's state.
    pub status: TransactionStatus,
}

impl ReadyForQuery {
    /// # Errors
    /// [`Error::TransactionStatus`], [`Error::InsufficientData`], [`Error::MessageFormat`].
    #[inline]
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let status = match *body {
            [b'I'] => TransactionStatus::Idle,
            [b'T'] => TransactionStatus::InTransaction,
            [b'E'] => TransactionStatus::Failed,
            [other] => return Err(Error::TransactionStatus(other)),
            [] => return Err(Error::InsufficientData),
            _ => return Err(Error::MessageFormat),
        };
        Ok(Self { status })
    }
}

/// ParameterStatus: a setting's value, at login and whenever it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterStatus<'a> {
    /// The setting.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> ParameterStatus<'a> {
    /// # Errors
    /// [`Error::InvalidString`], [`Error::MessageFormat`].
    #[inline]
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let (name, value) = (fields.string()?, fields.string()?);
        fields.end()?;
        Ok(Self { name, value })
    }
}

/// ErrorResponse or NoticeResponse, which have the same fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// Checked: fields of a type byte and a string, then a NUL, then nothing.
    body: &'a [u8],
}

/// Types of fields in an ErrorResponse or NoticeResponse.
pub mod field {
    /// Severity, translated.
    pub const SEVERITY: u8 = b'S';
    /// Severity, never translated (since 9.6).
    pub const SEVERITY_PLAIN: u8 = b'V';
    /// SQLSTATE.
    pub const CODE: u8 = b'C';
    /// The message.
    pub const MESSAGE: u8 = b'M';
    /// More about it.
    pub const DETAIL: u8 = b'D';
    /// What may help.
    pub const HINT: u8 = b'H';
    /// Where in the query, counted in characters from 1.
    pub const POSITION: u8 = b'P';
    /// Where in a query of the server's own.
    pub const INTERNAL_POSITION: u8 = b'p';
    /// The text of that query.
    pub const INTERNAL_QUERY: u8 = b'q';
    /// The context: a call stack.
    pub const WHERE: u8 = b'W';
    /// The schema concerned.
    pub const SCHEMA: u8 = b's';
    /// The table concerned.
    pub const TABLE: u8 = b't';
    /// The column concerned.
    pub const COLUMN: u8 = b'c';
    /// The data type concerned.
    pub const DATA_TYPE: u8 = b'd';
    /// The constraint concerned.
    pub const CONSTRAINT: u8 = b'n';
    /// The source file.
    pub const FILE: u8 = b'F';
    /// The line in it.
    pub const LINE: u8 = b'L';
    /// The routine in it.
    pub const ROUTINE: u8 = b'R';
}

impl<'a> Report<'a> {
    /// # Errors
    /// [`Error::InvalidString`], [`Error::InsufficientData`], [`Error::MessageFormat`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        while fields.u8()? != 0 {
            fields.string()?;
        }
        fields.end()?;
        Ok(Self { body })
    }

    /// The fields in order: type byte (see [`field`]) and text.
    pub fn fields(&self) -> impl Iterator<Item = (u8, &'a [u8])> + 'a {
        let mut fields = Fields::new(self.body);
        std::iter::from_fn(move || {
            let kind = fields.u8().ok().filter(|&kind| kind != 0)?;
            Some((kind, fields.string().ok()?))
        })
    }

    /// The first field of this type.
    #[must_use]
    pub fn field(&self, kind: u8) -> Option<&'a [u8]> {
        self.fields().find(|&(found, _)| found == kind).map(|(_, text)| text)
    }

    /// SQLSTATE, if it is one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<SqlState> {
        self.field(field::CODE).and_then(SqlState::parse)
    }

    /// The severity: the one that is never translated where the server sends it. `ERROR`, `FATAL`, `PANIC`, `WARNING`,
    /// `NOTICE`, `DEBUG`, `INFO` or `LOG`.
    #[must_use]
    pub fn severity(&self) -> &'a [u8] {
        self.field(field::SEVERITY_PLAIN).or_else(|| self.field(field::SEVERITY)).unwrap_or_default()
    }

    /// Whether the server ends the connection after this.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity(), b"FATAL" | b"PANIC")
    }

    /// The message; empty if there is none.
    #[must_use]
    pub fn message(&self) -> &'a [u8] {
        self.field(field::MESSAGE).unwrap_or_default()
    }

    /// The detail.
    #[must_use]
    pub fn detail(&self) -> Option<&'a [u8]> {
        self.field(field::DETAIL)
    }

    /// The hint.
    #[must_use]
    pub fn hint(&self) -> Option<&'a [u8]> {
        self.field(field::HINT)
    }
}

/// CommandComplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandComplete<'a> {
    /// The command tag, such as `SELECT 1`, `INSERT 0 1` or `BEGIN`.
    pub tag: &'a [u8],
}

impl<'a> CommandComplete<'a> {
    /// # Errors
    /// [`Error::InvalidString`], [`Error::MessageFormat`].
    #[inline]
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let tag = fields.string()?;
        fields.end()?;
        Ok(Self { tag })
    }
}

/// BackendKeyData: what a cancel request for this session has to say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BackendKeyData<'a> {
    /// The server process.
    pub process_id: u32,
    /// The key: 4 bytes up to protocol 3.1, 4 to 256 from 3.2.
    pub key: &'a [u8],
}

impl<'a> BackendKeyData<'a> {
    /// # Errors
    /// [`Error::InsufficientData`] for a key below 4 bytes, [`Error::MessageFormat`] for one above 256.
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let process_id = fields.u32()?;
        match fields.rest() {
            key if key.len() < crate::startup::CANCEL_KEY_BYTES_MIN => Err(Error::InsufficientData),
            key if key.len() > crate::startup::CANCEL_KEY_BYTES_MAX => Err(Error::MessageFormat),
            key => Ok(Self { process_id, key }),
        }
    }
}

impl std::fmt::Debug for BackendKeyData<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "BackendKeyData({}, …)", self.process_id)
    }
}

/// Authentication: what the server asks for, or that it is satisfied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// 0: the client is in.
    Ok,
    /// 2: Kerberos V5, unsupported by any server since 9.3.
    KerberosV5,
    /// 3: the password in clear.
    CleartextPassword,
    /// 5: the password hashed with this salt.
    Md5Password {
        /// Four random bytes.
        salt: [u8; 4],
    },
    /// 7: GSSAPI.
    Gss,
    /// 8: more GSSAPI or SSPI data.
    GssContinue(&'a [u8]),
    /// 9: SSPI.
    Sspi,
    /// 10: SASL with one of these mechanisms.
    Sasl(SaslMechanisms<'a>),
    /// 11: the mechanism's next challenge.
    SaslContinue(&'a [u8]),
    /// 12: the mechanism's last message.
    SaslFinal(&'a [u8]),
}

impl<'a> Authentication<'a> {
    /// # Errors
    /// [`Error::AuthenticationRequest`] for a kind that does not exist, [`Error::InsufficientData`],
    /// [`Error::InvalidString`], [`Error::MessageFormat`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let kind = fields.u32()?;
        let rest = fields.rest();
        let request = match kind {
            8 => return Ok(Self::GssContinue(rest)),
            10 => return SaslMechanisms::parse(rest).map(Self::Sasl),
            11 => return Ok(Self::SaslContinue(rest)),
            12 => return Ok(Self::SaslFinal(rest)),
            5 => {
                let salt = *rest.first_chunk().ok_or(Error::InsufficientData)?;
                fields.bytes(salt.len())?;
                Self::Md5Password { salt }
            }
            0 => Self::Ok,
            2 => Self::KerberosV5,
            3 => Self::CleartextPassword,
            7 => Self::Gss,
            9 => Self::Sspi,
            other => return Err(Error::AuthenticationRequest(other)),
        };
        fields.end()?;
        Ok(request)
    }
}

/// The SASL mechanisms a server offers, in its order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslMechanisms<'a> {
    /// Checked: strings, then a NUL, then nothing.
    list: &'a [u8],
}

impl<'a> SaslMechanisms<'a> {
    fn parse(list: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(list);
        while !fields.string()?.is_empty() {}
        fields.end()?;
        Ok(Self { list })
    }

    /// Their names.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.list.split(|&byte| byte == 0).take_while(|name| !name.is_empty())
    }

    /// Whether this one is offered.
    #[must_use]
    pub fn offers(&self, name: &str) -> bool {
        self.iter().any(|offered| offered == name.as_bytes())
    }
}

/// NotificationResponse: a NOTIFY arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotificationResponse<'a> {
    /// The process of the session that sent it.
    pub process_id: u32,
    /// Its channel.
    pub channel: &'a [u8],
    /// Its payload, often empty.
    pub payload: &'a [u8],
}

impl<'a> NotificationResponse<'a> {
    /// # Errors
    /// [`Error::InsufficientData`], [`Error::InvalidString`], [`Error::MessageFormat`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let process_id = fields.u32()?;
        let (channel, payload) = (fields.string()?, fields.string()?);
        fields.end()?;
        Ok(Self { process_id, channel, payload })
    }
}

/// A column of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The table it comes from, or 0.
    pub table_oid: u32,
    /// The attribute number in that table, or 0.
    pub attribute: i16,
    /// Its type.
    pub type_oid: u32,
    /// `pg_type.typlen`; negative for variable widths.
    pub type_len: i16,
    /// `pg_attribute.atttypmod`.
    pub type_modifier: i32,
    /// How its values are written.
    pub format: Format,
}

impl<'a> Column<'a> {
    #[inline]
    fn read(fields: &mut Fields<'a>) -> Result<Self, Error> {
        Ok(Self {
            name: fields.string()?,
            table_oid: fields.u32()?,
            attribute: fields.i16()?,
            type_oid: fields.u32()?,
            type_len: fields.i16()?,
            type_modifier: fields.i32()?,
            format: Format::from(fields.i16()?),
        })
    }
}

/// RowDescription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowDescription<'a> {
    count: u16,
    /// Checked: exactly `count` columns.
    raw: &'a [u8],
}

impl<'a> RowDescription<'a> {
    /// # Errors
    /// [`Error::InsufficientData`], [`Error::InvalidString`], [`Error::MessageFormat`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let count = fields.u16()?;
        let raw = fields.rest();
        for _ in 0..count {
            Column::read(&mut fields)?;
        }
        fields.end()?;
        Ok(Self { count, raw })
    }

    /// How many columns there are.
    #[must_use]
    pub fn columns_count(&self) -> u16 {
        self.count
    }

    /// The columns in order.
    pub fn columns(&self) -> impl Iterator<Item = Column<'a>> + 'a {
        let mut fields = Fields::new(self.raw);
        (0..self.count).map_while(move |_| Column::read(&mut fields).ok())
    }
}

/// DataRow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataRow<'a> {
    count: u16,
    /// Checked: exactly `count` values.
    raw: &'a [u8],
}

impl<'a> DataRow<'a> {
    /// # Errors
    /// [`Error::InsufficientData`], [`Error::MessageFormat`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let count = fields.u16()?;
        let raw = fields.rest();
        for _ in 0..count {
            fields.value()?;
        }
        fields.end()?;
        Ok(Self { count, raw })
    }

    /// How many columns there are.
    #[must_use]
    pub fn columns_count(&self) -> u16 {
        self.count
    }

    /// The values in order; `None` is NULL.
    pub fn columns(&self) -> impl Iterator<Item = Option<&'a [u8]>> + 'a {
        let mut fields = Fields::new(self.raw);
        (0..self.count).map_while(move |_| fields.value().ok())
    }

    /// The value with this index, counted from 0: `None` where there is none, `Some(None)` for NULL.
    #[must_use]
    pub fn column(&self, index: u16) -> Option<Option<&'a [u8]>> {
        self.columns().nth(usize::from(index))
    }
}

/// ParameterDescription: the types of a statement's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterDescription<'a> {
    /// Four bytes each.
    raw: &'a [u8],
}

impl<'a> ParameterDescription<'a> {
    /// # Errors
    /// [`Error::InsufficientData`], [`Error::MessageFormat`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let count = fields.u16()?;
        let raw = fields.array_of(count, 4)?;
        fields.end()?;
        Ok(Self { raw })
    }

    /// The OIDs of the types.
    pub fn types(&self) -> impl ExactSizeIterator<Item = u32> + Clone + 'a {
        fields::u32s(self.raw)
    }
}

/// CopyInResponse, CopyOutResponse or CopyBothResponse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyResponse<'a> {
    /// The format of the whole: text (0) or binary (1).
    pub format: Format,
    /// Two bytes each.
    formats_raw: &'a [u8],
}

impl<'a> CopyResponse<'a> {
    /// # Errors
    /// [`Error::InsufficientData`], [`Error::MessageFormat`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let format = Format::from(i16::from(fields.u8()?));
        let count = fields.u16()?;
        let formats_raw = fields.array_of(count, 2)?;
        fields.end()?;
        Ok(Self { format, formats_raw })
    }

    /// The format of each column.
    pub fn column_formats(&self) -> impl ExactSizeIterator<Item = Format> + Clone + 'a {
        fields::i16s(self.formats_raw).map(Format::from)
    }
}

/// NegotiateProtocolVersion: the server speaks less than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiateProtocolVersion<'a> {
    /// The newest minor version the server speaks for this major version.
    pub minor: u16,
    count: u32,
    /// Checked: exactly `count` strings.
    raw: &'a [u8],
}

impl<'a> NegotiateProtocolVersion<'a> {
    /// # Errors
    /// [`Error::InsufficientData`], [`Error::InvalidString`], [`Error::MessageFormat`]; [`Error::ProtocolVersion`] for
    /// a version whose major is not 3.
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let (major, minor) = (fields.u16()?, fields.u16()?);
        // Servers before 18 sent the minor version alone, with no major above it.
        if major != 3 && major != 0 {
            return Err(Error::ProtocolVersion { major, minor });
        }
        let count = fields.u32()?;
        let raw = fields.rest();
        // Each takes a byte at least, so a count beyond the body fails before it costs anything.
        for _ in 0..count {
            fields.string()?;
        }
        fields.end()?;
        Ok(Self { minor, count, raw })
    }

    /// The `_pq_.` options that the server does not know.
    pub fn options(&self) -> impl Iterator<Item = &'a [u8]> + 'a {
        let mut fields = Fields::new(self.raw);
        (0..self.count).map_while(move |_| fields.string().ok())
    }
}
