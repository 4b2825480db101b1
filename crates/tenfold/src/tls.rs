//! TLS of the pooler, from PEM files: what is shown to clients and servers, and whom we believe.
//!
//! **Mechanism.** libpq's six modes in rustls terms. Towards servers `allow`, `prefer` and `require` believe any
//! certificate (its signatures over the handshake are still checked), `verify-ca` one of a known authority, `verify-full`
//! one for this very name. Towards clients a certificate is asked for where there is a `ca`, and required by
//! `verify-ca` and `verify-full`. Protocol version 1.2 or 1.3, or 1.3 alone; cipher suites those named, or all that the
//! provider has; ALPN is `postgresql`, which direct TLS of PostgreSQL 17
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
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, Error, ProtocolVersion,
    RootCertStore, ServerConfig, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
};
use tenfold_pooler::config::{ClientTls, ServerTls, TlsMode};
use tenfold_pooler::tls::{MakeTls, TlsFiles, TlsVersion, digest};

const ALPN: &[u8] = b"postgresql";
/// The word for the authorities the operating system believes.
pub const SYSTEM: &str = "system";
/// A file of certificates is smaller than this, all the world's authorities included.
const PEM_BYTES_MAX: u64 = 8 << 20;

/// What makes TLS of files in this folder.
#[must_use]
pub fn maker(folder: &Path) -> MakeTls {
    let (of_clients, of_servers) = (folder.to_owned(), folder.to_owned());
    MakeTls {
        towards_clients: Arc::new(move |mode, files| towards_clients(&of_clients, mode, files)),
        towards_servers: Arc::new(move |mode, files| towards_servers(&of_servers, mode, files)),
    }
}

/// TLS towards clients, of files in `folder`; none without a certificate, which no mode but `disable` allows.
///
/// # Errors
/// What is wrong with which file.
pub fn towards_clients(folder: &Path, mode: TlsMode, files: &TlsFiles) -> Result<ClientTls, String> {
    let none = ClientTls { mode, files: files.clone(), ..ClientTls::none() };
    let Some((certificate, key)) = files.identity()? else {
        let why = "TLS towards clients needs a certificate and a key";
        return if mode == TlsMode::Disable { Ok(none) } else { Err(why.into()) };
    };
    let ca = files.ca.as_deref().map(|ca| folder.join(ca));
    if mode >= TlsMode::VerifyCa && ca.is_none() {
        return Err(NOTHING_TO_VERIFY.into());
    }
    let (certificate, key) = (folder.join(certificate), folder.join(key));
    let chain = certificates(&certificate)?;
    let end_point = chain.first().and_then(|first| tenfold_pgwire::scram::end_point_hash(first));
    let provider = Arc::new(provider(files)?);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(versions(files)).map_err(|error| error.to_string())?;
    let builder = match ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(roots_of(&certificates(&ca)?, &ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = if mode < TlsMode::VerifyCa { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(&ca, &error))?)
        }
    };
    let mut config = builder
        .with_single_cert(chain, private_key(&key)?)
        .map_err(|error| format!("{} does not fit {}: {error}", key.display(), certificate.display()))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Who names suites in an order means it.
    config.ignore_client_order = !files.ciphers.is_empty() || !files.tls13_ciphers.is_empty();
    Ok(ClientTls { config: Some(Arc::new(config)), end_point: end_point.map(Into::into), ..none })
}

