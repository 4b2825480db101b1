//! A request's fields, kept.
//!
//! The edge's buffer moves on while a fill runs, and the response's `Vary` comes later than the request. So the lead's
//! and each follower's fields are kept, in one allocation.

use smallvec::SmallVec;

use crate::Field;

/// Header fields in one buffer.
#[derive(Clone, Debug)]
pub(crate) struct KeptFields {
    bytes: Box<[u8]>,
    /// Where each name and each value ends, in turn.
    ends: SmallVec<[u32; 32]>,
}

impl KeptFields {
    pub(crate) fn new(fields: &[Field<'_>]) -> Self {
        let length = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        let mut bytes = Vec::with_capacity(length);
        let mut ends = SmallVec::with_capacity(fields.len() * 2);
        for (name, value) in fields {
            for part in [name, value] {
                bytes.extend_from_slice(part);
                ends.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            }
        }
        Self { bytes: bytes.into_boxed_slice(), ends }
    }

    /// As they came.
    pub(crate) fn fields(&self) -> SmallVec<[Field<'_>; 32]> {
        let mut start = 0;
        let mut part = |end: u32| {
            let from = std::mem::replace(&mut start, end as usize);
            self.bytes.get(from..end as usize).unwrap_or_default()
        };
        self.ends.chunks_exact(2).map(|pair| (part(pair[0]), part(pair[1]))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_were() {
        let fields: [Field<'_>; 3] = [(b"Accept", b"*/*"), (b"X", b""), (b"accept", b"text/html")];
        assert_eq!(KeptFields::new(&fields).fields().as_slice(), &fields);
        assert!(KeptFields::new(&[]).fields().is_empty());
    }
}
