//! Records as rows: `/sealane/v1/<kind>/<names...>`, values prost messages (wire messages where they fit, own
//! ones for what never leaves control) that only gain fields; what cannot be said so is a new [`SCHEMA`].

mod load;
mod message;

use prost::Message;
use sealane_proto::resource::Network;
use sealane_proto::wire::v1;

use super::{Meta, SCHEMA};
use crate::ca::AuthorityRecord;
use crate::core::Change;
use crate::kv::Write;
use load::Row;
pub(super) use load::image;
use message::{
    AuthorityMessage, IdleMessage, MetaMessage, NetworkMessage, NodeMessage, RecoveryMessage, RemovedMessage,
    RestMessage, TokenMessage,
};

/// Prefix of all keys.
pub(super) const ROOT: &str = "/sealane/v1/";
/// The record that says what the store is.
pub(super) const META: &str = "/sealane/v1/meta";
const AUTHORITY: &str = "/sealane/v1/authority";

/// Reasons for which a record cannot be read.
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
        /// Fault of the record.
        reason: String,
    },
    /// Written by a newer version.
    #[error("schema {0}, this one knows {SCHEMA}")]
    Newer(u32),
    /// A record that every store has is not there.
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

/// Builds the row that is left where schema 1 had its meta row: older versions look there, and refuse by name.
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
        Change::PutNode(record) => put(format!("nodes/{}", record.node.name), &NodeMessage::from(record)),
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
            put(format!("removed/{}", removed.serials()), &RemovedMessage::from(removed))
        }
        Change::ForgetRemoved(serials) => remove(format!("removed/{serials}")),
        Change::PutRest { network, range, rest } => {
            put(format!("rests/{network}/{range}"), &RestMessage::from(rest))
        }
        Change::RemoveRest { network, range } => remove(format!("rests/{network}/{range}")),
        Change::PutIdle { network, name, idle } => {
            put(format!("idle/{network}/{name}"), &IdleMessage::from(idle))
        }
        Change::RemoveIdle { network, name } => remove(format!("idle/{network}/{name}")),
    }
}

fn put(key: String, message: &impl Message) -> Write {
    Write::Put(format!("{ROOT}{key}"), message.encode_to_vec())
}

fn remove(key: String) -> Write {
    Write::Delete(format!("{ROOT}{key}"))
}
