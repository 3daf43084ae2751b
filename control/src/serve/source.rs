//! Sources of connections, as far as limits per source are concerned.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_proto::types::NodeName;

use crate::core::NodeRecord;

type Nodes = BTreeMap<NodeName, NodeRecord>;

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

/// Time for which the hosts are taken to be the same: where thousands join, each is another one more.
const AGE: Duration = Duration::from_secs(1);

/// The addresses of hosts of the mesh: connections from there have places of their own.
#[derive(Debug, Default)]
pub(super) struct HostSources {
    nodes: Arc<Nodes>,
    sources: HashSet<Source>,
    listed: Option<Instant>,
}

impl HostSources {
    /// Returns true if a host of the mesh is there, as far as was known a second ago. Costs one look as long as the hosts are the same.
    pub(super) fn has(&mut self, nodes: &Arc<Nodes>, source: Source, now: Instant) -> bool {
        let is_old = self.listed.is_none_or(|listed| now.saturating_duration_since(listed) >= AGE);
        if is_old && !Arc::ptr_eq(&self.nodes, nodes) {
            let all = nodes.values().flat_map(|record| record.node.underlay.iter());
            self.sources = all.map(|address| address.to_ip().into()).collect();
            (self.nodes, self.listed) = (nodes.clone(), Some(now));
        }
        self.sources.contains(&source)
    }
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::Node;

    use super::*;
    use crate::core::Timestamp;

    /// Hosts at 192.0.2.1 and so on.
    fn nodes(many: u8) -> Arc<Nodes> {
        let node = |last: u8| {
            let underlay = format!("192.0.2.{last}").parse().unwrap();
            let node = Node { name: format!("host-{last}").parse().unwrap(), underlay, mtu: None };
            let record = NodeRecord {
                node,
                key: [last; 32],
                joined: Timestamp::default(),
                drained: false,
                token: None,
                networks: Default::default(),
                displaced: None,
                echoes: true,
                placed: Default::default(),
            };
            (record.node.name.clone(), record)
        };
        Arc::new((1..=many).map(node).collect())
    }

    #[test]
    fn a_host_is_known_a_second_after_it_joined_at_the_latest() {
        let (mut known, began) = (HostSources::default(), Instant::now());
        let has = |known: &mut HostSources, nodes, last: u8, millis| {
            let source = IpAddr::from([192, 0, 2, last]).into();
            known.has(nodes, source, began + Duration::from_millis(millis))
        };
        let (one, two) = (nodes(1), nodes(2));
        assert!(has(&mut known, &one, 1, 0) && !has(&mut known, &one, 2, 0));
        assert!(!has(&mut known, &two, 2, 999));
        assert!(has(&mut known, &two, 2, 1_000) && has(&mut known, &one, 2, 1_999), "once a second");
        assert!(!has(&mut known, &one, 2, 2_000));
    }

    #[test]
    fn a_machine_with_a_whole_prefix_of_ipv6_is_one_source() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("2001:db8:0:1::1"), source("2001:db8:0:1:ffff::2"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }
}
