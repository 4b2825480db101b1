//! A plain node to balance over and to kill: `cargo run -p tenfold-testkit --example node -- 127.0.0.1:9001`.
//!
//! **Intuition.** Killing a node in earnest (`kill -9`) needs a node that is a process.
//!
//! **Mechanism.** An echoing origin on the address given; every path answers 200, health checks included. It says
//! when it listens, and ends when it is killed.
//!
//! **Failure.** An address in use is said so, with exit status 1.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program talks to its terminal"
)]

use std::net::SocketAddr;
use std::process::ExitCode;

use tenfold_testkit::Origin;

fn main() -> ExitCode {
    let addr = std::env::args().nth(1).and_then(|addr| addr.parse::<SocketAddr>().ok());
    let Some(addr) = addr else {
        eprintln!("usage: node ADDRESS:PORT");
        return ExitCode::from(2);
    };
    match Origin::echo_at(addr) {
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
