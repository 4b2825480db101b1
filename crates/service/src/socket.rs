//! Sockets that listen and sockets that were accepted, over TCP or in the file system.
//!
//! **Intuition.** A tier that speaks to programs on the same machine is also reached by a path: a Unix socket is cheaper
//! than loopback, and the kernel says which user is at the other end. Everything else is the same, so it is one type.
//!
//! **Mechanism.** [`Listener`] binds either kind. A Unix socket's file gets mode 0777, as PostgreSQL's default
//! `unix_socket_permissions` has it: who may connect is decided by the folder and by the tier. The file is removed with
//! the listener.
//!
//! **Failure.** A socket file that a dead process left behind is replaced; one that somebody listens on, or a file that
//! is no socket, is an [`Error::BindPath`]. Names of the abstract namespace have no permissions at all and are refused.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::Error;

/// Connections the kernel queues per listener until they are accepted. It lowers this to `net.core.somaxconn`.
pub const BACKLOG: i32 = 4_096;

/// The longest path of a Unix socket: `sun_path` of unix(7), less its final zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Mode of a Unix socket's file.
const SOCKET_MODE: u32 = 0o777;
/// Mode of a socket's file that is for one user alone.
const PRIVATE_MODE: u32 = 0o600;

/// A bound socket that nobody accepts from yet.
#[derive(Debug)]
pub struct Listener {
    pub(crate) source: Source,
    pub(crate) local: Address,
    /// Removes the file of a Unix socket, once the socket is closed.
    pub(crate) file: Option<SocketFile>,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// An accepted socket, non-blocking. A TCP socket has TCP_NODELAY set.
#[derive(Debug)]
pub enum Stream {
    /// From another machine, or from this one by loopback.
    Tcp(TcpStream),
    /// From this machine.
    Unix(UnixStream),
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Its address. IPv4 in IPv6 is told as IPv4.
    Tcp(SocketAddr),
    /// A process of this machine, as it was when it connected (SO_PEERCRED).
    Unix {
        /// Its effective user.
        uid: u32,
        /// Its effective group.
        gid: u32,
        /// Its number; `None` where the kernel does not tell, as across PID namespaces.
        pid: Option<i32>,
    },
}

/// The listening socket itself.
#[derive(Debug)]
pub(crate) enum Source {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

/// A Unix socket's file, which goes away with this, if it is ours.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: a successor may have put its own file in this place.
    identity: (u64, u64),
    /// False while another process listens on the same socket, whose file it is.
    pub(crate) is_ours: Arc<AtomicBool>,
}

/// A Unix socket for processes of the same user alone, and its file, which is removed with it.
#[derive(Debug)]
pub struct PrivateSocket {
    listener: UnixListener,
    file: SocketFile,
}

impl Listener {
    /// Binds and listens; connections queue from here on. Port 0 takes a free one. `[::]` accepts IPv4 too.
    pub fn bind(address: SocketAddr) -> Result<Self, Error> {
        Self::try_bind(address).map_err(|source| Error::Bind { address, advice: advice_on(&source), source })
    }

    /// Binds and listens on a path. A socket file that nobody listens on is replaced; its folder must be there.
    pub fn bind_path(path: &Path) -> Result<Self, Error> {
        Self::try_bind_path(path).map_err(|source| Error::BindPath {
            path: path.to_owned(),
            advice: advice_on_path(&source),
            source,
        })
    }

    fn try_bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restarted process must not wait for the last one's connections to leave TIME_WAIT.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // Linux gives accepted sockets the listener's: one call less for each.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let socket = mio::net::TcpListener::from_std(socket.into());
        let local = socket.local_addr()?;
        Ok(Self { source: Source::Tcp(socket), local: Address::Tcp(local), file: None })
    }

    fn try_bind_path(path: &Path) -> io::Result<Self> {
        let (socket, file) = bind_file(path, SOCKET_MODE)?;
        socket.set_nonblocking(true)?;
        let source = Source::Unix(mio::net::UnixListener::from_std(socket.into()));
        Ok(Self { source, local: Address::Unix(path.to_owned()), file: Some(file) })
    }

    /// A socket that listens already and came from another process. The file of a Unix socket stays that process's until
    /// [`own_files`](crate::acceptor::AcceptorHandle::own_files) says otherwise.
    ///
    /// # Errors
    /// If it is no socket that listens on an address of this kind.
    pub fn taken_over(socket: OwnedFd, at: &Address) -> io::Result<Self> {
        let socket = Socket::from(socket);
        if !socket.is_listener()? {
            return Err(io::Error::other("the socket does not listen"));
        }
        socket.set_nonblocking(true)?;
        match at {
            Address::Tcp(_) => {
                let socket = mio::net::TcpListener::from_std(socket.into());
                let local = Address::Tcp(socket.local_addr()?);
                Ok(Self { source: Source::Tcp(socket), local, file: None })
            }
            Address::Unix(path) => {
                let file = SocketFile::of(path)?;
                file.is_ours.store(false, Ordering::Relaxed);
                let source = Source::Unix(mio::net::UnixListener::from_std(socket.into()));
                Ok(Self { source, local: at.clone(), file: Some(file) })
            }
        }
    }

    /// Where it listens, with the port the kernel chose.
    #[must_use]
    pub fn local(&self) -> &Address {
        &self.local
    }
}

/// Binds a socket file that nobody listens on, and listens.
fn bind_file(path: &Path, mode: u32) -> io::Result<(Socket, SocketFile)> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes[0] == b'@' || bytes.contains(&0) || bytes.len() > SOCKET_PATH_BYTES_MAX {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    // Nobody can connect before it listens, so nobody finds it with another mode.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok((socket, file))
}

