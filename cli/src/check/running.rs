//! Checks of the installation: control and agent of this host, and the problems that they know.

use std::net::IpAddr;
use std::process::Command;

use sealane_proto::types::{UnderlayAddr, UnderlayAddrs};
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::read_client::ReadClient;
use sealane_sys::run_dir::{AGENT_SOCKET, CONTROL_SOCKET, Daemon, RunDir};

use super::Finding;
use crate::args::Common;
use crate::client::{answer, converse, read};
use crate::failure::Failure;
use crate::life::running;

pub(super) fn check(common: &Common) -> Vec<Finding> {
    let known = [(Daemon::Control, CONTROL_SOCKET), (Daemon::Agent, AGENT_SOCKET)];
    let mut findings = Vec::new();
    for (what, socket) in known {
        if !runs(&common.run_dir, what) {
            continue;
        }
        let common = Common { socket: Some(common.run_dir.socket(socket)), ..common.clone() };
        let asked = converse(async {
            let mut client = read(&common).await?;
            let status = answer(client.status(v1::StatusRequest {})).await?;
            Ok((status, peers(&mut client).await?))
        });
        match asked {
            Ok((status, peers)) => findings.extend(judged(what.name(), &status, &peers)),
            Err(failure) => findings.push(Finding::told(what.name(), &failure.message)),
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("running", "neither control nor agent runs here"));
    }
    findings
}

/// Returns the address that the agent of this host has its packets sent to, if it runs.
pub(super) fn underlay(common: &Common) -> Option<UnderlayAddr> {
    if !runs(&common.run_dir, Daemon::Agent) {
        return None;
    }
    let common = Common { socket: Some(common.run_dir.socket(AGENT_SOCKET)), ..common.clone() };
    let asked = converse(async {
        let mut client = read(&common).await?;
        let own = answer(client.status(v1::StatusRequest {})).await?.node;
        Ok(peers(&mut client).await?.into_iter().find(|node| node.name == own))
    });
    asked.ok()??.underlay.parse().ok()
}

/// Returns true if control or the agent of this run directory runs.
pub(super) fn runs(run_dir: &RunDir, daemon: Daemon) -> bool {
    running(&run_dir.pid_file(daemon)).is_ok_and(|process| process.is_some())
}

/// Lists the other hosts.
async fn peers(client: &mut ReadClient<tonic::transport::Channel>) -> Result<Vec<v1::Node>, Failure> {
    let nodes = answer(client.list_nodes(v1::ListNodesRequest {})).await?.nodes;
    Ok(nodes.into_iter().filter_map(|view| view.node).collect())
}

fn judged(what: &'static str, status: &v1::StatusResponse, peers: &[v1::Node]) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        status.problems.iter().map(|problem| Finding::told(what, problem)).collect();
    if findings.is_empty() {
        let text = match what {
            "agent" => format!("{} works and is connected to {}", status.node, status.control),
            _ => format!("works, {} of {} hosts connected", status.nodes_connected, status.nodes),
        };
        findings.push(Finding::ok(what, text));
    }
    if what == "agent" {
        let others = peers.iter().filter(|peer| peer.name != status.node);
        let own = peers.iter().find(|peer| peer.name == status.node);
        findings.extend(others.map(|peer| path_to(&reached(own, peer))));
    }
    findings
}

/// The other host at the one of its addresses to which this host has a way.
fn reached(own: Option<&v1::Node>, peer: &v1::Node) -> v1::Node {
    let at = |node: &v1::Node| UnderlayAddrs::of_wire(&node.underlay, &node.underlay_other).ok();
    let way = own.and_then(at).and_then(|own| own.way_to(at(peer)?));
    let underlay = way.map_or_else(|| peer.underlay.clone(), |way| way.peer.to_string());
    v1::Node { underlay, ..peer.clone() }
}

/// Checks that packets as large as the underlay's MTU reach another host; an underlay that drops them loses exactly the
/// large packets of the overlay.
fn path_to(peer: &v1::Node) -> Finding {
    if peer.underlay.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        let text = format!(
            "{} has the underlay address {}, where no other host reaches it",
            peer.name, peer.underlay
        );
        return Finding::problem(
            "underlay",
            text,
            "start its agent again with --underlay and an address that others reach",
        );
    }
    let mtu = match mtu_towards(&peer.underlay) {
        Ok(mtu) => mtu,
        Err(why) => {
            let text =
                format!("cannot tell how long packets to {} ({}) may be: {why}", peer.name, peer.underlay);
            return Finding::warning("mtu", text, format!("see `ip route get {}`", peer.underlay));
        }
    };
    // IPv4 header 20 bytes, that of IPv6 40, ICMP header 8.
    let headers = if peer.underlay.contains(':') { 48 } else { 28 };
    let size = mtu.saturating_sub(headers).to_string();
    let ping = |size: &str| {
        let arguments = ["-M", "do", "-c", "1", "-W", "1", "-s", size, &peer.underlay];
        Command::new("ping").args(arguments).output().map(|output| output.status.success())
    };
    let (whole, small) = match ping(&size).and_then(|whole| Ok((whole, whole || ping("56")?))) {
        Ok(heard) => heard,
        Err(error) => {
            let text =
                format!("cannot try how long packets to {} may be: ping cannot be run: {error}", peer.name);
            return Finding::warning("mtu", text, "install ping (iputils-ping)");
        }
    };
    if whole {
        Finding::ok("mtu", format!("packets of {mtu} bytes reach {}", peer.name))
    } else if small {
        Finding::problem(
            "mtu",
            format!("small packets reach {} ({}), packets of {mtu} bytes do not", peer.name, peer.underlay),
            "lower the MTU of this host's device to what the path carries, or give the networks an --mtu",
        )
    } else {
        let text = format!("{} ({}) does not answer ping", peer.name, peer.underlay);
        Finding::warning(
            "mtu",
            text,
            "it is down, or ICMP is filtered: then packets that are too long get lost unseen",
        )
    }
}

/// The MTU of the device that packets to an address leave by.
///
/// # Errors
/// Says in words whether the route is missing or the device cannot be looked at.
fn mtu_towards(address: &str) -> Result<u32, String> {
    let asked = Command::new("ip").args(["-o", "route", "get", address]).output();
    let output = asked.map_err(|error| format!("ip(8) cannot be run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_whitespace();
    let device = words.find(|word| *word == "dev").and_then(|_| words.next());
    let device = device.ok_or("this host has no route there")?;
    let path = format!("/sys/class/net/{device}/mtu");
    let mtu = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    mtu.trim().parse().map_err(|error| format!("{path}: {error}"))
}
