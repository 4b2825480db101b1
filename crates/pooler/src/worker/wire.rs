//! One connection's bytes, in and out: TCP or Unix, plain or TLS, never waiting.
//!
//! **Intuition.** Most writes are taken whole by the kernel and most reads are short, so the usual exchange is one call
//! each way and holds no buffer. Only what the kernel did not take is kept.
//!
//! **Mechanism.** [`Wire::send`] writes at once; a rest goes to `unsent` and the socket is watched for being writable
//! until it is gone. Whoever feeds a wire stops reading its own source while [`Wire::is_blocked`], so `unsent` holds no
//! more than one read's worth and what the pooler itself adds. TLS is rustls, driven by the same calls.
//!
//! **Failure.** Errors are the socket's; a TLS error closes the connection after its alert was tried.

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use mio::{Interest, Registry, Token};
use tenfold_service::acceptor::Stream;

/// A socket of either family.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: Socket,
    tls: Option<Box<rustls::Connection>>,
    unsent: Vec<u8>,
    /// Watched for being writable.
    watched: bool,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// So many bytes; `more`: the buffer was filled, so there may be more at once.
    Bytes { len: usize, more: bool },
    /// Nothing now.
    Nothing,
    /// The other side has ended.
    End,
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(buf),
            Self::Unix(socket) => socket.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(buf),
            Self::Unix(socket) => socket.write(buf),
        }
    }

    // TLS hands out records one slice each: without this every record would be a write of its own.
    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write_vectored(bufs),
            Self::Unix(socket) => socket.write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Socket {
    /// A socket that was accepted.
    pub(crate) fn of(stream: Stream) -> Self {
        match stream {
            Stream::Tcp(stream) => Self::Tcp(mio::net::TcpStream::from_std(stream)),
            Stream::Unix(stream) => Self::Unix(mio::net::UnixStream::from_std(stream)),
        }
    }

    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => registry.register(socket, token, interest),
            Self::Unix(socket) => registry.register(socket, token, interest),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => registry.reregister(socket, token, interest),
            Self::Unix(socket) => registry.reregister(socket, token, interest),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => registry.deregister(socket),
            Self::Unix(socket) => registry.deregister(socket),
        }
    }

    /// The error a connect ended with, if it did.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(socket) => socket.take_error(),
            Self::Unix(socket) => socket.take_error(),
        }
    }

    /// Whether a connect that was under way has succeeded.
    pub(crate) fn is_connected(&self) -> bool {
        match self {
            Self::Tcp(socket) => socket.peer_addr().is_ok(),
            Self::Unix(socket) => socket.peer_addr().is_ok(),
        }
    }
}

