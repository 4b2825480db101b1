//! Messages that servers send, for what a pooler answers by itself.
//!
//! **Intuition.** A login, the console's tables, the completions of messages that were answered without a server.
//! **Mechanism.** One function per message; CopyData and CopyDone are the same in both directions.
//! **Failure.** None but those of [`crate::write`].
//!
//! Source: PostgreSQL documentation, "Message Formats".

use super::frontend::format;
use super::message::{build, header, list, string, string_len, value};
use crate::backend::{Column, TransactionStatus};
use crate::frame::backend as tag;
use crate::frontend::Format;
use crate::startup::VERSION_MAJOR;

/// AuthenticationOk.
pub fn authentication_ok(out: &mut Vec<u8>) {
    authentication(out, 0, &[]);
}

/// AuthenticationCleartextPassword.
pub fn authentication_cleartext_password(out: &mut Vec<u8>) {
    authentication(out, 3, &[]);
}

/// AuthenticationMD5Password.
pub fn authentication_md5_password(out: &mut Vec<u8>, salt: [u8; 4]) {
    authentication(out, 5, &salt);
}

/// AuthenticationSASL, offering these mechanisms in order.
pub fn authentication_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    build(out, tag::AUTHENTICATION, |out| {
        out.extend_from_slice(&10_u32.to_be_bytes());
        mechanisms.iter().for_each(|name| string(out, name.as_bytes()));
        out.push(0);
    });
}

/// AuthenticationSASLContinue.
pub fn authentication_sasl_continue(out: &mut Vec<u8>, message: &[u8]) {
    authentication(out, 11, message);
}

/// AuthenticationSASLFinal.
pub fn authentication_sasl_final(out: &mut Vec<u8>, message: &[u8]) {
    authentication(out, 12, message);
}

fn authentication(out: &mut Vec<u8>, kind: u32, rest: &[u8]) {
    header(out, tag::AUTHENTICATION, 4 + rest.len());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(rest);
}

/// BackendKeyData: 4 bytes of key up to protocol 3.1, 4 to 256 from 3.2.
pub fn backend_key_data(out: &mut Vec<u8>, process_id: u32, key: &[u8]) {
    header(out, tag::BACKEND_KEY_DATA, 4 + key.len());
    out.extend_from_slice(&process_id.to_be_bytes());
    out.extend_from_slice(key);
}

/// ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    header(out, tag::PARAMETER_STATUS, string_len(name) + string_len(value));
    string(out, name);
    string(out, value);
}

/// NegotiateProtocolVersion: the minor version we will speak, and the `_pq_.` options we do not know.
pub fn negotiate_protocol_version<'a>(
    out: &mut Vec<u8>,
    minor: u16,
    options: impl IntoIterator<Item = &'a [u8]>,
) {
    build(out, tag::NEGOTIATE_PROTOCOL_VERSION, |out| {
        out.extend_from_slice(&VERSION_MAJOR.to_be_bytes());
        out.extend_from_slice(&minor.to_be_bytes());
        // A count of 32 bits: a list's, behind two zero bytes.
        out.extend_from_slice(&[0; 2]);
        list(out, options, string);
    });
}

/// ReadyForQuery.
#[inline]
pub fn ready_for_query(out: &mut Vec<u8>, status: TransactionStatus) {
    header(out, tag::READY_FOR_QUERY, 1);
    out.push(status.as_byte());
}

/// ParseComplete.
#[inline]
pub fn parse_complete(out: &mut Vec<u8>) {
    header(out, tag::PARSE_COMPLETE, 0);
}

/// BindComplete.
#[inline]
pub fn bind_complete(out: &mut Vec<u8>) {
    header(out, tag::BIND_COMPLETE, 0);
}

/// NoData.
#[inline]
pub fn no_data(out: &mut Vec<u8>) {
    header(out, tag::NO_DATA, 0);
}

/// CloseComplete.
#[inline]
pub fn close_complete(out: &mut Vec<u8>) {
    header(out, tag::CLOSE_COMPLETE, 0);
}

/// CommandComplete with a command tag such as `SELECT 1`.
pub fn command_complete(out: &mut Vec<u8>, command: &[u8]) {
    header(out, tag::COMMAND_COMPLETE, string_len(command));
    string(out, command);
}

/// EmptyQueryResponse.
pub fn empty_query_response(out: &mut Vec<u8>) {
    header(out, tag::EMPTY_QUERY_RESPONSE, 0);
}

/// ParameterDescription.
pub fn parameter_description(out: &mut Vec<u8>, types: impl IntoIterator<Item = u32>) {
    build(out, tag::PARAMETER_DESCRIPTION, |out| {
        list(out, types, |out, oid| out.extend_from_slice(&oid.to_be_bytes()));
    });
}

/// RowDescription.
pub fn row_description<'a>(out: &mut Vec<u8>, columns: impl IntoIterator<Item = Column<'a>>) {
    build(out, tag::ROW_DESCRIPTION, |out| {
        list(out, columns, |out, column| {
            string(out, column.name);
            out.extend_from_slice(&column.table_oid.to_be_bytes());
            out.extend_from_slice(&column.attribute.to_be_bytes());
            out.extend_from_slice(&column.type_oid.to_be_bytes());
            out.extend_from_slice(&column.type_len.to_be_bytes());
            out.extend_from_slice(&column.type_modifier.to_be_bytes());
            format(out, column.format);
        });
    });
}

/// DataRow; `None` is NULL.
pub fn data_row<'a>(out: &mut Vec<u8>, values: impl IntoIterator<Item = Option<&'a [u8]>>) {
    build(out, tag::DATA_ROW, |out| list(out, values, value));
}

/// FunctionCallResponse; `None` is NULL.
pub fn function_call_response(out: &mut Vec<u8>, result: Option<&[u8]>) {
    build(out, tag::FUNCTION_CALL_RESPONSE, |out| value(out, result));
}

/// NotificationResponse.
pub fn notification_response(out: &mut Vec<u8>, process_id: u32, channel: &[u8], payload: &[u8]) {
    header(out, tag::NOTIFICATION_RESPONSE, 4 + string_len(channel) + string_len(payload));
    out.extend_from_slice(&process_id.to_be_bytes());
    string(out, channel);
    string(out, payload);
}

/// CopyInResponse: the client shall send; the whole and each column in one format.
pub fn copy_in_response(out: &mut Vec<u8>, format: Format, columns: u16) {
    copy_response(out, tag::COPY_IN_RESPONSE, format, columns);
}

/// CopyOutResponse: the server sends; the whole and each column in one format.
pub fn copy_out_response(out: &mut Vec<u8>, format: Format, columns: u16) {
    copy_response(out, tag::COPY_OUT_RESPONSE, format, columns);
}

/// CopyBothResponse: both send, as in replication; the whole and each column in one format.
pub fn copy_both_response(out: &mut Vec<u8>, format: Format, columns: u16) {
    copy_response(out, tag::COPY_BOTH_RESPONSE, format, columns);
}

fn copy_response(out: &mut Vec<u8>, tag: u8, of: Format, columns: u16) {
    build(out, tag, |out| {
        let [_, low] = of.code().to_be_bytes();
        out.push(low);
        list(out, (0..columns).map(|_| of), format);
    });
}

/// CopyData, of either side.
pub fn copy_data(out: &mut Vec<u8>, piece: &[u8]) {
    header(out, tag::COPY_DATA, piece.len());
    out.extend_from_slice(piece);
}

/// CopyDone, of either side.
pub fn copy_done(out: &mut Vec<u8>) {
    header(out, tag::COPY_DONE, 0);
}
