//! What must hold of PostgreSQL's messages for any bytes whatever.
//!
//! **Intuition.** Nothing panics; bytes that come in pieces mean what they mean at once; no view reads past its message;
//! and what was read can be written again to the same bytes, so that whoever reads a message after us sees what we saw.
//!
//! **Mechanism.** Each function checks the laws of one parser on one input. The fuzz targets call them with made-up
//! bytes, the tests of the crate with the corpora.
//!
//! **Failure.** A broken law is a failed assertion that names the message.

#![allow(dead_code, reason = "each fuzz target uses one of these")]

use tenfold_pgwire::Error;
use tenfold_pgwire::backend::{
    Authentication, BackendKeyData, CommandComplete, CopyResponse, DataRow, NegotiateProtocolVersion,
    NotificationResponse, ParameterDescription, ParameterStatus, ReadyForQuery, Report, RowDescription,
};
use tenfold_pgwire::frame::{self, Frame, Frames, Header, backend, frontend};
use tenfold_pgwire::frontend::{
    Bind, BindNames, Close, CopyFail, Describe, Execute, Format, FunctionCall, Parse, PasswordMessage, Query,
    SaslInitialResponse, SaslResponse, Target, bind_beginning, rewrite_bind, rewrite_close, rewrite_describe,
    rewrite_parse,
};
use tenfold_pgwire::startup::{self, Initial, Startup, VERSION_MINOR_LATEST, options};
use tenfold_pgwire::write::{self, message};

/// A corpus entry beyond this tells nothing that a shorter one doesn't.
const INPUT_BYTES_MAX: usize = 64 * 1024;
const OTHER_NAME: &[u8] = b"tenfold_0123456789abcdef";

/// Laws of the packets a connection opens with.
pub(crate) fn startup(input: &[u8]) {
    let input = &input[..input.len().min(INPUT_BYTES_MAX)];
    let whole = Initial::parse(input);
    let decided_at = whole.map_or(input.len(), |found| found.map_or(input.len(), |(_, len)| len));
    for len in [0, 1, 3, 4, 7, 8, 9, decided_at.saturating_sub(1), input.len() / 2] {
        let piece = Initial::parse(&input[..len.min(input.len())]);
        assert!(matches!(piece, Ok(None)) || piece == whole, "{len}: {piece:?}, {whole:?}");
    }
    if let Ok(Some((initial, len))) = whole {
        assert_eq!(Initial::parse(&input[..len.max(1)]), whole);
        packet_reads_back(&initial, &input[..len]);
    }
    options_read_back(input);
}

fn packet_reads_back(initial: &Initial<'_>, packet: &[u8]) {
    let mut out = Vec::new();
    match initial {
        Initial::TlsHello => {}
        Initial::SslRequest => startup::append_ssl_request(&mut out),
        Initial::GssEncRequest => startup::append_gssenc_request(&mut out),
        Initial::Cancel(cancel) => startup::append_cancel(&mut out, cancel.process_id, cancel.key),
        Initial::Startup(found) => {
            startup::append_startup(&mut out, found.minor, found.params());
            parameters_are_sound(found);
            options_read_back(found.options);
        }
    }
    assert_eq!(out, packet, "{initial:?}");
}

fn parameters_are_sound(found: &Startup<'_>) {
    assert!(!found.user.is_empty());
    assert!(found.database.is_empty() == (found.replication == startup::Replication::Physical));
    let own = |name: &[u8]| matches!(name, b"user" | b"database" | b"options" | b"replication");
    let others = found.params().filter(|(name, _)| own(name)).count();
    assert_eq!(found.params().count(), others + found.settings().count() + found.protocol_options().count());
    let negotiated = found.negotiation(VERSION_MINOR_LATEST);
    assert!(negotiated.is_none_or(|minor| minor <= found.minor && minor <= VERSION_MINOR_LATEST));
    assert!(negotiated.is_some() || found.minor <= VERSION_MINOR_LATEST);
}

fn options_read_back(text: &[u8]) {
    let Ok(settings) = options::settings(text) else { return };
    let mut written = Vec::new();
    settings.iter().for_each(|(name, value)| options::append(&mut written, name, value));
    assert_eq!(options::settings(&written), Ok(settings));
}

