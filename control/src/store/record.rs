//! Records as bytes: wire messages where they fit, own ones for what never leaves control.

use prost::Message;
use sealane_proto::resource::{Block, Network, Node, Service, Workload};
use sealane_proto::types::{NetworkName, TrustDomain};
use sealane_proto::wire::{WireError, v1};

use super::{Image, Meta, SCHEMA};
use crate::ca::AuthorityRecord;
use crate::core::{Change, NodeRecord, State, Timestamp, TokenRecord};

/// The record that says what the store is.
pub(super) const META: &str = "meta";
const AUTHORITY: &str = "authority";

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

/// One row of the table to be: a value, or none to remove it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(super) key: String,
    pub(super) value: Option<Vec<u8>>,
}

impl Entry {
    pub(super) fn meta(meta: &Meta) -> Self {
        let message = MetaMessage {
            schema: SCHEMA,
            epoch: meta.epoch,
            revision: meta.revision,
            trust_domain: meta.trust_domain.to_string(),
        };
        put(META.to_owned(), &message)
    }

    pub(super) fn authority(record: &AuthorityRecord) -> Self {
        let message = AuthorityMessage { key: record.key.clone(), certificate: record.certificate.clone() };
        put(AUTHORITY.to_owned(), &message)
    }

    /// A network whose content changed at this revision.
    pub(super) fn network(network: &Network, changed: u64) -> Self {
        let message = NetworkMessage { network: Some(network.into()), changed };
        put(format!("network/{}", network.name), &message)
    }

    /// The row of a change.
    pub(super) fn change(change: &Change) -> Self {
        match change {
            Change::PutNetwork { network, changed } => Self::network(network, *changed),
            Change::RemoveNetwork(name) => remove(format!("network/{name}")),
            Change::PutNode(record) => {
                let node = Some((&record.node).into());
                let message = NodeMessage { node, key: record.key.into(), joined: record.joined.unix() };
                put(format!("node/{}", record.node.name), &message)
            }
            Change::RemoveNode(name) => remove(format!("node/{name}")),
            Change::PutBlock { network, block } => {
                put(format!("block/{network}/{}", block.range), &v1::Block::from(block))
            }
            Change::RemoveBlock { network, range } => remove(format!("block/{network}/{range}")),
            Change::PutService { network, service } => {
                put(format!("service/{network}/{}", service.name), &v1::Service::from(service))
            }
            Change::RemoveService { network, name } => remove(format!("service/{network}/{name}")),
            Change::PutWorkload(workload) => {
                let key = format!("workload/{}/{}", workload.network, workload.name);
                put(key, &v1::Workload::from(workload))
            }
            Change::RemoveWorkload { network, name } => remove(format!("workload/{network}/{name}")),
            Change::PutToken(token) => {
                let message = TokenMessage {
                    id: token.id.clone(),
                    hash: token.hash.into(),
                    created: token.created.unix(),
                    expires: token.expires.unix(),
                };
                put(format!("token/{}", token.id), &message)
            }
            Change::RemoveToken(id) => remove(format!("token/{id}")),
        }
    }
}

fn put(key: String, message: &impl Message) -> Entry {
    Entry { key, value: Some(message.encode_to_vec()) }
}

fn remove(key: String) -> Entry {
    Entry { key, value: None }
}

/// Puts rows together to an image.
#[derive(Debug, Default)]
pub(super) struct Loader {
    meta: Option<Meta>,
    authority: Option<AuthorityRecord>,
    networks: Vec<Change>,
    rest: Vec<Change>,
}

impl Loader {
    /// Takes one row, in any order.
    pub(super) fn load(&mut self, key: &str, value: &[u8]) -> Result<(), RecordError> {
        let row = Row { key, value };
        let (kind, names) = key.split_once('/').unwrap_or((key, ""));
        match kind {
            META => self.meta = Some(row.meta()?),
            AUTHORITY => {
                let AuthorityMessage { key, certificate } = row.decode()?;
                self.authority = Some(AuthorityRecord { key, certificate });
            }
            "network" => {
                let message: NetworkMessage = row.decode()?;
                let network = row.domain(message.network.unwrap_or_default())?;
                self.networks.push(Change::PutNetwork { network, changed: message.changed });
            }
            "block" => {
                let block: Block = row.domain(row.decode::<v1::Block>()?)?;
                self.rest.push(Change::PutBlock { network: row.network(names)?, block });
            }
            "service" => {
                let service: Service = row.domain(row.decode::<v1::Service>()?)?;
                self.rest.push(Change::PutService { network: row.network(names)?, service });
            }
            "workload" => {
                let workload: Workload = row.domain(row.decode::<v1::Workload>()?)?;
                self.rest.push(Change::PutWorkload(workload));
            }
            "node" => self.rest.push(Change::PutNode(row.node()?)),
            "token" => self.rest.push(Change::PutToken(row.token()?)),
            _ => return Err(RecordError::Kind(key.to_owned())),
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Image, RecordError> {
        let mut state = State::default();
        self.networks.iter().chain(&self.rest).for_each(|change| state.apply(change));
        Ok(Image {
            meta: self.meta.ok_or(RecordError::Missing(META))?,
            authority: self.authority.ok_or(RecordError::Missing(AUTHORITY))?,
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

    fn hash(&self, bytes: Vec<u8>) -> Result<[u8; 32], RecordError> {
        bytes.try_into().map_err(|_| self.damaged(&"a hash has not 32 bytes"))
    }

    fn meta(&self) -> Result<Meta, RecordError> {
        let message: MetaMessage = self.decode()?;
        if message.schema > SCHEMA {
            return Err(RecordError::Newer(message.schema));
        }
        let trust_domain: TrustDomain = message.trust_domain.parse().map_err(|error| self.damaged(&error))?;
        Ok(Meta { epoch: message.epoch, revision: message.revision, trust_domain })
    }

    fn node(&self) -> Result<NodeRecord, RecordError> {
        let message: NodeMessage = self.decode()?;
        let node: Node = self.domain(message.node.unwrap_or_default())?;
        let joined = Timestamp::from_unix(message.joined);
        Ok(NodeRecord { node, key: self.hash(message.key)?, joined })
    }

    fn token(&self) -> Result<TokenRecord, RecordError> {
        let message: TokenMessage = self.decode()?;
        Ok(TokenRecord {
            hash: self.hash(message.hash)?,
            id: message.id,
            created: Timestamp::from_unix(message.created),
            expires: Timestamp::from_unix(message.expires),
        })
    }
}
