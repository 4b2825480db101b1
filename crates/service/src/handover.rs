//! What passes between a process and its successor: frames over a Unix socket, some with a descriptor.
//!
//! **Intuition.** A socket belongs to whoever holds a descriptor of it, and the kernel hands descriptors from process to
//! process (SCM_RIGHTS, unix(7)). With each goes what its owner knows of it, as a frame; neither end of the connection
//! behind it notices.
//!
//! **Mechanism.** A frame is a kind, a length, at most one descriptor and a body. The descriptor travels with the frame's
//! first byte, so that descriptors and frames come in the same order. [`Sender`] and [`Receiver`] are the two halves of a
//! connection, and block: each has a thread of its own. [`Writer`] and [`Reader`] write and read bodies.
//!
//! **Failure.** The other process is one of the same user, and still nothing of what it says is trusted: bodies are
//! bounded by [`BODY_BYTES_MAX`] and read as they come, descriptors that no frame claims end the conversation, and a
//! body that is not what its kind says is [`Malformed`].

mod body;

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

pub use self::body::{Malformed, Reader, Writer};
pub use crate::socket::{PrivateSocket, is_of_same_user};

/// The longest body: a client with as many prepared statements as it may have (16 MiB), and what else it holds.
pub const BODY_BYTES_MAX: usize = 24 * 1_024 * 1_024;
/// Kind, whether a descriptor comes with it, length of the body.
const HEADER_BYTES: usize = 6;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1_024;
/// Descriptors that wait for their frames. The kernel gives at most one frame's with a read.
const DESCRIPTORS_MAX: usize = 16;
/// Descriptors taken with one read: one more than there can be is noticed rather than lost.
const DESCRIPTORS_PER_READ: usize = 4;

/// What one process says to the other at once.
#[derive(Debug)]
pub struct Frame {
    /// What it is.
    pub kind: u8,
    /// What it says, of at most [`BODY_BYTES_MAX`] bytes.
    pub body: Vec<u8>,
    /// The socket it is about.
    pub descriptor: Option<OwnedFd>,
}

/// The half that sends.
#[derive(Debug)]
pub struct Sender {
    stream: UnixStream,
}

/// The half that receives.
#[derive(Debug)]
pub struct Receiver {
    stream: UnixStream,
    unread: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    chunk: Box<[u8]>,
}

impl Frame {
    /// A frame without a descriptor.
    #[must_use]
    pub fn new(kind: u8, body: Writer) -> Self {
        Self { kind, body: body.into_bytes(), descriptor: None }
    }
}

/// Connects to the process that listens on `path`, if it is one of this user.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` where nobody listens, `PermissionDenied` where somebody else does.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    if is_of_same_user(&stream)? { Ok(stream) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// The two halves of a connection.
///
/// # Errors
/// If there is no descriptor left.
pub fn split(stream: UnixStream) -> io::Result<(Sender, Receiver)> {
    let sender = Sender { stream: stream.try_clone()? };
    let chunk = vec![0; READ_BYTES].into_boxed_slice();
    Ok((sender, Receiver { stream, unread: Vec::new(), descriptors: VecDeque::new(), chunk }))
}

impl Sender {
    /// Sends a frame, waiting until the kernel has all of it.
    ///
    /// # Errors
    /// The socket's; the descriptor may have gone all the same. A body that is too long is `InvalidInput`.
    pub fn send(&mut self, frame: &Frame) -> io::Result<()> {
        let len = u32::try_from(frame.body.len()).ok().filter(|_| frame.body.len() <= BODY_BYTES_MAX);
        let len = len.ok_or(io::ErrorKind::InvalidInput)?;
        let mut head = [0; HEADER_BYTES];
        head[0] = frame.kind;
        head[1] = u8::from(frame.descriptor.is_some());
        head[2..].copy_from_slice(&len.to_be_bytes());
        let sent = self.send_first(&head, frame)?;
        self.stream.write_all(head.get(sent..).unwrap_or_default())?;
        self.stream.write_all(&frame.body[sent.saturating_sub(HEADER_BYTES)..])
    }

    /// Sends the beginning, and with it the descriptor.
    fn send_first(&self, head: &[u8], frame: &Frame) -> io::Result<usize> {
        let descriptors: Vec<_> = frame.descriptor.iter().map(AsFd::as_fd).collect();
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let parts = [IoSlice::new(head), IoSlice::new(&frame.body)];
            match sendmsg(&self.stream, &parts, &mut ancillary, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                sent => return Ok(sent?),
            }
        }
    }

    /// Ends the conversation for both halves.
    pub fn close(&self) {
        // Closed already is as good.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// The same half once more, to close it from elsewhere.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()? })
    }
}

impl Receiver {
    /// How long [`receive`](Self::receive) waits; `None`: for ever.
    ///
    /// # Errors
    /// The socket's.
    pub fn set_limit(&self, limit: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(limit)
    }

