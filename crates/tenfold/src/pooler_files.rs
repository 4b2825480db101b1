//! The files that the pooler's configuration names: users, rules, passwords, certificates.
//!
//! **Intuition.** Only the binary reads files. The pooler gets a configuration with everything in it, so that a reload
//! is a comparison of two values, and its tests need no folder.
//!
//! **Mechanism.** Each path is taken relative to the configuration's folder. Mistakes are collected under the path of
//! the key that named the file, so that they are shown at its place.
//!
//! **Failure.** Every file that cannot be read or understood, at once, never showing what is in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tenfold_pooler::auth::hba::Hba;
use tenfold_pooler::auth::userlist;
use tenfold_pooler::config::{AuthMethod, AuthQuery, Config, ConfigError, Password, Users};
use tenfold_pooler::tls::TlsFiles;

use crate::config::pooler::{PoolerSettings, Secret, UserSources};
use crate::tls;

/// A million users with long secrets.
const USERS_BYTES_MAX: u64 = 256 << 20;
const HBA_BYTES_MAX: u64 = 4 << 20;
const PASSWORD_BYTES_MAX: u64 = 4 << 10;

/// The pooler's whole configuration. `salt_seed` is the process's own.
///
/// # Errors
/// Everything wrong with the files, then with the whole.
pub fn read(
    settings: &PoolerSettings,
    folder: &Path,
    salt_seed: [u8; 16],
) -> Result<Config, Vec<ConfigError>> {
    let mut files = Files { folder, errors: Vec::new() };
    let mut config = settings.config.clone();
    config.salt_seed = salt_seed;
    if let Some((mode, named)) = &settings.tls {
        let built = tls::towards_clients(folder, *mode, named);
        config.client_tls = files.keep("pooler.tls", built).unwrap_or(config.client_tls);
    }
    config.hba = settings.hba.as_deref().and_then(|file| files.hba(file));
    let everyone = files.sources("pooler.users", &settings.users);
    config.users.list.extend(everyone.users.list);
    for (name, secret) in &settings.listed {
        let password = files.secret(&format!("pooler.user.{name}"), secret);
        // Where no secret is asked for, being named is being listed.
        let needs_none = matches!(config.auth, AuthMethod::Trust | AuthMethod::Cert | AuthMethod::Peer);
        let is_listed = config.users.list.iter().any(|(known, _)| known == name);
        let password = password.or_else(|| (needs_none && !is_listed).then(|| Password::new("")));
        config.users.list.extend(password.map(|password| (Arc::clone(name), password)));
    }
    for (database, of_files) in config.databases.iter_mut().zip(&settings.databases) {
        let path = format!("database.{}", database.name);
        database.password = files.secret(&path, &of_files.password);
        let built = tls::towards_servers(folder, database.server_tls.mode, &of_files.tls);
        let key = if of_files.tls == TlsFiles::default() { "sslmode" } else { "tls" };
        if let Some(tls) = files.keep(&format!("{path}.{key}"), built) {
            database.server_tls = tls;
        }
        let own = files.sources(&format!("{path}.users"), &of_files.users);
        database.users = own.users;
        database.auth_query = own.query.or_else(|| everyone.query.clone());
    }
    if files.errors.is_empty() {
        config.validate()?;
        return Ok(config);
    }
    Err(files.errors)
}

/// Files beside the configuration, and what was wrong with them.
struct Files<'a> {
    folder: &'a Path,
    errors: Vec<ConfigError>,
}

/// What a `users = { … }` comes to.
struct Sources {
    users: Users,
    query: Option<AuthQuery>,
}

