//! The network's rules, and what they have counted.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use sealane_base::metrics::{Family, MetricKind, Reading, Series};
use sealane_base::task;

use super::pass::Pass;
use super::plan::{Base, Desired, Port};
use super::tunnel::{VXLAN, VXLAN_OTHER};
use super::{Overlay, OverlayError, Table};
use crate::nft::gate::Refused;
use crate::nft::{self, NetworkRules, RulesCache, Sender, Senders, Told, Tunnel};

impl Pass<'_> {
    /// Lets every port's workload speak for itself and for nobody else.
    pub(super) fn ensure_rules(
        &mut self,
        desired: &Desired,
        known: &mut RulesCache,
    ) -> Result<(), OverlayError> {
        loop {
            let ports = desired.ports.iter();
            let senders: Vec<Sender> = ports.filter_map(|port| self.sender(&desired.base, port)).collect();
            let told = Some(self.told(desired));
            let outcome = self.ensure_senders(&desired.base, Senders::Exactly(senders.clone()), told, known);
            if outcome.is_ok() {
                return outcome;
            }
            // One may have gone by itself, with its workload.
            self.refresh()?;
            if senders.iter().all(|sender| self.link(&sender.port).is_some()) {
                return outcome;
            }
        }
    }

    /// The same for one more port, whose device is there.
    pub(super) fn ensure_rules_with(
        &mut self,
        base: &Base,
        port: &Port,
        known: &mut RulesCache,
    ) -> Result<(), OverlayError> {
        let gone = || io::Error::other(format!("{} was removed while it was set up", port.name));
        let sender = self.sender(base, port).ok_or_else(gone)?;
        self.ensure_senders(base, Senders::With(vec![sender]), None, known)
    }

    /// The same for the tunnels' device alone.
    pub(super) fn ensure_tunnel_rules(
        &mut self,
        base: &Base,
        known: &mut RulesCache,
    ) -> Result<(), OverlayError> {
        self.ensure_senders(base, Senders::With(Vec::new()), None, known)
    }

    /// Keeps workloads from what these hosts, and control, offer the mesh, and tunnels from the addresses of services.
    pub(super) fn ensure_told(
        &mut self,
        desired: &Desired,
        known: &mut RulesCache,
    ) -> Result<(), OverlayError> {
        let told = Some(self.told(desired));
        if desired.other.is_some() && self.link(VXLAN_OTHER).is_none() {
            self.refresh_link(VXLAN_OTHER)?;
        }
        self.ensure_senders(&desired.base, Senders::With(Vec::new()), told, known)
    }

    fn told(&self, desired: &Desired) -> Told {
        Told { hosts: self.kernel.hosts_of_mesh(&desired.hosts), services: desired.services.clone() }
    }

    /// Removes what guarded ports that are gone; addresses of this host's workloads are those that stay.
    pub(super) fn free_ports(
        &mut self,
        base: &Base,
        gone: Vec<String>,
        staying: BTreeSet<IpAddr>,
        known: &mut RulesCache,
    ) -> Result<(), OverlayError> {
        self.ensure_senders(base, Senders::Without(gone, staying), None, known)
    }

    fn ensure_senders(
        &mut self,
        base: &Base,
        senders: Senders,
        told: Option<Told>,
        known: &mut RulesCache,
    ) -> Result<(), OverlayError> {
        if self.link(VXLAN).is_none() {
            self.refresh_link(VXLAN)?;
        }
        let tunnels = [VXLAN, VXLAN_OTHER].into_iter().filter_map(|name| self.link(name));
        let wanted = NetworkRules {
            senders,
            tunnels: tunnels.map(|link| Tunnel { device: link.name.clone(), index: link.index }).collect(),
            subnet: base.subnet,
            subnet6: base.subnet6,
            egress: base.egress,
            ports: self.kernel.mesh_ports(),
            told,
        };
        let changed = nft::ensure_network_rules(&self.kernel.hopper, &self.ns, wanted, known)?;
        self.applied.count(Table::Rules, changed);
        Ok(())
    }

    /// Describes the frames that may be sent through the port; `None` while it has no device.
    fn sender(&self, base: &Base, port: &Port) -> Option<Sender> {
        Some(Sender {
            port: port.name.clone(),
            index: self.link(&port.name)?.index,
            mac: port.mac,
            address: port.address.to_ipv4(),
            address6: base.subnet6.map(|subnet6| subnet6.address(port.address)),
        })
    }
}

