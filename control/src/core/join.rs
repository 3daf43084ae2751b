//! Hosts that join the mesh.

use std::time::Duration;

use sealane_proto::resource::Node;
use sealane_proto::token::TokenSecret;
use sealane_proto::types::{NodeName, UnderlayAddr};
use subtle::ConstantTimeEq;

use super::timestamp::Span;
use super::{Change, Command, Decision, NodeRecord, State, Timestamp};

/// A host asks to be part of the mesh. Asking again with the same key is the same host (its first answer was
/// lost, or it was reinstalled on its old data), perhaps at a new address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinNode {
    /// Its token's public name.
    pub token: String,
    /// What proves the token.
    pub secret: TokenSecret,
    /// Its name and place.
    pub node: Node,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
}

/// Why a host may not join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    /// No such token.
    #[error("token {0} is not known to this control plane; create one with `sealane token create`")]
    UnknownToken(String),
    /// The token's secret is another one.
    #[error("the secret of token {0} is wrong; copy the whole token as `sealane token create` printed it")]
    WrongSecret(String),
    /// The token's time is over.
    #[error("token {id} expired {} ago; create a new one with `sealane token create`", Span(*.ago))]
    Expired {
        /// The token.
        id: String,
        /// Since when.
        ago: Duration,
    },
    /// Another host has the name.
    #[error(
        "node name {name} is in use by the host at {underlay}, which joined with another key; \
         choose another with --name, or give this host the data directory of that node"
    )]
    NameInUse {
        /// The name.
        name: NodeName,
        /// Where its holder is.
        underlay: UnderlayAddr,
    },
    /// Another host has the address.
    #[error("underlay address {underlay} is in use by node {node}; choose another with --underlay")]
    UnderlayInUse {
        /// The address.
        underlay: UnderlayAddr,
        /// Whose it is.
        node: NodeName,
    },
}

impl Command for JoinNode {
    type Outcome = NodeRecord;
    type Refusal = JoinRefusal;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<NodeRecord>, JoinRefusal> {
        let Some(token) = state.tokens.get(&self.token) else {
            return Err(JoinRefusal::UnknownToken(self.token));
        };
        if !bool::from(token.hash.ct_eq(&self.secret.hash())) {
            return Err(JoinRefusal::WrongSecret(self.token));
        }
        if token.expires <= now {
            return Err(JoinRefusal::Expired { id: self.token, ago: now.since(token.expires) });
        }
        let known = state.nodes.get(&self.node.name).filter(|known| known.is_admitted());
        if let Some(known) = known.filter(|known| known.key != self.key) {
            return Err(JoinRefusal::NameInUse { name: self.node.name, underlay: known.node.underlay });
        }
        let there = |other: &&NodeRecord| {
            other.node.underlay == self.node.underlay && other.node.name != self.node.name
        };
        if let Some(other) = state.nodes.values().find(there) {
            let node = other.node.name.clone();
            return Err(JoinRefusal::UnderlayInUse { underlay: self.node.underlay, node });
        }
        let joined = known.map_or(now, |known| known.joined);
        let record = NodeRecord { node: self.node, key: self.key, joined };
        let same = known == Some(&record);
        let changes = if same { vec![] } else { vec![Change::PutNode(record.clone())] };
        Ok(Decision { changes, outcome: record })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::TokenRecord;

    const NOW: Timestamp = Timestamp::from_unix(10_000);

    fn state() -> State {
        let mut state = State::default();
        let token = |id: &str, expires| TokenRecord {
            id: id.to_owned(),
            hash: TokenSecret::new([7; 20]).hash(),
            created: Timestamp::default(),
            expires: Timestamp::from_unix(expires),
        };
        state.apply(&Change::PutToken(token("goodgood", 20_000)));
        state.apply(&Change::PutToken(token("pastpast", 9_000)));
        let first = join("goodgood", 7, "host-1", "192.0.2.1", 1).decide(&state, NOW).unwrap();
        first.changes.iter().for_each(|change| state.apply(change));
        state
    }

    fn join(token: &str, secret: u8, name: &str, underlay: &str, key: u8) -> JoinNode {
        JoinNode {
            token: token.to_owned(),
            secret: TokenSecret::new([secret; 20]),
            node: Node { name: name.parse().unwrap(), underlay: underlay.parse().unwrap() },
            key: [key; 32],
        }
    }

    #[test]
    fn each_reason_not_to_join_is_named() {
        let table = [
            (join("nonenone", 7, "host-2", "192.0.2.2", 2), "token nonenone is not known"),
            (join("goodgood", 8, "host-2", "192.0.2.2", 2), "secret of token goodgood is wrong"),
            (join("pastpast", 7, "host-2", "192.0.2.2", 2), "token pastpast expired 16 min ago"),
            (
                join("goodgood", 7, "host-1", "192.0.2.2", 2),
                "node name host-1 is in use by the host at 192.0.2.1",
            ),
            (join("goodgood", 7, "host-2", "192.0.2.1", 2), "192.0.2.1 is in use by node host-1"),
        ];
        for (command, expected) in table {
            let error = command.decide(&state(), NOW).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_same_key_joins_again_even_from_another_address() {
        let state = state();
        let again = join("goodgood", 7, "host-1", "192.0.2.1", 1).decide(&state, NOW).unwrap();
        assert_eq!(again.changes, []);
        let moved = join("goodgood", 7, "host-1", "192.0.2.9", 1).decide(&state, NOW).unwrap();
        assert_eq!(moved.changes.len(), 1);
    }
}