impl Files<'_> {
    fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    fn keep<T>(&mut self, path: &str, outcome: Result<T, String>) -> Option<T> {
        outcome.map_err(|message| self.errors.push(ConfigError { path: path.to_owned(), message })).ok()
    }

    fn text(&mut self, path: &str, file: &str, bytes_max: u64) -> Option<String> {
        let at = self.path(file);
        let read = tls::read(&at, bytes_max);
        let text = read
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", at.display())));
        self.keep(path, text)
    }

    fn hba(&mut self, file: &str) -> Option<Arc<str>> {
        let text = self.text("pooler.hba", file, HBA_BYTES_MAX)?;
        let Err(mistakes) = Hba::parse(&text) else { return Some(text.into()) };
        self.errors.extend(mistakes.into_iter().map(|mistake| ConfigError {
            path: "pooler.hba".into(),
            message: format!("{file}:{}: {}", mistake.line, mistake.message),
        }));
        None
    }

    fn sources(&mut self, path: &str, sources: &UserSources) -> Sources {
        let list = sources.file.as_deref().map(|file| self.users(&format!("{path}.file"), file));
        let query = sources.query.as_ref().map(|(query, secret)| {
            let password = self.secret(path, secret);
            AuthQuery { password, ..query.clone() }
        });
        Sources { users: Users { list: list.unwrap_or_default() }, query }
    }

    fn users(&mut self, path: &str, file: &str) -> Vec<(Arc<str>, Password)> {
        let Some(text) = self.text(path, file, USERS_BYTES_MAX) else { return Vec::new() };
        userlist::parse(&text).unwrap_or_else(|mistakes| {
            self.errors.extend(mistakes.into_iter().map(|mistake| ConfigError {
                path: path.to_owned(),
                message: format!("{file}:{}: {}", mistake.line, mistake.message),
            }));
            Vec::new()
        })
    }

    /// A password of a file ends before the line does: editors and `echo` end it.
    fn secret(&mut self, path: &str, secret: &Secret) -> Option<Password> {
        let file = match secret {
            Secret::None => return None,
            Secret::Text(password) => return Some(password.clone()),
            Secret::File(file) => file,
        };
        let path = format!("{path}.password_file");
        let text = self.text(&path, file, PASSWORD_BYTES_MAX)?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        let is_fine = !text.is_empty() && !text.contains(['\n', '\0']);
        let said = format!("{file} must hold a password and nothing else, in one line");
        self.keep(&path, if is_fine { Ok(Password::new(text)) } else { Err(said) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn settings(source: &str) -> PoolerSettings {
        let loaded = config::parse("tenfold.toml", source, &|_| None);
        let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render(false)));
        loaded.settings.pooler.expect("there is a database")
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        folder
    }

    const SHOP: &str = "[database.shop]\nprimary = \"postgres://app@127.0.0.1/shop\"\n";

    #[test]
    fn what_files_hold_ends_in_the_configuration() {
        let folder = folder(&[
            ("all.txt", "\"ann\" \"one\"\n\"bob\" \"two\"\n"),
            ("shop.txt", "\"ann\" \"three\"\n"),
            ("hba", "host all all 127.0.0.1/32 md5\n"),
            ("secret", "hunter2\r\n"),
        ]);
        let source = format!(
            "{SHOP}password_file = \"secret\"\nusers = {{ file = \"shop.txt\" }}\n\
             [pooler]\nhba = \"hba\"\nusers = {{ file = \"all.txt\", query = \"SELECT $1\", user = \"ann\", password_file = \"secret\" }}\n\
             user.carl.password = \"four\"\n"
        );
        let config = read(&settings(&source), folder.path(), [7; 16]).expect("all is there");
        let names = |users: &Users| users.list.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&config.users), ["ann", "bob", "carl"]);
        assert_eq!((config.salt_seed, config.hba.is_some()), ([7; 16], true));
        let shop = &config.databases[0];
        assert_eq!(shop.users.list, [("ann".into(), Password::new("three"))]);
        assert_eq!(shop.password, Some(Password::new("hunter2")));
        // The query of all databases is this one's, too.
        assert_eq!(
            shop.auth_query.as_ref().and_then(|query| query.password.clone()),
            Some(Password::new("hunter2"))
        );
        assert!(shop.server_tls.config.is_some());
    }

    #[test]
    fn a_user_that_is_named_is_listed_where_no_secret_is_asked_for() {
        let names = |auth: &str| {
            let source = format!("{SHOP}[pooler]\nauth = \"{auth}\"\nuser.ann.size = 2\n");
            let config = read(&settings(&source), Path::new(""), [0; 16]).expect("no files");
            config.users.list.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names("trust"), ["ann"]);
        assert!(names("md5").is_empty());
    }

    #[test]
    fn every_file_of_no_use_is_named_at_its_key_and_not_shown() {
        let folder = folder(&[
            ("users", "\"ann\" hunter2\n"),
            ("hba", "host all\n"),
            ("empty", "\n"),
            ("two", "hunter2\nx\n"),
        ]);
        let source = format!(
            "{SHOP}password_file = \"absent\"\nusers = {{ file = \"users\" }}\ntls = {{ ca = \"users\" }}\nsslmode = \"verify-ca\"\n\
             [pooler]\nhba = \"hba\"\nuser.ann.password_file = \"empty\"\nuser.bob.password_file = \"two\"\n\
             tls = {{ certificate = \"absent\", key = \"absent\" }}\n"
        );
        let errors = read(&settings(&source), folder.path(), [0; 16]).expect_err("all is wrong");
        let mut paths: Vec<_> = errors.iter().map(|error| error.path.as_str()).collect();
        paths.sort_unstable();
        let expected = [
            "database.shop.password_file",
            "database.shop.tls",
            "database.shop.users.file",
            "pooler.hba",
            "pooler.tls",
            "pooler.user.ann.password_file",
            "pooler.user.bob.password_file",
        ];
        assert_eq!(paths, expected, "{errors:?}");
        assert!(!format!("{errors:?}").contains("hunter2"));
    }
}
