//! Control groups of an isolation: they belong to the machine, and so outlive the processes that made them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A name that no other isolation of this machine has.
pub(super) fn name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("sealane-lab-{}-{:x}", std::process::id(), now.as_nanos())
}

/// Removes the group of this name and those below it from every hierarchy that is mounted here. Their processes have ended.
pub(super) fn remove(name: &str) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for hierarchy in hierarchies(&mounts) {
        remove_tree(&hierarchy.join(name));
    }
}

/// The places at which control groups are mounted, by the lines of /proc/self/mounts.
fn hierarchies(mounts: &str) -> Vec<PathBuf> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let groups = fields.filter(|fields| matches!(fields.get(2), Some(&"cgroup" | &"cgroup2")));
    groups.filter_map(|fields| fields.get(1).map(PathBuf::from)).collect()
}

fn remove_tree(group: &Path) {
    for below in fs::read_dir(group).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&below.path());
        }
    }
    // One that still has a process stays, as do those above it.
    let _ = fs::remove_dir(group);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_the_mounts_of_control_groups() {
        let mounts = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(hierarchies(mounts), ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(PathBuf::from));
        assert_eq!(hierarchies(""), Vec::<PathBuf>::new());
    }
}
