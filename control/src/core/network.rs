//! Creating and removing networks.

use std::net::IpAddr;

use ipnet::IpNet;
use sealane_proto::resource::{Egress, Network, Node};
use sealane_proto::types::{Hosts, Mtls, Mtu, NetworkName, NodeName, Subnet, Subnet6, UnderlayAddr, Vni};

use super::{Change, Command, Decision, NetworkRecord, State, Timestamp, ipam};

/// A new network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateNetwork {
    /// Name of the network.
    pub name: NetworkName,
    /// The hosts that may carry it.
    pub hosts: Hosts,
    /// Prefix of its addresses.
    pub subnet: Subnet,
    /// Inner MTU in bytes; `None`: by the underlay.
    pub mtu: Option<Mtu>,
    /// Treatment of packets to the world outside.
    pub egress: Egress,
    /// Prefix of its IPv6 addresses, if it has any.
    pub subnet6: Option<Subnet6>,
    /// Callers that its services accept unless they say otherwise; `None`: whoever asks has not chosen.
    pub mtls: Option<Mtls>,
}

/// Reasons for which a network cannot be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateNetworkRefusal {
    /// The name is taken.
    #[error("network {name} exists already, with subnet {subnet}; take another name")]
    Exists {
        /// The name.
        name: NetworkName,
        /// Subnet that is there.
        subnet: Subnet,
    },
    /// A host is at one of the addresses: the network's workloads would look for it among themselves.
    #[error("subnet {subnet} contains the address {underlay} of host {node}{}", suggest(.free))]
    Underlay {
        /// Subnet that was asked for.
        subnet: Subnet,
        /// The host.
        node: NodeName,
        /// Address beneath the networks.
        underlay: UnderlayAddr,
        /// Subnet that could be taken instead.
        free: Option<Subnet>,
    },
    /// The same of its IPv6 addresses.
    #[error("subnet {subnet6} contains the address {underlay} of host {node}; take another one")]
    Underlay6 {
        /// The prefix that was asked for.
        subnet6: Subnet6,
        /// The host.
        node: NodeName,
        /// The host's address beneath the networks.
        underlay: UnderlayAddr,
    },
    /// The name means something else to every resolver.
    #[error(
        "network name {name} is reserved ({reserved}): names under it would lead nowhere; take another name"
    )]
    Reserved {
        /// The name.
        name: NetworkName,
        /// By what.
        reserved: &'static str,
    },
    /// The network's packets are too short for IPv6.
    #[error(
        "mtu {0} of the network is too small for IPv6, which needs {least}; take that, or leave out the mtu or the IPv6 subnet",
        least = Mtu::MIN_IPV6
    )]
    Mtu(Mtu),
    /// All 24-bit numbers from the first one are taken.
    #[error("all VXLAN network identifiers from {first} on are taken; remove a network", first = Vni::FIRST)]
    NoVni,
}

fn suggest(free: &Option<Subnet>) -> String {
    free.map_or_else(|| "; take another one".to_owned(), |free| format!("; {free} is free"))
}

impl Command for CreateNetwork {
    type Outcome = Network;
    type Refusal = CreateNetworkRefusal;

    fn decide(self, state: &State, _now: Timestamp) -> Result<Decision<Network>, CreateNetworkRefusal> {
        if let Some(existing) = state.networks.get(&self.name) {
            let subnet = existing.network.subnet;
            return Err(CreateNetworkRefusal::Exists { name: self.name, subnet });
        }
        check_new(state, &self.name, (self.subnet, self.subnet6), self.mtu)?;
        let vni = free_vni(Vni::FIRST, state.networks.values().map(|state| state.network.vni))
            .ok_or(CreateNetworkRefusal::NoVni)?;
        let Self { name, hosts, subnet, mtu, egress, subnet6, mtls } = self;
        let network = Network { name, hosts, subnet, vni, mtu, egress, subnet6, mtls };
        let changes = vec![Change::put(NetworkRecord { network: network.clone(), changed: 0 })];
        Ok(Decision { changes, outcome: network })
    }
}

/// Checks that a network that is not there yet may be like this.
pub(super) fn check_new(
    state: &State,
    name: &NetworkName,
    (subnet, subnet6): (Subnet, Option<Subnet6>),
    mtu: Option<Mtu>,
) -> Result<(), CreateNetworkRefusal> {
    if let Some(mtu) = mtu.filter(|mtu| subnet6.is_some() && !mtu.carries_ipv6()) {
        return Err(CreateNetworkRefusal::Mtu(mtu));
    }
    if let Some(reserved) = reserved(name.as_str()) {
        return Err(CreateNetworkRefusal::Reserved { name: name.clone(), reserved });
    }
    if let Some((host, underlay)) = host_in(state, subnet.to_net().into()) {
        let node = host.name.clone();
        return Err(CreateNetworkRefusal::Underlay {
            subnet,
            node,
            underlay,
            free: free_subnet(state, subnet),
        });
    }
    if let Some(subnet6) = subnet6
        && let Some((host, underlay)) = host_in(state, subnet6.to_net().into())
    {
        let node = host.name.clone();
        return Err(CreateNetworkRefusal::Underlay6 { subnet6, node, underlay });
    }
    Ok(())
}

