//! Networks that get more addresses while they work: what there is keeps its addresses, and the gateway its own.

use std::net::Ipv4Addr;

use sealane_proto::resource::Network;
use sealane_proto::types::{NetworkName, NodeName, ServiceName, Subnet, UnderlayAddr};

use super::{Change, Command, Decision, NetworkRecord, NetworkState, State, Timestamp};

/// A network has a larger subnet from now on, which contains the one that it has. Safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrowNetwork {
    /// The network.
    pub name: NetworkName,
    /// Subnet from now on.
    pub subnet: Subnet,
}

/// Reasons for which a network does not grow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrowRefusal {
    /// No such network.
    #[error("there is no network {0}; see `sealane network ls`")]
    NotFound(NetworkName),
    /// Addresses would be lost.
    #[error(
        "network {network} has subnet {subnet}, which {asked} does not contain: what has an address there would lose it{}",
        instead(*.subnet)
    )]
    NotContained {
        /// The network.
        network: NetworkName,
        /// Subnet that it has.
        subnet: Subnet,
        /// Subnet that was asked for.
        asked: Subnet,
    },
    /// Running workloads would lose their way out.
    #[error(
        "network {network} would have the gateway {} in place of {}, by which its workloads send: a larger subnet must begin with \
         the same address{}", .asked.gateway(), .subnet.gateway(), instead(*.subnet)
    )]
    Gateway {
        /// The network.
        network: NetworkName,
        /// Subnet that it has.
        subnet: Subnet,
        /// Subnet that was asked for.
        asked: Subnet,
    },
    /// A workload may be in both, and could not tell them apart.
    #[error(
        "subnet {asked} of network {network} would overlap {subnet} of network {other}; take a smaller one"
    )]
    Overlap {
        /// The network.
        network: NetworkName,
        /// Subnet that was asked for.
        asked: Subnet,
        /// The other network.
        other: NetworkName,
        /// Subnet of that.
        subnet: Subnet,
    },
    /// A host is at one of the addresses.
    #[error(
        "subnet {asked} of network {network} would contain the address {underlay} of host {node}; take a smaller one"
    )]
    Underlay {
        /// The network.
        network: NetworkName,
        /// Subnet that was asked for.
        asked: Subnet,
        /// The host.
        node: NodeName,
        /// Address beneath the networks.
        underlay: UnderlayAddr,
    },
    /// An instance of a service is at one of the addresses, outside every network.
    #[error(
        "subnet {asked} of network {network} would contain {address}, an external instance of service {service} in network \
         {of}; take a smaller one"
    )]
    External {
        /// The network.
        network: NetworkName,
        /// Subnet that was asked for.
        asked: Subnet,
        /// The address.
        address: Ipv4Addr,
        /// The service.
        service: ServiceName,
        /// Network of the service.
        of: NetworkName,
    },
}

/// Names a larger subnet that could be taken.
fn instead(subnet: Subnet) -> String {
    match subnet.larger() {
        Some(larger) => format!("; {larger} is the next larger one that does"),
        None => "; there is none, so create another network".to_owned(),
    }
}

impl Command for GrowNetwork {
    type Outcome = Network;
    type Refusal = GrowRefusal;

    fn decide(self, state: &State, _now: Timestamp) -> Result<Decision<Network>, GrowRefusal> {
        let Some(known) = state.networks.get(&self.name) else {
            return Err(GrowRefusal::NotFound(self.name));
        };
        check(state, known, self.subnet)?;
        let network = Network { subnet: self.subnet, ..known.network.clone() };
        let record = NetworkRecord { network: network.clone(), changed: known.changed };
        let changes = if network == known.network { vec![] } else { vec![Change::put(record)] };
        Ok(Decision { changes, outcome: network })
    }
}

/// Checks that a network may have a subnet in place of its own.
pub(super) fn check(state: &State, known: &NetworkState, asked: Subnet) -> Result<(), GrowRefusal> {
    let (network, subnet) = (known.network.name.clone(), known.network.subnet);
    if asked == subnet {
        return Ok(());
    }
    if !asked.to_net().contains(&subnet.to_net()) {
        return Err(GrowRefusal::NotContained { network, subnet, asked });
    }
    if asked.gateway() != subnet.gateway() {
        return Err(GrowRefusal::Gateway { network, subnet, asked });
    }
    // Those that overlap already were made so.
    let mut others = state.networks.values().map(|other| &other.network);
    let overlaps = |other: &&Network| {
        other.name != network && other.subnet.overlaps(asked) && !other.subnet.overlaps(subnet)
    };
    if let Some(other) = others.find(overlaps) {
        let (other, subnet) = (other.name.clone(), other.subnet);
        return Err(GrowRefusal::Overlap { network, asked, other, subnet });
    }
    let inside = |address: &UnderlayAddr| match address.to_ip() {
        std::net::IpAddr::V4(address) => asked.contains(address.into()),
        std::net::IpAddr::V6(_) => false,
    };
    let mut hosts = state.nodes.values().map(|record| &record.node);
    if let Some((node, underlay)) = hosts.find_map(|node| Some((node, node.underlay.iter().find(inside)?))) {
        let node = node.name.clone();
        return Err(GrowRefusal::Underlay { network, asked, node, underlay });
    }
    check_external(state, &network, asked)
}

