//! Rows to records.

use std::collections::BTreeSet;

use prost::Message;
use sealane_proto::resource::{Block, Node, Service, Workload};
use sealane_proto::types::{NetworkName, NodeName, TrustDomain};
use sealane_proto::wire::{WireError, v1};

use super::message::{
    AuthorityMessage, IdleMessage, MetaMessage, NetworkMessage, NodeMessage, RecoveryMessage, RemovalMessage,
    RemovedMessage, RestMessage, TokenMessage,
};
use super::{META, ROOT, RecordError};
use crate::ca::AuthorityRecord;
use crate::core::{
    Change, Idle, NodeRecord, Recovery, Removal, RemovedNode, Rest, State, Timestamp, TokenRecord,
};
use crate::store::{Image, Meta, Rows, SCHEMA};

/// Puts rows together.
pub(in crate::store) fn image(rows: &Rows) -> Result<Image, RecordError> {
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

/// Row with its key, for when it cannot be read.
pub(super) struct Row<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
}

impl Row<'_> {
    fn damaged(&self, reason: &dyn std::fmt::Display) -> RecordError {
        RecordError::Damaged { key: self.key.to_owned(), reason: reason.to_string() }
    }

    pub(super) fn decode<M: Message + Default>(&self) -> Result<M, RecordError> {
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

    /// A host's name; none where the text is empty.
    fn host(&self, name: &str) -> Result<Option<NodeName>, RecordError> {
        let name = Some(name).filter(|name| !name.is_empty());
        name.map(|name| name.parse().map_err(|error| self.damaged(&error))).transpose()
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
        Ok(NodeRecord {
            node,
            key: self.hash(message.key)?,
            joined,
            drained: message.drained,
            token: Some(message.token).filter(|token| !token.is_empty()),
            networks: self.networks(&message.networks)?,
            displaced: self.host(&message.displaced)?,
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
        Ok(Change::PutIdle {
            network: self.network(names)?,
            name: name.parse().map_err(|error| self.damaged(&error))?,
            idle: Idle { since: Timestamp::from_unix(since), by: self.host(&by)? },
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
        Ok(TokenRecord {
            hash: self.hash(message.hash)?,
            networks: self.networks(&message.networks)?,
            id: message.id,
            created: Timestamp::from_unix(message.created),
            expires: Timestamp::from_unix(message.expires),
            uses: Some(message.uses).filter(|&uses| uses != 0),
            used: message.used,
            node: self.host(&message.node)?,
            revoked: Some(message.revoked).filter(|&at| at != 0).map(Timestamp::from_unix),
        })
    }
}
