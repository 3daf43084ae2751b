//! The first process of a container: by its control group, which every runtime names after the container's id, else by
//! asking a runtime that is installed.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::failure::Failure;

/// What can be asked for a container by name; all of them answer alike.
const PROGRAMS: [&str; 3] = ["docker", "podman", "nerdctl"];
/// How long the ids of containers are: SHA-256 in hexadecimal digits.
const ID: usize = 64;

/// A container's first process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) pid: u32,
    /// How it was found, in words.
    pub(super) by: &'static str,
}

/// Finds a running container by its id, the beginning of one, or what a runtime calls it.
pub(super) fn find(name: &str) -> Result<Container, Failure> {
    let groups =
        processes().filter_map(|pid| Some((pid, fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)));
    if let Some((id, pids)) = by_group(name, groups)? {
        // The oldest is the one that the others are children of.
        let oldest = pids.into_iter().filter_map(|pid| Some((started(pid)?, pid))).min();
        if let Some((_, pid)) = oldest {
            return Ok(Container { id, pid, by: "its control group" });
        }
    }
    let asked = PROGRAMS.into_iter().find_map(|program| Some((program, inspect(program, name)?)));
    match asked {
        Some((program, pid)) => Ok(Container { id: name.to_owned(), pid, by: program }),
        None => Err(Failure::new(format!("no running container {name} was found"))
            .hint("give the id as the runtime shows it, or --pid with a process of the container")),
    }
}

/// The container whose id begins with `prefix`, with its processes.
fn by_group(
    prefix: &str,
    groups: impl Iterator<Item = (u32, String)>,
) -> Result<Option<(String, Vec<u32>)>, Failure> {
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    if prefix.len() < 4 || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    for (pid, group) in groups {
        if let Some(id) = ids(&group).find(|id| id.starts_with(prefix)) {
            found.entry(id.to_owned()).or_default().push(pid);
        }
    }
    let names: Vec<&str> = found.keys().map(|id| &id[..12]).collect();
    if names.len() > 1 {
        return Err(Failure::new(format!(
            "{prefix} is the beginning of several containers: {}",
            names.join(", ")
        ))
        .hint("give more of the id"));
    }
    Ok(found.pop_first())
}

/// The ids in a /proc/PID/cgroup, such as of `/docker/<id>`, `docker-<id>.scope` or `libpod-<id>`; the innermost first.
fn ids(group: &str) -> impl Iterator<Item = &str> {
    let words = group.rsplit(|c: char| !c.is_ascii_hexdigit());
    words.filter(|word| word.len() == ID)
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn started(pid: u32) -> Option<u64> {
    Some(sealane_sys::Process::open(pid).ok()?.started())
}

fn inspect(program: &str, name: &str) -> Option<u32> {
    let asked =
        Command::new(program).args(["inspect", "--format", "{{.State.Pid}}", "--", name]).output().ok()?;
    let pid = String::from_utf8(asked.stdout).ok()?.trim().parse().ok()?;
    (asked.status.success() && pid > 0).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_found_by_the_beginning_of_its_id_in_any_runtimes_group() {
        let (one, other) = ("3f2a".repeat(16), "3f2b".repeat(16));
        let groups = || {
            let groups = [
                (7, format!("0::/system.slice/docker-{one}.scope\n")),
                (8, format!("12:pids:/docker/{one}\n0::/system.slice\n")),
                (9, format!("0::/machine.slice/libpod-{other}.scope/container\n")),
                (1, "0::/init.scope\n".to_owned()),
            ];
            groups.into_iter()
        };
        assert_eq!(by_group("3f2a3f", groups()).unwrap(), Some((one.clone(), vec![7, 8])));
        assert_eq!(by_group("3f2b", groups()).unwrap(), Some((other.clone(), vec![9])));
        assert_eq!(by_group("abcd", groups()).unwrap(), None);
        assert_eq!(by_group("web", groups()).unwrap(), None, "a name is not an id");
        let several = by_group("3f2", groups()).unwrap();
        assert_eq!(several, None, "too short to be meant");
    }
}
