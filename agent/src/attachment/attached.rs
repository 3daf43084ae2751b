//! Results of attaching.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use sealane_proto::resource::Network;
use sealane_proto::types::{MacAddr, NetworkName, WorkloadName};

use crate::attachment::Attachment;

/// A workload that is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    /// Name of the workload.
    pub(crate) workload: WorkloadName,
    /// The path to enter its namespace by, setns(2).
    pub(crate) netns: PathBuf,
    /// File to bind over /etc/resolv.conf.
    pub(crate) resolv_conf: PathBuf,
    /// Attachments, at least one, in the order of its networks.
    pub(crate) seats: Vec<Seated>,
    /// Address at which its names are answered, from inside.
    pub(crate) nameserver: Option<Ipv4Addr>,
    /// Notes for whoever attached it, a sentence each.
    pub(crate) notes: Vec<String>,
}

/// Attachment: an interface in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seated {
    /// The network.
    pub(crate) network: NetworkName,
    /// The interface's name, inside.
    pub(crate) interface: String,
    /// Ethernet address.
    pub(crate) mac: MacAddr,
    /// Address, with the length of the network's prefix.
    pub(crate) address: Ipv4Net,
    /// The network's own address.
    pub(crate) gateway: Ipv4Addr,
    /// IPv6 address, where the network has IPv6.
    pub(crate) address6: Option<Ipv6Net>,
    /// True if nothing leaves through it.
    pub(crate) denies_egress: bool,
}

impl Seated {
    /// A workload's attachment to `network`.
    #[must_use]
    pub(crate) fn of(attachment: &Attachment, network: &Network) -> Self {
        let Attachment { workload, seat, .. } = attachment;
        let net = network.subnet.to_net();
        let own = workload.address.to_ipv4();
        // The lengths are those of networks that are there.
        let address = Ipv4Net::new(own, net.prefix_len()).unwrap_or_else(|_| own.into());
        let address6 = network.subnet6.map(|subnet6| {
            let own = subnet6.address(workload.address);
            Ipv6Net::new(own, subnet6.to_net().prefix_len()).unwrap_or_else(|_| own.into())
        });
        Self {
            network: network.name.clone(),
            interface: seat.interface().to_string(),
            mac: workload.mac,
            address,
            gateway: network.subnet.gateway().to_ipv4(),
            address6,
            denies_egress: network.egress.is_denied(),
        }
    }
}
