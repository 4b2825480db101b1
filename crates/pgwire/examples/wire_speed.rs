//! How long the hot paths take: walking an answer's frames, reading and renaming a Bind, a login by SCRAM.
//!
//! Run with `cargo run --release -p tenfold-pgwire --example wire_speed`. Prints the fastest of many rounds, since
//! everything else on the machine can only add.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::hint::black_box;
use std::time::Instant;

use tenfold_pgwire::backend::{Column, ReadyForQuery, TransactionStatus};
use tenfold_pgwire::frame::{Frames, backend};
use tenfold_pgwire::frontend::{Bind, Format, Parse, rewrite_bind};
use tenfold_pgwire::scram::{
    Client, ClientBinding, Keys, SHA_256, SaltedPassword, Server, ServerBinding, Verifier,
};
use tenfold_pgwire::write;

const ROUNDS: u32 = 300;
const NONCES: ([u8; 18], [u8; 18]) = ([1; 18], [2; 18]);

fn main() {
    let answer = answer(1);
    report("frames of T D C Z", 1_000, || (scan(black_box(&answer)), 4));
    let rows = self::answer(1_000);
    report("frames of T 1,000 D C Z", 10, || (scan(black_box(&rows)), 1_003));
    messages();
    logins();
}

/// Prints the fastest round, per call and per unit; `call` says whether it went well and how many units it was.
fn report(name: &str, calls_per_round: u32, mut call: impl FnMut() -> (bool, u32)) {
    let mut best = f64::INFINITY;
    let mut units = 1;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for _ in 0..calls_per_round {
            let (is_good, count) = call();
            assert!(is_good);
            units = count;
        }
        best = best.min(started.elapsed().as_secs_f64() / f64::from(calls_per_round));
    }
    println!("{name:36} {:10.1} ns {:8.2} ns each of {units}", best * 1e9, best * 1e9 / f64::from(units));
}

/// What a server answers to a SELECT of a few columns.
fn answer(rows: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let column = |name| Column {
        name,
        table_oid: 16_384,
        attribute: 1,
        type_oid: 23,
        type_len: 4,
        type_modifier: -1,
        format: Format::Text,
    };
    write::row_description(&mut out, [column(b"aid"), column(b"abalance")]);
    for _ in 0..rows {
        write::data_row(&mut out, [Some(&b"4711"[..]), Some(b"0")]);
    }
    write::command_complete(&mut out, b"SELECT 1");
    write::ready_for_query(&mut out, TransactionStatus::Idle);
    out
}

/// Walks an answer as the pooler does: looks into ReadyForQuery alone.
fn scan(answer: &[u8]) -> bool {
    let mut frames = Frames::new(answer);
    let mut is_idle = false;
    for found in frames.by_ref() {
        let Ok(found) = found else { return false };
        if found.tag == backend::READY_FOR_QUERY {
            let ready = ReadyForQuery::parse(found.body());
            is_idle = ready.is_ok_and(|ready| ready.status == TransactionStatus::Idle);
        }
    }
    is_idle && frames.remaining().is_empty()
}

fn messages() {
    let mut parse = Vec::new();
    write::parse(&mut parse, b"s1", b"SELECT abalance FROM pgbench_accounts WHERE aid = $1", [23]);
    report("Parse read", 1_000, || (Parse::parse(black_box(&parse[5..])).is_ok(), 1));
    let mut bind = Vec::new();
    write::bind(&mut bind, b"", b"s1", Format::Text, [Some(&b"4711"[..])], Format::Text);
    report("Bind read", 1_000, || (Bind::parse(black_box(&bind[5..])).is_ok(), 1));
    let mut out = Vec::with_capacity(256);
    report("Bind renamed", 1_000, || {
        out.clear();
        let renamed = rewrite_bind(black_box(&bind[5..]), b"tenfold_0123456789abcdef", &mut out);
        (renamed.is_ok() && !out.is_empty(), 1)
    });
}

fn logins() {
    let salted = SaltedPassword::derive(b"open sesame", b"0123456789abcdef", 4096);
    let (keys, verifier) = (salted.keys(), Verifier::derive(b"open sesame", b"0123456789abcdef", 4096));
    report("SCRAM login, both sides", 20, || (login(&keys, &verifier), 1));
    let client = Client::start(ClientBinding::Unsupported, &NONCES.0);
    let first = client.message().to_vec();
    let start = || Server::start(&verifier, ServerBinding::None, SHA_256.as_bytes(), &first, &NONCES.1);
    let Ok(server) = start() else { return };
    let Ok(challenge) = client.challenge(server.challenge()) else { return };
    let response = challenge.respond(&keys);
    report("SCRAM login, server's side", 50, || {
        let accepted = start().and_then(|server| server.finish(black_box(response.message())));
        (accepted.is_ok(), 1)
    });
    report("SCRAM hashing of 4,096 iterations", 1, || {
        black_box(SaltedPassword::derive(black_box(b"open sesame"), b"0123456789abcdef", 4096));
        (true, 4_096)
    });
}

fn login(keys: &Keys, verifier: &Verifier) -> bool {
    let client = Client::start(ClientBinding::Unsupported, &NONCES.0);
    let server =
        Server::start(verifier, ServerBinding::None, SHA_256.as_bytes(), client.message(), &NONCES.1);
    let Ok(server) = server else { return false };
    let Ok(challenge) = client.challenge(server.challenge()) else { return false };
    let response = challenge.respond(keys);
    let Ok(accepted) = server.finish(response.message()) else { return false };
    response.finish(&accepted.message).is_ok()
}
