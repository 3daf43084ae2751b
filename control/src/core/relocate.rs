//! A host that is somewhere else than before: its key says who it is, whatever its address.

use sealane_proto::types::{NodeName, UnderlayAddr};

use super::{Change, Command, Decision, State, Timestamp};

/// A host tells where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocate {
    /// The host.
    pub name: NodeName,
    /// Its underlay address from now on.
    pub underlay: UnderlayAddr,
}

/// Why a host cannot be there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelocateRefusal {
    /// Another host has the address.
    #[error(
        "underlay address {underlay} of node {name} is in use by node {other}; give {name} another --underlay, or remove \
         {other} if it is gone (`sealane node rm {other}`)"
    )]
    InUse {
        /// The address.
        underlay: UnderlayAddr,
        /// Who came.
        name: NodeName,
        /// Whose it is.
        other: NodeName,
    },
    /// Nobody else could reach it there.
    #[error(
        "underlay address {underlay} of node {name} leads back to whoever uses it, and the mesh has other hosts; start its \
         agent with --underlay and an address that they reach"
    )]
    Loopback {
        /// The address.
        underlay: UnderlayAddr,
        /// Who came.
        name: NodeName,
    },
}

impl Command for Relocate {
    /// Where it was, if it was elsewhere.
    type Outcome = Option<UnderlayAddr>;
    type Refusal = RelocateRefusal;

    fn decide(
        self,
        state: &State,
        _now: Timestamp,
    ) -> Result<Decision<Option<UnderlayAddr>>, RelocateRefusal> {
        let Self { name, underlay } = self;
        // Who is not known is told so elsewhere.
        let known = state.nodes.get(&name).filter(|known| known.node.underlay != underlay);
        let Some(known) = known else { return Ok(Decision { changes: vec![], outcome: None }) };
        let mut others = state.nodes.values().filter(|other| other.node.name != name).peekable();
        if underlay.to_ip().is_loopback() && others.peek().is_some() {
            return Err(RelocateRefusal::Loopback { underlay, name });
        }
        if let Some(other) = others.find(|other| other.node.underlay == underlay) {
            return Err(RelocateRefusal::InUse { underlay, name, other: other.node.name.clone() });
        }
        let before = known.node.underlay;
        let mut record = known.clone();
        record.node.underlay = underlay;
        Ok(Decision { changes: vec![Change::PutNode(record)], outcome: Some(before) })
    }
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::Node;

    use super::*;
    use crate::core::NodeRecord;

    fn decide(name: &str, underlay: &str) -> Result<Decision<Option<UnderlayAddr>>, String> {
        let mut state = State::default();
        for n in 1..=2_u8 {
            let name = format!("host-{n}").parse().unwrap();
            let node = Node { name, underlay: format!("192.0.2.{n}").parse().unwrap(), mtu: None };
            let joined = Timestamp::default();
            let known = NodeRecord::new(node, [n; 32], joined);
            state.apply(&Change::PutNode(NodeRecord { drained: n == 2, ..known }));
        }
        let relocate = Relocate { name: name.parse().unwrap(), underlay: underlay.parse().unwrap() };
        relocate.decide(&state, Timestamp::default()).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_host_that_moved_keeps_everything_but_its_address() {
        let moved = decide("host-2", "192.0.2.52").unwrap();
        assert_eq!(moved.outcome, Some("192.0.2.2".parse().unwrap()));
        let [Change::PutNode(record)] = moved.changes.as_slice() else { panic!("{:?}", moved.changes) };
        assert_eq!((record.node.underlay.to_string().as_str(), record.drained), ("192.0.2.52", true));
        assert_eq!(decide("host-2", "192.0.2.2").unwrap().changes, [], "it is where it was");
        assert_eq!(decide("host-9", "192.0.2.9").unwrap().changes, [], "nobody knows it");
    }

    #[test]
    fn an_address_of_another_host_or_of_loopback_is_refused_with_what_to_do() {
        assert!(decide("host-2", "192.0.2.1").unwrap_err().contains("in use by node host-1"));
        assert!(decide("host-2", "127.0.0.1").unwrap_err().contains("--underlay"));
    }
}
