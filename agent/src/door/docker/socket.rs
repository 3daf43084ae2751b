//! The socket that dockerd calls: handed over by systemd, held by keep while no agent is there, or bound anew. Dockerd takes a
//! plugin that refuses connections for dead, and one that accepts them and is slow for slow.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sealane_base::socket::Listener;
use sealane_sys::{Process, RunDir};
use socket2::SockRef;

use crate::keeper::Keeper;

/// By what keep holds it.
#[must_use]
pub(crate) fn key(path: &Path) -> String {
    format!("door/docker:{}", path.display())
}

/// Listens at `path`, which `run_dir` records.
///
/// # Errors
/// When the socket cannot be bound.
pub(super) fn listen(path: &Path, run_dir: &RunDir, keeper: &Keeper) -> io::Result<Listener> {
    let is_same = || recorded(run_dir).is_ok_and(|known| known == Some((inode(path), path.to_owned())));
    let of_before = || keeper.copies(&key(path)).and_then(|mut held| held.pop()).filter(|_| is_same());
    let found = handed_over(path).or_else(of_before);
    let listener = match found.map(|found| Listener::adopt(path, found)) {
        Some(Ok(listener)) => listener,
        Some(Err(_)) | None => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            Listener::bind(path)?
        }
    };
    hold(&listener, path, run_dir, keeper);
    Ok(listener)
}

/// Lets keep hold it for the next agent. Where that is not possible, dockerd does without one as without any plugin.
pub(super) fn hold(listener: &Listener, path: &Path, run_dir: &RunDir, keeper: &Keeper) {
    let record = [inode(path).to_string().as_bytes(), b" ", path.as_os_str().as_encoded_bytes()].concat();
    let kept = listener.copy().and_then(|copy| {
        fs::write(run_dir.docker_plugin(), record)?;
        keeper.put(&key(path), vec![copy]).map_err(io::Error::other)
    });
    if let Err(error) = kept {
        tracing::warn!(%error, path = %path.display(), "nobody holds Docker's socket while the agent is away");
    }
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).map(|found| found.ino()).unwrap_or_default()
}

fn recorded(run_dir: &RunDir) -> io::Result<Option<(u64, PathBuf)>> {
    let record = match fs::read(run_dir.docker_plugin()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        record => record?,
    };
    let mut parts = record.splitn(2, |byte| *byte == b' ');
    let number = parts.next().and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
    let path = parts.next().map(|path| PathBuf::from(OsString::from_vec(path.to_vec())));
    Ok(number.zip(path))
}

/// The socket at `path` that systemd has made, if this process was started with one (sd_listen_fds(3)).
fn handed_over(path: &Path) -> Option<OwnedFd> {
    let own = std::process::id();
    let meant = std::env::var("LISTEN_PID").ok()?.parse() == Ok(own);
    let sockets = meant.then(|| Process::open(own).ok()?.sockets().ok())??;
    sockets.into_iter().find(|socket| is_at(socket, path))
}

fn is_at(socket: &OwnedFd, path: &Path) -> bool {
    SockRef::from(socket).local_addr().is_ok_and(|address| address.as_pathname() == Some(path))
}

/// Removes the socket that an agent of `run_dir` has left behind, unless it is `kept`; answers what was removed.
///
/// # Errors
/// When the file system does not let us.
pub fn retire(run_dir: &RunDir, kept: Option<&Path>) -> io::Result<Option<PathBuf>> {
    let Some((number, path)) = recorded(run_dir)?.filter(|(_, path)| kept != Some(path)) else {
        return Ok(None);
    };
    // Not what somebody else has there by now.
    let is_ours = inode(&path) == number
        && fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket());
    if is_ours {
        fs::remove_file(&path)?;
    }
    fs::remove_file(run_dir.docker_plugin())?;
    Ok(is_ours.then_some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_an_agent_left_is_removed_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::from(dir.path());
        let (socket, file) = (dir.path().join("a socket"), dir.path().join("file"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        fs::write(&file, "").unwrap();
        let record = |path: &Path, number: u64| {
            fs::write(run_dir.docker_plugin(), format!("{number} {}", path.display())).unwrap();
        };
        assert_eq!(retire(&run_dir, None).unwrap(), None, "no agent was there");
        record(&socket, inode(&socket));
        assert_eq!(retire(&run_dir, Some(&socket)).unwrap(), None);
        assert_eq!(retire(&run_dir, None).unwrap(), Some(socket.clone()));
        assert!(!socket.exists());
        for number in [0, inode(&file)] {
            record(&file, number);
            assert_eq!(retire(&run_dir, None).unwrap(), None);
        }
        assert!(file.exists());
    }

    #[test]
    fn a_socket_is_known_by_where_it_is_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sealane.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(is_at(&listener.into(), &path));
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_at(&other.into(), &path));
    }
}
