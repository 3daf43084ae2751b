//! The ports that Sealane uses: free, or used by Sealane.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use sealane_sys::run_dir::{Daemon, RunDir};

use super::Finding;
use super::running::runs;
use crate::args::Check;

/// User of a port when it is Sealane's.
#[derive(Clone, Copy)]
enum User {
    Control,
    Agent,
}

pub(super) fn check(check: &Check, run_dir: &RunDir) -> Vec<Finding> {
    let (control, agent) = (runs(run_dir, Daemon::Control), runs(run_dir, Daemon::Agent));
    let tcp = [
        (7443, User::Control, "--listen"),
        (9465, User::Control, "--metrics"),
        (check.metrics_port.get(), User::Agent, "--metrics-port"),
        (check.peer_port.get(), User::Agent, "--peer-port, the same on every host"),
    ];
    let mut findings: Vec<Finding> = tcp
        .into_iter()
        .filter(|(_, user, _)| match user {
            User::Control => !control,
            User::Agent => !agent,
        })
        .map(|(port, user, flag)| {
            let bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).map(drop);
            judged((port, "tcp"), (user, flag), bound)
        })
        .collect();
    if !agent {
        let port = check.vxlan_port.get();
        let bound = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).map(drop);
        findings.push(match bound {
            // Networks stand while their agent is away.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && carries_networks(run_dir) => {
                Finding::ok("ports", format!("{port}/udp is used by the networks of this host"))
            }
            bound => judged((port, "udp"), (User::Agent, "--vxlan-port, the same on every host"), bound),
        });
    }
    if findings.is_empty() {
        findings.push(Finding::ok("ports", "used by this host's control plane and agent"));
    }
    findings
}

/// Returns true if an agent of this run directory has set networks up.
fn carries_networks(run_dir: &RunDir) -> bool {
    let handles = std::fs::read_dir(run_dir.namespaces()).into_iter().flatten().flatten();
    handles.into_iter().any(|handle| RunDir::network_of(&handle.file_name().to_string_lossy()).is_some())
}

fn judged((port, kind): (u16, &str), (user, flag): (User, &str), bound: io::Result<()>) -> Finding {
    let who = match user {
        User::Control => "control",
        User::Agent => "the agent",
    };
    match bound {
        Ok(()) => Finding::ok("ports", format!("{port}/{kind} is free for {who}")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && kind == "udp" => Finding::warning(
            "ports",
            format!(
                "{port}/{kind} is in use: another VXLAN (Docker Swarm, Flannel, Calico) may share it, a program may not"
            ),
            format!("`ss -lunp sport = :{port}` names a program; choose another port with {flag}"),
        ),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Finding::warning(
            "ports",
            format!("{port}/{kind} is in use, {who} could not listen there"),
            format!("`ss -ltnp sport = :{port}` says by whom; choose another with {flag}"),
        ),
        Err(error) => Finding::told("ports", &format!("{port}/{kind}: {error}")),
    }
}