/// Laws of what clients send.
pub(crate) fn from_client(input: &[u8]) {
    let input = &input[..input.len().min(INPUT_BYTES_MAX)];
    frames_are_sound(input, |held| Frames::of_frontend(held), frame::frontend_header);
    for found in Frames::new(input).map_while(Result::ok) {
        let body = found.body();
        read_all_client_views(body);
        if frame::frontend_header(found.bytes).is_ok() {
            let mut out = Vec::new();
            if let Some(rewritten) = rewrite_client(&found, &mut out) {
                assert_eq!(out, found.bytes, "{rewritten}");
            }
        }
    }
    read_all_client_views(input);
    renaming_keeps_the_rest(input);
}

/// Whatever the tag says, any view may be tried on any body.
fn read_all_client_views(body: &[u8]) {
    if let Ok(bind) = Bind::parse(body) {
        bind_is_sound(&bind, body);
    }
    if let Ok(parse) = Parse::parse(body) {
        assert_eq!(parse.param_types().len() * 4, parse.param_types_raw.len());
        assert_eq!(parse.name.len() + parse.sql.len() + parse.param_types_raw.len() + 4, body.len());
    }
    let _ = (Query::parse(body), Describe::parse(body), Close::parse(body), Execute::parse(body));
    let _ = (FunctionCall::parse(body), CopyFail::parse(body), PasswordMessage::parse(body));
    let _ = (SaslInitialResponse::parse(body), SaslResponse::parse(body));
}

fn bind_is_sound(bind: &Bind<'_>, body: &[u8]) {
    let count = bind.params_count();
    assert_eq!(bind.params().count(), usize::from(count));
    let bytes: usize = bind.params().map(|value| value.map_or(0, <[u8]>::len)).sum();
    assert!(bytes + 4 * usize::from(count) <= body.len());
    for index in [0, 1, count / 2, count.saturating_sub(1)] {
        assert_eq!(bind.param(index), bind.params().nth(usize::from(index)));
        let _ = bind.param_format(index);
    }
    assert_eq!((bind.param(count), bind.result_formats().len() * 2 <= body.len()), (None, true));
    let names = BindNames::peek(body).expect("a whole Bind has its names");
    assert_eq!((names.portal, names.statement), (bind.portal, bind.statement));
}

