//! What clients send: what each view accepts, and how it refuses.

use tenfold_pgwire::Error;
use tenfold_pgwire::frontend::{
    Bind, BindNames, Close, CopyFail, Describe, Execute, Format, FunctionCall, Parse, PasswordMessage, Query,
    SaslInitialResponse, SaslResponse, Target, rewrite_bind, rewrite_close, rewrite_describe, rewrite_parse,
};
use tenfold_pgwire::write;

/// Each body, and its refusal.
fn refuses<'a, T: std::fmt::Debug>(parse: fn(&'a [u8]) -> Result<T, Error>, table: &[(&'a [u8], Error)]) {
    for &(body, error) in table {
        assert_eq!(parse(body).map_err(Some).expect_err("refused"), Some(error), "{body:?}");
    }
}

#[test]
fn a_query_is_one_string() {
    assert_eq!(Query::parse(b"SELECT 1\0"), Ok(Query { sql: b"SELECT 1" }));
    assert_eq!(Query::parse(b"\0"), Ok(Query { sql: b"" }));
    refuses(
        Query::parse,
        &[
            (b"", Error::InvalidString),
            (b"SELECT 1", Error::InvalidString),
            (b"SELECT 1\0;\0", Error::MessageFormat),
            (b"\0\0", Error::MessageFormat),
        ],
    );
}

#[test]
fn a_parse_has_name_text_and_types() {
    let parse = Parse::parse(b"s1\0SELECT $1\0\0\x02\0\0\0\x17\0\0\0\0").expect("good");
    assert_eq!((parse.name, parse.sql), (&b"s1"[..], &b"SELECT $1"[..]));
    assert_eq!(parse.param_types().collect::<Vec<_>>(), [23, 0]);
    refuses(
        Parse::parse,
        &[
            (b"", Error::InvalidString),
            (b"s1\0SELECT", Error::InvalidString),
            (b"s1\0SELECT\0", Error::InsufficientData),
            (b"s1\0SELECT\0\0", Error::InsufficientData),
            (b"s1\0SELECT\0\0\x01\0\0\0", Error::InsufficientData),
            (b"s1\0SELECT\0\xff\xff\0\0\0\0", Error::InsufficientData),
            (b"s1\0SELECT\0\0\0\0", Error::MessageFormat),
        ],
    );
}

/// Two parameters, the second NULL; one format for both; one for results.
const BIND: &[u8] = b"portal\0s1\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x01\0\0";

#[test]
fn a_bind_gives_each_parameter_and_its_format() {
    let bind = Bind::parse(BIND).expect("good");
    assert_eq!((bind.portal, bind.statement, bind.params_count()), (&b"portal"[..], &b"s1"[..], 2));
    assert_eq!((bind.param(0), bind.param(1), bind.param(2)), (Some(Some(&b"ab"[..])), Some(None), None));
    assert_eq!((bind.param_format(0), bind.param_format(1)), (Format::Binary, Format::Binary));
    assert_eq!(bind.result_formats().collect::<Vec<_>>(), [Format::Text]);

    let each = Bind::parse(b"\0\0\0\x02\0\0\0\x01\0\x02\0\0\0\0\0\0\0\x01x\0\0").expect("good");
    assert_eq!((each.param_format(0), each.param_format(1)), (Format::Text, Format::Binary));
    assert_eq!(each.params().collect::<Vec<_>>(), [Some(&b""[..]), Some(b"x")]);

    let none = Bind::parse(b"\0\0\0\0\0\0\0\0").expect("good");
    assert_eq!((none.param(0), none.param_format(0), none.result_formats().len()), (None, Format::Text, 0));
}

#[test]
fn a_bind_that_lies_about_lengths_is_refused() {
    refuses(
        Bind::parse,
        &[
            (b"", Error::InvalidString),
            (b"\0", Error::InvalidString),
            (b"\0\0", Error::InsufficientData),
            (b"\0\0\0\x01\0", Error::InsufficientData),
            (b"\0\0\xff\xff\0\0\0\0", Error::InsufficientData),
            (b"\0\0\0\x02\0\0\0\0\0\x01\0\0\0\0\0\0", Error::ParameterFormats { formats: 2, params: 1 }),
            (b"\0\0\0\x02\0\0\0\0\0\0\0\0", Error::ParameterFormats { formats: 2, params: 0 }),
            (b"\0\0\0\0\0\x01", Error::InsufficientData),
            (b"\0\0\0\0\xff\xff\0\0\0\0\0\0", Error::InsufficientData),
            (b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0", Error::InsufficientData),
            (b"\0\0\0\0\0\x01\x80\0\0\0\0\0", Error::InsufficientData),
            (b"\0\0\0\0\0\x01\x3f\xff\xff\xfe\0\0", Error::InsufficientData),
            (b"\0\0\0\0\0\x01\0\0\0\x05ab\0\0", Error::InsufficientData),
            (b"\0\0\0\0\0\0\0\x01", Error::InsufficientData),
            (b"\0\0\0\0\0\0\0\0\0", Error::MessageFormat),
        ],
    );
}

#[test]
fn describe_and_close_name_a_statement_or_a_portal() {
    assert_eq!(Describe::parse(b"Ss1\0"), Ok(Describe { target: Target::Statement(b"s1") }));
    assert_eq!(Describe::parse(b"P\0"), Ok(Describe { target: Target::Portal(b"") }));
    assert_eq!(Close::parse(b"S\0"), Ok(Close { target: Target::Statement(b"") }));
    assert_eq!(Close::parse(b"Pp\0"), Ok(Close { target: Target::Portal(b"p") }));
    let table: [(&[u8], Error); 4] = [
        (b"", Error::InsufficientData),
        (b"S", Error::InvalidString),
        (b"Ss1", Error::InvalidString),
        (b"Ss1\0\0", Error::MessageFormat),
    ];
    refuses(Describe::parse, &table);
    refuses(Close::parse, &table);
    refuses(Describe::parse, &[(b"Xs1\0", Error::DescribeSubtype(b'X'))]);
    refuses(Close::parse, &[(b"\0s1\0", Error::CloseSubtype(0))]);
}

#[test]
fn the_small_messages_are_read() {
    assert_eq!(Execute::parse(b"p\0\0\0\0\x0a"), Ok(Execute { portal: b"p", rows_max: 10 }));
    assert_eq!(Execute::parse(b"\0\xff\xff\xff\xff"), Ok(Execute { portal: b"", rows_max: -1 }));
    refuses(
        Execute::parse,
        &[
            (b"p", Error::InvalidString),
            (b"p\0\0\0", Error::InsufficientData),
            (b"p\0\0\0\0\0\0", Error::MessageFormat),
        ],
    );
    assert_eq!(FunctionCall::parse(b"\0\0\x04\xd2\0\0"), Ok(FunctionCall { oid: 1234 }));
    refuses(FunctionCall::parse, &[(b"\0\0\0", Error::InsufficientData)]);
    assert_eq!(CopyFail::parse(b"no\0"), Ok(CopyFail { message: b"no" }));
    refuses(CopyFail::parse, &[(b"no", Error::InvalidString), (b"no\0\0", Error::MessageFormat)]);
}

#[test]
fn passwords_and_sasl_are_read() {
    assert_eq!(PasswordMessage::parse(b"open\0").map(|found| found.password), Ok(&b"open"[..]));
    assert_eq!(PasswordMessage::parse(b"\0").map(|found| found.password), Ok(&b""[..]));
    let bad = Error::PasswordPacket;
    refuses(PasswordMessage::parse, &[(b"", bad), (b"open", bad), (b"o\0pen\0", bad), (b"open\0\0", bad)]);

    let initial = SaslInitialResponse::parse(b"SCRAM-SHA-256\0\0\0\0\x03n,,").expect("good");
    assert_eq!((initial.mechanism, initial.initial), (&b"SCRAM-SHA-256"[..], Some(&b"n,,"[..])));
    let without = SaslInitialResponse::parse(b"X\0\xff\xff\xff\xff").expect("good");
    assert_eq!(without.initial, None);
    refuses(
        SaslInitialResponse::parse,
        &[
            (b"X", Error::InvalidString),
            (b"X\0\0\0\0", Error::InsufficientData),
            (b"X\0\xff\xff\xff\xfd", Error::InsufficientData),
            (b"X\0\0\0\0\x04abc", Error::InsufficientData),
            (b"X\0\x7f\xff\xff\xffabc", Error::InsufficientData),
            (b"X\0\0\0\0\x02abc", Error::MessageFormat),
        ],
    );
    assert_eq!(SaslResponse::parse(b"c=biws").message, b"c=biws");
}

#[test]
fn renaming_changes_the_name_alone() {
    let mut out = Vec::new();
    rewrite_bind(BIND, b"t9", &mut out).expect("good");
    assert_eq!(&out[5..], b"portal\0t9\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x01\0\0");
    out.clear();
    rewrite_parse(b"s1\0SELECT $1\0\0\x01\0\0\0\x17", b"longer", &mut out).expect("good");
    assert_eq!(out, b"P\0\0\0\x1blonger\0SELECT $1\0\0\x01\0\0\0\x17");
    out.clear();
    rewrite_describe(b"Ss1\0", b"t9", &mut out).expect("good");
    rewrite_describe(b"Pp\0", b"t9", &mut out).expect("good");
    rewrite_close(b"S\0", b"t9", &mut out).expect("good");
    rewrite_close(b"P\0", b"t9", &mut out).expect("good");
    assert_eq!(out, b"D\0\0\0\x08St9\0D\0\0\0\x07Pp\0C\0\0\0\x08St9\0C\0\0\0\x06P\0");
}

#[test]
fn what_cannot_be_renamed_appends_nothing() {
    let mut out = Vec::new();
    assert_eq!(rewrite_bind(b"portal\0s1", b"t", &mut out), Err(Error::InvalidString));
    assert_eq!(rewrite_parse(b"s1", b"t", &mut out), Err(Error::InvalidString));
    assert_eq!(rewrite_describe(b"Xs1\0", b"t", &mut out), Err(Error::DescribeSubtype(b'X')));
    assert_eq!(rewrite_close(b"Ss1", b"t", &mut out), Err(Error::InvalidString));
    assert!(out.is_empty());
}

#[test]
fn the_names_of_a_bind_are_known_before_the_rest() {
    assert_eq!(BindNames::peek(b"portal\0s"), None);
    let names = BindNames::peek(b"portal\0s1\0\0").expect("both are there");
    assert_eq!((names.portal, names.statement, names.len_in_body()), (&b"portal"[..], &b"s1"[..], 10));
}

#[test]
fn refusals_have_postgresqls_words_and_codes() {
    for (error, text, code) in [
        (Error::MessageFormat, "invalid message format", "08P01"),
        (Error::InsufficientData, "insufficient data left in message", "08P01"),
        (Error::InvalidString, "invalid string in message", "08P01"),
        (Error::FrontendTag(b'!'), "invalid frontend message type 33", "08P01"),
        (Error::CloseSubtype(b'X'), "invalid CLOSE message subtype 88", "08P01"),
        (Error::NoUser, "no PostgreSQL user name specified in startup packet", "28000"),
        (Error::ScramProof, "password authentication failed", "28P01"),
        (
            Error::ProtocolVersion { major: 2, minor: 0 },
            "unsupported frontend protocol 2.0: server supports 3.0 to 3.2",
            "0A000",
        ),
    ] {
        assert_eq!((error.to_string().as_str(), error.sqlstate().as_str()), (text, code));
    }
    assert!(Error::FrontendTag(0).is_fatal() && !Error::MessageFormat.is_fatal());
}

#[test]
fn a_whole_exchange_is_written_as_drivers_do() {
    let mut out = Vec::new();
    write::parse(&mut out, b"s", b"SELECT $1", [23]);
    write::bind(&mut out, b"", b"s", Format::Text, [Some(&b"7"[..]), None], Format::Binary);
    write::describe(&mut out, Target::Portal(b""));
    write::execute(&mut out, b"", 0);
    write::flush(&mut out);
    write::sync(&mut out);
    write::function_call(&mut out, 9, Format::Text, [None], Format::Text);
    write::terminate(&mut out);
    let expected = [
        &b"P\0\0\0\x16s\0SELECT $1\0\0\x01\0\0\0\x17"[..],
        b"B\0\0\0\x1a\0s\0\0\x01\0\0\0\x02\0\0\0\x017\xff\xff\xff\xff\0\x01\0\x01",
        b"D\0\0\0\x06P\0",
        b"E\0\0\0\x09\0\0\0\0\0",
        b"H\0\0\0\x04S\0\0\0\x04",
        b"F\0\0\0\x14\0\0\0\x09\0\x01\0\0\0\x01\xff\xff\xff\xff\0\0",
        b"X\0\0\0\x04",
    ];
    assert_eq!(out, expected.concat());
}
