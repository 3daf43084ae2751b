//! Unix sockets for their owner, or for whoever reaches them, whose names come back when somebody removes them.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Interval at which a socket's name is looked after.
const LOOK: Duration = Duration::from_secs(1);

/// Permissions of a socket and its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access {
    socket: u32,
    /// For a folder that has to be made.
    folder: u32,
}

/// Access for the owner alone.
const OWNER: Access = Access { socket: 0o600, folder: 0o700 };
/// Access for everybody who reaches it.
const ALL: Access = Access { socket: 0o666, folder: 0o711 };

/// A listening socket with a name in the file system. Where somebody removes the name, it is bound anew within a second:
/// a process that nobody can reach is of no use.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    access: Access,
    listener: UnixListener,
    look: Interval,
}

/// An outcome of waiting for a connection.
#[derive(Debug)]
pub enum Step {
    /// A connection came.
    Accepted(UnixStream),
    /// The socket was bound anew, because somebody had removed its name.
    BoundAnew,
}

impl Listener {
    /// Goes on with a socket that listens at `path` already: one of an earlier process, or of whoever started this one.
    ///
    /// # Errors
    /// When it is no listening Unix socket.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn adopt(path: &Path, socket: OwnedFd) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::from(socket);
        listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(Self { path: path.to_owned(), access: OWNER, listener, look: look() })
    }

    /// The socket, for somebody who holds it for the next process.
    ///
    /// # Errors
    /// At the limit of open files.
    pub fn copy(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// Listens at `path` for its owner alone; what somebody left there is replaced.
    ///
    /// # Errors
    /// When the file system does not let us.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(path: &Path) -> io::Result<Self> {
        Self::bind_with(path, OWNER)
    }

    /// Listens at `path`, whose folder is made where it is missing, for everybody who reaches it: who connects is to be
    /// asked of the kernel.
    ///
    /// # Errors
    /// When the file system does not let us.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind_for_all(path: &Path) -> io::Result<Self> {
        make_folder(path, ALL)?;
        Self::bind_with(path, ALL)
    }

    fn bind_with(path: &Path, access: Access) -> io::Result<Self> {
        let listener = listen(path, access)?;
        Ok(Self { path: path.to_owned(), access, listener, look: look() })
    }

    /// The next connection. Cancel safe.
    ///
    /// # Errors
    /// At the limit of open files; the socket is good all the same.
    pub async fn accept(&mut self) -> io::Result<UnixStream> {
        loop {
            if let Step::Accepted(stream) = self.step().await? {
                return Ok(stream);
            }
        }
    }

    /// The next connection, or another socket. Cancel safe.
    ///
    /// # Errors
    /// As [`Listener::accept`].
    pub async fn step(&mut self) -> io::Result<Step> {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => return accepted.map(|(stream, _)| Step::Accepted(stream)),
                _ = self.look.tick() => if self.ensure_name() {
                    return Ok(Step::BoundAnew);
                },
            }
        }
    }

    /// The connections, one after another, for ever.
    pub async fn next(mut self) -> Option<(io::Result<UnixStream>, Self)> {
        Some((self.accept().await, self))
    }

    /// Binds the socket anew if somebody has removed its name; answers whether it did.
    fn ensure_name(&mut self) -> bool {
        if self.path.try_exists().unwrap_or(true) {
            return false;
        }
        let path = self.path.display();
        match make_folder(&self.path, self.access).and_then(|()| listen(&self.path, self.access)) {
            Ok(listener) => {
                tracing::warn!(%path, "somebody removed the socket; it is bound anew");
                self.listener = listener;
                true
            }
            Err(error) => {
                tracing::error!(%error, %path, "somebody removed the socket, and it cannot be bound anew");
                false
            }
        }
    }
}

fn look() -> Interval {
    let mut look = interval_at(Instant::now() + LOOK, LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look
}

fn make_folder(path: &Path, access: Access) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    DirBuilder::new().recursive(true).mode(access.folder).create(folder)?;
    if access == ALL {
        // Whatever the process takes away from what it makes (umask).
        fs::set_permissions(folder, Permissions::from_mode(access.folder))?;
    }
    Ok(())
}

fn listen(path: &Path, access: Access) -> io::Result<UnixListener> {
    // Under another name until its mode is right: at no time may others open it.
    let draft = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, Permissions::from_mode(access.socket))?;
    fs::rename(&draft, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_and_replaces_what_was_left() {
        let folder = std::env::temp_dir().join(format!("sealane-socket-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("agent.sock");
        for _ in 0..2 {
            let mut listener = Listener::bind(&path).unwrap();
            let (dialled, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
            assert!(dialled.is_ok() && accepted.is_ok());
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn who_dials_a_socket_that_is_held_is_answered_by_the_next_listener() {
        let path = std::env::temp_dir().join(format!("sealane-held-{}.sock", std::process::id()));
        let held = Listener::bind(&path).unwrap().copy().unwrap();
        let dialled = UnixStream::connect(&path).await;
        let mut next = Listener::adopt(&path, held).unwrap();
        assert!(dialled.is_ok() && next.accept().await.is_ok());
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(Listener::adopt(&path, other.into()).is_err());
        fs::remove_file(&path).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_whose_name_or_folder_is_removed_can_be_reached_again() {
        let folder = std::env::temp_dir().join(format!("sealane-named-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("agent.sock");
        let mut listener = Listener::bind(&path).unwrap();
        for remove in
            [|path: &Path| fs::remove_file(path), |path: &Path| fs::remove_dir_all(path.parent().unwrap())]
        {
            remove(&path).unwrap();
            let reach = async {
                while UnixStream::connect(&path).await.is_err() {
                    tokio::time::sleep(LOOK / 10).await;
                }
            };
            let (accepted, ()) = tokio::join!(listener.accept(), reach);
            assert!(accepted.is_ok());
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
