//! What the pooler's proofs are played on: a PostgreSQL that can be hurt, and the real Tenfold in front of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tenfold_testkit::process::Child;
use tenfold_testkit::raw;
use tenfold_testkit::try_wait_for;

use super::super::stand::{Scratch, built, free_address};

const START_TIME_MAX: Duration = Duration::from_secs(20);

/// The password of the clients, where they are asked for one.
pub(super) const PASSWORD: &str = "unused";

/// What stands below `[database.postgres]` where all clients share connections of one user.
pub(super) fn database(server: u16, pool: &str) -> String {
    let primary = format!("postgres://postgres@{}:{server}/postgres", Ipv4Addr::LOCALHOST);
    format!("primary = \"{primary}\"\npassword = \"{PASSWORD}\"\npool = {{ {pool} }}\n")
}

/// A running pooler.
pub(super) struct Pooler {
    pub(super) child: Child,
    pub(super) addr: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl Pooler {
    /// One database, `postgres`, whose server listens on this port; `pool` is what stands in its `pool` table. All its
    /// clients share connections of one user.
    pub(super) fn start(scratch: &Scratch, server: u16, pool: &str) -> Result<Self> {
        Self::start_with(scratch, &database(server, pool))
    }

    /// As [`Self::start`], with what stands in the file below `[database.postgres]`.
    pub(super) fn start_with(scratch: &Scratch, database: &str) -> Result<Self> {
        Self::start_as(scratch, "auth = \"trust\"", database)
    }

    /// As [`Self::start_with`], with what stands below `[pooler]`.
    pub(super) fn start_as(scratch: &Scratch, all: &str, database: &str) -> Result<Self> {
        let program = built("tenfold", "--package tenfold")?;
        let (addr, admin) = (free_address()?, free_address()?);
        let text = format!(
            "admin.listen = \"{admin}\"\n[pooler]\nlisten = \"{addr}\"\n{all}\n[database.postgres]\n{database}"
        );
        let file = scratch.file("tenfold.toml");
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = Command::new(&program);
        command.args(["run", "-c"]).arg(&file);
        let mut child = Child::spawn(&command)?;
        try_wait_for("Tenfold to be ready", START_TIME_MAX, || {
            let ready = raw::get(admin, "/readyz").is_ok_and(|answer| answer.status == 200);
            ready || child.try_wait().is_some()
        })?;
        if let Some(status) = child.try_wait() {
            bail!("Tenfold ended at start ({status}):\n{}", child.log());
        }
        Ok(Self { child, addr, admin })
    }
}
