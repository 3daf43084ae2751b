//! Namespaces for services of systemd: made and named here, so that a unit can say where it starts; attached by the agent, which
//! holds them by the unit's name until `detach`.

use std::fs;
use std::io;
use std::path::PathBuf;

use sealane_sys::{NetNs, RunDir};

use crate::args::UnitName;
use crate::failure::Failure;

/// A unit's namespace and resolv.conf, in a folder of its own.
pub(super) struct Unit {
    folder: PathBuf,
    /// The name by which the agent holds its attachment.
    pub(super) holder: String,
}

impl Unit {
    pub(super) fn new(run_dir: &RunDir, name: &UnitName) -> Self {
        let name = name.as_str();
        Self { folder: run_dir.unit(name), holder: format!("systemd/{name}") }
    }

    /// The namespace's path: `NetworkNamespacePath=`.
    pub(super) fn netns(&self) -> PathBuf {
        self.folder.join("netns")
    }

    fn resolv_conf(&self) -> PathBuf {
        self.folder.join("resolv.conf")
    }

    /// Makes the namespace, in place of one that an earlier start has left.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn make(&self) -> Result<(), Failure> {
        self.remove()?;
        NetNs::ensure_at(self.netns()).map(drop).map_err(Failure::of("cannot make a namespace for the unit"))
    }

    /// Puts the resolv.conf that the agent wrote where the unit looks for it.
    ///
    /// # Errors
    /// When one of the files is not to be read or written.
    pub(super) fn name_server(&self, resolv_conf: &str) -> Result<PathBuf, Failure> {
        let path = self.resolv_conf();
        let copied = fs::copy(resolv_conf, &path);
        copied.map_err(Failure::of(format!("cannot copy {resolv_conf} to {}", path.display())))?;
        Ok(path)
    }

    /// Removes everything; what is gone already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        NetNs::remove_at(self.netns()).map_err(Failure::of("cannot remove the unit's namespace"))?;
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::new(format!("cannot remove {}: {error}", self.folder.display())))
            }
            _ => Ok(()),
        }
    }
}
