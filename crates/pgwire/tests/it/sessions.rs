//! A session with a real PostgreSQL: every kind of message it sends is read, every kind we write is understood.

use std::collections::BTreeSet;

use tenfold_pgwire::backend::{
    CommandComplete, CopyResponse, NotificationResponse, ParameterDescription, Report, RowDescription,
};
use tenfold_pgwire::frontend::{Format, Target, rewrite_bind};
use tenfold_pgwire::{startup, write};
use tenfold_testkit::postgres::Cluster;

use crate::connection::{Connection, Message, Proof, tags, trusting};
use crate::properties;

fn connect(cluster: &Cluster) -> Connection {
    let params: [(&[u8], &[u8]); 1] = [(b"user", b"postgres")];
    Connection::login(cluster.primary().port(), 0, &params, Proof::Password("")).expect("trusted")
}

/// Sends what `fill` writes and a Sync.
fn exchange(connection: &mut Connection, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<Message> {
    let mut out = Vec::new();
    fill(&mut out);
    write::sync(&mut out);
    properties::from_client(&out);
    connection.send(&out);
    connection.until_ready()
}

/// What came keeps the laws of the fuzzer too.
fn keeps_the_laws(messages: &[Message]) {
    let mut bytes = Vec::new();
    for message in messages {
        write::message::build(&mut bytes, message.tag, |out| out.extend_from_slice(&message.body));
    }
    properties::from_server(&bytes);
}

fn simple_queries(connection: &mut Connection) -> Vec<Message> {
    let mut seen = connection.query("SELECT 1 AS one, NULL AS none; ; SELECT 2");
    assert_eq!(tags(&seen), "TDCTDCZ");
    let described = RowDescription::parse(&seen[0].body).expect("good");
    assert_eq!(described.columns().map(|column| column.name).collect::<Vec<_>>(), [&b"one"[..], b"none"]);
    assert_eq!(CommandComplete::parse(&seen[2].body).map(|found| found.tag), Ok(&b"SELECT 1"[..]));
    assert_eq!(tags(&connection.query("")), "IZ");
    seen.extend(connection.query("SELECT 1/0"));
    assert_eq!(seen[seen.len() - 2].code(), "22012");
    seen.extend(connection.query("DO $$ BEGIN RAISE NOTICE 'hello' USING HINT = 'a hint'; END $$"));
    let notice = &seen[seen.len() - 3];
    let report = Report::parse(&notice.body).expect("good");
    assert_eq!((notice.tag, report.severity(), report.hint()), (b'N', &b"NOTICE"[..], Some(&b"a hint"[..])));
    seen.extend(connection.query("LISTEN news; NOTIFY news, 'today'"));
    let notification = seen.iter().find(|message| message.tag == b'A').expect("it listens");
    let notification = NotificationResponse::parse(&notification.body).expect("good");
    assert_eq!(
        (notification.process_id, notification.channel, notification.payload),
        (connection.process_id, &b"news"[..], &b"today"[..])
    );
    seen.extend(connection.query("SET TimeZone = 'UTC'; SET TimeZone = 'Europe/Berlin'"));
    seen
}

fn extended_queries(connection: &mut Connection) -> Vec<Message> {
    let mut seen = exchange(connection, |out| {
        write::parse(out, b"s", b"SELECT g, $1::text FROM generate_series(1, $2) g", [0, 23]);
        write::describe(out, Target::Statement(b"s"));
        write::bind(out, b"p", b"s", Format::Text, [None, Some(&b"3"[..])], Format::Binary);
        write::describe(out, Target::Portal(b"p"));
        write::execute(out, b"p", 2);
        write::execute(out, b"p", 0);
        write::close(out, Target::Portal(b"p"));
        write::parse(out, b"", b"SET search_path = public", []);
        write::describe(out, Target::Statement(b""));
        write::parse(out, b"", b"", []);
        write::bind(out, b"", b"", Format::Text, [], Format::Text);
        write::execute(out, b"", 0);
    });
    assert_eq!(tags(&seen), "1tT2TDDsDC31tn12IZ");
    let types = ParameterDescription::parse(&seen[1].body).expect("good");
    assert_eq!(types.types().collect::<Vec<_>>(), [25, 23]);

    // A statement under another name, as the pooler renames them.
    let mut bind = Vec::new();
    write::bind(&mut bind, b"", b"theirs", Format::Text, [Some(&b"x"[..]), Some(&b"1"[..])], Format::Text);
    seen.extend(exchange(connection, |out| {
        rewrite_bind(&bind[5..], b"s", out).expect("good");
        write::execute(out, b"", 0);
        write::close(out, Target::Statement(b"s"));
    }));
    assert!(tags(&seen).ends_with("2DC3Z"));
    let skipped = exchange(connection, |out| {
        write::bind(out, b"", b"gone", Format::Text, [], Format::Text);
        write::execute(out, b"", 0);
    });
    assert_eq!((tags(&skipped).as_str(), skipped[0].code().as_str()), ("EZ", "26000"));
    seen
}

fn copies(connection: &mut Connection) -> Vec<Message> {
    let mut seen = connection.query("CREATE TEMP TABLE copied (id int, word text)");
    let mut out = Vec::new();
    write::query(&mut out, b"COPY copied FROM STDIN");
    write::copy_data(&mut out, b"1\tone\n2\t");
    write::copy_data(&mut out, b"two\n");
    write::copy_done(&mut out);
    connection.send(&out);
    let came = connection.until_ready();
    assert_eq!(tags(&came), "GCZ");
    let response = CopyResponse::parse(&came[0].body).expect("good");
    assert_eq!((response.format, response.column_formats().len()), (Format::Text, 2));
    seen.extend(came);
    out.clear();
    write::query(&mut out, b"COPY copied FROM STDIN");
    write::copy_fail(&mut out, b"changed my mind");
    connection.send(&out);
    seen.extend(connection.until_ready());
    assert_eq!(seen[seen.len() - 2].code(), "57014");
    let out = connection.query("COPY copied TO STDOUT (FORMAT binary)");
    assert_eq!(tags(&out), "HdddcCZ".replacen("ddd", &"d".repeat(out.len() - 4), 1));
    seen.extend(out);
    seen
}

fn functions(connection: &mut Connection) -> Vec<Message> {
    let oid = connection.query("SELECT 'pg_catalog.reverse(text)'::regprocedure::oid")[1].first_column();
    let oid = oid.parse().expect("an OID");
    let mut out = Vec::new();
    write::function_call(&mut out, oid, Format::Text, [Some(&b"word"[..])], Format::Text);
    connection.send(&out);
    let seen = connection.until_ready();
    let mut expected = Vec::new();
    write::function_call_response(&mut expected, Some(b"drow"));
    assert_eq!((tags(&seen).as_str(), &seen[0].body[..]), ("VZ", &expected[5..]));
    seen
}

#[test]
fn every_kind_of_message_is_read_and_written_as_postgresql_does() {
    let cluster = trusting();
    let mut connection = connect(cluster);
    let mut seen = simple_queries(&mut connection);
    seen.extend(extended_queries(&mut connection));
    seen.extend(copies(&mut connection));
    seen.extend(functions(&mut connection));
    keeps_the_laws(&seen);
    let kinds: BTreeSet<u8> = seen.iter().map(|message| message.tag).collect();
    assert_eq!(kinds, b"123ACDEGHINSTVZcdnst".iter().copied().collect());
    a_cancel_request_is_understood(cluster, &mut connection);
    hostile_bytes_get_our_words_from_postgresql_too(cluster);
}

fn a_cancel_request_is_understood(cluster: &Cluster, connection: &mut Connection) {
    let mut out = Vec::new();
    write::query(&mut out, b"SELECT pg_sleep(60)");
    connection.send(&out);
    let is_running = || {
        let count = cluster.psql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        count.expect("it answers") == "1"
    };
    tenfold_testkit::wait_for("the query to run", std::time::Duration::from_secs(20), is_running);
    out.clear();
    startup::append_cancel(&mut out, connection.process_id, &connection.key);
    Connection::open(cluster.primary().port()).send(&out);
    let ended = connection.until_ready();
    assert_eq!(ended.iter().find(|message| message.tag == b'E').expect("an error").code(), "57014");
}

/// The messages that we refuse, PostgreSQL refuses with the same words and code.
fn hostile_bytes_get_our_words_from_postgresql_too(cluster: &Cluster) {
    use tenfold_pgwire::frontend::{Bind, Close, Describe, Execute, Parse, Query};
    type Law = fn(&[u8]) -> Option<tenfold_pgwire::Error>;
    let table: [(u8, &[u8], Law); 10] = [
        (b'Q', b"SELECT 1", |body| Query::parse(body).err()),
        (b'Q', b"SELECT 1\0;\0", |body| Query::parse(body).err()),
        (b'P', b"s1\0SELECT 1\0\0\x01\0\0\0", |body| Parse::parse(body).err()),
        (b'P', b"s1\0SELECT 1\0\0\0\0", |body| Parse::parse(body).err()),
        (b'B', b"\0\0\0\x02\0\0\0\0\0\x01\0\0\0\0\0\0", |body| Bind::parse(body).err()),
        (b'B', b"\0\0\0\0", |body| Bind::parse(body).err()),
        (b'D', b"Xs1\0", |body| Describe::parse(body).err()),
        (b'C', b"Xs1\0", |body| Close::parse(body).err()),
        (b'E', b"p\0\0\0", |body| Execute::parse(body).err()),
        (b'!', b"", |_| Some(tenfold_pgwire::Error::FrontendTag(b'!'))),
    ];
    for (tag, body, refusal) in table {
        let mut connection = connect(cluster);
        let mut out = Vec::new();
        // A Bind is looked into only if there is its statement.
        write::parse(&mut out, b"", b"SELECT $1", []);
        write::message::build(&mut out, tag, |out| out.extend_from_slice(body));
        write::sync(&mut out);
        connection.send(&out);
        assert_eq!(connection.receive().tag, b'1');
        let answer = connection.receive();
        let report = Report::parse(&answer.body).expect("an error");
        let ours = refusal(body).expect("we refuse it too");
        assert_eq!(
            (report.message(), answer.code()),
            (ours.to_string().as_bytes(), ours.sqlstate().to_string())
        );
        let goes_on = report.severity() != b"FATAL";
        assert_eq!(goes_on, !ours.is_fatal(), "{ours}");
    }
}

#[test]
fn startup_packets_are_refused_in_postgresqls_words() {
    let cluster = trusting();
    let packets: [&[u8]; 4] = [
        b"\0\0\0\x0d\0\x03\0\0user\0",
        b"\0\0\0\x13\0\x03\0\0database\0x\0",
        b"\0\0\0\x14\0\x03\0\0database\0x\0\0",
        b"\0\0\0\x16\0\x03\0\0user\0ann\0\0\0\0\0\0",
    ];
    for packet in packets {
        let mut connection = Connection::open(cluster.primary().port());
        connection.send(packet);
        let answer = connection.receive();
        let report = Report::parse(&answer.body).expect("an error");
        let ours = startup::Initial::parse(packet).expect_err("we refuse it too");
        assert_eq!(
            (report.message(), answer.code()),
            (ours.to_string().as_bytes(), ours.sqlstate().to_string())
        );
        assert!(connection.rest().is_empty(), "and closes");
    }
}
