//! Facts about this host's peers in the networks that it carries. Pure.

use std::collections::BTreeMap;

use sealane_fabric::overlay::{EchoPeers, overhead};
use sealane_proto::client::CarriedNetworks;
use sealane_proto::types::{IpFamily, Mtu, NetworkName, NodeName, UnderlayAddrs, Vni};

use super::core::{Lengths, Watched};

/// The hosts that share one of these networks with `own`; nobody where a network has the VNI of echoes, which is named.
pub(super) fn peers_of(carried: &CarriedNetworks, own: &NodeName) -> (EchoPeers, Option<NetworkName>) {
    let taken = carried.iter().find(|(_, snapshot)| snapshot.network.vni == Vni::ECHO);
    if let Some((network, _)) = taken {
        return (EchoPeers::new(), Some(network.clone()));
    }
    let nodes = carried.values().flat_map(|snapshot| &snapshot.nodes);
    let others = nodes.filter(|node| node.name != *own);
    (others.map(|node| (node.name.clone(), node.underlay)).collect(), None)
}

/// Joins what control tells of these peers.
pub(super) fn watched_of(carried: &CarriedNetworks, peers: &EchoPeers) -> BTreeMap<NodeName, Watched> {
    let mut watched: BTreeMap<NodeName, Watched> =
        peers.keys().map(|name| (name.clone(), Watched::default())).collect();
    for (network, snapshot) in carried {
        for node in &snapshot.nodes {
            if let Some(watched) = watched.get_mut(&node.name) {
                watched.networks.insert(network.clone());
                // Of an older control plane, which does not say, nothing follows.
                watched.speaks |= snapshot.mute.as_ref().is_some_and(|mute| !mute.contains(&node.name));
            }
        }
    }
    watched
}

/// Lengths of packets from `own` to each host, with the outer headers: the longest are those of the networks that it carries, each
/// as it was created with, or the least that any of its hosts has told.
pub(super) fn lengths_of(carried: &CarriedNetworks, own: UnderlayAddrs) -> BTreeMap<NodeName, Lengths> {
    let mut lengths: BTreeMap<NodeName, Lengths> = BTreeMap::new();
    for snapshot in carried.values() {
        let told = snapshot.nodes.iter().filter_map(|node| node.mtu).min();
        let Some(length) = snapshot.network.mtu.or(told) else { continue };
        for node in &snapshot.nodes {
            let Some(way) = own.way_to(node.underlay) else { continue };
            let family = way.peer.family();
            let most = u32::from(length) + overhead(family);
            let known = lengths.entry(node.name.clone()).or_insert(Lengths { least: least(family), most });
            known.most = most.max(known.most);
        }
    }
    lengths
}

/// The length that every way of a family takes: an IPv6 packet of RFC 8200, section 5, or one of RFC 791 in a tunnel.
fn least(family: IpFamily) -> u32 {
    match family {
        IpFamily::V4 => u32::from(Mtu::MIN) + overhead(family),
        IpFamily::V6 => Mtu::MIN_IPV6.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::snapshot;
    use sealane_proto::resource::Node;

    #[test]
    fn hosts_of_all_networks_are_watched_and_nobody_where_a_network_has_the_vni_of_echoes() {
        let node = |name: &str, last: u8| Node {
            name: name.parse().unwrap(),
            underlay: format!("192.0.2.{last}").parse().unwrap(),
            mtu: None,
        };
        let (mut shop, mut lab) = (snapshot(), snapshot());
        lab.content.network.name = "lab".parse().unwrap();
        shop.content.nodes = vec![node("host-1", 1), node("host-2", 2)];
        lab.content.nodes = vec![node("host-1", 1), node("host-2", 2), node("host-3", 3)];
        let own = "host-1".parse().unwrap();
        let both = |shop: &_, lab: &_| -> CarriedNetworks {
            [shop, lab]
                .map(|snapshot: &sealane_proto::resource::NetworkSnapshot| {
                    (snapshot.network.name.clone(), Arc::new(snapshot.clone()))
                })
                .into()
        };
        let (peers, taken) = peers_of(&both(&shop, &lab), &own);
        assert_eq!(peers.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["host-2", "host-3"]);
        assert_eq!(taken, None);
        let at = "192.0.2.1".parse().unwrap();
        assert!(lengths_of(&both(&shop, &lab), at).is_empty(), "nobody has told any");
        shop.content.nodes[1].mtu = "1400".parse().ok();
        lab.content.network.mtu = "1300".parse().ok();
        let lengths = lengths_of(&both(&shop, &lab), at);
        let of = |most| Lengths { least: 626, most };
        assert_eq!(lengths.values().copied().collect::<Vec<_>>(), [of(1450), of(1450), of(1350)]);
        assert!(
            lengths_of(&both(&shop, &lab), "2001:db8::1".parse().unwrap()).is_empty(),
            "no way leads there"
        );
        let speak = |shop: &_, lab: &_| -> Vec<bool> {
            let carried = both(shop, lab);
            watched_of(&carried, &peers).values().map(|watched| watched.speaks).collect()
        };
        assert_eq!(speak(&shop, &lab), [false, false], "control does not say");
        shop.content.mute = Some(vec!["host-2".parse().unwrap()]);
        lab.content.mute = shop.content.mute.clone();
        assert_eq!(speak(&shop, &lab), [false, true]);
        lab.content.network.vni = Vni::ECHO;
        assert_eq!(peers_of(&both(&shop, &lab), &own), (EchoPeers::new(), Some("lab".parse().unwrap())));
    }
}
