//! The namespace that is to be attached.

use std::path::PathBuf;

use sealane_fabric::seat::DeviceName;

use super::Hold;

/// A namespace by what leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Netns {
    /// Path at which it is bound.
    Path(PathBuf),
    /// Namespace of this process.
    Process(u32),
    /// A room for the virtual machine at this TAP device.
    Tap(DeviceName),
}

/// A namespace of somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetnsTarget {
    /// Reference that leads to it.
    pub(crate) netns: Netns,
    /// Inode number by which the asker knows it.
    pub(crate) inode: Option<u64>,
    /// The container that it is of, by the id that its runtime gave it: it is attached again whenever it starts again.
    pub(crate) container: Option<String>,
    /// Holder; without one, it ends with its process or path.
    pub(crate) hold: Option<Hold>,
    /// For one that is held: a process of its, by which it is seen that it is paused.
    pub(crate) pid: Option<u32>,
}
