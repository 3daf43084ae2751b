//! Messages of records that never leave control, which only gain fields.

use std::collections::BTreeSet;

use prost::Message;
use sealane_proto::types::{NetworkName, NodeName};
use sealane_proto::wire::v1;

use crate::core::{Idle, NodeRecord, Recovery, Removal, RemovedNode, Rest, Timestamp, TokenRecord};

#[derive(Clone, PartialEq, Message)]
pub(super) struct MetaMessage {
    #[prost(uint32, tag = "1")]
    pub(super) schema: u32,
    #[prost(uint64, tag = "2")]
    pub(super) epoch: u64,
    #[prost(uint64, tag = "3")]
    pub(super) revision: u64,
    #[prost(string, tag = "4")]
    pub(super) trust_domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AuthorityMessage {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) certificate: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NetworkMessage {
    #[prost(message, optional, tag = "1")]
    pub(super) network: Option<v1::Network>,
    #[prost(uint64, tag = "2")]
    pub(super) changed: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeMessage {
    #[prost(message, optional, tag = "1")]
    pub(super) node: Option<v1::Node>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) key: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub(super) joined: u64,
    #[prost(bool, tag = "4")]
    pub(super) drained: bool,
    /// Empty: not known.
    #[prost(string, tag = "5")]
    pub(super) token: String,
    #[prost(string, repeated, tag = "6")]
    pub(super) networks: Vec<String>,
    /// Empty: its underlay address is its own.
    #[prost(string, tag = "7")]
    pub(super) displaced: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RemovedMessage {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) key: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub(super) removed: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RestMessage {
    #[prost(uint64, tag = "1")]
    pub(super) after: u64,
    #[prost(uint64, tag = "2")]
    pub(super) since: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct IdleMessage {
    #[prost(uint64, tag = "1")]
    pub(super) since: u64,
    /// Empty: not known.
    #[prost(string, tag = "2")]
    pub(super) by: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TokenMessage {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) hash: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub(super) created: u64,
    #[prost(uint64, tag = "4")]
    pub(super) expires: u64,
    /// 0: any number.
    #[prost(uint32, tag = "5")]
    pub(super) uses: u32,
    #[prost(uint32, tag = "6")]
    pub(super) used: u32,
    #[prost(string, tag = "7")]
    pub(super) node: String,
    /// 0: never.
    #[prost(uint64, tag = "8")]
    pub(super) revoked: u64,
    #[prost(string, repeated, tag = "9")]
    pub(super) networks: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RecoveryMessage {
    #[prost(uint64, repeated, tag = "1")]
    pub(super) epochs: Vec<u64>,
    #[prost(uint64, tag = "2")]
    pub(super) revision: u64,
    #[prost(uint64, tag = "3")]
    pub(super) taken: u64,
    #[prost(uint64, tag = "4")]
    pub(super) restored: u64,
    /// Known networks: names and generations.
    #[prost(message, repeated, tag = "5")]
    pub(super) networks: Vec<v1::Ack>,
    #[prost(string, repeated, tag = "6")]
    pub(super) heard: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    pub(super) readmitted: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    pub(super) removed: Vec<RemovalMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RemovalMessage {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(uint64, tag = "2")]
    pub(super) at: u64,
}

impl From<&NodeRecord> for NodeMessage {
    fn from(record: &NodeRecord) -> Self {
        Self {
            node: Some((&record.node).into()),
            key: record.key.into(),
            joined: record.joined.unix(),
            drained: record.drained,
            token: record.token.clone().unwrap_or_default(),
            networks: texts(&record.networks),
            displaced: text(record.displaced.as_ref()),
        }
    }
}

impl From<&RemovedNode> for RemovedMessage {
    fn from(removed: &RemovedNode) -> Self {
        Self { name: removed.name.to_string(), key: removed.key.into(), removed: removed.removed.unix() }
    }
}

impl From<&Rest> for RestMessage {
    fn from(rest: &Rest) -> Self {
        Self { after: rest.after, since: rest.since.unix() }
    }
}

impl From<&Idle> for IdleMessage {
    fn from(idle: &Idle) -> Self {
        Self { since: idle.since.unix(), by: text(idle.by.as_ref()) }
    }
}

impl From<&TokenRecord> for TokenMessage {
    fn from(token: &TokenRecord) -> Self {
        Self {
            id: token.id.clone(),
            hash: token.hash.into(),
            created: token.created.unix(),
            expires: token.expires.unix(),
            uses: token.uses.unwrap_or_default(),
            used: token.used,
            node: text(token.node.as_ref()),
            revoked: token.revoked.map(Timestamp::unix).unwrap_or_default(),
            networks: texts(&token.networks),
        }
    }
}

impl From<&Recovery> for RecoveryMessage {
    fn from(recovery: &Recovery) -> Self {
        let networks = recovery.networks.iter().map(|(network, &generation)| v1::Ack {
            network: network.to_string(),
            generation: Some(generation.into()),
        });
        Self {
            epochs: recovery.epochs.iter().copied().collect(),
            revision: recovery.revision,
            taken: recovery.taken.unix(),
            restored: recovery.restored.unix(),
            networks: networks.collect(),
            heard: recovery.heard.iter().map(ToString::to_string).collect(),
            readmitted: recovery.readmitted.iter().map(ToString::to_string).collect(),
            removed: recovery.removed.iter().map(Into::into).collect(),
        }
    }
}

impl From<(&NodeName, &Removal)> for RemovalMessage {
    fn from((name, removal): (&NodeName, &Removal)) -> Self {
        Self { name: name.to_string(), at: removal.at.unix() }
    }
}

fn text(name: Option<&NodeName>) -> String {
    name.map(ToString::to_string).unwrap_or_default()
}

fn texts(names: &BTreeSet<NetworkName>) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}
