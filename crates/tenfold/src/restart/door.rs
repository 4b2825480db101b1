//! The socket through which a successor comes, and what this process keeps to be able to let it in.
//!
//! **Mechanism.** Unless `admin.handover` names another place, the socket is in the folder that the service manager made
//! (`RUNTIME_DIRECTORY`), in the user's own (`XDG_RUNTIME_DIR`), or in one below the folder for temporary files that is
//! this user's alone; its name has the admin server's address, of which there is one per process. It is watched by a
//! thread of its own, which asks the control thread for everything by an [`Ask`].
//!
//! **Failure.** Where the default place cannot be used, the process runs all the same, and a warning says that it cannot
//! be restarted online.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use tenfold_pooler::handover::Outbox;
use tenfold_service::handover::{Frame, PrivateSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::leaving::Leaving;
use super::{Role, Spot};
use crate::admin::{self, guard};
use crate::config::settings::Settings;
use crate::listeners::Tier;
use crate::live::Live;

/// What the door's thread may wait to be answered at once.
pub const ASKS_MAX: usize = 4;

/// See the module.
pub struct Door {
    path: Option<PathBuf>,
    asks: mpsc::Sender<Ask>,
    socket: RefCell<Option<Arc<PrivateSocket>>>,
    admin: RefCell<Vec<AdminSocket>>,
    is_handed_over: Cell<bool>,
}

/// What a successor wants of the control thread.
pub enum Ask {
    /// The listening sockets.
    Begin {
        /// Each with its place, or why not.
        reply: oneshot::Sender<Result<Vec<(Spot, OwnedFd)>, String>>,
    },
    /// It accepts: we do not any more, and clients go.
    Ready {
        /// Where they go, if both have a pooler.
        outbox: Option<Outbox>,
        /// What is to be sent before them, or why not.
        reply: oneshot::Sender<Result<Vec<Frame>, String>>,
    },
    /// It has them: there is no way back.
    Taken {
        /// When the listeners are closed.
        reply: oneshot::Sender<()>,
    },
    /// It died before it had them.
    Gone,
}

struct AdminSocket {
    spot: Spot,
    kind: guard::Listener,
    socket: std::net::TcpListener,
    accepting: JoinHandle<()>,
}

impl Door {
    /// A door that is closed, and who asks for something once it is open.
    #[must_use]
    pub fn new(settings: &Settings) -> (Self, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let door = Self {
            path: path(settings),
            asks,
            socket: RefCell::default(),
            admin: RefCell::default(),
            is_handed_over: Cell::new(false),
        };
        (door, asked)
    }

    /// Whether a successor has taken over for good.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.is_handed_over.get()
    }

    /// Lets a successor come.
    pub fn open(live: &Rc<Live>) {
        let Some(path) = &live.door.path else { return };
        let socket = match PrivateSocket::bind(path) {
            Ok(socket) => Arc::new(socket),
            Err(error) => {
                live.log.warn(&format!("no online restart will be possible: {error}"));
                return;
            }
        };
        live.door.socket.replace(Some(Arc::clone(&socket)));
        let leaving = Leaving {
            asks: live.door.asks.clone(),
            pooler: live.pooling.as_ref().map(|pooling| pooling.pooler.clone()),
            limits: Arc::clone(&live.limits),
            log: live.log.clone(),
            clock: live.clock.clone(),
        };
        let thread = std::thread::Builder::new().name("tenfold-door".into());
        // It ends with the process, or when a successor has come and gone.
        if let Err(error) = thread.spawn(move || leaving.run(&socket)) {
            live.log.warn(&format!("no online restart will be possible: {error}"));
        }
    }

    /// Nobody comes any more.
    pub fn close(&self) {
        if let Some(socket) = self.socket.take() {
            socket.remove_file();
        }
    }

    /// Serves an admin socket, and keeps it for a successor.
    pub fn serve_admin(
        live: &Rc<Live>,
        socket: std::net::TcpListener,
        spot: Spot,
        kind: guard::Listener,
    ) -> io::Result<()> {
        let own = tokio::net::TcpListener::from_std(socket.try_clone()?)?;
        let accepting = tokio::task::spawn_local(admin::serve(own, kind, Rc::clone(live)));
        live.door.admin.borrow_mut().push(AdminSocket { spot, kind, socket, accepting });
        Ok(())
    }

    /// Answers the door's thread. True if the successor has taken over for good.
    pub async fn answer(live: &Rc<Live>, ask: Ask) -> bool {
        // Whoever asked may be gone.
        match ask {
            Ask::Begin { reply } => drop(reply.send(begin(live).await)),
            Ask::Ready { outbox, reply } => drop(reply.send(ready(live, outbox))),
            Ask::Taken { reply } => {
                live.listeners.give_up().await;
                live.door.admin.take();
                live.door.close();
                live.door.is_handed_over.set(true);
                let _ = reply.send(());
                return true;
            }
            Ask::Gone => resume(live),
        }
        false
    }
}

