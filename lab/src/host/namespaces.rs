//! Making a host's namespaces and entering them.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use sealane_sys::mounts;

use super::root::{self, Root};
use crate::LabError;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Handles that keep a host's namespaces alive.
#[derive(Debug)]
pub(crate) struct Namespaces {
    network: Arc<OwnedFd>,
    mounts: Arc<OwnedFd>,
    hostname: Arc<OwnedFd>,
    resolv_conf: File,
}

impl Namespaces {
    /// New namespaces, made by a thread that ends: unshare(2) is per thread.
    pub(crate) fn new(name: &str, root: Option<&Root>) -> Result<Self, LabError> {
        let fail = || LabError::system::<io::Error>(format!("create the namespaces of host {name}"));
        thread::scope(|scope| {
            let thread = scope.spawn(|| build(name, root));
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes them panicked")))
        })
        .map_err(fail())
    }

    /// The network namespace as a path that other processes of the lab can open.
    pub(crate) fn network_path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.network.as_raw_fd())
    }

    pub(crate) fn network(&self) -> BorrowedFd<'_> {
        (*self.network).as_fd()
    }

    /// Handles for one who enters.
    pub(crate) fn handles(&self) -> Vec<Arc<OwnedFd>> {
        [&self.network, &self.hostname, &self.mounts].into_iter().cloned().collect()
    }

    /// Moves the calling thread in, for good.
    pub(crate) fn enter(&self) -> io::Result<()> {
        // A thread that shares its working folder with others may not change its mounts.
        unshare(CloneFlags::CLONE_FS)?;
        for namespace in [&self.network, &self.hostname, &self.mounts] {
            setns(&**namespace, CloneFlags::empty())?;
        }
        Ok(())
    }

    pub(crate) fn write_resolv_conf(&self, text: &str) -> io::Result<()> {
        self.resolv_conf.set_len(0)?;
        self.resolv_conf.write_all_at(text.as_bytes(), 0)
    }
}

fn build(name: &str, root: Option<&Root>) -> io::Result<Namespaces> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)?;
    mounts::unshare_mounts()?;
    nix::unistd::sethostname(name)?;
    if let Some(root) = root {
        root::enter(root, name)?;
    }
    for folder in ["/run", "/var/lib"] {
        mounts::tmpfs(Path::new(folder), "mode=0755")?;
    }
    // /sys/class/net of the lab would mislead; a kernel without sysfs has none to mislead with.
    let _ = mounts::sysfs();
    Ok(Namespaces {
        resolv_conf: own_resolv_conf()?,
        network: open("net")?,
        mounts: open("mnt")?,
        hostname: open("uts")?,
    })
}

/// Puts an own file in the place of /etc/resolv.conf. Where that is a link into /run (systemd-resolved's), its
/// target is the host's own anyway.
fn own_resolv_conf() -> io::Result<File> {
    if let Some(target) = link_target(Path::new(RESOLV_CONF)).filter(|target| target.starts_with("/run")) {
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        return File::create(target);
    }
    let own = Path::new("/run/resolv.conf");
    let file = File::create(own)?;
    mounts::bind_file(own, Path::new(RESOLV_CONF)).map_err(|error| {
        io::Error::new(error.kind(), format!("{error} (the machine must have an {RESOLV_CONF})"))
    })?;
    Ok(file)
}

/// Resolves a link to its end, without links on the way.
fn link_target(link: &Path) -> Option<PathBuf> {
    let target = link.parent()?.join(fs::read_link(link).ok()?);
    let mut plain = PathBuf::new();
    for part in target.components() {
        match part {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            std::path::Component::CurDir => {}
            std::path::Component::RootDir
            | std::path::Component::Prefix(_)
            | std::path::Component::Normal(_) => plain.push(part),
        }
    }
    // /var/run is a link to /run wherever it is one at all.
    match plain.strip_prefix("/var/run") {
        Ok(rest) => Some(Path::new("/run").join(rest)),
        Err(_) => Some(plain),
    }
}

fn open(kind: &str) -> io::Result<Arc<OwnedFd>> {
    Ok(Arc::new(File::open(format!("/proc/thread-self/ns/{kind}"))?.into()))
}
