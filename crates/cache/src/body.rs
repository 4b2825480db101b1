//! A stored body: bytes of the process, or, where it is large, a file in memory.
//!
//! **Intuition.** Sending bytes of the process copies them into the socket, and for a large body that copy is most of what a
//! hit costs. What lies in a file the kernel can send from where it lies (`sendfile`). So large bodies are kept in files
//! that exist in memory alone and have no name.
//!
//! **Mechanism.** A [`Body`] is one or the other; both are cheap to clone and to cut. A file is written once, when its body
//! is complete, and then sealed: neither its bytes nor its length can change again, so what a socket still has to send
//! stays what it was. Whoever needs the bytes themselves, to compress or to share them, reads them ([`Body::read`]).
//!
//! **Failure.** Each file is a descriptor, so there is a limit to them ([`Bodies`]). Beyond it, and where the system makes
//! no file, a body is kept as bytes, which any body can be. A file weighs its pages and what the kernel keeps of it.
//!
//! Source: memfd_create(2), fcntl(2) on seals, sendfile(2).

use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};

use crate::permit::{Permit, Permits};

/// Smaller bodies are copied: a second system call and the pages' bookkeeping cost as much as copying 48 KiB. Measured with
/// wrk on loopback, processor time of a hit from a file and copied: 48 KiB 14.4 and 14.1 µs, 64 KiB 15.3 and 18.5,
/// 1 MiB 118 and 206.
pub(crate) const FILE_BYTES_MIN: usize = 64 << 10;
/// Of the descriptors that the process may have, files take one in so many at most; the rest is for connections.
const DESCRIPTORS_DIVISOR: u64 = 4;
/// Memory comes in pages of this size.
const PAGE_BYTES: u64 = 4096;
/// The kernel's inode, entry and open file, and ours: about 0.6, 0.2 and 0.3 KiB, and 0.1.
const FILE_OVERHEAD_BYTES: u64 = 1280;

/// A stored body, or a range of one.
#[derive(Clone, Debug)]
pub enum Body {
    /// Bytes of the process.
    Memory(Bytes),
    /// A range of a file in memory.
    File(FileRange),
}

/// A range of a file that holds a body. It lies within the file.
#[derive(Clone, Debug)]
pub struct FileRange {
    file: Arc<BodyFile>,
    start: usize,
    len: usize,
}

#[derive(Debug)]
struct BodyFile {
    file: File,
    _permit: Permit,
}

/// Makes bodies, and counts those in files.
#[derive(Debug)]
pub(crate) struct Bodies {
    files: Arc<Permits>,
    files_max: usize,
    /// How many of them the limit on descriptors leaves room for. Asked for when the first one is made: by then the process
    /// has raised its limit.
    room: OnceLock<usize>,
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Memory(bytes)
    }
}

/// Holds those bytes. What can't be read is like nothing.
impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Body {
    fn eq(&self, bytes: &T) -> bool {
        self.read().is_ok_and(|own| own == bytes.as_ref())
    }
}

impl Body {
    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File(range) => range.len,
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A range of it, as far as it goes.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        match self {
            Self::Memory(bytes) => Self::Memory(bytes.slice(start..end)),
            Self::File(whole) => {
                let file = Arc::clone(&whole.file);
                Self::File(FileRange { file, start: whole.start + start, len: end - start })
            }
        }
    }

    /// The bytes; those of a file are copied.
    ///
    /// # Errors
    /// What the system says of a file that it does not read.
    pub fn read(&self) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes.clone()),
            Self::File(_) => {
                let mut bytes = Vec::with_capacity(self.len());
                self.append_to(&mut bytes)?;
                Ok(bytes.into())
            }
        }
    }

    /// Copies the bytes to the end of `out`.
    ///
    /// # Errors
    /// As [`Body::read`]; then `out` is as it was.
    pub fn append_to(&self, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Memory(bytes) => out.extend_from_slice(bytes),
            Self::File(range) => {
                let before = out.len();
                out.resize(before + range.len, 0);
                let read = range.file.file.read_exact_at(&mut out[before..], range.start as u64);
                if read.is_err() {
                    out.truncate(before);
                }
                read?;
            }
        }
        Ok(())
    }

    /// The memory it takes.
    pub(crate) fn weight(&self) -> u64 {
        let len = self.len() as u64;
        match self {
            Self::Memory(_) => len,
            Self::File(_) => len.next_multiple_of(PAGE_BYTES) + FILE_OVERHEAD_BYTES,
        }
    }

    /// Where it is, which clones share and nothing else that is held meanwhile.
    pub(crate) fn place(&self) -> (usize, usize) {
        match self {
            Self::Memory(bytes) => (bytes.as_ptr().addr(), bytes.len()),
            Self::File(range) => (Arc::as_ptr(&range.file).addr() + range.start, range.len),
        }
    }

    /// Its first byte, where that lies in memory that a hit will need.
    #[inline]
    pub(crate) fn first(&self) -> Option<u8> {
        match self {
            Self::Memory(bytes) => bytes.first().copied(),
            Self::File(_) => None,
        }
    }
}

