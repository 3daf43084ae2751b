//! How long packets to a host may be.

use sealane_proto::types::{Mtu, NodeName};

use super::{Change, Command, Decision, NodeRecord, State, Timestamp};

/// A host says what its ways to the other hosts allow inside a tunnel. Every host of a network takes the least.
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
        let known = state.nodes.get(&self.node).filter(|known| known.node.mtu != Some(self.mtu));
        let changes = known.map(|known| {
            let mut record: NodeRecord = known.clone();
            record.node.mtu = Some(self.mtu);
            Change::PutNode(record)
        });
        Ok(Decision { changes: changes.into_iter().collect(), outcome: () })
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
        state.apply(&Change::PutNode(NodeRecord::new(node, [1; 32], Timestamp::default())));
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
}
