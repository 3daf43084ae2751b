//! Services.

use sealane_proto::resource::Service;
use sealane_proto::types::{NetworkName, ServiceName};
use sealane_proto::wire::v1;

use super::{Record, RowError, fault};
use crate::core::{Affected, State};

impl Record for Service {
    type Home = NetworkName;
    type Name = ServiceName;
    type Index = ();
    type Row = v1::Service;
    const TABLE: &'static str = "services";

    fn name(&self) -> ServiceName {
        self.name.clone()
    }

    fn read(_: &str, row: v1::Service) -> Result<Self, RowError> {
        row.try_into().map_err(fault)
    }

    fn affects(_: &State, network: &NetworkName, name: &ServiceName, affected: &mut Affected) {
        affected.network(network).services.insert(name.clone());
    }
}
