//! Routes.

use sealane_proto::resource::{Route, RouteId};
use sealane_proto::types::NetworkName;
use sealane_proto::wire::v1;

use super::{Record, RowError, fault};
use crate::core::{Affected, State};

impl Record for Route {
    type Home = NetworkName;
    type Name = RouteId;
    type Index = ();
    type Row = v1::Route;
    const TABLE: &'static str = "routes";

    fn name(&self) -> RouteId {
        self.id.clone()
    }

    fn read(_: &str, row: v1::Route) -> Result<Self, RowError> {
        row.try_into().map_err(fault)
    }

    fn affects(_: &State, network: &NetworkName, id: &RouteId, affected: &mut Affected) {
        affected.network(network).routes.insert(id.clone());
    }
}