/// Counters of a network's rules, their series, and what these say.
const OF_NETWORKS: [(&str, &str, &str); 4] = [
    (
        "spoofed",
        "sealane_spoofed_packets_total",
        "Packets of workloads with the Ethernet or IP address of somebody else; dropped.",
    ),
    (
        "foreign",
        "sealane_tunnel_spoofed_packets_total",
        "Packets of other hosts' tunnels from an address that none of their workloads can have; dropped.",
    ),
    (
        "unsupported",
        "sealane_unsupported_packets_total",
        "Packets of workloads of no family that the network has; dropped.",
    ),
    (
        "refused",
        "sealane_egress_refused_packets_total",
        "Packets of workloads that may not leave their network; refused with ICMP.",
    ),
];

impl Overlay {
    /// Gathers the packets that the rules of every network on this host, and its gate, have dropped and refused, as
    /// series.
    pub async fn counted(&self) -> Vec<Family> {
        let kernel = self.kernel.clone();
        let counting = move || (kernel.counted(), kernel.gate_counters().unwrap_or_default());
        let (counted, at_gate) = task::blocking(counting).await.unwrap_or_default();
        let of_networks = OF_NETWORKS.into_iter().map(|(counter, name, help)| {
            let of = counted.iter().filter(|(_, known, _)| known == counter);
            let series = of.map(|(network, _, packets)| (vec![("network", network.clone())], *packets));
            family(name, help, series)
        });
        let help = "VXLAN packets that no host of their network (empty: of echoes) has sent, by reason (stranger, forged, malformed); dropped.";
        let refused =
            at_gate.iter().filter_map(|(name, packets)| Some((Refused::of_counter(name)?, *packets)));
        let refused = refused.map(|(why, packets)| {
            let (reason, network) = match why {
                Refused::Stranger(tunnel) => ("stranger", tunnel.as_str().to_owned()),
                Refused::Forged => ("forged", String::new()),
                Refused::Malformed => ("malformed", String::new()),
            };
            (vec![("network", network), ("reason", reason.to_owned())], packets)
        });
        let refused = family("sealane_tunnel_refused_packets_total", help, refused);
        let help =
            "Messages of ICMP about the length of tunnels' packets, which anybody could have sent; dropped.";
        let lengths = at_gate.iter().filter(|(name, _)| name == nft::LENGTHS);
        let lengths = lengths.map(|(_, packets)| (Vec::new(), *packets));
        of_networks.chain([refused, family("sealane_tunnel_length_messages_total", help, lengths)]).collect()
    }
}

fn family(
    name: &str,
    help: &str,
    series: impl Iterator<Item = (Vec<(&'static str, String)>, u64)>,
) -> Family {
    let series = series.map(|(labels, packets)| Series {
        labels: labels.into_iter().map(|(label, value)| (label.to_owned(), value)).collect(),
        reading: Reading::Value(packets as f64),
    });
    Family {
        name: name.to_owned(),
        help: help.to_owned(),
        kind: MetricKind::Counter,
        series: series.collect(),
    }
}

impl super::KernelAccess {
    /// Network, counter and packets. A network that is just coming or going counts nothing.
    fn counted(&self) -> Vec<(String, String, u64)> {
        let networks = self.networks_on_disk().unwrap_or_default();
        let of = |network: sealane_proto::types::NetworkName| {
            let ns = sealane_sys::NetNs::open(self.network_path(&network)).ok()?;
            let counted = nft::counted(&self.hopper, &ns).ok()?;
            Some(counted.into_iter().map(move |(counter, packets)| (network.to_string(), counter, packets)))
        };
        networks.into_iter().filter_map(of).flatten().collect()
    }
}
