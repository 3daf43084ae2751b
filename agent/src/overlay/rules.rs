//! The network's rules, and what they have counted.

use std::io;

use sealane_base::metrics::{Family, Kind, Reading, Series};

use super::pass::Pass;
use super::plan::{Base, Desired, Port};
use super::{Overlay, OverlayError, Table};
use crate::nft::{self, Known, Sender, Senders, Wanted};

impl Pass<'_> {
    /// Lets every port's workload speak for itself and for nobody else.
    pub(super) fn ensure_rules(&mut self, desired: &Desired, known: &mut Known) -> Result<(), OverlayError> {
        loop {
            let ports = desired.ports.iter();
            let senders: Vec<Sender> = ports.filter_map(|port| self.sender(&desired.base, port)).collect();
            let outcome = self.ensure_senders(&desired.base, Senders::Exactly(senders.clone()), known);
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
        known: &mut Known,
    ) -> Result<(), OverlayError> {
        let gone = || io::Error::other(format!("{} was removed while it was set up", port.name));
        let sender = self.sender(base, port).ok_or_else(gone)?;
        self.ensure_senders(base, Senders::With(sender), known)
    }

    /// Removes what guarded ports that are gone.
    pub(super) fn free_ports(
        &mut self,
        base: &Base,
        gone: Vec<String>,
        known: &mut Known,
    ) -> Result<(), OverlayError> {
        self.ensure_senders(base, Senders::Without(gone), known)
    }

    fn ensure_senders(
        &mut self,
        base: &Base,
        senders: Senders,
        known: &mut Known,
    ) -> Result<(), OverlayError> {
        let vxlan_port = self.kernel.config.vxlan_port;
        let wanted = Wanted {
            senders,
            subnet: base.subnet,
            ipv6: base.subnet6.is_some(),
            egress: base.egress,
            vxlan_port,
        };
        let changed = nft::ensure_network_rules(&self.kernel.hopper, &self.ns, wanted, known)?;
        self.applied.count(Table::Rules, changed);
        Ok(())
    }

    /// Who may send through the port; `None` while it has no device.
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

impl Overlay {
    /// What the rules of every network on this host have dropped and refused, as series.
    pub(crate) async fn counted(&self) -> Vec<Family> {
        let kernel = self.kernel.clone();
        let counted = tokio::task::spawn_blocking(move || kernel.counted()).await.unwrap_or_default();
        let families = [
            (
                "spoofed",
                "sealane_spoofed_packets_total",
                "Packets of workloads with the Ethernet or IP address of somebody else; dropped.",
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
        let family = |(counter, name, help): (&str, &str, &str)| {
            let of = counted.iter().filter(|(_, known, _)| known == counter);
            let series = of.map(|(network, _, packets)| Series {
                labels: vec![("network".to_owned(), network.clone())],
                reading: Reading::Value(*packets as f64),
            });
            Family {
                name: name.to_owned(),
                help: help.to_owned(),
                kind: Kind::Counter,
                series: series.collect(),
            }
        };
        families.into_iter().map(family).collect()
    }
}

impl super::Kernel {
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
