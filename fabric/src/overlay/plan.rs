//! Desired state of the kernel for a network, and its difference from the actual one. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use sealane_base::shared_list::SharedList;
use sealane_proto::resource::{Egress, Network, NetworkContent, NetworkSnapshot, Node};
use sealane_proto::types::{
    IpFamily, MacAddr, NodeName, OverlayIp, Subnet, Subnet6, UnderlayAddr, UnderlayAddrs, Vni, WorkloadName,
    addresses,
};

use crate::Attachment;
use crate::netlink::{Address, Route};
use crate::seat::{Interface, number};

/// The network's own devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// VXLAN network identifier.
    pub vni: Vni,
    /// The MTU of every device, in bytes.
    pub mtu: u32,
    /// The bridge's address, the same on every host.
    pub gateway: OverlayIp,
    /// The bridge's Ethernet address, the same on every host.
    pub gateway_mac: MacAddr,
    /// The network's addresses.
    pub subnet: Subnet,
    /// Prefix of its IPv6 addresses.
    pub subnet6: Option<Subnet6>,
    /// Treatment of packets to the world outside.
    pub egress: Egress,
}

/// The bridge's port of a local workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The device's name, see [`port_name`].
    pub name: String,
    /// Workload of the port.
    pub workload: WorkloadName,
    /// The workload's address.
    pub address: OverlayIp,
    /// The workload's Ethernet address.
    pub mac: MacAddr,
    /// Interface inside.
    pub interface: Interface,
}

/// A row that is found by a key: there is one of each key.
pub trait Row: Copy + Ord {
    /// Key by which it is found.
    type Key: Ord;
    /// Returns its key.
    fn key(&self) -> Self::Key;
}

/// A MAC behind another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FdbRow {
    /// The remote workload's.
    pub mac: MacAddr,
    /// The host's underlay address.
    pub peer: IpAddr,
}

/// A remote workload's address and MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NeighbourRow {
    /// IP address of the neighbour.
    pub address: IpAddr,
    /// Ethernet address of the neighbour.
    pub mac: MacAddr,
}

/// A MAC behind a port of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BridgeFdbRow {
    /// The local workload's, or the gateway's.
    pub mac: MacAddr,
    /// The port's device number, or the bridge's own.
    pub port: u32,
}

impl Row for FdbRow {
    /// Each family has a device of its own, with a table of its own.
    type Key = (IpFamily, MacAddr);
    fn key(&self) -> (IpFamily, MacAddr) {
        (IpFamily::of(self.peer), self.mac)
    }
}

impl Row for NeighbourRow {
    type Key = IpAddr;
    fn key(&self) -> IpAddr {
        self.address
    }
}

impl Row for BridgeFdbRow {
    type Key = MacAddr;
    fn key(&self) -> MacAddr {
        self.mac
    }
}

/// Everything that the kernel of one host should have for a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Bridge and VXLAN device.
    pub base: Base,
    /// A port per local workload.
    pub ports: BTreeSet<Port>,
    /// The names of those whose workloads end: whoever takes them away is not in the wrong, and they are not made again.
    pub ending: BTreeSet<String>,
    /// Underlay address of this host, of the other family than its main one, where another host is reached by that alone: then
    /// there is a second VXLAN device, which sends from there.
    pub other: Option<UnderlayAddr>,
    /// The VXLAN devices' forwarding tables, each row in that of its family: sorted, no MAC twice.
    pub fdb: SharedList<FdbRow>,
    /// The neighbours of the network's first VXLAN device, which answers for all: sorted, no address twice.
    pub neighbours: SharedList<NeighbourRow>,
    /// Number of other hosts that are sent to.
    pub peers: usize,
    /// The other hosts that carry the network, at the addresses of their tunnels to this one: whose packets are let in.
    pub carriers: Arc<BTreeSet<IpAddr>>,
    /// Every address beneath of those hosts.
    pub hosts: Arc<BTreeSet<IpAddr>>,
    /// The addresses that are kept for services: nobody sends from there.
    pub services: BTreeSet<Ipv4Net>,
}

/// Changes that make one set of rows another: first remove, then add, where adding replaces the row of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff<R> {
    /// Rows to take away.
    pub remove: Vec<R>,
    /// Rows to add or to put in another's place.
    pub add: Vec<R>,
}

impl Base {
    /// The devices of `network` at this MTU.
    #[must_use]
    pub fn of(network: &Network, mtu: u32) -> Self {
        let gateway = network.subnet.gateway();
        Self {
            vni: network.vni,
            mtu,
            gateway,
            gateway_mac: network.mac_of(gateway),
            subnet: network.subnet,
            subnet6: network.subnet6,
            egress: network.egress,
        }
    }