/// Names that resolvers, libraries or the first top-level domains have taken for themselves.
fn reserved(name: &str) -> Option<&'static str> {
    match name {
        "localhost" | "invalid" => Some("RFC 6761"),
        "local" => Some("RFC 6762"),
        "onion" => Some("RFC 7686"),
        "arpa" => Some("RFC 3172"),
        "com" | "edu" | "gov" | "int" | "mil" | "net" | "org" => Some("RFC 1591"),
        _ => None,
    }
}

/// Finds a host one of whose underlay addresses is one of these, with that.
fn host_in(state: &State, net: IpNet) -> Option<(&Node, UnderlayAddr)> {
    let inside = |address: &UnderlayAddr| net.contains(&address.to_ip());
    state.nodes.values().find_map(|record| Some((&record.node, record.node.underlay.iter().find(inside)?)))
}

/// Finds a network that an address lies in, with the prefix.
pub(super) fn around(state: &State, address: IpAddr) -> Option<(NetworkName, IpNet)> {
    state.networks.iter().find_map(|(name, known)| {
        let net = known.network.nets().find(|net| net.contains(&address))?;
        Some((name.clone(), net))
    })
}

/// Finds a subnet that no host is in, and no network has.
fn free_subnet(state: &State, like: Subnet) -> Option<Subnet> {
    let mut taken: Vec<Subnet> = state.networks.values().map(|state| state.network.subnet).collect();
    loop {
        let free = ipam::free_subnet(like, &taken)?;
        if host_in(state, free.to_net().into()).is_none() {
            return Some(free);
        }
        taken.push(free);
    }
}

/// The lowest VNI from `first` on that is not `taken`, below that of hosts' echoes.
fn free_vni(first: Vni, taken: impl Iterator<Item = Vni>) -> Option<Vni> {
    let mut taken: Vec<u32> = taken.map(Vni::get).collect();
    taken.sort_unstable();
    let free = taken.into_iter().fold(first.get(), |free, vni| if vni == free { free + 1 } else { free });
    Vni::try_from(free).ok().filter(|free| *free < Vni::ECHO)
}

/// The end of a network without workloads: its services and blocks go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveNetwork(pub NetworkName);

/// Reasons for which a network cannot be removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoveNetworkRefusal {
    /// There is none.
    #[error("there is no network {0}; see `sealane network ls`")]
    NotFound(NetworkName),
    /// Workloads are attached.
    #[error("network {name} is in use: {}", attached(*.count, .examples))]
    InUse {
        /// The network.
        name: NetworkName,
        /// Number of its workloads.
        count: usize,
        /// Some of them, with their hosts.
        examples: String,
    },
}

fn attached(count: usize, examples: &str) -> String {
    match count {
        1 => format!("1 workload is attached, {examples}; end it first"),
        _ => format!("{count} workloads are attached, such as {examples}; end them first"),
    }
}

impl Command for RemoveNetwork {
    type Outcome = ();
    type Refusal = RemoveNetworkRefusal;

