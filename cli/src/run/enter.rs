//! Becoming a process of a workload: its network, its resolv.conf, and all else the host's.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use sealane_proto::wire::v1::Location;
use sealane_sys::{NetNs, mounts};

use crate::failure::Failure;

/// Moves this process into the workload's namespaces.
pub(super) fn enter(location: &Location) -> Result<(), Failure> {
    let workload = &location.workload;
    let netns = NetNs::open(&location.netns)
        .map_err(Failure::of(format!("workload {workload} is not there (any more)")))?;
    mounts::unshare_mounts()
        .map_err(Failure::of(format!("cannot make a mount namespace for workload {workload}")))?;
    if !location.resolv_conf.is_empty() {
        mounts::bind_file(Path::new(&location.resolv_conf), Path::new("/etc/resolv.conf")).map_err(
            |error| {
                Failure::new(format!("cannot put {} over /etc/resolv.conf: {error}", location.resolv_conf))
                    .hint("the host must have a file /etc/resolv.conf, even an empty one")
            },
        )?;
    }
    netns.enter().map_err(Failure::of(format!("workload {workload}")))?;
    // /sys of the host's network misleads, but is no reason not to start.
    let _ = own_sysfs();
    Ok(())
}

/// Mounts a /sys that shows the entered network, with the control groups that the host has mounted in its own.
fn own_sysfs() -> io::Result<()> {
    let groups = Path::new("/sys/fs/cgroup");
    let host_groups = File::open(groups);
    mounts::sysfs()?;
    if let Ok(host_groups) = host_groups {
        let source = format!("/proc/self/fd/{}", host_groups.as_raw_fd());
        mount(Some(source.as_str()), groups, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    }
    Ok(())
}