impl FileRange {
    /// Where it begins in the file.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start
    }

    /// How long it is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl AsFd for FileRange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.file.as_fd()
    }
}

impl Bodies {
    /// At most `files_max` bodies in files, and no more than the limit on descriptors leaves room for.
    pub(crate) fn new(files_max: usize) -> Self {
        Self { files: Arc::default(), files_max, room: OnceLock::new() }
    }

    /// How many are in files.
    pub(crate) fn files(&self) -> u64 {
        self.files.out() as u64
    }

    /// The body that these pieces are.
    pub(crate) fn make(&self, pieces: &[Bytes]) -> Body {
        let len = pieces.iter().map(Bytes::len).sum();
        let file = if len >= FILE_BYTES_MIN { self.one_more() } else { None };
        if let Some(file) = file.and_then(|permit| BodyFile::new(pieces, permit).ok()) {
            return Body::File(FileRange { file: Arc::new(file), start: 0, len });
        }
        if let [whole] = pieces {
            return Body::Memory(whole.clone());
        }
        let mut body = Vec::with_capacity(len);
        pieces.iter().for_each(|piece| body.extend_from_slice(piece));
        Body::Memory(body.into_boxed_slice().into())
    }
}

impl Bodies {
    fn one_more(&self) -> Option<Permit> {
        let room = *self.room.get_or_init(|| {
            let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
            usize::try_from(descriptors / DESCRIPTORS_DIVISOR).unwrap_or(usize::MAX)
        });
        self.files.take(self.files_max.min(room))
    }
}

impl BodyFile {
    fn new(pieces: &[Bytes], permit: Permit) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = File::from(memfd_create(c"tenfold-body", flags)?);
        pieces.iter().try_for_each(|piece| file.write_all(piece))?;
        let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL))?;
        Ok(Self { file, _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many bytes, no two neighbours alike, in two pieces.
    fn pieces(len: usize) -> [Bytes; 2] {
        let bytes: Bytes = (0..len).map(|n| u8::try_from(n % 251).expect("below 251")).collect();
        [bytes.slice(..len / 3), bytes.slice(len / 3..)]
    }

    fn is_file(body: &Body) -> bool {
        matches!(body, Body::File(_))
    }

    #[test]
    fn both_kinds_hold_the_same_bytes() {
        let bodies = Bodies::new(8);
        for len in [1, FILE_BYTES_MIN - 1, FILE_BYTES_MIN, FILE_BYTES_MIN + 4097] {
            let pieces = pieces(len);
            let expected = pieces.concat();
            let body = bodies.make(&pieces);
            assert_eq!(is_file(&body), len >= FILE_BYTES_MIN);
            assert_eq!((body.len(), &body.read().unwrap()[..]), (len, &expected[..]));
            for range in [0..0, 0..1, len / 2..len, len - 1..len + 9, len + 3..len + 4] {
                let part = body.slice(range.clone());
                let expected = &expected[range.start.min(len)..range.end.min(len)];
                assert_eq!(part.len(), expected.len());
                let mut out = b"before".to_vec();
                part.append_to(&mut out).unwrap();
                assert_eq!(out, [b"before", expected].concat(), "{range:?}");
                let again = part.slice(0..1).read().unwrap();
                assert_eq!(&again[..], &expected[..expected.len().min(1)]);
            }
        }
    }

    #[test]
    fn there_are_no_more_files_than_may_be() {
        let bodies = Bodies::new(2);
        let pieces = pieces(FILE_BYTES_MIN);
        let mut made: Vec<Body> = (0..3).map(|_| bodies.make(&pieces)).collect();
        assert_eq!(made.iter().map(is_file).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(bodies.files(), 2);
        let cut = made[0].slice(0..1);
        made.remove(0);
        assert!(!is_file(&bodies.make(&pieces)), "a range keeps the file");
        drop(cut);
        assert!(is_file(&bodies.make(&pieces)), "its place is free again");
        assert!(!is_file(&Bodies::new(0).make(&pieces)));
    }

    #[test]
    fn a_file_can_not_be_changed() {
        let body = Bodies::new(1).make(&pieces(FILE_BYTES_MIN));
        let Body::File(range) = &body else { panic!("a file") };
        let file = &range.file.file;
        assert!(file.write_at(b"x", 0).is_err());
        assert!(file.set_len(0).is_err() && file.set_len(1 << 20).is_err());
    }

    #[test]
    fn a_file_weighs_its_pages() {
        let weight = |len| Bodies::new(1).make(&pieces(len)).weight();
        assert_eq!(weight(FILE_BYTES_MIN), FILE_BYTES_MIN as u64 + FILE_OVERHEAD_BYTES);
        assert_eq!(weight(FILE_BYTES_MIN + 1), FILE_BYTES_MIN as u64 + PAGE_BYTES + FILE_OVERHEAD_BYTES);
        assert_eq!(weight(100), 100);
    }
}
