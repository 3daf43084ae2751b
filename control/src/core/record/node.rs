//! Hosts that have joined.

use std::collections::BTreeSet;

use prost::Message;
use sealane_proto::resource::{Edition, Network, Node};
use sealane_proto::types::{Mtu, NetworkName, NodeName, UnderlayAddrs};
use sealane_proto::wire::v1;

use super::{Mesh, Record, RowError, fault, hash, names, parse_option, text, texts};
use crate::core::{Affected, State, Timestamp};

/// A host that has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Name and place.
    pub node: Node,
    /// SHA-256 of the public key (SubjectPublicKeyInfo) that it joined with: the same host may join again.
    pub key: [u8; 32],
    /// Time at which it first joined.
    pub joined: Timestamp,
    /// True if its services' instances get no new calls.
    pub drained: bool,
    /// The token that it last joined by, as far as that is known.
    pub token: Option<String>,
    /// The networks that it may carry by that token; none: all that are for it.
    pub networks: BTreeSet<NetworkName>,
    /// The host that came with its underlay address while it was away. Nobody is told where it is until it comes itself.
    pub displaced: Option<NodeName>,
    /// True if its agent has said that it answers echoes.
    pub echoes: bool,
    /// The newest of its words about its underlay addresses, which those of `node` are from; the default of one that tells none.
    pub placed: Edition,
}

/// Form of a host's row.
#[derive(Clone, PartialEq, Message)]
pub struct NodeRow {
    #[prost(message, optional, tag = "1")]
    node: Option<v1::Node>,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(uint64, tag = "3")]
    joined: u64,
    #[prost(bool, tag = "4")]
    drained: bool,
    /// Empty: not known.
    #[prost(string, tag = "5")]
    token: String,
    #[prost(string, repeated, tag = "6")]
    networks: Vec<String>,
    /// Empty: its underlay address is its own.
    #[prost(string, tag = "7")]
    displaced: String,
    #[prost(bool, tag = "8")]
    echoes: bool,
    #[prost(uint64, tag = "9")]
    place_incarnation: u64,
    #[prost(uint64, tag = "10")]
    place_revision: u64,
}

impl NodeRecord {
    /// The key of a host that others have told of after a restoration, until it comes itself.
    pub const HEARSAY: [u8; 32] = [0; 32];

    /// A host of which no more is known.
    #[must_use]
    pub fn new(node: Node, key: [u8; 32], joined: Timestamp) -> Self {
        let (drained, token, networks, displaced) = (false, None, BTreeSet::new(), None);
        let placed = Edition::default();
        Self { node, key, joined, drained, token, networks, displaced, echoes: false, placed }
    }

    /// Builds the host as those of a network see it: where there is IPv6, nobody's ways count as shorter than that takes.
    #[must_use]
    pub fn seen_in(&self, network: &Network) -> Node {
        let least = |mtu: Mtu| if network.subnet6.is_some() { mtu.max(Mtu::LEAST_IPV6) } else { mtu };
        Node { mtu: self.node.mtu.map(least), ..self.node.clone() }
    }

    /// Says whether this host has these underlay addresses, all of them and no others.
    #[must_use]
    pub fn is_at(&self, underlay: UnderlayAddrs) -> bool {
        self.displaced.is_none() && self.node.underlay == underlay
    }

    /// Says whether this is the host that has one of these underlay addresses.
    #[must_use]
    pub fn holds(&self, underlay: UnderlayAddrs) -> bool {
        self.displaced.is_none() && self.node.underlay.overlaps(underlay)
    }

    /// Returns true if the host itself has been here.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.key != Self::HEARSAY
    }
}

impl Record for NodeRecord {
    type Home = Mesh;
    type Name = NodeName;
    type Index = ();
    type Row = NodeRow;
    const TABLE: &'static str = "nodes";

    fn name(&self) -> NodeName {
        self.node.name.clone()
    }

    fn read(_: &str, row: NodeRow) -> Result<Self, RowError> {
        Ok(Self {
            node: row.node.unwrap_or_default().try_into().map_err(fault)?,
            key: hash(row.key)?,
            joined: Timestamp::from_unix(row.joined),
            drained: row.drained,
            token: Some(row.token).filter(|token| !token.is_empty()),
            networks: names(&row.networks)?,
            displaced: parse_option(&row.displaced)?,
            echoes: row.echoes,
            placed: Edition { incarnation: row.place_incarnation, revision: row.place_revision },
        })
    }

    fn affects(state: &State, _: &Mesh, name: &NodeName, affected: &mut Affected) {
        affected.nodes = true;
        // What is told of its workloads follows from whether it is drained, and whether anybody knows where it is.
        for (network, known) in state.networks.iter().filter(|(_, known)| known.carried_by(name)) {
            let touched = affected.network(network);
            touched.hosts = true;
            touched.workloads.extend(known.workloads_of(name).map(|workload| workload.name.clone()));
        }
    }
}

impl From<&NodeRecord> for NodeRow {
    fn from(record: &NodeRecord) -> Self {
        Self {
            node: Some((&record.node).into()),
            key: record.key.into(),
            joined: record.joined.unix(),
            drained: record.drained,
            token: record.token.clone().unwrap_or_default(),
            networks: texts(&record.networks),
            displaced: text(record.displaced.as_ref()),
            echoes: record.echoes,
            place_incarnation: record.placed.incarnation,
            place_revision: record.placed.revision,
        }
    }
}
