//! Handles to network namespaces.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// An open handle to a network namespace; the namespace lives at least as long as the handle.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
}

/// Reasons for which a namespace could not be opened, made or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// The path cannot be opened.
    #[error("cannot open network namespace {path}: {source}")]
    Open {
        /// The path that was tried.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// A new namespace could not be made or bound to its path.
    #[error("cannot create network namespace {path}: {source}")]
    Create {
        /// Path at which the namespace should have been bound.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The binding could not be undone.
    #[error("cannot remove network namespace {path}: {source}")]
    Remove {
        /// The bound path.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The calling thread could not enter the namespace.
    #[error("cannot enter network namespace: {0}")]
    Enter(#[source] io::Error),
}

impl NetNs {
    /// Opens the namespace bound at `path` (`/run/.../netns/NAME`, `/proc/PID/ns/net`).
    ///
    /// # Errors
    /// When the path does not exist, cannot be opened, or is a plain file where no namespace is mounted.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetNsError> {
        let path = path.as_ref();
        let open = || -> io::Result<OwnedFd> {
            let file = File::open(path)?;
            let kind = rustix::fs::fstatfs(&file)?;
            if kind.f_type != libc::NSFS_MAGIC {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a namespace"));
            }
            Ok(file.into())
        };
        open().map(|fd| Self { fd }).map_err(|source| NetNsError::Open { path: path.to_owned(), source })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn current() -> Result<Self, NetNsError> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// Makes a new namespace and binds it to `path`, so that it outlives every process; an existing
    /// binding is opened instead (safe to repeat, safe after kill -9 between file and mount).
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN, or when the path's folder cannot be written.
    pub fn ensure_at(path: impl AsRef<Path>) -> Result<Self, NetNsError> {
        let path = path.as_ref();
        if let Ok(existing) = Self::open(path) {
            return Ok(existing);
        }
        let fail = |source: io::Error| NetNsError::Create { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(fail)?;
        }
        File::create(path).map_err(fail)?;
        // unshare is per thread: a thread of its own makes the namespace and ends.
        let target = path.to_owned();
        std::thread::spawn(move || -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        })
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the namespace thread panicked")))
        .map_err(fail)?;
        Self::open(path)
    }

    /// Binds this namespace to `path`, in place of what is bound there.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN, or when the path's folder cannot be written.
    pub fn bind_at(&self, path: impl AsRef<Path>) -> Result<(), NetNsError> {
        let path = path.as_ref();
        let fail = |source: io::Error| NetNsError::Create { path: path.to_owned(), source };
        if self.is_bound_at(path) {
            return Ok(());
        }
        Self::remove_at(path)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(fail)?;
        }
        File::create(path).map_err(fail)?;
        let source = format!("/proc/thread-self/fd/{}", self.fd.as_raw_fd());
        mount(Some(source.as_str()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|errno| fail(errno.into()))
    }

    /// Returns true if `path` names this namespace.
    #[must_use]
    pub fn is_bound_at(&self, path: impl AsRef<Path>) -> bool {
        let place = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
        let bound = rustix::fs::stat(path.as_ref()).map(place);
        bound.is_ok() && bound == rustix::fs::fstat(&self.fd).map(place)
    }

    /// A new namespace without a name, gone with its last handle and process.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub fn anonymous() -> Result<Self, NetNsError> {
        let fail = |source: io::Error| NetNsError::Create { path: PathBuf::from("(unnamed)"), source };
        std::thread::spawn(move || -> Result<Self, NetNsError> {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| fail(errno.into()))?;
            Self::current()
        })
        .join()
        .unwrap_or_else(|_| Err(fail(io::Error::other("the namespace thread panicked"))))
    }

    /// Undoes [`NetNs::ensure_at`]: unmounts and removes the path. The namespace itself goes with its last
    /// user. A path that is already gone is no error.
    ///
    /// # Errors
    /// When the kernel refuses to unmount or the file cannot be removed.
    pub fn remove_at(path: impl AsRef<Path>) -> Result<(), NetNsError> {
        let path = path.as_ref();
        let fail = |source: io::Error| NetNsError::Remove { path: path.to_owned(), source };
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(errno) => return Err(fail(errno.into())),
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(error)),
            _ => Ok(()),
        }
    }

    /// Moves the calling thread into this namespace. Prefer [`crate::hop::Hopper`], which comes back.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub fn enter(&self) -> Result<(), NetNsError> {
        setns(&self.fd, CloneFlags::CLONE_NEWNET).map_err(|errno| {
            NetNsError::Enter(if errno == Errno::EINVAL {
                io::Error::new(io::ErrorKind::InvalidInput, "it is a namespace of another kind")
            } else {
                errno.into()
            })
        })
    }

    /// The inode that names this namespace as long as it lives (`ip netns identify` compares the same).
    ///
    /// # Errors
    /// When the handle cannot be read, which the kernel does not do to an open one.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.fd)?.st_ino)
    }

    /// A second handle to the same namespace.
    ///
    /// # Errors
    /// At the limit of open files.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for NetNs {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl From<NetNs> for OwnedFd {
    fn from(ns: NetNs) -> Self {
        ns.fd
    }
}
