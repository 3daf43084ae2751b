//! Space in a network: how many addresses it has, who has them, and how many are left.

use super::{Block, Network, NetworkContent};
use crate::types::{NetworkName, Subnet};

/// A network is short of addresses when no more than one in so many is left.
const SHORT: usize = 10;

/// Numbers of a network's addresses, without the reserved ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressSpace {
    /// All of them.
    pub all: usize,
    /// Addresses in blocks of hosts.
    pub hosts: usize,
    /// Addresses in blocks of services.
    pub services: usize,
    /// Addresses that workloads have.
    pub workloads: usize,
}

impl AddressSpace {
    /// Counts the addresses of a network.
    #[must_use]
    pub fn of(content: &NetworkContent) -> Self {
        Self::count(&content.network, &content.blocks, content.workloads.len())
    }

    /// Counts the addresses of a network with these blocks and so many workloads.
    #[must_use]
    pub fn count(network: &Network, blocks: &[Block], workloads: usize) -> Self {
        let subnet = network.subnet;
        let (mut hosts, mut services) = (0, 0);
        for block in blocks {
            let reserved = subnet.reserved();
            let reserved = reserved.iter().filter(|address| block.range.contains(&address.to_ipv4())).count();
            *(if block.node.is_some() { &mut hosts } else { &mut services }) += block.size() - reserved;
        }
        let all = (1 << (32 - subnet.to_net().prefix_len())) - subnet.reserved().len();
        Self { all, hosts, services, workloads }
    }

    /// The addresses that are in nobody's block.
    #[must_use]
    pub fn free(self) -> usize {
        self.all.saturating_sub(self.hosts + self.services)
    }

    /// Says what to do about a network that is short of addresses.
    #[must_use]
    pub fn shortage(self, network: &Network) -> Option<String> {
        if self.free() * SHORT > self.all {
            return None;
        }
        let (name, subnet) = (&network.name, network.subnet);
        let Self { all, hosts, services, workloads } = self;
        let left = match self.free() {
            0 => "no address left".to_owned(),
            free => format!("{free} of {all} addresses left"),
        };
        Some(format!(
            "network {name} ({subnet}) has {left}: its hosts hold {hosts}, of which workloads use {workloads}, and its services \
             {services}; end workloads, or {}",
            way_out(name, subnet)
        ))
    }
}

/// Says what to do about a network whose addresses do not suffice.
#[must_use]
pub fn way_out(network: &NetworkName, subnet: Subnet) -> String {
    match subnet.larger() {
        Some(larger) => format!(
            "make it larger: `sealane network grow {network} --subnet {larger}`, or a larger one still"
        ),
        None => "create a larger network".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Egress;
    use crate::types::Vni;

    fn content(blocks: &[(&str, &str)]) -> NetworkContent {
        let network = Network {
            name: "shop".parse().unwrap(),
            hosts: Default::default(),
            subnet: "10.42.0.0/24".parse().unwrap(),
            vni: Vni::FIRST,
            mtu: None,
            egress: Egress::Allow,
            subnet6: None,
            mtls: None,
        };
        let block = |(node, range): &(&str, &str)| Block {
            node: (!node.is_empty()).then(|| node.parse().unwrap()),
            range: range.parse().unwrap(),
        };
        NetworkContent { blocks: blocks.iter().map(block).collect(), ..network.into() }
    }

    #[test]
    fn a_network_is_short_of_addresses_when_a_tenth_is_left() {
        let half = content(&[("host-1", "10.42.0.0/25")]);
        let space = AddressSpace::of(&half);
        assert_eq!((space.all, space.hosts, space.services, space.free()), (253, 126, 0, 127));
        assert_eq!(space.shortage(&half.network), None);
        let most = content(&[
            ("host-1", "10.42.0.0/25"),
            ("host-2", "10.42.0.128/26"),
            ("", "10.42.0.224/27"),
            ("host-1", "10.42.0.192/28"),
        ]);
        let said = AddressSpace::of(&most).shortage(&most.network).unwrap();
        assert!(
            said.starts_with(
                "network shop (10.42.0.0/24) has 16 of 253 addresses left: its hosts hold 206, of which workloads use 0, and its \
                 services 31; end workloads, or make it larger: `sealane network grow shop --subnet 10.42.0.0/23`"
            ),
            "{said}"
        );
        let all = content(&[("host-1", "10.42.0.0/24")]);
        let said = AddressSpace::of(&all).shortage(&all.network).unwrap();
        assert!(said.contains("has no address left: its hosts hold 253"), "{said}");
    }
}
