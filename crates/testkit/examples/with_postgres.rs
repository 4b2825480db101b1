//! Runs a command with a PostgreSQL of its own: `cargo run -p tenfold-testkit --example with_postgres -- npm test`.
//!
//! **Intuition.** What needs a database to try something out should not need one installed as a service.
//!
//! **Mechanism.** A fresh primary with a streaming replica; the command finds them in `DATABASE_URL` and
//! `REPLICA_URL`. When it ends, so do they. Before the command may stand `--scram PASSWORD`, which makes every login
//! ask for that password, and `--set NAME=VALUE`, a line for `postgresql.conf`, as often as wanted.
//!
//! **Failure.** The exit status is the command's, or 1 with the reason when the cluster cannot start.

use std::env;
use std::process::{Command, ExitCode};

use tenfold_testkit::Error;
use tenfold_testkit::postgres::{Auth, Cluster, Options};

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
    while let Some(option) = words.next_if(|word| word == "--scram" || word == "--set") {
        let value = words.next().unwrap_or_default().to_string_lossy().into_owned();
        match value.split_once('=') {
            Some((name, value)) if option == "--set" => {
                options.settings.push((name.to_owned(), value.to_owned()));
            }
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
    let what = format!("running {}", program.display());
    let status = command.status().map_err(|source| Error::System { what, source })?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
