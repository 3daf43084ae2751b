//! Unix sockets for their owner, or for whoever reaches them.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Listens at `path` for its owner alone; what somebody left there is replaced.
///
/// # Errors
/// When the file system does not let us.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    listen_for(path, 0o600)
}

/// Listens at `path` for everybody who reaches it: who connects is to be asked of the kernel.
///
/// # Errors
/// When the file system does not let us.
pub fn listen_to_all(path: &Path) -> io::Result<UnixListener> {
    listen_for(path, 0o666)
}

fn listen_for(path: &Path, mode: u32) -> io::Result<UnixListener> {
    // Under another name until its mode is right: at no time may others open it.
    let draft = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, Permissions::from_mode(mode))?;
    fs::rename(&draft, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_and_replaces_what_was_left() {
        let folder = std::env::temp_dir().join(format!("sealane-socket-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("agent.sock");
        for _ in 0..2 {
            let listener = listen(&path).unwrap();
            let (dialled, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
            assert!(dialled.is_ok() && accepted.is_ok());
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
