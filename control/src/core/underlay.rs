//! Underlay addresses that a host may have: by its own, the other hosts of its networks reach it and nobody else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use sealane_proto::types::{NetworkName, NodeName, UnderlayAddr, UnderlayAddrs};

use super::{NetworkState, State, network};

/// Services of clouds that every machine has at an address of its own.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// A reason for which an address is none that a host can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitUnderlay {
    /// Of a kind that is no single host's.
    #[error(
        "underlay address {underlay} of node {node} is {kind}, where no other host reaches it; give {node} another \
         --underlay, an address of one of its interfaces"
    )]
    Kind {
        /// The address.
        underlay: UnderlayAddr,
        /// The host that came with it.
        node: NodeName,
        /// The kind of the address.
        kind: &'static str,
    },
    /// A workload's, maybe.
    #[error(
        "underlay address {underlay} of node {node} lies in subnet {subnet} of network {network}; give {node} another \
         --underlay, or create the network again with another --subnet"
    )]
    Inside {
        /// The address.
        underlay: UnderlayAddr,
        /// The host that came with it.
        node: NodeName,
        /// The network's prefix that it lies in.
        subnet: IpNet,
        /// The network.
        network: NetworkName,
    },
    /// Others could not send to it.
    #[error(
        "underlay address {underlay} of node {node} is of {of}, and node {other} is at {there}, which carries network {network} \
         too: two hosts of a network have a family in common; start the agent of {node} with --underlay {underlay} --underlay \
         and an {others} address of it, or that of {other} with --underlay {there} --underlay and an {of} one",
        of = .underlay.first().family(), others = .underlay.first().family().other()
    )]
    Family {
        /// The address.
        underlay: UnderlayAddrs,
        /// The host that came with it.
        node: NodeName,
        /// A host of the other family.
        other: NodeName,
        /// The address of that one.
        there: UnderlayAddrs,
        /// The network.
        network: NetworkName,
    },
}

/// Checks that a host may have these addresses. One that it has already it may keep: what was right when it came is not asked
/// again.
///
/// # Errors
/// With what is wrong with an address.
pub(super) fn check(state: &State, node: &NodeName, underlay: UnderlayAddrs) -> Result<(), UnfitUnderlay> {
    let before = state.nodes.get(node).map(|known| known.node.underlay);
    if before == Some(underlay) {
        return Ok(());
    }
    let is_new = |address: &UnderlayAddr| before.is_none_or(|before| !before.contains(*address));
    underlay.iter().filter(is_new).try_for_each(|address| check_one(state, node, address))?;
    if let Some(other) = underlay.other().filter(|other| other.to_ip().is_loopback()) {
        return Err(UnfitUnderlay::Kind { underlay: other, node: node.clone(), kind: "loopback" });
    }
    // Who is of the families that it was of reaches whom it reached.
    if before.is_some_and(|before| before.iter().all(|known| underlay.of(known.family()).is_some())) {
        return Ok(());
    }
    let mut carried = state.networks.values().filter(|network| network.carried_by(node));
    carried.try_for_each(|network| check_family(state, network, node, underlay))
}

fn check_one(state: &State, node: &NodeName, underlay: UnderlayAddr) -> Result<(), UnfitUnderlay> {
    if let Some(kind) = misfit(underlay.to_ip()) {
        return Err(UnfitUnderlay::Kind { underlay, node: node.clone(), kind });
    }
    match network::around(state, underlay.to_ip()) {
        Some((network, subnet)) => {
            Err(UnfitUnderlay::Inside { underlay, node: node.clone(), subnet, network })
        }
        None => Ok(()),
    }
}

/// Checks that the hosts that carry a network have a way to a host at these addresses.
///
/// # Errors
/// With the first that cannot.
pub(super) fn check_family(
    state: &State,
    network: &NetworkState,
    node: &NodeName,
    underlay: UnderlayAddrs,
) -> Result<(), UnfitUnderlay> {
    let others = network.blocks.index().hosts().filter(|other| *other != node);
    let mut others = others.filter_map(|other| state.nodes.get(other)).map(|record| &record.node);
    match others.find(|other| underlay.way_to(other.underlay).is_none()) {
        None => Ok(()),
        Some(other) => Err(UnfitUnderlay::Family {
            underlay,
            node: node.clone(),
            other: other.name.clone(),
            there: other.underlay,
            network: network.network.name.clone(),
        }),
    }
}

