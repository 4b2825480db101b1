//! Messages that clients send, for our own queries and logins to servers.
//!
//! **Intuition.** What a driver would send, and no more.
//! **Mechanism.** One function per message; the startup packets, which have no tag, are in [`crate::startup`].
//! **Failure.** None but those of [`crate::write`].
//!
//! Source: PostgreSQL documentation, "Message Formats".

use super::message::{build, header, list, string, string_len, value};
use crate::frame::frontend as tag;
use crate::frontend::{Format, Target};

/// Query: SQL for the simple protocol.
#[inline]
pub fn query(out: &mut Vec<u8>, sql: &[u8]) {
    header(out, tag::QUERY, string_len(sql));
    string(out, sql);
}

/// Parse: prepares `sql` under `name`, with these parameter type OIDs (0: infer).
pub fn parse(out: &mut Vec<u8>, name: &[u8], sql: &[u8], param_types: impl IntoIterator<Item = u32>) {
    build(out, tag::PARSE, |out| {
        string(out, name);
        string(out, sql);
        list(out, param_types, |out, oid| out.extend_from_slice(&oid.to_be_bytes()));
    });
}

/// Parse with parameter types as [`crate::frontend::Parse::param_types_raw`] has them; a last odd one is cut off.
pub fn parse_raw(out: &mut Vec<u8>, name: &[u8], sql: &[u8], param_types_raw: &[u8]) {
    parse(out, name, sql, crate::fields::u32s(param_types_raw));
}

/// Bind: all parameters in one format, all results in one.
pub fn bind<'a>(
    out: &mut Vec<u8>,
    portal: &[u8],
    statement: &[u8],
    params_format: Format,
    params: impl IntoIterator<Item = Option<&'a [u8]>>,
    results_format: Format,
) {
    build(out, tag::BIND, |out| {
        string(out, portal);
        string(out, statement);
        list(out, [params_format], format);
        list(out, params, value);
        list(out, [results_format], format);
    });
}

/// Describe a statement or portal.
pub fn describe(out: &mut Vec<u8>, of: Target<'_>) {
    target(out, tag::DESCRIBE, of);
}

/// Close a statement or portal.
#[inline]
pub fn close(out: &mut Vec<u8>, of: Target<'_>) {
    target(out, tag::CLOSE, of);
}

#[inline]
fn target(out: &mut Vec<u8>, tag: u8, of: Target<'_>) {
    let (kind, name) = match of {
        Target::Statement(name) => (b'S', name),
        Target::Portal(name) => (b'P', name),
    };
    header(out, tag, 1 + string_len(name));
    out.push(kind);
    string(out, name);
}

/// Execute a portal for at most `rows_max` rows, or all for 0.
pub fn execute(out: &mut Vec<u8>, portal: &[u8], rows_max: i32) {
    header(out, tag::EXECUTE, string_len(portal) + 4);
    string(out, portal);
    out.extend_from_slice(&rows_max.to_be_bytes());
}

/// Sync.
#[inline]
pub fn sync(out: &mut Vec<u8>) {
    header(out, tag::SYNC, 0);
}

/// Flush.
#[inline]
pub fn flush(out: &mut Vec<u8>) {
    header(out, tag::FLUSH, 0);
}

/// Terminate.
pub fn terminate(out: &mut Vec<u8>) {
    header(out, tag::TERMINATE, 0);
}

/// FunctionCall with all arguments and the result in one format.
pub fn function_call<'a>(
    out: &mut Vec<u8>,
    oid: u32,
    arguments_format: Format,
    arguments: impl IntoIterator<Item = Option<&'a [u8]>>,
    result_format: Format,
) {
    build(out, tag::FUNCTION_CALL, |out| {
        out.extend_from_slice(&oid.to_be_bytes());
        list(out, [arguments_format], format);
        list(out, arguments, value);
        format(out, result_format);
    });
}

/// CopyFail with a reason.
pub fn copy_fail(out: &mut Vec<u8>, message: &[u8]) {
    header(out, tag::COPY_FAIL, string_len(message));
    string(out, message);
}

/// PasswordMessage: a password in clear, or an md5 response.
pub fn password(out: &mut Vec<u8>, password: &[u8]) {
    header(out, tag::PASSWORD, string_len(password));
    string(out, password);
}

/// SASLInitialResponse.
pub fn sasl_initial_response(out: &mut Vec<u8>, mechanism: &str, initial: Option<&[u8]>) {
    build(out, tag::PASSWORD, |out| {
        string(out, mechanism.as_bytes());
        value(out, initial);
    });
}

/// SASLResponse.
pub fn sasl_response(out: &mut Vec<u8>, message: &[u8]) {
    header(out, tag::PASSWORD, message.len());
    out.extend_from_slice(message);
}

/// Appends a format code.
pub(super) fn format(out: &mut Vec<u8>, format: Format) {
    out.extend_from_slice(&format.code().to_be_bytes());
}
