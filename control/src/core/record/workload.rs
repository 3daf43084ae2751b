//! Workloads, and where each is found.

use std::collections::{BTreeMap, BTreeSet};

use sealane_proto::resource::Workload;
use sealane_proto::types::{MacAddr, NetworkName, NodeName, OverlayIp, ServiceName, WorkloadName};
use sealane_proto::wire::v1;

use super::{Record, RowError, fault};
use crate::core::table::{Index, remove_from};
use crate::core::{Affected, State};

/// The names of workloads by address, Ethernet address, service and host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadIndex {
    /// Owners of addresses.
    pub addresses: BTreeMap<OverlayIp, WorkloadName>,
    /// Owners of Ethernet addresses.
    pub macs: BTreeMap<MacAddr, WorkloadName>,
    /// The instances of each service.
    pub instances: BTreeMap<ServiceName, BTreeSet<WorkloadName>>,
    /// The workloads of each host.
    pub by_node: BTreeMap<NodeName, BTreeSet<WorkloadName>>,
}

impl Record for Workload {
    type Home = NetworkName;
    type Name = WorkloadName;
    type Index = WorkloadIndex;
    type Row = v1::Workload;
    const TABLE: &'static str = "workloads";

    fn name(&self) -> WorkloadName {
        self.name.clone()
    }

    fn read(_: &str, row: v1::Workload) -> Result<Self, RowError> {
        row.try_into().map_err(fault)
    }

    fn affects(_: &State, network: &NetworkName, name: &WorkloadName, affected: &mut Affected) {
        affected.network(network).workloads.insert(name.clone());
    }
}

impl Index<Workload> for WorkloadIndex {
    fn enter(&mut self, workload: &Workload) {
        let name = &workload.name;
        self.addresses.insert(workload.address, name.clone());
        self.macs.insert(workload.mac, name.clone());
        self.by_node.entry(workload.node.clone()).or_default().insert(name.clone());
        if let Some(service) = &workload.service {
            self.instances.entry(service.clone()).or_default().insert(name.clone());
        }
    }

    /// Within one report an address may already be its new holder's.
    fn leave(&mut self, workload: &Workload) {
        let name = &workload.name;
        if self.addresses.get(&workload.address) == Some(name) {
            self.addresses.remove(&workload.address);
        }
        if self.macs.get(&workload.mac) == Some(name) {
            self.macs.remove(&workload.mac);
        }
        remove_from(&mut self.by_node, &workload.node, name);
        if let Some(service) = &workload.service {
            remove_from(&mut self.instances, service, name);
        }
    }
}
