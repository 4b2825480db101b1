//! Messages from a client, read in place.
//!
//! **Intuition.** Of what clients send a pooler looks into few messages, and into those often. Each view borrows from
//! the buffer the bytes arrived in and is checked once, so that its accessors cannot fail.
//!
//! **Mechanism.** `parse` takes the body of a message (what follows the length word) and checks it as PostgreSQL does:
//! lengths within the message, strings ended, nothing left over. The `rewrite_*` functions append the same message with
//! another statement name to a buffer; they read no more of it than the names, since the server checks the rest anyway.
//!
//! **Failure.** An [`Error`] with PostgreSQL's words; the message's end is still known, so the caller may go on behind
//! it. Nothing is appended to `out` on an error.
//!
//! Source: PostgreSQL documentation, "Message Formats"; `exec_bind_message` and its siblings in `postgres.c`.

use crate::Error;
use crate::fields::{self, Fields};
use crate::frame::frontend as tag;
use crate::write::message;

/// Query: SQL for the simple protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// One or more statements, in the client's encoding.
    pub sql: &'a [u8],
}

impl<'a> Query<'a> {
    /// # Errors
    /// [`Error::InvalidString`], [`Error::MessageFormat`].
    #[inline]
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        only_string(body).map(|sql| Self { sql })
    }
}

/// Parse: prepare a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The statement's name; empty for the unnamed one.
    pub name: &'a [u8],
    /// One statement, in the client's encoding.
    pub sql: &'a [u8],
    /// The OIDs of parameter types as they came: four bytes each, big-endian.
    pub param_types_raw: &'a [u8],
}

impl<'a> Parse<'a> {
    /// # Errors
    /// [`Error::InvalidString`], [`Error::InsufficientData`], [`Error::MessageFormat`].
    #[expect(clippy::self_named_constructors, reason = "every view has `parse`; this message is named Parse")]
    #[inline]
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let (name, sql) = (fields.string()?, fields.string()?);
        let count = fields.u16()?;
        let param_types_raw = fields.array_of(count, 4)?;
        fields.end()?;
        Ok(Self { name, sql, param_types_raw })
    }

    /// The OIDs of parameter types; 0 where the server shall infer one.
    #[inline]
    pub fn param_types(&self) -> impl ExactSizeIterator<Item = u32> + Clone + 'a {
        fields::u32s(self.param_types_raw)
    }
}

/// How a value is written: as text or in its type's binary form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Code 0.
    Text,
    /// Code 1.
    Binary,
    /// Any other code; the server refuses it.
    Other(i16),
}

impl Format {
    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            Self::Text => 0,
            Self::Binary => 1,
            Self::Other(code) => code,
        }
    }
}

impl From<i16> for Format {
    fn from(code: i16) -> Self {
        match code {
            0 => Self::Text,
            1 => Self::Binary,
            code => Self::Other(code),
        }
    }
}

/// Bind: parameters for a statement, making a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal's name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The statement's name; empty for the unnamed one.
    pub statement: &'a [u8],
    /// Formats of parameters: none, one for all, or one each. Two bytes each.
    param_formats_raw: &'a [u8],
    params_count: u16,
    /// Exactly `params_count` values with their lengths.
    params_raw: &'a [u8],
    /// Formats of result columns: none, one for all, or one each. Two bytes each.
    result_formats_raw: &'a [u8],
}

