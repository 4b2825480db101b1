//! The common name in a client's certificate: all that `cert` authentication looks at.
//!
//! **Mechanism.** DER is read element by element (X.690): certificate, its fields, the subject, in it the attribute with
//! OID 2.5.4.3 (RFC 5280, section 4.1). The signature was verified by rustls before.
//!
//! **Failure.** Whatever is not as it should be has no name, and so lets nobody in.

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// The explicit version field, which may be missing.
const VERSION: u8 = 0xa0;

/// The subject's common name; the last one if there are several, as PostgreSQL takes it.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, fields, _) = element(certificate)?;
    let (tag, mut fields, _) = element(fields)?;
    if tag != SEQUENCE {
        return None;
    }
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        fields = element(fields)?.2;
    }
    let (tag, mut subject, _) = element(fields)?;
    if tag != SEQUENCE {
        return None;
    }
    let mut name = None;
    while let Some((SET, mut attributes, rest)) = element(subject) {
        while let Some((SEQUENCE, attribute, others)) = element(attributes) {
            let (tag, oid, value) = element(attribute)?;
            if tag == OID && oid == COMMON_NAME {
                let (_, value, _) = element(value)?;
                name = Some(String::from_utf8(value.to_vec()).ok().filter(|name| !name.contains('\0'))?);
            }
            attributes = others;
        }
        subject = rest;
    }
    name
}

/// One element: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut len = usize::from(first);
    if first & 0x80 != 0 {
        let digits = usize::from(first & 0x7f);
        if digits == 0 || digits > 4 {
            return None;
        }
        len = 0;
        for _ in 0..digits {
            let (&digit, after) = rest.split_first()?;
            len = len << 8 | usize::from(digit);
            rest = after;
        }
    }
    Some((tag, rest.get(..len)?, rest.get(len..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["x.example".to_owned()]).expect("a host name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Shop");
        for name in names {
            params.distinguished_name.push(rcgen::DnType::CommonName, *name);
        }
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn a_common_name_is_found() {
        assert_eq!(common_name(&certificate(&["app"])).as_deref(), Some("app"));
        assert_eq!(common_name(&certificate(&["größe"])).as_deref(), Some("größe"));
        assert_eq!(common_name(&certificate(&[])), None);
        assert_eq!(common_name(&certificate(&["a\0b"])), None);
    }

    #[test]
    fn what_is_cut_or_bent_has_no_name_and_does_no_harm() {
        let whole = certificate(&["app"]);
        for end in 0..whole.len() {
            let _ = common_name(&whole[..end]);
        }
        for at in 0..whole.len() {
            for bits in [0x00, 0x7f, 0x80, 0x84, 0xff] {
                let mut bent = whole.clone();
                bent[at] = bits;
                let _ = common_name(&bent);
            }
        }
    }
}