    /// Pairs one of the network's addresses on a device with its twin where there is IPv6.
    pub(super) fn both(&self, index: u32, address: OverlayIp) -> impl Iterator<Item = Address> + use<> {
        let addresses = addresses(self.subnet, self.subnet6, address);
        addresses.map(move |own| Address { index, address: own.addr(), prefix_len: own.prefix_len() })
    }

    /// Returns true if the port's workload has the gateway's Ethernet address: it gets no frames, for the gateway would
    /// get none otherwise.
    pub(super) fn is_gateway(&self, port: &Port) -> bool {
        port.mac == self.gateway_mac
    }

    /// The routes of a workload by its interface of this number: to its network, and to everywhere else by the gateway.
    pub(super) fn routes_inside(&self, port: &Port, index: u32) -> [Route; 2] {
        [
            Route::connected(index, port.address.to_ipv4(), self.subnet.to_net()),
            Route::default_via(index, self.gateway.to_ipv4(), self.default_metric(port)),
        ]
    }

    /// The metric of a workload's way to everywhere else through this network. Of a workload's networks the first one that
    /// lets packets out comes first; a route that somebody else gave the namespace, without a metric, before all. No two
    /// are alike: the kernel would take the second for the first in its place.
    #[must_use]
    pub fn default_metric(&self, port: &Port) -> u32 {
        let of_network = match self.egress {
            Egress::Allow => 1000,
            Egress::Deny => 2000,
        };
        of_network + u32::from(port.interface.number())
    }
}

impl Port {
    /// The port of a local workload.
    #[must_use]
    pub fn of(attachment: &Attachment) -> Self {
        let Attachment { workload, seat, .. } = attachment;
        Self {
            name: port_name(&workload.name),
            workload: workload.name.clone(),
            address: workload.address,
            mac: workload.mac,
            interface: seat.interface(),
        }
    }
}

/// The port's device name: `w` and 48 bits of the name's FNV-1a hash, as a device name has room for 15 bytes.
/// Two of a thousand workloads of one network on one host share one with a chance of one in 500 million.
#[must_use]
pub fn port_name(workload: &WorkloadName) -> String {
    format!("w{:012x}", number(workload.as_str()) >> 16)
}

/// Computes the desired state of the host `node`, which is at `own` beneath, for the snapshot's network when `local` runs on it.
///
/// `local` is what this host knows of itself and wins over the snapshot: a remote workload with the address or
/// MAC of a local one, or of the gateway, is stale. So is a workload of a host that the snapshot does not list, or that has no
/// family in common with this one.
#[must_use]
pub fn desired(
    snapshot: &NetworkSnapshot,
    (node, own): (&NodeName, UnderlayAddrs),
    attachments: &[Attachment],
    mtu: u32,
) -> Desired {
    whole(snapshot, (node, own), attachments, mtu).desired
}

/// The ports of this host's workloads in the snapshot's network, and the names of those that end.
pub(super) fn ports(
    snapshot: &NetworkContent,
    attachments: &[Attachment],
) -> (BTreeSet<Port>, BTreeSet<String>) {
    let of_network =
        || attachments.iter().filter(|attachment| attachment.workload.network == snapshot.network.name);
    let ending = of_network().filter(|attachment| attachment.ending);
    let ending = ending.map(|attachment| port_name(&attachment.workload.name)).collect();
    (of_network().map(Port::of).collect(), ending)
}

/// The desired state with what came up as it was computed.
pub(super) struct Whole<'a> {
    pub(super) desired: Desired,
    /// Addresses of the hosts that this one has a way to.
    pub(super) ways: HashMap<&'a NodeName, IpAddr>,
    /// Number of workloads behind each of them.
    pub(super) behind: HashMap<IpAddr, usize>,
    /// True if a workload elsewhere has no rows as another one has its address.
    pub(super) leaves_out: bool,
}

