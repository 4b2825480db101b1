//! Certificates for tests: an authority of one's own, and what it signs.
//!
//! **Mechanism.** ECDSA on P-256, made when asked for and kept nowhere; valid from 1975 to 4096, so that no test fails
//! on the day a file expires.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Signs certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its private key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, signed by its authority.
    pub certificate: String,
    /// PKCS #8.
    pub key: String,
}

impl Authority {
    /// An authority of this name.
    ///
    /// # Panics
    /// Without randomness, on which everything else would fail too.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = new_key();
        let certificate = params.self_signed(&key).expect("an authority signs itself").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Its own certificate, in PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A server's, for these names and addresses; the first is its common name.
    ///
    /// # Panics
    /// If a name is no host's.
    #[must_use]
    pub fn server(&self, names: &[&str]) -> Identity {
        self.sign(
            params(names.first().copied().unwrap_or_default(), names),
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    /// A client's, with this common name.
    #[must_use]
    pub fn client(&self, common_name: &str) -> Identity {
        self.sign(params(common_name, &[]), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Identity {
        params.extended_key_usages = vec![usage];
        let key = new_key();
        let certificate = params.signed_by(&key, &self.issuer).expect("an authority signs").pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

fn params(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names of hosts");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("the system has randomness")
}
