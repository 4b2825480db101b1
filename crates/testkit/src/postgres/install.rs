//! Finding PostgreSQL, and somebody to run it as.
//!
//! **Intuition.** Distributions put the server's programs out of PATH, and the server refuses to run as root, which is
//! what containers and test machines give us. Both are solved once, here, or explained in words that help.
//!
//! **Mechanism.** The first folder that has all the programs wins: what `pg_config` says, then Debian's
//! `/usr/lib/postgresql/<version>/bin` newest first, then other usual places, then PATH. As root, everything runs as
//! the account `postgres` that the package made.
//!
//! **Failure.** [`Error::NotInstalled`] names the packages for the common systems; [`Error::User`] says whose account
//! is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{User, geteuid};

use crate::Error;
use crate::process::Account;

/// Everything the kit runs, and one of which is missing where only the client libraries are installed.
const PROGRAMS: [&str; 4] = ["initdb", "postgres", "pg_basebackup", "psql"];
const HINT: &str = "install PostgreSQL 13 or newer with its contrib modules \
    (Debian, Ubuntu: postgresql; Fedora: postgresql-server postgresql-contrib; Arch: postgresql; \
    macOS: brew install postgresql)";
const OTHER_PLACES: [&str; 4] = [
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql/bin",
    "/usr/local/opt/postgresql/bin",
    "/usr/local/bin",
];

/// Where PostgreSQL's programs are, and who runs them.
#[derive(Clone, Debug)]
pub struct Install {
    /// The folder with `postgres`, `initdb`, `psql`.
    pub bin: PathBuf,
    /// Set when we are root.
    pub account: Option<Account>,
}

impl Install {
    /// Looks for PostgreSQL.
    ///
    /// # Errors
    /// [`Error::NotInstalled`]; [`Error::User`] for root without an account `postgres`.
    pub fn find() -> Result<Self, Error> {
        let bin = candidates().into_iter().find(|folder| has_programs(folder));
        let bin =
            bin.ok_or_else(|| Error::NotInstalled { program: "PostgreSQL".into(), hint: HINT.into() })?;
        let account = if geteuid().is_root() { Some(server_account()?) } else { None };
        Ok(Self { bin, account })
    }

    pub(super) fn program(&self, name: &str) -> Command {
        Command::new(self.bin.join(name))
    }
}

fn candidates() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_unstable_by(|left, right| right.cmp(left));
    folders.extend(versions.into_iter().map(|(_, folder)| folder));
    folders.extend(OTHER_PLACES.map(PathBuf::from));
    if let Some(path) = std::env::var_os("PATH") {
        folders.extend(std::env::split_paths(&path));
    }
    folders
}

fn has_programs(folder: &Path) -> bool {
    PROGRAMS.iter().all(|program| folder.join(program).is_file())
}

fn server_account() -> Result<Account, Error> {
    let user = User::from_name("postgres").ok().flatten().ok_or_else(|| {
        Error::User(
            "PostgreSQL refuses to run as root, and there is no account `postgres` to run it as: \
             install the system's PostgreSQL package, which makes it, or run this as an ordinary user"
                .into(),
        )
    })?;
    Ok(Account { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}