impl Wire {
    pub(crate) fn new(socket: Socket) -> Self {
        Self { socket, tls: None, unsent: Vec::new(), watched: false }
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The socket, as it was accepted.
    ///
    /// # Errors
    /// The wire itself, if TLS has begun: its session is not to be had without it.
    pub(crate) fn into_stream(self) -> Result<Stream, Self> {
        if self.tls.is_some() {
            return Err(self);
        }
        Ok(match self.socket {
            Socket::Tcp(socket) => Stream::Tcp(socket.into()),
            Socket::Unix(socket) => Stream::Unix(socket.into()),
        })
    }

    /// The socket once more, for another process; `None` if it speaks TLS, whose keys cannot be given away, or there is no
    /// descriptor left.
    pub(crate) fn share(&self) -> Option<OwnedFd> {
        let socket = self.tls.is_none().then(|| self.socket.as_fd())?;
        socket.try_clone_to_owned().ok()
    }

    /// Our own end of it; `None` of a Unix socket.
    pub(crate) fn local(&self) -> Option<std::net::SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.socket, Socket::Unix(_))
    }

    /// From here on everything is TLS.
    pub(crate) fn start_tls(&mut self, mut session: rustls::Connection) {
        // What waits is bounded by whoever feeds this wire, which stops while it is blocked.
        session.set_buffer_limit(None);
        self.tls = Some(Box::new(session));
    }

    /// Bytes that were read before it was known that they are TLS.
    ///
    /// # Errors
    /// If they are not.
    pub(crate) fn feed_tls(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = self.tls.as_mut() else { return Ok(()) };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            tls.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        answer(tls, &mut self.socket);
        Ok(())
    }

    /// The hash of the other side's certificate for channel binding (RFC 5929), where there is one.
    pub(crate) fn end_point(&self) -> Option<Arc<[u8]>> {
        let certificate = self.tls.as_ref()?.peer_certificates()?.first()?;
        tenfold_pgwire::scram::end_point_hash(certificate).map(Into::into)
    }

    /// Version and cipher, if encrypted.
    pub(crate) fn tls_text(&self) -> Option<String> {
        let tls = self.tls.as_ref()?;
        let version = tls.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default();
        let suite = tls.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
        Some(format!("{version}/{}", suite.unwrap_or_default()))
    }

    pub(crate) fn tls(&self) -> Option<&rustls::Connection> {
        self.tls.as_deref()
    }

    /// Has the event loop tell of this wire; `connecting` also of being writable.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token, connecting: bool) -> io::Result<()> {
        self.watched = connecting;
        let interest = if connecting { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.socket.register(registry, token, interest)
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.watched = false;
        self.socket.deregister(registry)
    }

    /// Whether bytes wait for the other side to take them.
    #[inline]
    pub(crate) fn is_blocked(&self) -> bool {
        !self.unsent.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Reads once.
    #[inline]
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<Got> {
        if self.tls.is_some() {
            return self.read_tls(buf);
        }
        loop {
            return match self.socket.read(buf) {
                Ok(0) => Ok(Got::End),
                Ok(len) => Ok(Got::Bytes { len, more: len == buf.len() }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Got::Nothing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    fn read_tls(&mut self, buf: &mut [u8]) -> io::Result<Got> {
        let Some(tls) = self.tls.as_mut() else { return Ok(Got::Nothing) };
        loop {
            match tls.reader().read(buf) {
                Ok(0) => return Ok(Got::End),
                // The socket, or the session, may hold more: only an empty read tells.
                Ok(len) => return Ok(Got::Bytes { len, more: true }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Got::End),
                Err(error) => return Err(error),
            }
            match tls.read_tls(&mut self.socket) {
                Ok(0) => return Ok(Got::End),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Got::Nothing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let processed = tls.process_new_packets();
            answer(tls, &mut self.socket);
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }

    /// Sends, keeping what is not taken. True if all of it is gone.
    #[inline]
    pub(crate) fn send(&mut self, registry: &Registry, token: Token, bytes: &[u8]) -> io::Result<bool> {
        if bytes.is_empty() {
            return Ok(!self.is_blocked());
        }
        if self.tls.is_some() {
            self.tls.as_mut().map_or(Ok(()), |tls| tls.writer().write_all(bytes))?;
            return self.flush(registry, token);
        }
        let mut sent = 0;
        if !self.unsent.is_empty() && !self.watched {
            // What was kept back goes with it.
            self.unsent.extend_from_slice(bytes);
            return self.flush(registry, token);
        }
        if self.unsent.is_empty() {
            sent = write_some(&mut self.socket, bytes)?;
            if sent == bytes.len() {
                return Ok(true);
            }
        }
        self.unsent.extend_from_slice(&bytes[sent..]);
        self.watch(registry, token)?;
        Ok(false)
    }

    /// Keeps bytes to be sent with what comes next, in one write; whoever calls this sends or flushes at once.
    ///
    /// # Errors
    /// If the TLS session takes no more.
    pub(crate) fn keep_back(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.tls.as_mut() {
            Some(tls) => tls.writer().write_all(bytes),
            None => {
                self.unsent.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Sends on what waits. True if all of it is gone.
    pub(crate) fn flush(&mut self, registry: &Registry, token: Token) -> io::Result<bool> {
        if let Some(tls) = self.tls.as_mut() {
            while tls.wants_write() {
                match tls.write_tls(&mut self.socket) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.watch(registry, token)?;
                        return Ok(false);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let sent = write_some(&mut self.socket, &self.unsent)?;
        if sent < self.unsent.len() {
            self.unsent.drain(..sent);
            self.watch(registry, token)?;
            return Ok(false);
        }
        self.unsent = Vec::new();
        if self.watched {
            self.watched = false;
            self.socket.reregister(registry, token, Interest::READABLE)?;
        }
        Ok(true)
    }

    fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        if self.watched {
            return Ok(());
        }
        self.watched = true;
        self.socket.reregister(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Says goodbye as TLS does, if the socket takes it.
    pub(crate) fn close_notify(&mut self) {
        if let Some(tls) = self.tls.as_mut() {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut self.socket);
        }
    }
}

/// Sends what reading brought about: an alert, or a handshake's answer. If the socket is full the next flush sends it.
fn answer(tls: &mut rustls::Connection, socket: &mut Socket) {
    while tls.wants_write() && tls.write_tls(socket).is_ok_and(|sent| sent > 0) {}
}

/// Writes until all is gone or the socket is full.
fn write_some(socket: &mut Socket, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.write(&bytes[sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => {
                sent += len;
                // A short write means full: being watched for room tells at once if that has changed.
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// Has the kernel look after connections whose other side may vanish.
///
/// # Errors
/// The socket's.
pub(crate) fn set_keepalive(socket: &socket2::Socket, tcp: &crate::config::Tcp) -> io::Result<()> {
    if tcp.keepalive {
        let mut keepalive = socket2::TcpKeepalive::new();
        if !tcp.keepalive_idle.is_zero() {
            keepalive = keepalive.with_time(tcp.keepalive_idle);
        }
        if !tcp.keepalive_interval.is_zero() {
            keepalive = keepalive.with_interval(tcp.keepalive_interval);
        }
        if tcp.keepalive_count > 0 {
            keepalive = keepalive.with_retries(tcp.keepalive_count);
        }
        socket.set_tcp_keepalive(&keepalive)?;
    }
    if !tcp.user_timeout.is_zero() {
        socket.set_tcp_user_timeout(Some(tcp.user_timeout))?;
    }
    Ok(())
}
