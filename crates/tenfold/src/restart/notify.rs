//! Tells the service manager that this process is ready, and that it is the one to watch from now on.
//!
//! **Mechanism.** sd_notify(3): one datagram to the socket that `NOTIFY_SOCKET` names, a path or, with `@`, a name of the
//! abstract namespace. After an online restart the message makes the new process the service's main one.
//!
//! **Failure.** None that matters: without such a socket there is nobody to tell, and one that takes nothing is a service
//! manager's own affair.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that the service is ready, and which process it is.
pub fn ready() {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        let _ = tell(&socket, &format!("READY=1\nMAINPID={}", std::process::id()));
    }
}

fn tell(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let sender = UnixDatagram::unbound()?;
    // The service manager must not be able to hold us up.
    sender.set_nonblocking(true)?;
    sender.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_hears_by_a_path_and_by_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("tenfold-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let check = |socket: &OsStr, listener: &UnixDatagram| {
            tell(socket, "READY=1\nMAINPID=7").unwrap();
            let mut got = [0; 64];
            let len = listener.recv(&mut got).unwrap();
            assert_eq!(&got[..len], b"READY=1\nMAINPID=7");
        };
        check(path.as_os_str(), &by_path);
        check(OsStr::new(&format!("@{name}")), &by_name);
    }
}
