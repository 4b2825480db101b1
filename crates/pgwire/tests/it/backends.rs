//! What servers send: what each view accepts, and how it refuses.

use tenfold_pgwire::backend::{
    Authentication, BackendKeyData, CommandComplete, CopyResponse, DataRow, NegotiateProtocolVersion,
    NotificationResponse, ParameterDescription, ParameterStatus, ReadyForQuery, Report, RowDescription,
    TransactionStatus, field,
};
use tenfold_pgwire::frontend::Format;
use tenfold_pgwire::write::{self, Severity};
use tenfold_pgwire::{Error, sqlstate};

/// Each body, and its refusal.
fn refuses<'a, T: std::fmt::Debug>(parse: fn(&'a [u8]) -> Result<T, Error>, table: &[(&'a [u8], Error)]) {
    for &(body, error) in table {
        assert_eq!(parse(body).map_err(Some).expect_err("refused"), Some(error), "{body:?}");
    }
}

#[test]
fn ready_for_query_says_where_the_transaction_stands() {
    for (body, status) in [
        (b"I", TransactionStatus::Idle),
        (b"T", TransactionStatus::InTransaction),
        (b"E", TransactionStatus::Failed),
    ] {
        assert_eq!(ReadyForQuery::parse(body), Ok(ReadyForQuery { status }));
        assert_eq!(&[status.as_byte()], body);
    }
    let parse = |body: &'static [u8]| ReadyForQuery::parse(body);
    refuses(
        parse,
        &[
            (b"", Error::InsufficientData),
            (b"i", Error::TransactionStatus(b'i')),
            (b"\0", Error::TransactionStatus(0)),
            (b"II", Error::MessageFormat),
        ],
    );
}

#[test]
fn strings_are_read_in_pairs_and_alone() {
    let found = ParameterStatus::parse(b"TimeZone\0UTC\0").expect("good");
    assert_eq!((found.name, found.value), (&b"TimeZone"[..], &b"UTC"[..]));
    refuses(
        ParameterStatus::parse,
        &[
            (b"TimeZone\0UTC", Error::InvalidString),
            (b"TimeZone\0", Error::InvalidString),
            (b"TimeZone\0UTC\0\0", Error::MessageFormat),
        ],
    );
    assert_eq!(CommandComplete::parse(b"SELECT 1\0").map(|found| found.tag), Ok(&b"SELECT 1"[..]));
    refuses(CommandComplete::parse, &[(b"x", Error::InvalidString), (b"x\0y", Error::MessageFormat)]);
    let found = NotificationResponse::parse(b"\0\0\0\x07channel\0\0").expect("good");
    assert_eq!((found.process_id, found.channel, found.payload), (7, &b"channel"[..], &b""[..]));
    refuses(
        NotificationResponse::parse,
        &[
            (b"\0\0\0", Error::InsufficientData),
            (b"\0\0\0\x07channel\0", Error::InvalidString),
            (b"\0\0\0\x07channel\0\0\0", Error::MessageFormat),
        ],
    );
}

#[test]
fn an_errors_fields_are_found_by_type() {
    let body = b"SFEHLER\0VERROR\0C40001\0MMessage\0DDetail\0HHint\0Xnew\0\0";
    let report = Report::parse(body).expect("good");
    assert_eq!(report.severity(), b"ERROR");
    assert_eq!(report.sqlstate(), Some(sqlstate::SERIALIZATION_FAILURE));
    assert_eq!(report.message(), b"Message");
    assert_eq!((report.detail(), report.hint()), (Some(&b"Detail"[..]), Some(&b"Hint"[..])));
    assert_eq!((report.field(b'X'), report.field(field::WHERE)), (Some(&b"new"[..]), None));
    assert_eq!(report.fields().count(), 7);
    assert!(!report.is_fatal());
    let old = Report::parse(b"SFATAL\0C1234\0\0").expect("good");
    assert_eq!((old.severity(), old.sqlstate(), old.message()), (&b"FATAL"[..], None, &b""[..]));
    assert!(old.is_fatal());
    assert!(Report::parse(b"\0").is_ok_and(|report| report.fields().next().is_none()));
    refuses(
        Report::parse,
        &[
            (b"", Error::InsufficientData),
            (b"SERROR\0", Error::InsufficientData),
            (b"SERROR", Error::InvalidString),
            (b"S", Error::InvalidString),
            (b"\0\0", Error::MessageFormat),
            (b"SERROR\0\0M\0\0", Error::MessageFormat),
        ],
    );
}

#[test]
fn a_report_of_ours_has_every_field_it_was_given() {
    let mut out = Vec::new();
    write::Report::error(sqlstate::QUERY_CANCELED, "canceling statement")
        .with_detail("It was slow.")
        .with_hint("Make it fast.")
        .append_error(&mut out);
    let report = Report::parse(&out[5..]).expect("good");
    assert_eq!(
        (out[0], report.severity(), report.message()),
        (b'E', &b"ERROR"[..], &b"canceling statement"[..])
    );
    assert_eq!((report.detail(), report.hint()), (Some(&b"It was slow."[..]), Some(&b"Make it fast."[..])));
    assert_eq!(report.sqlstate(), Some(sqlstate::QUERY_CANCELED));

    out.clear();
    let others = [(field::WHERE, "here"), (0, "nowhere"), (field::ROUTINE, "a\0Mforged")];
    let notice =
        write::Report { others: &others, ..write::Report::new(Severity::Warning, sqlstate::WARNING, "m") };
    notice.append_notice(&mut out);
    let report = Report::parse(&out[5..]).expect("good");
    let expected: [(u8, &[u8]); 6] = [
        (b'S', b"WARNING"),
        (b'V', b"WARNING"),
        (b'C', b"01000"),
        (b'M', b"m"),
        (b'W', b"here"),
        (b'R', b"a"),
    ];
    assert_eq!((out[0], report.fields().collect::<Vec<_>>()), (b'N', expected.to_vec()));
}

#[test]
fn keys_have_4_to_256_bytes() {
    let check = |len: usize, is_good: bool| {
        let body = [&b"\0\0\x01\0"[..], &vec![9; len]].concat();
        let found = BackendKeyData::parse(&body).map(|found| (found.process_id, found.key.len()));
        assert_eq!(found.ok(), is_good.then_some((256, len)));
    };
    for (len, is_good) in [(0, false), (3, false), (4, true), (32, true), (256, true), (257, false)] {
        check(len, is_good);
    }
    refuses(BackendKeyData::parse, &[(b"\0\0\x01", Error::InsufficientData)]);
    assert!(BackendKeyData::parse(b"\0\0\x01\0keys").is_ok_and(|key| !format!("{key:?}").contains("107")));
}

#[test]
fn requests_to_authenticate_are_told_apart() {
    let check = |body: &[u8], expected: &str| {
        assert_eq!(format!("{:?}", Authentication::parse(body).expect("good")), expected);
    };
    check(b"\0\0\0\0", "Ok");
    check(b"\0\0\0\x02", "KerberosV5");
    check(b"\0\0\0\x03", "CleartextPassword");
    check(b"\0\0\0\x05abcd", "Md5Password { salt: [97, 98, 99, 100] }");
    check(b"\0\0\0\x07", "Gss");
    check(b"\0\0\0\x08x", "GssContinue([120])");
    check(b"\0\0\0\x09", "Sspi");
    check(b"\0\0\0\x0bx", "SaslContinue([120])");
    check(b"\0\0\0\x0c", "SaslFinal([])");
    refuses(
        Authentication::parse,
        &[
            (b"", Error::InsufficientData),
            (b"\0\0\0", Error::InsufficientData),
            (b"\0\0\0\0\0", Error::MessageFormat),
            (b"\0\0\0\x01", Error::AuthenticationRequest(1)),
            (b"\xff\xff\xff\xff", Error::AuthenticationRequest(u32::MAX)),
            (b"\0\0\0\x05abc", Error::InsufficientData),
            (b"\0\0\0\x05abcde", Error::MessageFormat),
            (b"\0\0\0\x0a", Error::InvalidString),
            (b"\0\0\0\x0aSCRAM-SHA-256\0", Error::InvalidString),
            (b"\0\0\0\x0aSCRAM-SHA-256\0\0\0", Error::MessageFormat),
        ],
    );
    let Ok(Authentication::Sasl(offered)) =
        Authentication::parse(b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
    else {
        panic!("good")
    };
    assert_eq!(offered.iter().collect::<Vec<_>>(), [&b"SCRAM-SHA-256-PLUS"[..], b"SCRAM-SHA-256"]);
    assert!(offered.offers("SCRAM-SHA-256") && !offered.offers("SCRAM-SHA-1") && !offered.offers(""));
}

#[test]
fn rows_and_their_columns_are_read() {
    let body = b"\0\x02id\0\0\0\x40\x01\0\x01\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0\
                 n\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\x01";
    let columns: Vec<_> = RowDescription::parse(body).expect("good").columns().collect();
    let facts: Vec<_> = columns.iter().map(|column| (column.name, column.type_oid, column.format)).collect();
    assert_eq!(facts, [(&b"id"[..], 23, Format::Text), (b"n", 25, Format::Binary)]);
    assert_eq!((columns[0].table_oid, columns[0].attribute, columns[1].type_len), (16385, 1, -1));
    refuses(
        RowDescription::parse,
        &[
            (b"\0", Error::InsufficientData),
            (b"\0\x01", Error::InvalidString),
            (b"\xff\xff", Error::InvalidString),
            (b"\0\x01id\0\0\0", Error::InsufficientData),
            (b"\0\0x", Error::MessageFormat),
        ],
    );
    let row = DataRow::parse(b"\0\x03\0\0\0\x0142\xff\xff\xff\xff\0\0\0\0");
    assert_eq!(row.map(|_| ()), Err(Error::InsufficientData));
    let row = DataRow::parse(b"\0\x03\0\0\0\x0242\xff\xff\xff\xff\0\0\0\0").expect("good");
    assert_eq!(
        (row.column(0), row.column(1), row.column(2)),
        (Some(Some(&b"42"[..])), Some(None), Some(Some(&b""[..])))
    );
    assert_eq!((row.column(3), row.columns_count()), (None, 3));
    refuses(
        DataRow::parse,
        &[
            (b"", Error::InsufficientData),
            (b"\0\x01", Error::InsufficientData),
            (b"\xff\xff\0\0\0\0", Error::InsufficientData),
            (b"\0\x01\xff\xff\xff\xfe", Error::InsufficientData),
            (b"\0\x01\x40\0\0\0x", Error::InsufficientData),
            (b"\0\x01\0\0\0\x01xy", Error::MessageFormat),
        ],
    );
}

#[test]
fn descriptions_of_parameters_copies_and_versions_are_read() {
    let types = ParameterDescription::parse(b"\0\x02\0\0\0\x17\0\0\0\x19").expect("good");
    assert_eq!(types.types().collect::<Vec<_>>(), [23, 25]);
    refuses(
        ParameterDescription::parse,
        &[(b"\0\x01\0\0\0", Error::InsufficientData), (b"\0\0\0", Error::MessageFormat)],
    );
    let copy = CopyResponse::parse(b"\x01\0\x02\0\x01\0\0").expect("good");
    assert_eq!(copy.format, Format::Binary);
    assert_eq!(copy.column_formats().collect::<Vec<_>>(), [Format::Binary, Format::Text]);
    refuses(
        CopyResponse::parse,
        &[
            (b"", Error::InsufficientData),
            (b"\0\0\x01\0", Error::InsufficientData),
            (b"\0\0\0\0", Error::MessageFormat),
        ],
    );
    let found = NegotiateProtocolVersion::parse(b"\0\x03\0\x02\0\0\0\x02_pq_.a\0_pq_.b\0").expect("good");
    assert_eq!((found.minor, found.options().collect::<Vec<_>>()), (2, vec![&b"_pq_.a"[..], b"_pq_.b"]));
    assert_eq!(NegotiateProtocolVersion::parse(b"\0\0\0\0\0\0\0\0").map(|found| found.minor), Ok(0));
    refuses(
        NegotiateProtocolVersion::parse,
        &[
            (b"\0\x03\0\x02\0\0\0", Error::InsufficientData),
            (b"\0\x03\0\x02\xff\xff\xff\xff", Error::InvalidString),
            (b"\0\x03\0\x02\0\0\0\x01x", Error::InvalidString),
            (b"\0\x03\0\x02\0\0\0\0x", Error::MessageFormat),
            (b"\0\x04\0\0\0\0\0\0", Error::ProtocolVersion { major: 4, minor: 0 }),
        ],
    );
}