    /// The next frame; `None` at the end. Blocks.
    ///
    /// # Errors
    /// The socket's, `WouldBlock` after the limit, `UnexpectedEof` within a frame, `InvalidData` where frames and
    /// descriptors do not fit.
    pub fn receive(&mut self) -> io::Result<Option<Frame>> {
        while self.unread.len() < HEADER_BYTES {
            if !self.read()? {
                return if self.unread.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
        let (kind, has_descriptor) = (self.unread[0], self.unread[1]);
        let len = u32::from_be_bytes([self.unread[2], self.unread[3], self.unread[4], self.unread[5]]);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if has_descriptor > 1 || len > BODY_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        while self.unread.len() < HEADER_BYTES + len {
            if !self.read()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.unread.split_off(HEADER_BYTES + len);
        let mut body = std::mem::replace(&mut self.unread, rest);
        body.drain(..HEADER_BYTES);
        let descriptor = match has_descriptor {
            0 => None,
            _ => Some(self.descriptors.pop_front().ok_or(io::ErrorKind::InvalidData)?),
        };
        Ok(Some(Frame { kind, body, descriptor }))
    }

    /// Reads once; false at the end.
    fn read(&mut self) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_READ))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut self.chunk)];
        let received = match recvmsg(&self.stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => return Ok(true),
            received => received?,
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if self.descriptors.len() > DESCRIPTORS_MAX || received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.unread.extend_from_slice(&self.chunk[..received.bytes]);
        Ok(received.bytes > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn pair() -> (Sender, Receiver) {
        let (one, other) = UnixStream::pair().unwrap();
        (Sender { stream: one }, split(other).unwrap().1)
    }

    fn frame(kind: u8, body: &[u8], descriptor: Option<OwnedFd>) -> Frame {
        Frame { kind, body: body.to_vec(), descriptor }
    }

    #[test]
    fn frames_arrive_in_order_each_with_its_own_descriptor() {
        let (mut sender, mut receiver) = pair();
        let (mut first, first_end) = UnixStream::pair().unwrap();
        let (mut second, second_end) = UnixStream::pair().unwrap();
        let large = vec![7; 3 * READ_BYTES];
        let sending = std::thread::spawn(move || {
            sender.send(&frame(1, b"a", Some(first_end.into()))).unwrap();
            sender.send(&frame(2, &large, None)).unwrap();
            sender.send(&frame(3, b"", Some(second_end.into()))).unwrap();
        });
        first.write_all(b"1").unwrap();
        second.write_all(b"2").unwrap();
        let read_from = |frame: Frame| {
            let mut byte = [0];
            UnixStream::from(frame.descriptor.unwrap()).read_exact(&mut byte).unwrap();
            byte[0]
        };
        let got = receiver.receive().unwrap().unwrap();
        assert_eq!((got.kind, &got.body[..]), (1, &b"a"[..]));
        assert_eq!(read_from(got), b'1');
        let got = receiver.receive().unwrap().unwrap();
        assert_eq!((got.kind, got.body.len(), got.descriptor.is_some()), (2, 3 * READ_BYTES, false));
        assert_eq!(read_from(receiver.receive().unwrap().unwrap()), b'2');
        sending.join().unwrap();
        assert!(receiver.receive().unwrap().is_none());
    }

    #[test]
    fn what_does_not_fit_ends_the_conversation() {
        let check = |bytes: &[u8], expected: io::ErrorKind| {
            let (mut raw, other) = UnixStream::pair().unwrap();
            let (_, mut receiver) = split(other).unwrap();
            raw.write_all(bytes).unwrap();
            drop(raw);
            assert_eq!(receiver.receive().unwrap_err().kind(), expected, "{bytes:?}");
        };
        check(&[1, 0, 0], io::ErrorKind::UnexpectedEof);
        check(&[1, 0, 0, 0, 0, 2, 9], io::ErrorKind::UnexpectedEof);
        check(&[1, 0, 0xff, 0xff, 0xff, 0xff], io::ErrorKind::InvalidData);
        check(&[1, 7, 0, 0, 0, 0], io::ErrorKind::InvalidData);
        // A descriptor that is announced and does not come.
        check(&[1, 1, 0, 0, 0, 0], io::ErrorKind::InvalidData);
    }

    #[test]
    fn descriptors_that_no_frame_claims_are_not_gathered() {
        let (sender, mut receiver) = pair();
        // Frames that carry descriptors and do not say so.
        let sending = std::thread::spawn(move || {
            for _ in 0..2 * DESCRIPTORS_MAX {
                let (one, _other) = UnixStream::pair().unwrap();
                let head = [1, 0, 0, 0, 0, 0];
                let claimed = frame(1, b"", Some(one.into()));
                if sender.send_first(&head, &claimed).is_err() {
                    return;
                }
            }
            sender.close();
        });
        let error = std::iter::from_fn(|| match receiver.receive() {
            Ok(Some(_)) => Some(None),
            Ok(None) => None,
            Err(error) => Some(Some(error)),
        });
        let error = error.flatten().next().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(receiver);
        sending.join().unwrap();
    }
}
