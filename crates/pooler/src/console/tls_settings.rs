//! The settings of TLS by PgBouncer's names, and TLS made anew of what they were set to.
//!
//! **Intuition.** A certificate and its key change one after the other, and between the two nothing fits. So SET keeps
//! what it was told, goes on with the TLS there was, says why, and the next SET tries again.
//!
//! **Mechanism.** What is written down stands beside what was made of it ([`TlsFiles`]); where SET changed the one,
//! [`remake`] has the process make the other ([`MakeTls`]). What belongs to each database here is changed wherever it
//! had the value that is shown, as with all settings. Those connected keep what they have; connections to servers are
//! replaced when free, as after RELOAD.
//!
//! **Failure.** A word or a cipher suite that there is not is refused. So is a mode that what there is does not allow:
//! to believe that certificates are verified would be worse than an error.

use crate::{
    config::{self, ANY_DATABASE, Config, ServerTls, TlsMode},
    console::api::Refused,
    tls::{self, MakeTls, TLS12_NAMES, TLS13_NAMES, TlsFiles, TlsVersion},
};

/// Whose TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// `client_tls_…`
    Clients,
    /// `server_tls_…`
    Servers,
}

/// What of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsKey {
    /// `…_sslmode`
    Mode,
    /// `…_ca_file`
    Ca,
    /// `…_cert_file`
    Certificate,
    /// `…_key_file`
    Key,
    /// `…_ciphers`
    Ciphers,
    /// `…_tls13_ciphers`, named `client_tls13_ciphers`
    Ciphers13,
    /// `…_protocols`
    Protocols,
}

const MODES: [(TlsMode, &str); 6] = [
    (TlsMode::Disable, "disable"),
    (TlsMode::Allow, "allow"),
    (TlsMode::Prefer, "prefer"),
    (TlsMode::Require, "require"),
    (TlsMode::VerifyCa, "verify-ca"),
    (TlsMode::VerifyFull, "verify-full"),
];

/// As text.
pub(super) fn read(config: &Config, side: Side, key: TlsKey) -> String {
    let none = ServerTls::none();
    let (mode, files) = match side {
        Side::Clients => (config.client_tls.mode, &config.client_tls.files),
        Side::Servers => {
            let tls = shown(config).map_or(&none, |database| &database.server_tls);
            (tls.mode, &tls.files)
        }
    };
    let path = |path: &Option<String>| path.clone().unwrap_or_default();
    let list = |suites: &[rustls::CipherSuite], whole: &str| match suites {
        [] => whole.to_owned(),
        some => some.iter().map(|suite| tls::suite_name(*suite)).collect::<Vec<_>>().join(":"),
    };
    match key {
        TlsKey::Mode => {
            MODES.iter().find(|(known, _)| *known == mode).map_or("", |(_, word)| word).to_owned()
        }
        TlsKey::Ca => path(&files.ca),
        TlsKey::Certificate => path(&files.certificate),
        TlsKey::Key => path(&files.key),
        TlsKey::Ciphers => list(&files.ciphers, "default"),
        TlsKey::Ciphers13 => list(&files.tls13_ciphers, ""),
        TlsKey::Protocols => protocols(files.version_min).to_owned(),
    }
}

/// Writes a value down.
///
/// # Errors
/// Why it is none.
pub(super) fn change(config: &mut Config, side: Side, key: TlsKey, value: &str) -> Result<(), String> {
    if side == Side::Clients {
        let tls = &mut config.client_tls;
        return write(&mut tls.mode, &mut tls.files, key, value);
    }
    let mut before = shown(config).map_or_else(ServerTls::none, |database| database.server_tls.clone());
    for tls in config.databases.iter_mut().map(|database| &mut database.server_tls) {
        if is_alike(tls, &before, key) {
            write(&mut tls.mode, &mut tls.files, key, value)?;
        }
    }
    // What cannot be is refused also where there is no database.
    write(&mut before.mode, &mut before.files, key, value)
}

