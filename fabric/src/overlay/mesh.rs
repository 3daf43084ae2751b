//! Addresses of the mesh itself that workloads must not reach: control, metrics, the hosts' own conversation.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::Ipv4Net;

use super::{KernelAccess, Overlay, lock};
use crate::nft::MeshPorts;

/// Control, and its metrics (TCP), hosts among themselves (TCP and UDP), and a host's metrics: as they are unless somebody
/// chose others.
const USUAL: [u16; 4] = [7443, 7444, 9464, 9465];

/// Number of control's addresses that are kept in mind.
const MAX_CONTROL: usize = 64;

impl KernelAccess {
    /// Collects the addresses of the mesh's hosts, as far as this host knows: those of a network, control, and whoever is
    /// on the network beneath with this one.
    pub(super) fn hosts_of_mesh(&self, hosts: &BTreeSet<IpAddr>) -> BTreeSet<Ipv4Net> {
        let control = lock(&self.control);
        let known = hosts.iter().copied().chain(control.iter().map(SocketAddr::ip));
        let known = known.filter_map(|address| match address.to_canonical() {
            IpAddr::V4(address) => Some(Ipv4Net::from(address)),
            // Nothing of IPv6 leaves a network.
            IpAddr::V6(_) => None,
        });
        let nets: Vec<Ipv4Net> =
            known.chain(self.beneath()).filter(|net| !net.addr().is_loopback()).collect();
        Ipv4Net::aggregate(&nets).into_iter().collect()
    }

    pub(super) fn mesh_ports(&self) -> MeshPorts {
        let mut services = BTreeSet::from(USUAL);
        services.extend([self.config.metrics_port, self.config.peer_port]);
        services.extend(lock(&self.control).iter().map(SocketAddr::port));
        MeshPorts { tunnel: self.config.vxlan_port, services }
    }
}

impl Overlay {
    /// Control is at these addresses as well: from the next pass on workloads do not reach it there.
    pub fn learn_control(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let mut control = lock(&self.kernel.control);
        for address in addresses {
            if control.len() < MAX_CONTROL {
                control.insert(address);
            }
        }
    }
}
