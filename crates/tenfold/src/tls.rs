//! TLS of the pooler, from PEM files: what is shown to clients and servers, and whom we believe.
//!
//! **Mechanism.** libpq's six modes in rustls terms. Towards servers `allow`, `prefer` and `require` believe any
//! certificate (its signatures over the handshake are still checked), `verify-ca` one of a known authority, `verify-full`
//! one for this very name. Towards clients a certificate is asked for where there is a `ca`, and required by
//! `verify-ca` and `verify-full`. Protocol version 1.2 or 1.3; ALPN is `postgresql`, which direct TLS of PostgreSQL 17
//! asks for (documentation, 54.2.11).
//!
//! **Failure.** A file that cannot be read, holds no certificate or the wrong key is named; none is ever printed.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tenfold_pooler::config::{ClientTls, ServerTls, TlsMode};

const ALPN: &[u8] = b"postgresql";
/// The word for the authorities the operating system believes.
pub const SYSTEM: &str = "system";
/// A file of certificates is smaller than this, all the world's authorities included.
const PEM_BYTES_MAX: u64 = 8 << 20;

/// TLS towards clients.
///
/// # Errors
/// What is wrong with which file.
pub fn towards_clients(
    certificate: &Path,
    key: &Path,
    ca: Option<&Path>,
    mode: TlsMode,
) -> Result<ClientTls, String> {
    let chain = certificates(certificate)?;
    let end_point = chain.first().and_then(|first| tenfold_pgwire::scram::end_point_hash(first));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = match ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(roots_of(ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = if mode < TlsMode::VerifyCa { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(ca, &error))?)
        }
    };
    let mut config = builder
        .with_single_cert(chain, private_key(key)?)
        .map_err(|error| format!("{} does not fit {}: {error}", key.display(), certificate.display()))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(ClientTls { mode, config: Some(Arc::new(config)), end_point: end_point.map(Into::into) })
}

/// TLS towards servers. `ca` is a file, or the word `system`.
///
/// # Errors
/// What is wrong with which file.
pub fn towards_servers(
    mode: TlsMode,
    ca: Option<&Path>,
    identity: Option<(&Path, &Path)>,
) -> Result<ServerTls, String> {
    if mode == TlsMode::Disable {
        return Ok(ServerTls { mode, config: None });
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match ca {
        Some(ca) if mode >= TlsMode::VerifyCa => {
            let roots = Arc::new(if ca == Path::new(SYSTEM) { system_roots()? } else { roots_of(ca)? });
            let strict =
                WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
            let strict = strict.build().map_err(|error| wrong(ca, &error))?;
            if mode == TlsMode::VerifyFull {
                strict
            } else {
                Arc::new(Lenient { provider: Arc::clone(&provider), roots: Some(roots) })
            }
        }
        _ => Arc::new(Lenient { provider: Arc::clone(&provider), roots: None }),
    };
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| format!("{} does not fit {}: {error}", key.display(), certificate.display()))?,
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(ServerTls { mode, config: Some(Arc::new(config)) })
}

fn wrong(file: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{} cannot be used: {error}", file.display())
}

/// A text file, bounded.
///
/// # Errors
/// Why not, with its name.
pub fn read(file: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).and_then(|open| open.take(bytes_max + 1).read_to_end(&mut bytes));
    opened.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("{} is larger than {bytes_max} bytes", file.display()));
    }
    Ok(bytes)
}

/// A file of authorities as it stands, for who reads PEM by himself. All of it can be used, and there is at least one: a
/// list of none would be taken for one that believes nobody.
///
/// # Errors
/// What is wrong with which file.
pub fn authorities(file: &Path) -> Result<Vec<u8>, String> {
    let pem = read(file, PEM_BYTES_MAX)?;
    roots_in(&pem, file)?;
    Ok(pem)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates_in(&read(file, PEM_BYTES_MAX)?, file)
}

fn certificates_in(pem: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{} holds no certificate in PEM", file.display())),
        Err(error) => Err(wrong(file, &error)),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = read(file, PEM_BYTES_MAX)?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| format!("{} holds no private key in PEM without a passphrase", file.display()))
}

fn roots_of(file: &Path) -> Result<RootCertStore, String> {
    roots_in(&read(file, PEM_BYTES_MAX)?, file)
}

fn roots_in(pem: &[u8], file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(pem, file)? {
        roots.add(certificate).map_err(|error| wrong(file, &error))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // Some systems carry certificates that rustls does not take; the others are enough.
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err("the system has no authorities; install ca-certificates, or name a file".into());
    }
    Ok(roots)
}

