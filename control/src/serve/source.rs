//! Sources of connections, as far as limits per source are concerned.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use sealane_proto::types::NodeName;

use crate::core::NodeRecord;
use crate::registry::Directory;

type Nodes = std::collections::BTreeMap<NodeName, NodeRecord>;

/// Source of connections: an IPv4 address, or the smallest IPv6 prefix that a network gives to one machine (/64).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// The addresses of hosts of the mesh: connections from there have places of their own.
#[derive(Debug, Default)]
pub(super) struct HostSources {
    nodes: Arc<Nodes>,
    sources: BTreeSet<Source>,
}

impl HostSources {
    /// Returns true if a host of the mesh is there. Costs one look as long as the hosts are the same.
    pub(super) fn has(&mut self, directory: &Directory, source: Source) -> bool {
        if !Arc::ptr_eq(&self.nodes, &directory.nodes) {
            let all = directory.nodes.values().flat_map(|record| record.node.underlay.iter());
            self.sources = all.map(|address| address.to_ip().into()).collect();
            self.nodes = directory.nodes.clone();
        }
        self.sources.contains(&source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_a_whole_prefix_of_ipv6_is_one_source() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("2001:db8:0:1::1"), source("2001:db8:0:1:ffff::2"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }
}