/// Writes the message again; says which it was, or `None` if no view reads it.
fn rewrite_client(found: &Frame<'_>, out: &mut Vec<u8>) -> Option<&'static str> {
    let body = found.body();
    match found.tag {
        frontend::QUERY => write::query(out, Query::parse(body).ok()?.sql),
        frontend::PARSE => {
            let parse = Parse::parse(body).ok()?;
            write::parse_raw(out, parse.name, parse.sql, parse.param_types_raw);
        }
        frontend::BIND => rewrite_bind(body, Bind::parse(body).ok()?.statement, out).ok()?,
        frontend::DESCRIBE => write::describe(out, Describe::parse(body).ok()?.target),
        frontend::CLOSE => write::close(out, Close::parse(body).ok()?.target),
        frontend::EXECUTE => {
            let execute = Execute::parse(body).ok()?;
            write::execute(out, execute.portal, execute.rows_max);
        }
        frontend::COPY_DATA => write::copy_data(out, body),
        frontend::COPY_FAIL => write::copy_fail(out, CopyFail::parse(body).ok()?.message),
        frontend::PASSWORD => {
            if let Ok(found) = PasswordMessage::parse(body) {
                write::password(&mut *out, found.password);
                assert_eq!(out[frame::HEADER_BYTES..], *body);
                out.clear();
            }
            write::sasl_response(out, SaslResponse::parse(body).message);
        }
        _ => return None,
    }
    Some("the message written again")
}

/// Renaming a statement changes the name and nothing else.
fn renaming_keeps_the_rest(body: &[u8]) {
    let mut out = Vec::new();
    if let Ok(bind) = Bind::parse(body) {
        rewrite_bind(body, OTHER_NAME, &mut out).expect("it has been read");
        let renamed = Bind::parse(renamed_body(&out)).expect("it has been written");
        assert_eq!((renamed.portal, renamed.statement), (bind.portal, OTHER_NAME));
        assert!(renamed.params().eq(bind.params()) && renamed.result_formats().eq(bind.result_formats()));
        let rest = BindNames { portal: bind.portal, statement: bind.statement }.len_in_body();
        let mut streamed = Vec::new();
        bind_beginning(bind.portal, OTHER_NAME, body.len() - rest, &mut streamed);
        streamed.extend_from_slice(&body[rest..]);
        assert_eq!(streamed, out);
    }
    out.clear();
    if let Ok(parse) = Parse::parse(body) {
        rewrite_parse(body, OTHER_NAME, &mut out).expect("it has been read");
        assert_eq!(Parse::parse(renamed_body(&out)), Ok(Parse { name: OTHER_NAME, ..parse }));
    }
    out.clear();
    if let Ok(describe) = Describe::parse(body) {
        rewrite_describe(body, OTHER_NAME, &mut out).expect("it has been read");
        let target = renamed_target(describe.target);
        assert_eq!(Describe::parse(renamed_body(&out)), Ok(Describe { target }));
    }
    out.clear();
    if let Ok(close) = Close::parse(body) {
        rewrite_close(body, OTHER_NAME, &mut out).expect("it has been read");
        assert_eq!(Close::parse(renamed_body(&out)), Ok(Close { target: renamed_target(close.target) }));
    }
}

fn renamed_target(target: Target<'_>) -> Target<'_> {
    if matches!(target, Target::Statement(_)) { Target::Statement(OTHER_NAME) } else { target }
}

fn renamed_body(out: &[u8]) -> &[u8] {
    let mut frames = Frames::of_frontend(out);
    let found = frames.next().expect("a whole message").expect("a good header");
    assert!(frames.remaining().is_empty());
    found.body()
}

/// Laws of what servers send.
pub(crate) fn from_server(input: &[u8]) {
    let input = &input[..input.len().min(INPUT_BYTES_MAX)];
    frames_are_sound(input, |held| Frames::new(held), frame::header);
    for found in Frames::new(input).map_while(Result::ok) {
        let mut out = Vec::new();
        if rewrite_server(&found, &mut out).is_some() {
            assert_eq!(out, found.bytes, "{:?}", char::from(found.tag));
        }
    }
    // Whatever the tag says, any view may be tried on any body.
    for tag in (0..=u8::MAX).filter(|&tag| frame::is_backend_tag(tag)) {
        let mut bytes = Vec::new();
        message::build(&mut bytes, tag, |out| out.extend_from_slice(input));
        rewrite_server(&Frame { tag, bytes: &bytes }, &mut Vec::new());
    }
}

/// Writes the message again; `None` if its view refuses it or it has a form that we read and don't write.
fn rewrite_server(found: &Frame<'_>, out: &mut Vec<u8>) -> Option<()> {
    let body = found.body();
    match found.tag {
        backend::READY_FOR_QUERY => write::ready_for_query(out, ReadyForQuery::parse(body).ok()?.status),
        backend::PARAMETER_STATUS => {
            let found = ParameterStatus::parse(body).ok()?;
            write::parameter_status(out, found.name, found.value);
        }
        backend::ERROR_RESPONSE | backend::NOTICE_RESPONSE => {
            let report = Report::parse(body).ok()?;
            let _ = (report.sqlstate(), report.severity(), report.is_fatal(), report.message());
            let _ = (report.detail(), report.hint());
            message::build(out, found.tag, |out| {
                report.fields().for_each(|(kind, text)| {
                    out.push(kind);
                    message::string(out, text);
                });
                out.push(0);
            });
        }
        backend::COMMAND_COMPLETE => write::command_complete(out, CommandComplete::parse(body).ok()?.tag),
        backend::BACKEND_KEY_DATA => {
            let found = BackendKeyData::parse(body).ok()?;
            write::backend_key_data(out, found.process_id, found.key);
        }
        backend::AUTHENTICATION => rewrite_authentication(Authentication::parse(body).ok()?, out)?,
        backend::NOTIFICATION_RESPONSE => {
            let found = NotificationResponse::parse(body).ok()?;
            write::notification_response(out, found.process_id, found.channel, found.payload);
        }
        backend::ROW_DESCRIPTION => {
            let found = RowDescription::parse(body).ok()?;
            assert_eq!(found.columns().count(), usize::from(found.columns_count()));
            write::row_description(out, found.columns());
        }
        backend::DATA_ROW => {
            let found = DataRow::parse(body).ok()?;
            assert_eq!(found.columns().count(), usize::from(found.columns_count()));
            assert_eq!(found.column(1), found.columns().nth(1));
            write::data_row(out, found.columns());
        }
        backend::PARAMETER_DESCRIPTION => {
            write::parameter_description(out, ParameterDescription::parse(body).ok()?.types());
        }
        backend::NEGOTIATE_PROTOCOL_VERSION => rewrite_negotiation(body, out)?,
        backend::COPY_IN_RESPONSE | backend::COPY_OUT_RESPONSE | backend::COPY_BOTH_RESPONSE => {
            rewrite_copy_response(found, out)?;
        }
        _ => return None,
    }
    Some(())
}

fn rewrite_authentication(found: Authentication<'_>, out: &mut Vec<u8>) -> Option<()> {
    match found {
        Authentication::Ok => write::authentication_ok(out),
        Authentication::CleartextPassword => write::authentication_cleartext_password(out),
        Authentication::Md5Password { salt } => write::authentication_md5_password(out, salt),
        Authentication::SaslContinue(message) => write::authentication_sasl_continue(out, message),
        Authentication::SaslFinal(message) => write::authentication_sasl_final(out, message),
        Authentication::Sasl(offered) => {
            let names: Option<Vec<&str>> =
                offered.iter().map(|name| std::str::from_utf8(name).ok()).collect();
            let names = names?;
            assert!(names.iter().all(|name| offered.offers(name)));
            write::authentication_sasl(out, &names);
        }
        _ => return None,
    }
    Some(())
}

fn rewrite_negotiation(body: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let found = NegotiateProtocolVersion::parse(body).ok()?;
    let count = found.options().count();
    assert!(count <= body.len());
    // Servers before 18 leave the major version out, and no more than 65,535 options are written.
    if body[..2] != [0, 3] || count > usize::from(u16::MAX) {
        return None;
    }
    write::negotiate_protocol_version(out, found.minor, found.options());
    Some(())
}

fn rewrite_copy_response(found: &Frame<'_>, out: &mut Vec<u8>) -> Option<()> {
    let copy = CopyResponse::parse(found.body()).ok()?;
    if matches!(copy.format, Format::Other(_)) || copy.column_formats().any(|format| format != copy.format) {
        return None;
    }
    let columns = u16::try_from(copy.column_formats().len()).expect("its count has 16 bits");
    match found.tag {
        backend::COPY_IN_RESPONSE => write::copy_in_response(out, copy.format, columns),
        backend::COPY_OUT_RESPONSE => write::copy_out_response(out, copy.format, columns),
        _ => write::copy_both_response(out, copy.format, columns),
    }
    Some(())
}

/// Frames cover the input in order without a gap, and come out the same however the bytes arrive.
fn frames_are_sound(
    input: &[u8],
    frames_of: fn(&[u8]) -> Frames<'_>,
    header_of: fn(&[u8]) -> Result<Option<Header>, Error>,
) {
    let mut frames = frames_of(input);
    let mut covered = Vec::new();
    let mut end = Ok(());
    for found in frames.by_ref() {
        match found {
            Ok(found) => covered.push(found.bytes),
            Err(error) => end = Err(error),
        }
    }
    assert_eq!([&covered.concat(), frames.remaining()].concat(), input);
    assert_eq!(frames.consumed(), input.len() - frames.remaining().len());
    assert_eq!(header_of(frames.remaining()), end.map(|()| frames.partial()));
    assert!(frames.partial().is_none_or(|header| header.len > frames.remaining().len()));
    for step in [1, 3, 7, 4096] {
        let mut held: Vec<u8> = Vec::new();
        let mut seen = Vec::new();
        for piece in input.chunks(step) {
            held.extend_from_slice(piece);
            let mut frames = frames_of(&held);
            seen.extend(frames.by_ref().map_while(Result::ok).map(|found| found.bytes.to_vec()));
            let consumed = frames.consumed();
            held.drain(..consumed);
            // An error stays where it is; pieces behind it would only make the check slow.
            if header_of(&held).is_err() || held.len() > 4096 + step {
                break;
            }
        }
        assert!(seen.iter().eq(covered.iter().take(seen.len())), "in steps of {step}");
        assert!(held.len() > 4096 || seen.len() == covered.len(), "in steps of {step}");
    }
}