impl PrivateSocket {
    /// Binds a path with mode 0600 and listens. A file that nobody listens on is replaced.
    pub fn bind(path: &Path) -> Result<Self, Error> {
        let bound = bind_file(path, PRIVATE_MODE);
        let (socket, file) = bound.map_err(|source| Error::BindPath {
            path: path.to_owned(),
            advice: advice_on_path(&source),
            source,
        })?;
        Ok(Self { listener: socket.into(), file })
    }

    /// A connection whose other end is a process of this user; others are turned away. Blocks.
    ///
    /// # Errors
    /// The socket's.
    pub fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept()?;
            if is_of_same_user(&stream)? {
                return Ok(stream);
            }
        }
    }

    /// Removes the file: nobody new finds this socket, which another may put its own in the place of.
    pub fn remove_file(&self) {
        self.file.remove();
    }
}

/// Whether the other end is a process of this user, by what the kernel says (SO_PEERCRED).
///
/// # Errors
/// If it does not say.
pub fn is_of_same_user(stream: &UnixStream) -> io::Result<bool> {
    Ok(getsockopt(stream, PeerCredentials)?.uid() == nix::unistd::geteuid().as_raw())
}

/// Removes a socket file whose process is gone.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener whose queue is full must not keep us waiting; it is a listener all the same.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let identity = identity_of(path)?;
        Ok(Self { path: path.to_owned(), identity, is_ours: Arc::new(AtomicBool::new(true)) })
    }

    fn remove(&self) {
        let is_ours = self.is_ours.load(Ordering::Relaxed);
        if is_ours && identity_of(&self.path).is_ok_and(|found| found == self.identity) {
            // What cannot be removed is replaced by whoever listens here next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Address {
    /// The IP address and port, of a TCP listener.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Peer {
    /// The IP address, of a client that came by TCP.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix { .. } => None,
        }
    }
}

/// As logs tell it: an address, or `unix` with the process.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { pid: Some(pid), .. } => write!(f, "unix({pid})"),
            Self::Unix { .. } => f.write_str("unix"),
        }
    }
}

impl Stream {
    /// The address a TCP client connected to.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Best effort, never waiting: the refusal, then an orderly close. What the client has sent is read first, because
    /// a socket closed with unread bytes resets the connection, and a reset can overtake the refusal.
    pub(crate) fn say_and_close(&self, bytes: &[u8], scratch: &mut [u8]) {
        let said = match self {
            Self::Tcp(stream) => say(stream, bytes).and_then(|()| stream.shutdown(Shutdown::Write)),
            Self::Unix(stream) => say(stream, bytes).and_then(|()| stream.shutdown(Shutdown::Write)),
        };
        if said.is_err() {
            return;
        }
        // Nothing to read yet, or the end: either way the socket is closed now.
        let _ = match self {
            Self::Tcp(stream) => { stream }.read(scratch),
            Self::Unix(stream) => { stream }.read(scratch),
        };
    }
}

fn say(mut stream: impl Write, bytes: &[u8]) -> io::Result<()> {
    stream.write(bytes).map(drop)
}

impl Source {
    /// One connection from the kernel's queue, non-blocking; `WouldBlock` if there is none.
    pub(crate) fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                Ok((Stream::Tcp(stream.into()), Peer::Tcp(peer)))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                let stream = UnixStream::from(stream);
                let peer = unix_peer(&stream)?;
                Ok((Stream::Unix(stream), peer))
            }
        }
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(socket) => socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

/// What the kernel knows of the other end.
fn unix_peer(stream: &UnixStream) -> io::Result<Peer> {
    let known = getsockopt(stream, PeerCredentials)?;
    Ok(Peer::Unix { uid: known.uid(), gid: known.gid(), pid: Some(known.pid()).filter(|pid| *pid > 0) })
}

/// What to do about an address that cannot be bound.
fn advice_on(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the address is in use; stop the process that listens there (`ss -ltnp` names it) or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; ports below 1024 need the capability CAP_NET_BIND_SERVICE, or choose a higher port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; use one of its own, or 0.0.0.0 or [::] for all of them"
        }
        _ => "the operating system refused it",
    }
}

/// What to do about a path that cannot be bound.
fn advice_on_path(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there; stop it (`ss -lxp` names it) or choose another folder or port"
        }
        io::ErrorKind::AlreadyExists => "there is a file of this name that is no socket; move it away",
        io::ErrorKind::PermissionDenied => {
            "permission denied; the folder must be writable, and a socket in it ours"
        }
        io::ErrorKind::NotFound => "the folder is not there; make it",
        io::ErrorKind::InvalidFilename => {
            "the path must have 1 to 107 bytes and no zero in it, and names in the abstract namespace (`@…`) have no \
             permissions; choose a shorter path in the file system"
        }
        _ => "the operating system refused it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn advice_fits_the_error() {
        fn check(errno: Errno, advice: &str) {
            assert!(advice_on(&io::Error::from(errno)).contains(advice), "{errno}");
        }
        check(Errno::EADDRINUSE, "another port");
        check(Errno::EACCES, "CAP_NET_BIND_SERVICE");
        check(Errno::EADDRNOTAVAIL, "0.0.0.0 or [::]");
        check(Errno::EAFNOSUPPORT, "refused");
    }

    #[test]
    fn a_peer_is_told_as_logs_want_it() {
        fn check(peer: Peer, expected: &str) {
            assert_eq!(peer.to_string(), expected);
        }
        check(Peer::Tcp("192.0.2.7:99".parse().unwrap()), "192.0.2.7:99");
        check(Peer::Unix { uid: 0, gid: 0, pid: Some(42) }, "unix(42)");
        check(Peer::Unix { uid: 0, gid: 0, pid: None }, "unix");
    }
}
