//! Records as rows: `/sealane/v1/<kind>/<names...>`, values prost messages (wire messages where they fit, own
//! ones for what never leaves control) that only gain fields; what cannot be said so is a new [`SCHEMA`].

use std::collections::BTreeSet;

use prost::Message;
use sealane_proto::resource::{Block, Network, Node, Service, Workload};
use sealane_proto::types::{NetworkName, NodeName, TrustDomain};
use sealane_proto::wire::{WireError, v1};

use super::{Image, Meta, Rows, SCHEMA};
use crate::ca::AuthorityRecord;
use crate::core::{
    Change, Idle, NodeRecord, Recovery, Removal, RemovedNode, Rest, State, Timestamp, TokenRecord,
};
use crate::kv::Write;

/// What all keys begin with.
pub(super) const ROOT: &str = "/sealane/v1/";
/// The record that says what the store is.
pub(super) const META: &str = "/sealane/v1/meta";
const AUTHORITY: &str = "/sealane/v1/authority";

#[derive(Clone, PartialEq, Message)]
struct MetaMessage {
    #[prost(uint32, tag = "1")]
    schema: u32,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(uint64, tag = "3")]
    revision: u64,
    #[prost(string, tag = "4")]
    trust_domain: String,
}

#[derive(Clone, PartialEq, Message)]
struct AuthorityMessage {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    certificate: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct NetworkMessage {
    #[prost(message, optional, tag = "1")]
    network: Option<v1::Network>,
    #[prost(uint64, tag = "2")]
    changed: u64,
}

#[derive(Clone, PartialEq, Message)]
struct NodeMessage {
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
}

#[derive(Clone, PartialEq, Message)]
struct RemovedMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(uint64, tag = "3")]
    removed: u64,
}

#[derive(Clone, PartialEq, Message)]
struct RestMessage {
    #[prost(uint64, tag = "1")]
    after: u64,
    #[prost(uint64, tag = "2")]
    since: u64,
}

#[derive(Clone, PartialEq, Message)]
struct IdleMessage {
    #[prost(uint64, tag = "1")]
    since: u64,
    /// Empty: not known.
    #[prost(string, tag = "2")]
    by: String,
}

