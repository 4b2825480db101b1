//! Messages on their way, copied only where something was put between them.
//!
//! **Intuition.** Most of what is read is passed on as it came. So a batch remembers which stretch of the read buffer to
//! pass on, and begins to copy only when something of ours has to go between.

use std::ops::Range;

/// What goes out in one write.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    data: &'a [u8],
    run: Range<usize>,
    staged: Vec<u8>,
}

impl<'a> Batch<'a> {
    /// `staged` is a spare buffer, empty or with what goes first.
    pub(crate) fn new(data: &'a [u8], staged: Vec<u8>) -> Self {
        Self { data, run: 0..0, staged }
    }

    /// Passes on a stretch of the data.
    #[inline]
    pub(crate) fn pass(&mut self, range: Range<usize>) {
        if self.run.end == range.start && !self.run.is_empty() {
            self.run.end = range.end;
        } else if self.run.is_empty() {
            self.run = range;
        } else {
            self.staged.extend_from_slice(&self.data[self.run.clone()]);
            self.run = range;
        }
    }

    /// Where something else is to be appended.
    pub(crate) fn stage(&mut self) -> &mut Vec<u8> {
        if !self.run.is_empty() {
            self.staged.extend_from_slice(&self.data[self.run.clone()]);
            self.run = 0..0;
        }
        &mut self.staged
    }

    /// Takes back the last bytes that were passed.
    pub(crate) fn unpass(&mut self, bytes: usize) {
        let run = bytes.min(self.run.len());
        self.run.end -= run;
        if run < bytes {
            self.staged.truncate(self.staged.len().saturating_sub(bytes - run));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.run.is_empty() && self.staged.is_empty()
    }

    /// All of it, in one piece.
    #[inline]
    pub(crate) fn bytes(&mut self) -> &[u8] {
        if self.staged.is_empty() {
            return &self.data[self.run.clone()];
        }
        self.stage()
    }

    /// The buffer, for the next batch.
    pub(crate) fn into_buffer(mut self) -> Vec<u8> {
        self.staged.clear();
        self.staged
    }

    /// Forgets what was sent.
    pub(crate) fn clear(&mut self) {
        self.run = 0..0;
        self.staged.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_untouched_stretch_is_not_copied() {
        let data = b"abcdef";
        let mut batch = Batch::new(data, Vec::new());
        batch.pass(1..2);
        batch.pass(2..5);
        assert_eq!(batch.bytes(), b"bcde");
        assert!(batch.staged.is_empty());
    }

    #[test]
    fn what_is_put_between_stays_between() {
        let data = b"abcdef";
        let mut batch = Batch::new(data, b"<".to_vec());
        batch.pass(0..2);
        batch.stage().extend_from_slice(b"--");
        batch.pass(2..3);
        batch.pass(4..6);
        assert_eq!(batch.bytes(), b"<ab--cef");
        batch.clear();
        assert!(batch.is_empty());
        assert!(batch.into_buffer().is_empty());
    }
}
