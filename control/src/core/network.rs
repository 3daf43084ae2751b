//! Creating and removing networks.

use sealane_proto::resource::{Egress, Network};
use sealane_proto::types::{NetworkName, Subnet, Vni};

use super::{Change, Command, Decision, NetworkState, State, Timestamp, ipam};

/// Inner MTUs that make sense: what every IPv4 host must take (RFC 791), and jumbo frames.
const MTU: std::ops::RangeInclusive<u16> = 576..=9_000;

/// A new network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateNetwork {
    /// Its name.
    pub name: NetworkName,
    /// Its addresses.
    pub subnet: Subnet,
    /// Its inner MTU in bytes; `None`: by the underlay.
    pub mtu: Option<u16>,
    /// What becomes of packets to the world outside.
    pub egress: Egress,
}

/// Why a network cannot be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateNetworkRefusal {
    /// The name is taken.
    #[error("network {name} exists already, with subnet {subnet}; take another name")]
    Exists {
        /// The name.
        name: NetworkName,
        /// What is there.
        subnet: Subnet,
    },
    /// The addresses are taken, wholly or in part.
    #[error("subnet {subnet} overlaps {taken} of network {other}{}", suggest(.free))]
    Overlap {
        /// What was asked for.
        subnet: Subnet,
        /// What is there.
        taken: Subnet,
        /// Whose it is.
        other: NetworkName,
        /// What could be taken instead.
        free: Option<Subnet>,
    },
    /// Not a sensible MTU.
    #[error("mtu {0} of the network must be from {min} to {max} bytes, or left out", min = MTU.start(), max = MTU.end())]
    Mtu(u16),
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
        if let Some(mtu) = self.mtu.filter(|mtu| !MTU.contains(mtu)) {
            return Err(CreateNetworkRefusal::Mtu(mtu));
        }
        let overlaps = |other: &&NetworkState| other.network.subnet.overlaps(self.subnet);
        if let Some(other) = state.networks.values().find(overlaps) {
            let taken: Vec<Subnet> = state.networks.values().map(|state| state.network.subnet).collect();
            return Err(CreateNetworkRefusal::Overlap {
                subnet: self.subnet,
                taken: other.network.subnet,
                other: other.network.name.clone(),
                free: ipam::free_subnet(self.subnet, &taken),
            });
        }
        let vni = free_vni(state).ok_or(CreateNetworkRefusal::NoVni)?;
        let Self { name, subnet, mtu, egress } = self;
        let network = Network { name, subnet, vni, mtu, egress };
        let changes = vec![Change::PutNetwork { network: network.clone(), changed: 0 }];
        Ok(Decision { changes, outcome: network })
    }
}

/// The lowest VNI that no network has.
fn free_vni(state: &State) -> Option<Vni> {
    let mut taken: Vec<u32> = state.networks.values().map(|state| state.network.vni.get()).collect();
    taken.sort_unstable();
    let first = Vni::FIRST.get();
    let free = taken.into_iter().fold(first, |free, vni| if vni == free { free + 1 } else { free });
    Vni::try_from(free).ok()
}

/// The end of a network without workloads: its services and blocks go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveNetwork(pub NetworkName);

/// Why a network cannot be removed.
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
        /// How many workloads it has.
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
        let services = network.services.keys().cloned();
        let services = services.map(|service| Change::RemoveService { network: name.clone(), name: service });
        let blocks = network.blocks.keys();
        let blocks = blocks.map(|&range| Change::RemoveBlock { network: name.clone(), range });
        let rests = network.resting.keys();
        let rests = rests.map(|&range| Change::RemoveRest { network: name.clone(), range });
        let last = Change::RemoveNetwork(name.clone());
        Ok(Decision { changes: services.chain(blocks).chain(rests).chain([last]).collect(), outcome: () })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(state: &mut State, name: &str, subnet: &str) -> Result<Network, CreateNetworkRefusal> {
        let command = CreateNetwork {
            name: name.parse().unwrap(),
            subnet: subnet.parse().unwrap(),
            mtu: None,
            egress: Egress::Allow,
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
    fn an_overlap_names_the_other_network_and_a_free_subnet() {
        let mut state = State::default();
        create(&mut state, "shop", "10.42.0.0/16").unwrap();
        let error = create(&mut state, "blog", "10.42.128.0/17").unwrap_err().to_string();
        assert_eq!(error, "subnet 10.42.128.0/17 overlaps 10.42.0.0/16 of network shop; 10.0.0.0/17 is free");
        let error = create(&mut state, "shop", "10.43.0.0/16").unwrap_err().to_string();
        assert!(error.contains("network shop exists already"), "{error}");
    }

    #[test]
    fn a_senseless_mtu_is_refused() {
        for mtu in [1, 575, 9_001, u16::MAX] {
            let name = "a".parse().unwrap();
            let command = CreateNetwork {
                name,
                subnet: "10.1.0.0/16".parse().unwrap(),
                mtu: Some(mtu),
                egress: Egress::Allow,
            };
            let error = command.decide(&State::default(), Timestamp::default()).unwrap_err();
            assert_eq!(error, CreateNetworkRefusal::Mtu(mtu));
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