/// A second descriptor of everything this process listens on.
async fn begin(live: &Rc<Live>) -> Result<Vec<(Spot, OwnedFd)>, String> {
    refusal(live)?;
    let failed = |error: io::Error| format!("the listening sockets cannot be shared: {error}");
    let mut spots = Vec::new();
    for (place, socket) in live.listeners.share().await.map_err(failed)? {
        let role = match place.tier {
            Tier::Edge => Role::Edge,
            Tier::Pooler => Role::Pooler,
        };
        spots.push((Spot { role, at: place.at }, socket));
    }
    for admin in live.door.admin.borrow().iter() {
        spots.push((admin.spot.clone(), admin.socket.try_clone().map_err(failed)?.into()));
    }
    Ok(spots)
}

fn ready(live: &Rc<Live>, outbox: Option<Outbox>) -> Result<Vec<Frame>, String> {
    refusal(live)?;
    live.listeners.park(true);
    for admin in live.door.admin.borrow().iter() {
        admin.accepting.abort();
    }
    let Some((pooling, outbox)) = live.pooling.as_ref().zip(outbox) else { return Ok(Vec::new()) };
    Ok(pooling.pooler.hand_over(outbox, pooling.admit(&live.drain)))
}

/// Why nobody takes over now.
fn refusal(live: &Rc<Live>) -> Result<(), String> {
    if live.drain.is_draining() {
        return Err("it is about to end".into());
    }
    match &live.pooling {
        Some(pooling) if pooling.pooler.is_paused() => Err("its pooler is paused; RESUME first".into()),
        _ => Ok(()),
    }
}

/// The successor has died: this process accepts again.
fn resume(live: &Rc<Live>) {
    live.listeners.park(false);
    for admin in live.door.admin.borrow_mut().iter_mut() {
        let socket = admin.socket.try_clone().and_then(tokio::net::TcpListener::from_std);
        match socket {
            Ok(socket) => {
                let serve = admin::serve(socket, admin.kind, Rc::clone(live));
                admin.accepting = tokio::task::spawn_local(serve);
            }
            Err(error) => live.log.error(&format!("the admin server cannot go on: {error}")),
        }
    }
    live.log.warn("the process that took over is gone; this one goes on");
}

/// Where the socket is. `None`: nowhere, since no successor could know of it.
#[must_use]
pub fn path(settings: &Settings) -> Option<PathBuf> {
    if let Some(path) = &settings.admin.handover {
        return Some(path.clone());
    }
    let at = settings.admin.listen;
    (at.port() != 0).then(|| Some(folder()?.join(format!("tenfold-{}-{}.sock", at.ip(), at.port()))))?
}

/// A folder that is this user's alone.
fn folder() -> Option<PathBuf> {
    let named = |name: &str| {
        // A service may have several, separated by colons.
        let value = std::env::var(name).ok()?;
        let first = value.split(':').next().filter(|first| !first.is_empty())?;
        Some(PathBuf::from(first)).filter(|folder| folder.is_absolute())
    };
    named("RUNTIME_DIRECTORY").or_else(|| named("XDG_RUNTIME_DIR")).or_else(own_folder)
}

/// One below the folder for temporary files, where others could have put something in its place.
fn own_folder() -> Option<PathBuf> {
    let own = fs::metadata("/proc/self").ok()?.uid();
    let folder = std::env::temp_dir().join(format!("tenfold-{own}"));
    // That it is there already is as good, if it is what it should be.
    let _ = fs::DirBuilder::new().mode(0o700).create(&folder);
    is_private(&folder, own).then_some(folder)
}

fn is_private(folder: &Path, own: u32) -> bool {
    fs::symlink_metadata(folder)
        .is_ok_and(|found| found.is_dir() && found.uid() == own && found.permissions().mode() & 0o077 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_somebody_else_or_open_to_others_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let own = fs::metadata(folder.path()).unwrap().uid();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(is_private(folder.path(), own));
        assert!(!is_private(folder.path(), own + 1));
        assert!(!is_private(&folder.path().join("missing"), own));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o750)).unwrap();
        assert!(!is_private(folder.path(), own));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!is_private(&link, own));
    }
}