/// Believes any certificate, or any of a known authority whatever its name. That the server holds the certificate's key
/// is always checked.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    roots: Option<Arc<RootCertStore>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rustls::{ClientConnection, ServerConnection};
    use tenfold_testkit::tls::{Authority, Identity};

    use super::*;

    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().expect("a folder") }
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path
        }

        fn identity(&self, name: &str, identity: &Identity) -> (PathBuf, PathBuf) {
            let certificate = self.write(&format!("{name}.crt"), &identity.certificate);
            (certificate, self.write(&format!("{name}.key"), &identity.key))
        }
    }

    /// Two ends in memory, until both are done or one refuses.
    fn shake(server: &ClientTls, client: &ServerTls, name: &str) -> Result<(), Error> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let (server, client) = (server.config.clone(), client.config.clone());
        let mut server = ServerConnection::new(server.expect("a configuration"))?;
        let mut client = ClientConnection::new(client.expect("a configuration"), name)?;
        let mut bytes = Vec::new();
        while client.is_handshaking() || server.is_handshaking() {
            bytes.clear();
            client.write_tls(&mut bytes).expect("memory");
            server.read_tls(&mut &bytes[..]).expect("memory");
            server.process_new_packets()?;
            bytes.clear();
            server.write_tls(&mut bytes).expect("memory");
            client.read_tls(&mut &bytes[..]).expect("memory");
            client.process_new_packets()?;
        }
        // The server may refuse the client's certificate only after the client was done.
        bytes.clear();
        client.write_tls(&mut bytes).expect("memory");
        server.read_tls(&mut &bytes[..]).expect("memory");
        server.process_new_packets().map(drop)
    }

    #[test]
    fn each_mode_believes_whom_it_says() {
        let (files, known, stranger) = (Files::new(), Authority::new("known"), Authority::new("stranger"));
        let ca = files.write("ca.crt", known.certificate());
        let (certificate, key) = files.identity("server", &known.server(&["db.example"]));
        let ours = towards_clients(&certificate, &key, None, TlsMode::Prefer).expect("a server");
        assert!(ours.end_point.as_ref().is_some_and(|hash| hash.len() == 32));
        let (certificate, key) = files.identity("other", &stranger.server(&["db.example"]));
        let theirs = towards_clients(&certificate, &key, None, TlsMode::Prefer).expect("a server");

        let check = |mode: TlsMode, server: &ClientTls, name: &str, is_believed: bool| {
            let client = towards_servers(mode, Some(&ca), None).expect("a client");
            assert_eq!(shake(server, &client, name).is_ok(), is_believed, "{mode:?} {name}");
        };
        check(TlsMode::Require, &ours, "other.example", true);
        check(TlsMode::Require, &theirs, "db.example", true);
        check(TlsMode::VerifyCa, &ours, "other.example", true);
        check(TlsMode::VerifyCa, &theirs, "db.example", false);
        check(TlsMode::VerifyFull, &ours, "db.example", true);
        check(TlsMode::VerifyFull, &ours, "other.example", false);
        check(TlsMode::VerifyFull, &theirs, "db.example", false);
    }

    #[test]
    fn a_clients_certificate_is_wanted_where_it_is_verified() {
        let (files, known, stranger) = (Files::new(), Authority::new("known"), Authority::new("stranger"));
        let ca = files.write("ca.crt", known.certificate());
        let (certificate, key) = files.identity("server", &known.server(&["db"]));
        let server = |mode| towards_clients(&certificate, &key, Some(&ca), mode).expect("a server");
        let client = |authority: Option<&Authority>| {
            let identity = authority.map(|authority| files.identity("client", &authority.client("app")));
            let identity = identity.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
            towards_servers(TlsMode::Require, None, identity).expect("a client")
        };
        let check = |mode: TlsMode, authority: Option<&Authority>, is_believed: bool| {
            assert_eq!(shake(&server(mode), &client(authority), "db").is_ok(), is_believed, "{mode:?}");
        };
        check(TlsMode::Require, None, true);
        check(TlsMode::Require, Some(&known), true);
        check(TlsMode::VerifyCa, None, false);
        check(TlsMode::VerifyCa, Some(&stranger), false);
        check(TlsMode::VerifyFull, Some(&known), true);
    }

    #[test]
    fn a_file_that_is_of_no_use_is_named() {
        let (files, authority) = (Files::new(), Authority::new("known"));
        let (certificate, key) = files.identity("server", &authority.server(&["db"]));
        let (_, other_key) = files.identity("other", &authority.server(&["db"]));
        let absent = files.folder.path().join("absent.crt");
        let check = |certificate: &Path, key: &Path, ca: Option<&Path>, expected: &str| {
            let error = towards_clients(certificate, key, ca, TlsMode::Require).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(&absent, &key, None, "cannot read");
        check(&key, &key, None, "holds no certificate");
        check(&certificate, &certificate, None, "holds no private key");
        check(&certificate, &other_key, None, "does not fit");
        check(&certificate, &key, Some(&key), "holds no certificate");
        let garbage =
            files.write("garbage.crt", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
        check(&garbage, &key, None, "garbage.crt");
        check(&certificate, &key, Some(&garbage), "garbage.crt");
        let empty = files.write("empty.crt", "");
        check(&certificate, &key, Some(&empty), "holds no certificate");
        let error = towards_servers(TlsMode::VerifyFull, Some(&empty), None).unwrap_err();
        assert!(error.contains("holds no certificate"), "{error}");
    }
}
