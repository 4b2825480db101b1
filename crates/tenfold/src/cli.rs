//! The command line: what may be asked, and the exit code of the answer.
//!
//! Exit codes: 0 fine, 1 failed, 2 usage or configuration. `--json` on whatever prints a table. What was asked for goes
//! to stdout, everything else to stderr; colour only where that is a terminal and `NO_COLOR` is not set.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::commands;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "tenfold",
    version,
    about = "One binary between your users and your backend",
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run what the file says, until SIGTERM or SIGINT
    Run(Run),
    /// Say everything that is wrong with the file and its surroundings, at once
    Check(Check),
    /// Apply the changed file to the running process: all of it or nothing
    Reload(Running),
    /// What the running process is doing
    Status(Status),
    /// Take responses out of the cache
    Purge(Purge),
    /// What the cache has for a URL, and what the next request would meet
    #[command(subcommand)]
    Cache(CacheCommand),
    /// What the pooler makes of SQL statements
    #[command(subcommand)]
    Sql(SqlCommand),
    /// Offer a steady load and report what became of it
    Load(commands::load::Load),
    /// What the file may say
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write a commented file to start from
    Init(Init),
    /// Print the equivalent of a pgbouncer.ini, and what could not be carried
    Import(Import),
}

/// Which file.
#[derive(Clone, Debug, Args)]
pub struct File {
    /// The configuration
    #[arg(short, long = "config", value_name = "FILE", default_value = "tenfold.toml")]
    pub config: PathBuf,
}

/// `tenfold run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Which file.
    #[command(flatten)]
    pub file: File,
    /// Take over from the running process, its sockets and its clients; start as usual if there is none
    #[arg(short = 'R', long)]
    pub take_over: bool,
}

/// `tenfold check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Which file.
    #[command(flatten)]
    pub file: File,
    /// Read the file alone: resolve no name, connect to no node
    #[arg(long)]
    pub offline: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How the running process is reached.
#[derive(Clone, Debug, Args)]
pub struct Running {
    /// The file that says where the admin server listens
    #[command(flatten)]
    pub file: File,
    /// The admin server's address, instead of the file's
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<SocketAddr>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `tenfold status`.
#[derive(Debug, Args)]
pub struct Status {
    /// How the running process is reached.
    #[command(flatten)]
    pub running: Running,
    /// Again every second, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

/// `tenfold purge`.
#[derive(Debug, Args)]
pub struct Purge {
    /// How the running process is reached.
    #[command(flatten)]
    pub running: Running,
    /// One URL, all its variants: `http://shop.example/api/products/7`
    #[arg(long, value_name = "URL", required_unless_present_any = ["all", "tag", "prefix"], conflicts_with_all = ["all", "tag", "prefix"])]
    pub url: Option<String>,
    /// Everything that carries a tag: `product:7`
    #[arg(long, value_name = "TAG", conflicts_with_all = ["all", "prefix"])]
    pub tag: Option<String>,
    /// Everything
    #[arg(long)]
    pub all: bool,
    /// Mark stale instead of removing: a stale copy may still answer while a fresh one is fetched
    #[arg(long)]
    pub soft: bool,
    /// Everything below a path: `http://shop.example/api/`
    #[arg(long, value_name = "URL", conflicts_with = "all")]
    pub prefix: Option<String>,
}

/// `tenfold cache`.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Print what is stored for a URL, and why the next request would hit or miss
    Explain(Explain),
}

/// `tenfold cache explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// How the running process is reached.
    #[command(flatten)]
    pub running: Running,
    /// As a client would ask for it: `http://shop.example/api/products/7`
    #[arg(value_name = "URL")]
    pub url: String,
    /// A header of the request, as often as needed: `-H 'Accept-Language: de'`
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub headers: Vec<String>,
    /// The request's method
    #[arg(short = 'X', long = "method", value_name = "METHOD", default_value = "GET")]
    pub method: String,
}

/// `tenfold sql`.
#[derive(Debug, Subcommand)]
pub enum SqlCommand {
    /// Print where statements go and why, which tables they read and write
    Explain(SqlExplain),
}

/// `tenfold sql explain`.
#[derive(Debug, Args)]
pub struct SqlExplain {
    /// The file that says how the database is reached
    #[command(flatten)]
    pub config: File,
    /// One statement, or several parted by semicolons, each read on its own
    #[arg(value_name = "STATEMENT", required_unless_present = "file", conflicts_with = "file")]
    pub statement: Option<String>,
    /// Statements from a file
    #[arg(long, value_name = "STATEMENTS.SQL")]
    pub file: Option<PathBuf>,
    /// A database of the configuration, whose catalogue is read first
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
    /// Schemas that names are looked for in, instead of those that sessions begin with
    #[arg(long, value_name = "SCHEMAS")]
    pub search_path: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `tenfold config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// JSON Schema of the file, for editors
    Schema,
    /// What a key does: tenfold config explain route.cache.ttl
    Explain {
        /// The key, as a path; everything at the top if left out
        #[arg(default_value = "")]
        path: String,
    },
}

/// `tenfold import`.
#[derive(Debug, Args)]
pub struct Import {
    /// PgBouncer's configuration
    #[arg(value_name = "PGBOUNCER.INI")]
    pub path: PathBuf,
}

/// `tenfold init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Where to write; an existing file is left alone
    #[arg(value_name = "FILE", default_value = "tenfold.toml")]
    pub path: PathBuf,
    /// A node of your API
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:3000")]
    pub node: String,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As asked.
    Fine,
    /// It was tried and failed.
    Failed,
    /// The command line or the file is wrong.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Fine => Self::SUCCESS,
            Exit::Failed => Self::from(1),
            Exit::Usage => Self::from(2),
        }
    }
}

impl Cli {
    /// Does what was asked.
    pub fn execute(self) -> Exit {
        match self.command {
            Command::Run(run) => crate::run::run(&run.file.config, run.take_over),
            Command::Check(check) => commands::check::check(&check),
            Command::Reload(running) => commands::reload::reload(&running),
            Command::Status(status) => commands::status::status(&status),
            Command::Purge(purge) => commands::purge::purge(&purge),
            Command::Cache(CacheCommand::Explain(explain)) => commands::explain::explain(&explain),
            Command::Sql(SqlCommand::Explain(explain)) => commands::sql::explain(&explain),
            Command::Load(load) => commands::load::load(&load),
            Command::Config(command) => commands::config::config(&command),
            Command::Init(init) => commands::init::init(&init),
            Command::Import(import) => commands::import::import(&import),
        }
    }
}

/// Whether what goes to stderr may be coloured.
#[must_use]
pub fn color_on_stderr() -> bool {
    std::io::stderr().is_terminal() && color_wanted()
}

/// Whether what goes to stdout may be coloured.
#[must_use]
pub fn color_on_stdout() -> bool {
    std::io::stdout().is_terminal() && color_wanted()
}

/// <https://no-color.org>: present and not empty means no.
fn color_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
