//! `tls-server-end-point`: the hash that ties an exchange to the server's certificate.
//!
//! **Intuition.** Both ends hash the certificate they see. If someone in the middle shows another one, the hashes differ
//! and the exchange fails.
//!
//! **Mechanism.** Which hash depends on the certificate's own signature: the same one, but SHA-256 in place of MD5 and
//! SHA-1. To find it, the DER is walked to `signatureAlgorithm`, no further.
//!
//! **Failure.** A certificate signed without a separate hash (Ed25519), or one that we cannot read, has no such
//! hash: `None`, and channel binding is not offered.
//!
//! Source: RFC 5929 §4.1; RFC 5280 §4.1 (certificates), RFC 4055 (RSASSA-PSS); `be_tls_get_certificate_hash`.

use aws_lc_rs::digest::{self, Algorithm, SHA224, SHA256, SHA384, SHA512};

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// `hashAlgorithm [0]` of RSASSA-PSS-params.
const PSS_HASH: u8 = 0xa0;

/// 1.2.840.113549.1.1, with the last number left out.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
const RSA_PSS: u8 = 10;
/// 1.2.840.10045.4, with what follows left out.
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
/// 2.16.840.1.101.3.4.2, with the last number left out.
const SHA_2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

/// The hash of a certificate in DER; `None` where none is defined.
#[must_use]
pub fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate_fields, _) = element(certificate, SEQUENCE)?;
    let (_, _, behind_tbs) = element(certificate_fields, SEQUENCE)?;
    let (_, signature_algorithm, _) = element(behind_tbs, SEQUENCE)?;
    let algorithm = hash_of(signature_algorithm)?;
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

/// The hash of a signature's AlgorithmIdentifier.
fn hash_of(algorithm: &[u8]) -> Option<&'static Algorithm> {
    let (_, identifier, parameters) = element(algorithm, OBJECT_IDENTIFIER)?;
    if let Some(rest) = identifier.strip_prefix(RSA) {
        return match rest {
            [4 | 5 | 11] => Some(&SHA256),
            [12] => Some(&SHA384),
            [13] => Some(&SHA512),
            [14] => Some(&SHA224),
            [RSA_PSS] => pss_hash(parameters),
            _ => None,
        };
    }
    match identifier.strip_prefix(ECDSA)? {
        [1] | [3, 2] => Some(&SHA256),
        [3, 1] => Some(&SHA224),
        [3, 3] => Some(&SHA384),
        [3, 4] => Some(&SHA512),
        _ => None,
    }
}

/// The hash in RSASSA-PSS-params; left out, it is SHA-1, in whose place SHA-256 stands.
fn pss_hash(parameters: &[u8]) -> Option<&'static Algorithm> {
    let (_, fields, _) = element(parameters, SEQUENCE)?;
    let Some((_, hash, _)) = element(fields, PSS_HASH) else { return Some(&SHA256) };
    let (_, hash, _) = element(hash, SEQUENCE)?;
    let (_, identifier, _) = element(hash, OBJECT_IDENTIFIER)?;
    match identifier.strip_prefix(SHA_2)? {
        [1] => Some(&SHA256),
        [2] => Some(&SHA384),
        [3] => Some(&SHA512),
        [4] => Some(&SHA224),
        _ => None,
    }
}

/// Reads one DER element of this tag: the tag, its content, and what stands behind it.
fn element(der: &[u8], tag: u8) -> Option<(u8, &[u8], &[u8])> {
    let (&found, rest) = der.split_first().filter(|&(&found, _)| found == tag)?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // More than four bytes of length are no certificate.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let len = bytes.iter().fold(0_u32, |len, &byte| len << 8 | u32::from(byte));
            (usize::try_from(len).ok()?, rest)
        }
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(len)?;
    Some((found, content, behind))
}

#[cfg(test)]
mod tests {
    use super::super::BASE64;
    use super::*;
    use base64::Engine as _;
    use proptest::prelude::*;

