//! What TLS is made of, as it is written down: files, the least version, cipher suites by name.
//!
//! **Intuition.** Only the process reads files, yet the console changes which ones are read while it runs. So a
//! configuration carries both: what was made of them, and what it was made of ([`TlsFiles`]), from which the process
//! makes it anew ([`MakeTls`]).
//!
//! **Mechanism.** Cipher suites are those of the one provider there is, under the names of the IANA registry and of
//! OpenSSL, which for TLS 1.3 are the same. None named means all of them. Those named are offered in their order, and
//! towards clients it is our order that decides, as with `ssl_prefer_server_ciphers` of PostgreSQL.
//!
//! **Failure.** A name that stands for none is told, with all that do. OpenSSL's words for groups (`HIGH`, `!aNULL`) are
//! such names: what a group holds is another program's to say.
//!
//! Source: IANA, "TLS Cipher Suites"; `openssl-ciphers(1)`, "Cipher suite names".

use std::sync::Arc;

use rustls::CipherSuite;

use crate::config::{ClientTls, ServerTls, TlsMode};

/// What TLS of one side is made of. Paths are as they were written, relative to the configuration's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate with its chain, in PEM.
    pub certificate: Option<String>,
    /// Its private key, in PEM.
    pub key: Option<String>,
    /// Whose certificates are believed, in PEM; towards servers also the word `system`.
    pub ca: Option<String>,
    /// Suites of TLS 1.2, by preference; empty: all.
    pub ciphers: Vec<CipherSuite>,
    /// Suites of TLS 1.3, by preference; empty: all.
    pub tls13_ciphers: Vec<CipherSuite>,
    /// Nothing older is spoken.
    pub version_min: TlsVersion,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2
    #[default]
    Tls12,
    /// 1.3
    Tls13,
}

/// Makes TLS of what is written down. Both read files, and so are called on the control thread only.
#[derive(Clone)]
pub struct MakeTls {
    /// Towards clients; the error names what is wrong with which file.
    pub towards_clients: Make<ClientTls>,
    /// Towards servers, likewise.
    pub towards_servers: Make<ServerTls>,
}

/// Makes one side's.
pub type Make<T> = Arc<dyn Fn(TlsMode, &TlsFiles) -> Result<T, String> + Send + Sync>;

/// Names of the suites of TLS 1.2: OpenSSL's, then IANA's.
pub const TLS12_NAMES: [&str; 12] = names(&TLS12);

/// Names of the suites of TLS 1.3.
pub const TLS13_NAMES: [&str; 3] =
    ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];

const TLS13: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// OpenSSL's name, IANA's, and the suite.
const TLS12: [(&str, &str, CipherSuite); 6] = [
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

const fn names(suites: &[(&'static str, &'static str, CipherSuite); 6]) -> [&'static str; 12] {
    let mut names = [""; 12];
    let mut at = 0;
    while at < suites.len() {
        names[at] = suites[at].0;
        names[suites.len() + at] = suites[at].1;
        at += 1;
    }
    names
}

/// The suite of TLS 1.2 of this name.
#[must_use]
pub fn tls12_suite(name: &str) -> Option<CipherSuite> {
    let is_it = |(openssl, iana, _): &&(&str, &str, CipherSuite)| *openssl == name || *iana == name;
    TLS12.iter().find(is_it).map(|(_, _, suite)| *suite)
}

/// The suite of TLS 1.3 of this name.
#[must_use]
pub fn tls13_suite(name: &str) -> Option<CipherSuite> {
    TLS13_NAMES.iter().zip(TLS13).find(|(known, _)| **known == name).map(|(_, suite)| suite)
}

/// OpenSSL's name of a suite.
#[must_use]
pub fn suite_name(suite: CipherSuite) -> &'static str {
    let older = TLS12.iter().find(|(_, _, known)| *known == suite).map(|(name, _, _)| *name);
    let newer = || TLS13.iter().zip(TLS13_NAMES).find(|(known, _)| **known == suite).map(|(_, name)| name);
    older.or_else(newer).unwrap_or("unknown")
}

