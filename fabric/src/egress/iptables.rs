//! The host's iptables, where they are in use.

use std::io;
use std::process::{Command, Output, Stdio};

use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::firewall;

/// The exit status of iptables when somebody else has held its lock for too long.
const LOCKED: i32 = 4;

/// Treatment of packets of workloads on their way out by a host's iptables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Firewall {
    /// The program is not there; nothing can be said.
    NoIptables,
    /// Forwarded packets pass without rules of ours.
    Open,
    /// Forwarded packets are dropped, but for our rules, which stand in this chain.
    Passed(String),
    /// Forwarded packets are dropped, and our rules are missing from this chain.
    Closed(String),
}

/// Finds the treatment of packets of workloads on their way out by the host's iptables. Changes nothing.
///
/// # Errors
/// With the words of iptables.
pub fn inspect(hopper: &Hopper, host: &NetNs) -> Result<Firewall, String> {
    let Some(listed) = list(hopper, host)? else { return Ok(Firewall::NoIptables) };
    let plan = firewall::plan(&listed);
    Ok(match plan.chain {
        None => Firewall::Open,
        Some(chain) if plan.changes.is_empty() => Firewall::Passed(chain),
        Some(chain) => Firewall::Closed(chain),
    })
}

/// Adds the rules where they are needed and removes them where they are not; answers how many that were.
pub(super) fn ensure(hopper: &Hopper, host: &NetNs) -> Result<u64, String> {
    let Some(listed) = list(hopper, host)? else { return Ok(0) };
    change(hopper, host, firewall::plan(&listed).changes)
}

/// Removes the rules; answers how many there were.
pub(super) fn remove(hopper: &Hopper, host: &NetNs) -> Result<u64, String> {
    let Some(listed) = list(hopper, host)? else { return Ok(0) };
    change(hopper, host, firewall::removal(&listed))
}

fn change(hopper: &Hopper, host: &NetNs, changes: Vec<firewall::Change>) -> Result<u64, String> {
    let mut done = 0;
    for change in changes {
        let words = change.join(" ");
        match run(hopper, host, change) {
            Ok(Some(output)) if output.status.success() => done += 1,
            Ok(Some(output)) => return Err(format!("iptables {words}: {}", first_line(&output.stderr))),
            Ok(None) => return Ok(done),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(done)
}

/// The rules of the filter table; `None` without iptables.
fn list(hopper: &Hopper, host: &NetNs) -> Result<Option<String>, String> {
    let output = run(hopper, host, vec!["-S".to_owned()]).map_err(|error| error.to_string())?;
    match output {
        None => Ok(None),
        // A kernel that has no iptables drops nothing by them.
        Some(output) if !output.status.success() && output.status.code() != Some(LOCKED) => Ok(None),
        Some(output) if output.status.success() => {
            Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
        }
        Some(output) => Err(format!("iptables -S: {}", first_line(&output.stderr))),
    }
}

/// Waits up to 5 s for others who change the rules; `None` when there is no such program.
fn run(hopper: &Hopper, host: &NetNs, arguments: Vec<String>) -> io::Result<Option<Output>> {
    let child = hopper.run(host, move || {
        Command::new("iptables")
            .args(["-w", "5"])
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    });
    match child.and_then(|child| child) {
        Ok(child) => child.wait_with_output().map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn first_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().next().unwrap_or("no reason given").trim().to_owned()
}
