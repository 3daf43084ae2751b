//! The first process of a container: by its control group, which every runtime names after the container's id, else by
//! asking a runtime that is installed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// Programs that find a container by its name; all of them answer alike.
const PROGRAMS: [&str; 3] = ["docker", "podman", "nerdctl"];
/// Address of Docker's resolver.
const DOCKER: &str = "127.0.0.11";
/// Limit for a runtime's answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Interval at which a runtime that has not answered is looked at.
const AGAIN: Duration = Duration::from_millis(10);
/// Length of a container's id: SHA-256 in hexadecimal digits.
const ID: usize = 64;

/// A container's first process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: String,
    /// Name that its runtime gave it, if that is known.
    pub(super) name: Option<String>,
    pub(super) pid: u32,
    /// Way by which it was found, in words.
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
            let name = ask(&id).and_then(|(_, told)| told.name);
            return Ok(Container { id, name, pid, by: "its control group" });
        }
    }
    match ask(name) {
        Some((program, Told { id, name, pid, .. })) if pid > 0 => Ok(Container { id, name, pid, by: program }),
        Some((program, told)) => Err(idle(program, name, &told.state)),
        None => Err(Failure::new(format!("no running container {name} was found")).hint(
            "give its name or id as `docker ps` or `podman ps` shows it, or --pid with a process of the container",
        )),
    }
}

/// The failure for a container that is there and has no process.
fn idle(program: &str, name: &str, state: &str) -> Failure {
    let start = format!("`{program} start {name}` starts it; then attach it again");
    let (what, hint) = match state {
        "created" | "configured" | "initialized" => ("was created and has not been started yet", start),
        "exited" | "stopped" => ("is stopped", start),
        "restarting" => (
            "is between two starts",
            format!("it ends again and again: `{program} logs {name}` says why; attach it when it stays up"),
        ),
        "removing" | "dead" => {
            ("is being removed", format!("`{program} ps -a` shows what there is; attach another one"))
        }
        _ => ("does not run", start),
    };
    Failure::new(format!("container {name} {what}: it has no network namespace that could be attached"))
        .hint(hint)
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

/// Description of a container by its runtime.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    id: String,
    name: Option<String>,
    /// The state in the runtime's word, such as `running`, `exited`, `created`.
    state: String,
    /// 0 when it does not run.
    pid: u32,
}

/// The first runtime that knows a container, and what it says.
fn ask(name: &str) -> Option<(&'static str, Told)> {
    PROGRAMS.into_iter().find_map(|program| Some((program, inspect(program, name)?)))
}

fn inspect(program: &str, name: &str) -> Option<Told> {
    let format = "{{.State.Pid}} {{.Id}} {{.State.Status}} {{.Name}}";
    let mut asked = Command::new(program);
    asked.args(["inspect", "--format", format, "--", name]).stdin(Stdio::null()).stderr(Stdio::null());
    let mut asked = asked.stdout(Stdio::piped()).spawn().ok()?;
    let began = Instant::now();
    let status = loop {
        match asked.try_wait().ok()? {
            Some(status) => break status,
            None if began.elapsed() < PATIENCE => std::thread::sleep(AGAIN),
            None => {
                // One that has ended by now is waited for all the same.
                let _ = asked.kill().and_then(|()| asked.wait().map(drop));
                return None;
            }
        }
    };
    let mut answer = String::new();
    asked.stdout?.read_to_string(&mut answer).ok()?;
    told(&answer).filter(|_| status.success())
}

/// Docker writes a slash before the name.
fn told(answer: &str) -> Option<Told> {
    let mut words = answer.split_ascii_whitespace();
    let (pid, id) = (words.next()?.parse().ok()?, words.next()?.to_owned());
    let state = words.next()?.to_owned();
    let name =
        words.next().map(|name| name.trim_start_matches('/').to_owned()).filter(|name| !name.is_empty());
    Some(Told { id, name, state, pid })
}

/// Names the reason for which a container does not ask `nameserver` for names, by its resolv.conf, and the remedy.
pub(super) fn advice(resolv_conf: &str, nameserver: &str) -> Option<String> {
    let servers: Vec<&str> = resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .map(str::trim)
        .collect();
    // Docker writes down whom its own resolver asks.
    let asked_by_docker = || {
        let mut lines = resolv_conf.lines().filter(|line| line.starts_with("# ExtServers:"));
        lines.any(|line| line.contains(nameserver))
    };
    if servers.first() == Some(&nameserver) || (servers.contains(&DOCKER) && asked_by_docker()) {
        return None;
    }
    let asks = if servers.is_empty() { "nobody".to_owned() } else { servers.join(" and ") };
    Some(format!(
        "the container asks {asks} for names, and those of its networks are answered at {nameserver}; hint: start it with \
         `--dns {nameserver}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_tells_process_id_state_and_name() {
        let check = |answer: &str, pid, state: &str, name: Option<&str>| {
            let told = told(answer).unwrap();
            assert_eq!((told.pid, told.id.as_str(), told.name.as_deref()), (pid, "3f2a", name));
            assert_eq!(told.state, state);
        };
        check("4711 3f2a running /web\n", 4711, "running", Some("web"));
        check("0 3f2a exited demo_api_1\n", 0, "exited", Some("demo_api_1"));
        check("7 3f2a paused\n", 7, "paused", None);
        assert_eq!(told("no such object"), None);
    }

    #[test]
    fn a_container_without_a_process_is_told_apart_with_what_starts_it() {
        for (state, what, hint) in [
            ("exited", "container n2 is stopped", "`docker start n2` starts it"),
            ("stopped", "container n2 is stopped", "`docker start n2` starts it"),
            ("created", "container n2 was created and has not been started", "`docker start n2` starts it"),
            ("restarting", "container n2 is between two starts", "`docker logs n2` says why"),
            ("dead", "container n2 is being removed", "`docker ps -a`"),
            ("unheard-of", "container n2 does not run", "`docker start n2` starts it"),
        ] {
            let failure = idle("docker", "n2", state);
            assert!(failure.message.starts_with(what), "{}", failure.message);
            assert!(failure.hint.as_deref().unwrap_or_default().contains(hint), "{:?}", failure.hint);
        }
    }

    #[test]
    fn a_container_that_asks_elsewhere_is_told_how_to_ask_here() {
        let check = |resolv_conf: &str, nameserver: &str, expected: bool| {
            let advice = advice(resolv_conf, nameserver);
            assert_eq!(advice.is_some(), expected, "{resolv_conf:?} {advice:?}");
            assert!(advice.is_none_or(|advice| advice.contains(&format!("`--dns {nameserver}`"))));
        };
        check("nameserver 127.0.0.11\nsearch shop\n", "127.0.0.11", false);
        check("nameserver 192.168.65.7\n", "127.0.0.11", true);
        check("", "127.0.0.11", true);
        check("nameserver 127.0.0.11\noptions ndots:0\n", "127.0.0.12", true);
        check("nameserver 127.0.0.11\n# ExtServers: [127.0.0.12]\n", "127.0.0.12", false);
    }

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