#[derive(Clone, PartialEq, Message)]
struct TokenMessage {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bytes = "vec", tag = "2")]
    hash: Vec<u8>,
    #[prost(uint64, tag = "3")]
    created: u64,
    #[prost(uint64, tag = "4")]
    expires: u64,
    /// 0: any number.
    #[prost(uint32, tag = "5")]
    uses: u32,
    #[prost(uint32, tag = "6")]
    used: u32,
    #[prost(string, tag = "7")]
    node: String,
    /// 0: never.
    #[prost(uint64, tag = "8")]
    revoked: u64,
    #[prost(string, repeated, tag = "9")]
    networks: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct RecoveryMessage {
    #[prost(uint64, repeated, tag = "1")]
    epochs: Vec<u64>,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(uint64, tag = "3")]
    taken: u64,
    #[prost(uint64, tag = "4")]
    restored: u64,
    /// What of each network is known: names and generations.
    #[prost(message, repeated, tag = "5")]
    networks: Vec<v1::Ack>,
    #[prost(string, repeated, tag = "6")]
    heard: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    readmitted: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    removed: Vec<RemovalMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct RemovalMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    at: u64,
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// No kind that this version knows.
    #[error("record {0:?} is of no known kind")]
    Kind(String),
    /// Not the message that it should be.
    #[error("record {key:?} is damaged: {reason}")]
    Damaged {
        /// The record.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer version.
    #[error("schema {0}, this one knows {SCHEMA}")]
    Newer(u32),
    /// What every store has is not there.
    #[error("record {0:?} is missing")]
    Missing(&'static str),
}

/// The row that says what the store is.
pub(super) fn meta(meta: &Meta) -> Write {
    let message = MetaMessage {
        schema: SCHEMA,
        epoch: meta.epoch,
        revision: meta.revision,
        trust_domain: meta.trust_domain.to_string(),
    };
    Write::Put(META.to_owned(), message.encode_to_vec())
}

/// The schema that a meta row names.
pub(super) fn schema(value: &[u8]) -> Result<u32, RecordError> {
    let row = Row { key: META, value };
    Ok(row.decode::<MetaMessage>()?.schema)
}

/// What is left where schema 1 had its meta row: older versions look there, and refuse by name.
pub(super) fn marker() -> Vec<u8> {
    MetaMessage { schema: SCHEMA, ..MetaMessage::default() }.encode_to_vec()
}

/// A meta row of an older schema as one of this.
pub(super) fn restamped(value: &[u8]) -> Result<Vec<u8>, RecordError> {
    let row = Row { key: META, value };
    Ok(MetaMessage { schema: SCHEMA, ..row.decode()? }.encode_to_vec())
}

/// The authority's row.
pub(super) fn authority(record: &AuthorityRecord) -> Write {
    let message = AuthorityMessage { key: record.key.clone(), certificate: record.certificate.clone() };
    Write::Put(AUTHORITY.to_owned(), message.encode_to_vec())
}

/// The row of a network whose content changed at this revision.
pub(super) fn network(network: &Network, changed: u64) -> Write {
    let message = NetworkMessage { network: Some(network.into()), changed };
    put(format!("networks/{}", network.name), &message)
}

/// The row of a change.
pub(super) fn change(change: &Change) -> Write {
    match change {
        Change::PutNetwork { network: it, changed } => network(it, *changed),
        Change::RemoveNetwork(name) => remove(format!("networks/{name}")),
        Change::PutNode(record) => {
            let node = Some((&record.node).into());
            let (key, joined) = (record.key.into(), record.joined.unix());
            let message = NodeMessage {
                node,
                key,
                joined,
                drained: record.drained,
                token: record.token.clone().unwrap_or_default(),
                networks: texts(&record.networks),
                displaced: record.displaced.as_ref().map(ToString::to_string).unwrap_or_default(),
            };
            put(format!("nodes/{}", record.node.name), &message)
        }
        Change::RemoveNode(name) => remove(format!("nodes/{name}")),
        Change::PutBlock { network, block } => {
            put(format!("blocks/{network}/{}", block.range), &v1::Block::from(block))
        }
        Change::RemoveBlock { network, range } => remove(format!("blocks/{network}/{range}")),
        Change::PutService { network, service } => {
            put(format!("services/{network}/{}", service.name), &v1::Service::from(service))
        }
        Change::RemoveService { network, name } => remove(format!("services/{network}/{name}")),
        Change::PutWorkload(workload) => {
            let key = format!("workloads/{}/{}", workload.network, workload.name);
            put(key, &v1::Workload::from(workload))
        }
        Change::RemoveWorkload { network, name } => remove(format!("workloads/{network}/{name}")),
        Change::PutToken(token) => put(format!("tokens/{}", token.id), &TokenMessage::from(token)),
        Change::RemoveToken(id) => remove(format!("tokens/{id}")),
        Change::PutRecovery(recovery) => put("recovery".to_owned(), &RecoveryMessage::from(recovery)),
        Change::RemoveRecovery => remove("recovery".to_owned()),
        Change::PutRemoved(removed) => {
            let message = RemovedMessage {
                name: removed.name.to_string(),
                key: removed.key.into(),
                removed: removed.removed.unix(),
            };
            put(format!("removed/{}", removed.serials()), &message)
        }
        Change::ForgetRemoved(serials) => remove(format!("removed/{serials}")),
        Change::PutRest { network, range, rest } => {
            let message = RestMessage { after: rest.after, since: rest.since.unix() };
            put(format!("rests/{network}/{range}"), &message)
        }
        Change::PutIdle { network, name, idle } => {
            let by = idle.by.as_ref().map(ToString::to_string).unwrap_or_default();
            put(format!("idle/{network}/{name}"), &IdleMessage { since: idle.since.unix(), by })
        }
        Change::RemoveIdle { network, name } => remove(format!("idle/{network}/{name}")),
        Change::RemoveRest { network, range } => remove(format!("rests/{network}/{range}")),
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
            node: token.node.as_ref().map(ToString::to_string).unwrap_or_default(),
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

fn texts(names: &BTreeSet<NetworkName>) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn put(key: String, message: &impl Message) -> Write {
    Write::Put(format!("{ROOT}{key}"), message.encode_to_vec())
}

fn remove(key: String) -> Write {
    Write::Delete(format!("{ROOT}{key}"))
}

/// Puts rows together.
pub(super) fn image(rows: &Rows) -> Result<Image, RecordError> {
    let mut loader = Loader::default();
    // First of all, because a newer version may have other kinds of records.
    let meta = rows.get(META).ok_or(RecordError::Missing("meta"))?;
    loader.load(META, meta)?;
    for (key, value) in rows {
        loader.load(key, value)?;
    }
    loader.finish()
}

#[derive(Debug, Default)]
struct Loader {
    meta: Option<Meta>,
    authority: Option<AuthorityRecord>,
    networks: Vec<Change>,
    rest: Vec<Change>,
}

impl Loader {
    /// Takes one row, in any order.
    fn load(&mut self, key: &str, value: &[u8]) -> Result<(), RecordError> {
        let row = Row { key, value };
        let path = key.strip_prefix(ROOT).ok_or_else(|| RecordError::Kind(key.to_owned()))?;
        let (kind, names) = path.split_once('/').unwrap_or((path, ""));
        match kind {
            "meta" => self.meta = Some(row.meta()?),
            "authority" => {
                let AuthorityMessage { key, certificate } = row.decode()?;
                self.authority = Some(AuthorityRecord { key, certificate });
            }
            "networks" => {
                let message: NetworkMessage = row.decode()?;
                let network = row.domain(message.network.unwrap_or_default())?;
                self.networks.push(Change::PutNetwork { network, changed: message.changed });
            }
            "blocks" => {
                let block: Block = row.domain(row.decode::<v1::Block>()?)?;
                self.rest.push(Change::PutBlock { network: row.network(names)?, block });
            }
            "services" => {
                let service: Service = row.domain(row.decode::<v1::Service>()?)?;
                self.rest.push(Change::PutService { network: row.network(names)?, service });
            }
            "workloads" => {
                let workload: Workload = row.domain(row.decode::<v1::Workload>()?)?;
                self.rest.push(Change::PutWorkload(workload));
            }
            "nodes" => self.rest.push(Change::PutNode(row.node()?)),
            "tokens" => self.rest.push(Change::PutToken(row.token()?)),
            "recovery" => self.rest.push(Change::PutRecovery(row.recovery()?)),
            "removed" => self.rest.push(Change::PutRemoved(row.removed()?)),
            "idle" => self.rest.push(row.idle(names)?),
            "rests" => self.rest.push(row.resting(names)?),
            _ => return Err(RecordError::Kind(key.to_owned())),
        }
        Ok(())
    }

    fn finish(self) -> Result<Image, RecordError> {
        let mut state = State::default();
        self.networks.iter().chain(&self.rest).for_each(|change| state.apply(change));
        Ok(Image {
            meta: self.meta.ok_or(RecordError::Missing("meta"))?,
            authority: self.authority.ok_or(RecordError::Missing("authority"))?,
            state,
        })
    }
}

struct Row<'a> {
    key: &'a str,
    value: &'a [u8],
}

impl Row<'_> {
    fn damaged(&self, reason: &dyn std::fmt::Display) -> RecordError {
        RecordError::Damaged { key: self.key.to_owned(), reason: reason.to_string() }
    }

    fn decode<M: Message + Default>(&self) -> Result<M, RecordError> {
        M::decode(self.value).map_err(|error| self.damaged(&error))
    }

    fn domain<M, T: TryFrom<M, Error = WireError>>(&self, message: M) -> Result<T, RecordError> {
        message.try_into().map_err(|error| self.damaged(&error))
    }

    fn network(&self, names: &str) -> Result<NetworkName, RecordError> {
        let name = names.split('/').next().unwrap_or_default();
        name.parse().map_err(|error| self.damaged(&error))
    }

    fn networks(&self, names: &[String]) -> Result<BTreeSet<NetworkName>, RecordError> {
        names.iter().map(|name| self.network(name)).collect()
    }

    fn hash(&self, bytes: Vec<u8>) -> Result<[u8; 32], RecordError> {
        bytes.try_into().map_err(|_| self.damaged(&"a hash has not 32 bytes"))
    }

    fn meta(&self) -> Result<Meta, RecordError> {
        let message: MetaMessage = self.decode()?;
        if message.schema > SCHEMA {
            return Err(RecordError::Newer(message.schema));
        }
        if message.epoch == 0 {
            return Err(self.damaged(&"it has no epoch"));
        }
        let trust_domain: TrustDomain = message.trust_domain.parse().map_err(|error| self.damaged(&error))?;
        Ok(Meta { epoch: message.epoch, revision: message.revision, trust_domain })
    }

    fn node(&self) -> Result<NodeRecord, RecordError> {
        let message: NodeMessage = self.decode()?;
        let node: Node = self.domain(message.node.unwrap_or_default())?;
        let joined = Timestamp::from_unix(message.joined);
        let displaced = Some(message.displaced).filter(|name| !name.is_empty());
        let displaced =
            displaced.map(|name| name.parse().map_err(|error| self.damaged(&error))).transpose()?;
        Ok(NodeRecord {
            displaced,
            node,
            key: self.hash(message.key)?,
            joined,
            drained: message.drained,
            token: Some(message.token).filter(|token| !token.is_empty()),
            networks: self.networks(&message.networks)?,
        })
    }

    fn removed(&self) -> Result<RemovedNode, RecordError> {
        let message: RemovedMessage = self.decode()?;
        Ok(RemovedNode {
            name: message.name.parse().map_err(|error| self.damaged(&error))?,
            key: self.hash(message.key)?,
            removed: Timestamp::from_unix(message.removed),
        })
    }

    fn resting(&self, names: &str) -> Result<Change, RecordError> {
        let message: RestMessage = self.decode()?;
        let range = names.split_once('/').map_or("", |(_, range)| range);
        Ok(Change::PutRest {
            network: self.network(names)?,
            range: range.parse().map_err(|error| self.damaged(&error))?,
            rest: Rest { after: message.after, since: Timestamp::from_unix(message.since) },
        })
    }

    fn idle(&self, names: &str) -> Result<Change, RecordError> {
        let IdleMessage { since, by } = self.decode()?;
        let name = names.split_once('/').map_or("", |(_, name)| name);
        let by = Some(by).filter(|by| !by.is_empty());
        let by = by.map(|by| by.parse().map_err(|error| self.damaged(&error))).transpose()?;
        Ok(Change::PutIdle {
            network: self.network(names)?,
            name: name.parse().map_err(|error| self.damaged(&error))?,
            idle: Idle { since: Timestamp::from_unix(since), by },
        })
    }

    fn recovery(&self) -> Result<Recovery, RecordError> {
        let message: RecoveryMessage = self.decode()?;
        let names = |names: Vec<String>| -> Result<_, RecordError> {
            names.iter().map(|name| name.parse().map_err(|error| self.damaged(&error))).collect()
        };
        let network = |ack: v1::Ack| {
            let name = ack.network.parse().map_err(|error| self.damaged(&error))?;
            Ok((name, ack.generation.unwrap_or_default().into()))
        };
        Ok(Recovery {
            epochs: message.epochs.into_iter().collect(),
            revision: message.revision,
            taken: Timestamp::from_unix(message.taken),
            restored: Timestamp::from_unix(message.restored),
            networks: message.networks.into_iter().map(network).collect::<Result<_, _>>()?,
            heard: names(message.heard)?,
            readmitted: names(message.readmitted)?,
            removed: message
                .removed
                .into_iter()
                .map(|removal| self.removal(removal))
                .collect::<Result<_, _>>()?,
        })
    }

    fn removal(&self, message: RemovalMessage) -> Result<(NodeName, Removal), RecordError> {
        let name = message.name.parse().map_err(|error| self.damaged(&error))?;
        Ok((name, Removal { at: Timestamp::from_unix(message.at) }))
    }

    fn token(&self) -> Result<TokenRecord, RecordError> {
        let message: TokenMessage = self.decode()?;
        let node = match message.node.as_str() {
            "" => None,
            name => Some(name.parse().map_err(|error| self.damaged(&error))?),
        };
        Ok(TokenRecord {
            hash: self.hash(message.hash)?,
            networks: self.networks(&message.networks)?,
            id: message.id,
            created: Timestamp::from_unix(message.created),
            expires: Timestamp::from_unix(message.expires),
            uses: Some(message.uses).filter(|&uses| uses != 0),
            used: message.used,
            node,
            revoked: Some(message.revoked).filter(|&at| at != 0).map(Timestamp::from_unix),
        })
    }
}
