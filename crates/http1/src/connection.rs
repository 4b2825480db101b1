//! The Connection field: which fields live for one hop only (RFC 9110 §7.6.1).

use crate::Field;

/// The tokens of one Connection value, trimmed; empty elements are skipped.
pub fn connection_tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(crate::trim_ows).filter(|token| !token.is_empty())
}

/// Is this field always for one hop only, named by Connection or not?
#[must_use]
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    let _ = name;
    false
}

/// The field names that Connection declares for one hop only, except those it may never name.
pub fn hop_by_hop_named<'f, 'b>(fields: &'f [Field<'b>]) -> HopByHopNamed<'f, 'b> {
    HopByHopNamed { fields, value: b"" }
}

/// See [`hop_by_hop_named`].
#[derive(Clone, Debug)]
pub struct HopByHopNamed<'f, 'b> {
    fields: &'f [Field<'b>],
    value: &'b [u8],
}

impl<'b> Iterator for HopByHopNamed<'_, 'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        let _ = (self.fields, self.value);
        None
    }
}