impl<'a> Bind<'a> {
    /// Walks the whole message; the cost grows with the number of parameters, not their size.
    ///
    /// # Errors
    /// [`Error::InvalidString`], [`Error::InsufficientData`], [`Error::ParameterFormats`], [`Error::MessageFormat`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let (portal, statement) = (fields.string()?, fields.string()?);
        let formats = fields.u16()?;
        let param_formats_raw = fields.array_of(formats, 2)?;
        let params_count = fields.u16()?;
        if formats > 1 && formats != params_count {
            return Err(Error::ParameterFormats { formats, params: params_count });
        }
        let from_params = fields.rest();
        for _ in 0..params_count {
            fields.value()?;
        }
        let params_len = from_params.len() - fields.rest().len();
        let params_raw = from_params.get(..params_len).unwrap_or_default();
        let results = fields.u16()?;
        let result_formats_raw = fields.array_of(results, 2)?;
        fields.end()?;
        Ok(Self { portal, statement, param_formats_raw, params_count, params_raw, result_formats_raw })
    }

    /// How many parameters there are.
    #[must_use]
    #[inline]
    pub fn params_count(&self) -> u16 {
        self.params_count
    }

    /// The parameters in order; `None` is NULL.
    #[inline]
    pub fn params(&self) -> impl Iterator<Item = Option<&'a [u8]>> + 'a {
        let mut fields = Fields::new(self.params_raw);
        (0..self.params_count).map_while(move |_| fields.value().ok())
    }

    /// The parameter with this index, counted from 0: `None` where there is none, `Some(None)` for NULL.
    #[must_use]
    pub fn param(&self, index: u16) -> Option<Option<&'a [u8]>> {
        self.params().nth(usize::from(index))
    }

    /// The format of the parameter with this index, counted from 0.
    #[must_use]
    pub fn param_format(&self, index: u16) -> Format {
        let mut formats = fields::i16s(self.param_formats_raw);
        let code = if formats.len() == 1 { formats.next() } else { formats.nth(usize::from(index)) };
        code.map_or(Format::Text, Format::from)
    }

    /// The formats of result columns as they came: none for all text, one for all columns, or one each.
    pub fn result_formats(&self) -> impl ExactSizeIterator<Item = Format> + Clone + 'a {
        fields::i16s(self.result_formats_raw).map(Format::from)
    }
}

/// The names at the beginning of a Bind, which are all that routing and renaming need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindNames<'a> {
    /// The portal's name.
    pub portal: &'a [u8],
    /// The statement's name.
    pub statement: &'a [u8],
}

impl<'a> BindNames<'a> {
    /// Reads the names from a body or its beginning; `None` while they are not whole.
    #[must_use]
    #[inline]
    pub fn peek(body: &'a [u8]) -> Option<Self> {
        let mut fields = Fields::new(body);
        let portal = fields.string().ok()?;
        let statement = fields.string().ok()?;
        Some(Self { portal, statement })
    }

    /// Bytes they take at the beginning of the body, with their NULs.
    #[must_use]
    #[inline]
    pub fn len_in_body(&self) -> usize {
        self.portal.len() + self.statement.len() + 2
    }
}

/// What a Describe or Close is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A prepared statement of this name.
    Statement(&'a [u8]),
    /// A portal of this name.
    Portal(&'a [u8]),
}

impl<'a> Target<'a> {
    #[inline]
    fn parse(body: &'a [u8], refuse: fn(u8) -> Error) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let kind = fields.u8()?;
        let name = fields.string()?;
        fields.end()?;
        match kind {
            b'S' => Ok(Self::Statement(name)),
            b'P' => Ok(Self::Portal(name)),
            kind => Err(refuse(kind)),
        }
    }
}

/// Describe: asks for parameter types and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Describe<'a> {
    /// What to describe.
    pub target: Target<'a>,
}

impl<'a> Describe<'a> {
    /// # Errors
    /// [`Error::DescribeSubtype`], [`Error::InvalidString`], [`Error::InsufficientData`], [`Error::MessageFormat`].
    #[inline]
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        Target::parse(body, Error::DescribeSubtype).map(|target| Self { target })
    }
}

/// Close: forgets a statement or portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// What to close.
    pub target: Target<'a>,
}

impl<'a> Close<'a> {
    /// # Errors
    /// [`Error::CloseSubtype`], [`Error::InvalidString`], [`Error::InsufficientData`], [`Error::MessageFormat`].
    #[inline]
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        Target::parse(body, Error::CloseSubtype).map(|target| Self { target })
    }
}

/// Execute: runs a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execute<'a> {
    /// The portal's name.
    pub portal: &'a [u8],
    /// At most this many rows; 0 and less for all.
    pub rows_max: i32,
}

impl<'a> Execute<'a> {
    /// # Errors
    /// [`Error::InvalidString`], [`Error::InsufficientData`], [`Error::MessageFormat`].
    #[inline]
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let portal = fields.string()?;
        let rows_max = fields.i32()?;
        fields.end()?;
        Ok(Self { portal, rows_max })
    }
}

/// FunctionCall: which function; the arguments are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionCall {
    /// The function's OID.
    pub oid: u32,
}

impl FunctionCall {
    /// # Errors
    /// [`Error::InsufficientData`].
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        Fields::new(body).u32().map(|oid| Self { oid })
    }
}

