//! `control.sock`: a unix socket that only its owner may open.

use std::path::PathBuf;
use std::{fs, io};

use sealane_base::socket::Listener;
use sealane_sys::run_dir::{CONTROL_SOCKET, RunDir};
use tokio::net::UnixStream;

/// The bound socket's place in the file system, removed on drop.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
}

/// Reasons for which there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Another process answers at the socket.
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
    /// Binds the socket in the run directory; what a dead control left there is replaced.
    pub(crate) async fn bind(run_dir: &RunDir) -> Result<(Listener, Self), SocketError> {
        let path = run_dir.socket(CONTROL_SOCKET);
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