    /// A DER element; content of less than 64 KiB.
    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = u16::try_from(content.len()).expect("short").to_be_bytes();
        let head = match content.len() {
            0..=0x7f => vec![tag, len[1]],
            0x80..=0xff => vec![tag, 0x81, len[1]],
            _ => vec![tag, 0x82, len[0], len[1]],
        };
        [&head, content].concat()
    }

    /// A certificate whose signature has this algorithm and these parameters.
    fn certificate(identifier: &[&[u8]], parameters: &[u8]) -> Vec<u8> {
        let tbs = der(SEQUENCE, &[7; 300]);
        let algorithm =
            der(SEQUENCE, &[der(OBJECT_IDENTIFIER, &identifier.concat()), parameters.to_vec()].concat());
        der(SEQUENCE, &[tbs, algorithm, der(0x03, &[0; 65])].concat())
    }

    fn check(identifier: &[&[u8]], parameters: &[u8], expected: Option<&'static Algorithm>) {
        let certificate = certificate(identifier, parameters);
        let expected = expected.map(|algorithm| digest::digest(algorithm, &certificate).as_ref().to_vec());
        assert_eq!(end_point_hash(&certificate), expected, "{identifier:?}");
    }

    #[test]
    fn the_hash_is_that_of_the_signature_but_no_weaker_than_sha_256() {
        for (last, hash) in
            [(4, &SHA256), (5, &SHA256), (11, &SHA256), (12, &SHA384), (13, &SHA512), (14, &SHA224)]
        {
            check(&[RSA, &[last]], &[5, 0], Some(hash));
        }
        for (last, hash) in [
            (&[1][..], &SHA256),
            (&[3, 1], &SHA224),
            (&[3, 2], &SHA256),
            (&[3, 3], &SHA384),
            (&[3, 4], &SHA512),
        ] {
            check(&[ECDSA, last], &[], Some(hash));
        }
        check(&[RSA, &[RSA_PSS]], &der(SEQUENCE, &[]), Some(&SHA256));
        for (last, hash) in [(1, &SHA256), (2, &SHA384), (3, &SHA512), (4, &SHA224)] {
            let identifier = der(OBJECT_IDENTIFIER, &[SHA_2, &[last]].concat());
            let parameters = der(SEQUENCE, &der(PSS_HASH, &der(SEQUENCE, &identifier)));
            check(&[RSA, &[RSA_PSS]], &parameters, Some(hash));
        }
    }

    /// `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -sha384 -nodes -subj /CN=a -days 36500`
    const MADE_BY_OPENSSL: &str = "MIIBbjCCARWgAwIBAgIUSErdu4d5JrCPDT5KsuaDfX5mfqwwCgYIKoZIzj0EAwMwDDEKMAgGA1UEAwwBYTAgFw0yNjExMjIxNTM3MTla\
         GA8yMTI2MTAyOTE1MzcxOVowDDEKMAgGA1UEAwwBYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABI3r8Hpn1eJts005V7K+TIgxOIXk\
         RnRcWbg51QFPbMy23NJTj5JlZvtBOfRPxib7BmcTN4rRwK3SIJzw71wJhiyjUzBRMB0GA1UdDgQWBBR3zTAtfX67ZZKgKEuS43d4DMxV\
         7jAfBgNVHSMEGDAWgBR3zTAtfX67ZZKgKEuS43d4DMxV7jAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMDA0cAMEQCIGRfhk1TOAQa\
         BF+Rfz5DZZkk0Gd0oA6rNjPEhjigUR/GAiBuINzwQUe11hEp06QISM3dJVSf2Al6LUdQB4Eg277A4w==";

    #[test]
    fn a_certificate_of_openssl_is_read() {
        let certificate = BASE64.decode(MADE_BY_OPENSSL).expect("base64");
        let hash = end_point_hash(&certificate).expect("ECDSA with SHA-384");
        assert_eq!(hash, digest::digest(&SHA384, &certificate).as_ref());
    }

    #[test]
    fn without_a_hash_there_is_no_binding() {
        check(&[&[0x2b, 0x65, 0x70]], &[], None);
        check(&[RSA, &[1]], &[], None);
        check(&[ECDSA, &[3, 9]], &[], None);
        let whole = certificate(&[ECDSA, &[3, 2]], &[]);
        for len in 0..whole.len() {
            assert_eq!(end_point_hash(&whole[..len]), None, "{len}");
        }
        assert_eq!(end_point_hash(b"\x30\x84\xff\xff\xff\xff"), None);
        assert_eq!(end_point_hash(b"\x30\x80\x30\x80"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = end_point_hash(&bytes);
        }
    }
}