fn write(mode: &mut TlsMode, files: &mut TlsFiles, key: TlsKey, value: &str) -> Result<(), String> {
    let path = || (!value.is_empty()).then(|| value.to_owned());
    let unknown = |unknown: Vec<String>, names: &[&str]| {
        format!("no cipher suite \"{}\"; there are {}", unknown.join("\", \""), names.join(", "))
    };
    match key {
        TlsKey::Mode => {
            let known = MODES.iter().find(|(_, word)| word.eq_ignore_ascii_case(value));
            *mode = known.ok_or("expected one of libpq's modes")?.0;
        }
        TlsKey::Ca => files.ca = path(),
        TlsKey::Certificate => files.certificate = path(),
        TlsKey::Key => files.key = path(),
        TlsKey::Ciphers => {
            let found = tls::suites(value, tls::tls12_suite);
            files.ciphers = found.map_err(|names| unknown(names, &TLS12_NAMES))?;
        }
        TlsKey::Ciphers13 => {
            let found = tls::suites(value, tls::tls13_suite);
            files.tls13_ciphers = found.map_err(|names| unknown(names, &TLS13_NAMES))?;
        }
        TlsKey::Protocols => {
            let version = tls::version_min(value);
            files.version_min =
                version.ok_or("TLS 1.2 and 1.3 are spoken, or 1.3 alone: secure, or tlsv1.3")?;
        }
    }
    Ok(())
}

/// Whether two have the same of this.
fn is_alike(one: &ServerTls, other: &ServerTls, key: TlsKey) -> bool {
    let (a, b) = (&one.files, &other.files);
    match key {
        TlsKey::Mode => one.mode == other.mode,
        TlsKey::Ca => a.ca == b.ca,
        TlsKey::Certificate => a.certificate == b.certificate,
        TlsKey::Key => a.key == b.key,
        TlsKey::Ciphers => a.ciphers == b.ciphers,
        TlsKey::Ciphers13 => a.tls13_ciphers == b.tls13_ciphers,
        TlsKey::Protocols => a.version_min == b.version_min,
    }
}

/// The database whose TLS is shown as everybody's.
fn shown(config: &Config) -> Option<&config::Database> {
    let any = config.databases.iter().find(|database| &*database.name == ANY_DATABASE);
    any.or(config.databases.first())
}

const fn protocols(version_min: TlsVersion) -> &'static str {
    match version_min {
        TlsVersion::Tls12 => "secure",
        TlsVersion::Tls13 => "tlsv1.3",
    }
}