/// TLS towards servers, of files in `folder`. `ca` is a file, or the word `system`.
///
/// # Errors
/// What is wrong with which file.
pub fn towards_servers(folder: &Path, mode: TlsMode, files: &TlsFiles) -> Result<ServerTls, String> {
    let none = ServerTls { mode, files: files.clone(), ..ServerTls::none() };
    if mode == TlsMode::Disable {
        return Ok(none);
    }
    let provider = Arc::new(provider(files)?);
    let mut held: Vec<CertificateDer<'static>> = Vec::new();
    let mut roots = None;
    if mode >= TlsMode::VerifyCa {
        let ca = files.ca.as_deref().ok_or(NOTHING_TO_VERIFY)?;
        let (found, known) = believed(folder, ca)?;
        held.extend(found);
        roots = Some((Arc::new(known), folder.join(ca)));
    }
    let verifier: Arc<dyn ServerCertVerifier> = match roots {
        Some((roots, ca)) if mode == TlsMode::VerifyFull => {
            let strict = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
            strict.build().map_err(|error| wrong(&ca, &error))?
        }
        roots => Arc::new(Lenient { provider: Arc::clone(&provider), roots: roots.map(|(roots, _)| roots) }),
    };
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(versions(files)).map_err(|error| error.to_string())?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match files.identity()? {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let (certificate, key) = (folder.join(certificate), folder.join(key));
            let chain = certificates(&certificate)?;
            held.extend(chain.iter().cloned());
            builder.with_client_auth_cert(chain, private_key(&key)?).map_err(|error| {
                format!("{} does not fit {}: {error}", key.display(), certificate.display())
            })?
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A key that fits the same certificate is the same key, so the certificates say it all.
    let choice = format!("{files:?}");
    let parts: Vec<&[u8]> = held.iter().map(AsRef::as_ref).chain([choice.as_bytes()]).collect();
    Ok(ServerTls { config: Some(Arc::new(config)), digest: Some(digest(&parts)), ..none })
}

const NOTHING_TO_VERIFY: &str = "there are no authorities (ca) to verify certificates against";

/// The provider with the suites that were named, in their order; those of a version of which none was named are all
/// there.
fn provider(files: &TlsFiles) -> Result<CryptoProvider, String> {
    let all = aws_lc_rs::default_provider();
    let of_version = |version: ProtocolVersion, named: &[CipherSuite]| -> Vec<SupportedCipherSuite> {
        let of_version =
            || all.cipher_suites.iter().filter(|suite| suite.version().version == version).copied();
        if named.is_empty() {
            return of_version().collect();
        }
        named.iter().filter_map(|named| of_version().find(|suite| suite.suite() == *named)).collect()
    };
    let mut cipher_suites = of_version(ProtocolVersion::TLSv1_3, &files.tls13_ciphers);
    cipher_suites.extend(of_version(ProtocolVersion::TLSv1_2, &files.ciphers));
    let named = files.tls13_ciphers.iter().chain(&files.ciphers);
    for suite in named {
        if !cipher_suites.iter().any(|known| known.suite() == *suite) {
            return Err(format!(
                "this build has no cipher suite {}",
                tenfold_pooler::tls::suite_name(*suite)
            ));
        }
    }
    Ok(CryptoProvider { cipher_suites, ..all })
}

static FROM_TLS12: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
static FROM_TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

fn versions(files: &TlsFiles) -> &'static [&'static SupportedProtocolVersion] {
    match files.version_min {
        TlsVersion::Tls12 => &FROM_TLS12,
        TlsVersion::Tls13 => &FROM_TLS13,
    }
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

fn roots_in(pem: &[u8], file: &Path) -> Result<RootCertStore, String> {
    roots_of(&certificates_in(pem, file)?, file)
}

fn roots_of(certificates: &[CertificateDer<'static>], file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(|error| wrong(file, &error))?;
    }
    Ok(roots)
}

/// The certificates of whom to believe, and what is made of them.
fn believed(folder: &Path, ca: &str) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), String> {
    if ca != SYSTEM {
        let file = folder.join(ca);
        let found = certificates(&file)?;
        let roots = roots_of(&found, &file)?;
        return Ok((found, roots));
    }
    let found = rustls_native_certs::load_native_certs().certs;
    let mut roots = RootCertStore::empty();
    // Some systems carry certificates that rustls does not take; the others are enough.
    let (added, _) = roots.add_parsable_certificates(found.iter().cloned());
    if added == 0 {
        return Err("the system has no authorities; install ca-certificates, or name a file".into());
    }
    Ok((found, roots))
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

    /// Files by their whole paths.
    fn made_of(identity: Option<(&Path, &Path)>, ca: Option<&Path>) -> TlsFiles {
        let text = |path: &Path| path.display().to_string();
        TlsFiles {
            certificate: identity.map(|(certificate, _)| text(certificate)),
            key: identity.map(|(_, key)| text(key)),
            ca: ca.map(text),
            ..TlsFiles::default()
        }
    }

    fn server_of(
        certificate: &Path,
        key: &Path,
        ca: Option<&Path>,
        mode: TlsMode,
    ) -> Result<ClientTls, String> {
        towards_clients(Path::new(""), mode, &made_of(Some((certificate, key)), ca))
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
        let ours = server_of(&certificate, &key, None, TlsMode::Prefer).expect("a server");
        assert!(ours.end_point.as_ref().is_some_and(|hash| hash.len() == 32));
        let (certificate, key) = files.identity("other", &stranger.server(&["db.example"]));
        let theirs = server_of(&certificate, &key, None, TlsMode::Prefer).expect("a server");

        let check = |mode: TlsMode, server: &ClientTls, name: &str, is_believed: bool| {
            let client = towards_servers(Path::new(""), mode, &made_of(None, Some(&ca))).expect("a client");
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
        let server = |mode| server_of(&certificate, &key, Some(&ca), mode).expect("a server");
        let client = |authority: Option<&Authority>| {
            let identity = authority.map(|authority| files.identity("client", &authority.client("app")));
            let identity = identity.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
            towards_servers(Path::new(""), TlsMode::Require, &made_of(identity, None)).expect("a client")
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
            let error = server_of(certificate, key, ca, TlsMode::Require).unwrap_err();
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
        let error =
            towards_servers(Path::new(""), TlsMode::VerifyFull, &made_of(None, Some(&empty))).unwrap_err();
        assert!(error.contains("holds no certificate"), "{error}");
    }
}