fn check_external(state: &State, network: &NetworkName, asked: Subnet) -> Result<(), GrowRefusal> {
    for (of, other) in &state.networks {
        for service in other.services.values() {
            let mut instances = service.external.instances.iter().map(|instance| instance.address());
            if let Some(address) = instances.find(|address| asked.contains((*address).into())) {
                let (network, service, of) = (network.clone(), service.name.clone(), of.clone());
                return Err(GrowRefusal::External { network, asked, address, service, of });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sealane_proto::document::Document;
    use sealane_proto::resource::Node;

    use super::*;
    use crate::core::{Apply, CarryNetwork, CreateNetwork, NodeRecord, model};

    const NOW: Timestamp = Timestamp::from_unix(0);

    fn create(state: &mut State, name: &str, subnet: &str) {
        let create = CreateNetwork {
            name: name.parse().unwrap(),
            hosts: Default::default(),
            subnet: subnet.parse().unwrap(),
            mtu: None,
            egress: Default::default(),
            subnet6: None,
            mtls: None,
        };
        model::run(state, create, NOW).unwrap();
    }

    /// Network shop with 10.42.0.0/24 and a host, and network office with 10.43.0.0/16.
    fn state() -> State {
        let mut state = State::default();
        create(&mut state, "shop", "10.42.0.0/24");
        create(&mut state, "office", "10.43.0.0/16");
        let node =
            Node { name: "host-1".parse().unwrap(), underlay: "10.44.0.1".parse().unwrap(), mtu: None };
        state.apply(&Change::put(NodeRecord::new(node, [1; 32], NOW)));
        let document = r#"{"apiVersion":"sealane.dev/v1","kind":"Service","metadata":{"name":"db","network":"office"},"spec":{"ports":[{"port":5432}],"external":["10.42.77.7"]}}"#;
        let documents = vec![Document::from_json(document).unwrap()];
        let applied = model::run(&mut state, Apply { documents, dry_run: false }, NOW).unwrap();
        assert!(applied[0].is_ok(), "{applied:?}");
        state
    }

    fn grow(state: &mut State, subnet: &str) -> Result<Subnet, String> {
        let grow = GrowNetwork { name: "shop".parse().unwrap(), subnet: subnet.parse().unwrap() };
        model::run(state, grow, NOW).map(|network| network.subnet).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_network_grows_and_what_it_has_stays() {
        let mut state = state();
        let carry = |state: &mut State, blocks_held| {
            let (node, network) = ("host-1".parse().unwrap(), "shop".parse().unwrap());
            let carried = model::run(state, CarryNetwork { node, network, blocks_held }, NOW).unwrap();
            carried.blocks.iter().map(|block| block.range.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(carry(&mut state, 0), ["10.42.0.0/30"]);
        let subnet: Subnet = "10.42.0.0/20".parse().unwrap();
        assert_eq!(grow(&mut state, "10.42.0.0/20"), Ok(subnet));
        assert_eq!(grow(&mut state, "10.42.0.0/20"), Ok(subnet), "again");
        assert_eq!(carry(&mut state, 1), ["10.42.0.0/30", "10.42.0.16/28"], "by the cells of a larger one");
        let shop = &state.networks[&"shop".parse().unwrap()];
        assert_eq!((shop.network.subnet, shop.blocks.len()), (subnet, 2));
    }

    #[test]
    fn what_stands_in_the_way_of_growth_is_named() {
        for (subnet, words) in [
            ("10.42.0.0/25", "which 10.42.0.0/25 does not contain"),
            ("10.45.0.0/16", "; 10.42.0.0/23 is the next larger one that does"),
            ("10.42.0.0/15", "would overlap 10.43.0.0/16 of network office"),
            (
                "10.42.0.0/17",
                "would contain 10.42.77.7, an external instance of service db in network office",
            ),
            ("10.0.0.0/8", "would have the gateway 10.0.0.1 in place of 10.42.0.1"),
        ] {
            let said = grow(&mut state(), subnet).unwrap_err();
            assert!(said.contains(words), "{subnet}: {said}");
        }
        let mut state = state();
        state.apply(&Change::remove::<NetworkRecord>("office".parse().unwrap()));
        let node = Node {
            name: "host-2".parse().unwrap(),
            underlay: "::ffff:10.42.9.9".parse().unwrap(),
            mtu: None,
        };
        state.apply(&Change::put(NodeRecord::new(node, [2; 32], NOW)));
        let said = grow(&mut state, "10.42.0.0/16").unwrap_err();
        assert!(said.contains("10.42.9.9 of host host-2; take a smaller one"), "{said}");
    }
}
