//! Unix sockets of ours: how they appear and disappear.
//!
//! A socket is bound, protected and listening in a hidden folder of its owner's before it gets its
//! real name, so nobody ever meets a socket that refuses (`wg` deletes those) or that lets anybody
//! in. A socket left behind by a process that died is
//! replaced; one that answers is an error. On the way out a socket is removed only if it is still
//! ours. This module must not know what is spoken.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt as _, MetadataExt, PermissionsExt};
use std::os::unix::net as std_unix;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::inotify;
use tokio::net::{UnixListener, UnixStream};

use crate::ready::Ready;

/// Conversations on one socket at the same time. Only its owner gets in, so this bounds mistakes,
/// not attacks.
const CLIENTS_MAX: u32 = 64;

/// How long to wait when no client can be accepted.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A socket that clients can find by its path.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode: whether the path is still ours.
    identity: (u64, u64),
    /// Whether this process removes the socket in the end.
    owned: Cell<bool>,
    watch: Ready<OwnedFd>,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody answers there.
    #[error("{path} is in use by a running process; stop it, or choose another interface name")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something lies there that is no socket.
    #[error("{path} is there and is no socket: name another path, or move it away")]
    NoSocket {
        /// What lies there.
        path: PathBuf,
    },
    /// The system refused.
    #[error("Cannot {verb} {path}: {source}")]
    System {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes a socket at `path` that only the owner may use (mode 0600), and the folder (mode 0755) if
/// it is missing.
///
/// # Errors
/// [`ListenError`]; nothing is left behind then.
pub fn listen(path: &Path) -> Result<Listener, ListenError> {
    listen_for(path, 0o600)
}

/// The same with a mode of its own, for a socket whose clients are told apart by other means.
///
/// # Errors
/// As [`listen`].
pub fn listen_for(path: &Path, mode: u32) -> Result<Listener, ListenError> {
    let system = |verb, path: &Path| {
        let path = path.to_path_buf();
        move |source: io::Error| ListenError::System { verb, path, source }
    };
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755).create(folder).map_err(system("create", folder))?;

    // What is in its place in the end is gone.
    if fs::symlink_metadata(path).is_ok_and(|about| !about.file_type().is_socket()) {
        return Err(ListenError::NoSocket { path: path.to_path_buf() });
    }
    if std_unix::UnixStream::connect(path).is_ok() {
        return Err(ListenError::InUse { path: path.to_path_buf() });
    }
    let hidden = Hidden(hidden_name(path));
    let _ = fs::remove_dir_all(&hidden.0); // of an earlier process with our number
    fs::DirBuilder::new().mode(0o700).create(&hidden.0).map_err(system("create", &hidden.0))?;
    let inside = hidden.0.join("s");
    let socket = std_unix::UnixListener::bind(&inside).map_err(system("bind", path))?;
    let mode = fs::Permissions::from_mode(mode);
    fs::set_permissions(&inside, mode).map_err(system("protect", path))?;
    let identity = identity_of(&inside).map_err(system("read", path))?;
    socket.set_nonblocking(true).map_err(system("prepare", path))?;
    let socket = UnixListener::from_std(socket).map_err(system("prepare", path))?;
    let watch = watch(&inside).map_err(system("watch", path))?;
    fs::rename(&inside, path).map_err(system("name", path))?;
    Ok(Listener { socket, path: path.to_path_buf(), identity, owned: Cell::new(true), watch })
}

/// Takes a listening socket of another process, which is found at `path` and stays that process's
/// until [`Listener::own`].
///
/// # Errors
/// [`ListenError::System`], also if there is no socket at `path`.
pub fn adopt(socket: OwnedFd, path: &Path) -> Result<Listener, ListenError> {
    let system = |verb| {
        let path = path.to_path_buf();
        move |source: io::Error| ListenError::System { verb, path, source }
    };
    let identity = identity_of(path).map_err(system("find"))?;
    let watch = watch(path).map_err(system("watch"))?;
    let socket = std_unix::UnixListener::from(socket);
    socket.set_nonblocking(true).map_err(system("prepare"))?;
    let socket = UnixListener::from_std(socket).map_err(system("prepare"))?;
    Ok(Listener { socket, path: path.to_path_buf(), identity, owned: Cell::new(false), watch })
}

