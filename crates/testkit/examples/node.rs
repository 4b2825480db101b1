//! A plain node to balance over and to kill: `cargo run -p tenfold-testkit --example node -- 127.0.0.1:9001`.
//!
//! **Intuition.** Killing a node in earnest (`kill -9`) needs a node that is a process, and "no order was taken twice"
//! can only be said by a ledger that survives it.
//!
//! **Mechanism.** Every path answers 200, health checks included, with the node's address in `X-Node`; it ends when it
//! is killed. With a second argument, the target of each POST is appended to that file, a line each and in one
//! write, before it is answered: what several nodes were asked to do can be counted afterwards, whatever became of them.
//!
//! **Failure.** An address in use or a file that cannot be written is said so, with exit status 1; a POST that cannot
//! be written down is answered with 500.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program talks to its terminal"
)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use tenfold_testkit::origin::Received;
use tenfold_testkit::{Answer, Origin};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let addr = words.next().and_then(|addr| addr.parse::<SocketAddr>().ok());
    let Some(addr) = addr else {
        eprintln!("usage: node ADDRESS:PORT [FILE]");
        return ExitCode::from(2);
    };
    match start(addr, words.next()) {
        Ok(origin) => {
            println!("listening on http://{}", origin.addr());
            loop {
                std::thread::park();
            }
        }
        Err(error) => {
            eprintln!("node: {addr}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(addr: SocketAddr, ledger: Option<String>) -> io::Result<Origin> {
    let ledger = ledger.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
    Origin::serve_at(addr, move |request| answer(request, addr, ledger.as_ref()))
}

fn answer(request: &Received, addr: SocketAddr, ledger: Option<&File>) -> Answer {
    let noted = match ledger.filter(|_| request.method == "POST") {
        Some(ledger) => note(ledger, &request.target),
        None => Ok(()),
    };
    let answer = match noted {
        Ok(()) => Answer::ok(format!("{} {}\n", request.method, request.target)),
        Err(error) => Answer::new(500).body(format!("{error}\n")),
    };
    answer.header("X-Node", &addr.to_string()).header("Content-Type", "text/plain")
}

/// One write to a file opened for appending lands whole and at the end, whoever else writes.
fn note(mut ledger: &File, target: &str) -> io::Result<()> {
    ledger.write_all(format!("{target}\n").as_bytes())
}
