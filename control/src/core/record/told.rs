//! Ages of what hosts have told.

use sealane_proto::types::{NetworkName, NodeName};
use sealane_proto::wire::v1;

use super::{Record, RowError, fault};
use crate::core::{Affected, State, Told};

impl Record for Told {
    type Home = NetworkName;
    type Name = NodeName;
    type Index = ();
    type Row = v1::OwnerEdition;
    const TABLE: &'static str = "editions";

    fn name(&self) -> NodeName {
        self.node.clone()
    }

    fn read(_: &str, row: v1::OwnerEdition) -> Result<Self, RowError> {
        let (node, edition) = row.try_into().map_err(fault)?;
        Ok(Self { node, edition })
    }

    fn affects(_: &State, network: &NetworkName, name: &NodeName, affected: &mut Affected) {
        affected.network(network).words.insert(name.clone());
    }
}

impl From<&Told> for v1::OwnerEdition {
    fn from(Told { node, edition }: &Told) -> Self {
        (node, edition).into()
    }
}
