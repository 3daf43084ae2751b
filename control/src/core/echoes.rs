//! Hosts that answer the echoes of others.

use sealane_proto::types::NodeName;

use super::{Change, Command, Decision, NodeRecord, State, Timestamp};

/// A host's agent says whether the host answers echoes. Those of versions without echoes say nothing, which means that it does not,
/// whatever an agent before it has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TellEchoes {
    /// The host.
    pub node: NodeName,
    /// True if it answers them.
    pub echoes: bool,
}

impl Command for TellEchoes {
    type Outcome = ();
    type Refusal = std::convert::Infallible;

    fn decide(self, state: &State, _now: Timestamp) -> Result<Decision<()>, Self::Refusal> {
        let known = state.nodes.get(&self.node).filter(|known| known.echoes != self.echoes);
        let change = known.map(|known| Change::put(NodeRecord { echoes: self.echoes, ..known.clone() }));
        Ok(Decision { changes: change.into_iter().collect(), outcome: () })
    }
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::Node;

    use super::*;

    #[test]
    fn a_host_answers_echoes_as_long_as_its_newest_agent_says_so() {
        let (mut state, name) = (State::default(), "host-1".parse::<NodeName>().unwrap());
        let node = Node { name: name.clone(), underlay: "192.0.2.1".parse().unwrap(), mtu: None };
        state.apply(&Change::put(NodeRecord::new(node, [1; 32], Timestamp::default())));
        for (echoes, changes) in [(false, 0), (true, 1), (true, 0), (false, 1)] {
            let decision =
                TellEchoes { node: name.clone(), echoes }.decide(&state, Timestamp::default()).unwrap();
            assert_eq!(decision.changes.len(), changes, "{echoes}");
            decision.changes.iter().for_each(|change| state.apply(change));
            assert_eq!(state.echoes(&name), echoes);
        }
        let unknown = TellEchoes { node: "host-2".parse().unwrap(), echoes: true };
        assert_eq!(unknown.decide(&state, Timestamp::default()).unwrap().changes, []);
    }
}
