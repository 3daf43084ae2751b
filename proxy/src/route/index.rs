//! The way from the names in a change to the routes that it is about.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::Arc;

use sealane_base::shared_map::SharedMap;
use sealane_proto::resource::Service;
use sealane_proto::types::{ServiceName, WorkloadName};

use super::{WorkloadRoute, carried};

/// Services and workloads by their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    services: SharedMap<ServiceName, Arc<ServiceFront>>,
    workloads: SharedMap<ByName, ()>,
    instances: SharedMap<ServiceName, Arc<[Arc<WorkloadRoute>]>>,
}

/// Address and ports of a service.
#[derive(Debug)]
pub(super) struct ServiceFront {
    pub(super) vip: Ipv4Addr,
    ports: Box<[u16]>,
}

/// A route that is found by its workload's name, and has it alone.
#[derive(Clone, Debug)]
struct ByName(Arc<WorkloadRoute>);

impl ServiceFront {
    pub(super) fn new(service: &Service) -> Self {
        let ports = carried(&service.ports).map(|offered| offered.port.get()).collect();
        Self { vip: service.vip.to_ipv4(), ports }
    }

    /// The address with each of the ports, in their order.
    pub(super) fn ports(&self) -> impl Iterator<Item = (Ipv4Addr, u16)> {
        self.ports.iter().map(|port| (self.vip, *port))
    }
}

impl Index {
    pub(super) fn service(&self, name: &ServiceName) -> Option<&Arc<ServiceFront>> {
        self.services.get(name)
    }

    pub(super) fn note_service(&mut self, name: &ServiceName, front: Arc<ServiceFront>) {
        self.services.insert(name.clone(), front);
    }

    pub(super) fn forget_service(&mut self, name: &ServiceName) -> Option<Arc<ServiceFront>> {
        self.services.remove(name)
    }

    pub(super) fn note_workload(&mut self, route: Arc<WorkloadRoute>) {
        self.workloads.insert(ByName(route), ());
    }

    /// Forgets a workload, but as an instance.
    pub(super) fn forget_workload(&mut self, name: &WorkloadName) -> Option<Arc<WorkloadRoute>> {
        self.workloads.remove_entry(name).map(|(ByName(route), ())| route)
    }

    /// The instances of a service, in the order of their names.
    pub(super) fn instances(&self, service: &ServiceName) -> &[Arc<WorkloadRoute>] {
        self.instances.get(service).map_or(&[], |instances| instances)
    }

    pub(super) fn note_instances(&mut self, service: &ServiceName, mut instances: Vec<Arc<WorkloadRoute>>) {
        instances.sort_by(|one, other| one.name.cmp(&other.name));
        if instances.is_empty() {
            self.instances.remove(service);
        } else {
            self.instances.insert(service.clone(), instances.into());
        }
    }
}

impl Borrow<WorkloadName> for ByName {
    fn borrow(&self) -> &WorkloadName {
        &self.0.name
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ByName {}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}
