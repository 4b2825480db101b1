//! Runs a command with a PostgreSQL of its own: `cargo run -p tenfold-testkit --example with_postgres -- npm test`.
//!
//! **Intuition.** What needs a database to try something out should not need one installed as a service.
//!
//! **Mechanism.** A fresh primary with a streaming replica; the command finds them in `DATABASE_URL` and
//! `REPLICA_URL`, and all replicas, with a blank between, in `REPLICA_URLS`. When it ends, so do they. Before the command
//! may stand `--scram PASSWORD`, which makes every login ask for that password, `--set NAME=VALUE`, a line for
//! `postgresql.conf`, as often as wanted, and `--replicas N`.
//!
//! **Failure.** The exit status is the command's, or 1 with the reason when the cluster cannot start.

use std::env;
use std::process::{Command, ExitCode};

use tenfold_testkit::Error;
use tenfold_testkit::postgres::{Auth, Cluster, Options, Server};

/// What may stand before the command, each with a value.
const OPTIONS: [&str; 3] = ["--scram", "--set", "--replicas"];

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        #[expect(clippy::print_stderr, reason = "a command line program says why it could not")]
        {
            eprintln!("with_postgres: {error}");
        }
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode, Error> {
    let mut words = env::args_os().skip(1).peekable();
    let mut options = Options { replicas: 1, fsync: true, ..Options::default() };
    while let Some(option) = words.next_if(|word| OPTIONS.iter().any(|option| word == option)) {
        let value = words.next().unwrap_or_default().to_string_lossy().into_owned();
        match (option.to_string_lossy().as_ref(), value.split_once('=')) {
            ("--set", Some((name, value))) => options.settings.push((name.to_owned(), value.to_owned())),
            ("--replicas", _) => options.replicas = value.parse().unwrap_or(1),
            _ => options.auth = Auth::Scram { password: value },
        }
    }
    let program = words.next().unwrap_or_else(|| env::var_os("SHELL").unwrap_or_else(|| "sh".into()));
    let cluster = Cluster::start(&options)?;
    let mut command = Command::new(&program);
    command.args(words).env("DATABASE_URL", cluster.primary_url());
    if let Some(url) = cluster.replica_url() {
        command.env("REPLICA_URL", url);
    }
    let urls: Vec<_> = cluster.replicas().iter().map(Server::url).collect();
    command.env("REPLICA_URLS", urls.join(" "));
    let what = format!("running {}", program.display());
    let status = command.status().map_err(|source| Error::System { what, source })?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
