//! Memory of a store's restoration: one record, or none.

use std::fmt;
use std::str::FromStr;

use prost::Message;
use sealane_proto::types::NodeName;
use sealane_proto::wire::v1;

use super::{Kept, Mesh, Record, RowError, names, parse, texts};
use crate::core::{Change, Edit, Recovery, Removal, State, Timestamp};

/// Name of the only record of its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Only;

/// Form of the restoration's row.
#[derive(Clone, PartialEq, Message)]
pub struct RecoveryRow {
    #[prost(uint64, repeated, tag = "1")]
    epochs: Vec<u64>,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(uint64, tag = "3")]
    taken: u64,
    #[prost(uint64, tag = "4")]
    restored: u64,
    /// Known networks: names and generations.
    #[prost(message, repeated, tag = "5")]
    networks: Vec<v1::Ack>,
    #[prost(string, repeated, tag = "6")]
    heard: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    readmitted: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    removed: Vec<RemovalRow>,
}

#[derive(Clone, PartialEq, Message)]
struct RemovalRow {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    at: u64,
}

impl fmt::Display for Only {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl FromStr for Only {
    type Err = RowError;

    fn from_str(_: &str) -> Result<Self, RowError> {
        Ok(Self)
    }
}

impl Record for Recovery {
    type Home = Mesh;
    type Name = Only;
    type Index = ();
    type Row = RecoveryRow;
    const TABLE: &'static str = "recovery";

    fn name(&self) -> Only {
        Only
    }

    fn read(_: &str, row: RecoveryRow) -> Result<Self, RowError> {
        let network = |ack: v1::Ack| Ok((parse(&ack.network)?, ack.generation.unwrap_or_default().into()));
        let removal = |RemovalRow { name, at }| Ok((parse(&name)?, Removal { at: Timestamp::from_unix(at) }));
        Ok(Self {
            epochs: row.epochs.into_iter().collect(),
            revision: row.revision,
            taken: Timestamp::from_unix(row.taken),
            restored: Timestamp::from_unix(row.restored),
            networks: row.networks.into_iter().map(network).collect::<Result<_, RowError>>()?,
            heard: names(&row.heard)?,
            readmitted: names(&row.readmitted)?,
            removed: row.removed.into_iter().map(removal).collect::<Result<_, RowError>>()?,
        })
    }
}

impl Kept for Recovery {
    fn change(edit: Edit<Self>) -> Change {
        Change::Recovery(edit)
    }

    fn find(state: &State, _: &Mesh, _: &Only) -> Option<Self> {
        state.recovery.clone()
    }

    fn set(state: &mut State, _: &Mesh, _: &Only, record: Option<&Self>) {
        state.recovery = record.cloned();
    }
}

impl From<&Recovery> for RecoveryRow {
    fn from(recovery: &Recovery) -> Self {
        let networks = recovery.networks.iter().map(|(network, &generation)| v1::Ack {
            network: network.to_string(),
            generation: Some(generation.into()),
            voucher: None,
        });
        Self {
            epochs: recovery.epochs.iter().copied().collect(),
            revision: recovery.revision,
            taken: recovery.taken.unix(),
            restored: recovery.restored.unix(),
            networks: networks.collect(),
            heard: texts(&recovery.heard),
            readmitted: texts(&recovery.readmitted),
            removed: recovery.removed.iter().map(Into::into).collect(),
        }
    }
}

impl From<(&NodeName, &Removal)> for RemovalRow {
    fn from((name, removal): (&NodeName, &Removal)) -> Self {
        Self { name: name.to_string(), at: removal.at.unix() }
    }
}
