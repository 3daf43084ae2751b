//! Kernel settings under /proc/sys/net, which show the namespace of the thread that opens them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

/// A setting and the value it shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Below /proc/sys, with slashes.
    pub path: String,
    /// As it reads.
    pub value: &'static str,
    /// True if a kernel without it is fine (its module is not loaded).
    pub optional: bool,
}

/// A setting could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot set /proc/sys/{path} to {value}: {source}; /proc/sys must be mounted read-write")]
pub struct SysctlError {
    path: String,
    value: &'static str,
    source: io::Error,
}

impl Sysctl {
    /// A setting that every kernel in question has.
    #[must_use]
    pub fn new(path: impl Into<String>, value: &'static str) -> Self {
        Self { path: path.into(), value, optional: false }
    }

    /// A setting that is there only when its module is.
    #[must_use]
    pub fn optional(path: impl Into<String>, value: &'static str) -> Self {
        Self { path: path.into(), value, optional: true }
    }

    /// Makes the settings so in `ns`; answers how many were not.
    ///
    /// # Errors
    /// When one cannot be written; those before it are set.
    pub fn ensure(
        hopper: &Hopper,
        ns: &NetNs,
        settings: Vec<Self>,
    ) -> io::Result<Result<usize, SysctlError>> {
        hopper.run(ns, move || settings.iter().map(Self::ensure_here).sum())
    }

    fn ensure_here(&self) -> Result<usize, SysctlError> {
        let path: PathBuf = Path::new("/proc/sys").join(&self.path);
        let change = || -> io::Result<usize> {
            if fs::read_to_string(&path)?.trim_end() == self.value {
                return Ok(0);
            }
            fs::write(&path, self.value)?;
            Ok(1)
        };
        match change() {
            Err(error) if self.optional && error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(source) => Err(SysctlError { path: self.path.clone(), value: self.value, source }),
            Ok(changed) => Ok(changed),
        }
    }
}