    fn decide(self, state: &State, _now: Timestamp) -> Result<Decision<()>, RemoveNetworkRefusal> {
        let Self(name) = self;
        let Some(network) = state.networks.get(&name) else {
            return Err(RemoveNetworkRefusal::NotFound(name));
        };
        if !network.workloads.is_empty() {
            let some = network.workloads.values().take(3);
            let some: Vec<String> =
                some.map(|workload| format!("{} on {}", workload.name, workload.node)).collect();
            let count = network.workloads.len();
            return Err(RemoveNetworkRefusal::InUse { name, count, examples: some.join(", ") });
        }
        let mut changes = network.emptied();
        changes.push(Change::remove::<NetworkRecord>(name));
        Ok(Decision { changes, outcome: () })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::NodeRecord;

    fn create(state: &mut State, name: &str, subnet: &str) -> Result<Network, CreateNetworkRefusal> {
        let command = CreateNetwork {
            name: name.parse().unwrap(),
            hosts: Default::default(),
            subnet: subnet.parse().unwrap(),
            mtu: None,
            egress: Egress::Allow,
            subnet6: None,
            mtls: None,
        };
        let decision = command.decide(state, Timestamp::default())?;
        decision.changes.iter().for_each(|change| state.apply(change));
        Ok(decision.outcome)
    }

    #[test]
    fn networks_get_distinct_vnis_and_a_removed_ones_is_free_again() {
        let mut state = State::default();
        assert_eq!(create(&mut state, "a", "10.1.0.0/16").unwrap().vni, Vni::FIRST);
        assert_eq!(create(&mut state, "b", "10.2.0.0/16").unwrap().vni.get(), Vni::FIRST.get() + 1);
        let decision = RemoveNetwork("a".parse().unwrap()).decide(&state, Timestamp::default()).unwrap();
        decision.changes.iter().for_each(|change| state.apply(change));
        assert_eq!(create(&mut state, "c", "10.1.0.0/16").unwrap().vni, Vni::FIRST);
    }

    #[test]
    fn no_network_gets_the_vni_of_hosts_echoes() {
        let [first, second] = [0x00ff_fffd, 0x00ff_fffe].map(|vni| Vni::try_from(vni).unwrap());
        for (taken, free) in [(vec![], Some(first)), (vec![first], Some(second)), (vec![second, first], None)]
        {
            assert_eq!(free_vni(first, taken.into_iter()), free);
        }
    }

    #[test]
    fn networks_may_overlap_and_reserved_names_are_refused() {
        let mut state = State::default();
        create(&mut state, "shop", "10.42.0.0/16").unwrap();
        assert!(create(&mut state, "blog", "10.42.128.0/17").is_ok());
        assert!(create(&mut state, "same", "10.42.0.0/16").is_ok());
        for name in ["localhost", "local", "com"] {
            let error = create(&mut state, name, "10.43.0.0/16").unwrap_err().to_string();
            assert!(error.contains(&format!("network name {name} is reserved")), "{error}");
        }
        let error = create(&mut state, "shop", "10.43.0.0/16").unwrap_err().to_string();
        assert!(error.contains("network shop exists already"), "{error}");
    }

    #[test]
    fn a_subnet_with_a_hosts_address_is_refused_in_both_families() {
        let mut state = State::default();
        for (name, underlay) in [("host-1", "10.42.0.9"), ("host-2", "fd42::9")] {
            let node = Node { name: name.parse().unwrap(), underlay: underlay.parse().unwrap(), mtu: None };
            state.apply(&Change::put(NodeRecord::new(node, [1; 32], Timestamp::default())));
        }
        let check = |subnet: &str, subnet6: &str| {
            let subnets = (subnet.parse().unwrap(), Some(subnet6.parse().unwrap()));
            let checked = check_new(&state, &"shop".parse().unwrap(), subnets, None);
            checked.map_err(|refusal| refusal.to_string())
        };
        assert_eq!(check("10.43.0.0/16", "fd43::/64"), Ok(()));
        assert!(check("10.42.0.0/16", "fd43::/64").unwrap_err().contains("10.42.0.9 of host host-1"));
        assert!(check("10.43.0.0/16", "fd42::/64").unwrap_err().contains("fd42::9 of host host-2"));
    }

    #[test]
    fn packets_too_short_for_ipv6_are_refused_where_there_is_ipv6() {
        for (bytes, subnet6, fits) in [
            (576, None, true),
            (600, Some("fd42::/64"), false),
            (1_279, Some("fd42::/64"), false),
            (1_280, Some("fd42::/64"), true),
        ] {
            let mtu = Mtu::try_from(bytes).unwrap();
            let command = CreateNetwork {
                name: "a".parse().unwrap(),
                hosts: Default::default(),
                subnet: "10.1.0.0/16".parse().unwrap(),
                mtu: Some(mtu),
                egress: Egress::Allow,
                subnet6: subnet6.map(|subnet6| subnet6.parse().unwrap()),
                mtls: None,
            };
            let decided = command.decide(&State::default(), Timestamp::default());
            assert_eq!(decided.err(), (!fits).then_some(CreateNetworkRefusal::Mtu(mtu)), "{bytes}");
        }
    }

    #[test]
    fn what_is_in_the_way_of_a_removal_is_counted() {
        let refusal = |count, examples: &str| {
            let name = "shop".parse().unwrap();
            RemoveNetworkRefusal::InUse { name, count, examples: examples.to_owned() }.to_string()
        };
        assert_eq!(
            refusal(1, "web on host-1"),
            "network shop is in use: 1 workload is attached, web on host-1; end it first"
        );
        assert_eq!(
            refusal(3, "a on h, b on h, c on h"),
            "network shop is in use: 3 workloads are attached, such as a on h, b on h, c on h; end them first"
        );
    }

    #[test]
    fn removing_what_is_not_there_is_refused() {
        let error = RemoveNetwork("x".parse().unwrap()).decide(&State::default(), Timestamp::default());
        assert_eq!(error.unwrap_err().to_string(), "there is no network x; see `sealane network ls`");
    }
}