impl Listener {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A second descriptor, for another process.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn second(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// Whether this process removes the socket in the end, or another one does.
    pub fn own(&self, owned: bool) {
        self.owned.set(owned);
    }

    /// Accepts clients until the task is dropped, each in a task of its own; `converse` talks to
    /// one. `cut` hears of every client that was turned away or that a conversation gave up on.
    pub async fn serve<C>(self: Rc<Self>, cut: impl Fn(&io::Error) + Clone + 'static, converse: C)
    where
        C: AsyncFn(UnixStream) -> io::Result<()> + Clone + 'static,
    {
        let clients = Rc::new(Cell::new(0_u32));
        loop {
            let stream = match self.socket.accept().await {
                Ok((stream, _)) if clients.get() < CLIENTS_MAX => stream,
                Ok(_) => {
                    cut(&io::Error::other("Too many clients"));
                    continue;
                }
                Err(error) => {
                    cut(&error);
                    // Out of descriptors, most likely: clients need time to go.
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            clients.set(clients.get() + 1);
            let (clients, cut, converse) = (Rc::clone(&clients), cut.clone(), converse.clone());
            tokio::task::spawn_local(async move {
                if let Err(error) = converse(stream).await {
                    cut(&error);
                }
                clients.set(clients.get() - 1);
            });
        }
    }

    /// Returns when the socket has been deleted or replaced by somebody else.
    ///
    /// # Errors
    /// What the watch says; it can then no longer be told.
    pub async fn removed(&self) -> io::Result<()> {
        loop {
            if !self.is_ours() {
                return Ok(());
            }
            // What happened does not matter, only that something did.
            let drain = |fd: &OwnedFd| while rustix::io::read(fd, &mut [0; 4096]).is_ok() {};
            self.watch.readable(drain).await?;
        }
    }

    fn is_ours(&self) -> bool {
        identity_of(&self.path).is_ok_and(|identity| identity == self.identity)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.owned.get() && self.is_ours() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A folder that goes away with what is left in it.
struct Hidden(PathBuf);

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn hidden_name(path: &Path) -> PathBuf {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// Watches the inode: the watch follows it through the renaming, and fires when its last name goes.
fn watch(path: &Path) -> io::Result<Ready<OwnedFd>> {
    let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
    let watch = inotify::init(flags)?;
    let what = inotify::WatchFlags::ATTRIB
        | inotify::WatchFlags::DELETE_SELF
        | inotify::WatchFlags::MOVE_SELF;
    inotify::add_watch(&watch, path, what)?;
    Ready::new(watch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::os::unix::net::UnixStream;

    fn place(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("ringway-listen-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder.join("deep").join("wg0.sock")
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn clean(path: &Path) {
        fs::remove_dir_all(path.parent().unwrap().parent().unwrap()).unwrap();
    }

    #[test]
    fn a_socket_is_private_and_alone_in_its_folder_and_goes_when_dropped() {
        let path = place("private");
        let runtime = runtime();
        let _guard = runtime.enter();
        let listener = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        clean(&path);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let path = place("file");
        let runtime = runtime();
        let _guard = runtime.enter();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let is_refused = || matches!(listen(&path), Err(ListenError::NoSocket { .. }));
        fs::write(&path, "mine").unwrap();
        assert!(is_refused());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(is_refused());
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(is_refused());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        clean(&path);
    }

    #[test]
    fn a_socket_that_answers_is_not_replaced_and_a_dead_one_is() {
        let path = place("stale");
        let runtime = runtime();
        let _guard = runtime.enter();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let other = std_unix::UnixListener::bind(&path).unwrap();
        assert!(matches!(listen(&path), Err(ListenError::InUse { .. })));
        drop(other); // the name stays, nobody answers
        let listener = listen(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(listener);
        clean(&path);
    }

    #[test]
    fn a_socket_goes_from_one_process_to_the_next_without_being_missed() {
        let path = place("next");
        let runtime = runtime();
        let _guard = runtime.enter();
        let old = listen(&path).unwrap();
        let failed = adopt(old.second().unwrap(), &path).unwrap();
        drop(failed);
        assert!(path.exists(), "it was the old one's");
        let new = adopt(old.second().unwrap(), &path).unwrap();
        old.own(false);
        new.own(true);
        drop(old);
        UnixStream::connect(&path).unwrap();
        drop(new);
        assert!(!path.exists());
        clean(&path);
    }

    #[test]
    fn the_deletion_of_a_socket_is_noticed() {
        let path = place("removed");
        let runtime = runtime();
        runtime.block_on(async {
            let listener = listen(&path).unwrap();
            let deletion = async { fs::remove_file(&path).unwrap() };
            let (noticed, ()) = tokio::join!(listener.removed(), deletion);
            noticed.unwrap();
        });
        clean(&path);
    }

    #[test]
    fn a_socket_of_somebody_else_is_left_alone() {
        let path = place("theirs");
        let runtime = runtime();
        let _guard = runtime.enter();
        let listener = listen(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _theirs = std_unix::UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
        clean(&path);
    }
}