/// OpenSSL's lists: names between colons. None, and the words with which PgBouncer names its own choice, are all there
/// are.
///
/// # Errors
/// The names that stand for none.
pub fn suites(list: &str, suite: fn(&str) -> Option<CipherSuite>) -> Result<Vec<CipherSuite>, Vec<String>> {
    let list = list.trim();
    if WHOLE.iter().any(|word| list.eq_ignore_ascii_case(word)) {
        return Ok(Vec::new());
    }
    let names = || list.split([':', ',', ' ']).filter(|name| !name.is_empty());
    let unknown: Vec<_> = names().filter(|name| suite(name).is_none()).map(str::to_owned).collect();
    let mut found: Vec<CipherSuite> = Vec::new();
    for known in names().filter_map(suite) {
        if !found.contains(&known) {
            found.push(known);
        }
    }
    if unknown.is_empty() { Ok(found) } else { Err(unknown) }
}

/// What PgBouncer's `client_tls_ciphers` may say without naming suites.
pub const WHOLE: [&str; 5] = ["", "default", "secure", "fast", "normal"];

/// The least version, of PgBouncer's `client_tls_protocols`; `None` where others than 1.2 and 1.3 are meant, or 1.2
/// alone.
#[must_use]
pub fn version_min(protocols: &str) -> Option<TlsVersion> {
    let protocols = protocols.to_ascii_lowercase();
    let words: Vec<_> = protocols.split([',', ':']).map(str::trim).collect();
    match words[..] {
        ["" | "secure" | "default"] | ["tlsv1.2", "tlsv1.3"] | ["tlsv1.3", "tlsv1.2"] => {
            Some(TlsVersion::Tls12)
        }
        ["tlsv1.3"] => Some(TlsVersion::Tls13),
        _ => None,
    }
}

impl TlsFiles {
    /// The identity, if there is one; half of one is told.
    ///
    /// # Errors
    /// Which half there is.
    pub fn identity(&self) -> Result<Option<(&str, &str)>, String> {
        match (self.certificate.as_deref(), self.key.as_deref()) {
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (None, None) => Ok(None),
            (Some(_), None) => Err("there is a certificate without its key".into()),
            (None, Some(_)) => Err("there is a key without its certificate".into()),
        }
    }
}

/// The hash of what some files held, and of which each was.
#[must_use]
pub fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

impl std::fmt::Debug for MakeTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MakeTls")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_of_the_provider_has_its_names_and_no_other_has() {
        let all: Vec<_> =
            rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES.iter().map(|suite| suite.suite()).collect();
        let named: Vec<_> = TLS13.into_iter().chain(TLS12.map(|(_, _, suite)| suite)).collect();
        assert_eq!(named.len(), all.len());
        assert!(named.iter().all(|suite| all.contains(suite)));
        for (index, name) in TLS12_NAMES.iter().enumerate() {
            assert_eq!(tls12_suite(name), Some(TLS12[index % 6].2), "{name}");
        }
        assert!(
            TLS13_NAMES.iter().all(|name| tls13_suite(name).is_some_and(|suite| suite_name(suite) == *name))
        );
    }

    #[test]
    fn a_list_is_all_understood_or_what_is_not_is_told() {
        let check = |list: &str, expected: Result<&[&str], &[&str]>| {
            let found = suites(list, tls12_suite);
            let told = match &found {
                Ok(found) => Ok(found.iter().map(|suite| suite_name(*suite)).collect::<Vec<_>>()),
                Err(unknown) => Err(unknown.iter().map(String::as_str).collect::<Vec<_>>()),
            };
            assert_eq!(told, expected.map(<[_]>::to_vec).map_err(<[_]>::to_vec), "{list}");
        };
        check("", Ok(&[]));
        check("Secure", Ok(&[]));
        let two =
            "ECDHE-RSA-AES128-GCM-SHA256:TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:ECDHE-ECDSA-CHACHA20-POLY1305";
        check(two, Ok(&["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"]));
        check("HIGH:!aNULL:ECDHE-RSA-AES128-GCM-SHA256", Err(&["HIGH", "!aNULL"]));
    }
}
