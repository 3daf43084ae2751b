//! Sidecars that nobody has written down: their agent was killed between starting and recording them, or somebody removed
//! the records.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use sealane_sys::{Process, RunDir};

use super::process::{record, recorded_pids, runs};

/// Writes down the sidecars of this run directory that have no record but a workload that is `known`
/// (`<network>.<workload>`), and ends the others: they serve nobody and would stay for good.
///
/// Others may use a run directory of the same name in another mount namespace: theirs are left alone.
///
/// # Errors
/// When processes or records cannot be listed.
pub(crate) fn stop_unrecorded(run_dir: &RunDir, known: impl Fn(&str) -> bool) -> io::Result<()> {
    let recorded = recorded_pids(run_dir)?;
    for Stray { process, line } in find(run_dir, &recorded)? {
        let pid = process.pid();
        if let Some(name) = served(&line).filter(|name| known(name) && !runs(run_dir, name)) {
            tracing::info!(pid, workload = name, "a sidecar was not written down");
            record(run_dir, &name, &process)?;
        } else {
            tracing::info!(pid, "ending a sidecar that serves nobody");
            process.kill()?;
        }
    }
    Ok(())
}

/// Finds the sidecars of this run directory, written down or not, each with the workload that it serves
/// (`<network>.<workload>`).
///
/// # Errors
/// When processes cannot be listed.
pub fn sidecars_of(run_dir: &RunDir) -> io::Result<Vec<(String, Process)>> {
    let found = find(run_dir, &BTreeSet::new())?.into_iter();
    Ok(found.map(|stray| (served(&stray.line).unwrap_or_default(), stray.process)).collect())
}

struct Stray {
    process: Process,
    line: Vec<u8>,
}

fn find(run_dir: &RunDir, recorded: &BTreeSet<u32>) -> io::Result<Vec<Stray>> {
    // That of before, too.
    let sockets = [run_dir.former_sidecar_socket(), run_dir.sidecar_socket()];
    let own = fs::read_link("/proc/self/ns/mnt")?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        let Some(pid) = folder.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
            continue;
        };
        let line = fs::read(folder.join("cmdline")).unwrap_or_default();
        if !sockets.iter().any(|socket| is_stray(pid, recorded, &line, socket)) {
            continue;
        }
        // Opened before its namespace is read: were the pid another's by now, nobody is ended by mistake.
        let Ok(process) = Process::open(pid) else { continue };
        if fs::read_link(folder.join("ns/mnt")).is_ok_and(|namespace| namespace == own) {
            found.push(Stray { process, line });
        }
    }
    Ok(found)
}

/// Returns true if a command line is that of a sidecar of this agent's that is not recorded.
fn is_stray(pid: u32, recorded: &BTreeSet<u32>, line: &[u8], socket: &Path) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).skip(1).take(3).collect();
    let socket = socket.as_os_str().as_encoded_bytes();
    words == [b"proxy".as_slice(), b"--agent-socket", socket] && !recorded.contains(&pid)
}

/// Reads the workload of a sidecar from its command line: `<network>.<workload>`.
fn served(line: &[u8]) -> Option<String> {
    let words: Vec<&str> =
        line.split(|byte| *byte == 0).map(str::from_utf8).collect::<Result<_, _>>().ok()?;
    match words.get(4..8)? {
        ["--network", network, "--workload", workload] => Some(format!("{network}.{workload}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stray_is_a_sidecar_of_this_run_directory_without_a_record() {
        let check = |pid: u32, line: &str| {
            let line = line.replace(' ', "\0");
            is_stray(pid, &BTreeSet::from([7]), line.as_bytes(), Path::new("/run/sealane/sidecar.sock"))
        };
        let line =
            "/usr/bin/sealane proxy --agent-socket /run/sealane/sidecar.sock --network shop --workload api-1";
        assert!(check(8, line));
        assert!(!check(7, line), "recorded");
        assert!(!check(8, &line.replace("/run/sealane/", "/run/other/")));
        assert!(!check(8, &line.replace("proxy", "agent")));
        assert!(!check(8, ""));
        assert_eq!(served(line.replace(' ', "\0").as_bytes()).as_deref(), Some("shop.api-1"));
        assert_eq!(served(b"/usr/bin/sealane\0proxy"), None);
    }
}
