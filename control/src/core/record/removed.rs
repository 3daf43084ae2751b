//! Hosts that were removed.

use prost::Message;
use sealane_proto::identity::SerialPrefix;

use super::{Mesh, Record, RowError, hash, parse};
use crate::core::{Affected, RemovedNode, State, Timestamp};

/// Form of a removed host's row.
#[derive(Clone, PartialEq, Message)]
pub struct RemovedRow {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(uint64, tag = "3")]
    removed: u64,
}

impl Record for RemovedNode {
    type Home = Mesh;
    type Name = SerialPrefix;
    type Index = ();
    type Row = RemovedRow;
    const TABLE: &'static str = "removed";

    fn name(&self) -> SerialPrefix {
        self.serials()
    }

    fn read(_: &str, row: RemovedRow) -> Result<Self, RowError> {
        let (name, key) = (parse(&row.name)?, hash(row.key)?);
        Ok(Self { name, key, removed: Timestamp::from_unix(row.removed) })
    }

    /// Revoked everywhere: a certificate of a network that is no more names one that is made again.
    fn affects(state: &State, _: &Mesh, _: &SerialPrefix, affected: &mut Affected) {
        affected.nodes = true;
        state.networks.keys().for_each(|network| affected.network(network).hosts = true);
    }
}

impl From<&RemovedNode> for RemovedRow {
    fn from(removed: &RemovedNode) -> Self {
        Self { name: removed.name.to_string(), key: removed.key.into(), removed: removed.removed.unix() }
    }
}
