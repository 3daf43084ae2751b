//! Networks.

use prost::Message;
use sealane_proto::resource::Network;
use sealane_proto::types::NetworkName;
use sealane_proto::wire::v1;

use super::{Kept, Mesh, Record, RowError, fault};
use crate::core::{Affected, Change, Edit, NetworkState, State};

/// A network, without what lives in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRecord {
    /// The network itself.
    pub network: Network,
    /// The revision at which its content last changed.
    pub changed: u64,
}

/// Form of a network's row.
#[derive(Clone, PartialEq, Message)]
pub struct NetworkRow {
    #[prost(message, optional, tag = "1")]
    network: Option<v1::Network>,
    #[prost(uint64, tag = "2")]
    changed: u64,
}

impl Record for NetworkRecord {
    type Home = Mesh;
    type Name = NetworkName;
    type Index = ();
    type Row = NetworkRow;
    const TABLE: &'static str = "networks";

    fn name(&self) -> NetworkName {
        self.network.name.clone()
    }

    fn read(_: &str, row: NetworkRow) -> Result<Self, RowError> {
        let network = row.network.unwrap_or_default().try_into().map_err(fault)?;
        Ok(Self { network, changed: row.changed })
    }

    fn affects(_: &State, _: &Mesh, name: &NetworkName, affected: &mut Affected) {
        affected.network(name).hosts = true;
    }
}

/// A network is kept with its content, which its own changes leave as it is.
impl Kept for NetworkRecord {
    fn change(edit: Edit<Self>) -> Change {
        Change::Network(edit)
    }

    fn find(state: &State, _: &Mesh, name: &NetworkName) -> Option<Self> {
        let NetworkState { network, changed, .. } = state.networks.get(name)?;
        Some(Self { network: network.clone(), changed: *changed })
    }

    fn set(state: &mut State, _: &Mesh, name: &NetworkName, record: Option<&Self>) {
        let Some(Self { network, changed }) = record else {
            state.networks.remove(name);
            return;
        };
        let known = state.networks.entry(name.clone());
        let known = known.or_insert_with(|| NetworkState::new(network.clone()));
        known.network = network.clone();
        known.changed = *changed;
    }
}

impl From<&NetworkRecord> for NetworkRow {
    fn from(NetworkRecord { network, changed }: &NetworkRecord) -> Self {
        Self { network: Some(network.into()), changed: *changed }
    }
}
