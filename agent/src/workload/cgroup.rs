//! The control groups of a process, where the host has them mounted: of either version.

use std::fs;
use std::path::{Path, PathBuf};

/// Folder in which control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// A group of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// The controllers of a hierarchy of version 1; none in version 2.
    pub(super) controllers: String,
    /// Folder of the group.
    pub(super) folder: PathBuf,
}

impl Group {
    /// Returns true if it is of the one hierarchy of version 2.
    pub(super) fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Returns true if it is of the hierarchy of version 1 with this controller.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|own| own == controller)
    }
}

/// The groups of a process but for those that all processes are in; none when it has ended.
pub(super) fn of(pid: u32) -> Vec<Group> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    parse(&text)
        .filter_map(|(controllers, path)| {
            Some(Group {
                controllers: controllers.to_owned(),
                folder: mounts(controllers)
                    .iter()
                    .map(|mount| mount.join(path))
                    .find(|folder| folder.is_dir())?,
            })
        })
        .collect()
}

/// The folder of the group that a runtime has named after its container, the same whenever that runs.
pub(super) fn of_container(pid: u32, id: &str) -> Option<PathBuf> {
    of(pid).into_iter().map(|group| group.folder).find(|folder| folder.to_string_lossy().contains(id))
}

/// Hierarchies, and paths in them without the leading slash. The root is nobody's own.
fn parse(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = path.strip_prefix('/')?;
        (!path.is_empty() && !path.starts_with("..")).then_some((controllers, path))
    })
}

/// Lists the places at which a hierarchy may be mounted.
fn mounts(controllers: &str) -> Vec<PathBuf> {
    let mount = Path::new(MOUNT);
    match controllers {
        "" => vec![mount.join("unified"), mount.to_owned()],
        named => vec![mount.join(named.strip_prefix("name=").unwrap_or(named))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_of_both_versions_and_the_root_is_left_out() {
        let text =
            "12:cpu,cpuacct:/docker/abc\n9:name=systemd:/\n1:freezer:/../elsewhere\n0::/docker-abc.scope\n";
        let groups: Vec<_> = parse(text).collect();
        assert_eq!(groups, [("cpu,cpuacct", "docker/abc"), ("", "docker-abc.scope")]);
    }
}
