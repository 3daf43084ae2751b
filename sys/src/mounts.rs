//! Mount namespaces of workloads: the one file that differs from the host's is /etc/resolv.conf.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Gives the calling process a mount namespace of its own in which nothing propagates to the host.
///
/// # Errors
/// Without CAP_SYS_ADMIN.
pub fn unshare_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(())
}

/// Returns true if the caller's root folder is another than its mount namespace's, as in a chroot(2): whoever enters a
/// mount namespace (setns(2)) is taken out of such a folder.
///
/// # Errors
/// Without CAP_SYS_ADMIN, or without /proc.
pub fn is_root_changed() -> io::Result<bool> {
    let root = || fs::metadata("/").map(|root| (root.dev(), root.ino()));
    let before = root()?;
    let looked = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_FS)?;
        setns(File::open("/proc/thread-self/ns/mnt")?, CloneFlags::CLONE_NEWNS)?;
        root()
    });
    let after = looked.join().map_err(|_| io::Error::other("looking at the root folder failed"))??;
    Ok(before != after)
}

/// Lets `source` stand at `target` in the calling process's mount namespace; a symbolic link at `target`
/// (systemd-resolved's) is followed, a missing target is an error.
///
/// # Errors
/// When either file is missing or the caller lacks CAP_SYS_ADMIN.
pub fn bind_file(source: &Path, target: &Path) -> io::Result<()> {
    let target = fs::canonicalize(target)?;
    mount(Some(source), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// Mounts a new tmpfs at `target`, readable by root alone but for `mode` (such as `mode=0755`).
///
/// # Errors
/// When `target` is missing or the caller lacks CAP_SYS_ADMIN.
pub fn tmpfs(target: &Path, mode: &str) -> io::Result<()> {
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(mode))?;
    Ok(())
}

/// Mounts sysfs anew, so that /sys/class/net shows the calling process's network namespace.
///
/// # Errors
/// Without CAP_SYS_ADMIN over the network namespace.
pub fn sysfs() -> io::Result<()> {
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
    Ok(())
}

/// Mounts proc anew, for the first process of a new pid namespace.
///
/// # Errors
/// Without CAP_SYS_ADMIN over the pid namespace.
pub fn procfs() -> io::Result<()> {
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)?;
    Ok(())
}
