//! `control.sock`: a unix socket that only its owner may open.

use std::path::{Path, PathBuf};
use std::{fs, io};

use sealane_base::socket::Listener;
use tokio::net::UnixStream;

const NAME: &str = "control.sock";

/// The bound socket's place in the file system, removed on drop.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
}

/// Reasons for which there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Somebody answers there.
    #[error("another control plane answers on {}; stop it, or choose another --run-dir", .0.display())]
    Alive(PathBuf),
    /// The file system does not let us.
    #[error("socket {} cannot be made: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
}

impl Socket {
    /// Binds the socket in a directory; what a dead control left there is replaced.
    pub(crate) async fn bind(directory: &Path) -> Result<(Listener, Self), SocketError> {
        let path = directory.join(NAME);
        if UnixStream::connect(&path).await.is_ok() {
            return Err(SocketError::Alive(path));
        }
        match Listener::bind(&path) {
            Ok(listener) => Ok((listener, Self { path })),
            Err(source) => Err(SocketError::Io { path, source }),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "socket cannot be removed");
        }
    }
}
