//! Sizes of packets to hosts.

use std::collections::BTreeSet;

use sealane_proto::types::{Mtu, NodeName};

use super::{Change, Command, Decision, NodeRecord, State, Timestamp};

/// A host says what its ways to the other hosts allow inside a tunnel. Every host of a network takes the least, with IPv6 no less
/// than that takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TellMtu {
    /// The host.
    pub node: NodeName,
    /// In bytes.
    pub mtu: Mtu,
}

impl Command for TellMtu {
    type Outcome = ();
    type Refusal = std::convert::Infallible;

    fn decide(self, state: &State, _now: Timestamp) -> Result<Decision<()>, Self::Refusal> {
        let mtu = self.mtu;
        let known = state.nodes.get(&self.node).filter(|known| known.node.mtu != Some(mtu));
        let changes = known.map(|known| {
            let mut record: NodeRecord = known.clone();
            record.node.mtu = Some(mtu);
            Change::put(record)
        });
        Ok(Decision { changes: changes.into_iter().collect(), outcome: () })
    }
}

/// Hosts have been away for so long that what they told counts no more; who comes back tells it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgetMtu {
    /// The hosts that are away.
    pub nodes: BTreeSet<NodeName>,
}

impl Command for ForgetMtu {
    type Outcome = ();
    type Refusal = std::convert::Infallible;

    fn decide(self, state: &State, _now: Timestamp) -> Result<Decision<()>, Self::Refusal> {
        let known = self.nodes.iter().filter_map(|name| state.nodes.get(name));
        let told = known.filter(|known| known.node.mtu.is_some()).cloned();
        let changes = told.map(|mut record| {
            record.node.mtu = None;
            Change::put(record)
        });
        Ok(Decision { changes: changes.collect(), outcome: () })
    }
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::Node;

    use super::*;

    #[test]
    fn a_host_is_known_by_what_it_last_told_and_nobody_else_is() {
        let mut state = State::default();
        let node =
            Node { name: "host-1".parse().unwrap(), underlay: "192.0.2.1".parse().unwrap(), mtu: None };
        state.apply(&Change::put(NodeRecord::new(node, [1; 32], Timestamp::default())));
        let tell =
            |name: &str, bytes: u32| TellMtu { node: name.parse().unwrap(), mtu: bytes.try_into().unwrap() };
        for (name, bytes, changes) in
            [("host-1", 1450, 1), ("host-1", 1450, 0), ("host-1", 8950, 1), ("host-2", 1450, 0)]
        {
            let decision = tell(name, bytes).decide(&state, Timestamp::default()).unwrap();
            assert_eq!(decision.changes.len(), changes, "{name} {bytes}");
            decision.changes.iter().for_each(|change| state.apply(change));
        }
        assert_eq!(state.nodes[&"host-1".parse().unwrap()].node.mtu.map(Mtu::get), Some(8950));
        assert_eq!(state.nodes.len(), 1);
    }

    #[test]
    fn what_a_host_tells_is_kept_as_it_is_and_one_that_is_away_does_not_count() {
        let mut state = State::default();
        let name: NodeName = "host-1".parse().unwrap();
        let node = Node { name: name.clone(), underlay: "192.0.2.1".parse().unwrap(), mtu: None };
        state.apply(&Change::put(NodeRecord::new(node, [1; 32], Timestamp::default())));
        let take = |state: &mut State, changes: Vec<Change>| {
            changes.iter().for_each(|change| state.apply(change));
            state.nodes[&name].node.mtu.map(Mtu::get)
        };
        for (told, known) in [(576, 576), (1_000, 1_000), (1_280, 1_280), (1_450, 1_450)] {
            let tell = TellMtu { node: name.clone(), mtu: Mtu::try_from(told).unwrap() };
            let changes = tell.decide(&state, Timestamp::default()).unwrap().changes;
            assert_eq!(take(&mut state, changes), Some(known), "{told}");
        }
        let forget = ForgetMtu { nodes: [name.clone(), "host-9".parse().unwrap()].into() };
        let changes = forget.clone().decide(&state, Timestamp::default()).unwrap().changes;
        assert_eq!(take(&mut state, changes), None);
        assert_eq!(forget.decide(&state, Timestamp::default()).unwrap().changes, []);
    }
}
