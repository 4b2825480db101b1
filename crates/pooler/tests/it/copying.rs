//! COPY from the client, however its messages are sent: answered as PostgreSQL answers, message for message.

use std::{io::Read as _, sync::OnceLock};

use tenfold_pgwire::{
    backend::Report,
    frame::Frames,
    frontend::{Format, Target},
    write,
};
use tenfold_pooler::config::Mode;

use crate::{
    direct::{Direct, cluster},
    pooled::{Pooled, config},
};

/// Pieces that are sent one by one, each once so many messages with this tag have come since the last.
type Pieces = Vec<(Vec<u8>, u8)>;

fn ground() {
    static GROUND: OnceLock<()> = OnceLock::new();
    GROUND.get_or_init(|| {
        Direct::connect().query("CREATE TABLE copying (n int, own text DEFAULT session_user)").unwrap();
    });
}

fn narrow(mode: Mode) -> Pooled {
    ground();
    let mut config = config();
    config.databases[0].pool.size = 1;
    config.databases[0].pool.mode = mode;
    Pooled::start(config)
}

/// Tags as they come, errors with their SQLSTATE, up to so many ReadyForQuery.
fn answers(client: &mut Direct, pieces: &Pieces) -> Vec<String> {
    let mut told = Vec::new();
    let mut read = Vec::new();
    for (piece, until) in pieces {
        client.tell(piece);
        let (mut has_come, mut is_last) = (false, false);
        while !has_come {
            let mut buffer = [0; 4096];
            let count = match client.stream().read(&mut buffer) {
                Ok(count) if count > 0 => count,
                Ok(_) => panic!("closed after {told:?}"),
                Err(error) => panic!("{error} after {told:?}"),
            };
            read.extend_from_slice(&buffer[..count]);
            let mut frames = Frames::new(&read);
            for frame in &mut frames {
                let frame = frame.unwrap();
                is_last |= frame.tag == *until;
                // Behind a CloseComplete there is a ReadyForQuery.
                has_come = is_last && (*until != b'3' || frame.tag == b'Z');
                let code = Report::parse(frame.body()).ok().filter(|_| frame.tag == b'E');
                let code = code.and_then(|report| report.field(b'C').map(<[u8]>::to_vec)).unwrap_or_default();
                let status = if frame.tag == b'Z' { frame.body() } else { &code };
                told.push(format!("{}{}", char::from(frame.tag), String::from_utf8_lossy(status)));
            }
            let consumed = frames.consumed();
            read.drain(..consumed);
        }
    }
    told
}

fn build(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    fill(&mut out);
    out
}

const COPY: &str = "COPY copying (n) FROM STDIN";
const GOOD: &[u8] = b"1\n2\n";
const BAD: &[u8] = b"1\nno number\n";

/// What a letter of [`CASES`] sends.
fn append(out: &mut Vec<u8>, letter: char) {
    let mut begin = |sql: &str| {
        write::parse(out, b"", sql.as_bytes(), []);
        write::bind(out, b"", b"", Format::Text, [], Format::Text);
        write::execute(out, b"", 0);
    };
    match letter {
        'P' => begin(COPY),
        'N' => begin("COPY copying_nowhere (n) FROM STDIN"),
        'O' => begin("SELECT 1"),
        'q' => write::query(out, COPY.as_bytes()),
        'Q' => write::query(out, format!("{COPY}; {COPY}").as_bytes()),
        '(' => write::query(out, b"BEGIN"),
        ')' => write::query(out, b"COMMIT"),
        'd' => write::copy_data(out, GOOD),
        'b' => write::copy_data(out, BAD),
        'c' => write::copy_done(out),
        'f' => write::copy_fail(out, b"enough"),
        'S' => write::sync(out),
        'L' => {
            write::query(out, b"SELECT 'after' AS last");
            // What no exchange ends like.
            write::parse(out, b"", b"SELECT", []);
            write::close(out, Target::Statement(b""));
            write::sync(out);
        }
        _ => panic!("{letter} means nothing"),
    }
}

