//! States that no query shows: channels, statements of the protocol, COPY and answers in progress.

use std::io::Read as _;

use tenfold_pgwire::{
    frame::{Frame, Frames},
    frontend::{Format, Target},
    write,
};
use tenfold_testkit::wait_for;

use super::TIME_MAX;
use crate::{direct::Direct, pooled::Pooled};

/// A pooler with one server connection, and the process at its other end.
fn narrow() -> (Pooled, String) {
    super::ground();
    let pooled = super::pooled(1);
    let pid = Direct::connect_to(pooled.port(), &[]).value("SELECT pg_backend_pid()").unwrap();
    (pooled, pid)
}

fn stranger(pooled: &Pooled) -> Direct {
    Direct::connect_to(pooled.port(), &[])
}

/// Sends and waits for a message with this tag.
fn tell_until(session: &mut Direct, out: &[u8], tag: u8) {
    session.tell(out);
    read_until(session, |frame| frame.tag == tag);
}

/// Waits for a message that is it.
fn read_until(session: &mut Direct, is_it: impl Fn(&Frame<'_>) -> bool) {
    let mut read = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let count = session.stream().read(&mut piece).unwrap();
        assert!(count > 0, "closed before it came");
        read.extend_from_slice(&piece[..count]);
        if Frames::new(&read).any(|frame| is_it(&frame.unwrap())) {
            return;
        }
    }
}

#[test]
fn a_prepared_statement_of_the_protocol_is_its_clients_own() {
    let (pooled, pid) = narrow();
    let mut owner = stranger(&pooled);
    let mut out = Vec::new();
    write::parse(&mut out, b"mine", b"SELECT 7", []);
    write::sync(&mut out);
    owner.send(&out).unwrap();
    let mut run = Vec::new();
    write::bind(&mut run, b"", b"mine", Format::Text, [], Format::Text);
    write::execute(&mut run, b"", 0);
    write::sync(&mut run);
    let mut describe = Vec::new();
    write::describe(&mut describe, Target::Statement(b"mine"));
    write::sync(&mut describe);
    let mut other = stranger(&pooled);
    for out in [&run, &describe] {
        assert_eq!(other.send(out).unwrap_err(), "prepared statement \"mine\" does not exist");
    }
    assert_eq!(owner.send(&run).unwrap(), vec![vec![Some(b"7".to_vec())]]);
    owner.terminate();
    assert_eq!(other.send(&run).unwrap_err(), "prepared statement \"mine\" does not exist");
    assert_eq!(other.value("SELECT pg_backend_pid()").unwrap(), pid);
}

#[test]
fn who_resets_is_told_of_its_own_startup_parameter() {
    let (pooled, _) = narrow();
    for is_pinned in [false, true] {
        let mut owner = Direct::connect_to(pooled.port(), &[("TimeZone", "Asia/Tokyo")]);
        if is_pinned {
            owner.query("CREATE TEMP TABLE leak_pinning (n int)").unwrap();
        }
        owner.query("SET TimeZone = 'UTC'").unwrap();
        let mut out = Vec::new();
        write::query(&mut out, b"RESET TimeZone");
        owner.tell(&out);
        read_until(&mut owner, |frame| frame.tag == b'S' && frame.body() == b"TimeZone\0Asia/Tokyo\0");
        assert_eq!(owner.value("SHOW TimeZone").as_deref(), Some("Asia/Tokyo"));
        owner.terminate();
    }
}

#[test]
fn a_channel_is_its_listeners_own() {
    for is_goodbye in [true, false] {
        let (pooled, _) = narrow();
        let mut owner = stranger(&pooled);
        owner.query("LISTEN leak_channel").unwrap();
        let mut other = stranger(&pooled);
        let listening = "SELECT count(*) FROM pg_listening_channels()";
        assert_eq!(other.value(listening).as_deref(), Some("0"));
        let mut notify = Vec::new();
        write::query(&mut notify, b"NOTIFY leak_channel, 'x'");
        other.send(&notify).unwrap();
        tell_until(&mut owner, &[], b'A');
        if is_goodbye {
            owner.terminate();
        } else {
            drop(owner);
        }
        assert_eq!(other.value(listening).as_deref(), Some("0"));
        other.send(&notify).unwrap();
        let mut late = stranger(&pooled);
        assert_eq!(late.value(listening).as_deref(), Some("0"));
    }
}

#[test]
fn a_copy_cut_short_leaves_nothing() {
    let (pooled, _) = narrow();
    for is_goodbye in [true, false] {
        let mut owner = stranger(&pooled);
        let mut out = Vec::new();
        write::query(&mut out, b"COPY leak_rows FROM STDIN");
        tell_until(&mut owner, &out, b'G');
        let mut rows = Vec::new();
        write::copy_data(&mut rows, b"1234\n5");
        owner.tell(&rows);
        if is_goodbye {
            owner.terminate();
        } else {
            drop(owner);
        }
        let mut other = stranger(&pooled);
        assert_eq!(other.value("SELECT count(*) FROM leak_rows WHERE n > 999").as_deref(), Some("0"));
        other.terminate();
    }
}

#[test]
fn answers_left_unread_reach_nobody_else() {
    let (pooled, _) = narrow();
    let texts: [&[u8]; 3] = [
        b"SELECT n, repeat('x', 1000) FROM generate_series(1, 200000) AS n",
        b"COPY (SELECT n, repeat('x', 1000) FROM generate_series(1, 200000) AS n) TO STDOUT",
        b"SELECT repeat('x', 100000000)",
    ];
    for text in texts {
        let mut owner = stranger(&pooled);
        let mut out = Vec::new();
        write::query(&mut out, text);
        owner.tell(&out);
        let mut piece = [0; 4096];
        assert!(owner.stream().read(&mut piece).unwrap() > 0);
        drop(owner);
        let mut other = stranger(&pooled);
        assert_eq!(other.value("SELECT 'mine'").as_deref(), Some("mine"));
        other.terminate();
    }
}

#[test]
fn an_open_transaction_ends_with_its_client() {
    let (pooled, _) = narrow();
    for is_goodbye in [true, false] {
        let mut owner = stranger(&pooled);
        owner.query("BEGIN").unwrap();
        owner.query("LOCK TABLE leak_rows IN ACCESS EXCLUSIVE MODE").unwrap();
        if is_goodbye {
            owner.terminate();
        } else {
            drop(owner);
        }
        let mut judge = super::judge(&[]);
        let locked = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'leak_rows'::regclass";
        wait_for("the lock to be gone", TIME_MAX, || judge.value(locked).as_deref() == Some("0"));
        assert_eq!(stranger(&pooled).value("SELECT pg_current_xact_id_if_assigned()"), None);
    }
}

#[test]
fn half_a_message_and_a_series_without_end_leave_nothing() {
    let (pooled, _) = narrow();
    let mut parse = Vec::new();
    write::parse(&mut parse, b"", b"SET work_mem = '9MB'", []);
    write::bind(&mut parse, b"", b"", Format::Text, [], Format::Text);
    write::execute(&mut parse, b"", 0);
    write::flush(&mut parse);
    let mut series = stranger(&pooled);
    tell_until(&mut series, &parse, b'C');
    drop(series);
    assert_eq!(stranger(&pooled).value("SHOW work_mem").as_deref(), Some("4MB"));
    let mut half = stranger(&pooled);
    half.query("BEGIN; SET work_mem = '9MB'").unwrap();
    half.tell(&parse[..20]);
    drop(half);
    assert_eq!(stranger(&pooled).value("SHOW work_mem").as_deref(), Some("4MB"));
}
