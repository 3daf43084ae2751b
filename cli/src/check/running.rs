//! Checks of the installation: control and agent of this host, and the problems that they know.

use std::net::IpAddr;
use std::process::Command;

use sealane_fabric::overlay::{narrow_remedy, overhead};
use sealane_proto::types::{IpFamily, Mtu, UnderlayAddr, UnderlayAddrs};
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
            let networks = answer(client.list_networks(v1::ListNetworksRequest::default())).await?.networks;
            Ok((status, Neighbours { nodes: views(&mut client).await?, networks }))
        });
        match asked {
            Ok((status, neighbours)) => findings.extend(judged(what.name(), &status, &neighbours)),
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
        Ok(views(&mut client).await?.into_iter().filter_map(|view| view.node).find(|node| node.name == own))
    });
    asked.ok()??.underlay.parse().ok()
}

/// Returns true if control or the agent of this run directory runs.
pub(super) fn runs(run_dir: &RunDir, daemon: Daemon) -> bool {
    running(&run_dir.pid_file(daemon)).is_ok_and(|process| process.is_some())
}

/// Lists the hosts.
async fn views(client: &mut ReadClient<tonic::transport::Channel>) -> Result<Vec<v1::NodeView>, Failure> {
    Ok(answer(client.list_nodes(v1::ListNodesRequest {})).await?.nodes)
}

/// The hosts and networks that the agent of this host knows.
struct Neighbours {
    nodes: Vec<v1::NodeView>,
    networks: Vec<v1::NetworkView>,
}

impl Neighbours {
    /// The length of packets inside the tunnels of two hosts: that of the longest network that they share, which is what it was created
    /// with, or the least that any of its hosts has told. `None` where they share none of a known length.
    fn inner_length(&self, (own, peer): (&v1::NodeView, &v1::NodeView)) -> Option<u32> {
        let shared = self.networks.iter().filter_map(|view| view.network.as_ref());
        let shared = shared
            .filter(|network| own.networks.contains(&network.name) && peer.networks.contains(&network.name));
        let length = |network: &v1::Network| {
            if network.mtu > 0 {
                return Some(network.mtu);
            }
            let hosts = self.nodes.iter().filter(|view| view.networks.contains(&network.name));
            let told =
                hosts.filter_map(|view| view.node.as_ref()).map(|node| node.mtu).filter(|&mtu| mtu > 0);
            let least = if network.subnet6.is_empty() { 0 } else { Mtu::MIN_IPV6.into() };
            told.min().map(|told| told.max(least))
        };
        shared.filter_map(length).max()
    }

    /// The ways from a host to all others.
    fn ways<'a>(&'a self, own: &'a str) -> impl Iterator<Item = Way> + use<'a> {
        let is_own = move |view: &&v1::NodeView| view.node.as_ref().is_some_and(|node| node.name == own);
        let here = self.nodes.iter().find(is_own);
        self.nodes.iter().filter(move |view| !is_own(view)).filter_map(move |view| {
            let peer = reached(here.and_then(|here| here.node.as_ref()), view.node.as_ref()?);
            let family = IpFamily::of(peer.underlay.parse().ok()?);
            let inner = here.and_then(|here| self.inner_length((here, view)));
            let needs = inner.map(|inner| inner + overhead(family));
            Some(Way { peer, needs, passes: Some(view.path_mtu).filter(|&passes| passes > 0) })
        })
    }
}

/// A way to another host.
struct Way {
    peer: v1::Node,
    /// Length of the longest packets that networks send there, with the outer headers, where that is known.
    needs: Option<u32>,
    /// Length that echoes have found to pass.
    passes: Option<u32>,
}

fn judged(what: &'static str, status: &v1::StatusResponse, neighbours: &Neighbours) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        status.problems.iter().map(|problem| Finding::told(what, problem)).collect();
    if findings.is_empty() {
        let text = match what {
            "agent" => format!("{} works and is connected to {}", status.node, status.control),
            _ if status.role == "standby" => {
                format!("stands by; the control plane at {} leads", status.leader)
            }
            _ => format!("works, {} of {} hosts connected", status.nodes_connected, status.nodes),
        };
        findings.push(Finding::ok(what, text));
    }
    if what == "agent" {
        findings.extend(neighbours.ways(&status.node).map(|way| path_to(&way)));
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

/// Checks that packets as long as those of networks reach another host, or as the underlay's MTU where their length is not known; an
/// underlay that drops them loses exactly the large packets of the overlay.
fn path_to(Way { peer, needs, passes }: &Way) -> Finding {
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
        Ok(mtu) => needs.map_or(mtu, |needs| needs.min(mtu)),
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
            narrow_remedy("this host", Some(mtu), passes.filter(|&passes| passes < mtu)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_between_two_hosts_are_as_long_as_the_longest_network_that_both_carry() {
        let node = |name: &str, last: u8, mtu: u32, networks: &[&str]| v1::NodeView {
            node: Some(v1::Node {
                name: name.to_owned(),
                underlay: format!("192.0.2.{last}"),
                mtu,
                ..Default::default()
            }),
            networks: networks.iter().map(|&name| name.to_owned()).collect(),
            ..Default::default()
        };
        let network = |name: &str, mtu: u32, subnet6: &str| {
            let (name, subnet6) = (name.to_owned(), subnet6.to_owned());
            let network = v1::Network { name, mtu, subnet6, ..Default::default() };
            v1::NetworkView { network: Some(network), ..Default::default() }
        };
        let of = |networks: Vec<v1::NetworkView>| {
            let nodes = vec![
                node("a", 1, 1_450, &["shop", "lab"]),
                node("b", 2, 1_450, &["shop", "lab"]),
                node("c", 3, 1_239, &["shop"]),
                node("d", 4, 0, &[]),
            ];
            let neighbours = Neighbours { nodes, networks };
            neighbours.ways("a").map(|way| way.needs).collect::<Vec<_>>()
        };
        let shop = || network("shop", 0, "");
        assert_eq!(of(vec![shop()]), [Some(1_289), Some(1_289), None], "all go by the smallest of them");
        assert_eq!(of(vec![shop(), network("lab", 0, "")]), [Some(1_500), Some(1_289), None]);
        assert_eq!(of(vec![network("shop", 1_400, "")]), [Some(1_450), Some(1_450), None]);
        assert_eq!(of(vec![network("shop", 0, "fd42::/64")]), [Some(1_330), Some(1_330), None]);
        assert_eq!(of(Vec::new()), [None; 3]);
    }
}