/// Names, and what is sent: the letters of [`append`] in one write each, between two writes the tag that is waited for.
const CASES: &[(&str, &[&str])] = &[
    ("in one write", &["PddcSL"]),
    ("as libpq does", &["PS", "G", "ddcSL"]),
    ("with a Sync before its data, in one write", &["PSddcSL"]),
    ("given up in one write", &["PddfSL"]),
    ("that fails in one write", &["PdbdcSL"]),
    ("that cannot begin, in one write", &["NddcSL"]),
    ("twice in one series", &["PdcPdcSL"]),
    ("between others in one series", &["OPdcOSL"]),
    ("behind another series", &["OSPSdcSOSL"]),
    ("that is none", &["OddcSL"]),
    ("by a simple query, in one write", &["qddcL"]),
    ("by a simple query with a Sync behind it", &["qSddcL"]),
    ("by a simple query of two, in one write", &["QdcdcL"]),
    ("by a simple query that fails, in one write", &["qbddcL"]),
    ("by a simple query that fails with data on its way", &["qb", "Z", "ddcL"]),
    ("that fails with data on its way", &["Pb", "E", "ddcSL"]),
    ("by a simple query in a block, in one write", &["(qddc)L"]),
    ("in a block that fails", &["(PbdcS)L"]),
];

/// Every case ends with what follows the CloseComplete of its `L`, so that what comes too much is seen.
fn pieces(writes: &[&str]) -> Pieces {
    let mut pieces = Pieces::new();
    for write in writes.chunks(2) {
        let until = write.get(1).map_or(b'3', |tag| tag.as_bytes()[0]);
        let piece = build(|out| write[0].chars().for_each(|letter| append(out, letter)));
        pieces.push((piece, until));
    }
    pieces
}

#[test]
fn copy_is_answered_as_directly_however_it_is_sent() {
    let poolers = [Mode::Session, Mode::Transaction].map(|mode| (mode, narrow(mode)));
    for (name, writes) in CASES {
        let pieces = pieces(writes);
        let expected = answers(&mut Direct::connect(), &pieces);
        for (mode, pooled) in &poolers {
            let mut client = Direct::connect_to(pooled.port(), &[]);
            assert_eq!(answers(&mut client, &pieces), expected, "COPY {name}, {mode:?}");
            assert_eq!(client.value("SELECT 'own'").as_deref(), Some("own"), "COPY {name}, {mode:?}");
            drop(client);
            // The one server connection is in order.
            let mut other = Direct::connect_to(pooled.port(), &[]);
            assert_eq!(other.value("SELECT 'other'").as_deref(), Some("other"), "COPY {name}, {mode:?}");
        }
    }
}

#[test]
fn half_a_message_behind_a_copy_that_failed_reaches_nobody_elses_connection() {
    let pooled = narrow(Mode::Transaction);
    let row = build(|out| write::copy_data(out, &b"7\n".repeat(50_000)));
    let (half, rest) = row.split_at(row.len() / 2);
    let mut slow = Direct::connect_to(pooled.port(), &[]);
    let mut first = build(|out| {
        write::query(out, COPY.as_bytes());
        write::copy_data(out, BAD);
    });
    first.extend_from_slice(half);
    let told = answers(&mut slow, &vec![(first, b'Z')]);
    assert_eq!(told, ["G", "E22P02", "ZI"]);
    let mut other = Direct::connect_to(pooled.port(), &[]);
    other.tell(&build(|out| write::query(out, b"SELECT 'other'")));
    slow.tell(rest);
    assert_eq!(slow.value("SELECT 'slow'").as_deref(), Some("slow"));
    assert_eq!(other.send(&[]), Ok(vec![vec![Some(b"other".to_vec())]]));
    // Nor does it stay there when its sender goes.
    let mut goes = Direct::connect_to(pooled.port(), &[]);
    let mut first = build(|out| {
        write::query(out, COPY.as_bytes());
        write::copy_data(out, BAD);
    });
    first.extend_from_slice(half);
    answers(&mut goes, &vec![(first, b'Z')]);
    drop(goes);
    assert_eq!(other.value("SELECT 'other'").as_deref(), Some("other"));
    assert_eq!(cluster().psql("SELECT count(*) FROM copying WHERE n = 7").unwrap(), "0");
}