/// Has TLS made of what is written down, where that is not what it was. What cannot be made yet stays as it was, and is
/// told.
///
/// # Errors
/// [`Refused::Value`]: a mode that cannot be.
pub(super) fn remake(now: &Config, next: &mut Config, make: &MakeTls) -> Result<Option<String>, Refused> {
    let mut waits = Vec::new();
    let (old, tls) = (&now.client_tls, &mut next.client_tls);
    if old.mode != tls.mode || old.files != tls.files {
        match (make.towards_clients)(tls.mode, &tls.files) {
            Ok(made) => *tls = made,
            Err(why) if old.mode == tls.mode => waits.push(why),
            Err(why) => return Err(Refused::Value(why)),
        }
    }
    for database in &mut next.databases {
        let old = now.databases.iter().find(|old| old.name == database.name).map(|old| &old.server_tls);
        let tls = &mut database.server_tls;
        if old.is_some_and(|old| old.mode == tls.mode && old.files == tls.files) {
            continue;
        }
        match (make.towards_servers)(tls.mode, &tls.files) {
            Ok(made) => *tls = made,
            Err(why) if old.is_some_and(|old| old.mode == tls.mode) => {
                if !waits.contains(&why) {
                    waits.push(why);
                }
            }
            Err(why) => return Err(Refused::Value(why)),
        }
    }
    let told = |waits: Vec<String>| format!("TLS stays as it was until this fits: {}", waits.join("; "));
    Ok((!waits.is_empty()).then(|| told(waits)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{ClientTls, Database};

    /// Files of one name fit each other; TLS that was made says of what by its digest.
    fn maker() -> MakeTls {
        let check = |files: &TlsFiles| match (&files.certificate, &files.key) {
            (a, b) if a == b => Ok(()),
            _ => Err("the key does not fit".to_owned()),
        };
        MakeTls {
            towards_clients: Arc::new(move |mode, files| {
                check(files)?;
                let end_point = files.key.as_deref().map(|key| key.as_bytes().into());
                Ok(ClientTls { mode, end_point, files: files.clone(), ..ClientTls::none() })
            }),
            towards_servers: Arc::new(move |mode, files| {
                check(files)?;
                if mode >= TlsMode::VerifyCa && files.ca.is_none() {
                    return Err("nothing to verify against".into());
                }
                let digest = Some(tls::digest(&[files.key.as_deref().unwrap_or_default().as_bytes()]));
                Ok(ServerTls { mode, files: files.clone(), digest, ..ServerTls::none() })
            }),
        }
    }

    fn set(config: &mut Config, key: &str, value: &str) -> Result<Option<String>, Refused> {
        let mut next = super::super::settings::set(config, key, value)?;
        let told = remake(config, &mut next, &maker())?;
        *config = next;
        Ok(told)
    }

    fn config(names: &[&str]) -> Config {
        let databases = names.iter().map(|name| Database::new(name, Vec::new())).collect();
        Config { databases, ..Config::default() }
    }

    #[test]
    fn a_certificate_waits_for_its_key() {
        let mut config = config(&["shop"]);
        assert_eq!(
            set(&mut config, "client_tls_cert_file", "a"),
            Ok(Some("TLS stays as it was until this fits: the key does not fit".into()))
        );
        assert_eq!(config.client_tls.end_point, None);
        // What has nothing to do with it does not ask again.
        assert_eq!(set(&mut config, "log_connections", "1"), Ok(None));
        assert_eq!(set(&mut config, "client_tls_key_file", "a"), Ok(None));
        assert_eq!(config.client_tls.end_point.as_deref(), Some(&b"a"[..]));
    }

    #[test]
    fn a_mode_that_cannot_be_is_refused() {
        let mut config = config(&["shop"]);
        assert!(matches!(set(&mut config, "server_tls_sslmode", "verify-full"), Err(Refused::Value(_))));
        assert_eq!(config.databases[0].server_tls.mode, TlsMode::Disable);
        assert_eq!(set(&mut config, "server_tls_ca_file", "system"), Ok(None));
        assert_eq!(set(&mut config, "server_tls_sslmode", "verify-full"), Ok(None));
        assert_eq!(config.databases[0].server_tls.mode, TlsMode::VerifyFull);
        // Without an authority, those there are go on being verified.
        assert!(set(&mut config, "server_tls_ca_file", "").is_ok_and(|told| told.is_some()));
    }

    #[test]
    fn databases_with_an_authority_of_their_own_keep_it() {
        let mut config = config(&["a", "b"]);
        config.databases[1].server_tls.files.ca = Some("own".into());
        assert_eq!(set(&mut config, "server_tls_ca_file", "new"), Ok(None));
        assert_eq!(set(&mut config, "server_tls_protocols", "TLSv1.3"), Ok(None));
        let files: Vec<_> = config.databases.iter().map(|database| &database.server_tls.files).collect();
        assert_eq!([files[0].ca.as_deref(), files[1].ca.as_deref()], [Some("new"), Some("own")]);
        assert!(files.iter().all(|files| files.version_min == TlsVersion::Tls13));
    }

    #[test]
    fn a_suite_that_there_is_not_is_told_with_those_there_are() {
        let mut config = config(&["shop"]);
        let refused = set(&mut config, "client_tls_ciphers", "HIGH:!aNULL").unwrap_err().to_string();
        assert!(refused.contains("\"HIGH\", \"!aNULL\"") && refused.contains(TLS12_NAMES[11]), "{refused}");
        let refused = set(&mut config, "server_tls13_ciphers", "AES").unwrap_err().to_string();
        assert!(refused.contains(TLS13_NAMES[2]) && !refused.contains(TLS12_NAMES[0]), "{refused}");
        assert_eq!(set(&mut config, "client_tls_ciphers", TLS12_NAMES[11]), Ok(None));
        assert_eq!(read(&config, Side::Clients, TlsKey::Ciphers), TLS12_NAMES[5]);
        assert_eq!(set(&mut config, "client_tls_ciphers", "secure"), Ok(None));
        assert_eq!(read(&config, Side::Clients, TlsKey::Ciphers), "default");
    }
}
