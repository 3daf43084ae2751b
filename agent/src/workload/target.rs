//! Targets of `attach`: the namespace that is meant, and the anchor that the attachment ends with.

use std::io;
use std::path::{Path, PathBuf};

use sealane_fabric::seat::DeviceName;
use sealane_proto::types::NetworkName;
use sealane_sys::{NetNs, Process};

use super::anchor::Anchor;
use super::{AttachError, WorkloadContext};
use crate::attachment::{Netns, NetnsTarget};
use crate::tap;

/// The agent's own network namespace, and the machine's.
const HOST: [&str; 2] = ["/proc/self/ns/net", "/proc/1/ns/net"];

fn refused(reason: impl Into<String>) -> AttachError {
    AttachError::Namespace(reason.into())
}

/// Opens the namespace of a request.
///
/// # Errors
/// [`AttachError::Namespace`] when it is not there, not the one that the caller sees, or not one to attach.
pub(super) fn find(context: &WorkloadContext, target: &NetnsTarget) -> Result<(Anchor, NetNs), AttachError> {
    let (pid, path) = match &target.netns {
        Netns::Tap(device) => return room(context, *device, target),
        Netns::Process(pid) => (Some(*pid), PathBuf::from(format!("/proc/{pid}/ns/net"))),
        Netns::Path(path) => (path.to_str().and_then(pid_of), path.clone()),
    };
    if !path.is_absolute() {
        return Err(refused(format!("the path of a namespace must be absolute, not {path:?}")));
    }
    // Opened before its namespace: a process that has ended meanwhile is seen to have.
    let process = pid.map(Process::open).transpose()?;
    let netns = NetNs::open(&path).map_err(|error| refused(error.to_string()))?;
    let inode = inode(&netns)?;
    let shown = path.display();
    if target.inode.is_some_and(|meant| meant != inode) {
        return Err(refused(format!(
            "{shown} is another namespace to the agent than to the caller; hint: name it as the agent's host sees it"
        )));
    }
    let entered = context.kernel.hopper.run(&netns, || ());
    entered.map_err(|error| refused(format!("{shown}: {error}")))?;
    refuse_ours(context, &path, inode)?;
    let anchor = match (&target.hold, process) {
        (Some(hold), _) => {
            // One that has ended meanwhile cannot be paused.
            let process = target.pid.and_then(|pid| Process::open(pid).ok());
            Anchor::Held { hold: hold.clone(), path, process }
        }
        (None, Some(process)) => Anchor::process(process)?,
        (None, None) => Anchor::Path { path, inode },
    };
    Ok((anchor, netns))
}

/// A new room for the machine at a TAP device that is not there yet.
fn room(
    context: &WorkloadContext,
    device: DeviceName,
    target: &NetnsTarget,
) -> Result<(Anchor, NetNs), AttachError> {
    let fail = |error: &dyn std::fmt::Display| refused(format!("TAP device {device}: {error}"));
    if let Some(hold) = &target.hold
        && let Some(id) = context.roster.attachment_of(hold)
    {
        return Err(AttachError::Held(hold.clone(), id));
    }
    let host = NetNs::current().map_err(|error| fail(&error))?;
    if tap::exists(&context.kernel.hopper, &host, &device).map_err(|error| fail(&error))? {
        return Err(refused(tap::TapError::Taken(device).to_string()));
    }
    let path = tap::room(&context.kernel.run_dir, &device);
    let netns = NetNs::ensure_at(&path).map_err(|error| fail(&error))?;
    let hold = target.hold.clone().ok_or_else(|| fail(&"nobody holds it"))?;
    Ok((Anchor::Held { hold, path, process: None }, netns))
}

fn inode(netns: &NetNs) -> Result<u64, AttachError> {
    netns.inode().map_err(|error| refused(error.to_string()))
}

fn refuse_ours(context: &WorkloadContext, path: &Path, inode: u64) -> Result<(), AttachError> {
    let path = path.display();
    if is_one_of(inode, &HOST) {
        return Err(refused(format!(
            "{path} is the host's own network namespace, which cannot be attached; \
             hint: `sealane run` makes a namespace for a command"
        )));
    }
    let networks =
        context.kernel.overlay.networks_on_disk().map_err(|error: io::Error| refused(error.to_string()))?;
    let is_of = |network: &NetworkName| is_one_of(inode, &[context.kernel.overlay.network_path(network)]);
    match networks.into_iter().find(is_of) {
        Some(network) => Err(refused(format!("{path} is the namespace of network {network} itself"))),
        None => Ok(()),
    }
}

/// Returns true if it is the host's own.
pub(super) fn is_host(netns: &NetNs) -> bool {
    netns.inode().is_ok_and(|inode| is_one_of(inode, &HOST))
}

/// Returns true if a namespace is that of one of these paths.
fn is_one_of(inode: u64, paths: &[impl AsRef<Path>]) -> bool {
    let mut inodes = paths.iter().map(|path| NetNs::open(path).ok().and_then(|netns| netns.inode().ok()));
    inodes.any(|other| other == Some(inode))
}

/// The process that a path below /proc names.
pub(super) fn pid_of(path: &str) -> Option<u32> {
    path.strip_prefix("/proc/")?.strip_suffix("/ns/net")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_process_is_the_process() {
        assert_eq!(pid_of("/proc/17/ns/net"), Some(17));
        assert_eq!(pid_of("/proc/self/ns/net"), None);
        assert_eq!(pid_of("/run/netns/17"), None);
    }
}
