//! Addresses that nobody has any more and nobody gets yet: some host may still believe in who had them.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::Ipv4Net;
use sealane_proto::resource::Block;
use sealane_proto::types::{NetworkName, OverlayIp};

use super::{Change, Command, Decision, NetworkState, State, Timestamp};

/// Shortest rest of addresses: longer than any answer of DNS is kept, and for connections to time out.
const AT_LEAST: Duration = Duration::from_secs(60);

/// Cause and beginning of a rest of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The addresses.
    pub range: Ipv4Net,
    /// Whoever works by a newer revision of the network than this knows that their holder is gone.
    pub after: u64,
    /// Since when.
    pub since: Timestamp,
}

impl NetworkState {
    /// The resting range that an address lies in.
    #[must_use]
    pub fn resting_at(&self, address: OverlayIp) -> Option<Ipv4Net> {
        self.resting.keys().find(|range| range.contains(&address.to_ipv4())).copied()
    }

    /// Returns true if some address of a range rests.
    #[must_use]
    pub fn rests_in(&self, range: Ipv4Net) -> bool {
        self.resting.keys().any(|resting| resting.contains(&range) || range.contains(resting))
    }

    /// The number of single addresses that rest.
    pub(super) fn resting_addresses(&self) -> usize {
        self.resting.keys().filter(|range| range.prefix_len() == 32).count()
    }

    /// The change by which a range rests from now on.
    pub(super) fn rest(&self, range: Ipv4Net, now: Timestamp) -> Change {
        Change::put_in(&self.network.name, Rest { range, after: self.changed, since: now })
    }

    /// The changes by which a block comes back, and rests.
    pub(super) fn give_back(&self, range: Ipv4Net, now: Timestamp) -> [Change; 2] {
        [Change::remove_in::<Block>(&self.network.name, range), self.rest(range, now)]
    }
}

/// Ends the rest of addresses that every host has forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndRests {
    /// Per network the revision that every host that carries it works by.
    pub known: BTreeMap<NetworkName, u64>,
}

impl Command for EndRests {
    type Outcome = ();
    type Refusal = std::convert::Infallible;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<()>, Self::Refusal> {
        let mut changes = vec![];
        for (network, known) in self.known {
            let resting = state.networks.get(&network).into_iter().flat_map(|state| &state.resting);
            let over = resting.filter(|(_, rest)| rest.after < known && rest.since.after(AT_LEAST) <= now);
            changes.extend(over.map(|(&range, _)| Change::remove_in::<Rest>(&network, range)));
        }
        Ok(Decision { changes, outcome: () })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::CreateNetwork;

    #[test]
    fn a_rest_ends_when_it_lasted_and_every_host_knows() {
        let network: NetworkName = "shop".parse().unwrap();
        let subnet = "10.42.0.0/16".parse().unwrap();
        let mut state = State::default();
        let create = CreateNetwork {
            name: network.clone(),
            hosts: Default::default(),
            subnet,
            mtu: None,
            egress: Default::default(),
            subnet6: None,
            mtls: None,
        };
        create
            .decide(&state, Timestamp::default())
            .unwrap()
            .changes
            .iter()
            .for_each(|change| state.apply(change));
        let range: Ipv4Net = "10.42.3.0/24".parse().unwrap();
        let rest = Rest { range, after: 7, since: Timestamp::from_unix(100) };
        state.apply(&Change::put_in(&network, rest));
        let over = |known: u64, now: u64| {
            let known = [(network.clone(), known)].into();
            !EndRests { known }.decide(&state, Timestamp::from_unix(now)).unwrap().changes.is_empty()
        };
        assert!(!over(7, 1_000), "a host may know the old holder only");
        assert!(!over(8, 159), "it has just begun");
        assert!(over(8, 160));
        let shop = &state.networks[&network];
        assert_eq!(shop.resting_at("10.42.3.9".parse().unwrap()), Some(range));
        assert!(
            shop.rests_in("10.42.3.0/28".parse().unwrap()) && shop.rests_in("10.42.0.0/16".parse().unwrap())
        );
        assert!(!shop.rests_in("10.42.4.0/24".parse().unwrap()));
    }
}