/// Names the kind of an address that no host has. Loopback is none of them: a host that is alone may live there.
#[must_use]
pub fn misfit(address: IpAddr) -> Option<&'static str> {
    if METADATA.contains(&address) {
        return Some("a cloud's metadata service");
    }
    if address.is_multicast() {
        return Some("for multicast");
    }
    match address {
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("for broadcast"),
        IpAddr::V4(address) if address.octets()[0] == 0 => Some("no address of any host"),
        IpAddr::V4(address) if address.is_link_local() => Some("link-local"),
        IpAddr::V6(address) if address.is_unspecified() => Some("no address of any host"),
        IpAddr::V6(address) if address.is_unicast_link_local() => Some("link-local"),
        IpAddr::V6(address) if !address.is_loopback() && address.segments()[..6] == [0; 6] => {
            Some("an IPv4 address that is written as one of IPv6")
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sealane_proto::resource::{Block, Egress, Node};

    use super::*;
    use crate::core::{CarryNetwork, Change, Command, CreateNetwork, NodeRecord, Timestamp, model};

    fn take<C: Command>(state: &mut State, command: C) -> Result<(), String> {
        let done = model::run(state, command, Timestamp::default());
        done.map(drop).map_err(|refusal| refusal.to_string())
    }

    fn join(state: &mut State, name: &str, underlay: &str) {
        let node = Node { name: name.parse().unwrap(), underlay: underlay.parse().unwrap(), mtu: None };
        state.apply(&Change::put(NodeRecord::new(node, [1; 32], Timestamp::default())));
    }

    fn carry(state: &mut State, node: &str) -> Result<(), String> {
        let (node, network) = (node.parse().unwrap(), "shop".parse().unwrap());
        take(state, CarryNetwork { node, network, blocks_held: 0 })
    }

    /// Two hosts of one network, and one of IPv6 that carries none.
    fn state() -> State {
        let mut state = State::default();
        [("host-1", "192.0.2.1"), ("host-2", "192.0.2.2"), ("host-6", "2001:db8::6")]
            .into_iter()
            .for_each(|(name, underlay)| join(&mut state, name, underlay));
        let create = CreateNetwork {
            name: "shop".parse().unwrap(),
            hosts: Default::default(),
            subnet: "10.42.0.0/16".parse().unwrap(),
            mtu: None,
            egress: Egress::Allow,
            subnet6: Some("fd42::/64".parse().unwrap()),
            mtls: None,
        };
        take(&mut state, create).unwrap();
        carry(&mut state, "host-1").unwrap();
        carry(&mut state, "host-2").unwrap();
        state
    }

    fn told(state: &State, node: &str, underlay: &str) -> Result<(), String> {
        let underlay = underlay.parse().map_err(|error| format!("{error}"))?;
        check(state, &node.parse().unwrap(), underlay).map_err(|unfit| unfit.to_string())
    }

    #[test]
    fn an_address_that_is_no_single_hosts_is_refused_in_words() {
        for (address, words) in [
            ("0.0.0.0", "no address of any host"),
            ("0.1.2.3", "no address of any host"),
            ("::", "no address of any host"),
            ("255.255.255.255", "for broadcast"),
            ("224.0.0.1", "for multicast"),
            ("239.255.255.255", "for multicast"),
            ("ff02::1", "for multicast"),
            ("169.254.169.254", "link-local"),
            ("169.254.3.4", "link-local"),
            ("fe80::1", "link-local"),
            ("100.100.100.200", "metadata"),
            ("fd00:ec2::254", "metadata"),
            ("::192.0.2.9", "written as one of IPv6"),
            ("::ffff:224.0.0.1", "for multicast"),
            ("10.42.7.9", "subnet 10.42.0.0/16 of network shop"),
            ("::ffff:10.42.7.9", "subnet 10.42.0.0/16 of network shop"),
            ("fd42::7", "subnet fd42::/64 of network shop"),
        ] {
            for node in ["host-2", "host-6", "host-9"] {
                let said = told(&state(), node, address).unwrap_err();
                assert!(said.contains(words) && said.contains("--underlay"), "{node} {address}: {said}");
            }
        }
        for address in ["192.0.2.9", "10.43.0.1", "100.64.0.1", "203.0.113.255", "::ffff:192.0.2.9"] {
            assert_eq!(told(&state(), "host-2", address), Ok(()), "{address}");
        }
    }

    #[test]
    fn two_hosts_of_a_network_have_a_family_in_common() {
        let mut state = state();
        let said = told(&state, "host-2", "2001:db8::2").unwrap_err();
        assert!(said.contains("is of IPv6, and node host-1 is at 192.0.2.1"), "{said}");
        assert_eq!(told(&state, "host-9", "2001:db8::9"), Ok(()), "it carries nothing yet");
        assert_eq!(told(&state, "host-6", "192.0.2.6"), Ok(()), "nor does this one");
        let said = carry(&mut state, "host-6").unwrap_err();
        assert!(said.contains("--underlay 2001:db8::6 --underlay and an IPv4 address of it"), "{said}");
        assert!(told(&state, "host-2", "192.0.2.2,10.42.0.2").unwrap_err().contains("both of IPv4"));
        assert!(
            told(&state, "host-2", "192.0.2.2,fd42::7").unwrap_err().contains("lies in subnet fd42::/64")
        );
        assert!(
            told(&state, "host-2", "192.0.2.2,::1").unwrap_err().contains("::1 of node host-2 is loopback")
        );
        assert_eq!(told(&state, "host-2", "2001:db8::2,192.0.2.2"), Ok(()), "host-1 reaches it by IPv4");
        join(&mut state, "host-6", "2001:db8::6,192.0.2.6");
        carry(&mut state, "host-6").unwrap();
        let said = told(&state, "host-6", "2001:db8::6").unwrap_err();
        assert!(said.contains("which carries network shop too"), "{said}");
        assert_eq!(told(&state, "host-2", "2001:db8::2,192.0.2.9"), Ok(()));
        state.apply(&Change::remove::<NodeRecord>("host-6".parse::<NodeName>().unwrap()));
        let network = state.networks.values().next().unwrap();
        let six = network
            .blocks
            .values()
            .filter(|block| block.node.as_ref().is_some_and(|node| node.as_str() == "host-6"));
        let gone: Vec<_> =
            six.map(|block| Change::remove_in::<Block>(&network.network.name, block.range)).collect();
        gone.iter().for_each(|change| state.apply(change));
        let alone: NodeName = "host-1".parse().unwrap();
        let (name, network) = state.networks.iter().next().unwrap();
        let others = network.blocks.values().filter(|block| block.node.as_ref() != Some(&alone));
        let gone: Vec<_> = others.map(|block| Change::remove_in::<Block>(name, block.range)).collect();
        gone.iter().for_each(|change| state.apply(change));
        assert_eq!(told(&state, "host-1", "2001:db8::1"), Ok(()));
    }

    #[test]
    fn a_host_that_is_somewhere_already_may_stay_and_move_within_its_family() {
        let mut state = state();
        join(&mut state, "host-2", "10.42.0.9");
        assert_eq!(told(&state, "host-2", "10.42.0.9"), Ok(()));
        join(&mut state, "host-2", "2001:db8::2");
        assert_eq!(told(&state, "host-2", "2001:db8::3"), Ok(()));
    }

    proptest! {
        #[test]
        fn wherever_a_host_says_that_it_is_it_is_known_by_an_address_that_others_can_send_to(bits in any::<u128>(), four in any::<bool>(), mapped in any::<bool>()) {
            let low = Ipv4Addr::from_bits(u32::try_from(bits & 0xffff_ffff).unwrap());
            let address = match (four, mapped) {
                (true, _) => IpAddr::V4(low),
                (false, true) => IpAddr::V6(low.to_ipv6_mapped()),
                (false, false) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
            };
            let underlay = UnderlayAddr::from(address);
            if underlay.to_ip().is_loopback() || check(&state(), &"host-2".parse().unwrap(), underlay.into()).is_err() {
                return Ok(());
            }
            let IpAddr::V4(known) = underlay.to_ip() else { panic!("host-1 does not reach {address}") };
            prop_assert!(!known.is_multicast() && !known.is_broadcast() && !known.is_unspecified() && !known.is_link_local());
        }
    }
}
