//! The folder a cluster lives in, and dies with.
//!
//! **Intuition.** Data belongs under the clone's `target/`, where nobody is surprised by it. But when we are root the
//! server runs as another account, which may not be able to reach a clone in somebody's home.
//!
//! **Mechanism.** A fresh private folder is made where the caller said and given to the server's account; that account
//! then tries to write in it. If it cannot, a private folder in the system's temporary folder is used instead.
//!
//! **Failure.** Dropping it removes it. A folder that cannot be made is [`Error::File`], which is also where a full
//! disk first shows.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::Error;
use crate::process::{Account, Child, Guard};

const PREFIX: &str = "tenfold-postgres-";
const PROBE_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Home(TempDir);

impl Home {
    /// Below `parent` if the account can work there, else in the temporary folder.
    pub(super) fn make(parent: Option<&Path>, account: Option<&Account>) -> Result<Self, Error> {
        if let Some(parent) = parent {
            std::fs::create_dir_all(parent).map_err(Error::file(parent))?;
            let home = Self::make_in(parent, account)?;
            if home.is_writable_by(account) {
                return Ok(home);
            }
        }
        Self::make_in(&std::env::temp_dir(), account)
    }

    fn make_in(parent: &Path, account: Option<&Account>) -> Result<Self, Error> {
        let parent = std::path::absolute(parent).map_err(Error::file(parent))?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).permissions(std::fs::Permissions::from_mode(0o700));
        let folder = builder.tempdir_in(&parent).map_err(Error::file(&parent))?;
        if let Some(account) = account {
            let given = chown(folder.path(), Some(account.uid), Some(account.gid));
            given.map_err(Error::file(folder.path()))?;
        }
        Ok(Self(folder))
    }

    fn is_writable_by(&self, account: Option<&Account>) -> bool {
        let mut probe = Command::new("/bin/sh");
        probe.args(["-c", "cd \"$1\" && echo probe >probe && rm probe", "probe"]).arg(self.0.path());
        // Its own folder may be out of the account's reach as well.
        probe.current_dir("/");
        let guard = Guard { account: account.cloned(), ..Guard::default() };
        Child::run("probing a folder", &probe, &guard, PROBE_LIMIT).is_ok()
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The folder of one server, made by whoever runs it.
    pub(super) fn server(&self, name: &str, account: Option<&Account>) -> Result<PathBuf, Error> {
        let folder = self.path().join(name);
        std::fs::create_dir(&folder).map_err(Error::file(&folder))?;
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&folder, private).map_err(Error::file(&folder))?;
        if let Some(account) = account {
            chown(&folder, Some(account.uid), Some(account.gid)).map_err(Error::file(&folder))?;
        }
        Ok(folder)
    }
}