/// Computes the desired state by a look at everything, as [`desired`].
pub(super) fn whole<'a>(
    snapshot: &'a NetworkSnapshot,
    (node, own): (&NodeName, UnderlayAddrs),
    attachments: &[Attachment],
    mtu: u32,
) -> Whole<'a> {
    let base = Base::of(&snapshot.network, mtu);
    let (ports, ending) = ports(snapshot, attachments);
    let mut taken: HashSet<OverlayIp> = ports.iter().map(|port| port.address).collect();
    let mut taken_macs: HashSet<MacAddr> = ports.iter().map(|port| port.mac).collect();
    taken.insert(base.gateway);
    taken_macs.insert(base.gateway_mac);

    let ways = snapshot.nodes.iter().filter_map(|other| Some((&other.name, way(own, other)?)));
    let underlay: HashMap<&NodeName, IpAddr> = ways.collect();
    let (mut fdb, mut neighbours, mut behind) = (Vec::new(), Vec::new(), HashMap::new());
    let mut leaves_out = false;
    for remote in snapshot.workloads.iter().filter(|workload| workload.node != *node) {
        let Some(&peer) = underlay.get(&remote.node) else { continue };
        if taken.contains(&remote.address) || taken_macs.contains(&remote.mac) {
            leaves_out = true;
            continue;
        }
        taken.insert(remote.address);
        taken_macs.insert(remote.mac);
        fdb.push(FdbRow { mac: remote.mac, peer });
        let addresses = snapshot.network.addresses(remote.address);
        neighbours.extend(addresses.map(|own| NeighbourRow { address: own.addr(), mac: remote.mac }));
        *behind.entry(peer).or_default() += 1;
    }
    fdb.sort_unstable();
    neighbours.sort_unstable();
    let services = snapshot.blocks.iter().filter(|block| block.node.is_none()).map(|block| block.range);
    let carriers = carriers(snapshot, (node, own));
    let is_of_other =
        |address: &UnderlayAddr| carriers.iter().any(|peer| IpFamily::of(*peer) == address.family());
    let others = snapshot.nodes.iter().filter(|other| other.name != *node);
    let hosts = others.flat_map(|other| other.underlay.iter()).map(UnderlayAddr::to_ip).collect();
    let desired = Desired {
        base,
        ports,
        ending,
        fdb: fdb.into(),
        neighbours: neighbours.into(),
        peers: behind.len(),
        other: own.other().filter(is_of_other),
        hosts: Arc::new(hosts),
        carriers: Arc::new(carriers),
        services: services.collect(),
    };
    Whole { desired, ways: underlay, behind, leaves_out }
}

/// The other hosts that carry the snapshot's network, as the host `node` at `own` reaches them.
#[must_use]
pub fn carriers(snapshot: &NetworkSnapshot, (node, own): (&NodeName, UnderlayAddrs)) -> BTreeSet<IpAddr> {
    let others = snapshot.nodes.iter().filter(|other| other.name != *node);
    others.filter_map(|other| way(own, other)).collect()
}

/// The address at which a host at `own` reaches another one.
fn way(own: UnderlayAddrs, other: &Node) -> Option<IpAddr> {
    own.way_to(other.underlay).map(|way| way.peer.to_ip())
}

/// Computes the changes that make `actual` into `desired`. A row that stands alone under its key is replaced, not
/// removed, so that there is no moment without one.
#[must_use]
pub fn diff<R: Row>(desired: &BTreeSet<R>, actual: &BTreeSet<R>) -> Diff<R> {
    let add: Vec<R> = desired.difference(actual).copied().collect();
    let mut remove: Vec<R> = actual.difference(desired).copied().collect();
    if !remove.is_empty() {
        let replaced: BTreeSet<R::Key> = add.iter().map(Row::key).collect();
        let mut of_key: BTreeMap<R::Key, usize> = BTreeMap::new();
        for key in actual.iter().map(Row::key).filter(|key| replaced.contains(key)) {
            *of_key.entry(key).or_default() += 1;
        }
        remove.retain(|row| of_key.get(&row.key()) != Some(&1));
    }
    Diff { remove, add }
}

/// The same for lists that are sorted and have each key once in `desired`; what they share is passed over.
#[must_use]
pub(super) fn difference<R: Row>(desired: &SharedList<R>, actual: &SharedList<R>) -> Diff<R> {
    let mut changes: Diff<R> = Diff { remove: Vec::new(), add: Vec::new() };
    for (before, after) in actual.differences(desired, R::cmp) {
        changes.remove.extend(before);
        changes.add.extend(after);
    }
    if !changes.remove.is_empty() {
        let replaced: BTreeSet<R::Key> = changes.add.iter().map(Row::key).collect();
        // Where a key's row is new, all that have been under it are to go.
        let mut of_key: BTreeMap<R::Key, usize> = BTreeMap::new();
        for key in changes.remove.iter().map(Row::key).filter(|key| replaced.contains(key)) {
            *of_key.entry(key).or_default() += 1;
        }
        changes.remove.retain(|row| of_key.get(&row.key()) != Some(&1));
    }
    changes
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