/// CopyFail: the client gives up a COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyFail<'a> {
    /// Why.
    pub message: &'a [u8],
}

impl<'a> CopyFail<'a> {
    /// # Errors
    /// [`Error::InvalidString`], [`Error::MessageFormat`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        only_string(body).map(|message| Self { message })
    }
}

/// PasswordMessage: a password in clear, or an md5 response.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PasswordMessage<'a> {
    /// The password, which may be empty.
    pub password: &'a [u8],
}

impl<'a> PasswordMessage<'a> {
    /// # Errors
    /// [`Error::PasswordPacket`] unless the message is one string to its end.
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        only_string(body).map(|password| Self { password }).map_err(|_| Error::PasswordPacket)
    }
}

impl std::fmt::Debug for PasswordMessage<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PasswordMessage(…)")
    }
}

/// SASLInitialResponse: the mechanism chosen and its first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    /// The mechanism's name.
    pub mechanism: &'a [u8],
    /// The mechanism's first message; `None` where the client sends none.
    pub initial: Option<&'a [u8]>,
}

impl<'a> SaslInitialResponse<'a> {
    /// # Errors
    /// [`Error::InvalidString`], [`Error::InsufficientData`], [`Error::MessageFormat`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let mechanism = fields.string()?;
        let initial = fields.value()?;
        fields.end()?;
        Ok(Self { mechanism, initial })
    }
}

/// SASLResponse: a later message of the mechanism, which is the whole body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslResponse<'a> {
    /// The mechanism's message.
    pub message: &'a [u8],
}

impl<'a> SaslResponse<'a> {
    /// Any bytes will do; the mechanism looks into them.
    #[must_use]
    pub fn parse(body: &'a [u8]) -> Self {
        Self { message: body }
    }
}

/// Appends a Bind with this body but another statement name.
///
/// # Errors
/// [`Error::InvalidString`]; nothing is appended then.
#[inline]
pub fn rewrite_bind(body: &[u8], statement: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let names = BindNames::peek(body).ok_or(Error::InvalidString)?;
    let rest = body.get(names.len_in_body()..).unwrap_or_default();
    bind_beginning(names.portal, statement, rest.len(), out);
    out.extend_from_slice(rest);
    Ok(())
}

/// Appends the beginning of a Bind up to and with its names. `rest_len` bytes of the body must follow, which lets a big
/// message be renamed while it streams through.
#[inline]
pub fn bind_beginning(portal: &[u8], statement: &[u8], rest_len: usize, out: &mut Vec<u8>) {
    let body_len = message::string_len(portal) + message::string_len(statement) + rest_len;
    message::header(out, tag::BIND, body_len);
    message::string(out, portal);
    message::string(out, statement);
}

/// Appends a Parse with this body but another statement name.
///
/// # Errors
/// [`Error::InvalidString`]; nothing is appended then.
#[inline]
pub fn rewrite_parse(body: &[u8], statement: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let mut fields = Fields::new(body);
    fields.string()?;
    let rest = fields.rest();
    message::header(out, tag::PARSE, message::string_len(statement) + rest.len());
    message::string(out, statement);
    out.extend_from_slice(rest);
    Ok(())
}

/// Appends a Describe with this body but another name if it is about a statement; one about a portal stays as it is.
///
/// # Errors
/// As [`Describe::parse`]; nothing is appended then.
#[inline]
pub fn rewrite_describe(body: &[u8], statement: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let target = match Describe::parse(body)?.target {
        Target::Statement(_) => Target::Statement(statement),
        portal @ Target::Portal(_) => portal,
    };
    crate::write::describe(out, target);
    Ok(())
}

/// Appends a Close with this body but another name if it is about a statement; one about a portal stays as it is.
///
/// # Errors
/// As [`Close::parse`]; nothing is appended then.
#[inline]
pub fn rewrite_close(body: &[u8], statement: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let target = match Close::parse(body)?.target {
        Target::Statement(_) => Target::Statement(statement),
        portal @ Target::Portal(_) => portal,
    };
    crate::write::close(out, target);
    Ok(())
}

#[inline]
fn only_string(body: &[u8]) -> Result<&[u8], Error> {
    let mut fields = Fields::new(body);
    let string = fields.string()?;
    fields.end()?;
    Ok(string)
}
